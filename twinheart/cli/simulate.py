"""`twinheart simulate`: a heart beats, from a case file or from options."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from twinheart.cli.terminal import emit, say
from twinheart.errors import InputError, OutputError

if TYPE_CHECKING:
    from twinheart.cli.case import Case


def _option(text: str, panel: str, *names: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel)


_HEART, _TISSUE, _TIME, _OUT = "Heart", "Cells and conduction", "Simulation", "Output"
Text: TypeAlias = str | None
Number: TypeAlias = float | None

_CaseFile = Annotated[
    Path | None,
    typer.Argument(metavar="CASE.toml", help="Case file; options below replace its keys."),
]
_Heart = Annotated[
    Text,
    _option("Mesh file, calibrated twin, 'demo', or 'slab:20,7,3,0.5' (mm).", _HEART),
]
_Unit = Annotated[Text, _option("um, mm, cm or m; told from the size if absent.", _HEART)]
_MaxEdge = Annotated[Number, _option("Refine to this mean edge length, in mm.", _HEART)]
_Cell = Annotated[Text, _option("Name of the cell model, or a CellML or mmt file.", _TISSUE)]
_CvL = Annotated[Number, _option("Velocity along the fibres, in m/s.", _TISSUE)]
_CvT = Annotated[Number, _option("Velocity across the fibres, in m/s.", _TISSUE)]
_Set = Annotated[
    Text,
    _option("Raw conductivities of this set (niederer2011) instead of velocities.", _TISSUE),
]
_Stim = Annotated[
    list[str] | None,
    _option(
        "sphere:x,y,z,r | box:x0,y0,z0,x1,y1,z1 | region:TAG | nodes:FILE.vtx | apex | purkinje | "
        "durrer (mm); may be repeated. 2 ms, 50 A/F, at 0 ms.",
        _TIME,
    ),
]
_Purkinje = Annotated[
    list[str] | None,
    _option(
        "Purkinje tree of line cells (VTU, VTK); may be repeated. It is excited at the minimum of "
        "its point field 'activation' (ms), else at 0.",
        _TISSUE,
    ),
]
_Propagation = Annotated[Text, _option("monodomain | reaction-eikonal | eikonal.", _TIME)]
_Diffusion = Annotated[
    bool | None, _option("Couple the cells of reaction-eikonal behind the front.", _TIME)
]
_TEnd = Annotated[Number, _option("Simulated time, in ms.", _TIME)]
_Dt = Annotated[Number, _option("Time step, in ms.", _TIME)]
_Scheme = Annotated[Text, _option("Scheme in space and time.", _TIME)]
_Devices = Annotated[
    int | None, _option("Spread the heart over as many devices.", _TIME, "--devices")
]
_Resume = Annotated[bool, _option("Go on from the checkpoint in --out.", _TIME, "--resume")]
_Electrodes = Annotated[
    Text, _option("JSON or CSV file, 'standard' (around the heart) or 'none'.", _OUT)
]
_LeadField = Annotated[
    Text, _option("Lead field of a torso, by 'twinheart leadfield'; sets the electrodes.", _OUT)
]
_Out = Annotated[Path | None, _option("Folder for the results.", _OUT)]
_Every = Annotated[Number, _option("Time between V_m frames, in ms; 0: none.", _OUT)]
_Report = Annotated[bool | None, _option("Draw pictures and write report.html.", _OUT)]
_Json = Annotated[bool, _option("Print one JSON object.", _OUT, "--json")]
_Example = Annotated[
    bool,
    _option("Write a commented case file to CASE.toml and stop.", _OUT, "--write-example"),
]


def simulate(
    case_file: _CaseFile = None,
    heart: _Heart = None,
    length_unit: _Unit = None,
    max_edge: _MaxEdge = None,
    cell: _Cell = None,
    cv_l: _CvL = None,
    cv_t: _CvT = None,
    conductivity: _Set = None,
    purkinje: _Purkinje = None,
    stim: _Stim = None,
    propagation: _Propagation = None,
    diffusion: _Diffusion = None,
    t_end: _TEnd = None,
    dt: _Dt = None,
    scheme: _Scheme = None,
    devices: _Devices = None,
    resume: _Resume = False,
    electrodes: _Electrodes = None,
    lead_field: _LeadField = None,
    out: _Out = None,
    snapshot_every: _Every = None,
    report: _Report = None,
    as_json: _Json = False,
    write_example: _Example = False,
) -> None:
    """Simulate a beat: activation, repolarisation and APD maps, V_m frames, ECG, report.

    Either give a case file, or at least --heart and one of --stim and --purkinje; a
    calibrated twin (twin.h5 of `twinheart calibrate`) starts where it was fitted to.
    """
    if write_example:
        _write_example(case_file or Path("case.toml"), as_json)
        return
    overrides: dict[str, Any] = {
        "heart.file": heart,
        "heart.length_unit": length_unit,
        "heart.max_edge": max_edge,
        "cells.model": cell,
        "conduction.cv_l": cv_l,
        "conduction.cv_t": cv_t,
        "conduction.mode": "conductivities" if conductivity else None,
        "conduction.conductivities": conductivity,
        "purkinje.files": purkinje or None,
        "stimuli": [{"where": where} for where in stim] if stim else None,
        "simulation.propagation": propagation,
        "simulation.diffusion": diffusion,
        "simulation.t_end": t_end,
        "simulation.dt": dt,
        "simulation.scheme": scheme,
        "simulation.devices": devices,
        "ecg.electrodes": electrodes,
        "ecg.lead_field": lead_field,
        "output.folder": None if out is None else str(out),
        "output.snapshot_every": snapshot_every,
        "output.report": report,
    }
    from twinheart.cli.case import PATHS, located

    given = {dotted: value for dotted, value in overrides.items() if value is not None}
    if purkinje:
        given["purkinje.files"] = [str(Path.cwd() / Path(name).expanduser()) for name in purkinje]
        given["purkinje.present"] = True
        if not stim and case_file is None:
            given["stimuli"] = [{"where": "purkinje"}]
    given |= {dotted: located(dotted, given[dotted], Path.cwd()) for dotted in PATHS & given.keys()}
    run_and_emit(_case(case_file, given), resume=resume, as_json=as_json)


def _case(case_file: Path | None, given: dict[str, Any]) -> "Case":
    from twinheart.cli.build import is_calibrated
    from twinheart.cli.case import check_case, read_case

    if case_file is not None:
        return read_case(case_file, given)
    if "heart.file" in given:
        case = check_case({}, given)
        if case.stimuli or is_calibrated(case):
            return case
    raise InputError(
        "nothing to simulate: give a case file (--write-example writes one), or --heart and one of "
        "--stim and --purkinje."
    )


def run_and_emit(case: "Case", *, resume: bool = False, as_json: bool = False) -> dict[str, Any]:
    """Run a case, print its summary and return it; after Ctrl-C say how to go on.

    Parameters
    ----------
    case : Case
        A checked case.
    resume : bool
        Go on from the checkpoint in its folder.
    as_json : bool
        Print one JSON object.

    Returns
    -------
    dict
        See `twinheart.cli.run.run_case`.
    """
    from twinheart.cli.run import Interrupted, run_case

    try:
        summary = run_case(case, Path(case.output.folder), resume=resume)
    except Interrupted as stop:
        say(f"twinheart: {stop}")
        raise typer.Exit(130) from None
    emit(summary, as_json=as_json)
    return summary


def _write_example(path: Path, as_json: bool) -> None:
    from twinheart.cli.case_text import example_case
    from twinheart.cli.run import write_text

    if path.exists():
        raise OutputError(f"{path}: exists already; remove it or name another file.")
    write_text(path, example_case())
    emit({"files": [str(path)]}, as_json=as_json)
