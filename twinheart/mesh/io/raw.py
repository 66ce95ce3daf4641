"""What a reader hands over: points, cells and fields as the file has them, nothing mended yet."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from twinheart.errors import InputError

# zlib cannot expand by more, so a count above this many bytes for each byte of the file is a lie
MAX_EXPANSION = 1032


@dataclass
class RawMesh:
    """A mesh file as found.

    Parameters
    ----------
    path : Path
        The file.
    format : str
        Its format in words.
    points : (node, 3) array
        Coordinates in the unit of the file.
    cells : dict of (cell, corner) int arrays
        Node indices by kind of cell: ``tetra``, ``triangle``, ``line``, ...; the indices are those
        of the file.
    point_fields : dict of arrays
        One row per node.
    cell_fields : dict of dicts of arrays
        By kind of cell, then by name.
    unit : str or None
        Length unit, where the file or its format states one.
    unit_source : str
        Who states it.
    index_base : int or None
        First node index, where the file or its format defines it.
    notes : list of str
        What was left out or assumed, in sentences.
    """

    path: Path
    format: str
    points: np.ndarray
    cells: dict[str, np.ndarray]
    point_fields: dict[str, np.ndarray] = field(default_factory=dict)
    cell_fields: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    unit: str | None = None
    unit_source: str = ""
    index_base: int | None = None
    notes: list[str] = field(default_factory=list)


def read_bytes(path: Path) -> bytes:
    """Content of a file; an `InputError` where there is none.

    Examples
    --------
    >>> from pathlib import Path
    >>> from twinheart.mesh.io.raw import read_bytes
    >>> read_bytes(Path("nowhere.vtu"))
    Traceback (most recent call last):
    twinheart.errors.InputError: nowhere.vtu: no such file.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    if not data:
        raise InputError(f"{path}: the file is empty; expected a mesh.")
    return data


def check_count(path: Path, what: str, count: int, item_bytes: int, file_bytes: int) -> None:
    """Refuse a count that a file of this size cannot hold, before memory is asked for it."""
    if count < 0 or count * item_bytes > MAX_EXPANSION * max(file_bytes, 64):
        raise InputError(
            f"{path}: claims {count} {what}, more than a file of {file_bytes} bytes can hold: it "
            "is damaged or truncated."
        )
