"""`twinheart leadfield`: weights from a heart's voltages to potentials at electrodes, in a file."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twinheart.cli.terminal import emit, say
from twinheart.errors import InputError, MeshError, OutputError

if TYPE_CHECKING:
    from twinheart.anatomy import Heart
    from twinheart.ecg import Electrodes
    from twinheart.ecg.stored_field import LeadField
    from twinheart.mesh import TetMesh
    from twinheart.tissue.conductivity import Conduction

_SNAP = 20.0  # how far --snap moves an electrode [mm]


def leadfield(
    heart: Annotated[str, typer.Option(help="Mesh file of the heart, or 'demo'.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="HDF5 file to write.")] = Path(
        "lead_field.h5"
    ),
    torso: Annotated[
        Path | None,
        typer.Option(help="Tetrahedra of the body, as 'twinheart torso' writes them."),
    ] = None,
    electrodes: Annotated[
        Path | None,
        typer.Option(help="JSON or CSV file; without it the file of 'twinheart torso' is taken."),
    ] = None,
    unbounded: Annotated[
        bool, typer.Option("--unbounded", help="No torso: an endless, homogeneous conductor.")
    ] = False,
    conductivity: Annotated[
        str, typer.Option(help="Conductivities of the heart: name of a set.")
    ] = "niederer2011",
    non_conducting: Annotated[
        list[int] | None,
        typer.Option(help="Region tag of the heart without living cells; may be repeated."),
    ] = None,
    organ: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=S/M", help="Conductivity of lungs, blood, torso or a tag."),
    ] = None,
    snap: Annotated[
        bool, typer.Option("--snap", help="Move electrodes up to 20 mm onto the skin.")
    ] = False,
    around: Annotated[
        float,
        typer.Option(help="Also solve for the skin this far around the electrodes, in mm."),
    ] = 0.0,
    length_unit: Annotated[
        str | None, typer.Option(help="Unit of the heart: um, mm, cm or m; told from the size.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compute the lead field of electrodes on a torso once, for any number of simulations.

    One finite element solve for each electrode on the heart-torso mesh. `twinheart simulate
    --lead-field FILE` uses it.
    """
    record, remarks = build_lead_field(
        heart,
        out,
        torso=torso,
        electrodes=electrodes,
        unbounded=unbounded,
        conductivity=conductivity,
        non_conducting=non_conducting or [],
        organs=organ or [],
        snap=snap,
        around=around,
        length_unit=length_unit,
    )
    for remark in remarks:
        say(f"twinheart: note: {remark}")
    emit(record, as_json=as_json)


def build_lead_field(
    heart_file: str,
    out: Path,
    *,
    torso: Path | None,
    electrodes: Path | None,
    unbounded: bool,
    conductivity: str,
    non_conducting: list[int],
    organs: list[str],
    snap: bool,
    around: float,
    length_unit: str | None,
) -> tuple[dict[str, Any], list[str]]:
    """Compute and write what `leadfield` says; the arguments are its options.

    Returns
    -------
    dict, list of str
        Figures, and remarks for the user.

    Raises
    ------
    InputError, MeshError, ModelError, OutputError
        If something given cannot be used, or a file cannot be written.
    """
    from twinheart.ecg.stored_field import write_lead_field

    start = time.perf_counter()
    if out.suffix.lower() not in (".h5", ".hdf5"):
        raise OutputError(f"--out is {out}, expected a file name that ends in .h5 or .hdf5.")
    if not 0 <= around <= 100:
        raise InputError(f"--around is {around:g} mm, expected 0 to 100 mm.")
    if torso is None and not unbounded:
        raise InputError(
            "no torso is given: make one with 'twinheart torso HEART -o torso.vtu' and give it "
            "with --torso, or ask for an endless conductor with --unbounded."
        )
    if torso is not None and unbounded:
        raise InputError("--unbounded needs no torso: leave out one of the two.")
    remarks: list[str] = []
    heart = _heart(heart_file, length_unit, remarks)
    places = _electrodes(electrodes, torso)
    tissue = _tissue(heart, conductivity, non_conducting)
    if torso is None:
        field = _unbounded(heart, places, tissue)
    else:
        body = _torso(torso, remarks)
        field = _bounded(heart, places, tissue, body, organs, snap, around)
    if around > 0 and torso is None:
        remarks.append("--around has no effect without a torso")
    write_lead_field(out, field)
    record = {
        "electrodes": list(places.names),
        "n_nodes": heart.mesh.n_nodes,
        **field.facts,
        "wall_s": time.perf_counter() - start,
        "files": {"lead_field": out},
    }
    return record, remarks


