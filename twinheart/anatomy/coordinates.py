r"""Consistent biventricular coordinates: transmural, apico-basal, rotational, transventricular.

They mean the same in both ventricles and in every heart, after Schuler et al. 2021 (Cobiveco,
doi:10.1016/j.media.2021.102247), but without cutting the mesh:

* `tv`: 0 in the left, 1 in the right ventricle; the septum is divided in its middle.
* `tm`: 0 on the endocardium, 1 on the epicardium and in the middle of the septum.
* `rt`: in turns. From 0, behind, where the ventricles meet, along the free wall to 2/3, in front,
  and back to 1 through the septum; the same for both ventricles.
* `ab`: 0 at the apex, 1 at the base.

`tm` is solved in `wall`. The *ridge*, which parts free wall and septum, is where a harmonic field
between the middle of the septum (1) and the epicardium (-1) vanishes. A harmonic angle, 0 on the
ridge behind and 2/3 on the ridge in front, gives the direction around the ventricle, and `rt` is
the normalised distance between the ridges along it. The two ridges meet at the apex, a line
through the wall. `ab` is the normalised distance from it to the base along lines of constant `rt`
and depth.
"""

import equinox as eqx
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from twinheart.anatomy.frame import heart_frame
from twinheart.anatomy.wall import Wall, wall_of
from twinheart.errors import MeshError
from twinheart.fem import nodal_gradient, solve_dirichlet, stiffness, trajectory_length
from twinheart.mesh import TetMesh
from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.quality import edges

# rt on the ridge in front; the free wall takes two thirds of a turn, the septum one
FRONT = 2 / 3
# Weight of a given value on an edge that a ridge crosses, over that edge's stiffness.
_PENALTY = 30.0
# Share of a ridge that may lie on the other side of the middle of the heart.
_STRAY = 0.25
_FIELDS = ("tm", "ab", "rt_sin", "rt_cos", "tv")


class Coordinates(eqx.Module):
    """Coordinates of points of a heart.

    Parameters
    ----------
    tm : (node,) array
        0 endocardium to 1 epicardium, and the middle of the septum.
    ab : (node,) array
        0 apex to 1 base.
    rt : (node,) array
        Turns, 0 to 1; 0 = 1 is where the ventricles meet behind, 2/3 where they meet in front.
    tv : (node,) int array
        0 left, 1 right ventricle.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy.coordinates import Coordinates
    >>> lateral = Coordinates(np.array([0.0]), np.array([0.5]), np.array([1 / 3]), np.array([0]))
    >>> lateral.fields["rt_cos"].round(3)
    array([-0.5])
    """

    tm: Float[np.ndarray, "node"]
    ab: Float[np.ndarray, "node"]
    rt: Float[np.ndarray, "node"]
    tv: Int[np.ndarray, "node"]

    @property
    def fields(self) -> dict[str, np.ndarray]:
        """As point fields of a mesh: rt as sine and cosine, which can be interpolated."""
        angle = 2 * np.pi * self.rt
        return {
            "tm": self.tm,
            "ab": self.ab,
            "rt_sin": np.sin(angle),
            "rt_cos": np.cos(angle),
            "tv": self.tv,
        }


def coordinates_of(mesh: TetMesh) -> Coordinates | None:
    """Coordinates that a mesh carries as point fields, None where it has none.

    Examples
    --------
    >>> from twinheart.anatomy.coordinates import coordinates_of
    >>> from twinheart.mesh.generate import slab
    >>> coordinates_of(slab((2.0, 1.0, 1.0), 0.5)) is None
    True
    """
    fields = mesh.point_fields
    if not all(name in fields and fields[name].ndim == 1 for name in _FIELDS):
        return None
    tm, ab, sine, cosine = (np.asarray(fields[name], dtype=float) for name in _FIELDS[:4])
    rt = np.mod(np.arctan2(sine, cosine) / (2 * np.pi), 1.0)
    return Coordinates(tm, ab, rt, np.rint(fields["tv"]).astype(np.int32))


def add_coordinates(mesh: TetMesh) -> TetMesh:
    """Mesh with its coordinates as point fields ``tm``, ``ab``, ``rt_sin``, ``rt_cos``, ``tv``.

    Parameters
    ----------
    mesh : TetMesh
        As for `coordinates`.

    Returns
    -------
    TetMesh
        The same mesh with five more point fields.

    Raises
    ------
    MeshError
        As for `coordinates`.

    Examples
    --------
    >>> from twinheart.anatomy.coordinates import add_coordinates
    >>> from twinheart.mesh.generate import lv_ellipsoid
    >>> sorted(add_coordinates(lv_ellipsoid(edge=4.0)).point_fields)
    ['ab', 'rt_cos', 'rt_sin', 'surf_class', 'tm', 'tv']
    """
    fields = {**mesh.point_fields, **coordinates(mesh).fields}
    return TetMesh(mesh.points, mesh.tets, fields, mesh.cell_fields)


