"""The Purkinje tree as tissue: velocity, junctions both ways, block, order, one equation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twinheart as th
from twinheart.anatomy.purkinje import PurkinjeTree, grow_purkinje
from twinheart.cell import MitchellSchaeffer, get_model
from twinheart.errors import ModelError
from twinheart.mesh import TetMesh
from twinheart.tissue import (
    ConductionSystem,
    NonConducting,
    Velocities,
    build_monodomain,
    fast_endocardium,
    pace,
    run,
    solve,
)
from twinheart.tissue.purkinje import FAST_TAG

# The slabs are as coarse as a patient's mesh, which is said.
pytestmark = pytest.mark.filterwarnings("ignore::twinheart.tissue.ConductionWarning")

SIZE, EDGE, LENGTH = (10.0, 10.0, 5.0), 1.0, 30
CELL = MitchellSchaeffer()
# Tuned to 0.5 %; measured to a time step or two of the 5.5 ms between nodes away from the ends.
CV = 0.02
# Anterograde delays of several ms are measured (3.4 +- 0.8 ms, doi:10.3389/fcvm.2023.1158480).
DELAY = (2.0, 6.0)


def straight_tree(length=LENGTH) -> PurkinjeTree:
    """A fibre that comes down on the middle of the slab's upper face."""
    points = np.zeros((length + 1, 3))
    points[:] = SIZE[0] / 2, SIZE[1] / 2, SIZE[2]
    points[:, 2] += np.arange(length, -1, -1)
    nodes = np.arange(length)
    return PurkinjeTree(points, np.stack([nodes, nodes + 1], axis=1), np.array([0]))


def slab() -> th.Heart:
    mesh = th.mesh.generate.slab(SIZE, EDGE)
    return th.Heart(mesh, f0=np.tile([1.0, 0.0, 0.0], (mesh.n_tets, 1)))


def build(resistance, where="purkinje", cell=CELL, **options):
    system = ConductionSystem(straight_tree(), resistance=resistance, **options)
    return build_monodomain(slab(), cell, Velocities(), [pace(where)], purkinje=system)


def activation(built, t_end=45.0):
    """Activation times of the muscle below the junction, of all muscle, and of the tree."""
    mesh = slab().mesh
    done = run(built, t_end, points=np.vstack([mesh.points, straight_tree().points]))
    lat = np.asarray(done.state.lat)[built.assembly.place]
    muscle, tree = lat[: mesh.n_nodes], lat[mesh.n_nodes :]
    return float(muscle[below_junction(mesh)]), muscle, tree


def below_junction(mesh) -> int:
    return int(np.linalg.norm(mesh.points - straight_tree().points[-1], axis=1).argmin())


BASE = "box:0,0,0,10,10,1.1"


def test_fibre_conducts_as_wanted():
    _, _, tree = activation(build(1e6), 20.0)
    assert 12 / (tree[24] - tree[12]) == pytest.approx(2.2, rel=CV)


def test_junction_delays_both_ways():
    below, muscle, tree = activation(build(0.6))
    assert DELAY[0] < below - tree[-1] < DELAY[1]
    assert np.isfinite(muscle).all()
    below, _, tree = activation(build(0.6, BASE))
    assert 0 < tree[-1] - below < DELAY[1]
    assert 12 / (tree[12] - tree[24]) == pytest.approx(2.2, rel=CV)  # and on to the root


def test_junction_blocks_one_way_then_both():
    """The muscle is the larger load, so it is lost first: unidirectional block."""
    below, _, tree = activation(build(6.0))
    assert np.isfinite(tree).all()
    assert np.isnan(below)
    below, _, tree = activation(build(6.0, BASE))
    assert np.isfinite(tree).all()
    below, _, tree = activation(build(60.0, BASE))
    assert np.isfinite(below)
    assert np.isnan(tree).all()


