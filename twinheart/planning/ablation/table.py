"""Strategies side by side: what each burns, leaves, makes, cuts off and delays."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float

from twinheart.anatomy.root_sites import root_sites
from twinheart.errors import MeshError
from twinheart.planning.ablation.lesions import Lesion
from twinheart.planning.ablation.operation import Operation, Outcome
from twinheart.planning.ablation.plan import AblationPlan, Step, plan_ablation
from twinheart.planning.ablation.stimulation import Test
from twinheart.planning.ablation.strategies import STRATEGIES, Proposal, propose
from twinheart.planning.substrate import Substrate
from twinheart.tissue import arrival

PLAN = "plan"


@dataclass(frozen=True)
class Row:
    """One strategy of the table.

    Parameters
    ----------
    strategy : str
        Its name; ``"plan"`` is the search, ``"none"`` the heart as it is.
    lesions : int
        Applications.
    volume_ml : float
        Tissue that conducted before and is burnt.
    burnt_ml : float
        All that is burnt, dense scar included.
    vts_left, new_vts : int
        Circuits that screening finds afterwards, and those of them that were none before.
    lost_ml : float
        Living tissue that is cut off.
    activation_change_ms : float or None
        By how much a normal beat ends later in healthy tissue that it still reaches: what ablation
        adds to the QRS complex. None where surfaces are not tagged.
    transmurality : float or None
        Share of the wall that the shallowest lesion burns.
    warning : str or None
        Where a whole chamber is cut off.
    notes : tuple of str
        What the strategy could not do.
    """

    strategy: str
    lesions: int
    volume_ml: float
    burnt_ml: float
    vts_left: int
    new_vts: int
    lost_ml: float
    activation_change_ms: float | None
    transmurality: float | None
    warning: str | None
    notes: tuple[str, ...]

    def record(self) -> dict:
        """As a dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """The table, and what is behind it.

    Parameters
    ----------
    rows : tuple of Row
        First the heart as it is, last the search.
    outcomes : dict of str to Outcome
        By strategy.
    plan : AblationPlan or None
        The search, where it was asked for.
    """

    rows: tuple[Row, ...]
    outcomes: dict[str, Outcome]
    plan: AblationPlan | None

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each strategy that cuts off a whole chamber."""
        return tuple(f"{row.strategy}: {row.warning}" for row in self.rows if row.warning)


def compare_strategies(
    operation: Operation,
    strategies: Sequence[str] = (*STRATEGIES, PLAN),
    *,
    own: Mapping[str, Sequence[Lesion]] | None = None,
    induced: Test | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Compare strategies on one heart.

    Parameters
    ----------
    operation : Operation
        Substrate, sites and catheter.
    strategies : sequence of str
        Of `STRATEGIES`, and ``"plan"`` for the search, which then knows the other plans.
    own : mapping of str to sequence of Lesion, optional
        The user's lesions, by a name.
    induced : callable, optional
        Last test of the plan, see `plan_ablation`.
    say : callable
        Told what is being done.

    Returns
    -------
    Comparison
        Rows and outcomes.

    Raises
    ------
    InputError
        If a strategy is unknown, or a lesion of the user's lies outside the heart.

    Examples
    --------
    See `twinheart.planning.ablation.plan.plan_ablation` for an operation.
    """
    before = activation(operation.substrate)
    outcomes = {"none": operation.before}
    notes: dict[str, tuple[str, ...]] = {}
    given = [Proposal(name, tuple(lesions), ()) for name, lesions in (own or {}).items()]
    for name in strategies:
        if name != PLAN:
            say(f"{name}: placing lesions")
            given.append(propose(name, operation.reach, operation.before.circuits))
    for proposal in given:
        say(f"{proposal.strategy}: screening after {len(proposal.lesions)} lesions")
        outcomes[proposal.strategy] = operation.after(proposal.lesions)
        notes[proposal.strategy] = proposal.notes
    plan = None
    if PLAN in strategies:

        def told(step: Step) -> None:
            say(f"plan: {step.action}: {step.lesions} lesions, {step.circuits} circuits left")

        others = [outcomes[name] for name in outcomes if name != "none"]
        plan = plan_ablation(operation, others=others, induced=induced, say=told)
        outcomes[PLAN] = plan.outcome
        notes[PLAN] = (plan.stop,)
    rows = [
        _row(operation, name, outcome, before, notes.get(name, ()))
        for name, outcome in outcomes.items()
    ]
    return Comparison(tuple(rows), outcomes, plan)


