"""ten Tusscher and Panfilov 2006: human ventricular epicardial, endocardial and M cells."""

import math
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from twinheart.cell.model import AbstractCellModel, Gate, as_parameter, parameter
from twinheart.errors import ModelError

GAS_CONSTANT = 8314.472  # mJ/(mol K)
FARADAY = 96485.3415  # C/mol

# Conductances that differ between the published cell types [nS/pF].
_G_TO = {"epi": 0.294, "endo": 0.073, "m": 0.294}
_G_KS = {"epi": 0.392, "endo": 0.392, "m": 0.098}

# Na_i, K_i and Ca_SR are stored as offsets from these [mM].
_NA_I, _K_I, _CA_SR = 8.604, 136.89, 3.64


class TenTusscher2006(AbstractCellModel):
    variant: str = eqx.field(default="epi", static=True)
    g_to: jax.Array = eqx.field(default=None, converter=lambda g: g)
    g_ks: jax.Array = eqx.field(default=None, converter=lambda g: g)
    g_na: jax.Array = parameter(14.838)  # nS/pF
    g_bna: jax.Array = parameter(0.00029)  # nS/pF
    g_cal: jax.Array = parameter(3.98e-5)  # l/(F ms)
    g_bca: jax.Array = parameter(0.000592)  # nS/pF
    g_kr: jax.Array = parameter(0.153)  # nS/pF
    g_k1: jax.Array = parameter(5.405)  # nS/pF
    g_pk: jax.Array = parameter(0.0146)  # nS/pF
    g_pca: jax.Array = parameter(0.1238)  # pA/pF
    p_nak: jax.Array = parameter(2.724)  # pA/pF
    k_naca: jax.Array = parameter(1000.0)  # pA/pF
    p_kna: jax.Array = parameter(0.03)  # 1
    k_mk: jax.Array = parameter(1.0)  # mM
    k_mna: jax.Array = parameter(40.0)  # mM
    k_sat: jax.Array = parameter(0.1)  # 1
    alpha: jax.Array = parameter(2.5)  # 1
    km_ca: jax.Array = parameter(1.38)  # mM
    km_nai: jax.Array = parameter(87.5)  # mM
    k_pca: jax.Array = parameter(0.0005)  # mM
    vmax_up: jax.Array = parameter(0.006375)  # mM/ms
    k_up: jax.Array = parameter(0.00025)  # mM
    v_rel: jax.Array = parameter(0.102)  # 1/ms
    v_leak: jax.Array = parameter(0.00036)  # 1/ms
    v_xfer: jax.Array = parameter(0.0038)  # 1/ms
    k1_prime: jax.Array = parameter(0.15)  # 1/(mM^2 ms)
    k2_prime: jax.Array = parameter(0.045)  # 1/(mM ms)
    k3: jax.Array = parameter(0.06)  # 1/ms
    k4: jax.Array = parameter(0.005)  # 1/ms
    ec: jax.Array = parameter(1.5)  # mM
    max_sr: jax.Array = parameter(2.5)  # 1
    min_sr: jax.Array = parameter(1.0)  # 1
    buf_c: jax.Array = parameter(0.2)  # mM
    k_buf_c: jax.Array = parameter(0.001)  # mM
    buf_sr: jax.Array = parameter(10.0)  # mM
    k_buf_sr: jax.Array = parameter(0.3)  # mM
    buf_ss: jax.Array = parameter(0.4)  # mM
    k_buf_ss: jax.Array = parameter(0.00025)  # mM
    na_o: jax.Array = parameter(140.0)  # mM
    k_o: jax.Array = parameter(5.4)  # mM
    ca_o: jax.Array = parameter(2.0)  # mM
    temperature: jax.Array = parameter(310.0)  # K
    capacitance: jax.Array = parameter(0.185)  # nF
    v_c: jax.Array = parameter(0.016404)  # nl
    v_sr: jax.Array = parameter(0.001094)  # nl
    v_ss: jax.Array = parameter(5.468e-5)  # nl

    state_names: ClassVar[tuple[str, ...]] = (
        "xr1", "xr2", "xs", "m", "h", "j", "d", "f", "f2", "fcass", "s", "r",
        "ca_i", "ca_sr", "ca_ss", "r_prime", "na_i", "k_i",
    )
    reference: ClassVar[str] = "doi:10.1152/ajpheart.00109.2006"

    def __post_init__(self):
        if self.variant not in _G_TO:
            raise ModelError(
                f"TenTusscher2006 has no variant {self.variant!r}; choose one of "
                f"{', '.join(_G_TO)}."
            )
        self.g_to = as_parameter(_G_TO[self.variant] if self.g_to is None else self.g_to)
        self.g_ks = as_parameter(_G_KS[self.variant] if self.g_ks is None else self.g_ks)

    @property
    def name(self):
        return f"tentusscher2006-{self.variant}"

    def initial_vm(self):
        return as_parameter(-85.23)

    def initial_state(self):
        gates = (0.00621, 0.4712, 0.0095, 0.00172, 0.7444, 0.7045, 3.373e-5, 0.7888, 0.9755, 0.9953,
                 0.999998, 2.42e-8)
        rest = (0.000126, 3.64 - _CA_SR, 0.00036, 0.9073, 8.604 - _NA_I, 136.89 - _K_I)
        return tuple(as_parameter(x) for x in gates + rest)

    def physical(self, state):
        values = dict(zip(self.state_names, state, strict=True))
        for name, ref in (("ca_sr", _CA_SR), ("na_i", _NA_I), ("k_i", _K_I)):
            values[name] = ref + values[name]
        return {k: (x, "mM" if "_" in k and k != "r_prime" else "1") for k, x in values.items()}

    def rates(self, vm, state, i_stim=0.0):
        (xr1, xr2, xs, m, h, j, d, f, f2, fcass, s, r) = state[:12]
        ca_i, ca_sr, ca_ss, r_prime, na_i, k_i = state[12:]
        ca_sr, na_i, k_i = ca_sr + _CA_SR, na_i + _NA_I, k_i + _K_I
        rt_f = GAS_CONSTANT * self.temperature / FARADAY
        log_na, log_k, log_ca = jnp.log(na_i), jnp.log(k_i), jnp.log(ca_i)
        e_na = rt_f * (jnp.log(self.na_o) - log_na)
        e_k = rt_f * (jnp.log(self.k_o) - log_k)
        e_ks = rt_f * (jnp.log(self.k_o + self.p_kna * self.na_o) - jnp.log(k_i + self.p_kna * na_i))
        e_ca = 0.5 * rt_f * (jnp.log(self.ca_o) - log_ca)
        sqrt_ko = jnp.sqrt(self.k_o / 5.4)

        x = vm - e_k
        q = jnp.exp(0.02 * x)  # 0.06, 0.1 and 0.5 are multiples of this slope
        q2 = q * q
        q3 = q2 * q
        q5 = q3 * q2
        alpha_k1 = 0.1 / (1 + math.exp(-12) * q3)
        y = 0.0002 * (x + 100)
        beta_k1 = (3 * (1 + y + 0.5 * y * y + y*y*y/6) + math.exp(-1) * q5) / (1 + jnp.exp(-0.5*x))
        i_k1 = self.g_k1 * sqrt_ko * alpha_k1 / (alpha_k1 + beta_k1) * x
        i_kr = self.g_kr * sqrt_ko * xr1 * xr2 * x
        i_to = self.g_to * r * s * x
        i_pk = self.g_pk * x / (1 + jnp.exp((25 - vm) / 5.98))
        i_ks = self.g_ks * xs * xs * (vm - e_ks)
        i_na = self.g_na * m * m * m * h * j * (vm - e_na)
        i_bna = self.g_bna * (vm - e_na)
        i_bca = self.g_bca * (vm - e_ca)
        z = vm / rt_f
        z2 = 2 * (vm - 15) / rt_f
        small = jnp.abs(z2) < 0.1
        zs = jnp.where(small, 1.0, z2)
        ez2 = jnp.exp(z2)
        ghk = jnp.where(small, 1 - z2 / 2 + z2 * z2 / 12, zs / (jnp.where(small, 2.0, ez2) - 1))
        i_cal = self.g_cal * d * f * f2 * fcass * 2 * FARADAY * (0.25 * ca_ss * ez2 - self.ca_o) * ghk
        i_nak = (self.p_nak * self.k_o / (self.k_o + self.k_mk)) * na_i / (na_i + self.k_mna) / (
            1 + 0.1245 * jnp.exp(-0.1 * z) + 0.0353 * jnp.exp(-z))
        eg = jnp.exp((0.35 - 1) * z)
        i_naca = self.k_naca * (jnp.exp(0.35 * z) * na_i**3 * self.ca_o - eg * self.na_o**3 * ca_i * self.alpha) / (
            (self.km_nai**3 + self.na_o**3) * (self.km_ca + self.ca_o) * (1 + self.k_sat * eg))
        i_pca = self.g_pca * ca_i / (ca_i + self.k_pca)
        i_ion = i_k1 + i_to + i_kr + i_ks + i_cal + i_nak + i_na + i_bna + i_naca + i_bca + i_pk + i_pca

        i_up = self.vmax_up / (1 + (self.k_up / ca_i)**2)
        i_leak = self.v_leak * (ca_sr - ca_i)
        i_xfer = self.v_xfer * (ca_ss - ca_i)
        kcasr = self.max_sr - (self.max_sr - self.min_sr) / (1 + (self.ec / ca_sr)**2)
        k1 = self.k1_prime / kcasr
        k2 = self.k2_prime * kcasr
        o = k1 * ca_ss**2 * r_prime / (self.k3 + k1 * ca_ss**2)
        i_rel = self.v_rel * o * (ca_sr - ca_ss)
        bc = 1 / (1 + self.buf_c * self.k_buf_c / (ca_i + self.k_buf_c)**2)
        bsr = 1 / (1 + self.buf_sr * self.k_buf_sr / (ca_sr + self.k_buf_sr)**2)
        bss = 1 / (1 + self.buf_ss * self.k_buf_ss / (ca_ss + self.k_buf_ss)**2)
        per_a = self.capacitance / (self.v_c * FARADAY)
        d_ca_i = bc * ((i_leak - i_up) * (self.v_sr / self.v_c) + i_xfer - (i_bca + i_pca - 2 * i_naca) * (per_a / 2))
        d_ca_sr = bsr * (i_up - i_rel - i_leak)
        d_ca_ss = bss * (-i_cal * (self.capacitance / (2 * self.v_ss * FARADAY)) + i_rel * (self.v_sr / self.v_ss) - i_xfer * (self.v_c / self.v_ss))
        d_r = -k2 * ca_ss * r_prime + self.k4 * (1 - r_prime)
        d_na = -(i_na + i_bna + 3 * i_nak + 3 * i_naca) * per_a
        d_k = -(i_k1 + i_to + i_kr + i_ks + i_pk - i_stim - 2 * i_nak) * per_a

        v = vm
        exp = jnp.exp
        low = v < -40
        h_inf = 1 / (1 + exp((v + 71.55) / 7.43)) ** 2
        rate_h = jnp.where(low, 0.057 * exp(-(v + 80) / 6.8) + 2.7 * exp(0.079 * v) + 310000 * exp(0.3485 * v), 0.77 / (0.13 * (1 + exp(-(v + 10.66) / 11.1))))
        rate_j = jnp.where(low, (-25428 * exp(0.2444 * v) - 6.948e-6 * exp(-0.04391 * v)) * (v + 37.78) / (1 + exp(0.311 * (v + 79.23)))
            + 0.02424 * exp(-0.01052 * v) / (1 + exp(-0.1378 * (v + 40.14))), 0.6 * exp(0.057 * v) / (1 + exp(-0.1 * (v + 32))))
        gates = (
            Gate(1 / (1 + exp((-26 - v) / 7)), (1 + exp((-45 - v) / 10)) * (1 + exp((v + 30) / 11.5)) / 2700),
            Gate(1 / (1 + exp((v + 88) / 24)), (1 + exp((-60 - v) / 20)) * (1 + exp((v - 60) / 20)) / 3.36),
            Gate(1 / (1 + exp((-5 - v) / 14)), 1 / (1400 / jnp.sqrt(1 + exp((5 - v) / 6)) / (1 + exp((v - 35) / 15)) + 80)),
            Gate(1 / (1 + exp((-56.86 - v) / 9.03)) ** 2, (1 + exp((-60 - v) / 5)) / (0.1 / (1 + exp((v + 35) / 5)) + 0.1 / (1 + exp((v - 50) / 200)))),
            Gate(h_inf, rate_h),
            Gate(h_inf, rate_j),
            Gate(1 / (1 + exp((-8 - v) / 7.5)), 1 / ((1.4 / (1 + exp((-35 - v) / 13)) + 0.25) * 1.4 / (1 + exp((v + 5) / 5)) + 1 / (1 + exp((50 - v) / 20)))),
            Gate(1 / (1 + exp((v + 20) / 7)), 1 / (1102.5 * exp(-((v + 27) ** 2) / 225) + 200 / (1 + exp((13 - v) / 10)) + 180 / (1 + exp((v + 30) / 10)) + 20)),
            Gate(0.67 / (1 + exp((v + 35) / 7)) + 0.33, 1 / (562 * exp(-((v + 27) ** 2) / 240) + 31 / (1 + exp((25 - v) / 10)) + 80 / (1 + exp((v + 30) / 10)))),
            Gate(0.6 / (1 + (ca_ss / 0.05) ** 2) + 0.4, 1 / (80 / (1 + (ca_ss / 0.05) ** 2) + 2)),
            Gate(1 / (1 + exp((v + 20) / 5)), 1 / (85 * exp(-((v + 45) ** 2) / 320) + 5 / (1 + exp((v - 20) / 5)) + 3)),
            Gate(1 / (1 + exp((20 - v) / 6)), 1 / (9.5 * exp(-((v + 40) ** 2) / 1800) + 0.8)),
        )
        return i_ion, gates + (d_ca_i, d_ca_sr, d_ca_ss, d_r, d_na, d_k)
