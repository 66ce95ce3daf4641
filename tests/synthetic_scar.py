"""Synthetic LGE on a real heart: scars whose classes, masses and corridors are known."""

import functools
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import ConvexHull, Delaunay, KDTree

from twinheart.anatomy.frame import heart_frame
from twinheart.fem import gradients
from twinheart.imaging import Image
from twinheart.imaging.enhancement import Convention, Enhancement, Remote, classify
from twinheart.mesh import TetMesh

# Mean of healthy muscle, its standard deviation, and the brightest scar, in units of the image.
HEALTHY, SPREAD, BRIGHTEST = 100.0, 12.0, 500.0
_TERRACE, _RAMP = 2.5, 2.0  # mm


class Channel(NamedTuple):
    """A strand of border zone across a core, along its long (0) or short (1) axis."""

    along: int
    offset: float  # of its middle from that of the core, mm
    width: float
    blocked: bool = False  # by core, at its middle
    blind: bool = False  # from one side to the middle only


class Plan(NamedTuple):
    """A transmural scar on the free wall of the LV; lengths in mm along the mid-wall."""

    azimuth: float  # degrees from the point opposite the right ventricle
    height: float  # of the middle of the core, below the base
    radii: tuple[float, float]  # around and along the long axis
    halo: float
    channels: tuple[Channel, ...] = ()
    valve_gap: float = 0.0  # width of border zone between the core and the base; 0: far from it

    @property
    def n_corridors(self) -> int:
        """How many corridors it has by the definition of `twinheart.anatomy.corridors`."""
        return sum(not (c.blocked or c.blind) for c in self.channels) + (self.valve_gap > 0)


def random_plan(rng: np.random.Generator) -> Plan:
    """A scar with none to three corridors, and with what could be taken for one."""
    valve = rng.random() < 0.35
    radii = (float(rng.uniform(20, 24)), float(rng.uniform(14, 17)))
    kind = rng.integers(0, 5)
    width = float(rng.uniform(5.0, 6.5))
    if kind == 0:
        channels = ()
    elif kind == 1:
        channels = (Channel(int(rng.integers(0, 2)), float(rng.uniform(-3, 3)), width),)
    elif kind == 2:
        side = radii[0] / 2.6
        channels = (Channel(1, -side, width), Channel(1, side, width))
    elif kind == 3:
        channels = (Channel(int(rng.integers(0, 2)), 0.0, width, blocked=True),)
    else:
        channels = (Channel(int(rng.integers(0, 2)), 0.0, width, blind=True),)
    if valve:  # a channel towards the base would share its mouth with the strand along the valve
        channels = tuple(c for c in channels if c.along == 0)
    gap = float(rng.uniform(5.0, 7.0)) if valve else 0.0
    height = radii[1] + gap if valve else float(rng.uniform(33, 37))
    return Plan(
        float(rng.uniform(-50, 50)), height, radii, float(rng.uniform(2.0, 5.0)), channels, gap
    )


