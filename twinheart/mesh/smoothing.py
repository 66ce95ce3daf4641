"""Guarded smoothing near the boundary: the flattest tetrahedra set the step of explicit schemes."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from twinheart.mesh.quality import TET_FACES, cross, dot
from twinheart.types import Points, Tets, Triangles

# No dihedral angle below this [degrees] gets smaller.
_GUARD_DEGREES = 15.0
# Damping of the simultaneous Newton steps, and the longest step over the edge length.
_DAMPING, _LONGEST_STEP = 0.5, 0.15
# Distance from the surface over the edge length at which a node has arrived on it.
_ARRIVED = 1e-4
_CHUNK = 1 << 14

Distance = Callable[[np.ndarray], np.ndarray]


def smooth_boundary(
    points: Points,
    tets: Tets,
    triangles: Triangles,
    free: Bool[np.ndarray, "node"],
    distance: Distance,
    edge: Float[np.ndarray, "node"],
    *,
    iterations: int,
) -> Points:
    r"""Move the nodes at the boundary so that the small altitudes of its tetrahedra grow.

    Boundary nodes slide along the surface, their inner neighbours move freely, all down the
    gradient of :math:`\sum_{tets} s^3`, :math:`s = \sum_k 1/h_k^2` with :math:`h_k` the four
    altitudes. The largest eigenvalue of the diffusion operator, which limits the explicit time
    step, is governed by the largest s.

    Parameters
    ----------
    points : (node, 3) array
        Coordinates [mm].
    tets : (tet, 4) int array
        Positively oriented tetrahedra near the boundary.
    triangles : (triangle, 3) int array
        The boundary.
    free : (node,) bool array
        Nodes whose tetrahedra are all among `tets`; others stay.
    distance : callable, (n, 3) array -> (n,) array
        Function [mm] whose zeros are the surface on which the boundary nodes lie.
    edge : (node,) array
        Edge length of the mesh [mm] at each node.
    iterations : int
        Simultaneous steps of all nodes.

    Returns
    -------
    (node, 3) array
        New coordinates. No tetrahedron is turned over, no dihedral angle below 15 degrees shrinks,
        and a node that finds no way back to the surface, as beyond a sharp rim, stays.

    Notes
    -----
    With :math:`b_k = \nabla\lambda_k`, :math:`|b_k| = 1/h_k`, moving vertex k changes
    :math:`b_a` by :math:`-(b_a \cdot \delta) b_k`, so the gradient of s is
    :math:`-2 S b_k` with :math:`S = \sum_a b_a b_a^T`, and :math:`6 |b_k|^4` bounds its second
    derivative along :math:`b_k`.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.quality import boundary_triangles
    >>> from twinheart.mesh.smoothing import smooth_boundary
    >>> from twinheart.mesh.stuffing import stuff
    >>> ball = lambda x: np.linalg.norm(x, axis=1) - 10.0
    >>> raw = stuff(ball, ([-10] * 3, [10] * 3), 2.0, improve=False)
    >>> surface, free = boundary_triangles(raw.tets), np.ones(raw.n_nodes, dtype=bool)
    >>> edge = np.full(raw.n_nodes, 2.0)
    >>> moved = smooth_boundary(raw.points, raw.tets, surface, free, ball, edge, iterations=2)
    >>> moved.shape == raw.points.shape
    True
    """
    surface = np.unique(triangles)
    touching = np.zeros(len(points), dtype=bool)
    touching[surface] = True
    near = np.zeros(len(points), dtype=bool)
    near[tets[touching[tets].any(axis=1)]] = True
    free = free & near
    tets = tets[free[tets].any(axis=1)]
    slope, curvature, angle = _evaluate(points, tets)
    for _ in range(iterations):
        step = _step(tets, slope, curvature, len(points))
        step[~free] = 0.0
        normal = _gradient(distance, points[surface], edge[surface])
        square = np.maximum(np.einsum("ni,ni->n", normal, normal), 1e-12)
        along_normal = np.einsum("ni,ni->n", step[surface], normal) / square
        step[surface] -= along_normal[:, None] * normal
        length = np.linalg.norm(step, axis=1, keepdims=True)
        step *= np.minimum(1.0, _LONGEST_STEP * edge[:, None] / np.maximum(length, 1e-300))
        moved = points + step
        moved[surface] = _project(
            distance, moved[surface], points[surface], normal, square, edge[surface]
        )
        slope, curvature, angle = _take_back(moved, points, tets, angle)
        points = moved
    return points


def _evaluate(points: Points, tets: Tets) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tet, 4, 3) slopes of the objective, (tet, 4) curvatures, (tet,) smallest dihedral angles.

    The angle is -1 where a tetrahedron is turned over.
    """
    slope, curvature = np.empty((len(tets), 4, 3)), np.empty((len(tets), 4))
    angle = np.empty(len(tets))
    for start in range(0, len(tets), _CHUNK):
        rows = slice(start, start + _CHUNK)
        x = [np.ascontiguousarray(points[tets[rows, k]].T) for k in range(4)]
        inward = [cross(x[k] - x[i], x[j] - x[i]) for i, j, k in TET_FACES]
        six_volumes = dot(x[0] - x[1], inward[0])
        positive = six_volumes > 0
        gradient = [g / np.where(positive, six_volumes, 1.0) for g in inward]
        gram = np.empty((4, 4, len(six_volumes)))
        for k in range(4):
            for a in range(k + 1):
                gram[k, a] = gram[a, k] = dot(gradient[k], gradient[a])
        square = [np.maximum(gram[k, k], 1e-300) for k in range(4)]
        cosine = np.full(len(six_volumes), -1.0)
        for k in range(4):
            for a in range(k):
                np.maximum(cosine, -gram[k, a] / np.sqrt(square[k] * square[a]), out=cosine)
        angle[rows] = np.where(positive, np.degrees(np.arccos(np.minimum(cosine, 1.0))), -1.0)
        s = square[0] + square[1] + square[2] + square[3]
        for k in range(4):
            g = gram[k]
            down = g[0] * gradient[0] + g[1] * gradient[1] + g[2] * gradient[2] + g[3] * gradient[3]
            along = g[0] ** 2 + g[1] ** 2 + g[2] ** 2 + g[3] ** 2
            slope[rows, k] = (-2 * s**2 * down).T
            curvature[rows, k] = s * (6 * s * square[k] ** 2 + 8 * along**2 / square[k])
    return slope, curvature, angle


