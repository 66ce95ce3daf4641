"""Every model written by hand against the published equations that somebody else wrote down.

The other readings are in `published_cells` and `plain_cells`. Four questions for each model: are
the derivatives the same, does a paced beat at the recommended time step follow a stiff solver at
rtol 1e-10, does the error fall with the time step as theory says, and does float32 do what
float64 does. `-s` prints what was measured.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published_cells import paper_of, published, solve_published
from tolerances import ORDER

from twinheart.cell import apd, derivative, get_model, model_names, pace_cell

# Derivatives, of their own size plus 1e-5 of the largest: rounding of the few hundred operations
# between which large currents cancel.
EQUATIONS = 1e-9
# The same where a series replaces z / (e^z - 1) or exp of a tiny argument, cut at 1e-8 of its term.
SERIES = 1e-6
_WITH_SERIES = (
    *("luo-rudy-1991", "tentusscher2006", "ohara-rudy", "ord-cipa", "torord"),
    *("courtemanche1998", "stewart2009"),
)

# A beat at the recommended time step: the targets of the library.
BEAT_VM = 0.5  # mV, root mean square after the upstrokes are aligned
BEAT_STATE = 0.01  # part of the range of a state, likewise
BEAT_SHIFT = 0.05  # ms between the upstrokes
BEAT_APD = 0.005  # part of the APD90

# Float32 against float64 at the end of many beats.
SINGLE_APD = 0.2  # ms
SINGLE_CONCENTRATION = 1e-3

# Dofetilide (Li et al. 2017, table 2) at 2 nM, for the states of I_Kr with a drug bound.
DRUG = {
    **{"concentration": 2.0, "k_max": 1e8, "k_u": 1.79e-5, "hill": 0.9999},
    **{"half_max": 5.483e8, "v_half": -1.147},
}

BCL = 1000.0
UPSTROKE = -20.0  # mV, crossed by every upstroke and by no rest
_CONCENTRATIONS = ("ca_", "na_", "k_", "cl_")


SMALL = (
    *("mitchell-schaeffer", "modified-mitchell-schaeffer", "aliev-panfilov", "fenton-karma"),
    *("bueno-orovio", "luo-rudy-1991"),
)


def _one_a_paper(*papers: str) -> list:
    """All models; slow ones but for the first of each of these papers."""
    first: dict[str, str] = {}
    for name in model_names():
        first.setdefault(paper_of(name), name)
    default = {first[paper] for paper in papers}
    slow = pytest.mark.slow
    return [pytest.param(x, marks=() if x in default else slow) for x in model_names()]


def physical_start(model) -> dict[str, float]:
    """Voltage and states at the start, by name."""
    state = {name: float(x) for name, (x, _) in model.physical(model.initial_state()).items()}
    return {"vm": float(model.initial_vm())} | state


def random_values(model, n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Possible voltages and states, (n,) each.

    Models whose rest is a parameter are not asked below it, which their solutions never reach
    and where some of them replace the paper's formula.
    """
    rng = np.random.default_rng(seed)
    lowest = float(getattr(model, "v_rest", -120.0))
    values = {"vm": rng.uniform(lowest, 60.0, n)}
    for name, start in model.initial.items():
        if name.startswith(_CONCENTRATIONS) or name == "camk":
            values[name] = start * rng.uniform(0.6, 1.5, n)
        elif name.startswith("j_rel"):
            values[name] = rng.uniform(0.0, 1e-2, n)  # mM/ms
        else:
            values[name] = rng.uniform(0.0, 1.0, n)
    if "ca_jsr" in values:  # a store may run empty
        values["ca_jsr"][::10] *= np.logspace(-7, 0, len(values["ca_jsr"][::10]))
    return values


# Compiled without optimisation: that takes most of the time, and the function runs once.
_derivative = jax.jit(derivative, compiler_options={"xla_backend_optimization_level": 0})


@pytest.mark.parametrize("name", model_names())
def test_derivatives_equal_the_published_equations(name, data, x64):
    model = get_model(name, **(DRUG if name == "ord-cipa" else {}))
    values = random_values(model, 500)
    i_stim = np.where(np.arange(500) % 2, 40.0, 0.0)
    state = tuple(
        jnp.asarray(values[x] - model.offsets.get(x, 0.0), float) for x in model.state_names
    )
    dvm, dstate = _derivative(model, jnp.asarray(values["vm"]), state, jnp.asarray(i_stim))
    found = {"vm": dvm} | dict(zip(model.state_names, dstate, strict=True))
    equations = published(model, data)
    expected = equations.derivatives(values, i_stim)
    limit = SERIES if paper_of(name) in _WITH_SERIES else EQUATIONS
    error = {}
    for x, ours in found.items():
        want = np.broadcast_to(expected[x], (500,))
        scale = np.abs(want) + 1e-5 * np.abs(want).max() + np.finfo(float).tiny
        error[x] = float(np.max(np.abs(ours - want) / scale))
    worst = max(error, key=error.get)
    print(f"\n{name:28} {equations.source[:40]:40} largest error {error[worst]:.1e} ({worst})")
    assert all(x < limit for x in error.values()), {k: x for k, x in error.items() if x >= limit}


def crossing(t: np.ndarray, vm: np.ndarray, level: float) -> float:
    """Time [ms] of the first upward crossing, linear between samples."""
    k = int(np.argmax((vm[:-1] <= level) & (vm[1:] > level)))
    assert vm[k] <= level < vm[k + 1], "there is no upstroke"
    return float(t[k] + (t[k + 1] - t[k]) * (level - vm[k]) / (vm[k + 1] - vm[k]))


