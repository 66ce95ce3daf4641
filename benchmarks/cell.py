"""Cost of one time step of every cell model, in nanoseconds per node-step.

The cells are uncoupled and stepped in a `lax.scan` like the tissue's, one step per iteration.
Processor time is reported beside wall time: on a shared machine only the former is reproducible,
and divided by the number of cores it is what a quiet machine needs.

python benchmarks/cell.py --nodes 58176 --json
"""

import argparse
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
from _processes import machine, note

from twinheart.cell import AbstractCellModel, get_model, model_names, step

DT = 0.02  # ms
REPEATS = 7


def march(model: AbstractCellModel, vm, state, dt: float, steps: int):
    """Uncoupled cells, `steps` steps on, in a loop like the tissue's."""

    def body(carry, _):
        vm, state = carry
        i_ion, state = step(model, vm, state, dt)
        return (vm - dt * i_ion, state), None

    return jax.lax.scan(body, (vm, state), length=steps)[0]


def measure(model: AbstractCellModel, nodes: int, steps: int, options: dict | None) -> dict:
    """Compile apart, warm up once, then median and spread of `REPEATS` runs."""

    def run(model, vm, state):
        return march(model, vm, state, DT, steps)

    # Cells at different voltages, so that no branch of a rate function is taken by all of them.
    vm = jnp.asarray(np.random.default_rng(0).uniform(-85, 20, nodes), jnp.float32)
    state = tuple(jnp.full(nodes, x, jnp.float32) for x in model.initial_state())
    start = time.perf_counter()
    compiled = jax.jit(run, donate_argnums=(1, 2)).lower(model, vm, state).compile(options)
    compile_s = time.perf_counter() - start
    vm, state = jax.block_until_ready(compiled(model, vm, state))
    wall, processor = [], []
    for _ in range(REPEATS):
        start, used = time.perf_counter(), time.process_time()
        vm, state = jax.block_until_ready(compiled(model, vm, state))
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    per = 1e9 / (nodes * steps)
    return {
        "ns_per_node_step": float(np.median(wall)) * per,
        "ns_per_node_step_min": min(wall) * per,
        "processor_ns_per_node_step": float(np.median(processor)) * per,
        "compile_s": compile_s,
        "finite": bool(jnp.isfinite(vm).all()),
    }


def main() -> None:
    """Measure every model and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(model_names()))
    parser.add_argument("--nodes", type=int, default=58_176)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--vector-width", type=int, help="XLA:CPU's preferred bits, e.g. 512")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    width = asked.vector_width
    options = {"xla_cpu_prefer_vector_width": width} if width else None
    result = {
        "machine": machine(),
        "device": str(jax.devices()[0].device_kind),
        "jax": jax.__version__,
        "nodes": asked.nodes,
        "dt_ms": DT,
        "vector_width": width,
        "models": {},
    }
    for name in asked.models:
        note(f"{name} ...")
        result["models"][name] = measure(get_model(name), asked.nodes, asked.steps, options)
    if asked.json:
        print(json.dumps(result))
        return
    print(f"{result['machine']}; jax {result['jax']}; {asked.nodes} nodes, dt {DT} ms, float32")
    print(f"{'ns per node-step':24}{'wall':>8}{'min':>8}{'processor':>11}{'compile s':>11}")
    for name, row in result["models"].items():
        print(
            f"{name:24}{row['ns_per_node_step']:8.1f}{row['ns_per_node_step_min']:8.1f}"
            f"{row['processor_ns_per_node_step']:11.1f}{row['compile_s']:11.1f}"
        )


if __name__ == "__main__":
    main()
