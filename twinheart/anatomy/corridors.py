r"""Corridors: strands of border zone through a scar that join healthy tissue at both ends.

The definition, after the corridors of ADAS 3D (border zone between cores, or between a core and a
valve, that connects healthy tissue), made precise in three dimensions. Let d be the distance of a
point of the border zone from healthy tissue, measured within the border zone. Every core has a
halo of border zone; there all that is deeper than some depth is reached from one side, through one
connected *mouth*. A corridor is a connected part of the border zone deeper than some depth that

* opens through two or more mouths that do not touch: a wave can enter here and leave there,
* stays so over a range of depths of at least 2.5 mm, so it is insulated over 5 mm or more,
* lies against core, and no section of it is smaller than 4 mm2.

So a bay of a core (one mouth), a halo of any thickness, a channel that core closes, one that
healthy tissue fills, and a strand open to healthy tissue along its roof are none. Two strands with
a common mouth are two corridors. Parts of core, and pockets of healthy tissue, below 0.05 ml are
noise (three voxels of 1.4 x 1.4 x 8 mm) and count as border zone here.

Measures: `length` along the streamlines of a Laplace field from mouth to mouth (see
`twinheart.anatomy.wall_thickness`) plus the way from the mouths to healthy tissue; `area`, the
smallest of the sections across that field, from the coarea formula
:math:`A(u)\, du = \int |\nabla u|\, dV`; `width`, twice the clearance from core and valve on the
widest path through; `mass` of what lies between the mouths.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import KDTree

from twinheart.anatomy.wall_thickness import streamline_lengths
from twinheart.fem import gradients, solve_laplace
from twinheart.imaging.enhancement import BORDER, CORE, HEALTHY
from twinheart.mesh import TetMesh
from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.quality import (
    TET_FACES,
    boundary_triangles,
    edges,
    mean_edge,
    triangle_areas,
    volumes,
)

# Density of the myocardium [g/ml]: Schulz-Menger et al. 2020, doi:10.1186/s12968-020-00610-6.
DENSITY = 1.05

MIN_ISLAND = 50.0  # mm^3
MIN_LENGTH = 5.0  # mm over which a corridor is insulated
MIN_AREA = 4.0  # mm^2: a thread of one element is noise
_SHELL = 1.5  # thickness of the layer in which mouths may touch, in edges
_LEAST_CORE = 0.1  # of the side walls of a corridor


class Corridor(NamedTuple):
    """One corridor; lengths in mm, area in mm^2, mass in g.

    Attributes
    ----------
    tets : (corridor_tet,) int array
        Its tetrahedra.
    mouths : (2, 3) array
        Centres of its two largest mouths.
    n_mouths : int
        Number of mouths; more than two where it branches.
    length, width, area, mass : float
        See the module.
    """

    tets: Int[np.ndarray, "corridor_tet"]
    mouths: Float[np.ndarray, "2 3"]
    n_mouths: int
    length: float
    width: float
    area: float
    mass: float


class _Zone(NamedTuple):
    """The border zone and all that touches it, with local numbers."""

    tets: np.ndarray  # (t, 4) nodes of the mesh
    classes: np.ndarray  # (t,)
    pairs: np.ndarray  # (f, 2) neighbours across faces
    faces: np.ndarray  # (f, 3) nodes of the mesh
    area: np.ndarray  # (f,) of the faces [mm^2]
    depth: np.ndarray  # (t,) from healthy tissue [mm]; infinite in core


class _Part(NamedTuple):
    """A connected part of the border zone below some depth, and what lies within it."""

    level: int
    tets: np.ndarray
    mouths: list[np.ndarray]  # of tetrahedra outside, the largest first
    inner: list["_Part"]


def find_corridors(
    mesh: TetMesh, classes: Int[np.ndarray, "tet"], *, min_area: float = MIN_AREA
) -> list[Corridor]:
    """Find and measure the corridors of a scar.

    Parameters
    ----------
    mesh : TetMesh
        The heart [mm]; the point field ``surf_class``, where there is one, tells the valves' plane.
    classes : (tet,) int array
        0 healthy, 1 border zone, 2 core.
    min_area : float
        Least area of a mouth and of the narrowest section [mm2]; thin sheets need less than hearts.

    Returns
    -------
    list of Corridor
        The heaviest first.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy.corridors import find_corridors
    >>> from twinheart.mesh.generate import slab
    >>> mesh = slab((40.0, 30.0, 4.0), 1.0)
    >>> x, y, _ = np.abs(mesh.points[mesh.tets].mean(axis=1) - [20.0, 15.0, 2.0]).T
    >>> classes = np.where((x < 10) & (y < 10), np.where(x < 2.5, 1, 2), 0).astype(np.int32)
    >>> [corridor.n_mouths for corridor in find_corridors(mesh, classes)]
    [2]
    """
    classes = without_islands(mesh, classes)
    near = np.zeros(mesh.n_nodes, dtype=bool)
    near[mesh.tets[classes == BORDER]] = True
    numbers = np.flatnonzero(near[mesh.tets].any(axis=1))
    if not len(numbers):
        return []
    zone = _zone(mesh, numbers, classes[numbers])
    edge = mean_edge(TetMesh(mesh.points, zone.tets))
    roots = _parts(zone, edge, min_area)
    step = edge / 2
    found = []
    for root in roots:
        found += _corridors_of(root, step)[0]
    measured = [_measure(mesh, zone, numbers, part, min_area) for part in found]
    return sorted((m for m in measured if m is not None), key=lambda m: -m.mass)


def without_islands(
    mesh: TetMesh,
    classes: Int[np.ndarray, "tet"],
    pairs: Int[np.ndarray, "face 2"] | None = None,
) -> Int[np.ndarray, "tet"]:
    """Classes without what is too small to be real (less than 0.05 ml): noise of the image.

    Small pieces of scar become healthy; then small pieces of core, and small pockets of healthy
    tissue, become border zone.

    Parameters
    ----------
    mesh : TetMesh
        Tetrahedra [mm].
    classes : (tet,) int array
        0 healthy, 1 border zone, 2 core.
    pairs : (face, 2) int array, optional
        What `face_neighbours` finds, where it is known already.

    Returns
    -------
    (tet,) int array
        Cleaned classes.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy.corridors import without_islands
    >>> from twinheart.mesh.generate import slab
    >>> mesh = slab((4.0, 4.0, 4.0), 1.0)
    >>> int(without_islands(mesh, (np.arange(mesh.n_tets) == 7).astype(np.int32)).sum())
    0
    """
    if pairs is None:
        pairs, _ = face_neighbours(mesh.tets)
    volume = np.abs(volumes(mesh.points, mesh.tets))
    classes = np.asarray(classes, dtype=np.int32).copy()
    for belongs, becomes in (
        (lambda c: c != HEALTHY, HEALTHY),
        (lambda c: c == CORE, BORDER),
        (lambda c: c == HEALTHY, BORDER),
    ):
        inside = belongs(classes)
        label = _components(len(classes), pairs[inside[pairs].all(axis=1)])
        small = np.bincount(label, volume)[label] < MIN_ISLAND
        classes[inside & small] = becomes
    return classes


def _components(n: int, pairs: np.ndarray) -> np.ndarray:
    graph = sp.coo_array((np.ones(len(pairs), dtype=bool), tuple(pairs.T)), shape=(n, n))
    return connected_components(graph, directed=False)[1]


def face_neighbours(
    tets: Int[np.ndarray, "tet 4"],
) -> tuple[Int[np.ndarray, "face 2"], Int[np.ndarray, "face 3"]]:
    """Pairs of tetrahedra that share a face, and the nodes of that face.

    Parameters
    ----------
    tets : (tet, 4) int array
        Node indices.

    Returns
    -------
    (face, 2) array, (face, 3) array
        Numbers of tetrahedra, and of nodes.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy.corridors import face_neighbours
    >>> face_neighbours(np.array([[0, 1, 2, 3], [1, 2, 3, 4]]))[1].tolist()
    [[1, 2, 3]]
    """
    faces = np.sort(np.concatenate([tets[:, list(face)] for face in TET_FACES]), axis=1)
    n_nodes = int(tets.max(initial=0)) + 1
    if n_nodes < 2_000_000:  # three indices fit into 63 bits
        low, middle, high = faces.T.astype(np.int64)
        order = np.argsort((low * n_nodes + middle) * n_nodes + high, kind="stable")
    else:
        order = np.lexsort(faces.T)
    same = (faces[order[1:]] == faces[order[:-1]]).all(axis=1)
    first, second = order[:-1][same], order[1:][same]
    return np.stack([first, second], axis=1) % len(tets), faces[first]


def _zone(mesh: TetMesh, numbers: np.ndarray, classes: np.ndarray) -> _Zone:
    tets = mesh.tets[numbers]
    pairs, faces = face_neighbours(tets)
    area = triangle_areas(mesh.points, faces)
    centre = mesh.points[tets].mean(axis=1)
    length = np.linalg.norm(centre[pairs[:, 0]] - centre[pairs[:, 1]], axis=1)
    border = classes == BORDER
    within = border[pairs].all(axis=1)
    rim = border[pairs].any(axis=1) & (classes[pairs] == HEALTHY).any(axis=1)
    # one more node stands for all healthy tissue, half a step from the tetrahedra at its edge
    at_rim = np.where(border[pairs[rim, 0]], pairs[rim, 0], pairs[rim, 1])
    n = len(tets)
    start = np.concatenate([pairs[within, 0], np.full(len(at_rim), n)])
    end = np.concatenate([pairs[within, 1], at_rim])
    weight = np.concatenate([length[within], length[rim] / 2])
    order = np.lexsort((weight, end, start))  # of several faces to healthy tissue the nearest
    _, first = np.unique(np.stack([start, end])[:, order], axis=1, return_index=True)
    keep = order[first]
    graph = sp.csr_array((weight[keep], (start[keep], end[keep])), shape=(n + 1, n + 1))
    depth = dijkstra(graph, directed=False, indices=n)[:n]
    depth[classes == HEALTHY] = 0.0
    depth[classes == CORE] = np.inf
    return _Zone(tets, classes, pairs, faces, area, depth)


def _parts(zone: _Zone, edge: float, min_area: float) -> list[_Part]:
    """All parts of the border zone below one edge, 1.5 edges, ... of depth, nested."""
    border = zone.classes == BORDER
    deepest = zone.depth[border & np.isfinite(zone.depth)].max(initial=0.0)
    roots: list[_Part] = []
    owner: np.ndarray | None = None
    above: list[_Part] = []
    for level in range(max(0, int(np.ceil(deepest / (edge / 2))) - 2)):
        level_depth = (level + 2) * edge / 2
        inside = border & (zone.depth > level_depth) & np.isfinite(zone.depth)
        parts = _parts_below(zone, inside, level, level_depth, _SHELL * edge, min_area)
        for part in parts:
            (roots if owner is None else above[owner[part.tets[0]]].inner).append(part)
        owner = np.full(len(border), -1)
        for k, part in enumerate(parts):
            owner[part.tets] = k
        above = parts
    return roots


def _parts_below(
    zone: _Zone, inside, level: int, depth: float, shell: float, min_area: float
) -> list[_Part]:
    label = _components(len(inside), zone.pairs[inside[zone.pairs].all(axis=1)])
    # mouths touch where they share a node of the layer just outside
    layer = (zone.depth <= depth) & (zone.depth > depth - shell)
    layer |= (zone.classes == HEALTHY) & (depth < shell)
    touching = np.flatnonzero(layer)
    n_nodes = int(zone.tets.max()) + 1
    rows = np.repeat(np.arange(len(touching)), 4)
    mouth = np.full(len(inside), -1)
    mouth[touching] = _components(
        len(touching) + n_nodes,
        np.stack([rows, len(touching) + zone.tets[touching].ravel()], axis=1),
    )[: len(touching)]
    first, second = zone.pairs.T
    crossing = inside[first] & layer[second] | layer[first] & inside[second]
    inner = np.where(inside[first], first, second)[crossing]
    outer = np.where(inside[first], second, first)[crossing]
    face = zone.area[crossing]
    tets = np.flatnonzero(inside)
    order = tets[np.argsort(label[tets], kind="stable")]
    groups = np.split(order, np.flatnonzero(np.diff(label[order])) + 1) if len(order) else []
    by_part = np.argsort(label[inner], kind="stable")
    sorted_labels = label[inner][by_part]
    parts = []
    for group in groups:
        low, high = np.searchsorted(sorted_labels, label[group[0]] + np.array([0, 1]))
        faces = by_part[low:high]
        names, which = np.unique(mouth[outer[faces]], return_inverse=True)
        open_area = np.bincount(which, face[faces], len(names))
        kept = [k for k in np.argsort(-open_area, kind="stable") if open_area[k] >= min_area]
        mouths = [np.unique(outer[faces[which == k]]) for k in kept]
        parts.append(_Part(level, group, mouths, []))
    return parts


def _corridors_of(part: _Part, step: float) -> tuple[list[_Part], int]:
    """Corridors within a part, and over how many levels it has been open at both ends."""
    found, runs = [], [0]
    for inner in part.inner:
        corridors, run = _corridors_of(inner, step)
        found += corridors
        runs.append(run)
    is_open = len(part.mouths) >= 2
    run = max(runs) + is_open
    if not found and is_open and run * step >= MIN_LENGTH / 2:
        return [part], run
    if len(found) == 1 and is_open and found[0].level - part.level <= 2:
        return [part], run  # the same corridor, nearer to its mouths
    return found, run


def _measure(mesh: TetMesh, zone: _Zone, numbers, part: _Part, min_area: float) -> Corridor | None:
    """Measures of a corridor; None if it turns out a thread or hardly touches core."""
    inside = np.zeros(len(zone.tets), dtype=bool)
    inside[part.tets] = True
    outside = inside[zone.pairs[:, 0]] != inside[zone.pairs[:, 1]]
    other = np.where(inside[zone.pairs[:, 0]], zone.pairs[:, 1], zone.pairs[:, 0])
    core = outside & (zone.classes[other] == CORE)
    nodes, local = np.unique(zone.tets[part.tets], return_inverse=True)
    own = TetMesh(mesh.points[nodes], local.reshape(-1, 4))
    ends = [np.flatnonzero(np.isin(nodes, zone.tets[mouth])) for mouth in part.mouths[:2]]
    shared = np.intersect1d(ends[0], ends[1])
    start, end = (np.setdiff1d(side, shared) for side in ends)
    if not (len(start) and len(end)):
        return None
    fixed = np.concatenate([start, end])
    u = solve_laplace(own, fixed, (np.arange(len(fixed)) >= len(start)).astype(float))
    volume = np.abs(volumes(own.points, own.tets))
    lengths = np.sum(streamline_lengths(own, u, start, end), axis=0)
    middle = np.abs(u - 0.5) <= 0.25
    length = float(np.median(lengths[middle] if middle.any() else lengths))
    healthy = KDTree(mesh.points[np.unique(zone.tets[zone.classes == HEALTHY])])
    ways = [float(healthy.query(own.points[side])[0].mean()) for side in (start, end)]
    area = _least_section(own, u, volume, length)
    side = triangle_areas(own.points, boundary_triangles(own.tets)).sum()
    side -= zone.area[outside & ~core].sum()
    if area < min_area or zone.area[core].sum() < _LEAST_CORE * side:
        return None
    walls = mesh.points[zone.faces[core]].mean(axis=1)
    if "surf_class" in mesh.point_fields:  # the plane of the valves bounds as well as core does
        base = mesh.point_fields["surf_class"][nodes] == SurfaceClass.BASE
        walls = np.concatenate([walls, own.points[base]])
    clearance = KDTree(walls).query(own.points)[0]
    return Corridor(
        tets=numbers[part.tets],
        mouths=np.stack([mesh.points[zone.tets[m]].mean(axis=(0, 1)) for m in part.mouths[:2]]),
        n_mouths=len(part.mouths),
        length=length + sum(ways),
        width=2 * _widest_path(own, clearance, start, end),
        area=area,
        mass=DENSITY * float(volume.sum()) / 1000.0,
    )


def _least_section(own: TetMesh, u, volume, length: float) -> float:
    """Smallest area of the level sets of u, away from the mouths, each a mean over two edges."""
    grad, _ = gradients(own.points, own.tets)
    slope = np.linalg.norm(np.einsum("tai,ta->ti", grad, u[own.tets]), axis=1)
    bins = max(3, round(length / (2 * mean_edge(own))))
    place = np.minimum((u[own.tets].mean(axis=1) * bins).astype(int), bins - 1)
    return float((np.bincount(place, slope * volume, bins) * bins)[1:-1].min())


def _widest_path(own: TetMesh, clearance, start, end) -> float:
    """Largest clearance c such that nodes with at least c join both ends."""
    ends = np.zeros((2, own.n_nodes), dtype=bool)
    ends[0, start], ends[1, end] = True, True
    pairs = edges(own.tets)
    candidates = np.unique(clearance)
    low, high = 0, len(candidates) - 1  # everything joins at the lowest
    while low < high:
        middle = (low + high + 1) // 2
        # at the mouths themselves the path may begin anywhere
        free = (clearance >= candidates[middle]) | ends.any(axis=0)
        label = _components(own.n_nodes, pairs[free[pairs].all(axis=1)])
        if np.isin(label[start], label[end]).any():
            low = middle
        else:
            high = middle - 1
    return float(candidates[low])
