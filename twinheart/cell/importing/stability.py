"""The time step an imported model is stable and settled at, found by trying."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from twinheart.cell.gates import step
from twinheart.cell.model import AbstractCellModel

STEPS = (0.02, 0.01, 0.005)
# How long the cell is watched after its stimulus [ms], and how far [mV, root mean square] the
# action potential may move when the step is halved. One step of delay in the upstroke is 1 mV.
WATCHED = 400.0
MOVED = 3.0


def stable_dt(model: AbstractCellModel) -> float:
    """Largest of the `STEPS` at which one paced action potential is finite and settled.

    Parameters
    ----------
    model : AbstractCellModel
        The model; its `stimulus` is applied once, at the start.

    Returns
    -------
    float
        Time step [ms]; the smallest tried if none passes.
    """
    with jax.ensure_compile_time_eval():  # also while a caller is traced
        return _settled(model)


def _settled(model: AbstractCellModel) -> float:
    before = None
    for dt in (*STEPS, STEPS[-1] / 2):
        found = np.asarray(_watch(model, jnp.asarray(dt), round(1.0 / dt)))
        bounded = np.isfinite(found).all() and np.abs(found).max() < 300
        if before is not None and bounded and np.sqrt(np.mean((found - before) ** 2)) < MOVED:
            return 2 * dt
        before = found if bounded else None
    return STEPS[-1]


@eqx.filter_jit
def _watch(model, dt, steps):
    """Voltage each ms; one compilation for all time steps, because their number is traced."""
    amplitude, duration = model.stimulus

    def one(k, carry):
        vm, state = carry
        i_stim = jnp.where(k * dt < duration, amplitude, 0.0).astype(vm.dtype)
        i_ion, state = step(model, vm, state, dt, i_stim)
        return vm + dt * (i_stim - i_ion), state

    def millisecond(carry, k):
        carry = jax.lax.fori_loop(k * steps, (k + 1) * steps, one, carry)
        return carry, carry[0]

    start = (model.initial_vm(), model.initial_state())
    return jax.lax.scan(millisecond, start, jnp.arange(int(WATCHED)))[1]
