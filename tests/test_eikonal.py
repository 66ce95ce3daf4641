"""The eikonal against exact solutions, its own other solver, and central differences."""

import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mesh_samples import irregular
from tolerances import ADJOINT, EXACT32, EXACT64, ORDER

from twinheart.anatomy import Heart
from twinheart.anatomy.purkinje import PurkinjeTree
from twinheart.errors import ModelError
from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.generate import slab
from twinheart.tissue import (
    ConductionSystem,
    Conductivities,
    NonConducting,
    Sites,
    Velocities,
    arrival,
    build_eikonal,
    build_surface_eikonal,
    fast_endocardium,
)

FIBRE = np.array([1.0, 1.0, 0.3]) / np.linalg.norm([1.0, 1.0, 0.3])
SHEET = np.cross(FIBRE, [0.0, 0.0, 1.0]) / np.linalg.norm(np.cross(FIBRE, [0.0, 0.0, 1.0]))
# A relative error of central differences with a step of 1e-6 in float64.
DIFFERENCE = 1e-6

# They take half a minute to compile.
SWEEPS = pytest.param("sweeps", marks=pytest.mark.slow)


def uniform(mesh: TetMesh, **fields) -> Heart:
    return Heart(mesh, f0=np.tile(FIBRE, (mesh.n_tets, 1)), **fields)


def jittered(size, edge: float, seed: int = 0) -> TetMesh:
    mesh = slab(size, edge)
    rng = np.random.default_rng(seed)
    return TetMesh(mesh.points + rng.uniform(-0.2, 0.2, mesh.points.shape) * edge, mesh.tets)


def twisted(mesh: TetMesh) -> Heart:
    """Fibres that turn through the thickness, sheets across, two regions."""
    centre = mesh.points[mesh.tets].mean(axis=1)
    angle = 2.0 * centre[:, 2] / mesh.points[:, 2].max()
    f0 = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    s0 = np.tile([0.0, 0.0, 1.0], (mesh.n_tets, 1))
    return Heart(mesh, f0, s0, (centre[:, 0] > centre[:, 0].mean()).astype(int))


def distance(points, position, cv_l: float, cv_t: float):
    offset = points - position
    along = offset @ FIBRE
    across2 = np.maximum((offset**2).sum(axis=1) - along**2, 0.0)
    return np.sqrt((along / cv_l) ** 2 + across2 / cv_t**2)


@pytest.mark.parametrize("solver", ["ordered", "sweeps"])
def test_plane_wave_is_exact(x64, solver):
    heart = uniform(jittered((6.0, 4.0, 4.0), 1.0))
    problem = build_eikonal(heart, Velocities(0.6, 0.25), solver=solver)
    metric = FIBRE * FIBRE[0] * (0.6**2 - 0.25**2) + np.array([0.25**2, 0, 0])  # M e_x
    direction = np.array([1.0, 0.0, 0.0]) / np.sqrt(metric[0])
    time = heart.mesh.points @ direction
    start = np.where(time < 3.0, time, np.inf)
    # a plane front of any direction is linear, and P1 elements hold it, away from the sides where
    # it would come from outside
    lat = np.asarray(arrival(problem, at_nodes=start))
    assert (lat >= time - EXACT64 * 20).all()
    inner = np.linalg.norm(heart.mesh.points[:, 1:] - 2.0, axis=1) < 0.5
    assert np.abs(lat - time)[inner & (time < 5.0)].max() < EXACT64 * 20


