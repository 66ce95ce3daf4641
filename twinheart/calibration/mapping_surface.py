"""Places on a part of a heart's surface: exactly nearest points as weights of mesh nodes."""

from collections.abc import Iterable

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from twinheart.anatomy.surfaces import tag_surfaces
from twinheart.errors import InputError
from twinheart.mesh import TetMesh
from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.quality import boundary_triangles, renumbered
from twinheart.types import Points, Triangles

_NEAR = 8  # triangles looked at first
_CHUNK = 500_000  # pairs of point and triangle handled together: bounds the memory

Nearest = tuple[
    Int[np.ndarray, "point"], Float[np.ndarray, "point 3"], Float[np.ndarray, "point 3"]
]


class HeartSurface(eqx.Module):
    """A part of a heart's surface, on which measured points have their places.

    Parameters
    ----------
    points : (node, 3) array
        Vertices [mm].
    triangles : (triangle, 3) int array
        Their corners.
    nodes : (node,) int array
        Node of the heart's mesh behind each vertex.
    """

    points: Points
    triangles: Triangles
    nodes: Int[np.ndarray, "node"]
    centres: KDTree = eqx.field(static=True)
    reach: float = eqx.field(static=True)  # from a centre to the farthest of its corners

    def __init__(self, points, triangles, nodes):
        self.points, self.triangles, self.nodes = points, triangles, nodes
        corners = points[triangles]
        centres = corners.mean(axis=1)
        self.centres = KDTree(centres)
        self.reach = float(np.linalg.norm(corners - centres[:, None], axis=2).max())

    def closest(
        self, points: Float[np.ndarray, "point 3"]
    ) -> tuple[
        Int[np.ndarray, "point"], Float[np.ndarray, "point 3"], Float[np.ndarray, "point 3"]
    ]:
        """Exactly nearest places: triangles, weights of their corners, and positions [mm]."""
        n, total = len(points), len(self.triangles)
        best, weights = np.zeros(n, dtype=int), np.zeros((n, 3))
        open_, k = np.arange(n), min(_NEAR, total)
        while open_.size:
            unsure = []
            for part in np.array_split(open_, max(1, open_.size * k // _CHUNK)):
                far, near = self.centres.query(points[part], k=[*range(1, k + 1)])
                found, gap = _nearest_weights(points[part, None], self.points[self.triangles[near]])
                rows, column = np.arange(len(part)), gap.argmin(axis=1)
                best[part], weights[part] = near[rows, column], found[rows, column]
                # any triangle not looked at lies at least this far away
                unsure.append(part[np.sqrt(gap[rows, column]) > far[:, -1] - self.reach])
            open_ = np.concatenate(unsure) if k < total else open_[:0]
            k = min(4 * k, total)
        places = np.einsum("pk,pki->pi", weights, self.points[self.triangles[best]])
        return best, weights, places


def heart_surface(
    mesh: TetMesh,
    classes: Iterable[SurfaceClass] = (SurfaceClass.LV_ENDOCARDIUM, SurfaceClass.RV_ENDOCARDIUM),
) -> HeartSurface:
    """The part of a heart's surface on which a map was measured.

    Parameters
    ----------
    mesh : TetMesh
        The heart [mm]; its surfaces are tagged (`tag_surfaces`) where they are not yet.
    classes : sequence of SurfaceClass
        Which surfaces; by default both endocardia. A map of one chamber should name that one.

    Returns
    -------
    HeartSurface
        Triangles all of whose corners lie on one of these surfaces.

    Raises
    ------
    InputError
        If the heart has no such surface.
    MeshError
        If its surfaces are neither tagged nor can be told.

    Examples
    --------
    >>> from twinheart.anatomy import demo_heart
    >>> from twinheart.calibration.mapping_surface import heart_surface
    >>> from twinheart.mesh.implicit import SurfaceClass
    >>> surface = heart_surface(demo_heart().mesh, [SurfaceClass.LV_ENDOCARDIUM])
    >>> bool(len(surface.triangles) > 100)
    True
    """
    wanted = [SurfaceClass(one) for one in classes]
    tagged = tag_surfaces(mesh)
    triangles = boundary_triangles(tagged.tets)
    corners = tagged.point_fields["surf_class"][triangles]
    chosen = np.any([(corners == one).all(axis=1) for one in wanted], axis=0)
    if not np.any(chosen):
        names = ", ".join(one.name for one in wanted) or "none"
        raise InputError(f"the heart has no surface of the classes asked for ({names}).")
    nodes, triangles = renumbered(triangles[chosen], mesh.n_nodes)
    return HeartSurface(mesh.points[nodes], triangles.astype(np.int32), nodes)


def _nearest_weights(point, corners) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the corners (..., 3, 3) at the places nearest to points, and squared distances."""
    a, b, c = corners[..., 0, :], corners[..., 1, :], corners[..., 2, :]
    ab, ac, ap = b - a, c - a, point - a

    def dot(x, y):
        return np.einsum("...i,...i->...", x, y)

    d00, d01, d11, d20, d21 = dot(ab, ab), dot(ab, ac), dot(ac, ac), dot(ap, ab), dot(ap, ac)
    area = np.maximum(d00 * d11 - d01 * d01, 1e-300)
    v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
    weights = np.stack([1.0 - v - w, v, w], axis=-1)
    off = np.einsum("...k,...ki->...i", weights, corners) - point
    gap = np.where((weights >= 0).all(axis=-1), dot(off, off), np.inf)
    for i, j in ((0, 1), (1, 2), (2, 0)):  # outside, the nearest place is on a side
        side = corners[..., j, :] - corners[..., i, :]
        off = point - corners[..., i, :]
        share = np.clip(dot(off, side) / np.maximum(dot(side, side), 1e-300), 0.0, 1.0)
        off = off - share[..., None] * side
        on_side = np.zeros_like(weights)
        on_side[..., i], on_side[..., j] = 1.0 - share, share
        nearer = dot(off, off) < gap
        weights = np.where(nearer[..., None], on_side, weights)
        gap = np.where(nearer, dot(off, off), gap)
    return weights, gap
