"""From a checked case to the objects of the library: heart, twin and stimuli."""

import difflib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twinheart.cli.case import (
    Case,
    CellFieldSection,
    CellRegion,
    CellsSection,
    ConductionSection,
    HeartSection,
)
from twinheart.cli.terminal import say
from twinheart.errors import InputError, ModelError

if TYPE_CHECKING:
    from twinheart.anatomy import Heart
    from twinheart.calibration.twin_file import StoredTwin
    from twinheart.cell import AbstractCellModel
    from twinheart.cli.section import PurkinjeSection
    from twinheart.ecg import Electrodes, LeadField
    from twinheart.tissue import ConductionSystem, Conductivities, Stimulus, Velocities
    from twinheart.twin import Beat, Twin

_SIGMAS = ("sigma_il", "sigma_it", "sigma_el", "sigma_et")


def build_heart(case: Case) -> "Heart":
    """Load the heart of a case, refine it and set its fibres as the case says.

    Parameters
    ----------
    case : Case
        A checked case.

    Returns
    -------
    Heart
        Mesh in mm.
    """
    section = case.heart
    if is_calibrated(case):
        return _calibrated(case).twin.heart
    if section.file == "demo":
        heart = _demo_heart(section.max_edge)
    elif section.file.startswith("slab:"):
        heart = _slab(section.file)
    else:
        from twinheart.anatomy import read_heart

        heart, report = read_heart(
            section.file, length_unit=section.length_unit, max_edge=section.max_edge
        )
        for sentence in report.sentences():
            say(f"twinheart: note: {sentence}")
    return _with_fibres(heart, section)


def is_calibrated(case: Case) -> bool:
    """Whether the heart of a case is a calibrated twin."""
    from twinheart.calibration.twin_file import is_twin_file

    return is_twin_file(case.heart.file)


def _calibrated(case: Case) -> "StoredTwin":
    """The calibrated twin of a case, unless the case sets what the twin itself says."""
    from twinheart.calibration.twin_file import load_twin

    own = {
        "heart": case.heart.model_copy(update={"file": "demo", "length_unit": None}),
        **{name: getattr(case, name) for name in ("cells", "conduction", "scar", "purkinje")},
    }
    for name, section in own.items():
        if section != type(section)():
            raise InputError(
                f"[{name}] has no effect on the calibrated twin {case.heart.file}, which has its "
                "own: leave it out, or give the mesh of the heart instead."
            )
    return load_twin(case.heart.file)


def _calibrated_twin(case: Case) -> "Twin":
    """The twin with the electrodes and the lead field of the case, where it names some."""
    from twinheart.twin import Twin

    stored = _calibrated(case)
    twin = stored.twin
    if case.simulation.propagation != "eikonal":
        twin, remarks = stored.with_ionic_apd()
        for remark in remarks:
            say(f"twinheart: note: {remark}")
    standard = case.ecg.electrodes == "standard"
    electrodes = twin.electrodes if standard else _electrodes(case, twin.heart)
    if stored.facts["stored_lead_field"] and not case.ecg.lead_field:
        say(
            "twinheart: note: this twin was fitted in a torso; without its --lead-field the ECG is "
            "that of an unbounded medium"
        )
    field = _lead_field(case, twin.heart, electrodes)
    return Twin(twin.heart, twin.cell, twin.conductivity, electrodes, twin.purkinje, field)


def simulator(case: Case) -> "Callable[..., Beat]":
    """What simulates a case, called as `twinheart.simulate` is.

    A calibrated twin has an APD of its own at every node, which the eikonal takes as it is.
    """
    from twinheart.twin import simulate

    if not (is_calibrated(case) and case.simulation.propagation == "eikonal"):
        return simulate
    stored = _calibrated(case)

    def beat(
        twin: "Twin",
        stimuli: list["Stimulus"],
        *,
        t_end: float,
        resume: bool = False,
        devices: int | None = None,
        **_: Any,
    ) -> "Beat":
        if resume or devices:  # for the eikonal's own refusal
            idle: dict[str, Any] = {"resume": resume, "devices": devices}
            return simulate(twin, stimuli, t_end=t_end, propagation="eikonal", **idle)
        return replace(stored, twin=twin).beat(t_end=t_end, stimuli=stimuli)

    return beat


