"""Scarred slabs for the study of induction: core, rim and channels of random size, seeded."""

from typing import Any, NamedTuple

import numpy as np

from twinheart.anatomy import Heart
from twinheart.cell import AbstractCellModel, limit_cycle
from twinheart.cell.mitchell_schaeffer import MitchellSchaeffer
from twinheart.imaging.enhancement import BORDER, CORE
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import slab
from twinheart.planning import PacingSite, Protocol, Stage, prepare_pacing
from twinheart.planning.monodomain_trains import Stimulator, train_of
from twinheart.tissue import (
    NonConducting,
    Velocities,
    WaveTable,
    cv_restitution,
    wave_table,
)
from twinheart.tissue.conductivity import Conduction

SIZE, EDGE, DT = (46.0, 40.0, 0.5), 0.5, 0.1  # mm, ms
CYCLE = 350.0  # ms, of S1 and of the limit cycle
CELLS: dict[int, AbstractCellModel] = {
    0: MitchellSchaeffer(tau_open=80.0, tau_close=70.0),
    BORDER: MitchellSchaeffer(tau_open=80.0, tau_close=85.0),  # a longer action potential
    CORE: MitchellSchaeffer(tau_open=80.0, tau_close=70.0),
}
SPEED = {0: 0.5, BORDER: 0.2}  # m/s
CONDUCTION: dict[int, Conduction] = {
    0: Velocities(SPEED[0], SPEED[0]),
    BORDER: Velocities(SPEED[BORDER], SPEED[BORDER]),
    CORE: NonConducting(),
}
PROTOCOL = Protocol("S1 x 2, S2, S3", 2, CYCLE, (Stage(230.0, 10.0, 90.0),) * 2)
MARGIN = 3.0  # mm of the sites from the border of the slab
RADIUS = 2.0  # mm, of the ball that a stimulus excites
LENGTH, BIN = 50.0, 3.0  # mm of the strand, ms of its intervals taken together


class ScarredSlab(NamedTuple):
    """A slab, how it was made, and where it is paced."""

    heart: Heart
    sites: tuple[PacingSite, ...]
    made: dict[str, Any]


def scarred_slab(number: int, seed: int) -> ScarredSlab:
    """Slab of a number; the same one for the same seed."""
    rng = np.random.default_rng([seed, number])
    mesh = slab(SIZE, EDGE)
    middle = np.array(SIZE) / 2
    x, y, _ = (mesh.points[mesh.tets].mean(axis=1) - middle).T
    half = (rng.uniform(7.0, 17.0), rng.uniform(7.0, 14.0))
    rim = rng.choice([0.0, rng.uniform(1.0, 2.0)])
    phases, depth = rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.0, 0.12)
    turn = np.arctan2(y / half[1], x / half[0])
    wavy = 1 + depth * (np.cos(2 * turn + phases[0]) + np.cos(3 * turn + phases[1]))
    radius = np.hypot(x / half[0], y / half[1]) / wavy
    scar = np.where(radius < 1, CORE, 0)
    scar[(radius >= 1) & (radius < 1 + rim / min(half))] = BORDER
    made = {"half_mm": half, "rim_mm": float(rim), "channels": []}
    for _ in range(rng.choice(3, p=[0.1, 0.55, 0.35])):
        made["channels"].append(_dig(rng, scar, radius, x, y, half))
    mesh = TetMesh(mesh.points, mesh.tets, {}, {"scar": scar.astype(np.int32)})
    return ScarredSlab(Heart(mesh, regions=scar), _sites(rng), made)


def _dig(rng, scar, radius, x, y, half) -> dict[str, Any]:
    """A channel of border zone through the core, maybe closed by a plug of core."""
    angle = rng.uniform(0, np.pi)
    width = rng.uniform(2.0, 4.5)
    offset = rng.uniform(-0.35, 0.35) * min(half)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    bend = rng.uniform(-0.02, 0.02)
    across = across - offset - bend * along**2
    inside = (np.abs(across) < width / 2) & (radius < 1)
    closed = bool(rng.random() < 0.25)
    if closed:
        where, thick = rng.uniform(-0.7, 0.7) * min(half), rng.uniform(2.0, 4.0)
        inside &= np.abs(along - where) > thick / 2
    scar[inside] = BORDER
    return {
        "angle_deg": float(np.degrees(angle)),
        "width_mm": float(width),
        "offset_mm": float(offset),
        "bend_per_mm": float(bend),
        "closed": closed,
    }


