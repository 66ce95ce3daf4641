"""Import of CellML and Myokit models: against myokit itself, recorded traces, and bad files."""

import ast
import dataclasses
import importlib.util
import re
import textwrap
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published_cells import solve_paced
from tolerances import EXACT32, EXACT64, GRAD

import twinheart as th
from twinheart.cell import Gate, biomarkers, derivative, get_model, pace_cell
from twinheart.cell.cellml import _imported, import_cell, module_source, write_module
from twinheart.cell.importing.emit import module_tree
from twinheart.cell.importing.read import read_source
from twinheart.cell.importing.samples import all_values
from twinheart.cell.importing.smooth import over_expm1
from twinheart.errors import ModelError

myokit = pytest.importorskip("myokit")

# Right-hand side against myokit's own evaluation of the file, both in float64.
RIGHT_HAND_SIDE = 1e-9
# Deviation from a recorded trace [mV].
TRACE_MV = 1.0
FILES = [
    "cellml/FoxModel2002.cellml",
    "cellml/LuoRudy1991.cellml",
    pytest.param("cellml/Maleckar2008.cellml", marks=pytest.mark.slow),
    "cellml/TenTusscher2006Epi.cellml",
    "mmt/beeler-1977-model.mmt",
    "mmt/lr-1991.mmt",
    # 48 states take half a minute to compile
    pytest.param("mmt/decker-2009.mmt", marks=pytest.mark.slow),
]
# The same for tests that compile gradients or the time loop.
SHORT = ["cellml/LuoRudy1991.cellml", "mmt/beeler-1977-model.mmt", "mmt/lr-1991.mmt"]
LONG = ["FoxModel2002", "Maleckar2008", "TenTusscher2006Epi"]
DEEP = [
    *SHORT,
    *(pytest.param(f"cellml/{name}.cellml", marks=pytest.mark.slow) for name in LONG),
    FILES[-1],
]


@pytest.fixture(params=FILES)
def path(request, data) -> Path:
    return data / "cell" / request.param


@pytest.fixture(params=DEEP)
def deep_path(request, data) -> Path:
    return data / "cell" / request.param


def plan_of(path: Path, **options):
    names = ("name", "membrane", "stimulus", "time")
    return _imported(Path(path), *(options.get(n) for n in names))[0]


def full(model, vm):
    return tuple(jnp.full(vm.shape, x) for x in model.initial_state())


_derivative = jax.jit(derivative)


def total(vm, state, model):
    """A scalar that every value of the right-hand side enters."""
    dvm, dstate = derivative(model, vm, state)
    return jnp.sum(dvm) + sum(jnp.sum(x) for x in dstate), model.rates(vm, state)[1]


_gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))


# --- files of the field -------------------------------------------------------------------------


def myokit_model(path: Path):
    if path.suffix == ".mmt":
        return myokit.load(str(path))[0]
    return myokit.formats.importer("cellml").model(str(path))


def stimulus_input(plan, level: int) -> dict[str, float]:
    """What switches the file's own stimulus on or off."""
    source, roles = plan.source, plan.roles
    if "pace" in source.bound:
        return {"pace": float(level)}
    (start,) = [x for n, x in source.constants.items() if re.search("stim_(start|offset)", n)]
    return {"time": start + 0.5 * roles.pulse[1] * roles.times if level else 0.0}


@pytest.mark.parametrize("level", [0, 1], ids=["rest", "stimulus"])
def test_right_hand_side_is_that_of_myokit(path, level, x64):
    """At random states, all voltages; with the stimulus, as the file books its charge."""
    plan, cell = plan_of(path), import_cell(path)()
    theirs = myokit_model(path)
    names = [s.qname() for s in theirs.states()]
    rng = np.random.default_rng(level)
    n, volts, times = 40, plan.roles.volts, plan.roles.times
    states = np.array(theirs.initial_values(as_floats=True)) * rng.uniform(0.8, 1.2, (n, 1))
    v = names.index(plan.roles.membrane)
    states[:, v] = rng.uniform(-120, 60, n) * volts
    given = stimulus_input(plan, level)
    want = np.array([theirs.evaluate_derivatives(state=list(x), inputs=given) for x in states])
    state = tuple(
        jnp.asarray(states[:, names.index(q)] / s.factor - (s.offset or 0.0))
        for q, s in plan.states.items()
    )
    i_stim = level * cell.stimulus.amplitude
    dvm, dstate = _derivative(cell, jnp.asarray(states[:, v] / volts), state, i_stim)
    precise = in_extended_precision(path, dict(zip(names, states.T, strict=True)), given)
    pairs = [(plan.roles.membrane, np.asarray(dvm) * volts)]
    pairs += [
        (q, np.asarray(x) * s.factor) for (q, s), x in zip(plan.states.items(), dstate, strict=True)
    ]
    for q, found in pairs:
        w = want[:, names.index(q)]
        scale = np.abs(w) + 1e-6 * np.abs(w).max()
        error = np.max(np.abs(found / times - w) / scale)
        # Decker's cubic roots and differences from one lose up to nine digits of float64, in
        # myokit's evaluation as in ours.
        own = np.max(np.abs(precise[q] - w) / scale)
        assert own < 0.1 * RIGHT_HAND_SIDE or path.name == "decker-2009.mmt", (q, own)
        assert error <= max(RIGHT_HAND_SIDE, 10 * own), (q, error, own)


