"""Derivatives of the whole beat against central differences, and the memory they take."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tolerances

from twinheart.anatomy import Heart
from twinheart.cell import MitchellSchaeffer
from twinheart.mesh.generate import slab
from twinheart.tissue import CrankNicolson, Explicit, Monodomain, pace, solve
from twinheart.tissue.discrete import assemble

DT = 0.05  # ms
BLOCK = 10
START = (np.array([[0.12, 0.04, 0.04]]), 0.3, 0.512)  # D [mm^2/ms], tau_in [ms], onset [ms]
RELATIVE_STEP = np.cbrt(np.finfo(np.float64).eps)


def monodomain(scheme=None, size=(3.0, 1.0, 0.5), dtype=np.float64):
    """A slab paced at one end with a random lead field, and the assembly behind it."""
    mesh = slab(size, 0.5)
    fibre = np.array([0.8, 0.6, 0.0])
    heart = Heart(mesh, f0=np.tile(fibre, (mesh.n_tets, 1)))
    assembly = assemble(heart, smoothing=0.5)
    weights = np.random.default_rng(0).normal(size=(3, mesh.n_nodes))
    scheme = scheme or Explicit()
    problem = Monodomain(
        tissue=assembly.tissue(START[0], consistent=isinstance(scheme, CrankNicolson), dtype=dtype),
        models=(MitchellSchaeffer(tau_in=START[1]),),
        model_sizes=(mesh.n_nodes,),
        stimuli=(pace("end", start=START[2], amplitude=60.0),),
        stimulus_masks=(jnp.asarray(mesh.points[assembly.order, 0] == 0.0, dtype),),
        scheme=scheme,
        dt=jnp.asarray(DT),
        threshold=jnp.asarray(0.0),
        lead_field=jnp.asarray(weights - weights.mean(axis=1, keepdims=True), dtype),
        probes=jnp.asarray([0, 5]),
        block=BLOCK,
    )
    return problem, assembly


def with_parameters(problem, assembly, diffusivity, tau_in, start):
    consistent = isinstance(problem.scheme, CrankNicolson)
    tissue = assembly.tissue(diffusivity, consistent=consistent, dtype=np.float64)
    return eqx.tree_at(
        lambda p: (p.tissue, p.models[0].tau_in, p.stimuli[0].start),
        problem,
        (tissue, tau_in, start),
    )


def times_and_potentials(state, samples):
    """Activation times where there are any, potentials at the electrodes, V_m at the probes."""
    lat = jnp.where(jnp.isnan(state.lat), 0.0, state.lat)
    weights = jnp.cos(jnp.arange(lat.size))
    signal = jnp.sin(samples.potentials / 50.0).sum() + (samples.probes / 50.0).sum()
    return (weights * lat).sum() + signal


def activation_only(state, samples):
    """No misfit of potentials: every derivative comes through the crossing of the threshold."""
    return jnp.nansum(jnp.where(jnp.isnan(state.lat), 0.0, state.lat) ** 2)


CASES = [
    (Explicit(), times_and_potentials),
    (Explicit(), activation_only),
    (Explicit(stages=2), times_and_potentials),
    (CrankNicolson(iterations=40), times_and_potentials),
]


@pytest.mark.parametrize(
    ("scheme", "loss_of"), CASES, ids=["default", "activation-only", "chebyshev", "crank-nicolson"]
)
def test_gradients_of_a_beat_agree_with_central_differences(scheme, loss_of):
    with jax.enable_x64(True):
        problem, assembly = monodomain(scheme)

        @jax.jit
        def loss(diffusivity, tau_in, start):
            q = with_parameters(problem, assembly, diffusivity, tau_in, start)
            state, samples = solve(q, 12)  # 6 ms: some nodes stay without a time
            return loss_of(state, samples), jnp.isfinite(state.lat).sum()

        point = tuple(jnp.asarray(p) for p in START)
        (_, activated), reverse = jax.jit(
            jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
        )(*point)
        assert 0.3 < int(activated) / problem.tissue.n_nodes < 1.0
        directions = [
            (jnp.asarray([[0.1, 0.0, 0.0]]), 0.0, 0.0),
            (jnp.asarray([[0.0, 0.04, 0.0]]), 0.0, 0.0),
            (jnp.zeros((1, 3)), 0.3, 0.0),
            (jnp.zeros((1, 3)), 0.0, 1.0),
        ]
        forward = jax.jit(lambda *t: jax.jvp(lambda *p: loss(*p)[0], point, t)[1])
        for direction in directions:
            tangents = tuple(jnp.asarray(d, float) for d in direction)
            h = RELATIVE_STEP
            ahead, behind = (
                loss(*(p + s * h * d for p, d in zip(point, tangents, strict=True)))[0]
                for s in (1, -1)
            )
            central = float(ahead - behind) / (2 * h)
            by_jvp = float(forward(*tangents))
            by_grad = sum(float(jnp.vdot(g, d)) for g, d in zip(reverse, tangents, strict=True))
            assert abs(central) > 1e-3  # the loss depends on it
            assert by_jvp == pytest.approx(central, rel=tolerances.GRAD)
            assert by_grad == pytest.approx(by_jvp, rel=tolerances.ADJOINT * 10)


def test_activation_times_shift_exactly_with_the_onset():
    """The equations do not know the time; the onset lies on a step, where a pulse has a kink."""
    with jax.enable_x64(True):
        problem, assembly = monodomain()

        def lat(start):
            q = with_parameters(problem, assembly, jnp.asarray(START[0]), START[1], start)
            return solve(q, 24)[0].lat

        start = jnp.asarray(20 * DT)
        times, slope = jax.jit(lambda s: jax.jvp(lat, (s,), (jnp.ones(()),)))(start)
    reached = np.isfinite(times)
    assert reached.sum() > 10
    # Later by a whole step is later by a whole step; within one it is smeared.
    assert np.abs(np.asarray(slope)[reached] - 1.0).max() < 2 * DT


def test_the_memory_of_reverse_mode_grows_as_the_square_root_of_the_steps():
    problem, _ = monodomain(size=(10.0, 5.0, 5.0), dtype=np.float32)
    assert problem.tissue.n_nodes > 2000

    def memory(blocks):
        def loss(problem):
            state, samples = solve(problem, blocks)
            return times_and_potentials(state, samples)

        compiled = eqx.filter_jit(eqx.filter_grad(loss)).lower(problem).compile()
        return compiled.compiled.memory_analysis().temp_size_in_bytes

    assert memory(160) < 2.5 * memory(40)
