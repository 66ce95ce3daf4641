"""Runs twinheart's Niederer benchmark on request; started by `peers.py` only.

The counterpart of `_torchcor_runner.py`: a process of its own, so that threads and peak memory
are comparable, which answers one JSON line for every JSON line on stdin
(``{"dx": mm, "dt": ms, "scheme": name, "t_end": ms, "activation": bool}``; with activation the run
ends when all is activated). Problems are kept, so that timing them again costs no set-up.
"""

import functools
import json
import os
import resource
import sys

ANSWERS = sys.stdout
sys.stdout = sys.stderr


def answer(message: dict) -> None:
    """Send one JSON line to the caller."""
    ANSWERS.write(json.dumps(message) + "\n")
    ANSWERS.flush()


@functools.cache
def problem(dx: float, dt: float, scheme: str):
    """Mesh and problem."""
    from twinheart.mesh.generate import slab
    from twinheart.tissue.niederer import SIZE, build_niederer

    mesh = slab(SIZE, dx)
    return mesh, build_niederer(mesh, dt, scheme)


def serve(dx: float, dt: float, scheme: str, t_end: float, activation: bool) -> dict:
    """One run; a step that the scheme cannot take on this mesh leaves nothing activated."""
    import numpy as np
    from _slab import lat_at_points

    from twinheart.errors import SolverError
    from twinheart.tissue.niederer import POINTS
    from twinheart.tissue.run import run

    def all_activated(state) -> bool:
        return bool(np.isfinite(state.lat).all())

    try:
        mesh, built = problem(dx, dt, scheme)
        stop = all_activated if activation else None
        result = run(built, t_end, points=mesh.points, stop=stop)
    except SolverError as error:
        print(error)
        return {"lat_ms": dict.fromkeys(POINTS)}
    lat = built.problem.tissue.to_mesh_order(result.state.lat)
    return {
        "t_ms": result.steps * dt,
        "wall_s": result.wall_s,
        "compile_s": result.compile_s,
        "n_nodes": mesh.n_nodes,
        "stages": getattr(built.problem.scheme, "stages", None),
        "lat_ms": lat_at_points(mesh, np.asarray(lat)),
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
        answer(serve(**json.loads(line)))


if __name__ == "__main__":
    main()
