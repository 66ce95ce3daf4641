"""The body-surface ECG: electrodes, lead field, the twelve leads, features and files."""

from twinheart.ecg.electrodes import (
    Electrodes,
    move_electrodes,
    on_skin,
    place_electrodes,
    read_electrodes,
    standard_12_lead,
)
from twinheart.ecg.features import (
    RWaveProgression,
    qrs_bounds,
    qrs_duration,
    qt_interval,
    r_wave_progression,
)
from twinheart.ecg.files import read_ecg_csv, write_ecg_csv, write_wfdb
from twinheart.ecg.io import Recording, read_ecg, same_person
from twinheart.ecg.lead_field import lead_field, lead_shares
from twinheart.ecg.leads import Ecg, twelve_lead

__all__ = [
    "Ecg",
    "Electrodes",
    "RWaveProgression",
    "Recording",
    "lead_field",
    "lead_shares",
    "move_electrodes",
    "on_skin",
    "place_electrodes",
    "qrs_bounds",
    "qrs_duration",
    "qt_interval",
    "r_wave_progression",
    "read_ecg",
    "read_ecg_csv",
    "read_electrodes",
    "same_person",
    "standard_12_lead",
    "twelve_lead",
    "write_ecg_csv",
    "write_wfdb",
]