def in_extended_precision(path, states, given):
    """Derivatives of all states from the equations as read, in numpy's longest float."""
    source = read_source(path, path.read_bytes())
    values: dict[str, Any] = {n: np.longdouble(x) for n, x in source.constants.items()}
    values |= {n: x.astype(np.longdouble) for n, x in states.items()}
    values |= {n: np.longdouble(given.get(role, 0.0)) for role, n in source.bound.items()}
    source.equations.freeze()
    values = all_values(source.equations, values)
    return {n: np.asarray(values[f"dot {n}"], float) for n in source.states}


@pytest.mark.parametrize(
    "precise", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["float32", "float64"]
)
def test_values_and_gradients_are_finite_at_every_voltage(deep_path, precise):
    """Steps of 0.01 mV from -120 to 60 mV, so that every singular voltage is hit."""
    cell_type: Any = import_cell(deep_path)
    with jax.enable_x64(precise):
        # the grid hits singular voltages to rounding; once more exactly
        exact = [0.0, 15.0, -47.0, -47.13, -23.0, -77.0, 10.0, 1.7384, -38.3608, -40.0, -100.0]
        vm = jnp.concatenate([jnp.arange(-120, 60.005, 0.01), jnp.asarray(exact)])
        model = cell_type()
        (value, rates), grads = _gradients(vm, full(model, vm), model)
        assert jnp.isfinite(value)
        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves((grads, rates)))
        for name, rate in zip(model.state_names, rates, strict=True):
            if isinstance(rate, Gate):
                assert jnp.all(rate.rate > 0), name
                # 1e-6: a rate function of LR91 is slightly negative where it is switched off
                assert jnp.all((rate.steady >= -1e-6) & (rate.steady <= 1 + 1e-6)), name


def test_it_paces(deep_path):
    """An action potential of an excitable cell at the recommended step, and one at half of it."""
    cell: Any = import_cell(deep_path)()
    assert cell.dt in (0.02, 0.01, 0.005)
    found = []
    for dt in (cell.dt, cell.dt / 2):
        paced = pace_cell(cell, bcl=600.0, dt=dt)
        found.append(biomarkers(paced.t, paced.vm))
    assert -100 < found[0].v_rest < -65
    assert 10 < found[0].v_peak < 60
    assert 80 < found[0].apd90 < 450
    assert abs(found[0].apd90 - found[1].apd90) < 2


def test_current_is_linear_in_every_channel(path):
    """What drugs and diseases rely on: the current is proportional to the one parameter named."""
    with jax.enable_x64(True):
        cell: Any = import_cell(path)()
        assert len(set(cell.channels.values())) == len(cell.channels)
        vm = jnp.linspace(-100.0, 50.0, 16)

        @jax.jit
        def i_ion(model):
            return -derivative(model, vm, full(model, vm))[0]

        one = i_ion(cell)
        for name, parameter in cell.channels.items():
            value = getattr(cell, parameter)
            none, two = (
                i_ion(dataclasses.replace(cell, **{parameter: k * value})) for k in (0.0, 2.0)
            )
            scale = jnp.abs(one).max()
            assert jnp.all(jnp.abs(two - 2 * one + none) <= EXACT64 * scale * 10), name
            if name.startswith("i_"):
                assert jnp.any(one != none), name


def test_standard_names_are_found(data):
    fox = import_cell(data / "cell" / "cellml" / "FoxModel2002.cellml")
    wanted = {"i_na": "g_na", "i_kr": "g_kr", "i_ks": "g_ks", "i_k1": "g_k1", "i_to": "g_to"}
    wanted |= {"i_naca": "k_naca", "i_bna": "g_nab", "i_bca": "g_cab", "j_up": "v_up"}
    assert wanted.items() <= dict(fox.channels).items()
    # P_Ca enters another current as well, so calcium has a factor of its own
    assert fox.channels["i_cal"] == "scale_i_cal"
    assert {"ca_i", "ca_sr", "x_kr", "m"} <= set(fox.initial)
    assert fox.initial["ca_sr"] == pytest.approx(0.32)  # 320 uM
    assert fox.units["ca_i"] == "mM"


