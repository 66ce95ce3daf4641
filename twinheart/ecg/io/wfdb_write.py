"""Writing WFDB records in format 16."""

import re
from pathlib import Path

import numpy as np

from twinheart.ecg.io.quantised import plain_number, quantised
from twinheart.ecg.leads import Ecg
from twinheart.errors import InputError
from twinheart.mesh.io.atomic import written_whole


def write_wfdb(path: Path, ecg: Ecg) -> list[Path]:
    """Write ``<path>.hea`` and ``<path>.dat``; NaN becomes the format's code for a missing sample.

    Parameters
    ----------
    path : Path
        The record with or without suffix. Its name may have letters, digits, '-' and '_'.
    ecg : Ecg
        Equally spaced samples. The header holds nothing but names, units and sampling.

    Returns
    -------
    list of Path
        The two files.

    Raises
    ------
    InputError
        If the samples are not equally spaced, none is finite, or the record name is not allowed.
    OutputError
        If a file cannot be written.
    """
    if path.suffix in (".hea", ".dat"):
        path = path.with_suffix("")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", path.name):
        raise InputError(
            f"'{path.name}' cannot name a WFDB record; use letters, digits, '-' and '_' only."
        )
    samples, units = quantised(ecg)
    rate = plain_number(1000.0 / ecg.step)
    header = [f"{path.name} {len(ecg.names)} {rate} {len(samples)}"]
    for name, gain, column in zip(ecg.names, units, samples.T, strict=True):
        checksum = (int(column.astype(np.int64).sum()) + 2**15) % 2**16 - 2**15
        gain = plain_number(gain)
        header.append(f"{path.name}.dat 16 {gain}(0)/mV 16 0 {column[0]} {checksum} 0 {name}")
    data_file, header_file = (path.with_name(path.name + end) for end in (".dat", ".hea"))
    with written_whole(data_file) as draft:
        draft.write_bytes(samples.astype("<i2").tobytes())
    with written_whole(header_file) as draft:
        draft.write_text("\n".join(header) + "\n", encoding="ascii", errors="replace")
    return [header_file, data_file]
