"""From a mesh file to a heart: fibres, sheets and region tags are found in its fields."""

import logging
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import KDTree

from twinheart.anatomy.heart import Heart
from twinheart.errors import MeshError
from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.directions import cell_directions, unit_vectors
from twinheart.mesh.fields import FIBRE_NAMES, REGION_NAMES, SHEET_NAMES, canonical, find_regions
from twinheart.mesh.io import read_mesh
from twinheart.mesh.refine import refine_to
from twinheart.mesh.report import MeshReport

_LOG = logging.getLogger(__name__)

# share of tetrahedra without a direction that may be filled from their neighbours
MAX_FILLED = 0.05
# a sheet less than this far from its fibre [sine] says nothing about the sheet
_PARALLEL = 0.1


def load_heart(
    path: str | Path,
    *,
    length_unit: str | None = None,
    index_base: int | None = None,
    max_edge: float | None = None,
) -> Heart:
    """Read a heart; what was assumed and mended goes to the log ``twinheart.anatomy.load``.

    Parameters
    ----------
    path : path
        Any mesh file that `twinheart.mesh.io.read_mesh` knows, with tetrahedra.
    length_unit : {"um", "mm", "cm", "m"}, optional
        Unit of the coordinates; by default what the file states, else what the size shows.
    index_base : {0, 1}, optional
        Index of the first node, where the file does not make it clear.
    max_edge : float, optional
        Refine uniformly until the mean edge is at most this [mm]. Fibres at points are refined
        before they are averaged over tetrahedra, which keeps their rotation across the wall.

    Returns
    -------
    Heart
        Mesh [mm]; `f0` and `s0` where the file has them; region tags, 0 where it has none.

    Raises
    ------
    InputError
        If the file is missing, truncated, damaged or of an unknown kind.
    MeshError
        If it is a surface, or cannot be mended safely.
    UnitError
        If the length unit cannot be told.

    Examples
    --------
    >>> import tempfile
    >>> from twinheart.anatomy import load_heart
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.mesh.io import write_mesh
    >>> path = tempfile.mkdtemp() + "/slab.vtu"
    >>> write_mesh(path, slab((2.0, 1.0, 1.0), 0.5))
    >>> load_heart(path).mesh.n_tets
    96
    """
    heart, report = read_heart(
        path, length_unit=length_unit, index_base=index_base, max_edge=max_edge
    )
    for sentence in report.sentences():
        _LOG.info("%s: %s", path, sentence)
    # what was guessed or changed is said aloud even where nobody has set up logging
    if report.length_unit_source.startswith("recognised"):
        _LOG.warning("%s: taken as %s (%s)", path, report.length_unit, report.length_unit_source)
    for sentence in report.repairs:
        _LOG.warning("%s: %s", path, sentence)
    return heart


def read_heart(
    path: str | Path,
    *,
    length_unit: str | None = None,
    index_base: int | None = None,
    max_edge: float | None = None,
) -> tuple[Heart, MeshReport]:
    """Read a heart and the report on its mesh.

    Parameters
    ----------
    path, length_unit, index_base, max_edge
        As for `load_heart`.

    Returns
    -------
    Heart, MeshReport
        The heart; the mesh as found, and what was done about it.

    Raises
    ------
    InputError, MeshError, UnitError
        As for `load_heart`.

    Examples
    --------
    >>> import tempfile
    >>> from twinheart.anatomy import read_heart
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.mesh.io import write_mesh
    >>> path = tempfile.mkdtemp() + "/slab.vtu"
    >>> write_mesh(path, slab((2.0, 1.0, 1.0), 0.5))
    >>> heart, report = read_heart(path, max_edge=0.4)
    >>> report.repairs
    ('refined 96 tetrahedra to 768',)
    """
    mesh, report = read_mesh(path, length_unit=length_unit, index_base=index_base)
    if isinstance(mesh, TriMesh):
        raise MeshError(
            f"{path}: is a surface of {mesh.n_triangles} triangles, expected a volume mesh of "
            "tetrahedra: fill it with tetrahedra first."
        )
    repairs: tuple[str, ...] = ()
    if max_edge is not None:
        fine = refine_to(mesh, max_edge)
        if fine is not mesh:
            repairs = (f"refined {mesh.n_tets} tetrahedra to {fine.n_tets}",)
        mesh = fine
    heart, notes, filled = _heart(mesh)
    return heart, report.with_sentences(notes, repairs + filled)


def heart_from_mesh(mesh: TetMesh) -> tuple[Heart, tuple[str, ...]]:
    """Heart of a mesh whose fields carry fibres, sheets and tags under their usual names.

    Parameters
    ----------
    mesh : TetMesh
        Positively oriented tetrahedra without defects, as `read_mesh` returns them.

    Returns
    -------
    Heart, tuple of str
        The heart, and sentences on what was found and filled.

    Raises
    ------
    MeshError
        If more than a few tetrahedra have no fibre direction while others do.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy import heart_from_mesh
    >>> from twinheart.mesh import TetMesh
    >>> from twinheart.mesh.generate import slab
    >>> mesh = slab((2.0, 1.0, 1.0), 0.5)
    >>> fields = {"Fiber": np.tile([0.0, 2.0, 0.0], (mesh.n_tets, 1))}
    >>> heart, said = heart_from_mesh(TetMesh(mesh.points, mesh.tets, {}, fields))
    >>> heart.f0[0], said[0]
    (array([0., 1., 0.]), "fibres from cell field 'Fiber'")
    """
    heart, notes, filled = _heart(mesh)
    return heart, notes + filled


