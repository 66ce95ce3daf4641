"""Plans of ablation on scarred slabs and full hearts: what they and two strategies burn and leave.

Each case is screened and paced before and after; where neither finds anything there is nothing to
plan. Homogenisation and dechannelling are tested in the same way: a plan must not burn more than
one of these.
"""

from time import perf_counter, process_time
from typing import Any

import jax
import numpy as np
from _agreement import MOUTH
from _processes import note
from _scarred_slabs import CELLS, PROTOCOL, Measured, ScarredSlab, scarred_slab

from twinheart.anatomy import Heart, add_coordinates, add_fibres
from twinheart.anatomy.corridors import find_corridors
from twinheart.anatomy.scar import with_scar
from twinheart.imaging.enhancement import BORDER, CORE
from twinheart.mesh.biventricle import BiventricularShape, biventricle
from twinheart.planning import Area, Channel, ScarPlan, aha_sites, named_protocol, paint_scar
from twinheart.planning.ablation.operation import Operation, Outcome
from twinheart.planning.ablation.plan import Step, plan_ablation
from twinheart.planning.ablation.reach import Catheter
from twinheart.planning.ablation.stimulation import stimulation_test
from twinheart.planning.ablation.strategies import propose
from twinheart.planning.substrate import Substrate, build_substrate
from twinheart.tissue import NonConducting, Velocities
from twinheart.tissue.scar import SCAR_TAG

OTHERS = ("homogenisation", "dechannelling")
SLAB_RADIUS = 3.0  # mm, of a lesion
HEART_PRESET = "cardiomat2025"
DRAWS = 8
_ROUNDING = 1e-9  # ml


def ablation_row(case: str, *, seed: int, measured: Measured | None, edge: float) -> dict[str, Any]:
    """A case, ``"slab 3"`` or ``"heart 0"``; of the hearts the edge [mm] is that of the mesh."""
    jax.clear_caches()  # each heart with lesions has shapes, and so programs, of its own
    kind, _, number = case.partition(" ")
    start, cpu = perf_counter(), process_time()
    if kind == "slab":
        assert measured is not None
        made = scarred_slab(int(number), seed)
        substrate, about, protocol = _slab_substrate(made, measured), {}, PROTOCOL
        operation = Operation(substrate, made.sites, Catheter(SLAB_RADIUS), min_area=MOUTH)
    else:
        operation, about = _scarred_heart(int(number), edge)
        protocol = named_protocol(HEART_PRESET)
    row = {"case": case, "kind": kind, **about, **_planned(case, operation, protocol)}
    return row | {"wall_s": perf_counter() - start, "cpu_s": process_time() - cpu}


def _slab_substrate(made: ScarredSlab, measured: Measured) -> Substrate:
    """The slab with what was measured of its cells, as the study of agreement has it."""
    mesh = made.heart.mesh
    tag = {kind: SCAR_TAG * kind for kind in (0, BORDER, CORE)}
    tissue: dict[int, Any] = {
        tag[kind]: Velocities(cv, cv) for kind, cv in measured.velocities.items()
    }
    return build_substrate(
        Heart(mesh, regions=SCAR_TAG * np.asarray(mesh.cell_fields["scar"])),
        {tag[kind]: CELLS[kind] for kind in tag},
        {tag[kind]: tissue.get(tag[kind], NonConducting()) for kind in tag},
        tables={tag[kind]: measured.tables[kind] for kind in tag},
        coupling=measured.coupling,
        duration_coupling=measured.durations,
    )


def _scarred_heart(number: int, edge: float) -> tuple[Operation, dict[str, Any]]:
    """A heart with the first of its scars in which screening finds a circuit."""
    heart = _plain_heart(number, edge)
    for draw in range(1, DRAWS + 1):
        scar = _drawn_scar(number, draw)
        mesh = with_scar(heart.mesh, paint_scar(heart.mesh, scar).astype(np.int32))
        substrate = build_substrate(Heart(mesh, heart.f0, heart.s0, heart.regions))
        operation = Operation(substrate, aha_sites(mesh, substrate.problem, furthest=np.inf))
        note(f"heart {number}: scar {draw}: {len(operation.before.circuits)} circuits")
        if operation.before.circuits:
            about = {
                "draw": draw,
                "core_radius_mm": scar.cores[0].radius,
                "channels": len(scar.channels),
            }
            return operation, about
    raise SystemExit(f"heart {number}: no circuit in {DRAWS} scars: draw others.")


def _plain_heart(number: int, edge: float) -> Heart:
    """The demo heart's shape for 0, else one between a small and a dilated one."""
    shape = BiventricularShape()
    if number:
        rng = np.random.default_rng([number, 0])
        size = rng.uniform(0.92, 1.15)
        shape = BiventricularShape(
            lv_radius=shape.lv_radius * size,
            lv_depth=shape.lv_depth * rng.uniform(0.95, 1.08),
            lv_wall=rng.uniform(8.5, 11.0),
            rv_wall=rng.uniform(4.0, 5.0),
        )
    mesh = biventricle(edge, shape)
    heart = add_fibres(Heart(mesh, regions=mesh.cell_fields["region"]))
    return Heart(add_coordinates(heart.mesh), heart.f0, heart.s0, heart.regions)


