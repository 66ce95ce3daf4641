"""Drawing triangles in NumPy: which one is seen at every pixel, and where in it.

What is seen depends on geometry alone, so it is found once a view; colouring it again, for another
map or the next frame of a film, is then a matter of milliseconds. No graphics driver takes part:
pictures are the same on every machine, and there are pictures on every machine.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

_FRAGMENTS = 2_000_000  # handled at once


class Seen(NamedTuple):
    """What each covered pixel shows.

    Attributes
    ----------
    pixel : (pixel,) array
        Flat index, row by row from the top.
    triangle : (pixel,) array
        The nearest triangle there.
    weights : (pixel, 3) array
        Barycentric coordinates of the pixel's centre in it.
    """

    pixel: Int[np.ndarray, "pixel"]
    triangle: Int[np.ndarray, "pixel"]
    weights: Float[np.ndarray, "pixel 3"]


def rasterise(
    corners: Float[np.ndarray, "triangle 3 3"],
    size: int,
    *,
    removed: Float[np.ndarray, "triangle 3"] | None = None,
) -> Seen:
    """Find the nearest front-facing triangle at every pixel of a square picture.

    Parameters
    ----------
    corners : (triangle, 3, 3) array
        Corners as (right, up, towards the eye) in pixels, the origin at the lower left. Triangles
        whose corners run clockwise face away and are not drawn.
    size : int
        Pixels a side.
    removed : (triangle, 3) array, optional
        A function at the corners; where it is positive, the triangle is cut away.

    Returns
    -------
    Seen
        The covered pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.report.raster import rasterise
    >>> corners = np.array([[[0.0, 0.0, 0.0], [4.0, 0.0, 0.0], [0.0, 4.0, 0.0]]])
    >>> rasterise(corners, 4).pixel.tolist()
    [0, 4, 5, 8, 9, 10, 12, 13, 14, 15]
    """
    x, y, depth = corners[..., 0], corners[..., 1], corners[..., 2]
    double_area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0])
    double_area -= (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    # pixel centres lie at halves
    left, right = _covered(x, size)
    low, high = _covered(y, size)
    wide, tall = right - left + 1, high - low + 1
    shown = np.flatnonzero((double_area > 0) & (wide > 0) & (tall > 0))
    nearest = np.full(size * size, -np.inf)
    parts = []
    for group in _groups(shown, (wide * tall)[shown]):
        count = (wide * tall)[group]
        triangle = np.repeat(group, count)
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        column = left[triangle] + within % wide[triangle]
        row = low[triangle] + within // wide[triangle]
        weights = _barycentric(x[triangle], y[triangle], double_area[triangle], column, row)
        inside = weights.min(axis=1) >= -1e-9
        if removed is not None:
            inside &= (weights * removed[triangle]).sum(axis=1) <= 0
        triangle, weights = triangle[inside], weights[inside]
        pixel = (size - 1 - row[inside]) * size + column[inside]
        distance = (weights * depth[triangle]).sum(axis=1)
        np.maximum.at(nearest, pixel, distance)
        ahead = distance >= nearest[pixel]
        parts.append((pixel[ahead], triangle[ahead], weights[ahead], distance[ahead]))
    if not parts:
        return Seen(np.zeros(0, dtype=int), np.zeros(0, dtype=int), np.zeros((0, 3)))
    pixel, triangle, weights, distance = (np.concatenate(part) for part in zip(*parts, strict=True))
    first = np.flatnonzero(distance == nearest[pixel])
    # two triangles may meet at a pixel's centre: one of them is enough
    pixel, unique = np.unique(pixel[first], return_index=True)
    return Seen(pixel, triangle[first[unique]], weights[first[unique]])


def corner_normals(
    points: Float[np.ndarray, "point 3"],
    triangles: Int[np.ndarray, "triangle 3"],
    *,
    sharp: float = 50.0,
) -> Float[np.ndarray, "triangle 3 3"]:
    """Unit normals at the corners of each triangle, averaged over its neighbours.

    Parameters
    ----------
    points, triangles : arrays
        The surface.
    sharp : float
        Angle [degrees] beyond which two triangles do not share a normal: there the edge shows.

    Returns
    -------
    (triangle, 3, 3) array
        A normal for each corner.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.report.raster import corner_normals
    >>> corner_normals(np.eye(3), np.array([[0, 1, 2]])).shape
    (1, 3, 3)
    """
    a, b, c = (points[triangles[:, k]] for k in range(3))
    area = np.cross(b - a, c - a)
    unit = area / np.maximum(np.linalg.norm(area, axis=1), 1e-300)[:, None]
    n = triangles.size
    at_point = sp.csr_array(
        (np.ones(n, dtype=np.int8), (np.arange(n), triangles.ravel())), (n, len(points))
    )
    pairs = (at_point @ at_point.T).tocoo()
    corner, other = pairs.coords[0], pairs.coords[1] // 3
    alike = (unit[corner // 3] * unit[other]).sum(axis=1) > np.cos(np.radians(sharp))
    corner, other = corner[alike], other[alike]
    # corners of slivers have no direction of their own: theirs stays out of the mean
    sums = np.stack([np.bincount(corner, area[other, d], n) for d in range(3)], axis=1)
    length = np.linalg.norm(sums, axis=1)
    sums = np.where(length[:, None] > 0, sums, np.repeat(unit, 3, axis=0))
    return (sums / np.maximum(np.linalg.norm(sums, axis=1), 1e-300)[:, None]).reshape(-1, 3, 3)


def _covered(coordinate: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last pixel whose centre can lie within each triangle, along one axis."""
    first = np.ceil(coordinate.min(axis=1) - 0.5)
    last = np.floor(coordinate.max(axis=1) - 0.5)
    first, last = np.clip(first, 0, size), np.clip(last, -1, size - 1)
    return first.astype(np.int64), last.astype(np.int64)


def _groups(triangles: np.ndarray, count: np.ndarray) -> list[np.ndarray]:
    """Cut the list of triangles so that no piece has many more than `_FRAGMENTS` fragments."""
    piece = np.cumsum(count) // _FRAGMENTS
    return np.split(triangles, np.flatnonzero(np.diff(piece)) + 1) if len(triangles) else []


def _barycentric(x, y, double_area, column, row) -> np.ndarray:
    dx, dy = column + 0.5 - x[:, 0], row + 0.5 - y[:, 0]
    second = (dx * (y[:, 2] - y[:, 0]) - dy * (x[:, 2] - x[:, 0])) / double_area
    third = (dy * (x[:, 1] - x[:, 0]) - dx * (y[:, 1] - y[:, 0])) / double_area
    return np.stack([1.0 - second - third, second, third], axis=1)
