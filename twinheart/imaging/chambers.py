"""The ventricles as implicit functions: the muscle is what the hull holds beside the cavities."""

from dataclasses import dataclass

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage
from scipy.spatial import KDTree

from twinheart.errors import MeshError
from twinheart.imaging.distance_grid import (
    DistanceGrid,
    Grid,
    Mask,
    Values,
    greatest,
    grid_positions,
    inside_volume,
    opened,
    redistanced,
    smoothed_distance,
)
from twinheart.imaging.image import voxel_spacing
from twinheart.imaging.slices import distances
from twinheart.mesh.implicit import SurfaceClass
from twinheart.types import Points

ENDOCARDIUM = {"LV": SurfaceClass.LV_ENDOCARDIUM, "RV": SurfaceClass.RV_ENDOCARDIUM}
# How far the cavities are led out through their valves [mm], beyond any wall.
OUTWARD = 8.0
# Half the width, over the edge length, below which a crevice of a cavity cannot be meshed.
_CREVICE = 0.75
# Grid steps by which the surface of a cavity may lie within its outermost voxels.
_LAYER = 0.3


@dataclass(frozen=True)
class MinimumWall:
    """Least thickness of the walls [mm]; what is thinner is thickened outwards.

    Parameters
    ----------
    lv, rv : float
        Of the LV's wall, the septum included, and of the RV's free wall; 0 leaves all as it is.
    """

    lv: float = 3.0
    rv: float = 2.5

    def of(self, ventricle: str) -> float:
        """Thickness [mm] of the wall around one ventricle, 'LV' or 'RV'."""
        return self.lv if ventricle == "LV" else self.rv

    def __post_init__(self):
        for name in ("lv", "rv"):
            value = getattr(self, name)
            if not 0 <= value <= 6:
                raise MeshError(
                    f"the minimum wall of the {name.upper()} is {value:g} mm, expected 0 to 6."
                )


@dataclass(frozen=True)
class Cavity:
    """One ventricle's blood on the grid.

    Parameters
    ----------
    distance : (i, j, k) array
        Signed distance [mm] to its surface, valve planes included.
    beyond : (i, j, k) bool array
        What lies outside its valves: there the wall is left open.
    valve_points, valve_normals : (node, 3) arrays
        Points [mm] on its valve planes; unit normals there, out of the blood.
    n_valves : int
        Number of separate valve planes.
    """

    distance: Grid
    beyond: Mask
    valve_points: Points
    valve_normals: Points
    n_valves: int


class Chambers(eqx.Module):
    """The muscle of the ventricles as an implicit function with named surfaces.

    Parameters
    ----------
    hull : DistanceGrid
        Epicardial hull: muscle and cavities.
    cavities : dict of DistanceGrid
        By ventricle, 'LV' and 'RV': the blood, led out through the valves.
    pools : dict of DistanceGrid
        The same without what lies outside the valves.
    valve_points : (node, 3) array
        Points [mm] on all valve planes.
    volume : float
        Volume [mm^3] of the muscle that was asked for.
    added, filled : float
        Volume [mm^3] that the minimum wall adds to it, and that crevices of the cavities too narrow
        for the mesh leave to it.
    euler : int
        Euler number of its surface if all walls hold: 2 less two for each valve but the first
        of its ventricle.
    notes : tuple of str
        Sentences for the user.
    """

    hull: DistanceGrid
    cavities: dict[str, DistanceGrid]
    pools: dict[str, DistanceGrid]
    valve_points: Float[np.ndarray, "point 3"]
    volume: float
    added: float
    filled: float
    euler: int
    notes: tuple[str, ...] = ()

    def distance(self, points: Points) -> Values:
        """Signed distance [mm] to the surface of the muscle, negative in it."""
        return greatest([(self.hull, 1.0), *((c, -1.0) for c in self.cavities.values())], points)

    @property
    def rim(self) -> Points:
        """Points [mm] near which walls may end."""
        return self.valve_points

    def bounds(self) -> Float[np.ndarray, "2 3"]:
        """Lower and upper corner [mm] of a box around the muscle."""
        corners = grid_positions(self.hull.affine, self.hull.values < self.hull.spacing)
        return np.array([corners.min(axis=0), corners.max(axis=0)])

    def classes(self, points: Points, normals: Points) -> Int[np.ndarray, "node"]:
        """`SurfaceClass` of points on the surface of the muscle.

        The base is what was cut at the valves, and the part of the hull whose nearest blood lies
        in a valve plane.
        """
        sides = [self.hull(points), *(-c(points) for c in self.cavities.values())]
        names = [SurfaceClass.EPICARDIUM, *(ENDOCARDIUM[name] for name in self.cavities)]
        classes = np.array(names, dtype=np.int32)[np.argmax(sides, axis=0)]
        blood = np.min([pool(points) for pool in self.pools.values()], axis=0)
        if not len(self.valve_points):
            return classes
        valve, _ = KDTree(self.valve_points).query(points, workers=-1)
        half = 0.5 * self.hull.spacing
        on_hull = classes == SurfaceClass.EPICARDIUM
        base = np.where(on_hull, valve < blood + half, (blood > half) & (valve < OUTWARD))
        classes[base] = SurfaceClass.BASE
        return classes