def test_without_current_through_junctions_the_muscle_is_alone():
    alone = build_monodomain(slab(), CELL, Velocities(), [pace(BASE)])
    expected = run(alone, 30.0, points=slab().mesh.points).state.lat
    expected = alone.problem.tissue.to_mesh_order(expected)
    joined = build(1e9, BASE)
    lat = run(joined, 30.0, points=np.zeros((2000, 3))).state.lat
    assert joined.problem.tissue.to_mesh_order(lat) == pytest.approx(expected, abs=1e-3)


def test_operator_is_symmetric_and_conserves_charge():
    built = build(0.6)
    tissue = built.problem.tissue
    n, width = tissue.n_nodes, tissue.columns.shape[0]
    matrix = np.zeros((n, n))
    rows = np.tile(np.arange(n), (width, 1))
    np.add.at(matrix, (rows, tissue.columns), np.asarray(tissue.diffusion))
    np.fill_diagonal(matrix, 0.0)
    assert (matrix == matrix.T).all()
    tip, first = built.assembly.place[-1], len(built.assembly.place) - LENGTH - 1
    muscle = built.assembly.place[:first]
    total = matrix[tip, muscle].sum()
    assert total == pytest.approx(1 / (0.6 * 1.4), rel=1e-5)  # 1 / (R chi cm) [mm^3/ms]


def test_gradient_with_respect_to_the_junction():
    """Delay of the muscle against the resistance, forward mode against differences."""
    built = build(0.6)
    node = built.assembly.place[below_junction(slab().mesh)]

    @eqx.filter_jit
    def arrival(resistance):
        diffusivity = jnp.asarray(built.diffusivity).at[-1, 0].set(1.0 / (1.4 * resistance))
        problem = eqx.tree_at(lambda p: p.tissue, built.problem, built.assembly.tissue(diffusivity))
        return solve(problem, 40)[0].lat[node]

    value, slope = jax.jvp(arrival, (jnp.asarray(0.6),), (jnp.asarray(1.0),))
    step = 0.03
    measured = (arrival(0.6 + step) - arrival(0.6 - step)) / (2 * step)
    assert np.isfinite(value)
    assert slope > 0
    assert float(slope) == pytest.approx(float(measured), rel=0.03)


def test_results_of_the_muscle_keep_mesh_order_and_the_tree_has_its_own():
    heart = slab()
    twin = th.Twin(heart, CELL, purkinje=ConductionSystem(straight_tree()))
    beat = th.simulate(twin, pace("purkinje"), t_end=40.0)
    assert beat.lat.shape == (heart.mesh.n_nodes,)
    below = below_junction(heart.mesh)
    away = np.linalg.norm(heart.mesh.points - heart.mesh.points[below], axis=1)
    assert away[beat.lat.argmin()] <= 1.5  # what the junction reaches comes first
    assert np.corrcoef(away, beat.lat)[0, 1] > 0.7  # and the rest the later the farther it is
    assert beat.purkinje_lat is not None
    assert beat.purkinje_lat.shape == (LENGTH + 1,)
    assert (np.diff(beat.purkinje_lat[4:]) > 0).all()  # from root to tip
    assert beat.lat.min() > beat.purkinje_lat[-1]
    assert beat.stats["conduction"][-1]["region"] == "purkinje"


def test_cells_may_vary_over_the_mesh():
    """One value a node, all alike, is as one number, in the tree too."""
    value = jnp.full(slab().mesh.n_nodes, CELL.tau_in)
    varied = eqx.tree_at(lambda m: m.tau_in, CELL, value)
    _, muscle, tree = activation(build(0.6, cell=varied))
    _, same_muscle, same_tree = activation(build(0.6))
    assert muscle == pytest.approx(same_muscle, rel=CV)
    assert tree == pytest.approx(same_tree, rel=CV)


def endocardial_slab() -> th.Heart:
    """Fibres along y; the face z = 0 is LV endocardium, x runs from apex to base."""
    mesh = th.mesh.generate.slab((20.0, 5.0, 4.0), EDGE)
    classes = np.where(np.isclose(mesh.points[:, 2], 0.0), 3, 2)
    mesh = TetMesh(mesh.points, mesh.tets, {"surf_class": classes})
    return th.Heart(mesh, f0=np.tile([0.0, 1.0, 0.0], (mesh.n_tets, 1)))


