"""Waves that return: the ordered eikonal with re-excitability, event by event, compiled by numba.

Nodes fire in order of time. A node that fires offers an arrival to the other corners of its
elements; a corner takes it if it has recovered by then. Speed and duration follow from its own
diastolic interval. A corner that has fired in the same wave and is offered an earlier arrival is
corrected, so that a single beat is that of the eikonal equation.

This module needs numba and is imported only where it is used.
"""

import math
from typing import no_type_check

import numpy as np
from numba import njit

from twinheart.tissue.eikonal_heap import drops, pops, queue
from twinheart.tissue.eikonal_ordered import (
    _AMONG,
    _OTHERS,
    _TO,
    _TRI_AMONG,
    _TRI_TO,
    _over_edge,
    _over_face,
)

_compiled = njit(nogil=True, cache=True, error_model="numpy")
_CORRECTED = 1e-6  # ms
_LIPSCHITZ = 1.001  # corners of one wave differ at most by the way between them
_FRONT = 1.0  # ways to a node, by which what fires is later than the front that was there
_ROUNDS = 30
_EXACT = 1e-9  # ms


@_compiled
@no_type_check
def _read(table, x, column):
    """Value of a table with its diastolic intervals in column 0, constant beyond its ends."""
    n = len(table)
    if x >= table[n - 1, 0]:
        return table[n - 1, column]
    if x <= table[0, 0]:
        return table[0, column]
    k = np.searchsorted(table[:, 0], x, side="right") - 1
    share = (x - table[k, 0]) / (table[k + 1, 0] - table[k, 0])
    return table[k, column] + share * (table[k + 1, column] - table[k, column])


@_compiled
@no_type_check
def _offer(kind, fired, ways, table, ready, fixed, bound, limits):
    """Arrival at a corner from those that fired, at the speed of its interval; -inf if refractory.

    `kind` 3, 2, 1: from a face, an edge, a node. `fired` are times of firing, `ways` squared
    lengths at full speed, to the corner and among the others; `fixed` does not depend on speed.
    What is not before `bound` may come out as inf; `limits` are the least and greatest speeds.
    """
    if fired[0] + math.sqrt(ways[0]) / limits[0] + fixed - ready < table[0, 0]:
        return -math.inf  # refractory even at the slowest
    u = _at_speed(kind, fired, ways, 1.0, fixed)
    if limits[1] <= 1.0 and u >= bound:
        return math.inf  # too late even at the fastest
    if ready == -math.inf:
        return u
    # The later, the faster: where speed rises steeply only a bracket of the root closes in on it.
    rest, other, off = u, u, 0.0
    for _ in range(_ROUNDS):
        speed = _read(table, u - ready, 1)
        own = (rest if speed == 1.0 else _at_speed(kind, fired, ways, speed, fixed)) - u
        if abs(own) < _EXACT:
            break
        step = -own * (u - other) / (own - off) if own * off < 0.0 else own
        other, off, u = u, own, u + step
    if u - ready < table[0, 0]:
        return -math.inf
    return u


@_compiled
@no_type_check
def _at_speed(kind, fired, ways, speed, fixed):
    """Arrival at a corner at a share of the full speed."""
    by = 1.0 / (speed * speed)
    if kind == 3:
        return _over_face(fired[0], fired[1], fired[2], ways[0] * by, ways[1] * by, ways[2] * by,
                          ways[3] * by, ways[4] * by, ways[5] * by)[0]  # fmt: skip
    if kind == 2:
        return _over_edge(fired[0], fired[1], ways[0] * by, ways[1] * by, ways[3] * by)[0]
    return fired[0] + math.sqrt(ways[0] * by) + fixed


