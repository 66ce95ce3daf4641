"""Biomarkers of action potential and calcium transient, charge, afterdepolarisations, alternans.

All functions take samples in time, time first, and accept many cells at once. Those that return a
voltage, a duration or a charge are differentiable (crossing times are linear interpolations) and
NaN where undefined.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from twinheart.cell.currents import stored_state, total_current
from twinheart.cell.model import AbstractCellModel
from twinheart.errors import ModelError

# The currents of qNet and what is not counted as calcium.
_NET = ("i_nal", "i_cal", "i_kr", "i_to", "i_ks", "i_k1")
_NOT_CALCIUM = ("i_cana", "i_cak")


class Biomarkers(eqx.Module):
    """Biomarkers of one beat, one value per cell.

    Attributes
    ----------
    v_rest : array
        See `resting_voltage` [mV].
    v_peak : array
        Largest voltage [mV].
    amplitude : array
        ``v_peak - v_rest`` [mV].
    dvdt_max : array
        See `upstroke_velocity` [mV/ms = V/s].
    apd30, apd50, apd90 : array
        See `apd` [ms].
    triangulation : array
        ``apd90 - apd30`` [ms], as Hondeghem et al. 2001, doi:10.1161/01.CIR.103.15.2004.
    """

    v_rest: jax.Array
    v_peak: jax.Array
    amplitude: jax.Array
    dvdt_max: jax.Array
    apd30: jax.Array
    apd50: jax.Array
    apd90: jax.Array
    triangulation: jax.Array


def biomarkers(t: Float[Any, "time"], vm: Float[Any, "time *node"]) -> Biomarkers:
    """All biomarkers of one beat.

    Parameters
    ----------
    t : (time,) array
        Time [ms], starting before the stimulus of the beat.
    vm : (time, *node) array
        Transmembrane voltage [mV].

    Returns
    -------
    Biomarkers
        One value per cell; NaN where the voltage never crosses the level of an APD.

    Examples
    --------
    >>> from twinheart.cell import biomarkers, get_model, pace_cell
    >>> trace = pace_cell(get_model("mitchell-schaeffer"), bcl=500.0, dt=0.1)
    >>> bool(200 < biomarkers(trace.t, trace.vm).apd90 < 300)
    True
    """
    v_rest, v_peak = resting_voltage(vm), jnp.max(jnp.asarray(vm), axis=0)
    apd30, apd50, apd90 = (apd(t, vm, percent) for percent in (30.0, 50.0, 90.0))
    return Biomarkers(
        v_rest=v_rest,
        v_peak=v_peak,
        amplitude=v_peak - v_rest,
        dvdt_max=upstroke_velocity(t, vm),
        apd30=apd30,
        apd50=apd50,
        apd90=apd90,
        triangulation=apd90 - apd30,
    )


def resting_voltage(vm: Float[Any, "time *node"]) -> Float[jax.Array, "*node"]:
    """End-diastolic voltage: the first sample of the beat, before its stimulus acts [mV]."""
    return jnp.asarray(vm)[0]


def upstroke_velocity(
    t: Float[Any, "time"], vm: Float[Any, "time *node"]
) -> Float[jax.Array, "*node"]:
    """Largest slope between two samples [mV/ms]; sample every step to see it unblunted.

    It includes the stimulus current where that is still on during the upstroke.
    """
    vm = jnp.asarray(vm)
    dt = jnp.diff(jnp.asarray(t, vm.dtype)).reshape(-1, *[1] * (vm.ndim - 1))
    return jnp.max(jnp.diff(vm, axis=0) / dt, axis=0)


def apd(
    t: Float[Any, "time"], vm: Float[Any, "time *node"], percent: float | int = 90.0
) -> Float[jax.Array, "*node"]:
    r"""Action potential duration at `percent` repolarisation.

    The level is :math:`V_{peak} - p\,(V_{peak} - V_{rest})` with p = `percent` / 100 and
    :math:`V_{rest}` of `resting_voltage`. The duration runs from the first upward crossing of
    that level to the first downward crossing after the peak, both linear in time.

    Parameters
    ----------
    t : (time,) array
        Time [ms].
    vm : (time, *node) array
        Voltage of one beat [mV].
    percent : float
        Degree of repolarisation, between 0 and 100.

    Returns
    -------
    (*node,) array
        Duration [ms]; NaN where the level is not crossed both ways.
    """
    vm = jnp.asarray(vm)
    t = jnp.asarray(t, vm.dtype)
    peak = jnp.argmax(vm, axis=0)
    v_peak, v_rest = jnp.max(vm, axis=0), vm[0]
    level = v_peak - 0.01 * percent * (v_peak - v_rest)
    above = vm > level
    interval = jnp.arange(len(t) - 1).reshape(-1, *[1] * (vm.ndim - 1))
    up = ~above[:-1] & above[1:] & (interval < peak)
    down = above[:-1] & ~above[1:] & (interval >= peak)
    return _crossing_time(t, vm, level, down) - _crossing_time(t, vm, level, up)


def _crossing_time(t, vm, level, crossing):
    """Time of the first true entry of `crossing`, interpolated; NaN where there is none."""
    k = jnp.argmax(crossing, axis=0)
    found = jnp.any(crossing, axis=0)
    before = jnp.take_along_axis(vm, k[None], axis=0)[0]
    after = jnp.take_along_axis(vm, k[None] + 1, axis=0)[0]
    # A safe denominator where nothing was found keeps the derivative of the others finite.
    rise = jnp.where(found, after - before, 1.0)
    return jnp.where(found, t[k] + (t[k + 1] - t[k]) * (level - before) / rise, jnp.nan)


class CalciumTransient(eqx.Module):
    """Biomarkers of the calcium transient of one beat, one value per cell.

    Attributes
    ----------
    diastolic, peak, amplitude : array
        Concentration at the first sample, largest concentration and their difference [mM].
    time_to_peak : array
        From the first sample, at which the stimulus is taken to act, to the peak [ms].
    duration80, duration90 : array
        CaTD80, CaTD90: as the `apd` of that percentage, of the concentration [ms].
    """

    diastolic: jax.Array
    peak: jax.Array
    amplitude: jax.Array
    time_to_peak: jax.Array
    duration80: jax.Array
    duration90: jax.Array


def calcium_transient(t: Float[Any, "time"], ca_i: Float[Any, "time *node"]) -> CalciumTransient:
    """Biomarkers of the calcium transient of one beat.

    Parameters
    ----------
    t : (time,) array
        Time [ms], starting at the stimulus.
    ca_i : (time, *node) array
        Concentration in the cytosol [mM].

    Returns
    -------
    CalciumTransient
        One value per cell.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.cell import calcium_transient
    >>> t = np.arange(500.0)
    >>> found = calcium_transient(t, 1e-4 + 1e-3 * (t / 50) * np.exp(1 - t / 50))
    >>> float(found.time_to_peak)
    50.0
    """
    ca_i = jnp.asarray(ca_i)
    t = jnp.asarray(t, ca_i.dtype)
    peak = jnp.max(ca_i, axis=0)
    return CalciumTransient(
        diastolic=ca_i[0],
        peak=peak,
        amplitude=peak - ca_i[0],
        time_to_peak=t[jnp.argmax(ca_i, axis=0)] - t[0],
        duration80=apd(t, ca_i, 80.0),
        duration90=apd(t, ca_i, 90.0),
    )


def net_charge(
    model: AbstractCellModel,
    t: Float[Any, "time"],
    vm: Float[Any, "time *node"],
    states: dict[str, Any],
) -> Float[jax.Array, "*node"]:
    r"""Charge qNet that six currents of the plateau carry in one beat.

    .. math:: q_{net} = \int (I_{NaL} + I_{CaL} + I_{Kr} + I_{to} + I_{Ks} + I_{K1}) \, dt

    The metric of the CiPA initiative: the larger, the farther from early afterdepolarisations. Of
    the L-type current only calcium counts: where the model names ``i_cana`` and ``i_cak`` as
    channels of their own, they are taken out of ``i_cal``. A model without one of the currents
    (most lack ``i_nal``) gives the integral of the others.

    Parameters
    ----------
    model : AbstractCellModel
        The cell of the trace.
    t : (time,) array
        Time [ms], over one beat.
    vm : (time, *node) array
        Voltage [mV].
    states : dict of (time, *node) arrays
        State variables in physical units, as `CellTrace.states`.

    Returns
    -------
    (*node,) array
        Charge [uC/uF = A/F s], by the trapezoidal rule.

    Raises
    ------
    ModelError
        If the model names none of the six channels.

    References
    ----------
    Dutta et al. 2017, doi:10.3389/fphys.2017.00616.

    Examples
    --------
    >>> from twinheart.cell import get_model, net_charge, pace_cell
    >>> cell = get_model("tentusscher2006-epi")
    >>> trace = pace_cell(cell, bcl=500.0, sample_every=0.5)
    >>> bool(net_charge(cell, trace.t, trace.vm, trace.states) > 0)
    True
    """
    counted = [name for name in _NET if name in model.channels]
    if not counted:
        raise ModelError(
            f"qNet of cell model '{model.name}' is undefined: it names none of the channels "
            f"{', '.join(_NET)}."
        )
    state = stored_state(model, states)
    current = total_current(model, counted, vm, state)
    other = [name for name in _NOT_CALCIUM if name in model.channels]
    if other:
        current = current - total_current(model, other, vm, state)
    return jnp.trapezoid(current, jnp.asarray(t, current.dtype), axis=0) * 1e-3


class Afterdepolarisations(eqx.Module):
    """Early afterdepolarisations of one beat, one value per cell.

    Attributes
    ----------
    count : array
        How many.
    size : array
        Height of the largest [mV], 0 where there is none.
    repolarised : array
        Whether the voltage came back by 90 % within the samples.
    """

    count: Int[jax.Array, "*node"]
    size: jax.Array
    repolarised: jax.Array


def early_afterdepolarisations(
    t: Float[Any, "time"],
    vm: Float[Any, "time *node"],
    *,
    hump: float = 2.0,
    after: float = 100.0,
) -> Afterdepolarisations:
    """Humps of the voltage during repolarisation.

    An early afterdepolarisation is a rise by more than `hump` from a minimum that lies at least
    `after` after the upstroke and before repolarisation by 90 %. A rise counts only once the
    voltage has fallen by `hump`, so that the dome after the notch of an epicardial cell is none.
    (Dutta et al. 2017, doi:10.3389/fphys.2017.00616, take any positive slope between 30 and 90 %
    repolarisation, which noise of single precision can be.)

    Parameters
    ----------
    t : (time,) array
        Time [ms].
    vm : (time, *node) array
        Voltage of one beat [mV].
    hump : float
        Smallest rise [mV].
    after : float
        Time after the upstroke from which humps are looked for [ms].

    Returns
    -------
    Afterdepolarisations
        Counts and sizes; no derivative.

    Examples
    --------
    >>> from twinheart.cell import early_afterdepolarisations, get_model, pace_cell
    >>> trace = pace_cell(get_model("mitchell-schaeffer"), bcl=500.0, dt=0.1)
    >>> int(early_afterdepolarisations(trace.t, trace.vm).count)
    0
    """
    return _afterdepolarisations(jnp.asarray(t), jnp.asarray(vm), hump, after)


@jax.jit
def _afterdepolarisations(t, vm, hump, after):
    t = t.astype(vm.dtype)
    peak = jnp.max(vm, axis=0)
    level = peak - 0.9 * (peak - vm[0])
    column = (slice(None), *[None] * (vm.ndim - 1))
    above = vm > level
    began = t[jnp.argmax(above, axis=0)]
    # Over once below the level, later than the start of the search: humps after it are delayed.
    searched = jnp.any(above, axis=0) & (t[column] >= began + after)
    over = jnp.cumsum(searched & ~above, axis=0) > 0
    searched = searched & ~over

    def look(carry, sample):
        rising, extreme, valley, count, size = carry
        v, now = sample
        # While falling `extreme` is the lowest voltage so far, while rising the highest.
        turns_up = now & ~rising & (v > extreme + hump)
        turns_down = now & rising & (v < extreme - hump)
        valley = jnp.where(turns_up, extreme, valley)
        further = jnp.where(rising, jnp.maximum(extreme, v), jnp.minimum(extreme, v))
        extreme = jnp.where(now, jnp.where(turns_up | turns_down, v, further), extreme)
        rising = (rising | turns_up) & ~turns_down
        # The first stretch of the search, perhaps the top of a dome, has no valley.
        size = jnp.where(now & rising, jnp.maximum(size, extreme - valley), size)
        return (rising, extreme, valley, count + turns_up, size), None

    zero = jnp.zeros_like(peak)
    start = (zero == 0, zero - jnp.inf, zero + jnp.inf, jnp.zeros(peak.shape, int), zero)
    (_, _, _, count, size), _ = jax.lax.scan(look, start, (vm, searched))
    return Afterdepolarisations(count, size, jnp.any(over, axis=0))


def beat_durations(
    t: Float[Any, "time"], vm: Float[Any, "time *node"], bcl: float, percent: float | int = 90.0
) -> Float[jax.Array, "beat *node"]:
    """Action potential duration of every beat of a trace.

    Parameters
    ----------
    t : (time,) array
        Time [ms], equally spaced, over whole beats and the sample that ends the last.
    vm : (time, *node) array
        Voltage [mV].
    bcl : float
        Cycle length [ms].
    percent : float
        Degree of repolarisation.

    Returns
    -------
    (beat, *node) array
        See `apd` [ms].

    Raises
    ------
    ModelError
        If the trace does not consist of whole beats.

    Examples
    --------
    >>> from twinheart.cell import beat_durations, get_model, pace_cell
    >>> trace = pace_cell(get_model("mitchell-schaeffer"), n_beats=2, bcl=400.0, dt=0.1)
    >>> beat_durations(trace.t, trace.vm, 400.0).shape
    (2,)
    """
    t, vm = np.asarray(t, float), jnp.asarray(vm)
    span = t[-1] - t[0]
    beats = round(span / bcl)
    if beats < 1 or abs(beats * bcl - span) > 1e-6 * span or (len(t) - 1) % beats:
        raise ModelError(f"{span:g} ms of samples are not whole beats of bcl={bcl:g} ms.")
    each = (len(t) - 1) // beats
    within = np.arange(each + 1) + each * np.arange(beats)[:, None]
    return jax.vmap(lambda samples: apd(t[: each + 1], samples, percent))(vm[within])


def alternans(
    t: Float[Any, "time"], vm: Float[Any, "time *node"], bcl: float, percent: float | int = 90.0
) -> Float[jax.Array, "*node"]:
    """Beat-to-beat difference of the last two action potential durations [ms].

    Parameters
    ----------
    t, vm, bcl, percent
        As in `beat_durations`; at least two beats.

    Returns
    -------
    (*node,) array
        Absolute difference; NaN where a beat has no duration, as in 2:1 block.

    Examples
    --------
    >>> from twinheart.cell import alternans, get_model, pace_cell
    >>> trace = pace_cell(get_model("mitchell-schaeffer"), n_beats=6, bcl=500.0, dt=0.1)
    >>> bool(alternans(trace.t, trace.vm, 500.0) < 1.0)
    True
    """
    durations = beat_durations(t, vm, bcl, percent)
    if len(durations) < 2:
        raise ModelError("alternans needs at least two beats, got one.")
    return jnp.abs(durations[-1] - durations[-2])
