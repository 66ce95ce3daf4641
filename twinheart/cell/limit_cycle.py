"""Pacing to the limit cycle, and cell models that start from it."""

import math
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Bool, Float, Int

from twinheart.cell.model import AbstractCellModel, Parameter, State, as_parameter
from twinheart.cell.paced_cache import cache_folder, content_hash, kept
from twinheart.cell.pacing import initial_values, steps_in
from twinheart.cell.response import (
    Levels,
    largest_divisor,
    some_beats,
    start_pacing,
    timing_of,
)
from twinheart.errors import ModelError

_CHUNK = 8  # beats in one compiled loop
_PLAIN = 3  # first chunks without acceleration: fast transients and alternans show
_SETTLE = 2  # beats after which a chunk is free of what an extrapolation did to fast variables
# Differences of differences below this share of the largest are noise, or drift so slow that
# extrapolating it would leave the neighbourhood where anything is known.
_RESOLVED = 1e-3
_OLDER = 6  # beats of earlier chunks that an extrapolation also uses
_LARGEST_STEP = 0.2  # of an extrapolation, in parts of the size of each variable
_ACCELERATED = 0.5  # share of `max_beats` after which plain pacing must do
_NUDGE = 0.02  # of a cycle by which one diastole is prolonged to see whether the cycle is stable
_ALTERNANS = 1.0  # difference of durations that is called alternans [ms]


class Paced(AbstractCellModel):
    """A cell model that starts from other values, e.g. after pacing.

    Parameters
    ----------
    model : AbstractCellModel
        The cell; everything but the start is its own.
    vm : float or (node,) array
        Voltage at the start [mV].
    state : tuple of floats or (node,) arrays
        State at the start, as the model stores it.

    Examples
    --------
    >>> from twinheart.cell import Paced, get_model, pace_cell
    >>> cell = get_model("mitchell-schaeffer")
    >>> paced = Paced(cell, *pace_cell(cell, n_beats=5, bcl=400.0, dt=0.1).final)
    >>> paced.name
    'mitchell-schaeffer'
    """

    model: AbstractCellModel
    vm: Parameter = eqx.field(converter=as_parameter, metadata={"unit": "mV"})
    state: State = eqx.field(converter=lambda state: tuple(map(as_parameter, state)))

    def __init__(self, model, vm, state):
        if len(state) != len(model.state_names):
            raise ModelError(
                f"{model.name} has {len(model.state_names)} state variables, got {len(state)} to "
                "start from."
            )
        self.model, self.vm, self.state = model, vm, state

    @property
    def name(self):
        """Name of the model."""
        return self.model.name

    @property
    def reference(self):
        """DOI of the model."""
        return self.model.reference

    @property
    def initial(self):
        """Values at the start in physical units."""
        return {name: value for name, (value, _) in self.model.physical(self.state).items()}

    @property
    def channels(self):
        """Channels of the model, whose parameters lie in `model`."""
        return self.model.channels

    @property
    def stimulus(self):
        """Stimulus of the model."""
        return self.model.stimulus

    @property
    def offsets(self):
        """Offsets of the model."""
        return self.model.offsets

    @property
    def units(self):
        """Units of the model's state variables."""
        return self.model.units

    @property
    def dt(self):
        """Time step recommended for the model [ms]."""
        return self.model.dt

    def initial_vm(self):
        """Voltage at the start [mV]."""
        return self.vm

    def initial_state(self):
        """State at the start as it was stored: adding and subtracting an offset would round it."""
        return self.state

    def rates(self, vm, state, i_stim=0.0):
        """Those of the model; see `AbstractCellModel.rates`."""
        return self.model.rates(vm, state, i_stim)


