"""Luo-Rudy 1991 and the models of two to four variables: equations, traces, known behaviour."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import EXACT32, EXACT64

from twinheart.cell import apd, derivative, get_model, pace_cell
from twinheart.cell.bueno_orovio import BuenoOrovio
from twinheart.cell.currents import channel_currents
from twinheart.cell.fenton_karma import FentonKarma
from twinheart.errors import ModelError

# Luo-Rudy against the CellML file. Two rate functions have removable singularities, near which
# ours are series cut at 4e-9 of their value; I_ion is a sum that may cancel once more.
AWAY = 1e-9
SERIES = 2e-8
# The recorded trace has four decimal digits after the leading one: half a unit of the last, of
# voltages up to 100 mV.
PRINTED = 0.5e-4
# From the published unit of time of Aliev and Panfilov, given with two to three digits; the
# duration also depends on the stimulus.
AP_DURATION = 0.1

SMALL = (
    "modified-mitchell-schaeffer",
    "aliev-panfilov",
    "fenton-karma",
    "bueno-orovio-epi",
    "bueno-orovio-endo",
    "bueno-orovio-m",
)
# One of each paper.
PAPERS = ("luo-rudy-1991", *SMALL[:4])

_derivative = jax.jit(derivative)


def random_states(model, n, seed=0):
    rng = np.random.default_rng(seed)
    return [
        rng.uniform(1e-4, 1e-2, n) if name == "ca_i" else rng.uniform(0, 1, n)
        for name in model.state_names
    ]


def found_rates(model, vm, states):
    dvm, dstate = _derivative(model, jnp.asarray(vm), tuple(jnp.asarray(x) for x in states))
    return [np.asarray(x) for x in (dvm, *dstate)]


# --- equations, written plainly ------------------------------------------------------------------


def mms(p, vm, h):
    v = (vm - p["v_rest"]) / (p["v_peak"] - p["v_rest"])
    dv = h * v * (v - p["v_gate"]) * (1 - v) / p["tau_in"] - (1 - h) * v / p["tau_out"]
    dh = np.where(v < p["v_gate"], (1 - h) / p["tau_open"], -h / p["tau_close"])
    return (p["v_peak"] - p["v_rest"]) * dv, dh


def aliev(p, vm, v):
    u = (vm + 80) / 100
    du = -8 * u * (u - 0.15) * (u - 1) - u * v
    dv = (0.002 + 0.2 * v / (u + 0.3)) * (-v - 8 * u * (u - 0.15 - 1))
    return 100 * du / 12.9, dv / 12.9


def fenton(p, vm, v, w):
    u = (vm + 85) / 100
    above, above_v = np.heaviside(u - p["u_c"], 1), np.heaviside(u - p["u_v"], 1)
    j_fi = -v * p["g_fi"] * above * (1 - u) * (u - p["u_c"])
    j_so = u / p["tau_0"] * (1 - above) + above / p["tau_r"]
    j_si = -w / (2 * p["tau_si"]) * (1 + np.tanh(p["k"] * (u - p["u_csi"])))
    tau_v = above_v * p["tau_v1_minus"] + (1 - above_v) * p["tau_v2_minus"]
    dv = (1 - above) * (1 - v) / tau_v - above * v / p["tau_v_plus"]
    dw = (1 - above) * (1 - w) / p["tau_w_minus"] - above * w / p["tau_w_plus"]
    return -100 * (j_fi + j_so + j_si), dv, dw


def bueno(p, vm, v, w, s):
    u = (vm + 84) / 85.7
    h_v, h_w, h_o, h_v_minus = (
        np.heaviside(u - p[name], 1) for name in ("theta_v", "theta_w", "theta_o", "theta_v_minus")
    )
    tau_v_minus = (1 - h_v_minus) * p["tau_v1_minus"] + h_v_minus * p["tau_v2_minus"]
    half = (1 + np.tanh(p["k_w_minus"] * (u - p["u_w_minus"]))) / 2
    tau_w_minus = p["tau_w1_minus"] + (p["tau_w2_minus"] - p["tau_w1_minus"]) * half
    half = (1 + np.tanh(p["k_so"] * (u - p["u_so"]))) / 2
    tau_so = p["tau_so1"] + (p["tau_so2"] - p["tau_so1"]) * half
    tau_s = (1 - h_w) * p["tau_s1"] + h_w * p["tau_s2"]
    tau_o = (1 - h_o) * p["tau_o1"] + h_o * p["tau_o2"]
    v_inf = 1 - h_v_minus
    w_inf = (1 - h_o) * (1 - u / p["tau_w_inf"]) + h_o * p["w_inf_star"]
    j_fi = -v * h_v * (u - p["theta_v"]) * (p["u_u"] - u) / p["tau_fi"]
    j_so = (u - p["u_o"]) * (1 - h_w) / tau_o + h_w / tau_so
    j_si = -h_w * w * s / p["tau_si"]
    dv = (1 - h_v) * (v_inf - v) / tau_v_minus - h_v * v / p["tau_v_plus"]
    dw = (1 - h_w) * (w_inf - w) / tau_w_minus - h_w * w / p["tau_w_plus"]
    ds = ((1 + np.tanh(p["k_s"] * (u - p["u_s"]))) / 2 - s) / tau_s
    return -85.7 * (j_fi + j_so + j_si), dv, dw, ds


PLAIN = dict(zip(SMALL, (mms, aliev, fenton, bueno, bueno, bueno), strict=True))


@pytest.mark.parametrize("name", SMALL)
def test_small_models_equal_the_equations_written_plainly(name, x64):
    """At 1000 random points from rest to 30 mV above the peak."""
    model = get_model(name)
    vm = np.random.default_rng(1).uniform(float(model.initial_vm()), 70, 1000)
    states = random_states(model, 1000)
    p = {f.name: np.asarray(getattr(model, f.name)) for f in dataclasses.fields(model)}
    for found, want in zip(
        found_rates(model, vm, states), PLAIN[name](p, vm, *states), strict=True
    ):
        np.testing.assert_allclose(found, want, rtol=EXACT64, atol=EXACT64 * np.abs(want).max())


def together(cells):
    """Variants of one paper as one model, a node each."""
    same = [dataclasses.replace(cell, variant=cells[0].variant) for cell in cells]
    return jax.tree.map(lambda *x: jnp.stack(x), *same)


def test_every_set_of_fenton_and_karma_is_excitable_with_one_rest(x64):
    model = together([FentonKarma(variant) for variant in ("br", "mbr", "mlr-i", "gp")])
    rest = found_rates(model, model.initial_vm(), model.initial_state())
    # The slow inward current is not quite zero at rest: (1 + tanh(-8.5)) / 2 = 4e-8
    assert max(np.abs(x).max() for x in rest) < 1e-6
    found = pace_cell(model, bcl=600.0)
    durations = apd(found.t, found.vm)
    assert np.all((durations > 100) & (durations < 400))


def test_unknown_variants_are_refused():
    with pytest.raises(ModelError, match="no variant 'atrial'; choose one of epi, endo, m"):
        BuenoOrovio("atrial")
    with pytest.raises(ModelError, match="no variant 'crn'; choose one of br, mbr, mlr-i, gp"):
        FentonKarma("crn")


def test_a_variant_gives_only_what_is_left_out():
    assert BuenoOrovio("m", tau_si=3.0).tau_si.item() == 3.0
    assert BuenoOrovio("m").tau_si.item() == pytest.approx(3.3849)
    assert FentonKarma("gp", g_fi=5.0).g_fi.item() == 5.0


# --- rest ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_rest_is_a_fixed_point(name, x64):
    model = get_model(name)
    states = dict(zip(model.state_names, model.initial_state(), strict=True))
    if isinstance(model, BuenoOrovio):  # s is published as 0, close to its steady state
        states["s"] = 0.5 * (1 + jnp.tanh(-model.k_s * model.u_s))
    rates = found_rates(model, model.initial_vm(), list(states.values()))
    np.testing.assert_allclose(rates, 0.0, atol=1e-6)


def test_luo_rudy_comes_to_rest_at_its_published_voltage(x64):
    """After 20 s: -84.5 mV (paper: about -84), all rates zero."""
    model = get_model("luo-rudy-1991")
    still = pace_cell(model, bcl=20_000.0, amplitude=0.0, dt=0.1, sample_every=1000.0)
    vm, state = still.final
    assert abs(float(vm) + 84.4) < 0.5
    assert max(np.abs(x) for x in found_rates(model, vm, state)) < 1e-9


# --- Luo-Rudy 1991 -------------------------------------------------------------------------------


def test_luo_rudy_equals_the_published_file(data, x64):
    """Every derivative at 200 random points against myokit's evaluation of the CellML file."""
    myokit = pytest.importorskip("myokit")
    importer = pytest.importorskip("myokit.formats").importer("cellml")
    published = importer.model(str(data / "cell" / "cellml" / "LuoRudy1991.cellml"))
    model = get_model("luo-rudy-1991")
    n = 200
    vm = np.r_[np.random.default_rng(2).uniform(-150, 100, n - 2), -101.0, -39.999]
    states = random_states(model, n)
    order = [state.name().lower() for state in published.states()]
    assert order == ["v", "m", "h", "j", "d", "f", "x", "cai"]
    want = np.array(
        [published.evaluate_derivatives(state=list(y)) for y in np.transpose([vm, *states])]
    ).T
    near = (np.abs(0.04 * (vm + 77)) < 0.5) | (np.abs(0.1 * (vm + 47.13)) < 0.5)
    assert 20 < near.sum() < n - 20
    for name, f, w in zip(order, found_rates(model, vm, states), want, strict=True):
        error = np.abs(f - w) / (np.abs(w) + 1e-6 * np.abs(w).max())
        assert error[~near].max() < AWAY, (name, myokit.__version__)
        assert error[near].max() < SERIES, name


