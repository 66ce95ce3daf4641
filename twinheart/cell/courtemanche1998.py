"""Courtemanche, Ramirez and Nattel 1998: human atrial cell."""

from typing import ClassVar

import jax.numpy as jnp

from twinheart.cell.elementary import (
    SharedExponentials,
    driving_fraction,
    inverses,
    powerable_exp,
)
from twinheart.cell.model import AbstractCellModel, Gate, Parameter, Pulse, as_parameter, parameter

GAS_CONSTANT = 8.3143  # J/(mol K)
FARADAY = 96.4867  # C/mmol

# Slopes [mV] of the rate functions that are powers of three shared exponentials:
# 5, 8, 10 and 16 divide 80; 8.5 and 17 divide 17; 6.5 and 13 divide 13.
_BASES = (80.0, 17.0, 13.0)

# Exponents of the release gates are cut here: e^-40 is an empty gate in any precision, and a
# product of two such exponentials still fits float32.
_EMPTY = 40.0


class Courtemanche1998(AbstractCellModel):
    r"""Human atrial cell, 15 gates and 5 concentrations.

    .. math::
        I_{ion} = I_{Na} + I_{K1} + I_{to} + I_{Kur} + I_{Kr} + I_{Ks} + I_{CaL} + I_{pCa}
                  + I_{NaK} + I_{NaCa} + I_{bNa} + I_{bCa}

    Where the printed constants are rounded (`g_kr`, `g_ks`, `g_cal`, `g_bna`, `i_nak_max`), or
    the sign in a rate of the gate ui contradicts the paper's own figure, the values are those of
    the published CellML file. The balance of potassium in the paper leaves out the stimulus; here
    potassium carries it, so that charge is conserved however long the cell is paced.

    Na_i, K_i, Ca_up and u_i are stored as differences from fixed `offsets`, because float32 loses
    their small increments.

    Parameters
    ----------
    g_kur : float or (node,) array
        Conductance of I_Kur at negative voltage [nS/pF]; it rises by the factor
        ``1 + kur_gain`` at positive voltage.
    i_up_max : float or (node,) array
        Rate of uptake into the reticulum [mM/ms]; as in the paper, the leak out of it is
        proportional to it too.
    g_na, g_k1, g_to, ... : float or (node,) array
        Conductances and the other constants of the paper; units beside each field.

    References
    ----------
    Courtemanche, Ramirez and Nattel 1998, doi:10.1152/ajpheart.1998.275.1.H301.

    Examples
    --------
    >>> from twinheart.cell import get_model
    >>> cell = get_model("courtemanche1998", g_kur=0.0025)
    >>> len(cell.state_names)
    20
    """

    g_na: Parameter = parameter(7.8, "nS/pF")
    g_k1: Parameter = parameter(0.09, "nS/pF")
    g_to: Parameter = parameter(0.1652, "nS/pF")
    g_kur: Parameter = parameter(0.005, "nS/pF")
    kur_gain: Parameter = parameter(10.0)
    g_kr: Parameter = parameter(0.029411765, "nS/pF")
    g_ks: Parameter = parameter(0.12941176, "nS/pF")
    g_cal: Parameter = parameter(0.12375, "nS/pF")
    e_cal: Parameter = parameter(65.0, "mV")
    g_bna: Parameter = parameter(0.0006744375, "nS/pF")
    g_bca: Parameter = parameter(0.001131, "nS/pF")
    i_nak_max: Parameter = parameter(0.59933874, "pA/pF")
    km_nai: Parameter = parameter(10.0, "mM")
    km_ko: Parameter = parameter(1.5, "mM")
    i_naca_max: Parameter = parameter(1600.0, "pA/pF")
    km_na: Parameter = parameter(87.5, "mM")
    km_ca: Parameter = parameter(1.38, "mM")
    k_sat: Parameter = parameter(0.1)
    i_pca_max: Parameter = parameter(0.275, "pA/pF")
    km_pca: Parameter = parameter(0.0005, "mM")
    k_fca: Parameter = parameter(0.00035, "mM")
    tau_fca: Parameter = parameter(2.0, "ms")
    k_rel: Parameter = parameter(30.0, "1/ms")
    tau_tr: Parameter = parameter(180.0, "ms")
    i_up_max: Parameter = parameter(0.005, "mM/ms")
    k_up: Parameter = parameter(0.00092, "mM")
    ca_up_max: Parameter = parameter(15.0, "mM")
    cmdn_max: Parameter = parameter(0.05, "mM")
    trpn_max: Parameter = parameter(0.07, "mM")
    csqn_max: Parameter = parameter(10.0, "mM")
    km_cmdn: Parameter = parameter(0.00238, "mM")
    km_trpn: Parameter = parameter(0.0005, "mM")
    km_csqn: Parameter = parameter(0.8, "mM")
    k_q10: Parameter = parameter(3.0)
    na_o: Parameter = parameter(140.0, "mM")
    k_o: Parameter = parameter(5.4, "mM")
    ca_o: Parameter = parameter(1.8, "mM")
    temperature: Parameter = parameter(310.0, "K")
    capacitance: Parameter = parameter(100.0, "pF")
    v_i: Parameter = parameter(13668.0, "um^3")
    v_up: Parameter = parameter(1109.52, "um^3")
    v_rel: Parameter = parameter(96.48, "um^3")

    name: ClassVar[str] = "courtemanche1998"
    reference: ClassVar[str] = "doi:10.1152/ajpheart.1998.275.1.H301"
    initial: ClassVar[dict[str, float]] = {
        "m": 2.908e-3,
        "h": 0.9649,
        "j": 0.9775,
        "oa": 3.043e-2,
        "oi": 0.9992,
        "ua": 4.966e-3,
        "ui": 0.9986,
        "xr": 3.296e-5,
        "xs": 1.869e-2,
        "d": 1.367e-4,
        "f": 0.9996,
        "fca": 0.7755,
        "u": 0.0,
        "v": 1.0,
        "w": 0.9992,
        "ca_i": 1.013e-4,
        "ca_rel": 1.488,
        "ca_up": 1.488,
        "na_i": 11.17,
        "k_i": 139.0,
    }
    # Subtracted in storage; ui moves by 0.007 below one.
    offsets: ClassVar[dict[str, float]] = {"ca_up": 1.488, "na_i": 11.17, "k_i": 139.0, "ui": 1.0}
    units: ClassVar[dict[str, str]] = dict.fromkeys(
        ("ca_i", "ca_rel", "ca_up", "na_i", "k_i"), "mM"
    )
    channels: ClassVar[dict[str, str]] = {
        "i_na": "g_na",
        "i_to": "g_to",
        "i_kur": "g_kur",
        "i_cal": "g_cal",
        "i_kr": "g_kr",
        "i_ks": "g_ks",
        "i_k1": "g_k1",
        "i_nak": "i_nak_max",
        "i_naca": "i_naca_max",
        "i_pca": "i_pca_max",
        "i_bna": "g_bna",
        "i_bca": "g_bca",
        "j_up": "i_up_max",
        "j_rel": "k_rel",
    }
    stimulus: ClassVar[Pulse] = Pulse(20.0, 2.0)
    dt: ClassVar[float] = 0.05

    def initial_vm(self):
        """Resting voltage of the paper [mV]."""
        return as_parameter(-81.18)

    def rates(self, vm, state, i_stim=0.0):
        """Ionic current [A/F], gates and concentrations; see `AbstractCellModel.rates`."""
        gates, release_gates = state[:12], state[12:15]
        ca_i, ca_rel = state[15:17]
        ca_up, na_i, k_i = (
            x + self.offsets[name]
            for x, name in zip(state[17:], ("ca_up", "na_i", "k_i"), strict=True)
        )
        e = SharedExponentials(vm, *_BASES)
        i_k, i_na, i_cal, i_bca, i_pca = self._channels(vm, e, gates, ca_i, na_i, k_i)
        i_nak, i_naca = self._exchangers(vm, ca_i, na_i)
        i_ion = i_k + i_na + i_cal + i_bca + i_pca + i_nak + i_naca

        i_rel = self._release(release_gates, ca_i, ca_rel)
        rate_fca = jnp.ones_like(ca_i) * (1 / self.tau_fca)
        fca = Gate(self.k_fca / (ca_i + self.k_fca), rate_fca)
        d_ca = self._calcium(ca_i, ca_rel, ca_up, i_cal + i_bca + i_pca - 2 * i_naca, i_rel)
        per_charge = self.capacitance / (self.v_i * FARADAY)
        d_na_i = -(i_na + 3 * i_nak + 3 * i_naca) * per_charge
        d_k_i = -(i_k - 2 * i_nak - i_stim) * per_charge
        return i_ion, (
            *_sodium_gates(vm, e),
            *_potassium_gates(vm, e, self.k_q10),
            *_calcium_gates(vm, e),
            fca,
            *self._release_gates(vm, e, i_rel, i_cal, i_naca),
            *d_ca,
            d_na_i,
            d_k_i,
        )

    def _channels(self, vm, e, gates, ca_i, na_i, k_i):
        """Currents [A/F]: all potassium, all sodium, then CaL, bCa, pCa.

        A current that several balances share ends with its division: XLA stores the result of a
        division but would compute anything cheaper again in every balance.
        """
        m, h, j, oa, oi, ua, ui, xr, xs, d, f, fca = gates
        rt_f = GAS_CONSTANT * self.temperature / FARADAY
        e_na = rt_f * (jnp.log(self.na_o) - jnp.log(na_i))
        e_k = rt_f * (jnp.log(self.k_o) - jnp.log(k_i))
        e_ca = 0.5 * rt_f * (jnp.log(self.ca_o) - jnp.log(ca_i))
        i_na = (self.g_na * m**3 * h * j + self.g_bna) * (vm - e_na)
        i_cal = self.g_cal * d * f * fca * (vm - self.e_cal)
        i_bca = self.g_bca * (vm - e_ca)
        i_pca = self.i_pca_max * ca_i / (ca_i + self.km_pca)

        # All conductances of potassium over one denominator.
        k1_below = 1 + jnp.exp(0.07 * (vm + 80))
        kur_below = 1 + e.falling(15, 13)
        kr_below = 1 + jnp.exp((vm + 15) * (1 / 22.4))
        kur_open = ua**3 * (ui + self.offsets["ui"])
        g_open = self.g_to * oa**3 * oi + self.g_ks * xs**2 + self.g_kur * kur_open
        g_k = self.g_kr * xr * k1_below + (self.g_k1 + g_open * k1_below) * kr_below
        g_k = g_k * kur_below + (self.g_kur * self.kur_gain) * kur_open * k1_below * kr_below
        i_k = g_k * (vm - e_k) / (k1_below * kur_below * kr_below)
        return i_k, i_na, i_cal, i_bca, i_pca

    def _exchangers(self, vm, ca_i, na_i):
        """I_NaK and I_NaCa [A/F], by powers of exp(v F / 20RT)."""
        rt_f = GAS_CONSTANT * self.temperature / FARADAY
        root = powerable_exp(vm * (0.05 / rt_f))
        exp_v, exp_09v, exp_065v = root**20, root**18, root**13
        # 0.0365 sigma = 0.0365 / 7 (exp(Na_o / 67.3) - 1)
        sigma = (jnp.exp(self.na_o * (1 / 67.3)) - 1) * (1 / 7)
        bound = na_i * jnp.sqrt(na_i)
        i_nak = (
            (self.i_nak_max * self.k_o / (self.k_o + self.km_ko)) * bound * exp_v
            / (
                (bound + self.km_nai * jnp.sqrt(self.km_nai))
                * (exp_v + 0.1245 * exp_09v + 0.0365 * sigma)
            )
        )  # fmt: skip
        k_naca = self.i_naca_max / ((self.km_na**3 + self.na_o**3) * (self.km_ca + self.ca_o))
        i_naca = (
            (k_naca * self.ca_o) * exp_v * na_i**3 - (k_naca * self.na_o**3) * ca_i
        ) / (exp_065v + self.k_sat)  # fmt: skip
        return i_nak, i_naca

    def _release(self, gates, ca_i, ca_rel):
        """Release from the junctional reticulum [mM/ms]."""
        u, v, w = gates
        return self.k_rel * u**2 * v * w * (ca_rel - ca_i)

    def _calcium(self, ca_i, ca_rel, ca_up, i_ca, i_rel):
        """Rates of Ca_i, Ca_rel, Ca_up [mM/ms]; `i_ca` is the current carried by calcium."""
        cmdn, trpn, csqn = ca_i + self.km_cmdn, ca_i + self.km_trpn, ca_rel + self.km_csqn
        cmdn, trpn, csqn = cmdn * cmdn, trpn * trpn, csqn * csqn
        # B2 = 1 + trpn_max km_trpn / trpn + cmdn_max km_cmdn / cmdn as a fraction
        buffered = (trpn + self.trpn_max * self.km_trpn) * cmdn
        buffered = buffered + (self.cmdn_max * self.km_cmdn) * trpn
        per_up, per_buffered, per_csqn = inverses(
            ca_i + self.k_up, buffered, csqn + self.csqn_max * self.km_csqn
        )
        i_up = self.i_up_max * (ca_i * per_up - ca_up / self.ca_up_max)  # uptake less leak
        i_tr = (ca_up - ca_rel) / self.tau_tr
        d_ca_i = (cmdn * trpn) * per_buffered * (
            (self.v_rel / self.v_i) * i_rel
            - (self.v_up / self.v_i) * i_up
            - (self.capacitance / (2 * self.v_i * FARADAY)) * i_ca
        )  # fmt: skip
        d_ca_rel = csqn * per_csqn * (i_tr - i_rel)
        d_ca_up = i_up - (self.v_rel / self.v_up) * i_tr
        return d_ca_i, d_ca_rel, d_ca_up

    def _release_gates(self, vm, e, i_rel, i_cal, i_naca):
        """u, v, w; u and v follow the flux signal F_n, here in 1e-12 umol/ms.

        Thresholds 3.4175e-13 and 6.835e-14, slope 13.67e-16 umol/ms.
        """
        fn = self.v_rel * i_rel - (0.5 / FARADAY) * self.capacitance * (0.5 * i_cal - 0.2 * i_naca)
        shut = jnp.exp(jnp.clip((0.34175 - fn) * (1 / 0.001367), -_EMPTY, _EMPTY))
        idle = jnp.exp(jnp.clip((0.06835 - fn) * (1 / 0.001367), -_EMPTY, _EMPTY))
        u_inf, per_idle = inverses(1 + shut, 1 + idle)
        u = Gate(u_inf, jnp.full_like(vm, 1 / 8))
        v = Gate(idle * per_idle, 1 / (1.91 + 2.09 * u_inf))
        # tau_w = 6 (1 - e^-y) / ((1 + 0.3 e^-y) 5 y) with y = (v - 7.9) / 5
        exp_y = e.falling(7.9, 5)
        drive, drive_below = driving_fraction((7.9 - vm) * (1 / 5), exp_y)
        w_inf, per_drive = inverses(1 + e.rising(40, 17), drive_below)
        w = Gate(w_inf, (5 / 6) * (1 + 0.3 * exp_y) * drive * per_drive)
        return u, v, w


