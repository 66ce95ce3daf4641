r"""The Purkinje tree: bundles laid by anatomy, twigs grown as a fractal on the endocardium.

From the His bundle in the base of the septum a left and a right bundle descend. The left one splits
on the septum into an anterior, a septal and a posterior fascicle; the right one reaches the lower
septum, and through the cavity, as the moderator band, the anterior papillary muscle on the free
wall. From their ends twigs fork, generation by generation, after Sahli Costabal et al. 2016
(doi:10.1016/j.jbiomech.2015.12.025): each step goes ahead, turned away from the nearest other twig,

.. math:: d \leftarrow (d + w\,\nabla \mathrm{dist}) / |d + w\,\nabla \mathrm{dist}|,

and is projected on the surface; a twig that comes too near to another ends. All twigs of a
generation grow at once. Where twigs end they meet the muscle.
"""

from collections.abc import Sequence
from pathlib import Path

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from twinheart.anatomy.endocardium import Ground, endocardium
from twinheart.errors import InputError, MeshError
from twinheart.mesh import TetMesh
from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.io.atomic import written_whole
from twinheart.mesh.io.read import read_raw

SEGMENT = 1.0  # mm, between nodes of the tree
# Places are (ab, rt) of `twinheart.anatomy.endocardium`. The left bundle descends on the septum; in
# turn the anterior fascicle leaves it towards the anterior papillary muscle, the posterior one
# towards the posterior papillary muscle, and a twig to the middle of the septum, which is excited
# before all else; it ends as the septal fascicle. These are the areas that Durrer et al. 1970
# (doi:10.1161/01.CIR.41.6.899) found excited first. All forks are in two: at a fork in four the
# impulse would stall, as one strand has to charge three.
_SEPTUM = 5 / 6
_ANTERIOR, _POSTERIOR, _FIRST = (0.5, 0.52), (0.4, 0.10), (0.5, _SEPTUM)
_LEFT_FORKS = ((0.78, _ANTERIOR), (0.72, _POSTERIOR), (0.66, _FIRST))  # height, where it leads
_SEPTAL = (0.4, 0.80)
_BAND_LEAVES = (0.35, 0.74)  # moderator band: lower septum, in front
_BAND_LANDS = (0.45, 0.43)  # anterior papillary muscle
# There the right ventricle is excited first, 5 to 10 ms after the left one (Durrer et al.).
_RIGHT_FIRST, _RIGHT_ONWARDS = (0.38, 0.47), (0.5, 0.38)
# On the free wall: below the outflow tract; and after a fork, behind and lateral.
_OUTFLOW, _RIGHT_FORK, _RIGHT_ENDS = (0.65, 0.55), (0.5, 0.32), ((0.4, 0.15), (0.7, 0.25))
_HIS = 0.88  # height of the His bundle
_TOO_NEAR = 0.2  # share of a twig's length at which it ends beside another
_SPREAD = np.sqrt(0.2)  # standard deviation of a twig's length over its mean
_SHORTEST = 0.1  # of the mean length
_GENERATIONS = 40
_NEIGHBOURS = 24
_LONGEST_STEP = 50.0  # mm: a longer edge in a file is no part of a tree in a heart
_MOST_NODES = 1_000_000


class PurkinjeTree(eqx.Module):
    """A conduction system: nodes and the edges between them.

    Parameters
    ----------
    points : (branch_node, 3) array
        Nodes [mm].
    edges : (branch, 2) int array
        Pairs of nodes.
    roots : (root,) int array
        Where the impulse enters.

    Raises
    ------
    MeshError
        If an edge names a node that does not exist or has no length, or nodes are not connected
        to a root.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy.purkinje import PurkinjeTree
    >>> points = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [1, 1, 0]])
    >>> tree = PurkinjeTree(points, np.array([[0, 1], [1, 2], [1, 3]]), np.array([0]))
    >>> tree.junctions.tolist(), tree.lengths.tolist()
    ([2, 3], [1.0, 1.0, 1.0])
    """

    points: Float[np.ndarray, "branch_node 3"]
    edges: Int[np.ndarray, "branch 2"]
    roots: Int[np.ndarray, "root"]

    def __init__(self, points, edges, roots):
        self.points = np.asarray(points, dtype=float).reshape(-1, 3)
        self.edges = np.asarray(edges, dtype=np.int32).reshape(-1, 2)
        self.roots = np.asarray(roots, dtype=np.int32)
        _check(self)

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return len(self.points)

    @property
    def lengths(self) -> Float[np.ndarray, "branch"]:
        """Lengths of the edges [mm]."""
        first, second = self.points[self.edges].swapaxes(0, 1)
        return np.linalg.norm(second - first, axis=1)

    @property
    def junctions(self) -> Int[np.ndarray, "junction"]:
        """Nodes that meet the muscle: the ends, roots apart."""
        degree = np.bincount(self.edges.ravel(), minlength=self.n_nodes)
        degree[self.roots] = 0
        return np.flatnonzero(degree == 1)


