"""Cell models: registry, published equations, parameters, finite values and gradients."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published_cells import ODE_NAMES, load_ode
from tolerances import EXACT32, EXACT64, GRAD

from twinheart.cell import (
    AbstractCellModel,
    Gate,
    MitchellSchaeffer,
    TenTusscher2006,
    derivative,
    get_model,
    model_names,
    step,
)
from twinheart.errors import ModelError

# Voltages at which a formula of TT06 has a removable singularity or changes branch.
SINGULAR = (15.0, -40.0, 0.0)


# Compiled once per model and shape: eager evaluation would compile every operation on its own.
_step = jax.jit(step)
_derivative = jax.jit(derivative)


@pytest.fixture(params=model_names())
def model(request) -> AbstractCellModel:
    return get_model(request.param)


@pytest.fixture(params=["mitchell-schaeffer", "tentusscher2006-epi"])
def paper(request) -> AbstractCellModel:
    """One model per paper, for what takes long to compile."""
    return get_model(request.param)


@pytest.fixture
def x64():
    """Double precision for the whole test."""
    with jax.enable_x64(True):
        yield


def many(model, n, seed=0):
    """Random but possible voltages and states, (n,) each."""
    rng = np.random.default_rng(seed)
    vm = jnp.asarray(rng.uniform(-100, 60, n))
    dtype = vm.dtype
    state = []
    for name, start in zip(model.state_names, model.initial_state(), strict=True):
        concentration = name.startswith(("ca_", "na_", "k_"))
        low, high = (start * 0.8, start * 1.2) if concentration else (0.0, 1.0)
        state.append(jnp.asarray(rng.uniform(low, max(high, low), n), dtype))
    return vm, tuple(state)


# --- registry -----------------------------------------------------------------------------------


def test_every_name_gives_a_model_of_that_name(model):
    assert model.name in model_names()
    assert get_model(model.name).name == model.name
    assert model.reference.startswith("doi:10.")
    assert len(model.initial_state()) == len(model.state_names)
    assert set(model.physical(model.initial_state())) == set(model.state_names)


def test_unknown_model_names_the_nearest():
    with pytest.raises(ModelError, match=r"'tentuscher2006-epi'.*nearest is 'tentusscher2006-epi'"):
        get_model("tentuscher2006-epi")


def test_unknown_parameter_names_the_nearest():
    with pytest.raises(ModelError, match="no parameter 'g_krr'; the nearest is 'g_kr'"):
        get_model("tentusscher2006-epi", g_krr=0.1)
    with pytest.raises(ModelError, match="no parameter 'variant'"):
        get_model("tentusscher2006-epi", variant="endo")


@pytest.mark.parametrize("value", [float("nan"), np.array([0.1, np.inf]), "much", None])
def test_values_that_are_no_finite_numbers_are_refused(value):
    with pytest.raises(ModelError, match=r"tentusscher2006-m: g_kr=.* is not a finite number"):
        get_model("tentusscher2006-m", g_kr=value)


def test_parameters_may_be_traced():
    def current(g_kr):
        model = get_model("tentusscher2006-m", g_kr=g_kr)
        return step(model, jnp.asarray(0.0), model.initial_state(), 0.02)[0]

    slope = jax.jit(jax.grad(current))(0.1)
    assert slope > 0  # outward


def test_unknown_variant_is_refused():
    with pytest.raises(ModelError, match="no variant 'atrial'; choose one of epi, endo, m"):
        TenTusscher2006("atrial")


def test_variants_differ_as_published():
    epi, endo, m = (TenTusscher2006(v) for v in ("epi", "endo", "m"))
    assert [x.g_to.item() for x in (epi, endo, m)] == pytest.approx([0.294, 0.073, 0.294])
    assert [x.g_ks.item() for x in (epi, endo, m)] == pytest.approx([0.392, 0.392, 0.098])
    assert TenTusscher2006("endo", g_to=0.1).g_to.item() == pytest.approx(0.1)
    k = endo.state_names.index("s")
    vm = jnp.asarray([-67.0, -28.0])
    gates: list[Any] = [x.rates(vm, _full(x, 2))[1][k] for x in (epi, endo, m)]
    # endo: s_inf = 1/2 at -28 mV, tau_s = 1008 ms at -67 mV; epi and M: s_inf = 1/2 at -20 mV
    np.testing.assert_allclose(gates[1].steady[1], 0.5, rtol=EXACT32)
    np.testing.assert_allclose(1 / gates[1].rate[0], 1008.0, rtol=EXACT32)
    np.testing.assert_array_equal(gates[0].steady, gates[2].steady)


def _full(model, n):
    return tuple(jnp.full(n, x) for x in model.initial_state())


# --- equations ----------------------------------------------------------------------------------


def test_tentusscher_equations_equal_the_published_file(data, x64):
    """Every derivative at 2000 random points against the exported CellML equations, in float64."""
    path = data / "cell" / "ode" / "tentusscher_panfilov_2006_epi_cell.ode"
    _, start, right_hand_side = load_ode(path)
    rng = np.random.default_rng(1)
    n = 2000
    vm = np.r_[rng.uniform(-150, 100, n), 15 + rng.uniform(-10, 10, n)]
    given = {}
    for ours, theirs in ODE_NAMES.items():
        around = 0.05 if ours == "k_i" else 0.5
        is_gate = ours[:3] not in ("ca_", "na_", "k_i")
        given[ours] = (
            rng.uniform(0, 1, 2 * n)
            if is_gate
            else start[theirs] * rng.uniform(1 - around, 1 + around, 2 * n)
        )
    model = TenTusscher2006("epi")
    state = tuple(
        jnp.asarray(given[name] - model.offsets.get(name, 0.0)) for name in model.state_names
    )
    dvm, dstate = _derivative(model, jnp.asarray(vm), state)
    # The file rounds R and F to three digits; ours are those of the CellML file behind the trace.
    constants = {"R": 8.314472, "F": 96.4853415, "stim_amplitude": 0.0}
    named = {theirs: given[ours] for ours, theirs in ODE_NAMES.items()}
    expected = right_hand_side(V=vm, **constants, **named)
    pairs = {"V": dvm} | {ODE_NAMES[k]: x for k, x in zip(model.state_names, dstate, strict=True)}
    for name, found in pairs.items():
        want = expected[f"d{name}_dt"]
        scale = np.abs(want) + 1e-6 * np.abs(want).max()
        # 1e-6: two series (exp(0.0002 (v - E_K + 100)) in I_K1, z / (e^z - 1) in I_CaL) are cut
        # at 1e-8 of their current, and the total current can be 100 times smaller than its parts
        assert np.max(np.abs(found - want) / scale) < 1e-6, name


def test_mitchell_schaeffer_equations():
    model = MitchellSchaeffer()
    v, h = np.array([0.05, 0.12, 0.14, 0.8]), np.array([0.9, 0.3, 0.7, 0.2])
    dvm, (dh,) = derivative(model, jnp.asarray(-85 + 125 * v, jnp.float32), (jnp.asarray(h),))
    np.testing.assert_allclose(dvm / 125, h * v**2 * (1 - v) / 0.3 - v / 6, rtol=1e-4)
    np.testing.assert_allclose(dh, np.where(v < 0.13, (1 - h) / 120, -h / 150), rtol=EXACT32)


def test_stimulus_charge_is_booked_on_potassium():
    model = get_model("tentusscher2006-epi")
    vm, state = many(model, 5)
    k = model.state_names.index("k_i")
    rest, paced = (_derivative(model, vm, state, i)[1] for i in (0.0, 40.0))
    expected = 40.0 * 0.185 / (0.016404 * 96485.3415)
    np.testing.assert_allclose(paced[k] - rest[k], expected, rtol=1e-3)
    assert all(bool(jnp.all(a == b)) for a, b in zip(paced[:k], rest[:k], strict=True))


# --- parameters ---------------------------------------------------------------------------------


def test_parameters_per_node_equal_a_loop_of_scalars(paper):
    n = 7
    model = paper
    vm, state = many(model, n)
    names = [f.name for f in dataclasses.fields(model) if f.name != "variant"]
    rng = np.random.default_rng(3)
    factors = {name: rng.uniform(0.9, 1.1, n).astype(np.float32) for name in names}
    per_node = dataclasses.replace(
        model, **{name: getattr(model, name) * factors[name] for name in names}
    )
    i_ion, new = _step(per_node, vm, state, 0.02)
    for k in range(n):
        one = dataclasses.replace(
            model, **{name: getattr(model, name) * factors[name][k] for name in names}
        )
        i_one, new_one = _step(one, vm[k], tuple(x[k] for x in state), 0.02)
        np.testing.assert_allclose(i_ion[k], i_one, rtol=1e-4, atol=1e-4)
        for x, x_one in zip(new, new_one, strict=True):
            np.testing.assert_allclose(x[k], x_one, rtol=EXACT32, atol=1e-7)


def test_one_compilation_for_all_parameter_values(paper):
    traces = []

    @eqx.filter_jit
    def run(model, vm, state):
        traces.append(1)
        return step(model, vm, state, 0.02)

    model = paper
    vm, state = many(model, 3)
    field = next(f.name for f in dataclasses.fields(model) if f.name != "variant")
    for value in (0.2, jnp.float32(0.3), np.float32(0.4)):
        run(dataclasses.replace(model, **{field: value}), vm, state)
    assert len(traces) == 1


def test_every_parameter_is_a_differentiable_leaf(model):
    names = [f.name for f in dataclasses.fields(model) if f.name != "variant"]
    leaves = jax.tree.leaves(model)
    assert len(leaves) == len(names)
    assert all(eqx.is_inexact_array(x) and not x.weak_type for x in leaves)


# --- finite values and gradients ----------------------------------------------------------------


def test_rates_are_finite_and_gates_valid_over_all_voltages(model):
    """From -150 to +150 mV in float32: no overflow of the powers, steady states in [0, 1]."""
    vm = jnp.linspace(-150.0, 150.0, 3001)
    i_ion, rates = jax.jit(lambda vm, state: model.rates(vm, state))(vm, _full(model, 3001))
    assert jnp.isfinite(i_ion).all()
    for name, rate in zip(model.state_names, rates, strict=True):
        if isinstance(rate, Gate):
            assert jnp.all((rate.steady >= 0) & (rate.steady <= 1 + 1e-6)), name
            assert jnp.all((rate.rate > 0) & jnp.isfinite(rate.rate)), name
        else:
            assert jnp.isfinite(rate).all(), name


def test_gradients_are_finite_everywhere(paper):
    model = paper
    vm = jnp.concatenate([jnp.linspace(-150.0, 150.0, 301), jnp.asarray(SINGULAR)])
    state = _full(model, len(vm))

    def total(model, vm, state):
        i_ion, new = step(model, vm, state, 0.02)
        return jnp.sum(i_ion) + sum(jnp.sum(x) for x in new)

    grads = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(model, vm, state)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(grads))


def test_gradient_of_the_current_equals_central_differences(x64):
    model = get_model("tentusscher2006-epi")
    vm, state = many(model, 64, seed=5)
    vm = vm.at[:3].set(jnp.asarray(SINGULAR) + 1e-3)

    @jax.jit
    def i_ion(v):
        return derivative(model, v, state)[0]

    slope = jax.jvp(i_ion, (vm,), (jnp.ones_like(vm),))[1]
    eps = 1e-4
    central = (i_ion(vm + eps) - i_ion(vm - eps)) / (2 * eps)
    np.testing.assert_allclose(slope, central, rtol=GRAD, atol=GRAD)


def test_l_type_calcium_current_is_smooth_at_15_mv(x64):
    """Third differences of I_ion across 15 mV and both edges of the series show no kink."""
    model = get_model("tentusscher2006-epi")
    vm = 15 + jnp.linspace(-8.0, 8.0, 1601)
    dvm, _ = _derivative(model, vm, tuple(jnp.full(1601, x) for x in model.initial_state()))
    # d^3 I / dv^3 is about 1e-6 A/F/mV^3 here; times (0.01 mV)^3 it drowns in rounding
    assert jnp.abs(jnp.diff(dvm, n=3)).max() < 1e3 * EXACT64


def test_state_and_voltage_keep_their_precision(model):
    i_ion, new = step(model, model.initial_vm(), model.initial_state(), 0.02)
    assert i_ion.dtype == jnp.float32
    assert {x.dtype for x in new} == {jnp.dtype("float32")}
