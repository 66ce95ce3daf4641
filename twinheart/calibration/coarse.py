"""A coarser copy of a heart, on which a fit finds its way before the heart itself is touched."""

import numpy as np
from scipy.spatial import KDTree

from twinheart.anatomy import Heart
from twinheart.anatomy.transfer import places_of_points
from twinheart.errors import ModelError
from twinheart.imaging.build import mesh_muscle
from twinheart.imaging.from_surfaces import tagged_surface
from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.quality import boundary_triangles, mean_edge

_MOST_STEPS = 4


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
        The copy; the heart itself, if it has no more nodes than that.

    Raises
    ------
    MeshError
        If its surface cannot be meshed.
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
    surface = TriMesh(points, corners.reshape(-1, 3).astype(np.int32), {"surf_class": classes})
    edge = mean_edge(mesh) * (mesh.n_nodes / nodes) ** (1 / 3)
    for _ in range(_MOST_STEPS):
        copy, _ = mesh_muscle(tagged_surface(surface, edge), edge)
        excess = copy.n_nodes / nodes
        if 0.7 < excess < 1.3:
            break
        edge *= excess ** (1 / 2.7)
    return _carried_over(heart, copy)


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
