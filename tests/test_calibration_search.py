"""What a search begins with, and what it compares: delays, sizes, and the metric of the misfit."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from calibration_samples import small_objective, small_sites, small_twin

from twinheart.calibration import (
    Fit,
    MeasuredBeat,
    Objective,
    Parameters,
    laplace,
    measured_beat,
    observe,
)
from twinheart.calibration.calibrate import (
    Calibration,
    Settings,
    Stage,
    _at_rest,
    _on_misfit,
    _starts,
    _starts_of_t,
)
from twinheart.calibration.defaults import parameter
from twinheart.calibration.search import in_size
from twinheart.ecg import Ecg
from twinheart.errors import InputError

T = np.arange(-100.0, 300.0)

pytestmark = pytest.mark.usefixtures("x64_module")


@pytest.fixture(scope="module")
def objective(x64_module):
    return small_objective()


@pytest.mark.parametrize(("delay", "late"), [(65.0, "left"), (-38.0, "right")])
def test_the_ventricle_without_a_block_starts_with_the_qrs(objective, delay, late):
    excitation = objective.model.excitation
    usual = np.asarray(excitation.onsets({}))
    moved = np.asarray(excitation.onsets({"lv_delay": jnp.array([delay])})) - usual
    left, right = moved[~excitation.right], moved[excitation.right]
    assert np.ptp(left) == np.ptp(right) == pytest.approx(0.0, abs=1e-4)
    assert left[0] - right[0] == pytest.approx(delay, abs=1e-3)
    early, later = (right, left) if late == "left" else (left, right)
    assert np.abs(early).max() < 2.5  # ms: of what is smoothed
    assert later.min() > abs(delay) - 2.5


def test_no_delay_leaves_onsets_as_they_are(objective):
    excitation = objective.model.excitation
    found = np.asarray(excitation.onsets({"lv_delay": jnp.zeros(1)}))
    assert found == pytest.approx(np.asarray(excitation.onsets({})), abs=1e-5)


def test_a_search_begins_with_either_block(objective):
    free = Parameters([*objective.free.entries, parameter("lv_delay")])
    starts = _starts(free, Settings(starts=5))
    k = free.names.index("lv_delay")
    delays = [float(free.physical(jnp.asarray(u))["lv_delay"][0]) for u in starts[:3]]
    assert delays == pytest.approx([0.0, 65.0, -38.0], abs=1e-3)
    assert np.delete(starts[:3], k, axis=1) == pytest.approx(0.0)
    assert np.abs(starts[:, k]).max() < 3.0  # no block is beyond what the prior believes


def gain_of(objective, u) -> float:
    return float(objective.values(jnp.asarray(u))["gain"][0])


def test_a_start_gets_the_gain_of_the_data(objective):
    u = np.zeros(len(objective.free))
    signals = 2.5 * np.asarray(objective.predict(jnp.asarray(u)).signals)
    own = eqx.tree_at(lambda o: o.data.signals, objective, jnp.asarray(signals))
    away = u.copy()
    away[objective.free.names.index("gain")] = -1.5
    for found in in_size(own, np.stack([u, away])):
        assert gain_of(own, found) == pytest.approx(2.5, rel=1e-3)
    assert float(own.loss(jnp.asarray(in_size(own, away[None])[0]))) < 1.0


def test_a_start_of_the_wrong_sign_does_not_vanish(objective):
    """No leads at all would lose less, and nothing but the gain could then lower the loss."""
    u = np.zeros((1, len(objective.free)))
    signals = -2.5 * np.asarray(objective.predict(jnp.asarray(u[0])).signals)
    turned = eqx.tree_at(lambda o: o.data.signals, objective, jnp.asarray(signals))
    assert gain_of(turned, in_size(turned, u)[0]) == pytest.approx(0.3 * 2.5, rel=1e-3)


def test_without_a_gain_starts_stay(objective):
    free = Parameters([parameter("cv_l")])
    starts = np.random.default_rng(0).normal(size=(3, 1))
    bare = Objective(objective.model, objective.data, free)
    assert in_size(bare, starts) is starts


def test_a_lead_upside_down_is_worse_than_one_that_is_late():
    """With the clean average of many beats, whose noise is slow, and a discrepancy of 0.1 mV."""
    qrs = np.exp(-(((T - 40) / 12) ** 2)) - 0.4 * np.exp(-(((T - 65) / 8) ** 2))
    ecg = Ecg(T, np.stack([qrs, 0.5 * qrs], axis=1), ("I", "V5"))
    data = observe(ecg, window=(-20.0, 110.0), noise=0.006, noise_time=20.0, discrepancy=0.1)
    seen = np.asarray(data.signals)
    late = np.stack([np.interp(data.t - 6.0, data.t, lead) for lead in seen.T], axis=1)

    def misfit(signals):
        return float(jnp.sum(data.residual(jnp.asarray(signals)) ** 2))

    assert misfit(-seen) > 4 * misfit(late)
    assert misfit(-seen) == pytest.approx(4 * misfit(0 * seen), rel=1e-3)


def test_a_t_wave_is_no_drift():
    """A slope of the baseline that is free would explain half of it."""
    wave = 0.4 * np.exp(-(((T - 60) / 50) ** 2))
    window = (-20.0, 140.0)
    ecg = Ecg(T, np.stack([wave, 0.5 * wave], axis=1), ("I", "V5"))
    data = observe(ecg, window=window, bandwidth=30.0, noise=0.02)
    steep = 3e-3 * (data.t - data.t.mean())[:, None] * np.ones(2)  # mV: 3 mV in a second
    breath = 5e-4 * (data.t - data.t.mean())[:, None] * np.ones(2)
    of = [float(jnp.sum(data.whitened(jnp.asarray(signals)) ** 2)) for signals in (steep, breath)]
    assert of[0] == pytest.approx(2 * 3.0**2, rel=0.05)  # in two leads: three standard deviations
    assert of[1] == pytest.approx(2 * 0.5**2, rel=0.05)


def test_repolarisation_begins_within_the_t_wave(objective):
    free = Parameters([parameter("apd"), parameter("apd.ab")])
    whole = Objective(objective.model, objective.data, free)
    beat = MeasuredBeat(beat_of(-100, 500), -30.0, 40.0, 330.0, 0.01, None, 0.0, 1, ())
    starts = _starts_of_t(free, whole, beat, Settings())
    n_mesh = whole.model.problem.n_mesh
    lat = np.asarray(whole.lat)[:n_mesh]
    for u in starts:
        apd = float(free.physical(jnp.asarray(u))["apd"][0])
        assert 360.0 - 80.0 < lat.mean() + apd < 360.0 - 20.0  # ms after the onset of the QRS
    assert np.ptp(starts[:, 1]) > 2.0  # gradients are drawn
    late = _starts_of_t(free, whole, beat._replace(t_end=2000.0), Settings())
    assert np.ptp(late[:, 0]) > 2.0  # beyond the prior: drawn as well


def test_the_body_is_at_rest_in_a_search():
    whole = small_objective(("site.onset", "offset", "gain", "pose.shift", "pose.turn"))
    still = _at_rest(whole)
    assert [entry.name for entry in still.free.entries] == ["site.onset", "offset", "gain"]
    u = 0.5 * np.random.default_rng(3).normal(size=len(still.free))
    moved = np.concatenate([u, np.zeros(6)])
    expected, found = whole.predict(jnp.asarray(moved)), still.predict(jnp.asarray(u))
    size = float(jnp.abs(expected.signals).max())
    assert float(jnp.abs(found.signals - expected.signals).max()) < 1e-4 * size
    moved[-6:] = 1.0
    turned = whole.predict(jnp.asarray(moved))
    assert float(jnp.abs(turned.signals - expected.signals).max()) > 0.01 * size


def beat_of(first: float, last: float) -> Ecg:
    t = np.arange(first, last)
    return Ecg(t, np.exp(-((t / 12) ** 2))[:, None], ("V2",))


@pytest.mark.parametrize(
    ("first", "last", "message"),
    [
        (-60.0, 60.0, "lasts 119 ms, expected one whole heart beat at least .150 ms or more."),
        (-8.0, 300.0, "begins or ends"),
        (-300.0, 8.0, "begins or ends"),
    ],
)
def test_beats_that_are_cut_are_refused(first, last, message):
    with pytest.raises(InputError, match=message):
        measured_beat(beat_of(first, last))


def stage_of(objective, scale: float) -> Stage:
    """A fit whose misfit is larger than the noise."""
    samples, u = objective.data.signals.size, np.zeros(len(objective.free))
    misfit = 0.5 * scale * samples
    found = Fit(u, {}, misfit, misfit, np.zeros((samples, len(u))), [], "converged")
    return Stage(objective, found, laplace(objective, found), [])


def test_who_fits_a_strange_heart_is_told_of_the_discrepancy(objective):
    settings = Settings(discrepancy=0.02)
    assert not _on_misfit(stage_of(objective, 1.5**2), settings)
    (said,) = _on_misfit(stage_of(objective, 4.0**2), settings)
    assert "4.0 times" in said
    assert "0.08 instead of 0.02" in said


def test_stages_are_those_that_were_fitted(objective):
    stage = stage_of(objective, 1.0)
    beat = MeasuredBeat(beat_of(-100, 300), -20.0, 20.0, 200.0, 0.01, None, 0.0, 1, ())
    both = Calibration(small_twin(), small_sites(), beat, stage, stage, None, ())
    assert list(both.stages) == ["qrs", "t_wave"]
    assert list(dataclasses.replace(both, t_wave=None).stages) == ["qrs"]
