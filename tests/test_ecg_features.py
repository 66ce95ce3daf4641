"""Filters, averaging, intervals, shapes and criteria of the ECG; what bad input gives."""

import numpy as np
import pytest
from ecg_hand_readings import READINGS
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from twinheart.ecg import (
    DEFINITIONS,
    Ecg,
    average_beat,
    clean_ecg,
    ecg_features,
    find_beats,
    fragmented_qrs,
    frontal_axis,
    lbbb_aha,
    lbbb_strauss,
    qrs_shapes,
    qtc_bazett,
    qtc_fridericia,
    rate_variation,
    rbbb_aha,
    read_ecg,
)
from twinheart.ecg.filters import mains_hum, remove_baseline
from twinheart.ecg.morphology import QrsShape, Wave
from twinheart.errors import InputError

NAMES = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
QRS = np.array([0.7, 1.0, -0.8, -0.6, 0.5, 1.2, 1.0, 0.8])
KEPT_UV = 0.025  # mV: the AHA's limit for what a filter may do to an ST segment
STEP_MS = 4.0  # ms: a limit may move by this where noise or hum were


def bump(t, start: float, stop: float) -> np.ndarray:
    phase = (t - start) / (stop - start)
    return np.where((phase > 0) & (phase < 1), (1 - np.cos(2 * np.pi * phase)) / 2, 0.0)


def rhythm(t, starts, *, st=0.0, qrs=90.0) -> np.ndarray:
    """Beats of eight leads: QRS 200 ms after each start, T at 480 ms, ST segment between."""
    total = np.zeros((len(t), 8))
    for start in starts:
        x = t - start
        shape = bump(x, 200.0, 200.0 + qrs)
        t_wave = 0.3 * np.exp(-(((x - 480.0) / 35.0) ** 2) / 2)
        segment = st * expit((x - 285) / 4) * expit((480 - x) / 25)
        total += shape[:, None] * QRS + t_wave[:, None] * np.abs(QRS) + segment[:, None]
    return total


T = np.arange(0.0, 10_000.0)
STARTS = np.arange(100.0, 9000.0, 800.0)
CLEAN = rhythm(T, STARTS)


# --- filters ----------------------------------------------------------------------------------


def test_baseline_filter_removes_breathing_and_keeps_the_st_segment():
    elevated = rhythm(T, STARTS, st=0.2)
    wander = 0.5 * np.sin(2 * np.pi * 0.25 * T / 1000)[:, None]
    kept = np.asarray(remove_baseline(Ecg(T, elevated + wander, NAMES)).signals)
    for start in STARTS[2:-2]:
        before, st60 = int(start + 190), int(start + 350)
        level = kept[st60] - kept[before]
        assert np.abs(level - (elevated[st60] - elevated[before])).max() < KEPT_UV


@pytest.mark.parametrize("frequency", [50.0, 49.8, 60.0, 60.1])
def test_hum_is_found_where_it_is_and_taken_out(frequency):
    noise = np.random.default_rng(0).normal(scale=0.003, size=CLEAN.shape)
    hum = 0.1 * np.sin(2 * np.pi * frequency * T / 1000 + 0.5)[:, None]
    assert mains_hum(Ecg(T, CLEAN + noise, NAMES)) == ()
    (found,) = mains_hum(Ecg(T, CLEAN + noise + hum, NAMES))
    assert found == pytest.approx(frequency, abs=0.05)
    cleaned = clean_ecg(Ecg(T, CLEAN + noise + hum, NAMES))
    assert any("hum" in note for note in cleaned.notes)
    without = clean_ecg(Ecg(T, CLEAN + noise, NAMES))
    left = np.asarray(cleaned.ecg.signals) - np.asarray(without.ecg.signals)
    assert np.abs(left).max() < 0.01  # a tenth, the ends of the record included
    one, other = (ecg_features(Ecg(T, CLEAN + noise + x, NAMES)).values for x in (0.0, hum))
    assert other["qrs_duration_ms"] == pytest.approx(one["qrs_duration_ms"], abs=STEP_MS)


