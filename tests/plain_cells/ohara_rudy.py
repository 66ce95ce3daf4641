"""O'Hara, Virag, Varro and Rudy 2011, doi:10.1371/journal.pcbi.1002061.

Read from the C++ program of the authors (Rudy laboratory, 2015 edition), whose initial values
these are.
"""

from collections.abc import Callable

import numpy as np
from numpy import exp, log, sqrt

R, T, F = 8314.0, 310.0, 96485.0
NA_O, CA_O, K_O = 140.0, 1.8, 5.4

INITIAL = {
    "vm": -87.5,
    "na_i": 7.0,
    "na_ss": 7.0,
    "k_i": 145.0,
    "k_ss": 145.0,
    "ca_i": 1e-4,
    "ca_ss": 1e-4,
    "ca_nsr": 1.2,
    "ca_jsr": 1.2,
    "m": 0.0,
    "hf": 1.0,
    "hs": 1.0,
    "j": 1.0,
    "hsp": 1.0,
    "jp": 1.0,
    "ml": 0.0,
    "hl": 1.0,
    "hlp": 1.0,
    "a": 0.0,
    "if": 1.0,
    "is": 1.0,
    "ap": 0.0,
    "ifp": 1.0,
    "isp": 1.0,
    "d": 0.0,
    "ff": 1.0,
    "fs": 1.0,
    "fcaf": 1.0,
    "fcas": 1.0,
    "jca": 1.0,
    "nca_ss": 0.0,
    "ffp": 1.0,
    "fcafp": 1.0,
    "xrf": 0.0,
    "xrs": 0.0,
    "xs1": 0.0,
    "xs2": 0.0,
    "xk1": 1.0,
    "j_rel_np": 0.0,
    "j_rel_p": 0.0,
    "camk": 0.0,
}

# Conductances of the endocardial cell, and what the other cells multiply them by.
ENDO = {
    "g_na": 75.0,
    "g_nal": 0.0075,
    "g_to": 0.02,
    "p_ca": 0.0001,
    "g_kr": 0.046,
    "g_ks": 0.0034,
    "g_k1": 0.1908,
    "g_ncx": 0.0008,
    "p_nak": 30.0,
    "g_kb": 0.003,
    "up": 1.0,
    "rel": 1.0,
    "cmdn_max": 0.05,
}
FACTORS = {
    "endo": {},
    "epi": {
        "g_nal": 0.6,
        "g_to": 4.0,
        "p_ca": 1.2,
        "g_kr": 1.3,
        "g_ks": 1.4,
        "g_k1": 1.2,
        "g_ncx": 1.1,
        "p_nak": 0.9,
        "g_kb": 0.6,
        "up": 1.3,
        "cmdn_max": 1.3,
    },
    "m": {
        "g_to": 4.0,
        "p_ca": 2.5,
        "g_kr": 0.8,
        "g_k1": 1.3,
        "g_ncx": 1.4,
        "p_nak": 0.7,
        "rel": 1.7,
    },
}


def rhs(t, y: dict, i_stim=0.0, variant: str = "endo") -> dict:
    """Time derivatives of voltage and states."""
    return derivatives(y, i_stim, variant, ENDO, rapid_rectifier)