@pytest.mark.parametrize("velocities", [(0.5, 0.5), (0.6, 0.25)])
@pytest.mark.parametrize("kind", ["point", "plane"])
def test_first_order_in_l1(x64, velocities, kind):
    errors, edges = [], (1.0, 0.5, 0.25)
    for edge in edges:
        heart = uniform(slab((8.0, 8.0, 8.0), edge))
        points = heart.mesh.points
        problem = build_eikonal(heart, Velocities(*velocities))
        if kind == "point":
            exact = distance(points, [3.7, 4.2, 3.1], *velocities)
            lat = arrival(problem, Sites([[3.7, 4.2, 3.1]], radius=1.5))
        else:  # a square plate; a fan of rays leaves its border, so that it has a thickness too
            exact = _from_square(points, velocities)
            lat = arrival(problem, at_nodes=np.where(points[:, 0] <= 3.0, exact, np.inf))
        errors.append(np.abs(np.asarray(lat) - exact).mean())
    if max(errors) < EXACT64 * 100:
        return  # exact, as plane waves are
    slope = np.polyfit(np.log(edges), np.log(errors), 1)[0]
    assert slope > 1 - ORDER


def _from_square(points, velocities):
    """Arrival from the square x = 0, 0 <= y, z <= 8 in the metric: the nearest point on it."""
    metric = np.eye(3) / velocities[1] ** 2
    metric += np.outer(FIBRE, FIBRE) * (velocities[0] ** -2 - velocities[1] ** -2)
    nearest = np.zeros_like(points)
    for _ in range(400):  # projected coordinate descent on a convex function of two numbers
        for k in (1, 2):
            slope = (points - nearest) @ metric[k]
            nearest[:, k] = np.clip(nearest[:, k] + slope / metric[k, k], 0.0, 8.0)
    offset = points - nearest
    return np.sqrt(np.einsum("ni,ij,nj->n", offset, metric, offset))


def test_both_solvers_reach_one_fixed_point(x64):
    for heart in (twisted(jittered((8.0, 6.0, 5.0), 1.0)), uniform(irregular(3, 80, 20.0))):
        given = Velocities(0.7, 0.3, 0.15)
        sites = Sites([heart.mesh.points.mean(axis=0)], radius=0.5)
        times = [
            arrival(build_eikonal(heart, given, solver=solver, tolerance=1e-10), sites)
            for solver in ("ordered", "sweeps")
        ]
        assert np.abs(times[0] - times[1]).max() < 1e-8


def test_float32_without_x64_agrees(x64):
    heart = twisted(jittered((8.0, 6.0, 5.0), 1.0))
    sites = Sites([[4.0, 3.0, 2.0]], 2.0)
    exact = np.asarray(arrival(build_eikonal(heart), sites))
    jax.config.update("jax_enable_x64", False)
    for solver in ("ordered", "sweeps"):
        lat = arrival(build_eikonal(heart, solver=solver), Sites([[4.0, 3.0, 2.0]], 2.0))
        assert lat.dtype == np.float32
        np.testing.assert_allclose(lat, exact, rtol=EXACT32)


def tree_problem(solver: str):
    heart = twisted(jittered((8.0, 6.0, 5.0), 1.0))
    tree = PurkinjeTree(
        [[-1.0, 3, 2], [1, 3, 2.2], [3, 3, 2.3], [5.0, 4.5, 2.4], [6.0, 1.2, 2.6]],
        [[0, 1], [1, 2], [2, 3], [2, 4]],
        [0],
    )
    system = ConductionSystem(tree, cv=2.0)
    return build_eikonal(heart, Velocities(0.6, 0.3, 0.2), purkinje=system, solver=solver)


