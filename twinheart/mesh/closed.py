"""Surfaces that bound a body: closed, turned outwards and checked; and the distance to them."""

from itertools import product

import numpy as np
from jaxtyping import Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from twinheart.errors import MeshError
from twinheart.mesh.core import TriMesh
from twinheart.mesh.defects import counted
from twinheart.mesh.quality import enclosed_volume
from twinheart.mesh.smoothing import Distance
from twinheart.types import Points, Triangles

_CHUNK = 2_000_000  # pairs of triangles at a time
# Volumes below this share of the cube of an extent are zero but for rounding.
_ROUNDING = 1e-10


def closed_surface(surface: TriMesh, *, max_hole: float = 30.0) -> tuple[TriMesh, tuple[str, ...]]:
    """Make a surface fit to bound a body: closed, in one part, normals outwards.

    Parameters
    ----------
    surface : TriMesh
        Triangles [mm], without repeated nodes (`twinheart.mesh.repair`).
    max_hole : float
        Holes up to this extent [mm] are closed by a fan of triangles.

    Returns
    -------
    TriMesh, tuple of str
        The surface without fields, and one sentence on each thing that was mended.

    Raises
    ------
    MeshError
        If a hole is larger, more than two triangles meet at an edge, the surface is one-sided, has
        several parts or cuts through itself; the message says where.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh import TriMesh
    >>> from twinheart.mesh.closed import closed_surface
    >>> corners = np.vstack([np.zeros(3), np.eye(3)])
    >>> closed, said = closed_surface(TriMesh(corners, [[0, 1, 2], [0, 1, 3], [0, 3, 2]]))
    >>> closed.n_triangles, said[-1]
    (6, 'closed a hole of 1.7 mm at (0, 0, 0) mm')
    """
    points, triangles = surface.points, surface.triangles
    if not len(triangles):
        raise MeshError("the surface has no triangles.")
    said: list[str] = []
    triangles, turned = _turned_alike(points, triangles)
    points, triangles, holes = _without_holes(points, triangles, max_hole)
    _one_part(points, triangles)
    crossing = self_intersections(points, triangles)
    if len(crossing):
        where = _place(points[triangles[crossing[0]]].mean(axis=(0, 1)))
        raise MeshError(
            f"the surface cuts through itself at {counted(len(crossing), 'pair')} of triangles, "
            f"the first near {where}: repair it in a surface editor."
        )
    if enclosed_volume(points, triangles) < 0:
        triangles = triangles[:, ::-1]
        said.append("turned the surface inside out: its normals pointed inwards")
    elif turned:
        said.append(f"turned {counted(turned, 'triangle')} round")
    return TriMesh(points, triangles), (*said, *holes)


def signed_distance(surface: TriMesh) -> Distance:
    """Distance to a closed surface as a function of positions, negative inside.

    Parameters
    ----------
    surface : TriMesh
        Closed, normals outwards [mm].

    Returns
    -------
    callable, (n, 3) array -> (n,) array
        Signed distance [mm].

    References
    ----------
    The sign is that of the angle-weighted pseudonormal: Baerentzen & Aanaes 2005,
    doi:10.1109/TVCG.2005.49.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh import TriMesh
    >>> from twinheart.mesh.closed import signed_distance
    >>> corners = np.vstack([np.zeros(3), np.eye(3)])
    >>> surface = TriMesh(corners, [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    >>> signed_distance(surface)(np.array([[0.1, 0.2, 0.2], [-2.0, 0.1, 0.1]])).round(3)
    array([-0.1,  2. ])
    """
    import pyvista as pv
    from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
    from vtkmodules.vtkCommonCore import vtkDoubleArray
    from vtkmodules.vtkFiltersCore import vtkImplicitPolyDataDistance

    body = pv.PolyData.from_regular_faces(surface.points, surface.triangles)
    implicit = vtkImplicitPolyDataDistance()
    implicit.SetInput(body)

    def distance(positions: np.ndarray) -> np.ndarray:
        if not len(positions):
            return np.zeros(0)
        out = vtkDoubleArray()
        out.SetNumberOfTuples(len(positions))
        given = np.ascontiguousarray(positions, dtype=np.float64)
        implicit.FunctionValue(numpy_to_vtk(given), out)
        return vtk_to_numpy(out).copy()

    return distance