def derivatives(y: dict, i_stim, variant: str, endo: dict, i_kr_of: Callable) -> dict:
    """Derivatives with given endocardial conductances and a given rapid rectifier.

    The model of the CiPA initiative is this one with other values and another `i_kr_of`.
    """
    g = {name: value * FACTORS[variant].get(name, 1.0) for name, value in endo.items()}
    v, cass = y["vm"], y["ca_ss"]
    e_na = R * T / F * log(NA_O / y["na_i"])
    e_k = R * T / F * log(K_O / y["k_i"])
    e_ks = R * T / F * log((K_O + 0.01833 * NA_O) / (y["k_i"] + 0.01833 * y["na_i"]))

    camk_b = 0.05 * (1.0 - y["camk"]) / (1.0 + 0.0015 / cass)
    camk_a = camk_b + y["camk"]
    dy = {"camk": 0.05 * camk_b * camk_a - 0.00068 * y["camk"]}
    phos = 1.0 / (1.0 + 0.15 / camk_a)  # fraction of channels that are phosphorylated

    i_na, i_nal = sodium(v, y, dy, g, e_na, phos)
    i_to = transient_outward(v, y, dy, g, e_k, phos, variant)
    i_cal, i_cana, i_cak = l_type_calcium(v, y, dy, g, phos)
    i_kr = i_kr_of(v, y, dy, g["g_kr"], e_k)
    i_ks = slow_rectifier(v, y, dy, g, e_ks)
    i_k1 = inward_rectifier(v, y, dy, g, e_k)
    i_naca_i = 0.8 * g["g_ncx"] * exchanger(v, y["na_i"], y["ca_i"])
    i_naca_ss = 0.2 * g["g_ncx"] * exchanger(v, y["na_ss"], cass)
    i_nak = g["p_nak"] * pump(v, y["na_i"], y["k_i"])
    i_kb = g["g_kb"] * (v - e_k) / (1.0 + exp(-(v - 14.48) / 18.34))
    i_nab = 3.75e-10 * goldman(v, 1.0, y["na_i"], NA_O)
    i_cab = 2.5e-8 * goldman(v, 2.0, y["ca_i"], 0.341 * CA_O)
    i_pca = 0.0005 * y["ca_i"] / (0.0005 + y["ca_i"])

    total = i_na + i_nal + i_to + i_cal + i_cana + i_cak + i_kr + i_ks + i_k1
    total = total + i_naca_i + i_naca_ss + i_nak + i_nab + i_kb + i_pca + i_cab
    dy["vm"] = i_stim - total

    currents = {
        "na_i": i_na + i_nal + 3.0 * i_naca_i + 3.0 * i_nak + i_nab,
        "na_ss": i_cana + 3.0 * i_naca_ss,
        "k_i": i_to + i_kr + i_ks + i_k1 + i_kb - i_stim - 2.0 * i_nak,
        "k_ss": i_cak,
        "ca_i": i_pca + i_cab - 2.0 * i_naca_i,
        "ca_ss": i_cal - 2.0 * i_naca_ss,
    }
    concentrations(y, dy, g, phos, i_cal, currents)
    return dy


def goldman(v, z, inside, outside):
    """Flux of Goldman, Hodgkin and Katz times z F, for unit permeability."""
    vffrt, vfrt = v * F * F / (R * T), v * F / (R * T)
    return z * z * vffrt * (inside * exp(z * vfrt) - outside) / (exp(z * vfrt) - 1.0)


def sodium(v, y, dy, g, e_na, phos):
    """Fast and late sodium current."""
    mss = 1.0 / (1.0 + exp(-(v + 39.57) / 9.871))
    tm = 1.0 / (6.765 * exp((v + 11.64) / 34.77) + 8.552 * exp(-(v + 77.42) / 5.955))
    hss = 1.0 / (1.0 + exp((v + 82.90) / 6.086))
    tau_hf = 1.0 / (1.432e-5 * exp(-(v + 1.196) / 6.285) + 6.149 * exp((v + 0.5096) / 20.27))
    tau_hs = 1.0 / (0.009794 * exp(-(v + 17.95) / 28.05) + 0.3343 * exp((v + 5.730) / 56.66))
    tj = 2.038 + 1.0 / (0.02136 * exp(-(v + 100.6) / 8.281) + 0.3052 * exp((v + 0.9941) / 38.45))
    hssp = 1.0 / (1.0 + exp((v + 89.1) / 6.086))
    dy["m"] = (mss - y["m"]) / tm
    dy["hf"] = (hss - y["hf"]) / tau_hf
    dy["hs"] = (hss - y["hs"]) / tau_hs
    dy["j"] = (hss - y["j"]) / tj
    dy["hsp"] = (hssp - y["hsp"]) / (3.0 * tau_hs)
    dy["jp"] = (hss - y["jp"]) / (1.46 * tj)
    h = 0.99 * y["hf"] + 0.01 * y["hs"]
    hp = 0.99 * y["hf"] + 0.01 * y["hsp"]
    i_na = g["g_na"] * (v - e_na) * y["m"] ** 3 * ((1.0 - phos) * h * y["j"] + phos * hp * y["jp"])

    mlss = 1.0 / (1.0 + exp(-(v + 42.85) / 5.264))
    hlss = 1.0 / (1.0 + exp((v + 87.61) / 7.488))
    hlssp = 1.0 / (1.0 + exp((v + 93.81) / 7.488))
    dy["ml"] = (mlss - y["ml"]) / tm
    dy["hl"] = (hlss - y["hl"]) / 200.0
    dy["hlp"] = (hlssp - y["hlp"]) / 600.0
    i_nal = g["g_nal"] * (v - e_na) * y["ml"] * ((1.0 - phos) * y["hl"] + phos * y["hlp"])
    return i_na, i_nal


