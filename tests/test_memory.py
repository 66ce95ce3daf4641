"""Memory told before a run: what is free, what a run and a gradient need, what is refused."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sharded_runs import MESH

import twinheart as th
from twinheart.errors import SolverError
from twinheart.tissue import build_monodomain, checkpoint_plan, run, solve
from twinheart.tissue.memory import (
    Memory,
    allocator_memory,
    check_fits,
    memory_of,
    plan_of,
    run_bytes,
)
from twinheart.tissue.monodomain import advance, initial_state

GB = 10**9
CARD = Memory(60 * GB, 80 * GB, "a card")


@pytest.fixture(scope="module")
def built():
    heart = th.Heart(MESH, np.tile([1.0, 0.0, 0.0], (MESH.n_tets, 1)))
    cell = th.cell.get_model("mitchell-schaeffer")
    tissue = th.Conductivities(0.3, 0.1, 0.6, 0.4)
    stimulus = th.pace("sphere:0,0,0,1.6", amplitude=80.0)
    options = {"dt": 0.05, "smoothing": 0.6, "may_block": True}
    return build_monodomain(heart, cell, tissue, [stimulus], **options)


def scaled(problem, scale):
    weights = problem.tissue.diffusion * scale
    return eqx.tree_at(lambda p: p.tissue.diffusion, problem, weights)


def reported(function, *arguments):
    """Bytes of arguments, results and temporaries that XLA reports."""
    memory = jax.jit(function).lower(*arguments).compile().memory_analysis()
    return memory.temp_size_in_bytes + memory.output_size_in_bytes + memory.argument_size_in_bytes


def test_a_run_needs_what_the_compiler_reports(built):
    arrays, fixed = eqx.partition(built.problem, eqx.is_array)

    def step(arrays, state):
        return advance(eqx.combine(arrays, fixed), state, 2)

    real = reported(step, arrays, initial_state(built.problem))
    assert run_bytes(built.problem) == pytest.approx(real, rel=0.25)


def test_plans_need_what_the_compiler_reports_and_give_one_gradient(built):
    blocks, values = 12, []
    arrays, fixed = eqx.partition(built.problem, eqx.is_array)
    for groups in ((), (12,), (3, 4)):

        def loss(arrays, scale, groups=groups):
            problem = scaled(eqx.combine(arrays, fixed), scale)
            return solve(problem, blocks, groups=groups)[0].vm.mean()

        program = jax.jit(jax.value_and_grad(loss, argnums=1)).lower(arrays, jnp.float32(1.0))
        compiled = program.compile()
        real = compiled.memory_analysis()
        real = real.temp_size_in_bytes + real.argument_size_in_bytes
        plan = plan_of(built.problem, groups, blocks, CARD)
        assert real < plan.bytes < 2 * real  # never too little
        values.append([float(x) for x in compiled(arrays, jnp.float32(1.0))])
    np.testing.assert_allclose(values[1:], [values[0]] * 2, rtol=1e-5)


def test_less_memory_means_fewer_states_and_more_work(built):
    plans = [checkpoint_plan(built.problem, 200, memory=CARD)]
    less = CARD._replace(free=int(0.99 * plans[0].bytes / 0.9))
    plans.append(checkpoint_plan(built.problem, 200, memory=less))
    assert [plan.evaluations for plan in plans] == [3, 4]
    assert plans[0].states > plans[1].states
    for plan in plans:
        assert np.prod(plan.groups) * plan.inner == 200
        assert f"{plan.states} states kept" in str(plan)
        assert "free on a card" in str(plan)


def test_groups_that_do_not_divide_are_refused(built):
    with pytest.raises(SolverError, match="do not divide 10 blocks"):
        solve(built.problem, 10, groups=(3,))


def test_five_million_nodes_fit_on_one_card(built):
    """TT06, 14 neighbours, 100 ms at 0.02 ms: by the sizes alone."""
    problem, n, slots = built.problem, 5_000_000, 14
    small = problem.tissue.n_nodes
    assert len(problem.tissue.columns) == slots
    cell = th.cell.get_model("tentusscher2006-epi")
    problem = dataclasses.replace(problem, models=(cell,), model_sizes=(n,), block=25)
    arrays, fixed = eqx.partition(problem, eqx.is_array)
    large = eqx.combine(jax.tree.map(lambda x: described(x, small, n), arrays), fixed)
    plan = checkpoint_plan(large, 200, memory=CARD)
    assert plan.evaluations == 4
    assert plan.bytes < 54 * GB
    with pytest.raises(SolverError, match=r"about \d+ nodes fit"):
        checkpoint_plan(large, 200, memory=CARD._replace(free=16 * GB))
    check_fits(large, memory=CARD)


def described(x, small, n):
    return jax.ShapeDtypeStruct(tuple(n if size == small else size for size in x.shape), x.dtype)


def test_a_heart_too_large_for_the_device_is_refused_with_what_fits(built):
    small = Memory(10**5, 2 * GB, "a card", GB)
    with pytest.raises(SolverError, match=r"0\.00 of 2\.00 GB are free .*1\.00 GB are held by ano"):
        check_fits(built.problem, memory=small)


def test_a_run_that_cannot_fit_does_not_start(built, monkeypatch):
    module = "twinheart.tissue.memory.memory_of"
    monkeypatch.setattr(module, lambda: Memory(1000, GB, "a card"))
    with pytest.raises(SolverError, match=r"about \d+ nodes of this model fit"):
        run(built, 1.0, points=MESH.points)


def test_memory_of_a_card_is_what_its_allocator_took():
    stats = {"bytes_limit": 60 * GB, "bytes_in_use": 5 * GB}
    assert allocator_memory(stats, "a card") == (55 * GB, 60 * GB, "a card", 0)
    found = allocator_memory(stats | {"pool_bytes": 20 * GB}, "a card")
    assert (found.free, found.taken_by_others) == (15 * GB, 40 * GB)


def test_this_machine_has_memory():
    memory = memory_of()
    assert 10**6 < memory.free <= memory.total
