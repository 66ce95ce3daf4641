"""SCP-ECG records laid out from the standard's tables; EDF as other programs write it."""

import struct

import numpy as np
import pytest
from ecg_samples import Scp, scp_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from twinheart.ecg import read_ecg
from twinheart.ecg.io.scp_huffman import default_table
from twinheart.errors import InputError


def beat(samples: int, seed: int = 1, scale: float = 200.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = np.convolve(rng.normal(size=samples + 20), np.hanning(21), "valid")
    return np.rint(smooth * scale).astype(np.int64)


def read(tmp_path, record: Scp, **options):
    file = tmp_path / "ecg.scp"
    file.write_bytes(scp_bytes(record))
    return read_ecg(file, **options)


# Code words of the default table as EN 1064 prints them: (bits in prefix, in all, value, stored
# code); the stored code has its first bit lowest.
PRINTED = [
    (1, 1, 0, 0), (3, 3, 1, 1), (3, 3, -1, 5), (4, 4, 2, 3), (4, 4, -2, 11), (5, 5, 3, 7),
    (5, 5, -3, 23), (6, 6, 4, 15), (6, 6, -4, 47), (7, 7, 5, 31), (7, 7, -5, 95), (8, 8, 6, 63),
    (8, 8, -6, 191), (9, 9, 7, 127), (9, 9, -7, 383), (10, 10, 8, 255), (10, 10, -8, 767),
    (10, 18, 0, 511), (10, 26, 0, 1023),
]  # fmt: skip


def test_default_table_is_the_printed_one():
    mine = [
        (len(c.prefix), len(c.prefix) + c.extra, c.value, int(c.prefix[::-1], 2))
        for c in default_table()
    ]
    assert mine == PRINTED


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("coding", ["default", "own", "none"])
def test_scp_samples_in_every_coding(tmp_path, order, coding):
    leads = {1: beat(500), 2: beat(500, 2), 3: beat(500, 3, 3000.0)}
    record = Scp(leads, order=order, huffman=coding != "none", own_table=coding == "own")
    mine = read(tmp_path, record)
    assert mine.format == "SCP-ECG"
    assert mine.ecg.names[:2] == ("I", "II")
    assert mine.ecg.step == 2.0
    for number, name in ((1, "I"), (2, "II"), (3, "V1")):
        assert np.allclose(mine.ecg[name], leads[number] * 2.5e-3, atol=1e-12)
    assert not any("checksum" in note for note in mine.notes)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(-8000, 8000), min_size=1, max_size=40), st.integers(0, 2))
def test_scp_keeps_every_sample(tmp_path_factory, samples, order):
    file = tmp_path_factory.mktemp("scp") / "a.scp"
    file.write_bytes(scp_bytes(Scp({3: np.array(samples)}, order=order, multiplier=1000)))
    assert np.allclose(read_ecg(file).ecg["V1"], np.array(samples) / 1e3, atol=1e-12)


@pytest.mark.parametrize("bimodal", [0, 1])  # bimodal, but nothing left out: one interval
def test_scp_adds_the_reference_beat_back(tmp_path, bimodal):
    leads = {3: beat(600), 4: beat(600, 2)}
    reference = {3: beat(200, 5), 4: beat(200, 6)}
    places = [(0, 50, 120, 220), (1, 230, 250, 260), (0, 300, 340, 440), (0, 560, 590, 640)]
    record = Scp(
        leads, reference=reference, fiducial=80, places=places, subtract=True, bimodal=bimodal
    )
    mine = read(tmp_path, record)
    for number, name in ((3, "V1"), (4, "V2")):
        assert np.allclose(mine.ecg[name], leads[number] * 2.5e-3, atol=1e-12)
        assert np.allclose(mine.beats[name], reference[number] * 2.5e-3, atol=1e-12)
    assert mine.beats.step == 2.0


def test_scp_leads_that_begin_later(tmp_path):
    record = Scp({1: beat(10), 3: beat(10, 2)}, starts={1: 1, 3: 6})
    mine = read(tmp_path, record).ecg
    assert len(mine.t) == 15
    assert np.array_equal(np.isnan(mine["I"]), np.arange(15) >= 10)
    assert np.array_equal(np.isnan(mine["V1"]), np.arange(15) < 5)


