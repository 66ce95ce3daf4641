"""Atrial cell of Courtemanche 1998 and Purkinje cell of Stewart 2009: behaviour and accuracy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published_cells import solve_paced
from tolerances import BIOMARKER, EXACT32, GRAD

from twinheart.cell import AbstractCellModel, Gate, apd, derivative, get_model, pace_cell

NAMES = ("courtemanche1998", "stewart2009")
# Voltages [mV] at which a rate or a flux is 0/0, or changes branch.
SINGULAR = {
    "courtemanche1998": (-47.13, -40.0, -14.1, -10.0, 3.3328, 7.9, 19.9),
    "stewart2009": (-40.0, 15.0),
}
# Published behaviour is read off figures: 2 mV, 5 % of a duration.
READ_OFF_MV = 2.0
READ_OFF = 0.05
# What the recommended time step must reach over a paced beat, upstrokes aligned: voltage RMS
# [mV], every state RMS in parts of its range, shift of the upstroke [ms], relative APD90.
VM_RMS, STATE_RMS, SHIFT, APD90 = 0.5, 0.01, 0.05, 0.005
# Float32 against float64 over 10 beats: part of the range of a slow concentration in float64.
DRIFT = 5e-3
# Central value of a smooth rate against the mean of two neighbours 1e-3 mV away: curvature of
# rate functions, whose slopes are 5 mV or more, times 1e-6 mV^2; rounding of the 0/0 beside it.
SMOOTH = 1e-6


_derivative = jax.jit(derivative)


@pytest.fixture(params=NAMES)
def model(request) -> AbstractCellModel:
    return get_model(request.param)


def full(model, n):
    return tuple(jnp.full(n, x) for x in model.initial_state())


def crossing(t, vm, level=0.0):
    """Times of the upward crossings of `level` [ms]."""
    k = np.flatnonzero((vm[:-1] < level) & (vm[1:] >= level))
    return t[k] + (t[k + 1] - t[k]) * (level - vm[k]) / (vm[k + 1] - vm[k])


# --- published behaviour ------------------------------------------------------------------------


def test_atrial_action_potential_is_the_published_one():
    """At 1 Hz: rest at -81 mV, amplitude 106 mV, APD90 about 300 ms; less I_Kur, more plateau."""
    model = get_model("courtemanche1998", g_kur=0.005 * jnp.asarray([1.0, 0.5, 1.0]))
    amplitude = 20 * jnp.asarray([1.0, 1.0, 0.0])
    paced = pace_cell(model, n_beats=3, keep_beats=1, amplitude=amplitude, sample_every=0.5)
    t, vm = paced.t - paced.t[0], np.asarray(paced.vm)
    normal, less_kur, quiet = vm.T
    assert abs(normal[0] + 81) < READ_OFF_MV
    assert abs(normal.max() - normal[0] - 106) < READ_OFF_MV
    assert float(apd(t, normal)) == pytest.approx(300, rel=READ_OFF)
    at_50_ms = 100
    assert less_kur[at_50_ms] > normal[at_50_ms] + 5
    assert np.abs(quiet + 81).max() < READ_OFF_MV


def test_purkinje_cell_fires_by_itself_through_the_funny_current():
    """No stimulus: a steady rhythm below 1 Hz from -75 mV; I_f sets its rate, and makes it."""
    model = get_model("stewart2009", g_f=0.038 * jnp.asarray([1.0, 2.0, 0.0]))
    free = pace_cell(model, amplitude=0.0, bcl=5000.0, sample_every=0.5)
    vm = np.asarray(free.vm)
    beats = [np.diff(crossing(free.t, x, -20.0)) for x in vm.T]
    assert len(beats[0]) >= 3
    assert len(beats[1]) > len(beats[0])
    assert np.ptp(beats[0]) < BIOMARKER * beats[0].mean()
    # 1224 ms by scipy's BDF on an independent transcription of the equations
    assert beats[0].mean() == pytest.approx(1224, rel=BIOMARKER)
    assert -80 < vm[:, 0].min() < -70
    assert vm[:, 0].max() > 20
    assert len(beats[2]) == 0
    assert vm[-1, 2] < -70


# --- time step ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_recommended_time_step_is_accurate(name, x64):
    """A beat against scipy's BDF on the same equations."""
    model = get_model(name)
    end = 600.0
    exact_t = np.r_[np.arange(0, 5, 0.01), np.arange(5, end, 0.1), end]
    exact = solve_paced(model, exact_t, model.stimulus.amplitude, 0.0, model.stimulus.duration)
    paced = pace_cell(model, bcl=end)
    (upstroke,), (found,) = crossing(exact_t, exact["vm"]), crossing(paced.t, np.asarray(paced.vm))
    assert abs(found - upstroke) < SHIFT
    t = np.arange(1.0, end - 1, 0.1)

    def rms(ours, theirs):
        ours = np.interp(t + found - upstroke, paced.t, np.asarray(ours))
        return np.sqrt(np.mean((ours - np.interp(t, exact_t, theirs)) ** 2))

    assert rms(paced.vm, exact["vm"]) < VM_RMS
    for name, ours in paced.states.items():
        assert rms(ours, exact[name]) < STATE_RMS * np.ptp(exact[name]), name
    uniform = np.arange(0, end, 0.1)
    apd90 = float(apd(uniform, np.interp(uniform, exact_t, exact["vm"])))
    assert float(apd(paced.t, paced.vm)) == pytest.approx(apd90, rel=APD90)


