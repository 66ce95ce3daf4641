"""Screening for circuits: cycle, area and exit by theory, what sustains none, invariance."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from twinheart.anatomy import Heart, add_coordinates, demo_heart, mesh_of_heart
from twinheart.errors import InputError
from twinheart.imaging.enhancement import BORDER, CORE
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import slab
from twinheart.planning import (
    Area,
    Channel,
    PacingSite,
    Protocol,
    ScarPlan,
    Stage,
    aha_sites,
    induce_sites,
    merge_events,
    paint_scar,
    place_sites,
    screen_circuits,
)
from twinheart.planning.circuits.search import possible_circuits
from twinheart.planning.circuits.sections import least_section, section
from twinheart.tissue import NonConducting, Velocities, WaveTable, build_eikonal

FAST, SLOW = 0.5, 0.2  # m/s
THICK = 2.0
TISSUES = {0: Velocities(FAST, FAST), 1: Velocities(SLOW, SLOW), 2: NonConducting()}


def plate(shape, size=(32.0, 28.0), edge=1.0, tissues=TISSUES):
    """A plate with scar by the place of each tetrahedron from the middle."""
    mesh = slab((*size, THICK), edge)
    x, y, _ = (mesh.points[mesh.tets].mean(axis=1) - [size[0] / 2, size[1] / 2, 0]).T
    return with_tissues(mesh, shape(x, y).astype(np.int32), tissues)


def with_tissues(mesh, scar, tissues=TISSUES):
    mesh = TetMesh(mesh.points, mesh.tets, mesh.point_fields, {"scar": scar})
    return build_eikonal(Heart(mesh, regions=scar), tissues), mesh


def core(channels, half=(10.0, 8.0), rim=0.0):
    """A rectangle of core with a rim, and channels along y given by middle and half a width."""

    def shape(x, y):
        x, y = x, np.abs(y)
        inside = (np.abs(x) < half[0]) & (y < half[1])
        around = (np.abs(x) < half[0] + rim) & (y < half[1] + rim)
        through = np.zeros(len(x), dtype=bool)
        for middle, width in channels:
            through |= np.abs(x - middle) < width
        return np.where(inside, np.where(through, BORDER, CORE), np.where(around, BORDER, 0))

    return shape


def below(mesh, *more):
    """Sites at the middle of the lower edge, and elsewhere."""
    middle = mesh.points.max(axis=0) / 2
    places = [[middle[0], 2.0, 1.0], *more]
    return [PacingSite(str(k), tuple(map(float, p)), (0.0, 0.0, 0.0)) for k, p in enumerate(places)]


@pytest.fixture(scope="module")
def eight():
    """A channel of 4 x 16 mm through 20 x 16 mm of core."""
    return plate(core([(0.0, 2.0)]))


@pytest.mark.parametrize("edge", [1.0, 0.5])
def test_a_figure_of_eight_has_the_cycle_the_area_and_the_exit_of_theory(eight, edge):
    """A channel of 4 x 16 mm through 20 x 16 mm of core: 16 mm in it, 8 + 16 + 8 mm around.

    All ways are straight along edges of this mesh, so the time is exact.
    """
    problem, mesh = eight if edge == 1.0 else plate(core([(0.0, 2.0)]), edge=edge)
    (circuit,) = screen_circuits(problem, mesh, below(mesh), 100.0)
    assert circuit.cycle_length_ms == pytest.approx(16 / SLOW + 32 / FAST, rel=1e-4)
    assert circuit.refractory_ms == 100.0
    assert circuit.isthmus_area_mm2 == pytest.approx(4 * THICK, rel=1e-6)
    np.testing.assert_allclose(circuit.isthmus_mm, [16.0, 14.0, THICK / 2], atol=edge)
    # out of the mouth that was reached first, the lower one, at either of its corners
    for place, y in ((circuit.exit_mm, 6.0), (circuit.entrance_mm, 22.0)):
        assert abs(abs(place[0] - 16) - 2) <= edge
        assert abs(place[1] - y) <= edge
    assert set(mesh.cell_fields["scar"][circuit.isthmus_tets]) == {BORDER}
    # the way begins and ends at the cut and goes round one half of the core
    assert np.abs(circuit.path[[0, -1], 1] - 14).max() <= edge
    assert np.abs(circuit.path[:, 0] - 16).max() == pytest.approx(10, abs=edge)
    steps = np.linalg.norm(np.diff(circuit.path, axis=0), axis=1)
    assert steps.max() <= edge * 3**0.5 * (1 + 1e-9)
    assert steps.sum() == pytest.approx(48, abs=2 * edge)


def test_along_and_across_fibres_the_wave_has_the_velocity_of_each(eight):
    tissues = {0: Velocities(FAST, FAST / 2), 1: Velocities(SLOW, SLOW / 2), 2: NonConducting()}
    _, mesh = eight
    fibres = np.tile([0.0, 1.0, 0.0], (mesh.n_tets, 1))
    scar = mesh.cell_fields["scar"]
    problem = build_eikonal(Heart(mesh, f0=fibres, regions=scar), tissues)
    (circuit,) = screen_circuits(problem, mesh, below(mesh, [2.0, 14.0, 1.0]), 100.0)
    cycle = 16 / SLOW + 16 / FAST + 2 * 8 / (FAST / 2)
    assert circuit.cycle_length_ms == pytest.approx(cycle, rel=1e-4)


@pytest.mark.parametrize(("edge", "error"), [(1.0, 0.06), (0.5, 0.03)])
def test_around_a_round_core_the_cycle_is_chord_and_arc(edge, error):
    """A disc of 10 mm with an oblique channel: no way follows the mesh.

    The arrival itself is late around a round obstacle: alone, by 5.4 and 4.0 %.
    """
    radius, width, turn = 10.0, 2.0, np.radians(25)

    def disc(x, y):
        across = np.abs(x * np.cos(turn) + y * np.sin(turn))
        return np.where(x**2 + y**2 < radius**2, np.where(across < width, BORDER, CORE), 0)

    problem, mesh = plate(disc, (30.0, 30.0), edge)
    middle = np.array([15.0, 15.0, 1.0])
    along = np.array([-np.sin(turn), np.cos(turn), 0.0])
    sites = below(mesh, middle - 13 * along)[1:]
    (circuit,) = screen_circuits(problem, mesh, sites, 90.0)
    chord = 2 * np.sqrt(radius**2 - width**2)
    cycle = chord / SLOW + 2 * radius * np.arccos(width / radius) / FAST
    assert circuit.cycle_length_ms == pytest.approx(cycle, rel=error)
    # the wall is made of whole tetrahedra: each side of the channel moves by a part of an edge
    assert circuit.isthmus_area_mm2 == pytest.approx(2 * width * THICK, abs=1.5 * edge * THICK)
    corners = [middle - chord / 2 * along + s * width * np.cross(along, [0, 0, 1]) for s in (1, -1)]
    off = min(np.linalg.norm((circuit.exit_mm - corner)[:2]) for corner in corners)
    assert off <= 2 * edge


@pytest.mark.parametrize("turn", [10.0, 35.0, 60.0])
def test_proposals_at_many_depths_are_one_circuit(turn):
    """An oblique channel through a round core with a rim: every depth proposes a cut of its own."""
    turn = np.radians(turn)

    def disc(x, y):
        across = np.abs(x * np.cos(turn) + y * np.sin(turn))
        scar = np.where(np.hypot(x, y) < 10.5, BORDER, 0)
        return np.where((np.hypot(x, y) < 9) & (across > 2), CORE, scar)

    problem, mesh = plate(disc, (30.0, 30.0))
    sites = below(mesh, [2.0, 15.0, 1.0], [28.0, 15.0, 1.0], [15.0, 28.0, 1.0])
    (circuit,) = screen_circuits(problem, mesh, sites, 90.0)
    assert circuit.cycle_length_ms > 2 * 9 / SLOW


def test_through_a_slow_rim_the_way_is_refracted():
    """A rim of 3 mm: the wave crosses it at the critical angle, then runs along its outside."""
    rim = 3.0
    problem, mesh = plate(core([(0.0, 2.0)], rim=rim), (40.0, 36.0))
    (circuit,) = screen_circuits(problem, mesh, below(mesh, [2.0, 18.0, 1.0]), 100.0)
    crossing = rim * np.sqrt(1 - (SLOW / FAST) ** 2) / SLOW
    cycle = 16 / SLOW + 2 * crossing + (2 * (8 + rim) + 16 + 2 * rim) / FAST
    assert circuit.cycle_length_ms == pytest.approx(cycle, rel=0.01)
    assert circuit.isthmus_area_mm2 == pytest.approx(4 * THICK, rel=1e-6)
    for place, y in ((circuit.exit_mm, 29.0), (circuit.entrance_mm, 7.0)):
        sideways = 2 + rim * np.tan(np.arcsin(SLOW / FAST))
        assert abs(abs(place[0] - 20) - sideways) <= 2.0
        assert abs(place[1] - y) <= 1.0


@pytest.mark.parametrize("refractory", [143.0, 145.0])
def test_a_circuit_is_sustained_exactly_if_it_takes_longer_than_refractoriness(eight, refractory):
    problem, mesh = eight
    found = screen_circuits(problem, mesh, below(mesh), refractory)
    assert len(found) == (refractory < 144.0)
    # only what lies on the way counts: the lower edge of the plate does not
    period = np.where(mesh.points[:, 1] < 3, 400.0, 100.0)
    (circuit,) = screen_circuits(problem, mesh, below(mesh), period)
    assert circuit.refractory_ms == 100.0
    period[np.abs(mesh.points[:, 1] - 14) < 4] = refractory
    assert len(screen_circuits(problem, mesh, below(mesh), period)) == (refractory < 144.0)
    (possible,) = possible_circuits(problem, mesh, below(mesh), period)  # told of either way
    assert possible.sustained == (refractory < 144.0)
    assert possible.cycle_length_ms == pytest.approx(144.0, rel=1e-4)
    assert possible.refractory_ms == refractory


@pytest.mark.parametrize(
    "shape",
    [
        core([]),
        core([], rim=4.0),  # a rim alone
        lambda x, y: np.where((np.abs(x) < 10) & (np.abs(y) < 8), BORDER, 0),  # no core
        # a bay: closed at its upper end
        lambda x, y: np.where((np.abs(x) < 2) & (y > 3), CORE, core([(0.0, 2.0)])(x, y)),
    ],
)
def test_without_a_channel_there_is_no_circuit(shape):
    problem, mesh = plate(shape)
    assert screen_circuits(problem, mesh, below(mesh, [2.0, 14.0, 1.0]), 60.0) == []


def test_two_channels_far_apart_give_two_circuits():
    """At 10 mm from the ends each is quicker around its end than through the other."""
    problem, mesh = plate(core([(-10.0, 2.0), (10.0, 2.0)], (20.0, 8.0)), (52.0, 28.0))
    found = screen_circuits(problem, mesh, below(mesh), 100.0)
    assert len(found) == 2
    for circuit in found:
        assert circuit.cycle_length_ms == pytest.approx(16 / SLOW + 32 / FAST, rel=1e-4)
    assert sorted(round(c.isthmus_mm[0]) for c in found) == [16, 36]


def test_two_channels_close_by_are_one_circuit_through_both():
    """4 mm of core between them, 20 mm beside them: the way back leads through the other."""
    problem, mesh = plate(core([(-4.0, 2.0), (4.0, 2.0)], (26.0, 8.0)), (64.0, 28.0))
    # from the left both mouths of a channel are equally far: from below the wave runs through
    assert screen_circuits(problem, mesh, below(mesh), 100.0) == []
    sites = below(mesh, [2.0, 14.0, 1.0])
    (circuit,) = screen_circuits(problem, mesh, sites, 100.0)
    assert circuit.sites == (1,)
    assert circuit.cycle_length_ms == pytest.approx(2 * 16 / SLOW + 2 * 4 / FAST, rel=1e-4)
    # too quick for the refractory period, though the way around the scar would not be
    assert screen_circuits(problem, mesh, sites, 180.0) == []


def test_the_section_is_that_of_the_waist():
    """6 mm wide, and 3 mm from 3 to 5 mm above the middle; the rim gives proposals at many depths.

    In the widening level sets are curved, so none is quite as small as the waist is wide.
    """

    def waist(x, y):
        scar = core([(0.0, 3.0)], rim=2.0)(x, y)
        return np.where((np.abs(y - 4) < 1) & (np.abs(x) > 1.5) & (np.abs(x) < 5), CORE, scar)

    problem, mesh = plate(waist, (32.0, 28.0), edge=0.5)
    sites = below(mesh, [2.0, 14.0, 1.0], [16.0, 26.0, 1.0])
    (circuit,) = screen_circuits(problem, mesh, sites, 100.0)
    assert circuit.isthmus_area_mm2 == pytest.approx(3 * THICK, rel=0.1)
    np.testing.assert_allclose(circuit.isthmus_mm, [16.0, 18.0, 1.0], atol=1.0)
    centre = mesh.points[mesh.tets[circuit.isthmus_tets]].mean(axis=1)
    assert np.ptp(centre[:, 1]) > 14  # the isthmus is the channel, not its deepest part


@pytest.mark.parametrize("rim", [1.0, 4.0])
def test_a_rim_that_joins_the_channels_does_not_hide_them(rim):
    problem, mesh = plate(core([(-10.0, 2.0), (10.0, 2.0)], (20.0, 8.0), rim), (64.0, 36.0))
    found = screen_circuits(problem, mesh, below(mesh, [2.0, 18.0, 1.0], [62.0, 18.0, 1.0]), 100.0)
    crossing = rim * np.sqrt(1 - (SLOW / FAST) ** 2) / SLOW
    cycle = 16 / SLOW + 2 * crossing + (2 * (8 + rim) + 16 + 2 * rim) / FAST
    assert len(found) == 2
    for circuit in found:
        assert circuit.cycle_length_ms == pytest.approx(cycle, rel=0.015)
        assert circuit.isthmus_area_mm2 == pytest.approx(4 * THICK, rel=1e-6)
    assert sorted(round(c.isthmus_mm[0]) for c in found) == [22, 42]


def test_a_forked_channel_has_a_circuit_for_each_arm():
    """A cross-channel at the height of 14 mm joins the upright one from the right end."""

    def fork(x, y):
        scar = core([(-5.0, 2.0)], (16.0, 8.0))(x, y)
        return np.where((np.abs(y) < 2) & (x > -5) & (x < 16), BORDER, scar)

    problem, mesh = plate(fork, (44.0, 28.0))
    sites = below(mesh, [2.0, 14.0, 1.0], [42.0, 14.0, 1.0], [22.0, 26.0, 1.0])
    found = screen_circuits(problem, mesh, sites, 100.0)
    left = 16 / SLOW + (2 * 9 + 16) / FAST  # up the upright one, back around the left end
    assert found[0].cycle_length_ms == pytest.approx(left, rel=1e-3)
    assert len(found) > 1
    assert all(c.cycle_length_ms > 100.0 for c in found)


def test_screening_and_induction_agree(eight):
    """A late patch at the lower mouth blocks an early stimulus, which comes back from above."""
    scar_problem, mesh = eight
    scar = mesh.cell_fields["scar"]
    patch = (scar == BORDER) & (mesh.points[mesh.tets].mean(axis=1)[:, 1] < 9)
    tags = np.where(patch, 3, scar)
    problem = build_eikonal(Heart(mesh, regions=tags), TISSUES | {3: TISSUES[1]})
    tables = {k: WaveTable([20.0], [1.0], [80.0]) for k in (0, 2)}
    tables |= {1: WaveTable([20.0], [1.0], [80.0]), 3: WaveTable([20.0], [1.0], [110.0])}
    site = below(mesh)[0]
    (induced,) = induce_sites(
        problem, tables, [site], Protocol("S1 S2", 2, 600.0, (Stage(200.0, 5.0, 100.0),))
    )
    assert induced.outcome == "induced"
    period = np.full(mesh.n_nodes, 100.0)
    period[mesh.tets[patch]] = 130.0
    (screened,) = screen_circuits(scar_problem, mesh, [site], period)
    assert screened.refractory_ms == 130.0
    assert induced.cycle_length == pytest.approx(screened.cycle_length_ms, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "expected"), [([], 0), ([(0.22, 0.55)], 0), ([(0.22, 0.95), (0.38, 0.95)], 2)]
)
def test_in_a_heart_each_channel_from_end_to_end_has_a_circuit(channels, expected):
    """A round core with its rim, without a channel, with one that ends within it, and with two."""
    mesh = add_coordinates(mesh_of_heart(demo_heart()))
    paths = [Channel(path=[(0.05, rt), (to, rt)], width=6.0) for rt, to in channels]
    plan = ScarPlan([Area(at=(0.55, 0.3), radius=24.0, rim=3.0)], channels=paths)
    problem, mesh = with_tissues(mesh, paint_scar(mesh, plan).astype(np.int32))
    sites = aha_sites(mesh, problem, furthest=30.0)[::3]
    found = screen_circuits(problem, mesh, sites, 150.0)
    assert len(found) == expected
    for circuit in found:
        assert 40.0 / SLOW < circuit.cycle_length_ms < 450.0
        assert 6.0 * 6.0 < circuit.isthmus_area_mm2 < 6.0 * 12.0  # width x wall
        # out at one end of the core and in at the other
        assert np.linalg.norm(circuit.exit_mm - circuit.entrance_mm) > 30.0


def test_the_exit_is_where_the_first_wave_came_first(eight):
    problem, mesh = eight
    upper = PacingSite("above", (16.0, 26.0, 1.0), (16.0, 26.0, 1.0))
    lower = below(mesh)
    (up,) = screen_circuits(problem, mesh, [upper, *lower], 100.0)
    (down,) = screen_circuits(problem, mesh, [*lower, upper], 100.0)
    assert up.sites == down.sites == (0, 1)
    assert (up.exit_mm[1], down.exit_mm[1]) == (22.0, 6.0)
    assert up.cycle_length_ms == pytest.approx(down.cycle_length_ms, rel=1e-5)


def test_circuits_are_the_same_turned_and_renumbered():
    problem, mesh = plate(core([(1.0, 2.0)]))  # one way round is shorter
    (circuit,) = screen_circuits(problem, mesh, below(mesh), 100.0)
    turn = Rotation.from_rotvec([0.4, -1.1, 0.7]).as_matrix()
    shift = np.array([5.0, -3.0, 8.0])
    rng = np.random.default_rng(4)
    new, cells = rng.permutation(mesh.n_nodes), rng.permutation(mesh.n_tets)
    moved = mesh.points[np.argsort(new)] @ turn.T + shift
    other = TetMesh(moved, new[mesh.tets][cells].astype(np.int32))
    again, turned = with_tissues(other, mesh.cell_fields["scar"][cells])
    places = np.array([site.position for site in below(mesh)]) @ turn.T + shift
    (found,) = screen_circuits(again, turned, place_sites(again, places), 100.0)
    assert found.cycle_length_ms == pytest.approx(circuit.cycle_length_ms, rel=1e-4)
    assert found.isthmus_area_mm2 == pytest.approx(circuit.isthmus_area_mm2, rel=1e-5)
    np.testing.assert_array_equal(np.sort(cells[found.isthmus_tets]), np.sort(circuit.isthmus_tets))
    for name in ("exit_mm", "entrance_mm", "isthmus_mm"):
        back = (getattr(found, name) - shift) @ turn
        assert np.linalg.norm((back - getattr(circuit, name))[:2]) <= 1.0


def test_merges_are_those_of_brute_force():
    """Count the components of every sub-level set of random values on a random graph."""
    rng = np.random.default_rng(7)
    n = 60
    pairs = np.unique(np.sort(rng.integers(0, n, (90, 2)), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    times = rng.permutation(n).astype(float)
    events = {merge.node: 0 for merge in merge_events(times, pairs)}
    for merge in merge_events(times, pairs):
        events[merge.node] += 1
        assert times[merge.elder] < times[merge.younger] < times[merge.node]
    labels = np.full(n, -1)
    expected = {}
    for node in np.argsort(times):
        ends = pairs[(pairs == node).any(axis=1)]
        joined = set(labels[ends[ends != node]]) - {-1}
        labels[node] = node
        labels[np.isin(labels, list(joined))] = node
        if len(joined) > 1:
            expected[int(node)] = len(joined) - 1
    assert events == expected
    assert len(expected) > 5


def test_sections_have_the_area_of_the_solid():
    """Planes through a slab at any angle; the neck of a bottle."""
    mesh = slab((6.0, 3.0, 2.0), 0.5)
    normal = np.array([0.7, 0.5, 0.1])
    found = section(mesh, mesh.points @ normal, 2.9)
    assert found.area == pytest.approx(3 * 2 * np.linalg.norm(normal) / normal[0], rel=1e-9)
    np.testing.assert_allclose(found.centre @ normal, 2.9)
    x, y, z = mesh.points.T
    neck = 0.6 + ((x - 4.0) / 6) ** 2
    bottle = TetMesh(np.stack([x, y * neck, z * neck], axis=1), mesh.tets)
    least = least_section(bottle, x / 6)
    assert least.area == pytest.approx(3 * 2 * 0.36, rel=0.02)
    assert abs(least.centre[0] - 4.0) < 0.5
    assert section(mesh, x, -1.0).area == 0.0


def test_what_cannot_be_meant_is_refused(eight):
    problem, mesh = eight
    sites = below(mesh)
    bare = TetMesh(mesh.points, mesh.tets)
    living, _ = with_tissues(bare, mesh.cell_fields["scar"], Velocities(FAST, FAST))
    other = slab((4.0, 4.0, 2.0), 1.0)
    for wrong, message in (
        (lambda: screen_circuits(problem, bare, sites, 100.0), "the mesh has no scar"),
        (lambda: screen_circuits(living, mesh, sites, 100.0), "of the core conduct"),
        (lambda: screen_circuits(problem, mesh, [], 100.0), "no site to pace"),
        (lambda: screen_circuits(problem, mesh, sites, 0.0), "refractory periods"),
        (lambda: screen_circuits(problem, mesh, sites, np.ones(3)), "refractory periods"),
        (lambda: screen_circuits(problem, other, sites, 100.0), "give the mesh it was built of"),
    ):
        with pytest.raises(InputError, match=message):
            wrong()
