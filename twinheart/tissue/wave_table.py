"""What a wave does after a diastolic interval: velocity and duration, as a table."""

from collections.abc import Sequence

import equinox as eqx
import numpy as np
from jaxtyping import Float

from twinheart.errors import ModelError
from twinheart.tissue.restitution import CableRestitution


class WaveTable(eqx.Module):
    """What a wave does after a diastolic interval.

    Parameters
    ----------
    di : (interval,) array
        Diastolic intervals [ms], ascending; the first is the shortest that conducts.
    speed : (interval,) array
        Conduction velocity as a share of that at rest.
    apd : (interval,) array
        Duration [ms].

    Raises
    ------
    ModelError
        If the intervals do not ascend, or a speed or duration is not positive and finite.

    Examples
    --------
    >>> from twinheart.tissue import WaveTable
    >>> float(WaveTable([20.0, 300.0], [0.6, 1.0], [150.0, 250.0]).refractory)
    170.0
    """

    di: Float[np.ndarray, "interval"]
    speed: Float[np.ndarray, "interval"]
    apd: Float[np.ndarray, "interval"]

    def __init__(self, di, speed, apd):
        self.di, self.speed, self.apd = (
            np.atleast_1d(np.asarray(x, dtype=float)) for x in (di, speed, apd)
        )
        rows = np.stack([self.di, self.speed, self.apd]) if len(self.di) else np.zeros((3, 0))
        if not rows.size or not np.isfinite(rows).all() or not (rows[1:] > 0).all():
            raise ModelError(
                "a wave table needs finite diastolic intervals and positive speeds and durations; "
                f"got {len(self.di)} rows, {int((~np.isfinite(rows)).any(axis=0).sum())} of them "
                "with missing numbers: leave out intervals that block."
            )
        if not (np.diff(self.di) > 0).all():
            raise ModelError(f"diastolic intervals {self.di.tolist()} ms do not ascend: sort them.")

    @property
    def refractory(self) -> float:
        """Shortest cycle [ms] after the shortest interval: its duration and interval."""
        return float(self.apd[0] + self.di[0])


def stacked(
    tables: Sequence[WaveTable],
) -> Float[np.ndarray, "table interval 3"]:
    """Tables of one length, as interval, share of the velocity and duration.

    Parameters
    ----------
    tables : sequence of WaveTable
        Of any lengths.

    Returns
    -------
    (table, interval, 3) array
        Where a table ends its last row is repeated, which interpolates to the same.

    Examples
    --------
    >>> from twinheart.tissue.wave_table import WaveTable, stacked
    >>> long = WaveTable([30.0, 90.0], [0.5, 1.0], [180.0, 240.0])
    >>> stacked([WaveTable([20.0], [1.0], [200.0]), long])[0].tolist()
    [[20.0, 1.0, 200.0], [20.0, 1.0, 200.0]]
    """
    return joined([np.stack([t.di, t.speed, t.apd], axis=1)[None] for t in tables])


def joined(parts: Sequence[np.ndarray]) -> Float[np.ndarray, "table interval 3"]:
    """Stacks of tables of several lengths, (table, interval, 3) each, as one."""
    length = max(part.shape[1] for part in parts)
    return np.concatenate(
        [np.pad(x, ((0, 0), (0, length - x.shape[1]), (0, 0)), "edge") for x in parts]
    )


def wave_table(found: CableRestitution) -> WaveTable:
    """Table for trains of waves from restitution measured on a cable.

    Parameters
    ----------
    found : CableRestitution
        From `twinheart.tissue.cv_restitution` (premature beats) or
        `twinheart.tissue.dynamic_cv_restitution` (regular ones).

    Returns
    -------
    WaveTable
        Rows of the intervals that conduct.

    Raises
    ------
    ModelError
        If none does.

    Examples
    --------
    >>> from twinheart.cell import get_model
    >>> from twinheart.tissue import cv_restitution, wave_table
    >>> found = cv_restitution(
    ...     get_model("mitchell-schaeffer"), 600.0, s2=[550, 350], n_s1=1, diffusivity=0.1, dt=0.05
    ... )
    >>> len(wave_table(found).di)
    2
    """
    kept = ~found.blocked & np.isfinite(found.cv) & np.isfinite(found.apd) & np.isfinite(found.di)
    if not kept.any():
        raise ModelError("all intervals of the restitution are blocked: measure longer ones.")
    di, first = np.unique(found.di[kept], return_index=True)
    return WaveTable(di, found.cv[kept][first] / found.cv_regular, found.apd[kept][first])
