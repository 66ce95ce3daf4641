"""Where the waves of one beat begin and end: P, QRS and T, over all leads and in each lead."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.signal import find_peaks, savgol_filter

from twinheart.ecg.beats import find_beats, independent_signals
from twinheart.ecg.leads import LEADS, Ecg

_NAN = float("nan")

_T_FROM, _T_WITHIN = 60.0, 520.0  # ms after the QRS: where the peak of the T wave is sought
_T_SMOOTHING = 31.0  # ms; quadratic fit
_T_DESCENT = 220.0  # ms from the peak to the end at most
_FLAT = 0.2  # of the steepest slope: where the wave has come to its level
_T_OF_QRS = 0.05  # of the QRS amplitude: a smaller bump is no T wave
_T_OF_LARGEST = 0.15  # of the largest T wave: a smaller one is not measured
_T_OF_NOISE = 5.0  # times the noise
_SUPPORT, _SUPPORT_WITHIN = 2, 16.0  # other leads that end within so many ms

_P_WITHIN, _P_GAP = 320.0, 20.0  # ms before the QRS: where P may be, and where it has ended
_P_SMOOTHING = 25.0  # ms
_P_EDGE = 0.25  # of the steepest slope of the P wave
_P_QUIET = 16.0  # ms; a quieter stretch inside the P wave
_P_OF_QRS, _P_OF_NOISE = 0.025, 4.0
_P_LENGTH = (40.0, 220.0)  # ms


class Delineation(NamedTuple):
    """Times of one beat [ms]; NaN where a wave is not there or not complete.

    Attributes
    ----------
    p_onset, p_peak, p_offset : float
        The P wave before the QRS.
    qrs_onset, r_peak, qrs_offset : float
        The QRS complex.
    t_onset, t_peak, t_offset : float
        The T wave over all leads.
    t_peaks, t_offsets : dict
        Peak and end of the T wave in the leads where it can be measured.
    reasons : dict
        Wave -> why it is missing.
    """

    p_onset: float
    p_peak: float
    p_offset: float
    qrs_onset: float
    r_peak: float
    qrs_offset: float
    t_onset: float
    t_peak: float
    t_offset: float
    t_peaks: dict[str, float]
    t_offsets: dict[str, float]
    reasons: dict[str, str]

    @property
    def qt(self) -> float:
        """QT interval [ms]."""
        return self.t_offset - self.qrs_onset

    @property
    def qrs(self) -> tuple[float, float]:
        """Onset and offset of the QRS [ms]."""
        return self.qrs_onset, self.qrs_offset


class _TWave(NamedTuple):
    onset: float
    peak: float
    offset: float
    height: float  # against the chord from the ST segment to the end of the window


def delineate(ecg: Ecg, *, around: float | None = None, noise: float = 0.0) -> Delineation:
    r"""Find the waves of one beat.

    * QRS: where the spatial velocity of all leads leaves and reaches its quiet level
      (`find_beats`).
    * T end, in each lead: the tangent at the steepest slope after the peak meets the level where
      the slope has fallen to a fifth of it, which is before a U wave. Over all leads: the latest
      end that at least two other leads share within 16 ms.
    * P: the largest bump of the RMS over the leads in the 320 ms before the QRS; it reaches to
      where the spatial velocity, smoothed over 25 ms, is below a quarter of its own largest value.

    Parameters
    ----------
    ecg : Ecg
        A beat, such as the average one, or a record of a few [mV].
    around : float, optional
        R peak of the beat that is meant [ms]; by default the first complete one.
    noise : float
        RMS noise [mV]; waves have to stand out of it.

    Returns
    -------
    Delineation
        On the time axis of `ecg`. A simulated beat has no P wave, and may have no T wave.

    Raises
    ------
    InputError
        If the samples are not equally spaced or more than 4 ms apart.

    References
    ----------
    Tangent: Lepeschkin and Surawicz 1952, doi:10.1161/01.CIR.6.3.378. Rule for many leads:
    Laguna et al. 1994, doi:10.1006/cbmr.1994.1006; Martinez et al. 2004,
    doi:10.1109/TBME.2003.821031. Levels and windows are ours, checked against hand readings.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg, delineate
    >>> t = np.arange(0.0, 700.0)
    >>> spike = np.where(abs(t - 150) < 50, 1 + np.cos(np.pi * (t - 150) / 50), 0.0)
    >>> wave = 0.3 * np.exp(-(((t - 400) / 30) ** 2) / 2)  # its tangent ends 2 x 30 ms later
    >>> found = delineate(Ecg(t, (spike + wave)[:, None], ("II",)))
    >>> bool(abs(found.t_peak - 400) < 2), bool(abs(found.t_offset - 460) < 6)
    (True, True)
    >>> found.reasons
    {'P': 'no P wave stands out before the QRS'}
    """
    beats = find_beats(ecg)
    if len(beats.r) == 0:
        missing = {wave: "no QRS complex was found" for wave in ("P", "QRS", "T")}
        return Delineation(*[_NAN] * 9, t_peaks={}, t_offsets={}, reasons=missing)
    index = 0 if around is None else int(np.abs(beats.r - around).argmin())
    return _delineated(ecg, beats.r, beats.bounds, index, noise)


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
    bounds = find_beats(ecg).bounds
    return float(np.median(bounds[:, 1] - bounds[:, 0])) if len(bounds) else _NAN


def qt_interval(ecg: Ecg) -> float:
    """QT interval [ms]: QRS onset to the end of the T wave, the median over the beats.

    Parameters
    ----------
    ecg : Ecg
        Equally spaced samples, at least 250 Hz.

    Returns
    -------
    float
        As `delineate` finds it beat by beat; NaN where no beat has a complete T wave of at least
        5 % of the QRS amplitude.

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
    beats = find_beats(ecg)
    found = [_delineated(ecg, beats.r, beats.bounds, i, 0.0).qt for i in range(len(beats.r))]
    return float(np.nanmedian(found)) if np.isfinite(found).any() else _NAN


