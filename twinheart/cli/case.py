"""The case file: one TOML file that says everything about a simulation, checked key by key."""

import difflib
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError, model_validator
from pydantic_core import ErrorDetails

from twinheart.cell.registry import is_model_file
from twinheart.cli.calibration_section import CalibrationSection
from twinheart.cli.plan_section import PlanSection
from twinheart.cli.section import PurkinjeSection, ScarSection, Section, key, read_toml
from twinheart.errors import InputError


class HeartSection(Section):
    """The heart: geometry, fibres and regions."""

    file: str = key(
        "demo",
        text="Tetrahedral mesh with fibres and region tags (VTU, VTK, MSH, XDMF, openCARP .pts); "
        "'demo' is the heart that comes with twinheart; twin.h5 of 'twinheart calibrate' a "
        "whole twin; 'slab:20,7,3,0.5' a block of these lengths and this edge, in mm, with fibres "
        "along x.",
    )
    length_unit: Literal["um", "mm", "cm", "m"] | None = key(
        None, text="Unit of the coordinates in the file; told from the size of the heart if absent."
    )
    max_edge: float | None = key(
        None,
        text="Halve all edges until their mean is at most this; each time makes 8 times the "
        "tetrahedra.",
        unit="mm",
        gt=0,
    )
    fibres: Literal["file", "rule", "constant"] = key(
        "file",
        text="'file': as stored in the mesh; 'rule': by the helix angles below, where surfaces are "
        "tagged; 'constant': one direction for the whole heart.",
    )
    fibre_direction: list[float] = key(
        [1.0, 0.0, 0.0],
        text="Fibre direction [x, y, z], for 'constant'.",
        min_length=3,
        max_length=3,
    )
    alpha_endo: float = key(
        60.0, text="Helix angle at the endocardium, for 'rule'.", unit="degrees", ge=-90, le=90
    )
    alpha_epi: float = key(
        -60.0, text="Helix angle at the epicardium, for 'rule'.", unit="degrees", ge=-90, le=90
    )


class DrugSection(Section):
    """A drug in the blood; several act together. Its dose is given in one of the two ways."""

    name: str = key(text="Name of a drug of the CiPA training set.")
    cmax: float | None = key(
        None, text="Concentration as a multiple of the therapeutic peak.", ge=0
    )
    concentration_nm: float | None = key(None, text="Free concentration.", unit="nM", ge=0)


class CellFieldSection(Section):
    """A channel that varies over the heart: its factor is linear in a field of the mesh."""

    channel: str = key(text="Name of the channel, such as 'i_ks', or of the parameter.")
    field: str = key(
        text="Point field of the mesh with one number a node, such as 'transmural' (0 at the "
        "endocardium, 1 at the epicardium)."
    )
    at_zero: float = key(1.0, text="Factor where the field is 0.", ge=0)
    at_one: float = key(1.0, text="Factor where the field is 1.", ge=0)


class CellRegion(Section):
    """A region with other cells: those of [cells], changed by what is given here."""

    tag: int = key(text="Region tag in the mesh.")
    model: str | None = key(
        None,
        text="Name of another cell model; of [cells] nothing but the drugs acts on it. Absent: "
        "the cells are those of [cells].",
    )
    parameters: dict[str, float] = key({}, text="Parameters that differ.")
    condition: str | None = key(
        None, text="Disease, instead of that of [cells]; 'none' for a healthy region."
    )
    channels: dict[str, float] = key({}, text="Factors, on top of those of [cells].")
    drugs: list[DrugSection] = key([], text="Drugs, beside those of [cells].")
    fields: list[CellFieldSection] = key([], text="Channels that vary, beside those of [cells].")


class CellsSection(Section):
    """The cell model, what modifies it, and regions that differ."""

    model: str = key(
        "tentusscher2006-epi",
        text="Name of the cell model.",
        source="ten Tusscher and Panfilov 2006, doi:10.1152/ajpheart.00109.2006",
    )
    parameters: dict[str, float] = key(
        {}, text="Parameters that differ from the paper's, by name, in the units of the model."
    )
    condition: str = key("none", text="Name of a disease that changes the cells, such as 'lqt2'.")
    channels: dict[str, float] = key(
        {}, text="Factors on channels, such as i_kr = 0.5, or on parameters."
    )
    drugs: list[DrugSection] = key([], text="Drugs.")
    fields: list[CellFieldSection] = key([], text="Channels that vary over the heart.")
    regions: list[CellRegion] = key([], text="Regions with other cells.")


