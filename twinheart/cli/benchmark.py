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
