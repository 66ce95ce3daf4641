"""What is suspicious about a recording: gaps, flat and clipped leads, hum, gain, swapped leads.

Nothing is changed here; every suspicion becomes one sentence.
"""

from collections.abc import Iterable

import numpy as np

from twinheart.ecg.io.reversal import suspected_reversals
from twinheart.ecg.leads import LEADS, Ecg

_SHORTEST_BEAT = 200.0  # ms; shorter than any beat from QRS to T
_A_BEAT = 1000.0  # ms; a QRS should be in there
_LEAST_RATE = 100.0  # Hz; below, no QRS can be measured (125 Hz bandwidth is asked for)
_FLAT = 5e-3  # mV, peak to peak: the least significant bit of most devices
_FLAT_SHARE = 0.05  # of the largest lead: a whole recording of small numbers has a wrong gain
_STILL = 1000.0  # ms without any change: no living lead
_STILL_SHARE = 0.05
_CLIPPED = 5e-4  # share of the samples at the limit
_HUM = 0.02  # mV; a fifth of a small square on paper
_HUM_RATIO = 30.0  # power of the line against its surroundings
_HUM_WINDOW = 2.0  # s
_PEAK_TO_PEAK = (0.1, 20.0)  # mV, of the largest lead: outside, the gain is in doubt
_INSPECTED = 60.0  # s from the beginning, for what needs a spectrum or a correlation


def suspicions(ecg: Ecg, *, calibrated: bool = True, derived: Iterable[str] = ()) -> list[str]:
    """Sentences on what looks wrong; none for a clean 12-lead recording.

    Parameters
    ----------
    ecg : Ecg
        Leads [mV].
    calibrated : bool
        Whether amplitudes mean anything (False for arbitrary units).
    derived : names
        Leads that were derived from others: they say nothing new.

    Returns
    -------
    list of str
        One sentence each.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg
    >>> from twinheart.ecg.io.quality import suspicions
    >>> t = np.arange(0.0, 2000.0, 2.0)
    >>> suspicions(Ecg(t, np.zeros((1000, 1)), ("V1",)))[-1]
    'V1 is flat'
    """
    t, signals = np.asarray(ecg.t, dtype=np.float64), np.asarray(ecg.signals, dtype=np.float64)
    recorded = [n for n, name in enumerate(ecg.names) if name not in set(derived)]
    names, own = [ecg.names[n] for n in recorded], signals[:, recorded]
    step = float(np.median(np.diff(t))) if len(t) > 1 else 1.0
    found = _extent(ecg, step)
    found += _gaps(names, own, step)
    there = [n for n in range(len(names)) if np.isfinite(own[:, n]).any()]
    names, own = [names[n] for n in there], own[:, there]
    with np.errstate(all="ignore"):  # numbers of any size come from files
        return found + _about_leads(names, own, step, calibrated, len(t) * step)


def _about_leads(
    names: list[str], own: np.ndarray, step: float, calibrated: bool, length: float
) -> list[str]:
    found = []
    flat = _flat(names, own)
    part = slice(0, int(_INSPECTED * 1e3 / step))
    reversals = suspected_reversals(names, own[part], step)
    live = [n for n, name in enumerate(names) if name not in flat]
    names, own = [names[n] for n in live], own[:, live]
    if flat:
        found.append(f"{', '.join(flat)} {_are(flat)} flat")
    found += _still(names, own, step)
    found += _clipped(names, own)
    found += _copies(names, own)
    if calibrated and length >= _A_BEAT:
        found += _gain(own)
    if calibrated and names:
        found += _hum(names, own[part], step) + _einthoven(names, own[part])
    return found + reversals


def _extent(ecg: Ecg, step: float) -> list[str]:
    found = []
    length = float(ecg.t[-1] - ecg.t[0]) if len(ecg.t) else 0.0
    if length < _SHORTEST_BEAT:
        found.append(f"the recording lasts {length:.3g} ms, less than a heart beat")
    if step > 1e3 / _LEAST_RATE:
        found.append(f"{1e3 / step:.3g} samples a second are too few to measure a QRS")
    missing = [lead for lead in LEADS if lead not in ecg.names]
    if missing:
        there = len(LEADS) - len(missing)
        found.append(f"{there} of the 12 standard leads are there; {', '.join(missing)} missing")
    return found


def _gaps(names: list[str], signals: np.ndarray, step: float) -> list[str]:
    said: dict[str, list[str]] = {}
    for name, x in zip(names, signals.T, strict=True):
        gone = np.isnan(x)
        if gone.any():
            starts, stops = _runs(gone)
            longest = (stops - starts).max() * step
            text = f"{100 * gone.mean():.2g} % missing in {len(starts)} gaps, the longest "
            said.setdefault(f"{text}{longest:.3g} ms", []).append(name)
    return [f"{', '.join(leads)}: {text}" for text, leads in said.items()]


def _flat(names: list[str], signals: np.ndarray) -> list[str]:
    """Leads that span next to nothing, in mV and against the others."""
    ranges = np.array([_range(x) for x in signals.T])
    largest = np.nanmax(ranges, initial=0.0)
    return [
        name
        for name, span in zip(names, ranges, strict=True)
        if span == 0.0 or span < min(_FLAT, _FLAT_SHARE * largest)
    ]


