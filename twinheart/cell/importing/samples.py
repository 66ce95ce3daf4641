"""Values of all variables of an imported model over voltage, to see where they are finite."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from twinheart.cell.importing.expression import Equations, evaluate, ref

# Voltages [mV] over which an imported model is made finite.
LOWEST, HIGHEST = -150.0, 150.0


def state_samples(
    states: Mapping[str, float], membrane: str, volts: float, count: int = 3, step: float = 0.5
) -> dict[str, Any]:
    """States on a grid of voltages, first at their initial values, then around them.

    Parameters
    ----------
    states : mapping
        Initial values, in units of the file.
    membrane : str
        Name of the membrane potential.
    volts : float
        File units of voltage per mV.
    count : int
        Number of states drawn.
    step : float
        Width of the grid of voltages [mV].

    Returns
    -------
    dict
        (count, voltage) arrays.
    """
    rng = np.random.default_rng(0)
    vm = np.arange(LOWEST, HIGHEST + step / 2, step)
    found = {}
    for name, value in states.items():
        draws = value * rng.uniform(0.8, 1.2, (count, 1))
        draws[0] = value
        found[name] = draws
    found[membrane] = np.broadcast_to(volts * vm, (count, len(vm)))
    return found


def all_values(equations: Equations, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the derived variables from those of states, constants and what is bound."""
    values: dict[str, Any] = {"i_stim": 0.0, **given}
    with np.errstate(all="ignore"):
        for name in equations.ordered([ref(n) for n in equations], lambda _: ""):
            values[name] = evaluate(equations[name], values)
    return values


def finite_where(values: Any, mask: Any) -> bool:
    """Whether values are finite wherever the mask is true."""
    values, mask = np.broadcast_arrays(values, mask)
    return bool(np.isfinite(values[mask]).all())