@pytest.mark.parametrize("solver", ["ordered", SWEEPS])
def test_derivatives_match_central_differences(x64, solver):
    problem = tree_problem(solver)
    weights = np.random.default_rng(1).normal(size=problem.n_nodes)
    start = np.full(problem.n_nodes, np.inf)

    def loss(parameters):
        velocity, delays, positions, onsets, root = parameters
        p = eqx.tree_at(lambda p: (p.velocity, p.delays), problem, (velocity, delays))
        nodes = jnp.asarray(start).at[problem.roots].set(root)
        return jnp.sum(arrival(p, Sites(positions, onsets, 1.2), at_nodes=nodes) * weights)

    given = (
        problem.velocity,
        problem.delays,
        jnp.asarray([[6.4, 4.6, 3.2], [1.3, 0.7, 4.1]]),
        jnp.asarray([1.0, 3.0]),
        jnp.asarray([0.5]),
    )
    loss, gradient = jax.jit(loss), jax.grad(loss)(given)
    for k, part in enumerate(given):
        numeric = np.zeros(part.shape)
        for index in np.ndindex(part.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = list(given)
                moved[k] = part.at[index].add(step)
                ends.append(loss(tuple(moved)))
            numeric[index] = (ends[0] - ends[1]) / 2e-6
        assert np.abs(gradient[k] - numeric).max() <= DIFFERENCE * np.abs(numeric).max()


def test_forward_mode_is_the_transpose_of_reverse_mode(x64):
    problem = tree_problem("ordered")
    sites = Sites([[6.4, 4.6, 3.2]], 1.0)
    rng = np.random.default_rng(0)

    def lat(velocity, onsets):
        p = eqx.tree_at(lambda p: p.velocity, problem, velocity)
        return arrival(p, Sites(sites.positions, onsets))

    at = (problem.velocity, sites.onsets)
    tangent = tuple(jnp.asarray(rng.normal(size=x.shape)) for x in at)
    weights = jnp.asarray(rng.normal(size=problem.n_nodes))
    out, pushed = jax.jvp(lat, at, tangent)
    pulled = jax.vjp(lat, *at)[1](weights)
    left = jnp.vdot(pushed, weights)
    right = sum(jnp.vdot(x, y) for x, y in zip(pulled, tangent, strict=True))
    assert abs(left - right) <= ADJOINT * abs(left)
    assert np.isfinite(out).all()


@pytest.mark.parametrize("solver", ["ordered", SWEEPS])
def test_vmap_is_a_loop(x64, solver):
    problem = tree_problem(solver)

    def loss(scale, onset):
        p = eqx.tree_at(lambda p: p.velocity, problem, problem.velocity * scale)
        return arrival(p, Sites([[6.4, 4.6, 3.2]], onset))[::7].sum()

    scales, onsets = jnp.asarray([0.5, 1.0, 2.0]), jnp.asarray([0.0, 1.0, 4.0])
    both = jax.jit(jax.value_and_grad(loss))
    many = jax.vmap(both)(scales, onsets)
    one = [both(s, o) for s, o in zip(scales, onsets, strict=True)]
    for k in range(2):
        np.testing.assert_allclose(many[k], [x[k] for x in one], rtol=EXACT64 * 100)


def test_velocities_of_every_tetrahedron(x64):
    heart = twisted(jittered((6.0, 4.0, 4.0), 1.0))
    sites = Sites([[3.0, 2.0, 2.0]])
    rows = np.array([[0.6, 0.3, 0.2], [0.4, 0.2, 0.1]])
    by_region = {k: Velocities(*row) for k, row in enumerate(rows)}
    lat = arrival(build_eikonal(heart, by_region), sites)
    field = build_eikonal(heart, rows[heart.regions])
    np.testing.assert_allclose(arrival(field, sites), lat, rtol=EXACT64)
    total = jax.grad(lambda v: arrival(eqx.tree_at(lambda p: p.velocity, field, v), sites).sum())
    assert (total(field.velocity) <= 0).all()  # the faster any element, the earlier all nodes


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_symmetries(x64, seed):
    """Rotation and renumbering change nothing; all times go with 1 / speed; slower is later."""
    rng = np.random.default_rng(seed)
    mesh = irregular(seed, 40, 20.0)
    heart, velocities = uniform(mesh), Velocities(0.6, 0.3)
    site = mesh.points[mesh.tets[0]].mean(axis=0)
    lat = np.asarray(arrival(build_eikonal(heart, velocities), Sites([site])))
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    order = rng.permutation(mesh.n_nodes)
    place = np.argsort(order)
    turned = TetMesh(mesh.points[order] @ turn.T, place[mesh.tets])
    other = Heart(turned, f0=np.tile(turn @ FIBRE, (mesh.n_tets, 1)))
    moved = arrival(build_eikonal(other, velocities), Sites([turn @ site]))
    np.testing.assert_allclose(moved, lat[order], rtol=1e-8)
    factor = rng.uniform(0.2, 5.0)
    faster = build_eikonal(heart, Velocities(0.6 * factor, 0.3 * factor))
    np.testing.assert_allclose(arrival(faster, Sites([site])) * factor, lat, rtol=1e-8)
    slower = arrival(build_eikonal(heart, Velocities(0.6, 0.2)), Sites([site]))
    assert (slower >= lat - 1e-9).all()


def test_scar_blocks_and_loose_parts_stay_unreached():
    mesh = slab((9.0, 3.0, 3.0), 1.0)
    middle = mesh.points[mesh.tets].mean(axis=1)[:, 0]
    scarred = uniform(mesh, regions=((middle > 4) & (middle < 5)).astype(int))
    conduction = {0: Velocities(), 1: NonConducting()}
    lat = np.asarray(arrival(build_eikonal(scarred, conduction), Sites([[1.0, 1, 1]], radius=9.0)))
    assert np.isfinite(lat[mesh.points[:, 0] <= 4]).all()
    assert np.isinf(lat[mesh.points[:, 0] >= 5]).all()
    # Derivatives are finite although some arrivals are not.
    problem = build_eikonal(scarred, conduction)

    def reached(velocity):
        p = eqx.tree_at(lambda p: p.velocity, problem, velocity)
        lat = arrival(p, Sites([[1.0, 1, 1]]))
        return jnp.where(jnp.isfinite(lat), lat, 0.0).sum()

    assert np.isfinite(jax.grad(reached)(problem.velocity)).all()


def test_a_site_may_lie_anywhere_in_the_mesh_but_not_outside():
    problem = build_eikonal(uniform(slab((6.0, 3.0, 3.0), 1.0)))
    lat = arrival(problem, Sites([[2.3, 1.7, 0.4]], 5.0, radius=0.1))
    assert 5.0 < float(lat.min()) < 7.0
    with pytest.raises(ModelError, match=r"lie outside the muscle .* 4\.00 mm away"):
        arrival(problem, Sites([[10.0, 1.0, 1.0]]))


@pytest.mark.parametrize("cv", [0.0, -0.3, np.nan])
def test_velocities_that_are_none_are_refused(cv):
    heart = uniform(slab((2.0, 1.0, 1.0), 1.0))
    with pytest.raises(ModelError, match="positive"):
        build_eikonal(heart, Velocities(0.5, cv))
    with pytest.raises(ModelError, match="positive"):
        build_eikonal(heart, np.full((heart.mesh.n_tets, 3), cv))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: build_eikonal(h, {1: Velocities()}), "have no conductivity"),
        (lambda h: build_eikonal(h, NonConducting()), "no region conducts"),
        (lambda h: build_eikonal(h, solver="fast"), "unknown solver"),
        (lambda h: build_eikonal(h, junction_delays=(1.0, -1.0)), "junction delays"),
        (lambda h: build_eikonal(h, np.ones((3, 3))), "expected .* in every element"),
        (lambda h: arrival(build_eikonal(h)), "no source"),
        (lambda h: arrival(build_eikonal(h), at_nodes=np.zeros(2)), "one for each node"),
        (lambda h: Sites([[np.nan, 0, 0]]), "finite"),
        (lambda h: Sites([[0.0, 0, 0]], radius=0.0), "positive radius"),
        (lambda h: Sites([[0.0, 0, 0]], [0.0, 1.0]), "expected"),
    ],
)
def test_bad_input_is_refused(change, message):
    with pytest.raises(ModelError, match=message):
        change(uniform(slab((2.0, 1.0, 1.0), 1.0)))


