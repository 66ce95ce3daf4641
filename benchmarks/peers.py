"""twinheart beside TorchCor: same mesh, cell model, stimulus and time step, in one run.

    python benchmarks/peers.py --json

Creates TorchCor's own environment (`.venv-torchcor`) where it is missing, starts both programs
side by side with the same number of threads, and lets them take turns, so that noise of the
machine meets both. TorchCor's activation times are read from the cache under
`benchmarks/results/<device>/`; `--refresh` computes them anew. Prints a table, or with `--json`
one JSON object; the same object is written to `peers.json` beside the cache.
"""

import argparse
import datetime
import json
import math
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from _processes import Child, machine, note, spread, take_turns, write_json
from _torchcor import MODES, cached_activation, start_torchcor

from twinheart.tissue.niederer import POINTS

HERE = Path(__file__).resolve().parent
DX, DT = 0.2, 0.02  # mm, ms: the comparison at equal mesh and step
COARSE_DX = 0.5  # mm: TorchCor's activation times only
LONGEST = {DX: 90.0, COARSE_DX: 150.0}  # ms
SPAN = 3.0  # simulated ms of one timing; CG needs fewest iterations then, which favours TorchCor
FAST_SPAN = 30.0  # ms, where 3 ms would be over too soon to time
_MEASURED = ((0.0, 7.0, 0.0), (20.0, 0.0, 0.0), (20.0, 7.0, 3.0), (10.0, 3.5, 1.5))
ERROR_POINTS = tuple(name for name, place in POINTS.items() if place in _MEASURED)
# Our settings for the comparison at equal error: edges that divide the slab [mm] and steps [ms].
# 1 mm is left out: it conducts at one step and blocks at another, so that its error is an accident.
CANDIDATES = [
    (dx, dt) for dx in (0.5, 1 / 3, 0.25, 0.2) for dt in (0.1, 0.08, 0.05, 0.04, 0.025, 0.02)
]


def relative_error(lat: dict[str, float | None], converged: dict[str, float]) -> float | None:
    """RMS over the four points of the relative error; None where one is never activated."""
    squares = []
    for point in ERROR_POINTS:
        time = lat[point]
        if time is None:
            return None
        squares.append((time / converged[point] - 1.0) ** 2)
    return math.sqrt(statistics.fmean(squares))


def cheapest_as_accurate(own: Child, errors: dict[str, float | None], converged) -> dict[str, Any]:
    """For each error, the cheapest of our settings that stays within it; None where there is none.

    The settings are tried in order of the number of node-steps, each with the default scheme.
    """
    found: dict[str, Any] = dict.fromkeys(errors)
    tried = []
    for dx, dt in sorted(CANDIDATES, key=lambda c: c[0] ** -3 / c[1]):
        answer = own.request(dx=dx, dt=dt, scheme="default", t_end=120.0, activation=True)
        error = relative_error(answer["lat_ms"], converged)
        note(f"twinheart at {dx:.3g} mm, {dt:g} ms: error {percent(error)}")
        tried.append({"dx_mm": dx, "dt_ms": dt, "error": error} | answer)
        for mode, bound in errors.items():
            if found[mode] is None and error is not None and error <= (bound or 0.0):
                found[mode] = tried[-1]
        if None not in found.values():
            break
    return found | {"tried": [{k: t[k] for k in ("dx_mm", "dt_ms", "error")} for t in tried]}


def paired_ratio(peer: list[float], own: list[float]) -> dict[str, float]:
    """How many times longer the peer takes, round by round."""
    return spread([a / b for a, b in zip(peer, own, strict=True)])


def percent(error: float | None) -> str:
    """An error as text."""
    return "not activated" if error is None else f"{100 * error:.1f} %"


def accuracy(own: Child, torchcor, cache: Path, converged, options) -> dict[str, Any]:
    """Activation times and errors of both programs on both meshes at the same time step."""
    found: dict[str, Any] = {}
    for dx in LONGEST:
        for mode in MODES:
            run = cached_activation(cache, dx, mode, LONGEST[dx], torchcor, options)
            found[f"torchcor {mode} {dx:g}"] = run["lat_ms"]
        for scheme in ("default", "lumped"):
            request = {"dx": dx, "dt": options.dt, "scheme": scheme, "t_end": LONGEST[dx]}
            run = own.request(**request, activation=True)
            found[f"twinheart {scheme} {dx:g}"] = run["lat_ms"]
    return {
        name: {"error": relative_error(lat, converged), "lat_ms": lat}
        for name, lat in found.items()
    }


def compare(options) -> dict[str, Any]:
    """The whole comparison; writes `peers.json` and returns its content."""
    converged = json.loads(options.converged.read_text())["lat_ms"]
    children: dict[tuple[float, str], Child] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        variables = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        command = [sys.executable, str(HERE / "_twinheart_runner.py"), str(options.threads)]
        own = Child(command, variables, folder)

        def torchcor(dx: float, mode: str) -> Child:
            if (dx, mode) not in children:
                platform_ = own.about["platform"]
                children[dx, mode] = start_torchcor(folder, dx, mode, platform_, options)
            return children[dx, mode]

        try:
            results = options.results / own.about["device"].lower().replace(" ", "-")
            cache = results / "torchcor_activation.json"
            accurate = accuracy(own, torchcor, cache, converged, options)
            errors = {mode: accurate[f"torchcor {mode} {DX:g}"]["error"] for mode in MODES}
            equal = cheapest_as_accurate(own, errors, converged)
            timed = timing(own, torchcor, equal, options)
            about = {mode: torchcor(DX, mode).about for mode in MODES}
        finally:
            for child in (own, *children.values()):
                child.close()
    report = summary(timed, accurate, equal, own.about, about, options)
    results.mkdir(parents=True, exist_ok=True)
    write_json(results / ("peers-eager.json" if options.eager else "peers.json"), report)
    return report


