"""Phase singularities: spirals single, paired, moving; filaments; theorems; nothing invented."""

import numpy as np
import pytest
from scipy.spatial import Delaunay
from scipy.spatial.transform import Rotation

from twinheart.errors import InputError
from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.generate import slab
from twinheart.mesh.quality import boundary_triangles, mean_edge
from twinheart.planning import (
    filaments,
    phase_map,
    singular_points,
    track_filaments,
    track_points,
)

LENGTH = 30.0  # wave length of the spirals, mm
PERIOD = 120.0  # ms


@pytest.fixture(scope="module")
def sheet():
    """60 x 60 mm, uneven triangles with edges of about 1 mm, normals up."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*2 * [np.arange(0, 60.5, 1.0)]), -1).reshape(-1, 2)
    inner = ((grid > 0) & (grid < 60)).all(axis=1)  # no slivers along the rim
    grid[inner] += rng.uniform(-0.3, 0.3, (inner.sum(), 2))
    triangles = Delaunay(grid).simplices
    a, b, c = (grid[triangles[:, k]] for k in range(3))
    double = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    triangles = np.where(double[:, None] < 0, triangles[:, ::-1], triangles)
    return TriMesh(np.column_stack([grid, np.zeros(len(grid))]), triangles[double != 0])


def spirals(points, centres, charges, t=0.0):
    """Archimedean spirals: phase winds around each centre and falls with the distance from it."""
    x, y = points[:, 0], points[:, 1]
    phase = np.full(len(points), 2 * np.pi * t / PERIOD)
    for (cx, cy), charge in zip(centres, charges, strict=True):
        phase = phase + charge * np.arctan2(y - cy, x - cx)
    way = np.min([np.hypot(x - cx, y - cy) for cx, cy in centres], axis=0)
    return phase - 2 * np.pi * way / LENGTH


def matched(found, centres, charges, edge):
    """As many as planted, each of the right sense and at most one edge away."""
    assert len(found.charge) == len(charges)
    for centre, charge in zip(centres, charges, strict=True):
        way = np.linalg.norm(found.position[:, :2] - centre, axis=1)
        assert way.min() < edge
        assert found.charge[way.argmin()] == charge


def random_spirals(rng):
    while True:
        centres = rng.uniform(6, 54, (int(rng.integers(1, 6)), 2))
        apart = np.linalg.norm(centres[:, None] - centres[None], axis=2)
        if (apart + 99 * np.eye(len(centres))).min() > 6:
            return centres, rng.choice([-1, 1], len(centres))


def test_all_spirals_are_found_and_none_invented(sheet):
    rng = np.random.default_rng(1)
    for _ in range(60):
        centres, charges = random_spirals(rng)
        phase = spirals(sheet.points, centres, charges, rng.uniform(0, PERIOD))
        matched(singular_points(sheet, phase), centres, charges, mean_edge(sheet))


def test_waves_without_rotation_have_no_singularity(sheet):
    x, y, _ = sheet.points.T
    for phase in (2 * np.pi * x / LENGTH, 2 * np.pi * np.hypot(x - 30, y - 30) / LENGTH, 0 * x):
        assert len(singular_points(sheet, np.mod(phase + 1.0, 2 * np.pi)).charge) == 0


def test_whole_turns_do_not_matter(sheet):
    centres, charges = [(20.0, 30.0), (42.0, 31.0)], [1, -1]
    phase = spirals(sheet.points, centres, charges)
    rng = np.random.default_rng(2)
    found = singular_points(sheet, phase)
    other = singular_points(sheet, phase + 2 * np.pi * rng.integers(-3, 4, len(phase)))
    assert (found.triangle == other.triangle).all()
    np.testing.assert_allclose(found.position, other.position, atol=1e-9)


def test_rotation_and_numbering_change_nothing(sheet):
    centres, charges = [(20.0, 30.0), (42.0, 31.0), (30.0, 12.0)], [1, -1, 1]
    phase = spirals(sheet.points, centres, charges)
    rng = np.random.default_rng(3)
    turn = Rotation.random(random_state=4).as_matrix()
    order, rows = rng.permutation(sheet.n_nodes), rng.permutation(sheet.n_triangles)
    other = TriMesh(
        sheet.points[order] @ turn.T + 7.0, np.roll(np.argsort(order)[sheet.triangles[rows]], 1, 1)
    )
    found, moved = singular_points(sheet, phase), singular_points(other, phase[order])
    assert set(rows[moved.triangle]) == set(found.triangle)
    at = {row: k for k, row in enumerate(rows[moved.triangle])}
    again = [at[row] for row in found.triangle]
    assert (moved.charge[again] == found.charge).all()
    expected = found.position @ turn.T + 7.0
    np.testing.assert_allclose(moved.position[again], expected, atol=1e-9)
    # seen from the other side they turn the other way
    mirrored = singular_points(TriMesh(sheet.points, sheet.triangles[:, ::-1]), phase)
    assert mirrored.charge.sum() == -found.charge.sum()


def test_charges_of_a_closed_surface_cancel():
    """Each edge is passed once each way: whatever the phase, all turns add up to none."""
    mesh = slab((8.0, 6.0, 5.0), 1.0)
    surface = TriMesh(mesh.points, boundary_triangles(mesh.tets))
    rng = np.random.default_rng(5)
    for _ in range(20):
        found = singular_points(surface, rng.uniform(-np.pi, np.pi, surface.n_nodes))
        assert len(found.charge) > 0
        assert found.charge.sum() == 0


def test_missing_phase_is_no_singularity(sheet):
    phase = spirals(sheet.points, [(30.0, 30.0)], [1])
    hole = np.linalg.norm(sheet.points[:, :2] - 30.0, axis=1) < 3
    assert len(singular_points(sheet, np.where(hole, np.nan, phase)).charge) == 0


def test_moving_spirals_are_followed(sheet):
    """One circles, one of the other sense drifts past; a third is there for a while only."""
    frames, truth = [], []
    for k in range(40):
        angle = 2 * np.pi * k / 40
        centres = [(20 + 6 * np.cos(angle), 20 + 6 * np.sin(angle)), (8 + k, 45.0)]
        charges = [1, -1]
        if 10 <= k < 25:
            centres.append((50.0, 15.0))
            charges.append(1)
        truth.append(centres)
        phase = spirals(sheet.points, centres, charges, 5.0 * k)
        frames.append(singular_points(sheet, phase))
        matched(frames[-1], centres, charges, mean_edge(sheet))
    tracks = track_points(frames, reach=4.0)
    assert sorted(len(track.frame) for track in tracks) == [15, 40, 40]
    for track in tracks:
        place = np.array(
            [frames[f].position[n] for f, n in zip(track.frame, track.number, strict=True)]
        )
        ways = [
            max(
                np.linalg.norm(truth[f][k] - p[:2])
                for f, p in zip(track.frame, place, strict=True)
                if k < len(truth[f])
            )
            for k in range(3)
        ]
        assert min(ways) < mean_edge(sheet)


def test_a_gap_ends_a_track_unless_one_is_patient(sheet):
    one = singular_points(sheet, spirals(sheet.points, [(30.0, 30.0)], [1]))
    none = singular_points(sheet, np.zeros(sheet.n_nodes))
    assert len(track_points([one, none, one], reach=2.0)) == 2
    (track,) = track_points([one, none, one], reach=2.0, patience=1)
    assert track.frame.tolist() == [0, 2]
    far = one._replace(position=one.position + 5.0)
    assert len(track_points([one, far], reach=2.0)) == 2
    other = one._replace(charge=-one.charge)
    assert len(track_points([one, other], reach=2.0)) == 2


@pytest.mark.parametrize("method", ["delay", "hilbert"])
def test_spirals_are_found_in_voltages(sheet, method):
    """Action potentials with a fast upstroke, plateau and rest; not a cosine."""
    t = np.arange(0.0, 6 * PERIOD, 2.0)
    centres, charges = [(20.0, 25.0), (41.0, 33.0)], [1, -1]
    phase = spirals(sheet.points, centres, charges)[None] + 2 * np.pi * t[:, None] / PERIOD
    vm = -30.0 + 50.0 * np.tanh(1.5 * np.cos(phase) + 0.3 * np.sin(phase) + 0.2)
    found = phase_map(t, vm, method=method)
    inner = (found.t > PERIOD) & (found.t < 5 * PERIOD)
    for k in np.flatnonzero(inner)[::12]:
        matched(singular_points(sheet, found.phase[k]), centres, charges, mean_edge(sheet))


def test_phase_grows_and_is_nought_at_the_peak():
    t = np.arange(0.0, 600.0, 1.0)
    vm = -40.0 + 40.0 * np.cos(2 * np.pi * (t[:, None] - [0.0, 35.0]) / 100.0)
    vm = np.column_stack([vm, np.full(len(t), -80.0)])  # and one that rests
    for method in ("delay", "hilbert"):
        found = phase_map(t, vm, method=method)
        expected = 2 * np.pi * (found.t[:, None] - [0.0, 35.0]) / 100.0
        np.testing.assert_allclose(
            np.exp(1j * found.phase[:, :2]), np.exp(1j * expected), atol=0.01
        )
        assert np.isnan(found.phase[:, 2]).all()


def test_a_scroll_wave_has_a_filament_from_surface_to_surface():
    mesh = slab((16.0, 16.0, 10.0), 1.0)
    for charge in (1, -1):
        z = mesh.points[:, 2]
        axis = np.column_stack([8.3 + 0.3 * z, 7.6 + 0 * z])  # leaning
        phase = charge * np.arctan2(mesh.points[:, 1] - axis[:, 1], mesh.points[:, 0] - axis[:, 0])
        (line,) = filaments(mesh, phase + 2 * np.pi * z / 40)  # and twisted
        assert not line.closed
        ends = line.position[[0, -1], 2]
        # along its direction from bottom to top, where phase grows counterclockwise seen from there
        np.testing.assert_allclose(ends, [0.0, 10.0] if charge == 1 else [10.0, 0.0], atol=1e-9)
        away = line.position[:, :2] - np.column_stack(
            [8.3 + 0.3 * line.position[:, 2], 7.6 + 0 * line.position[:, 2]]
        )
        assert np.linalg.norm(away, axis=1).max() < mean_edge(mesh)
        assert line.length == pytest.approx(np.hypot(10.0, 3.0), rel=0.1)


def ring(mesh, centre, radius):
    x, y, z = (mesh.points - centre).T
    return np.arctan2(z, np.hypot(x, y) - radius)


def test_a_ring_is_closed_and_is_followed_as_it_shrinks():
    mesh = slab((24.0, 24.0, 8.0), 1.0)
    frames = []
    for radius in (8.4, 7.7, 7.0, 6.3):
        (line,) = filaments(mesh, ring(mesh, [12.2, 11.8, 4.1], radius))
        assert line.closed
        assert line.length == pytest.approx(2 * np.pi * radius, rel=0.1)
        frames.append([line])
    (track,) = track_filaments(frames, reach=1.5)
    assert track.frame.tolist() == [0, 1, 2, 3]
    assert len(track_filaments(frames, reach=0.2)) == 4


def test_filaments_of_any_phase_end_at_the_surface_or_nowhere():
    """As many turns leave a tetrahedron as enter it, also where the phase is noise."""
    mesh = slab((5.0, 5.0, 4.0), 1.0)
    order = np.random.default_rng(6).permutation(mesh.n_tets)
    outer = np.zeros(mesh.n_nodes, dtype=bool)
    outer[boundary_triangles(mesh.tets)] = True
    rng = np.random.default_rng(7)
    low, high = mesh.points.min(axis=0), mesh.points.max(axis=0)
    for _ in range(5):
        phase = rng.uniform(-np.pi, np.pi, mesh.n_nodes)
        lines = filaments(mesh, phase)
        assert len(lines) > 3
        for line in lines:
            if not line.closed:
                ends = line.position[[0, -1]]
                to_side = np.minimum(np.abs(ends - low), np.abs(ends - high)).min(axis=1)
                np.testing.assert_allclose(to_side, 0.0, atol=1e-9)
        shuffled = filaments(TetMesh(mesh.points, mesh.tets[order]), phase)
        assert sum(x.length for x in shuffled) == pytest.approx(sum(x.length for x in lines))


@pytest.mark.parametrize(
    ("t", "vm", "options", "said"),
    [
        (np.arange(3.0), np.zeros((3, 1)), {}, "at least 4"),
        (np.array([0.0, 1, 2, 4]), np.zeros((4, 1)), {}, "not evenly spaced"),
        (np.arange(5.0), np.full((5, 1), np.nan), {}, "not finite"),
        (np.arange(5.0), np.zeros((5, 1)), {"delay": 9.0}, "the delay is 9 ms"),
        (np.arange(5.0), np.zeros((5, 1)), {"delay": np.nan}, "the delay is nan ms"),
    ],
)
def test_recordings_that_have_no_phase_are_refused(t, vm, options, said):
    with pytest.raises(InputError, match=said):
        phase_map(t, vm, **options)
