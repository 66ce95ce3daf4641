"""Pacing and biomarkers: definitions on drawn action potentials, gradients, bad requests."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import EXACT32, EXACT64, GRAD

from twinheart.cell import MitchellSchaeffer, apd, biomarkers, get_model, pace_cell
from twinheart.cell.response import some_beats, start_pacing, timing_of
from twinheart.errors import ModelError


def triangle(t, rise, fall, v_rest=-80.0, v_peak=20.0, start=10.0):
    """Linear upstroke and linear repolarisation: every crossing is known."""
    up = (t - start) / rise
    down = 1 - (t - start - rise) / fall
    return v_rest + (v_peak - v_rest) * np.clip(np.minimum(up, down), 0, 1)


# --- biomarkers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("percent", [20, 50, 90.0])
def test_apd_of_a_triangle(percent, x64):
    t = np.arange(0, 400, 0.5)
    vm = triangle(t, rise=2.0, fall=200.0)
    level = 1 - percent / 100
    exact = (2.0 - 2.0 * level) + 200.0 * (1 - level)
    assert apd(t, vm, percent).item() == pytest.approx(exact, rel=EXACT64)


def test_biomarkers_of_several_cells_at_once(x64):
    t = np.arange(0, 400, 0.5)
    vm = np.stack([triangle(t, 2.0, fall) for fall in (100.0, 200.0, 300.0)], axis=1)
    found = biomarkers(t, vm)
    np.testing.assert_allclose(found.apd90, 0.9 * (2 + np.array([100, 200, 300])), rtol=EXACT64)
    np.testing.assert_allclose(found.v_rest, -80)
    np.testing.assert_allclose(found.v_peak, 20)
    np.testing.assert_allclose(found.dvdt_max, 50)


def test_apd_is_nan_where_there_is_no_action_potential(x64):
    t = np.arange(0, 100, 0.5)
    never_back = triangle(t, 2.0, 300.0)
    vm = np.stack([np.full(len(t), -85.0), never_back, triangle(t, 2.0, 50.0)], axis=1)
    assert np.isnan(apd(t, vm)).tolist() == [True, True, False]
    grad = jax.grad(lambda vm: jnp.nansum(apd(t, vm)))(jnp.asarray(vm))
    assert jnp.isfinite(grad).all()


# --- pacing -------------------------------------------------------------------------------------


def test_mitchell_schaeffer_lasts_as_the_paper_derives():
    """Leading order of the paper: APD_max = tau_close ln(1 / h_min), h_min = 4 tau_in / tau_out.

    It holds for well separated time constants, so the error shrinks with tau_in and tau_out.
    """
    expected = 150.0 * np.log(6.0 / 0.4)
    error = []
    for scale in (1.0, 0.1):
        cell = MitchellSchaeffer(tau_in=0.1 * scale, tau_out=6.0 * scale)
        trace = pace_cell(cell, bcl=600.0, dt=0.05 * scale)
        error.append(abs(apd(trace.t, trace.vm).item() / expected - 1))
    assert error[1] < 0.03 < error[0]


def test_pacing_continues_where_it_stopped():
    cell = get_model("mitchell-schaeffer")
    whole = pace_cell(cell, n_beats=3, bcl=300.0, dt=0.1)
    first = pace_cell(cell, n_beats=2, bcl=300.0, dt=0.1)
    rest = pace_cell(cell, bcl=300.0, dt=0.1, initial=first.final)
    kept = pace_cell(cell, n_beats=3, keep_beats=1, bcl=300.0, dt=0.1)
    assert whole.vm.shape == whole.t.shape == (9001,)
    np.testing.assert_array_equal(whole.vm[6000:], rest.vm)
    np.testing.assert_array_equal(whole.vm[6000:], kept.vm)
    np.testing.assert_allclose(kept.t, whole.t[6000:])


def test_parameters_per_cell_pace_many_cells():
    cell = MitchellSchaeffer(tau_close=np.array([100.0, 150.0, 200.0]))
    trace = pace_cell(cell, bcl=600.0, dt=0.1)
    assert trace.vm.shape == (6001, 3)
    assert trace.states["h"].shape == (6001, 3)
    together = apd(trace.t, trace.vm)
    alone = pace_cell(MitchellSchaeffer(tau_close=200.0), bcl=600.0, dt=0.1)
    np.testing.assert_allclose(together[2], apd(alone.t, alone.vm), rtol=EXACT32)
    assert jnp.all(jnp.diff(together) > 0)


@pytest.mark.parametrize("observed", [False, True])
def test_changes_below_rounding_add_up(observed):
    """A slow leak from u = 0.01: a step changes the voltage by 3, later 1, of its 8e-6 mV ulps."""
    tau, dt, bcl = 1000.0, 0.02, 200.0
    cell = MitchellSchaeffer(tau_in=1e9, tau_out=tau)
    start = jnp.float32(-83.75), cell.initial_state()
    if observed:
        timing = timing_of(bcl, 1.0, dt, np.float32)
        beats = some_beats(cell, start_pacing(*start), timing, timing.steps, jnp.float32(0), 5)
        end = beats[0].vm
    else:
        end = pace_cell(cell, amplitude=0, bcl=bcl, dt=dt, n_beats=5, initial=start).vm[-1]
    assert abs(end - (-85 + 1.25 * (1 - dt / tau) ** 50_000)) < 3 * np.spacing(np.float32(85))


def test_stimulus_lasts_its_duration():
    """The charge of a subthreshold stimulus arrives whole, and only after its start."""
    cell = MitchellSchaeffer(tau_in=1e9, tau_out=1e9)  # no ionic current: a pure capacitor
    trace = pace_cell(cell, amplitude=3.0, duration=2.0, start=1.0, bcl=5.0, dt=0.1)
    assert trace.vm[10].item() == pytest.approx(-85.0)
    assert trace.vm[-1].item() == pytest.approx(-85.0 + 3.0 * 2.0, rel=EXACT32)


def test_gradient_of_apd_with_respect_to_parameters(x64):
    cell = get_model("mitchell-schaeffer")

    @jax.jit
    def duration(tau_close, amplitude):
        trace = pace_cell(
            dataclasses.replace(cell, tau_close=tau_close),
            bcl=400.0,
            dt=0.1,
            amplitude=amplitude,
        )
        return apd(trace.t, trace.vm)

    at = (150.0, 52.0)
    found = jax.jit(jax.grad(duration, argnums=(0, 1)))(*at)
    for k, eps in enumerate((1e-5, 1e-5)):
        plus, minus = list(at), list(at)
        plus[k] += eps
        minus[k] -= eps
        central = (duration(*plus) - duration(*minus)) / (2 * eps)
        assert found[k].item() == pytest.approx(central.item(), rel=GRAD)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dt": 0.0}, "must be positive"),
        ({"n_beats": 0}, "must be positive"),
        ({"n_beats": 1, "keep_beats": 2}, "keep_beats <= n_beats"),
        ({"bcl": 100.01, "dt": 0.02}, "bcl=100.01 ms is not a multiple.*nearest is 100"),
        ({"sample_every": 0.03, "dt": 0.02}, "sample_every=0.03 ms is not a multiple of dt"),
        ({"start": 99.5, "bcl": 100.0}, "the stimulus ends 100.5 ms into a cycle"),
    ],
)
def test_impossible_requests_are_refused(wrong, message):
    with pytest.raises(ModelError, match=message):
        pace_cell(get_model("mitchell-schaeffer"), **wrong)
