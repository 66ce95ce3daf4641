"""Courtemanche, Ramirez and Nattel 1998, doi:10.1152/ajpheart.1998.275.1.H301.

Read from the paper's equations as in Nektar++, whose reciprocal slip in tau_v is not followed;
initial values are those of the paper. Currents are in pA of a cell of 100 pF. The paper books the
stimulus on no ion; ``stimulus_in_potassium`` does.
"""

import numpy as np
from numpy import exp, log, sqrt

R, T, F = 8.3143, 310.0, 96.4867
CM = 100.0
NA_O, K_O, CA_O = 140.0, 5.4, 1.8
V_CELL = 20100.0
V_I, V_UP, V_REL = 0.68 * V_CELL, 0.0552 * V_CELL, 0.0048 * V_CELL
Q10 = 3.0

INITIAL = {
    "vm": -81.18,
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
    "u": 2.35e-112,
    "v": 1.0,
    "w": 0.9992,
    "na_i": 11.17,
    "k_i": 139.0,
    "ca_i": 1.013e-4,
    "ca_up": 1.488,
    "ca_rel": 1.488,
}


def rhs(t, y: dict, i_stim=0.0, stimulus_in_potassium: bool = False) -> dict:
    """Time derivatives of voltage and states."""
    v = y["vm"]
    na, k, ca, ca_up, ca_rel = (y[name] for name in ("na_i", "k_i", "ca_i", "ca_up", "ca_rel"))
    e_na = R * T / F * log(NA_O / na)
    e_k = R * T / F * log(K_O / k)
    e_ca = R * T / (2.0 * F) * log(CA_O / ca)
    i_na = CM * 7.8 * y["m"] ** 3 * y["h"] * y["j"] * (v - e_na)
    i_k1 = CM * 0.09 * (v - e_k) / (1.0 + exp(0.07 * (v + 80.0)))
    i_to = CM * 0.1652 * y["oa"] ** 3 * y["oi"] * (v - e_k)
    g_kur = 0.005 + 0.05 / (1.0 + exp(-(v - 15.0) / 13.0))
    i_kur = CM * g_kur * y["ua"] ** 3 * y["ui"] * (v - e_k)
    i_kr = CM * 0.029411765 * y["xr"] * (v - e_k) / (1.0 + exp((v + 15.0) / 22.4))
    i_ks = CM * 0.12941176 * y["xs"] ** 2 * (v - e_k)
    i_cal = CM * 0.12375 * y["d"] * y["f"] * y["fca"] * (v - 65.0)
    sigma = (exp(NA_O / 67.3) - 1.0) / 7.0
    f_nak = 1.0 / (
        1.0 + 0.1245 * exp(-0.1 * F * v / (R * T)) + 0.0365 * sigma * exp(-F * v / (R * T))
    )
    i_nak = CM * 0.59933874 * f_nak / (1.0 + (10.0 / na) ** 1.5) * K_O / (K_O + 1.5)
    gamma = 0.35
    i_naca = (
        CM
        * 1600.0
        * (
            exp(gamma * F * v / (R * T)) * na**3 * CA_O
            - exp((gamma - 1.0) * F * v / (R * T)) * NA_O**3 * ca
        )
        / ((87.5**3 + NA_O**3) * (1.38 + CA_O) * (1.0 + 0.1 * exp((gamma - 1.0) * F * v / (R * T))))
    )
    i_bna = CM * 0.0006744375 * (v - e_na)
    i_bca = CM * 0.001131 * (v - e_ca)
    i_pca = CM * 0.275 * ca / (0.0005 + ca)
    i_rel = 30.0 * y["u"] ** 2 * y["v"] * y["w"] * (ca_rel - ca)
    i_tr = (ca_up - ca_rel) / 180.0
    i_up = 0.005 / (1.0 + 0.00092 / ca)
    i_leak = 0.005 * ca_up / 15.0

    total = i_na + i_k1 + i_to + i_kur + i_kr + i_ks + i_bna + i_bca + i_nak + i_pca + i_naca
    dy = {"vm": i_stim - (total + i_cal) / CM}
    i_k = i_k1 + i_to + i_kur + i_kr + i_ks - CM * i_stim * stimulus_in_potassium
    dy["na_i"] = (-3.0 * i_nak - 3.0 * i_naca - i_bna - i_na) / (F * V_I)
    dy["k_i"] = (2.0 * i_nak - i_k) / (F * V_I)
    b1 = (2.0 * i_naca - i_pca - i_cal - i_bca) / (2.0 * F * V_I) + (
        V_UP * (i_leak - i_up) + i_rel * V_REL
    ) / V_I
    b2 = 1.0 + 0.07 * 0.0005 / (ca + 0.0005) ** 2 + 0.05 * 0.00238 / (ca + 0.00238) ** 2
    dy["ca_i"] = b1 / b2
    dy["ca_up"] = i_up - i_leak - i_tr * V_REL / V_UP
    dy["ca_rel"] = (i_tr - i_rel) / (1.0 + 10.0 * 0.8 / (ca_rel + 0.8) ** 2)
    fn = 1e-12 * V_REL * i_rel - 5e-13 / F * (0.5 * i_cal - 0.2 * i_naca)
    steady, tau = gates(v, ca, fn)
    return dy | {name: (steady[name] - y[name]) / tau[name] for name in steady}