def timing(own: Child, torchcor, equal: dict[str, Any], options) -> dict[str, Any]:
    """Both programs at the same mesh and step, and ours at an error no larger than TorchCor's."""
    span = {"t_end": options.span, "activation": False}
    requests: dict[str, tuple[Child, dict]] = {}
    for mode in MODES:
        requests[f"torchcor {mode}"] = torchcor(DX, mode), span
        requests[f"twinheart {mode}"] = own, span | {"dx": DX, "dt": options.dt, "scheme": mode}
        found = equal[mode]
        if found is not None:
            fast = {"dx": found["dx_mm"], "dt": found["dt_ms"], "scheme": "default"}
            long = {"t_end": FAST_SPAN, "activation": False}
            requests[f"twinheart as torchcor {mode}"] = own, fast | long
    return take_turns(requests)


def summary(timed, accurate, equal, own_about, peer_about, options) -> dict[str, Any]:
    """The figures of one comparison, ready for JSON."""
    seconds = timed["seconds"]

    def ratio(peer: str, own: str) -> dict[str, float]:
        return paired_ratio(seconds[f"torchcor {peer}"], seconds[f"twinheart {own}"])

    def error(program: str, dx: float) -> float | None:
        return accurate[f"{program} {dx:g}"]["error"]

    ratios = {
        "time_ratio_default": ratio("default", "default"),
        "time_ratio_lumped": ratio("lumped", "default"),
        "time_ratio_lumped_both": ratio("lumped", "lumped"),
    }
    # The name without a mode is the comparison with its lumped mode.
    for mode, name in (("lumped", ""), ("default", "_default")):
        if equal[mode] is not None:
            ratios[f"time_ratio_equal_error{name}"] = ratio(mode, f"as torchcor {mode}")

    def error_ratio(mode: str) -> float | None:
        peer, own = error(f"torchcor {mode}", DX), error("twinheart default", DX)
        return None if peer is None or own is None else peer / own

    return {
        "torchcor": {
            **{name: r["median"] for name, r in ratios.items()},
            **{f"error_ratio_{mode}": error_ratio(mode) for mode in MODES},
            "quiet_machine": timed["quiet"],
            "cell_compiled": peer_about["lumped"]["cell_compiled"],
        },
        "ratio_ranges": ratios,
        "ms_per_simulated_ms": {
            name: spread([1000.0 * s for s in values]) for name, values in seconds.items()
        },
        "rounds": timed["rounds"],
        "accuracy": accurate,
        "equal_error": equal,
        "peak_memory_mb": {
            name: round(answer["peak_memory_mb"]) for name, answer in timed["last"].items()
        },
        "cg_iterations_per_step": {
            mode: timed["last"][f"torchcor {mode}"]["cg_iterations_per_step"] for mode in MODES
        },
        "torchcor_about": peer_about,
        "twinheart_about": own_about,
        "dx_mm": DX,
        "dt_ms": options.dt,
        "timed_ms": options.span,
        "torchcor_dtype": options.dtype,
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
    }


def table(report: dict[str, Any]) -> str:
    """The report as text."""
    lines = ["activation times [ms], error = RMS relative over " + ", ".join(ERROR_POINTS)]
    lines.append(f"{'':24}{'error':>14}" + "".join(f"{p:>8}" for p in POINTS))
    for name, run in report["accuracy"].items():
        times = "".join(f"{'-' if t is None else f'{t:.2f}':>8}" for t in run["lat_ms"].values())
        lines.append(f"{name:24}{percent(run['error']):>14}{times}")
    lines += ["", f"{'':30}{'ms per simulated ms':>22}{'range':>18}{'peak MB':>9}"]
    for name, s in report["ms_per_simulated_ms"].items():
        between = f"{s['min']:.1f}-{s['max']:.1f}"
        memory = report["peak_memory_mb"][name]
        lines.append(f"{name:30}{s['median']:22.1f}{between:>18}{memory:9}")
    lines.append("")
    for mode in MODES:
        found = report["equal_error"][mode]
        setting = "none" if found is None else f"{found['dx_mm']:.3g} mm, {found['dt_ms']:g} ms"
        lines.append(f"our cheapest setting as accurate as TorchCor {mode}: {setting}")
    lines.append(f"{'times longer TorchCor':32}{'median':>8}  range")
    for name, r in report["ratio_ranges"].items():
        lines.append(f"{name:32}{r['median']:8.2f}  ({r['min']:.2f}-{r['max']:.2f})")
    if not report["torchcor"]["quiet_machine"]:
        lines.append("The machine was busy with other work: the times are not to be trusted.")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="twinheart beside TorchCor")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--refresh", action="store_true", help="TorchCor's activation times anew")
    parser.add_argument("--dt", type=float, default=DT, help="time step of both [ms]")
    parser.add_argument("--span", type=float, default=SPAN, help="simulated time of a timing [ms]")
    parser.add_argument("--threads", type=int, default=2, help="processor threads of both")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    parser.add_argument("--eager", action="store_true", help="TorchCor without torch.compile")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument(
        "--converged", type=Path, default=HERE / "results" / "niederer_converged.json"
    )
    options = parser.parse_args()
    report = compare(options)
    print(json.dumps(report) if options.json else table(report))


if __name__ == "__main__":
    main()
