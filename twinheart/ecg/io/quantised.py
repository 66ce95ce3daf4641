"""Voltages as 16-bit integers, for the formats that store them so."""

import numpy as np

from twinheart.ecg.leads import Ecg
from twinheart.errors import InputError

MISSING = -(2**15)
_LARGEST = 2**15 - 1
_UNITS_PER_MV = 2000.0


def quantised(ecg: Ecg) -> tuple[np.ndarray, np.ndarray]:
    """Round an ECG to 16-bit integers; the resolution is 0.5 uV, doubled until a lead fits.

    Parameters
    ----------
    ecg : Ecg
        Leads [mV]; missing is NaN.

    Returns
    -------
    samples : (time, lead) array
        Integers; -32768 where missing.
    units_per_mv : (lead,) array
        2000, 1000, 500 ...: exact in a few decimals.

    Raises
    ------
    InputError
        If no sample is finite or the samples are not equally spaced.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg
    >>> from twinheart.ecg.io.quantised import quantised
    >>> quantised(Ecg(np.arange(2.0), np.array([[0.1], [-0.25]]), ("I",)))[0].ravel()
    array([ 200, -500], dtype=int16)
    """
    signals = np.asarray(ecg.signals, dtype=np.float64)
    finite = np.isfinite(signals)
    if not finite.any():
        raise InputError("the ECG has no finite sample; there is nothing to write.")
    ecg.step  # noqa: B018 - raises unless the samples are equally spaced
    plain = np.where(finite, signals, 0.0)
    peak = np.maximum(np.abs(plain).max(axis=0), 1e-9)
    doublings = np.maximum(0, np.ceil(np.log2(peak * _UNITS_PER_MV / _LARGEST)))
    units = _UNITS_PER_MV / 2.0**doublings
    samples = np.where(finite, np.rint(plain * units), MISSING)
    return samples.astype(np.int16), units


def plain_number(value: float) -> str:
    """Shortest decimal of a number that needs no more than 15 digits.

    Parameters
    ----------
    value : float
        A rate, a gain.

    Returns
    -------
    str
        Without trailing zeros.

    Examples
    --------
    >>> from twinheart.ecg.io.quantised import plain_number
    >>> plain_number(500.0)
    '500'
    """
    return f"{value:.15g}"
