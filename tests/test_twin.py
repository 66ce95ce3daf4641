"""The whole forward model: amplitudes free of the mesh, symmetries, maps that make sense."""

import warnings

import equinox as eqx
import jax
import numpy as np
import pytest
import tolerances
from scipy.spatial.transform import Rotation

import twinheart as th
from twinheart.ecg import Electrodes, lead_shares
from twinheart.errors import InputError
from twinheart.tissue import ConductionWarning, Conductivities, Velocities
from twinheart.tissue.eikonal_beat import build_eikonal_beat
from twinheart.twin import intracellular_tensor

DT = 0.05
TISSUE = Conductivities(0.3, 0.1, 0.6, 0.4)
# The front is a few edges wide: what a coarse mesh leaves of the peak potential of a plane wave.
PEAK_OF_MESHES = 0.05
# Summation in another order, in float32, over some hundred steps: a small part of a step.
SAME_LAT = tolerances.DEVICE_STEPS * DT
SAME_ECG = 0.01  # of the largest potential
# Central differences of what is once continuously differentiable: quadratic B-splines, whose
# second derivative jumps, and arrivals whose path changes at single nodes.
EIKONAL_GRAD = 1e-4


def fibres(mesh, direction=(1.0, 0.0, 0.0)):
    return np.tile(direction, (mesh.n_tets, 1))


def plane_wave(edge, conduction):
    """A wave along a slab, seen by one electrode ahead of it, far away."""
    mesh = th.mesh.generate.slab((16.0, 2.0, 2.0), edge)
    site = Electrodes(("far",), np.array([[60.0, 1.0, 1.0]]))
    twin = th.Twin(
        th.Heart(mesh, f0=fibres(mesh)), "mitchell-schaeffer", conduction, electrodes=site
    )
    from twinheart.ecg import lead_field
    from twinheart.tissue import build_monodomain, run

    built = build_monodomain(
        twin.heart,
        twin.cell,
        conduction,
        [th.pace("box:0,0,0,2,2,2")],
        dt=DT,
        lead_field=lead_field(mesh, site, intracellular_tensor(twin)),
    )
    done = run(built, 20.0, points=mesh.points)
    return built, done.samples.t, done.samples.potentials[:, 0]


@pytest.fixture(scope="module")
def waves():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConductionWarning)
        return {edge: plane_wave(edge, Velocities()) for edge in (0.5, 1.0)}


def test_amplitude_does_not_depend_on_the_mesh(waves):
    peaks = {}
    for edge, (_, t, potential) in waves.items():
        travelling = (t > 8.0) & (t < 18.0)
        peaks[edge] = potential[travelling].mean()
    assert peaks[0.5] > 0  # the wave comes nearer
    assert peaks[1.0] == pytest.approx(peaks[0.5], rel=PEAK_OF_MESHES)


def test_plane_wave_is_a_dipole_layer_of_the_physical_conductivity(waves):
    """Far away only the jump of V across the front counts: sigma_i times jump times area."""
    for _, t, potential in waves.values():
        at = int(np.argmin(np.abs(t - 13.0)))
        # front near x = 8 at 13 ms, jump from rest to about the plateau
        jump = 125.0 * 0.93  # mV; Mitchell-Schaeffer tops out below v_peak
        layer = 0.17 * jump * 4.0 / (4 * np.pi * 0.2 * (60.0 - 8.0) ** 2)
        assert potential[at] == pytest.approx(layer, rel=0.1)


def test_lead_field_ignores_the_velocities_asked_for():
    mesh = th.mesh.generate.slab((4.0, 2.0, 2.0), 1.0)
    heart = th.Heart(mesh, f0=fibres(mesh))
    slow, fast = (th.Twin(heart, "mitchell-schaeffer", Velocities(v, v / 2)) for v in (0.4, 0.8))
    assert (intracellular_tensor(slow) == intracellular_tensor(fast)).all()
    raw = th.Twin(heart, "mitchell-schaeffer", TISSUE)
    assert intracellular_tensor(raw)[0] == pytest.approx(np.diag([0.3, 0.1, 0.1]))


def test_two_regions_have_their_own_physical_conductivities():
    mesh = th.mesh.generate.slab((4.0, 2.0, 2.0), 1.0)
    regions = (np.arange(mesh.n_tets) % 2) * 5
    twin = th.Twin(
        th.Heart(mesh, f0=fibres(mesh), regions=regions),
        "mitchell-schaeffer",
        {0: TISSUE, 5: Velocities(physical=Conductivities(0.5, 0.2, 0.6, 0.4))},
    )
    tensor = intracellular_tensor(twin)
    assert tensor[regions == 5][0] == pytest.approx(np.diag([0.5, 0.2, 0.2]))
    assert tensor[regions == 0][0] == pytest.approx(np.diag([0.3, 0.1, 0.1]))


NAMES = ("RA", "LA", "LL", "V1", "V2", "V3", "V4", "V5", "V6")
MESH = th.mesh.generate.slab((6.0, 3.0, 2.0), 0.5)
SITES = np.array([3.0, 1.5, 1.0]) + 40.0 * np.random.default_rng(3).normal(size=(9, 3))


