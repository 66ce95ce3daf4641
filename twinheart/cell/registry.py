"""Cell models by name: what is in the library, and where a file of another model is taken."""

import dataclasses
import difflib
import importlib
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np

from twinheart.cell.model import AbstractCellModel
from twinheart.errors import ModelError

# Name: module, class, fields that choose among the cells of one paper. A module is imported when
# its model is first asked for.
_MODELS: dict[str, tuple[str, str, dict[str, str]]] = {
    "mitchell-schaeffer": ("mitchell_schaeffer", "MitchellSchaeffer", {}),
    "modified-mitchell-schaeffer": (
        "modified_mitchell_schaeffer",
        "ModifiedMitchellSchaeffer",
        {},
    ),
    "aliev-panfilov": ("aliev_panfilov", "AlievPanfilov", {}),
    "fenton-karma": ("fenton_karma", "FentonKarma", {}),
    **{
        f"bueno-orovio-{variant}": ("bueno_orovio", "BuenoOrovio", {"variant": variant})
        for variant in ("epi", "endo", "m")
    },
    "luo-rudy-1991": ("luo_rudy1991", "LuoRudy1991", {}),
    **{
        f"tentusscher2006-{variant}": ("tentusscher2006", "TenTusscher2006", {"variant": variant})
        for variant in ("epi", "endo", "m")
    },
    **{
        f"ohara-rudy-{variant}": ("ohara_rudy", "OHaraRudy", {"variant": variant})
        for variant in ("epi", "endo", "m")
    },
    "ord-cipa": ("ord_cipa", "OHaraRudyCipa", {}),
    **{
        f"torord-{variant}": ("torord", "ToRORd", {"variant": variant})
        for variant in ("epi", "endo", "m")
    },
    "courtemanche1998": ("courtemanche1998", "Courtemanche1998", {}),
    "stewart2009": ("stewart2009", "Stewart2009", {}),
}
_FILES = (".cellml", ".mmt")


def model_names() -> tuple[str, ...]:
    """Names that `get_model` understands."""
    return tuple(_MODELS)


def is_model_file(name: str) -> bool:
    """Whether `get_model` takes this for a file to be imported rather than for a name."""
    return Path(name).suffix.lower() in _FILES


def get_model(name: str, **parameters) -> AbstractCellModel:
    """Cell model by name, with parameters other than the published ones if given.

    Parameters
    ----------
    name : str
        One of `model_names`, or the path of a CellML or Myokit file (see
        `twinheart.cell.cellml.import_cell`).
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
    chosen: dict[str, str] = {}
    if is_model_file(name):
        from twinheart.cell.cellml import import_cell

        model = import_cell(name)
    elif name in _MODELS:
        module, cls, chosen = _MODELS[name]
        model = getattr(importlib.import_module(f"twinheart.cell.{module}"), cls)
    else:
        raise ModelError(f"unknown cell model {name!r}; {nearest(name, model_names())}")
    known = tuple(f.name for f in dataclasses.fields(model) if f.name not in chosen)
    for parameter, value in parameters.items():
        if parameter not in known:
            raise ModelError(f"{name} has no parameter {parameter!r}; {nearest(parameter, known)}")
        if not _finite(value):
            raise ModelError(f"{name}: {parameter}={value!r} is not a finite number.")
    return model(**chosen, **parameters)


def parameter_names(model: AbstractCellModel) -> tuple[str, ...]:
    """Fields of a model that hold a number, in the order of its paper."""
    return tuple(f.name for f in dataclasses.fields(model) if not f.metadata.get("static"))


def _finite(value) -> bool:
    try:
        return bool(np.isfinite(np.asarray(value, float)).all())
    except jax.errors.TracerArrayConversionError:
        return True  # the value is not known while a derivative is traced
    except (TypeError, ValueError):
        return False


def nearest(name: str, known: Iterable[str]) -> str:
    """End of an error message: the known name most like a wrong one, and all of them."""
    known = tuple(known)
    (near,) = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"the nearest is {near!r}. Known: {', '.join(known)}."
