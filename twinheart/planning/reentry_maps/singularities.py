r"""Phase singularities, around which waves rotate: points of a surface, filaments of a volume.

Around a closed path the phase winds by a whole number of turns, :math:`\int \nabla\theta\cdot ds =
2\pi n`; around a triangle with n = +-1 there is a singularity (Gray et al. 1998,
doi:10.1038/32164). In a tetrahedron as many turns go in through its faces as come out, so that
singular faces join to lines, which end on the surface or close to rings (topological charge as of
Bray and Wikswo 2002, doi:10.1109/TBME.2002.803516). The place within a triangle is where the linear
interpolation of :math:`e^{i\theta}` vanishes.

The phase must turn by less than half a turn along an edge: wave fronts thinner than an edge look
like pairs of opposite charge. Singular triangles that touch are taken together, which cancels
such pairs; so no two singularities are nearer than an edge.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.quality import TET_FACES

_PASSES = 4  # of smoothing


class Singularities(NamedTuple):
    """Phase singularities of a surface at one time.

    Attributes
    ----------
    triangle : (point,) int array
        The triangle each lies in.
    charge : (point,) int array
        +1 where phase grows counterclockwise, seen from where the normals point; -1 otherwise.
    position : (point, 3) array
        Places [mm].
    """

    triangle: Int[np.ndarray, "point"]
    charge: Int[np.ndarray, "point"]
    position: Float[np.ndarray, "point 3"]


class Filament(NamedTuple):
    """A line around which a wave rotates.

    Attributes
    ----------
    position : (point, 3) array
        Places along it [mm], one a face, smoothed over the neighbouring ones, for they zigzag by
        a part of an edge; phase grows counterclockwise seen against its direction.
    closed : bool
        Whether it is a ring.
    """

    position: Float[np.ndarray, "point 3"]
    closed: bool

    @property
    def length(self) -> float:
        """Length [mm]."""
        line = np.concatenate([self.position, self.position[:1]]) if self.closed else self.position
        return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())


class Track(NamedTuple):
    """One singularity, or filament, through time.

    Attributes
    ----------
    frame : (time,) int array
        Frames in which it was seen.
    number : (time,) int array
        Which one of each frame it was.
    """

    frame: Int[np.ndarray, "time"]
    number: Int[np.ndarray, "time"]


def singular_points(mesh: TriMesh, phase: Float[np.ndarray, "node"]) -> Singularities:
    """Find the phase singularities of a surface.

    Parameters
    ----------
    mesh : TriMesh
        Triangles [mm], consistently oriented.
    phase : (node,) array
        Phase [rad], in any turn; NaN where there is none.

    Returns
    -------
    Singularities
        Places and charges.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh import TriMesh
    >>> from twinheart.planning import singular_points
    >>> mesh = TriMesh(np.array([[1.0, 0, 0], [-1, 1, 0], [-1, -1, 0]]), np.array([[0, 1, 2]]))
    >>> singular_points(mesh, np.arctan2(mesh.points[:, 1], mesh.points[:, 0])).charge
    array([1])
    """
    charge = _winding(phase[mesh.triangles])
    triangle = np.flatnonzero(charge)
    charge = charge[triangle]
    place = _zeros(mesh.points[mesh.triangles[triangle]], phase[mesh.triangles[triangle]])
    group = _touching(mesh.triangles[triangle])
    net = np.bincount(group, charge).astype(int)
    kept = []
    for k in np.flatnonzero(net):
        own = np.flatnonzero((group == k) & (charge == np.sign(net[k])))
        # of several that touch, those nearest to the middle of all
        away = np.linalg.norm(place[own] - place[group == k].mean(axis=0), axis=1)
        kept.append(own[np.argsort(away, kind="stable")[: abs(net[k])]])
    chosen = np.concatenate(kept) if kept else np.zeros(0, dtype=int)
    return Singularities(triangle[chosen], charge[chosen], place[chosen])


def filaments(mesh: TetMesh, phase: Float[np.ndarray, "node"]) -> list[Filament]:
    """Find the filaments of a volume.

    Parameters
    ----------
    mesh : TetMesh
        Tetrahedra [mm], positively oriented.
    phase : (node,) array
        Phase [rad], in any turn; NaN where there is none.

    Returns
    -------
    list of Filament
        The longest first.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning import filaments
    >>> mesh = slab((10.0, 10.0, 4.0), 1.0)
    >>> x, y, _ = (mesh.points - [5.3, 5.4, 0.0]).T
    >>> [(round(line.length, 1), line.closed) for line in filaments(mesh, np.arctan2(y, x))]
    [(4.0, False)]
    """
    faces = np.stack([mesh.tets[:, list(face)] for face in TET_FACES], axis=1)
    charge = _winding(phase[faces])  # turns that leave each tetrahedron through each face
    tet, side = np.nonzero(charge)
    corners, charge = faces[tet, side], charge[tet, side]
    if not len(tet):
        return []
    key = np.sort(corners, axis=1)
    same, first, name = np.unique(key, axis=0, return_index=True, return_inverse=True)
    name = name.ravel()
    place = _zeros(mesh.points[corners[first]], phase[corners[first]])
    following = np.full(len(same), -1)
    for start, end in _joined(tet, charge, name, place):
        following[start] = end
    found = [Filament(_smoothed(place[line], ring), ring) for line, ring in _lines(following)]
    return sorted(found, key=lambda line: -line.length)


def track_points(frames: Sequence[Singularities], reach: float, patience: int = 0) -> list[Track]:
    """Follow phase singularities through time.

    Those of equal charge are paired from frame to frame so that the sum of the ways is least.

    Parameters
    ----------
    frames : sequence of Singularities
        At successive times.
    reach : float
        Longest way from one sighting to the next [mm].
    patience : int
        Frames for which one may be out of sight.

    Returns
    -------
    list of Track
        By their first frame.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.planning import Singularities, track_points
    >>> one = Singularities(np.array([4]), np.array([1]), np.zeros((1, 3)))
    >>> [track.frame.tolist() for track in track_points([one, one, one], reach=1.0)]
    [[0, 1, 2]]
    """

    def ways(earlier: tuple[int, int], frame: int) -> np.ndarray:
        before, now = frames[earlier[0]], frames[frame]
        way = np.linalg.norm(now.position - before.position[earlier[1]], axis=1)
        return np.where(now.charge == before.charge[earlier[1]], way, np.inf)

    return _tracked([len(frame.charge) for frame in frames], ways, reach, patience)


def track_filaments(
    frames: Sequence[Sequence[Filament]], reach: float, patience: int = 0
) -> list[Track]:
    """Follow filaments through time, by the mean way from the points of each to the other.

    Parameters
    ----------
    frames : sequence of lists of Filament
        At successive times.
    reach : float
        Longest mean way from one sighting to the next [mm].
    patience : int
        Frames for which one may be out of sight.

    Returns
    -------
    list of Track
        By their first frame.
    """
    trees = [[KDTree(line.position) for line in frame] for frame in frames]

    def ways(earlier: tuple[int, int], frame: int) -> np.ndarray:
        one = trees[earlier[0]][earlier[1]]
        both = [(one.query(tree.data)[0], tree.query(one.data)[0]) for tree in trees[frame]]
        return np.array([(there.mean() + back.mean()) / 2 for there, back in both])

    return _tracked([len(frame) for frame in frames], ways, reach, patience)


def _winding(phase: np.ndarray) -> np.ndarray:
    """Turns of the phase around triangles (..., 3); 0 where it is missing."""
    steps = np.roll(phase, -1, axis=-1) - phase
    steps -= 2 * np.pi * np.round(steps / (2 * np.pi))
    turns = np.round(steps.sum(axis=-1) / (2 * np.pi))
    return np.where(np.isfinite(turns), turns, 0.0).astype(int)


def _zeros(corners: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Where exp(i phase), linear over each singular triangle, vanishes."""
    after, before = np.roll(phase, -1, axis=-1), np.roll(phase, -2, axis=-1)
    weight = np.abs(np.sin(before - after))  # equal signs where the phase winds
    weight /= np.maximum(weight.sum(axis=-1, keepdims=True), 1e-300)
    return np.einsum("...k,...ki->...i", weight, corners)


