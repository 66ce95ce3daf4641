r"""The fixed point of the eikonal updates as one differentiable function, by either solver.

At the fixed point :math:`T_i = \sum_j \lambda_{ij} T_j + L_i(\lambda, q)` the weights minimise, so
that they need no derivative (envelope theorem), and

.. math:: (I - W)\, dT = dL, \qquad
   dL_i = \frac{1}{2 L_i} \Big( \sum_j \lambda_j \, dq_{dj}
                                - \sum_{j<k} \lambda_j \lambda_k \, dq_{jk} \Big),

where L is the time from the face to the node and q are squared lengths in the metric. W has at most
three entries a row and is nearly triangular in order of arrival. Forward and reverse mode solve
with I - W and its transpose; nothing is kept of the way to the fixed point, memory is O(N).
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from twinheart.tissue.eikonal_elements import Elements
from twinheart.tissue.eikonal_local import (
    TET_AMONG,
    TET_TO,
    TRIANGLE_AMONG,
    TRIANGLE_TO,
    solve_sweeps,
)
from twinheart.tissue.host import on_host

_AMONG_PAIRS = ((0, 1), (0, 2), (1, 2))


def cores() -> int:
    """Processor cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def fixed_point(elements: Elements, solver: str, tolerance: float, cells, qt, qs, cost, source):
    """Arrival at the nodes [ms], inf where none.

    Parameters
    ----------
    elements : Elements
        What the problem is made of, on the host.
    solver : str
        ``"ordered"`` or ``"sweeps"``.
    tolerance : float
        Change [ms] below which a node is not touched again.
    cells : tuple of (tet, 4), (triangle, 3), (edge, 2) int arrays
        The same elements on the device; only the sweeps read them.
    qt, qs : (tet, 6), (triangle, 3) arrays
        Squared lengths of edges in the metric [ms^2].
    cost : (edge, 2) array
        Times along the edges, forth and back [ms].
    source : (node,) array
        Arrival from outside [ms]; inf where none.

    Returns
    -------
    (node,) array
        Arrival [ms].
    """
    return _solve(elements, solver, tolerance, cells, qt, qs, cost, source)[0]


@fixed_point.defjvp
def _tangent(elements, solver, tolerance, primals, tangents):
    cells, qt, qs, cost, source = primals
    _, dqt, dqs, dcost, dsource = tangents
    found = _solve(elements, solver, tolerance, cells, qt, qs, cost, source)
    t, element, corner, columns, weights = (jax.lax.stop_gradient(x) for x in found)
    n_tets, n_triangles = qt.shape[0], qs.shape[0]
    right = jnp.where(element == -1, dsource, 0.0)
    for first, q, dq, to, among in (
        (0, qt, dqt, TET_TO, TET_AMONG),
        (n_tets, qs, dqs, TRIANGLE_TO, TRIANGLE_AMONG),
    ):
        if q.shape[0]:
            own = (element >= first) & (element < first + q.shape[0])
            row = jnp.where(own, element - first, 0)
            by = _length_derivative(q[row], jnp.where(own, corner, 0), weights, to, among)
            right = right + jnp.where(own, (by * dq[row]).sum(axis=1), 0.0)
    if cost.shape[0]:
        first = n_tets + n_triangles
        own = element >= first
        row = jnp.where(own, element - first, 0)
        right = right + jnp.where(own, dcost[row, jnp.where(own, 1 - corner, 0)], 0.0)
    dt = _solve_linear(solver, columns, weights, right)
    return t, dt


def _length_derivative(q, corner, weights, to, among):
    """Derivative of the time from a face to its corner by the squared lengths, (node, pair)."""
    size = to.shape[1]
    w = [weights[:, k] for k in range(size)]
    pairs = [p for p in _AMONG_PAIRS if p[1] < size]
    products = [w[i] * w[j] for i, j in pairs]
    which = jnp.arange(q.shape[1], dtype=jnp.int32)
    by = jnp.zeros_like(q)
    for k in range(size):
        by += jnp.where(which == jnp.asarray(to)[corner, k][:, None], w[k][:, None], 0.0)
    for k, product in enumerate(products):
        by -= jnp.where(which == jnp.asarray(among)[corner, k][:, None], product[:, None], 0.0)
    length = jnp.sqrt((by * q).sum(axis=1))
    return by / (2.0 * jnp.where(length > 0, length, 1.0))[:, None]


