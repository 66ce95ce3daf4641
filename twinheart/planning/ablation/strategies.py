r"""Strategies of ablation: from a scar and its circuits to the lesions of a catheter.

* ``exit``: one application at the exit of each circuit.
* ``isthmus``: the isthmus of each circuit is closed where that burns least living tissue, by a
  minimum cut from mouth to mouth (`twinheart.planning.ablation.closing`).
* ``core-isolation``: a closed ring around the dense scar and the channels within it.
* ``homogenisation``: all border zone.
* ``dechannelling``: all entrances of the corridors that `twinheart.anatomy.corridors` finds; the
  circuits are not looked at.

What a strategy wants burnt is covered by applications of the catheter, see
`twinheart.planning.ablation.reach`. Whether it stops the tachycardias
`twinheart.planning.ablation.plan` finds out.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from scipy.spatial import KDTree

from twinheart.anatomy.corridors import Corridor, find_corridors
from twinheart.errors import InputError
from twinheart.imaging.enhancement import BORDER, CORE
from twinheart.planning.ablation.closing import close_isthmus, mouths_of, separate
from twinheart.planning.ablation.lesions import Lesion
from twinheart.planning.ablation.reach import Reach
from twinheart.planning.circuits.search import Circuit

STRATEGIES = ("exit", "isthmus", "core-isolation", "homogenisation", "dechannelling")
_RING = 2.0  # radii of a lesion around the scar within which the ring is sought


class Proposal(NamedTuple):
    """Lesions of a strategy.

    Attributes
    ----------
    strategy : str
        One of `STRATEGIES`, or a name of the user's.
    lesions : tuple of Lesion
        In no order of importance.
    notes : tuple of str
        What could not be done.
    """

    strategy: str
    lesions: tuple[Lesion, ...]
    notes: tuple[str, ...]


def propose(
    strategy: str,
    reach: Reach,
    circuits: Sequence[Circuit],
    *,
    corridors: Sequence[Corridor] | None = None,
) -> Proposal:
    """Lesions of a strategy.

    Parameters
    ----------
    strategy : str
        One of `STRATEGIES`.
    reach : Reach
        The heart with its cell field ``scar``, and the catheter.
    circuits : sequence of Circuit
        What `twinheart.planning.screen_circuits` found.
    corridors : sequence of Corridor, optional
        Whose entrances ``dechannelling`` closes; those that `find_corridors` finds if not given.

    Returns
    -------
    Proposal
        Lesions; none where there is nothing to burn.

    Raises
    ------
    InputError
        If there is no such strategy.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh import TetMesh
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning.ablation.reach import Catheter, Reach
    >>> from twinheart.planning.ablation.strategies import propose
    >>> mesh = slab((40.0, 30.0, 2.0), 1.0)
    >>> x, y, _ = np.abs(mesh.points[mesh.tets].mean(axis=1) - [20.0, 15.0, 1.0]).T
    >>> scar = np.where((x < 10) & (y < 10), np.where(x < 2.5, 1, 2), 0).astype(np.int32)
    >>> mesh = TetMesh(mesh.points, mesh.tets, {}, {"scar": scar})
    >>> reach = Reach(mesh, scar < 2, Catheter(radius=3.5))
    >>> [len(propose(s, reach, ()).lesions) for s in ("isthmus", "dechannelling")]
    [0, 2]
    """
    chosen = {
        "exit": _exits,
        "isthmus": _isthmuses,
        "core-isolation": _ring,
        "homogenisation": _all_border,
        "dechannelling": partial(_entrances, corridors=corridors),
    }
    if strategy not in chosen:
        raise InputError(f"unknown strategy '{strategy}', expected one of {', '.join(STRATEGIES)}.")
    lesions, notes = chosen[strategy](reach, circuits)
    return Proposal(strategy, tuple(lesions), tuple(f"{strategy}: {note}" for note in notes))


def _classes(reach: Reach) -> Int[np.ndarray, "tet"]:
    classes = reach.mesh.cell_fields.get("scar")
    return np.zeros(reach.mesh.n_tets, dtype=int) if classes is None else np.asarray(classes)


def _covered(reach: Reach, target: Bool[np.ndarray, "tet"]):
    lesions, missed = reach.cover(target & reach.living)
    if not missed.any():
        return lesions, []
    volume = reach.volume[missed].sum() / 1000
    return lesions, [f"{volume:.2g} ml that are to be burnt cannot be reached"]


def _exits(reach: Reach, circuits: Sequence[Circuit]):
    """The application nearest to each exit, of those that burn it if any does."""
    lesions, notes = [], []
    living = np.flatnonzero(reach.living)
    for k, circuit in enumerate(circuits, 1):
        target = np.zeros(reach.mesh.n_tets, dtype=bool)
        target[living[KDTree(reach.centres[living]).query(circuit.exit_mm)[1]]] = True
        points, burns = reach.near(target)
        if not len(points):
            notes.append(f"the catheter cannot reach the exit of circuit {k}")
            continue
        far = np.linalg.norm(points - circuit.exit_mm, axis=1)
        far[burns @ target.astype(float) == 0] += reach.catheter.radius + far.max()
        lesions.append(reach.catheter.at(points[far.argmin()]))
    return lesions, notes


def _isthmuses(reach: Reach, circuits: Sequence[Circuit]):
    lesions, notes = [], []
    burnt = np.zeros(reach.mesh.n_tets, dtype=bool)
    for k, circuit in enumerate(circuits, 1):
        found = close_isthmus(reach, circuit, burnt)
        if found is None:
            notes.append(f"the catheter cannot close the isthmus of circuit {k}")
        else:
            lesions += found.lesions
            burnt |= found.burnt
    return lesions, notes


def _ring(reach: Reach, circuits):
    """A surface around all core, where it costs least."""
    classes = _classes(reach)
    core = classes == CORE
    if not core.any():
        return (), ()
    tets, living = reach.mesh.tets, reach.living
    scar = np.unique(tets[classes > 0])
    distance = KDTree(reach.mesh.points[scar]).query(reach.mesh.points)[0]
    near = living & (distance[tets].min(axis=1) < _RING * reach.catheter.radius)
    source = np.intersect1d(tets[core], tets[living])
    sink = np.setdiff1d(np.intersect1d(tets[near], tets[living & ~near]), source)
    if not sink.size:
        return (), ["the scar reaches everywhere: there is nothing to isolate it from"]
    found = separate(reach, near, source, sink)
    return ((), ["the catheter cannot close a ring"]) if found is None else (found.lesions, ())


def _all_border(reach: Reach, circuits):
    return _covered(reach, _classes(reach) == BORDER)


def _entrances(reach: Reach, circuits, corridors: Sequence[Corridor] | None):
    """Each mouth of a corridor, closed within a diameter of a lesion from it."""
    tets, living = reach.mesh.tets, reach.living
    if corridors is None:
        corridors = find_corridors(reach.mesh, _classes(reach).astype(np.int32))
    lesions, notes = [], []
    for number, corridor in enumerate(corridors, 1):
        part = np.zeros(len(tets), dtype=bool)
        part[corridor.tets] = True
        part &= living
        mouths = mouths_of(reach, part, living)
        for mouth in mouths:
            far = KDTree(reach.mesh.points[mouth]).query(reach.centres[part])[0]
            near = part.copy()
            near[part] = far < 2 * reach.catheter.radius
            inside = np.intersect1d(tets[near], tets[part & ~near])
            others = np.concatenate([inside, *(other for other in mouths if other is not mouth)])
            found = separate(reach, near, mouth, np.setdiff1d(others, mouth))
            if found is None:
                notes.append(f"the catheter cannot close an entrance of corridor {number}")
            else:
                lesions += found.lesions
    return lesions, notes
