"""Surfaces that bound a body, the distance to them, and graded refinement inside them."""

import numpy as np
import pytest

from twinheart.errors import MeshError
from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.bisection import bisect_to
from twinheart.mesh.closed import closed_surface, self_intersections, signed_distance
from twinheart.mesh.generate import slab
from twinheart.mesh.quality import (
    boundary_triangles,
    dihedral_angles,
    edge_lengths,
    enclosed_volume,
    triangle_areas,
    volumes,
)
from twinheart.mesh.stuffing import stuff

RADIUS = 40.0


@pytest.fixture(scope="module")
def ball() -> TetMesh:
    def distance(x):
        return np.linalg.norm(x, axis=1) - RADIUS

    return stuff(distance, ([-RADIUS] * 3, [RADIUS] * 3), 8.0, improve=False)


@pytest.fixture(scope="module")
def sphere(ball) -> TriMesh:
    used, triangles = np.unique(boundary_triangles(ball.tets), return_inverse=True)
    return TriMesh(ball.points[used], triangles.reshape(-1, 3))


def without(surface: TriMesh, place, radius: float) -> TriMesh:
    """The surface without the triangles near a place."""
    centres = surface.points[surface.triangles].mean(axis=1)
    near = np.linalg.norm(centres - place, axis=1) < radius
    assert near.any()
    return TriMesh(surface.points, surface.triangles[~near])


def test_a_closed_surface_is_left_as_it_is(sphere):
    same, said = closed_surface(sphere)
    assert said == ()
    assert np.array_equal(same.points, sphere.points)
    assert np.array_equal(same.triangles, sphere.triangles)


def test_inside_out_and_single_turned_triangles_are_turned(sphere):
    inverted, said = closed_surface(TriMesh(sphere.points, sphere.triangles[:, ::-1]))
    assert "inside out" in said[0]
    assert enclosed_volume(inverted.points, inverted.triangles) > 0
    mixed = sphere.triangles.copy()
    mixed[3:40:4] = mixed[3:40:4, ::-1]
    mended, said = closed_surface(TriMesh(sphere.points, mixed))
    assert said == ("turned 10 triangles round",)
    assert np.array_equal(mended.triangles, sphere.triangles)


def test_a_small_hole_is_closed_and_its_place_told(sphere):
    closed, said = closed_surface(without(sphere, [0.0, 0.0, RADIUS], 6.0))
    assert len(said) == 1
    assert said[0].startswith("closed a hole of ")
    assert "at (" in said[0]
    volume = enclosed_volume(closed.points, closed.triangles)
    assert volume == pytest.approx(enclosed_volume(sphere.points, sphere.triangles), rel=0.01)
    assert closed_surface(closed)[1] == ()


def test_a_large_hole_is_refused_with_its_place(sphere):
    with pytest.raises(MeshError, match=r"hole of \d+ mm near \(-?\d, -?\d, 3\d\) mm, at most 30"):
        closed_surface(without(sphere, [0.0, 0.0, RADIUS], 25.0))


def test_a_surface_through_itself_is_refused_with_the_place(sphere):
    points = sphere.points.copy()
    top = points[:, 2].argmax()
    points[top] = -1.2 * points[top] + [3.0, 1.7, 0.0]  # pulled through the other side
    crossing = self_intersections(points, sphere.triangles)
    assert all((sphere.triangles[pair] == top).any() for pair in crossing)
    with pytest.raises(MeshError, match=r"cuts through itself at \d+ pairs? of triangles.*near"):
        closed_surface(TriMesh(points, sphere.triangles))


def test_crossings_are_those_found_by_trying_all_pairs():
    """Random triangles against the definition: a side of one passes through the other."""
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 10, (60, 1, 3)) + rng.normal(0, [[[1.5]]], (60, 3, 3))
    corners[0] *= 4.0  # one much larger than the others
    found = self_intersections(corners.reshape(-1, 3), np.arange(180).reshape(-1, 3))
    expected = {
        (i, j) for i in range(60) for j in range(i + 1, 60) if cross(corners[i], corners[j])
    }
    assert len(expected) > 10
    assert {tuple(pair) for pair in found.tolist()} == expected


def cross(one: np.ndarray, other: np.ndarray) -> bool:
    return any(passes(a[k], a[k - 1], b) for a, b in ((one, other), (other, one)) for k in range(3))


def passes(start, end, triangle) -> bool:
    """Solve start + t (end - start) = a + u (b - a) + v (c - a)."""
    a, b, c = triangle
    t, u, v = np.linalg.solve(np.stack([end - start, a - b, a - c], axis=1), a - start)
    return bool(0 < t < 1 and u > 0 and v > 0 and u + v < 1)