def test_conductivities_give_the_velocity_of_the_literature():
    heart = uniform(slab((2.0, 1.0, 1.0), 1.0))
    problem = build_eikonal(heart, Conductivities(0.17, 0.019, 0.62, 0.24))
    # Niederer et al. 2011 converge to 0.615 and 0.223 m/s
    np.testing.assert_allclose(problem.velocity[0, :2], [0.615, 0.223], rtol=0.01)


def test_tree_excites_the_muscle_and_the_muscle_the_tree(x64):
    heart = uniform(slab((40.0, 2.0, 2.0), 1.0))
    line = np.stack([np.arange(5.0, 36.0), *np.full((2, 31), 1.0)], axis=1)
    tree = PurkinjeTree(line, np.stack([np.arange(30), np.arange(1, 31)], axis=1), [0])
    problem = build_eikonal(
        heart,
        Velocities(0.5, 0.5),
        purkinje=ConductionSystem(tree, cv=2.0),
        junction_delays=(3.0, 1.0),
    )
    mesh_node = 35 + 41 * (1 + 3 * 1)
    root = np.full(problem.n_nodes, np.inf)
    root[problem.roots] = 0.0
    lat = np.asarray(arrival(problem, at_nodes=root))
    assert lat[problem.n_mesh + 30] == pytest.approx(30 / 2.0, abs=EXACT64 * 100)
    assert lat[mesh_node] == pytest.approx(15.0 + 3.0, abs=1e-9)
    back = np.asarray(arrival(problem, Sites([line[-1]])))
    assert back[problem.n_mesh + 30] == pytest.approx(1.0, abs=1e-9)
    assert back[problem.roots[0]] == pytest.approx(1.0 + 15.0, abs=1e-9)


