"""SCP-ECG (EN 1064, ISO 11073-91064): sections 1 to 6.

Read: plain and Huffman-coded samples (default and own tables), first and second differences,
subtracted reference beats. Not read: bimodal compression with decimation outside the QRS.
"""

import binascii
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from twinheart.ecg.io.bounded import read_bytes
from twinheart.ecg.io.channels import MAX_SAMPLES, Channels, Contents
from twinheart.ecg.io.names import SCP_LEADS
from twinheart.ecg.io.scp_huffman import Code, decode, read_tables, undifferenced
from twinheart.errors import InputError

_MAX_BYTES = 50_000_000
_HEADER = 16  # bytes of every section's own header
_SEXES = {1: "M", 2: "F"}
_TEXTS = {0: "name", 1: "first_name", 2: "id"}


@dataclass(frozen=True)
class _Lead:
    label: str
    start: int  # first sample, counted from 1
    stop: int  # last sample

    @property
    def count(self) -> int:
        return self.stop - self.start + 1


@dataclass(frozen=True)
class _Beats:
    """Section 4: where the reference beat was subtracted."""

    length_ms: int
    fiducial: int  # sample in the reference beat, counted from 1
    places: list[tuple[int, int, int, int]]  # type, first sample, fiducial, last sample


def is_scp(head: bytes) -> bool:
    """Whether a file begins as SCP-ECG files do.

    Parameters
    ----------
    head : bytes
        Its first bytes.

    Returns
    -------
    bool
        True if so.

    Examples
    --------
    >>> from twinheart.ecg.io.scp import is_scp
    >>> is_scp(b"0       ")
    False
    """
    return head[16:22] == b"SCPECG" and head[8:10] == b"\0\0"


def read_scp(path: Path) -> Contents:
    """Read an SCP-ECG record.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Contents
        Rhythm (section 6) and reference beat (section 5).

    Raises
    ------
    InputError
        If it is damaged, has no leads or uses bimodal compression.
    """
    raw = read_bytes(path, _MAX_BYTES)
    try:
        return _contents(raw)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (struct.error, IndexError):
        raise InputError(f"{path}: a section is cut off: incomplete, get the file again.") from None


def _contents(raw: bytes) -> Contents:
    notes: list[str] = []
    sections = _sections(raw, notes)
    if 3 not in sections or 6 not in sections:
        raise InputError("is SCP-ECG without lead definitions (section 3) or samples (section 6).")
    leads, subtracted = _leads(sections[3])
    tables = read_tables(sections.get(2, b""))
    beats, reference = None, None
    if 4 in sections:
        beats = _beats(sections[4])
    if 5 in sections and beats is not None:
        reference = _reference(sections[5], beats, len(leads), tables)
    multiplier, interval, order, bimodal = struct.unpack_from("<HHBB", sections[6])
    _require_rate(interval)
    if bimodal and (reference is None or reference[1] != interval):
        raise InputError(
            "uses bimodal compression (fewer samples outside the QRS), which is not read; export "
            "it without compression."
        )
    lengths = _lengths(sections[6], len(leads))
    first = min(lead.start for lead in leads)
    total = max(lead.stop for lead in leads) - first + 1
    if total * len(leads) > MAX_SAMPLES:
        raise InputError("announces more samples than can be held: damaged.")
    values = np.full((total, len(leads)), np.nan)
    at = 6 + 2 * len(leads)
    for n, (lead, length) in enumerate(zip(leads, lengths, strict=True)):
        coded = decode(sections[6][at : at + length], lead.count, tables)
        at += length
        column = undifferenced(coded, order).astype(np.float64) * multiplier
        if subtracted:
            if reference is None or beats is None:
                raise InputError("lacks the reference beat that was subtracted: damaged.")
            _add_reference(column, lead, beats, reference[0][:, n])
        values[lead.start - first : lead.stop - first + 1, n] = column
    labels = [lead.label for lead in leads]
    units = ["nV"] * len(leads)
    derived = []
    if reference is not None:
        derived = [Channels(labels, reference[0], units, 1e6 / reference[1])]
    rhythm = [Channels(labels, values, units, 1e6 / interval)]
    return Contents("SCP-ECG", rhythm, derived, _identifiers(sections.get(1, b"")), notes)


