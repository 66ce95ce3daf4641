"""HDF5 files that survive a full disk: the library crashes when it cannot write as it closes."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twinheart.errors import OutputError


class Disk(io.RawIOBase):
    """A file that keeps its first failure to write instead of telling HDF5 about it.

    Call `check` after each flush, and stop at its error: what was written since is lost.

    Parameters
    ----------
    path : Path
        File to open.
    mode : {"w+b", "r+b"}
        Create it, or go on with it.

    Raises
    ------
    OSError
        If it cannot be opened.
    """

    def __init__(self, path: Path, mode: str = "w+b"):
        self.path = path
        self.error: OSError | None = None
        self._file: Any = open(path, mode, buffering=0)

    def write(self, data: Any) -> int:
        """Write all bytes; a failure is kept."""
        view = memoryview(data).cast("B")
        size = len(view)
        while len(view) and self.error is None:
            try:
                view = view[self._file.write(view) :]
            except OSError as error:
                self.error = error
        return size

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer; with zeros where the file ends, which happens after a failure only."""
        view = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(view) and (count := self._file.readinto(view[filled:])):
            filled += count
        view[filled:] = bytes(len(view) - filled)
        return len(view)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Position."""
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        """Cut or extend the file; a failure is kept."""
        try:
            return self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def seekable(self) -> bool:
        """Whether `seek` works: it does."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def check(self) -> None:
        """Raise the failure that was kept.

        Raises
        ------
        OSError
            As the operating system told it.
        """
        if self.error is not None:
            raise self.error


@contextmanager
def hdf5_output(path: str | Path, mode: str = "w") -> Iterator[tuple[Any, Disk]]:
    """Open an HDF5 file for writing.

    Parameters
    ----------
    path : path
        File to write.
    mode : {"w", "r+"}
        Create it, or go on with it.

    Yields
    ------
    h5py.File, Disk
        The file, and the disk under it: `disk.check()` after `file.flush()` raises an `OSError`
        once a write has failed.

    Raises
    ------
    OutputError
        If a write has failed by the time the block ends, or the file cannot be opened.

    Examples
    --------
    >>> import tempfile
    >>> from twinheart.mesh.io.hdf5 import hdf5_output
    >>> with hdf5_output(tempfile.mkdtemp() + "/a.h5") as (file, disk):
    ...     file["lat"] = [1.0, 2.0]
    ...     file.flush()
    ...     disk.check()
    """
    import h5py

    path = Path(path)
    try:
        disk = Disk(path, "w+b" if mode == "w" else "r+b")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}.") from None
    try:
        with h5py.File(disk, mode) as file:
            yield file, disk
        disk.check()
    except OSError as error:
        cause = disk.error or error
        reason = cause.strerror or str(cause).splitlines()[0]
        raise OutputError(f"cannot write {path}: {reason}.") from None
    finally:
        disk.close()
