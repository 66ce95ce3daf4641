"""All features of an ECG in one go: what is measured, how it is defined, and where that is from."""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from twinheart.ecg.beats import AverageBeat, Beats, average_beat, find_beats
from twinheart.ecg.conduction import (
    Judgement,
    fragmented_qrs,
    lbbb_aha,
    lbbb_strauss,
    r_peak_time,
    rbbb_aha,
)
from twinheart.ecg.delineation import Delineation, delineate
from twinheart.ecg.filters import clean_ecg
from twinheart.ecg.intervals import RateVariation, qtc_bazett, qtc_fridericia, rate_variation
from twinheart.ecg.leads import Ecg
from twinheart.ecg.morphology import QrsShape, frontal_axis, qrs_shapes, r_wave_progression
from twinheart.ecg.vcg import qrs_t_angle, vectorcardiogram
from twinheart.errors import InputError

_AHA_1 = "Kligfield et al. 2007, doi:10.1161/CIRCULATIONAHA.106.180200"
_AHA_3 = "Surawicz et al. 2009, doi:10.1161/CIRCULATIONAHA.108.191095"
_AHA_4 = "Rautaharju et al. 2009, doi:10.1161/CIRCULATIONAHA.108.191096"
_HRV = "Task Force 1996, doi:10.1161/01.CIR.93.5.1043"
_TPE = "Panikkath et al. 2011, doi:10.1161/CIRCEP.110.960658"
_QTD = "Day et al. 1990, doi:10.1136/hrt.63.6.342"
_BAZETT = "Bazett 1920, doi:10.1111/j.1542-474X.1997.tb00325.x"
_FRIDERICIA = "Fridericia 1920, doi:10.1111/j.0954-6820.1920.tb18266.x"
_ANGLE = "Oehler et al. 2014, doi:10.1111/anec.12206"
_KORS = "Kors et al. 1990, doi:10.1093/oxfordjournals.eurheartj.a059647"
_DOWER = "Edenbrandt and Pahlm 1988, J. Electrocardiol. 21:361-367"
_STRAUSS = "Strauss et al. 2011, doi:10.1016/j.amjcard.2010.11.010"
_DAS = "Das et al. 2006, doi:10.1161/CIRCULATIONAHA.105.595892"


_LEAST_DURATION = 100.0  # ms


class Definition(NamedTuple):
    """What a feature is.

    Attributes
    ----------
    key : str
        Its name in results and JSON, which ends in its unit.
    text : str
        How it is defined.
    source : str
        Where the definition comes from.
    """

    key: str
    text: str
    source: str


DEFINITIONS = (
    Definition("heart_rate_bpm", "60 000 / mean normal RR interval", _HRV),
    Definition("rr_ms", "mean normal RR interval", _HRV),
    Definition("rr_min_ms", "shortest RR interval", _HRV),
    Definition("rr_max_ms", "longest RR interval", _HRV),
    Definition("sdnn_ms", "standard deviation of normal RR intervals", _HRV),
    Definition("rmssd_ms", "RMS difference of neighbouring normal RR intervals", _HRV),
    Definition("p_duration_ms", "earliest P onset to latest P offset, all leads", _AHA_1),
    Definition("pr_ms", "P onset to QRS onset, all leads", _AHA_1),
    Definition("qrs_duration_ms", "earliest QRS onset to latest offset, all leads", _AHA_3),
    Definition("qt_ms", "QRS onset to T end (tangent), latest of three leads that agree", _AHA_4),
    Definition("qtc_bazett_ms", "QT / sqrt(RR / 1 s)", _BAZETT),
    Definition("qtc_fridericia_ms", "QT / cbrt(RR / 1 s)", _FRIDERICIA),
    Definition("jt_ms", "QRS offset to T end", _AHA_4),
    Definition("jtc_ms", "QTc (Fridericia) - QRS duration", _AHA_4),
    Definition("tpe_ms", "T peak to T end by the tangent in V5, else in the largest T", _TPE),
    Definition("qt_dispersion_ms", "longest - shortest QT over the leads with a T wave", _QTD),
    Definition("axis_deg", "frontal axis of the QRS area, from I and aVF (x 2/sqrt 3)", _AHA_3),
    Definition("t_axis_deg", "frontal axis of the T area", _AHA_4),
    Definition("r_transition", "first chest lead with R >= S", _AHA_3),
    Definition("qrs_t_angle_kors_deg", "between QRS and T areas of the VCG after Kors", _KORS),
    Definition("qrs_t_angle_dower_deg", "the same by the inverse Dower matrix", _DOWER),
    Definition("qrs_t_angle_peak_deg", "between the longest QRS and T vectors, Kors", _ANGLE),
    Definition("lbbb_strauss", "left bundle branch block, strict criteria", _STRAUSS),
    Definition("lbbb_aha", "complete left bundle branch block", _AHA_3),
    Definition("rbbb_aha", "complete right bundle branch block", _AHA_3),
    Definition("fragmented_qrs", "notches or R' in two leads of a coronary territory", _DAS),
)
"""Every feature; T ends are found by the tangent (Lepeschkin and Surawicz 1952)."""


