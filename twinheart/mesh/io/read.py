"""Reading a mesh file: the format from its name, the unit from its size, defects mended."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from twinheart.errors import InputError, UnitError
from twinheart.mesh.core import TetMesh, TriMesh
from twinheart.mesh.defects import check_finite
from twinheart.mesh.fields import tags_as_integers
from twinheart.mesh.io.gmsh import read_msh
from twinheart.mesh.io.opencarp import OPENCARP, read_opencarp
from twinheart.mesh.io.ply import read_ply
from twinheart.mesh.io.raw import RawMesh
from twinheart.mesh.io.simplices import counted_from_zero, tetrahedra, triangles
from twinheart.mesh.io.surfaces import read_obj, read_stl
from twinheart.mesh.io.tetgen import read_tetgen
from twinheart.mesh.io.vtkhdf import read_vtkhdf
from twinheart.mesh.io.vtklegacy import read_vtk_legacy
from twinheart.mesh.io.vtkxml import read_vtk_xml
from twinheart.mesh.io.xdmf import read_xdmf
from twinheart.mesh.repair import repair
from twinheart.mesh.report import MeshReport, examine
from twinheart.mesh.scale import check_micrometres, recognise_unit, unit_named
from twinheart.units import length_factor

READERS: dict[str, Callable[[Path], RawMesh]] = {
    ".vtu": read_vtk_xml,
    ".vtp": read_vtk_xml,
    ".vtk": read_vtk_legacy,
    ".vtkhdf": read_vtkhdf,
    ".msh": read_msh,
    ".xdmf": read_xdmf,
    ".stl": read_stl,
    ".ply": read_ply,
    ".obj": read_obj,
    ".pts": read_opencarp,
    ".elem": read_opencarp,
    ".lon": read_opencarp,
    ".node": read_tetgen,
    ".ele": read_tetgen,
}


def read_mesh(
    path: str | Path,
    *,
    length_unit: str | None = None,
    index_base: int | None = None,
    merge_nodes: bool = True,
    drop_below: float = 0.0,
) -> tuple[TetMesh | TriMesh, MeshReport]:
    """Read a mesh, turn it into millimetres and mend it.

    Parameters
    ----------
    path : path
        VTU, VTP, VTK (legacy), VTKHDF, MSH, XDMF, STL, PLY, OBJ, openCARP (`.pts`, `.elem`, `.lon`
        or their common name) or TetGen/Chaste (`.node`, `.ele`).
    length_unit : {"um", "mm", "cm", "m"}, optional
        Unit of the coordinates; by default what the file states, else what the size shows.
    index_base : {0, 1}, optional
        Index of the first node, where the file does not make it clear.
    merge_nodes : bool
        Merge nodes at the same place.
    drop_below : float
        Drop components with less than this share of all cells; 0 keeps all.

    Returns
    -------
    mesh : TetMesh or TriMesh
        Tetrahedra, or the triangles of a file without volumes; all fields by name, region tags as
        integers.
    report : MeshReport
        The mesh as found, and what was done about it: `report.sentences()` is for the user.

    Raises
    ------
    InputError
        If the file is missing, truncated, damaged or of an unknown kind.
    MeshError
        If the mesh cannot be mended safely.
    UnitError
        If the length unit is unknown or cannot be told.

    Examples
    --------
    >>> import tempfile
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.mesh.io import read_mesh, write_mesh
    >>> path = tempfile.mkdtemp() + "/slab.vtu"
    >>> write_mesh(path, slab((2.0, 1.0, 1.0), 0.5))
    >>> mesh, report = read_mesh(path)
    >>> mesh.n_tets, report.length_unit
    (96, 'mm')
    """
    found, report = inspect_mesh(path, length_unit=length_unit, index_base=index_base)
    mended, repairs = repair(found, merge_nodes=merge_nodes, drop_below=drop_below, report=report)
    return mended, report.with_sentences((), repairs)


def inspect_mesh(
    path: str | Path, *, length_unit: str | None = None, index_base: int | None = None
) -> tuple[TetMesh | TriMesh, MeshReport]:
    """Read a mesh as it is, in millimetres, and report on it without mending anything.

    Parameters
    ----------
    path : path
        As for `read_mesh`.
    length_unit, index_base : optional
        As for `read_mesh`.

    Returns
    -------
    mesh : TetMesh or TriMesh
        The mesh with all its defects.
    report : MeshReport
        Counts, sizes and defects.

    Raises
    ------
    InputError, MeshError, UnitError
        If it cannot be read at all, has coordinates that are not finite, or no recognisable unit.

    Examples
    --------
    >>> from twinheart.mesh.io import inspect_mesh
    >>> inspect_mesh("heart.docx")
    Traceback (most recent call last):
    twinheart.errors.InputError: heart.docx: no mesh format has the suffix '.docx'; known are ...
    """
    raw = read_raw(path)
    name = str(path)
    check_finite(raw.points, name)
    solid = tetrahedra(raw)
    kind = TriMesh if solid is None else TetMesh
    cells, cell_fields = triangles(raw) if solid is None else solid
    cells = counted_from_zero(raw, cells, index_base)
    unit, source = _unit(raw, cells, length_unit)
    mesh = kind(
        np.asarray(raw.points, dtype=float) * length_factor(unit),
        cells,
        _numeric(raw, raw.point_fields),
        tags_as_integers(_numeric(raw, cell_fields)),
    )
    report = examine(
        mesh,
        file=name,
        format=raw.format,
        length_unit=unit,
        length_unit_source=source,
        notes=tuple(raw.notes),
    )
    return mesh, report


def read_raw(path: str | Path) -> RawMesh:
    """Content of a mesh file as it is.

    Parameters
    ----------
    path : path
        As for `read_mesh`.

    Returns
    -------
    RawMesh
        Points, cells and fields, in the unit of the file.

    Raises
    ------
    InputError
        If the file is missing, truncated, damaged or of an unknown kind.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None and path.with_name(path.name + ".elem").exists():
        reader = read_opencarp
    if reader is None:
        raise InputError(
            f"{path}: no mesh format has the suffix '{path.suffix}'; known are "
            f"{', '.join(READERS)}."
        )
    try:
        with np.errstate(all="ignore"):  # numbers without sense are refused later, in words
            return reader(path)
    except MemoryError:
        raise InputError(f"{path}: claims more data than fit into memory: damaged?") from None


def _unit(raw: RawMesh, cells: np.ndarray, given: str | None) -> tuple[str, str]:
    if given is not None:
        unit = unit_named(given)
        if raw.unit and unit != unit_named(raw.unit):
            raw.notes.append(f"{raw.unit_source} says '{raw.unit}', but '{unit}' was asked for")
        return unit, "as asked for"
    try:
        if raw.format == OPENCARP:
            check_micrometres(raw.points, cells)
        if raw.unit:
            return unit_named(raw.unit), raw.unit_source
        return recognise_unit(raw.points, cells)
    except UnitError as error:
        raise UnitError(f"{raw.path}: {error}") from None


def _numeric(raw: RawMesh, fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Fields of numbers in the byte order of the machine; a column alone becomes a vector."""
    out = {}
    for name, values in fields.items():
        if values.dtype.kind not in "biuf":
            raw.notes.append(f"field '{name}' holds no numbers and was left out")
            continue
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        out[name] = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    return out
