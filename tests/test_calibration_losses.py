"""Losses of a calibration against plain programmes and theory; what they ignore by design."""

from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from tolerances import EXACT64, GRAD

from twinheart.calibration import MapOperator, Prediction, observe
from twinheart.calibration.losses import (
    CorrelationLoss,
    FeatureLoss,
    MapLoss,
    SoftDtwLoss,
    WaveformLoss,
    correlation_amplitude,
    soft_dtw,
)
from twinheart.ecg import Ecg
from twinheart.errors import InputError

LEADS = ("I", "II", "V2")
STEP = 1e-5  # of central differences in float64, relative to numbers of order one
T = np.arange(0.0, 600.0, 2.0)


@pytest.fixture(scope="module", autouse=True)
def x64():
    """Float64; what runs once is compiled without much effort."""
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_enable_x64", False)
    jax.config.update("jax_disable_most_optimizations", False)


def waves(n: int, seed: int, leads: int = 2) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).normal(0.0, 0.3, (n, leads)), axis=0)


def beat(t=T, *, late: float = 0.0, axis: float = 40.0) -> np.ndarray:
    """I, II and V2 of a beat whose frontal axis is given [degrees]."""
    t = t - late
    qrs = np.exp(-(((t - 130) / 14) ** 2)) - 0.3 * np.exp(-(((t - 160) / 10) ** 2))
    t_wave = 0.25 * np.exp(-(((t - 400) / 35) ** 2))
    angle = np.radians(axis)
    one, avf = np.cos(angle) * (qrs + t_wave), 0.5 * np.sqrt(3) * np.sin(angle) * (qrs + t_wave)
    v2 = -0.8 * np.exp(-(((t - 140) / 11) ** 2)) + 0.4 * np.exp(-(((t - 118) / 8) ** 2)) + t_wave
    return np.stack([one, avf + 0.5 * one, v2], axis=1)


@pytest.fixture
def data():
    return observe(Ecg(T, beat(), LEADS), onset=95.0, window=(-20.0, 100.0), discrepancy=0.02)


def prediction(signals, lat=(0.0,), apd=(0.0,)) -> Prediction:
    return Prediction(jnp.asarray(lat), jnp.asarray(apd), jnp.asarray(signals))


def slopes(function, x, count: int = 3, seed: int = 0, step: float = STEP):
    """Derivatives along random directions: automatic ones and central differences."""
    function, x = jax.jit(function), np.asarray(x)
    gradient = np.asarray(jax.jit(jax.grad(function))(x))
    ways = np.random.default_rng(seed).normal(size=(count, *x.shape))
    found = [float((gradient * way).sum()) for way in ways]
    expected = [
        float(function(x + step * way) - function(x - step * way)) / (2 * step) for way in ways
    ]
    return found, pytest.approx(expected, rel=GRAD)


# --- soft-DTW ------------------------------------------------------------------------------------


def plain_soft_dtw(x, y, gamma: float, band: int | None = None) -> float:
    table = np.full((len(x) + 1, len(y) + 1), np.inf)
    table[0, 0] = 0.0
    for i in range(len(x)):
        for j in range(len(y)):
            if band is None or abs(i - j) <= band:
                before = np.array([table[i, j + 1], table[i + 1, j], table[i, j]])
                soft = -gamma * logsumexp(-before / gamma) if gamma else before.min()
                table[i + 1, j + 1] = ((x[i] - y[j]) ** 2).sum() + soft
    return float(table[-1, -1])


def alignments(n: int, m: int):
    """All paths from (0, 0) to (n - 1, m - 1) whose steps are one in either or both numbers."""
    if n == 1 and m == 1:
        yield [(0, 0)]
        return
    for i, j in ((n - 1, m), (n, m - 1), (n - 1, m - 1)):
        if i and j:
            yield from ([*path, (n - 1, m - 1)] for path in alignments(i, j))


