"""The lead field: speed of the ECG, accuracy in a sphere and in a torso, bidomain as referee.

Parts: `ecg` (1 M nodes x 1,000 samples x 9 electrodes), `sphere` (analytic solution, the geometry
refined too), `torso` (demo heart in a template torso, refined), `bidomain` (slab with bath).

python benchmarks/lead_field.py --json [PART ...]
"""

import argparse
import json
import time
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _processes import machine, note, write_json
from niederer import device_folder

from twinheart.anatomy import demo_heart
from twinheart.anatomy.body import template_body
from twinheart.anatomy.torso import template_lungs, torso_mesh
from twinheart.cell import get_model
from twinheart.ecg import Electrodes, lead_field, place_electrodes, twelve_lead
from twinheart.ecg.torso_field import (
    VolumeConductor,
    heart_tensors,
    torso_conductor,
    torso_field,
)
from twinheart.ecg.torso_source import TRANSFERS, torso_source
from twinheart.fem import stiffness
from twinheart.mesh.generate import slab
from twinheart.mesh.stuffing import stuff
from twinheart.tissue import NIEDERER_2011
from twinheart.tissue.bidomain import build_bidomain, run_bidomain

RADIUS, SIGMA_B = 100.0, 0.3  # mm, S/m
CENTRE, WIDTH = np.array([6.0, -4.0, 3.0]), 20.0  # of the smooth source [mm]
TENSOR = np.diag([0.17, 0.05, 0.02])  # S/m
ROUNDS = 5