def test_fast_layer_has_regions_of_its_own():
    heart = endocardial_slab()
    fast, cells, tissues = fast_endocardium(heart, CELL, Velocities(), cv=1.5)
    layer = fast.regions != heart.regions
    lowest = heart.mesh.points[heart.mesh.tets][:, :, 2].min(axis=1)
    assert (lowest[layer] == 0.0).all()  # one element thick
    assert layer.sum() > 0.8 * (lowest == 0.0).sum()  # all of it but the basal tenth
    assert sorted(tissues) == sorted(cells) == np.unique(fast.regions).tolist()
    quick, slow = tissues[FAST_TAG], tissues[0]
    assert isinstance(quick, Velocities)
    assert isinstance(slow, Velocities)
    assert np.asarray(quick.cv) == pytest.approx(1.5)
    assert quick.physical is slow.physical  # the ECG's conductivities stay
    still, _, dead = fast_endocardium(heart, CELL, NonConducting())
    assert (still.regions == heart.regions).all()
    assert list(dead) == [0]


def test_fast_layer_leads_the_wave():
    """Across the fibres it takes the muscle along at several times its own velocity."""
    heart = endocardial_slab()
    arrivals = []
    for case in (
        (heart, CELL, Velocities()),
        fast_endocardium(heart, CELL, Velocities(), cv=1.5),
    ):
        built = build_monodomain(*case, [pace("box:0,0,0,1,5,4")])
        lat = run(built, 80.0, points=heart.mesh.points).state.lat
        lat = built.problem.tissue.to_mesh_order(lat)
        near, far = (
            np.abs(heart.mesh.points - [x, 2.0, 0.0]).max(axis=1).argmin() for x in (6.0, 14.0)
        )
        arrivals.append(8.0 / float(lat[far] - lat[near]))
    assert 0.2 < arrivals[0] < 0.35
    assert arrivals[1] > 2.5 * arrivals[0]


def test_bad_input_is_refused():
    with pytest.raises(ModelError, match="resistance"):
        ConductionSystem(straight_tree(), resistance=-1.0)
    with pytest.raises(ModelError, match="this twin has none"):
        build_monodomain(slab(), CELL, Velocities(), [pace("purkinje")])
    tree = straight_tree()
    other = PurkinjeTree(tree.points + 100.0, tree.edges, tree.roots)
    with pytest.raises(ModelError, match="another heart"):
        build_monodomain(
            slab(), CELL, Velocities(), [pace("purkinje")], purkinje=ConductionSystem(other)
        )


@pytest.mark.slow
def test_whole_heart_in_the_order_of_a_normal_beat():
    """Left septum first, right ventricle soon after, base last; 60 to 110 ms in all."""
    heart = th.demo_heart()
    tree = grow_purkinje(heart.mesh)
    twin = th.Twin(heart, "bueno-orovio-epi", purkinje=ConductionSystem(tree))
    beat = th.simulate(twin, pace("purkinje"), t_end=160.0)
    assert np.isfinite(beat.lat).all()
    assert 60 <= np.ptp(beat.lat) <= 110
    height = heart.mesh.points[:, 2]
    late = beat.lat > np.quantile(beat.lat, 0.95)
    assert height[late].mean() > height.mean()
    assert beat.purkinje_lat is not None
    assert np.isfinite(beat.purkinje_lat).all()


@pytest.mark.slow
def test_purkinje_cells_in_the_tree_and_ventricular_ones_in_the_muscle():
    system = ConductionSystem(straight_tree(), get_model("stewart2009"))
    cell = get_model("tentusscher2006-epi")
    built = build_monodomain(slab(), cell, Velocities(), [pace("purkinje")], purkinje=system)
    assert len(built.problem.models) == 2
    below, muscle, tree = activation(built)
    assert np.isfinite(muscle).all()
    assert DELAY[0] < below - tree[-1] < DELAY[1]
    assert 12 / (tree[24] - tree[12]) == pytest.approx(2.2, rel=CV)
