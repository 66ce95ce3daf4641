"""What moves a lead, against central differences; misplaced electrodes, against moving them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calibration_samples import (
    small_heart,
    small_objective,
    small_twin,
    some_numbers,
    with_data,
)
from tolerances import GRAD

from twinheart.calibration import fit
from twinheart.calibration.sensitivity import electrode_study, lead_sensitivity
from twinheart.ecg import Electrodes, lead_shares
from twinheart.ecg.leads import lead_weights
from twinheart.ecg.movable_field import movable_field
from twinheart.errors import InputError
from twinheart.tissue import Sites, arrival, build_eikonal
from twinheart.tissue.wave_ecg import wave_ecg
from twinheart.twin import intracellular_tensor

STEP = 1e-6  # of the logarithm of a velocity: no arrival comes by another way for so little
STEP_APD = 1e-2  # ms
LEAD, AT, WINDOW = "V2", 61.3, (30.0, 90.0)


pytestmark = pytest.mark.usefixtures("x64_module")


@pytest.fixture(scope="module")
def objective(x64_module):
    return small_objective()


@pytest.fixture(scope="module")
def u(objective):
    return some_numbers(objective, seed=1)


@pytest.fixture(scope="module")
def lead(objective, u):
    """The lead by changed tissue, from the library's other parts: velocities by element."""
    model, heart = objective.model, small_heart()
    values = {name: np.asarray(x) for name, x in objective.values(jnp.asarray(u)).items()}
    tags = np.asarray(model.problem.tags)
    rows = np.asarray(model.conduction(values))[np.searchsorted(tags, heart.regions)]
    problem = build_eikonal(heart, rows)
    sites = Sites(
        np.asarray(model.excitation.positions(values)),
        np.asarray(model.excitation.onsets(values)),
        model.excitation.radius,
    )
    usual = np.asarray(model.repolarisation.usual)

    @jax.jit
    def run(velocity, apd):
        changed = eqx.tree_at(lambda p: p.velocity, problem, velocity)
        return model.wave(arrival(changed, sites), apd / usual)

    def at(log_velocity=0.0, longer=0.0, gain=values["gain"][0]):
        by_node = np.broadcast_to(log_velocity, heart.mesh.n_nodes)
        factor = np.exp(by_node[heart.mesh.tets].mean(axis=1))
        signals = run(rows * factor[:, None], usual + longer)
        return gain * np.asarray(signals)[:, objective.data.names.index(LEAD)]

    return at


def at_time(objective, signal) -> float:
    return float(np.interp(AT, objective.data.t, signal))


def in_window(objective, signal) -> float:
    t = objective.data.t
    return float(np.sqrt(np.mean(signal[(t >= WINDOW[0]) & (t <= WINDOW[1])] ** 2)))


@pytest.mark.parametrize(
    ("asked", "number"), [({"at": AT}, at_time), ({"window": WINDOW}, in_window)]
)
def test_maps_are_the_derivatives_of_the_lead(objective, u, lead, asked, number):
    """Along random directions, and of whole regions."""
    found = lead_sensitivity(objective, u, LEAD, **asked)
    assert found.value == pytest.approx(number(objective, lead()), rel=1e-6)
    heart = small_heart()
    ways = list(np.random.default_rng(0).normal(size=(3, heart.mesh.n_nodes)))
    for tag in np.unique(heart.regions):
        own = np.zeros(heart.mesh.n_nodes)
        own[heart.mesh.tets[heart.regions == tag]] = 1.0
        ways.append(own)
    for way in ways:
        ends = [number(objective, lead(s * STEP * way)) for s in (1.0, -1.0)]
        expected = (ends[0] - ends[1]) / (2 * STEP)
        assert found.velocity @ way == pytest.approx(expected, rel=GRAD)


def test_map_of_the_apd_is_the_derivative_of_the_t_wave(objective, u, lead):
    late = float(objective.data.t[-2])  # of such a short record only its end sees repolarisation
    found = lead_sensitivity(objective, u, LEAD, at=late)
    ways = np.random.default_rng(0).uniform(0.5, 1.5, size=(2, small_heart().mesh.n_nodes))
    for way in ways:
        ends = [lead(longer=s * STEP_APD * way)[-2] for s in (1.0, -1.0)]
        expected = (ends[0] - ends[1]) / (2 * STEP_APD)
        assert found.apd @ way == pytest.approx(expected, rel=GRAD)


