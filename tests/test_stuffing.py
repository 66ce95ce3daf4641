"""Isosurface stuffing: angles, topology, volume, conformity, and bad requests."""

import numpy as np
import pytest
from scipy.sparse import coo_matrix, diags
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh
from tolerances import ORDER

from twinheart.errors import MeshError
from twinheart.fem import lumped_mass, stiffness
from twinheart.mesh.stuffing import stuff

LOCAL_FACES = np.array([(1, 2, 3), (0, 3, 2), (0, 1, 3), (0, 2, 1)])
# Bounds of Labelle & Shewchuk (2007) for the warp thresholds used.
MIN_DIHEDRAL, MAX_DIHEDRAL = 10.7, 164.8


def _ball(radius, centre=(0.12, -0.31, 0.05)):
    return lambda x: np.linalg.norm(x - np.asarray(centre), axis=1) - radius


def _box(radius):
    return ([-radius] * 3, [radius] * 3)


def _volumes(mesh):
    corners = mesh.points[mesh.tets]
    return np.linalg.det(corners[:, 1:] - corners[:, :1]) / 6


def _dihedral_angles(mesh):
    corners = mesh.points[mesh.tets]
    normals = np.stack(
        [
            np.cross(corners[:, b] - corners[:, a], corners[:, c] - corners[:, a])
            for a, b, c in LOCAL_FACES
        ],
        axis=1,
    )
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    first, second = np.triu_indices(4, 1)
    cosine = -np.einsum("tei,tei->te", normals[:, first], normals[:, second])
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def _boundary(mesh):
    """Boundary triangles; fails if the mesh does not conform."""
    faces = np.sort(mesh.tets[:, LOCAL_FACES].reshape(-1, 3), axis=1)
    unique, counts = np.unique(faces, axis=0, return_counts=True)
    assert counts.max() == 2
    return unique[counts == 1]


def _topology(mesh):
    """Euler number, number of non-manifold edges and of components of the boundary."""
    triangles = _boundary(mesh)
    pairs = np.sort(triangles[:, [(0, 1), (1, 2), (0, 2)]].reshape(-1, 2), axis=1)
    edges, counts = np.unique(pairs, axis=0, return_counts=True)
    nodes = np.unique(triangles)
    graph = coo_matrix((np.ones(len(edges)), edges.T), shape=(mesh.n_nodes, mesh.n_nodes))
    labels = connected_components(graph, directed=False)[1]
    euler = len(nodes) - len(edges) + len(triangles)
    return euler, int((counts != 2).sum()), len(np.unique(labels[nodes]))


def _torus(x):
    ring = np.hypot(x[:, 0], x[:, 1]) - 8.0
    return np.hypot(ring, x[:, 2]) - 3.1


@pytest.mark.parametrize(
    ("distance", "topology"),
    [
        (_ball(9.7), (2, 0, 1)),
        (lambda x: np.abs(_ball(8.0)(x)) - 1.9, (4, 0, 2)),
        (_torus, (0, 0, 1)),
        # A wavy surface of a function that is no distance: every stencil, steep and shallow cuts.
        (lambda x: (x**2).sum(axis=1) - 80 + 9 * np.sin(x).prod(axis=1), (2, 0, 1)),
    ],
    ids=["ball", "shell", "torus", "wavy"],
)
@pytest.mark.parametrize(("edge", "smooth"), [(1.3, False), (0.8, False), (1.1, True)])
def test_mesh_conforms_with_bounded_angles_and_right_topology(distance, topology, edge, smooth):
    mesh = stuff(distance, _box(12.0), edge, smooth=smooth)
    assert (_volumes(mesh) > 0).all()
    angles = _dihedral_angles(mesh)
    assert angles.min() > MIN_DIHEDRAL
    assert angles.max() < MAX_DIHEDRAL
    assert _topology(mesh) == topology
    assert len(np.unique(mesh.tets)) == mesh.n_nodes


@pytest.mark.parametrize(("smooth", "tolerance"), [(False, 1e-9), (True, 1e-6)])
def test_boundary_nodes_lie_on_the_surface(smooth, tolerance):
    mesh = stuff(_ball(9.7), _box(10.0), 1.0, smooth=smooth)
    on_surface = np.unique(_boundary(mesh))
    assert np.abs(_ball(9.7)(mesh.points[on_surface])).max() < tolerance