def _demo_heart(max_edge: float | None) -> "Heart":
    from twinheart.anatomy.demo import DEMO_EDGE, demo_heart

    return demo_heart(edge=DEMO_EDGE if max_edge is None else min(DEMO_EDGE, max_edge))


def _slab(text: str) -> "Heart":
    from twinheart.anatomy import Heart
    from twinheart.mesh.generate import slab

    try:
        *size, edge = (float(number) for number in text.removeprefix("slab:").split(","))
    except ValueError:
        size, edge = [], 0.0
    if len(size) != 3:
        raise InputError(f"heart.file is '{text}', expected slab:x,y,z,edge with lengths in mm.")
    mesh = slab(size, edge)
    return Heart(mesh, f0=np.tile([1.0, 0.0, 0.0], (mesh.n_tets, 1)))


def _with_fibres(heart: "Heart", section: HeartSection) -> "Heart":
    from twinheart.anatomy import Heart
    from twinheart.anatomy.fibres import add_fibres

    if section.fibres == "rule":
        return add_fibres(heart, alpha_endo=section.alpha_endo, alpha_epi=section.alpha_epi)
    if section.fibres == "constant":
        direction = np.asarray(section.fibre_direction)
        length = np.linalg.norm(direction)
        if length == 0:
            raise InputError("heart.fibre_direction is [0, 0, 0], expected a direction.")
        f0 = np.tile(direction / length, (heart.mesh.n_tets, 1))
        return Heart(heart.mesh, f0=f0, regions=heart.regions)
    if heart.f0 is None:
        say(
            "twinheart: note: without fibres the tissue conducts equally in all directions; "
            "heart.fibres in a case file gives it some"
        )
    return heart


def build_twin(case: Case, heart: "Heart") -> "Twin":
    """Twin of a case: cells and conduction by region, electrodes.

    Parameters
    ----------
    case : Case
        A checked case.
    heart : Heart
        What `build_heart` made of it.

    Returns
    -------
    Twin
        Ready for `simulate`.

    Raises
    ------
    ModelError
        If a region of the case does not occur in the heart, or a name is unknown.
    """
    from twinheart.tissue.scar import has_scar, scarred
    from twinheart.twin import Twin

    if is_calibrated(case):
        return _calibrated_twin(case)
    cells: Any = _cells(case, heart)
    conduction: Any = _conduction(case.conduction, heart)
    electrodes, purkinje = _electrodes(case, heart), _purkinje(case, heart)
    if case.conduction.cv_endocardium is not None:
        from twinheart.tissue import fast_endocardium

        heart, cells, conduction = fast_endocardium(
            heart, cells, conduction, cv=case.conduction.cv_endocardium
        )
    if case.scar.present and has_scar(heart):
        say("twinheart: note: border zone and core of the field 'scar' conduct as scar does")
        heart, cells, conduction = scarred(
            heart, cells, conduction, condition=case.scar.condition, across=case.scar.across
        )
    field = _lead_field(case, heart, electrodes)
    return Twin(heart, cells, conduction, electrodes, purkinje, field)


