"""P, QRS and T limits: against hand readings of real ECGs, and on waves whose limits are known."""

import numpy as np
import pytest
from ecg_hand_readings import READINGS
from hypothesis import given, settings
from hypothesis import strategies as st

from twinheart.ecg import (
    Ecg,
    average_beat,
    clean_ecg,
    delineate,
    ecg_features,
    find_beats,
    qrs_duration,
    qt_interval,
    read_ecg,
)
from twinheart.errors import InputError

HAND_MS = 12.0  # ms, against a person: their own spread is 4 (QRS) to 8 (T end)
P_MS = 20.0  # ms; P waves are low and begin gradually: +-10 of the reader, +-10 of the edge level
SAMPLES_MS = 6.0  # smooth synthetic waves: an edge level of 5 % and a fit over 7 ms


# --- real ECGs --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def records(data):
    """Features of each real record that was read by hand."""
    return {name: ecg_features(read_ecg(data / r.file).ecg) for name, r in READINGS.items()}


@pytest.mark.parametrize("name", READINGS)
def test_every_r_peak_is_found(records, name):
    beats, reading = records[name].beats, READINGS[name]
    assert len(beats.r) == reading.r_peaks
    for beat in reading.beats:  # R is where the reader saw it, in whichever lead
        assert np.abs(beats.r - beat.r).min() < 40


@pytest.mark.parametrize("name", READINGS)
def test_average_beat_agrees_with_the_hand_readings(records, name):
    values, reading = records[name].values, READINGS[name]
    assert values["qrs_duration_ms"] == pytest.approx(reading.qrs_duration, abs=HAND_MS)
    assert values["qt_ms"] == pytest.approx(reading.qt, abs=HAND_MS)
    assert values["pr_ms"] == pytest.approx(reading.pr, abs=P_MS)


@pytest.mark.parametrize("name", READINGS)
def test_single_beats_agree_with_the_hand_readings(data, name):
    ecg = clean_ecg(read_ecg(data / READINGS[name].file).ecg).ecg
    for beat in READINGS[name].beats:
        found = delineate(ecg, around=float(beat.r))
        assert found.qrs_onset - beat.r == pytest.approx(beat.qrs_onset, abs=HAND_MS)
        assert found.qrs_offset - beat.r == pytest.approx(beat.qrs_offset, abs=HAND_MS)
        assert found.t_offset - beat.r == pytest.approx(beat.t_end, abs=HAND_MS)


def test_most_beats_are_averaged_and_artefacts_left_out(records):
    for found in records.values():
        assert found.average.used.mean() >= 0.7
        assert found.average.noise < 0.002  # mV; 10 uV of a single beat over sqrt(10)


def test_the_derived_beat_of_a_file_has_the_limits_of_our_average(records, data):
    """Recorders store an average made by another program; the same limits must come out."""
    for name in ("dicom", "aecg"):
        derived = read_ecg(data / READINGS[name].file).beats
        assert derived is not None
        found, ours = delineate(derived), records[name].waves
        assert found.qt == pytest.approx(ours.qt, abs=HAND_MS)
        width = found.qrs_offset - found.qrs_onset
        assert width == pytest.approx(ours.qrs_offset - ours.qrs_onset, abs=HAND_MS)


# --- synthetic beats --------------------------------------------------------------------------


def bump(t, start: float, stop: float) -> np.ndarray:
    """Raised cosine: zero outside, smooth to first order at both ends."""
    phase = (t - start) / (stop - start)
    return np.where((phase > 0) & (phase < 1), (1 - np.cos(2 * np.pi * phase)) / 2, 0.0)


NAMES = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
QRS_GAINS = np.array([0.7, 1.0, -0.8, -0.6, 0.5, 1.2, 1.0, 0.8])
T_GAINS = np.array([0.25, 0.3, 0.08, 0.4, 0.5, 0.4, 0.3, 0.2])


def beat(t, *, qrs=(200.0, 290.0), t_mean=480.0, t_sd=35.0, p=(50.0, 140.0), t_size=1.0):
    """Eight leads with P, QRS and a Gaussian T, whose tangent ends two deviations after the top."""
    qrs_wave = bump(t, *qrs) - 0.4 * bump(t, qrs[0], qrs[0] + 0.4 * (qrs[1] - qrs[0]))
    t_wave = np.exp(-(((t - t_mean) / t_sd) ** 2) / 2)
    p_wave = 0.12 * bump(t, *p) if p else 0.0 * t
    return (
        qrs_wave[:, None] * QRS_GAINS
        + t_size * t_wave[:, None] * T_GAINS
        + p_wave[:, None] * np.sign(QRS_GAINS)
    )


