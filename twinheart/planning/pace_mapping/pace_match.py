r"""How alike two beats are, whatever their amplitude, their onset and the speed of the wave.

.. math:: r = \max_{\delta, c}
          \frac{\sum_l \langle y_l(t / c), x_l(t + \delta) \rangle}
               {\sqrt{\sum_l |y_l|^2 \, \sum_l |x_l|^2}}

over the leads l, each against its own mean over the QRS, so that the relation of the amplitudes of
the leads counts and their common size does not. The shift :math:`\delta` is free, since nobody
knows when the wave left the scar; so is, within limits, the factor c on all velocities.
"""

from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d

from twinheart.ecg import Ecg

STEP = 1.0  # ms, of beats that are compared
LOWPASS = 2.5  # ms: standard deviation of the Gaussian that filters both
EARLIEST = -60.0  # ms before the stimulus at which the window of a beat may begin
SHIFTS = 121
SAMPLES = 512  # of a simulated beat, a power of two
# Factors on the velocities that are tried: two and a half standard deviations of `ModelSpread`.
SPEEDS = tuple(float(c) for c in np.geomspace(0.64, 1.5625, 11))
_AROUND = 10.0  # ms before and after the QRS that are compared, too


class Match(NamedTuple):
    """How well each simulated beat matches.

    Attributes
    ----------
    correlation : (site,) array
        r above, at most 1.
    offset : (site,) array
        From the stimulus to the onset of the QRS [ms].
    speed : (site,) array
        Factor on the velocities.
    """

    correlation: Float[np.ndarray, "site"]
    offset: Float[np.ndarray, "site"]
    speed: Float[np.ndarray, "site"]


class PacedBeats(eqx.Module):
    """Simulated beats, ready to be compared.

    Parameters
    ----------
    leads : (site, time, lead) array
        Filtered leads every `STEP` ms from `EARLIEST` on, `SAMPLES` of them.
    """

    leads: Float[np.ndarray, "site time lead"]
    spectrum: np.ndarray
    sums: np.ndarray
    squares: np.ndarray

    def __init__(self, leads):
        self.leads = np.asarray(leads, dtype=np.float32)
        self.spectrum = np.fft.rfft(self.leads, axis=1).astype(np.complex64)
        zero = np.zeros((len(self.leads), 1, self.leads.shape[2]))
        exact = self.leads.astype(float)
        self.sums = np.concatenate([zero, np.cumsum(exact, axis=1)], axis=1)
        self.squares = np.concatenate([zero, np.cumsum(exact**2, axis=1)], axis=1).sum(axis=2)

    def joined(self, other: "PacedBeats") -> "PacedBeats":
        """These beats and others."""
        return PacedBeats(np.concatenate([self.leads, other.leads]))

    def match(self, t: Float[np.ndarray, "time"], signals, duration: float, speeds=SPEEDS) -> Match:
        """Compare a beat with each of these.

        Parameters
        ----------
        t : (time,) array
            Times after the onset of the QRS [ms].
        signals : (time, lead) array
            Its leads, filtered as these are.
        duration : float
            Of its QRS [ms].
        speeds : sequence of float
            Factors on the velocities to try.

        Returns
        -------
        Match
            Of each simulated beat.
        """
        tried = [self._shifted(t, signals, duration, c) for c in speeds]
        r = np.stack([correlation for correlation, _ in tried])
        first = np.stack([offset for _, offset in tried])
        place, best = _peak(r)
        low, column = np.floor(place).astype(int), np.arange(r.shape[1])
        high = np.minimum(low + 1, len(first) - 1)
        onset = first[low, column] + (place - low) * (first[high, column] - first[low, column])
        logs = np.log(np.asarray(speeds))
        speed = np.exp(np.interp(place, np.arange(len(logs)), logs))
        return Match(np.minimum(best, 1.0), onset, speed)

    def _shifted(self, t, signals, duration: float, c: float) -> tuple[np.ndarray, np.ndarray]:
        """Largest correlation over the shifts, and the onset of the QRS after the stimulus."""
        begin, end = max(-_AROUND, t[0]), min(duration + _AROUND, t[-1])
        n = min(int((end - begin) * c / STEP) + 1, SAMPLES - SHIFTS)
        at = begin + STEP * np.arange(n) / c
        own = np.stack([np.interp(at, t, lead) for lead in np.asarray(signals).T], axis=1)
        own = own - own.mean(axis=0)
        other = np.conj(np.fft.rfft(own, SAMPLES, axis=0)).astype(np.complex64)
        product = np.fft.irfft(np.einsum("sfl,fl->sf", self.spectrum, other), SAMPLES, axis=1)
        upper, lower = slice(n, n + SHIFTS), slice(0, SHIFTS)
        mean = (self.sums[:, upper] - self.sums[:, lower]) ** 2
        size = self.squares[:, upper] - self.squares[:, lower] - mean.sum(axis=2) / n
        least = 1e-12 * max(float(self.squares[:, -1].max()), 1e-30)
        size = np.sqrt(np.maximum(size, least) * max(float((own**2).sum()), 1e-30))
        place, r = _peak((product[:, :SHIFTS] / size).T)
        return r, EARLIEST + STEP * place - begin * c


def filtered(ecg: Ecg, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Times every `STEP` ms, and leads with the Gaussian low-pass of simulated beats.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg
    >>> from twinheart.planning.pace_mapping.pace_match import filtered
    >>> t, signals = filtered(Ecg(np.arange(0.0, 9.0, 0.5), np.ones((18, 1)), ("II",)), ("II",))
    >>> t.shape, float(signals.max())
    ((9,), 1.0)
    """
    t = np.asarray(ecg.t, float)
    signals = np.stack([np.asarray(ecg[name], float) for name in names], axis=1)
    smooth = np.asarray(gaussian_filter1d(signals, LOWPASS / ecg.step, axis=0, mode="nearest"))
    at = np.arange(t[0], t[-1] + 1e-9, STEP)
    return at, np.stack([np.interp(at, t, lead) for lead in smooth.T], axis=1)


def _peak(values: Float[np.ndarray, "row column"]) -> tuple[np.ndarray, np.ndarray]:
    """Place along the rows and height of the largest value of each column, by a parabola."""
    n, columns = values.shape
    top, column = values.argmax(axis=0), np.arange(columns)
    inner = np.clip(top, 1, max(n - 2, 1))
    if n < 3:
        return top.astype(float), values[top, column]
    a, b, c = (values[inner + k, column] for k in (-1, 0, 1))
    bend = a - 2 * b + c
    usable = (inner == top) & (bend < 0)
    shift = np.where(usable, 0.5 * (a - c) / np.where(usable, bend, 1.0), 0.0)
    return top + shift, np.where(usable, b - 0.25 * (a - c) * shift, values[top, column])
