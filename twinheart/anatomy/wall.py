r"""The wall of a heart: how deep each node lies in it, and to which ventricle it belongs.

The harmonic field v is 1 on the left, -1 on the right endocardium and 0 on the epicardium. Its
sign says which ventricle a point belongs to; where it vanishes inside the septum is the surface
that divides the septum. The depth is the normalised distance along the streamlines of v,
:math:`tm = d_{endo} / (d_{endo} + d_{epi})`, 0 on the endocardium, 1 on the epicardium and on the
surface that divides the septum (Schuler et al. 2021, doi:10.1016/j.media.2021.102247).

The muscle of a whole heart closes between its valves. Its upper side there is epicardium for the
depth, but for all that runs from the apex to the base it is base, as the valves' rims are: no free
wall lies beneath it, and the septum ends there.
"""

import equinox as eqx
import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from scipy.spatial import Delaunay

from twinheart.anatomy.frame import heart_frame
from twinheart.errors import MeshError
from twinheart.fem import nodal_gradient, solve_dirichlet, stiffness, trajectory_length
from twinheart.mesh import TetMesh
from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.quality import boundary_triangles, edges, triangle_normals

ENDOCARDIA = (SurfaceClass.LV_ENDOCARDIUM, SurfaceClass.RV_ENDOCARDIUM)
# Cosine between the base's direction and the normal of a surface that looks up.
_UPWARD = 0.5


class Wall(eqx.Module):
    """Fields through the wall, on the nodes of a mesh.

    Parameters
    ----------
    classes : (node,) int array
        `SurfaceClass` of each node.
    v : (node,) array
        Harmonic; 1 on the LV, -1 on the RV endocardium, 0 on the epicardium.
    tm : (node,) array
        Depth, 0 on the endocardium to 1 on the epicardium and in the middle of the septum.
    tv : (node,) int array
        0 in the left, 1 in the right ventricle.
    top : (node,) bool array
        Where the ventricles end: the base and the upper side of the muscle between the valves.
    matrix : (node, node) scipy CSR array
        Stiffness, to solve further problems.
    """

    classes: Int[np.ndarray, "node"]
    v: Float[np.ndarray, "node"]
    tm: Float[np.ndarray, "node"]
    tv: Int[np.ndarray, "node"]
    top: Bool[np.ndarray, "node"]
    matrix: sp.csr_array

    @property
    def signed_depth(self) -> Float[np.ndarray, "node"]:
        """1 - tm, negative in the right ventricle: continuous through the septum."""
        return np.where(self.tv == 0, 1.0, -1.0) * (1.0 - self.tm)


def wall_of(mesh: TetMesh, surf_class: Int[np.ndarray, "node"] | None = None) -> Wall:
    """Solve for the depth in the wall.

    Parameters
    ----------
    mesh : TetMesh
        A left ventricle or both ventricles with an open base.
    surf_class : (node,) int array or None
        Surface of each node (`SurfaceClass`); None takes the point field of that name.

    Returns
    -------
    Wall
        Its fields.

    Raises
    ------
    MeshError
        If the surfaces are not tagged, or base, epicardium or LV endocardium is missing.

    Examples
    --------
    >>> from twinheart.anatomy.wall import wall_of
    >>> from twinheart.mesh.generate import lv_ellipsoid
    >>> wall = wall_of(lv_ellipsoid(edge=4.0))
    >>> float(wall.tm[wall.classes == 3].max()), float(wall.tm[wall.classes == 2].min())
    (0.0, 1.0)
    """
    classes = _surface_classes(mesh, surf_class)
    matrix = stiffness(mesh)
    given = np.select([classes == s for s in (2, 3, 4)], [0.0, 1.0, -1.0], np.nan)
    nodes = np.flatnonzero(np.isfinite(given))
    v = solve_dirichlet(matrix, nodes, given[nodes])
    # on the epicardium v says nothing; the flux that leaves there does
    sign = np.where(classes == SurfaceClass.EPICARDIUM, -(matrix @ v), v)
    tv = (sign < 0).astype(np.int32)
    slope = nodal_gradient(mesh, v)
    inwards = np.where(tv == 0, 1.0, -1.0)[:, None] * slope
    inner = np.flatnonzero(np.isin(classes, ENDOCARDIA))
    outer = np.flatnonzero(classes == SurfaceClass.EPICARDIUM)
    depth = trajectory_length(mesh, inwards, -np.abs(v), inner)
    height = trajectory_length(mesh, -inwards, np.abs(v), outer, v)
    tm = depth / np.maximum(depth + height, 1e-300)
    tm[inner], tm[outer] = 0.0, 1.0
    return Wall(classes, v, tm, tv, _top(mesh, classes), matrix)


def _top(mesh: TetMesh, classes: np.ndarray) -> np.ndarray:
    """Base, and epicardium that looks up within the outline of the base."""
    base = classes == SurfaceClass.BASE
    triangles = boundary_triangles(mesh.tets)
    outer = triangles[(classes[triangles] == SurfaceClass.EPICARDIUM).all(axis=1)]
    up = heart_frame(mesh).base
    across = np.linalg.svd(up[None])[2][1:].T
    outline = Delaunay(mesh.points[base] @ across, qhull_options="QJ")
    upper = np.unique(outer[triangle_normals(mesh.points, outer) @ up > _UPWARD])
    top = base.copy()
    top[upper[outline.find_simplex(mesh.points[upper] @ across) >= 0]] = True
    # the sides of grooves between the valves do not look up, but the outer wall is one piece
    wall = (classes == SurfaceClass.EPICARDIUM) & ~top
    pairs = edges(triangles)
    pairs = pairs[wall[pairs].all(axis=1)]
    graph = sp.coo_array((np.ones(len(pairs)), pairs.T), shape=(mesh.n_nodes,) * 2)
    _, piece = sp.csgraph.connected_components(graph, directed=False)
    return np.asarray(top | (wall & (piece != np.bincount(piece[wall]).argmax())))


def _surface_classes(mesh: TetMesh, given) -> np.ndarray:
    if given is None and "surf_class" not in mesh.point_fields:
        raise MeshError(
            "the mesh has no point field 'surf_class' that says where base (1), epicardium (2), "
            "LV (3) and RV (4) endocardium are: tag the surfaces or pass surf_class."
        )
    classes = np.asarray(mesh.point_fields["surf_class"] if given is None else given)
    if classes.shape != (mesh.n_nodes,):
        raise MeshError(f"surf_class has shape {classes.shape}, expected ({mesh.n_nodes},).")
    needed = (SurfaceClass.BASE, SurfaceClass.EPICARDIUM, SurfaceClass.LV_ENDOCARDIUM)
    for surface in needed:
        if not (classes == surface).any():
            raise MeshError(
                f"no node is tagged {surface.name.lower()} ({surface.value}), but coordinates and "
                "fibres need base, epicardium and LV endocardium: check surf_class."
            )
    return classes.astype(np.int32)
