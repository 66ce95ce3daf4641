"""Ionic cell models, their time stepping, single-cell pacing and biomarkers."""

import dataclasses
import difflib

import jax
import numpy as np

from twinheart.cell.biomarkers import Biomarkers, apd, biomarkers
from twinheart.cell.gates import derivative, step
from twinheart.cell.mitchell_schaeffer import MitchellSchaeffer
from twinheart.cell.model import AbstractCellModel, Gate
from twinheart.cell.pacing import CellTrace, pace_cell
from twinheart.cell.tentusscher2006 import TenTusscher2006
from twinheart.errors import ModelError

__all__ = [
    "AbstractCellModel",
    "Biomarkers",
    "CellTrace",
    "Gate",
    "MitchellSchaeffer",
    "TenTusscher2006",
    "apd",
    "biomarkers",
    "derivative",
    "get_model",
    "model_names",
    "pace_cell",
    "step",
]

_MODELS: dict[str, tuple[type[AbstractCellModel], dict[str, str]]] = {
    "mitchell-schaeffer": (MitchellSchaeffer, {}),
    "tentusscher2006-epi": (TenTusscher2006, {"variant": "epi"}),
    "tentusscher2006-endo": (TenTusscher2006, {"variant": "endo"}),
    "tentusscher2006-m": (TenTusscher2006, {"variant": "m"}),
}


def model_names() -> tuple[str, ...]:
    """Names that `get_model` understands."""
    return tuple(_MODELS)


def get_model(name: str, **parameters) -> AbstractCellModel:
    """Cell model by name, with parameters other than the published ones if given.

    Parameters
    ----------
    name : str
        One of `model_names`.
    **parameters
        Fields of the model, e.g. ``g_kr=0.1``; scalars or (node,) arrays.

    Returns
    -------
    AbstractCellModel
        The model.

    Raises
    ------
    ModelError
        If the model or a parameter is unknown (the message names the nearest), or a value is not
        a finite number.

    Examples
    --------
    >>> from twinheart.cell import get_model
    >>> round(get_model("tentusscher2006-epi").g_kr.item(), 3)
    0.153
    """
    if name not in _MODELS:
        raise ModelError(f"unknown cell model {name!r}; {_nearest(name, model_names())}")
    model, chosen = _MODELS[name]
    known = tuple(f.name for f in dataclasses.fields(model) if f.name not in chosen)
    for parameter, value in parameters.items():
        if parameter not in known:
            raise ModelError(f"{name} has no parameter {parameter!r}; {_nearest(parameter, known)}")
        if not _finite(value):
            raise ModelError(f"{name}: {parameter}={value!r} is not a finite number.")
    return model(**chosen, **parameters)


def _finite(value) -> bool:
    try:
        return bool(np.isfinite(np.asarray(value, float)).all())
    except jax.errors.TracerArrayConversionError:
        return True  # the value is not known while a derivative is traced
    except (TypeError, ValueError):
        return False


def _nearest(name: str, known: tuple[str, ...]) -> str:
    (near,) = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"the nearest is {near!r}. Known: {', '.join(known)}."
