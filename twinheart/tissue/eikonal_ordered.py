r"""Ordered eikonal solver for CPUs, compiled by numba: a heap whose labels may still be corrected.

Nodes leave a heap in order of arrival. A node that leaves updates the corners of its elements from
those corners that have left before; a corner that had left already and still becomes earlier, as
happens where an angle is obtuse in the metric, returns to the heap. Every update is the exact
minimum over a face, and its minimiser is kept: the element, the corner and the barycentric weights.
A few Gauss-Seidel sweeps over the minimisers, in order of arrival, end at the fixed point to
rounding.

Elements are known by the squared lengths of their edges in the metric of slowness [ms^2], in the
order 01, 02, 03, 12, 13, 23 for tetrahedra and 01, 02, 12 for triangles. All is in float64.

This module needs numba and is imported only where it is used.
"""

import math
from typing import no_type_check

import numpy as np
from numba import njit

UNREACHED, SOURCE = -2, -1
# Where the squared lengths from a corner to the three others are, and those among the others.
_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
_TO = np.array([[0, 1, 2], [0, 3, 4], [1, 3, 5], [2, 4, 5]])
_AMONG = np.array([[3, 4, 5], [1, 2, 5], [0, 2, 4], [0, 1, 3]])
_TRI_OTHERS = np.array([[1, 2], [0, 2], [0, 1]])
_TRI_TO = np.array([[0, 1], [0, 2], [1, 2]])
_TRI_AMONG = np.array([2, 1, 0])
_FLAT = 1e-12  # a face whose Gram determinant is below this share of its scale has no inside
_POLISHED = 1e-12  # relative change at which the sweeps end
_SWEEPS = 200

_compiled = njit(nogil=True, cache=True, error_model="numpy")
_inlined = njit(nogil=True, cache=True, error_model="numpy", inline="always")


@_inlined
@no_type_check
def _from_edge(t1, t2, d1, d2, q12):
    """Arrival from the inside of an edge and the weight of its first end; inf where none."""
    g12 = 0.5 * (d1 + d2 - q12)
    det = d1 * d2 - g12 * g12
    r1, r2 = d2 - g12, d1 - g12
    a = r1 + r2
    low = min(t1, t2)
    s1, s2 = t1 - low, t2 - low
    v1, v2 = d2 * s1 - g12 * s2, d1 * s2 - g12 * s1
    b = v1 + v2
    disc = b * b - a * (s1 * v1 + s2 * v2 - det)
    if disc <= 0.0 or det <= _FLAT * d1 * d2:
        return math.inf, 0.0
    root = math.sqrt(disc)
    u = (b + root) / a
    w1, w2 = u * r1 - v1, u * r2 - v2
    if w1 < 0.0 or w2 < 0.0:
        return math.inf, 0.0
    return low + u, w1 / (w1 + w2)


@_inlined
@no_type_check
def _from_face(t1, t2, t3, d1, d2, d3, q12, q13, q23):
    """Arrival from the inside of a face and the weights of its first corners; inf where none."""
    g12 = 0.5 * (d1 + d2 - q12)
    g13 = 0.5 * (d1 + d3 - q13)
    g23 = 0.5 * (d2 + d3 - q23)
    c11 = d2 * d3 - g23 * g23
    c22 = d1 * d3 - g13 * g13
    c33 = d1 * d2 - g12 * g12
    c12 = g13 * g23 - g12 * d3
    c13 = g12 * g23 - g13 * d2
    c23 = g12 * g13 - g23 * d1
    det = d1 * c11 + g12 * c12 + g13 * c13
    low = min(t1, t2, t3)
    s1, s2, s3 = t1 - low, t2 - low, t3 - low
    r1, r2, r3 = c11 + c12 + c13, c12 + c22 + c23, c13 + c23 + c33
    a = r1 + r2 + r3
    v1 = c11 * s1 + c12 * s2 + c13 * s3
    v2 = c12 * s1 + c22 * s2 + c23 * s3
    v3 = c13 * s1 + c23 * s2 + c33 * s3
    b = v1 + v2 + v3
    disc = b * b - a * (s1 * v1 + s2 * v2 + s3 * v3 - det)
    if disc <= 0.0 or det <= _FLAT * d1 * d2 * d3:
        return math.inf, 0.0, 0.0
    u = (b + math.sqrt(disc)) / a
    w1, w2, w3 = u * r1 - v1, u * r2 - v2, u * r3 - v3
    if w1 < 0.0 or w2 < 0.0 or w3 < 0.0:
        return math.inf, 0.0, 0.0
    total = w1 + w2 + w3
    return low + u, w1 / total, w2 / total