CV_KEYS = ("cv_l", "cv_t", "cv_n")
_TYPICAL = "typical of ventricular myocardium; openCARP's example has 0.63 and 0.30"


class ConductionRegion(Section):
    """A region that conducts differently (scar, border zone); what is absent is as elsewhere."""

    tag: int = key(text="Region tag in the mesh.")
    cv_l: float | None = key(None, text="Velocity along the fibres.", unit="m/s", gt=0)
    cv_t: float | None = key(None, text="Velocity across the fibres.", unit="m/s", gt=0)
    cv_n: float | None = key(None, text="Velocity across the sheets.", unit="m/s", gt=0)
    conductivities: str | None = key(None, text="Name of a set of conductivities.")
    sigma_il: float | None = key(None, text="Intracellular, along.", unit="S/m", gt=0)
    sigma_it: float | None = key(None, text="Intracellular, across.", unit="S/m", gt=0)
    sigma_el: float | None = key(None, text="Extracellular, along.", unit="S/m", gt=0)
    sigma_et: float | None = key(None, text="Extracellular, across.", unit="S/m", gt=0)


class ConductionSection(Section):
    """How fast the tissue conducts."""

    mode: Literal["velocities", "conductivities"] = key(
        "velocities",
        text="'velocities': conduction is tuned to cv_l and cv_t on this mesh, the conductivities "
        "below are those of the ECG; 'conductivities': they alone decide, at the mesh's mercy.",
    )
    cv_l: float = key(
        0.6, text="Conduction velocity along the fibres.", unit="m/s", source=_TYPICAL, gt=0
    )
    cv_t: float = key(
        0.3, text="Conduction velocity across the fibres.", unit="m/s", source=_TYPICAL, gt=0
    )
    cv_n: float | None = key(
        None, text="Conduction velocity across the sheets; cv_t if absent.", unit="m/s", gt=0
    )
    cv_endocardium: float | None = key(
        None,
        text="Velocity in all directions of a layer of the endocardium, one element thick, that "
        "stands for the Purkinje network; absent: no such layer.",
        unit="m/s",
        gt=0,
    )
    conductivities: str = key(
        "niederer2011",
        text="Name of a set of conductivities.",
        source="Niederer et al. 2011, doi:10.1098/rsta.2011.0139",
    )
    sigma_il: float | None = key(
        None, text="Intracellular conductivity along, instead of the set's.", unit="S/m", gt=0
    )
    sigma_it: float | None = key(
        None, text="Intracellular conductivity across, instead of the set's.", unit="S/m", gt=0
    )
    sigma_el: float | None = key(
        None, text="Extracellular conductivity along, instead of the set's.", unit="S/m", gt=0
    )
    sigma_et: float | None = key(
        None, text="Extracellular conductivity across, instead of the set's.", unit="S/m", gt=0
    )
    regions: list[ConductionRegion] = key([], text="Regions that conduct differently.")

    @model_validator(mode="after")
    def _no_idle_velocity(self) -> "ConductionSection":
        given = [f"{name}" for name in CV_KEYS if name in self.model_fields_set]
        given += [
            f"{name} of region {region.tag}"
            for region in self.regions
            for name in CV_KEYS
            if getattr(region, name) is not None
        ]
        if self.mode == "conductivities" and given:
            raise ValueError(
                f"{', '.join(given)} has no effect with mode = 'conductivities': remove it, or "
                "set mode = 'velocities'"
            )
        return self


class StimulusSection(Section):
    """A stimulus current, or a train of them."""

    name: str = key("", text="What the stimulus is, for the report.")
    where: str = key(
        "apex",
        text="sphere:x,y,z,r | box:x0,y0,z0,x1,y1,z1 | region:TAG | nodes:FILE.vtx | apex | "
        "purkinje (the root of the tree) | durrer (ten endocardial sites, one after the other, "
        "after Durrer et al. 1970); in mm.",
    )
    start: float = key(0.0, text="Start of the first pulse.", unit="ms", ge=0)
    duration: float = key(2.0, text="Length of each pulse.", unit="ms", gt=0)
    amplitude: float = key(50.0, text="Current; positive depolarises.", unit="A/F")
    period: float | None = key(None, text="Time between the pulses of a train.", unit="ms", gt=0)
    count: int = key(1, text="Number of pulses.", ge=1)


