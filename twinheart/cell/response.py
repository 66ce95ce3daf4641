"""Pacing without a trace: what each beat did is observed as it happens.

Protocols pace for minutes of simulated time, many cells and intervals side by side; storing the
voltage would cost more than computing it. The observer knows the levels of voltage beforehand,
from the beat before or from the last regular one.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from twinheart.cell.gates import add_change, step
from twinheart.cell.model import AbstractCellModel, State

# A response stays above half height for this share of the regular action potential, and for this
# long [ms]; what the stimulus alone does to the voltage is gone in less.
_SHORTEST, _SHORTEST_MS = 0.1, 5.0
# Before anything was observed: height [mV] and duration [ms].
_HEIGHT, _DURATION = 100.0, 100.0


class Levels(NamedTuple):
    """A regular action potential: resting and peak voltage [mV], APD90 [ms]; per cell."""

    rest: Array
    peak: Array
    apd: Array

    @property
    def repolarised(self):
        """Voltage at 90 % repolarisation [mV]."""
        return self.rest + 0.1 * (self.peak - self.rest)

    @property
    def half(self):
        """Voltage half-way up [mV]."""
        return 0.5 * (self.rest + self.peak)


class Observed(NamedTuple):
    """What the observer remembers; times [ms] in the current cycle, NaN where nothing happened.

    Attributes
    ----------
    up, down : array
        Activation and repolarisation: last upward crossing of the repolarised level (or the
        stimulus, where it found the voltage above), first downward one after it.
    apd : array
        Their difference, for the response that ended in this cycle.
    above : array
        How long the present response has been above half height [ms].
    rose, captured : bool array
        Whether the voltage crossed half height upward in this cycle, and stayed long enough.
    peak : array
        Largest voltage of the cycle [mV].
    """

    up: Array
    down: Array
    apd: Array
    above: Array
    rose: Array
    captured: Array
    peak: Array


def first_levels(vm: Array) -> Levels:
    """Levels to begin with, from a cell at rest."""
    return Levels(vm, vm + _HEIGHT, jnp.full_like(vm, _DURATION))


def nothing_yet(vm: Array) -> Observed:
    """The observer before the first beat."""
    never, no = jnp.full_like(vm, jnp.nan), jnp.zeros(vm.shape, bool)
    return Observed(never, never, never, jnp.zeros_like(vm), no, no, jnp.full_like(vm, -jnp.inf))


def _next_cycle(seen: Observed, duration) -> Observed:
    """A new cycle begins: what is under way goes on, what ended is forgotten."""
    return nothing_yet(seen.up)._replace(up=seen.up - duration, above=seen.above)


def observe(seen: Observed, levels: Levels, before, after, t, dt, onset) -> Observed:
    """Take note of a step from voltage `before` at `t` to `after`; the stimulus acts at `onset`."""
    low, half = levels.repolarised, levels.half
    change = after - before
    when = t + dt * jnp.clip((low - before) / jnp.where(change == 0, 1, change), 0, 1)
    up = jnp.where((before <= low) & (after > low), when, seen.up)
    fires = (before <= half) & (after > half) & (t >= onset)
    up = jnp.where(fires & ~(up >= onset), onset, up)
    rose = seen.rose | fires
    above = jnp.where(fires, 0, seen.above) + jnp.where(after > half, dt, 0)
    lasts = above >= jnp.maximum(_SHORTEST * levels.apd, _SHORTEST_MS)
    ends = (before > low) & (after <= low)
    ended = ends & lasts & jnp.isnan(seen.apd)
    return Observed(
        up=up,
        down=jnp.where(ended, when, seen.down),
        apd=jnp.where(ended, when - up, seen.apd),
        above=jnp.where(ends, 0, above),
        rose=rose,
        captured=seen.captured | (rose & lasts),
        peak=jnp.maximum(seen.peak, after),
    )


class Pacing(NamedTuple):
    """Where pacing stands: voltage and what rounding left out of it, state, levels, observer."""

    vm: Array
    lost: Array
    state: State
    levels: Levels
    seen: Observed


class Timing(NamedTuple):
    """One cycle in steps: its length, first and last step of the stimulus; and the step [ms]."""

    steps: Any
    first: Any
    last: Any
    dt: Any


def start_pacing(vm: Array, state: State, levels: Levels | None = None) -> Pacing:
    """Pacing that begins at these values; without levels, from rest."""
    levels = first_levels(vm) if levels is None else levels
    return Pacing(vm, jnp.zeros_like(vm), state, levels, nothing_yet(vm))


def one_step(model: AbstractCellModel, at: Pacing, k, i_stim, dt, onset) -> Pacing:
    """Step number `k` of a cycle; the levels stay."""
    i_ion, state = step(model, at.vm, at.state, dt, i_stim)
    vm, lost = add_change(at.vm, at.lost, dt * (i_stim - i_ion))
    t = jnp.asarray(k, vm.dtype) * dt
    seen = observe(at.seen, at.levels, at.vm, vm, t, dt, onset)
    return Pacing(vm, lost, state, at.levels, seen)


def one_beat(
    model: AbstractCellModel, at: Pacing, timing: Timing, amplitude, stride: Any = None
) -> tuple[Pacing, tuple[Array, ...]]:
    """A cycle with one stimulus, and the size of every variable (voltage first) during it.

    Parameters
    ----------
    model : AbstractCellModel
        Cell.
    at : Pacing
        Where it stands.
    timing : Timing
        The cycle; its numbers may be traced.
    amplitude : array
        Stimulus [A/F].
    stride : int, optional
        Steps between two looks at the sizes, a divisor of the cycle; without it there is one
        look.

    Returns
    -------
    at : Pacing
        A cycle later; the levels are those of this beat where it was captured.
    sizes : tuple of arrays
        Largest magnitude of the voltage and of each state variable, as stored.
    """
    steps, first, last, dt = timing
    stride = steps if stride is None else stride
    onset = jnp.asarray(first, at.vm.dtype) * dt

    def advance(k, at):
        i_stim = jnp.where((k >= first) & (k < last), amplitude, jnp.zeros_like(amplitude))
        return one_step(model, at, k, i_stim, dt, onset)

    def stretch(n, carry):
        at, sizes = carry
        sizes = jax.tree.map(lambda s, x: jnp.maximum(s, jnp.abs(x)), sizes, (at.vm, *at.state))
        return jax.lax.fori_loop(n * stride, (n + 1) * stride, advance, at), sizes

    rest = at.vm
    at = at._replace(seen=_next_cycle(at.seen, jnp.asarray(steps, at.vm.dtype) * dt))
    sizes = jax.tree.map(jnp.zeros_like, (at.vm, *at.state))
    at, sizes = jax.lax.fori_loop(0, steps // stride, stretch, (at, sizes))
    seen, levels = at.seen, at.levels
    levels = Levels(
        jnp.where(seen.captured, rest, levels.rest),
        jnp.where(seen.captured, seen.peak, levels.peak),
        jnp.where(jnp.isnan(seen.apd), levels.apd, seen.apd),
    )
    return at._replace(levels=levels), sizes


class Beats(NamedTuple):
    """What some beats did, beat first: voltage and state at their ends, and the observer's view."""

    vm: Array
    state: State
    seen: Observed


@eqx.filter_jit
def some_beats(
    model: AbstractCellModel, at: Pacing, timing: Timing, stride, amplitude, beats: int
) -> tuple[Pacing, Beats, tuple[Array, ...]]:
    """Several beats in one compiled loop; the sizes are those during the last of them."""

    def beat(carry, _):
        at, sizes = one_beat(model, carry[0], timing, amplitude, stride)
        return (at, sizes), Beats(at.vm, at.state, at.seen)

    sizes = jax.tree.map(jnp.zeros_like, (at.vm, *at.state))
    (at, sizes), found = jax.lax.scan(beat, (at, sizes), length=beats)
    return at, found, sizes


def largest_divisor(steps: int, limit: int) -> int:
    """Largest divisor of `steps` that does not exceed `limit`."""
    return next(n for n in range(min(limit, steps), 0, -1) if steps % n == 0)


def timing_of(bcl: float, duration: float, dt: float, dtype) -> Timing:
    """A cycle whose stimulus acts at its beginning."""
    return Timing(
        jnp.asarray(round(bcl / dt)),
        jnp.asarray(0),
        jnp.asarray(max(1, round(duration / dt))),
        jnp.asarray(dt, np.dtype(dtype)),
    )
