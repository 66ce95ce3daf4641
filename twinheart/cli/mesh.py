"""`twinheart mesh`: hearts from images, contours and surfaces, and what a mesh is worth."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from twinheart.cli.terminal import emit, say

mesh = typer.Typer(help="Build tetrahedral hearts from images, contours or surfaces; check them.")


@mesh.command("build")
def build(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE|CONTOURS|SURFACES...",
            help="A label image; contours (GPFile, CSV); a closed tagged surface; or surfaces "
            "epi=, lv=, rv=, base=FILE.",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Mesh to write, such as heart.vtu.")],
    edge: Annotated[float, typer.Option(help="Mean edge length, in mm.")] = 1.0,
    fine: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGION:EDGE",
            help="Smaller edges in a ball x,y,z,radius (RAS, mm), in labels such as 4+5 of the "
            "image, or FILE=4+5 of another; may be repeated.",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Meaning of the labels: lv_pool=1,myo=2,rv_pool=3, or a preset's name."),
    ] = None,
    min_wall_lv: Annotated[
        float, typer.Option(help="Least thickness of LV wall and septum, in mm.")
    ] = 3.0,
    min_wall_rv: Annotated[
        float, typer.Option(help="Least thickness of the RV's free wall, in mm.")
    ] = 2.5,
    length_unit: Annotated[
        str | None, typer.Option(help="Unit of surfaces: um, mm, cm or m; told from the size.")
    ] = None,
    time_frame: Annotated[
        int | None, typer.Option(help="Time frame of contours, where their file has several.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fill the ventricles' muscle with tetrahedra whose boundary says where it belongs."""
    record = build_mesh_file(
        sources,
        out,
        edge=edge,
        fine=fine or [],
        labels=labels,
        min_wall=(min_wall_lv, min_wall_rv),
        length_unit=length_unit,
        time_frame=time_frame,
    )
    for remark in record["remarks"]:
        say(remark)
    emit(record, as_json=as_json)


@mesh.command("check")
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Mesh file.")],
    length_unit: Annotated[
        str | None, typer.Option(help="um, mm, cm or m; told from the size if absent.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say how good a mesh is, as found: angles, aspect, boundary, explicit time step."""
    emit(check_file(file, length_unit=length_unit), as_json=as_json)


def build_mesh_file(
    sources: list[str],
    out: str | Path,
    *,
    edge: float,
    fine: Sequence[str] = (),
    labels: str | None = None,
    min_wall: tuple[float, float] = (3.0, 2.5),
    length_unit: str | None = None,
    time_frame: int | None = None,
) -> dict[str, Any]:
    """Read images, contours or surfaces, mesh the muscle and write it with its tags.

    Parameters
    ----------
    sources : list of str
        Files, as for `twinheart.imaging.sources.load_muscle`.
    out : path
        Mesh to write.
    edge : float
        Mean edge length [mm].
    fine : sequence of str
        Regions with smaller edges, as for `twinheart.imaging.element_size.parse_fine`.
    labels : str, optional
        Meaning of an image's labels.
    min_wall : tuple of 2 floats
        Least thickness of LV and RV wall [mm].
    length_unit : str, optional
        Unit of surfaces.
    time_frame : int, optional
        Time frame of contours.

    Returns
    -------
    dict
        That of `mesh_muscle`, the shapes of the tetrahedra, ``sources``, ``file``, ``seconds``.

    Raises
    ------
    InputError, MeshError, UnitError, OutputError
        If the sources cannot be read or meshed, or the mesh cannot be written.
    """
    from twinheart.errors import InputError
    from twinheart.imaging.build import mesh_muscle
    from twinheart.imaging.chambers import MinimumWall
    from twinheart.imaging.check import check_shapes
    from twinheart.imaging.element_size import element_size, parse_fine
    from twinheart.imaging.sources import label_image, load_muscle
    from twinheart.mesh.io import write_mesh

    start = time.monotonic()
    if Path(out).suffix.lower() not in (".vtu", ".vtkhdf"):
        raise InputError(f"cannot write {out}: the tags need .vtu or .vtkhdf.")
    if not Path(out).resolve().parent.is_dir():
        raise InputError(f"cannot write {out}: its folder does not exist.")
    if not 0.2 <= edge <= 5.0:
        raise InputError(f"the edge is {edge:g} mm, expected 0.2 to 5.")
    regions = [parse_fine(text) for text in fine]
    size = element_size(regions, edge, label_image(sources))
    say("reading and repairing the heart's shape")
    wall = MinimumWall(*min_wall)
    body = load_muscle(
        sources,
        edge,
        labels=labels,
        wall=wall,
        length_unit=length_unit,
        time_frame=time_frame,
        say=say,
    )
    heart, report = mesh_muscle(body, edge, size=size, say=say)
    shapes = check_shapes(heart)
    say(f"writing {out}")
    write_mesh(out, heart)
    seconds = round(time.monotonic() - start, 1)
    return {"sources": sources, "file": str(out), **report, **shapes, "seconds": seconds}


def check_file(path: str | Path, *, length_unit: str | None = None) -> dict[str, Any]:
    """Figures of a tetrahedral mesh as found: nothing is mended.

    Parameters
    ----------
    path : path
        Mesh file.
    length_unit : str, optional
        Unit of its coordinates; by default what the file states, else what the size shows.

    Returns
    -------
    dict
        That of `twinheart.imaging.check.check_mesh`, and ``file``.

    Raises
    ------
    InputError, MeshError, UnitError
        If the file cannot be read or holds a surface.
    """
    from twinheart.errors import InputError
    from twinheart.imaging.check import check_mesh
    from twinheart.mesh import TetMesh
    from twinheart.mesh.io import inspect_mesh

    found, _ = inspect_mesh(path, length_unit=length_unit)
    if not isinstance(found, TetMesh):
        raise InputError(f"{path}: is a surface: 'twinheart info' describes it.")
    if not found.n_tets:
        raise InputError(f"{path}: the mesh has no tetrahedra.")
    return {"file": str(path), **check_mesh(found)}
