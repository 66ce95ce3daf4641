"""One entry for every ECG file: the format is told from the contents, not from the name alone."""

from pathlib import Path

from twinheart.ecg.io.aecg import read_aecg
from twinheart.ecg.io.bounded import read_bytes
from twinheart.ecg.io.channels import ARBITRARY, Contents, ecg_of
from twinheart.ecg.io.dicom import read_dicom_ecg
from twinheart.ecg.io.edf import is_edf, read_edf
from twinheart.ecg.io.quality import suspicions
from twinheart.ecg.io.recording import Recording, fingerprints
from twinheart.ecg.io.scp import is_scp, read_scp
from twinheart.ecg.io.table import read_csv, read_npz
from twinheart.ecg.io.wfdb import read_wfdb
from twinheart.errors import InputError

_READERS = {
    **{"wfdb": read_wfdb, "dicom": read_dicom_ecg, "aecg": read_aecg},
    **{"scp": read_scp, "edf": read_edf, "csv": read_csv, "npz": read_npz},
}
_SUFFIXES = {
    **{".hea": "wfdb", ".dat": "wfdb", ".dcm": "dicom", ".xml": "aecg", ".npz": "npz"},
    **{".scp": "scp", ".edf": "edf", ".bdf": "edf", ".csv": "csv", ".tsv": "csv", ".txt": "csv"},
}


def read_ecg(
    path: str | Path,
    *,
    rate_hz: float | None = None,
    unit: str | None = None,
    keep_identifiers: bool = False,
) -> Recording:
    r"""Read an ECG file: WFDB, DICOM waveform, HL7 aECG, SCP-ECG, EDF, CSV or NPZ.

    Parameters
    ----------
    path : str or Path
        The file; a WFDB record may be named without suffix.
    rate_hz : float, optional
        Sampling rate [Hz], needed where the file states none, instead of its own elsewhere.
    unit : {"V", "mV", "uV", "nV", "arbitrary"}, optional
        Unit of the voltages, needed where the file states none, instead of its own elsewhere.
    keep_identifiers : bool
        Keep what the file says about person, place and date in `Recording.identifiers`.

    Returns
    -------
    Recording
        Leads in mV, spelt and ordered as in the standard ECG; limb leads that are missing are
        derived where two others are there; ``notes`` say what was derived, dropped or suspected.

    Raises
    ------
    InputError
        If the file cannot be read, is damaged, holds no ECG, or its unit or rate is unknown.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from twinheart.ecg import read_ecg
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "ecg.csv"
    >>> _ = file.write_text("t_s,Lead I [uV],LEAD II [uV]\n0.5,250,300\n0.502,260,310\n")
    >>> recording = read_ecg(file)
    >>> recording.ecg.names, recording.ecg["III"]
    (('I', 'II', 'III', 'aVR', 'aVL', 'aVF'), array([0.05, 0.05]))
    """
    path = Path(path)
    contents = _READERS[_kind(path)](path)
    try:
        ecg, notes, derived = ecg_of(contents.rhythm, rate_hz=rate_hz, unit=unit)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    calibrated = not any(ARBITRARY in note for note in notes)
    suspected = suspicions(ecg, calibrated=calibrated, derived=derived)
    return Recording(
        ecg,
        contents.format,
        tuple(contents.notes + notes + suspected),
        _beats(contents, rate_hz, unit),
        contents.identifiers if keep_identifiers else {},
        fingerprints(contents.identifiers),
    )


def _beats(contents: Contents, rate_hz: float | None, unit: str | None):
    if not contents.beats:
        return None
    try:
        return ecg_of(contents.beats, rate_hz=rate_hz, unit=unit)[0]
    except InputError:  # an empty average is no reason to refuse the recording
        return None


def _kind(path: Path) -> str:
    if not path.exists():
        if path.with_name(path.name + ".hea").exists():
            return "wfdb"
        raise InputError(f"{path}: there is no such file.")
    if path.suffix.lower() in (".hea", ".dat"):
        return "wfdb"
    head = read_bytes(path)[:4096]
    if head[128:132] == b"DICM":
        return "dicom"
    if head[:4] == b"PK\x03\x04":
        return "npz"
    if is_scp(head):
        return "scp"
    if is_edf(head):
        return "edf"
    text = head.removeprefix(b"\xef\xbb\xbf").replace(b"\0", b"").lstrip(b"\xff\xfe \t\r\n")
    if text[:1] == b"<":
        return "aecg"
    if not head.strip():
        raise InputError(f"{path}: is empty.")
    found = _SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise InputError(
            f"{path}: is no ECG file that is known here; expected WFDB (.hea), DICOM (.dcm), HL7 "
            "aECG (.xml), SCP-ECG (.scp), EDF (.edf), CSV or NPZ."
        )
    return found
