"""Cell models: registry, published equations, parameters, finite values and gradients."""

import dataclasses
import functools
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
    parameter_names,
    step,
)
from twinheart.errors import ModelError

# Voltages at which a formula of TT06 has a removable singularity or changes branch.
SINGULAR = (15.0, -40.0, 0.0)


# Grid on which everything must be finite: -120 to 60 mV every 0.01 mV, which meets the singular
# points of the published rate functions to the last digit that papers print.
FINE = np.round(np.linspace(-120.0, 60.0, 18001), 2)
# As many nodes, so that nothing is compiled again, from -150 to 150 mV.
WIDE = np.linspace(-150.0, 150.0, 18001)
# Parameters per node against scalars, float32: XLA may round a quotient of parameters otherwise.
PER_NODE = 1e-4


def _one_a_class() -> tuple[str, ...]:
    """First model of each class, and the one whose class has other equations for it."""
    first: dict[type, str] = {}
    for name in model_names():
        first.setdefault(type(get_model(name)), name)
    return (*first.values(), "tentusscher2006-endo")


_derivative = jax.jit(derivative)


@jax.jit
@functools.partial(jax.value_and_grad, argnums=(0, 1, 2), has_aux=True)
def _rates_and_gradients(model, vm, state):
    """Sum of all rates, its derivatives, and the rates themselves."""
    i_ion, rates = model.rates(vm, state, 1.0)
    return jnp.sum(i_ion) + sum(jnp.sum(x) for x in jax.tree.leaves(rates)), (i_ion, rates)


@pytest.fixture(params=model_names())
def model(request) -> AbstractCellModel:
    return get_model(request.param)


@pytest.fixture(params=_one_a_class())
def one_a_class(request) -> AbstractCellModel:
    return get_model(request.param)


def fields(model) -> list[str]:
    """Names of the parameters, which are all fields that hold a number."""
    return list(parameter_names(model))


def shared_equations(model) -> AbstractCellModel:
    """The same numbers in the first variant of the class, where the class allows it."""
    if not getattr(type(model), "variants_share_equations", False):
        return model
    return dataclasses.replace(type(model)(), **{k: getattr(model, k) for k in fields(model)})


def many(model, n, seed=0):
    """Random but possible voltages and states, (n,) each: gates anywhere, others near the start."""
    rng = np.random.default_rng(seed)
    vm = jnp.asarray(rng.uniform(-100, 60, n))
    state = []
    for name, start in model.initial.items():
        is_gate = name not in model.units and 0 <= start <= 1
        x = rng.uniform(0, 1, n) if is_gate else start * rng.uniform(0.8, 1.2, n)
        state.append(jnp.asarray(x - model.offsets.get(name, 0.0), vm.dtype))
    return vm, tuple(state)


# --- registry -----------------------------------------------------------------------------------


def test_every_name_gives_a_model_of_that_name(model):
    assert model.name in model_names()
    assert get_model(model.name).name == model.name
    assert model.reference.startswith("doi:10.")
    assert len(model.initial_state()) == len(model.state_names)
    assert set(model.physical(model.initial_state())) == set(model.state_names)
    assert model.stimulus.amplitude > 0
    assert model.stimulus.duration > 0
    assert 0 < model.dt <= 0.05


def test_tables_name_what_exists(model):
    """Units of all parameters; offsets and units of states; channels that are parameters."""
    for field in dataclasses.fields(model):
        assert field.metadata.get("static") or field.metadata["unit"], field.name
    assert set(model.offsets) <= set(model.state_names)
    assert set(model.units) <= set(model.state_names)
    assert set(model.channels.values()) <= set(fields(model))
    assert all(name.startswith(("i_", "j_")) for name in model.channels)


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


def test_parameters_per_node_equal_scalars_and_nothing_is_compiled_twice(one_a_class):
    model, n = shared_equations(one_a_class), 5
    traces = []

    @jax.jit
    def rates(model, vm, state):
        traces.append(1)
        return derivative(model, vm, state, 1.0)

    vm, state = many(model, n)
    rng = np.random.default_rng(3)
    factors = {name: rng.uniform(0.95, 1.05, n).astype(np.float32) for name in fields(model)}
    per_node, *ones = (
        dataclasses.replace(
            model, **{name: getattr(model, name) * x[k] for name, x in factors.items()}
        )
        for k in (slice(None), *range(n))
    )
    found = jax.tree.leaves(rates(per_node, vm, state))
    for k, one in enumerate(ones):
        for x, x_one in zip(found, jax.tree.leaves(rates(one, vm, state)), strict=True):
            assert x.dtype == jnp.float32
            scale = np.abs(x_one).max()
            np.testing.assert_allclose(x[k], x_one[k], rtol=PER_NODE, atol=PER_NODE * scale)
    # numbers of any kind, and the variants of one paper
    for value in (0.2, jnp.float32(0.3), np.float32(0.4)):
        rates(dataclasses.replace(model, **{fields(model)[0]: value}), vm, state)
    for name in model_names():
        variant = shared_equations(get_model(name))
        if type(variant) is type(model) and variant.name == model.name:
            rates(variant, vm, state)
    assert len(traces) == 2


def test_every_channel_is_linear_in_its_parameter(one_a_class, x64):
    """None, once and twice the parameter: the current grows by the same amount, exactly."""
    model, n = get_model(one_a_class.name), 20
    vm, state = many(model, n)

    @jax.jit
    def i_ion(values):
        return model_of(values).rates(vm, state)[0]

    def model_of(values):
        return dataclasses.replace(model, **values)

    names = {name: p for name, p in model.channels.items() if name.startswith("i_")}
    usual = {parameter: getattr(model, parameter) for parameter in names.values()}
    once = np.asarray(i_ion(usual))
    for name, parameter in names.items():
        none, twice = (np.asarray(i_ion(usual | {parameter: k * usual[parameter]})) for k in (0, 2))
        assert np.isfinite(none).all(), name
        largest = np.abs([none, once, twice]).max(axis=0)
        assert (np.abs(twice - 2 * once + none) < EXACT64 * largest).all(), name
        assert (twice != once).any(), f"{name} is no part of the ionic current"


def test_every_parameter_is_a_differentiable_leaf(model):
    leaves = jax.tree.leaves(model)
    assert len(leaves) == len(fields(model))
    assert all(eqx.is_inexact_array(x) and not x.weak_type for x in leaves)


# --- finite values and gradients ----------------------------------------------------------------


@pytest.mark.parametrize("vm", [FINE, WIDE], ids=["fine", "wide"])
def test_rates_and_gradients_are_finite_and_gates_valid(model, vm):
    """Float32: no overflow of powers, no 0/0; steady states in [0, 1], rates positive."""
    model = shared_equations(model)
    vm = jnp.asarray(vm, jnp.float32)
    (_, (i_ion, rates)), grads = _rates_and_gradients(model, vm, _full(model, len(vm)))
    for x in jax.tree.leaves((i_ion, rates, grads)):
        assert jnp.isfinite(x).all()
        assert x.dtype == jnp.float32
    for name, rate in zip(model.state_names, rates, strict=True):
        # An occupancy of a Markov chain relaxes too, but only the whole chain stays in [0, 1].
        if isinstance(rate, Gate) and name not in model.units and not name.startswith("ikr_"):
            steady = rate.steady + model.offsets.get(name, 0.0)
            assert jnp.all((steady >= -1e-6) & (steady <= 1 + 1e-6)), name
            assert jnp.all(rate.rate > 0), name


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