def _solve(elements, solver, tolerance, cells, qt, qs, cost, source):
    if solver == "sweeps":
        tets, triangles, edges = cells
        return solve_sweeps(tets, triangles, edges, qt, qs, cost, source, tolerance)
    n = elements.n_nodes
    shapes = (
        jax.ShapeDtypeStruct((n,), source.dtype),
        jax.ShapeDtypeStruct((n,), np.int32),
        jax.ShapeDtypeStruct((n,), np.int32),
        jax.ShapeDtypeStruct((n, 3), np.int32),
        jax.ShapeDtypeStruct((n, 3), source.dtype),
    )
    host = partial(_ordered, elements, tolerance)
    return on_host(host, shapes, qt, qs, cost, source, vmap_method="expand_dims")


def _ordered(elements: Elements, tolerance, qt, qs, cost, source):
    from twinheart.tissue.eikonal_ordered import solve_ordered

    dtype = np.asarray(source).dtype

    of_tets, of_triangles, of_edges = elements.incidences

    def one(qt, qs, cost, source):
        return solve_ordered(
            elements.n_nodes,
            elements.tets,
            elements.triangles,
            elements.edges,
            of_tets,
            of_triangles,
            of_edges,
            qt,
            qs,
            cost,
            source.astype(np.float64),
            tolerance,
        )

    out = _batched(one, (2, 2, 2, 1), qt, qs, cost, source)
    return tuple(x.astype(dtype) if x.dtype == np.float64 else x for x in out)


def _batched(function, ranks, *arguments):
    """Call for every member of a batch, the members in parallel over the cores."""
    arguments = [np.asarray(a) for a in arguments]
    shapes = [a.shape[a.ndim - r :] for a, r in zip(arguments, ranks, strict=True)]
    outer = [a.shape[: a.ndim - r] for a, r in zip(arguments, ranks, strict=True)]
    batch = np.broadcast_shapes(*outer)
    count = int(np.prod(batch))
    calls = []
    for a, shape, own in zip(arguments, shapes, outer, strict=True):
        members = np.broadcast_to(a, batch + shape).reshape(count, *shape) if own == batch else None
        calls.append([a.reshape(shape)] * count if members is None else list(members))
    calls = [[np.ascontiguousarray(a) for a in call] for call in zip(*calls, strict=True)]
    if len(calls) == 1:
        results = [function(*calls[0])]
    else:
        with ThreadPoolExecutor(min(cores(), len(calls))) as pool:
            results = list(pool.map(lambda member: function(*member), calls))
    return [np.stack(x).reshape(batch + x[0].shape) for x in zip(*results, strict=True)]


def _solve_linear(solver, columns, weights, right):
    """Solve ``(I - W) x = right``; reverse mode transposes it."""

    def pulled(x):
        return (weights * x[columns]).sum(axis=1)

    def pushed(y):
        return jnp.zeros_like(y).at[columns].add(weights * y[:, None])

    def solve(_, b):
        if solver == "sweeps":
            return _summed(pulled, b)
        return ordered("solve_tangent", b)

    def transposed(_, b):
        if solver == "sweeps":
            return _summed(pushed, b)
        return ordered("solve_adjoint", b)

    def ordered(name, b):
        shape = jax.ShapeDtypeStruct(b.shape, b.dtype)
        host = partial(_linear, name)
        return on_host(host, shape, columns, weights, b, vmap_method="expand_dims")

    return jax.lax.custom_linear_solve(lambda x: x - pulled(x), right, solve, transposed)


def _linear(name, columns, weights, right):
    from twinheart.tissue import eikonal_groups

    solve = getattr(eikonal_groups, name)

    def one(columns, weights, right):
        return (solve(columns, weights.astype(np.float64), right.astype(np.float64)),)

    (x,) = _batched(one, (2, 2, 1), columns, weights, right)
    return x.astype(np.asarray(right).dtype)


def _summed(step, start):
    """The series ``start + step(start) + step(step(start)) + ...``, which comes to an end."""
    least = jnp.finfo(start.dtype).eps * jnp.abs(start).max()

    def body(carry):
        total, term = carry
        term = step(term)
        return total + term, term

    return jax.lax.while_loop(lambda c: jnp.abs(c[1]).max() > least, body, (start, start))[0]
