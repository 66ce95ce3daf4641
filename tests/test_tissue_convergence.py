"""The time loop against exact solutions: order two in space, one or two in time, any direction."""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import tolerances

from twinheart.anatomy import Heart
from twinheart.cell import AbstractCellModel, Pulse
from twinheart.fem import edges_to_matrix
from twinheart.mesh.generate import slab
from twinheart.tissue import CrankNicolson, Explicit, Monodomain, advance, initial_state, pace
from twinheart.tissue.discrete import Assembly, assemble
from twinheart.tissue.scheme import iterations_needed, stages_needed

SIZE = (4.0, 1.0, 1.0)  # mm
D = 0.1  # mm^2/ms
G = 0.5  # 1/ms
WAVE = math.pi / SIZE[0]  # 1/mm: no flux at either end


class Passive(AbstractCellModel):
    """A leaky membrane, i_ion = g vm: the equation of the tissue is linear."""

    name: ClassVar[str] = "passive"
    reference: ClassVar[str] = ""
    initial: ClassVar[dict[str, float]] = {}
    channels: ClassVar[dict[str, str]] = {}
    stimulus: ClassVar[Pulse] = Pulse(0.0, 1.0)

    g: jax.Array = eqx.field(default=G, converter=lambda x: jnp.asarray(x, float))

    def initial_vm(self):
        return jnp.zeros_like(self.g)

    def rates(self, vm, state, i_stim=0.0):
        return self.g * vm, ()


SCHEMES = {
    "smoothed": Explicit(),
    "lumped": Explicit(smoothed=False),
    "crank-nicolson": CrankNicolson(),
}


def heart_of(edge: float, fibre=None, size=SIZE) -> Heart:
    mesh = slab(size, edge)
    return Heart(mesh, f0=None if fibre is None else np.tile(fibre, (mesh.n_tets, 1)))


def solution(
    assembly: Assembly, diffusivity, v0, scheme, dt, t_end, *, g=G, source=None, dtype=np.float64
):
    """V_m at t_end in mesh order, starting from v0, with a constant source [A/F] if given."""
    steps = round(t_end / dt)
    consistent = isinstance(scheme, CrankNicolson)
    value, _ = assembly.stiffest(diffusivity)
    if consistent:
        scheme = CrankNicolson(iterations=iterations_needed(dt, value, rtol=1e-10))
    elif scheme.stages == 1:
        assert stages_needed(dt, value) == 1, "the test would be unstable"
    tissue = assembly.tissue(diffusivity, consistent=consistent, dtype=dtype)
    problem = Monodomain(
        tissue=tissue,
        models=(Passive(g),),
        model_sizes=(len(v0),),
        stimuli=() if source is None else (pace("all", duration=1e6, amplitude=1.0),),
        stimulus_masks=() if source is None else (jnp.asarray(source[assembly.order]),),
        scheme=scheme,
        dt=jnp.asarray(dt),
        threshold=jnp.asarray(1e9),
        lead_field=jnp.zeros((0, len(v0))),
        probes=jnp.zeros(0, jnp.int32),
        block=1,
    )
    vm = jnp.asarray(v0[assembly.order], dtype)
    state = initial_state(problem)._replace(vm=vm, i_ion=g * vm)
    state, _ = eqx.filter_jit(advance)(problem, state, steps)
    return tissue.to_mesh_order(state.vm)


def l2(assembly: Assembly, error: np.ndarray) -> float:
    return float(np.sqrt(assembly.lumped @ error[assembly.order] ** 2))


def orders(errors) -> np.ndarray:
    return np.log2(np.divide(errors[:-1], errors[1:]))


