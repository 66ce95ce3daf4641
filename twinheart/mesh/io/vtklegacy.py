"""Reader of VTK's legacy files (`# vtk DataFile`, up to version 5.1, text or binary)."""

import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from twinheart.errors import InputError
from twinheart.mesh.io.raw import RawMesh, check_count, read_bytes
from twinheart.mesh.io.text import take_numbers
from twinheart.mesh.io.vtkcells import POLYGON, STRIP, sort_cells

_DTYPES = {
    "bit": "", "char": "i1", "signed_char": "i1", "unsigned_char": "u1", "short": "i2",
    "unsigned_short": "u2", "int": "i4", "unsigned_int": "u4", "long": "i8",
    "unsigned_long": "u8", "vtkidtype": "i4", "vtktypeint64": "i8", "vtktypeuint64": "u8",
    "vtktypeint32": "i4", "float": "f4", "double": "f8",
}  # fmt: skip
_POLY_SECTIONS = {"VERTICES": 2, "LINES": 4, "TRIANGLE_STRIPS": STRIP, "POLYGONS": POLYGON}
_WIDTHS = {"VECTORS": 3, "NORMALS": 3, "TENSORS": 9, "TENSORS6": 6}


def read_vtk_legacy(path: Path) -> RawMesh:
    """Read a legacy VTK file holding an unstructured grid or a surface.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    RawMesh
        All fields by name.

    Raises
    ------
    InputError
        If the file is truncated, damaged, no VTK file or of another data set type.
    """
    return _Parser(path, read_bytes(path)).read()


