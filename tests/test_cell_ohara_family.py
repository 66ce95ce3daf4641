"""O'Hara-Rudy 2011, CiPA v1.0 and ToR-ORd: equations, rest, limit cycle, drug binding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published_cells import published
from tolerances import BIOMARKER_MS

from twinheart.cell import apd, derivative, get_model, pace_cell
from twinheart.cell.ohara_rudy_currents import ghk_drive
from twinheart.errors import ModelError

SLOW = pytest.mark.slow
MODELS = ("torord-endo", "ohara-rudy-endo", "ord-cipa")

# Derivatives against the authors' equations over wide random states, relative to their own size
# plus 1e-3 of the largest: rounding, and the cut of the series of `ghk_drive`.
EQUATIONS = 1e-9
# Occupancies that are stored overshoot 0 and 1 by the first-order error of the step, per ms.
OCCUPANCY = 0.2
# Drift over one beat from the published limit cycle, in parts of the range of a state or of its
# value: the authors' sodium and potassium still move by 4e-4 of themselves (epi and M cells).
DRIFT_RANGE = 0.01
DRIFT_VALUE = 1e-3
# Dofetilide (FDA/CiPA, optimum of the hERG fits), free Cmax 2 nM.
CMAX = 2.0
DOFETILIDE = {
    **{"k_max": 35.1, "k_u": 1.816e-5, "hill": 1.08, "half_max": 216.6, "v_half": -1.0},
}


def test_torord_follows_the_authors_equations_far_from_rest(data, x64):
    model = get_model("torord-endo")
    rng, n = np.random.default_rng(0), 1000
    values = {"vm": rng.uniform(-110.0, 70.0, n)}
    occupancy = rng.dirichlet(np.ones(5), n).T
    for name, start in model.initial.items():
        if name.startswith("ikr_"):
            values[name], occupancy = occupancy[0], occupancy[1:]
        elif name in model.offsets:
            values[name] = start * rng.uniform(0.8, 1.2, n)
        elif name.startswith("ca_"):
            values[name] = 10.0 ** rng.uniform(-4.3, -2.0, n)
        else:
            values[name] = rng.uniform(0.0, 0.3 if name == "camk" else 1.0, n)
    state = tuple(jnp.asarray(values[x] - model.offsets.get(x, 0.0)) for x in model.initial)
    dvm, dstate = derivative(model, jnp.asarray(values["vm"]), state, 40.0)
    expected = published(model, data).derivatives(values, 40.0)
    found = {"vm": dvm} | dict(zip(model.initial, dstate, strict=True))
    for name, ours in found.items():
        want = np.asarray(expected[name])
        scale = np.abs(want) + 1e-3 * np.abs(want).max()
        assert np.max(np.abs(ours - want) / scale) < EQUATIONS, name


@pytest.mark.parametrize("z", [1e-9, 1e-3, 0.499999, 0.5, 3.0, -0.4, -5.0])
def test_drives_of_permeation(z, x64):
    one, two = ghk_drive(jnp.asarray(z), jnp.exp(z))
    assert float(one) == pytest.approx(z / np.expm1(z), rel=1e-10)
    assert float(two) == pytest.approx(2 * z / np.expm1(2 * z), rel=1e-10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_values_and_slopes_are_finite_at_every_voltage(name, dtype):
    """Zero, where flux equations are 0/0, and the -40 mV where the rates of I_Na change too."""
    with jax.enable_x64(dtype == "float64"):
        model = get_model(name)
        vm = jnp.linspace(-150.0, 150.0, 3001, dtype=dtype)
        state = tuple(jnp.full_like(vm, x) for x in model.initial_state())
        value, slope = jax.jvp(lambda v: derivative(model, v, state), (vm,), (jnp.ones_like(vm),))
        for x in jax.tree.leaves((value, slope)):
            assert x.dtype == dtype
            assert jnp.isfinite(x).all()


def within_a_distribution(paced, dt: float) -> bool:
    """Whether the occupancies of I_Kr are neither negative nor more than one in total."""
    stored = np.array([x for name, x in paced.states.items() if name.startswith("ikr_")])
    return bool(stored.min() >= -OCCUPANCY * dt and stored.sum(axis=0).max() <= 1 + OCCUPANCY * dt)


@pytest.mark.parametrize(
    "cell", ["endo", pytest.param("epi", marks=SLOW), pytest.param("m", marks=SLOW)]
)
def test_torord_returns_to_the_published_limit_cycle(cell):
    model = get_model(f"torord-{cell}")
    paced = pace_cell(model, bcl=1000.0)
    assert abs(float(paced.vm[-1]) - float(model.initial_vm())) < DRIFT_RANGE * 120
    for name, values in paced.states.items():
        start = model.initial[name]
        drift = abs(float(values[-1]) - start)
        spread = float(np.ptp(np.asarray(values)))
        assert drift <= max(DRIFT_RANGE * spread, DRIFT_VALUE * start), name
    assert within_a_distribution(paced, model.dt)


def test_only_dofetilide_binds_and_prolongs():
    """At four times Cmax, although few channels are bound after three beats."""
    dt = 0.02
    paced = {
        dose: pace_cell(
            get_model("ord-cipa", **DOFETILIDE, concentration=dose), bcl=1000.0, n_beats=3, dt=dt
        )
        for dose in (0.0, 4 * CMAX)
    }
    last = np.asarray(paced[0.0].t) >= 2000.0
    free, treated = (float(apd(x.t[last], x.vm[last])) for x in paced.values())
    assert treated > free + BIOMARKER_MS
    for name in ("ikr_iobound", "ikr_obound", "ikr_cbound"):
        assert np.all(np.asarray(paced[0.0].states[name]) == 0.0)
        assert np.all(np.asarray(paced[4 * CMAX].states[name][1000:]) > 0.0)
    assert all(within_a_distribution(x, dt) for x in paced.values())


def test_gradient_by_dose_is_finite_without_a_drug():
    model = get_model("ord-cipa", **DOFETILIDE)

    def binding(dose):
        dosed = get_model("ord-cipa", **DOFETILIDE, concentration=dose)
        return sum(derivative(dosed, jnp.asarray(0.0), model.initial_state())[1])

    assert jnp.isfinite(jax.grad(binding)(0.0))


@pytest.mark.parametrize("name", MODELS)
def test_currents_and_fluxes_are_proportional_to_their_parameters(name, x64):
    model = get_model(name)
    state = tuple(jnp.full((1,), x) + 0.01 for x in model.initial_state())
    vm = jnp.array([-20.0])

    def law(**changed):
        return jnp.stack(jax.tree.leaves(derivative(get_model(name, **changed), vm, state)))

    for channel, parameter in model.channels.items():
        value = float(getattr(model, parameter))
        none, half, whole = (law(**{parameter: x * value}) for x in (0.0, 0.5, 1.0))
        assert np.any(np.abs(whole - none) > 0), channel
        np.testing.assert_allclose(2 * (half - none), whole - none, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("cls", "variant"), [("ToRORd", "septal"), ("OHaraRudyCipa", "epi")])
def test_unknown_variant_is_refused(cls, variant):
    from twinheart.cell.ord_cipa import OHaraRudyCipa
    from twinheart.cell.torord import ToRORd

    with pytest.raises(ModelError, match=variant):
        {"ToRORd": ToRORd, "OHaraRudyCipa": OHaraRudyCipa}[cls](variant)
