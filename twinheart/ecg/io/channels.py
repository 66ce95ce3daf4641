"""From the channels of a file to an ECG in mV: units, names, groups that follow each other."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from twinheart.ecg.io.names import distinct_names
from twinheart.ecg.leads import LEADS, Ecg
from twinheart.errors import InputError, UnitError
from twinheart.units import VOLTAGE_UNITS_MV, voltage_factor

MAX_SAMPLES = 100_000_000
ARBITRARY = "arbitrary"
_SAME_RATE = 1e-6  # relative
# Leads in terms of I and II (Einthoven 1913, Goldberger 1942)
_LIMB = {
    **{"I": (1.0, 0.0), "II": (0.0, 1.0), "III": (-1.0, 1.0)},
    **{"aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)},
}


@dataclass(frozen=True)
class Channels:
    """Channels sampled together, as a file holds them.

    Parameters
    ----------
    labels : sequence of str
        Names in the file.
    values : (time, channel) array
        In the units of `units`.
    units : sequence of str
        One a channel; empty where the file states none.
    rate_hz : float or None
        Samples a second [Hz]; None where the file states none.
    offset_ms : float
        Time of the first sample.
    t_ms : (time,) array or None
        Times [ms] where they are stored one by one.
    """

    labels: Sequence[str]
    values: np.ndarray
    units: Sequence[str]
    rate_hz: float | None
    offset_ms: float = 0.0
    t_ms: np.ndarray | None = None


@dataclass(frozen=True)
class Contents:
    """What a reader found in a file, before anything is decided.

    Parameters
    ----------
    format : str
        Name of the format.
    rhythm : list of Channels
        The recording; several if leads were recorded one after the other.
    beats : list of Channels
        Averaged beat.
    identifiers : dict
        Person and place.
    notes : list of str
        What the reader had to decide.
    """

    format: str
    rhythm: list[Channels]
    beats: list[Channels] = field(default_factory=list)
    identifiers: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def ecg_of(
    groups: Sequence[Channels], *, rate_hz: float | None = None, unit: str | None = None
) -> tuple[Ecg, list[str], list[str]]:
    """Put the channels of a file together in mV, drop what is no voltage, derive missing leads.

    Parameters
    ----------
    groups : sequence of Channels
        Recorded together or one after the other.
    rate_hz : float, optional
        Sampling rate [Hz] instead of what the file says.
    unit : str, optional
        Unit of all channels instead of what the file says: V, mV, uV, nV or arbitrary.

    Returns
    -------
    ecg : Ecg
        Leads [mV], the standard ones first; NaN where a lead was not recorded.
    notes : list of str
        What was decided.
    derived : list of str
        Leads that were not recorded but derived.

    Raises
    ------
    InputError
        If there is no sample or no voltage, or rate or unit is neither stated nor given.
    """
    notes: list[str] = []
    converted = [_in_millivolts(group, unit, notes) for group in groups]
    kept = [group for group in converted if np.isfinite(group.values).any()]
    if not kept:
        raise InputError("holds no ECG sample: its length is zero or no channel is a voltage.")
    kept = [_timed(group, rate_hz, notes) for group in kept]
    kept = _of_one_rate(kept, notes)
    t, values, labels = _joined(kept)
    names, more = distinct_names(labels)
    recorded = len(names)
    names, values, said = _derived(names, values)
    order = sorted(range(len(names)), key=lambda n: (_rank(names[n]), n))
    ecg = Ecg(t, values[:, order], [names[n] for n in order])
    return ecg, list(dict.fromkeys(notes + more + said)), names[recorded:]


def _in_millivolts(group: Channels, unit: str | None, notes: list[str]) -> Channels:
    keep: list[int] = []
    factors: list[float] = []
    for n, stated in enumerate(group.units):
        if unit is not None and stated and unit != stated and not _same_unit(unit, stated):
            notes.append(f"unit {unit} as told, although the file says {stated[:12]}")
        chosen = unit or stated
        if not chosen:
            raise InputError(
                "states no unit of its voltages: give it, as in unit='uV' (V, mV, uV, nV or "
                "arbitrary)."
            )
        if chosen.strip().lower() == ARBITRARY:
            notes.append("voltages are in arbitrary units: amplitudes mean nothing")
            factor = 1.0
        else:
            try:
                factor = voltage_factor(chosen)
            except UnitError:
                if unit is not None:
                    raise InputError(
                        f"unknown unit '{unit[:20]}'; expected one of "
                        f"{', '.join(VOLTAGE_UNITS_MV)}, {ARBITRARY}."
                    ) from None
                notes.append(
                    f"channel {str(group.labels[n])[:20]} in {stated[:12]} is no voltage and was "
                    "left out"
                )
                continue
        keep.append(n)
        factors.append(factor)
    values = np.asarray(group.values, dtype=np.float64)[:, keep] * np.array(factors)
    values[~np.isfinite(values)] = np.nan
    labels = [group.labels[n] for n in keep]
    return Channels(labels, values, ["mV"] * len(keep), group.rate_hz, group.offset_ms, group.t_ms)


def _same_unit(one: str, other: str) -> bool:
    try:
        return voltage_factor(one) == voltage_factor(other)
    except UnitError:
        return False


def _timed(group: Channels, rate_hz: float | None, notes: list[str]) -> Channels:
    rate = group.rate_hz if rate_hz is None else rate_hz
    if rate is None and group.t_ms is None:
        raise InputError("states no sampling rate: give it, as in rate_hz=500.")
    if rate is not None and not (np.isfinite(rate) and 0 < rate < 1e6):
        raise InputError(f"a sampling rate of {rate:g} Hz is not possible; give rate_hz.")
    stated = group.rate_hz
    if stated is None and group.t_ms is not None and len(group.t_ms) > 1:
        stated = 1e3 / float(np.median(np.diff(group.t_ms)))
    if rate_hz is not None and stated is not None and abs(stated - rate_hz) > 1e-3 * rate_hz:
        notes.append(f"sampled at {rate_hz:g} Hz as told, although the file says {stated:g} Hz")
    t = group.t_ms if rate_hz is None else None
    offset = group.offset_ms
    if t is None and group.t_ms is not None and len(group.t_ms):
        offset = float(group.t_ms[0])
    return Channels(group.labels, group.values, group.units, rate, offset, t)


def _of_one_rate(groups: list[Channels], notes: list[str]) -> list[Channels]:
    """The groups at the rate that most leads have; others are left out, and that is said."""
    if len(groups) == 1:
        return groups

    def same(one: Channels, other: Channels) -> bool:
        if one.rate_hz is None or other.rate_hz is None:
            return one is other
        return abs(one.rate_hz - other.rate_hz) <= _SAME_RATE * one.rate_hz

    def size(group: Channels) -> tuple[int, int]:
        alike = [g for g in groups if same(group, g)]
        return sum(len(g.labels) for g in alike), sum(len(g.values) for g in alike)

    best = max(groups, key=size)
    for group in groups:
        if not same(best, group):
            notes.append(
                f"{len(group.labels)} channels at {group.rate_hz or 0:g} Hz were left out; the "
                f"others are at {best.rate_hz or 0:g} Hz"
            )
    return [group for group in groups if same(best, group)]


def _joined(groups: list[Channels]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Times, values and labels; groups lie at their offsets, NaN where nothing was recorded."""
    first = groups[0]
    if len(groups) == 1 and first.t_ms is not None:
        return np.asarray(first.t_ms, dtype=np.float64), first.values, list(first.labels)
    rate = float(first.rate_hz or 0.0)
    if len(groups) == 1:
        t = first.offset_ms + np.arange(len(first.values)) * (1e3 / rate)
        return t, first.values, list(first.labels)
    start = min(group.offset_ms for group in groups)
    rows = [round((group.offset_ms - start) * rate / 1e3) for group in groups]
    labels: list[str] = []
    columns: list[list[int]] = []
    taken: dict[int, list[tuple[int, int]]] = {}
    for row, group in zip(rows, groups, strict=True):
        span, mine = (row, row + len(group.values)), []
        for label in group.labels:
            free = [
                n
                for n, known in enumerate(labels)
                if known == label
                and n not in mine
                and all(span[1] <= a or b <= span[0] for a, b in taken[n])
            ]
            column = free[0] if free else len(labels)
            if not free:
                labels.append(label)
            taken.setdefault(column, []).append(span)
            mine.append(column)
        columns.append(mine)
    length = max(row + len(group.values) for row, group in zip(rows, groups, strict=True))
    if length * len(labels) > MAX_SAMPLES:
        raise InputError(
            f"its parts span {length} samples of {len(labels)} leads, more than can be held; "
            "split the file."
        )
    values = np.full((length, len(labels)), np.nan)
    for row, mine, group in zip(rows, columns, groups, strict=True):
        values[row : row + len(group.values), mine] = group.values
    return start + np.arange(length) * (1e3 / rate), values, labels


