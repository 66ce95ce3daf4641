"""`twinheart demo`: the bundled heart beats."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("report"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Simulate the bundled heart: activation map, beating V_m, 12-lead ECG and report.html."""