def oblique_heart(points, tets, turn=None):
    turn = np.eye(3) if turn is None else turn
    f0 = np.tile(turn @ [0.8, 0.6, 0.0], (len(tets), 1))
    return th.Heart(th.mesh.TetMesh(points, tets), f0=f0)


def beat_of(heart, stimulated, sites=SITES, t_end=25.0):
    twin = th.Twin(heart, "mitchell-schaeffer", TISSUE, Electrodes(NAMES, sites))
    return th.simulate(twin, th.pace(stimulated), t_end=t_end, dt=DT)


@pytest.fixture(scope="module")
def corner():
    return np.flatnonzero(np.linalg.norm(MESH.points, axis=1) <= 1.2)


@pytest.fixture(scope="module")
def reference(corner):
    return beat_of(oblique_heart(MESH.points, MESH.tets), corner)


def test_turning_heart_and_electrodes_together_changes_nothing(reference, corner):
    turn = Rotation.from_rotvec([0.4, -1.1, 0.7]).as_matrix()
    shift = np.array([12.0, -7.0, 3.0])
    turned = oblique_heart(MESH.points @ turn.T + shift, MESH.tets, turn)
    beat = beat_of(turned, corner, SITES @ turn.T + shift)
    assert np.isfinite(reference.lat).all()
    assert beat.lat == pytest.approx(reference.lat, abs=SAME_LAT)
    largest = float(np.abs(reference.ecg.signals).max())
    assert beat.ecg.signals == pytest.approx(reference.ecg.signals, abs=SAME_ECG * largest)


def test_renumbering_the_nodes_permutes_the_activation(reference, corner):
    order = np.random.default_rng(4).permutation(MESH.n_nodes)
    place = np.argsort(order)
    beat = beat_of(oblique_heart(MESH.points[order], place[MESH.tets]), place[corner])
    assert beat.lat == pytest.approx(reference.lat[order], abs=SAME_LAT)
    largest = float(np.abs(reference.ecg.signals).max())
    assert beat.ecg.signals == pytest.approx(reference.ecg.signals, abs=SAME_ECG * largest)


def test_a_resting_heart_gives_no_ecg(reference):
    """A constant V_m is no source, whatever its value."""
    twin = th.Twin(
        oblique_heart(MESH.points, MESH.tets),
        "mitchell-schaeffer",
        TISSUE,
        Electrodes(NAMES, SITES),
    )
    rest = th.simulate(twin, th.pace("region:0", start=1e3), t_end=2.0, dt=DT)
    largest = float(np.abs(reference.ecg.signals).max())
    assert np.isnan(rest.lat).all()
    assert np.abs(rest.ecg.signals).max() < tolerances.EXACT32 * largest


def test_uniform_beat_gives_no_ecg(reference):
    """All nodes stimulated at once: no gradient of V, no potential, for half a millivolt or 120."""
    beat = beat_of(oblique_heart(MESH.points, MESH.tets), np.arange(MESH.n_nodes), t_end=5.0)
    largest = float(np.abs(reference.ecg.signals).max())
    assert np.ptp(beat.lat) < tolerances.EXACT32 * 10
    assert np.abs(beat.ecg.signals).max() < 1e2 * tolerances.EXACT32 * largest


def test_maps_of_a_whole_beat_are_plausible():
    mesh = th.mesh.generate.slab((4.0, 1.0, 1.0), 0.5)
    twin = th.Twin(th.Heart(mesh, f0=fibres(mesh)), "mitchell-schaeffer", TISSUE)
    probe = int(np.linalg.norm(mesh.points - [2.0, 0.5, 0.5], axis=1).argmin())
    beat = th.simulate(
        twin, th.pace("box:0,0,0,0.5,1,1", start=5.0), t_end=400.0, dt=DT, probes=[probe]
    )
    assert beat.result == "successful"
    assert beat.ecg is None
    assert beat.potentials.shape == (len(beat.t), 0)
    assert beat.vm_file is None
    assert np.array_equal(beat.apd90, beat.repol - beat.lat)
    assert (beat.lat > 5.0).all()
    assert beat.lat.max() < 25.0
    assert (200.0 < beat.apd90).all()
    assert (beat.apd90 < 350.0).all()
    # the maps agree with the trace of a probe: sampled every half millisecond
    t, vm = beat.t, beat.probes[:, 0]
    up = t[np.argmax(vm >= 0.0)]
    assert beat.lat[probe] == pytest.approx(up, abs=0.5)
    level = vm.max() - 0.9 * (vm.max() + 85.0)
    down = t[np.flatnonzero(vm > level)[-1] + 1]
    assert beat.repol[probe] == pytest.approx(down, abs=1.0)
    assert beat.stats["n_nodes"] == mesh.n_nodes
    assert beat.stats["stages"] >= 1