@pytest.mark.parametrize("gamma", [0.05, 1.0, 20.0])
@pytest.mark.parametrize(
    ("n", "m", "band"), [(9, 9, None), (11, 7, None), (7, 11, 5), (8, 8, 0), (1, 4, None)]
)
def test_soft_dtw_is_that_of_a_plain_programme(n, m, band, gamma):
    x, y = waves(n, 1), waves(m, 2)
    expected = plain_soft_dtw(x, y, gamma, band)
    assert float(soft_dtw(x, y, gamma=gamma, band=band)) == pytest.approx(expected, rel=EXACT64)


def test_soft_dtw_adds_up_all_alignments():
    """The definition itself: minus the logarithm of the global alignment kernel."""
    x, y, gamma = waves(5, 3), waves(4, 4), 0.7
    paths = list(alignments(5, 4))
    assert len(paths) == 129  # the Delannoy number of 4 by 3 steps
    assert all(np.abs(np.subtract(a, b)).max() == 1 for path in paths for a, b in pairwise(path))
    costs = np.array([sum(((x[i] - y[j]) ** 2).sum() for i, j in path) for path in paths])
    expected = -gamma * logsumexp(-costs / gamma)
    assert float(soft_dtw(x, y, gamma=gamma)) == pytest.approx(expected, rel=EXACT64)


def test_soft_dtw_tends_to_dtw():
    """From below, and no further away than the docstring says."""
    x, y = waves(5, 5), waves(4, 6)
    exact = plain_soft_dtw(x, y, 0.0)
    for gamma in (1.0, 0.1, 0.01, 1e-4):
        gap = exact - float(soft_dtw(x, y, gamma=gamma))
        assert -EXACT64 * exact <= gap <= gamma * np.log(129)


@pytest.mark.parametrize(("gamma", "band"), [(1.0, None), (0.2, 3)])
def test_gradient_of_soft_dtw(gamma, band):
    y = waves(8, 8)
    found, expected = slopes(lambda x: soft_dtw(x, y, gamma=gamma, band=band), waves(10, 7))
    assert found == expected


def test_soft_dtw_has_finite_derivatives_in_float32():
    """However far the alignments are apart: what stands for infinity stays out of derivatives."""
    with jax.enable_x64(False):
        x, y = (jnp.asarray(30.0 * waves(20, k), jnp.float32) for k in (1, 2))
        gradient = jax.grad(lambda x: soft_dtw(x, y, gamma=1e-3, band=4))(x)
    assert gradient.dtype == jnp.float32
    assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("row", [0, 4, 8])
def test_soft_dtw_of_what_is_no_number_is_no_number(row):
    x = waves(9, 1)
    x[row, 1] = np.nan
    assert np.isnan(float(soft_dtw(x, waves(9, 2))))


@pytest.mark.parametrize("gamma", [0.0, -1.0, np.nan, np.inf])
def test_soft_dtw_refuses_a_gamma_that_is_not_positive(gamma):
    with pytest.raises(InputError, match=r"gamma of soft-DTW is .*, expected a positive number"):
        soft_dtw(waves(3, 0), waves(3, 1), gamma=gamma)


def test_soft_dtw_refuses_a_band_that_cannot_be_crossed():
    with pytest.raises(InputError, match=r"a band of 2 samples .* beat of 9 .* one of 6.* least 3"):
        soft_dtw(waves(9, 0), waves(6, 1), band=2)


def test_divergence_is_zero_and_stationary_for_equal_beats(data):
    loss = SoftDtwLoss(data, sd=0.1, gamma=0.5)
    equal = np.asarray(data.signals)
    value, slope = jax.jit(jax.value_and_grad(lambda s: loss(prediction(s))))(equal)
    other = jax.jit(jax.grad(lambda s: loss(prediction(s))))(0.9 * equal)
    assert abs(float(value)) < EXACT64 * 100
    assert np.abs(slope).max() < EXACT64 * 100 * np.abs(other).max()


def test_divergence_without_warping_is_the_likelihood_of_white_noise(data):
    noisy = np.asarray(data.signals) + 0.2 * waves(len(data.t), 3, 3)
    step = data.t[1] - data.t[0]
    loss = SoftDtwLoss(data, sd=0.07, band=0.5 * step)(prediction(noisy))
    expected = 0.5 * float((((noisy - data.signals) / 0.07) ** 2).sum())
    assert float(loss) == pytest.approx(expected, rel=EXACT64 * 10)


