"""Fits of synthetic patients: what was planted is found, and what the data leave open is said."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import twinheart as th
from twinheart.anatomy.chart import chart_of
from twinheart.anatomy.endocardium import Ground, endocardium
from twinheart.calibration import (
    Normal,
    Objective,
    Parameters,
    coarse_heart,
    determination,
    fit,
    laplace,
    misfit_test,
    parameter,
    prepared_heart,
    search,
)
from twinheart.calibration.fit import Fit
from twinheart.calibration.mixture import mixture
from twinheart.calibration.sbc import sbc_case, sbc_objective, sbc_summary
from twinheart.ecg import Electrodes, lead_shares
from twinheart.ecg.movable_field import movable_field
from twinheart.errors import InputError, SolverError
from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.quality import volumes
from twinheart.tissue.template import templates_of
from twinheart.tissue.wave_ecg import wave_ecg
from twinheart.tissue.wave_tangents import front_tangents


@pytest.fixture(scope="module")
def heart():
    return prepared_heart(th.demo_heart())


@pytest.fixture(scope="module")
def blank():
    """Model and parameters of a small heart; its data are empty."""
    return sbc_objective(edge=6.3, sites=4)


def with_data(objective, signals):
    data = eqx.tree_at(lambda d: d.signals, objective.data, jnp.asarray(signals))
    return eqx.tree_at(lambda o: o.data, objective, data)


@pytest.fixture(scope="module")
def patient(blank):
    """A patient drawn near the centre of the prior, and its truth."""
    rng = np.random.default_rng(5)
    truth = 0.5 * rng.normal(size=len(blank.free))
    signals = np.asarray(blank.predict(jnp.asarray(truth)).signals)
    noise = blank.data.noise(rng.normal(size=signals.shape))
    return with_data(blank, signals + noise), truth


@pytest.fixture(scope="module")
def found(patient):
    objective, truth = patient
    draws = np.random.default_rng(0).normal(size=(15, len(truth)))
    return search(objective, np.concatenate([np.zeros((1, len(truth))), draws]), keep=3)[0]


def test_planted_activation_is_found(patient, found):
    objective, truth = patient
    true = np.asarray(objective.predict(jnp.asarray(truth)).lat)
    lat = np.asarray(objective.predict(jnp.asarray(found.u)).lat)
    start = np.asarray(objective.predict(jnp.zeros(len(truth))).lat)
    rms = np.sqrt(np.mean((lat - true) ** 2))
    assert rms < 0.35 * np.sqrt(np.mean((start - true) ** 2))
    assert rms < 4.0  # ms
    assert misfit_test(found).p_value > 1e-3


def test_posterior_holds_the_truth_and_flags_what_is_open(patient, found):
    objective, truth = patient
    posterior = laplace(objective, found)
    z = (truth - posterior.u) / posterior.contraction
    assert np.abs(z).max() < 5.0
    assert (np.abs(z) < 1.645).mean() > 0.5
    told = determination(posterior)
    names = [row.name for row in told if row.verdict == "not determined"]
    assert all((row.contraction > 0.8) == (row.name in names) for row in told)
    assert "gain" not in names


def test_a_parameter_without_effect_is_flagged_and_no_other(blank):
    free = Parameters([*blank.free.entries, parameter("purkinje_cv")])  # there is no tree
    objective = Objective(blank.model, blank.data, free)
    u = np.zeros(len(free))
    signals = np.asarray(objective.predict(jnp.asarray(u)).signals)
    objective = with_data(objective, signals)
    best = fit(objective, u, iterations=1)
    posterior = laplace(objective, best)
    assert posterior.contraction[-1] == pytest.approx(1.0)
    told = {row.name: row for row in determination(posterior)}
    assert told["purkinje_cv"].verdict == "not determined"
    assert "does not determine purkinje_cv" in told["purkinje_cv"].sentence
    assert told["cv_endo"].verdict == "determined"


def test_wrong_model_is_rejected(patient, found):
    objective, _ = patient
    signals = np.asarray(objective.data.signals)
    blocked = signals + 0.3 * np.exp(-(((objective.data.t[:, None] - 60.0) / 12.0) ** 2)) * [
        1, -1, 1, 1, -1, 1, -1, 1
    ]  # fmt: skip
    wrong = fit(with_data(objective, blocked), found.u, iterations=8)
    assert misfit_test(wrong).rejected


def test_interrupted_fit_goes_on_to_the_same_end(patient, tmp_path):
    objective, truth = patient
    u = np.full(len(truth), 0.1)
    whole = fit(objective, u, iterations=4, tolerance=0.0)
    kept = tmp_path / "fit.npz"

    class Stop(Exception):
        pass

    def interrupt(done):
        if done["iteration"] == 2:
            raise Stop

    with pytest.raises(Stop):
        fit(objective, u, iterations=4, tolerance=0.0, checkpoint=kept, progress=interrupt)
    resumed = fit(objective, u, iterations=4, tolerance=0.0, checkpoint=kept)
    assert np.array_equal(resumed.u, whole.u)
    with pytest.raises(InputError, match="belongs to another heart"):
        fit(with_data(objective, objective.data.signals + 1.0), u, checkpoint=kept)
    kept.write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a readable state"):
        fit(objective, u, checkpoint=kept)


def test_loss_that_is_not_finite_names_the_parameter(patient):
    objective, truth = patient
    u = np.zeros(len(truth))
    u[objective.free.names.index("gain")] = 1e6
    with pytest.raises(SolverError, match="gain"):
        fit(objective, u)


@pytest.mark.slow
def test_synthetic_patient_is_the_same_for_the_same_seed(blank):
    one, same = (sbc_case(blank, 3, seed=1) for _ in range(2))
    assert one == same
    assert one["truth"] != sbc_case(blank, 4, seed=1)["truth"]


def test_overconfident_posteriors_are_rejected():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(200, 1))
    estimate = truth + 0.3 * rng.normal(size=(200, 1))

    def verdict(sd):
        cases = [
            {"rank": stats.norm.cdf((a - b) / sd), "sd": np.full(1, sd)}
            for a, b in zip(truth, estimate, strict=True)
        ]
        return sbc_summary(cases, ["cv_l"], ["cv_l"])["consistent"]

    assert verdict(0.3)
    assert not verdict(0.15)
    assert not verdict(0.9)


def test_mixture_weighs_optima_by_their_probability(blank):
    """Against a grid: two equally wide peaks, one of which is e times as probable."""
    count = len(blank.free)
    slopes = np.concatenate([3.0 * np.eye(count), np.zeros((4, count))])  # covariance 1 / 10

    def at(first, loss):
        u = np.zeros(count)
        u[0] = first
        return Fit(u, {}, loss, loss - 0.5 * first**2, slopes, [], "converged")

    found = mixture(blank, [at(0.0, 5.0), at(2.0, 6.0)], inflate=False)
    x = np.linspace(-3.0, 5.0, 20001)
    peaks = np.exp(-5.0 - 5.0 * x**2) + np.exp(-6.0 - 5.0 * (x - 2.0) ** 2)
    peaks /= peaks.sum()
    mean = x @ peaks
    assert found.mean[0] == pytest.approx(mean, abs=1e-4)
    assert found.sd[0] == pytest.approx(np.sqrt((x - mean) ** 2 @ peaks), abs=1e-4)
    assert found.rank(np.full(count, 1.0))[0] == pytest.approx(peaks[x < 1.0].sum(), abs=1e-3)
    # the same optimum found twice counts once
    assert len(mixture(blank, [at(0.0, 5.0), at(0.01, 5.1)], inflate=False).weights) == 1


def test_chart_lies_on_the_endocardium(heart):
    rng = np.random.default_rng(0)
    ab, rt = rng.uniform(0.05, 0.9, 300), rng.uniform(0.0, 1.0, 300)
    for side in (SurfaceClass.LV_ENDOCARDIUM, SurfaceClass.RV_ENDOCARDIUM):
        surface = endocardium(heart.mesh, side)
        chart = chart_of(surface)
        places = np.asarray(chart(ab, rt))
        on_it, _ = Ground(surface).project(places)
        gap = np.linalg.norm(places - on_it, axis=1)
        assert np.mean(gap) < 0.3
        assert np.quantile(gap, 0.95) < 1.5
        vertex = np.flatnonzero((surface.ab > 0.1) & (surface.ab < 0.9))[::17]
        back = np.asarray(chart(surface.ab[vertex], surface.rt[vertex]))
        assert np.median(np.linalg.norm(back - surface.points[vertex], axis=1)) < 1.5  # edge: 2 mm


def test_coarse_heart_is_the_same_muscle(heart):
    copy = coarse_heart(heart, 9000)
    assert 0.7 * 9000 < copy.mesh.n_nodes < 1.5 * 9000
    size = [volumes(h.mesh.points, h.mesh.tets).sum() for h in (heart, copy)]
    assert size[1] == pytest.approx(size[0], rel=0.08)
    assert np.allclose(np.linalg.norm(copy.f0, axis=1), 1.0)
    assert set(np.unique(copy.regions)) <= set(np.unique(heart.regions))


def test_coarse_heart_is_as_coarse_as_walls_allow(heart):
    copy = coarse_heart(heart, 1000)  # elements of that size are larger than the wall is thick
    assert 1000 < copy.mesh.n_nodes < 0.3 * heart.mesh.n_nodes
    size = [volumes(h.mesh.points, h.mesh.tets).sum() for h in (heart, copy)]
    assert size[1] == pytest.approx(size[0], rel=0.08)


@pytest.fixture(scope="module")
def plane_wave():
    mesh = th.mesh.generate.slab((30.0, 6.0, 6.0), 2.0)
    heart = th.Heart(mesh)
    site = Electrodes(("a", "b"), np.array([[60.0, 3.0, 3.0], [10.0, 40.0, 3.0]]))
    shares = lead_shares(mesh, site, np.tile(0.17 * np.eye(3), (mesh.n_tets, 1, 1)))
    templates = templates_of(heart, th.cell.get_model("mitchell-schaeffer"))
    rng = np.random.default_rng(0)
    lat = mesh.points @ [1 / 0.5, 0.3, 0.1] + rng.uniform(0.0, 1.0, mesh.n_nodes)
    return mesh, site, shares, templates, lat


def test_filtered_wave_is_the_wave_filtered(plane_wave):
    mesh, _, shares, templates, lat = plane_wave
    sd, t = 1.5, np.arange(0.0, 90.0, 3.0)
    fine = np.arange(-12.0, 102.0, 0.125)
    exact = np.asarray(wave_ecg(mesh.tets, shares, templates, fine, crossing=8.0)(lat))
    kernel = np.exp(-0.5 * ((t[:, None] - fine) / sd) ** 2)
    expected = kernel @ exact / kernel.sum(axis=1, keepdims=True)
    wave = wave_ecg(mesh.tets, shares, templates, t, crossing=8.0, lowpass=sd)
    assert np.abs(wave(lat) - expected).max() < 5e-3 * np.abs(expected).max()
    later = wave.at(t + 30.0, sd)
    assert np.allclose(later(lat)[:20], wave(lat)[10:], atol=1e-4 * np.abs(expected).max())


def test_tangents_of_the_front_are_its_derivative(plane_wave):
    mesh, _, shares, templates, lat = plane_wave
    wave = wave_ecg(mesh.tets, shares, templates, np.arange(0.0, 90.0, 3.0), crossing=4.0,
                    lowpass=1.5)  # fmt: skip
    lat = np.where(np.arange(len(lat)) % 50 == 7, np.inf, lat)  # some are not reached
    directions = np.random.default_rng(1).normal(size=(mesh.n_nodes, 3))
    found = front_tangents(wave, lat, directions)
    for k in range(3):
        _, expected = jax.jvp(wave.front, (jnp.asarray(lat),), (jnp.asarray(directions[:, k]),))
        assert np.abs(found[..., k] - expected).max() < 1e-4 * np.abs(expected).max()


def test_moving_the_heart_is_moving_the_electrodes(plane_wave):
    mesh, site, shares, _, _ = plane_wave
    sigma = np.tile(0.17 * np.eye(3), (mesh.n_tets, 1, 1))
    shift = np.array([5.0, -3.0, 2.0])
    moved = dataclasses.replace(mesh, points=mesh.points + shift)
    there = movable_field(moved, sigma)(site.positions)
    here = movable_field(mesh, sigma)(site.positions - shift)
    assert np.abs(there - here).max() < 1e-4 * np.abs(there).max()
    still = movable_field(mesh, sigma)(site.positions)
    assert np.abs(still - shares[:, :, 1:]).max() < 1e-4 * np.abs(shares).max()


def test_prior_is_the_answer_where_there_are_no_data(blank):
    quiet = Objective(
        blank.model,
        blank.data.tempered(1e6),
        Parameters([parameter("cv_l", prior=Normal(0.6, 0.05)), parameter("gain")]),
    )
    best = fit(quiet, np.array([1.0, -1.0]), iterations=6)
    assert np.abs(best.u).max() < 1e-3
    posterior = laplace(quiet, best)
    assert np.allclose(posterior.contraction, 1.0, atol=1e-3)
    low, _, high = posterior.intervals()[0]
    assert (low, high) == pytest.approx((0.6 - 1.645 * 0.05, 0.6 + 1.645 * 0.05), abs=1e-3)
