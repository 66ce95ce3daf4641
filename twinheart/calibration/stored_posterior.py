"""The posterior in the file of a calibrated twin, read without the data that it came from.

A twin file holds a Gaussian in standard numbers for the QRS and, where it was fitted, one for the T
wave, and says the prior of every number, so that draws become physical values again.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from twinheart.calibration.priors import KINDS, Prior, prior_of
from twinheart.calibration.stored_entries import read_array, read_words
from twinheart.errors import InputError, TwinheartError

_SYMMETRIC = 1e-6  # of the largest entry
_DAMAGE = (OSError, LookupError, ValueError, TypeError, RuntimeError, AttributeError, OverflowError)


class StoredPosterior(NamedTuple):
    """A Gaussian posterior in standard numbers, with the priors they stand for.

    Attributes
    ----------
    stage : str
        ``"qrs"`` or ``"t_wave"``.
    names, units : tuple of str
        Of the parameters, such as ``"cv_l"`` or ``"site.onset[LV lateral]"``.
    priors : tuple of Prior
        One for each.
    centre : (parameter,) array
        Standard numbers of the best fit.
    covariance : (parameter, parameter) array
        Around it.
    """

    stage: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    priors: tuple[Prior, ...]
    centre: Float[np.ndarray, "parameter"]
    covariance: Float[np.ndarray, "parameter parameter2"]

    def physical(self, standard: Float[np.ndarray, "parameter"]) -> dict[str, float]:
        """Physical values of standard numbers, by name."""
        return {
            name: float(prior.from_standard(u))
            for name, prior, u in zip(self.names, self.priors, standard, strict=True)
        }

    def draw(self, rng: np.random.Generator) -> dict[str, float]:
        """Physical values drawn from the posterior, by name."""
        root = np.linalg.cholesky(self.covariance)
        return self.physical(self.centre + root @ rng.normal(size=len(self.centre)))


def read_posterior(path: str | Path) -> tuple[StoredPosterior, ...]:
    """Read the posteriors of a calibrated twin.

    Parameters
    ----------
    path : path
        File that `twinheart.calibration.write_twin` wrote; `twinheart.calibration.load_twin` judges
        all the rest of it.

    Returns
    -------
    tuple of StoredPosterior
        That of the QRS, then that of the T wave where it was fitted.

    Raises
    ------
    InputError
        If there is no such file, or it is damaged.

    Examples
    --------
    >>> from twinheart.calibration.stored_posterior import read_posterior
    >>> read_posterior("nowhere.h5")
    Traceback (most recent call last):
    ...
    twinheart.errors.InputError: there is no twin 'nowhere.h5': make one with 'twinheart calibrate'.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no twin '{path}': make one with 'twinheart calibrate'.")
    try:
        with h5py.File(path, "r") as file:
            found = []
            for stage, rows in read_words(file, "parameters", dict).items():
                u = read_array(file, f"posterior/{stage}/standard_numbers", 1)
                covariance = read_array(file, f"posterior/{stage}/covariance", 2)
                found.append(_posterior(str(stage), rows, u, covariance))
    except (TwinheartError, np.linalg.LinAlgError, *_DAMAGE) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"the posterior of the twin '{path}' cannot be read ({reason}): make the twin anew "
            "with 'twinheart calibrate'."
        ) from None
    return tuple(found)


def _posterior(stage: str, rows: list[Mapping[str, Any]], u, covariance) -> StoredPosterior:
    if len(u) != len(rows) or covariance.shape != (len(u), len(u)):
        raise ValueError(f"its {len(rows)} parameters do not fit its numbers")
    if np.abs(covariance - covariance.T).max(initial=0) > _SYMMETRIC * np.abs(covariance).max(
        initial=1e-300
    ):
        raise ValueError("its covariance is not symmetric")
    np.linalg.cholesky(covariance)  # refused now where it is none
    names = tuple(str(row["name"]) for row in rows)
    units = tuple(str(row["unit"]) for row in rows)
    priors = tuple(_prior(str(row["prior"]), name) for row, name in zip(rows, names, strict=True))
    return StoredPosterior(stage, names, units, priors, u, covariance)


def _prior(text: str, name: str) -> Prior:
    """Prior from what it prints, such as ``Uniform(low=0.4, high=1.2)``."""
    found = re.fullmatch(r"(\w+)\(([^()]*)\)", text)
    kind = found.group(1).lower() if found else ""
    if found is None or kind not in KINDS:
        raise ValueError(f"its prior of {name} is '{text[:60]}'")
    numbers = dict(part.strip().split("=", 1) for part in found.group(2).split(","))
    return prior_of({"prior": kind, **{k: float(v) for k, v in numbers.items()}}, name)
