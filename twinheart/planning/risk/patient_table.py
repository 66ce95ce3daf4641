"""Table of patients: what a model of risk predicted for each, and what happened."""

import csv
import math
from pathlib import Path

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float

from twinheart.errors import InputError

MAX_PATIENTS = 50_000  # pairs of patients are compared
_COLUMNS = ("probability", "outcome", "time")


class PatientTable(eqx.Module):
    """Predictions and outcomes, one row a patient.

    Parameters
    ----------
    probability : (patient,) array
        Predicted, 0 to 1.
    outcome : (patient,) bool array
        Whether the event happened.
    time : (patient,) array or None
        When it did, or until when it was seen not to happen; any unit. None: outcomes are those
        at one horizon that all patients reached.

    Raises
    ------
    InputError
        If a column has another length, a value is out of range, or all outcomes are alike.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.planning import PatientTable
    >>> PatientTable(np.array([0.1, 0.8, 0.3]), np.array([False, True, False])).n_events
    1
    """

    probability: Float[np.ndarray, "patient"]
    outcome: Bool[np.ndarray, "patient"]
    time: Float[np.ndarray, "patient"] | None = None

    def __check_init__(self):
        n = len(self.probability)
        if not n <= MAX_PATIENTS:
            raise InputError(f"the table has {n} patients, expected at most {MAX_PATIENTS}.")
        if len(self.outcome) != n or (self.time is not None and len(self.time) != n):
            raise InputError("the columns have different lengths: give one row a patient.")
        bad = np.flatnonzero(~((self.probability >= 0) & (self.probability <= 1)))
        if bad.size:
            raise InputError(
                f"patient {bad[0] + 1}: the probability is {self.probability[bad[0]]:g}, expected "
                "a number from 0 to 1 (not per cent)."
            )
        if self.time is not None:
            bad = np.flatnonzero(~((self.time > 0) & np.isfinite(self.time)))
            if bad.size:
                raise InputError(
                    f"patient {bad[0] + 1}: the time is {self.time[bad[0]]:g}, expected a positive "
                    "number."
                )
        if not 0 < self.n_events < n:
            raise InputError(
                f"{self.n_events} of {n} patients had an event: a model can be judged only where "
                "some had one and some had none."
            )

    @property
    def n_events(self) -> int:
        """Number of patients with an event."""
        return int(np.count_nonzero(self.outcome))


def read_patient_table(path: str | Path) -> PatientTable:
    """Read a CSV file with the columns ``probability``, ``outcome`` (0 or 1) and perhaps ``time``.

    Other columns are not looked at.

    Parameters
    ----------
    path : str or Path
        The file; its first line names the columns.

    Returns
    -------
    PatientTable
        One row a patient.

    Raises
    ------
    InputError
        If it is no such file.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            columns = _columns(file, path)
    except OSError as error:
        raise InputError(f"{path}: cannot read the table: {error.strerror}.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file: {error}.") from None
    outcome = columns["outcome"]
    bad = np.flatnonzero(~np.isin(outcome, (0.0, 1.0)))
    if bad.size:
        raise InputError(
            f"{path}: line {bad[0] + 2}: the outcome is {outcome[bad[0]]:g}, expected 0 (no event) "
            "or 1 (event)."
        )
    try:
        return PatientTable(columns["probability"], outcome == 1.0, columns.get("time"))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _columns(file, path: Path) -> dict[str, np.ndarray]:
    rows = csv.reader(file)
    head = [name.strip().lower() for name in next(rows, [])]
    if missing := [name for name in _COLUMNS[:2] if name not in head]:
        raise InputError(
            f"{path}: no column '{missing[0]}' in the first line, which names "
            f"{', '.join(head[:10]) or 'nothing'}; expected probability, outcome and perhaps time, "
            "with commas between."
        )
    chosen = {name: head.index(name) for name in _COLUMNS if name in head}
    if twice := [name for name in chosen if head.count(name) > 1]:
        raise InputError(f"{path}: the first line names '{twice[0]}' more than once.")
    values: dict[str, list[float]] = {name: [] for name in chosen}
    for line, row in enumerate(rows, start=2):
        if line > MAX_PATIENTS + 1:
            raise InputError(f"{path}: more than {MAX_PATIENTS} patients.")
        for name, k in chosen.items():
            values[name].append(_number(row[k] if k < len(row) else "", name, line, path))
    return {name: np.array(column) for name, column in values.items()}


def _number(text: str, name: str, line: int, path: Path) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(
            f"{path}: line {line}: the {name} is '{text.strip()[:40]}', expected a number."
        )
    return value
