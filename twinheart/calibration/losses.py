r"""Other losses than the likelihood of the waveform, and their sums.

A term is a function of a `Prediction` with one number as its result; `combined_loss` adds terms to
the prior, and `twinheart.calibration.descend` makes the sum small:

.. math:: L(u) = \sum_k w_k\, \ell_k(\text{prediction}(u)) + \tfrac12 \|u\|^2.

Only terms that are negative log-likelihoods (`WaveformLoss`, `FeatureLoss`, `MapLoss`, of weight 1)
keep L a posterior; the others compare shapes.
"""

from collections.abc import Callable, Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from twinheart.calibration.mapping import MapOperator
from twinheart.calibration.model import Prediction
from twinheart.calibration.objective import Objective
from twinheart.calibration.observation import Observation
from twinheart.ecg import smooth_axis, smooth_qrs_bounds, smooth_t_end
from twinheart.errors import InputError
from twinheart.types import Array

Term = Callable[[Prediction], Array]

_FAR = 1e30  # stands for an infinite cost, of which float32 and its derivatives make no NaN
_LEAST_POWER = 1e-12  # of the data's: a flat lead correlates with nothing
FEATURES = ("qrs_duration", "axis", "qt")


def correlation_amplitude(
    signals: Float[Array, "time lead"], data: Float[Array, "time lead"]
) -> Float[Array, ""]:
    r"""Discrepancy of shape and size of two beats, after Camps et al.

    .. math:: 100\, \frac1L \sum_l (1 - \rho_l)^2 + 2\, \frac{\mathrm{RMSE}}{\max |y|},

    with Pearson's correlation :math:`\rho_l` of lead l, and the root mean square error over all
    leads and times. Their fits stopped below 0.5.

    Parameters
    ----------
    signals : (time, lead) array
        Simulated.
    data : (time, lead) array
        Measured, y: no lead may be flat.

    Returns
    -------
    scalar
        Zero for equal beats.

    References
    ----------
    Camps et al. 2024, doi:10.48550/arXiv.2401.10029, and its published code.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from twinheart.calibration.losses import correlation_amplitude
    >>> beat = jnp.sin(jnp.linspace(0.0, 6.0, 50))[:, None]
    >>> float(correlation_amplitude(beat, beat)), float(correlation_amplitude(-beat, beat)) > 400
    (0.0, True)
    """
    a, b = signals - signals.mean(axis=0), data - data.mean(axis=0)
    power_a, power_b = (a**2).mean(axis=0), (b**2).mean(axis=0)
    both = jnp.sqrt(power_b) * jnp.sqrt(power_a + _LEAST_POWER * power_b)
    shape = (1.0 - (a * b).mean(axis=0) / both) ** 2
    square = ((signals - data) ** 2).mean()
    # the root has no derivative at zero; there the loss has its minimum
    error = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
    return 100.0 * shape.mean() + 2.0 * error / jnp.abs(data).max()