def test_models_can_be_named_by_region():
    mesh = th.mesh.generate.slab((2.0, 1.0, 1.0), 0.5)
    regions = (mesh.points[mesh.tets].mean(axis=1)[:, 0] > 1.0).astype(int)
    heart = th.Heart(mesh, f0=fibres(mesh), regions=regions)
    twin = th.Twin(heart, {0: "mitchell-schaeffer", 1: th.cell.get_model("mitchell-schaeffer")})
    assert [m.name for m in twin.cell.values()] == ["mitchell-schaeffer"] * 2
    assert eqx.is_array(twin.cell[0].tau_in)


@pytest.mark.parametrize("t_end", [0.0, -5.0, np.nan, np.inf])
def test_end_that_is_no_positive_time_is_refused(t_end):
    twin = th.Twin(oblique_heart(MESH.points, MESH.tets), "mitchell-schaeffer", TISSUE)
    with pytest.raises(InputError, match="t_end is"):
        th.simulate(twin, th.pace("region:0"), t_end=t_end)


def test_eikonal_beat_of_a_heart_in_two_parts_leaves_one_silent():
    left = th.mesh.generate.slab((4.0, 2.0, 2.0), 1.0)
    mesh = th.mesh.TetMesh(
        np.concatenate([left.points, left.points + np.array([20.0, 0.0, 0.0])]),
        np.concatenate([left.tets, left.tets + left.n_nodes]),
    )
    twin = th.Twin(oblique_heart(mesh.points, mesh.tets), "mitchell-schaeffer", None,
                   Electrodes(NAMES, SITES))  # fmt: skip
    probes = [0, left.n_nodes]
    beat = th.simulate(
        twin, th.pace("sphere:0,0,0,1.5"), t_end=50.0, propagation="eikonal", probes=probes
    )
    assert np.isfinite(beat.lat[: left.n_nodes]).all()
    assert np.isnan(beat.lat[left.n_nodes :]).all()
    assert np.isnan(beat.apd90[left.n_nodes :]).all()
    assert beat.stats["unreached_nodes"] == left.n_nodes
    assert np.isfinite(beat.ecg.signals).all()
    assert beat.probes[:, 0].max() > 20.0
    assert np.ptp(beat.probes[:, 1]) == 0.0


def test_gradients_of_the_eikonal_ecg_are_exact():
    """Velocity, onset and duration, through arrival, template and lead field, in float64."""
    jax.config.update("jax_enable_x64", True)  # callbacks run in another thread: no context
    try:
        heart = oblique_heart(MESH.points, MESH.tets)
        sites = Electrodes(NAMES, SITES)
        beat = build_eikonal_beat(
            heart,
            th.cell.get_model("mitchell-schaeffer"),
            Velocities(0.6, 0.3),
            [th.pace("sphere:0,0,0,1.2"), th.pace("sphere:6,3,2,1.2", start=3.0)],
            t=np.arange(0.0, 330.0, 2.0),
            shares=lead_shares(MESH, sites, np.tile(0.2 * np.eye(3), (MESH.n_tets, 1, 1))),
            dtype=np.float64,
        )
        weights = np.random.default_rng(5).normal(size=(165, len(NAMES)))

        def parts(b):
            return b.problem.velocity, b.sources.onsets, b.apd_factor

        @eqx.filter_jit
        def misfit(values):
            potentials = eqx.tree_at(parts, beat, values).potentials()
            return (weights * potentials).sum()

        start = parts(beat)
        gradient = jax.grad(misfit)(start)
        for k, step in enumerate((1e-5, 1e-4, 1e-5)):
            direction = np.random.default_rng(k).normal(size=start[k].shape)
            moved = [
                tuple(x + sign * step * direction if i == k else x for i, x in enumerate(start))
                for sign in (1, -1)
            ]
            difference = (misfit(moved[0]) - misfit(moved[1])) / (2 * step)
            found = float((gradient[k] * direction).sum())
            assert found == pytest.approx(float(difference), rel=EIKONAL_GRAD)
    finally:
        jax.config.update("jax_enable_x64", False)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"propagation": "ekonal"}, "unknown propagation 'ekonal'; the nearest is 'eikonal'"),
        ({"propagation": "eikonal", "snapshots": "vm.h5"}, "snapshots: propagation 'eikonal'"),
        (
            {"propagation": "eikonal", "checkpoint": "c.h5", "resume": True},
            "checkpoint, resume: propagation 'eikonal' has no steps in time",
        ),
        ({"propagation": "reaction-eikonal", "scheme": "lumped"}, "scheme 'lumped' has no effect"),
    ],
)
def test_arguments_that_make_no_sense_with_a_propagation_are_refused(how, message):
    twin = th.Twin(oblique_heart(MESH.points, MESH.tets), "mitchell-schaeffer", TISSUE)
    with pytest.raises(InputError, match=message):
        th.simulate(twin, th.pace("region:0"), t_end=10.0, **how)


def test_eikonal_computes_one_beat():
    twin = th.Twin(oblique_heart(MESH.points, MESH.tets), "mitchell-schaeffer", TISSUE)
    train = th.pace("sphere:0,0,0,1.2", period=300.0, count=2)
    with pytest.raises(InputError, match="the stimuli make 2 beats"):
        th.simulate(twin, train, t_end=500.0, propagation="eikonal")
