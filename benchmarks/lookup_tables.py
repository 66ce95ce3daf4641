"""What tables of the voltage would bring: ten Tusscher 2006 (epi) as compiled codes solve it.

openCARP, myokit and others tabulate every function of the voltage (rows of 28 numbers at 0.05 mV,
linear interpolation) instead of evaluating exponentials. The same is written here in numba, one
node at a time, parallel over the nodes, and timed in turn with twinheart's step; a paced beat of
each shows that both solve the same equations.

pip install numba; python benchmarks/lookup_tables.py --json
"""

import argparse
import json
import time
from typing import Any

import jax
import jax.numpy as jnp
import numba
import numpy as np
from _processes import machine, note, write_json
from cell import march
from niederer import device_folder

from twinheart.cell import get_model
from twinheart.tissue.run import compiler_options

V_MIN, V_MAX, V_STEP = -120.0, 100.0, 0.05  # mV
R_T_F = 8314.472 * 310.0 / 96485.3415  # mV
FARADAY, CAPACITANCE = 96485.3415, 0.185
V_C, V_SR, V_SS = 0.016404, 0.001094, 5.468e-5
ROUNDS = 7


def table(dt: float) -> np.ndarray:
    """(voltage, column) float32: 11 gates (steady state, relaxed fraction), then currents."""
    v = np.arange(V_MIN, V_MAX + V_STEP, V_STEP)
    e = np.exp
    low = v < -40.0
    a_h = np.where(low, 0.057 * e(-(v + 80) / 6.8), 0.0)
    b_h = np.where(
        low,
        2.7 * e(0.079 * v) + 3.1e5 * e(0.3485 * np.minimum(v, 0)),
        0.77 / (0.13 * (1 + e(-(v + 10.66) / 11.1))),
    )
    a_j = np.where(
        low,
        (-2.5428e4 * e(0.2444 * v) - 6.948e-6 * e(-0.04391 * v))
        * (v + 37.78)
        / (1 + e(0.311 * (v + 79.23))),
        0.0,
    )
    b_j = np.where(
        low,
        0.02424 * e(-0.01052 * v) / (1 + e(-0.1378 * (v + 40.14))),
        0.6 * e(0.057 * v) / (1 + e(-0.1 * (v + 32))),
    )
    h = 1 / (1 + e((v + 71.55) / 7.43)) ** 2
    gates = [  # steady state, time constant
        (1 / (1 + e((-26 - v) / 7)), 2700 / (1 + e((-45 - v) / 10)) / (1 + e((v + 30) / 11.5))),
        (1 / (1 + e((v + 88) / 24)), 3.36 / (1 + e((-60 - v) / 20)) / (1 + e((v - 60) / 20))),
        (
            1 / (1 + e((-5 - v) / 14)),
            1400 / np.sqrt(1 + e((5 - v) / 6)) / (1 + e((v - 35) / 15)) + 80,
        ),
        (
            1 / (1 + e((-56.86 - v) / 9.03)) ** 2,
            (0.1 / (1 + e((v + 35) / 5)) + 0.1 / (1 + e((v - 50) / 200))) / (1 + e((-60 - v) / 5)),
        ),
        (h, 1 / (a_h + b_h)),
        (h, 1 / (a_j + b_j)),
        (
            1 / (1 + e((-8 - v) / 7.5)),
            (1.4 / (1 + e((-35 - v) / 13)) + 0.25) * 1.4 / (1 + e((v + 5) / 5))
            + 1 / (1 + e((50 - v) / 20)),
        ),
        (
            1 / (1 + e((v + 20) / 7)),
            1102.5 * e(-((v + 27) ** 2) / 225)
            + 200 / (1 + e((13 - v) / 10))
            + 180 / (1 + e((v + 30) / 10))
            + 20,
        ),
        (
            0.67 / (1 + e((v + 35) / 7)) + 0.33,
            562 * e(-((v + 27) ** 2) / 240)
            + 31 / (1 + e((25 - v) / 10))
            + 80 / (1 + e((v + 30) / 10)),
        ),
        (
            1 / (1 + e((v + 20) / 5)),
            85 * e(-((v + 45) ** 2) / 320) + 5 / (1 + e((v - 20) / 5)) + 3,
        ),
        (1 / (1 + e((20 - v) / 6)), 9.5 * e(-((v + 40) ** 2) / 1800) + 0.8),
    ]
    columns = [c for steady, tau in gates for c in (steady, -np.expm1(-dt / tau))]
    x = v / R_T_F
    columns.append(5.4 / 6.4 * 2.724 / (1 + 0.1245 * e(-0.1 * x) + 0.0353 * e(-x)))
    naca = 1000.0 / ((87.5**3 + 140.0**3) * 3.38) / (1 + 0.1 * e(-0.65 * x))
    columns += [2.0 * naca * e(0.35 * x), 140.0**3 * 2.5 * naca * e(-0.65 * x)]
    z = 2 * (v - 15) / R_T_F
    drive = 2 * FARADAY * 3.98e-5 * np.where(np.abs(z) < 1e-6, 1.0, z / np.expm1(z + 1e-12))
    columns += [0.25 * e(z) * drive, 2.0 * drive]
    columns.append(0.0146 / (1 + e((25 - v) / 5.98)))
    return np.stack(columns, axis=1).astype(np.float32)


