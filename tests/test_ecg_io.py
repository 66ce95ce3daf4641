"""Reading ECG files: WFDB, HL7 aECG, DICOM and tables, against the files themselves and others."""

import re
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinheart.ecg import Ecg, Recording, read_ecg, same_person, write_ecg
from twinheart.ecg.io.names import SCP_LEADS, vendor_lead_name
from twinheart.ecg.leads import LEADS
from twinheart.errors import InputError

STANDARD = tuple(LEADS)
# The wfdb package calls pandas in ways that pandas is giving up
wfdb_warns = pytest.mark.filterwarnings("ignore:.*inplace:DeprecationWarning")


@pytest.fixture
def ecgs(data):
    return data / "ecg"


# --- real files -------------------------------------------------------------------------------


@wfdb_warns
def test_ptb_record_is_what_the_wfdb_package_reads(ecgs):
    wfdb = pytest.importorskip("wfdb", reason="wfdb is not installed")
    record = wfdb.rdrecord(str(ecgs / "ptbdb" / "s0010_re"))
    mine = read_ecg(ecgs / "ptbdb" / "s0010_re")
    assert mine.format == "WFDB"
    assert mine.ecg.names == (*STANDARD, "VX", "VY", "VZ")
    assert mine.ecg.step == 1.0
    assert np.abs(mine.ecg.signals - record.p_signal).max() <= 1e-12
    # first samples of the header, 2000 units a mV
    assert mine.ecg["I"][0] == -489 / 2000
    assert mine.ecg["VY"][0] == 120 / 2000
    assert np.abs(mine.ecg["I"] + mine.ecg["III"] - mine.ecg["II"]).max() <= 1e-3 + 1e-12


@pytest.mark.parametrize("name", ["s0010_re", "s0010_re.hea", "s0010_re.dat"])
def test_a_record_may_be_named_by_any_of_its_files(ecgs, name):
    assert read_ecg(ecgs / "ptbdb" / name).ecg.signals.shape == (38400, 15)


def test_dicom_is_what_pydicom_decodes(ecgs):
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    file = ecgs / "dicom" / "waveform_ecg.dcm"
    dataset = pydicom.dcmread(file)
    mine = read_ecg(file)
    assert mine.format == "DICOM"
    assert mine.ecg.names == STANDARD
    assert mine.ecg.step == 1.0
    for ecg, number in ((mine.ecg, 0), (mine.beats, 1)):
        assert np.abs(ecg.signals - dataset.waveform_array(number) / 1e3).max() <= 1e-12
    assert mine.beats.signals.shape == (1200, 12)


@pytest.mark.parametrize("file", ["Example_aECG.xml", "subject1_0.xml"])
def test_aecg_is_what_its_text_says(ecgs, file):
    text = (ecgs / "aecg" / file).read_text()
    mine = read_ecg(ecgs / "aecg" / file)
    assert mine.format == "HL7 aECG"
    assert mine.ecg.names == STANDARD
    assert mine.ecg.step == 2.0  # <increment value="0.002" unit="s"/>
    blocks = re.findall(
        r'"MDC_ECG_LEAD_(\w+)"[^>]*/>\s*<value xsi:type="SLIST_PQ">.*?<digits>([^<]+)', text, re.S
    )
    assert len(blocks) == 24  # twelve rhythm leads, then twelve of the representative beat
    for n, (lead, digits) in enumerate(blocks):
        ecg = mine.ecg if n < 12 else mine.beats
        expected = np.array([int(d) for d in digits.split()]) * 2.5e-3  # <scale value="2.5" uV>
        assert np.array_equal(ecg[lead], expected)
    assert len(mine.ecg.t) == 5000


def test_aecg_of_one_lead(ecgs):
    mine = read_ecg(ecgs / "aecg" / "minimum_aecg.xml")
    assert mine.ecg.names == ("II",)
    assert np.allclose(mine.ecg["II"][:6], [-0.005, -0.005, -0.005, -0.005, -0.0075, -0.01])
    assert mine.beats is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig", "iso-8859-1"])