def assemble_chambers(
    hull: Grid,
    cavities: dict[str, Cavity],
    affine: Float[np.ndarray, "4 4"],
    edge: float,
    wall: MinimumWall,
    *,
    volume: float | None = None,
    notes: tuple[str, ...] = (),
) -> Chambers:
    """Make the muscle's implicit function from the surfaces of hull and cavities.

    Walls thinner than asked are thickened outwards, and the septum towards the RV; then the
    cavities are led out through their valves.

    Parameters
    ----------
    hull : (i, j, k) array
        Signed distance [mm] to the epicardial hull, cavities included.
    cavities : dict of Cavity
        By ventricle, 'LV' and perhaps 'RV', on the same grid.
    affine : (4, 4) array
        Grid indices to positions [mm].
    edge : float
        Edge length of the mesh to come [mm]: narrower crevices of the cavities are filled.
    wall : MinimumWall
        Least thickness of the walls.
    volume : float, optional
        Volume [mm^3] of the muscle that is asked for; by default what hull and cavities leave.
    notes : tuple of str
        Sentences to pass on.

    Returns
    -------
    Chambers
        The muscle.
    """
    spacing = voxel_spacing(affine)
    pools = {n: opened(c.distance, spacing, _CREVICE * edge) for n, c in cavities.items()}
    open_pools = {n: _led_out(pools[n], c.beyond, spacing) for n, c in cavities.items()}
    plain = inside_volume(_muscle(hull, open_pools), spacing)
    whole = {n: np.minimum(d, cavities[n].distance) for n, d in open_pools.items()}
    filled = plain - inside_volume(_muscle(hull, whole), spacing)

    far = {
        n: redistanced(p, spacing, wall.of(n) + 1) if wall.of(n) else p for n, p in pools.items()
    }
    if "RV" in pools and wall.lv:
        septum = wall.lv - far["LV"]
        pools["RV"] = np.maximum(pools["RV"], septum)
        open_pools["RV"] = np.maximum(open_pools["RV"], septum)
        far["RV"] = np.maximum(far["RV"], septum)
    thick = [far[n] - wall.of(n) for n in pools if wall.of(n)]
    if thick:
        open_side = _above_valves(cavities, hull, affine)
        coat = np.min(thick, axis=0)
        if open_side.any():
            coat = np.maximum(coat, -smoothed_distance(open_side, spacing))
        hull = np.minimum(hull, coat)
    added = inside_volume(_muscle(hull, open_pools), spacing) - plain
    extra = sum(max(c.n_valves - 1, 0) for c in cavities.values())
    return Chambers(
        DistanceGrid(hull, affine),
        {name: DistanceGrid(d, affine) for name, d in open_pools.items()},
        {name: DistanceGrid(d, affine) for name, d in pools.items()},
        np.concatenate([c.valve_points for c in cavities.values()]),
        plain - filled if volume is None else volume,
        added,
        filled,
        2 - 2 * extra,
        notes,
    )


def _muscle(hull: Grid, cavities: dict[str, Grid]) -> Grid:
    return np.maximum(hull, -np.min(list(cavities.values()), axis=0))


def _led_out(pool: Grid, beyond: Mask, spacing: Float[np.ndarray, "3"]) -> Grid:
    """Distance to a cavity together with what lies outside its valves."""
    if not beyond.any():
        return pool
    block = np.ones((3, 3, 3), dtype=bool)
    # smoothing may leave the outermost layer of a slanted mask just outside of the surface
    inner = pool < _LAYER * float(np.min(spacing))
    plug = inner & np.asarray(ndimage.binary_dilation(beyond, block, iterations=3), dtype=bool)
    return np.minimum(pool, smoothed_distance(beyond | plug, spacing))


def _above_valves(
    cavities: dict[str, Cavity], hull: Grid, affine: Float[np.ndarray, "4 4"]
) -> Mask:
    """What lies above the valve planes, outside of the hull: no wall belongs there."""
    blood = np.any([c.distance < 0 for c in cavities.values()], axis=0)
    beyond = np.any([c.beyond for c in cavities.values()], axis=0)
    block = np.ones((3, 3, 3), dtype=bool)
    valve = blood & np.asarray(ndimage.binary_dilation(beyond, block), dtype=bool)
    _, nearest = distances(blood, voxel_spacing(affine))
    beside = valve[tuple(nearest)] & ~blood & ~beyond & (hull > 0)
    places = grid_positions(affine, beside)
    points = np.concatenate([c.valve_points for c in cavities.values()])
    if not len(places) or not len(points):
        return beyond
    normals = np.concatenate([c.valve_normals for c in cavities.values()])
    _, at = KDTree(points).query(places, workers=-1)
    above = beyond.copy()
    above[beside] = np.einsum("nx,nx->n", places - points[at], normals[at]) > 0
    return above
