"""O'Hara, Virag, Varro and Rudy 2011: human ventricular epicardial, endocardial and M cells."""

from typing import ClassVar

import jax.numpy as jnp

from twinheart.cell.model import Gate, Parameter, Pulse, as_parameter, parameter
from twinheart.cell.ohara_rudy_family import AbstractOHaraRudy, cell_types


class AbstractOHaraRudy2011(AbstractOHaraRudy):
    """All of the model of 2011 but I_Kr and the conductances, which its CiPA variant changes."""

    g_na: Parameter = parameter(75.0, "mS/uF")
    f_naca_ss: Parameter = parameter(0.2)
    f_h_fast: Parameter = parameter(0.99)
    tau_jca: Parameter = parameter(75.0, "ms")
    k2n: Parameter = parameter(1000.0, "1/ms")
    gamma_1: Parameter = parameter(0.75)  # sodium and potassium, inside and outside
    gamma_ca_o: Parameter = parameter(0.341)
    p_bna: Parameter = parameter(3.75e-10, "l/(F ms)")
    p_bca: Parameter = parameter(2.5e-8, "l/(F ms)")
    v_leak: Parameter = parameter(0.0039375 / 15, "1/ms")
    v_rel: Parameter = parameter(1.0)
    k_jsr: Parameter = parameter(1.5, "mM")
    tau_tr: Parameter = parameter(100.0, "ms")
    tau_rel_min: Parameter = parameter(0.005, "ms")
    k_o: Parameter = parameter(5.4, "mM")

    sites: ClassVar[tuple[str, ...]] = ("ss",)
    kb_curve: ClassVar[tuple[float, float]] = (14.48, 18.34)
    # Subtracted in storage, the same for all cell types. xk1 moves by 0.003 below one.
    offsets: ClassVar[dict[str, float]] = {
        "na_i": 7.0,
        "na_ss": 7.0,
        "k_i": 145.0,
        "k_ss": 145.0,
        "ca_nsr": 1.5,
        "ca_jsr": 1.5,
        "xk1": 1.0,
    }
    units: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("ca_i", "ca_ss", *tuple(offsets)[:6]), "mM"),
        **dict.fromkeys(("j_rel_np", "j_rel_p"), "mM/ms"),
    }
    channels: ClassVar[dict[str, str]] = AbstractOHaraRudy.shared_channels
    stimulus: ClassVar[Pulse] = Pulse(80.0, 0.5)

    def _sodium(self, v, s, phosphorylated):
        """I_Na with fast and slow inactivation; CaMK acts on the slow one and on recovery."""
        m = 6.765 * jnp.exp((v + 11.64) * (1 / 34.77))
        m = m + 8.552 * jnp.exp((v + 77.42) * (-1 / 5.955))
        fast = 1.432e-5 * jnp.exp((v + 1.196) * (-1 / 6.285))
        fast = fast + 6.149 * jnp.exp((v + 0.5096) * (1 / 20.27))
        slow = 0.009794 * jnp.exp((v + 17.95) * (-1 / 28.05))
        slow = slow + 0.3343 * jnp.exp((v + 5.73) * (1 / 56.66))
        j = 0.02136 * jnp.exp((v + 100.6) * (-1 / 8.281))
        j = j + 0.3052 * jnp.exp((v + 0.9941) * (1 / 38.45))
        rate_j = j / (2.038 * j + 1)
        h = jnp.exp((v + 82.9) * (1 / 6.086))
        steady = 1 / (1 + h)
        m3 = s["m"] * s["m"] * s["m"]
        h_fast, f = s["hf"], self.f_h_fast
        plain = (f * h_fast + (1 - f) * s["hs"]) * s["j"]
        changed = (f * h_fast + (1 - f) * s["hsp"]) * s["jp"]
        return m3 * ((1 - phosphorylated) * plain + phosphorylated * changed), {
            "m": Gate(1 / (1 + jnp.exp((v + 39.57) * (-1 / 9.871))), m),
            "hf": Gate(steady, fast),
            "hs": Gate(steady, slow),
            "hsp": Gate(1 / (1 + h * jnp.exp(6.2 / 6.086)), slow * (1 / 3)),
            "j": Gate(steady, rate_j),
            "jp": Gate(steady, rate_j * (1 / 1.46)),
        }

    def _rectifier(self, v, e_k, s):
        """I_K1 = g_K1 sqrt(K_o) xk1 rk1 (v - E_K)."""
        below = jnp.exp(-(v + 2.5538 * self.k_o + 144.59) / (1.5692 * self.k_o + 3.8115))
        steady = -below / (1 + below)  # 1 / (1 + below) - 1, see `offsets`
        rate = jnp.exp((v + 127.2) * (-1 / 20.36)) + jnp.exp((v + 236.8) * (1 / 69.33))
        rk1 = 1 / (1 + jnp.exp((v + 105.8 - 2.6 * self.k_o) * (1 / 9.493)))
        return jnp.sqrt(self.k_o) * rk1 * s["xk1"], {"xk1": Gate(steady, rate * (1 / 122.2))}

    def _calcium_steady(self, v):
        """Steady state of d and the gate jca of I_CaL."""
        d = 1 / (1 + jnp.exp((v + 3.94) * (-1 / 4.23)))
        jca = 1 / (1 + jnp.exp((v + 19.58) * (1 / 3.696)))
        return d, Gate(jca, 1 / self.tau_jca)

    def _weights(self):
        """All I_CaL channels are in the subspace."""
        return (1.0,)

    def _activities(self, s):
        """Activity coefficients, fixed; that of calcium inside is one."""
        inside = (self.gamma_1, 1.0)
        return (self.gamma_1, self.gamma_ca_o), {"ss": inside, "i": inside}

    def _chloride(self, v, s):
        """The model has no chloride."""
        return 0.0, {}


