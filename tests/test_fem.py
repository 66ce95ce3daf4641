"""Finite elements: exact identities, orders of convergence, derivatives, solvers against scipy."""

import itertools
import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
import tolerances
from hypothesis import given, settings
from scipy.spatial.transform import Rotation

from twinheart import fem
from twinheart.errors import MeshError, SolverError
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import slab

CENTRAL = np.cbrt(np.finfo(np.float64).eps)  # best step of a central difference


def ragged(seed: int = 0, size=(2.0, 1.5, 1.0), edge: float = 0.5, shift: float = 0.08) -> TetMesh:
    """A slab whose nodes were moved about, so that no two elements are alike."""
    mesh = slab(size, edge)
    noise = np.random.default_rng(seed).uniform(-shift, shift, mesh.points.shape)
    return TetMesh(mesh.points + noise, mesh.tets)


def random_tensors(mesh: TetMesh, seed: int = 0) -> np.ndarray:
    """Symmetric positive definite, another one in every tetrahedron."""
    roots = np.random.default_rng(seed).normal(size=(mesh.n_tets, 3, 3))
    return roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(3)


def operator(mesh: TetMesh, tensor=1.0, dtype=np.float64):
    """Slot weights, columns and matrix of one stiffness."""
    graph = fem.edge_graph(mesh.tets, mesh.n_nodes)
    edges = fem.stiffness_edges(mesh, graph, tensor)
    ell = fem.ell_graph(graph)
    weights = fem.slot_weights(ell, edges.astype(dtype))
    return jnp.asarray(weights), jnp.asarray(ell.columns), fem.edges_to_matrix(graph, edges)


def relative(value, reference) -> float:
    return float(np.abs(value - reference).max() / np.abs(reference).max())


def test_barycentric_gradients_sum_to_zero_and_reproduce_linear_fields():
    mesh = ragged()
    grad, volume = fem.gradients(mesh.points, mesh.tets)
    slope = np.array([0.3, -1.2, 2.0])
    found = np.einsum("tai,ta->ti", grad, (mesh.points @ slope)[mesh.tets])
    assert np.abs(grad.sum(axis=1)).max() < tolerances.EXACT64 * np.abs(grad).max()
    assert np.abs(found - slope).max() < tolerances.EXACT64 * 1e2
    # lambda_a is 1 at its own vertex and 0 at the others: grad_a . (x_b - x_c) = d_ab - d_ac
    x = mesh.points[mesh.tets]
    products = np.einsum("tai,tbci->tabc", grad, x[:, :, None] - x[:, None])
    eye = np.eye(4)
    expected = eye[:, :, None] - eye[:, None, :]
    assert np.abs(products - expected).max() < tolerances.EXACT64 * 1e2
    assert (volume > 0).all()


def test_gradients_do_not_depend_on_orientation():
    mesh = ragged()
    flipped = mesh.tets[:, [0, 2, 1, 3]]
    grad, volume = fem.gradients(mesh.points, mesh.tets)
    grad_flipped, volume_flipped = fem.gradients(mesh.points, flipped)
    assert relative(grad_flipped[:, [0, 2, 1, 3]], grad) < tolerances.EXACT64
    assert relative(volume_flipped, volume) < tolerances.EXACT64


def test_stiffness_kills_constants_and_gives_the_exact_energy_of_a_linear_field():
    mesh = ragged()
    tensor = random_tensors(mesh)
    K = fem.stiffness(mesh, tensor)
    slope = np.array([0.3, -1.2, 2.0])
    u = mesh.points @ slope
    _, volume = fem.gradients(mesh.points, mesh.tets)
    energy = (volume * np.einsum("i,tij,j->t", slope, tensor, slope)).sum()
    assert np.abs(K @ np.ones(mesh.n_nodes)).max() < tolerances.EXACT64 * abs(K).max()
    assert abs(K - K.T).max() < tolerances.EXACT64 * abs(K).max()
    assert u @ K @ u == pytest.approx(energy, rel=tolerances.EXACT64 * 10)


def test_isotropic_values_equal_the_tensors_they_stand_for():
    mesh = ragged()
    values = np.random.default_rng(2).uniform(0.1, 2.0, mesh.n_tets)
    tensors = values[:, None, None] * np.eye(3)
    difference = fem.stiffness(mesh, values) - fem.stiffness(mesh, tensors)
    assert abs(difference).max() < tolerances.EXACT64 * values.max()