def _drawn_scar(number: int, draw: int) -> ScarPlan:
    """An infarct of 50 to 60 mm with one channel from apex to base, or two side by side."""
    rng = np.random.default_rng([number, draw, 1])
    height, turns = rng.uniform(0.48, 0.58), rng.uniform(0.2, 0.5)
    core = Area(at=(height, turns), radius=rng.uniform(25.0, 30.0), rim=rng.uniform(3.0, 5.0))
    aside = (-0.07, 0.07) if rng.random() < 0.5 else (rng.uniform(-0.03, 0.03),)
    channels = [
        Channel(
            path=[(0.05, turns + at), (0.98, turns + at + rng.uniform(-0.03, 0.03))],
            width=rng.uniform(6.0, 9.0),
            tm=(0.25, 0.75),
        )
        for at in aside
    ]
    return ScarPlan(cores=[core], channels=channels)


def _planned(case: str, operation: Operation, protocol) -> dict[str, Any]:
    """Both tests before, and after the plan and each of the other strategies."""
    mesh, test = operation.substrate.heart.mesh, stimulation_test(protocol)
    before = operation.before

    def induced(outcome: Outcome) -> list[str]:
        after = operation.substrate_after(outcome.ablation)
        left = test(after, operation.sites_after(after))
        return sorted({name for one in left for name in one.sites})

    def described(outcome: Outcome, most: float = np.inf) -> dict[str, Any]:
        """What an outcome burns and leaves.

        It is not paced where screening finds a circuit, nor where it burns at least `most` ml.
        """
        paced = not outcome.circuits and outcome.volume_ml < most
        sites = induced(outcome) if paced else None
        return {
            "lesions": len(outcome.lesions),
            "volume_ml": outcome.volume_ml,
            "circuits": len(outcome.circuits),
            "new_circuits": sum(outcome.new),
            "induced_from": sites,
            "new_sites": None if sites is None else sorted(set(sites) - set(inducible)),
            "leaves_nothing": sites == [] if paced or outcome.circuits else None,
            "lost_ml": outcome.isolation.lost_ml,
        }

    def told(step: Step) -> None:
        note(f"{case}: {step.action}: {step.volume_ml:.3g} ml, {step.circuits} circuits")

    inducible = induced(before)
    found: dict[str, Any] = {
        "n_nodes": mesh.n_nodes,
        "n_tets": mesh.n_tets,
        "sites": len(operation.sites),
        "before": {
            "circuits": len(before.circuits),
            "cycles_ms": [circuit.cycle_length_ms for circuit in before.circuits],
            "induced_from": inducible,
        },
        "needed": bool(before.circuits or inducible),
    }
    if not found["needed"]:
        return found
    scar = np.asarray(mesh.cell_fields["scar"])
    corridors = find_corridors(mesh, scar, min_area=operation.min_area)
    proposed = (
        propose(name, operation.reach, before.circuits, corridors=corridors) for name in OTHERS
    )
    others = {one.strategy: operation.after(one.lesions) for one in proposed}
    start, cpu = perf_counter(), process_time()
    plan = plan_ablation(operation, others=list(others.values()), induced=test, say=told)
    own = plan.outcome.volume_ml - _ROUNDING
    found |= {
        "stop": plan.stop,
        "steps": [step._asdict() for step in plan.steps],
        "plan_wall_s": perf_counter() - start,
        "plan_cpu_s": process_time() - cpu,
        "plan": described(plan.outcome),
        **{name: described(outcome, own) for name, outcome in others.items()},
    }
    found["taken_from"] = next((n for n in OTHERS if others[n] is plan.outcome), None)
    found["least"] = all(
        own <= found[name]["volume_ml"] for name in OTHERS if found[name]["leaves_nothing"]
    )
    found["least_of_all"] = all(own <= found[name]["volume_ml"] for name in OTHERS)
    return found


def ablation_line(row: dict[str, Any]) -> str:
    """A row in words."""
    before = row["before"]
    text = f"before: {before['circuits']} circuits, {len(before['induced_from'])} sites"
    if row["needed"]:
        plan = row["plan"]
        sites = "not paced" if plan["induced_from"] is None else len(plan["induced_from"])
        volumes = ", ".join(f"{row[name]['volume_ml']:.3g}" for name in ("plan", *OTHERS))
        text += f"; after: {plan['circuits']} circuits, {sites} sites; {volumes} ml"
    return f"{text}; {row['wall_s']:.0f} s"


def ablation_summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts of slabs and of hearts, and the cases that do not reach the target."""
    return {
        kind: _counts([row for row in rows if row["kind"] == kind])
        for kind in ("slab", "heart")
        if any(row["kind"] == kind for row in rows)
    } | {"rows": rows}


def _counts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    planned = [row for row in rows if row["needed"]]

    def without(true) -> list[str]:
        return [row["case"] for row in planned if not true(row)]

    shares = {
        name: [row["plan"]["volume_ml"] / row[name]["volume_ml"] for row in planned
               if row[name]["volume_ml"] > 0]
        for name in OTHERS
    }  # fmt: skip
    return {
        "n": len(rows),
        "planned": len(planned),
        "by_screening": sum(row["before"]["circuits"] > 0 for row in rows),
        "by_stimulation": sum(bool(row["before"]["induced_from"]) for row in rows),
        "leave_something": without(lambda row: row["plan"]["leaves_nothing"]),
        "leave_new": without(
            lambda row: not row["plan"]["new_circuits"] and not row["plan"]["new_sites"]
        ),
        "not_least": without(lambda row: row["least"]),
        "not_least_of_all": without(lambda row: row["least_of_all"]),
        "share_of_volume": {
            name: {"median": float(np.median(own)), "worst": max(own)} if own else None
            for name, own in shares.items()
        },
        "others_leave_no_circuit": {
            name: sum(row[name]["circuits"] == 0 for row in planned) for name in OTHERS
        },
        "wall_s": sum(row["wall_s"] for row in rows),
        "cpu_s": sum(row["cpu_s"] for row in rows),
    }
