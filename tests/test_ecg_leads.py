"""The twelve leads, their identities and features."""

import numpy as np
import pytest
import tolerances
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from twinheart.ecg import (
    Ecg,
    qrs_bounds,
    qrs_duration,
    qt_interval,
    r_wave_progression,
    twelve_lead,
)
from twinheart.ecg.electrodes import STANDARD
from twinheart.ecg.leads import LEADS, lead_weights
from twinheart.errors import InputError

POTENTIALS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 5), st.just(9)),
    elements=st.floats(-10, 10, allow_subnormal=False),
)
ATOL = 100 * tolerances.EXACT64


def leads(potentials: np.ndarray, names=STANDARD) -> Ecg:
    return twelve_lead(np.arange(float(len(potentials))), potentials, names)


@settings(deadline=None)
@given(POTENTIALS)
def test_einthoven_and_goldberger_identities(potentials):
    ecg = leads(potentials)
    assert ecg.names == tuple(LEADS)
    assert np.allclose(ecg["I"] + ecg["III"], ecg["II"], atol=ATOL)
    assert np.allclose(ecg["aVR"] + ecg["aVL"] + ecg["aVF"], 0, atol=ATOL)
    assert np.allclose(ecg["aVR"], -(ecg["I"] + ecg["II"]) / 2, atol=ATOL)
    assert np.allclose(ecg["aVL"], (ecg["I"] - ecg["III"]) / 2, atol=ATOL)
    assert np.allclose(ecg["aVF"], (ecg["II"] + ecg["III"]) / 2, atol=ATOL)


@settings(deadline=None)
@given(POTENTIALS)
def test_precordial_leads_are_against_wilsons_terminal(potentials):
    ecg = leads(potentials)
    terminal = potentials[:, :3].mean(axis=1)  # RA, LA, LL come first
    for column, name in enumerate(STANDARD[3:], start=3):
        assert np.allclose(ecg[name], potentials[:, column] - terminal, atol=ATOL)


@settings(deadline=None)
@given(POTENTIALS, st.floats(-100, 100))
def test_the_reference_does_not_matter(potentials, shift):
    assert np.allclose(leads(potentials + shift).signals, leads(potentials).signals, atol=1e-10)


@settings(deadline=None)
@given(POTENTIALS, st.permutations(range(9)))
def test_the_order_of_the_electrodes_does_not_matter(potentials, order):
    names = [STANDARD[i] for i in order]
    assert np.allclose(
        leads(potentials[:, order], names).signals, leads(potentials).signals, atol=ATOL
    )


@pytest.mark.parametrize(
    ("electrodes", "expected"),
    [
        (("RA", "LA"), ("I",)),
        (("LL", "V1", "LA"), ("III",)),
        (("F", "R", "L"), ("I", "II", "III", "aVR", "aVL", "aVF")),
        (("RA", "LA", "LL", "C2", "sock 1"), ("I", "II", "III", "aVR", "aVL", "aVF", "V2")),
    ],
)
def test_fewer_electrodes_give_the_leads_that_can_be_formed(electrodes, expected):
    assert lead_weights(electrodes)[0] == expected


@pytest.mark.parametrize(
    ("electrodes", "missing"), [(("V1", "V2"), "RA, LA, LL missing"), (("RA",), "LA, LL missing")]
)
def test_electrodes_that_form_no_lead_are_refused_and_the_missing_named(electrodes, missing):
    with pytest.raises(InputError, match=missing):
        leads(np.zeros((2, len(electrodes))), electrodes)


def test_leads_can_be_differentiated():
    import jax
    import jax.numpy as jnp

    def loss(potentials):
        return jnp.sum(twelve_lead(jnp.arange(2.0), potentials, STANDARD)["V3"] ** 2)

    gradient = jax.jit(jax.grad(loss))(jnp.ones((2, 9)).at[:, 5].set(2.0))
    assert np.allclose(gradient[:, 5], 2.0)
    assert np.allclose(gradient[:, :3], -2 / 3, rtol=tolerances.EXACT32)