def soft_dtw(
    x: Float[Array, "time lead"],
    y: Float[Array, "time2 lead"],
    *,
    gamma: float = 1.0,
    band: int | None = None,
) -> Float[Array, ""]:
    r"""Soft dynamic time warping of two beats, differentiable.

    .. math:: R_{ij} = \|x_i - y_j\|^2
              + \min\nolimits^\gamma (R_{i-1,j}, R_{i,j-1}, R_{i-1,j-1}), \qquad
              \min\nolimits^\gamma (a) = -\gamma \log \sum_k e^{-a_k / \gamma};

    the result is R at both ends. For :math:`\gamma \to 0` it is the cost of the best alignment,
    from which it differs by at most :math:`\gamma` times the logarithm of the number of alignments.
    All leads are warped alike. It may be negative, and is not least for equal beats: see
    `SoftDtwLoss` for what is.

    Parameters
    ----------
    x, y : (time, lead) arrays
        Beats; they may differ in length.
    gamma : float
        Smoothing, in units of the squared distance. At 1 the result is minus the logarithm of the
        global alignment kernel (Cuturi et al. 2007, doi:10.1109/ICASSP.2007.366260).
    band : int, optional
        Samples that are aligned lie at most so many apart (Sakoe and Chiba 1978,
        doi:10.1109/TASSP.1978.1163055); default: any.

    Returns
    -------
    scalar
        Soft-DTW.

    Raises
    ------
    InputError
        If gamma is not positive, or the band narrower than the difference of the lengths.

    References
    ----------
    Cuturi and Blondel 2017, doi:10.48550/arXiv.1703.01541.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from twinheart.calibration.losses import soft_dtw
    >>> early = jnp.array([0.0, 0, 1, 0, 0, 0])[:, None]
    >>> late = jnp.array([0.0, 0, 0, 0, 1, 0])[:, None]
    >>> bool(abs(soft_dtw(early, late, gamma=1e-3)) < 0.01)  # the same wave, warped
    True
    >>> round(float(soft_dtw(early, late, gamma=1e-3, band=0)), 2)  # not warped
    2.0
    """
    n, m = len(x), len(y)
    if not (np.isfinite(gamma) and gamma > 0):
        raise InputError(f"gamma of soft-DTW is {gamma:g}, expected a positive number.")
    if band is not None and band < abs(n - m):
        raise InputError(
            f"a band of {band} samples does not reach from the end of a beat of {n} to that of one "
            f"of {m}: expected at least {abs(n - m)}."
        )
    rows = np.arange(n)
    columns = np.arange(n + m - 1)[:, None] - rows  # of the rows, along each antidiagonal
    allowed = (columns >= 0) & (columns < m)
    if band is not None:
        allowed &= np.abs(rows - columns) <= band
    gaps = jnp.asarray(x)[None] - jnp.asarray(y)[np.clip(columns, 0, m - 1)]
    cost = jnp.where(allowed, (gaps**2).sum(axis=2), _FAR)
    far = jnp.full(n, _FAR, cost.dtype)

    def advance(carry, row):
        last, corner = carry  # R on the antidiagonal before, and on the one before that, shifted
        own, inside = row
        above = jnp.concatenate([far[:1], last[:-1]])
        before = jnp.stack([last, above, corner])
        least = jax.lax.stop_gradient(before.min(axis=0))
        soft = least - gamma * jnp.log(jnp.exp((least - before) / gamma).sum(axis=0))
        # by where it lies, not by its size: a cost that is no number must not pass for a far one
        return (jnp.where(inside, own + soft, _FAR), above), None

    (last, _), _ = jax.lax.scan(advance, (far, far.at[0].set(0.0)), (cost, jnp.asarray(allowed)))
    return last[n - 1]


class WaveformLoss(eqx.Module):
    r"""The likelihood itself, :math:`\frac12 \|W (y - \hat y)\|^2`, to be added to other terms.

    Parameters
    ----------
    data : Observation
        Measured ECG, whose whitening is W.

    Examples
    --------
    With this term alone, `combined_loss` is `Objective.loss`: see there.
    """

    data: Observation

    def __call__(self, prediction: Prediction) -> Float[Array, ""]:
        """Negative log-likelihood."""
        return 0.5 * jnp.sum(self.data.residual(prediction.signals) ** 2)


class CorrelationLoss(eqx.Module):
    """Shape and size of the leads, see `correlation_amplitude`.

    Parameters
    ----------
    data : Observation
        Measured ECG.

    Raises
    ------
    InputError
        If one of its leads is flat.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.calibration import Prediction, observe
    >>> from twinheart.calibration.losses import CorrelationLoss
    >>> from twinheart.ecg import Ecg
    >>> t = np.arange(0.0, 300.0)
    >>> data = observe(Ecg(t, np.exp(-(((t - 60) / 15) ** 2))[:, None], ("V1",)), onset=30.0)
    >>> half = Prediction(np.zeros(1), np.zeros(1), 0.5 * data.signals)
    >>> bool(CorrelationLoss(data)(half) < 0.5)  # all of the shape, half of the size
    True
    """

    data: Observation

    def __check_init__(self):
        swing = np.ptp(np.asarray(self.data.signals), axis=0)
        flat = [name for name, own in zip(self.data.names, swing, strict=True) if not own > 0]
        if flat:
            raise InputError(
                f"leads {', '.join(flat)} are flat and correlate with nothing: leave them out."
            )

    def __call__(self, prediction: Prediction) -> Float[Array, ""]:
        """Discrepancy."""
        return correlation_amplitude(prediction.signals, self.data.signals)


