"""Whole action potentials against a recorded trace, scipy's BDF, and float64 over many beats."""

import jax
import numpy as np
import pytest
from published_cells import TRACE_COLUMNS, solve_paced
from tolerances import BIOMARKER, BIOMARKER_MS

from twinheart.cell import TenTusscher2006, apd, biomarkers, get_model, pace_cell

# Largest deviation from the recorded trace, in parts of the range of each state. The trace was
# made by an adaptive solver at its default tolerance; its own error shows as a difference of up
# to 3.2e-4 (xr1) between it and our solution at rtol 1e-8, which does not change at rtol 1e-9.
TRACE = 5e-4
# Float32 against float64 over 10 beats: part of the float64 drift of a concentration.
DRIFT = 2e-3


@pytest.fixture(scope="module")
def trace(data) -> dict[str, np.ndarray]:
    path = data / "cell" / "traces" / "ten_tusscher_model_2006_epi.dat"
    table = np.loadtxt(path, skiprows=1)
    return dict(zip(("t", *TRACE_COLUMNS), table.T, strict=True))


def test_equations_follow_the_trace_in_every_state(trace, x64):
    """Stimulus -40 uA/cm2 (= 40 A/F depolarising), 2 ms at 50 ms, no pre-pacing."""
    found = solve_paced(get_model("tentusscher2006-epi"), trace["t"], 40.0, 50.0, 52.0)
    for name in TRACE_COLUMNS:
        error = np.abs(found[name] - trace[name]).max() / np.ptp(trace[name])
        assert error < TRACE, (name, error)


def test_float32_stepping_follows_the_trace(trace):
    """Our first-order stepping in float32: within 1 % of the range in every state at 0.01 ms.

    The largest deviation, xr1 at 60 ms (0.7 %; 1.4 % at 0.02 ms), is a delay of about one step.
    """
    paced = pace_cell(
        get_model("tentusscher2006-epi"),
        amplitude=40.0,
        duration=2.0,
        start=50.0,
        bcl=700.0,
        dt=0.01,
        sample_every=10.0,
    )
    np.testing.assert_allclose(paced.t, trace["t"])
    for name in TRACE_COLUMNS:
        found = paced.vm if name == "vm" else paced.states[name]
        error = np.abs(np.asarray(found) - trace[name]).max() / np.ptp(trace[name])
        assert error < 1e-2, (name, error)


def test_biomarkers_agree_with_the_exact_solution(x64):
    model = get_model("tentusscher2006-epi")
    dt = 0.004
    t = dt * np.arange(100_001)
    exact = biomarkers(t, solve_paced(model, t, 52.0, 0.0, 1.0)["vm"])
    paced = pace_cell(model, bcl=400.0, dt=dt)
    found = biomarkers(paced.t, paced.vm)
    assert abs(found.apd90 - exact.apd90) < BIOMARKER_MS
    assert abs(found.apd50 - exact.apd50) < BIOMARKER_MS
    assert abs(found.v_peak - exact.v_peak) < BIOMARKER * (exact.v_peak - exact.v_rest)
    assert float(found.v_rest) == pytest.approx(float(exact.v_rest), rel=BIOMARKER)
    assert float(found.dvdt_max) == pytest.approx(float(exact.dvdt_max), rel=BIOMARKER)


def _ten_beats():
    return pace_cell(get_model("tentusscher2006-epi"), n_beats=10, dt=0.05, sample_every=10.0)


def test_float32_keeps_the_drift_of_slow_concentrations():
    single = _ten_beats()
    with jax.enable_x64(True):
        double = _ten_beats()
    for name in ("na_i", "k_i", "ca_sr"):
        exact = np.asarray(double.states[name], float)
        error = np.abs(np.asarray(single.states[name], float) - exact).max()
        drift = abs(exact[-1] - exact[0])
        assert drift > 0.05
        assert error < DRIFT * drift, (name, error / drift)
    assert np.abs(np.asarray(single.vm, float) - np.asarray(double.vm)).max() < 0.05


def test_naive_float32_storage_loses_the_drift(monkeypatch):
    """The test above means something: without the offsets, K_i misses a third of its drift."""
    with jax.enable_x64(True):
        exact = np.asarray(_ten_beats().states["k_i"], float)
    monkeypatch.setattr(TenTusscher2006, "offsets", dict.fromkeys(TenTusscher2006.offsets, 0.0))
    jax.clear_caches()
    naive = np.asarray(_ten_beats().states["k_i"], float)
    jax.clear_caches()
    drift = exact[-1] - exact[0]
    assert abs(naive[-1] - naive[0] - drift) > 0.1 * abs(drift)


def test_duration_of_the_variants_is_ordered():
    """At 1 Hz M cells, with a quarter of the slow potassium current, repolarise last by far."""
    found = {}
    for variant in ("epi", "endo", "m"):
        paced = pace_cell(TenTusscher2006(variant), n_beats=5, keep_beats=1, dt=0.05)
        found[variant] = float(apd(paced.t, paced.vm))
    assert abs(found["endo"] - found["epi"]) < 15
    assert found["epi"] + 50 < found["m"]
    assert all(250 < x < 450 for x in found.values())  # human ventricle
