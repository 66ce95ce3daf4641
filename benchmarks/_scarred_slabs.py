"""Scarred slabs for the study of induction: core, rim and channels of random size, seeded."""

from typing import Any, NamedTuple

import numpy as np

from twinheart.anatomy import Heart
from twinheart.cell import AbstractCellModel
from twinheart.cell.mitchell_schaeffer import MitchellSchaeffer
from twinheart.imaging.enhancement import BORDER, CORE
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import slab
from twinheart.planning import PacingSite, Protocol, Stage
from twinheart.planning.strand import measured_border
from twinheart.tissue import NonConducting, Velocities, WaveTable
from twinheart.tissue.conductivity import Conduction
from twinheart.tissue.electrotonic import electrotonic_time
from twinheart.tissue.measured_wave import measured_wave

SIZE, EDGE = (54.0, 50.0, 0.5), 0.5  # mm
DT = 1 / 12  # ms: six steps in half a millisecond, each stable without stages
CYCLE = 350.0  # ms, of S1 and of the limit cycle
# Action potentials are short, so that circuits fit into a small slab. The border zone recovers
# later and is coupled less. The front of this cell is broad enough for the spacing: plane waves run
# as fast along the diagonals of the lattice as along its edges, to 2 % (those of a Bueno-Orovio
# cell twice as fast at 0.25 m/s).
_HEALTHY = MitchellSchaeffer(tau_open=70.0, tau_close=35.0)
_BORDER = MitchellSchaeffer(tau_open=240.0, tau_close=100.0)
CELLS: dict[int, AbstractCellModel] = {0: _HEALTHY, BORDER: _BORDER, CORE: _HEALTHY}
SPEED = {0: 0.6, BORDER: 0.25}  # m/s
CONDUCTION: dict[int, Conduction] = {
    0: Velocities(SPEED[0], SPEED[0]),
    BORDER: Velocities(SPEED[BORDER], SPEED[BORDER]),
    CORE: NonConducting(),
}
PROTOCOL = Protocol("S1 x 2, S2, S3", 2, CYCLE, (Stage(260.0, 10.0, 130.0),) * 2)
MARGIN = 3.0  # mm of the sites from the border of the slab
RADIUS = 2.0  # mm, of the ball that a stimulus excites


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
    half = rng.uniform(13.0, 17.0, 2).tolist()
    rim = rng.choice([0.0, rng.uniform(1.0, 2.0)])
    phases, depth = rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.0, 0.12)
    turn = np.arctan2(y / half[1], x / half[0])
    wavy = 1 + depth * (np.cos(2 * turn + phases[0]) + np.cos(3 * turn + phases[1]))
    radius = np.hypot(x / half[0], y / half[1]) / wavy
    scar = np.where(radius < 1, CORE, 0)
    scar[(radius >= 1) & (radius < 1 + rim / min(half))] = BORDER
    made = {"half_mm": half, "rim_mm": float(rim), "channels": []}
    for _ in range(rng.choice(3, p=[0.2, 0.6, 0.2])):
        made["channels"].append(_dig(rng, scar, radius, x, y, half))
    mesh = TetMesh(mesh.points, mesh.tets, {}, {"scar": scar.astype(np.int32)})
    return ScarredSlab(Heart(mesh, regions=scar), _sites(rng), made)


def _dig(rng, scar, radius, x, y, half) -> dict[str, Any]:
    """A channel of border zone through the core, maybe closed by a plug of core."""
    angle = rng.uniform(0, np.pi)
    width = rng.uniform(2.0, 4.5)
    offset = rng.uniform(-0.35, 0.35) * min(half)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    swing, wave = rng.uniform(0.0, 0.9) * min(half), rng.uniform(16.0, 22.0)
    at = 2 * np.pi * (along / wave + rng.random())
    across = across - offset - swing * np.sin(at)
    slope = 2 * np.pi * swing / wave * np.cos(at)
    inside = (np.abs(across) < width / 2 * np.hypot(1.0, slope)) & (radius < 1)
    closed = bool(rng.random() < 0.35)
    if closed:
        where, thick = rng.uniform(-0.7, 0.7) * min(half), rng.uniform(2.0, 4.0)
        inside &= np.abs(along - where) > thick / 2
    scar[inside] = BORDER
    return {
        "angle_deg": float(np.degrees(angle)),
        "width_mm": float(width),
        "offset_mm": float(offset),
        "swing_mm": float(swing),
        "wave_mm": float(wave),
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
    """What is measured of the cells, as `build_substrate` does it: once, and kept on disk.

    Wave tables and velocities [m/s] of each tissue; electrotonic times [ms] of waves and durations.
    """

    tables: dict[int, WaveTable]
    velocities: dict[int, float]
    coupling: float
    durations: float


def measure_cells() -> Measured:
    """Restitution of both tissues, and how far they reach."""
    healthy, border = CELLS[0], CELLS[BORDER]
    found = measured_border(healthy, border, CYCLE)
    table = measured_wave(healthy, CYCLE).table
    return Measured(
        {0: table, BORDER: found.table, CORE: table},
        dict(SPEED),
        found.time,
        electrotonic_time(healthy, border, CYCLE),
    )