def self_intersections(points: Points, triangles: Triangles) -> Int[np.ndarray, "pair 2"]:
    """Pairs of triangles that cut through each other without sharing a node.

    Parameters
    ----------
    points : (node, 3) array
        Positions.
    triangles : (triangle, 3) int array
        Corners.

    Returns
    -------
    (pair, 2) int array
        Numbers of triangles. Touching in a plane is no cut.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.closed import self_intersections
    >>> flat, upright = [[0, 0, 0], [4, 0, 0], [0, 4, 0]], [[1, 1, -1], [1, 1, 1], [9, 9, 0]]
    >>> self_intersections(np.array(flat + upright, float), np.array([[0, 1, 2], [3, 4, 5]]))
    array([[0, 1]])
    """
    corners = points[triangles]
    low, high = corners.min(axis=1), corners.max(axis=1)
    found = []
    for pairs in _near_pairs(low, high):
        a, b = pairs.T
        apart = (low[a] > high[b]).any(axis=1) | (low[b] > high[a]).any(axis=1)
        shared = (triangles[a][:, :, None] == triangles[b][:, None, :]).any(axis=(1, 2))
        pairs = pairs[~apart & ~shared]
        first, second = corners[pairs[:, 0]], corners[pairs[:, 1]]
        cut = np.zeros(len(pairs), dtype=bool)
        for k in range(3):
            cut |= _pierces(first[:, k], first[:, k - 1], second)
            cut |= _pierces(second[:, k], second[:, k - 1], first)
        found.append(pairs[cut])
    return np.unique(np.concatenate(found), axis=0) if found else np.zeros((0, 2), dtype=int)


def _near_pairs(low: np.ndarray, high: np.ndarray):
    """Pairs of boxes that share a cell of a grid whose cells are twice a usual box."""
    cell = max(2 * float(np.median(np.ptp([low, high], axis=0).max(axis=1))), 1e-9)
    # a cut plane may be two triangles: no more than about 100 cells along the whole surface
    cell = max(cell, float(np.ptp([low.min(axis=0), high.max(axis=0)], axis=0).max()) / 100)
    first = np.floor((low - low.min(axis=0)) / cell).astype(np.int64)
    span = np.floor((high - low.min(axis=0)) / cell).astype(np.int64) - first + 1
    boxes, cells = [], []
    for shift in product(*(range(n) for n in span.max(axis=0))):
        here = np.flatnonzero((span > shift).all(axis=1))
        boxes.append(here)
        cells.append((first[here] + shift) @ np.array([1, 1 << 20, 1 << 40]))
    box, place = np.concatenate(boxes), np.concatenate(cells)
    order = np.argsort(place, kind="stable")
    box, place = box[order], place[order]
    step, waiting = 1, []
    while step < len(box) and (same := np.flatnonzero(place[step:] == place[:-step])).size:
        waiting.append(np.sort(np.stack([box[same], box[same + step]], axis=1), axis=1))
        step += 1
        if sum(map(len, waiting)) > _CHUNK:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)


def _pierces(start: np.ndarray, end: np.ndarray, triangle: np.ndarray) -> np.ndarray:
    """Whether each segment passes through the inside of its triangle."""
    a, b, c = triangle[:, 0], triangle[:, 1], triangle[:, 2]

    def volume(p, q, r, s):
        return np.einsum("ni,ni->n", np.cross(q - p, r - p), s - p)

    # in one plane all volumes are rounding errors, whose signs say nothing
    extent = np.ptp(np.concatenate([triangle, start[:, None], end[:, None]], axis=1), axis=1)
    least = _ROUNDING * extent.max(axis=1) ** 3
    sides = np.stack([volume(start, end, p, q) for p, q in ((a, b), (b, c), (c, a))])
    through = (sides > least).all(axis=0) | (sides < -least).all(axis=0)
    below, above = np.sort([volume(a, b, c, start), volume(a, b, c, end)], axis=0)
    return through & (below < -least) & (above > least)


