"""`twinheart benchmark`: how accurate and how fast, on a slab and on a heart."""

from typing import Annotated

import typer

from twinheart.cli.terminal import emit, progress

benchmark = typer.Typer(
    help="Accuracy and speed: the Niederer slab, and a whole heart.", no_args_is_help=True
)

_Dt = Annotated[float, typer.Option(help="Time step, in ms.")]
_Scheme = Annotated[str, typer.Option(help="Scheme in space and time.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@benchmark.command()
def niederer(
    dx: Annotated[float, typer.Option(help="Edge of the cubes, in mm.")] = 0.5,
    dt: _Dt = 0.05,
    scheme: _Scheme = "default",
    as_json: _Json = False,
) -> None:
    """Activation times at the nine points of the N-version benchmark (Niederer et al. 2011)."""
    from twinheart.tissue.niederer import run_niederer

    with progress("Niederer slab") as show:
        result = run_niederer(dx, dt, scheme, progress=show)
    emit(result, as_json=as_json)


@benchmark.command()
def heart(
    file: Annotated[str, typer.Option("--heart", help="Mesh file, or 'demo'.")] = "demo",
    max_edge: Annotated[
        float | None, typer.Option(help="Refine to this mean edge length, in mm.")
    ] = None,
    cell: Annotated[str, typer.Option(help="Name of the cell model.")] = "tentusscher2006-epi",
    t_end: Annotated[float, typer.Option(help="Simulated time, in ms.")] = 20.0,
    dt: _Dt = 0.02,
    scheme: _Scheme = "default",
    as_json: _Json = False,
) -> None:
    """Cost of a whole heart: set-up, compilation, time per node and step, memory."""
    from twinheart.cli.build import build_heart, build_stimuli, build_twin
    from twinheart.cli.case import check_case
    from twinheart.twin import simulate

    keys = {"heart.file": file, "cells.model": cell, "ecg.electrodes": "none"}
    case = check_case({}, keys if max_edge is None else keys | {"heart.max_edge": max_edge})
    twin = build_twin(case, build_heart(case))
    with progress("heart") as show:
        beat = simulate(
            twin, build_stimuli(case, twin.heart), t_end=t_end, dt=dt, scheme=scheme, progress=show
        )
    stats = beat.stats
    cost = ("n_nodes", "n_tets", "device", "setup_s", "compile_s", "wall_s", "ns_per_node_step")
    record = {"heart": file, "cell": cell, "scheme": scheme, "dt_ms": dt, "t_end_ms": t_end}
    record |= {name: stats[name] for name in cost}
    record |= {"s_per_simulated_s": 1e3 * stats["wall_s"] / t_end, "peak_memory_mb": _peak_mb()}
    emit(record, as_json=as_json)


def _peak_mb() -> float:
    """Peak memory: of the device where it tells, else of this process."""
    import resource
    import sys

    import jax

    on_device = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in on_device:
        return on_device["peak_bytes_in_use"] / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
