"""Graded refinement: tetrahedra are halved where they are longer than asked; the mesh conforms."""

from collections.abc import Callable

import numpy as np

from twinheart.errors import MeshError
from twinheart.mesh.core import TetMesh
from twinheart.mesh.quality import TET_EDGES, edge_keys
from twinheart.types import Points

_MAX_TETS = 50_000_000
# Lengths that differ by less than this share are equal: the key of the edge then decides.
_EQUAL = 1e-6


def bisect_to(mesh: TetMesh, size: Callable[[np.ndarray], np.ndarray]) -> TetMesh:
    """Halve tetrahedra at their longest edges until none is longer than a given size there.

    Parameters
    ----------
    mesh : TetMesh
        Positively oriented tetrahedra [mm].
    size : callable, (n, 3) array -> (n,) array
        Greatest length of an edge [mm] at a place; judged at the centre of each tetrahedron.

    Returns
    -------
    TetMesh
        Conforming; the old nodes keep their numbers. Cell fields are inherited, point fields are
        not kept. The tetrahedra of a body-centred lattice stay within three shapes, however often
        they are halved: no dihedral angle falls below 45 degrees.

    Raises
    ------
    MeshError
        If a size is not positive, or more than 50 million tetrahedra were needed.

    References
    ----------
    Liu & Joe 1994, On the shape of tetrahedra from bisection,
    doi:10.1090/S0025-5718-1994-1240660-4.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.bisection import bisect_to
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.mesh.quality import edge_lengths
    >>> mesh = bisect_to(slab((4.0, 4.0, 4.0), 2.0), lambda x: np.where(x[:, 0] < 2, 1.0, 9.0))
    >>> round(edge_lengths(mesh.points, mesh.tets[mesh.points[mesh.tets, 0].max(axis=1) < 2]).max())
    1
    """
    points, tets = mesh.points, mesh.tets.astype(np.int64)
    parent, unsure = np.arange(mesh.n_tets), np.ones(mesh.n_tets, dtype=bool)
    unit = _EQUAL * float(np.linalg.norm(np.ptp(points, axis=0)))
    while unsure.any():
        here = np.flatnonzero(unsure)
        most = np.asarray(size(points[tets[here]].mean(axis=1)))
        if not (most > 0).all():
            raise MeshError("the size asked for is not positive everywhere.")
        length, longest = _longest(points, tets[here], unit)
        touched, keys = _closure(points, tets, np.unique(longest[length > most]), unit)
        if not len(keys):
            break
        points, halves, old = _halve(points, tets[touched], parent[touched], keys, unit)
        tets = np.concatenate([tets[~touched], halves])
        parent = np.concatenate([parent[~touched], old])
        unsure = np.arange(len(tets)) >= np.sum(~touched)
        if len(tets) > _MAX_TETS:
            raise MeshError(
                f"the size asked for needs more than {_MAX_TETS:.0e} tetrahedra: ask for less."
            )
    order = np.argsort(parent, kind="stable")
    fields = {name: values[parent[order]] for name, values in mesh.cell_fields.items()}
    return TetMesh(points, tets[order], {}, fields)


def _longest(points: Points, tets: np.ndarray, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """Length and key of the longest edge of each tetrahedron; of equal ones the greater key."""
    keys = edge_keys(tets)
    length = np.linalg.norm(points[keys >> 32] - points[keys & 0xFFFFFFFF], axis=2)
    steps = np.rint(length / unit)
    local = np.where(steps == steps.max(axis=0), keys, -1).argmax(axis=0)
    row = np.arange(len(tets))
    return length[local, row], keys[local, row]


def _closure(points: Points, tets: np.ndarray, keys: np.ndarray, unit: float):
    """Tetrahedra with a marked edge, and the marks: their longest edges are marked as well."""
    touched = np.zeros(len(tets), dtype=bool)
    count = -1
    while count < len(keys):
        count = len(keys)
        is_end = np.zeros(len(points), dtype=bool)
        is_end[keys >> 32] = is_end[keys & 0xFFFFFFFF] = True
        near = np.flatnonzero(~touched & (is_end[tets].sum(axis=1) >= 2))
        near = near[np.isin(edge_keys(tets[near]), keys).any(axis=0)]
        touched[near] = True
        keys = np.union1d(keys, _longest(points, tets[near], unit)[1])
    return touched, keys


def _halve(points: Points, tets: np.ndarray, parent: np.ndarray, keys: np.ndarray, unit: float):
    """Cut every tetrahedron at its marked edges, the longest first."""
    start, end = points[keys >> 32], points[keys & 0xFFFFFFFF]
    rank = np.empty(len(keys), dtype=np.int64)
    rank[np.lexsort((keys, np.rint(np.linalg.norm(end - start, axis=1) / unit)))] = np.arange(
        len(keys)
    )
    middle = len(points) + np.arange(len(keys))
    points = np.concatenate([points, (start + end) / 2])
    done = []
    while len(tets):
        own = edge_keys(tets)
        at = np.minimum(np.searchsorted(keys, own), len(keys) - 1)
        ranks = np.where(keys[at] == own, rank[at], -1)
        local, row = ranks.argmax(axis=0), np.arange(len(tets))
        cut = ranks[local, row] >= 0
        done.append((tets[~cut], parent[~cut]))
        tets, parent, local = tets[cut], parent[cut], local[cut]
        node = middle[at[local, row[cut]]]
        halves = [tets.copy(), tets.copy()]
        for half, corner in zip(halves, np.array(TET_EDGES)[local].T, strict=True):
            half[np.arange(len(half)), corner] = node
        tets, parent = np.concatenate(halves), np.concatenate([parent, parent])
    return points, *(np.concatenate(part) for part in zip(*done, strict=True))