def test_assembly_in_chunks_changes_nothing():
    mesh = ragged()
    graph = fem.edge_graph(mesh.tets, mesh.n_nodes)
    tensor = random_tensors(mesh)
    whole = fem.stiffness_edges(mesh, graph, tensor)
    pieces = fem.stiffness_edges(mesh, graph, tensor, chunk=7)
    assert relative(pieces, whole) < tolerances.EXACT64


def test_lumped_mass_is_the_row_sum_of_the_consistent_mass():
    mesh = ragged()
    lumped, consistent = fem.lumped_mass(mesh), fem.consistent_mass(mesh)
    _, volume = fem.gradients(mesh.points, mesh.tets)
    assert relative(np.asarray(consistent.sum(axis=1)).ravel(), lumped) < tolerances.EXACT64
    assert lumped.sum() == pytest.approx(volume.sum(), rel=tolerances.EXACT64)
    # int x y over a mesh of linear elements: exact for products of linear fields
    a, b, c = 2.0, 1.5, 1.0
    box = slab((a, b, c), 0.5)
    x, y, _ = box.points.T
    exact = a**2 / 2 * b**2 / 2 * c
    assert x @ fem.consistent_mass(box) @ y == pytest.approx(exact, rel=tolerances.EXACT64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_edge_product_equals_the_sparse_matrix(dtype):
    mesh = ragged()
    tolerance = tolerances.EXACT32 if dtype == np.float32 else tolerances.EXACT64
    with jax.enable_x64(dtype == np.float64):
        weights, columns, K = operator(mesh, random_tensors(mesh), dtype)
        v = np.random.default_rng(3).normal(size=mesh.n_nodes)
        product = fem.edge_difference_sum(weights, columns, jnp.asarray(v, dtype))
        constant = fem.edge_difference_sum(weights, columns, jnp.full(mesh.n_nodes, -85.3, dtype))
    assert product.dtype == dtype
    assert relative(np.asarray(product, np.float64), -(K @ v)) < tolerance
    assert (np.asarray(constant) == 0).all()  # exactly, in any precision


def test_padded_slots_point_at_their_own_node_and_carry_no_weight():
    graph = fem.edge_graph(slab((1.0, 1.0, 1.0), 0.5).tets, 27)
    ell = fem.ell_graph(graph)
    weights = fem.slot_weights(ell, np.ones(graph.n_edges))
    degree = np.bincount(graph.edges.ravel(), minlength=27)
    assert (weights.sum(axis=0) == degree).all()
    assert (ell.columns[weights == 0] == np.nonzero(weights == 0)[1]).all()
    assert ell.width == degree.max()


def test_memory_order_is_a_permutation_that_brings_neighbours_together():
    mesh = slab((4.0, 2.0, 1.0), 0.5)
    shuffled = np.random.default_rng(0).permutation(mesh.n_nodes)
    graph = fem.edge_graph(shuffled[mesh.tets].astype(np.int32), mesh.n_nodes)
    order = fem.rcm_order(graph)
    place = np.argsort(order)
    assert (np.sort(order) == np.arange(mesh.n_nodes)).all()
    distance = np.abs(np.diff(place[graph.edges], axis=1)).mean()
    assert distance < 0.3 * np.abs(np.diff(graph.edges, axis=1)).mean()


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.floats(-3.0, 3.0)] * 3), st.integers(0, 1000))
def test_turning_mesh_and_tensor_together_changes_no_weight(rotation_vector, seed):
    mesh = ragged(seed, size=(1.0, 1.0, 0.5))
    tensor = random_tensors(mesh, seed)
    turn = Rotation.from_rotvec(rotation_vector).as_matrix()
    turned = TetMesh(mesh.points @ turn.T + [5.0, -3.0, 2.0], mesh.tets)
    K, K_turned = fem.stiffness(mesh, tensor), fem.stiffness(turned, turn @ tensor @ turn.T)
    # the moved origin costs the digits of |x| / edge, twice
    assert abs(K - K_turned).max() < 1e3 * tolerances.EXACT64 * abs(K).max()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_renumbering_the_nodes_permutes_every_operator(seed):
    mesh = ragged(1, size=(1.0, 1.0, 0.5))
    tensor = random_tensors(mesh)
    order = np.random.default_rng(seed).permutation(mesh.n_nodes)
    renamed = TetMesh(mesh.points[order], np.argsort(order)[mesh.tets])
    K, K_renamed = fem.stiffness(mesh, tensor), fem.stiffness(renamed, tensor)
    assert abs(K[order][:, order] - K_renamed).max() < tolerances.EXACT64 * abs(K).max()
    assert relative(fem.lumped_mass(renamed), fem.lumped_mass(mesh)[order]) < tolerances.EXACT64


