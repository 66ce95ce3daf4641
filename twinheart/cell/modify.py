"""Modified cells: channels scaled by name, several parameter sets joined into one model.

A modified model is the same class with other numbers, so nothing is compiled again and every
factor can be differentiated. `twinheart.cell.conditions` and `twinheart.cell.drugs` build on it.

Temperature needs no modifier: models whose equations contain it have a parameter ``temperature``
[K], e.g. ``get_model("tentusscher2006-epi", temperature=308.0)``; it enters where the paper has it
(reversal potentials and fluxes), rates of gates are those of the paper's own temperature.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from twinheart.cell.limit_cycle import Paced
from twinheart.cell.model import AbstractCellModel
from twinheart.cell.registry import nearest, parameter_names
from twinheart.errors import ModelError

Model = TypeVar("Model", bound=AbstractCellModel)


class LeftOutWarning(UserWarning):
    """Part of a disease or drug acts on something that the cell model does not have."""


def scale_channels(model: Model, factors: Mapping[str, Any]) -> Model:
    """Cell with channels, or any other parameters, multiplied by factors.

    Parameters
    ----------
    model : AbstractCellModel
        Cell; of a wrapper, such as a paced cell, the model inside is changed.
    factors : mapping of str to float or (node,) array
        By name of a channel (``"i_kr"``, see `AbstractCellModel.channels`) or of a parameter
        (``"g_kr"``); not negative. Factors on the same parameter multiply. They may be traced.

    Returns
    -------
    AbstractCellModel
        Of the same class, other numbers.

    Raises
    ------
    ModelError
        If a name is unknown (the message names the nearest), or a factor is negative or no number.

    Examples
    --------
    >>> from twinheart.cell import get_model, scale_channels
    >>> cell = scale_channels(get_model("tentusscher2006-epi"), {"i_kr": 0.5, "i_ks": 0.2})
    >>> round(cell.g_kr.item(), 4)
    0.0765
    """
    inner = core(model)
    for name, factor in factors.items():
        parameter = parameter_of(inner, name)
        if parameter is None:
            known = (*inner.channels, *parameter_names(inner))
            raise ModelError(f"{inner.name} has no channel {name!r}; {nearest(name, known)}")
        check_not_negative(f"factor of {name}", factor)
        value = getattr(inner, parameter)
        inner = with_parameters(inner, {parameter: value * jnp.asarray(factor, value.dtype)})
    return _with_core(model, inner)


def parameter_of(model: AbstractCellModel, name: str) -> str | None:
    """Parameter behind a channel, or the parameter of that name; None if there is neither."""
    inner = core(model)
    if name in inner.channels:
        return inner.channels[name]
    return name if name in parameter_names(inner) else None


def with_parameters(model: Model, values: Mapping[str, Any]) -> Model:
    """Cell with other values of some parameters, which must exist, in its own precision."""
    inner = core(model)
    names = list(values)
    if not names:
        return model
    arrays = [jnp.asarray(values[n], jnp.asarray(getattr(inner, n)).dtype) for n in names]
    inner = eqx.tree_at(lambda m: [getattr(m, n) for n in names], inner, arrays)
    return _with_core(model, inner)


def core(model: AbstractCellModel) -> AbstractCellModel:
    """The model with the equations: that inside a wrapper's field ``model``, or itself."""
    inner = getattr(model, "model", None)
    return core(inner) if isinstance(inner, AbstractCellModel) else model


def _with_core(model, inner):
    if not isinstance(getattr(model, "model", None), AbstractCellModel):
        return inner
    return eqx.tree_at(lambda m: m.model, model, _with_core(model.model, inner))


def check_not_negative(what: str, value: Any) -> None:
    """Refuse a negative or non-finite number; one that is not known yet, while traced, passes."""
    try:
        values = np.asarray(value, dtype=float)
    except jax.errors.TracerArrayConversionError:
        return
    except (TypeError, ValueError):
        raise ModelError(f"{what} is {value!r}, expected a number.") from None
    bad = values[~(np.isfinite(values) & (values >= 0))]
    if bad.size:
        raise ModelError(f"{what} is {bad.ravel()[0]:g}, expected a number of at least 0.")


