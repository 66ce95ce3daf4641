"""Writing ECG files: round trips within the rounding, and what other programs read."""

import os
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinheart.ecg import Ecg, read_ecg, write_ecg
from twinheart.ecg.leads import FURTHER_LEADS, LEADS
from twinheart.errors import InputError, OutputError

SUFFIXES = [".csv", ".npz", ".hea", ".dcm", ".xml"]
ROUNDED = 0.25e-3 * (1 + 1e-9)  # half of 0.5 uV, in mV
wfdb_warns = pytest.mark.filterwarnings("ignore:.*inplace:DeprecationWarning")


def some_ecg(samples: int = 40, step: float = 1.0, names=tuple(LEADS)) -> Ecg:
    rng = np.random.default_rng(4)
    return Ecg(step * np.arange(samples), rng.normal(size=(samples, len(names))), names)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("step", [1.0, 2.0, 0.8, 1 / 0.36])
def test_round_trip_within_the_rounding(tmp_path, suffix, step):
    ecg = some_ecg(50, step, (*LEADS, *FURTHER_LEADS[:3], "VX", "VY", "VZ", "Holter 3"))
    files = write_ecg(tmp_path / f"beat{suffix}", ecg)
    assert sorted(files) == sorted(tmp_path.iterdir())
    again = read_ecg(files[0]).ecg
    assert again.names == ecg.names
    assert np.allclose(again.t, ecg.t, rtol=1e-9)
    limit = 0.0 if suffix in (".csv", ".npz") else ROUNDED
    assert np.abs(again.signals - ecg.signals).max() <= limit


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".hea", ".dcm"])
def test_missing_samples_come_back_missing(tmp_path, suffix):
    ecg = some_ecg()
    signals = np.array(ecg.signals)
    signals[3:9, 2] = np.nan
    signals[:, 5] *= 500.0  # far beyond the range of a body-surface ECG
    again = read_ecg(write_ecg(tmp_path / f"a{suffix}", Ecg(ecg.t, signals, ecg.names))[0]).ecg
    assert np.array_equal(np.isnan(again.signals), np.isnan(signals))
    error = np.nanmax(np.abs(again.signals - signals), axis=0)
    assert np.delete(error, 5).max() <= ROUNDED
    assert error[5] <= np.abs(signals[:, 5]).max() / 2**15  # one part of a 16-bit range


def test_aecg_refuses_missing_samples(tmp_path):
    signals = np.array(some_ecg().signals)
    signals[0, 0] = np.nan
    with pytest.raises(InputError, match=r"1 samples are missing.*write WFDB, DICOM or CSV"):
        write_ecg(tmp_path / "a.xml", Ecg(np.arange(40.0), signals, tuple(LEADS)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".hea", ".dcm", ".xml", ".csv"])
@pytest.mark.parametrize(
    "source", ["ptbdb/s0010_re", "dicom/waveform_ecg.dcm", "aecg/Example_aECG.xml"]
)
def test_real_recordings_survive_every_format(data, tmp_path, source, suffix):
    ecg = read_ecg(data / "ecg" / source).ecg
    ecg = Ecg(ecg.t[:5000], ecg.signals[:5000], ecg.names)
    again = read_ecg(write_ecg(tmp_path / f"a{suffix}", ecg)[0]).ecg
    assert again.names == ecg.names
    assert np.abs(again.signals - ecg.signals).max() <= ROUNDED


@wfdb_warns
@pytest.mark.parametrize("step", [1.0, 2.0, 0.8])
def test_wfdb_package_reads_what_we_write(tmp_path, step):
    wfdb = pytest.importorskip("wfdb", reason="wfdb is not installed")
    ecg = some_ecg(50, step)
    signals = np.array(ecg.signals)
    signals[7, 3] = np.nan
    signals[:, 5] *= 500.0
    ecg = Ecg(ecg.t, signals, ecg.names)
    write_ecg(tmp_path / "beat-1.hea", ecg)
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