def drug_row(operation: Operation, name: str, substrate: Substrate) -> Row:
    """A row for the heart under a drug.

    Parameters
    ----------
    operation : Operation
        The heart without it.
    name : str
        Of the row.
    substrate : Substrate
        Under the drug, see `twinheart.planning.ablation.drugs`.

    Returns
    -------
    Row
        In which nothing is burnt, and VTs are new whose isthmus was none before.
    """
    under = Operation(
        substrate, operation.sites, operation.reach.catheter, min_area=operation.min_area
    )
    times = [activation(one) for one in (operation.substrate, substrate)]
    before, after = times
    delay = None if before is None or after is None else _later(operation, before, after)
    new = sum(operation.is_new(circuit) for circuit in under.before.circuits)
    return Row(name, 0, 0.0, 0.0, len(under.before.circuits), int(new), 0.0, delay, None, None, ())


def activation(substrate: Substrate) -> Float[np.ndarray, "node"] | None:
    """Activation of a normal beat from its root sites [ms], None where surfaces are not tagged.

    Parameters
    ----------
    substrate : Substrate
        With tagged surfaces, see `twinheart.anatomy.root_sites`.

    Returns
    -------
    (node,) array or None
        Times at the nodes of the mesh, ``inf`` where no wave comes.
    """
    try:
        sites = root_sites(substrate.heart.mesh)
    except MeshError:
        return None
    onsets = np.full(substrate.problem.n_nodes, np.inf)
    for site in sites:
        onsets[site.nodes] = np.minimum(onsets[site.nodes], site.onset)
    conducts = np.zeros(len(onsets), dtype=bool)
    conducts[np.asarray(substrate.problem.cells[0])] = True
    onsets[~conducts] = np.inf  # a node of core or of a lesion, on which no tissue is left
    times = np.asarray(arrival(substrate.problem, at_nodes=onsets), dtype=float)
    return times[: substrate.heart.mesh.n_nodes]


def _later(operation: Operation, before, after) -> float:
    """By how much healthy tissue that is reached both times ends later [ms]."""
    mesh = operation.substrate.heart.mesh
    scar = mesh.cell_fields.get("scar", np.zeros(mesh.n_tets))
    healthy = np.zeros(mesh.n_nodes, dtype=bool)
    healthy[mesh.tets[operation.reach.living & (scar == 0)]] = True
    both = healthy & np.isfinite(before) & np.isfinite(after)
    return float(after[both].max() - before[both].max()) if both.any() else 0.0


def _row(operation: Operation, name: str, outcome: Outcome, before, notes) -> Row:
    delay = None
    if before is not None:
        delay = 0.0
        if outcome.lesions:
            after = activation(operation.substrate_after(outcome.ablation))
            assert after is not None
            delay = _later(operation, before, after)
    shares = outcome.ablation.transmurality
    shares = shares[np.isfinite(shares)]
    return Row(
        strategy=name,
        lesions=len(outcome.lesions),
        volume_ml=outcome.volume_ml,
        burnt_ml=outcome.ablation.volume_ml,
        vts_left=len(outcome.circuits),
        new_vts=int(sum(outcome.new)),
        lost_ml=outcome.isolation.lost_ml,
        activation_change_ms=delay,
        transmurality=float(shares.min()) if shares.size else None,
        warning=outcome.isolation.warning,
        notes=tuple(notes),
    )
