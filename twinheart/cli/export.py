"""`twinheart export`: a heart with its maps and targets for the catheter laboratory."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twinheart.cli import substrate as shared
from twinheart.cli.terminal import emit, say
from twinheart.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from twinheart.mesh import TetMesh
    from twinheart.planning.ablation.lesions import Lesion

FORMATS = ("vtk", "stl", "opencarp", "carto", "ensite", "views")
# Point fields that hold a map, the likeliest first.
_MAPS = ("lat", "pace_map", "activation_ms", "activation", "rvi_ms", "refractory_ms")
_TIMES = ("lat", "activation_ms", "activation")


def export(
    heart: Annotated[str, typer.Argument(help="Mesh of a heart with fields, or 'demo'.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")] = Path("export"),
    formats: Annotated[
        str, typer.Option(help=f"Some of {', '.join(FORMATS)}, separated by commas.")
    ] = ",".join(FORMATS),
    field: Annotated[
        str | None, typer.Option("--map", help="Point field to draw; by default lat and the like.")
    ] = None,
    lat: Annotated[
        str | None, typer.Option(help="Point field of activation times [ms], for text shells.")
    ] = None,
    targets: Annotated[
        Path | None, typer.Option(help="Lesions: TOML or CSV as for 'twinheart ablate'.")
    ] = None,
    lao: Annotated[float, typer.Option(help="Left anterior oblique angle, in degrees.")] = 45.0,
    rao: Annotated[float, typer.Option(help="Right anterior oblique angle, in degrees.")] = 30.0,
    orientation: Annotated[
        str | None,
        typer.Option(
            help="Where x, y and z point in the patient, such as LPS or RAS; by default the heart "
            "lies as in an average patient."
        ),
    ] = None,
    length_unit: Annotated[str | None, shared.UNIT] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write shells (VTP, STL, mapping systems' text), openCARP files, targets and pictures."""
    record = export_heart(
        heart, out, formats=formats, field=field, lat=lat, targets=targets, angles=(lao, rao),
        orientation=orientation, length_unit=length_unit,
    )  # fmt: skip
    for note in record["notes"]:
        say(f"twinheart: note: {note}")
    say(f"twinheart: note: {shared.RESEARCH}")
    emit(record if as_json else {k: v for k, v in record.items() if k != "provenance"},
         as_json=as_json)  # fmt: skip


def export_heart(
    heart: str,
    out: Path,
    *,
    formats: str = ",".join(FORMATS),
    field: str | None = None,
    lat: str | None = None,
    targets: Path | None = None,
    angles: tuple[float, float] = (45.0, 30.0),
    orientation: str | None = None,
    length_unit: str | None = None,
) -> dict[str, Any]:
    """Do what `export` says; the arguments are its options, `angles` those of LAO and RAO.

    Returns
    -------
    dict
        What ``--json`` prints.

    Raises
    ------
    InputError, MeshError, OutputError, UnitError
        If something given cannot be used, or a file cannot be written.
    """
    from twinheart.anatomy.body import axes_of
    from twinheart.cli.run import provenance, results_folder
    from twinheart.planning.export import shells

    wanted = [name.strip() for name in formats.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in FORMATS]
    if unknown or not wanted:
        raise InputError(
            f"--formats is '{formats}', expected some of {', '.join(FORMATS)}, separated by commas."
        )
    patient = None if orientation is None else axes_of(orientation)
    lesions = () if targets is None else _targets(targets)
    mesh, notes = _read(heart, length_unit)
    shown = _field(mesh, field, _MAPS)
    times = _field(mesh, lat, _TIMES)
    if shown is None and "views" in wanted:
        notes.append("the heart has no map (point field lat and the like): views show its tissue")
    if times is None and {"carto", "ensite"} & set(wanted):
        notes.append("no activation times (--lat): text shells carry none")
    surfaces = shells(mesh)
    files: list[Path] = []
    with results_folder(out):
        files += _write_shells(out, surfaces, wanted, times)
        if "opencarp" in wanted:
            files += _write_opencarp(out, mesh)
        if lesions:
            files += _write_targets(out, lesions)
        if "views" in wanted:
            files += _write_views(out, mesh, shown, lesions, angles, patient)
    return {
        "heart": heart,
        "shells": {
            name: {"n_nodes": shell.n_nodes, "n_triangles": shell.n_triangles}
            for name, shell in surfaces.items()
        },
        "map": shown,
        "lat": times,
        "n_targets": len(lesions),
        "files": [str(path) for path in files],
        "settings": {"formats": wanted, "lao_deg": angles[0], "rao_deg": angles[1],
                     "orientation": orientation},
        "method": "boundary of the mesh by its tagged surfaces; lengths in mm, openCARP in um; "
        "values of triangles are those of the tetrahedron behind them",
        "notes": notes,
        "provenance": provenance(),
    }  # fmt: skip


def _read(heart: str, length_unit: str | None) -> "tuple[TetMesh, list[str]]":
    from twinheart.anatomy import demo_heart, mesh_of_heart, read_heart
    from twinheart.anatomy.surfaces import tag_surfaces

    if heart == "demo":
        return mesh_of_heart(demo_heart()), []
    loaded, told = read_heart(Path(heart), length_unit=length_unit)
    mesh, notes = mesh_of_heart(loaded), list(told.sentences())
    if "surf_class" not in mesh.point_fields:
        notes.append("surfaces were not tagged: found by their shape")
        mesh = tag_surfaces(mesh)
    return mesh, notes


