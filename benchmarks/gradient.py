"""What a gradient costs beside the forward run: reverse and forward mode, time and memory.

python benchmarks/gradient.py --nodes 50000 --t-end 100 --json
"""

import argparse
import json
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from _processes import machine, write_json
from _slab import slab_of
from niederer import device_folder

from twinheart.tissue import advance, initial_state, solve
from twinheart.tissue.niederer import build_niederer
from twinheart.tissue.run import compiler_options


def timed(function, *arguments) -> dict[str, float]:
    """Compile apart, run once to warm up and once for the clock."""
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile(compiler_options=compiler_options())
    compile_s = time.perf_counter() - start
    memory = compiled.memory_analysis()
    jax.block_until_ready(compiled(*arguments))
    start = time.perf_counter()
    jax.block_until_ready(compiled(*arguments))
    return {
        "wall_s": time.perf_counter() - start,
        "compile_s": compile_s,
        "temporary_mb": memory.temp_size_in_bytes / 1e6 if memory else float("nan"),
    }


def measure(nodes: int, t_end: float) -> dict[str, Any]:
    """Forward, reverse and forward-mode derivative of an activation-time loss."""
    mesh = slab_of(nodes)
    built = build_niederer(mesh, 0.02)
    problem = built.problem
    blocks = round(t_end / (problem.block * 0.02))

    def with_diffusivity(d):
        return eqx.tree_at(lambda p: p.tissue, problem, built.assembly.tissue(d))

    def loss(d):
        state, _ = solve(with_diffusivity(d), blocks)
        return jnp.nansum(state.lat) / mesh.n_nodes

    def forward(d):
        state, _ = advance(with_diffusivity(d), initial_state(problem), blocks)
        return jnp.nansum(state.lat) / mesh.n_nodes

    d = jnp.asarray(built.diffusivity, jnp.float32)
    direction = jnp.ones_like(d)
    result: dict[str, Any] = {
        "forward": timed(forward, d),
        "reverse": timed(jax.grad(loss), d),
        "jvp": timed(lambda x: jax.jvp(forward, (x,), (direction,)), d),
    }
    base = result["forward"]["wall_s"]
    return {
        "n_nodes": mesh.n_nodes,
        "t_end_ms": t_end,
        "steps": blocks * problem.block,
        **result,
        "reverse_over_forward": result["reverse"]["wall_s"] / base,
        "jvp_over_forward": result["jvp"]["wall_s"] / base,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=50_000)
    parser.add_argument("--t-end", type=float, default=100.0, help="simulated ms")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result: dict[str, Any] = measure(options.nodes, options.t_end) | {"machine": machine()}
    write_json(device_folder() / "gradient.json", result)
    if options.json:
        print(json.dumps(result))
        return
    for name in ("forward", "reverse", "jvp"):
        row = result[name]
        print(f"{name:8s} {row['wall_s']:8.2f} s  {row['temporary_mb']:8.0f} MB", end="  ")
        print(f"compile {row['compile_s']:.1f} s")
    print(
        f"reverse {result['reverse_over_forward']:.2f} x, "
        f"jvp {result['jvp_over_forward']:.2f} x forward; "
        f"{result['n_nodes']} nodes, {result['steps']} steps "
    )


if __name__ == "__main__":
    main()
