"""Equations that the models built on ten Tusscher and Panfilov 2006 share.

Stewart et al. 2009 (human Purkinje cells) keeps the calcium handling, the pumps, exchangers and
background currents, and all gates but those of the transient outward current.
"""

import dataclasses
import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp

from twinheart.cell.elementary import driving_fraction, inverses, powerable_exp
from twinheart.cell.model import AbstractCellModel, Gate, Parameter, parameter

GAS_CONSTANT = 8314.472  # mJ/(mol K)
FARADAY = 96485.3415  # C/mol

# Slopes [mV] of the rate functions that are powers of two shared exponentials:
# 5, 6, 7.5, 10, 15, 20, 24 divide 120; 7 and 14 divide 14.
BASES = (120.0, 14.0)


class AbstractTenTusscher(AbstractCellModel):
    """Cell with the pumps, the calcium handling and the geometry of ten Tusscher 2006.

    A subclass declares its other conductances, its potassium currents and its gates. Parameters
    are given by name.

    References
    ----------
    ten Tusscher and Panfilov 2006, doi:10.1152/ajpheart.00109.2006.
    """

    g_na: eqx.AbstractVar[Parameter]
    _: dataclasses.KW_ONLY
    g_bna: Parameter = parameter(0.00029, "nS/pF")
    g_cal: Parameter = parameter(3.98e-5, "l/(F ms)")
    g_bca: Parameter = parameter(0.000592, "nS/pF")
    g_pk: Parameter = parameter(0.0146, "nS/pF")
    g_pca: Parameter = parameter(0.1238, "pA/pF")
    p_nak: Parameter = parameter(2.724, "pA/pF")
    k_naca: Parameter = parameter(1000.0, "pA/pF")
    p_kna: Parameter = parameter(0.03)
    k_mk: Parameter = parameter(1.0, "mM")
    k_mna: Parameter = parameter(40.0, "mM")
    k_sat: Parameter = parameter(0.1)
    alpha: Parameter = parameter(2.5)
    km_ca: Parameter = parameter(1.38, "mM")
    km_nai: Parameter = parameter(87.5, "mM")
    k_pca: Parameter = parameter(0.0005, "mM")
    vmax_up: Parameter = parameter(0.006375, "mM/ms")
    k_up: Parameter = parameter(0.00025, "mM")
    v_rel: Parameter = parameter(0.102, "1/ms")
    v_leak: Parameter = parameter(0.00036, "1/ms")
    v_xfer: Parameter = parameter(0.0038, "1/ms")
    k1_prime: Parameter = parameter(0.15, "1/(mM^2 ms)")
    k2_prime: Parameter = parameter(0.045, "1/(mM ms)")
    k3: Parameter = parameter(0.06, "1/ms")
    k4: Parameter = parameter(0.005, "1/ms")
    ec: Parameter = parameter(1.5, "mM")
    max_sr: Parameter = parameter(2.5)
    min_sr: Parameter = parameter(1.0)
    buf_c: Parameter = parameter(0.2, "mM")
    k_buf_c: Parameter = parameter(0.001, "mM")
    buf_sr: Parameter = parameter(10.0, "mM")
    k_buf_sr: Parameter = parameter(0.3, "mM")
    buf_ss: Parameter = parameter(0.4, "mM")
    k_buf_ss: Parameter = parameter(0.00025, "mM")
    na_o: Parameter = parameter(140.0, "mM")
    k_o: Parameter = parameter(5.4, "mM")
    ca_o: Parameter = parameter(2.0, "mM")
    temperature: Parameter = parameter(310.0, "K")
    capacitance: Parameter = parameter(0.185, "nF")
    v_c: Parameter = parameter(0.016404, "nl")
    v_sr: Parameter = parameter(0.001094, "nl")
    v_ss: Parameter = parameter(5.468e-5, "nl")

    units: ClassVar[dict[str, str]] = dict.fromkeys(("ca_i", "ca_ss", "ca_sr", "na_i", "k_i"), "mM")

    def _thermal_voltage(self):
        """RT/F [mV]; computed once a step, so that its derivative is summed once over the nodes."""
        return GAS_CONSTANT * self.temperature / FARADAY

    def _reversals(self, rt_f, ca_i, na_i, k_i):
        """Nernst potentials E_Na, E_K, E_Ca and that of I_Ks [mV]."""
        e_na = rt_f * (jnp.log(self.na_o) - jnp.log(na_i))
        e_k = rt_f * (jnp.log(self.k_o) - jnp.log(k_i))
        e_ca = 0.5 * rt_f * (jnp.log(self.ca_o) - jnp.log(ca_i))
        e_ks = rt_f * (
            jnp.log(self.k_o + self.p_kna * self.na_o) - jnp.log(k_i + self.p_kna * na_i)
        )
        return e_na, e_k, e_ca, e_ks

    def _sodium_conductance(self, m, h, j):
        """I_Na and I_bNa [nS/pF]."""
        return self.g_na * m**3 * h * j + self.g_bna

    def _transport(self, vm, rt_f, ca_gates, ca_i, ca_ss, na_i, e_ca):
        """Currents [A/F] NaK, NaCa, CaL, bCa, pCa.

        A current that several balances share ends with its division: XLA stores the result of a
        division but would compute anything cheaper again in every balance.
        """
        d, f, f2, fcass = ca_gates
        i_bca = self.g_bca * (vm - e_ca)
        i_pca = self.g_pca * ca_i / (ca_i + self.k_pca)

        # Powers of exp(v F / 20RT) serve the pump, the exchanger (gamma = 0.35) and I_CaL.
        root = powerable_exp(vm * (0.05 / rt_f))
        exp_v, exp_09v, exp_065v = root**20, root**18, root**13
        i_nak = (
            (self.p_nak * self.k_o / (self.k_o + self.k_mk)) * na_i * exp_v
            / ((na_i + self.k_mna) * (exp_v + 0.1245 * exp_09v + 0.0353))
        )  # fmt: skip
        k_naca = self.k_naca / ((self.km_nai**3 + self.na_o**3) * (self.km_ca + self.ca_o))
        i_naca = (
            (k_naca * self.ca_o) * exp_v * na_i**3 - (k_naca * self.na_o**3 * self.alpha) * ca_i
        ) / (exp_065v + self.k_sat)

        # 4 (v - 15) F^2/RT = 2 F z
        z = (vm - 15) * (2 / rt_f)
        exp_z = jnp.exp(-30 / rt_f) * exp_v**2
        drive, drive_below = driving_fraction(z, exp_z)
        g_cal = (2 * FARADAY * self.g_cal) * d * f * f2 * fcass
        i_cal = g_cal * (0.25 * ca_ss * exp_z - self.ca_o) * drive / drive_below
        return i_nak, i_naca, i_cal, i_bca, i_pca

    def _calcium(self, ca_i, ca_sr, ca_ss, r_prime, i_ca, i_cal):
        """Rates of R', Ca_i, Ca_ss, Ca_SR; `i_ca` is the calcium current of the cytosol [A/F]."""
        free_c, free_ss, free_sr = (
            (ca + k) ** 2
            for ca, k in ((ca_i, self.k_buf_c), (ca_ss, self.k_buf_ss), (ca_sr, self.k_buf_sr))
        )
        # kcasr = max_sr - (max_sr - min_sr) / (1 + (ec / ca_sr)^2) as a fraction
        kcasr = self.max_sr * self.ec**2 + self.min_sr * ca_sr**2
        kcasr_below = self.ec**2 + ca_sr**2
        o = self.k1_prime * ca_ss**2 * kcasr_below
        per_up, per_free_c = inverses(ca_i**2 + self.k_up**2, free_c + self.buf_c * self.k_buf_c)
        per_kcasr, per_o, per_free_ss, per_free_sr = inverses(
            kcasr_below,
            self.k3 * kcasr + o,
            free_ss + self.buf_ss * self.k_buf_ss,
            free_sr + self.buf_sr * self.k_buf_sr,
        )
        i_up = self.vmax_up * ca_i**2 * per_up
        i_leak = self.v_leak * (ca_sr - ca_i)
        i_xfer = self.v_xfer * (ca_ss - ca_i)
        i_rel = self.v_rel * o * r_prime * per_o * (ca_sr - ca_ss)

        d_r_prime = self.k4 * (1 - r_prime) - self.k2_prime * kcasr * per_kcasr * ca_ss * r_prime
        d_ca_i = (free_c * per_free_c) * (
            (self.v_sr / self.v_c) * (i_leak - i_up)
            + i_xfer
            - (self.capacitance / (2 * self.v_c * FARADAY)) * i_ca
        )
        d_ca_sr = (free_sr * per_free_sr) * (i_up - i_rel - i_leak)
        d_ca_ss = (free_ss * per_free_ss) * (
            (self.v_sr / self.v_ss) * i_rel
            - (self.v_c / self.v_ss) * i_xfer
            - (self.capacitance / (2 * self.v_ss * FARADAY)) * i_cal
        )
        return d_r_prime, d_ca_i, d_ca_ss, d_ca_sr

    def _balances(self, i_k, i_na, i_nak, i_naca, i_stim):
        """Rates of Na_i and K_i [mM/ms]; potassium carries the stimulus."""
        per_charge = self.capacitance / (self.v_c * FARADAY)
        d_na_i = -(i_na + 3 * i_nak + 3 * i_naca) * per_charge
        d_k_i = -(i_k - 2 * i_nak - i_stim) * per_charge
        return d_na_i, d_k_i


