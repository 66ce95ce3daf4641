"""Circuits of known ways, dominant frequencies and wave breaks of known waves."""

import numpy as np
import pytest
from test_circuits import FAST, SLOW, core, plate

from twinheart.errors import InputError
from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.generate import slab
from twinheart.mesh.quality import boundary_triangles
from twinheart.planning import (
    PhaseMap,
    activation_circuit,
    dominant_frequency,
    phase_map,
    wave_breaks,
)
from twinheart.tissue import Sites, Train, WaveTable, eikonal_train


def unmeasured(lat: np.ndarray) -> Train:
    return Train(lat, np.full_like(lat, np.nan), np.full_like(lat, np.nan), "successful")


def turning(up: bool):
    """A wave that turns through a channel of 4 x 16 mm in 20 x 16 mm of core; with its mesh."""
    problem, mesh = plate(core([(0.0, 2.0)]))
    x, y, _ = (mesh.points - [16.0, 14.0, 0.0]).T
    behind = -y if up else y
    wait = np.where((np.abs(x) < 2.5) & (behind > 0.5) & (behind < 3.0), 20.0, -np.inf)
    train = eikonal_train(
        problem, Sites([[16.0, 14.0, 1.0]], 0.0, 0.6), WaveTable([10.0], [1.0], [70.0]),
        t_end=1200.0, repolarised=wait,
    )  # fmt: skip
    return mesh, train


@pytest.fixture(scope="module")
def eight():
    return turning(up=False)


def test_the_circuit_of_a_figure_of_eight_is_that_of_theory(eight):
    """16 mm in the channel, 8 + 16 + 8 mm around; the wave leaves the channel below."""
    mesh, train = eight
    assert train.count.max() > 5
    found = activation_circuit(mesh, train)
    assert found is not None
    cycle = 16 / SLOW + 32 / FAST
    assert found.cycle_length_ms == pytest.approx(cycle, rel=0.02)
    assert found.length_mm == pytest.approx(48.0, abs=4.0)
    assert (np.diff(found.lat) > 0).all()
    for place, y in ((found.exit_mm, 6.0), (found.entrance_mm, 22.0)):
        assert place is not None
        assert abs(place[0] - 16) <= 3.0
        assert abs(place[1] - y) <= 1.0
    inside = found.path[found.isthmus]
    assert (np.abs(inside[:, 0] - 16) <= 2).all()
    assert np.ptp(inside[:, 1]) == pytest.approx(14.0, abs=1.0)


def test_the_other_way_round_exit_and_entrance_are_exchanged(eight):
    there, found = activation_circuit(*eight), activation_circuit(*turning(up=True))
    assert there is not None
    assert found is not None
    assert found.exit_mm is not None
    assert found.exit_mm[1] == pytest.approx(22.0, abs=1.0)
    assert found.entrance_mm is not None
    assert found.entrance_mm[1] == pytest.approx(6.0, abs=1.0)
    assert found.cycle_length_ms == pytest.approx(there.cycle_length_ms, rel=1e-3)


def winding(path: np.ndarray, centre) -> float:
    """How often a closed way goes around a place."""
    x, y, _ = (path - [*centre, 0.0]).T
    turn = np.diff(np.arctan2(y, x), append=np.arctan2(y[0], x[0]))
    return float(np.angle(np.exp(1j * turn)).sum() / (2 * np.pi))


def assert_one_turn(found, lat, centre):
    """Once around, in the time after which the first node fires again."""
    assert abs(winding(found.path, centre)) == pytest.approx(1.0)
    assert (np.diff(found.lat) > 0).all()
    start, end = found.lat[0], found.lat[0] + found.cycle_length_ms
    assert found.lat[-1] < end
    own = lat[found.nodes[0]]
    assert own[own > start].min() == pytest.approx(end)
    gap = np.linalg.norm(found.path[0] - found.path[-1])
    assert gap < 0.1 * found.length_mm


