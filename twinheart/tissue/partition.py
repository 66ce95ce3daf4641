r"""Domain decomposition: the nodes of a tissue in parts of one size, and what these exchange.

The nodes lie in reverse Cuthill-McKee order (`twinheart.tissue.discrete.assemble`), in which
consecutive nodes form a slab of the heart and a slab touches the next ones only. So each cell
model's nodes are cut into equal runs: every part gets the same number of nodes of every model,
hence the same work, and the halo of a part is two cross-sections of the heart. No other partitioner
is needed as long as a part is thicker than a layer of nodes; where it is not, it exchanges with
more than its two neighbours, which is slower and as right.
"""

from itertools import pairwise
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from twinheart.errors import InputError
from twinheart.tissue.discrete import Tissue, padded_length
from twinheart.tissue.halo import Halo

AXIS = "part"  # of devices


class Partition(eqx.Module):
    """Nodes of a computation laid out part after part.

    Attributes
    ----------
    source : (place,) int array
        Node of the computation at each place; filling repeats one of its part.
    own : (place,) bool array
        False for the filling at the end of each model's nodes in each part.
    place : (node,) int array
        Where each node of the computation lies.
    columns : (slot, place) int array
        Neighbours, as places in `Halo.around` of their part.
    halo : Halo
        Exchange between the parts.
    received : (part,) int array
        Nodes around each part, without what makes the messages equally long.
    model_sizes : tuple of int
        Places of each cell model in a part.
    parts : int
        Number of parts.
    """

    source: Int[np.ndarray, "place"]
    own: Bool[np.ndarray, "place"]
    place: Int[np.ndarray, "node"]
    columns: Int[np.ndarray, "slot place"]
    halo: Halo
    received: Int[np.ndarray, "part"]
    model_sizes: tuple[int, ...] = eqx.field(static=True)
    parts: int = eqx.field(static=True)

    @property
    def size(self) -> int:
        """Places of a part."""
        return sum(self.model_sizes)

    def to_parts(self, values: Any, filling: Any = None) -> Any:
        """Rearrange (..., node) values to places; the filling repeats a node or has this value."""
        values = values[..., self.source]
        if filling is None:
            return values
        where = np.where if isinstance(values, np.ndarray) else jnp.where
        return where(self.own, values, filling)

    def to_nodes(self, values: Any) -> Any:
        """Rearrange (..., place) values to the nodes of the computation."""
        return values[..., self.place]

    def of_models(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each cell model: node among its own at each of its places, and place of each node."""
        source = self.source.reshape(self.parts, -1)
        part, within = np.divmod(self.place, self.size)
        found, start, node = [], 0, 0
        for size in self.model_sizes:
            chosen = (start <= within) & (within < start + size)
            places = size * part[chosen] + within[chosen] - start
            found.append((source[:, start : start + size].ravel() - node, places))
            start, node = start + size, node + len(places)
        return found

    def summary(self) -> dict[str, Any]:
        """How even the parts are and what they exchange, in numbers."""
        nodes = self.own.reshape(self.parts, -1).sum(axis=1)
        return {
            "parts": self.parts,
            "nodes_min": int(nodes.min()),
            "nodes_max": int(nodes.max()),
            "places": self.size,
            # the slowest part sets the pace
            "imbalance": float(self.parts * self.size / nodes.sum() - 1.0),
            "halo_max": int(self.received.max()),
            "halo_share": float(self.received.max() / self.size),
            "messages": len(self.halo.shifts),
            "message_nodes": [len(nodes) // self.parts for nodes in self.halo.send],
        }


def partition(tissue: Tissue, model_sizes: tuple[int, ...], parts: int) -> Partition:
    """Cut a tissue into parts of one size.

    Parameters
    ----------
    tissue : Tissue
        What to cut; of its arrays only the columns are used.
    model_sizes : tuple of int
        Nodes of each cell model, which are contiguous.
    parts : int
        Number of parts.

    Returns
    -------
    Partition
        Where everything lies.

    Raises
    ------
    InputError
        If there are fewer nodes of a model than parts.

    Examples
    --------
    >>> from twinheart.tissue.discrete import assemble_cable
    >>> from twinheart.tissue.partition import partition
    >>> import numpy as np
    >>> cable = assemble_cable(1000, 0.2).tissue(np.array([[0.1, 0.0, 0.0]]))
    >>> cut = partition(cable, (1000,), 4)
    >>> cut.summary()["nodes_max"], cut.received.tolist()  # the ends have one neighbour
    (250, [1, 2, 2, 1])
    """
    if not 1 <= parts <= min(model_sizes):
        raise InputError(
            f"cannot cut the tissue into {parts} parts: expected 1 to {min(model_sizes)}, the "
            "nodes of its smallest cell model; take fewer devices."
        )
    source, own, sizes = _cut(model_sizes, parts)
    part, place = np.zeros((2, tissue.n_nodes), np.int64)
    places = np.flatnonzero(own)
    place[source[places]] = places
    part[source[places]] = places // sum(sizes)
    columns = np.asarray(tissue.columns)
    around, halo, received = _exchange(columns, part, place, sum(sizes), parts)
    return Partition(
        source=source.astype(np.int32),
        own=own,
        place=place.astype(np.int32),
        columns=np.where(own, around[:, source], np.arange(len(source)) % sum(sizes)).astype(
            np.int32
        ),
        halo=halo,
        received=received,
        model_sizes=sizes,
        parts=parts,
    )


def _cut(model_sizes, parts: int):
    """Source and ownership of every place, and the places of each model in a part."""
    starts = np.cumsum([0, *model_sizes])
    runs = [np.array_split(np.arange(a, b), parts) for a, b in pairwise(starts)]
    sizes = tuple(padded_length(len(run[0])) for run in runs)  # the first is the longest
    source, own = [], []
    for p in range(parts):
        for run, size in zip(runs, sizes, strict=True):
            nodes = run[p]
            source.append(np.append(nodes, np.full(size - len(nodes), nodes[-1])))
            own.append(np.arange(size) < len(nodes))
    return np.concatenate(source), np.concatenate(own), sizes


def _exchange(columns, part, place, size: int, parts: int):
    """Columns of every node as places around its part; the halo; how much each part receives."""
    receiver = np.broadcast_to(part, columns.shape)
    sender = part[columns]
    around = place[columns] - size * receiver
    outside = sender != receiver
    # Each node that a part needs once, sorted by shift, then receiver, then place.
    shift = receiver[outside] - sender[outside] + parts
    keys = (shift * parts + receiver[outside]) * (size * parts) + place[columns[outside]]
    needed, which = np.unique(keys, return_inverse=True)
    message, nodes = np.divmod(needed, size * parts)
    shifts, to = np.divmod(message, parts)
    first = np.unique(message, return_index=True)[1]
    rank = np.arange(len(needed)) - np.repeat(first, np.diff(np.append(first, len(needed))))
    send, base = [], np.zeros(len(needed), np.int64)
    start = size
    found = np.unique(shifts)
    for k in found:
        chosen = shifts == k
        longest = int(rank[chosen].max()) + 1
        lists = np.zeros((parts, longest), np.int32)
        lists[to[chosen] - (k - parts), rank[chosen]] = nodes[chosen] % size
        send.append(lists.ravel())
        base[chosen] = start
        start += longest
    around[outside] = (base + rank)[which]
    halo = Halo(tuple(send), tuple(int(k) - parts for k in found), parts, AXIS)
    return around, halo, np.bincount(to, minlength=parts)


def part_of_tissue(tissue: Tissue, cut: Partition) -> Tissue:
    """The tissue laid out part after part, each with its halo; on the host, if it is there.

    Parameters
    ----------
    tissue : Tissue
        What was cut.
    cut : Partition
        Where everything lies.

    Returns
    -------
    Tissue
        Arrays over all places; without the order of the mesh.
    """
    return Tissue(
        columns=cut.columns,
        diffusion=cut.to_parts(tissue.diffusion, 0),
        spread=cut.to_parts(tissue.spread, 0),
        lumped=cut.to_parts(tissue.lumped, 1),
        order=tissue.order[cut.source],
        place=np.zeros(0, np.int32),
        halo=cut.halo,
    )
