"""From heart and physiology to a problem: places, regions, refusals, tuned conduction."""

import warnings

import jax
import numpy as np
import pytest
import tolerances

import twinheart as th
from twinheart.cell import MitchellSchaeffer
from twinheart.errors import InputError, ModelError, SolverError
from twinheart.mesh.io import read_mesh
from twinheart.tissue import (
    NIEDERER_2011,
    ConductionWarning,
    Conductivities,
    Explicit,
    Velocities,
    build_monodomain,
    cable_velocity,
    continuum_velocity,
    pace,
    run,
    tune_cv,
)
from twinheart.tissue.cable import matched_smoothing
from twinheart.tissue.stimulus import stimulus_nodes

MESH = th.mesh.generate.slab((4.0, 2.0, 1.0), 0.5)
TISSUE = Conductivities(0.3, 0.1, 0.6, 0.4)
CELL = MitchellSchaeffer()
# Lattice of a real mesh against the cable it was tuned on: the plane wave of a slab.
CV_IN_3D = 0.03


def heart_of(mesh=MESH, regions=None, axis=0) -> th.Heart:
    return th.Heart(mesh, f0=np.tile(np.eye(3)[axis], (mesh.n_tets, 1)), regions=regions)


def build(heart=None, cell=CELL, conduction=TISSUE, stimuli=None, **options):
    options = {"dt": 0.05, "smoothing": 0.5, "may_block": True} | options
    stimuli = [pace("box:0,0,0,0.5,9,9")] if stimuli is None else stimuli
    return build_monodomain(heart or heart_of(), cell, conduction, stimuli, **options)


def lat_of(built, t_end=15.0, mesh=MESH):
    done = run(built, t_end, points=mesh.points)
    return built.problem.tissue.to_mesh_order(done.state.lat)


def halves() -> np.ndarray:
    """Region 1 where x < 2, region 7 beyond."""
    centres = MESH.points[MESH.tets].mean(axis=1)
    return np.where(centres[:, 0] < 2.0, 1, 7)


# -- stimulus places ------------------------------------------------------------------------------


def test_places_choose_the_nodes_they_describe(tmp_path):
    heart = heart_of(regions=halves())
    x, y, z = MESH.points.T
    (tmp_path / "some.vtx").write_text("3\nextra\n0\n5\n17\n")
    expected = {
        "sphere:1,1,0.5,0.8": (x - 1) ** 2 + (y - 1) ** 2 + (z - 0.5) ** 2 <= 0.64,
        "box:0,0,0,0.5,2,1": x <= 0.5,
        "box:0.5,2,1,0,0,0": x <= 0.5,  # corners in any order
        "region:7": x >= 2.0,
        f"nodes:{tmp_path / 'some.vtx'}": np.isin(np.arange(MESH.n_nodes), [0, 5, 17]),
    }
    for where, nodes in expected.items():
        assert (stimulus_nodes(heart, where) == nodes).all(), where
    by_index = stimulus_nodes(heart, np.array([3, 4]))
    assert np.flatnonzero(by_index).tolist() == [3, 4]


def test_apex_is_the_narrow_end_whatever_the_orientation():
    mesh = th.mesh.generate.slab((10.0, 6.0, 6.0), 1.0)
    x = mesh.points[:, 0]
    taper = (0.2 + 0.08 * x)[:, None] * [0.0, 1.0, 1.0] + [1.0, 0.0, 0.0]
    points = (mesh.points - [0.0, 3.0, 3.0]) * taper
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    if np.linalg.det(turn) < 0:
        turn = -turn
    heart = th.Heart(th.mesh.TetMesh(points @ turn.T, mesh.tets))
    nodes = stimulus_nodes(heart, "apex")
    assert nodes.any()
    assert x[nodes].max() <= 4.0


def test_apex_of_a_wide_heart_without_tags_is_not_at_its_base(data):
    # A dilated heart is wider across both ventricles than it is long.
    heart = th.load_heart(data / "biv_crt" / "heart.vtu", max_edge=3.0)
    endocardium, _ = read_mesh(data / "biv_crt" / "lv_endocardium.obj", length_unit="mm")
    assert isinstance(endocardium, th.mesh.TriMesh)
    edges = np.sort(endocardium.triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2))
    edges, times = np.unique(edges, axis=0, return_counts=True)
    valve = endocardium.points[edges[times == 1]].mean(axis=(0, 1))
    distance = np.linalg.norm(heart.mesh.points - valve, axis=1)
    assert distance[stimulus_nodes(heart, "apex")].min() > 0.9 * distance.max()


