"""Mending a mesh: what is done is said in a sentence, what cannot be done safely is refused."""

from typing import TypeVar

import numpy as np
from jaxtyping import Bool

from twinheart.errors import MeshError
from twinheart.mesh.core import TetMesh, TriMesh
from twinheart.mesh.defects import (
    cells_of,
    check_finite,
    counted,
    flat_cells,
    repeated_cells,
    representatives,
    used_nodes,
)
from twinheart.mesh.quality import components, volumes
from twinheart.mesh.report import MeshReport

Mesh = TypeVar("Mesh", bound=TetMesh | TriMesh)

# share of flat cells above which the mesh is broken rather than blemished
MAX_FLAT_SHARE = 0.01


def repair(
    mesh: Mesh,
    *,
    merge_nodes: bool = True,
    drop_below: float = 0.0,
    report: MeshReport | None = None,
) -> tuple[Mesh, tuple[str, ...]]:
    """Mend what can be mended without guessing, and say what was done.

    In this order: duplicate nodes are merged; flat cells are removed; repeated cells are removed;
    flipped tetrahedra are turned round; small components are dropped on request; orphan nodes are
    removed. All fields follow.

    Parameters
    ----------
    mesh : TetMesh or TriMesh
        Mesh [mm].
    merge_nodes : bool
        Merge nodes at the same place. False keeps tissue apart that was split on purpose.
    drop_below : float
        Drop components with less than this share of all cells; 0 keeps all.
    report : MeshReport, optional
        Report on this very mesh, if at hand: where it found nothing, nothing is looked for again.

    Returns
    -------
    TetMesh or TriMesh, tuple of str
        The mended mesh, and one sentence for each repair.

    Raises
    ------
    MeshError
        If coordinates are not finite, there is no cell, or flat cells are too many or hold the
        mesh together.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh import TetMesh
    >>> from twinheart.mesh.repair import repair
    >>> points = np.vstack([np.zeros(3), np.eye(3), [9.0, 9.0, 9.0]])
    >>> mesh, said = repair(TetMesh(points, np.array([[0, 2, 1, 3]])))
    >>> mesh.n_nodes, said
    (4, ('turned 1 flipped tetrahedron round (all there are)', 'removed 1 orphan node'))
    """
    check_finite(mesh.points)
    if not len(cells_of(mesh)):
        kind = "tetrahedra" if isinstance(mesh, TetMesh) else "triangles"
        raise MeshError(f"the mesh has no {kind}.")
    said: list[str] = []
    if report is None or report.n_defects:
        mesh = _mend_cells(mesh, merge_nodes, said)
    if drop_below > 0:
        mesh = _drop_small(mesh, drop_below, said)
    return _remove_orphans(mesh, said), tuple(said)


def _mend_cells(mesh: Mesh, merge_nodes: bool, said: list[str]) -> Mesh:
    if merge_nodes:
        mesh = _merge(mesh, said)
    mesh = _remove_flat(mesh, said)
    repeated = repeated_cells(cells_of(mesh))
    if repeated.any():
        mesh = _keep_cells(mesh, ~repeated)
        said.append(f"removed {counted(repeated.sum(), 'cell')} with the nodes of another")
    return _turn_round(mesh, said)


def _with_cells(mesh: Mesh, cells: np.ndarray) -> Mesh:
    return type(mesh)(mesh.points, cells, mesh.point_fields, mesh.cell_fields)


def _keep_cells(mesh: Mesh, keep: Bool[np.ndarray, "cell"]) -> Mesh:
    fields = {k: v[keep] for k, v in mesh.cell_fields.items()}
    return type(mesh)(mesh.points, cells_of(mesh)[keep], mesh.point_fields, fields)


def _merge(mesh: Mesh, said: list[str]) -> Mesh:
    first = representatives(mesh)
    moved = np.flatnonzero(first != np.arange(mesh.n_nodes))
    if not moved.size:
        return mesh
    said.append(
        f"merged {counted(moved.size, 'node')} with another at the same place"
        + "".join(
            f"; their '{k}' differed and that of the first was kept"
            for k, v in mesh.point_fields.items()
            if not np.array_equal(v[moved], v[first[moved]], equal_nan=v.dtype.kind == "f")
        )
    )
    cells = first[cells_of(mesh)]
    merged = _with_cells(mesh, cells)
    # the nodes that were merged away are orphans now, but no news to the user
    used = np.ones(mesh.n_nodes, dtype=bool)
    used[moved] = False
    return _keep_nodes(merged, used)


def _remove_flat(mesh: Mesh, said: list[str]) -> Mesh:
    flat = flat_cells(mesh)
    count = int(np.count_nonzero(flat))
    if not count:
        return mesh
    if isinstance(mesh, TetMesh):
        what = counted(count, "tetrahedron without volume", "tetrahedra without volume")
    else:
        what = counted(count, "triangle without area", "triangles without area")
    if count > max(1, MAX_FLAT_SHARE * len(flat)) or count == len(flat):
        raise MeshError(
            f"there are {what} among {len(flat)} (the first is cell {np.flatnonzero(flat)[0]}), "
            f"more than {100 * MAX_FLAT_SHARE:g} %: the mesh is broken; generate it again."
        )
    kept = _keep_cells(mesh, ~flat)
    before, after = (components(c, mesh.n_nodes)[c].max() for c in (cells_of(mesh), cells_of(kept)))
    if after > before:
        raise MeshError(
            f"removing {what} (the first is cell {np.flatnonzero(flat)[0]}) would tear the mesh "
            f"into {after + 1} components; generate it again."
        )
    said.append(f"removed {what}")
    return kept


def _turn_round(mesh: Mesh, said: list[str]) -> Mesh:
    if not isinstance(mesh, TetMesh):
        return mesh
    flipped = volumes(mesh.points, mesh.tets) < 0
    if not flipped.any():
        return mesh
    tets = mesh.tets.copy()
    tets[flipped, 2], tets[flipped, 3] = mesh.tets[flipped, 3], mesh.tets[flipped, 2]
    what = counted(flipped.sum(), "flipped tetrahedron", "flipped tetrahedra")
    said.append(f"turned {what} round{' (all there are)' if flipped.all() else ''}")
    return _with_cells(mesh, tets)


def _drop_small(mesh: Mesh, share: float, said: list[str]) -> Mesh:
    cells = cells_of(mesh)
    labels = components(cells, mesh.n_nodes)[cells[:, 0]]
    small = np.bincount(labels) < share * len(cells)
    small[0] = False
    if not small.any():
        return mesh
    dropped = small[labels]
    said.append(
        f"dropped {counted(small.sum(), 'component')} of less than {100 * share:g} % of all cells "
        f"each, with {counted(dropped.sum(), 'cell')}"
    )
    return _keep_cells(mesh, ~dropped)


def _remove_orphans(mesh: Mesh, said: list[str]) -> Mesh:
    used = used_nodes(mesh)
    if used.all():
        return mesh
    said.append(f"removed {counted((~used).sum(), 'orphan node')}")
    return _keep_nodes(mesh, used)


def _keep_nodes(mesh: Mesh, keep: Bool[np.ndarray, "node"]) -> Mesh:
    new = np.cumsum(keep) - 1
    fields = {k: v[keep] for k, v in mesh.point_fields.items()}
    return type(mesh)(mesh.points[keep], new[cells_of(mesh)], fields, mesh.cell_fields)
