r"""Arc length along the streamlines of a field, from every node to where they end.

The length obeys :math:`w \cdot \nabla d = -1` along the unit direction w (Yezzi and Prince 2003,
doi:10.1109/TMI.2003.817775). From each node the streamline is followed backwards through the one
tetrahedron that it crosses; the length at its exit is interpolated between the three corners of
the face left. An order in which these corners come first makes the system nearly triangular.
"""

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from jaxtyping import Float, Int

from twinheart.fem.assembly import gradients
from twinheart.mesh import TetMesh

_TINY = 1e-13
_CHUNK = 1_000_000  # tetrahedra handled together: bounds the memory


def nodal_gradient(
    mesh: TetMesh,
    values: Float[np.ndarray, "node"],
    jump: Float[np.ndarray, "tet 4"] | None = None,
) -> Float[np.ndarray, "node 3"]:
    """Gradient of a nodal field, averaged over the tetrahedra at each node by volume.

    Parameters
    ----------
    mesh : TetMesh
        Tetrahedra [mm].
    values : (node,) array
        The field.
    jump : (tet, 4) array
        Taken from the values at the corners of each tetrahedron: for a field of several branches.

    Returns
    -------
    (node, 3) array
        Its gradient [unit of the field per mm].

    Examples
    --------
    >>> from twinheart.fem import nodal_gradient
    >>> from twinheart.mesh.generate import slab
    >>> mesh = slab((2.0, 1.0, 1.0), 0.5)
    >>> [round(float(slope), 9) for slope in nodal_gradient(mesh, mesh.points[:, 0])[5]]
    [1.0, 0.0, 0.0]
    """
    total = np.zeros((mesh.n_nodes, 3))
    weight = np.zeros(mesh.n_nodes)
    for start in range(0, mesh.n_tets, _CHUNK):
        part = slice(start, start + _CHUNK)
        tets = mesh.tets[part]
        grad, volume = gradients(mesh.points, tets)
        local = values[tets] if jump is None else values[tets] - jump[part]
        slope = np.einsum("tai,ta->ti", grad, local) * volume[:, None]
        nodes = tets.ravel()
        weight += np.bincount(nodes, np.repeat(volume, 4), mesh.n_nodes)
        for axis in range(3):
            total[:, axis] += np.bincount(nodes, np.repeat(slope[:, axis], 4), mesh.n_nodes)
    return total / np.maximum(weight, 1e-300)[:, None]


def trajectory_length(
    mesh: TetMesh,
    direction: Float[np.ndarray, "node 3"],
    order: Float[np.ndarray, "node"],
    ends: Int[np.ndarray, "end"],
    level: Float[np.ndarray, "node"] | None = None,
) -> Float[np.ndarray, "node"]:
    """Length of the streamline from each node to where it ends.

    Parameters
    ----------
    mesh : TetMesh
        Tetrahedra [mm].
    direction : (node, 3) array
        Direction in which to go; its length does not matter.
    order : (node,) array
        A field that falls on the way, such as the potential whose gradient is followed.
    ends : (end,) int array
        Nodes at which streamlines end.
    level : (node,) array
        They end where this field changes its sign, too: anywhere inside tetrahedra.

    Returns
    -------
    (node,) array
        Lengths [mm], 0 at the ends.

    Notes
    -----
    Where the field points out of the mesh the streamline slides along its surface.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.fem import trajectory_length
    >>> from twinheart.mesh.generate import slab
    >>> mesh = slab((2.0, 1.0, 1.0), 0.5)
    >>> x = mesh.points[:, 0]
    >>> left = np.tile([-1.0, 0.0, 0.0], (mesh.n_nodes, 1))
    >>> length = trajectory_length(mesh, left, x, np.flatnonzero(x == 0.0))
    >>> bool(np.abs(length - x).max() < 1e-12)
    True
    """
    exits = _exits(mesh, direction, order, level)
    n = mesh.n_nodes
    step, faces, weights, found = exits
    fixed = np.zeros(n, dtype=bool)
    fixed[ends] = True
    if level is not None:
        fixed |= level == 0
        side = np.where(level >= 0, 1.0, -1.0)
        beyond = side * np.einsum("nk,nk->n", weights, level[faces])
        crossing = found & (beyond <= 0)
        here = np.abs(level)
        step = np.where(crossing, step * here / np.maximum(here - beyond, 1e-300), step)
        weights = np.where(crossing[:, None], 0.0, weights)
    step = np.where(fixed | ~found, 0.0, step)
    weights = np.where((fixed | ~found)[:, None], 0.0, weights)
    rows = np.repeat(np.arange(n), 3)
    ahead = sp.coo_array((weights.ravel(), (rows, faces.ravel())), shape=(n, n)).tocsr()
    lost = np.flatnonzero(~found & ~fixed)
    if lost.size:
        ahead = ahead + _neighbour_mean(mesh, lost)
    rank = np.argsort(order, kind="stable")
    # Where the field is flat to rounding, streamlines run in circles and have no length: with the
    # diagonal a little above one the others are found all the same.
    system = sp.csr_array((1.0 + _TINY) * sp.eye_array(n) - ahead)[rank][:, rank].tocsc()
    length = np.empty(n)
    factors = spla.splu(system, permc_spec="NATURAL", diag_pivot_thresh=0.0)
    length[rank] = factors.solve(step[rank])
    return length


