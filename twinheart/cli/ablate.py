"""`twinheart ablate`: strategies of ablation and drugs side by side, and the search for a plan."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twinheart.cli import substrate as shared
from twinheart.cli.terminal import emit, say
from twinheart.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twinheart.planning.ablation.lesions import Lesion
    from twinheart.planning.ablation.operation import Operation, Outcome
    from twinheart.planning.ablation.plan import AblationPlan
    from twinheart.planning.ablation.table import Comparison

ALL, OWN = "all", "own"
METHOD = (
    "lesions are tissue that does not conduct; strategies: exit of each circuit, minimum cut of "
    "each isthmus, ring around the core, all border zone, entrances of corridors; plan: isthmuses "
    "closed and screened anew from all sites until no circuit is left (with --induce also what "
    "stimulation still induces, until nothing is), then what is not needed left out. VTs are "
    "circuits that screening finds (see 'twinheart screen'). Volumes are of tissue that conducted "
    "before. Activation change: end of a normal beat from root sites"
)


def ablate(
    heart: Annotated[str | None, shared.HEART] = None,
    twin: Annotated[Path | None, shared.TWIN] = None,
    case: Annotated[Path | None, shared.CASE] = None,
    strategy: Annotated[
        str,
        typer.Option(
            help="all, none, or some of exit, isthmus, core-isolation, homogenisation, "
            "dechannelling and plan (the search), separated by commas."
        ),
    ] = ALL,
    lesions: Annotated[
        Path | None,
        typer.Option(
            help="Your own lesions, and what must not be burnt: TOML with tables lesion and avoid, "
            "or CSV with columns x, y, z, radius, depth, lesion."
        ),
    ] = None,
    radius: Annotated[float, typer.Option(help="Of a lesion along the surface, in mm.")] = 3.5,
    depth: Annotated[
        float | None, typer.Option(help="Of a lesion into the wall, in mm; absent: transmural.")
    ] = None,
    access: Annotated[str, typer.Option(help="endocardial, epicardial or both.")] = "both",
    drugs: Annotated[
        str | None,
        typer.Option(
            help="Drugs for the same table, such as quinidine,sotalol; half a minute for each cell "
            "the first time."
        ),
    ] = None,
    induce: Annotated[
        str | None,
        typer.Option(help="Test the plan by programmed stimulation too: a preset of 'induce'."),
    ] = None,
    sites: Annotated[str, shared.SITES] = "aha17",
    cell: Annotated[str | None, shared.CELL] = None,
    length_unit: Annotated[str | None, shared.UNIT] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Mesh to write (.vtu) with the lesions of each strategy; targets beside it.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare strategies of ablation, and search for the fewest lesions. Not clinical.

    Each strategy is told with its volume, the VTs it leaves and the new ones it makes.
    """
    record = ablate_heart(
        heart, twin, case, strategy, lesions, radius=radius, depth=depth, access=access,
        drugs=drugs, induce=induce, sites=sites, cell=cell, length_unit=length_unit, out=out,
    )  # fmt: skip
    say(f"twinheart: note: {shared.RESEARCH}")
    emit(record if as_json else _for_reading(record), as_json=as_json)


