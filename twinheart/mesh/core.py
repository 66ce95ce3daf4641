"""Tetrahedral and triangular meshes: frozen data, no behaviour beyond their own sizes."""

import equinox as eqx
import numpy as np

from twinheart.errors import MeshError
from twinheart.types import Points, Tets, Triangles


def _fields(fields: dict[str, np.ndarray], n: int, kind: str) -> dict[str, np.ndarray]:
    out = {}
    for name, values in fields.items():
        values = np.asarray(values)
        if values.shape[:1] != (n,):
            raise MeshError(
                f"{kind} field '{name}' has {values.shape[0] if values.ndim else 'no'} rows, "
                f"but the mesh has {n} {kind}s: give one row per {kind}."
            )
        out[name] = values
    return out


def _check_connectivity(cells: np.ndarray, n_nodes: int, kind: str) -> None:
    if cells.size == 0:
        return
    low, high = int(cells.min()), int(cells.max())
    if low < 0 or high >= n_nodes:
        bad = int(np.flatnonzero(((cells < 0) | (cells >= n_nodes)).any(axis=1))[0])
        raise MeshError(
            f"{kind} {bad} points at node {high if high >= n_nodes else low}, but the mesh has "
            f"{n_nodes} nodes (indices start at 0); Gmsh and MATLAB exports are 1-based: "
            "pass index_base=1."
        )


class TetMesh(eqx.Module):
    """A tetrahedral mesh with its fields.

    Parameters
    ----------
    points : (node, 3) float64 array
        Coordinates [mm].
    tets : (tet, 4) int32 array
        Node indices of each tetrahedron, 0-based, positively oriented.
    point_fields, cell_fields : dict of arrays
        Named fields, one row per node or per tetrahedron.

    Raises
    ------
    MeshError
        If an index points outside the mesh or a field has the wrong number of rows.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh import TetMesh
    >>> mesh = TetMesh(np.eye(4, 3, -1), np.array([[0, 1, 2, 3]]))
    >>> mesh.n_nodes, mesh.n_tets
    (4, 1)
    """

    points: Points
    tets: Tets
    point_fields: dict[str, np.ndarray] = eqx.field(default_factory=dict)
    cell_fields: dict[str, np.ndarray] = eqx.field(default_factory=dict)

    def __init__(self, points, tets, point_fields=None, cell_fields=None):
        self.points = np.asarray(points, dtype=np.float64)
        self.tets = np.asarray(tets, dtype=np.int32)
        if self.points.ndim != 2 or self.points.shape[1] != 3:
            raise MeshError(f"points have shape {self.points.shape}, expected (node, 3).")
        if self.tets.ndim != 2 or self.tets.shape[1] != 4:
            raise MeshError(f"tetrahedra have shape {self.tets.shape}, expected (tet, 4).")
        _check_connectivity(self.tets, len(self.points), "tetrahedron")
        self.point_fields = _fields(point_fields or {}, len(self.points), "point")
        self.cell_fields = _fields(cell_fields or {}, len(self.tets), "cell")

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return len(self.points)

    @property
    def n_tets(self) -> int:
        """Number of tetrahedra."""
        return len(self.tets)


class TriMesh(eqx.Module):
    """A triangulated surface with its fields; the conventions are those of `TetMesh`.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh import TriMesh
    >>> TriMesh(np.eye(3), np.array([[0, 1, 2]])).n_triangles
    1
    """

    points: Points
    triangles: Triangles
    point_fields: dict[str, np.ndarray] = eqx.field(default_factory=dict)
    cell_fields: dict[str, np.ndarray] = eqx.field(default_factory=dict)

    def __init__(self, points, triangles, point_fields=None, cell_fields=None):
        self.points = np.asarray(points, dtype=np.float64)
        self.triangles = np.asarray(triangles, dtype=np.int32)
        if self.points.ndim != 2 or self.points.shape[1] != 3:
            raise MeshError(f"points have shape {self.points.shape}, expected (node, 3).")
        if self.triangles.ndim != 2 or self.triangles.shape[1] != 3:
            raise MeshError(f"triangles have shape {self.triangles.shape}, expected (triangle, 3).")
        _check_connectivity(self.triangles, len(self.points), "triangle")
        self.point_fields = _fields(point_fields or {}, len(self.points), "point")
        self.cell_fields = _fields(cell_fields or {}, len(self.triangles), "cell")

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return len(self.points)

    @property
    def n_triangles(self) -> int:
        """Number of triangles."""
        return len(self.triangles)