def _sodium_gates(v, e):
    """m, h, j; h and j have one rate function below -40 mV and another above."""
    # alpha_m = 0.32 (v + 47.13) / (1 - exp(-0.1 (v + 47.13)))
    drive, drive_below = driving_fraction(-0.1 * (v + 47.13), e.falling(-47.13, 10))
    beta_m = 0.08 * jnp.exp(v * (-1 / 11))
    m = 3.2 * drive + beta_m * drive_below
    per_m, per_drive = inverses(m, drive_below)
    # One exponential serves both branches: choosing its argument is cheaper than computing two.
    low = v < -40
    a = jnp.exp(jnp.where(low, (v + 80) * (-1 / 6.8), (v + 10.66) * (-1 / 11.1)))
    alpha_h = jnp.where(low, 0.135 * a, 0.0)
    beta_h = jnp.where(
        low, 3.56 * jnp.exp(0.079 * v) + 3.1e5 * jnp.exp(0.35 * v), (1 / 0.13) / (1 + a)
    )
    alpha_j = jnp.where(
        low,
        (-127140 * jnp.exp(0.2444 * v) - 3.474e-5 * jnp.exp(-0.04391 * v))
        * (v + 37.78)
        / (1 + jnp.exp(0.311 * (v + 79.23))),
        0.0,
    )
    above = jnp.where(low, 0.1212, 0.3) * jnp.exp(jnp.where(low, -0.01052, -2.535e-7) * v)
    below = 1 + jnp.exp(jnp.where(low, -0.1378 * (v + 40.14), -0.1 * (v + 32)))
    beta_j = above / below
    h, j = alpha_h + beta_h, alpha_j + beta_j
    per_h, per_j = inverses(h, j)
    return (
        Gate(3.2 * drive * per_m, m * per_drive),
        Gate(alpha_h * per_h, h),
        Gate(alpha_j * per_j, j),
    )


