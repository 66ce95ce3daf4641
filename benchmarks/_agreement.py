"""One scarred slab by monodomain, by screening and by the re-excitable eikonal; how they agree."""

import math
from time import perf_counter
from typing import Any

import numpy as np
from _scarred_slabs import (
    CELLS,
    CONDUCTION,
    CYCLE,
    DT,
    PROTOCOL,
    Measured,
    ScarredSlab,
    scarred_slab,
)

from twinheart.planning import (
    activation_circuit,
    activation_train,
    confirm,
    induce,
    induce_monodomain,
    prepare_pacing,
    screen_circuits,
)
from twinheart.tissue import (
    NodeTables,
    NonConducting,
    Velocities,
    build_eikonal,
    coupled_tables,
    node_tables,
)

TARGET_MM = 5.0
NOISE = 1.0  # mV
MOUTH = 0.9  # mm2, of an isthmus: less than 2 mm of the edge of a sheet 0.5 mm thick


def slab_row(number: int, seed: int, measured: Measured) -> dict[str, Any]:
    """All of one slab."""
    made = scarred_slab(number, seed)
    return {
        "slab": number,
        "made": made.made,
        "n_nodes": made.heart.mesh.n_nodes,
        "monodomain": by_monodomain(made),
        "screening": by_screening(made, measured, at_rest=False),
        "screening_at_rest": by_screening(made, measured, at_rest=True),
        "eikonal": by_eikonal(made, measured),
    }


def by_monodomain(made: ScarredSlab) -> dict[str, Any]:
    """Sites one after the other until one is induced, at half the step and disturbed too."""
    start = perf_counter()
    tissue = prepare_pacing(made.heart, CELLS, CONDUCTION, cycle=CYCLE, dt=DT)
    sites = []
    for site in made.sites:
        asked = []

        def holds(stimuli, site=site, asked=asked) -> bool:
            asked.append(confirm(tissue, site, stimuli, PROTOCOL, noise=NOISE))
            return asked[-1].confirmed

        found = induce_monodomain(tissue, site, PROTOCOL, holds=holds)
        row = _site_row(found) | {"not_confirmed": sum(not one.confirmed for one in asked)}
        sites.append(row)
        if found.induced:
            sure = asked[-1]
            row |= {"confirmed": True, "morphology": sure.morphology._asdict()}
            row |= _circuit(sure.circuit)
            break
    confirmed = [row for row in sites if row.get("confirmed")]
    return {
        "inducible": bool(confirmed),
        "unconfirmed": any(row["not_confirmed"] for row in sites) and not confirmed,
        "sites": sites,
        "wall_s": perf_counter() - start,
    }


def _site_row(found) -> dict[str, Any]:
    return {
        "site": found.site.name,
        "outcome": found.outcome,
        "coupling_ms": found.coupling,
        "captured_ms": [stage.captured for stage in found.stages],
        "blocked_ms": [stage.blocked for stage in found.stages],
        "cycle_length_ms": found.cycle_length,
        "lasted_ms": found.lasted,
        "runs": found.runs,
    }


def _circuit(circuit) -> dict[str, Any]:
    if circuit is None:
        return {"exit_mm": None, "entrance_mm": None, "circuit_ms": None}
    return {
        "exit_mm": circuit.exit_mm,
        "entrance_mm": circuit.entrance_mm,
        "circuit_ms": circuit.cycle_length_ms,
    }


def _problem(made: ScarredSlab, measured: Measured):
    tissue: dict[int, Any] = {tag: Velocities(cv, cv) for tag, cv in measured.velocities.items()}
    return build_eikonal(made.heart, {tag: tissue.get(tag, NonConducting()) for tag in CONDUCTION})


def _restitution(problem, measured: Measured) -> NodeTables:
    return coupled_tables(problem, measured.tables, measured.coupling, durations=measured.durations)


def by_screening(made: ScarredSlab, measured: Measured, *, at_rest: bool) -> dict[str, Any]:
    """Circuits, with velocities and refractory periods at rest or with restitution."""
    start = perf_counter()
    mesh, problem = made.heart.mesh, _problem(made, measured)
    if at_rest:
        own = node_tables(problem, measured.tables)
        refractory = own.refractory[: mesh.n_nodes]
    else:
        refractory = _restitution(problem, measured)
    circuits = [
        {
            "exit_mm": circuit.exit_mm,
            "entrance_mm": circuit.entrance_mm,
            "cycle_length_ms": circuit.cycle_length_ms,
            "refractory_ms": circuit.refractory_ms,
        }
        for circuit in screen_circuits(problem, mesh, made.sites, refractory, min_area=MOUTH)
    ]
    return {
        "inducible": bool(circuits),
        "circuits": circuits,
        "wall_s": perf_counter() - start,
    }


