"""What a reader of maps hands over, bounded text, and what counts as a missing value."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from twinheart.errors import InputError

MAX_BYTES = 400_000_000
# Mapping systems write -10000, -5000, 10000 ... where nothing was annotated. A time lies within one
# cycle of its reference: no cycle lasts 5 s. No electrogram has 1 V.
_MAX_TIME, _MAX_VOLTAGE = 5000.0, 1000.0
_SHOWN = 20  # names listed in a message


@dataclass
class Contents:
    """A file of a map as found.

    Parameters
    ----------
    format : str
        Its format in words.
    points : (point, 3) array
        Positions [mm].
    columns : dict of (point,) arrays
        ``lat``, ``repol`` [ms], ``bipolar``, ``unipolar`` [mV], as far as there are; NaN: missing.
    numbers : (point,) array or None
        Numbers of the points in the mapping system.
    triangles : (triangle, 3) int array or None
        Where the points are the vertices of a shell.
    notes : list of str
        What was left out or assumed, in sentences.
    """

    format: str
    points: np.ndarray
    columns: dict[str, np.ndarray]
    numbers: np.ndarray | None = None
    triangles: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)


def read_text(path: Path, *, limit: int = MAX_BYTES) -> str:
    """The text of a regular file: UTF-8, else Windows' Western encoding.

    Parameters
    ----------
    path : Path
        The file.
    limit : int
        Largest size [bytes].

    Returns
    -------
    str
        All of it.

    Raises
    ------
    InputError
        If there is no such file, or it is empty, no text, too large or cannot be read.

    Examples
    --------
    >>> from pathlib import Path
    >>> from twinheart.calibration.mapping_io.contents import read_text
    >>> read_text(Path("nowhere_car.txt"))
    Traceback (most recent call last):
    twinheart.errors.InputError: nowhere_car.txt: there is no such file.
    """
    try:
        if not path.exists():
            raise InputError(f"{path}: there is no such file.")
        if not path.is_file():
            raise InputError(f"{path}: is no file; give the name of a map's file.")
        if path.stat().st_size > limit:
            raise InputError(f"{path}: is larger than {limit / 1e6:g} MB, which no map needs.")
        with path.open("rb") as file:
            data = file.read(limit)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}.") from None
    if not data.strip():
        raise InputError(f"{path}: is empty.")
    if b"\0" in data[:4096]:
        raise InputError(f"{path}: is no text file.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def times(values: Iterable[float]) -> Float[np.ndarray, "point"]:
    """Times [ms], NaN where a mapping system writes that there is none.

    Examples
    --------
    >>> from twinheart.calibration.mapping_io.contents import times
    >>> times([-31.0, -10000.0])
    array([-31.,  nan])
    """
    return _within(values, -_MAX_TIME, _MAX_TIME)


def voltages(values: Iterable[float]) -> Float[np.ndarray, "point"]:
    """Amplitudes [mV], NaN where a mapping system writes that there is none.

    Examples
    --------
    >>> from twinheart.calibration.mapping_io.contents import voltages
    >>> voltages([1.5, -10000.0])
    array([1.5, nan])
    """
    return _within(values, -1e-9, _MAX_VOLTAGE)


def _within(values: Iterable[float], low: float, high: float) -> np.ndarray:
    values = np.array(list(values), dtype=np.float64)
    with np.errstate(invalid="ignore"):
        values[~((values > low) & (values < high))] = np.nan
    return values


def numbers_of(path: Path, cells: Sequence[str], what: str) -> Float[np.ndarray, "point"]:
    """Numbers of cells, NaN where one is empty.

    Parameters
    ----------
    path : Path
        File, for the message.
    cells : sequence of str
        One a point.
    what : str
        Name of their row or column, for the message.

    Returns
    -------
    (point,) array
        The numbers.

    Raises
    ------
    InputError
        If a cell holds anything else; its text is not repeated.

    Examples
    --------
    >>> from pathlib import Path
    >>> from twinheart.calibration.mapping_io.contents import numbers_of
    >>> numbers_of(Path("a.csv"), ["1.5", ""], "x")
    array([1.5, nan])
    """
    try:
        return np.array([float(cell) if cell.strip() else np.nan for cell in cells])
    except ValueError:
        pass
    for n, cell in enumerate(cells, 1):
        try:
            float(cell or "nan")
        except ValueError:
            raise InputError(f"{path}: {what} of entry {n} is no number: damaged?") from None
    raise InputError(f"{path}: {what} holds entries that are no numbers: damaged?")


def listed(names: Iterable[str]) -> str:
    """Names for a message: short, printable and not too many.

    Examples
    --------
    >>> from twinheart.calibration.mapping_io.contents import listed
    >>> listed(["x", "y"])
    'x, y'
    """
    shown = ["".join(c for c in name if c.isprintable())[:30] for name in names if name.strip()]
    return ", ".join(shown[:_SHOWN]) + (", ..." if len(shown) > _SHOWN else "")
