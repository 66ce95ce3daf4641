r"""Rule-based fibres: a helix whose angle turns linearly through the wall.

A simple rule for hearts whose surfaces are tagged. The transmural coordinate t solves a Laplace
problem, 0 on the endocardium and 1 on the epicardium; the septum belongs to the left ventricle,
its right side counts as outer side. With the outward transmural direction :math:`e_t` and the
long axis, made orthogonal to it, :math:`e_l` (towards the base),

.. math:: f_0 = \cos\alpha\, (e_l \times e_t) + \sin\alpha\, e_l, \qquad
          \alpha = (1 - t)\, \alpha_{endo} + t\, \alpha_{epi}.

A positive angle is a right-handed helix, as found at the endocardium (Streeter et al. 1969,
doi:10.1161/01.RES.24.3.339).
"""

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from twinheart.anatomy.heart import Heart
from twinheart.errors import InputError, MeshError
from twinheart.fem import gradients, solve_laplace
from twinheart.mesh import TetMesh
from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.quality import boundary_triangles

# The septum belongs to the ventricle whose field is at least this fraction as steep as the other.
_LV_SHARE = 0.5


class _Wall(eqx.Module):
    """Transmural field of one ventricle: on nodes, and its gradient on tetrahedra."""

    depth: Float[np.ndarray, "node"]
    slope: Float[np.ndarray, "tet 3"]


def add_fibres(
    heart: Heart,
    *,
    alpha_endo: float = 60.0,
    alpha_epi: float = -60.0,
    surf_class: Int[np.ndarray, "node"] | None = None,
) -> Heart:
    """Give every tetrahedron a fibre and a sheet direction by the helix rule of this module.

    Parameters
    ----------
    heart : Heart
        A left ventricle or both ventricles with an open base.
    alpha_endo, alpha_epi : float
        Helix angle at the endocardium and at the epicardium [degrees], positive right-handed.
    surf_class : (node,) int array or None
        Surface of each node (`SurfaceClass`: 0 interior, 1 base, 2 epicardium, 3 LV and 4 RV
        endocardium); None takes the point field of that name.

    Returns
    -------
    Heart
        With `f0`, with `s0` across the wall, and with the point field ``transmural`` (0 at the
        endocardium and on the left side of the septum, 1 at the epicardium and on the right side
        of the septum).

    Raises
    ------
    MeshError
        If the surfaces are not tagged, or base, epicardium or LV endocardium is missing.
    InputError
        If an angle is not between -90 and 90 degrees.

    Examples
    --------
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.anatomy.fibres import add_fibres
    >>> from twinheart.mesh.generate import lv_ellipsoid
    >>> heart = add_fibres(Heart(lv_ellipsoid(edge=4.0)), alpha_endo=60.0, alpha_epi=-60.0)
    >>> heart.f0.shape == (heart.mesh.n_tets, 3)
    True
    """
    for name, angle in (("alpha_endo", alpha_endo), ("alpha_epi", alpha_epi)):
        if not -90 <= angle <= 90:
            raise InputError(f"{name} is {angle} degrees, expected an angle from -90 to 90.")
    mesh = heart.mesh
    classes = _surface_classes(mesh, surf_class)
    depth, slope, on_tets = _transmural(mesh, classes)
    across = _directions(mesh, slope)
    along = _orthogonal_axis(_long_axis(mesh, classes), across)
    around = np.cross(along, across)
    alpha = np.radians((1 - on_tets) * alpha_endo + on_tets * alpha_epi)[:, None]
    f0 = np.cos(alpha) * around + np.sin(alpha) * along
    fields = {**mesh.point_fields, "transmural": depth}
    mesh = TetMesh(mesh.points, mesh.tets, fields, mesh.cell_fields)
    return Heart(mesh, f0, across, heart.regions)


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
                f"no node is tagged {surface.name.lower()} ({surface.value}), but the fibre rule "
                "needs base, epicardium and LV endocardium: check surf_class."
            )
    return classes


