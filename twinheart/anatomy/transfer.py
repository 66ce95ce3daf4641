"""From one heart to another, from coordinates to places and back.

The coordinates of a ventricle are laid out as a disc with the apex in its centre and the base on
its rim, ``(ab cos rt, ab sin rt)``, thickened by the depth in the wall, positive in the left and
negative in the right ventricle. In this layout every tetrahedron is a tetrahedron again, so that
one search finds places in space and places in coordinates.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.spatial import KDTree

from twinheart.anatomy.coordinates import Coordinates, coordinates, coordinates_of
from twinheart.errors import InputError
from twinheart.mesh import TetMesh
from twinheart.types import Points

# Thickness of a wall over its length from apex to base: makes tetrahedra of the layout compact.
_WALL = 0.1
# Tetrahedra whose centres are nearest to a point are searched, more where it is in none of them.
_CANDIDATES = (12, 64, 256)
_INSIDE = -1e-9
_CHUNK = 2_000_000  # pairs of point and tetrahedron handled together: bounds the memory


class Places(eqx.Module):
    """Places in a mesh, each as a tetrahedron and the weights of its corners.

    Parameters
    ----------
    tet : (point,) int array
        Tetrahedron.
    nodes : (point, 4) int array
        Its corners.
    weights : (point, 4) array
        Their weights, not negative, with sum 1.
    """

    tet: Int[np.ndarray, "point"]
    nodes: Int[np.ndarray, "point 4"]
    weights: Float[np.ndarray, "point 4"]

    def of_nodes(self, values: Shaped[np.ndarray, "node ..."]) -> Shaped[np.ndarray, "point ..."]:
        """A nodal field at these places; of whole numbers (tags) the one of the nearest corner."""
        if values.dtype.kind not in "fc":
            return values[np.take_along_axis(self.nodes, self._nearest, axis=1)[:, 0]]
        return np.einsum("pk,pk...->p...", self.weights, values[self.nodes])

    def of_cells(self, values: Shaped[np.ndarray, "tet ..."]) -> Shaped[np.ndarray, "point ..."]:
        """A field of tetrahedra at these places."""
        return values[self.tet]

    @property
    def _nearest(self) -> np.ndarray:
        return self.weights.argmax(axis=1)[:, None]


def places_of_points(mesh: TetMesh, points: Points) -> Places:
    """Find points in a mesh; one outside is moved to where it is nearest to a tetrahedron.

    Parameters
    ----------
    mesh : TetMesh
        Tetrahedra [mm].
    points : (point, 3) array
        Positions [mm].

    Returns
    -------
    Places
        Of the points.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy.transfer import places_of_points
    >>> from twinheart.mesh.generate import slab
    >>> mesh = slab((2.0, 1.0, 1.0), 0.5)
    >>> found = places_of_points(mesh, np.array([[0.3, 0.4, 0.5]]))
    >>> found.of_nodes(mesh.points).round(6)
    array([[0.3, 0.4, 0.5]])
    """
    return _locate(mesh.points, mesh.tets, np.arange(mesh.n_tets), np.asarray(points, dtype=float))


def places_of_coordinates(
    mesh: TetMesh, wanted: Coordinates, own: Coordinates | None = None
) -> Places:
    """Find the places of a heart that have the wanted coordinates.

    Parameters
    ----------
    mesh : TetMesh
        The heart.
    wanted : Coordinates
        Coordinates of the places.
    own : Coordinates or None
        Coordinates of its nodes; None takes those it carries, else computes them.

    Returns
    -------
    Places
        One for each of the wanted coordinates; ``places.of_nodes(mesh.points)`` are the points.

    Raises
    ------
    InputError
        If coordinates in the right ventricle are wanted of a lone left one.
    MeshError
        As for `coordinates`.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy.coordinates import Coordinates
    >>> from twinheart.anatomy.transfer import places_of_coordinates
    >>> from twinheart.mesh.generate import lv_ellipsoid
    >>> mesh = lv_ellipsoid(edge=4.0)
    >>> base = Coordinates(np.array([0.5]), np.array([1.0]), np.array([0.3]), np.array([0]))
    >>> bool(places_of_coordinates(mesh, base).of_nodes(mesh.points)[0, 2] > 10)
    True
    """
    own = _own(mesh) if own is None else own
    if np.any(wanted.tv == 1) and not np.any(own.tv == 1):
        raise InputError(
            "places in the right ventricle are wanted (tv = 1), but this heart has only a left "
            "one: take hearts with the same ventricles."
        )
    there, here = _layout(wanted), _layout(own)
    n = len(there)
    tet = np.zeros(n, dtype=np.int64)
    nodes, weights = np.zeros((n, 4), dtype=np.int32), np.zeros((n, 4))
    for ventricle in (0, 1):
        asked = np.flatnonzero(wanted.tv == ventricle)
        if asked.size:
            among = np.flatnonzero((own.tv[mesh.tets] == ventricle).any(axis=1))
            found = _locate(here, mesh.tets, among, there[asked])
            tet[asked], nodes[asked], weights[asked] = found.tet, found.nodes, found.weights
    return Places(tet, nodes, weights)


def coordinates_at(mesh: TetMesh, points: Points, own: Coordinates | None = None) -> Coordinates:
    """Coordinates of points in a heart.

    Parameters
    ----------
    mesh : TetMesh
        The heart.
    points : (point, 3) array
        Positions [mm]; those outside count as the nearest place in the muscle.
    own : Coordinates or None
        Coordinates of its nodes; None takes those it carries, else computes them.

    Returns
    -------
    Coordinates
        Of the points.

    Raises
    ------
    MeshError
        As for `coordinates`.

    Examples
    --------
    >>> from twinheart.anatomy.transfer import coordinates_at
    >>> from twinheart.mesh.generate import lv_ellipsoid
    >>> mesh = lv_ellipsoid(edge=4.0)
    >>> centres = mesh.points[mesh.tets].mean(axis=1)
    >>> coordinates_at(mesh, centres).ab.shape == (mesh.n_tets,)
    True
    """
    own = _own(mesh) if own is None else own
    return _coordinates(places_of_points(mesh, points).of_nodes(_layout(own)))


def transfer(
    values: Shaped[np.ndarray, "..."],
    source: TetMesh,
    target: TetMesh,
) -> Shaped[np.ndarray, "..."]:
    """Carry a field from one heart to another, to the places with the same coordinates.

    Parameters
    ----------
    values : (node, ...) or (tet, ...) array
        A field of the source. Numbers on nodes are interpolated; whole numbers (tags) and fields
        of tetrahedra are taken from where they are nearest. Components of vectors are carried
        as they are, not turned.
    source, target : TetMesh
        The hearts; coordinates that they carry as point fields are used, else they are computed.

    Returns
    -------
    (node, ...) or (tet, ...) array
        The field on the target.

    Raises
    ------
    InputError
        If the field has neither one row a node nor one a tetrahedron, or the target has a right
        ventricle and the source has none.
    MeshError
        As for `coordinates`.

    Examples
    --------
    >>> from twinheart.anatomy.transfer import transfer
    >>> from twinheart.mesh.generate import lv_ellipsoid
    >>> coarse, fine = lv_ellipsoid(edge=4.3), lv_ellipsoid(edge=4.0)
    >>> transfer(coarse.points[:, 2], coarse, fine).shape == (fine.n_nodes,)
    True
    """
    own = _own(target)
    if len(values) == source.n_nodes:
        return places_of_coordinates(source, own).of_nodes(values)
    if len(values) == source.n_tets:
        centres = _coordinates(_layout(own)[target.tets].mean(axis=1))
        return places_of_coordinates(source, centres).of_cells(values)
    raise InputError(
        f"the field has {len(values)} rows, expected one for each of the {source.n_nodes} nodes or "
        f"{source.n_tets} tetrahedra of the source."
    )


def _own(mesh: TetMesh) -> Coordinates:
    stored = coordinates_of(mesh)
    return coordinates(mesh) if stored is None else stored


def _layout(at: Coordinates) -> np.ndarray:
    angle = 2 * np.pi * at.rt
    depth = np.where(at.tv == 0, 1.0, -1.0) * (1.0 - at.tm)
    return np.stack([at.ab * np.cos(angle), at.ab * np.sin(angle), _WALL * depth], axis=1)


def _coordinates(layout: np.ndarray) -> Coordinates:
    x, y, depth = layout[:, 0], layout[:, 1], layout[:, 2] / _WALL
    rt = np.mod(np.arctan2(y, x) / (2 * np.pi), 1.0)
    return Coordinates(1 - np.abs(depth), np.hypot(x, y), rt, (depth < 0).astype(np.int32))


def _locate(vertices: np.ndarray, tets: np.ndarray, among: np.ndarray, points: np.ndarray):
    """Places of points among some tetrahedra over any three-dimensional vertices."""
    tree = KDTree(vertices[tets[among]].mean(axis=1))
    tet = np.zeros(len(points), dtype=np.int64)
    weights = np.zeros((len(points), 4))
    error = np.full(len(points), np.inf)
    left = np.arange(len(points))
    for count in _CANDIDATES:
        if not left.size:
            break
        count = min(count, len(among))
        rows = max(1, _CHUNK // count)
        for part in (left[i : i + rows] for i in range(0, len(left), rows)):
            near = among[tree.query(points[part], k=count)[1].reshape(len(part), count)]
            tet[part], weights[part], error[part] = _best(vertices, tets, near, points[part])
        left = left[error[left] > 0]
    return Places(tet, tets[tet], weights)


def _best(vertices: np.ndarray, tets: np.ndarray, near: np.ndarray, points: np.ndarray):
    """Of each point's candidates the one it is in or nearest to: index, weights, distance."""
    corner = vertices[tets[near]]
    sides = corner[..., 1:, :] - corner[..., :1, :]
    offset = points[:, None] - corner[..., 0, :]
    a, b, c = (sides[..., k, :] for k in range(3))
    normals = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)], axis=-2)
    det = np.einsum("pci,pci->pc", a, normals[..., 0, :])
    flat = np.abs(det) < 1e-200
    inner = np.einsum("pcki,pci->pck", normals, offset) / np.where(flat, 1.0, det)[..., None]
    weights = np.concatenate([1 - inner.sum(axis=-1, keepdims=True), inner], axis=-1)
    inside = weights.min(axis=-1) >= _INSIDE
    weights = np.maximum(weights, 0.0)
    weights /= weights.sum(axis=-1, keepdims=True)
    way = np.einsum("pck,pcki->pci", weights, corner) - points[:, None]
    error = np.where(inside, 0.0, np.linalg.norm(way, axis=-1))
    error[flat] = np.inf
    rows, best = np.arange(len(points)), error.argmin(axis=1)
    return near[rows, best], weights[rows, best], error[rows, best]
