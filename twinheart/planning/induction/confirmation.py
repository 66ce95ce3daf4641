r"""Programmed stimulation by the monodomain equation, and what it takes to confirm re-entry.

`induce_monodomain` paces one site by a `Protocol`. Where the re-excitable eikonal equation goes
through the intervals of a stage from the longest down, this looks for the shortest interval that is
captured by bracketing and tries longer ones from there, where block and re-entry are, until a wave
passes through all tissue as undisturbed as it would at rest: longer intervals block nowhere. The
next stage goes on from the shortest interval that was captured, as there.

A stimulus is captured if any node farther than `REACH` from the tissue that it excites itself is
activated another number of times than without it. Re-entry is judged by the criterion of the
protocol (`twinheart.planning.reentry`).

`confirm` runs one train of stimuli again: at the same step, at half of it, and with voltages that
are disturbed before every stimulus. Re-entry is confirmed if all three are sustained.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from twinheart.ecg import Ecg, twelve_lead
from twinheart.errors import InputError
from twinheart.imaging.enhancement import CORE
from twinheart.planning.induction.monodomain_trains import (
    Moment,
    PacedTissue,
    Stimulator,
    Stretch,
    train_of,
)
from twinheart.planning.induction.morphology import Morphology, classify
from twinheart.planning.induction.one_site import Reentry, SiteResult, StageResult, reentry
from twinheart.planning.induction.protocols import Protocol, Stage
from twinheart.planning.pacing_sites import PacingSite
from twinheart.planning.reentry_maps.circuit import ReentryCircuit, activation_circuit
from twinheart.tissue import Train
from twinheart.tissue.run import VmFile

REACH = 3.0  # mm around the tissue that a stimulus excites itself: electrotonic spread
_TAIL = 20.0  # ms that a run goes on after the observation: in it something must fire
NOISE = 1.0  # mV
_SETTLED = 0.25  # of the observation, after which cycles are compared with each other


def induce_monodomain(
    tissue: PacedTissue,
    site: PacingSite,
    protocol: Protocol,
    *,
    radius: float = 2.0,
    holds: Callable[[tuple[float, ...]], bool] | None = None,
    progress: Callable[[str], None] | None = None,
) -> SiteResult:
    """Pace one site by a protocol, by the monodomain equation.

    Parameters
    ----------
    tissue : PacedTissue
        From `prepare_pacing`.
    site : PacingSite
        Where.
    protocol : Protocol
        Stimuli and criterion. Times are rounded to the blocks of the time loop (0.5 ms).
    radius : float
        Of the ball that a stimulus excites [mm].
    holds : callable, optional
        Asked of the stimuli of each train that induces, as by `confirm`: one of which it says no
        does not count, and the protocol goes on.
    progress : callable, optional
        Given a line for each train that was run.

    Returns
    -------
    SiteResult
        As from `twinheart.planning.induce`.

    Raises
    ------
    InputError
        If the ball holds no tissue that conducts, or all of it, or the protocol has stages without
        intervals.
    SolverError
        If the solution breaks down.

    Examples
    --------
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.cell import get_model
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning import PacingSite, Protocol, Stage, induce_monodomain
    >>> from twinheart.planning import prepare_pacing
    >>> from twinheart.tissue import Velocities
    >>> cell = get_model("mitchell-schaeffer", tau_close=60.0)
    >>> heart = Heart(slab((12.0, 0.5, 0.5), 0.5))
    >>> tissue = prepare_pacing(heart, cell, Velocities(0.5, 0.5), cycle=400.0, dt=0.1)
    >>> site = PacingSite("end", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    >>> protocol = Protocol("S1 S2", 2, 400.0, (Stage(200.0, 20.0, 60.0),))
    >>> induce_monodomain(tissue, site, protocol).outcome  # a strand is no circuit
    'not induced'
    """
    start = perf_counter()
    pacing = _Pacing(tissue, site, protocol, radius, holds, progress)
    base = pacing.regular()
    beats = int(pacing.counts(base.node)[pacing.beyond].max(initial=0))
    if not beats:
        return pacing.result("no capture", 0, [], (), start, base.verdict)
    found = []
    for stage in protocol.stages:
        if base.verdict.sustained:
            break
        if not isinstance(stage, Stage):
            raise InputError(
                f"{protocol.name} seeks the earliest stimulus that is conducted, which monodomain "
                "pacing does not: induce with the eikonal, and confirm the train that it finds."
            )
        outcome, base = _go_through(pacing, stage, base)
        found.append(outcome)
        if outcome.captured is None:
            break
    outcome = "induced" if base.verdict.sustained else "not induced"
    stimuli = base.stimuli if base.verdict.sustained else ()
    return pacing.result(outcome, beats, found, stimuli, start, base.verdict)


class _Run(NamedTuple):
    """A train of stimuli, its activations, and the moment right before its last stimulus."""

    stimuli: tuple[float, ...]
    node: Int[np.ndarray, "event"]
    time: Float[np.ndarray, "event"]
    last: Moment
    verdict: Reentry
    captured: bool
    everywhere: bool


def _go_through(pacing: "_Pacing", stage: Stage, base: _Run) -> tuple[StageResult, _Run]:
    """Bracket the shortest interval that is captured, then try longer ones; the train to go on."""
    intervals = sorted({pacing.rounded(x) for x in stage.intervals})
    ahead = pacing.look_ahead(base, intervals)
    tried: dict[int, _Run] = {}

    def attempt(k: int) -> _Run:
        if k not in tried:
            tried[k] = pacing.extended(base, ahead, intervals[k], stage.count)
        return tried[k]

    low, high = -1, len(intervals) - 1
    if attempt(high).verdict.sustained:
        return StageResult(intervals[high], None), attempt(high)
    if not attempt(high).captured:
        return StageResult(None, intervals[high]), base
    while high - low > 1:
        middle = (low + high) // 2
        run = attempt(middle)
        if run.verdict.sustained:
            return StageResult(intervals[middle], None), run
        low, high = (low, middle) if run.captured else (middle, high)
    for k in range(high, len(intervals)):
        run = attempt(k)
        if run.verdict.sustained:
            return StageResult(intervals[k], None), run
        if run.everywhere:
            break
    blocked = intervals[low] if low >= 0 else None
    return StageResult(intervals[high], blocked), attempt(high)


class _Pacing:
    """Trains of stimuli at one site."""

    def __init__(
        self, tissue: PacedTissue, site, protocol: Protocol, radius: float, holds, progress
    ):
        self.tissue, self.site, self.protocol = tissue, site, protocol
        self.stimulator = Stimulator(tissue, site, radius)
        self.beyond = tissue.conducts & (self.stimulator.away > radius + REACH)
        if not self.beyond.any():
            raise InputError(
                f"no tissue lies farther than {radius + REACH:g} mm from {site.name}: a stimulus "
                "there cannot be seen to be captured; make its radius smaller."
            )
        self.holds, self.say = holds or (lambda _: True), progress or (lambda _: None)
        self.runs, self.lasted = 0, 0.0

    def rounded(self, time: float) -> float:
        """A time of the blocks of the time loop [ms]."""
        return self.tissue.block * round(time / self.tissue.block)

    def counts(self, node) -> Int[np.ndarray, "node"]:
        """How often each node was activated."""
        return np.bincount(node, minlength=len(self.beyond))

    def regular(self) -> _Run:
        """S1; without stages to follow, its last beat is observed as well."""
        stimuli = tuple(self.rounded(t) for t in self.protocol.s1)
        moment, node, time = self.stimulator.start(), [], []
        for until in stimuli[1:]:
            stretch = self.stimulator.run(moment, until)
            moment = stretch.end
            node.append(stretch.node)
            time.append(stretch.time)
        node.append(np.zeros(0, dtype=int))
        time.append(np.zeros(0))
        seen = self.stimulator.run(moment, self.end(stimuli[-1]), to_rest=True)
        before = np.concatenate(node), np.concatenate(time)
        return self.run_of(stimuli, before, seen, moment, None, 1)

    def end(self, last: float) -> float:
        """Until when a train is run [ms]."""
        return self.rounded(last + self.protocol.observe + _TAIL)

    def look_ahead(self, base: _Run, intervals) -> Stretch:
        """The train gone on with, without a stimulus, and the moments at which one may come."""
        last = base.stimuli[-1]
        return self.stimulator.run(
            base.last, last + intervals[-1], keep=[last + x for x in intervals]
        )

    def extended(self, base: _Run, ahead: Stretch, interval: float, count: int) -> _Run:
        """The train with more stimuli, the first from a moment that was kept."""
        last = base.stimuli[-1]
        moment = ahead.kept[last + interval]
        stimuli = base.stimuli + tuple(last + interval * (k + 1) for k in range(count))
        old, between = base.time < last, ahead.time < moment.time
        node, time = [base.node[old], ahead.node[between]], [base.time[old], ahead.time[between]]
        for until in stimuli[len(base.stimuli) + 1 :]:
            stretch = self.stimulator.run(moment, until)
            moment = stretch.end
            node.append(stretch.node)
            time.append(stretch.time)
        seen = self.stimulator.run(moment, self.end(stimuli[-1]), to_rest=True)
        before = np.concatenate(node), np.concatenate(time)
        return self.run_of(stimuli, before, seen, moment, base, count)

    def run_of(self, stimuli, before, seen: Stretch, last: Moment, base, count) -> _Run:
        """Judge a train."""
        node, time = np.append(before[0], seen.node), np.append(before[1], seen.time)
        verdict = reentry(train_of(node, time, len(self.beyond)), stimuli[-1], self.protocol)
        self.runs += 1
        self.lasted = max(self.lasted, verdict.lasted)
        if verdict.sustained and not self.holds(stimuli):
            verdict = verdict._replace(sustained=False)
        since = stimuli[-count]
        own = self.counts(node[time >= since])[self.beyond]
        captured = bool(own.any())
        if base is not None:
            until = self.end(base.stimuli[-1])  # where that one was ended
            without = self.counts(base.node[(base.time >= since) & (base.time <= until)])
            within = self.counts(node[(time >= since) & (time <= until)])
            captured = not np.array_equal(within[self.beyond], without[self.beyond])
        self.say(
            f"{self.site.name}: {', '.join(f'{x:g}' for x in np.diff(stimuli))} ms, "
            f"{'captured' if captured else 'not captured'}, lasted {verdict.lasted:.0f} ms"
            f"{', sustained' if verdict.sustained else ''}"
        )
        everywhere = bool((own == count).all())
        return _Run(stimuli, node, time, last, verdict, captured, everywhere)

    def result(
        self, outcome: str, beats: int, stages, stimuli, start: float, verdict: Reentry
    ) -> SiteResult:
        known = outcome == "induced" and np.isfinite(verdict.cycle_length)
        return SiteResult(
            self.site,
            outcome,
            beats,
            tuple(stages),
            tuple(float(t) for t in stimuli),
            verdict.cycle_length if known else None,
            verdict.spread if known else None,
            self.lasted,
            self.runs,
            perf_counter() - start,
        )


@dataclass(frozen=True, eq=False)
class Confirmation:
    """What became of one train of stimuli in monodomain tissue.

    Parameters
    ----------
    site : PacingSite
        The site.
    stimuli : tuple of float
        When they were given [ms].
    found, half_step, disturbed : Reentry or None
        Verdict of the run, at half the time step, and with disturbed voltages; the latter two are
        None where the first is not sustained.
    train : Train
        All activations of the first run.
    morphology : Morphology or None
        Mono- or polymorphic; None where nothing is sustained.
    circuit : ReentryCircuit or None
        The circuit of the last cycle; None where there is none or it could not be followed.
    ecg : Ecg or None
        From the last stimulus on; None without electrodes.
    seed : int
        Of the disturbance.
    """

    site: PacingSite
    stimuli: tuple[float, ...]
    found: Reentry
    half_step: Reentry | None
    disturbed: Reentry | None
    train: Train
    morphology: Morphology | None
    circuit: ReentryCircuit | None
    ecg: Ecg | None
    seed: int

    @property
    def confirmed(self) -> bool:
        """Whether re-entry is sustained in all three runs."""
        every = (self.found, self.half_step, self.disturbed)
        return all(verdict is not None and verdict.sustained for verdict in every)


def confirm(
    tissue: PacedTissue,
    site: PacingSite,
    stimuli: tuple[float, ...],
    protocol: Protocol,
    *,
    radius: float = 2.0,
    noise: float = NOISE,
    seed: int = 0,
    snapshots: str | Path | None = None,
) -> Confirmation:
    """Run a train of stimuli and see whether what it induces holds.

    Parameters
    ----------
    tissue : PacedTissue
        From `prepare_pacing`.
    site : PacingSite
        Where.
    stimuli : tuple of float
        When [ms], the first at 0: those of a `SiteResult`.
    protocol : Protocol
        The criterion.
    radius : float
        Of the ball that a stimulus excites [mm].
    noise : float
        Standard deviation of what is added to the voltage of every node before every stimulus [mV].
    seed : int
        Of that noise.
    snapshots : path, optional
        HDF5 file for the voltages of the observation, every 5 ms, for phase maps and films
        (`twinheart.report.animation`).

    Returns
    -------
    Confirmation
        Verdicts, and what there is to know of the re-entry.

    Raises
    ------
    InputError
        If the stimuli do not ascend from 0.
    SolverError, OutputError
        If the solution breaks down, or the file cannot be written.

    Examples
    --------
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.cell import get_model
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning import PacingSite, Protocol, confirm, prepare_pacing
    >>> from twinheart.tissue import Velocities
    >>> cell = get_model("mitchell-schaeffer", tau_close=60.0)
    >>> heart = Heart(slab((12.0, 0.5, 0.5), 0.5))
    >>> tissue = prepare_pacing(heart, cell, Velocities(0.5, 0.5), cycle=400.0, dt=0.1)
    >>> site = PacingSite("end", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    >>> found = confirm(tissue, site, (0.0, 400.0, 550.0), Protocol("p", 2, 400.0, ()))
    >>> found.confirmed, found.train.count.max().item()
    (False, 3)
    """
    if not stimuli or stimuli[0] != 0 or not (np.diff(stimuli) > 0).all():
        raise InputError(
            f"stimuli at {[float(t) for t in stimuli]} ms: expected ascending times, the first 0."
        )
    found, train, seen = _whole(tissue, site, stimuli, protocol, radius, snapshots=snapshots)
    half_step = disturbed = morphology = circuit = ecg = None
    last = stimuli[-1]
    if found.sustained:
        half_step, _, _ = _whole(tissue.with_step(tissue.dt / 2), site, stimuli, protocol, radius)
        rng = np.random.default_rng(seed)
        disturbed, _, _ = _whole(
            tissue, site, stimuli, protocol, radius,
            lambda: rng.normal(0.0, noise, tissue.heart.mesh.n_nodes),
        )  # fmt: skip
        morphology = classify(train, last + _SETTLED * protocol.observe)
        circuit = circuit_of(tissue, train)
    if tissue.electrodes is not None:
        ecg = twelve_lead(seen.t - last, seen.potentials, tissue.electrodes.names)
    return Confirmation(
        site, stimuli, found, half_step, disturbed, train, morphology, circuit, ecg, seed
    )


def circuit_of(tissue: PacedTissue, train: Train) -> ReentryCircuit | None:
    """The circuit of the last activation of a train in this tissue, see `activation_circuit`."""
    mesh = tissue.heart.mesh
    conducts = np.asarray(tissue.conducts[mesh.tets].all(axis=1))
    scar = mesh.cell_fields.get("scar")
    if scar is not None:
        conducts = conducts & (np.asarray(scar) != CORE)
    return activation_circuit(mesh, train, conducts=conducts)


def _whole(
    tissue: PacedTissue, site, stimuli, protocol: Protocol, radius, noise=None, snapshots=None
) -> tuple[Reentry, Train, Stretch]:
    """A whole train from its first stimulus on; what is seen after the last."""
    stimulator = Stimulator(tissue, site, radius)
    moment, node, time = stimulator.start(), [], []
    for until in stimuli[1:]:
        stretch = stimulator.run(moment, until, noise=noise and noise())
        moment = stretch.end
        node.append(stretch.node)
        time.append(stretch.time)
    end = stimuli[-1] + protocol.observe + _TAIL
    file = None if snapshots is None else VmFile(snapshots, tissue.heart.mesh.n_nodes)
    frame = None if file is None else file.append
    try:
        seen = stimulator.run(moment, end, to_rest=True, noise=noise and noise(), frame=frame)
    except BaseException:
        if file is not None:
            file.discard()
        raise
    if file is not None:
        file.finish()
    train = train_of(
        np.concatenate([*node, seen.node]), np.concatenate([*time, seen.time]), len(tissue.conducts)
    )
    return reentry(train, stimuli[-1], protocol), train, seen