@pytest.mark.parametrize("name", SCHEMES)
def test_decaying_wave_converges_with_order_two_in_space(name):
    # Long enough for the corners of the slab to settle. Crank-Nicolson splits the current off, to
    # order one in time, so here it runs without.
    implicit, errors = name == "crank-nicolson", []
    g, t_end = (0.0, 6.0) if implicit else (G, 1.0)
    with jax.enable_x64(True):
        for edge in (0.5, 0.25, 0.125):
            heart = heart_of(edge)
            assembly = assemble(heart, smoothing=0.5)
            x = heart.mesh.points[:, 0]
            v0 = np.cos(WAVE * x)
            # its error shrinks along, and stays negligible
            dt = 0.1 * edge if implicit else 0.04 * edge**2
            diffusivity = np.array([[D, 0.0, 0.0]])
            vm = solution(assembly, diffusivity, v0, SCHEMES[name], dt, t_end, g=g)
            exact = math.exp(-(D * WAVE**2 + g) * t_end) * v0
            errors.append(l2(assembly, vm - exact))
    assert np.abs(orders(errors) - 2).max() < tolerances.ORDER, (orders(errors), errors)


@pytest.mark.parametrize("name", SCHEMES)
def test_oblique_fibres_converge_with_order_two_in_space(name):
    """Fibres at 30 degrees; a field flat on all faces, kept in balance by its own source."""
    fibre = np.array([math.cos(math.pi / 6), math.sin(math.pi / 6), 0.0])
    d_l, d_t = 0.1, 0.025
    tensor = d_t * np.eye(3) + (d_l - d_t) * np.outer(fibre, fibre)
    g, t_end, errors = 2.0, 0.5, []
    with jax.enable_x64(True):
        for edge in (0.25, 0.125, 0.0625):
            heart = heart_of(edge, fibre, size=(2.0, 2.0, 0.5))
            assembly = assemble(heart, smoothing=np.array([[0.6, 0.3, 0.3]]))
            x, y, _ = np.pi / 2 * heart.mesh.points.T
            balance = np.sin(x) ** 2 * np.sin(y) ** 2
            xx = (np.pi / 2) ** 2 * 2 * np.cos(2 * x) * np.sin(y) ** 2
            yy = (np.pi / 2) ** 2 * 2 * np.cos(2 * y) * np.sin(x) ** 2
            xy = (np.pi / 2) ** 2 * np.sin(2 * x) * np.sin(2 * y)
            flow = tensor[0, 0] * xx + tensor[1, 1] * yy + 2 * tensor[0, 1] * xy
            source = g * balance - flow
            dt = 0.02 * (edge / 0.25) ** 2  # the splitting of Crank-Nicolson shifts the balance
            diffusivity = np.array([[d_l, d_t, d_t]])
            vm = solution(
                assembly, diffusivity, balance, SCHEMES[name], dt, t_end, g=g, source=source
            )
            errors.append(l2(assembly, vm - balance))
    assert np.abs(orders(errors) - 2).max() < tolerances.ORDER, (orders(errors), errors)


def exact_in_time(assembly: Assembly, diffusivity, v0, t_end, *, g, scheme) -> np.ndarray:
    """The equations discrete in space alone, solved by a matrix exponential."""
    K = edges_to_matrix(assembly.graph, assembly.basis.edge_weights(diffusivity)).toarray()
    lumped = np.diag(assembly.lumped)
    if isinstance(scheme, CrankNicolson):
        mass = lumped - edges_to_matrix(assembly.graph, assembly.mass_edges).toarray()
        rate = -np.linalg.solve(mass, K) - g * np.eye(len(v0))
    else:
        passed_on = edges_to_matrix(assembly.graph, assembly.round_edges).toarray()
        current = lumped - passed_on if scheme.smoothed else lumped
        rate = -np.linalg.solve(lumped, K + g * current)
    vm = np.empty_like(v0)
    vm[assembly.order] = scipy.linalg.expm(t_end * rate) @ v0[assembly.order]
    return vm


