"""The whole loss of a calibration: its derivatives, its determinism, and where it breaks down."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calibration_samples import ALL, APD, BEAT, small_heart, small_objective, some_numbers
from tolerances import EXACT64, GRAD

from twinheart.calibration import MapOperator, Objective, descend, fit
from twinheart.calibration.losses import CorrelationLoss, MapLoss, WaveformLoss, combined_loss
from twinheart.calibration.model import Conduction
from twinheart.calibration.state import digest, load_state
from twinheart.errors import InputError, SolverError
from twinheart.tissue import wave_tangents

STEP = 1e-5  # of a standard number
# The tangents of the front that a fit uses are summed in float32.
TANGENTS = 1e-3


pytestmark = pytest.mark.usefixtures("x64_module")


@pytest.fixture(scope="module")
def whole(x64_module):
    """A whole beat; all that can be free is free."""
    return small_objective(ALL, fast=True, window=BEAT)


@pytest.fixture(scope="module")
def few(x64_module):
    return small_objective()


@pytest.fixture(scope="module")
def gradient(whole):
    u = some_numbers(whole, seed=1)
    return u, *slope_of(whole, u)


@eqx.filter_jit
def value_of(loss, u):
    return loss(u)


@eqx.filter_jit
def slope_of(objective, u):
    return jax.value_and_grad(lambda u: objective.loss(u))(jnp.asarray(u))


def differences(objective, u) -> np.ndarray:
    steps = STEP * np.eye(len(u))
    ends = [[float(value_of(objective.loss, u + s * way)) for s in (1, -1)] for way in steps]
    return np.array([(one - other) / (2 * STEP) for one, other in ends])


def test_gradient_of_the_whole_loss(whole, gradient):
    """By velocities, sites, onsets, electrodes, pose, gains and repolarisation, each by itself."""
    u, _, found = gradient
    expected = differences(whole, u)
    # a derivative that happens to be nearly zero is known as well as those of its kind
    size = np.maximum(np.abs(expected), 1e-3 * np.abs(expected).max())
    error = np.abs(found - expected) / size
    assert dict(zip(whole.free.names, error, strict=True)) == pytest.approx(
        dict.fromkeys(whole.free.names, 0.0), abs=GRAD
    )
    data_part = expected - u  # without the prior: every parameter does something
    assert (np.abs(data_part) > 1e-6 * np.abs(data_part).max()).all()


def test_velocities_have_derivatives_by_the_factor_of_a_region():
    """In forward mode, which a fit takes, and in reverse."""
    base = jnp.array([[0.6, 0.3, 0.3], [0.5, 0.2, 0.2], [0.4, 0.1, 0.1]])
    fast, scaled = np.zeros(3, bool), np.array([1, 2], np.int32)
    conduction = Conduction(base, base[0], fast, scaled, None, None, None)

    def total(factor):
        return conduction({"cv_scale": factor}).sum()

    for derivative in (jax.jacfwd(total), jax.grad(total)):
        assert derivative(jnp.array([1.2, 0.7])).tolist() == pytest.approx([0.9, 0.6])


def test_gradient_of_the_stage_of_the_t_wave(whole, gradient):
    """With the activation fixed the loss and its derivatives are those of the whole."""
    u, value, found = gradient
    own = np.array([name.split("[")[0] in APD for name in whole.free.names])
    fixed = {n: x for n, x in whole.values(jnp.asarray(u)).items() if n not in APD}
    stage = Objective(whole.model, whole.data, whole.free.only(APD), fixed=fixed)
    assert stage.lat is not None
    loss, by_apd = slope_of(stage, u[own])
    assert np.asarray(by_apd) == pytest.approx(np.asarray(found)[own], rel=1e-9)
    assert float(loss) + 0.5 * u[~own] @ u[~own] == pytest.approx(float(value), rel=1e-9)


def test_jacobian_of_the_fit_is_that_of_the_loss(few):
    """Gauss-Newton's gradient, by compiled tangents in float32, against reverse mode."""
    u = some_numbers(few, seed=2)
    residual, jacobian = (np.asarray(x) for x in few.linearised(jnp.asarray(u)))
    loss, expected = slope_of(few, u)
    assert np.abs(jacobian.T @ residual + u - expected).max() < TANGENTS * np.abs(expected).max()
    assert 0.5 * (residual @ residual + u @ u) == pytest.approx(float(loss))


# --- sums of losses ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_map(few):
    """Five points at nodes of the heart, with times of a slow wave."""
    nodes = np.linspace(0, small_heart().mesh.n_nodes - 1, 5).astype(np.int32)
    times = np.array([10.0, 60.0, 35.0, 80.0, 20.0])
    weights = np.tile([1.0, 0.0, 0.0], (5, 1))
    return MapOperator(np.tile(nodes[:, None], 3), weights, times, None, np.full(5, 6.8), None)


def test_likelihood_of_the_waveform_alone_is_the_objective(few):
    u = some_numbers(few, seed=3)
    combined = combined_loss(few, [WaveformLoss(few.data)])
    expected = float(value_of(few.loss, u))
    assert float(value_of(combined, u)) == pytest.approx(expected, rel=EXACT64)


