"""Strategies of ablation on plates: least cuts by brute force, volumes by geometry, constraints."""

from itertools import combinations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from test_circuits import THICK, below, core, plate, with_tissues

from twinheart.errors import InputError
from twinheart.imaging.enhancement import BORDER, CORE
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import slab
from twinheart.mesh.quality import components
from twinheart.planning import ablate_tissue, screen_circuits
from twinheart.planning.ablation.cuts import least_cut
from twinheart.planning.ablation.reach import Catheter, KeepAway, Reach
from twinheart.planning.ablation.strategies import STRATEGIES, propose

RADIUS = 3.0


def reach_of(mesh, catheter=None):
    scar = mesh.cell_fields["scar"]
    return Reach(mesh, scar != CORE, Catheter(RADIUS) if catheter is None else catheter)


def living_mm3(reach, lesions):
    burnt = ablate_tissue(reach.mesh, lesions).number > 0
    return reach.volume[burnt & reach.living].sum()


@pytest.fixture(scope="module")
def eight():
    """A channel of 4 x 16 mm through core, and its circuit."""
    problem, mesh = plate(core([(0.0, 2.0)]), (44.0, 40.0))
    return mesh, screen_circuits(problem, mesh, below(mesh), 100.0)


def separated(tets, kept, source, sink):
    label = components(tets[kept], int(tets.max()) + 1)
    return not np.isin(label[source], label[sink]).any()


def test_the_least_cut_is_that_of_brute_force():
    """All sets of up to 5 of 12 tetrahedra, for random costs, some of which are infinite."""
    mesh = slab((2.0, 1.0, 1.0), 1.0)
    source, sink = (np.flatnonzero(mesh.points[:, 0] == x)[:2] for x in (0, 2))
    rng = np.random.default_rng(0)
    possible = 0
    for _ in range(10):
        cost = rng.uniform(1, 2, mesh.n_tets)
        cost[rng.random(mesh.n_tets) < 0.2] = np.inf
        best = np.inf
        for size in range(6):
            for chosen in combinations(range(mesh.n_tets), size):
                kept = np.ones(mesh.n_tets, dtype=bool)
                kept[list(chosen)] = False
                total = cost[list(chosen)].sum()
                if total < best and separated(mesh.tets, kept, source, sink):
                    best = total
        found = least_cut(mesh.tets, cost, source, sink)
        if found is None:
            assert best == np.inf
            continue
        possible += 1
        kept = np.ones(mesh.n_tets, dtype=bool)
        kept[found] = False
        assert separated(mesh.tets, kept, source, sink)
        if best < np.inf:  # else it needs more than five
            assert cost[found].sum() == pytest.approx(best, rel=1e-6)
    assert 3 < possible < 10


@pytest.mark.parametrize(("half", "count"), [(1.5, {1}), (2.5, {1}), (6.0, {2, 3})])
def test_a_channel_is_closed_by_its_width_times_the_diameter_of_a_lesion(half, count):
    """Straight across; discs in a row burn up to a quarter less than the strip they lie in."""
    problem, mesh = plate(core([(0.0, half)], (12.0, 9.0)), (44.0, 40.0))
    (circuit,) = screen_circuits(problem, mesh, below(mesh), 100.0)
    reach = reach_of(mesh)
    found = propose("isthmus", reach, [circuit])
    assert len(found.lesions) in count
    assert found.notes == ()
    strip = 2 * half * THICK * 2 * RADIUS
    assert 0.7 * strip <= living_mm3(reach, found.lesions) <= 1.1 * strip
    # nothing passes any more from mouth to mouth within the channel
    channel = (mesh.cell_fields["scar"] == BORDER) & (
        ablate_tissue(mesh, found.lesions).number == 0
    )
    ends = [np.flatnonzero(mesh.points[:, 1] == y) for y in (11.0, 29.0)]
    inside = [end[np.abs(mesh.points[end, 0] - 22) <= half] for end in ends]
    assert separated(mesh.tets, channel, *inside)


def test_strategies_differ_as_they_should(eight):
    mesh, circuits = eight
    reach = reach_of(mesh)
    found = {name: propose(name, reach, circuits) for name in STRATEGIES}
    volume = {name: living_mm3(reach, proposal.lesions) for name, proposal in found.items()}
    assert volume["isthmus"] < volume["dechannelling"] < volume["homogenisation"]
    assert volume["homogenisation"] < volume["core-isolation"]
    burnt = {name: ablate_tissue(mesh, p.lesions).number > 0 for name, p in found.items()}
    border = mesh.cell_fields["scar"] == BORDER
    assert burnt["homogenisation"][border].all()
    assert len(found["dechannelling"].lesions) == 2  # one for each entrance
    # the exit is burnt, from the nearest place
    (exit_lesion,) = found["exit"].lesions
    assert np.linalg.norm((exit_lesion.points[0] - circuits[0].exit_mm)[:2]) <= 1.0
    # what touches the core has no way to the edge of the plate
    left = reach.living & ~burnt["core-isolation"]
    dense = mesh.cell_fields["scar"] == CORE
    within = np.intersect1d(mesh.tets[dense], mesh.tets[left])
    edge = np.flatnonzero(np.isin(mesh.points[:, 0], (0.0, 44.0)))
    assert within.size
    assert separated(mesh.tets, left, within, edge)
    for proposal in found.values():
        assert proposal.notes == ()


