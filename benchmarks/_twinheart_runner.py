"""Runs twinheart's Niederer benchmark on request; started by `peers.py` only.

The counterpart of `_torchcor_runner.py`: a process of its own, so that threads and peak memory
are comparable, which answers one JSON line for every JSON line on stdin
(``{"dx": mm, "dt": ms, "scheme": name, "t_end": ms}``).
"""

import json
import math
import os
import resource
import sys

ANSWERS = sys.stdout
sys.stdout = sys.stderr


def answer(message: dict) -> None:
    """Send one JSON line to the caller."""
    ANSWERS.write(json.dumps(message) + "\n")
    ANSWERS.flush()


def serve(request: dict) -> dict:
    """One run; a step that the scheme cannot take on this mesh leaves nothing activated."""
    from twinheart.errors import SolverError
    from twinheart.tissue.niederer import POINTS, run_niederer

    try:
        result = run_niederer(**request)
    except SolverError as error:
        print(error)
        return {"lat_ms": dict.fromkeys(POINTS)}
    lat = {name: None if math.isnan(t) else t for name, t in result["lat_ms"].items()}
    return {
        "t_ms": result["steps"] * result["dt_ms"],
        "wall_s": result["wall_s"],
        "compile_s": result["compile_s"],
        "n_nodes": result["n_nodes"],
        "stages": result["stages"],
        "lat_ms": lat,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Say what the device is, then serve requests until stdin closes."""
    threads = int(sys.argv[1])
    if hasattr(os, "sched_setaffinity"):  # XLA takes as many threads as it may use processors
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    import jax

    import twinheart

    device = jax.devices()[0]
    answer(
        {
            "twinheart": twinheart.__version__,
            "jax": jax.__version__,
            "platform": device.platform,
            "device": device.device_kind,
            "threads": threads,
        }
    )
    for line in sys.stdin:
        answer(serve(json.loads(line)))


if __name__ == "__main__":
    main()