def _heart(file: str, length_unit: str | None, remarks: list[str]) -> "Heart":
    from twinheart.anatomy import demo_heart, read_heart

    if file == "demo":
        return demo_heart()
    heart, report = read_heart(file, length_unit=length_unit)
    remarks += report.sentences()
    return heart


def _electrodes(file: Path | None, torso: Path | None) -> "Electrodes":
    from twinheart.ecg import read_electrodes

    if file is None and torso is not None:
        beside = torso.with_name(f"{torso.stem}_electrodes.json")
        file = beside if beside.is_file() else None
    if file is None:
        raise InputError(
            "no electrodes are given: name a JSON or CSV file with --electrodes ('twinheart torso' "
            "writes one beside the torso)."
        )
    return read_electrodes(file, required=())


def _tissue(heart: "Heart", name: str, non_conducting: list[int]) -> "dict[int, Conduction]":
    import numpy as np

    from twinheart.tissue.conductivity import NAMED_SETS, NonConducting

    if name not in NAMED_SETS:
        raise InputError(f"--conductivity is '{name}', expected one of {', '.join(NAMED_SETS)}.")
    tags = np.unique(heart.regions).tolist()
    missing = sorted(set(non_conducting) - set(tags))
    if missing:
        raise InputError(f"the heart has no region {missing[0]}, it has {tags}.")
    return {tag: NonConducting() if tag in non_conducting else NAMED_SETS[name] for tag in tags}


def _torso(file: Path, remarks: list[str]) -> "TetMesh":
    from twinheart.mesh import TetMesh
    from twinheart.mesh.io import read_mesh

    mesh, report = read_mesh(file, length_unit="mm")
    remarks += [f"{file}: {sentence}" for sentence in report.sentences()]
    if not isinstance(mesh, TetMesh):
        raise MeshError(
            f"{file} is a surface, expected tetrahedra of the whole body: mesh it with "
            f"'twinheart torso HEART --torso {file} -o torso.vtu'."
        )
    if "region" not in mesh.cell_fields:
        remarks.append(f"{file}: has no cell field 'region': all that is not heart is alike")
    return mesh


def _bounded(
    heart: "Heart",
    electrodes: "Electrodes",
    tissue: "dict[int, Conduction]",
    torso: "TetMesh",
    organs: list[str],
    snap: bool,
    around: float,
) -> "LeadField":
    from twinheart.ecg.body_map import torso_lead_field
    from twinheart.ecg.torso_field import TINY, heart_tensors, torso_conductor

    sigma_i, sigma_bulk = heart_tensors(heart, tissue)
    values = dict(_organ(text) for text in organs)
    conductor = torso_conductor(torso, heart, sigma_bulk, organs=values)
    reach = _SNAP if snap else TINY
    return torso_lead_field(conductor, heart, electrodes, sigma_i, snap=reach, around=around)


def _unbounded(
    heart: "Heart", electrodes: "Electrodes", tissue: "dict[int, Conduction]"
) -> "LeadField":
    from twinheart.ecg.lead_field import lead_field, lead_shares
    from twinheart.ecg.stored_field import make_lead_field
    from twinheart.ecg.torso_field import heart_tensors

    sigma_i, _ = heart_tensors(heart, tissue)
    weights = lead_field(heart.mesh, electrodes, sigma_i)
    shares = lead_shares(heart.mesh, electrodes, sigma_i)
    facts = {"medium": "unbounded", "conductivities_s_per_m": {"medium": 0.2}}
    return make_lead_field(weights, electrodes, heart, sigma_i, facts=facts, shares=shares)


def _organ(text: str) -> tuple[int, float]:
    from twinheart.anatomy.torso import TorsoRegion

    name, _, number = text.partition("=")
    names = {tag.name: int(tag) for tag in TorsoRegion if tag != TorsoRegion.HEART}
    try:
        tag = names[name.strip().upper()] if not name.strip().isdigit() else int(name)
        if tag == TorsoRegion.HEART:
            raise KeyError
        return tag, float(number)
    except (KeyError, ValueError):
        raise InputError(
            f"--organ is '{text}', expected NAME=S/m with one of "
            f"{', '.join(names).lower()} or the number of a region, such as lungs=0.05; the "
            "heart's own come from --conductivity."
        ) from None