def by_eikonal(made: ScarredSlab, measured: Measured) -> dict[str, Any]:
    """All sites, with the circuit of each that is induced."""
    start = perf_counter()
    problem = _problem(made, measured)
    tables = _restitution(problem, measured)
    sites = []
    for site in made.sites:
        found = induce(problem, tables, site, PROTOCOL)
        row = _site_row(found)
        if found.induced:
            train = activation_train(problem, tables, found, PROTOCOL)
            row |= _circuit(activation_circuit(made.heart.mesh, train))
        sites.append(row)
    return {
        "inducible": any(row["outcome"] == "induced" for row in sites),
        "sites": sites,
        "wall_s": perf_counter() - start,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Agreement of each method with monodomain."""
    truth = np.array([row["monodomain"]["inducible"] for row in rows])
    found: dict[str, Any] = {
        "n_slabs": len(rows),
        "n_inducible": int(truth.sum()),
        "n_unconfirmed": sum(row["monodomain"]["unconfirmed"] for row in rows),
        "n_monomorphic": sum(_morphology(row) == "monomorphic" for row in rows),
        "n_anatomical": sum(_true_exit(row) is not None for row in rows),
    }
    for method in ("screening", "screening_at_rest", "eikonal"):
        said = np.array([row[method]["inducible"] for row in rows])
        exits = [_exit_distance(row, method) for row in rows]
        exits = [x for x in exits if x is not None]
        ends = [_exit_distance(row, method, ("exit_mm", "entrance_mm")) for row in rows]
        ends = [x for x in ends if x is not None]
        found[method] = {
            "sensitivity": _share(int((said & truth).sum()), int(truth.sum())),
            "specificity": _share(int((~said & ~truth).sum()), int((~truth).sum())),
            "missed": [row["slab"] for row, a, b in zip(rows, said, truth, strict=True) if b > a],
            "invented": [row["slab"] for row, a, b in zip(rows, said, truth, strict=True) if a > b],
            "exits_compared": len(exits),
            "exit_median_mm": float(np.median(exits)) if exits else None,
            "exit_worst_mm": max(exits, default=None),
            "exit_within_5_mm": sum(x <= TARGET_MM for x in exits),
            "either_end_within_5_mm": sum(x <= TARGET_MM for x in ends),
            "cycle_error": _spread([_cycle_error(row, method) for row in rows]),
            "wall_s": sum(row[method]["wall_s"] for row in rows),
        }
    found["monodomain_wall_s"] = sum(row["monodomain"]["wall_s"] for row in rows)
    return found


def _confirmed(row) -> dict[str, Any] | None:
    return next((site for site in row["monodomain"]["sites"] if site.get("confirmed")), None)


def _morphology(row) -> str | None:
    site = _confirmed(row)
    return None if site is None or site["morphology"] is None else site["morphology"]["kind"]


def _true_exit(row):
    site = _confirmed(row)
    return None if site is None else site["exit_mm"]


def _cycle_error(row, method: str) -> float | None:
    """By how much the cycle nearest to that by monodomain differs, as a share of that."""
    true_site = _confirmed(row)
    if true_site is None:
        return None
    known = row[method]["sites"] if method == "eikonal" else row[method]["circuits"]
    cycles = [one["cycle_length_ms"] for one in known if one["cycle_length_ms"] is not None]
    return min((x / true_site["cycle_length_ms"] - 1.0 for x in cycles), key=abs, default=None)


def _spread(values) -> dict[str, float] | None:
    known = [x for x in values if x is not None]
    if not known:
        return None
    return {"median": float(np.median(known)), "least": min(known), "most": max(known)}


def _exit_distance(row, method: str, ends=("exit_mm",)) -> float | None:
    """From the exit by monodomain to that of the method, or to the nearer of both ends.

    Screening does not tell in which of two directions a circuit runs: always the nearer. Of the
    eikonal, the same site if that was induced, else the nearest of all.
    """
    exit_mm, true_site = _true_exit(row), _confirmed(row)
    if exit_mm is None or true_site is None:
        return None
    if method == "eikonal":
        known = [site for site in row[method]["sites"] if site.get("exit_mm") is not None]
        own = [site for site in known if site["site"] == true_site["site"]]
        places = [site[end] for site in own or known for end in ends]
    else:
        circuits = row[method]["circuits"]
        places = [circuit[end] for circuit in circuits for end in ("exit_mm", "entrance_mm")]
    if not places:
        return None
    return float(np.linalg.norm(np.subtract(places, exit_mm), axis=1).min())


def _share(hits: int, total: int) -> dict[str, Any]:
    """A share with its Wilson interval, 95 %."""
    if not total:
        return {"share": None, "hits": hits, "total": total, "low": None, "high": None}
    z, share = 1.959964, hits / total
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)) / (1 + z**2 / total)
    return {
        "share": share, "hits": hits, "total": total,
        "low": max(0.0, middle - half), "high": min(1.0, middle + half),
    }  # fmt: skip
