"""A study whose cases are lines of a file: those it holds are not run again."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from _processes import note

from twinheart.cli.terminal import plain

Row = dict[str, Any]


def run_study(
    file: Path,
    settings: Row,
    cases: Sequence[Any],
    prepare: Callable[[], Callable[[Any], Row]],
    *,
    key: str,
    line: Callable[[Row], str],
    workers: int = 1,
) -> list[Row]:
    """Rows of all cases, in their order.

    Where one is missing, `prepare` is called once and gives what makes the row of a case, which
    holds the case under `key`. With several workers that must be what processes can be sent.
    """
    rows = _stored(file, settings, key)
    missing = [case for case in cases if case not in rows]
    if missing:
        for row in map(plain, _computed(missing, prepare(), workers)):
            rows[row[key]] = row
            with file.open("a") as out:
                out.write(json.dumps(row, allow_nan=False) + "\n")
            done = sum(case in rows for case in cases)
            note(f"{key} {row[key]} ({done} of {len(cases)}): {line(row)}")
    return [rows[case] for case in cases]


def _computed(missing, make: Callable[[Any], Row], workers: int) -> Iterator[Row]:
    """Rows as they end; with one worker in this process."""
    if workers == 1:
        yield from map(make, missing)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(make, case) for case in missing]
        failed: list[BaseException] = []
        for ended in as_completed(waiting):
            if (error := ended.exception()) is None:
                yield ended.result()
            else:  # the rows of the others are kept
                note(f"a case failed: {error}")
                failed.append(error)
    if failed:
        raise failed[0]


def _stored(file: Path, settings: Row, key: str) -> dict[Any, Row]:
    """Rows of a file of the same study; makes it if there is none."""
    mark = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    if not file.exists():
        file.write_text(json.dumps({"study": mark}) + "\n")
        return {}
    text = file.read_text()
    lines = text[: text.rfind("\n") + 1].splitlines()
    if not lines or json.loads(lines[0]).get("study") != mark:
        raise SystemExit(f"arrhythmia.py: {file} holds another study: give another file.")
    file.write_text("\n".join(lines) + "\n")  # without a line that was not finished
    return {row[key]: row for row in map(json.loads, lines[1:])}
