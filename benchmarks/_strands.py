"""What strands by monodomain tell of the slabs' tissues: restitution, and how far regions reach.

A strand is a channel that opens out of a sheet of healthy tissue, with the slabs' spacing and step;
the sheet is paced ever earlier.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from _scarred_slabs import CELLS, CONDUCTION, CYCLE, DT, EDGE, RADIUS, SPEED

from twinheart.anatomy import Heart
from twinheart.cell import limit_cycle
from twinheart.imaging.enhancement import BORDER, CORE
from twinheart.mesh.generate import slab
from twinheart.planning import PacingSite, prepare_pacing
from twinheart.planning.induction.monodomain_trains import Stimulator, train_of
from twinheart.tissue import (
    NonConducting,
    Sites,
    Velocities,
    WaveTable,
    build_eikonal,
    coupled_tables,
    cv_restitution,
    eikonal_train,
    wave_table,
)

LEAD, LENGTH, WIDTH = 15.0, 40.0, 3.0  # mm of the sheet and of the channel
DEPTH = 5.0  # mm into the channel, from where waves are its own
BIN = 3.0  # ms of intervals taken together
EARLY = range(250, 110, -10)  # ms, premature intervals of which restitution is read
EARLIEST = range(188, 136, -4)  # ms, around those that begin to block, in the healthy tissue too
TIMES = range(4, 21)  # ms, of electrotonic coupling
_END = 4.0  # mm of the channel that are left out
_PLACE = (0.0, LEAD / 2, 0.0)


class Measured(NamedTuple):
    """Wave tables and velocities [m/s] of both tissues, and their electrotonic time [ms]."""

    tables: dict[int, WaveTable]
    velocities: dict[int, float]
    coupling: float


class Strand:
    """A channel of a tissue behind a sheet of healthy tissue.

    Attributes
    ----------
    x : (node,) array
        Way of the nodes of its middle line into the channel [mm].
    """

    def __init__(self, tag: int):
        mesh = slab((LEAD + LENGTH, LEAD, EDGE), EDGE)
        along, across, _ = mesh.points[mesh.tets].mean(axis=1).T
        inside = np.abs(across - LEAD / 2) < WIDTH / 2
        tags = np.where(along < LEAD, 0, np.where(inside, tag, CORE)).astype(np.int32)
        self.heart = Heart(mesh, regions=tags)
        self._tags = sorted({int(tag) for tag in tags})
        line = np.flatnonzero((mesh.points[:, 1] == LEAD / 2) & (mesh.points[:, 2] == 0))
        self._line = line[np.argsort(mesh.points[line, 0])]
        self.x = mesh.points[self._line, 0] - LEAD

    def monodomain(self, early) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Activation of the middle line by S1 and by each S2, infinite where it does not come."""
        cells = {tag: CELLS[tag] for tag in self._tags}
        conduction = {tag: CONDUCTION[tag] for tag in self._tags}
        tissue = prepare_pacing(self.heart, cells, conduction, cycle=CYCLE, dt=DT)
        stimulator = Stimulator(tissue, PacingSite("end", _PLACE, _PLACE), RADIUS)
        n_nodes, times = self.heart.mesh.n_nodes, [CYCLE + k for k in early]
        before = stimulator.run(stimulator.start(), CYCLE).end
        ahead = stimulator.run(before, times[0], keep=times)
        first = train_of(ahead.node, ahead.time, n_nodes).lat[self._line, 0]
        for at in times:
            seen = stimulator.run(ahead.kept[at], at + 400.0, to_rest=True)
            lat = train_of(seen.node, seen.time, n_nodes).lat[self._line]
            # S1 may still be on its way
            later = lat > np.maximum(at, first + BIN)[:, None]
            yield first, np.where(later, lat, np.inf).min(axis=1)

    def eikonal(self, early, measured: Measured) -> Iterator[np.ndarray]:
        """Activation of the middle line by each S2."""
        tissue: dict[int, Any] = {tag: Velocities(v, v) for tag, v in measured.velocities.items()}
        problem = build_eikonal(
            self.heart, {tag: tissue.get(tag, NonConducting()) for tag in self._tags}
        )
        tables = coupled_tables(problem, measured.tables, measured.coupling)
        for k in early:
            pulses = [Sites([_PLACE], at, RADIUS) for at in (0.0, CYCLE, CYCLE + k)]
            lat = eikonal_train(problem, pulses, tables, t_end=CYCLE + k + 400.0).lat[self._line]
            third = lat[:, 2] if lat.shape[1] > 2 else np.full(len(lat), np.nan)
            yield np.where(np.isnan(third), np.inf, third)

    def depth(self, lat: np.ndarray) -> float:
        """How deep a wave goes into the channel, at most to where waves are its own [mm]."""
        return float(np.clip(self.x[np.isfinite(lat)].max(initial=0.0), 0.0, DEPTH))


def measure_strands() -> Measured:
    """Restitution of both tissues for waves that come out of healthy tissue, and their coupling.

    Healthy tissue drives tissue that is coupled less: it lets a wave in earlier than a cable of it
    conducts one. The electrotonic time is that with which premature waves of the eikonal go as deep
    into a channel of border zone as those of monodomain.
    """
    tables, velocities = {}, {}
    for tag, speed in SPEED.items():
        cell = limit_cycle(CELLS[tag], CYCLE).model
        found = cv_restitution(
            cell, CYCLE, s2=[*range(340, 250, -10), *EARLY], n_s1=2, edge=EDGE, velocity=speed,
            dt=DT,
        )  # fmt: skip
        velocities[tag] = found.cv_regular
        tables[tag] = _early_waves(tag, wave_table(found), velocities[tag])
    tables[CORE] = tables[0]
    channel = Strand(BORDER)
    depths = np.array([channel.depth(lat) for _, lat in channel.monodomain(EARLIEST)])

    def misfit(time: float) -> float:
        measured = Measured(tables, velocities, time)
        own = [channel.depth(lat) for lat in channel.eikonal(EARLIEST, measured)]
        return float(np.abs(np.array(own) - depths).mean())

    return Measured(tables, velocities, float(min(TIMES, key=misfit)))


def _early_waves(tag: int, settled: WaveTable, velocity: float) -> WaveTable:
    """Local velocity after the local interval, along a strand that is paced ever earlier.

    Of the table of a cable, intervals longer than those seen on the strand are kept, with their
    durations; shorter ones are followed by the shortest of these.
    """
    strand = Strand(tag)
    x = strand.x
    used = (x > (DEPTH if tag else RADIUS - LEAD)) & (x <= LENGTH - _END)
    found = []
    for first, lat in strand.monodomain(EARLY):
        if not np.isfinite(lat[used]).all():
            break
        share = 1.0 / np.gradient(lat, x)[used] / velocity
        found.append(np.stack([(lat - first)[used] - settled.apd[-1], share]))
    di, share = np.concatenate(found, axis=1)
    bins = np.floor(di / BIN)
    rows = [(BIN * (k + 0.5), float(np.median(share[bins == k]))) for k in np.unique(bins)]
    rows = [row for row in rows if row[0] < settled.di[0] and row[1] > 0]
    return WaveTable(
        [*(row[0] for row in rows), *settled.di],
        [*(row[1] for row in rows), *settled.speed],
        [*(settled.apd[0] for _ in rows), *settled.apd],
    )
