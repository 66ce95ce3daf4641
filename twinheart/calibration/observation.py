r"""Measured ECG as data: resampled, band-limited, with the covariance of its noise.

Model and measurement pass the same Gaussian low-pass filter, and are compared at times that are a
few milliseconds apart. The noise of the data is Gaussian,

.. math:: \mathrm{cov}(y_{tl}, y_{t'l'}) = T_{tt'} L_{ll'} + D_{tt'} \delta_{ll'},

with the recorded noise, correlated in time (T) and between leads (L), and in D what no model of
this kind reproduces. A constant and a slope of every lead are marginalised: they are part of D, the
constant with a wide variance, the slope with that of a baseline that breathing moves. In the
eigenvectors of L the leads part, and each is whitened in time by itself.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from twinheart.ecg import Ecg
from twinheart.errors import InputError
from twinheart.types import Array

# Only eight of the twelve leads are independent: a noise model of all twelve would count four
# of them twice.
INDEPENDENT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
_FINE = 1.0  # ms, at which model and measurement are filtered
_WIDE = 3.0  # sd of the marginalised baseline over the largest amplitude
_DRIFT = 1e-3  # mV/ms, sd of its slope: of breathing. Were it free, it would pass for a T wave.
# ms, over which what the model misses is correlated, e^(-|t| / length): as steep as a QRS. Were it
# smooth, all that is fast would have to fit within the recorded noise, and would decide alone.
_LENGTH = 8.0


class Observation(eqx.Module):
    """What a simulated ECG is compared with.

    Made by `observe`.

    Attributes
    ----------
    t : (time,) array
        Times of the data [ms], 0 at the onset of the QRS.
    signals : (time, lead) array
        Filtered data [mV].
    names : tuple of str
        Leads.
    lowpass : float
        Standard deviation of the Gaussian filter that a model has to apply, too [ms].
    apart : (lead, lead) array
        Turns the leads into combinations whose noise is independent.
    whiten, colour : (lead, time, time) arrays
        For each combination the inverse Cholesky factor of its noise, and the factor.
    noise_sd : (lead,) array
        Standard deviation of the noise of each lead, unfiltered [mV].
    """

    t: Float[np.ndarray, "time"]
    signals: Float[Array, "time lead"]
    names: tuple[str, ...] = eqx.field(static=True)
    lowpass: float = eqx.field(static=True)
    apart: Float[Array, "lead lead2"]
    whiten: Float[Array, "lead time time2"]
    colour: Float[Array, "lead time time2"]
    noise_sd: Float[np.ndarray, "lead"]

    def whitened(self, difference: Float[Array, "time lead"]) -> Float[Array, "sample"]:
        """Differences to the data as independent standard normal numbers, if they are noise."""
        return jnp.einsum("kts,sl,lk->tk", self.whiten, difference, self.apart).ravel()

    def noise(self, standard: Float[np.ndarray, "time lead"]) -> Float[np.ndarray, "time lead"]:
        """Noise of the data made of independent standard normal numbers [mV]."""
        return np.einsum("kts,sk,lk->tl", self.colour, standard, self.apart)

    def tempered(self, factor: float) -> "Observation":
        """The same data with noise that is larger by a factor, for the beginning of a fit."""
        scaled = (self.whiten / factor, self.colour * factor)
        return eqx.tree_at(lambda d: (d.whiten, d.colour), self, scaled)

    def residual(self, signals: Float[Array, "time lead"]) -> Float[Array, "sample"]:
        """Whitened difference of a filtered, simulated ECG at the times `t` to the data."""
        return self.whitened(self.signals - signals)


def observe(
    ecg: Ecg,
    *,
    onset: float = 0.0,
    window: tuple[float, float] = (-20.0, 140.0),
    bandwidth: float = 100.0,
    noise: float | Float[np.ndarray, "lead lead"] = 0.025,
    noise_time: float = 0.0,
    discrepancy: float = 0.0,
    leads: tuple[str, ...] | None = None,
) -> Observation:
    r"""Make data of a measured ECG.

    Parameters
    ----------
    ecg : Ecg
        One beat, or an average of beats [mV].
    onset : float
        Onset of the QRS on the clock of the ECG [ms]; it becomes time 0.
    window : pair of float
        Part that is compared [ms].
    bandwidth : float
        -3 dB frequency of the Gaussian low-pass [Hz], of standard deviation
        :math:`\sqrt{\ln 2} / (2 \pi f)` in time.
    noise : float or (lead, lead) array
        Standard deviation of the noise of every lead, or the covariance between the leads that are
        taken, positive definite [mV, mV^2]. Default 25 uV.
    noise_time : float
        Time over which the noise is correlated [ms], :math:`e^{-|t| / \tau}`; 0: white at 1 kHz.
    discrepancy : float
        Standard deviation of what no parameter can explain [mV], correlated over 8 ms, of a
        first-order process.
    leads : tuple of str, optional
        Leads to take; default: those of `INDEPENDENT` that the ECG has.

    Returns
    -------
    Observation
        Data with its noise.

    Raises
    ------
    InputError
        If the ECG is shorter than the window, has none of the leads, has gaps within the window,
        or a number makes no sense.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg
    >>> from twinheart.calibration import observe
    >>> t = np.arange(0.0, 300.0)
    >>> ecg = Ecg(t, np.exp(-(((t - 60) / 15) ** 2))[:, None], ("V1",))
    >>> data = observe(ecg, onset=30.0, window=(-20.0, 100.0))
    >>> data.signals.shape, float(data.t[0])
    ((41, 1), -20.0)
    """
    names = _leads_of(ecg, leads)
    columns = [ecg.names.index(name) for name in names]
    t = np.asarray(ecg.t, float) - onset
    values = np.asarray(ecg.signals, float)[:, columns]
    _check(t, values, window, bandwidth, discrepancy, names)
    width = np.sqrt(np.log(2.0)) / (2.0 * np.pi * bandwidth) * 1e3
    margin = np.ceil(4.0 * width / _FINE) * _FINE
    fine = np.arange(window[0] - margin, window[1] + margin + 0.5 * _FINE, _FINE)
    step = max(_FINE, np.round(2.5 * width / _FINE) * _FINE)
    at = np.arange(window[0], window[1] + 1e-9, step)
    kernel = np.exp(-0.5 * ((at[:, None] - fine) / width) ** 2)
    kernel /= kernel.sum(axis=1, keepdims=True)
    on_fine = np.stack([_resampled(t, lead, fine) for lead in values.T], axis=1)
    data = kernel @ on_fine
    covariance = np.asarray(noise, float)
    if covariance.ndim == 0:
        covariance = covariance**2 * np.eye(len(names))
    gap = np.abs(fine[:, None] - fine)
    correlation = np.exp(-gap / noise_time) if noise_time > 0 else np.eye(len(fine))
    missed = discrepancy**2 * np.exp(-gap / _LENGTH)
    ramp = _DRIFT * (at - at.mean())
    size = np.abs(data).max()
    recorded = kernel @ correlation @ kernel.T
    beyond = kernel @ missed @ kernel.T + (_WIDE * size) ** 2 + np.outer(ramp, ramp)
    variance, apart = np.linalg.eigh(covariance)
    least = 1e-9 * np.trace(covariance) / len(names) * np.eye(len(at))
    colour = np.linalg.cholesky(variance[:, None, None] * recorded + beyond + least)
    return Observation(
        t=at,
        signals=jnp.asarray(data),
        names=names,
        lowpass=float(width),
        apart=jnp.asarray(apart),
        whiten=jnp.asarray(np.linalg.inv(colour)),
        colour=jnp.asarray(colour),
        noise_sd=np.sqrt(np.diag(covariance)),
    )


def _leads_of(ecg: Ecg, leads: tuple[str, ...] | None) -> tuple[str, ...]:
    wanted = INDEPENDENT if leads is None else leads
    names = tuple(name for name in wanted if name in ecg.names)
    if not names or (leads is not None and len(names) < len(leads)):
        raise InputError(
            f"the ECG has the leads {', '.join(ecg.names)}, expected "
            f"{'some' if leads is None else 'all'} of {', '.join(wanted)}."
        )
    return names


def _check(t, values, window, bandwidth, discrepancy, names) -> None:
    if not (np.isfinite(bandwidth) and 1.0 <= bandwidth <= 500.0):
        raise InputError(f"the bandwidth is {bandwidth:g} Hz, expected 1 to 500.")
    if not (np.isfinite(discrepancy) and discrepancy >= 0):
        raise InputError(f"the discrepancy is {discrepancy:g} mV, expected at least 0.")
    if t[0] > window[0] or t[-1] < window[1]:
        raise InputError(
            f"the ECG lasts from {t[0]:.0f} to {t[-1]:.0f} ms after the onset of the QRS, expected "
            f"{window[0]:.0f} to {window[1]:.0f} ms: record more of the beat, or narrow the window."
        )
    inside = (t >= window[0]) & (t <= window[1])
    missing = [n for n, ok in zip(names, np.isfinite(values[inside]).all(axis=0), strict=True)
               if not ok]  # fmt: skip
    if missing:
        raise InputError(
            f"leads {', '.join(missing)} have gaps within the beat: leave them out with leads."
        )


def _resampled(t, values, at) -> np.ndarray:
    """Values at other times; beyond the ends they stay. Coarser steps take means of the samples."""
    step = float(np.median(np.diff(t)))
    if step < 0.75 * _FINE:
        edges = np.append(at - 0.5 * _FINE, at[-1] + 0.5 * _FINE)
        known = np.concatenate([[0.0], np.cumsum(0.5 * (values[1:] + values[:-1]) * np.diff(t))])
        area = np.interp(edges, t, known)
        area += (
            np.minimum(edges - t[0], 0.0) * values[0] + np.maximum(edges - t[-1], 0) * values[-1]
        )
        return np.diff(area) / _FINE
    return np.interp(at, t, values)