def _exits(mesh: TetMesh, direction, order, level):
    """Where the line from each node leaves its tetrahedron: step, face, weights, whether any."""
    n = mesh.n_nodes
    best = np.full(n, -np.inf)
    step, faces, weights = np.zeros(n), np.zeros((n, 3), dtype=np.int32), np.zeros((n, 3))
    for start in range(0, mesh.n_tets, _CHUNK):
        tets = mesh.tets[start : start + _CHUNK]
        grad, _ = gradients(mesh.points, tets)
        for corner in range(4):
            node = tets[:, corner]
            face = np.delete(tets, corner, axis=1)
            rate = np.einsum("tai,ti->ta", grad, direction[node])
            into = rate[:, corner] < 0
            share = np.delete(rate, corner, axis=1) / np.where(into, -rate[:, corner], 1.0)[:, None]
            score = share.min(axis=1)
            share = np.maximum(share, 0.0)
            share /= np.maximum(share.sum(axis=1), 1e-300)[:, None]
            falls = np.einsum("tk,tk->t", share, order[face]) < order[node]
            if level is not None:
                beyond = np.einsum("tk,tk->t", share, level[face])
                falls |= beyond * np.sign(level[node]) <= 0
            score = np.where(into & falls, score, -np.inf)
            # the last of several assignments to one node stays: the best of this corner
            ascending = np.argsort(score, kind="stable")
            top = np.full(n, -1)
            top[node[ascending]] = ascending
            here = np.flatnonzero(top >= 0)
            here = here[score[top[here]] > best[here]]
            chosen = top[here]
            best[here] = score[chosen]
            faces[here], weights[here] = face[chosen], share[chosen]
            way = np.einsum("tk,tki->ti", share[chosen], mesh.points[face[chosen]])
            step[here] = np.linalg.norm(way - mesh.points[here], axis=1)
    return step, faces, weights, np.isfinite(best)


def _neighbour_mean(mesh: TetMesh, nodes: np.ndarray) -> sp.csr_array:
    """Rows that set these nodes to the mean of the nodes around them."""
    touched = np.isin(mesh.tets, nodes)
    tet, corner = np.nonzero(touched)
    rows = np.repeat(mesh.tets[tet, corner], 4)
    columns = mesh.tets[tet].ravel()
    other = rows != columns
    around = sp.coo_array(
        (np.ones(other.sum()), (rows[other], columns[other])), shape=(mesh.n_nodes,) * 2
    ).tocsr()
    return sp.diags_array(1.0 / np.maximum(around.sum(axis=1), 1.0)) @ around
