"""Bueno-Orovio, Cherry and Fenton 2008, doi:10.1016/j.jtbi.2008.03.029.

Read from the paper: equations 1 to 15 and the three columns of table 1 for human cells.
"""

import numpy as np
from numpy import tanh

INITIAL = {"vm": -84.0, "v": 1.0, "w": 1.0, "s": 0.0}

_NAMES = (
    *("u_o", "u_u", "theta_v", "theta_w", "theta_v_minus", "theta_o", "tau_v1_minus"),
    *("tau_v2_minus", "tau_v_plus", "tau_w1_minus", "tau_w2_minus", "k_w_minus", "u_w_minus"),
    *("tau_w_plus", "tau_fi", "tau_o1", "tau_o2", "tau_so1", "tau_so2", "k_so", "u_so"),
    *("tau_s1", "tau_s2", "k_s", "u_s", "tau_si", "tau_w_inf", "w_inf_star"),
)
_COLUMNS = {
    "epi": (
        *(0, 1.55, 0.3, 0.13, 0.006, 0.006, 60, 1150, 1.4506, 60, 15, 65, 0.03, 200, 0.11, 400),
        *(6, 30.0181, 0.9957, 2.0458, 0.65, 2.7342, 16, 2.0994, 0.9087, 1.8875, 0.07, 0.94),
    ),
    "endo": (
        *(0, 1.56, 0.3, 0.13, 0.2, 0.006, 75, 10, 1.4506, 6, 140, 200, 0.016, 280, 0.1, 470),
        *(6, 40, 1.2, 2, 0.65, 2.7342, 2, 2.0994, 0.9087, 2.9013, 0.0273, 0.78),
    ),
    "m": (
        *(0, 1.61, 0.3, 0.13, 0.1, 0.005, 80, 1.4506, 1.4506, 70, 8, 200, 0.016, 280, 0.078, 410),
        *(7, 91, 0.8, 2.1, 0.6, 2.7342, 4, 2.0994, 0.9087, 3.3849, 0.01, 0.5),
    ),
}
PARAMETERS = {cell: dict(zip(_NAMES, column, strict=True)) for cell, column in _COLUMNS.items()}


def rhs(t, y: dict, i_stim=0.0, variant: str = "epi", **given) -> dict:
    """Time derivatives; the voltage is 85.7 u - 84 mV."""
    p = PARAMETERS[variant] | given
    u, v, w, s = (y["vm"] + 84.0) / 85.7, y["v"], y["w"], y["s"]
    h_v, h_w, h_o, h_vm = (
        np.heaviside(u - p[name], 1.0)
        for name in ("theta_v", "theta_w", "theta_o", "theta_v_minus")
    )
    tau_v_minus = (1 - h_vm) * p["tau_v1_minus"] + h_vm * p["tau_v2_minus"]
    tau_w_minus = (
        p["tau_w1_minus"]
        + (p["tau_w2_minus"] - p["tau_w1_minus"])
        * (1 + tanh(p["k_w_minus"] * (u - p["u_w_minus"])))
        / 2
    )
    tau_so = (
        p["tau_so1"] + (p["tau_so2"] - p["tau_so1"]) * (1 + tanh(p["k_so"] * (u - p["u_so"]))) / 2
    )
    tau_s = (1 - h_w) * p["tau_s1"] + h_w * p["tau_s2"]
    tau_o = (1 - h_o) * p["tau_o1"] + h_o * p["tau_o2"]
    v_inf = 1 - h_vm
    w_inf = (1 - h_o) * (1 - u / p["tau_w_inf"]) + h_o * p["w_inf_star"]
    j_fi = -v * h_v * (u - p["theta_v"]) * (p["u_u"] - u) / p["tau_fi"]
    j_so = (u - p["u_o"]) * (1 - h_w) / tau_o + h_w / tau_so
    j_si = -h_w * w * s / p["tau_si"]
    return {
        "vm": i_stim - 85.7 * (j_fi + j_so + j_si),
        "v": (1 - h_v) * (v_inf - v) / tau_v_minus - h_v * v / p["tau_v_plus"],
        "w": (1 - h_w) * (w_inf - w) / tau_w_minus - h_w * w / p["tau_w_plus"],
        "s": ((1 + tanh(p["k_s"] * (u - p["u_s"]))) / 2 - s) / tau_s,
    }