@_compiled
@no_type_check
def run_events(n, tets, triangles, edges, of_tets, of_triangles, of_edges, qt, qs, along, delay,
               tables, table_of, state, pulse_node, pulse_time, t_end, most):  # fmt: skip
    """Fire nodes until nothing is left to fire, or `t_end`, or `most` events.

    What is left to fire stays in the state: to go on from there ends where one run would.

    Parameters
    ----------
    n, tets, triangles, edges, of_tets, of_triangles, of_edges, qt, qs
        See `twinheart.tissue.eikonal_ordered.solve_ordered`.
    along, delay : (edge,), (edge, 2) arrays
        Time along edges at full speed, and what is added forth and back [ms].
    tables : (table, row, 3) array
        Diastolic interval [ms], ascending from the shortest that conducts; speed, 1 at rest;
        duration [ms].
    table_of : (node,) int array
        Table of each node.
    state : tuple of arrays
        Of every node, when it will fire (inf: not), when it fired last and when it had repolarised
        before that and has since (-inf: long ago), when the last front came that found it
        refractory (-inf: none) [ms], and its last event (-1: none); of every event, its node; and
        time, interval and duration [ms]. The first five are changed.
    pulse_node, pulse_time : (pulse,) arrays
        Nodes that are stimulated and when [ms], ascending.

    Returns
    -------
    node, event
        Node of each event, in order of firing but for corrections, and its time, interval and
        duration; those of the state come first.
    """
    key, last, before, ready, refused, record, out_node, out = state
    heap, place, size = np.empty(n, np.int32), np.full(n, -1, np.int32), 0
    for node in range(n):
        if key[node] < math.inf:
            size = queue(node, heap, place, key, size)
    events, pulse = len(out_node), 0
    out_node = np.concatenate((out_node, np.empty(1024, np.int32)))
    out = np.concatenate((out, np.empty((1024, 3))))
    limits = np.array((min(tables[:, :, 1].min(), 1.0), max(tables[:, :, 1].max(), 1.0)))
    fired, ways = np.empty(3), np.empty(6)
    mesh = of_tets, tets, qt, of_triangles, triangles, qs
    while size > 0 or pulse < len(pulse_node):
        if pulse < len(pulse_node) and (size == 0 or pulse_time[pulse] <= key[heap[0]]):
            d, u = pulse_node[pulse], pulse_time[pulse]
            pulse += 1
            if u - ready[d] >= tables[table_of[d], 0, 0] and u < key[d]:
                size = _moved_to(d, u, key, heap, place, size)
            continue
        t = key[heap[0]]
        if t > t_end or events >= most:
            break
        node = pops(heap, place, key, size)
        size -= 1
        key[node] = math.inf
        table = tables[table_of[node]]
        if record[node] < 0 or t >= last[node]:  # a new activation, else a correction
            before[node] = ready[node]
            record[node] = events
            events += 1
            if events > len(out):
                out_node = np.concatenate((out_node, np.empty_like(out_node)))
                out = np.concatenate((out, np.empty_like(out)))
        interval = t - before[node]
        duration = _read(table, interval, 2)
        last[node], ready[node] = t, t + duration
        out_node[record[node]] = node
        out[record[node]] = np.array((t, interval, duration))
        start, entries = of_tets
        for m in range(start[node], start[node + 1]):
            tet, i = entries[m] >> 2, entries[m] & 3
            q = qt[tet]
            for d in range(4):
                if d == i:
                    continue
                target = tets[tet, d]
                u = _from_tet(tet, i, d, target, tets, q, last, before, ready, refused, tables,
                              table_of, limits, fired, ways, key[target])  # fmt: skip
                size = _take(target, u, last, key, heap, place, size)
                if u == -math.inf:
                    size = _pass_by(target, mesh, last, ready, refused, tables, table_of, key, heap,
                                    place, size)  # fmt: skip
        start, entries = of_triangles
        for m in range(start[node], start[node + 1]):
            triangle, i = entries[m] // 3, entries[m] % 3
            for d in range(3):
                if d == i:
                    continue
                target = triangles[triangle, d]
                u = _from_triangle(triangle, i, d, target, triangles, qs[triangle], last, before,
                                   ready, refused, tables, table_of, limits, fired, ways,
                                   key[target])  # fmt: skip
                size = _take(target, u, last, key, heap, place, size)
                if u == -math.inf:
                    size = _pass_by(target, mesh, last, ready, refused, tables, table_of, key, heap,
                                    place, size)  # fmt: skip
        start, entries = of_edges
        for m in range(start[node], start[node + 1]):
            edge, k = entries[m] >> 1, entries[m] & 1
            target = edges[edge, 1 - k]
            fired[0], ways[0] = last[node], along[edge] ** 2
            u = _recovered(1, target, fired, ways, last, before, ready, refused, tables, table_of,
                           delay[edge, k], key[target], limits)  # fmt: skip
            size = _take(target, u, last, key, heap, place, size)
    return out_node[:events].copy(), out[:events].copy()


@_compiled
@no_type_check
def _moved_to(node, u, key, heap, place, size):
    """Give a node a time and its place on the heap."""
    key[node] = u
    return queue(node, heap, place, key, size)


@_compiled
@no_type_check
def _take(target, u, last, key, heap, place, size):
    """Queue a node that is offered an arrival earlier than it has, in this wave.

    One that was found refractory leaves the queue: it waited for a longer way of the same front.
    """
    if u == -math.inf:
        return drops(target, heap, place, key, size) if key[target] < math.inf else size
    if u < key[target] - (_CORRECTED if u < last[target] else 0.0):
        return _moved_to(target, u, key, heap, place, size)
    return size


