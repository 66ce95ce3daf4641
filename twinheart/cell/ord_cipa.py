"""CiPA v1.0: O'Hara-Rudy 2011 with a Markov model of I_Kr that drugs bind to."""

from typing import ClassVar

import jax.numpy as jnp

from twinheart.cell.model import Parameter, as_parameter, parameter
from twinheart.cell.ohara_rudy import AbstractOHaraRudy2011
from twinheart.cell.ohara_rudy_family import relaxing

# Rates of the Markov model at 20 C: factor [1/ms], slope [1/mV] and temperature factor q10.
_RATES = {
    "c1_c2": (0.0264, 4.631e-5, 4.843),
    "c2_c1": (4.986e-6, -0.004226, 4.23),
    "ic1_ic2": (0.0007868, 1.535e-8, 4.942),
    "ic2_ic1": (5.455e-6, -0.1688, 4.156),
    "ic2_io": (0.001214, 0.008516, 4.962),
    "io_ic2": (1.854e-5, -0.04641, 3.769),
    "c2_o": (0.005509, 7.771e-9, 4.22),
    "o_c2": (0.001416, -0.02877, 1.459),
    "c1_ic1": (0.4492, 0.008595, 5.0),
    "ic1_c1": (0.01241, 0.1725, 5.568),
    "c2_ic2": (0.3181, 3.613e-8, 4.663),
    "ic2_c2": (0.3226, -6.575e-4, 5.0),
    "o_io": (0.149, 0.004668, 2.412),
    "io_o": (0.008978, -0.02215, 5.682),
}
# Slope of the voltage dependence of drug untrapping [mV].
_UNTRAPPING = 6.789