@pytest.mark.parametrize(
    ("scheme", "g", "order"),
    [
        (Explicit(), G, 1),
        (Explicit(smoothed=False), G, 1),
        (Explicit(stages=3), G, 1),
        (CrankNicolson(), 0.0, 2),
    ],
    ids=["smoothed", "lumped", "chebyshev", "crank-nicolson"],
)
def test_order_in_time(scheme, g, order):
    fibre = np.array([math.cos(math.pi / 6), math.sin(math.pi / 6), 0.0])
    diffusivity = np.array([[0.2, 0.05, 0.05]])
    heart = heart_of(0.5, fibre, size=(2.0, 1.0, 1.0))
    t_end, errors = 1.6, []
    with jax.enable_x64(True):
        assembly = assemble(heart, smoothing=np.array([[0.7, 0.4, 0.4]]))
        x, y, z = heart.mesh.points.T
        v0 = np.cos(np.pi / 2 * x) + 0.3 * np.cos(np.pi * y) + 0.1 * z
        exact = exact_in_time(assembly, diffusivity, v0, t_end, g=g, scheme=scheme)
        for dt in (0.1, 0.05, 0.025, 0.0125):
            vm = solution(assembly, diffusivity, v0, scheme, dt, t_end, g=g)
            errors.append(l2(assembly, vm - exact))
    assert np.abs(orders(errors)[1:] - order).max() < tolerances.ORDER, (orders(errors), errors)


def test_chebyshev_stages_stay_stable_and_accurate_far_beyond_the_explicit_step():
    heart = heart_of(0.125, size=(2.0, 0.5, 0.5))
    diffusivity = np.array([[D, 0.0, 0.0]])
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        assembly = assemble(heart, smoothing=0.5)
        value, _ = assembly.stiffest(diffusivity)
        dt = 7 * 2.0 / value
        stages = stages_needed(dt, value)
        assert stages > 1
        noise = rng.normal(size=heart.mesh.n_nodes)
        after = solution(assembly, diffusivity, noise, Explicit(stages), dt, 40 * dt, g=0.0)
        # diffusion only ever lowers the energy, and conserves the charge
        assert l2(assembly, after) < l2(assembly, noise)
        charge, before = (assembly.lumped @ v[assembly.order] for v in (after, noise))
        size = assembly.lumped @ np.abs(noise)[assembly.order]
        assert abs(charge - before) < tolerances.EXACT64 * 1e2 * size
        wave = np.cos(np.pi / 2 * heart.mesh.points[:, 0])
        smooth = solution(assembly, diffusivity, wave, Explicit(stages), dt, 10 * dt)
        exact = exact_in_time(assembly, diffusivity, wave, 10 * dt, g=G, scheme=Explicit(stages))
        # first order: about dt times the rate, times the time over two
        rate = D * (np.pi / 2) ** 2 + G
        bound = (10 * dt) * dt * rate**2
        assert l2(assembly, smooth - exact) < bound * l2(assembly, wave)


def test_one_stage_too_few_is_unstable():
    """The number of stages is needed, not merely safe."""
    heart = heart_of(0.125, size=(2.0, 0.5, 0.5))
    diffusivity = np.array([[D, 0.0, 0.0]])
    noise = np.random.default_rng(0).normal(size=heart.mesh.n_nodes)
    with jax.enable_x64(True):
        assembly = assemble(heart)
        value, _ = assembly.stiffest(diffusivity)
        dt = 7 * 2.0 / value
        few = Explicit(stages_needed(dt, value) - 1)
        after = solution(assembly, diffusivity, noise, few, dt, 20 * dt, g=0.0)
    assert not l2(assembly, after) < 1e3 * l2(assembly, noise)


@pytest.mark.parametrize("name", [*SCHEMES, "chebyshev"])
def test_changes_below_rounding_add_up_in_single_precision(name):
    """A membrane that leaks so little that no step moves a float32 voltage."""
    v0, g, dt, t_end = np.float32(-85.0), 1e-6, 0.02, 20.0
    assert v0 - np.float32(dt * g * v0) == v0
    scheme = Explicit(stages=3) if name == "chebyshev" else SCHEMES[name]
    assembly = assemble(heart_of(1.0, size=(2.0, 1.0, 1.0)))
    start = np.full(len(assembly.order), v0)
    vm = solution(assembly, np.full((1, 3), D), start, scheme, dt, t_end, g=g, dtype=np.float32)
    assert np.abs(vm - v0 * math.exp(-g * t_end)).max() <= np.spacing(-v0)