@pytest.mark.parametrize(
    ("where", "hint"),
    [
        ("sphere:100,0,0,1", "nearest node is 96.00 mm"),
        ("box:50,50,50,60,60,60", "the mesh spans"),
        ("region:3", "tags of the heart are"),
        (np.zeros(0, int), "is empty"),
    ],
)
def test_place_without_a_node_says_where_the_nodes_are(where, hint):
    with pytest.raises(ModelError, match="hits no node") as caught:
        stimulus_nodes(heart_of(), where)
    assert hint in str(caught.value)


@pytest.mark.parametrize("nodes", [[-1], [0, MESH.n_nodes]])
def test_node_outside_the_mesh_is_refused(nodes):
    with pytest.raises(ModelError, match="the mesh has nodes 0 to"):
        stimulus_nodes(heart_of(), np.array(nodes))


@pytest.mark.parametrize(
    "where",
    ["", "apexx", "sphere", "sphere:1,2,3", "sphere:1,2,3,x", "box:1,2,3,4,5", "region:", "cone:1",
     "sphere:nan,0,0,1", "apex:3"],
)  # fmt: skip
def test_malformed_place_is_refused(where):
    with pytest.raises(InputError, match="stimulus place"):
        stimulus_nodes(heart_of(), where)


@pytest.mark.parametrize(
    "options",
    [{"duration": 0.0}, {"duration": -1.0}, {"amplitude": np.nan}, {"start": np.inf}, {"count": 3},
     {"count": 0}, {"count": 2, "period": 1.0}, {"duration": np.nan}],
)  # fmt: skip
def test_impossible_pulse_is_refused(options):
    with pytest.raises(ModelError):
        pace("apex", **options)


# -- tissue and cells -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, -0.17, np.nan, np.inf])
def test_conductivity_that_is_no_positive_number_is_refused(value):
    with pytest.raises(ModelError, match="sigma_il"):
        Conductivities(value, 0.019, 0.62, 0.24)
    with pytest.raises(ModelError, match="cv_t"):
        Velocities(0.6, value)


def test_region_without_cell_or_conductivity_is_named():
    heart = heart_of(regions=halves())
    with pytest.raises(ModelError, match=r"\[7\] of the heart have no cell model"):
        build(heart, cell={1: CELL})
    with pytest.raises(ModelError, match=r"\[1\] of the heart have no conductivity"):
        build(heart, conduction={7: TISSUE, 9: TISSUE})


def test_equal_models_in_two_regions_give_the_same_as_one():
    heart = heart_of(regions=halves())
    one = lat_of(build(heart))
    two = build(heart, cell={1: MitchellSchaeffer(), 7: MitchellSchaeffer()})
    assert len(two.problem.models) == 1  # they differ in nothing
    assert sum(two.problem.model_sizes) == two.problem.tissue.n_nodes > MESH.n_nodes
    # another order of the nodes: sums round differently
    assert lat_of(two) == pytest.approx(one, abs=tolerances.DEVICE_STEPS * 0.05)
    shared = build(heart, cell={1: CELL, 7: CELL})
    assert len(shared.problem.models) == 1


def test_padding_is_alone_and_carries_nothing():
    heart = heart_of(regions=halves())
    lead_field = np.random.default_rng(0).normal(size=(2, MESH.n_nodes))
    built = build(
        heart, cell={1: MitchellSchaeffer(), 7: MitchellSchaeffer()}, lead_field=lead_field
    )
    problem, tissue = built.problem, built.problem.tissue
    real = np.isin(np.arange(tissue.n_nodes), tissue.place)
    assert (tissue.n_mesh_nodes, real.sum()) == (MESH.n_nodes, MESH.n_nodes)
    assert (np.array(problem.model_sizes) % 64 == 0).all()
    assert (tissue.order[tissue.place] == np.arange(MESH.n_nodes)).all()
    # no neighbour, no mass of the heart, no stimulus, no voice in the electrodes
    assert (np.asarray(tissue.columns)[:, ~real] == np.flatnonzero(~real)).all()
    assert not np.isin(np.asarray(tissue.columns)[:, real], np.flatnonzero(~real)).any()
    assert not np.asarray(tissue.diffusion)[:, ~real].any()
    assert not np.asarray(problem.stimulus_masks[0])[~real].any()
    assert not np.asarray(problem.lead_field)[:, ~real].any()
    assert tissue.to_mesh_order(problem.lead_field) == pytest.approx(lead_field)
    assert built.assembly.lumped[real].sum() == pytest.approx(8.0)


