r"""Rule-based fibres and sheets from Laplace solutions (LDRB), for one ventricle or both.

Bayer et al. 2012 (doi:10.1007/s10439-012-0593-5) solve for the influence :math:`\phi` of the left
and right endocardium and of the epicardium on each point (they sum to one), and for a potential
:math:`\psi` from apex to base. Fibres lie in the wall, turned from the circumferential direction
by an angle that goes from the endocardium's to the epicardium's, and in the septum from the left
endocardium's through zero to its negative.

Their frames of the left, the right and the outer wall are joined by an interpolation that jumps in
the septum and in thin walls. Here one frame serves all: with :math:`v = \phi_{lv} - \phi_{rv}`,
whose gradient crosses every wall and the septum smoothly,

.. math:: e_t = -\nabla v / |\nabla v|, \quad e_l \perp e_t \text{ along } \nabla\psi, \quad
          e_c = e_l \times e_t, \\
          f = \cos\alpha\, e_c + \sin\alpha\, e_l, \quad n = \cos\alpha\, e_l - \sin\alpha\, e_c,
          \quad s = \cos\beta\, e_t - \sin\beta\, n.

Each angle is :math:`a_{endo}\, m + a_{epi}\, \epsilon`: m is 1 on the left and -1 on the right
endocardium, :math:`\epsilon` 1 on the left and -1 on the right epicardium; both vanish in the
middle of the septum. They are linear in the distance through the wall (`twinheart.anatomy.wall`),
as the potentials are not in curved walls. A positive angle is a right-handed helix seen from the
cavity, as found at the endocardium (Streeter et al. 1969, doi:10.1161/01.RES.24.3.339).
"""

import numpy as np
from jaxtyping import Float, Int

from twinheart.anatomy.frame import apex_node
from twinheart.anatomy.heart import Heart
from twinheart.anatomy.wall import ENDOCARDIA, Wall, wall_of
from twinheart.errors import InputError, MeshError
from twinheart.fem import nodal_gradient, solve_dirichlet
from twinheart.mesh import TetMesh
from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.quality import edges

# Helix angle at the rim of an outflow tract: along it inside, around it outside (Doste et al.
# 2019, doi:10.1002/cnm.3185).
_OUTFLOW_ENDO, _OUTFLOW_EPI = 90.0, 0.0
# Share of the tetrahedra that may take their directions from their neighbours.
_MAX_LEVEL = 0.01


