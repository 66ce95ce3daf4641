"""ten Tusscher and Panfilov 2006: human ventricular epicardial, endocardial and M cells."""

import math
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from twinheart.cell.elementary import SharedExponentials, driving_ratio, inverses, powerable_exp
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
        gates, ions = state[:12], self._concentrations(state[12:])
        i_ion, i_na, i_k, i_ca, i_cal = self._currents(vm, gates, ions, i_stim)
        sodium = -i_na * self._per_charge(self.v_c)
        potassium = -i_k * self._per_charge(self.v_c)
        calcium, fcass = self._calcium(ions, i_ca, i_cal)
        *others, s, r = _voltage_gates(vm, self.variant)
        return i_ion, (*others, fcass, s, r, *calcium, sodium, potassium)

    def _per_charge(self, volume):
        return self.capacitance / (volume * FARADAY)

    def _concentrations(self, stored):
        ca_i, ca_sr, ca_ss, r_prime, na_i, k_i = stored
        return ca_i, ca_sr + _CA_SR, ca_ss, r_prime, na_i + _NA_I, k_i + _K_I

    def _currents(self, vm, gates, ions, i_stim):
        xr1, xr2, xs, m, h, j, d, f, f2, fcass, s, r = gates
        ca_i, _, ca_ss, _, na_i, k_i = ions
        rt_f = GAS_CONSTANT * self.temperature / FARADAY
        e_na = rt_f * jnp.log(self.na_o) - rt_f * jnp.log(na_i)
        e_k = rt_f * jnp.log(self.k_o) - rt_f * jnp.log(k_i)
        e_ks = rt_f * jnp.log(self.k_o + self.p_kna * self.na_o) - rt_f * jnp.log(
            k_i + self.p_kna * na_i
        )
        e_ca = 0.5 * rt_f * jnp.log(self.ca_o) - 0.5 * rt_f * jnp.log(ca_i)

        # exp(0.05 v F/RT) to the powers 13, 18, 20, 40 serves exchanger, pump and I_CaL
        root = powerable_exp(vm * (0.05 / rt_f))
        exp_z = root**20
        nak_den = (na_i + self.k_mna) * (exp_z + 0.1245 * root**18 + 0.0353)
        naca_den = root**13 + self.k_sat
        i_nak = (self.p_nak * self.k_o / (self.k_o + self.k_mk)) * na_i * exp_z / nak_den
        k_naca = self.k_naca / ((self.km_nai**3 + self.na_o**3) * (self.km_ca + self.ca_o))
        i_naca = (
            (k_naca * self.ca_o) * na_i**3 * exp_z - (k_naca * self.na_o**3 * self.alpha) * ca_i
        ) / naca_den

        z = (vm - 15) * (2 / rt_f)
        exp_2 = jnp.exp(-30 / rt_f) * exp_z**2
        dr1, dr2 = driving_ratio(z, exp_2)
        i_cal = (
            (2 * FARADAY * self.g_cal) * d * f * f2 * fcass
            * (0.25 * ca_ss * exp_2 - self.ca_o) * dr1) /dr2

        dv = vm - e_k
        k1_num, k1_den = _inward_rectifier(dv)
        pk_den = 1 + jnp.exp((25 - vm) * (1/ 5.98))
        sqrt_k_o = jnp.sqrt(self.k_o / 5.4)
        i_kk = dv * (
            (self.g_k1 * sqrt_k_o) * k1_num * pk_den + k1_den * (self.g_pk + pk_den * (
            (self.g_kr * sqrt_k_o) * xr1 * xr2
            + self.g_to * r * s))) / (k1_den * pk_den)
        i_k = i_kk + self.g_ks * xs**2 * (vm - e_ks)
        i_na = (self.g_na * m**3 * h * j + self.g_bna) * (vm - e_na)
        i_bca = self.g_bca * (vm - e_ca)
        i_pca = self.g_pca * ca_i / (ca_i + self.k_pca)
        i_ca = i_bca + i_pca - 2 * i_naca
        i_ion = i_k + i_nak + i_na + i_cal + i_naca + i_bca + i_pca
        return i_ion, i_na + 3 * (i_nak + i_naca), i_k - i_stim - 2 * i_nak, i_ca, i_cal

    def _calcium(self, ions, i_ca, i_cal):
        ca_i, ca_sr, ca_ss, r_prime, _, _ = ions
        ca_ss2, ca_sr2 = ca_ss**2, ca_sr**2
        ca_i2 = ca_i**2
        # casr
        kc_num = (self.max_sr * self.ec**2) + self.min_sr * ca_sr2
        kc_den = self.ec**2 + ca_sr2
        bi = (ca_i + self.k_buf_c)**2
        bsr = (ca_sr + self.k_buf_sr)**2
        bss = (ca_ss + self.k_buf_ss)**2
        inv_up, inv_bi = inverses(ca_i2 + self.k_up**2, bi + self.buf_c * self.k_buf_c)
        rel_num = self.k1_prime * ca_ss2 * kc_den
        inv_kc, inv_rel, inv_bsr, inv_bss = inverses(kc_den, self.k3 * kc_num + rel_num, bsr + self.buf_sr * self.k_buf_sr,bss + self.buf_ss * self.k_buf_ss)
        i_up = self.vmax_up * ca_i2 * inv_up
        i_leak = self.v_leak * (ca_sr - ca_i)
        i_xfer = self.v_xfer * (ca_ss - ca_i)
        i_rel = self.v_rel * rel_num * r_prime * inv_rel * (ca_sr - ca_ss)
        dr = self.k4 - r_prime * (self.k4 + self.k2_prime * kc_num * inv_kc * ca_ss)
        d_ca_i = bi * inv_bi * ((self.v_sr / self.v_c) * (i_leak - i_up) + i_xfer - i_ca * (0.5 * self._per_charge(self.v_c)))
        d_ca_sr = bsr * inv_bsr * (i_up - i_rel - i_leak)
        d_ca_ss = bss * inv_bss * (
            (self.v_sr / self.v_ss) * i_rel - (self.v_c / self.v_ss) * i_xfer
            - (0.5 * self._per_charge(self.v_ss)) * i_cal
        )
        c2 = ca_ss2 * 400
        fcass = _gate((1 + 0.4 * c2, 1 + c2), (1 + c2, 82 + 2 * c2))
        return (d_ca_i, d_ca_sr, d_ca_ss, dr), fcass