def test_module_is_the_class(path, tmp_path):
    """The text parses to the tree that was compiled, is no wider than 100, and gives the model."""
    out = tmp_path / "kept.py"
    cell = import_cell(path)
    assert write_module(path, out) is cell
    text = out.read_text()
    plan = plan_of(path)
    assert ast.dump(ast.parse(text)) == ast.dump(module_tree(plan))
    assert plan.source.sha256 in text
    assert path.name in text
    assert max(map(len, text.splitlines())) <= 100
    spec = importlib.util.spec_from_file_location("kept", out)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kept = getattr(module, cell.__name__)()
    ours: Any = cell()
    vm = jnp.asarray([-80.0, 0.0])
    a, b = (x.rates(vm, full(x, vm)) for x in (kept, ours))
    np.testing.assert_array_equal(a[0], b[0])
    assert kept.dt == ours.dt
    assert [p.name for p in tmp_path.iterdir()] == ["kept.py"]


def test_reference_is_taken_from_the_file(data):
    source = plan_of(data / "cell" / "mmt" / "beeler-1977-model.mmt").source
    assert source.doi == ""


# --- recorded traces ----------------------------------------------------------------------------

# Beeler-Reuter as the program that recorded the trace has it: slopes are rounded reciprocals, and
# the second half-voltage of x1 is that of the paper (the mmt file has 333 in its place).
ROUNDED = {
    "exp(-0.072 * (V + -5))": "exp(-(V + -5) / 13.89)",
    "exp(-0.017 * (V + 44))": "exp(-(V + 44) / 59)",
    "exp(0.15 * (V + 28))": "exp((V + 28) / 6.67)",
    "exp(0.083 * (V + 50))": "exp((V + 50) / 12.1)",
    "exp(0.057 * (V + 50))": "exp((V + 50) / 17.5)",
    "exp(-0.06 * (V + 20))": "exp(-(V + 20) / 16.67)",
    "exp(-0.04 * (V + 333))": "exp(-(V + 20) / 25)",
}
BEELER_REUTER = {"m": 2, "h": 3, "j": 4, "ca_i": 5, "d": 6, "f": 7, "x1": 8}
LUO_RUDY = {"h": 1, "j": 2, "m": 3, "ca_i": 4, "d": 6, "f": 7, "x": 8}


def follow(cell, table, columns, v_column, amplitude, end, monkeypatch):
    """Largest deviation of the voltage [mV]: of the equations, and of our stepping."""
    t, v = table[:, 0], table[:, v_column]
    kept = t <= end
    vm = jnp.asarray(v[0])
    state = tuple(
        jnp.asarray(table[0, columns[n]] - cell.offsets.get(n, 0.0)) if n in columns else x
        for n, x in zip(cell.state_names, cell.initial_state(), strict=True)
    )
    paced = pace_cell(
        cell, amplitude=amplitude, duration=2.0, start=50.0, bcl=end, dt=0.01,
        sample_every=float(t[1] - t[0]), initial=(vm, state),
    )  # fmt: skip
    monkeypatch.setattr(type(cell), "initial_vm", lambda self: vm)
    monkeypatch.setattr(type(cell), "initial_state", lambda self: state)
    solved = solve_paced(cell, t[kept], amplitude, 50.0, 52.0)
    return np.abs(solved["vm"] - v[kept]).max(), np.abs(np.asarray(paced.vm) - v[kept]).max()


def test_beeler_reuter_follows_the_trace(data, tmp_path, x64, monkeypatch):
    text = (data / "cell" / "mmt" / "beeler-1977-model.mmt").read_text()
    for ours, theirs in ROUNDED.items():
        assert text.count(ours) == 1
        text = text.replace(ours, theirs)
    path = tmp_path / "beeler_reuter.mmt"
    path.write_text(text)
    table = np.loadtxt(data / "cell" / "traces" / "beeler_reuter_model_1977.dat", skiprows=1)
    errors = follow(import_cell(path)(), table, BEELER_REUTER, 1, 40.0, 700.0, monkeypatch)
    assert max(errors) < TRACE_MV


def test_ten_tusscher_follows_the_trace(data, x64, monkeypatch):
    cell = import_cell(data / "cell" / "cellml" / "TenTusscher2006Epi.cellml")()
    table = np.loadtxt(data / "cell" / "traces" / "ten_tusscher_model_2006_epi.dat", skiprows=1)
    assert max(follow(cell, table, {}, 1, 40.0, 700.0, monkeypatch)) < TRACE_MV


