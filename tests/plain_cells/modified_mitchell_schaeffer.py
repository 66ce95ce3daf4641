"""Corrado and Niederer 2016, doi:10.1016/j.mbs.2016.08.010.

Read from the program of the first author (PDEnsorflow), as are the values.
"""

import numpy as np

INITIAL = {"vm": -80.0, "h": 1.0}


def rhs(
    t, y: dict, i_stim=0.0, tau_in=0.1, tau_out=9.0, tau_open=100.0, tau_close=120.0,
    u_gate=0.13, u_crit=0.13, v_rest=-80.0, v_peak=20.0,
) -> dict:  # fmt: skip
    """Time derivatives; u = (V - v_rest) / (v_peak - v_rest)."""
    u, h = (y["vm"] - v_rest) / (v_peak - v_rest), y["h"]
    j_in = -h * u * (u - u_crit) * (1.0 - u) / tau_in
    j_out = (1.0 - h) * u / tau_out
    return {
        "vm": i_stim - (v_peak - v_rest) * (j_in + j_out),
        "h": np.where(u > u_gate, -h / tau_close, (1.0 - h) / tau_open),
    }
