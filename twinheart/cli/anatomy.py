"""`twinheart anatomy`: fibres, coordinates and AHA segments of a heart."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from twinheart.cli.terminal import emit, say

if TYPE_CHECKING:
    import numpy as np

    from twinheart.anatomy import Coordinates, Heart
    from twinheart.anatomy.wall import Wall
    from twinheart.mesh import TetMesh


class Angles(NamedTuple):
    """Angles of the fibre rule [degrees], as for `add_fibres`."""

    alpha_endo: float = 60.0
    alpha_epi: float = -60.0
    beta_endo: float = -45.0
    beta_epi: float = 45.0


anatomy = typer.Typer(
    help="Fibres, coordinates and segments of a heart.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@anatomy.command()
def build(
    mesh: Annotated[Path, typer.Argument(metavar="MESH", help="Tetrahedra of the ventricles.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Mesh to write, with all its fields.")
    ] = Path("heart.vtu"),
    alpha_endo: Annotated[
        float, typer.Option(help="Helix angle at the endocardium, degrees.")
    ] = 60.0,
    alpha_epi: Annotated[
        float, typer.Option(help="Helix angle at the epicardium, degrees.")
    ] = -60.0,
    beta_endo: Annotated[
        float, typer.Option(help="Sheet angle at the endocardium, degrees.")
    ] = -45.0,
    beta_epi: Annotated[float, typer.Option(help="Sheet angle at the epicardium, degrees.")] = 45.0,
    new_fibres: Annotated[
        bool, typer.Option("--new-fibres", help="By the rule, even where the mesh has fibres.")
    ] = False,
    length_unit: Annotated[
        str | None, typer.Option(help="Unit of MESH: um, mm, cm or m; told from the size.")
    ] = None,
    report: Annotated[bool, typer.Option(help="Write a page with pictures beside OUT.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Give a mesh of ventricles fibres and sheets, coordinates, AHA segments, and a page on them.

    Surfaces are taken from the point field surf_class (1 base, 2 epicardium, 3 LV, 4 RV
    endocardium), else found from the shape.
    """
    angles = Angles(alpha_endo, alpha_epi, beta_endo, beta_epi)
    record, remarks = build_anatomy(
        mesh, out, angles, new_fibres=new_fibres, length_unit=length_unit, report=report
    )
    for remark in remarks:
        say(f"twinheart: note: {remark}")
    emit(record, as_json=as_json)


def build_anatomy(
    source: str | Path,
    out: str | Path,
    angles: Angles,
    *,
    new_fibres: bool = False,
    length_unit: str | None = None,
    report: bool = True,
) -> tuple[dict[str, Any], list[str]]:
    """Read a mesh, add fibres, coordinates and segments, and write it.

    Parameters
    ----------
    source, out : path
        Mesh to read and mesh to write; the page goes beside the latter as ``.html``, the Purkinje
        tree that a simulation will grow as ``_purkinje.vtu``.
    angles : Angles
        Of the fibre rule [degrees].
    new_fibres : bool
        By the rule, even where the mesh has fibres.
    length_unit : str, optional
        Unit of the source; by default what the file states, else what the size shows.
    report : bool
        Write the page.

    Returns
    -------
    dict, list of str
        Key figures and what was written; what was assumed.

    Raises
    ------
    InputError, MeshError, UnitError, OutputError
        If the source cannot be read, is no heart, or the output cannot be written.
    """
    from twinheart.anatomy import Heart, add_fibres, mesh_of_heart, read_heart
    from twinheart.anatomy.aha import aha_segments
    from twinheart.anatomy.coordinates import coordinates
    from twinheart.anatomy.surfaces import tag_surfaces
    from twinheart.anatomy.transfer import coordinates_at
    from twinheart.anatomy.wall import wall_of
    from twinheart.mesh import TetMesh
    from twinheart.mesh.io import write_mesh

    heart, found = read_heart(source, length_unit=length_unit)
    remarks = list(found.sentences())
    if "surf_class" not in heart.mesh.point_fields:
        remarks.append("surfaces found from the shape: the mesh has no point field surf_class")
    mesh = tag_surfaces(heart.mesh)
    wall = wall_of(mesh)
    at = coordinates(mesh, wall)
    fields = {**mesh.point_fields, **at.fields}
    mesh = TetMesh(mesh.points, mesh.tets, fields, mesh.cell_fields)
    heart = Heart(mesh, heart.f0, heart.s0, heart.regions)
    by_rule = new_fibres or heart.f0 is None
    if by_rule:
        heart = add_fibres(
            heart,
            alpha_endo=angles.alpha_endo,
            alpha_epi=angles.alpha_epi,
            beta_endo=angles.beta_endo,
            beta_epi=angles.beta_epi,
            wall=wall,
        )
    else:
        remarks.append("the fibres of the mesh are kept; --new-fibres makes new ones")
    mesh = heart.mesh
    segment = aha_segments(coordinates_at(mesh, mesh.points[mesh.tets].mean(axis=1), at))
    cells = {**mesh.cell_fields, "aha": segment}
    heart = Heart(
        TetMesh(mesh.points, mesh.tets, mesh.point_fields, cells),
        heart.f0,
        heart.s0,
        heart.regions,
    )
    record = _figures(heart, wall, at, segment) | {"fibres": "rule" if by_rule else "kept"}
    write_mesh(out, mesh_of_heart(heart))
    record["heart"] = str(out)
    record["purkinje"] = _write_tree(Path(out), heart.mesh)
    if report:
        record["report"] = str(_write_page(Path(out), heart, at, record, remarks))
    return record, remarks


