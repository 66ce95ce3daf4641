r"""What waves do that come out of one tissue into another, measured on a strand and kept on disk.

A strand of tissue that recovers late opens out of tissue that recovers early, which is paced ever
earlier. Premature waves die in the strand, the earlier the sooner: it recovers ahead of them more
slowly than they come. Before one dies it slows down, more than a steady wave of a cable does, and
may so wait until tissue has recovered: it dies within two millimetres or runs through. The
electrotonic time of `twinheart.tissue.coupled_waves`, and how slow waves become just before block,
are those with which waves of the re-excitable eikonal go as deep as those of the monodomain
equation.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from twinheart.anatomy import Heart
from twinheart.cell import AbstractCellModel
from twinheart.cell.paced_cache import kept, measured_path
from twinheart.errors import ModelError
from twinheart.mesh.generate import slab
from twinheart.planning.induction.monodomain_trains import Stimulator, prepare_pacing, train_of
from twinheart.planning.pacing_sites import PacingSite
from twinheart.tissue import (
    Sites,
    Velocities,
    WaveTable,
    build_eikonal,
    coupled_tables,
    eikonal_train,
)
from twinheart.tissue.cable import scalar_parameters
from twinheart.tissue.conductivity import NIEDERER_2011, Conduction
from twinheart.tissue.coupled_waves import ELECTROTONIC_TIME
from twinheart.tissue.measured_wave import measured_wave

EARLY, LATE = 0, 1  # tags of a strand
DEPTH = 5.0  # mm into the strand, from where waves are its own
_LEAD, _LENGTH, _EDGE, _RADIUS = 12.0, 15.0, 0.25, 2.0  # mm
_END_OF_LEAD = (0.0, 0.0, 0.0)  # where stimuli are given
_TIMES = np.arange(1.0, 25.0)  # ms
_SLOWEST = (0.2, 0.25, 0.3)  # of the velocity
_WAITS = (2.0, 4.0)  # ms
_STEADY = 0.4  # share of the velocity: slower waves do not last
_INTERVALS, _FINER = 10, 9
_LEAST = 10.0  # ms: where tissues recover at the same time by less, nothing is measured
_AFTER = 300.0  # ms, in which a premature wave runs along the strand
_END = 4.0  # mm of the strand that are left out
_BIN, _ROWS = 3.0, 100  # ms of intervals taken together; rows at most
_SAME = 3.0  # ms: activations nearer than this are one


class Strand:
    """A cable of early tissue that goes on as a strand of late tissue.

    Parameters
    ----------
    cells, conduction : mapping of int to cell or conduction
        Of the tags `EARLY` and `LATE`.
    cycle : float
        Of S1 [ms].
    edge : float
        Of the elements [mm].
    dt : float
        Time step [ms].

    Attributes
    ----------
    x : (place,) array
        Way into the strand [mm]; negative in early tissue.
    """

    def __init__(
        self,
        cells: Mapping[int, AbstractCellModel],
        conduction: Mapping[int, Conduction],
        cycle: float,
        *,
        edge: float = _EDGE,
        dt: float = 0.02,
    ):
        mesh = slab((_LEAD + _LENGTH, edge, edge), edge)
        tags = np.where(mesh.points[mesh.tets].mean(axis=1)[:, 0] < _LEAD, EARLY, LATE)
        self.heart, self.cycle, self.dt = Heart(mesh, regions=tags.astype(np.int32)), cycle, dt
        self._cells, self._conduction = dict(cells), dict(conduction)
        line = np.flatnonzero((mesh.points[:, 1] == 0) & (mesh.points[:, 2] == 0))
        self._line = line[np.argsort(mesh.points[line, 0])]
        self.x = mesh.points[self._line, 0] - _LEAD

    def monodomain(
        self, early: Sequence[float]
    ) -> Iterator[tuple[Float[np.ndarray, "place"], Float[np.ndarray, "place"]]]:
        """Activation by S1 and by each S2 [ms], infinite where a wave does not come.

        Parameters
        ----------
        early : sequence of float
            Intervals from S1 to S2 [ms], descending.
        """
        tissue = prepare_pacing(
            self.heart, self._cells, self._conduction, cycle=self.cycle, dt=self.dt
        )
        stimulator = Stimulator(tissue, PacingSite("end", _END_OF_LEAD, _END_OF_LEAD), _RADIUS)
        n_nodes, times = self.heart.mesh.n_nodes, [self.cycle + k for k in early]
        before = stimulator.run(stimulator.start(), self.cycle).end
        ahead = stimulator.run(before, times[0], keep=times)
        first = train_of(ahead.node, ahead.time, n_nodes).lat[self._line, 0]
        for at in times:
            seen = stimulator.run(ahead.kept[at], at + _AFTER, to_rest=True)
            lat = train_of(seen.node, seen.time, n_nodes).lat[self._line]
            later = lat > np.maximum(at, first + _SAME)[:, None]  # S1 may still be on its way
            yield first, np.where(later, lat, np.inf).min(axis=1, initial=np.inf)

    def eikonal(
        self,
        early: Sequence[float],
        tables: Mapping[int, WaveTable],
        velocities: Mapping[int, float],
        time: float,
    ) -> Iterator[Float[np.ndarray, "place"]]:
        """Activation by each S2 [ms], as of `monodomain`.

        Parameters
        ----------
        early : sequence of float
            Intervals from S1 to S2 [ms].
        tables, velocities : mapping
            Restitution and velocities [m/s] of `EARLY` and `LATE`.
        time : float
            Electrotonic time [ms].
        """
        tissue: dict[int, Any] = {tag: Velocities(cv, cv) for tag, cv in velocities.items()}
        problem = build_eikonal(self.heart, tissue)
        coupled = coupled_tables(problem, tables, time)
        for k in early:
            pulses = [
                Sites([_END_OF_LEAD], at, _RADIUS) for at in (0.0, self.cycle, self.cycle + k)
            ]
            t_end = self.cycle + k + _AFTER
            lat = eikonal_train(problem, pulses, coupled, t_end=t_end).lat[self._line]
            third = lat[:, 2] if lat.shape[1] > 2 else np.full(len(lat), np.nan)
            yield np.where(np.isnan(third), np.inf, third)

    def depth(self, lat: Float[np.ndarray, "place"]) -> float:
        """How deep a wave goes into the strand [mm], at most to `DEPTH`."""
        return float(np.clip(self.x[np.isfinite(lat)].max(initial=0.0), 0.0, DEPTH))


class Border(NamedTuple):
    """What waves do that come out of one tissue into another that recovers later.

    Attributes
    ----------
    table : WaveTable
        Of the later tissue; it has shorter intervals and slower waves than a cable of its own.
    time : float
        Electrotonic time [ms].
    """

    table: WaveTable
    time: float


def measured_border(
    early: AbstractCellModel, late: AbstractCellModel, cycle: float = 600.0
) -> Border:
    """Restitution of tissue that is driven by another, and how far either reaches.

    Healthy tissue drives a border zone: it lets a wave in earlier than a stimulus in the border
    zone starts one. It takes some minutes the first time, besides the cables of both
    cells, and is kept in `twinheart.cell.paced_cache.cache_folder`.

    Parameters
    ----------
    early, late : AbstractCellModel
        Cells of the same conductivity; parameters that differ from node to node are averaged.
    cycle : float
        Of S1 and of the limit cycle [ms].

    Returns
    -------
    Border
        Where `late` does not recover later by 10 ms there is nothing to measure: its own table and
        `twinheart.tissue.coupled_waves.ELECTROTONIC_TIME`.

    Raises
    ------
    ModelError
        If a cell does not follow this cycle, or S1 does not run along the strand.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from twinheart.cell import get_model
    >>> from twinheart.planning.strand import measured_border
    >>> cell = get_model("mitchell-schaeffer")
    >>> found = measured_border(cell, replace(cell, tau_close=cell.tau_close * 1.3), 500.0)
    >>> 1.0 < found.time < 30.0
    True
    """
    cells = {EARLY: scalar_parameters(early), LATE: scalar_parameters(late)}
    tables = {tag: measured_wave(cell, cycle).table for tag, cell in cells.items()}
    least = {tag: float(table.di[0] + table.apd[-1]) for tag, table in tables.items()}
    if least[LATE] - least[EARLY] < _LEAST:
        return Border(tables[LATE], ELECTROTONIC_TIME)
    settings = {
        "cycle": float(cycle), "edge": _EDGE, "lengths": (_LEAD, _LENGTH, _RADIUS, DEPTH, _END),
        "times": _TIMES, "slowest": _SLOWEST, "waits": _WAITS, "steady": _STEADY,
        "intervals": (_INTERVALS, _FINER), "bins": (_BIN, _SAME, _AFTER),
    }  # fmt: skip
    path = measured_path("strand", *cells.values(), **settings)
    like = {"time": np.zeros(()), "rows": np.zeros((2, _ROWS)), "slow": np.zeros(2)}
    what = f"a strand of {cells[LATE].name} behind {cells[EARLY].name} (some minutes)"
    known = kept(path, like, lambda: _measured(cells, tables, float(cycle)), what)
    table = with_early(tables[LATE], known["rows"])
    return Border(with_slow(table, *known["slow"]), float(known["time"]))


def _measured(cells, tables: dict[int, WaveTable], cycle: float) -> dict[str, np.ndarray]:
    dt = min(0.02, *(float(cell.dt) for cell in cells.values()))
    strand = Strand(cells, {tag: NIEDERER_2011 for tag in cells}, cycle, dt=dt)
    late, early = (float(tables[tag].di[0] + tables[tag].apd[-1]) for tag in (LATE, EARLY))
    intervals = np.linspace(late, early, _INTERVALS + 1)[:-1].tolist()
    waves = list(strand.monodomain(intervals))
    first = waves[0][0]
    dies = next((k for k, (_, lat) in enumerate(waves) if strand.depth(lat) < DEPTH), 0)
    if dies:  # more of those between the last that runs through and the second that does not
        end = min(dies + 1, _INTERVALS - 1)
        more = np.linspace(intervals[dies - 1], intervals[end], _FINER + 2)[1:-1].tolist()
        waves[dies:end] = strand.monodomain(more)
        intervals[dies:end] = more
    if not np.isfinite(first).all():
        raise ModelError(
            f"a strand of {cells[EARLY].name} and {cells[LATE].name} does not conduct at a cycle "
            f"of {cycle:g} ms: pace slower."
        )
    settled = (strand.x > 2 * _RADIUS - _LEAD) & (strand.x < _LENGTH - 2 * _RADIUS)
    velocities = {
        tag: float(1.0 / np.polyfit(strand.x[part & settled], first[part & settled], 1)[0])
        for tag, part in ((EARLY, strand.x < -1.0), (LATE, strand.x > 1.0))
    }
    rows = early_rows(strand, waves, tables[LATE], velocities[LATE])
    own = {EARLY: tables[EARLY], LATE: with_early(tables[LATE], rows)}
    depths = np.array([strand.depth(lat) for _, lat in waves])
    time, slowest, wait = fitted_border(strand, intervals, depths, own, velocities)
    return {"time": np.array(time), "rows": rows, "slow": np.array([slowest, wait])}


def early_rows(
    strand: Strand, waves, settled: WaveTable, velocity: float
) -> Float[np.ndarray, "2 row"]:
    """Intervals [ms] and shares of the velocity of waves that run along a strand.

    Parameters
    ----------
    strand : Strand
        Where.
    waves : sequence of two arrays
        From `Strand.monodomain`; those are read that come before the first that dies.
    settled : WaveTable
        Of a cable; intervals it has are not read.
    velocity : float
        After S1 [m/s].

    Returns
    -------
    (2, row) array
        Ascending, without waves so slow that they wait; the rest is NaN.
    """
    x = strand.x
    used = (x > DEPTH) & (x <= x.max() - _END)
    found = [np.zeros((2, 0))]
    for first, lat in waves:
        if not np.isfinite(lat[used]).all():
            break
        with np.errstate(invalid="ignore"):  # where the wave has not been
            share = 1.0 / np.gradient(lat, x) / velocity
        found.append(np.stack([lat - first - settled.apd[-1], share])[:, used])
    di, share = np.concatenate(found, axis=1)
    known = (di < settled.di[0]) & (share > 0)
    bins = np.floor(di[known] / _BIN)
    rows = np.full((2, _ROWS), np.nan)
    for n, k in enumerate(np.unique(bins)[-_ROWS:]):
        rows[:, n] = _BIN * (k + 0.5), np.median(share[known][bins == k])
    rows[:, rows[1] < _STEADY] = np.nan
    return rows


def with_early(settled: WaveTable, rows: Float[np.ndarray, "2 row"]) -> WaveTable:
    """A table with shorter intervals, followed by the shortest duration it has."""
    di, share = rows[:, np.isfinite(rows[0]) & (rows[0] < settled.di[0])]
    return WaveTable(
        [*di, *settled.di], [*share, *settled.speed], [*(settled.apd[0] for _ in di), *settled.apd]
    )


def with_slow(table: WaveTable, share: float, wait: float) -> WaveTable:
    """A table whose waves slow down to a share of their velocity, this long [ms] before block."""
    if wait <= 0.0 or share >= table.speed[0]:
        return table
    return WaveTable(
        [table.di[0] - wait, *table.di], [share, *table.speed], [table.apd[0], *table.apd]
    )


def fitted_border(
    strand: Strand,
    early: Sequence[float],
    depths: Float[np.ndarray, "interval"],
    tables: Mapping[int, WaveTable],
    velocities: Mapping[int, float],
    *,
    times: Sequence[float] | Float[np.ndarray, "time"] = _TIMES,
    slow: Sequence[tuple[float, float]] = tuple(product(_SLOWEST, _WAITS)),
) -> tuple[float, float, float]:
    """How far tissues reach and waves slow down, so that those of the eikonal go as deep.

    Parameters
    ----------
    strand : Strand
        Where.
    early : sequence of float
        Intervals from S1 to S2 [ms].
    depths : (interval,) array
        How deep their waves should go [mm].
    tables, velocities : mapping
        See `Strand.eikonal`; the table of `LATE` without its slowest waves.
    times : sequence of float
        Electrotonic times to choose from [ms].
    slow : sequence of two floats
        Shares of the velocity to choose from, and how long before block [ms], see `with_slow`;
        besides waves that do not slow down more than the table says.

    Returns
    -------
    time, share, wait : float
        Of those that miss the depths by least, the first: the shortest time.
    """

    def misfit(chosen: tuple[float, float, float]) -> float:
        time, share, wait = chosen
        own = {**tables, LATE: with_slow(tables[LATE], share, wait)}
        found = [strand.depth(lat) for lat in strand.eikonal(early, own, velocities, time)]
        return float(np.abs(np.array(found) - depths).mean())

    choices = [(1.0, 0.0), *slow]
    return min(((float(time), *one) for time in times for one in choices), key=misfit)