def test_different_models_act_where_their_regions_are():
    heart = heart_of(regions=halves())
    one = lat_of(build(heart))
    slow = lat_of(build(heart, cell={1: CELL, 7: MitchellSchaeffer(tau_in=0.5)}))
    x = MESH.points[:, 0]
    assert slow[x < 1.0] == pytest.approx(one[x < 1.0], abs=0.2)
    assert (slow[x == 4.0] > one[x == 4.0] + 1.0).all()
    assert (np.diff([slow[x == v].mean() for v in np.unique(x)]) > 0).all()  # in mesh order


def test_parameters_of_single_nodes_stay_with_their_nodes():
    x = MESH.points[:, 0]
    tau_in = np.where(x < 2.0, 0.3, 0.5)
    per_node = lat_of(build(cell=MitchellSchaeffer(tau_in=tau_in)))
    by_region = lat_of(
        build(heart_of(regions=halves()), cell={1: CELL, 7: MitchellSchaeffer(tau_in=0.5)})
    )
    # they differ in the nodes of the border plane alone
    assert per_node == pytest.approx(by_region, abs=1.0)
    scalar = lat_of(build(cell=MitchellSchaeffer(tau_in=np.full(MESH.n_nodes, 0.3))))
    assert scalar == pytest.approx(lat_of(build()), abs=tolerances.DEVICE_STEPS * 0.05)


# -- steps and schemes ----------------------------------------------------------------------------


def test_step_too_large_for_the_explicit_scheme_names_the_largest_and_default_adds_stages():
    dt = 0.5
    with pytest.raises(SolverError, match="largest stable step is") as caught:
        build(dt=dt, scheme="explicit", conduction=Conductivities(2.0, 0.5, 4.0, 1.0))
    default = build(dt=dt, conduction=Conductivities(2.0, 0.5, 4.0, 1.0))
    assert f"{default.stiffness['dt_explicit']:.3g} ms" in str(caught.value)
    assert default.problem.scheme.stages > 1
    fine = 0.99 * default.stiffness["dt_explicit"]
    explicit = build(dt=fine, scheme="explicit", conduction=Conductivities(2.0, 0.5, 4.0, 1.0))
    assert explicit.problem.scheme == Explicit(1)


def test_unknown_scheme_and_unusable_steps_are_refused():
    with pytest.raises(SolverError, match="unknown scheme 'implicit'; expected one of default"):
        build(scheme="implicit")
    for dt in (0.0, -0.02, 1.5, np.nan):
        with pytest.raises(SolverError, match="dt is"):
            build(dt=dt)


# -- conduction -----------------------------------------------------------------------------------


def test_conductivities_that_would_block_are_refused_with_the_velocities():
    weak = Conductivities(0.3, 0.0002, 0.6, 0.4)  # across: coupling below the excitation threshold
    with pytest.raises(ModelError, match="across the fibres would block") as caught:
        build(conduction=weak, scheme="lumped", smoothing=None, may_block=False)
    assert "expected velocity 0.00 m/s on a spacing of 0.50 mm" in str(caught.value)
    expected = float(str(caught.value).split("mm, ")[1].split()[0])
    ideal = continuum_velocity(CELL, float(weak.diffusivity[1]))
    assert expected == pytest.approx(ideal, abs=0.006)  # two digits are printed
    build(conduction=weak, scheme="lumped", smoothing=None, may_block=True)


def test_the_benchmark_tissue_is_refused_across_the_fibres_at_half_a_millimetre():
    """Lumped, it blocks in three dimensions; the default scheme conducts there."""
    heart = heart_of(th.mesh.generate.slab((2.0, 1.0, 1.0), 0.5))
    model, stimulus = th.cell.get_model("tentusscher2006-epi"), [pace("box:0,0,0,0.5,1,1")]
    with pytest.raises(ModelError, match="across the fibres would block"):
        build_monodomain(heart, model, NIEDERER_2011, stimulus, scheme="lumped")
    built = build_monodomain(heart, model, NIEDERER_2011, stimulus)
    assert all(abs(row["velocity_error"]) < 0.02 for row in built.conduction)