def rms(x: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(x))))


@pytest.mark.parametrize("name", _one_a_paper(*SMALL, "tentusscher2006"))
def test_paced_beat_follows_a_stiff_solver(name, data):
    """In float32 at the recommended time step, from the start of the model, at 1 Hz."""
    model = get_model(name)
    paced = pace_cell(model, bcl=BCL)
    t, vm = paced.t, np.asarray(paced.vm, float)
    exact = solve_published(published(model, data), physical_start(model), model.stimulus, BCL)
    shift = crossing(t, vm, UPSTROKE) - crossing(t, exact.at(t)[0], UPSTROKE)
    aligned = dict(zip(exact.names, exact.at(np.clip(t - shift, 0.0, BCL)), strict=True))
    error_vm = rms(vm - aligned["vm"])
    error = {
        x: rms(np.asarray(paced.states[x], float) - aligned[x]) / np.ptp(aligned[x])
        for x in model.state_names
        if np.ptp(aligned[x]) > 0  # states of a drug that is not there stay zero
    }
    worst = max(error, key=error.get)
    found, wanted = float(apd(t, vm)), float(apd(t, aligned["vm"]))
    print(
        f"\n{name:28} dt {model.dt:g} ms: shift {shift:+.4f} ms, V {error_vm:.3f} mV, "
        f"{worst} {100 * error[worst]:.3f} %, APD90 {found:.2f} ({wanted:.2f}) ms"
    )
    assert abs(shift) <= BEAT_SHIFT
    assert error_vm <= BEAT_VM
    assert error[worst] <= BEAT_STATE, worst
    assert abs(found - wanted) <= BEAT_APD * wanted


# Where equations jump at a threshold, the step that meets it is late by anything from none to all
# of itself: errors are averaged over so many stimuli, which reach it at different times. The small
# models start above the thresholds next to rest, which all stimuli would meet in the first step;
# in Courtemanche's the gates of I_Na jump at -40 mV.
_STIMULI = {
    **dict.fromkeys(("mitchell-schaeffer", "modified-mitchell-schaeffer", "fenton-karma"), 25),
    **{"bueno-orovio": 25, "courtemanche1998": 9},
}


@pytest.mark.parametrize("name", _one_a_paper("luo-rudy-1991", "modified-mitchell-schaeffer"))
def test_error_falls_with_the_time_step(name, data, x64):
    """Slope one of the voltage error over the plateau, over three refinements."""
    model = get_model(name)
    pulse, paper = model.stimulus, paper_of(name)
    factors = np.linspace(1.4 if paper in _STIMULI else 1.0, 0.7, _STIMULI.get(paper, 1))
    stimuli = [pulse._replace(amplitude=pulse.amplitude * factor) for factor in factors]
    bcl, t = 160.0, np.arange(60.0, 160.0)
    equations, start = published(model, data), physical_start(model)
    start["vm"] += 1.0 if paper in SMALL else 0.0
    initial = tuple(jnp.full(len(stimuli), x) for x in (start["vm"], *model.initial_state()))
    wanted = np.array([solve_published(equations, start, x, bcl).at(t)[0] for x in stimuli]).T
    amplitudes = jnp.array([x.amplitude for x in stimuli])
    steps = 1 / np.array([50, 100, 200, 400])  # whole numbers of them make every stimulus
    errors = []
    for dt in steps:
        paced = pace_cell(
            model,
            amplitude=amplitudes,
            bcl=bcl,
            dt=dt,
            sample_every=1.0,
            initial=(initial[0], initial[1:]),
        )
        errors.append(rms(np.asarray(paced.vm)[60:160] - wanted))
    order = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    print(
        f"\n{name:28} order {order:.3f}, {errors[0]:.4f} mV at {steps[0]:g} ms, "
        f"{errors[-1]:.4f} at {steps[-1]:g}; from step to step "
        f"{np.round(np.diff(np.log(errors)) / np.diff(np.log(steps)), 2)}"
    )
    assert abs(order - 1.0) <= ORDER


def _paced_to_the_end(name: str, n_beats: int):
    paced = pace_cell(get_model(name), bcl=BCL, n_beats=n_beats, keep_beats=1)
    last = {x: float(values[-1]) for x, values in paced.states.items()}
    return float(apd(paced.t - paced.t[0], np.asarray(paced.vm, float))), last


def _compare_precisions(name: str, n_beats: int):
    single, single_end = _paced_to_the_end(name, n_beats)
    with jax.enable_x64(True):
        double, double_end = _paced_to_the_end(name, n_beats)
    error = {
        x: abs(single_end[x] - value) / abs(value)
        for x, value in double_end.items()
        if x.startswith(_CONCENTRATIONS)
    }
    worst = max(error, key=error.get, default="no concentration")
    print(
        f"\n{name:28} after {n_beats} beats: APD90 {single:.3f} ({double:.3f}) ms, "
        f"{worst} {100 * error.get(worst, 0.0):.4f} %"
    )
    assert abs(single - double) <= SINGLE_APD
    assert all(x <= SINGLE_CONCENTRATION for x in error.values()), error


@pytest.mark.parametrize("name", _one_a_paper("aliev-panfilov", "bueno-orovio", "luo-rudy-1991"))
def test_float32_keeps_up_over_ten_beats(name):
    _compare_precisions(name, 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", model_names())
def test_float32_keeps_up_over_a_hundred_beats(name):
    _compare_precisions(name, 100)
