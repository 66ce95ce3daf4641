"""`twinheart torso`: a heart in a torso, with regions and the electrodes of the 12-lead ECG."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twinheart.cli.terminal import emit, say
from twinheart.errors import InputError, MeshError, UnitError

if TYPE_CHECKING:
    from twinheart.anatomy import Heart
    from twinheart.anatomy.body import BodyFrame
    from twinheart.ecg import Electrodes
    from twinheart.mesh import TetMesh, TriMesh
    from twinheart.mesh.smoothing import Distance

_BODY = (50.0, 2500.0)  # extent of a trunk or a lung [mm]
_TEMPLATE, _NONE = "template", "none"


def torso(
    heart: Annotated[str, typer.Argument(metavar="HEART", help="Mesh file, or 'demo'.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Torso mesh to write: .vtu or .vtkhdf.")
    ] = Path("torso.vtu"),
    surface: Annotated[
        Path | None,
        typer.Option("--torso", help="Closed surface of the body; without it a template is used."),
    ] = None,
    orientation: Annotated[
        str | None,
        typer.Option(help="Where x, y, z of the surface point, such as LPS; told if absent."),
    ] = None,
    heart_at: Annotated[
        str | None,
        typer.Option(
            metavar="LEFT,FRONT,HEAD",
            help="Centre of the heart in mm from the chest's centre (middle, 4th intercostal "
            "space); the body is moved around the heart.",
        ),
    ] = None,
    width: Annotated[float | None, typer.Option(help="Chest width of the template, mm.")] = None,
    depth: Annotated[float | None, typer.Option(help="Chest depth of the template, mm.")] = None,
    height: Annotated[
        float | None, typer.Option(help="Hips to shoulders of the template, mm.")
    ] = None,
    lungs: Annotated[
        list[str] | None,
        typer.Option(help="Closed surface of a lung (give several), 'template' or 'none'."),
    ] = None,
    electrodes: Annotated[
        Path | None, typer.Option(help="JSON or CSV of measured positions, put onto the skin.")
    ] = None,
    move: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=LEFT,FRONT,HEAD", help="Shift an electrode along the skin, in mm."
        ),
    ] = None,
    edge: Annotated[float, typer.Option(help="Mean edge far from the heart, mm.")] = 10.0,
    heart_edge: Annotated[float, typer.Option(help="Mean edge in the heart, mm.")] = 3.0,
    length_unit: Annotated[
        str | None, typer.Option(help="Unit of HEART: um, mm, cm or m; told from the size.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Put a heart into a torso: a tagged mesh, the skin, the electrodes and a picture.

    Beside OUT, three files of the same name are written: _skin.vtp, _electrodes.json and .png.
    """
    given = {"width": width, "depth": depth, "height": height}
    record, remarks = build_torso(
        heart,
        out,
        surface=surface,
        orientation=orientation,
        heart_at=None if heart_at is None else _three(heart_at, "--heart-at"),
        landmarks={name: value for name, value in given.items() if value is not None},
        lungs=lungs or [_TEMPLATE],
        electrodes=electrodes,
        shifts=dict(_shift(text) for text in move or []),
        edges=(edge, heart_edge),
        length_unit=length_unit,
    )
    for remark in remarks:
        say(f"twinheart: note: {remark}")
    emit(record, as_json=as_json)


def build_torso(
    heart_file: str,
    out: Path,
    *,
    surface: Path | None,
    orientation: str | None,
    heart_at: tuple[float, float, float] | None,
    landmarks: dict[str, float],
    lungs: Sequence[str],
    electrodes: Path | None,
    shifts: dict[str, tuple[float, float, float]],
    edges: tuple[float, float],
    length_unit: str | None,
) -> tuple[dict[str, Any], list[str]]:
    """Build and write what `torso` says; the arguments are its options.

    Returns
    -------
    dict, list of str
        Figures, and remarks for the user.

    Raises
    ------
    InputError, MeshError, OutputError, UnitError
        If something given cannot be used, or a file cannot be written.
    """
    from twinheart.anatomy.torso import check_heart_inside, describe_torso, torso_mesh
    from twinheart.ecg import move_electrodes, on_skin, place_electrodes, read_electrodes
    from twinheart.mesh.io import write_mesh
    from twinheart.report.torso import write_torso_picture

    if out.suffix.lower() not in (".vtu", ".vtkhdf"):
        raise InputError(f"--out is {out}, expected a file name that ends in .vtu or .vtkhdf.")
    remarks: list[str] = []
    heart = _heart(heart_file, length_unit, remarks)
    if surface is None:
        if orientation is not None:
            raise InputError("--orientation describes a surface: give --torso, or leave it out.")
        skin, frame = _template(heart.mesh, landmarks, heart_at)
    else:
        if landmarks:
            raise InputError(f"--{next(iter(landmarks))} shapes the template: leave out --torso.")
        skin, frame = _given_body(surface, heart.mesh, orientation, heart_at, remarks)
    cover = check_heart_inside(heart.mesh, skin)
    if electrodes is None:
        placed = place_electrodes(skin, frame)
    else:
        placed = read_electrodes(electrodes)
    placed = move_electrodes(on_skin(placed, skin, heart), shifts, skin, frame)
    mesh = torso_mesh(
        heart.mesh,
        skin,
        edge=edges[0],
        heart_edge=edges[1],
        electrodes=placed.positions,
        lungs=_lungs(lungs, frame, skin, heart.mesh, remarks),
    )
    figures = describe_torso(mesh, heart.mesh)
    if "blood" not in figures["volume_ml"]:
        remarks.append("no blood is tagged: the heart has no labels of its endocardium")
    files = {
        "torso": out,
        "skin": out.with_name(f"{out.stem}_skin.vtp"),
        "electrodes": out.with_name(f"{out.stem}_electrodes.json"),
        "picture": out.with_name(f"{out.stem}.png"),
    }
    body = {"width_mm": frame.width, "depth_mm": frame.depth, "heart_to_skin_mm": cover}
    written = _electrode_record(mesh, placed)
    write_mesh(out, mesh)
    write_mesh(files["skin"], skin)
    _write_json(files["electrodes"], written)
    write_torso_picture(files["picture"], heart.mesh, skin, frame, placed, mesh)
    return {**figures, **body, **written, "remarks": remarks, "files": files}, remarks