def same_equations(one: AbstractCellModel, other: AbstractCellModel) -> bool:
    """Whether two cells differ in numbers only, so that `one_per_node` can join them."""
    return _kind(one) == _kind(other)


def _kind(model) -> tuple:
    """Everything but numbers: classes, static fields that choose equations, names."""
    free = ("variant",) if getattr(type(model), "variants_share_equations", False) else ()
    parts: list[Any] = [type(model)]
    if isinstance(model, AbstractCellModel):
        parts.append((tuple(model.initial), tuple(model.offsets)))
    for field in dataclasses.fields(model):
        value = getattr(model, field.name)
        if isinstance(value, eqx.Module):
            parts.append((field.name, _kind(value)))
        elif not field.metadata.get("static"):
            fixed = [x for x in jax.tree.leaves(value) if not eqx.is_array(x)]
            parts.append((field.name, jax.tree.structure(value), fixed))
        elif field.name not in free:
            parts.append((field.name, value))
    return tuple(parts)


def one_per_node(
    models: Sequence[AbstractCellModel], choice: Int[np.ndarray, "node"]
) -> AbstractCellModel:
    """One model whose parameters differ by node, from several with the same equations.

    Parameters
    ----------
    models : sequence of AbstractCellModel
        Cells of one class that differ in numbers only (see `same_equations`); their parameters
        are scalars or (node,) arrays.
    choice : (node,) int array
        Index of the model of each node.

    Returns
    -------
    AbstractCellModel
        Parameters on which all agree stay scalars, the others are (node,) arrays; so are initial
        values, if they differ.

    Raises
    ------
    ModelError
        If the equations differ.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.cell import get_model, one_per_node
    >>> cells = [get_model("tentusscher2006-epi", g_ks=g) for g in (0.1, 0.4)]
    >>> one_per_node(cells, np.array([0, 1, 1])).g_ks.tolist()
    [0.10000000149011612, 0.4000000059604645, 0.4000000059604645]
    """
    first = models[0]
    if not all(same_equations(first, other) for other in models[1:]):
        names = ", ".join(m.name for m in models)
        raise ModelError(f"cells of different equations cannot be one model: {names}.")
    if len(models) == 1:
        return first
    choice = np.asarray(choice)
    leaves = [jax.tree.leaves(m) for m in models]
    mixed = [_mixed(values, choice) for values in zip(*leaves, strict=True)]
    model = jax.tree.unflatten(jax.tree.structure(first), mixed)
    return _with_start(model, models, choice)


def _mixed(values: Sequence[Any], choice: np.ndarray) -> Any:
    """One leaf for all nodes: the common value, or an array with the value of each node."""
    first = values[0]
    if not eqx.is_array(first) or all(_equal(first, value) for value in values[1:]):
        return first
    if all(value.ndim == 0 for value in values):
        return jnp.stack(values)[choice]
    mixed = jnp.broadcast_to(first, choice.shape)
    for k, value in enumerate(values[1:], start=1):
        mixed = jnp.where(choice == k, value, mixed)
    return mixed


def _equal(one, other) -> bool:
    if one is other:
        return True
    try:
        return one.shape == other.shape and bool(np.array_equal(one, other))
    except jax.errors.TracerArrayConversionError:
        return False  # not known while a derivative is traced


def _start(model: AbstractCellModel) -> tuple[jax.Array, ...]:
    return (jnp.asarray(model.initial_vm()), *map(jnp.asarray, model.initial_state()))


def _with_start(model, models, choice):
    """The joined model, wrapped where its variants start from values of their own."""
    wanted = [_mixed(values, choice) for values in zip(*map(_start, models), strict=True)]
    found = _start(model)
    if all(_equal(*pair) for pair in zip(wanted, found, strict=True)):
        return model
    return Paced(model, wanted[0], tuple(wanted[1:]))
