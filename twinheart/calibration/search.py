"""From rough to exact: screening of many starts, and fits under a noise that is lowered."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from twinheart.calibration.fit import Fit, best_starts, fit
from twinheart.calibration.objective import Objective

# Root mean square of the whitened residual that a tempered fit starts with.
_ROUGH = 3.0
_ROUNDS = 8
# Of the gain with which the model is as large as the data: a start is not made smaller.
_LEAST_SIZE = 0.3


def tempered(objective: Objective, factor: float) -> Objective:
    """The same objective with noise larger by a factor.

    Parameters
    ----------
    objective : Objective
        What to make small.
    factor : float
        On the standard deviation of the noise.

    Returns
    -------
    Objective
        Its data tempered, see `Observation.tempered`.
    """
    return eqx.tree_at(lambda o: o.data, objective, objective.data.tempered(factor))


def annealed_fit(
    objective: Objective,
    start: Float[np.ndarray, "parameter"],
    *,
    rounds: int = _ROUNDS,
    iterations: int = 8,
    progress: Callable[[dict[str, float]], None] | None = None,
) -> Fit:
    """Fit with noise taken larger at first, so that the prior holds what the data cannot yet tell.

    Parameters
    ----------
    objective : Objective
        What to make small.
    start : (parameter,) array
        Standard numbers.
    rounds : int
        At most so many levels of noise.
    iterations : int
        On each of them.
    progress : callable, optional
        See `fit`.

    Returns
    -------
    Fit
        Under the noise of the data, with the history of all levels.
    """
    u, history = np.asarray(start, float), []
    factor = np.inf
    for _ in range(rounds):
        r = np.asarray(objective.residuals(u[None]))[0]
        factor = min(factor / 2.0, float(np.sqrt(np.mean(r**2))) / _ROUGH)
        if factor < 1.3:
            break
        rough = tempered(objective, factor)
        found = fit(rough, u, iterations=iterations, tolerance=0.02, patience=1, progress=progress)
        u, history = found.u, history + found.history
    last = fit(objective, u, iterations=4 * iterations, progress=progress)
    return dataclasses.replace(last, history=history + last.history)


def in_size(
    objective: Objective, starts: Float[np.ndarray, "start parameter"]
) -> Float[np.ndarray, "start parameter"]:
    """Starts with the gain that suits them best, instead of a drawn one.

    A start whose leads point the wrong way would lose least with no leads at all: it would win with
    a small gain, and a fit could not leave it, since nothing else has an effect then. So the leads
    never get smaller than a third of the data.

    Parameters
    ----------
    objective : Objective
        Model and data.
    starts : (start, parameter) array
        Standard numbers.

    Returns
    -------
    (start, parameter) array
        The same where there is no ``gain``.
    """
    if "gain" not in objective.free or not len(starts):
        return starts
    k, (prior,) = objective.free.names.index("gain"), _priors(objective, "gain")
    data = np.asarray(objective.data.residual(jnp.zeros_like(objective.data.signals)), float)
    leads = data - np.asarray(objective.residuals(starts), float)
    power = np.maximum((leads**2).sum(axis=1), 1e-30)
    alike = np.sqrt((data @ data) / power)
    factor = np.maximum(leads @ data / power, _LEAST_SIZE * alike)
    gain = np.array([float(prior.from_standard(u[k])) for u in starts]) * factor
    found = np.array(starts, float)
    own = prior.to_standard(gain)
    found[:, k] = np.where(np.isfinite(own), own, found[:, k])
    return found


def _priors(objective: Objective, name: str):
    return next(entry.priors for entry in objective.free.entries if entry.name == name)


def search(
    objective: Objective,
    starts: Float[np.ndarray, "start parameter"],
    *,
    keep: int = 3,
    iterations: int = 8,
    progress: Callable[[dict[str, float]], None] | None = None,
) -> list[Fit]:
    """Fit from the most promising of many starts; the best fit first.

    Parameters
    ----------
    objective : Objective
        What to make small.
    starts : (start, parameter) array
        Standard numbers, such as draws from the prior.
    keep : int
        From how many of them to fit.
    iterations : int
        Of each level of `annealed_fit`.
    progress : callable, optional
        See `fit`.

    Returns
    -------
    list of Fit
        Sorted by loss.
    """
    r = np.asarray(objective.residuals(starts[:1]))[0]
    rough = tempered(objective, max(1.0, float(np.sqrt(np.mean(r**2))) / _ROUGH))
    chosen = best_starts(rough, in_size(rough, starts), keep)
    fits = [
        annealed_fit(objective, start, iterations=iterations, progress=progress) for start in chosen
    ]
    return sorted(fits, key=lambda found: found.loss)
