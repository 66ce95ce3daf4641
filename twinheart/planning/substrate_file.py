"""Substrates of what files hold: a calibrated twin, a heart, a heart with lesions."""

from dataclasses import replace
from pathlib import Path

from twinheart.anatomy import Heart, read_heart
from twinheart.calibration.twin_file import StoredTwin, is_twin_file, load_twin
from twinheart.cell import AbstractCellModel
from twinheart.ecg.compare import poor_leads
from twinheart.planning.ablation.lesions import LESION_FIELD, LESION_TAG, stored_ablation
from twinheart.planning.substrate import (
    CELL,
    CYCLE,
    Substrate,
    build_substrate,
    substrate_with,
)
from twinheart.tissue.scar import SCAR_FIELD, SCAR_TAG, has_scar


def twin_substrate(
    stored: StoredTwin, *, condition: str = "border-zone", across: float = 0.1, cycle: float = CYCLE
) -> Substrate:
    """Substrate of a calibrated twin: its heart, cells, fitted velocities and durations.

    Parameters
    ----------
    stored : StoredTwin
        From `twinheart.calibration.load_twin`.
    condition, across
        Of the border zone, where the heart has scar that the calibration did not distinguish.
    cycle : float
        See `build_substrate`.

    Returns
    -------
    Substrate
        Without the Purkinje tree: circuits run in the muscle.
    """
    twin = stored.twin
    found = build_substrate(
        twin.heart, twin.cell, twin.conductivity, condition=condition, across=across, cycle=cycle,
        apd90=stored.apd90, calibrated=True,
    )  # fmt: skip
    notes = ["velocities and durations fitted to an ECG", *found.notes]
    poor = poor_leads(stored.facts.get("correlation", {}))
    if poor:
        notes.insert(0, f"the twin does not reproduce {poor}: what follows rests on a poor fit")
    if twin.purkinje is not None:
        notes.append("the Purkinje tree of the twin is left out: circuits run in the muscle")
    return replace(found, notes=tuple(notes))


def read_substrate(
    path: str | Path,
    cell: AbstractCellModel | str = CELL,
    *,
    length_unit: str | None = None,
    condition: str = "border-zone",
    across: float = 0.1,
    cycle: float = CYCLE,
) -> Substrate:
    """Substrate of a heart file or of a calibrated twin file.

    Parameters
    ----------
    path : path
        Mesh of a heart, or what ``twinheart calibrate`` wrote. Where the mesh has the cell field
        ``lesion``, as ``twinheart ablate`` writes it, lesions do not conduct.
    cell : AbstractCellModel or str
        Of healthy tissue; a calibrated twin has its own.
    length_unit : str, optional
        Unit of a heart file.
    condition, across, cycle
        See `build_substrate`.

    Returns
    -------
    Substrate
        What was guessed about the file is among its notes.

    Raises
    ------
    InputError, MeshError, UnitError, ModelError
        If the file is not usable; see `build_substrate`.
    """
    if is_twin_file(path):
        return twin_substrate(load_twin(path), condition=condition, across=across, cycle=cycle)
    heart, report = read_heart(path, length_unit=length_unit)
    found = build_substrate(
        plain_tags(heart), cell, condition=condition, across=across, cycle=cycle
    )
    return with_stored_lesions(replace(found, notes=(*report.sentences(), *found.notes)))


def plain_tags(heart: Heart) -> Heart:
    """The heart without what a substrate added to its region tags for lesions and scar.

    Files with maps have these tags, but not the cells and velocities that belong to them: a border
    zone would be taken for healthy tissue.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.anatomy.scar import with_scar
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning.substrate_file import plain_tags
    >>> mesh = slab((2.0, 1.0, 1.0), 1.0)
    >>> scar = (mesh.points[mesh.tets].mean(axis=1)[:, 0] // 1).astype(np.int32)
    >>> plain_tags(Heart(with_scar(mesh, scar), regions=3 + 1000 * scar)).regions.max().item()
    3
    """
    tags, fields = heart.regions, heart.mesh.cell_fields
    burnt = fields.get(LESION_FIELD)
    if burnt is not None and ((tags >= LESION_TAG) == (burnt > 0)).all():
        tags = tags % LESION_TAG
    if has_scar(heart) and (tags // SCAR_TAG == fields[SCAR_FIELD]).all():
        tags = tags % SCAR_TAG
    return Heart(heart.mesh, heart.f0, heart.s0, tags)


def with_stored_lesions(substrate: Substrate) -> Substrate:
    """The substrate in which the lesions that its mesh has, see `stored_ablation`, are burnt."""
    burnt = stored_ablation(substrate.heart.mesh)
    if burnt is None:
        return substrate
    said = f"lesions (cell field '{LESION_FIELD}'), {burnt.volume_ml:.2g} ml, do not conduct"
    after = substrate_with(substrate, burnt)
    return replace(after, notes=(*substrate.notes, said))
