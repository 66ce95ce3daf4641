r"""P1 finite elements on tetrahedra: gradients, stiffness and mass, assembled edge by edge.

On linear tetrahedra every symmetric operator with zero row sums is a sum of differences over the
edges, :math:`(K v)_i = \sum_j k_{ij} (v_j - v_i)` with :math:`k_{ij} = -K_{ij}`, so one number an
edge is stored and constants are annihilated exactly.
"""

import equinox as eqx
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from twinheart.errors import MeshError
from twinheart.mesh import TetMesh
from twinheart.mesh.quality import volumes
from twinheart.types import Points, Tets

# The six edges of a tetrahedron as pairs of its local vertices.
LOCAL_EDGES = np.array([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)])


class EdgeGraph(eqx.Module):
    """The edges of a mesh and where each tetrahedron finds its six.

    Parameters
    ----------
    edges : (edge, 2) int array
        Node pairs, lower index first, sorted.
    tet_edges : (tet, 6) int array
        Edge index of each local edge, in the order of `LOCAL_EDGES`.
    n_nodes : int
        Number of nodes of the mesh.
    """

    edges: Int[np.ndarray, "edge 2"]
    tet_edges: Int[np.ndarray, "tet 6"]
    n_nodes: int = eqx.field(static=True)

    @property
    def n_edges(self) -> int:
        """Number of edges."""
        return len(self.edges)


