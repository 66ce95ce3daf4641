"""What O'Hara-Rudy 2011, its CiPA variant and ToR-ORd have in common: parameters and balances."""

import abc
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from twinheart.cell import ohara_rudy_currents as shared
from twinheart.cell.elementary import SharedExponentials, powerable_exp
from twinheart.cell.model import AbstractCellModel, Gate, Parameter, as_parameter, parameter
from twinheart.cell.ohara_rudy_currents import FARADAY, GAS_CONSTANT, Law
from twinheart.errors import ModelError

# Activity coefficients of ions of charge one and two.
Activity = tuple[Any, Any]


def varied(unit: str) -> Any:
    """Field of a number that differs between the cell types of one paper; None takes theirs."""
    return eqx.field(default=None, metadata={"unit": unit})


def cell_types(
    values: dict[str, tuple[float, float, float]],
    endo: Mapping[str, float] = MappingProxyType({}),
    epi: Mapping[str, float] = MappingProxyType({}),
    m: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, dict[str, float]]:
    """Values by cell type, from those of endo and the factors of epi and M, and others as given.

    `delta_epi` is the part by which inactivation of I_to is faster in epicardial cells.
    """
    return {
        "epi": {"delta_epi": 0.95, **{x: v * f for x, (v, f, _) in values.items()}, **epi},
        "endo": {"delta_epi": 0.0, **{x: v for x, (v, _, _) in values.items()}, **endo},
        "m": {"delta_epi": 0.0, **{x: v * f for x, (v, _, f) in values.items()}, **m},
    }


def relaxing(inflow: jax.Array, outflow: jax.Array) -> Gate:
    """Occupancy of a Markov state as a gate; `outflow` is the rate of leaving it [1/ms].

    An exponential step of each state alone: first order, and stable where forward Euler is not.
    """
    return Gate(inflow / outflow, outflow)


