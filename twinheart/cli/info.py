"""`twinheart info`: what a mesh file holds and what is wrong with it, as found."""

from pathlib import Path
from typing import Annotated, Any

import typer

from twinheart.cli.terminal import drop_stdout, emit

# in the order of reading; (key, words, unit)
_ROWS = (
    ("n_nodes", "nodes", ""),
    ("n_tets", "tetrahedra", ""),
    ("n_triangles", "triangles", ""),
    ("n_components", "components", ""),
    ("n_flipped", "flipped tetrahedra", ""),
    ("n_degenerate", "flat cells", ""),
    ("n_orphan_nodes", "orphan nodes", ""),
    ("n_duplicate_nodes", "duplicate nodes", ""),
    ("length_unit", "length unit", ""),
    ("bbox_mm", "extent", "mm"),
    ("volume_ml", "volume", "ml"),
    ("area_mm2", "area", "mm2"),
    ("closed", "closed", ""),
    ("enclosed_volume_ml", "enclosed volume", "ml"),
    ("mean_edge_mm", "mean edge", "mm"),
    ("min_dihedral_deg", "smallest dihedral angle", "degrees"),
    ("max_dihedral_deg", "largest dihedral angle", "degrees"),
    ("fibres", "fibres", ""),
    ("sheets", "sheets", ""),
)


def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Mesh file.")],
    length_unit: Annotated[
        str | None, typer.Option(help="um, mm, cm or m; told from the size if absent.")
    ] = None,
    index_base: Annotated[
        int | None, typer.Option(help="Index of the first node, 0 or 1, if the file hides it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what a mesh file holds: sizes, quality, fields, fibres, regions and defects, as found."""
    record = describe(file, length_unit=length_unit, index_base=index_base)
    if as_json:
        emit(record, as_json=True)
        return
    try:
        print(_table(record), flush=True)
    except BrokenPipeError:
        drop_stdout()
        raise typer.Exit(128 + 13) from None


def describe(
    path: str | Path, *, length_unit: str | None = None, index_base: int | None = None
) -> dict[str, Any]:
    """Figures of a mesh file as found: nothing is mended.

    Parameters
    ----------
    path : path
        Mesh file.
    length_unit : str, optional
        Unit of its coordinates; by default what the file states, else what the size shows.
    index_base : int, optional
        Index of the first node, where the file does not make it clear.

    Returns
    -------
    dict
        As `MeshReport.as_dict`, and ``remarks``: everything a user should read, in sentences.

    Raises
    ------
    InputError, MeshError, UnitError
        If the file cannot be read.
    """
    from twinheart.mesh.io import inspect_mesh

    _, report = inspect_mesh(path, length_unit=length_unit, index_base=index_base)
    return report.as_dict() | {"remarks": list(report.sentences())}


def _table(record: dict[str, Any]) -> str:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{record['file']} - {record['format']}", show_header=False)
    table.add_column(justify="right", style="bold")
    table.add_column(overflow="fold")
    for key, words, unit in _ROWS:
        if record.get(key) is not None and not (key == "n_tets" and "n_triangles" in record):
            table.add_row(words, f"{_shown(record[key])} {unit}".strip())
    for place, fields in record["fields"].items():
        columns = (name if n == 1 else f"{name} ({n})" for name, n in fields.items())
        table.add_row(f"{place} fields", ", ".join(columns) or "none")
    tags = (f"{tag}: {n}" for tag, n in record["regions"].items())
    table.add_row("regions (cells)", ", ".join(tags) or "none")
    for remark in record["remarks"]:
        table.add_row("remark", remark)
    console = Console()
    with console.capture() as capture:
        console.print(table, markup=False)
    return capture.get().rstrip()


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple | list):
        return " x ".join(map(_shown, value))
    return f"{value:,}".replace(",", " ") if isinstance(value, int) else str(value)
