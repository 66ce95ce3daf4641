"""Differentiable features: near the hard ones, and their gradients exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tolerances

from twinheart.ecg import (
    Ecg,
    delineate,
    frontal_axis,
    smooth_axis,
    smooth_qrs_bounds,
    smooth_qrs_duration,
    smooth_qtc,
    smooth_t_end,
    smooth_t_peak,
)

HARD_MS = 6.0  # ms: half of what a person and the hard features may differ
NAMES = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
GAINS = np.array([0.7, 1.0, -0.8, -0.6, 0.5, 1.2, 1.0, 0.8])


STEP = 2.0  # ms; one shape for most tests, since compiling takes longer than running
T = np.arange(0.0, 800.0, STEP)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def beat(t, qrs_end=290.0, t_mean=480.0, xp=np):
    phase = (t - 200.0) / (qrs_end - 200.0)
    qrs = xp.where((phase > 0) & (phase < 1), (1 - xp.cos(2 * np.pi * phase)) / 2, 0.0)
    t_wave = 0.3 * xp.exp(-(((t - t_mean) / 35.0) ** 2) / 2)
    return qrs[:, None] * GAINS + t_wave[:, None] * np.abs(GAINS)


@jax.jit
def features(t, signals):
    """QRS duration, T peak, T end, QTc at 75 beats a minute, axis, QRS onset."""
    i, ii = signals[:, 0], signals[:, 1]
    return jnp.stack(
        [
            smooth_qrs_duration(t, signals),
            smooth_t_peak(t, signals),
            smooth_t_end(t, signals),
            smooth_qtc(t, signals, 800.0),
            smooth_axis(t, signals, i, ii - i / 2),
            smooth_qrs_bounds(t, signals)[0],
        ]
    )


@pytest.mark.parametrize("step", [1.0, STEP])
def test_they_are_near_the_hard_features(step):
    t = np.arange(0.0, 800.0, step)
    signals = beat(t)
    hard = delineate(Ecg(t, signals, NAMES))
    duration, t_peak, t_end, qtc, axis, onset = np.asarray(features(t, signals))
    assert onset == pytest.approx(hard.qrs_onset, abs=HARD_MS)
    assert onset + duration == pytest.approx(hard.qrs_offset, abs=HARD_MS)
    assert t_peak == pytest.approx(hard.t_peak, abs=HARD_MS)
    assert t_end == pytest.approx(hard.t_offset, abs=HARD_MS)
    assert qtc == pytest.approx((t_end - onset) / 0.8 ** (1 / 3), rel=tolerances.EXACT32)
    leads = Ecg(t, signals[:, :2], ("I", "II"))
    assert axis == pytest.approx(frontal_axis(leads, hard.qrs), abs=1)


def test_gradients_agree_with_central_differences():
    rng = np.random.default_rng(3)
    signals = beat(T) + 1e-3 * rng.normal(size=(len(T), 8))
    jacobian = np.asarray(jax.jit(jax.jacrev(features, argnums=1))(T, signals))
    assert np.isfinite(jacobian).all()
    h = 1e-6
    for _ in range(5):
        direction = 0.1 * rng.normal(size=signals.shape)
        ahead, behind = (features(T, signals + sign * h * direction) for sign in (1, -1))
        difference = np.asarray(ahead - behind) / (2 * h)
        exact = (jacobian * direction).sum(axis=(1, 2))
        assert exact == pytest.approx(difference, rel=tolerances.GRAD)


def test_they_move_with_the_waves():
    """Derivatives with respect to the physics: the end of the QRS and the time of the T wave."""
    slope = jax.jit(
        jax.jacfwd(lambda x: features(jnp.asarray(T), beat(jnp.asarray(T), x[0], x[1], jnp)))
    )
    ends = np.linspace(285.0, 295.0, 6)
    values = [np.asarray(features(T, beat(T, end))) for end in ends]
    # the slope of a raised cosine of duration D passes 5 % of its largest value D asin(0.05) / 2 pi
    # inside both ends
    expected = 1 - np.arcsin(0.05) / np.pi
    assert (values[-1][0] - values[0][0]) / 10.0 == pytest.approx(expected, abs=0.03)
    # the corner at the onset is sharper than 2 ms between samples: the derivative depends on where
    # a sample lies, but over one interval it adds up to the change
    moved = np.array([slope(jnp.array([end, 480.0])) for end in 290.0 + STEP * np.arange(8) / 8])
    assert moved[:, 0, 0].mean() == pytest.approx(expected, abs=0.05)
    assert moved[:, 1:3, 1] == pytest.approx(np.ones((8, 2)), abs=0.05)


def test_scale_does_not_matter():
    signals = beat(T)
    assert np.allclose(features(T, 1e-3 * signals), features(T, signals), atol=1e-3)


def test_float32_suffices():
    exact = np.asarray(features(T, beat(T)))
    with jax.enable_x64(False):
        single = features(T.astype(np.float32), beat(T).astype(np.float32))
        assert single.dtype == np.float32
        assert np.allclose(single, exact, atol=0.1)
