"""Edges, volumes, angles, boundary, components and refinement: theory, oracles and symmetries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mesh_samples import irregular
from scipy.spatial.transform import Rotation
from tolerances import EXACT64

from twinheart.errors import MeshError
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import slab
from twinheart.mesh.quality import (
    TET_EDGES,
    aspect_ratios,
    boundary_triangles,
    components,
    dihedral_angles,
    edge_keys,
    edge_lengths,
    edges,
    enclosed_volume,
    flatness,
    mean_edge,
    tet_shapes,
    triangle_areas,
    volumes,
)
from twinheart.mesh.refine import refine, refine_to

few = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**32 - 1)

# regular tetrahedron with edge sqrt(8)
REGULAR = np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
ONE = np.array([[0, 1, 2, 3]])


def test_regular_tetrahedron_has_its_known_measures():
    length = np.sqrt(8.0)
    assert np.allclose(edge_lengths(REGULAR, ONE), length, rtol=EXACT64)
    assert np.allclose(np.abs(volumes(REGULAR, ONE)), length**3 / np.sqrt(72), rtol=EXACT64)
    assert np.allclose(dihedral_angles(REGULAR, ONE), np.degrees(np.arccos(1 / 3)), rtol=EXACT64)
    assert np.allclose(flatness(REGULAR, ONE), np.sqrt(2 / 3), rtol=EXACT64)
    assert np.allclose(aspect_ratios(REGULAR, ONE), 1.0, rtol=EXACT64)


def test_edges_are_sorted_and_unique():
    tets = irregular().tets
    expected = {tuple(sorted((t[i], t[j]))) for t in tets.tolist() for i, j in TET_EDGES}
    assert [tuple(e) for e in edges(tets).tolist()] == sorted(expected)
    assert edge_keys(tets).shape == (6, len(tets))


def test_edges_of_no_cell_are_none():
    assert edges(np.zeros((0, 4), dtype=np.int32)).shape == (0, 2)
    assert np.isnan(mean_edge(TetMesh(REGULAR, np.zeros((0, 4), dtype=np.int32))))
    assert boundary_triangles(np.zeros((0, 4), dtype=np.int32)).shape == (0, 3)


def test_flat_tetrahedron_has_angles_0_and_180():
    square = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    assert sorted(set(dihedral_angles(square, ONE).ravel().tolist())) == [0.0, 180.0]


def test_flat_tetrahedron_has_no_finite_aspect():
    square = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    assert np.isinf(aspect_ratios(square, ONE)).all()


def test_shapes_agree_with_volumes_angles_and_the_stiffness_matrix():
    mesh = irregular(3, 20)
    stiff, volume, angle = tet_shapes(mesh.points, mesh.tets)
    np.testing.assert_allclose(volume, volumes(mesh.points, mesh.tets), rtol=EXACT64)
    np.testing.assert_allclose(angle, dihedral_angles(mesh.points, mesh.tets).min(1), atol=1e-6)
    # the gradients of the barycentric functions are rows of the inverse of the corners' matrix
    corners = mesh.points[mesh.tets]
    rows = np.concatenate([np.ones((mesh.n_tets, 4, 1)), corners], axis=2)
    gradient = np.linalg.inv(rows)[:, 1:]
    expected = volume[:, None] * (gradient**2).sum(axis=1)
    np.testing.assert_allclose(stiff, expected, rtol=1e-6)
    assert tet_shapes(REGULAR, ONE[:, [1, 0, 2, 3]])[2] == -tet_shapes(REGULAR, ONE)[2]


def test_sliver_angle_is_exact():
    # two triangles that meet at an edge under a tiny angle
    angle = 1e-7
    points = np.array([[0.0, 0, 0], [1, 0, 0], [0.5, 1, 0], [0.5, np.cos(angle), np.sin(angle)]])
    assert np.isclose(dihedral_angles(points, ONE)[0, 0], np.degrees(angle), rtol=1e-9)


def test_boundary_of_a_slab_is_its_six_faces():
    mesh = slab((3.0, 2.0, 1.0), 0.5)
    triangles = boundary_triangles(mesh.tets)
    areas = triangle_areas(mesh.points, triangles)
    assert np.isclose(areas.sum(), 2 * (6 + 3 + 2), rtol=EXACT64)
    a, b, c = (mesh.points[triangles[:, i]] for i in range(3))
    outward = np.cross(b - a, c - a)
    from_centre = (a + b + c) / 3 - np.array([1.5, 1.0, 0.5])
    assert np.all(np.einsum("ni,ni->n", outward, from_centre) > 0)


def test_boundary_agrees_when_indices_exceed_63_bit_keys():
    tets = irregular().tets
    triangles = boundary_triangles(tets)
    shifted = boundary_triangles(tets + 3_000_000) - 3_000_000
    assert np.array_equal(np.sort(np.sort(triangles, 1), 0), np.sort(np.sort(shifted, 1), 0))


def test_components_are_ordered_by_size_and_orphans_come_last():
    small, large = slab((1.0, 1.0, 1.0), 1.0), slab((2.0, 1.0, 1.0), 0.5)
    n_small = small.n_nodes
    cells = np.concatenate([small.tets, large.tets + n_small + 1])
    labels = components(cells, n_small + 1 + large.n_nodes)
    assert np.all(labels[:n_small] == 1)
    assert np.all(labels[n_small + 1 :] == 0)
    assert labels[n_small] == 2
    assert labels[cells].max() + 1 == 2


@few
@given(seeds)
def test_volumes_and_angles_do_not_depend_on_position(seed):
    mesh = irregular(seed, 20)
    rng = np.random.default_rng(seed)
    rotation = Rotation.from_quat(rng.normal(size=4)).as_matrix()
    moved = mesh.points @ rotation.T + rng.normal(size=3)
    scale = np.abs(volumes(mesh.points, mesh.tets)).max()
    change = volumes(moved, mesh.tets) - volumes(mesh.points, mesh.tets)
    assert np.abs(change).max() < EXACT64 * scale
    angles = dihedral_angles(mesh.points, mesh.tets)
    # an angle of a sliver is as uncertain as its altitude
    assert np.allclose(dihedral_angles(moved, mesh.tets), angles, atol=1e-9)


@few
@given(seeds)
def test_renumbering_nodes_changes_nothing_but_numbers(seed):
    mesh = irregular(seed, 20)
    new = np.random.default_rng(seed).permutation(mesh.n_nodes)
    points = np.empty_like(mesh.points)
    points[new] = mesh.points
    tets = new[mesh.tets]
    assert np.array_equal(volumes(points, tets), volumes(mesh.points, mesh.tets))
    assert len(edges(tets)) == len(edges(mesh.tets))
    old_faces = {frozenset(new[t].tolist()) for t in boundary_triangles(mesh.tets)}
    assert {frozenset(t) for t in boundary_triangles(tets).tolist()} == old_faces


@few
@given(seeds)
def test_boundary_encloses_the_volume(seed):
    mesh = irregular(seed, 25)
    total = volumes(mesh.points, mesh.tets).sum()
    inside = enclosed_volume(mesh.points, boundary_triangles(mesh.tets))
    assert np.isclose(inside, total, rtol=EXACT64)


@few
@given(seeds)
def test_refinement_conserves_volume_and_halves_edges(seed):
    mesh = irregular(seed, 15)
    fine = refine(mesh)
    volume = volumes(fine.points, fine.tets)
    assert volume.min() > 0
    parents = volumes(mesh.points, mesh.tets)
    assert np.allclose(volume.reshape(-1, 8), parents[:, None] / 8, rtol=1e-9)
    # conforming: no face inside is left alone, so the boundary has four times as many triangles
    assert len(boundary_triangles(fine.tets)) == 4 * len(boundary_triangles(mesh.tets))
    halved = edge_lengths(mesh.points, mesh.tets) / 2
    new = edges(fine.tets)
    of_old = new[(new[:, 0] < mesh.n_nodes) & (new[:, 1] >= mesh.n_nodes)]
    length = np.linalg.norm(fine.points[of_old[:, 0]] - fine.points[of_old[:, 1]], axis=1)
    assert np.allclose(np.sort(length), np.sort(np.repeat(halved, 2)), rtol=EXACT64)
    assert edge_lengths(fine.points, fine.tets).max() <= 2 * halved.max() + 1e-9


def test_refined_slab_has_half_the_mean_edge_and_as_good_angles():
    mesh = slab((2.0, 2.0, 2.0), 1.0)
    fine = refine(refine(mesh))
    assert np.isclose(mean_edge(fine), mean_edge(mesh) / 4, rtol=0.1)
    assert dihedral_angles(fine.points, fine.tets).min() > 0.7 * 45


def test_refinement_interpolates_fields():
    mesh = irregular(5, 20)
    angle = mesh.points[:, 0] / 100
    fibres = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], len(fibres))
    fields = {
        "linear": mesh.points @ np.array([1.0, 2.0, 3.0]),
        "fibre": fibres * signs[:, None],
        "single": fibres.astype(np.float32),
        "tag": np.where(mesh.points[:, 0] < 50, 0, 7),
        "arrow": 3 * fibres,
    }
    fine = refine(TetMesh(mesh.points, mesh.tets, fields, {"region": np.arange(mesh.n_tets)}))
    linear = fine.points @ np.array([1.0, 2.0, 3.0])
    assert np.allclose(fine.point_fields["linear"], linear, rtol=EXACT64)
    fibre = fine.point_fields["fibre"]
    assert np.allclose(np.linalg.norm(fibre, axis=1), 1, rtol=EXACT64)
    # the mean of two axes in a plane lies at the mean angle, whatever their signs
    at = fine.points[:, 0] / 100
    along = np.abs(fibre[:, 0] * np.cos(at) + fibre[:, 1] * np.sin(at))
    assert np.allclose(along, 1, rtol=EXACT64)
    assert fine.point_fields["single"].dtype == np.float32
    assert set(np.unique(fine.point_fields["tag"])) == {0, 7}
    # not unit vectors: a plain mean, shorter where the directions differ
    assert np.linalg.norm(fine.point_fields["arrow"][mesh.n_nodes :], axis=1).min() < 3
    assert np.array_equal(fine.cell_fields["region"], np.repeat(np.arange(mesh.n_tets), 8))


def test_refine_to_stops_below_the_wanted_edge():
    mesh = slab((4.0, 4.0, 4.0), 2.0)
    assert mean_edge(refine_to(mesh, 1.0)) <= 1.0
    assert refine_to(mesh, 100.0) is mesh


@pytest.mark.parametrize(
    ("edge", "what"), [(0.001, "longer edge"), (0.0, "positive"), (-1.0, "positive")]
)
def test_refine_to_refuses_what_it_cannot_do(edge, what):
    with pytest.raises(MeshError, match=what):
        refine_to(slab((1.0, 1.0, 1.0), 0.5), edge, max_tets=1000)
