r"""Prior beliefs about a parameter, as maps from a standard normal number.

Every prior is a bijection :math:`x = g(u)` with :math:`u \sim N(0, 1)`. A fit moves the numbers u:
bounds cannot be crossed, a step of one is a step of one prior standard deviation whatever the unit,
and the log-prior is :math:`-\|u\|^2 / 2`.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Float
from scipy import special

from twinheart.errors import InputError
from twinheart.types import Array

# Standard numbers further out stand for the bounds themselves.
_OUTERMOST = 6.0


class Normal(eqx.Module):
    """Gaussian prior.

    Parameters
    ----------
    mean, sd : float
        Centre and standard deviation.

    Examples
    --------
    >>> from twinheart.calibration import Normal
    >>> float(Normal(20.0, 5.0).from_standard(-1.0)), float(Normal(20.0, 5.0).to_standard(15.0))
    (15.0, -1.0)
    """

    mean: float = eqx.field(static=True)
    sd: float = eqx.field(static=True)

    def __check_init__(self):
        _check(self, self.sd > 0, "a positive sd")

    def from_standard(self, u: Any) -> Array:
        """Physical value."""
        return self.mean + self.sd * jnp.asarray(u)

    def to_standard(self, x: Any) -> Float[np.ndarray, "..."]:
        """Standard number of a physical value."""
        return np.asarray((np.asarray(x, float) - self.mean) / self.sd)


class LogNormal(eqx.Module):
    """Prior of a positive number, Gaussian in its logarithm.

    Parameters
    ----------
    median : float
        Half of the belief lies below.
    factor : float
        A standard deviation up multiplies by it.

    Examples
    --------
    >>> from twinheart.calibration import LogNormal
    >>> round(float(LogNormal(0.6, 1.25).from_standard(1.0)), 6)
    0.75
    """

    median: float = eqx.field(static=True)
    factor: float = eqx.field(static=True)

    def __check_init__(self):
        _check(self, self.median > 0 and self.factor > 1, "a positive median and a factor over 1")

    def from_standard(self, u: Any) -> Array:
        """Physical value."""
        return self.median * jnp.exp(np.log(self.factor) * jnp.asarray(u))

    def to_standard(self, x: Any) -> Float[np.ndarray, "..."]:
        """Standard number of a physical value; it must be positive."""
        x = np.asarray(x, float)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.log(x / self.median) / np.log(self.factor))


class Uniform(eqx.Module):
    """Every value between two bounds is equally likely.

    Parameters
    ----------
    low, high : float
        Bounds.

    Examples
    --------
    >>> from twinheart.calibration import Uniform
    >>> round(float(Uniform(0.2, 0.6).from_standard(0.0)), 6)
    0.4
    """

    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)

    def __check_init__(self):
        _check(self, self.high > self.low, "low below high")

    def from_standard(self, u: Any) -> Array:
        """Physical value."""
        return self.low + (self.high - self.low) * ndtr(jnp.asarray(u))

    def to_standard(self, x: Any) -> Float[np.ndarray, "..."]:
        """Standard number of a value between the bounds; infinite at them, NaN beyond."""
        share = (np.asarray(x, float) - self.low) / (self.high - self.low)
        return np.asarray(np.clip(special.ndtri(share), -_OUTERMOST, _OUTERMOST))


Prior = Normal | LogNormal | Uniform
KINDS: dict[str, type] = {"normal": Normal, "lognormal": LogNormal, "uniform": Uniform}


def _check(prior, sound: bool, wanted: str) -> None:
    numbers = vars(prior)
    if not (all(np.isfinite(x) for x in numbers.values()) and sound):
        given = ", ".join(f"{name} = {x:g}" for name, x in numbers.items())
        kind = type(prior).__name__.lower()
        raise InputError(f"a {kind} prior with {given}: expected finite numbers and {wanted}.")


def prior_of(table: dict[str, Any], name: str) -> Prior:
    """Prior from a table of a case file, such as ``{"prior": "normal", "mean": 0, "sd": 5}``.

    Parameters
    ----------
    table : dict
        ``prior``, one of `KINDS`, and its numbers.
    name : str
        Parameter, for messages.

    Returns
    -------
    Prior
        One of `Normal`, `LogNormal`, `Uniform`.

    Raises
    ------
    InputError
        If the kind is unknown, or numbers are missing, too many or make no sense.

    Examples
    --------
    >>> from twinheart.calibration.priors import prior_of
    >>> prior_of({"prior": "uniform", "low": 0.1, "high": 0.9}, "site.ab")
    Uniform(low=0.1, high=0.9)
    """
    kind = table.get("prior")
    if kind not in KINDS:
        raise InputError(
            f"parameter {name} has prior {kind!r}, expected one of {', '.join(KINDS)}."
        )
    given = {key: value for key, value in table.items() if key != "prior"}
    wanted = list(KINDS[kind].__dataclass_fields__)
    if sorted(given) != sorted(wanted):
        raise InputError(
            f"the {kind} prior of {name} has {', '.join(given) or 'no numbers'}, expected "
            f"{' and '.join(wanted)}."
        )
    try:
        return KINDS[kind](**{key: float(value) for key, value in given.items()})
    except (TypeError, ValueError):
        raise InputError(f"the {kind} prior of {name} has values that are no numbers.") from None
    except InputError as error:
        raise InputError(f"parameter {name}: {error}") from None
