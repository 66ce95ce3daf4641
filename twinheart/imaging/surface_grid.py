"""Signed distance to a triangulated surface on a grid; its sign is the winding number's."""

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage
from scipy.spatial import KDTree

from twinheart.imaging.distance_grid import Grid, grid_positions
from twinheart.imaging.image import points_to_voxels, voxel_spacing
from twinheart.types import Points, Triangles

Corners = Float[np.ndarray, "triangle 3 3"]

# Lines of the grid are moved by these shares of a step, so that none meets a node or an edge.
_ASIDE = (7.548776e-5, 5.698402e-5)
_CHUNK = 200_000
# Grid steps from the surface up to which the distance to triangles is taken.
_EXACT = 2.5


def winding_numbers(
    corners: Corners, affine: Float[np.ndarray, "4 4"], shape: tuple[int, ...]
) -> Int[np.ndarray, "axis i j k"]:
    """How often closed surfaces wind around each point of a grid, counted along its three axes.

    The three counts differ only where a surface is not closed.

    Parameters
    ----------
    corners : (triangle, 3, 3) array
        Corners of the triangles [mm], normals outwards.
    affine : (4, 4) array
        Grid indices to positions [mm].
    shape : tuple of 3 ints
        Points of the grid, which holds the whole surface.

    Returns
    -------
    (3, i, j, k) int8 array
        1 inside, 0 outside; others where the surface overlaps itself.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.surface_grid import winding_numbers
    >>> o, x, y, z = np.zeros(3), *(4 * np.eye(3))
    >>> tet = np.array([[o, y, x], [o, x, z], [o, z, y], [x, y, z]]) + 0.5
    >>> winding_numbers(tet, np.eye(4), (6, 6, 6))[:, 1:4, 1, 1].tolist()
    [[1, 1, 1], [1, 1, 1], [1, 1, 1]]
    """
    voxels = points_to_voxels(affine, corners.reshape(-1, 3)).reshape(-1, 3, 3)
    if np.linalg.det(affine[:3, :3]) < 0:
        voxels = voxels[:, ::-1]
    return np.stack([_winding_along(voxels, shape, axis) for axis in range(3)])


