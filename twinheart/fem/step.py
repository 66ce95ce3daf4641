"""The step that explicit diffusion allows on a mesh, and the few rows that limit it."""

import numpy as np
from jaxtyping import Float

from twinheart.errors import MeshError
from twinheart.fem.assembly import (
    EdgeGraph,
    edge_graph,
    edges_to_matrix,
    lumped_mass,
    stiffness_edges,
)
from twinheart.fem.solve import lambda_max
from twinheart.mesh import TetMesh

# Rows stiffer than this many medians are relieved, but no larger share of all rows ...
_STIFF, _SHARE = 2.5, 0.001
# ... by at most this share of a neighbour's mass: its consistent mass stays positive (below 1/5).
_GIVEN = 0.1


def balance_mass(
    graph: EdgeGraph, weights: Float[np.ndarray, "edge"], lumped: Float[np.ndarray, "node"]
) -> Float[np.ndarray, "node"]:
    r"""Give the few nodes that limit the explicit step some of their neighbours' mass.

    The largest eigenvalue of :math:`M_L^{-1} K` is governed by the largest :math:`K_{ii} / M_{ii}`,
    which a single small tetrahedron raises. The stiffest rows, at most one of a thousand, are
    lowered to the level of the next one, or to 2.5 times the median. Total mass is conserved, so
    neither charge nor the velocity of a front changes but by the small shift of the nodes' shares.

    Parameters
    ----------
    graph : EdgeGraph
        Edges of the mesh.
    weights : (edge,) array
        Stiffness for unit diffusivity (see `stiffness_edges`) [mm].
    lumped : (node,) array
        Lumped mass [mm^3]; nodes without mass are left alone.

    Returns
    -------
    (node,) array
        Lumped mass [mm^3] with the same sum. On a mesh without such rows it is the same.

    References
    ----------
    Selective mass scaling: Olovsson, Simonsson & Unosson, Int. J. Numer. Meth. Engng 63 (2005),
    doi:10.1002/nme.1293.

    Examples
    --------
    >>> from twinheart.fem import balance_mass, edge_graph, lumped_mass, stiffness_edges
    >>> from twinheart.mesh.generate import slab
    >>> mesh = slab((2.0, 1.0, 1.0), 0.5)
    >>> graph, mass = edge_graph(mesh.tets, mesh.n_nodes), lumped_mass(mesh)
    >>> bool((balance_mass(graph, stiffness_edges(mesh, graph), mass) == mass).all())
    True
    """
    n = graph.n_nodes
    first, second = graph.edges[:, 0], graph.edges[:, 1]
    diagonal = np.bincount(first, weights, n) + np.bincount(second, weights, n)
    row = np.divide(diagonal, lumped, out=np.zeros(n), where=lumped > 0)
    in_mesh = row[lumped > 0]
    if len(in_mesh) == 0:
        return lumped
    n_most = int(_SHARE * len(in_mesh))
    next_one = np.partition(in_mesh, len(in_mesh) - 1 - n_most)[len(in_mesh) - 1 - n_most]
    limit = max(_STIFF * float(np.median(in_mesh)), float(next_one))
    stiff = row > limit
    if not stiff.any():
        return lumped
    # each neighbour offers what it can spare in equal parts to the stiff nodes beside it
    receiver = np.concatenate([first[stiff[first]], second[stiff[second]]])
    giver = np.concatenate([second[stiff[first]], first[stiff[second]]])
    can_give = ~stiff[giver]
    receiver, giver = receiver[can_give], giver[can_give]
    spare = np.clip(lumped - diagonal / limit, 0.0, _GIVEN * lumped)
    offer = spare[giver] / np.bincount(giver, minlength=n)[giver]
    offered = np.bincount(receiver, offer, n)
    wanted = np.where(stiff, diagonal / limit - lumped, 0.0)
    share = np.minimum(np.divide(wanted, offered, out=np.zeros(n), where=offered > 0), 1.0)
    given = share[receiver] * offer
    return lumped + np.bincount(receiver, given, n) - np.bincount(giver, given, n)


def explicit_step(mesh: TetMesh, diffusivity: float = 1.0) -> float:
    r"""Longest stable step [ms] of forward Euler for isotropic diffusion on a mesh.

    .. math:: \Delta t = 2 / \lambda_{max}(M_L^{-1} K)

    with the lumped mass balanced as in the solver (`balance_mass`). The engine takes longer steps
    with Chebyshev stages, whose number grows with the square root of what is missing.

    Parameters
    ----------
    mesh : TetMesh
        Tetrahedra [mm].
    diffusivity : float
        D [mm^2/ms]; a ventricle's along the fibres is about 0.1.

    Returns
    -------
    float
        Step [ms].

    Raises
    ------
    MeshError
        If a tetrahedron has no volume, or the diffusivity is not positive.

    Examples
    --------
    >>> from twinheart.fem import explicit_step
    >>> from twinheart.mesh.generate import slab
    >>> round(explicit_step(slab((4.0, 4.0, 4.0), 0.5)), 3)
    0.04
    """
    if not (np.isfinite(diffusivity) and diffusivity > 0):
        raise MeshError(f"diffusivity is {diffusivity} mm^2/ms, expected a positive number.")
    graph = edge_graph(mesh.tets, mesh.n_nodes)
    weights = stiffness_edges(mesh, graph)
    mass = balance_mass(graph, weights, lumped_mass(mesh))
    matrix = edges_to_matrix(graph, weights)
    inverse = np.divide(1.0, mass, out=np.zeros_like(mass), where=mass > 0)
    return 2.0 / (diffusivity * lambda_max(lambda v: inverse * (matrix @ v), len(mass))[0])