def test_luo_rudy_follows_the_trace(data, x64, monkeypatch):
    """One beat; the stimulus, 25.5 A/F for 2 ms, is that of the file."""
    cell = import_cell(data / "cell" / "cellml" / "LuoRudy1991.cellml")()
    assert cell.stimulus == (25.5, 2.0)
    table = np.loadtxt(data / "cell" / "traces" / "Lr91RegularStimValidData.dat", skiprows=1)
    assert max(follow(cell, table, LUO_RUDY, 5, 25.5, 500.0, monkeypatch)) < TRACE_MV


# --- small models -------------------------------------------------------------------------------

SMALL = """
[[model]]
name: small
membrane.V = -80
{initial}

[engine]
time = 0 [ms] in [ms] bind time
pace = 0 bind pace

[membrane]
dot(V) = -(i_leak + {current} + i_stim)
    in [mV]
    label membrane_potential
i_leak = g_leak * (V + 80)
    in [A/F]
g_leak = 0.1 [mS/uF]
i_stim = engine.pace * -50 [A/F]
    in [A/F]
{more}
"""
REPLACE = {"initial": "", "current": "0 [A/F]", "more": ""}


@pytest.fixture
def small(tmp_path):
    """Import a small mmt model with these parts."""
    count = iter(range(100))

    def make(**parts):
        text = SMALL.format(**{**REPLACE, **{k: textwrap.dedent(v) for k, v in parts.items()}})
        path = tmp_path / f"small{next(count)}.mmt"
        path.write_text(text)
        return path

    return make


GATE = "[g]\nuse membrane.V as V\na = 0.1 * exp(V / 50)\nb = 0.2 * exp(-V / 40)\ndot(x) = {}\n"


@pytest.mark.parametrize(
    "law",
    [
        "a * (1 - x) - b * x",
        "a - (a + b) * x",
        "(a / (a + b) - x) / (1 / (a + b))",
        "(a / (a + b) - x) * (a + b)",
        "-(x - a / (a + b)) * (a + b)",
        "-x * b + (1 - x) * a",
        "(a - x * a - b * x) / 1",
        "flux\nflux = a * (1 - x) - b * x",
        "if(V < -200, 1 - x, a * (1 - x) - b * x)",
    ],
)
def test_gates_are_found_in_any_arrangement(small, law, x64):
    path = small(initial="g.x = 0.3", current="0.1 [A/F] * g.x", more=GATE.format(law))
    cell: Any = import_cell(path)()
    vm = jnp.linspace(-90.0, 40.0, 14)
    _, (rate,) = cell.rates(vm, (jnp.full(14, 0.3),))
    assert isinstance(rate, Gate)
    a, b = 0.1 * np.exp(vm / 50), 0.2 * np.exp(-vm / 40)
    np.testing.assert_allclose(rate.steady, a / (a + b), rtol=EXACT64)
    np.testing.assert_allclose(rate.rate, a + b, rtol=EXACT64)
    assert "Gates (Rush-Larsen): x." in module_source(plan_of(path))


@pytest.mark.parametrize(
    ("initial", "more"),
    [
        ("g.x = 0.3", GATE.format("a * x * (1 - x)")),  # not linear
        ("g.x = 3", GATE.format("a * (1 - x) - b * x")),  # no probability
        ("g.x = 0.3", GATE.format("(x - 0.1) * a")),  # unstable
        ("g.x = 0.3", GATE.format("a * (1 - x)\n    in [mM]")),  # a concentration
        # a Markov scheme, whose probabilities add up to one only by forward Euler
        ("g.x = 0.3\ng.y = 0.7", GATE.format("a * y - b * x") + "dot(y) = b * x - a * y\n"),
        # a buffer, whose bound ions are those that left the solution
        ("g.x = 0.3\ng.c = 0.1", GATE.format("f") + "f = a * c * (1 - x) - b * x\ndot(c) = -f\n"),
    ],
)
def test_other_states_are_no_gates(small, initial, more):
    cell: Any = import_cell(small(initial=initial, current="0 [A/F]", more=more))()
    _, rates = cell.rates(jnp.zeros(2), tuple(jnp.full(2, x) for x in cell.initial_state()))
    assert not isinstance(rates[0], Gate)


def z_over(z):
    return np.where(z == 0, 1.0, z / np.expm1(np.where(z == 0, 1.0, z)))


