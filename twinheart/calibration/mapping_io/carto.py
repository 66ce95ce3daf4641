"""CARTO 3: lists of points (``*_car.txt``) and shells (``*.mesh``)."""

import re
from pathlib import Path

import numpy as np

from twinheart.calibration.mapping_io.contents import (
    Contents,
    listed,
    numbers_of,
    read_text,
    times,
    voltages,
)
from twinheart.errors import InputError
from twinheart.mesh.quality import renumbered

_MAGIC = re.compile(r"VERSION_(\d+)_\d+\b")
_KNOWN = ("4", "5", "6")
# Columns of a row "P . number . x y z alpha beta gamma unipolar bipolar LAT impedance type ...";
# the map's and the points' names and labels are not read.
_NUMBER, _X, _UNIPOLAR, _BIPOLAR, _LAT, _TYPE = 2, 4, 10, 11, 12, 14
_LOCATION_ONLY, _FLOATING = "1", "3"

_MESH_MAGIC = "#TriangulatedMeshVersion2.0"
_COLOURS = {"lat": "lat", "bipolar": "bipolar", "unipolar": "unipolar"}


def read_carto_points(path: Path) -> Contents:
    """Read the list of points of a CARTO 3 map.

    Parameters
    ----------
    path : Path
        ``<map>_car.txt``: a line ``VERSION_4_0 <map>`` and one row a point.

    Returns
    -------
    Contents
        Positions [mm], LAT [ms] against the map's reference, amplitudes [mV]. Points of type
        "location only" have no times; floating ones are left out.

    Raises
    ------
    InputError
        If it is no such list, has no points, or a row is short or damaged.
    """
    lines = read_text(path).splitlines()
    version = _MAGIC.match(lines[0].strip())
    if version is None:
        raise InputError(
            f"{path}: is no list of CARTO points: its first line must begin with VERSION_4_0 or "
            "the like."
        )
    notes = []
    if version[1] not in _KNOWN:
        notes.append(f"version {version[1]} of the list of points is read as version 4")
    rows, width = [], 0
    for n, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        tabs = "\t" in line
        cells = [cell.strip() for cell in line.split("\t" if tabs else None)]
        # a label may hold blanks, so that only rows with tabs have all the same number of cells
        width = width or len(cells)
        if cells[0] != "P" or len(cells) <= _LAT or (tabs and len(cells) != width):
            raise InputError(
                f"{path}: line {n} has {len(cells)} columns, expected 'P' and at least {_LAT} more "
                "(number, x, y, z, angles, unipolar, bipolar, LAT), as many in every line."
            )
        rows.append(cells)
    floating = [row for row in rows if len(row) > _TYPE and row[_TYPE] == _FLOATING]
    if floating:
        notes.append(f"{len(floating)} points that float in the cavity were left out")
        rows = [row for row in rows if len(row) <= _TYPE or row[_TYPE] != _FLOATING]
    if not rows:
        raise InputError(f"{path}: lists no points: export a map that was measured.")

    def column(index: int, what: str) -> np.ndarray:
        return numbers_of(path, [row[index] for row in rows], what)

    points = np.stack([column(_X + k, "xyz"[k]) for k in range(3)], axis=1)
    lat = times(column(_LAT, "LAT"))
    lat[[len(row) > _TYPE and row[_TYPE] == _LOCATION_ONLY for row in rows]] = np.nan
    columns = {
        "lat": lat,
        "bipolar": voltages(column(_BIPOLAR, "bipolar voltage")),
        "unipolar": voltages(column(_UNIPOLAR, "unipolar voltage")),
    }
    return Contents(
        "CARTO 3", points, columns, numbers=column(_NUMBER, "point number"), notes=notes
    )


def read_carto_mesh(path: Path) -> Contents:
    """Read a CARTO 3 shell with the values that the system interpolated to its vertices.

    Parameters
    ----------
    path : Path
        ``<map>.mesh``: sections of vertices, triangles and, in some versions, vertex colours.

    Returns
    -------
    Contents
        Vertices [mm] and triangles; hidden groups of triangles are left out.

    Raises
    ------
    InputError
        If it is no such shell, truncated or damaged.
    """
    text = read_text(path)
    if not text.lstrip().startswith(_MESH_MAGIC):
        raise InputError(f"{path}: is no CARTO shell: it does not begin with {_MESH_MAGIC}.")
    sections, stated = _sections(text)
    vertices = _table(path, sections, "VerticesSection", (0, 1, 2), stated.get("NumVertex"))
    faces = _table(path, sections, "TrianglesSection", (0, 1, 2, 6), stated.get("NumTriangle"))
    visible = faces[:, 3] >= 0
    triangles = faces[visible, :3]
    if not len(triangles):
        raise InputError(f"{path}: has no visible triangle.")
    if triangles.min() < 0 or triangles.max() >= len(vertices) or np.any(triangles % 1):
        raise InputError(f"{path}: a triangle points at a vertex that is not there: damaged.")
    used, triangles = renumbered(triangles.astype(np.int64), len(vertices))
    notes = []
    if not visible.all():
        notes.append(f"{(~visible).sum()} hidden triangles were left out")
    columns = {}
    if sections.get("VerticesColorsSection", ("", []))[1]:
        names = _colour_names(sections["VerticesColorsSection"][0], stated)
        values = _table(path, sections, "VerticesColorsSection", None, str(len(vertices)))
        if len(names) != values.shape[1]:
            raise InputError(
                f"{path}: names {len(names)} colours ({listed(names)}) for {values.shape[1]} "
                "columns: which is which cannot be told."
            )
        for name, value in zip(names, values.T, strict=True):
            if (kind := _COLOURS.get(name.lower())) is not None:
                columns[kind] = (times if kind == "lat" else voltages)(value[used])
        notes.append("values at vertices were interpolated by the mapping system")
    return Contents("CARTO 3 shell", vertices[used], columns, used, triangles, notes)


def _sections(text: str) -> tuple[dict[str, tuple[str, list[str]]], dict[str, str]]:
    """Last comment and right-hand sides of each section, and the stated attributes."""
    sections: dict[str, tuple[str, list[str]]] = {}
    stated: dict[str, str] = {}
    name, comment, values = "", "", []
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("["):
            name, comment, values = line.strip("[]"), "", []
            sections[name] = (comment, values)
        elif line.startswith(";"):
            if not values:
                sections[name] = (line[1:].strip(), values)
        elif "=" in line:
            key, _, value = line.partition("=")
            if name == "GeneralAttributes":
                stated[key.strip()] = value.strip()
            else:
                values.append(value)
    return sections, stated


def _table(
    path: Path, sections, name: str, columns: tuple[int, ...] | None, stated: str | None
) -> np.ndarray:
    """Some columns of a section, all for None; normals, which may be no numbers, are not read."""
    lines = sections.get(name, ("", []))[1]
    if not lines:
        raise InputError(
            f"{path}: has no [{name}]; it has {listed(sections) or 'no section'}: is it truncated?"
        )
    try:
        table = np.loadtxt(lines, ndmin=2, usecols=columns)
    except ValueError:
        raise InputError(
            f"{path}: [{name}] holds rows that are too short or no numbers: damaged."
        ) from None
    if stated is not None and stated != str(len(table)):
        raise InputError(
            f"{path}: [{name}] has {len(table)} rows, but {stated[:20]} are stated: truncated?"
        )
    return table


def _colour_names(comment: str, stated: dict[str, str]) -> list[str]:
    """Names of the colours, from the section's last comment or the general attributes."""
    if "ColorsNames" in stated:
        return stated["ColorsNames"].split()
    return comment.replace("[", " ").replace("]", " ").split()
