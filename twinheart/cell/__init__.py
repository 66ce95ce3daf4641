"""Ionic cell models, their time stepping, single-cell pacing and biomarkers."""

import difflib

from twinheart.cell.mitchell_schaeffer import MitchellSchaeffer
from twinheart.cell.model import AbstractCellModel, Gate
from twinheart.cell.tentusscher2006 import TenTusscher2006
from twinheart.errors import ModelError

_MODELS = {
    "mitchell-schaeffer": MitchellSchaeffer,
    "tentusscher2006-epi": lambda **p: TenTusscher2006("epi", **p),
    "tentusscher2006-endo": lambda **p: TenTusscher2006("endo", **p),
    "tentusscher2006-m": lambda **p: TenTusscher2006("m", **p),
}

__all__ = [
    "AbstractCellModel",
    "Gate",
    "MitchellSchaeffer",
    "TenTusscher2006",
    "get_model",
    "model_names",
]


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

    Raises
    ------
    ModelError
        If the model or a parameter is unknown; the message names the nearest.

    Examples
    --------
    >>> from twinheart.cell import get_model
    >>> get_model("tentusscher2006-epi").g_kr.item()
    0.153...
    """
    if name not in _MODELS:
        near = difflib.get_close_matches(name, _MODELS, n=1, cutoff=0.0)[0]
        raise ModelError(
            f"unknown cell model {name!r}; the nearest is {near!r}. Known: {', '.join(_MODELS)}."
        )
    return _MODELS[name](**parameters)
