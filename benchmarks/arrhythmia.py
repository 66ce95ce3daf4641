"""Induction, screening and plans of ablation: agreement, theory, what is left, time.

    python benchmarks/arrhythmia.py --json                # all: an hour or more on one core
    python benchmarks/arrhythmia.py --quick               # 2 slabs, a small heart: minutes
    python benchmarks/arrhythmia.py --only agreement --slabs 40 --workers 2 --file slabs.jsonl
    python benchmarks/arrhythmia.py --only ablation --workers 2 --plans plans.jsonl

Agreement: slabs with seeded scar are paced from four sides (S1 x 2, S2, S3, one second of
observation) by monodomain; what is induced there, at half the step and from disturbed voltages too,
is the truth for screening and for the re-excitable eikonal. Both know of the cells what commands
measure, in one dimension, once. Ablation: on these slabs, and on hearts with infarcts, a plan is
made wherever screening or the re-excitable eikonal finds something; what it burns and leaves is
compared with homogenisation and dechannelling. Each slab and heart is a line of a file; those it
holds are not run again.
"""

import argparse
import json
import os
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from _ablation_study import (
    HEART_PRESET,
    SLAB_RADIUS,
    ablation_line,
    ablation_row,
    ablation_summary,
)
from _agreement import slab_row, summary
from _processes import machine, note, write_json
from _scarred_slabs import CELLS, CYCLE, DT, EDGE, PROTOCOL, SIZE, SPEED, measure_cells
from _study_file import run_study
from niederer import device_folder

from twinheart.anatomy import Heart, add_coordinates
from twinheart.cli.terminal import plain
from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.biventricle import biventricle
from twinheart.mesh.generate import slab
from twinheart.planning import (
    Area,
    Channel,
    PacingSite,
    Protocol,
    ScarPlan,
    Stage,
    aha_sites,
    induce,
    induce_sites,
    named_protocol,
    paint_scar,
    place_sites,
    screen_circuits,
)
from twinheart.tissue import (
    NonConducting,
    Velocities,
    WaveTable,
    build_eikonal,
    build_surface_eikonal,
)

SEED = 7
SECTIONS = ("agreement", "ablation", "cycles", "speed")


def agreement(slabs: int, seed: int, workers: int, file: Path) -> dict[str, Any]:
    """The study of scarred slabs."""
    settings = _slab_settings(seed)

    def prepare():
        note("restitution of the cells")
        return partial(slab_row, seed=seed, measured=measure_cells())

    rows = run_study(
        file, settings, range(slabs), prepare, key="slab", line=_line, workers=workers
    )  # fmt: skip
    return {"settings": settings, **summary(rows)}


def _slab_settings(seed: int) -> dict[str, Any]:
    return {
        "size_mm": SIZE, "edge_mm": EDGE, "dt_ms": DT, "cycle_ms": CYCLE, "speed_m_s": SPEED,
        "protocol": repr(PROTOCOL), "cells": repr(CELLS), "seed": seed,
    }  # fmt: skip


def _line(row) -> str:
    said = {name: "yes" if row[name]["inducible"] else "no" for name in row if name in METHODS}
    seconds = sum(row[name]["wall_s"] for name in said)
    text = ", ".join(f"{name} {verdict}" for name, verdict in said.items())
    return f"{text}; {seconds:.0f} s"


METHODS = ("monodomain", "screening", "screening_at_rest", "eikonal")


def ablation(
    slabs: int, hearts: int, edge: float, seed: int, workers: int, file: Path
) -> dict[str, Any]:
    """Plans on slabs and on hearts, whose meshes have an edge [mm]."""
    settings = _slab_settings(seed) | {
        "radius_mm": SLAB_RADIUS, "heart_edge_mm": edge, "heart_preset": HEART_PRESET,
    }  # fmt: skip
    cases = [f"heart {k}" for k in range(hearts)] + [f"slab {k}" for k in range(slabs)]

    def prepare():
        note("restitution of the cells")
        measured = measure_cells() if slabs else None
        return partial(ablation_row, seed=seed, measured=measured, edge=edge)

    rows = run_study(
        file, settings, cases, prepare, key="case", line=ablation_line, workers=workers
    )  # fmt: skip
    return {"settings": settings, **ablation_summary(rows)}


