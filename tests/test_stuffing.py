"""Isosurface stuffing: angles, topology, volume, conformity, and bad requests."""

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from tolerances import ORDER

from twinheart.errors import MeshError
from twinheart.fem import explicit_step, lumped_mass, stiffness
from twinheart.mesh.quality import aspect_ratios, mean_edge
from twinheart.mesh.stuffing import stuff

LOCAL_FACES = np.array([(1, 2, 3), (0, 3, 2), (0, 1, 3), (0, 2, 1)])
# Bounds of Labelle & Shewchuk (2007) for the warp thresholds used.
MIN_DIHEDRAL, MAX_DIHEDRAL = 10.7, 164.8
# Of improved meshes: the targets of the mesher, the step as a share of the lattice's.
MIN_IMPROVED, MAX_ASPECT, LATTICE_SHARE, VOLUME = 12.0, 6.0, 0.5, 0.01
# Of graded meshes: the mesher's bound; halving makes neighbours of at most twice the size.
MIN_GRADED, MAX_JUMP = 8.0, 2.1
# Mean edges against those asked for: halving goes in steps of a half.
SIZE = 0.15


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


SHAPES = pytest.mark.parametrize(
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


@SHAPES
@pytest.mark.parametrize(("edge", "improve"), [(1.3, False), (0.8, False), (1.1, True)])
def test_mesh_conforms_with_bounded_angles_and_right_topology(distance, topology, edge, improve):
    mesh = stuff(distance, _box(12.0), edge, improve=improve)
    assert (_volumes(mesh) > 0).all()
    angles = _dihedral_angles(mesh)
    assert angles.min() > MIN_DIHEDRAL
    assert angles.max() < MAX_DIHEDRAL
    assert _topology(mesh) == topology
    assert len(np.unique(mesh.tets)) == mesh.n_nodes


def _fine_on_one_side(x):
    away = np.linalg.norm(x - np.array([9.0, 0.0, 0.0]), axis=1) - 4.0
    return np.clip(0.5 + 0.3 * away, 0.5, 1.6)


@SHAPES
def test_graded_mesh_conforms_with_bounded_angles_and_right_topology(distance, topology):
    raw, mesh = (
        stuff(distance, _box(12.0), 1.6, size=_fine_on_one_side, improve=i) for i in (False, True)
    )
    for one in (raw, mesh):
        assert (_volumes(one) > 0).all()
        assert _topology(one) == topology
    assert _dihedral_angles(mesh).min() > MIN_GRADED
    assert aspect_ratios(mesh.points, mesh.tets).max() < MAX_ASPECT
    on_surface = mesh.points[np.unique(_boundary(mesh))]
    assert np.abs(distance(on_surface)).max() < 1e-3


def test_graded_edges_are_as_long_as_asked_and_grow_smoothly():
    mesh = stuff(_ball(9.7), _box(10.0), 1.6, size=_fine_on_one_side)
    corners = mesh.points[mesh.tets]
    first, second = np.triu_indices(4, 1)
    length = np.linalg.norm(corners[:, first] - corners[:, second], axis=2)
    asked = _fine_on_one_side(corners.mean(axis=1))
    for low, high in ((0.5, 0.51), (0.51, 1.0), (1.59, 1.61)):
        here = (asked >= low) & (asked < high)
        assert here.sum() > 300
        assert (length[here].mean(axis=1) / asked[here]).mean() == pytest.approx(1, abs=SIZE)
    faces = np.sort(mesh.tets[:, LOCAL_FACES], axis=2).reshape(-1, 3)
    tet = np.arange(mesh.n_tets).repeat(4)
    order = np.lexsort(faces.T)
    pair = np.flatnonzero((faces[order][1:] == faces[order][:-1]).all(axis=1))
    size = length.mean(axis=1)
    jump = size[tet[order][pair]] / size[tet[order][pair + 1]]
    assert max(jump.max(), 1 / jump.min()) < MAX_JUMP


def test_a_thin_wall_is_whole_where_the_lattice_is_finer():
    def shell(x):
        return np.abs(_ball(6.0)(x)) - 0.6

    assert _topology(stuff(shell, _box(7.0), 1.6)) != (4, 0, 2)
    mesh = stuff(shell, _box(7.0), 1.6, size=lambda x: np.full(len(x), 0.5))
    assert _topology(mesh) == (4, 0, 2)


def test_a_size_above_the_edge_leaves_the_lattice_as_it_is():
    mesh = stuff(_ball(9.7), _box(10.0), 1.6, size=lambda x: np.full(len(x), 9.0))
    assert mean_edge(mesh) == pytest.approx(mean_edge(stuff(_ball(9.7), _box(10.0), 1.6)), rel=0.02)


@pytest.mark.parametrize(("improve", "tolerance"), [(False, 1e-9), (True, 1e-4)])
def test_boundary_nodes_lie_on_the_surface(improve, tolerance):
    mesh = stuff(_ball(9.7), _box(10.0), 1.0, improve=improve)
    on_surface = np.unique(_boundary(mesh))
    assert np.abs(_ball(9.7)(mesh.points[on_surface])).max() < tolerance


def _egg(x):
    return np.linalg.norm(x * [1.0, 0.8, 1.3], axis=1) - 9.1


def test_improvement_frees_the_explicit_step_and_opens_the_angles():
    raw, better = (stuff(_egg, _box(12.0), 1.0, improve=i) for i in (False, True))
    assert explicit_step(better) > LATTICE_SHARE * _lattice_step(mean_edge(better))
    assert explicit_step(better) > 3 * explicit_step(raw)
    assert _dihedral_angles(better).min() > MIN_IMPROVED
    assert aspect_ratios(better.points, better.tets).max() < MAX_ASPECT
    exact = 4 / 3 * np.pi * 9.1**3 / (0.8 * 1.3)
    assert _volumes(better).sum() == pytest.approx(exact, rel=VOLUME)


def _lattice_step(edge):
    """Step of a body-centred lattice: 8 neighbours of weight a/2, mass a^3/2, lambda = 16/a^2."""
    side = edge / ((6 + 8 * np.sqrt(0.75)) / 14)
    return 2 * side**2 / 16


def test_step_of_the_lattice_is_the_known_one():
    # a cube cut along lattice planes: inside nothing else than the lattice
    block = stuff(lambda x: np.abs(x).max(axis=1) - 6.0, _box(6.0), 12 * 0.9234 / 8)
    matrix, mass = stiffness(block), lumped_mass(block)
    middle = np.abs(block.points).max(axis=1) < 2.0
    row = matrix.diagonal()[middle] / mass[middle]
    assert row == pytest.approx(1 / _lattice_step(12 * 0.9234 / 8), rel=1e-3)


def test_improvement_keeps_flat_faces_flat_and_volume_at_rims():
    raw, better = (stuff(_cut_ball, _box(10.0), 1.0, improve=i) for i in (False, True))
    surface = np.unique(_boundary(better))
    top = better.points[surface, 2] > 1.99
    assert top.sum() > 100
    np.testing.assert_allclose(better.points[surface][top, 2], 2.0, atol=1e-4)
    assert np.abs(_cut_ball(better.points[surface])).max() < 1e-4
    assert _volumes(better).sum() == pytest.approx(_volumes(raw).sum(), rel=VOLUME / 2)


def _cut_ball(x):
    return np.maximum(_ball(9.7)(x), x[:, 2] - 2.0)


def test_volume_converges_with_order_two():
    edges = np.array([2.0, 1.0, 0.5])
    exact = 4 / 3 * np.pi * 9.7**3
    error = [
        abs(_volumes(stuff(_ball(9.7), _box(10.0), edge, improve=False)).sum() / exact - 1)
        for edge in edges
    ]
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
