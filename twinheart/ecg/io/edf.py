"""EDF, EDF+ and BDF: https://www.edfplus.info/specs (doi:10.1016/S1388-2457(03)00123-8)."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from twinheart.ecg.io.bounded import read_bytes
from twinheart.ecg.io.channels import MAX_SAMPLES, Channels, Contents
from twinheart.ecg.io.names import vendor_lead_name
from twinheart.ecg.leads import FURTHER_LEADS, LEADS
from twinheart.errors import InputError

_FIXED = 256  # bytes of the header, then as many for each signal
_MAX_SIGNALS = 2000
_ANNOTATIONS = ("EDF Annotations", "BDF Annotations")
_DATE = r"X|\d\d-[A-Z]{3}-\d{4}"
_SLOTS = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)


@dataclass(frozen=True)
class _Signal:
    label: str
    unit: str
    scale: float
    zero: float
    samples: int  # in a data record
    start: int  # of them, counted in samples from the beginning of a record


def is_edf(head: bytes) -> bool:
    """Whether a file begins as EDF or BDF files do.

    Parameters
    ----------
    head : bytes
        Its first bytes, 256 or more.

    Returns
    -------
    bool
        True if so.

    Examples
    --------
    >>> from twinheart.ecg.io.edf import is_edf
    >>> is_edf(b"<xml>")
    False
    """
    version = head[:8] == b"0       " or head[:8] == b"\xffBIOSEMI"
    return version and len(head) >= _FIXED and head[184:192].strip().isdigit()


def read_edf(path: Path) -> Contents:
    """Read the ECG channels of an EDF, EDF+ (also discontinuous) or BDF file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Contents
        Channels of one sampling rate together. If some are called ECG or bear the name of a lead,
        other voltages (EEG, EMG) are left out.

    Raises
    ------
    InputError
        If it is damaged or has no signal.
    """
    raw = read_bytes(path)
    wide = raw[:1] == b"\xff"
    try:
        signals, header_bytes, records, duration = _header(raw)
    except (ValueError, UnicodeDecodeError):
        raise InputError(
            f"{path}: its EDF header holds no numbers where it must: damaged."
        ) from None
    width = sum(s.samples for s in signals)
    size = 3 if wide else 2
    if not signals or width < 1 or not np.isfinite(duration) or duration <= 0:
        raise InputError(f"{path}: holds no ECG sample: its header announces none.")
    whole = (len(raw) - header_bytes) // (size * width)
    if records > whole:
        raise InputError(
            f"{path}: has {whole} of the {records} data records its header announces: incomplete, "
            "get the file again."
        )
    records = whole if records < 0 else records
    if records * width > MAX_SAMPLES:
        raise InputError(f"{path}: has more samples than can be held; cut it into parts.")
    data = np.frombuffer(raw, np.uint8, records * width * size, header_bytes)
    stored = _integers(data.reshape(-1, size)).reshape(records, width)
    runs = [(0, records, 0.0)]
    if raw[192:197] in (b"EDF+D", b"BDF+D"):
        runs = _runs(_onsets(data.reshape(records, -1), signals, size, path), duration)
    chosen, notes = _ecg_only([s for s in signals if s.label not in _ANNOTATIONS])
    groups = []
    for samples in sorted({s.samples for s in chosen}):
        alike = [s for s in chosen if s.samples == samples]
        for first, last, onset in runs:
            columns = [
                stored[first:last, s.start : s.start + samples].reshape(-1) * s.scale + s.zero
                for s in alike
            ]
            groups.append(
                Channels(
                    [s.label for s in alike],
                    np.column_stack(columns),
                    [s.unit for s in alike],
                    samples / duration,
                    1e3 * onset,
                )
            )
    if len(runs) > 1:
        notes.append(f"the recording was interrupted {len(runs) - 1} times; the gaps are missing")
    return Contents("EDF", groups, identifiers=_identifiers(raw), notes=notes)


def _header(raw: bytes) -> tuple[list[_Signal], int, int, float]:
    header_bytes, records = int(raw[184:192]), int(raw[236:244])
    duration, count = float(raw[244:252]), int(raw[252:256])
    if not 0 <= count <= _MAX_SIGNALS or header_bytes != _FIXED * (count + 1):
        raise ValueError
    text = raw[_FIXED:header_bytes].decode("latin-1")
    columns, at = [], 0
    for slot in _SLOTS:
        columns.append([text[at + n * slot : at + (n + 1) * slot].strip() for n in range(count)])
        at += slot * count
    signals, start = [], 0
    for n in range(count):
        low, high = float(columns[3][n]), float(columns[4][n])
        digital_low, digital_high = int(columns[5][n]), int(columns[6][n])
        samples = int(columns[8][n])
        if samples < 0 or digital_high == digital_low:
            raise ValueError
        scale = (high - low) / (digital_high - digital_low)
        zero = low - scale * digital_low
        signals.append(_Signal(columns[0][n], columns[2][n], scale, zero, samples, start))
        start += samples
    return signals, header_bytes, records, duration


def _integers(data: np.ndarray) -> np.ndarray:
    """Little-endian integers of two or three bytes, with sign."""
    if data.shape[1] == 2:
        return np.ascontiguousarray(data).view("<i2").reshape(-1)
    padded = np.concatenate([np.zeros((len(data), 1), np.uint8), data], axis=1)
    return padded.view("<i4").reshape(-1) >> 8


def _onsets(records: np.ndarray, signals: list[_Signal], size: int, path: Path) -> list[float]:
    """Onset of every record [s] from its first time-stamped annotation (EDF+)."""
    found = next((s for s in signals if s.label in _ANNOTATIONS), None)
    onsets = []
    if found is not None:
        for record in records[:, found.start * size : (found.start + found.samples) * size]:
            match = re.match(rb"([+-]\d+(?:\.\d*)?)[\x14\x15]", record.tobytes())
            if match is None:
                break
            onsets.append(float(match[1]))
    if len(onsets) < len(records):
        raise InputError(f"{path}: is a discontinuous EDF+ file without the times of its records.")
    return onsets


def _runs(onsets: list[float], duration: float) -> list[tuple[int, int, float]]:
    """Records that follow each other without a gap: first, one past the last, onset [s]."""
    runs, first = [], 0
    for n in range(1, len(onsets) + 1):
        if n == len(onsets) or abs(onsets[n] - onsets[n - 1] - duration) > 1e-3 * duration:
            runs.append((first, n, onsets[first]))
            first = n
    return runs


def _ecg_only(signals: list[_Signal]) -> tuple[list[_Signal], list[str]]:
    def is_ecg(signal: _Signal) -> bool:
        named = re.match(r"(ecg|ekg)\b", signal.label, re.IGNORECASE) is not None
        return named or vendor_lead_name(signal.label) in (*LEADS, *FURTHER_LEADS)

    ecg = [signal for signal in signals if is_ecg(signal)]
    if not ecg or len(ecg) == len(signals):
        return signals, []
    return ecg, [f"{len(signals) - len(ecg)} channels that are no ECG were left out"]


def _identifiers(raw: bytes) -> dict[str, str]:
    patient = raw[8:88].decode("latin-1").strip()
    found = {
        "recorded": raw[168:184].decode("latin-1").strip(),
        "institution": raw[88:168].decode("latin-1").strip(),
    }
    parts = patient.split()
    # EDF+: code, sex, birth date, name; EDF: anything, which cannot be compared
    if len(parts) >= 4 and parts[1] in ("M", "F", "X") and re.fullmatch(_DATE, parts[2]):
        found |= dict(zip(("id", "sex", "birth_date", "name"), parts, strict=False))
        found["name"] = found["name"].replace("_", " ")
    else:
        found["patient"] = patient
    return {key: value for key, value in found.items() if value and value != "X"}
