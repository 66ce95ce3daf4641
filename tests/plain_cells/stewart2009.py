"""Stewart, Aslanidi, Noble, Noble, Boyett and Zhang 2009, doi:10.1098/rsta.2008.0283.

Read from the C program of MonoAlg3D; initial values are those of the paper given there. The
equations book the stimulus on no ion; ``stimulus_in_potassium`` does.
"""

import numpy as np
from numpy import exp, log, sqrt

R, T, F = 8314.472, 310.0, 96485.3415
CM, V_C, V_SR, V_SS = 0.185, 0.016404, 0.001094, 5.468e-5
NA_O, K_O, CA_O = 140.0, 5.4, 2.0

INITIAL = {
    "vm": -74.7890522727,
    "k_i": 136.9896086978,
    "na_i": 8.5447311020,
    "ca_i": 0.0001720623,
    "y": 0.0184308075,
    "xr1": 0.4663168269,
    "xr2": 0.3657472179,
    "xs": 0.0486609588,
    "m": 0.0145766758,
    "h": 0.2979720207,
    "j": 0.0692509548,
    "ca_ss": 0.0006146554,
    "d": 0.0001356656,
    "f": 0.5943228461,
    "f2": 0.8265709174,
    "fcass": 0.9767040566,
    "s": 0.9717098312,
    "r": 0.0006830833,
    "ca_sr": 3.2830723338,
    "r_prime": 0.8199969443,
}


def rhs(t, y: dict, i_stim=0.0, stimulus_in_potassium: bool = False) -> dict:
    """Time derivatives of voltage and states."""
    v = y["vm"]
    na, k, ca, ca_ss = (y[name] for name in ("na_i", "k_i", "ca_i", "ca_ss"))
    e_na = R * T / F * log(NA_O / na)
    e_k = R * T / F * log(K_O / k)
    e_ks = R * T / F * log((K_O + 0.03 * NA_O) / (k + 0.03 * na))
    e_ca = 0.5 * R * T / F * log(CA_O / ca)
    i_fna = y["y"] * 0.0145654 * (v - e_na)
    i_fk = y["y"] * 0.0234346 * (v - e_k)
    i_k1 = 0.065 * (v - 8.0 - e_k) / (1.0 + exp(0.1 * (v + 75.44)))
    i_kr = 0.0918 * sqrt(K_O / 5.4) * y["xr1"] * y["xr2"] * (v - e_k)
    i_ks = 0.2352 * y["xs"] ** 2 * (v - e_ks)
    i_na = 130.5744 * y["m"] ** 3 * y["h"] * y["j"] * (v - e_na)
    i_bna = 0.00029 * (v - e_na)
    z = 2.0 * (v - 15.0) * F / (R * T)
    i_cal = (
        3.98e-5
        * y["d"]
        * y["f"]
        * y["f2"]
        * y["fcass"]
        * 4.0
        * (v - 15.0)
        * F**2
        / (R * T)
        * (0.25 * ca_ss * exp(z) - CA_O)
        / (exp(z) - 1.0)
    )
    i_bca = 0.000592 * (v - e_ca)
    i_to = 0.08184 * y["r"] * y["s"] * (v - e_k)
    i_sus = 0.0227 * (v - e_k) / (1.0 + exp((5.0 - v) / 17.0))
    i_nak = (
        2.724
        * K_O
        / (K_O + 1.0)
        * na
        / (na + 40.0)
        / (1.0 + 0.1245 * exp(-0.1 * v * F / (R * T)) + 0.0353 * exp(-v * F / (R * T)))
    )
    gamma = 0.35
    i_naca = (
        1000.0
        * (
            exp(gamma * v * F / (R * T)) * na**3 * CA_O
            - exp((gamma - 1.0) * v * F / (R * T)) * NA_O**3 * ca * 2.5
        )
        / ((87.5**3 + NA_O**3) * (1.38 + CA_O) * (1.0 + 0.1 * exp((gamma - 1.0) * v * F / (R * T))))
    )
    i_pca = 0.1238 * ca / (ca + 0.0005)
    i_pk = 0.0146 * (v - e_k) / (1.0 + exp((25.0 - v) / 5.98))

    i_k = i_k1 + i_to + i_fk + i_sus + i_kr + i_ks + i_pk
    dy = {"vm": i_stim - (i_k + i_cal + i_nak + i_na + i_bna + i_naca + i_bca + i_pca + i_fna)}
    dy["k_i"] = -(i_k - 2.0 * i_nak - i_stim * stimulus_in_potassium) * CM / (V_C * F)
    dy["na_i"] = -(i_na + i_bna + i_fna + 3.0 * i_nak + 3.0 * i_naca) * CM / (V_C * F)
    dy |= calcium(y, i_bca + i_pca - 2.0 * i_naca, i_cal)
    steady, tau = gates(v, ca_ss)
    return dy | {name: (steady[name] - y[name]) / tau[name] for name in steady}


