"""`twinheart convert`: a mesh from one format to another, mended on the way."""

from pathlib import Path
from typing import Annotated, Any

import typer

from twinheart.cli.terminal import emit, say


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Mesh file to read.")],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="File to write; the suffix is the format.")
    ],
    length_unit: Annotated[
        str | None, typer.Option(help="Unit of IN: um, mm, cm or m; told from the size if absent.")
    ] = None,
    index_base: Annotated[
        int | None, typer.Option(help="Index of the first node of IN, 0 or 1, if it hides it.")
    ] = None,
    max_edge: Annotated[
        float | None, typer.Option(help="Refine tetrahedra to this mean edge length, in mm.")
    ] = None,
    drop_below: Annotated[
        float, typer.Option(help="Drop components with less than this share of all cells.")
    ] = 0.0,
    keep_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="Do not merge nodes at the same place.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Convert a mesh; units become millimetres (micrometres for openCARP), defects are mended."""
    record = convert_mesh(
        source,
        target,
        length_unit=length_unit,
        index_base=index_base,
        max_edge=max_edge,
        drop_below=drop_below,
        merge_nodes=not keep_duplicates,
    )
    for remark in record["remarks"]:
        say(remark)
    emit(record if as_json else {k: record[k] for k in record if k != "remarks"}, as_json=as_json)


def convert_mesh(
    source: str | Path,
    target: str | Path,
    *,
    length_unit: str | None = None,
    index_base: int | None = None,
    max_edge: float | None = None,
    drop_below: float = 0.0,
    merge_nodes: bool = True,
) -> dict[str, Any]:
    """Read a mesh, mend it, refine it on request and write it.

    Parameters
    ----------
    source, target : path
        Files to read and to write; their suffixes are their formats.
    length_unit : str, optional
        Unit of the source; by default what the file states, else what the size shows.
    index_base : int, optional
        Index of the first node, where the source does not make it clear.
    max_edge : float, optional
        Refine tetrahedra until the mean edge is at most this [mm].
    drop_below : float
        Drop components with less than this share of all cells.
    merge_nodes : bool
        Merge nodes at the same place.

    Returns
    -------
    dict
        ``source, target, length_unit, n_nodes, n_tets`` (or ``n_triangles``), ``repairs`` and
        ``remarks``.

    Raises
    ------
    InputError, MeshError, UnitError, OutputError
        If the source cannot be read or the target cannot be written.
    """
    from twinheart.errors import InputError
    from twinheart.mesh import TetMesh
    from twinheart.mesh.io import read_mesh, write_mesh
    from twinheart.mesh.refine import refine_to

    mesh, report = read_mesh(
        source,
        length_unit=length_unit,
        index_base=index_base,
        merge_nodes=merge_nodes,
        drop_below=drop_below,
    )
    if max_edge is not None:
        if not isinstance(mesh, TetMesh):
            raise InputError(f"{source}: is a surface: only tetrahedra can be refined.")
        mesh = refine_to(mesh, max_edge)
    write_mesh(target, mesh)
    cells = (
        {"n_tets": mesh.n_tets} if isinstance(mesh, TetMesh) else {"n_triangles": mesh.n_triangles}
    )
    return {
        "source": str(source),
        "target": str(target),
        "length_unit": report.length_unit,
        "n_nodes": mesh.n_nodes,
        **cells,
        "repairs": list(report.repairs),
        "remarks": list(report.sentences()),
    }
