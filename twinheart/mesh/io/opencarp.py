"""openCARP's text files: `.pts` nodes, `.elem` elements, `.lon` fibres, `.vtx` node lists."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from twinheart.errors import InputError
from twinheart.mesh.io.raw import RawMesh, read_bytes
from twinheart.mesh.io.text import line_of_row, read_table

# code in the file -> (kind, number of nodes); of the kinds without a mesh here only the count
ELEMENTS = {
    b"Tt": ("tetra", 4), b"Tr": ("triangle", 3), b"Ln": ("line", 2), b"Cx": ("line", 2),
    b"Qd": ("quad", 4), b"Py": ("pyramid", 5), b"Oc": ("octahedron", 6), b"Pr": ("wedge", 6),
    b"Hx": ("hexahedron", 8),
}  # fmt: skip
OPENCARP = "openCARP"
SUFFIXES = (".pts", ".elem", ".lon")


def read_opencarp(path: Path) -> RawMesh:
    """Read a mesh in openCARP's format.

    Parameters
    ----------
    path : Path
        One of its files (`.pts`, `.elem` or `.lon`), or their common name without a suffix. A
        missing `.lon` file means: no fibres.

    Returns
    -------
    RawMesh
        Coordinates as in the file (micrometres, by definition of the format); cell fields
        ``region``, ``fibre`` and, with two vectors in the `.lon` file, ``sheet``.

    Raises
    ------
    InputError
        If a file is missing or damaged, or a count disagrees with its header; the message names
        file and line.
    """
    base = path.with_suffix("") if path.suffix in SUFFIXES else path
    points_path, cells_path, fibres_path = (base.with_name(base.name + s) for s in SUFFIXES)
    points = _rows(points_path, 3, "node")
    cells, fields, lines = _elements(cells_path)
    mesh = RawMesh(path, OPENCARP, points, cells, {}, fields)
    mesh.unit, mesh.unit_source = "um", "openCARP files are in micrometres by definition"
    if fibres_path.exists():
        vectors = _fibres(fibres_path, sum(map(len, cells.values())))
        for kind, rows in lines.items():
            fields[kind]["fibre"] = vectors[rows, :3]
            if vectors.shape[1] == 6:
                fields[kind]["sheet"] = vectors[rows, 3:]
    else:
        mesh.notes.append(f"there is no {fibres_path.name}: the mesh has no fibres")
    if any("region" not in f for f in fields.values()):
        mesh.notes.append(f"{cells_path.name} has elements without a region tag")
    return mesh


def read_vtx(path: str | Path) -> tuple[Int[np.ndarray, "entry"], str]:
    """Read a list of nodes in openCARP's `.vtx` format.

    Parameters
    ----------
    path : Path
        The file: a count, ``intra`` or ``extra``, then node indices from 0. The count and the
        word may be absent.

    Returns
    -------
    (entry,) int array, str
        Node indices, and the domain: ``intra``, ``extra`` or '' where it is not said.

    Raises
    ------
    InputError
        If an index is no integer or negative, or their number disagrees with the header.
    """
    path = Path(path)
    lines = read_bytes(path).split(b"\n")
    domain, row = "", None
    for i, line in enumerate(lines[:20]):
        if line.strip() in (b"intra", b"extra"):
            domain, row = line.strip().decode(), i
            break
    head = b" ".join(lines[: row or 0]).split()
    if row is not None:  # blank, so that line numbers stay right
        lines[: row + 1] = [b""] * (row + 1)
    values, counts = read_table(path, b"\n".join(lines), int)
    filled = counts[counts > 0]
    if row is None and len(values) > 1 and filled[0] == 1 and len(values) == values[0] + 1:
        head, values = [b"%d" % values[0]], values[1:]
    if head and (len(head) != 1 or not head[0].isdigit() or int(head[0]) != len(values)):
        raise InputError(
            f"{path} line 1: the header says {head[0][:20].decode('latin-1')} nodes, but "
            f"{len(values)} follow: correct the header or complete the list."
        )
    if np.any(values < 0):
        raise InputError(f"{path}: a node index is negative ({values.min()}).")
    return values, domain


def _rows(path: Path, width: int, what: str) -> Float[np.ndarray, "row column"]:
    """Table with `width` numbers a line, after a header with their count or without one."""
    values, counts = read_table(path, read_bytes(path), float)
    filled = counts[counts > 0]
    header = len(filled) > 0 and filled[0] == 1 and width > 1
    _check_widths(path, counts, int(header), (width,))
    rows = values[int(header) :].reshape(-1, width)
    if header:
        _check_header(path, float(values[0]), len(rows), what, counts)
    return rows


def _check_widths(path: Path, counts: np.ndarray, skip: int, widths: tuple[int, ...]) -> None:
    filled = counts[counts > 0][skip:]
    wrong = np.flatnonzero(~np.isin(filled, widths))
    if wrong.size:
        expected = " or ".join(map(str, widths))
        raise InputError(
            f"{path} line {line_of_row(counts, skip + int(wrong[0]))}: has {filled[wrong[0]]} "
            f"numbers, expected {expected}."
        )


def _check_header(path: Path, stated: float, found: int, what: str, counts: np.ndarray) -> None:
    if stated != found:
        raise InputError(
            f"{path} line {line_of_row(counts, 0)}: the header says {stated:.0f} {what}s, but the "
            f"file has {found} (the last on line {np.flatnonzero(counts)[-1] + 1}): correct the "
            "header or complete the file."
        )


def _elements(
    path: Path,
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Nodes and fields by kind, and the rows of each kind among all elements of the file."""
    data = read_bytes(path)
    codes = list(ELEMENTS)
    for number, code in enumerate(codes):
        # numbers instead of letters: the whole file is then parsed at once
        data = data.replace(code, b" %d" % number)
    values, counts = read_table(path, data, int)
    filled = counts[counts > 0]
    header = int(len(filled) > 0 and filled[0] == 1)
    filled = filled[header:]
    starts = header + np.cumsum(filled) - filled
    kinds = values[starts]
    sizes = np.array([size for _, size in ELEMENTS.values()])
    bad = np.flatnonzero((kinds < 0) | (kinds >= len(codes)))
    if bad.size == 0:
        # element code, nodes, and mostly a tag
        bad = np.flatnonzero((filled != sizes[kinds] + 1) & (filled != sizes[kinds] + 2))
    if bad.size:
        raise InputError(
            f"{path} line {line_of_row(counts, header + int(bad[0]))}: expected an element such as "
            "'Tt n0 n1 n2 n3 tag', with as many nodes as its type has."
        )
    if header:
        _check_header(path, float(values[0]), len(kinds), "element", counts)
    cells: dict[str, np.ndarray] = {}
    fields: dict[str, dict[str, np.ndarray]] = {}
    lines: dict[str, np.ndarray] = {}
    for kind, size in dict.fromkeys(ELEMENTS.values()):
        numbers = [n for n, code in enumerate(codes) if ELEMENTS[code][0] == kind]
        rows = np.flatnonzero(np.isin(kinds, numbers))
        if not rows.size:
            continue
        first = starts[rows]
        cells[kind] = values[first[:, None] + np.arange(1, size + 1)]
        fields[kind], lines[kind] = {}, rows
        if np.all(filled[rows] == size + 2):
            fields[kind]["region"] = values[first + size + 1]
    return cells, fields, lines


def _fibres(path: Path, n_elements: int) -> Float[np.ndarray, "element column"]:
    values, counts = read_table(path, read_bytes(path), float)
    filled = counts[counts > 0]
    header = int(len(filled) > 0 and filled[0] == 1)
    if header and values[0] not in (1, 2):
        raise InputError(
            f"{path} line {line_of_row(counts, 0)}: the header says {values[0]:g} fibre vectors, "
            "expected 1 or 2."
        )
    width = int(filled[header]) if len(filled) > header else 3
    expected = (int(3 * values[0]),) if header else (3, 6)
    _check_widths(path, counts, header, expected)
    _check_widths(path, counts, header, (width,))
    rows = values[header:].reshape(-1, width)
    if len(rows) != n_elements:
        raise InputError(
            f"{path} line {np.flatnonzero(counts)[-1] + 1 if counts.any() else 1}: ends after "
            f"{len(rows)} fibre vectors, but the mesh has {n_elements} elements: one line for "
            "each is needed."
        )
    return rows