def transient_outward(v, y, dy, g, e_k, phos, variant):
    """Transient outward potassium current."""
    ass = 1.0 / (1.0 + exp(-(v - 14.34) / 14.82))
    ta = 1.0515 / (
        1.0 / (1.2089 * (1.0 + exp(-(v - 18.4099) / 29.3814)))
        + 3.5 / (1.0 + exp((v + 100.0) / 29.3814))
    )
    iss = 1.0 / (1.0 + exp((v + 43.94) / 5.711))
    delta = 1.0 - 0.95 / (1.0 + exp((v + 70.0) / 5.0)) if variant == "epi" else 1.0
    tif = 4.562 + 1.0 / (0.3933 * exp(-(v + 100.0) / 100.0) + 0.08004 * exp((v + 50.0) / 16.59))
    tis = 23.62 + 1.0 / (0.001416 * exp(-(v + 96.52) / 59.05) + 1.780e-8 * exp((v + 114.1) / 8.079))
    tif, tis = tif * delta, tis * delta
    assp = 1.0 / (1.0 + exp(-(v - 24.34) / 14.82))
    develop = 1.354 + 1.0e-4 / (exp((v - 167.4) / 15.89) + exp(-(v - 12.23) / 0.2154))
    recover = 1.0 - 0.5 / (1.0 + exp((v + 70.0) / 20.0))
    dy["a"] = (ass - y["a"]) / ta
    dy["ap"] = (assp - y["ap"]) / ta
    dy["if"] = (iss - y["if"]) / tif
    dy["is"] = (iss - y["is"]) / tis
    dy["ifp"] = (iss - y["ifp"]) / (develop * recover * tif)
    dy["isp"] = (iss - y["isp"]) / (develop * recover * tis)
    fast = 1.0 / (1.0 + exp((v - 213.6) / 151.2))
    i = fast * y["if"] + (1.0 - fast) * y["is"]
    ip = fast * y["ifp"] + (1.0 - fast) * y["isp"]
    return g["g_to"] * (v - e_k) * ((1.0 - phos) * y["a"] * i + phos * y["ap"] * ip)


