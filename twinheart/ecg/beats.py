"""Finding the beats of an ECG and averaging them."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.signal import find_peaks, savgol_coeffs, savgol_filter

from twinheart.ecg.electrodes import PRECORDIAL
from twinheart.ecg.leads import Ecg
from twinheart.errors import InputError

# Only eight of the twelve leads are independent; the others would count the limb leads twice.
_INDEPENDENT = ("I", "II", *PRECORDIAL)

_SMOOTHING = 7.0  # ms; quadratic fit for the slope
_BEAT_LEVEL = 0.35  # of a usual beat's spatial velocity: T waves stay below, QRS complexes above
_USUAL_WINDOW = 2000.0  # ms; holds a beat from 30 a minute on
_EDGE_LEVEL = 0.05  # of the largest spatial velocity of the beat
_NOISE_FACTOR = 3.0  # times the RMS slope of the noise: one sample in 10 000 with two leads
_NOTCH = 20.0  # ms; a quieter stretch inside the QRS
_REACH = 200.0  # ms; farthest onset and offset from the steepest point
_REFRACTORY = 250.0  # ms between beats

_BEFORE, _AFTER = (0.4, 400.0), (0.75, 800.0)  # of the RR interval, and at most [ms]
_ALIGN = 30.0  # ms; farthest shift of a beat against the average
_LEVEL = (25.0, 5.0)  # ms before the QRS, where the level is taken
_LEAST_CORRELATION = 0.9  # of a beat with the median beat, over the QRS of all leads
_LARGEST_RESIDUAL = 3.0  # times the median of the beats' RMS distances from the median beat


class Beats(NamedTuple):
    """The beats of a record.

    Attributes
    ----------
    r : (beat,) array
        R peaks: the largest deflection over the independent leads within the QRS [ms].
    bounds : (beat, 2) array
        Onset and offset of the QRS [ms].
    """

    r: Float[np.ndarray, "beat"]
    bounds: Float[np.ndarray, "beat 2"]


class AverageBeat(NamedTuple):
    """The mean of the beats of one shape.

    Attributes
    ----------
    ecg : Ecg
        One beat [mV]; time zero is the R peak, the level before the QRS is zero. NaN where no beat
        had a sample.
    used : (beat,) array
        Which of the beats found went into the mean.
    rr : float
        Median RR interval [ms]; NaN for a single beat.
    noise : float
        RMS noise left in the mean [mV], of the independent leads; NaN for a single beat.
    """

    ecg: Ecg
    used: Bool[np.ndarray, "beat"]
    rr: float
    noise: float


def find_beats(ecg: Ecg) -> Beats:
    r"""R peak, onset and offset of every QRS complex, over all leads at once.

    The spatial velocity is the RMS slope over the independent leads,
    :math:`s(t) = \sqrt{\frac{1}{L} \sum_l \dot V_l^2}`, from a quadratic fit over 7 ms. A beat is a
    peak above 35 % of the usual one (the median of the largest values in each 2 s); the QRS
    reaches from there to where `s` falls below 5 % of the beat's peak for 20 ms or more. Where
    three times the slope of the noise is more, that is used in both places.

    Parameters
    ----------
    ecg : Ecg
        Equally spaced samples, at least 250 Hz. Leads with missing samples are not used.

    Returns
    -------
    Beats
        Nothing where the ECG is flat.

    Raises
    ------
    InputError
        If the samples are not equally spaced or more than 4 ms apart.

    References
    ----------
    Spatial velocity of all leads as the signal to delineate: Laguna et al. 1994,
    doi:10.1006/cbmr.1994.1006, for one lead; the levels are ours.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg, find_beats
    >>> t = np.arange(0.0, 2000.0)
    >>> def beat(at): return np.where(abs(t - at) < 50, 1 + np.cos(np.pi * (t - at) / 50), 0.0)
    >>> find_beats(Ecg(t, (beat(400) + beat(1300))[:, None], ("II",))).r
    array([ 400., 1300.])
    """
    step = ecg.step
    if step > 4.0:
        raise InputError(f"the ECG is sampled every {step:g} ms; the QRS needs 4 ms or less.")
    leads = independent_signals(ecg)
    window = max(3, 2 * round(_SMOOTHING / step / 2) + 1)
    if len(leads) < 2 * window or leads.shape[1] == 0:
        return _beats([], [])
    slope = np.asarray(savgol_filter(leads, window, 2, deriv=1, delta=step, axis=0, mode="nearest"))
    velocity = np.sqrt((slope**2).mean(axis=1))
    # float32 leads of a resting heart are flat to rounding, not exactly
    if velocity.max() <= 1e-6 * max(float(np.abs(leads).max()), 1e-9):
        return _beats([], [])
    noise = _NOISE_FACTOR * _noise_slope(leads, window, step)
    peaks, _ = find_peaks(
        np.concatenate([[0.0], velocity, [0.0]]),  # a beat may start with the record
        height=max(_BEAT_LEVEL * _usual_peak(velocity, step), noise),
        distance=max(1, round(_REFRACTORY / step)),
    )
    t = np.asarray(ecg.t, dtype=np.float64)
    r, bounds = [], []
    for peak in peaks - 1:
        level = min(max(_EDGE_LEVEL * velocity[peak], noise), 0.5 * velocity[peak])
        reach, quiet = round(_REACH / step), round(_NOTCH / step)
        after = _crossing(velocity[peak : peak + reach], level, quiet)
        before = _crossing(velocity[max(0, peak - reach) : peak + 1][::-1], level, quiet)
        bounds.append((t[peak] - before * step, t[peak] + after * step))
        inside = slice(peak - math.floor(before), peak + math.floor(after) + 1)
        size = ((leads[inside] - leads[inside.start]) ** 2).sum(axis=1)
        r.append(t[inside.start + int(size.argmax())])
    return _beats(r, bounds)


def qrs_bounds(ecg: Ecg) -> Float[np.ndarray, "beat 2"]:
    """Onset and offset of each QRS complex [ms], as `find_beats` finds them.

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
    return find_beats(ecg).bounds


