r"""What the data say about the parameters, and what they leave open.

At the best fit the posterior is taken as Gaussian (Laplace) in standard numbers: with the Jacobian
J of the whitened residual its covariance is :math:`C = (J^T J / s + I)^{-1}`, where s is 1, or the
misfit per sample where that is larger: then the model does not explain the data to within their
noise, and what it misses is treated as more noise. The prior has standard deviation 1, so the
*contraction* of a parameter, posterior over prior standard deviation, is :math:`\sqrt{C_{kk}}`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import stats

from twinheart.calibration.fit import Fit
from twinheart.calibration.objective import Objective

# Contraction above which the data do not determine a parameter, and below which they do.
UNDETERMINED, DETERMINED = 0.8, 0.5
_TIGHT = 0.95  # correlation from which on two parameters can stand for each other


class Posterior(eqx.Module):
    """Gaussian posterior in standard numbers.

    Made by `laplace`, or by `twinheart.calibration.linearisation`.

    Attributes
    ----------
    objective : Objective
        Model, data and priors.
    u : (parameter,) array
        Its centre.
    covariance : (parameter, parameter) array
        Of standard numbers.
    scale : float
        By which the variance of the noise was raised, 1 where the model explains the data.
    evidence : float
        Logarithm of the probability of the data under this part of the posterior, up to a constant.
    """

    objective: Objective
    u: Float[np.ndarray, "parameter"]
    covariance: Float[np.ndarray, "parameter parameter2"]
    scale: float
    evidence: float

    @property
    def names(self) -> tuple[str, ...]:
        """Full names of the parameters."""
        return self.objective.free.names

    @property
    def contraction(self) -> Float[np.ndarray, "parameter"]:
        """Posterior over prior standard deviation."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def correlation(self) -> Float[np.ndarray, "parameter parameter2"]:
        """Between parameters."""
        sd = self.contraction
        return self.covariance / np.outer(sd, sd)

    def draws(self, count: int, seed: int = 0) -> Float[np.ndarray, "draw parameter"]:
        """Standard numbers drawn from the posterior."""
        rng = np.random.default_rng(seed)
        root = np.linalg.cholesky(self.covariance)
        return self.u + rng.normal(size=(count, len(self.u))) @ root.T

    def physical(self, u: Float[np.ndarray, "draw parameter"]) -> Float[np.ndarray, "..."]:
        """Physical values of draws, (draw, parameter)."""
        return np.asarray(jax.vmap(self.objective.free.flat)(jnp.asarray(u)))

    def intervals(self, level: float = 0.9) -> Float[np.ndarray, "parameter 3"]:
        """Lower end, median and upper end of each parameter's interval, physical."""
        half = stats.norm.ppf(0.5 + level / 2) * self.contraction
        ends = np.stack([self.u - half, self.u, self.u + half])
        return np.sort(self.physical(ends).T, axis=1)

    def predictions(self, count: int = 20, seed: int = 0):
        """Activation (draw, node) and leads (draw, time, lead) of draws from the posterior."""
        lat, signals = [], []
        for u in self.draws(count, seed):
            found = _predict(self.objective, jnp.asarray(u))
            lat.append(np.asarray(found.lat))
            signals.append(np.asarray(found.signals))
        return np.stack(lat), np.stack(signals)


@eqx.filter_jit
def _predict(objective: Objective, u):
    return objective.predict(u)


def laplace(objective: Objective, found: Fit, *, inflate: bool = True) -> Posterior:
    """Gaussian approximation of the posterior at a fit.

    Parameters
    ----------
    objective : Objective
        What was fitted.
    found : Fit
        Its best fit.
    inflate : bool
        Raise the noise to the misfit where the model does not explain the data.

    Returns
    -------
    Posterior
        Centre, covariance, scale.

    Examples
    --------
    See ``notebooks/05_calibrate``.
    """
    scale = max(1.0, 2.0 * found.misfit / len(found.jacobian)) if inflate else 1.0
    return gaussian(objective, found, float(scale))


def gaussian(objective: Objective, found: Fit, scale: float) -> Posterior:
    """As `laplace`, the variance of the noise raised by a given factor.

    Parameters
    ----------
    objective, found
        As for `laplace`.
    scale : float
        Factor on the variance.

    Returns
    -------
    Posterior
        Centre, covariance, scale.
    """
    jacobian = found.jacobian
    covariance = np.linalg.inv(jacobian.T @ jacobian / scale + np.eye(jacobian.shape[1]))
    covariance = 0.5 * (covariance + covariance.T)
    loss = float(found.misfit / scale + 0.5 * found.u @ found.u)
    evidence = 0.5 * float(np.linalg.slogdet(covariance)[1]) - loss
    return Posterior(objective, found.u, covariance, scale, evidence)


class Determination(NamedTuple):
    """What the data say about one parameter.

    Attributes
    ----------
    name, unit : str
        Which.
    low, median, high : float
        90 % interval, physical.
    contraction : float
        Posterior over prior standard deviation.
    verdict : str
        ``"determined"``, ``"partly"`` or ``"not determined"``.
    sentence : str
        The same in plain words.
    """

    name: str
    unit: str
    low: float
    median: float
    high: float
    contraction: float
    verdict: str
    sentence: str


