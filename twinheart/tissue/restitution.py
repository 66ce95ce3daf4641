"""Restitution of conduction velocity and duration on a cable; its refractory period.

Definitions, half-way along the cable where the wave is settled: activation is the upward crossing
of 0 mV, repolarisation the downward crossing of the level 90 % of the way back from the peak to the
rest of the first regular beat; the duration APD runs from the one to the other, the diastolic
interval DI from repolarisation to the next activation. A stimulus is blocked if no wave reaches the
far end. All times are rounded to blocks of about half a millisecond.

A premature wave is slow where it begins, so it comes later, and after longer intervals, the further
it goes. What it does after the shortest ones is read along the cable, nearer to where it began.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from twinheart.cell.model import AbstractCellModel
from twinheart.errors import ModelError
from twinheart.tissue.cable import (
    MEASURED,
    cable_problem,
    fitted_scheme,
    matched_smoothing,
    scalar_parameters,
    tune_cv,
)
from twinheart.tissue.maps import crossing_time
from twinheart.tissue.monodomain import Monodomain, State, advance, initial_state
from twinheart.tissue.scheme import Explicit, Scheme
from twinheart.types import Array

_FROM, _TO = MEASURED
_MIDDLE = (_FROM + _TO) // 2
_S2 = (*range(1000, 500, -100), *range(500, 400, -20), *range(400, 140, -10))
_BCLS = (*range(1000, 500, -100), *range(500, 400, -20), *range(400, 190, -10))
PLACES = 38  # of local readings, up to where the velocity is read: from the 16th node on
_REACH = 8  # nodes to either side, over which a local velocity is read
_AT_ONCE = 8  # intervals tried together in the search for the refractory period
_SHORTEST_S2 = 20.0  # ms


class CableRestitution(eqx.Module):
    """What an action potential does on a cable, against the diastolic interval before it.

    Attributes
    ----------
    interval : (interval,) array
        S2 coupling interval or cycle length [ms], descending.
    di : (interval,) array
        Diastolic interval [ms].
    cv : (interval,) array
        Conduction velocity [m/s].
    apd : (interval,) array
        Duration [ms].
    blocked : (interval,) bool array
        Whether the wave did not reach the far end; the others are then NaN.
    cv_regular : float
        Conduction velocity of the first regular beat [m/s].
    local_di, local_cv : (interval, place) arrays
        Interval and velocity at the nodes of the cable from its 16th on, of premature beats; NaN
        where blocked.
    """

    interval: Float[np.ndarray, "interval"]
    di: Float[np.ndarray, "interval"]
    cv: Float[np.ndarray, "interval"]
    apd: Float[np.ndarray, "interval"]
    blocked: Bool[np.ndarray, "interval"]
    cv_regular: float
    local_di: Float[np.ndarray, "interval place"]
    local_cv: Float[np.ndarray, "interval place"]


class CableRefractoryPeriod(eqx.Module):
    """Effective refractory period of a cable.

    Attributes
    ----------
    erp : float
        Longest S1-S2 interval that is blocked [ms]; NaN where even one cycle is.
    resolution : float
        ``erp + resolution`` conducts [ms].
    apd_at_erp, cv_at_erp : float
        Duration [ms] and velocity [m/s] of the earliest wave.
    """

    erp: float
    resolution: float
    apd_at_erp: float
    cv_at_erp: float


def cv_restitution(
    model: AbstractCellModel,
    s1: float = 1000.0,
    *,
    s2: Sequence[float | int] | np.ndarray | None = None,
    n_s1: int = 3,
    edge: float = 0.25,
    velocity: float = 0.6,
    diffusivity: float | None = None,
    dt: float = 0.02,
    scheme: Scheme | None = None,
) -> CableRestitution:
    """S1-S2 restitution of conduction velocity and duration on a cable.

    Parameters
    ----------
    model : AbstractCellModel
        Cell, best at its limit cycle (`twinheart.cell.limit_cycle`): the cable paces it for only
        `n_s1` beats more.
    s1 : float
        Cycle length of the regular beats [ms].
    s2 : sequence of float, optional
        Coupling intervals [ms]; all continue the same regular beat. By default from `s1` down to
        150 ms.
    n_s1 : int
        Number of regular beats.
    edge : float
        Node spacing [mm].
    velocity : float
        Velocity of a wave into the resting cable [m/s], reached by `twinheart.tissue.tune_cv`.

    Other Parameters
    ----------------
    diffusivity : float, optional
        Diffusivity [mm^2/ms] instead of the velocity.
    dt : float
        Time step [ms].
    scheme : Scheme, optional
        See `twinheart.tissue.cable_velocity`.

    Returns
    -------
    CableRestitution
        One row an interval.

    Raises
    ------
    ModelError
        If an interval is not positive, or a regular beat is blocked.

    Examples
    --------
    >>> from twinheart.cell import get_model
    >>> from twinheart.tissue import cv_restitution
    >>> found = cv_restitution(
    ...     get_model("mitchell-schaeffer"), 600.0, s2=[550, 350], n_s1=1, diffusivity=0.1, dt=0.05
    ... )
    >>> bool(found.cv[0] > found.cv[1])
    True
    """
    cable = _Cable(model, edge, velocity, diffusivity, dt, scheme)
    s2 = np.asarray([x for x in _S2 if x <= s1] if s2 is None else s2, float)
    intervals = cable.block * np.rint(np.sort(np.atleast_1d(s2))[::-1] / cable.block)
    regular = cable.regular(s1, n_s1)
    di, cv, apd, blocked, local = cable.premature(regular, intervals)
    return CableRestitution(intervals, di, cv, apd, blocked, cable.cv_regular, *local)


def dynamic_cv_restitution(
    model: AbstractCellModel,
    bcls: Sequence[float | int] | np.ndarray | None = None,
    *,
    n_beats: int = 8,
    edge: float = 0.25,
    velocity: float = 0.6,
    diffusivity: float | None = None,
    dt: float = 0.02,
    scheme: Scheme | None = None,
) -> CableRestitution:
    """Dynamic restitution on a cable: pacing ever faster, some beats at each cycle length.

    The stepwise protocol of Koller et al. 1998 (doi:10.1152/ajpheart.1998.275.5.H1635): every
    cycle length goes on from the longer one before. It ends with the first at which one of the
    last two beats is blocked; all shorter ones count as blocked.

    Parameters
    ----------
    model : AbstractCellModel
        Cell, best at its limit cycle.
    bcls : sequence of float, optional
        Cycle lengths [ms]; by default 1000 to 200 ms.
    n_beats : int
        Beats at each, at least 2; the last is measured.
    edge, velocity, diffusivity, dt, scheme
        As in `cv_restitution`.

    Returns
    -------
    CableRestitution
        One row a cycle length.

    Raises
    ------
    ModelError
        If a number is out of range, or the first beat is blocked.

    Examples
    --------
    >>> from twinheart.cell import get_model
    >>> from twinheart.tissue import dynamic_cv_restitution
    >>> cell = get_model("mitchell-schaeffer")
    >>> found = dynamic_cv_restitution(cell, [500, 350], n_beats=2, diffusivity=0.1, dt=0.05)
    >>> bool(found.cv[0] > found.cv[1])
    True
    """
    cable = _Cable(model, edge, velocity, diffusivity, dt, scheme)
    bcls = np.sort(np.asarray(_BCLS if bcls is None else bcls, float))[::-1]
    if n_beats < 2 or not bcls.size:
        raise ModelError(f"n_beats is {n_beats} for {bcls.size} cycle lengths, expected 2 or more.")
    intervals = cable.block * np.rint(bcls / cable.block)
    state = cable.regular(intervals[0], 1).state
    rows = np.full((len(bcls), 3), np.nan)
    before = cable.last
    for k, bcl in enumerate(intervals):
        reached = []
        for _ in range(n_beats):
            latest = before
            state, before = cable.beat(state, bcl)
            reached.append(np.isfinite(before.lat[_TO]))
            if len(reached) >= 2 and not any(reached[-2:]):
                break
        if not all(reached[-2:]):
            break
        # The duration of the last beat may end in the next window: look on without a stimulus.
        _, after = cable.rest(state, bcl)
        rows[k] = cable.measure(latest, before, after, bcl)
    di, cv, apd = rows.T
    nowhere = np.zeros((len(intervals), 0))
    return CableRestitution(
        intervals, di, cv, apd, np.isnan(cv), cable.cv_regular, nowhere, nowhere
    )


def cable_refractory_period(
    model: AbstractCellModel,
    bcl: float = 1000.0,
    *,
    resolution: float = 1.0,
    n_s1: int = 3,
    edge: float = 0.25,
    velocity: float = 0.6,
    diffusivity: float | None = None,
    dt: float = 0.02,
    scheme: Scheme | None = None,
) -> CableRefractoryPeriod:
    """Effective refractory period of a cable: longest S1-S2 interval whose wave is blocked.

    Found by bracketing, 8 intervals at a time, on the premise that every longer one conducts.

    Parameters
    ----------
    model : AbstractCellModel
        Cell, best at its limit cycle.
    bcl : float
        Cycle length of the regular beats [ms].
    resolution : float
        Width of the final bracket [ms], at least the block of about 0.5 ms.
    n_s1, edge, velocity, diffusivity, dt, scheme
        As in `cv_restitution`.

    Returns
    -------
    CableRefractoryPeriod
        And the earliest wave.

    Raises
    ------
    ModelError
        If the resolution is too fine, or a regular beat is blocked.

    Examples
    --------
    >>> from twinheart.cell import get_model
    >>> from twinheart.tissue import cable_refractory_period
    >>> found = cable_refractory_period(
    ...     get_model("mitchell-schaeffer"), 600.0, resolution=5.0, n_s1=1, diffusivity=0.1, dt=0.05
    ... )
    >>> 250 < found.erp < 400
    True
    """
    cable = _Cable(model, edge, velocity, diffusivity, dt, scheme)
    if not resolution >= cable.block:
        raise ModelError(f"resolution is {resolution} ms, expected at least {cable.block:g} ms.")
    regular = cable.regular(bcl, n_s1)
    low, high = (round(x / cable.block) for x in (_SHORTEST_S2, bcl))
    while True:
        tried = np.rint(np.linspace(high, low, _AT_ONCE)).astype(int)
        _, cv, apd, blocked, _ = cable.premature(regular, tried * cable.block)
        if blocked[0]:
            return CableRefractoryPeriod(math.nan, resolution, math.nan, math.nan)
        k = int(np.append(blocked[:-1], True).argmax())  # the first that fails, from the longest
        low, high = int(tried[k]), int(tried[k - 1])
        if (high - low) * cable.block <= resolution * (1 + 1e-9):
            return CableRefractoryPeriod(
                low * cable.block, float(resolution), float(apd[k - 1]), float(cv[k - 1])
            )


class _Window(NamedTuple):
    """What happened from one stimulus to the next; times [ms] since the former, NaN: did not.

    Attributes
    ----------
    lat : (node,) array
        Activation.
    late, down : array
        Repolarisation half-way along before and after that activation.
    """

    lat: Array
    late: Array
    down: Array


class _Regular(NamedTuple):
    """A cable right before a stimulus; regular beats so far have this cycle length."""

    state: State
    bcl: float


class _Cable:
    """A cable and the beats on it."""

    def __init__(self, model, edge, velocity, diffusivity, dt, scheme):
        if diffusivity is None:
            tuned = tune_cv(model, velocity, edge, dt=dt, scheme=scheme)
            diffusivity, smoothing = tuned.diffusivity, tuned.smoothing
        else:
            matched = scheme is None or (isinstance(scheme, Explicit) and scheme.smoothed)
            smoothing = matched_smoothing(model, diffusivity, edge, dt=dt) if matched else 0.0
        scheme = fitted_scheme(scheme, diffusivity, edge, dt)
        model = scalar_parameters(model)
        self.name, self.edge = model.name, edge
        self.problem = cable_problem(model, diffusivity, smoothing, edge, dt, scheme)
        self.block = self.problem.block * dt
        self.level = jnp.asarray(jnp.nan)

    def regular(self, bcl: float, beats: int) -> _Regular:
        """The cable right before the last of some regular beats, after setting the level."""
        if beats < 1 or not bcl > _SHORTEST_S2:
            raise ModelError(
                f"{beats} regular beats of {bcl:g} ms: expected at least one, longer than "
                f"{_SHORTEST_S2:g} ms."
            )
        start = _start(self.problem)
        end, first = self.beat(start, bcl)
        if not np.isfinite(first.lat[_TO]):
            raise ModelError(
                f"a regular beat is blocked on a cable of {self.edge:g} mm spacing with cell model "
                f"'{self.name}' at a cycle length of {bcl:g} ms: raise the diffusivity."
            )
        rest, peak = (np.asarray(x)[_MIDDLE] for x in (start.vm, end.peak))
        self.level = jnp.asarray(peak - 0.9 * (peak - rest), end.vm.dtype)
        self.cv_regular = float(self._velocity(np.asarray(first.lat)))
        state = start
        for _ in range(beats - 1):
            state, seen = self.beat(state, bcl)
            if not np.isfinite(seen.lat[_TO]):
                raise ModelError(
                    f"regular beats are blocked at a cycle length of {bcl:g} ms: pace more slowly."
                )
        _, self.last = self.beat(state, bcl)
        return _Regular(state, bcl)

    def beat(self, state: State, length: float) -> tuple[State, _Window]:
        """Stimulate, and run until the next stimulus."""
        blocks = jnp.asarray(round(length / self.block))
        state, window = _window(self.problem, _again(state), self.level, blocks)
        return state, jax.tree.map(np.asarray, window)

    def rest(self, state: State, length: float) -> tuple[State, _Window]:
        """Run on without a stimulus."""
        silent = eqx.tree_at(
            lambda p: p.stimuli[0].amplitude, self.problem, jnp.zeros_like(self.problem.dt)
        )
        blocks = jnp.asarray(round(length / self.block))
        state, window = _window(silent, _again(state), self.level, blocks)
        return state, jax.tree.map(np.asarray, window)

    def premature(self, regular: _Regular, intervals):
        """DI, CV, APD, block of an S2 at each interval after the next S1, descending.

        And interval and velocity from place to place.
        """
        if intervals.min() < _SHORTEST_S2:
            raise ModelError(
                f"S2 comes {intervals.min():g} ms after S1, expected at least {_SHORTEST_S2:g} ms."
            )
        state, snapshots, done, pieces = _again(regular.state), [], 0, []
        for interval in intervals[::-1]:
            blocks = round(interval / self.block)
            state, seen = _window(self.problem, state, self.level, jnp.asarray(blocks - done))
            pieces.append(seen)
            snapshots.append(state)
            done = blocks
        # S1 without S2 until it is over, to know when it would have been.
        more = round((2 * _longest(self.last) + 200) / self.block)
        _, seen = _window(self.problem, state, self.level, jnp.asarray(more))
        down = np.array([float(p.down) for p in (*pieces, seen)])
        repolarised = down[np.isfinite(down)][0] if np.isfinite(down).any() else np.nan
        states = jax.tree.map(lambda *x: jnp.stack(x), *map(_again, snapshots[::-1]))
        _, found = _windows(self.problem, states, self.level, jnp.asarray(more))
        found = jax.tree.map(np.asarray, found)
        middle = found.lat[:, _MIDDLE]
        cv = self._velocity(found.lat)
        blocked = np.isnan(cv)
        di, apd = intervals + middle - repolarised, found.down - middle
        di, cv, apd = (np.where(blocked, np.nan, x) for x in (di, cv, apd))
        reach, places = _REACH, np.arange(_TO - PLACES, _TO)
        first = np.asarray(seen.lat)
        own = intervals[:, None] + found.lat[:, places] - first[places]
        local_di = own - (repolarised - first[_MIDDLE])
        travel = found.lat[:, places + reach] - found.lat[:, places - reach]
        with np.errstate(invalid="ignore", divide="ignore"):
            local_cv = np.where(travel > 0, 2 * reach * self.edge / travel, np.nan)
        local = (np.where(blocked[:, None], np.nan, x) for x in (local_di, local_cv))
        return di, cv, apd, blocked, tuple(local)

    def measure(self, before: _Window, last: _Window, after: _Window, bcl):
        """DI, CV, APD of a beat, from the windows of it and of its neighbours."""
        middle = last.lat[_MIDDLE]
        start = last.late if np.isfinite(last.late) else before.down - bcl
        end = last.down if np.isfinite(last.down) else after.late + bcl
        return middle - start, self._velocity(last.lat), end - middle

    def _velocity(self, lat):
        travel = lat[..., _TO] - lat[..., _FROM]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(travel > 0, (_TO - _FROM) * self.edge / travel, np.nan)


def _longest(window: _Window) -> float:
    """Time from a stimulus to the repolarisation half-way along [ms], a second if unknown."""
    return float(window.down) if np.isfinite(window.down) else 1000.0


_start = eqx.filter_jit(initial_state)


def _again(state: State) -> State:
    """A state at which the clock and the maps begin anew."""
    never = jnp.full_like(state.lat, jnp.nan)
    return state._replace(step=jnp.zeros_like(state.step), lat=never, repol=never, rest=state.vm)


@eqx.filter_jit
def _window(problem: Monodomain, state: State, level, blocks) -> tuple[State, _Window]:
    def one(_, carry):
        state, late, down = carry
        end, _ = advance(problem, state, 1)
        before, after = state.vm[_MIDDLE], end.vm[_MIDDLE]
        dt = problem.dt.astype(before.dtype)
        t0, t1 = (x.step.astype(before.dtype) * dt for x in (state, end))
        falls = (before > level) & (after <= level)
        when = crossing_time(t0, t1, before[None], after[None], level)[0]
        waiting = jnp.isnan(end.lat[_MIDDLE])
        late = jnp.where(falls & waiting, when, late)
        down = jnp.where(falls & ~waiting & jnp.isnan(down), when, down)
        return end, late, down

    never = jnp.full((), jnp.nan, state.vm.dtype)
    level = level.astype(state.vm.dtype)
    state, late, down = jax.lax.fori_loop(0, blocks, one, (state, never, never))
    return state, _Window(state.lat, late, down)


_windows = eqx.filter_jit(eqx.filter_vmap(_window, in_axes=(None, eqx.if_array(0), None, None)))