# Endocardial values, and their factors in epicardial and M cells.
_VALUES: dict[str, tuple[float, float, float]] = {
    "g_nal": (0.0075, 0.6, 1.0),
    "g_to": (0.02, 4.0, 4.0),
    "p_ca": (1e-4, 1.2, 2.5),
    "g_kr": (0.046, 1.3, 0.8),
    "g_ks": (0.0034, 1.4, 1.0),
    "g_k1": (0.1908, 1.2, 1.3),
    "g_kb": (0.003, 0.6, 1.0),
    "g_naca": (0.0008, 1.1, 1.4),
    "p_nak": (30.0, 0.9, 0.7),
    "v_up": (0.004375, 1.3, 1.0),
    "a_rel": (0.5, 1.0, 1.7),
    "cmdn_max": (0.05, 1.3, 1.0),
}


class OHaraRudy(AbstractOHaraRudy2011):
    r"""Human ventricular cell with CaMK and a calcium subspace, 40 states.

    .. math::
        I_{ion} = I_{Na} + I_{NaL} + I_{to} + I_{CaL} + I_{CaNa} + I_{CaK} + I_{Kr} + I_{Ks}
                  + I_{K1} + I_{NaCa} + I_{NaK} + I_{Nab} + I_{Cab} + I_{Kb} + I_{pCa}

    Initial values are those of the authors' code, for all variants: gates open or closed as at
    rest, not on a limit cycle, which takes hundreds of beats to reach.

    Slow concentrations are stored as differences from `offsets`; `physical` gives them whole.

    Parameters
    ----------
    variant : {"endo", "epi", "m"}
        Cell type; sets the parameters that the class declares without a value.
    g_na, g_nal, ... : float or (node,) array
        Conductances and the other constants of the paper; units beside each field.

    Raises
    ------
    ModelError
        If `variant` is unknown.

    References
    ----------
    O'Hara et al. 2011, doi:10.1371/journal.pcbi.1002061.

    Examples
    --------
    >>> from twinheart.cell.ohara_rudy import OHaraRudy
    >>> OHaraRudy("m").name
    'ohara-rudy-m'
    """

    reference: ClassVar[str] = "doi:10.1371/journal.pcbi.1002061"
    variants: ClassVar[dict[str, dict[str, float]]] = cell_types(_VALUES)
    variants_share_equations: ClassVar[bool] = True
    initial: ClassVar[dict[str, float]] = {
        **{"na_i": 7.0, "na_ss": 7.0, "k_i": 145.0, "k_ss": 145.0},
        **{"ca_i": 1e-4, "ca_ss": 1e-4, "ca_nsr": 1.2, "ca_jsr": 1.2},
        **{"m": 0.0, "hf": 1.0, "hs": 1.0, "j": 1.0, "hsp": 1.0, "jp": 1.0},
        **{"ml": 0.0, "hl": 1.0, "hlp": 1.0},
        **{"a": 0.0, "if": 1.0, "is": 1.0, "ap": 0.0, "ifp": 1.0, "isp": 1.0},
        **{"d": 0.0, "ff": 1.0, "fs": 1.0, "fcaf": 1.0, "fcas": 1.0, "jca": 1.0},
        **{"nca_ss": 0.0, "ffp": 1.0, "fcafp": 1.0},
        **{"xrf": 0.0, "xrs": 0.0, "xs1": 0.0, "xs2": 0.0, "xk1": 1.0},
        **{"j_rel_np": 0.0, "j_rel_p": 0.0, "camk": 0.0},
    }

    @property
    def name(self):
        """Name that `get_model` understands."""
        return f"ohara-rudy-{self.variant}"

    def initial_vm(self):
        """Initial voltage of the authors' code [mV]."""
        return as_parameter(-87.0)

    def _rapid(self, v, z, s):
        """I_Kr = g_Kr sqrt(K_o / 5.4) xr rKr (v - E_K), with fast and slow activation."""
        fast = 0.3652 * jnp.exp((v - 31.66) * (1 / 3.869))
        fast = fast + 4.123e-5 * jnp.exp((v - 47.78) * (-1 / 20.38))
        slow = 0.06629 * jnp.exp((v - 34.7) * (1 / 7.355))
        slow = slow + 1.128e-5 * jnp.exp((v - 29.74) * (-1 / 25.94))
        steady = 1 / (1 + jnp.exp((v + 8.337) * (-1 / 6.789)))
        f_fast = 1 / (1 + jnp.exp((v + 54.81) * (1 / 38.21)))
        xr = f_fast * s["xrf"] + (1 - f_fast) * s["xrs"]
        rkr = 1 / ((1 + jnp.exp((v + 55) * (1 / 75))) * (1 + jnp.exp((v - 10) * (1 / 30))))
        return jnp.sqrt(self.k_o / 5.4) * xr * rkr, {
            "xrf": Gate(steady, fast / (12.98 * fast + 1)),
            "xrs": Gate(steady, slow / (1.865 * slow + 1)),
        }