class LimitCycle(eqx.Module):
    """Where periodic pacing of a cell ended; one value per cell.

    Attributes
    ----------
    model : Paced
        The cell, starting where the pacing ended, right before the next stimulus.
    bcl : float
        Cycle length [ms].
    beats : int array
        Beats after which the criterion was met, or all that were paced.
    converged : bool array
        Whether it was met.
    change : array
        Largest relative change from the beat before (in a cycle of two beats, the last but one).
    period : int array
        1 or 2 beats; 0 where it did not converge.
    captured : (4, *node) bool array
        Which of the last four stimuli gave an action potential.
    apd90 : (2, *node) array
        Duration of the action potentials that ended in the last two cycles [ms]; NaN where none.
    v_rest, v_peak : array
        Of the last action potential [mV].
    """

    model: Paced
    bcl: float = eqx.field(static=True)
    beats: Int[np.ndarray, "*node"]
    converged: Bool[np.ndarray, "*node"]
    change: Float[np.ndarray, "*node"]
    period: Int[np.ndarray, "*node"]
    captured: Bool[np.ndarray, "beat *node"]
    apd90: Float[np.ndarray, "two *node"]
    v_rest: Float[np.ndarray, "*node"]
    v_peak: Float[np.ndarray, "*node"]

    @property
    def alternans(self) -> Float[np.ndarray, "*node"]:
        """Difference of the last two durations [ms]; NaN unless both stimuli were answered."""
        return np.asarray(np.abs(self.apd90[1] - self.apd90[0]))

    @property
    def rhythm(self) -> np.ndarray:
        """What the cell makes of the stimuli, a word per cell.

        ``"1:1"``; ``"alternans"``, every stimulus answered but the last two durations differ by
        more than 1 ms; ``"2:1 block"``, every other stimulus answered: the cycle is shorter than
        the refractory period; ``"no capture"``; else ``"irregular"``.
        """
        hits = self.captured.sum(axis=0)
        every_other = (hits == 2) & (self.captured[0] != self.captured[1])
        every_other &= self.captured[1] != self.captured[2]
        with np.errstate(invalid="ignore"):
            alternates = self.alternans > _ALTERNANS
        return np.select(
            [hits == 0, every_other, (hits == 4) & alternates, hits == 4],
            ["no capture", "2:1 block", "alternans", "1:1"],
            "irregular",
        )

    @property
    def levels(self) -> Levels:
        """Resting and peak voltage and the longer of the last durations."""
        longest = np.fmax(self.apd90[0], self.apd90[1])
        return Levels(*(jnp.asarray(x) for x in (self.v_rest, self.v_peak, longest)))