@pytest.fixture
def product():
    """The product of a ragged mesh as a function of edge weights and field, in float64."""
    with jax.enable_x64(True):
        mesh = ragged()
        graph = fem.edge_graph(mesh.tets, mesh.n_nodes)
        ell = fem.ell_graph(graph)
        edges = jnp.asarray(fem.stiffness_edges(mesh, graph, random_tensors(mesh)))
        columns = jnp.asarray(ell.columns)

        def apply(edges, v):
            return fem.edge_difference_sum(fem.slot_weights(ell, edges), columns, v)

        rng = np.random.default_rng(4)
        fields = [jnp.asarray(rng.normal(size=mesh.n_nodes)) for _ in range(3)]
        edges_dot = jnp.asarray(rng.normal(size=graph.n_edges))
        yield apply, edges, edges_dot, *fields


def test_forward_derivatives_of_the_product_are_exact(product):
    apply, edges, edges_dot, v, v_dot, _ = product
    _, along_v = jax.jvp(lambda x: apply(edges, x), (v,), (v_dot,))
    _, along_edges = jax.jvp(lambda e: apply(e, v), (edges,), (edges_dot,))
    _, both = jax.jvp(apply, (edges, v), (edges_dot, v_dot))
    # bilinear, so its derivatives are products themselves
    assert relative(along_v, apply(edges, v_dot)) < tolerances.EXACT64
    assert relative(along_edges, apply(edges_dot, v)) < tolerances.EXACT64
    assert relative(both, along_v + along_edges) < tolerances.EXACT64


def test_reverse_derivatives_of_the_product_are_the_adjoints(product):
    apply, edges, edges_dot, v, v_dot, w = product
    _, pull = jax.vjp(apply, edges, v)
    edges_bar, v_bar = pull(w)
    for tangents, adjoint in [
        ((jnp.zeros_like(edges), v_dot), v_bar @ v_dot),
        ((edges_dot, jnp.zeros_like(v)), edges_bar @ edges_dot),
    ]:
        _, image = jax.jvp(apply, (edges, v), tangents)
        forward = image @ w
        size = jnp.linalg.norm(image) * jnp.linalg.norm(w)
        assert abs(forward - adjoint) < tolerances.ADJOINT * size


def test_gradients_of_the_product_can_be_batched(product):
    apply, edges, _, v, v_dot, w = product

    def loss(x):
        return jnp.tanh(apply(edges, x)) @ w

    batch = jnp.stack([v, v_dot, v + v_dot])
    together = jax.vmap(jax.grad(loss))(batch)
    one_by_one = jnp.stack([jax.grad(loss)(x) for x in batch])
    assert relative(together, one_by_one) < tolerances.EXACT64


def test_second_derivatives_of_the_product_in_the_field(product):
    apply, edges, _, v, v_dot, _ = product

    def energy(x):
        return 0.5 * jnp.sum(apply(edges, x) ** 2)

    _, hessian_product = jax.jvp(jax.grad(energy), (v,), (v_dot,))
    assert relative(hessian_product, apply(edges, apply(edges, v_dot))) < tolerances.EXACT64 * 10


def test_neither_the_product_nor_its_gradients_scatter():
    mesh = ragged()
    weights, columns, _ = operator(mesh, dtype=np.float32)
    v = jnp.asarray(mesh.points[:, 0], jnp.float32)

    def loss(weights, v):
        return jnp.sum(fem.edge_difference_sum(weights, columns, v) ** 2)

    text = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(weights, v).compile().as_text()
    assert " gather(" in text
    assert " scatter(" not in text


@pytest.fixture
def definite():
    """A symmetric positive definite system: mass plus stiffness of a ragged mesh, float64."""
    with jax.enable_x64(True):
        mesh = ragged()
        weights, columns, K = operator(mesh, random_tensors(mesh))
        mass = jnp.asarray(fem.lumped_mass(mesh))
        b = jnp.asarray(np.random.default_rng(5).normal(size=mesh.n_nodes))
        yield weights, columns, mass, b, (sp.diags(np.asarray(mass)) + 0.1 * K).tocsc()


