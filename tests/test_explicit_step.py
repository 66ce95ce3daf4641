"""Balanced mass and the explicit step: conservation, bounds, theory, and what activation feels."""

import numpy as np
import pytest
from scipy.sparse import diags
from scipy.sparse.linalg import eigsh

import twinheart as th
from twinheart.anatomy.demo import make_demo_mesh
from twinheart.anatomy.load import heart_from_mesh
from twinheart.errors import MeshError
from twinheart.fem import (
    balance_mass,
    edge_graph,
    edges_to_matrix,
    explicit_step,
    lumped_mass,
    stiffness_edges,
)
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import slab
from twinheart.tissue import discrete

# Activation times may change by this [ms].
LAT_CHANGE = 0.3


def _slab_with_small_tets():
    """A slab of which two tetrahedra are split in four each: their centres have stiff rows."""
    mesh = slab((8.0, 8.0, 8.0), 0.5)
    split = [5000, 15000]
    points = np.concatenate([mesh.points, mesh.points[mesh.tets[split]].mean(axis=1)])
    parts = [mesh.tets]
    for k in range(4):
        part = mesh.tets[split].copy()
        part[:, k] = mesh.n_nodes + np.arange(len(split))
        parts.append(part)
    return TetMesh(points, np.delete(np.concatenate(parts), split, axis=0))


def _operators(mesh):
    graph = edge_graph(mesh.tets, mesh.n_nodes)
    weights = stiffness_edges(mesh, graph)
    return graph, weights, lumped_mass(mesh)


def _largest(graph, weights, mass):
    scale = diags(1 / np.sqrt(mass))
    matrix = edges_to_matrix(graph, weights)
    return eigsh(scale @ matrix @ scale, k=1, return_eigenvectors=False)[0]


def test_mass_is_conserved_and_the_step_grows():
    graph, weights, mass = _operators(_slab_with_small_tets())
    balanced = balance_mass(graph, weights, mass)
    assert balanced.sum() == pytest.approx(mass.sum(), rel=1e-14)
    assert _largest(graph, weights, balanced) < 0.6 * _largest(graph, weights, mass)
    assert 0 < (balanced > mass).sum() <= 0.001 * len(mass)
    assert (balanced >= 0.9 * mass).all()


def test_givers_are_neighbours_and_stay_below_the_limit():
    graph, weights, mass = _operators(_slab_with_small_tets())
    balanced = balance_mass(graph, weights, mass)
    first, second = graph.edges.T
    more = balanced > mass
    beside = np.zeros(len(mass), dtype=bool)
    beside[first[more[second]]] = beside[second[more[first]]] = True
    assert beside[balanced < mass].all()
    row = edges_to_matrix(graph, weights).diagonal() / balanced
    assert row.max() == pytest.approx(row[more].max())


def test_regular_meshes_and_nodes_without_mass_are_left_alone():
    graph, weights, mass = _operators(slab((4.0, 4.0, 4.0), 0.5))
    np.testing.assert_array_equal(balance_mass(graph, weights, mass), mass)
    mesh = _slab_with_small_tets()
    padded = TetMesh(np.concatenate([mesh.points, np.zeros((3, 3))]), mesh.tets)
    graph, weights, mass = _operators(padded)
    assert (balance_mass(graph, weights, mass)[-3:] == 0).all()


def test_step_is_two_over_the_largest_eigenvalue():
    mesh = slab((4.0, 4.0, 4.0), 0.5)
    exact = 2 / _largest(*_operators(mesh))
    assert explicit_step(mesh) == pytest.approx(exact, rel=0.02)
    assert explicit_step(mesh, 0.1) == pytest.approx(10 * explicit_step(mesh), rel=1e-12)
    with pytest.raises(MeshError, match="positive number"):
        explicit_step(mesh, -1.0)


@pytest.mark.slow
def test_balanced_mass_changes_no_activation_time_that_matters(monkeypatch):
    heart = heart_from_mesh(make_demo_mesh(2.0))[0]
    maps = []
    for change in (discrete.balance_mass, lambda graph, weights, lumped: lumped):
        monkeypatch.setattr(discrete, "balance_mass", change)
        maps.append(th.simulate(th.Twin(heart), th.pace("apex"), t_end=150.0).lat)
    assert np.isfinite(maps).all()
    assert np.abs(maps[0] - maps[1]).max() < LAT_CHANGE
