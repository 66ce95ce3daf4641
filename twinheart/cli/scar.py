"""`twinheart scar`: core, border zone and corridors: from LGE, from a thin wall, or painted."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from twinheart.cli.terminal import emit, say
from twinheart.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from twinheart.anatomy.corridors import Corridor
    from twinheart.anatomy.scar import Masses
    from twinheart.mesh import TetMesh

THICKNESS, PAINT = "thickness", "paint"
# Arevalo et al. 2016 (doi:10.1038/ncomms11437) classified with these thresholds.
DEFAULT_LGE, DEFAULT_THICKNESS = "roes", "mm:2,5"
# A larger shift than this [mm] is more likely a wrong mask than breathing.
_LARGE_SHIFT = 20.0


def scar(
    source: Annotated[
        str,
        typer.Argument(
            metavar="LGE",
            help="LGE image (NIfTI or DICOM), or 'thickness' for a thin wall on CT, or 'paint' for "
            "a scar that a file describes.",
        ),
    ],
    heart: Annotated[Path, typer.Argument(metavar="HEART", help="Mesh of the myocardium.")],
    spec: Annotated[
        Path | None,
        typer.Argument(
            metavar="SPEC",
            show_default=False,
            # not as [[core]]: brackets are markup in a help text
            help="For 'paint': TOML file with tables core, border and channel, in heart "
            "coordinates (docs/scar_painting.md).",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Mesh to write, with the fields scar and corridor.")
    ] = Path("scar.vtu"),
    convention: Annotated[
        str | None,
        typer.Option(
            help="fwhm, roes (default), adas, adas-55-45, adas-65-35, adas-70-30, sd2-3, sd2 to "
            "sd6; or own thresholds max:CORE,BORDER (shares), sd:CORE,BORDER, value:CORE,BORDER. "
            "For 'thickness' mm:CORE,BORDER, by default mm:2,5."
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Label image of the LGE; the heart is moved onto its --myocardium."),
    ] = None,
    myocardium: Annotated[
        int | None, typer.Option(help="Label of all myocardium, scar included, in --labels.")
    ] = None,
    remote: Annotated[
        int | None, typer.Option(help="Label of healthy, remote myocardium in --labels.")
    ] = None,
    length_unit: Annotated[
        str | None, typer.Option(help="Unit of HEART: um, mm, cm or m; told from the size.")
    ] = None,
    report: Annotated[bool, typer.Option(help="Write a page with pictures beside OUT.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find or paint scar on a heart: classes, masses by every convention, corridors, pictures.

    `twinheart simulate --heart OUT` then conducts as scarred tissue does. Painted scar is a
    scenario: `twinheart scar paint HEART SPEC.toml`.
    """
    record, remarks = find_scar(
        source,
        heart,
        out,
        spec=spec,
        convention=convention,
        labels=labels,
        myocardium=myocardium,
        remote=remote,
        length_unit=length_unit,
        report=report,
    )
    for remark in remarks:
        say(f"twinheart: note: {remark}")
    emit(record, as_json=as_json)


class _Found(NamedTuple):
    classes: "np.ndarray"
    masses: "list[Masses]"
    point_fields: "dict[str, np.ndarray]"
    cell_fields: "dict[str, np.ndarray]"
    facts: dict[str, Any]
    notes: list[str]


def find_scar(
    source: str,
    heart: Path,
    out: Path,
    *,
    spec: Path | None = None,
    convention: str | None = None,
    labels: Path | None = None,
    myocardium: int | None = None,
    remote: int | None = None,
    length_unit: str | None = None,
    report: bool = True,
) -> tuple[dict[str, Any], list[str]]:
    """Do what `scar` says; the arguments are its options.

    Returns
    -------
    dict, list of str
        What ``--json`` prints, and remarks for the user.

    Raises
    ------
    InputError, MeshError, OutputError, UnitError
        If something given cannot be used, or a file cannot be written.
    """
    from twinheart.anatomy import mesh_of_heart, read_heart
    from twinheart.anatomy.corridors import find_corridors
    from twinheart.anatomy.scar import mass, with_scar
    from twinheart.mesh import TetMesh
    from twinheart.mesh.io import write_mesh

    if (source == PAINT) != (spec is not None):
        raise InputError(
            "'twinheart scar paint HEART SPEC.toml' paints what SPEC says; a scar that is found "
            "needs no SPEC."
        )
    loaded, told = read_heart(heart, length_unit=length_unit)
    mesh = mesh_of_heart(loaded)
    if spec is not None:
        if labels is not None or convention is not None:
            raise InputError("--convention and --labels belong to an image: 'paint' has none.")
        found = _painted(mesh, spec)
    elif source == THICKNESS:
        if labels is not None:
            raise InputError("--labels belongs to an LGE image; 'thickness' needs none.")
        found = _from_thickness(mesh, convention or DEFAULT_THICKNESS)
    else:
        found = _from_lge(Path(source), mesh, convention or DEFAULT_LGE, labels, myocardium, remote)
    corridors = find_corridors(mesh, found.classes)
    point_fields = {**mesh.point_fields, **found.point_fields}
    cell_fields = {**mesh.cell_fields, **found.cell_fields}
    result = with_scar(
        TetMesh(mesh.points, mesh.tets, point_fields, cell_fields), found.classes, corridors
    )
    write_mesh(out, result)
    chosen = found.masses[0]
    record = {
        "out": str(out),
        "convention": chosen.convention,
        "meaning": chosen.meaning,
        "core_g": chosen.core_g,
        "border_g": chosen.border_g,
        "myocardium_g": mass(mesh, found.classes >= 0),
        **found.facts,
        "conventions": [row._asdict() for row in found.masses],
        "n_corridors": len(corridors),
        "corridors": [_row(k, corridor) for k, corridor in enumerate(corridors, start=1)],
    }
    notes = [*told.sentences(), *found.notes]
    if len(corridors) < found.facts.get("n_channels", 0):
        notes.append(
            f"{found.facts['n_channels']} channels are painted, but {len(corridors)} corridors "
            "join healthy tissue at both ends: look for channels that end in core, touch, or are "
            "narrow"
        )
    if report:
        from twinheart.report.scar import write_scar_report

        page = write_scar_report(out.with_suffix(".html"), result, found.masses, corridors, notes)
        record["report"] = str(page)
    return record, notes


