"""Protocols on single cells: limit cycles, restitution, refractory period, currents, biomarkers."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import BIOMARKER_MS, EXACT32, EXACT64, GRAD

from twinheart.cell import (
    MitchellSchaeffer,
    Paced,
    alternans,
    apd,
    beat_durations,
    biomarkers,
    calcium_transient,
    channel_currents,
    dynamic_restitution,
    early_afterdepolarisations,
    effective_refractory_period,
    get_model,
    limit_cycle,
    net_charge,
    pace_cell,
    s1s2_restitution,
    scale_channels,
)
from twinheart.cell.currents import stored_state
from twinheart.cell.paced_cache import cache_folder
from twinheart.errors import ModelError

# Mitchell and Schaeffer's map is the limit of fast currents. At a hundredth of the published
# tau_in and tau_out what is left of its error is below 2 % of a duration; see the tests.
ASYMPTOTIC = 0.02


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("TWINHEART_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fast(epsilon, **parameters) -> MitchellSchaeffer:
    """Mitchell-Schaeffer cell whose currents are `epsilon` times as slow as published."""
    return MitchellSchaeffer(tau_in=0.3 * epsilon, tau_out=6.0 * epsilon, **parameters)


def ms_map(di, tau_close=150.0, tau_open=120.0, h_min=0.2):
    """APD after a diastolic interval, equation 3.1 ff. of Mitchell and Schaeffer 2003."""
    return tau_close * np.log((1 - (1 - h_min) * np.exp(-di / tau_open)) / h_min)


def ms_cycle(bcl, beats=2000, **times):
    """Last two durations of the map at a cycle length, beginning at rest."""
    last = [0.0, ms_map(np.inf, **times)]
    for _ in range(beats):
        last = [last[1], ms_map(bcl - last[1], **times)]
    return np.array(last)


# --- restitution and limit cycle against the theory of a map -----------------------------------


def test_limit_cycle_tends_to_the_fixed_point_of_the_map():
    error = []
    for epsilon in (1.0, 0.1, 0.01):
        found = limit_cycle(fast(epsilon), 400.0, dt=0.02 * max(epsilon, 0.05), tolerance=1e-4)
        assert found.converged
        assert found.rhythm == "1:1"
        error.append(abs(found.apd90[1] / ms_cycle(400.0)[1] - 1))
    assert error[2] < ASYMPTOTIC
    assert error[2] < error[1] < error[0]


def test_restitution_tends_to_the_map():
    error = []
    for epsilon in (1.0, 0.1, 0.01):
        dt = 0.02 * max(epsilon, 0.05)
        found = s1s2_restitution(fast(epsilon), 600.0, s2=[600, 500, 400, 350], n_s1=2, dt=dt)
        assert found.captured.all()
        error.append(np.abs(found.apd / ms_map(found.di) - 1).max())
    assert error[2] < ASYMPTOTIC
    assert error[2] < error[1] < error[0]


def test_alternans_is_found_where_the_map_has_it():
    """With a fast gate the slope of the map at its fixed point exceeds one: beats alternate.

    Extrapolation would converge to that fixed point; it must not be taken for the limit cycle.
    """
    cell, expected = fast(0.05, tau_open=45.0), ms_cycle(255.0, tau_open=45.0)
    assert abs(expected[1] - expected[0]) > 20
    for accelerate in (True, False):
        found = limit_cycle(cell, 255.0, dt=0.005, tolerance=1e-3, accelerate=accelerate)
        assert found.rhythm == "alternans"
        assert found.period == 2
        after = ms_map(255.0 - found.apd90, tau_open=45.0)
        # After a diastolic interval of 12 ms currents a twentieth as slow are not yet fast.
        np.testing.assert_allclose(found.apd90[::-1], after, rtol=5 * ASYMPTOTIC)
    dynamic = dynamic_restitution(cell, [300, 255], dt=0.005, n_beats=50)
    assert dynamic.alternans[0] < 1.0 < 20 < dynamic.alternans[1]


def test_dynamic_restitution_lies_on_the_map_and_sums_to_the_cycle():
    found = dynamic_restitution(fast(0.05), [600, 500, 400, 300], dt=0.005, n_beats=10, ramp=5)
    np.testing.assert_allclose(found.apd, ms_map(found.di), rtol=2 * ASYMPTOTIC)
    cycle = found.di[:, 1] + found.apd[:, 0]
    np.testing.assert_allclose(cycle, found.interval, rtol=1e-4)
    assert 0 < found.max_slope < 1  # no alternans down to 300 ms


def test_slope_is_that_of_the_curve():
    s2 = np.arange(500.0, 340.0, -20)
    found = s1s2_restitution(fast(0.02), 600.0, s2=s2, n_s1=2, dt=0.002)
    di = found.di[:, 0]
    expected = np.diff(ms_map(di)) / np.diff(di)
    assert found.max_slope == pytest.approx(expected.max(), rel=2 * ASYMPTOTIC)


# --- rhythms ------------------------------------------------------------------------------------


def test_a_cycle_shorter_than_the_refractory_period_is_said():
    cell = get_model("mitchell-schaeffer")
    blocked = limit_cycle(cell, 200.0, dt=0.1)
    assert blocked.rhythm == "2:1 block"
    assert blocked.period == 2
    assert np.isnan(blocked.alternans)
    assert np.isfinite(blocked.apd90).sum() == 1
    dynamic = dynamic_restitution(cell, [500, 200], dt=0.1, n_beats=20)
    assert dynamic.captured.sum(axis=1).tolist() == [2, 1]
    assert np.isnan(dynamic.di[1]).all()


def test_a_weak_stimulus_is_said():
    cell = get_model("mitchell-schaeffer")
    found = limit_cycle(cell, 400.0, dt=0.1, amplitude=5.0)
    assert found.rhythm == "no capture"
    with pytest.raises(ModelError, match="does not answer stimuli of 5 A/F for 1 ms"):
        s1s2_restitution(cell, 400.0, dt=0.1, amplitude=5.0)


def test_cells_side_by_side_are_those_alone():
    close = [100.0, 150.0]
    together = MitchellSchaeffer(tau_close=np.array(close))
    cycle = limit_cycle(together, 260.0, dt=0.1)
    curve = s1s2_restitution(together, 600.0, s2=[500, 300], n_s1=3, dt=0.1)
    erp = effective_refractory_period(together, 600.0, n_s1=3, resolution=2.0, dt=0.1)
    assert curve.apd.shape == (2, 1, 2)
    for k, tau_close in enumerate(close):
        cell = MitchellSchaeffer(tau_close=tau_close)
        alone = limit_cycle(cell, 260.0, dt=0.1)
        assert cycle.rhythm[k] == alone.rhythm
        same = s1s2_restitution(cell, 600.0, s2=[500, 300], n_s1=3, dt=0.1)
        np.testing.assert_allclose(curve.apd[..., k], same.apd, rtol=EXACT32)
        one = effective_refractory_period(cell, 600.0, n_s1=3, resolution=2.0, dt=0.1)
        assert abs(erp.erp[k] - one.erp) < 0.2  # brackets end where rounding to dt puts them


def test_refractory_period_is_the_edge_of_capture():
    cell = get_model("mitchell-schaeffer")
    found = effective_refractory_period(cell, 600.0, n_s1=3, resolution=1.0, dt=0.1)
    s2 = np.array([found.erp + 1, found.erp])
    edge = s1s2_restitution(cell, 600.0, s2=s2, n_s1=3, dt=0.1)
    assert edge.captured[:, 0].tolist() == [True, False]
    assert found.apd_over_erp == pytest.approx(found.apd90 / found.erp)
    regular = pace_cell(cell, n_beats=3, keep_beats=1, bcl=600.0, dt=0.1)
    assert found.apd90 == pytest.approx(float(apd(regular.t - 1200, regular.vm)), abs=0.1)


@pytest.mark.slow
def test_limit_cycle_of_concentrations():
    """Where extrapolation ends, plain pacing stays; as many plain beats from rest end elsewhere.

    A plain run to the limit cycle is no reference: within 1,600 beats it does not meet the
    criterion, while the error of the time step moves K_i along its nearly free direction.
    """
    cell = get_model("tentusscher2006-epi")
    quick = limit_cycle(cell, 500.0, dt=0.05)
    assert quick.converged
    plain = {"dt": 0.05, "accelerate": False, "tolerance": 1e-12}
    on = limit_cycle(quick.model, 500.0, max_beats=200, **plain)
    early = limit_cycle(cell, 500.0, max_beats=int(quick.beats), **plain)

    def sodium(found):
        return float(found.model.initial["na_i"])

    assert abs(on.apd90[1] - quick.apd90[1]) < 0.2 * BIOMARKER_MS
    assert abs(sodium(on) / sodium(quick) - 1) < 2e-3
    assert abs(sodium(early) - sodium(on)) > 10 * abs(sodium(quick) - sodium(on))
    trace = pace_cell(quick.model, bcl=500.0, dt=0.05)
    assert float(apd(trace.t, trace.vm)) == pytest.approx(float(quick.apd90[1]), abs=0.05)


# --- paced models and their cache ---------------------------------------------------------------


def test_a_paced_model_continues_bit_for_bit():
    cell = get_model("tentusscher2006-epi")
    settings = {"bcl": 20.0, "dt": 0.02, "sample_every": 1.0}
    first = pace_cell(cell, **settings)
    on = pace_cell(cell, initial=first.final, **settings)
    paced = Paced(cell, *first.final)
    again = pace_cell(paced, **settings)
    np.testing.assert_array_equal(on.vm, again.vm)
    for name, value in on.states.items():
        np.testing.assert_array_equal(value, again.states[name])
    assert paced.name == cell.name
    assert paced.dt == cell.dt
    assert paced.state_names == cell.state_names
    assert float(paced.initial["k_i"]) == pytest.approx(float(first.states["k_i"][-1]))


def test_a_paced_model_can_be_changed_inside():
    paced = Paced(get_model("mitchell-schaeffer"), -80.0, (0.5,))
    other = scale_channels(Paced(get_model("tentusscher2006-m"), *_start()), {"i_kr": 0.5})
    assert isinstance(other, Paced)
    assert other.initial_vm() == _start()[0]
    assert paced.initial["h"] == 0.5
    with pytest.raises(ModelError, match="has 1 state variables, got 2"):
        Paced(get_model("mitchell-schaeffer"), -80.0, (0.5, 0.5))


def _start():
    cell = get_model("tentusscher2006-m")
    return cell.initial_vm(), cell.initial_state()


def leaves(model):
    return [np.asarray(x) for x in jax.tree.leaves(eqx.filter(model, eqx.is_array))]


def test_cache_gives_the_same_numbers_and_misses_what_changed(folder):
    def paced(bcl=400.0, **parameters):
        return limit_cycle(get_model("mitchell-schaeffer", **parameters), bcl, dt=0.1)

    assert cache_folder() == folder
    fresh = paced()
    assert len(list(folder.iterdir())) == 1
    again = paced()
    assert len(list(folder.iterdir())) == 1
    for one, other in zip(leaves(fresh.model), leaves(again.model), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    for field in dataclasses.fields(fresh):
        if field.name not in ("model", "bcl"):
            np.testing.assert_array_equal(getattr(fresh, field.name), getattr(again, field.name))
    paced(tau_close=151.0)
    paced(bcl=410.0)
    limit_cycle(get_model("modified-mitchell-schaeffer"), 400.0, dt=0.1)
    assert len(list(folder.iterdir())) == 4
    limit_cycle(get_model("mitchell-schaeffer"), 420.0, dt=0.1, cache=False)
    assert len(list(folder.iterdir())) == 4


def test_cache_is_read(folder):
    """What is read back is the file, not a second computation."""
    cell = get_model("mitchell-schaeffer")
    limit_cycle(cell, 400.0, dt=0.1)
    (path,) = folder.iterdir()
    stored = dict(np.load(path))
    stored["change"] = np.asarray(0.125)
    np.savez(path, **stored)
    assert limit_cycle(cell, 400.0, dt=0.1).change == 0.125


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_damaged_cache_file_is_written_again(folder, content):
    cell = get_model("mitchell-schaeffer")
    fresh = limit_cycle(cell, 400.0, dt=0.1)
    (path,) = folder.iterdir()
    path.write_bytes(content)
    again = limit_cycle(cell, 400.0, dt=0.1)
    np.testing.assert_array_equal(fresh.model.vm, again.model.vm)
    assert set(np.load(path)) >= {"vm", "state0", "beats"}


def test_cache_of_another_shape_or_with_objects_is_ignored(folder):
    cell = get_model("mitchell-schaeffer")
    fresh = limit_cycle(cell, 400.0, dt=0.1)
    (path,) = folder.iterdir()
    stored = dict(np.load(path))
    np.savez(path, **{**stored, "vm": np.zeros(3)})
    assert limit_cycle(cell, 400.0, dt=0.1).model.vm == fresh.model.vm
    np.savez(path, **{**stored, "vm": np.array({"a": 1}, object)})
    assert limit_cycle(cell, 400.0, dt=0.1).model.vm == fresh.model.vm


def test_a_folder_that_cannot_be_written_is_only_warned_of(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.warns(UserWarning, match="was not kept"):
        found = limit_cycle(get_model("mitchell-schaeffer"), 400.0, dt=0.1, cache=blocked)
    assert found.converged


# --- bad requests -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bcl": 100.01}, "bcl=100.01 ms is not a multiple of dt"),
        ({"dt": -0.1}, "all must be positive"),
        ({"bcl": 0.5}, "the stimulus no longer than the cycle"),
        ({"tolerance": 0.0}, "all must be positive"),
    ],
)
def test_impossible_limit_cycles_are_refused(wrong, message):
    with pytest.raises(ModelError, match=message):
        limit_cycle(get_model("mitchell-schaeffer"), **{"bcl": 400.0, **wrong})


def test_a_step_that_is_too_long_names_one_that_works():
    cell = fast(0.1)
    with pytest.raises(ModelError, match=r"blows up at dt=4 ms; dt=0.02 ms works"):
        limit_cycle(cell, 400.0, dt=4.0, duration=4.0, cache=False)


def test_traced_parameters_are_refused():
    def duration(tau):
        return limit_cycle(MitchellSchaeffer(tau_close=tau), 400.0, dt=0.1).model.vm

    with pytest.raises(ModelError, match="needs known parameters"):
        jax.grad(duration)(150.0)


def test_impossible_protocols_are_refused():
    cell = get_model("mitchell-schaeffer")
    with pytest.raises(ModelError, match=r"S2 comes 0\.5 ms after S1"):
        s1s2_restitution(cell, 400.0, s2=[0.5], n_s1=1, dt=0.1)
    with pytest.raises(ModelError, match="regular beats is 0"):
        s1s2_restitution(cell, 400.0, n_s1=0, dt=0.1)
    with pytest.raises(ModelError, match=r"n_beats >= ramp \+ 2"):
        dynamic_restitution(cell, [400], n_beats=5, ramp=10)
    with pytest.raises(ModelError, match=r"at least dt=0\.1"):
        effective_refractory_period(cell, 400.0, resolution=0.01, dt=0.1)


# --- currents -----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["tentusscher2006-epi", "ohara-rudy-endo"])
def beat(request):
    """A beat in float64, sampled, and all its currents."""
    with jax.enable_x64(True):
        cell = get_model(request.param)
        trace = pace_cell(cell, bcl=300.0, dt=0.02, sample_every=1.0)
        currents = channel_currents(cell, trace.vm, stored_state(cell, trace.states))
        yield cell, trace, currents


def test_channel_currents_add_up(beat, x64):
    cell, trace, currents = beat
    whole = {n: x for n, x in currents.items() if n not in ("i_cana", "i_cak")}
    state = stored_state(cell, trace.states)
    total = jax.jit(lambda vm, state: cell.rates(vm, state)[0])(trace.vm, state)
    scale = sum(np.abs(x) for x in whole.values())
    assert (np.abs(sum(whole.values()) - total) < EXACT64 * scale).all()


def test_a_blocked_channel_carries_nothing(x64):
    cell = get_model("tentusscher2006-epi", g_kr=np.array([0.0, 0.153]))
    vm, state = jnp.full(2, -20.0), tuple(jnp.full(2, x) for x in cell.initial_state())
    found = channel_currents(Paced(cell, vm, state), vm, state)
    assert found["i_kr"][0] == 0
    assert found["i_kr"][1] > 0
    # I_Kr = g_kr sqrt(K_o / 5.4) xr1 xr2 (V - E_K)
    e_k = 8314.472 * 310 / 96485.3415 * math.log(5.4 / 136.89)
    expected = 0.153 * 0.00621 * 0.4712 * (-20.0 - e_k)
    assert float(found["i_kr"][1]) == pytest.approx(expected, rel=EXACT64)


# --- biomarkers ---------------------------------------------------------------------------------


def test_triangulation_and_amplitude(x64):
    t = np.arange(0, 400, 0.5)
    vm = np.interp(t, [0, 10, 12, 212, 400], [-80, -80, 20, -80, -80])
    found = biomarkers(t, vm)
    assert float(found.amplitude) == pytest.approx(100.0)
    assert float(found.apd30) == pytest.approx(0.3 * 202)
    assert float(found.triangulation) == pytest.approx(0.6 * 202)


def test_calcium_transient_of_a_triangle(x64):
    t = np.arange(0, 800, 0.5)
    ca = np.interp(t, [0, 40, 440, 800], [1e-4, 6e-4, 1e-4, 1e-4])
    found = calcium_transient(t, np.stack([ca, 2 * ca], axis=1))
    np.testing.assert_allclose(found.amplitude, [5e-4, 1e-3])
    np.testing.assert_allclose(found.diastolic, [1e-4, 2e-4])
    np.testing.assert_allclose(found.time_to_peak, 40.0)
    np.testing.assert_allclose(found.duration80, 0.8 * 440.0)
    np.testing.assert_allclose(found.duration90, 0.9 * 440.0)


@pytest.mark.parametrize(
    ("points", "count", "size", "repolarised"),
    [
        # plain
        ([(11, 30), (250, 0), (300, -80)], 0, 0, True),
        # notch and a dome that is still rising when the search begins
        ([(11, 30), (20, 0), (150, 25), (280, -80)], 0, 0, True),
        # two humps of 15 and 10 mV
        ([(11, 30), (250, -20), (280, -5), (310, -30), (340, -20), (420, -80)], 2, 15, True),
        # a ripple below the smallest hump
        ([(11, 30), (250, 0), (255, 1), (320, -80)], 0, 0, True),
        # a hump after repolarisation is a delayed one
        ([(11, 30), (300, -80), (350, -60), (400, -80)], 0, 0, True),
        # no repolarisation
        ([(11, 30), (250, -20), (300, -5), (499, -10)], 1, 15, False),
    ],
)
def test_early_afterdepolarisations_of_drawn_beats(points, count, size, repolarised, x64):
    t = np.arange(0, 500, 0.25)
    vm = np.interp(t, *zip((0, -80), (10, -80), *points, strict=True))
    rest = np.full_like(t, -80.0)
    found = early_afterdepolarisations(t, np.stack([vm, rest], axis=1))
    assert found.count.tolist() == [count, 0]
    assert float(found.size[0]) == pytest.approx(size, abs=1e-9)
    assert found.repolarised.tolist() == [repolarised, False]


def test_alternans_of_drawn_beats(x64):
    t = np.arange(0, 1200.5, 0.5)
    knots = [(0, -80), (2, 20), (202, -80), (400, -80), (402, 20), (562, -80), (800, -80)]
    vm = np.interp(t, *zip(*knots, (802, 20), (1002, -80), (1200, -80), strict=True))
    np.testing.assert_allclose(beat_durations(t, vm, 400.0), 0.9 * np.array([202, 162, 202]))
    assert float(alternans(t, vm, 400.0)) == pytest.approx(36.0)
    with pytest.raises(ModelError, match="not whole beats of bcl=350"):
        beat_durations(t, vm, 350.0)
    with pytest.raises(ModelError, match="at least two beats"):
        alternans(t[:801], vm[:801], 400.0)


def test_net_charge_is_the_integral_of_its_currents(beat, x64):
    cell, trace, currents = beat
    counted = sum(currents.get(n, 0) for n in ("i_nal", "i_cal", "i_kr", "i_to", "i_ks", "i_k1"))
    counted = counted - currents.get("i_cana", 0) - currents.get("i_cak", 0)
    found = net_charge(cell, trace.t, trace.vm, trace.states)
    expected = float(np.trapezoid(counted, trace.t)) / 1000  # A/F ms = 1e-3 uC/uF
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_net_charge_has_a_derivative_and_needs_channels(x64):
    cell = get_model("tentusscher2006-epi")
    trace = pace_cell(cell, bcl=50.0, dt=0.02, sample_every=2.0)

    def charge(g_kr):
        changed = dataclasses.replace(cell, g_kr=g_kr)
        return net_charge(changed, trace.t, trace.vm, trace.states)

    slope = (charge(0.154) - charge(0.152)) / 0.002
    assert float(jax.grad(charge)(0.153)) == pytest.approx(float(slope), rel=GRAD)
    other = get_model("mitchell-schaeffer")
    with pytest.raises(ModelError, match="qNet of cell model 'mitchell-schaeffer' is undefined"):
        net_charge(other, trace.t, trace.vm, {"h": trace.vm})
