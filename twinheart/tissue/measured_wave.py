"""Waves of a paced cell: its restitution on a cable as a table, measured once and kept on disk."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from twinheart.cell import AbstractCellModel, limit_cycle
from twinheart.cell.paced_cache import kept, measured_path
from twinheart.errors import ModelError
from twinheart.tissue.cable import scalar_parameters
from twinheart.tissue.restitution import PLACES, CableRestitution, cv_restitution
from twinheart.tissue.wave_table import WaveTable, wave_table

# Share of a velocity at rest does not depend on it, so one cable serves all tissues [mm2/ms].
_DIFFUSIVITY = 0.1
_EDGE, _DT = 0.25, 0.02  # mm, ms
_BEATS = 2  # on the cable, of cells that are at their limit cycle already
# Shares of the cycle at which a premature beat is tried first; then as many where it fails.
_SHARES = np.concatenate([np.linspace(1.0, 0.75, 5, endpoint=False), np.linspace(0.75, 0.3, 15)])
_WAKE = 1.05
_BIN = 2.0  # ms of intervals along the cable taken together
_SLOPE = 20.0  # ms of intervals over which the slope of durations is read


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
    that seem faster by more than a twentieth are left out. What waves do after intervals still
    shorter is read nearer to where they begin; durations go on with the slope they have there.

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
    path = measured_path(
        "wave", cell, cycle=float(cycle), shares=_SHARES, dt=dt, edge=_EDGE,
        diffusivity=_DIFFUSIVITY, beats=_BEATS, places=PLACES,
    )  # fmt: skip
    n = 2 * len(_SHARES)
    like = {"rows": np.zeros((4, n)), "local": np.zeros((2, n, PLACES))}
    what = f"restitution of {cell.name} on a cable (half a minute)"
    known = kept(path, like, lambda: _premature_beats(cell, float(cycle), dt), what)
    interval, di, cv, apd = known["rows"]
    velocity = float(cv[0])
    if not np.isfinite(velocity):
        raise ModelError(f"{cell.name} does not conduct every beat at {cycle:g} ms: pace slower.")
    least = np.nanmin(cv)
    wake = di < di[np.nanargmin(cv)]
    blocked = np.isnan(cv) | (wake & (cv > _WAKE * least))
    cv = np.where(wake & ~blocked, least, cv)
    table = wave_table(CableRestitution(interval, di, cv, apd, blocked, velocity, *known["local"]))
    local_di, local_cv = (x[~np.isnan(cv)].ravel() for x in known["local"])
    return MeasuredWave(_earlier(table, local_di, local_cv / velocity), velocity)


def _earlier(
    table: WaveTable, di: Float[np.ndarray, "reading"], speed: Float[np.ndarray, "reading"]
) -> WaveTable:
    """The table with what waves do after intervals shorter than its own."""
    known = np.isfinite(di) & np.isfinite(speed) & (di < table.di[0])
    bins = np.floor((table.di[0] - di[known]) / _BIN).astype(int)
    if not len(bins):
        return table
    near = table.di <= table.di[0] + _SLOPE
    slope = max(np.polyfit(table.di[near], table.apd[near], 1)[0], 0.0) if near.sum() > 1 else 0.0
    rows = []
    for k in np.unique(bins):  # the longest first
        before = _BIN * (k + 0.5)
        duration = max(table.apd[0] - slope * before, table.apd[0] / 2)
        slowest = rows[-1][1] if rows else table.speed[0]
        share = float(np.median(speed[known][bins == k]))
        rows.append((table.di[0] - before, min(slowest, share), duration))
    return WaveTable(
        *(np.concatenate([np.array(new)[::-1], old]) for new, old in zip(
            zip(*rows, strict=True), (table.di, table.speed, table.apd), strict=True
        ))
    )  # fmt: skip


def _premature_beats(cell: AbstractCellModel, cycle: float, dt: float) -> dict[str, np.ndarray]:
    """Interval, DI, CV and APD of premature beats, the longest interval first; DI and CV along."""
    paced = limit_cycle(cell, cycle, dt=dt).model

    def beats(intervals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = cv_restitution(
            paced, cycle, s2=intervals, n_s1=_BEATS, edge=_EDGE, dt=dt, diffusivity=_DIFFUSIVITY
        )
        middle = np.stack([found.interval, found.di, found.cv, found.apd])
        return middle.astype(float), np.stack([found.local_di, found.local_cv]).astype(float)

    rows, local = beats(cycle * _SHARES)
    failed = np.flatnonzero(np.isnan(rows[2]))
    k = int(failed[0]) if failed.size else rows.shape[1] - 1
    fine = np.linspace(rows[0, max(k - 2, 0)], rows[0, k], len(_SHARES) + 2)[1:-1]
    more, more_local = beats(fine)
    rows, local = np.concatenate([rows, more], axis=1), np.concatenate([local, more_local], axis=1)
    order = np.argsort(-rows[0], kind="stable")
    return {"rows": rows[:, order], "local": local[:, order]}