class _Parser:
    """Walks through the keywords of the file; every array must be complete."""

    def __init__(self, path: Path, data: bytes):
        self.path, self.data, self.position = path, data, 0
        self.points = np.zeros((0, 3))
        self.cells: list[tuple[int | None, np.ndarray, np.ndarray]] = []
        self.types: np.ndarray | None = None
        self.point_fields: dict[str, np.ndarray] = {}
        self.cell_fields: dict[str, np.ndarray] = {}
        self.rows, self.target = 0, {}
        self.unit = ""
        self.notes: list[str] = []
        self.version = 0.0
        self.binary = False

    def read(self) -> RawMesh:
        first = self.line()
        version = re.match(r"#\s*vtk\s+DataFile\s+Version\s+([0-9.]+)", first, re.IGNORECASE)
        if not version:
            raise InputError(f"{self.path}: is no VTK file (its first line is '{first[:40]}').")
        self.version = float(version.group(1).split(".")[0])
        self.line()  # title
        self.binary = self.line().upper() == "BINARY"
        kind = self.line().upper().split()
        if kind not in (["DATASET", "UNSTRUCTURED_GRID"], ["DATASET", "POLYDATA"]):
            raise InputError(
                f"{self.path}: holds '{' '.join(kind)[:60]}', expected DATASET UNSTRUCTURED_GRID "
                "or DATASET POLYDATA."
            )
        while words := self.next_words():
            self.section(words)
        return self.result()

    def result(self) -> RawMesh:
        types, offsets, nodes, shift = [], [np.zeros(1, dtype=np.int64)], [], 0
        for number, starts, connectivity in self.cells:
            if number is not None:
                types.append(np.full(len(starts) - 1, number))
            offsets.append(starts[1:] + shift)
            nodes.append(connectivity)
            shift += len(connectivity)
        if self.types is not None:
            types = [self.types]
        none = np.zeros(0, dtype=np.int64)
        cells, by_kind = sort_cells(
            self.path,
            np.concatenate([none, *types]),
            np.concatenate(offsets),
            np.concatenate([none, *nodes]),
            self.cell_fields,
        )
        mesh = RawMesh(self.path, "VTK legacy", self.points, cells, self.point_fields, by_kind)
        mesh.notes = self.notes
        if self.unit:
            mesh.unit, mesh.unit_source = self.unit, "the file's field data"
        return mesh

    def line(self) -> str:
        end = self.data.find(b"\n", self.position)
        end = len(self.data) if end < 0 else end
        text = self.data[self.position : min(end, self.position + 1000)]
        self.position = end + 1
        return text.decode("latin-1").strip()

    def next_words(self) -> list[str]:
        """Words of the next line that is not blank; none at the end of the file."""
        while self.position < len(self.data):
            if words := self.line().split():
                return words
        return []

    def fail(self, why: str) -> InputError:
        line = self.data.count(b"\n", 0, min(self.position, len(self.data)))
        return InputError(f"{self.path} line {line}: {why}: the file is damaged or truncated.")

    def count(self, words: list[str], index: int) -> int:
        if len(words) <= index or not words[index].isdecimal():
            raise self.fail(f"expected a count in '{' '.join(words)[:60]}'")
        count = int(words[index])
        # every number takes at least one byte in either form
        check_count(self.path, f"values in '{' '.join(words)[:40]}'", count, 1032, len(self.data))
        return count

    def numbers(self, count: int, kind: str, what: str) -> np.ndarray:
        kind = kind.lower()
        if not _DTYPES.get(kind):
            raise self.fail(f"{what} has the unknown type '{kind[:30]}'")
        dtype = np.dtype(_DTYPES[kind])
        if not self.binary:
            values, self.position = take_numbers(
                self.path,
                self.data,
                min(self.position, len(self.data)),
                count,
                float if dtype.kind == "f" else int,
                what,
            )
            return values.astype(dtype)
        end = self.position + count * dtype.itemsize
        if end > len(self.data):
            raise self.fail(f"{what} ends after {len(self.data) - self.position} bytes")
        values = np.frombuffer(self.data, dtype.newbyteorder(">"), count, self.position)
        self.position = end
        return values.astype(dtype)

    def section(self, words: list[str]) -> None:
        key = words[0].upper()
        if key == "POINTS":
            count = self.count(words, 1)
            self.points = self.numbers(3 * count, self.word(words, 2), "POINTS").reshape(-1, 3)
        elif key == "CELLS" or key in _POLY_SECTIONS:
            starts, nodes = self.connectivity(words)
            self.cells.append((_POLY_SECTIONS.get(key), starts, nodes))
        elif key == "CELL_TYPES":
            self.types = self.numbers(self.count(words, 1), "int", "CELL_TYPES").astype(np.int64)
        elif key in ("POINT_DATA", "CELL_DATA"):
            self.rows = self.count(words, 1)
            points = key == "POINT_DATA"
            self.target = self.point_fields if points else self.cell_fields
            expected = len(self.points) if points else sum(len(c[1]) - 1 for c in self.cells)
            if self.rows != expected:
                raise self.fail(f"{key} has {self.rows} rows, expected {expected}")
        elif key == "FIELD":
            for _ in range(self.count(words, 2)):
                self.field_array()
        elif key == "METADATA":
            while self.line():
                pass
        else:
            self.attribute(key, words)

    def word(self, words: list[str], index: int) -> str:
        if len(words) <= index:
            raise self.fail(f"'{' '.join(words)[:60]}' lacks a word")
        return words[index]

    def connectivity(self, words: list[str]) -> tuple[np.ndarray, np.ndarray]:
        n, size = self.count(words, 1), self.count(words, 2)
        if self.version >= 5:
            header = self.next_words()
            if [w.upper() for w in header[:1]] != ["OFFSETS"]:
                raise self.fail(f"expected OFFSETS behind {words[0]}")
            offsets = self.numbers(n, self.word(header, 1), "OFFSETS").astype(np.int64)
            header = self.next_words()
            if [w.upper() for w in header[:1]] != ["CONNECTIVITY"]:
                raise self.fail("expected CONNECTIVITY behind OFFSETS")
            nodes = self.numbers(size, self.word(header, 1), "CONNECTIVITY").astype(np.int64)
            return (offsets if n else np.zeros(1, dtype=np.int64)), nodes
        flat = self.numbers(size, "int", words[0]).astype(np.int64)
        starts = _starts(flat, n)
        if starts is None:
            raise self.fail(f"the {n} cells of {words[0]} do not fill its {size} numbers")
        offsets = np.append(starts, size) - np.arange(n + 1)
        return offsets, np.delete(flat, starts)

    def attribute(self, key: str, words: list[str]) -> None:
        if key == "SCALARS":
            width = self.count(words, 3) if len(words) > 3 else 1
            name, kind = self.word(words, 1), self.word(words, 2)
            behind = self.position
            if [w.upper() for w in self.next_words()[:1]] != ["LOOKUP_TABLE"]:
                self.position = behind  # some writers leave it out
        elif key in _WIDTHS:
            width, name, kind = _WIDTHS[key], self.word(words, 1), self.word(words, 2)
        elif key == "TEXTURE_COORDINATES":
            name, width, kind = self.word(words, 1), self.count(words, 2), self.word(words, 3)
        elif key in ("GLOBAL_IDS", "PEDIGREE_IDS"):
            width, name, kind = 1, self.word(words, 1), self.word(words, 2)
        elif key in ("COLOR_SCALARS", "LOOKUP_TABLE"):
            rows = self.rows if key == "COLOR_SCALARS" else self.count(words, 2)
            width = self.count(words, 2) if key == "COLOR_SCALARS" else 4
            self.numbers(rows * width, "unsigned_char" if self.binary else "float", key)
            return  # colours are no data
        else:
            raise self.fail(f"unknown keyword '{key[:30]}'")
        self.store(name, self.numbers(self.rows * width, kind, f"field '{name}'"), width)

    def field_array(self) -> None:
        words = self.next_words()
        if [w.upper() for w in words[:1]] == ["METADATA"]:
            self.section(words)
            words = self.next_words()
        width, rows, kind = self.count(words, 1), self.count(words, 2), self.word(words, 3)
        name = unquote(words[0])
        if kind.lower() == "string":
            lines = [self.string() for _ in range(width * rows)]
            if name == "length_unit" and not self.target and lines:
                self.unit = unquote(lines[0])[:64]
            elif name != "length_unit":
                self.notes.append(f"field '{name}' holds no numbers and was left out")
            return
        values = self.numbers(width * rows, kind, f"field '{name}'")
        if self.rows and rows == self.rows:
            self.store(name, values, width)
        else:
            self.notes.append(f"field '{name}' belongs neither to nodes nor cells and was left out")

    def string(self) -> str:
        """Next string of an array: a line, or in binary files a packed length and its bytes."""
        if not self.binary:
            return self.line()
        code = self.data[self.position : self.position + 1]
        n_bytes = {3: 1, 2: 2, 1: 4, 0: 8}[code[0] >> 6] if code else 1
        head = int.from_bytes(self.data[self.position : self.position + n_bytes], "big")
        start = self.position + n_bytes
        self.position = start + (head & ((1 << (8 * n_bytes - 2)) - 1))
        if self.position > len(self.data):
            raise self.fail("a string does not end")
        return self.data[start : self.position].decode("utf-8", "replace")

    def store(self, name: str, values: np.ndarray, width: int) -> None:
        self.target[unquote(name)] = values if width == 1 else values.reshape(self.rows, width)


def _starts(flat: np.ndarray, n: int) -> np.ndarray | None:
    """Where each cell begins in the old form `k node_1 .. node_k`; None where it does not fit."""
    if n and len(flat) % n == 0:  # cells of one size are the rule: no loop needed
        step = len(flat) // n
        starts = np.arange(n) * step
        if np.all(flat[starts] == step - 1):
            return starts
    starts, position = np.empty(n, dtype=np.int64), 0
    for i in range(n):
        if position >= len(flat) or flat[position] < 0:
            return None
        starts[i] = position
        position += int(flat[position]) + 1
    return starts if position == len(flat) else None
