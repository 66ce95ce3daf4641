"""Reader of VTK's XML files: VTU (unstructured grids) and VTP (surfaces)."""

import base64
import lzma
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twinheart.errors import InputError
from twinheart.mesh.io.raw import RawMesh, check_count, read_bytes
from twinheart.mesh.io.text import parse_numbers
from twinheart.mesh.io.vtkcells import POLYGON, STRIP, sort_cells

_DTYPES = {f"{sign}Int{8 * n}": f"{code}{n}" for sign, code in (("", "i"), ("U", "u"))
           for n in (1, 2, 4, 8)} | {"Float32": "f4", "Float64": "f8"}  # fmt: skip
_APPENDED = re.compile(rb"<AppendedData[^>]*>\s*_")
_POLY_SECTIONS = (("Verts", 2), ("Lines", 4), ("Strips", STRIP), ("Polys", POLYGON))


def read_vtk_xml(path: Path) -> RawMesh:
    """Read a VTU or VTP file in any of its encodings.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    RawMesh
        Its pieces joined; all fields by name.

    Raises
    ------
    InputError
        If the file is truncated, damaged, no XML, or of another VTK type.
    """
    source = _Source.open(path)
    kind = source.root.get("type")
    if source.root.tag != "VTKFile" or kind not in ("UnstructuredGrid", "PolyData"):
        raise InputError(
            f"{path}: is <{source.root.tag} type='{kind}'>, expected a VTKFile of type "
            "UnstructuredGrid or PolyData."
        )
    grid = source.root.find(kind)
    pieces = [] if grid is None else grid.findall("Piece")
    if grid is None or not pieces:
        raise InputError(f"{path}: holds no mesh (no <Piece>).")
    mesh = _join(path, [_read_piece(source, piece, kind) for piece in pieces])
    mesh.notes = source.notes + mesh.notes
    unit = _text_field(source, grid.find("FieldData"), "length_unit")
    if unit:
        mesh.unit, mesh.unit_source = unit, "the file's field data"
    return mesh


@dataclass
class _Source:
    """The parsed XML and what is needed to decode its arrays."""

    path: Path
    size: int
    root: Any
    appended: bytes
    appended_encoding: str
    order: str
    header: np.dtype
    compressor: str
    notes: list[str]

    @classmethod
    def open(cls, path: Path) -> "_Source":
        data = read_bytes(path)
        text, appended, encoding = data, b"", "raw"
        if start := _APPENDED.search(data):
            # raw bytes are no XML: the text ends here, and its end must be there behind the bytes
            end = data.rfind(b"</AppendedData>")
            if end < start.end() or b"</VTKFile>" not in data[end:]:
                raise InputError(f"{path}: the appended data do not end: the file is truncated.")
            text = data[: start.start()] + b"</VTKFile>"
            appended = data[start.end() : end]
            encoding = "base64" if b"base64" in start.group() else "raw"
        root = parse_xml(path, text)
        order = ">" if root.get("byte_order") == "BigEndian" else "<"
        header = np.dtype(order + _DTYPES.get(root.get("header_type", "UInt32"), "u4"))
        compressor = root.get("compressor", "")
        return cls(path, len(data), root, appended, encoding, order, header, compressor, [])

    def fail(self, name: str, why: str) -> InputError:
        return InputError(f"{self.path}: array '{name}' {why}: the file is damaged or truncated.")

    def values(self, element: Any, count: int | None) -> np.ndarray:
        """Numbers of one DataArray, of which there must be `count`."""
        name, kind = element.get("Name", "?"), element.get("type", "")
        if kind not in _DTYPES:
            raise self.fail(name, f"has the unknown type '{kind}'")
        dtype = np.dtype(self.order + _DTYPES[kind])
        if count is not None:
            check_count(self.path, f"values of '{name}'", count, dtype.itemsize, self.size)
        if element.get("format", "ascii") == "ascii":
            text = (element.text or "").encode()
            values = parse_numbers(self.path, text, float if dtype.kind == "f" else int)
            values = values.astype(dtype.newbyteorder("="))
        else:
            wanted = None if count is None else count * dtype.itemsize
            content = self._content(element, name, wanted)
            if len(content) % dtype.itemsize:
                raise self.fail(name, f"has {len(content)} bytes, no whole number of values")
            values = np.frombuffer(content, dtype).astype(dtype.newbyteorder("="))
        if count is not None and len(values) != count:
            raise self.fail(name, f"has {len(values)} values, expected {count}")
        return values

    def _content(self, element: Any, name: str, wanted: int | None) -> bytes:
        if element.get("format") == "appended":
            offset = integer(self.path, element, "offset", -1)
            if not 0 <= offset <= len(self.appended):
                raise self.fail(name, f"begins at byte {offset} of {len(self.appended)}")
            stream = _Stream(memoryview(self.appended)[offset:], self.appended_encoding)
        else:
            stream = _Stream(memoryview("".join((element.text or "").split()).encode()), "base64")
        try:
            if self.compressor:
                return self._inflate(name, stream, wanted)
            width = self.header.itemsize
            size = int(np.frombuffer(stream.head(width), self.header)[0])
            if wanted is not None and size != wanted:
                raise self.fail(name, f"has {size} bytes, expected {wanted}")
            return stream.body(width, size)
        except (ValueError, zlib.error, lzma.LZMAError, EOFError):  # binascii's is a ValueError
            raise self.fail(name, "cannot be decoded") from None

    def _inflate(self, name: str, stream: "_Stream", wanted: int | None) -> bytes:
        width = self.header.itemsize
        n_blocks = int(np.frombuffer(stream.head(width), self.header)[0])
        if n_blocks * width > len(stream.buffer):
            raise self.fail(name, f"claims {n_blocks} compressed blocks")
        if n_blocks == 0:
            return b""
        head_size = (3 + n_blocks) * width
        _, block, last, *sizes = np.frombuffer(stream.head(head_size), self.header).tolist()
        total = (n_blocks - 1) * block + (last or block)
        if wanted is not None and total != wanted:
            raise self.fail(name, f"has {total} bytes, expected {wanted}")
        check_count(self.path, f"bytes of '{name}'", total, 1, self.size)
        packed = stream.body(head_size, sum(sizes))
        parts, start = [], 0
        for i, size in enumerate(sizes):
            expected = block if i < n_blocks - 1 else (last or block)
            parts.append(self._unpack(packed[start : start + size], expected))
            if len(parts[-1]) != expected:
                raise self.fail(name, f"block {i} has {len(parts[-1])} bytes, expected {expected}")
            start += size
        return b"".join(parts)

    def _unpack(self, packed: bytes, size: int) -> bytes:
        if size == 0:  # a limit of 0 would mean none to zlib
            return b""
        if self.compressor == "vtkZLibDataCompressor":
            return zlib.decompressobj().decompress(packed, size)
        if self.compressor == "vtkLZMADataCompressor":
            return lzma.LZMADecompressor().decompress(packed, size)
        if self.compressor == "vtkLZ4DataCompressor":
            from vtkmodules.vtkCommonCore import vtkCommand
            from vtkmodules.vtkIOCore import vtkLZ4DataCompressor

            content, decoder = bytearray(size), vtkLZ4DataCompressor()
            # the size tells of an error: no need of VTK's lines on stderr
            decoder.AddObserver(vtkCommand.ErrorEvent, lambda *_: None)
            filled = decoder.Uncompress(packed, len(packed), content, size)
            return bytes(content[:filled])
        raise InputError(
            f"{self.path}: is compressed with '{self.compressor}'; expected zlib, LZMA, LZ4 or "
            "none: save it again with one of these."
        )