def test_divergence_forgives_lateness_within_its_band(data):
    """A beat that is two samples late is the same beat, unless the band says otherwise."""
    late = np.roll(np.asarray(data.signals), 2, axis=0)
    late[:2] = data.signals[0]
    step = data.t[1] - data.t[0]
    losses = [float(SoftDtwLoss(data, sd=0.02, band=k * step)(prediction(late))) for k in (1, 2)]
    assert losses[1] < 0.1 * losses[0]
    assert float(SoftDtwLoss(data, sd=0.02)(prediction(late))) <= losses[1]


def test_divergence_sees_the_same_band_on_any_clock(data):
    """A step that is not a round number must not cost the last sample of the band."""
    moved = eqx.tree_at(lambda d: d.t, data, np.asarray(data.t) * (1 + 1e-12) + 1 / 3)
    late = prediction(np.roll(np.asarray(data.signals), 1, axis=0))
    band = 2 * (data.t[1] - data.t[0])
    found = [float(SoftDtwLoss(d, sd=0.1, band=band)(late)) for d in (data, moved)]
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["sd", "gamma", "band"])
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_divergence_refuses_numbers_that_are_not_positive(data, name, value):
    with pytest.raises(InputError, match=f"{name} of soft-DTW is .*, expected a positive"):
        SoftDtwLoss(data, **{"sd": 0.1, name: value})


# --- correlation ---------------------------------------------------------------------------------


def shape_part(signals, measured) -> float:
    rho = [np.corrcoef(a, b)[0, 1] for a, b in zip(signals.T, measured.T, strict=True)]
    return 100.0 * np.mean((1.0 - np.array(rho)) ** 2)


def size_part(signals, measured) -> float:
    return 2.0 * np.sqrt(np.mean((signals - measured) ** 2)) / np.abs(measured).max()


def test_correlation_is_pearsons():
    x, y = waves(60, 1, 4), waves(60, 2, 4)
    expected = shape_part(x, y) + size_part(x, y)
    assert float(correlation_amplitude(x, y)) == pytest.approx(expected, rel=1e-9)


def test_shape_does_not_depend_on_gain_and_baseline():
    x, y = waves(60, 1, 3), waves(60, 2, 3)
    changed = [0.3, 2.0, 17.0] * x + [1.0, -2.0, 0.5]  # each lead in its own way
    shape = float(correlation_amplitude(changed, y)) - size_part(changed, y)
    assert shape == pytest.approx(shape_part(x, y), rel=1e-8)


def test_a_beat_turned_over_has_the_worst_shape():
    y = waves(60, 2, 3)
    worst = float(correlation_amplitude(-y, y)) - size_part(-y, y)
    assert worst == pytest.approx(400.0, rel=1e-9)
    assert float(correlation_amplitude(y, y)) < EXACT64


def test_gradient_of_the_correlation():
    y = waves(40, 2, 3)
    found, expected = slopes(lambda x: correlation_amplitude(x, y), waves(40, 1, 3))
    assert found == expected


def test_correlation_has_derivatives_where_it_has_its_minimum_and_of_flat_leads():
    y = waves(40, 2, 3)
    gradient = jax.grad(lambda x: correlation_amplitude(x, y))
    assert np.abs(gradient(y)).max() < 1e-6
    flat = y * [1.0, 0.0, 1.0]
    assert np.isfinite(gradient(flat)).all()
    assert float(correlation_amplitude(flat, y)) == pytest.approx(
        100.0 / 3.0 + size_part(flat, y), rel=1e-9
    )


def test_flat_leads_of_the_data_are_named():
    signals = beat() * [1.0, 0.0, 1.0]
    flat = observe(Ecg(T, signals, LEADS), onset=95.0, window=(-20.0, 100.0))
    with pytest.raises(InputError, match=r"leads II are flat .*: leave them out"):
        CorrelationLoss(flat)