@jax.jit
def cg_solution(weights, columns, mass, b, x0):
    def apply(x):
        return mass * x - 0.1 * fem.edge_difference_sum(weights, columns, x)

    diagonal = mass + 0.1 * weights.sum(axis=0)
    return fem.jacobi_cg(apply, diagonal, b, x0, 150)


def test_conjugate_gradients_agree_with_a_direct_solver(definite):
    weights, columns, mass, b, matrix = definite
    exact = spla.spsolve(matrix, np.asarray(b))
    for x0 in (jnp.zeros_like(b), 3.0 + 10.0 * b, jnp.asarray(exact)):
        x = cg_solution(weights, columns, mass, b, x0)
        assert relative(x, exact) < tolerances.SOLVER * tolerances.EXACT64
        assert np.isfinite(x).all()  # also long after the residual has vanished


@pytest.mark.parametrize("guess", [0.0, 5.0])
def test_gradient_through_conjugate_gradients_is_implicit_and_right(definite, guess):
    weights, columns, mass, b, _ = definite
    x0 = guess * (1.0 + b)

    @jax.jit
    def loss(scale, b, x0):
        return jnp.sum(jnp.sin(cg_solution(scale * weights, columns, mass, b, x0)))

    scale_bar, b_bar, guess_bar = jax.grad(loss, argnums=(0, 1, 2))(jnp.asarray(1.0), b, x0)
    along = jnp.asarray(np.random.default_rng(6).normal(size=b.shape))
    h = CENTRAL
    by_b = (loss(1.0, b + h * along, x0) - loss(1.0, b - h * along, x0)) / (2 * h)
    by_scale = (loss(1.0 + h, b, x0) - loss(1.0 - h, b, x0)) / (2 * h)
    assert b_bar @ along == pytest.approx(float(by_b), rel=tolerances.GRAD)
    assert float(scale_bar) == pytest.approx(float(by_scale), rel=tolerances.GRAD)
    assert (guess_bar == 0).all()


def test_largest_eigenvalue_agrees_with_arpack():
    mesh = ragged()
    K, mass = fem.stiffness(mesh, random_tensors(mesh)), fem.lumped_mass(mesh)
    root = sp.diags(mass**-0.5)
    exact = spla.eigsh(root @ K @ root, k=1, which="LA", return_eigenvectors=False)[0]
    value, vector = fem.lambda_max(lambda v: (K @ v) / mass, mesh.n_nodes)
    # Power iteration approaches from below; the docstring promises one per cent.
    assert 0.99 * exact < value < 1.01 * exact
    assert np.linalg.norm(vector) == pytest.approx(1.0)


def test_largest_eigenvalue_of_nothing_is_zero():
    value, _ = fem.lambda_max(lambda v: 0.0 * v, 5)
    assert value == 0.0