@pytest.mark.parametrize(
    ("written", "exact"),
    [
        ("0.32 * (V + 47.13) / (1 - exp(-0.1 * (V + 47.13)))",
         lambda v: 3.2 * z_over(-0.1 * (v + 47.13))),
        ("(V + 47.13) / (exp((47.13 + V) / -10) - 1)", lambda v: -10 * z_over(-(v + 47.13) / 10)),
        ("if(V == -47.13, 3.2, 0.32 * (V + 47.13) / (1 - exp(-0.1 * (V + 47.13))))",
         lambda v: 3.2 * z_over(-0.1 * (v + 47.13))),
        ("up / down\n    up = 2 * (V + 20)\n    down = 3 - 3 * exp(u)\n        u = (V + 20) / 8",
         lambda v: -16 / 3 * z_over((v + 20) / 8)),
        ("(V + 20) * (5 * exp(0.3 * V) - 1) / (exp((V + 20) / 8) - 1)",
         lambda v: 8 * z_over((v + 20) / 8) * (5 * np.exp(0.3 * v) - 1)),
        ("(exp(0.04 * (V + 77)) - 1) / (V + 77)", lambda v: 0.04 / z_over(0.04 * (v + 77))),
        ("(V - 10) / (exp((V - 10) / 9) - exp(-(V - 10) / 9))",
         lambda v: 4.5 * z_over(2 * (v - 10) / 9) * np.exp((v - 10) / 9)),
        # no exponential: bridged by a cubic
        ("(V - 10) / sin(0.01 * (V - 10))",
         lambda v: 100 / np.sinc(0.01 * (v - 10) / np.pi)),
    ],
)  # fmt: skip
def test_singular_voltages_are_smooth(small, written, exact, x64):
    """Value everywhere and gradient at the singular voltage against closed forms."""
    more = f"[s]\nuse membrane.V as V\nI = 1 [A/F] * f\nf = {written}\n"
    cell: Any = import_cell(small(current="s.I", more=more))()
    at = float(re.findall(r"-?V? ?[-+] ?(\d+\.?\d*)", written)[0])
    at = 10.0 if "(V - 10)" in written else -at
    vm = jnp.asarray([at, at + 1e-9, at - 1e-5, at + 1e-3, at - 0.05, at + 0.2, -110.0, 55.0])

    def current(v):
        return -derivative(cell, v, ())[0] - 0.1 * (v + 80)

    value, slope = jax.jvp(current, (vm,), (jnp.ones_like(vm),))
    v = np.asarray(vm)
    scale = np.abs(exact(v)) + 1e-3
    assert np.all(np.abs(np.asarray(value) - exact(v)) < 3e-9 * scale)
    step = 1e-2
    central = 8 * (exact(v + step) - exact(v - step)) - exact(v + 2 * step) + exact(v - 2 * step)
    central = central / (12 * step)
    np.testing.assert_allclose(slope, central, rtol=100 * GRAD, atol=1e-6)


def test_over_expm1_is_the_function():
    with jax.enable_x64(True):
        z = jnp.asarray([-700.0, -30.0, -0.5, -1e-9, 0.0, 1e-3, 0.4999, 0.5, 3.0, 40.0])
        np.testing.assert_allclose(over_expm1(z), z_over(np.asarray(z)), rtol=10 * EXACT64)
        slopes = jax.vmap(jax.grad(over_expm1))(z)
        assert slopes[4] == -0.5
    far = jnp.asarray([-1e4, 1e4], jnp.float32)
    assert jnp.isfinite(jax.vmap(jax.grad(over_expm1))(far)).all()
    np.testing.assert_allclose(over_expm1(far), [1e4, 0.0])


@pytest.mark.parametrize(
    "written",
    [
        "if(V > -40, log(V + 40), 0)",
        "if(V > -40, sqrt(V + 40) / (V + 40), 1)",
        "if(V <= -40, 0, deep)\n    deep = 1 / (V + 40)",
        "piecewise(V < -40, 1, V < 0, sqrt(V + 41), 2)",
        "1 / (1 + exp(-(V + 40) / 0.24))",
    ],
)
def test_branches_not_taken_have_no_gradient(small, written):
    more = f"[s]\nuse membrane.V as V\nI = 1 [A/F] * f\nf = {written}\n"
    cell: Any = import_cell(small(current="s.I", more=more))()
    vm = jnp.asarray([-150.0, -100.0, -41.0, -39.0, 0.0, 60.0])
    (value, _), grads = _gradients(vm, (), cell)
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(grads))