def test_parts_inner_walls_and_one_sided_strips_are_refused(sphere):
    n = sphere.n_nodes
    two = TriMesh(
        np.concatenate([sphere.points, sphere.points + 500.0]),
        np.concatenate([sphere.triangles, sphere.triangles + n]),
    )
    with pytest.raises(MeshError, match="has 2 parts"):
        closed_surface(two)
    a, b, _ = sphere.triangles[0]
    wall = np.concatenate([sphere.triangles, [[a, b, n]]])
    with pytest.raises(MeshError, match="more than two triangles meet at 1 edge"):
        closed_surface(TriMesh(np.concatenate([sphere.points, [[0.0, 0.0, 0.0]]]), wall))
    strip = [[k % 5, (k + 1) % 5, (k + 2) % 5] for k in range(5)]
    points = np.random.default_rng(0).normal(size=(5, 3))
    with pytest.raises(MeshError, match="one-sided"):
        closed_surface(TriMesh(points, strip))
    with pytest.raises(MeshError, match="no triangles"):
        closed_surface(TriMesh(points, np.zeros((0, 3), dtype=int)))


def sides(surface: TriMesh) -> np.ndarray:
    corners = surface.points[surface.triangles].transpose(1, 0, 2)
    return np.roll(corners, -1, axis=0) - corners


def test_signed_distance_to_a_ball(sphere):
    points = np.random.default_rng(0).normal(size=(500, 3)) * 30.0
    exact = np.linalg.norm(points, axis=1) - RADIUS
    # flat triangles lie inside the sphere, deepest at the centres of their circumscribed circles
    a, b, c = (np.linalg.norm(side, axis=1) for side in sides(sphere))
    circle = (a * b * c / (4 * triangle_areas(sphere.points, sphere.triangles))).max()
    sag = RADIUS - np.sqrt(RADIUS**2 - circle**2)
    error = signed_distance(sphere)(points) - exact
    assert -1e-3 < error.min()
    assert error.max() <= sag + 1e-9
    assert len(signed_distance(sphere)(np.zeros((0, 3)))) == 0


# graded refinement


def fine_on_one_side(x: np.ndarray) -> np.ndarray:
    return np.where(x[:, 0] > 10.0, 3.0, 100.0)


def is_conforming(mesh: TetMesh, area: float) -> bool:
    """No hanging node: every face inside the body belongs to two tetrahedra."""
    boundary = boundary_triangles(mesh.tets)
    return bool(np.isclose(triangle_areas(mesh.points, boundary).sum(), area))


def test_bisection_reaches_the_size_and_conforms(ball):
    area = triangle_areas(ball.points, boundary_triangles(ball.tets)).sum()
    fine = bisect_to(ball, fine_on_one_side)
    assert is_conforming(fine, area)
    volume = volumes(fine.points, fine.tets)
    assert volume.min() > 0
    assert volume.sum() == pytest.approx(volumes(ball.points, ball.tets).sum())
    inside = fine.points[fine.tets].mean(axis=1)[:, 0] > 10.0
    assert edge_lengths(fine.points, fine.tets[inside]).max() <= 3.0
    # far from there nothing changes
    far = fine.tets[fine.points[fine.tets, 0].max(axis=1) < -15.0]
    old = ball.tets[ball.points[ball.tets, 0].max(axis=1) < -15.0]
    assert np.array_equal(np.sort(far, axis=0), np.sort(old, axis=0))


def test_a_lattice_keeps_its_angles_however_often_it_is_halved(ball):
    """A body-centred lattice has angles of 60 and 90 degrees; its bisections none below 45."""
    interior = ball.tets[np.linalg.norm(ball.points[ball.tets], axis=2).max(axis=1) < 0.7 * RADIUS]
    lattice = TetMesh(ball.points, interior)
    assert dihedral_angles(lattice.points, lattice.tets).min() == pytest.approx(60.0)
    for size in (8.0, 6.0, 4.0, 2.0):
        fine = bisect_to(lattice, lambda x, s=size: s + 0.2 * np.linalg.norm(x, axis=1))
        assert dihedral_angles(fine.points, fine.tets).min() >= 45.0 - 1e-6


def test_bisection_keeps_cell_fields_with_the_tetrahedra():
    mesh = slab((8.0, 8.0, 8.0), 4.0)
    number = np.arange(mesh.n_tets)
    fine = bisect_to(
        TetMesh(mesh.points, mesh.tets, {}, {"region": number}), lambda x: np.full(len(x), 2.0)
    )
    own = np.bincount(fine.cell_fields["region"], volumes(fine.points, fine.tets))
    assert np.allclose(own, volumes(mesh.points, mesh.tets))


def test_a_size_of_zero_is_refused(ball):
    with pytest.raises(MeshError, match="not positive"):
        bisect_to(ball, lambda x: np.zeros(len(x)))


def test_triangles_of_one_plane_do_not_cut_whatever_their_rounding():
    """A tilted plane far from the origin: all volumes are rounding errors."""
    rng = np.random.default_rng(5)
    frame, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    flat = rng.uniform(0.0, 10.0, (900, 2)) @ frame[:2] + [150.0, -260.0, 90.0]
    triangles = np.arange(900).reshape(-1, 3)
    assert len(self_intersections(flat, triangles)) == 0
