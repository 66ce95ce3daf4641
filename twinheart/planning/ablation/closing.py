r"""Closing a part of the heart from one side to the other with few lesions.

The least cut (`twinheart.planning.ablation.cuts`) says where: each tetrahedron costs its volume
times the living tissue that the cheapest application over it burns, so that the sum is about the
area of the cut times what is burnt for each of its square millimetres. Of cuts that cost alike that
one is sought which lies at one distance from the source, as a mesh knows no straight lines. Then
lesions are laid over the cut, and those left out without which it stays closed: one where one is
enough.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import KDTree

from twinheart.mesh import TetMesh
from twinheart.mesh.quality import components, edge_graph, edges, mean_edge, renumbered
from twinheart.planning.ablation.cuts import least_cut
from twinheart.planning.ablation.lesions import Lesion
from twinheart.planning.ablation.reach import Applications, Reach
from twinheart.planning.circuits.search import Circuit
from twinheart.types import Points

_ON_MESH = 1e-3  # mm: a step of a circuit so near a node is that node
_SINGLE = 50  # applications that are tried alone, the cheapest first


class Closing(NamedTuple):
    """Lesions that close a part.

    Attributes
    ----------
    lesions : tuple of Lesion
        The fewest that were found.
    burnt : (tet,) bool array
        All that they burn.
    """

    lesions: tuple[Lesion, ...]
    burnt: Bool[np.ndarray, "tet"]


def separate(
    reach: Reach,
    part: Bool[np.ndarray, "tet"],
    source: Int[np.ndarray, "source"],
    sink: Int[np.ndarray, "sink"],
) -> Closing | None:
    """Lesions after which no way is left within a part from some nodes to others.

    Parameters
    ----------
    reach : Reach
        Heart and catheter.
    part : (tet,) bool array
        What conducts there.
    source, sink : int arrays
        Nodes to be separated.

    Returns
    -------
    Closing or None
        None where the catheter cannot.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning.ablation.closing import separate
    >>> from twinheart.planning.ablation.reach import Catheter, Reach
    >>> mesh = slab((30.0, 5.0, 2.0), 1.0)
    >>> whole = np.ones(mesh.n_tets, dtype=bool)
    >>> ends = [np.flatnonzero(mesh.points[:, 0] == x) for x in (0.0, 30.0)]
    >>> found = separate(Reach(mesh, whole, Catheter(3.0)), whole, *ends)
    >>> len(found.lesions)
    1
    """
    tets = np.flatnonzero(part)
    corners = reach.mesh.tets[tets]
    nodes, local = renumbered(corners, reach.mesh.n_nodes)
    ends = [np.flatnonzero(np.isin(nodes, end)) for end in (source, sink)]
    applications = reach.near(part)
    price = (reach.cost(applications) * reach.volume)[tets]
    cut = least_cut(local, price, *ends)
    if cut is None:
        return None
    if cut.size:
        away = _ways(reach.mesh.points[nodes], local, ends[0])[local].mean(axis=1)
        uneven = ((away - np.median(away[cut])) / reach.catheter.radius) ** 2
        straight = least_cut(local, price * (1 + np.where(np.isfinite(uneven), uneven, 1e6)), *ends)
        cut = cut if straight is None else straight

    def closed(burnt: Bool[np.ndarray, "tet"]) -> bool:
        label = components(local[~burnt[tets]], len(nodes))
        return not np.isin(label[ends[0]], label[ends[1]]).any()

    target = np.zeros(reach.mesh.n_tets, dtype=bool)
    target[tets[cut]] = True
    return _fewest(reach, applications, target, closed)


def close_isthmus(
    reach: Reach, circuit: Circuit, burnt: Bool[np.ndarray, "tet"] | None = None
) -> Closing | None:
    """Lesions that close the isthmus of a circuit at the least cost.

    Parameters
    ----------
    reach : Reach
        Heart and catheter.
    circuit : Circuit
        From `twinheart.planning.screen_circuits`.
    burnt : (tet,) bool array, optional
        What is burnt already.

    Returns
    -------
    Closing or None
        None where the catheter cannot close it.
    """
    part = np.zeros(reach.mesh.n_tets, dtype=bool)
    part[circuit.isthmus_tets] = True
    living = reach.living if burnt is None else reach.living & ~burnt
    part &= living
    ends = mouths_on_way(reach, part, living, circuit.path)
    return None if ends is None else separate(reach, part, *ends)


def _fewest(
    reach: Reach,
    applications: Applications,
    target: Bool[np.ndarray, "tet"],
    closed: Callable[[Bool[np.ndarray, "tet"]], bool],
) -> Closing:
    """One application if one is enough, else those over a target without which it is open."""
    burns = applications.burns
    spare = burns @ np.where(reach.living, reach.volume, 0.0)
    over = np.flatnonzero(burns @ target.astype(float) > 0)

    def burnt_by(chosen) -> Bool[np.ndarray, "tet"]:
        return np.bincount(burns[chosen].indices, minlength=reach.mesh.n_tets) > 0

    def closing(chosen) -> Closing:
        lesions = tuple(reach.catheter.at(applications.points[k]) for k in chosen)
        return Closing(lesions, burnt_by(chosen))

    most = np.argsort(-(burns[over] @ np.where(target, reach.volume, 0.0)), kind="stable")
    singles = over[most[:_SINGLE]]
    for k in singles[np.argsort(spare[singles], kind="stable")]:
        if closed(burnt_by([k])):
            return closing([k])
    chosen = list(reach.cover_by(target, applications)[0])
    for k in sorted(chosen, key=lambda k: -spare[k]):
        others = [j for j in chosen if j != k]
        if closed(burnt_by(others)):
            chosen = others
    return closing(chosen)


def _ways(points: Points, tets, source) -> Float[np.ndarray, "node"]:
    """Way along edges from the nearest of some nodes [mm]."""
    return dijkstra(edge_graph(points, tets), indices=source, min_only=True)


def mouths_of(
    reach: Reach, part: Bool[np.ndarray, "tet"], living: Bool[np.ndarray, "tet"]
) -> list[Int[np.ndarray, "mouth"]]:
    """Nodes through which a part opens to other tissue that conducts, by patches.

    Parameters
    ----------
    reach : Reach
        Holds the heart.
    part, living : (tet,) bool arrays
        The part, and all that conducts.

    Returns
    -------
    list of int arrays
        Patches that do not touch.
    """
    rim, label = rim_of(reach.mesh, part, living)
    return [rim[label[rim] == k] for k in np.unique(label[rim])]


def rim_of(
    mesh: TetMesh, part: Bool[np.ndarray, "tet"], living: Bool[np.ndarray, "tet"]
) -> tuple[Int[np.ndarray, "rim"], Int[np.ndarray, "node"]]:
    """Nodes at which a part opens to other tissue that conducts, and for all nodes their patch.

    Parameters
    ----------
    mesh : TetMesh
        The heart.
    part, living : (tet,) bool arrays
        The part, and all that conducts.

    Returns
    -------
    rim : (rim,) int array
        Nodes of the part and of other tissue.
    patch : (node,) int array
        Numbers; nodes of the rim that are joined along it have the same.
    """
    within, beyond = (np.zeros(mesh.n_nodes, dtype=bool) for _ in range(2))
    within[mesh.tets[part]] = True
    beyond[mesh.tets[living & ~part]] = True
    on_rim = within & beyond
    pairs = edges(mesh.tets[part])
    along = pairs[on_rim[pairs].all(axis=1)]
    graph = sp.coo_array((np.ones(len(along)), tuple(along.T)), shape=(mesh.n_nodes,) * 2)
    return np.flatnonzero(on_rim), connected_components(graph, directed=False)[1]


def mouths_on_way(
    reach: Reach,
    part: Bool[np.ndarray, "tet"],
    living: Bool[np.ndarray, "tet"],
    path: Float[np.ndarray, "step 3"],
) -> tuple[np.ndarray, np.ndarray] | None:
    """Nodes of the mouths through which a way leaves a part and comes back to it.

    Where both are one mouth, which the rim of a scar may make of them, its nodes are divided by
    which end of the way is nearer.

    Parameters
    ----------
    reach : Reach
        Holds the heart.
    part, living : (tet,) bool arrays
        The part, and all that conducts.
    path : (step, 3) array
        The way [mm], from within the part or its rim.

    Returns
    -------
    tuple of two int arrays, or None
        None where the way does not leave the part, or leaves it and comes back at one node.
    """
    points, tets = reach.mesh.points, reach.mesh.tets
    rim, mouth = rim_of(reach.mesh, part, living)
    distance, nearest = KDTree(points).query(path)
    steps = np.asarray(nearest)
    steps = steps[(distance < _ON_MESH) & np.isin(steps, rim)]
    if not steps.size or steps[0] == steps[-1]:
        return None
    first, last = mouth[steps[0]], mouth[steps[-1]]
    if first != last:
        return rim[mouth[rim] == first], rim[mouth[rim] == last]
    out, back = (_ways(points, tets[part], steps[[k]])[rim] for k in (0, -1))
    between = np.abs(out - back) < mean_edge(reach.mesh)
    ends = rim[(out < back) & ~between], rim[(back < out) & ~between]
    return ends if ends[0].size and ends[1].size else None