def test_aecg_in_every_encoding(ecgs, tmp_path, encoding):
    text = (ecgs / "aecg" / "minimum_aecg.xml").read_text()
    declared = encoding.removesuffix("-sig")
    file = tmp_path / "ecg.xml"
    file.write_bytes(f'<?xml version="1.0" encoding="{declared}"?>\n{text}'.encode(encoding))
    assert read_ecg(file).ecg.signals.shape == (13, 1)


# --- identity ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("ptbdb/s0010_re", ["female", "81", "01/10/1990", "Diabetes"]),
        ("dicom/waveform_ecg.dcm", ["642341", "19710123", "Galliera", "20130125"]),
        ("aecg/Example_aECG.xml", ["SBJ-123", "Clark", "19530508", "20021122"]),
    ],
)
def test_identifiers_are_dropped_unless_asked_for(ecgs, file, words):
    plain = read_ecg(ecgs / file)
    assert plain.identifiers == {}
    said = f"{plain!r} {plain} {plain.notes}"
    assert not [word for word in words if word in said]
    kept = read_ecg(ecgs / file, keep_identifiers=True)
    assert all(any(word in value for value in kept.identifiers.values()) for word in words)
    assert not [word for word in words if word in f"{kept!r} {kept}"]


def test_recordings_of_different_persons_are_refused(ecgs):
    files = ["dicom/waveform_ecg.dcm", "aecg/Example_aECG.xml"]
    one, two = (read_ecg(ecgs / file) for file in files)
    with pytest.raises(InputError, match="recordings 1 and 2 are of different persons") as error:
        same_person([one, two])
    assert not re.search("642341|Clark|SBJ", str(error.value))
    assert same_person([one, read_ecg(ecgs / files[0])])


def recording(**person: str) -> Recording:
    from twinheart.ecg.io.recording import fingerprints

    ecg = Ecg(np.arange(2.0), np.zeros((2, 1)), ("I",))
    return Recording(ecg, "CSV", person=fingerprints(person))


def test_names_are_compared_as_people_write_them():
    assert same_person([recording(name="Doe^Jane"), recording(name="JANE  DOE")])
    assert same_person([recording(sex="F"), recording(sex="female"), recording(sex="2")])
    dates = ["19530508", "1953-05-08", "08.05.1953", "8-MAY-1953"]
    assert same_person([recording(birth_date=date) for date in dates])
    assert not same_person([recording(name="Anonymous"), recording(name="Doe^Jane")])
    assert not same_person([recording(), recording()])
    with pytest.raises(InputError, match="birth dates differ"):
        same_person([recording(), recording(birth_date="19700101"), recording(birth_date="1971")])


# --- lead names -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lead", "labels"),
    [
        ("I", "i|Lead I|LEAD_I|MDC_ECG_LEAD_I|ECG I|EKG I|DI|D1|Lead I (Einthoven)|Ableitung I"),
        ("II", "ii|DII|Lead II|ECG-II|MDC_ECG_LEAD_II|Derived Lead II"),
        ("aVR", "avr|AVR|aV-R|aV R|MDC_ECG_LEAD_AVR|Lead aVR|aVR, augmented voltage, right"),
        ("V1", "v1|C1|V1-REF|V1 REF|ECG V1|MDC_ECG_LEAD_V1|Lead V1|V-1|ecg_v1|V1 (filtered)"),
        ("V3R", "v3r|MDC_ECG_LEAD_V3R|Lead V3R"),
        ("VX", "vx|X|MDC_ECG_LEAD_X|Lead X|Frank X"),
        ("-aVR", "-aVR|\u2212aVR"),
        ("MLII", "MLII"),
        ("ECG1", "ECG1"),
        ("CM5", "CM5"),
        ("Resp", "Resp"),
    ],
)
def test_vendors_spellings(lead, labels):
    assert [vendor_lead_name(label) for label in labels.split("|")] == [lead] * len(
        labels.split("|")
    )


