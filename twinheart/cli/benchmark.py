"""`twinheart benchmark`: how accurate and how fast, on a slab and on a heart."""

from typing import Annotated

import typer

from twinheart.cli.terminal import emit, progress

benchmark = typer.Typer(
    help="Accuracy and speed: the Niederer slab, and a whole heart.", no_args_is_help=True
)

# A mesh of the demo heart; nodes grow with the inverse cube of the edge.
DEMO_EDGE_MM, DEMO_NODES = 1.92, 46_000

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
    nodes: Annotated[
        int | None, typer.Option(help="Mesh the demo heart with about this many nodes.", min=1)
    ] = None,
    device: Annotated[
        str, typer.Option(help="any | gpu: refuse to run where jax sees no GPU, and say why.")
    ] = "any",
    devices: Annotated[
        int | None, typer.Option(help="Spread the heart over as many devices.", min=1)
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
    from twinheart.tissue.device import require_device
    from twinheart.twin import simulate

    require_device(device)
    max_edge = _edge_of(nodes, file, max_edge)
    keys = {"heart.file": file, "cells.model": cell, "ecg.electrodes": "none"}
    case = check_case({}, keys if max_edge is None else keys | {"heart.max_edge": max_edge})
    twin = build_twin(case, build_heart(case))
    with progress("heart") as show:
        beat = simulate(
            twin,
            build_stimuli(case, twin.heart),
            t_end=t_end,
            dt=dt,
            scheme=scheme,
            devices=devices,
            progress=show,
        )
    stats = beat.stats
    cost = (
        "n_nodes",
        "n_tets",
        "device",
        "devices",
        "setup_s",
        "compile_s",
        "wall_s",
        "ns_per_node_step",
    )
    record = {"heart": file, "cell": cell, "scheme": scheme, "dt_ms": dt, "t_end_ms": t_end}
    record |= {name: stats[name] for name in cost}
    record |= {"s_per_simulated_s": 1e3 * stats["wall_s"] / t_end, "peak_memory_mb": _peak_mb()}
    emit(record, as_json=as_json)


def _edge_of(nodes: int | None, file: str, max_edge: float | None) -> float | None:
    """Mean edge [mm] with which the demo heart has about as many nodes."""
    from twinheart.errors import InputError

    if nodes is None:
        return max_edge
    if file != "demo" or max_edge is not None:
        raise InputError("--nodes meshes the demo heart anew: leave --heart and --max-edge out.")
    return DEMO_EDGE_MM * (DEMO_NODES / nodes) ** (1 / 3)


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