def test_units_are_converted(tmp_path, x64):
    """The same cell in volts, seconds, micromolar and picoampere as in millivolts, ms and mM."""
    ours = """[[model]]
membrane.V = -80
ca.c = 0.002
ca.n = 0.5
[engine]
time = 0 [ms] in [ms] bind time
pace = 0 bind pace
[membrane]
dot(V) = -(i + i_stim)
    in [mV]
i = 0.1 [mS/uF] * (V + 80 [mV]) * (1 + ca.n)
    in [A/F]
i_stim = engine.pace * -40 [A/F]
    in [A/F]
[ca]
dot(c) = 0.01 * (0.001 [mM] - c) - 0.0001 * membrane.i_stim
    in [mM]
dot(n) = (1 - n) / 20 [ms]
"""
    theirs = """[[model]]
membrane.V = -0.08
ca.c = 2
ca.n = 0.5
[engine]
time = 0 [s] in [s] bind time
pace = 0 bind pace
[membrane]
C = 50 [pF]
    in [pF]
dot(V) = -(i + i_stim) / C
    in [V]
i = C * 100 [S/F] * (V + 0.08 [V]) * (1 + ca.n)
    in [pA]
i_stim = engine.pace * -2000 [pA]
    in [pA]
[ca]
dot(c) = 10 * (1 [uM] - c) - 2 * membrane.i_stim
    in [uM]
dot(n) = (1 - n) / 0.02 [s]
"""
    found = []
    for k, text in enumerate((ours, theirs)):
        path = tmp_path / f"units{k}.mmt"
        path.write_text(text)
        cell: Any = import_cell(path)()
        assert cell.stimulus.amplitude == pytest.approx(40.0)
        assert cell.initial_vm() == pytest.approx(-80.0)
        assert cell.initial["c"] == pytest.approx(0.002)
        vm = jnp.asarray([-80.0, -20.0, 30.0])
        state = tuple(jnp.full(3, x) for x in cell.initial_state())
        i_ion, rates = cell.rates(vm, state, 40.0)
        found.append([i_ion, rates[0], rates[1].steady, rates[1].rate])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=EXACT64)
    np.testing.assert_allclose(found[0][0], 0.15 * (vm + 80), rtol=EXACT64)
    np.testing.assert_allclose(found[0][1], -1e-5 + 4e-3, rtol=EXACT64)


def test_large_concentrations_are_stored_as_differences(data):
    cell: Any = import_cell(data / "cell" / "cellml" / "TenTusscher2006Epi.cellml")()
    assert set(cell.offsets) == {"ca_sr", "na_i", "k_i"}
    state = dict(zip(cell.state_names, cell.initial_state(), strict=True))
    assert state["k_i"] == 0.0
    assert cell.physical(tuple(state.values()))["k_i"] == (pytest.approx(136.89), "mM")


def test_roles_can_be_told(small, tmp_path):
    text = small().read_text().replace("    label membrane_potential\n", "").replace("[mV]", "[mV]")
    text = text.replace("dot(V)", "dot(psi)").replace("membrane.V ", "membrane.psi ")
    text = text.replace("(V + 80)", "(psi + 80)").replace("i_stim", "drive")
    text = text.replace("    in [mV]\n", "    in [mV]\n", 1) + "[other]\ndot(w) = 0\n    in [mV]\n"
    path = tmp_path / "told.mmt"
    path.write_text(text.replace("membrane.psi =", "other.w = 0\nmembrane.psi ="))
    with pytest.raises(ModelError, match=r"no membrane potential.*States: .*membrane\.psi"):
        import_cell(path)
    cell: Any = import_cell(path, membrane="membrane.psi", stimulus="drive")()
    assert cell.state_names == ("w",)
    assert cell.stimulus.amplitude == pytest.approx(50.0)
    with pytest.raises(ModelError, match="no variable 'nothing' to be the membrane potential"):
        import_cell(path, membrane="nothing")


# --- use ----------------------------------------------------------------------------------------


def test_the_same_content_is_the_same_class(small, tmp_path):
    path = small()
    copy = tmp_path / "copy.mmt"
    copy.write_bytes(path.read_bytes())
    assert import_cell(path) is import_cell(copy)
    assert import_cell(path, name="other") is not import_cell(path)
    assert import_cell(path, name="other").name == "other"


def test_get_model_takes_a_file(small):
    path = str(small())
    assert get_model(path, g_leak=0.2).g_leak.item() == pytest.approx(0.2)
    with pytest.raises(ModelError, match="no parameter 'g_leek'; the nearest is 'g_leak'"):
        get_model(path, g_leek=0.2)
    with pytest.raises(ModelError, match="cannot read cell model missing"):
        get_model("missing.cellml")


def test_import_inside_a_traced_function(small):
    path = str(small())

    @jax.jit
    def current(g_leak):
        model = get_model(path, g_leak=g_leak)
        return model.rates(jnp.asarray(0.0), ())[0]

    assert current(0.2) == pytest.approx(16.0)


def test_a_twin_takes_a_file(small):
    twin = th.Twin(th.demo_heart(), cell=str(small()))
    assert twin.cell.name == "small"