def build_stimuli(case: Case, heart: "Heart") -> list["Stimulus"]:
    """Stimuli of a case; where it names none, those of a calibrated twin, or the apex at 0 ms.

    Parameters
    ----------
    case : Case
        A checked case.
    heart : Heart
        What `build_heart` made of it.

    Returns
    -------
    list of Stimulus
        One for each place; ``"durrer"`` names several.
    """
    from twinheart.cli.case import StimulusSection
    from twinheart.tissue import pace

    if not case.stimuli and is_calibrated(case):
        return list(_calibrated(case).stimuli)
    stimuli = []
    for section in case.stimuli or [StimulusSection()]:
        for where, delay in _places(section.where, heart, case.purkinje):
            stimuli.append(
                pace(
                    where,
                    start=section.start + delay,
                    duration=section.duration,
                    amplitude=section.amplitude,
                    period=section.period,
                    count=section.count,
                )
            )
    return stimuli


def _places(where: str, heart: "Heart", purkinje: "PurkinjeSection") -> list[tuple[Any, float]]:
    """Places that a stimulus acts on, and how much later than its start."""
    if where == "purkinje" and purkinje.files:
        from twinheart.anatomy.purkinje import activation_starts

        starts = activation_starts(purkinje.files)
        return [(f"purkinje:{k}", start) for k, start in enumerate(starts)]
    if where != "durrer":
        return [(where, 0.0)]
    from twinheart.anatomy.root_sites import root_sites

    return [(site.nodes, site.onset) for site in root_sites(heart.mesh)]


def _purkinje(case: Case, heart: "Heart") -> "ConductionSystem | None":
    section = case.purkinje
    wanted = any(s.where.partition(":")[0] == "purkinje" for s in case.stimuli)
    if not (wanted if section.present is None else section.present):
        return None
    from twinheart.anatomy.purkinje import grow_purkinje, read_purkinje
    from twinheart.cell import get_model
    from twinheart.tissue import ConductionSystem

    if section.files:
        tree = read_purkinje(section.files)
    else:
        tree = grow_purkinje(heart.mesh, seed=section.seed, twig_length=section.twig_length)
    length = tree.lengths.sum() / 1e3
    say(
        f"twinheart: note: Purkinje tree of {tree.n_nodes} nodes and {length:.1f} m, with "
        f"{len(tree.junctions)} junctions"
    )
    cell = None if section.cell is None else get_model(section.cell)
    return ConductionSystem(tree, cell, cv=section.cv, resistance=section.resistance)


def _check_tags(kind: str, tags: list[int], heart: "Heart") -> None:
    known = np.unique(heart.regions).tolist()
    for tag in tags:
        if tag not in known:
            raise ModelError(
                f"{kind}.regions names tag {tag}, but the heart has only the tags {known}."
            )


def _cells(case: Case, heart: "Heart") -> Any:
    section = case.cells
    base = build_cell(section, heart)
    if not section.regions:
        return base
    _check_tags("cells", [region.tag for region in section.regions], heart)
    cells = dict.fromkeys(np.unique(heart.regions).tolist(), base)
    for k, region in enumerate(section.regions, start=1):
        cells[region.tag] = build_cell(_on_top(section, region), heart, f"cells.regions[{k}]")
    return cells


def _on_top(whole: CellsSection, region: CellRegion) -> CellsSection:
    """The cells of a region: of its own model, or those of the whole heart; its keys on top."""
    start = whole if region.model is None else CellsSection(model=region.model, drugs=whole.drugs)
    channels = dict(start.channels)
    for name, factor in region.channels.items():
        channels[name] = channels.get(name, 1.0) * factor
    return CellsSection(
        model=start.model,
        parameters={**start.parameters, **region.parameters},
        condition=start.condition if region.condition is None else region.condition,
        channels=channels,
        drugs=[*start.drugs, *region.drugs],
        fields=[*start.fields, *region.fields],
    )


