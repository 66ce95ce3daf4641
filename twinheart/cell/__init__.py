"""Ionic cell models, their time stepping, single-cell pacing and biomarkers."""

from twinheart.cell.biomarkers import Biomarkers, apd, biomarkers
from twinheart.cell.conditions import Condition, apply_condition, condition_names
from twinheart.cell.drugs import Drug, apply_drug, block_channels, drug_names, hill_factor
from twinheart.cell.gates import derivative, step
from twinheart.cell.mitchell_schaeffer import MitchellSchaeffer
from twinheart.cell.model import AbstractCellModel, Gate, Pulse
from twinheart.cell.modify import LeftOutWarning, one_per_node, scale_channels
from twinheart.cell.pacing import CellTrace, pace_cell
from twinheart.cell.registry import get_model, model_names, parameter_names
from twinheart.cell.tentusscher2006 import TenTusscher2006

__all__ = [
    "AbstractCellModel",
    "Biomarkers",
    "CellTrace",
    "Condition",
    "Drug",
    "Gate",
    "LeftOutWarning",
    "MitchellSchaeffer",
    "Pulse",
    "TenTusscher2006",
    "apd",
    "apply_condition",
    "apply_drug",
    "biomarkers",
    "block_channels",
    "condition_names",
    "derivative",
    "drug_names",
    "get_model",
    "hill_factor",
    "model_names",
    "one_per_node",
    "pace_cell",
    "parameter_names",
    "scale_channels",
    "step",
]
