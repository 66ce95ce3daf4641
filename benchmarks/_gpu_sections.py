"""The measurements of `gpu.py`, each a function that returns what it found.

They need jax, equinox, jaxtyping, numpy, scipy and h5py only, so that they run on a bare node.
Times are medians of `REPEATS` runs after a warm-up, compile time apart.
"""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _slab import slab_of
from cell import march

from twinheart.anatomy import Heart
from twinheart.cell import get_model, scale_channels
from twinheart.fem import edge_difference_sum
from twinheart.mesh.biventricle import biventricle
from twinheart.tissue.conductivity import NIEDERER_2011
from twinheart.tissue.discrete import Tissue, assemble
from twinheart.tissue.ensemble import Ensemble
from twinheart.tissue.memory import checkpoint_plan
from twinheart.tissue.monodomain import Monodomain, advance, initial_state, solve
from twinheart.tissue.niederer import AMPLITUDE, DURATION, STIMULATED
from twinheart.tissue.run import compiler_options
from twinheart.tissue.scheme import Explicit, stages_needed
from twinheart.tissue.stimulus import pace, stimulus_nodes

REPEATS = 5
DT = 0.02  # ms
BLOCK = 25  # steps
SMOOTHING = 0.75  # of the ionic current: the cost does not depend on it


def median_s(function, *arguments, repeats: int = REPEATS) -> float:
    """Seconds of one call, without the first."""
    jax.block_until_ready(function(*arguments))
    walls = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        walls.append(time.perf_counter() - start)
    return float(np.median(walls))


def compiled(function, *arguments):
    """A compiled function, the seconds it took, and its temporary memory [MB]."""
    start = time.perf_counter()
    arrays, fixed = eqx.partition(arguments, eqx.is_array)
    program = (
        jax.jit(lambda given: function(*eqx.combine(given, fixed)))
        .lower(arrays)
        .compile(compiler_options=compiler_options())
    )
    memory = program.memory_analysis()
    used = memory.temp_size_in_bytes / 1e6 if memory else float("nan")

    def run(*arguments):
        return program(eqx.filter(arguments, eqx.is_array))

    return run, time.perf_counter() - start, used


def prepared(heart: str, nodes: int, folder: Path) -> dict[str, np.ndarray]:
    """A tissue of about this many nodes, kept in a folder for the next section.

    `heart` is "slab" (Niederer's) or "biventricle" (the analytic one, unstructured).
    """
    path = folder / f"{heart}{nodes}.npz"
    if not path.exists():
        assembly, mask = _assembled(heart, nodes)
        diffusivity = np.asarray(NIEDERER_2011.diffusivity)[None]
        tissue = assembly.tissue(diffusivity)
        stiffness, _ = assembly.stiffest(diffusivity)
        arrays = {k: np.asarray(v) for k, v in vars(tissue).items() if v is not None}
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, allow_pickle=False, mask=mask, stiffness=stiffness, **arrays)
        partial.rename(path)
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def _assembled(heart: str, nodes: int):
    """Geometry and the stimulated nodes, fibres along x."""
    if heart == "slab":
        mesh = slab_of(nodes)
        where: Any = STIMULATED
    else:
        edge = 1.92 * (50_902 / nodes) ** (1 / 3)
        mesh = biventricle(min(edge, 2.6))  # coarser walls would get holes
        x, y, z = mesh.points[mesh.points[:, 2].argmin()]
        where = f"sphere:{x:.3f},{y:.3f},{z:.3f},5"
    built = Heart(mesh, f0=np.tile([1.0, 0.0, 0.0], (mesh.n_tets, 1)))
    assembly = assemble(built, smoothing=SMOOTHING, pad=True)
    return assembly, assembly.to_node_order(stimulus_nodes(built, where))