def test_lead_numbers_are_those_of_the_dicom_code_list():
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    from pydicom.sr.codedict import codes

    assert pydicom
    for number, lead in SCP_LEADS.items():
        meanings = [c.meaning for c in _mdc(codes) if c.value == f"2:{number}"]
        assert [vendor_lead_name(meaning) for meaning in meanings] == [lead] * len(meanings)
        assert meanings


def _mdc(codes):
    return [getattr(codes.cid3001, keyword) for keyword in codes.cid3001.dir()]


def test_a_modified_limb_lead_is_said(tmp_path):
    file = tmp_path / "ecg.csv"
    file.write_text("t_ms,MLII_mV,V5_mV\n0,1,2\n4,1,2\n")
    mine = read_ecg(file)
    assert mine.ecg.names == ("II", "V5")
    assert any("MLII" in note for note in mine.notes)


def test_reference_ecg_of_a_simulator(data):
    mine = read_ecg(data / "biv_crt" / "reference_ecg.csv", unit="arbitrary", rate_hz=1000.0)
    assert mine.ecg.names == STANDARD
    assert np.allclose(mine.ecg["I"] + mine.ecg["III"], mine.ecg["II"], atol=1e-4)
    assert any("taken as I, II, III" in note for note in mine.notes)


# --- derived leads ----------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(st.permutations(STANDARD[:6]), st.integers(0, 2**31))
def test_any_two_limb_leads_give_the_other_four(order, seed):
    from twinheart.ecg.io.channels import Channels, ecg_of

    one, two = np.random.default_rng(seed).normal(size=(2, 5))
    whole = {"I": one, "II": two, "III": two - one, "aVR": -(one + two) / 2}
    whole |= {"aVL": one - two / 2, "aVF": two - one / 2}
    values = np.column_stack([whole[name] for name in order[:2]])
    ecg, notes, derived = ecg_of([Channels(order[:2], values, ["mV"] * 2, 500.0)])
    assert ecg.names == STANDARD[:6]
    for name in ecg.names:
        assert np.allclose(ecg[name], whole[name], atol=1e-12)
    assert any("derived from" in note for note in notes)
    assert set(derived) == set(STANDARD[:6]) - set(order[:2])


def test_cabreras_negative_avr_is_turned(tmp_path):
    file = tmp_path / "ecg.csv"
    file.write_text("t_ms;-aVR mV\n0;1,5\n2;2,5\n")  # decimal commas
    mine = read_ecg(file)
    assert mine.ecg.names == ("aVR",)
    assert np.array_equal(mine.ecg["aVR"], [-1.5, -2.5])


# --- WFDB -------------------------------------------------------------------------------------


@wfdb_warns
@pytest.mark.parametrize("fmt", ["16", "24", "32", "80", "212"])  # those the package writes
@pytest.mark.parametrize("samples", [300, 301])
def test_wfdb_formats_as_the_wfdb_package_writes_them(tmp_path, monkeypatch, fmt, samples):
    wfdb = pytest.importorskip("wfdb", reason="wfdb is not installed")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    largest = 100 if fmt == "80" else 500
    digital = rng.integers(-largest, largest, (samples, 3))
    wfdb.wrsamp(
        "r1", 360, ["mV", "uV", "mV"], ["MLII", "V1", "V5"], d_signal=digital, fmt=[fmt] * 3,
        adc_gain=[200.0, 0.2, 100.0], baseline=[10, 0, -5],
    )  # fmt: skip
    expected = wfdb.rdrecord("r1").p_signal * [1, 1e-3, 1]
    mine = read_ecg(tmp_path / "r1")
    assert mine.ecg.names == ("II", "V1", "V5")
    assert np.allclose(mine.ecg.signals, expected, atol=1e-12)


