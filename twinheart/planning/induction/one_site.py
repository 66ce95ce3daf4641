r"""Programmed stimulation at one site by the re-excitable eikonal equation.

The regular stimuli (S1) are followed by the stages of a `Protocol`: each adds stimuli at an
interval that is shortened until they are not captured any more or re-entry is induced, and the next
stage goes on from the shortest interval that was captured. A stimulus is captured if it changes any
activation beyond the ball of tissue that it excites itself. Re-entry is induced if tissue is still
being activated `observe` ms after the last stimulus and one node was activated at least
`activations` times after it (see `Protocol`).

Stimuli that many trains have in common are run once: a train goes on from where the site may have
recovered from the last one that is known. Regular beats are run until one repeats the one before.
No number changes by this.

The model behind it, `twinheart.tissue.eikonal_train`, knows block and restitution, and how recovery
goes over where regions meet (`coupled_tables`), but not the curvature of fronts: what is induced
here is a candidate to be confirmed by a monodomain simulation. Its block is as sharp as the mesh: a
wave that comes too early by less than it needs across an element may still get through, so that an
edge h [mm] blurs the longest refractory period that re-enters by some 2 h / c.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from twinheart.errors import InputError, SolverError
from twinheart.planning.induction.protocols import Earliest, Protocol, Stage
from twinheart.planning.pacing_sites import PacingSite
from twinheart.tissue import Eikonal, Sites, Train, eikonal_train
from twinheart.tissue.eikonal_trains import Moment, Trains
from twinheart.tissue.node_tables import WaveTables

# A run goes on so long after the observation [ms]: in it something must fire.
_TAIL = 20.0
# Waves end so long before the next regular stimulus where beats are run one by one [ms].
_QUIET = 50.0
_SAME = 1e-9  # ms by which nodes may recover otherwise in beats that repeat each other
_LIKE = 1e-6  # ms to which the same activations come again in a train that is run in other pieces
_PROBE = 100.0  # ms after a stimulus in which its wave leaves the site


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
    tables: WaveTables,
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
    tables : WaveTable, dict of int to WaveTable or NodeTables
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
    base, beats = pacing.regular()
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
    tables: WaveTables,
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


class _Run(NamedTuple):
    """A train of stimuli, its activations, and what goes on when the site may recover at last."""

    stimuli: tuple[float, ...]
    train: Train
    middle: Moment


def _go_through(pacing: "_Pacing", stage: Stage | Earliest, base: _Run) -> tuple[StageResult, _Run]:
    """Shorten the interval until block or re-entry; the last train that was captured."""
    pacing.keep(base)
    if isinstance(stage, Earliest):
        return _earliest(pacing, stage, base)
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


def _earliest(pacing: "_Pacing", stage: Earliest, base: _Run) -> tuple[StageResult, _Run]:
    """Find the earliest stimulus from which a wave leaves the site, and give it."""
    last = base.stimuli[-1]
    low = max(stage.least, pacing.recovered(base) - last - stage.window / 2)
    high = low + stage.window
    while not pacing.probe(base, last + high):
        low, high = high, high + stage.window / 2
        if high > pacing.protocol.observe:
            return StageResult(None, low), base
    while high - low > stage.resolution:
        middle = (low + high) / 2
        low, high = (low, middle) if pacing.probe(base, last + middle) else (middle, high)
    return StageResult(high, low), pacing.run((*base.stimuli, last + high))


class _Pacing:
    """Trains of stimuli at one site, and what is known of them."""

    def __init__(self, problem: Eikonal, tables, site: PacingSite, protocol: Protocol, radius):
        self.problem, self.site = problem, site
        self.protocol, self.radius = protocol, radius
        self.trains = Trains(problem, tables)
        self.runs, self.lasted = 0, 0.0
        self.latest = Reentry(False, 0.0, np.nan, np.nan)
        self.ball, self.beyond = self._ball()
        rows = self.trains.tables[self.trains.table_of[self.ball], 0]
        self.quickest = float((rows[:, 0] + rows[:, 2]).min())  # recovery of tissue at the site
        self.skipped = 0  # stimuli of S1 that are not run, and when nodes have repolarised by then
        self.ready = np.full(problem.n_nodes, -np.inf)
        self.moments: dict[tuple[float, ...], Moment] = {}

    def _ball(self) -> tuple[Int[np.ndarray, "_"], Bool[np.ndarray, "node"]]:
        """Nodes that a stimulus excites, and whether each node is other tissue that conducts."""
        elements = self.problem.elements
        position = np.array(self.site.position)
        cell, _ = elements.locate(position[None])
        ball = np.asarray(elements.ball(position, int(cell[0]), self.radius))
        beyond = np.zeros(self.problem.n_nodes, dtype=bool)
        beyond[np.unique(elements.cells)] = True
        beyond[ball] = False
        if not beyond.any():
            raise InputError(
                f"a stimulus of radius {self.radius:g} mm at {self.site.name} excites all tissue: "
                "make it smaller."
            )
        return ball, beyond

    def regular(self) -> tuple[_Run, int]:
        """S1, and the activations by it of the node that has most.

        Once a beat repeats the one before, so do all that follow, and only the last of them is run.
        """
        stimuli = self.protocol.s1
        count = np.zeros(self.problem.n_nodes, dtype=int)
        ready, before = self.ready, None
        for k, at in enumerate(stimuli[:-1]):
            end = _end(at, self.protocol)
            found = self.trains.until(end, self._pulses([at]), repolarised=ready)
            if found.event[:, 0].max(initial=-np.inf) + _QUIET >= at + self.protocol.cycle:
                whole = self.run(stimuli)  # its waves meet the next one's
                return whole, int(whole.train.count[self.beyond].max(initial=0))
            fired = np.bincount(found.node, minlength=len(count))
            ready, after = found.ready, found.ready - at
            count += fired
            if before is not None and np.allclose(after, before, rtol=0, atol=_SAME):
                count += (len(stimuli) - 2 - k) * fired
                ready = after + stimuli[-2]
                break
            before = after
        self.ready, self.skipped = ready, len(stimuli) - 1
        last = self.run(stimuli)
        return last, int((count + last.train.count)[self.beyond].max(initial=0))

    def keep(self, run: _Run):
        """Let trains that begin with the same stimuli go on from this one."""
        self.moments[run.stimuli] = run.middle

    def run(self, stimuli: tuple[float, ...]) -> _Run:
        """Activations by stimuli until the end of the observation, from what is kept on."""
        last = stimuli[-1]
        count, start = self._start(stimuli)
        middle = self.trains.until(
            last + self.quickest, self._pulses(stimuli[count:]), since=start, repolarised=self.ready
        )
        whole = self.trains.until(_end(last, self.protocol), since=middle)
        train = whole.train()
        if train.result != "successful":
            raise SolverError(
                f"{self.site.name}: more activations than a run may have, within "
                f"{self.protocol.observe:g} ms after the last stimulus: observe for a shorter time."
            )
        self.latest = reentry(train, last, self.protocol)
        self.runs += 1
        self.lasted = max(self.lasted, self.latest.lasted)
        return _Run(stimuli, train, middle)

    def probe(self, base: _Run, at: float) -> bool:
        """Whether a stimulus after those of a run is captured."""
        stimuli = (*base.stimuli, at)
        count, start = self._start(stimuli)
        found = self.trains.until(
            at + _PROBE, self._pulses(stimuli[count:]), since=start, repolarised=self.ready
        )
        return self.captured(found.train(), base, at, at + _PROBE)

    def captured(self, train: Train, base: _Run, since: float, until: float = np.inf) -> bool:
        """Whether a train differs beyond the ball from the one without its latest stimuli."""
        until = min(until, _end(base.stimuli[-1], self.protocol))  # where that one was ended
        own, other = (
            np.sort(lat[(lat >= since) & (lat <= until) & self.beyond[:, None]])
            for lat in (train.lat, base.train.lat)
        )
        return len(own) != len(other) or not np.allclose(own, other, rtol=0, atol=_LIKE)

    def recovered(self, run: _Run) -> float:
        """When the tissue at the site has repolarised after the last stimulus of a run [ms]."""
        return float(np.median(run.middle.ready[self.ball]))

    def _start(self, stimuli: tuple[float, ...]) -> tuple[int, Moment | None]:
        """Number of the first stimuli that need not be run, and what goes on after them."""
        for count in range(len(stimuli) - 1, self.skipped, -1):
            known = self.moments.get(stimuli[:count])
            if known is not None and known.t < stimuli[count]:
                return count, known
        return self.skipped, None

    def _pulses(self, times: Sequence[float]) -> list[Sites]:
        return [Sites([self.site.position], at, self.radius) for at in times]

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
