r"""The search for few lesions that leave no circuit, and nothing that can be induced.

The search closes the isthmus of every circuit that screening finds, screens again, and goes on
until no circuit is left; what a lesion uncovers or makes is found this way. Then it leaves out, the
largest first, all lesions without which none comes back.

Where programmed stimulation is the last test, what it still induces is closed too
(`twinheart.planning.ablation.closing_ways`), and everything screened and paced anew. Once nothing
is induced, lesions are left out again, the largest first: screening, which is quick, is asked
first, then stimulation from the sites from which re-entry had been induced, then from the others;
after so many tests by stimulation the search ends.

Other plans are known: of all that pass every test the one that burns least is taken, so that a
plan is never larger than one that does as well. It is a search that is greedy: a smaller set may
exist.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from twinheart.planning.ablation.closing import Closing, close_isthmus
from twinheart.planning.ablation.closing_ways import close_way, is_closed
from twinheart.planning.ablation.lesions import Lesion
from twinheart.planning.ablation.operation import Operation, Outcome
from twinheart.planning.ablation.stimulation import Pacing, Test
from twinheart.planning.circuits.search import Circuit
from twinheart.planning.induction.tachycardias import Tachycardia

_ROUNDS = 10
_PACED_ROUNDS = 5  # of closing what is induced
_PACED_TRIALS = 6  # of leaving out a lesion

NOTHING_TO_DO = "no circuit was found before ablation"
NONE_LEFT = "no circuit is left"
NOT_CLOSABLE = "no lesion of this catheter closes what is left"
TOO_MANY_ROUNDS = f"circuits are left after {_ROUNDS} rounds"
STILL_INDUCED = (
    f"screening finds no circuit, but re-entry is still induced after {_PACED_ROUNDS} rounds"
)
INDUCED_NOT_CLOSABLE = (
    "screening finds no circuit, but re-entry is still induced that no lesion of this catheter "
    "closes"
)

_Log = Callable[[str, Outcome], None]


class Step(NamedTuple):
    """One step of the search.

    Attributes
    ----------
    action : str
        What was done, in words.
    lesions : int
        Applications afterwards.
    volume_ml : float
        Living tissue burnt afterwards.
    circuits : int
        That screening finds afterwards.
    """

    action: str
    lesions: int
    volume_ml: float
    circuits: int


class AblationPlan(NamedTuple):
    """Result of the search.

    Attributes
    ----------
    outcome : Outcome
        Lesions and what they do.
    stop : str
        Why the search ended.
    steps : tuple of Step
        All that was tried.
    induced : tuple of str
        Sites from which re-entry is still induced, where that was tested.
    """

    outcome: Outcome
    stop: str
    steps: tuple[Step, ...]
    induced: tuple[str, ...]


def plan_ablation(
    operation: Operation,
    *,
    others: Sequence[Outcome] = (),
    induced: Test | None = None,
    say: Callable[[Step], None] = lambda step: None,
) -> AblationPlan:
    """Search for few lesions after which no circuit is left.

    Parameters
    ----------
    operation : Operation
        Substrate, sites, catheter.
    others : sequence of Outcome
        Other plans, such as those of the strategies: one that leaves no circuit either and burns
        less is taken.
    induced : callable, optional
        Given a substrate after ablation and sites, tachycardias that are induced from them: the
        last test, such as `twinheart.planning.ablation.stimulation.stimulation_test` makes it.
        Plans are tested by their volume until one passes; what is still induced with that of the
        search is closed for a bounded number of rounds. Where none passes, that with the fewest
        sites from which re-entry is induced is returned.
    say : callable
        Called after every step.

    Returns
    -------
    AblationPlan
        Lesions, what they do, and how they were found.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.anatomy.scar import with_scar
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning import place_sites
    >>> from twinheart.planning.ablation.operation import Operation
    >>> from twinheart.planning.ablation.plan import plan_ablation
    >>> from twinheart.planning.ablation.reach import Catheter
    >>> from twinheart.planning.substrate import build_substrate
    >>> from twinheart.tissue import Velocities, WaveTable
    >>> mesh = slab((32.0, 28.0, 2.0), 1.0)
    >>> x, y, _ = np.abs(mesh.points[mesh.tets].mean(axis=1) - [16.0, 14.0, 1.0]).T
    >>> scar = np.where((x < 10) & (y < 8), np.where(x < 2, 1, 2), 0).astype(np.int32)
    >>> table = WaveTable([20.0], [1.0], [80.0])
    >>> substrate = build_substrate(
    ...     Heart(with_scar(mesh, scar)), conduction=Velocities(0.5, 0.5), across=1.0,
    ...     border_speed=0.4, tables={0: table, 1000: table},
    ... )
    >>> sites = place_sites(substrate.problem, [[16.0, 2.0, 1.0]])
    >>> plan = plan_ablation(Operation(substrate, sites, Catheter(radius=3.0)))
    >>> len(plan.outcome.lesions), plan.stop
    (1, 'no circuit is left')
    """
    steps: list[Step] = []

    def log(action: str, outcome: Outcome) -> None:
        steps.append(Step(action, len(outcome.lesions), outcome.volume_ml, len(outcome.circuits)))
        say(steps[-1])

    log("screened before ablation", operation.before)
    own, stop = operation.before, NOTHING_TO_DO
    if own.circuits:
        own, stop = _grow(operation, own, log)
        if len(own.lesions) > 1 and not own.circuits:
            own = _without_needless(operation, own, log)
    if induced is not None:
        best, stop, left = _paced(operation, own, stop, others, Pacing(operation, induced, log))
        return AblationPlan(best, stop, tuple(steps), left)
    best = min(_free(own, *others), key=_volume, default=own)
    if best is not own:
        stop = NONE_LEFT
        log("took another plan that leaves no circuit and burns less", best)
    return AblationPlan(best, stop, tuple(steps), ())


def _free(*outcomes: Outcome) -> list[Outcome]:
    return [outcome for outcome in outcomes if not outcome.circuits]


def _volume(outcome: Outcome) -> float:
    return outcome.volume_ml


def _grow(operation: Operation, outcome: Outcome, log: _Log) -> tuple[Outcome, str]:
    """Close isthmuses until no circuit is left."""
    for number in range(1, _ROUNDS + 1):
        closings: list[Closing] = []
        burnt = outcome.ablation.number > 0
        for circuit in outcome.circuits:
            found = close_isthmus(operation.reach, circuit, burnt)
            if found is not None and (found.burnt & ~burnt).any():
                closings.append(found)
                burnt |= found.burnt
        if not closings:
            return outcome, NOT_CLOSABLE
        outcome = operation.after(outcome.lesions + _lesions(closings))
        log(f"round {number}: closed {len(closings)} isthmuses", outcome)
        if not outcome.circuits:
            return outcome, NONE_LEFT
    return outcome, TOO_MANY_ROUNDS


def _without_needless(
    operation: Operation, outcome: Outcome, log: _Log, pacing: "Pacing | None" = None
) -> Outcome:
    """Leave out lesions without which no circuit comes back, the largest first."""
    best, tests = outcome, 0
    for k in np.argsort(-outcome.ablation.lesion_ml, kind="stable"):
        lesion = outcome.lesions[k]
        fewer = operation.after([other for other in best.lesions if other is not lesion])
        log("tried without one lesion", fewer)
        if fewer.circuits:
            continue
        if pacing is not None:
            if tests == _PACED_TRIALS:
                break
            tests += 1
            if pacing.first(fewer):
                continue
        best = fewer
    return best


def _paced(
    operation: Operation, own: Outcome, stop: str, others: Sequence[Outcome], pacing: Pacing
) -> tuple[Outcome, str, tuple[str, ...]]:
    """Test plans by their volume until one passes; enlarge that of the search where it does not."""
    waiting = _free(own, *others) or [own]
    tested: list[tuple[Outcome, tuple[str, ...]]] = []
    rounds = 0
    while waiting:
        outcome = min(waiting, key=_volume)
        waiting = [other for other in waiting if other is not outcome]
        left = pacing.first(outcome)
        tested.append((outcome, pacing.names(left)))
        if not left:
            break
        if outcome is not own or own.circuits:
            continue
        if rounds == _PACED_ROUNDS:
            stop = STILL_INDUCED
            continue
        rounds += 1
        own, stop = _close_induced(operation, own, left, rounds, pacing.log)
        if own is not outcome and not own.circuits:
            waiting.append(own)
    best, names = min(tested, key=lambda one: (len(one[1]), one[0].volume_ml))
    if names or best.circuits:
        return best, stop, pacing.names(pacing.every(best))
    if best is own and rounds:
        best = _without_needless(operation, best, pacing.log, pacing)
    elif best is not own:
        pacing.log("took another plan that leaves nothing", best)
    return best, NONE_LEFT if best.lesions or operation.before.circuits else NOTHING_TO_DO, ()


def _close_induced(
    operation: Operation, outcome: Outcome, left: Sequence[Tachycardia], number: int, log: _Log
) -> tuple[Outcome, str]:
    """Close the ways of tachycardias, then what screening finds anew.

    Where none of their ways can be closed, of the circuits that screening counts as not lasting
    that one is which lacks least.
    """
    reach, burnt = operation.reach, outcome.ablation.number > 0
    known = outcome.circuits + outcome.unsustained
    closings: list[Closing] = []

    def add(found: Closing | None) -> None:
        nonlocal burnt
        if found is not None and (found.burnt & reach.living & ~burnt).any():
            closings.append(found)
            burnt = burnt | found.burnt

    for one in left:
        if one.circuit is not None and not is_closed(reach, one.circuit, burnt):
            add(close_way(reach, known, one.circuit, burnt))
    said = f"closed {len(closings)} of {len(left)} induced circuits"
    if not closings:
        for circuit in sorted(outcome.unsustained, key=_lacks):
            add(close_isthmus(reach, circuit, burnt))
            if closings:
                break
        said = "closed the circuit that is nearest to lasting"
    if not closings:
        return outcome, INDUCED_NOT_CLOSABLE
    grown = operation.after(outcome.lesions + _lesions(closings))
    log(f"round {number} of stimulation: {said}", grown)
    return _grow(operation, grown, log) if grown.circuits else (grown, NONE_LEFT)


def _lacks(circuit: Circuit) -> float:
    """Time that a circuit would have to take longer to last [ms]."""
    return circuit.refractory_ms - circuit.cycle_length_ms


def _lesions(closings: Sequence[Closing]) -> tuple[Lesion, ...]:
    return tuple(lesion for closing in closings for lesion in closing.lesions)