def test_parameters_per_node_and_one_compilation(data):
    path = data / "cell" / "mmt" / "beeler-1977-model.mmt"
    vm = jnp.asarray([-80.0, 0.0, 20.0])
    cell_type: Any = import_cell(path)
    scale = jnp.asarray([0.5, 1.0, 2.0])
    i_ion, _ = cell_type(scale_i_na=scale).rates(vm, full(cell_type(), vm))
    for k, factor in enumerate(scale):
        one, _ = cell_type(scale_i_na=factor).rates(vm[k], full(cell_type(), vm[k]))
        np.testing.assert_allclose(i_ion[k], one, rtol=EXACT32)
    traces = []

    @jax.jit
    def run(model):
        traces.append(1)
        return model.rates(vm, full(model, vm))[0]

    for value in (0.1, 0.2):
        run(get_model(str(path), gsbar=value))
    assert len(traces) == 1


# --- bad files ----------------------------------------------------------------------------------

CELLML = """<?xml version="1.0"?>{doctype}
<model name="{name}" xmlns="http://www.cellml.org/cellml/1.0#"
       xmlns:cellml="http://www.cellml.org/cellml/1.0#">
  <units name="ms"><unit units="second" prefix="milli"/></units>
  <units name="mV"><unit units="volt" prefix="milli"/></units>
  <units name="mV_per_ms"><unit units="mV"/><unit units="ms" exponent="-1"/></units>
  {extra}
  <component name="membrane">
    <variable name="time" units="{time}"/>
    <variable name="V" units="{volt}" {start}/>
    <variable name="i" units="mV_per_ms"/>
    <math xmlns="http://www.w3.org/1998/Math/MathML">
      <apply><eq/><apply><diff/><bvar><ci>time</ci></bvar><ci>V</ci></apply>
        <apply><minus/><ci>i</ci></apply></apply>
      <apply><eq/><ci>i</ci>{i}</apply>
    </math>
  </component>
</model>
"""
GOOD = {
    "doctype": "",
    "name": "tiny",
    "extra": "",
    "time": "ms",
    "volt": "mV",
    "start": 'initial_value="-80"',
    "i": '<cn cellml:units="mV_per_ms">1</cn>',
}
CIRCLE = '<apply><times/><cn cellml:units="dimensionless">2</cn><ci>i</ci></apply>'
DELAY = '<apply><csymbol definitionURL="http://www.sbml.org/sbml/symbols/delay"/><ci>V</ci></apply>'
PARTIAL = "<apply><partialdiff/><bvar><ci>time</ci></bvar><ci>V</ci></apply>"


def tiny(tmp_path, **parts) -> Path:
    path = tmp_path / "tiny.cellml"
    path.write_text(CELLML.format(**{**GOOD, **parts}))
    return path


def test_a_variable_without_value_is_refused(tmp_path):
    path = tiny(tmp_path, i="<ci>q</ci>")
    lines = path.read_text().replace("<math", '<variable name="q" units="mV_per_ms"/><math')
    path.write_text(lines)
    with pytest.raises(ModelError, match=r"membrane\.q, used by membrane\.i, has neither value"):
        import_cell(path)


def test_the_tiny_cellml_is_good(tmp_path):
    cell: Any = import_cell(tiny(tmp_path))()
    assert cell.rates(jnp.zeros(1), ())[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"doctype": '<!DOCTYPE m [<!ENTITY x SYSTEM "file:///etc/passwd">]>'}, "document type"),
        ({"doctype": '<!DOCTYPE m SYSTEM "http://127.0.0.1/m.dtd">'}, "document type"),
        ({"i": CIRCLE}, "(?i)circ|cycl"),
        ({"i": DELAY}, "has a delay"),
        ({"i": PARTIAL}, "has a partial differential equation"),
        ({"i": "<ci>time</ci>"}, "depends on time"),
        ({"time": "mV"}, r"time has unit \[mV\]; expected seconds"),
        ({"volt": "ms"}, r"V has unit \[ms\]; expected volts"),
        ({"volt": "dimensionless"}, "V has unit .*; expected volts .* dimensionless"),
        ({"start": ""}, "state membrane.V has no initial value"),
        ({"extra": '<component name="r"><reaction/></component>'}, "has a reaction"),
        ({"i": '<cn cellml:units="nothing">1</cn>'}, "nothing"),
        ({"i": "<ci>missing</ci>"}, "Variable references in equation"),
    ],
)
def test_bad_cellml_is_refused_in_one_line(tmp_path, parts, message):
    with pytest.raises(ModelError, match=message) as caught:
        import_cell(tiny(tmp_path, **parts))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not XML"),
        (b"no XML at all", "is not XML"),
        (b"\x00\xff\xfe", "is not XML"),
        (b"<html/>", "is XML but not CellML: its root is <html>"),
        (
            b'<model name="m" xmlns="http://www.cellml.org/cellml/1.1#"><import '
            b'xmlns:xlink="http://www.w3.org/1999/xlink" xlink:href="other.cellml"/></model>',
            "has parts imported from other files",
        ),
        (
            b'<model name="m" xmlns="http://www.cellml.org/cellml/2.0#">'
            b'<component name="c"><reset/></component></model>',
            "has a reset",
        ),
        (b'<model name="m" xmlns="http://www.cellml.org/cellml/1.0#"/>', "no membrane|cannot be"),
    ],
)
def test_what_is_no_cellml_is_refused(tmp_path, content, message):
    path = tmp_path / "bad.cellml"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        import_cell(path)