@dataclass
class _Stream:
    """A header and the data that follow it, as raw bytes or in base64."""

    buffer: memoryview
    encoding: str

    def head(self, size: int) -> bytes:
        """First `size` bytes."""
        if self.encoding == "raw":
            return self._exactly(bytes(self.buffer[:size]), size)
        return self._exactly(self._decoded(0, size)[:size], size)

    def body(self, head: int, size: int) -> bytes:
        """The `size` bytes behind a header of `head` bytes."""
        if self.encoding == "raw":
            return self._exactly(bytes(self.buffer[head : head + size]), size)
        if len(self._decoded(0, head)) == head:  # the header was encoded by itself
            return self._exactly(self._decoded(_base64_length(head), size), size)
        return self._exactly(self._decoded(0, head + size)[head:], size)

    def _decoded(self, start: int, size: int) -> bytes:
        text = self.buffer[start : start + _base64_length(size)]
        return base64.b64decode(text, validate=True)

    @staticmethod
    def _exactly(content: bytes, size: int) -> bytes:
        if len(content) < size:
            raise ValueError("the stream ends too early")
        return content[:size]


def _base64_length(size: int) -> int:
    return -(-size // 3) * 4


def integer(path: Path, element: Any, name: str, default: int) -> int:
    """Integer attribute of an XML element; an `InputError` where it is something else.

    Examples
    --------
    >>> from pathlib import Path
    >>> from twinheart.mesh.io.vtkxml import integer
    >>> integer(Path("a.vtu"), {"offset": "12"}, "offset", -1)
    12
    """
    text = str(element.get(name, default)).strip()
    if not text.removeprefix("-").isdecimal() or len(text) > 18:
        raise InputError(f"{path}: {name} is '{text[:30]}', expected an integer: damaged file.")
    return int(text)


def parse_xml(path: Path, text: bytes) -> Any:
    """Root element of an XML text without entities or document types.

    Raises
    ------
    InputError
        If it is no XML, ends too early, or declares entities or a document type.

    Examples
    --------
    >>> from pathlib import Path
    >>> from twinheart.mesh.io.vtkxml import parse_xml
    >>> parse_xml(Path("a.vtu"), b"<VTKFile/>").tag
    'VTKFile'
    """
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        return fromstring(text, forbid_dtd=True)
    except ParseError as error:
        raise InputError(f"{path}: is no complete XML ({error}): damaged or truncated.") from None
    except DefusedXmlException:
        raise InputError(
            f"{path}: declares an XML document type or entities, which no mesh needs: refused."
        ) from None


def _read_piece(source: _Source, piece: Any, kind: str) -> RawMesh:
    n_points = _count(source, piece, "NumberOfPoints", 3)
    array = piece.find("Points/DataArray")
    if array is None:
        raise InputError(f"{source.path}: has no <Points>.")
    points = source.values(array, 3 * n_points).reshape(n_points, 3)
    if kind == "UnstructuredGrid":
        n_cells = _count(source, piece, "NumberOfCells", 1)
        arrays = {e.get("Name"): e for e in piece.findall("Cells/DataArray")}
        if not {"connectivity", "offsets", "types"} <= set(arrays):
            raise InputError(f"{source.path}: <Cells> lacks connectivity, offsets or types.")
        types = source.values(arrays["types"], n_cells)
        offsets, connectivity = _cells(source, arrays, n_cells)
    else:
        types, offsets, connectivity = _poly_cells(source, piece)
    cell_fields = _fields(source, piece.find("CellData"), len(types))
    cells, by_kind = sort_cells(source.path, types, offsets, connectivity, cell_fields)
    name = "VTU" if kind == "UnstructuredGrid" else "VTP"
    point_fields = _fields(source, piece.find("PointData"), n_points)
    return RawMesh(source.path, f"{name} (VTK XML)", points, cells, point_fields, by_kind)


def _count(source: _Source, piece: Any, name: str, item_bytes: int) -> int:
    count = integer(source.path, piece, name, 0)
    check_count(source.path, name, count, item_bytes, source.size)
    return count


def _cells(source: _Source, arrays: dict, n_cells: int) -> tuple[np.ndarray, np.ndarray]:
    ends = source.values(arrays["offsets"], n_cells).astype(np.int64)
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), ends])
    connectivity = source.values(arrays["connectivity"], int(offsets[-1]))
    return offsets, connectivity.astype(np.int64, copy=False)