def test_maps_of_a_fast_endocardium_add_up():
    """Where arrivals tie only sums mean much: that of all nodes is that of all velocities."""
    layered = small_objective(("cv_l", "cv_endo", "gain"), fast=True)
    point = some_numbers(layered, seed=2)
    found = lead_sensitivity(layered, point, LEAD, window=WINDOW)
    model, values = layered.model, layered.values(jnp.asarray(point))

    @jax.jit
    def signals(factor):
        velocity = model.conduction(values) * factor
        problem = eqx.tree_at(lambda p: p.velocity, model.problem, velocity)
        return model.signals(values, model.excitation.lat(problem, values))

    column = layered.data.names.index(LEAD)
    ends = [in_window(layered, np.asarray(signals(1 + s * 1e-5))[:, column]) for s in (1, -1)]
    expected = (ends[0] - ends[1]) / 2e-5
    assert found.velocity.sum() == pytest.approx(expected, rel=GRAD)


def test_a_lead_that_is_silent_is_moved_by_nothing(objective, u):
    quiet = eqx.tree_at(
        lambda o: (o.model.wave.shares, o.model.wave.lead_field),
        objective,
        replace_fn=jnp.zeros_like,
    )
    found = lead_sensitivity(quiet, u, LEAD, window=WINDOW)
    assert found.value == 0.0
    assert not found.velocity.any()
    assert not found.apd.any()


@pytest.mark.parametrize(
    ("lead_name", "asked", "message"),
    [
        ("V9", {"at": 30.0}, "there is no lead V9; there are I, II, V1"),
        (LEAD, {"at": 999.0}, "asked for from 999 to 999 ms, expected times in this order within"),
        (LEAD, {"at": np.nan}, "expected times in this order"),
        (LEAD, {"window": (80.0, 30.0)}, "from 80 to 30 ms, expected times in this order"),
        (LEAD, {"window": (30.1, 30.2)}, "no sample lies between 30.1 and 30.2 ms: widen"),
        (LEAD, {}, r"give a time \(at\) or a window of the lead, and not both"),
        (LEAD, {"at": 30.0, "window": WINDOW}, "and not both"),
    ],
)
def test_what_cannot_be_asked_of_a_lead_is_refused(objective, u, lead_name, asked, message):
    with pytest.raises(InputError, match=message) as caught:
        lead_sensitivity(objective, u, lead_name, **asked)
    assert "\n" not in str(caught.value)


# --- electrodes ----------------------------------------------------------------------------------

SMALL = 0.3  # mm: what a misplaced electrode does is linear in it


@pytest.fixture(scope="module")
def fitted(objective):
    """The objective at its optimum: what the model says at the centre of the prior is measured."""
    centre = np.zeros(len(objective.free))
    signals = eqx.filter_jit(objective.predict)(jnp.asarray(centre)).signals
    return with_data(objective, signals), centre


@pytest.fixture(scope="module")
def field(x64_module):
    mesh = small_heart().mesh
    return movable_field(mesh, intracellular_tensor(small_twin()), dtype=np.float64)


def data_of(objective, positions) -> np.ndarray:
    """Leads at the centre of the prior with electrodes elsewhere, by the field of resting ones."""
    twin, model = small_twin(), objective.model
    values = objective.values(jnp.zeros(len(objective.free)))
    names, weights = lead_weights(twin.electrodes.names)
    weights = weights[[names.index(name) for name in objective.data.names]]
    shares = lead_shares(
        twin.heart.mesh, Electrodes(twin.electrodes.names, positions), intracellular_tensor(twin),
        dtype=np.float64,
    )  # fmt: skip
    wave = wave_ecg(
        twin.heart.mesh.tets, np.einsum("le,etk->ltk", weights, shares), model.wave.templates,
        objective.data.t, crossing=model.wave.crossing, lowpass=objective.data.lowpass,
        dtype=np.float64,
    )  # fmt: skip
    return np.asarray(_leads(wave, model.lat(values)) * model.body.gains(values))


@eqx.filter_jit
def _leads(wave, lat):
    return wave(lat)


