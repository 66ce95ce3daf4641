r"""Ordered eikonal solver for CPUs, compiled by numba: a heap whose labels may still be corrected.

Nodes leave a heap in order of arrival. A node that leaves updates the corners of its elements from
those corners that have left before; a corner that had left already and still becomes much earlier,
as happens where an angle is obtuse in the metric, returns to the heap. Then follows policy
iteration: with the element of every node held the times are solved for to rounding, group by group
of nodes that depend on each other; then every node chooses anew among its elements. Two or three
rounds end at the fixed point. The minimisers are kept: element, corner and barycentric weights.

Elements are known by the squared lengths of their edges in the metric of slowness [ms^2], in the
order 01, 02, 03, 12, 13, 23 for tetrahedra and 01, 02, 12 for triangles. All is in float64.

This module needs numba and is imported only where it is used.
"""

import math
from typing import no_type_check

import numpy as np
from numba import njit

from twinheart.tissue.eikonal_groups import TURNS, components
from twinheart.tissue.eikonal_heap import pops, queue

UNREACHED, SOURCE = -2, -1
# Where the squared lengths from a corner to the three others are, and those among the others.
_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
_TO = np.array([[0, 1, 2], [0, 3, 4], [1, 3, 5], [2, 4, 5]])
_AMONG = np.array([[3, 4, 5], [1, 2, 5], [0, 2, 4], [0, 1, 3]])
_TRI_OTHERS = np.array([[1, 2], [0, 2], [0, 1]])
_TRI_TO = np.array([[0, 1], [0, 2], [1, 2]])
_TRI_AMONG = np.array([2, 1, 0])
# From a corner i of a tetrahedron: its others j, k, h and the edges ij, ik, ih, jk, jh, kh.
_FROM = np.array(
    [
        [1, 2, 3, 0, 1, 2, 3, 4, 5],
        [0, 2, 3, 0, 3, 4, 1, 2, 5],
        [0, 1, 3, 1, 3, 5, 0, 2, 4],
        [0, 1, 2, 2, 4, 5, 0, 1, 3],
    ]
)
_FLAT = 1e-12  # a face whose Gram determinant is below this share of its scale has no inside
_POLISHED = 1e-12  # relative change at which the sweeps end
_SWEEPS = 50
_ROUNDING = 1e-14  # relative: a smaller gain is none
# ms: a node that has left the heap returns for a larger gain only; what is left is done afterwards.
_SLACK = 0.03

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


@_inlined
@no_type_check
def _gain_from_edge(t1, t2, most, d1, d2, q12):
    """Arrival from the inside of an edge if it is below `most`, else inf.

    On the line through the edge the least arrival is the larger root of a quadratic. Whether it is
    below `most` is told by the sign of the quadratic there, before any root or division.
    """
    g12 = 0.5 * (d1 + d2 - q12)
    det = d1 * d2 - g12 * g12
    r1, r2 = d2 - g12, d1 - g12
    a = r1 + r2
    low = min(t1, t2)
    s1, s2, x = t1 - low, t2 - low, most - low
    v1, v2 = d2 * s1 - g12 * s2, d1 * s2 - g12 * s1
    b = v1 + v2
    c = s1 * v1 + s2 * v2 - det
    if a * x < b or (a * x - 2.0 * b) * x + c < 0.0:
        return math.inf
    disc = b * b - a * c
    if disc <= 0.0 or det <= _FLAT * d1 * d2:
        return math.inf
    u = (b + math.sqrt(disc)) / a
    if u * r1 < v1 or u * r2 < v2:
        return math.inf
    return low + u


@_inlined
@no_type_check
def _gain_from_face(t1, t2, t3, most, d1, d2, d3, q12, q13, q23):
    """Arrival from the inside of a face if it is below `most`.

    Inf where only an edge or a corner can be; nan where no part of the face can.
    """
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
    low = min(t1, min(t2, t3))
    s1, s2, s3, x = t1 - low, t2 - low, t3 - low, most - low
    r1, r2, r3 = c11 + c12 + c13, c12 + c22 + c23, c13 + c23 + c33
    a = r1 + r2 + r3
    v1 = c11 * s1 + c12 * s2 + c13 * s3
    v2 = c12 * s1 + c22 * s2 + c23 * s3
    v3 = c13 * s1 + c23 * s2 + c33 * s3
    b = v1 + v2 + v3
    c = s1 * v1 + s2 * v2 + s3 * v3 - det
    disc = b * b - a * c
    if disc <= 0.0 or det <= _FLAT * d1 * d2 * d3:
        return math.inf
    if a * x < b or (a * x - 2.0 * b) * x + c < 0.0:
        return math.nan
    u = (b + math.sqrt(disc)) / a
    if u * r1 < v1 or u * r2 < v2 or u * r3 < v3:
        return math.inf
    return low + u


