"""Time stepping of cell models: Rush-Larsen for gates, forward Euler for everything else."""

from typing import Any

import jax
from jaxtyping import Float

from twinheart.cell.elementary import relaxed_fraction
from twinheart.cell.model import AbstractCellModel, Gate, State


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
    therefore stable for any `dt`. The ionic current and the rates of all other variables (forward
    Euler) then use the new gates. Against evaluating everything at the start, this order needs no
    copies of the state and has half the error, much less in the upstroke: after 1 ms of stimulus
    0.06 instead of 3.3 mV at dt = 0.02 ms (ten Tusscher 2006 against a stiff solver).

    The caller advances the voltage: ``vm + dt * (i_stim - i_ion + ...)``.

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
    state = tuple(
        x + (r.steady - x) * relaxed_fraction(dt * r.rate) if isinstance(r, Gate) else x
        for x, r in zip(state, rates, strict=True)
    )
    # The second evaluation costs nothing: XLA drops what either of the two does not need.
    i_ion, rates = model.rates(vm, state, i_stim)
    return i_ion, tuple(
        x if isinstance(r, Gate) else x + dt * r for x, r in zip(state, rates, strict=True)
    )


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