# Bytes of the samples 1, -2, 300 (or the nearest possible), worked out by hand from signal(5)
BYTES = {
    "8": (bytes([1, 0xFD, 0x7F]), [1, -2, 125]),
    "16": (bytes([1, 0, 0xFE, 0xFF, 0x2C, 1]), [1, -2, 300]),
    "61": (bytes([0, 1, 0xFF, 0xFE, 1, 0x2C]), [1, -2, 300]),
    "80": (bytes([129, 126, 228]), [1, -2, 100]),
    "160": (bytes([1, 0x80, 0xFE, 0x7F, 0x2C, 0x81]), [1, -2, 300]),
    "24": (bytes([1, 0, 0, 0xFE, 0xFF, 0xFF, 0x2C, 1, 0]), [1, -2, 300]),
    "32": (bytes([1, 0, 0, 0, 0xFE, 255, 255, 255, 0x2C, 1, 0, 0]), [1, -2, 300]),
    # 0x001, 0xFFE: bytes 01, F0, FE; then 0x12C: 2C, 01
    "212": (bytes([0x01, 0xF0, 0xFE, 0x2C, 0x01]), [1, -2, 300]),
    # 10 bits: 0x001, 0x3FE, 0x12C = 01001 01100; words 01100 | 0000000001 0, 01001 | 1111111110 0
    "310": (bytes([0b00000010, 0b01100000, 0b11111100, 0b01001111]), [1, -2, 300]),
    # one word: 0100101100 1111111110 0000000001
    "311": (bytes([0b00000001, 0b11111000, 0b11001111, 0b00010010]), [1, -2, 300]),
}


@pytest.mark.parametrize("fmt", sorted(BYTES))
def test_wfdb_formats_byte_by_byte(tmp_path, fmt):
    raw, expected = BYTES[fmt]
    (tmp_path / "r.dat").write_bytes(raw)
    (tmp_path / "r.hea").write_text(f"r 1 500 3\nr.dat {fmt} 100 12 0 0 0 0 V1\n")
    assert np.allclose(read_ecg(tmp_path / "r").ecg["V1"], np.array(expected) / 100)


def header(tmp_path, text: str, **files: bytes):
    (tmp_path / "r.hea").write_text(text)
    for name, raw in files.items():
        (tmp_path / f"{name}.dat").write_bytes(raw)
    return tmp_path / "r"


def test_wfdb_missing_samples_offsets_and_other_units(tmp_path):
    raw = b"junk" + np.array([-32768, 7, 100, 9], "<i2").tobytes()
    text = "r 2 250 2\nr.dat 16+4 10(-10)/uV 16 0 0 0 0 V1\nr.dat 16+4 1/mmHg 16 0 0 0 0 ABP\n"
    mine = read_ecg(header(tmp_path, text, r=raw))
    assert mine.ecg.names == ("V1",)
    assert np.allclose(mine.ecg["V1"], [np.nan, 11e-3], equal_nan=True)
    assert any("mmHg is no voltage" in note for note in mine.notes)


def test_wfdb_samples_per_frame_and_skew(tmp_path):
    frames = np.array([[1, 10, 20], [2, 11, 21], [3, 12, 22]], "<i2")
    text = "r 2 100 2\nr.dat 16:1 1/mV 16 0 0 0 0 I\nr.dat 16x2 1/mV 16 0 0 0 0 V1\n"
    mine = read_ecg(header(tmp_path, text, r=frames.tobytes()))
    assert mine.ecg.names == ("V1",)  # 200 Hz: the longer of the two rates
    assert np.array_equal(mine.ecg["V1"], [10, 20, 11, 21])
    assert any("100 Hz were left out" in note for note in mine.notes)
    text = "r 2 100 2\nr.dat 16:1 1/mV 16 0 0 0 0 I\nr.dat 16 1/mV 16 0 0 0 0 V1\n"
    mine = read_ecg(header(tmp_path, text, r=frames[:, :2].copy().tobytes()))
    assert np.array_equal(mine.ecg["I"], [2, 3])
    assert np.array_equal(mine.ecg["V1"], [10, 11])


