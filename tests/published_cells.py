"""Independent forms of published cell models: files, plain readings, recorded traces."""

import ast
import functools
from collections.abc import Callable
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from plain_cells import (
    aliev_panfilov,
    bueno_orovio,
    courtemanche1998,
    fenton_karma,
    mitchell_schaeffer,
    modified_mitchell_schaeffer,
    ohara_rudy,
    ord_cipa,
    stewart2009,
)
from scipy.integrate import solve_ivp

from twinheart.cell import AbstractCellModel, Pulse, derivative

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
    """Parameters, initial states and right-hand side of a gotran .ode file, which is Python.

    The right-hand side takes the states by name, and anything else of the file that is to have
    another value; it returns every name with its value, derivatives as ``dNAME_dt``.
    """
    parameters, states = {}, {}
    words = {
        "ScalarParam": lambda value, **_: value,
        "parameters": lambda *_, **given: parameters.update(given),
        "states": lambda *_, **given: states.update(given),
    }
    text = path.read_text()
    head = text[: text.index('expressions("')]
    exec(compile(head, path.name, "exec"), dict(words))
    equations = {
        node.targets[0].id: ast.unparse(node.value)
        for node in ast.parse(text[len(head) :]).body
        if isinstance(node, ast.Assign)
    }
    functions = {
        "exp": np.exp,
        "log": np.log,
        "sqrt": np.sqrt,
        "floor": np.floor,
        "Conditional": np.where,
        "Lt": np.less,
        "Le": np.less_equal,
        "Gt": np.greater,
        "Ge": np.greater_equal,
        "Eq": np.equal,
        "And": np.logical_and,
        "Or": np.logical_or,
        "time": 0.0,
    }
    constants = {name: repr(value) for name, value in parameters.items()}
    return parameters, states, _evaluator(constants | equations, functions)


def load_cellml(path: Path) -> tuple[dict, dict, Callable]:
    """What `load_ode` gives, of a CellML file read by myokit; names are ``COMPONENT_VARIABLE``."""
    import myokit.formats

    model = myokit.formats.importer("cellml").model(str(path))
    writer = myokit.numpy_writer()
    constants, equations = {}, {}
    for group in model.solvable_order().values():
        for equation in group:
            name, right = writer.ex(equation.lhs), writer.ex(equation.rhs)
            equations[name] = right
            if equation.rhs.is_literal():
                constants[name] = equation.rhs.eval()
    initial = {
        writer.ex(myokit.Name(state)): value
        for state, value in zip(model.states(), model.initial_values(True), strict=True)
    }
    for name in initial:
        equations[f"d{name}_dt"] = equations.pop(f"_d_{name}")
    time = writer.ex(myokit.Name(model.time()))
    return constants, initial, _evaluator(equations, {"numpy": np, time: 0.0})


def _evaluator(equations: dict[str, str], functions: dict) -> Callable:
    """Evaluates equations in the order they need each other; given values replace theirs."""
    needed = {
        name: {node.id for node in ast.walk(ast.parse(right)) if isinstance(node, ast.Name)}
        for name, right in equations.items()
    }
    graph = {name: names & set(equations) for name, names in needed.items()}
    order = list(TopologicalSorter(graph).static_order())

    @functools.cache
    def body(given: frozenset):
        lines = [f"{name} = {equations[name]}" for name in order if name not in given]
        return compile("\n".join(lines), "equations", "exec")

    def right_hand_side(**values):
        names = {**functions, **values}
        exec(body(frozenset(values)), names)
        return names

    return right_hand_side


class Published(NamedTuple):
    """A model as somebody else wrote it, by our names and in our units.

    Attributes
    ----------
    derivatives : callable
        ``(values, i_stim)`` to the time derivatives of ``"vm"`` and the states, all by name;
        the values are physical, numbers or arrays, the stimulus [A/F] depolarises if positive.
    source : str
        Where it was read.
    """

    derivatives: Callable[[dict, Any], dict]
    source: str


# Our name of the paper -> its module in `plain_cells`.
_PLAIN = {
    "mitchell-schaeffer": mitchell_schaeffer,
    "modified-mitchell-schaeffer": modified_mitchell_schaeffer,
    "aliev-panfilov": aliev_panfilov,
    "fenton-karma": fenton_karma,
    "bueno-orovio": bueno_orovio,
    "ohara-rudy": ohara_rudy,
    "ord-cipa": ord_cipa,
    "courtemanche1998": courtemanche1998,
    "stewart2009": stewart2009,
}
_VARIANTS = ("epi", "endo", "m")


def paper_of(name: str) -> str:
    """Name of a model in the registry without its variant."""
    paper, _, variant = name.rpartition("-")
    return paper if variant in _VARIANTS else name