def test_a_simulated_beat_is_not_filtered_at_its_ends():
    t = np.arange(0.0, 700.0)
    signals = rhythm(t, [-150.0])
    kept = np.asarray(clean_ecg(Ecg(t, signals, NAMES)).ecg.signals)
    assert np.abs(kept - signals).max() < 0.01


# --- beats ------------------------------------------------------------------------------------


def test_an_artefact_ten_times_a_beat_hides_no_beat():
    signals = CLEAN.copy()
    signals[5500:5510] += 20.0
    r = find_beats(Ecg(T, signals, NAMES)).r
    assert all(np.abs(r - (start + 245)).min() < 20 for start in STARTS if abs(start - 5300) > 300)


def test_ectopic_and_noisy_beats_stay_out_of_the_average():
    signals = CLEAN.copy()
    wide = slice(int(STARTS[4]), int(STARTS[4]) + 700)
    signals[wide] = -rhythm(T[:700], [0.0], qrs=160.0)
    noisy = slice(int(STARTS[7]), int(STARTS[7]) + 700)
    signals[noisy] += np.random.default_rng(0).normal(scale=0.3, size=(700, 8))
    ecg = Ecg(T, signals, NAMES)
    average = average_beat(ecg, find_beats(ecg))
    found = find_beats(ecg).r
    left_out = found[~average.used]
    for index in (4, 7):
        assert np.abs(left_out - (STARTS[index] + 245)).min() < 60
    whole = average_beat(Ecg(T, CLEAN, NAMES), find_beats(Ecg(T, CLEAN, NAMES)))
    assert np.allclose(average.ecg.signals, whole.ecg.signals, atol=0.005)


# --- intervals --------------------------------------------------------------------------------


@given(st.floats(200, 600), st.floats(300, 2000))
def test_corrections_agree_at_sixty_and_over_correct_as_they_should(qt, rr):
    assert qtc_bazett(qt, 1000.0) == pytest.approx(qt)
    assert qtc_fridericia(qt, 1000.0) == pytest.approx(qt)
    assert (qtc_bazett(qt, rr) - qtc_fridericia(qt, rr)) * (1000.0 - rr) >= -1e-9
    assert qtc_fridericia(qt, rr) ** 3 * rr / 1000 == pytest.approx(qt**3)


def test_rate_variation_by_its_definition_and_without_gaps_or_ectopics():
    r = np.cumsum([0.0, 800.0, 820.0, 780.0, 800.0, 400.0, 1200.0, 810.0])
    found = rate_variation(r)
    normal = np.array([800.0, 820.0, 780.0, 800.0, 810.0])
    assert found.rate == pytest.approx(60_000 / normal.mean())
    assert found.sdnn == pytest.approx(normal.std(ddof=1))
    assert found.rmssd == pytest.approx(np.sqrt((20**2 + 40**2 + 20**2) / 3))
    assert (found.shortest, found.longest) == (400.0, 1200.0)
    gap = np.array([[r[5] + 100, r[6] - 100]])
    assert rate_variation(r, gap).longest == 820.0
    assert np.isnan(rate_variation(r[:1]).rate)


# --- shape ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(
    st.floats(-179, 179), st.sampled_from([("I", "aVF"), ("I", "II"), ("II", "III"), ("I", "III")])
)
def test_axis_of_a_dipole_in_einthovens_triangle(angle, leads):
    t = np.arange(0.0, 100.0)
    size = bump(t, 10.0, 90.0)
    x, y = np.cos(np.radians(angle)) * size, np.sin(np.radians(angle)) * size
    i = x
    ii = 0.5 * x + np.sqrt(0.75) * y
    signals = {"I": i, "II": ii, "III": ii - i, "aVF": ii - i / 2}
    ecg = Ecg(t, np.stack([signals[name] for name in leads], axis=1), leads)
    assert frontal_axis(ecg, (5.0, 95.0)) == pytest.approx(angle, abs=1e-6)