class OHaraRudyCipa(AbstractOHaraRudy2011):
    r"""Endocardial cell for the assessment of proarrhythmic risk, 47 states.

    I_Kr has six unbound states and three with a drug: bound to the open or the inactivated
    channel, and trapped in a closed one. Binding has the rate
    :math:`K_{max} K_u D^n / (D^n + EC_{50}^n)`, where `half_max` is :math:`EC_{50}^n`. I_NaL,
    I_CaL, I_Ks and I_K1 are scaled as in Dutta et al.

    The nine occupancies of I_Kr add up to one: IC1 is not stored but is what the others leave. The
    other unbound ones relax to inflow / outflow with the rate of their outflow, which is stable
    where the rates reach hundreds per ms.

    Parameters
    ----------
    variant : {"endo"}
        Cell type; the assessment uses no other.
    concentration : float or (node,) array
        Free concentration of the drug [nM]; zero is no drug.
    k_max, k_u, hill, half_max, v_half, k_t : float or (node,) array
        Binding of the drug: largest binding in units of unbinding, rate of unbinding, Hill
        exponent, half-maximum, voltage of half untrapping, rate of trapping.
    g_na, g_nal, ... : float or (node,) array
        Conductances and the other constants of the papers; units beside each field.

    Raises
    ------
    ModelError
        If `variant` is unknown.

    References
    ----------
    Li et al. 2017, doi:10.1161/CIRCEP.116.004628; Dutta et al. 2017,
    doi:10.3389/fphys.2017.00616; rates as in the code published with them.

    Examples
    --------
    >>> from twinheart.cell.ord_cipa import OHaraRudyCipa
    >>> OHaraRudyCipa(concentration=2.0).concentration.item()
    2.0
    """

    concentration: Parameter = parameter(0.0, "nM")
    k_max: Parameter = parameter(0.0)
    k_u: Parameter = parameter(0.0, "1/ms")
    hill: Parameter = parameter(1.0)
    half_max: Parameter = parameter(1.0, "nM^hill")
    v_half: Parameter = parameter(1.0, "mV")
    k_t: Parameter = parameter(3.5e-5, "1/ms")
    celsius: Parameter = parameter(37.0, "C")  # of the Markov model alone

    name: ClassVar[str] = "ord-cipa"
    reference: ClassVar[str] = "doi:10.1161/CIRCEP.116.004628"
    offsets: ClassVar[dict[str, float]] = {
        **AbstractOHaraRudy2011.offsets,
        **{"na_i": 7.268, "na_ss": 7.268, "k_i": 144.656, "k_ss": 144.656},
    }
    variants: ClassVar[dict[str, dict[str, float]]] = {
        "endo": {
            "g_nal": 0.0075 * 2.661,
            "g_to": 0.02,
            "delta_epi": 0.0,
            "p_ca": 1e-4 * 1.007,
            "g_kr": 0.0465854545454546,
            "g_ks": 0.0034 * 1.87,
            "g_k1": 0.1908 * 1.698,
            "g_kb": 0.003,
            "g_naca": 0.0008,
            "p_nak": 30.0,
            "v_up": 0.004375,
            "a_rel": 0.5,
            "cmdn_max": 0.05,
        }
    }
    initial: ClassVar[dict[str, float]] = {
        "na_i": 7.268004498,
        "na_ss": 7.268089977,
        "k_i": 144.6555918,
        "k_ss": 144.6555651,
        "ca_i": 8.6e-5,
        "ca_ss": 8.49e-5,
        "ca_nsr": 1.619574538,
        "ca_jsr": 1.571234014,
        "m": 0.007344121102,
        "hf": 0.698107191299999985,
        "hs": 0.6980895801,
        "j": 0.6979908432,
        "hsp": 0.4549485525,
        "jp": 0.6979245865,
        "ml": 0.0001882617273,
        "hl": 0.5008548855,
        "hlp": 0.2693065357,
        "a": 0.001001097687,
        "if": 0.9995541745,
        "is": 0.5865061736,
        "ap": 0.0005100862934,
        "ifp": 0.9995541823,
        "isp": 0.6393399482,
        "d": 2.34e-9,
        "ff": 0.9999999909,
        "fs": 0.9102412777,
        "fcaf": 0.9999999909,
        "fcas": 0.9998046777,
        "jca": 0.9999738312,
        "nca_ss": 0.002749414044,
        "ffp": 0.9999999909,
        "fcafp": 0.9999999909,
        "ikr_ic2": 6.83208e-5,
        "ikr_c1": 1.80145e-8,
        "ikr_c2": 8.26619e-5,
        "ikr_o": 0.00015551,
        "ikr_io": 5.67623e-5,
        "ikr_iobound": 0.0,
        "ikr_obound": 0.0,
        "ikr_cbound": 0.0,
        "xs1": 0.2707758025,
        "xs2": 0.0001928503426,
        "xk1": 0.9967597594,
        "j_rel_np": 2.5e-7,
        "j_rel_p": 3.12e-7,
        "camk": 0.0125840447,
    }

    def initial_vm(self):
        """Initial voltage of the published code [mV]."""
        return as_parameter(-88.00190465)

    def _rapid(self, v, z, s):
        """I_Kr = g_Kr sqrt(K_o / 5.4) O (v - E_K): two rows of states, three bound to a drug."""
        warmer = 0.1 * (self.celsius - 20)
        k = {name: a * q**warmer * jnp.exp(b * v) for name, (a, b, q) in _RATES.items()}
        ic2, c1, c2, o, io, io_bound, o_bound, c_bound = (
            s[f"ikr_{x}"] for x in ("ic2", "c1", "c2", "o", "io", "iobound", "obound", "cbound")
        )
        bound = io_bound + o_bound + c_bound
        # A power of zero concentration has no derivative: the inner `where` keeps it finite.
        dosed = self.concentration > 0
        dose = jnp.where(dosed, jnp.where(dosed, self.concentration, 1.0) ** self.hill, 0.0)
        bind = self.k_max * self.k_u * dose / (dose + self.half_max)
        unbind_io = self.k_u * k["o_io"] / k["io_o"]
        trap, untrap = self.k_t, self.k_t / (1 + jnp.exp((self.v_half - v) * (1 / _UNTRAPPING)))
        # What IC1 = 1 - others loses to a state counts as outflow of that state, too.
        not_ic2 = 1 - (c1 + c2 + o + io + bound)
        not_c1 = 1 - (ic2 + c2 + o + io + bound)
        return jnp.sqrt(self.k_o / 5.4) * o, {
            "ikr_ic2": relaxing(
                k["ic1_ic2"] * not_ic2 + k["io_ic2"] * io + k["c2_ic2"] * c2,
                k["ic1_ic2"] + k["ic2_ic1"] + k["ic2_io"] + k["ic2_c2"],
            ),
            "ikr_c1": relaxing(
                k["ic1_c1"] * not_c1 + k["c2_c1"] * c2,
                k["ic1_c1"] + k["c1_c2"] + k["c1_ic1"],
            ),
            "ikr_c2": relaxing(
                k["c1_c2"] * c1 + k["o_c2"] * o + k["ic2_c2"] * ic2,
                k["c2_c1"] + k["c2_o"] + k["c2_ic2"],
            ),
            "ikr_o": relaxing(
                k["c2_o"] * c2 + k["io_o"] * io + self.k_u * o_bound,
                k["o_c2"] + k["o_io"] + bind,
            ),
            "ikr_io": relaxing(
                k["ic2_io"] * ic2 + k["o_io"] * o + unbind_io * io_bound,
                k["io_ic2"] + k["io_o"] + bind,
            ),
            "ikr_iobound": bind * io + untrap * c_bound - (unbind_io + trap) * io_bound,
            "ikr_obound": bind * o + untrap * c_bound - (self.k_u + trap) * o_bound,
            "ikr_cbound": trap * (o_bound + io_bound) - 2 * untrap * c_bound,
        }