def published(model: AbstractCellModel, data: Path) -> Published:
    """The published form of a model of the library; `data` is the folder of real data."""
    paper = paper_of(model.name)
    variant = model.name[len(paper) + 1 :]
    if paper == "luo-rudy-1991":
        return _from_file(data / "cell" / "cellml" / "LuoRudy1991.cellml", _LUO_RUDY_NAMES)
    if paper == "tentusscher2006":
        file = data / "cell" / "cellml" / "TenTusscher2006Epi.cellml"
        return _ten_tusscher(_from_file(file, _TEN_TUSSCHER_NAMES, **_TT06[variant]), variant)
    if paper == "torord":
        cell = float(("endo", "epi", "m").index(variant))
        file = data / "cell" / "ode" / "ToRORd_dynCl_endo.ode"
        return _with_one_state_less(_from_file(file, _TORORD_NAMES, celltype=cell), "ikr_c3")
    module = _PLAIN[paper]
    chosen: dict = {"variant": variant} if variant else {}
    if paper == "fenton-karma":
        chosen = {"cell": {"mlr-i": "mlr1"}.get(model.variant, model.variant)}
    if paper == "modified-mitchell-schaeffer":  # two sets of values are in use
        times = ("tau_in", "tau_out", "tau_open", "tau_close", "v_rest", "v_peak")
        chosen = {name: float(getattr(model, name)) for name in times}
    if paper in ("courtemanche1998", "stewart2009"):  # the papers say nothing, the library books it
        chosen = {"stimulus_in_potassium": True}
    if paper == "ord-cipa":
        chosen = {
            theirs: float(getattr(model, ours))
            for ours, theirs in (
                *(("concentration", "dose"), ("hill", "n")),
                *((name, name) for name in ("k_max", "k_u", "half_max", "v_half", "k_t")),
            )
        }
    plain = Published(
        lambda y, i_stim: module.rhs(0.0, y, i_stim, **chosen),
        (module.__doc__ or "").splitlines()[0],
    )
    return _with_one_state_less(plain, "ikr_ic1") if paper == "ord-cipa" else plain


_LUO_RUDY_NAMES = {
    "vm": "membrane_V",
    "m": "fast_sodium_current_m_gate_m",
    "h": "fast_sodium_current_h_gate_h",
    "j": "fast_sodium_current_j_gate_j",
    "d": "slow_inward_current_d_gate_d",
    "f": "slow_inward_current_f_gate_f",
    "x": "time_dependent_potassium_current_X_gate_X",
    "ca_i": "intracellular_calcium_concentration_Cai",
    "i_stim": "membrane_I_stim",
}
_TEN_TUSSCHER_NAMES = {
    "vm": "membrane_V",
    "xr1": "rapid_time_dependent_potassium_current_Xr1_gate_Xr1",
    "xr2": "rapid_time_dependent_potassium_current_Xr2_gate_Xr2",
    "xs": "slow_time_dependent_potassium_current_Xs_gate_Xs",
    "m": "fast_sodium_current_m_gate_m",
    "h": "fast_sodium_current_h_gate_h",
    "j": "fast_sodium_current_j_gate_j",
    "d": "L_type_Ca_current_d_gate_d",
    "f": "L_type_Ca_current_f_gate_f",
    "f2": "L_type_Ca_current_f2_gate_f2",
    "fcass": "L_type_Ca_current_fCass_gate_fCass",
    "s": "transient_outward_current_s_gate_s",
    "r": "transient_outward_current_r_gate_r",
    "r_prime": "calcium_dynamics_R_prime",
    "ca_i": "calcium_dynamics_Ca_i",
    "ca_ss": "calcium_dynamics_Ca_ss",
    "ca_sr": "calcium_dynamics_Ca_SR",
    "na_i": "sodium_dynamics_Na_i",
    "k_i": "potassium_dynamics_K_i",
    "i_stim": "membrane_i_Stim",
}
# What the paper gives for the cells that the file is not made for.
_TT06: dict[str, dict[str, float]] = {
    "epi": {},
    "endo": {"transient_outward_current_g_to": 0.073},
    "m": {"slow_time_dependent_potassium_current_g_Ks": 0.098},
}
_TORORD_NAMES = {
    "vm": "v",
    "na_i": "nai",
    "na_ss": "nass",
    "k_i": "ki",
    "k_ss": "kss",
    "ca_i": "cai",
    "ca_ss": "cass",
    "ca_nsr": "cansr",
    "ca_jsr": "cajsr",
    "cl_i": "cli",
    "cl_ss": "clss",
    **{name: name for name in ("m", "h", "hp", "j", "jp", "a", "ap", "d")},
    "ml": "mL",
    "hl": "hL",
    "hlp": "hLp",
    "if": "iF",
    "is": "iS",
    "ifp": "iFp",
    "isp": "iSp",
    "ff": "ff_",
    **{name: name for name in ("fs", "ffp", "fcaf", "fcas", "fcafp", "jca", "xs1", "xs2")},
    "nca_i": "nca_i",
    "nca_ss": "nca_ss",
    "j_rel_np": "Jrel_np",
    "j_rel_p": "Jrel_p",
    "camk": "CaMKt",
    "ikr_c3": "C3",
    "ikr_c2": "C2",
    "ikr_c1": "C1",
    "ikr_o": "O_",
    "ikr_i": "I_",
    "i_stim": "Istim",
}


