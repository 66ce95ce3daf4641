"""Maps as tables (CSV): one row a point, columns by name."""

import csv
import re
from pathlib import Path

import numpy as np

from twinheart.calibration.mapping_io.contents import Contents, listed, numbers_of, read_text
from twinheart.calibration.mapping_io.named import columns_of, length_unit_of, numbers_named
from twinheart.errors import InputError
from twinheart.mesh.fields import canonical
from twinheart.units import length_factor

_AXIS = re.compile(r"([xyz])(?:[ _\[(]+(um|mm|cm|m)[\])]?)?", re.IGNORECASE)
_SEPARATORS = (";", "\t", ",")
_TEXT = "name", "label", "note", "comment", "tag"


def read_map_table(path: Path, *, length_unit: str | None = None) -> Contents:
    """Read a table with the columns ``x, y, z`` and ``lat``.

    Parameters
    ----------
    path : Path
        Text separated by comma, semicolon or tab; the header names the columns, a unit may follow
        (``x_mm``, ``lat_ms``). Lines that begin with ``#`` are left out.
    length_unit : {"um", "mm", "cm", "m"}, optional
        Unit of the positions; by default as the header says, else as the size shows.

    Returns
    -------
    Contents
        Points [mm] with the columns known by name, see `columns_of`.

    Raises
    ------
    InputError
        If a column is missing, a row differs in length or a cell is no number.
    UnitError
        If the unit of length cannot be told.
    """
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    lines = [line for line in lines if not line.lstrip().startswith("#")]
    if len(lines) < 2:
        raise InputError(f"{path}: has no rows; expected a header like x_mm,y_mm,z_mm,lat_ms.")
    separator = next((sign for sign in _SEPARATORS if sign in lines[0]), ",")
    header, *rows = csv.reader(lines, delimiter=separator)
    header = [name.strip() for name in header]
    for n, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise InputError(f"{path}: row {n} has {len(row)} cells, the header {len(header)}.")
    axes = {
        m[1].lower(): (n, m[2]) for n, name in enumerate(header) if (m := _AXIS.fullmatch(name))
    }
    if set(axes) != set("xyz"):
        raise InputError(
            f"{path}: needs the columns x, y and z [mm]; it has {listed(header) or 'none'}."
        )
    columns = {
        name: numbers_of(path, [row[n] for row in rows], listed([name]))
        for n, name in enumerate(header)
        if not _AXIS.fullmatch(name) and canonical(name) not in _TEXT
    }
    order = [axes[axis] for axis in "xyz"]
    points = np.stack(
        [numbers_of(path, [row[n] for row in rows], listed([header[n]])) for n, _ in order], axis=1
    )
    units = {unit.lower() for _, unit in order if unit}
    if len(units) > 1:
        raise InputError(f"{path}: gives x, y and z in different units ({', '.join(units)}).")
    unit = length_unit_of(path, points, length_unit or (units.pop() if units else None))
    found, notes = columns_of(path, columns)
    return Contents("CSV", points * length_factor(unit), found, numbers_named(columns), notes=notes)
