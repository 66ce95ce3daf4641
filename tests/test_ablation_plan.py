"""The search for lesions on plates: none left, none new, as many as needed, gaps, induction."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from test_circuits import FAST, SLOW, THICK, below, core

from twinheart.anatomy import Heart
from twinheart.anatomy.scar import with_scar
from twinheart.errors import InputError
from twinheart.imaging.enhancement import BORDER, CORE
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import slab
from twinheart.planning import Lesion, Morphology, Protocol, Stage, place_sites
from twinheart.planning.ablation.lesions import LESION_TAG
from twinheart.planning.ablation.operation import Operation
from twinheart.planning.ablation.plan import (
    INDUCED_NOT_CLOSABLE,
    NONE_LEFT,
    NOT_CLOSABLE,
    NOTHING_TO_DO,
    plan_ablation,
)
from twinheart.planning.ablation.reach import Catheter, KeepAway
from twinheart.planning.ablation.stimulation import stimulation_test
from twinheart.planning.ablation.strategies import STRATEGIES, propose
from twinheart.planning.induction.tachycardias import Tachycardia
from twinheart.planning.substrate import build_substrate
from twinheart.tissue import Velocities, WaveTable

RADIUS = 3.0


def substrate_of(mesh, scar, refractory=100.0):
    table = WaveTable([20.0], [1.0], [refractory - 20.0])
    return build_substrate(
        Heart(with_scar(mesh, scar.astype(np.int32))),
        conduction=Velocities(FAST, FAST),
        across=1.0,
        border_speed=SLOW / FAST,
        tables={0: table, 1000: table},
    )


def operation(shape, size=(44.0, 40.0), *more, catheter=None, refractory=100.0, edge=1.0):
    mesh = slab((*size, THICK), edge)
    x, y, _ = (mesh.points[mesh.tets].mean(axis=1) - [size[0] / 2, size[1] / 2, 0]).T
    substrate = substrate_of(mesh, shape(x, y), refractory)
    sites = below(mesh, *more)
    return Operation(substrate, sites, Catheter(RADIUS) if catheter is None else catheter)


@pytest.fixture(scope="module")
def eight():
    return operation(core([(0.0, 2.0)]))


def test_one_channel_needs_one_lesion(eight):
    assert len(eight.before.circuits) == 1
    plan = plan_ablation(eight)
    assert plan.stop == NONE_LEFT
    assert plan.outcome.circuits == ()
    assert len(plan.outcome.lesions) == 1
    assert plan.outcome.isolation.lost_ml == 0
    # within the channel
    assert np.abs(plan.outcome.lesions[0].points[0, 0] - 22) <= 2
    assert plan.outcome.volume_ml * 1000 == pytest.approx(4 * THICK * 2 * RADIUS, rel=0.3)
    assert [step.circuits for step in plan.steps] == [1, 0]
    assert plan.steps[-1].volume_ml == plan.outcome.volume_ml


def test_no_other_strategy_does_it_with_less(eight):
    plan = plan_ablation(eight)
    outcomes = {}
    for name in STRATEGIES:
        outcomes[name] = eight.after(propose(name, eight.reach, eight.before.circuits).lesions)
    for name in ("isthmus", "homogenisation", "dechannelling", "core-isolation"):
        assert outcomes[name].circuits == ()
        assert plan.outcome.volume_ml <= outcomes[name].volume_ml
    assert plan.outcome.volume_ml < 0.5 * outcomes["homogenisation"].volume_ml
    # the ring lets no wave to the channel
    assert outcomes["core-isolation"].isolation.lost_ml > 0.5 * 4 * 16 * THICK / 1000


def test_two_channels_far_apart_need_two_lesions():
    both = operation(core([(-10.0, 2.0), (10.0, 2.0)], (20.0, 8.0)), (56.0, 36.0))
    assert len(both.before.circuits) == 2
    plan = plan_ablation(both)
    assert plan.stop == NONE_LEFT
    assert len(plan.outcome.lesions) == 2
    # either alone leaves the other circuit, which is none that is new
    for lesion in plan.outcome.lesions:
        left = both.after([lesion])
        assert len(left.circuits) == 1
        assert left.new == (False,)


def test_of_two_channels_close_by_one_lesion_uncovers_a_circuit_that_a_second_ends():
    """One circuit goes through both; with one closed there is that around the end of the core."""
    both = operation(core([(-4.0, 2.0), (4.0, 2.0)], (26.0, 8.0)), (64.0, 36.0), [2.0, 18.0, 1.0])
    assert len(both.before.circuits) == 1
    plan = plan_ablation(both)
    assert plan.stop == NONE_LEFT
    assert len(plan.outcome.lesions) == 2
    sides = sorted(lesion.points[0, 0] - 32.0 for lesion in plan.outcome.lesions)
    assert -6 <= sides[0] <= -2
    assert 2 <= sides[1] <= 6


def test_a_line_with_a_gap_leaves_the_circuit_through_the_gap():
    wide = operation(core([(0.0, 7.0)], (14.0, 9.0)))
    assert len(wide.before.circuits) == 1
    ends = [-9.0, -1.5], [1.5, 9.0]
    lines = [Lesion([[22 + a, 20, THICK], [22 + b, 20, THICK]], 2.0, np.inf) for a, b in ends]
    # 2 x 1.5 mm between the ends, which are round: closed; of 2 x 4 mm, 4 mm are left
    assert wide.after([Lesion([[13, 20, THICK], [31, 20, THICK]], 2.0, np.inf)]).circuits == ()
    assert wide.after(lines).circuits == ()
    apart = [Lesion([[22 + a, 20, THICK], [22 + b, 20, THICK]], 2.0, np.inf)
             for a, b in ([-9.0, -4.0], [4.0, 9.0])]  # fmt: skip
    left = wide.after(apart)
    assert len(left.circuits) == 1
    assert left.new == (False,)
    assert left.circuits[0].isthmus_area_mm2 == pytest.approx(4 * THICK, rel=0.35)


def test_a_lesion_beside_a_core_makes_a_circuit_that_was_none():
    """No channel, no circuit; between a line and the core a strand of healthy tissue is left."""
    solid = operation(core([], (10.0, 8.0)), (48.0, 44.0), [24.0, 42.0, 1.0])
    assert solid.before.circuits == ()
    assert plan_ablation(solid).stop == NOTHING_TO_DO
    # from the edge of the plate to 3 mm from the core: 2 (20 + 16) mm around it at 0.5 m/s
    line = Lesion([[24, 0, THICK], [24, 9, THICK]], 2.0, np.inf)
    made = solid.after([line])
    assert len(made.circuits) == 1
    assert made.new == (True,)
    assert made.circuits[0].cycle_length_ms == pytest.approx(72 / FAST, rel=0.1)
    # the same line, drawn up to the core, closes the way
    assert solid.after([Lesion([[24, 0, THICK], [24, 15, THICK]], 2.0, np.inf)]).circuits == ()


@pytest.mark.slow
def test_no_lesion_of_a_plan_can_be_left_out():
    """Of four openings that lead into each other three must be closed."""

    def fork(x, y):
        scar = core([(0.0, 2.0)], (16.0, 10.0))(x, y)
        arms = (np.abs(np.abs(x) - 8) < 2) & (y > -2) | (np.abs(x) < 10) & (np.abs(y) < 2)
        inside = (np.abs(x) < 16) & (np.abs(y) < 10)
        return np.where(inside & arms & (y < 10), BORDER, scar)

    found = operation(fork, (56.0, 48.0), [2.0, 24.0, 1.0], [28.0, 46.0, 1.0], refractory=90.0)
    plan = plan_ablation(found)
    assert plan.stop == NONE_LEFT
    for left_out in range(len(plan.outcome.lesions)):
        others = [x for k, x in enumerate(plan.outcome.lesions) if k != left_out]
        assert found.after(others).circuits


def test_what_the_catheter_cannot_close_is_told():
    vessel = KeepAway("a coronary artery", [[22.0, 20.0, 1.0]], 20.0)
    plan = plan_ablation(
        operation(core([(0.0, 2.0)]), catheter=Catheter(RADIUS, keep_away=[vessel]))
    )
    assert plan.stop == NOT_CLOSABLE
    assert len(plan.outcome.circuits) == 1
    assert plan.outcome.lesions == ()


def test_another_plan_that_burns_less_is_taken(eight):
    thin = eight.after([Lesion([[22.0, 20.0, THICK]], 2.5, np.inf)])
    assert thin.circuits == ()
    plan = plan_ablation(eight, others=[thin])
    assert plan.outcome is thin
    assert plan.steps[-1].action.startswith("took another plan")
    exits = eight.after(())
    assert plan_ablation(eight, others=[exits]).outcome is not exits


def fast(site="0"):
    """A tachycardia of which no way is known."""
    return Tachycardia(200.0, Morphology("polymorphic", 200.0, 0.5, 0.5, 3), None, (site,))


def test_programmed_stimulation_has_the_last_word(eight):
    """It is asked for the substrate after ablation; plans are tried by their volume."""
    asked = []

    def still(substrate, sites):
        asked.append(len(substrate.problem.cells[0]))
        return [fast()] if len(asked) == 1 else []

    bigger = eight.after(propose("homogenisation", eight.reach, ()).lesions)
    plan = plan_ablation(eight, others=[bigger], induced=still)
    assert plan.outcome is bigger
    assert plan.stop == NONE_LEFT
    assert len(asked) == 2
    assert asked[1] < asked[0] < len(eight.substrate.problem.cells[0])
    assert plan.induced == ()
    never = plan_ablation(eight, induced=lambda *_: [fast()])
    assert never.stop == INDUCED_NOT_CLOSABLE
    assert never.induced == ("0",)
    assert len(never.outcome.lesions) == 1


def test_what_the_last_lesion_made_needless_is_left_out():
    """Circuits that do not last are closed one by one, until the one that mattered is."""
    both = operation(core([(-10.0, 2.0), (10.0, 2.0)], (20.0, 8.0)), (56.0, 36.0), refractory=400.0)
    assert both.before.circuits == ()
    assert len(both.before.unsustained) == 2
    x = both.substrate.heart.mesh.points[both.substrate.heart.mesh.tets].mean(axis=1)[:, 0]
    first = []

    def until_the_other_is_closed(substrate, sites):
        burnt = x[substrate.heart.regions >= LESION_TAG]
        if not first and burnt.size:
            first.append(burnt.mean() > 28)
        return [] if first and ((burnt > 28) != first[0]).any() else [fast()]

    plan = plan_ablation(both, induced=until_the_other_is_closed)
    assert plan.stop == NONE_LEFT
    assert plan.induced == ()
    assert len(plan.outcome.lesions) == 1
    assert (plan.outcome.lesions[0].points[0, 0] > 28) != first[0]
    assert max(step.lesions for step in plan.steps) == 2


S1_S2 = Protocol("S1 S2", 2, 600.0, (Stage(250.0, 5.0, 100.0),), observe=600.0)


def test_what_was_induced_is_not_after_ablation():
    """A late patch at the lower mouth: S2 blocks there and re-enters; the plan ends that."""
    mesh = slab((32.0, 28.0, THICK), 1.0)
    x, y, _ = (mesh.points[mesh.tets].mean(axis=1) - [16, 14, 0]).T
    scar = core([(0.0, 2.0)])(x, y).astype(np.int32)
    tags = np.where((scar == BORDER) & (y < -5), 1, 0).astype(np.int32)
    early, late = (WaveTable([20.0], [1.0], [apd]) for apd in (80.0, 110.0))
    substrate = build_substrate(
        Heart(with_scar(mesh, scar), regions=tags),
        conduction=Velocities(FAST, FAST), across=1.0, border_speed=SLOW / FAST,
        tables={0: early, 1000: early, 1001: late},
    )  # fmt: skip
    sites, induced = below(mesh), stimulation_test(S1_S2)
    assert len(induced(substrate, sites)) == 1
    found = Operation(substrate, sites, Catheter(RADIUS))
    assert len(found.before.circuits) == 1
    plan = plan_ablation(found, induced=induced)
    assert plan.stop == NONE_LEFT
    assert plan.induced == ()
    assert len(plan.outcome.lesions) == 1
    assert np.abs(plan.outcome.lesions[0].points[0, 0] - 16) <= 2  # within the channel
    assert list(induced(found.substrate_after(plan.outcome.ablation), sites)) == []


@pytest.fixture(scope="module")
def around():
    """A core without border zone, around which a wave turns; beside it tissue that is late."""
    mesh = slab((40.0, 40.0, 1.0), 1.0)
    x, y, _ = np.abs(mesh.points[mesh.tets].mean(axis=1) - 20.0).T
    scar = np.where(np.maximum(x, y) < 10.0, CORE, 0).astype(np.int32)
    late = (mesh.points[mesh.tets].mean(axis=1)[:, 0] > 30) & (y < 5)
    tables = {k: WaveTable([20.0], [1.0], [apd]) for k, apd in ((0, 130.0), (1, 200.0))}
    return build_substrate(
        Heart(with_scar(mesh, scar), regions=late.astype(np.int32)),
        conduction=Velocities(0.3, 0.3),
        border_speed=1.0,
        tables=tables,
    )


def test_re_entry_that_screening_knows_nothing_of_is_cut_to_the_border(around):
    sites = place_sites(around.problem, [[35.0, 10.0, 0.0]])
    induced = stimulation_test(S1_S2)
    assert len(induced(around, sites)) == 1
    found = Operation(around, sites, Catheter(RADIUS))
    assert found.before.circuits == found.before.unsustained == ()
    plan = plan_ablation(found, induced=induced)
    assert plan.stop == NONE_LEFT
    assert plan.outcome.circuits == ()
    assert list(induced(found.substrate_after(plan.outcome.ablation), sites)) == []
    # a line of 10 mm from the core to the border, of the width of a lesion
    assert len(plan.outcome.lesions) == 2
    assert plan.outcome.volume_ml * 1000 < 10 * 2 * RADIUS


def test_what_is_induced_and_cannot_be_closed_is_told(around):
    sites = place_sites(around.problem, [[35.0, 10.0, 0.0]])
    vessel = KeepAway("a coronary artery", [[20.0, 20.0, 0.5]], 40.0)
    found = Operation(around, sites, Catheter(RADIUS, keep_away=[vessel]))
    plan = plan_ablation(found, induced=stimulation_test(S1_S2))
    assert plan.stop == INDUCED_NOT_CLOSABLE
    assert plan.induced == (sites[0].name,)
    assert plan.outcome.lesions == ()


def test_the_plan_is_the_same_turned():
    mesh = slab((44.0, 40.0, THICK), 1.0)
    points = mesh.points + np.random.default_rng(5).uniform(-0.2, 0.2, mesh.points.shape)
    x, y, _ = (mesh.points[mesh.tets].mean(axis=1) - [22, 20, 0]).T
    scar = core([(0.0, 4.5)], (12.0, 8.0))(x, y)
    turn = Rotation.from_rotvec([0.4, -1.1, 0.7]).as_matrix()
    volumes = []
    for matrix in (np.eye(3), turn):
        moved = TetMesh(points @ matrix.T, mesh.tets)
        substrate = substrate_of(moved, scar)
        sites = place_sites(substrate.problem, [matrix @ [22.0, 2.0, 1.0]])
        plan = plan_ablation(Operation(substrate, sites, Catheter(RADIUS)))
        assert plan.stop == NONE_LEFT
        volumes.append(plan.outcome.volume_ml)
    assert volumes[1] == pytest.approx(volumes[0], rel=0.05)


def test_a_heart_without_scar_has_nothing_to_plan():
    healthy = operation(lambda x, y: np.zeros(len(x)), (20.0, 20.0))
    plan = plan_ablation(healthy)
    assert plan.stop == NOTHING_TO_DO
    assert plan.outcome.volume_ml == 0
    with pytest.raises(InputError, match="lies outside the heart"):
        healthy.after([Lesion([[90.0, 0.0, 0.0]], 3.0)])