def coordinates(mesh: TetMesh, wall: Wall | None = None) -> Coordinates:
    """Compute the coordinates of all nodes.

    Parameters
    ----------
    mesh : TetMesh
        A left ventricle or both ventricles with an open base, with the point field
        ``surf_class`` (`SurfaceClass`).
    wall : Wall or None
        Its wall, where that is at hand already.

    Returns
    -------
    Coordinates
        Of each node. A lone left ventricle has no grooves: its septum is taken as the third of
        a turn around the direction `heart_frame` gives for the right ventricle.

    Raises
    ------
    MeshError
        If the surfaces are not tagged, or the ventricles do not meet in front and behind.

    Examples
    --------
    >>> from twinheart.anatomy.coordinates import coordinates
    >>> from twinheart.mesh.generate import lv_ellipsoid
    >>> found = coordinates(lv_ellipsoid(edge=4.0))
    >>> float(found.ab.min()), float(found.ab.max())
    (0.0, 1.0)
    """
    wall = wall_of(mesh) if wall is None else wall
    septal, front, apex = _landmarks(mesh, wall)
    angle, jump = _angle(mesh, wall, septal, front, apex)
    around = nodal_gradient(mesh, angle, jump)
    rt = _rotational(mesh, angle, around, septal)
    ab = _apicobasal(mesh, wall, around, apex)
    return Coordinates(wall.tm, ab, rt, wall.tv)


def _landmarks(mesh: TetMesh, wall: Wall) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positive in the septum; positive in front; nodes at the apex."""
    frame = heart_frame(mesh)
    if (wall.tv == 1).any():
        septal, lowest = _ridge_field(mesh, wall, frame.base)
    else:
        lowest = int(np.argmin(np.where(wall.tm == 1.0, mesh.points @ frame.base, np.inf)))
    # about the line from the apex to the middle of the base, which may lean
    offset = mesh.points - mesh.points[lowest]
    axis = offset[wall.top].mean(axis=0)
    axis /= np.linalg.norm(axis)
    offset -= (offset @ axis)[:, None] * axis
    if not (wall.tv == 1).any():
        rv = frame.rv - axis * (frame.rv @ axis)
        septal = offset @ (rv / np.linalg.norm(rv)) - 0.5 * np.linalg.norm(offset, axis=1)
    front = offset @ frame.anterior
    corners = mesh.tets
    both = _changes(septal[corners]) & _changes(front[corners])
    apex = _part_nearest(mesh, corners[both], mesh.points[lowest])
    ridges = corners[_changes(septal[corners]) & ~np.isin(corners, apex).any(axis=1)]
    return septal, _by_ridge(ridges, front), apex


def _ridge_field(mesh: TetMesh, wall: Wall, up: np.ndarray) -> tuple[np.ndarray, int]:
    """Harmonic between septum and epicardium; the lowest node of the middle of the septum."""
    pairs = edges(mesh.tets)
    pairs = pairs[wall.v[pairs].prod(axis=1) < 0]
    middle = np.unique(pairs)
    outer = np.flatnonzero((wall.classes == SurfaceClass.EPICARDIUM) & ~wall.top)
    middle = np.setdiff1d(middle, outer)
    if not middle.size:
        raise MeshError(
            "the walls of the ventricles do not touch, expected a septum: check surf_class."
        )
    nodes = np.concatenate([middle, outer])
    values = np.concatenate([np.ones(len(middle)), -np.ones(len(outer))])
    field = solve_dirichlet(wall.matrix, nodes, values)
    return field, int(middle[np.argmin(mesh.points[middle] @ up)])


def _changes(corners: np.ndarray) -> np.ndarray:
    return (corners.min(axis=1) < 0) & (corners.max(axis=1) > 0)


def _parts(tets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of some tetrahedra, and the connected part that each is in."""
    nodes = np.unique(tets)
    pairs = np.searchsorted(nodes, tets)
    rows = np.repeat(pairs[:, :1], 3, axis=1).ravel()
    shape = (len(nodes),) * 2
    graph = sp.coo_array((np.ones(len(rows)), (rows, pairs[:, 1:].ravel())), shape=shape)
    return nodes, sp.csgraph.connected_components(graph, directed=False)[1]


