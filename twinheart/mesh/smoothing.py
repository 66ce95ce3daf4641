"""Guarded smoothing near the boundary: the flattest tetrahedra set the step of explicit schemes."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from twinheart.mesh.quality import TET_FACES, cross, dot, tet_shapes
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
    distance: Distance,
    edge: float,
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
        Positively oriented tetrahedra; those with a node in common with the boundary matter.
    triangles : (triangle, 3) int array
        The boundary.
    distance : callable, (n, 3) array -> (n,) array
        Function [mm] whose zeros are the surface on which the boundary nodes lie.
    edge : float
        Edge length of the mesh [mm].
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
    >>> surface = boundary_triangles(raw.tets)
    >>> moved = smooth_boundary(raw.points, raw.tets, surface, ball, 2.0, iterations=2)
    >>> moved.shape == raw.points.shape
    True
    """
    surface = np.unique(triangles)
    touching = np.zeros(len(points), dtype=bool)
    touching[surface] = True
    free = np.zeros(len(points), dtype=bool)
    free[tets[touching[tets].any(axis=1)]] = True
    tets = tets[free[tets].any(axis=1)]
    angle = tet_shapes(points, tets)[2]
    for _ in range(iterations):
        step = _descent(points, tets)
        step[~free] = 0.0
        slope = _gradient(distance, points[surface], edge)
        square = np.maximum(np.einsum("ni,ni->n", slope, slope), 1e-12)
        normal_part = np.einsum("ni,ni->n", step[surface], slope) / square
        step[surface] -= normal_part[:, None] * slope
        length = np.linalg.norm(step, axis=1, keepdims=True)
        step *= np.minimum(1.0, _LONGEST_STEP * edge / np.maximum(length, 1e-300))
        moved = points + step
        moved[surface] = _project(distance, moved[surface], points[surface], slope, square, edge)
        new_angle = tet_shapes(moved, tets)[2]
        while (worse := (new_angle < _GUARD_DEGREES) & (new_angle < angle)).any():
            back = np.zeros(len(points), dtype=bool)
            back[tets[worse]] = True
            moved[back] = points[back]
            redo = back[tets].any(axis=1)
            new_angle[redo] = tet_shapes(moved, tets[redo])[2]
        points, angle = moved, new_angle
    return points


def _descent(points: Points, tets: Tets) -> Float[np.ndarray, "node 3"]:
    """Damped Newton step of each node with the diagonal bound of the second derivative."""
    slope, curvature = np.empty((3, len(tets), 4)), np.empty((len(tets), 4))
    for start in range(0, len(tets), _CHUNK):
        rows = slice(start, start + _CHUNK)
        x = [np.ascontiguousarray(points[tets[rows, k]].T) for k in range(4)]
        inward = [cross(x[k] - x[i], x[j] - x[i]) for i, j, k in TET_FACES]
        scale = 1.0 / dot(x[0] - x[1], inward[0])
        gradient = [g * scale for g in inward]
        gram = np.empty((4, 4, len(scale)))
        for k in range(4):
            for a in range(k + 1):
                gram[k, a] = gram[a, k] = dot(gradient[k], gradient[a])
        s = gram[0, 0] + gram[1, 1] + gram[2, 2] + gram[3, 3]
        for k in range(4):
            g = gram[k]
            down = g[0] * gradient[0] + g[1] * gradient[1] + g[2] * gradient[2] + g[3] * gradient[3]
            along = g[0] ** 2 + g[1] ** 2 + g[2] ** 2 + g[3] ** 2
            slope[:, rows, k] = -2 * s**2 * down
            curvature[rows, k] = s * (6 * s * g[k] ** 2 + 8 * along**2 / g[k])
    n = len(points)
    total = np.maximum(np.bincount(tets.ravel(), curvature.ravel(), n), 1e-300)
    step = [np.bincount(tets.ravel(), part.ravel(), n) / total for part in slope]
    return -_DAMPING * np.stack(step, axis=1)


def _gradient(distance: Distance, points: Points, edge: float) -> Float[np.ndarray, "node 3"]:
    shift = 1e-4 * edge
    return np.stack(
        [(distance(points + d) - distance(points - d)) / (2 * shift) for d in np.eye(3) * shift],
        axis=1,
    )


def _project(distance, points, fallback, slope, square, edge: float) -> Float[np.ndarray, "node 3"]:
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
