"""What a reader suspects: real recordings say nothing, the same ones damaged say what was done."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from twinheart.ecg import Ecg, read_ecg, write_ecg
from twinheart.ecg.electrodes import STANDARD
from twinheart.ecg.io.quality import suspicions
from twinheart.ecg.leads import LEADS, lead_weights

FILES = ["ptbdb/s0010_re", "dicom/waveform_ecg.dcm", "aecg/Example_aECG.xml"]
NAMES = tuple(LEADS)
each_file = pytest.mark.parametrize("file", FILES)


@pytest.fixture(scope="module")
def recorded(data):
    """The twelve leads of ten seconds of each real recording."""
    found = {}
    for file in FILES:
        ecg = read_ecg(data / "ecg" / file).ecg
        rows = slice(0, round(10_000 / ecg.step))
        signals = np.column_stack([ecg[name] for name in NAMES])[rows]
        found[file] = Ecg(ecg.t[rows], signals, NAMES)
    return found


def changed(ecg: Ecg, **leads: np.ndarray) -> Ecg:
    signals = np.array(ecg.signals)
    for name, values in leads.items():
        signals[:, ecg.names.index(name)] = values
    return Ecg(ecg.t, signals, ecg.names)


def said(ecg: Ecg, *words: str) -> bool:
    """Whether exactly one suspicion is voiced and it has these words."""
    notes = suspicions(ecg)
    return len(notes) == 1 and all(word in notes[0] for word in words)


@each_file
def test_a_good_recording_raises_no_suspicion(recorded, file):
    assert suspicions(recorded[file]) == []
    rows = len(recorded[file].t) // 3
    for part in range(3):  # nor does any part of it
        inside = slice(part * rows, (part + 1) * rows)
        ecg = recorded[file]
        assert suspicions(Ecg(ecg.t[inside], ecg.signals[inside], NAMES)) == []


# --- damage -----------------------------------------------------------------------------------


@each_file
def test_gaps(recorded, file):
    ecg = recorded[file]
    v2 = np.array(ecg["V2"])
    hundredth = len(v2) // 100
    v2[hundredth : 2 * hundredth] = v2[5 * hundredth : 7 * hundredth] = np.nan
    ms = 2 * hundredth * ecg.step
    assert said(changed(ecg, V2=v2), "V2", "missing in 2 gaps", f"the longest {ms:.3g} ms")
    v5 = np.where(np.isnan(v2), np.nan, ecg["V5"])
    assert said(changed(ecg, V2=v2, V5=v5), "V2, V5: 3 % missing")


@each_file
def test_flat_leads(recorded, file):
    ecg = recorded[file]
    noise = 1e-4 * np.random.default_rng(1).normal(size=len(ecg.t))
    assert said(changed(ecg, V3=0 * ecg.t), "V3 is flat")
    assert said(changed(ecg, V3=0 * ecg.t + 1.0, V4=noise), "V3, V4 are flat")
    still = np.array(ecg["V3"])
    still[len(still) // 2 :] = 0.3
    assert said(changed(ecg, V3=still), "V3 stands still for 50 % of the time")


@each_file
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_saturation(recorded, file, share):
    ecg = recorded[file]
    for name in ("V2", "V4"):
        limit = share * np.percentile(np.abs(ecg[name]), 99.9)
        notes = suspicions(changed(ecg, **{name: np.clip(ecg[name], -limit, limit)}))
        assert any(f"{name} (at " in note and "saturated" in note for note in notes)


@each_file
@pytest.mark.parametrize("mains", [50, 60])
def test_hum(recorded, file, mains):
    ecg = recorded[file]
    hum = 0.05 * np.sin(2 * np.pi * (mains + 0.1) * ecg.t / 1e3)
    notes = suspicions(Ecg(ecg.t, ecg.signals + hum[:, None], NAMES))
    found = [note for note in notes if f"hum of {mains} Hz" in note]
    assert len(found) == 1
    assert all(f"{name} (0.0" in found[0] for name in ("V1", "V6"))
    assert not [note for note in notes if "hum of" in note and note not in found]
    quiet = suspicions(Ecg(ecg.t, ecg.signals + 0.1 * hum[:, None], NAMES))
    assert not [note for note in quiet if "hum" in note]


@each_file
@pytest.mark.parametrize(("factor", "unit"), [(1e3, "uV"), (1e-3, "mV")])
def test_wrong_gain_is_said_with_the_remedy(recorded, file, tmp_path, factor, unit):
    """Microvolts taken for millivolts and the reverse: the remedy named is the right one."""
    ecg = recorded[file]
    ecg = Ecg(ecg.t[:2000], ecg.signals[:2000], NAMES)
    wrong = Ecg(ecg.t, ecg.signals * factor, NAMES)
    assert any(f"give unit='{unit}'" in note for note in suspicions(wrong))
    header = ",".join(["t_ms", *(f"{name}_{'mV' if unit == 'uV' else 'uV'}" for name in NAMES)])
    values = ecg.signals * (1e3 if unit == "uV" else 1.0)
    table = np.column_stack([ecg.t, values])
    np.savetxt(tmp_path / "a.csv", table, delimiter=",", header=header, comments="")
    assert any("give unit" in note for note in read_ecg(tmp_path / "a.csv").notes)
    right = read_ecg(tmp_path / "a.csv", unit=unit)
    assert np.allclose(right.ecg.signals, ecg.signals, atol=1e-9)
    assert not any("give unit" in note for note in right.notes)


@each_file
def test_leads_that_break_einthovens_law(recorded, file):
    ecg = recorded[file]
    notes = suspicions(changed(ecg, III=-ecg["III"]))
    assert any("I, II, III do not obey II = I + III" in note for note in notes)
    notes = suspicions(changed(ecg, aVR=-ecg["aVR"]))
    assert any("aVR + aVL + aVF = 0" in note for note in notes)


@each_file
def test_a_copied_lead(recorded, file):
    ecg = recorded[file]
    assert any("V2 and V3 are identical" in n for n in suspicions(changed(ecg, V3=ecg["V2"])))


def test_too_few_leads_samples_or_moments(recorded):
    ecg = recorded[FILES[1]]
    three = Ecg(ecg.t, ecg.signals[:, :3], NAMES[:3])
    assert said(three, "3 of the 12 standard leads are there; aVR, aVL", "V6 missing")
    assert said(Ecg(ecg.t[:100], ecg.signals[:100], NAMES), "lasts 99 ms, less than a heart beat")
    slow = Ecg(ecg.t[::20], ecg.signals[::20], NAMES)
    assert any("50 samples a second are too few" in note for note in suspicions(slow))


def test_arbitrary_units_are_not_judged_by_amplitude(recorded):
    ecg = recorded[FILES[1]]
    assert suspicions(Ecg(ecg.t, ecg.signals * 1e5, NAMES), calibrated=False) == []


def test_three_leads_of_a_file_become_six_and_that_is_said(recorded, tmp_path):
    ecg = recorded[FILES[0]]
    three = Ecg(ecg.t, ecg.signals[:, [0, 1, 7]], ("I", "II", "V2"))
    mine = read_ecg(write_ecg(tmp_path / "a.hea", three)[0])
    assert mine.ecg.names == ("I", "II", "III", "aVR", "aVL", "aVF", "V2")
    assert np.abs(mine.ecg["aVF"] - ecg["aVF"]).max() <= 2e-3  # the file's own rounding
    assert any("III, aVR, aVL, aVF were derived from I and II" in note for note in mine.notes)
    assert any("V1, V3, V4, V5, V6 missing" in note for note in mine.notes)


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 40), st.integers(1, 12)),
        elements=st.sampled_from([0.0, 1.0, -1.0, 0.5, np.nan, 1e300, 1e-300]),
    ),
    st.booleans(),
    st.floats(1.0, 500.0),
)
def test_anything_can_be_judged(signals, calibrated, step):
    ecg = Ecg(step * np.arange(len(signals)), signals, NAMES[: signals.shape[1]])
    assert all(isinstance(note, str) for note in suspicions(ecg, calibrated=calibrated))


# --- interchanged electrodes, by what they do to the potentials ---------------------------------


def with_cables(ecg: Ecg, **moved: str) -> Ecg:
    """The ECG if the cable of one electrode had been fixed to the place of another."""
    one, two = np.asarray(ecg["I"]), np.asarray(ecg["II"])
    places = {"RA": -(one + two) / 3, "LA": (2 * one - two) / 3, "LL": (2 * two - one) / 3}
    places |= {name: np.asarray(ecg[name]) for name in STANDARD[3:]}  # against Wilson's terminal
    places["RL"] = places["LL"]  # both legs have one potential
    potentials = np.column_stack([places[moved.get(name, name)] for name in STANDARD])
    names, weights = lead_weights(STANDARD)
    assert names == NAMES
    return Ecg(ecg.t, potentials @ weights.T, NAMES)


@each_file
@pytest.mark.parametrize(
    ("moved", "words"),
    [
        ({"RA": "LA", "LA": "RA"}, "right and left arm electrodes"),
        ({"RA": "LL", "LL": "RA"}, "right arm / left leg"),
        ({"RA": "LA", "LA": "LL", "LL": "RA"}, "all three in turn"),
        ({"RA": "LL", "LA": "RA", "LL": "LA"}, "all three in turn"),
        ({"RA": "RL"}, "lead II has hardly any voltage"),
        ({"LA": "RL"}, "lead III has hardly any voltage"),
        ({"RA": "RL", "LA": "LL", "LL": "LA"}, "lead I has hardly any voltage"),
        ({"V3": "V6", "V6": "V3"}, "electrodes V3 and V6"),
        ({"V3": "V4", "V4": "V3"}, "electrodes V3 and V4"),
        ({"V1": "V6", "V6": "V1"}, "electrodes V1 and V6"),
    ],
)
def test_interchanged_electrodes_are_suspected(recorded, file, moved, words):
    whole = with_cables(recorded[file])
    assert suspicions(whole) == []
    flat = "hardly" in words
    notes = [n for n in suspicions(with_cables(recorded[file], **moved)) if flat or "may be" in n]
    assert any(words in note for note in notes)
    assert len([note for note in notes if "interchanged" in note]) == 1


def test_simulated_leads_that_no_torso_gives_raise_no_suspicion(data):
    """Electrodes near an idealised heart: the leads fit each other badly in any order."""
    file = data / "biv_crt" / "reference_ecg.csv"
    ecg = read_ecg(file, unit="arbitrary", rate_hz=1000.0).ecg
    longer = Ecg(np.arange(6.0 * len(ecg.t)), np.tile(ecg.signals, (6, 1)), ecg.names)
    assert suspicions(longer, calibrated=False) == []


@each_file
def test_limb_leads_alone_show_exchanged_arms(recorded, file):
    def limb(ecg: Ecg) -> Ecg:
        return Ecg(ecg.t, ecg.signals[:, :6], NAMES[:6])

    assert not any("interchanged" in note for note in suspicions(limb(recorded[file])))
    notes = suspicions(limb(with_cables(recorded[file], RA="LA", LA="RA")))
    assert any("lead I is negative and aVR positive" in note for note in notes)
