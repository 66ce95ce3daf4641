"""Slab, cable and LV ellipsoid: exact geometry, orientation, conformity, and bad requests."""

import numpy as np
import pytest
from tolerances import EXACT64

from twinheart.errors import MeshError
from twinheart.mesh.generate import cable, lv_ellipsoid, slab


def _volumes(mesh):
    corners = mesh.points[mesh.tets]
    return np.linalg.det(corners[:, 1:] - corners[:, :1]) / 6


def _face_counts(tets):
    faces = np.concatenate([np.delete(tets, k, axis=1) for k in range(4)])
    return np.unique(np.sort(faces, axis=1), axis=0, return_counts=True)


@pytest.mark.parametrize("mirrored", [False, True])
def test_slab_is_conforming_and_fills_its_box(mirrored):
    mesh = slab((2.0, 1.5, 1.0), 0.5, mirrored=mirrored)
    assert (mesh.n_nodes, mesh.n_tets) == (5 * 4 * 3, 6 * 4 * 3 * 2)
    np.testing.assert_allclose(_volumes(mesh), 0.5**3 / 6, rtol=EXACT64)
    faces, counts = _face_counts(mesh.tets)
    assert counts.max() == 2
    # A conforming mesh has its boundary faces on the box only: two triangles a square.
    assert (counts == 1).sum() == 2 * 2 * (4 * 3 + 3 * 2 + 4 * 2)
    outer = mesh.points[faces[counts == 1]]
    on_box = (np.ptp(outer, axis=1) == 0) & ((outer[:, 0] == 0) | (outer[:, 0] == [2.0, 1.5, 1.0]))
    assert on_box.any(axis=1).all()


def test_slab_numbers_nodes_with_x_fastest_at_exact_coordinates():
    edge = 0.1
    mesh = slab((2.0, 0.7, 0.3), edge)
    i, j, k = 13, 5, 2
    node = i + 21 * (j + 8 * k)
    np.testing.assert_array_equal(mesh.points[node], np.array([i, j, k]) * edge)


def test_mirrored_slab_is_the_reflection_of_the_other():
    plain, mirrored = (slab((1.0, 1.0, 1.0), 0.5, mirrored=m) for m in (False, True))
    np.testing.assert_array_equal(plain.points, mirrored.points)

    def centres(mesh):
        return np.sort(mesh.points[mesh.tets].mean(axis=1).round(9).view("f8,f8,f8"), axis=0)

    reflected = plain.points.copy()
    reflected[:, 0] = 1.0 - reflected[:, 0]
    a = np.sort(reflected[plain.tets].mean(axis=1).round(9).view("f8,f8,f8"), axis=0)
    np.testing.assert_array_equal(a, centres(mirrored))
    assert not np.array_equal(centres(plain), centres(mirrored))


def test_cable_is_one_cube_thick():
    mesh = cable(10.0, 0.25)
    assert mesh.n_nodes == 41 * 4
    np.testing.assert_allclose(np.ptp(mesh.points, axis=0), [10.0, 0.25, 0.25], rtol=EXACT64)


@pytest.mark.parametrize(
    ("size", "edge", "message"),
    [
        (
            (20.0, 7.0, 3.1),
            0.5,
            r"not a multiple of the edge 0.5 mm; .*\(20, 7, 3\) mm",
        ),
        ((20.0, 7.0, 0.1), 0.5, r"\(20, 7, 0.5\) mm"),
        ((20.0, -7.0, 3.0), 0.5, "expected positive lengths"),
        ((20.0, np.nan, 3.0), 0.5, "expected positive lengths"),
        ((20.0, 7.0), 0.5, "expected three lengths"),
        ((20.0, 7.0, 3.0), 0.0, "expected a positive length"),
        ((20.0, 7.0, 3.0), 0.001, "too large"),
    ],
)
def test_slab_refuses_impossible_sizes(size, edge, message):
    with pytest.raises(MeshError, match=message):
        slab(size, edge)


def test_lv_ellipsoid_has_the_exact_volume_and_closed_tagged_surfaces():
    mesh = lv_ellipsoid(edge=2.0)

    def below(radius, depth, height=20.0):
        return np.pi * radius**2 * (height + depth - (height**3 + depth**3) / (3 * depth**2))

    assert _volumes(mesh).sum() == pytest.approx(below(34.0, 71.5) - below(24.5, 65.0), rel=5e-3)
    classes = mesh.point_fields["surf_class"]
    faces, counts = _face_counts(mesh.tets)
    surface = np.unique(faces[counts == 1])
    assert (classes[surface] > 0).all()
    assert (np.delete(classes, surface) == 0).all()
    np.testing.assert_allclose(mesh.points[classes == 1, 2], 20.0, atol=1e-5)
    # No tetrahedron reaches from the endocardium to the epicardium: the wall has no short cut.
    tags = classes[mesh.tets]
    assert not ((tags == 2).any(axis=1) & (tags == 3).any(axis=1)).any()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"wall": -1.0}, "wall is -1.0 mm"),
        ({"base_height": 70.0}, "the base must cut it"),
        ({"apex_wall": 2.0, "edge": 2.0}, "edge of at most 1.33 mm"),
        ({"edge": float("nan")}, "edge is nan"),
    ],
)
def test_lv_ellipsoid_refuses_impossible_shapes(request_, message):
    with pytest.raises(MeshError, match=message):
        lv_ellipsoid(**request_)
