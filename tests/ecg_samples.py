"""SCP-ECG records written byte by byte, as the tables of EN 1064 lay them out."""

import binascii
import struct
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Scp:
    """What goes into a record; `leads` maps the standard's lead numbers to samples."""

    leads: dict[int, np.ndarray]
    multiplier: int = 2500  # nV
    interval: int = 2000  # us
    order: int = 0  # of the differences
    huffman: bool = True
    own_table: bool = False
    starts: dict[int, int] = field(default_factory=dict)  # first samples, counted from 1
    reference: dict[int, np.ndarray] | None = None
    fiducial: int = 1  # of the reference beat, counted from 1
    places: list[tuple[int, int, int, int]] = field(default_factory=list)
    subtract: bool = False
    bimodal: int = 0
    tags: list[tuple[int, bytes]] = field(default_factory=list)


# A table of its own: three short codes, everything else in 16 bits.
OWN = {0: "10", 1: "110", -1: "111"}
OWN_ESCAPE = "0"


def scp_bytes(record: Scp) -> bytes:
    """The file."""
    residual = {n: np.array(v, dtype=np.int64) for n, v in record.leads.items()}
    if record.subtract:
        for n, values in residual.items():
            start = record.starts.get(n, 1)
            for kind, first, fiducial, last in record.places:
                for sample in range(first, last + 1):
                    inside = sample - fiducial + record.fiducial - 1
                    beat = record.reference[n]
                    if kind == 0 and 0 <= sample - start < len(values) and 0 <= inside < len(beat):
                        values[sample - start] -= beat[inside]
    sections = {1: _tags(record.tags), 3: _leads(record)}
    if record.huffman:
        sections[2] = _table() if record.own_table else struct.pack("<H", 19999)
    if record.reference is not None:
        beat = next(iter(record.reference.values()))
        length = len(beat) * record.interval // 1000
        sections[4] = struct.pack("<HHH", length, record.fiducial, len(record.places))
        sections[4] += b"".join(struct.pack("<HIII", *place) for place in record.places)
        sections[5] = _samples(record, record.reference, 0)
    sections[6] = _samples(record, residual, record.bimodal)
    return _file(sections)


def _file(sections: dict[int, bytes]) -> bytes:
    numbers = range(12)
    pointers, bodies = b"", b""
    at = 6 + 16 + 10 * len(numbers)
    for number in numbers[1:]:
        body = sections.get(number)
        size = 0 if body is None else 16 + len(body) + len(body) % 2
        pointers += struct.pack("<HII", number, size, at + len(bodies) + 1 if size else 0)
        if body is not None:
            bodies += _section(number, body + bytes(len(body) % 2))
    head = struct.pack("<HII", 0, 16 + 10 * len(numbers), 7) + pointers
    whole = _section(0, head) + bodies
    rest = struct.pack("<I", 6 + len(whole)) + whole
    return struct.pack("<H", binascii.crc_hqx(rest, 0xFFFF)) + rest


def _section(number: int, body: bytes) -> bytes:
    name = b"SCPECG" if number == 0 else bytes(6)
    rest = struct.pack("<HIBB", number, 16 + len(body), 20, 20) + name + body
    return struct.pack("<H", binascii.crc_hqx(rest, 0xFFFF)) + rest


def _tags(tags: list[tuple[int, bytes]]) -> bytes:
    return b"".join(struct.pack("<BH", n, len(v)) + v for n, v in tags) + b"\xff\0\0"


def _leads(record: Scp) -> bytes:
    found = struct.pack("<BB", len(record.leads), int(record.subtract) | 4)
    for n, values in record.leads.items():
        start = record.starts.get(n, 1)
        found += struct.pack("<IIB", start, start + len(values) - 1, n)
    return found


def _samples(record: Scp, leads: dict[int, np.ndarray], bimodal: int) -> bytes:
    coded = [_coded(record, np.asarray(values)) for values in leads.values()]
    head = struct.pack("<HHBB", record.multiplier, record.interval, record.order, bimodal)
    return head + b"".join(struct.pack("<H", len(c)) for c in coded) + b"".join(coded)


def _coded(record: Scp, values: np.ndarray) -> bytes:
    stored = values.copy()
    for k in range(1, len(values)):
        if record.order == 1:
            stored[k] = values[k] - values[k - 1]
        elif record.order == 2 and k > 1:
            stored[k] = values[k] - 2 * values[k - 1] + values[k - 2]
    if not record.huffman:
        return stored.astype("<i2").tobytes()
    bits = "".join(_bits(int(v), record.own_table) for v in stored)
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def _bits(value: int, own: bool) -> str:
    if own:
        return OWN.get(value) or OWN_ESCAPE + format(value & 0xFFFF, "016b")
    if value == 0:
        return "0"
    if abs(value) <= 8:
        return "1" * abs(value) + ("00" if value > 0 else "01")
    if -128 <= value < 128:
        return "1111111110" + format(value & 0xFF, "08b")
    return "1111111111" + format(value & 0xFFFF, "016b")


def _table() -> bytes:
    found = struct.pack("<HH", 1, 4)
    codes = [(bits, len(bits), value) for value, bits in OWN.items()] + [(OWN_ESCAPE, 17, 0)]
    for bits, total, value in codes:
        stored = int(bits[::-1], 2)  # the first bit lowest
        found += struct.pack("<BBBhI", len(bits), total, 1, value, stored)
    return found