def problem_of(
    nodes: int,
    folder: Path,
    model: str = "tentusscher2006-epi",
    *,
    heart: str = "slab",
    dt: float = DT,
    odd: bool = False,
) -> Monodomain:
    """A cell on a tissue, default scheme; `odd` adds a lone node, so that no vector divides it."""
    arrays = prepared(heart, nodes, folder)
    mask, stiffness = arrays.pop("mask"), float(arrays.pop("stiffness"))
    if odd:
        n = len(mask)
        columns = np.full((len(arrays["columns"]), 1), n, np.int32)
        arrays["columns"] = np.concatenate([arrays["columns"], columns], axis=1)
        for name in ("diffusion", "spread"):
            arrays[name] = np.pad(arrays[name], ((0, 0), (0, 1)))
        arrays["lumped"] = np.append(arrays["lumped"], np.float32(1.0))
        mask = np.append(mask, 0.0)
    host = ("order", "place")
    on_device: dict[str, Any] = {k: jnp.asarray(v) for k, v in arrays.items() if k not in host}
    tissue = Tissue(**on_device, order=arrays["order"], place=arrays["place"])
    return Monodomain(
        tissue=tissue,
        models=(get_model(model),),
        model_sizes=(tissue.n_nodes,),
        stimuli=(pace(STIMULATED, duration=DURATION, amplitude=AMPLITUDE),),
        stimulus_masks=(jnp.asarray(mask, jnp.float32),),
        scheme=Explicit(stages_needed(dt, stiffness)),
        dt=jnp.asarray(dt),
        threshold=jnp.asarray(0.0),
        lead_field=jnp.zeros((0, tissue.n_nodes), jnp.float32),
        probes=jnp.zeros(0, jnp.int32),
        block=BLOCK,
    )


def prepare(quick: bool, folder: Path, heart: str = "slab", nodes: int = 442_000) -> dict[str, Any]:
    """Assemble a tissue on the processor while others use the GPU."""
    arrays = prepared(heart, 5000 if quick else nodes, folder)
    return {"heart": heart, "nodes": len(arrays["mask"]), "slots": len(arrays["columns"])}


def ceilings(quick: bool, folder: Path) -> dict[str, Any]:
    """Copy bandwidth (bytes read and written) and what one iteration of a bare loop costs."""
    n = 10**7 if quick else 5 * 10**8
    x = jnp.arange(n, dtype=jnp.float32)
    copy_s = median_s(jax.jit(lambda x: x + 1.0), x)
    found = {"copy_gb_s": 8e-9 * n / copy_s}
    small = jnp.ones(1024)
    for unroll in (1, 5, 25):
        loop = jax.jit(
            lambda x, u=unroll: jax.lax.scan(
                lambda c, _: (jnp.sin(c), None), x, length=5000, unroll=u
            )[0]
        )
        found[f"loop_us_unroll_{unroll}"] = 1e6 * median_s(loop, small) / 5000
    return found


def ell(quick: bool, folder: Path) -> dict[str, Any]:
    """The edge-difference product in reverse Cuthill-McKee order and in random order."""
    tissue = problem_of(5000 if quick else 1_000_000, folder).tissue
    width, n = tissue.columns.shape
    shuffled = np.random.default_rng(0).permutation(n).astype(np.int32)
    place = np.argsort(shuffled).astype(np.int32)
    random = jnp.asarray(place[np.asarray(tissue.columns)[:, shuffled]])
    v = jnp.asarray(np.random.default_rng(1).normal(size=n), jnp.float32)
    found = {"nodes": n, "slots": width}
    bytes_moved = n * (8 * width + 8)
    for name, columns in (("ordered", tissue.columns), ("random", random)):

        def ten(v, columns=columns):
            for _ in range(10):
                v = v + 1e-3 * edge_difference_sum(tissue.diffusion, columns, v)
            return v

        seconds = median_s(jax.jit(ten), v) / 10
        found[name] = {"us": 1e6 * seconds, "gb_s": 1e-9 * bytes_moved / seconds}
    return found


def registers(folder: Path) -> list[dict]:
    """Registers and spills of the kernels dumped to `folder`, as ptxas reports them."""
    rows: list[dict] = []
    said = f"no ptx among {sorted(p.suffix for p in folder.iterdir())[:20]}"
    for path in sorted(folder.glob("*.ptx")):
        for ptxas in ptx_assemblers():
            command = [ptxas, "-v", "-arch=sm_90a", str(path), "-o", "/dev/null"]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            except (OSError, subprocess.TimeoutExpired) as error:
                said = str(error)
                continue
            said = done.stderr[-300:]
            if done.returncode == 0:
                rows += _kernels(done.stderr)
                break
    return sorted(rows, key=lambda row: -row["spill_bytes"])[:8] or [{"said": said}]


def ptx_assemblers() -> list[str]:
    """Those that come with jax, which read its PTX, then the system's."""
    own = [str(p) for place in sys.path for p in Path(place).glob("nvidia/*/bin/ptxas")]
    system = shutil.which("ptxas")
    return own + ([system] if system else [])