def _sites(rng) -> tuple[PacingSite, ...]:
    """One near the middle of each side of the slab."""
    (wide, high, _), shift = SIZE, rng.uniform(-0.25, 0.25, 4)
    places = (
        (wide * (0.5 + shift[0]), MARGIN),
        (wide - MARGIN, high * (0.5 + shift[1])),
        (wide * (0.5 + shift[2]), high - MARGIN),
        (MARGIN, high * (0.5 + shift[3])),
    )
    names = ("below", "right", "above", "left")
    return tuple(
        PacingSite(name, (float(a), float(b), 0.0), (float(a), float(b), 0.0))
        for name, (a, b) in zip(names, places, strict=True)
    )


class Measured(NamedTuple):
    """What cables of the slabs' own spacing and step tell of healthy tissue and border zone.

    `tables` hold what is seen half-way along a cable, where a premature wave has fallen back behind
    the one before; `wake` what is seen everywhere, also where it still follows closely.
    """

    tables: dict[int, WaveTable]
    wake: dict[int, WaveTable]
    velocities: dict[int, float]


def measure_cables() -> Measured:
    """Restitution of both tissues, from the limit cycle of their cells."""
    tables, wake, velocities = {}, {}, {}
    for tag, speed in SPEED.items():
        cell = limit_cycle(CELLS[tag], CYCLE).model
        intervals = [*range(340, 240, -20), *range(240, 60, -5)]
        found = cv_restitution(cell, CYCLE, s2=intervals, n_s1=2, edge=EDGE, velocity=speed, dt=DT)
        tables[tag], velocities[tag] = wave_table(found), found.cv_regular
        wake[tag] = wake_table(tag, tables[tag], velocities[tag])
    tables[CORE], wake[CORE] = tables[0], wake[0]
    return Measured(tables, wake, velocities)


def wake_table(tag: int, settled: WaveTable, velocity: float) -> WaveTable:
    """Local velocity after the local interval, along a strand that is paced ever earlier.

    Shorter intervals than those of the settled table are added to it; their durations follow those
    of the table on a straight line.
    """
    strand = slab((LENGTH, EDGE, EDGE), EDGE)
    speed = Velocities(SPEED[tag], SPEED[tag])
    tissue = prepare_pacing(Heart(strand), CELLS[tag], speed, cycle=CYCLE, dt=DT)
    stimulator = Stimulator(tissue, PacingSite("end", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)), RADIUS)
    line = np.flatnonzero((strand.points[:, 1] == 0) & (strand.points[:, 2] == 0))
    line = line[np.argsort(strand.points[line, 0])]
    x = strand.points[line, 0]
    used = (x > RADIUS) & (x <= LENGTH - 4.0)
    before = stimulator.run(stimulator.start(), CYCLE).end
    times = [CYCLE + k for k in range(240, 80, -5)]
    ahead = stimulator.run(before, times[0], keep=times)
    first = train_of(ahead.node, ahead.time, strand.n_nodes).lat[line, 0]
    repolarised = first + settled.apd[-1]
    found = []
    for at in times:
        seen = stimulator.run(ahead.kept[at], at + 400.0, to_rest=True)
        lat = train_of(seen.node, seen.time, strand.n_nodes).lat[line]
        later = lat > np.maximum(at, first + BIN)[:, None]  # S1 may still be on its way
        lat = np.where(later, lat, np.inf).min(axis=1)
        if not np.isfinite(lat[used]).all():
            break
        share = 1.0 / np.gradient(lat[used], x[used]) / velocity
        found.append(np.stack([(lat - repolarised)[used], share]))
    di, share = np.concatenate(found, axis=1)
    early = (di < settled.di[0]) & (share > 0)
    bins = np.floor(di[early] / BIN)
    rows = [(BIN * (k + 0.5), float(np.median(share[early][bins == k]))) for k in np.unique(bins)]
    rows = [row for row in rows if row[0] < settled.di[0]]
    slope = np.gradient(settled.apd, settled.di)[:4].mean() if len(settled.di) > 4 else 0.0
    apd = [float(settled.apd[0] + slope * (row[0] - settled.di[0])) for row in rows]
    return WaveTable(
        [*(row[0] for row in rows), *settled.di],
        [*(row[1] for row in rows), *settled.speed],
        [*apd, *settled.apd],
    )