def test_without_circuits_or_scar_nothing_is_burnt():
    _, mesh = plate(lambda x, y: np.zeros(len(x)))
    for name in STRATEGIES:
        assert propose(name, reach_of(mesh), []).lesions == ()


def test_what_must_not_be_burnt_is_spared(eight):
    """A vessel across the middle of the channel: the cut is made elsewhere, or not at all."""
    mesh, circuits = eight
    vessel = np.stack([np.linspace(15, 29, 15), np.full(15, 20.0), np.full(15, 1.0)], axis=1)
    catheter = Catheter(RADIUS, keep_away=[KeepAway("a coronary artery", vessel, 3.0)])
    reach = reach_of(mesh, catheter)
    found = propose("isthmus", reach, circuits)
    burnt = ablate_tissue(mesh, found.lesions).number > 0
    assert burnt.any()
    assert np.abs(reach.centres[burnt, 1] - 20.0).min() >= 3.0
    assert found.notes == ()
    wide = Catheter(RADIUS, keep_away=[KeepAway("a coronary artery", vessel, 12.0)])
    blocked = propose("isthmus", reach_of(mesh, wide), circuits)
    assert blocked.lesions == ()
    assert "cannot close the isthmus of circuit 1" in blocked.notes[0]


def tagged(mesh):
    """A plate with endocardium below and epicardium above."""
    z = mesh.points[:, 2]
    classes = np.where(z == 0, 3, np.where(z == THICK, 2, 0)).astype(np.int32)
    return TetMesh(mesh.points, mesh.tets, {"surf_class": classes}, mesh.cell_fields)


@pytest.mark.parametrize(("access", "z"), [("endocardial", 0.0), ("epicardial", THICK)])
def test_the_catheter_lies_where_it_has_access(eight, access, z):
    mesh, circuits = eight
    reach = reach_of(tagged(mesh), Catheter(RADIUS, access=access))
    for name in STRATEGIES:
        for lesion in propose(name, reach, circuits).lesions:
            assert lesion.points[0, 2] == z


def test_shallow_lesions_need_both_sides(eight):
    """Lesions of 1.5 mm do not go through a wall of 2 mm from one side, and do from both."""
    mesh, circuits = eight
    one_side = reach_of(tagged(mesh), Catheter(RADIUS, 1.5, "endocardial"))
    found = propose("isthmus", one_side, circuits)
    assert found.lesions == ()
    assert found.notes
    both = propose("isthmus", reach_of(tagged(mesh), Catheter(RADIUS, 1.5)), circuits)
    assert both.notes == ()
    assert {lesion.points[0, 2] for lesion in both.lesions} == {0.0, THICK}


def test_plans_are_the_same_turned(eight):
    """On an uneven mesh: on an even one, places are equally near and tetrahedra on the edge."""
    mesh, _ = eight
    points = mesh.points + np.random.default_rng(5).uniform(-0.2, 0.2, mesh.points.shape)
    problem, mesh = with_tissues(TetMesh(points, mesh.tets), mesh.cell_fields["scar"])
    circuits = screen_circuits(problem, mesh, below(mesh), 100.0)
    assert len(circuits) == 1
    turn = Rotation.from_rotvec([0.4, -1.1, 0.7]).as_matrix()
    shift = np.array([5.0, -3.0, 8.0])
    moved = TetMesh(mesh.points @ turn.T + shift, mesh.tets, {}, mesh.cell_fields)
    again = [
        c._replace(exit_mm=turn @ c.exit_mm + shift, path=c.path @ turn.T + shift) for c in circuits
    ]
    reach, other = reach_of(mesh), reach_of(moved)
    for name in STRATEGIES:
        volume = living_mm3(reach, propose(name, reach, circuits).lesions)
        turned = living_mm3(other, propose(name, other, again).lesions)
        assert turned == pytest.approx(volume, rel=1e-6)


def test_a_target_is_covered_by_few_lesions():
    mesh = slab((40.0, 20.0, 2.0), 1.0)
    reach = Reach(mesh, np.ones(mesh.n_tets, dtype=bool), Catheter(4.0))
    line = np.abs(reach.centres[:, 0] - 20.5) < 0.5
    found = reach.cover(line)
    assert not found.missed.any()
    burnt = ablate_tissue(mesh, found.lesions).number > 0
    assert burnt[line].all()
    # 20 mm by discs of 8 mm; by far not the whole plate
    assert len(found.lesions) in (3, 4)
    assert reach.volume[burnt].sum() < 20 * 8 * 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda mesh: Catheter(-1.0), "radius of -1.0 mm"),
        (lambda mesh: Catheter(3.0, 0.0), "depth of 0.0 mm"),
        (lambda mesh: Catheter(3.0, access="inside"), "access is 'inside'"),
        (lambda mesh: KeepAway("nerve", [[0, 0]], 3.0), "nerve to keep away from"),
        (lambda mesh: KeepAway("nerve", [[0, 0, 0]], np.inf), "distance to keep from nerve"),
        (lambda mesh: reach_of(mesh, Catheter(3.0, access="epicardial")), "surfaces are tagged"),
        (lambda mesh: propose("pvi", reach_of(mesh), []), "unknown strategy 'pvi'"),
    ],
)
def test_what_cannot_be_meant_is_refused(eight, wrong, said):
    with pytest.raises(InputError, match=said):
        wrong(eight[0])
