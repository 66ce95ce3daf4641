"""Biomarkers of one action potential: APD, resting and peak voltage, upstroke velocity.

All functions take one beat, are differentiable in the voltage (crossing times are linear
interpolations) and accept many cells at once, time first.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float


class Biomarkers(eqx.Module):
    """Biomarkers of one beat, one value per cell.

    Attributes
    ----------
    v_rest : array
        See `resting_voltage` [mV].
    v_peak : array
        Largest voltage [mV].
    dvdt_max : array
        See `upstroke_velocity` [mV/ms = V/s].
    apd50, apd90 : array
        See `apd` [ms].
    """

    v_rest: jax.Array
    v_peak: jax.Array
    dvdt_max: jax.Array
    apd50: jax.Array
    apd90: jax.Array


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
    return Biomarkers(
        v_rest=resting_voltage(vm),
        v_peak=jnp.max(vm, axis=0),
        dvdt_max=upstroke_velocity(t, vm),
        apd50=apd(t, vm, 50.0),
        apd90=apd(t, vm, 90.0),
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