def test_shapes_and_names_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="expected \\(time, electrode\\)"):
        leads(np.zeros((2, 8)))
    with pytest.raises(InputError, match="expected \\(time, lead\\)"):
        Ecg(np.arange(3.0), np.zeros((4, 1)), ("I",))
    with pytest.raises(InputError, match="repeat"):
        Ecg(np.arange(3.0), np.zeros((3, 2)), ("I", "i"))
    with pytest.raises(InputError, match="no lead 'V9'; it has I"):
        Ecg(np.arange(3.0), np.zeros((3, 1)), ("I",))["V9"]


# --- features: complexes whose onset and offset are known ------------------------------------


def bump(t, start: float, stop: float) -> np.ndarray:
    """Raised cosine: zero outside, smooth to first order at both ends."""
    phase = (t - start) / (stop - start)
    return np.where((phase > 0) & (phase < 1), (1 - np.cos(2 * np.pi * phase)) / 2, 0.0)


def complexes(t, onset: float, duration: float, amplitude: float = 1.0) -> np.ndarray:
    """Two leads with q, R and s of different timing; the first begins, the second ends it."""
    a = -0.2 * bump(t, onset, onset + 0.4 * duration)
    a = a + bump(t, onset + 0.2 * duration, onset + 0.7 * duration)
    b = 0.7 * bump(t, onset + 0.3 * duration, onset + duration)
    return amplitude * np.stack([a, b], axis=1)


