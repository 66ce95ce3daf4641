"""Single membrane currents of any cell model, taken out of their sum."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float

from twinheart.cell.model import AbstractCellModel, State
from twinheart.errors import ModelError


def channel_currents(
    model: AbstractCellModel, vm: Float[Any, "*node"], state: State
) -> dict[str, Float[jax.Array, "*node"]]:
    r"""Every membrane current that the model names as a channel.

    .. math:: I_c = p_c \, \partial I_{ion} / \partial p_c

    The total is linear in the parameter :math:`p_c` of a channel, so this is the current itself,
    not an approximation; a blocked channel (:math:`p_c = 0`) gives zero. Where one channel is a
    part of another (the sodium that passes calcium channels, ``i_cana`` in ``i_cal``), both
    contain it.

    Parameters
    ----------
    model : AbstractCellModel
        Cell; also a wrapper of one, whose changes are included.
    vm : (node,) array
        Transmembrane voltage [mV]; any shape that broadcasts with the parameters, (time, node)
        for a whole trace.
    state : tuple of (node,) arrays
        State as stored; of a trace `stored_state` makes it.

    Returns
    -------
    dict of str to (node,) array
        Current [A/F], outward positive, for each channel whose name starts with ``"i_"``.

    Examples
    --------
    >>> from twinheart.cell import channel_currents, get_model
    >>> cell = get_model("tentusscher2006-epi")
    >>> currents = channel_currents(cell, cell.initial_vm(), cell.initial_state())
    >>> bool(currents["i_k1"] > 0)
    True
    """
    names = tuple(name for name in model.channels if name.startswith("i_"))
    return _currents(model, tuple((name,) for name in names), jnp.asarray(vm), state, names)


def total_current(
    model: AbstractCellModel, channels: Iterable[str], vm: Float[Any, "*node"], state: State
) -> Float[jax.Array, "*node"]:
    """Sum of some channels' currents [A/F], for the price of one; see `channel_currents`.

    Parameters
    ----------
    model, vm, state
        As in `channel_currents`.
    channels : iterable of str
        Names in ``model.channels``.

    Returns
    -------
    (node,) array
        The sum, outward positive.
    """
    return _currents(model, (tuple(channels),), jnp.asarray(vm), state, ("sum",))["sum"]


def stored_state(model: AbstractCellModel, states: Mapping[str, Any]) -> State:
    """State variables of a trace, in physical units, as the model stores them."""
    return tuple(
        jnp.asarray(states[name]) - model.offsets.get(name, 0.0) for name in model.state_names
    )


@eqx.filter_jit
def _currents(model, groups, vm, state, names):
    found = {}
    for name, channels in zip(names, groups, strict=True):
        parameters = [model.channels[channel] for channel in channels]

        def leaves(model, parameters=parameters):
            return [_parameter(model, parameter) for parameter in parameters]

        def i_ion(values, leaves=leaves):
            return eqx.tree_at(leaves, model, values).rates(vm, state)[0]

        at = leaves(model)
        # Along the parameter itself the derivative is the current.
        current = jax.jvp(i_ion, (at,), (at,))[1] if at else jnp.zeros_like(vm)
        found[name] = jnp.broadcast_to(current, jnp.broadcast_shapes(vm.shape, current.shape))
    return found


def _parameter(model, name: str):
    """The leaf of that name in the model, or in the one it wraps."""
    while not any(field.name == name for field in dataclasses.fields(model)):
        if not isinstance(getattr(model, "model", None), AbstractCellModel):
            raise ModelError(f"cell model '{model.name}' has no parameter '{name}'.")
        model = model.model
    return getattr(model, name)