def _kernels(report: str) -> list[dict]:
    found = re.findall(
        r"entry function '(\w+)'.*?(\d+) bytes spill stores.*?Used (\d+) registers",
        report,
        re.DOTALL,
    )
    return [
        {"kernel": name, "registers": int(regs), "spill_bytes": int(spill)}
        for name, spill, regs in found
    ]


def ionic(
    quick: bool, folder: Path, model: str = "tentusscher2006-epi", odd: bool = False
) -> dict[str, Any]:
    """Uncoupled cells: nanoseconds a node-step; an `odd` number is not cut into vectors."""
    n, steps = (8192, 20) if quick else (1_048_576, 200)
    n += odd
    cell = get_model(model)

    def run(cell, vm, state):
        return march(cell, vm, state, DT, steps)

    vm = jnp.asarray(np.random.default_rng(0).uniform(-85, 20, n), jnp.float32)
    state = tuple(jnp.full(n, x, jnp.float32) for x in cell.initial_state())
    program, compile_s, temporary = compiled(run, cell, vm, state)
    seconds = median_s(program, cell, vm, state)
    variables = len(state) + 1
    return {
        "cells": n,
        "ns_per_node_step": 1e9 * seconds / (n * steps),
        "us_per_step": 1e6 * seconds / steps,
        "gb_s": 1e-9 * 8 * variables * n * steps / seconds,
        "variables": variables,
        "compile_s": compile_s,
        "temporary_mb": temporary,
        "finite": bool(jnp.isfinite(program(cell, vm, state)[0]).all()),
    }


def bytes_per_node_step(problem: Monodomain) -> int:
    """The least a step moves: state, current and activation time both ways, weights once."""
    variables = len(initial_state(problem).cells[0])
    return 8 * (variables + 3) + 12 * problem.tissue.columns.shape[0] + 8


def steps(
    quick: bool,
    folder: Path,
    nodes: int = 442_000,
    unroll: int = 1,
    model: str = "tentusscher2006-epi",
    odd: bool = False,
    heart: str = "slab",
    dt: float = DT,
    t_end: float | None = None,
) -> dict[str, Any]:
    """The whole time step; with `t_end` [ms] a run of that length from rest."""
    problem = problem_of(5000 if quick else nodes, folder, model, heart=heart, dt=dt, odd=odd)
    state = initial_state(problem)
    blocks = 4 if quick else max(8, min(80, int(4e7 / nodes)))
    if t_end and not quick:
        blocks = round(t_end / dt / BLOCK)

    def run(problem, state):
        return advance(problem, state, blocks, unroll=unroll)

    program, compile_s, temporary = compiled(run, problem, state)
    if t_end:
        start = time.perf_counter()
        end, _ = jax.block_until_ready(program(problem, state))
        wall_s = time.perf_counter() - start
    else:
        end, _ = program(problem, state)
        wall_s = median_s(program, problem, state, repeats=3)
    seconds = wall_s / (blocks * BLOCK)
    n = problem.tissue.n_nodes
    return {
        "nodes": n,
        "slots": problem.tissue.columns.shape[0],
        "unroll": unroll,
        "stages": getattr(problem.scheme, "stages", None),
        "model": model,
        "dt_ms": dt,
        "wall_s": wall_s,
        "us_per_step": 1e6 * seconds,
        "ns_per_node_step": 1e9 * seconds / n,
        "gb_s": 1e-9 * bytes_per_node_step(problem) * n / seconds,
        "s_per_simulated_s": seconds * 1000.0 / dt,
        "activated": float(jnp.isfinite(end.lat).mean()),
        "finite": bool(jnp.isfinite(end.vm).all()),
        "compile_s": compile_s,
        "temporary_mb": temporary,
    }


