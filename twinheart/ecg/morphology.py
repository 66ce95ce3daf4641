"""The shape of the QRS complex: its waves, the frontal axis, R/S progression and notches."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.signal import savgol_filter

from twinheart.ecg.beats import find_beats
from twinheart.ecg.electrodes import PRECORDIAL
from twinheart.ecg.leads import Ecg
from twinheart.errors import InputError

_LEAST_WAVE = 0.02  # mV; a smaller deflection is no wave ...
_WAVE_OF_NOISE = 5.0  # ... nor one that the noise could make ...
_WAVE_OF_LARGEST = 0.02  # ... nor one below this part of the largest deflection of all leads
_NOTCH_SMOOTHING = 5.0  # ms
_SHOULDER = 0.25  # of the slopes on both sides: what is flatter is a slur


class Wave(NamedTuple):
    """A deflection of the QRS in one lead: between two crossings of the level.

    Attributes
    ----------
    peak : float
        Height above the level before the QRS, negative for Q and S [mV].
    onset, time, offset : float
        Begin, peak and end [ms].
    notches, slurs : int
        Turns beside the one peak, and stretches where a flank is nearly level.
    """

    peak: float
    onset: float
    time: float
    offset: float
    notches: int = 0
    slurs: int = 0


class QrsShape(NamedTuple):
    """The waves of the QRS in one lead.

    Attributes
    ----------
    waves : tuple of Wave
        In order of time; positive ones are R, R', ...; a negative one is Q before the first R, S
        after it, and QS where there is no R.
    j : float
        Level at the end of the QRS [mV].
    """

    waves: tuple[Wave, ...]
    j: float

    @property
    def r_waves(self) -> tuple[Wave, ...]:
        """Positive deflections in order."""
        return tuple(wave for wave in self.waves if wave.peak > 0)

    @property
    def q(self) -> Wave | None:
        """Negative deflection before the first R; None for QS complexes too."""
        first = self.waves[0] if self.waves else None
        return first if first and first.peak < 0 and self.r_waves else None

    @property
    def s_waves(self) -> tuple[Wave, ...]:
        """Negative deflections after the first R."""
        rs = self.r_waves
        return tuple(w for w in self.waves if rs and w.peak < 0 and w.time > rs[0].time)

    @property
    def name(self) -> str:
        """Waves in letters, small below 0.5 mV: ``qRs``, ``rS``, ``QS``, ``rSR'``.

        Examples
        --------
        >>> from twinheart.ecg.morphology import QrsShape, Wave
        >>> r, s = Wave(0.2, 0.0, 10.0, 20.0), Wave(-0.9, 20.0, 30.0, 50.0)
        >>> QrsShape((r, s), 0.0).name
        'rS'
        """
        if self.waves and not self.r_waves:
            return "QS"
        text, rs, ss = "", 0, 0
        for wave in self.waves:
            if wave.peak > 0:
                letter, rs = "r" + "'" * rs, rs + 1
            elif rs == 0:
                letter = "q"
            else:
                letter, ss = "s" + "'" * ss, ss + 1
            text += letter.upper() if abs(wave.peak) >= 0.5 else letter
        return text


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


def r_wave_progression(ecg: Ecg, qrs: tuple[float, float] | None = None) -> RWaveProgression:
    """R and S amplitudes across the chest.

    Parameters
    ----------
    ecg : Ecg
        With some of the leads V1 ... V6.
    qrs : (float, float), optional
        Onset and offset of the QRS [ms]; by default of the first complex that is found.

    Returns
    -------
    RWaveProgression
        Amplitudes [mV] against the level at the onset of the QRS, and the transition lead.

    Raises
    ------
    InputError
        If there is no precordial lead, or the samples are not fit for `find_beats`.

    References
    ----------
    Surawicz et al. 2009, doi:10.1161/CIRCULATIONAHA.108.191095, for the transition zone.

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
    if qrs is None:
        bounds = find_beats(ecg).bounds
        if len(bounds) == 0:
            nothing = np.full(len(names), np.nan)
            return RWaveProgression(names, nothing, nothing, None)
        qrs = (float(bounds[0, 0]), float(bounds[0, 1]))
    t = np.asarray(ecg.t, dtype=np.float64)
    signals = np.stack([np.asarray(ecg[name], dtype=np.float64) for name in names], axis=1)
    signals = signals - signals[np.searchsorted(t, qrs[0])]
    within = signals[(t >= qrs[0]) & (t <= qrs[1])]
    r, s = np.maximum(within.max(axis=0), 0.0), np.minimum(within.min(axis=0), 0.0)
    positive = np.flatnonzero((r >= -s) & (r > 0))
    return RWaveProgression(names, r, s, names[positive[0]] if positive.size else None)


