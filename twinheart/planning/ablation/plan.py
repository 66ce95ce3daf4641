r"""What lesions do to the circuits of a scar, and the search for few lesions that leave none.

After lesions the heart is paced from all sites anew and screened (`screen_circuits`). Lesions are
walls, as core is: healthy tissue beside them counts as border zone, so that a strand between a
lesion and scar, or between two lesions with a gap, is looked at as an isthmus like any other.

The search closes the isthmus of every circuit that is left, screens again, and goes on until no
circuit is left; what a lesion uncovers or makes is found this way. Then it leaves out, the largest
first, all closings without which none comes back. Where another plan leaves no circuit either and
burns less living tissue, that is taken. The result may be tested by programmed stimulation. It is
a search that is greedy: a smaller set may exist.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from scipy.spatial import KDTree

from twinheart.imaging.enhancement import BORDER
from twinheart.mesh import TetMesh
from twinheart.planning.ablation.closing import Closing, close_isthmus
from twinheart.planning.ablation.isolation import Isolation, isolation
from twinheart.planning.ablation.lesions import Ablation, Lesion, ablate_tissue
from twinheart.planning.ablation.reach import Catheter, Reach
from twinheart.planning.circuits.search import Circuit, screen_circuits
from twinheart.planning.pacing_sites import PacingSite, place_sites
from twinheart.planning.substrate import Substrate, substrate_with
from twinheart.tissue import NonConducting

_BESIDE = 3.0  # mm from a lesion within which healthy tissue is looked at as border zone
_KNOWN = 0.5  # share of an isthmus that was one before: the circuit is not new
_ROUNDS = 10

NOTHING_TO_DO = "no circuit was found before ablation"
NONE_LEFT = "no circuit is left"
NOT_CLOSABLE = "no lesion of this catheter closes what is left"
TOO_MANY_ROUNDS = f"circuits are left after {_ROUNDS} rounds"
STILL_INDUCED = "screening finds no circuit, but re-entry is still induced"


class Outcome(NamedTuple):
    """What lesions do.

    Attributes
    ----------
    lesions : tuple of Lesion
        The lesions.
    ablation : Ablation
        What they burn.
    volume_ml : float
        Of tissue that conducted before and is burnt.
    circuits : tuple of Circuit
        That are left.
    new : tuple of bool
        For each of these whether its isthmus was none of a circuit before ablation.
    isolation : Isolation
        What is cut off.
    """

    lesions: tuple[Lesion, ...]
    ablation: Ablation
    volume_ml: float
    circuits: tuple[Circuit, ...]
    new: tuple[bool, ...]
    isolation: Isolation


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
        Left afterwards.
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


class Operation:
    """A substrate, the sites from which it is paced, and the catheter.

    Parameters
    ----------
    substrate : Substrate
        Before ablation.
    sites : sequence of PacingSite
        Where it is paced, before and after.
    catheter : Catheter
        How lesions are made.

    Attributes
    ----------
    reach : Reach
        What the catheter can burn.
    before : Outcome
        Without lesions.

    Examples
    --------
    See `plan_ablation`.
    """

    def __init__(
        self,
        substrate: Substrate,
        sites: Sequence[PacingSite],
        catheter: Catheter | None = None,
    ):
        self.substrate, self.sites = substrate, tuple(sites)
        heart = substrate.heart
        dead = [
            t for t, tissue in substrate.conduction.items() if isinstance(tissue, NonConducting)
        ]
        living = ~np.isin(heart.regions, dead)
        self.reach = Reach(heart.mesh, living, Catheter() if catheter is None else catheter)
        self.before = self.after(())

    def after(self, lesions: Sequence[Lesion]) -> Outcome:
        """Screen the heart with lesions.

        Parameters
        ----------
        lesions : sequence of Lesion
            All lesions of a plan.

        Returns
        -------
        Outcome
            What is left, new and lost.

        Raises
        ------
        InputError
            If a lesion lies outside the heart or is too small for the mesh.
        """
        mesh, reach = self.substrate.heart.mesh, self.reach
        ablation = ablate_tissue(mesh, lesions)
        burnt = ablation.number > 0
        circuits = self._circuits(ablation, burnt)
        return Outcome(
            tuple(lesions),
            ablation,
            float(reach.volume[burnt & reach.living].sum()) / 1000.0,
            circuits,
            tuple(self.is_new(circuit) for circuit in circuits) if len(lesions) else (),
            isolation(mesh, ablation),
        )

    def substrate_after(self, lesions: Ablation | Sequence[Lesion]) -> Substrate:
        """The substrate with lesions."""
        return substrate_with(self.substrate, lesions)

    def sites_after(self, substrate: Substrate) -> tuple[PacingSite, ...]:
        """The sites, those on what is burnt moved to the nearest tissue that conducts."""
        return place_sites(
            substrate.problem,
            [site.position for site in self.sites],
            [site.name for site in self.sites],
            furthest=np.inf,
        )

    def _circuits(self, ablation: Ablation, burnt: Bool[np.ndarray, "tet"]) -> tuple[Circuit, ...]:
        mesh, living = self.substrate.heart.mesh, self.reach.living & ~(ablation.number > 0)
        scar = mesh.cell_fields.get("scar", np.zeros(mesh.n_tets, dtype=np.int32))
        if burnt.any():
            near = KDTree(self.reach.centres[burnt]).query(self.reach.centres)[0] <= _BESIDE
            scar = np.where(near & living & (scar == 0), BORDER, scar).astype(np.int32)
        if not (scar[living] == BORDER).any():
            return ()
        substrate = self.substrate_after(ablation) if burnt.any() else self.substrate
        marked = TetMesh(mesh.points, mesh.tets, mesh.point_fields, {"scar": scar})
        return tuple(
            screen_circuits(
                substrate.problem, marked, self.sites_after(substrate), substrate.refractory
            )
        )

    def is_new(self, circuit: Circuit) -> bool:
        """Whether the isthmus of a circuit was none of a circuit before ablation."""
        own = circuit.isthmus_tets
        return all(
            np.isin(own, other.isthmus_tets).mean() < _KNOWN for other in self.before.circuits
        )


def plan_ablation(
    operation: Operation,
    *,
    others: Sequence[Outcome] = (),
    induced: Callable[[Substrate, tuple[PacingSite, ...]], Sequence[str]] | None = None,
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
        Given the substrate after ablation and the sites, names of those from which re-entry is
        still induced: the last test. Plans are tested by their volume until one passes.
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
    >>> from twinheart.planning.ablation.plan import Catheter, Operation, plan_ablation
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
    if operation.before.circuits:
        closings, best, stop = _grow(operation, log)
        if len(closings) > 1 and not best.circuits:
            best = _without_needless(operation, best, log)
    else:
        best, stop = operation.before, NOTHING_TO_DO
    free = sorted(
        (other for other in (best, *others) if not other.circuits),
        key=lambda outcome: outcome.volume_ml,
    )
    if free and free[0] is not best:
        best, stop = free[0], NONE_LEFT
        log("took another plan that leaves no circuit and burns less", best)
    left: tuple[str, ...] = ()
    if induced is not None:
        for outcome in free or [best]:
            after = operation.substrate_after(outcome.ablation)
            left = tuple(induced(after, operation.sites_after(after)))
            log(f"programmed stimulation: re-entry from {len(left)} sites", outcome)
            if not left:
                best = outcome
                break
        else:
            stop = stop if best.circuits else STILL_INDUCED
    return AblationPlan(best, stop, tuple(steps), left)


def _grow(operation: Operation, log) -> tuple[list[Closing], Outcome, str]:
    """Close isthmuses until no circuit is left."""
    closings: list[Closing] = []
    outcome = operation.before
    burnt = np.zeros(len(operation.reach.volume), dtype=bool)
    for number in range(1, _ROUNDS + 1):
        added = []
        for circuit in outcome.circuits:
            found = close_isthmus(operation.reach, circuit, burnt)
            if found is not None and (found.burnt & ~burnt).any():
                added.append(found)
                burnt |= found.burnt
        if not added:
            return closings, outcome, NOT_CLOSABLE
        closings += added
        outcome = operation.after(_lesions(closings))
        log(f"round {number}: closed {len(added)} isthmuses", outcome)
        if not outcome.circuits:
            return closings, outcome, NONE_LEFT
    return closings, outcome, TOO_MANY_ROUNDS


def _without_needless(operation: Operation, outcome: Outcome, log) -> Outcome:
    """Leave out lesions without which no circuit comes back, the largest first."""
    best = outcome
    for k in np.argsort(-outcome.ablation.lesion_ml, kind="stable"):
        lesion = outcome.lesions[k]
        fewer = operation.after([other for other in best.lesions if other is not lesion])
        log("tried without one lesion", fewer)
        if not fewer.circuits:
            best = fewer
    return best


def _lesions(closings: Sequence[Closing]) -> tuple[Lesion, ...]:
    return tuple(lesion for closing in closings for lesion in closing.lesions)
