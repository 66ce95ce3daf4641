"""The beat of a ventricular tachycardia in a recording: the widest of the shapes that recur."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from scipy.ndimage import gaussian_filter1d

from twinheart.ecg import Ecg, average_beat, clean_ecg, find_beats
from twinheart.ecg.beats import Beats, independent_signals
from twinheart.errors import InputError

_SHORTEST, _LONGEST = 40.0, 320.0  # ms, of a QRS complex that is compared
_WIDE = 120.0  # ms: narrower beats come down the conduction system
_SMALLEST, _LARGEST = 0.05, 20.0  # mV from peak to peak, of the largest lead
_USUAL_NOISE, _LEAST_NOISE = 0.025, 0.005  # mV: of a single beat; what filters leave
_ALIKE = 0.9  # correlation of beats of one shape
_REACH = 120.0  # ms around the R peak that shapes are told by
_RECURS = 0.1  # share of all beats from which on a shape is one of the rhythm
_FILTERED = 1500.0  # ms: a filter would bend a shorter record
# Of the steepest slope: where the QRS ends. The next one where it would not end before the T wave.
_EDGES = (0.125, 0.18, 0.25)
_NOTCH = 20.0  # ms; a quieter stretch inside the QRS
_T_WITHIN, _STEEPER = 450.0, 1.5  # ms; a T wave is less steep than its QRS by this factor
_SLOPE = 6.0  # ms, smoothing of slopes
_MARGIN = 40.0  # ms kept around the QRS


class VtBeat(NamedTuple):
    """One beat to be located.

    Attributes
    ----------
    ecg : Ecg
        The beat [mV]; time zero is the onset of its QRS.
    duration : float
        Of its QRS [ms].
    noise : float
        Standard deviation of the noise left in it [mV].
    n_used, n_beats : int
        Beats that were averaged, and those of the recording.
    remarks : tuple of str
        What was assumed and done, in sentences.
    """

    ecg: Ecg
    duration: float
    noise: float
    n_used: int
    n_beats: int
    remarks: tuple[str, ...]


def vt_beat(ecg: Ecg, *, qrs: tuple[float, float] | None = None, arbitrary: bool = False) -> VtBeat:
    """Take the beat of the tachycardia out of a recording.

    Beats are grouped by their shape; of the groups that hold a tenth of all beats or more the one
    with the widest QRS is averaged.

    Parameters
    ----------
    ecg : Ecg
        A record of one or more beats [mV], or of any unit if `arbitrary`.
    qrs : pair of float, optional
        Onset and offset of the QRS to take [ms, on the clock of the record], instead of searching.
    arbitrary : bool
        Amplitudes have no unit: they are scaled so that the largest lead has 2 mV.

    Returns
    -------
    VtBeat
        For `twinheart.planning.locate_exit`.

    Raises
    ------
    InputError
        If the record is too short or flat, no whole QRS is there, or the amplitude shows another
        unit.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg
    >>> from twinheart.planning.pace_mapping.vt_beat import vt_beat
    >>> t = np.arange(0.0, 4000.0)
    >>> wide = sum(np.exp(-(((t - at) / 45) ** 2)) for at in (2300, 2700, 3100, 3500))
    >>> narrow = sum(np.exp(-(((t - at) / 12) ** 2)) for at in (300, 900, 1500))
    >>> found = vt_beat(Ecg(t, np.stack([wide - narrow, wide], axis=1), ("V1", "V5")))
    >>> found.n_used, found.n_beats, bool(found.duration > 120)
    (3, 7, True)
    """
    remarks: list[str] = []
    ecg = _in_mv(ecg, arbitrary)
    if qrs is not None:
        return _given(ecg, qrs, remarks)
    t = np.asarray(ecg.t, float)
    missing = None
    if t[-1] - t[0] >= _FILTERED or not np.isfinite(np.asarray(ecg.signals)).all():
        clean = clean_ecg(ecg)
        remarks += clean.notes
        remarks += [f"lead {name} is left out: {why}" for name, why in clean.dropped.items()]
        ecg, missing = clean.ecg, clean.missing
    step = ecg.step
    beats = _beats(ecg)
    whole = (beats.bounds[:, 0] > t[0] + step) & (beats.bounds[:, 1] < t[-1] - step)
    if not whole.any():
        raise InputError(
            "the ECG shows no whole QRS complex: record at least one beat from before its onset to "
            "after its end, or name it (--qrs START,END)."
        )
    beats = Beats(beats.r[whole], beats.bounds[whole])
    chosen = _widest(ecg, beats)
    if len(chosen) < len(beats.r):
        remarks.append(
            f"{len(beats.r) - len(chosen)} of {len(beats.r)} beats have another shape and were "
            "left out: the widest is located"
        )
    own = Beats(beats.r[chosen], beats.bounds[chosen])
    average = average_beat(ecg, own, missing)
    onset, offset = qrs_extent(average.ecg, tuple(np.median(own.bounds - own.r[:, None], axis=0)))
    noise = _USUAL_NOISE if np.isnan(average.noise) else max(average.noise, _LEAST_NOISE)
    used = int(average.used.sum())
    return _cut(average.ecg, (onset, offset), noise, (used, len(beats.r)), remarks)


def qrs_extent(ecg: Ecg, within: tuple[float, float] | None = None) -> tuple[float, float]:
    """Onset and offset of a wide QRS, also where a T wave follows at once.

    From where the leads are steepest to where the RMS slope over the independent leads, smoothed
    by a Gaussian of 6 ms, stays below an eighth of that for 20 ms; up to a quarter where a T wave
    comes so early that the QRS would last more than 320 ms, which is the longest that is told.

    Parameters
    ----------
    ecg : Ecg
        Leads [mV].
    within : pair of float, optional
        Where it is steepest [ms].

    Returns
    -------
    onset, offset : float
        On the clock of the ECG [ms].

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg
    >>> from twinheart.planning.pace_mapping.vt_beat import qrs_extent
    >>> t = np.arange(0.0, 600.0)
    >>> beat = np.exp(-(((t - 200) / 30) ** 2)) + 0.3 * np.exp(-(((t - 400) / 60) ** 2))
    >>> [round(x, -1) for x in qrs_extent(Ecg(t, beat[:, None], ("II",)))]
    [140.0, 260.0]
    """
    t, step = np.asarray(ecg.t, float), ecg.step
    slope = gaussian_filter1d(independent_signals(ecg), _SLOPE / step, axis=0, order=1) / step
    velocity = np.sqrt((slope**2).mean(axis=1))
    inside = np.ones(len(t), bool) if within is None else (t >= within[0]) & (t <= within[1])
    peak = int(np.where(inside, velocity, -1.0).argmax())
    first, last = 0, len(t) - 1
    for edge in _EDGES:
        loud = np.flatnonzero(velocity >= edge * velocity[peak])
        apart = np.flatnonzero(np.diff(loud) > round(_NOTCH / step))
        at = int(np.searchsorted(loud, peak))
        first = int(loud[max((k + 1 for k in apart if k < at), default=0)])
        last = int(loud[min((k for k in apart if k >= at), default=len(loud) - 1)])
        if (last - first) * step <= _LONGEST:
            break
    return float(t[first]), float(min(t[last], t[first] + _LONGEST))


def _beats(ecg: Ecg) -> Beats:
    """Beats with the bounds of wide complexes; the R peak is the largest deflection within.

    A complex near another one that is much steeper is the T wave of that.
    """
    found = find_beats(ecg)
    extent = [qrs_extent(ecg, tuple(bounds)) for bounds in found.bounds]
    t, leads = np.asarray(ecg.t, float), independent_signals(ecg)
    slope = gaussian_filter1d(leads, _SLOPE / ecg.step, axis=0, order=1)
    steepness = np.sqrt((slope**2).sum(axis=1))
    peaks, steepest = [], []
    for (onset, offset), bounds in zip(extent, found.bounds, strict=True):
        own = np.flatnonzero((t >= onset) & (t <= offset))
        size = ((leads[own] - leads[own[0]]) ** 2).sum(axis=1)
        peaks.append(t[own[size.argmax()]])
        steepest.append(steepness[(t >= bounds[0]) & (t <= bounds[1])].max())
    r, steep = np.array(peaks, dtype=float), np.array(steepest, dtype=float)
    near = np.abs(r[:, None] - r) < _T_WITHIN
    kept = ~(near & (steep > _STEEPER * steep[:, None])).any(axis=1)
    kept &= np.concatenate([[True], np.diff(r) > _REACH])[: len(r)]  # found once
    return Beats(r[kept], np.array(extent, dtype=float).reshape(-1, 2)[kept])


def _in_mv(ecg: Ecg, arbitrary: bool) -> Ecg:
    length = float(np.ptp(np.asarray(ecg.t, float)))
    if not length >= _SHORTEST:
        raise InputError(
            f"the recording lasts {length:.3g} ms, expected one whole beat ({_SHORTEST:g} ms or "
            "more): record more, and check the sampling rate (--ecg-rate)."
        )
    size = float(np.nanmax(np.ptp(np.nan_to_num(np.asarray(ecg.signals)), axis=0), initial=0.0))
    if not size > 0:
        raise InputError("the ECG is flat: there is no beat to locate.")
    if arbitrary:
        return Ecg(ecg.t, np.asarray(ecg.signals) * (2.0 / size), ecg.names)
    if not _SMALLEST <= size <= _LARGEST:
        unit = "uV" if size > _LARGEST else "V"
        raise InputError(
            f"the largest lead has {size:.3g} mV from peak to peak, expected {_SMALLEST:g} to "
            f"{_LARGEST:g}: its unit seems to be {unit}; say so (--ecg-unit), or 'arbitrary'."
        )
    return ecg


def _given(ecg: Ecg, qrs: tuple[float, float], remarks: list[str]) -> VtBeat:
    t = np.asarray(ecg.t, float)
    if not t[0] <= qrs[0] < qrs[1] <= t[-1]:
        raise InputError(
            f"the QRS is said to last from {qrs[0]:g} to {qrs[1]:g} ms, but the record has "
            f"{t[0]:g} to {t[-1]:g} ms: give onset and end of one QRS within it."
        )
    remarks.append("onset and end of the QRS are as given")
    return _cut(ecg, qrs, _USUAL_NOISE, (1, 1), remarks)


def _cut(ecg: Ecg, qrs, noise: float, counts: tuple[int, int], remarks: list[str]) -> VtBeat:
    onset, offset = (float(x) for x in qrs)
    duration = offset - onset
    if not _SHORTEST <= duration <= _LONGEST:
        raise InputError(
            f"the QRS lasts {duration:.0f} ms, expected {_SHORTEST:g} to {_LONGEST:g}: check the "
            "sampling rate (--ecg-rate), or name onset and end of one (--qrs START,END)."
        )
    if duration < _WIDE:
        remarks.append(
            f"the QRS is narrow ({duration:.0f} ms): a wave that leaves scar for muscle makes a "
            f"wide one ({_WIDE:g} ms or more)"
        )
    t = np.asarray(ecg.t, float)
    kept = (t >= onset - _MARGIN) & (t <= offset + _MARGIN)
    signals = np.asarray(ecg.signals, float)[kept]
    whole = np.atleast_1d(np.isfinite(signals).all(axis=0))
    if not whole.all():
        gone = [name for name, ok in zip(ecg.names, whole, strict=True) if not ok]
        remarks.append(f"leads {', '.join(gone)} have gaps within the QRS and are left out")
    names = tuple(name for name, ok in zip(ecg.names, whole, strict=True) if ok)
    beat = Ecg(t[kept] - onset, signals[:, whole], names)
    return VtBeat(beat, duration, noise, *counts, tuple(remarks))


def _widest(ecg: Ecg, beats: Beats) -> Int[np.ndarray, "own_beat"]:
    """Beats of the shape with the widest QRS, of those that recur."""
    signals, step = independent_signals(ecg), ecg.step
    reach = round(_REACH / step)
    at = np.round((beats.r - float(ecg.t[0])) / step).astype(int)
    window = np.clip(at[:, None] + np.arange(-reach, reach + 1), 0, len(signals) - 1)
    shapes = signals[window]
    shapes = (shapes - shapes.mean(axis=1, keepdims=True)).reshape(len(at), -1)
    shapes /= np.maximum(np.linalg.norm(shapes, axis=1, keepdims=True), 1e-12)
    left, groups = np.arange(len(at)), []
    while left.size:
        alike = shapes[left] @ shapes[left].T >= _ALIKE
        own = alike[alike.sum(axis=1).argmax()]
        groups.append(left[own])
        left = left[~own]
    width = np.diff(beats.bounds, axis=1)[:, 0]
    recurring = [group for group in groups if len(group) >= _RECURS * len(at)]
    return max(recurring or groups, key=lambda group: float(np.median(width[group])))
