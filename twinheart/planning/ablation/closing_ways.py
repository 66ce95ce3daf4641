r"""Closing the way of re-entry that was induced.

Where the way runs through an isthmus that screening knows, though it may count its circuit as one
that does not last, the isthmus is closed. Else it is closed where it is narrow: the tissue within a
distance from a place on the way is taken, and this distance raised until core, lesions and the
surface of the heart divide the rest of the tissue around it, so that the way comes in through
another opening than it leaves by. These openings are separated (`separate`). Places in border zone
are tried beside places anywhere on the way; of all that stops the way the least is taken.

Re-entry that turns around nothing but tissue that is late, there and back along the rim of a scar,
is nowhere narrow. There the border zone along its longest run is cut across, or, if it has no two
ends, burnt.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int
from scipy.sparse.csgraph import dijkstra

from twinheart.imaging.enhancement import BORDER
from twinheart.mesh import TetMesh
from twinheart.mesh.quality import edge_graph, edges
from twinheart.planning.ablation.closing import (
    Closing,
    close_isthmus,
    mouths_on_way,
    rim_of,
    separate,
)
from twinheart.planning.ablation.reach import Reach
from twinheart.planning.circuits.search import Circuit
from twinheart.planning.reentry_maps.circuit import ReentryCircuit

_PLACES = 40  # on a way around which it is looked at how narrow it is
_FURTHEST = 30.0  # mm from them
_FINER = 1.25  # from one distance to the next


def close_way(
    reach: Reach,
    circuits: Sequence[Circuit],
    way: ReentryCircuit,
    burnt: Bool[np.ndarray, "tet"] | None = None,
) -> Closing | None:
    """Lesions that close the way of re-entry.

    Parameters
    ----------
    reach : Reach
        Heart and catheter.
    circuits : sequence of Circuit
        That screening knows, lasting or not.
    way : ReentryCircuit
        What was induced, from `twinheart.planning.activation_circuit`.
    burnt : (tet,) bool array, optional
        What is burnt already.

    Returns
    -------
    Closing or None
        None where the catheter cannot close it, or the way is nowhere narrow and not in scar.

    Examples
    --------
    A wave turns around a hole of 12 mm in a plate of 30 mm; a line from the hole to the border of
    the plate stops it.

    >>> import numpy as np
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning import activation_circuit
    >>> from twinheart.planning.ablation.closing_ways import close_way, is_closed
    >>> from twinheart.planning.ablation.reach import Catheter, Reach
    >>> from twinheart.tissue import Train
    >>> mesh = slab((30.0, 30.0, 1.0), 1.0)
    >>> x, y, _ = (mesh.points - [15.0, 15.0, 0.0]).T
    >>> hole = np.hypot(*(mesh.points[mesh.tets].mean(axis=1) - [15.0, 15.0, 0.0]).T[:2]) < 6.0
    >>> lat = 200.0 * (np.arctan2(y, x)[:, None] / (2 * np.pi) % 1.0 + np.arange(4))
    >>> way = activation_circuit(mesh, Train(lat, 0 * lat, 0 * lat, "successful"), conducts=~hole)
    >>> reach = Reach(mesh, ~hole, Catheter(3.0))
    >>> found = close_way(reach, (), way)
    >>> len(found.lesions), is_closed(reach, way, found.burnt)
    (2, True)
    """
    living = reach.living if burnt is None else reach.living & ~burnt
    own = np.zeros(reach.mesh.n_nodes, dtype=bool)
    own[way.nodes] = True
    through = [c for c in circuits if own[reach.mesh.tets[c.isthmus_tets]].any()]
    known = [close_isthmus(reach, circuit, burnt) for circuit in through]
    found = _least(reach, living, way, known)
    if found is not None:
        return found
    steps = np.arange(len(way.nodes))
    runs = [steps] if not 0 < len(way.isthmus) < len(steps) else [way.isthmus, steps]
    narrow = [_close_where_narrow(reach, living, way.nodes, run) for run in runs]
    found = _least(reach, living, way, narrow)
    if found is not None or not len(way.isthmus):
        return found
    band = _along_run(reach, living, way)
    for close in (_cut_across, _burn):
        found = _least(reach, living, way, [close(reach, living, way, band)])
        if found is not None:
            return found
    return None


def is_closed(reach: Reach, way: ReentryCircuit, burnt: Bool[np.ndarray, "tet"]) -> bool:
    """Whether what is burnt leaves no tissue at one step of a way at least.

    Parameters
    ----------
    reach : Reach
        Heart and catheter.
    way : ReentryCircuit
        In tissue that conducted.
    burnt : (tet,) bool array
        What is burnt.
    """
    n_nodes = reach.mesh.n_nodes
    before, after = (
        np.sort(edges(reach.mesh.tets[tissue]), axis=1) @ [n_nodes, 1]
        for tissue in (reach.living, reach.living & ~burnt)
    )
    steps = np.sort(np.stack([way.nodes[:-1], way.nodes[1:]], axis=1), axis=1) @ [n_nodes, 1]
    return bool((np.isin(steps, before) & ~np.isin(steps, after)).any())


def _least(
    reach: Reach,
    living: Bool[np.ndarray, "tet"],
    way: ReentryCircuit,
    closings: Sequence[Closing | None],
) -> Closing | None:
    """Of those that stop a way the one that burns least."""
    able = [c for c in closings if c is not None and is_closed(reach, way, c.burnt | ~living)]
    return min(able, key=lambda c: reach.volume[c.burnt & living].sum(), default=None)


def _close_where_narrow(
    reach: Reach, living: Bool[np.ndarray, "tet"], way: Int[np.ndarray, "step"], run
) -> Closing | None:
    """Close a way around that one of some of its steps where the borders are nearest."""
    mesh = reach.mesh
    places = run[np.unique(np.linspace(0, len(run) - 1, _PLACES).round().astype(int))]
    away = _distances(mesh, living, way[places])
    within = reach.catheter.radius / 2
    while within <= _FURTHEST:
        for k, place in enumerate(places):
            part = living & (away[k] <= within)[mesh.tets].all(axis=1)
            ends = _openings(mesh, part, living, np.roll(way, -place))
            found = None if ends is None else separate(reach, part, *ends)
            if found is not None:
                return found
        within *= _FINER
    return None


def _along_run(reach: Reach, living, way: ReentryCircuit) -> Bool[np.ndarray, "tet"]:
    """Border zone within a radius of a lesion from the longest run of a way in it."""
    band = living & (np.asarray(reach.mesh.cell_fields["scar"]) == BORDER)
    away = _distances(reach.mesh, band, way.nodes[way.isthmus]).min(axis=0)
    return band & (away <= reach.catheter.radius)[reach.mesh.tets].all(axis=1)


def _cut_across(reach: Reach, living, way: ReentryCircuit, band) -> Closing | None:
    path = np.roll(way.path, -way.isthmus[len(way.isthmus) // 2], axis=0)
    ends = mouths_on_way(reach, band, living, path)
    return None if ends is None else separate(reach, band, *ends)


def _burn(reach: Reach, living, way: ReentryCircuit, band) -> Closing | None:
    own = np.zeros(reach.mesh.n_nodes, dtype=bool)
    own[way.nodes[way.isthmus]] = True
    target = band & own[reach.mesh.tets].any(axis=1)
    applications = reach.near(target)
    chosen, _ = reach.cover_by(target, applications)
    lesions = tuple(reach.catheter.at(applications.points[k]) for k in chosen)
    burnt = np.bincount(applications.burns[chosen].indices, minlength=len(band)) > 0
    return Closing(lesions, burnt) if lesions else None


def _distances(mesh: TetMesh, living, nodes) -> np.ndarray:
    """From each of some nodes, along edges of living tissue [mm]."""
    return dijkstra(edge_graph(mesh.points, mesh.tets[living]), indices=nodes, limit=_FURTHEST)


def _openings(mesh: TetMesh, part, living, way) -> tuple[np.ndarray, np.ndarray] | None:
    """Nodes of the openings of a part by which a way from within it leaves and comes back.

    None where both are the same.
    """
    if not part.any():
        return None
    rim, patch = rim_of(mesh, part, living)
    met = way[np.isin(way, rim)]
    if not met.size or patch[met[0]] == patch[met[-1]]:
        return None
    return rim[patch[rim] == patch[met[0]]], rim[patch[rim] == patch[met[-1]]]