def precision(quick: bool, folder: Path) -> dict[str, Any]:
    """Activation times of the 0.2 mm slab in float32 against float64; and where halves break."""
    jax.config.update("jax_enable_x64", True)
    problem = problem_of(5000 if quick else 58_000, folder)
    blocks = round((15.0 if quick else 60.0) / (DT * BLOCK))
    lat, found = {}, {}
    for name in ("float32", "float64", "bfloat16", "float16"):
        # halves count neither steps nor time: those stay as they are
        cast = jax.tree.map(
            lambda x, to=name: x.astype(to) if eqx.is_inexact_array(x) else x, problem
        )
        cast = eqx.tree_at(lambda p: (p.dt, p.threshold), cast, (problem.dt, problem.threshold))
        run = eqx.filter_jit(lambda p: advance(p, initial_state(p), blocks, unroll=1)[0].lat)
        start = time.perf_counter()
        lat[name] = np.asarray(run(cast), np.float64)
        found[name] = {
            "activated": float(np.isfinite(lat[name]).mean()),
            "s": time.perf_counter() - start,
        }
    difference = np.abs(lat["float32"] - lat["float64"])
    return {
        "nodes": problem.tissue.n_nodes,
        **found,
        "largest_difference_ms": float(np.nanmax(difference)),
        "mean_difference_ms": float(np.nanmean(difference)),
        "last_activation_ms": float(np.nanmax(lat["float64"])),
    }


def gradient(quick: bool, folder: Path, nodes: int = 442_000, t_end: float = 100.0):
    """Reverse mode against the forward run: the mean activation time by conductivity weights."""
    problem = problem_of(5000 if quick else nodes, folder)
    blocks = round((5.0 if quick else t_end) / (DT * BLOCK))

    def scaled(scale):
        tissue = eqx.tree_at(
            lambda t: t.diffusion, problem.tissue, problem.tissue.diffusion * scale
        )
        return eqx.tree_at(lambda p: p.tissue, problem, tissue)

    def forward(scale):
        state, _ = advance(scaled(scale), initial_state(problem), blocks, unroll=1)
        return jnp.nansum(state.lat) / problem.tissue.n_nodes

    plan = checkpoint_plan(problem, blocks)

    def loss(scale):
        state, _ = solve(scaled(scale), blocks, groups=plan.groups)
        return jnp.nansum(state.lat) / problem.tissue.n_nodes

    one = jnp.float32(1.0)
    found: dict[str, Any] = {"nodes": problem.tissue.n_nodes, "steps": blocks * BLOCK}
    found["plan"] = str(plan)
    for name, function in (
        ("forward", forward),
        ("reverse", jax.grad(loss)),
        ("jvp", lambda x: jax.jvp(forward, (x,), (one,))[1]),
    ):
        program, compile_s, temporary = compiled(function, one)
        found[name] = {
            "s": median_s(program, one, repeats=1 if name == "reverse" else 2),
            "compile_s": compile_s,
            "temporary_mb": temporary,
            "value": float(program(one)) if name != "reverse" else None,
        }
    found["reverse_over_forward"] = found["reverse"]["s"] / found["forward"]["s"]
    found["jvp_over_forward"] = found["jvp"]["s"] / found["forward"]["s"]
    return found


def population(quick: bool, folder: Path, cells: int = 100_000) -> dict[str, Any]:
    """A population of ToR-ORd cells with scattered conductances, ten beats at 1000 ms."""
    from population import measure

    return measure(512 if quick else cells, 1 if quick else 10, DT, reference=False)


def ensemble(quick: bool, folder: Path, hearts: int = 32, nodes: int = 50_000):
    """Hearts that differ in a conductance, batched, against one after the other."""
    hearts, nodes = (2, 2000) if quick else (hearts, nodes)
    problem = problem_of(nodes, folder)
    (model,) = problem.models
    blocks = 4 if quick else 20

    def run(scale, state):
        cell = scale_channels(model, {"i_ks": scale})
        here = eqx.tree_at(lambda p: p.models, problem, (cell,))
        return advance(here, state, blocks, unroll=1)[0].vm

    scales = np.linspace(0.5, 1.5, hearts, dtype=np.float32)
    members = [
        eqx.tree_at(lambda p: p.models, problem, (scale_channels(model, {"i_ks": scale}),))
        for scale in scales
    ]
    state = initial_state(problem)
    one_s = median_s(jax.jit(run), jnp.float32(1.0), state, repeats=3)
    many = jax.jit(jax.vmap(run, in_axes=(0, None)))
    all_s = median_s(many, jnp.asarray(scales), state, repeats=3)
    return {
        "hearts": hearts,
        "nodes": problem.tissue.n_nodes,
        "us_per_step_single": 1e6 * one_s / (blocks * BLOCK),
        "us_per_step_batch": 1e6 * all_s / (blocks * BLOCK),
        "throughput_gain": hearts * one_s / all_s,
        "plan": str(Ensemble(members).plan()),
    }


