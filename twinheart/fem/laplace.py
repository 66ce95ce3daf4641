r"""Laplace problems :math:`\nabla \cdot D \nabla u = 0` with given values on some nodes."""

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from jaxtyping import Float, Int

from twinheart.errors import MeshError, SolverError
from twinheart.fem.assembly import stiffness
from twinheart.mesh import TetMesh


def solve_laplace(
    mesh: TetMesh,
    dirichlet_nodes: Int[np.ndarray, "boundary"],
    values: Float[np.ndarray, "boundary"],
    tensor: Float[np.ndarray, "tet 3 3"] | Float[np.ndarray, "tet"] | float = 1.0,
    *,
    rtol: float = 1e-8,
) -> Float[np.ndarray, "node"]:
    r"""Solve :math:`\nabla \cdot D \nabla u = 0`, u given on some nodes, no flux elsewhere.

    Parameters
    ----------
    mesh : TetMesh
        Tetrahedra [mm].
    dirichlet_nodes : (boundary,) int array
        Nodes where u is given.
    values : (boundary,) array
        The values there.
    tensor : (tet, 3, 3) array, (tet,) array or float
        D; only its ratios matter.
    rtol : float
        Relative residual at which the conjugate gradients stop.

    Returns
    -------
    (node,) array
        u, in the unit of `values`.

    Raises
    ------
    MeshError
        If no node is given a value, or a part of the mesh touches none of them.
    SolverError
        If the conjugate gradients do not converge.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.fem import solve_laplace
    >>> from twinheart.mesh.generate import slab
    >>> mesh = slab((2.0, 1.0, 1.0), 0.5)
    >>> x = mesh.points[:, 0]
    >>> ends = np.flatnonzero((x == 0.0) | (x == 2.0))
    >>> u = solve_laplace(mesh, ends, x[ends])
    >>> bool(np.abs(u - x).max() < 1e-6)
    True
    """
    dirichlet_nodes = np.asarray(dirichlet_nodes)
    if dirichlet_nodes.size == 0:
        raise MeshError(
            "a Laplace problem needs at least one node with a given value, got none: "
            "check the surface tags."
        )
    K = stiffness(mesh, tensor)
    u = np.zeros(mesh.n_nodes)
    u[dirichlet_nodes] = values
    free = np.ones(mesh.n_nodes, dtype=bool)
    free[dirichlet_nodes] = False
    inner = K[free][:, free].tocsr()
    diagonal = inner.diagonal()
    if (diagonal <= 0).any():
        raise MeshError(
            f"{int((diagonal <= 0).sum())} nodes belong to no tetrahedron: "
            "remove orphan nodes first (read_mesh does)."
        )
    _, part = sp.csgraph.connected_components(K, directed=False)
    floating = np.setdiff1d(part, part[dirichlet_nodes]).size
    if floating:
        raise MeshError(
            f"{floating} separate parts of the mesh touch no node with a given value: "
            "keep the part that does, or give values on every part."
        )
    preconditioner = sp.diags_array(1.0 / diagonal)
    u[free], info = spla.cg(
        inner, -(K @ u)[free], rtol=rtol, maxiter=20 * mesh.n_nodes, M=preconditioner
    )
    if info != 0:
        raise SolverError(
            f"the Laplace solve stopped after {info} iterations without reaching rtol={rtol:g}: "
            "check the mesh for separate parts without boundary values and for slivers."
        )
    return u
