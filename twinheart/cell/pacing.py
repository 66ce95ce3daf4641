"""Pacing of a single cell, or of many unconnected ones side by side."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from twinheart.cell.gates import add_change, step
from twinheart.cell.model import AbstractCellModel, State
from twinheart.errors import ModelError


class CellTrace(eqx.Module):
    """What a paced cell did, sampled in time.

    Attributes
    ----------
    t : (time,) array
        Time since the start of pacing [ms].
    vm : (time, *node) array
        Transmembrane voltage [mV].
    states : dict of (time, *node) arrays
        State variables by name in physical units (mM, or 1 for gates).
    final : tuple
        ``(vm, state)`` at the end, as `pace_cell` accepts it to go on.
    """

    t: Float[np.ndarray, "time"]
    vm: Float[jax.Array, "time *node"]
    states: dict[str, Float[jax.Array, "time *node"]]
    final: tuple[jax.Array, State]


def pace_cell(
    model: AbstractCellModel,
    *,
    n_beats: int = 1,
    bcl: float | int = 1000.0,
    amplitude: Any = None,
    duration: float | int | None = None,
    start: float | int = 0.0,
    dt: float | int | None = None,
    sample_every: float | int | None = None,
    keep_beats: int | None = None,
    initial: tuple[jax.Array, State] | None = None,
) -> CellTrace:
    """Pace a cell at a constant cycle length and record it.

    Parameters
    ----------
    model : AbstractCellModel
        Cell; parameters given as (node,) arrays pace that many cells at once.
    n_beats : int
        Number of stimuli.
    bcl : float
        Basic cycle length [ms], a multiple of `dt`.
    amplitude : float or (node,) array, optional
        Stimulus current [A/F], positive depolarises; by default that of the model.
    duration : float, optional
        Duration of the stimulus [ms]; by default that of the model.
    start : float
        Delay of the stimulus in each cycle [ms].

    Other Parameters
    ----------------
    dt : float, optional
        Time step [ms]; by default the one recommended for the model.
    sample_every : float, optional
        Sampling interval [ms], a divisor of `bcl` and a multiple of `dt`; default every step.
    keep_beats : int, optional
        Number of last beats that are recorded; default all.
    initial : tuple, optional
        ``(vm, state)`` to start from, e.g. ``trace.final``; default the model's.

    Returns
    -------
    CellTrace
        The recorded beats, first sample at the beginning of the first of them.

    Raises
    ------
    ModelError
        If a count or duration is not positive, or the times are no multiples of each other.

    Notes
    -----
    ``dvm/dt = i_stim - i_ion``; one `twinheart.cell.gates.step` and one forward Euler step of the
    voltage per `dt`, with what rounding loses carried through a beat. Differentiable
    in the parameters, the amplitude and the initial state with memory for one state per step.

    Examples
    --------
    >>> from twinheart.cell import get_model, pace_cell
    >>> trace = pace_cell(get_model("mitchell-schaeffer"), bcl=500.0, dt=0.1)
    >>> trace.vm.shape
    (5001,)
    """
    keep_beats = n_beats if keep_beats is None else keep_beats
    amplitude = model.stimulus.amplitude if amplitude is None else amplitude
    duration = model.stimulus.duration if duration is None else duration
    dt = model.dt if dt is None else dt
    sample_every = dt if sample_every is None else sample_every
    if not (dt > 0 and duration > 0 and bcl > 0 and n_beats >= keep_beats >= 1 and start >= 0):
        raise ModelError(
            f"cannot pace with n_beats={n_beats}, keep_beats={keep_beats}, bcl={bcl}, dt={dt}, "
            f"duration={duration}, start={start}: all must be positive, keep_beats <= n_beats."
        )
    steps_per_sample = steps_in(sample_every, dt, "sample_every", "dt")
    samples_per_beat = steps_in(bcl, sample_every, "bcl", "sample_every")
    first, last = round(start / dt), round((start + duration) / dt)
    if last > steps_per_sample * samples_per_beat:
        raise ModelError(
            f"the stimulus ends {start + duration} ms into a cycle of bcl={bcl} ms: "
            "shorten it or start it earlier."
        )
    vm, state = initial_values(model, amplitude) if initial is None else initial
    carry, kept = _pace(
        model, vm, state, jnp.asarray(amplitude, vm.dtype), jnp.asarray(dt, vm.dtype),
        (first, last), (steps_per_sample, samples_per_beat), (n_beats - keep_beats, keep_beats),
    )  # fmt: skip
    skipped = (n_beats - keep_beats) * bcl
    return CellTrace(
        t=skipped + sample_every * np.arange(keep_beats * samples_per_beat + 1),
        vm=kept[0],
        states={name: value for name, (value, _) in model.physical(kept[1]).items()},
        final=carry,
    )


def steps_in(long: float | int, short: float | int, long_name: str, short_name: str) -> int:
    """How many of one time [ms] make another, which must be a multiple of it."""
    ratio = round(long / short)
    if ratio < 1 or abs(ratio * short - long) > 1e-6 * long:
        raise ModelError(
            f"{long_name}={long} ms is not a multiple of {short_name}={short} ms; "
            f"the nearest is {max(ratio, 1) * short:g} ms."
        )
    return ratio


def initial_values(model, amplitude):
    """Initial voltage and state, one per cell where a parameter has one value per cell."""
    leaves = [*jax.tree.leaves(eqx.filter(model, eqx.is_array)), jnp.asarray(amplitude)]
    shape = np.broadcast_shapes(*(x.shape for x in leaves))
    vm, *state = (jnp.broadcast_to(x, shape) for x in (model.initial_vm(), *model.initial_state()))
    return vm, tuple(state)


@eqx.filter_jit
def _pace(model, vm, state, amplitude, dt, stimulus, samples, beats):
    first, last = stimulus
    steps_per_sample, samples_per_beat = samples

    @jax.checkpoint
    def advance(carry, k):
        vm, state, lost = carry
        i_stim = jnp.where((k >= first) & (k < last), amplitude, jnp.zeros_like(amplitude))
        i_ion, state = step(model, vm, state, dt, i_stim)
        vm, lost = add_change(vm, lost, dt * (i_stim - i_ion))
        return (vm, state, lost), None

    def sample(carry, k):
        steps = k * steps_per_sample + jnp.arange(steps_per_sample)
        return jax.lax.scan(advance, carry, steps)[0], carry[:2]

    # From beat to beat nothing lost is carried: pacing goes on from voltage and state alone.
    def beat(carry, _):
        start = (*carry, jnp.zeros_like(carry[0]))
        (vm, state, _), kept = jax.lax.scan(sample, start, jnp.arange(samples_per_beat))
        return (vm, state), kept

    def unrecorded_beat(carry, _):
        start = (*carry, jnp.zeros_like(carry[0]))
        steps = jnp.arange(steps_per_sample * samples_per_beat)
        (vm, state, _), _ = jax.lax.scan(advance, start, steps)
        return (vm, state), None

    carry, _ = jax.lax.scan(unrecorded_beat, (vm, state), length=beats[0])
    carry, kept = jax.lax.scan(beat, carry, length=beats[1])
    joined = jax.tree.map(
        lambda x, end: jnp.concatenate([x.reshape(-1, *end.shape), end[None]]), kept, carry
    )
    return carry, joined
