"""Files of text from a user: read whole, if they are as small as such files are."""

from pathlib import Path

from twinheart.errors import InputError

MAX_BYTES = 1_000_000  # such a file is a page of text; anything larger is not one


def read_small(path: Path, wanted: str, kind: str) -> bytes:
    """Read a small file whole.

    Parameters
    ----------
    path : Path
        File of at most 1 MB.
    wanted : str
        What is looked for in it, such as ``"lesions"``; named where it cannot be read.
    kind : str
        What it should be, such as ``"a list of lesions"``; named where it is too large.

    Returns
    -------
    bytes
        What it holds.

    Raises
    ------
    InputError
        If it cannot be read, or is too large.

    Examples
    --------
    >>> from pathlib import Path
    >>> from twinheart.cli.small_file import read_small
    >>> read_small(Path("nowhere.csv"), "lesions", "a list of lesions")
    Traceback (most recent call last):
    ...
    twinheart.errors.InputError: nowhere.csv: cannot read lesions: No such file or directory.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot read {wanted}: {error.strerror}.") from None
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES} bytes, not {kind}.")
    return content


def read_lines(path: Path, wanted: str, kind: str) -> list[str]:
    """Lines of a small file of text, with or without a mark of its encoding, see `read_small`."""
    return read_small(path, wanted, kind).decode("utf-8-sig", errors="replace").splitlines()
