"""Contours that a reader drew, from tables: the Cardiac Atlas Project's GPFile, or a CSV."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from twinheart.errors import InputError

# What is drawn, by its name in a CSV.
PARTS = {
    "lv_endo": "endocardium of the LV",
    "lv_epi": "epicardium of the LV",
    "rv_endo": "endocardium of the RV",
    "rv_free_wall": "endocardium of the RV's free wall",
    "rv_septum": "endocardium of the RV on the septum",
    "rv_epi": "epicardium of the RV",
    "epi": "epicardium of both ventricles, in one outline",
    "mitral_valve": "mitral valve",
    "aortic_valve": "aortic valve",
    "tricuspid_valve": "tricuspid valve",
    "pulmonary_valve": "pulmonary valve",
    "apex": "epicardial apex of the LV",
}
# Names of a GPFile, without the SAX_ or LAX_ of their view; None: of no use here.
_ATLAS_NAMES: dict[str, str | None] = {
    "LV_ENDOCARDIAL": "lv_endo",
    "LV_EPICARDIAL": "lv_epi",
    "RV_ENDOCARDIAL": "rv_endo",
    "RV_OUTLET": "rv_endo",
    "RV_FREEWALL": "rv_free_wall",
    "RV_SEPTUM": "rv_septum",
    "RV_EPICARDIAL": "rv_epi",
    "MITRAL_VALVE": "mitral_valve",
    "AORTA_VALVE": "aortic_valve",
    "TRICUSPID_VALVE": "tricuspid_valve",
    "PULMONARY_VALVE": "pulmonary_valve",
    "APEX_POINT": "apex",
    **dict.fromkeys(("RV_INSERT", "LA", "RA", "REMOVED", "RV_EXTENT", "LV_EXTENT", "LA_EXTENT")),
    **dict.fromkeys(f"{v}_PHANTOM" for v in ("MITRAL", "AORTA", "TRICUSPID", "PULMONARY")),
}
_COLUMNS = {
    "x": "x",
    "y": "y",
    "z": "z",
    "contour": "name",
    "contour type": "name",
    "name": "name",
    "label": "name",
    "slice": "slice",
    "frameid": "slice",
    "slice number": "slice",
    "weight": "weight",
    "time frame": "time",
    "time": "time",
    "frame": "time",
}
# Without separators the header's words run together; then the order is that of a GPFile.
_ATLAS_ORDER = ("x", "y", "z", "name", "slice", "weight", "time")
_MAX_BYTES = 64 << 20
CONTOUR_SUFFIXES = (".txt", ".csv", ".tsv")


@dataclass(frozen=True)
class Contour:
    """The points of one part in one slice, in the order in which they were drawn.

    Parameters
    ----------
    part : str
        One of `PARTS`.
    slice : str
        What the file calls the slice.
    points : (point, 3) array
        RAS positions [mm].
    long_axis : bool
        Drawn in a long-axis view.
    """

    part: str
    slice: str
    points: Float[np.ndarray, "point 3"]
    long_axis: bool = False


def read_contours(
    path: str | Path, *, time_frame: int | None = None
) -> tuple[list[Contour], tuple[str, ...]]:
    r"""Read contours from a GPFile or a plain CSV.

    A *GPFile* is a table with the columns ``x y z``, ``contour type``, ``frameID`` (the slice),
    ``weight`` and ``time frame``, in the patient's axes of DICOM (LPS), which are turned into RAS;
    contour types are ``SAX_LV_ENDOCARDIAL``, ``SAX_RV_FREEWALL``, ``MITRAL_VALVE`` and so on. A
    *CSV* has the columns ``contour, slice, x, y, z``, perhaps ``time``, in RAS; its names are
    those of `PARTS`, with ``lax_`` before them if drawn in a long-axis view.

    Parameters
    ----------
    path : path
        The table; columns separated by tabs, commas, semicolons or blanks.
    time_frame : int, optional
        Which time frame, where the file holds several of a slice.

    Returns
    -------
    list of Contour
        In the order of the file.
    tuple of str
        Sentences for the user.

    Raises
    ------
    InputError
        If it cannot be read, a name is unknown, or it holds several time frames and none or an
        absent one is asked for.

    References
    ----------
    Mauger et al., EMBC 2018, doi:10.1109/EMBC.2018.8512394.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from twinheart.imaging.contour_file import read_contours
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "contours.csv"
    ...     _ = path.write_text("contour,slice,x,y,z\nlv_endo,3,10,0,-8\nlv_endo,3,0,10,-8\n")
    ...     contours, _ = read_contours(path)
    >>> contours[0].part, contours[0].slice, contours[0].points.shape
    ('lv_endo', '3', (2, 3))
    """
    path = Path(path)
    rows, is_atlas = _rows(path)
    chosen = _in_time_frame(path, rows, time_frame)
    if not chosen:
        raise InputError(f"{path}: holds no contour of the ventricles.")
    turn = np.array([-1.0, -1.0, 1.0]) if is_atlas else np.ones(3)
    contours = [
        Contour(part, where, np.array([row.place for row in group]) * turn, long_axis)
        for (part, where, long_axis), group in chosen.items()
    ]
    count = sum(len(c.points) for c in contours)
    notes = [f"{count} points of {len(contours)} contours"]
    if is_atlas:
        notes.append("contours of a GPFile are turned from the patient's axes LPS to RAS")
    return contours, tuple(notes)


@dataclass(frozen=True)
class _Row:
    part: str
    where: str
    long_axis: bool
    place: tuple[float, float, float]
    time: int


def _rows(path: Path) -> tuple[list[_Row], bool]:
    """Every row that is of use, and whether the names are those of a GPFile."""
    lines = _lines(path)
    separator, columns = _header(path, lines[0])
    rows, atlas = [], False
    for number, line in enumerate(lines[1:], 2):
        cells = line.split(separator) if separator else line.split()
        if not any(cell.strip() for cell in cells):
            continue
        values = {c: cell.strip().strip('"') for c, cell in zip(columns, cells, strict=False)}
        if any(not values.get(c) for c in ("x", "y", "z", "name", "slice")):
            raise InputError(
                f"{path}: line {number} has {len(cells)} columns, expected {len(columns)}: "
                "a coordinate, the name of the contour or the slice is missing."
            )
        part, long_axis, own = _part(path, number, values["name"])
        atlas |= own
        x, y, z = (_number(path, number, values[axis]) for axis in "xyz")
        weight = _number(path, number, values.get("weight") or "1")
        time = int(_number(path, number, values.get("time") or "0"))
        if part is not None and weight != 0:
            rows.append(_Row(part, values["slice"], long_axis, (x, y, z), time))
    return rows, atlas


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path}: has more than {_MAX_BYTES >> 20} MB: no table of contours.")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: cannot be read as text ({error}).") from None
    if len(lines) < 2:
        raise InputError(f"{path}: holds no contours: expected a header and a row for each point.")
    return lines


def _header(path: Path, line: str) -> tuple[str | None, tuple[str | None, ...]]:
    separator = next((s for s in "\t;," if s in line), None)
    if separator is None:
        if line.lower().split()[:4] == ["x", "y", "z", "contour"]:
            return None, _ATLAS_ORDER
        columns = tuple(_COLUMNS.get(word.lower()) for word in line.split())
    else:
        words = (word.strip().strip('"').lower() for word in line.split(separator))
        columns = tuple(_COLUMNS.get(word) for word in words)
    missing = [c for c in ("x", "y", "z", "name", "slice") if columns.count(c) != 1]
    if missing:
        raise InputError(
            f"{path}: the header says '{line.strip()[:60]}', expected the columns contour, slice, "
            "x, y, z of a CSV, or x, y, z, contour type, frameID of a GPFile."
        )
    return separator, columns


def _part(path: Path, number: int, name: str) -> tuple[str | None, bool, bool]:
    """Part that a name means, whether it is a long-axis view, and a GPFile's."""
    view, bare = re.fullmatch(r"(sax_|lax_|)(.*)", name, re.IGNORECASE).groups()  # type: ignore[union-attr]
    long_axis = view.lower() == "lax_"
    if bare in _ATLAS_NAMES:
        return _ATLAS_NAMES[bare], long_axis, True
    if bare.lower() in PARTS:
        return bare.lower(), long_axis, False
    raise InputError(
        f"{path}: line {number} names the contour '{name[:40]}', expected one of "
        f"{', '.join(PARTS)}, or a GPFile's such as SAX_LV_ENDOCARDIAL."
    )


def _number(path: Path, number: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not abs(value) < 1e6:
        raise InputError(f"{path}: line {number} says '{text[:20]}', expected a number in mm.")
    return value


def _in_time_frame(
    path: Path, rows: list[_Row], wanted: int | None
) -> dict[tuple[str, str, bool], list[_Row]]:
    """Rows by part, slice and view; of one time frame where a slice has several.

    A file of one frame may give its slices different times: views are triggered apart.
    """
    groups: dict[tuple[str, str, bool], list[_Row]] = {}
    for row in rows:
        groups.setdefault((row.part, row.where, row.long_axis), []).append(row)
    several = any(len({row.time for row in group}) > 1 for group in groups.values())
    times = sorted({row.time for row in rows})
    if wanted is None:
        if several:
            raise InputError(
                f"{path}: holds the time frames {', '.join(map(str, times))}: say which with "
                "--time-frame."
            )
        return groups
    if wanted not in times:
        raise InputError(
            f"{path}: has no time frame {wanted}; it has {', '.join(map(str, times))}."
        )
    return {
        key: kept
        for key, group in groups.items()
        if (kept := [row for row in group if row.time == wanted])
    }