def _delineated(
    ecg: Ecg, r: np.ndarray, bounds: np.ndarray, index: int, noise: float
) -> Delineation:
    t = np.asarray(ecg.t, dtype=np.float64)
    onset, offset = (float(value) for value in bounds[index])
    earliest = float(bounds[index - 1, 1]) + 150.0 if index else float(t[0])
    following = float(bounds[index + 1, 0]) if index + 1 < len(r) else np.inf
    signals = np.asarray(ecg.signals, dtype=np.float64)
    signals = signals - signals[np.searchsorted(t, onset)]
    finite = np.isfinite(signals).all(axis=0)
    names = [name for name, good in zip(ecg.names, finite, strict=True) if good]
    signals = signals[:, finite]
    reasons: dict[str, str] = {}
    p_wave = _p_wave(t, ecg, onset, max(earliest, onset - _P_WITHIN), offset, noise)
    if not np.isfinite(p_wave).all():
        reasons["P"] = "no P wave stands out before the QRS"
    stop = min(offset + _T_WITHIN + 0.5 * _T_DESCENT, following - 80.0, float(t[-1]))
    waves = _t_waves(t, names, signals, (onset, offset, stop), noise)
    # Frank's or a patch's leads see other parts of the T wave than the twelve do
    standard = {name: wave for name, wave in waves.items() if name in LEADS}
    t_wave, why = _global_t(standard or waves)
    if why:
        reasons["T"] = why
    return Delineation(
        *p_wave,
        onset,
        float(r[index]),
        offset,
        *t_wave,
        t_peaks={name: wave.peak for name, wave in waves.items()},
        t_offsets={n: wave.offset for n, wave in waves.items() if np.isfinite(wave.offset)},
        reasons=reasons,
    )


def _t_waves(
    t: Float[np.ndarray, "time"],
    names: list[str],
    signals: Float[np.ndarray, "time lead"],
    limits: tuple[float, float, float],
    noise: float,
) -> dict[str, _TWave]:
    """T wave of each lead that has one worth measuring."""
    onset, offset, stop = limits
    step = float(t[1] - t[0])
    qrs = signals[(t >= onset) & (t <= offset)]
    largest_qrs = float(np.ptp(qrs, axis=0).max())
    part = np.flatnonzero((t >= offset + 20.0) & (t <= stop))
    window = 2 * round(_T_SMOOTHING / step / 2) + 1
    if len(part) < max(2 * window, 80.0 / step):
        return {}
    waves = {}
    smooth = np.asarray(savgol_filter(signals[part], window, 2, axis=0))
    slope = np.asarray(savgol_filter(signals[part], window, 2, deriv=1, delta=step, axis=0))
    for name, wave, rate in zip(names, smooth.T, slope.T, strict=True):
        waves[name] = _t_wave(t[part], wave, rate, offset)
    largest = max((wave.height for wave in waves.values()), default=0.0)
    least = max(_T_OF_LARGEST * largest, _T_OF_NOISE * noise)
    if largest < _T_OF_QRS * largest_qrs:
        return {}
    return {name: wave for name, wave in waves.items() if wave.height >= least}


def _t_wave(t: np.ndarray, wave: np.ndarray, slope: np.ndarray, offset: float) -> _TWave:
    """Peak, and where the tangents on both sides of it reach the level beside the wave."""
    # a lead with ST deviation has no level to rise from: measured against the chord instead
    chord = wave[0] + (wave[-1] - wave[0]) * (t - t[0]) / (t[-1] - t[0])
    inside = np.flatnonzero((t >= offset + _T_FROM) & (t <= offset + _T_WITHIN))
    if inside.size == 0:
        return _TWave(_NAN, _NAN, _NAN, 0.0)
    away = np.abs(wave - chord)
    peak = int(inside[away[inside].argmax()])
    sign = 1.0 if wave[peak] >= chord[peak] else -1.0
    # the extremum of the wave itself, not of its distance from a sloping chord
    near = np.flatnonzero(np.abs(t - t[peak]) <= 60.0)
    top = int(near[(sign * wave[near]).argmax()])
    peak = top if near[0] < top < near[-1] else peak
    step = t[1] - t[0]
    end = _tangent(wave[peak:], -sign * slope[peak:], round(_T_DESCENT / step))
    begin = _tangent(wave[: peak + 1][::-1], sign * slope[: peak + 1][::-1], peak)
    if abs(wave[-1] - wave[0]) > away[peak]:  # the record stops on the way up or down
        end = _NAN
    return _TWave(
        float(t[peak] - begin * step),
        float(t[peak]),
        float(t[peak] + end * step),
        float(away[peak]),
    )


