r"""Drugs as an alternative to ablation: channels are blocked, waves slower, recovery later.

A blocked cell is paced for long and its restitution measured on a cable, as that of the substrate
was. Velocities at rest are multiplied by the ratio of the two cells' waves, and durations by the
factor by which those of the substrate differ from the cell's own (one, unless they were fitted to a
patient). Concentrations are multiples of the free therapeutic peak, see `twinheart.cell.drugs`.
"""

import warnings

import equinox as eqx
import numpy as np

from twinheart.cell import AbstractCellModel, apply_drug
from twinheart.cell.drugs import DRUGS
from twinheart.cell.modify import LeftOutWarning, parameter_of
from twinheart.errors import InputError, ModelError
from twinheart.planning.substrate import Substrate
from twinheart.tissue import Conductivities, Velocities, WaveTable, build_eikonal
from twinheart.tissue.conductivity import Conduction
from twinheart.tissue.measured_wave import measured_wave

# Vaughan Williams class of the drugs of the CiPA training set that are antiarrhythmics.
CLASSES = {
    "quinidine": "Ia",
    "mexiletine": "Ib",
    "dofetilide": "III",
    "sotalol": "III",
    "verapamil": "IV",
    "diltiazem": "IV",
}
DEFAULT_DRUGS = ("quinidine", "sotalol")
_SOURCE = "Li et al. 2017 (doi:10.1161/CIRCEP.116.004628)"


def drugged(substrate: Substrate, drug: str, cmax: float = 1.0) -> Substrate:
    """The substrate under a drug.

    Parameters
    ----------
    substrate : Substrate
        Without it.
    drug : str
        One of `twinheart.cell.drugs.drug_names`.
    cmax : float
        Concentration as a multiple of the free therapeutic peak.

    Returns
    -------
    Substrate
        Cells, velocities, restitution and refractory periods under the drug.

    Raises
    ------
    InputError
        If a cell has none of the channels that the drug blocks.
    ModelError
        If the drug is unknown, or a cell under it does not follow the cycle length.
    """
    if drug not in DRUGS:
        raise ModelError(f"unknown drug {drug!r}, expected one of {', '.join(DRUGS)}.")
    problem = substrate.problem
    used = {problem.tags[k] for k in np.unique(np.asarray(problem.rows[0]))}
    cells, tables, factor = dict(substrate.cells), dict(substrate.tables), {}
    notes: dict[str, None] = dict.fromkeys(substrate.notes)
    for tag in used:
        cell = substrate.cells[tag]
        _must_be_blocked(cell, drug)
        with warnings.catch_warnings(record=True) as left_out:
            warnings.simplefilter("always", LeftOutWarning)
            cells[tag] = apply_drug(cell, drug, cmax=cmax)
        notes |= dict.fromkeys(str(warning.message) for warning in left_out)
        plain = measured_wave(cell, substrate.cycle)
        blocked = measured_wave(cells[tag], substrate.cycle)
        scale = substrate.tables[tag].apd[-1] / plain.table.apd[-1]
        tables[tag] = WaveTable(blocked.table.di, blocked.table.speed, blocked.table.apd * scale)
        factor[tag] = blocked.velocity / plain.velocity
    tissues = {tag: _slower(t, factor.get(tag, 1.0)) for tag, t in substrate.conduction.items()}
    problem = build_eikonal(substrate.heart, tissues)
    notes[f"{drug} at {cmax:g} times its free therapeutic peak, blocks after {_SOURCE}"] = None
    return substrate.changed(
        cells=cells, conduction=tissues, problem=problem, tables=tables, notes=tuple(notes)
    )


def _slower(tissue: Conduction, ratio: float) -> Conduction:
    """Tissue whose waves have a share of the velocity."""
    if isinstance(tissue, Velocities):
        return Velocities(*(ratio * np.asarray(tissue.cv)).tolist(), physical=tissue.physical)
    if isinstance(tissue, Conductivities):  # velocity goes with the root of the diffusivity
        return eqx.tree_at(lambda t: t.chi, tissue, tissue.chi / ratio**2)
    return tissue


def _must_be_blocked(cell: AbstractCellModel, drug: str) -> None:
    if not any(parameter_of(cell, channel) for channel in DRUGS[drug].block):
        raise InputError(
            f"{cell.name} has none of the channels that {drug} blocks "
            f"({', '.join(DRUGS[drug].block)}): take an ionic model for --cell."
        )