class SoftDtwLoss(eqx.Module):
    r"""Soft-DTW divergence between simulated and measured beat.

    .. math:: s(x, y) - \tfrac12 s(x, x) - \tfrac12 s(y, y),

    with `soft_dtw` s of the leads over :math:`\sqrt2 \sigma`, so that without warping it would be
    the negative log-likelihood of white noise of standard deviation :math:`\sigma`. It is zero and
    stationary for equal beats, where soft-DTW alone is neither.

    Parameters
    ----------
    data : Observation
        Measured ECG.
    sd : float
        :math:`\sigma` [mV].
    gamma : float
        See `soft_dtw`.
    band : float, optional
        Largest time between samples that are aligned [ms].

    Raises
    ------
    InputError
        If a number is not positive.

    References
    ----------
    Blondel, Mensch and Vert 2021, doi:10.48550/arXiv.2010.08354.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.calibration import Prediction, observe
    >>> from twinheart.calibration.losses import SoftDtwLoss
    >>> from twinheart.ecg import Ecg
    >>> t = np.arange(0.0, 300.0)
    >>> data = observe(Ecg(t, np.exp(-(((t - 60) / 15) ** 2))[:, None], ("V1",)), onset=30.0)
    >>> same = Prediction(np.zeros(1), np.zeros(1), data.signals)
    >>> round(abs(float(SoftDtwLoss(data, sd=0.1, band=30.0)(same))), 3)
    0.0
    """

    data: Observation
    sd: float = eqx.field(static=True, converter=float)
    gamma: float = eqx.field(static=True, default=1.0, converter=float)
    band: float | None = eqx.field(
        static=True, default=None, converter=lambda x: None if x is None else float(x)
    )

    def __check_init__(self):
        for name, value in (("sd", self.sd), ("gamma", self.gamma), ("band", self.band)):
            if value is not None and not (np.isfinite(value) and value > 0):
                raise InputError(f"{name} of soft-DTW is {value:g}, expected a positive number.")

    def __call__(self, prediction: Prediction) -> Float[Array, ""]:
        """Divergence."""
        step = float(np.diff(self.data.t[:2])[0])
        # a step is rarely a round number: a band of two samples must not become one of one
        band = None if self.band is None else int(self.band / step + 1e-6)
        scale = np.sqrt(2.0) * self.sd
        x, y = prediction.signals / scale, self.data.signals / scale

        def warped(a, b):
            return soft_dtw(a, b, gamma=self.gamma, band=band)

        return warped(x, y) - 0.5 * warped(x, x) - 0.5 * warped(y, y)


class FeatureLoss(eqx.Module):
    r"""Numbers that are read from an ECG, each with its standard deviation.

    .. math:: \tfrac12 \sum_k \Big(\frac{f_k - y_k}{\sigma_k}\Big)^2,

    by the differentiable features `twinheart.ecg.smooth_qrs_bounds`, `smooth_axis` and
    `smooth_t_end`. Of the axis the chord :math:`2 \sin(\Delta / 2)` counts, which does not jump at
    180 degrees. For a fit where no waveform is at hand: features leave much open that a waveform
    determines.

    Parameters
    ----------
    t : (time,) array
        Times of the predicted leads [ms], as of the model; for ``qt`` until the end of the T wave.
    leads : sequence of str
        Names of the predicted leads; for ``axis`` I and II must be among them.
    measured : dict of str to pair of float
        Value and standard deviation of ``qrs_duration`` [ms], ``axis`` [degrees], ``qt`` [ms].

    Raises
    ------
    InputError
        If there is no feature, one is unknown, a standard deviation is not positive, or a lead is
        missing.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.calibration import Prediction
    >>> from twinheart.calibration.losses import FeatureLoss
    >>> t = np.arange(0.0, 400.0)
    >>> spike = np.where(abs(t - 150) < 50, 1 + np.cos(np.pi * (t - 150) / 50), 0.0)
    >>> loss = FeatureLoss(t, ("V1",), {"qrs_duration": (100.0, 5.0)})
    >>> bool(loss(Prediction(np.zeros(1), np.zeros(1), spike[:, None])) < 1.0)
    True
    """

    t: Float[Array, "time"]
    leads: tuple[str, ...] = eqx.field(static=True)
    measured: tuple[tuple[str, float, float], ...] = eqx.field(static=True)

    def __init__(
        self,
        t: Float[Array, "time"],
        leads: Sequence[str],
        measured: Mapping[str, tuple[float, float]],
    ):
        self.t, self.leads = jnp.asarray(t, float), tuple(leads)
        self.measured = tuple((name, float(x), float(sd)) for name, (x, sd) in measured.items())
        if not self.measured:
            raise InputError(
                f"no feature was measured: expected some of {', '.join(FEATURES)}, each with its "
                "standard deviation."
            )
        for name, value, sd in self.measured:
            if name not in FEATURES:
                raise InputError(
                    f"unknown feature '{name}', expected one of {', '.join(FEATURES)}."
                )
            if not (np.isfinite(value) and np.isfinite(sd) and sd > 0):
                raise InputError(
                    f"the feature {name} is {value:g} +- {sd:g}, expected a number and a positive "
                    "standard deviation."
                )
        if "axis" in measured and not {"I", "II"} <= set(self.leads):
            raise InputError(f"the axis needs leads I and II; there are {', '.join(self.leads)}.")

    def features(self, signals: Float[Array, "time lead"]) -> dict[str, Array]:
        """The features that were measured, of simulated leads."""
        wanted = {name for name, _, _ in self.measured}
        onset, offset = smooth_qrs_bounds(self.t, signals)
        found = {"qrs_duration": offset - onset}
        if "axis" in wanted:
            one, two = (signals[:, self.leads.index(name)] for name in ("I", "II"))
            found["axis"] = smooth_axis(self.t, signals, one, two - 0.5 * one)
        if "qt" in wanted:
            found["qt"] = smooth_t_end(self.t, signals) - onset
        return {name: found[name] for name in wanted}

    def __call__(self, prediction: Prediction) -> Float[Array, ""]:
        """Negative log-likelihood."""
        found = self.features(prediction.signals)
        total = jnp.zeros(())
        for name, value, sd in self.measured:
            gap = found[name] - value
            if name == "axis":
                gap = jnp.rad2deg(2.0 * jnp.sin(jnp.deg2rad(gap) / 2.0))
            total = total + 0.5 * (gap / sd) ** 2
        return total


