"""Groups of nodes that depend on each other, and linear solves with them, compiled by numba.

At the fixed point of the eikonal updates every node depends on at most three others: those that its
arrival comes from. Nearly all come earlier, so that the matrix of the weights is almost triangular;
a few come later, where an angle is obtuse, and then some nodes depend on each other.

This module needs numba and is imported only where it is used.
"""

from typing import no_type_check

import numpy as np
from numba import njit

TURNS = 10_000  # of Gauss-Seidel in a group of nodes
_compiled = njit(nogil=True, cache=True, error_model="numpy")


@_compiled
@no_type_check
def components(columns, weights):
    """Groups of nodes that depend on each other, each after those that it depends on.

    Nearly all have one node; more where a node comes from a later one. Tarjan's algorithm
    (doi:10.1137/0201010).

    Parameters
    ----------
    columns, weights : (node, 3) arrays
        Dependencies; those of no weight do not count.

    Returns
    -------
    order, start
        Nodes group by group (node,), and where each group starts (group + 1,).
    """
    n = len(columns)
    number, low = np.full(n, -1, np.int32), np.zeros(n, np.int32)
    done, following = np.zeros(n, np.bool_), np.zeros(n, np.int8)
    stack, path = np.empty(n, np.int32), np.empty(n, np.int32)
    order, start = np.empty(n, np.int32), np.empty(n + 1, np.int64)
    held, count, found, groups = 0, 0, 0, 0
    start[0] = 0
    for root in range(n):
        if number[root] >= 0:
            continue
        path[0], depth = root, 1
        while depth > 0:
            node = path[depth - 1]
            if number[node] < 0:
                number[node] = low[node] = count
                count += 1
                stack[held] = node
                held += 1
            k = following[node]
            if k < 3:
                following[node] += 1
                other = columns[node, k]
                if weights[node, k] > 0.0 and not done[other]:
                    if number[other] < 0:
                        path[depth] = other
                        depth += 1
                    else:
                        low[node] = min(low[node], number[other])
                continue
            depth -= 1
            if depth > 0:
                low[path[depth - 1]] = min(low[path[depth - 1]], low[node])
            if low[node] == number[node]:
                while True:
                    held -= 1
                    member = stack[held]
                    done[member] = True
                    order[found] = member
                    found += 1
                    if member == node:
                        break
                groups += 1
                start[groups] = found
    return order, start[: groups + 1]


@_compiled
@no_type_check
def solve_tangent(columns, weights, right):
    """Solve ``(I - W) x = right``, group by group."""
    x = right.copy()
    order, start = components(columns, weights)
    for c in range(len(start) - 1):
        for _ in range(TURNS):
            moved, largest = 0.0, 0.0
            for m in range(start[c], start[c + 1]):
                node = order[m]
                u = right[node]
                for k in range(3):
                    if weights[node, k] > 0.0:
                        u += weights[node, k] * x[columns[node, k]]
                moved = max(moved, abs(u - x[node]))
                largest = max(largest, abs(u))
                x[node] = u
            if start[c + 1] - start[c] == 1 or moved <= 1e-16 * largest:
                break
    return x


@_compiled
@no_type_check
def solve_adjoint(columns, weights, right):
    """Solve ``(I - W)^T y = right``: what arrives at a node is carried on to those it came from."""
    rest = right.copy()
    y = np.zeros_like(right)
    order, start = components(columns, weights)
    for c in range(len(start) - 2, -1, -1):
        total = 0.0
        for m in range(start[c], start[c + 1]):
            total += abs(rest[order[m]])
        for _ in range(TURNS):
            for m in range(start[c + 1] - 1, start[c] - 1, -1):
                node = order[m]
                r = rest[node]
                rest[node] = 0.0
                y[node] += r
                for k in range(3):
                    if weights[node, k] > 0.0:
                        rest[columns[node, k]] += weights[node, k] * r
            if start[c + 1] - start[c] == 1:
                break
            left = 0.0
            for m in range(start[c], start[c + 1]):
                left += abs(rest[order[m]])
            if left <= 1e-17 * total:
                break
    return y


@_compiled
@no_type_check
def incidence(cells, n):
    """Elements of every node: where each node's list starts, and corners x element + corner."""
    size = cells.shape[1]
    start = np.zeros(n + 1, np.int64)
    for cell in range(len(cells)):
        for k in range(size):
            start[cells[cell, k] + 1] += 1
    start = np.cumsum(start)
    entries = np.empty(start[-1], np.int32)
    at = start[:-1].copy()
    for cell in range(len(cells)):
        for k in range(size):
            node = cells[cell, k]
            entries[at[node]] = cell * size + k
            at[node] += 1
    return start, entries