@pytest.fixture(scope="module")
def trace(data) -> dict[str, np.ndarray]:
    """Two beats of Chaste: 25.5 uA/cm2 for 2 ms at 50 and 550 ms, forward Euler of 0.01 ms."""
    table = np.loadtxt(data / "cell" / "traces" / "Lr91RegularStimValidData.dat", skiprows=1)
    columns = ("t", "h", "j", "m", "ca_i", "vm", "d", "f", "x")
    return dict(zip(columns, table.T, strict=True))


def test_luo_rudy_equals_the_trace_when_stepped_the_same_way(trace, x64):
    """Forward Euler of everything; Chaste's stimulus includes both ends of its interval."""
    model = get_model("luo-rudy-1991")
    dt, per_sample = 0.01, 100

    def euler(y, k):
        since = (k - 5000) % 50_000
        i_stim = jnp.where((k >= 5000) & (since <= 200), 25.5, 0.0)
        dvm, dstate = derivative(model, y[0], y[1], i_stim)
        return (y[0] + dt * dvm, tuple(x + dt * dx for x, dx in zip(y[1], dstate, strict=True)))

    def sample(y, k):
        ks = k * per_sample + jnp.arange(per_sample)
        y = jax.lax.scan(lambda y, k: (euler(y, k), None), y, ks)[0]
        return y, y

    start = (model.initial_vm(), model.initial_state())
    vm, state = jax.jit(lambda y: jax.lax.scan(sample, y, jnp.arange(1000))[1])(start)
    found = {"vm": vm} | dict(zip(model.state_names, state, strict=True))
    for name, x in found.items():
        digit = 10.0 ** np.ceil(np.log10(np.abs(trace[name]).max()))
        assert np.abs(x - trace[name][1:]).max() < 1.01 * PRINTED * digit, name