def _poly_cells(source: _Source, piece: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    types, offsets, nodes = [], [np.zeros(1, dtype=np.int64)], []
    shift = 0
    for section, number in _POLY_SECTIONS:
        arrays = {e.get("Name"): e for e in piece.findall(f"{section}/DataArray")}
        n_cells = _count(source, piece, f"NumberOf{section}", 1)
        if not n_cells or not {"connectivity", "offsets"} <= set(arrays):
            continue
        starts, connectivity = _cells(source, arrays, n_cells)
        types.append(np.full(n_cells, number))
        offsets.append(starts[1:] + shift)
        nodes.append(connectivity)
        shift += len(connectivity)
    none = np.zeros(0, dtype=np.int64)
    return np.concatenate([none, *types]), np.concatenate(offsets), np.concatenate([none, *nodes])


def _fields(source: _Source, section: Any, n_rows: int) -> dict[str, np.ndarray]:
    fields = {}
    for number, element in enumerate([] if section is None else section):
        name = element.get("Name") or f"unnamed_{number}"
        if element.tag != "DataArray" or element.get("type") not in _DTYPES:
            source.notes.append(f"field '{name}' holds no numbers and was left out")
            continue
        width = max(integer(source.path, element, "NumberOfComponents", 1), 1)
        values = source.values(element, n_rows * width)
        fields[name] = values if width == 1 else values.reshape(n_rows, width)
    return fields


def _text_field(source: _Source, section: Any, wanted: str) -> str:
    """A short string of the field data, '' where there is none."""
    for element in [] if section is None else section:
        if element.get("Name") != wanted or element.get("type") != "String":
            continue
        if element.get("format", "ascii") == "ascii":
            codes = parse_numbers(source.path, (element.text or "").encode(), int)
            content = bytes(int(c) for c in codes[:64] if 0 <= c < 256)
        else:
            content = source._content(element, wanted, None)
        return content.split(b"\0")[0].decode("utf-8", "replace").strip()[:64]
    return ""


def _join(path: Path, pieces: list[RawMesh]) -> RawMesh:
    """One mesh of several pieces; fields that not all of them have are left out."""
    first, *others = [p for p in pieces if len(p.points)] or pieces[:1]
    for piece in others:
        shift = len(first.points)
        names = set(first.point_fields) & set(piece.point_fields)
        point_fields = {
            k: np.concatenate([first.point_fields[k], piece.point_fields[k]]) for k in names
        }
        for kind, cells in piece.cells.items():
            mine, theirs = first.cell_fields.get(kind), piece.cell_fields[kind]
            if kind in first.cells and mine is not None:
                cells = np.concatenate([first.cells[kind], cells + shift])
                theirs = {k: np.concatenate([mine[k], theirs[k]]) for k in set(mine) & set(theirs)}
            else:
                cells = cells + shift
            first.cells[kind], first.cell_fields[kind] = cells, theirs
        first.points = np.concatenate([first.points, piece.points])
        first.point_fields = point_fields
    if others:
        first.notes.append(f"{len(pieces)} pieces were joined")
    return first