@pytest.mark.parametrize("suffix", [".cellml", ".mmt"])
def test_huge_files_are_not_even_read(tmp_path, suffix):
    path = tmp_path / f"huge{suffix}"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    with pytest.raises(ModelError, match="100 MB is no cell model"):
        import_cell(path)


def test_a_folder_is_refused(tmp_path):
    path = tmp_path / "folder.mmt"
    path.mkdir()
    with pytest.raises(ModelError, match="cannot read"):
        import_cell(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("membrane.V = -80", ""), "cannot be imported"),
        (("    in [mV]\n", ""), "V has no unit; expected volts"),
        (("    in [mV]\n", "    in [1]\n"), "expected volts.*dimensionless"),
        (("in [ms] bind time", "in [mV] bind time"), "time has unit"),
        (("g_leak * (V", "engine.time * (V"), "depends on time"),
        (("g_leak * (V", "(g_leak + engine.pace) * (V"), "depends on myokit's pace"),
        (("+ i_stim)", "+ i_stim * exp(V / 1 [mV]))"), "must enter dV/dt linearly"),
        (("-(i_leak +", "-(i_leak / 1 [s] +"), "units of dmembrane.V/dt do not fit"),
        (("in [A/F]\ng_leak", "in [mM]\ng_leak"), "units of dmembrane.V/dt do not fit"),
        (("g_leak = 0.1 [mS/uF]", "g_leak = i_leak"), "(?i)circ|cycl"),
        (("g_leak = 0.1 [mS/uF]", "g_leak = 1 / 0"), "cannot be imported|not a finite number"),
        (("[[model]]", "[[nothing]]"), "cannot be imported"),
        (("g_leak = 0.1 [mS/uF]", "g_leak = delay(V, 5)"), r"Unknown function .* delay\(\)"),
        (("g_leak * (V", "(" * 3000 + "g_leak" + ")" * 3000 + " * (V"), "nested too deeply|cannot"),
    ],
)
def test_bad_mmt_is_refused_in_one_line(small, tmp_path, change, message):
    text = small().read_text()
    assert change[0] in text
    path = tmp_path / "bad.mmt"
    path.write_text(text.replace(*change, 1))
    with pytest.raises(ModelError, match=message) as caught:
        import_cell(path)
    assert "\n" not in str(caught.value)


def test_mmt_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "bad.mmt"
    path.write_bytes(b"\xff\xfe[[model]]")
    with pytest.raises(ModelError, match="is not text"):
        import_cell(path)


HOSTILE = "x'''\"\"\"); import os; os.abort() #\\"


def test_a_file_cannot_bring_code(small, tmp_path):
    """Names that are words of Python or of the module, and texts that try to leave a string."""
    more = """
        [class]
        self = 1.5
        jnp = 2.5
        lambda = self + 0 * membrane.V
        i_ion = lambda * jnp
        import = i_ion * 1 [A/F]
            in [A/F]
        """
    text = small(current="class.import", more=more).read_text()
    text = text.replace("name: small", f"name: {HOSTILE}").replace("g_leak = ", "exec = ")
    text = text.replace("g_leak", "exec")
    path = tmp_path / "he'l\"lo\\.mmt"
    path.write_text(text)
    cell: Any = import_cell(path)()
    assert cell.rates(jnp.asarray(-80.0), ())[0] == pytest.approx(1.5 * 2.5)
    source = module_source(plan_of(path))
    assert ast.dump(ast.parse(source)) == ast.dump(module_tree(plan_of(path)))
    allowed = {"typing", "jax.numpy", "twinheart.cell.model", "twinheart.cell.importing.smooth"}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            assert {a.name for a in node.names} <= allowed
        if isinstance(node, ast.ImportFrom):
            assert node.module in allowed
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id in {"parameter", "as_parameter", "Pulse", "Gate", "over_expm1"}


@pytest.mark.parametrize("name", ["None", "Gate", "AbstractCellModel", "1", "--", "é"])
def test_any_name_gives_a_class(small, name):
    assert import_cell(small(), name=name).__name__.isidentifier()