def _potassium_gates(v, e, k_q10):
    """oa, oi, ua, ui, xr, xs; the first four are `k_q10` times faster than at room temperature."""
    rising, falling = e.rising, e.falling
    # alpha = 0.65 / a and beta = 0.65 / b for both activation gates
    a, b = falling(-10, 8.5) + falling(30, 59), 2.5 + rising(-82, 17)
    oa, ua, per_ab = inverses(1 + falling(-20.47, 17.54), 1 + falling(-30.3, 9.6), a * b)
    rate_a = (0.65 * k_q10) * (a + b) * per_ab
    a, b = 18.53 + rising(-113.7, 10.95), 35.56 + falling(-1.26, 7.44)
    oi, per_ab = inverses(1 + rising(-43.1, 5.3), a * b)
    rate_oi = k_q10 * (a + b) * per_ab
    shut = rising(99.45, 27.48)
    per_ui, per_a = inverses(1 + shut, 21 + falling(185, 28))
    rate_ui = k_q10 * (per_a + rising(158, 16))
    return (
        Gate(oa, rate_a),
        Gate(oi, rate_oi),
        Gate(ua, rate_a),
        Gate(-shut * per_ui, rate_ui),  # 1 / (1 + shut) - 1, see `offsets`
        *_delayed_rectifier_gates(v, e),
    )


