"""Numbers in text, fast and strictly: a bad or missing number is an error that names its line."""

import warnings
from pathlib import Path

import numpy as np

from twinheart.errors import InputError

_BLOCK = 1 << 24
_NEWLINE = 10
_SPACE = 32  # every byte up to the space separates numbers


def parse_numbers(path: Path, text: bytes, dtype: type, first_line: int = 1) -> np.ndarray:
    r"""All numbers of a text, separated by white space.

    Parameters
    ----------
    path : Path
        File, for the message.
    text : bytes
        Text of numbers.
    dtype : type
        ``float`` or ``int``.
    first_line : int
        Line of the file at which `text` begins, for the message.

    Returns
    -------
    (number,) float64 or int64 array
        The numbers.

    Raises
    ------
    InputError
        At the first word that is no number.

    Examples
    --------
    >>> from pathlib import Path
    >>> from twinheart.mesh.io.text import parse_numbers
    >>> parse_numbers(Path("a.pts"), b"1 2.5\n3", float)
    array([1. , 2.5, 3. ])
    """
    if not text.strip():  # numpy makes a number of nothing
        return np.zeros(0, dtype=dtype)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # older numpy only warns and stops at a bad word
            return np.fromstring(text, dtype=dtype, sep=" ")
    except (ValueError, DeprecationWarning):
        pass
    for number, line in enumerate(text.split(b"\n")):
        for word in line.split():
            try:
                dtype(word)
            except ValueError:
                kind = "an integer" if dtype is int else "a number"
                shown = word[:30].decode("ascii", "replace")
                raise InputError(
                    f"{path} line {first_line + number}: expected {kind}, got '{shown}'."
                ) from None
    raise InputError(f"{path} line {first_line}: cannot be read as numbers.")


def read_table(path: Path, data: bytes, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    r"""Numbers of a text and how many stand on each line.

    Parameters
    ----------
    path : Path
        File, for messages.
    data : bytes
        Its content.
    dtype : type
        ``float`` or ``int``.

    Returns
    -------
    (number,) array and (line,) int array
        All numbers, and the count on each line, blank lines included.

    Examples
    --------
    >>> from pathlib import Path
    >>> from twinheart.mesh.io.text import read_table
    >>> read_table(Path("a.pts"), b"1\n2 3\n", int)
    (array([1, 2, 3]), array([1, 2]))
    """
    values, counts, start, line = [], [], 0, 1
    while start < len(data):
        stop = min(start + _BLOCK, len(data))
        if stop < len(data):
            end_of_line = data.find(b"\n", stop - 1)
            stop = len(data) if end_of_line < 0 else end_of_line + 1
        block = data[start:stop]
        values.append(parse_numbers(path, block, dtype, line))
        counts.append(_count_by_line(block))
        line += len(counts[-1])
        start = stop
    if not values:
        return np.zeros(0, dtype=dtype), np.zeros(0, dtype=np.int64)
    return np.concatenate(values), np.concatenate(counts)


def take_numbers(
    path: Path, data: bytes, start: int, count: int, dtype: type, what: str
) -> tuple[np.ndarray, int]:
    """The next `count` numbers of a text, and where they end.

    Raises
    ------
    InputError
        If there are fewer, or a word among them is no number.

    Examples
    --------
    >>> from pathlib import Path
    >>> from twinheart.mesh.io.text import take_numbers
    >>> take_numbers(Path("a.vtk"), b"1 2 3 name", 0, 3, int, "numbers")
    (array([1, 2, 3]), 5)
    """
    size = 16 * count + 64
    while True:
        window = np.frombuffer(data, np.uint8, min(size, len(data) - start), start)
        solid = window > _SPACE
        ends = np.flatnonzero(solid & ~np.append(solid[1:], False))
        # a word cut by the window is not complete unless the file ends there, too
        complete = len(ends) - (len(window) < len(data) - start and solid[-1:].any())
        if complete >= count or start + len(window) == len(data):
            break
        size *= 4
    if complete < count:
        raise InputError(
            f"{path}: ends after {complete} of the {count} numbers of {what}: it is truncated."
        )
    end = start + (int(ends[count - 1]) + 1 if count else 0)
    line = data.count(b"\n", 0, start) + 1
    return parse_numbers(path, data[start:end], dtype, line), end


def line_of_row(counts: np.ndarray, row: int) -> int:
    """Line of the file [from 1] of the `row`-th line that is not blank."""
    return int(np.flatnonzero(counts)[row]) + 1


def _count_by_line(block: bytes) -> np.ndarray:
    array = np.frombuffer(block, np.uint8)
    solid = array > _SPACE
    starts = np.flatnonzero(solid & ~np.concatenate([[False], solid[:-1]]))
    line_ends = np.flatnonzero(array == _NEWLINE)
    if not block.endswith(b"\n"):
        line_ends = np.append(line_ends, len(block))
    return np.diff(np.searchsorted(starts, line_ends), prepend=0)
