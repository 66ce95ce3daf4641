"""Reading files of strangers: whole, but never larger than allowed."""

from pathlib import Path

from twinheart.errors import InputError

MAX_BYTES = 400_000_000


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file.

    Parameters
    ----------
    path : Path
        The file.
    limit : int
        Largest size [bytes].

    Returns
    -------
    bytes
        All of them.

    Raises
    ------
    InputError
        If there is no such file, it is no regular file, cannot be read or is too large.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from twinheart.ecg.io.bounded import read_bytes
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "ecg.csv"
    >>> _ = file.write_bytes(b"t_ms")
    >>> read_bytes(file)
    b't_ms'
    """
    try:
        if not path.exists():
            raise InputError(f"{path}: there is no such file.")
        if not path.is_file():
            raise InputError(f"{path}: is no file; give the name of an ECG file.")
        size = path.stat().st_size
        if size > limit:
            raise InputError(
                f"{path}: is larger than {limit / 1e6:g} MB, which no ECG of this kind needs; cut "
                "it into parts."
            )
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}.") from None
