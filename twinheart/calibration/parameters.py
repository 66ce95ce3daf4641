"""What a calibration may change: named numbers with priors, and vectors that a fit moves."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from twinheart.calibration.priors import Prior
from twinheart.errors import InputError
from twinheart.types import Array


class Parameter(eqx.Module):
    """One free number of a twin, or a list of numbers of one kind.

    Parameters
    ----------
    name : str
        What it is, see `twinheart.calibration.KNOWN`.
    priors : tuple of Prior
        One for each number.
    labels : tuple of str
        What each of them belongs to, such as the name of a site; empty for a single number.
    unit : str
        Unit of the numbers.
    source : str
        Where the prior comes from.

    Examples
    --------
    >>> from twinheart.calibration import LogNormal, Parameter
    >>> Parameter("cv_l", (LogNormal(0.6, 1.2),), unit="m/s").full_names
    ('cv_l',)
    """

    name: str = eqx.field(static=True)
    priors: tuple[Prior, ...] = eqx.field(static=True)
    labels: tuple[str, ...] = eqx.field(static=True, default=())
    unit: str = eqx.field(static=True, default="")
    source: str = eqx.field(static=True, default="")

    def __check_init__(self):
        if len(self.priors) != max(len(self.labels), 1):
            raise InputError(
                f"parameter {self.name} has {len(self.priors)} priors and {len(self.labels)} "
                "labels: expected one label for each prior, or a single prior without."
            )

    @property
    def full_names(self) -> tuple[str, ...]:
        """One name for each number."""
        return tuple(f"{self.name}[{label}]" for label in self.labels) or (self.name,)


class Parameters(eqx.Module):
    """The free numbers of a calibration, in one order.

    Parameters
    ----------
    entries : sequence of Parameter
        Names must differ.

    Raises
    ------
    InputError
        If a name repeats.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from twinheart.calibration import LogNormal, Normal, Parameter, Parameters
    >>> free = Parameters([
    ...     Parameter("cv_l", (LogNormal(0.6, 1.2),), unit="m/s"),
    ...     Parameter("site.onset", (Normal(0.0, 5.0), Normal(9.0, 5.0)), ("septum", "lateral")),
    ... ])
    >>> free.names
    ('cv_l', 'site.onset[septum]', 'site.onset[lateral]')
    >>> free.physical(jnp.zeros(3))["site.onset"].tolist()
    [0.0, 9.0]
    """

    entries: tuple[Parameter, ...] = eqx.field(static=True)

    def __init__(self, entries: Iterable[Parameter]):
        self.entries = tuple(entries)
        names = [entry.name for entry in self.entries]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise InputError(f"parameters are given twice: {', '.join(sorted(twice))}.")

    def __len__(self) -> int:
        return sum(len(entry.priors) for entry in self.entries)

    def __contains__(self, name: str) -> bool:
        return any(entry.name == name for entry in self.entries)

    @property
    def names(self) -> tuple[str, ...]:
        """Full name of every number."""
        return tuple(name for entry in self.entries for name in entry.full_names)

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of every number."""
        return tuple(entry.unit for entry in self.entries for _ in entry.priors)

    def labels(self, name: str) -> tuple[str, ...]:
        """What the numbers of a parameter belong to; empty where it is one number, or not here."""
        return next((entry.labels for entry in self.entries if entry.name == name), ())

    def physical(self, u: Float[Array, "parameter"]) -> dict[str, Array]:
        """Physical values from standard numbers: (count,) arrays by name; differentiable."""
        values, first = {}, 0
        for entry in self.entries:
            own = [p.from_standard(u[first + k]) for k, p in enumerate(entry.priors)]
            values[entry.name] = jnp.stack(own)
            first += len(own)
        return values

    def flat(self, u: Float[Array, "parameter"]) -> Float[Array, "parameter"]:
        """Physical values in the order of `names`."""
        return jnp.concatenate([jnp.zeros(0), *self.physical(u).values()])

    def standard(self, values: Mapping[str, Any]) -> Float[np.ndarray, "parameter"]:
        """Standard numbers of physical values; those not given are at their prior's centre.

        Raises
        ------
        InputError
            If a name is unknown, or a value lies outside its bounds.
        """
        unknown = [name for name in values if name not in self]
        if unknown:
            raise InputError(unknown_parameter(unknown[0], [e.name for e in self.entries]))
        result = []
        for entry in self.entries:
            if entry.name not in values:
                result += [0.0] * len(entry.priors)
                continue
            own = np.broadcast_to(np.asarray(values[entry.name], float), (len(entry.priors),))
            for prior, full, x in zip(entry.priors, entry.full_names, own, strict=True):
                u = float(prior.to_standard(x))
                if not np.isfinite(u):
                    raise InputError(
                        f"{full} starts at {x:g} {entry.unit}, outside the bounds of its prior "
                        f"{prior}."
                    )
                result.append(u)
        return np.array(result)

    def only(self, names: Sequence[str]) -> "Parameters":
        """Those with the given names, in the order of this list."""
        return Parameters(entry for entry in self.entries if entry.name in names)

    def without(self, names: Sequence[str]) -> "Parameters":
        """All but those with the given names."""
        return Parameters(entry for entry in self.entries if entry.name not in names)


def unknown_parameter(name: str, known: Sequence[str]) -> str:
    """Message for a name that no parameter has.

    Parameters
    ----------
    name : str
        What was asked for.
    known : sequence of str
        What there is.

    Returns
    -------
    str
        With the nearest name.

    Examples
    --------
    >>> from twinheart.calibration.parameters import unknown_parameter
    >>> unknown_parameter("cv_r", ["cv_t", "gain"])
    "unknown parameter 'cv_r'; the nearest is 'cv_t'. Known: cv_t, gain."
    """
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    hint = f"; the nearest is '{near[0]}'" if near else ""
    return f"unknown parameter '{name}'{hint}. Known: {', '.join(known)}."