@_compiled
@no_type_check
def _pass_by(node, mesh, last, ready, refused, tables, table_of, key, heap, place, size):
    """What a front that ended at a node would meet next, it finds refractory too, or not at all.

    Without this, nodes behind a line of block would be reached by ways past those that the front
    ended at, as nobody nearer tells them that it had come when they were refractory.
    """
    of_tets, tets, qt, of_triangles, triangles, qs = mesh
    start, entries = of_tets
    for m in range(start[node], start[node + 1]):
        tet, i = entries[m] >> 2, entries[m] & 3
        for d in range(4):
            if d != i:
                way = qt[tet][_TO[d, i if i < d else i - 1]]
                size = _would_find(tets[tet, d], refused[node], way, last, ready, refused, tables,
                                   table_of, key, heap, place, size)  # fmt: skip
    start, entries = of_triangles
    for m in range(start[node], start[node + 1]):
        triangle, i = entries[m] // 3, entries[m] % 3
        for d in range(3):
            if d != i:
                way = qs[triangle][_TRI_TO[d, i if i < d else i - 1]]
                size = _would_find(triangles[triangle, d], refused[node], way, last, ready, refused,
                                   tables, table_of, key, heap, place, size)  # fmt: skip
    return size


@_compiled
@no_type_check
def _would_find(target, since, way, last, ready, refused, tables, table_of, key, heap, place, size):
    """Note for a node that a front would have come over this way and found it refractory."""
    table = tables[table_of[target]]
    late = math.sqrt(way) / table[0, 1]
    waits = last[target] < since - _LIPSCHITZ * late  # else it has fired in this wave
    if waits and since + late - ready[target] < table[0, 0] and since + late > refused[target]:
        refused[target] = since + late
        return _take(target, -math.inf, last, key, heap, place, size)
    return size


@_compiled
@no_type_check
def _recovered(kind, target, fired, ways, last, before, ready, refused, tables, table_of, fixed,
               bound, limits):  # fmt: skip
    """Arrival at a node that has recovered, or that has fired later in the same wave; else inf.

    It is -inf for a front that finds the node refractory. That ends there: longer ways of it, which
    come later only for the mesh, do not count. What fires after it had passed is another front.
    """
    table = tables[table_of[target]]
    latest = fired[0]
    for k in range(1, kind):
        latest = max(latest, fired[k])
    u = math.inf
    if latest < ready[target] and last[target] > -math.inf:
        # It has fired since: in this wave, unless it cannot have recovered before.
        least = min(bound, last[target] - _CORRECTED)
        u = _offer(kind, fired, ways, table, before[target], fixed, least, limits)
        if -math.inf < u < least:
            return u
    way = math.sqrt(ways[0]) / table[0, 1] + fixed
    if fired[0] < refused[target] + _FRONT * way:
        return math.inf
    u = _offer(kind, fired, ways, table, ready[target], fixed, bound, limits)
    if u > -math.inf:
        return u
    if last[target] > fired[0] - _LIPSCHITZ * way:
        return math.inf  # of the wave in which it fired itself
    refused[target] = fired[0] + way
    return u


@_compiled
@no_type_check
def _from_tet(tet, i, d, target, tets, q, last, before, ready, refused, tables, table_of, limits,
              fired, ways, bound):  # fmt: skip
    """Arrival at corner `d` from those corners of its face that fired in one wave with `i`."""
    si = i if i < d else i - 1
    se = 1 if si == 0 else 0
    sf = 1 if si == 2 else 2
    ti = last[tets[tet, i]]
    te, tf = last[tets[tet, _OTHERS[d, se]]], last[tets[tet, _OTHERS[d, sf]]]
    qie, qif = q[_AMONG[d, si + se - 1]], q[_AMONG[d, si + sf - 1]]
    near_e = abs(ti - te) <= _LIPSCHITZ * math.sqrt(qie) / limits[0]
    near_f = abs(ti - tf) <= _LIPSCHITZ * math.sqrt(qif) / limits[0]
    kind = 1
    fired[0], ways[0] = ti, q[_TO[d, si]]
    if near_e:
        fired[kind], ways[kind] = te, q[_TO[d, se]]
        ways[3] = qie
        kind += 1
    if near_f:
        fired[kind], ways[kind] = tf, q[_TO[d, sf]]
        ways[2 + kind] = qif
        kind += 1
    if kind == 3:
        ways[5] = q[_AMONG[d, se + sf - 1]]
    return _recovered(kind, target, fired, ways, last, before, ready, refused, tables, table_of,
                      0.0, bound, limits)  # fmt: skip


@_compiled
@no_type_check
def _from_triangle(triangle, i, d, target, triangles, q, last, before, ready, refused, tables,
                   table_of, limits, fired, ways, bound):  # fmt: skip
    """Arrival at corner `d` of a triangle from corner `i` and the third, if in one wave with it."""
    si = i if i < d else i - 1
    ti, te = last[triangles[triangle, i]], last[triangles[triangle, 3 - d - i]]
    kind = 1
    fired[0], ways[0] = ti, q[_TRI_TO[d, si]]
    if abs(ti - te) <= _LIPSCHITZ * math.sqrt(q[_TRI_AMONG[d]]) / limits[0]:
        fired[1], ways[1], ways[3] = te, q[_TRI_TO[d, 1 - si]], q[_TRI_AMONG[d]]
        kind = 2
    return _recovered(kind, target, fired, ways, last, before, ready, refused, tables, table_of,
                      0.0, bound, limits)  # fmt: skip