@_compiled
@no_type_check
def _over_edge(t1, t2, d1, d2, q12):
    """Least arrival from an edge, its ends included, and the weight of the first end."""
    u, w = _from_edge(t1, t2, d1, d2, q12)
    if u < math.inf:
        return u, w
    u1, u2 = t1 + math.sqrt(d1), t2 + math.sqrt(d2)
    if u1 <= u2:
        return u1, 1.0
    return u2, 0.0


@_compiled
@no_type_check
def _over_face(t1, t2, t3, d1, d2, d3, q12, q13, q23):
    """Least arrival from a face, its boundary included, and the weights of its corners."""
    if max(t1, t2, t3) < math.inf:
        u, w1, w2 = _from_face(t1, t2, t3, d1, d2, d3, q12, q13, q23)
        if u < math.inf:
            return u, w1, w2, 1.0 - w1 - w2
    best, w1, w2, w3 = math.inf, 0.0, 0.0, 0.0
    u, w = _over_edge(t1, t2, d1, d2, q12)
    if u < best:
        best, w1, w2, w3 = u, w, 1.0 - w, 0.0
    u, w = _over_edge(t1, t3, d1, d3, q13)
    if u < best:
        best, w1, w2, w3 = u, w, 0.0, 1.0 - w
    u, w = _over_edge(t2, t3, d2, d3, q23)
    if u < best:
        best, w1, w2, w3 = u, 0.0, w, 1.0 - w
    return best, w1, w2, w3


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
def _corner_update(i, e, f, ti, te, tf, td, di, de, df, qie, qif, qef, known_e, known_f):
    """Least arrival over the parts of a face that touch its corner i, and weights of i, e, f."""
    best, wi, we, wf = math.inf, 0.0, 0.0, 0.0
    early = td <= ti  # then i helps only where it lies beyond an obtuse angle
    if early:
        known_e = (known_e and di + de < qie) or (known_e and known_f and di + df < qif)
        known_f = (known_f and di + df < qif) or (known_f and known_e)
        if not (known_e or known_f):
            return best, wi, we, wf
    if known_e and known_f:
        u, w1, w2 = _from_face(ti, te, tf, di, de, df, qie, qif, qef)
        if u < math.inf:
            return u, w1, w2, 1.0 - w1 - w2
    if known_e:
        u, w = _from_edge(ti, te, di, de, qie)
        if u < best:
            best, wi, we, wf = u, w, 1.0 - w, 0.0
    if known_f:
        u, w = _from_edge(ti, tf, di, df, qif)
        if u < best:
            best, wi, we, wf = u, w, 0.0, 1.0 - w
    if not early and best == math.inf:
        best, wi = ti + math.sqrt(di), 1.0
    return best, wi, we, wf


