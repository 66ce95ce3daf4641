"""The posterior in a twin file: the fit is its centre, draws spread as the file says."""

import json
import shutil

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from calibration_samples import LEADS, small_objective, small_sites, small_twin, some_numbers

from twinheart.calibration import Calibration, Fit, Stage, laplace, measured_beat
from twinheart.calibration.stored_posterior import read_posterior
from twinheart.calibration.twin_file import write_twin
from twinheart.ecg import Ecg
from twinheart.errors import InputError

pytestmark = pytest.mark.usefixtures("x64_module")


@pytest.fixture(scope="module")
def stage(x64_module) -> Stage:
    objective = small_objective()
    u = some_numbers(objective, seed=1)
    values = {name: np.asarray(x) for name, x in objective.values(jnp.asarray(u)).items()}
    jacobian = np.random.default_rng(0).normal(size=(40, len(u)))
    found = Fit(np.asarray(u), values, 20.0, 18.0, jacobian, [], "converged")
    return Stage(objective, found, laplace(objective, found), [])


@pytest.fixture(scope="module")
def file(stage, tmp_path_factory):
    t = np.arange(0.0, 600.0)
    wave = np.exp(-(((t - 200) / 12) ** 2)) + 0.3 * np.exp(-(((t - 450) / 40) ** 2))
    beat = measured_beat(Ecg(t, wave[:, None] * np.linspace(0.4, 1.5, len(LEADS)), LEADS))
    found = Calibration(small_twin(), small_sites(), beat, stage, None, None, ())
    return write_twin(tmp_path_factory.mktemp("twin") / "twin.h5", found)


def test_the_centre_is_the_fit(stage, file):
    (stored,) = read_posterior(file)
    assert stored.stage == "qrs"
    assert stored.names == stage.posterior.names
    known = stage.posterior.physical(np.asarray(stage.posterior.u)[None])[0]
    assert np.allclose(list(stored.physical(stored.centre).values()), known, rtol=1e-12)


def test_draws_spread_as_the_posterior(stage, file):
    (stored,) = read_posterior(file)
    rng = np.random.default_rng(3)
    draws = [stored.draw(rng) for _ in range(4000)]
    low, median, high = stage.posterior.intervals(0.9)[stored.names.index("cv_l")]
    values = np.array([draw["cv_l"] for draw in draws])
    inside = ((values > low) & (values < high)).mean()
    assert abs(inside - 0.9) < 4 * np.sqrt(0.09 / 4000)  # four standard errors
    assert abs((values < median).mean() - 0.5) < 4 * np.sqrt(0.25 / 4000)


def test_draws_are_those_of_the_seed(file):
    (stored,) = read_posterior(file)
    again = [stored.draw(np.random.default_rng(5)) for _ in range(2)]
    assert again[0] == again[1] != stored.draw(np.random.default_rng(6))


def damaged(change):
    def changed(file, tmp_path):
        copy = tmp_path / "odd.h5"
        shutil.copy(file, copy)
        with h5py.File(copy, "r+") as odd:
            change(odd)
        return copy

    return changed


def _swap(odd, name, values):
    del odd[name]
    odd[name] = values


def _other_prior(odd):
    rows = json.loads(odd.attrs["parameters"])
    rows["qrs"][0]["prior"] = "__import__('os')"
    odd.attrs["parameters"] = json.dumps(rows)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda odd: _swap(odd, "posterior/qrs/covariance", -np.eye(7)), "fit|positive"),
        (lambda odd: _swap(odd, "posterior/qrs/standard_numbers", np.zeros(3)), "do not fit"),
        (_other_prior, "its prior of cv_l"),
        (lambda odd: odd.attrs.__delitem__("parameters"), "cannot be read"),
    ],
)
def test_a_damaged_one_is_refused(file, tmp_path, change, word):
    with pytest.raises(InputError, match=word):
        read_posterior(damaged(change)(file, tmp_path))


def test_no_file_is_said():
    with pytest.raises(InputError, match="there is no twin"):
        read_posterior("nowhere.h5")
