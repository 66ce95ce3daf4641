"""Many beats at once: each as if simulated alone, batches by memory, refusals."""

import dataclasses

import equinox as eqx
import jax
import numpy as np
import pytest
from tolerances import ROUNDING_LAT

import twinheart as th
from twinheart.errors import InputError, SolverError
from twinheart.tissue import pace
from twinheart.tissue.ensemble import Ensemble
from twinheart.tissue.memory import Memory
from twinheart.twin.ensemble import _built, _members

MESH = th.mesh.generate.slab((8.0, 3.0, 2.0), 1.0)
HEART = th.Heart(MESH, np.tile([1.0, 0.0, 0.0], (MESH.n_tets, 1)))
ENDS = [[pace("box:0,0,0,1,3,2")], [pace("box:7,0,0,8,3,2", start=2.0, amplitude=60.0)]]
SETTINGS = {"t_end": 25.0, "dt": 0.05, "probes": [0, MESH.n_nodes - 1]}
CPU = Memory(10**9, 10**9, "cpu")


def twin(tau_close=150.0, cv_l=0.6, name="mitchell-schaeffer"):
    options = {"tau_close": tau_close} if name == "mitchell-schaeffer" else {}
    electrodes = th.ecg.Electrodes(("RA", "LA", "LL"), np.eye(3) * 40.0)
    return th.Twin(HEART, th.cell.get_model(name, **options), th.Velocities(cv_l, 0.3), electrodes)


def assert_same(found, alone):
    np.testing.assert_allclose(found.lat, alone.lat, rtol=0, atol=ROUNDING_LAT)
    np.testing.assert_allclose(found.probes, alone.probes, rtol=0, atol=0.05)
    scale = np.abs(alone.potentials).max()
    np.testing.assert_allclose(found.potentials, alone.potentials, rtol=0, atol=1e-4 * scale)
    assert np.array_equal(found.t, alone.t)


@pytest.mark.filterwarnings("ignore::twinheart.tissue.build.ConductionWarning")  # a coarse slab
def test_members_are_the_beats_of_single_runs():
    """Cells, velocities and stimuli differ, one member has other equations; in two batches."""
    twins = [twin(), twin(120.0), twin(cv_l=0.8), twin(name="bueno-orovio-epi"), twin(170.0)]
    stimuli = [ENDS[0], ENDS[1], ENDS[0], ENDS[1], ENDS[1]]
    plans = []
    room = Ensemble([b.problem for b in built(twins, stimuli) if len(b.problem.models) == 1][:3])
    plan = room.plan(memory=CPU)
    little = CPU._replace(free=int(1.2 * (plan.shared + 3 * plan.each)))
    found = th.simulate_ensemble(twins, stimuli, **SETTINGS, memory=little, tell=plans.append)
    assert [(plan.members, plan.batches > 1) for plan in plans] == [(4, True), (1, False)]
    for beat, one, stimulus in zip(found, twins, stimuli, strict=True):
        assert_same(beat, th.simulate(one, stimulus, **SETTINGS))
    lat = np.array([beat.lat for beat in found])
    assert np.isfinite(lat).all()
    assert np.abs(lat[0] - lat[2]).max() > 1.0  # they do differ


def built(twins, stimuli):
    return _built(_members(twins, stimuli), dt=0.05, scheme="default", threshold=0.0, probes=None)


@pytest.fixture(scope="module")
def ensemble():
    """Seven values of one parameter, without a set-up for each."""
    (one,) = built([twin()], [ENDS[0]])
    return Ensemble([closing(one.problem, 100.0 + 10.0 * k) for k in range(7)])


def closing(problem, tau_close):
    return eqx.tree_at(lambda p: p.models[0].tau_close, problem, np.float32(tau_close))


def test_the_plan_says_how_many_fit(ensemble):
    one = ensemble.plan(memory=CPU)
    assert (one.members, one.at_once, one.batches) == (7, 7, 1)
    for fit, at_once, batches in ((1, 1, 7), (3, 3, 3), (4, 4, 2), (6, 4, 2), (7, 7, 1)):
        free = int((one.shared + (fit + 0.5) * one.each) / 0.9)
        plan = ensemble.plan(memory=CPU._replace(free=free))
        assert (plan.at_once, plan.batches) == (at_once, batches)
        assert f"{fit} fit" in str(plan)


def test_what_members_share_is_stored_once(ensemble):
    """Weights, neighbours and lead field are not copied."""
    problem = ensemble.problems[0]
    plan = ensemble.plan(memory=CPU)
    state = 4 * problem.tissue.n_nodes * 9  # variables of Mitchell-Schaeffer's and the loop's
    assert plan.each < 3.5 * state
    assert plan.shared > problem.tissue.diffusion.nbytes + problem.tissue.columns.nbytes


def test_a_member_that_does_not_fit_is_refused(ensemble):
    with pytest.raises(SolverError, match=r"one member .* needs .* GB, but 0.00 GB are free"):
        ensemble.plan(memory=CPU._replace(free=1000))


def test_other_kinds_of_members_are_refused(ensemble):
    other = dataclasses.replace(ensemble.problems[0], block=3)
    with pytest.raises(InputError, match="2 kinds"):
        Ensemble([ensemble.problems[0], other])


def test_more_devices_than_there_are_are_refused(ensemble):
    n = jax.device_count() + 1
    with pytest.raises(InputError, match=f"cannot use {n} devices"):
        ensemble.plan(devices=n)


@pytest.mark.parametrize(
    ("twins", "stimuli", "message"),
    [(0, ENDS[0], "at least one"), (3, ENDS, "3 twins and 2 lists")],
)
def test_bad_members_are_refused(twins, stimuli, message):
    with pytest.raises(InputError, match=message):
        th.simulate_ensemble([twin()] * twins, stimuli, t_end=1.0)


def test_a_member_that_breaks_down_is_named(ensemble):
    strong = [b.problem for b in built([twin()], [ENDS[0], [pace("apex", amplitude=-1e5)]])]
    with pytest.raises(SolverError, match="member 1: V_m left the physical range"):
        Ensemble(strong).run(5.0, points=MESH.points)
