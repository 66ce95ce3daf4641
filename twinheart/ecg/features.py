"""Features of an ECG: QRS duration, QT interval, R-wave progression."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.signal import find_peaks, savgol_coeffs, savgol_filter

from twinheart.ecg.electrodes import PRECORDIAL
from twinheart.ecg.leads import Ecg
from twinheart.errors import InputError

# Only eight of the twelve leads are independent; the others would count the limb leads twice.
_INDEPENDENT = ("I", "II", *PRECORDIAL)

_SMOOTHING = 7.0  # ms; quadratic fit for the slope
_BEAT_LEVEL = 0.4  # of the largest spatial velocity: T waves stay below, all QRS complexes above
_EDGE_LEVEL = 0.05  # of the largest spatial velocity of the beat
_NOISE_FACTOR = 3.0  # times the RMS slope of the noise: one sample in 10 000 with two leads
_NOTCH = 20.0  # ms; a quieter stretch inside the QRS
_REACH = 200.0  # ms; farthest onset and offset from the steepest point
_REFRACTORY = 250.0  # ms between beats


class RWaveProgression(NamedTuple):
    """R and S amplitudes of the precordial leads [mV].

    Attributes
    ----------
    names : tuple of str
        Leads, in the order of the chest.
    r, s : (lead,) array
        Largest deflection upwards (>= 0) and downwards (<= 0) within the QRS.
    transition : str or None
        First lead whose R is at least as large as its S; None where none is.
    """

    names: tuple[str, ...]
    r: Float[np.ndarray, "lead"]
    s: Float[np.ndarray, "lead"]
    transition: str | None


def qrs_bounds(ecg: Ecg) -> Float[np.ndarray, "beat 2"]:
    r"""Onset and offset of each QRS complex [ms].

    The spatial velocity is the RMS slope over the independent leads,
    :math:`s(t) = \sqrt{\frac{1}{L} \sum_l \dot V_l^2}`, from a quadratic fit over 7 ms. A beat is a
    peak above 40 % of its maximum; the QRS reaches from there to where `s` falls below 5 % of the
    beat's peak for 20 ms or more. Where the noise has a larger slope, three times that is used.

    Parameters
    ----------
    ecg : Ecg
        Equally spaced samples, at least 250 Hz.

    Returns
    -------
    (beat, 2) array
        Onset and offset [ms]; no rows where the ECG is flat.

    Raises
    ------
    InputError
        If the samples are not equally spaced or more than 4 ms apart.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg, qrs_bounds
    >>> t = np.arange(0.0, 400.0)
    >>> spike = np.where(abs(t - 150) < 50, 1 + np.cos(np.pi * (t - 150) / 50), 0.0)
    >>> onset, offset = qrs_bounds(Ecg(t, spike[:, None], ("II",)))[0]
    >>> bool(abs(onset - 100) < 4), bool(abs(offset - 200) < 4)
    (True, True)
    """
    return np.array([bounds for bounds, _ in _beats(ecg)]).reshape(-1, 2)


def qrs_duration(ecg: Ecg) -> float:
    """Duration of the QRS complex [ms], over all leads; the median where there are several beats.

    Parameters
    ----------
    ecg : Ecg
        Equally spaced samples, at least 250 Hz.

    Returns
    -------
    float
        Offset minus onset as found by `qrs_bounds`; NaN where the ECG is flat.

    Raises
    ------
    InputError
        If the samples are not equally spaced or more than 4 ms apart.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg, qrs_duration
    >>> t = np.arange(0.0, 400.0)
    >>> spike = np.where(abs(t - 150) < 50, 1 + np.cos(np.pi * (t - 150) / 50), 0.0)
    >>> bool(abs(qrs_duration(Ecg(t, spike[:, None], ("II",))) - 100) < 4)
    True
    """
    bounds = qrs_bounds(ecg)
    return float(np.median(bounds[:, 1] - bounds[:, 0])) if len(bounds) else float("nan")


def qt_interval(ecg: Ecg) -> float:
    """QT interval [ms]: QRS onset to the end of the T wave, the median over the beats.

    The T wave is the largest bump of the RMS over the independent leads after the QRS; the tangent
    at its steepest descent meets the baseline (the level before the QRS) at its end.

    Parameters
    ----------
    ecg : Ecg
        Equally spaced samples, at least 250 Hz.

    Returns
    -------
    float
        NaN where no beat has a complete T wave of at least 5 % of the QRS amplitude.

    Raises
    ------
    InputError
        If the samples are not equally spaced or more than 4 ms apart.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg, qt_interval
    >>> t = np.arange(0.0, 700.0)
    >>> spike = np.where(abs(t - 150) < 50, 1 + np.cos(np.pi * (t - 150) / 50), 0.0)
    >>> wave = 0.3 * np.exp(-(((t - 400) / 30) ** 2) / 2)  # its tangent ends 2 x 30 ms later
    >>> bool(abs(qt_interval(Ecg(t, (spike + wave)[:, None], ("II",))) - 360) < 8)
    True
    """
    beats = _beats(ecg)
    leads = _independent(ecg)
    t = np.asarray(ecg.t, dtype=np.float64)
    ends = []
    for index, ((onset, offset), _) in enumerate(beats):
        following = beats[index + 1][0][0] if index + 1 < len(beats) else np.inf
        rms = np.sqrt(((leads - leads[np.searchsorted(t, onset)]) ** 2).mean(axis=1))
        ends.append(_t_end(t, rms, offset, following) - onset)
    return float(np.nanmedian(ends)) if np.isfinite(ends).any() else float("nan")


def r_wave_progression(ecg: Ecg) -> RWaveProgression:
    """R and S amplitudes across the chest, from the first QRS complex.

    Parameters
    ----------
    ecg : Ecg
        With some of the leads V1 ... V6.

    Returns
    -------
    RWaveProgression
        Amplitudes [mV] against the level at the onset of the QRS, and the transition lead.

    Raises
    ------
    InputError
        If there is no precordial lead, or the samples are not fit for `qrs_bounds`.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg, r_wave_progression
    >>> t = np.arange(0.0, 400.0)
    >>> spike = np.where(abs(t - 150) < 50, 1 + np.cos(np.pi * (t - 150) / 50), 0.0)
    >>> signals = np.stack([-0.4 * spike, 0.5 * spike], axis=1)
    >>> r_wave_progression(Ecg(t, signals, ("V1", "V2"))).transition
    'V2'
    """
    names = tuple(name for name in PRECORDIAL if name in ecg.names)
    if not names:
        raise InputError(
            f"R-wave progression needs precordial leads; the ECG has {', '.join(ecg.names)}."
        )
    beats = _beats(ecg)
    if not beats:
        nothing = np.full(len(names), np.nan)
        return RWaveProgression(names, nothing, nothing, None)
    onset, offset = beats[0][0]
    t = np.asarray(ecg.t, dtype=np.float64)
    signals = np.stack([np.asarray(ecg[name], dtype=np.float64) for name in names], axis=1)
    signals = signals - signals[np.searchsorted(t, onset)]
    within = signals[(t >= onset) & (t <= offset)]
    r, s = np.maximum(within.max(axis=0), 0.0), np.minimum(within.min(axis=0), 0.0)
    positive = np.flatnonzero((r >= -s) & (r > 0))
    return RWaveProgression(names, r, s, names[positive[0]] if positive.size else None)


def _independent(ecg: Ecg) -> np.ndarray:
    columns = [ecg.names.index(name) for name in _INDEPENDENT if name in ecg.names]
    signals = np.asarray(ecg.signals, dtype=np.float64)
    signals = signals[:, columns] if columns else signals
    return signals[:, np.isfinite(signals).all(axis=0)]


def _beats(ecg: Ecg) -> list[tuple[tuple[float, float], int]]:
    """(onset, offset) [ms] of every QRS, with the sample of its steepest point."""
    step = ecg.step
    if step > 4.0:
        raise InputError(f"the ECG is sampled every {step:g} ms; the QRS needs 4 ms or less.")
    leads = _independent(ecg)
    window = max(3, 2 * round(_SMOOTHING / step / 2) + 1)
    if len(leads) < 2 * window or leads.shape[1] == 0:
        return []
    slope = np.asarray(savgol_filter(leads, window, 2, deriv=1, delta=step, axis=0))
    velocity = np.sqrt((slope**2).mean(axis=1))
    largest = velocity.max()
    # float32 leads of a resting heart are flat to rounding, not exactly
    if largest <= 1e-6 * max(float(np.abs(leads).max()), 1e-9):
        return []
    peaks, _ = find_peaks(
        np.concatenate([[0.0], velocity, [0.0]]),  # a beat may start with the record
        height=_BEAT_LEVEL * largest,
        distance=max(1, round(_REFRACTORY / step)),
    )
    noise = _NOISE_FACTOR * _noise_slope(leads, window, step)
    t = np.asarray(ecg.t, dtype=np.float64)
    beats = []
    for peak in peaks - 1:
        level = min(max(_EDGE_LEVEL * velocity[peak], noise), 0.5 * velocity[peak])
        reach, notch = round(_REACH / step), round(_NOTCH / step)
        after = _crossing(velocity[peak : peak + reach], level, notch)
        before = _crossing(velocity[max(0, peak - reach) : peak + 1][::-1], level, notch)
        beats.append(((t[peak] - before * step, t[peak] + after * step), int(peak)))
    return beats


def _noise_slope(leads: np.ndarray, window: int, step: float) -> float:
    """RMS slope that white noise of the record's level leaves after smoothing."""
    # third differences remove what is smooth; the median ignores the few steep samples of the QRS
    third = np.abs(np.diff(leads, n=3, axis=0))
    deviation = np.median(third, axis=0) / 0.6745 / math.sqrt(20.0)  # sum of squares of 1, 3, 3, 1
    gain = np.linalg.norm(savgol_coeffs(window, 2, deriv=1, delta=step))
    return float(gain * np.sqrt((deviation**2).mean()))


