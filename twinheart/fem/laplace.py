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
    matrix = stiffness(mesh, tensor)
    return solve_dirichlet(matrix, dirichlet_nodes, values, rtol=rtol)


def solve_dirichlet(
    matrix: sp.csr_array,
    dirichlet_nodes: Int[np.ndarray, "boundary"],
    values: Float[np.ndarray, "boundary"],
    load: Float[np.ndarray, "node"] | None = None,
    *,
    rtol: float = 1e-8,
) -> Float[np.ndarray, "node"]:
    """Solve ``matrix @ u = load`` on the nodes whose value is not given, by Jacobi-CG.

    Parameters
    ----------
    matrix : (node, node) scipy CSR array
        A stiffness matrix, or one plus something positive; assembled once for several problems.
    dirichlet_nodes, values : (boundary,) arrays
        Where u is given, and what it is there.
    load : (node,) array
        Right-hand side; zero by default.
    rtol : float
        Relative residual at which the conjugate gradients stop.

    Returns
    -------
    (node,) array
        u.

    Raises
    ------
    MeshError, SolverError
        As for `solve_laplace`.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.fem import solve_dirichlet, stiffness
    >>> from twinheart.mesh.generate import slab
    >>> mesh = slab((2.0, 1.0, 1.0), 0.5)
    >>> x = mesh.points[:, 0]
    >>> ends = np.flatnonzero((x == 0.0) | (x == 2.0))
    >>> bool(np.abs(solve_dirichlet(stiffness(mesh), ends, x[ends]) - x).max() < 1e-6)
    True
    """
    dirichlet_nodes = np.asarray(dirichlet_nodes)
    if dirichlet_nodes.size == 0:
        raise MeshError(
            "a Laplace problem needs at least one node with a given value, got none: "
            "check the surface tags."
        )
    u = np.zeros(matrix.diagonal().size)
    u[dirichlet_nodes] = values
    free = np.ones(len(u), dtype=bool)
    free[dirichlet_nodes] = False
    inner = matrix[free][:, free].tocsr()
    diagonal = inner.diagonal()
    if (diagonal <= 0).any():
        raise MeshError(
            f"{int((diagonal <= 0).sum())} nodes belong to no tetrahedron: "
            "remove orphan nodes first (read_mesh does)."
        )
    _, part = sp.csgraph.connected_components(matrix, directed=False)
    floating = np.setdiff1d(part, part[dirichlet_nodes]).size
    if floating:
        raise MeshError(
            f"{floating} separate parts of the mesh touch no node with a given value: "
            "keep the part that does, or give values on every part."
        )
    right = -(matrix @ u)[free] if load is None else (load - matrix @ u)[free]
    preconditioner = sp.diags_array(1.0 / diagonal)
    u[free], info = spla.cg(inner, right, rtol=rtol, maxiter=20 * len(u), M=preconditioner)
    if info != 0:
        raise SolverError(
            f"the Laplace solve stopped after {info} iterations without reaching rtol={rtol:g}: "
            "check the mesh for separate parts without boundary values and for slivers."
        )
    return u
