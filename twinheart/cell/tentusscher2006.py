"""ten Tusscher and Panfilov 2006: human ventricular epicardial, endocardial and M cells."""

import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp

from twinheart.cell.elementary import (
    SharedExponentials,
    driving_fraction,
    inverses,
    powerable_exp,
)
from twinheart.cell.model import AbstractCellModel, Gate, Parameter, Pulse, as_parameter, parameter
from twinheart.errors import ModelError

GAS_CONSTANT = 8314.472  # mJ/(mol K)
FARADAY = 96485.3415  # C/mol

# Conductances that differ between the published cell types [nS/pF].
_G_TO = {"epi": 0.294, "endo": 0.073, "m": 0.294}
_G_KS = {"epi": 0.392, "endo": 0.392, "m": 0.098}

# Slopes [mV] of the rate functions that are powers of two shared exponentials:
# 5, 6, 7.5, 10, 15, 20, 24 divide 120; 7 and 14 divide 14.
_BASES = (120.0, 14.0)


class TenTusscher2006(AbstractCellModel):
    r"""Human ventricular cell, 12 gates, 6 concentrations and release states.

    .. math::
        I_{ion} = I_{K1} + I_{to} + I_{Kr} + I_{Ks} + I_{CaL} + I_{NaK} + I_{Na} + I_{bNa}
                  + I_{NaCa} + I_{bCa} + I_{pK} + I_{pCa}

    Initial values are those of the N-version benchmark (Niederer 2011), for all three variants.
    Gas and Faraday constants follow the published CellML file, whose traces the tests use.

    Na_i, K_i and Ca_SR are stored as differences from fixed `offsets`: in float32 an increment
    of 1e-6 mM is lost in 136.89 mM, and with it the whole drift of K_i. `physical` gives the
    concentrations themselves.

    Parameters
    ----------
    variant : {"epi", "endo", "m"}
        Cell type; sets `g_to`, `g_ks` and the inactivation gate of the transient outward current.
    g_to, g_ks, g_na, ... : float or (node,) array
        Conductances and the other constants of the paper; units beside each field.

    Raises
    ------
    ModelError
        If `variant` is unknown.

    References
    ----------
    ten Tusscher and Panfilov 2006, doi:10.1152/ajpheart.00109.2006.

    Examples
    --------
    >>> from twinheart.cell import TenTusscher2006
    >>> cell = TenTusscher2006("endo", g_kr=0.1)
    >>> cell.name
    'tentusscher2006-endo'
    """

    variant: str = eqx.field(default="epi", static=True)
    g_to: Parameter = eqx.field(default=None, metadata={"unit": "nS/pF"})  # None: of the variant
    g_ks: Parameter = eqx.field(default=None, metadata={"unit": "nS/pF"})  # None: of the variant
    g_na: Parameter = parameter(14.838, "nS/pF")
    g_bna: Parameter = parameter(0.00029, "nS/pF")
    g_cal: Parameter = parameter(3.98e-5, "l/(F ms)")
    g_bca: Parameter = parameter(0.000592, "nS/pF")
    g_kr: Parameter = parameter(0.153, "nS/pF")
    g_k1: Parameter = parameter(5.405, "nS/pF")
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

    reference: ClassVar[str] = "doi:10.1152/ajpheart.00109.2006"
    initial: ClassVar[dict[str, float]] = {
        "xr1": 0.00621,
        "xr2": 0.4712,
        "xs": 0.0095,
        "m": 0.00172,
        "h": 0.7444,
        "j": 0.7045,
        "d": 3.373e-5,
        "f": 0.7888,
        "f2": 0.9755,
        "fcass": 0.9953,
        "s": 0.999998,
        "r": 2.42e-8,
        "r_prime": 0.9073,
        "ca_i": 0.000126,
        "ca_ss": 0.00036,
        "ca_sr": 3.64,
        "na_i": 8.604,
        "k_i": 136.89,
    }
    # Subtracted from the concentrations in storage [mM].
    offsets: ClassVar[dict[str, float]] = {"ca_sr": 3.64, "na_i": 8.604, "k_i": 136.89}
    units: ClassVar[dict[str, str]] = dict.fromkeys(("ca_i", "ca_ss", "ca_sr", "na_i", "k_i"), "mM")
    channels: ClassVar[dict[str, str]] = {
        "i_na": "g_na",
        "i_to": "g_to",
        "i_cal": "g_cal",
        "i_kr": "g_kr",
        "i_ks": "g_ks",
        "i_k1": "g_k1",
        "i_pk": "g_pk",
        "i_nak": "p_nak",
        "i_naca": "k_naca",
        "i_pca": "g_pca",
        "i_bna": "g_bna",
        "i_bca": "g_bca",
        "j_up": "vmax_up",
        "j_rel": "v_rel",
        "j_leak": "v_leak",
    }
    stimulus: ClassVar[Pulse] = Pulse(52.0, 1.0)

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
        """Name that `get_model` understands."""
        return f"tentusscher2006-{self.variant}"

    def initial_vm(self):
        """Resting voltage of the N-version benchmark [mV]."""
        return as_parameter(-85.23)

    def rates(self, vm, state, i_stim=0.0):
        """Ionic current [A/F], gates and concentrations; see `AbstractCellModel.rates`.

        The charge of `i_stim` is carried by potassium, as in the paper.
        """
        gates, r_prime = state[:12], state[12]
        ca_i, ca_ss = state[13:15]
        ca_sr, na_i, k_i = (
            x + offset for x, offset in zip(state[15:], self.offsets.values(), strict=True)
        )
        i_k, i_na, i_nak, i_naca, i_cal, i_bca, i_pca = self._currents(
            vm, gates, ca_i, ca_ss, na_i, k_i
        )
        i_ion = i_k + i_na + i_nak + i_naca + i_cal + i_bca + i_pca
        calcium = self._calcium(ca_i, ca_sr, ca_ss, r_prime, i_bca + i_pca - 2 * i_naca, i_cal)
        per_charge = self.capacitance / (self.v_c * FARADAY)
        d_na_i = -(i_na + 3 * i_nak + 3 * i_naca) * per_charge
        d_k_i = -(i_k - 2 * i_nak - i_stim) * per_charge
        return i_ion, (*_gates(vm, ca_ss, self.variant), *calcium, d_na_i, d_k_i)

    def _currents(self, vm, gates, ca_i, ca_ss, na_i, k_i):
        """Currents [A/F]: all potassium, all sodium, then NaK, NaCa, CaL, bCa, pCa.

        A current that several balances share ends with its division: XLA stores the result of a
        division but would compute anything cheaper again in every balance.
        """
        xr1, xr2, xs, m, h, j, d, f, f2, fcass, s, r = gates
        rt_f = GAS_CONSTANT * self.temperature / FARADAY
        e_na = rt_f * (jnp.log(self.na_o) - jnp.log(na_i))
        e_k = rt_f * (jnp.log(self.k_o) - jnp.log(k_i))
        e_ca = 0.5 * rt_f * (jnp.log(self.ca_o) - jnp.log(ca_i))
        e_ks = rt_f * (
            jnp.log(self.k_o + self.p_kna * self.na_o) - jnp.log(k_i + self.p_kna * na_i)
        )
        i_na = (self.g_na * m**3 * h * j + self.g_bna) * (vm - e_na)
        i_bca = self.g_bca * (vm - e_ca)
        i_pca = self.g_pca * ca_i / (ca_i + self.k_pca)
        i_ks = self.g_ks * xs**2 * (vm - e_ks)

        # I_K1 + I_pK + I_Kr + I_to over one denominator.
        sqrt_k_o = jnp.sqrt(self.k_o / 5.4)
        k1, k1_below = _inward_rectifier(vm - e_k)
        pk_below = 1 + jnp.exp((25 - vm) * (1 / 5.98))
        g_k = (
            (self.g_k1 * sqrt_k_o) * k1 * pk_below
            + self.g_pk * k1_below
            + ((self.g_kr * sqrt_k_o) * xr1 * xr2 + self.g_to * r * s) * k1_below * pk_below
        )
        i_k = g_k * (vm - e_k) / (k1_below * pk_below) + i_ks

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
        return i_k, i_na, i_nak, i_naca, i_cal, i_bca, i_pca

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


