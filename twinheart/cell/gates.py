"""Time stepping of cell models: Rush-Larsen for what relaxes, forward Euler for the rest."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from twinheart.cell.elementary import relaxed_fraction
from twinheart.cell.model import AbstractCellModel, Follower, Gate, State
from twinheart.types import Array


def step(
    model: AbstractCellModel,
    vm: Float[jax.Array, "*node"],
    state: State,
    dt: Any,
    i_stim: Any = 0.0,
) -> tuple[Float[jax.Array, "*node"], State]:
    r"""One time step of the state: gates first, then currents and concentrations.

    Gates follow Rush and Larsen at the voltage of the start of the step,
    :math:`x \leftarrow x + (x_\infty - x)(1 - e^{-\Delta t/\tau})`, exact at constant voltage and
    therefore stable for any `dt`. The ionic current and all other variables (forward Euler, or the
    same exponential step for a `Follower`) then use the new gates. Against evaluating everything at
    the start, this order needs no copies of the state and has half the error, much less in the
    upstroke: after 1 ms of stimulus 0.06 instead of 3.3 mV at dt = 0.02 ms (ten Tusscher 2006
    against a stiff solver).

    The caller advances the voltage by ``dt * (i_stim - i_ion + ...)``; see `add_change`.

    Parameters
    ----------
    model : AbstractCellModel
        The cell model; its parameters are scalars or (node,) arrays.
    vm : (node,) array
        Transmembrane voltage [mV].
    state : tuple of (node,) arrays
        State in the order of ``model.state_names``.
    dt : float
        Time step [ms].
    i_stim : (node,) array or float
        Stimulus [A/F], positive depolarises; see `AbstractCellModel.rates`.

    Returns
    -------
    i_ion : (node,) array
        Ionic current at `vm` and the new gates [A/F], outward positive.
    state : tuple of (node,) arrays
        State `dt` later.

    References
    ----------
    Rush and Larsen 1978, doi:10.1109/TBME.1978.326270.

    Examples
    --------
    >>> from twinheart.cell import get_model
    >>> from twinheart.cell.gates import step
    >>> model = get_model("mitchell-schaeffer")
    >>> i_ion, state = step(model, model.initial_vm(), model.initial_state(), 0.02)
    >>> len(state) == len(model.state_names)
    True
    """
    _, rates = model.rates(vm, state, i_stim)
    first = tuple(isinstance(r, Gate) and not isinstance(r, Follower) for r in rates)
    state = tuple(
        _stepped(x, r, dt) if now else x for x, r, now in zip(state, rates, first, strict=True)
    )
    # The second evaluation costs nothing: XLA drops what either of the two does not need.
    i_ion, rates = model.rates(vm, state, i_stim)
    return i_ion, tuple(
        x if done else _stepped(x, r, dt) for x, r, done in zip(state, rates, first, strict=True)
    )


def _stepped(x, law, dt):
    """A state variable `dt` later: exponentially where it relaxes, else by forward Euler."""
    if isinstance(law, Gate):
        return x + (law.steady - x) * relaxed_fraction(dt * law.rate)
    return x + dt * law


def add_change(
    vm: Float[Array, "*node"],
    lost: Float[Array, "*node"],
    change: Float[Array, "*node"],
) -> tuple[Float[jax.Array, "*node"], Float[jax.Array, "*node"]]:
    """Add to the voltage what a step changes it by, and keep what rounding leaves out.

    At rest and on a slow plateau a step changes the voltage by less than float32 resolves beside
    it (8e-6 mV at -85 mV): summed plainly, the voltage stops short of where it should settle, and
    a beat of Bueno-Orovio's M cell lasts 2 ms longer. The rounding error of each sum is exact in
    floating point and goes into the next one (Kahan 1965, doi:10.1145/363707.363723).

    Parameters
    ----------
    vm : (node,) array
        Transmembrane voltage [mV].
    lost : (node,) array
        What earlier sums left out [mV]; zero at the start. It has no derivative.
    change : (node,) array
        Change of the voltage [mV].

    Returns
    -------
    vm, lost : (node,) array
        After the change [mV].

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from twinheart.cell.gates import add_change
    >>> vm, lost, small = jnp.float32(-85), jnp.float32(0), jnp.float32(1e-6)
    >>> for _ in range(1000):
    ...     vm, lost = add_change(vm, lost, small)
    >>> round(float(vm), 4)
    -84.999
    """
    change = jnp.add(change, lost)
    new = jnp.add(vm, change)
    return new, jax.lax.stop_gradient(change - (new - vm))


def derivative(
    model: AbstractCellModel,
    vm: Float[jax.Array, "*node"],
    state: State,
    i_stim: Any = 0.0,
) -> tuple[Float[jax.Array, "*node"], State]:
    """Time derivatives of voltage and state, from the same equations as `step`.

    Parameters
    ----------
    model, vm, state, i_stim
        As in `step`.

    Returns
    -------
    dvm : (node,) array
        Rate of change of the voltage of an isolated cell [mV/ms].
    dstate : tuple of (node,) arrays
        Rate of change of the state [per ms].
    """
    i_ion, rates = model.rates(vm, state, i_stim)
    dstate = tuple(
        r.rate * (r.steady - x) if isinstance(r, Gate) else r
        for x, r in zip(state, rates, strict=True)
    )
    return i_stim - i_ion, dstate