def ablate_heart(
    heart: str | None = None,
    twin: Path | None = None,
    case: Path | None = None,
    strategy: str = ALL,
    lesions: Path | None = None,
    *,
    radius: float = 3.5,
    depth: float | None = None,
    access: str = "both",
    drugs: str | None = None,
    induce: str | None = None,
    sites: str = "aha17",
    cell: str | None = None,
    length_unit: str | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Do what `ablate` says; the arguments are its options.

    Returns
    -------
    dict
        What ``--json`` prints.

    Raises
    ------
    InputError, MeshError, ModelError, OutputError, UnitError
        If something given cannot be used, or a file cannot be written.
    """
    import math

    from twinheart.cli.lesion_file import read_lesions
    from twinheart.cli.run import provenance
    from twinheart.planning.ablation.lesions import LESION_TAG
    from twinheart.planning.ablation.operation import Operation
    from twinheart.planning.ablation.reach import Catheter
    from twinheart.planning.ablation.stimulation import stimulation_test
    from twinheart.planning.ablation.table import compare_strategies
    from twinheart.planning.induction.protocols import named_protocol

    start = time.perf_counter()
    shared.must_be_vtu(out)
    chosen = chosen_strategies(strategy)
    given = None if lesions is None else read_lesions(lesions)
    away = () if given is None else given.keep_away
    catheter = Catheter(radius, math.inf if depth is None else depth, access, away)
    protocol = None if induce is None else named_protocol(induce)
    names = chosen_drugs(drugs)
    substrate = shared.substrate_of(heart, twin, case, cell=cell, length_unit=length_unit)
    if (substrate.heart.regions >= LESION_TAG).any():
        raise InputError(
            "the heart has lesions already (cell field 'lesion'), expected it before ablation: "
            "give that one, and its lesions by --lesions."
        )
    placed = shared.sites_of(sites, substrate)
    say("twinheart: screening before ablation")
    operation = Operation(substrate, placed, catheter)
    own = {} if given is None or not given.lesions else {OWN: given.lesions}
    found = compare_strategies(
        operation,
        chosen,
        own=own,
        induced=None if protocol is None else stimulation_test(protocol, progress=retest_progress),
        say=lambda text: say(f"twinheart: {text}"),
    )
    for warning in found.warnings:
        say(f"twinheart: warning: {warning}")
    record = comparison_record(operation, found, names)
    source = next(str(name) for name in (heart, twin, case) if name is not None)
    record |= {"source": source, "induction": induce}
    if out is not None:
        record["files"] = [str(file) for file in write_lesions(out, operation, found.outcomes)]
    record["wall_s"] = time.perf_counter() - start
    record["provenance"] = provenance()
    return record


def chosen_strategies(text: str) -> tuple[str, ...]:
    """Strategies that an option names.

    Raises
    ------
    InputError
        If one is unknown.

    Examples
    --------
    >>> from twinheart.cli.ablate import chosen_strategies
    >>> chosen_strategies("plan,isthmus")
    ('isthmus', 'plan')
    """
    from twinheart.planning.ablation.strategies import STRATEGIES
    from twinheart.planning.ablation.table import PLAN

    known = (*STRATEGIES, PLAN)
    if text == ALL:
        return known
    names = [] if text == "none" else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise InputError(
                f"--strategy is '{name}', expected all, none, or some of {', '.join(known)}."
            )
    return tuple(name for name in known if name in names)


def chosen_drugs(text: str | None) -> tuple[str, ...]:
    """Drugs that an option names.

    Raises
    ------
    InputError
        If one is unknown.
    """
    from twinheart.cell.drugs import drug_names

    names = () if text is None else tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in drug_names():
            raise InputError(f"--drugs is '{name}', expected some of {', '.join(drug_names())}.")
    return names


def comparison_record(
    operation: "Operation", found: "Comparison", drugs: "Sequence[str]" = ()
) -> dict[str, Any]:
    """Figures of a comparison under names that carry their units.

    Parameters
    ----------
    operation : Operation
        Substrate, sites and catheter.
    found : Comparison
        The result.
    drugs : sequence of str
        Drugs to add to the table.

    Returns
    -------
    dict
        Warnings first.
    """
    from twinheart.planning.ablation.drugs import CLASSES, drugged
    from twinheart.planning.ablation.table import drug_row
    from twinheart.planning.circuits.circuit_file import circuit_rows

    mesh, catheter = operation.substrate.heart.mesh, operation.reach.catheter
    rows = [row.record() for row in found.rows]
    for name in drugs:
        say(f"twinheart: {name}: waves of its cells, then screening")
        row = drug_row(operation, f"drug: {name}", drugged(operation.substrate, name))
        rows.append(row.record() | {"class": CLASSES.get(name)})
    return {
        "warnings": list(found.warnings),
        "n_circuits": len(operation.before.circuits),
        "strategies": rows,
        "plan": None if found.plan is None else _plan_record(operation, found.plan),
        "circuits_before": circuit_rows(operation.before.circuits, mesh, operation.sites),
        **shared.of_substrate(operation.substrate),
        "sites": shared.of_sites(operation.sites),
        "method": METHOD,
        "settings": {
            "radius_mm": catheter.radius,
            "depth_mm": catheter.depth,
            "transmural": catheter.depth == float("inf"),
            "access": catheter.access,
            "keep_away": [
                {"name": part.name, "distance_mm": part.distance} for part in catheter.keep_away
            ],
        },
        "notes": list(operation.substrate.notes),
    }


def lesion_rows(lesions: "Sequence[Lesion]") -> list[dict[str, Any]]:
    """Lesions as rows of a record; a depth that is infinite is told as transmural."""
    return [
        {
            "lesion": number,
            "points_mm": lesion.points.tolist(),
            "radius_mm": lesion.radius,
            "depth_mm": lesion.depth,
            "transmural": lesion.depth == float("inf"),
        }
        for number, lesion in enumerate(lesions, 1)
    ]


def _plan_record(operation: "Operation", plan: "AblationPlan") -> dict[str, Any]:
    from twinheart.planning.circuits.circuit_file import circuit_rows

    mesh = operation.substrate.heart.mesh
    return {
        "stop": plan.stop,
        "steps": [step._asdict() for step in plan.steps],
        "lesions": lesion_rows(plan.outcome.lesions),
        "circuits_left": circuit_rows(plan.outcome.circuits, mesh, operation.sites),
        "induced_from": list(plan.induced),
    }


def retest_progress() -> shared.SiteProgress:
    """Progress of one test by stimulation, from site to site."""
    return shared.SiteProgress("stimulation after ablation")


def write_lesions(out: Path, operation: "Operation", outcomes: "dict[str, Outcome]") -> list[Path]:
    """Write the heart with a cell field of numbered lesions for each strategy, and a table.

    Parameters
    ----------
    out : Path
        ``.vtu`` file.
    operation : Operation
        Holds the heart.
    outcomes : dict of str to Outcome
        By strategy; fields are called ``lesion_<strategy>``, and that of the plan (or, without it,
        of the last one) also ``lesion``.

    Returns
    -------
    list of Path
        The mesh and, where that last one has lesions, ``<stem>_targets.csv`` with them, for
        ``twinheart export --targets`` and ``--lesions``.
    """
    from twinheart.anatomy import mesh_of_heart
    from twinheart.mesh import TetMesh
    from twinheart.mesh.io import write_mesh
    from twinheart.planning.ablation.lesions import LESION_FIELD
    from twinheart.planning.ablation.table import PLAN
    from twinheart.planning.export import write_targets

    mesh = mesh_of_heart(operation.substrate.heart)
    fields = {
        f"{LESION_FIELD}_{name.replace('-', '_')}": outcome.ablation.number
        for name, outcome in outcomes.items()
        if name != "none"
    }
    last = outcomes.get(PLAN) or list(outcomes.values())[-1]
    fields[LESION_FIELD] = last.ablation.number
    write_mesh(out, TetMesh(mesh.points, mesh.tets, mesh.point_fields, mesh.cell_fields | fields))
    table = out.with_name(f"{out.stem}_targets.csv")
    if not last.lesions:
        table.unlink(missing_ok=True)  # of an earlier plan
        return [out]
    return [out, write_targets(table, last.lesions)]


def _for_reading(record: dict[str, Any]) -> dict[str, Any]:
    """The record as tables, without ways, methods and versions."""
    hidden = {"path_mm", "sites", "entrance_mm", "isthmus_mm", "refractory_ms"}
    rows = [{k: v for k, v in row.items() if k not in hidden} for row in record["circuits_before"]]
    table = [{k: v for k, v in r.items() if k not in ("notes", "warning")}
             for r in record["strategies"]]  # fmt: skip
    shown = {k: v for k, v in record.items() if k not in ("method", "provenance", "notes", "sites")}
    shown |= {"circuits_before": rows, "strategies": table}
    if record["plan"] is not None:
        plan = record["plan"]
        shown["plan"] = plan["stop"]
        shown["steps"] = plan["steps"]
        shown["lesions"] = plan["lesions"]
    return shown