def waves(*parts: tuple[float, float, float]) -> np.ndarray:
    t = np.arange(0.0, 200.0)
    return sum(height * bump(t, start, stop) for height, start, stop in parts)


@pytest.mark.parametrize(
    ("parts", "name", "notches"),
    [
        ([(1.0, 20, 80)], "R", 0),
        ([(-0.2, 20, 40), (1.0, 40, 80), (-0.6, 80, 120)], "qRS", 0),
        ([(-1.0, 20, 120)], "QS", 0),
        ([(0.3, 20, 50), (-0.7, 50, 90), (0.9, 90, 140)], "rSR'", 0),
        ([(1.0, 20, 100), (-0.25, 45, 65)], "R", 1),
        ([(1.0, 20, 100), (-0.3, 40, 55), (-0.3, 62, 77)], "R", 2),
    ],
)
def test_waves_and_notches_are_named(parts, name, notches):
    ecg = Ecg(np.arange(200.0), waves(*parts)[:, None], ("V4",))
    shape = qrs_shapes(ecg, (15.0, 150.0))["V4"]
    assert shape.name == name
    assert sum(wave.notches for wave in shape.waves) == notches


def test_a_displaced_st_segment_is_no_wave():
    t = np.arange(200.0)
    st = 0.15 * expit((t - 95) / 4)
    shape = qrs_shapes(Ecg(t, (waves((-1.0, 20, 100)) + st)[:, None], ("V2",)), (15.0, 115.0))["V2"]
    assert shape.name == "QS"


def r(peak=1.0, at=40.0, notches=0, width=80.0) -> Wave:
    return Wave(peak, 0.0, at, width, notches=notches)


def shape(*waves: Wave) -> QrsShape:
    return QrsShape(waves, 0.0)


LBBB = {
    **{name: shape(r(at=75.0, notches=1, width=140.0)) for name in ("I", "aVL", "V5", "V6")},
    "V1": shape(Wave(-1.5, 0.0, 70.0, 140.0)),
    "V2": shape(Wave(0.1, 0.0, 10.0, 20.0), Wave(-1.6, 20.0, 70.0, 140.0)),
    "V3": shape(Wave(0.1, 0.0, 10.0, 20.0), Wave(-1.2, 20.0, 70.0, 140.0)),
}
RBBB = {
    "V1": shape(Wave(0.2, 0.0, 15.0, 30.0), Wave(-0.3, 30.0, 45.0, 60.0), r(0.8, 100.0)),
    "V2": shape(Wave(0.3, 0.0, 15.0, 30.0), Wave(-0.9, 30.0, 60.0, 140.0)),
    "I": shape(Wave(0.6, 0.0, 30.0, 60.0), Wave(-0.3, 60.0, 90.0, 140.0)),
    "V6": shape(Wave(0.9, 0.0, 30.0, 60.0), Wave(-0.4, 60.0, 90.0, 140.0)),
}


def test_bundle_branch_blocks_and_what_each_criterion_asks_for():
    assert lbbb_strauss(LBBB, 145.0).met
    assert lbbb_aha(LBBB, 145.0).met
    assert rbbb_aha(RBBB, 130.0).met
    assert rbbb_aha(LBBB, 145.0).met is False
    assert lbbb_aha(RBBB | {"aVL": RBBB["I"], "V5": RBBB["V6"]}, 130.0).met is False
    # the width depends on the sex, and only between the two limits
    assert lbbb_strauss(LBBB, 135.0, sex="female").met
    assert lbbb_strauss(LBBB, 135.0, sex="male").met is False
    assert lbbb_strauss(LBBB, 135.0).met is None
    assert lbbb_strauss(LBBB, 125.0).met is False
    # each missing part decides
    smooth = {n: shape(r(at=75.0, width=140.0)) for n in ("I", "aVL", "V5", "V6")}
    assert "notches in 0" in lbbb_strauss(LBBB | smooth, 145.0).why
    assert "no notch" in lbbb_aha(LBBB | smooth, 145.0).why
    q = shape(Wave(-0.2, 0.0, 10.0, 20.0), r(at=90.0, notches=1))
    assert "q wave" in lbbb_aha(LBBB | {"V6": q}, 145.0).why
    assert "60 ms or less" in lbbb_aha(LBBB | {"V5": shape(r(notches=1))}, 145.0).why
    assert "without an S" in rbbb_aha(RBBB | {"I": shape(r())}, 130.0).why
    assert lbbb_strauss({}, 150.0).met is None
    assert rbbb_aha(RBBB, float("nan")).met is None
    with pytest.raises(InputError, match="expected male or female"):
        lbbb_strauss(LBBB, 150.0, sex="x")


