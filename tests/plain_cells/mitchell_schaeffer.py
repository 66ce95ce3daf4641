"""Mitchell and Schaeffer 2003, doi:10.1016/S0092-8240(03)00041-7; read from the paper."""

import numpy as np

INITIAL = {"vm": -85.0, "h": 1.0}


def rhs(
    t, y: dict, i_stim=0.0, tau_in=0.3, tau_out=6.0, tau_open=120.0, tau_close=150.0,
    v_gate=0.13, v_rest=-85.0, v_peak=40.0,
) -> dict:  # fmt: skip
    """Time derivatives; v = (V - v_rest) / (v_peak - v_rest)."""
    v, h = (y["vm"] - v_rest) / (v_peak - v_rest), y["h"]
    j_in = h * v**2 * (1.0 - v) / tau_in
    j_out = -v / tau_out
    return {
        "vm": i_stim + (v_peak - v_rest) * (j_in + j_out),
        "h": np.where(v < v_gate, (1.0 - h) / tau_open, -h / tau_close),
    }