def average_beat(
    ecg: Ecg, beats: Beats, missing: Bool[np.ndarray, "time lead"] | None = None
) -> AverageBeat:
    """Mean of the beats that look alike, aligned by their shape.

    Each beat is put to zero before its QRS and shifted by up to 30 ms to where it fits the median
    beat best. Beats whose QRS correlates with the median beat by less than 0.9 (another origin), or
    that are three times as far from it as usual (an artefact), are left out.

    Parameters
    ----------
    ecg : Ecg
        Filtered leads without gaps [mV].
    beats : Beats
        As found on it.
    missing : (time, lead) array, optional
        True where a sample was bridged: it does not enter the mean.

    Returns
    -------
    AverageBeat
        From 40 % of an RR interval (at most 400 ms) before the R peak to 75 % (at most 800 ms)
        after. A record with a single beat is returned as it is, with time zero at its R peak.

    Raises
    ------
    InputError
        If there is no beat.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg, average_beat, find_beats
    >>> t = np.arange(0.0, 4000.0)
    >>> spikes = np.maximum(np.cos(2 * np.pi * (t - 500) / 1000), 0.9)[:, None] - 0.9
    >>> ecg = Ecg(t, spikes, ("II",))
    >>> average = average_beat(ecg, find_beats(ecg))
    >>> int(average.used.sum()), average.rr
    (3, 1000.0)
    """
    if len(beats.r) == 0:
        raise InputError("no QRS complex was found in the ECG; there is nothing to average.")
    t, step = np.asarray(ecg.t, dtype=np.float64), ecg.step
    signals = np.asarray(ecg.signals, dtype=np.float64)
    if missing is not None:
        signals = np.where(missing, np.nan, signals)
    rr = float(np.median(np.diff(beats.r))) if len(beats.r) > 1 else float("nan")
    centre = np.round((beats.r - t[0]) / step).astype(int)
    onset = float(np.median(beats.bounds[:, 0] - beats.r))
    if len(beats.r) == 1:
        level = _level(signals, int(centre[0]) + round(onset / step), step)
        whole = Ecg(t - beats.r[0], signals - level, ecg.names)
        return AverageBeat(whole, np.ones(1, dtype=bool), rr, float("nan"))

    before = round(min(_BEFORE[0] * rr, _BEFORE[1]) / step)
    after = round(min(_AFTER[0] * rr, _AFTER[1]) / step)
    whole = np.flatnonzero((centre >= before) & (centre + after < len(t)))
    if whole.size == 0:  # two beats in a short record: the more complete one, as far as it goes
        whole = np.array([int(np.minimum(centre / before, (len(t) - centre) / after).argmax())])
        before, after = min(before, centre[whole[0]]), min(after, len(t) - 1 - centre[whole[0]])
    window = np.arange(-before, after + 1)
    at = centre[whole]
    qrs = np.abs(window * step - np.median(beats.bounds.mean(axis=1) - beats.r)) < 100.0
    shift = round(onset / step)
    cut = _cut(signals, at, window, shift, step)
    some = _independent_columns(ecg.names)
    for _ in range(2):
        template = _nanmedian(cut[:, qrs][:, :, some])
        at = at + _best_shifts(signals[:, some], at, window[qrs], template, round(_ALIGN / step))
        at = np.clip(at, before, len(t) - 1 - after)
        cut = _cut(signals, at, window, shift, step)
    accepted = _alike(cut, qrs)
    mean = _nanmean(cut[accepted])
    used = np.zeros(len(beats.r), dtype=bool)
    used[whole[accepted]] = True
    noise = _noise_left(cut[accepted], mean, ecg.names)
    return AverageBeat(Ecg(window * step, mean, ecg.names), used, rr, noise)


def independent_signals(ecg: Ecg) -> Float[np.ndarray, "time lead"]:
    """Complete leads of I, II, V1 ... V6, or of all where none of these is there [mV].

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg
    >>> from twinheart.ecg.beats import independent_signals
    >>> independent_signals(Ecg(np.arange(3.0), np.zeros((3, 2)), ("I", "aVR"))).shape
    (3, 1)
    """
    signals = np.asarray(ecg.signals, dtype=np.float64)[:, _independent_columns(ecg.names)]
    return signals[:, np.isfinite(signals).all(axis=0)]


