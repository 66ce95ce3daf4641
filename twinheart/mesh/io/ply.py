"""Reader of PLY surfaces, text or binary."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from twinheart.errors import InputError
from twinheart.mesh.io.raw import RawMesh, read_bytes
from twinheart.mesh.io.text import take_numbers
from twinheart.mesh.io.vtkcells import POLYGON, sort_cells

_DTYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4",
    "float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2",
    "int32": "i4", "uint32": "u4", "int64": "i8", "uint64": "u8", "float32": "f4",
    "float64": "f8",
}  # fmt: skip
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass
class _Element:
    """One table of the file: its properties as (name, type, type of the list's length)."""

    name: str
    count: int
    properties: list[tuple[str, str, str | None]]


def read_ply(path: Path) -> RawMesh:
    """Read a PLY surface; further scalar properties of nodes and faces become fields.

    Raises
    ------
    InputError
        If the file is truncated or damaged, or its faces are no polygons.
    """
    data = read_bytes(path)
    order, elements, position = _header(path, data)
    for element in elements:
        names = [p[0] for p in element.properties]
        if len(set(names)) != len(names):
            raise InputError(f"{path}: a property of {element.name} is declared twice: damaged.")
    tables: dict[str, dict[str, np.ndarray]] = {}
    for element in elements:
        if element.count == 0:
            tables[element.name] = {}
        elif order:
            tables[element.name], position = _binary(path, data, position, order, element)
        else:
            tables[element.name], position = _text(path, data, position, element)
    vertex, face = tables.get("vertex", {}), tables.get("face", {})
    if not {"x", "y", "z"} <= set(vertex):
        raise InputError(f"{path}: its vertices have no x, y and z.")
    points = np.stack([vertex.pop(axis) for axis in "xyz"], axis=1).astype(float)
    nodes, sizes = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    for name in ("vertex_indices", "vertex_index"):
        if name in face:
            nodes, sizes = face.pop(name).astype(np.int64), face.pop(name + "#").astype(np.int64)
    fields = {k: v for k, v in face.items() if not k.endswith("#") and len(v) == len(sizes)}
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    types = np.full(len(sizes), POLYGON)
    cells, by_kind = sort_cells(path, types, offsets, nodes, fields)
    return RawMesh(path, "PLY", points, cells, vertex, by_kind, index_base=0)


def _header(path: Path, data: bytes) -> tuple[str, list[_Element], int]:
    end = data.find(b"end_header")
    if not data.startswith(b"ply") or end < 0:
        raise InputError(f"{path}: is no PLY file, or ends within its header.")
    order, elements = None, []
    for number, line in enumerate(data[:end].decode("latin-1").splitlines(), 1):
        words = line.split()
        try:
            if words[:1] == ["format"]:
                order = _ORDERS[words[1]]
            elif words[:1] == ["element"]:
                elements.append(_Element(words[1], int(words[2]), []))
                if not 0 <= elements[-1].count <= len(data):
                    raise ValueError
            elif words[:2] == ["property", "list"]:
                item = (words[4], _DTYPES[words[3]], _DTYPES[words[2]])
                elements[-1].properties.append(item)
            elif words[:1] == ["property"]:
                elements[-1].properties.append((words[2], _DTYPES[words[1]], None))
        except (ValueError, KeyError, IndexError):
            raise InputError(
                f"{path} line {number}: cannot accept '{line[:60]}' (unknown, or more than the "
                f"{len(data)} bytes of the file can hold): damaged or truncated."
            ) from None
    if order is None:
        raise InputError(f"{path}: its header names no format: damaged.")
    return order, elements, data.index(b"\n", end) + 1 if b"\n" in data[end:] else len(data)


def _text(
    path: Path, data: bytes, position: int, element: _Element
) -> tuple[dict[str, np.ndarray], int]:
    what, lists = f"its {element.name} table", [p for p in element.properties if p[2]]
    width = len(element.properties)
    if not lists:
        flat, position = take_numbers(path, data, position, width * element.count, float, what)
        table = flat.reshape(element.count, width).T
        return {
            p[0]: v.astype(p[1]) for p, v in zip(element.properties, table, strict=True)
        }, position
    values: dict[str, list] = {p[0]: [] for p in element.properties}
    sizes: dict[str, list[int]] = {p[0]: [] for p in lists}
    words = iter(data[position:].split())
    try:
        for _ in range(element.count):
            for name, _, is_list in element.properties:
                if is_list:
                    sizes[name].append(int(next(words)))
                    values[name] += [float(next(words)) for _ in range(sizes[name][-1])]
                else:
                    values[name].append(float(next(words)))
    except (StopIteration, ValueError):
        raise InputError(f"{path}: {what} is damaged or truncated.") from None
    table = {p[0]: np.array(values[p[0]]).astype(p[1]) for p in element.properties}
    table |= {f"{name}#": np.array(n, dtype=np.int64) for name, n in sizes.items()}
    # what stands behind the faces is of no use to a mesh
    return table, len(data)


def _binary(
    path: Path, data: bytes, position: int, order: str, element: _Element
) -> tuple[dict[str, np.ndarray], int]:
    """A table whose lists all have the length of its first one at once, others row by row."""
    first = _record(data, position, order, element)
    if first is not None and position + element.count * first.itemsize <= len(data):
        rows = np.frombuffer(data, first, element.count, position)
        sizes = {p[0]: rows[p[0] + "#"] for p in element.properties if p[2]}
        if all(len(n) == 0 or np.all(n == n[0]) for n in sizes.values()):
            table = {name: rows[name].ravel() for name in first.names or ()}
            return table, position + element.count * first.itemsize
    parts: dict[str, list] = {}
    for _ in range(element.count):
        record = _record(data, position, order, element)
        if record is None or position + record.itemsize > len(data):
            raise InputError(f"{path}: its {element.name} table is damaged or truncated.")
        row = np.frombuffer(data, record, 1, position)
        for name in record.names or ():
            parts.setdefault(name, []).append(row[name].ravel())
        position += record.itemsize
    return {name: np.concatenate(rows) for name, rows in parts.items()}, position


def _record(data: bytes, position: int, order: str, element: _Element) -> np.dtype | None:
    """Layout of the row at `position`; None where the file ends before it."""
    layout: list[tuple] = []
    for name, kind, length in element.properties:
        if length is None:
            layout.append((name, order + kind))
            continue
        start = position + np.dtype(layout).itemsize
        head = np.dtype(order + length)
        if start + head.itemsize > len(data):
            return None
        size = int(np.frombuffer(data, head, 1, start)[0])
        if not 0 <= size <= len(data):
            return None
        layout += [(name + "#", head), (name, order + kind, (size,))]
    return np.dtype(layout)