def rectifier() -> np.ndarray:
    """Conductance of I_K1 over V - E_K, which reaches higher [nS/pF]."""
    dv = np.arange(V_MIN, V_MAX + 100.0, V_STEP)
    alpha = 0.1 / (1 + np.exp(0.06 * (dv - 200)))
    beta = (3 * np.exp(0.0002 * (dv + 100)) + np.exp(0.1 * (dv - 10))) / (1 + np.exp(-0.5 * dv))
    return (5.405 * alpha / (alpha + beta)).astype(np.float32)


@numba.njit(parallel=True, fastmath=True)
def advance(vm, state, rows, k1, dt, steps, i_stim):  # pragma: no cover - compiled
    """March all nodes by `steps` steps; `state` is (node, 18) in the order of the model."""
    for node in numba.prange(len(vm)):
        y = state[node]
        for _ in range(steps):
            v = vm[node]
            at = (v - V_MIN) * (1 / V_STEP)
            row = int(at)
            part = np.float32(at - row)
            low, high = rows[row], rows[row + 1]
            for g in range(9):
                steady = low[2 * g] + part * (high[2 * g] - low[2 * g])
                relaxed = low[2 * g + 1] + part * (high[2 * g + 1] - low[2 * g + 1])
                y[g] += (steady - y[g]) * relaxed
            ss = (y[15] / 0.05) ** 2
            y[9] += (0.6 / (1 + ss) + 0.4 - y[9]) * (1 - np.exp(-dt / (80 / (1 + ss) + 2)))
            for g in range(9, 11):
                steady = low[2 * g] + part * (high[2 * g] - low[2 * g])
                relaxed = low[2 * g + 1] + part * (high[2 * g + 1] - low[2 * g + 1])
                y[g + 1] += (steady - y[g + 1]) * relaxed
            xr1, xr2, xs, m, h, j, d, f, f2, fcass, s, r = y[:12]
            r_prime, ca_i, ca_sr, ca_ss, na_i, k_i = y[12], y[13], y[14], y[15], y[16], y[17]
            e_na = R_T_F * np.log(140.0 / na_i)
            e_k = R_T_F * np.log(5.4 / k_i)
            e_ca = 0.5 * R_T_F * np.log(2.0 / ca_i)
            e_ks = R_T_F * np.log((5.4 + 0.03 * 140.0) / (k_i + 0.03 * na_i))
            nak = (low[22] + part * (high[22] - low[22])) * na_i / (na_i + 40.0)
            naca = (low[23] + part * (high[23] - low[23])) * na_i**3 - (
                low[24] + part * (high[24] - low[24])
            ) * ca_i
            cal = (d * f * f2 * fcass) * (
                (low[25] + part * (high[25] - low[25])) * ca_ss
                - (low[26] + part * (high[26] - low[26]))
            )
            at = (v - e_k - V_MIN) * (1 / V_STEP)
            row = int(at)
            g_k1 = k1[row] + np.float32(at - row) * (k1[row + 1] - k1[row])
            g_pk = low[27] + part * (high[27] - low[27])
            i_na = 14.838 * m**3 * h * j * (v - e_na) + 0.00029 * (v - e_na)
            bca, pca = 0.000592 * (v - e_ca), 0.1238 * ca_i / (ca_i + 0.0005)
            i_k = (g_k1 + g_pk + 0.153 * xr1 * xr2 + 0.294 * r * s) * (v - e_k)
            i_k += 0.392 * xs * xs * (v - e_ks)
            kcasr = 2.5 - 1.5 / (1 + (1.5 / ca_sr) ** 2)
            o = 0.15 / kcasr * ca_ss**2
            o = o * r_prime / (0.06 + o)
            rel = 0.102 * o * (ca_sr - ca_ss)
            up = 0.006375 / (1 + (0.00025 / ca_i) ** 2)
            leak, xfer = 0.00036 * (ca_sr - ca_i), 0.0038 * (ca_ss - ca_i)
            y[12] += dt * (0.005 * (1 - r_prime) - 0.045 * kcasr * ca_ss * r_prime)
            y[13] += (
                dt
                / (1 + 0.2 * 0.001 / (ca_i + 0.001) ** 2)
                * (
                    (V_SR / V_C) * (leak - up)
                    + xfer
                    - CAPACITANCE / (2 * V_C * FARADAY) * (bca + pca - 2 * naca)
                )
            )
            y[14] += dt / (1 + 10.0 * 0.3 / (ca_sr + 0.3) ** 2) * (up - rel - leak)
            y[15] += (
                dt
                / (1 + 0.4 * 0.00025 / (ca_ss + 0.00025) ** 2)
                * (
                    (V_SR / V_SS) * rel
                    - (V_C / V_SS) * xfer
                    - CAPACITANCE / (2 * V_SS * FARADAY) * cal
                )
            )
            per_charge = CAPACITANCE / (V_C * FARADAY)
            y[16] -= dt * (i_na + 3 * nak + 3 * naca) * per_charge
            y[17] -= dt * (i_k - 2 * nak - i_stim) * per_charge
            vm[node] = v + dt * (i_stim - (i_na + i_k + nak + naca + cal + bca + pca))