def _transmural(mesh: TetMesh, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Transmural coordinate on nodes, its direction on tetrahedra, and its value there."""
    lv = _wall_field(mesh, classes, SurfaceClass.LV_ENDOCARDIUM)
    if not (classes == SurfaceClass.RV_ENDOCARDIUM).any():
        return lv.depth, lv.slope, lv.depth[mesh.tets].mean(axis=1)
    rv = _wall_field(mesh, classes, SurfaceClass.RV_ENDOCARDIUM)
    steepness = [np.linalg.norm(wall.slope, axis=1) for wall in (lv, rv)]
    is_lv = steepness[0] >= _LV_SHARE * steepness[1]
    on_tets = np.where(is_lv, lv.depth[mesh.tets].mean(axis=1), rv.depth[mesh.tets].mean(axis=1))
    share = _nodal_mean(mesh, is_lv.astype(float)[:, None])[:, 0]
    depth = np.where(share >= 0.5, lv.depth, rv.depth)
    return depth, np.where(is_lv[:, None], lv.slope, rv.slope), on_tets


def _wall_field(mesh: TetMesh, classes: np.ndarray, endocardium: SurfaceClass) -> _Wall:
    """Laplace field from 0 on one endocardium to 1 on the epicardium and the other one."""
    surfaces = (
        SurfaceClass.EPICARDIUM,
        SurfaceClass.LV_ENDOCARDIUM,
        SurfaceClass.RV_ENDOCARDIUM,
    )
    nodes = np.flatnonzero(np.isin(classes, surfaces))
    depth = solve_laplace(mesh, nodes, (classes[nodes] != endocardium).astype(float))
    grad, _ = gradients(mesh.points, mesh.tets)
    slope = np.einsum("tai,ta->ti", grad, depth[mesh.tets])
    return _Wall(depth, slope)


def _nodal_mean(mesh: TetMesh, values: np.ndarray) -> np.ndarray:
    """Mean over the tetrahedra at each node, weighted by volume."""
    _, volume = gradients(mesh.points, mesh.tets)
    nodes, weight = mesh.tets.ravel(), np.repeat(volume, 4)
    total = np.bincount(nodes, weight, mesh.n_nodes)
    sums = [np.bincount(nodes, weight * np.repeat(column, 4), mesh.n_nodes) for column in values.T]
    return np.stack(sums, axis=1) / np.maximum(total, 1e-300)[:, None]


def _directions(mesh: TetMesh, slope: np.ndarray) -> np.ndarray:
    """Unit vectors; a tetrahedron without slope takes the mean of those around it."""
    length = np.linalg.norm(slope, axis=1)
    flat = length < 1e-3 * np.median(length)
    unit = np.where(flat[:, None], 0.0, slope / np.where(flat, 1.0, length)[:, None])
    while flat.any():
        around = _nodal_mean(mesh, unit)[mesh.tets[flat]].mean(axis=1)
        length = np.linalg.norm(around, axis=1)
        found = np.flatnonzero(flat)[length > 1e-6]
        if not len(found):
            raise MeshError(
                f"{flat.sum()} tetrahedra have no transmural direction: a part of the mesh lies "
                "between nodes of one surface only; check surf_class."
            )
        unit[found] = around[length > 1e-6] / length[length > 1e-6, None]
        flat[found] = False
    return unit


def _long_axis(mesh: TetMesh, classes: np.ndarray) -> np.ndarray:
    """Unit vector from apex to base: the mean outward normal of the base."""
    triangles = boundary_triangles(mesh.tets)
    triangles = triangles[(classes[triangles] == SurfaceClass.BASE).all(axis=1)]
    corner, second, third = (mesh.points[triangles[:, k]] for k in range(3))
    normal = np.cross(second - corner, third - corner).sum(axis=0)
    length = np.linalg.norm(normal)
    if not length > 0:
        raise MeshError("no boundary triangle lies on the base: check surf_class.")
    return normal / length


def _orthogonal_axis(axis: np.ndarray, across: np.ndarray) -> np.ndarray:
    """The axis made orthogonal to the transmural direction, unit length, also at the apex."""
    along = axis - (across @ axis)[:, None] * across
    length = np.linalg.norm(along, axis=1, keepdims=True)
    # Right at the apex the two are parallel: any direction in the wall is as good as another.
    other = np.eye(3)[np.argmin(np.abs(axis))]
    spare = other - (across @ other)[:, None] * across
    along = np.where(length > 1e-6, along, spare)
    return along / np.linalg.norm(along, axis=1, keepdims=True)