def _inward_rectifier(dv):
    """Open fraction of I_K1 at ``dv = v - E_K`` as numerator and denominator.

    With p = exp(-0.02 dv), alpha = 0.1 / (1 + e^-12 / p^3) and
    beta = (3 exp(0.0002 (dv + 100)) + e^-1 / p^5) / (1 + p^25); xK1 = alpha / (alpha + beta).
    """
    p = powerable_exp(-0.02 * dv)
    p3, p5 = p**3, p**5
    y = 0.0002 * (dv + 100)
    exp_y = 1 + y * (1 + y * (1 / 2 + y * (1 / 6 + y * (1 / 24))))  # |y| < 0.1
    open_ = 0.1 * p3 * p5 * (1 + p5**5)
    return open_, open_ + (p3 + math.exp(-12)) * (3 * exp_y * p5 + math.exp(-1))


def _gate(steady, rate) -> Gate:
    """Gate from two fractions (numerator, denominator) that share one division."""
    per_steady, per_rate = inverses(steady[1], rate[1])
    return Gate(steady[0] * per_steady, rate[0] * per_rate)


def _gates(v, ca_ss, variant):
    """All gates in the order of the state; every rate is written as 1 / tau."""
    e = SharedExponentials(v, *_BASES)
    return (
        *_potassium_gates(e),
        *_sodium_gates(v, e),
        *_calcium_gates(v, e),
        _subspace_gate(ca_ss),
        *_transient_outward_gates(v, e, variant),
    )


