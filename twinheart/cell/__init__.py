"""Ionic cell models, their time stepping, single-cell pacing and biomarkers."""

from twinheart.cell.biomarkers import Biomarkers, apd, biomarkers
from twinheart.cell.gates import derivative, step
from twinheart.cell.mitchell_schaeffer import MitchellSchaeffer
from twinheart.cell.model import AbstractCellModel, Gate, Pulse
from twinheart.cell.pacing import CellTrace, pace_cell
from twinheart.cell.registry import get_model, model_names, parameter_names
from twinheart.cell.tentusscher2006 import TenTusscher2006

__all__ = [
    "AbstractCellModel",
    "Biomarkers",
    "CellTrace",
    "Gate",
    "MitchellSchaeffer",
    "Pulse",
    "TenTusscher2006",
    "apd",
    "biomarkers",
    "derivative",
    "get_model",
    "model_names",
    "pace_cell",
    "parameter_names",
    "step",
]