def test_surface_with_fibres(x64):
    """On a flat sheet the front is an ellipse; on a sphere it goes along great circles."""
    side = np.linspace(0.0, 10.0, 41)
    points = np.stack([*map(np.ravel, np.meshgrid(side, side)), np.zeros(41 * 41)], axis=1)
    corner = (np.arange(40)[:, None] * 41 + np.arange(40)).ravel()
    triangles = np.concatenate(
        [corner[:, None] + [0, 1, 42], corner[:, None] + [0, 42, 41]], axis=0
    )
    fibre = np.array([np.cos(0.4), np.sin(0.4), 0.0])
    flat = build_surface_eikonal(
        TriMesh(points, triangles), np.tile(fibre, (len(triangles), 1)), Velocities(1.0, 0.4)
    )
    lat = arrival(flat, Sites([[5.1, 4.9, 0.0]], radius=1.0))
    offset = points - [5.1, 4.9, 0.0]
    along = offset @ fibre
    exact = np.sqrt(along**2 + np.maximum((offset**2).sum(axis=1) - along**2, 0) / 0.4**2)
    assert np.abs(lat - exact).mean() < 0.01 * exact.mean()
    import pyvista as pv

    ball = pv.Icosphere(radius=20.0, nsub=4)
    sphere = TriMesh(np.asarray(ball.points), ball.faces.reshape(-1, 4)[:, 1:])
    pole = sphere.points[0]
    lat = arrival(build_surface_eikonal(sphere, None, Velocities(0.5)), Sites([pole]))
    great = 20.0 * np.arccos(np.clip(sphere.points @ pole / 400.0, -1, 1)) / 0.5
    assert np.abs(lat - great).max() < 0.02 * great.max()


def test_fast_endocardium_is_regions_with_other_velocities():
    from twinheart.anatomy import demo_heart
    from twinheart.cell import get_model

    heart = demo_heart()
    layered, _, conduction = fast_endocardium(heart, get_model("mitchell-schaeffer"), Velocities())
    lv = heart.mesh.points[heart.mesh.point_fields["surf_class"] == 3]
    sites = Sites([lv[0]])
    slow = arrival(build_eikonal(heart), sites)
    fast = arrival(build_eikonal(layered, conduction), sites)
    assert np.isfinite(fast).all()
    assert float(fast.max()) < 0.8 * float(slow.max())


def test_runs_without_numba():
    code = """
import sys
sys.modules["numba"] = None
import numpy as np
from twinheart.anatomy import Heart
from twinheart.mesh.generate import slab
from twinheart.tissue import Sites, arrival, build_eikonal
lat = arrival(build_eikonal(Heart(slab((4.0, 2.0, 2.0), 1.0)), solver="sweeps"), Sites([[0, 0, 0]]))
assert np.isfinite(lat).all()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