class EcgFeatures(NamedTuple):
    """Features of an ECG.

    Attributes
    ----------
    values : dict
        Key of a definition -> number, word or truth; None where it cannot be told.
    reasons : dict
        Key -> why its value is None.
    leads : tuple of dict
        One for each lead: name, shape of the QRS, amplitudes [mV], times [ms].
    notes : tuple of str
        What filtering and averaging found.
    beats : Beats
        R peaks and QRS bounds of the whole record.
    average : AverageBeat
        The beat that was measured; time zero is the R peak.
    waves : Delineation
        Its waves, on the same time axis.
    """

    values: dict[str, float | str | bool | None]
    reasons: dict[str, str]
    leads: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    beats: Beats
    average: AverageBeat
    waves: Delineation


class _Measured(NamedTuple):
    """What the features are computed from."""

    ecg: Ecg
    rate: RateVariation
    waves: Delineation
    shapes: dict[str, QrsShape]
    sex: str | None

    @property
    def qrs(self) -> float:
        return self.waves.qrs_offset - self.waves.qrs_onset

    @property
    def t_wave(self) -> tuple[float, float]:
        """T loop: the ST segment belongs to it where the T onset is not known."""
        onset, offset = self.waves.t_onset, self.waves.t_offset
        return (onset if math.isfinite(onset) else self.waves.qrs_offset, offset)


def ecg_features(ecg: Ecg, *, sex: str | None = None) -> EcgFeatures:
    """Measure an ECG: a recording of any length, or one simulated beat.

    The record is cleaned (`clean_ecg`), its beats are found (`find_beats`) and averaged
    (`average_beat`), the average is delineated (`delineate`), and every feature in `DEFINITIONS` is
    taken from it. What cannot be measured is None, and `reasons` says why.

    Parameters
    ----------
    ecg : Ecg
        Equally spaced samples [mV], at least 250 Hz; missing is NaN. Any leads.
    sex : str, optional
        ``"male"`` or ``"female"``: one criterion depends on it.

    Returns
    -------
    EcgFeatures

    Raises
    ------
    InputError
        If the samples are not equally spaced, no lead can be measured or no beat is found.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg, ecg_features
    >>> t = np.arange(0.0, 700.0)
    >>> spike = np.where(abs(t - 150) < 50, 1 + np.cos(np.pi * (t - 150) / 50), 0.0)
    >>> found = ecg_features(Ecg(t, spike[:, None], ("II",)))
    >>> round(found.values["qrs_duration_ms"]), found.values["qt_ms"]
    (100, None)
    >>> found.reasons["qt_ms"], found.reasons["axis_deg"]
    ('no T wave stands out after the QRS', 'it takes two of the leads I, II, III and aVF')
    """
    duration = float(ecg.t[-1] - ecg.t[0]) if len(ecg.t) else 0.0
    if duration < _LEAST_DURATION:
        raise InputError(
            f"the ECG lasts {duration:.0f} ms; expected at least {_LEAST_DURATION:.0f} ms, a QRS."
        )
    cleaned = clean_ecg(ecg)
    beats = find_beats(cleaned.ecg)
    if len(beats.r) == 0:
        raise InputError(
            "no QRS complex was found in the ECG; expected at least one beat: check the record, "
            "its unit and its sampling rate."
        )
    average = average_beat(cleaned.ecg, beats, cleaned.missing)
    noise = average.noise if math.isfinite(average.noise) else 0.0
    waves = delineate(average.ecg, around=0.0, noise=noise)
    rate = rate_variation(beats.r, _gaps(cleaned.ecg, cleaned.missing))
    shapes = qrs_shapes(average.ecg, waves.qrs, noise=noise)
    measured = _Measured(average.ecg, rate, waves, shapes, sex)
    values: dict[str, float | str | bool | None] = {}
    reasons: dict[str, str] = {}
    for definition in DEFINITIONS:
        value, why = _measure(definition.key, measured)
        lost = [name for name in cleaned.dropped if name in re.findall(r"\w+", why)]
        if value is None:
            said = [f"{name}: {cleaned.dropped[name]}" for name in lost]
            reasons[definition.key] = "; ".join([why, *said])
        values[definition.key] = value
    notes = [*cleaned.notes]
    if len(beats.r) > 1:
        notes.append(f"average of {average.used.sum()} of {len(beats.r)} beats")
    leads = [_lead(name, measured) for name in average.ecg.names]
    leads += [{"name": name, "left_out": reason} for name, reason in cleaned.dropped.items()]
    return EcgFeatures(values, reasons, tuple(leads), tuple(notes), beats, average, waves)


