r"""Eikonal updates in JAX: all elements at once, without branches, swept until nothing moves.

The update of a corner d of an element is the Hopf-Lax minimum over the opposite face,

.. math:: T_d = \min_{\lambda \ge 0, \sum \lambda = 1} \sum_j \lambda_j T_j
          + \Big\| x_d - \sum_j \lambda_j x_j \Big\|_{M^{-1}},

with the squared distance :math:`\sum_j \lambda_j q_{dj} - \sum_{j<k} \lambda_j \lambda_k q_{jk}`,
so that an element is known by the squared lengths q of its edges in the metric [ms^2].
"""

import jax
import jax.numpy as jnp
import numpy as np

from twinheart.tissue.eikonal_elements import TET_PAIRS, TRIANGLE_PAIRS

UNREACHED, SOURCE = -2, -1
_FLAT = {jnp.dtype("float32"): 1e-6, jnp.dtype("float64"): 1e-12}
_MOST_SWEEPS = 100_000


def _tables(corners: int, pairs) -> tuple[np.ndarray, ...]:
    """For each corner: the others, the edges to them, and the edges among them."""
    index = {pair: k for k, pair in enumerate(pairs)}
    others = [[j for j in range(corners) if j != d] for d in range(corners)]
    to = [[index[min(d, j), max(d, j)] for j in row] for d, row in enumerate(others)]
    among = [[index[j, k] for n, j in enumerate(row) for k in row[n + 1 :]] for row in others]
    return tuple(np.array(x, np.int32) for x in (others, to, among))


TET_OTHERS, TET_TO, TET_AMONG = _tables(4, TET_PAIRS)
TRIANGLE_OTHERS, TRIANGLE_TO, TRIANGLE_AMONG = _tables(3, TRIANGLE_PAIRS)


def _sqrt(x):
    return jnp.sqrt(jnp.maximum(x, 0.0))


def _inside_edge(t, d, q12):
    """Arrival from the inside of an edge and its weights; inf where the minimum is at an end."""
    low = jnp.minimum(t[0], t[1])
    finite = jnp.isfinite(jnp.maximum(t[0], t[1]))
    s1, s2 = (jnp.where(finite, x - low, 0.0) for x in t)
    g12 = 0.5 * (d[0] + d[1] - q12)
    det = d[0] * d[1] - g12 * g12
    r1, r2 = d[1] - g12, d[0] - g12
    a = r1 + r2
    v1, v2 = d[1] * s1 - g12 * s2, d[0] * s2 - g12 * s1
    disc = (v1 + v2) ** 2 - a * (s1 * v1 + s2 * v2 - det)
    root = _sqrt(disc)
    u = (v1 + v2 + root) / jnp.where(a > 0, a, 1.0)
    w1, w2 = u * r1 - v1, u * r2 - v2
    valid = finite & (disc > 0) & (det > _FLAT[det.dtype] * d[0] * d[1]) & (w1 >= 0) & (w2 >= 0)
    total = jnp.where(valid, w1 + w2, 1.0)
    return jnp.where(valid, low + u, jnp.inf), (w1 / total, w2 / total)


def _inside_face(t, d, among):
    """Arrival from the inside of a face and its weights; inf where the minimum is elsewhere."""
    q12, q13, q23 = among
    low = jnp.minimum(jnp.minimum(t[0], t[1]), t[2])
    finite = jnp.isfinite(jnp.maximum(jnp.maximum(t[0], t[1]), t[2]))
    s1, s2, s3 = (jnp.where(finite, x - low, 0.0) for x in t)
    d1, d2, d3 = d
    g12, g13, g23 = 0.5 * (d1 + d2 - q12), 0.5 * (d1 + d3 - q13), 0.5 * (d2 + d3 - q23)
    c11, c22, c33 = d2 * d3 - g23 * g23, d1 * d3 - g13 * g13, d1 * d2 - g12 * g12
    c12, c13, c23 = g13 * g23 - g12 * d3, g12 * g23 - g13 * d2, g12 * g13 - g23 * d1
    det = d1 * c11 + g12 * c12 + g13 * c13
    r1, r2, r3 = c11 + c12 + c13, c12 + c22 + c23, c13 + c23 + c33
    a = r1 + r2 + r3
    v1 = c11 * s1 + c12 * s2 + c13 * s3
    v2 = c12 * s1 + c22 * s2 + c23 * s3
    v3 = c13 * s1 + c23 * s2 + c33 * s3
    b = v1 + v2 + v3
    disc = b * b - a * (s1 * v1 + s2 * v2 + s3 * v3 - det)
    u = (b + _sqrt(disc)) / jnp.where(a > 0, a, 1.0)
    w1, w2, w3 = u * r1 - v1, u * r2 - v2, u * r3 - v3
    valid = finite & (disc > 0) & (det > _FLAT[det.dtype] * d1 * d2 * d3)
    valid &= (w1 >= 0) & (w2 >= 0) & (w3 >= 0)
    total = jnp.where(valid, w1 + w2 + w3, 1.0)
    return jnp.where(valid, low + u, jnp.inf), (w1 / total, w2 / total, w3 / total)


def _better(first, second):
    """The earlier of two arrivals with their weights."""
    earlier = second[0] < first[0]
    weights = tuple(jnp.where(earlier, y, x) for x, y in zip(first[1], second[1], strict=True))
    return jnp.where(earlier, second[0], first[0]), weights


