"""The axes of a heart, found from its shape alone: where base, apex, right ventricle and front are.

Meshes come in every coordinate system, so neither standard electrodes nor the views of a picture
may rely on x, y and z.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float
from scipy.spatial import ConvexHull, KDTree, QhullError

from twinheart.errors import MeshError
from twinheart.mesh import TetMesh
from twinheart.mesh.implicit import SurfaceClass

# Axes of an average heart in its patient: left, anterior and superior components.
# The apex points to the left, forwards and down; the right ventricle lies right and in front.
_APEX_IN_PATIENT = np.array([1.0, 1.0, -0.8])
_RV_IN_PATIENT = np.array([-1.0, 1.0, 0.0])


class HeartFrame(eqx.Module):
    """Centre and orthonormal axes of a heart, in the coordinates of its mesh.

    Parameters
    ----------
    centre : (3,) array
        Centre of the filled heart (of its convex hull) [mm].
    base : (3,) array
        Unit vector of the long axis, from apex to base.
    rv : (3,) array
        Unit vector from the left to the right ventricle, orthogonal to `base`.
    anterior : (3,) array
        ``base x rv``: looking against it, the right ventricle is on the left of the picture.
    rv_known : bool
        False where the shape does not tell the right ventricle (a slab, a lone left ventricle);
        `rv` is then an arbitrary but reproducible direction.
    """

    centre: Float[np.ndarray, "3"]
    base: Float[np.ndarray, "3"]
    rv: Float[np.ndarray, "3"]
    anterior: Float[np.ndarray, "3"]
    rv_known: bool

    def from_patient(self, offsets: Float[np.ndarray, "point 3"]) -> Float[np.ndarray, "point 3"]:
        """Offsets in mm to the patient's (left, front, head) as offsets in mesh coordinates.

        The heart is assumed to lie in its chest as an average one does: apex to the left,
        forwards and down (1, 1, -0.8), right ventricle to the right and forwards.
        """
        apex = _APEX_IN_PATIENT / np.linalg.norm(_APEX_IN_PATIENT)
        right = _RV_IN_PATIENT - apex * (_RV_IN_PATIENT @ apex)
        right /= np.linalg.norm(right)
        # (left, front, head) is a left-handed triple: the front of the heart is rv x base in it
        patient = np.stack([-apex, right, np.cross(right, -apex)])
        return offsets @ patient.T @ np.stack([self.base, self.rv, self.anterior])


def heart_frame(mesh: TetMesh) -> HeartFrame:
    """Find the axes of a heart from its shape.

    Parameters
    ----------
    mesh : TetMesh
        Ventricles with an open base [mm]. A point field ``surf_class`` (`SurfaceClass`) is used
        where it labels base, LV and RV endocardium.

    Returns
    -------
    HeartFrame
        Centre and axes.

    Raises
    ------
    MeshError
        If the mesh has no tetrahedra or is flat.

    Notes
    -----
    The parts of the convex hull that lie far from any wall span the open valve plane: their
    normals, weighted by area and squared distance, give the direction of the base. A closed shape
    has no such part; its longest principal axis is used, from its narrow end. The right ventricle
    is thin-walled: the filled heart has its centre further to the right than the muscle alone.

    Examples
    --------
    >>> from twinheart.anatomy.frame import heart_frame
    >>> from twinheart.mesh.generate import slab
    >>> frame = heart_frame(slab((8.0, 2.0, 2.0), 1.0))
    >>> float(abs(frame.base[0])), frame.rv_known
    (1.0, False)
    """
    if mesh.n_tets == 0:
        raise MeshError("the mesh has no tetrahedra: a heart needs a volume mesh.")
    points = mesh.points[np.unique(mesh.tets)]
    centre = points.mean(axis=0)
    try:
        hull = ConvexHull(points - centre)
    except QhullError as error:
        raise MeshError("the mesh is flat: its points span no volume.") from error
    labelled = _labelled_centres(mesh)
    base = _valve_plane_normal(points - centre, hull)
    if base is None:
        base = _long_axis(points - centre)
    hull_centre = _hull_centroid(points - centre, hull)
    if labelled is None:
        rv = centre + hull_centre - _wall_centroid(mesh)
        noise = 0.01 * np.ptp(points, axis=0).max()
    else:
        rv = labelled[SurfaceClass.RV_ENDOCARDIUM] - labelled[SurfaceClass.LV_ENDOCARDIUM]
        base = base if base @ (labelled[SurfaceClass.BASE] - centre) >= 0 else -base
        noise = 0.0
    rv = rv - base * (rv @ base)
    rv_known = bool(np.linalg.norm(rv) > noise)
    if not rv_known:
        rv = np.eye(3)[np.argmin(np.abs(base))]
        rv = rv - base * (rv @ base)
    rv = rv / np.linalg.norm(rv)
    return HeartFrame(centre + hull_centre, base, rv, np.cross(base, rv), rv_known)


def apex_node(mesh: TetMesh) -> int:
    """Index of the apex: the node farthest from the base along the long axis of `heart_frame`."""
    nodes = np.unique(mesh.tets)
    return int(nodes[(mesh.points[nodes] @ heart_frame(mesh).base).argmin()])


def clearance(
    mesh: TetMesh,
    origin: Float[Array | np.ndarray, "3"],
    offsets: Float[np.ndarray, "point 3"],
    margin: float,
) -> float:
    """Smallest factor that puts ``origin + factor * offsets`` `margin` mm outside the heart.

    "Outside" is measured from the convex hull, so no point can end in a cavity either; `origin`
    must lie inside the hull.
    """
    hull = ConvexHull(mesh.points[np.unique(mesh.tets)])
    normals, distance = hull.equations[:, :3], hull.equations[:, 3]
    depth = -(normals @ origin + distance)
    towards = offsets @ normals.T
    with np.errstate(divide="ignore"):
        factor = np.where(towards > 0, (margin + depth) / towards, np.inf)
    return float(factor.min(axis=1).max())


def _labelled_centres(mesh: TetMesh) -> dict[SurfaceClass, np.ndarray] | None:
    """Mean positions of base, LV and RV endocardium, where a point field tells them."""
    wanted = (SurfaceClass.BASE, SurfaceClass.LV_ENDOCARDIUM, SurfaceClass.RV_ENDOCARDIUM)
    label = mesh.point_fields.get("surf_class")
    if label is None or label.ndim != 1 or not all((label == value).any() for value in wanted):
        return None
    return {value: mesh.points[label == value].mean(axis=0) for value in wanted}


def _valve_plane_normal(points: np.ndarray, hull: ConvexHull) -> np.ndarray | None:
    """Normal of the opening, or None where every part of the hull is near a node."""
    corners = points[hull.simplices]
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    large = area > 1e-4 * area.sum()
    k = 12
    i, j = np.meshgrid(np.arange(k), np.arange(k), indexing="ij")
    first, second = ((index[i + j < k] + 1 / 3) / k for index in (i, j))
    weights = np.stack([first, second, 1 - first - second], axis=1)
    samples = np.einsum("sc,fcd->fsd", weights, corners[large])
    tree = KDTree(points)
    gap = tree.query(samples.reshape(-1, 3))[0].reshape(samples.shape[:2])
    spacing = np.median(tree.query(points[:: max(1, len(points) // 500)], k=2)[0][:, 1])
    size = np.ptp(points, axis=0).max()
    gap = np.maximum(gap - max(1.5 * spacing, 0.02 * size), 0.0)
    normal = (area[large] * (gap**2).mean(axis=1)) @ hull.equations[large, :3]
    length = np.linalg.norm(normal)
    # what is left below this is a groove or the grain of the mesh, not a valve plane
    return normal / length if length > 1e-5 * area.sum() * size**2 else None


def _long_axis(points: np.ndarray) -> np.ndarray:
    """Longest principal axis, towards the wider end: a ventricle tapers to its apex."""
    axis = np.linalg.eigh(np.cov(points.T))[1][:, 2]
    axis = axis * np.sign(axis[np.argmax(np.abs(axis))])
    height = points @ axis
    away = np.linalg.norm(points - height[:, None] * axis, axis=1)
    end = 0.2 * np.ptp(height)
    low, high = away[height < height.min() + end].mean(), away[height > height.max() - end].mean()
    # a slab has two equal ends: noise must not choose between them
    return -axis if low > 1.01 * high else axis


def _hull_centroid(points: np.ndarray, hull: ConvexHull) -> np.ndarray:
    corners = points[hull.simplices]
    # signed volumes of the tetrahedra between the facets and the origin, which lies inside
    volume = np.abs(np.linalg.det(corners))
    return volume @ corners.sum(axis=1) / (4 * volume.sum())


def _wall_centroid(mesh: TetMesh) -> np.ndarray:
    corners = mesh.points[mesh.tets]
    volume = np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1]))
    return volume @ corners.mean(axis=1) / volume.sum()
