"""Stewart et al. 2009: human Purkinje cell, which fires by itself about once a second."""

import math
from typing import ClassVar

import jax.numpy as jnp

from twinheart.cell.elementary import SharedExponentials
from twinheart.cell.model import Gate, Parameter, Pulse, as_parameter, parameter
from twinheart.cell.tentusscher_currents import (
    BASES,
    AbstractTenTusscher,
    calcium_gates,
    gate,
    potassium_gates,
    sodium_gates,
    subspace_gate,
)


class Stewart2009(AbstractTenTusscher):
    r"""Human Purkinje fibre cell, 13 gates, 6 concentrations and release states.

    .. math::
        I_{ion} = I_{K1} + I_{to} + I_{sus} + I_{Kr} + I_{Ks} + I_f + I_{CaL} + I_{NaK} + I_{Na}
                  + I_{bNa} + I_{NaCa} + I_{bCa} + I_{pK} + I_{pCa}

    The ventricular cell of ten Tusscher and Panfilov (2006) with a hyperpolarisation-activated
    current I_f, a sustained potassium current I_sus, another I_K1 and I_to, and other
    conductances of I_Na, I_Kr and I_Ks. It has no resting voltage: I_f depolarises it until it
    fires.

    Constants and initial values are those of the CellML file made by one of the authors (end of
    diastole at a cycle length of 1000 ms). The potassium balance of that file leaves out the
    stimulus; here potassium carries it, as in ten Tusscher and Panfilov, so that charge is
    conserved however long the cell is paced. Na_i, K_i and Ca_SR are stored as differences from
    fixed `offsets`, as in `TenTusscher2006`.

    Parameters
    ----------
    g_f : float or (node,) array
        Conductance of I_f [nS/pF], of which the fraction `f_na` carries sodium and the rest
        potassium.
    g_na, g_k1, g_to, ... : float or (node,) array
        Conductances and the other constants of the paper; units beside each field, here and in
        `twinheart.cell.tentusscher_currents.AbstractTenTusscher`.

    References
    ----------
    Stewart, Aslanidi, Noble, Noble, Boyett and Zhang 2009, doi:10.1098/rsta.2008.0283.

    Examples
    --------
    >>> from twinheart.cell import get_model
    >>> cell = get_model("stewart2009", g_f=0.0)
    >>> len(cell.state_names)
    19
    """

    g_na: Parameter = parameter(130.5744, "nS/pF")
    g_k1: Parameter = parameter(0.065, "nS/pF")
    g_to: Parameter = parameter(0.08184, "nS/pF")
    g_sus: Parameter = parameter(0.0227, "nS/pF")
    g_kr: Parameter = parameter(0.0918, "nS/pF")
    g_ks: Parameter = parameter(0.2352, "nS/pF")
    g_f: Parameter = parameter(0.038, "nS/pF")
    f_na: Parameter = parameter(0.0145654 / 0.038)

    name: ClassVar[str] = "stewart2009"
    reference: ClassVar[str] = "doi:10.1098/rsta.2008.0283"
    initial: ClassVar[dict[str, float]] = {
        "y": 0.0457562667986602,
        "xr1": 0.00550281999719088,
        "xr2": 0.313213286437995,
        "xs": 0.00953708522974789,
        "m": 0.0417391656294997,
        "h": 0.190678733735145,
        "j": 0.238219836154029,
        "d": 0.000287906256206415,
        "f": 0.989328560287987,
        "f2": 0.995474890442185,
        "fcass": 0.999955429598213,
        "s": 0.96386101799501,
        "r": 0.00103618091196912,
        "r_prime": 0.991580051907845,
        "ca_i": 0.000101878186157052,
        "ca_ss": 0.000446818714055411,
        "ca_sr": 3.10836886659417,
        "na_i": 8.80420286531673,
        "k_i": 136.781894160227,
    }
    # Subtracted from the concentrations in storage [mM].
    offsets: ClassVar[dict[str, float]] = {"ca_sr": 3.108, "na_i": 8.804, "k_i": 136.78}
    channels: ClassVar[dict[str, str]] = {
        "i_na": "g_na",
        "i_to": "g_to",
        "i_sus": "g_sus",
        "i_f": "g_f",
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

    def initial_vm(self):
        """Voltage at the end of diastole [mV]."""
        return as_parameter(-69.1370441635924)

    def rates(self, vm, state, i_stim=0.0):
        """Ionic current [A/F], gates and concentrations; see `AbstractCellModel.rates`."""
        y, xr1, xr2, xs, m, h, j, d, f, f2, fcass, s, r, r_prime, ca_i, ca_ss = state[:16]
        ca_sr, na_i, k_i = (
            x + offset for x, offset in zip(state[16:], self.offsets.values(), strict=True)
        )
        rt_f = self._thermal_voltage()
        e_na, e_k, e_ca, e_ks = self._reversals(rt_f, ca_i, na_i, k_i)
        i_na = (self._sodium_conductance(m, h, j) + self.g_f * self.f_na * y) * (vm - e_na)
        i_ks = self.g_ks * xs**2 * (vm - e_ks)
        i_k = self._potassium_current(vm, e_k, (y, xr1, xr2, r, s)) + i_ks
        i_nak, i_naca, i_cal, i_bca, i_pca = self._transport(
            vm, rt_f, (d, f, f2, fcass), ca_i, ca_ss, na_i, e_ca
        )
        i_ion = i_k + i_na + i_nak + i_naca + i_cal + i_bca + i_pca
        calcium = self._calcium(ca_i, ca_sr, ca_ss, r_prime, i_bca + i_pca - 2 * i_naca, i_cal)
        balances = self._balances(i_k, i_na, i_nak, i_naca, i_stim)
        return i_ion, (*_gates(vm, ca_ss), *calcium, *balances)

    def _potassium_current(self, vm, e_k, gates):
        """I_K1 + I_sus + I_pK + I_to + I_Kr + potassium part of I_f, over one denominator [A/F].

        I_K1 reverses 8 mV above E_K.
        """
        y, xr1, xr2, r, s = gates
        k1_below = 1 + SharedExponentials(vm, *BASES).rising(-75.44, 10)
        sus_below = 1 + jnp.exp((5 - vm) * (1 / 17))
        pk_below = 1 + jnp.exp((25 - vm) * (1 / 5.98))
        g_open = (
            self.g_to * r * s
            + (self.g_kr * jnp.sqrt(self.k_o / 5.4)) * xr1 * xr2
            + (self.g_f * (1 - self.f_na)) * y
        )
        g_k = (self.g_sus + g_open * sus_below) * pk_below + self.g_pk * sus_below
        return (g_k * k1_below * (vm - e_k) + self.g_k1 * sus_below * pk_below * (vm - 8 - e_k)) / (
            k1_below * sus_below * pk_below
        )


def _gates(v, ca_ss):
    """All gates in the order of the state; every rate is written as 1 / tau."""
    e = SharedExponentials(v, *BASES)
    s, r = _transient_outward_gates(v, e)
    return (
        _funny_gate(v),
        *potassium_gates(e),
        *sodium_gates(v, e),
        *calcium_gates(v, e),
        subspace_gate(ca_ss),
        s,
        r,
    )


def _funny_gate(v):
    """y, activation of I_f."""
    rate = (jnp.exp(-2.9 - 0.04 * v) + jnp.exp(3.6 + 0.11 * v)) * (1 / 4000)
    return Gate(1 / (1 + jnp.exp((v + 80.6) * (1 / 6.8))), rate)


def _transient_outward_gates(v, e):
    """s, r."""
    sigmoid = jnp.exp(v * (1 / 13))
    a = 1 + e.rising(40, 5)
    s = gate(
        (1, 1 + math.exp(27 / 13) * sigmoid),
        (a, 5 + (42 + 85 * jnp.exp((v + 25) ** 2 * (-1 / 320))) * a),
    )
    r = gate(
        (sigmoid, sigmoid + math.exp(20 / 13)),
        (1, 7.3 + 10.45 * jnp.exp((v + 40) ** 2 * (-1 / 1800))),
    )
    return s, r
