"""Template action potentials: travelling waves, and their ECG integrated inside the elements."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import EXACT32

from twinheart.anatomy import Heart
from twinheart.cell import get_model, scale_channels
from twinheart.ecg import Electrodes, lead_field, lead_shares
from twinheart.errors import ModelError
from twinheart.fem.assembly import gradients
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import slab
from twinheart.tissue.cable import cable_problem, continuum_velocity, fitted_scheme
from twinheart.tissue.monodomain import advance, initial_state
from twinheart.tissue.template import Templates, action_potential, templates_of
from twinheart.tissue.wave_ecg import sample_places, wave_ecg

CELL = "mitchell-schaeffer"
SITES = Electrodes(("ahead", "beside", "near"), [[40.0, 1, 1], [3, 25, 4], [14, 2, -2]])
# Cables with two to four nodes in the front: what their spacing leaves of the velocity.
CABLE = 0.02
# mV of 118; two cables whose spacings are not the same share of the front
SHAPE = 1.5
# of the amplitude: 32 points in an element of 3 mm, all elements in phase, a histogram of 1/8 ms
FRONT = 0.02


def sigma(mesh):
    return np.tile(np.diag([0.17, 0.05, 0.05]), (mesh.n_tets, 1, 1))


@pytest.fixture(scope="module")
def template():
    return action_potential(get_model(CELL))


def test_template_is_the_voltage_of_a_wave_of_any_velocity(template):
    """A cable with four times the diffusivity, twice the velocity, has the same voltage in time."""
    diffusivity, edge, dt, node = 0.4, 0.2, 0.02, 44
    scheme = fitted_scheme(None, diffusivity, edge, dt)
    problem = cable_problem(get_model(CELL), diffusivity, 0.65, edge, dt, scheme)
    problem = dataclasses.replace(problem, block=1, probes=jnp.asarray([node]))
    state, samples = eqx.filter_jit(advance)(problem, initial_state(problem), round(60.0 / dt))
    s = np.asarray(samples.t) - float(state.lat[node])
    seen = (s > -8.0) & (s < 25.0)
    expected = np.asarray(template(jnp.asarray(s[seen])))
    assert np.asarray(samples.probes)[seen, 0] == pytest.approx(expected, abs=SHAPE)


def test_axial_number_is_diffusivity_over_squared_velocity(template):
    velocity = continuum_velocity(get_model(CELL), 1.0)
    assert float(template.axial) == pytest.approx(1.0 / velocity**2, rel=2 * CABLE)


def test_apd_factor_stretches_what_follows_the_upstroke(template):
    s = np.arange(-10.0, 600.0, 0.1)
    for factor in (0.7, 1.0, 1.4):
        vm = np.asarray(template(jnp.asarray(s), factor))
        level = vm.max() - 0.9 * (vm.max() - vm[0])
        end = s[np.flatnonzero(vm > level)[-1]]
        assert end == pytest.approx(factor * float(template.apd90), abs=0.5)
        assert np.interp(0.0, s, vm) == pytest.approx(0.0, abs=0.1)


def one_for_all(heart, cell=CELL) -> Templates:
    return templates_of(heart, get_model(cell))


def uniform_shares(mesh):
    """Lead field of electrodes so far away that it is uniform: along x, along y, oblique."""
    fields = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.3, -0.5, 0.7]])
    grad, volume = gradients(mesh.points, mesh.tets)
    return np.einsum("t,tki,ei->etk", volume, grad, fields)


@pytest.mark.parametrize("direction", [(1.0, 0.0, 0.0), (0.6, 0.7, -0.4)])
def test_plane_wave_has_the_potentials_of_a_mesh_that_resolves_it(direction):
    """Arrival is linear, so both meshes have the same wave; the coarse one has edges of 3 mm."""
    slowness = np.asarray(direction) / np.linalg.norm(direction) / 0.5
    t = np.arange(0.0, 40.0, 0.5)
    coarse, fine = (slab((12.0, 3.0, 3.0), edge) for edge in (3.0, 0.25))
    templates = one_for_all(Heart(coarse))
    lat = jnp.asarray(coarse.points @ slowness + 5.0)
    ecg = wave_ecg(coarse.tets, uniform_shares(coarse), templates, t, crossing=6.0)
    found = np.asarray(eqx.filter_jit(ecg)(lat))
    vm = eqx.filter_jit(templates.tables[0])(t[:, None] - (fine.points @ slowness + 5.0))
    shares = uniform_shares(fine)
    weights = [np.bincount(fine.tets.ravel(), row.ravel(), fine.n_nodes) for row in shares]
    expected = np.asarray(vm) @ np.stack(weights, axis=1)
    assert found == pytest.approx(expected, abs=FRONT * np.ptp(expected))


def test_durations_that_vary_add_what_nodes_would():
    mesh = slab((6.0, 2.0, 2.0), 0.5)
    templates = one_for_all(Heart(mesh))
    t = np.arange(200.0, 420.0, 1.0)
    lat = mesh.points @ [1.5, 0.5, 0.0]
    factor = 1.0 + 0.2 * np.sin(mesh.points[:, 0])
    shares = lead_shares(mesh, SITES, sigma(mesh))
    ecg = wave_ecg(mesh.tets, shares, templates, t, crossing=1.0)
    found = np.asarray(ecg(jnp.asarray(lat), jnp.asarray(factor)))
    vm = templates.tables[0](t[:, None] - lat, factor)
    expected = np.asarray(vm) @ lead_field(mesh, SITES, sigma(mesh), dtype=np.float64).T
    # classes of factors 1.25 % apart, front and plateau slopes within elements
    assert found == pytest.approx(expected, abs=0.01 * np.ptp(expected))


def test_gradients_of_the_ecg_are_exact():
    """With respect to every arrival and duration, against central differences in float64."""
    jax.config.update("jax_enable_x64", True)
    try:
        mesh = slab((6.0, 2.0, 2.0), 2.0)
        heart = Heart(mesh)
        t = np.arange(0.0, 330.0, 2.0)
        shares = lead_shares(mesh, SITES, sigma(mesh), dtype=np.float64)
        templates = one_for_all(heart)
        ecg = wave_ecg(mesh.tets, shares, templates, t, crossing=4.0, dtype=np.float64)
        rng = np.random.default_rng(1)
        lat = jnp.asarray(mesh.points @ [1.7, 0.9, 0.3] + 3.0)
        factor = jnp.asarray(1.0 + 0.1 * rng.normal(size=mesh.n_nodes))
        weights = jnp.asarray(rng.normal(size=(len(t), 3)))

        @jax.jit
        def misfit(lat, factor):
            return (weights * ecg(lat, factor)).sum() + (ecg(lat, factor) ** 2).sum()

        gradients = jax.grad(misfit, argnums=(0, 1))(lat, factor)
        for k, (step, at) in enumerate(((1e-4, lat), (1e-6, factor))):
            direction = jnp.asarray(rng.normal(size=at.shape))
            ends = [[lat, factor] for _ in range(2)]
            for sign, end in zip((1, -1), ends, strict=True):
                end[k] = at + sign * step * direction
            difference = (misfit(*ends[0]) - misfit(*ends[1])) / (2 * step)
            # B-splines have a jump in the second derivative, which costs one order of the step
            assert float(gradients[k] @ direction) == pytest.approx(float(difference), rel=1e-4)
    finally:
        jax.config.update("jax_enable_x64", False)


def test_nodes_that_are_not_reached_give_nothing():
    """Half of two separate blocks does not beat: same ECG as the other block alone."""
    mesh = slab((4.0, 2.0, 2.0), 1.0)
    both = TetMesh(
        np.concatenate([mesh.points, mesh.points + np.array([0.0, 10.0, 0.0])]),
        np.concatenate([mesh.tets, mesh.tets + mesh.n_nodes]),
    )
    t = np.arange(0.0, 20.0)
    lat = jnp.asarray(mesh.points[:, 0] / 0.5)
    found = []
    for part, times in ((mesh, lat), (both, jnp.append(lat, jnp.full(mesh.n_nodes, jnp.inf)))):
        shares = lead_shares(part, SITES, sigma(part))
        ecg = wave_ecg(part.tets, shares, one_for_all(Heart(part)), t, crossing=2.0)
        found.append(ecg(times))
        assert np.isfinite(jax.grad(lambda x, ecg=ecg: (ecg(x) ** 2).sum())(times)).all()
    largest = float(jnp.abs(found[0]).max())
    assert np.asarray(found[1]) == pytest.approx(np.asarray(found[0]), abs=EXACT32 * largest)


@pytest.mark.parametrize("crossing", [1.0, 3.0, 10.0])
def test_points_integrate_linear_functions(crossing):
    places = sample_places(crossing)
    assert places.sum(axis=1) == pytest.approx(1.0)
    assert places.mean(axis=0) == pytest.approx(0.25)
    assert (places > 0).all()
    if len(places) > 1:  # the second moments of a tetrahedron
        moments = np.full((4, 4), 1 / 20) + np.eye(4) / 20
        assert places.T @ places / len(places) == pytest.approx(moments)


def test_times_must_be_even():
    mesh = slab((2.0, 2.0, 2.0), 1.0)
    shares = lead_shares(mesh, SITES, sigma(mesh))
    for t in ([0.0, 1.0, 3.0], [0.0, 0.3, 0.6], [0.0]):
        with pytest.raises(ModelError, match="equally spaced by a multiple"):
            wave_ecg(mesh.tets, shares, one_for_all(Heart(mesh)), np.array(t), crossing=1.0)


def test_durations_follow_a_parameter_that_varies_over_the_nodes():
    heart = Heart(slab((4.0, 2.0, 2.0), 1.0))
    x = heart.mesh.points[:, 0]
    cell = scale_channels(get_model(CELL), {"tau_close": 0.8 + 0.1 * x})
    found = templates_of(heart, cell)
    assert found.varies
    ends = [
        float(action_potential(scale_channels(get_model(CELL), {"tau_close": f})).apd90)
        for f in (0.8, 1.2)
    ]
    reached = np.asarray(found.apd90)[[x.argmin(), x.argmax()]]
    assert reached == pytest.approx(ends, abs=0.5)


def test_parameters_that_vary_in_two_ways_are_refused():
    heart = Heart(slab((4.0, 2.0, 2.0), 1.0))
    x, y, _ = heart.mesh.points.T
    factors = {"tau_close": 0.8 + 0.1 * x, "tau_out": 0.8 + 0.2 * y}
    with pytest.raises(ModelError, match="vary over the nodes in more than one way"):
        templates_of(heart, scale_channels(get_model(CELL), factors))


def test_a_voltage_that_is_not_reached_is_no_threshold():
    with pytest.raises(ModelError, match="no voltage of this cell model crosses 70 mV"):
        action_potential(get_model(CELL), threshold=70.0)