def _part_nearest(mesh: TetMesh, tets: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Nodes of the connected part of some tetrahedra that comes nearest to a point."""
    if not len(tets):
        raise MeshError("no apex found where the ridges meet: check surf_class.")
    nodes, part = _parts(tets)
    nearest = np.argmin(np.linalg.norm(mesh.points[nodes] - point, axis=1))
    return nodes[part == part[nearest]]


def _by_ridge(ridges: np.ndarray, front: np.ndarray) -> np.ndarray:
    """What lies in front, with the sign that most of its ridge has.

    The end of a ridge at the base may lean over the middle of the heart.
    """
    nodes, part = _parts(ridges)
    share = np.bincount(part, front[nodes] > 0) / np.bincount(part)
    one_side = np.minimum(share, 1 - share)[part] < _STRAY
    sign = np.where(share > 0.5, 1.0, -1.0)[part]
    front = front.copy()
    front[nodes] = np.where(one_side, sign * np.abs(front[nodes]), front[nodes])
    return front


def _angle(mesh: TetMesh, wall: Wall, septal, front, apex) -> tuple[np.ndarray, np.ndarray]:
    """Harmonic angle in turns; what to subtract at corners where it jumps from 1 to 0."""
    corners = septal[mesh.tets]
    behind = _changes(corners) & (front[mesh.tets].mean(axis=1) < 0)
    jump = (behind[:, None] & (corners > 0)).astype(float)
    part = TetMesh(mesh.points, mesh.tets[behind])
    load = stiffness(part) @ (septal > 0).astype(float)
    pairs = edges(mesh.tets)
    ends = septal[pairs]
    crossing = ends.prod(axis=1) < 0
    crossing &= ~np.isin(pairs, apex).all(axis=1)
    pairs, ends = pairs[crossing], ends[crossing]
    share = np.abs(ends[:, ::-1]) / np.abs(ends).sum(axis=1, keepdims=True)
    ahead = (share * front[pairs]).sum(axis=1) > 0
    # behind, the end in the septum has an angle near 1 where its neighbour has one near 0
    target = np.where(ahead, FRONT, (share * (ends > 0)).sum(axis=1))
    rows = np.repeat(np.arange(len(pairs)), 2)
    shape = (len(pairs), mesh.n_nodes)
    at = sp.coo_array((share.ravel(), (rows, pairs.ravel())), shape=shape).tocsr()
    weight = _PENALTY * wall.matrix.diagonal()[pairs].mean(axis=1)
    matrix = (wall.matrix + at.T @ sp.diags_array(weight) @ at).tocsr()
    load = load + at.T @ (weight * target)
    # one node in the septum is given: the rest hangs on the ridges
    seed = np.array([np.argmax(np.where(np.abs(front) < np.ptp(front) / 20, septal, -np.inf))])
    angle = solve_dirichlet(matrix, seed, np.array([(1 + FRONT) / 2]), load)
    return angle, jump


def _rotational(mesh: TetMesh, angle, around, septal) -> np.ndarray:
    """Turns, linear in the distance between the ridges."""
    free = septal < 0
    share = np.clip(np.where(free, angle / FRONT, (1 - angle) / (1 - FRONT)), 0.0, 1.0)
    forwards = np.where(free, 1.0, -1.0)[:, None] * around
    none = np.array([], dtype=int)
    back = trajectory_length(mesh, -forwards, share, none, septal)
    ahead = trajectory_length(mesh, forwards, -share, none, septal)
    share = back / np.maximum(back + ahead, 1e-300)
    return np.where(free, FRONT * share, 1 - (1 - FRONT) * share)


def _apicobasal(mesh: TetMesh, wall: Wall, around, apex) -> np.ndarray:
    """Normalised distance between apex and base along lines of constant rotation and depth."""
    base = np.setdiff1d(np.flatnonzero(wall.top), apex)
    nodes = np.concatenate([apex, base])
    values = np.concatenate([np.zeros(len(apex)), np.ones(len(base))])
    height = solve_dirichlet(wall.matrix, nodes, values)
    slope = nodal_gradient(mesh, height)
    along = np.cross(around, nodal_gradient(mesh, wall.v))
    upwards = along * np.sign(np.einsum("ni,ni->n", along, slope))[:, None]
    down = trajectory_length(mesh, -upwards, height, apex)
    up = trajectory_length(mesh, upwards, -height, base)
    ab = down / np.maximum(down + up, 1e-300)
    ab[apex], ab[base] = 0.0, 1.0
    return ab