def harmonic(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A field with zero divergence of D grad u for D = diag(4, 1, 1), and its gradient."""
    x, y, z = points.T
    b, c = 1.5, 0.5
    k = math.sqrt(b**2 + c**2) / 2.0  # 4 k^2 = b^2 + c^2
    u = np.sinh(k * x) * np.sin(b * y) * np.cos(c * z)
    grad = np.stack(
        [
            k * np.cosh(k * x) * np.sin(b * y) * np.cos(c * z),
            b * np.sinh(k * x) * np.cos(b * y) * np.cos(c * z),
            -c * np.sinh(k * x) * np.sin(b * y) * np.sin(c * z),
        ],
        axis=1,
    )
    return u, grad


# Symmetric quadrature of degree two on a tetrahedron.
_A, _B = 0.5854101966249685, 0.1381966011250105
_QUADRATURE = np.full((4, 4), _B) + (_A - _B) * np.eye(4)


def test_laplace_solver_converges_with_order_two_in_l2_and_one_in_h1():
    l2, h1 = [], []
    for edge in (0.5, 0.25, 0.125, 0.0625):
        mesh = slab((1.0, 1.0, 1.0), edge)
        on_faces = ((mesh.points == 0.0) | (mesh.points == 1.0)).any(axis=1)
        nodes = np.flatnonzero(on_faces)
        values, _ = harmonic(mesh.points[nodes])
        tensor = np.tile(np.diag([4.0, 1.0, 1.0]), (mesh.n_tets, 1, 1))
        u = fem.solve_laplace(mesh, nodes, values, tensor, rtol=1e-10)
        grad, volume = fem.gradients(mesh.points, mesh.tets)
        at = np.einsum("qa,tai->tqi", _QUADRATURE, mesh.points[mesh.tets])
        exact, slope = harmonic(at.reshape(-1, 3))
        found = u[mesh.tets] @ _QUADRATURE.T
        gradient = np.einsum("tai,ta->ti", grad, u[mesh.tets])
        l2.append(np.sqrt((volume / 4) @ ((found - exact.reshape(found.shape)) ** 2).sum(axis=1)))
        misfit = ((gradient[:, None] - slope.reshape(at.shape)) ** 2).sum(axis=(1, 2))
        h1.append(np.sqrt((volume / 4) @ misfit))
    order_l2, order_h1 = (np.log2(np.divide(e[:-1], e[1:]))[1:] for e in (l2, h1))
    assert np.abs(order_l2 - 2).max() < tolerances.ORDER, (order_l2, l2)
    assert np.abs(order_h1 - 1).max() < tolerances.ORDER, (order_h1, h1)


def test_laplace_solver_agrees_with_a_direct_solver_and_lets_no_flux_pass_the_sides():
    mesh = ragged()
    tensor = random_tensors(mesh)
    x = mesh.points[:, 0]
    nodes = np.flatnonzero((x < 0.2) | (x > 1.8))
    values = np.where(x[nodes] < 1, -1.0, 2.0)
    u = fem.solve_laplace(mesh, nodes, values, tensor, rtol=1e-10)
    K = fem.stiffness(mesh, tensor).tocsc()
    free = np.setdiff1d(np.arange(mesh.n_nodes), nodes)
    exact = np.zeros(mesh.n_nodes)
    exact[nodes] = values
    exact[free] = spla.spsolve(K[free][:, free], -(K @ exact)[free])
    assert relative(u, exact) < tolerances.SOLVER * 1e-10 * 1e2  # condition number about 1e2
    assert (u[nodes] == values).all()


def test_laplace_problem_without_given_values_is_refused():
    with pytest.raises(MeshError, match="at least one node"):
        fem.solve_laplace(slab((1.0, 1.0, 1.0), 0.5), np.zeros(0, int), np.zeros(0))


def test_laplace_problem_with_an_orphan_node_is_refused():
    mesh = slab((1.0, 1.0, 1.0), 0.5)
    orphan = TetMesh(np.concatenate([mesh.points, [[9.0, 9.0, 9.0]]]), mesh.tets)
    with pytest.raises(MeshError, match="no tetrahedron"):
        fem.solve_laplace(orphan, np.array([0]), np.array([1.0]))


def test_laplace_problem_with_a_part_that_touches_no_given_value_is_refused():
    mesh = slab((1.0, 1.0, 1.0), 0.5)
    two = TetMesh(
        np.concatenate([mesh.points, mesh.points + 5.0]),
        np.concatenate([mesh.tets, mesh.tets + mesh.n_nodes]),
    )
    with pytest.raises(MeshError, match="part"):
        fem.solve_laplace(two, np.array([0, 5]), np.array([0.0, 1.0]))


def test_laplace_solve_that_cannot_converge_says_so():
    mesh = slab((1.0, 0.5, 0.5), 0.25)
    x = mesh.points[:, 0]
    ends = np.flatnonzero((x == 0) | (x == 1))
    tensor = np.where(np.arange(mesh.n_tets) == 3, np.nan, 1.0)
    with pytest.raises(SolverError, match="without reaching"):
        fem.solve_laplace(mesh, ends, x[ends], tensor)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_flat_tetrahedron_is_named_whatever_the_unit(scale):
    points = scale * np.concatenate([np.eye(4, 3, -1), [[0.3, 0.3, 0.0]]])
    tets = np.array([[0, 1, 2, 3], [0, 1, 2, 4]])
    with pytest.raises(MeshError, match=r"1 tetrahedra have no volume \(first: 1\)"):
        fem.gradients(points, tets)
    fem.gradients(points, tets[:1])


def test_every_edge_appears_once():
    mesh = ragged()
    graph = fem.edge_graph(mesh.tets, mesh.n_nodes)
    pairs = {tuple(sorted(p)) for t in mesh.tets for p in itertools.combinations(t.tolist(), 2)}
    assert graph.n_edges == len(pairs)
    assert {tuple(e) for e in graph.edges.tolist()} == pairs
    local = np.sort(mesh.tets[:, fem.assembly.LOCAL_EDGES], axis=2)
    assert (graph.edges[graph.tet_edges] == local).all()