def frontal_axis(ecg: Ecg, wave: tuple[float, float]) -> float:
    r"""Mean electrical axis of a wave in the frontal plane [degrees].

    With areas :math:`A` against the level at the onset and the frontal vector
    :math:`(x, y) = (A_I, (2 A_{II} - A_I) / \sqrt 3)` of Einthoven's triangle,
    the axis is :math:`\mathrm{atan2}(y, x)`: 0 to the left, +90 to the feet. For lead aVF,
    :math:`y = 2 A_{aVF} / \sqrt 3`, since Goldberger's leads are shorter than Einthoven's.

    Parameters
    ----------
    ecg : Ecg
        With any two of I, II, III, aVF.
    wave : (float, float)
        Onset and offset [ms].

    Returns
    -------
    float
        From -180 to 180; NaN where the wave is missing or its area is zero in both leads.

    Raises
    ------
    InputError
        If fewer than two of these leads are there.

    References
    ----------
    Surawicz et al. 2009, doi:10.1161/CIRCULATIONAHA.108.191095; the factor for aVF: Novosel et al.
    1999, Croat. Med. J. 40:77-79.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg, frontal_axis
    >>> t = np.arange(3.0)
    >>> ecg = Ecg(t, np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), ("I", "II"))
    >>> round(frontal_axis(ecg, (0.0, 2.0)), 6)  # along the bisector of II and III
    90.0
    """
    t = np.asarray(ecg.t, dtype=np.float64)
    inside = (t >= wave[0]) & (t <= wave[1])
    area = {}
    for name in ("I", "II", "III", "aVF"):
        if name in ecg.names:
            signal = np.asarray(ecg[name], dtype=np.float64)[inside]
            area[name] = float((signal - signal[0]).sum()) if signal.size else math.nan
    if "I" in area and "aVF" in area:
        x, y = area["I"], 2.0 * area["aVF"] / math.sqrt(3.0)
    elif "I" in area and "II" in area:
        x, y = area["I"], (2.0 * area["II"] - area["I"]) / math.sqrt(3.0)
    elif "II" in area and "III" in area:
        x, y = area["II"] - area["III"], (area["II"] + area["III"]) / math.sqrt(3.0)
    elif "I" in area and "III" in area:
        x, y = area["I"], (2.0 * area["III"] + area["I"]) / math.sqrt(3.0)
    else:
        raise InputError(
            "the frontal axis needs two of the leads I, II, III and aVF (not II or III with aVF "
            f"alone); the ECG has {', '.join(ecg.names)}."
        )
    if not (math.isfinite(x) and math.isfinite(y)) or x == y == 0.0:
        return math.nan
    return math.degrees(math.atan2(y, x))


def qrs_shapes(ecg: Ecg, qrs: tuple[float, float], *, noise: float = 0.0) -> dict[str, QrsShape]:
    """Waves and notches of the QRS in each lead.

    A wave is what lies between two crossings of the level before the QRS and reaches 20 uV, five
    times the noise, and 2 % of the largest deflection of all leads. A notch is a turn in the other
    direction of at least the same size on the flank or at the tip of a wave; a slur is a stretch
    where the slope falls below a quarter of the slopes on both sides. What has not come back by the
    end of the QRS is the displaced ST segment and no wave.

    Parameters
    ----------
    ecg : Ecg
        One beat [mV].
    qrs : (float, float)
        Onset and offset of the QRS [ms].
    noise : float
        RMS noise [mV].

    Returns
    -------
    dict
        Lead -> shape; leads with missing samples within the QRS are left out.

    References
    ----------
    Notches as in Das et al. 2006, doi:10.1161/CIRCULATIONAHA.105.595892, which gives no amplitude:
    the least sizes are ours.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg, qrs_shapes
    >>> t = np.arange(0.0, 101.0)
    >>> rs = np.sin(2 * np.pi * t / 100)
    >>> shape = qrs_shapes(Ecg(t, rs[:, None], ("V3",)), (0.0, 100.0))["V3"]
    >>> shape.name, [wave.notches for wave in shape.waves]
    ('RS', [0, 0])
    """
    t = np.asarray(ecg.t, dtype=np.float64)
    inside = np.flatnonzero((t >= qrs[0]) & (t <= qrs[1]))
    signals = np.asarray(ecg.signals, dtype=np.float64)
    if len(inside) < 5:
        return {}
    part = signals[inside] - signals[inside[0]]
    sizes = np.abs(part[:, np.isfinite(part).all(axis=0)])
    scale = float(sizes.max()) if sizes.size else 0.0
    # a simulated ECG may be small as a whole: there the 20 uV of a recorder mean nothing
    absolute = _LEAST_WAVE if noise > 0 else 0.0
    least = max(absolute, _WAVE_OF_NOISE * noise, _WAVE_OF_LARGEST * scale, 1e-12)
    shapes = {}
    for name, signal in zip(ecg.names, part.T, strict=True):
        if np.isfinite(signal).all():
            shapes[name] = QrsShape(_waves(t[inside], signal, least), float(signal[-1]))
    return shapes


