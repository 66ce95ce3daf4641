"""The step as a Warp kernel: the same as that of jax, forwards and backwards; who chooses it."""

import dataclasses
import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sharded_runs import MESH

import twinheart as th
from twinheart.errors import InputError, SolverError
from twinheart.tissue import Explicit, advance, build_monodomain, initial_state, solve
from twinheart.tissue.fused import Verdict, choice, chosen_step, compare, fused_step, why_not
from twinheart.tissue.fused.kernel import has_warp
from twinheart.tissue.fused.scalar_code import UntranslatableError, scalar_code
from twinheart.tissue.fused.step import _Node
from twinheart.tissue.monodomain import one_step

needs_warp = pytest.mark.skipif(not has_warp(), reason="warp-lang is not installed")
GRADIENT_TOLERANCE = 1e-3  # of the largest entry: two orders of summation in float32


@functools.cache
def slab():
    heart = th.Heart(MESH, np.tile([1.0, 0.0, 0.0], (MESH.n_tets, 1)))
    cell = th.cell.get_model("mitchell-schaeffer")
    tissue = th.Conductivities(0.3, 0.1, 0.6, 0.4)
    stimulus = th.pace("sphere:0,0,0,1.6", start=0.115, amplitude=80.0)
    options = {"dt": 0.02, "smoothing": 0.6, "may_block": True}
    return build_monodomain(heart, cell, tissue, [stimulus], **options).problem


def problem_of(name, stages=1):
    cell = th.cell.get_model(name)
    return dataclasses.replace(slab(), models=(cell,), scheme=Explicit(stages=stages))


class Plain:
    """What the code asks of Warp, in numpy, for one node."""

    float32, int32, inf, nan = np.float32, np.int32, np.float32(np.inf), np.float32(np.nan)
    exp, log, sqrt, tanh, abs = np.exp, np.log, np.sqrt, np.tanh, np.abs
    floor, ceil, rint, sign, isfinite = np.floor, np.ceil, np.rint, np.sign, np.isfinite
    sin, cos, tan, sinh, cosh, cbrt, atan2 = (
        np.sin, np.cos, np.tan, np.sinh, np.cosh, np.cbrt, np.arctan2
    )  # fmt: skip
    pow = staticmethod(lambda x, y: np.power(np.float32(x), np.float32(y)))
    erf = staticmethod(lambda x: np.float32(math.erf(x)))
    round = staticmethod(lambda x: np.float32(math.copysign(math.floor(abs(x) + 0.5), x)))
    min, max = staticmethod(np.minimum), staticmethod(np.maximum)
    where = staticmethod(lambda condition, a, b: a if condition else b)


def executed(code, arguments):
    """Results of a code that is run as the Python it is."""
    space = {"wp": Plain, "expm1": np.expm1, "log1p": np.log1p, **arguments}
    space |= {name: np.asarray(x).reshape(())[()] for name, x in code.shared.items()}
    with np.errstate(all="ignore"):
        exec("\n".join(code.lines), space)
        return [float(eval(result, space)) for result in code.results]


def everything(x, y, k):
    """Of all elementary functions and kinds of numbers."""
    flag = (x > y) & jnp.isfinite(x) | ~(x == 0.25)
    return [
        jnp.exp(x) + jnp.expm1(y) - jnp.log(abs(x) + 1) * jnp.log1p(y**2) / jnp.exp2(y),
        jnp.sin(x) + jnp.cos(y) + jnp.tan(x) + jnp.sinh(y) + jnp.cosh(x) + jnp.tanh(y),
        jnp.where(flag, x**-3, y**7) + jnp.where(x <= y, jnp.inf, -2.0) * jnp.sign(y),
        jnp.floor(x) + jnp.ceil(y) + jnp.round(10 * x) + jax.lax.round(10 * y),
        jax.nn.sigmoid(x) * jax.lax.rsqrt(y * y + 1) + jnp.sqrt(abs(y)) + jnp.cbrt(x),
        jnp.clip(x, -0.5, 0.5) + jnp.maximum(x, y) * jnp.minimum(x, 3.0) + abs(x) ** y,
        jax.lax.erf(x) + jnp.arctan2(x, y) + jnp.where(jnp.isnan(x), y, x) + k * x + (k > 2),
        jax.grad(lambda z: jnp.tanh(z * y) * jnp.where(z > 0, z, z**3))(x),
    ]


