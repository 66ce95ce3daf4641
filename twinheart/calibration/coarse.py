"""A coarser copy of a heart, on which a fit finds its way before the heart itself is touched."""

import numpy as np
from scipy.spatial import KDTree

from twinheart.anatomy import Heart
from twinheart.anatomy.transfer import places_of_points
from twinheart.errors import MeshError, ModelError
from twinheart.imaging.build import mesh_muscle
from twinheart.imaging.from_surfaces import muscle_within
from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.quality import boundary_triangles, enclosed_volume, mean_edge, volumes

_MOST_STEPS = 6
# Of the muscle that a copy keeps, of the nodes above which it saves nothing, and of the edge length
# in the next try.
_LEAST_KEPT, _WORTHWHILE, _FINER = 0.92, 0.6, 0.85


def coarse_heart(heart: Heart, nodes: int) -> Heart:
    """Mesh the muscle anew with fewer nodes; fields, fibres and regions are carried over.

    Parameters
    ----------
    heart : Heart
        With tagged surfaces and coordinates, see `prepared_heart`.
    nodes : int
        About how many the copy is to have.

    Returns
    -------
    Heart
        The copy, with more nodes where walls would be lost; the heart itself, if it has not many
        more, or its surface cannot be meshed anew.

    Raises
    ------
    ModelError
        If less than 100 nodes are asked for.

    Examples
    --------
    >>> from twinheart.anatomy import demo_heart
    >>> from twinheart.calibration import prepared_heart
    >>> from twinheart.calibration.coarse import coarse_heart
    >>> heart = prepared_heart(demo_heart())
    >>> coarse_heart(heart, heart.mesh.n_nodes) is heart
    True
    """
    if nodes < 100:
        raise ModelError(f"a heart of {nodes} nodes is none: ask for at least 100.")
    if heart.mesh.n_nodes <= 1.2 * nodes:
        return heart
    mesh = heart.mesh
    triangles = boundary_triangles(mesh.tets)
    used, corners = np.unique(triangles, return_inverse=True)
    points, classes = mesh.points[used], np.array(mesh.point_fields["surf_class"][used])
    tagged = classes > 0  # a mesher may leave single nodes of the surface without a tag
    nearest = KDTree(points[tagged]).query(points[~tagged])[1]
    classes[~tagged] = classes[tagged][nearest]
    corners = corners.reshape(-1, 3).astype(np.int32)
    if enclosed_volume(points, corners) < 0:
        corners = corners[:, ::-1]
    surface = TriMesh(points, corners, {"surf_class": classes})
    edge = mean_edge(mesh) * (mesh.n_nodes / nodes) ** (1 / 3)
    muscle = volumes(mesh.points, mesh.tets).sum()
    lost = False  # the wall, with elements larger than it is thick: none coarser is tried
    for _ in range(_MOST_STEPS):
        try:
            copy, _ = mesh_muscle(muscle_within(surface, edge), edge)
        except MeshError:  # fitted as it is
            break
        if copy.n_nodes > _WORTHWHILE * mesh.n_nodes:
            break
        excess = copy.n_nodes / nodes
        whole = volumes(copy.points, copy.tets).sum() > _LEAST_KEPT * muscle
        if whole and (lost or excess < 1.3):
            return _carried_over(heart, copy)
        lost |= not whole
        edge *= excess ** (1 / 2.7) if whole else _FINER
    return heart


def _carried_over(heart: Heart, mesh: TetMesh) -> Heart:
    """The same heart on another mesh of its muscle."""
    at_nodes = places_of_points(heart.mesh, mesh.points)
    fields = {
        name: at_nodes.of_nodes(values)
        for name, values in heart.mesh.point_fields.items()
        if name != "surf_class"
    }
    fields["surf_class"] = mesh.point_fields["surf_class"]
    in_cells = places_of_points(heart.mesh, mesh.points[mesh.tets].mean(axis=1))
    f0, s0 = (None if field is None else in_cells.of_cells(field) for field in (heart.f0, heart.s0))
    moved = TetMesh(mesh.points, mesh.tets, fields)
    return Heart(moved, f0, s0, in_cells.of_cells(heart.regions))