def gate(steady, rate) -> Gate:
    """Gate from two fractions (numerator, denominator) that share one division."""
    per_steady, per_rate = inverses(steady[1], rate[1])
    return Gate(steady[0] * per_steady, rate[0] * per_rate)


def potassium_gates(e):
    """Xr1, Xr2, Xs."""
    rising, falling = e.rising, e.falling
    xr1 = Gate(
        1 / (1 + falling(-26, 7)),
        (1 + falling(-45, 10)) * (1 + rising(-30, 11.5)) * (1 / (450 * 6)),
    )
    xr2 = Gate(
        1 / (1 + rising(-88, 24)),
        (1 + falling(-60, 20)) * (1 + rising(60, 20)) * (1 / (3 * 1.12)),
    )
    alpha_beta = jnp.sqrt(1 + falling(5, 6)) * (1 + rising(35, 15))
    xs = gate((1, 1 + falling(-5, 14)), (alpha_beta, 1400 + 80 * alpha_beta))
    return xr1, xr2, xs


def sodium_gates(v, e):
    """m, h, j; h and j have one rate function below -40 mV and another above."""
    rising, falling = e.rising, e.falling
    b, c = 1 + rising(-35, 5), 1 + rising(50, 200)
    m = gate((1, (1 + falling(-56.86, 9.03)) ** 2), ((1 + falling(-60, 5)) * b * c, 0.1 * (b + c)))
    # One exponential serves both branches: choosing its argument is cheaper than computing two.
    low = v < -40
    h_inf = 1 / (1 + rising(-71.55, 7.43)) ** 2
    a = jnp.exp(jnp.where(low, (v + 80) * (-1 / 6.8), (v + 10.66) * (-1 / 11.1)))
    h_low = 0.057 * a + 2.7 * jnp.exp(0.079 * v) + 310000 * jnp.exp(0.3485 * v)
    h_high = (0.77 / 0.13) / (1 + a)
    alpha_j = (
        (-25428 * jnp.exp(0.2444 * v) - 6.948e-6 * jnp.exp(-0.04391 * v))
        * (v + 37.78)
        / (1 + jnp.exp(0.311 * (v + 79.23)))
    )
    above = jnp.where(low, 0.02424, 0.6) * jnp.exp(jnp.where(low, -0.01052, 0.057) * v)
    below = 1 + jnp.exp(jnp.where(low, -0.1378 * (v + 40.14), -0.1 * (v + 32)))
    h = Gate(h_inf, jnp.where(low, h_low, h_high))
    j = Gate(h_inf, jnp.where(low, alpha_j, 0) + above / below)
    return m, h, j


