"""The vectorcardiogram: against Dower's synthesis, measured Frank leads, and geometry."""

import numpy as np
import pytest
import tolerances
from hypothesis import given, settings
from hypothesis import strategies as st

from twinheart.ecg import Ecg, average_beat, clean_ecg, delineate, find_beats, qrs_t_angle, read_ecg
from twinheart.ecg.vcg import INDEPENDENT, MATRICES, angle_between, vectorcardiogram
from twinheart.errors import InputError

# Dower's synthesis of V1 ... V6, I, II from Frank's X, Y, Z (Dower et al. 1980,
# doi:10.1002/clc.4960030202): the matrix whose least-squares inverse is in use.
DOWER = np.array(
    [
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
    ]
)
DIGITS = 0.0015  # both matrices are printed with three decimals


def test_inverse_dower_is_the_pseudo_inverse_of_dowers_matrix():
    assert np.abs(MATRICES["dower"] - np.linalg.pinv(DOWER)).max() < DIGITS


def test_inverse_dower_recovers_the_vector_that_made_the_ecg():
    xyz = np.random.default_rng(0).normal(size=(20, 3))
    ecg = Ecg(np.arange(20.0), xyz @ DOWER.T, INDEPENDENT)
    found = np.asarray(vectorcardiogram(ecg, "dower"))
    assert np.abs(found - xyz).max() < 8 * DIGITS * np.abs(xyz).max()


def test_derived_vectors_follow_the_frank_leads_of_the_same_patient(data):
    """An infarct: both matrices give X and Y well, Z less; Kors better, as its paper says."""
    cleaned = clean_ecg(read_ecg(data / "ecg" / "ptbdb" / "s0010_re").ecg).ecg
    beat = average_beat(cleaned, find_beats(cleaned)).ecg
    t = np.asarray(beat.t)
    frank = np.stack([np.asarray(beat[name]) for name in ("VX", "VY", "VZ")], axis=1)
    waves = delineate(beat, around=0.0)
    qrst = (t >= waves.qrs_onset) & (t <= waves.t_offset)
    limits = (waves.qrs, (waves.t_onset, waves.t_offset))
    whole = {}
    for method in MATRICES:
        derived = np.asarray(vectorcardiogram(beat, method))
        x, y, z = (np.corrcoef(frank[qrst, i], derived[qrst, i])[0, 1] for i in range(3))
        assert min(x, y) > 0.9
        assert z > 0  # to the back, as Frank's
        whole[method] = np.corrcoef(frank[qrst].ravel(), derived[qrst].ravel())[0, 1]
        measured = qrs_t_angle(t, frank, *limits)
        assert qrs_t_angle(t, derived, *limits) == pytest.approx(measured, abs=25)
    assert whole["kors"] > whole["dower"]


def rotation(a: float, b: float, c: float) -> np.ndarray:
    matrix = np.eye(3)
    for axis, angle in enumerate((a, b, c)):
        turn = np.eye(3)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn[[i, i, j, j], [i, j, i, j]] = [
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        ]
        matrix = matrix @ turn
    return matrix


@settings(deadline=None, max_examples=30)
@given(st.tuples(*[st.floats(-3, 3)] * 3), st.floats(0, np.pi), st.floats(0.1, 10))
def test_the_angle_is_that_between_the_loops_and_does_not_turn_with_the_heart(turn, angle, size):
    t = np.arange(0.0, 400.0)
    qrs = np.where((t > 50) & (t < 150), np.sin(np.pi * (t - 50) / 100), 0.0)
    t_wave = np.where((t > 250) & (t < 390), np.sin(np.pi * (t - 250) / 140), 0.0)
    directions = np.array([[1.0, 0.0, 0.0], [np.cos(angle), np.sin(angle), 0.0]])
    vcg = qrs[:, None] * directions[0] + 0.3 * size * t_wave[:, None] * directions[1]
    vcg = vcg @ rotation(*turn).T
    for kind in ("mean", "peak"):
        found = qrs_t_angle(t, vcg, (50.0, 150.0), (250.0, 390.0), kind=kind)
        assert found == pytest.approx(np.degrees(angle), abs=1e-4)


def test_angles_of_nothing_are_nan():
    zero = np.zeros(3)
    assert np.isnan(angle_between(zero, np.ones(3)))
    t, vcg = np.arange(10.0), np.ones((10, 3))
    assert np.isnan(qrs_t_angle(t, vcg, (0.0, 2.0), (float("nan"), float("nan"))))


def test_missing_leads_and_unknown_words_are_refused():
    ecg = Ecg(np.arange(2.0), np.zeros((2, 3)), ("I", "II", "V1"))
    with pytest.raises(InputError, match="lacks V2, V3, V4, V5, V6"):
        vectorcardiogram(ecg)
    whole = Ecg(np.arange(2.0), np.zeros((2, 8)), INDEPENDENT)
    with pytest.raises(InputError, match="expected dower or kors"):
        vectorcardiogram(whole, "frank")
    with pytest.raises(InputError, match="expected mean or peak"):
        qrs_t_angle(np.arange(2.0), np.zeros((2, 3)), (0.0, 1.0), (0.0, 1.0), kind="sum")


def test_vectors_can_be_differentiated():
    import jax
    import jax.numpy as jnp

    def loss(signals):
        return vectorcardiogram(Ecg(jnp.arange(2.0), signals, INDEPENDENT), "kors")[1, 2]

    gradient = jax.grad(loss)(jnp.zeros((2, 8)))
    assert np.allclose(gradient[1], MATRICES["kors"][2], rtol=tolerances.EXACT32)