def determination(posterior: Posterior) -> list[Determination]:
    """What the data say about each parameter, in numbers and in plain words.

    Parameters
    ----------
    posterior : Posterior
        Of a fit.

    Returns
    -------
    list of Determination
        In the order of the parameters.
    """
    intervals, correlation = posterior.intervals(), posterior.correlation
    found = []
    rows = zip(posterior.names, posterior.objective.free.units, posterior.contraction, strict=True)
    for k, (name, unit, contraction) in enumerate(rows):
        low, median, high = (float(x) for x in intervals[k])
        others = np.abs(correlation[k])
        others[k] = 0.0
        partner = int(others.argmax()) if len(others) > 1 else k
        tight = others[partner] > _TIGHT
        if contraction > UNDETERMINED:
            verdict = "not determined"
            sentence = (
                f"The ECG does not determine {name}: its uncertainty is {contraction:.0%} of what "
                "it was before."
            )
        elif contraction > DETERMINED:
            verdict = "partly"
            sentence = f"The ECG narrows {name} to {contraction:.0%} of its prior uncertainty."
        else:
            verdict = "determined"
            sentence = f"{name} is {median:.3g} {unit} ({low:.3g} to {high:.3g}).".replace(
                "  ", " "
            )
        if tight:
            sentence += f" It trades off against {posterior.names[partner]}."
        found.append(
            Determination(name, unit, low, median, high, float(contraction), verdict, sentence)
        )
    return found


class MisfitTest(NamedTuple):
    """Whether the model can have made the data.

    Attributes
    ----------
    statistic : float
        Sum of squares of data and prior at the best fit.
    samples : int
        Number of data: its expectation under the model.
    p_value : float
        Probability of so large a sum.
    """

    statistic: float
    samples: int
    p_value: float

    @property
    def rejected(self) -> bool:
        """Whether the model is rejected at 5 %."""
        return self.p_value < 0.05


def misfit_test(found: Fit) -> MisfitTest:
    r"""Test the fit: for a linear model, :math:`\|r\|^2 + \|u\|^2 \sim \chi^2` of the samples.

    Parameters
    ----------
    found : Fit
        Best fit, under the true noise of the data.

    Returns
    -------
    MisfitTest
        Statistic and p-value.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.calibration import Fit, misfit_test
    >>> found = Fit(np.zeros(2), {}, 50.0, 50.0, np.zeros((100, 2)), [], "converged")
    >>> misfit_test(found).rejected  # 100 samples of noise: a sum of squares of 100
    False
    """
    samples = len(found.jacobian)
    statistic = 2.0 * found.loss
    return MisfitTest(statistic, samples, float(stats.chi2.sf(statistic, samples)))


def nuts(
    posterior: Posterior,
    *,
    warmup: int = 200,
    draws: int = 300,
    seed: int = 0,
    scale: float = 1.0,
) -> Float[np.ndarray, "draw parameter"]:
    """Draw from the posterior by the No-U-Turn sampler, to check the Gaussian approximation.

    The sampler moves in numbers in which the Gaussian approximation is standard normal, so that
    its trajectories are short. Needs ``blackjax`` (extra ``uq``).

    Parameters
    ----------
    posterior : Posterior
        From `laplace`.
    warmup, draws : int
        Steps of adaptation, and kept.
    seed : int
        Of the random numbers.
    scale : float
        By which the variance of the noise is raised, as in `Posterior.scale`.

    Returns
    -------
    (draw, parameter) array
        Standard numbers.

    Raises
    ------
    InputError
        If blackjax is not installed.

    References
    ----------
    Hoffman and Gelman 2014, JMLR 15, 1593-1623.
    """
    from twinheart.calibration.sampling import sample

    root = jnp.asarray(np.linalg.cholesky(posterior.covariance))
    centre, objective = jnp.asarray(posterior.u), posterior.objective

    def log_density(z):
        u = centre + root @ z
        return -0.5 * (jnp.sum(objective.residual(u) ** 2) / scale + jnp.sum(u**2))

    z = sample(log_density, len(posterior.u), warmup=warmup, draws=draws, seed=seed)
    return posterior.u + z @ np.asarray(root).T


def distinct(
    fits: Sequence[Fit], posterior: Posterior, *, apart: float = 3.0, worse: float = 10.0
) -> list[Fit]:
    """Optima that lie apart and explain the data about as well as the best one.

    Parameters
    ----------
    fits : sequence of Fit
        Best first.
    posterior : Posterior
        At the best one.
    apart : float
        Mahalanobis distance under the posterior beyond which optima are distinct.
    worse : float
        How much larger their loss may be, times `Posterior.scale`.

    Returns
    -------
    list of Fit
        The best of each group, best first.
    """
    precision = np.linalg.inv(posterior.covariance)
    kept: list[Fit] = []
    for found in fits:
        if found.loss - fits[0].loss > worse * posterior.scale:
            continue
        gaps = [found.u - other.u for other in kept]
        if all(np.sqrt(gap @ precision @ gap) > apart for gap in gaps):
            kept.append(found)
    return kept