class Scar(NamedTuple):
    """Where the scar is: signed distances [mm] of points from its core and from all of it."""

    plan: Plan
    mesh: TetMesh

    def distances(self, points: np.ndarray, bordered: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Distance to the core, and to core, channels and halo (if bordered); negative inside."""
        plan = self.plan
        p = self._along_wall(points)
        radii = np.array(plan.radii)
        ratio = np.linalg.norm(p / radii, axis=1)
        slope = np.linalg.norm(p / radii**2, axis=1)
        outline = ratio * (ratio - 1) / np.maximum(slope, 1e-9)
        core = outline
        for channel in plan.channels:
            q, across = p[:, channel.along], p[:, 1 - channel.along]
            strip = channel.width / 2 - np.abs(across - channel.offset)
            if channel.blocked:
                strip = np.minimum(strip, np.abs(q) - 3.0)
            if channel.blind:
                strip = np.minimum(strip, q - 1.0)
            core = np.maximum(core, strip)
        zone = outline - plan.halo
        if plan.valve_gap:  # the strand fills all the way from the core to the base
            beside = np.abs(p[:, 0]) - 0.8 * radii[0]
            zone = np.minimum(zone, np.maximum(beside, -p[:, 1]))
        return core, zone if bordered else core

    def _along_wall(self, points: np.ndarray) -> np.ndarray:
        """Arc length around the LV and height towards the base, from the middle of the core."""
        frame = heart_frame(self.mesh)
        surfaces = self.mesh.point_fields["surf_class"]
        inner = self.mesh.points[surfaces == 3]
        base = (self.mesh.points[surfaces == 1] @ frame.base).mean()
        x = points - inner.mean(axis=0)
        around = np.arctan2(x @ frame.anterior, -(x @ frame.rv)) - np.radians(self.plan.azimuth)
        around = (around + np.pi) % (2 * np.pi) - np.pi
        below = base - points @ frame.base
        reach = np.linalg.norm(x - (x @ frame.base)[:, None] * frame.base, axis=1)
        near = np.abs(below - self.plan.height) < 12
        radius = np.median(reach[near & (np.abs(around) < 0.3)]) if near.any() else 35.0
        return np.stack([radius * around, self.plan.height - below], axis=1)


def perfect(intensity: np.ndarray) -> Enhancement:
    """What a perfect measurement of the synthetic image would know."""
    remote = Remote(HEALTHY, SPREAD, HEALTHY + 3 * SPREAD)
    return Enhancement(intensity, remote, BRIGHTEST)


def noise_free(scar: Scar, convention: Convention, points: np.ndarray) -> np.ndarray:
    """Intensity at points of the heart: terraces joined by ramps of 2 mm.

    From healthy muscle it rises to just below the border zone, to the middle of the border zone, to
    just above it, and to the brightest scar. At the edge of a class the ramp is symmetric: blur
    would otherwise move the edge itself.
    """
    core, border = (perfect(points).value(t) for t in (convention.core, convention.border))
    half = (core - border) / 2 if border < core else (core - HEALTHY) / 4
    levels = [HEALTHY, max(HEALTHY, border - half), border + half, core + half]
    levels.append(max(BRIGHTEST, levels[-1]) if convention.core.of == "max" else levels[-1])
    to_core, to_zone = scar.distances(points, border < core)
    if border == core:
        levels[2] = levels[3]
    steps = (to_zone - _TERRACE, to_zone, to_core, to_core + _TERRACE)
    values = np.full(len(points), HEALTHY)
    for distance, low, high in zip(steps, levels[:-1], levels[1:], strict=True):
        values += (high - low) * np.clip(0.5 - distance / _RAMP, 0, 1)
    return values


def true_classes(scar: Scar, convention: Convention) -> np.ndarray:
    """Classes that the convention gives to the noise-free intensity at the tetrahedra's centres."""
    centres = scar.mesh.points[scar.mesh.tets].mean(axis=1)
    return classify(perfect(noise_free(scar, convention, centres)), convention)


def synthetic_lge(
    scar: Scar,
    convention: Convention,
    *,
    voxel: tuple[float, float, float] = (1.5, 1.5, 1.5),
    blur: float = 0.5,
    noise: float = 0.02,
    blood: float = 150.0,
    lung: float = 20.0,
    seed: int = 0,
) -> Image:
    """An image of the scar: voxels [mm], blur [sd, mm], white noise [share of the brightest].

    Healthy muscle varies from voxel to voxel by `SPREAD` (the noise is part of it).
    """
    rng = np.random.default_rng(seed)
    size = np.array(voxel)
    low, shape = _box(scar.mesh, size)
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = low
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    points = points * size + low
    muscle, cavity = _where(_ById(scar.mesh), voxel)
    values = np.where(cavity, blood, lung).astype(float)
    values[muscle] = noise_free(scar, convention, points[muscle])
    values = values.reshape(shape)
    plain = np.zeros(len(points), dtype=bool)
    bordered = convention.border != convention.core
    plain[muscle] = scar.distances(points[muscle], bordered)[1] > _TERRACE + _RAMP / 2
    plain = plain.reshape(shape)
    values = gaussian_filter(values, blur / size)
    white = noise * BRIGHTEST
    values += white * rng.standard_normal(shape)
    texture = np.sqrt(max(SPREAD**2 - white**2, 0.0))
    values[plain] += texture * rng.standard_normal(int(plain.sum()))
    return Image(values, affine)


def _box(mesh: TetMesh, size: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    low, high = mesh.points.min(axis=0) - 8, mesh.points.max(axis=0) + 8
    return low, tuple(np.ceil((high - low) / size).astype(int).tolist())


class _ById:
    """A mesh as key of a cache."""

    def __init__(self, mesh: TetMesh):
        self.mesh = mesh

    def __hash__(self) -> int:
        return id(self.mesh)

    def __eq__(self, other) -> bool:
        return self.mesh is other.mesh


@functools.lru_cache(maxsize=2)
def _where(key: _ById, voxel: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Which voxels have their centres in the muscle (to half a millimetre), and which in a cavity.

    Cavities are what the convex hull holds beside muscle.
    """
    mesh, size = key.mesh, np.array(voxel)
    low, shape = _box(mesh, size)
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    points = points * size + low
    hull = Delaunay(mesh.points[ConvexHull(mesh.points).vertices])
    muscle = np.zeros(len(points), dtype=bool)
    in_hull = np.flatnonzero(hull.find_simplex(points) >= 0)
    # the nearest node's tetrahedra, and those around them, are asked whether they hold the point
    grad, _ = gradients(mesh.points, mesh.tets)
    centres = mesh.points[mesh.tets].mean(axis=1)
    near = KDTree(centres).query(points[in_hull], k=12)[1]
    for column in near.T:
        share = 0.25 + np.einsum("tai,ti->ta", grad[column], points[in_hull] - centres[column])
        muscle[in_hull] |= share.min(axis=1) >= -1e-9
    cavity = np.zeros(len(points), dtype=bool)
    cavity[in_hull] = ~muscle[in_hull]
    return muscle, cavity
