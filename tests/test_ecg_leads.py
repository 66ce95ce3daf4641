"""The twelve leads, their identities, features and files."""

import os

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
    read_ecg_csv,
    twelve_lead,
    write_ecg_csv,
    write_wfdb,
)
from twinheart.ecg.electrodes import STANDARD
from twinheart.ecg.leads import LEADS, lead_weights
from twinheart.errors import InputError, OutputError

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


# --- files ------------------------------------------------------------------------------------


def some_ecg(samples: int = 40, step: float = 1.0) -> Ecg:
    rng = np.random.default_rng(4)
    t = step * np.arange(samples)
    return Ecg(t, rng.normal(size=(samples, 12)), tuple(LEADS))


def test_csv_round_trip_is_exact(tmp_path):
    ecg = some_ecg()
    signals = np.array(ecg.signals)
    signals[3, 2] = np.nan
    ecg = Ecg(ecg.t / 3, signals, ecg.names)
    write_ecg_csv(tmp_path / "ecg.csv", ecg)
    again = read_ecg_csv(tmp_path / "ecg.csv")
    assert again.names == ecg.names
    assert np.array_equal(again.t, ecg.t)
    assert np.array_equal(again.signals, ecg.signals, equal_nan=True)


def test_csv_units_come_from_the_header(tmp_path):
    file = tmp_path / "ecg.csv"
    file.write_text("time (s),ii [uV],V1 mV\n0,100,1\n0.002,200,2\n")
    ecg = read_ecg_csv(file)
    assert ecg.names == ("II", "V1")
    assert np.allclose(ecg.t, [0, 2])
    assert np.allclose(ecg.signals, [[0.1, 1], [0.2, 2]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no samples"),
        ("t_ms,I_mV\n", "no samples"),
        ("t_ms,I\n0,1\n", "column 'I' names no unit"),
        ("t_ms\n0\n", "names no unit"),
        ("I_mV,t_ms\n0,1\n", "expected the time first"),
        ("t_ms,t_s\n0,1\n", "expected the time first"),
        ("t_ms,I_mV\n0,1\n1\n", "expected numbers|not every row"),
        ("t_ms,I_mV\n0,abc\n", "expected numbers only"),
        ("t_ms,I_mV,I_mV\n0,1,2\n", "repeat"),
    ],
)
def test_malformed_csv_is_refused(tmp_path, text, message):
    file = tmp_path / "ecg.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_ecg_csv(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_ecg_csv(tmp_path / "absent.csv")


@pytest.mark.parametrize("step", [1.0, 2.0, 0.8])
def test_wfdb_package_reads_what_we_write(tmp_path, step):
    wfdb = pytest.importorskip("wfdb", reason="wfdb is not installed")
    ecg = some_ecg(50, step)
    signals = np.array(ecg.signals)
    signals[7, 3] = np.nan
    signals[:, 5] *= 500.0  # a lead far beyond the range of a body-surface ECG
    ecg = Ecg(ecg.t, signals, ecg.names)
    write_wfdb(tmp_path / "beat-1.hea", ecg)
    record = wfdb.rdrecord(str(tmp_path / "beat-1"))
    assert record.sig_name == list(ecg.names)
    assert record.units == ["mV"] * 12
    assert record.fmt == ["16"] * 12
    assert record.fs == pytest.approx(1000.0 / step)
    resolution = 0.5 / np.array(record.adc_gain)
    error = np.abs(record.p_signal - signals)
    assert np.isnan(error[7, 3])
    assert np.all(np.nanmax(error, axis=0) <= resolution * (1 + 1e-9))
    raw = wfdb.rdrecord(str(tmp_path / "beat-1"), physical=False)
    written = np.array(raw.checksum) - np.array(raw.calc_checksum())  # 16 bits, of either sign
    assert np.all(written % 2**16 == 0)


def test_wfdb_header_holds_nothing_about_anyone(tmp_path):
    write_wfdb(tmp_path / "beat", some_ecg(3))
    header = (tmp_path / "beat.hea").read_text().splitlines()
    assert header[0] == "beat 12 1000 3"
    assert len(header) == 13  # no comments, no date
    assert not any("#" in line for line in header)


def test_wfdb_refuses_what_the_format_cannot_hold(tmp_path):
    with pytest.raises(InputError, match="cannot name a WFDB record"):
        write_wfdb(tmp_path / "Jane Doe", some_ecg())
    with pytest.raises(InputError, match="no finite sample"):
        write_wfdb(tmp_path / "beat", Ecg(np.arange(3.0), np.full((3, 1), np.nan), ("I",)))
    uneven = some_ecg()
    with pytest.raises(InputError, match="equal, positive steps"):
        write_wfdb(tmp_path / "beat", Ecg(uneven.t**2, uneven.signals, uneven.names))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [write_ecg_csv, write_wfdb])
def test_unwritable_place_is_an_output_error_and_leaves_nothing(tmp_path, write):
    with pytest.raises(OutputError, match="cannot write"):
        write(tmp_path / "absent" / "ecg", some_ecg())
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied.dat").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        write(tmp_path / "occupied", some_ecg())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["occupied", "occupied.dat"]


def test_a_failed_write_keeps_the_older_file(tmp_path, monkeypatch):
    file = tmp_path / "ecg.csv"
    write_ecg_csv(file, some_ecg(3))
    before = file.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        write_ecg_csv(file, some_ecg(5))
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