def _independent_columns(names: tuple[str, ...]) -> list[int]:
    columns = [i for i, name in enumerate(names) if name in _INDEPENDENT]
    return columns or list(range(len(names)))


def _beats(r: list, bounds: list) -> Beats:
    return Beats(np.array(r, dtype=float), np.array(bounds, dtype=float).reshape(-1, 2))


def _usual_peak(velocity: Float[np.ndarray, "time"], step: float) -> float:
    """Largest velocity of a usual beat: neither of an artefact nor of a silent stretch."""
    size = round(_USUAL_WINDOW / step)
    windows = max(1, len(velocity) // size)
    largest = np.array([part.max() for part in np.array_split(velocity, windows)])
    # half of the record may be silent: where it beats, it beats with at least a fifth of this
    return float(np.median(largest[largest >= 0.2 * np.median(np.sort(largest)[-3:])]))


def _noise_slope(leads: np.ndarray, window: int, step: float) -> float:
    """RMS slope that white noise of the record's level leaves after smoothing."""
    # third differences remove what is smooth; the median ignores the few steep samples of the QRS
    third = np.abs(np.diff(leads, n=3, axis=0))
    deviation = np.median(third, axis=0) / 0.6745 / math.sqrt(20.0)  # sum of squares of 1, 3, 3, 1
    gain = np.linalg.norm(savgol_coeffs(window, 2, deriv=1, delta=step))
    return float(gain * np.sqrt((deviation**2).mean()))


def _crossing(values: np.ndarray, level: float, quiet: int) -> float:
    """Samples from the first value to where the values fall below `level` for `quiet` samples."""
    above = np.flatnonzero(values >= level)
    gaps = np.flatnonzero(np.diff(above) > quiet)
    last = int(above[gaps[0]] if gaps.size else above[-1])
    if last + 1 >= len(values):
        return float(last)
    return last + (values[last] - level) / (values[last] - values[last + 1])


def _level(signals: np.ndarray, onset: int, step: float) -> np.ndarray:
    """Level of each lead just before the QRS; the first sample where the record starts with it."""
    first, last = (max(0, onset - round(ms / step)) for ms in _LEVEL)
    return _nanmedian(signals[first : last + 1])


def _cut(signals: np.ndarray, at: np.ndarray, window: np.ndarray, onset: int, step: float):
    """(beat, time, lead): the beats, each put to zero before its QRS."""
    return np.stack([signals[i + window] - _level(signals, i + onset, step) for i in at.tolist()])


def _best_shifts(
    signals: np.ndarray, at: np.ndarray, window: np.ndarray, template: np.ndarray, reach: int
) -> np.ndarray:
    """Shift [samples] of each beat at which it differs least from the template."""
    template = np.nan_to_num(template - _nanmean(template))
    shifts = []
    for centre in at:
        scores = []
        for shift in range(-reach, reach + 1):
            index = np.clip(centre + shift + window, 0, len(signals) - 1)
            part = signals[index]
            scores.append(np.nansum((part - _nanmean(part) - template) ** 2))
        shifts.append(int(np.argmin(scores)) - reach)
    return np.array(shifts)


def _alike(cut: np.ndarray, qrs: np.ndarray) -> np.ndarray:
    """Which beats have the shape of the median beat; all where it is not clear what is usual."""
    if len(cut) < 3:
        return np.ones(len(cut), dtype=bool)
    middle = np.nan_to_num(_nanmedian(cut))
    filled = np.where(np.isfinite(cut), cut, middle)
    one, other = filled[:, qrs].reshape(len(cut), -1), middle[qrs].ravel()
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other)
    correlation = one @ other / np.maximum(norms, 1e-12)
    residual = np.sqrt(((filled - middle) ** 2).mean(axis=(1, 2)))
    alike = (correlation >= _LEAST_CORRELATION) & (
        residual <= _LARGEST_RESIDUAL * np.median(residual) + 1e-9
    )
    return alike if alike.any() else np.ones(len(cut), dtype=bool)


def _noise_left(cut: np.ndarray, mean: np.ndarray, names: tuple[str, ...]) -> float:
    if len(cut) < 2:
        return float("nan")
    columns = _independent_columns(names)
    # fast differences only: slow ones (breathing) are no noise to a boundary
    rough = np.diff(cut[:, :, columns] - mean[:, columns], n=1, axis=1) / math.sqrt(2.0)
    return float(np.sqrt(np.nanmean(rough**2) / (len(cut) - 1)))


def _nanmean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis; NaN, without a warning, where nothing is finite."""
    finite = np.isfinite(values)
    count = finite.sum(axis=0)
    total = np.where(finite, values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _nanmedian(values: np.ndarray) -> np.ndarray:
    """Median over the first axis; NaN, without a warning, where nothing is finite."""
    finite = np.isfinite(values).any(axis=0)
    median = np.nanmedian(np.where(finite, values, 0.0), axis=0)
    return np.where(finite, median, np.nan)
