"""Which surface a node of a heart lies on, where the mesh does not say."""

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int
from scipy.spatial import KDTree

from twinheart.anatomy.frame import heart_frame
from twinheart.errors import MeshError
from twinheart.mesh import TetMesh
from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.quality import boundary_triangles, triangle_areas
from twinheart.types import Triangles

# The base faces upwards within this angle (cosine), in this topmost part of the heart.
_UPWARDS, _TOP = 0.6, 0.2
# Parts of the surface below this share of its area are no ventricle.
_SMALL = 0.02


def tag_surfaces(mesh: TetMesh) -> TetMesh:
    """Find base, epicardium and endocardia of ventricles that are cut off at the base.

    Parameters
    ----------
    mesh : TetMesh
        A left ventricle or both ventricles with an open base.

    Returns
    -------
    TetMesh
        With the point field ``surf_class`` (`SurfaceClass`); unchanged where it has one.

    Raises
    ------
    MeshError
        If the surface without the base does not fall into an outside and one or two cavities.

    Notes
    -----
    The base is where the surface faces upwards along the axis of `heart_frame` in the topmost fifth
    of the heart. Of the parts that are left the epicardium is the one with the widest extent, and
    of two cavities the right one lies farther towards the right ventricle of `heart_frame`.

    Examples
    --------
    >>> from twinheart.anatomy.surfaces import tag_surfaces
    >>> from twinheart.mesh import TetMesh
    >>> from twinheart.mesh.generate import lv_ellipsoid
    >>> mesh = lv_ellipsoid(edge=4.0)
    >>> found = tag_surfaces(TetMesh(mesh.points, mesh.tets)).point_fields["surf_class"]
    >>> sorted(set(found.tolist()))
    [0, 1, 2, 3]
    """
    if "surf_class" in mesh.point_fields:
        return mesh
    frame = heart_frame(mesh)
    triangles = boundary_triangles(mesh.tets)
    corner = mesh.points[triangles]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    upwards = normal @ frame.base > _UPWARDS * np.linalg.norm(normal, axis=1)
    height = corner.mean(axis=1) @ frame.base
    is_base = upwards & (height > height.max() - _TOP * np.ptp(height))
    base = np.unique(triangles[is_base])
    # without the triangles around the base, too: one across a thin rim would join its two sides
    apart = ~np.isin(triangles, base).any(axis=1)
    rest = triangles[apart]
    part = _parts(rest)
    area = triangle_areas(mesh.points, triangles)
    sizes = np.bincount(part, area[apart])
    large = np.flatnonzero(sizes > _SMALL * area.sum())
    if len(large) not in (2, 3):
        raise MeshError(
            f"without its base the heart's surface has {len(large)} large parts, expected 2 (one "
            "cavity and the outside) or 3: cut the heart off at the base, or tag its surfaces "
            "(surf_class: 1 base, 2 epicardium, 3 LV, 4 RV endocardium)."
        )
    nodes = [np.unique(rest[part == k]) for k in large]
    nodes.sort(key=lambda part: np.ptp(mesh.points[part], axis=0).sum(), reverse=True)
    epicardium, *cavities = nodes
    cavities.sort(key=lambda part: mesh.points[part].mean(axis=0) @ frame.rv)
    nodes = [epicardium, *cavities]
    tagged = np.concatenate(nodes)
    ventricles = (SurfaceClass.LV_ENDOCARDIUM, SurfaceClass.RV_ENDOCARDIUM)
    values = np.repeat([SurfaceClass.EPICARDIUM, *ventricles][: len(nodes)], [*map(len, nodes)])
    surface = np.unique(triangles)
    classes = np.zeros(mesh.n_nodes, dtype=np.int32)
    classes[surface] = values[KDTree(mesh.points[tagged]).query(mesh.points[surface])[1]]
    classes[base] = SurfaceClass.BASE
    fields = {**mesh.point_fields, "surf_class": classes}
    return TetMesh(mesh.points, mesh.tets, fields, mesh.cell_fields)


def _parts(triangles: Triangles) -> Int[np.ndarray, "triangle"]:
    """Number of the connected part of each triangle."""
    nodes, local = np.unique(triangles, return_inverse=True)
    local = local.reshape(triangles.shape)
    rows, columns = local[:, [0, 1]].ravel(), local[:, [1, 2]].ravel()
    graph = sp.coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(nodes),) * 2)
    return sp.csgraph.connected_components(graph, directed=False)[1][local[:, 0]]