@_compiled
@no_type_check
def solve_ordered(n, tets, triangles, edges, of_tets, of_triangles, of_edges, qt, qs, cost, source,
                  tolerance):  # fmt: skip
    """Fixed point of the eikonal updates.

    Parameters
    ----------
    n : int
        Number of nodes.
    tets, triangles, edges : (tet, 4), (triangle, 3), (edge, 2) int arrays
        Elements.
    of_tets, of_triangles, of_edges : pair of int arrays
        First entry of each node in a list, and the list: 4 times (3, 2) the element plus corner.
    qt, qs : (tet, 6), (triangle, 3) arrays
        Squared lengths in the metric [ms^2].
    cost : (edge, 2) array
        Time from first to second node and back [ms].
    source : (node,) array
        Arrival prescribed from outside [ms]; inf where none.
    tolerance : float
        A node that has left the heap returns for a gain of more than this [ms].

    Returns
    -------
    t, element, corner, columns, weights
        Arrival (node,); element that it comes from, tetrahedra first, then triangles, then edges,
        or `SOURCE` or `UNREACHED`, and its corner; nodes (node, 3) and weights (node, 3).
    """
    t = source.copy()
    element = np.full(n, UNREACHED, np.int32)
    corner = np.zeros(n, np.int32)
    weights = np.zeros((n, 3))
    heap, place = np.empty(n, np.int32), np.full(n, -1, np.int32)
    known = np.zeros(n, np.bool_)
    size = 0
    for node in range(n):
        if t[node] < math.inf:
            element[node] = SOURCE
            rises_from = size
            heap[size] = node
            size += 1
            rises(heap, place, t, rises_from)
    n_tets, n_triangles = len(tets), len(triangles)
    while size > 0:
        node = pops(heap, place, t, size)
        size -= 1
        known[node] = True
        start, entries = of_tets
        for m in range(start[node], start[node + 1]):
            size = _spread_in_tet(node, entries[m] >> 2, entries[m] & 3, tets, qt, t, known,
                                  element, corner, weights, heap, place, size,
                                  tolerance)  # fmt: skip
        start, entries = of_triangles
        for m in range(start[node], start[node + 1]):
            size = _spread_in_triangle(node, entries[m] // 3, entries[m] % 3, triangles, qs, t,
                                       known, element, corner, weights, heap, place, size,
                                       tolerance, n_tets)  # fmt: skip
        start, entries = of_edges
        for m in range(start[node], start[node + 1]):
            e, k = entries[m] >> 1, entries[m] & 1
            other = edges[e, 1 - k]
            u = t[node] + cost[e, k]
            if u < t[other] - (tolerance if known[other] else 0.0):
                t[other] = u
                element[other] = n_tets + n_triangles + e
                corner[other] = 1 - k
                weights[other] = np.array((1.0, 0.0, 0.0))
                size = _queue(other, heap, place, t, size)
    _polish(t, element, corner, weights, tets, triangles, edges, qt, qs, cost)
    return t, element, corner, _columns(element, corner, tets, triangles, edges), weights


@_inlined
@no_type_check
def _queue(node, heap, place, t, size):
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
def _spread_in_tet(node, tet, i, tets, qt, t, known, element, corner, weights, heap, place, size,
                   tolerance):  # fmt: skip
    """Update the other corners of a tetrahedron from its corner `i`."""
    q = qt[tet]
    ti = t[node]
    for d in range(4):
        if d == i:
            continue
        target = tets[tet, d]
        td = t[target]
        # Slots of i and of the two others, e and f, among the corners that d looks at.
        si = i if i < d else i - 1
        se = 1 if si == 0 else 0
        sf = 1 if si == 2 else 2
        e, f = tets[tet, _OTHERS[d, se]], tets[tet, _OTHERS[d, sf]]
        known_e, known_f = known[e], known[f]
        low = ti
        if known_e:
            low = min(low, t[e])
        if known_f:
            low = min(low, t[f])
        if td <= low:
            continue
        u, wi, we, wf = _corner_update(
            i, e, f, ti, t[e], t[f], td, q[_TO[d, si]], q[_TO[d, se]], q[_TO[d, sf]],
            q[_AMONG[d, si + se - 1]], q[_AMONG[d, si + sf - 1]], q[_AMONG[d, se + sf - 1]],
            known_e, known_f)  # fmt: skip
        if u < td - (tolerance if known[target] else 0.0):
            t[target] = u
            element[target] = tet
            corner[target] = d
            weights[target, si] = wi
            weights[target, se] = we
            weights[target, sf] = wf
            size = _queue(target, heap, place, t, size)
    return size


@_compiled
@no_type_check
def _spread_in_triangle(node, triangle, i, triangles, qs, t, known, element, corner, weights, heap,
                        place, size, tolerance, n_tets):  # fmt: skip
    """Update the other corners of a triangle from its corner `i`."""
    q = qs[triangle]
    for d in range(3):
        if d == i:
            continue
        si = i if i < d else i - 1
        target, e = triangles[triangle, d], triangles[triangle, 3 - d - i]
        td = t[target]
        u, w = math.inf, 1.0
        if known[e]:
            u, w = _from_edge(t[node], t[e], q[_TRI_TO[d, si]], q[_TRI_TO[d, 1 - si]],
                              q[_TRI_AMONG[d]])  # fmt: skip
        if u == math.inf:
            u, w = t[node] + math.sqrt(q[_TRI_TO[d, si]]), 1.0
        if u < td - (tolerance if known[target] else 0.0):
            t[target] = u
            element[target] = n_tets + triangle
            corner[target] = d
            weights[target, si] = w
            weights[target, 1 - si] = 1.0 - w
            weights[target, 2] = 0.0
            size = _queue(target, heap, place, t, size)
    return size


