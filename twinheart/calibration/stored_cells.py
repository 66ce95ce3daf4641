"""Cells of a calibrated twin: written by name and numbers, and made to repolarise as was fitted."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.interpolate import PchipInterpolator

from twinheart.anatomy import Heart
from twinheart.calibration.repolarisation import CHANNEL_FACTORS, apd_table
from twinheart.cell import AbstractCellModel, get_model, scale_channels
from twinheart.cell.modify import core, parameter_of
from twinheart.cell.registry import model_names, parameter_names
from twinheart.errors import InputError, ModelError
from twinheart.tissue.build import cells_of_nodes
from twinheart.tissue.template import templates_of

# What sets the APD without touching the upstroke, the first that a model has;
_OF_APD = ("i_ks", "i_k", "tau_close", "i_kr")
_CLOSE = 5.0  # ms: cells that miss the fitted APD by more are told of


def described(
    cells: Sequence[AbstractCellModel],
) -> tuple[Int[np.ndarray, "_"], list[dict[str, Any]], list[str]]:
    """Cells as plain words: which of the distinct ones each is, these by name and numbers.

    Parameters
    ----------
    cells : sequence of AbstractCellModel
        One for each region.

    Returns
    -------
    kinds, entries, remarks
        Index of each cell in `entries`; ``{"name", "parameters"}`` for `cell_of`; what could not
        be told.
    """
    distinct: list[AbstractCellModel] = []
    kinds = []
    for cell in cells:
        known = next((k for k, other in enumerate(distinct) if other is cell), len(distinct))
        distinct += [cell] if known == len(distinct) else []
        kinds.append(known)
    entries, remarks = [], []
    for cell in distinct:
        entry = _entry(cell)
        if not same_cell(cell_of(entry), cell):
            remarks.append(
                f"cells of {core(cell).name} differ from the published ones in a way that the "
                "file does not hold: it has their name and single numbers only"
            )
        entries.append(entry)
    return np.array(kinds, dtype=np.int32), entries, remarks


def _entry(cell: AbstractCellModel) -> dict[str, Any]:
    inner = core(cell)
    if inner.name not in model_names():
        raise InputError(
            f"cell model '{inner.name}' comes from a file and cannot be stored by name: calibrate "
            "with a model of the library."
        )
    usual = get_model(inner.name)
    values = {n: np.asarray(getattr(inner, n), float) for n in parameter_names(inner)}
    changed = {
        name: float(value)
        for name, value in values.items()
        if value.ndim == 0 and value != np.asarray(getattr(usual, name), float)
    }
    return {"name": inner.name, "parameters": changed}


def cell_of(entry: Any) -> AbstractCellModel:
    """Cell of what `described` told.

    Raises
    ------
    InputError
        If there is no such model in the library, or a number is none.

    Examples
    --------
    >>> from twinheart.calibration.stored_cells import cell_of
    >>> round(float(cell_of({"name": "tentusscher2006-epi", "parameters": {"g_ks": 0.2}}).g_ks), 3)
    0.2
    """
    name = entry.get("name") if isinstance(entry, dict) else None
    if name not in model_names():  # a path, too, is refused: files of strangers name no files
        raise InputError(f"the twin's cell model {str(name)[:40]!r} is not in the library.")
    numbers = {str(k): float(v) for k, v in entry.get("parameters", {}).items()}
    return get_model(name, **numbers)


def same_cell(one: AbstractCellModel, other: AbstractCellModel) -> bool:
    """Whether two cells have the same equations and numbers."""
    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=1e-6) for a, b in pairs)


def with_apd(
    heart: Heart,
    cell: AbstractCellModel | dict[int, AbstractCellModel],
    apd90: Float[np.ndarray, "node"],
) -> tuple[dict[int, AbstractCellModel], list[str]]:
    """Scale a repolarising current node by node so that cells have a wanted APD.

    Parameters
    ----------
    heart : Heart
        Its regions say which cell a node has.
    cell : AbstractCellModel or dict of int to AbstractCellModel
        Cells as they are.
    apd90 : (node,) array
        Wanted APD90 as a travelling wave passes [ms].

    Returns
    -------
    dict of int to AbstractCellModel, list of str
        Cells by region tag; sentences where they cannot follow.
    """
    models, number, of_node = cells_of_nodes(heart, cell)
    usual = np.asarray(templates_of(heart, cell).apd90)
    changed, remarks = [], []
    for k, model in enumerate(models):
        mine = of_node == k
        if not mine.any() or np.abs(apd90 - usual)[mine].max() < 0.5:
            changed.append(model)
            continue
        scaled, missed = _scaled(model, np.where(mine, apd90, usual[mine].mean()))
        changed.append(scaled)
        missed = float(missed[mine].max())
        if missed > _CLOSE:
            remarks.append(
                f"cells of {core(model).name} miss the fitted APD by up to {missed:.0f} ms: it is "
                "beyond what their repolarising current can do"
            )
    return {tag: changed[number[tag]] for tag in number}, remarks


def _scaled(model: AbstractCellModel, apd90: np.ndarray):
    """The model with one factor for each node, and by how much it misses the APD there [ms]."""
    names = [n for n in _OF_APD if parameter_of(model, n) is not None]
    if not names:
        raise ModelError(
            f"cell model '{core(model).name}' has none of {', '.join(_OF_APD)}, with which its APD "
            "could be set: simulate this twin with propagation 'eikonal'."
        )
    best, least = (model, np.abs(apd90)), np.inf
    for name in names:
        table, place = np.unique(apd_table(model, name), return_index=True)
        within = np.clip(apd90, table[0], table[-1])
        missed = np.abs(within - apd90)
        factor = np.exp(PchipInterpolator(table, np.log(CHANNEL_FACTORS)[place])(within))
        if missed.max() < least:
            best = scale_channels(model, {name: jnp.asarray(factor)}), missed
            least = missed.max()
        if least <= _CLOSE:
            break
    return best