def ring_problem(perimeter: float, velocity: float, refractory: float):
    """A thin ring with a patch, from 4 to 10 % of the way round, that recovers later."""
    n, width = 200, 0.3
    angle, radius = 2 * np.pi * np.arange(n) / n, perimeter / (2 * np.pi)
    circle = np.stack([radius * np.cos(angle), radius * np.sin(angle), 0 * angle], axis=1)
    i, j = np.arange(n), (np.arange(n) + 1) % n
    faces = [np.stack([i, j, j + n], axis=1), np.stack([i, j + n, i + n], axis=1)]
    mesh = TriMesh(
        np.concatenate([circle, circle + np.array([0.0, 0.0, width])]), np.concatenate(faces)
    )
    at = np.tile(i, 2)
    tags = ((at >= 8) & (at < 20)).astype(int)
    problem = build_surface_eikonal(mesh, None, Velocities(velocity), regions=tags)
    tables = {
        k: WaveTable([20.0], [1.0], [share * refractory - 20.0]) for k, share in ((0, 0.7), (1, 1))
    }
    return problem, tables, place_sites(problem, mesh.points[:1])[0]


def rings(count: int, seed: int) -> dict[str, Any]:
    """Rings either side of the wavelength: how many are judged rightly, error of the cycle."""
    rng = np.random.default_rng(seed)
    right, errors = {True: 0, False: 0}, []
    for re_enters in (True, False):
        for share in rng.uniform(*((0.8, 0.9925) if re_enters else (1.0075, 1.25)), count):
            perimeter, velocity = rng.uniform(90.0, 150.0), rng.uniform(0.5, 0.7)
            refractory = share * perimeter / velocity
            protocol = Protocol("S1 S2", 2, 1000.0, (Stage(refractory + 15.0, 10.0, 50.0),))
            found = induce(*ring_problem(perimeter, velocity, refractory), protocol)
            right[re_enters] += found.induced == re_enters
            if found.cycle_length is not None:
                errors.append(abs(found.cycle_length / (perimeter / velocity) - 1.0))
    return {
        "each_side": count,
        "longer_induced": right[True],
        "shorter_not_induced": right[False],
        "cycle_error_worst": max(errors, default=None),
    }


def figures_of_eight(edges: list[float]) -> list[dict[str, Any]]:
    """Screening of a channel of 4 x 16 mm through 20 x 16 mm of core against theory."""
    fast, slow, rows = 0.5, 0.2, []
    for edge in edges:
        mesh = slab((32.0, 28.0, 2.0), edge)
        x, y, _ = np.abs(mesh.points[mesh.tets].mean(axis=1) - [16.0, 14.0, 1.0]).T
        scar = np.where((x < 10) & (y < 8), np.where(x < 2, 1, 2), 0).astype(np.int32)
        mesh = TetMesh(mesh.points, mesh.tets, {}, {"scar": scar})
        tissue = {0: Velocities(fast, fast), 1: Velocities(slow, slow), 2: NonConducting()}
        problem = build_eikonal(Heart(mesh, regions=scar), tissue)
        site = PacingSite("below", (16.0, 2.0, 1.0), (16.0, 2.0, 1.0))
        (circuit,) = screen_circuits(problem, mesh, [site], 100.0)
        theory = 16 / slow + 32 / fast
        rows.append(
            {
                "edge_mm": edge,
                "cycle_error": abs(circuit.cycle_length_ms / theory - 1.0),
                "area_error": abs(circuit.isthmus_area_mm2 / 8.0 - 1.0),
            }
        )
    return rows


