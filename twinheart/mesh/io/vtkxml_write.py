"""Writer of VTK's XML files: VTU for tetrahedra and surfaces, VTP for surfaces."""

import struct
import zlib
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np

from twinheart.errors import InputError
from twinheart.mesh.core import TetMesh, TriMesh
from twinheart.mesh.defects import cells_of
from twinheart.mesh.io.atomic import written_whole

_BLOCK = 1 << 22  # bytes compressed at a time
_VTK_TYPE = {3: 5, 4: 10}  # triangle, tetrahedron by number of corners


def write_vtk_xml(path: str | Path, mesh: TetMesh | TriMesh) -> None:
    """Write a `.vtu` (or for a surface `.vtp`) file: compressed, with all fields and its unit.

    Parameters
    ----------
    path : path
        File to write.
    mesh : TetMesh or TriMesh
        Mesh [mm] with its fields.

    Raises
    ------
    OutputError
        If the file cannot be written; nothing is left behind.
    """
    path = Path(path)
    poly = path.suffix.lower() == ".vtp"
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        appended = _Appended()
        text = _piece(mesh, appended, poly)
        kind = "PolyData" if poly else "UnstructuredGrid"
        unit = " ".join(str(code) for code in b"mm\0")
        file.write(
            f'<?xml version="1.0"?>\n<VTKFile type="{kind}" version="1.0" '
            'byte_order="LittleEndian" header_type="UInt64" compressor="vtkZLibDataCompressor">\n'
            f'<{kind}>\n<FieldData>\n<Array type="String" Name="length_unit" NumberOfTuples="1" '
            f'format="ascii">{unit}</Array>\n</FieldData>\n{text}</{kind}>\n'
            '<AppendedData encoding="raw">\n_'.encode()
        )
        for part in appended.parts:
            file.write(part)
        file.write(b"\n</AppendedData>\n</VTKFile>\n")


class _Appended:
    """Compressed arrays, one behind the other, and the XML elements that point at them."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0

    def add(self, name: str, values: np.ndarray) -> str:
        values = storable(name, values)
        width = values.shape[1] if values.ndim == 2 else 1
        kind = {"f": "Float", "i": "Int", "u": "UInt"}[values.dtype.kind]
        element = (
            f'<DataArray type="{kind}{8 * values.dtype.itemsize}" Name={quoteattr(name)} '
            f'NumberOfComponents="{width}" format="appended" offset="{self.size}"/>\n'
        )
        content = memoryview(np.ascontiguousarray(values).tobytes())
        blocks = [zlib.compress(content[i : i + _BLOCK], 1) for i in range(0, len(content), _BLOCK)]
        head = (len(blocks), _BLOCK, len(content) % _BLOCK, *map(len, blocks))
        for part in (struct.pack(f"<{len(head)}Q", *head), *blocks):
            self.parts.append(part)
            self.size += len(part)
        return element


def storable(name: str, values: np.ndarray) -> np.ndarray:
    """A field as little-endian numbers with at most two axes.

    Raises
    ------
    InputError
        If it holds no real numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.io.vtkxml_write import storable
    >>> storable("scar", np.array([True, False]))
    array([1, 0], dtype=uint8)
    """
    values = np.asarray(values)
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if values.dtype.kind not in "iuf":
        raise InputError(f"field '{name}' is of type {values.dtype}, expected real numbers.")
    if values.dtype.itemsize not in (1, 2, 4, 8) or values.dtype == np.float16:
        values = values.astype(np.float64)
    values = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return values.reshape(len(values), -1) if values.ndim > 2 else values


def _piece(mesh: TetMesh | TriMesh, appended: _Appended, poly: bool) -> str:
    cells = cells_of(mesh)
    corners = cells.shape[1]
    count = "NumberOfPolys" if poly else "NumberOfCells"
    text = f'<Piece NumberOfPoints="{mesh.n_nodes}" {count}="{len(cells)}">\n<PointData>\n'
    text += "".join(appended.add(name, values) for name, values in mesh.point_fields.items())
    text += "</PointData>\n<CellData>\n"
    text += "".join(appended.add(name, values) for name, values in mesh.cell_fields.items())
    text += f"</CellData>\n<Points>\n{appended.add('Points', mesh.points)}</Points>\n"
    section = "Polys" if poly else "Cells"
    text += f"<{section}>\n{appended.add('connectivity', cells.ravel())}"
    ends = np.arange(1, len(cells) + 1, dtype=np.int64) * corners
    text += appended.add("offsets", ends)
    if not poly:
        types = np.full(len(cells), _VTK_TYPE[corners], dtype=np.uint8)
        text += appended.add("types", types)
    return f"{text}</{section}>\n</Piece>\n"
