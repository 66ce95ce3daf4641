"""Fenton and Karma 1998, doi:10.1063/1.166311.

Read from Nektar++ (equations, and the four columns of the paper's table of parameters).
"""

import numpy as np
from numpy import tanh

INITIAL = {"vm": -85.0, "v": 1.0, "w": 1.0}

_NAMES = (
    *("g_fi", "tau_r", "tau_si", "tau_0", "tau_v_plus", "tau_v1_minus", "tau_v2_minus"),
    *("tau_w_plus", "tau_w_minus", "u_c", "u_v", "u_c_si", "k"),
)
PARAMETERS = {
    cell: dict(zip(_NAMES, column, strict=True))
    for cell, column in {
        "br": (4, 33.33, 29, 12.5, 3.33, 1250, 19.6, 870, 41, 0.13, 0.04, 0.85, 10),
        "mbr": (4, 50, 44.84, 8.3, 3.33, 1000, 19.2, 667, 11, 0.13, 0.04, 0.85, 10),
        "mlr1": (5.8, 130, 127, 12.5, 10, 18.2, 18.2, 1020, 80, 0.13, 0.0, 0.85, 10),
        "gp": (8.7, 25, 22.22, 12.5, 10, 333, 40, 1000, 65, 0.13, 0.025, 0.85, 10),
    }.items()
}


def rhs(t, y: dict, i_stim=0.0, cell: str = "mbr", v_0=-85.0, v_fi=15.0, **given) -> dict:
    """Time derivatives; u = (V - V_0) / (V_fi - V_0)."""
    p = PARAMETERS[cell] | given
    u, v, w = (y["vm"] - v_0) / (v_fi - v_0), y["v"], y["w"]
    above_c = np.heaviside(u - p["u_c"], 1.0)
    above_v = np.heaviside(u - p["u_v"], 1.0)
    tau_d = 1.0 / p["g_fi"]  # C_m = 1 uF/cm2
    tau_v_minus = above_v * p["tau_v1_minus"] + (1 - above_v) * p["tau_v2_minus"]
    j_fi = -v / tau_d * above_c * (1 - u) * (u - p["u_c"])
    j_so = u / p["tau_0"] * (1 - above_c) + above_c / p["tau_r"]
    j_si = -w / (2 * p["tau_si"]) * (1 + tanh(p["k"] * (u - p["u_c_si"])))
    return {
        "vm": i_stim - (v_fi - v_0) * (j_fi + j_so + j_si),
        "v": (1 - above_c) * (1 - v) / tau_v_minus - above_c * v / p["tau_v_plus"],
        "w": (1 - above_c) * (1 - w) / p["tau_w_minus"] - above_c * w / p["tau_w_plus"],
    }