def _take_back(moved: Points, points: Points, tets: Tets, angle: np.ndarray):
    """Undo, in place, the moves that make a small angle smaller; evaluate what remains."""
    found = _evaluate(moved, tets)
    while (worse := (found[2] < _GUARD_DEGREES) & (found[2] < angle)).any():
        back = np.zeros(len(points), dtype=bool)
        back[tets[worse]] = True
        moved[back] = points[back]
        redo = np.flatnonzero(back[tets].any(axis=1))
        for values, anew in zip(found, _evaluate(moved, tets[redo]), strict=True):
            values[redo] = anew
    return found


def _step(tets: Tets, slope: np.ndarray, curvature: np.ndarray, n_nodes: int) -> np.ndarray:
    """Damped Newton step of each node with the diagonal bound of the second derivative."""
    nodes = tets.ravel()
    total = np.maximum(np.bincount(nodes, curvature.ravel(), n_nodes), 1e-300)
    step = [np.bincount(nodes, slope[..., k].ravel(), n_nodes) / total for k in range(3)]
    return -_DAMPING * np.stack(step, axis=1)


def _gradient(distance: Distance, points: Points, edge: np.ndarray) -> Float[np.ndarray, "node 3"]:
    shift = 1e-4 * edge[:, None]
    return np.stack(
        [
            (distance(points + shift * d) - distance(points - shift * d)) / (2 * shift[:, 0])
            for d in np.eye(3)
        ],
        axis=1,
    )


def _project(distance, points, fallback, slope, square, edge) -> Float[np.ndarray, "node 3"]:
    """Secant steps onto the surface along `slope`; the fallback where they do not arrive."""
    before, value = np.zeros(len(points)), distance(points)
    at = value / square
    for _ in range(3):
        old, value = value, distance(points - at[:, None] * slope)
        change = np.where(value == old, 1.0, value - old)
        before, at = at, at - np.where(value == old, 0.0, value * (at - before) / change)
    moved = points - at[:, None] * slope
    arrived = np.abs(distance(moved)) < _ARRIVED * edge
    return np.where(arrived[:, None], moved, fallback)
