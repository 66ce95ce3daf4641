"""ECGs in tables: CSV (any separator, units in the header) and NPZ."""

import csv
import io
import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from twinheart.ecg.io.bounded import MAX_BYTES, read_bytes
from twinheart.ecg.io.channels import ARBITRARY, MAX_SAMPLES, Channels, Contents
from twinheart.ecg.leads import Ecg
from twinheart.errors import InputError, UnitError
from twinheart.mesh.io.atomic import written_whole
from twinheart.units import TIME_UNITS_MS, VOLTAGE_UNITS_MV, time_factor

_UNITS = r"[nuµμm]?V|[um]?s|arbitrary|seconds|milliseconds"
_COLUMN = re.compile(rf"(.+?)[ _\[(]+({_UNITS})[\])]?", re.IGNORECASE)
_TIME_NAMES = ("t", "time", "times", "zeit", "tiempo", "temps")
_RATE = re.compile(
    r"(?:sampling|sample)?[ _-]*(?:rate|frequency|freq|fs)[ _]*(?:\(?hz\)?)?\s*[:=,]\s*([0-9.]+)",
    re.IGNORECASE,
)
_UNIT = re.compile(r"\bunits?\s*[:=,]\s*([A-Za-zµμ]+)", re.IGNORECASE)


def read_csv(path: Path) -> Contents:
    """Read a table of one time column (or none) and one column a lead.

    Parameters
    ----------
    path : Path
        Text separated by comma, semicolon (then with decimal commas or points), tab or blanks.
        The header names the leads and units: ``t_ms,I_mV``, ``time (s);V1 [uV]``. Lines before it
        may begin with ``#``; ``# rate_hz: 500`` and ``# unit: uV`` are understood.

    Returns
    -------
    Contents
        One group; unit or rate empty where the file states none.

    Raises
    ------
    InputError
        If there is no header, a row differs in length or a cell is no number.
    """
    text = read_bytes(path).decode("utf-8-sig", errors="replace")
    if "\0" in text:
        raise InputError(f"{path}: is no CSV text file.")
    lines = [line for line in text.splitlines() if line.strip()]
    comments = [line.lstrip("# ") for line in lines if line.lstrip().startswith("#")]
    lines = [line for line in lines if not line.lstrip().startswith("#")]
    if len(lines) < 2:
        raise InputError(f"{path}: has no samples; expected a header like t_ms,I_mV and rows.")
    separator = _separator(lines[0], lines[1])
    header = _cells(lines[0], separator)
    if all(_is_number(cell) for cell in header):
        raise InputError(
            f"{path}: has no header; its first line must name the leads, as in t_ms,I_mV,II_mV."
        )
    table = _numbers(lines[1:], separator, len(header), path)
    rate = next(
        (float(m[1]) for c in comments if (m := _RATE.search(c)) and _is_number(m[1])), None
    )
    unit = next((m[1] for c in comments if (m := _UNIT.search(c))), "")
    labels, units = _split(header, unit)
    time, columns = _time_column(labels, units, path)
    t = None
    if time is not None and (units[time] or rate is None):
        if not units[time]:
            raise InputError(
                f"{path}: the time column '{header[time][:20]}' states no unit; name it t_ms or "
                "t_s, or give rate_hz."
            )
        t = table[:, time] * time_factor(units[time])
        if not np.isfinite(t).all() or (np.diff(t) <= 0).any():
            raise InputError(
                f"{path}: its times do not increase; expected one row after the other."
            )
    labels, units = [labels[n] for n in columns], [units[n] for n in columns]
    return Contents("CSV", [Channels(labels, table[:, columns], units, rate, t_ms=t)])


def write_csv(path: Path, ecg: Ecg) -> list[Path]:
    """Write a column ``t_ms`` and one ``<lead>_mV`` for each lead, numbers in full.

    Parameters
    ----------
    path : Path
        File to write.
    ecg : Ecg
        Leads [mV] over time [ms].

    Returns
    -------
    list of Path
        The file.
    """
    table = np.column_stack([np.asarray(ecg.t), np.asarray(ecg.signals)])
    with written_whole(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["t_ms", *(f"{name}_mV" for name in ecg.names)])
        writer.writerows(table.tolist())
    return [path]


