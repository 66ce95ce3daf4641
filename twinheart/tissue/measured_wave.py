"""Waves of a paced cell: its restitution on a cable as a table, measured once and kept on disk."""

from typing import NamedTuple

import numpy as np

from twinheart.cell import AbstractCellModel, limit_cycle
from twinheart.cell.paced_cache import cache_folder, content_hash, load_result, save_result
from twinheart.cell.pacing import initial_values
from twinheart.errors import ModelError
from twinheart.tissue.cable import scalar_parameters
from twinheart.tissue.eikonal_trains import WaveTable, wave_table
from twinheart.tissue.restitution import CableRestitution, cv_restitution

# Share of a velocity at rest does not depend on it, so one cable serves all tissues [mm2/ms].
_DIFFUSIVITY = 0.1
_EDGE, _DT = 0.25, 0.02  # mm, ms
_BEATS = 2  # on the cable, of cells that are at their limit cycle already
# Shares of the cycle at which a premature beat is tried: dense where recovery is steep.
_SHARES = (*np.arange(1.0, 0.75, -0.05), *np.arange(0.75, 0.295, -1 / 60))


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

    The earliest wave follows in the wake of the one before, where tissue recovers ahead of it: it
    seems the faster the earlier it is. Intervals below that of the slowest wave are left out.

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
    intervals = float(cycle) * np.array(_SHARES)
    vm, state = initial_values(cell, cell.stimulus.amplitude)
    key = content_hash(
        cell, vm, state, cycle=float(cycle), intervals=intervals, dt=dt, edge=_EDGE,
        diffusivity=_DIFFUSIVITY, beats=_BEATS,
    )  # fmt: skip
    path = cache_folder() / f"wave-{key[:32]}.npz"
    known = load_result(path, {"rows": np.zeros((4, len(intervals)))})
    if known is None:
        paced = limit_cycle(cell, float(cycle), dt=dt).model
        found = cv_restitution(
            paced, float(cycle), s2=intervals, n_s1=_BEATS, edge=_EDGE, dt=dt,
            diffusivity=_DIFFUSIVITY,
        )  # fmt: skip
        rows = np.stack([found.interval, found.di, found.cv, found.apd]).astype(float)
        known = {"rows": rows}
        save_result(path, known)
    interval, di, cv, apd = known["rows"]
    velocity = float(cv[0])
    if not np.isfinite(velocity):
        raise ModelError(f"{cell.name} does not conduct every beat at {cycle:g} ms: pace slower.")
    blocked = np.isnan(cv) | (di < di[np.nanargmin(cv)])
    return MeasuredWave(
        wave_table(CableRestitution(interval, di, cv, apd, blocked, velocity)), velocity
    )
