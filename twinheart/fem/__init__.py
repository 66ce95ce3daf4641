"""Finite elements on tetrahedra: assembly, the edge-difference operator, linear solvers."""

from twinheart.fem.assembly import (
    EdgeGraph,
    consistent_mass,
    edge_graph,
    edges_to_matrix,
    gradients,
    lumped_mass,
    stiffness,
    stiffness_edges,
)
from twinheart.fem.laplace import solve_laplace

__all__ = [
    "EdgeGraph",
    "consistent_mass",
    "edge_graph",
    "edges_to_matrix",
    "gradients",
    "lumped_mass",
    "solve_laplace",
    "stiffness",
    "stiffness_edges",
]