def _crossing(values: np.ndarray, level: float, notch: int) -> float:
    """Samples from the first value to where the values fall below `level` for `notch` samples."""
    above = np.flatnonzero(values >= level)
    gaps = np.flatnonzero(np.diff(above) > notch)
    last = int(above[gaps[0]] if gaps.size else above[-1])
    if last + 1 >= len(values):
        return float(last)
    return last + (values[last] - level) / (values[last] - values[last + 1])


def _t_end(t: np.ndarray, rms: np.ndarray, offset: float, following: float) -> float:
    step = t[1] - t[0]
    window = np.flatnonzero((t > offset + 60.0) & (t < min(offset + 500.0, following - 80.0)))
    if len(window) < 40.0 / step:
        return float("nan")
    wave = np.asarray(savgol_filter(rms[window], 2 * round(10.0 / step) + 1, 2))
    peak = int(wave.argmax())
    slope = np.gradient(wave, step)
    steepest = peak + int(slope[peak:].argmin())
    # the descent must be complete: neither the record nor the next beat may cut it off
    complete = wave[-1] < 0.3 * wave[peak] and 0 < peak and slope[steepest] < 0
    if not complete or wave[peak] < 0.05 * rms.max():
        return float("nan")
    return float(t[window[steepest]] - wave[steepest] / slope[steepest])
