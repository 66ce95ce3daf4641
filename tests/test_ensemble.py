"""Ensembles: what varies, how it is drawn, and that it is the same again."""

import jax.numpy as jnp
import numpy as np
import pytest
from calibration_samples import LEADS, small_objective, small_sites, small_twin

from twinheart.anatomy import Heart, coordinates_of
from twinheart.anatomy.scar import with_scar
from twinheart.calibration import (
    Calibration,
    Fit,
    Parameters,
    Stage,
    StoredTwin,
    laplace,
    load_twin,
    measured_beat,
    parameter,
    write_twin,
)
from twinheart.ecg import Ecg
from twinheart.errors import InputError
from twinheart.mesh.generate import slab
from twinheart.planning.risk import ensemble as module
from twinheart.planning.risk.ensemble import (
    BORDER_APD,
    BORDER_SPEED,
    population_ensemble,
    posterior_ensemble,
    vary_substrate,
)
from twinheart.planning.substrate import build_substrate
from twinheart.tissue import Sites, Velocities, WaveTable, arrival

TABLE = WaveTable([20.0, 300.0], [0.6, 1.0], [180.0, 250.0])


@pytest.fixture(scope="module")
def substrate():
    """Half a strip healthy, half border zone, fibres along it."""
    mesh = slab((16.0, 4.0, 2.0), 1.0)
    half = (mesh.points[mesh.tets].mean(axis=1)[:, 0] > 8).astype(np.int32)
    heart = Heart(with_scar(mesh, half), np.tile([1.0, 0.0, 0.0], (mesh.n_tets, 1)))
    tables = {0: TABLE, 1000: TABLE}
    return build_substrate(heart, border_speed=0.5, tables=tables, coupling=0.0)


def along(found):
    """Arrival at the end of the healthy half and of the strip, along the fibres [ms]."""
    lat = np.asarray(arrival(found.problem, Sites([[0.0, 2.0, 1.0]])))
    points = found.heart.mesh.points
    axis = (points[:, 1:] == [2.0, 1.0]).all(axis=1)
    return np.array([float(lat[axis & (points[:, 0] == x)][0]) for x in (8.0, 16.0)])


def test_factors_scale_arrival_and_refractory_periods(substrate):
    quick = vary_substrate(substrate, (2.0, 2.0), 1.5, (0.5, 1.2))
    plain, fast = along(substrate), along(quick)
    np.testing.assert_allclose(plain, [8 / 0.6, 8 / 0.6 + 8 / 0.3], rtol=1e-3)
    np.testing.assert_allclose(fast, [8 / 1.2, 8 / 1.2 + 8 / 0.3], rtol=1e-3)  # 0.3 x 2 x 0.5
    x = substrate.heart.mesh.points[:, 0]
    assert set(quick.refractory[x < 8].tolist()) == {20.0 + 180.0 * 1.5}
    np.testing.assert_allclose(quick.refractory[x > 8], 20.0 + 180.0 * 1.5 * 1.2)
    tissue = quick.conduction[1000]
    assert isinstance(tissue, Velocities)
    np.testing.assert_allclose(tissue.cv[0], 0.6 * 0.5 * 2 * 0.5, rtol=1e-6)
    assert substrate.refractory[0] == 200.0  # what was given stays


def test_waves_across_the_fibres_have_their_own_factor(substrate):
    slow = vary_substrate(substrate, (1.0, 0.5), 1.0)
    np.testing.assert_allclose(along(slow), along(substrate), rtol=1e-3)
    np.testing.assert_allclose(np.asarray(slow.problem.velocity)[0], [0.6, 0.15, 0.15], rtol=1e-6)


def test_the_larger_ensemble_begins_with_the_smaller(substrate):
    few, many = (population_ensemble(substrate, n, seed=4) for n in (3, 8))
    assert many.members[:3] == few.members
    other = population_ensemble(substrate, 3, seed=5)
    assert other.members[0] != few.members[0]
    assert "not of this patient" in few.source


def test_population_values_follow_their_priors(substrate):
    drawn = population_ensemble(substrate, 2000, seed=0)
    apd = np.array([m["apd"] for m in drawn.members])  # uniform from 200 to 400 ms
    assert apd.min() >= 200
    assert apd.max() <= 400
    assert abs((apd < 250).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 2000)
    assert all(m["cv_t"] <= m["cv_l"] for m in drawn.members)
    border = np.log([m[BORDER_SPEED] for m in drawn.members]) / np.log(1.25)
    assert abs(border.mean()) < 4 / np.sqrt(2000)
    assert abs(border.std() - 1) < 4 / np.sqrt(2 * 2000)


