"""Entries of a twin's HDF5 file: it may come from a stranger, so they are bounded and its own."""

import json
from itertools import accumulate
from typing import Any

import numpy as np

_MOST_NUMBERS = 2_000_000_000  # in one array of a file
_MOST_TEXT = 10_000_000
_HARD_LINK = 0  # H5L_TYPE_HARD


def read_entry(file: Any, name: str) -> Any:
    """Entry of the file itself, None where there is none.

    Parameters
    ----------
    file : h5py.File
        An open file.
    name : str
        Path of the entry.

    Returns
    -------
    h5py.Group, h5py.Dataset or None
        What lies there.

    Raises
    ------
    ValueError
        If it points elsewhere.
    """
    links = file.id.links  # to ask h5py itself whether a name is there would follow them
    for path in accumulate(name.split("/"), "{}/{}".format):
        if not links.exists(path.encode()):
            return None
        if links.get_info(path.encode()).type != _HARD_LINK:
            raise ValueError(f"its entry '{name}' points elsewhere")
    return file[name]


def read_array(
    file: Any, name: str, ndim: int | None, kinds: str = "f", *, finite: bool = True
) -> np.ndarray:
    """Numbers that the file holds, every one of them: none is filled in or lies elsewhere.

    Parameters
    ----------
    file : h5py.File
        An open file.
    name : str
        Path of the entry.
    ndim : int or None
        Dimensions it must have; None for any.
    kinds : str
        Kinds of numbers, as numpy abbreviates them.
    finite : bool
        Whether all must be finite.

    Returns
    -------
    array
        The numbers.

    Raises
    ------
    ValueError
        If they are not of that form.
    """
    import h5py

    found = read_entry(file, name)
    if (
        not isinstance(found, h5py.Dataset)
        or found.external
        or found.is_virtual
        or found.dtype.kind not in kinds
        or (ndim is not None and len(found.shape) != ndim)
        or np.prod(found.shape, dtype=float) > _MOST_NUMBERS
        or found.id.get_storage_size() < found.size * found.dtype.itemsize
    ):
        raise ValueError(f"its entry '{name}' is no array of numbers of the expected form")
    values = np.asarray(found[()])
    if finite and not np.isfinite(values).all():
        raise ValueError(f"its entry '{name}' has numbers that are not finite")
    return values


def read_words(file: Any, name: str, kind: type | None = None) -> Any:
    """What an attribute says in JSON.

    Parameters
    ----------
    file : h5py.File
        An open file.
    name : str
        Of the attribute.
    kind : type, optional
        What it must be.

    Returns
    -------
    object
        Plain values.

    Raises
    ------
    ValueError
        If it is no text, or of the wrong kind.
    """
    text = file.attrs[name]
    if not isinstance(text, str) or len(text) > _MOST_TEXT:
        raise ValueError(f"its attribute '{name}' is no text")
    value = json.loads(text)
    if kind is not None and not isinstance(value, kind):
        raise ValueError(f"its attribute '{name}' is of the wrong kind")
    return value