def _check(tree: PurkinjeTree) -> None:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = tree.n_nodes
    if not np.isfinite(tree.points).all():
        raise MeshError("the Purkinje tree has nodes whose coordinates are no numbers.")
    for what, nodes in (("edge", tree.edges), ("root", tree.roots)):
        if not nodes.size or nodes.min() < 0 or nodes.max() >= n:
            raise MeshError(
                f"the Purkinje tree has {len(nodes)} {what}s over the nodes "
                f"{nodes.min(initial=0)} to {nodes.max(initial=0)}, expected at least one among "
                f"its {n} nodes."
            )
    lengths = tree.lengths
    if not ((lengths > 0) & (lengths < _LONGEST_STEP)).all():
        wrong = int(np.flatnonzero(~((lengths > 0) & (lengths < _LONGEST_STEP)))[0])
        raise MeshError(
            f"edge {wrong} of the Purkinje tree is {lengths[wrong]:g} mm long, expected more than "
            f"0 and less than {_LONGEST_STEP:g}: check the unit, which must be mm."
        )
    i, j = tree.edges.T
    graph = coo_matrix((np.ones(len(i)), (i, j)), shape=(n, n))
    _, part = connected_components(graph, directed=False)
    loose = ~np.isin(part, part[tree.roots])
    if loose.any():
        raise MeshError(
            f"{loose.sum()} nodes of the Purkinje tree are connected to no root (first: node "
            f"{np.flatnonzero(loose)[0]}): join them or leave them out."
        )


def grow_purkinje(
    mesh: TetMesh,
    *,
    seed: int = 0,
    twig_length: float = 10.0,
    angle: float = 0.3,
    repulsion: float = 0.1,
    below: float = 0.9,
) -> PurkinjeTree:
    """Grow a Purkinje tree on the endocardia of a heart.

    Parameters
    ----------
    mesh : TetMesh
        Ventricles with tagged surfaces, see `twinheart.anatomy.endocardium`. Without a right
        ventricle the left one gets a tree of its own.
    seed : int
        Of the twigs' random lengths; the same mesh and seed give the same tree, bit for bit.
    twig_length : float
        Mean length of a twig [mm]: junctions with the muscle end up about as far apart. The
        default gives some 250 of them on an adult heart.
    angle : float
        Half the angle of a fork [radians].
    repulsion : float
        Weight w of the turn away from other twigs at each step.
    below : float
        Height `ab` above which nothing grows; the basal rim has no network.

    Returns
    -------
    PurkinjeTree
        Its root is the proximal end of the His bundle.

    Raises
    ------
    MeshError
        If surfaces are not tagged or there is no LV endocardium.
    InputError
        If a number is out of range.

    References
    ----------
    Defaults of angle and repulsion: Sahli Costabal et al. 2016,
    doi:10.1016/j.jbiomech.2015.12.025.

    Examples
    --------
    >>> from twinheart.anatomy import demo_heart
    >>> from twinheart.anatomy.purkinje import grow_purkinje
    >>> tree = grow_purkinje(demo_heart().mesh, twig_length=20.0)
    >>> tree.roots.tolist(), len(tree.junctions) > 20
    ([0], True)
    """
    if not (2 * SEGMENT <= twig_length <= 100):
        raise InputError(f"twig_length is {twig_length:g} mm, expected {2 * SEGMENT:g} to 100.")
    if not (0 <= angle <= 1.5 and 0 <= repulsion <= 10 and 0 < below <= 1):
        raise InputError(
            f"angle {angle:g}, repulsion {repulsion:g} and below {below:g} are expected within "
            "0..1.5 radians, 0..10 and 0..1."
        )
    left = endocardium(mesh, SurfaceClass.LV_ENDOCARDIUM)
    right = endocardium(mesh, SurfaceClass.RV_ENDOCARDIUM)
    if left is None:
        raise MeshError(
            "no boundary triangle lies on the LV endocardium (surf_class 3): tag the surfaces "
            "with 'twinheart anatomy build'."
        )
    rng = np.random.default_rng(seed)
    rules = _Rules(twig_length, angle, repulsion, below)
    tree = _Growing()
    his = left.place(_HIS, _SEPTUM)
    if right is not None:
        his = (his + right.place(_HIS, _SEPTUM)) / 2
    root = tree.line(-1, his[None])
    _left_bundle(tree, root, Ground(left), rules, rng)
    if right is not None:
        _right_bundle(tree, root, Ground(right), rules, rng)
    return tree.finished()


