"""The boundary of a meshed heart: clean tags, topology, and where walls were lost."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.quality import edge_keys, edges, triangle_areas
from twinheart.types import Points, Triangles

# Pieces of a tag smaller than this many squared edges, or share of its largest piece, are islands.
_ISLAND_EDGES, _ISLAND_SHARE = 20.0, 0.01
# Walls that end within so many edges of the base end there, as they should.
_NEAR_BASE = 3.0
_WALLS = (SurfaceClass.EPICARDIUM, SurfaceClass.LV_ENDOCARDIUM, SurfaceClass.RV_ENDOCARDIUM)


@dataclass(frozen=True)
class LostWall:
    """A place where two surfaces of the heart meet that a wall should part.

    Parameters
    ----------
    between : tuple of 2 str
        Names of the surfaces.
    place_mm : tuple of 3 floats
        Where.
    n_triangles : int
        Triangles there that belong to both.
    """

    between: tuple[str, str]
    place_mm: tuple[float, float, float]
    n_triangles: int


@dataclass(frozen=True)
class Topology:
    """Topology of a boundary.

    Parameters
    ----------
    euler : int
        Euler number: nodes - edges + triangles.
    n_surfaces : int
        Connected pieces.
    n_open_edges, n_crowded_edges : int
        Edges with one triangle, and with more than two.
    n_pinched_nodes : int
        Nodes where the surface touches itself in a point; each lowers the Euler number by one.
    """

    euler: int
    n_surfaces: int
    n_open_edges: int
    n_crowded_edges: int
    n_pinched_nodes: int

    def as_dict(self) -> dict[str, Any]:
        """By name, fit for JSON."""
        return asdict(self)


def topology(triangles: Triangles) -> Topology:
    """Count what makes up the topology of a surface.

    Parameters
    ----------
    triangles : (triangle, 3) int array
        Node indices.

    Returns
    -------
    Topology
        A closed surface without handles has the Euler number 2.

    Examples
    --------
    >>> from twinheart.imaging.boundary import topology
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.mesh.quality import boundary_triangles
    >>> topology(boundary_triangles(slab((2.0, 2.0, 2.0), 0.5).tets)).euler
    2
    """
    _, count = np.unique(edge_keys(triangles), return_counts=True)
    nodes, local = np.unique(triangles, return_inverse=True)
    local = local.reshape(-1, 3)
    n = len(nodes)
    pairs = (local[:, :2].ravel(), local[:, 1:].ravel())
    graph = coo_array((np.ones(len(pairs[0]), dtype=bool), pairs), shape=(n, n))
    return Topology(
        euler=n - len(count) + len(triangles),
        n_surfaces=int(connected_components(graph, directed=False)[0]),
        n_open_edges=int((count == 1).sum()),
        n_crowded_edges=int((count > 2).sum()),
        n_pinched_nodes=len(pinched_nodes(triangles)),
    )


def pinched_nodes(triangles: Triangles) -> Int[np.ndarray, "node"]:
    """Nodes whose triangles do not all hang together by edges at that node.

    Parameters
    ----------
    triangles : (triangle, 3) int array
        Node indices of a surface.

    Returns
    -------
    (node,) int array
        Node indices, ascending.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.boundary import pinched_nodes
    >>> pinched_nodes(np.array([[0, 1, 2], [0, 2, 3], [0, 4, 5]]))
    array([0])
    """
    n = len(triangles)
    keys = edge_keys(triangles).ravel()
    order = np.argsort(keys, kind="stable")
    keys, owner = keys[order], order % n
    same = np.flatnonzero(keys[1:] == keys[:-1])
    joined = []
    for node in (keys[same] >> 32, keys[same] & 0xFFFFFFFF):
        # corner k of triangle t has the number 3 t + k
        joined.append(
            [
                3 * t + (triangles[t] == node[:, None]).argmax(axis=1)
                for t in (owner[same], owner[same + 1])
            ]
        )
    first, second = np.concatenate(joined, axis=1)
    graph = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(3 * n, 3 * n))
    _, fan = connected_components(graph, directed=False)
    _, corner = np.unique(fan, return_index=True)
    nodes, fans = np.unique(triangles.ravel()[corner], return_counts=True)
    return nodes[fans > 1]


def node_normals(points: Points, triangles: Triangles) -> Float[np.ndarray, "node 3"]:
    """Unit normals at the nodes of a surface, weighted by area; zero off the surface.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.boundary import node_normals
    >>> node_normals(np.eye(3), np.array([[0, 1, 2]]))[0].round(3)
    array([0.577, 0.577, 0.577])
    """
    a, b, c = (points[triangles[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    nodes = triangles.ravel()
    total = [np.bincount(nodes, normal[:, k].repeat(3), len(points)) for k in range(3)]
    out = np.stack(total, axis=1)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-300)


def without_islands(
    points: Points, triangles: Triangles, classes: Int[np.ndarray, "node"], edge: float
) -> Int[np.ndarray, "node"]:
    """Give small pieces of a tag the tag around them.

    Parameters
    ----------
    points : (node, 3) array
        Positions [mm].
    triangles : (triangle, 3) int array
        Boundary.
    classes : (node,) int array
        Tag of each node; nodes off the boundary are left alone.
    edge : float
        Edge length [mm].

    Returns
    -------
    (node,) int array
        Cleaned tags.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.boundary import without_islands
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.mesh.quality import boundary_triangles
    >>> block = slab((20.0, 20.0, 20.0), 1.0)
    >>> classes = np.where(block.points[:, 0] < 10.0, 2, 3)
    >>> classes[0] = 3
    >>> cleaned = without_islands(block.points, boundary_triangles(block.tets), classes, 1.0)
    >>> int(cleaned[0])
    2
    """
    classes = classes.copy()
    n = len(points)
    pair = edges(triangles)
    alike = classes[pair[:, 0]] == classes[pair[:, 1]]
    graph = coo_array((np.ones(alike.sum(), dtype=bool), pair[alike].T), shape=(n, n))
    _, piece = connected_components(graph, directed=False)
    area = np.bincount(triangles.ravel(), (triangle_areas(points, triangles) / 3).repeat(3), n)
    size = np.bincount(piece, area)
    largest = np.zeros(int(classes.max()) + 1)
    np.maximum.at(largest, classes, size[piece])
    limit = np.maximum(_ISLAND_SHARE * largest, _ISLAND_EDGES * edge**2)
    limit = np.minimum(limit, largest)  # the largest piece stays, however small
    on_boundary = np.zeros(n, dtype=bool)
    on_boundary[triangles] = True
    both = np.concatenate([pair, pair[:, ::-1]])
    # a piece of the base is none where it parts two other surfaces
    meets = np.zeros((len(size), len(largest)), dtype=bool)
    meets[piece[both[:, 0]], classes[both[:, 1]]] = True
    parting = (classes == SurfaceClass.BASE) & (meets.sum(axis=1) > 2)[piece]
    unsure = on_boundary & (size[piece] < limit[classes]) & ~parting
    while unsure.any():
        votes = both[unsure[both[:, 0]] & ~unsure[both[:, 1]]]
        if not len(votes):
            break
        count = np.zeros((n, len(largest)), dtype=np.int32)
        np.add.at(count, (votes[:, 0], classes[votes[:, 1]]), 1)
        settled = np.unique(votes[:, 0])
        classes[settled] = count[settled].argmax(axis=1)
        unsure[settled] = False
    return classes


def lost_walls(
    points: Points,
    triangles: Triangles,
    classes: Int[np.ndarray, "node"],
    edge: float,
    rim: Float[np.ndarray, "point 3"],
) -> list[LostWall]:
    """Find where epicardium and endocardia meet away from base and rim.

    Parameters
    ----------
    points : (node, 3) array
        Positions [mm].
    triangles : (triangle, 3) int array
        Boundary.
    classes : (node,) int array
        `SurfaceClass` of each node.
    edge : float
        Edge length [mm].
    rim : (point, 3) array
        Points [mm] near which walls may end without a base.

    Returns
    -------
    list of LostWall
        The largest first; none if every wall holds.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.boundary import lost_walls
    >>> from twinheart.mesh.biventricle import biventricle
    >>> from twinheart.mesh.quality import boundary_triangles
    >>> heart = biventricle(2.5)
    >>> surface = boundary_triangles(heart.tets)
    >>> none = np.zeros((0, 3))
    >>> lost_walls(heart.points, surface, heart.point_fields["surf_class"], 2.5, none)
    []
    """
    of = classes[triangles]
    ends = np.concatenate([points[classes == SurfaceClass.BASE], rim])
    found = []
    for k, one in enumerate(_WALLS):
        for other in _WALLS[k + 1 :]:
            meeting = triangles[(of == one).any(axis=1) & (of == other).any(axis=1)]
            if len(meeting) and len(ends):
                away, _ = KDTree(ends).query(points[meeting].mean(axis=1))
                meeting = meeting[away > _NEAR_BASE * edge]
            if not len(meeting):
                continue
            centres = points[meeting].mean(axis=1)
            near = KDTree(centres).query_pairs(2 * edge, output_type="ndarray")
            graph = coo_array((np.ones(len(near)), near.T), shape=(len(centres),) * 2)
            _, group = connected_components(graph, directed=False)
            for g in range(group.max() + 1):
                x, y, z = centres[group == g].mean(axis=0).round(1).tolist()
                names = (_name(one), _name(other))
                found.append(LostWall(names, (x, y, z), int((group == g).sum())))
    return sorted(found, key=lambda wall: -wall.n_triangles)


def _name(surface: SurfaceClass) -> str:
    return surface.name.lower()