def test_wfdb_segments(tmp_path):
    for name, value, lead in (("a", 1, "I"), ("b", 2, "V1")):
        (tmp_path / f"{name}.dat").write_bytes(np.full(3, value, "<i2").tobytes())
        (tmp_path / f"{name}.hea").write_text(f"{name} 1 100 3\n{name}.dat 16 1 16 0 0 0 0 {lead}")
    mine = read_ecg(header(tmp_path, "r/3 2 100 8\na 3\n~ 2\nb 3\n"))
    assert mine.ecg.names == ("I", "V1")
    nan = np.nan
    assert np.array_equal(mine.ecg["I"], [1, 1, 1, nan, nan, nan, nan, nan], equal_nan=True)
    assert np.array_equal(mine.ecg["V1"], [nan] * 5 + [2] * 3, equal_nan=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("# only a comment", "empty"),
        ("hello", "no WFDB record line"),
        ("r two 250", "no WFDB record line"),
        ("r 1 250 10\n", "announces 1 signals"),
        ("r 1 -5 10\nr.dat 16 1", "damaged"),
        ("r 99999 250 10\n", "damaged"),
        ("r 1 250 10\n../secret.dat 16 1\n", "not in its folder"),
        ("r 1 250 10\n/etc/passwd 16 1\n", "not in its folder"),
        ("r 1 250 10\n..\\secret.dat 16 1\n", "not in its folder"),
        ("r 1 250 10\n- 16 1\n", "not in its folder"),
        ("r/1 1 250 10\n../r 10\n", "segment line"),
        ("r/1 1 250 10\nr 10\n", "segments within segments"),
        ("r 1 250 10\nr.dat 16 1/mV\n", "6 bytes.*announces 20"),
        ("r 1 250 3\nr.dat 999 1/mV\n", "format 999 is unknown"),
        ("r 1 250 3\nr.dat 516 1/mV\n", "FLAC"),
        ("r 1 250 3\nr.dat 16 abc\n", "signal line"),
        ("r 1 250 3\nother.dat 16 1\n", "no such file"),
        ("r 1 250 0\nr.dat 16+99 1\n", "no ECG sample"),
        ("r 1 250 3\nr.dat 16 1/mmHg\n", "no channel is a voltage"),
    ],
)
def test_bad_wfdb_headers_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_ecg(header(tmp_path, text, r=bytes(6)))


# --- DICOM and XML that are not what they should be ---------------------------------------------