def test_scp_identifiers(tmp_path):
    tags = [(0, b"Doe\0"), (1, b"Jane\0"), (2, b"4711\0"), (8, b"\2"), (4, b"\x51\0\1")]
    tags.append((5, struct.pack("<HBB", 1953, 5, 8)))
    record = Scp({1: beat(10)}, tags=tags)
    assert read(tmp_path, record).identifiers == {}
    assert read(tmp_path, record, keep_identifiers=True).identifiers == {
        **{"name": "Doe Jane", "id": "4711", "sex": "F", "age": "81", "birth_date": "19530508"}
    }


def test_scp_damage_is_said(tmp_path):
    whole = scp_bytes(Scp({1: beat(300)}))
    file = tmp_path / "ecg.scp"
    for cut in (10, 30, 100, 170, len(whole) // 2, len(whole) - 30):
        file.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"incomplete|too short|without lead|cut off"):
            read_ecg(file)
    changed = bytearray(whole)
    changed[-20] ^= 1
    file.write_bytes(changed)
    assert any("checksum of section 6" in note for note in read_ecg(file).notes)
    with pytest.raises(InputError, match="bimodal compression"):
        read(tmp_path, Scp({1: beat(30)}, bimodal=1))
    with pytest.raises(InputError, match="interval of 0 us"):
        read(tmp_path, Scp({1: beat(30)}, interval=0))
    with pytest.raises(InputError, match="lacks the reference beat"):
        read(tmp_path, Scp({1: beat(30)}, subtract=True))


@settings(deadline=None, max_examples=60)
@given(st.integers(6, 600), st.integers(0, 255))
def test_scp_with_any_byte_changed_never_crashes(tmp_path_factory, place, value):
    raw = bytearray(scp_bytes(Scp({1: beat(40), 3: beat(40, 2)}, order=2)))
    raw[place % len(raw)] = value
    file = tmp_path_factory.mktemp("scp") / "a.scp"
    file.write_bytes(raw)
    said = ""
    try:
        read_ecg(file)
    except InputError as error:
        said = str(error)
    assert "\n" not in said


# --- EDF --------------------------------------------------------------------------------------


def edf_file(folder, **options):
    edfio = pytest.importorskip("edfio", reason="edfio is not installed")
    rng = np.random.default_rng(2)
    t = np.arange(2560) / 256
    ecg = {"ECG I": np.sin(7 * t), "ECG II": 1.5 * np.sin(7 * t) + 0.01 * rng.normal(size=2560)}
    ecg = {label: ("mV", 5, data) for label, data in ecg.items()}
    others = {
        "EKG V1": ("uV", 5000, 800 * np.cos(t[::2])),  # of half the rate
        "EEG Fpz-Cz": ("uV", 100, rng.normal(size=2560)),
        "SpO2": ("%", 100, np.ones(10)),
    }
    signals = [
        edfio.EdfSignal(
            data, len(data) / 10, label=label, physical_dimension=unit, physical_range=(-top, top)
        )
        for label, (unit, top, data) in (ecg | others).items()
    ]
    file = folder / "ecg.edf"
    edfio.Edf(signals, **options).write(file)
    return file, {label: data for label, (_, _, data) in ecg.items()}


def test_edf_of_another_writer(tmp_path):
    file, ecg = edf_file(tmp_path)
    mine = read_ecg(file)
    assert mine.format == "EDF"
    assert mine.ecg.names == ("I", "II", "III", "aVR", "aVL", "aVF")
    assert mine.ecg.step == pytest.approx(1000 / 256)
    step = 10 / 65535  # mV of one digit
    assert np.abs(mine.ecg["I"] - ecg["ECG I"]).max() <= step / 2 * (1 + 1e-6)
    assert np.abs(mine.ecg["II"] - ecg["ECG II"]).max() <= step / 2 * (1 + 1e-6)
    assert any("128 Hz were left out" in note for note in mine.notes)
    assert any("no ECG were left out" in note for note in mine.notes)


