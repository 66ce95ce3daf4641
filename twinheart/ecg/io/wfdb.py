"""WFDB records: header and signal files of PhysioNet, read without help of another library.

The format is described in the WFDB Applications Guide (header(5), signal(5)),
https://physionet.org/physiotools/wag/. A header names its signal files; only names in its own
folder are followed.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from twinheart.ecg.io.bounded import read_bytes
from twinheart.ecg.io.channels import MAX_SAMPLES, Channels, Contents
from twinheart.ecg.io.wfdb_samples import MISSING, bytes_of, decoded
from twinheart.errors import InputError

_DEFAULT_GAIN = 200.0  # ADC units a millivolt, where the header says 0 or nothing (header(5))
_DEFAULT_RATE = 250.0  # Hz, likewise
_MAX_SIGNALS = 1000
_MAX_SEGMENTS = 10_000
_NAME = re.compile(r"[A-Za-z0-9_-]{1,200}")
_SIGNAL_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")
_GAIN = re.compile(r"([-+0-9.eE]+)(?:\((-?\d+)\))?(?:/(\S+))?")
_FORMAT = re.compile(r"(\d+)(?:x(\d+))?(?::(\d+))?(?:\+(\d+))?")


@dataclass(frozen=True)
class Signal:
    """One line of a header.

    Parameters
    ----------
    file, format : str, str
        Where the samples are and how they are stored.
    per_frame, skew, start : int
        Samples a frame; frames by which it is late; bytes before the first sample.
    gain, baseline, unit : float, float, str
        Physical value = (sample - baseline) / gain.
    initial : int
        First sample (format 8 stores differences).
    label : str
        Name.
    calibrated : bool
        Whether the header states the gain.
    """

    file: str
    format: str
    per_frame: int
    skew: int
    start: int
    gain: float
    baseline: float
    unit: str
    initial: int
    label: str
    calibrated: bool


@dataclass(frozen=True)
class Header:
    """A parsed header.

    Parameters
    ----------
    rate_hz : float
        Frames a second.
    frames : int or None
        Length, if stated.
    signals : list of Signal
        Empty for a record of several segments.
    segments : list of (name, frames)
        Empty for a single one.
    comments : list of str
        Free text.
    started : str
        Time and date of the recording.
    """

    rate_hz: float
    frames: int | None
    signals: list[Signal]
    segments: list[tuple[str, int]]
    comments: list[str]
    started: str


def read_wfdb(path: Path) -> Contents:
    """Read a WFDB record: formats 8, 16, 24, 32, 61, 80, 160, 212, 310, 311; segments too.

    Parameters
    ----------
    path : Path
        The header, a signal file or the record's name without suffix.

    Returns
    -------
    Contents
        Signals of all segments, missing samples NaN.

    Raises
    ------
    InputError
        If a file is missing, damaged or compressed, or the header points outside its folder.
    """
    header_file = path if path.suffix == ".hea" else path.with_suffix(".hea")
    if not header_file.exists() and path.suffix not in ("", ".hea", ".dat"):
        header_file = path.with_name(path.name + ".hea")
    header = read_header(header_file)
    if header.segments:
        groups, notes = _segments(header, header_file)
    else:
        groups, notes = _signals(header, header_file)
    identifiers = _identifiers(header)
    if header.comments:
        notes.append(f"{len(header.comments)} comment lines of the header were dropped")
    return Contents("WFDB", groups, identifiers=identifiers, notes=notes)


def read_header(path: Path) -> Header:
    """Parse a ``.hea`` file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Header
        What it says.

    Raises
    ------
    InputError
        If it is no WFDB header, or names a file outside its folder.
    """
    text = read_bytes(path, 4_000_000).decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    comments = [line.lstrip("# ").strip() for line in lines if line.startswith("#")]
    lines = [line for line in lines if not line.startswith("#")]
    if not lines:
        raise InputError(f"{path}: is empty; expected the header of a WFDB record.")
    words = lines[0].split()
    match = re.fullmatch(r"[^\s/]+(?:/(\d+))?", words[0])
    try:
        if match is None or len(words) < 2:
            raise ValueError
        segments, count = int(match[1] or 0), int(words[1])
        rate = float(re.split(r"[/(]", words[2])[0]) if len(words) > 2 else _DEFAULT_RATE
        frames = int(words[3]) if len(words) > 3 else 0
    except ValueError:
        raise InputError(
            f"{path}: its first line is no WFDB record line, as in 's0010_re 15 1000 38400'."
        ) from None
    sane = 0 <= count <= _MAX_SIGNALS and segments <= _MAX_SEGMENTS
    if not (sane and np.isfinite(rate) and rate > 0 and 0 <= frames <= MAX_SAMPLES):
        raise InputError(
            f"{path}: its header says {count} signals of {frames} samples at {rate:g} Hz: damaged."
        )
    rest = lines[1:]
    wanted = segments or count
    if len(rest) < wanted:
        raise InputError(
            f"{path}: its header announces {wanted} signals or segments but has {len(rest)} lines."
        )
    return Header(
        rate,
        frames or None,
        [] if segments else [_signal(line, path) for line in rest[:count]],
        [_segment(line, path) for line in rest[:segments]],
        comments,
        " ".join(words[4:6]),
    )


def _signal(line: str, path: Path) -> Signal:
    words = line.split(maxsplit=8)
    form = _FORMAT.fullmatch(words[1]) if len(words) > 1 else None
    gain = _GAIN.fullmatch(words[2]) if len(words) > 2 else None
    if form is None or (len(words) > 2 and gain is None):
        raise InputError(f"{path}: a signal line of its header cannot be read: damaged.")
    _require_in_folder(words[0], path)
    try:
        zero = int(words[4]) if len(words) > 4 else 0
        initial = int(words[5]) if len(words) > 5 else zero
        stated = float(gain[1]) if gain else 0.0
        if not np.isfinite(stated):
            raise ValueError
    except ValueError:
        raise InputError(f"{path}: a signal line of its header has no number: damaged.") from None
    return Signal(
        words[0],
        form[1],
        int(form[2] or 1),
        int(form[3] or 0),
        int(form[4] or 0),
        stated or _DEFAULT_GAIN,
        float(gain[2]) if gain and gain[2] else float(zero),
        gain[3] if gain and gain[3] else "mV",
        initial,
        words[8] if len(words) > 8 else "unnamed",
        stated != 0.0,
    )


def _require_in_folder(name: str, path: Path) -> None:
    if not _SIGNAL_FILE.fullmatch(name) or ".." in name:
        raise InputError(
            f"{path}: its header points to a file that is not in its folder or whose name is not "
            "allowed; only letters, digits, '-', '_' and '.' are followed."
        )


def _segment(line: str, path: Path) -> tuple[str, int]:
    words = line.split()
    if len(words) != 2 or not words[1].isdigit() or not _NAME.fullmatch(words[0].replace("~", "_")):
        raise InputError(f"{path}: a segment line of its header cannot be read: damaged.")
    return words[0], int(words[1])


def _signals(header: Header, path: Path) -> tuple[list[Channels], list[str]]:
    """Samples of one segment, one group for each number of samples a frame."""
    columns: dict[int, np.ndarray] = {}
    files = list(dict.fromkeys(s.file for s in header.signals))
    for file in files:
        members = [n for n, s in enumerate(header.signals) if s.file == file]
        for n, samples in zip(
            members, _file_samples(path, header, [header.signals[n] for n in members]), strict=True
        ):
            columns[n] = samples
    notes = []
    uncalibrated = sum(not s.calibrated for s in header.signals)
    if uncalibrated:
        notes.append(
            f"{uncalibrated} signals state no gain: {_DEFAULT_GAIN:g} units a mV were assumed"
        )
    groups = []
    for per_frame in sorted({s.per_frame for s in header.signals}):
        chosen = [n for n, s in enumerate(header.signals) if s.per_frame == per_frame]
        length = min(len(columns[n]) for n in chosen)
        groups.append(
            Channels(
                [header.signals[n].label for n in chosen],
                np.column_stack([columns[n][:length] for n in chosen]),
                [header.signals[n].unit for n in chosen],
                header.rate_hz * per_frame,
            )
        )
    return groups, notes


def _file_samples(path: Path, header: Header, signals: list[Signal]) -> list[np.ndarray]:
    """Physical values of the signals that share a file."""
    first = signals[0]
    name = path.with_name(first.file)
    if any(s.format != first.format for s in signals):
        raise InputError(f"{path}: signals in one file have different formats: damaged.")
    width = sum(s.per_frame for s in signals)
    if not 0 < width <= MAX_SAMPLES:
        raise InputError(f"{path}: frames of {width} samples: damaged.")
    skew = max(s.skew for s in signals)
    raw = read_bytes(name, MAX_SAMPLES * 4)[first.start :]
    wanted = None
    if header.frames is not None:
        wanted = (header.frames + skew) * width
        needed = bytes_of(first.format, header.frames * width)
        if len(raw) < needed:
            raise InputError(
                f"{name}: has {len(raw)} bytes, but its header announces {needed}: incomplete, "
                "get the file again."
            )
    samples = decoded(first.format, raw, wanted, path)
    frames = len(samples) // width
    samples = samples[: frames * width].reshape(frames, width)
    found, column = [], 0
    length = frames if header.frames is None else min(header.frames, frames)
    for s in signals:
        own = samples[:, column : column + s.per_frame]
        column += s.per_frame
        if first.format == "8":
            own = s.initial + np.cumsum(own.reshape(-1)).reshape(own.shape)
        own = own[s.skew : s.skew + length].reshape(-1)
        values = (own - s.baseline) / s.gain
        missing = MISSING.get(first.format)
        if missing is not None:
            values[own == missing] = np.nan
        if len(own) < length * s.per_frame:
            values = np.append(values, np.full(length * s.per_frame - len(own), np.nan))
        found.append(values)
    return found


def _segments(header: Header, path: Path) -> tuple[list[Channels], list[str]]:
    groups: list[Channels] = []
    notes: list[str] = []
    at = held = 0
    for name, frames in header.segments:
        if name != "~" and frames:
            file = path.with_name(f"{name}.hea")
            inner = read_header(file)
            if inner.segments:
                raise InputError(f"{path}: has segments within segments, which is not allowed.")
            if inner.signals:
                found, more = _signals(inner, file)
                offset = 1e3 * at / header.rate_hz
                held += sum(g.values.size for g in found)
                if held > MAX_SAMPLES:
                    raise InputError(f"{path}: its segments hold more samples than can be held.")
                groups += [Channels(g.labels, g.values, g.units, g.rate_hz, offset) for g in found]
                notes += more
        at += frames
    notes = list(dict.fromkeys(notes))
    return groups, [*notes, f"put together from {len(header.segments)} segments"]


def _identifiers(header: Header) -> dict[str, str]:
    found = {"comments": "; ".join(header.comments), "recorded": header.started}
    for key, pattern in (
        ("id", r"(?:patient|subject)(?: ?id| number)?"),
        ("name", r"(?:patient )?name"),
        ("birth_date", r"(?:birth ?date|date of birth|dob)"),
        ("sex", r"(?:sex|gender)"),
        ("age", r"age"),
    ):
        for line in header.comments:
            match = re.search(rf"(?:^|<){pattern}>?\s*[:=]\s*([^<]+)", line, re.IGNORECASE)
            if match:
                found.setdefault(key, match[1].strip())
    return {key: value for key, value in found.items() if value}