def build_cell(
    section: CellsSection, heart: "Heart | None" = None, where: str = "cells"
) -> "AbstractCellModel":
    """Cell model of a section: parameters first, then disease, channels, fields and drugs.

    Parameters
    ----------
    section : CellsSection
        The checked keys.
    heart : Heart, optional
        Whose point fields `CellsSection.fields` names.
    where : str
        What an error calls the section.

    Returns
    -------
    AbstractCellModel
        With scalar parameters, or one value a node where a field acts.

    Raises
    ------
    ModelError
        If a name is unknown, or a factor or dose is not usable.
    """
    from twinheart.cell import apply_condition, apply_drug, get_model, scale_channels

    cell = get_model(section.model, **section.parameters)
    try:
        if section.condition != "none":
            cell = apply_condition(cell, section.condition)
        cell = scale_channels(cell, section.channels)
        for entry in section.fields:
            cell = scale_channels(cell, {entry.channel: _field_factor(entry, heart)})
        for drug in section.drugs:
            cell = apply_drug(
                cell, drug.name, concentration_nm=drug.concentration_nm, cmax=drug.cmax
            )
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None
    return cell


def _field_factor(entry: CellFieldSection, heart: "Heart | None") -> np.ndarray:
    """Factor of every node: at_zero + (at_one - at_zero) times the field."""
    if heart is None:
        raise ModelError("a single cell has no point fields.")
    fields = heart.mesh.point_fields
    if entry.field not in fields:
        known = [name for name, values in fields.items() if np.ndim(values) == 1]
        hint = f"the mesh has {', '.join(known)}" if known else "the mesh has none"
        raise ModelError(f"no point field '{entry.field}' for {entry.channel}; {hint}.")
    values = np.asarray(fields[entry.field], dtype=float).squeeze()
    if values.shape != (heart.mesh.n_nodes,):
        raise ModelError(f"point field '{entry.field}' has more than one number a node.")
    if not np.isfinite(values).all():
        raise ModelError(
            f"point field '{entry.field}' is no number at {np.sum(~np.isfinite(values))} nodes."
        )
    return entry.at_zero + (entry.at_one - entry.at_zero) * values


def _conduction(section: ConductionSection, heart: "Heart") -> Any:
    whole = section.model_dump(exclude={"regions", "mode", "cv_endocardium"})
    if not section.regions:
        return _tissue(section.mode, whole)
    _check_tags("conduction", [region.tag for region in section.regions], heart)
    tissues = dict.fromkeys(np.unique(heart.regions).tolist(), _tissue(section.mode, whole))
    for region in section.regions:
        own = region.model_dump(exclude={"tag"}, exclude_none=True)
        tissues[region.tag] = _tissue(section.mode, {**whole, **own})
    return tissues


def _tissue(mode: str, values: dict[str, Any]) -> "Conductivities | Velocities":
    from twinheart.tissue import NAMED_SETS, Conductivities, Velocities

    name = values["conductivities"]
    if name not in NAMED_SETS:
        near = difflib.get_close_matches(name, NAMED_SETS, n=1, cutoff=0.0)[0]
        raise ModelError(
            f"unknown set of conductivities '{name}'; the nearest is '{near}'. Known: "
            f"{', '.join(NAMED_SETS)}."
        )
    base = NAMED_SETS[name]
    sigmas = [getattr(base, name) if values[name] is None else values[name] for name in _SIGMAS]
    physical = Conductivities(*sigmas, chi=float(base.chi), cm=float(base.cm))
    if mode == "conductivities":
        return physical
    return Velocities(values["cv_l"], values["cv_t"], values["cv_n"], physical=physical)


def _lead_field(case: Case, heart: "Heart", electrodes: "Electrodes | None") -> "LeadField | None":
    if not case.ecg.lead_field:
        return None
    from twinheart.ecg import read_lead_field

    given = None if case.ecg.electrodes == "standard" else electrodes
    return read_lead_field(Path(case.ecg.lead_field), heart, electrodes=given)


def _electrodes(case: Case, heart: "Heart") -> "Electrodes | None":
    from twinheart.ecg import read_electrodes, standard_12_lead

    where = case.ecg.electrodes
    if where == "none":
        return None
    return standard_12_lead(heart) if where == "standard" else read_electrodes(Path(where))
