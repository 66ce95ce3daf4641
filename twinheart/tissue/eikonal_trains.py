r"""Trains of beats and re-entry at the cost of the eikonal equation.

A node that has been excited is refractory for its action potential and the shortest diastolic
interval that conducts. After that it can be excited again, with a velocity and a duration that
depend on the interval since it repolarised,

.. math:: DI = t - R, \qquad c = c_0\, \varphi(DI), \qquad R \leftarrow t + APD(DI),

with tables measured on a cable of the cell model (`twinheart.tissue.cv_restitution`). Waves block
where they meet refractory tissue, turn around obstacles and re-enter. A front that comes before a
node has recovered ends there; that its ways along the edges of elements are longer than its own,
and so would come after, does not let it in. Electrotonic coupling is that of regions
(`twinheart.tissue.coupled_waves`), the curvature of fronts is left out; the arrivals are not
differentiable, as those of re-entry would be of no use (chaos).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from twinheart.errors import ModelError
from twinheart.tissue.eikonal import Eikonal, Sites, metric, refuse_outside
from twinheart.tissue.node_tables import WaveTables, node_tables
from twinheart.types import Array

_MOST_BEATS = 1000  # activations a node, on average, after which a run is stopped ...
_MOST_EVENTS = 100_000_000  # ... or in all, where memory would end


class Train(eqx.Module):
    """Activations of all nodes; column k holds the k-th of each node, NaN where there is none.

    Attributes
    ----------
    lat : (node, beat) array
        Activation [ms].
    apd : (node, beat) array
        Duration [ms].
    di : (node, beat) array
        Diastolic interval before it [ms]; ``inf`` for the first.
    result : str
        ``"successful"``, or ``"stopped"`` where a run had more activations than it may.
    """

    lat: Float[np.ndarray, "node beat"]
    apd: Float[np.ndarray, "node beat"]
    di: Float[np.ndarray, "node beat"]
    result: str

    @property
    def count(self) -> Int[np.ndarray, "node"]:
        """Number of activations of each node."""
        return np.isfinite(self.lat).sum(axis=1)


class Moment(NamedTuple):
    """What goes on at an instant of a train; `eikonal_train` goes on from it.

    Attributes
    ----------
    t : float
        The instant [ms].
    due, last, before, ready : (node,) arrays
        When each node will fire as things stand, fired last, had repolarised before that, and has
        since [ms]; infinite where it does not or did not.
    refused : (node,) array
        When the last front that found the node refractory came [ms]; ``-inf``: none did.
    record : (node,) int array
        Last event of each node, -1 where there is none.
    node : (event,) int array
        Node of each event so far.
    event : (event, 3) array
        Activation, diastolic interval and duration [ms].
    """

    t: float
    due: Float[np.ndarray, "node"]
    last: Float[np.ndarray, "node"]
    before: Float[np.ndarray, "node"]
    ready: Float[np.ndarray, "node"]
    refused: Float[np.ndarray, "node"]
    record: Int[np.ndarray, "node"]
    node: Int[np.ndarray, "event"]
    event: Float[np.ndarray, "event 3"]

    def train(self) -> Train:
        """Activations so far."""
        n = len(self.due)
        columns = _by_node(self.node, self.event[:, 0], n)
        lat, di, apd = (_spread(x, self.node, columns, n) for x in self.event.T)
        return Train(lat, apd, di, "stopped" if len(self.node) >= _most(n) else "successful")


def eikonal_train(
    problem: Eikonal,
    pulses: Sites | Sequence[Sites],
    tables: WaveTables,
    *,
    t_end: float,
    repolarised: Float[Array, "node"] | None = None,
) -> Train:
    """Waves from a train of stimuli until nothing moves any more, or a given time.

    Parameters
    ----------
    problem : Eikonal
        Geometry and velocities at rest.
    pulses : Sites or sequence of Sites
        Stimuli; their onsets say when [ms]. One that meets refractory tissue does nothing.
    tables : WaveTable, dict of int to WaveTable or NodeTables
        Restitution, one for each region tag, or that of every node (`node_tables`,
        `coupled_tables`).
    t_end : float
        Nothing fires after this time [ms].
    repolarised : (node,) array, optional
        When each node has repolarised from something before [ms]; NaN or ``-inf``: at rest.
        With it waves can be made that run one way only.

    Returns
    -------
    Train
        Activations.

    Raises
    ------
    ModelError
        If a site lies outside the mesh, a region has no table or a number is not usable.

    Examples
    --------
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.tissue import Sites, WaveTable, build_eikonal, eikonal_train
    >>> problem = build_eikonal(Heart(slab((20.0, 2.0, 2.0), 1.0)))
    >>> table = WaveTable([20.0, 300.0], [0.6, 1.0], [150.0, 250.0])
    >>> pulses = [Sites([[0.0, 1, 1]], onset) for onset in (0.0, 200.0, 400.0)]
    >>> eikonal_train(problem, pulses, table, t_end=600.0).count.max().item()  # one is blocked
    2
    """
    return Trains(problem, tables).until(t_end, pulses, repolarised=repolarised).train()


class Trains:
    """Trains of waves in one tissue, run piece by piece.

    Parameters
    ----------
    problem : Eikonal
        Geometry and velocities at rest.
    tables : WaveTable, dict of int to WaveTable or NodeTables
        Restitution, see `eikonal_train`.

    Raises
    ------
    ModelError
        If a region has no table.

    Examples
    --------
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.tissue import Sites, WaveTable, build_eikonal
    >>> from twinheart.tissue.eikonal_trains import Trains
    >>> problem = build_eikonal(Heart(slab((20.0, 2.0, 2.0), 1.0)))
    >>> trains = Trains(problem, WaveTable([20.0, 300.0], [0.6, 1.0], [150.0, 250.0]))
    >>> first = trains.until(300.0, [Sites([[0.0, 1, 1]])])
    >>> later = trains.until(600.0, [Sites([[0.0, 1, 1]], 400.0)], since=first)
    >>> first.train().count.max().item(), later.train().count.max().item()
    (1, 2)
    """

    def __init__(self, problem: Eikonal, tables: WaveTables):
        self.problem = problem
        self._slow = np.asarray(problem.velocity, dtype=float) ** -2.0
        given = node_tables(problem, tables)
        self.tables, self.table_of = given.rows, given.of
        qt, qs, qe = (
            np.asarray(metric(tuple(np.asarray(g, float) for g in squares), row, self._slow))
            for squares, row in zip(problem.squares, map(np.asarray, problem.rows), strict=True)
        )
        delay = np.asarray(problem.junction, float)[:, None] * np.asarray(problem.delays, float)
        elements = problem.elements
        self._fixed: tuple[Any, ...] = (
            problem.n_nodes, elements.tets, elements.triangles, elements.edges,
            *elements.incidences, qt, qs, np.sqrt(qe), delay, self.tables, self.table_of,
        )  # fmt: skip

    def until(
        self,
        t_end: float,
        pulses: Sites | Sequence[Sites] = (),
        *,
        since: Moment | None = None,
        repolarised: Float[Array, "node"] | None = None,
    ) -> Moment:
        """Run until a time.

        Parameters
        ----------
        t_end : float
            Nothing fires after it [ms].
        pulses : Sites or sequence of Sites
            Stimuli that were not given before `since`.
        since : Moment, optional
            To go on from; it stays as it is. By default all is at rest.
        repolarised : (node,) array, optional
            Instead of rest, when each node has repolarised [ms].

        Returns
        -------
        Moment
            What goes on then, and all events from the beginning on.

        Raises
        ------
        ModelError
            If a site lies outside the mesh or a number is not usable.
        """
        from twinheart.tissue.eikonal_events import run_events

        if not np.isfinite(t_end):
            raise ModelError(f"t_end is {t_end} ms, expected a finite number.")
        n = self.problem.n_nodes
        start = since or _beginning(n, repolarised)
        sites = [pulses] if isinstance(pulses, Sites) else list(pulses)
        node, time = _pulses(self.problem, sites, self._slow)
        state = tuple(np.array(x) for x in start[1:7])
        queue = (*state, start.node, start.event)
        arguments: list[Any] = [*self._fixed, queue, node, time, float(t_end), _most(n)]
        fields: list[Any] = [float(t_end), *state, *run_events(*arguments)]
        return Moment(*fields)


def _most(n: int) -> int:
    return min(_MOST_BEATS * n, _MOST_EVENTS)


def _beginning(n: int, repolarised) -> Moment:
    """Before anything fires."""
    never = np.full(n, -np.inf)
    ready = never
    if repolarised is not None:
        given = np.asarray(repolarised, dtype=float)
        if given.shape != (n,):
            raise ModelError(f"repolarised has shape {given.shape}, expected ({n},).")
        ready = np.where(np.isnan(given), -np.inf, given)
    nothing = np.zeros(0, np.int32), np.zeros((0, 3))
    return Moment(
        -np.inf, np.full(n, np.inf), never, never, ready, never, np.full(n, -1, np.int64), *nothing
    )


def _by_node(node, lat, n: int) -> np.ndarray:
    """Rank in time of every event among those of its node."""
    order = np.lexsort((lat, node))
    start = np.searchsorted(node[order], np.arange(n))
    rank = np.empty(len(node), dtype=np.int64)
    rank[order] = np.arange(len(node)) - start[node[order]]
    return rank


def _spread(values, node, rank, n: int) -> np.ndarray:
    table = np.full((n, int(rank.max(initial=-1)) + 1), np.nan)
    table[node, rank] = values
    return table


def _pulses(problem: Eikonal, pulses: list[Sites], slow) -> tuple[np.ndarray, np.ndarray]:
    """Nodes that are stimulated and when, in order of time."""
    nodes, times = [np.zeros(0, np.int64)], [np.zeros(0)]
    for pulse in pulses:
        refuse_outside(problem, pulse)
        position, onset = np.asarray(pulse.positions, float), np.asarray(pulse.onsets, float)
        site, frames, row = problem.axes.nearest_sites(
            problem.elements, position, onset, float(pulse.radius), slow
        )
        hit = np.flatnonzero(site >= 0)
        own = site[hit]
        along = np.einsum("nki,ni->nk", frames[own], problem.elements.points[hit] - position[own])
        distance = np.sqrt((along**2 * slow[row[own]][:, list(problem.axes.columns)]).sum(axis=1))
        nodes.append(hit)
        times.append(onset[own] + distance)
    node, time = np.concatenate(nodes), np.concatenate(times)
    order = np.argsort(time, kind="stable")
    return node[order], time[order]
