r"""The cycle of a closed way: re-entry slows down until each place has recovered before it.

A wave that comes back after T finds at each place the diastolic interval that is left of T,

.. math:: DI_k + APD_k(DI_k) = T, \qquad T = \sum_k \frac{t_k}{\varphi_k(DI_k)},

for the times :math:`t_k` of the way at rest and the restitution :math:`\varphi, APD` of its places.
The right side falls with T, so there is one steady cycle or none. There is none if even at the
shortest cycle that all places follow, :math:`\max_k (DI_k + APD_k)_{min}`, the wave would be back
earlier: it meets refractory tissue. With velocities at rest alone, circuits that last because they
slow down would be missed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_TOLERANCE = 1e-6  # ms


class SteadyCycle(NamedTuple):
    """What comes of a closed way.

    Attributes
    ----------
    length : float
        Of the steady cycle [ms]; where there is none, the longest time that the way can take.
    refractory : float
        Shortest cycle that all places follow [ms].
    sustained : bool
        Whether there is a steady cycle.
    """

    length: float
    refractory: float
    sustained: bool


def steady_cycle(
    times: Float[np.ndarray, "place"],
    rows: Float[np.ndarray, "table interval 3"],
    of: Sequence[int] | np.ndarray,
) -> SteadyCycle:
    """Steady cycle of a closed way.

    Parameters
    ----------
    times : (place,) array
        Time that the way takes at each place at rest [ms].
    rows : (table, interval, 3) array
        Restitution, see `twinheart.tissue.wave_table.stacked`.
    of : (place,) sequence of int
        Which of them each place has.

    Returns
    -------
    SteadyCycle
        The cycle, and whether it lasts.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.planning.circuits.steady_cycle import steady_cycle
    >>> from twinheart.tissue.wave_table import WaveTable, stacked
    >>> rows = stacked([WaveTable([20.0, 120.0], [0.5, 1.0], [180.0, 180.0])])
    >>> found = steady_cycle(np.array([100.0, 60.0]), rows, [0, 0])
    >>> round(found.length, 1), found.sustained  # 160 / (0.5 + 0.5 (T - 200) / 100) = T
    (235.7, True)
    >>> steady_cycle(np.array([40.0, 50.0]), rows, [0, 0]).sustained  # 180 ms at most
    False
    """
    kinds, place = np.unique(of, return_inverse=True)
    spent = np.bincount(place, np.asarray(times, dtype=float))
    di, speed, apd = np.moveaxis(rows[kinds], 2, 0)
    follows = np.maximum.accumulate(di + apd, axis=1)

    def taken(cycle: float) -> float:
        """Time of a turn when the one before took `cycle`."""
        shares = [np.interp(cycle, at, own) for at, own in zip(follows, speed, strict=True)]
        return float((spent / shares).sum())

    refractory = float(follows[:, 0].max())
    low, high = refractory, taken(refractory)
    if not high > low:
        return SteadyCycle(float(high), refractory, False)
    while high - low > _TOLERANCE:
        middle = (low + high) / 2
        low, high = (middle, high) if taken(middle) > middle else (low, middle)
    return SteadyCycle(float(high), refractory, True)
