"""ECG files: CSV, and WFDB records in format 16."""

import csv
import re
from pathlib import Path

import numpy as np

from twinheart.ecg.leads import Ecg
from twinheart.errors import InputError
from twinheart.mesh.io.atomic import written_whole

_MAX_BYTES = 200_000_000
_MISSING = -32768  # WFDB format 16: a sample that is not there
_LARGEST = 32767
_GAIN = 2000.0  # per mV


def write_ecg_csv(path: str | Path, ecg: Ecg) -> None:
    """Write an ECG as CSV: a column ``t_ms`` and one ``<lead>_mV`` for each lead.

    Parameters
    ----------
    path : str or Path
        File to write.
    ecg : Ecg
        Leads [mV] over time [ms]. Numbers are written in full: reading gives the same values.

    Raises
    ------
    OutputError
        If the file cannot be written.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile
    >>> from twinheart.ecg import Ecg, read_ecg_csv, write_ecg_csv
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "ecg.csv"
    >>> write_ecg_csv(file, Ecg(np.array([0.0, 1.0]), np.array([[0.1], [0.25]]), ("II",)))
    >>> file.read_text().split()
    ['t_ms,II_mV', '0.0,0.1', '1.0,0.25']
    >>> read_ecg_csv(file)["II"]
    array([0.1 , 0.25])
    """
    table = np.column_stack([np.asarray(ecg.t), np.asarray(ecg.signals)])
    with written_whole(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["t_ms", *(f"{name}_mV" for name in ecg.names)])
        writer.writerows(table.tolist())


def read_ecg_csv(path: str | Path) -> Ecg:
    r"""Read an ECG from CSV: one time column and one column per lead, units in the header.

    Parameters
    ----------
    path : str or Path
        File with the header ``t_ms,I_mV,...`` (time in ms or s, voltages in mV, uV or V).

    Returns
    -------
    Ecg
        Leads in mV over time in ms.

    Raises
    ------
    InputError
        If the file cannot be read, a unit is missing or unknown, or a cell is not a number.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from twinheart.ecg import read_ecg_csv
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "ecg.csv"
    >>> _ = file.write_text("t_s,V1_uV\n0.5,250\n0.502,300\n")
    >>> ecg = read_ecg_csv(file)
    >>> ecg.t, ecg["V1"]
    (array([500., 502.]), array([0.25, 0.3 ]))
    """
    path = Path(path)
    header, rows = _read_table(path)
    units = [re.fullmatch(r"(.+?)[ _\[(]+(s|ms|uV|µV|mV|V)[\])]?", cell) for cell in header]
    if len(header) < 2 or None in units:
        bad = header[units.index(None)] if None in units else ",".join(header)
        raise InputError(
            f"ECG file '{path}': column '{bad}' names no unit; expected a header like "
            "t_ms,I_mV,II_mV."
        )
    parts = [match.groups() for match in units if match]
    if parts[0][1] not in ("s", "ms") or any(unit in ("s", "ms") for _, unit in parts[1:]):
        raise InputError(
            f"ECG file '{path}': expected the time first (t_ms or t_s), then one voltage a column; "
            f"got {','.join(header)}."
        )
    try:
        table = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise InputError(f"ECG file '{path}': {error}; expected numbers only.") from None
    if table.ndim != 2 or table.shape[1] != len(header):
        raise InputError(
            f"ECG file '{path}': not every row has the {len(header)} columns of the header."
        )
    factors = {"s": 1e3, "ms": 1.0, "V": 1e3, "mV": 1.0, "uV": 1e-3, "µV": 1e-3}
    table = table * [factors[unit] for _, unit in parts]
    return Ecg(table[:, 0], table[:, 1:], [name for name, _ in parts[1:]])


def write_wfdb(path: str | Path, ecg: Ecg) -> list[Path]:
    """Write an ECG as a WFDB record: ``<path>.hea`` and ``<path>.dat`` (format 16).

    Parameters
    ----------
    path : str or Path
        The record without suffix (a suffix .hea or .dat is dropped). Its name may have letters,
        digits, hyphens and underscores.
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

    Notes
    -----
    16-bit samples at 2000 units a mV (0.5 uV), half of that and so on above 16 mV. NaN becomes the
    format's code for a missing sample.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile
    >>> from twinheart.ecg import Ecg, write_wfdb
    >>> record = pathlib.Path(tempfile.mkdtemp()) / "beat"
    >>> ecg = Ecg(np.array([0.0, 1.0, 2.0]), np.array([[0.1], [0.2], [0.0]]), ("II",))
    >>> [file.name for file in write_wfdb(record, ecg)]
    ['beat.dat', 'beat.hea']
    >>> record.with_suffix(".hea").read_text().splitlines()[0]
    'beat 1 1000 3'
    """
    path = Path(path)
    if path.suffix in (".hea", ".dat"):
        path = path.with_suffix("")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", path.name):
        raise InputError(
            f"'{path.name}' cannot name a WFDB record; use letters, digits, '-' and '_' only."
        )
    signals = np.asarray(ecg.signals, dtype=np.float64)
    finite = np.isfinite(signals)
    if not finite.any():
        raise InputError("the ECG has no finite sample; there is nothing to write.")
    peak = np.abs(np.where(finite, signals, 0.0)).max(axis=0)
    # halved until the lead fits: such gains are exact in the decimals of the header
    halvings = np.maximum(0, np.ceil(np.log2(np.maximum(peak, 1e-9) * _GAIN / _LARGEST)))
    gain = _GAIN / 2.0**halvings
    samples = np.where(finite, np.rint(np.where(finite, signals, 0.0) * gain), _MISSING)
    samples = samples.astype("<i2")
    frequency = 1000.0 / ecg.step
    header = [f"{path.name} {len(ecg.names)} {_number(frequency)} {len(samples)}"]
    for name, g, column in zip(ecg.names, gain, samples.T, strict=True):
        checksum = (int(column.astype(np.int64).sum()) + 2**15) % 2**16 - 2**15
        header.append(f"{path.name}.dat 16 {_number(g)}(0)/mV 16 0 {column[0]} {checksum} 0 {name}")
    data_file, header_file = (path.with_name(path.name + end) for end in (".dat", ".hea"))
    with written_whole(data_file) as draft:
        draft.write_bytes(samples.tobytes())
    with written_whole(header_file) as draft:
        draft.write_text("\n".join(header) + "\n", encoding="ascii", errors="replace")
    return [data_file, header_file]


def _number(value: float) -> str:
    return f"{value:.15g}"


def _read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"ECG file '{path}' is larger than {_MAX_BYTES // 10**6} MB.")
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row and not row[0].startswith("#")]
    except OSError as error:
        raise InputError(f"ECG file '{path}' cannot be read: {error.strerror or error}.") from error
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"ECG file '{path}' is not a CSV text file.") from None
    if len(rows) < 2:
        raise InputError(f"ECG file '{path}' has no samples; expected a header and rows.")
    return [cell.strip() for cell in rows[0]], rows[1:]
