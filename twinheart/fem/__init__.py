"""Finite elements on tetrahedra: assembly, the edge-difference operator, linear solvers."""

from twinheart.fem.assembly import (
    EdgeGraph,
    consistent_mass,
    edge_graph,
    edges_to_matrix,
    fullest_kind,
    gradients,
    lumped_mass,
    stiffness,
    stiffness_edges,
    tet_stiffness,
)
from twinheart.fem.ell import (
    EllGraph,
    difference_sum,
    edge_difference_sum,
    ell_graph,
    rcm_order,
    slot_weights,
)
from twinheart.fem.laplace import solve_dirichlet, solve_laplace
from twinheart.fem.solve import jacobi_cg, lambda_max
from twinheart.fem.step import balance_mass, explicit_step
from twinheart.fem.trajectory import nodal_gradient, trajectory_length

__all__ = [
    "EdgeGraph",
    "EllGraph",
    "balance_mass",
    "consistent_mass",
    "difference_sum",
    "edge_difference_sum",
    "edge_graph",
    "edges_to_matrix",
    "ell_graph",
    "explicit_step",
    "fullest_kind",
    "gradients",
    "jacobi_cg",
    "lambda_max",
    "lumped_mass",
    "nodal_gradient",
    "rcm_order",
    "slot_weights",
    "solve_dirichlet",
    "solve_laplace",
    "stiffness",
    "stiffness_edges",
    "tet_stiffness",
    "trajectory_length",
]
