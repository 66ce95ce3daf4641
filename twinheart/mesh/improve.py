"""Improve the layer of tetrahedra at the boundary, so that explicit schemes may take long steps."""

import numpy as np
from jaxtyping import Float

from twinheart.mesh.collapse import collapse_edges
from twinheart.mesh.core import TetMesh
from twinheart.mesh.quality import renumbered
from twinheart.mesh.smoothing import Distance, smooth_boundary
from twinheart.types import Triangles

# Layers of nodes from the boundary inwards that take part.
_LAYERS = 3
_SWEEPS, _ROUNDS, _ITERATIONS = 4, 3, 4


def improve_boundary(
    mesh: TetMesh,
    triangles: Triangles,
    distance: Distance,
    edge: float | Float[np.ndarray, "node"],
) -> TetMesh:
    """Collapse short edges and smooth in turns, near the boundary only.

    What is left are rows of the explicit operator that are hardly stiffer than a lattice's; an
    edge of 1 mm on two ventricles makes steps 54 to 66 % as long as those of the lattice, and
    before 13 %.

    Parameters
    ----------
    mesh : TetMesh
        Positively oriented tetrahedra [mm], without fields.
    triangles : (triangle, 3) int array
        Its boundary (`boundary_triangles`).
    distance : callable, (n, 3) array -> (n,) array
        Function [mm] whose zeros are the surface on which the boundary nodes lie.
    edge : float or (node,) array
        Edge length of the mesh [mm], of all of it or at each node.

    Returns
    -------
    TetMesh
        A mesh of the same topology whose boundary nodes lie on the surface.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.improve import improve_boundary
    >>> from twinheart.mesh.quality import boundary_triangles
    >>> from twinheart.mesh.stuffing import stuff
    >>> ball = lambda x: np.linalg.norm(x, axis=1) - 10.0
    >>> raw = stuff(ball, ([-10] * 3, [10] * 3), 2.0, improve=False)
    >>> better = improve_boundary(raw, boundary_triangles(raw.tets), ball, 2.0)
    >>> better.n_nodes < raw.n_nodes
    True
    """
    free = np.zeros(mesh.n_nodes, dtype=bool)
    free[triangles] = True
    for _ in range(_LAYERS - 1):
        free[mesh.tets[free[mesh.tets].any(axis=1)]] = True
    near = free[mesh.tets].any(axis=1)
    nodes, tets = renumbered(mesh.tets[near], mesh.n_nodes)
    triangles = np.searchsorted(nodes, triangles)
    points, free = mesh.points[nodes], free[nodes]
    edge = np.broadcast_to(edge, mesh.n_nodes)[nodes]
    for _ in range(_SWEEPS):
        tets, triangles = collapse_edges(points, tets, triangles, free, edge, rounds=_ROUNDS)
        points = smooth_boundary(
            points, tets, triangles, free, distance, edge, iterations=_ITERATIONS
        )
    all_points = mesh.points.copy()
    all_points[nodes] = points
    used, tets = renumbered(np.concatenate([mesh.tets[~near], nodes[tets]]), mesh.n_nodes)
    return TetMesh(all_points[used], tets)
