"""Elements of an eikonal problem on the host: tetrahedra, triangles and edges over common nodes."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from twinheart.imaging.surface_grid import distance_to_triangles
from twinheart.types import Points

# Edges of a tetrahedron and of a triangle, in the order in which their squared lengths are kept.
TET_PAIRS = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
TRIANGLE_PAIRS = ((0, 1), (0, 2), (1, 2))
_FACES = ((1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2))
_NEAREST = 32  # nodes around a point whose elements may hold it
_INSIDE = -1e-9


class Elements:
    """Tetrahedra, triangles and edges over common nodes.

    Plain data that no transformation looks into: it is compared by identity, so that a compiled
    function is used again for the same object only.

    Parameters
    ----------
    points : (node, 3) array
        Nodes [mm].
    tets : (tet, 4) int array
        Tetrahedra that conduct.
    triangles : (triangle, 3) int array
        Triangles that conduct.
    edges : (edge, 2) int array
        Edges that conduct.
    """

    def __init__(self, points, tets, triangles, edges):
        self.points = np.ascontiguousarray(points, dtype=np.float64)
        self.tets = np.ascontiguousarray(tets, dtype=np.int32).reshape(-1, 4)
        self.triangles = np.ascontiguousarray(triangles, dtype=np.int32).reshape(-1, 3)
        self.edges = np.ascontiguousarray(edges, dtype=np.int32).reshape(-1, 2)

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return len(self.points)

    @property
    def cells(self) -> Int[np.ndarray, "cell corner"]:
        """The elements of highest dimension, in which sites lie: tetrahedra, else triangles."""
        return self.tets if len(self.tets) else self.triangles

    @cached_property
    def incidences(self) -> tuple:
        """Elements of every node, for the ordered solver."""
        from twinheart.tissue.eikonal_groups import incidence

        return tuple(incidence(c, self.n_nodes) for c in (self.tets, self.triangles, self.edges))

    @cached_property
    def _cells_of(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each node's list of cells starts, and the list."""
        flat = self.cells.ravel()
        order = np.argsort(flat, kind="stable")
        start = np.searchsorted(flat[order], np.arange(self.n_nodes + 1))
        return start, order // self.cells.shape[1]

    @cached_property
    def _tree(self) -> tuple[np.ndarray, KDTree]:
        """Nodes that belong to a cell, and a search tree of them."""
        used = np.unique(self.cells)
        return used, KDTree(self.points[used])

    def cells_around(self, nodes) -> Int[np.ndarray, "cell"]:
        """Cells that have a corner among some nodes."""
        start, cell = self._cells_of
        lists = [cell[start[n] : start[n + 1]] for n in np.atleast_1d(nodes)]
        return np.unique(np.concatenate(lists)) if lists else np.zeros(0, dtype=np.int64)

    def locate(self, positions: Points) -> tuple[np.ndarray, np.ndarray]:
        """Cell that holds or is nearest to each position, and the distance to it [mm]."""
        used, tree = self._tree
        count = min(_NEAREST, len(used))
        cell, gap = np.zeros(len(positions), dtype=np.int32), np.full(len(positions), np.inf)
        for row, position in enumerate(positions):
            if not np.isfinite(position).all():
                continue
            near = self.cells_around(used[np.atleast_1d(tree.query(position, k=count)[1])])
            distance = self._distances(position, near)
            cell[row], gap[row] = near[distance.argmin()], distance.min()
        return cell, gap

    def _distances(self, position, cells) -> np.ndarray:
        """Distance [mm] of a position to each of some cells."""
        corners = self.points[self.cells[cells]]
        here = np.broadcast_to(position, (len(cells), 3))
        if corners.shape[1] == 3:
            return distance_to_triangles(here, corners)
        sides = (corners[:, 1:] - corners[:, :1]).swapaxes(1, 2)
        flat = np.abs(np.linalg.det(sides)) < 1e-200
        inner = np.linalg.solve(
            np.where(flat[:, None, None], np.eye(3), sides), (here - corners[:, 0])[..., None]
        )[..., 0]
        inside = ~flat & (inner.min(axis=1) >= _INSIDE) & (inner.sum(axis=1) <= 1 - _INSIDE)
        if inside.any():
            return np.where(inside, 0.0, np.inf)
        faces = [distance_to_triangles(here, corners[:, list(face)]) for face in _FACES]
        return np.min(faces, axis=0)

    def ball(self, position, cell: int, radius: float) -> Int[np.ndarray, "node"]:
        """Nodes within `radius` [mm] of a position that hang together with its cell within it."""
        used, tree = self._tree
        corners = self.cells[cell]
        if not np.isfinite(position).all():
            return np.zeros(0, dtype=np.int64)
        inside = np.zeros(self.n_nodes, dtype=bool)
        inside[used[tree.query_ball_point(position, radius)]] = True
        inside[corners] = True
        reached = np.unique(corners)
        new = reached
        while len(new):
            around = np.unique(self.cells[self.cells_around(new)])
            around = around[inside[around]]
            new = np.setdiff1d(around, reached, assume_unique=True)
            reached = np.union1d(reached, new)
        return reached


def squared_projections(
    points: Points, cells, pairs, axes
) -> tuple[Float[np.ndarray, "cell pair"], ...]:
    """Squared lengths [mm2] of the edges of cells along some axes.

    Parameters
    ----------
    points : (node, 3) array
        Nodes [mm].
    cells : (cell, corner) int array
        Elements.
    pairs : sequence of pairs
        Edges by local corner numbers.
    axes : sequence of (cell, 3) array or None
        Unit vectors; None stands for all that the axes before it leave.

    Returns
    -------
    tuple of (cell, pair) arrays
        One array for each axis.
    """
    out = [np.empty((len(cells), len(pairs))) for _ in axes]
    for p, (i, j) in enumerate(pairs):
        side = points[cells[:, j]] - points[cells[:, i]]
        rest = np.einsum("ci,ci->c", side, side)
        for column, axis in zip(out, axes, strict=True):
            if axis is None:
                column[:, p] = np.maximum(rest, 0.0)
            else:
                along = np.einsum("ci,ci->c", side, axis) ** 2
                column[:, p] = along
                rest = rest - along
    return tuple(out)


def edge_gram(squared: np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Gram matrices of the edges from the first corner, from the squared lengths of all edges.

    Parameters
    ----------
    squared : (cell, edge) array
        In any metric.
    pairs : sequence of (int, int)
        Corners of each edge, such as `TET_PAIRS`.

    Returns
    -------
    (cell, k, k) array
        For k edges, to the other corners in their order.
    """
    corners = max(max(pair) for pair in pairs) + 1
    full = np.zeros((len(squared), corners, corners))
    for k, (i, j) in enumerate(pairs):
        full[:, i, j] = full[:, j, i] = squared[:, k]
    return (full[:, 1:, :1] + full[:, :1, 1:] - full[:, 1:, 1:]) / 2