def _measure(key: str, measured: _Measured) -> tuple[float | str | bool | None, str]:
    """Value of a feature, or None and the reason."""
    computed = _COMPUTED[key](measured)
    if isinstance(computed, Judgement):
        return computed.met, computed.why
    value, why = computed
    if isinstance(value, float) and not math.isfinite(value):
        return None, why or "it cannot be measured"
    return value, why if value is None else ""


def _of_rate(field: str, least: int) -> Callable[[_Measured], tuple[float, str]]:
    why = f"it takes {least} beats or more without a gap between them"
    return lambda m: (getattr(m.rate, field), why)


def _rr(m: _Measured) -> tuple[float, str]:
    return 60_000.0 / m.rate.rate, "it takes 2 beats or more without a gap between them"


def _p_duration(m: _Measured) -> tuple[float, str]:
    return m.waves.p_offset - m.waves.p_onset, m.waves.reasons.get("P", "")


def _pr(m: _Measured) -> tuple[float, str]:
    return m.waves.qrs_onset - m.waves.p_onset, m.waves.reasons.get("P", "")


def _qrs(m: _Measured) -> tuple[float, str]:
    return m.qrs, m.waves.reasons.get("QRS", "")


def _qt(m: _Measured) -> tuple[float, str]:
    return m.waves.qt, m.waves.reasons.get("T", "")


def _jt(m: _Measured) -> tuple[float, str]:
    return m.waves.t_offset - m.waves.qrs_offset, m.waves.reasons.get("T", "")


def _corrected(
    formula: Callable[[float, float], float], *, minus_qrs: bool = False
) -> Callable[[_Measured], tuple[float, str]]:
    def corrected(m: _Measured) -> tuple[float, str]:
        rr, why = _rr(m)
        qt = formula(m.waves.qt, rr)
        return (qt - m.qrs if minus_qrs else qt), m.waves.reasons.get("T", why)

    return corrected


def _tpe(m: _Measured) -> tuple[float, str]:
    ends, peaks = m.waves.t_offsets, m.waves.t_peaks
    if "V5" in ends:
        return ends["V5"] - peaks["V5"], ""
    return m.waves.t_offset - m.waves.t_peak, m.waves.reasons.get("T", "")


def _qt_dispersion(m: _Measured) -> tuple[float, str]:
    ends = list(m.waves.t_offsets.values())
    if len(ends) < 3:
        return math.nan, f"the T wave can be measured in {len(ends)} leads; it takes 3 or more"
    return max(ends) - min(ends), ""


def _axis(wave: str) -> Callable[[_Measured], tuple[float, str]]:
    def axis(m: _Measured) -> tuple[float, str]:
        try:
            value = frontal_axis(m.ecg, m.waves.qrs if wave == "QRS" else m.t_wave)
        except InputError:
            return math.nan, "it takes two of the leads I, II, III and aVF"
        return value, m.waves.reasons.get(wave, "")

    return axis


def _transition(m: _Measured) -> tuple[str | None, str]:
    try:
        table = r_wave_progression(m.ecg, m.waves.qrs)
    except InputError:
        return None, "there is no precordial lead"
    absent = [f"V{i}" for i in range(1, 7) if f"V{i}" not in table.names]
    why = f"lead {', '.join(absent)} is missing" if absent else "S is larger than R up to V6"
    return (None if absent else table.transition), why


