r"""Programmed stimulation at one site by the re-excitable eikonal equation.

The regular stimuli (S1) are followed by the stages of a `Protocol`: each adds stimuli at an
interval that is shortened until they are not captured any more or re-entry is induced, and the next
stage goes on from the shortest interval that was captured. A stimulus is captured if it changes any
activation beyond the ball of tissue that it excites itself. Re-entry is induced if tissue is still
being activated `observe` ms after the last stimulus and one node was activated at least
`activations` times after it (see `Protocol`).

Stimuli that many trains have in common are run once, where their waves have ended when the next
one is given: only when each node has repolarised matters then, and no number changes.

The model behind it, `twinheart.tissue.eikonal_train`, knows block and restitution but neither
electrotonic coupling nor the curvature of fronts: what is induced here is a candidate to be
confirmed by a monodomain simulation. Its block is as sharp as the mesh: a wave that comes too early
by less than it needs across an element may still get through, so that an edge h [mm] blurs the
longest refractory period that re-enters by some 2 h / c.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from twinheart.errors import InputError, SolverError
from twinheart.planning.pacing_sites import PacingSite
from twinheart.planning.protocols import Protocol, Stage
from twinheart.tissue import Eikonal, Sites, Train, WaveTable, eikonal_train

# A run goes on so long after the observation [ms]: in it something must fire.
_TAIL = 20.0
# Waves must have ended so long before the next stimulus for their train not to be run again [ms].
_QUIET = 50.0


class Reentry(NamedTuple):
    """Whether a train of activations is re-entry that lasts.

    Attributes
    ----------
    sustained : bool
        By the criterion of the protocol.
    lasted : float
        From the last stimulus to the last activation [ms]; of a run that was ended, to its end.
    cycle_length : float
        Median interval [ms] between activations of a node, over all nodes and all intervals that
        end in the second half of the observation; NaN where there is none.
    spread : float
        Between the quartiles of these intervals [ms]; 0 for one steady circuit.
    """

    sustained: bool
    lasted: float
    cycle_length: float
    spread: float


def reentry(train: Train, last: float, protocol: Protocol) -> Reentry:
    """Judge a train of activations.

    Parameters
    ----------
    train : Train
        Activations until at least `protocol.observe` after the last stimulus.
    last : float
        When the last stimulus was given [ms].
    protocol : Protocol
        Holds the criterion.

    Returns
    -------
    Reentry
        Verdict and cycle length.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.planning import Protocol, reentry
    >>> from twinheart.tissue import Train
    >>> lat = np.arange(0.0, 1300.0, 250.0)[None]
    >>> train = Train(lat, 0 * lat, 0 * lat, "successful")
    >>> reentry(train, 0.0, Protocol("p", 1, 600.0, (), observe=1000.0)).cycle_length
    250.0
    """
    after = np.where(train.lat >= last, train.lat, np.nan)
    fired = after[np.isfinite(after)]
    lasted = float(fired.max() - last) if fired.size else 0.0
    often = np.isfinite(after).sum(axis=1).max(initial=0)
    sustained = bool(lasted >= protocol.observe and often >= protocol.activations)
    late = after[:, 1:] >= last + protocol.observe / 2
    intervals = np.diff(after, axis=1)[late]
    intervals = intervals[np.isfinite(intervals)]
    if not intervals.size:
        return Reentry(sustained, lasted, np.nan, np.nan)
    low, middle, high = np.percentile(intervals, [25, 50, 75])
    return Reentry(sustained, lasted, float(middle), float(high - low))


@dataclass(frozen=True)
class StageResult:
    """What a stage found.

    Parameters
    ----------
    captured : float or None
        Shortest interval that was captured [ms].
    blocked : float or None
        Longest interval that was not [ms], at which the stage ended.
    """

    captured: float | None
    blocked: float | None


@dataclass(frozen=True)
class SiteResult:
    """Programmed stimulation at one site.

    Parameters
    ----------
    site : PacingSite
        The site.
    outcome : str
        ``"induced"``, ``"not induced"``, or ``"no capture"`` where not even the first stimulus
        went beyond the tissue that it excites itself.
    s1_beats : int
        Activations by S1 of the node beyond that ball that has most: fewer than `n_s1` where the
        cycle is too short for it.
    stages : tuple of StageResult
        Of each stage that was begun, the one that induced included.
    stimuli : tuple of float
        When the train that induced was given [ms]; empty if none did.
    cycle_length, spread : float or None
        Of the re-entry [ms], see `Reentry`.
    lasted : float
        The longest that activity outlived the last stimulus of a train [ms].
    runs : int
        Trains that were tried.
    seconds : float
        That it took; two results are equal whatever it is.
    """

    site: PacingSite
    outcome: str
    s1_beats: int
    stages: tuple[StageResult, ...]
    stimuli: tuple[float, ...]
    cycle_length: float | None
    spread: float | None
    lasted: float
    runs: int
    seconds: float = field(default=0.0, compare=False)

    @property
    def induced(self) -> bool:
        """Whether re-entry was induced."""
        return self.outcome == "induced"

    @property
    def coupling(self) -> tuple[float, ...]:
        """Intervals between the stimuli of the train that induced [ms]."""
        return tuple(float(x) for x in np.diff(self.stimuli))


def induce(
    problem: Eikonal,
    tables: WaveTable | dict[int, WaveTable],
    site: PacingSite,
    protocol: Protocol,
    *,
    radius: float = 2.0,
) -> SiteResult:
    """Pace one site by a protocol.

    Parameters
    ----------
    problem : Eikonal
        Geometry and velocities at rest.
    tables : WaveTable or dict of int to WaveTable
        Restitution, see `twinheart.tissue.eikonal_train`.
    site : PacingSite
        From `place_sites` or `aha_sites`.
    protocol : Protocol
        Stimuli and criterion.
    radius : float
        Of the ball that a stimulus excites [mm].

    Returns
    -------
    SiteResult
        What was captured and what was induced.

    Raises
    ------
    InputError
        If the ball holds all tissue that conducts.
    ModelError
        As `twinheart.tissue.eikonal_train`.
    SolverError
        If a run was stopped because it had too many activations.

    Examples
    --------
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning import Protocol, Stage, induce, place_sites
    >>> from twinheart.tissue import WaveTable, build_eikonal
    >>> problem = build_eikonal(Heart(slab((20.0, 2.0, 2.0), 1.0)))
    >>> site = place_sites(problem, [[0.0, 1.0, 1.0]])[0]
    >>> protocol = Protocol("S1 S2", 2, 600.0, (Stage(300.0, 10.0, 100.0),))
    >>> found = induce(problem, WaveTable([20.0], [1.0], [215.0]), site, protocol)
    >>> found.outcome, found.stages[0].captured, found.stages[0].blocked
    ('not induced', 240.0, 230.0)
    """
    pacing = _Pacing(problem, tables, site, protocol, radius)
    base = pacing.run(protocol.s1)
    beats = int(base.train.count[pacing.beyond].max(initial=0))
    if not beats:
        return pacing.result("no capture", 0, [])
    found = []
    for stage in protocol.stages:
        if pacing.latest.sustained:
            break
        outcome, base = _go_through(pacing, stage, base)
        found.append(outcome)
        if outcome.captured is None:
            break
    if pacing.latest.sustained:
        return pacing.result("induced", beats, found, base.stimuli)
    return pacing.result("not induced", beats, found)


def activation_train(
    problem: Eikonal,
    tables: WaveTable | dict[int, WaveTable],
    result: SiteResult,
    protocol: Protocol,
    *,
    radius: float = 2.0,
) -> Train:
    """All activations of the train that induced, S1 included.

    Parameters
    ----------
    problem, tables, protocol, radius
        As given to `induce`.
    result : SiteResult
        What it found.

    Returns
    -------
    Train
        Activations until the end of the observation.

    Raises
    ------
    InputError
        If nothing was induced.

    Examples
    --------
    See `twinheart.planning.induce_sites`.
    """
    if not result.induced:
        raise InputError(
            f"{result.site.name}: no re-entry was induced, so there is no train of it."
        )
    pulses = [Sites([result.site.position], at, radius) for at in result.stimuli]
    return eikonal_train(problem, pulses, tables, t_end=_end(result.stimuli[-1], protocol))


def _end(last: float, protocol: Protocol) -> float:
    return last + protocol.observe + _TAIL


class _State(NamedTuple):
    """When nodes have repolarised after `skipped` stimuli, whose waves ended at `ended`."""

    ready: np.ndarray
    skipped: int
    ended: float


class _Run(NamedTuple):
    """A train of stimuli, the state that it started from, and its activations from there on."""

    stimuli: tuple[float, ...]
    start: _State
    train: Train


def _go_through(pacing: "_Pacing", stage: Stage, base: _Run) -> tuple[StageResult, _Run]:
    """Shorten the interval until block or re-entry; the last train that was captured."""
    pacing.keep(base)
    captured, kept, last = None, base, base.stimuli[-1]
    for interval in stage.intervals:
        added = tuple(last + interval * (k + 1) for k in range(stage.count))
        tried = pacing.run(base.stimuli + added)
        if pacing.latest.sustained:
            return StageResult(interval, None), tried
        if not pacing.captured(tried.train, base, added[0]):
            return StageResult(captured, interval), kept
        captured, kept = interval, tried
    return StageResult(captured, None), kept


class _Pacing:
    """Trains of stimuli at one site, and what is known of them."""

    def __init__(self, problem: Eikonal, tables, site: PacingSite, protocol: Protocol, radius):
        self.problem, self.tables, self.site = problem, tables, site
        self.protocol, self.radius = protocol, radius
        self.runs, self.lasted = 0, 0.0
        self.latest = Reentry(False, 0.0, np.nan, np.nan)
        self.beyond = self._beyond()
        self.states = [_State(np.full(problem.n_nodes, -np.inf), 0, -np.inf)]

    def _beyond(self) -> Bool[np.ndarray, "node"]:
        """Nodes of conducting tissue outside the ball that a stimulus excites."""
        elements = self.problem.elements
        position = np.array(self.site.position)
        cell, _ = elements.locate(position[None])
        beyond = np.zeros(self.problem.n_nodes, dtype=bool)
        beyond[np.unique(elements.cells)] = True
        beyond[elements.ball(position, int(cell[0]), self.radius)] = False
        if not beyond.any():
            raise InputError(
                f"a stimulus of radius {self.radius:g} mm at {self.site.name} excites all tissue: "
                "make it smaller."
            )
        return beyond

    def keep(self, run: _Run):
        """Let later trains that begin with the same stimuli start from within or after this one."""
        count = len(run.stimuli)
        for skipped in range(max(count - 1, run.start.skipped + 1), count + 1):
            until = run.stimuli[skipped] if skipped < count else np.inf
            lat = np.where(run.train.lat < until, run.train.lat, np.nan)
            ready = np.fmax.reduce(lat + run.train.apd, axis=1, initial=-np.inf)
            ended = float(np.fmax.reduce(lat, axis=None, initial=-np.inf))
            self.states.append(_State(np.fmax(run.start.ready, ready), skipped, ended))

    def run(self, stimuli: tuple[float, ...]) -> _Run:
        """Activations by stimuli, from the latest state whose waves had ended on."""
        start = max(
            (
                state
                for state in self.states
                if state.skipped < len(stimuli) and state.ended + _QUIET < stimuli[state.skipped]
            ),
            key=lambda state: state.skipped,
        )
        last = stimuli[-1]
        train = eikonal_train(
            self.problem,
            [Sites([self.site.position], at, self.radius) for at in stimuli[start.skipped :]],
            self.tables,
            t_end=_end(last, self.protocol),
            repolarised=start.ready,
        )
        if train.result != "successful":
            raise SolverError(
                f"{self.site.name}: more activations than a run may have, within "
                f"{self.protocol.observe:g} ms after the last stimulus: observe for a shorter time."
            )
        self.latest = reentry(train, last, self.protocol)
        self.runs += 1
        self.lasted = max(self.lasted, self.latest.lasted)
        return _Run(stimuli, start, train)

    def captured(self, train: Train, base: _Run, since: float) -> bool:
        """Whether a train differs beyond the ball from the one without its latest stimuli."""
        until = _end(base.stimuli[-1], self.protocol)  # where that one was ended
        own, other = (
            np.sort(lat[(lat >= since) & (lat <= until) & self.beyond[:, None]])
            for lat in (train.lat, base.train.lat)
        )
        return not np.array_equal(own, other)

    def result(self, outcome: str, beats: int, stages, stimuli=()) -> SiteResult:
        cycle, spread = self.latest.cycle_length, self.latest.spread
        known = outcome == "induced" and np.isfinite(cycle)
        return SiteResult(
            self.site,
            outcome,
            beats,
            tuple(stages),
            tuple(float(t) for t in stimuli),
            cycle if known else None,
            spread if known else None,
            self.lasted,
            self.runs,
        )