def _inward_rectifier(dv):
    p = powerable_exp(-0.02 * dv)
    p3, p5 = p**3, p**5
    y = 0.0002 * (dv + 100)
    e = 1 + y * (1 + y * (1/2 + y * (1/6)))
    num = 0.1 * p3*p5 * (1 + p5**5)
    return num, num + (p3 + math.exp(-12)) * (3 * e * p5 + math.exp(-1))


def _gate(steady, rate):
    p, q = steady[1], rate[1]
    inv_p, inv_q = inverses(p, q)
    return Gate(steady[0] * inv_p, rate[0] * inv_q)


def _voltage_gates(v, variant):
    e = SharedExponentials(v, 120, 14)
    up, down, exp = e.rising, e.falling, jnp.exp
    low = v < -40
    h_inf = 1 / (1 + up(-71.55, 7.43)) ** 2
    ea = exp(jnp.where(low, (v + 80) * (-1/6.8), (v + 10.66) * (-1/11.1)))
    rate_h = jnp.where(low, 0.057 * ea + 2.7 * exp(0.079 * v) + 310000 * exp(0.3485 * v), 0.77 / (0.13 * (1 + ea)))
    eb = exp(jnp.where(low, -0.01052, 0.057) * v)
    ec = exp(jnp.where(low, -0.1378 * (v + 40.14), -0.1 * (v + 32)))
    alpha_j = (-25428 * exp(0.2444 * v) - 6.948e-6 * exp(-0.04391 * v)) * (v + 37.78) / (1 + exp(0.311 * (v + 79.23)))
    rate_j = jnp.where(low, alpha_j, 0) + jnp.where(low, 0.02424, 0.6) * eb / (1 + ec)

    b, c = 1 + up(-35, 5), 1 + up(50, 200)
    sq, bs = jnp.sqrt(1 + down(5, 6)), 1 + up(35, 15)
    A, B, C = 1 + down(-35, 13), 1 + up(-5, 5), 1 + down(50, 20)
    g5 = exp((v + 27) ** 2 * (-1 / 3600))
    g = powerable_exp((v + 27) ** 2 * (-1 / 3600))
    g5 = (g * g * g) ** 5
    A1, A2, B1 = 1 + down(13, 10), 1 + down(25, 10), 1 + up(-30, 10)
    A3 = 1 + up(20, 5)
    w = down(0, 7)
    return (
            Gate(1 / (1 + down(-26, 7)), (1 + down(-45, 10)) * (1 + up(-30, 11.5)) * (1/ 2700)),
            Gate(1 / (1 + up(-88, 24)), (1 + down(-60, 20)) * (1 + up(60, 20)) *(1/ 3.36)),
            _gate((1, (1 + down(-5, 14))), (sq * bs, 1400 + 80 * sq * bs)),
            _gate((1, (1 + down(-56.86, 9.03)) ** 2), (10 * (1 + down(-60, 5)) * b * c, b + c)),
            Gate(h_inf, rate_h),
            Gate(h_inf, rate_j),
            _gate((1, 1 + down(-8, 7.5)), (A * B * C, (1.96 + 0.35 * A) * C + A * B)),
            _gate((w, w + math.exp(20/7)), (A1 * B1, 200 * B1 + 180 * A1 + (1102.5 * (g5 * g) + 20) * A1 * B1)),
            _gate((w + .33 * math.exp(35/7), w + math.exp(35/7)), (A2 * B1, 31 * B1 + 80 * A2 + 562 * g5 * A2 * B1)),
            _gate((1, 1 + up(-20, 5)), (A3, 5 + (3 + 85 * exp((v + 45) ** 2 * (-1/ 320))) * A3)),
            _gate((1, (1 + down(20, 6))), (1, 9.5 * exp((v + 40) ** 2 * (-1/ 1800)) + 0.8)),
    )