@pytest.mark.parametrize(("x", "y"), [(0.3, -1.2), (-2.0, 0.4), (0.25, 1.5)])
def test_every_function_becomes_the_same_scalar_code(x, y):
    given = (jnp.float32(x), jnp.float32(y), jnp.int32(3))
    traced = jax.make_jaxpr(everything)(*given)
    wanted = [float(v) for v in everything(*given)]
    code = scalar_code(traced, ["x", "y", "k"])
    found = executed(code, {"x": np.float32(x), "y": np.float32(y), "k": np.int32(3)})
    assert found == pytest.approx(wanted, rel=3e-6)
    code = scalar_code(traced, ["x", *given[1:]])  # jax computes what depends on y and k alone
    assert "wp.sinh" not in " ".join(code.lines)
    assert executed(code, {"x": np.float32(x)}) == pytest.approx(wanted, rel=3e-6)


def test_equal_expressions_are_computed_once_and_unused_ones_never():
    def function(x, a):
        unused = jnp.sin(x)  # noqa: F841
        return [jnp.exp(a * x) + jnp.exp(a * x) * jnp.exp(a)]

    code = scalar_code(jax.make_jaxpr(function)(1.0, 2.0), ["x", jnp.float32(2.0)])
    assert len(code.lines) == 4  # product, exponential, product with exp(a), sum
    assert len(code.shared) == 2


def test_what_is_not_elementwise_is_refused():
    with pytest.raises(UntranslatableError, match="sort"):
        scalar_code(jax.make_jaxpr(lambda x: [jnp.sort(x)])(jnp.ones(4)), ["x"])


@pytest.mark.parametrize("name", ["mitchell-schaeffer", "courtemanche1998"])
def test_code_of_a_node_is_the_step_of_a_cell_without_neighbours(name):
    problem = problem_of(name)
    problem = eqx.tree_at(
        lambda p: (p.tissue.diffusion, p.tissue.spread), problem, replace_fn=jnp.zeros_like
    )
    state = eqx.filter_jit(initial_state)(problem)
    n = problem.tissue.n_nodes
    state = state._replace(step=jnp.int32(7), vm=state.vm + jnp.linspace(0.0, 100.0, n))
    wanted = eqx.filter_jit(one_step)(problem, state)
    node = _Node(problem)
    values = node.values(problem, state)
    code = scalar_code(node.traced, node.named(values))
    for k in range(0, n, n // 5):
        fields = {x: np.asarray(v)[k] for x, v in node.fields(values).items()}
        found = executed(code, {**fields, "sum_vm": np.float32(0), "sum_i_ion": np.float32(0)})
        end = [wanted.vm, wanted.lost, wanted.i_ion, wanted.cells, wanted.lat]
        exact = [float(x[k]) for x in jax.tree.leaves(end)]
        assert found == pytest.approx(exact, rel=1e-4, abs=2e-5, nan_ok=True)


@needs_warp
@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("mitchell-schaeffer", 2),
        pytest.param("tentusscher2006-epi", 1, marks=pytest.mark.slow),
        pytest.param("torord-endo", 1, marks=pytest.mark.slow),
    ],
)
def test_a_run_with_the_kernel_is_that_of_jax(name, stages):
    problem = problem_of(name, stages)
    state = initial_state(problem)
    ends = []
    for step in (one_step, fused_step):
        ends.append(jax.jit(lambda state, step=step: advance(problem, state, 16, step=step))(state))
    (exact, samples), (end, other) = ends
    assert float(exact.vm.max()) > 0 > float(exact.vm.min())  # a front is under way
    np.testing.assert_allclose(end.vm, exact.vm, atol=5e-3)
    np.testing.assert_allclose(end.lat, exact.lat, atol=1e-4)
    np.testing.assert_allclose(other.potentials, samples.potentials, atol=1e-3)
    assert int(end.step) == int(exact.step)
    for a, b in zip(end.cells[0], exact.cells[0], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * float(jnp.abs(b).max()))