def _potassium_gates(e):
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
    xs = _gate((1, 1 + falling(-5, 14)), (alpha_beta, 1400 + 80 * alpha_beta))
    return xr1, xr2, xs


def _sodium_gates(v, e):
    """m, h, j; h and j have one rate function below -40 mV and another above."""
    rising, falling = e.rising, e.falling
    b, c = 1 + rising(-35, 5), 1 + rising(50, 200)
    m = _gate((1, (1 + falling(-56.86, 9.03)) ** 2), ((1 + falling(-60, 5)) * b * c, 0.1 * (b + c)))
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


def _calcium_gates(v, e):
    """d, f, f2."""
    rising, falling = e.rising, e.falling
    a, b, c = 1 + falling(-35, 13), 1 + rising(-5, 5), 1 + falling(50, 20)
    # tau_d = (1.4 / a + 0.25) 1.4 / b + 1 / c
    d = _gate((1, 1 + falling(-8, 7.5)), (a * b * c, (1.4 * 1.4 + 0.25 * 1.4 * a) * c + a * b))
    # exp(-(v + 27)^2 / 225) and exp(-(v + 27)^2 / 240)
    root = powerable_exp((v + 27) ** 2 * (-1 / 3600))
    bell_225, bell_240 = root**16, root**15
    up, up2, down = 1 + falling(13, 10), 1 + falling(25, 10), 1 + rising(-30, 10)
    sigmoid = falling(0, 7)
    f = _gate(
        (sigmoid, sigmoid + math.exp(20 / 7)),
        (up * down, 200 * down + 180 * up + (1102.5 * bell_225 + 20) * up * down),
    )
    f2 = _gate(
        (sigmoid + 0.33 * math.exp(35 / 7), sigmoid + math.exp(35 / 7)),
        (up2 * down, 31 * down + 80 * up2 + 562 * bell_240 * up2 * down),
    )
    return d, f, f2


def _subspace_gate(ca_ss):
    """Fast inactivation of I_CaL by subspace calcium, fCass."""
    x = (ca_ss * (1 / 0.05)) ** 2
    return _gate((1 + 0.4 * x, 1 + x), (1 + x, 82 + 2 * x))


def _transient_outward_gates(v, e, variant):
    """s, r."""
    rising, falling = e.rising, e.falling
    if variant == "endo":
        s = _gate((1, 1 + rising(-28, 5)), (1, 1000 * jnp.exp((v + 67) ** 2 * (-1 / 1000)) + 8))
    else:
        a = 1 + rising(20, 5)
        s = _gate(
            (1, 1 + rising(-20, 5)),
            (a, 5 + (3 + 85 * jnp.exp((v + 45) ** 2 * (-1 / 320))) * a),
        )
    r = _gate((1, 1 + falling(20, 6)), (1, 0.8 + 9.5 * jnp.exp((v + 40) ** 2 * (-1 / 1800))))
    return s, r
