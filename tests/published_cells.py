"""Independent forms of published cell models: equations of a .ode file, recorded traces."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

from twinheart.cell import AbstractCellModel, derivative

# Our names of the states of ten Tusscher 2006 -> those of the .ode file.
ODE_NAMES = {
    "xr1": "Xr1",
    "xr2": "Xr2",
    "xs": "Xs",
    "m": "m",
    "h": "h",
    "j": "j",
    "d": "d",
    "f": "f",
    "f2": "f2",
    "fcass": "fCass",
    "s": "s",
    "r": "r",
    "r_prime": "R_prime",
    "ca_i": "Ca_i",
    "ca_ss": "Ca_ss",
    "ca_sr": "Ca_SR",
    "na_i": "Na_i",
    "k_i": "K_i",
}
# Columns of the recorded trace after time.
TRACE_COLUMNS = (
    *("vm", "ca_i", "xr1", "xr2", "xs", "m", "h", "j", "d", "f", "f2", "fcass", "s", "r"),
    *("ca_sr", "ca_ss", "r_prime", "na_i", "k_i"),
)


def load_ode(path: Path) -> tuple[dict, dict, Callable]:
    """Parameters, initial states and right-hand side of a gotran .ode file, which is Python."""
    parameters, states = {}, {}
    words = {
        "ScalarParam": lambda value, **_: value,
        "parameters": lambda *_, **given: parameters.update(given),
        "states": lambda *_, **given: states.update(given),
        "expressions": lambda *_: None,
    }
    text = path.read_text()
    head = text[: text.index('expressions("')]
    exec(compile(head, path.name, "exec"), dict(words))
    body = compile(text[len(head) :], path.name, "exec")
    functions = {
        "exp": np.exp,
        "log": np.log,
        "sqrt": np.sqrt,
        "floor": np.floor,
        "Conditional": np.where,
        "Lt": np.less,
        "Le": np.less_equal,
        "Ge": np.greater_equal,
        "And": np.logical_and,
    }

    def right_hand_side(**values):
        names = {**words, **functions, **parameters, "time": 0.0, **values}
        exec(body, names)
        return names

    return parameters, states, right_hand_side


def solve_paced(
    model: AbstractCellModel, t: np.ndarray, amplitude: float, on: float, off: float
) -> dict[str, np.ndarray]:
    """Solution of scipy's BDF (rtol 1e-8) at the times `t`, in physical units; needs float64."""

    def flat(y, i_stim):
        dvm, dstate = derivative(model, y[0], tuple(y[1:]), i_stim)
        return jnp.stack([dvm, *dstate])

    rhs, jacobian = jax.jit(flat), jax.jit(jax.jacfwd(flat))
    y = np.array([model.initial_vm(), *model.initial_state()], float)
    found = np.empty((len(t), len(y)))
    found[t == 0] = y
    for begin, end, i_stim in ((0.0, on, 0.0), (on, off, amplitude), (off, t[-1], 0.0)):
        if end <= begin:
            continue
        wanted = (t > begin) & (t <= end)
        solution = solve_ivp(
            lambda _, y, i=i_stim: np.asarray(rhs(y, i)),
            (begin, end),
            y,
            method="BDF",
            rtol=1e-8,
            atol=1e-11,
            jac=lambda _, y, i=i_stim: np.asarray(jacobian(y, i)),
            dense_output=True,
        )
        assert solution.success, solution.message
        y = solution.y[:, -1]
        if wanted.any():
            found[wanted] = solution.sol(t[wanted]).T
    physical = model.physical(tuple(jnp.asarray(column) for column in found.T[1:]))
    return {"vm": found[:, 0]} | {name: np.asarray(x) for name, (x, _) in physical.items()}
