"""The model of the CiPA initiative: Li et al. 2017, doi:10.1161/CIRCEP.116.004628.

Conductances are those of Dutta et al. 2017, doi:10.3389/fphys.2017.00616.

Read from the C and R programs of the authors (U.S. Food and Drug Administration). It is O'Hara
and Rudy 2011 but for a Markov model of I_Kr with a drug bound to it, and scaled conductances.
Initial values are those of its control simulations.
"""

from numpy import exp, log, sqrt

from plain_cells import ohara_rudy

# Scalings of Dutta et al.; I_Kr is divided by 1.1 in both papers.
ENDO = ohara_rudy.ENDO | {
    "g_nal": 0.0075 * 2.661,
    "p_ca": 0.0001 * 1.007,
    "g_kr": 0.046 / 1.1 * 1.114,
    "g_ks": 0.0034 * 1.870,
    "g_k1": 0.1908 * 1.698,
}

# Transition rates a exp(b v) q^((37 - 20) / 10) [1/ms].
RATES = {
    "1": (0.0264, 4.631e-5, 4.843),  # C1 -> C2
    "2": (4.986e-6, -0.004226, 4.23),  # C2 -> C1
    "3": (0.001214, 0.008516, 4.962),  # IC2 -> IO
    "4": (1.854e-5, -0.04641, 3.769),  # IO -> IC2
    "11": (0.0007868, 1.535e-8, 4.942),  # IC1 -> IC2
    "21": (5.455e-6, -0.1688, 4.156),  # IC2 -> IC1
    "31": (0.005509, 7.771e-9, 4.22),  # C2 -> O
    "41": (0.001416, -0.02877, 1.459),  # O -> C2
    "51": (0.4492, 0.008595, 5.0),  # C1 -> IC1
    "52": (0.3181, 3.613e-8, 4.663),  # C2 -> IC2
    "53": (0.149, 0.004668, 2.412),  # O -> IO
    "61": (0.01241, 0.1725, 5.568),  # IC1 -> C1
    "62": (0.3226, -6.575e-4, 5.0),  # IC2 -> C2
    "63": (0.008978, -0.02215, 5.682),  # IO -> O
}

INITIAL = {
    "vm": -88.00190465,
    "na_i": 7.268004498,
    "na_ss": 7.268089977,
    "k_i": 144.6555918,
    "k_ss": 144.6555651,
    "ca_i": 8.6e-5,
    "ca_ss": 8.49e-5,
    "ca_nsr": 1.619574538,
    "ca_jsr": 1.571234014,
    "m": 0.007344121102,
    "hf": 0.6981071913,
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
    "xs1": 0.2707758025,
    "xs2": 0.0001928503426,
    "xk1": 0.9967597594,
    "j_rel_np": 2.5e-7,
    "j_rel_p": 3.12e-7,
    "camk": 0.0125840447,
    "ikr_ic1": 0.999637,
    "ikr_ic2": 6.83208e-5,
    "ikr_c1": 1.80145e-8,
    "ikr_c2": 8.26619e-5,
    "ikr_o": 0.00015551,
    "ikr_io": 5.67623e-5,
    "ikr_iobound": 0.0,
    "ikr_obound": 0.0,
    "ikr_cbound": 0.0,
}

NO_DRUG = {"k_max": 0.0, "k_u": 0.0, "n": 1.0, "half_max": 1.0, "v_half": 1.0, "k_t": 0.0}


def rhs(t, y: dict, i_stim=0.0, dose: float = 0.0, **drug) -> dict:
    """Time derivatives; a drug has a free concentration [nM] and the six constants of Li et al."""

    def i_kr_of(v, y, dy, g_kr, e_k):
        return markov_rectifier(v, y, dy, g_kr, e_k, dose, NO_DRUG | drug)

    return ohara_rudy.derivatives(y, i_stim, "endo", ENDO, i_kr_of)


def markov_rectifier(v, y, dy, g_kr, e_k, dose, drug):
    """Open, closed and inactivated states of hERG, three of them with a drug bound."""
    k = {
        name: a * exp(b * v) * exp((37.0 - 20.0) * log(q) / 10.0)
        for name, (a, b, q) in RATES.items()
    }
    c1, c2, o, io, ic1, ic2 = (y[f"ikr_{x}"] for x in ("c1", "c2", "o", "io", "ic1", "ic2"))
    iobound, obound, cbound = (y[f"ikr_{x}"] for x in ("iobound", "obound", "cbound"))
    activation = k["1"] * c1 - k["2"] * c2
    opening = k["31"] * c2 - k["41"] * o
    inactivated_activation = k["11"] * ic1 - k["21"] * ic2
    inactivated_opening = k["3"] * ic2 - k["4"] * io
    c1_inactivation = k["51"] * c1 - k["61"] * ic1
    c2_inactivation = k["52"] * c2 - k["62"] * ic2
    o_inactivation = k["53"] * o - k["63"] * io
    power = dose ** drug["n"]
    on = drug["k_max"] * drug["k_u"] * power / (power + drug["half_max"])
    o_binding = on * o - drug["k_u"] * obound
    io_binding = on * io - drug["k_u"] * k["53"] / k["63"] * iobound
    untrapping = drug["k_t"] / (1.0 + exp(-(v - drug["v_half"]) / 6.789))
    o_escape = untrapping * cbound - drug["k_t"] * obound
    io_escape = untrapping * cbound - drug["k_t"] * iobound

    dy["ikr_ic1"] = -inactivated_activation + c1_inactivation
    dy["ikr_ic2"] = inactivated_activation - inactivated_opening + c2_inactivation
    dy["ikr_c1"] = -activation - c1_inactivation
    dy["ikr_c2"] = activation - opening - c2_inactivation
    dy["ikr_o"] = opening - o_inactivation - o_binding
    dy["ikr_io"] = inactivated_opening + o_inactivation - io_binding
    dy["ikr_iobound"] = io_binding + io_escape
    dy["ikr_obound"] = o_binding + o_escape
    dy["ikr_cbound"] = -o_escape - io_escape
    return g_kr * sqrt(ohara_rudy.K_O / 5.4) * o * (v - e_k)
