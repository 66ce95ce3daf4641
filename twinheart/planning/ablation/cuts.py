r"""The least tissue whose removal separates two parts of a mesh: a maximum flow, a minimum cut.

Waves pass from one tetrahedron to the next wherever these share a node. So tetrahedra are the
vertices of a flow network, each with what it costs to burn it as its capacity, and nodes of the
mesh join them without limit. By the theorem of Ford and Fulkerson (1956,
doi:10.4153/CJM-1956-045-5) the largest flow from the source to the sink is the least cost of
tetrahedra without which no way is left.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from twinheart.mesh.quality import components, renumbered

_TOTAL = 1_000_000_000  # of all capacities: the flow is counted in 32 bits
_FREE = 1_500_000_000


def least_cut(
    tets: Int[np.ndarray, "tet 4"],
    cost: Float[np.ndarray, "tet"],
    source: Int[np.ndarray, "source"],
    sink: Int[np.ndarray, "sink"],
) -> Int[np.ndarray, "cut"] | None:
    """Tetrahedra of least total cost whose removal leaves no way between two sets of nodes.

    Parameters
    ----------
    tets : (tet, 4) int array
        Tetrahedra through which waves pass.
    cost : (tet,) array
        Of removing each of them, positive; ``inf`` where it cannot be removed.
    source, sink : int arrays
        Nodes to be separated.

    Returns
    -------
    (cut,) int array or None
        Numbers of the tetrahedra; of several cuts with the same cost, that nearest to the source.
        None where no cut is possible.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning.ablation.cuts import least_cut
    >>> mesh = slab((5.0, 2.0, 2.0), 1.0)
    >>> x = mesh.points[:, 0]
    >>> cost = np.where(mesh.points[mesh.tets].mean(axis=1)[:, 0] // 1 == 3, 1.0, 9.0)
    >>> cut = least_cut(mesh.tets, cost, np.flatnonzero(x == 0), np.flatnonzero(x == 5))
    >>> len(cut), np.unique(mesh.points[mesh.tets[cut]].mean(axis=1)[:, 0] // 1)  # 2 x 2 cubes
    (24, array([3.]))
    """
    nodes, local = renumbered(tets, int(tets.max(initial=-1)) + 1)
    source, sink = (np.flatnonzero(np.isin(nodes, end)) for end in (source, sink))
    if not source.size or not sink.size:
        return np.zeros(0, dtype=np.int64)
    fixed = ~np.isfinite(cost)
    part = components(local[fixed], len(nodes)) if fixed.any() else np.arange(len(nodes))
    if np.isin(part[source], part[sink]).any():
        return None
    return _minimum_cut(local, cost, source, sink, len(nodes))


def _minimum_cut(local, cost, source, sink, n_nodes: int) -> np.ndarray:
    count = len(local)
    fixed = ~np.isfinite(cost)
    weight = np.where(fixed, 0.0, cost)
    capacity = np.maximum(1, np.rint(weight * (_TOTAL / (weight.sum() + count)))).astype(np.int32)
    capacity[fixed] = _FREE
    entry = n_nodes + np.arange(count)
    leave = entry + count
    start, end = n_nodes + 2 * count, n_nodes + 2 * count + 1
    rows = [local.ravel(), np.repeat(leave, 4), entry, np.full(len(source), start), sink]
    columns = [np.repeat(entry, 4), local.ravel(), leave, source, np.full(len(sink), end)]
    free = np.full(8 * count, _FREE, dtype=np.int32)
    ends = np.full(len(source) + len(sink), _FREE, dtype=np.int32)
    graph = csr_array(
        (
            np.concatenate([free, capacity, ends]),
            (np.concatenate(rows), np.concatenate(columns)),
        ),
        shape=(end + 1, end + 1),
    )
    left = csr_array(graph - maximum_flow(graph, start, end).flow)
    left.data = (left.data > 0).astype(np.int32)
    left.eliminate_zeros()
    reached = np.zeros(end + 1, dtype=bool)
    reached[breadth_first_order(left, start, return_predecessors=False)] = True
    return np.flatnonzero(reached[entry] & ~reached[leave])