def test_pydicom_reads_what_we_write(tmp_path):
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    ecg = some_ecg(5000, 2.0)
    write_ecg(tmp_path / "a.dcm", ecg)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    assert dataset.SOPClassUID.name == "12-lead ECG Waveform Storage"
    assert np.abs(dataset.waveform_array(0) / 1e3 - ecg.signals).max() <= ROUNDED
    channels = dataset.WaveformSequence[0].ChannelDefinitionSequence
    meanings = [c.ChannelSourceSequence[0].CodeMeaning for c in channels]
    assert meanings == [f"Lead {name}" for name in ecg.names]
    assert dataset.WaveformSequence[0].SamplingFrequency == 500
    write_ecg(tmp_path / "b.dcm", some_ecg(20000))  # longer than the 12-lead object allows
    assert pydicom.dcmread(tmp_path / "b.dcm").SOPClassUID.name == "General ECG Waveform Storage"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_ecg_gives_the_same_bytes_and_nobody_is_in_them(tmp_path, suffix):
    one = write_ecg(tmp_path / f"a{suffix}", some_ecg())
    first = [file.read_bytes() for file in one]
    assert first == [file.read_bytes() for file in write_ecg(tmp_path / f"a{suffix}", some_ecg())]
    recording = read_ecg(one[0], keep_identifiers=True)
    assert recording.person == {}
    assert set(recording.identifiers) <= {"name", "recorded"}
    assert recording.identifiers.get("name", "Anonymous") == "Anonymous"
    assert recording.identifiers.get("recorded", "19000101000000") == "19000101000000"


def test_wfdb_header_holds_nothing_about_anyone(tmp_path):
    write_ecg(tmp_path / "beat.hea", some_ecg(3))
    header = (tmp_path / "beat.hea").read_text().splitlines()
    assert header[0] == "beat 12 1000 3"
    assert len(header) == 13  # no comments, no date
    assert not any("#" in line for line in header)


def test_csv_is_a_plain_table(tmp_path):
    ecg = Ecg(np.array([0.0, 1.0]), np.array([[0.1], [0.25]]), ("II",))
    write_ecg(tmp_path / "ecg.csv", ecg)
    assert (tmp_path / "ecg.csv").read_text() == "t_ms,II_mV\n0.0,0.1\n1.0,0.25\n"


@pytest.mark.parametrize("suffix", [".hea", ".dcm", ".xml"])
def test_what_a_format_cannot_hold_is_refused(tmp_path, suffix):
    file = tmp_path / f"beat{suffix}"
    with pytest.raises(InputError, match="no finite sample"):
        write_ecg(file, Ecg(np.arange(3.0), np.full((3, 1), np.nan), ("I",)))
    uneven = some_ecg()
    with pytest.raises(InputError, match="equal, positive steps"):
        write_ecg(file, Ecg(uneven.t**2, uneven.signals, uneven.names))
    assert list(tmp_path.iterdir()) == []


def test_names_and_suffixes_that_are_not_allowed(tmp_path):
    with pytest.raises(InputError, match="cannot name a WFDB record"):
        write_ecg(tmp_path / "Jane Doe.hea", some_ecg())
    with pytest.raises(InputError, match="25 leads, but a DICOM waveform holds 24"):
        write_ecg(tmp_path / "a.dcm", some_ecg(4, 1.0, tuple(f"e{n}" for n in range(25))))
    with pytest.raises(OutputError, match=re.escape("expected one of .csv, .npz")):
        write_ecg(tmp_path / "ecg.edf", some_ecg())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_unwritable_place_is_an_output_error_and_leaves_nothing(tmp_path, suffix):
    with pytest.raises(OutputError, match="cannot write"):
        write_ecg(tmp_path / "absent" / f"ecg{suffix}", some_ecg())
    (tmp_path / "occupied.dat").mkdir()
    if suffix != ".hea":
        (tmp_path / f"occupied{suffix}").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match="cannot write"):
        write_ecg(tmp_path / f"occupied{suffix}", some_ecg())
    assert sorted(tmp_path.iterdir()) == before


def test_a_failed_write_keeps_the_older_file(tmp_path, monkeypatch):
    file = tmp_path / "ecg.csv"
    write_ecg(file, some_ecg(3))
    before = file.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        write_ecg(file, some_ecg(5))
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


@pytest.fixture(scope="module")
def small_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    return {suffix: write_ecg(folder / f"a{suffix}", some_ecg(20))[0] for suffix in SUFFIXES}


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_file_is_read_or_refused_with_one_line(small_files, suffix, changes):
    good = small_files[suffix]
    raw = bytearray(good.read_bytes())
    for place, value in changes:
        raw[place % len(raw)] = value
    bad = good.with_name(f"bad{suffix}")
    bad.write_bytes(raw)
    said = ""
    try:
        read_ecg(bad)
    except InputError as error:
        said = str(error)
    assert "\n" not in said