def test_luo_rudy_follows_the_trace_with_our_stepping(trace):
    """Within 1 mV at every sample, both upstrokes included, in float32 at the recommended step."""
    model = get_model("luo-rudy-1991")
    paced = pace_cell(model, n_beats=2, bcl=500.0, start=50.0, sample_every=1.0)
    np.testing.assert_allclose(paced.t, trace["t"], atol=1e-3)
    assert np.abs(np.asarray(paced.vm) - trace["vm"]).max() < 1.0


def test_luo_rudy_is_the_sum_of_its_channels(x64):
    model = get_model("luo-rudy-1991")
    vm = np.random.default_rng(3).uniform(-100, 60, 50)
    states = random_states(model, 50)
    currents = channel_currents(model, vm, tuple(jnp.asarray(x) for x in states))
    i_ion = -found_rates(model, vm, states)[0]
    np.testing.assert_allclose(sum(currents.values()), i_ion, rtol=EXACT64, atol=1e-10)


def test_stimulus_of_luo_rudy_is_not_booked_on_an_ion():
    model = get_model("luo-rudy-1991")
    start = (model.initial_vm(), model.initial_state())
    without, paced = (_derivative(model, *start, i)[1] for i in (0.0, 40.0))
    assert all(bool(a == b) for a, b in zip(without, paced, strict=True))