def _winding_along(voxels: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
    across = ((axis + 1) % 3, (axis + 2) % 3)
    height = voxels[..., axis]
    u, v = (voxels[..., a] + shift for a, shift in zip(across, _ASIDE, strict=True))
    first = np.ceil(np.stack([u.min(axis=1), v.min(axis=1)])).astype(np.int64)
    last = np.floor(np.stack([u.max(axis=1), v.max(axis=1)])).astype(np.int64)
    span = np.maximum(last - first + 1, 0)
    count = span[0] * span[1]
    triangle = np.repeat(np.arange(len(voxels)), count)
    within = np.arange(len(triangle)) - np.repeat(np.cumsum(count) - count, count)
    p = first[0, triangle] + within // span[1, triangle]
    q = first[1, triangle] + within % span[1, triangle]
    du, dv = u[triangle] - p[:, None], v[triangle] - q[:, None]
    # weight of corner k: the oriented area of the line and the side across
    weight = np.stack(
        [du[:, i] * dv[:, j] - du[:, j] * dv[:, i] for i, j in ((1, 2), (2, 0), (0, 1))], axis=1
    )
    hit = (weight > 0).all(axis=1) | (weight < 0).all(axis=1)
    weight, triangle, p, q = weight[hit], triangle[hit], p[hit], q[hit]
    area = weight.sum(axis=1)
    at = np.ceil((weight * height[triangle]).sum(axis=1) / area).astype(np.int64)
    index = [np.empty(0, dtype=np.int64)] * 3
    index[axis], index[across[0]], index[across[1]] = at, p, q
    flat = np.ravel_multi_index(tuple(index), shape)
    step = np.bincount(flat, -np.sign(area), int(np.prod(shape))).reshape(shape)
    return np.cumsum(step, axis=axis).astype(np.int8)


def surface_points(corners: Corners, spacing: float) -> tuple[Points, Int[np.ndarray, "node"]]:
    """Points that cover triangles about as densely as asked, and the triangle of each.

    They are the centres of the equal parts into which each triangle is cut.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.surface_grid import surface_points
    >>> surface_points(np.eye(3)[None], 1.0)[0].shape
    (4, 3)
    """
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
    parts = np.maximum(np.ceil(sides / spacing), 1).astype(int)
    points, triangle = [], []
    for n in np.unique(parts).tolist():
        here = np.flatnonzero(parts == n)
        up = [(3 * i + 1, 3 * j + 1) for i in range(n) for j in range(n - i)]
        down = [(3 * i + 2, 3 * j + 2) for i in range(n) for j in range(n - i - 1)]
        i, j = np.array(up + down).T
        weights = np.stack([i, j, 3 * n - i - j], axis=1) / (3 * n)
        points.append(np.einsum("tkx,wk->twx", corners[here], weights).reshape(-1, 3))
        triangle.append(here.repeat(len(weights)))
    return np.concatenate(points), np.concatenate(triangle)


def distance_to_triangles(points: Points, corners: Corners) -> Float[np.ndarray, "node"]:
    """Distance [mm] of each point to its own triangle.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.surface_grid import distance_to_triangles
    >>> flat = np.array([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]])
    >>> distance_to_triangles(np.array([[0.2, 0.2, 3.0]]), flat)
    array([3.])
    """
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    normal = np.cross(b - a, c - a)
    size = np.linalg.norm(normal, axis=1)
    best = np.full(len(points), np.inf)
    above = size > 0
    for start, end in ((a, b), (b, c), (c, a)):
        side, to = end - start, points - start
        length2 = np.maximum(np.einsum("ni,ni->n", side, side), 1e-300)
        along = np.clip(np.einsum("ni,ni->n", to, side) / length2, 0, 1)
        best = np.minimum(best, np.linalg.norm(to - along[:, None] * side, axis=1))
        above &= np.einsum("ni,ni->n", np.cross(side, to), normal) >= 0
    height = np.abs(np.einsum("ni,ni->n", points - a, normal)) / np.maximum(size, 1e-300)
    return np.where(above, height, best)


class NearSurface:
    """Distance from points to a surface, by the triangles of the nearest points on it.

    Parameters
    ----------
    corners : (triangle, 3, 3) array
        Corners of the triangles [mm].
    spacing : float
        Distance [mm] between the points that cover the surface; the error is far below it.
    """

    def __init__(self, corners: Corners, spacing: float):
        self.corners = corners
        points, triangle = surface_points(corners, spacing)
        # long and narrow triangles are covered far too densely: one point a small cell is enough
        cell = np.floor((points - points.min(axis=0)) / (0.5 * spacing)).astype(np.int64)
        _, kept = np.unique(cell @ np.array([1, 1 << 20, 1 << 40]), return_index=True)
        self.points, self.triangle = points[kept], triangle[kept]
        self.tree = KDTree(self.points)

    def __call__(self, points: Points) -> Float[np.ndarray, "node"]:
        """Distance [mm] of (node, 3) points."""
        out = np.empty(len(points))
        k = min(4, len(self.points))
        for start in range(0, len(points), _CHUNK):
            some = points[start : start + _CHUNK]
            _, near = self.tree.query(some, k=k, workers=-1)
            near = self.triangle[np.asarray(near).reshape(len(some), -1)]
            each = [distance_to_triangles(some, self.corners[n]) for n in near.T]
            out[start : start + _CHUNK] = np.min(each, axis=0)
        return out


def box_grid(
    points: Points, spacing: float, margin: float
) -> tuple[Float[np.ndarray, "4 4"], tuple[int, ...]]:
    """Affine and shape of a cubic grid around points with a margin [mm] on every side.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.surface_grid import box_grid
    >>> box_grid(np.array([[0.0, 0, 0], [4, 4, 4]]), 1.0, 2.0)[1]
    (9, 9, 9)
    """
    low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = low
    return affine, tuple(int(n) + 1 for n in np.ceil((high - low) / spacing))


def distance_on_grid(
    near: NearSurface,
    winding: Int[np.ndarray, "axis i j k"],
    affine: Float[np.ndarray, "4 4"],
) -> Grid:
    """Signed distance [mm] to a closed surface at the points of a grid.

    Parameters
    ----------
    near : NearSurface
        Distance to it.
    winding : (3, i, j, k) array
        `winding_numbers` of it; inside is where two of three are positive.
    affine : (4, 4) array
        Grid indices to positions [mm].

    Returns
    -------
    (i, j, k) array
        Negative inside; right to about a grid step beyond a few steps from the surface.
    """
    spacing = float(voxel_spacing(affine).max())
    shape = winding.shape[1:]
    inside = (winding > 0).sum(axis=0) >= 2
    marked = np.zeros(shape, dtype=bool)
    marked[tuple(np.rint(points_to_voxels(affine, near.points)).astype(int).T)] = True
    distance = np.asarray(ndimage.distance_transform_edt(~marked)) * spacing
    close = distance < _EXACT * spacing
    distance[close] = near(grid_positions(affine, close))
    return np.where(inside, -distance, distance)


def corners_of(points: Points, triangles: Triangles) -> Corners:
    """(triangle, 3, 3) corners of triangles.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.surface_grid import corners_of
    >>> corners_of(np.eye(3), np.array([[0, 1, 2]])).shape
    (1, 3, 3)
    """
    return points[triangles]
