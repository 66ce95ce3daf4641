"""Programs that run in processes of their own and take turns while they are timed."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

from twinheart.cli.terminal import plain

QUIET = 0.15  # processors that others may keep busy during a timing
MIN_ROUNDS, MAX_ROUNDS, ATTEMPTS, BUDGET_S = 5, 25, 4, 600.0


class Child:
    """A program in its own process that answers one JSON line for every JSON line."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path):
        self.log: IO[str] = (folder / f"{len(list(folder.glob('*.log')))}.log").open("w+")
        self.name = Path(command[1]).name
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        if self.process.stdin is None or self.process.stdout is None:
            raise OSError("no pipes to the child process")
        self.requests, self.answers = self.process.stdin, self.process.stdout
        self.about = self._answer()

    def request(self, **message) -> dict[str, Any]:
        """Send a request, wait for the answer, and note how busy other processes were."""
        busy, start = self._others_cpu_s(), time.monotonic()
        self.requests.write(json.dumps(message) + "\n")
        self.requests.flush()
        answer = self._answer()
        elapsed = time.monotonic() - start
        answer["others_busy"] = max(0.0, self._others_cpu_s() - busy) / elapsed
        return answer

    def close(self) -> None:
        """End the program and wait for it."""
        self.requests.close()
        self.process.wait(timeout=60)
        self.answers.close()
        self.log.close()

    def _answer(self) -> dict[str, Any]:
        line = self.answers.readline()
        if not line:
            self.log.seek(0)
            tail = self.log.read()[-2000:]
            self.close()
            raise SystemExit(f"peers.py: {self.name} ended early:\n{tail}")
        return json.loads(line)

    def _others_cpu_s(self) -> float:
        """Processor time of the machine without this child, or taken by its host; 0 if unknown."""
        try:
            machine = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
            child = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, machine)
        others = user + nice + system + irq + softirq + steal - int(child[11]) - int(child[12])
        return others / os.sysconf("SC_CLK_TCK")


def take_turns(requests: dict[str, tuple[Child, dict]]) -> dict[str, Any]:
    """Time the requests in turn, round after round.

    A timing during which others were busy is repeated up to `ATTEMPTS` times. Returns seconds per
    simulated millisecond, request by request, of the rounds that were quiet throughout (of all
    rounds, if fewer than three were) and whether they were quiet.
    """
    rounds: list[dict[str, dict]] = []
    start = time.monotonic()
    while len(rounds) < MAX_ROUNDS:
        quiet = sum(map(_is_quiet, rounds))
        late = time.monotonic() - start > BUDGET_S
        if len(rounds) >= 3 and (late or quiet >= MIN_ROUNDS):
            break
        note(f"timing, round {len(rounds) + 1} ({quiet} quiet so far)")
        attempts = 1 if late else ATTEMPTS
        rounds.append({name: _timing(*r, attempts) for name, r in requests.items()})
    kept = [r for r in rounds if _is_quiet(r)]
    quiet = len(kept) >= 3
    kept = kept if quiet else rounds
    seconds = {name: [r[name]["wall_s"] / r[name]["t_ms"] for r in kept] for name in requests}
    return {"quiet": quiet, "rounds": len(kept), "seconds": seconds, "last": rounds[-1]}


def _is_quiet(round_: dict[str, dict]) -> bool:
    return all(answer["others_busy"] <= QUIET for answer in round_.values())


def _timing(child: Child, request: dict, attempts: int) -> dict[str, Any]:
    answers = []
    while len(answers) < attempts and not (answers and answers[-1]["others_busy"] <= QUIET):
        answers.append(child.request(**request))
    return min(answers, key=lambda answer: answer["others_busy"])


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def machine() -> str:
    """Processor and number of cores."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    return f"{name}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def note(text: str) -> None:
    """Progress, apart from the result."""
    print(text, file=sys.stderr, flush=True)


def write_json(path: Path, value) -> None:
    """Write a JSON file whole or not at all; what is not a number becomes null."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(plain(value), indent=1, allow_nan=False) + "\n")
    os.replace(partial, path)
