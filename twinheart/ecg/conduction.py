"""Criteria of disturbed conduction: bundle branch block and the fragmented QRS."""

from typing import NamedTuple

from twinheart.ecg.morphology import QrsShape, Wave
from twinheart.errors import InputError

_WIDE = 120.0  # ms
_STRAUSS = {"male": 140.0, "female": 130.0}  # ms
_R_PEAK_TIME = {"left": 60.0, "right": 50.0}  # ms; longer is late
_WIDE_S = 40.0  # ms
_TERRITORIES = {
    "anterior": ("V1", "V2", "V3", "V4", "V5"),
    "lateral": ("I", "aVL", "V6"),
    "inferior": ("II", "III", "aVF"),
}


class Judgement(NamedTuple):
    """Whether a criterion is met.

    Attributes
    ----------
    met : bool or None
        None where it cannot be told.
    why : str
        Which part fails, or what is missing; empty where it is met.
    """

    met: bool | None
    why: str


def lbbb_strauss(
    shapes: dict[str, QrsShape], qrs_duration: float, *, sex: str | None = None
) -> Judgement:
    """Strict left bundle branch block after Strauss, Selvester and Wagner.

    QRS of 140 ms or more in men and 130 ms or more in women; QS or rS in V1 and V2; notches or
    slurs in at least two of V1, V2, V5, V6, I and aVL.

    Parameters
    ----------
    shapes : dict
        QRS of each lead, from `qrs_shapes`.
    qrs_duration : float
        Over all leads [ms].
    sex : str, optional
        ``"male"`` or ``"female"``; without it, nothing is said between 130 and 140 ms.

    Returns
    -------
    Judgement

    Raises
    ------
    InputError
        If `sex` is another word.

    References
    ----------
    Strauss et al. 2011, doi:10.1016/j.amjcard.2010.11.010.

    Examples
    --------
    >>> from twinheart.ecg import lbbb_strauss
    >>> lbbb_strauss({}, 90.0).why
    'QRS of 90 ms is shorter than 130 ms'
    """
    if sex is not None and sex not in _STRAUSS:
        raise InputError(f"sex '{sex}' is unknown; expected {' or '.join(_STRAUSS)}, or none.")
    least = _STRAUSS[sex] if sex else min(_STRAUSS.values())
    if not qrs_duration >= least:
        return _short(qrs_duration, least)
    absent = [name for name in ("V1", "V2") if name not in shapes]
    if absent:
        return Judgement(None, f"lead {', '.join(absent)} is missing")
    for name in ("V1", "V2"):
        if shapes[name].name.lower() not in ("qs", "rs"):
            return Judgement(False, f"{name} is {shapes[name].name or 'flat'}, neither QS nor rS")
        r = shapes[name].r_waves
        if r and r[0].peak > 0.5 * max(-s.peak for s in shapes[name].s_waves):
            return Judgement(False, f"the R wave of {name} is large")
    leads = ("V1", "V2", "V5", "V6", "I", "aVL")
    notched = [n for n in leads if n in shapes and any(map(_uneven, shapes[n].waves))]
    absent = [name for name in leads if name not in shapes]
    if len(notched) < 2:
        if absent:
            return Judgement(None, f"lead {', '.join(absent)} is missing")
        return Judgement(False, f"notches in {len(notched)} of {', '.join(leads)}; expected 2")
    if sex is None and qrs_duration < max(_STRAUSS.values()):
        return Judgement(None, f"QRS of {qrs_duration:.0f} ms: wide in women, not in men")
    return Judgement(True, "")


def lbbb_aha(shapes: dict[str, QrsShape], qrs_duration: float) -> Judgement:
    """Complete left bundle branch block after AHA/ACCF/HRS 2009.

    QRS of 120 ms or more; broad notched or slurred R in I, aVL, V5 and V6 (an RS in V5 and V6 where
    the transition is displaced); no q in I, V5 and V6; R peak time above 60 ms in V5 and V6 but
    normal in V1 to V3 where they have an r. The directions of ST and T, which the statement calls
    usual, are not asked for. Notches in at least one of I and aVL and one of V5 and V6 suffice.

    Parameters
    ----------
    shapes : dict
        QRS of each lead, from `qrs_shapes`.
    qrs_duration : float
        Over all leads [ms].

    Returns
    -------
    Judgement

    References
    ----------
    Surawicz et al. 2009, doi:10.1161/CIRCULATIONAHA.108.191095.

    Examples
    --------
    >>> from twinheart.ecg import lbbb_aha
    >>> lbbb_aha({}, 130.0)
    Judgement(met=None, why='lead I, aVL, V5, V6 is missing')
    """
    if not qrs_duration >= _WIDE:
        return _short(qrs_duration, _WIDE)
    absent = [name for name in ("I", "aVL", "V5", "V6") if name not in shapes]
    if absent:
        return Judgement(None, f"lead {', '.join(absent)} is missing")
    for name in ("I", "aVL", "V5", "V6"):
        if not shapes[name].r_waves or (not _positive(shapes[name]) and name in ("I", "aVL")):
            return Judgement(False, f"{name} is {shapes[name].name or 'flat'}, without a broad R")
    for name in ("I", "V5", "V6"):
        if shapes[name].q is not None:
            return Judgement(False, f"{name} begins with a q wave")
    for pair in (("I", "aVL"), ("V5", "V6")):
        if not any(_uneven(wave) for name in pair for wave in shapes[name].r_waves):
            return Judgement(False, f"the R waves of {' and '.join(pair)} have no notch or slur")
    for name in ("V5", "V6"):
        if r_peak_time(shapes[name]) <= _R_PEAK_TIME["left"]:
            return Judgement(False, f"R peak time of {name} is 60 ms or less")
    for name in ("V1", "V2", "V3"):
        shape = shapes.get(name)
        if shape and shape.r_waves and r_peak_time(shape) > _R_PEAK_TIME["left"]:
            return Judgement(False, f"R peak time of {name} is above 60 ms")
    return Judgement(True, "")