def _targets(path: Path) -> "tuple[Lesion, ...]":
    from twinheart.cli.lesion_file import read_lesions

    return tuple(read_lesions(path).lesions)


def _field(mesh: "TetMesh", asked: str | None, usual: tuple[str, ...]) -> str | None:
    known = [name for name, values in mesh.point_fields.items() if values.ndim == 1]
    if asked is not None and asked not in known:
        raise InputError(
            f"the heart has no point field '{asked}' with one number a node; it has "
            f"{', '.join(known) or 'none'}."
        )
    return asked or next((name for name in usual if name in known), None)


def _write_shells(out: Path, surfaces, wanted: list[str], times: str | None) -> list[Path]:
    from twinheart.mesh.io import write_mesh
    from twinheart.planning.export import scar_at_nodes, write_text_shell, write_volume_shell

    files = []
    for name, shell in surfaces.items():
        at = None if times is None else shell.point_fields[times]
        for kind, suffix in (("vtk", ".vtp"), ("stl", ".stl")):
            if kind in wanted:
                files.append(out / f"{name}{suffix}")
                write_mesh(files[-1], shell)
        if "carto" in wanted:
            scar = scar_at_nodes(shell)
            files.append(
                write_text_shell(out / f"{name}.mesh", shell, lat=at, scar=scar, name=name)
            )
        if "ensite" in wanted:
            files.append(write_volume_shell(out / f"{name}.xml", shell, lat=at, name=name))
    return files


def _write_opencarp(out: Path, mesh: "TetMesh") -> list[Path]:
    from twinheart.mesh.io import write_mesh

    folder = out / "opencarp"
    folder.mkdir(exist_ok=True)
    for suffix in (".pts", ".elem", ".lon"):
        (folder / f"heart{suffix}").unlink(missing_ok=True)
    write_mesh(folder / "heart.pts", mesh)
    return [path for path in (folder / f"heart{s}" for s in (".pts", ".elem", ".lon"))
            if path.exists()]  # fmt: skip


def _write_targets(out: Path, lesions: "tuple[Lesion, ...]") -> list[Path]:
    import numpy as np

    from twinheart.mesh.io import write_mesh
    from twinheart.planning.export import marked_places, write_targets

    points = np.concatenate([lesion.points for lesion in lesions])
    counts = [len(lesion.points) for lesion in lesions]
    radii = np.repeat([lesion.radius for lesion in lesions], counts)
    numbers = np.repeat(np.arange(1, len(lesions) + 1), counts)
    balls = marked_places(points, radii, {"lesion": numbers})
    write_mesh(out / "targets.vtp", balls)
    write_mesh(out / "targets.stl", balls)
    table = write_targets(out / "targets.csv", lesions)
    return [table, out / "targets.vtp", out / "targets.stl"]


def _write_views(out: Path, mesh, shown: str | None, lesions, angles, patient) -> list[Path]:
    import numpy as np

    from twinheart.anatomy import Heart
    from twinheart.report.scene import Scene
    from twinheart.report.standard_views import Mark, write_screenshots, write_standard_views

    marks: tuple[Mark, ...] = ()
    if lesions:
        marks = (Mark(np.concatenate([lesion.points for lesion in lesions]), "target"),)
    how: dict[str, Any] = {"marks": marks, "lao": angles[0], "rao": angles[1], "patient": patient}
    scene = Scene(Heart(mesh))
    if shown is None:
        values, how["classes"] = _tissue(mesh)
        title, unit = "Tissue", ""
    else:
        values = np.asarray(mesh.point_fields[shown], float)
        how["quantity"] = "lat" if shown in _TIMES else shown
        spread = float(np.ptp(values[np.isfinite(values)])) if np.isfinite(values).any() else 0.0
        how["step"] = None if spread > 2.0 else 0.1
        title, unit = _in_words(shown)
    sheet = write_standard_views(out / "views.png", scene, values, title=title, unit=unit, **how)
    return [sheet, *write_screenshots(out, scene, values, **how)]


def _tissue(mesh: "TetMesh") -> "tuple[np.ndarray, dict[str, str]]":
    """Kind of tissue at each node, and the colours of the kinds."""
    from twinheart.planning.ablation.lesions import LESION_FIELD
    from twinheart.report.planning_maps import LESION, tissue_kinds
    from twinheart.report.scar import BORDER_ZONE, DENSE, MUSCLE

    lesion = mesh.cell_fields.get(LESION_FIELD)
    kinds = tissue_kinds(mesh, lesion).astype(float)
    colours = {"healthy": MUSCLE, "border zone": BORDER_ZONE, "core": DENSE}
    return kinds, colours if lesion is None else colours | {"lesion": LESION}


def _in_words(field: "str | np.str_") -> tuple[str, str]:
    """Title and unit of a map."""
    known = {"lat": ("Activation time", "ms"), "pace_map": ("Pace map", "r")}
    if field in known:
        return known[str(field)]
    name, _, unit = str(field).rpartition("_")
    return (name.replace("_", " "), unit) if unit in ("ms", "mm", "mV") else (str(field), "")
