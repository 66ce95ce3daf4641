"""Maps as VTK files (VTP, VTU, legacy VTK): points or a surface with named arrays."""

from pathlib import Path

import numpy as np

from twinheart.calibration.mapping_io.contents import MAX_BYTES, Contents
from twinheart.calibration.mapping_io.named import columns_of, length_unit_of, numbers_named
from twinheart.errors import InputError, MeshError
from twinheart.mesh.io.read import READERS, read_raw
from twinheart.mesh.io.simplices import counted_from_zero, tetrahedra, triangles
from twinheart.mesh.quality import boundary_triangles, renumbered
from twinheart.units import length_factor

_SURFACES = ("triangle", "triangle6", "quad", "pixel")


def read_vtk_map(
    path: Path, *, length_unit: str | None = None, times_needed: bool = True
) -> Contents:
    """Read points, or the vertices of a surface, with times in named arrays.

    Parameters
    ----------
    path : Path
        Any file that `twinheart.mesh.io` reads. Of tetrahedra the surface is taken.
    length_unit : {"um", "mm", "cm", "m"}, optional
        Unit of the coordinates; by default what the file states, else what the size shows.
    times_needed : bool
        Refuse a file without times; a shell needs none.

    Returns
    -------
    Contents
        Vertices [mm] with the arrays known by name, see `columns_of`, and triangles if any.

    Raises
    ------
    InputError
        If it cannot be read, or no array holds times.
    UnitError
        If the unit of length cannot be told.
    """
    if path.is_file() and path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: is larger than {MAX_BYTES / 1e6:g} MB, which no map needs.")
    if path.suffix.lower() not in READERS:
        raise InputError(f"{path}: is no map that is known here; known are {', '.join(READERS)}.")
    raw = read_raw(path)
    points = np.asarray(raw.points, dtype=np.float64)
    if not len(points):
        raise InputError(f"{path}: holds no points.")
    fields = {name: values for name, values in raw.point_fields.items() if values.ndim == 1}
    keep, faces = np.arange(len(points)), None
    try:
        solid = tetrahedra(raw)
        if solid is not None:
            cells = boundary_triangles(counted_from_zero(raw, solid[0], None))
            keep, faces = renumbered(cells, len(points))
            raw.notes.append("of the tetrahedra the surface was taken")
        elif any(len(raw.cells.get(kind, ())) for kind in _SURFACES):
            faces = counted_from_zero(raw, triangles(raw)[0], None)
    except MeshError as error:
        raise InputError(str(error)) from None
    unit = length_unit_of(path, points, length_unit or raw.unit)
    fields = {name: values[keep] for name, values in fields.items()}
    columns, notes = columns_of(path, fields, needed=times_needed)
    return Contents(
        raw.format,
        points[keep] * length_factor(unit),
        columns,
        numbers_named(fields),
        faces,
        [*raw.notes, *notes],
    )