def _still(names: list[str], signals: np.ndarray, step: float) -> list[str]:
    found = []
    for name, x in zip(names, signals.T, strict=True):
        starts, stops = _runs(np.diff(x) == 0)
        long = (stops - starts) * step >= _STILL
        share = (stops - starts)[long].sum() / max(len(x), 1)
        if share > _STILL_SHARE:
            found.append(f"{name} stands still for {100 * share:.0f} % of the time")
    return found


def _clipped(names: list[str], signals: np.ndarray) -> list[str]:
    """Leads that stay at their largest or smallest value and leave it in a jump."""
    said = []
    for name, x in zip(names, signals.T, strict=True):
        steps = np.abs(np.diff(x))
        digit = np.min(steps[steps > 0], initial=np.inf)
        for limit in (np.nanmax(x), np.nanmin(x)):
            starts, stops = _runs(x == limit)
            wide = stops - starts >= 3
            if not wide.any():
                continue
            edges = np.concatenate([starts[wide] - 1, stops[wide] - 1])
            edges = edges[(edges >= 0) & (edges < len(steps))]
            jump = np.nanmedian(steps[edges]) if np.isfinite(steps[edges]).any() else 0.0
            # A smooth top is left by the smallest step there is; a clipped one is left steeply.
            if jump >= 3 * digit and (stops - starts)[wide].sum() >= max(6, _CLIPPED * len(x)):
                said.append(f"{name} (at {limit:.3g} mV)")
                break
    return [f"{', '.join(said)} {_are(said)} clipped: the amplifier was saturated"] if said else []


def _copies(names: list[str], signals: np.ndarray) -> list[str]:
    found = []
    for n, name in enumerate(names):
        for m in range(n):
            if np.array_equal(signals[:, n], signals[:, m], equal_nan=True):
                found.append(f"{names[m]} and {name} are identical: one may be a copy")
    return found


def _gain(signals: np.ndarray) -> list[str]:
    """Whether the largest lead has the amplitude of a body-surface ECG."""
    ranges = [_range(x) for x in signals.T]
    largest = max((r for r in ranges if np.isfinite(r)), default=np.nan)
    low, high = _PEAK_TO_PEAK
    if not np.isfinite(largest) or low <= largest <= high:
        return []
    factor, right = (1e-3, "uV") if largest > high else (1e3, "mV")
    wrong = "mV" if largest > high else "uV"
    text = f"the largest lead spans {largest:.3g} mV, which no body-surface ECG does"
    if low <= largest * factor <= high:
        text += f": values in {right} may have been taken for {wrong}; give unit='{right}'"
    return [text]


def _hum(names: list[str], signals: np.ndarray, step: float) -> list[str]:
    window = round(_HUM_WINDOW * 1e3 / step)
    said: dict[float, list[str]] = {}
    for name, x in zip(names, signals.T, strict=True):
        pieces = _pieces(x, window)
        if pieces is None:
            continue
        taper = np.hanning(window)
        power = np.abs(np.fft.rfft(pieces * taper, axis=1)) ** 2
        power = np.median(power, axis=0) * (2.0 / taper.sum()) ** 2  # squared amplitude
        frequency = np.fft.rfftfreq(window, step / 1e3)
        for mains in (50.0, 60.0):
            if frequency[-1] < mains + 6.0:
                continue
            line = np.abs(frequency - mains) <= 0.5
            around = (np.abs(frequency - mains) <= 5.0) & (np.abs(frequency - mains) > 1.0)
            amplitude = float(np.sqrt(power[line].max()))
            if amplitude >= _HUM and amplitude**2 > _HUM_RATIO * np.median(power[around]):
                said.setdefault(mains, []).append(f"{name} ({amplitude:.2g} mV)")
    return [f"mains hum of {mains:.0f} Hz in {', '.join(leads)}" for mains, leads in said.items()]


def _pieces(x: np.ndarray, window: int) -> np.ndarray | None:
    """Half-overlapping windows without a gap, or None."""
    if len(x) < window or window < 8:
        return None
    pieces = np.lib.stride_tricks.sliding_window_view(x, window)[:: window // 2]
    pieces = pieces[np.isfinite(pieces).all(axis=1)]
    return pieces - pieces.mean(axis=1, keepdims=True) if len(pieces) else None


def _einthoven(names: list[str], signals: np.ndarray) -> list[str]:
    """Whether recorded limb leads obey II = I + III and aVR + aVL + aVF = 0."""
    found = []
    for trio, signs, law in (
        (("I", "II", "III"), (1.0, -1.0, 1.0), "II = I + III"),
        (("aVR", "aVL", "aVF"), (1.0, 1.0, 1.0), "aVR + aVL + aVF = 0"),
    ):
        if not set(trio) <= set(names):
            continue
        leads = signals[:, [names.index(name) for name in trio]]
        leads = leads[np.isfinite(leads).all(axis=1)]
        if len(leads) < 2:
            continue
        leads = leads - leads.mean(axis=0)
        rest, size = np.std(leads @ np.array(signs)), np.std(leads, axis=0).max()
        if rest > max(0.02, 0.15 * size):
            found.append(
                f"{', '.join(trio)} do not obey {law} (by {rest:.2g} mV): a lead is mislabelled or "
                "they were not recorded together"
            )
    return found


def _range(x: np.ndarray) -> float:
    """Peak to peak without the one sample in a thousand that is most extreme [mV]."""
    finite = x[np.isfinite(x)]
    if finite.size == 0:
        return np.nan
    if finite.size < 1000:
        return float(np.ptp(finite))
    low, high = np.percentile(finite, [0.05, 99.95])
    return float(high - low)


def _runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and one past the last index of every run of True."""
    edges = np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