def l_type_calcium(v, y, dy, g, phos):
    """L-type channel: its calcium, sodium and potassium current."""
    dss = 1.0 / (1.0 + exp(-(v + 3.940) / 4.230))
    td = 0.6 + 1.0 / (exp(-0.05 * (v + 6.0)) + exp(0.09 * (v + 14.0)))
    fss = 1.0 / (1.0 + exp((v + 19.58) / 3.696))
    tff = 7.0 + 1.0 / (0.0045 * exp(-(v + 20.0) / 10.0) + 0.0045 * exp((v + 20.0) / 10.0))
    tfs = 1000.0 + 1.0 / (0.000035 * exp(-(v + 5.0) / 4.0) + 0.000035 * exp((v + 5.0) / 6.0))
    tfcaf = 7.0 + 1.0 / (0.04 * exp(-(v - 4.0) / 7.0) + 0.04 * exp((v - 4.0) / 7.0))
    tfcas = 100.0 + 1.0 / (0.00012 * exp(-v / 3.0) + 0.00012 * exp(v / 7.0))
    dy["d"] = (dss - y["d"]) / td
    dy["ff"] = (fss - y["ff"]) / tff
    dy["fs"] = (fss - y["fs"]) / tfs
    dy["fcaf"] = (fss - y["fcaf"]) / tfcaf
    dy["fcas"] = (fss - y["fcas"]) / tfcas
    dy["jca"] = (fss - y["jca"]) / 75.0
    dy["ffp"] = (fss - y["ffp"]) / (2.5 * tff)
    dy["fcafp"] = (fss - y["fcafp"]) / (2.5 * tfcaf)
    k2n, km2n = 1000.0, y["jca"]
    anca = 1.0 / (k2n / km2n + (1.0 + 0.002 / y["ca_ss"]) ** 4)
    dy["nca_ss"] = anca * k2n - y["nca_ss"] * km2n

    a_fcaf = 0.3 + 0.6 / (1.0 + exp((v - 10.0) / 10.0))
    f = 0.6 * y["ff"] + 0.4 * y["fs"]
    fp = 0.6 * y["ffp"] + 0.4 * y["fs"]
    fca = a_fcaf * y["fcaf"] + (1.0 - a_fcaf) * y["fcas"]
    fcap = a_fcaf * y["fcafp"] + (1.0 - a_fcaf) * y["fcas"]
    nca = y["nca_ss"]
    plain = y["d"] * (f * (1.0 - nca) + y["jca"] * fca * nca)
    phosphorylated = y["d"] * (fp * (1.0 - nca) + y["jca"] * fcap * nca)
    # permeability 1.1 times larger where phosphorylated, in the same ratios to sodium, potassium
    open_ = g["p_ca"] * ((1.0 - phos) * plain + 1.1 * phos * phosphorylated)
    i_cal = open_ * goldman(v, 2.0, y["ca_ss"], 0.341 * CA_O)
    i_cana = 0.00125 * open_ * goldman(v, 1.0, 0.75 * y["na_ss"], 0.75 * NA_O)
    i_cak = 3.574e-4 * open_ * goldman(v, 1.0, 0.75 * y["k_ss"], 0.75 * K_O)
    return i_cal, i_cana, i_cak


def rapid_rectifier(v, y, dy, g_kr, e_k):
    """Rapid delayed rectifier potassium current of 2011."""
    xrss = 1.0 / (1.0 + exp(-(v + 8.337) / 6.789))
    txrf = 12.98 + 1.0 / (0.3652 * exp((v - 31.66) / 3.869) + 4.123e-5 * exp(-(v - 47.78) / 20.38))
    txrs = 1.865 + 1.0 / (0.06629 * exp((v - 34.70) / 7.355) + 1.128e-5 * exp(-(v - 29.74) / 25.94))
    dy["xrf"] = (xrss - y["xrf"]) / txrf
    dy["xrs"] = (xrss - y["xrs"]) / txrs
    fast = 1.0 / (1.0 + exp((v + 54.81) / 38.21))
    xr = fast * y["xrf"] + (1.0 - fast) * y["xrs"]
    rkr = 1.0 / (1.0 + exp((v + 55.0) / 75.0)) / (1.0 + exp((v - 10.0) / 30.0))
    return g_kr * sqrt(K_O / 5.4) * xr * rkr * (v - e_k)


def slow_rectifier(v, y, dy, g, e_ks):
    """Slow delayed rectifier potassium current."""
    xs1ss = 1.0 / (1.0 + exp(-(v + 11.60) / 8.932))
    txs1 = 817.3 + 1.0 / (
        2.326e-4 * exp((v + 48.28) / 17.80) + 0.001292 * exp(-(v + 210.0) / 230.0)
    )
    txs2 = 1.0 / (0.01 * exp((v - 50.0) / 20.0) + 0.0193 * exp(-(v + 66.54) / 31.0))
    dy["xs1"] = (xs1ss - y["xs1"]) / txs1
    dy["xs2"] = (xs1ss - y["xs2"]) / txs2
    ks_ca = 1.0 + 0.6 / (1.0 + (3.8e-5 / y["ca_i"]) ** 1.4)
    return g["g_ks"] * ks_ca * y["xs1"] * y["xs2"] * (v - e_ks)