def ecg(nodes: int = 1_000_000, samples: int = 1000, electrodes: int = 9) -> dict[str, Any]:
    """Wall time of all potentials of a beat, voltages handed over 100 samples at a time."""
    block = 100
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(electrodes, nodes)).astype(np.float32)
    vm = rng.uniform(-90, 40, (block, nodes)).astype(np.float32)
    walls: dict[str, list[float]] = {"numpy": [], "jax": []}
    on_device = [jnp.asarray(weights), jnp.asarray(vm)]
    project = jax.jit(lambda w, v: v @ w.T)
    jax.block_until_ready(project(*on_device))
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(samples // block):
            np.matmul(vm, weights.T)
        walls["numpy"].append(time.perf_counter() - start)
        start = time.perf_counter()
        jax.block_until_ready([project(*on_device) for _ in range(samples // block)])
        walls["jax"].append(time.perf_counter() - start)
    return {
        "nodes": nodes,
        "samples": samples,
        "electrodes": electrodes,
        "device": jax.devices()[0].device_kind,
        **{f"{name}_s": float(np.median(times)) for name, times in walls.items()},
        **{f"{name}_spread_s": float(np.ptp(times)) for name, times in walls.items()},
    }


def neumann(source, site):
    """Potential on a sphere of a unit current in it (Frank 1952, doi:10.1063/1.1702037)."""
    d = jnp.linalg.norm(site - source)
    logarithm = jnp.log(RADIUS**2 - source @ site + RADIUS * d) / RADIUS
    return (2 / d - logarithm) / (4 * jnp.pi * SIGMA_B)


def sphere(edges: tuple[float, ...] = (16.0, 8.0, 4.0)) -> dict[str, Any]:
    """Errors of a smooth anisotropic source and of dipoles; orders between refinements."""
    rng = np.random.default_rng(3)
    direction = rng.normal(size=(300, 3))
    direction /= np.linalg.norm(direction, axis=1)[:, None]
    dipoles = 60 * direction * rng.uniform(size=(300, 1)) ** (1 / 3)
    sites = np.array([[1, 0, 0], [0, 1, 0], [0, 0, -1], [1, 1, 0], [-1, 0, 1]], float)
    sites *= RADIUS / np.linalg.norm(sites, axis=1)[:, None]
    electrodes = Electrodes([f"E{k}" for k in range(len(sites))], sites)
    rows = []
    with jax.enable_x64(True):
        gradient = jax.jit(jax.vmap(jax.vmap(jax.grad(neumann), (0, None)), (None, 0)))
        exact = np.asarray(gradient(dipoles, sites))
        hessian = jax.jit(jax.vmap(jax.hessian(neumann), (None, 0)))
        for edge in edges:
            start = time.perf_counter()
            bound = np.full(3, RADIUS)
            mesh = stuff(lambda x: np.linalg.norm(x, axis=1) - RADIUS, (-bound, bound), edge)
            body = VolumeConductor(mesh, np.tile(SIGMA_B * np.eye(3), (mesh.n_tets, 1, 1)))
            field = torso_field(body, electrodes)
            vm = 100 * np.exp(-((mesh.points - CENTRE) ** 2).sum(axis=1) / (2 * WIDTH**2))
            inner = stiffness(mesh, np.tile(TENSOR, (mesh.n_tets, 1, 1)))
            phi = body.solve(-(inner @ vm)[:, None])[:, 0]
            share = body.skin_share
            skin = np.flatnonzero(share)
            curved = np.asarray(hessian(CENTRE, mesh.points[skin]))
            volume = 100 * (2 * np.pi) ** 1.5 * WIDTH**3
            wanted = volume * np.einsum("ij,pij->p", TENSOR, curved)
            off = share[skin] @ (phi[skin] - wanted) ** 2
            row = {"edge_mm": edge, "nodes": mesh.n_nodes}
            row["smooth_l2"] = float(np.sqrt(off / (share[skin] @ wanted**2)))
            for name, recovered in (("dipole", False), ("dipole_recovered", True)):
                found = field.lead_vectors(dipoles, recovered=recovered)
                row[name] = float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
            row["wall_s"] = time.perf_counter() - start
            rows.append(row)
    steps = np.log(np.array(edges[:-1]) / np.array(edges[1:]))
    orders = {
        name: (np.log([a[name] / b[name] for a, b in pairwise(rows)]) / steps)
        for name in ("smooth_l2", "dipole", "dipole_recovered")
    }
    return {"rows": rows, "orders": {name: value.tolist() for name, value in orders.items()}}


def torso(heart_edges: tuple[float, ...] = (6.0, 3.0, 2.0)) -> dict[str, Any]:
    """Solve times, and how the ECG of a plane-like front depends on the torso's mesh."""
    heart = demo_heart()
    skin, frame = template_body(heart.mesh)
    electrodes = place_electrodes(skin, frame)
    inner, both = heart_tensors(heart, NIEDERER_2011)
    points = heart.mesh.points
    lat = 1.6 * np.linalg.norm(points - points[points[:, 2].argmin()], axis=1)
    t = np.arange(0.0, 180.0, 3.0)
    vm = -32.5 + 52.5 * np.tanh((t[:, None] - lat) / 4)

    def leads(weights):
        return twelve_lead(t, vm @ weights.T, electrodes.names).signals

    rows, signals = [], {}
    lungs = [template_lungs(frame, skin, heart.mesh)]
    for edge in heart_edges:
        note(f"torso, {edge:g} mm in the heart ...")
        mesh = torso_mesh(
            heart.mesh, skin, heart_edge=edge, electrodes=electrodes.positions, lungs=lungs
        )
        body = torso_conductor(mesh, heart, both)
        start = time.perf_counter()
        field = torso_field(body, electrodes)
        row = {"heart_edge_mm": edge, "nodes": mesh.n_nodes, "solves": len(electrodes.names)}
        rows.append(row | {"solve_s": time.perf_counter() - start})
        for transfer in TRANSFERS:
            source = torso_source(body, heart.mesh, inner, transfer=transfer)
            signals[edge, transfer] = leads(source.weights(field.potential))
    best = signals[heart_edges[-1], "recovered"]
    for row in rows:
        for transfer in TRANSFERS:
            off = signals[row["heart_edge_mm"], transfer] - best
            row[f"{transfer}_against_finest"] = float(np.linalg.norm(off) / np.linalg.norm(best))
    endless = leads(lead_field(heart.mesh, electrodes, inner, dtype=np.float64))
    alike = [float(np.corrcoef(a, b)[0, 1]) for a, b in zip(endless.T, best.T, strict=True)]
    ratio = float(np.abs(best).max() / np.abs(endless).max())
    return {"rows": rows, "endless_correlation": alike, "amplitude_over_endless": ratio}


def bidomain(edges: tuple[float, ...] = (0.5, 0.25)) -> dict[str, Any]:
    """LAT and ECG of monodomain with lead field against bidomain, on the same elements."""
    size, level = (10.0, 4.0, 3.0), 1.5
    rows = []
    for edge in edges:
        mesh = slab(size, edge)
        tissue = mesh.points[mesh.tets].mean(axis=1)[:, 2] < level
        inner = np.tile(np.diag([0.17, 0.019, 0.019]), (mesh.n_tets, 1, 1))
        outer = np.tile(np.diag([0.62, 0.24, 0.24]), (mesh.n_tets, 1, 1))
        baths = {"bath": outer.copy(), "no bath": outer}
        baths["bath"][~tissue] = np.eye(3)
        for name, conductivity in baths.items():
            inside = tissue if name == "bath" else np.ones(mesh.n_tets, bool)
            problem = build_bidomain(mesh, inside, inner, conductivity)
            points = mesh.points[problem.tissue_nodes]
            ends = [
                np.linalg.norm(mesh.points - p, axis=1).argmin()
                for p in ((size[0], 2.0, size[2]), (0.0, 2.0, size[2]))
            ]
            beats = []
            for mono in (False, True):
                note(f"bidomain, {edge:g} mm, {name}, {'mono' if mono else 'bi'}domain ...")
                beats.append(
                    run_bidomain(
                        problem,
                        get_model("mitchell-schaeffer"),
                        (points[:, 0] < 1.5) & (points[:, 1] < 1.5),
                        t_end=40.0,
                        dt=0.04,
                        monodomain=mono,
                    )
                )
            late = beats[0].lat - beats[1].lat
            a, b = (beat.phi_e[:, ends[0]] - beat.phi_e[:, ends[1]] for beat in beats)
            rows.append(
                {
                    "edge_mm": edge,
                    "case": name,
                    "nodes": mesh.n_nodes,
                    "lat_last_ms": float(np.nanmax(beats[0].lat)),
                    "lat_rms_ms": float(np.sqrt(np.nanmean(late**2))),
                    "lat_most_ms": float(np.nanmax(np.abs(late))),
                    "ecg_correlation": float(np.corrcoef(a, b)[0, 1]),
                    "ecg_amplitude_ratio": float(np.ptp(b) / np.ptp(a)),
                }
            )
    return {"rows": rows}


PARTS = {"ecg": ecg, "sphere": sphere, "torso": torso, "bidomain": bidomain}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    unknown = set(asked.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {', '.join(unknown)}; expected {', '.join(PARTS)}")
    result: dict[str, Any] = {"machine": machine(), "jax": jax.__version__}
    for name in asked.parts or PARTS:
        note(f"{name} ...")
        result[name] = PARTS[name]()
    file = device_folder() / "lead_field.json"
    if file.is_file():
        result = json.loads(file.read_text()) | result
    write_json(file, result)
    print(json.dumps(result) if asked.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
