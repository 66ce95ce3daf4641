"""Results of long pacing on disk, under the hash of everything they depend on."""

import hashlib
import logging
import os
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from twinheart import __version__
from twinheart.cell.gates import step
from twinheart.cell.model import AbstractCellModel
from twinheart.cell.pacing import initial_values
from twinheart.errors import OutputError
from twinheart.mesh.io.atomic import written_whole

_LOG = logging.getLogger(__name__)

# Rises when the format of the files or the meaning of a result changes.
_FORMAT = 2


def cache_folder() -> Path:
    """Where results are kept: `$TWINHEART_CACHE`, else the platform's place for caches.

    Examples
    --------
    >>> from twinheart.cell.paced_cache import cache_folder
    >>> cache_folder().name
    'twinheart'
    """
    chosen = os.environ.get("TWINHEART_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "twinheart"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "twinheart"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinheart"


def content_hash(model: AbstractCellModel, vm, state, **settings) -> str:
    """Hash of a model, the values it starts from and how it is paced.

    The equations enter as jax traces them, through `twinheart.cell.gates.step`: whatever part of
    the source they come from, a change of it is seen, and a change of a comment is not.

    Parameters
    ----------
    model : AbstractCellModel
        Cell.
    vm, state
        Values at the start.
    **settings
        Numbers and arrays.

    Returns
    -------
    str
        Hexadecimal digits.
    """
    numbers, rest = eqx.partition(model, eqx.is_array)

    def equations(numbers, vm, state, dt, i_stim):
        return step(eqx.combine(numbers, rest), vm, state, dt, i_stim)

    one = jnp.ones((), vm.dtype)
    traced = jax.make_jaxpr(equations)(numbers, vm, state, one, one)
    text = re.sub(r" at 0x[0-9a-f]+", "", str(traced.jaxpr))
    kind = f"{type(model).__module__}.{type(model).__qualname__} {model.name}"
    found = hashlib.sha256()
    for part in (_FORMAT, __version__, jax.__version__, jax.default_backend(), kind, text):
        found.update(f"{part}\n".encode())
    arrays = [*jax.tree.leaves(numbers), vm, *state, *traced.consts]
    arrays += [np.asarray(settings[name]) for name in sorted(settings)]
    found.update(" ".join(sorted(settings)).encode())
    for array in map(np.asarray, arrays):
        found.update(f"{array.dtype.str} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def measured_path(kind: str, *cells: AbstractCellModel, **settings) -> Path:
    """File of what is measured of cells that start from their own initial values.

    Parameters
    ----------
    kind : str
        What is measured, the beginning of the name.
    *cells : AbstractCellModel
        Of which; their order counts.
    **settings
        Numbers and arrays, how it is measured.

    Returns
    -------
    Path
        In `cache_folder`.

    Examples
    --------
    >>> from twinheart.cell import get_model
    >>> from twinheart.cell.paced_cache import measured_path
    >>> measured_path("wave", get_model("mitchell-schaeffer"), cycle=600.0).suffix
    '.npz'
    """
    keys = [
        content_hash(cell, *initial_values(cell, cell.stimulus.amplitude), **settings)[:20]
        for cell in cells
    ]
    return cache_folder() / f"{'-'.join([kind, *keys])}.npz"


def kept(
    path: Path | None,
    like: Mapping[str, np.ndarray],
    measure: Callable[[], Mapping[str, np.ndarray]],
    what: str,
) -> dict[str, np.ndarray]:
    """What was measured once: read from a file, else measured and written to it.

    Parameters
    ----------
    path : Path or None
        The file; any content. None keeps nothing.
    like : mapping of str to array
        Arrays of the names, shapes and types that the file must have; else it is made anew.
    measure : callable
        Makes these arrays. What it raises is raised, and nothing is kept.
    what : str
        What is measured, for the log (level INFO): it may take minutes.

    Returns
    -------
    dict of str to array
        The arrays.

    Warns
    -----
    UserWarning
        Where the file cannot be written.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile
    >>> from twinheart.cell.paced_cache import kept
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "number.npz"
    >>> blank = {"x": np.zeros(())}
    >>> [float(kept(path, blank, lambda: {"x": np.array(k)}, "x")["x"]) for k in (1.0, 2.0)]
    [1.0, 1.0]
    """
    found = None if path is None else _load(path, like)
    if found is None:
        if path is not None:
            _LOG.info("measuring %s; the next time it is known", what)
        found = dict(measure())
        if path is not None:
            _save(path, found)
    return found


def _load(path: Path, like: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """Arrays of a file; None where there is none, or it is damaged or has others."""
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            found = {name: file[name] for name in like}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    fits = (
        found[name].shape == array.shape and found[name].dtype == array.dtype
        for name, array in like.items()
    )
    return found if all(fits) else None


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a file whole; warn, and go on without it, where that is impossible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as temporary:
            np.savez(temporary, allow_pickle=False, **arrays)
    except (OSError, OutputError) as error:
        warnings.warn(f"a measured result was not kept for the next time: {error}", stacklevel=4)