def calcium_gates(v, e):
    """d, f, f2."""
    rising, falling = e.rising, e.falling
    a, b, c = 1 + falling(-35, 13), 1 + rising(-5, 5), 1 + falling(50, 20)
    # tau_d = (1.4 / a + 0.25) 1.4 / b + 1 / c
    d = gate((1, 1 + falling(-8, 7.5)), (a * b * c, (1.4 * 1.4 + 0.25 * 1.4 * a) * c + a * b))
    # exp(-(v + 27)^2 / 225) and exp(-(v + 27)^2 / 240)
    root = powerable_exp((v + 27) ** 2 * (-1 / 3600))
    bell_225, bell_240 = root**16, root**15
    up, up2, down = 1 + falling(13, 10), 1 + falling(25, 10), 1 + rising(-30, 10)
    sigmoid = falling(0, 7)
    f = gate(
        (sigmoid, sigmoid + math.exp(20 / 7)),
        (up * down, 200 * down + 180 * up + (1102.5 * bell_225 + 20) * up * down),
    )
    f2 = gate(
        (sigmoid + 0.33 * math.exp(35 / 7), sigmoid + math.exp(35 / 7)),
        (up2 * down, 31 * down + 80 * up2 + 562 * bell_240 * up2 * down),
    )
    return d, f, f2


def subspace_gate(ca_ss):
    """Fast inactivation of I_CaL by subspace calcium, fCass."""
    x = (ca_ss * (1 / 0.05)) ** 2
    return gate((1 + 0.4 * x, 1 + x), (1 + x, 82 + 2 * x))
