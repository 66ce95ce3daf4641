"""State of a fit on disk, so that an interrupted one goes on."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from twinheart.errors import InputError
from twinheart.mesh.io.atomic import written_whole

_MOST_BYTES = 200_000_000


class FitState:
    """Where a fit is.

    Parameters
    ----------
    u : (parameter,) array
        Standard numbers.
    loss, damping : float
        Of that state.
    flat : int
        Iterations in a row with little gain.
    history : list of dict
        What every iteration reached.
    """

    def __init__(self, u, loss: float, damping: float, flat: int, history: list[dict[str, float]]):
        self.u, self.loss, self.damping = np.asarray(u, np.float64), loss, damping
        self.flat, self.history = flat, history


def digest(objective: Any) -> str:
    """Hash of everything a fit depends on.

    Parameters
    ----------
    objective : Objective
        Data, model, free and fixed parameters.

    Returns
    -------
    str
        SHA-256, hexadecimal.
    """
    found = hashlib.sha256(repr((objective.free, objective.data.names)).encode())
    for leaf in jax.tree.leaves(eqx.filter(objective, eqx.is_array)):
        array = np.asarray(leaf)
        found.update(repr((array.shape, str(array.dtype))).encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def save_state(path: Path, mark: str, state: FitState) -> None:
    """Write the state of the fit with this digest, whole or not at all.

    Parameters
    ----------
    path : Path
        File; what was there is replaced.
    mark : str
        From `digest`.
    state : FitState
        What to keep.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    facts = {"loss": state.loss, "damping": state.damping, "flat": state.flat}
    text = json.dumps({"digest": mark, "history": state.history, **facts})
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, u=state.u, facts=np.array(text))


def load_state(path: Path, mark: str) -> FitState | None:
    """Read the state of the fit with this digest; None where there is none yet.

    Parameters
    ----------
    path : Path
        File of `save_state`.
    mark : str
        From `digest` of the objective that is to go on.

    Returns
    -------
    FitState or None
        Where that fit was.

    Raises
    ------
    InputError
        If the file is damaged, or belongs to another fit.
    """
    if not path.exists():
        return None
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("too large")
        with np.load(path, allow_pickle=False) as file:
            u, facts = file["u"], json.loads(str(file["facts"]))
        known = (facts["loss"], facts["damping"], facts["flat"], facts["history"])
        found = facts["digest"]
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a readable state of a fit ({error}); remove it.") from None
    if found != mark:
        raise InputError(
            f"{path}: this state belongs to another heart, ECG or choice of parameters; remove it "
            "to start anew, or give another file."
        )
    return FitState(u, *known)
