"""Latest activation within some ways along the edges of a mesh, compiled by numba.

This module needs numba and is imported only where it is used.
"""

from heapq import heappop, heappush
from typing import no_type_check

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, error_model="numpy")
@no_type_check
def latest_nearby(start, end, length, times, order, radii):
    """Latest time within each radius of each node, itself included.

    Nodes are taken from the latest on, and each goes out only to where no later one is as near: a
    node that is neither later nor nearer than another changes no maximum. So all radii together
    take one pass, and few of the pairs within the largest are looked at.

    Parameters
    ----------
    start : (node + 1,) int array
        Where the neighbours of each node begin in `end`.
    end, length : (link,) arrays
        Neighbours and their distances [mm].
    times : (node,) array
        Activation [ms].
    order : (active,) int array
        Active nodes, the latest first.
    radii : (radius,) array
        In ascending order [mm].

    Returns
    -------
    (radius, node) array
        Latest times; minus infinity at nodes that are not active.
    """
    nearest = np.full(len(start) - 1, np.inf)
    latest = np.full((len(radii), len(start) - 1), -np.inf)
    for source in order:
        nearest[source] = 0.0
        heap = [(0.0, source)]
        while len(heap):
            way, node = heappop(heap)
            if way > nearest[node]:
                continue
            for k in range(len(radii) - 1, -1, -1):
                if radii[k] < way:
                    break
                latest[k, node] = max(latest[k, node], times[source])
            for link in range(start[node], start[node + 1]):
                farther = way + length[link]
                other = end[link]
                if farther <= radii[-1] and farther < nearest[other]:
                    nearest[other] = farther
                    heappush(heap, (farther, other))
    return latest