class SimulationSection(Section):
    """How the wave runs, how long, and how finely."""

    propagation: Literal["monodomain", "reaction-eikonal", "eikonal"] = key(
        "monodomain",
        text="'monodomain': diffusion and ionic cells, the truth where the mesh resolves the front "
        "(below 1 mm); 'reaction-eikonal': the eikonal equation says when the front arrives, ionic "
        "cells do the rest; 'eikonal': arrival and template action potentials, one beat within "
        "seconds.",
    )
    diffusion: bool = key(
        True, text="Whether the cells of 'reaction-eikonal' are coupled behind the front."
    )
    t_end: float = key(450.0, text="Simulated time.", unit="ms", gt=0, le=1e6)
    dt: float = key(0.02, text="Time step.", unit="ms", gt=0, le=1.0)
    scheme: str = key(
        "default", text="Scheme in space and time; 'default' suits all meshes and models."
    )
    devices: int | None = key(
        None,
        text="Spread one heart of 'monodomain' over as many devices; worth it from about two "
        "million nodes.",
        ge=1,
    )
    checkpoint_every: float = key(
        50.0, text="Simulated time between checkpoints, from which --resume goes on.", unit="ms"
    )


class EcgSection(Section):
    """Electrodes on the body."""

    electrodes: str = key(
        "standard",
        text="'standard': the ten electrodes placed around the heart; a JSON or CSV file of "
        "positions; or 'none'.",
    )
    lead_field: str | None = key(
        None,
        text="File of 'twinheart leadfield': the ECG of a torso, at the electrodes of that file; "
        "absent: an unbounded medium.",
    )


class OutputSection(Section):
    """What is written, and where."""

    folder: str = key("out", text="Folder for all results; made if absent.")
    snapshot_every: float = key(
        5.0, text="Time between stored V_m frames; 0 stores none.", unit="ms", ge=0
    )
    paraview: bool = key(False, text="Store the V_m frames as VTKHDF too, with the mesh.")
    report: bool = key(True, text="Draw the pictures and write report.html.")


class Case(Section):
    """A whole case file."""

    title: str = key("", text="Title of the report.")
    heart: HeartSection = key(HeartSection(), text="Geometry.")
    cells: CellsSection = key(CellsSection(), text="Cell models.")
    conduction: ConductionSection = key(ConductionSection(), text="Conduction.")
    scar: ScarSection = key(ScarSection(), text="Scar.")
    purkinje: PurkinjeSection = key(PurkinjeSection(), text="Conduction system.")
    stimuli: list[StimulusSection] = key([], text="Stimuli; none means one at the apex at 0 ms.")
    simulation: SimulationSection = key(SimulationSection(), text="Time.")
    ecg: EcgSection = key(EcgSection(), text="Electrodes.")
    calibration: CalibrationSection = key(CalibrationSection(), text="Fit to an ECG.")
    plan: PlanSection = key(PlanSection(), text="Circuits, risk and ablation.")
    output: OutputSection = key(OutputSection(), text="Results.")

    @model_validator(mode="after")
    def _no_frames_of_eikonal(self) -> "Case":
        asked = "snapshot_every" in self.output.model_fields_set and self.output.snapshot_every > 0
        if asked and self.simulation.propagation == "eikonal":
            raise ValueError(
                "output.snapshot_every has no effect with simulation.propagation = 'eikonal', "
                "which computes no frames: remove it or set it to 0"
            )
        return self