@_compiled
@no_type_check
def _columns(element, corner, tets, triangles, edges):
    """Nodes that every node depends on; itself where it depends on less than three."""
    n, n_tets, n_triangles = len(element), len(tets), len(triangles)
    columns = np.empty((n, 3), np.int32)
    for node in range(n):
        columns[node] = node
        e, d = element[node], corner[node]
        if e < 0:
            continue
        if e < n_tets:
            for k in range(3):
                columns[node, k] = tets[e, _OTHERS[d, k]]
        elif e < n_tets + n_triangles:
            for k in range(2):
                columns[node, k] = triangles[e - n_tets, _TRI_OTHERS[d, k]]
        else:
            columns[node, 0] = edges[e - n_tets - n_triangles, 1 - d]
    return columns


@_compiled
@no_type_check
def _polish(t, element, corner, weights, tets, triangles, edges, qt, qs, cost):
    """Gauss-Seidel over the elements found, in order of arrival, until nothing moves."""
    n_tets, n_triangles = len(tets), len(triangles)
    order = np.argsort(t)
    for _ in range(_SWEEPS):
        moved = 0.0
        for node in order:
            e, d = element[node], corner[node]
            if e < 0:
                continue
            if e < n_tets:
                o, q, to, among = _OTHERS[d], qt[e], _TO[d], _AMONG[d]
                u, w1, w2, w3 = _over_face(
                    t[tets[e, o[0]]], t[tets[e, o[1]]], t[tets[e, o[2]]],
                    q[to[0]], q[to[1]], q[to[2]], q[among[0]], q[among[1]], q[among[2]],
                )  # fmt: skip
                weights[node, 0] = w1
                weights[node, 1] = w2
                weights[node, 2] = w3
            elif e < n_tets + n_triangles:
                e -= n_tets
                o, q, to = _TRI_OTHERS[d], qs[e], _TRI_TO[d]
                u, w1 = _over_edge(t[triangles[e, o[0]]], t[triangles[e, o[1]]], q[to[0]],
                                   q[to[1]], q[_TRI_AMONG[d]])  # fmt: skip
                weights[node, 0] = w1
                weights[node, 1] = 1.0 - w1
            else:
                e -= n_tets + n_triangles
                u = t[edges[e, 1 - d]] + cost[e, 1 - d]
            moved = max(moved, abs(u - t[node]) / (1.0 + abs(u)))
            t[node] = u
        if moved < _POLISHED:
            break


@_compiled
@no_type_check
def solve_tangent(t, columns, weights, right):
    """Solve ``(I - W) x = right`` by Gauss-Seidel in order of arrival."""
    x = right.copy()
    order = np.argsort(t)
    for _ in range(_SWEEPS):
        moved, largest = 0.0, 0.0
        for node in order:
            u = right[node]
            for k in range(3):
                if weights[node, k] != 0.0:
                    u += weights[node, k] * x[columns[node, k]]
            moved = max(moved, abs(u - x[node]))
            largest = max(largest, abs(u))
            x[node] = u
        if moved <= 1e-15 * largest:
            break
    return x


@_compiled
@no_type_check
def solve_adjoint(t, columns, weights, right):
    """Solve ``(I - W)^T y = right``: carry what arrives at a node on to those it came from."""
    rest = right.copy()
    y = np.zeros_like(right)
    order = np.argsort(-t)
    total = np.abs(right).sum()
    for _ in range(_SWEEPS):
        left = 0.0
        for node in order:
            r = rest[node]
            if r == 0.0:
                continue
            rest[node] = 0.0
            y[node] += r
            for k in range(3):
                if weights[node, k] != 0.0:
                    rest[columns[node, k]] += weights[node, k] * r
        left = np.abs(rest).sum()
        if left <= 1e-16 * total:
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
