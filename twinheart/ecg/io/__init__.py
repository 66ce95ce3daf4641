"""ECG files: one module a format, one function to read them all, one to write."""

from twinheart.ecg.io.read import read_ecg
from twinheart.ecg.io.recording import Recording, same_person
from twinheart.ecg.io.write import write_ecg

__all__ = ["Recording", "read_ecg", "same_person", "write_ecg"]