# --- behaviour -----------------------------------------------------------------------------------


def upstrokes(model):
    """Crossings of 0 mV within 3 s after one stimulus."""
    paced = pace_cell(model, bcl=3000.0, dt=0.05, sample_every=1.0)
    above = np.asarray(paced.vm) > 0
    return int((~above[:-1] & above[1:]).sum())


def test_modified_mitchell_schaeffer_does_not_pace_where_the_original_does():
    """A slow outward current and a fast gate: recovery overtakes repolarisation."""
    parameters = {"tau_out": 20.0, "tau_open": 20.0}
    assert upstrokes(get_model("mitchell-schaeffer", **parameters)) > 3
    assert upstrokes(get_model("modified-mitchell-schaeffer", **parameters)) == 1


def test_modified_mitchell_schaeffer_repolarises_everywhere_below_its_threshold():
    """The proof in one line: both currents are outward for 0 < v < v_gate, whatever h."""
    model = get_model("modified-mitchell-schaeffer", tau_out=20.0, tau_open=20.0)
    v, h = np.meshgrid(np.linspace(0.001, 0.129, 40), np.linspace(0, 0.999, 40))
    i_ion, _ = model.rates(jnp.asarray(-85 + 125 * v, jnp.float32), (jnp.asarray(h, jnp.float32),))
    assert bool((i_ion > 0).all())


def test_aliev_panfilov_lasts_as_published_and_shortens_with_rate():
    model = get_model("aliev-panfilov")
    found = pace_cell(model, bcl=600.0)
    assert float(apd(found.t, found.vm)) == pytest.approx(330.0, rel=AP_DURATION)
    fast, slow = steady_durations(model, (300.0, 600.0))
    assert fast + 30 < slow


@pytest.mark.parametrize("variant", ["br", "mlr-i"])
def test_fenton_karma_has_restitution(variant):
    """S1-S2: the shorter the diastolic interval, the shorter the action potential."""
    model = FentonKarma(variant)
    s1 = pace_cell(model, bcl=1000.0, sample_every=1.0)
    long = float(apd(s1.t, s1.vm))
    at = np.round(long + np.array([60, 120, 400])).astype(int)
    state = tuple(s1.states[name][at] for name in model.state_names)
    s2 = pace_cell(model, bcl=600.0, initial=(s1.vm[at], state))
    short, medium, full = np.asarray(apd(s2.t, s2.vm))
    assert short + 5 < medium < full <= long + 1