def mesh_of_heart(heart: Heart) -> TetMesh:
    """Mesh of a heart with ``fibre``, ``sheet`` and ``region`` as cell fields, to be written.

    Fields that `load_heart` would take for one of these instead are replaced.

    Examples
    --------
    >>> from twinheart.anatomy import Heart, mesh_of_heart
    >>> from twinheart.mesh.generate import slab
    >>> sorted(mesh_of_heart(Heart(slab((2.0, 1.0, 1.0), 0.5))).cell_fields)
    ['region']
    """
    mesh = heart.mesh
    taken = {*FIBRE_NAMES, *SHEET_NAMES, *REGION_NAMES}
    fields = {k: v for k, v in mesh.cell_fields.items() if canonical(k) not in taken}
    own = {"fibre": heart.f0, "sheet": heart.s0, "region": heart.regions}
    fields |= {k: v for k, v in own.items() if v is not None}
    return TetMesh(mesh.points, mesh.tets, mesh.point_fields, fields)


def _heart(mesh: TetMesh) -> tuple[Heart, tuple[str, ...], tuple[str, ...]]:
    notes, filled = [], []
    f0 = _fibres(mesh, notes, filled)
    s0 = None if f0 is None else _sheets(mesh, f0, notes, filled)
    tags = find_regions(mesh)
    if tags is None:
        notes.append("no region tags found: all tetrahedra get tag 0")
    else:
        notes.append(f"region tags from cell field '{tags}'")
    regions = None if tags is None else mesh.cell_fields[tags]
    return Heart(mesh, f0=f0, s0=s0, regions=regions), tuple(notes), tuple(filled)


def _fibres(mesh: TetMesh, notes: list[str], filled: list[str]) -> np.ndarray | None:
    found = cell_directions(mesh, FIBRE_NAMES)
    if found is None:
        notes.append("no fibres found")
        return None
    f0, missing, place = found
    if missing.all():
        notes.append(f"{place} is zero everywhere: no fibres")
        return None
    notes.append(f"fibres from {place}")
    return _filled(mesh, f0, missing, "fibre", filled)


def _sheets(
    mesh: TetMesh, f0: np.ndarray, notes: list[str], filled: list[str]
) -> np.ndarray | None:
    """Sheets made orthogonal to the fibres, as conductivity needs them."""
    found = cell_directions(mesh, SHEET_NAMES)
    if found is None:
        return None
    s0, missing, place = found
    along = np.einsum("ci,ci->c", s0, f0)[:, None]
    orthogonal = s0 - along * f0
    missing |= np.linalg.norm(orthogonal, axis=1) < _PARALLEL
    if missing.all():
        notes.append(f"{place} is zero or parallel to the fibres everywhere: no sheets")
        return None
    notes.append(f"sheets from {place}, made orthogonal to the fibres")
    s0, _ = unit_vectors(np.where(missing[:, None], 0.0, orthogonal))
    s0 = _filled(mesh, s0, missing, "sheet", filled)
    if missing.any():  # a neighbour's sheet need not be orthogonal here
        s0, parallel = unit_vectors(s0 - np.einsum("ci,ci->c", s0, f0)[:, None] * f0)
        s0[parallel] = _any_orthogonal(f0[parallel])
    return s0


def _any_orthogonal(f0: np.ndarray) -> np.ndarray:
    axis = np.eye(3)[np.argmin(np.abs(f0), axis=1)]
    return unit_vectors(np.cross(f0, axis))[0]


def _filled(
    mesh: TetMesh,
    directions: Float[np.ndarray, "tet 3"],
    missing: Bool[np.ndarray, "tet"],
    what: str,
    said: list[str],
) -> Float[np.ndarray, "tet 3"]:
    """Directions with gaps filled from the nearest tetrahedron that has one."""
    count = int(np.count_nonzero(missing))
    if not count:
        return directions
    if count > MAX_FILLED * len(missing):
        raise MeshError(
            f"{count} of {len(missing)} tetrahedra have no {what} direction (zero vectors; first: "
            f"tetrahedron {np.flatnonzero(missing)[0]}): if they are no myocardium, remove them, "
            "else generate the field again."
        )
    centres = mesh.points[mesh.tets].mean(axis=1)
    _, nearest = KDTree(centres[~missing]).query(centres[missing])
    directions = directions.copy()
    directions[missing] = directions[~missing][nearest]
    said.append(f"filled {count} zero {what} vectors from the nearest tetrahedron that has one")
    return directions
