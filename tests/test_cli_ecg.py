"""`twinheart ecg`: what it prints, what it draws, what it refuses."""

import json

import numpy as np
import pytest
from ecg_hand_readings import READINGS
from PIL import Image

from twinheart.cli import main
from twinheart.ecg import DEFINITIONS, Ecg, read_ecg, write_ecg

KEYS = {"heart_rate_bpm", "qrs_duration_ms", "qt_ms", "qtc_fridericia_ms", "axis_deg", "leads"}


def beats(count: int = 1) -> Ecg:
    """Beats of 90 ms with a T wave, in eight leads."""
    t = np.arange(0.0, 200.0 + 800.0 * count)
    gains = np.array([0.7, 1.0, -0.8, -0.6, 0.5, 1.2, 1.0, 0.8])
    total = np.zeros((len(t), 8))
    for start in 800.0 * np.arange(count) + 100.0:
        inside = (t > start) & (t < start + 90)
        qrs = np.where(inside, (1 - np.cos(2 * np.pi * (t - start) / 90)) / 2, 0.0)
        wave = 0.3 * np.exp(-(((t - start - 280) / 35) ** 2) / 2)
        total += qrs[:, None] * gains + wave[:, None] * np.abs(gains)
    return Ecg(t, total, ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "beats.csv"
    write_ecg(path, beats(6))
    return path


def ran(capsys, *arguments) -> tuple[dict, list[str]]:
    """Run with --json; return the object and the notes."""
    capsys.readouterr()
    assert main(["ecg", *map(str, arguments), "--json"]) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err.splitlines()


def refused(capsys, *arguments) -> str:
    """Run, expect exit status 2 and one line on stderr that is no note; return it."""
    capsys.readouterr()
    assert main(["ecg", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if "note:" not in line]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("name", READINGS)
def test_features_of_real_files(capsys, data, name):
    record, notes = ran(capsys, "features", data / READINGS[name].file)
    assert set(record) >= KEYS | {definition.key for definition in DEFINITIONS}
    assert record["n_beats"] == len(record["r_peaks_ms"]) == READINGS[name].r_peaks
    assert record["qrs_duration_ms"] == pytest.approx(READINGS[name].qrs_duration, abs=12)
    assert record["qt_ms"] == pytest.approx(READINGS[name].qt, abs=12)
    assert {row["name"] for row in record["leads"]} >= {"I", "aVR", "V1", "V6"}
    assert record["notice"] == "research software, not for clinical use"
    assert all(line.startswith("twinheart: note: ") for line in notes)


def test_read_tells_what_is_in_a_file_and_converts_it(capsys, file, tmp_path):
    target = tmp_path / "beats.hea"
    record, _ = ran(capsys, "read", file, "--out", target)
    assert (record["format"], record["rate_hz"]) == ("CSV", 1000.0)
    assert record["leads"][:3] == ["I", "II", "III"]  # III, aVR, aVL, aVF derived
    assert record["notes"]
    again = read_ecg(target).ecg
    assert np.abs(np.asarray(again["V3"]) - np.asarray(beats(6)["V3"])).max() < 0.001


def test_features_can_be_read_by_a_person(capsys, file, tmp_path):
    assert main(["ecg", "features", str(file), "--out", str(tmp_path / "beat.png")]) == 0
    out = capsys.readouterr().out
    assert "qrs_duration_ms" in out
    assert "pr_ms" in out
    assert "(no P wave stands out before the QRS)" in out
    assert "nan" not in out
    with Image.open(tmp_path / "beat.png") as picture:
        assert picture.width > 1000


def test_several_files_give_several_records(capsys, file):
    record, _ = ran(capsys, "features", file, file)
    assert [row["heart_rate_bpm"] for row in record["records"]] == pytest.approx([75, 75])


@pytest.mark.parametrize("layout", ["paper", "panels"])
def test_plot_lays_a_simulated_beat_over_a_measured_one(capsys, file, tmp_path, layout):
    ecg = beats()
    simulated = tmp_path / "simulated.csv"
    write_ecg(simulated, Ecg(ecg.t, 0.25 * np.asarray(ecg.signals), ecg.names))
    picture = tmp_path / "both.svg"
    arguments = ("plot", file, "--overlay", simulated, "--scale", "--layout", layout)
    record, _ = ran(capsys, *arguments, "--out", picture)
    assert min(record["correlation"].values()) > 0.99
    assert record["gain"] == pytest.approx(4, rel=0.05)
    text = picture.read_text()
    trace = "over-lead-V5" if layout == "paper" else "trace-1"
    assert f'id="{trace}"' in text


def test_definitions_are_listed_with_their_sources(capsys):
    record, _ = ran(capsys, "definitions")
    assert [row["key"] for row in record["definitions"]] == [d.key for d in DEFINITIONS]


def test_files_of_different_persons_are_refused(capsys, data):
    first, second = (data / READINGS[name].file for name in ("dicom", "aecg"))
    assert "different persons" in refused(capsys, "features", first, second)
    assert "different persons" in refused(capsys, "plot", first, "--overlay", second)


def test_bad_input_is_one_line(capsys, data, file, tmp_path):
    assert "no such file" in refused(capsys, "features", tmp_path / "absent.csv")
    short = data / "ecg" / "aecg" / "minimum_aecg.xml"
    assert "lasts 24 ms" in refused(capsys, "features", short)
    flat = tmp_path / "flat.csv"
    write_ecg(flat, Ecg(np.arange(500.0), np.zeros((500, 1)), ("II",)))
    assert "it is flat" in refused(capsys, "features", flat)
    assert "one FILE" in refused(capsys, "features", file, file, "--out", tmp_path / "x.png")
    assert "give --overlay" in refused(capsys, "plot", file, "--scale")
    assert refused(capsys, "read", file, "--out", tmp_path / "x.doc")
    assert not (tmp_path / "x.png").exists()