def test_members_have_the_values_they_say(substrate):
    drawn = population_ensemble(substrate, 2, seed=2)
    values = drawn.members[1]
    member = drawn.substrate(substrate, 1)
    fast = values["cv_l"]
    slow = fast * 0.5 * values[BORDER_SPEED]
    np.testing.assert_allclose(along(member), [8 / fast, 8 / fast + 8 / slow], rtol=2e-3)
    x = substrate.heart.mesh.points[:, 0]
    assert set(member.durations()[x < 8].round(6)) == {round(values["apd"], 6)}
    expected = values["apd"] * values[BORDER_APD]
    np.testing.assert_allclose(member.durations()[x > 8], expected, rtol=1e-6)


@pytest.mark.parametrize("count", [0, -3, 20_000])
def test_the_number_of_members_is_checked(substrate, count):
    with pytest.raises(InputError, match="members"):
        population_ensemble(substrate, count)


def test_factors_are_checked(substrate):
    with pytest.raises(InputError, match="positive"):
        vary_substrate(substrate, (0.0, 1.0), 1.0)


# --- calibrated twins ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def twin_file(x64_module, tmp_path_factory):
    """A twin whose velocities, mean APD and its gradient from apex to base were fitted."""
    names = ("cv_l", "cv_t", "cv_endo", "site.onset", "gain", "apd", "apd.ab")
    objective = small_objective(names, fast=True)
    u = 0.3 * np.random.default_rng(1).normal(size=len(objective.free))
    values = {name: np.asarray(x) for name, x in objective.values(jnp.asarray(u)).items()}
    jacobian = np.random.default_rng(0).normal(size=(40, len(u)))
    found = Fit(u, values, 20.0, 18.0, jacobian, [], "converged")
    stage = Stage(objective, found, laplace(objective, found), [])
    t = np.arange(0.0, 600.0)
    wave = np.exp(-(((t - 200) / 12) ** 2)) + 0.3 * np.exp(-(((t - 450) / 40) ** 2))
    beat = measured_beat(Ecg(t, wave[:, None] * np.linspace(0.4, 1.5, len(LEADS)), LEADS))
    made = Calibration(small_twin(fast=True), small_sites(), beat, stage, None, None, ())
    return write_twin(tmp_path_factory.mktemp("twin") / "twin.h5", made)


def test_a_posterior_gives_members_around_the_fit(twin_file):
    drawn = posterior_ensemble(twin_file, 30, seed=1)
    assert set(drawn.centre) == {
        "cv_l", "cv_t", "cv_endo", "apd", "apd.ab", BORDER_SPEED, BORDER_APD
    }  # fmt: skip
    assert drawn.source.startswith("posterior")
    centre = drawn.centre["cv_l"]
    values = [m["cv_l"] for m in drawn.members]
    assert min(values) < centre < max(values)
    assert posterior_ensemble(twin_file, 30, seed=1).members == drawn.members


def test_a_twin_is_varied_by_what_was_drawn(twin_file):
    stored: StoredTwin = load_twin(twin_file)
    drawn = posterior_ensemble(twin_file, 1, seed=3)
    values, centre = drawn.members[0], drawn.centre
    varied = module._varied_twin(stored, values, centre)
    before, after = stored.twin.conductivity, varied.twin.conductivity
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    for tag, tissue in before.items():
        made = after[tag]
        if not (isinstance(tissue, Velocities) and isinstance(made, Velocities)):
            continue
        names = ("cv_endo",) * 3 if tag >= 100_000 else ("cv_l", "cv_t", "cv_t")
        wanted = [values[name] / centre[name] for name in names]
        ratio = np.asarray(made.cv) / np.asarray(tissue.cv)
        np.testing.assert_allclose(ratio, wanted, rtol=1e-5)
    at = coordinates_of(stored.twin.heart.mesh)
    assert at is not None
    change = varied.apd90 - stored.apd90
    slope = np.polyfit(at.ab, change, 1)[0] * np.ptp(at.ab)
    assert slope == pytest.approx(values["apd.ab"] - centre["apd.ab"], rel=1e-6)
    assert change.mean() == pytest.approx(values["apd"] - centre["apd"], rel=1e-6)


def test_what_a_posterior_says_and_is_not_carried_is_told(twin_file, monkeypatch):
    free = Parameters([parameter("cv_l"), parameter("apd.field", labels=("1", "2"))])
    posteriors = (
        replace_names(module.read_posterior(twin_file)[0], free),
    )  # fmt: skip
    monkeypatch.setattr(module, "read_posterior", lambda _: posteriors)
    drawn = posterior_ensemble(twin_file, 1)
    assert any("apd.field[1], apd.field[2]" in note for note in drawn.notes)
    assert "apd.field[1]" not in drawn.members[0]


def replace_names(posterior, free):
    n = len(free)
    priors = tuple(prior for entry in free.entries for prior in entry.priors)
    return posterior._replace(
        names=free.names, units=free.units, priors=priors, centre=np.zeros(n), covariance=np.eye(n)
    )


def test_values_of_the_fit_change_nothing(twin_file):
    stored = load_twin(twin_file)
    drawn = posterior_ensemble(twin_file, 1)
    again = module._varied_twin(stored, drawn.centre, drawn.centre)
    assert np.array_equal(again.apd90, stored.apd90)
