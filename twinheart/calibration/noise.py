r"""Noise of an ECG, taken from the rest between T wave and P wave.

The covariance between leads is shrunk towards independent leads of the same size, the more the
fewer samples there are, and the correlation in time is that of a first-order process,
:math:`e^{-|t| / \tau}`.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from twinheart.ecg import Ecg
from twinheart.ecg.delineation import Delineation

_NO_P, _BEFORE_P, _AFTER_T = 220.0, 10.0, 40.0  # ms before the QRS and P wave, after the T wave
_PIECE, _ENOUGH = 40.0, 100.0  # ms: least length of a piece of rest, and of all of it
_LEAST = 0.003  # mV: digitisation
_LONGEST = 20.0  # ms: what is slower is baseline


class RestingNoise(NamedTuple):
    """Noise of the leads of a beat.

    Attributes
    ----------
    names : tuple of str
        Leads.
    covariance : (lead, lead) array
        Between them [mV^2].
    time : float
        Over which the noise is correlated [ms].
    """

    names: tuple[str, ...]
    covariance: Float[np.ndarray, "lead lead2"]
    time: float

    def of(self, names: tuple[str, ...]) -> Float[np.ndarray, "_ _"]:
        """Covariance of some of the leads [mV^2]."""
        chosen = [self.names.index(name) for name in names]
        return self.covariance[np.ix_(chosen, chosen)]


def resting_noise(ecg: Ecg, waves: Delineation) -> RestingNoise | None:
    """Estimate the noise of a beat from where the heart rests.

    Parameters
    ----------
    ecg : Ecg
        One beat [mV].
    waves : Delineation
        Of the same beat.

    Returns
    -------
    RestingNoise or None
        None where less than 100 ms of rest are left.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.calibration.noise import resting_noise
    >>> from twinheart.ecg import Ecg, delineate
    >>> t = np.arange(-400.0, 700.0)
    >>> beat = np.exp(-((t / 12) ** 2)) + 0.3 * np.exp(-(((t - 250) / 40) ** 2))
    >>> noisy = beat[:, None] + 0.02 * np.random.default_rng(0).normal(size=(len(t), 1))
    >>> ecg = Ecg(t, noisy, ("V2",))
    >>> found = resting_noise(ecg, delineate(ecg))
    >>> bool(0.018 < found.covariance[0, 0] ** 0.5 < 0.022), bool(found.time < 1.0)
    (True, True)
    """
    t, signals = np.asarray(ecg.t, float), np.asarray(ecg.signals, float)
    first = waves.p_onset if np.isfinite(waves.p_onset) else waves.qrs_onset - _NO_P
    pieces = [_rest(t, signals, t < first - _BEFORE_P)]
    if np.isfinite(waves.t_offset):
        pieces.append(_rest(t, signals, t > waves.t_offset + _AFTER_T))
    pieces = [piece for piece in pieces if len(piece)]
    step = float(np.median(np.diff(t)))
    samples = sum(map(len, pieces))
    if samples * step < _ENOUGH:
        return None
    rest = np.concatenate(pieces)
    time = _correlation_time(pieces, step)
    leads = rest.shape[1]
    covariance = rest.T @ rest / samples
    independent = samples * step / max(2.0 * time, step)
    share = min(1.0, (leads + 1) / independent)
    usual = np.trace(covariance) / leads
    covariance = (1.0 - share) * covariance + (share * usual + _LEAST**2) * np.eye(leads)
    return RestingNoise(tuple(ecg.names), covariance, time)


def _rest(t, signals, inside) -> np.ndarray:
    """A piece without its mean and slope; none where it is short or has gaps."""
    step = float(np.median(np.diff(t)))
    if inside.sum() * step < _PIECE or not np.isfinite(signals[inside]).all():
        return np.zeros((0, signals.shape[1]))
    straight = np.stack([np.ones(inside.sum()), t[inside] - t[inside].mean()], axis=1)
    piece = signals[inside]
    return piece - straight @ np.linalg.lstsq(straight, piece, rcond=None)[0]


def _correlation_time(pieces: list[np.ndarray], step: float) -> float:
    """Decay of the correlation between neighbouring samples [ms], 0 where there is none."""
    along = sum(float((piece[1:] * piece[:-1]).sum()) for piece in pieces)
    power = sum(float((piece[1:] ** 2).sum() + (piece[:-1] ** 2).sum()) / 2 for piece in pieces)
    correlation = along / power if power > 0 else 0.0
    if correlation < 0.05:
        return 0.0
    return min(_LONGEST, -step / np.log(min(correlation, 0.999)))
