"""A population of ToR-ORd cells: ten beats of every cell side by side, time and error.

The conductances of seven currents are scattered log-normally, as in populations of models
(Britton et al. 2013, doi:10.1073/pnas.1304382110, drew theirs uniformly). The error is that of some
of the cells against the same cells in double precision at a quarter of the time step.

python benchmarks/population.py --cells 1000 --json
"""

import argparse
import json
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _processes import machine, note, write_json
from niederer import device_folder

from twinheart.cell import biomarkers, get_model, pace_cell, scale_channels

CHANNELS = ("i_na", "i_nal", "i_cal", "i_to", "i_kr", "i_ks", "i_k1")
SPREAD = 0.2  # standard deviation of the logarithm of a conductance
BCL = 1000.0  # ms
CHECKED = 16  # cells compared with the reference
RECORDED = 0.5  # ms between samples of the beat that is looked at


def population(n: int):
    """The cells as one model with a conductance for each."""
    rng = np.random.default_rng(0)
    factors = {name: jnp.asarray(rng.lognormal(0.0, SPREAD, n)) for name in CHANNELS}
    return scale_channels(get_model("torord-endo"), factors)


def last_beat(model, final, dt: float):
    """Biomarkers of one more beat of the first `CHECKED` cells."""
    few = some(model, CHECKED)
    start = jax.tree.map(lambda x: x[:CHECKED], final)
    trace = pace_cell(few, bcl=BCL, dt=dt, sample_every=RECORDED, initial=start)
    return np.asarray(trace.vm), biomarkers(trace.t, trace.vm)


def some(model, n: int):
    """The first cells of a population."""
    return jax.tree.map(lambda x: x[:n] if eqx.is_array(x) and x.ndim else x, model)


def measure(n: int, beats: int, dt: float, reference: bool = True) -> dict[str, Any]:
    """Pace, then compare some of the cells with the reference."""
    model = population(n)

    def run(model):
        return pace_cell(model, n_beats=beats, bcl=BCL, dt=dt, sample_every=BCL, keep_beats=1).final

    start = time.perf_counter()
    final = jax.block_until_ready(run(model))
    with_compilation_s = time.perf_counter() - start
    start = time.perf_counter()
    final = jax.block_until_ready(run(model))
    wall_s = time.perf_counter() - start
    vm, marks = last_beat(model, final, dt)
    result: dict[str, Any] = {
        "cells": n,
        "beats": beats,
        "bcl_ms": BCL,
        "dt_ms": dt,
        "wall_s": wall_s,
        "wall_with_compilation_s": with_compilation_s,
        "ns_per_cell_step": 1e9 * wall_s / (n * beats * BCL / dt),
        "finite": bool(jnp.isfinite(final[0]).all()),
        "apd90_ms": [round(float(x), 3) for x in marks.apd90],
    }
    if reference:
        result["error"] = against_reference(n, beats, dt, vm, marks)
    return result


def against_reference(n: int, beats: int, dt: float, vm, marks) -> dict[str, float]:
    """Differences to double precision at a quarter of the step, over the cells checked."""
    jax.config.update("jax_enable_x64", True)
    try:
        few = some(population(n), CHECKED)
        fine = dt / 4
        final = pace_cell(
            few, n_beats=beats, bcl=BCL, dt=fine, sample_every=BCL, keep_beats=1
        ).final
        true_vm, true = last_beat(few, final, fine)
    finally:
        jax.config.update("jax_enable_x64", False)
    apd = np.abs(np.asarray(marks.apd90) - np.asarray(true.apd90))
    return {
        "apd90_ms_max": float(apd.max()),
        "apd90_ms_mean": float(apd.mean()),
        "v_rms_mv_max": float(np.sqrt(np.mean((vm - true_vm) ** 2, axis=0)).max()),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--beats", type=int, default=10)
    parser.add_argument("--dt", type=float, default=get_model("torord-endo").dt, help="ms")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    note(f"{asked.cells} cells, {asked.beats} beats, twice; then the reference ...")
    result: dict[str, Any] = measure(asked.cells, asked.beats, asked.dt) | {
        "machine": machine(),
        "device": str(jax.devices()[0].device_kind),
        "jax": jax.__version__,
    }
    write_json(device_folder() / "population.json", result)
    if asked.json:
        print(json.dumps(result))
        return
    print(
        f"{result['cells']} ToR-ORd cells, {result['beats']} beats, dt {result['dt_ms']} ms: "
        f"{result['wall_s']:.1f} s ({result['ns_per_cell_step']:.1f} ns a cell-step), APD90 within "
        f"{result['error']['apd90_ms_max']:.3f} ms"
    )


if __name__ == "__main__":
    main()