def start(n: int, spread: bool):
    """Voltages and states (numba's, and twinheart's) of n cells."""
    model = get_model("tentusscher2006-epi")
    physical = [float(value) for value, _ in model.physical(model.initial_state()).values()]
    names = model.state_names
    order = list(range(13)) + [names.index(x) for x in ("ca_i", "ca_sr", "ca_ss", "na_i", "k_i")]
    state = np.tile(np.asarray(physical, np.float32)[order], (n, 1))
    v = np.full(n, model.initial_vm(), np.float32)
    if spread:
        v = np.random.default_rng(0).uniform(-85, 20, n).astype(np.float32)
    return v, state


def agreement(dt: float) -> float:
    """RMS difference of the voltage over a paced beat of 400 ms [mV]."""
    from twinheart.cell import pace_cell

    rows, k1 = table(dt), rectifier()
    v, state = start(1, False)
    amplitude, duration = 52.0, 1.0
    trace = pace_cell(
        get_model("tentusscher2006-epi"),
        bcl=400.0,
        amplitude=amplitude,
        duration=duration,
        dt=dt,
        sample_every=1.0,
    )
    kept = [float(v[0])]
    for k in range(400):
        current = amplitude if k < duration else 0.0
        advance(v, state, rows, k1, np.float32(dt), round(1 / dt), np.float32(current))
        kept.append(float(v[0]))
    return float(np.sqrt(np.mean((np.asarray(trace.vm) - kept) ** 2)))


def measure(nodes: int, steps: int, dt: float) -> dict[str, Any]:
    """Nanoseconds a node-step of both, in turn; one step a call, as tissue needs it."""
    rows, k1 = table(dt), rectifier()
    v, state = start(nodes, True)
    advance(v[:64], state[:64], rows, k1, np.float32(dt), 1, np.float32(0))
    model = get_model("tentusscher2006-epi")

    def run(model, vm, cells):
        return march(model, vm, cells, dt, steps)

    vm = jnp.asarray(v)
    cells = tuple(jnp.full(nodes, x, jnp.float32) for x in model.initial_state())
    ours = jax.jit(run).lower(model, vm, cells).compile(compiler_options())
    jax.block_until_ready(ours(model, vm, cells))
    walls: dict[str, list[float]] = {"tables": [], "twinheart": []}
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(steps):
            advance(v, state, rows, k1, np.float32(dt), 1, np.float32(0))
        walls["tables"].append(time.perf_counter() - began)
        began = time.perf_counter()
        jax.block_until_ready(ours(model, vm, cells))
        walls["twinheart"].append(time.perf_counter() - began)
    per = 1e9 / (nodes * steps)
    return {f"{name}_ns_per_node_step": float(np.median(w)) * per for name, w in walls.items()} | {
        "ratio": float(np.median(np.divide(walls["tables"], walls["twinheart"]))),
        "finite": bool(np.isfinite(v).all()),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=58_176)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--dt", type=float, default=0.02, help="ms")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    note("compiling ...")
    result = measure(asked.nodes, asked.steps, asked.dt) | {
        "v_rms_difference_mv": agreement(asked.dt),
        "nodes": asked.nodes,
        "dt_ms": asked.dt,
        "machine": machine(),
        "numba": numba.__version__,
        "jax": jax.__version__,
    }
    write_json(device_folder() / "lookup_tables.json", result)
    print(json.dumps(result) if asked.json else result)


if __name__ == "__main__":
    main()
