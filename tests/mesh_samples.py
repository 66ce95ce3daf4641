"""Meshes for the tests of `twinheart.mesh`: small, irregular, with fields of every kind."""

import numpy as np
from scipy.spatial import ConvexHull, Delaunay

from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.quality import flatness, volumes


def irregular(seed: int = 0, n_nodes: int = 60, size: float = 100.0) -> TetMesh:
    """Delaunay tetrahedra of random points in a cube of `size` mm, positively oriented."""
    rng = np.random.default_rng(seed)
    corners = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1).T
    points = np.vstack([corners, rng.random((n_nodes - 8, 3))]) * size
    tets = Delaunay(points).simplices
    tets = tets[flatness(points, tets) > 1e-3]
    flipped = volumes(points, tets) < 0
    tets[flipped] = tets[flipped][:, [1, 0, 2, 3]]
    keep = np.unique(tets)
    tets = np.searchsorted(keep, tets)
    return TetMesh(points[keep], tets)


def with_fields(mesh: TetMesh, seed: int = 1) -> TetMesh:
    """The mesh with scalars, vectors, integers and tags on nodes and cells."""
    rng = np.random.default_rng(seed)
    fibres = rng.normal(size=(mesh.n_tets, 3))
    fibres /= np.linalg.norm(fibres, axis=1, keepdims=True)
    point = {
        "lat": rng.random(mesh.n_nodes),
        "velocity": rng.random((mesh.n_nodes, 3)).astype(np.float32),
        "surf_class": rng.integers(0, 5, mesh.n_nodes).astype(np.int32),
    }
    cell = {
        "region": rng.integers(1, 4, mesh.n_tets).astype(np.int32),
        "fibre": fibres,
        "scar": rng.random(mesh.n_tets),
    }
    return TetMesh(mesh.points, mesh.tets, point, cell)


def sphere_surface(radius: float = 40.0) -> TriMesh:
    """Closed surface of random points on a sphere; fields on nodes and faces."""
    points = np.random.default_rng(2).normal(size=(60, 3))
    points *= radius / np.linalg.norm(points, axis=1, keepdims=True)
    triangles = ConvexHull(points).simplices
    a, b, c = (points[triangles[:, i]] for i in range(3))
    inward = np.einsum("ni,ni->n", np.cross(b - a, c - a), a) < 0
    triangles[inward] = triangles[inward][:, [0, 2, 1]]
    return TriMesh(
        points,
        triangles,
        {"class": np.arange(len(points)) % 4},
        {"label": np.arange(len(triangles)) % 3},
    )