@needs_warp
@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("mitchell-schaeffer", 1),
        pytest.param("mitchell-schaeffer", 2, marks=pytest.mark.slow),
        pytest.param("tentusscher2006-epi", 1, marks=pytest.mark.slow),
    ],
)
def test_the_adjoint_kernel_gives_the_gradient_of_jax(name, stages):
    problem = problem_of(name, stages)
    arrays, fixed = eqx.partition(problem, eqx.is_inexact_array)
    weights = jnp.cos(jnp.arange(problem.tissue.n_nodes))

    def loss(arrays, step):
        state, samples = solve(eqx.combine(arrays, fixed), 8, step=step)
        lat = jnp.where(jnp.isnan(state.lat), 0.0, state.lat)
        return lat.sum() + weights @ state.vm / 100 + jnp.sin(samples.potentials).sum()

    exact = jax.jit(jax.grad(lambda a: loss(a, one_step)))(arrays)
    found = jax.jit(jax.grad(lambda a: loss(a, fused_step)))(arrays)
    assert float(jnp.abs(exact.tissue.diffusion).max()) > 0  # the front matters to the loss
    assert float(jnp.abs(exact.stimuli[0].start)) > 0
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        if a.size:
            np.testing.assert_allclose(a, b, atol=GRADIENT_TOLERANCE * float(jnp.abs(b).max()))


@needs_warp
def test_the_check_finds_that_both_agree(monkeypatch):
    monkeypatch.setattr(choice, "_TIMES", 1)
    verdict = compare(problem_of("mitchell-schaeffer"))
    assert verdict.agrees
    assert verdict.jax_us > 0 < verdict.warp_us


@needs_warp
def test_why_there_is_no_kernel():
    problem = problem_of("mitchell-schaeffer")
    assert why_not(problem) is None
    half = problem.tissue.n_nodes // 2
    two = dataclasses.replace(problem, models=problem.models * 2, model_sizes=(half, half))
    assert "2 cell models" in str(why_not(two))
    with pytest.raises(SolverError, match="2 cell models"):
        fused_step(two, initial_state(problem))
    with pytest.raises(InputError, match="TWINHEART_WARP is on, but"):
        chosen_step(two, "on")
    double = eqx.tree_at(lambda p: p.tissue.lumped, problem, np.ones(2 * half, np.float64))
    assert "float64" in str(why_not(double))


def test_the_setting_decides(monkeypatch):
    problem = problem_of("mitchell-schaeffer")
    monkeypatch.delenv("TWINHEART_WARP", raising=False)
    if jax.default_backend() == "cpu":
        assert chosen_step(problem) is one_step  # and nothing is measured
    assert chosen_step(problem, "off") is one_step
    if has_warp():
        monkeypatch.setenv("TWINHEART_WARP", "on")
        assert chosen_step(problem) is fused_step
    monkeypatch.setenv("TWINHEART_WARP", "yes")
    with pytest.raises(InputError, match="'yes', expected auto, on or off"):
        chosen_step(problem)


VERDICTS = {
    "faster": (Verdict(100.0, 50.0, 1e-4, 1e-6), True),
    "slower": (Verdict(100.0, 99.0, 1e-4, 1e-6), False),
    "wrong": (Verdict(100.0, 50.0, 1.0, 1e-6), False),
    "broken": (Verdict(100.0, 50.0, math.inf, math.inf), False),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_a_gpu_takes_what_is_right_and_faster_and_remembers_it(case, monkeypatch, tmp_path, capsys):
    verdict, wanted = VERDICTS[case]
    asked = []
    monkeypatch.setenv("TWINHEART_CACHE", str(tmp_path))
    monkeypatch.delenv("TWINHEART_WARP", raising=False)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(choice, "why_not", lambda problem: None)
    monkeypatch.setattr(choice, "version", lambda package: "1.19.0")
    monkeypatch.setattr(choice, "compare", lambda problem: asked.append(problem) or verdict)
    choice._tell.cache_clear()
    problem = problem_of("mitchell-schaeffer")
    for _ in range(2):
        assert (chosen_step(problem) is fused_step) == wanted
    assert len(asked) == 1  # the second time from the folder
    assert capsys.readouterr().err.count("time loop: ") == 1
    other = eqx.tree_at(lambda p: p.scheme, problem, Explicit(stages=2))
    chosen_step(other)
    assert len(asked) == 2


def test_a_kernel_that_fails_leaves_the_step_of_jax(monkeypatch, tmp_path, capsys):
    def fail(problem):
        raise RuntimeError("nvrtc: out of registers\nmore")

    monkeypatch.setenv("TWINHEART_CACHE", str(tmp_path))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(choice, "why_not", lambda problem: None)
    monkeypatch.setattr(choice, "version", lambda package: "1.19.0")
    monkeypatch.setattr(choice, "compare", fail)
    assert chosen_step(problem_of("mitchell-schaeffer"), "auto") is one_step
    assert "the Warp kernel failed: nvrtc: out of registers)" in capsys.readouterr().err
