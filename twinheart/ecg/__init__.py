"""The body-surface ECG: electrodes, lead field, the twelve leads, features and files."""

from twinheart.ecg.electrodes import Electrodes, read_electrodes, standard_12_lead
from twinheart.ecg.files import read_ecg_csv, write_ecg_csv, write_wfdb
from twinheart.ecg.lead_field import lead_field
from twinheart.ecg.leads import Ecg, twelve_lead

__all__ = [
    "Ecg",
    "Electrodes",
    "lead_field",
    "read_ecg_csv",
    "read_electrodes",
    "standard_12_lead",
    "twelve_lead",
    "write_ecg_csv",
    "write_wfdb",
]