@pytest.mark.parametrize("step", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("qrs_end", [270.0, 290.0, 360.0])
def test_known_limits_are_found(step, qrs_end):
    t = np.arange(0.0, 800.0, step)
    found = delineate(Ecg(t, beat(t, qrs=(200.0, qrs_end)), NAMES))
    assert found.qrs_onset == pytest.approx(200, abs=SAMPLES_MS)
    assert found.qrs_offset == pytest.approx(qrs_end, abs=SAMPLES_MS)
    assert found.t_peak == pytest.approx(480, abs=2)
    assert found.t_offset == pytest.approx(480 + 2 * 35, abs=SAMPLES_MS)
    assert found.t_onset == pytest.approx(480 - 2 * 35, abs=2 * SAMPLES_MS)
    assert found.p_onset == pytest.approx(50, abs=P_MS)
    assert found.p_offset == pytest.approx(140, abs=P_MS)
    assert found.reasons == {}


@settings(deadline=None, max_examples=10)
@given(
    gain=st.floats(0.01, 100.0),
    shift=st.floats(-2000.0, 2000.0),
    order=st.permutations(range(8)),
    offset=st.floats(-1.0, 1.0),
)
def test_gain_time_offset_and_order_of_leads_do_not_matter(gain, shift, order, offset):
    t = np.arange(0.0, 800.0)
    signals = beat(t)
    one = delineate(Ecg(t, signals, NAMES))
    order = list(order)
    other = delineate(
        Ecg(t + shift, gain * (signals[:, order] + offset), [NAMES[i] for i in order])
    )
    # windows begin with the sample that rounding puts into them
    assert np.allclose(np.array(other[:9]) - shift, one[:9], atol=1.0)


def test_a_negative_t_wave_ends_where_its_mirror_image_does():
    t = np.arange(0.0, 800.0)
    up, down = (delineate(Ecg(t, beat(t, t_size=size), NAMES)) for size in (1.0, -1.0))
    assert down.t_offset == pytest.approx(up.t_offset, abs=1.0)


def test_a_u_wave_does_not_prolong_the_t_wave():
    t = np.arange(0.0, 900.0)
    u_wave = 0.08 * np.exp(-(((t - 640.0) / 40.0) ** 2) / 2)
    with_u = delineate(Ecg(t, beat(t) + u_wave[:, None], NAMES))
    assert with_u.t_offset == pytest.approx(480 + 2 * 35, abs=HAND_MS)


def test_one_lead_with_another_end_does_not_decide():
    t = np.arange(0.0, 900.0)
    signals = beat(t)
    signals[:, 2] = beat(t, t_mean=560.0)[:, 2] * 3.0
    assert delineate(Ecg(t, signals, NAMES)).t_offset == pytest.approx(550, abs=SAMPLES_MS)


def test_st_elevation_does_not_move_the_limits():
    t = np.arange(0.0, 800.0)
    rise = 1.0 / (1.0 + np.exp(-(t - 280.0) / 4.0))  # from the QRS on, back at the T end
    fall = 1.0 / (1.0 + np.exp((t - 480.0) / 25.0))
    found = delineate(Ecg(t, beat(t) + 0.2 * (rise * fall)[:, None], NAMES))
    assert found.qrs_onset == pytest.approx(200, abs=SAMPLES_MS)
    assert found.qrs_offset == pytest.approx(290, abs=HAND_MS)
    assert found.t_offset == pytest.approx(550, abs=HAND_MS)


def test_a_beat_without_t_or_p_says_so():
    t = np.arange(0.0, 800.0)
    found = delineate(Ecg(t, beat(t, t_size=0.0, p=None), NAMES))
    assert np.isnan([found.t_peak, found.t_offset, found.p_onset, found.p_peak]).all()
    assert found.reasons == {
        "P": "no P wave stands out before the QRS",
        "T": "no T wave stands out after the QRS",
    }
    assert found.t_offsets == {}


@pytest.mark.parametrize("end", [440.0, 480.0, 500.0, 520.0])
def test_a_record_that_ends_within_the_t_wave_says_so(end):
    t = np.arange(0.0, end)
    found = delineate(Ecg(t, beat(t), NAMES))
    assert np.isnan(found.t_offset)
    assert found.reasons["T"]


def test_no_beat_gives_nan_everywhere():
    t = np.arange(0.0, 500.0)
    found = delineate(Ecg(t, np.zeros((500, 2)), ("I", "II")))
    assert np.isnan(found[:9]).all()
    assert set(found.reasons) == {"P", "QRS", "T"}


@pytest.mark.parametrize("noise", [0.005, 0.02])
def test_noise_moves_the_limits_of_an_average_little(noise):
    rng = np.random.default_rng(1)
    t = np.arange(0.0, 10_000.0)
    starts = np.arange(300.0, 8900.0, 850.0)
    clean = sum(beat(t - start) for start in starts)
    noisy = Ecg(t, clean + rng.normal(scale=noise, size=clean.shape), NAMES)
    beats = find_beats(noisy)
    assert len(beats.r) == len(starts)
    average = average_beat(noisy, beats)
    # white noise: what is left falls with the root of the number of beats
    left = noise / np.sqrt(average.used.sum())
    assert average.noise == pytest.approx(left, rel=0.2)
    found = delineate(average.ecg, around=0.0, noise=average.noise)
    assert found.qrs_offset - found.qrs_onset == pytest.approx(90, abs=HAND_MS)
    assert found.qt == pytest.approx(350, abs=HAND_MS)


def test_per_beat_functions_take_the_median():
    t = np.arange(0.0, 3000.0)
    signals = sum(
        beat(t - start, qrs=(200.0, 200.0 + width))
        for start, width in ((0.0, 80.0), (900.0, 90.0), (1800.0, 140.0))
    )
    ecg = Ecg(t, signals, NAMES)
    assert qrs_duration(ecg) == pytest.approx(90, abs=SAMPLES_MS)
    assert qt_interval(ecg) == pytest.approx(350, abs=SAMPLES_MS)


def test_coarse_sampling_is_refused():
    t = np.arange(0.0, 800.0, 5.0)
    with pytest.raises(InputError, match="4 ms or less"):
        delineate(Ecg(t, beat(t), NAMES))