def edge_graph(tets: Tets, n_nodes: int) -> EdgeGraph:
    """Find the unique edges of a tetrahedral mesh.

    Parameters
    ----------
    tets : (tet, 4) int array
        Connectivity.
    n_nodes : int
        Number of nodes.

    Returns
    -------
    EdgeGraph
        Edges sorted by their lower, then their higher node.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.fem import edge_graph
    >>> edge_graph(np.array([[0, 1, 2, 3]]), 4).n_edges
    6
    """
    pairs = tets[:, LOCAL_EDGES].reshape(-1, 2).astype(np.int64)
    keys = pairs.min(axis=1) * n_nodes + pairs.max(axis=1)
    unique, inverse = np.unique(keys, return_inverse=True)
    edges = np.stack([unique // n_nodes, unique % n_nodes], axis=1).astype(np.int32)
    return EdgeGraph(edges, inverse.reshape(-1, 6).astype(np.int32), n_nodes)


def gradients(
    points: Points, tets: Tets
) -> tuple[Float[np.ndarray, "tet 4 3"], Float[np.ndarray, "tet"]]:
    """Gradients of the four barycentric functions of each tetrahedron, and its volume.

    Parameters
    ----------
    points : (node, 3) array
        Coordinates [mm].
    tets : (tet, 4) int array
        Connectivity.

    Returns
    -------
    grad : (tet, 4, 3) array
        Gradients [1/mm]; they sum to zero over the vertices.
    volume : (tet,) array
        Volumes [mm^3], positive.

    Raises
    ------
    MeshError
        If a tetrahedron has zero volume.

    Examples
    --------
    >>> from twinheart.fem import gradients
    >>> from twinheart.mesh.generate import slab
    >>> mesh = slab((1.0, 1.0, 1.0), 0.5)
    >>> grad, volume = gradients(mesh.points, mesh.tets)
    >>> round(float(volume.sum()), 12)
    1.0
    """
    x0 = points[tets[:, 0]]
    a, b, c = (points[tets[:, k]] - x0 for k in (1, 2, 3))
    grad = np.empty((len(tets), 4, 3))
    grad[:, 1], grad[:, 2], grad[:, 3] = np.cross(b, c), np.cross(c, a), np.cross(a, b)
    six_volumes = np.einsum("ti,ti->t", a, grad[:, 1])
    longest = np.sqrt(np.max([np.einsum("ti,ti->t", e, e) for e in (a, b, c)], axis=0, initial=0))
    flat = np.flatnonzero(~(np.abs(six_volumes) > 1e-12 * longest**3))
    if flat.size:
        raise MeshError(
            f"{flat.size} tetrahedra have no volume (first: {flat[0]}), expected solid elements: "
            "repair the mesh (read_mesh removes them) or re-mesh it."
        )
    grad[:, 1:] /= six_volumes[:, None, None]
    grad[:, 0] = -grad[:, 1:].sum(axis=1)
    return grad, np.abs(six_volumes) / 6.0


def tet_stiffness(
    grad: Float[np.ndarray, "tet 4 3"],
    volume: Float[np.ndarray, "tet"],
    tensor: Float[np.ndarray, "tet 3 3"] | Float[np.ndarray, "tet"] | float = 1.0,
) -> Float[np.ndarray, "tet 6"]:
    r"""Edge weights :math:`-V \nabla\lambda_a \cdot D \nabla\lambda_b` of each tetrahedron.

    Parameters
    ----------
    grad, volume
        From `gradients`.
    tensor : (tet, 3, 3) array, (tet,) array or float
        Conductivity or diffusion tensor D (its unit carries over), or an isotropic value.

    Returns
    -------
    (tet, 6) array
        Weights in the order of `LOCAL_EDGES` [unit of D times mm].
    """
    first, second = grad[:, LOCAL_EDGES[:, 0]], grad[:, LOCAL_EDGES[:, 1]]
    tensor = np.asarray(tensor, dtype=np.float64)
    if tensor.ndim == 3:
        flux = np.matmul(second, tensor)  # D is symmetric
        return -volume[:, None] * np.einsum("tei,tei->te", first, flux)
    return -(volume * tensor)[:, None] * np.einsum("tei,tei->te", first, second)


def stiffness_edges(
    mesh: TetMesh,
    graph: EdgeGraph,
    tensor: Float[np.ndarray, "tet 3 3"] | Float[np.ndarray, "tet"] | float = 1.0,
    *,
    chunk: int = 1_000_000,
) -> Float[np.ndarray, "edge"]:
    """Assemble the stiffness as one weight an edge, `chunk` tetrahedra at a time.

    Parameters
    ----------
    mesh : TetMesh
        Tetrahedra [mm].
    graph : EdgeGraph
        From `edge_graph`.
    tensor : (tet, 3, 3) array, (tet,) array or float
        Tensor of each tetrahedron.
    chunk : int
        Tetrahedra handled together: bounds the memory.

    Returns
    -------
    (edge,) array
        ``(K v)_i = sum over edges (i, j) of w (v_j - v_i)`` is minus the stiffness times v.
    """
    weights = np.zeros(graph.n_edges)
    tensor = np.asarray(tensor, dtype=np.float64)
    for start in range(0, mesh.n_tets, chunk):
        part = slice(start, start + chunk)
        grad, volume = gradients(mesh.points, mesh.tets[part])
        local = tet_stiffness(grad, volume, float(tensor) if tensor.ndim == 0 else tensor[part])
        weights += np.bincount(
            graph.tet_edges[part].ravel(), weights=local.ravel(), minlength=graph.n_edges
        )
    return weights


def edges_to_matrix(graph: EdgeGraph, weights: Float[np.ndarray, "edge"]) -> sp.csr_array:
    """Sparse matrix with ``-weights`` off the diagonal and zero row sums (a stiffness matrix).

    Parameters
    ----------
    graph : EdgeGraph
        Edges.
    weights : (edge,) array
        From `stiffness_edges`.

    Returns
    -------
    (node, node) scipy CSR array
        Symmetric.
    """
    i, j = graph.edges.T
    n = graph.n_nodes
    diagonal = np.bincount(i, weights, n) + np.bincount(j, weights, n)
    rows = np.concatenate([i, j, np.arange(n)])
    columns = np.concatenate([j, i, np.arange(n)])
    values = np.concatenate([-weights, -weights, diagonal])
    return sp.coo_array((values, (rows, columns)), shape=(n, n)).tocsr()


def stiffness(
    mesh: TetMesh,
    tensor: Float[np.ndarray, "tet 3 3"] | Float[np.ndarray, "tet"] | float = 1.0,
) -> sp.csr_array:
    r"""Stiffness matrix :math:`K_{ij} = \int \nabla N_i \cdot D \nabla N_j`.

    Parameters
    ----------
    mesh : TetMesh
        Tetrahedra [mm].
    tensor : (tet, 3, 3) array, (tet,) array or float
        D in each tetrahedron.

    Returns
    -------
    (node, node) scipy CSR array
        Symmetric, rows sum to zero.

    Examples
    --------
    >>> from twinheart.fem import stiffness
    >>> from twinheart.mesh.generate import slab
    >>> K = stiffness(slab((1.0, 1.0, 1.0), 0.5))
    >>> bool(abs(K.sum(axis=1)).max() < 1e-12)
    True
    """
    graph = edge_graph(mesh.tets, mesh.n_nodes)
    return edges_to_matrix(graph, stiffness_edges(mesh, graph, tensor))


def lumped_mass(mesh: TetMesh) -> Float[np.ndarray, "node"]:
    """Row sums of the mass matrix: a quarter of the volume of the tetrahedra at each node [mm^3].

    Examples
    --------
    >>> from twinheart.fem import lumped_mass
    >>> from twinheart.mesh.generate import slab
    >>> round(float(lumped_mass(slab((1.0, 1.0, 1.0), 0.5)).sum()), 12)
    1.0
    """
    volume = np.abs(volumes(mesh.points, mesh.tets))
    return np.bincount(mesh.tets.ravel(), np.repeat(volume / 4.0, 4), mesh.n_nodes)


def fullest_kind(
    mesh: TetMesh, kinds: Int[np.ndarray, "tet"], n_kinds: int
) -> Int[np.ndarray, "node"]:
    """Of the kinds of tetrahedra, the one that fills most of each node's surroundings.

    Parameters
    ----------
    mesh : TetMesh
        The mesh.
    kinds : (tet,) int array
        From 0 to `n_kinds` - 1.
    n_kinds : int
        How many there are.

    Returns
    -------
    (node,) int array
        By volume; the lower of two that fill as much.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.fem import fullest_kind
    >>> from twinheart.mesh.generate import slab
    >>> mesh = slab((2.0, 1.0, 1.0), 1.0)
    >>> right = (mesh.points[mesh.tets].mean(axis=1)[:, 0] > 1).astype(int)
    >>> fullest_kind(mesh, right, 2)[mesh.points[:, 0] == 2].tolist()
    [1, 1, 1, 1]
    """
    volume = np.repeat(np.abs(volumes(mesh.points, mesh.tets)), 4)
    share = [
        np.bincount(mesh.tets.ravel(), volume * np.repeat(kinds == k, 4), mesh.n_nodes)
        for k in range(n_kinds)
    ]
    return np.argmax(share, axis=0).astype(np.int32)


def consistent_mass(mesh: TetMesh) -> sp.csr_array:
    r"""Consistent mass matrix :math:`M_{ij} = \int N_i N_j` [mm^3], scipy CSR.

    Examples
    --------
    >>> from twinheart.fem import consistent_mass
    >>> from twinheart.mesh.generate import slab
    >>> round(float(consistent_mass(slab((1.0, 1.0, 1.0), 0.5)).sum()), 12)
    1.0
    """
    _, volume = gradients(mesh.points, mesh.tets)
    local = (np.ones((4, 4)) + np.eye(4)) / 20.0
    values = volume[:, None, None] * local
    rows = np.repeat(mesh.tets, 4, axis=1)
    columns = np.tile(mesh.tets, 4)
    shape = (mesh.n_nodes, mesh.n_nodes)
    return sp.coo_array((values.ravel(), (rows.ravel(), columns.ravel())), shape=shape).tocsr()
