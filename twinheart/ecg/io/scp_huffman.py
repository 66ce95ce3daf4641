"""The Huffman coding of SCP-ECG (EN 1064, annex C) and its difference encoding."""

from dataclasses import dataclass

import numpy as np

from twinheart.errors import InputError


@dataclass(frozen=True)
class Code:
    """One entry of a table.

    Parameters
    ----------
    prefix : str
        Bits by which it is known, the first one first.
    extra : int
        Bits that follow and hold the value itself, with sign.
    value : int
        Value, or the number of the table to go on with.
    switches : bool
        Whether it changes the table.
    """

    prefix: str
    extra: int
    value: int
    switches: bool = False


def default_table() -> list[Code]:
    """The table that the standard gives: short codes for -8 ... 8, then 8 and 16 bits in full.

    Returns
    -------
    list of Code
        19 codes.

    Examples
    --------
    >>> from twinheart.ecg.io.scp_huffman import default_table
    >>> [(code.prefix, code.value) for code in default_table()[:4]]
    [('0', 0), ('100', 1), ('101', -1), ('1100', 2)]
    """
    table = [Code("0", 0, 0)]
    for size in range(1, 9):
        ones = "1" * size
        table += [Code(f"{ones}00", 0, size), Code(f"{ones}01", 0, -size)]
    return [*table, Code("1111111110", 8, 0), Code("1111111111", 16, 0)]


def read_tables(body: bytes) -> list[list[Code]] | None:
    """The tables of section 2; None where samples are plain 16-bit integers.

    Parameters
    ----------
    body : bytes
        The section after its header.

    Returns
    -------
    list of list of Code or None
        Tables in their order.

    Raises
    ------
    InputError
        If the section is damaged.
    """
    if len(body) < 2:
        return None
    count = int.from_bytes(body[:2], "little")
    if count == 19999:  # the number that stands for the table of the standard
        return [default_table()]
    if not 1 <= count <= 64:
        raise InputError(f"announces {count} Huffman tables: damaged.")
    tables, at = [], 2
    for _ in range(count):
        size = int.from_bytes(body[at : at + 2], "little")
        at += 2
        if at + 9 * size > len(body):
            raise InputError("has Huffman tables that are cut off: damaged.")
        table = []
        for _ in range(size):
            # some devices write the two lengths the other way round
            prefix_bits, total_bits = sorted(body[at : at + 2])
            mode = body[at + 2]
            value = int.from_bytes(body[at + 3 : at + 5], "little", signed=True)
            code = int.from_bytes(body[at + 5 : at + 9], "little")
            if not (1 <= prefix_bits <= 32 and prefix_bits <= total_bits <= prefix_bits + 32):
                raise InputError("has a Huffman code of impossible length: damaged.")
            # stored with the first bit in the lowest place
            prefix = "".join(str(code >> n & 1) for n in range(prefix_bits))
            table.append(Code(prefix, total_bits - prefix_bits, value, mode == 0))
            at += 9
        tables.append(table)
    return tables


def decode(data: bytes, count: int, tables: list[list[Code]] | None) -> np.ndarray:
    """Samples of one lead, still as differences if they are stored so.

    Parameters
    ----------
    data : bytes
        Of this lead.
    count : int
        Samples expected.
    tables : list of list of Code or None
        As `read_tables` gives them.

    Returns
    -------
    (sample,) array
        Integers.

    Raises
    ------
    InputError
        If there are fewer samples or bits that are no code.
    """
    if tables is None:
        if len(data) < 2 * count:
            raise InputError("has fewer samples than it announces: incomplete, get it again.")
        return np.frombuffer(data, "<i2", count).astype(np.int64)
    lookup = [{code.prefix: code for code in table} for table in tables]
    lengths = [sorted({len(code.prefix) for code in table}) for table in tables]
    bits = format(int.from_bytes(data, "big"), f"0{8 * len(data)}b") if data else ""
    found = np.empty(count, dtype=np.int64)
    at, current, n, switched = 0, 0, 0, 0
    while n < count:
        code = next(
            (c for k in lengths[current] if (c := lookup[current].get(bits[at : at + k]))), None
        )
        if code is None or at + len(code.prefix) + code.extra > len(bits):
            raise InputError("has fewer samples than it announces, or bits that are no code.")
        at += len(code.prefix)
        if code.switches:
            switched += 1
            if not 1 <= code.value <= len(tables) or switched > len(bits):
                raise InputError("switches to a Huffman table that is not there: damaged.")
            current = code.value - 1
            continue
        value = code.value
        if code.extra:
            value = int(bits[at : at + code.extra], 2)
            value -= (value >> (code.extra - 1)) << code.extra  # two's complement
            at += code.extra
        found[n] = value
        n += 1
    return found


def undifferenced(values: np.ndarray, order: int) -> np.ndarray:
    """Samples from their first or second differences; the first samples are stored as they are.

    Parameters
    ----------
    values : (sample,) array
        As stored.
    order : int
        0: samples, 1: first differences, 2: second differences.

    Returns
    -------
    (sample,) array
        Samples.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg.io.scp_huffman import undifferenced
    >>> undifferenced(np.array([5, 7, 1, 0]), 2)
    array([ 5,  7, 10, 13])
    """
    if order == 0 or len(values) < 2:
        return values
    if order == 1:
        return np.cumsum(values)
    slopes = np.cumsum(np.concatenate([[values[1] - values[0]], values[2:]]))
    return np.concatenate([values[:1], values[0] + np.cumsum(slopes)])
