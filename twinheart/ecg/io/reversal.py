"""Which electrodes may have been interchanged.

Eight independent leads hold more than the heart's dipole needs, so each lead can be told from the
others; where the leads fit each other much better with two electrodes exchanged, those are
suspected (Kors and van Herpen 2001, Am. J. Cardiol. 88:396-399). The leads are told from each
other through Dower's matrix (doi:10.1002/clc.4960030202). An exchange of left arm and left leg
changes too little to be told without an earlier ECG (Batchvarov et al. 2007,
doi:10.1093/europace/eum198) and is not looked for.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from twinheart.ecg.vcg import MATRICES

_LEADS = ("V1", "V2", "V3", "V4", "V5", "V6", "I", "II")
# How much better (1 - mean correlation) the leads must fit, and the neighbours be alike, before
# anything is said. On correct recordings the gain stays below 0.02. They must also fit well then:
# 0.09 to 0.27 on people; simulated torsos reach 0.6 and more in any order, and nothing is said.
_LIMB_GAIN = 0.15
_CHEST_GAIN = 0.05
_FIT = 0.3
_ALIKE = 0.95
_AGAINST = -0.5  # correlation of I and V6, which look at the heart from one side
_NO_VOLTAGE = 0.1  # of the largest limb lead: right leg and another leg or arm exchanged
# Where the cables of right arm, left arm and left leg may really be
_ARMS = (1, 0, 2)
_LIMB_ORDERS = {
    _ARMS: "right arm / left arm",
    (2, 1, 0): "right arm / left leg",
    (1, 2, 0): "all three in turn",
    (2, 0, 1): "all three in turn",
}
_BAND = (0.7, 40.0)  # Hz


def suspected_reversals(names: Sequence[str], signals: np.ndarray, step: float) -> list[str]:
    """Sentences on electrodes that seem interchanged.

    Parameters
    ----------
    names : sequence of str
        Leads.
    signals : (time, lead) array
        Voltages [mV].
    step : float
        Sampling interval [ms].

    Returns
    -------
    list of str
        None for leads in order, or where there are too few to tell.
    """
    wanted = [name for name in (*_LEADS, "III", "aVR") if name in names]
    leads = signals[:, [list(names).index(name) for name in wanted]]
    leads = leads[np.isfinite(leads).all(axis=1)]
    if len(leads) * step < 1000.0:
        return []
    column = dict(zip(wanted, _filtered(leads, step).T, strict=True))
    found = _right_leg(column)
    if found:
        return found  # with no voltage in a limb lead nothing else can be told
    if set(_LEADS) <= set(column):
        return _misfit(np.column_stack([column[name] for name in _LEADS]))
    if {"I", "aVR"} <= set(column) and _sign(column["I"]) < 0 < _sign(column["aVR"]):
        return [_arms("lead I is negative and aVR positive")]
    return []


def _filtered(leads: np.ndarray, step: float) -> np.ndarray:
    frequency = np.fft.rfftfreq(len(leads), step / 1e3)
    kept = (frequency > _BAND[0]) & (frequency < _BAND[1])
    return np.fft.irfft(np.fft.rfft(leads, axis=0) * kept[:, None], len(leads), axis=0)


def _right_leg(column: dict[str, np.ndarray]) -> list[str]:
    """Both legs at the ends of one limb lead leave it almost without voltage."""
    if not {"I", "II"} <= set(column):
        return []
    one, two = column["I"], column["II"]
    size = {"I": np.std(one), "II": np.std(two), "III": np.std(two - one)}
    largest = max(size.values())
    exchanged = {"I": "both arms with both legs", "II": "right arm with right leg"}
    exchanged["III"] = "left arm with right leg"
    return [
        f"lead {lead} has hardly any voltage: electrodes may be interchanged ({exchanged[lead]})"
        for lead, value in size.items()
        if largest > 0 and value < _NO_VOLTAGE * largest
    ]


def _misfit(leads: np.ndarray) -> list[str]:
    """The one exchange after which the leads fit each other best, if they do so much better.

    Exchanges are linear, so that the covariance of the leads is all that is needed.
    """
    if np.any(np.std(leads, axis=0) == 0):
        return []
    covariance = leads.T @ leads / len(leads)
    recorded = _unlikeness(covariance)
    others = {order: _changed(covariance, _limb_exchange(order)) for order in _LIMB_ORDERS}
    gains = {order: recorded - _unlikeness(other) for order, other in others.items()}
    best = max(gains, key=gains.__getitem__)
    found = []
    if gains[best] >= _LIMB_GAIN and recorded - gains[best] <= _FIT:
        if best == _ARMS:
            found.append(_arms("lead I does not go with V5 and V6"))
        else:
            found.append(f"limb electrodes may be interchanged ({_LIMB_ORDERS[best]})")
        covariance = others[best]
        recorded = _unlikeness(covariance)
    elif _correlation(covariance, 5, 6) <= _AGAINST and _sign(leads[:, 6]) < 0:
        found.append(_arms("lead I is negative and goes against V6"))
    chest = {}
    for a, b in combinations(range(6), 2):
        exchange = np.eye(len(_LEADS))
        exchange[[a, b]] = exchange[[b, a]]
        other = _changed(covariance, exchange)
        if _unevenness(other) <= _ALIKE * _unevenness(covariance):
            chest[f"{_LEADS[a]} and {_LEADS[b]}"] = recorded - _unlikeness(other)
    best = max(chest, key=chest.__getitem__, default="")
    if best and chest[best] >= _CHEST_GAIN and recorded - chest[best] <= _FIT:
        found.append(f"electrodes {best} may be interchanged")
    return found


def _changed(covariance: np.ndarray, exchange: np.ndarray) -> np.ndarray:
    """Covariance of ``exchange @ leads``."""
    return exchange @ covariance @ exchange.T


def _limb_exchange(order: tuple[int, int, int]) -> np.ndarray:
    """Leads from leads, with right arm, left arm and left leg taken in another order."""
    potentials = np.array([[-1.0, -1.0], [2.0, -1.0], [-1.0, 2.0]]) / 3  # of I and II
    right, left, leg = potentials[list(order)]
    exchange = np.eye(len(_LEADS))
    exchange[6, 6:], exchange[7, 6:] = left - right, leg - right
    return exchange


def _arms(why: str) -> str:
    return (
        f"{why}: right and left arm electrodes may be interchanged (or the heart lies on the right)"
    )


def _correlation(covariance: np.ndarray, n: int, m: int) -> float:
    return covariance[n, m] / np.sqrt(covariance[n, n] * covariance[m, m])


def _unlikeness(covariance: np.ndarray) -> float:
    """1 - mean correlation of each lead with what the seven others tell of it."""
    dower = np.linalg.pinv(MATRICES["dower"])  # leads from the vectorcardiogram
    total = 0.0
    for n in range(len(_LEADS)):
        others = [m for m in range(len(_LEADS)) if m != n]
        weights = np.zeros(len(_LEADS))
        weights[others] = dower[n] @ np.linalg.pinv(dower[others])
        product = np.sqrt(weights @ covariance @ weights * covariance[n, n])
        total += weights @ covariance[n] / product
    return 1.0 - total / len(_LEADS)


def _unevenness(covariance: np.ndarray) -> float:
    """Length of the way from V1 to V6: neighbours on the chest are alike."""
    squares = np.diag(covariance)
    steps = squares[1:6] + squares[:5] - 2 * np.diag(covariance, 1)[:5]
    return float(np.sqrt(np.maximum(steps, 0.0)).sum())


def _sign(lead: np.ndarray) -> float:
    """Positive if the lead reaches farther up than down."""
    high, low = np.percentile(lead, [99.5, 0.5])
    return high + low