class MapLoss(eqx.Module):
    r"""Times of an electro-anatomical map, :math:`\frac12 \sum_p ((T_p + t_0 - y_p)/\sigma_p)^2`.

    The time :math:`t_0` between the clocks is the best one, see `MapOperator`.

    Parameters
    ----------
    operator : MapOperator
        Points and measured times.
    repolarisation : bool
        Compare repolarisation times (activation plus APD90), too.

    Raises
    ------
    InputError
        If the map holds no repolarisation times to compare.

    References
    ----------
    Fits of activation to maps: Grandits et al. 2020, doi:10.1016/j.jcp.2020.109700.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.calibration import MapOperator, Prediction
    >>> from twinheart.calibration.losses import MapLoss
    >>> one = np.array([[0, 1, 2]])
    >>> operator = MapOperator(
    ...     np.repeat(one, 2, axis=0), np.array([[1.0, 0, 0], [0, 1, 0]]), np.array([0.0, 4.0]),
    ...     None, np.ones(2), None,
    ... )
    >>> found = Prediction(np.array([10.0, 12.0, 9.0]), np.zeros(3), np.zeros((1, 1)))
    >>> float(MapLoss(operator)(found))  # 2 ms apart, measured 4: each point is off by 1
    1.0
    """

    operator: MapOperator
    repolarisation: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if self.repolarisation and self.operator.repol is None:
            raise InputError("the map holds no repolarisation times to compare with.")

    def __call__(self, prediction: Prediction) -> Float[Array, ""]:
        """Negative log-likelihood; not finite where a measured point is never activated."""
        repol = prediction.lat + prediction.apd if self.repolarisation else None
        return 0.5 * jnp.sum(self.operator.residual(prediction.lat, repol) ** 2)


class CombinedLoss(eqx.Module):
    """Sum of terms and prior; made by `combined_loss`.

    Attributes
    ----------
    objective : Objective
        Model and priors; its data count only if a `WaveformLoss` is among the terms.
    terms : tuple of callable
        Functions of a prediction.
    weights : tuple of float
        Theirs.
    """

    objective: Objective
    terms: tuple[Term, ...]
    weights: tuple[float, ...] = eqx.field(static=True)

    def parts(self, u: Float[Array, "parameter"]) -> Float[Array, "term"]:
        """Every term with its weight, to see which of them decides."""
        found = self.objective.predict(u)
        return jnp.stack([w * t(found) for w, t in zip(self.weights, self.terms, strict=True)])

    def __call__(self, u: Float[Array, "parameter"]) -> Float[Array, ""]:
        """Value at standard numbers; differentiable."""
        return self.parts(u).sum() + 0.5 * jnp.sum(u**2)


def combined_loss(
    objective: Objective, terms: Sequence[Term], weights: Sequence[float] | None = None
) -> CombinedLoss:
    r"""Add terms to the prior: :math:`\sum_k w_k \ell_k + \frac12 \|u\|^2`.

    Parameters
    ----------
    objective : Objective
        Model and priors.
    terms : sequence of callable
        Functions of a `Prediction`, those of this module or your own.
    weights : sequence of float, optional
        One for each term; default 1.

    Returns
    -------
    CombinedLoss
        Of standard numbers, for `twinheart.calibration.descend`.

    Raises
    ------
    InputError
        If there is no term, or not a positive weight for each.

    Examples
    --------
    Given an `objective` and a `MapOperator`, fit ECG and map together::

        terms = [WaveformLoss(objective.data), MapLoss(operator)]
        u, history, result = descend(combined_loss(objective, terms), start)
    """
    weights = tuple(map(float, [1.0] * len(terms) if weights is None else weights))
    sound = all(np.isfinite(w) and w > 0 for w in weights)
    if not terms or len(weights) != len(terms) or not sound:
        raise InputError(
            f"{len(terms)} terms with weights {list(weights)}: expected at least one term, and a "
            "positive weight for each."
        )
    return CombinedLoss(objective, tuple(terms), weights)