class AbstractOHaraRudy(AbstractCellModel):
    r"""Human ventricular cell with CaMK, a subspace and two stores of calcium.

    Subclasses give what their papers changed: the currents I_Na, I_Kr and I_K1, the activity
    coefficients of I_CaL, chloride, and the numbers. Everything is a parameter that differs only
    in value between epicardial, endocardial and M cells.

    `tau_rel_factor` multiplies the time constants of the release flux and nothing else; it is one
    in the papers and serves models of infarcted tissue.
    """

    # Cell types and their values of the fields made by `varied`.
    variants: eqx.AbstractClassVar[dict[str, dict[str, float]]]
    # Compartments that I_CaL flows into: subspace, and myoplasm where the paper has it.
    sites: eqx.AbstractClassVar[tuple[str, ...]]
    # Midpoint and slope of the background potassium current [mV].
    kb_curve: eqx.AbstractClassVar[tuple[float, float]]

    # Standard names of the currents and fluxes that all papers have.
    shared_channels: ClassVar[dict[str, str]] = {
        "i_na": "g_na",
        "i_nal": "g_nal",
        "i_to": "g_to",
        "i_cal": "p_ca",
        "i_cana": "p_cana_ratio",
        "i_cak": "p_cak_ratio",
        "i_kr": "g_kr",
        "i_ks": "g_ks",
        "i_k1": "g_k1",
        "i_kb": "g_kb",
        "i_naca": "g_naca",
        "i_nak": "p_nak",
        "i_bna": "p_bna",
        "i_bca": "p_bca",
        "i_pca": "g_pca",
        "j_up": "v_up",
        "j_leak": "v_leak",
        "j_rel": "v_rel",
    }

    # Parameters whose values differ between the papers.
    g_na: eqx.AbstractVar[Parameter]
    k_o: eqx.AbstractVar[Parameter]
    k2n: eqx.AbstractVar[Parameter]
    f_naca_ss: eqx.AbstractVar[Parameter]
    p_bna: eqx.AbstractVar[Parameter]
    p_bca: eqx.AbstractVar[Parameter]
    v_leak: eqx.AbstractVar[Parameter]
    v_rel: eqx.AbstractVar[Parameter]
    k_jsr: eqx.AbstractVar[Parameter]
    tau_tr: eqx.AbstractVar[Parameter]
    tau_rel_min: eqx.AbstractVar[Parameter]

    variant: str = eqx.field(default="endo", static=True)
    g_nal: Parameter = varied("mS/uF")
    g_to: Parameter = varied("mS/uF")
    delta_epi: Parameter = varied("1")
    p_ca: Parameter = varied("l/(F ms)")
    g_kr: Parameter = varied("mS/uF")
    g_ks: Parameter = varied("mS/uF")
    g_k1: Parameter = varied("mS/uF")
    g_kb: Parameter = varied("mS/uF")
    g_naca: Parameter = varied("uC/uF")
    p_nak: Parameter = varied("uC/uF")
    v_up: Parameter = varied("mM/ms")
    a_rel: Parameter = varied("mM/(mV ms)")
    cmdn_max: Parameter = varied("mM")
    tau_hl: Parameter = parameter(200.0, "ms")
    p_cana_ratio: Parameter = parameter(0.00125)
    p_cak_ratio: Parameter = parameter(3.574e-4)
    p_ca_phosphorylated: Parameter = parameter(1.1)
    k_mn: Parameter = parameter(0.002, "mM")
    p_kna: Parameter = parameter(0.01833)
    ks_ca: Parameter = parameter(0.6)
    k_ks_ca: Parameter = parameter(3.8e-5, "mM")
    k_na1: Parameter = parameter(15.0, "mM")
    k_na2: Parameter = parameter(5.0, "mM")
    k_na3: Parameter = parameter(88.12, "mM")
    k_asymm: Parameter = parameter(12.5)
    w_na: Parameter = parameter(6e4, "1/s")
    w_ca: Parameter = parameter(6e4, "1/s")
    w_naca: Parameter = parameter(5e3, "1/s")
    k_ca_on: Parameter = parameter(1.5e6, "1/(mM s)")
    k_ca_off: Parameter = parameter(5e3, "1/s")
    q_na: Parameter = parameter(0.5224)
    q_ca: Parameter = parameter(0.167)
    km_ca_act: Parameter = parameter(150e-6, "mM")
    k1p: Parameter = parameter(949.5, "1/s")
    k1m: Parameter = parameter(182.4, "1/(mM s)")
    k2p: Parameter = parameter(687.2, "1/s")
    k2m: Parameter = parameter(39.4, "1/s")
    k3p: Parameter = parameter(1899.0, "1/s")
    k3m: Parameter = parameter(79300.0, "1/(mM2 s)")
    k4p: Parameter = parameter(639.0, "1/s")
    k4m: Parameter = parameter(40.0, "1/s")
    k_nai0: Parameter = parameter(9.073, "mM")
    k_nao0: Parameter = parameter(27.78, "mM")
    delta_nak: Parameter = parameter(-0.155)
    k_ki: Parameter = parameter(0.5, "mM")
    k_ko: Parameter = parameter(0.3582, "mM")
    mg_adp: Parameter = parameter(0.05, "mM")
    mg_atp: Parameter = parameter(9.8, "mM")
    k_mgatp: Parameter = parameter(1.698e-7, "mM")
    h: Parameter = parameter(1e-7, "mM")
    e_p: Parameter = parameter(4.2, "mM")
    k_hp: Parameter = parameter(1.698e-7, "mM")
    k_nap: Parameter = parameter(224.0, "mM")
    k_xkur: Parameter = parameter(292.0, "mM")
    g_pca: Parameter = parameter(5e-4, "A/F")
    k_pca: Parameter = parameter(5e-4, "mM")
    a_camk: Parameter = parameter(0.05, "1/ms")
    b_camk: Parameter = parameter(0.00068, "1/ms")
    camk_o: Parameter = parameter(0.05)
    k_cam: Parameter = parameter(0.0015, "mM")
    k_camk: Parameter = parameter(0.15)
    k_up: Parameter = parameter(0.00092, "mM")
    bt: Parameter = parameter(4.75, "ms")
    tau_rel_factor: Parameter = parameter(1.0)
    trpn_max: Parameter = parameter(0.07, "mM")
    k_cmdn: Parameter = parameter(0.00238, "mM")
    k_trpn: Parameter = parameter(0.0005, "mM")
    bsr_max: Parameter = parameter(0.047, "mM")
    bsl_max: Parameter = parameter(1.124, "mM")
    k_bsr: Parameter = parameter(0.00087, "mM")
    k_bsl: Parameter = parameter(0.0087, "mM")
    csqn_max: Parameter = parameter(10.0, "mM")
    k_csqn: Parameter = parameter(0.8, "mM")
    tau_diff: Parameter = parameter(2.0, "ms")  # sodium, potassium, chloride
    tau_diff_ca: Parameter = parameter(0.2, "ms")
    na_o: Parameter = parameter(140.0, "mM")
    ca_o: Parameter = parameter(1.8, "mM")
    temperature: Parameter = parameter(310.0, "K")
    length: Parameter = parameter(0.01, "cm")
    radius: Parameter = parameter(0.0011, "cm")
    f_myo: Parameter = parameter(0.68)
    f_nsr: Parameter = parameter(0.0552)
    f_jsr: Parameter = parameter(0.0048)
    f_ss: Parameter = parameter(0.02)

    def __post_init__(self):
        if self.variant not in self.variants:
            raise ModelError(
                f"{type(self).__name__} has no variant {self.variant!r}; choose one of "
                f"{', '.join(self.variants)}."
            )
        for name, value in self.variants[self.variant].items():
            given = getattr(self, name)
            setattr(self, name, as_parameter(value if given is None else given))

    @abc.abstractmethod
    def _sodium(self, v: jax.Array, s: dict, phosphorylated: jax.Array) -> tuple[jax.Array, Law]:
        """Open fraction and gates of I_Na."""

    @abc.abstractmethod
    def _rapid(self, v: jax.Array, z: jax.Array, s: dict) -> tuple[jax.Array, Law]:
        """Open fraction and laws of I_Kr, its dependence on [K]_o included."""

    @abc.abstractmethod
    def _rectifier(self, v: jax.Array, e_k: jax.Array, s: dict) -> tuple[jax.Array, Law]:
        """Open fraction and gates of I_K1, its dependence on [K]_o included."""

    @abc.abstractmethod
    def _calcium_steady(self, v: jax.Array) -> tuple[jax.Array, Gate]:
        """Steady state of the gate d of I_CaL, and its gate jca."""

    @abc.abstractmethod
    def _activities(self, s: dict) -> tuple[Activity, dict[str, Activity]]:
        """Activity coefficients outside, and inside by compartment."""

    @abc.abstractmethod
    def _weights(self) -> tuple[Any, ...]:
        """Fraction of the I_CaL channels in each of `sites`."""

    @abc.abstractmethod
    def _chloride(self, v: jax.Array, s: dict) -> tuple[Any, Law]:
        """Chloride currents [A/F] and the laws of chloride."""

    def rates(self, vm, state, i_stim=0.0):
        """Ionic current [A/F], gates and concentrations; see `AbstractCellModel.rates`.

        The charge of `i_stim` is carried by potassium, as in the papers.
        """
        s = {
            name: x + self.offsets[name] if name in self.offsets else x
            for name, x in zip(self.initial, state, strict=True)
        }
        z = vm * (1 / self._rt_f())
        bound = self.camk_o * (1 - s["camk"]) * s["ca_ss"] / (s["ca_ss"] + self.k_cam)
        active = bound + s["camk"]
        phosphorylated = active / (active + self.k_camk)
        laws: Law = {"camk": self.a_camk * bound * active - self.b_camk * s["camk"]}

        e = SharedExponentials(vm, *shared.BASES)
        i_na, found = self._sodium_currents(vm, s, phosphorylated)
        laws |= found
        i_k, found = self._potassium_currents(vm, z, s, e, phosphorylated)
        laws |= found
        exp_z = powerable_exp(z)
        drives = shared.ghk_drive(z, exp_z)
        channel, i_bna, i_bca, found = self._permeation(vm, s, e, phosphorylated, exp_z, drives)
        laws |= found
        naca = shared.exchanger(self, z, (s["na_i"], s["na_ss"]), (s["ca_i"], s["ca_ss"]))
        i_naca_i = (1 - self.f_naca_ss) * self.g_naca * naca[0]
        i_naca_ss = self.f_naca_ss * self.g_naca * naca[1]
        i_nak = self.p_nak * shared.pump(self, z, s["na_i"], s["k_i"])
        i_pca = self.g_pca * s["ca_i"] / (s["ca_i"] + self.k_pca)
        i_cl, found = self._chloride(vm, s)
        laws |= found

        none = (0.0, 0.0, 0.0)  # of I_CaL: calcium, sodium, potassium
        (ca_i, na_i, k_i), (ca_ss, na_ss, k_ss) = (channel.get(x, none) for x in ("i", "ss"))
        i_ca = ca_i + i_bca + i_pca - 2 * i_naca_i
        i_na = na_i + i_na + i_bna + 3 * i_nak + 3 * i_naca_i
        i_k = k_i + i_k - 2 * i_nak
        i_ss = (ca_ss - 2 * i_naca_ss, na_ss + 3 * i_naca_ss, k_ss)
        laws |= shared.release_laws(self, s, ca_ss)
        laws |= self._monovalent(s, i_na, i_k - i_stim, *i_ss[1:])
        laws |= self._calcium(s, phosphorylated, i_ca, i_ss[0])
        return i_na + i_k + i_ca + sum(i_ss) + i_cl, tuple(laws[name] for name in self.initial)

    def _rt_f(self):
        """R T / F [mV]."""
        return GAS_CONSTANT * self.temperature / FARADAY

    def _per_charge(self):
        """Membrane area over F [uF mol/C] (1 uF/cm2), and the volume of the cell [ul]."""
        area = 2 * (2 * 3.14) * self.radius * (self.radius + self.length)
        return area / FARADAY, 1000 * 3.14 * self.radius * self.radius * self.length

    def _sodium_currents(self, v, s, phosphorylated):
        """I_Na + I_NaL, and their gates."""
        opened, laws = self._sodium(v, s, phosphorylated)
        late = s["ml"] * ((1 - phosphorylated) * s["hl"] + phosphorylated * s["hlp"])
        e_na = self._rt_f() * (jnp.log(self.na_o) - jnp.log(s["na_i"]))
        m = laws["m"]
        assert isinstance(m, Gate)
        laws |= shared.late_sodium_gates(self, v, m.rate)  # mL is as fast as m
        return (self.g_na * opened + self.g_nal * late) * (v - e_na), laws

    def _potassium_currents(self, v, z, s, e, phosphorylated):
        """I_to + I_Kr + I_Ks + I_K1 + I_Kb, and their gates."""
        e_k = self._rt_f() * (jnp.log(self.k_o) - jnp.log(s["k_i"]))
        e_ks = self._rt_f() * (
            jnp.log(self.k_o + self.p_kna * self.na_o) - jnp.log(s["k_i"] + self.p_kna * s["na_i"])
        )
        rapid, rapid_laws = self._rapid(v, z, s)
        rectifier, rectifier_laws = self._rectifier(v, e_k, s)
        half, slope = self.kb_curve
        g_k = (
            self.g_to * shared.transient_outward_open(s, v, phosphorylated)
            + self.g_kr * rapid
            + self.g_k1 * rectifier
            + self.g_kb / (1 + jnp.exp((half - v) * (1 / slope)))
        )
        # (k / Ca)^1.4
        binding = jnp.exp(1.4 * (jnp.log(self.k_ks_ca) - jnp.log(s["ca_i"])))
        g_ks = self.g_ks * (1 + self.ks_ca / (1 + binding)) * s["xs1"] * s["xs2"]
        laws = shared.transient_outward_gates(self, v, e) | shared.slow_potassium_gates(v, e)
        return g_k * (v - e_k) + g_ks * (v - e_ks), laws | rapid_laws | rectifier_laws

    def _permeation(self, v, s, e, phosphorylated, exp_z, drives):
        """Currents through the calcium channel by site, backgrounds, and the channel's laws."""
        drive, drive_ca = drives
        outside, inside = self._activities(s)
        laws = shared.calcium_channel_gates(v, e, *self._calcium_steady(v))
        for site in self.sites:
            mode = f"nca_{site}"
            laws[mode] = shared.calcium_mode(self, s[mode], s["jca"], s[f"ca_{site}"])
        modes = (s[f"nca_{site}"] for site in self.sites)
        opened = shared.calcium_channel_open(self, s, e, phosphorylated, *modes)
        channel = {}
        for site, weight, fraction in zip(self.sites, self._weights(), opened, strict=True):
            one, two = inside[site]
            p_ca = (FARADAY * weight) * self.p_ca * fraction
            calcium = two * s[f"ca_{site}"] * exp_z * exp_z - outside[1] * self.ca_o
            sodium = one * s[f"na_{site}"] * exp_z - outside[0] * self.na_o
            potassium = one * s[f"k_{site}"] * exp_z - outside[0] * self.k_o
            channel[site] = (
                2 * p_ca * drive_ca * calcium,
                self.p_cana_ratio * p_ca * drive * sodium,
                self.p_cak_ratio * p_ca * drive * potassium,
            )
        i_bna = FARADAY * self.p_bna * drive * (s["na_i"] * exp_z - self.na_o)
        calcium = inside["i"][1] * s["ca_i"] * exp_z * exp_z - outside[1] * self.ca_o
        i_bca = 2 * FARADAY * self.p_bca * drive_ca * calcium
        return channel, i_bna, i_bca, laws

    def _monovalent(self, s, i_na, i_k, i_na_ss, i_k_ss) -> Law:
        """Rates of sodium and potassium in myoplasm and subspace from their currents [A/F]."""
        per_charge, volume = self._per_charge()
        per_myo, per_ss = per_charge / (self.f_myo * volume), per_charge / (self.f_ss * volume)
        j_na = (s["na_ss"] - s["na_i"]) * (1 / self.tau_diff)
        j_k = (s["k_ss"] - s["k_i"]) * (1 / self.tau_diff)
        return {
            "na_i": (self.f_ss / self.f_myo) * j_na - per_myo * i_na,
            "na_ss": -j_na - per_ss * i_na_ss,
            "k_i": (self.f_ss / self.f_myo) * j_k - per_myo * i_k,
            "k_ss": -j_k - per_ss * i_k_ss,
        }

    def _calcium(self, s, phosphorylated, i_ca, i_ca_ss) -> Law:
        """Rates of calcium in myoplasm, subspace and both stores from its currents [A/F]."""
        per_charge, volume = self._per_charge()
        ca_i, ca_ss, ca_jsr = s["ca_i"], s["ca_ss"], s["ca_jsr"]
        j_rel = self.v_rel * ((1 - phosphorylated) * s["j_rel_np"] + phosphorylated * s["j_rel_p"])
        j_up = shared.uptake(self, phosphorylated, ca_i) - self.v_leak * s["ca_nsr"]
        j_tr = (s["ca_nsr"] - ca_jsr) * (1 / self.tau_tr)
        j_diff = (ca_ss - ca_i) * (1 / self.tau_diff_ca)
        i_per = per_charge / (2 * volume)
        into_ss = (self.f_jsr * j_rel - i_per * i_ca_ss) * (1 / self.f_ss) - j_diff
        into_i = self.f_ss * j_diff - self.f_nsr * j_up - i_per * i_ca
        return {
            "ca_i": shared.free_fraction(
                ca_i, self.cmdn_max, self.k_cmdn, self.trpn_max, self.k_trpn
            )
            * into_i
            * (1 / self.f_myo),
            "ca_ss": shared.buffered_calcium(
                ca_ss,
                into_ss,
                1 / self.tau_diff_ca,
                ca_ss,
                (self.bsr_max, self.k_bsr),
                (self.bsl_max, self.k_bsl),
            ),
            "ca_nsr": j_up - (self.f_jsr / self.f_nsr) * j_tr,
            "ca_jsr": shared.buffered_calcium(
                ca_jsr,
                j_tr - j_rel,
                1 / self.tau_tr,
                ca_jsr - self.offsets["ca_jsr"],
                (self.csqn_max, self.k_csqn),
            ),
        }