def test_correlation_loss_compares_with_the_data(data):
    signals = 0.8 * np.asarray(data.signals) + 0.1 * waves(len(data.t), 5, 3)
    expected = correlation_amplitude(jnp.asarray(signals), data.signals)
    assert float(CorrelationLoss(data)(prediction(signals))) == float(expected)


# --- waveform ------------------------------------------------------------------------------------


def test_waveform_loss_is_half_of_a_chi_square(data):
    """Noise as the data have it costs half a unit for each sample, on average."""
    count, shape = data.signals.size, data.signals.shape
    whiten = jax.jacfwd(data.whitened)(jnp.zeros(shape)).reshape(count, count)
    noise = np.linalg.solve(whiten, np.random.default_rng(0).normal(size=(count, 200)))
    loss = jax.jit(lambda s: WaveformLoss(data)(prediction(s)))
    drawn = [float(loss(data.signals + one.reshape(shape))) for one in noise.T]
    assert 2 * np.mean(drawn) == pytest.approx(count, abs=4 * np.sqrt(2 * count / 200))
    assert float(loss(data.signals)) == 0.0


def test_waveform_loss_does_not_heed_baseline_and_drift(data):
    breath = 4e-4 * (data.t - data.t[0])  # mV: less than half a mV in a second, as of breathing
    wandering = (0.2 + breath)[:, None] * [1.0, -1.0, 0.5]
    wiggle = 0.2 * np.sin(data.t / 4.0)[:, None] * [1.0, -1.0, 0.5]
    slow, fast = (
        float(WaveformLoss(data)(prediction(np.asarray(data.signals) + w)))
        for w in (wandering, wiggle)
    )
    assert slow < 0.5  # a fraction of a standard deviation of what is marginalised
    assert fast > 100 * slow


# --- features ------------------------------------------------------------------------------------

ALL = {"qrs_duration": (90.0, 5.0), "axis": (30.0, 10.0), "qt": (360.0, 12.0)}


def of_feature(name: str, value: float, sd: float, signals) -> float:
    return float(FeatureLoss(T, LEADS, {name: (value, sd)})(prediction(signals)))


def test_features_are_weighted_squares():
    loss = FeatureLoss(T, LEADS, ALL)
    found = {name: float(value) for name, value in loss.features(jnp.asarray(beat())).items()}
    assert found["axis"] == pytest.approx(40.0, abs=0.01)
    assert 60.0 < found["qrs_duration"] < 110.0
    assert 330.0 < found["qt"] < 400.0  # the tangent meets the level 50 ms behind the top at 400
    parts = [of_feature(name, *ALL[name], beat()) for name in ALL]
    whole = float(loss(prediction(beat())))
    assert whole == pytest.approx(sum(parts), rel=EXACT64)
    for name in ("qrs_duration", "qt"):
        value, sd = ALL[name]
        expected = 0.5 * ((found[name] - value) / sd) ** 2
        assert of_feature(name, value, sd, beat()) == pytest.approx(expected, rel=1e-9)
        assert of_feature(name, found[name], sd, beat()) < EXACT64


@pytest.mark.parametrize(("true", "measured"), [(40.0, 25.0), (178.0, -167.0), (-175.0, 170.0)])
def test_the_axis_counts_by_its_chord(true, measured):
    """15 degrees are 15 degrees, on either side of 180."""
    chord = np.degrees(2.0 * np.sin(np.radians(7.5)))
    loss = of_feature("axis", measured, 3.0, beat(axis=true))
    assert loss == pytest.approx(0.5 * (chord / 3.0) ** 2, rel=1e-4)


def test_features_do_not_depend_on_the_amplitude_or_the_clock():
    loss = FeatureLoss(T, LEADS, ALL)
    usual, larger = (float(loss(prediction(k * beat()))) for k in (1.0, 7.0))
    assert larger == pytest.approx(usual, rel=1e-9)
    late = float(loss(prediction(beat(late=20.0))))
    assert late == pytest.approx(usual, rel=1e-3)  # the T wave's baseline ends with the record