def inward_rectifier(v, y, dy, g, e_k):
    """Inward rectifier potassium current."""
    xk1ss = 1.0 / (1.0 + exp(-(v + 2.5538 * K_O + 144.59) / (1.5692 * K_O + 3.8115)))
    txk1 = 122.2 / (exp(-(v + 127.2) / 20.36) + exp((v + 236.8) / 69.33))
    dy["xk1"] = (xk1ss - y["xk1"]) / txk1
    rk1 = 1.0 / (1.0 + exp((v + 105.8 - 2.6 * K_O) / 9.493))
    return g["g_k1"] * sqrt(K_O) * rk1 * y["xk1"] * (v - e_k)


def exchanger(v, na, ca):
    """Sodium-calcium exchanger facing the given concentrations, for unit maximum."""
    kna1, kna2, kna3, kasymm = 15.0, 5.0, 88.12, 12.5
    wna, wca, wnaca, kcaon, kcaoff = 6.0e4, 6.0e4, 5.0e3, 1.5e6, 5.0e3
    hca, hna = exp(0.1670 * v * F / (R * T)), exp(0.5224 * v * F / (R * T))
    h1 = 1.0 + na / kna3 * (1.0 + hna)
    h2 = na * hna / (kna3 * h1)
    h3 = 1.0 / h1
    h4 = 1.0 + na / kna1 * (1.0 + na / kna2)
    h5 = na * na / (h4 * kna1 * kna2)
    h6 = 1.0 / h4
    h7 = 1.0 + NA_O / kna3 * (1.0 + 1.0 / hna)
    h8 = NA_O / (kna3 * hna * h7)
    h9 = 1.0 / h7
    h10 = kasymm + 1.0 + NA_O / kna1 * (1.0 + NA_O / kna2)
    h11 = NA_O * NA_O / (h10 * kna1 * kna2)
    h12 = 1.0 / h10
    k1, k2 = h12 * CA_O * kcaon, kcaoff
    k3p, k3pp = h9 * wca, h8 * wnaca
    k4p, k4pp = h3 * wca / hca, h2 * wnaca
    k3, k4 = k3p + k3pp, k4p + k4pp
    k5, k6 = kcaoff, h6 * ca * kcaon
    k7, k8 = h5 * h2 * wna, h8 * h11 * wna
    x1 = k2 * k4 * (k7 + k6) + k5 * k7 * (k2 + k3)
    x2 = k1 * k7 * (k4 + k5) + k4 * k6 * (k1 + k8)
    x3 = k1 * k3 * (k7 + k6) + k8 * k6 * (k2 + k3)
    x4 = k2 * k8 * (k4 + k5) + k3 * k5 * (k1 + k8)
    e1, e2, e3, e4 = (x / (x1 + x2 + x3 + x4) for x in (x1, x2, x3, x4))
    allosteric = 1.0 / (1.0 + (150.0e-6 / ca) ** 2)
    j_na = 3.0 * (e4 * k7 - e1 * k8) + e3 * k4pp - e2 * k3pp
    j_ca = e2 * k2 - e1 * k1
    return allosteric * (j_na + 2.0 * j_ca)


def pump(v, na, k):
    """Sodium-potassium pump, for unit maximum."""
    knai = 9.073 * exp(-0.1550 * v * F / (3.0 * R * T))
    knao = 27.78 * exp(1.1550 * v * F / (3.0 * R * T))
    kki, kko, mgadp, mgatp, kmgatp, h = 0.5, 0.3582, 0.05, 9.8, 1.698e-7, 1.0e-7
    p = 4.2 / (1.0 + h / 1.698e-7 + na / 224.0 + k / 292.0)
    inside = (1.0 + na / knai) ** 3 + (1.0 + k / kki) ** 2 - 1.0
    outside = (1.0 + NA_O / knao) ** 3 + (1.0 + K_O / kko) ** 2 - 1.0
    a1 = 949.5 * (na / knai) ** 3 / inside
    b1 = 182.4 * mgadp
    a2 = 687.2
    b2 = 39.4 * (NA_O / knao) ** 3 / outside
    a3 = 1899.0 * (K_O / kko) ** 2 / outside
    b3 = 79300.0 * p * h / (1.0 + mgatp / kmgatp)
    a4 = 639.0 * mgatp / kmgatp / (1.0 + mgatp / kmgatp)
    b4 = 40.0 * (k / kki) ** 2 / inside
    x1 = a4 * a1 * a2 + b2 * b4 * b3 + a2 * b4 * b3 + b3 * a1 * a2
    x2 = b2 * b1 * b4 + a1 * a2 * a3 + a3 * b1 * b4 + a2 * a3 * b4
    x3 = a2 * a3 * a4 + b3 * b2 * b1 + b2 * b1 * a4 + a3 * a4 * b1
    x4 = b4 * b3 * b2 + a3 * a4 * a1 + b2 * a4 * a1 + b3 * b2 * a1
    e1, e2, e3, e4 = (x / (x1 + x2 + x3 + x4) for x in (x1, x2, x3, x4))
    j_na = 3.0 * (e1 * a3 - e2 * b3)
    j_k = 2.0 * (e4 * b1 - e3 * a1)
    return j_na + j_k