def _angle(method: str, kind: str = "mean") -> Callable[[_Measured], tuple[float, str]]:
    def angle(m: _Measured) -> tuple[float, str]:
        try:
            vcg = np.asarray(vectorcardiogram(m.ecg, method))
        except InputError as error:
            return math.nan, str(error).rstrip(".")
        t = np.asarray(m.ecg.t, dtype=np.float64)
        vcg = vcg - vcg[np.searchsorted(t, m.waves.qrs_onset)]
        return qrs_t_angle(t, vcg, m.waves.qrs, m.t_wave, kind=kind), m.waves.reasons.get("T", "")

    return angle


_COMPUTED: dict[str, Callable[[_Measured], Any]] = {
    "heart_rate_bpm": _of_rate("rate", 2),
    "rr_ms": _rr,
    "rr_min_ms": _of_rate("shortest", 2),
    "rr_max_ms": _of_rate("longest", 2),
    "sdnn_ms": _of_rate("sdnn", 3),
    "rmssd_ms": _of_rate("rmssd", 3),
    "p_duration_ms": _p_duration,
    "pr_ms": _pr,
    "qrs_duration_ms": _qrs,
    "qt_ms": _qt,
    "qtc_bazett_ms": _corrected(qtc_bazett),
    "qtc_fridericia_ms": _corrected(qtc_fridericia),
    "jt_ms": _jt,
    "jtc_ms": _corrected(qtc_fridericia, minus_qrs=True),
    "tpe_ms": _tpe,
    "qt_dispersion_ms": _qt_dispersion,
    "axis_deg": _axis("QRS"),
    "t_axis_deg": _axis("T"),
    "r_transition": _transition,
    "qrs_t_angle_kors_deg": _angle("kors"),
    "qrs_t_angle_dower_deg": _angle("dower"),
    "qrs_t_angle_peak_deg": _angle("kors", "peak"),
    "lbbb_strauss": lambda m: lbbb_strauss(m.shapes, m.qrs, sex=m.sex),
    "lbbb_aha": lambda m: lbbb_aha(m.shapes, m.qrs),
    "rbbb_aha": lambda m: rbbb_aha(m.shapes, m.qrs),
    "fragmented_qrs": lambda m: fragmented_qrs(m.shapes, m.qrs)[1],
}


def _lead(name: str, m: _Measured) -> dict[str, Any]:
    """Row of the table of leads."""
    shape = m.shapes.get(name)
    if shape is None:
        return {"name": name, "left_out": "samples are missing within the QRS"}
    t = np.asarray(m.ecg.t, dtype=np.float64)
    signal = np.asarray(m.ecg[name], dtype=np.float64)
    signal = signal - signal[np.searchsorted(t, m.waves.qrs_onset)]
    t_peak = m.waves.t_peaks.get(name, math.nan)
    s = min((w.peak for w in shape.waves if w.peak < 0 and w is not shape.q), default=0.0)
    return {
        "name": name,
        "qrs": shape.name,
        "q_mv": shape.q.peak if shape.q else 0.0,
        "r_mv": max((w.peak for w in shape.r_waves), default=0.0),
        "s_mv": s,
        "j_mv": shape.j,
        "st60_mv": _at(t, signal, m.waves.qrs_offset + 60.0),
        "t_mv": _at(t, signal, t_peak),
        "r_peak_time_ms": r_peak_time(shape),
        "notches": sum(w.notches for w in shape.waves),
        "qt_ms": m.waves.t_offsets.get(name, math.nan) - m.waves.qrs_onset,
    }


def _at(t: np.ndarray, signal: np.ndarray, time: float) -> float:
    return float(np.interp(time, t, signal, left=np.nan, right=np.nan))


def _gaps(ecg: Ecg, missing: np.ndarray) -> np.ndarray:
    """Begin and end [ms] of the stretches in which no lead has a sample."""
    silent = np.concatenate([[False], missing.all(axis=1), [False]]).astype(int)
    t = np.asarray(ecg.t, dtype=np.float64)
    starts = np.flatnonzero(np.diff(silent) == 1)
    stops = np.flatnonzero(np.diff(silent) == -1) - 1
    return np.stack([t[starts], t[stops]], axis=1) if len(starts) else np.zeros((0, 2))
