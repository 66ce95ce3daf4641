"""What can be wrong with a mesh: found here, told by `report`, mended by `repair`."""

import numpy as np
from jaxtyping import Bool, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from twinheart.errors import MeshError
from twinheart.mesh.core import TetMesh, TriMesh
from twinheart.mesh.quality import TET_EDGES, flatness, triangle_areas, volumes
from twinheart.types import Points

# altitude over longest edge; the rounding of 32-bit coordinates of a heart leaves about 1e-5
FLAT = 1e-5
# distance over mean edge below which two nodes are one
SAME_PLACE = 1e-6
_ABSURD = 1e30


def cells_of(mesh: TetMesh | TriMesh) -> Int[np.ndarray, "cell corner"]:
    """Tetrahedra of a `TetMesh`, triangles of a `TriMesh`."""
    return mesh.tets if isinstance(mesh, TetMesh) else mesh.triangles


def counted(count: int | np.integer, one: str, many: str = "") -> str:
    """Number and noun: '1 node', '2 nodes'.

    Examples
    --------
    >>> from twinheart.mesh.defects import counted
    >>> counted(2, "tetrahedron", "tetrahedra")
    '2 tetrahedra'
    """
    return f"{count} {one if count == 1 else many or one + 's'}"


def check_finite(points: Points, where: str = "the mesh") -> None:
    """Refuse coordinates that are no numbers, or so large that their volumes are none.

    Raises
    ------
    MeshError
        Naming the first such node.
    """
    bad = np.flatnonzero(~(np.abs(points) < _ABSURD).all(axis=1))  # true for NaN, too
    if bad.size:
        shown = ", ".join(f"{x:g}" for x in points[bad[0]])
        raise MeshError(
            f"{where}: {bad.size} of {len(points)} nodes have coordinates that are not finite "
            f"(the first is node {bad[0]}: {shown}): export the mesh again."
        )


def used_nodes(mesh: TetMesh | TriMesh) -> Bool[np.ndarray, "node"]:
    """Nodes that belong to a cell; the others are orphans."""
    used = np.zeros(mesh.n_nodes, dtype=bool)
    used[cells_of(mesh)] = True
    return used


def flat_cells(mesh: TetMesh | TriMesh) -> Bool[np.ndarray, "cell"]:
    """Cells without volume (or area): a repeated node, or an altitude below `FLAT` of an edge.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh import TetMesh
    >>> from twinheart.mesh.defects import flat_cells
    >>> square = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    >>> flat_cells(TetMesh(square, np.array([[0, 1, 2, 3]])))
    array([ True])
    """
    if isinstance(mesh, TetMesh):
        return flatness(mesh.points, mesh.tets) < FLAT
    corner = [mesh.points[mesh.triangles[:, i]] for i in range(3)]
    lengths = [np.linalg.norm(corner[i] - corner[i - 1], axis=1) for i in range(3)]
    area = triangle_areas(mesh.points, mesh.triangles)
    return 2 * area <= FLAT * np.max(lengths, axis=0) ** 2


def representatives(mesh: TetMesh | TriMesh) -> Int[np.ndarray, "node"]:
    """For each node the first node at the same place: itself, unless it is a duplicate.

    Orphan nodes are left alone.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh import TriMesh
    >>> from twinheart.mesh.defects import representatives
    >>> points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    >>> representatives(TriMesh(points, np.array([[0, 1, 2], [3, 5, 4]])))
    array([0, 1, 2, 1, 2, 5])
    """
    nodes = np.flatnonzero(used_nodes(mesh))
    first = np.arange(mesh.n_nodes)
    cells = cells_of(mesh)
    if not len(nodes):
        return first
    # a rough mean over the first edges is enough for a tolerance
    sample = mesh.points[cells[:10_000, 0]] - mesh.points[cells[:10_000, 1]]
    tolerance = SAME_PLACE * float(np.linalg.norm(sample, axis=1).mean())
    pairs = KDTree(mesh.points[nodes]).query_pairs(tolerance, output_type="ndarray")
    if not len(pairs):
        return first
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(nodes), len(nodes)))
    count, group = connected_components(graph, directed=False)
    lowest = np.full(count, mesh.n_nodes)
    np.minimum.at(lowest, group, nodes)
    first[nodes] = lowest[group]
    return first


def repeated_cells(cells: Int[np.ndarray, "cell corner"]) -> Bool[np.ndarray, "cell"]:
    """Cells with the same nodes as an earlier one.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.defects import repeated_cells
    >>> repeated_cells(np.array([[0, 1, 2, 3], [4, 1, 2, 3], [3, 2, 0, 1]]))
    array([False, False,  True])
    """
    # a sum of mixed indices does not depend on their order; equal sums are compared in full
    mixed = cells.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    key = (mixed * np.uint64(0xBF58476D1CE4E5B9)).sum(axis=1, dtype=np.uint64)
    order = np.argsort(key, kind="stable")
    same = np.flatnonzero(key[order[1:]] == key[order[:-1]])
    repeated = np.zeros(len(cells), dtype=bool)
    if same.size:
        suspects = np.unique(np.concatenate([order[same], order[same + 1]]))
        _, first = np.unique(np.sort(cells[suspects], axis=1), axis=0, return_index=True)
        repeated[np.delete(suspects, first)] = True
    return repeated


def better_lowered_by_one(points: Points, cells: Int[np.ndarray, "cell corner"]) -> bool:
    """Whether indices count from 1: then edges are shorter, or orientations agree, if lowered.

    Examples
    --------
    >>> from twinheart.mesh.defects import better_lowered_by_one
    >>> from twinheart.mesh.generate import slab
    >>> mesh = slab((2.0, 2.0, 2.0), 0.5)
    >>> better_lowered_by_one(mesh.points, mesh.tets[mesh.tets.min(axis=1) > 0])
    False
    """
    pairs = np.concatenate([cells[:, [i, j]] for i, j in TET_EDGES if j < cells.shape[1]])

    def mean_length(nodes: np.ndarray) -> float:
        return float(np.linalg.norm(points[nodes[:, 0]] - points[nodes[:, 1]], axis=1).mean())

    if 2 * mean_length(pairs - 1) < mean_length(pairs):
        return True
    if cells.shape[1] != 4:
        return False

    def disagreement(tets: np.ndarray) -> float:
        flipped = float(np.mean(volumes(points, tets) < 0))
        return min(flipped, 1 - flipped)

    return disagreement(cells) > 0.1 and disagreement(cells - 1) < 0.01