def _from_file(path: Path, names: dict[str, str], **constants) -> Published:
    """Equations of a file with other names: ours to theirs; `i_stim` has the opposite sign."""
    load = load_cellml if path.suffix == ".cellml" else load_ode
    _, _, right_hand_side = load(path)
    stimulus = names["i_stim"]
    names = {ours: theirs for ours, theirs in names.items() if ours != "i_stim"}

    def derivatives(y, i_stim):
        values = {theirs: y[ours] for ours, theirs in names.items()}
        found = right_hand_side(**values, **constants, **{stimulus: -i_stim})
        return {ours: found[f"d{theirs}_dt"] for ours, theirs in names.items()}

    return Published(derivatives, path.name)


def _ten_tusscher(epi: Published, variant: str) -> Published:
    """Ten Tusscher's model with the gate s of endocardial cells, which the file does not have."""
    if variant != "endo":
        return epi

    def derivatives(y, i_stim):
        v = y["vm"]
        s_inf = 1 / (1 + np.exp((v + 28) / 5))
        tau_s = 1000 * np.exp(-((v + 67) ** 2) / 1000) + 8
        return epi.derivatives(y, i_stim) | {"s": (s_inf - y["s"]) / tau_s}

    return Published(derivatives, epi.source)


def _with_one_state_less(full: Published, missing: str) -> Published:
    """A Markov model of I_Kr whose states sum to one, with `missing` from this sum."""

    def derivatives(y, i_stim):
        others = sum(x for name, x in y.items() if name.startswith("ikr_"))
        return full.derivatives(y | {missing: 1 - others}, i_stim)

    return Published(derivatives, full.source)


class Solution(NamedTuple):
    """Solution of a published model over one beat.

    Attributes
    ----------
    names : tuple of str
        "vm" and the states.
    at : callable
        Times [ms] to values (names, time), physical.
    """

    names: tuple[str, ...]
    at: Callable[[np.ndarray], np.ndarray]


def solve_published(
    equations: Published, start: dict[str, float], stimulus: Pulse, t_end: float
) -> Solution:
    """One beat, the stimulus at its start, by scipy's LSODA at rtol 1e-10.

    The absolute tolerance is 1e-10 of 100 mV, of one for gates, and of a concentration's or
    flux's starting value.
    """
    names = tuple(start)
    y = np.array([start[name] for name in names], float)
    scale = np.where(
        [name.startswith(("ca_", "na_", "k_", "cl_", "j_rel")) for name in names],
        np.abs(y) + 1e-6,
        1.0,
    )
    scale[names.index("vm")] = 100.0

    def flat(y, i_stim):
        found = equations.derivatives(dict(zip(names, y, strict=True)), i_stim)
        return np.array([np.broadcast_to(found[name], y.shape[1:]) for name in names])

    def jacobian(y, i_stim):
        step = 1e-7 * np.maximum(scale, np.abs(y))
        return (flat(y[:, None] + np.diag(step), i_stim) - flat(y, i_stim)[:, None]) / step

    parts = []
    pulse = ((0.0, stimulus.duration, stimulus.amplitude), (stimulus.duration, t_end, 0.0))
    for begin, end, i_stim in pulse:
        found = solve_ivp(
            lambda _, y, i=i_stim: flat(y, i),
            (begin, end),
            y,
            method="LSODA",
            rtol=1e-10,
            atol=1e-10 * scale,
            jac=lambda _, y, i=i_stim: jacobian(y, i),
            dense_output=True,
        )
        assert found.success, found.message
        y = found.y[:, -1]
        parts.append(found.sol)

    def at(t):
        during = t <= stimulus.duration
        values = np.empty((len(names), len(t)))
        for part, chosen in zip(parts, (during, ~during), strict=True):
            if chosen.any():
                values[:, chosen] = part(t[chosen])
        return values

    return Solution(names, at)


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
