"""Noise of data: estimated from the rest of a beat, drawn, and whitened again."""

import numpy as np
import pytest

from twinheart.calibration import measured_beat, observe
from twinheart.calibration.noise import resting_noise
from twinheart.calibration.observation import INDEPENDENT
from twinheart.ecg import Ecg, delineate

T = np.arange(-400.0, 900.0)


def beat_of(leads=3, noise=0.0):
    """A QRS and a T wave in some leads, with noise [mV]."""
    qrs, wave = np.exp(-((T / 12) ** 2)), np.exp(-(((T - 260) / 40) ** 2))
    signals = np.stack([(k + 1) * qrs + 0.3 * wave for k in range(leads)], axis=1)
    return Ecg(T, signals + noise, INDEPENDENT[:leads])


def correlated(rng, covariance, time):
    """A first-order process in time with a given covariance between leads."""
    keep = np.exp(-1.0 / time)
    drive = rng.multivariate_normal(np.zeros(len(covariance)), covariance, size=len(T))
    found = [drive[0]]
    for fresh in drive[1:]:
        found.append(keep * found[-1] + np.sqrt(1 - keep**2) * fresh)
    return np.array(found)


def test_noise_of_rest_has_the_size_colour_and_correlation_that_were_planted():
    planted = 1e-3 * np.array([[0.9, 0.5, 0.0], [0.5, 0.9, 0.0], [0.0, 0.0, 0.3]])
    found, times = [], []
    for seed in range(12):
        ecg = beat_of(noise=correlated(np.random.default_rng(seed), planted, 5.0))
        noise = resting_noise(ecg, delineate(ecg))
        assert noise is not None
        found.append(noise.covariance)
        times.append(noise.time)
    # taking out mean and slope costs some of the variance of a slow process
    assert np.mean(found, axis=0) == pytest.approx(planted, rel=0.25, abs=7e-5)
    assert np.mean(times) == pytest.approx(5.0, rel=0.25)


def test_covariance_can_be_inverted_however_short_the_rest_is():
    rng = np.random.default_rng(0)
    noise = 0.02 * rng.normal(size=(len(T), 1)) * np.ones(8)  # all leads the same: rank one
    ecg = beat_of(8, noise)
    found = resting_noise(ecg, delineate(ecg))
    assert found is not None
    assert np.linalg.eigvalsh(found.covariance).min() > 1e-6


def test_beat_without_rest_has_the_usual_noise():
    beat = beat_of()
    inside = (T > -60) & (T < 330)
    short = Ecg(T[inside], np.asarray(beat.signals)[inside], beat.names)
    assert measured_beat(short).rest is None


def test_whitening_undoes_noise_and_noise_has_the_stated_covariance():
    covariance = 1e-3 * (np.eye(3) + 0.6)
    data = observe(beat_of(), onset=-20.0, noise=covariance, noise_time=4.0, discrepancy=0.05)
    rng = np.random.default_rng(1)
    standard = rng.normal(size=(4000, *data.signals.shape))
    assert np.asarray(data.whitened(data.noise(standard[0]))) == pytest.approx(
        standard[0].ravel(), abs=1e-3
    )
    drawn = np.stack([data.noise(one) for one in standard])
    n, width = len(data.t), data.lowpass
    line = np.stack([np.ones(n), data.t - data.t.mean()], axis=1)
    straight = np.eye(n) - line @ np.linalg.pinv(line)  # without the baseline, which is nearly free
    drawn = np.einsum("st,ntl->nsl", straight, drawn)
    between = np.einsum("ntl,ntm->lm", drawn, drawn) / drawn.shape[0]
    off, on = between[np.triu_indices(3, 1)].mean(), np.diag(between).mean()
    # what the filter leaves of each part, at one time and averaged over the window
    fine = np.arange(data.t[0] - 60.0, data.t[-1] + 61.0)
    kernel = np.exp(-0.5 * ((data.t[:, None] - fine) / width) ** 2)
    kernel /= kernel.sum(axis=1, keepdims=True)
    gap = np.abs(fine[:, None] - fine)

    def power(correlation):
        return np.trace(straight @ kernel @ correlation @ kernel.T @ straight)

    recorded = power(np.exp(-gap / 4.0))
    assert off == pytest.approx(0.6e-3 * recorded, rel=0.1)
    missed = 0.05**2 * power(np.exp(-gap / 8.0))
    assert on == pytest.approx(1.6e-3 * recorded + missed, rel=0.1)
