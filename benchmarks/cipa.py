"""The twelve training drugs of CiPA on the CiPA cell: whether mean qNet orders their risk classes.

All 49 cells (control, and each drug at one to four times its therapeutic peak) are paced side by
side at a cycle length of 2000 ms to the limit cycle, or 1,000 beats. qNet is that of the beat
after, averaged over the doses of a drug. Block is static but for I_Kr, which binds dynamically.
Double precision: drugs that leave the channel within minutes move less than float32 resolves.

python benchmarks/cipa.py --out benchmarks/results/cpu/cipa.json
"""

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from _processes import machine, note

from twinheart.cell import (
    AbstractCellModel,
    apply_drug,
    biomarkers,
    get_model,
    one_per_node,
    pace_cell,
)
from twinheart.cell.biomarkers import early_afterdepolarisations, net_charge
from twinheart.cell.drugs import DRUGS
from twinheart.cell.limit_cycle import Paced, limit_cycle

DOSES = (1.0, 2.0, 3.0, 4.0)  # times the therapeutic peak
BCL = 2000.0  # ms
SAMPLE_EVERY = 0.1  # ms, of the beat that qNet is integrated over
FIRST_BEATS = 240  # after which cells that have converged wait for the others
FOUND = ("beats", "converged", "change", "rhythm")
RISKS = ("low", "intermediate", "high")  # the higher the risk, the lower qNet should be


def cells(dynamic: bool | None) -> tuple[list[tuple[str, float]], AbstractCellModel]:
    """What each cell is given, and all cells as one model."""
    control = get_model("ord-cipa")
    given = [("control", 0.0), *itertools.product(DRUGS, DOSES)]
    models = [
        control if name == "control" else apply_drug(control, name, cmax=dose, dynamic=dynamic)
        for name, dose in given
    ]
    return given, one_per_node(models, np.arange(len(models)))


def to_limit_cycle(model, n_cells: int, max_beats: int, options: dict) -> tuple[Any, dict]:
    """All cells at their limit cycles; those that need long go on without the others."""
    first = limit_cycle(model, BCL, max_beats=min(FIRST_BEATS, max_beats), **options)
    found = {name: np.array(getattr(first, name)) for name in FOUND}
    late = np.flatnonzero(~first.converged)
    note(f"{n_cells - late.size} of {n_cells} converged within {FIRST_BEATS} beats")
    if late.size == 0 or max_beats <= FIRST_BEATS:
        return first.model, found

    def some(leaf):
        return leaf[late] if leaf.shape == (n_cells,) else leaf

    rest = max_beats - FIRST_BEATS
    second = limit_cycle(jax.tree.map(some, first.model), BCL, max_beats=rest, **options)
    for name in FOUND:
        found[name] = found[name].astype(object if name == "rhythm" else found[name].dtype)
        found[name][late] = getattr(second, name)
    found["beats"][late] += FIRST_BEATS
    vm, state = jax.tree.map(
        lambda old, new: old.at[late].set(new),
        (first.model.vm, first.model.state),
        (second.model.vm, second.model.state),
    )
    return Paced(first.model.model, vm, state), found


def inversions(mean: dict[str, float]) -> list[str]:
    """Pairs of drugs whose mean qNet is in the wrong order for their classes."""
    return [
        f"{a} ({DRUGS[a].risk}) above {b} ({DRUGS[b].risk})"
        for a, b in itertools.permutations(mean, 2)
        if RISKS.index(DRUGS[a].risk) > RISKS.index(DRUGS[b].risk) and mean[a] >= mean[b]
    ]


def measure(max_beats: int, tolerance: float, dynamic: bool | None, dt: float | None) -> dict:
    """Pace, integrate and compare."""
    given, model = cells(dynamic)
    dt = model.dt if dt is None else dt
    start = time.perf_counter()
    options = {"tolerance": tolerance, "dt": dt, "cache": False}
    paced, found = to_limit_cycle(model, len(given), max_beats, options)
    note(f"paced in {time.perf_counter() - start:.0f} s")
    trace = pace_cell(paced, bcl=BCL, dt=dt, sample_every=SAMPLE_EVERY)
    wall_s = time.perf_counter() - start
    q_net = np.asarray(net_charge(paced, trace.t, trace.vm, trace.states))
    marks = biomarkers(trace.t, trace.vm)
    early = early_afterdepolarisations(trace.t, trace.vm)
    rows = [
        {
            "drug": name,
            "times_cmax": dose,
            "q_net_uc_uf": float(q_net[k]),
            "apd90_ms": float(marks.apd90[k]),
            "early_afterdepolarisations": int(early.count[k]),
            "repolarised": bool(early.repolarised[k]),
            "beats": int(found["beats"][k]),
            "converged": bool(found["converged"][k]),
            "change": float(found["change"][k]),
            "rhythm": str(found["rhythm"][k]),
        }
        for k, (name, dose) in enumerate(given)
    ]
    mean = {
        drug: float(np.mean([row["q_net_uc_uf"] for row in rows if row["drug"] == drug]))
        for drug in DRUGS
    }
    order = sorted(mean, key=mean.__getitem__)
    return {
        "machine": machine(),
        "device": str(jax.devices()[0].device_kind),
        "jax": jax.__version__,
        "model": model.name,
        "precision": str(trace.vm.dtype),
        "i_kr": "static" if dynamic is False else "dynamic",
        "bcl_ms": BCL,
        "dt_ms": dt,
        "max_beats": max_beats,
        "tolerance": tolerance,
        "wall_s": wall_s,
        "mean_q_net_uc_uf": {drug: mean[drug] for drug in order},
        "risk": {drug: DRUGS[drug].risk for drug in order},
        "inversions": inversions(mean),
        "early_afterdepolarisations": [
            f"{row['drug']} at {row['times_cmax']:g} Cmax"
            for row in rows
            if row["early_afterdepolarisations"] or not row["repolarised"]
        ],
        "cells": rows,
    }


def main() -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beats", type=int, default=1000)
    parser.add_argument("--tolerance", type=float, default=1e-5)
    parser.add_argument("--dt", type=float, help="time step [ms]; default that of the model")
    parser.add_argument("--float32", action="store_true", help="single precision")
    parser.add_argument("--static", action="store_true", help="I_Kr by its IC50 too")
    parser.add_argument("--out", type=Path, help="JSON file")
    asked = parser.parse_args()
    jax.config.update("jax_enable_x64", not asked.float32)
    result = measure(asked.beats, asked.tolerance, False if asked.static else None, asked.dt)
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=1) + "\n")
    control = result["cells"][0]
    print(f"{'drug':16}{'class':14}{'mean qNet':>10}  qNet at {DOSES} x Cmax [uC/uF]")
    print(f"{'control':30}{control['q_net_uc_uf']:10.4f}  APD90 {control['apd90_ms']:.1f} ms")
    for drug, value in result["mean_q_net_uc_uf"].items():
        doses = " ".join(
            f"{row['q_net_uc_uf']:.4f}" for row in result["cells"] if row["drug"] == drug
        )
        print(f"{drug:16}{DRUGS[drug].risk:14}{value:10.4f}  {doses}")
    print("inversions:", "; ".join(result["inversions"]) or "none")
    print("EADs:", "; ".join(result["early_afterdepolarisations"]) or "none")
    print(f"{result['wall_s']:.0f} s, dt {result['dt_ms']} ms")


if __name__ == "__main__":
    main()