def _delayed_rectifier_gates(v, e):
    """xr, xs; their rates alpha and beta are multiples of ``z / (exp(z) - 1)``."""
    falling, rising = e.falling, e.rising
    up, up_below = driving_fraction((-14.1 - v) * (1 / 5), falling(-14.1, 5))
    down, down_below = driving_fraction((v - 3.3328) * (1 / 5.1237), rising(3.3328, 5.1237))
    xr, per_below = inverses(1 + falling(-14.1, 6.5), up_below * down_below)
    rate_xr = (0.0015 * up * down_below + 7.3898e-5 * 5.1237 * down * up_below) * per_below
    up, up_below = driving_fraction((19.9 - v) * (1 / 17), falling(19.9, 17))
    down, down_below = driving_fraction((v - 19.9) * (1 / 9), rising(19.9, 9))
    xs, per_below = inverses(jnp.sqrt(1 + falling(19.9, 12.7)), up_below * down_below)
    rate_xs = (2 * 4e-5 * 17 * up * down_below + 2 * 3.5e-5 * 9 * down * up_below) * per_below
    return Gate(xr, rate_xr), Gate(xs, rate_xs)


def _calcium_gates(v, e):
    """d, f."""
    # 1 / tau_d = 0.035 (v + 10) (1 + e^-y) / (1 - e^-y) with y = (v + 10) / 6.24
    exp_y = e.falling(-10, 6.24)
    drive, drive_below = driving_fraction((-10 - v) * (1 / 6.24), exp_y)
    d, f, per_drive = inverses(1 + e.falling(-10, 8), 1 + e.rising(-28, 6.9), drive_below)
    rate_d = (0.035 * 6.24) * drive * (1 + exp_y) * per_drive
    rate_f = (0.0197 * jnp.exp((v + 10) ** 2 * (-(0.0337**2))) + 0.02) * (1 / 9)
    return Gate(d, rate_d), Gate(f, rate_f)