def speed(edge: float, workers: int, preset: str) -> dict[str, Any]:
    """A biventricle with scar and a channel: screening and programmed stimulation from all sites.

    The preset is one of `twinheart.planning.PROTOCOLS`, with its S1 and its observation.
    """
    mesh = add_coordinates(biventricle(edge))
    core = Area(at=(0.55, 0.33), radius=24.0, rim=4.0)
    channel = Channel(((0.15, 0.33), (0.95, 0.33)), 6.0)
    scar = paint_scar(mesh, ScarPlan(cores=(core,), channels=(channel,)))
    painted = TetMesh(mesh.points, mesh.tets, mesh.point_fields, mesh.cell_fields | {"scar": scar})
    tissue = {0: Velocities(0.6, 0.3), 1: Velocities(0.3, 0.15), 2: NonConducting()}
    problem = build_eikonal(Heart(painted, regions=scar), tissue)
    sites = aha_sites(painted, problem)
    tables = {k: WaveTable([20.0, 300.0], [0.6, 1.0], [180.0, 250.0]) for k in tissue}
    found: dict[str, Any] = {
        "n_nodes": painted.n_nodes, "n_sites": len(sites), "workers": workers, "preset": preset,
    }  # fmt: skip
    start = perf_counter()
    found["n_circuits"] = len(screen_circuits(problem, painted, sites, 200.0))
    found["screening_wall_s"] = perf_counter() - start
    note(f"{found['n_circuits']} circuits; {preset} from {len(sites)} sites")
    start = perf_counter()
    results = induce_sites(problem, tables, sites, named_protocol(preset), workers=workers)
    found["induction_wall_s"] = perf_counter() - start
    found["induced_sites"] = sum(result.induced for result in results)
    found["runs"] = sum(result.runs for result in results)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slabs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--file", type=Path, default=Path("arrhythmia_slabs.jsonl"))
    parser.add_argument("--hearts", type=int, default=5)
    parser.add_argument("--plans", type=Path, help="file of the plans of ablation")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="default: all sections")
    parser.add_argument("--quick", action="store_true", help="2 slabs, 3 rings, small hearts")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    chosen = options.only or SECTIONS
    slabs = min(options.slabs, 2) if options.quick else options.slabs
    result: dict[str, Any] = {}
    if "cycles" in chosen:
        note("rings and figures of eight")
        result["cycles"] = {
            "rings": rings(3 if options.quick else 20, options.seed),
            "figures_of_eight": figures_of_eight([1.0] if options.quick else [1.0, 0.5]),
        }
    if "speed" in chosen:
        note("a biventricle with scar")
        how = (2.6, "cardiomat2025") if options.quick else (1.5, "varp-arevalo2016")
        result["speed"] = speed(how[0], options.workers, how[1])
    if "agreement" in chosen:
        result["agreement"] = agreement(slabs, options.seed, options.workers, options.file)
    if "ablation" in chosen:
        hearts, edge = (min(options.hearts, 1), 2.6) if options.quick else (options.hearts, 2.0)
        file = options.plans or Path(f"arrhythmia_plans{'_quick' if options.quick else ''}.jsonl")
        result["ablation"] = ablation(slabs, hearts, edge, options.seed, options.workers, file)
    made = {
        "version": version("twinheart"), "seed": options.seed, "machine": machine(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }  # fmt: skip
    result = {section: {"made": made} | result[section] for section in chosen}
    path = device_folder() / ("arrhythmia_quick.json" if options.quick else "arrhythmia.json")
    earlier = json.loads(path.read_text()) if path.exists() else {}
    write_json(path, earlier | result)  # sections that did not run keep what they were
    if options.json:
        print(json.dumps(plain(result)))
        return
    for section, found in result.items():
        print(section, json.dumps(plain(found), indent=1))


if __name__ == "__main__":
    main()
