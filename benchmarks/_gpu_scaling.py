"""Sections of `gpu.py` on memory, on several devices and on the Warp kernel."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from _gpu_sections import BLOCK, DT, problem_of

from twinheart.errors import SolverError
from twinheart.tissue.fused import compare, fused_step, why_not
from twinheart.tissue.memory import checkpoint_plan, memory_of, run_bytes
from twinheart.tissue.monodomain import Monodomain, initial_state, one_step, solve
from twinheart.tissue.run import compiler_options
from twinheart.tissue.sharded import Sharded

MILLIONS = (0.442, 1.0, 5.0)
GRADIENT_BLOCKS = 4


def memory(quick: bool, folder: Path) -> dict[str, Any]:
    """What is free, what hearts of several sizes need, and how their gradients are checkpointed."""
    small = problem_of(5000, folder)
    free = memory_of()
    found: dict[str, Any] = {
        "free_gb": free.free / 1e9,
        "total_gb": free.total / 1e9,
        "held_by_others_gb": free.taken_by_others / 1e9,
        "nodes_that_fit": int(0.9 * free.free / (run_bytes(small) / small.tissue.n_nodes)),
    }
    for millions in MILLIONS:
        problem = described(small, int(1e6 * millions))
        try:
            plan = str(checkpoint_plan(problem, round(100.0 / (DT * BLOCK)), memory=free))
        except SolverError as error:
            plan = str(error)
        found[f"{millions:g} M"] = {"run_gb": run_bytes(problem) / 1e9, "plan": plan}
    return found


def described(problem: Monodomain, nodes: int) -> Monodomain:
    """The sizes of the same problem with more nodes."""
    n = problem.tissue.n_nodes

    def larger(x):
        shape = tuple(nodes if size == n else size for size in x.shape)
        return jax.ShapeDtypeStruct(shape, x.dtype)

    problem = dataclasses.replace(problem, model_sizes=(nodes,))
    arrays, fixed = eqx.partition(problem, eqx.is_array)
    return eqx.combine(jax.tree.map(larger, arrays), fixed)


def sharded(quick: bool, folder: Path, nodes: int = 1_000_000) -> dict[str, Any]:
    """One heart over as many devices as there are: time of a step, and the largest difference."""
    problem = problem_of(5000 if quick else nodes, folder)
    blocks = 4 if quick else 40
    available = len(jax.devices())
    found: dict[str, Any] = {"nodes": problem.tissue.n_nodes, "available": available}
    lat: dict[int, np.ndarray] = {}
    for devices in sorted({1, 2, 4, 8, available}):
        if devices > available:
            continue
        spread = Sharded(problem, devices)
        state = spread.scatter(initial_state(problem))
        program = spread.program(state, blocks, options=compiler_options())
        state, _ = program(state)
        start = time.perf_counter()
        state, _ = program(state)
        seconds = time.perf_counter() - start
        lat[devices] = spread.gather_field(state.lat)
        found[f"{devices} devices"] = {
            "us_per_step": 1e6 * seconds / (blocks * BLOCK),
            "largest_difference_ms": float(np.nanmax(np.abs(lat[devices] - lat[1]))),
            **{k: v for k, v in spread.partition.summary().items() if k != "message_nodes"},
        }
    if available == 1:
        found["not_measured"] = "one device: nothing was exchanged"
    elif jax.default_backend() == "cpu":
        found["not_measured"] = "virtual devices share one processor: no speed"
    return found


def warp(
    quick: bool, folder: Path, nodes: int = 442_000, model: str = "tentusscher2006-epi"
) -> dict[str, Any]:
    """The step as a Warp kernel beside that of jax, and how they differ."""
    problem = problem_of(5000 if quick else nodes, folder, model)
    reason = why_not(problem)
    if reason is not None:
        return {"not_measured": reason}
    verdict = compare(problem)
    return {
        "nodes": problem.tissue.n_nodes,
        "model": model,
        **verdict._asdict(),
        "jax_over_warp": verdict.jax_us / verdict.warp_us,
        "takes_warp": verdict.takes_warp,
    }


def warp_gradient(
    quick: bool, folder: Path, nodes: int = 442_000, model: str = "tentusscher2006-epi"
) -> dict[str, Any]:
    """The gradient with respect to everything by both adjoints, and how they differ."""
    problem = problem_of(5000 if quick else nodes, folder, "mitchell-schaeffer" if quick else model)
    reason = why_not(problem)
    if reason is not None:
        return {"not_measured": reason}
    found: dict[str, Any] = {"nodes": problem.tissue.n_nodes, "model": problem.models[0].name}
    arrays, fixed = eqx.partition(problem, eqx.is_inexact_array)
    gradients = []
    for name, step in (("jax", one_step), ("warp", fused_step)):

        def mean_vm(arrays, step=step):
            state, _ = solve(eqx.combine(arrays, fixed), GRADIENT_BLOCKS, step=step)
            return state.vm.mean()

        start = time.perf_counter()
        program = jax.jit(jax.grad(mean_vm)).lower(arrays).compile()
        found[f"{name}_compile_s"] = time.perf_counter() - start
        gradients.append(jax.block_until_ready(program(arrays)))
        start = time.perf_counter()
        jax.block_until_ready(program(arrays))
        steps = GRADIENT_BLOCKS * problem.block
        found[f"{name}_us_per_step"] = 1e6 * (time.perf_counter() - start) / steps
    exact, other = (np.asarray(g.tissue.diffusion) for g in gradients)
    found["difference"] = float(np.abs(other - exact).max() / np.abs(exact).max())
    return found