def calcium(y, i_ca, i_cal) -> dict:
    """Balances of calcium, and the release channel."""
    ca, ca_ss, ca_sr = y["ca_i"], y["ca_ss"], y["ca_sr"]
    i_up = 0.006375 / (1.0 + 0.00025**2 / ca**2)
    i_leak = 0.00036 * (ca_sr - ca)
    i_xfer = 0.0038 * (ca_ss - ca)
    kcasr = 2.5 - (2.5 - 1.0) / (1.0 + (1.5 / ca_sr) ** 2)
    k1, k2 = 0.15 / kcasr, 0.045 * kcasr
    opened = k1 * ca_ss**2 * y["r_prime"] / (0.06 + k1 * ca_ss**2)
    i_rel = 0.102 * opened * (ca_sr - ca_ss)
    free_i = 1.0 / (1.0 + 0.2 * 0.001 / (ca + 0.001) ** 2)
    free_ss = 1.0 / (1.0 + 0.4 * 0.00025 / (ca_ss + 0.00025) ** 2)
    free_sr = 1.0 / (1.0 + 10.0 * 0.3 / (ca_sr + 0.3) ** 2)
    return {
        "r_prime": -k2 * ca_ss * y["r_prime"] + 0.005 * (1.0 - y["r_prime"]),
        "ca_i": free_i * ((i_leak - i_up) * V_SR / V_C + i_xfer - i_ca * CM / (2.0 * V_C * F)),
        "ca_ss": free_ss
        * (-i_cal * CM / (2.0 * V_SS * F) + i_rel * V_SR / V_SS - i_xfer * V_C / V_SS),
        "ca_sr": free_sr * (i_up - i_rel - i_leak),
    }


def gates(v, ca_ss) -> tuple[dict, dict]:
    """Steady states and time constants [ms] of all gates."""
    low = v < -40.0
    alpha_h = np.where(low, 0.057 * exp(-(v + 80.0) / 6.8), 0.0)
    beta_h = np.where(
        low,
        2.7 * exp(0.079 * v) + 310000.0 * exp(0.3485 * v),
        0.77 / (0.13 * (1.0 + exp((v + 10.66) / -11.1))),
    )
    alpha_j = np.where(
        low,
        (-25428.0 * exp(0.2444 * v) - 6.948e-6 * exp(-0.04391 * v))
        * (v + 37.78)
        / (1.0 + exp(0.311 * (v + 79.23))),
        0.0,
    )
    beta_j = np.where(
        low,
        0.02424 * exp(-0.01052 * v) / (1.0 + exp(-0.1378 * (v + 40.14))),
        0.6 * exp(0.057 * v) / (1.0 + exp(-0.1 * (v + 32.0))),
    )
    h_inf = 1.0 / (1.0 + exp((v + 71.55) / 7.43)) ** 2
    bound = 1.0 / (1.0 + (ca_ss / 0.05) ** 2)
    steady = {
        "y": 1.0 / (1.0 + exp((v + 80.6) / 6.8)),
        "xr1": 1.0 / (1.0 + exp((-26.0 - v) / 7.0)),
        "xr2": 1.0 / (1.0 + exp((v + 88.0) / 24.0)),
        "xs": 1.0 / (1.0 + exp((-5.0 - v) / 14.0)),
        "m": 1.0 / (1.0 + exp((-56.86 - v) / 9.03)) ** 2,
        "h": h_inf,
        "j": h_inf,
        "d": 1.0 / (1.0 + exp((-8.0 - v) / 7.5)),
        "f": 1.0 / (1.0 + exp((v + 20.0) / 7.0)),
        "f2": 0.67 / (1.0 + exp((v + 35.0) / 7.0)) + 0.33,
        "fcass": 0.6 * bound + 0.4,
        "s": 1.0 / (1.0 + exp((v + 27.0) / 13.0)),
        "r": 1.0 / (1.0 + exp((20.0 - v) / 13.0)),
    }
    tau = {
        "y": 4000.0 / (exp(-2.9 - 0.04 * v) + exp(3.6 + 0.11 * v)),
        "xr1": 450.0 / (1.0 + exp((-45.0 - v) / 10.0)) * 6.0 / (1.0 + exp((v + 30.0) / 11.5)),
        "xr2": 3.0 / (1.0 + exp((-60.0 - v) / 20.0)) * 1.12 / (1.0 + exp((v - 60.0) / 20.0)),
        "xs": 1400.0 / sqrt(1.0 + exp((5.0 - v) / 6.0)) / (1.0 + exp((v - 35.0) / 15.0)) + 80.0,
        "m": (0.1 / (1.0 + exp((v + 35.0) / 5.0)) + 0.1 / (1.0 + exp((v - 50.0) / 200.0)))
        / (1.0 + exp((-60.0 - v) / 5.0)),
        "h": 1.0 / (alpha_h + beta_h),
        "j": 1.0 / (alpha_j + beta_j),
        "d": (1.4 / (1.0 + exp((-35.0 - v) / 13.0)) + 0.25) * 1.4 / (1.0 + exp((v + 5.0) / 5.0))
        + 1.0 / (1.0 + exp((50.0 - v) / 20.0)),
        "f": 1102.5 * exp(-((v + 27.0) ** 2) / 225.0)
        + 200.0 / (1.0 + exp((13.0 - v) / 10.0))
        + 180.0 / (1.0 + exp((v + 30.0) / 10.0))
        + 20.0,
        "f2": 562.0 * exp(-((v + 27.0) ** 2) / 240.0)
        + 31.0 / (1.0 + exp((25.0 - v) / 10.0))
        + 80.0 / (1.0 + exp((v + 30.0) / 10.0)),
        "fcass": 80.0 * bound + 2.0,
        "s": 85.0 * exp(-((v + 25.0) ** 2) / 320.0) + 5.0 / (1.0 + exp((v - 40.0) / 5.0)) + 42.0,
        "r": 10.45 * exp(-((v + 40.0) ** 2) / 1800.0) + 7.3,
    }
    return steady, tau
