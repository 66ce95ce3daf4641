"""How WFDB signal files store their samples (signal(5) of the WFDB Applications Guide)."""

from pathlib import Path

import numpy as np

from twinheart.errors import InputError

# Code of a sample that is not there
MISSING: dict[str, int] = {
    **{"16": -(2**15), "61": -(2**15), "160": -(2**15), "24": -(2**23), "32": -(2**31)},
    **{"80": -128, "212": -2048, "310": -512, "311": -512},
}
# Bytes that hold so many samples
_PACKING: dict[str, tuple[int, int]] = {
    **{"8": (1, 1), "16": (2, 1), "24": (3, 1), "32": (4, 1), "61": (2, 1), "80": (1, 1)},
    **{"160": (2, 1), "212": (3, 2), "310": (4, 3), "311": (4, 3)},
}
_COMPRESSED = ("508", "516", "524")


def bytes_of(form: str, samples: int) -> int:
    """Bytes that hold so many samples; 0 for an unknown format.

    Parameters
    ----------
    form : str
        Number of the format.
    samples : int
        How many.

    Returns
    -------
    int
        Bytes, without those of a group that is only begun.

    Examples
    --------
    >>> from twinheart.ecg.io.wfdb_samples import bytes_of
    >>> bytes_of("212", 4)
    6
    """
    size, count = _PACKING.get(form, (0, 1))
    return samples * size // count


def decoded(form: str, raw: bytes, samples: int | None, path: Path) -> np.ndarray:
    """Samples of a signal file in the order in which they are stored.

    Parameters
    ----------
    form : str
        Number of the format.
    raw : bytes
        The file from its first sample on.
    samples : int or None
        How many are wanted; all if None.
    path : Path
        For messages.

    Returns
    -------
    (sample,) array
        Integers, as float64.

    Raises
    ------
    InputError
        If the format is compressed or unknown.
    """
    if form in _COMPRESSED:
        raise InputError(
            f"{path}: its signals are FLAC-compressed (format {form}), which is not read; convert "
            "the record to format 16 with WFDB's xform."
        )
    if form not in _PACKING:
        raise InputError(f"{path}: signal format {form} is unknown; known: {', '.join(_PACKING)}.")
    size, count = _PACKING[form]
    if samples is not None:
        raw = raw[: -(-samples // count) * size]
    if form in ("212", "310", "311"):
        # the last group may be cut where its samples end
        raw = raw + bytes(-len(raw) % size) if samples is not None else raw
    data = np.frombuffer(raw[: len(raw) // size * size], dtype=np.uint8)
    values = _DECODERS[form](data.reshape(-1, size)).astype(np.float64).reshape(-1)
    return values if samples is None else values[:samples]


def _little(data: np.ndarray) -> np.ndarray:
    """Little-endian integers of any width, with sign."""
    bits = 8 * data.shape[1]
    value = (data.astype(np.int64) << np.arange(0, bits, 8)).sum(axis=1)
    return _signed(value, bits)


def _signed(value: np.ndarray, bits: int) -> np.ndarray:
    half = np.int64(1) << (bits - 1)
    return ((value + half) & (2 * half - 1)) - half


def _twelve_bits(data: np.ndarray) -> np.ndarray:
    """Two samples in three bytes; the middle one holds the high bits of both."""
    low, middle, high = data.astype(np.int64).T
    one = low | ((middle & 0x0F) << 8)
    two = high | ((middle & 0xF0) << 4)
    return _signed(np.column_stack([one, two]), 12)


def _ten_bits_in_words(data: np.ndarray) -> np.ndarray:
    """Three samples in two 16-bit words: 11 bits each, the third in the spare high bits."""
    words = (data[:, 0::2].astype(np.int64)) | (data[:, 1::2].astype(np.int64) << 8)
    one, two = (words >> 1 & 0x3FF).T
    three = (words[:, 0] >> 11 & 0x1F) | ((words[:, 1] >> 11 & 0x1F) << 5)
    return _signed(np.column_stack([one, two, three]), 10)


def _ten_bits_in_row(data: np.ndarray) -> np.ndarray:
    """Three samples in 30 bits of a 32-bit word."""
    word = (data.astype(np.int64) << np.arange(0, 32, 8)).sum(axis=1)
    return _signed(np.column_stack([word & 0x3FF, word >> 10 & 0x3FF, word >> 20 & 0x3FF]), 10)


_DECODERS = {
    **{form: _little for form in ("8", "16", "24", "32")},
    "61": lambda data: _little(data[:, ::-1]),
    "80": lambda data: data.astype(np.int64) - 128,
    "160": lambda data: (data.astype(np.int64) << np.arange(0, 16, 8)).sum(axis=1) - 2**15,
    **{"212": _twelve_bits, "310": _ten_bits_in_words, "311": _ten_bits_in_row},
}
