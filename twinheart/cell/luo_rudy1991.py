"""Luo and Rudy 1991: ventricular cell of the guinea pig, phase I."""

import math
from typing import ClassVar

import jax.numpy as jnp

from twinheart.cell.elementary import SharedExponentials, driving_fraction, inverses
from twinheart.cell.model import AbstractCellModel, Gate, Parameter, Pulse, parameter

GAS_CONSTANT = 8314.0  # mJ/(mol K), as in the published CellML file
FARADAY = 96484.6  # C/mol

# Exponents [1/mV] of the rate functions that are powers of three shared exponentials, of v / 100,
# v / 1000 and -v / 100: a falling factor of a fraction is a rising one of its other half.
_BASES = (100.0, 1000.0)


class LuoRudy1991(AbstractCellModel):
    r"""Guinea pig ventricular cell, six gates and intracellular calcium.

    .. math::
        I_{ion} = I_{Na} + I_{si} + I_K + I_{K1} + I_{Kp} + I_b

    Sodium and potassium are constant. Constants and initial values are those of the published
    CellML file, which agree with the paper; the Matlab code that its authors distributed later
    (g_na 16 mS/uF, na_i 10 mM, a smooth switch of the h and j gates, Ca_i / Ca_o in E_si) does
    not.

    Parameters
    ----------
    g_na, g_si, g_k, g_k1, g_kp, g_b : float or (node,) array
        Conductances [mS/uF] of the fast sodium, slow inward, time-dependent, time-independent
        and plateau potassium and the background current.
    k_o, k_i, na_o, na_i, ... : float or (node,) array
        The other constants of the paper; units beside each field.

    References
    ----------
    Luo and Rudy 1991, doi:10.1161/01.RES.68.6.1501.

    Examples
    --------
    >>> from twinheart.cell import get_model
    >>> round(get_model("luo-rudy-1991", k_o=7.0).k_o.item(), 1)
    7.0
    """

    name: ClassVar[str] = "luo-rudy-1991"
    reference: ClassVar[str] = "doi:10.1161/01.RES.68.6.1501"
    initial: ClassVar[dict[str, float]] = {
        "m": 0.00187018,
        "h": 0.9804713,
        "j": 0.98767124,
        "d": 0.00316354,
        "f": 0.99427859,
        "x": 0.16647703,
        "ca_i": 0.0002,
    }
    units: ClassVar[dict[str, str]] = {"ca_i": "mM"}
    channels: ClassVar[dict[str, str]] = {
        "i_na": "g_na",
        "i_cal": "g_si",
        "i_k": "g_k",
        "i_k1": "g_k1",
        "i_pk": "g_kp",
        "i_b": "g_b",
    }
    stimulus: ClassVar[Pulse] = Pulse(25.5, 2.0)

    g_na: Parameter = parameter(23.0, "mS/uF")
    g_si: Parameter = parameter(0.09, "mS/uF")
    g_k: Parameter = parameter(0.282, "mS/uF")
    g_k1: Parameter = parameter(0.6047, "mS/uF")
    g_kp: Parameter = parameter(0.0183, "mS/uF")
    g_b: Parameter = parameter(0.03921, "mS/uF")
    e_b: Parameter = parameter(-59.87, "mV")
    p_nak: Parameter = parameter(0.01833)
    k_o: Parameter = parameter(5.4, "mM")
    k_i: Parameter = parameter(145.0, "mM")
    na_o: Parameter = parameter(140.0, "mM")
    na_i: Parameter = parameter(18.0, "mM")
    ca_rest: Parameter = parameter(1e-4, "mM")
    ca_uptake: Parameter = parameter(0.07, "1/ms")
    ca_per_charge: Parameter = parameter(1e-4, "mM uF/nC")
    temperature: Parameter = parameter(310.0, "K")

    def initial_vm(self):
        """Voltage of the published initial state [mV]."""
        return jnp.full_like(self.e_b, -83.853)

    def rates(self, vm, state, i_stim=0.0):
        """Ionic current [A/F], gates and calcium; see `AbstractCellModel.rates`."""
        m, h, j, d, f, x, ca_i = state
        e = SharedExponentials(vm, *_BASES)
        rt_f = GAS_CONSTANT * self.temperature / FARADAY
        e_na = rt_f * jnp.log(self.na_o / self.na_i)
        i_na = self.g_na * m**3 * h * j * (vm - e_na)
        e_si = 7.7 - 13.0287 * jnp.log(ca_i)
        i_si = self.g_si * d * f * (vm - e_si)
        i_k = self._potassium(vm, e, x, rt_f)
        i_b = self.g_b * (vm - self.e_b)
        d_ca_i = -self.ca_per_charge * i_si + self.ca_uptake * (self.ca_rest - ca_i)
        return i_na + i_si + i_k + i_b, (*_sodium_gates(vm, e), *_slow_gates(e), d_ca_i)

    def _potassium(self, v, e, x, rt_f):
        """I_K + I_K1 + I_Kp over one denominator [A/F]."""
        e_k = rt_f * jnp.log(
            (self.k_o + self.p_nak * self.na_o) / (self.k_i + self.p_nak * self.na_i)
        )
        e_k1 = rt_f * jnp.log(self.k_o / self.k_i)
        sqrt_k_o = jnp.sqrt(self.k_o / 5.4)

        # Xi = 2.837 (e^z - 1) / ((v + 77) exp(0.04 (v + 35))) with z = 0.04 (v + 77), 1 below -100
        exp_z = e.rising(-77, 1 / 0.04)
        z, exp_z_less_1 = driving_fraction(0.04 * (v + 77), exp_z)
        below_100 = v <= -100
        xi = jnp.where(below_100, 1.0, 2.837 * 0.04 * math.exp(0.04 * 42) * exp_z_less_1)
        xi_below = jnp.where(below_100, 1.0, z * exp_z)

        dv = v - e_k1
        alpha_below = 1 + jnp.exp(0.2385 * (dv - 59.215))
        beta = 0.49124 * jnp.exp(0.08032 * (dv + 5.476)) + jnp.exp(0.06175 * (dv - 594.31))
        beta_below = 1 + jnp.exp(-0.5143 * (dv + 4.753))
        k1 = 1.02 * beta_below
        k1_below = k1 + beta * alpha_below

        kp_below = 1 + jnp.exp((7.488 - v) * (1 / 5.98))
        per_xi, per_k1, per_kp = inverses(xi_below, k1_below, kp_below)
        return (self.g_k * sqrt_k_o) * x * xi * per_xi * (v - e_k) + (
            (self.g_k1 * sqrt_k_o) * k1 * per_k1 + self.g_kp * per_kp
        ) * dv