def _waves(t: np.ndarray, signal: np.ndarray, least: float) -> tuple[Wave, ...]:
    sign = np.where(signal >= 0, 1, -1)
    edges = np.flatnonzero(np.diff(sign)) + 1
    waves = []
    for index in np.split(np.arange(len(signal)), edges):
        values = signal[index]
        top = int(np.abs(values).argmax())
        if abs(values[top]) < least:
            continue
        waves.append(
            Wave(
                float(values[top]),
                float(t[index[0]]),
                float(t[index[top]]),
                float(t[index[-1]]),
                _notches(values, least),
                _slurs(np.abs(values), least, float(t[1] - t[0])),
            )
        )
    return tuple(_without_st(_joined(waves), float(signal[-1]), least))


def _joined(waves: list[Wave]) -> list[Wave]:
    """Neighbours of one sign are one wave with a notch: what lay between was too small to count."""
    joined: list[Wave] = []
    for wave in waves:
        if joined and (joined[-1].peak > 0) == (wave.peak > 0):
            before = joined.pop()
            higher = max(before, wave, key=lambda w: abs(w.peak))
            notches = before.notches + wave.notches + 1
            slurs = before.slurs + wave.slurs
            wave = Wave(higher.peak, before.onset, higher.time, wave.offset, notches, slurs)
        joined.append(wave)
    return joined


def _without_st(waves: list[Wave], j: float, least: float) -> list[Wave]:
    """Drop a last wave that does not come back: it is the displaced ST segment, no R' or S'."""
    if len(waves) > 1 and abs(waves[-1].peak - j) < least and waves[-1].peak * j > 0:
        return waves[:-1]
    return waves


def _notches(values: np.ndarray, least: float) -> int:
    """Turns of at least the least size within one wave."""
    size = np.abs(values)
    # zigzag: a turn counts when the way back from the last extremum is large enough
    turns, extreme, rising = 0, size[0], True
    for value in size[1:]:
        if rising:
            if value > extreme:
                extreme = value
            elif extreme - value >= least:
                rising, extreme, turns = False, value, turns + 1
        elif value < extreme:
            extreme = value
        elif value - extreme >= least:
            rising, extreme, turns = True, value, turns + 1
    # peak, notch and peak again; a rise without a fall after it is the ST segment
    return max(0, (turns - 1) // 2)


def _slurs(size: np.ndarray, least: float, step: float) -> int:
    """Stretches on a flank where the slope falls below a quarter of that on both sides."""
    window = 2 * round(_NOTCH_SMOOTHING / step / 2) + 1
    if window < 3 or len(size) < 2 * window:
        return 0
    slope = np.asarray(savgol_filter(size, window, 2, deriv=1, delta=step))
    top = int(size.argmax())
    count = 0
    for flank in (slope[: top + 1], -slope[top:]):
        speed = np.maximum(flank, 0.0)
        for i in range(1, len(speed) - 1):
            lowest = speed[i] < speed[i - 1] and speed[i] <= speed[i + 1] and flank[i] > 0
            beside = min(speed[:i].max(), speed[i + 1 :].max())
            # both sides steep enough to make a wave of the least size within 10 ms
            count += int(lowest and speed[i] < _SHOULDER * beside and 10.0 * beside >= least)
    return count