def read_case(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Case:
    """Read a case file and check every key of it.

    Parameters
    ----------
    path : path
        TOML file, at most 1 MB.
    overrides : mapping, optional
        Dotted keys and values that replace those of the file, from the command line.

    Returns
    -------
    Case
        The case; paths in it are absolute, those in the file being relative to its folder.

    Raises
    ------
    InputError
        If the file cannot be read, is not TOML, or a key is unknown, missing or out of range.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from twinheart.cli.case import read_case
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "case.toml")
    ...     _ = path.write_text("simulation.t_end = 100")
    ...     read_case(path).simulation.t_end
    100.0
    """
    path = Path(path)
    table = read_toml(path, "the case file", "a case file")
    folder = path.resolve().parent
    for dotted in PATHS:
        section, name = dotted.split(".")
        values = table.get(section)
        if isinstance(values, dict) and name in values:
            values[name] = located(dotted, values[name], folder)
    cells = table.get("cells")
    for region in _tables(cells.get("regions") if isinstance(cells, dict) else None):
        region["model"] = located("cells.model", region.get("model"), folder)
    purkinje = table.get("purkinje")
    if isinstance(purkinje, dict) and isinstance(purkinje.get("files"), list):
        purkinje["files"] = [
            str(folder / Path(name).expanduser()) if isinstance(name, str) else name
            for name in purkinje["files"]
        ]
    for stimulus in _tables(table.get("stimuli")):
        where = stimulus.get("where")
        if isinstance(where, str) and where.startswith("nodes:"):
            stimulus["where"] = f"nodes:{folder / where.removeprefix('nodes:')}"
    return check_case(table, overrides, name=str(path))


def check_case(
    table: dict[str, Any], overrides: Mapping[str, Any] | None = None, *, name: str = "options"
) -> Case:
    """Check a case given as nested tables; `overrides` are dotted keys that replace its values.

    Parameters
    ----------
    table : dict
        The nested tables of a case file.
    overrides : mapping, optional
        Dotted keys, such as ``"simulation.dt"``, and values.
    name : str
        What to call the source in an error.

    Returns
    -------
    Case
        The checked case.

    Raises
    ------
    InputError
        If a key is unknown, missing or out of range.

    Examples
    --------
    >>> from twinheart.cli.case import check_case
    >>> check_case({}, {"simulation.dt": 0.01}).simulation.dt
    0.01
    """
    for dotted, value in (overrides or {}).items():
        *sections, last = dotted.split(".")
        target = table
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise InputError(f"{name}: '{section}' is a value, expected a table [{section}].")
        target[last] = value
    try:
        return Case.model_validate(table)
    except ValidationError as error:
        raise InputError(f"{name}: {_explain(error)}") from None


def _tables(value: Any) -> list[dict[str, Any]]:
    items = value if isinstance(value, list) else []
    return [item for item in items if isinstance(item, dict)]


PATHS = ("heart.file", "cells.model", "ecg.electrodes", "ecg.lead_field", "output.folder")
PATHS += (
    "calibration.ecg",
    "plan.image",
    "plan.lge",
    "plan.lge_labels",
    "plan.paint",
    "plan.sites",
)
KEYWORDS = ("demo", "standard", "none", "aha17", "aha19")  # values of these that are no paths


def located(dotted: str, value: Any, folder: Path) -> Any:
    """Value of a key of `PATHS`, absolute if it names a file: relative ones are in `folder`."""
    if not isinstance(value, str) or value in KEYWORDS or value.startswith("slab:"):
        return value
    if dotted == "cells.model" and not is_model_file(value):
        return value
    return str(folder / Path(value).expanduser())


def _dotted(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".") or "the file"


def section_at(location: tuple[int | str, ...]) -> type[Section] | None:
    """Table that contains the key at `location`, as pydantic gives it: ("stimuli", 0, "where")."""
    model: type[Section] | None = Case
    for part in location[:-1]:
        if isinstance(part, str) and model is not None:
            field = model.model_fields.get(part)
            model = section_of(field.annotation) if field else None
    return model


def section_of(annotation: Any) -> type[Section] | None:
    """Section class in the annotation of a key: the class itself, or the item of a list."""
    if get_origin(annotation) is list:
        annotation = get_args(annotation)[0]
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _explain(error: ValidationError) -> str:
    """First error as a sentence, with how many more there are."""
    details = error.errors(include_url=False)
    first = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
    more = f" ({len(details) - 1} more to mend)" if len(details) > 1 else ""
    return f"{_sentence(first)}{more}."


def _sentence(detail: ErrorDetails) -> str:
    location = detail["loc"]
    name = _dotted(location)
    if detail["type"] == "extra_forbidden":
        table = section_at(location)
        valid = list(table.model_fields) if table else []
        near = difflib.get_close_matches(str(location[-1]), valid, n=1, cutoff=0.5)
        hint = f"the nearest is '{near[0]}'" if near else f"valid here: {', '.join(valid)}"
        return f"unknown key '{name}'; {hint}"
    if detail["type"] == "missing":
        return f"'{name}' is missing"
    if detail["type"] == "value_error":
        return f"[{name}] {detail['msg'].removeprefix('Value error, ')}"
    got = reprlib.repr(detail["input"])
    return f"'{name}' is {got}, expected {_expectation(detail)}"


def _expectation(detail: ErrorDetails) -> str:
    location = detail["loc"]
    table = section_at(location)
    field = table.model_fields.get(str(location[-1])) if table else None
    if detail["type"] in ("model_type", "model_attributes_type", "list_type"):
        return "a table" if detail["type"] != "list_type" else "a list"
    if detail["type"] in ("too_short", "too_long"):
        return "a list of three numbers"
    extra = field.json_schema_extra if field else None
    unit = f" [{extra['unit']}]" if isinstance(extra, dict) and extra["unit"] else ""
    return detail["msg"].removeprefix("Input should be ").replace("a valid ", "a ") + unit