def _derived(names: list[str], values: np.ndarray) -> tuple[list[str], np.ndarray, list[str]]:
    """Turn -aVR, then add the limb leads that two others determine."""
    columns = [values[:, n] for n in range(values.shape[1])]
    notes = []
    for n, name in enumerate(names):
        if name.startswith("-") and name[1:] in LEADS and name[1:] not in names:
            names = [*names[:n], name[1:], *names[n + 1 :]]
            columns[n] = -columns[n]
            notes.append(f"lead {name} was turned into {name[1:]}")
    known = [name for name in _LIMB if name in names]
    missing = [name for name in _LIMB if name not in names]
    if len(known) >= 2 and missing:
        one, two = known[:2]
        basis = np.array([_LIMB[one], _LIMB[two]])
        for name in missing:
            a, b = np.linalg.solve(basis.T, np.array(_LIMB[name]))
            columns.append(a * columns[names.index(one)] + b * columns[names.index(two)])
        names = [*names, *missing]
        law = "Einthoven" if set(missing) <= {"I", "II", "III"} else "Einthoven, Goldberger"
        verb = "was" if len(missing) == 1 else "were"
        notes.append(f"{', '.join(missing)} {verb} derived from {one} and {two} ({law})")
    return names, np.column_stack(columns), notes


def _rank(name: str) -> int:
    return list(LEADS).index(name) if name in LEADS else len(LEADS)