def _sections(raw: bytes, notes: list[str]) -> dict[int, bytes]:
    """Bodies of the sections by number, found through the pointers of section 0."""
    if len(raw) < 6 + _HEADER:
        raise InputError("is too short for an SCP-ECG record.")
    length = struct.unpack_from("<I", raw, 10)[0]
    found: dict[int, bytes] = {}
    for at in range(6 + _HEADER, min(6 + length, len(raw) - 9), 10):
        number, size, index = struct.unpack_from("<HII", raw, at)
        if number in (0, 7) or number > 11 or size <= _HEADER:
            continue
        start = index - 1
        if index < 1 or start + size > len(raw):
            raise InputError(f"section {number} lies outside the file: incomplete, get it again.")
        section = raw[start : start + size]
        stored, own = struct.unpack_from("<HH", section)
        if own != number:
            raise InputError(f"section {number} is not where the file says: damaged.")
        if stored and stored != binascii.crc_hqx(section[2:], 0xFFFF):
            notes.append(f"the checksum of section {number} is wrong: the file may be damaged")
        found[number] = section[_HEADER:]
    return found


def _leads(body: bytes) -> tuple[list[_Lead], bool]:
    count, flags = body[0], body[1]
    leads = []
    for n in range(count):
        start, stop, number = struct.unpack_from("<IIB", body, 2 + 9 * n)
        if not 1 <= start <= stop <= MAX_SAMPLES:
            raise InputError(f"lead {n + 1} runs from sample {start} to {stop}: damaged.")
        leads.append(_Lead(SCP_LEADS.get(number, f"SCP lead {number}"), start, stop))
    if not leads:
        raise InputError("defines no lead.")
    return leads, bool(flags & 1)


def _beats(body: bytes) -> _Beats:
    length, fiducial, count = struct.unpack_from("<HHH", body)
    places = [struct.unpack_from("<HIII", body, 6 + 14 * n) for n in range(count)]
    return _Beats(length, fiducial, places)


def _reference(
    body: bytes, beats: _Beats, leads: int, tables: list[list[Code]] | None
) -> tuple[np.ndarray, int] | None:
    """Reference beat (time, lead) [nV] and its sampling interval [us]."""
    if len(body) < 6 + 2 * leads:
        return None
    multiplier, interval, order, _ = struct.unpack_from("<HHBB", body)
    _require_rate(interval)
    count = beats.length_ms * 1000 // interval
    columns, at = [], 6 + 2 * leads
    for length in _lengths(body, leads):
        column = undifferenced(decode(body[at : at + length], count, tables), order)
        columns.append(column.astype(np.float64) * multiplier)
        at += length
    return np.column_stack(columns), interval


def _lengths(body: bytes, leads: int) -> list[int]:
    lengths = list(struct.unpack_from(f"<{leads}H", body, 6))
    if 6 + 2 * leads + sum(lengths) > len(body):
        raise InputError("announces more bytes of samples than there are: incomplete.")
    return lengths


def _require_rate(interval: int) -> None:
    if interval == 0:
        raise InputError("states a sampling interval of 0 us: damaged.")


def _add_reference(column: np.ndarray, lead: _Lead, beats: _Beats, beat: np.ndarray) -> None:
    """Put the reference beat back where it was subtracted (beats of type 0), in place."""
    for kind, first, fiducial, last in beats.places:
        if kind != 0:
            continue
        sample = np.arange(max(first, lead.start), min(last, lead.stop) + 1)
        inside = sample - fiducial + beats.fiducial - 1
        here = (inside >= 0) & (inside < len(beat))
        column[sample[here] - lead.start] += beat[inside[here]]


def _identifiers(body: bytes) -> dict[str, str]:
    """Tags of section 1."""
    found: dict[str, str] = {}
    at = 0
    while at + 3 <= len(body) and body[at] != 255:
        tag, size = body[at], int.from_bytes(body[at + 1 : at + 3], "little")
        value = body[at + 3 : at + 3 + size]
        at += 3 + size
        text = value.split(b"\0")[0].decode("utf-8", errors="replace").strip()
        if tag in _TEXTS and text:
            found[_TEXTS[tag]] = text
        elif tag == 4 and len(value) >= 3 and int.from_bytes(value[:2], "little"):
            found["age"] = str(int.from_bytes(value[:2], "little"))
        elif tag in (5, 25) and len(value) >= 4 and any(value[:4]):
            year = int.from_bytes(value[:2], "little")
            date = f"{year:04d}{value[2]:02d}{value[3]:02d}"
            found["birth_date" if tag == 5 else "recorded"] = date
        elif tag == 8 and value and value[0] in _SEXES:
            found["sex"] = _SEXES[value[0]]
    first_name = found.pop("first_name", "")
    if first_name:
        found["name"] = f"{found.get('name', '')} {first_name}".strip()
    return found
