"""From the cells of a file to tetrahedra, or to triangles where there are no volumes."""

import numpy as np

from twinheart.errors import MeshError
from twinheart.mesh.defects import better_lowered_by_one, counted
from twinheart.mesh.io.raw import RawMesh

_SURFACE = {"triangle", "triangle6", "quad", "quad8", "quad9", "pixel", "triangle7"}
_NO_BODY = {"vertex", "poly_vertex", "line", "poly_line", "line3", "vertex1"}
# corners that make triangles of a face with four
_QUAD_SPLIT = {"quad": ((0, 1, 2), (0, 2, 3)), "pixel": ((0, 1, 3), (0, 3, 2))}
_QUAD_SPLIT |= {"quad8": _QUAD_SPLIT["quad"], "quad9": _QUAD_SPLIT["quad"]}

Cells = tuple[np.ndarray, dict[str, np.ndarray]]


def tetrahedra(raw: RawMesh) -> Cells | None:
    """Tetrahedra of a file with their fields; None where it has no volumes.

    Second-order tetrahedra lose the nodes on their edges; cells of lower dimension are left out.
    Both are noted in `raw.notes`.

    Raises
    ------
    MeshError
        If there are hexahedra, wedges or other volumes: to leave them out would tear the heart.
    """
    volumes = [k for k in raw.cells if k not in _SURFACE | _NO_BODY and len(raw.cells[k])]
    other = [k for k in volumes if k not in ("tetra", "tetra10")]
    if other:
        found = ", ".join(f"{len(raw.cells[k])} of kind '{k}'" for k in other)
        raise MeshError(
            f"{raw.path}: has cells that are no tetrahedra ({found}): split them into tetrahedra "
            "before, all in the same way."
        )
    if not volumes:
        return None
    left_out = [
        f"{len(raw.cells[k])} of kind '{k}'"
        for k in raw.cells
        if k not in volumes and len(raw.cells[k])
    ]
    if left_out:
        raw.notes.append(f"cells other than tetrahedra were left out: {', '.join(left_out)}")
    if "tetra10" in volumes:
        number = counted(len(raw.cells["tetra10"]), "second-order tetrahedron",
                         "second-order tetrahedra")  # fmt: skip
        raw.notes.append(f"{number} made linear: nodes on the edges are left out")
    return _joined(raw, volumes, lambda kind: ((0, 1, 2, 3),))


def triangles(raw: RawMesh) -> Cells:
    """Triangles of a surface with their fields; faces with four corners are split.

    Raises
    ------
    MeshError
        If there are none.
    """
    kinds = [k for k in raw.cells if k in _SURFACE and len(raw.cells[k])]
    if not kinds:
        found = ", ".join(f"{len(c)} of kind '{k}'" for k, c in raw.cells.items() if len(c))
        raise MeshError(
            f"{raw.path}: holds neither tetrahedra nor triangles (cells: {found or 'none'})."
        )
    for kind in kinds:
        if kind in _QUAD_SPLIT:
            raw.notes.append(f"{counted(len(raw.cells[kind]), 'face')} of kind '{kind}' split")
    return _joined(raw, kinds, lambda kind: _QUAD_SPLIT.get(kind, ((0, 1, 2),)))


def _joined(raw: RawMesh, kinds: list[str], splits) -> Cells:
    """Cells of several kinds as one array; fields that not all kinds have are left out."""
    cells, fields = [], []
    for kind in kinds:
        split = splits(kind)
        parts = raw.cells[kind][:, np.array(split)]
        cells.append(parts.reshape(-1, parts.shape[-1]))
        of_kind = raw.cell_fields.get(kind, {})
        fields.append({k: np.repeat(v, len(split), axis=0) for k, v in of_kind.items()})
    common = [k for k in fields[0] if all(k in f for f in fields)]
    return np.concatenate(cells), {k: np.concatenate([f[k] for f in fields]) for k in common}


def counted_from_zero(raw: RawMesh, cells: np.ndarray, index_base: int | None) -> np.ndarray:
    """Node indices of the cells, counted from 0.

    Parameters
    ----------
    raw : RawMesh
        For its number of nodes and its notes.
    cells : (cell, corner) int array
        Indices as in the file.
    index_base : int or None
        Index of the first node, 0 or 1, as the user says; None: as the file says, else 1 where
        all indices lie between 1 and the number of nodes and one equals it, else 0.

    Raises
    ------
    MeshError
        If an index points outside, or it is likely but not certain that they count from 1.
    """
    n_nodes = len(raw.points)
    low, high = int(cells.min()), int(cells.max())
    base = raw.index_base if index_base is None else index_base
    if base not in (None, 0, 1):
        raise MeshError(f"{raw.path}: index_base is {base}, expected 0 or 1.")
    if base is None:
        base = 1 if low >= 1 and high == n_nodes else 0
        if base:
            raw.notes.append(f"node indices run from {low} to {high}: counted from 1, not from 0")
        elif low >= 1 and high < n_nodes and better_lowered_by_one(raw.points, cells):
            raise MeshError(
                f"{raw.path}: node 0 is in no cell, and cells would fit together much better if "
                "indices counted from 1: say it with index_base=1 (or 0 if they are right)."
            )
    if low < base or high >= n_nodes + base:
        bad = int(np.flatnonzero(((cells < base) | (cells >= n_nodes + base)).any(axis=1))[0])
        wrong = low if low < base else high
        raise MeshError(
            f"{raw.path}: cell {bad} points at node {wrong}, but the nodes are {base} to "
            f"{n_nodes - 1 + base}: the file is damaged, or give index_base={1 - base}."
        )
    return cells - base
