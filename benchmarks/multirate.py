"""What it brings to update slow gates less often, and what it costs in accuracy.

A gate counts as slow where its time constant is at least `SLOW` ms at every voltage and at the
calcium of the resting cell; those are relaxed over `EVERY` steps at once, all else every step.

python benchmarks/multirate.py --json
"""

import argparse
import json
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _processes import machine, note, write_json
from niederer import device_folder

from twinheart.cell import biomarkers, get_model
from twinheart.cell.elementary import relaxed_fraction
from twinheart.cell.model import Gate
from twinheart.tissue.run import compiler_options

MODELS = ("tentusscher2006-epi", "torord-endo")
SLOW, EVERY, ROUNDS = 5.0, 5, 7


def slow_gates(model) -> frozenset[int]:
    """Numbers of the state variables that are slow gates."""
    vm = jnp.linspace(-100.0, 60.0, 321)
    state = tuple(jnp.full(vm.shape, x) for x in model.initial_state())
    _, rates = model.rates(vm, state)
    return frozenset(
        k for k, r in enumerate(rates) if isinstance(r, Gate) and float(jnp.max(r.rate)) < 1 / SLOW
    )


def partly(model, vm, state, dt, i_stim, slow, span):
    """`twinheart.cell.step`, the slow gates relaxed over `span` steps (0: left alone)."""

    def relaxed(k, x, r):
        if not isinstance(r, Gate) or (k in slow and span == 0):
            return x
        return x + (r.steady - x) * relaxed_fraction((dt * span if k in slow else dt) * r.rate)

    _, rates = model.rates(vm, state, i_stim)
    state = tuple(relaxed(k, x, r) for k, (x, r) in enumerate(zip(state, rates, strict=True)))
    i_ion, rates = model.rates(vm, state, i_stim)
    new = tuple(x if isinstance(r, Gate) else x + dt * r for x, r in zip(state, rates, strict=True))
    return vm + dt * (i_stim - i_ion), new


def marched(model, vm, state, dt, steps, i_stim, slow):
    """`steps` steps, a multiple of `EVERY`; with no slow gates the plain scheme."""

    def body(carry, _):
        for k in range(EVERY):
            span = EVERY if k == 0 else 0
            vm, state = carry
            carry = partly(model, vm, state, dt, i_stim, slow, span if slow else 1)
        return carry, None

    return jax.lax.scan(body, (vm, state), length=steps // EVERY)[0]


def beat(model, dt, slow):
    """Voltage of one beat of 500 ms from rest, a sample a millisecond."""
    per_ms = round(1 / dt)
    run = jax.jit(lambda vm, state, i: marched(model, vm, state, dt, per_ms, i, slow))
    vm, state = model.initial_vm(), tuple(model.initial_state())
    kept = [vm]
    for k in range(500):
        on = k < round(model.stimulus.duration)
        vm, state = run(vm, state, model.stimulus.amplitude if on else jnp.zeros_like(vm))
        kept.append(vm)
    return jnp.stack(kept)


def measure(name: str, nodes: int, steps: int, dt: float) -> dict[str, Any]:
    """Cost of both in turn, and their difference over a beat in double precision."""
    model = get_model(name)
    slow = slow_gates(model)
    vm = jnp.asarray(np.random.default_rng(0).uniform(-85, 20, nodes), jnp.float32)
    state = tuple(jnp.full(nodes, x, jnp.float32) for x in model.initial_state())
    programs = {}
    for label, chosen in (("plain", frozenset()), ("multirate", slow)):

        def run(model, vm, state, chosen=chosen):
            return marched(model, vm, state, dt, steps, 0.0, chosen)

        programs[label] = jax.jit(run).lower(model, vm, state).compile(compiler_options())
        jax.block_until_ready(programs[label](model, vm, state))
    walls: dict[str, list[float]] = {label: [] for label in programs}
    for _ in range(ROUNDS):
        for label, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(model, vm, state))
            walls[label].append(time.perf_counter() - start)
    jax.config.update("jax_enable_x64", True)
    exact = get_model(name)
    traces = {
        "multirate": beat(exact, dt, slow),
        "plain": beat(exact, dt, frozenset()),
        "reference": beat(exact, dt / 4, frozenset()),
    }
    t = np.arange(501.0)
    apd = {k: float(biomarkers(t, v[:, None]).apd90[0]) for k, v in traces.items()}
    jax.config.update("jax_enable_x64", False)
    per = 1e9 / (nodes * steps)
    return {
        "slow": [model.state_names[k] for k in sorted(slow)],
        "plain_ns": float(np.median(walls["plain"])) * per,
        "multirate_ns": float(np.median(walls["multirate"])) * per,
        "time_ratio": float(np.median(np.divide(walls["multirate"], walls["plain"]))),
        "apd90_error_plain_ms": apd["plain"] - apd["reference"],
        "apd90_error_multirate_ms": apd["multirate"] - apd["reference"],
        "v_largest_change_mv": float(jnp.abs(traces["multirate"] - traces["plain"]).max()),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=58_176)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--dt", type=float, default=0.02, help="ms")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "jax": jax.__version__, "models": {}}
    for name in MODELS:
        note(f"{name} ...")
        result["models"][name] = measure(name, asked.nodes, asked.steps, asked.dt)
    result |= {"slow_ms": SLOW, "every": EVERY, "dt_ms": asked.dt, "nodes": asked.nodes}
    write_json(device_folder() / "multirate.json", result)
    print(json.dumps(result) if asked.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