@pytest.mark.parametrize("duration", [70.0, 100.0, 160.0])
@pytest.mark.parametrize("step", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("amplitude", [0.05, 1.0, 50.0])
def test_qrs_bounds_within_four_ms(duration, step, amplitude):
    t = np.arange(0.0, 500.0, step)
    ecg = Ecg(t, complexes(t, 120.0, duration, amplitude), ("I", "V2"))
    ((onset, offset),) = qrs_bounds(ecg)
    assert onset == pytest.approx(120.0, abs=4.0)
    assert offset == pytest.approx(120.0 + duration, abs=4.0)


def test_qrs_that_starts_with_the_record():
    t = np.arange(0.0, 400.0)
    assert qrs_duration(Ecg(t, complexes(t, 0.0, 90.0), ("I", "V2"))) == pytest.approx(90, abs=4)


def test_noise_moves_the_qrs_bounds_by_less_than_eight_ms():
    rng = np.random.default_rng(0)
    t = np.arange(0.0, 2500.0)
    clean = np.sum([complexes(t, onset, 100.0) for onset in (200.0, 1000.0, 1800.0)], axis=0)
    noisy = clean + rng.normal(scale=0.01, size=clean.shape)  # 10 uV
    bounds = qrs_bounds(Ecg(t, noisy, ("I", "V2")))
    assert len(bounds) == 3
    assert np.abs(bounds - [[200, 300], [1000, 1100], [1800, 1900]]).max() < 8


def test_qt_ends_where_the_tangent_of_a_gaussian_t_wave_meets_the_baseline():
    t = np.arange(0.0, 800.0)
    wave = 0.25 * np.exp(-(((t - 420.0) / 35.0) ** 2) / 2)  # steepest at +1, tangent ends at +2 sd
    signals = complexes(t, 100.0, 90.0) + wave[:, None] * [1.0, -0.6]
    assert qt_interval(Ecg(t, signals, ("I", "V2"))) == pytest.approx(420 + 70 - 100, abs=8)


def test_qt_of_a_record_that_ends_too_early_is_nan():
    t = np.arange(0.0, 400.0)
    wave = 0.25 * np.exp(-(((t - 420.0) / 35.0) ** 2) / 2)
    assert np.isnan(qt_interval(Ecg(t, complexes(t, 100.0, 90.0) + wave[:, None], ("I", "V2"))))


def test_a_flat_or_missing_ecg_has_no_qrs():
    t = np.arange(0.0, 300.0)
    for value in (0.0, -85.0, np.nan):
        ecg = Ecg(t, np.full((300, 2), value), ("V1", "V2"))
        assert np.isnan(qrs_duration(ecg))
        assert np.isnan(qt_interval(ecg))
        assert qrs_bounds(ecg).shape == (0, 2)
        assert r_wave_progression(ecg).transition is None


def test_r_wave_progression_amplitudes_and_transition():
    t = np.arange(0.0, 400.0)
    up, down = bump(t, 100.0, 140.0), -bump(t, 140.0, 190.0)
    heights = [(0.2, 1.2), (0.4, 1.4), (0.8, 0.9), (1.5, 0.4), (1.2, 0.2), (0.8, 0.1)]
    signals = np.stack([0.3 + r * up + s * down for r, s in heights], axis=1)
    table = r_wave_progression(Ecg(t, signals, [f"V{i}" for i in range(1, 7)]))
    assert np.allclose(table.r, [r for r, _ in heights], atol=0.01)
    assert np.allclose(table.s, [-s for _, s in heights], atol=0.01)
    assert table.transition == "V4"


def test_features_refuse_what_they_cannot_use():
    t = np.arange(0.0, 300.0)
    with pytest.raises(InputError, match="needs precordial leads"):
        r_wave_progression(Ecg(t, np.zeros((300, 1)), ("I",)))
    with pytest.raises(InputError, match="4 ms or less"):
        qrs_duration(Ecg(5 * t, np.zeros((300, 1)), ("I",)))
    with pytest.raises(InputError, match="equal, positive steps"):
        qrs_duration(Ecg(t**1.1, np.zeros((300, 1)), ("I",)))
    with pytest.raises(InputError, match="fewer than two"):
        qrs_duration(Ecg(t[:1], np.zeros((1, 1)), ("I",)))


# --- real records -----------------------------------------------------------------------------


def test_real_record_obeys_einthoven_and_has_an_infarct_qrs(data):
    wfdb = pytest.importorskip("wfdb", reason="wfdb is not installed")
    record = wfdb.rdrecord(str(data / "ecg" / "ptbdb" / "s0010_re"))
    t = np.arange(record.sig_len) * 1000.0 / record.fs
    ecg = Ecg(t, record.p_signal[:, :12], record.sig_name[:12])
    assert ecg.names == tuple(LEADS)
    assert np.abs(ecg["I"] + ecg["III"] - ecg["II"]).max() < 0.002  # mV, two roundings of 0.5 uV
    bounds = qrs_bounds(ecg)
    rate = 60_000 / np.diff(bounds[:, 0]).mean()
    assert 75 < rate < 90
    durations = np.diff(bounds, axis=1)
    assert np.ptp(durations) < 15  # one patient, one rhythm: a stable delineation
    assert 110 < qrs_duration(ecg) < 140  # wide, with an R' in V1
    assert 380 < qt_interval(ecg) < 480


def test_real_dicom_ecg_agrees_with_the_measurements_of_its_recorder(data):
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    file = pydicom.dcmread(data / "ecg" / "dicom" / "waveform_ecg.dcm")
    annotations = {
        item.ConceptNameCodeSequence[0].CodeMeaning: item.get("NumericValue")
        for item in file.WaveformAnnotationSequence
        if "ConceptNameCodeSequence" in item
    }
    signals = file.waveform_array(0) / 1000.0  # uV, 1 kHz
    channels = file.WaveformSequence[0].ChannelDefinitionSequence
    names = [c.ChannelSourceSequence[0].CodeMeaning.split()[1] for c in channels]
    ecg = Ecg(np.arange(float(len(signals))), signals, names)
    assert qrs_duration(ecg) == pytest.approx(float(annotations["QRS Duration"]), abs=8)
    assert qt_interval(ecg) == pytest.approx(float(annotations["QT Interval"]), abs=16)
    assert r_wave_progression(ecg).transition in ("V3", "V4")
