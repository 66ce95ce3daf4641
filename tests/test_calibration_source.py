"""A free conductivity across the fibres: the ECG is that of tissue that has it."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from calibration_samples import QRS, blank, small_heart, small_sites, small_twin

from twinheart.calibration import Objective, Parameters, build_model, parameter
from twinheart.errors import InputError
from twinheart.tissue import NIEDERER_2011, Conductivities, Velocities
from twinheart.twin import Twin

pytestmark = pytest.mark.usefixtures("x64_module")
FACTOR = 2.5


def twin_with(factor: float) -> Twin:
    """The same twin whose tissue conducts so much better across the fibres, not faster."""
    usual, k = small_twin(), NIEDERER_2011
    sigma = Conductivities(k.sigma_il, factor * k.sigma_it, k.sigma_el, k.sigma_et)
    return Twin(usual.heart, usual.cell, Velocities(physical=sigma), usual.electrodes)


def leads(twin: Twin, names, **values) -> np.ndarray:
    free = Parameters(parameter(n, sites=small_sites()) for n in names)
    data = blank(QRS)
    model = build_model(twin, data, free, sites=small_sites(), dtype=np.float64)
    own = Objective(model, data, free)
    u = jnp.asarray(own.free.standard(values))
    return np.asarray(eqx.filter_jit(own.predict)(u).signals)


@pytest.mark.parametrize("others", [("gain",), ("gain", "pose.shift")])
def test_the_ecg_is_that_of_tissue_with_this_conductivity(others):
    """Whether the body moves or not."""
    shift = {"pose.shift": [3.0, -2.0, 5.0]} if "pose.shift" in others else {}
    expected = leads(twin_with(FACTOR), others, **shift)
    found = leads(small_twin(), ("source_across", *others), source_across=FACTOR, **shift)
    usual = leads(small_twin(), others, **shift)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=1e-6 * scale)  # numbers of float32
    assert np.abs(found - FACTOR * usual).max() > 0.05 * scale  # no gain does the same
    assert np.abs(found - usual).max() > 0.05 * scale


def test_it_is_refused_without_fibres_to_lie_across():
    heart = small_heart()
    bare = eqx.tree_at(lambda h: (h.f0, h.s0), heart, (None, None), is_leaf=lambda x: x is None)
    usual = small_twin()
    twin = Twin(bare, usual.cell, Velocities(0.5, 0.5), usual.electrodes)
    with pytest.raises(InputError, match="source_across is free, but the heart has no fibres"):
        leads(twin, ("source_across", "gain"))
