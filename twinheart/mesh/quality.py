"""Geometry and topology of tetrahedra: edges, volumes, dihedral angles, boundary, components."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from twinheart.mesh.core import TetMesh, TriMesh
from twinheart.types import Points, Tets, Triangles

# local node pairs; dihedral angles come in the same order
TET_EDGES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
# face i is opposite to node i; its normal points out of a positively oriented tetrahedron
TET_FACES = ((1, 2, 3), (0, 3, 2), (0, 1, 3), (0, 2, 1))
_CHUNK = 1 << 14  # tetrahedra at a time: their intermediate arrays stay in the cache
_TRIANGLE_EDGES = ((0, 1), (0, 2), (1, 2))


def edges(cells: Int[np.ndarray, "cell corner"]) -> Int[np.ndarray, "edge 2"]:
    """Every edge once, the smaller node first, in ascending order.

    Parameters
    ----------
    cells : (tet, 4) or (triangle, 3) int array
        Node indices.

    Returns
    -------
    (edge, 2) int32 array
        Node pairs.

    Examples
    --------
    >>> from twinheart.mesh.quality import edges
    >>> import numpy as np
    >>> len(edges(np.array([[0, 1, 2, 3], [1, 2, 3, 4]])))
    9
    """
    if len(cells) == 0:
        return np.zeros((0, 2), dtype=np.int32)
    keys = unique_edge_keys(cells)
    return np.stack([keys >> 32, keys & 0xFFFFFFFF], axis=1).astype(np.int32)


def edge_keys(cells: Int[np.ndarray, "cell corner"]) -> Int[np.ndarray, "local cell"]:
    """One integer for each local edge of each cell, equal for equal node pairs: low * 2^32 + high.

    Parameters
    ----------
    cells : (tet, 4) or (triangle, 3) int array
        Node indices.

    Returns
    -------
    (6, tet) or (3, triangle) int64 array
        Keys in the order of `TET_EDGES`; sorting by key sorts by node pair.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.quality import edge_keys
    >>> edge_keys(np.array([[5, 0, 2]]))[0, 0]
    np.int64(5)
    """
    pairs = TET_EDGES if cells.shape[1] == 4 else _TRIANGLE_EDGES
    keys = np.empty((len(pairs), len(cells)), dtype=np.int64)
    for row, (i, j) in zip(keys, pairs, strict=True):
        np.minimum(cells[:, i], cells[:, j], out=row)
        row <<= 32
        row |= np.maximum(cells[:, i], cells[:, j])
    return keys


def unique_edge_keys(cells: Int[np.ndarray, "cell corner"]) -> Int[np.ndarray, "edge"]:
    """`edge_keys` of every edge once, ascending; by sorting, as `numpy.unique` is slower here.

    Examples
    --------
    >>> from twinheart.mesh.quality import unique_edge_keys
    >>> import numpy as np
    >>> len(unique_edge_keys(np.array([[0, 1, 2, 3], [1, 2, 3, 4]])))
    9
    """
    keys = edge_keys(cells).ravel()
    keys.sort()
    return keys[np.diff(keys, prepend=-1) != 0]


def edge_lengths(
    points: Points, cells: Int[np.ndarray, "cell corner"]
) -> Float[np.ndarray, "edge"]:
    """Length of every edge [unit of `points`], in the order of `edges(cells)`.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.quality import edge_lengths
    >>> edge_lengths(np.eye(3), np.array([[0, 1, 2]])).round(3)
    array([1.414, 1.414, 1.414])
    """
    pairs = edges(cells)
    return np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)


def edge_graph(points: Points, cells: Int[np.ndarray, "cell corner"]) -> csr_array:
    """Lengths of the edges [unit of `points`] between the nodes at their ends, both ways.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.quality import edge_graph
    >>> edge_graph(np.eye(3), np.array([[0, 1, 2]])).toarray().round(1).tolist()[0]
    [0.0, 1.4, 1.4]
    """
    low, high = edges(cells).T
    ends = (np.concatenate([low, high]), np.concatenate([high, low]))
    return csr_array((np.tile(edge_lengths(points, cells), 2), ends), shape=(len(points),) * 2)


def mean_edge(mesh: TetMesh | TriMesh) -> float:
    """Mean length of the edges [mm], each counted once; NaN for a mesh without cells.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh import TriMesh
    >>> from twinheart.mesh.quality import mean_edge
    >>> round(mean_edge(TriMesh(np.eye(3), np.array([[0, 1, 2]]))), 3)
    1.414
    """
    cells = mesh.tets if isinstance(mesh, TetMesh) else mesh.triangles
    return float(edge_lengths(mesh.points, cells).mean()) if len(cells) else float("nan")


def volumes(points: Points, tets: Tets) -> Float[np.ndarray, "tet"]:
    r"""Signed volume of each tetrahedron [unit of `points` cubed]; negative where it is flipped.

    .. math:: V = \frac16 \det(x_1 - x_0, x_2 - x_0, x_3 - x_0)

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.quality import volumes
    >>> unit = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    >>> volumes(unit, np.array([[0, 1, 2, 3], [0, 2, 1, 3]])) * 6
    array([ 1., -1.])
    """
    volume = np.empty(len(tets))
    for rows, corner in _corners(points, tets):
        volume[rows] = _volume6(corner) / 6.0
    return volume


def dihedral_angles(points: Points, tets: Tets) -> Float[np.ndarray, "tet 6"]:
    r"""Dihedral angles of each tetrahedron [degrees], in the order of `TET_EDGES`.

    With the area vectors :math:`N_k, N_l` of the two faces at an edge :math:`e`,
    :math:`\theta = \mathrm{atan2}(6 |V| |e|, -N_k \cdot N_l)`: exact for slivers, 0 or 180 for flat
    tetrahedra, independent of orientation.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.quality import dihedral_angles
    >>> unit = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    >>> dihedral_angles(unit, np.array([[0, 1, 2, 3]])).round(1)
    array([[90. , 90. , 90. , 54.7, 54.7, 54.7]])
    """
    angles = np.empty((len(tets), 6))
    for rows, corner in _corners(points, tets):
        normal = [cross(corner[j] - corner[i], corner[k] - corner[i]) for i, j, k in TET_FACES]
        volume6 = np.abs(_volume6(corner))
        for column, (i, j) in enumerate(TET_EDGES):
            k, m = (n for n in range(4) if n not in (i, j))
            sine = volume6 * _norm(corner[j] - corner[i])
            angles[rows, column] = np.arctan2(sine, -dot(normal[k], normal[m]))
    return np.degrees(angles, out=angles)


def tet_shapes(
    points: Points, tets: Tets
) -> tuple[Float[np.ndarray, "tet 4"], Float[np.ndarray, "tet"], Float[np.ndarray, "tet"]]:
    r"""What decides the explicit time step, in one pass: stiffness, volume and smallest angle.

    Parameters
    ----------
    points : (node, 3) array
        Coordinates [mm].
    tets : (tet, 4) int array
        Node indices.

    Returns
    -------
    stiffness : (tet, 4) array
        :math:`\int |\nabla\lambda_a|^2 = |N_a|^2 / (9 V)` of each corner, with the area vector
        :math:`N_a` of the opposite face [mm].
    volume : (tet,) array
        Volumes [mm^3]; negative where it is flipped.
    angle : (tet,) array
        Smallest dihedral angle [degrees]; negative where it is flipped.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.quality import tet_shapes
    >>> unit = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    >>> stiffness, volume, angle = tet_shapes(unit, np.array([[0, 1, 2, 3]]))
    >>> stiffness.round(3), angle.round(1)
    (array([[0.5  , 0.167, 0.167, 0.167]]), array([54.7]))
    """
    stiffness, volume, angle = np.empty((len(tets), 4)), np.empty(len(tets)), np.empty(len(tets))
    for rows, corner in _corners(points, tets):
        normal = [cross(corner[j] - corner[i], corner[k] - corner[i]) for i, j, k in TET_FACES]
        square = [dot(n, n) for n in normal]
        volume6 = _volume6(corner)
        volume[rows] = volume6 / 6.0
        scale = 1.0 / np.maximum(6.0 * np.abs(volume6), 1e-300)
        cosine = np.full(len(volume6), -1.0)
        for a in range(4):
            stiffness[rows, a] = square[a] * scale
            for b in range(a):
                root = np.sqrt(np.maximum(square[a] * square[b], 1e-300))
                np.maximum(cosine, -dot(normal[a], normal[b]) / root, out=cosine)
        sign = np.where(volume6 > 0, 1.0, -1.0)
        angle[rows] = sign * np.degrees(np.arccos(np.minimum(cosine, 1.0)))
    return stiffness, volume, angle


def aspect_ratios(points: Points, tets: Tets) -> Float[np.ndarray, "tet"]:
    r"""Longest edge over :math:`2 \sqrt 6` inscribed radii: 1 if regular, infinite if flat.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.quality import aspect_ratios
    >>> unit = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    >>> aspect_ratios(unit, np.array([[0, 1, 2, 3]])).round(3)
    array([1.366])
    """
    ratio = np.empty(len(tets))
    for rows, corner in _corners(points, tets):
        longest = np.max([_norm(corner[j] - corner[i]) for i, j in TET_EDGES], axis=0)
        normals = [cross(corner[j] - corner[i], corner[k] - corner[i]) for i, j, k in TET_FACES]
        # radius r = 3 V / A, with 6 V and 2 A at hand: r = volume6 / areas
        areas = np.sum([_norm(n) for n in normals], axis=0)
        inside = np.abs(_volume6(corner)) * 2 * np.sqrt(6)
        ratio[rows] = np.divide(
            longest * areas, inside, out=np.full(len(areas), np.inf), where=inside > 0
        )
    return ratio


def flatness(points: Points, tets: Tets) -> Float[np.ndarray, "tet"]:
    """Smallest altitude of each tetrahedron over its longest edge: 0 if flat, 0.816 if regular.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.quality import flatness
    >>> unit = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    >>> flatness(unit, np.array([[0, 1, 2, 3], [0, 1, 2, 2]])).round(3)
    array([0.408, 0.   ])
    """
    ratio = np.empty(len(tets))
    for rows, corner in _corners(points, tets):
        longest = np.max([_norm(corner[j] - corner[i]) for i, j in TET_EDGES], axis=0)
        normals = [cross(corner[j] - corner[i], corner[k] - corner[i]) for i, j, k in TET_FACES]
        scale = np.max([_norm(n) for n in normals], axis=0) * longest
        volume6 = np.abs(_volume6(corner))
        ratio[rows] = np.divide(volume6, scale, out=np.zeros_like(scale), where=scale > 0)
    return ratio


def triangle_areas(points: Points, triangles: Triangles) -> Float[np.ndarray, "triangle"]:
    """Area of each triangle [unit of `points` squared].

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.quality import triangle_areas
    >>> triangle_areas(np.array([[0.0, 0, 0], [2, 0, 0], [0, 1, 0]]), np.array([[0, 1, 2]]))
    array([1.])
    """
    a, b, c = (points[triangles[:, i]].T for i in range(3))
    return 0.5 * _norm(cross(b - a, c - a))


def enclosed_volume(points: Points, triangles: Triangles) -> float:
    """Volume inside a closed surface [unit of `points` cubed]; positive if its normals point out.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.quality import boundary_triangles, enclosed_volume
    >>> unit = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    >>> round(enclosed_volume(unit, boundary_triangles(np.array([[0, 1, 2, 3]]))) * 6, 12)
    1.0
    """
    if len(triangles) == 0:
        return 0.0
    centred = points - points[triangles].mean(axis=(0, 1))
    a, b, c = (centred[triangles[:, i]].T for i in range(3))
    return float(dot(cross(a, b), c).sum() / 6.0)


def triangle_normals(points: Points, triangles: Triangles) -> Float[np.ndarray, "triangle 3"]:
    """Unit normals of triangles; zero where one is flat.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.quality import triangle_normals
    >>> triangle_normals(np.eye(3), np.array([[0, 1, 2]])).round(3)
    array([[0.577, 0.577, 0.577]])
    """
    a, b, c = (points[triangles[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-300)


def boundary_triangles(tets: Tets) -> Triangles:
    """Faces that belong to one tetrahedron only, normals pointing out (of positive tetrahedra).

    Parameters
    ----------
    tets : (tet, 4) int array
        Node indices, positively oriented.

    Returns
    -------
    (triangle, 3) int32 array
        Node indices into the same points.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.quality import boundary_triangles
    >>> len(boundary_triangles(np.array([[0, 1, 2, 3], [1, 2, 3, 4]])))
    6
    """
    if len(tets) == 0:
        return np.zeros((0, 3), dtype=np.int32)
    faces = np.concatenate([tets[:, list(face)] for face in TET_FACES])
    low, middle, high = np.sort(faces, axis=1).T.astype(np.int64)
    n_nodes = int(high.max()) + 1
    if n_nodes < 2_000_000:  # three indices fit into 63 bits
        key = (low * n_nodes + middle) * n_nodes + high
        order = np.argsort(key, kind="stable")
        new = np.diff(key[order]) != 0
    else:
        order = np.lexsort((high, middle, low))
        new = (
            (np.diff(low[order]) != 0) | (np.diff(middle[order]) != 0) | (np.diff(high[order]) != 0)
        )
    starts = np.concatenate([[True], new])
    ends = np.concatenate([new, [True]])
    return faces[np.sort(order[starts & ends])].astype(np.int32)


def renumbered(
    cells: Int[np.ndarray, "cell corner"], n_nodes: int
) -> tuple[Int[np.ndarray, "used"], Int[np.ndarray, "cell corner"]]:
    """The nodes that cells use, ascending, and the cells in terms of these.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.quality import renumbered
    >>> renumbered(np.array([[7, 2, 5]]), 9)
    (array([2, 5, 7]), array([[2, 0, 1]]))
    """
    used = np.zeros(n_nodes, dtype=bool)
    used[cells] = True
    return np.flatnonzero(used), (np.cumsum(used) - 1)[cells]


def components(cells: Int[np.ndarray, "cell corner"], n_nodes: int) -> Int[np.ndarray, "node"]:
    """Connected component of each node: 0 is the one with most cells, 1 the next, and so on.

    Cells are connected where they share a node, as the finite elements are. Orphan nodes (in no
    cell) come last, each with a label of its own, so the number of components of the tissue is
    ``labels[cells].max() + 1``.

    Parameters
    ----------
    cells : (tet, 4) or (triangle, 3) int array
        Node indices.
    n_nodes : int
        Number of nodes.

    Returns
    -------
    (node,) int32 array
        Labels.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.quality import components
    >>> components(np.array([[1, 2, 3, 4]]), 6)
    array([1, 0, 0, 0, 0, 2], dtype=int32)
    """
    first = cells[:, :-1].ravel()
    second = cells[:, 1:].ravel()
    graph = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(n_nodes, n_nodes))
    count, labels = connected_components(graph, directed=False)
    cells_in = np.bincount(labels[cells[:, 0]], minlength=count)
    rank = np.empty(count, dtype=np.int32)
    rank[np.argsort(-cells_in, kind="stable")] = np.arange(count, dtype=np.int32)
    return rank[labels]


def _corners(points: Points, tets: Tets) -> Iterator[tuple[slice, list[np.ndarray]]]:
    """The four corners of some tetrahedra at a time, each as (3, tet): rows are contiguous."""
    for start in range(0, len(tets), _CHUNK):
        rows = slice(start, start + _CHUNK)
        yield rows, [np.ascontiguousarray(points[tets[rows, i]].T) for i in range(4)]


def _volume6(corner: list[np.ndarray]) -> np.ndarray:
    a, b, c = (corner[i] - corner[0] for i in (1, 2, 3))
    return dot(cross(a, b), c)


def _norm(a: np.ndarray) -> np.ndarray:
    return np.sqrt(dot(a, a))


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Scalar products of vectors given as rows of components: (3, n) and (3, n) to (n,).

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.quality import dot
    >>> dot(np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [1.0], [1.0]]))
    array([6.])
    """
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Vector products of vectors given as rows of components: (3, n) and (3, n) to (3, n).

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.quality import cross
    >>> cross(np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]))
    array([0., 0., 1.])
    """
    return np.stack(
        [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
    )