def _gate(alpha, beta) -> Gate:
    """Gate of opening and closing rates, each a fraction (numerator, denominator)."""
    opening, closing = alpha[0] * beta[1], beta[0] * alpha[1]
    per_sum, per_below = inverses(opening + closing, alpha[1] * beta[1])
    return Gate(opening * per_sum, (opening + closing) * per_below)


def _sodium_gates(v, e):
    """m, h, j; h and j have one pair of rate functions below -40 mV and another above."""
    # 0.32 (v + 47.13) / (1 - exp(-0.1 (v + 47.13)))
    z, exp_z_less_1 = driving_fraction(-0.1 * (v + 47.13), e.falling(-47.13, 10))
    m = _gate((3.2 * z, exp_z_less_1), (0.08 * jnp.exp(v * (-1 / 11)), 1))

    # One exponential serves both branches: choosing its argument is cheaper than computing two.
    low = v < -40
    a = jnp.exp(jnp.where(low, (v + 80) * (-1 / 6.8), (v + 10.66) * (-1 / 11.1)))
    beta_low = 3.56 * e.rising(0, 1 / 0.079) + 3.1e5 * e.rising(0, 1 / 0.35)
    h = _gate(
        (jnp.where(low, 0.135 * a, 0.0), 1),
        (jnp.where(low, beta_low, 1.0), jnp.where(low, 1.0, 0.13 * (1 + a))),
    )
    alpha = (-127140 * jnp.exp(0.2444 * v) - 3.474e-5 * jnp.exp(-0.04391 * v)) * (v + 37.78)
    alpha_below = 1 + jnp.exp(0.311 * (v + 79.23))
    beta = jnp.where(low, 0.1212, 0.3) * jnp.exp(jnp.where(low, -0.01052, -2.535e-7) * v)
    beta_below = 1 + jnp.exp(jnp.where(low, -0.1378 * (v + 40.14), -0.1 * (v + 32)))
    j = _gate(
        (jnp.where(low, alpha, 0.0), jnp.where(low, alpha_below, 1.0)),
        (beta, beta_below),
    )
    return m, h, j


def _slow_gates(e):
    """d, f, x."""
    rising, falling = e.rising, e.falling
    d = _gate(
        # 0.095 exp(-0.01 (v - 5)) / (1 + exp(-0.072 (v - 5)))
        (0.095 * rising(5, 1 / 0.062), 1 + rising(5, 1 / 0.072)),
        # 0.07 exp(-0.017 (v + 44)) / (1 + exp(0.05 (v + 44)))
        (0.07, rising(-44, 1 / 0.017) * (1 + rising(-44, 1 / 0.05))),
    )
    f = _gate(
        # 0.012 exp(-0.008 (v + 28)) / (1 + exp(0.15 (v + 28)))
        (0.012, rising(-28, 1 / 0.008) * (1 + rising(-28, 1 / 0.15))),
        # 0.0065 exp(-0.02 (v + 30)) / (1 + exp(-0.2 (v + 30)))
        (0.0065 * falling(-30, 1 / 0.02), 1 + falling(-30, 1 / 0.2)),
    )
    x = _gate(
        # 0.0005 exp(0.083 (v + 50)) / (1 + exp(0.057 (v + 50)))
        (0.0005 * rising(-50, 1 / 0.083), 1 + rising(-50, 1 / 0.057)),
        # 0.0013 exp(-0.06 (v + 20)) / (1 + exp(-0.04 (v + 20)))
        (0.0013, rising(-20, 1 / 0.06) + rising(-20, 1 / 0.02)),
    )
    return d, f, x
