"""The vectorcardiogram from the 12-lead ECG: inverse Dower and Kors, and the QRS-T angle."""

import numpy as np
from jaxtyping import Float

from twinheart.ecg.electrodes import PRECORDIAL
from twinheart.ecg.leads import Ecg
from twinheart.errors import InputError
from twinheart.types import Array

INDEPENDENT = (*PRECORDIAL, "I", "II")  # the order of the columns below

# Frank's axes: X to the left, Y to the feet, Z to the back. Rows X, Y, Z.
_INVERSE_DOWER = np.array(
    [
        [-0.172, -0.074, 0.122, 0.231, 0.239, 0.194, 0.156, -0.010],
        [0.057, -0.019, -0.106, -0.022, 0.041, 0.048, -0.227, 0.887],
        [-0.229, -0.310, -0.246, -0.063, 0.055, 0.108, 0.022, 0.102],
    ]
)
_KORS = np.array(
    [
        [-0.13, 0.05, -0.01, 0.14, 0.06, 0.54, 0.38, -0.07],
        [0.06, -0.02, -0.05, 0.06, -0.17, 0.13, -0.07, 0.93],
        [-0.43, -0.06, -0.14, -0.20, -0.11, 0.31, 0.11, -0.23],
    ]
)
MATRICES = {"dower": _INVERSE_DOWER, "kors": _KORS}


def vectorcardiogram(ecg: Ecg, method: str = "kors") -> Float[Array, "time 3"]:
    r"""Frank's X, Y, Z from the eight independent leads of the 12-lead ECG.

    :math:`(X, Y, Z)^T = M (V_1, ..., V_6, I, II)^T`, linear and the same for every patient.

    Parameters
    ----------
    ecg : Ecg
        With the leads I, II and V1 ... V6 [mV].
    method : str
        ``"kors"``: regression to measured Frank leads; ``"dower"``: the least-squares inverse of
        Dower's synthesis of the ECG from Frank's leads.

    Returns
    -------
    (time, 3) array
        X (to the left), Y (to the feet), Z (to the back) [mV]. Differentiable.

    Raises
    ------
    InputError
        If a lead is missing or the method is unknown.

    References
    ----------
    Kors et al. 1990, doi:10.1093/oxfordjournals.eurheartj.a059647; Edenbrandt and Pahlm 1988,
    J. Electrocardiol. 21:361-367, the inverse of Dower et al. 1980, doi:10.1002/clc.4960030202.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg, vectorcardiogram
    >>> names = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
    >>> signals = np.zeros((2, 8))
    >>> signals[1, 0] = 1.0  # lead I alone
    >>> vectorcardiogram(Ecg(np.arange(2.0), signals, names), "dower")[1]
    array([ 0.156, -0.227,  0.022])
    """
    if method not in MATRICES:
        raise InputError(f"VCG method '{method}' is unknown; expected {' or '.join(MATRICES)}.")
    absent = [name for name in INDEPENDENT if name not in ecg.names]
    if absent:
        raise InputError(
            f"a vectorcardiogram needs I, II and V1 ... V6; the ECG lacks {', '.join(absent)}."
        )
    columns = np.array([ecg.names.index(name) for name in INDEPENDENT])
    return ecg.signals[:, columns] @ MATRICES[method].T


def angle_between(one: Float[np.ndarray, "3"], other: Float[np.ndarray, "3"]) -> float:
    """Angle between two vectors [degrees], NaN where one of them is zero.

    Parameters
    ----------
    one, other : (3,) array
        Vectors of any length.

    Returns
    -------
    float
        From 0 to 180 degrees.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg.vcg import angle_between
    >>> round(angle_between(np.array([2.0, 0.0, 0.0]), np.array([0.0, 0.0, -1.0])), 6)
    90.0
    """
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    if not np.isfinite(lengths) or lengths == 0.0:
        return float("nan")
    return float(np.degrees(np.arccos(np.clip(np.dot(one, other) / lengths, -1.0, 1.0))))


def qrs_t_angle(
    t: Float[np.ndarray, "time"],
    vcg: Float[np.ndarray, "time 3"],
    qrs: tuple[float, float],
    t_wave: tuple[float, float],
    *,
    kind: str = "mean",
) -> float:
    r"""Spatial angle between the QRS and the T vector [degrees].

    Parameters
    ----------
    t : (time,) array
        Times [ms].
    vcg : (time, 3) array
        X, Y, Z [mV] against the level before the QRS.
    qrs : (float, float)
        Onset and offset of the QRS [ms].
    t_wave : (float, float)
        Begin and end of the T wave [ms]: from the J point where its onset is not known.
    kind : str
        ``"mean"``: between the areas :math:`\int V dt` of both loops; ``"peak"``: between their
        longest vectors.

    Returns
    -------
    float
        From 0 (T follows the QRS) to 180; NaN where a wave is missing.

    References
    ----------
    Oehler et al. 2014, doi:10.1111/anec.12206; Kardys et al. 2003,
    doi:10.1016/S0195-668X(03)00203-3.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg.vcg import qrs_t_angle
    >>> t = np.arange(6.0)
    >>> vcg = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 2, 0], [0, 0, 0.0]])
    >>> round(qrs_t_angle(t, vcg, (0.0, 2.0), (3.0, 5.0)), 6)
    90.0
    """
    if kind not in ("mean", "peak"):
        raise InputError(f"QRS-T angle '{kind}' is unknown; expected mean or peak.")
    vectors = []
    for start, stop in (qrs, t_wave):
        part = vcg[(t >= start) & (t <= stop)]
        if not (np.isfinite(start) and np.isfinite(stop)) or len(part) == 0:
            return float("nan")
        longest = part[np.linalg.norm(part, axis=1).argmax()]
        vectors.append(part.sum(axis=0) if kind == "mean" else longest)
    return angle_between(*vectors)
