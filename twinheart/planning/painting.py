r"""Scar painted on a heart through its coordinates: scenarios whose core and channels are known.

An area is either a disc, all within a radius [mm] of a line through the wall at a named place, or a
patch, a range of heights and turns. Lengths are geodesic: shortest ways within the muscle, from the
eikonal equation with unit velocity. Depths and places are coordinates (see
`twinheart.anatomy.coordinates`): 0 to 1 from apex to base and from endocardium to epicardium, and
turns around the ventricle, of which 0 to 2/3 are the free wall and 2/3 to 1 the septum.

Border zone goes over healthy tissue, core over both, and channels turn core back into border zone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree

from twinheart.anatomy import Coordinates, Heart, coordinates_of
from twinheart.anatomy.coordinates import coordinates
from twinheart.anatomy.transfer import places_of_coordinates
from twinheart.errors import InputError
from twinheart.imaging.enhancement import BORDER, CORE, HEALTHY
from twinheart.mesh import TetMesh
from twinheart.mesh.quality import mean_edge
from twinheart.tissue import Velocities, arrival, build_eikonal

Ventricle = Literal["lv", "rv", "both"]
_NEAR = 2.0  # within so many edges of a line a distance is straight
_DEPTHS = 9  # points through the wall


@dataclass(frozen=True)
class Area:
    """Part of the wall: a disc (`at` and `radius`) or a patch (`ab` and `rt`).

    Parameters
    ----------
    at : pair of float, optional
        Height and turns of the middle of a disc.
    radius : float, optional
        Of the disc [mm], along the wall.
    ab, rt : pair of float, optional
        From and to, of a patch; turns run upwards and past 1 where the second is the smaller.
    tm : pair of float
        Depths between which it lies, 0 endocardium to 1 epicardium or the middle of the septum.
    ventricle : {"lv", "rv", "both"}
        ``"both"`` fills the whole septum; elsewhere it paints twice.
    rim : float
        Width of border zone around the area [mm], in all directions.
    """

    at: tuple[float, float] | None = None
    radius: float | None = None
    ab: tuple[float, float] | None = None
    rt: tuple[float, float] | None = None
    tm: tuple[float, float] = (0.0, 1.0)
    ventricle: Ventricle = "lv"
    rim: float = 0.0

    def __post_init__(self):
        disc = (self.at is not None, self.radius is not None)
        patch = (self.ab is not None, self.rt is not None)
        if (disc, patch) not in (((True, True), (False, False)), ((False, False), (True, True))):
            raise InputError("an area is either a disc (at and radius) or a patch (ab and rt).")


@dataclass(frozen=True)
class Channel:
    """A strand of border zone through core.

    Parameters
    ----------
    path : sequence of pairs of float
        Heights and turns of its ends and of bends between them. Between two of them both change
        evenly, the turns the shorter way round.
    width : float
        Its width [mm].
    tm : pair of float
        Depths through which the path extends, 0 endocardium to 1 epicardium. Equal numbers make a
        round strand.
    ventricle : {"lv", "rv", "both"}
        ``"both"`` goes through the whole septum.
    """

    path: Sequence[tuple[float, float]]
    width: float
    tm: tuple[float, float] = (0.0, 1.0)
    ventricle: Ventricle = "lv"


@dataclass(frozen=True)
class ScarPlan:
    """What is to be painted.

    Parameters
    ----------
    cores, borders : sequence of Area
        Dense scar, and border zone beside the rims of the cores.
    channels : sequence of Channel
        Strands through the cores.
    """

    cores: Sequence[Area] = ()
    borders: Sequence[Area] = ()
    channels: Sequence[Channel] = ()


def paint_scar(mesh: TetMesh, plan: ScarPlan) -> Int[np.ndarray, "tet"]:
    """Classes of a painted scar.

    Parameters
    ----------
    mesh : TetMesh
        Ventricles [mm]; coordinates are taken from its point fields or computed.
    plan : ScarPlan
        What to paint.

    Returns
    -------
    (tet,) int array
        0 healthy, 1 border zone, 2 core, by the centres of the tetrahedra.

    Raises
    ------
    InputError
        If an entry of the plan holds no tetrahedron, a channel crosses no core, or the right
        ventricle is painted and the heart has none.
    MeshError
        If the heart has no coordinates and they cannot be computed.

    Examples
    --------
    >>> from twinheart.anatomy.coordinates import add_coordinates
    >>> from twinheart.mesh.generate import lv_ellipsoid
    >>> from twinheart.planning import Area, Channel, ScarPlan, paint_scar
    >>> mesh = add_coordinates(lv_ellipsoid(edge=4.0))
    >>> core = Area(at=(0.5, 0.3), radius=15.0, rim=4.0)
    >>> through = Channel(path=[(0.2, 0.3), (0.9, 0.3)], width=8.0)
    >>> sorted(set(paint_scar(mesh, ScarPlan([core], channels=[through])).tolist()))
    [0, 1, 2]
    """
    canvas = _Canvas(mesh)
    classes = np.full(mesh.n_tets, HEALTHY, dtype=np.int32)
    for k, area in enumerate(plan.borders, start=1):
        classes[canvas.area(area, f"border {k}")] = BORDER
    cores = [canvas.area(area, f"core {k}") for k, area in enumerate(plan.cores, start=1)]
    for area, chosen in zip(plan.cores, cores, strict=True):
        if area.rim > 0:
            classes[canvas.within(chosen, area.rim)] = BORDER
    for chosen in cores:  # after all rims: a rim does not eat the core beside it
        classes[chosen] = CORE
    dense = classes == CORE
    for k, channel in enumerate(plan.channels, start=1):
        strand = canvas.strand(channel, f"channel {k}") & dense
        if not strand.any():
            raise InputError(f"channel {k} crosses no core: move its path or paint a core there.")
        classes[strand] = BORDER
    return classes


class _Canvas:
    """A heart, the coordinates of its parts, and distances within it."""

    def __init__(self, mesh: TetMesh):
        self.mesh = mesh
        self.edge = mean_edge(mesh)
        stored = coordinates_of(mesh)
        self.own: Coordinates = coordinates(mesh) if stored is None else stored
        self.at = _at_centres(self.own, mesh.tets)
        self.problem = build_eikonal(Heart(mesh), Velocities(1.0, 1.0, 1.0))

    def area(self, area: Area, name: str) -> Bool[np.ndarray, "tet"]:
        sides = self._sides(area.ventricle, name)
        low, high = area.tm
        inside = np.isin(self.at.tv, sides) & (low <= self.at.tm) & (self.at.tm <= high)
        if area.at is not None and area.radius is not None:
            line = self._places([area.at], (0.0, 1.0), sides)
            inside &= self._from_points(line) <= area.radius
        elif area.ab is not None and area.rt is not None:
            low, high = area.ab
            inside &= (low <= self.at.ab) & (self.at.ab <= high)
            start, end = area.rt
            inside &= (self.at.rt - start) % 1.0 <= (end - start) % 1.0
        if not inside.any():
            raise InputError(
                f"{name} holds no tetrahedron of this heart, whose edges are {self.edge:.1f} mm: "
                "make it larger, or take a finer mesh."
            )
        return inside

    def within(self, chosen: Bool[np.ndarray, "tet"], distance: float) -> Bool[np.ndarray, "tet"]:
        """All tetrahedra within a distance [mm] of some."""
        onset = np.full(self.mesh.n_nodes, np.inf)
        onset[self.mesh.tets[chosen]] = 0.0
        return self._ways(onset) <= distance

    def strand(self, channel: Channel, name: str) -> Bool[np.ndarray, "tet"]:
        sides = self._sides(channel.ventricle, name)
        bends = _even(channel.path, 16)  # enough to know how long it is
        middle = self._places(bends, (0.5, 0.5), sides[:1])
        length = np.linalg.norm(np.diff(middle, axis=0), axis=1).sum()
        count = int(np.ceil(length / (self.edge / 2) / (len(channel.path) - 1))) + 1
        ribbon = self._places(_even(channel.path, count), channel.tm, sides)
        return self._from_points(ribbon) <= channel.width / 2

    def _sides(self, ventricle: Ventricle, name: str) -> list[int]:
        sides = {"lv": [0], "rv": [1], "both": [0, 1]}[ventricle]
        if 1 in sides and not (self.own.tv == 1).any():
            raise InputError(f"{name} is in the right ventricle, but this heart has only a left.")
        return sides

    def _places(self, path, depths, sides: list[int]) -> Float[np.ndarray, "point 3"]:
        """Points at named places, through a range of depths."""
        count = 1 if depths[0] == depths[1] else _DEPTHS
        tm = np.tile(np.linspace(depths[0], depths[1], count), len(path))
        ab, rt = np.repeat(np.array(path, dtype=float), count, axis=0).T
        tv = np.ones(len(tm), dtype=np.int32)
        return np.concatenate(
            [
                places_of_coordinates(
                    self.mesh, Coordinates(tm, ab, rt % 1.0, side * tv), self.own
                ).of_nodes(self.mesh.points)
                for side in sides
            ]
        )

    def _from_points(self, points: Float[np.ndarray, "point 3"]) -> Float[np.ndarray, "tet"]:
        """Distance [mm] of the tetrahedra's centres from the nearest of some points."""
        distance = KDTree(points).query(self.mesh.points)[0]
        onset = np.where(distance <= _NEAR * self.edge, distance, np.inf)
        return self._ways(onset)

    def _ways(self, onset: Float[np.ndarray, "node"]) -> Float[np.ndarray, "tet"]:
        found = np.asarray(arrival(self.problem, at_nodes=onset), dtype=float)
        return found[self.mesh.tets].mean(axis=1)


def _at_centres(own: Coordinates, tets: Int[np.ndarray, "tet 4"]) -> Coordinates:
    """Coordinates of the tetrahedra's centres; turns are averaged as directions."""
    signed = np.where(own.tv == 0, 1.0, -1.0) * (1.0 - own.tm)  # continuous through the septum
    depth = signed[tets].mean(axis=1)
    flat = (own.ab * np.exp(2j * np.pi * own.rt))[tets].mean(axis=1)
    rt = np.mod(np.angle(flat) / (2 * np.pi), 1.0)
    return Coordinates(1 - np.abs(depth), np.abs(flat), rt, (depth < 0).astype(np.int32))


def _even(path: Sequence[tuple[float, float]], count: int) -> list[tuple[float, float]]:
    """Places along a path, so many for each of its pieces."""
    places = [path[0]]
    share = np.linspace(0, 1, count)[1:]
    for (ab, rt), (next_ab, next_rt) in pairwise(path):
        turn = (next_rt - rt + 0.5) % 1.0 - 0.5
        places += zip(ab + share * (next_ab - ab), rt + share * turn, strict=True)
    return places
