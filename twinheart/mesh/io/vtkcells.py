"""VTK's cells: numbered types with offsets into one list of nodes, sorted into kinds."""

from pathlib import Path

import numpy as np

from twinheart.errors import InputError

POLYGON = 7
STRIP = 6
# number -> (kind, nodes); None: any number of nodes
VTK_KINDS: dict[int, tuple[str, int | None]] = {
    1: ("vertex", 1),
    2: ("poly_vertex", None),
    3: ("line", 2),
    4: ("poly_line", None),
    5: ("triangle", 3),
    STRIP: ("strip", None),
    POLYGON: ("polygon", None),
    8: ("pixel", 4),
    9: ("quad", 4),
    10: ("tetra", 4),
    11: ("voxel", 8),
    12: ("hexahedron", 8),
    13: ("wedge", 6),
    14: ("pyramid", 5),
    21: ("line3", 3),
    22: ("triangle6", 6),
    23: ("quad8", 8),
    24: ("tetra10", 10),
}

CellBlocks = dict[str, np.ndarray]
CellFields = dict[str, dict[str, np.ndarray]]


def sort_cells(
    path: Path,
    types: np.ndarray,
    offsets: np.ndarray,
    connectivity: np.ndarray,
    fields: dict[str, np.ndarray],
) -> tuple[CellBlocks, CellFields]:
    """Cells and their fields by kind.

    Parameters
    ----------
    path : Path
        File, for messages.
    types : (cell,) int array
        VTK cell types.
    offsets : (cell + 1,) int array
        Where the nodes of each cell begin in `connectivity`, and where the last ends.
    connectivity : (entry,) int array
        Node indices.
    fields : dict of (cell, ...) arrays
        Named fields.

    Returns
    -------
    dict, dict
        Node indices by kind, triangulated where the number of nodes varies; fields by kind and
        name.

    Raises
    ------
    InputError
        If offsets, types and connectivity contradict each other.
    """
    _check(path, types, offsets, connectivity)
    cells: CellBlocks = {}
    by_kind: CellFields = {}
    for number in np.unique(types):
        rows = np.flatnonzero(types == number)
        sizes = offsets[rows + 1] - offsets[rows]
        name, size = VTK_KINDS.get(int(number), (f"VTK type {number}", None))
        if size is not None and np.any(sizes != size):
            wrong = rows[np.flatnonzero(sizes != size)[0]]
            raise InputError(
                f"{path}: cell {wrong} is a {name} with {offsets[wrong + 1] - offsets[wrong]} "
                f"nodes, expected {size}: the file is damaged."
            )
        starts = offsets[rows]
        if number in (POLYGON, STRIP):
            strip = bool(number == STRIP)
            cells_of, parents = _fans_and_strips(starts, sizes, connectivity, strip)
            name, rows = "triangle", rows[parents]
        elif size is not None:
            cells_of = connectivity[starts[:, None] + np.arange(size)]
        else:  # only counted: such cells are left out or refused later
            cells_of = np.zeros((len(rows), 0), dtype=np.int64)
        fields_of = {k: v[rows] for k, v in fields.items()}
        if name in cells:
            cells_of = np.concatenate([cells[name], cells_of])
            fields_of = {k: np.concatenate([by_kind[name][k], v]) for k, v in fields_of.items()}
        cells[name], by_kind[name] = cells_of, fields_of
    return cells, by_kind


def _check(path: Path, types: np.ndarray, offsets: np.ndarray, connectivity: np.ndarray) -> None:
    if len(offsets) != len(types) + 1:
        raise InputError(
            f"{path}: {len(types)} cell types but {len(offsets) - 1} cells: the file is damaged."
        )
    if offsets[0] != 0 or np.any(np.diff(offsets) < 0) or offsets[-1] > len(connectivity):
        raise InputError(
            f"{path}: the offsets of the cells do not rise from 0 to the {len(connectivity)} "
            "entries of the connectivity: the file is damaged."
        )


def _fans_and_strips(
    starts: np.ndarray, sizes: np.ndarray, connectivity: np.ndarray, strip: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Triangles of polygons (as fans) or strips, and the row each comes from."""
    counts = np.maximum(sizes - 2, 0)
    parents = np.repeat(np.arange(len(sizes)), counts)
    step = np.arange(len(parents)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = starts[parents]
    if not strip:
        corners = (first, first + step + 1, first + step + 2)
    else:  # every second triangle of a strip runs the other way round
        odd = step % 2
        corners = (first + step, first + step + 1 + odd, first + step + 2 - odd)
    return np.stack([connectivity[c] for c in corners], axis=1), parents