def _row(number: int, corridor: "Corridor") -> dict[str, Any]:
    return {
        "corridor": number,
        "length_mm": corridor.length,
        "width_mm": corridor.width,
        "area_mm2": corridor.area,
        "mass_g": corridor.mass,
        "mouths": corridor.n_mouths,
        "from_mm": corridor.mouths[0],
        "to_mm": corridor.mouths[1],
    }


def _from_lge(path: Path, mesh: "TetMesh", name: str, labels, myocardium, remote) -> _Found:
    import numpy as np

    from twinheart.anatomy.scar import masses_of_lge, scar_of_lge
    from twinheart.imaging import Image, read_image
    from twinheart.imaging.enhancement import find_convention, measure_enhancement, offset_to_mask
    from twinheart.mesh import TetMesh

    convention = find_convention(name)
    image = read_image(path)
    notes = list(image.notes)
    regions = _label_image(labels, myocardium, remote)
    shift = np.zeros(3)
    if regions is not None and myocardium is not None:
        mask = _labelled(regions, myocardium, labels)
        shift = offset_to_mask(mesh, Image(mask, regions.affine))
        distance = float(np.linalg.norm(shift))
        notes.append(f"the heart is moved by {distance:.1f} mm to overlap most with the mask")
        if distance > _LARGE_SHIFT:
            notes.append("so large a shift is more than breathing: check that the mask fits")
    moved = TetMesh(mesh.points + shift, mesh.tets)
    healthy = None if regions is None or remote is None else _labelled(regions, remote, labels)
    seen = measure_enhancement(image, moved, remote=healthy)
    outside = float(np.isnan(seen.intensity).mean())
    if outside:
        notes.append(f"{100 * outside:.2g} % of the heart lies outside the image: taken as healthy")
    if healthy is None:
        notes.append("remote myocardium is told from the intensities; --remote names a label")
    return _Found(
        classes=scar_of_lge(mesh, seen, convention),
        masses=masses_of_lge(mesh, seen, convention),
        point_fields={},
        cell_fields={"lge": seen.intensity},
        facts={
            "remote_mean": seen.remote.mean,
            "remote_sd": seen.remote.sd,
            "remote_peak": seen.remote.peak,
            "maximum": seen.maximum,
            "shift_mm": shift,
        },
        notes=notes,
    )


def _label_image(labels, myocardium, remote):
    from twinheart.imaging import read_image

    if labels is None:
        if myocardium is not None or remote is not None:
            raise InputError("--myocardium and --remote are labels of an image: give --labels.")
        return None
    if myocardium is None and remote is None:
        raise InputError("--labels is of no use without --myocardium or --remote.")
    return read_image(labels)


def _labelled(regions, label: int, path: Path) -> "np.ndarray":
    import numpy as np

    chosen = regions.values == label
    if not chosen.any():
        known = ", ".join(f"{value:g}" for value in np.unique(regions.values)[:20])
        raise InputError(f"{path}: no voxel has the label {label}; there are {known}.")
    return chosen


def _painted(mesh: "TetMesh", spec: Path) -> _Found:
    from twinheart.anatomy.scar import painted_masses
    from twinheart.cli.paint import paint

    classes, facts, notes = paint(mesh, spec)
    return _Found(classes, [painted_masses(mesh, classes)], {}, {}, facts, notes)


def _from_thickness(mesh: "TetMesh", name: str) -> _Found:
    import numpy as np

    from twinheart.anatomy.scar import find_thin_wall, masses_of_thickness, scar_of_thickness
    from twinheart.anatomy.wall_thickness import wall_thickness

    limits = find_thin_wall(name)
    thickness, is_lv = wall_thickness(mesh)
    low, median, high = np.percentile(thickness[is_lv], [1, 50, 99])
    return _Found(
        classes=scar_of_thickness(mesh, thickness, is_lv, limits),
        masses=masses_of_thickness(mesh, thickness, is_lv, limits),
        point_fields={"thickness_mm": thickness},
        cell_fields={},
        facts={"lv_thickness_mm": {"1 %": low, "median": median, "99 %": high}},
        notes=["a thin apex may be normal; the right ventricle is not judged"],
    )