def test_dicom_without_a_waveform_is_refused(data, tmp_path):
    pytest.importorskip("pydicom", reason="pydicom is not installed")
    image = next((data / "cine_mri_patient" / "dicom").rglob("*.dcm"))
    with pytest.raises(InputError, match="DICOM without a waveform"):
        read_ecg(image)
    (tmp_path / "x.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 50)
    with pytest.raises(InputError, match=r"damaged|without a waveform"):
        read_ecg(tmp_path / "x.dcm")


def test_cut_off_dicom_is_refused(ecgs, tmp_path):
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    dataset = pydicom.dcmread(ecgs / "dicom" / "waveform_ecg.dcm")
    dataset.WaveformSequence[0].WaveformData = dataset.WaveformSequence[0].WaveformData[:100]
    dataset.save_as(tmp_path / "x.dcm")
    with pytest.raises(InputError, match="has 100 bytes of samples"):
        read_ecg(tmp_path / "x.dcm")
    raw = (ecgs / "dicom" / "waveform_ecg.dcm").read_bytes()
    (tmp_path / "y.dcm").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(InputError, match=r"damaged|bytes of samples|lacks an attribute|without"):
        read_ecg(tmp_path / "y.dcm")


def test_deflated_dicom_is_refused_before_it_unpacks(ecgs, tmp_path):
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    dataset = pydicom.dcmread(ecgs / "dicom" / "waveform_ecg.dcm")
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "x.dcm")
    with pytest.raises(InputError, match="deflated"):
        read_ecg(tmp_path / "x.dcm")


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;">]><AnnotatedECG>&c;</AnnotatedECG>'
)
EXTERNAL = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    "<AnnotatedECG>&a;</AnnotatedECG>"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "document type or entities"),
        (EXTERNAL, "document type or entities"),
        ('<!DOCTYPE x SYSTEM "http://example.org/x.dtd"><AnnotatedECG/>', "document type"),
        ("<AnnotatedECG>", "well-formed"),
        ('<?xml version="1.0" encoding="klingon"?><AnnotatedECG/>', "well-formed"),
        ("<svg/>", "no HL7 aECG"),
        ("<AnnotatedECG/>", "without a single lead"),
        ("<AnnotatedECG>" + "<a>" * 50_000, "well-formed"),
        ("<AnnotatedECG>" + "<a>" * 20_000 + "</a>" * 20_000 + "</AnnotatedECG>", "single lead"),
    ],
)
def test_bad_xml_is_refused(tmp_path, text, message):
    (tmp_path / "ecg.xml").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_ecg(tmp_path / "ecg.xml")
    assert "root:" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('value="2.5" unit="uV"', 'value="x" unit="uV"', "no number"),
        ("-2 -2", "-2 abc", "no numbers"),
        ('value="0.002" unit="s"', 'value="0" unit="s"', "positive"),
        ('value="0.002" unit="s"', 'value="0.002" unit="fortnight"', "unknown time unit"),
        ('scale value="2.5" unit="uV"', 'scale value="2.5" unit="mm"', "no channel is a voltage"),
        ('scale value="2.5" unit="uV"', 'scale value="2.5"', "states no unit"),
    ],
)
def test_damaged_aecg_is_refused(ecgs, tmp_path, old, new, message):
    text = (ecgs / "aecg" / "minimum_aecg.xml").read_text()
    assert old in text
    (tmp_path / "ecg.xml").write_text(text.replace(old, new))
    with pytest.raises(InputError, match=message):
        read_ecg(tmp_path / "ecg.xml")


def test_sequence_sets_lie_at_their_times(ecgs, tmp_path):
    """Leads recorded one after the other, as on a three-channel device."""
    text = (ecgs / "aecg" / "minimum_aecg.xml").read_text()
    one = text[text.index("<sequenceSet>") : text.index("</sequenceSet>") + len("</sequenceSet>")]
    two = one.replace("LEAD_II", "LEAD_V1").replace("20021122091000", "20021122091000.020")
    both = f"{one}</component><component>{two}"
    (tmp_path / "ecg.xml").write_text(text.replace(one, both))
    mine = read_ecg(tmp_path / "ecg.xml").ecg
    assert mine.names == ("II", "V1")
    assert len(mine.t) == 10 + 13
    assert np.array_equal(np.isnan(mine["II"]), np.arange(23) >= 13)
    assert np.array_equal(np.isnan(mine["V1"]), np.arange(23) < 10)


# --- tables -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("time (s),ii [uV],V1 mV\n0,100,1\n0.002,200,2\n", ("II", "V1")),
        ("Time_s;Lead II_uV;V1_mV\n0;100,0;1\n0,002;200;2,0\n", ("II", "V1")),
        ("t_ms\tII_mV\tV1_mV\n0\t0.1\t1\n2\t0.2\t2\n", ("II", "V1")),
        ("t_ms II_mV V1_mV\n0 0.1 1\n2 0.2 2\n", ("II", "V1")),
        ("# unit: mV\nt_ms,II,V1\n0,0.1,1\n\n2,0.2,2\n", ("II", "V1")),
        ("# unit: uV\n# sampling rate: 500 Hz\nII,V1\n100,1000\n200,2000\n", ("II", "V1")),
        ("\ufeff# rate_hz = 500\nII (uV),V1 (µV)\n100,1000\n200,2000\n", ("II", "V1")),
    ],
)
def test_csv_of_many_kinds(tmp_path, text, names):
    (tmp_path / "ecg.csv").write_text(text, encoding="utf-8")
    ecg = read_ecg(tmp_path / "ecg.csv").ecg
    assert ecg.names == names
    assert np.allclose(ecg.t, [0, 2])
    assert np.allclose(ecg.signals, [[0.1, 1], [0.2, 2]])