def add_fibres(
    heart: Heart,
    *,
    alpha_endo: float = 60.0,
    alpha_epi: float = -60.0,
    beta_endo: float = -45.0,
    beta_epi: float = 45.0,
    rv_alpha_endo: float | None = None,
    rv_alpha_epi: float | None = None,
    surf_class: Int[np.ndarray, "node"] | None = None,
    wall: Wall | None = None,
) -> Heart:
    """Give every tetrahedron a fibre and a sheet direction by the rule of this module.

    Parameters
    ----------
    heart : Heart
        A left ventricle or both ventricles with an open base. A point field ``outflow`` that is
        not zero on the rims of outflow tracts turns the fibres there along the tract.
    alpha_endo, alpha_epi : float
        Helix angle at the endocardium and at the epicardium [degrees], positive right-handed.
    beta_endo, beta_epi : float
        Angle between the sheet and the normal of the wall there, about the fibre [degrees].
    rv_alpha_endo, rv_alpha_epi : float or None
        Helix angles of the right ventricle [degrees]; None takes those of the left.
    surf_class : (node,) int array or None
        Surface of each node (`SurfaceClass`: 0 interior, 1 base, 2 epicardium, 3 LV and 4 RV
        endocardium); None takes the point field of that name.
    wall : Wall or None
        The heart's wall, where that is at hand already.

    Returns
    -------
    Heart
        With `f0` and `s0`, and with the point field ``transmural``: 0 at the endocardium and on
        the left side of the septum, 1 at the epicardium and on the right side of the septum.

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
    rv_endo = alpha_endo if rv_alpha_endo is None else rv_alpha_endo
    rv_epi = alpha_epi if rv_alpha_epi is None else rv_alpha_epi
    _check_angles(
        alpha_endo=alpha_endo,
        alpha_epi=alpha_epi,
        beta_endo=beta_endo,
        beta_epi=beta_epi,
        rv_alpha_endo=rv_endo,
        rv_alpha_epi=rv_epi,
    )
    mesh = heart.mesh
    wall = wall_of(mesh, surf_class) if wall is None else wall
    outer, transmural = _outer_share(wall)
    right = wall.tv == 1
    inside, outside = wall.signed_depth, np.where(right, -outer, outer)
    tract = _outflow(mesh, wall)
    endo = _blend(np.where(right, rv_endo, alpha_endo), _OUTFLOW_ENDO, tract)
    epi = _blend(np.where(right, rv_epi, alpha_epi), _OUTFLOW_EPI, tract)
    alpha, beta = (
        np.radians(at_endo * inside + at_epi * outside)[mesh.tets].mean(axis=1)[:, None]
        for at_endo, at_epi in ((endo, epi), (beta_endo, beta_epi))
    )
    across, along, around = _frame(mesh, wall)
    f0 = np.cos(alpha) * around + np.sin(alpha) * along
    normal = np.cos(alpha) * along - np.sin(alpha) * around
    s0 = np.cos(beta) * across - np.sin(beta) * normal
    fields = {**mesh.point_fields, "transmural": transmural}
    mesh = TetMesh(mesh.points, mesh.tets, fields, mesh.cell_fields)
    return Heart(mesh, f0, s0, heart.regions)


def _check_angles(**angles: float) -> None:
    for name, angle in angles.items():
        if not -90 <= angle <= 90:
            raise InputError(f"{name} is {angle} degrees, expected an angle from -90 to 90.")


def _blend(angle, at_outflow: float, tract: np.ndarray) -> np.ndarray:
    return (1 - tract) * angle + tract * at_outflow


def _outer_share(wall: Wall) -> tuple[np.ndarray, np.ndarray]:
    """Influence of the epicardium, 1 there and 0 in the septum; depth as seen from the LV."""
    surfaces = (SurfaceClass.EPICARDIUM, *ENDOCARDIA)
    nodes = np.flatnonzero(np.isin(wall.classes, surfaces))
    epi = solve_dirichlet(
        wall.matrix, nodes, (wall.classes[nodes] == SurfaceClass.EPICARDIUM).astype(float)
    )
    # 1 - |v| is what epicardium and other ventricle have of a point; tm is the same made linear
    others = 1 - np.abs(wall.v)
    linear = np.divide(wall.tm, others, out=np.zeros_like(epi), where=others > 1e-9)
    outer = np.clip(epi * linear, 0.0, wall.tm)
    lesser = (wall.tm - outer) / 2
    lv = np.where(wall.tv == 0, 1 - wall.tm, 0.0) + lesser
    rv = np.where(wall.tv == 1, 1 - wall.tm, 0.0) + lesser
    # On the RV endocardium both influences vanish; the fluxes that leave there compare them.
    phi_lv = (1 - epi + wall.v) / 2
    on_rv = wall.classes == SurfaceClass.RV_ENDOCARDIUM
    flux = -(wall.matrix @ np.stack([phi_lv, epi], axis=1))
    faces_lv = np.where(on_rv, flux[:, 0] > flux[:, 1], phi_lv > epi)
    return outer, np.where((wall.tv == 1) & ~faces_lv, 1 - rv, 1 - lv)


def _outflow(mesh: TetMesh, wall: Wall) -> Float[np.ndarray, "node"]:
    """1 on the rims of outflow tracts, falling to 0 at the other valves and at the apex."""
    if "outflow" not in mesh.point_fields:
        return np.zeros(mesh.n_nodes)
    rim = mesh.point_fields["outflow"] != 0
    rest = np.setdiff1d(np.flatnonzero(wall.classes == SurfaceClass.BASE), np.flatnonzero(rim))
    rest = np.union1d(rest, apex_node(mesh))
    if not rim.any():
        raise MeshError("the point field 'outflow' is zero everywhere: tag a rim or remove it.")
    nodes = np.concatenate([np.flatnonzero(rim), rest])
    values = np.concatenate([np.ones(rim.sum()), np.zeros(len(rest))])
    return solve_dirichlet(wall.matrix, nodes, values)


def _frame(mesh: TetMesh, wall: Wall) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors across the wall (out of the LV, into the RV), along and around the heart."""
    base = np.flatnonzero(wall.top)
    nodes = np.append(base, apex_node(mesh))
    psi = solve_dirichlet(wall.matrix, nodes, np.append(np.ones(len(base)), 0.0))
    across, along = (_directions(mesh, nodal_gradient(mesh, u)) for u in (-wall.v, psi))
    along = along - np.einsum("ti,ti->t", along, across)[:, None] * across
    length = np.linalg.norm(along, axis=1, keepdims=True)
    # right at the apex the two are parallel: any direction in the wall is as good as another
    spare = np.cross(across, np.eye(3)[np.argmin(np.abs(across), axis=1)])
    spare /= np.linalg.norm(spare, axis=1, keepdims=True)
    along = np.where(length > 1e-6, along / np.maximum(length, 1e-300), spare)
    return across, along, np.cross(along, across)


def _directions(mesh: TetMesh, slope: Float[np.ndarray, "node 3"]) -> Float[np.ndarray, "tet 3"]:
    flat = np.asarray(~slope.any(axis=1))
    level = flat[mesh.tets].all(axis=1).sum()
    if level > _MAX_LEVEL * mesh.n_tets:
        raise MeshError(
            f"{level} tetrahedra have no transmural or no long direction: a part of the mesh lies "
            "between nodes of one surface only; check surf_class."
        )
    if level:
        slope = _continued(mesh, slope, flat)
    on_tets = slope[mesh.tets].mean(axis=1)
    return on_tets / np.linalg.norm(on_tets, axis=1, keepdims=True)


def _continued(mesh: TetMesh, slope: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """Slopes whose zeros took the mean of their neighbours', from the rim of each gap inwards.

    A ridge of the epicardium no thicker than an edge has nodes of that surface all around it.
    """
    linked = edges(mesh.tets)
    both = np.concatenate([linked, linked[:, ::-1]])
    both = both[flat[both[:, 0]]]
    slope, flat = slope.copy(), flat.copy()
    while flat.any():
        node, other = both[flat[both[:, 0]] & ~flat[both[:, 1]]].T
        if not node.size:
            raise MeshError(
                f"{flat.sum()} nodes have no transmural or no long direction and no neighbour "
                "that has one: a part of the mesh hangs by itself; keep its largest component."
            )
        for k in range(3):
            slope[:, k] += np.bincount(node, slope[other, k], mesh.n_nodes)
        count = np.bincount(node, minlength=mesh.n_nodes)
        slope[node] = slope[node] / count[node, None]
        flat[node] = False
    return slope