def over_face(t, d, among):
    """Least arrival from a face, boundary included, and the weights of its three corners."""
    one, zero = jnp.ones_like(d[0]), jnp.zeros_like(d[0])
    best = _inside_face(t, d, among)
    for (i, j), q in zip(((0, 1), (0, 2), (1, 2)), among, strict=True):
        u, (wi, wj) = _inside_edge((t[i], t[j]), (d[i], d[j]), q)
        weights = [zero, zero, zero]
        weights[i], weights[j] = wi, wj
        best = _better(best, (u, tuple(weights)))
    for i in range(3):
        weights = [zero, zero, zero]
        weights[i] = one
        best = _better(best, (t[i] + _sqrt(d[i]), tuple(weights)))
    return best


def over_edge(t, d, among):
    """Least arrival from an edge, ends included, and the weights of its ends."""
    one, zero = jnp.ones_like(d[0]), jnp.zeros_like(d[0])
    best = _inside_edge(t, d, among[0])
    best = _better(best, (t[0] + _sqrt(d[0]), (one, zero)))
    return _better(best, (t[1] + _sqrt(d[1]), (zero, one)))


def _updates(t, cells, squares, tables, minimum):
    """Arrival at every corner of every cell from its opposite side, with weights, corner first."""
    others, to, among = tables
    corner_t = [t[cells[:, k]] for k in range(cells.shape[1])]
    q = [squares[:, k] for k in range(squares.shape[1])]
    return [
        minimum([corner_t[j] for j in others[d]], [q[k] for k in to[d]], [q[k] for k in among[d]])
        for d in range(cells.shape[1])
    ]


_TET_TABLES = (TET_OTHERS, TET_TO, TET_AMONG)
_TRIANGLE_TABLES = (TRIANGLE_OTHERS, TRIANGLE_TO, TRIANGLE_AMONG)


def sweep(t, tets, triangles, edges, qt, qs, cost):
    """One Jacobi sweep: every node takes the least of what its elements offer."""
    for cells, q, tables, minimum in (
        (tets, qt, _TET_TABLES, over_face),
        (triangles, qs, _TRIANGLE_TABLES, over_edge),
    ):
        if cells.shape[0]:
            # Few corners gain; the others write nowhere, which spares atomic operations.
            n, start = t.shape[0], t
            for d, (u, _) in enumerate(_updates(start, cells, q, tables, minimum)):
                target = jnp.where(u < start[cells[:, d]], cells[:, d], n)
                t = t.at[target].min(u, mode="drop")
    if edges.shape[0]:
        first, second = t[edges[:, 0]], t[edges[:, 1]]
        t = t.at[edges[:, 1]].min(first + cost[:, 0]).at[edges[:, 0]].min(second + cost[:, 1])
    return t


def solve_sweeps(tets, triangles, edges, qt, qs, cost, source, tolerance):
    """Fixed point by Jacobi sweeps; what `solve_ordered` returns, see there."""

    def moving(carry):
        _, moved, count = carry
        return (moved > tolerance) & (count < _MOST_SWEEPS)

    def body(carry):
        t, _, count = carry
        new = sweep(t, tets, triangles, edges, qt, qs, cost)
        return new, jnp.where(new < t, t - new, 0.0).max(), count + 1

    start = (source, jnp.asarray(jnp.inf, source.dtype), jnp.asarray(0))
    t, _, _ = jax.lax.while_loop(moving, body, start)
    return (t, *argmins(t, tets, triangles, edges, qt, qs, cost, source))


def argmins(t, tets, triangles, edges, qt, qs, cost, source):
    """Element, corner, nodes and weights that every arrival comes from."""
    n = t.shape[0]
    best = jnp.where(jnp.isfinite(source), source, jnp.inf)
    element = jnp.where(jnp.isfinite(source), SOURCE, UNREACHED).astype(jnp.int32)
    corner = jnp.zeros(n, jnp.int32)
    columns = jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32)[:, None], (n, 3))
    weights = jnp.zeros((n, 3), t.dtype)
    found = (best, element, corner, columns, weights)
    first = 0
    for cells, q, tables, minimum in (
        (tets, qt, _TET_TABLES, over_face),
        (triangles, qs, _TRIANGLE_TABLES, over_edge),
    ):
        for d, (u, w) in enumerate(_updates(t, cells, q, tables, minimum) if len(cells) else ()):
            found = _take(found, cells[:, d], u, first, d, cells[:, tables[0][d]], w)
        first += cells.shape[0]
    if edges.shape[0]:
        for d in range(2):
            u = t[edges[:, 1 - d]] + cost[:, 1 - d]
            one = (jnp.ones_like(u),)
            found = _take(found, edges[:, d], u, first, d, edges[:, 1 - d : 2 - d], one)
    return found[1:]


def _take(found, target, u, first, d, others, w):
    """Let nodes take the arrivals `u` at corners `d` of elements, where they are earlier."""
    best, element, corner, columns, weights = found
    new = best.at[target].min(u)
    wins = (u == new[target]) & (u < best[target])
    number = jnp.arange(len(target), dtype=jnp.int32)
    chosen = (
        jnp.full(best.shape, -1, jnp.int32)
        .at[jnp.where(wins, target, len(best))]
        .max(number, mode="drop")
    )
    took = chosen >= 0
    chosen = jnp.maximum(chosen, 0)
    element = jnp.where(took, chosen + first, element)
    corner = jnp.where(took, d, corner)
    k = others.shape[1]
    own = jnp.arange(len(best), dtype=jnp.int32)[:, None]
    padded = jnp.concatenate([others[chosen], jnp.broadcast_to(own, (len(best), 3 - k))], axis=1)
    columns = jnp.where(took[:, None], padded, columns)
    w = jnp.stack([x[chosen] for x in w] + [jnp.zeros_like(new)] * (3 - k), axis=1)
    weights = jnp.where(took[:, None], w, weights)
    return new, element, corner, columns, weights
