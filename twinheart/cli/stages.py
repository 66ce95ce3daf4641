"""Work in stages, each with a record and files of its own, so that none is done twice.

A stage is known by a digest of all it depends on. What is done is not done again; where an input
has changed, the stage and those after it are.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twinheart import __version__
from twinheart.cli.run import write_text
from twinheart.cli.terminal import plain, say
from twinheart.errors import InputError

_CHUNK = 1 << 20


class Stages:
    """Stages whose records and files lie in one folder.

    Parameters
    ----------
    folder : Path
        Exists.
    names : sequence of str
        Of all stages, in their order, for what is said.

    Attributes
    ----------
    done : list of dict
        Name, seconds, and whether it was done before, of each stage so far.
    """

    def __init__(self, folder: Path, names: Sequence[str]):
        self.folder, self.names = folder, tuple(names)
        self.done: list[dict[str, Any]] = []
        self._keys: dict[str, str] = {}

    def run(
        self,
        name: str,
        make: Callable[[], Mapping[str, Any]],
        *,
        settings: Mapping[str, Any],
        inputs: Sequence[str | Path] = (),
        after: Sequence[str] = (),
        files: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Do a stage, unless its record and files are those of the same inputs.

        Parameters
        ----------
        name : str
            Of the stage; its record is ``<name>.json``.
        make : callable
            Does it: writes the files and returns a record.
        settings : mapping
            Everything else that its result depends on.
        inputs : sequence of paths
            Files and folders that it reads, not made by earlier stages.
        after : sequence of str
            Stages on whose results it depends.
        files : sequence of str
            What it may write, within the folder.

        Returns
        -------
        dict
            The record, as JSON has it.

        Raises
        ------
        InputError
            If an input cannot be read.
        """
        key = self._key(name, settings, inputs, after)
        place = f"{len(self.done) + 1} of {len(self.names)}"
        start = time.perf_counter()
        record = self._known(name, key)
        before = record is not None
        if record is None:
            say(f"plan: {name} ({place})")
            (self.folder / f"{name}.json").unlink(missing_ok=True)
            record = json.loads(json.dumps(plain(make())))
            written = [file for file in files if (self.folder / file).exists()]
            sizes = {file: (self.folder / file).stat().st_size for file in written}
            text = json.dumps({"key": key, "files": sizes, "record": record}, indent=1)
            write_text(self.folder / f"{name}.json", text + "\n")
        else:
            say(f"plan: {name} ({place}): done before")
        self._keys[name] = key
        self.done.append(
            {"stage": name, "seconds": time.perf_counter() - start, "done_before": before}
        )
        return record

    def _key(self, name: str, settings, inputs, after) -> str:
        parts = {
            "stage": name,
            "version": __version__,
            "settings": plain(dict(settings)),
            "inputs": [file_digest(Path(path)) for path in inputs],
            "after": [self._keys[other] for other in after],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _known(self, name: str, key: str) -> dict[str, Any] | None:
        try:
            stored = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
            if stored["key"] != key:
                return None
            for file, size in stored["files"].items():
                if (self.folder / file).stat().st_size != size:
                    return None
            return dict(stored["record"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # damaged or not there: done again


def file_digest(path: Path) -> str:
    """Digest of a file's content, or of the files of a folder; a record may lack its suffix.

    Raises
    ------
    InputError
        If there is no such file.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from twinheart.cli.stages import file_digest
    >>> file = pathlib.Path(tempfile.mkdtemp(), "some.txt")
    >>> _ = file.write_text("text")
    >>> file_digest(file)[:8]
    '982d9e3e'
    """
    total = hashlib.sha256()
    if path.is_file():
        parts = [path]
    elif path.is_dir():
        parts = sorted(part for part in path.rglob("*") if part.is_file())
    else:  # a WFDB record: its header and signals
        parts = sorted(part for part in path.parent.glob(f"{path.name}.*") if part.is_file())
    if not parts:
        raise InputError(f"{path}: there is no such file.")
    for part in parts:
        if len(parts) > 1:
            total.update(part.name.encode())
        try:
            with part.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    total.update(chunk)
        except OSError as error:
            raise InputError(f"{part}: cannot read it: {error.strerror}.") from None
    return total.hexdigest()