def rbbb_aha(shapes: dict[str, QrsShape], qrs_duration: float) -> Judgement:
    """Complete right bundle branch block after AHA/ACCF/HRS 2009.

    QRS of 120 ms or more; rsr', rsR' or rSR' in V1 or V2, or a wide, notched R there; an S longer
    than the R, or than 40 ms, in I and V6; where V1 has a single R, its peak after 50 ms while
    V5 and V6 are normal.

    Parameters
    ----------
    shapes : dict
        QRS of each lead, from `qrs_shapes`.
    qrs_duration : float
        Over all leads [ms].

    Returns
    -------
    Judgement

    References
    ----------
    Surawicz et al. 2009, doi:10.1161/CIRCULATIONAHA.108.191095.

    Examples
    --------
    >>> from twinheart.ecg import rbbb_aha
    >>> rbbb_aha({}, 100.0)
    Judgement(met=False, why='QRS of 100 ms is shorter than 120 ms')
    """
    if not qrs_duration >= _WIDE:
        return _short(qrs_duration, _WIDE)
    absent = [name for name in ("V1", "V2", "I", "V6") if name not in shapes]
    if absent:
        return Judgement(None, f"lead {', '.join(absent)} is missing")
    doubled = [name for name in ("V1", "V2") if len(shapes[name].r_waves) > 1]
    single = [
        name
        for name in ("V1", "V2")
        if len(shapes[name].r_waves) == 1 and _positive(shapes[name])
        if r_peak_time(shapes[name]) > _R_PEAK_TIME["right"] or _uneven(shapes[name].r_waves[0])
    ]
    if not doubled and not single:
        shown = ", ".join(f"{name} {shapes[name].name or 'flat'}" for name in ("V1", "V2"))
        return Judgement(False, f"no R' and no late R in V1 or V2 ({shown})")
    for name in ("I", "V6"):
        shape = shapes[name]
        if not shape.s_waves:
            return Judgement(False, f"{name} is {shape.name or 'flat'}, without an S wave")
        longest_s = max(wave.offset - wave.onset for wave in shape.s_waves)
        longest_r = max(wave.offset - wave.onset for wave in shape.r_waves)
        if longest_s <= min(_WIDE_S, longest_r):
            return Judgement(False, f"the S wave of {name} lasts {longest_s:.0f} ms only")
    return Judgement(True, "")


def fragmented_qrs(shapes: dict[str, QrsShape], qrs_duration: float) -> tuple[list[str], Judgement]:
    """Leads with a fragmented QRS, and whether two of one coronary territory have one.

    Narrow QRS: an R', or a notch on the R or S wave. QRS of 120 ms or more: more than two such
    notches or R' in a lead.

    Parameters
    ----------
    shapes : dict
        QRS of each lead, from `qrs_shapes`.
    qrs_duration : float
        Over all leads [ms].

    Returns
    -------
    leads : list of str
        Fragmented leads.
    judgement : Judgement
        Met where two contiguous leads of a territory are (anterior V1-V5, lateral I, aVL and V6,
        inferior II, III and aVF).

    References
    ----------
    Das et al. 2006, doi:10.1161/CIRCULATIONAHA.105.595892; wide QRS: Das et al. 2008,
    doi:10.1161/CIRCEP.107.763284.

    Examples
    --------
    >>> from twinheart.ecg import fragmented_qrs
    >>> from twinheart.ecg.morphology import QrsShape, Wave
    >>> notched = QrsShape((Wave(1.0, 0.0, 30.0, 60.0, notches=1),), 0.0)
    >>> fragmented_qrs({"II": notched, "aVF": notched}, 80.0)
    (['II', 'aVF'], Judgement(met=True, why=''))
    """
    if not shapes:
        return [], Judgement(None, "no lead has a QRS complex")
    most = 2 if qrs_duration >= _WIDE else 0
    leads = [
        name
        for name, shape in shapes.items()
        if sum(wave.notches for wave in shape.waves) + max(0, len(shape.r_waves) - 1) > most
    ]
    for territory in _TERRITORIES.values():
        if sum(name in leads for name in territory) >= 2:
            return leads, Judgement(True, "")
    return leads, Judgement(False, "fewer than two leads of any coronary territory are fragmented")


def r_peak_time(shape: QrsShape) -> float:
    """From the onset of the QRS to its largest R wave [ms]: the intrinsicoid deflection.

    Examples
    --------
    >>> from twinheart.ecg.conduction import r_peak_time
    >>> from twinheart.ecg.morphology import QrsShape, Wave
    >>> r_peak_time(QrsShape((Wave(-0.2, 0.0, 8.0, 12.0), Wave(1.0, 12.0, 45.0, 70.0)), 0.0))
    45.0
    """
    if not shape.r_waves:
        return float("nan")
    return max(shape.r_waves, key=lambda wave: wave.peak).time - shape.waves[0].onset


def _uneven(wave: Wave) -> bool:
    return wave.notches + wave.slurs > 0


def _positive(shape: QrsShape) -> bool:
    """Whether the R wave is the larger part of the complex."""
    return max(w.peak for w in shape.waves) >= -min(w.peak for w in shape.waves)


def _short(qrs_duration: float, least: float) -> Judgement:
    if qrs_duration != qrs_duration:  # NaN
        return Judgement(None, "the QRS duration is not known")
    return Judgement(False, f"QRS of {qrs_duration:.0f} ms is shorter than {least:.0f} ms")
