"""The endocardium of one ventricle: a surface to walk on, whose places have anatomical names.

A place is named by `ab`, 0 at the apex and 1 at the base, and `rt`, in turns around the ventricle.
In the left one the septum lies between 2/3 (in front) and 1 = 0 (behind), the lateral wall at 1/3;
in the right one the septum has the same numbers and the free wall runs from 0, behind, to 2/3, in
front: the coordinates of `twinheart.anatomy.coordinates`. They are taken from the mesh where it
carries them, else estimated from the axes of the heart.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree

from twinheart.anatomy.coordinates import coordinates_of
from twinheart.anatomy.frame import HeartFrame, heart_frame
from twinheart.errors import MeshError
from twinheart.mesh import TetMesh
from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.quality import boundary_triangles, triangle_normals
from twinheart.types import Points, Triangles

_SIDES = (SurfaceClass.LV_ENDOCARDIUM, SurfaceClass.RV_ENDOCARDIUM)
_NEAR = 8  # triangles around a point among which the nearest is sought
_ROUND = 0.3  # radius of a ventricle over its length: makes turns and heights comparable


class Endocardium(eqx.Module):
    """Endocardial surface of one ventricle with the coordinates of its vertices.

    Parameters
    ----------
    points : (node, 3) array
        Vertices [mm].
    triangles : (triangle, 3) int array
        Their corners, normals into the cavity.
    nodes : (node,) int array
        Node of the heart's mesh behind each vertex.
    ab, rt : (node,) arrays
        Height, 0 at the apex to 1 at the base, and rotation [turns], see the module.
    """

    points: Points
    triangles: Triangles
    nodes: Int[np.ndarray, "node"]
    ab: Float[np.ndarray, "node"]
    rt: Float[np.ndarray, "node"]

    @property
    def normals(self) -> Float[np.ndarray, "triangle 3"]:
        """Unit normals of the triangles, into the cavity."""
        return triangle_normals(self.points, self.triangles)

    def vertex(self, ab: float, rt: float) -> int:
        """The vertex nearest to a named place."""
        turn = np.abs(np.exp(2j * np.pi * self.rt) - np.exp(2j * np.pi * rt))
        return int(((self.ab - ab) ** 2 + (_ROUND * turn) ** 2).argmin())

    def place(self, ab: float, rt: float) -> Float[np.ndarray, "3"]:
        """Position [mm] of a named place."""
        return self.points[self.vertex(ab, rt)]


def endocardium(mesh: TetMesh, surface: SurfaceClass) -> Endocardium | None:
    """Endocardial surface of a ventricle, None where the heart has no such ventricle.

    Parameters
    ----------
    mesh : TetMesh
        Ventricles whose surfaces are tagged by the point field ``surf_class``.
    surface : SurfaceClass
        LV or RV endocardium.

    Returns
    -------
    Endocardium or None
        Surface and coordinates.

    Raises
    ------
    MeshError
        If the surfaces are not tagged.

    Examples
    --------
    >>> from twinheart.anatomy import demo_heart
    >>> from twinheart.anatomy.endocardium import endocardium
    >>> from twinheart.mesh.implicit import SurfaceClass
    >>> lv = endocardium(demo_heart().mesh, SurfaceClass.LV_ENDOCARDIUM)
    >>> x, y, z = lv.place(0.5, 5 / 6)  # the middle of the septum, right of the LV
    >>> bool(x < -20)
    True
    """
    classes = mesh.point_fields.get("surf_class")
    if classes is None or classes.shape != (mesh.n_nodes,):
        raise MeshError(
            "the mesh has no point field 'surf_class' that says where LV (3) and RV (4) "
            "endocardium are: tag the surfaces with 'twinheart anatomy build'."
        )
    triangles = boundary_triangles(mesh.tets)
    triangles = triangles[(classes[triangles] == surface).all(axis=1)]
    if not len(triangles):
        return None
    nodes, corners = np.unique(triangles, return_inverse=True)
    points = mesh.points[nodes]
    corners = corners.reshape(-1, 3)
    known = coordinates_of(mesh)
    if known is None:
        ab, rt = _estimated(mesh, points, corners, surface)
    else:
        ab, rt = known.ab[nodes], known.rt[nodes]
    return Endocardium(points, corners.astype(np.int32), nodes, ab, rt)


def _estimated(mesh: TetMesh, points, triangles, surface) -> tuple[np.ndarray, np.ndarray]:
    """Height along the long axis, and angle around it from the middle of the septum."""
    frame = heart_frame(mesh)
    height = points @ frame.base
    ab = (height - height.min()) / np.ptp(height)
    lv = mesh.points[mesh.point_fields["surf_class"] == SurfaceClass.LV_ENDOCARDIUM]
    offset = points - lv.mean(axis=0)
    turn = np.arctan2(offset @ frame.anterior, offset @ frame.rv) / (2 * np.pi)
    if surface == SurfaceClass.LV_ENDOCARDIUM:
        return ab, (5 / 6 - turn) % 1.0
    septal = _faces_right(points, triangles, frame)
    low, high = np.quantile(turn, (0.02, 0.98))
    forward = np.clip((turn - low) / (high - low), 0.0, 1.0)
    return ab, np.where(septal, 1.0 - forward / 3, 2 / 3 * forward)


def _faces_right(points, triangles, frame: HeartFrame) -> np.ndarray:
    """Vertices of the RV endocardium from which the cavity lies to the right: the septum's."""
    corner, second, third = (points[triangles[:, k]] for k in range(3))
    towards = np.repeat(np.cross(second - corner, third - corner) @ frame.rv, 3)
    return np.bincount(triangles.ravel(), towards, len(points)) > 0


