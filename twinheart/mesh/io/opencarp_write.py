"""Writer of openCARP's text files."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from twinheart.errors import OutputError
from twinheart.mesh.core import TetMesh
from twinheart.mesh.directions import cell_directions
from twinheart.mesh.fields import FIBRE_NAMES, SHEET_NAMES, find_regions
from twinheart.mesh.io.atomic import written_whole

_ROWS = 1 << 18  # formatted at a time


def write_opencarp(path: str | Path, mesh: TetMesh) -> None:
    """Write `.pts` and `.elem`, and `.lon` where the mesh has fibres; all of them or none.

    Parameters
    ----------
    path : path
        Any of the three files, or their common name.
    mesh : TetMesh
        Mesh [mm], written in micrometres. Region tags (0 where there are none), fibres and sheets
        are taken from its fields.

    Raises
    ------
    OutputError
        If the files cannot be written, or a `.lon` file would stay that is not of this mesh.
    """
    path = Path(path)
    base = path.with_suffix("") if path.suffix in (".pts", ".elem", ".lon") else path
    pts, elem, lon = (base.with_name(base.name + s) for s in (".pts", ".elem", ".lon"))
    fibres = cell_directions(mesh, FIBRE_NAMES)
    sheets = cell_directions(mesh, SHEET_NAMES)
    if fibres is None and lon.exists():
        raise OutputError(
            f"cannot write {elem}: the mesh has no fibres, but {lon.name} lies beside it from "
            "another one: remove it or take another name."
        )
    tags = find_regions(mesh)
    regions = np.zeros(mesh.n_tets, dtype=int) if tags is None else mesh.cell_fields[tags]
    with ExitStack() as stack:
        _write_rows(stack, pts, f"{mesh.n_nodes}\n", [(mesh.points * 1000, 6)], b"")
        _write_rows(stack, elem, f"{mesh.n_tets}\n", [(mesh.tets, 0), (regions[:, None], 0)], b"Tt")
        if fibres is not None:
            columns = [(fibres[0], 9)] + ([] if sheets is None else [(sheets[0], 9)])
            _write_rows(stack, lon, f"{len(columns)}\n", columns, b"")


def write_vtx(path: str | Path, nodes: ArrayLike, domain: str = "intra") -> None:
    """Write a list of nodes in openCARP's `.vtx` format.

    Parameters
    ----------
    path : path
        File to write.
    nodes : (entry,) int array
        Node indices, from 0.
    domain : {"intra", "extra"}
        Domain that the list is meant for.

    Raises
    ------
    OutputError
        If it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from twinheart.mesh.io import read_vtx, write_vtx
    >>> path = tempfile.mkdtemp() + "/apex.vtx"
    >>> write_vtx(path, [4, 5])
    >>> read_vtx(path)
    (array([4, 5]), 'intra')
    """
    nodes = np.asarray(nodes, dtype=np.int64)
    lines = "\n".join(map(str, nodes.tolist()))
    with written_whole(path) as temporary:
        temporary.write_text(f"{len(nodes)}\n{domain}\n{lines}\n")


def fixed_point(values: np.ndarray, decimals: int) -> np.ndarray:
    """Numbers as text with a fixed number of decimals, a row of bytes for each row of numbers.

    Python needs a microsecond for each number; a heart has tens of millions.

    Parameters
    ----------
    values : (row, column) array
        Numbers whose digits, decimals included, fit into 63 bits.
    decimals : int
        Digits behind the point; 0: integers, without a point.

    Returns
    -------
    (row, character) uint8 array
        Right-justified columns, a space before each.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.io.opencarp_write import fixed_point
    >>> fixed_point(np.array([[-0.5, 12.25]]), 2).tobytes()
    b' -0.50 12.25'
    """
    scaled = np.rint(np.asarray(values, dtype=float) * 10.0**decimals).astype(np.int64)
    negative = scaled < 0
    rest = np.abs(scaled)
    digits = max(len(str(int(rest.max(initial=0)))), decimals + 1)
    width = digits + (decimals > 0) + 2  # a sign and a space before
    text = np.full((*scaled.shape, width), ord(" "), dtype=np.uint8)
    column = width - 1
    for place in range(digits):
        if place == decimals and decimals:
            text[..., column] = ord(".")
            column -= 1
        # leading zeros stay blank, but the digit before the point is always written
        shown = (rest > 0) | (place <= decimals)
        rest, digit = np.divmod(rest, 10)
        text[..., column] = np.where(shown, digit + ord("0"), text[..., column])
        sign = negative & shown & (rest == 0) & (place >= decimals)
        text[..., column - 1] = np.where(sign, ord("-"), text[..., column - 1])
        column -= 1
    rows = text.reshape(len(scaled), -1)
    return rows[:, (rows != ord(" ")).any(axis=0) | _separator(scaled.shape, width)]


def _separator(shape: tuple[int, ...], width: int) -> np.ndarray:
    keep = np.zeros(shape[1] * width, dtype=bool)
    keep[::width] = True
    return keep


def _write_rows(
    stack: ExitStack,
    path: Path,
    header: str,
    columns: list[tuple[np.ndarray, int]],
    prefix: bytes,
) -> None:
    temporary = stack.enter_context(written_whole(path))
    n_rows = len(columns[0][0])
    with open(temporary, "wb") as file:
        file.write(header.encode())
        for start in range(0, n_rows, _ROWS):
            parts = [fixed_point(v[start : start + _ROWS], d) for v, d in columns]
            n = len(parts[0])
            head = np.broadcast_to(np.frombuffer(prefix, np.uint8), (n, len(prefix)))
            end = np.full((n, 1), ord("\n"), dtype=np.uint8)
            file.write(np.concatenate([head, *parts, end], axis=1).tobytes())
