"""Reader of `.node` and `.ele` files (Triangle's and TetGen's format, used by Chaste, too)."""

import re
from pathlib import Path

import numpy as np

from twinheart.errors import InputError
from twinheart.mesh.io.raw import RawMesh, read_bytes
from twinheart.mesh.io.text import line_of_row, read_table

_CORNERS = {3: ("triangle", 3), 4: ("tetra", 4), 10: ("tetra10", 10)}


def read_tetgen(path: Path) -> RawMesh:
    """Read the tetrahedra (or triangles) of a `.node` file and the `.ele` file beside it.

    Parameters
    ----------
    path : Path
        Either of the two files.

    Returns
    -------
    RawMesh
        Node attributes and markers become point fields, the first attribute of an element its
        ``region``. Indices are counted from the first index of the `.node` file (0 or 1).

    Raises
    ------
    InputError
        If a file is missing or damaged, or a count disagrees with its header; the message names
        file and line.
    """
    nodes, header, _ = _table(path.with_suffix(".node"), "node")
    if header[1:2] != [3]:
        raise InputError(
            f"{path.with_suffix('.node')} line 1: nodes of dimension {header[1:2]}, expected 3."
        )
    points = nodes[:, 1:4]
    cells, cells_header, n_columns = _table(path.with_suffix(".ele"), "element")
    corners = cells_header[1] if len(cells_header) > 1 else n_columns - 1
    if corners not in _CORNERS or n_columns < corners + 1:
        raise InputError(
            f"{path.with_suffix('.ele')} line 1: elements of {corners} nodes, expected 4 "
            "(tetrahedra), 10 or 3."
        )
    kind, size = _CORNERS[corners]
    mesh = RawMesh(path, "TetGen/Chaste .node/.ele", points, {kind: cells[:, 1 : size + 1]})
    mesh.index_base = int(nodes[0, 0]) if len(nodes) else 0
    mesh.point_fields = {f"attribute_{i}": v for i, v in enumerate(nodes[:, 4:].T)}
    mesh.cell_fields = {kind: {}}
    if cells.shape[1] > size + 1:
        mesh.cell_fields[kind]["region"] = cells[:, size + 1]
    if np.any(nodes[:, 0] != np.arange(len(nodes)) + mesh.index_base):
        raise InputError(
            f"{path.with_suffix('.node')}: nodes are not numbered in order from "
            f"{mesh.index_base}: renumber them."
        )
    mesh.cells[kind] = mesh.cells[kind].astype(np.int64)
    return mesh


def _table(path: Path, what: str) -> tuple[np.ndarray, list[int], int]:
    """Rows of a table behind its header line, that header, and the number of columns."""
    data = read_bytes(path)
    if data.startswith(b"\x7f") or b"BIN" in data[:200]:
        raise InputError(f"{path}: is a binary Chaste file; expected text: save it as text.")
    if b"#" in data:
        data = re.sub(rb"#[^\n]*", b"", data)
    values, counts = read_table(path, data, float)
    filled = counts[counts > 0]
    if not len(filled):
        raise InputError(f"{path}: holds no numbers.")
    header = values[: filled[0]].astype(int).tolist()
    wrong = np.flatnonzero(filled[1:] != filled[1:2])
    if wrong.size:
        row = 1 + int(wrong[0])
        raise InputError(
            f"{path} line {line_of_row(counts, row)}: has {filled[row]} numbers, expected "
            f"{filled[1]} as on the lines before."
        )
    if header[0] != len(filled) - 1:
        raise InputError(
            f"{path} line {line_of_row(counts, 0)}: the header says {header[0]} {what}s, but the "
            f"file has {len(filled) - 1} (the last on line {np.flatnonzero(counts)[-1] + 1}): "
            "correct the header or complete the file."
        )
    columns = int(filled[1]) if len(filled) > 1 else 1
    rows = values[filled[0] :].reshape(-1, columns)
    if what == "node" and columns < 4 and len(rows):
        raise InputError(f"{path}: its lines have {columns} numbers, expected 'index x y z'.")
    return rows, header, columns
