"""EnSite Velocity, Precision and X: tables of points (DxL) and shells (DIF, model groups)."""

import csv
import re
from pathlib import Path
from typing import Any

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
from twinheart.mesh.io.text import parse_numbers

_HEADS = ("begin data", "export data element", "st. jude medical", "abbott")
_PART = re.compile(r"This is file (\d{1,4}) of (\d{1,4}) for map")
_PAIR = re.compile(r"[A-Za-z]?\d+ ?- ?[A-Za-z]?\d+")  # two electrodes: a bipolar trace
_AXES = ("roving x", "roving y", "roving z")
_MAX_PARTS = 1000


def is_ensite_table(head: str) -> bool:
    """Whether a text begins like an export of points.

    Examples
    --------
    >>> from twinheart.calibration.mapping_io.ensite import is_ensite_table
    >>> is_ensite_table("Export Data Element : DxL"), is_ensite_table("x,y,z,lat")
    (True, False)
    """
    return any(sign in head.lower() for sign in _HEADS)


def read_ensite_points(path: Path) -> Contents:
    """Read the points of an EnSite map: names in rows (DxL), or in the header (EnSite X).

    Parameters
    ----------
    path : Path
        ``DxL_1.csv`` of Velocity or Precision, whose other parts are read from the same folder,
        or ``Map_LAT_bi.csv`` and the like of EnSite X.

    Returns
    -------
    Contents
        Positions of the roving electrode [mm], LAT [ms] against the reference, amplitudes [mV].
        Points that are not used in the map are left out. Study, segment, map and electrode names
        are not kept.

    Raises
    ------
    InputError
        If it is no such table, a part is missing, or a row or column is missing or damaged.
    """
    text = read_text(path)
    if not is_ensite_table(text[:20_000]):
        raise InputError(f"{path}: is no EnSite export: it states no exported data element.")
    part = _PART.search(text[:20_000])
    if part is None or part[2] == "1":
        return _points(path, text)
    number, total = int(part[1]), int(part[2])
    stem = path.stem.removesuffix(str(number))
    if total > _MAX_PARTS or stem == path.stem:
        raise InputError(
            f"{path}: is file {number} of {total}; expected the number at the end of its name."
        )
    files = [path.with_name(f"{stem}{k}{path.suffix}") for k in range(1, total + 1)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise InputError(
            f"{path}: is file {number} of {total} of its map, but {listed(missing)} is not in the "
            "folder: put all of them into one."
        )
    parts = [_points(file, read_text(file)) for file in files]
    common = set.intersection(*(set(one.columns) for one in parts))
    numbers = [one.numbers for one in parts]
    return Contents(
        parts[0].format,
        np.concatenate([one.points for one in parts]),
        {name: np.concatenate([one.columns[name] for one in parts]) for name in common},
        None
        if any(n is None for n in numbers)
        else np.concatenate([n for n in numbers if n is not None]),
        notes=[note for one in parts for note in one.notes],
    )


def _points(path: Path, text: str) -> Contents:
    text = text.split("\nSeg data len", 1)[0]  # behind it are electrograms
    lines = text.splitlines()
    for n, line in enumerate(lines):
        cells = [cell.strip().lower() for cell in line.split(",")]
        if "roving x" in cells[1:]:
            return _by_columns(path, lines, n)
        if cells[0].rstrip(": ") == "roving x":
            return _by_rows(path, lines)
    raise InputError(
        f"{path}: names no 'roving x': is it a map of points (DxL, Map_LAT)? Electrograms and "
        "waves hold none."
    )


def _by_rows(path: Path, lines: list[str]) -> Contents:
    start = next((n for n, line in enumerate(lines) if line.startswith("Begin data")), None)
    if start is None:
        raise InputError(f"{path}: has no line 'Begin data': is it truncated?")
    rows: dict[str, list[str]] = {}
    for line in lines[start + 1 :]:
        name, *cells = line.split(",")
        if name.strip():
            rows.setdefault(name.strip().rstrip(": ").lower(), cells)
    n = len(rows["roving x"]) - (not rows["roving x"][-1].strip() if rows["roving x"] else 0)

    def row(name: str) -> np.ndarray:
        if name not in rows:
            raise InputError(f"{path}: has no row '{name}'; it has {listed(rows)}.")
        cells = rows[name]
        if len(cells) < n or any(cell.strip() for cell in cells[n:]):
            raise InputError(f"{path}: row '{name}' has {len(cells)} values, expected {n}.")
        return numbers_of(path, cells[:n], name)

    traces = rows.get("rov trace", [])[:n]
    pairs = sum(bool(_PAIR.search(trace)) for trace in traces)
    amplitude = "bipolar" if 2 * pairs >= len(traces) else "unipolar"
    columns = {"lat": times(1e3 * (row("rov lat") - row("ref lat")))}  # [s] in the file
    if "peak2peak" in rows:
        columns[amplitude] = voltages(row("peak2peak"))
    numbers = row("pt number") if "pt number" in rows else None
    used = row("utilized") != 0 if "utilized" in rows else np.ones(n, dtype=bool)
    points = np.stack([row(axis) for axis in _AXES], axis=1)
    return _used("EnSite DxL", points, columns, numbers, used)


def _by_columns(path: Path, lines: list[str], head: int) -> Contents:
    names = [name.strip() for name in next(csv.reader([lines[head]]))]
    index = {name.lower(): n for n, name in reversed(list(enumerate(names))) if name}
    kind = next((line for line in lines[:head] if line.lower().startswith("map type")), "").lower()
    rows = []
    for line in lines[head + 1 :]:
        if not line.strip(" ,") or line.strip(" ,").upper() == "EOF":
            break
        rows.append(next(csv.reader([line])))
    if not rows:
        raise InputError(f"{path}: lists no points below its header: truncated?")

    def column(*wanted: str) -> np.ndarray | None:
        name = next((one for one in wanted if one in index), None)
        if name is None:
            return None
        short = next((k for k, row in enumerate(rows, 1) if len(row) <= index[name]), None)
        if short is not None:
            raise InputError(f"{path}: row {short} of the points is too short: truncated?")
        values = numbers_of(path, [row[index[name]] for row in rows], name)
        valid = column(f"{name} valid")
        return values if valid is None else np.where(valid != 0, values, np.nan)

    lat, axes = column("lat", "lat (ms)"), [column(axis) for axis in _AXES]
    missing = [name for name, one in zip(("LAT", *_AXES), (lat, *axes), strict=True) if one is None]
    if lat is None or missing:
        raise InputError(
            f"{path}: has no column {listed(missing)}; it has {listed(names)}: export the map of "
            "local activation times."
        )
    columns = {"lat": times(lat)}
    amplitude = column("p-p", "p-p (mv)")
    if amplitude is not None:
        columns["unipolar" if "uni" in kind else "bipolar"] = voltages(amplitude)
    used = column("utilized")
    used = np.ones(len(rows), dtype=bool) if used is None else used != 0
    points = np.stack([one for one in axes if one is not None], axis=1)
    return _used("EnSite X", points, columns, column("(point #)", "point #"), used)


def _used(format: str, points, columns, numbers, used) -> Contents:
    notes = []
    if not used.all():
        notes.append(f"{(~used).sum()} points that the map does not use were left out")
    return Contents(
        format,
        points[used],
        {name: values[used] for name, values in columns.items()},
        None if numbers is None else numbers[used],
        notes=notes,
    )


def read_ensite_shell(path: Path) -> Contents:
    """Read an EnSite shell: ``DxLandmarkGeo.xml``, ``Contact_Mapping_Model.xml``, model groups.

    Parameters
    ----------
    path : Path
        XML (``DIF``) with one or more volumes, which are joined. Document types and entities are
        refused; names of volumes and labels are not kept.

    Returns
    -------
    Contents
        Vertices [mm], triangles, and times or voltages at the vertices where the comment before
        them says what they are.

    Raises
    ------
    InputError
        If it is no such XML, has no volume, or is truncated or damaged.
    """
    root = _root(path)
    if root.tag != "DIF":
        raise InputError(f"{path}: is XML, but no EnSite shell: its root is not DIF.")
    points, faces, fields, shift = [], [], [], 0
    for volume in root.iter("Volume"):
        vertices = _numbers(path, volume, "Vertices", float)
        polygons = _numbers(path, volume, "Polygons", int)
        if polygons.size and not 1 <= polygons.min() <= polygons.max() <= len(vertices):
            raise InputError(f"{path}: a polygon points at a vertex that is not there: damaged.")
        points.append(vertices)
        faces.append(polygons - 1 + shift)
        fields.append(_map_data(path, volume, len(vertices)))
        shift += len(vertices)
    if not faces or not sum(map(len, faces)):
        raise InputError(f"{path}: holds no volume with polygons.")
    columns = {}
    for name in sorted(set().union(*fields)):
        columns[name] = np.concatenate(
            [
                one.get(name, np.full(len(vertices), np.nan))
                for one, vertices in zip(fields, points, strict=True)
            ]
        )
    notes = ["values at vertices were interpolated by the mapping system"] if columns else []
    return Contents(
        "EnSite shell",
        np.concatenate(points),
        columns,
        triangles=np.concatenate(faces),
        notes=notes,
    )


def _root(path: Path) -> Any:
    """Root of an XML text with its comments, which say what the numbers are."""
    from xml.etree.ElementTree import ParseError, TreeBuilder

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import DefusedXMLParser

    text = read_text(path)
    text = re.sub(r"^\s*<\?xml[^>]*\?>", "", text, count=1)  # the text is decoded already
    parser = DefusedXMLParser(target=TreeBuilder(insert_comments=True), forbid_dtd=True)
    try:
        parser.feed(text)
        return parser.close()
    except DefusedXmlException:
        raise InputError(
            f"{path}: declares an XML document type or entities, which no map needs: refused."
        ) from None
    except (ParseError, ValueError):
        raise InputError(f"{path}: is no complete XML: damaged or truncated.") from None


def _numbers(path: Path, volume: Any, name: str, kind: type) -> np.ndarray:
    element = volume.find(name)
    if element is None:
        raise InputError(f"{path}: a volume has no {name}.")
    values = parse_numbers(path, (element.text or "").encode(), kind)
    stated = element.get("number", "")
    if len(values) % 3 or (stated.isdecimal() and int(stated) != len(values) // 3):
        raise InputError(
            f"{path}: a volume has {len(values)} numbers of {name}, expected three for each of "
            f"{stated[:20] or 'them'}: damaged or truncated."
        )
    return values.reshape(-1, 3)


def _map_data(path: Path, volume: Any, n_vertices: int) -> dict[str, np.ndarray]:
    """Values at the vertices of a volume, as far as a comment says what they are."""
    found, said = {}, ""
    for element in volume:
        if not isinstance(element.tag, str):
            said = (element.text or "").lower()
            continue
        if element.tag == "Map_data":
            name = "lat" if re.search(r"\blat\b", said) else ""
            if re.search(r"p-p|peak.to.peak|voltage", said):
                name = "unipolar" if "unipolar" in said else "bipolar"
            values = parse_numbers(path, (element.text or "").encode(), float)
            if len(values) != n_vertices:
                raise InputError(
                    f"{path}: a volume has {len(values)} values for {n_vertices} vertices."
                )
            if name:
                found[name] = (times if name == "lat" else voltages)(values)
        said = ""
    return found
