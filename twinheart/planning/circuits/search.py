r"""Circuits of re-entry found without inducing them, from the arrival of waves alone.

An isthmus, where parts of a wave meet inside scar (see `twinheart.planning.circuits.isthmuses`), is
cut across where it is narrowest and a wave is launched on one side of the cut. It comes back to the
other side after the *return time*, the length of the cycle. The circuit is sustained if this is
longer than the longest refractory period on the way, in both directions; then the tissue in front
of the wave has always recovered. With restitution the wave slows down until it has, see
`twinheart.planning.circuits.steady_cycle`.

The narrowest place is the smallest level set of the Laplace field u from mouth to mouth, with the
area of its polygons. The cycle is the shortest closed way through the isthmus, so it does not
depend on where along the isthmus it is cut. Its error is that of the arrival: none where ways are
straight along edges, and too long around round scar, at 10 mm radius by 5 % with edges of 1 mm and
3 % with 0.5 mm. A way round that stays in the same part of the scar, because the cut does not close
it, is short: refractoriness refuses such a circuit.

Of each cut the way round counts that is quickest at rest: a way back through another isthmus, where
it is shorter than that around the scar, makes both one circuit, and a longer way is not looked for.

References
----------
The idea is that of VITA: Campos et al. 2022, doi:10.48550/arXiv.2108.13194; the formulation by
depths, mouths and level sets is our own.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from twinheart.anatomy.corridors import MIN_AREA
from twinheart.errors import InputError
from twinheart.fem import solve_laplace
from twinheart.imaging.enhancement import BORDER, CORE
from twinheart.mesh import TetMesh
from twinheart.planning.circuits.isthmuses import Isthmus, find_isthmuses
from twinheart.planning.circuits.sections import Section, least_section
from twinheart.planning.circuits.steady_cycle import steady_cycle
from twinheart.planning.pacing_sites import PacingSite
from twinheart.tissue import Eikonal, NodeTables, Sites, arrival, node_tables
from twinheart.tissue.eikonal import metric, refuse_outside
from twinheart.tissue.eikonal_elements import TET_PAIRS, edge_gram

_STOPPED = 1e-6  # m/s: what is cut hardly conducts; so the compiled solver serves all cuts
_SAME = 0.5  # share of two cuts from which on they are one
_NEVER = 1e5  # ms: so late only through the cut


class Circuit(NamedTuple):
    """A circuit that would sustain itself, or one that would not.

    It can run both ways. Told is the way against a wave that met itself in the isthmus: out of the
    mouth to which this came first. The other way exit and entrance are exchanged.

    Attributes
    ----------
    exit_mm, entrance_mm : (3,) arrays
        First place after the isthmus at which the way has left the border zone, and last before it
        [mm]; where it never leaves it, the ends of the isthmus.
    cycle_length_ms : float
        Return time [ms]; with restitution that of the steady cycle, and of a circuit that does not
        last the longest it can be.
    refractory_ms : float
        Longest refractory period on the way [ms].
    isthmus_area_mm2 : float
        Narrowest section of the isthmus.
    isthmus_mm : (3,) array
        Centre of that section [mm].
    isthmus_tets : (own_tet,) int array
        Tetrahedra of the isthmus, as the mesh numbers them.
    path : (step, 3) array
        The way round, from one side of the cut to the other, along edges [mm].
    sites : tuple of int
        Sites whose waves met in the isthmus.
    sustained : bool
        Whether it takes longer than refractoriness, both ways.
    """

    exit_mm: Float[np.ndarray, "3"]
    entrance_mm: Float[np.ndarray, "3"]
    cycle_length_ms: float
    refractory_ms: float
    isthmus_area_mm2: float
    isthmus_mm: Float[np.ndarray, "3"]
    isthmus_tets: Int[np.ndarray, "own_tet"]
    path: Float[np.ndarray, "step 3"]
    sites: tuple[int, ...]
    sustained: bool = True


def screen_circuits(
    problem: Eikonal,
    mesh: TetMesh,
    sites: Sequence[PacingSite],
    refractory: float | Float[np.ndarray, "node"] | NodeTables,
    *,
    radius: float = 2.0,
    min_area: float = MIN_AREA,
) -> list[Circuit]:
    """Find the circuits that scar could sustain.

    Parameters
    ----------
    problem : Eikonal
        Geometry and velocities; the core does not conduct.
    mesh : TetMesh
        The heart it was built of, with the cell field ``scar`` (0, 1 border zone, 2 core).
    sites : sequence of PacingSite
        Where it is paced. A wave that meets itself outside of an isthmus does not tell of it:
        several sites, around the scar.
    refractory : float, (node,) array or NodeTables
        Refractory period at the rate of the circuit [ms], with velocities that do not change with
        the rate; or restitution, from `node_tables` or `coupled_tables`.
    radius : float
        Of the ball that a stimulus excites [mm].
    min_area : float
        Least area of a mouth of an isthmus [mm2]; thin sheets need less than hearts.

    Returns
    -------
    list of Circuit
        Different ones, the shortest cycle first.

    Raises
    ------
    InputError
        If the mesh has no scar or is not that of the problem, the core conducts, there is no site,
        or the refractory period is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh import TetMesh
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning import place_sites, screen_circuits
    >>> from twinheart.tissue import NonConducting, Velocities, build_eikonal
    >>> mesh = slab((32.0, 28.0, 2.0), 1.0)
    >>> x, y, _ = np.abs(mesh.points[mesh.tets].mean(axis=1) - [16.0, 14.0, 1.0]).T
    >>> scar = np.where((x < 10) & (y < 8), np.where(x < 2, 1, 2), 0).astype(np.int32)
    >>> mesh = TetMesh(mesh.points, mesh.tets, {}, {"scar": scar})
    >>> tissue = {0: Velocities(0.5, 0.5), 1: Velocities(0.2, 0.2), 2: NonConducting()}
    >>> problem = build_eikonal(Heart(mesh, regions=scar), tissue)
    >>> sites = place_sites(problem, [[16.0, 2.0, 1.0]])
    >>> (circuit,) = screen_circuits(problem, mesh, sites, 100.0)
    >>> circuit.isthmus_area_mm2  # 4 x 2 mm2
    8.0
    >>> round(circuit.cycle_length_ms, 1)  # 16 mm / 0.2 m/s + (8 + 16 + 8) mm / 0.5 m/s
    144.0
    """
    found = possible_circuits(problem, mesh, sites, refractory, radius=radius, min_area=min_area)
    return [circuit for circuit in found if circuit.sustained]


def possible_circuits(
    problem: Eikonal,
    mesh: TetMesh,
    sites: Sequence[PacingSite],
    refractory: float | Float[np.ndarray, "node"] | NodeTables,
    *,
    radius: float = 2.0,
    min_area: float = MIN_AREA,
    waves: Float[np.ndarray, "site every_node"] | None = None,
) -> list[Circuit]:
    """Find the circuits that scar has, also those that refractoriness does not let last.

    Parameters
    ----------
    problem, mesh, sites, refractory, radius, min_area
        See `screen_circuits`.
    waves : (site, node) array, optional
        What `site_waves` has found of these sites.

    Returns
    -------
    list of Circuit
        Sustained ones first, the shortest cycle first, then the others.

    Raises
    ------
    InputError
        See `screen_circuits`.

    Examples
    --------
    See `screen_circuits`; with a refractory period of 150 ms this tells of the same circuit that
    it is not sustained.
    """
    tissue = _Tissue(problem, mesh, refractory)
    if not sites:
        raise InputError("no site to pace: give at least one.")
    waves = site_waves(problem, sites, radius) if waves is None else waves
    tried: list[tuple[_Cut, _Way | None]] = []
    for isthmus in find_isthmuses(
        tissue.points, tissue.tets, tissue.zone, list(waves), min_area=min_area
    ):
        cut = tissue.cut(isthmus)
        again = [k for k, (other, _) in enumerate(tried) if cut.is_like(other)]
        for k in again:
            tried[k] = (tried[k][0].met_by(cut.sites), tried[k][1])
        if not again:
            tried.append((cut, tissue.way_round(cut)))
    loops = [(cut, way) for cut, way in tried if way is not None]
    return [
        tissue.circuit(cut, way)
        for sustained in (True, False)
        for cut, way in _different([loop for loop in loops if loop[1].sustained is sustained])
    ]


def site_waves(
    problem: Eikonal, sites: Sequence[PacingSite], radius: float = 2.0
) -> Float[np.ndarray, "site every_node"]:
    """Arrival of a wave from each site at rest [ms], several solved at once.

    Raises
    ------
    ModelError
        If a site lies outside the mesh.
    """
    places = np.array([site.position for site in sites])
    refuse_outside(problem, Sites(places, radius=radius))

    def wave(place):
        return arrival(problem, Sites(place[None], radius=radius))

    return np.asarray(jax.vmap(wave)(jnp.asarray(places)), dtype=float)


class _Cut(NamedTuple):
    """A cut through an isthmus where it is narrowest."""

    isthmus: np.ndarray  # tetrahedra
    section: Section
    side: np.ndarray  # of each node: -1, 1, and 0 outside of the isthmus
    tets: np.ndarray  # on the cut
    nodes: np.ndarray  # of these
    away: np.ndarray  # from the cut to each of these [ms]
    sites: tuple[int, ...]

    def is_like(self, other: "_Cut") -> bool:
        """Whether most of what either cuts is what both cut."""
        shared = len(np.intersect1d(self.tets, other.tets))
        return shared > _SAME * (len(self.tets) + len(other.tets) - shared)

    def met_by(self, sites: tuple[int, ...]) -> "_Cut":
        """The cut, with more sites."""
        return self._replace(sites=tuple(sorted({*self.sites, *sites})))


class _Way(NamedTuple):
    """A way round: nodes from one side of a cut to the other, and its times."""

    nodes: np.ndarray
    time: float
    refractory: float
    outside: np.ndarray  # steps that lie on or in tissue that is no scar
    sustained: bool


def _different(loops: list[tuple[_Cut, _Way]]) -> list[tuple[_Cut, _Way]]:
    """Circuits that go through the same cuts as one: the shortest way, the narrowest cut."""
    kept: dict[frozenset[int], tuple[_Cut, _Way]] = {}
    for k in sorted(range(len(loops)), key=lambda k: loops[k][1].time):
        cut, way = loops[k]
        closed = np.append(way.nodes, way.nodes[0])  # crosses its own cut, and others close by
        sides = (other.side[closed] for other, _ in loops)
        through = {j for j, side in enumerate(sides) if (side[:-1] * side[1:] < 0).any()}
        known, shortest = kept.get(frozenset(through), (cut, way))
        narrow = min(known, cut, key=lambda c: c.section.area)
        both = np.union1d(known.isthmus, cut.isthmus)
        merged = narrow._replace(isthmus=both, sites=known.sites).met_by(cut.sites)
        kept[frozenset(through)] = (merged, shortest)
    return list(kept.values())


class _Tissue:
    """What conducts: its zone, its edges with the times they take, its refractory periods."""

    def __init__(self, problem: Eikonal, mesh: TetMesh, refractory):
        self.problem = problem
        self.points = np.asarray(problem.points, dtype=float)
        self.tets = np.asarray(problem.cells[0])
        self.number = _numbers(mesh, self.tets)
        classes = mesh.cell_fields.get("scar")
        if classes is None:
            raise InputError(
                "the mesh has no scar: give it the cell field 'scar' (0 healthy, 1 border zone, "
                "2 core), or paint one."
            )
        own = np.asarray(classes)[self.number]
        if (own == CORE).any():
            raise InputError(
                f"{int((own == CORE).sum())} tetrahedra of the core conduct: build the problem "
                "with core that does not."
            )
        self.zone = own == BORDER
        self.beyond = np.zeros(len(self.points), dtype=bool)
        self.beyond[self.tets[~self.zone]] = True
        self.restitution = refractory if isinstance(refractory, NodeTables) else None
        if isinstance(refractory, NodeTables):
            refractory = node_tables(problem, refractory).refractory
            refractory = refractory[: mesh.n_nodes]
        period = np.asarray(refractory, dtype=float)
        if period.shape not in ((), (mesh.n_nodes,)) or not (period > 0).all():
            raise InputError(
                f"refractory periods have shape {period.shape}, expected one positive number, or "
                f"({mesh.n_nodes},) of them [ms]."
            )
        self.refractory = np.zeros(len(self.points))
        self.refractory[: mesh.n_nodes] = period
        slow = jnp.asarray(problem.velocity) ** -2.0
        pairs = [self.tets[:, TET_PAIRS].reshape(-1, 2), np.asarray(problem.cells[2])]
        self.cost = np.sqrt(np.asarray(metric(problem.squares[0], problem.rows[0], slow), float))
        strands = np.sqrt(np.asarray(metric(problem.squares[2], problem.rows[2], slow), float))
        cost = np.concatenate([self.cost.ravel(), strands.ravel()])
        self.graph = _quickest(np.concatenate(pairs), cost, len(self.points))

    def cut(self, isthmus: Isthmus) -> _Cut:
        """The cut through an isthmus.

        Tissue is crossed at the speed of a plane wave, the root of grad u . M grad u in u per ms.
        From times along edges: with the Gram matrix g of three edges, du . g^-1 du.
        """
        nodes, local = np.unique(self.tets[isthmus.tets], return_inverse=True)
        own = TetMesh(self.points[nodes], local.reshape(-1, 4))
        ends = [np.searchsorted(nodes, end) for end in (isthmus.late, isthmus.early)]
        fixed, value = np.concatenate(ends), np.repeat([0.0, 1.0], [len(end) for end in ends])
        field = solve_laplace(own, fixed, value)
        section = least_section(own, field)
        side = np.zeros(len(self.points), dtype=np.int8)
        side[nodes] = np.where(field < section.level, -1, 1)
        tets = isthmus.tets[section.tets]
        gram = edge_gram(self.cost[tets] ** 2, TET_PAIRS)
        value = (field - section.level)[own.tets[section.tets]]
        rise = (value[:, 1:] - value[:, :1])[..., None]
        speed = np.sqrt((rise * np.linalg.solve(gram, rise)).sum(axis=(1, 2)))
        corners, place = np.unique(self.tets[tets], return_inverse=True)
        away = np.full(len(corners), np.inf)
        np.minimum.at(away, place.ravel(), (np.abs(value) / speed[:, None]).ravel())
        return _Cut(isthmus.tets, section, side, tets, corners, away, isthmus.sites)

    def way_round(self, cut: _Cut) -> _Way | None:
        """The way from the early mouth to the late one, None unless there is one both ways."""
        one, other = (self._way(cut, cut.side * sign) for sign in (1, -1))
        if one is None or other is None:
            return None
        return one._replace(sustained=one.sustained and other.sustained)

    def _way(self, cut: _Cut, side) -> _Way | None:
        """The quickest way from the positive side of a cut to the negative one."""
        launched = side[cut.nodes] > 0
        onsets = np.full(len(self.points), np.inf)
        onsets[cut.nodes[launched]] = cut.away[launched]
        rows = self.problem.rows
        stopped = jnp.asarray(rows[0]).at[cut.tets].set(len(self.problem.velocity))
        velocity = jnp.concatenate([self.problem.velocity, jnp.full((1, 3), _STOPPED)])
        closed: Any = eqx.tree_at(
            lambda p: (p.velocity, p.rows), self.problem, (velocity, (stopped, *rows[1:]))
        )
        times = np.asarray(arrival(closed, at_nodes=jnp.asarray(onsets)), dtype=float)
        last = cut.nodes[side[cut.nodes] < 0]
        total = times[last] + cut.away[side[cut.nodes] < 0]
        if not total.min() < _NEVER:
            return None
        nodes = self._back(times, side, int(last[total.argmin()]))[::-1]
        outside = np.flatnonzero(self.beyond[nodes])
        if not outside.size:
            outside = np.flatnonzero(side[nodes] == 0)
        if not outside.size:
            return None
        time, refractory = float(total.min()), float(self.refractory[nodes].max())
        if self.restitution is None:
            return _Way(nodes, time, refractory, outside, time > refractory)
        half = (
            np.diff(times[nodes], prepend=0.0, append=time) / 2
        )  # the ends have what is left whole
        spent = half[:-1] + half[1:]
        spent[0], spent[-1] = spent[0] + half[0], spent[-1] + half[-1]
        steady = steady_cycle(spent, self.restitution.rows, self.restitution.of[nodes])
        return _Way(nodes, steady.length, steady.refractory, outside, steady.sustained)

    def _back(self, times, side, node: int) -> np.ndarray:
        """Nodes from one back to the source, down the steepest edges, never across the cut."""
        path = [node]
        start, ends, cost = self.graph.indptr, self.graph.indices, self.graph.data
        while True:
            links = slice(start[node], start[node + 1])
            free = side[ends[links]] * side[node] >= 0
            slope = np.where(free, (times[node] - times[ends[links]]) / cost[links], -np.inf)
            if not slope.max() > 0:
                return np.array(path)
            node = int(ends[links][slope.argmax()])
            path.append(node)

    def circuit(self, cut: _Cut, way: _Way) -> Circuit:
        """A circuit in the terms of the user."""
        path = self.points[way.nodes]
        return Circuit(
            exit_mm=path[way.outside[0]],
            entrance_mm=path[way.outside[-1]],
            cycle_length_ms=way.time,
            refractory_ms=way.refractory,
            isthmus_area_mm2=cut.section.area,
            isthmus_mm=cut.section.centre,
            isthmus_tets=self.number[cut.isthmus],
            path=path,
            sites=cut.sites,
            sustained=way.sustained,
        )


def _numbers(mesh: TetMesh, tets) -> Int[np.ndarray, "tet"]:
    """Numbers that tetrahedra of a problem have in the mesh."""
    every = np.sort(np.concatenate([mesh.tets, tets]), axis=1)
    _, name = np.unique(every, axis=0, return_inverse=True)
    name = name.ravel()
    place = np.full(name.max() + 1, -1)
    place[name[: mesh.n_tets]] = np.arange(mesh.n_tets)
    number = place[name[mesh.n_tets :]]
    if (number < 0).any() or not len(tets):
        raise InputError(
            f"the problem has {len(tets)} tetrahedra, {int((number >= 0).sum())} of them in the "
            "mesh: give the mesh it was built of."
        )
    return number


def _quickest(pairs, cost, n_nodes: int) -> sp.csr_array:
    """Edges with the least time that a cell on them gives [ms], both ways."""
    low, high = np.sort(pairs, axis=1).T.astype(np.int64)
    order = np.lexsort((cost, high, low))
    low, high, cost = low[order], high[order], cost[order]
    first = np.flatnonzero((np.diff(low, prepend=-1) != 0) | (np.diff(high, prepend=-1) != 0))
    ends = (np.concatenate([low[first], high[first]]), np.concatenate([high[first], low[first]]))
    return sp.csr_array((np.tile(cost[first], 2), ends), shape=(n_nodes, n_nodes))