def _write_tree(out: Path, mesh: "TetMesh") -> dict[str, Any]:
    """Write the Purkinje tree that `twinheart simulate` grows on this mesh, to be looked at."""
    from twinheart.anatomy.purkinje import grow_purkinje, write_purkinje

    tree = grow_purkinje(mesh)
    path = out.with_name(f"{out.stem}_purkinje.vtu")
    write_purkinje(path, tree)
    length = float(tree.lengths.sum()) / 1000
    return {"file": str(path), "junctions": len(tree.junctions), "length_m": length}


def _figures(heart: "Heart", wall: "Wall", at: "Coordinates", segment: "np.ndarray") -> dict:
    import numpy as np

    from twinheart.anatomy.transfer import places_of_coordinates
    from twinheart.mesh.quality import mean_edge, volumes

    mesh = heart.mesh
    edge = mean_edge(mesh)
    back = places_of_coordinates(mesh, at).of_nodes(mesh.points)
    volume = np.abs(volumes(mesh.points, mesh.tets)) / 1000
    right = segment > 17
    return {
        "n_nodes": mesh.n_nodes,
        "n_tets": mesh.n_tets,
        "mean_edge_mm": edge,
        "ventricles": 2 if (wall.tv == 1).any() else 1,
        "lv_ml": float(volume[~right].sum()),
        "rv_ml": float(volume[right].sum()),
        "aha_ml": np.bincount(segment, volume, 35)[1:18],
        "round_trip_within_edge": float((np.linalg.norm(back - mesh.points, axis=1) < edge).mean()),
    }


def _write_page(
    out: Path, heart: "Heart", at: "Coordinates", record: dict[str, Any], remarks: list[str]
) -> Path:
    from twinheart.report.anatomy import write_anatomy_report

    figures = {
        "Nodes": f"{record['n_nodes']:,}".replace(",", " "),
        "Mean edge": f"{record['mean_edge_mm']:.2f} mm",
        "Left ventricle with its half of the septum": f"{record['lv_ml']:.1f} ml",
        "Right ventricle": f"{record['rv_ml']:.1f} ml",
        "Nodes that come back from their coordinates within an edge": (
            f"{100 * record['round_trip_within_edge']:.2f} %"
        ),
        "Fibres": {"rule": "by the Laplace rule", "kept": "those of the mesh"}[record["fibres"]],
    }
    path = out.with_suffix(".html")
    return write_anatomy_report(path, heart, at, record["aha_ml"].tolist(), figures, remarks)