@_compiled
@no_type_check
def _corner_update(ti, te, tf, most, di, de, df, qie, qif, qef):
    """Least arrival at d over the parts of a face that touch its corner i, if below `most`.

    The times of the other corners are inf where they have not left the heap. Inf or nan where
    nothing is gained.
    """
    use_e, use_f = te < math.inf, tf < math.inf
    if most <= ti:  # then i helps only where it lies beyond an obtuse angle
        beyond = (use_e and di + de < qie) or (use_f and di + df < qif)
        if not beyond or most <= min(te, tf):
            return math.inf
        best = math.inf
    else:
        best = math.inf
        if di < (most - ti) * (most - ti):
            best = ti + math.sqrt(di)
    if use_e and use_f:
        u = _gain_from_face(ti, te, tf, most, di, de, df, qie, qif, qef)
        if not u == math.inf:
            return u
    if use_e:
        best = min(best, _gain_from_edge(ti, te, most, di, de, qie))
    if use_f:
        best = min(best, _gain_from_edge(ti, tf, most, di, df, qif))
    return best


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
        Ends when no node gains more than this by another element [ms].

    Returns
    -------
    t, element, corner, columns, weights
        Arrival (node,); element that it comes from, tetrahedra first, then triangles, then edges,
        or `SOURCE` or `UNREACHED`, and its corner; nodes (node, 3) and weights (node, 3).
    """
    t = source.copy()
    settled = np.full(n, math.inf)  # t of those that have left the heap
    element = np.where(source < math.inf, np.int32(SOURCE), np.int32(UNREACHED)).astype(np.int32)
    corner = np.zeros(n, np.int32)
    heap, place, size = np.empty(n, np.int32), np.full(n, -1, np.int32), 0
    for node in range(n):
        if t[node] < math.inf:
            size = queue(node, heap, place, t, size)
    n_tets, n_triangles = len(tets), len(triangles)
    tet_start, tet_list = of_tets
    triangle_start, triangle_list = of_triangles
    edge_start, edge_list = of_edges
    while size > 0:
        node = pops(heap, place, t, size)
        size -= 1
        ti = t[node]
        settled[node] = ti
        for m in range(tet_start[node], tet_start[node + 1]):
            e, i = tet_list[m] >> 2, tet_list[m] & 3
            j, k, h = _FROM[i, 0], _FROM[i, 1], _FROM[i, 2]
            nj, nk, nh = tets[e, j], tets[e, k], tets[e, h]
            tj, tk, th = settled[nj], settled[nk], settled[nh]
            qij, qik, qih = qt[e, _FROM[i, 3]], qt[e, _FROM[i, 4]], qt[e, _FROM[i, 5]]
            qjk, qjh, qkh = qt[e, _FROM[i, 6]], qt[e, _FROM[i, 7]], qt[e, _FROM[i, 8]]
            most = t[nj] - (_SLACK if tj < math.inf else 0.0)
            u = _corner_update(ti, tk, th, most, qij, qjk, qjh, qik, qih, qkh)
            if u < most:
                t[nj], element[nj], corner[nj] = u, e, j
                size = queue(nj, heap, place, t, size)
            most = t[nk] - (_SLACK if tk < math.inf else 0.0)
            u = _corner_update(ti, tj, th, most, qik, qjk, qkh, qij, qih, qjh)
            if u < most:
                t[nk], element[nk], corner[nk] = u, e, k
                size = queue(nk, heap, place, t, size)
            most = t[nh] - (_SLACK if th < math.inf else 0.0)
            u = _corner_update(ti, tj, tk, most, qih, qjh, qkh, qij, qik, qjk)
            if u < most:
                t[nh], element[nh], corner[nh] = u, e, h
                size = queue(nh, heap, place, t, size)
        for m in range(triangle_start[node], triangle_start[node + 1]):
            e, i = triangle_list[m] // 3, triangle_list[m] % 3
            for d in range(3):
                if d != i:
                    other, third = triangles[e, d], triangles[e, 3 - d - i]
                    si = i if i < d else i - 1
                    di, de = qs[e, _TRI_TO[d, si]], qs[e, _TRI_TO[d, 1 - si]]
                    u = ti + math.sqrt(di)
                    if settled[third] < math.inf:
                        u = min(u, _from_edge(ti, settled[third], di, de, qs[e, _TRI_AMONG[d]])[0])
                    if u < t[other] - (_SLACK if settled[other] < math.inf else 0.0):
                        t[other], element[other], corner[other] = u, n_tets + e, d
                        size = queue(other, heap, place, t, size)
        for m in range(edge_start[node], edge_start[node + 1]):
            e, i = edge_list[m] >> 1, edge_list[m] & 1
            other, u = edges[e, 1 - i], ti + cost[e, i]
            if u < t[other] - (_SLACK if settled[other] < math.inf else 0.0):
                t[other], element[other] = u, n_tets + n_triangles + e
                corner[other] = 1 - i
                size = queue(other, heap, place, t, size)
    weights = np.zeros((n, 3))
    doubtful = np.ones(n, np.bool_)
    columns = _settle(t, element, corner, weights, tets, triangles, edges, qt, qs, cost)
    for _ in range(_SWEEPS):
        before = t.copy()
        gain = _improve(doubtful, t, element, corner, tets, triangles, edges, tet_start, tet_list,
                        triangle_start, triangle_list, edge_start, edge_list, qt, qs,
                        cost)  # fmt: skip
        if gain > 0.0:
            columns = _settle(t, element, corner, weights, tets, triangles, edges, qt, qs, cost)
        if gain <= tolerance:
            break
        moved = before - t > 0.1 * tolerance
        _doubt(moved, 4, tets, tet_start, tet_list, doubtful)
        _doubt(moved, 3, triangles, triangle_start, triangle_list, doubtful)
        _doubt(moved, 2, edges, edge_start, edge_list, doubtful)
    return t, element, corner, columns, weights


@_compiled
@no_type_check
def _doubt(moved, size, cells, start, entries, doubtful):
    """Mark the nodes next to one that has moved: only they can choose differently now."""
    for node in range(len(moved)):
        if moved[node]:
            for m in range(start[node], start[node + 1]):
                for k in range(size):
                    doubtful[cells[entries[m] // size, k]] = True


@_compiled
@no_type_check
def _settle(t, element, corner, weights, tets, triangles, edges, qt, qs, cost):
    """Solve for the times with the element of every node held; the nodes they come from."""
    columns = _columns(element, corner, tets, triangles, edges)
    _polish(np.argsort(t), t, element, corner, weights, tets, triangles, edges, qt, qs, cost)
    for _ in range(_SWEEPS):
        order, start = components(columns, weights)
        moved, c = 0.0, 0
        while c < len(start) - 1:
            first = c
            c += 1
            if start[c] - start[first] == 1:  # and all single ones after it
                while c < len(start) - 1 and start[c + 1] - start[c] == 1:
                    c += 1
            group = order[start[first] : start[c]]
            for turn in range(TURNS):
                by = _polish(group, t, element, corner, weights, tets, triangles, edges, qt, qs,
                             cost)  # fmt: skip
                if turn == 0:
                    moved = max(moved, by)
                if start[first + 1] - start[first] == 1 or by <= _POLISHED:
                    break
        if moved <= _POLISHED:
            break
    return columns


@_compiled
@no_type_check
def _improve(doubtful, t, element, corner, tets, triangles, edges, tet_start, tet_list,
             triangle_start, triangle_list, edge_start, edge_list, qt, qs, cost):  # fmt: skip
    """Let doubtful nodes choose anew among all their elements; the largest gain."""
    n_tets, n_triangles = len(tets), len(triangles)
    gain = 0.0
    for node in range(len(t)):
        if not doubtful[node]:
            continue
        doubtful[node] = False
        before = t[node]
        if before == math.inf:
            continue
        most = before - _ROUNDING * (1.0 + abs(before))
        for m in range(tet_start[node], tet_start[node + 1]):
            e, d = tet_list[m] >> 2, tet_list[m] & 3
            u = _least_over_face(
                t[tets[e, _OTHERS[d, 0]]], t[tets[e, _OTHERS[d, 1]]], t[tets[e, _OTHERS[d, 2]]],
                most, qt[e, _TO[d, 0]], qt[e, _TO[d, 1]], qt[e, _TO[d, 2]],
                qt[e, _AMONG[d, 0]], qt[e, _AMONG[d, 1]], qt[e, _AMONG[d, 2]],
            )  # fmt: skip
            if u < most:
                t[node], element[node], corner[node], most = u, e, d, u
        for m in range(triangle_start[node], triangle_start[node + 1]):
            e, d = triangle_list[m] // 3, triangle_list[m] % 3
            u = _over_edge(
                t[triangles[e, _TRI_OTHERS[d, 0]]], t[triangles[e, _TRI_OTHERS[d, 1]]],
                qs[e, _TRI_TO[d, 0]], qs[e, _TRI_TO[d, 1]], qs[e, _TRI_AMONG[d]],
            )[0]  # fmt: skip
            if u < most:
                t[node], element[node], corner[node], most = u, n_tets + e, d, u
        for m in range(edge_start[node], edge_start[node + 1]):
            e, d = edge_list[m] >> 1, edge_list[m] & 1
            u = t[edges[e, 1 - d]] + cost[e, 1 - d]
            if u < most:
                t[node], element[node] = u, n_tets + n_triangles + e
                corner[node], most = d, u
        gain = max(gain, before - t[node])
    return gain


@_inlined
@no_type_check
def _least_over_face(t1, t2, t3, most, d1, d2, d3, q12, q13, q23):
    """Least arrival from a face, its boundary included, if below `most`; else inf or nan."""
    if min(t1, min(t2, t3)) >= most:
        return math.inf
    u = _gain_from_face(t1, t2, t3, most, d1, d2, d3, q12, q13, q23)
    if not u == math.inf:
        return u
    u = min(t1 + math.sqrt(d1), min(t2 + math.sqrt(d2), t3 + math.sqrt(d3)))
    u = min(u, _gain_from_edge(t1, t2, most, d1, d2, q12))
    u = min(u, _gain_from_edge(t1, t3, most, d1, d3, q13))
    return min(u, _gain_from_edge(t2, t3, most, d2, d3, q23))


@_compiled
@no_type_check
def _columns(element, corner, tets, triangles, edges):
    """Nodes that every node depends on; itself where it depends on less than three."""
    n, n_tets, n_triangles = len(element), len(tets), len(triangles)
    columns = np.empty((n, 3), np.int32)
    for node in range(n):
        for k in range(3):
            columns[node, k] = node
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
def _polish(order, t, element, corner, weights, tets, triangles, edges, qt, qs, cost):
    """Update some nodes in turn from the elements they hold; the largest relative change."""
    n_tets, n_triangles = len(tets), len(triangles)
    moved = 0.0
    for node in order:
        e, d = element[node], corner[node]
        if e < 0:
            continue
        if e < n_tets:
            u, w1, w2, w3 = _over_face(
                t[tets[e, _OTHERS[d, 0]]], t[tets[e, _OTHERS[d, 1]]], t[tets[e, _OTHERS[d, 2]]],
                qt[e, _TO[d, 0]], qt[e, _TO[d, 1]], qt[e, _TO[d, 2]],
                qt[e, _AMONG[d, 0]], qt[e, _AMONG[d, 1]], qt[e, _AMONG[d, 2]],
            )  # fmt: skip
            weights[node, 0], weights[node, 1], weights[node, 2] = w1, w2, w3
        elif e < n_tets + n_triangles:
            e -= n_tets
            u, w1 = _over_edge(
                t[triangles[e, _TRI_OTHERS[d, 0]]], t[triangles[e, _TRI_OTHERS[d, 1]]],
                qs[e, _TRI_TO[d, 0]], qs[e, _TRI_TO[d, 1]], qs[e, _TRI_AMONG[d]],
            )  # fmt: skip
            weights[node, 0], weights[node, 1], weights[node, 2] = w1, 1.0 - w1, 0.0
        else:
            e -= n_tets + n_triangles
            u = t[edges[e, 1 - d]] + cost[e, 1 - d]
            weights[node, 0], weights[node, 1], weights[node, 2] = 1.0, 0.0, 0.0
        moved = max(moved, abs(u - t[node]) / (1.0 + abs(u)))
        t[node] = u
    return moved
