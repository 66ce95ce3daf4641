"""A small heart and objectives on it that tests of calibrations share; each is built once.

In float64: tests that use them use `x64_module`, whichever comes first.
"""

import functools
from collections.abc import Sequence
from types import MappingProxyType

import equinox as eqx
import jax.numpy as jnp
import numpy as np

import twinheart as th
from twinheart.anatomy import Heart, add_fibres
from twinheart.calibration import (
    Objective,
    Observation,
    Parameters,
    StartSite,
    build_model,
    field_places,
    observe,
    parameter,
    prepared_heart,
    start_sites,
)
from twinheart.ecg import Ecg, standard_12_lead
from twinheart.mesh.biventricle import BiventricularShape, biventricle
from twinheart.tissue import Velocities, fast_endocardium
from twinheart.twin import Twin

# Walls so thick that elements of a centimetre leave no holes: what is compiled runs in no time.
SHAPE = BiventricularShape(lv_wall=16.0, apex_wall=16.0, rv_wall=16.0)
EDGE = 10.6
LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
PLACES = 3  # of smooth fields
RV_TAG = "3"
LABELS = MappingProxyType(
    {
        "cv_scale": (RV_TAG,),
        "gain.lead": LEADS,
        "apd.channel": ("tau_close",),
        **{f"electrode.{axis}": ("LL", "V2") for axis in "xyz"},
        **{name: ("1", "2", "3") for name in ("cv_field", "apd.field")},
    }
)
# What shapes the QRS and the T wave, and where the electrodes are: all that can be free.
VELOCITIES = ("cv_l", "cv_t", "cv_n", "cv_endo", "cv_field")
SITES = ("site.ab", "site.rt", "site.onset", "lv_delay", "offset")
BODY = (
    "electrode.x",
    "electrode.y",
    "electrode.z",
    "pose.shift",
    "pose.turn",
    "source_across",
    "gain",
    "gain.lead",
)
APD = ("apd", "apd.ab", "apd.tm", "apd.ap", "apd.rvlv", "apd.field", "apd.channel")
ALL = (*VELOCITIES, *SITES, *BODY, *APD)
FEW = ("cv_l", "cv_t", "site.onset", "offset", "gain")
QRS, BEAT = (-20.0, 180.0), (-20.0, 440.0)  # ms


@functools.cache
def small_heart() -> Heart:
    """Two ventricles with fibres, three regions, surfaces and coordinates."""
    mesh = biventricle(EDGE, SHAPE)
    return prepared_heart(add_fibres(Heart(mesh, regions=mesh.cell_fields["region"])))


@functools.cache
def small_sites() -> tuple[StartSite, ...]:
    return start_sites(small_heart(), 3)


@functools.cache
def small_twin(*, fast: bool = False) -> Twin:
    """Its cells have three numbers only: their template takes a second."""
    heart, cell = small_heart(), th.cell.get_model("mitchell-schaeffer")
    made, cells, tissues = heart, cell, Velocities()
    if fast:
        made, cells, tissues = fast_endocardium(heart, cell, tissues)
    return Twin(made, cells, tissues, standard_12_lead(heart))


def blank(window: tuple[float, float], bandwidth: float = 60.0) -> Observation:
    """Data of nothing."""
    t = np.arange(window[0] - 30.0, window[1] + 31.0)
    flat = Ecg(t, np.zeros((len(t), len(LEADS))), LEADS)
    return observe(flat, window=window, bandwidth=bandwidth, noise=0.02, discrepancy=0.02)


@functools.cache
def small_objective(
    names: Sequence[str] = FEW, *, fast: bool = False, window: tuple[float, float] = QRS
) -> Objective:
    """In float64 where that is enabled; its data are those of another patient, with noise."""
    heart, data = small_heart(), blank(window)
    free = Parameters(parameter(n, labels=LABELS.get(n, ()), sites=small_sites()) for n in names)
    model = build_model(
        small_twin(fast=fast),
        data,
        free,
        sites=small_sites(),
        places=field_places(heart, PLACES),
        dtype=jnp.zeros(()).dtype.type,
    )
    empty = Objective(model, data, free)
    truth = some_numbers(empty, seed=7)
    signals = np.asarray(eqx.filter_jit(empty.predict)(jnp.asarray(truth)).signals)
    noise = np.random.default_rng(8).normal(0.0, 0.02, signals.shape)
    return with_data(empty, signals + noise)


def some_numbers(objective: Objective, seed: int) -> np.ndarray:
    """Standard numbers that are nowhere near a bound or a symmetry."""
    return 0.4 * np.random.default_rng(seed).normal(size=len(objective.free))


def with_data(objective: Objective, signals) -> Objective:
    data = eqx.tree_at(lambda d: d.signals, objective.data, jnp.asarray(signals))
    return eqx.tree_at(lambda o: o.data, objective, data)