def _half_edges(triangles: Triangles) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start and end of the three sides of each triangle, and a key equal for both directions."""
    start = triangles[:, [0, 1, 2]].ravel().astype(np.int64)
    end = triangles[:, [1, 2, 0]].ravel().astype(np.int64)
    return start, end, (np.minimum(start, end) << 32) | np.maximum(start, end)


def _turned_alike(points: Points, triangles: Triangles) -> tuple[Triangles, int]:
    """Turn triangles so that neighbours agree on which side is outside."""
    start, _, key = _half_edges(triangles)
    order = np.argsort(key, kind="stable")
    unique, first, count = np.unique(key[order], return_index=True, return_counts=True)
    if (count > 2).any():
        crowded = unique[count > 2]
        where = _place(points[[crowded[0] >> 32, crowded[0] & 0xFFFFFFFF]].mean(axis=0))
        raise MeshError(
            f"more than two triangles meet at {counted(len(crowded), 'edge')} of the surface, the "
            f"first near {where}: leave the inner walls out."
        )
    one, two = order[first[count == 2]], order[first[count == 2] + 1]
    opposed = start[one] == start[two]  # both run the same way: one of them is turned
    if not opposed.any():
        return triangles, 0
    n = len(triangles)
    weight = np.where(opposed, 2, 1)
    graph = coo_array((weight, (one // 3, two // 3)), shape=(n, n)).tocsr()
    graph = (graph + graph.T).tocsr()
    flip = np.zeros(n, dtype=bool)
    seen = np.zeros(n, dtype=bool)
    for label_start in range(n):
        if seen[label_start]:
            continue
        order, before = breadth_first_order(graph, label_start, directed=False)
        seen[order] = True
        link = np.asarray(graph[order[1:], before[order[1:]]]).ravel() == 2
        for triangle, ahead, differs in zip(order[1:], before[order[1:]], link, strict=True):
            flip[triangle] = flip[ahead] ^ differs
    if (opposed ^ flip[one // 3] ^ flip[two // 3]).any():
        raise MeshError("the surface is one-sided (a Moebius strip): it bounds no body.")
    flip = ~flip if flip.mean() > 0.5 else flip
    return np.where(flip[:, None], triangles[:, ::-1], triangles), int(flip.sum())


def _without_holes(
    points: np.ndarray, triangles: np.ndarray, max_hole: float
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Close each small rim by a fan from its middle."""
    start, end, key = _half_edges(triangles)
    _, at, count = np.unique(key, return_index=True, return_counts=True)
    rim = at[count == 1]
    if not len(rim):
        return points, triangles, []
    start, end = start[rim], end[rim]
    graph = coo_array((np.ones(len(rim)), (start, end)), shape=(len(points),) * 2)
    label = connected_components(graph, directed=False)[1][start]
    said, caps, middles = [], [], []
    for k, hole in enumerate(np.unique(label)):
        here = label == hole
        extent = float(np.linalg.norm(np.ptp(points[start[here]], axis=0)))
        middle = points[start[here]].mean(axis=0)
        if extent > max_hole:
            raise MeshError(
                f"the surface has a hole of {extent:.0f} mm near {_place(middle)}, at most "
                f"{max_hole:g} mm are closed by themselves: close it in a surface editor."
            )
        said.append(f"closed a hole of {extent:.1f} mm at {_place(middle)}")
        middles.append(middle)
        centre = np.full(here.sum(), len(points) + k)
        caps.append(np.stack([end[here], start[here], centre], axis=1))
    points = np.concatenate([points, middles])
    return points, np.concatenate([triangles, *caps]).astype(np.int32), said


def _one_part(points: Points, triangles: Triangles) -> None:
    pairs = triangles[:, [0, 1, 1, 2]].reshape(-1, 2).T
    graph = coo_array((np.ones(pairs.shape[1]), pairs), shape=(len(points),) * 2)
    label = connected_components(graph, directed=False)[1][triangles[:, 0]]
    parts, count = np.unique(label, return_counts=True)
    if len(parts) > 1:
        small = points[triangles[label == parts[count.argmin()]]].mean(axis=(0, 1))
        raise MeshError(
            f"the surface has {len(parts)} parts, expected one; the smallest, of "
            f"{counted(count.min(), 'triangle')}, lies near {_place(small)}: leave it out."
        )


def _place(point: np.ndarray) -> str:
    return f"({', '.join(f'{x:.0f}' for x in point + 0.0)}) mm"