def test_leads_change_as_if_electrodes_were_moved(fitted, field):
    objective, centre = fitted
    names = small_twin().electrodes.names
    study = electrode_study(
        objective, centre, sd_mm=20.0, draws=3, names=names, field=field, seed=3
    )
    assert study.electrodes == names
    assert study.leads == objective.data.names
    places = np.asarray(small_twin().electrodes.positions)
    here = data_of(objective, places)
    for k in (1, 5):  # an electrode of the limbs, one of the chest
        changes = []
        for way in study.moved[k]:
            there = places.copy()
            there[k] += way
            changes.append(data_of(objective, there) - here)
        expected = np.sqrt((np.stack(changes) ** 2).mean(axis=(0, 1)))
        # the two fields are integrated differently: equal to 1e-4 at this distance
        assert study.lead_change[k] == pytest.approx(expected, abs=1e-3 * expected.max())
    chest = names.index("V2")
    assert study.lead_change[chest].argmax() == objective.data.names.index("V2")


def test_electrodes_move_along_the_skin(fitted, field):
    objective, centre = fitted
    study = electrode_study(objective, centre, sd_mm=20.0, draws=40, field=field)
    towards = np.asarray(small_twin().electrodes.positions) - np.asarray(
        objective.model.body.centre
    )
    across = (
        np.einsum("edk,ek->ed", study.moved, towards) / np.linalg.norm(towards, axis=1)[:, None]
    )
    assert np.abs(across).max() < 1e-9
    # two directions of 20 mm each: a mean of 360 such squares is known to 5 %
    assert (study.moved**2).sum(axis=2).mean() == pytest.approx(2 * 20.0**2, rel=0.2)
    assert study.electrodes == tuple("012345678")


def test_the_fit_moves_as_foretold(fitted, field):
    """Each electrode is truly elsewhere, the fit does not know, and is done anew."""
    objective, centre = fitted
    study = electrode_study(objective, centre, sd_mm=SMALL, draws=3, field=field, seed=1)
    places = np.asarray(small_twin().electrodes.positions)
    here = data_of(objective, places)
    own = np.asarray(objective.data.signals)
    for k in (2, 4):
        there = places.copy()
        there[k] += study.moved[k, 0]
        moved = with_data(objective, own + data_of(objective, there) - here)
        found = fit(moved, centre, iterations=5, tolerance=0.0).u
        error = np.linalg.norm(found - study.shift[k, 0]) / np.linalg.norm(found)
        assert error < 0.03
    assert study.together == pytest.approx(study.shift.sum(axis=0))


def test_bias_is_in_the_units_of_the_parameters(fitted, field):
    objective, centre = fitted
    one, twice = (
        electrode_study(objective, centre, sd_mm=sd, draws=3, field=field)
        for sd in (SMALL, 2 * SMALL)
    )
    assert one.parameters == objective.free.names
    for k, name in enumerate(one.parameters):
        step = np.zeros(len(centre))
        step[k] = 1e-6
        ends = [objective.free.flat(jnp.asarray(s * step))[k] for s in (1, -1)]
        slope = float(ends[0] - ends[1]) / 2e-6
        assert one.slope[k] == pytest.approx(slope, rel=GRAD), name
    shift = np.sqrt((one.shift**2).mean(axis=1))
    assert one.bias == pytest.approx(shift * np.abs(one.slope))
    assert one.relative_bias == pytest.approx(shift / one.sd)
    assert ((one.sd > 0) & (one.sd <= 1)).all()
    gap = np.linalg.norm(twice.shift - 2 * one.shift, axis=2)
    assert (gap < 0.05 * np.linalg.norm(twice.shift, axis=2)).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"field": None}, "no lead field of moving electrodes: give one"),
        ({"sd_mm": 0.0}, "50 draws of 0 mm, expected positive numbers"),
        ({"sd_mm": np.nan}, "50 draws of nan mm"),
        ({"draws": 0}, "0 draws of 20 mm"),
        ({"names": ("RA", "LA")}, "there are 9 electrodes and 2 names"),
    ],
)
def test_a_study_that_makes_no_sense_is_refused(fitted, field, given, message):
    objective, centre = fitted
    with pytest.raises(InputError, match=message):
        electrode_study(objective, centre, **{"field": field, **given})
