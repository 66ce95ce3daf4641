r"""Gaussian posteriors that look further than a derivative does.

Where fronts overtake each other the arrival, and with it the residual r(u), has kinks: the Jacobian
at the optimum then holds for a small neighbourhood only, and the Gaussian of `laplace` is too
narrow. Here r is linearised over a Gaussian N(m, C): from its draws a regression gives
:math:`r \approx c + J (u - m) + e`, and what it leaves, e, of covariance :math:`E E^T`, counts as
noise. The posterior of that linear model,

.. math:: S = I + E E^T, \quad C' = (J^T S^{-1} J + I)^{-1}, \quad
          m' = m - C' (J^T S^{-1} c + m),

is the Gaussian of the next round: iterated posterior linearisation (García-Fernández et al. 2015,
doi:10.1109/TSP.2015.2454485), with draws in the place of sigma points.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from twinheart.calibration.objective import Objective
from twinheart.calibration.posterior import Posterior
from twinheart.errors import SolverError

_LEAST_DRAWS, _PER_PARAMETER = 60, 3
_GRADIENTS = 20  # draws at which a gradient is taken
# Noise over that of the data, level by level: wide at first, so that no local optimum holds.
_LEVELS = (8.0, 5.0, 3.0, 2.0, 1.4, 1.0)


class _Linear(NamedTuple):
    """Mean of the residual over a Gaussian, slope by its standard numbers, and what that leaves."""

    mean: Float[np.ndarray, "sample"]
    jacobian: Float[np.ndarray, "sample parameter"]
    left: Float[np.ndarray, "sample draw"]

    @property
    def weighted(self) -> Float[np.ndarray, "sample parameter"]:
        """The Jacobian times the inverse covariance of noise and remainder (Woodbury)."""
        inner = np.eye(self.left.shape[1]) + self.left.T @ self.left
        return self.jacobian - self.left @ np.linalg.solve(inner, self.left.T @ self.jacobian)

    @property
    def covariance(self) -> Float[np.ndarray, "parameter parameter2"]:
        """Of the posterior of the linear model."""
        precision = self.jacobian.T @ self.weighted + np.eye(self.jacobian.shape[1])
        found = np.linalg.inv(precision)
        return 0.5 * (found + found.T)

    def evidence(self, u: Float[np.ndarray, "parameter"]) -> float:
        """Logarithm of N(0; r at zero, I + E E^T + J J^T) but for its constant, linear about u."""
        at_zero = self.mean - self.jacobian @ u
        both = np.concatenate([self.left, self.jacobian], axis=1)
        inner = np.eye(both.shape[1]) + both.T @ both
        along = both.T @ at_zero
        square = at_zero @ at_zero - along @ np.linalg.solve(inner, along)
        return float(-0.5 * (square + np.linalg.slogdet(inner)[1]))


def widened(posterior: Posterior, *, rounds: int = 3, seed: int = 0) -> Posterior:
    r"""Posterior whose Gaussian holds over its own width.

    The covariance is that of the residual linearised over the Gaussian around the fit, what is left
    counted as noise. The centre moves to where the gradient of the loss vanishes in the mean over
    the posterior that was given, :math:`E[J^T r + u] = 0` (Opper and Archambeau 2009,
    doi:10.1162/neco.2008.08-07-592): a fit prefers values, of a gain above all, at which the data
    would fix the other parameters more tightly, and so leave less space to them.

    Parameters
    ----------
    posterior : Posterior
        From `laplace`.
    rounds : int
        Of either.
    seed : int
        Of the draws: 60 a round, or 3 for each parameter if that is more, and 20 gradients.

    Returns
    -------
    Posterior
        Around another centre, with its evidence.

    Raises
    ------
    SolverError
        If the model is finite for too few draws.

    Examples
    --------
    See `twinheart.calibration.sbc.sbc_case`.
    """
    rng, objective = np.random.default_rng(seed), posterior.objective
    u, covariance, noise = posterior.u, posterior.covariance, float(np.sqrt(posterior.scale))
    at_fit = np.asarray(objective.residuals(u[None]), np.float64)[0] / noise
    evidence = posterior.evidence
    for _ in range(rounds):
        linear = _linearised(objective, u, covariance, noise, _count(u), rng, about=at_fit)
        covariance, evidence = linear.covariance, linear.evidence(u)
    root = np.linalg.cholesky(posterior.covariance)
    for _ in range(rounds):
        gradient, precision = np.zeros(len(u)), np.zeros((len(u), len(u)))
        for draw in u + _pairs(_GRADIENTS, len(u), rng) @ root.T:
            r, jacobian = (np.asarray(x, np.float64) / noise for x in objective.linearised(draw))
            gradient += jacobian.T @ r + draw
            precision += jacobian.T @ jacobian + np.eye(len(u))
        u = u - np.linalg.solve(precision, gradient)
    return dataclasses.replace(posterior, u=u, covariance=covariance, evidence=evidence)


def ensemble_search(objective: Objective, *, draws: int | None = None, seed: int = 0) -> Posterior:
    """Posterior found from the prior, by linearisation under a noise that is lowered.

    It needs no derivatives and averages over kinks and small local optima, so that it ends near
    the best one where descents from single starts do not; begin a `fit` at its centre.

    Parameters
    ----------
    objective : Objective
        What to make small.
    draws : int, optional
        Of each of six levels; default: 60, or 3 for each parameter if that is more.
    seed : int
        Of the draws.

    Returns
    -------
    Posterior
        Centre and covariance under the noise of the data.

    Raises
    ------
    SolverError
        If the model is finite for too few draws.

    Examples
    --------
    See `twinheart.calibration.sbc.sbc_case`.
    """
    rng = np.random.default_rng(seed)
    u, evidence = np.zeros(len(objective.free)), 0.0
    covariance = np.eye(len(u))
    for level in _LEVELS:
        linear = _linearised(objective, u, covariance, level, draws or _count(u), rng)
        covariance, evidence = linear.covariance, linear.evidence(u)
        u = u - covariance @ (linear.weighted.T @ linear.mean + u)
    return Posterior(objective, u, covariance, 1.0, evidence)


def _count(u) -> int:
    return max(_LEAST_DRAWS, _PER_PARAMETER * len(u))


def _pairs(draws: int, count: int, rng) -> np.ndarray:
    """Standard normal numbers and their opposites: means are exact where a function is linear."""
    z = rng.normal(size=(draws // 2, count))
    return np.concatenate([z, -z])


def _linearised(objective, u, covariance, noise: float, draws: int, rng, about=None) -> _Linear:
    """The residual over a Gaussian; about its mean, or a value that is given."""
    z = _pairs(draws, len(u), rng)
    root = np.linalg.cholesky(covariance)
    r = np.asarray(objective.residuals(u + z @ root.T), np.float64) / noise
    finite = np.isfinite(r).all(axis=1)
    z, r = z[finite], r[finite]
    if len(r) < 2 * len(u):
        raise SolverError(
            f"the model is finite for {len(r)} of {draws} draws, expected at least {2 * len(u)}: "
            "narrow the priors, or draw more."
        )
    mean = r.mean(axis=0) if about is None else about
    slope = np.linalg.lstsq(z, r - mean, rcond=None)[0]
    left = (r - mean - z @ slope).T / np.sqrt(len(r) - len(u))
    return _Linear(mean, np.linalg.solve(root.T, slope).T, left)
