"""Reader of Gmsh's MSH files, versions 2.2 and 4.1, text or binary."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from twinheart.errors import InputError
from twinheart.mesh.io.raw import RawMesh, read_bytes
from twinheart.mesh.io.text import parse_numbers

_FORMAT = re.compile(rb"\s*\$MeshFormat\s+([0-9.]+)\s+([01])\s+(\d+)\s*?\n")
_SECTION = re.compile(rb"\s*\$(\w+)[^\n]*(?:\n|\Z)")
# number in the file -> (kind, nodes)
_ELEMENTS = {
    1: ("line", 2), 2: ("triangle", 3), 3: ("quad", 4), 4: ("tetra", 4), 5: ("hexahedron", 8),
    6: ("wedge", 6), 7: ("pyramid", 5), 8: ("line3", 3), 9: ("triangle6", 6), 10: ("quad9", 9),
    11: ("tetra10", 10), 12: ("hexahedron27", 27), 13: ("wedge18", 18), 14: ("pyramid14", 14),
    15: ("vertex", 1), 16: ("quad8", 8), 17: ("hexahedron20", 20), 18: ("wedge15", 15),
    19: ("pyramid13", 13),
}  # fmt: skip


def read_msh(path: Path) -> RawMesh:
    """Read a Gmsh mesh; physical groups become the cell field ``gmsh:physical``.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    RawMesh
        Node and element data by name; NaN where an element has none.

    Raises
    ------
    InputError
        If the file is truncated, damaged, or of another version.
    """
    data = read_bytes(path)
    head = _FORMAT.match(data)
    if not head or head.group(1) not in (b"2.2", b"2", b"2.0", b"2.1", b"4.1"):
        found = head.group(1).decode() if head else "no version"
        raise InputError(f"{path}: MSH versions 2.2 and 4.1 can be read, found {found}.")
    if int(head.group(3)) != 8:
        raise InputError(f"{path}: numbers of {int(head.group(3))} bytes, expected 8.")
    cursor = _Cursor(path, data, head.end(), head.group(2) == b"1")
    if cursor.binary:
        cursor.order = "<" if data[head.end() : head.end() + 4] == b"\1\0\0\0" else ">"
        cursor.position += 4
    cursor.close("MeshFormat")
    mesh = _Contents(version=4 if head.group(1) == b"4.1" else 2)
    while section := _SECTION.match(data, cursor.position):
        name = section.group(1).decode()
        cursor.position = section.end()
        if name in ("NodeData", "ElementData"):
            _data(cursor, mesh.node_data if name == "NodeData" else mesh.element_data, name)
        elif name == "PhysicalNames":
            mesh.names += _physical_names(cursor)
        elif name in ("Nodes", "Elements", "Entities"):
            cursor.open(name)
            {"Nodes": _nodes, "Elements": _elements, "Entities": _entities}[name](cursor, mesh)
        else:
            cursor.skip(name)
        cursor.close(name)
    if data[cursor.position :].strip():
        raise cursor.fail("something other than a section")
    return _raw(cursor, mesh)


@dataclass
class _Contents:
    """What has been read so far."""

    version: int
    node_tags: np.ndarray | None = None
    points: np.ndarray | None = None
    # (kind, element tags, node tags, physical, geometrical) of each block
    blocks: list[tuple] | None = None
    # physical group by dimension and entity
    physical: dict[tuple[int, int], int] = field(default_factory=dict)
    several_groups: int = 0
    names: list[tuple[str, int]] = field(default_factory=list)
    # tags and values by name
    node_data: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    element_data: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


class _Cursor:
    """Takes numbers one after the other, whether they are text or binary."""

    def __init__(self, path: Path, data: bytes, position: int, binary: bool):
        self.path, self.data, self.position, self.binary = path, data, position, binary
        self.order = "<"
        self._numbers = np.zeros(0)  # of a section of text
        self._next = 0

    def fail(self, what: str) -> InputError:
        line = self.data.count(b"\n", 0, self.position) + 1
        place = "" if self.binary else f" line {line}"
        return InputError(f"{self.path}{place}: {what}: the file is damaged or truncated.")

    def end_of(self, name: str) -> int:
        end = self.data.find(b"$End" + name.encode(), self.position)
        if end < 0:
            raise self.fail(f"${name} does not end")
        return end

    def open(self, name: str) -> None:
        """Begin a section of numbers."""
        if not self.binary:
            end = self.end_of(name)
            line = self.data.count(b"\n", 0, self.position) + 1
            text = self.data[self.position : end]
            self._numbers = parse_numbers(self.path, text, float, line)
            self._next, self.position = 0, end

    def skip(self, name: str) -> None:
        self.position = self.end_of(name)

    def close(self, name: str) -> None:
        """Expect the end of a section, with all its numbers used."""
        if self._next != len(self._numbers):
            raise self.fail(f"${name} holds {len(self._numbers) - self._next} numbers too many")
        self._numbers, self._next = np.zeros(0), 0
        section = _SECTION.match(self.data, self.position)
        if not section or section.group(1).decode() != f"End{name}":
            raise self.fail(f"expected $End{name}")
        self.position = section.end()

    def take(self, count: int, dtype: str) -> np.ndarray:
        """The next numbers; `dtype` is how they are stored in binary files."""
        if count < 0:
            raise self.fail("a negative count")
        if self.binary:
            size = count * np.dtype(dtype).itemsize
            if self.position + size > len(self.data):
                raise self.fail(f"{count} numbers expected")
            values = np.frombuffer(self.data, self.order + dtype, count, self.position)
            self.position += size
        else:
            if count > len(self.rest()):
                raise self.fail(f"{count} numbers expected, {len(self.rest())} found")
            values = self.rest()[:count]
            self._next += count
        return values.astype(float if dtype == "f8" else np.int64)

    def rest(self) -> np.ndarray:
        """Numbers of a section of text that have not been taken."""
        return self._numbers[self._next :]

    def one(self, dtype: str) -> int:
        return int(self.take(1, dtype)[0])

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise self.fail("a line is missing")
        text = self.data[self.position : end].strip()
        self.position = end + 1
        return text


def _nodes(cursor: _Cursor, mesh: _Contents) -> None:
    if mesh.version == 2:
        count = _count_line(cursor)
        if cursor.binary:
            rows = np.dtype([("tag", f"{cursor.order}i4"), ("x", f"{cursor.order}f8", 3)])
            size = count * rows.itemsize
            if cursor.position + size > len(cursor.data):
                raise cursor.fail(f"{count} nodes expected")
            table = np.frombuffer(cursor.data, rows, count, cursor.position)
            cursor.position += size
            mesh.node_tags, mesh.points = table["tag"].astype(np.int64), table["x"].astype(float)
        else:
            flat = cursor.take(4 * count, "f8").reshape(count, 4)
            mesh.node_tags, mesh.points = flat[:, 0].astype(np.int64), flat[:, 1:]
        return
    n_blocks, *_ = cursor.take(4, "u8").tolist()
    tags, points = [], []
    for _ in range(n_blocks):
        dimension, _, parametric = cursor.take(3, "i4").tolist()
        count = cursor.one("u8")
        tags.append(cursor.take(count, "u8"))
        width = 3 + (dimension if parametric else 0)
        points.append(cursor.take(width * count, "f8").reshape(count, width)[:, :3])
    mesh.node_tags = np.concatenate([np.zeros(0, dtype=np.int64), *tags])
    mesh.points = np.concatenate([np.zeros((0, 3)), *points])


def _count_line(cursor: _Cursor) -> int:
    """Count at the head of a section of version 2, text even in binary files."""
    if not cursor.binary:
        return cursor.one("u8")
    text = cursor.line()
    if not text.isdigit() or int(text) > len(cursor.data):
        raise cursor.fail(f"'{text[:20].decode('latin-1')}' is no count")
    return int(text)


def _entities(cursor: _Cursor, mesh: _Contents) -> None:
    for dimension, count in enumerate(cursor.take(4, "u8").tolist()):
        for _ in range(count):
            tag = cursor.one("i4")
            cursor.take(3 if dimension == 0 else 6, "f8")
            groups = cursor.take(cursor.one("u8"), "i4").tolist()
            if groups:
                mesh.physical[dimension, tag] = abs(groups[0])  # the sign is an orientation
                mesh.several_groups += len(groups) > 1
            if dimension:
                cursor.take(cursor.one("u8"), "i4")


def _elements(cursor: _Cursor, mesh: _Contents) -> None:
    mesh.blocks = []
    if mesh.version == 2:
        _elements_2(cursor, mesh.blocks)
        return
    n_blocks, *_ = cursor.take(4, "u8").tolist()
    for _ in range(n_blocks):
        dimension, entity, number = cursor.take(3, "i4").tolist()
        kind, size = _element(cursor, number)
        count = cursor.one("u8")
        rows = cursor.take((1 + size) * count, "u8").reshape(count, 1 + size)
        physical = np.full(count, mesh.physical.get((dimension, entity), 0))
        mesh.blocks.append((kind, rows[:, 0], rows[:, 1:], physical, np.full(count, entity)))


def _elements_2(cursor: _Cursor, blocks: list) -> None:
    left = _count_line(cursor)
    while left > 0:
        if cursor.binary:
            number, count, n_tags = cursor.take(3, "i4").tolist()
            kind, size = _element(cursor, number)
            if not 0 < count <= left or n_tags < 0:
                raise cursor.fail("a block of elements has no sensible size")
            rows = cursor.take(count * (1 + n_tags + size), "i4").reshape(count, -1)
        else:
            kind, size, n_tags, rows = _text_run(cursor, left)
            count = len(rows)
        left -= count
        zero = np.zeros(count, dtype=np.int64)
        physical = rows[:, 1] if n_tags > 0 else zero
        geometrical = rows[:, 2] if n_tags > 1 else zero
        blocks.append((kind, rows[:, 0], rows[:, 1 + n_tags :], physical, geometrical))


def _text_run(cursor: _Cursor, left: int) -> tuple[str, int, int, np.ndarray]:
    """As many of the next elements as have the type and number of tags of the first."""
    rest = cursor.rest()
    if len(rest) < 3:
        raise cursor.fail("an element is cut short")
    number, n_tags = int(rest[1]), int(rest[2])
    kind, size = _element(cursor, number)
    width = 3 + n_tags + size
    if n_tags < 0 or len(rest) < width:
        raise cursor.fail("an element is cut short")
    table = rest[: width * min(left, len(rest) // width)].reshape(-1, width)
    other = np.flatnonzero((table[:, 1] != number) | (table[:, 2] != n_tags))
    count = int(other[0]) if other.size else len(table)
    rows = cursor.take(count * width, "i4").reshape(count, width)
    return kind, size, n_tags, np.delete(rows, [1, 2], axis=1)


def _element(cursor: _Cursor, number: int) -> tuple[str, int]:
    if number not in _ELEMENTS:
        raise cursor.fail(f"element type {number} is unknown")
    return _ELEMENTS[number]


def _physical_names(cursor: _Cursor) -> list[tuple[str, int]]:
    end = cursor.end_of("PhysicalNames")
    text = cursor.data[cursor.position : end].decode("utf-8", "replace")
    cursor.position = end
    return [(name, int(tag)) for tag, name in re.findall(r"^\s*\d+\s+(\d+)\s+\"(.*)\"", text, re.M)]


def _data(cursor: _Cursor, target: dict, name: str) -> None:
    """A field: names, times and counts as text, then a row of numbers for each tag."""
    headers = []
    for _ in range(3):
        count = cursor.line()
        if not count.isdigit() or int(count) > 100:
            raise cursor.fail(f"${name} has no sensible header")
        headers.append([cursor.line() for _ in range(int(count))])
    strings, _, integers = headers
    if len(integers) < 3 or not all(i.isdigit() for i in integers[1:3]):
        raise cursor.fail(f"${name} has no sensible header")
    width, count = int(integers[1]), int(integers[2])
    if cursor.binary:
        rows = np.dtype([("tag", f"{cursor.order}i4"), ("v", f"{cursor.order}f8", (width,))])
        size = count * rows.itemsize
        if cursor.position + size > len(cursor.data):
            raise cursor.fail(f"{count} rows of ${name} expected")
        table = np.frombuffer(cursor.data, rows, count, cursor.position)
        cursor.position += size
        tags, values = table["tag"].astype(np.int64), table["v"].astype(float)
    else:
        cursor.open(name)
        flat = cursor.take(count * (1 + width), "f8").reshape(count, 1 + width)
        tags, values = flat[:, 0].astype(np.int64), flat[:, 1:]
    title = (
        strings[0].decode("utf-8", "replace").strip('"') if strings else f"unnamed_{len(target)}"
    )
    target[title] = (tags, values[:, 0] if width == 1 else values)


def _raw(cursor: _Cursor, mesh: _Contents) -> RawMesh:
    if mesh.points is None or mesh.node_tags is None or mesh.blocks is None:
        raise cursor.fail("has no $Nodes or no $Elements")
    cells: dict[str, np.ndarray] = {}
    fields: dict[str, dict[str, np.ndarray]] = {}
    for kind in dict.fromkeys(block[0] for block in mesh.blocks):
        columns = zip(*(block[1:] for block in mesh.blocks if block[0] == kind), strict=True)
        tags, nodes, physical, geometrical = (np.concatenate(c) for c in columns)
        cells[kind] = _positions(cursor, mesh.node_tags, nodes, "node")
        fields[kind] = {"gmsh:geometrical": geometrical}
        if physical.any():
            fields[kind]["gmsh:physical"] = physical
        for name, found in mesh.element_data.items():
            fields[kind][name] = _spread(*found, tags)
    point_fields = {k: _spread(*found, mesh.node_tags) for k, found in mesh.node_data.items()}
    raw = RawMesh(cursor.path, "Gmsh MSH", mesh.points, cells, point_fields, fields, index_base=0)
    raw.notes += [f"physical group '{name}' is tag {tag}" for name, tag in mesh.names]
    if mesh.several_groups:
        raw.notes.append(f"{mesh.several_groups} entities are in several groups: the first is used")
    return raw


def _positions(cursor: _Cursor, tags: np.ndarray, wanted: np.ndarray, what: str) -> np.ndarray:
    """Rows of the wanted tags."""
    order = np.argsort(tags, kind="stable")
    at = np.minimum(np.searchsorted(tags, wanted, sorter=order), max(len(tags) - 1, 0))
    if wanted.size and not len(tags):
        raise cursor.fail(f"there are no {what}s")
    found = order[at]
    missing = np.flatnonzero(tags[found] != wanted)
    if missing.size:
        raise cursor.fail(f"{what} {wanted.ravel()[missing[0]]} does not exist")
    return found


def _spread(tags: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Values at the wanted tags, NaN where there is none."""
    out = np.full((len(wanted), *values.shape[1:]), np.nan)
    order = np.argsort(tags, kind="stable")
    at = np.searchsorted(tags, wanted, sorter=order)
    inside = np.flatnonzero(at < len(order))
    rows = order[at[inside]]
    same = tags[rows] == wanted[inside]
    out[inside[same]] = values[rows[same]]
    return out
