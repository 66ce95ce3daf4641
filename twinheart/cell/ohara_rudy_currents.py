"""Equations that the models of the O'Hara-Rudy family share: gates, fluxes, pump and exchanger.

They come from O'Hara et al. 2011 (doi:10.1371/journal.pcbi.1002061) and are used unchanged by
CiPA v1.0 and ToR-ORd. `cell` is the model whose parameters are used, `e` holds the
`SharedExponentials` of the voltage `v`; gates are returned under the names of their states.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from twinheart.cell.elementary import SharedExponentials, inverses
from twinheart.cell.model import Follower, Gate

GAS_CONSTANT = 8314.0  # mJ/(mol K)
FARADAY = 96485.0  # C/mol

# Slopes [mV] of the rate functions that are powers of two shared exponentials: 4, 5, 10, 1/0.09,
# 20 and 100 divide 100; 3, 6 and 7 divide 84.
BASES = (100.0, 84.0)

Law = dict[str, Gate | jax.Array]


def ghk_drive(z: jax.Array, exp_z: jax.Array) -> tuple[jax.Array, jax.Array]:
    r"""Drives of Goldman-Hodgkin-Katz fluxes of charge one and two, smooth through zero.

    They are :math:`z/(e^z - 1)` and :math:`2z/(e^{2z} - 1)`, the second being the first times
    :math:`2/(e^z + 1)`. Near zero, where the quotient cancels, its series is used instead
    (truncation below 3e-11 for ``|z| < 0.5``).
    """
    near = jnp.abs(z) < 0.5
    z2 = z * z
    series = 1 / 720 - z2 * (1 / 30240 - z2 * (1 / 1209600))
    series = 1 - 0.5 * z + z2 * (1 / 12 - z2 * series)
    one = jnp.where(near, series, z) / jnp.where(near, 1.0, exp_z - 1)
    return one, 2 * one / (exp_z + 1)


def late_sodium_gates(cell: Any, v: jax.Array, rate_ml: jax.Array) -> Law:
    """mL, hL and the phosphorylated hL, whose curve is shifted by 6.2 mV and three times slower."""
    hl = jnp.exp((v + 87.61) * (1 / 7.488))
    rate = 1 / cell.tau_hl
    return {
        "ml": Gate(1 / (1 + jnp.exp((v + 42.85) * (-1 / 5.264))), rate_ml),
        "hl": Gate(1 / (1 + hl), rate),
        "hlp": Gate(1 / (1 + math.exp(6.2 / 7.488) * hl), rate * (1 / 3)),
    }


def transient_outward_gates(cell: Any, v: jax.Array, e: SharedExponentials) -> Law:
    """Activation a, fast and slow inactivation of I_to, and all three phosphorylated."""
    a, rise = jnp.exp((v - 14.34) * (-1 / 14.82)), jnp.exp(v * (1 / 29.3814))
    opening = rise / (1.2089 * (rise + math.exp(18.4099 / 29.3814)))
    rate_a = (opening + 3.5 / (1 + math.exp(100 / 29.3814) * rise)) * (1 / 1.0515)
    # tau_iF = (4.562 + 1 / fast) delta_epi and tau_iS = (23.62 + 1 / slow) delta_epi
    fast = 0.3933 * e.falling(-100, 100) + 0.08004 * jnp.exp((v + 50) * (1 / 16.59))
    slow = 0.001416 * jnp.exp((v + 96.52) * (-1 / 59.05))
    slow = slow + 1.78e-8 * jnp.exp((v + 114.1) * (1 / 8.079))
    # delta_epi = 1 - delta / (1 + q)
    q, r = e.rising(-70, 5), e.rising(-70, 20)
    per_delta = (1 + q) / (1 - cell.delta_epi + q)
    rate_if = per_delta * fast / (4.562 * fast + 1)
    rate_is = per_delta * slow / (23.62 * slow + 1)
    # dti_develop = 1.354 + 1e-4 / develop, where the first exponential of `develop` is cut at
    # e^25: beyond, the term is below 1e-14. dti_recover = 1 - 0.5 / (1 + r).
    develop = jnp.exp(jnp.minimum((v - 12.23) * (-1 / 0.2154), 25.0))
    develop = develop + jnp.exp((v - 167.4) * (1 / 15.89))
    slower = develop * (1 + r) / ((1.354 * develop + 1e-4) * (0.5 + r))
    steady = 1 / (1 + jnp.exp((v + 43.94) * (1 / 5.711)))
    return {
        "a": Gate(1 / (1 + a), rate_a),
        "ap": Gate(1 / (1 + math.exp(10 / 14.82) * a), rate_a),
        "if": Gate(steady, rate_if),
        "is": Gate(steady, rate_is),
        "ifp": Gate(steady, rate_if * slower),
        "isp": Gate(steady, rate_is * slower),
    }


def transient_outward_open(s: dict, v: jax.Array, phosphorylated: jax.Array) -> jax.Array:
    """Open fraction of I_to; `phosphorylated` is the fraction of its channels."""
    fast = 1 / (1 + jnp.exp((v - 213.6) * (1 / 151.2)))
    i = fast * s["if"] + (1 - fast) * s["is"]
    ip = fast * s["ifp"] + (1 - fast) * s["isp"]
    return (1 - phosphorylated) * s["a"] * i + phosphorylated * s["ap"] * ip


def calcium_channel_gates(
    v: jax.Array, e: SharedExponentials, d_steady: jax.Array, jca: Gate
) -> Law:
    """Gates of I_CaL; the steady state of d and the whole of jca differ between the papers."""
    rising, falling = e.rising, e.falling
    opening = falling(-6, 20) + rising(-14, 1 / 0.09)
    up, down = rising(-20, 10), falling(-20, 10)
    ff = 0.0045 * (up + down)
    fs = 3.5e-5 * (falling(-5, 4) + rising(-5, 6))
    fcaf = 0.04 * (falling(4, 7) + rising(4, 7))
    fcas = 0.00012 * (falling(0, 3) + rising(0, 7))
    # Every time constant is a + 1 / x, its inverse x / (a x + 1).
    rate_ff = ff / (7 * ff + 1)
    rate_fcaf = fcaf / (7 * fcaf + 1)
    steady = 1 / (1 + jnp.exp((v + 19.58) * (1 / 3.696)))
    return {
        "d": Gate(d_steady, opening / (0.6 * opening + 1)),
        "ff": Gate(steady, rate_ff),
        "fs": Gate(steady, fs / (1000 * fs + 1)),
        "fcaf": Gate(steady, rate_fcaf),
        "fcas": Gate(steady, fcas / (100 * fcas + 1)),
        "ffp": Gate(steady, rate_ff * (1 / 2.5)),
        "fcafp": Gate(steady, rate_fcaf * (1 / 2.5)),
        "jca": jca,
    }


def calcium_mode(cell: Any, nca: jax.Array, jca: jax.Array, ca: jax.Array) -> jax.Array:
    """Rate of n, the fraction of I_CaL channels in the mode inactivated by calcium.

    It is k2n anca - jca n with ``anca = 1 / (k2n / jca + (1 + Kmn / ca)^4)``.
    """
    ca2, apart2 = ca * ca, (ca + cell.k_mn) * (ca + cell.k_mn)
    binding = cell.k2n * ca2 * ca2
    return jca * (binding / (binding + jca * apart2 * apart2) - nca)


def calcium_channel_open(
    cell: Any, s: dict, e: SharedExponentials, phosphorylated: jax.Array, *modes: jax.Array
) -> tuple[jax.Array, ...]:
    """Open fraction of I_CaL for each n of `modes`, phosphorylated channels counted 1.1 times."""
    fast = 0.3 + 0.6 / (1 + e.rising(10, 10))
    slow = s["fcas"] - fast * s["fcas"]
    unbound, bound = 0.6 * s["ff"] + 0.4 * s["fs"], fast * s["fcaf"] + slow
    unbound_p, bound_p = 0.6 * s["ffp"] + 0.4 * s["fs"], fast * s["fcafp"] + slow
    weight_p = cell.p_ca_phosphorylated * phosphorylated
    unbound = (1 - phosphorylated) * unbound + weight_p * unbound_p
    bound = s["jca"] * ((1 - phosphorylated) * bound + weight_p * bound_p)
    return tuple(s["d"] * (unbound + n * (bound - unbound)) for n in modes)


def slow_potassium_gates(v: jax.Array, e: SharedExponentials) -> Law:
    """xs1 and xs2 of I_Ks."""
    steady = 1 / (1 + jnp.exp((v + 11.6) * (-1 / 8.932)))
    xs1 = 2.326e-4 * jnp.exp((v + 48.28) * (1 / 17.8))
    xs1 = xs1 + 0.001292 * jnp.exp((v + 210) * (-1 / 230))
    xs2 = 0.01 * e.rising(50, 20) + 0.0193 * jnp.exp((v + 66.54) * (-1 / 31))
    return {"xs1": Gate(steady, xs1 / (817.3 * xs1 + 1)), "xs2": Gate(steady, xs2)}


def exchanger(
    cell: Any, z: jax.Array, na_in: tuple[jax.Array, ...], ca_in: tuple[jax.Array, ...]
) -> tuple[jax.Array, ...]:
    """Charge moved by the sodium-calcium exchanger, allosteric factor included, per conductance.

    One value for each pair of sodium and calcium concentration inside the membrane [mM];
    `z` is v F / RT.
    """
    to_na, from_na = jnp.exp(cell.q_na * z), jnp.exp(-cell.q_na * z)
    from_ca = jnp.exp(-cell.q_ca * z)
    outside = cell.na_o / cell.k_na3
    h9 = 1 / (1 + outside + outside * from_na)
    h8 = outside * from_na * h9
    h10 = cell.k_asymm + 1 + cell.na_o / cell.k_na1 * (1 + cell.na_o / cell.k_na2)
    h11 = cell.na_o * cell.na_o / (h10 * cell.k_na1 * cell.k_na2)
    k1, k2, k5 = cell.ca_o * cell.k_ca_on / h10, cell.k_ca_off, cell.k_ca_off
    k3pp, k8 = cell.w_naca * h8, (cell.w_na * h11) * h8
    k3 = cell.w_ca * h9 + k3pp
    moved = []
    for na, ca in zip(na_in, ca_in, strict=True):
        inside = na * (1 / cell.k_na3)
        h3, h6 = inverses(
            1 + inside + inside * to_na, 1 + na * ((1 + na / cell.k_na2) / cell.k_na1)
        )
        h2, h5 = inside * to_na * h3, na * na * h6 * (1 / (cell.k_na1 * cell.k_na2))
        k4pp, k6, k7 = cell.w_naca * h2, cell.k_ca_on * ca * h6, cell.w_na * h5 * h2
        k4 = cell.w_ca * h3 * from_ca + k4pp
        x1 = k2 * k4 * (k7 + k6) + k5 * k7 * (k2 + k3)
        x2 = k1 * k7 * (k4 + k5) + k4 * k6 * (k1 + k8)
        x3 = k1 * k3 * (k7 + k6) + k8 * k6 * (k2 + k3)
        x4 = k2 * k8 * (k4 + k5) + k3 * k5 * (k1 + k8)
        sodium = 3 * (x4 * k7 - x1 * k8) + x3 * k4pp - x2 * k3pp
        calcium = x2 * k2 - x1 * k1
        ca2 = ca * ca
        allosteric = ca2 + cell.km_ca_act * cell.km_ca_act
        moved.append((sodium + 2 * calcium) * ca2 / ((x1 + x2 + x3 + x4) * allosteric))
    return tuple(moved)


def pump(cell: Any, z: jax.Array, na_i: jax.Array, k_i: jax.Array) -> jax.Array:
    """Charge moved by the sodium-potassium pump per permeability; `z` is v F / RT."""
    na = na_i / cell.k_nai0 * jnp.exp(z * (-cell.delta_nak / 3))
    na_out = cell.na_o / cell.k_nao0 * jnp.exp(z * ((cell.delta_nak - 1) / 3))
    na3, na_out3 = na * na * na, na_out * na_out * na_out
    k_in, k_out = k_i * (1 / cell.k_ki), cell.k_o / cell.k_ko
    per_in, per_out, per_p = inverses(
        (1 + na) * (1 + na) * (1 + na) + k_in * (2 + k_in),
        (1 + na_out) * (1 + na_out) * (1 + na_out) + k_out * (2 + k_out),
        1 + cell.h / cell.k_hp + na_i * (1 / cell.k_nap) + k_i * (1 / cell.k_xkur),
    )
    atp = cell.mg_atp / cell.k_mgatp
    a1, b1 = cell.k1p * na3 * per_in, cell.k1m * cell.mg_adp
    a2, b2 = cell.k2p, cell.k2m * na_out3 * per_out
    a3, b3 = (
        (cell.k3p * k_out * k_out) * per_out,
        (cell.k3m * cell.h * cell.e_p / (1 + atp)) * per_p,
    )
    a4, b4 = cell.k4p * atp / (1 + atp), cell.k4m * k_in * k_in * per_in
    x1 = a4 * a1 * a2 + b2 * b4 * b3 + a2 * b4 * b3 + b3 * a1 * a2
    x2 = b2 * b1 * b4 + a1 * a2 * a3 + a3 * b1 * b4 + a2 * a3 * b4
    x3 = a2 * a3 * a4 + b3 * b2 * b1 + b2 * b1 * a4 + a3 * a4 * b1
    x4 = b4 * b3 * b2 + a3 * a4 * a1 + b2 * a4 * a1 + b3 * b2 * a1
    return (3 * (x1 * a3 - x2 * b3) + 2 * (x4 * b1 - x3 * a1)) / (x1 + x2 + x3 + x4)


def uptake(cell: Any, phosphorylated: jax.Array, ca_i: jax.Array) -> jax.Array:
    """SERCA flux [mM/ms] without the leak; phosphorylated pumps are faster and bind earlier."""
    apart, apart_p = ca_i + cell.k_up, ca_i + cell.k_up - 0.00017
    mixture = (1 - phosphorylated) * apart_p + 2.75 * phosphorylated * apart
    return cell.v_up * ca_i * mixture / (apart * apart_p)


def release_laws(cell: Any, s: dict, i_cal_ss: jax.Array) -> Law:
    """Laws of the release fluxes that calcium entry triggers, plain and phosphorylated.

    The flux goes to ``-a_rel I_CaL / (1 + (k_jsr / Ca_jsr)^8)`` in the time ``bt / (1 + 0.0123 /
    Ca_jsr)``; bt is 1.25 times longer when phosphorylated. A store that runs empty, as it does in
    M cells of ToR-ORd, shortens that time to `tau_rel_min`, where only an exponential step is
    stable.
    """
    ca = s["ca_jsr"]
    ca2 = ca * ca
    ca8 = ca2 * ca2 * ca2 * ca2
    steady = (-cell.a_rel * cell.bt) * i_cal_ss * ca8 / (ca8 + cell.k_jsr**8)
    tau = (cell.bt * cell.tau_rel_factor) * ca / (ca + 0.0123)
    tau, tau_p = jnp.maximum(tau, cell.tau_rel_min), jnp.maximum(1.25 * tau, cell.tau_rel_min)
    return {"j_rel_np": Follower(steady, 1 / tau), "j_rel_p": Follower(1.25 * steady, 1 / tau_p)}


def free_fraction(
    ca: jax.Array, buffer: jax.Array, k: jax.Array, buffer2: Any = 0.0, k2: Any = 1.0
) -> jax.Array:
    """Fraction of calcium changes that stays free beside one or two fast buffers."""
    a, b = (ca + k) * (ca + k), (ca + k2) * (ca + k2)
    return a * b / (a * b + buffer * k * b + buffer2 * k2 * a)


def buffered_calcium(
    ca: jax.Array, flux: jax.Array, leaving: Any, stored: jax.Array, *buffers: Any
) -> Gate:
    """Calcium beside fast buffers as a gate; `flux` enters [mM/ms], `leaving` is -dflux/dca.

    The law is ``f = B(ca) flux`` with B the free fraction. Forward Euler with B of the start of
    the step loses calcium with every rise and fall, since buffers are concave; an exponential step
    with the rate -df/dca does not. Where calcium rises fast that rate is negative.
    """
    total, bend = 1.0, 0.0
    for amount, k in buffers:
        apart = 1 / (ca + k)
        bound = amount * k * apart * apart
        total, bend = total + bound, bend + 2 * bound * apart
    free = 1 / total
    rate = free * (leaving - free * bend * flux)
    rate = jnp.where(jnp.abs(rate) < 1e-3, 1e-3, rate)
    return Gate(stored + free * flux / rate, rate)
