"""Intervals corrected for the heart rate, and how the rate varies."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_EARLY = 0.2  # of the median RR: intervals farther off belong to no sinus beat or to a missed one


class RateVariation(NamedTuple):
    """Heart rate and its variation over a record.

    Attributes
    ----------
    rate : float
        60 000 / mean RR of the normal intervals [1/min].
    sdnn, rmssd : float
        Standard deviation of the normal intervals, and RMS of the differences of neighbours [ms].
    shortest, longest : float
        Of all RR intervals [ms].
    """

    rate: float
    sdnn: float
    rmssd: float
    shortest: float
    longest: float


def qtc_bazett(qt: float, rr: float) -> float:
    r"""QT corrected for the rate after Bazett: :math:`QT / \sqrt{RR / 1 s}` [ms].

    Parameters
    ----------
    qt, rr : float
        QT and RR interval [ms].

    Returns
    -------
    float
        Equals QT at 60 beats a minute; over-corrects fast rhythms.

    References
    ----------
    Bazett 1920, Heart 7:353-370, reprinted doi:10.1111/j.1542-474X.1997.tb00325.x.

    Examples
    --------
    >>> from twinheart.ecg import qtc_bazett
    >>> round(qtc_bazett(360.0, 640.0), 6)
    450.0
    """
    return qt / (rr / 1000.0) ** 0.5


def qtc_fridericia(qt: float, rr: float) -> float:
    r"""QT corrected for the rate after Fridericia: :math:`QT / (RR / 1 s)^{1/3}` [ms].

    Parameters
    ----------
    qt, rr : float
        QT and RR interval [ms].

    Returns
    -------
    float
        Equals QT at 60 beats a minute.

    References
    ----------
    Fridericia 1920, doi:10.1111/j.0954-6820.1920.tb18266.x.

    Examples
    --------
    >>> from twinheart.ecg import qtc_fridericia
    >>> round(qtc_fridericia(360.0, 512.0), 6)
    450.0
    """
    return qt / (rr / 1000.0) ** (1.0 / 3.0)


def rate_variation(
    r: Float[np.ndarray, "beat"], gaps: Float[np.ndarray, "gap 2"] | None = None
) -> RateVariation:
    """Heart rate and its variation from the R peaks.

    Intervals that differ from the median by more than 20 %, or that a gap of the record falls
    into, are no normal intervals: they enter neither the rate nor its variation.

    Parameters
    ----------
    r : (beat,) array
        Times of the R peaks [ms].
    gaps : (gap, 2) array, optional
        Begin and end of stretches without signal [ms].

    Returns
    -------
    RateVariation
        NaN where there are too few beats: two for a rate, three for a variation.

    References
    ----------
    Task Force 1996, doi:10.1161/01.CIR.93.5.1043.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import rate_variation
    >>> rate_variation(np.array([0.0, 790.0, 1600.0, 2400.0])).rate
    75.0
    """
    rr = np.diff(r)
    seen = np.ones(len(rr), dtype=bool)
    for start, stop in np.zeros((0, 2)) if gaps is None else gaps:
        seen &= (r[1:] <= start) | (r[:-1] >= stop)
    if not seen.any():
        return RateVariation(*[float("nan")] * 5)
    shortest, longest = float(rr[seen].min()), float(rr[seen].max())
    normal = seen & (np.abs(rr - np.median(rr[seen])) <= _EARLY * np.median(rr[seen]))
    normal = normal if normal.any() else seen
    rate = 60_000.0 / float(rr[normal].mean())
    neighbours = np.flatnonzero(normal[1:] & normal[:-1])
    sdnn = float(rr[normal].std(ddof=1)) if normal.sum() > 1 else float("nan")
    steps = rr[neighbours + 1] - rr[neighbours]
    rmssd = float(np.sqrt((steps**2).mean())) if len(steps) else float("nan")
    return RateVariation(rate, sdnn, rmssd, shortest, longest)