def _tangent(wave: np.ndarray, descent: np.ndarray, reach: int) -> float:
    """Samples from a peak to where the steepest tangent meets the level behind the wave.

    `descent` is the slope away from the peak, positive while the wave comes down. NaN where the
    wave does not come to a level before the samples end.
    """
    part = descent[: reach + 1]
    if part.size < 3 or part.max() <= 0:
        return _NAN
    steepest = int(part.argmax())
    flat = np.flatnonzero(descent[steepest:] <= _FLAT * descent[steepest])
    if flat.size == 0:
        return _NAN
    level = wave[steepest + int(flat[0])]
    fall = abs(wave[min(steepest + 1, len(wave) - 1)] - wave[max(steepest - 1, 0)]) / 2
    if fall == 0 or steepest == 0:
        return _NAN
    return steepest + abs(wave[steepest] - level) / fall


def _global_t(waves: dict[str, _TWave]) -> tuple[tuple[float, float, float], str]:
    """Onset, peak and end over all leads; and the reason where they are missing."""
    if not waves:
        return (_NAN, _NAN, _NAN), "no T wave stands out after the QRS"
    heights = {name: wave.height for name, wave in waves.items()}
    dominant = waves[max(heights, key=lambda name: heights[name])]
    ends = np.sort([wave.offset for wave in waves.values() if np.isfinite(wave.offset)])
    if ends.size == 0:
        return (dominant.onset, dominant.peak, _NAN), "the record ends before the T wave does"
    wanted = min(_SUPPORT, len(ends) - 1)
    supported = [e for e in ends if (np.abs(ends - e) <= _SUPPORT_WITHIN).sum() - 1 >= wanted]
    end = float(supported[-1] if supported else np.median(ends))
    return (dominant.onset, dominant.peak, end), ""


def _p_wave(
    t: Float[np.ndarray, "time"],
    ecg: Ecg,
    qrs_onset: float,
    start: float,
    qrs_offset: float,
    noise: float,
) -> tuple[float, float, float]:
    """Onset, peak and offset of the P wave."""
    nothing = (_NAN, _NAN, _NAN)
    step = float(t[1] - t[0])
    window = 2 * round(_P_SMOOTHING / step / 2) + 1
    part = np.flatnonzero((t >= start) & (t <= qrs_onset - 4.0))
    leads = independent_signals(ecg)
    if len(part) < 3 * window or leads.shape[1] == 0:
        return nothing
    level = leads[part[-1]]
    qrs = leads[(t >= qrs_onset) & (t <= qrs_offset)]
    height = np.sqrt(((qrs - level) ** 2).mean(axis=1)).max()
    smooth = np.asarray(savgol_filter(leads[part], window, 2, axis=0))
    chord = smooth[0] + (smooth[-1] - smooth[0]) * np.linspace(0.0, 1.0, len(part))[:, None]
    rms = np.sqrt(((smooth - chord) ** 2).mean(axis=1))
    slope = np.asarray(savgol_filter(leads[part], window, 2, deriv=1, delta=step, axis=0))
    velocity = np.sqrt((slope**2).mean(axis=1))
    least = max(_P_OF_QRS * height, _P_OF_NOISE * noise)
    peaks, _ = find_peaks(rms, height=max(least, 1e-12))
    peaks = peaks[t[part[peaks]] <= qrs_onset - _P_GAP - 20.0]
    if peaks.size == 0:
        return nothing
    peak = int(peaks[rms[peaks].argmax()])
    half = round(90.0 / step)
    top = velocity[max(0, peak - half) : peak + half].max()
    quiet = round(_P_QUIET / step)
    before = _quiet_from(velocity[: peak + 1][::-1], _P_EDGE * top, quiet)
    after = _quiet_from(velocity[peak:], _P_EDGE * top, quiet)
    if not (np.isfinite(before) and np.isfinite(after)):
        return nothing
    onset, offset = t[part[peak]] - before * step, t[part[peak]] + after * step
    if not _P_LENGTH[0] <= offset - onset <= _P_LENGTH[1]:
        return nothing
    return float(onset), float(t[part[peak]]), float(offset)


def _quiet_from(values: np.ndarray, level: float, quiet: int) -> float:
    """Samples to where the values, once above the level, stay below it; NaN if they never do."""
    above = np.flatnonzero(values >= level)
    if above.size == 0:
        return _NAN
    gaps = np.flatnonzero(np.diff(above) > quiet)
    last = int(above[gaps[0]] if gaps.size else above[-1])
    return float(last + 1) if last + 1 < len(values) else _NAN
