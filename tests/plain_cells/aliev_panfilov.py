"""Aliev and Panfilov 1996, doi:10.1016/0960-0779(95)00089-5.

Read from the paper and the demonstration of DOLFIN (whose mu_1 = 0.07 is not the paper's 0.2).
"""

INITIAL = {"vm": -80.0, "v": 0.0}


def rhs(
    t, y: dict, i_stim=0.0, k=8.0, a=0.15, epsilon_0=0.002, mu_1=0.2, mu_2=0.3, time_unit=12.9
) -> dict:
    """Time derivatives; the voltage is 100 u - 80 mV and a unit of time 12.9 ms."""
    u, v = (y["vm"] + 80.0) / 100.0, y["v"]
    epsilon = epsilon_0 + mu_1 * v / (u + mu_2)
    du = -k * u * (u - a) * (u - 1.0) - u * v
    dv = epsilon * (-v - k * u * (u - a - 1.0))
    return {"vm": i_stim + 100.0 * du / time_unit, "v": dv / time_unit}
