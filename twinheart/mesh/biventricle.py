"""The demo heart's shape: left and right ventricle of a plausible adult, as an implicit function.

Coordinates: base in the plane z = 0, apex below it, right ventricle towards -x; the front of the
heart is towards -y.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from twinheart.mesh.core import TetMesh
from twinheart.mesh.implicit import (
    SurfaceClass,
    Values,
    ellipsoid,
    require_resolved,
    smooth_max,
    smooth_min,
    surface_classes,
)
from twinheart.mesh.stuffing import stuff
from twinheart.types import Points


class Region(IntEnum):
    """Values of the cell field ``region``."""

    LV_FREE_WALL = 1
    SEPTUM = 2
    RV_FREE_WALL = 3


@dataclass(frozen=True)
class BiventricularShape:
    """Two truncated ellipsoids, one inside the other, make the LV; a third pair makes the RV.

    The RV is what its ellipsoids add to the LV: a crescent around the septum. All lengths in mm.
    The defaults give an LV cavity of 118 ml, an RV cavity of 118 ml and 178 ml of muscle.

    Parameters
    ----------
    lv_radius, lv_depth : float
        Semi-axes of the LV cavity, across and along the long axis.
    equator : float
        Height of the widest place of the LV; negative: below the base.
    lv_wall, apex_wall : float
        Thickness of the LV wall and of the septum at the equator, and at the apex.
    rv_centre, rv_radii : (3,) tuple of float
        Centre and semi-axes of the RV cavity.
    rv_lean : float
        Shift of the RV towards the LV for each mm towards the apex.
    rv_wall : float
        Thickness of the RV free wall.
    fillet, corner, rim : float
        Widths over which the outer groove between the ventricles is filled, over which the
        corners of the RV cavity are rounded, and over which the wall is rounded at the base.
    """

    lv_radius: float = 24.5
    lv_depth: float = 65.0
    equator: float = -20.0
    lv_wall: float = 9.5
    apex_wall: float = 6.5
    rv_centre: tuple[float, float, float] = (-25.0, -3.0, -8.0)
    rv_radii: tuple[float, float, float] = (39.0, 41.0, 67.0)
    rv_lean: float = 0.16
    rv_wall: float = 4.0
    fillet: float = 10.0
    corner: float = 6.0
    rim: float = 4.0

    def lv_cavity(self, points: Points) -> Values:
        """Distance to the LV endocardium [mm], negative in the cavity."""
        return ellipsoid(points, *self._lv(0.0, 0.0))

    def lv_body(self, points: Points) -> Values:
        """Distance to the outside of the LV and septum [mm], negative inside."""
        return ellipsoid(points, *self._lv(self.lv_wall, self.apex_wall))

    def rv_body(self, points: Points) -> Values:
        """Distance to the outside of the RV [mm], as if there were no LV; negative inside."""
        return self._rv(points, self.rv_wall)

    def rv_cavity(self, points: Points) -> Values:
        """Distance to the RV endocardium [mm], negative in the cavity."""
        return smooth_max(self._rv(points, 0.0), -self.lv_body(points), self.corner)

    def epicardium(self, points: Points) -> Values:
        """Distance to the epicardium [mm], negative inside, cavities included."""
        return smooth_min(self.lv_body(points), self.rv_body(points), self.fillet)

    def sides(self):
        """The functions whose maximum is the wall (but for its rounded rim), by their surface."""
        return {
            SurfaceClass.BASE: lambda x: x[:, 2],
            SurfaceClass.EPICARDIUM: self.epicardium,
            SurfaceClass.LV_ENDOCARDIUM: lambda x: -self.lv_cavity(x),
            SurfaceClass.RV_ENDOCARDIUM: lambda x: -self.rv_cavity(x),
        }

    def wall(self, points: Points) -> Values:
        """Distance to the surface of the muscle [mm], negative inside it."""
        base, *others = (side(points) for side in self.sides().values())
        return smooth_max(base, np.max(others, axis=0), self.rim)

    def bounds(self) -> np.ndarray:
        """Lower and upper corner [mm] of a box around the heart."""
        centre, radii = self._lv(self.lv_wall, self.apex_wall)
        rv_centre, rv_radii = np.asarray(self.rv_centre), np.asarray(self.rv_radii) + self.rv_wall
        sheared = rv_radii + np.array([self.rv_lean * rv_radii[2], 0.0, 0.0])
        low = np.minimum(centre - radii, rv_centre - sheared) - self.fillet / 4
        high = np.maximum(centre + radii, rv_centre + sheared) + self.fillet / 4
        high[2] = 0.0
        return np.array([low, high])

    def _lv(self, wall: float, apex_wall: float) -> tuple[np.ndarray, np.ndarray]:
        across = self.lv_radius + wall
        radii = np.array([across, across, self.lv_depth + apex_wall])
        return np.array([0.0, 0.0, self.equator]), radii

    def _rv(self, points: Points, wall: float) -> Values:
        leant = points.copy()
        leant[:, 0] += self.rv_lean * (points[:, 2] - self.rv_centre[2])
        return ellipsoid(leant, self.rv_centre, np.asarray(self.rv_radii) + wall)


def biventricle(edge: float = 2.0, shape: BiventricularShape | None = None) -> TetMesh:
    """Tetrahedral mesh of the demo heart's ventricles.

    Parameters
    ----------
    edge : float
        Mean edge length [mm]. Above 2 mm the free wall of the default RV is less than two
        tetrahedra thick.
    shape : BiventricularShape
        Its measures; the default is the demo heart's.

    Returns
    -------
    TetMesh
        With the point field ``surf_class`` (`SurfaceClass`) and the cell field ``region``
        (`Region`), both int32.

    Raises
    ------
    MeshError
        If a wall is thinner than one and a half edges (it would get holes), or the edge is not a
        positive length.

    Examples
    --------
    >>> from twinheart.mesh.biventricle import biventricle
    >>> mesh = biventricle(edge=2.5)
    >>> sorted(set(mesh.cell_fields["region"].tolist()))
    [1, 2, 3]
    """
    shape = shape or BiventricularShape()
    require_resolved(min(shape.lv_wall, shape.apex_wall, shape.rv_wall), edge)
    mesh = stuff(shape.wall, shape.bounds(), edge)
    # The rounded rim belongs to the base: no edge joins endocardium and epicardium across it.
    sides = shape.sides() | {SurfaceClass.BASE: lambda x: x[:, 2] + shape.rim / 4}
    classes = surface_classes(mesh, sides)
    centres = mesh.points[mesh.tets].mean(axis=1)
    lv, rv = shape.lv_body(centres), shape.rv_body(centres)
    region = np.full(mesh.n_tets, Region.LV_FREE_WALL, dtype=np.int32)
    region[rv < lv] = Region.SEPTUM
    region[(rv < lv) & (lv > 0)] = Region.RV_FREE_WALL
    return TetMesh(
        mesh.points,
        mesh.tets,
        {"surf_class": classes},
        {"region": region},
    )