def limit_cycle(
    model: AbstractCellModel,
    bcl: float | int,
    *,
    max_beats: int = 1000,
    tolerance: float = 1e-5,
    amplitude: Any = None,
    duration: float | int | None = None,
    dt: float | int | None = None,
    accelerate: bool = True,
    cache: bool | str | Path = True,
) -> LimitCycle:
    r"""Pace a cell, or many, until a beat repeats the one before.

    The criterion, for each cell: over the last two beats, the voltage and every state variable at
    the end of a beat, and APD90, changed from beat to beat by at most `tolerance`, relative to the
    largest magnitude (in physical units) that the variable takes during a beat. Where this fails
    but every value is that of two beats before, the limit cycle has two beats: alternans or 2:1
    block.

    Parameters
    ----------
    model : AbstractCellModel
        Cell; parameters given as (node,) arrays pace that many cells at once.
    bcl : float
        Cycle length [ms], a multiple of `dt`.
    max_beats : int
        Number of beats, rounded up to a multiple of 8, after which it is given up.
    tolerance : float
        See above.
    amplitude : float or (node,) array, optional
        Stimulus [A/F], positive depolarises; by default that of the model.
    duration : float, optional
        Duration of the stimulus [ms]; by default that of the model.

    Other Parameters
    ----------------
    dt : float, optional
        Time step [ms]; by default the one recommended for the model.
    accelerate : bool
        Extrapolate slow variables between chunks of 8 beats (see Notes).
    cache : bool or path
        Whether results are kept on disk, or the folder; by default that of
        `twinheart.cell.paced_cache.cache_folder`. The key is a hash of the equations, the
        parameters and all arguments.

    Returns
    -------
    LimitCycle
        Its `model` continues; its `rhythm` says whether the cell follows the stimuli at all.

    Raises
    ------
    ModelError
        If the times do not fit each other, a value is traced, or the cell blows up at this `dt`
        (the message names one that works).

    Notes
    -----
    Concentrations take hundreds of beats. Between chunks of 8 beats, with the changes
    :math:`d_j = F(x_j) - x_j` of the last 6 and some older beats, pacing goes on from
    :math:`F(x) + \sum_j \xi_j (F(x_j) - F(x))`, where the :math:`\xi` minimise
    :math:`|d + \sum_j \xi_j (d_j - d)|` (Anderson acceleration; over the beats of one chunk the
    same as reduced rank extrapolation, see Sidi 2016, doi:10.4236/am.2016.711111). The weights of
    the iterates add up to one, so linear invariants
    (charge, probabilities of a Markov chain) stay. The first 24 beats are plain, as is every chunk
    that alternates, and the criterion is applied to plain beats. As an extrapolation also finds
    cycles that are unstable, a converged one is tested: one diastole is prolonged by 2 %, and if
    the durations then alternate ever more, pacing goes on without extrapolation.

    A model that books the stimulus on an ion keeps its total charge: K_i is then almost free, and
    what is left of its change is the error of the time step (ten Tusscher 2006 at 0.02 ms: 1e-6
    of it a beat). A `tolerance` below that is not met.

    Long cycles of large models want double precision: rounding in float32 hides the slow variables
    from the extrapolation and moves K_i. 48 CiPA cells at 2000 ms and dt = 0.01 ms all met the
    default criterion within 48 beats in float64; in float32 most had not after 200.

    Where two rhythms coexist at a cycle length, which one is reached may depend on the path.

    Examples
    --------
    >>> from twinheart.cell import get_model, limit_cycle
    >>> found = limit_cycle(get_model("mitchell-schaeffer"), 400.0, cache=False)
    >>> bool(found.converged), str(found.rhythm)
    (True, '1:1')
    """
    dt = float(model.dt if dt is None else dt)
    amplitude = model.stimulus.amplitude if amplitude is None else amplitude
    duration = float(model.stimulus.duration if duration is None else duration)
    if not (dt > 0 and 0 < duration <= bcl and max_beats >= 1 and tolerance > 0):
        raise ModelError(
            f"cannot pace with bcl={bcl}, dt={dt}, duration={duration}, max_beats={max_beats}, "
            f"tolerance={tolerance}: all must be positive, the stimulus no longer than the cycle."
        )
    steps_in(bcl, dt, "bcl", "dt")
    vm, state = initial_values(model, amplitude)
    amplitude = jnp.asarray(amplitude, vm.dtype)
    if any(isinstance(x, Tracer) for x in (*jax.tree.leaves(model), amplitude)):
        raise ModelError(
            "limit_cycle needs known parameters, not traced ones: take it outside of jit, grad "
            "and vmap, and differentiate pacing on from its model."
        )
    settings = {
        "bcl": float(bcl), "dt": dt, "amplitude": amplitude, "duration": duration,
        "tolerance": tolerance, "max_beats": max_beats, "accelerate": accelerate,
    }  # fmt: skip
    path = None
    if cache:
        folder = cache_folder() if cache is True else Path(cache)
        path = folder / f"{model.name}-{content_hash(model, vm, state, **settings)}.npz"
    found = kept(
        path,
        _template(vm, state),
        lambda: _Search(model, vm, state, **settings).result(),
        f"the limit cycle of {model.name} at {float(bcl):g} ms",
    )
    states = tuple(found[f"state{k}"] for k in range(len(state)))
    rest = {name: x for name, x in found.items() if not name.startswith("state") and name != "vm"}
    return LimitCycle(Paced(model, found["vm"], states), float(bcl), **rest)


def _template(vm, state) -> dict[str, np.ndarray]:
    """Arrays like those of a result."""
    shape, dtype = vm.shape, vm.dtype
    return {
        "vm": np.empty(shape, dtype),
        **{f"state{k}": np.empty(shape, x.dtype) for k, x in enumerate(state)},
        "beats": np.empty(shape, int),
        "converged": np.empty(shape, bool),
        "change": np.empty(shape, float),
        "period": np.empty(shape, int),
        "captured": np.empty((4, *shape), bool),
        "apd90": np.empty((2, *shape), dtype),
        "v_rest": np.empty(shape, dtype),
        "v_peak": np.empty(shape, dtype),
    }


