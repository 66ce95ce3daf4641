"""Free channels: what they do to the APD is what they do to the cell; a planted one fits best."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from calibration_samples import BEAT, small_heart, small_objective, small_twin, with_data

import twinheart as th
from twinheart.calibration import Parameters, parameter
from twinheart.calibration.repolarisation import CHANNEL_FACTORS, channel_effect
from twinheart.cell import scale_channels
from twinheart.errors import InputError
from twinheart.tissue.template import action_potential

CLOSE = 0.01  # of the APD: what the spline may miss between the factors that were measured


def apd_of(cell) -> float:
    return float(action_potential(cell).apd90)


@pytest.fixture(scope="module")
def cell():
    return th.cell.get_model("mitchell-schaeffer")


@pytest.fixture(scope="module")
def effects(cell):
    return {name: channel_effect(small_heart(), cell, [name]) for name in ("tau_close", "tau_out")}


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.2, 1.7, 3.3])
@pytest.mark.parametrize("name", ["tau_close", "tau_out"])
def test_a_factor_does_to_the_apd_what_it_does_to_the_cell(cell, effects, name, factor):
    if name == "tau_out" and factor > 3:
        factor = 0.9  # with so large a one it does not repolarise
    effect = effects[name]
    expected = apd_of(scale_channels(cell, {name: factor})) / apd_of(cell)
    found = np.asarray(effect(jnp.array([factor])))
    assert found.shape == (small_heart().mesh.n_nodes,)
    np.testing.assert_allclose(found, expected, rtol=1e-6 if factor == 1.0 else CLOSE)


def test_each_region_answers_as_its_own_cell(cell):
    """The cell of the RV has no such channel: there nothing changes."""
    other = th.cell.get_model("aliev-panfilov")
    effect = channel_effect(small_heart(), {1: cell, 2: cell, 3: other}, ["tau_close"])
    found = np.asarray(effect(jnp.array([1.5])))
    expected = apd_of(scale_channels(cell, {"tau_close": 1.5})) / apd_of(cell)
    np.testing.assert_allclose(np.unique(found), [1.0, expected], rtol=CLOSE)
    mesh, right = small_heart().mesh, small_heart().regions == 3
    inside = [np.setdiff1d(mesh.tets[own], mesh.tets[~own]) for own in (right, ~right)]
    assert (found[inside[0]] == 1.0).all()
    assert (found[inside[1]] > 1.1).all()


def test_beyond_the_measured_factors_the_apd_stays(effects):
    effect = effects["tau_close"]
    ends = effect(jnp.array([CHANNEL_FACTORS[-1]])), effect(jnp.array([2 * CHANNEL_FACTORS[-1]]))
    np.testing.assert_allclose(*ends, rtol=1e-6)


def test_the_loss_is_least_at_a_planted_factor(x64_module):
    whole = small_objective(("offset", "apd.channel"), window=BEAT)
    planted = whole.free.standard({"apd.channel": 1.3})
    signals = np.asarray(eqx.filter_jit(whole.predict)(jnp.asarray(planted)).signals)
    own = with_data(whole, signals + np.random.default_rng(3).normal(0.0, 0.005, signals.shape))
    factors = np.array([1.0, 1.2, 1.25, 1.3, 1.35, 1.4, 1.7])
    of = eqx.filter_jit(own.loss)
    loss = [float(of(jnp.asarray(whole.free.standard({"apd.channel": f})))) for f in factors]
    assert factors[np.argmin(loss)] == 1.3
    assert (np.diff(np.sign(np.diff(loss))) != 0).sum() == 1  # one valley


def test_a_channel_that_no_cell_has_is_refused_with_those_there_are():
    free = Parameters([parameter("apd.channel", labels=("i_kr",))])
    with pytest.raises(InputError, match=r"apd\.channel\[i_kr\]: no cell has this channel; there"):
        channel_effect(small_heart(), small_twin().cell, free.labels("apd.channel"))


def test_which_channel_must_be_said():
    with pytest.raises(InputError, match=r"apd\.channel needs labels"):
        parameter("apd.channel")
