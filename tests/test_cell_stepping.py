"""Elementary forms and time stepping: bounds for any input, theory's order of convergence."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from published_cells import solve_paced
from tolerances import EXACT32, EXACT64, ORDER

from twinheart.cell import get_model, step
from twinheart.cell.elementary import (
    SharedExponentials,
    driving_fraction,
    inverses,
    relaxed_fraction,
)

BASES = (120.0, 14.0)


def test_relaxed_fraction_is_accurate_where_it_matters(x64):
    x = jnp.logspace(-8, 2, 4001)
    found, exact = relaxed_fraction(x), -jnp.expm1(-x)
    error = jnp.abs(found - exact)
    assert jnp.max(jnp.where(x < 1, error / exact, 0.0)) < 1e-6
    assert error.max() < 3e-5
    assert jnp.diff(found).min() >= 0


@settings(deadline=None, max_examples=200)
@given(st.floats(0, 2.0**100, width=32))
def test_relaxed_fraction_stays_in_range_in_float32(x):
    phi = relaxed_fraction(jnp.float32(x)).item()
    assert 0 <= phi <= 1
    if 1e-30 < x < 1e-3:
        # 1 - exp(-x) would cancel here; the gate must keep moving
        assert phi == pytest.approx(-np.expm1(-x), rel=EXACT32)


@settings(deadline=None, max_examples=100)
@given(
    name=st.sampled_from(["tentusscher2006-epi", "tentusscher2006-endo", "mitchell-schaeffer"]),
    vm=st.floats(-150, 150, width=32),
    dt=st.floats(0.0, 1e4, width=32, allow_subnormal=False),
    start=st.floats(0, 1, width=32),
)
def test_gates_never_leave_their_range(name, vm, dt, start):
    model = get_model(name)
    gates = range(1 if name == "mitchell-schaeffer" else 12)
    state = list(model.initial_state())
    for k in gates:
        state[k] = jnp.float32(start)
    _, new = _step(model, jnp.float32(vm), tuple(state), jnp.float32(dt))
    for k in gates:
        assert -1e-6 <= new[k].item() <= 1 + 1e-6, model.state_names[k]


_step = jax.jit(step)


@given(st.lists(st.floats(0.125, 8.0, width=32), min_size=1, max_size=6))
@settings(deadline=None)
def test_inverses_are_reciprocals(values):
    found = inverses(*map(jnp.float32, values))
    np.testing.assert_allclose(found, 1 / np.asarray(values), rtol=EXACT32)


@pytest.mark.parametrize("k", [5, 6, 7, 7.5, 10, 11.5, 14, 15, 20, 24, 200])
def test_shared_exponentials(k):
    v = np.linspace(-150, 100, 51)
    e = SharedExponentials(jnp.asarray(v, jnp.float32), *BASES)
    np.testing.assert_allclose(e.rising(-20.5, k), np.exp((v + 20.5) / k), rtol=EXACT32)
    np.testing.assert_allclose(e.falling(13, k), np.exp((13 - v) / k), rtol=EXACT32)


def test_shared_exponentials_stay_powers_after_compilation():
    """XLA merges products of exponentials back into exponentials unless they are hidden."""

    def sigmoids(v):
        e = SharedExponentials(v, *BASES)
        return sum(1 / (1 + e.rising(-10.0, k)) for k in (5, 6, 10, 15, 20, 24))

    compiled = jax.jit(sigmoids).lower(jnp.zeros(1000)).compile().as_text()
    assert compiled is not None
    assert compiled.count(" exponential(") == 1


def test_driving_fraction_is_smooth_through_zero(x64):
    z = jnp.asarray([-3.0, -0.5, -1e-3, 0.0, 1e-9, 0.3, 0.5, 3.0])
    num, den = driving_fraction(z, jnp.exp(z))
    exact = jnp.where(z == 0, 1.0, z / jnp.where(z == 0, 1.0, jnp.expm1(z)))
    np.testing.assert_allclose(num / den, exact, rtol=5e-9)
    slope = jax.grad(lambda z: jnp.divide(*driving_fraction(z, jnp.exp(z))))(0.0)
    assert slope == pytest.approx(-0.5, abs=EXACT64)


@jax.jit
def _advance(model, amplitude, dt, n_on, n):
    """Voltage after `n` steps, the first `n_on` with the stimulus; compiled once for all `dt`."""

    def body(k, carry):
        vm, state = carry
        i_stim = jnp.where(k < n_on, amplitude, 0.0)
        i_ion, state = step(model, vm, state, dt, i_stim)
        return vm + dt * (i_stim - i_ion), state

    return jax.lax.fori_loop(0, n, body, (model.initial_vm(), model.initial_state()))[0]


@pytest.mark.parametrize("name", ["tentusscher2006-epi", "mitchell-schaeffer"])
def test_step_converges_with_order_one(name, x64):
    """On the plateau, against BDF: the error halves with the step."""
    model = get_model(name)
    exact = solve_paced(model, np.array([0.0, 100.0]), 52.0, 0.0, 1.0)["vm"][-1]
    steps = 0.04 / 2.0 ** np.arange(4)
    error = [
        abs(_advance(model, 52.0, dt, round(1 / dt), round(100 / dt)).item() - exact)
        for dt in steps
    ]
    slope = np.polyfit(np.log(steps), np.log(error), 1)[0]
    assert abs(slope - 1) < ORDER, error


def test_gates_before_currents_keep_the_upstroke_in_time(x64):
    """After 1 ms of stimulus, dt = 0.02 ms: within 0.2 mV of BDF (3.3 mV with currents first)."""
    model = get_model("tentusscher2006-epi")
    exact = solve_paced(model, np.array([0.0, 1.0]), 40.0, 0.0, 2.0)["vm"][-1]
    assert abs(_advance(model, 40.0, 0.02, 100, 50).item() - exact) < 0.2