def test_edf_identifiers_and_annotations(tmp_path):
    edfio = pytest.importorskip("edfio", reason="edfio is not installed")
    import datetime

    patient = edfio.Patient(
        code="4711", sex="F", birthdate=datetime.date(1953, 5, 8), name="Jane_Doe"
    )
    notes = [edfio.EdfAnnotation(1.0, None, "felt dizzy")]
    file, _ = edf_file(tmp_path, patient=patient, annotations=notes)
    mine = read_ecg(file, keep_identifiers=True)
    assert mine.ecg.signals.shape == (2560, 6)
    assert mine.identifiers["id"] == "4711"
    assert mine.identifiers["name"] == "Jane Doe"
    plain = read_ecg(file)
    assert not [w for w in ("4711", "Jane", "dizzy") if w in f"{plain!r}{plain}"]
    assert set(plain.person) == {"id", "name", "sex", "birth_date"}
    raw = bytearray(file.read_bytes())
    raw[8:88] = b"Doe, Jane (ward 3)".ljust(80)  # plain EDF: no telling what is what
    file.write_bytes(raw)
    assert read_ecg(file).person == {}
    assert read_ecg(file, keep_identifiers=True).identifiers["patient"] == "Doe, Jane (ward 3)"


def by_hand(records: list[tuple[float, list[int]]], kind: bytes = b"EDF+D", size: int = 2) -> bytes:
    """One ECG channel of four samples and one of annotations in each record of 1 s."""

    def slots(*texts: str, width: int) -> bytes:
        return b"".join(text.ljust(width).encode() for text in texts)

    head = (b"0       " if size == 2 else b"\xffBIOSEMI") + b" " * 160 + b"01.01.0100.00.00"
    head += slots("768", width=8) + kind.ljust(44) + slots(str(len(records)), "1", width=8)
    head += slots("2", width=4)
    label = "EDF Annotations" if size == 2 else "BDF Annotations"
    head += slots("V1", label, width=16) + slots("", "", width=80) + slots("mV", "", width=8)
    top = 2 ** (8 * size - 1)
    head += slots("-1", "-1", width=8) + slots("1", "1", width=8)
    head += slots(str(1 - top), str(1 - top), width=8) + slots(str(top - 1), str(top - 1), width=8)
    head += slots("", "", width=80) + slots("4", "12", width=8) + slots("", "", width=32)
    for onset, samples in records:
        head += b"".join(v.to_bytes(size, "little", signed=True) for v in samples)
        head += f"+{onset:g}\x14\x14\0".encode().ljust(12 * size, b"\0")
    return head


@pytest.mark.parametrize("size", [2, 3])
def test_interrupted_edf_and_bdf(tmp_path, size):
    top = 2 ** (8 * size - 1) - 1
    records = [(0.0, [0, top, -top, 0]), (1.0, [top] * 4), (3.5, [0, 0, 0, -top])]
    kind = b"EDF+D" if size == 2 else b"BDF+D"
    (tmp_path / "a.edf").write_bytes(by_hand(records, kind, size))
    mine = read_ecg(tmp_path / "a.edf")
    nan = np.nan
    expected = [0, 1, -1, 0, 1, 1, 1, 1, *[nan] * 6, 0, 0, 0, -1]
    assert np.allclose(mine.ecg["V1"], expected, equal_nan=True, atol=1e-9)
    assert mine.ecg.step == 250.0
    assert any("interrupted 1 times" in note for note in mine.notes)


def test_damaged_edf_is_refused(tmp_path):
    whole = by_hand([(0.0, [0, 1, 2, 3]), (1.0, [0, 1, 2, 3])])
    for text, message in (
        (whole[:-5], "1 of the 2 data records"),
        (whole.replace(b"768     ", b"999     ", 1), "damaged"),
        (whole.replace(b"+1\x14", b"xx\x14"), "without the times"),
        (whole.replace(b"-32767", b" 32767"), "damaged"),
        (whole[:300], "damaged"),
    ):
        (tmp_path / "a.edf").write_bytes(text)
        with pytest.raises(InputError, match=message):
            read_ecg(tmp_path / "a.edf")
