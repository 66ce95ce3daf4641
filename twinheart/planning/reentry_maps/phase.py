r"""Phase of the action potential: where in its cycle each place of the heart is.

The voltage of a place runs round a loop in a plane whose other axis is either the voltage a little
earlier (Gray et al. 1998, doi:10.1038/32164) or its Hilbert transform (Bray and Wikswo 2002,
doi:10.1103/PhysRevE.65.051902). The phase is the angle on this loop, seen from a point inside. Both
are signed so that phase grows with time: it rises through -pi/2 on the way up, 0 is the peak.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from twinheart.errors import InputError

# Gray et al. used 25 ms at a cycle of about 100 ms.
_DELAY = 0.25


class PhaseMap(NamedTuple):
    """Phase by time and node.

    Attributes
    ----------
    t : (time,) array
        Times [ms].
    phase : (time, node) array
        From -pi to pi; NaN where the voltage hardly moves.
    """

    t: Float[np.ndarray, "time"]
    phase: Float[np.ndarray, "time node"]


def phase_map(
    t: Float[np.ndarray, "time"],
    vm: Float[np.ndarray, "time node"],
    *,
    method: Literal["delay", "hilbert"] = "delay",
    delay: float | None = None,
    centre: float | None = None,
    least: float = 20.0,
) -> PhaseMap:
    r"""Phase of each node through time.

    .. math:: \theta(t) = \mathrm{atan2}(v(t-\tau) - v^*,\; v(t) - v^*)
       \quad\text{or}\quad \arg\,(v - v^* + i\,H[v - v^*])

    Parameters
    ----------
    t : (time,) array
        Times [ms], evenly spaced.
    vm : (time, node) array
        Transmembrane voltage [mV] of two cycles or more.
    method : {"delay", "hilbert"}
        Second axis of the loop. The Hilbert transform sees the whole recording: the first and the
        last half cycle of its phase are unreliable.
    delay : float, optional
        tau [ms]; by default a quarter of the dominant period. The map then begins at this time.
    centre : float, optional
        v* [mV]; by default the mean over time of each node.
    least : float
        Nodes whose voltage spans less [mV] have no phase.

    Returns
    -------
    PhaseMap
        Times and phases.

    Raises
    ------
    InputError
        If times are not even, the delay does not fit, or a number is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.planning import phase_map
    >>> t = np.arange(0.0, 400.0, 1.0)
    >>> vm = -40.0 + 40.0 * np.cos(2 * np.pi * t / 100.0)[:, None]
    >>> found = phase_map(t, vm)
    >>> bool(np.allclose(np.exp(1j * found.phase[:, 0]), np.exp(2j * np.pi * found.t / 100.0)))
    True
    """
    step = _even_step(t, vm)
    offset = vm - (vm.mean(axis=0) if centre is None else centre)
    silent = np.ptp(vm, axis=0) < least
    if method == "hilbert":
        from scipy.signal import hilbert

        times, phase = t, np.angle(np.asarray(hilbert(offset, axis=0)))
    else:
        wait = _DELAY * _period(vm[:, ~silent], step) if delay is None else delay
        lag = round(wait / step) if np.isfinite(wait) else 0
        if not 1 <= lag < len(t):
            raise InputError(
                f"the delay is {wait:g} ms, expected at least one step ({step:g} ms) and less than "
                f"the {t[-1] - t[0]:g} ms of the recording."
            )
        times, phase = t[lag:], np.arctan2(offset[:-lag], offset[lag:])
    phase[:, silent] = np.nan
    return PhaseMap(times, phase)


def _even_step(t: np.ndarray, vm: np.ndarray) -> float:
    if len(t) != len(vm) or len(t) < 4:
        raise InputError(
            f"{len(t)} times and {len(vm)} maps of voltage, expected as many, at least 4."
        )
    if not (np.isfinite(t).all() and np.isfinite(vm).all()):
        raise InputError("times or voltages are not finite: leave out what was not simulated.")
    steps = np.diff(t)
    if not (steps[0] > 0 and np.ptp(steps) < 1e-3 * steps[0]):
        raise InputError("the times are not evenly spaced: store frames at a fixed interval.")
    return float(steps[0])


def _period(vm: np.ndarray, step: float) -> float:
    """Dominant period [ms]: the peak of the mean spectrum."""
    if not vm.shape[1]:
        return step  # nothing moves; any delay will do
    power = (np.abs(np.fft.rfft(vm - vm.mean(axis=0), axis=0)) ** 2).mean(axis=1)
    return len(vm) * step / max(1, int(power[1:].argmax()) + 1)