def test_gradient_of_the_features():
    loss = FeatureLoss(T, LEADS, ALL)
    # thresholds are soft within 0.5 % of the largest slope: the step must be far below that
    found, expected = slopes(lambda s: loss(prediction(s)), beat(), step=1e-7)
    assert found == expected


@pytest.mark.parametrize(
    ("leads", "measured", "message"),
    [
        (LEADS, {"pr": (160.0, 5.0)}, "unknown feature 'pr', expected one of qrs_duration, axis,"),
        (LEADS, {"qt": (400.0, 0.0)}, r"qt is 400 \+- 0, expected a number and a positive"),
        (LEADS, {"qt": (np.nan, 5.0)}, r"qt is nan \+- 5, expected"),
        (("I", "V2"), {"axis": (30.0, 5.0)}, "axis needs leads I and II; there are I, V2"),
        (LEADS, {}, "no feature was measured: expected some of qrs_duration, axis, qt"),
    ],
)
def test_features_that_make_no_sense_are_refused(leads, measured, message):
    with pytest.raises(InputError, match=message) as caught:
        FeatureLoss(T, leads, measured)
    assert str(caught.value).endswith(".")


# --- maps ----------------------------------------------------------------------------------------


@pytest.fixture
def operator():
    """Twelve points on triangles of twenty nodes; some times are missing."""
    rng = np.random.default_rng(4)
    nodes = np.stack([rng.choice(20, 3, replace=False) for _ in range(12)])
    weights = rng.dirichlet(np.ones(3), 12)
    lat, repol = rng.uniform(-60.0, 20.0, 12), rng.uniform(200.0, 280.0, 12)
    lat[[2, 7]], repol[[1, 2, 9]] = np.nan, np.nan
    return MapOperator(nodes, weights, lat, repol, rng.uniform(3, 9, 12), rng.uniform(15, 30, 12))


def fields():
    rng = np.random.default_rng(5)
    return rng.uniform(0.0, 90.0, 20), rng.uniform(250.0, 320.0, 20)


@pytest.mark.parametrize("repolarisation", [False, True])
def test_map_loss_is_the_weighted_scatter(operator, repolarisation):
    """With the best common time the sum is what scatters about the weighted mean."""
    lat, apd = fields()
    measured, sd, simulated = [operator.lat], [operator.sd], [lat]
    if repolarisation:
        measured, sd = [*measured, operator.repol], [*sd, operator.repol_sd]
        simulated.append(lat + apd)
    at = [(operator.weights * field[operator.nodes]).sum(axis=1) for field in simulated]
    gap, weight = np.concatenate(measured) - np.concatenate(at), np.concatenate(sd) ** -2.0
    known = np.isfinite(gap)
    gap, weight = gap[known], weight[known]
    expected = 0.5 * (weight * (gap - np.average(gap, weights=weight)) ** 2).sum()
    loss = MapLoss(operator, repolarisation)(prediction(np.zeros((1, 1)), lat, apd))
    assert float(loss) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("repolarisation", [False, True])
def test_map_loss_does_not_depend_on_the_clock(operator, repolarisation):
    lat, apd = fields()
    loss = MapLoss(operator, repolarisation)
    one, other = (float(loss(prediction(np.zeros((1, 1)), lat + d, apd))) for d in (0.0, 47.0))
    assert other == pytest.approx(one, rel=1e-9)


def test_gradient_of_the_map_loss(operator):
    lat, apd = fields()
    loss = MapLoss(operator, repolarisation=True)

    def of(both):
        return loss(prediction(np.zeros((1, 1)), both[0], both[1]))

    found, expected = slopes(of, np.stack([lat, apd]))
    assert found == expected


def test_map_loss_is_not_finite_where_the_wave_does_not_come(operator):
    lat, apd = fields()
    lat[operator.nodes[0]] = np.inf
    assert not np.isfinite(float(MapLoss(operator)(prediction(np.zeros((1, 1)), lat, apd))))


def test_map_loss_needs_the_times_it_compares(operator):
    alone = MapOperator(operator.nodes, operator.weights, operator.lat, None, operator.sd, None)
    with pytest.raises(InputError, match="no repolarisation times"):
        MapLoss(alone, repolarisation=True)
