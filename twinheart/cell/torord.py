"""ToR-ORd with dynamic chloride: human ventricular epicardial, endocardial and M cells."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp

from twinheart.cell.model import Gate, Parameter, Pulse, as_parameter, parameter
from twinheart.cell.ohara_rudy_family import AbstractOHaraRudy, cell_types, relaxing, varied

# Start of a beat on the limit cycle at 1 Hz, endo, epi and M cells, from the authors' code; values
# below 1e-19 (published as such, or negative from the solver) are zero.
_VM = (-89.7480828169, -90.7456332496, -91.3391803968)
_STATES: dict[str, tuple[float, float, float]] = {
    "na_i": (12.3973564703, 13.4006197127, 15.9486733632),
    "na_ss": (12.397695333, 13.4009366376, 15.9492201219),
    "k_i": (147.7114744073, 152.3638899914, 156.7130671835),
    "k_ss": (147.7114333609, 152.3638442813, 156.7130129179),
    "ca_i": (7.453481e-05, 6.621816e-05, 8.297576e-05),
    "ca_ss": (6.497341e-05, 5.749921e-05, 6.642187e-05),
    "ca_nsr": (1.528001, 1.806794, 2.012225),
    "ca_jsr": (1.525693, 1.805047, 2.016415),
    "m": (0.0006517154, 0.0005253231, 0.0004619565),
    "hp": (0.7018454, 0.7313656, 0.7478972),
    "h": (0.8473267, 0.8645148, 0.8739077),
    "j": (0.8471657, 0.8644571, 0.8737841),
    "jp": (0.8469014, 0.8643527, 0.8735375),
    "ml": (0.0001351203, 0.0001117969, 9.987709e-05),
    "hl": (0.5566017, 0.5916536, 0.5986118),
    "hlp": (0.3115491, 0.3476812, 0.3339899),
    "a": (0.0008899259, 0.0008320408, 0.0007994042),
    "if": (0.9996716, 0.9997242, 0.9997514),
    "is": (0.5988908, 0.9997235, 0.5702538),
    "ap": (0.0004534165, 0.0004239121, 0.0004072777),
    "ifp": (0.9996716, 0.9997242, 0.9997514),
    "isp": (0.6620692, 0.9997241, 0.6351927),
    "d": (0.0, 0.0, 0.0),
    "ff": (1.0, 1.0, 1.0),
    "fs": (0.9401791, 0.9510602, 0.9183587),
    "fcaf": (1.0, 1.0, 1.0),
    "fcas": (0.9999014, 0.9999377, 0.999754),
    "jca": (0.9999846, 0.9999886, 0.9999743),
    "nca_ss": (0.0004899378, 0.0003049523, 0.000533652),
    "nca_i": (0.0008326009, 0.0005272668, 0.001257861),
    "ffp": (1.0, 1.0, 1.0),
    "fcafp": (1.0, 1.0, 1.0),
    "xs1": (0.243959, 0.2233584, 0.2642293),
    "xs2": (0.0001586167, 0.0001418247, 0.0001327348),
    "j_rel_np": (0.0, 0.0, 0.0),
    "camk": (0.01095026, 0.01273541, 0.0201882),
    "ikr_c2": (0.000793602, 0.0007393045, 0.000708646),
    "ikr_c1": (0.0006532143, 0.0006029079, 0.0005910047),
    "ikr_o": (0.0002922449, 0.0001787783, 0.0003445733),
    "ikr_i": (9.804083e-06, 5.678255e-06, 1.06423e-05),
    "j_rel_p": (0.0, 0.0, 0.0),
    "cl_i": (29.2069793887, 34.3172099045, 48.912768145),
    "cl_ss": (29.2069557376, 34.3171879617, 48.9127355778),
}
_CELLS = ("endo", "epi", "m")

# Endocardial values, and their factors in epicardial and M cells.
_VALUES: dict[str, tuple[float, float, float]] = {
    "g_nal": (0.0279, 0.6, 1.0),
    "g_to": (0.16, 2.0, 2.0),
    "p_ca": (8.3757e-5, 1.2, 2.0),
    "g_kr": (0.0321, 1.3, 0.8),
    "g_ks": (0.0011, 1.4, 1.0),
    "g_k1": (0.6992, 1.2, 1.3),
    "g_kb": (0.0189, 0.6, 1.0),
    "g_naca": (0.0034, 1.1, 1.4),
    "p_nak": (15.4509, 0.9, 0.7),
    "v_up": (0.005425, 1.3, 1.0),
    "a_rel": (0.5, 1.0, 1.7),
    "cmdn_max": (0.05, 1.3, 1.0),
}
# What storage subtracts: close to the concentrations of each cell type, which are 5 to 20 mM apart.
# A number of the model, so that a tissue of several cell types has the right one at each node.
_OFFSETS = {
    "endo": {"na_offset": 12.4, "k_offset": 147.7, "cl_offset": 29.2},
    "epi": {"na_offset": 13.4, "k_offset": 152.36, "cl_offset": 34.3},
    "m": {"na_offset": 15.95, "k_offset": 156.7, "cl_offset": 48.9},
}
_CONCENTRATIONS = tuple(name for name in _STATES if name.startswith(("na_", "k_", "ca_", "cl_")))


class ToRORd(AbstractOHaraRudy):
    r"""Human ventricular cell with a Markov model of I_Kr and chloride as a variable, 43 states.

    .. math::
        I_{ion} = I_{Na} + I_{NaL} + I_{to} + I_{CaL} + I_{CaNa} + I_{CaK} + I_{Kr} + I_{Ks}
                  + I_{K1} + I_{NaCa} + I_{NaK} + I_{Nab} + I_{Cab} + I_{Kb} + I_{pCa}
                  + I_{ClCa} + I_{Clb}

    The five occupancies of I_Kr add up to one: the closed state farthest from the open one is
    not stored but is what the others leave. The stored ones relax to inflow / outflow with the
    rate of their outflow, which is stable where the paper's rates reach 50 / ms.

    Slow concentrations are stored as differences from `offsets`; `physical` gives them whole.
    `na_offset`, `k_offset` and `cl_offset` have no other meaning.

    Parameters
    ----------
    variant : {"endo", "epi", "m"}
        Cell type; sets the parameters that the class declares without a value.
    g_na, g_nal, ... : float or (node,) array
        Conductances and the other constants of the papers; units beside each field.

    Raises
    ------
    ModelError
        If `variant` is unknown.

    References
    ----------
    Tomek et al. 2019, doi:10.7554/eLife.48890; dynamic chloride: Tomek et al. 2020,
    doi:10.1101/2020.06.01.127043.

    Examples
    --------
    >>> from twinheart.cell.torord import ToRORd
    >>> ToRORd("epi").name
    'torord-epi'
    """

    na_offset: Parameter = varied("mM")
    k_offset: Parameter = varied("mM")
    cl_offset: Parameter = varied("mM")
    g_na: Parameter = parameter(11.7802, "mS/uF")
    g_clca: Parameter = parameter(0.2843, "mS/uF")
    g_clb: Parameter = parameter(1.98e-3, "mS/uF")
    f_clca_ss: Parameter = parameter(1.0)
    k_clca: Parameter = parameter(0.1, "mM")
    f_cal_ss: Parameter = parameter(0.8)
    f_naca_ss: Parameter = parameter(0.35)
    tau_jca: Parameter = parameter(72.5, "ms")
    k2n: Parameter = parameter(500.0, "1/ms")
    dielectric: Parameter = parameter(74.0)
    p_bna: Parameter = parameter(1.9239e-9, "l/(F ms)")
    p_bca: Parameter = parameter(5.9194e-8, "l/(F ms)")
    v_leak: Parameter = parameter(0.0048825 / 15, "1/ms")
    v_rel: Parameter = parameter(1.5378)
    k_jsr: Parameter = parameter(1.7, "mM")
    tau_tr: Parameter = parameter(60.0, "ms")
    tau_rel_min: Parameter = parameter(0.001, "ms")
    k_o: Parameter = parameter(5.0, "mM")
    cl_o: Parameter = parameter(150.0, "mM")

    reference: ClassVar[str] = "doi:10.7554/eLife.48890"
    variants: ClassVar[dict[str, dict[str, float]]] = cell_types(_VALUES, **_OFFSETS)
    variants_share_equations: ClassVar[bool] = True
    sites: ClassVar[tuple[str, ...]] = ("ss", "i")
    kb_curve: ClassVar[tuple[float, float]] = (10.8968, 23.9871)
    units: ClassVar[dict[str, str]] = {
        **dict.fromkeys(_CONCENTRATIONS, "mM"),
        **dict.fromkeys(("j_rel_np", "j_rel_p"), "mM/ms"),
    }
    channels: ClassVar[dict[str, str]] = AbstractOHaraRudy.shared_channels | {
        "i_cl_ca": "g_clca",
        "i_cl_b": "g_clb",
    }
    stimulus: ClassVar[Pulse] = Pulse(53.0, 1.0)

    @property
    def name(self):
        """Name that `get_model` understands."""
        return f"torord-{self.variant}"

    @property
    def offsets(self) -> Mapping[str, Any]:
        """Subtracted from the concentrations in storage [mM], by node where the cells differ."""
        return {
            **dict.fromkeys(("na_i", "na_ss"), self.na_offset),
            **dict.fromkeys(("k_i", "k_ss"), self.k_offset),
            **dict.fromkeys(("cl_i", "cl_ss"), self.cl_offset),
            **dict.fromkeys(("ca_nsr", "ca_jsr"), 1.5),
        }

    @property
    def initial(self) -> Mapping[str, float]:
        """State variables of the cell type on its limit cycle at 1 Hz."""
        cell = _CELLS.index(self.variant)
        return {name: values[cell] for name, values in _STATES.items()}

    def initial_vm(self):
        """Voltage of the limit cycle at 1 Hz [mV]."""
        return as_parameter(_VM[_CELLS.index(self.variant)])

    def _sodium(self, v, s, phosphorylated):
        """Grandi's I_Na with phosphorylation; h and j change their rate functions at -40 mV."""
        m = 1 / (1 + jnp.exp((v + 56.86) * (-1 / 9.03)))
        x, y = (v + 45.79) * (1 / 15.54), (v - 4.823) * (1 / 51.12)
        tau_m = 0.1292 * jnp.exp(-x * x) + 0.06487 * jnp.exp(-y * y)
        # One exponential serves both branches: choosing its argument is cheaper than computing two.
        low = v <= -40
        a = jnp.exp(jnp.where(low, (v + 80) * (-1 / 6.8), (v + 10.66) * (-1 / 11.1)))
        rate_h = jnp.where(
            low,
            0.057 * a + 2.7 * jnp.exp(0.079 * v) + 3.1e5 * jnp.exp(0.3485 * v),
            (0.77 / 0.13) / (1 + a),
        )
        alpha_j = (
            (-25428 * jnp.exp(0.2444 * v) - 6.948e-6 * jnp.exp(-0.04391 * v))
            * (v + 37.78)
            / (1 + jnp.exp(0.311 * (v + 79.23)))
        )
        above = jnp.where(low, 0.02424, 0.6) * jnp.exp(jnp.where(low, -0.01052, 0.057) * v)
        below = 1 + jnp.exp(jnp.where(low, -0.1378 * (v + 40.14), -0.1 * (v + 32)))
        rate_j = jnp.where(low, alpha_j, 0) + above / below
        h = jnp.exp((v + 71.55) * (1 / 7.43))
        h_steady = 1 / (1 + h)
        hp_steady = 1 / (1 + math.exp(6 / 7.43) * h)
        h_steady, hp_steady = h_steady * h_steady, hp_steady * hp_steady
        m3 = s["m"] * s["m"] * s["m"]
        plain, changed = s["h"] * s["j"], s["hp"] * s["jp"]
        return m3 * ((1 - phosphorylated) * plain + phosphorylated * changed), {
            "m": Gate(m * m, 1 / tau_m),
            "h": Gate(h_steady, rate_h),
            "hp": Gate(hp_steady, rate_h),
            "j": Gate(h_steady, rate_j),
            "jp": Gate(h_steady, rate_j * (1 / 1.46)),
        }

    def _rapid(self, v, z, s):
        """Markov model of I_Kr: C3 - C2 - C1 - O - I, with a step from C1 to I."""
        c2, c1, o, i = (s[f"ikr_{x}"] for x in ("c2", "c1", "o", "i"))
        alpha, beta = 0.1161 * jnp.exp(0.299 * z), 0.2442 * jnp.exp(-1.604 * z)
        alpha_1, beta_1 = 1.25 * 0.1235, 0.1911
        alpha_2, beta_2 = 0.0578 * jnp.exp(0.971 * z), 0.349e-3 * jnp.exp(-1.062 * z)
        alpha_i, beta_i = 0.2533 * jnp.exp(0.5953 * z), 1.25 * 0.0522 * jnp.exp(-0.8209 * z)
        alpha_c1i = 0.52e-4 * jnp.exp(1.525 * z)
        # beta_ic1 = beta_2 beta_i alpha_c1i / (alpha_2 alpha_i): no net flow round the circle
        beta_ic1 = (0.349e-3 * 1.25 * 0.0522 * 0.52e-4 / (0.0578 * 0.2533)) * jnp.exp(
            (-1.062 - 0.8209 + 1.525 - 0.971 - 0.5953) * z
        )
        # C3 = 1 - others: what it loses to C2 counts as outflow of C2, too.
        return jnp.sqrt(self.k_o / 5) * o, {
            "ikr_c2": relaxing(alpha * (1 - (c1 + o + i)) + beta_1 * c1, alpha + beta + alpha_1),
            "ikr_c1": relaxing(
                alpha_1 * c2 + beta_2 * o + beta_ic1 * i, beta_1 + alpha_2 + alpha_c1i
            ),
            "ikr_o": relaxing(alpha_2 * c1 + beta_i * i, beta_2 + alpha_i),
            "ikr_i": relaxing(alpha_c1i * c1 + alpha_i * o, beta_ic1 + beta_i),
        }

    def _rectifier(self, v, e_k, s):
        """I_K1 = g_K1 sqrt(K_o / 5) a / (a + b) (v - E_K).

        The paper adds exp(0.0618 (dv - 594.31)) to the numerator of b: at any dv below 300 mV less
        than 1e-16 of the other term.
        """
        dv = v - e_k
        a_below = 1 + jnp.exp(0.1217 * (dv - 49.934))
        b, b_below = 15.72 * jnp.exp(0.0674 * (dv - 3.257)), 1 + jnp.exp(-0.1629 * (dv + 14.207))
        return jnp.sqrt(self.k_o / 5) * 4.094 * b_below / (4.094 * b_below + b * a_below), {}

    def _calcium_steady(self, v):
        """Steady state of d (cut at one) and the gate jca of I_CaL."""
        d = 1.0763 * jnp.exp(-1.007 * jnp.exp(-0.0829 * v))
        jca = 1 / (1 + jnp.exp((v + 18.08) * (1 / 2.7916)))
        return jnp.where(v >= 31.4978, 1.0, d), Gate(jca, 1 / self.tau_jca)

    def _weights(self):
        """Fraction of the I_CaL channels in the subspace and in the myoplasm."""
        return self.f_cal_ss, 1 - self.f_cal_ss

    def _activities(self, s):
        """Activity coefficients by Davies' law from the ionic strength of each compartment."""
        outside = self._activity(self.na_o + self.k_o + self.cl_o + 4 * self.ca_o)
        inside = {
            site: self._activity(
                s[f"na_{site}"] + s[f"k_{site}"] + s[f"cl_{site}"] + 4 * s[f"ca_{site}"]
            )
            for site in self.sites
        }
        return outside, inside

    def _activity(self, charge):
        """Coefficients of charges one and two; `charge` is the sum of z^2 c [mM]."""
        strength = 0.0005 * charge
        root = jnp.sqrt(strength)
        a = 1.82e6 * (self.dielectric * self.temperature) ** -1.5
        one = jnp.exp(-a * (root / (1 + root) - 0.3 * strength))
        return one, one * one * one * one

    def _chloride(self, v, s):
        """I_ClCa of both compartments and I_Clb, whose charge chloride carries."""
        rt_f = self._rt_f()
        log_o = jnp.log(self.cl_o)
        e_cl, e_cl_ss = rt_f * (jnp.log(s["cl_i"]) - log_o), rt_f * (jnp.log(s["cl_ss"]) - log_o)
        i_ss = (
            self.f_clca_ss * self.g_clca * s["ca_ss"] * (v - e_cl_ss) / (s["ca_ss"] + self.k_clca)
        )
        slow = (1 - self.f_clca_ss) * self.g_clca * s["ca_i"] / (s["ca_i"] + self.k_clca)
        i_myo = (slow + self.g_clb) * (v - e_cl)
        per_charge, volume = self._per_charge()
        j_cl = (s["cl_ss"] - s["cl_i"]) * (1 / self.tau_diff)
        return i_ss + i_myo, {
            "cl_i": (self.f_ss / self.f_myo) * j_cl + per_charge / (self.f_myo * volume) * i_myo,
            "cl_ss": per_charge / (self.f_ss * volume) * i_ss - j_cl,
        }