def read_npz(path: Path) -> Contents:
    """Read arrays ``signals`` (time, lead), ``names``, ``unit`` and ``t_ms`` or ``rate_hz``.

    Parameters
    ----------
    path : Path
        NumPy archive; nothing in it is executed.

    Returns
    -------
    Contents
        One group. Without ``signals``, every vector whose name is not one of the others is a lead.

    Raises
    ------
    InputError
        If it is no archive, too large, or its arrays do not fit together.
    """
    arrays = _arrays(path)
    about = {"t_ms", "t_s", "t", "rate_hz", "fs", "names", "leads", "unit", "units", "signals"}
    names = arrays.get("names", arrays.get("leads"))
    values = arrays.get("signals")
    if values is None:
        found = {n: a for n, a in arrays.items() if n not in about and a.ndim == 1}
        if not found or len({len(a) for a in found.values()}) != 1:
            raise InputError(
                f"{path}: has neither 'signals' (time, lead) nor vectors of one length."
            )
        labels, values = list(found), np.column_stack(list(found.values()))
    elif names is None or values.ndim != 2 or len(np.atleast_1d(names)) not in values.shape:
        raise InputError(f"{path}: needs 'signals' of shape (time, lead) and 'names', one a lead.")
    else:
        labels = [str(name) for name in np.atleast_1d(names)]
        values = values if values.shape[1] == len(labels) else values.T
    if values.dtype.kind not in "fiu":
        raise InputError(f"{path}: its signals are no numbers.")
    labels, own = _split(labels, "")
    stated = np.atleast_1d(arrays.get("unit", arrays.get("units", np.array([""])))).astype(str)
    units = [u or str(stated[n % len(stated)]) for n, u in enumerate(own)]
    rate = arrays.get("rate_hz", arrays.get("fs"))
    t = arrays.get("t_ms", arrays["t_s"] * 1e3 if "t_s" in arrays else None)
    if t is not None and (t.shape != (len(values),) or not (np.diff(t) > 0).all()):
        raise InputError(
            f"{path}: its times do not increase, one for each of {len(values)} samples."
        )
    if rate is not None and (np.size(rate) != 1 or rate.dtype.kind not in "fiu"):
        raise InputError(f"{path}: its rate_hz is no single number.")
    return Contents(
        "NPZ",
        [Channels(labels, values, units, None if rate is None else float(rate.flat[0]), t_ms=t)],
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    raw = read_bytes(path)
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_BYTES * 2:
            raise InputError(f"{path}: unpacks to {size / 1e6:.0f} MB, more than an ECG needs.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with np.load(io.BytesIO(raw), allow_pickle=False) as stored:
                return {name: np.asarray(stored[name]) for name in stored.files}
    except InputError:
        raise
    except Exception:  # a damaged archive raises what zlib, zipfile and NumPy happen to
        raise InputError(
            f"{path}: is no NumPy archive of plain arrays (pickles are refused)."
        ) from None


def write_npz(path: Path, ecg: Ecg) -> list[Path]:
    """Write ``t_ms``, ``signals`` (time, lead), ``names`` and ``unit``.

    Parameters
    ----------
    path : Path
        File to write.
    ecg : Ecg
        Leads [mV] over time [ms].

    Returns
    -------
    list of Path
        The file.
    """
    with written_whole(path) as draft, draft.open("wb") as file:
        np.savez_compressed(
            file,
            t_ms=np.asarray(ecg.t),
            signals=np.asarray(ecg.signals),
            names=np.array(ecg.names),
            unit=np.array("mV"),
        )
    return [path]


def _separator(header: str, row: str) -> str | None:
    """The separator of a table; None stands for blanks."""
    for sign in (";", "\t", ","):
        if sign in header:
            return sign
    if "," in row:
        return ","
    return None


def _cells(line: str, separator: str | None) -> list[str]:
    if separator is None:
        return line.split()
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator))]


def _numbers(lines: list[str], separator: str | None, width: int, path: Path) -> np.ndarray:
    if len(lines) * width > MAX_SAMPLES:
        raise InputError(f"{path}: has more cells than can be held; cut it into parts.")
    if separator == ";":
        lines = [line.replace(",", ".") for line in lines]
    try:  # quickly; whatever is odd about a table is found below
        table = np.loadtxt(lines, delimiter=separator, comments=None, ndmin=2)
        if table.shape[1] == width:
            return table
    except ValueError:
        pass
    rows = []
    for n, line in enumerate(lines, start=1):
        cells = _cells(line, separator)
        if len(cells) != width:
            raise InputError(
                f"{path}: row {n} has {len(cells)} cells, but not every row may differ from the "
                f"{width} columns of the header."
            )
        try:
            rows.append([float(cell) if cell else np.nan for cell in cells])
        except ValueError:
            raise InputError(f"{path}: row {n} holds text; expected numbers only.") from None
    return np.array(rows, dtype=np.float64)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _split(header: Sequence[str], unit: str) -> tuple[list[str], list[str]]:
    """Names and units of columns; the unit of the whole table where a column has none."""
    labels, units = [], []
    for cell in header:
        match = _COLUMN.fullmatch(cell)
        name, own = (match[1], match[2]) if match else (cell, "")
        is_time = name.strip().lower() in _TIME_NAMES
        labels.append(name.strip())
        units.append(own or ("" if is_time else unit))
    return labels, units


def _time_column(labels: list[str], units: list[str], path: Path) -> tuple[int | None, list[int]]:
    times = [
        n
        for n, (label, unit) in enumerate(zip(labels, units, strict=True))
        if label.lower() in _TIME_NAMES or _is_unit(unit, time_factor)
    ]
    columns = [n for n in range(len(labels)) if n not in times]
    if len(times) > 1 or not columns or (times and times[0] != 0):
        raise InputError(
            f"{path}: expected the time first (t_ms or t_s), then one voltage a column "
            f"({', '.join(VOLTAGE_UNITS_MV)} or {ARBITRARY}; times in {', '.join(TIME_UNITS_MS)})."
        )
    return (times[0] if times else None), columns


def _is_unit(unit: str, factor) -> bool:
    try:
        return bool(factor(unit)) if unit else False
    except UnitError:
        return False