def gates(v, ca, fn) -> tuple[dict, dict]:
    """Steady states and time constants [ms] of all gates."""
    steady, tau = {}, {}

    def rates(name, alpha, beta, factor=1.0):
        steady[name] = alpha / (alpha + beta)
        tau[name] = 1.0 / (factor * (alpha + beta))

    rates("m", 0.32 * (v + 47.13) / (1.0 - exp(-0.1 * (v + 47.13))), 0.08 * exp(-v / 11.0))
    low = v < -40.0
    rates(
        "h",
        np.where(low, 0.135 * exp((v + 80.0) / -6.8), 0.0),
        np.where(
            low,
            3.56 * exp(0.079 * v) + 3.1e5 * exp(0.35 * v),
            1.0 / (0.13 * (1.0 + exp((v + 10.66) / -11.1))),
        ),
    )
    rates(
        "j",
        np.where(
            low,
            (-127140.0 * exp(0.2444 * v) - 3.474e-5 * exp(-0.04391 * v))
            * (v + 37.78)
            / (1.0 + exp(0.311 * (v + 79.23))),
            0.0,
        ),
        np.where(
            low,
            0.1212 * exp(-0.01052 * v) / (1.0 + exp(-0.1378 * (v + 40.14))),
            0.3 * exp(-2.535e-7 * v) / (1.0 + exp(-0.1 * (v + 32.0))),
        ),
    )
    activation = 0.65 / (exp((v + 10.0) / -8.5) + exp((v - 30.0) / -59.0))
    deactivation = 0.65 / (2.5 + exp((v + 82.0) / 17.0))
    tau["oa"] = tau["ua"] = 1.0 / (activation + deactivation) / Q10
    steady["oa"] = 1.0 / (1.0 + exp((v + 20.47) / -17.54))
    steady["ua"] = 1.0 / (1.0 + exp((v + 30.3) / -9.6))
    alpha = 1.0 / (18.53 + exp((v + 113.7) / 10.95))
    beta = 1.0 / (35.56 + exp((v + 1.26) / -7.44))
    tau["oi"] = 1.0 / (alpha + beta) / Q10
    steady["oi"] = 1.0 / (1.0 + exp((v + 43.1) / 5.3))
    alpha = 1.0 / (21.0 + exp((v - 185.0) / -28.0))
    beta = exp((v - 158.0) / 16.0)
    tau["ui"] = 1.0 / (alpha + beta) / Q10
    steady["ui"] = 1.0 / (1.0 + exp((v - 99.45) / 27.48))
    alpha = 0.0003 * (v + 14.1) / (1.0 - exp((v + 14.1) / -5.0))
    beta = 7.3898e-5 * (v - 3.3328) / (exp((v - 3.3328) / 5.1237) - 1.0)
    tau["xr"] = 1.0 / (alpha + beta)
    steady["xr"] = 1.0 / (1.0 + exp((v + 14.1) / -6.5))
    alpha = 4e-5 * (v - 19.9) / (1.0 - exp((v - 19.9) / -17.0))
    beta = 3.5e-5 * (v - 19.9) / (exp((v - 19.9) / 9.0) - 1.0)
    tau["xs"] = 0.5 / (alpha + beta)
    steady["xs"] = 1.0 / sqrt(1.0 + exp((v - 19.9) / -12.7))
    e = exp((v + 10.0) / -6.24)
    tau["d"] = (1.0 - e) / (0.035 * (v + 10.0) * (1.0 + e))
    steady["d"] = 1.0 / (1.0 + exp((v + 10.0) / -8.0))
    tau["f"] = 9.0 / (0.0197 * exp(-(0.0337**2) * (v + 10.0) ** 2) + 0.02)
    steady["f"] = 1.0 / (1.0 + exp((v + 28.0) / 6.9))
    tau["fca"] = 2.0
    steady["fca"] = 1.0 / (1.0 + ca / 0.00035)
    with np.errstate(over="ignore"):  # exp of hundreds: the fraction is 0, as meant
        released = 1.0 / (1.0 + exp(-(fn - 3.4175e-13) / 13.67e-16))
        triggered = 1.0 / (1.0 + exp(-(fn - 6.835e-14) / 13.67e-16))
    tau["u"], steady["u"] = 8.0, released
    tau["v"], steady["v"] = 1.91 + 2.09 * released, 1.0 - triggered
    e = exp(-(v - 7.9) / 5.0)
    tau["w"] = 6.0 * (1.0 - e) / ((1.0 + 0.3 * e) * (v - 7.9))
    steady["w"] = 1.0 - 1.0 / (1.0 + exp(-(v - 40.0) / 17.0))
    return steady, tau
