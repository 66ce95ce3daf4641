"""Uniform refinement: every tetrahedron into eight, with its fields."""

import numpy as np

from twinheart.errors import MeshError
from twinheart.mesh.core import TetMesh
from twinheart.mesh.quality import edge_keys, mean_edge

# local nodes: 0-3 the corners, 4-9 the midpoints of TET_EDGES, all positively oriented
_CORNERS = ((0, 4, 5, 6), (4, 1, 7, 8), (5, 7, 2, 9), (6, 8, 9, 3))
_DIAGONALS = ((4, 9), (5, 8), (6, 7))
_OCTAHEDRA = (
    ((4, 9, 5, 6), (4, 9, 6, 8), (4, 9, 8, 7), (4, 9, 7, 5)),
    ((5, 8, 6, 4), (5, 8, 9, 6), (5, 8, 7, 9), (5, 8, 4, 7)),
    ((6, 7, 4, 5), (6, 7, 5, 9), (6, 7, 9, 8), (6, 7, 8, 4)),
)


def refine(mesh: TetMesh) -> TetMesh:
    """Split every tetrahedron into eight of an eighth of its volume; every edge is halved.

    Four children sit at the corners; the octahedron between them is cut along its shortest
    diagonal, which keeps the dihedral angles best. The children of tetrahedron ``i`` are
    ``8 * i`` to ``8 * i + 7``; the old nodes keep their numbers, the new ones follow, one for each
    edge in the order of `twinheart.mesh.quality.edges`.

    Fields follow:

    * cell fields are inherited;
    * point fields of real numbers are averaged over the two ends of the edge;
    * unit vectors (three columns, every row of length one) are averaged as axes, since fibres have
      no sign: the second end is turned to the side of the first, and the mean is normalised;
    * integer and boolean point fields take the smaller value of the two ends, so that a node
      between the surface and the inside (tag 0) counts as inside. An edge that runs through the
      inside from surface to surface therefore gets a surface tag: derive such tags anew where
      this matters.

    Parameters
    ----------
    mesh : TetMesh
        Positively oriented tetrahedra.

    Returns
    -------
    TetMesh
        With ``8 * n_tets`` tetrahedra.

    Raises
    ------
    MeshError
        If the refined mesh would have more nodes than 32-bit indices can number.

    References
    ----------
    Bey J., Tetrahedral grid refinement, Computing 55 (1995), doi:10.1007/BF02238487.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh import TetMesh
    >>> from twinheart.mesh.refine import refine
    >>> unit = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    >>> fine = refine(TetMesh(unit, np.array([[0, 1, 2, 3]])))
    >>> fine.n_nodes, fine.n_tets
    (10, 8)
    """
    keys = edge_keys(mesh.tets)
    unique, midpoint = np.unique(keys.ravel(), return_inverse=True)
    if mesh.n_nodes + len(unique) > np.iinfo(np.int32).max:
        raise MeshError(
            f"refining {mesh.n_nodes} nodes would give {mesh.n_nodes + len(unique)} nodes, more "
            "than 32-bit indices can number: refine less."
        )
    ends = np.stack([unique >> 32, unique & 0xFFFFFFFF], axis=1)
    points = np.concatenate([mesh.points, mesh.points[ends].mean(axis=1)])
    local = np.empty((10, mesh.n_tets), dtype=np.int32)
    local[:4] = mesh.tets.T
    local[4:] = mesh.n_nodes + midpoint.reshape(keys.shape)
    return TetMesh(
        points,
        _children(points, local),
        {k: _with_midpoints(v, ends) for k, v in mesh.point_fields.items()},
        {k: np.repeat(v, 8, axis=0) for k, v in mesh.cell_fields.items()},
    )


def refine_to(mesh: TetMesh, edge: float, *, max_tets: int = 50_000_000) -> TetMesh:
    """Refine until the mean edge is at most `edge` [mm]; the mesh itself where it already is.

    Parameters
    ----------
    mesh : TetMesh
        Positively oriented tetrahedra.
    edge : float
        Wanted mean edge length [mm].
    max_tets : int
        Refuse to make more tetrahedra than this.

    Raises
    ------
    MeshError
        If `edge` is not positive or needs more than `max_tets` tetrahedra.

    Examples
    --------
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.mesh.refine import refine_to
    >>> refine_to(slab((2.0, 1.0, 1.0), 1.0), 0.7).n_tets
    96
    """
    if not edge > 0:
        raise MeshError(f"the wanted mean edge is {edge} mm: give a positive length.")
    while (length := mean_edge(mesh)) > edge:
        if 8 * mesh.n_tets > max_tets:
            raise MeshError(
                f"a mean edge of {edge:g} mm needs more than {max_tets} tetrahedra ({mesh.n_tets} "
                f"tetrahedra have {length:.3g} mm): ask for a longer edge."
            )
        mesh = refine(mesh)
    return mesh


def _children(points: np.ndarray, local: np.ndarray) -> np.ndarray:
    """(8 tet, 4) children from the (10, tet) nodes of each tetrahedron."""
    squared = [((points[local[a]] - points[local[b]]) ** 2).sum(axis=1) for a, b in _DIAGONALS]
    shortest = np.argmin(squared, axis=0)
    tets = np.empty((local.shape[1], 8, 4), dtype=np.int32)
    for child, corners in enumerate(_CORNERS):
        for n, corner in enumerate(corners):
            tets[:, child, n] = local[corner]
    for diagonal, octahedron in enumerate(_OCTAHEDRA):
        chosen = np.flatnonzero(shortest == diagonal)
        nodes = local[:, chosen]
        for child, corners in enumerate(octahedron):
            for n, corner in enumerate(corners):
                tets[chosen, 4 + child, n] = nodes[corner]
    return tets.reshape(-1, 4)


def _with_midpoints(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    first, second = values[ends[:, 0]], values[ends[:, 1]]
    if not np.issubdtype(values.dtype, np.inexact):
        return np.concatenate([values, np.minimum(first, second)])
    if values.ndim == 2 and values.shape[1] == 3 and _are_unit(values):
        aligned = second * np.where((first * second).sum(axis=1) < 0, -1, 1)[:, None]
        mean = first + aligned
        mean /= np.linalg.norm(mean, axis=1, keepdims=True)
        return np.concatenate([values, mean.astype(values.dtype)])
    return np.concatenate([values, (0.5 * (first + second)).astype(values.dtype)])


def _are_unit(vectors: np.ndarray) -> bool:
    length = np.linalg.norm(vectors, axis=1)
    return len(vectors) > 0 and bool(np.all(np.abs(length - 1) < 1e-3))