def _largest_eigenvalue(mesh):
    """Of M_L^-1 K, the inverse of which limits the explicit time step [1/mm^2]."""
    matrix = stiffness(mesh, np.ones(mesh.n_tets))
    scale = diags(1 / np.sqrt(lumped_mass(mesh)))
    return eigsh(scale @ matrix @ scale, k=1, return_eigenvectors=False)[0]


def test_smoothing_doubles_the_explicit_step_and_raises_the_angles():
    def egg(x):
        return np.linalg.norm(x * [1.0, 0.8, 1.3], axis=1) - 9.1

    raw, smooth = (stuff(egg, _box(12.0), 1.0, smooth=s) for s in (False, True))
    np.testing.assert_array_equal(raw.tets, smooth.tets)
    assert _largest_eigenvalue(smooth) < 0.5 * _largest_eigenvalue(raw)
    assert _dihedral_angles(smooth).min() > _dihedral_angles(raw).min() > MIN_DIHEDRAL
    assert _volumes(smooth).sum() == pytest.approx(_volumes(raw).sum(), rel=1e-3)


def test_smoothing_keeps_flat_faces_flat_and_rims_in_place():
    raw, smooth = (stuff(_cut_ball, _box(10.0), 1.0, smooth=s) for s in (False, True))
    surface = np.unique(_boundary(raw))
    top = surface[raw.points[surface, 2] > 2.0 - 1e-9]
    assert len(top) > 100
    np.testing.assert_allclose(raw.points[top, 2], 2.0, atol=1e-9)
    np.testing.assert_allclose(smooth.points[top, 2], 2.0, atol=1e-9)
    assert _volumes(smooth).sum() == pytest.approx(_volumes(raw).sum(), rel=1e-3)


def _cut_ball(x):
    return np.maximum(_ball(9.7)(x), x[:, 2] - 2.0)


def test_volume_converges_with_order_two():
    edges = np.array([2.0, 1.0, 0.5])
    exact = 4 / 3 * np.pi * 9.7**3
    error = [abs(_volumes(stuff(_ball(9.7), _box(10.0), edge)).sum() / exact - 1) for edge in edges]
    slope = np.polyfit(np.log(edges), np.log(error), 1)[0]
    assert abs(slope - 2) < ORDER
    assert error[-1] < 1e-3


def test_mean_edge_is_the_one_asked_for():
    mesh = stuff(_ball(20.0), _box(21.0), 1.5)
    pairs = np.sort(mesh.tets[:, np.transpose(np.triu_indices(4, 1))].reshape(-1, 2), axis=1)
    pairs = np.unique(pairs, axis=0)
    length = np.linalg.norm(mesh.points[pairs[:, 0]] - mesh.points[pairs[:, 1]], axis=1)
    assert length.mean() == pytest.approx(1.5, rel=0.03)


def test_surface_through_lattice_nodes_leaves_no_flat_element():
    # Planes through lattice nodes: zeros of the function are met exactly.
    mesh = stuff(lambda x: np.abs(x).max(axis=1) - 6.0, _box(6.0), 12 * 0.923 / 8)
    assert _dihedral_angles(mesh).min() > MIN_DIHEDRAL
    assert _topology(mesh) == (2, 0, 1)


def test_same_request_gives_the_same_mesh_bit_for_bit():
    first, second = (stuff(_ball(9.7), _box(10.0), 1.7) for _ in range(2))
    np.testing.assert_array_equal(first.points, second.points)
    np.testing.assert_array_equal(first.tets, second.tets)


@pytest.mark.parametrize(
    ("distance", "bounds", "edge", "message"),
    [
        (_ball(9.0), _box(5.0), 1.0, "reaches the edge of its box"),
        (_ball(-1.0), _box(5.0), 1.0, "nowhere negative"),
        (lambda x: np.full(len(x), np.nan), _box(5.0), 1.0, "not finite"),
        (_ball(3.0), _box(5.0), -1.0, "positive length"),
        (_ball(3.0), _box(5.0), 1e-3, "take a larger edge"),
        (_ball(3.0), ([5.0] * 3, [-5.0] * 3), 1.0, "enclose no volume"),
        (_ball(3.0), [1.0, 2.0], 1.0, "two finite corners"),
    ],
)
def test_impossible_requests_are_refused(distance, bounds, edge, message):
    with pytest.raises(MeshError, match=message):
        stuff(distance, bounds, edge)