class _Search:
    """One search for the limit cycle of one or many cells."""

    def __init__(self, model, vm, state, bcl, dt, amplitude, duration, tolerance, max_beats,
                 accelerate):  # fmt: skip
        self.model, self.bcl, self.dt = model, bcl, dt
        self.amplitude, self.duration = amplitude, duration
        self.tolerance, self.max_beats = tolerance, max_beats
        self.at = start_pacing(vm, state)
        self.timing = timing_of(bcl, duration, dt, vm.dtype)
        # (*node, variable): variants joined in one model may store differences from other values.
        offsets = (0.0, *(model.offsets.get(name, 0.0) for name in model.state_names))
        self.offsets = np.stack([np.broadcast_to(x, vm.shape) for x in offsets], axis=-1)
        self.history: list[tuple[np.ndarray, np.ndarray]] = []
        self.extrapolated = np.zeros(vm.shape, bool)
        self.trusted = np.full(vm.shape, accelerate)

    def result(self) -> dict[str, np.ndarray]:
        """Pace until every cell meets the criterion or `max_beats` is reached."""
        shape = self.at.vm.shape
        beats, period = np.full(shape, 0), np.zeros(shape, int)
        chunks, paced = math.ceil(self.max_beats / _CHUNK), 0
        while paced < chunks:
            start = _variables(self.at.vm, self.at.state)
            found, sizes = self._pace(self.timing, self.amplitude)
            paced += 1
            ends = np.concatenate([start[None], _variables(found.vm, found.state)])
            change, now = self._judge(ends, found.seen, sizes)
            beats = np.where((now > 0) & (period > 0), beats, paced * _CHUNK)
            period = now
            if (period > 0).all():
                doubtful = self.extrapolated & self.trusted & (period == 1)
                if not doubtful.any() or paced + 1 >= chunks:
                    break
                paced += 1
                if self._stable(doubtful):
                    break
            elif _PLAIN <= paced < _ACCELERATED * chunks:
                self._extrapolate(ends, sizes, period == 0)
        return self._as_arrays(found, beats, period, change)

    def _as_arrays(self, found, beats, period, change):
        levels = self.at.levels
        values = {
            "vm": self.at.vm,
            **{f"state{k}": x for k, x in enumerate(self.at.state)},
            "beats": beats,
            "converged": period > 0,
            "change": change,
            "period": period,
            "captured": found.seen.captured[-4:],
            "apd90": found.seen.apd[-2:],
            "v_rest": levels.rest,
            "v_peak": levels.peak,
        }
        template = _template(self.at.vm, self.at.state)
        return {name: np.asarray(x, template[name].dtype) for name, x in values.items()}

    def _pace(self, timing, amplitude):
        """A chunk of beats, and the size of every variable in them (variable last)."""
        # A look at the sizes about every millisecond.
        stride = largest_divisor(int(timing.steps), max(1, round(1 / self.dt)))
        self.at, found, sizes = some_beats(
            self.model, self.at, timing, jnp.asarray(stride), amplitude, _CHUNK
        )
        physical = np.abs(_variables(self.at.vm, self.at.state) + self.offsets)
        sizes = np.where(self.offsets != 0, physical, _variables(sizes[0], sizes[1:]))
        if not np.isfinite(physical).all():
            raise ModelError(_blow_up(self))
        return found, np.maximum(sizes, np.finfo(np.float32).tiny)

    def _judge(self, ends, seen, sizes):
        """Relative change and period (0: none) of every cell, from the last beats of a chunk."""
        apd = np.asarray(seen.apd, float)

        def change(lag):
            last = [np.abs(ends[-k] - ends[-k - lag]) / sizes for k in (1, 2)]
            found = np.max(last, axis=(0, -1))
            for k in (1, 2):
                now, before = apd[-k], apd[-k - lag]
                differs = np.where(np.isnan(now) & np.isnan(before), 0, np.abs(now / before - 1))
                found = np.maximum(found, np.where(np.isnan(differs), np.inf, differs))
            return found

        one, two = change(1), change(2)
        period = np.select([one <= self.tolerance, two <= self.tolerance], [1, 2], 0)
        return np.where(period == 2, two, one), period

    def _extrapolate(self, ends, sizes, wanted):
        """Replace the state of every wanted cell unless its beats alternate; see `limit_cycle`."""
        now = list(zip(ends[_SETTLE:-1], np.diff(ends[_SETTLE:], axis=0), strict=True))
        pairs = [*self.history, *now]
        self.history = [*self.history[2 - _OLDER :], now[-3], now[-1]]
        x, d = (np.stack(values) / sizes for values in zip(*pairs, strict=True))
        # From (beat, *node, variable) to (*node, variable, beat).
        dx, dd = (np.moveaxis(y[:-1] - y[-1], 0, -1) for y in (x, d))
        xi = -(np.linalg.pinv(dd, rcond=_RESOLVED) @ d[-1][..., None])
        move = ((dx + dd) @ xi)[..., 0]
        largest = np.abs(move).max(axis=-1)
        alternates = np.abs(d[-1]).max(axis=-1) > 2 * np.abs(d[-1] + d[-2]).max(axis=-1)
        wanted = wanted & self.trusted & ~alternates & np.isfinite(largest)
        share = np.where(wanted, np.minimum(1, _LARGEST_STEP / np.maximum(largest, 1e-30)), 0)
        low, high = ends.min(axis=0), ends.max(axis=0)
        new = ends[-1] + share[..., None] * np.where(np.isfinite(move), move, 0) * sizes
        # A gate or probability stays one, a positive concentration positive.
        whole = self.offsets == 0
        new = np.where(whole & (low >= 0), np.maximum(new, 0), new)
        new = np.where(whole & (low >= 0) & (high <= 1), np.minimum(new, 1), new)
        self._set(np.where(wanted[..., None], new, ends[-1]), wanted)
        self.extrapolated |= wanted

    def _set(self, values, where):
        vm, *state = (
            jnp.where(where, jnp.asarray(values[..., k], old.dtype), old)
            for k, old in enumerate((self.at.vm, *self.at.state))
        )
        self.at = self.at._replace(vm=vm, state=tuple(state))

    def _stable(self, doubtful) -> bool:
        """Whether the cycles found with extrapolation attract; else pacing goes on plainly."""
        before = self.at
        steps = max(1, round(_NUDGE * self.bcl / self.dt / _CHUNK))
        self._pace(self.timing._replace(steps=jnp.asarray(steps)), jnp.zeros_like(self.amplitude))
        self.at = self.at._replace(levels=before.levels, seen=before.seen)
        found, _ = self._pace(self.timing, self.amplitude)
        jump = np.diff(np.asarray(found.seen.apd, float), axis=0)
        alternates = (jump[-4:-1] * jump[-3:] < 0).all(axis=0)
        grows = np.abs(jump[-1]) > np.maximum(np.abs(jump[-3]), 0.05)
        repelled = doubtful & alternates & grows
        self.trusted &= ~repelled
        after, self.at = self.at, before
        if repelled.any():
            self._set(_variables(after.vm, after.state), repelled)
        return not repelled.any()


def _variables(vm, state) -> np.ndarray:
    """Voltage and state in one float64 array, variable last."""
    return np.stack([np.asarray(x, float) for x in (vm, *state)], axis=-1)


def _blow_up(search: _Search) -> str:
    """What to say of a cell that became non-finite: which step works."""
    model, found = search.model, "none of a quarter of that works: check its parameters"
    vm, state = initial_values(model, search.amplitude)
    for dt in (model.dt, search.dt / 2, search.dt / 4):
        if dt < search.dt and abs(round(search.bcl / dt) * dt - search.bcl) < 1e-6 * search.bcl:
            timing = timing_of(search.bcl, search.duration, dt, vm.dtype)
            at, _, _ = some_beats(
                model, start_pacing(vm, state), timing, timing.steps, search.amplitude, 1
            )
            if all(np.isfinite(np.asarray(x)).all() for x in (at.vm, *at.state)):
                found = f"dt={dt:g} ms works"
                break
    return f"cell model '{model.name}' blows up at dt={search.dt:g} ms; {found}."
