"""Isosurface stuffing: tetrahedra with bounded dihedral angles inside an implicit surface.

The body is covered by a body-centred cubic (BCC) lattice. Lattice nodes that lie too close to the
surface are warped onto it; every tetrahedron that the surface still cuts is replaced by one of a
few stencils. The angles are bounded because only few shapes can arise.

Where smaller elements are asked for, the lattice is first halved there, which leaves three shapes
of tetrahedra only (`twinheart.mesh.bisection`).

Labelle & Shewchuk, Isosurface stuffing, ACM Trans. Graph. 2007, doi:10.1145/1276377.1276448.
"""

from functools import cache
from itertools import permutations, product

import numpy as np

from twinheart.errors import MeshError
from twinheart.mesh.bisection import bisect_to
from twinheart.mesh.core import TetMesh
from twinheart.mesh.improve import improve_boundary
from twinheart.mesh.quality import boundary_triangles, edges, renumbered
from twinheart.mesh.smoothing import Distance

# Mean edge of the BCC lattice over the side of its cubes: 6 long (1) and 8 short (sqrt(3)/2) edges.
_EDGE_OVER_SIDE = (6 + 8 * np.sqrt(0.75)) / 14
# A lattice node is warped when the surface cuts one of its edges nearer than this fraction.
_ALPHA_LONG, _ALPHA_SHORT = 0.25, 0.41
_LOCAL_EDGES = np.array([(0, 1), (2, 3), (0, 2), (0, 3), (1, 2), (1, 3)])
# Both, in a lattice that is halved in places: its shapes bear less before they turn over.
_ALPHA_GRADED = 0.25
# Mean edge over the longest that is asked for, on average over the shapes that halving makes.
_EDGE_OVER_LONGEST = 0.66
_CHUNK = 500_000
_MAX_LATTICE_NODES = 200_000_000


