"""Waves of a paced cell: its restitution on a cable as a table, measured once and kept on disk."""

from typing import NamedTuple

import numpy as np

from twinheart.cell import AbstractCellModel, limit_cycle
from twinheart.cell.paced_cache import cache_folder, content_hash, load_result, save_result
from twinheart.cell.pacing import initial_values
from twinheart.errors import ModelError
from twinheart.tissue.cable import scalar_parameters
from twinheart.tissue.restitution import CableRestitution, cv_restitution
from twinheart.tissue.wave_table import WaveTable, wave_table

# Share of a velocity at rest does not depend on it, so one cable serves all tissues [mm2/ms].
_DIFFUSIVITY = 0.1
_EDGE, _DT = 0.25, 0.02  # mm, ms
_BEATS = 2  # on the cable, of cells that are at their limit cycle already
# Shares of the cycle at which a premature beat is tried first; then as many where it fails.
_SHARES = np.concatenate([np.linspace(1.0, 0.75, 5, endpoint=False), np.linspace(0.75, 0.3, 15)])
_WAKE = 1.05


class MeasuredWave(NamedTuple):
    """What waves of a cell do.

    Attributes
    ----------
    table : WaveTable
        Velocity, as a share of that at the cycle length, and duration after a diastolic interval.
    velocity : float
        At the cycle length [m/s], on a cable of 0.1 mm2/ms: to compare cells.
    """

    table: WaveTable
    velocity: float


def measured_wave(model: AbstractCellModel, cycle: float = 600.0) -> MeasuredWave:
    """Restitution of a cell that has been paced for long, by premature beats on a cable.

    It takes half a minute for a ventricular cell and is kept in
    `twinheart.cell.paced_cache.cache_folder` under everything that it depends on.

    The earliest waves follow in the wake of the one before, where tissue recovers ahead of them:
    they seem the faster the earlier they are. None counts as faster than the slowest, and those
    that seem faster by more than a twentieth are left out.

    Parameters
    ----------
    model : AbstractCellModel
        Cell; parameters that differ from node to node are averaged.
    cycle : float
        Cycle length of the regular beats [ms], a multiple of the time step.

    Returns
    -------
    MeasuredWave
        Table and velocity.

    Raises
    ------
    ModelError
        If the cell does not follow regular beats at this cycle length.

    Examples
    --------
    >>> from twinheart.cell import get_model
    >>> from twinheart.tissue.measured_wave import measured_wave
    >>> found = measured_wave(get_model("mitchell-schaeffer"), 500.0)
    >>> bool(found.table.speed[0] < found.table.speed[-1])
    True
    """
    cell = scalar_parameters(model)
    dt = min(_DT, float(cell.dt))
    vm, state = initial_values(cell, cell.stimulus.amplitude)
    key = content_hash(
        cell, vm, state, cycle=float(cycle), shares=_SHARES, dt=dt, edge=_EDGE,
        diffusivity=_DIFFUSIVITY, beats=_BEATS,
    )  # fmt: skip
    path = cache_folder() / f"wave-{key[:32]}.npz"
    known = load_result(path, {"rows": np.zeros((4, 2 * len(_SHARES)))})
    if known is None:
        known = {"rows": _premature_beats(cell, float(cycle), dt)}
        save_result(path, known)
    interval, di, cv, apd = known["rows"]
    velocity = float(cv[0])
    if not np.isfinite(velocity):
        raise ModelError(f"{cell.name} does not conduct every beat at {cycle:g} ms: pace slower.")
    least = np.nanmin(cv)
    wake = di < di[np.nanargmin(cv)]
    blocked = np.isnan(cv) | (wake & (cv > _WAKE * least))
    cv = np.where(wake & ~blocked, least, cv)
    return MeasuredWave(
        wave_table(CableRestitution(interval, di, cv, apd, blocked, velocity)), velocity
    )


def _premature_beats(cell: AbstractCellModel, cycle: float, dt: float) -> np.ndarray:
    """Interval, DI, CV and APD of premature beats, the longest interval first."""
    paced = limit_cycle(cell, cycle, dt=dt).model

    def beats(intervals: np.ndarray) -> np.ndarray:
        found = cv_restitution(
            paced, cycle, s2=intervals, n_s1=_BEATS, edge=_EDGE, dt=dt, diffusivity=_DIFFUSIVITY
        )
        return np.stack([found.interval, found.di, found.cv, found.apd]).astype(float)

    rows = beats(cycle * _SHARES)
    failed = np.flatnonzero(np.isnan(rows[2]))
    k = int(failed[0]) if failed.size else rows.shape[1] - 1
    fine = np.linspace(rows[0, max(k - 2, 0)], rows[0, k], len(_SHARES) + 2)[1:-1]
    rows = np.concatenate([rows, beats(fine)], axis=1)
    return rows[:, np.argsort(-rows[0], kind="stable")]