def test_terms_are_weighted_and_added_to_the_prior(few, of_map):
    u = some_numbers(few, seed=3)
    terms = [WaveformLoss(few.data), MapLoss(of_map), CorrelationLoss(few.data)]
    weights = [1.0, 2.0, 30.0]
    combined = combined_loss(few, terms, weights)

    @jax.jit
    def run(u):
        return combined.parts(u), few.predict(u), *jax.value_and_grad(lambda u: combined(u))(u)

    found, prediction, value, slope = run(jnp.asarray(u))
    parts = [w * float(t(prediction)) for w, t in zip(weights, terms, strict=True)]
    assert found.tolist() == pytest.approx(parts, rel=1e-9)
    assert float(value) == pytest.approx(sum(parts) + 0.5 * u @ u, rel=1e-9)
    way = np.random.default_rng(0).normal(size=len(u))
    ends = [float(run(jnp.asarray(u + s * STEP * way))[2]) for s in (1, -1)]
    assert slope @ way == pytest.approx((ends[0] - ends[1]) / (2 * STEP), rel=GRAD)


@pytest.mark.parametrize("weights", [[], [1.0], [1.0, 0.0], [1.0, -2.0], [1.0, np.nan]])
def test_weights_that_make_no_sense_are_refused(few, of_map, weights):
    terms = [WaveformLoss(few.data), MapLoss(of_map)]
    with pytest.raises(InputError, match=r"2 terms with weights .* a positive weight for each"):
        combined_loss(few, terms, weights)
    with pytest.raises(InputError, match=r"0 terms .*: expected at least one term"):
        combined_loss(few, [])


# --- determinism ---------------------------------------------------------------------------------


def test_the_same_start_gives_the_same_fit_bit_for_bit(few, monkeypatch):
    """With sums that are shared out among threads, too."""
    monkeypatch.setattr(wave_tangents, "cores", lambda: 3)
    u = some_numbers(few, seed=4)
    one, same = (fit(few, u, iterations=3, tolerance=0.0) for _ in range(2))
    assert one.iterations == 3
    assert np.array_equal(one.u, same.u)
    assert np.array_equal(one.jacobian, same.jacobian)
    assert [step["loss"] for step in one.history] == [step["loss"] for step in same.history]


def test_an_interrupted_fit_converges_when_a_whole_one_does(few, tmp_path):
    """Every iteration counts as idle here, before the interruption as after it."""
    u, options = some_numbers(few, seed=4), {"iterations": 9, "tolerance": 1.0, "patience": 3}
    whole = fit(few, u, **options)
    kept = tmp_path / "fit.npz"
    fit(few, u, **{**options, "iterations": 1}, checkpoint=kept)
    resumed = fit(few, u, **options, checkpoint=kept)
    assert (resumed.result, resumed.iterations) == (whole.result, whole.iterations)


# --- a loss that is no number --------------------------------------------------------------------


def test_nan_names_the_parameter_and_the_last_good_state_is_kept(few, tmp_path):
    """A fit that breaks down in its third iteration goes on from the second when it is mended."""
    u, kept = some_numbers(few, seed=4), tmp_path / "fit.npz"
    whole = fit(few, u, iterations=4, tolerance=0.0)
    column = few.free.names.index("offset")
    with pytest.MonkeyPatch.context() as patch:
        usual, calls = Objective.linearised, []

        def linearised(self, u):
            calls.append(u)
            residual, jacobian = usual(self, u)
            broken = jnp.asarray(jacobian).at[5, column].set(jnp.nan)
            return residual, broken if len(calls) > 2 else jacobian

        patch.setattr(Objective, "linearised", linearised)
        with pytest.raises(SolverError, match="derivative of the loss by offset is not finite"):
            fit(few, u, iterations=4, tolerance=0.0, checkpoint=kept)
    state = load_state(kept, digest(few))
    assert state is not None
    assert len(state.history) == 2
    assert np.isfinite(state.u).all()
    assert state.loss == whole.history[1]["loss"]
    again = fit(few, u, iterations=4, tolerance=0.0, checkpoint=kept)
    assert np.array_equal(again.u, whole.u)


def test_steps_into_nan_are_never_taken(few, monkeypatch):
    """Beyond a wall the loss is no number: the fit stays before it, better than its start."""
    u = some_numbers(few, seed=4)
    gain = few.free.names.index("gain")
    usual, free = Objective.residuals, fit(few, u, iterations=3, tolerance=0.0)
    wall = u[gain] + 0.5 * (free.u[gain] - u[gain])
    side = np.sign(free.u[gain] - wall)

    def residuals(self, batch):
        beyond = side * (np.asarray(batch)[:, gain] - wall) > 0
        return np.where(beyond[:, None], np.nan, usual(self, batch))

    monkeypatch.setattr(Objective, "residuals", residuals)
    found = fit(few, u, iterations=3, tolerance=0.0)
    assert np.isfinite(found.u).all()
    assert side * (found.u[gain] - wall) <= 0
    assert found.loss < float(value_of(few.loss, u))


def test_where_every_step_is_nan_the_fit_stays(few, monkeypatch):
    monkeypatch.setattr(
        Objective, "residuals", lambda self, batch: np.full((len(batch), 3), np.nan)
    )
    u = some_numbers(few, seed=4)
    found = fit(few, u, iterations=3)
    assert np.array_equal(found.u, u)
    assert found.result == "no step lowers the loss"


def test_descent_keeps_the_last_number():
    def loss(u):
        return jnp.where(u[0] > 2.0, jnp.nan, jnp.sum((u - 3.0) ** 2))

    u, history, result = descend(loss, np.zeros(2), iterations=30)
    assert np.isfinite(u).all()
    assert u[0] <= 2.0
    assert float(loss(u)) <= history[0]["loss"]
    assert result in ("no step lowers the loss", "converged", "iterations")
    with pytest.raises(SolverError, match="not finite at the start"):
        descend(loss, np.full(2, 5.0))
