r"""Isthmuses: where two parts of one wave meet inside scar, having entered by different mouths.

The zone is border zone that conducts; its depth is the way, within it, from other tissue that
conducts. Deeper than some depth lie its inner parts, which open through *mouths*, patches of faces
that do not touch. In a wave that arrives at times :math:`\tau`, the components of
:math:`\{\tau < t\}` within such a part are born where the wave enters and merge where it meets
itself: the merge tree of the sub-level sets. Two components that merge and were born at different
mouths have met in an isthmus.

Depths are needed because a core has a rim of border zone that joins all its channels on the
outside: only below the depth of the rim are these apart. Whether an isthmus can carry a circuit
`twinheart.planning.circuits.search` finds out.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import dijkstra, minimum_spanning_tree

from twinheart.anatomy.corridors import MIN_AREA, face_neighbours
from twinheart.mesh.quality import components, edge_graph, edge_lengths, edges, triangle_areas
from twinheart.types import Points


class Merge(NamedTuple):
    """Two components of sub-level sets that become one.

    Attributes
    ----------
    elder, younger : int
        Nodes at which they were born, the elder first.
    node : int
        Node at which they merge.
    """

    elder: int
    younger: int
    node: int


class Isthmus(NamedTuple):
    """A part of the zone in which waves met.

    Attributes
    ----------
    tets : (own_tet,) int array
        Its tetrahedra.
    late, early : int arrays
        Nodes of its two mouths; the wave of the first of `sites` comes to `early` first.
    sites : tuple of int
        Numbers of the waves that met here.
    """

    tets: Int[np.ndarray, "own_tet"]
    late: Int[np.ndarray, "late"]
    early: Int[np.ndarray, "early"]
    sites: tuple[int, ...]


def merge_events(times: Float[np.ndarray, "node"], pairs: Int[np.ndarray, "edge 2"]) -> list[Merge]:
    """Merges of the components of sub-level sets on a graph, in the order in which they happen.

    Kruskal's algorithm on the minimum spanning forest, in which each edge is as late as its later
    end. A node that joins what is there already is no merge. Of nodes with equal times the one
    with the lower number comes first.

    Parameters
    ----------
    times : (node,) array
        Finite at the nodes of all edges.
    pairs : (edge, 2) int array
        Edges of the graph, each once.

    Returns
    -------
    list of Merge
        Events.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.planning.circuits.isthmuses import merge_events
    >>> chain = np.array([[0, 1], [1, 2], [2, 3], [3, 4]])
    >>> merge_events(np.array([1.0, 2.0, 5.0, 3.0, 0.0]), chain)
    [Merge(elder=4, younger=0, node=2)]
    """
    nodes, local = np.unique(pairs, return_inverse=True)
    local = local.reshape(-1, 2)
    order = np.argsort(times[nodes], kind="stable")
    rank = np.empty(len(nodes), dtype=np.int64)
    rank[order] = np.arange(len(nodes))
    later = rank[local].max(axis=1) + 1.0  # zero would be no edge
    graph = sp.csr_array((later, tuple(rank[local].T)), shape=(len(nodes), len(nodes)))
    forest = minimum_spanning_tree(graph).tocoo()
    sequence = np.argsort(forest.data, kind="stable")
    parent = list(range(len(nodes)))  # by rank: the root of a component is where it was born

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    found = []
    low, high = forest.row[sequence].tolist(), forest.col[sequence].tolist()
    for first, second in zip(low, high, strict=True):
        elder, younger = sorted((root(first), root(second)))
        parent[younger] = elder
        at = max(first, second)
        if younger != at:
            found.append(Merge(*(int(nodes[order[k]]) for k in (elder, younger, at))))
    return found


def find_isthmuses(
    points: Points,
    tets: Int[np.ndarray, "tet 4"],
    zone: Bool[np.ndarray, "tet"],
    waves: Sequence[Float[np.ndarray, "node"]],
    *,
    min_area: float = MIN_AREA,
) -> list[Isthmus]:
    """Parts of a zone in which waves meet, those that reach out farthest first.

    Parts at different depths overlap: they are proposals for one isthmus.

    Parameters
    ----------
    points : (node, 3) array
        Nodes [mm].
    tets : (tet, 4) int array
        Tetrahedra that conduct.
    zone : (tet,) bool array
        Those of the border zone.
    waves : sequence of (node,) arrays
        Times of arrival from each site [ms].
    min_area : float
        Least area of a mouth [mm2].

    Returns
    -------
    list of Isthmus
        Proposals.
    """
    found: list[Isthmus] = []
    if not zone.any():
        return found
    depth, step = _depths(points, tets, zone)
    pairs, faces = face_neighbours(tets)
    area = triangle_areas(points, faces)
    level = 0
    while (inside := zone & (depth[tets].min(axis=1) >= level * step * (1 - 1e-9))).any():
        inside &= np.isfinite(depth[tets]).all(axis=1)
        mouth = _mouths(faces, area, inside[pairs].sum(axis=1) == 1, len(points), min_area)
        found += _met(tets, inside, mouth, waves)
        level += 1
        if level * step > depth[np.isfinite(depth)].max():
            break
    return found


def _depths(points: Points, tets, zone) -> tuple[np.ndarray, float]:
    """Way of each node of the zone from other tissue [mm], infinite elsewhere, and an edge."""
    length, graph = edge_lengths(points, tets[zone]), edge_graph(points, tets[zone])
    rim = np.intersect1d(tets[zone], tets[~zone])
    if not rim.size:
        return np.full(len(points), np.inf), float(length.mean())
    depth = dijkstra(graph, indices=rim, min_only=True)
    within = np.zeros(len(points), dtype=bool)
    within[tets[zone]] = True
    return np.where(within, depth, np.inf), float(length.mean())


def _mouths(faces, area, is_open, n_nodes: int, least: float) -> Int[np.ndarray, "node"]:
    """Number of the mouth to which each node belongs, -1 where to none or to a tiny one."""
    mouth = np.full(n_nodes, -1)
    opened = faces[is_open]
    if len(opened):
        label = components(opened, n_nodes)[opened[:, 0]]
        wide = np.bincount(label, area[is_open])[label] >= least
        mouth[opened[wide]] = label[wide, None]
    return mouth


def _met(tets, inside, mouth, waves) -> list[Isthmus]:
    """Parts at one depth in which waves from two mouths met."""
    numbers = np.flatnonzero(inside)
    if not len(numbers):
        return []
    part = components(tets[numbers], len(mouth))
    pairs = edges(tets[numbers])
    met: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
    for site, times in enumerate(waves):
        reached = np.isfinite(times)[pairs].all(axis=1)
        for merge in merge_events(times, pairs[reached]) if reached.any() else ():
            early, late = int(mouth[merge.elder]), int(mouth[merge.younger])
            if early >= 0 and late >= 0 and early != late:
                key = (int(part[merge.node]), min(early, late), max(early, late))
                met.setdefault(key, []).append((site, early))
    found = []
    for (label, first, second), events in met.items():
        own = numbers[part[tets[numbers, 0]] == label]
        nodes = np.unique(tets[own])
        ends = {k: nodes[mouth[nodes] == k] for k in (first, second)}
        early = events[0][1]
        late = second if early == first else first
        sites = tuple(dict.fromkeys(site for site, _ in events))
        found.append(Isthmus(own, ends[late], ends[early], sites))
    return found