class Ground(eqx.Module):
    """What walking on an endocardium needs to be looked up fast."""

    surface: Endocardium
    centres: KDTree = eqx.field(static=True)
    corners: Float[np.ndarray, "triangle 3 3"]
    normals: Float[np.ndarray, "triangle 3"]

    def __init__(self, surface: Endocardium):
        self.surface = surface
        self.corners = surface.points[surface.triangles]
        self.centres = KDTree(self.corners.mean(axis=1))
        self.normals = surface.normals

    def project(
        self, points: Float[np.ndarray, "point 3"]
    ) -> tuple[Float[np.ndarray, "point 3"], Int[np.ndarray, "point"]]:
        """Nearest points of the surface, and the triangles they lie on."""
        _, near = self.centres.query(points, k=min(_NEAR, len(self.corners)))
        near = near.reshape(len(points), -1)
        found = _nearest_in_triangles(points[:, None], self.corners[near])
        gap = np.linalg.norm(found - points[:, None], axis=2)
        best = gap.argmin(axis=1)
        rows = np.arange(len(points))
        return found[rows, best], near[rows, best]

    def height(self, triangles: Int[np.ndarray, "point"]) -> Float[np.ndarray, "point"]:
        """`ab` at triangles."""
        return self.surface.ab[self.surface.triangles[triangles]].mean(axis=1)

    def along(self, directions, triangles) -> np.ndarray:
        """Unit directions, made tangent to the surface at triangles."""
        normal = self.normals[triangles]
        flat = directions - np.einsum("pi,pi->p", directions, normal)[:, None] * normal
        return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)

    def walk(self, start, goal, step: float) -> Float[np.ndarray, "point 3"]:
        """Way over the surface from one place to another in steps of about `step` [mm].

        It always heads for the goal: on a round cavity that is the shortest way.
        """
        way = [np.asarray(start)]
        most = int(4 * np.linalg.norm(goal - start) / step) + 4
        while np.linalg.norm(goal - way[-1]) > 0.75 * step and len(way) < most:
            here, triangle = self.project(way[-1][None])
            ahead = self.along((goal - way[-1])[None], triangle)
            way.append(self.project(here + step * ahead)[0][0])
        return np.stack(way)


def _nearest_in_triangles(point, corners) -> np.ndarray:
    """Nearest point of each triangle (..., 3, 3) to points (..., 3)."""
    a, b, c = corners[..., 0, :], corners[..., 1, :], corners[..., 2, :]
    ab, ac, ap = b - a, c - a, point - a

    def dot(x, y):
        return np.einsum("...i,...i->...", x, y)

    d00, d01, d11 = dot(ab, ab), dot(ab, ac), dot(ac, ac)
    d20, d21 = dot(ap, ab), dot(ap, ac)
    area = np.maximum(d00 * d11 - d01 * d01, 1e-300)
    v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
    inside = (v >= 0) & (w >= 0) & (v + w <= 1)
    best = a + v[..., None] * ab + w[..., None] * ac
    gap = np.where(inside, dot(best - point, best - point), np.inf)
    for start, side in ((a, ab), (a, ac), (b, c - b)):
        share = np.clip(dot(point - start, side) / np.maximum(dot(side, side), 1e-300), 0.0, 1.0)
        on_edge = start + share[..., None] * side
        distance = dot(on_edge - point, on_edge - point)
        nearer = distance < gap
        best, gap = np.where(nearer[..., None], on_edge, best), np.minimum(gap, distance)
    return best


def endocardial_layer(mesh: TetMesh, *, below: float = 0.9) -> Bool[np.ndarray, "tet"]:
    """Tetrahedra that touch an endocardium below a height.

    Parameters
    ----------
    mesh : TetMesh
        Ventricles with tagged surfaces.
    below : float
        Height `ab` up to which the layer goes.

    Returns
    -------
    (tet,) bool array
        True in the layer.

    Raises
    ------
    MeshError
        If the surfaces are not tagged.

    Examples
    --------
    >>> from twinheart.anatomy import demo_heart
    >>> from twinheart.anatomy.endocardium import endocardial_layer
    >>> layer = endocardial_layer(demo_heart().mesh)
    >>> bool(0.1 < layer.mean() < 0.4)
    True
    """
    chosen = np.zeros(mesh.n_nodes, dtype=bool)
    for side in _SIDES:
        surface = endocardium(mesh, side)
        if surface is not None:
            chosen[surface.nodes[surface.ab < below]] = True
    return np.asarray(chosen[mesh.tets].any(axis=1))