def _ten_beats(model):
    return pace_cell(model, n_beats=10, dt=0.05, sample_every=50.0)


@pytest.mark.slow
def test_float32_keeps_the_drift_of_slow_concentrations(model):
    single = _ten_beats(model)
    with jax.enable_x64(True):
        double = _ten_beats(get_model(model.name))
    for name in ("na_i", "k_i"):
        exact = np.asarray(double.states[name], float)
        error = np.abs(np.asarray(single.states[name], float) - exact).max()
        assert error < DRIFT * np.ptp(exact), (name, error / np.ptp(exact))


# --- charge, range, gradients -------------------------------------------------------------------


def test_stimulus_charge_is_booked_on_potassium(model, x64):
    """A/F times pF (or nF) over volume and Faraday's constant, and nothing else changes."""
    model = get_model(model.name)
    per_charge = {
        "courtemanche1998": 100 / (13668 * 96.4867),
        "stewart2009": 0.185 / (0.016404 * 96485.3415),
    }[model.name]
    k = model.state_names.index("k_i")
    vm, state = model.initial_vm(), model.initial_state()
    rest, paced = (_derivative(model, vm, state, i)[1] for i in (0.0, 40.0))
    assert float(paced[k] - rest[k]) == pytest.approx(40 * per_charge, rel=EXACT32)
    assert all(a == b for i, (a, b) in enumerate(zip(paced, rest, strict=True)) if i != k)


def _check_finite(model):
    vm = jnp.concatenate([jnp.linspace(-150.0, 150.0, 6001), jnp.asarray(SINGULAR[model.name])])
    state = full(model, len(vm))

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1, 2), has_aux=True)
    def total(model, vm, state):
        i_ion, rates = model.rates(vm, state, 1.0)
        return jnp.sum(i_ion) + sum(jnp.sum(x) for x in jax.tree.leaves(rates)), (i_ion, rates)

    (_, (i_ion, rates)), grads = total(model, vm, state)
    for x in jax.tree.leaves((i_ion, rates, grads)):
        assert jnp.isfinite(x).all()
    for name, rate in zip(model.state_names, rates, strict=True):
        if isinstance(rate, Gate):
            steady = rate.steady + model.offsets.get(name, 0.0)
            assert jnp.all((steady >= 0) & (steady <= 1 + 1e-6)), name
            assert jnp.all(rate.rate > 0), name


def test_rates_and_gradients_are_finite_in_float32(model):
    _check_finite(model)


@pytest.mark.slow
def test_rates_and_gradients_are_finite_in_float64(model, x64):
    _check_finite(get_model(model.name))


def test_singular_points_are_removed_smoothly(model, x64):
    """Each 0/0 has the value and the slope that its neighbours tend to."""
    model = get_model(model.name)
    points = np.array([v for v in SINGULAR[model.name] if v != -40.0])
    h = 1e-3

    def at(vm):
        i_ion, rates = model.rates(vm, full(model, len(points)))
        return jnp.stack([i_ion, *jax.tree.leaves(rates)])

    with_slope = jax.jit(lambda vm: jax.jvp(at, (vm,), (jnp.ones_like(vm),)))
    (below, _), (centre, slope), (above, _) = (
        map(np.asarray, with_slope(jnp.asarray(points + x))) for x in (-h, 0.0, h)
    )
    scale = np.abs(centre) + 1e-9
    assert (np.abs(centre - (below + above) / 2) / scale).max() < SMOOTH
    central = (above - below) / (2 * h)
    np.testing.assert_allclose(slope, central, rtol=GRAD, atol=GRAD * np.abs(central).max())
