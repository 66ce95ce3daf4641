"""Collapse of edges near the boundary: small tetrahedra set the step of explicit schemes."""

import numpy as np
from jaxtyping import Bool, Float, Int

from twinheart.mesh.quality import tet_shapes, unique_edge_keys
from twinheart.types import Points, Tets, Triangles

# Diagonal entries of M_L^-1 K times the edge squared above this are to fall; a BCC lattice has 6.6.
_STIFF = 12.0
# No dihedral angle [degrees] below this comes about, unless there was one.
_MIN_ANGLE = 15.0
# Largest change of volume by one collapse, in cubes of the edge: bounds how far the surface moves.
_MAX_LOSS = 0.05
# Neighbours tried of each node, the nearest first, and collapses tried at a time (memory).
_N_TRIED, _CHUNK = 3, 20_000
_LOW = 0xFFFFFFFF


def collapse_edges(
    points: Points,
    tets: Tets,
    triangles: Triangles,
    free: Bool[np.ndarray, "node"],
    edge: Float[np.ndarray, "node"],
    *,
    rounds: int,
) -> tuple[Int[np.ndarray, "kept_tet 4"], Int[np.ndarray, "kept_triangle 3"]]:
    r"""Join nodes whose row of the explicit operator is stiff with one of their neighbours.

    A row's stiffness is :math:`K_{ii} / M_{ii}` for unit diffusivity; what of it exceeds nearly
    twice that of the lattice, squared and summed over the nodes, falls with every collapse. The
    topology stays (link condition); nodes of the surface move along edges of the surface only.

    Parameters
    ----------
    points : (node, 3) array
        Coordinates [mm].
    tets : (tet, 4) int array
        Positively oriented tetrahedra.
    triangles : (triangle, 3) int array
        Their true boundary.
    free : (node,) bool array
        Nodes whose tetrahedra are all among `tets`.
    edge : (node,) array
        Edge length of the mesh [mm] at each node.
    rounds : int
        Each round collapses edges that are not near each other.

    Returns
    -------
    tets, triangles
        What is left of them; nodes keep their numbers, the removed ones are used no more.

    References
    ----------
    Dey, Edelsbrunner, Guha & Nekhayev, Topology preserving edge contraction, Publ. Inst. Math.
    66 (1999).

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.collapse import collapse_edges
    >>> from twinheart.mesh.quality import boundary_triangles
    >>> from twinheart.mesh.stuffing import stuff
    >>> ball = lambda x: np.linalg.norm(x, axis=1) - 10.0
    >>> raw = stuff(ball, ([-10] * 3, [10] * 3), 2.0, improve=False)
    >>> surface, free = boundary_triangles(raw.tets), np.ones(raw.n_nodes, dtype=bool)
    >>> edge = np.full(raw.n_nodes, 2.0)
    >>> tets, _ = collapse_edges(raw.points, raw.tets, surface, free, edge, rounds=3)
    >>> len(tets) < raw.n_tets
    True
    """
    tets, triangles = tets.astype(np.int64), triangles.astype(np.int64)
    stiff, volume, angle = tet_shapes(points, tets)
    near_change = np.ones(len(points), dtype=bool)
    for _ in range(rounds):
        star = _Stars(points, tets, triangles, free, near_change, edge, stiff, volume, angle)
        node, into = star.best_collapses()
        if not len(node):
            break
        target = np.arange(len(points))
        target[node] = into
        removed = target != np.arange(len(points))
        touched = removed[tets].any(axis=1)
        near_change = _nodes_of(tets[touched], len(points))
        near_change = _nodes_of(tets[near_change[tets].any(axis=1)], len(points))
        triangles = _without_repeats(target[triangles])
        moved = _without_repeats(target[tets[touched]])
        tets = np.concatenate([tets[~touched], moved])
        new = tet_shapes(points, moved)
        stiff, volume, angle = (
            np.concatenate([old[~touched], add])
            for old, add in zip((stiff, volume, angle), new, strict=True)
        )
    return tets, triangles