@pytest.mark.parametrize("edge", [0.5, 1.0])
@pytest.mark.parametrize(("axis", "wanted"), [(0, 0.6), (1, 0.3)])
def test_plane_wave_on_a_slab_travels_at_the_velocity_asked_for(edge, axis, wanted):
    mesh = th.mesh.generate.slab((16.0, 2.0, 2.0), edge)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConductionWarning)
        built = build_monodomain(
            heart_of(mesh, axis=axis),
            CELL,
            Velocities(0.6, 0.3),
            [pace("box:0,0,0,2,2,2")],
            dt=0.05,
        )
    lat = lat_of(built, 70.0, mesh)
    x = mesh.points[:, 0]
    front = np.array([lat[x == at].mean() for at in (6.0, 13.0)])
    assert 7.0 / np.diff(front)[0] == pytest.approx(wanted, rel=CV_IN_3D)
    row = built.conduction[0 if axis == 0 else 1]
    assert row["velocity"] == pytest.approx(wanted, rel=0.005)  # what tune_cv promises


def test_conduction_report_names_factor_and_diffusivity():
    tuned = tune_cv(CELL, 0.3, 0.5, dt=0.05)
    built = build(conduction=Velocities(0.6, 0.3), smoothing=None, may_block=False)
    row = next(r for r in built.conduction if r["axis"] == "across")
    assert row["diffusivity"] == pytest.approx(tuned.diffusivity)
    assert row["factor"] == pytest.approx(row["diffusivity"] / row["continuum_diffusivity"])
    assert row["continuum_velocity"] == pytest.approx(0.3)
    assert built.diffusivity[0, 1] == built.diffusivity[0, 2] == row["diffusivity"]


def test_mesh_too_coarse_for_the_velocity_warns(monkeypatch):
    # Mitchell-Schaeffer conducts even on 2 mm with a factor just below the limit of 2.
    monkeypatch.setattr("twinheart.tissue.build._LARGE_FACTOR", 1.5)
    mesh = th.mesh.generate.slab((6.0, 4.0, 2.0), 2.0)
    with pytest.warns(ConductionWarning, match="across the fibres is"):
        build_monodomain(
            heart_of(mesh), CELL, Velocities(0.6, 0.2), [pace("region:0")], dt=0.05, smoothing=0.0
        )


def test_matched_smoothing_gives_the_velocity_of_the_continuum():
    for edge in (0.4, 0.6, 0.8):
        smoothing = matched_smoothing(CELL, 0.1, edge, dt=0.02)
        assert 0.0 <= smoothing <= 0.95
        velocity = cable_velocity(CELL, 0.1, edge, smoothing=smoothing, dt=0.02)
        assert velocity == pytest.approx(continuum_velocity(CELL, 0.1), rel=0.01)


def test_four_times_the_diffusivity_on_twice_the_edge_doubles_the_velocity():
    """The equations know D / h^2 alone, so this is exact."""
    one = cable_velocity(CELL, 0.1, 0.25, smoothing=0.4, dt=0.05)
    two = cable_velocity(CELL, 0.4, 0.5, smoothing=0.4, dt=0.05)
    assert two == pytest.approx(2 * one, rel=tolerances.EXACT32)
    assert continuum_velocity(CELL, 0.4) == pytest.approx(2 * continuum_velocity(CELL, 0.1))


def test_velocity_that_no_diffusivity_gives_is_refused():
    with pytest.raises(ModelError, match=r"no diffusivity conducts at 0\.05 m/s"):
        tune_cv(CELL, 0.05, 2.0, dt=0.05)


def test_cell_that_cannot_conduct_is_refused():
    with pytest.raises(ModelError, match="does not conduct"):
        continuum_velocity(MitchellSchaeffer(tau_in=2.0), 0.1)


def test_problem_has_no_number_that_is_not_an_array():
    problem = build().problem
    assert all(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(problem.models))
    assert np.asarray(problem.tissue.diffusion).dtype == np.float32