def steady_durations(model, cycles):
    """APD90 of the fifth beat at each cycle length [ms]."""
    found = []
    for bcl in cycles:
        paced = pace_cell(model, n_beats=5, keep_beats=1, bcl=bcl, dt=0.05)
        found.append(np.asarray(apd(paced.t, paced.vm)))
    return found


def all_types():
    """Epi, endo and M cells of Bueno-Orovio."""
    return together([BuenoOrovio(variant) for variant in ("epi", "endo", "m")])


def test_bueno_orovio_cell_types():
    """Human ventricle at 1 Hz: epi and endo alike, M far longer, all longer than at 2 Hz.

    The upstroke of an isolated cell is bounded by the fast inward current with an open gate,
    (u - theta_v)(u_u - u) / tau_fi at its maximum over u, and comes near it: epi < endo < M.
    """
    model = all_types()
    fast, slow = steady_durations(model, (500.0, 1000.0))
    assert np.all(fast + 5 < slow)
    epi, endo, m = slow
    assert 240 < epi < 300
    assert abs(epi - endo) < 15
    assert epi + 100 < m < 450

    paced = pace_cell(model, bcl=10.0)
    velocity = np.diff(np.asarray(paced.vm), axis=0).max(axis=0) / model.dt
    bound = 85.7 * ((model.u_u - model.theta_v) / 2) ** 2 / model.tau_fi
    assert np.all(velocity < bound)
    assert np.all(velocity > 0.7 * bound)
    assert np.all(np.diff(velocity) > 10)
    assert np.all((np.max(paced.vm, axis=0) > 35) & (np.max(paced.vm, axis=0) < 55))


def test_three_cell_types_in_one_model_are_each_itself():
    """All that differs between the variants is in array leaves: a mixture is one model."""
    mixture = all_types()
    vm = jnp.asarray([-30.0, 0.0, 20.0])
    states = [jnp.asarray(x, jnp.float32) for x in random_states(mixture, 3)]
    found = found_rates(mixture, vm, states)
    for k, variant in enumerate(("epi", "endo", "m")):
        alone = found_rates(BuenoOrovio(variant), vm[k], [x[k] for x in states])
        np.testing.assert_allclose([x[k] for x in found], alone, rtol=EXACT32)


# --- finite values and gradients -----------------------------------------------------------------

# Where a formula divides by zero or changes branch [mV], beside the grid.
SINGULAR = (-47.13, -77.0, -100.0, -40.0, -110.0, -80.0, -85.0, -84.0, -72.0, -68.75)


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, "float32") for name in PAPERS), ("luo-rudy-1991", "float64")]
)
def test_values_and_gradients_are_finite_over_all_voltages(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        model = get_model(name)
        vm = jnp.asarray(np.r_[np.linspace(-150, 150, 3001), SINGULAR], dtype)
        state = tuple(jnp.full(vm.shape, x) for x in model.initial_state())

        def total(model, vm, state):
            dvm, dstate = derivative(model, vm, state)
            return jnp.sum(dvm) + sum(jnp.sum(x) for x in dstate)

        value, grads = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(model, vm, state)
        assert jnp.isfinite(value)
        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(grads))


@pytest.mark.parametrize("name", PAPERS)
def test_float32_has_the_rates_of_float64(name):
    """No overflow of a shared power or a common denominator hides between -120 and 60 mV."""
    model = get_model(name)
    vm = np.linspace(-119.9, 59.9, 1801).astype(np.float32) + np.float32(0.013)
    states = [np.full(vm.shape, x, np.float32) for x in model.initial_state()]
    single = found_rates(model, vm, states)
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), float), model)
        double = found_rates(exact, vm.astype(float), [x.astype(float) for x in states])
    for a, b in zip(single, double, strict=True):
        assert np.abs(a - b).max() < 10 * EXACT32 * np.abs(b).max()