def two_strands(columns: int = 48, period: float = 200.0):
    """A ring in which waves run along two strands, two edges apart, around each other.

    With half a twist in a turn each strand goes on as the other: every node fires once in a turn,
    but a way comes back to its own first node only after two.
    """
    mesh = slab((columns, 2.0, 2.0), 1.0)
    column, y, z = mesh.points.T
    angle, radius = 2 * np.pi * column / columns, columns / (2 * np.pi) + y
    places = np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)
    points, first, same = np.unique(places.round(9), axis=0, return_index=True, return_inverse=True)
    row_of = {tuple(place): row for row, place in enumerate(mesh.points[first].tolist())}
    around = [(0.0, 0.0), (1, 0), (2, 0), (2, 1), (2, 2), (1, 2), (0, 2), (0, 1)]
    steps = []  # one place beside the last, twice along the ring and once around its section
    for c in range(2 * columns):
        steps.append((float(c % columns), *around[8 * c // (2 * columns)]))
        if 8 * (c + 1) // (2 * columns) > 8 * c // (2 * columns):
            steps.append((float(c % columns), *around[8 * (c + 1) // (2 * columns) % 8]))
    lat = np.full((len(points), 6), np.nan)
    moments = period * (np.arange(len(steps)) / (len(steps) / 2) % 1)
    rows = [row_of[step] for step in steps]
    assert len(set(rows)) == len(rows)
    lat[rows] = moments[:, None] + period * np.arange(6)
    return TetMesh(points, same.ravel()[mesh.tets]), lat


def test_two_turns_beside_each_other_are_not_taken_for_one():
    mesh, lat = two_strands()
    found = activation_circuit(mesh, unmeasured(lat))
    assert found is not None
    assert_one_turn(found, lat, (0.0, 0.0))
    assert found.cycle_length_ms == pytest.approx(200.0)
    assert found.length_mm == pytest.approx(2 * np.pi * (48 / (2 * np.pi) + 1.0), rel=0.15)


def drifting(slip: float, turns: int = 4, period: float = 200.0):
    """A wave that turns around a place which moves along x; a hole where that place goes."""
    size = (40.0, 30.0, 1.0)
    mesh = slab(size, 1.0)
    middle = np.array(size)[:2] / 2
    x, y = (mesh.points[:, :2] - middle).T
    start = np.arctan2(y, x) % (2 * np.pi)
    lat = period * (start[:, None] / (2 * np.pi) + np.arange(turns))
    plain = lat.copy()
    for _ in range(60):
        moved = slip * (lat / period - turns / 2)
        change = np.arctan2(y[:, None], x[:, None] - moved) - start[:, None]
        change = np.angle(np.exp(1j * change))
        lat = 0.5 * (lat + plain + period * change / (2 * np.pi))
    x, y = (mesh.points[mesh.tets].mean(axis=1)[:, :2] - middle).T
    return mesh, lat, np.hypot(x, y) > slip * turns / 2 + 2.0, middle


@pytest.mark.parametrize("slip", [0.0, 1.0, 2.0])
def test_a_wave_that_drifts_by_two_edges_in_a_turn_has_one_turn(slip):
    mesh, lat, conducts, middle = drifting(slip)
    found = activation_circuit(mesh, unmeasured(lat), conducts=conducts)
    assert found is not None
    assert_one_turn(found, lat, middle)
    assert found.cycle_length_ms == pytest.approx(200.0, rel=0.1)


def test_a_focus_has_no_circuit():
    problem, mesh = plate(core([]))
    pulses = [Sites([[16.0, 2.0, 1.0]], 200.0 * k) for k in range(4)]
    train = eikonal_train(problem, pulses, WaveTable([10.0], [1.0], [70.0]), t_end=800.0)
    assert activation_circuit(mesh, train) is None
    nothing = unmeasured(np.full((mesh.n_nodes, 1), np.nan))
    assert activation_circuit(mesh, nothing) is None


def test_wrong_shapes_are_refused(eight):
    mesh, train = eight
    with pytest.raises(InputError, match="conducting tissue"):
        activation_circuit(mesh, train, conducts=np.ones(3, dtype=bool))
    with pytest.raises(InputError, match="fixed interval"):
        dominant_frequency(np.array([0.0, 1.0, 3.0, 4.0]), np.zeros((4, 2)))


def test_places_driven_at_their_own_rate_have_it_as_dominant_frequency():
    """Half a hertz apart, within what a second of recording resolves."""
    t = np.arange(0.0, 2000.0, 5.0)
    rates = np.array([3.0, 4.7, 8.2])
    vm = -40.0 + 50.0 * np.sign(np.sin(2 * np.pi * rates * t[:, None] / 1000.0) - 0.5)
    vm = np.concatenate([vm, np.full((len(t), 1), -85.0)], axis=1)
    found = dominant_frequency(t, vm)
    np.testing.assert_allclose(found[:3], rates, atol=0.1)
    assert np.isnan(found[3])


def spirals(centres, born):
    """Rotating waves on a square, each from its own time on; before, all is in phase."""
    mesh = slab((30.0, 30.0, 1.0), 1.0)
    top = np.flatnonzero(mesh.points[:, 2] > 0.5)
    faces = boundary_triangles(mesh.tets)  # seen from outside, so from above
    faces = np.searchsorted(top, faces[np.isin(faces, top).all(axis=1)])
    points = mesh.points[top]
    t = np.arange(0.0, 400.0, 10.0)
    phase = np.zeros((len(t), len(points)))
    for (cx, cy, charge), start in zip(centres, born, strict=True):
        own = charge * np.arctan2(points[:, 1] - cy, points[:, 0] - cx)
        phase += np.where(t[:, None] >= start, own, 0.0)
    phase += 2 * np.pi * t[:, None] / 150.0
    return TriMesh(points, faces), PhaseMap(t, np.angle(np.exp(1j * phase)))


def test_wave_breaks_are_the_singularities_that_come_up():
    mesh, phase = spirals([(10.3, 10.4, 1), (20.3, 20.4, -1)], (-1.0, 150.0))
    found = wave_breaks(mesh, phase)
    assert found.at_once.tolist() == [1] * 15 + [2] * 25
    assert found.born == 1
    assert found.longest_ms == 390.0
    quiet = wave_breaks(*spirals([], ()))
    assert (quiet.born, quiet.at_once.max(), quiet.longest_ms) == (0, 0, 0.0)


def test_wave_breaks_of_a_voltage_are_those_of_its_phase():
    """From phase to voltage and back by the delay: two spirals that are there from the start."""
    mesh, phase = spirals([(10.3, 10.4, 1), (20.3, 20.4, -1)], (-1.0, -1.0))
    vm = -40.0 + 40.0 * np.cos(phase.phase)
    found = wave_breaks(mesh, phase_map(phase.t, vm, centre=-40.0))
    assert np.median(found.at_once) == 2
    assert found.born == 0
