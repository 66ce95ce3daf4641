"""Cleaning a recorded ECG: baseline wander, muscle noise, mains hum, bad channels and gaps."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import uniform_filter1d
from scipy.signal import butter, sosfiltfilt

from twinheart.ecg.leads import Ecg
from twinheart.errors import InputError

_HIGH_PASS, _LOW_PASS = 0.5, 150.0  # Hz
_LEAST_LENGTH = 4000.0  # ms: two periods of the high-pass; a shorter record keeps its baseline
_MAINS = (50.0, 60.0)  # Hz
_MAINS_DRIFT = 1.0  # Hz
_HUM_RATIO = 20.0  # times the spectrum beside it; noise alone exceeds 12 once in a million bins
_HUM_BLOCK = 5000.0  # ms
_CALM = 3.0  # times the median size of what is as fast as hum: more is QRS
_LEAST_FINITE = 0.5  # of the samples of a lead
_CLIPPED = 20.0  # ms at the rail; a smooth peak bends by then
_BEND = 8.0  # quantisation steps; a parabola falls by 4 or less where a clipped wave falls by more


class CleanEcg(NamedTuple):
    """A filtered ECG without holes, and what was done to it.

    Attributes
    ----------
    ecg : Ecg
        Leads that can be measured [mV]; gaps bridged by straight lines.
    missing : (time, lead) array
        True where a sample was bridged.
    dropped : dict
        Lead -> why it cannot be measured.
    notes : tuple of str
        What was found and done, in sentences.
    """

    ecg: Ecg
    missing: Bool[np.ndarray, "time lead"]
    dropped: dict[str, str]
    notes: tuple[str, ...]


def clean_ecg(ecg: Ecg) -> CleanEcg:
    """Drop bad channels, bridge gaps and filter what is left, without shifting a wave.

    Channels without signal, with less than half of their samples or clipped at a rail are dropped.
    Then: mains hum where the spectrum shows it, baseline wander (records of 4 s and more), and
    noise above 150 Hz.

    Parameters
    ----------
    ecg : Ecg
        Equally spaced samples [mV]; missing is NaN.

    Returns
    -------
    CleanEcg
        The measurable leads, and what was done.

    Raises
    ------
    InputError
        If the samples are not equally spaced or no lead can be measured.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg
    >>> from twinheart.ecg.filters import clean_ecg
    >>> t = np.arange(5000.0)
    >>> wave = np.sin(t / 20) ** 9
    >>> signals = np.stack([wave, np.where(t < 3000, np.nan, wave)], axis=1)
    >>> cleaned = clean_ecg(Ecg(t, signals, ("I", "II")))
    >>> cleaned.ecg.names, cleaned.dropped
    (('I',), {'II': '60 % of its samples are missing'})
    """
    step = ecg.step
    t = np.asarray(ecg.t, dtype=np.float64)
    signals = np.asarray(ecg.signals, dtype=np.float64)
    dropped = {
        name: reason
        for name, signal in zip(ecg.names, signals.T, strict=True)
        if (reason := _unfit(signal, step))
    }
    names = tuple(name for name in ecg.names if name not in dropped)
    if not names:
        lead, reason = next(iter(dropped.items()), ("?", "there is none"))
        raise InputError(
            f"no lead of the ECG can be measured ({lead}: {reason}); expected at least one lead "
            "with a signal."
        )
    signals = signals[:, [ecg.names.index(name) for name in names]]
    missing = ~np.isfinite(signals)
    notes = [f"lead {name} left out: {reason}" for name, reason in dropped.items()]
    if missing.any():
        parts = zip(names, missing.mean(axis=0), strict=True)
        gaps = [f"{name} {100 * part:.2g} %" for name, part in parts if part > 0]
        notes.append(f"gaps bridged: {', '.join(gaps)} of the samples")
        signals = np.stack([_bridged(t, column) for column in signals.T], axis=1)
    filled = Ecg(t, signals, names)
    for frequency in mains_hum(filled):
        filled = notch(filled, frequency)
        notes.append(f"hum of {frequency:.1f} Hz removed")
    if t[-1] - t[0] >= _LEAST_LENGTH:
        filled = remove_baseline(filled)
    if 500.0 / step > 1.2 * _LOW_PASS and len(t) > 100:
        filled = low_pass(filled)
    return CleanEcg(filled, missing, dropped, tuple(notes))


def remove_baseline(ecg: Ecg, cutoff_hz: float = _HIGH_PASS) -> Ecg:
    r"""Remove baseline wander by a zero-phase high-pass that leaves ST segments as they are.

    A third-order Butterworth filter runs forwards and backwards:
    :math:`|H|^2 = 1 / (1 + (f_c/f)^6)`, without phase shift. Distortion of ST segments comes from
    the phase of one-way filters, which is why those have to go down to 0.05 Hz.

    Parameters
    ----------
    ecg : Ecg
        Equally spaced finite samples [mV], at least 4 s.
    cutoff_hz : float
        Frequency of half power [Hz]; up to 0.67 Hz is accepted for filters of zero phase.

    Returns
    -------
    Ecg
        The same leads with their mean level at zero.

    References
    ----------
    Kligfield et al. 2007, doi:10.1161/CIRCULATIONAHA.106.180200 (low-frequency cut-off).

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg
    >>> from twinheart.ecg.filters import remove_baseline
    >>> t = np.arange(10000.0)
    >>> breathing = 0.5 * np.sin(2 * np.pi * 0.2 * t / 1000)
    >>> kept = remove_baseline(Ecg(t, breathing[:, None], ("II",)))["II"]
    >>> bool(abs(kept[2000:-2000]).max() < 0.02)
    True
    """
    sections = butter(3, cutoff_hz, "highpass", fs=1000.0 / ecg.step, output="sos")
    return _filtered(ecg, np.asarray(sections), cutoff_hz)


def low_pass(ecg: Ecg, cutoff_hz: float = _LOW_PASS) -> Ecg:
    """Remove what lies above the frequencies of an adult's ECG, without phase shift.

    Parameters
    ----------
    ecg : Ecg
        Equally spaced finite samples [mV].
    cutoff_hz : float
        Frequency of half power [Hz] of a second-order Butterworth filter run both ways.

    Returns
    -------
    Ecg
        The same leads.

    References
    ----------
    Kligfield et al. 2007, doi:10.1161/CIRCULATIONAHA.106.180200 (150 Hz for adults).

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg
    >>> from twinheart.ecg.filters import low_pass
    >>> t = np.arange(1000.0)
    >>> hiss = np.sin(2 * np.pi * 400 * t / 1000)[:, None]
    >>> bool(abs(np.asarray(low_pass(Ecg(t, hiss, ("I",))).signals)[100:-100]).max() < 0.02)
    True
    """
    sections = butter(2, cutoff_hz, fs=1000.0 / ecg.step, output="sos")
    return _filtered(ecg, np.asarray(sections), cutoff_hz)


def mains_hum(ecg: Ecg) -> tuple[float, ...]:
    """Frequencies of mains hum, found as narrow peaks of the spectrum within 1 Hz of 50 and 60 Hz.

    Parameters
    ----------
    ecg : Ecg
        Equally spaced finite samples [mV]; at least 2 s, or none is found.

    Returns
    -------
    tuple of float
        Frequencies [Hz] whose power is 20 times that of the spectrum 2 to 6 Hz beside them, in the
        sum over the leads, and twice each where that stands out too.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg
    >>> from twinheart.ecg.filters import mains_hum
    >>> t = np.arange(8000.0)
    >>> noise = np.random.default_rng(0).normal(scale=0.01, size=(8000, 1))
    >>> hum = 0.05 * np.sin(2 * np.pi * 50.2 * t / 1000)[:, None]
    >>> mains_hum(Ecg(t, noise, ("I",)))
    ()
    >>> [round(f, 1) for f in mains_hum(Ecg(t, noise + hum, ("I",)))]
    [50.2]
    """
    signals = np.asarray(ecg.signals, dtype=np.float64)
    step = ecg.step
    if len(signals) * step < 2000.0:
        return ()
    window = np.hanning(len(signals))[:, None]
    power = (np.abs(np.fft.rfft(window * (signals - signals.mean(axis=0)), axis=0)) ** 2).sum(1)
    frequency = np.fft.rfftfreq(len(signals), step / 1000.0)
    found = []
    for mains in _MAINS:
        peak = _peak(frequency, power, mains, _MAINS_DRIFT)
        if peak is None:
            continue
        found.append(peak)
        harmonic = _peak(frequency, power, 2 * peak, 0.3)
        found += [harmonic] if harmonic is not None else []
    return tuple(found)


def notch(ecg: Ecg, frequency_hz: float) -> Ecg:
    r"""Take hum of one frequency out, without ringing and without loss at the ends.

    In blocks of 5 s, :math:`(a_0 + a_1 t + a_2 t^2) \cos \omega t + (b_0 + b_1 t + b_2 t^2)
    \sin \omega t` is fitted to what remains of each lead after the mean over one period of the hum
    is subtracted, and taken away; blocks overlap by half. Samples of QRS complexes are left out of
    the fit. A filter of the same width, about 0.6 Hz, would ring after each QRS.

    Parameters
    ----------
    ecg : Ecg
        Equally spaced finite samples [mV], at least 1 s.
    frequency_hz : float
        Frequency [Hz], below half the sampling rate.

    Returns
    -------
    Ecg
        The same leads.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg
    >>> from twinheart.ecg.filters import notch
    >>> t = np.arange(8000.0)
    >>> hum = np.sin(2 * np.pi * 60 * t / 1000)[:, None]
    >>> bool(abs(np.asarray(notch(Ecg(t, hum, ("I",)), 60.0).signals)).max() < 0.03)
    True
    """
    step = ecg.step
    signals = np.asarray(ecg.signals, dtype=np.float64)
    fast = signals - uniform_filter1d(signals, max(2, round(1000.0 / frequency_hz / step)), axis=0)
    size = np.sqrt((fast**2).mean(axis=1))
    calm = size <= _CALM * np.median(size)
    block = min(len(signals), round(_HUM_BLOCK / step))
    starts = np.arange(0, max(1, len(signals) - block // 2), max(1, block // 2))
    hum, total = np.zeros_like(signals), np.zeros(len(signals))
    for start in np.minimum(starts, len(signals) - block):
        part = slice(start, start + block)
        x = np.linspace(-1.0, 1.0, block)
        phase = 2 * np.pi * frequency_hz * np.arange(block) * step / 1000.0
        basis = np.stack([x**n * f(phase) for n in range(3) for f in (np.cos, np.sin)], axis=1)
        fitted, *_ = np.linalg.lstsq(basis[calm[part]], fast[part][calm[part]], rcond=None)
        weight = 1.001 - np.abs(x)
        hum[part] += weight[:, None] * (basis @ fitted)
        total[part] += weight
    return Ecg(ecg.t, signals - hum / total[:, None], ecg.names)


def _filtered(ecg: Ecg, sections: np.ndarray, cutoff_hz: float) -> Ecg:
    # one period of the cut-off is mirrored at the ends, so that the filter has settled by then
    pad = min(len(ecg.t) - 1, max(30, round(1000.0 / cutoff_hz / ecg.step)))
    signals = np.asarray(ecg.signals, dtype=np.float64)
    return Ecg(ecg.t, sosfiltfilt(sections, signals, axis=0, padlen=pad), ecg.names)


def _unfit(signal: Float[np.ndarray, "time"], step: float) -> str:
    """Why a lead cannot be measured; empty where it can."""
    finite = np.isfinite(signal)
    if finite.mean() < _LEAST_FINITE:
        return f"{100 * (1 - finite.mean()):.0f} % of its samples are missing"
    values = signal[finite]
    # float32 leads of a resting heart are flat to rounding, not exactly
    if np.ptp(values) <= 1e-6 * max(float(np.abs(values).max()), 1e-9):
        return "it is flat"
    clipped = _clipped_time(signal, step)
    if clipped > 0:
        return f"it is saturated for {clipped:.0f} ms"
    return ""


def _clipped_time(signal: Float[np.ndarray, "time"], step: float) -> float:
    """Time [ms] that a lead spends clipped at its largest or smallest value."""
    finite = signal[np.isfinite(signal)]
    middle, span = np.median(finite), np.ptp(finite)
    steps = np.diff(np.unique(finite))
    quantum = float(steps.min()) if steps.size else 0.0
    total = 0.0
    for rail in (finite.max(), finite.min()):
        if abs(rail - middle) < 0.3 * span:
            continue  # the level at rest, not a rail
        inside = np.concatenate([[False], signal == rail, [False]])
        starts = np.flatnonzero(np.diff(inside.astype(int)) == 1)
        stops = np.flatnonzero(np.diff(inside.astype(int)) == -1)
        for start, stop in zip(starts, stops, strict=True):
            width = int(stop - start)
            if width * step < _CLIPPED:
                continue
            beside = [start - width // 2, stop - 1 + width // 2]
            beside = [i for i in beside if 0 <= i < len(signal) and np.isfinite(signal[i])]
            fall = max((abs(signal[i] - rail) for i in beside), default=np.inf)
            total += width * step if fall > _BEND * quantum else 0.0
    return total


def _bridged(t: Float[np.ndarray, "time"], signal: Float[np.ndarray, "time"]) -> np.ndarray:
    finite = np.isfinite(signal)
    return np.interp(t, t[finite], signal[finite])


def _peak(frequency: np.ndarray, power: np.ndarray, around: float, within: float) -> float | None:
    """Frequency of the peak near `around` that stands out of the spectrum beside it."""
    near = np.flatnonzero(np.abs(frequency - around) <= within)
    if near.size == 0 or around + 6.0 > frequency[-1]:
        return None
    top = int(near[power[near].argmax()])
    distance = np.abs(frequency - frequency[top])
    beside = (distance >= 2.0) & (distance <= 6.0)
    if power[top] <= _HUM_RATIO * power[beside].mean():
        return None
    # centre of gravity of the three bins of the main lobe
    lobe = slice(max(top - 1, 0), top + 2)
    return float((frequency[lobe] * power[lobe]).sum() / power[lobe].sum())
