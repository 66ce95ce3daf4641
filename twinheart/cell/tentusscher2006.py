"""ten Tusscher and Panfilov 2006: human ventricular epicardial, endocardial and M cells."""

import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp

from twinheart.cell.elementary import SharedExponentials, powerable_exp
from twinheart.cell.model import Parameter, Pulse, as_parameter, parameter
from twinheart.cell.tentusscher_currents import (
    BASES,
    AbstractTenTusscher,
    calcium_gates,
    gate,
    potassium_gates,
    sodium_gates,
    subspace_gate,
)
from twinheart.errors import ModelError

# Conductances that differ between the published cell types [nS/pF].
_G_TO = {"epi": 0.294, "endo": 0.073, "m": 0.294}
_G_KS = {"epi": 0.392, "endo": 0.392, "m": 0.098}


class TenTusscher2006(AbstractTenTusscher):
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
    g_kr: Parameter = parameter(0.153, "nS/pF")
    g_k1: Parameter = parameter(5.405, "nS/pF")

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
        xr1, xr2, xs, m, h, j, *ca_gates, s, r = gates
        rt_f = self._thermal_voltage()
        e_na, e_k, e_ca, e_ks = self._reversals(rt_f, ca_i, na_i, k_i)
        i_na = self._sodium_conductance(m, h, j) * (vm - e_na)
        i_ks = self.g_ks * xs**2 * (vm - e_ks)
        i_k = self._potassium_current(vm, e_k, (xr1, xr2, r, s)) + i_ks
        i_nak, i_naca, i_cal, i_bca, i_pca = self._transport(
            vm, rt_f, ca_gates, ca_i, ca_ss, na_i, e_ca
        )
        i_ion = i_k + i_na + i_nak + i_naca + i_cal + i_bca + i_pca
        calcium = self._calcium(ca_i, ca_sr, ca_ss, r_prime, i_bca + i_pca - 2 * i_naca, i_cal)
        balances = self._balances(i_k, i_na, i_nak, i_naca, i_stim)
        return i_ion, (*_gates(vm, ca_ss, self.variant), *calcium, *balances)

    def _potassium_current(self, vm, e_k, gates):
        """I_K1 + I_pK + I_Kr + I_to over one denominator [A/F]."""
        xr1, xr2, r, s = gates
        sqrt_k_o = jnp.sqrt(self.k_o / 5.4)
        k1, k1_below = _inward_rectifier(vm - e_k)
        pk_below = 1 + jnp.exp((25 - vm) * (1 / 5.98))
        g_k = (
            (self.g_k1 * sqrt_k_o) * k1 * pk_below
            + self.g_pk * k1_below
            + ((self.g_kr * sqrt_k_o) * xr1 * xr2 + self.g_to * r * s) * k1_below * pk_below
        )
        return g_k * (vm - e_k) / (k1_below * pk_below)


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


def _gates(v, ca_ss, variant):
    """All gates in the order of the state; every rate is written as 1 / tau."""
    e = SharedExponentials(v, *BASES)
    return (
        *potassium_gates(e),
        *sodium_gates(v, e),
        *calcium_gates(v, e),
        subspace_gate(ca_ss),
        *_transient_outward_gates(v, e, variant),
    )


def _transient_outward_gates(v, e, variant):
    """s, r."""
    rising, falling = e.rising, e.falling
    if variant == "endo":
        s = gate((1, 1 + rising(-28, 5)), (1, 1000 * jnp.exp((v + 67) ** 2 * (-1 / 1000)) + 8))
    else:
        a = 1 + rising(20, 5)
        s = gate(
            (1, 1 + rising(-20, 5)),
            (a, 5 + (3 + 85 * jnp.exp((v + 45) ** 2 * (-1 / 320))) * a),
        )
    r = gate((1, 1 + falling(20, 6)), (1, 0.8 + 9.5 * jnp.exp((v + 40) ** 2 * (-1 / 1800))))
    return s, r