def concentrations(y, dy, g, phos, i_cal, currents):
    """Release, uptake and the balances of all concentrations."""
    vcell = 1000.0 * 3.14 * 0.0011 * 0.0011 * 0.01
    acap = 2.0 * (2.0 * 3.14 * 0.0011 * 0.0011 + 2.0 * 3.14 * 0.0011 * 0.01)
    vmyo, vnsr, vjsr, vss = 0.68 * vcell, 0.0552 * vcell, 0.0048 * vcell, 0.02 * vcell
    cai, cass, cansr, cajsr = y["ca_i"], y["ca_ss"], y["ca_nsr"], y["ca_jsr"]

    for name, bt in (("j_rel_np", 4.75), ("j_rel_p", 1.25 * 4.75)):
        j_inf = g["rel"] * 0.5 * bt * -i_cal / (1.0 + (1.5 / cajsr) ** 8)
        tau = np.maximum(bt / (1.0 + 0.0123 / cajsr), 0.005)
        dy[name] = (j_inf - y[name]) / tau
    j_rel = (1.0 - phos) * y["j_rel_np"] + phos * y["j_rel_p"]
    j_up_np = g["up"] * 0.004375 * cai / (cai + 0.00092)
    j_up_p = g["up"] * 2.75 * 0.004375 * cai / (cai + 0.00092 - 0.00017)
    j_leak = 0.0039375 * cansr / 15.0
    j_up = (1.0 - phos) * j_up_np + phos * j_up_p - j_leak
    j_tr = (cansr - cajsr) / 100.0
    j_diff_na = (y["na_ss"] - y["na_i"]) / 2.0
    j_diff_k = (y["k_ss"] - y["k_i"]) / 2.0
    j_diff = (cass - cai) / 0.2

    dy["na_i"] = -currents["na_i"] * acap / (F * vmyo) + j_diff_na * vss / vmyo
    dy["na_ss"] = -currents["na_ss"] * acap / (F * vss) - j_diff_na
    dy["k_i"] = -currents["k_i"] * acap / (F * vmyo) + j_diff_k * vss / vmyo
    dy["k_ss"] = -currents["k_ss"] * acap / (F * vss) - j_diff_k
    free_i = 1.0 / (
        1.0 + g["cmdn_max"] * 0.00238 / (0.00238 + cai) ** 2 + 0.07 * 0.0005 / (0.0005 + cai) ** 2
    )
    dy["ca_i"] = free_i * (
        -currents["ca_i"] * acap / (2.0 * F * vmyo) - j_up * vnsr / vmyo + j_diff * vss / vmyo
    )
    free_ss = 1.0 / (
        1.0 + 0.047 * 0.00087 / (0.00087 + cass) ** 2 + 1.124 * 0.0087 / (0.0087 + cass) ** 2
    )
    dy["ca_ss"] = free_ss * (
        -currents["ca_ss"] * acap / (2.0 * F * vss) + j_rel * vjsr / vss - j_diff
    )
    dy["ca_nsr"] = j_up - j_tr * vjsr / vnsr
    free_jsr = 1.0 / (1.0 + 10.0 * 0.8 / (0.8 + cajsr) ** 2)
    dy["ca_jsr"] = free_jsr * (j_tr - j_rel)
