r"""Posterior of several optima: a mixture of the Gaussians around them.

An ECG often has more than one explanation. The Gaussian around each distinct optimum holds a
probability in proportion to its evidence; for `laplace`, with loss :math:`\ell` and covariance C,
that is :math:`e^{-\ell} |C|^{1/2}`.
"""

from collections.abc import Sequence

import equinox as eqx
import numpy as np
from jaxtyping import Float
from scipy import stats

from twinheart.calibration.fit import Fit
from twinheart.calibration.linearisation import widened
from twinheart.calibration.objective import Objective
from twinheart.calibration.posterior import Posterior, distinct, gaussian, laplace


class Mixture(eqx.Module):
    """Gaussian posteriors with weights.

    Made by `mixture`.

    Attributes
    ----------
    parts : tuple of Posterior
        One for each distinct optimum, that of least loss first.
    weights : (part,) array
        Their probabilities.
    """

    parts: tuple[Posterior, ...]
    weights: Float[np.ndarray, "part"]

    @property
    def mean(self) -> Float[np.ndarray, "parameter"]:
        """Of standard numbers."""
        return self.weights @ np.stack([part.u for part in self.parts])

    @property
    def sd(self) -> Float[np.ndarray, "parameter"]:
        """Of standard numbers; the prior has 1."""
        square = [part.u**2 + np.diag(part.covariance) for part in self.parts]
        return np.sqrt(self.weights @ np.stack(square) - self.mean**2)

    def rank(self, u: Float[np.ndarray, "parameter"]) -> Float[np.ndarray, "parameter"]:
        """Probability that each parameter is smaller than this."""
        below = [stats.norm.cdf((u - part.u) / part.contraction) for part in self.parts]
        return self.weights @ np.stack(below)


def mixture(
    objective: Objective, fits: Sequence[Fit], *, inflate: bool = True, seed: int | None = None
) -> Mixture:
    """Mix the Gaussians around the distinct optima of several fits.

    Parameters
    ----------
    objective : Objective
        What was fitted.
    fits : sequence of Fit
        Best first.
    inflate : bool
        As of `laplace`, the same for all.
    seed : int, optional
        Widen each Gaussian by `twinheart.calibration.linearisation.widened`, with these draws.

    Returns
    -------
    Mixture
        The posterior.

    Examples
    --------
    See `twinheart.calibration.sbc.sbc_case`.
    """
    first = laplace(objective, fits[0], inflate=inflate)
    parts = [gaussian(objective, found, first.scale) for found in distinct(fits, first)]
    if seed is not None:
        parts = [widened(part, seed=seed) for part in parts]
    evidence = np.array([part.evidence for part in parts])
    weights = np.exp(evidence - evidence.max())
    return Mixture(tuple(parts), weights / weights.sum())
