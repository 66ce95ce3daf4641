"""Restitution of the action potential: S1-S2, dynamic; the effective refractory period.

Definitions, the same in all protocols. Levels of voltage are those of a regular action potential,
at the longest cycle: *repolarised* is 90 % of the way back from its peak to its resting voltage.
The duration APD runs from the upward crossing of that level (or from the stimulus, where it finds
the voltage above) to the downward one; the diastolic interval DI from there to the next
activation, negative where that comes first. A stimulus is *captured* if after it the voltage
crosses half the height of the regular action potential upward and stays above for a tenth of its
duration, at least 5 ms.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from twinheart.cell.limit_cycle import limit_cycle
from twinheart.cell.model import AbstractCellModel, State
from twinheart.cell.pacing import initial_values, steps_in
from twinheart.cell.response import (
    Levels,
    Observed,
    nothing_yet,
    one_beat,
    one_step,
    some_beats,
    start_pacing,
    timing_of,
)
from twinheart.errors import ModelError

# S2 of the default protocol [ms], as far as they do not exceed S1.
_S2 = (*range(1000, 500, -100), *range(500, 300, -20), *range(300, 90, -10))
_BCLS = (*range(1000, 500, -100), *range(500, 190, -20))
_AT_ONCE = 16  # intervals tried together in the search for the refractory period
_SHORTEST_S2 = 20.0  # ms


class Restitution(eqx.Module):
    """Durations of action potentials against the diastolic intervals before them.

    Attributes
    ----------
    interval : (interval,) array
        S2 coupling interval or cycle length [ms], descending.
    di, apd : (interval, beat, *node) array
        Diastolic interval and duration after it [ms]: of one beat after S1-S2, of the last two in
        dynamic pacing; NaN where not captured.
    captured : (interval, beat, *node) bool array
        Whether the stimulus was answered.
    """

    interval: Float[np.ndarray, "interval"]
    di: Float[np.ndarray, "interval beat *node"]
    apd: Float[np.ndarray, "interval beat *node"]
    captured: Bool[np.ndarray, "interval beat *node"]

    @property
    def alternans(self) -> Float[np.ndarray, "interval *node"]:
        """Difference of the last two durations [ms]; NaN after S1-S2 or where one is missing."""
        if self.apd.shape[1] == 1:
            return np.full_like(self.apd[:, 0], np.nan)
        return np.abs(self.apd[:, 1] - self.apd[:, 0])

    @property
    def max_slope(self) -> Float[np.ndarray, "*node"]:
        """Largest slope of APD against DI, a number without unit.

        Of the straight lines between intervals that follow each other, over the mean of the
        beats; where it exceeds one, alternans may arise (Nolasco and Dahl 1968,
        doi:10.1152/jappl.1968.25.2.191). NaN with fewer than two answered intervals.
        """
        di, apd = (x.mean(axis=1) for x in (self.di, self.apd))
        with np.errstate(invalid="ignore", divide="ignore"):
            slope = np.diff(apd, axis=0) / np.diff(di, axis=0)
        valid = np.isfinite(slope) & (np.abs(np.diff(di, axis=0)) > 0.5)
        largest = np.where(valid, slope, -np.inf).max(axis=0, initial=-np.inf)
        return np.where(np.isfinite(largest), largest, np.nan)


class RefractoryPeriod(eqx.Module):
    """Effective refractory period and what surrounds it; one value per cell.

    Attributes
    ----------
    erp : array
        Longest S1-S2 interval that is not captured [ms], to `resolution`; NaN where even an S2
        of one cycle is not.
    resolution : float
        Width of the bracket [ms]: ``erp + resolution`` is captured.
    apd90 : array
        Duration of the regular action potential [ms].
    apd_at_erp : array
        Duration of the action potential after the earliest S2 that is captured [ms].
    """

    erp: Float[np.ndarray, "*node"]
    resolution: float
    apd90: Float[np.ndarray, "*node"]
    apd_at_erp: Float[np.ndarray, "*node"]

    @property
    def apd_over_erp(self) -> Float[np.ndarray, "*node"]:
        """APD90 over ERP; above one, the cell can be excited before it is repolarised."""
        return np.asarray(self.apd90 / self.erp)


class _Regular(NamedTuple):
    """A cell paced regularly, right before a stimulus."""

    vm: Array
    state: State
    levels: Levels


def s1s2_restitution(
    model: AbstractCellModel,
    s1: float | int = 1000.0,
    *,
    s2: Sequence[float | int] | np.ndarray | None = None,
    n_s1: int | None = None,
    amplitude: Any = None,
    duration: float | int | None = None,
    dt: float | int | None = None,
    cache: bool | str | Path = True,
) -> Restitution:
    """S1-S2 (standard) restitution: one premature beat after regular pacing.

    Parameters
    ----------
    model : AbstractCellModel
        Cell; parameters given as (node,) arrays are that many cells at once.
    s1 : float
        Cycle length of the regular pacing [ms], a multiple of `dt`.
    s2 : sequence of float, optional
        Coupling intervals [ms], longer than the stimulus, rounded to `dt`; all start from the
        same paced state. By default from `s1` down to 100 ms.
    n_s1 : int, optional
        Number of regular beats; by default as many as `twinheart.cell.limit_cycle` needs.

    Other Parameters
    ----------------
    amplitude, duration : float, optional
        Stimulus [A/F], [ms]; by default that of the model.
    dt : float, optional
        Time step [ms]; by default the one recommended for the model.
    cache : bool or path
        Of the paced state; see `twinheart.cell.limit_cycle`.

    Returns
    -------
    Restitution
        One beat per interval.

    Raises
    ------
    ModelError
        If an interval is too short, or the regular pacing is not captured.

    Examples
    --------
    >>> from twinheart.cell import get_model, s1s2_restitution
    >>> cell = get_model("mitchell-schaeffer")
    >>> found = s1s2_restitution(cell, 600.0, s2=[500, 400, 300], n_s1=3, dt=0.1)
    >>> bool(found.apd[0, 0] > found.apd[1, 0] > found.apd[2, 0])
    True
    """
    setting = _Setting(model, amplitude, duration, dt)
    at = setting.regular(s1, n_s1, cache)
    s2 = np.asarray([x for x in _S2 if x <= s1] if s2 is None else s2, float)
    s2 = np.sort(np.atleast_1d(s2))[::-1]
    shape = (len(s2), *[1] * at.vm.ndim)
    di, apd, captured, _ = setting.premature(at, s2.reshape(shape))
    return Restitution(s2, *(np.asarray(x)[:, None] for x in (di, apd, captured)))


def dynamic_restitution(
    model: AbstractCellModel,
    bcls: Sequence[float | int] | np.ndarray | None = None,
    *,
    n_beats: int = 50,
    ramp: int = 10,
    amplitude: Any = None,
    duration: float | int | None = None,
    dt: float | int | None = None,
    cache: bool | str | Path = True,
) -> Restitution:
    """Dynamic restitution: steady pacing at each of many cycle lengths.

    All cycle lengths are paced side by side from the limit cycle of the longest, so each has
    `n_beats` of memory, not that of all longer ones, as in the stepwise protocol of Koller et al.
    1998 (doi:10.1152/ajpheart.1998.275.5.H1635). Within the first `ramp` beats the cycle shortens
    gradually, for a sudden change may block where a gradual one does not.

    Parameters
    ----------
    model : AbstractCellModel
        Cell; parameters given as (node,) arrays are that many cells at once.
    bcls : sequence of float, optional
        Cycle lengths [ms], rounded to `dt`; by default 1000 to 200 ms.
    n_beats : int
        Beats at each, at least two more than `ramp`; alternans near its onset grows over tens of
        beats.
    ramp : int
        Beats during which the cycle shortens.

    Other Parameters
    ----------------
    amplitude, duration, dt, cache
        As in `s1s2_restitution`.

    Returns
    -------
    Restitution
        The last two beats of every cycle length. Where every other stimulus is captured (2:1
        block) there is no pair of diastolic interval and duration: NaN, `captured` says which.

    Raises
    ------
    ModelError
        If the numbers do not fit each other.

    Examples
    --------
    >>> from twinheart.cell import dynamic_restitution, get_model
    >>> cell = get_model("mitchell-schaeffer")
    >>> found = dynamic_restitution(cell, [600, 400], n_beats=6, ramp=2, dt=0.1, cache=False)
    >>> found.apd.shape
    (2, 2)
    """
    setting = _Setting(model, amplitude, duration, dt)
    bcls = np.sort(np.asarray(_BCLS if bcls is None else bcls, float))[::-1]
    if not (
        n_beats >= max(ramp + 2, 3) and ramp >= 0 and len(bcls) and bcls[-1] > setting.duration
    ):
        raise ModelError(
            f"dynamic restitution with n_beats={n_beats}, ramp={ramp}, cycle lengths down to "
            f"{bcls.min(initial=np.inf):g} ms: expected n_beats >= ramp + 2, at least 3, and "
            f"cycle lengths longer than the stimulus of {setting.duration:g} ms."
        )
    longest = round(bcls[0] / setting.dt) * setting.dt
    at = setting.regular(longest, None, cache)
    share = np.clip(1 - (1 + np.arange(n_beats)) / (ramp + 1), 0, 1)
    cycles = bcls[:, None] + share * (bcls[0] - bcls[:, None])
    steps = jnp.asarray(np.rint(cycles / setting.dt).astype(int))
    seen = _paced_side_by_side(setting.model, at, setting.timing(longest), steps, setting.amplitude)
    # An action potential that outlasts its cycle ends in the next: no pair with one interval.
    up, down, apd, captured = (np.asarray(x) for x in (seen.up, seen.down, seen.apd, seen.captured))
    length = setting.dt * np.asarray(steps)[:, -3:-1].reshape(-1, 2, *[1] * at.vm.ndim)
    di = up[:, -2:] + length - down[:, -3:-1]
    paired = captured[:, -2:] & captured[:, -3:-1]
    di, apd = (np.where(paired, x, np.nan) for x in (di, apd[:, -2:]))
    return Restitution(bcls, di, apd, captured[:, -2:])


def effective_refractory_period(
    model: AbstractCellModel,
    bcl: float | int = 1000.0,
    *,
    resolution: float | int = 1.0,
    n_s1: int | None = None,
    amplitude: Any = None,
    duration: float | int | None = None,
    dt: float | int | None = None,
    cache: bool | str | Path = True,
) -> RefractoryPeriod:
    """Effective refractory period: longest S1-S2 interval at which S2 is not captured.

    It depends on the stimulus, by custom about twice the diastolic threshold. Found by bracketing,
    16 intervals at a time, on the premise that every longer interval is captured.

    Parameters
    ----------
    model : AbstractCellModel
        Cell; parameters given as (node,) arrays are that many cells at once.
    bcl : float
        Cycle length of the regular pacing [ms], a multiple of `dt`.
    resolution : float
        Width of the final bracket [ms], at least `dt`.
    n_s1, amplitude, duration, dt, cache
        As in `s1s2_restitution`.

    Returns
    -------
    RefractoryPeriod
        And the durations at and without it.

    Raises
    ------
    ModelError
        If the numbers do not fit each other, or the regular pacing is not captured.

    Examples
    --------
    >>> from twinheart.cell import effective_refractory_period, get_model
    >>> cell = get_model("mitchell-schaeffer")
    >>> found = effective_refractory_period(cell, 600.0, n_s1=3, resolution=5.0, dt=0.1)
    >>> bool(250 < found.erp < 350)
    True
    """
    setting = _Setting(model, amplitude, duration, dt)
    if not resolution >= setting.dt:
        raise ModelError(f"resolution is {resolution} ms, expected at least dt={setting.dt:g} ms.")
    at = setting.regular(bcl, n_s1, cache)
    low = np.full(at.vm.shape, max(_SHORTEST_S2, 2 * setting.duration))
    high = np.full(at.vm.shape, float(bcl))
    part = np.linspace(0, 1, _AT_ONCE).reshape(-1, *[1] * at.vm.ndim)
    apd_at_erp, first = np.full(at.vm.shape, np.nan), True
    while first or (high - low).max() > resolution:
        tried = low + part * (high - low)
        _, apd, captured, regular = setting.premature(at, tried)
        if first:
            refractory = ~captured[-1]
            first = False
        # The longest interval that fails and all longer ones; the ends are known already.
        fails = ~captured
        fails[0] = True
        k = np.minimum(_AT_ONCE - 1 - fails[::-1].argmax(axis=0), _AT_ONCE - 2)
        low, high = (np.take_along_axis(tried, (k + j)[None], axis=0)[0] for j in (0, 1))
        apd_at_erp = np.take_along_axis(apd, (k + 1)[None], axis=0)[0]
    erp = np.where(refractory, np.nan, low)
    return RefractoryPeriod(
        erp, float(resolution), np.asarray(regular), np.where(refractory, np.nan, apd_at_erp)
    )


class _Setting:
    """Model, stimulus and step of a protocol."""

    def __init__(self, model, amplitude, duration, dt):
        self.model = model
        self.dt = float(model.dt if dt is None else dt)
        self.duration = float(model.stimulus.duration if duration is None else duration)
        self.given = model.stimulus.amplitude if amplitude is None else amplitude
        self.vm, self.state = initial_values(model, self.given)
        self.amplitude = jnp.asarray(self.given, self.vm.dtype)
        if not (self.dt > 0 and self.duration > 0):
            raise ModelError(
                f"cannot pace with dt={self.dt}, duration={self.duration}: both must be positive."
            )

    def timing(self, bcl):
        return timing_of(bcl, self.duration, self.dt, self.vm.dtype)

    def regular(self, bcl, beats, cache) -> _Regular:
        """The cell after regular pacing, to the limit cycle or for some beats."""
        steps_in(bcl, self.dt, "the cycle length", "dt")
        if beats is None:
            found = limit_cycle(
                self.model, bcl, amplitude=self.given, duration=self.duration, dt=self.dt,
                cache=cache,
            )  # fmt: skip
            start, levels, captured = found.model, found.levels, found.captured[-2:].any(axis=0)
            vm, state = start.initial_vm(), start.initial_state()
        elif beats < 1:
            raise ModelError(f"the number of regular beats is {beats}, expected at least 1.")
        else:
            timing = self.timing(bcl)
            at, seen, _ = some_beats(
                self.model, start_pacing(self.vm, self.state), timing, timing.steps,
                self.amplitude, beats,
            )  # fmt: skip
            vm, state, levels, captured = at.vm, at.state, at.levels, seen.seen.captured[-2:].any(0)
        if not np.asarray(captured).all():
            raise ModelError(
                f"cell model '{self.model.name}' does not answer stimuli of "
                f"{np.max(self.given):g} A/F for {self.duration:g} ms at a cycle length of "
                f"{bcl:g} ms: stimulate more, or more slowly."
            )
        return _Regular(vm, state, levels)

    def premature(self, at: _Regular, s2):
        """DI, APD, capture of an S2 at each interval (leading axis); APD of S1 without it."""
        shape = np.broadcast_shapes(s2.shape, (1, *at.vm.shape))
        onset = np.rint(np.broadcast_to(s2, shape) / self.dt).astype(int)
        last = max(1, round(self.duration / self.dt))
        if onset.min() <= last:
            raise ModelError(
                f"S2 comes {s2.min():g} ms after S1, expected more than the stimulus of "
                f"{self.duration:g} ms."
            )
        # One more without S2: the S1 that is not disturbed.
        never = np.full((1, *shape[1:]), np.iinfo(np.int32).max // 2)
        onset = np.concatenate([onset, never]).astype(np.int32)
        window = 1.5 * float(np.nanmax(np.asarray(at.levels.apd))) + 100
        end = onset[:-1].max() + round(window / self.dt)
        timing = self.timing(1.0)._replace(steps=jnp.asarray(end))
        seen = _premature(self.model, at, timing, jnp.asarray(onset), self.amplitude)
        seen = jax.tree.map(np.asarray, seen)
        captured = seen.captured[:-1]
        di = np.where(captured, seen.up[:-1] - seen.down[-1], np.nan)
        apd = np.where(captured, seen.apd[:-1], np.nan)
        return di, apd, captured, seen.apd[-1]


@eqx.filter_jit
def _premature(model, at: _Regular, timing, onset, amplitude) -> Observed:
    """What an S2 `onset` steps after S1 did, or S1 where there is none; (interval, *node)."""
    steps, _, last, dt = timing
    start = start_pacing(at.vm, at.state, at.levels)
    start = jax.tree.map(lambda x: jnp.broadcast_to(x, onset.shape), start)
    later = onset.astype(at.vm.dtype) * dt

    def advance(k, now):
        s2 = (k >= onset) & (k < onset + last)
        i_stim = jnp.where((k < last) | s2, amplitude, jnp.zeros_like(amplitude))
        fresh = nothing_yet(now.vm)._replace(up=now.seen.up, above=now.seen.above)
        seen = jax.tree.map(lambda x, y: jnp.where(k == onset, x, y), fresh, now.seen)
        stimulus = jnp.where(k >= onset, later, 0)
        return one_step(model, now._replace(seen=seen), k, i_stim, dt, stimulus)

    return jax.lax.fori_loop(0, steps, advance, start).seen


@eqx.filter_jit
def _paced_side_by_side(model, at: _Regular, timing, steps, amplitude) -> Observed:
    """Observation of every beat, (lane, beat, *node), at `steps` (lane, beat) per cycle."""

    def lane(lengths):
        def beat(now, length):
            now, _ = one_beat(model, now, timing._replace(steps=length), amplitude)
            return now._replace(levels=at.levels), now.seen

        start = start_pacing(at.vm, at.state, at.levels)
        return jax.lax.scan(beat, start, lengths)[1]

    return jax.vmap(lane)(steps)