def test_fragmentation_needs_two_leads_of_a_territory_and_more_when_wide():
    notched = shape(r(notches=1))
    assert fragmented_qrs({"II": notched, "aVF": notched}, 90.0)[1].met
    assert fragmented_qrs({"II": notched, "V1": notched}, 90.0)[1].met is False
    assert fragmented_qrs({"II": notched, "aVF": notched}, 140.0)[1].met is False
    many = shape(r(notches=3))
    assert fragmented_qrs({"II": many, "aVF": many}, 140.0)[1].met
    assert fragmented_qrs({}, 90.0)[1].met is None


# --- everything together ----------------------------------------------------------------------


def test_features_mirror_their_definitions():
    found = ecg_features(Ecg(T, CLEAN, NAMES))
    keys = [definition.key for definition in DEFINITIONS]
    assert list(found.values) == keys
    assert len(set(keys)) == len(keys)
    assert all(definition.text and definition.source for definition in DEFINITIONS)
    assert {key for key, value in found.values.items() if value is None} == set(found.reasons)
    v = found.values
    assert v["heart_rate_bpm"] == pytest.approx(75, abs=0.1)
    assert v["qt_ms"] == pytest.approx(350, abs=8)
    assert v["jt_ms"] == pytest.approx(v["qt_ms"] - v["qrs_duration_ms"])
    assert v["jtc_ms"] == pytest.approx(v["qtc_fridericia_ms"] - v["qrs_duration_ms"])
    assert v["tpe_ms"] == pytest.approx(70, abs=6)  # two deviations of the Gaussian
    assert v["qt_dispersion_ms"] < 5
    assert v["r_transition"] == "V3"


def test_the_infarct_record_has_the_block_that_a_reader_sees(data):
    """V1 is rsR', I and V6 end in wide S waves, QRS 134 ms by hand: right bundle branch block."""
    found = ecg_features(read_ecg(data / READINGS["ptbdb"].file).ecg)
    assert found.values["rbbb_aha"] is True
    assert found.values["lbbb_strauss"] is found.values["lbbb_aha"] is False
    shapes = {row["name"]: row["qrs"] for row in found.leads}
    assert (shapes["V1"], shapes["I"], shapes["III"]) == ("rsR'", "qRs", "Qr")


def test_recorders_own_measurements_agree(data):
    """The DICOM file carries what its recorder measured."""
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    file = pydicom.dcmread(data / READINGS["dicom"].file)
    stated = {
        item.ConceptNameCodeSequence[0].CodeMeaning: item.get("NumericValue")
        for item in file.WaveformAnnotationSequence
        if "ConceptNameCodeSequence" in item
    }
    found = ecg_features(read_ecg(data / READINGS["dicom"].file).ecg).values
    assert found["qrs_duration_ms"] == pytest.approx(float(stated["QRS Duration"]), abs=12)
    assert found["qt_ms"] == pytest.approx(float(stated["QT Interval"]), abs=12)


