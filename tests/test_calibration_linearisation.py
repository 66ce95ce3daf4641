"""Gaussian posteriors that are linearised over their own width, against exact ones."""

from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, optimize

from twinheart.calibration import Objective, laplace
from twinheart.calibration.fit import Fit
from twinheart.calibration.linearisation import ensemble_search, widened
from twinheart.errors import SolverError


class Toy(Objective):
    """A residual in closed form, in the place of one of a heart."""

    toy: Callable = eqx.field(static=True)

    def __init__(self, count: int, toy: Callable):
        self.model = self.data = self.lat = cast(Any, None)
        self.free, self.fixed, self.toy = cast(Any, range(count)), {}, toy

    def residual(self, u):
        return self.toy(u)

    def residuals(self, batch):
        return np.stack([self.toy(jnp.asarray(u)) for u in batch])

    def linearised(self, u):
        return self.toy(jnp.asarray(u)), jax.jacfwd(self.toy)(jnp.asarray(u))


def fit_at(toy: Toy, u) -> Fit:
    r, jacobian = (np.asarray(x, float) for x in toy.linearised(u))
    misfit = 0.5 * float(r @ r)
    return Fit(u, {}, misfit + 0.5 * float(u @ u), misfit, jacobian, [], "converged")


def best(toy: Toy, start) -> Fit:
    def loss(u):
        r = np.asarray(toy.residual(jnp.asarray(u)))
        return 0.5 * (r @ r + u @ u)

    return fit_at(toy, optimize.minimize(loss, start, method="Nelder-Mead", tol=1e-9).x)


pytestmark = pytest.mark.usefixtures("x64")


def test_posterior_of_a_linear_model_is_exact():
    """Mean, covariance and evidence of linear regression, to rounding, from prior and fit alike."""
    rng = np.random.default_rng(0)
    slopes, data = 2.0 * rng.normal(size=(20, 5)), rng.normal(size=20)
    toy = Toy(5, lambda u: jnp.asarray(slopes) @ u - jnp.asarray(data))
    covariance = np.linalg.inv(slopes.T @ slopes + np.eye(5))
    centre = covariance @ slopes.T @ data
    total = np.eye(20) + slopes @ slopes.T
    evidence = -0.5 * (data @ np.linalg.solve(total, data) + np.linalg.slogdet(total)[1])
    fitted = laplace(toy, fit_at(toy, centre), inflate=False)
    for found in (ensemble_search(toy), widened(fitted), fitted):
        np.testing.assert_allclose(found.u, centre, atol=1e-9)
        np.testing.assert_allclose(found.covariance, covariance, atol=1e-9)
        assert found.evidence == pytest.approx(evidence, abs=1e-8)


def test_kinks_do_not_make_the_posterior_narrow():
    """A steep staircase: its local slope says less of the parameter than its mean slope."""

    def residual(u):
        wave = jnp.abs((8.0 * u) % 2.0 - 1.0) - 0.5  # triangles, of slope 8
        return 4.0 * (u + 0.4 * wave)

    toy = Toy(1, residual)
    x = np.linspace(-3.0, 3.0, 60001)
    r = np.asarray(jax.vmap(residual)(jnp.asarray(x)[:, None]))[:, 0]
    density = np.exp(-0.5 * (r**2 + x**2))
    density /= density.sum()
    sd = np.sqrt(x**2 @ density - (x @ density) ** 2)
    start = x[np.argmin(r**2 + x**2)]
    narrow = laplace(toy, fit_at(toy, np.array([start])), inflate=False)
    found = widened(narrow)
    assert narrow.contraction[0] < 0.45 * sd
    assert found.contraction[0] == pytest.approx(sd, rel=0.25)


def test_centre_counts_the_space_that_a_gain_leaves_to_the_others():
    """Amplitudes times one gain, the posterior mean of which is an integral in one variable."""
    data, noise = np.array([1.0, 0.6, -0.8]), 0.2

    def residual(u):
        return (jnp.exp(0.5 * u[0]) * u[1:] - jnp.asarray(data)) / noise

    def density(g):
        variance = np.exp(g) + noise**2
        square = (data**2 / variance).sum() + len(data) * np.log(variance)
        return np.exp(-0.5 * (square + g**2))

    total, first, second = (
        integrate.quad(lambda g, k=k: g**k * density(g), -6, 6)[0] for k in range(3)
    )
    mean = first / total
    sd = np.sqrt(second / total - mean**2)
    toy = Toy(4, residual)
    fitted = laplace(toy, best(toy, np.array([0.5, 0.5, 0.5, -0.5])), inflate=False)
    found = widened(fitted)
    assert abs(fitted.u[0] - mean) > sd
    assert abs(found.u[0] - mean) < 0.5 * abs(fitted.u[0] - mean)


def test_search_leaves_a_local_optimum():
    """Seen from the prior's centre the nearest optimum is not the best one."""

    def residual(u):
        return jnp.stack([4.0 * (u[0] - 1.5) + 2.5 * jnp.sin(15.0 * u[0]), 2.0 * (u[1] - u[0])])

    toy = Toy(2, residual)
    x = np.linspace(-3, 3, 601)
    grid = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 2)
    r = np.asarray(jax.vmap(residual)(jnp.asarray(grid)))
    least = grid[np.argmin((r**2).sum(axis=1) + (grid**2).sum(axis=1))]
    assert abs(best(toy, np.zeros(2)).u - least).max() > 0.3  # a descent does not
    found = best(toy, ensemble_search(toy, draws=200).u)
    np.testing.assert_allclose(found.u, least, atol=0.02)


def test_a_model_that_is_rarely_finite_is_refused():
    toy = Toy(3, lambda u: jnp.where(u[0] > 2.0, u, jnp.inf))
    with pytest.raises(SolverError, match="finite for"):
        ensemble_search(toy)
    with pytest.raises(SolverError, match="narrow the priors"):
        widened(laplace(toy, Fit(np.zeros(3), {}, 1.0, 1.0, np.eye(3), [], "converged")))