def stuff(
    distance: Distance,
    bounds,
    edge: float,
    *,
    size: Distance | None = None,
    improve: bool = True,
) -> TetMesh:
    """Fill the inside of an implicit surface with tetrahedra.

    Parameters
    ----------
    distance : callable, (n, 3) array -> (n,) array
        Continuous function of the position [mm], negative inside; best a signed distance [mm],
        at least near the surface.
    bounds : ((3,), (3,)) array
        Lower and upper corner [mm] of a box that holds the whole body.
    edge : float
        Mean edge of the lattice [mm].
    size : callable, (n, 3) array -> (n,) array, optional
        Mean edge [mm] wanted at a place: where it is below `edge`, the lattice is halved
        (`bisect_to`) before the surface cuts it.
    improve : bool
        Collapse short edges and smooth at the boundary afterwards (`improve_boundary`).

    Returns
    -------
    TetMesh
        Positively oriented, conforming; dihedral angles between 10.7 and 164.8 degrees before the
        improvement, mostly above 15 after it; with a `size`, above 8 after it. Its boundary nodes
        lie on the surface. A wall thinner than about two edges may get holes.

    Raises
    ------
    MeshError
        If the function is not finite, is nowhere negative, or is negative at the edge of the box.

    References
    ----------
    doi:10.1145/1276377.1276448

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.stuffing import stuff
    >>> ball = stuff(lambda x: np.linalg.norm(x, axis=1) - 10.0, ([-10] * 3, [10] * 3), 2.0)
    >>> ball.n_tets > 3000
    True
    """
    shape, origin, side = _lattice(bounds, edge)
    value = _evaluate(distance, shape, origin, side)
    tets, positive = _inside_tets(shape, value < (0 if size is None else side))
    used, tets = renumbered(tets, len(value))
    lattice = _lattice_coordinates(shape, used)
    points, value = origin + 0.5 * side * lattice, value[used]
    colour = (lattice[:, 0] % 2) * 2 + (lattice // 2).sum(axis=1) % 2
    local = np.full(len(points), edge)
    if size is not None:
        points, value, tets, positive = _halved(distance, size, points, value, tets, positive)
        # the ends of a cut edge lie on different sides
        colour, local = (value > 0).astype(int), _mean_edges(points, tets)

    ends, at, is_long = _cut_edges(distance, points, value, tets)
    alpha = np.where(is_long, _ALPHA_LONG, _ALPHA_SHORT) if size is None else _ALPHA_GRADED
    alive = _warp(points, value, colour, ends, at, np.broadcast_to(alpha, len(ends)))
    ends, at = ends[alive], at[alive]
    cut_points = points[ends[:, 0]] + at[:, None] * (points[ends[:, 1]] - points[ends[:, 0]])
    signs = np.sign(value).astype(np.int8)
    tets = _apply_stencils(tets, positive, signs, ends, by_number=size is not None)
    on_surface = np.concatenate([value == 0, np.ones(len(cut_points), dtype=bool)])
    kept, tets = renumbered(tets, len(on_surface))
    mesh = TetMesh(np.concatenate([points, cut_points])[kept], tets)
    if not improve:
        return mesh
    local = np.concatenate([local, local[ends].mean(axis=1)])[kept]
    return improve_boundary(mesh, _boundary(tets, on_surface[kept]), distance, local)


def _halved(distance, size, points, value, tets, positive):
    """The lattice halved where a size below its own is wanted, and its tetrahedra in the body.

    Their nodes come in ascending order, by which the diagonals of cut faces are chosen.
    """
    tets = np.where(positive[:, None], tets, tets[:, [0, 1, 3, 2]])
    fine = bisect_to(TetMesh(points, tets), lambda x: size(x) / _EDGE_OVER_LONGEST)
    new = [
        distance(fine.points[k : k + _CHUNK]) for k in range(len(points), len(fine.points), _CHUNK)
    ]
    value = np.concatenate([value, *new])
    tets = np.sort(fine.tets[(value < 0)[fine.tets].any(axis=1)], axis=1)
    used, tets = renumbered(tets, len(value))
    points, value = fine.points[used], value[used]
    corners = points[tets]
    return points, value, tets, np.linalg.det(corners[:, 1:] - corners[:, :1]) > 0


def _mean_edges(points: np.ndarray, tets: np.ndarray) -> np.ndarray:
    """Mean length of the edges at each node."""
    pair = edges(tets)
    length = np.linalg.norm(points[pair[:, 0]] - points[pair[:, 1]], axis=1)
    ends, n = pair.T.ravel(), len(points)
    return np.bincount(ends, np.tile(length, 2), n) / np.maximum(np.bincount(ends, minlength=n), 1)


def _lattice(bounds, edge: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Cubes along each axis, first corner and side of a lattice one cube wider than the box."""
    bounds = np.asarray(bounds, dtype=np.float64)
    if bounds.shape != (2, 3) or not np.isfinite(bounds).all():
        raise MeshError("bounds must be two finite corners, shape (2, 3), in mm.")
    if not (np.isfinite(edge) and edge > 0):
        raise MeshError(f"edge is {edge} mm, expected a positive length.")
    if (bounds[1] <= bounds[0]).any():
        raise MeshError(
            f"bounds {bounds.tolist()} enclose no volume: give lower, then upper corner."
        )
    side = edge / _EDGE_OVER_SIDE
    shape = np.ceil((bounds[1] - bounds[0]) / side) + 2
    n_nodes = 2 * np.prod(shape + 1)
    if n_nodes > _MAX_LATTICE_NODES:
        raise MeshError(
            f"an edge of {edge:g} mm asks for {n_nodes:.2g} lattice nodes, at most "
            f"{_MAX_LATTICE_NODES:.2g} are possible: take a larger edge or a smaller box."
        )
    origin = bounds.mean(axis=0) - 0.5 * side * shape
    return shape.astype(np.int64), origin, side


def _lattice_coordinates(shape: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """(n, 3) coordinates in half sides: even for cube corners, odd for cube centres."""
    n_corners = int(np.prod(shape + 1))
    centre = nodes >= n_corners
    corner = np.stack(np.unravel_index(np.where(centre, 0, nodes), shape + 1), axis=1)
    middle = np.stack(np.unravel_index(np.where(centre, nodes - n_corners, 0), shape), axis=1)
    return np.where(centre[:, None], 2 * middle + 1, 2 * corner)


def _evaluate(distance: Distance, shape, origin, side) -> np.ndarray:
    """The function at all lattice nodes: first the cube corners, then the cube centres."""
    n_nodes = int(np.prod(shape + 1) + np.prod(shape))
    value = np.empty(n_nodes)
    for start in range(0, n_nodes, _CHUNK):
        nodes = np.arange(start, min(start + _CHUNK, n_nodes))
        lattice = _lattice_coordinates(shape, nodes)
        value[nodes] = distance(origin + 0.5 * side * lattice)
        at_edge = ((lattice <= 1) | (lattice >= 2 * shape - 1)).any(axis=1)
        if (value[nodes][at_edge] <= 0).any():
            raise MeshError("the body reaches the edge of its box: enlarge the bounds.")
    if not np.isfinite(value).all():
        raise MeshError(f"the distance is not finite at {(~np.isfinite(value)).sum()} points.")
    if not (value < 0).any():
        raise MeshError("nothing to mesh: the distance is nowhere negative at this edge length.")
    return value


def _inside_tets(shape: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lattice tetrahedra with an inside node, as (corner, corner, centre, centre), and their sign.

    Each edge between cube corners is shared by four tetrahedra; each takes two neighbouring
    centres of the four cubes around the edge. The order of the nodes is that of the parity rule
    (see `_diagonal`): an odd number of coordinates of the first exceeds those of the third.
    """
    n_corners = int(np.prod(shape + 1))
    corner_id = np.arange(n_corners).reshape(shape + 1)
    centre_id = n_corners + np.arange(int(np.prod(shape))).reshape(shape)
    found, signs = [], []
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        low, high = (corner_id[_edges_along(axis, end)] for end in (0, 1))
        for turn, below in product(others, (0, 1)):
            other = next(a for a in others if a != turn)
            first, second = (
                centre_id[_cubes_around(axis, {turn: turn_below, other: below})]
                for turn_below in (1, 0)
            )
            # `low` is smaller than the centres along `axis`, greater where the cube is below.
            nodes = [high, low, first, second] if below else [low, high, first, second]
            hit = inside[nodes[0]] | inside[nodes[1]] | inside[nodes[2]] | inside[nodes[3]]
            tets = np.stack([n[hit] for n in nodes], axis=1)
            example = _lattice_coordinates(shape, np.array([n.flat[0] for n in nodes]))
            found.append(tets)
            signs.append(np.full(len(tets), np.linalg.det(example[1:] - example[0]) > 0))
    return np.concatenate(found), np.concatenate(signs)


def _edges_along(axis: int, end: int) -> tuple[slice, ...]:
    """Slice of the corner grid: one end of the edges along `axis` that four cubes surround."""
    ends = slice(1, None) if end else slice(None, -1)
    return tuple(ends if a == axis else slice(1, -1) for a in range(3))


def _cubes_around(axis: int, below: dict[int, int]) -> tuple[slice, ...]:
    """Slice of the centre grid: of each such edge the cube below (1) or above (0) it."""
    sides = {1: slice(None, -1), 0: slice(1, None)}
    return tuple(slice(None) if a == axis else sides[below[a]] for a in range(3))


def _cut_edges(distance, points, value, tets) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges that the surface cuts, sorted, the cut at a fraction of the edge, and who is long."""
    sign = np.sign(value)
    mixed = tets[(sign[tets] < 0).any(axis=1) & (sign[tets] > 0).any(axis=1)]
    pairs = mixed[:, _LOCAL_EDGES]
    pairs = np.sort(pairs[sign[pairs[..., 0]] * sign[pairs[..., 1]] < 0], axis=1)
    key = np.unique(pairs[:, 0] * len(points) + pairs[:, 1])
    ends = np.stack([key // len(points), key % len(points)], axis=1)
    start, step = points[ends[:, 0]], points[ends[:, 1]] - points[ends[:, 0]]
    is_long = (step != 0).sum(axis=1) == 1
    at = _root(lambda t: distance(start + t[:, None] * step), value[ends[:, 0]], value[ends[:, 1]])
    return ends, at, is_long


def _root(f, f_low: np.ndarray, f_high: np.ndarray, iterations: int = 10) -> np.ndarray:
    """Sign change of f between 0 and 1 by the Illinois variant of regula falsi, for all at once."""
    low, high = np.zeros_like(f_low), np.ones_like(f_low)
    at = f_low / (f_low - f_high)
    moved = np.zeros(len(at), dtype=int)
    for _ in range(iterations):
        f_at = f(at)
        is_low = f_at * f_low > 0
        # An end that stays a second time counts half, so that it does not get stuck.
        f_high = np.where(is_low, np.where(moved > 0, 0.5 * f_high, f_high), f_at)
        f_low = np.where(is_low, f_at, np.where(moved < 0, 0.5 * f_low, f_low))
        low, high = np.where(is_low, at, low), np.where(is_low, high, at)
        moved = np.where(is_low, 1, -1)
        at = low + (high - low) * f_low / (f_low - f_high)
    return at


def _warp(points, value, colour, ends, at, alpha) -> np.ndarray:
    """Move nodes that the surface violates onto it, in place; return the cuts that remain.

    One class of nodes after the other; no two nodes of a class share an edge.
    """
    alive = np.ones(len(ends), dtype=bool)
    length = np.linalg.norm(points[ends[:, 1]] - points[ends[:, 0]], axis=1)
    cuts = points[ends[:, 0]] + at[:, None] * (points[ends[:, 1]] - points[ends[:, 0]])
    for k in range(int(colour.max()) + 1):
        node, cut, near = [], [], []
        for end, fraction in ((0, at), (1, 1 - at)):
            hit = np.flatnonzero(alive & (colour[ends[:, end]] == k) & (fraction < alpha))
            node.append(ends[hit, end])
            cut.append(hit)
            near.append((fraction * length)[hit])
        node, cut, near = (np.concatenate(x) for x in (node, cut, near))
        order = np.lexsort((near, node))
        moved, first = np.unique(node[order], return_index=True)
        points[moved] = cuts[cut[order[first]]]
        value[moved] = 0.0
        alive &= (value[ends] != 0).all(axis=1)
    return alive


def _apply_stencils(tets, positive, sign, ends, *, by_number: bool) -> np.ndarray:
    """Replace every lattice tetrahedron by what is inside; cut k becomes node len(sign) + k."""
    weights = np.array([27, 9, 3, 1])
    code = (sign[tets] + 1) @ weights
    key = ends[:, 0] * len(sign) + ends[:, 1]
    out = []
    for labels in product((-1, 0, 1), repeat=4):
        stencil = _stencil(labels, by_number)
        here = np.flatnonzero(code == (np.array(labels) + 1) @ weights)
        if not len(stencil) or not len(here):
            continue
        nodes = tets[here]
        if stencil.max() > 3:
            pairs = np.sort(nodes[:, _LOCAL_EDGES], axis=2)
            cut = np.searchsorted(key, pairs[..., 0] * len(sign) + pairs[..., 1])
            nodes = np.concatenate([nodes, len(sign) + cut], axis=1)
        nodes = nodes[:, stencil]
        flip = ~positive[here]
        nodes[flip, :, 2:] = nodes[flip, :, :1:-1]
        out.append(nodes.reshape(-1, 4))
    return np.concatenate(out)


def _boundary(tets: np.ndarray, on_surface: np.ndarray) -> np.ndarray:
    """The boundary, sought only where the nodes of a face are on the surface."""
    triangles = boundary_triangles(tets[on_surface[tets].sum(axis=1) >= 3])
    return triangles[on_surface[triangles].all(axis=1)]


@cache
def _stencil(labels: tuple[int, ...], by_number: bool) -> np.ndarray:
    """(k, 4) tetrahedra of one case, for a positive one; 0-3 its nodes, 4-9 its edges' cuts."""

    def _diagonal(p: int, q: int, n: int) -> int:
        return min(p, q) if by_number else _lattice_diagonal(p, q, n)

    inside, zero, outside = ([v for v in range(4) if labels[v] == s] for s in (-1, 0, 1))
    cut = {frozenset(edge): 4 + k for k, edge in enumerate(_LOCAL_EDGES.tolist())}
    if not inside:
        return np.empty((0, 4), dtype=int)
    if not outside:
        return np.arange(4)[None]
    if len(inside) == 1:
        p = inside[0]
        return np.array([[v if v in inside + zero else cut[frozenset((p, v))] for v in range(4)]])
    if zero:
        (p, q), n, apex = inside, outside[0], zero[0]
        if _diagonal(p, q, n) == q:
            p, q = q, p
        cp, cq = cut[frozenset((p, n))], cut[frozenset((q, n))]
        return _oriented([[p, q, cq, apex], [p, cq, cp, apex]])
    if len(inside) == 3:
        n = outside[0]
        columns = [(p, cut[frozenset((p, n))]) for p in inside]
        before = {
            (i, j): _diagonal(inside[i], inside[j], n) == inside[i]
            for i, j in permutations(range(3), 2)
        }
    else:
        (p, q), (m, n) = inside, outside
        columns = [
            (p, q),
            (cut[frozenset((p, m))], cut[frozenset((q, m))]),
            (cut[frozenset((p, n))], cut[frozenset((q, n))]),
        ]
        before = {(0, 1): _diagonal(p, q, m) == p, (0, 2): _diagonal(p, q, n) == p}
        # The quadrilateral on the surface belongs to this tetrahedron alone; of its two
        # diagonals the one that leaves the prism divisible.
        before[1, 2] = before[0, 2]
        before |= {(j, i): not first for (i, j), first in before.items()}
    order = sorted(range(3), key=lambda i: sum(before[j, i] for j in range(3) if j != i))
    (a1, a2), (b1, b2), (c1, c2) = (columns[i] for i in order)
    return _oriented([[a1, b1, c1, c2], [a1, b1, b2, c2], [a1, a2, b2, c2]])


def _lattice_diagonal(p: int, q: int, n: int) -> int:
    """Which of the inside nodes p, q the diagonal of the cut face (p, q, n) starts from.

    A face has one long edge. If the surface cuts it, the diagonal ends at that cut: it is the
    shorter one. If it cuts the two short edges, the diagonal starts from the node of which an odd
    number of coordinates exceeds those of n, whichever tetrahedron looks at the face.
    """
    if {p, n} in ({0, 1}, {2, 3}):
        return q
    if {q, n} in ({0, 1}, {2, 3}):
        return p
    odd = {(0, 2), (1, 3), (2, 1), (3, 0)}
    return p if (p, n) in odd else q


def _oriented(tets: list[list[int]]) -> np.ndarray:
    """Turn the tetrahedra of a stencil so that they are positive where their parent is."""
    nodes = np.array([(0, 0, 0), (2, 0, 0), (1, 1, -1), (1, 1, 1)], dtype=float)
    positions = np.concatenate([nodes, nodes[_LOCAL_EDGES].mean(axis=1)])
    out = np.array(tets)
    corners = positions[out]
    negative = np.linalg.det(corners[:, 1:] - corners[:, :1]) < 0
    out[negative, 2:] = out[negative, :1:-1]
    return out
