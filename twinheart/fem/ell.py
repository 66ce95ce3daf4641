r"""The edge-difference operator in ELL form: the one sparse product of the time loop.

:math:`(A v)_i = \sum_k w_{ik} (v_{c_{ik}} - v_i)`. Every column is gathered by itself, so that XLA
fuses the gathers with whatever surrounds them; differences make constants vanish exactly in any
precision; and because A is symmetric its transpose is the same gather, so neither the product nor
its derivatives ever scatter.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from twinheart.fem.assembly import EdgeGraph
from twinheart.types import Array


class EllGraph(eqx.Module):
    """Neighbours of every node, padded to the largest degree.

    Parameters
    ----------
    columns : (slot, node) int array
        Neighbour in each slot; padding points back at the node itself, where the difference is 0.
    slot_edges : (slot, node) int array
        Edge index behind each slot; padding points one past the last edge.
    """

    columns: Int[Array, "slot node"]
    slot_edges: Int[Array, "slot node"]

    @property
    def width(self) -> int:
        """Largest number of neighbours."""
        return self.columns.shape[0]


def ell_graph(graph: EdgeGraph) -> EllGraph:
    """Lay the edges out by node.

    Parameters
    ----------
    graph : EdgeGraph
        Edges of the mesh, in the node order of the computation (see `rcm_order`).

    Returns
    -------
    EllGraph
        Slots filled in order of the neighbour's index.
    """
    n, n_edges = graph.n_nodes, graph.n_edges
    i, j = graph.edges.T
    rows = np.concatenate([i, j])
    neighbours = np.concatenate([j, i])
    edge = np.tile(np.arange(n_edges, dtype=np.int32), 2)
    order = np.lexsort((neighbours, rows))
    rows, neighbours, edge = rows[order], neighbours[order], edge[order]
    degree = np.bincount(rows, minlength=n)
    slot = np.arange(rows.size) - np.repeat(np.cumsum(degree) - degree, degree)
    width = int(degree.max(initial=0))
    columns = np.tile(np.arange(n, dtype=np.int32), (width, 1))
    slot_edges = np.full((width, n), n_edges, dtype=np.int32)
    columns[slot, rows] = neighbours
    slot_edges[slot, rows] = edge
    return EllGraph(columns, slot_edges)


def rcm_order(graph: EdgeGraph) -> Int[np.ndarray, "node"]:
    """Reverse Cuthill-McKee order of the nodes: neighbours end up close in memory.

    Returns
    -------
    (node,) int array
        ``order[k]`` is the old index of the node at the new place k.
    """
    i, j = graph.edges.T
    ones = np.ones(len(i), dtype=np.int8)
    shape = (graph.n_nodes, graph.n_nodes)
    adjacency = sp.coo_matrix((ones, (i, j)), shape=shape).tocsr()
    order = sp.csgraph.reverse_cuthill_mckee(adjacency + adjacency.T, symmetric_mode=True)
    return np.ascontiguousarray(order)


def slot_weights(ell: EllGraph, edge_weights: Float[Array, "edge"]) -> Float[Array, "slot node"]:
    """Spread edge weights over the slots, zero in the padding.

    Parameters
    ----------
    ell : EllGraph
        Where each edge goes.
    edge_weights : (edge,) array
        One weight an edge.

    Returns
    -------
    (slot, node) array
        Numpy for numpy, jax for jax (differentiable).
    """
    xp = np if isinstance(edge_weights, np.ndarray) else jnp
    padded = xp.concatenate([edge_weights, xp.zeros(1, edge_weights.dtype)])
    return padded[ell.slot_edges]


def difference_sum(
    weights: Float[Array, "slot node"],
    columns: Int[Array, "slot node"],
    v: Float[Array, "node"],
    around: Float[Array, "place"],
) -> Float[Array, "node"]:
    r"""Differences to values that may lie elsewhere, :math:`\sum_k w_k (a_{c_k} - v)`.

    Parameters
    ----------
    weights : (slot, node) array
        See `edge_difference_sum`.
    columns : (slot, node) int array
        Places in `around`.
    v : (node,) array
        Field at the nodes.
    around : (place,) array
        Field at the nodes and wherever else a neighbour is.

    Returns
    -------
    (node,) array
        The sum, slot after slot; without a derivative rule of its own.
    """
    total = jnp.zeros_like(v)
    for k in range(columns.shape[0]):  # unrolled: one fused kernel, nothing materialised
        total = total + weights[k] * (_gather(around, columns[k]) - v)
    return total


def _gather(v, index):
    # Neither bounds nor negative indices to look after: a fifth of the product's time.
    return v.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)


@jax.custom_jvp
def edge_difference_sum(
    weights: Float[Array, "slot node"],
    columns: Int[Array, "slot node"],
    v: Float[Array, "node"],
) -> Float[Array, "node"]:
    r"""Apply the symmetric edge-difference operator, :math:`\sum_k w_k (v_{c_k} - v)`.

    Parameters
    ----------
    weights : (slot, node) array
        One weight for both ends of an edge (see `slot_weights`): the derivative rule uses the
        symmetry, unsymmetric weights would get wrong gradients.
    columns : (slot, node) int array
        From `EllGraph`.
    v : (node,) array
        Field.

    Returns
    -------
    (node,) array
        For stiffness weights, minus the stiffness matrix times v.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from twinheart.fem import edge_difference_sum
    >>> columns, weights = jnp.array([[1, 0]]), jnp.array([[2.0, 2.0]])
    >>> edge_difference_sum(weights, columns, jnp.array([0.0, 1.0])).tolist()
    [2.0, -2.0]
    """
    return difference_sum(weights, columns, v, v)


@edge_difference_sum.defjvp
def _edge_difference_sum_jvp(primals, tangents):
    weights, columns, v = primals
    weights_dot, _, v_dot = tangents
    out = difference_sum(weights, columns, v, v)

    # Symmetric, so its transpose is itself: reverse mode gathers too. JAX lets a linear map name
    # its own transpose, under jvp, grad and vmap alike, only through `custom_linear_solve`: the
    # product is given as the "solve", and `matvec`, which only a derivative in the weights would
    # call, is a placeholder.
    tangent = jax.lax.custom_linear_solve(
        lambda x: x,
        v_dot,
        solve=lambda _, x: difference_sum(weights, columns, x, x),
        symmetric=True,
    )
    # Linear in the weights; its transpose, w_bar_k = out_bar (v[c_k] - v), needs no scatter.
    return out, tangent + difference_sum(weights_dot, columns, v, v)