class _Rules(eqx.Module):
    length: float
    angle: float
    repulsion: float
    below: float


class _Growing:
    """A tree in growth: every node knows its parent and the twig it belongs to."""

    def __init__(self) -> None:
        self.points = np.zeros((0, 3))
        self.parents = np.zeros(0, dtype=int)
        self.twigs = np.zeros(0, dtype=int)
        self.n_twigs = 0

    def add(self, points, parents, twigs) -> np.ndarray:
        """Append nodes; their indices."""
        first = len(self.points)
        self.points = np.concatenate([self.points, points])
        self.parents = np.concatenate([self.parents, parents])
        self.twigs = np.concatenate([self.twigs, twigs])
        return np.arange(first, len(self.points))

    def line(self, parent: int, points) -> int:
        """Append a bundle that begins at `parent`; its last node."""
        if not len(points):
            return parent
        twig = self.n_twigs
        self.n_twigs += 1
        count = len(points)
        first = len(self.points)
        parents = np.concatenate([[parent], np.arange(first, first + count - 1)])
        return int(self.add(points, parents, np.full(count, twig))[-1])

    def straight(self, parent: int, goal) -> int:
        """Append a bundle straight to `goal`; its last node."""
        start = self.points[parent]
        count = round(np.linalg.norm(goal - start) / SEGMENT)
        share = np.arange(1, count + 1)[:, None] / count
        return self.line(parent, start + share * (goal - start))

    def over(self, parent: int, ground: Ground, goal) -> int:
        """Append a bundle over the surface to about `goal`; its last node."""
        return self.line(parent, ground.walk(self.points[parent], goal, SEGMENT)[1:])

    def along(self, end: int, every: float) -> list[int]:
        """Nodes in the distal half of the bundle that ends at `end`, `every` mm apart."""
        nodes = np.flatnonzero(self.twigs == self.twigs[end])
        stride = max(1, round(every / SEGMENT))
        return nodes[::-1][: len(nodes) // 2][stride::stride].tolist()

    def direction(self, node: int) -> np.ndarray:
        """Direction in which a node was reached."""
        return self.points[node] - self.points[self.parents[node]]

    def finished(self) -> PurkinjeTree:
        children = np.flatnonzero(self.parents >= 0)
        edges = np.stack([self.parents[children], children], axis=1)
        return PurkinjeTree(self.points, edges, np.flatnonzero(self.parents < 0))


def _left_bundle(tree: _Growing, root: int, ground: Ground, rules: _Rules, rng) -> None:
    surface = ground.surface
    at = tree.straight(root, surface.place(_HIS, _SEPTUM))
    ends = []
    for height, goal in _LEFT_FORKS:
        at = tree.over(at, ground, surface.place(height, _SEPTUM))
        ends.append(tree.over(at, ground, surface.place(*goal)))
    # Nothing grows on the twig to the septum, which ends there.
    ends[-1] = tree.over(at, ground, surface.place(*_SEPTAL))
    sides = [node for end in ends for node in tree.along(end, 2 * rules.length)]
    _fork_on(tree, ends, sides, ground, rules, rng)


def _right_bundle(tree: _Growing, root: int, ground: Ground, rules: _Rules, rng) -> None:
    surface = ground.surface
    top = tree.straight(root, surface.place(_HIS, _SEPTUM))
    leaves = tree.over(top, ground, surface.place(*_BAND_LEAVES))
    lands = tree.straight(leaves, surface.place(*_BAND_LANDS))
    tree.over(lands, ground, surface.place(*_RIGHT_FIRST))
    onwards = tree.over(lands, ground, surface.place(*_RIGHT_ONWARDS))
    ends = [tree.over(onwards, ground, surface.place(*_OUTFLOW))]
    fork = tree.over(onwards, ground, surface.place(*_RIGHT_FORK))
    ends += [tree.over(fork, ground, surface.place(*place)) for place in _RIGHT_ENDS]
    sides = [node for end in ends for node in tree.along(end, 2 * rules.length)]
    # On the septum the bundle is insulated up to where the band leaves it.
    _fork_on(tree, ends, [leaves, *sides], ground, rules, rng)


def _fork_on(tree: _Growing, ends, sides, ground: Ground, rules: _Rules, rng) -> None:
    """Fork from ends of bundles, send a twig off at their sides; go on until the room is filled."""
    pairs = np.repeat(np.asarray(ends, dtype=int), 2)
    starts = np.concatenate([pairs, np.asarray(sides, dtype=int)])
    turns = np.where(np.arange(len(starts)) % 2 == 0, 1.0, -1.0)
    sister = np.arange(len(starts))
    sister[: len(pairs)] ^= 1
    ahead = np.stack([tree.direction(int(node)) for node in starts])
    for _ in range(_GENERATIONS):
        if not len(starts):
            return
        tips, heading = _generation(tree, starts, ahead, turns, sister, ground, rules, rng)
        starts, ahead = np.repeat(tips, 2), np.repeat(heading, 2, axis=0)
        turns, sister = np.tile([1.0, -1.0], len(tips)), np.arange(2 * len(tips)) ^ 1


def _generation(tree: _Growing, starts, ahead, turns, sister, ground: Ground, rules: _Rules, rng):
    """Grow a twig from every start, turned aside; the ends of those that live, and directions."""
    mothers = tree.twigs[starts]
    count = len(starts)
    twigs = tree.n_twigs + np.arange(count)
    tree.n_twigs += count
    sisters = twigs[sister]
    lengths = rng.normal(rules.length, _SPREAD * rules.length, count)
    steps = np.rint(np.maximum(lengths, _SHORTEST * rules.length) / SEGMENT).astype(int)
    steps = np.maximum(steps, 1)
    nodes = starts.copy()
    place, triangle = ground.project(tree.points[nodes])
    forward = ground.along(ahead, triangle)
    sideways = np.cross(ground.normals[triangle], forward)
    turn = turns[:, None] * rules.angle
    heading = np.cos(turn) * forward + np.sin(turn) * sideways
    alive = np.ones(count, dtype=bool)
    for step in range(1, steps.max() + 1):
        go = np.flatnonzero(alive & (steps >= step))
        if not len(go):
            break
        known = KDTree(tree.points)
        own = np.stack([twigs[go], mothers[go], sisters[go]], axis=1)
        away, _ = _from_others(tree, known, place[go], own[:, :1])
        turned = heading[go] + rules.repulsion * away
        turned = ground.along(turned, triangle[go])
        target = place[go] + SEGMENT * turned
        landed, on = ground.project(target)
        _, gap = _from_others(tree, known, landed, own)
        fits = gap >= _TOO_NEAR * rules.length
        fits &= np.linalg.norm(landed - target, axis=1) <= 0.5 * SEGMENT
        fits &= ground.height(on) <= rules.below
        alive[go[~fits]] = False
        go, landed, on, turned = go[fits], landed[fits], on[fits], turned[fits]
        nodes[go] = tree.add(landed, nodes[go], twigs[go])
        place[go], triangle[go], heading[go] = landed, on, turned
    grown = alive & (tree.twigs[nodes] == twigs)
    return nodes[grown], heading[grown]


def _from_others(tree: _Growing, known: KDTree, points, own) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors away from the nearest node that is not of the own twigs, and its distance."""
    distance, near = known.query(points, k=min(_NEIGHBOURS, known.n))
    near = near.reshape(len(points), -1)
    distance = distance.reshape(near.shape)
    mine = (tree.twigs[near][:, :, None] == own[:, None, :]).any(axis=2)
    distance = np.where(mine, np.inf, distance)
    rows, first = np.arange(len(points)), distance.argmin(axis=1)
    gap = distance[rows, first]
    away = points - known.data[near[rows, first]]
    away = away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-12)
    return np.where(np.isfinite(gap)[:, None], away, 0.0), gap


def read_purkinje(files: Sequence[str | Path]) -> PurkinjeTree:
    """Read a Purkinje tree that another program made, one file or one for each ventricle.

    Parameters
    ----------
    files : sequence of paths
        Meshes of line cells [mm], VTU or legacy VTK; the first point of each is its root.

    Returns
    -------
    PurkinjeTree
        The trees side by side, with a root each.

    Raises
    ------
    InputError
        If a file cannot be read or holds no lines.
    MeshError
        If it is no tree: see `PurkinjeTree`.

    Examples
    --------
    >>> import tempfile
    >>> from twinheart.anatomy import demo_heart
    >>> from twinheart.anatomy.purkinje import grow_purkinje, read_purkinje, write_purkinje
    >>> path = tempfile.mkdtemp() + "/tree.vtu"
    >>> tree = grow_purkinje(demo_heart().mesh, twig_length=30.0)
    >>> write_purkinje(path, tree)
    >>> bool((read_purkinje([path]).points == tree.points).all())
    True
    """
    points, edges, roots = [], [], []
    first = 0
    for file in files:
        raw = read_raw(file)
        lines = raw.cells.get("line", np.zeros((0, 2), dtype=int))
        if not len(lines):
            raise InputError(f"{file}: holds no line cells, expected a Purkinje tree made of them.")
        if lines.min() < 0 or lines.max() >= len(raw.points):
            raise InputError(f"{file}: lines name points that are not there: damaged file.")
        if raw.unit not in (None, "mm"):
            raise InputError(f"{file}: is in {raw.unit}, expected a Purkinje tree in mm.")
        points.append(raw.points)
        edges.append(lines + first)
        roots.append(first)
        first += len(raw.points)
    if first > _MOST_NODES:
        raise InputError(f"the Purkinje tree has {first} nodes, expected at most {_MOST_NODES}.")
    return PurkinjeTree(np.concatenate(points), np.concatenate(edges), np.array(roots))


def activation_starts(files: Sequence[str | Path]) -> list[float]:
    """When the trees of files are excited: the minimum of their activation [ms], else 0.

    Parameters
    ----------
    files : sequence of paths
        As for `read_purkinje`; a point field ``activation`` holds times in ms.

    Returns
    -------
    list of float
        One start for each file.

    Raises
    ------
    InputError
        If a file cannot be read, or its activation is not one finite, non-negative time a point.
    """
    starts = []
    for file in files:
        found = read_raw(file).point_fields.get("activation")
        if found is None:
            starts.append(0.0)
            continue
        times = np.asarray(found, dtype=float).squeeze()
        if times.ndim != 1 or not (np.isfinite(times) & (times >= 0)).all():
            raise InputError(
                f"{file}: its point field 'activation' has times that are negative or no numbers, "
                "expected one time [ms] of at least 0 at each point."
            )
        starts.append(float(times.min()))
    return starts


def write_purkinje(path: str | Path, tree: PurkinjeTree) -> None:
    """Write a tree with one root as VTU lines [mm], root first, for ParaView and `read_purkinje`.

    Raises
    ------
    InputError
        If the name does not end in .vtu or the root is not the first node.
    OutputError
        If the file cannot be written; nothing is left behind.
    """
    import pyvista as pv

    if Path(path).suffix.lower() != ".vtu" or tree.roots.tolist() != [0]:
        raise InputError(f"{path}: expected a name ending in .vtu and a tree with its root first.")
    cells = np.column_stack([np.full(len(tree.edges), 2), tree.edges])
    lines = pv.UnstructuredGrid(
        cells.ravel(), np.full(len(cells), pv.CellType.LINE, np.uint8), tree.points
    )
    with written_whole(path) as temporary:
        lines.save(temporary)
