"""Runs of one heart over several devices, which need processes of their own (`test_sharded.py`).

`python tests/sharded_runs.py FILE`: on 1, 2 and 8 devices, stored in FILE (npz).
"""

import sys
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import twinheart as th
from twinheart.tissue import Built, Explicit, Monodomain, Run, run, solve
from twinheart.tissue.discrete import assemble
from twinheart.tissue.ensemble import Ensemble
from twinheart.tissue.sharded import Sharded
from twinheart.tissue.stimulus import stimulus_nodes

MESH = th.mesh.generate.slab((9.0, 3.0, 2.0), 0.5)
PROBES = np.array([3, MESH.n_nodes - 1])
T_END = 25.0  # ms


def two_models(dtype=np.float32, scheme=None) -> Built:
    """A slab of two layers: cells with other equations, some of whose parameters vary by node.

    Put together without `build_monodomain`, which would measure velocities on cables first.
    """
    heart = th.Heart(MESH, np.tile([1.0, 0.0, 0.0], (MESH.n_tets, 1)))
    upper = (MESH.points[:, 2] > 1).astype(np.int32)
    assembly = assemble(heart, upper, smoothing=0.6, pad=True)
    diffusivity = np.array([[0.15, 0.05, 0.05]])
    lower = assembly.order[upper[assembly.order] == 0]
    stimulus = th.pace("sphere:0,0,0,1.6", amplitude=80.0)
    mask = assembly.to_node_order(stimulus_nodes(heart, str(stimulus.where)))
    leads = np.random.default_rng(0).normal(size=(2, MESH.n_nodes))
    problem = Monodomain(
        tissue=assembly.tissue(diffusivity, dtype=dtype),
        models=(
            th.cell.get_model("mitchell-schaeffer", tau_close=150.0 + MESH.points[lower, 0]),
            th.cell.get_model("bueno-orovio-epi"),
        ),
        model_sizes=(len(lower), len(assembly.order) - len(lower)),
        stimuli=(stimulus,),
        stimulus_masks=(jnp.asarray(mask, dtype),),
        scheme=Explicit() if scheme is None else scheme,
        dt=jnp.asarray(0.05),
        threshold=jnp.asarray(0.0),
        lead_field=jnp.asarray(assembly.to_node_order(leads), dtype),
        probes=jnp.asarray(assembly.place[PROBES]),
        block=10,
    )
    return Built(problem, assembly, diffusivity, [], {})


def kept(found: Run) -> dict[str, np.ndarray]:
    """What is compared."""
    state, samples = found.state, found.samples
    arrays = {"lat": state.lat, "vm": state.vm, "peak": state.peak, "cells": state.cells[1][-1]}
    arrays |= {name: getattr(samples, name) for name in ("potentials", "probes", "largest")}
    return {name: np.asarray(values) for name, values in arrays.items()}


def interrupted(built: Built, first: int, then: int) -> Run:
    """Stopped half way on some devices, and gone on with on others."""

    def stop(t, _):
        if t >= T_END / 2:
            raise KeyboardInterrupt

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.ckpt"
        options = {"points": MESH.points, "checkpoint": path}
        try:
            run(built, T_END, devices=first, progress=stop, **options)
        except KeyboardInterrupt:
            return run(built, T_END, devices=then, resume=True, **options)
    raise AssertionError("was not interrupted")


def in_double(leaf):
    """An array of the problem in double precision."""
    return leaf.astype(np.float64) if eqx.is_inexact_array(leaf) else leaf


def derivatives(built: Built, devices: int | None) -> np.ndarray:
    """Of the mean activation and of an electrode, by diffusivities and by a parameter of cells."""
    problem, blocks = built.problem, 50
    spread = None if devices is None else Sharded(problem, devices)

    def moved(by):
        tissue = built.assembly.tissue(built.diffusivity * by[:3], dtype=np.float64)
        tau = problem.models[0].tau_in * by[3]
        return eqx.tree_at(lambda p: (p.tissue, p.models[0].tau_in), problem, (tissue, tau))

    def loss(by):
        at = moved(by)
        state, samples = solve(at, blocks) if spread is None else spread.solve(at, blocks)
        return jnp.nanmean(state.lat) + samples.potentials[:, 0].sum() / 1e3

    value, slope = jax.jit(jax.value_and_grad(loss))(jnp.ones(4))
    return np.array([value, *slope])


def several_devices(file: str) -> None:
    """Double and single precision, on one device and on several."""
    built = two_models()
    problems = [built.problem, eqx.tree_at(lambda p: p.dt, built.problem, built.problem.dt / 2)] * 2
    ensemble = Ensemble(problems)
    found = {
        f"members{n}/{k}": np.asarray(state.lat)
        for n in (1, 4)
        for k, (state, _) in enumerate(
            ensemble.run(5.0, points=MESH.points, plan=ensemble.plan(devices=n))
        )
    }
    np.savez(file + ".members", **found)
    found = {"single": run(built, T_END, points=MESH.points)}
    found["single8"] = run(built, T_END, points=MESH.points, devices=8)
    found["resumed"] = interrupted(built, 8, 2)
    jax.config.update("jax_enable_x64", True)
    built = built._replace(problem=jax.tree.map(in_double, built.problem))
    found["double"] = run(built, T_END, points=MESH.points)
    found["double8"] = run(built, T_END, points=MESH.points, devices=8)
    arrays = {f"{name}/{key}": x for name, r in found.items() for key, x in kept(r).items()}
    for n in (None, 4):
        arrays[f"derivatives{n or 1}"] = derivatives(built, n)
    np.savez(file, **arrays)


def one_of_several_processes(file: str) -> None:
    """A process that was joined with others, each with one device and the whole set-up."""
    found = run(two_models(), T_END, points=MESH.points, devices=jax.device_count())
    if jax.process_index() == 0:
        np.savez(file, devices=jax.device_count(), **kept(found))


if __name__ == "__main__":
    several_devices(sys.argv[1])
