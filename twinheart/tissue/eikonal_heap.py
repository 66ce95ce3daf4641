"""A heap of nodes by their times, in which a node can be moved, compiled by numba.

This module needs numba and is imported only where it is used.
"""

import math
from typing import no_type_check

from numba import njit

_compiled = njit(nogil=True, cache=True, error_model="numpy")


@_compiled
@no_type_check
def rises(heap, place, keys, k):
    """Move the node at slot `k` of the heap up to where it belongs."""
    node = heap[k]
    key = keys[node]
    while k > 0:
        parent = (k - 1) >> 2
        above = heap[parent]
        if keys[above] <= key:
            break
        heap[k] = above
        place[above] = k
        k = parent
    heap[k] = node
    place[node] = k


@_compiled
@no_type_check
def pops(heap, place, keys, size):
    """Take the first node off a heap of this size and mend it."""
    first = heap[0]
    place[first] = -1
    size -= 1
    if size == 0:
        return first
    node = heap[size]
    key = keys[node]
    k = 0
    while True:
        child = 4 * k + 1
        if child >= size:
            break
        least = child
        for other in range(child + 1, min(child + 4, size)):
            if keys[heap[other]] < keys[heap[least]]:
                least = other
        if keys[heap[least]] >= key:
            break
        heap[k] = heap[least]
        place[heap[k]] = k
        k = least
    heap[k] = node
    place[node] = k
    return first


@_compiled
@no_type_check
def queue(node, heap, place, t, size):
    """Put a node on the heap, or move it up there; the size of the heap."""
    k = place[node]
    if k < 0:
        k = size
        heap[k] = node
        size += 1
    rises(heap, place, t, k)
    return size


@_compiled
@no_type_check
def drops(node, heap, place, keys, size):
    """Take a node off the heap, wherever it is; the size of the heap."""
    keys[node] = -math.inf
    rises(heap, place, keys, place[node])
    pops(heap, place, keys, size)
    keys[node] = math.inf
    return size - 1