def test_one_simulated_beat_gives_what_one_beat_can():
    t = np.arange(0.0, 700.0)
    found = ecg_features(Ecg(t, rhythm(t, [-190.0]), NAMES))  # 10 ms of rest before the QRS
    assert found.values["qrs_duration_ms"] == pytest.approx(90, abs=STEP_MS)
    assert found.values["qt_ms"] == pytest.approx(350, abs=8)
    assert found.values["heart_rate_bpm"] is found.values["pr_ms"] is None
    assert "2 beats" in found.reasons["qtc_fridericia_ms"]
    assert "P wave" in found.reasons["pr_ms"]


def test_no_t_wave_is_said():
    t = np.arange(0.0, 400.0)
    found = ecg_features(Ecg(t, bump(t, 20.0, 110.0)[:, None] * QRS, NAMES))
    for key in ("qt_ms", "jt_ms", "tpe_ms", "t_axis_deg", "qrs_t_angle_kors_deg"):
        assert found.values[key] is None
        assert "T wave" in found.reasons[key]


# --- bad input --------------------------------------------------------------------------------


def test_three_leads_give_what_three_leads_can():
    found = ecg_features(Ecg(T, CLEAN[:, [0, 1, 2]], ("I", "II", "V1")))
    assert found.values["qrs_duration_ms"] == pytest.approx(90, abs=STEP_MS)
    axis = np.degrees(np.arctan2((2 * QRS[1] - QRS[0]) / np.sqrt(3), QRS[0]))
    assert found.values["axis_deg"] == pytest.approx(axis, abs=1)
    for key in ("r_transition", "qrs_t_angle_kors_deg"):
        assert found.values[key] is None
        assert "V2" in found.reasons[key]


def test_gaps_are_bridged_and_said_and_their_beats_left_out():
    signals = CLEAN.copy()
    signals[3000:4200] = np.nan
    signals[6000:6010, 2] = np.nan
    whole, found = ecg_features(Ecg(T, CLEAN, NAMES)), ecg_features(Ecg(T, signals, NAMES))
    assert any("gaps bridged" in note for note in found.notes)
    assert found.values["heart_rate_bpm"] == pytest.approx(75, abs=0.5)
    assert found.values["rr_max_ms"] < 900  # not the one across the gap
    for key in ("qrs_duration_ms", "qt_ms", "axis_deg"):
        assert found.values[key] == pytest.approx(whole.values[key], abs=STEP_MS)


def test_saturated_flat_and_empty_leads_are_left_out_with_a_reason():
    signals = np.round(CLEAN / 0.005) * 0.005
    signals[:, 1] = np.minimum(signals[:, 1], 0.4)
    signals[:, 2] = 0.0
    signals[:, 3] = np.nan
    found = ecg_features(Ecg(T, signals, NAMES))
    left = {row["name"]: row["left_out"] for row in found.leads if "left_out" in row}
    assert set(left) == {"II", "V1", "V2"}
    assert "saturated" in left["II"]
    assert left["V1"] == "it is flat"
    assert "100 % of its samples are missing" in left["V2"]
    assert found.values["axis_deg"] is None
    assert "saturated" in found.reasons["axis_deg"]


def test_real_waves_are_not_taken_for_saturation(data):
    for reading in READINGS.values():
        assert clean_ecg(read_ecg(data / reading.file).ecg).dropped == {}


@pytest.mark.parametrize(
    ("samples", "fault"),
    [(0, "lasts 0 ms"), (1, "lasts 0 ms"), (50, "lasts 49 ms"), (3000, "no lead")],
)
def test_what_is_no_ecg_is_refused(samples, fault):
    with pytest.raises(InputError, match=fault):
        ecg_features(Ecg(np.arange(float(samples)), np.zeros((samples, 2)), ("I", "II")))


def test_noise_alone_is_no_beat_to_crash_on():
    noise = np.random.default_rng(0).normal(scale=0.01, size=(5000, 2))
    found = ecg_features(Ecg(np.arange(5000.0), noise, ("I", "II")))
    assert found.values["qt_ms"] is None or np.isfinite(found.values["qt_ms"])
