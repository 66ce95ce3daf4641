r"""Thickness of a wall: the length of the streamlines that cross it.

With the Laplace field u, 0 on one side of the wall and 1 on the other, and the unit vectors
:math:`T = \nabla u / |\nabla u|`, the lengths of the streamline from the one side and to the
other solve

.. math:: T \cdot \nabla L_0 = 1, \quad L_0 = 0 \text{ where } u = 0; \qquad
          -T \cdot \nabla L_1 = 1, \quad L_1 = 0 \text{ where } u = 1,

and :math:`L_0 + L_1` is the thickness: it is unique, has no jumps, and is the same seen from both
sides (Yezzi and Prince 2003, doi:10.1109/TMI.2003.817775).
"""

import numpy as np
from jaxtyping import Float, Int

from twinheart.errors import MeshError
from twinheart.fem import nodal_gradient, solve_laplace, trajectory_length
from twinheart.mesh import TetMesh
from twinheart.mesh.implicit import SurfaceClass

# A node belongs to the wall of the left ventricle where that one's field is at least this fraction
# as steep as the right one's, as in the fibre rule: the septum is the left ventricle's.
_LV_SHARE = 0.5


def streamline_lengths(
    mesh: TetMesh,
    u: Float[np.ndarray, "node"],
    start: Int[np.ndarray, "start"],
    end: Int[np.ndarray, "end"],
) -> tuple[Float[np.ndarray, "node"], Float[np.ndarray, "node"]]:
    """Length of the streamline of u from its start, and to its end, at every node.

    Parameters
    ----------
    mesh : TetMesh
        Tetrahedra [mm].
    u : (node,) array
        A field without inner extrema, such as `twinheart.fem.solve_laplace` gives.
    start, end : int arrays
        Nodes where streamlines begin (u low) and end (u high).

    Returns
    -------
    (node,) array, (node,) array
        Both lengths [mm].

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy.wall_thickness import streamline_lengths
    >>> from twinheart.mesh.generate import slab
    >>> mesh = slab((4.0, 2.0, 2.0), 0.5)
    >>> x = mesh.points[:, 0]
    >>> ends = np.flatnonzero(x == 0.0), np.flatnonzero(x == 4.0)
    >>> back, forth = streamline_lengths(mesh, x / 4.0, *ends)
    >>> bool(np.allclose(back + forth, 4.0))
    True
    """
    slope = nodal_gradient(mesh, u)
    return trajectory_length(mesh, -slope, u, start), trajectory_length(mesh, slope, -u, end)


def wall_thickness(
    mesh: TetMesh, surf_class: Int[np.ndarray, "node"] | None = None
) -> tuple[Float[np.ndarray, "node"], np.ndarray]:
    """Thickness of the ventricular walls at every node.

    The septum is measured from one endocardium to the other and belongs to the left ventricle.

    Parameters
    ----------
    mesh : TetMesh
        Ventricles [mm].
    surf_class : (node,) int array, optional
        Surface of each node (`SurfaceClass`); default: the point field of that name.

    Returns
    -------
    (node,) array, (node,) bool array
        Thickness [mm], and whether the node belongs to the wall of the left ventricle.

    Raises
    ------
    MeshError
        If epicardium or LV endocardium are not tagged.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy.wall_thickness import wall_thickness
    >>> from twinheart.mesh.generate import lv_ellipsoid
    >>> thickness, is_lv = wall_thickness(lv_ellipsoid(edge=3.0))
    >>> bool(is_lv.all()), bool((thickness > 0).all())
    (True, True)
    """
    if surf_class is None:
        if "surf_class" not in mesh.point_fields:
            raise MeshError(
                "the mesh has no point field 'surf_class' that says where epicardium (2), LV (3) "
                "and RV (4) endocardium are: tag the surfaces first."
            )
        surf_class = np.asarray(mesh.point_fields["surf_class"])
    for needed in (SurfaceClass.EPICARDIUM, SurfaceClass.LV_ENDOCARDIUM):
        if not (surf_class == needed).any():
            raise MeshError(
                f"no node is tagged {needed.name.lower()} ({needed.value}): thickness is measured "
                "from there; check surf_class."
            )
    thickness, steepness = _one_wall(mesh, surf_class, SurfaceClass.LV_ENDOCARDIUM)
    if not (surf_class == SurfaceClass.RV_ENDOCARDIUM).any():
        return thickness, np.ones(mesh.n_nodes, dtype=bool)
    other, other_steepness = _one_wall(mesh, surf_class, SurfaceClass.RV_ENDOCARDIUM)
    is_lv = steepness >= _LV_SHARE * other_steepness
    return np.where(is_lv, thickness, other), is_lv


def _one_wall(mesh: TetMesh, surf_class, endocardium: SurfaceClass):
    """Thickness from one endocardium to the other surfaces, and how steep the field is there."""
    sides = [
        SurfaceClass.EPICARDIUM,
        SurfaceClass.LV_ENDOCARDIUM,
        SurfaceClass.RV_ENDOCARDIUM,
    ]
    inner = np.flatnonzero(surf_class == endocardium)
    outer = np.flatnonzero(np.isin(surf_class, sides) & (surf_class != endocardium))
    nodes = np.concatenate([inner, outer])
    u = solve_laplace(mesh, nodes, (np.arange(len(nodes)) >= len(inner)).astype(float))
    thickness = np.sum(streamline_lengths(mesh, u, inner, outer), axis=0)
    return thickness, np.linalg.norm(nodal_gradient(mesh, u), axis=1)
