"""One entry for writing ECG files: the suffix names the format."""

from pathlib import Path

from twinheart.ecg.io.aecg_write import write_aecg
from twinheart.ecg.io.dicom_write import write_dicom_ecg
from twinheart.ecg.io.table import write_csv, write_npz
from twinheart.ecg.io.wfdb_write import write_wfdb
from twinheart.ecg.leads import Ecg
from twinheart.errors import OutputError

_WRITERS = {
    **{".csv": write_csv, ".npz": write_npz, ".hea": write_wfdb, ".dat": write_wfdb},
    **{".dcm": write_dicom_ecg, ".xml": write_aecg},
}


def write_ecg(path: str | Path, ecg: Ecg) -> list[Path]:
    """Write an ECG as CSV, NPZ, WFDB (format 16), DICOM waveform or HL7 aECG.

    Parameters
    ----------
    path : str or Path
        ``.csv``, ``.npz``, ``.hea`` (WFDB, with the ``.dat`` beside it), ``.dcm`` or ``.xml``
        (HL7 aECG). No file says anything about a person.
    ecg : Ecg
        Leads [mV] over time [ms]. CSV and NPZ hold the numbers in full; the others round to 0.5 uV
        (leads above 16 mV to 1 uV and so on) and need equally spaced samples.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    InputError
        If the format cannot hold the ECG.
    OutputError
        If the suffix is unknown or a file cannot be written; nothing is left behind.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile
    >>> from twinheart.ecg import Ecg, read_ecg, write_ecg
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> ecg = Ecg(np.array([0.0, 1.0]), np.array([[0.1], [0.25]]), ("V1",))
    >>> [file.name for file in write_ecg(folder / "beat.hea", ecg)]
    ['beat.hea', 'beat.dat']
    >>> read_ecg(folder / "beat").ecg["V1"]
    array([0.1 , 0.25])
    """
    path = Path(path)
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise OutputError(
            f"cannot write '{path.name}': the suffix names the format; expected one of "
            f"{', '.join(_WRITERS)}."
        )
    return writer(path, ecg)