def test_what_a_table_does_not_say_must_be_given(tmp_path):
    file = tmp_path / "ecg.csv"
    file.write_text("II,V1\n100,1000\n200,2000\n")
    with pytest.raises(InputError, match=r"states no unit.*unit='uV'"):
        read_ecg(file)
    with pytest.raises(InputError, match=r"no sampling rate.*rate_hz"):
        read_ecg(file, unit="uV")
    with pytest.raises(InputError, match="unknown unit 'volts per metre'"):
        read_ecg(file, unit="volts per metre", rate_hz=500.0)
    with pytest.raises(InputError, match="not possible"):
        read_ecg(file, unit="uV", rate_hz=-1.0)
    mine = read_ecg(file, unit="uV", rate_hz=500.0)
    assert np.allclose(mine.ecg.t, [0, 2])
    assert np.allclose(mine.ecg.signals, [[0.1, 1], [0.2, 2]])
    mine = read_ecg(file, unit="arbitrary", rate_hz=500.0)
    assert mine.ecg["II"][0] == 100
    assert any("arbitrary" in note for note in mine.notes)


def test_what_is_given_overrides_the_file_and_is_said(tmp_path):
    file = tmp_path / "ecg.csv"
    file.write_text("t_ms,II_mV\n0,100\n1,200\n")
    mine = read_ecg(file, unit="uV", rate_hz=500.0)
    assert np.allclose(mine.ecg["II"], [0.1, 0.2])
    assert np.allclose(mine.ecg.t, [0, 2])
    assert any("unit uV as told" in note for note in mine.notes)
    assert any("500 Hz as told" in note for note in mine.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("t_ms,I_mV\n", "no samples"),
        ("t_ms,I\n0,1\n", "states no unit"),
        ("t,I_mV\n0,1\n", "time column 't' states no unit"),
        ("t_ms\n0\n", "expected the time first"),
        ("I_mV,t_ms\n0,1\n", "expected the time first"),
        ("t_ms,t_s\n0,1\n", "expected the time first"),
        ("t_ms,I_mV\n0,1\n1\n", "row 2 has 1 cells"),
        ("t_ms,I_mV\n0,abc\n", "expected numbers only"),
        ("0,1\n1,2\n", "no header"),
        ("t_ms,I_mV\n0,1\n0,2\n", "do not increase"),
        ("t_ms,I_mV\n,1\n1,2\n", "do not increase"),
        ("t_ms,I_mmHg\n0,1\n1,2\n", "states no unit|no voltage"),
        ("t_ms,I_mV\n0,inf\n1,nan\n", "no ECG sample"),
    ],
)
def test_malformed_csv_is_refused(tmp_path, text, message):
    (tmp_path / "ecg.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_ecg(tmp_path / "ecg.csv")


def test_an_empty_cell_is_a_missing_sample(tmp_path):
    (tmp_path / "ecg.csv").write_text("t_ms,I_mV,V1_mV\n0,,1\n1,0.5,nan\n")
    ecg = read_ecg(tmp_path / "ecg.csv").ecg
    assert np.array_equal(ecg.signals, [[np.nan, 1], [0.5, np.nan]], equal_nan=True)


def test_a_repeated_lead_is_kept_apart(tmp_path):
    (tmp_path / "ecg.csv").write_text("t_ms,I_mV,I_mV\n0,1,2\n1,1,2\n")
    mine = read_ecg(tmp_path / "ecg.csv")
    assert mine.ecg.names == ("I", "I (2)")
    assert any("more than once" in note for note in mine.notes)


@pytest.mark.parametrize("transposed", [False, True])
def test_npz_of_either_shape(tmp_path, transposed):
    values = np.array([[100.0, 1000, 5], [200, 2000, 6]])
    np.savez(
        tmp_path / "ecg.npz",
        signals=values.T if transposed else values,
        names=["II", "v1", "V2"],
        unit="uV",
        rate_hz=500,
    )
    ecg = read_ecg(tmp_path / "ecg.npz").ecg
    assert ecg.names == ("II", "V1", "V2")
    assert np.allclose(ecg.signals, values / 1e3)
    assert np.allclose(ecg.t, [0, 2])


def test_npz_of_one_vector_a_lead(tmp_path):
    np.savez(tmp_path / "ecg.npz", II_mV=np.arange(3.0), V1_uV=np.arange(3.0), fs=1000)
    ecg = read_ecg(tmp_path / "ecg.npz").ecg
    assert np.allclose(ecg.signals, [[0, 0], [1, 1e-3], [2, 2e-3]])


def test_npz_refuses_pickles_and_bombs(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", signals=np.array([{}], dtype=object), names=["I"])
    with pytest.raises(InputError, match="pickles are refused"):
        read_ecg(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("signals.npy", "w", force_zip64=True) as member:
            member.write(bytes(10_000_000))
    with monkeypatch.context() as patched:
        patched.setattr("twinheart.ecg.io.table.MAX_BYTES", 1_000_000)
        with pytest.raises(InputError, match="unpacks to 10 MB"):
            read_ecg(tmp_path / "b.npz")
    (tmp_path / "c.npz").write_bytes(b"PK\x03\x04garbage")
    with pytest.raises(InputError, match="no NumPy archive"):
        read_ecg(tmp_path / "c.npz")
    for name, arrays in {
        "d": {"signals": np.zeros((3, 2)), "names": ["I"]},
        "e": {"signals": np.zeros((3, 1)), "names": ["I"], "t_ms": np.zeros(3), "unit": "mV"},
        "f": {"signals": np.array([["a"]]), "names": ["I"]},
    }.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(InputError, match=r"one a lead|do not increase|no numbers"):
            read_ecg(tmp_path / f"{name}.npz")


# --- anything else ----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".xml", ".dcm", ".hea", ".npz", ".scp", ".edf", ""])
@settings(deadline=None, max_examples=25)
@given(raw=st.binary(max_size=400))
def test_rubbish_is_refused_with_one_line(tmp_path_factory, suffix, raw):
    file = tmp_path_factory.mktemp("rubbish") / f"r{suffix}"
    file.write_bytes(raw)
    said = ""
    try:
        read_ecg(file)
    except InputError as error:
        said = str(error)
    assert "\n" not in said


def test_absent_empty_and_unknown_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_ecg(tmp_path / "absent.csv")
    with pytest.raises(InputError, match="is no file"):
        read_ecg(tmp_path)
    (tmp_path / "zero").write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        read_ecg(tmp_path / "zero")
    (tmp_path / "a.mp3").write_bytes(b"ID3 not an ECG")
    with pytest.raises(InputError, match="no ECG file that is known"):
        read_ecg(tmp_path / "a.mp3")


def test_the_format_is_told_from_the_contents(tmp_path):
    ecg = Ecg(np.arange(4.0), np.ones((4, 1)), ("V1",))
    for suffix in (".npz", ".xml"):
        write_ecg(tmp_path / f"a{suffix}", ecg)
        (tmp_path / f"a{suffix}").rename(tmp_path / "a.txt")
        assert read_ecg(tmp_path / "a.txt").ecg.names == ("V1",)