def eikonal(quick: bool, folder: Path, nodes: int = 1_000_000) -> dict[str, Any]:
    """Activation times of the slab by sweeps, and their gradient by the velocities."""
    from twinheart.tissue import Sites, Velocities, arrival, build_eikonal

    mesh = slab_of(5000 if quick else nodes)
    heart = Heart(mesh, f0=np.tile([1.0, 0.0, 0.0], (mesh.n_tets, 1)))
    problem = build_eikonal(heart, Velocities(0.6, 0.3), solver="sweeps", tolerance=1e-3)
    sites = Sites([[1.0, 1.0, 1.0]])

    def times(velocity):
        return arrival(eqx.tree_at(lambda p: p.velocity, problem, velocity), sites)

    forward = jax.jit(times)
    reverse = jax.jit(jax.grad(lambda velocity: times(velocity).mean()))
    lat = np.asarray(forward(problem.velocity), np.float64)
    # plane geometry: the exact arrival outside the ball of the source
    offset = mesh.points - np.array([1.0, 1.0, 1.0])
    exact = np.sqrt((offset[:, 0] / 0.6) ** 2 + (offset[:, 1:] ** 2).sum(axis=1) / 0.3**2)
    return {
        "nodes": mesh.n_nodes,
        "tets": mesh.n_tets,
        "forward_ms": 1e3 * median_s(forward, problem.velocity),
        "reverse_ms": 1e3 * median_s(reverse, problem.velocity, repeats=3),
        "mean_error_ms": float(np.abs(lat - exact).mean()),
        "last_ms": float(lat.max()),
    }


def ecg(quick: bool, folder: Path, nodes: int = 1_000_000, samples: int = 1000):
    """Potentials at the electrodes from V_m at every node, and by the wave's histogram."""
    from twinheart.tissue.template import templates_of
    from twinheart.tissue.wave_ecg import wave_ecg

    mesh = slab_of(5000 if quick else nodes)
    heart = Heart(mesh, f0=np.tile([1.0, 0.0, 0.0], (mesh.n_tets, 1)))
    electrodes = 9
    noise = np.random.default_rng(0)
    shares = noise.standard_normal((electrodes, mesh.n_tets, 4)).astype(np.float32)
    shares -= shares.mean(axis=2, keepdims=True)
    field = jnp.asarray(noise.standard_normal((electrodes, mesh.n_nodes)), jnp.float32)
    # as many samples at a time as a run writes between two visits of the host
    vm = jnp.asarray(noise.standard_normal((100, mesh.n_nodes)), jnp.float32)
    product = jax.jit(lambda vm: vm @ field.T)
    templates = templates_of(heart, get_model("mitchell-schaeffer"))
    wave = wave_ecg(mesh.tets, shares, templates, np.arange(float(samples)), crossing=1.0)
    lat = jnp.asarray(mesh.points @ [1.6, 1.0, 1.0], jnp.float32)
    return {
        "nodes": mesh.n_nodes,
        "electrodes": electrodes,
        "samples": samples,
        "from_vm_ms": 1e3 * median_s(product, vm) * samples / len(vm),
        "wave_ms": 1e3 * median_s(jax.jit(lambda lat: wave(lat)), lat),
    }


def torchcor(quick: bool, folder: Path, dx: float = 0.1, mode: str = "default") -> dict[str, Any]:
    """TorchCor on the same slab, cell, step and device: seconds a step."""
    from types import SimpleNamespace

    from _torchcor import start_torchcor

    options = SimpleNamespace(dt=DT, threads=8, dtype="float32", eager=False)
    platform = "gpu" if jax.default_backend() == "gpu" else "cpu"
    child = start_torchcor(folder, 0.5 if quick else dx, mode, platform, options)
    answers = [child.request(t_end=2.0 if quick else 6.0, activation=False) for _ in range(3)]
    child.close()
    per_step = [a["wall_s"] * DT / a["t_ms"] for a in answers]
    return {
        "nodes": child.about["n_nodes"],
        "mode": mode,
        "us_per_step": 1e6 * float(np.median(per_step)),
        "cg_iterations_per_step": answers[-1]["cg_iterations_per_step"],
        "compile_s": child.about["compile_s"],
        "about": {k: child.about[k] for k in ("torchcor", "torch", "device")},
    }