class _Stars:
    """The collapses worth a thought in one round: stiff nodes, their tetrahedra and neighbours."""

    def __init__(self, points, tets, triangles, free, near_change, edge, stiff, volume, angle):
        n = len(points)
        self.points, self.tets, self.edge = points, tets, edge
        self.stiff, self.volume, self.angle = stiff, volume, angle
        self.total_stiff = np.bincount(tets.ravel(), stiff.ravel(), n)
        self.total_mass = np.bincount(tets.ravel(), volume.repeat(4) / 4.0, n)
        # of a node without tetrahedra both are zero
        bad = self.total_stiff * edge**2 > _STIFF * self.total_mass
        bad &= near_change
        bad[tets[(~free)[tets].any(axis=1)]] = False
        at = np.flatnonzero(bad[tets].any(axis=1))
        node, tet = tets[at].ravel(), at.repeat(4)
        node, tet = node[bad[node]], tet[bad[node]]
        order = np.argsort(node, kind="stable")
        self.tet = tet[order]
        self.first_tet = np.searchsorted(node[order], np.arange(n + 1))
        pair, self.n_shared = np.unique(
            node[order][:, None] << 32 | tets[self.tet], return_counts=True
        )
        self.i, self.j = pair >> 32, pair & _LOW
        self.first = np.searchsorted(self.i, np.arange(n + 1))
        nodes_near = _nodes_of(tets[at], n)
        self.edges = unique_edge_keys(tets[nodes_near[tets].any(axis=1)])
        self.surface_edges = unique_edge_keys(triangles)
        self.on_surface = _nodes_of(triangles, n)

    def best_collapses(self) -> tuple[np.ndarray, np.ndarray]:
        """Nodes to remove and the neighbours they are joined with, far enough from each other."""
        tried = self._candidates()
        i, j = self.i[tried], self.j[tried]
        gain = np.concatenate(
            [np.zeros(0)]
            + [self._gain(i[k : k + _CHUNK], j[k : k + _CHUNK]) for k in range(0, len(i), _CHUNK)]
        )
        order = np.lexsort((-gain, i))
        order = order[np.diff(i[order], prepend=-1) != 0]
        order = order[gain[order] > 0]
        order = order[np.argsort(-gain[order], kind="stable")]
        chosen = order[self._independent(i[order])]
        return i[chosen], j[chosen]

    def _candidates(self) -> np.ndarray:
        """Indices of the pairs (i, j) to try: short, allowed, and with their links in order."""
        along = _among(_key(self.i, self.j), self.surface_edges)
        allowed = (self.i != self.j) & (along | ~self.on_surface[self.i])
        length = np.linalg.norm(self.points[self.i] - self.points[self.j], axis=1)
        length[~allowed] = np.inf
        order = np.lexsort((length, self.i))
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order)) - self.first[self.i[order]]
        tried = np.flatnonzero(allowed & (rank < _N_TRIED))
        # Link condition, in the complex closed by one more vertex that sees the whole boundary.
        row, at = _expand(self.first, self.i[tried])
        i, j, k = self.i[at], self.j[tried][row], self.j[at]
        common = (k != i) & (k != j) & _among(_key(j, k), self.edges)
        n_common = np.bincount(row, common, len(tried))
        on_surface = common & along[at] & _among(_key(j, k), self.surface_edges)
        n_on_surface = np.bincount(row, on_surface, len(tried))
        good = n_common == self.n_shared[tried] + along[tried]
        return tried[good & (~along[tried] | (n_on_surface == 2))]

    def _gain(self, i: np.ndarray, j: np.ndarray) -> Float[np.ndarray, "collapse"]:
        """By how much each collapse lowers the excess stiffness; -1 where it is not allowed."""
        row, at = _expand(self.first_tet, i)
        tet = self.tet[at]
        old = self.tets[tet]
        stays = ~(old == j[row][:, None]).any(axis=1)
        new = np.where(old == i[row][:, None], j[row][:, None], old)[stays]
        stiff, volume, angle = tet_shapes(self.points, new)
        n = len(i)
        worst, old_worst = np.full(n, 180.0), np.full(n, _MIN_ANGLE)
        np.minimum.at(worst, row[stays], angle)
        np.minimum.at(old_worst, row, self.angle[tet])
        loss = np.bincount(row[stays], volume, n) - np.bincount(row, self.volume[tet], n)
        allowed = (worst >= np.maximum(old_worst, 0.1)) & (
            np.abs(loss) <= _MAX_LOSS * self.edge[i] ** 3
        )

        keys = np.concatenate([(row[:, None] << 32 | old), (row[stays][:, None] << 32 | new)])
        keys, place = np.unique(keys, return_inverse=True)
        change = np.concatenate([-self.stiff[tet], stiff]).ravel()
        k_change = np.bincount(place.ravel(), change)
        change = np.concatenate([-self.volume[tet], volume]).repeat(4) / 4.0
        m_change = np.bincount(place.ravel(), change)
        where, node = keys >> 32, keys & _LOW
        k_old, m_old = self.total_stiff[node], self.total_mass[node]
        k_new, m_new = k_old + k_change, m_old + m_change
        edge = self.edge[node]
        before = _excess(k_old, m_old, edge)
        after = np.where(node == i[where], 0.0, _excess(k_new, m_new, edge))
        return np.where(allowed, np.bincount(where, before - after, n), -1.0)

    def _independent(self, i: np.ndarray) -> Bool[np.ndarray, "collapse"]:
        """Which nodes to take, the first first, so that no two have neighbours in common."""
        row, at = _expand(self.first, i)
        around = self.j[at]
        taken = np.zeros(len(i), dtype=bool)
        open_ = np.ones(len(i), dtype=bool)
        while open_.any():
            claim = np.full(len(self.points), len(i))
            mine = open_[row]
            np.minimum.at(claim, around[mine], row[mine])
            lost = np.bincount(row, claim[around] != row, len(i)) > 0
            won = open_ & ~lost
            taken |= won
            used = np.zeros(len(self.points), dtype=bool)
            used[around[won[row]]] = True
            open_ &= np.bincount(row, used[around], len(i)) == 0
        return taken


def _excess(stiff: np.ndarray, mass: np.ndarray, edge: np.ndarray) -> np.ndarray:
    ratio = stiff / np.maximum(mass, 1e-9 * edge**3) * edge**2
    return np.clip(ratio - _STIFF, 0.0, 1e6) ** 2


def _nodes_of(cells: np.ndarray, n_nodes: int) -> Bool[np.ndarray, "node"]:
    found = np.zeros(n_nodes, dtype=bool)
    found[cells] = True
    return found


def _without_repeats(cells: np.ndarray) -> np.ndarray:
    """Cells whose nodes all differ."""
    return cells[(np.diff(np.sort(cells, axis=1), axis=1) > 0).all(axis=1)]


def _key(i: np.ndarray, j: np.ndarray) -> np.ndarray:
    return np.minimum(i, j) << 32 | np.maximum(i, j)


def _among(keys: np.ndarray, known: np.ndarray) -> Bool[np.ndarray, "..."]:
    return known[np.minimum(np.searchsorted(known, keys), len(known) - 1)] == keys


def _expand(first: np.ndarray, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every entry of the list of each node: the node's row in `nodes`, the index of the entry."""
    count = first[nodes + 1] - first[nodes]
    row = np.arange(len(nodes)).repeat(count)
    start = first[nodes] - (np.cumsum(count) - count)
    return row, np.arange(len(row)) + start[row]