def _touching(triangles: np.ndarray) -> np.ndarray:
    """Number of the group of each triangle; those that share a node are in one."""
    n = len(triangles)
    nodes, local = np.unique(triangles, return_inverse=True)
    rows = np.repeat(np.arange(n), 3)
    shape = (n + len(nodes),) * 2
    graph = sp.coo_array((np.ones(3 * n), (rows, n + local.ravel())), shape=shape)
    return connected_components(graph, directed=False)[1][:n]


def _joined(tet, charge, name, place):
    """Pairs of singular faces, from where a filament enters a tetrahedron to where it leaves."""
    starts = np.flatnonzero(np.diff(tet, prepend=-1))
    for own in np.split(np.arange(len(tet)), starts[1:]):
        entering, leaving = (name[own[charge[own] == sign]] for sign in (-1, 1))
        way = np.linalg.norm(place[entering][:, None] - place[leaving][None], axis=2)
        rows, columns = linear_sum_assignment(way)
        yield from zip(entering[rows], leaving[columns], strict=True)


def _lines(following: np.ndarray):
    """Chains and rings of a map from each item to the next, -1 at the end."""
    n = len(following)
    has_previous = np.zeros(n, dtype=bool)
    has_previous[following[following >= 0]] = True
    seen = np.zeros(n, dtype=bool)
    for start in [*np.flatnonzero(~has_previous), *range(n)]:  # what is left after chains are rings
        line, at = [], start
        while at >= 0 and not seen[at]:
            seen[at] = True
            line.append(at)
            at = following[at]
        if len(line) > 1:
            yield line, bool(at == start)


def _smoothed(line: np.ndarray, ring: bool) -> np.ndarray:
    """Means with the neighbours, the ends of an open line staying where they are."""
    for _ in range(_PASSES):
        mean = (np.roll(line, 1, axis=0) + 2 * line + np.roll(line, -1, axis=0)) / 4
        if not ring:
            mean[[0, -1]] = line[[0, -1]]
        line = mean
    return line


def _tracked(counts: Sequence[int], ways, reach: float, patience: int) -> list[Track]:
    """Tracks of items, so many a frame; ``ways((frame, item), frame)`` are distances to all."""
    tracks: list[list[tuple[int, int]]] = []
    for frame, count in enumerate(counts):
        free = set(range(count))
        open_tracks = [track for track in tracks if frame - track[-1][0] <= patience + 1]
        if open_tracks and count:
            way = np.stack([ways(track[-1], frame) for track in open_tracks])
            far = 1e6 * (1.0 + reach)  # never chosen while anything within reach is left
            rows, columns = linear_sum_assignment(np.where(way <= reach, way, far))
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
                if way[row, column] <= reach:
                    open_tracks[row].append((frame, column))
                    free.discard(column)
        tracks += [[(frame, item)] for item in sorted(free)]
    return [Track(*np.array(track, dtype=int).T) for track in tracks]
