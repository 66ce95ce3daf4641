"""Ionic cell models, their time stepping, single-cell pacing and biomarkers."""

from twinheart.cell.biomarkers import (
    Afterdepolarisations,
    Biomarkers,
    CalciumTransient,
    alternans,
    apd,
    beat_durations,
    biomarkers,
    calcium_transient,
    early_afterdepolarisations,
    net_charge,
)
from twinheart.cell.conditions import Condition, apply_condition, condition_names
from twinheart.cell.currents import channel_currents
from twinheart.cell.drugs import Drug, apply_drug, block_channels, drug_names, hill_factor
from twinheart.cell.gates import derivative, step
from twinheart.cell.limit_cycle import LimitCycle, Paced, limit_cycle
from twinheart.cell.mitchell_schaeffer import MitchellSchaeffer
from twinheart.cell.model import AbstractCellModel, Gate, Pulse
from twinheart.cell.modify import LeftOutWarning, one_per_node, scale_channels
from twinheart.cell.pacing import CellTrace, pace_cell
from twinheart.cell.registry import get_model, model_names, parameter_names
from twinheart.cell.restitution import (
    RefractoryPeriod,
    Restitution,
    dynamic_restitution,
    effective_refractory_period,
    s1s2_restitution,
)
from twinheart.cell.tentusscher2006 import TenTusscher2006

__all__ = [
    "AbstractCellModel",
    "Afterdepolarisations",
    "Biomarkers",
    "CalciumTransient",
    "CellTrace",
    "Condition",
    "Drug",
    "Gate",
    "LeftOutWarning",
    "LimitCycle",
    "MitchellSchaeffer",
    "Paced",
    "Pulse",
    "RefractoryPeriod",
    "Restitution",
    "TenTusscher2006",
    "alternans",
    "apd",
    "apply_condition",
    "apply_drug",
    "beat_durations",
    "biomarkers",
    "block_channels",
    "calcium_transient",
    "channel_currents",
    "condition_names",
    "derivative",
    "drug_names",
    "dynamic_restitution",
    "early_afterdepolarisations",
    "effective_refractory_period",
    "get_model",
    "hill_factor",
    "limit_cycle",
    "model_names",
    "net_charge",
    "one_per_node",
    "pace_cell",
    "parameter_names",
    "s1s2_restitution",
    "scale_channels",
    "step",
]