def _heart(file: str, length_unit: str | None, remarks: list[str]) -> "Heart":
    from twinheart.anatomy import demo_heart, read_heart

    if file == "demo":
        return demo_heart()
    heart, report = read_heart(file, length_unit=length_unit)
    remarks += report.sentences()
    return heart


def _template(heart: "TetMesh", landmarks: dict[str, float], heart_at):
    from twinheart.anatomy.body import template_body
    from twinheart.mesh.closed import closed_surface

    skin, frame = template_body(heart, heart_at=heart_at, **landmarks)
    return closed_surface(skin)[0], frame


def _given_body(
    file: Path, heart: "TetMesh", orientation: str | None, heart_at, remarks: list[str]
) -> tuple["TriMesh", "BodyFrame"]:
    from twinheart.anatomy.body import body_frame, lay_around
    from twinheart.anatomy.torso import check_heart_inside

    skin = _closed(file, remarks)
    if heart_at is not None:
        if orientation is None:
            raise InputError(
                "--heart-at moves the torso around the heart: say where its x, y and z point, "
                "such as --orientation LPS."
            )
        return lay_around(skin, heart, orientation=orientation, heart_at=heart_at)
    check_heart_inside(heart, skin)
    return skin, body_frame(skin, heart, orientation=orientation)


def _closed(file: Path, remarks: list[str]) -> "TriMesh":
    import numpy as np

    from twinheart.mesh import TetMesh, TriMesh
    from twinheart.mesh.closed import closed_surface
    from twinheart.mesh.io import read_mesh
    from twinheart.mesh.quality import boundary_triangles
    from twinheart.mesh.repair import repair

    try:
        mesh, report = read_mesh(file)
    except UnitError:  # where a heart of this size were none, a body or a lung may be one
        mesh, report = read_mesh(file, length_unit="mm")
        if not _BODY[0] < np.ptp(mesh.points, axis=0).max() < _BODY[1]:
            raise
        remarks.append(f"{file}: taken as mm, as a body of this size must be")
    remarks += [f"{file}: {sentence}" for sentence in report.sentences()]
    if isinstance(mesh, TetMesh):
        mesh, _ = repair(TriMesh(mesh.points, boundary_triangles(mesh.tets)))
    try:
        skin, said = closed_surface(mesh)
    except MeshError as error:
        raise MeshError(f"{file}: {error}") from None
    remarks += [f"{file}: {sentence}" for sentence in said]
    return skin


def _lungs(
    given: Sequence[str],
    frame: "BodyFrame",
    skin: "TriMesh",
    heart: "TetMesh",
    remarks: list[str],
) -> list["Distance"]:
    from twinheart.anatomy.torso import template_lungs
    from twinheart.mesh.closed import signed_distance

    if _NONE in given or _TEMPLATE in given:
        if len(given) > 1:
            raise InputError("--lungs 'template' or 'none' stands alone: files or one of the two.")
        return [] if given[0] == _NONE else [template_lungs(frame, skin, heart)]
    return [signed_distance(_closed(Path(file), remarks)) for file in given]


def _electrode_record(mesh: "TetMesh", electrodes: "Electrodes") -> dict[str, Any]:
    """Positions, nodes of the torso mesh, and the table of conductivities: what a solver needs."""
    from twinheart.anatomy.torso import CONDUCTIVITY, skin_nodes

    nodes, away = skin_nodes(mesh, electrodes.positions)
    names = electrodes.names
    return {
        "units": "mm",
        "electrodes": dict(zip(names, electrodes.positions.round(4).tolist(), strict=True)),
        "nodes": dict(zip(names, nodes.tolist(), strict=True)),
        "max_node_distance_mm": float(away.max()),
        "regions": {tag.name.lower(): int(tag) for tag in CONDUCTIVITY},
        "conductivities_s_per_m": {tag.name.lower(): v for tag, v in CONDUCTIVITY.items()},
    }


def _write_json(path: Path, record: dict[str, Any]) -> None:
    from twinheart.mesh.io.atomic import written_whole

    with written_whole(path) as draft:
        draft.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _three(text: str, option: str) -> tuple[float, float, float]:
    try:
        left, front, head = (float(number) for number in text.split(","))
    except ValueError:
        raise InputError(
            f"{option} is '{text}', expected three numbers in mm: left,front,head."
        ) from None
    return left, front, head


def _shift(text: str) -> tuple[str, tuple[float, float, float]]:
    name, equals, numbers = text.partition("=")
    if not equals:
        raise InputError(f"--move is '{text}', expected NAME=left,front,head, such as V2=0,0,20.")
    return name, _three(numbers, f"--move {name}")
