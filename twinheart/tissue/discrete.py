"""The discrete tissue: nodes in memory order, diffusion and mass as weights on edges."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from twinheart.anatomy import Heart
from twinheart.fem import (
    EdgeGraph,
    EllGraph,
    balance_mass,
    difference_sum,
    edge_difference_sum,
    edge_graph,
    edges_to_matrix,
    ell_graph,
    gradients,
    lambda_max,
    rcm_order,
    slot_weights,
    tet_stiffness,
)
from twinheart.mesh import TetMesh
from twinheart.tissue.conductivity import fibre_frame
from twinheart.tissue.halo import Halo
from twinheart.types import Array


class DiffusionBasis(eqx.Module):
    """Edge weights as a linear function of each region's diffusivities.

    Parameters
    ----------
    edge, region : (entry,) int arrays
        Edge and region index of each entry, sorted by edge.
    geometry : (entry, 3) float64 array
        Weight per unit of diffusivity along fibre, sheet and normal [mm].
    n_edges : int
        Number of edges.
    """

    edge: Int[Array, "entry"]
    region: Int[Array, "entry"]
    geometry: Float[Array, "entry 3"]
    n_edges: int = eqx.field(static=True)

    def edge_weights(self, diffusivity: Float[Array, "region 3"]) -> Float[Array, "edge"]:
        """Weights for these diffusivities [mm^2/ms]: numpy in float64, or jax, differentiable."""
        if isinstance(diffusivity, np.ndarray):
            terms = (self.geometry * diffusivity[self.region]).sum(axis=1)
            return np.bincount(self.edge, terms, self.n_edges)
        terms = (jnp.asarray(self.geometry, diffusivity.dtype) * diffusivity[self.region]).sum(1)
        return jax.ops.segment_sum(terms, self.edge, self.n_edges, indices_are_sorted=True)


class Tissue(eqx.Module):
    r"""A mesh made ready for the time loop.

    Nodes are renumbered: grouped by cell model, in reverse Cuthill-McKee order within a group, and
    each group may end in isolated nodes that round its length (see `assemble`). Weights and masses
    are in the precision of the computation, set-up ran in float64.

    Parameters
    ----------
    columns : (slot, node) int array
        Neighbours (see `EllGraph`).
    diffusion : (slot, node) array
        Stiffness weights, :math:`M_L \dot v = \sum_k w_k (v_{c_k} - v)` [mm^3/ms].
    spread : (slot, node) array
        Mass that an element passes between its nodes [mm^3]: weights of :math:`M_L E` (see
        `twinheart.tissue.scheme`).
    lumped : (node,) array
        Lumped mass [mm^3].
    order : (node,) int array
        Mesh node of each node of the computation; padding repeats one of its group.
    place : (mesh_node,) int array
        Where each mesh node lies in the computation.
    halo : Halo, optional
        Of one part of a tissue that is spread over devices (see `twinheart.tissue.partition`).
    """

    columns: Int[Array, "slot node"]
    diffusion: Float[Array, "slot node"]
    spread: Float[Array, "slot node"]
    lumped: Float[Array, "node"]
    order: Int[np.ndarray, "node"]
    place: Int[np.ndarray, "mesh_node"]
    halo: Halo | None = None

    @property
    def n_nodes(self) -> int:
        """Number of nodes of the computation, padding included."""
        return self.lumped.shape[0]

    @property
    def n_mesh_nodes(self) -> int:
        """Number of nodes of the mesh."""
        return len(self.place)

    def product(
        self, weights: Float[Array, "slot node"], v: Float[Array, "node"]
    ) -> Float[Array, "node"]:
        """Weighted sum of the differences to the neighbours, wherever these are."""
        if self.halo is None:
            return edge_difference_sum(weights, self.columns, v)
        return difference_sum(weights, self.columns, v, self.halo.around(v))

    def to_mesh_order(self, values: Array) -> np.ndarray:
        """Rearrange (..., node) values of the computation to the order of the mesh."""
        return np.asarray(values)[..., self.place]


class Strands(eqx.Module):
    """One-dimensional tissue beside the mesh: a Purkinje tree and its junctions with the muscle.

    Its nodes follow those of the mesh. In tables with one row a region tag, such as the
    diffusivities, two rows follow: the strands (diffusivity in the first column) and the junctions
    (conductance over capacitance, [mm^3/ms], in the first column).

    Parameters
    ----------
    points : (strand_node, 3) array
        Nodes [mm].
    links : (link, 2) int array
        Pairs of nodes; strands first, each pair once.
    is_junction : (link,) bool array
        Which links join a strand to the muscle.
    geometry : (link,) array
        Cross-section over length [mm] of a strand, share of its junction of a junction.
    mass : (link,) array
        Off-diagonal consistent mass [mm^3]; zero for junctions.
    lumped : (strand_node,) array
        Lumped mass [mm^3].
    """

    points: Float[np.ndarray, "strand_node 3"]
    links: Int[np.ndarray, "link 2"]
    is_junction: Bool[np.ndarray, "link"]
    geometry: Float[np.ndarray, "link"]
    mass: Float[np.ndarray, "link"]
    lumped: Float[np.ndarray, "strand_node"]


class Assembly(eqx.Module):
    """What set-up keeps beside the `Tissue`: graphs and bases in float64, on the host.

    `place` holds the nodes of the mesh, then the `n_strand_nodes` of the strands.
    """

    graph: EdgeGraph
    ell: EllGraph
    basis: DiffusionBasis
    mass_edges: Float[np.ndarray, "edge"]
    round_edges: Float[np.ndarray, "edge"]
    lumped: Float[np.ndarray, "node"]
    order: Int[np.ndarray, "node"]
    place: Int[np.ndarray, "mesh_node"]
    tags: tuple[int, ...] = eqx.field(static=True)
    n_strand_nodes: int = eqx.field(default=0, static=True)

    def to_node_order(self, values: np.ndarray) -> np.ndarray:
        """Rearrange (..., mesh_node) values to the order of the computation.

        They may go on over the nodes of the strands, and are 0 there if they don't, as they are in
        the padding.
        """
        if values.shape[-1] < len(self.place):
            absent = len(self.place) - values.shape[-1]
            values = np.concatenate(
                [values, np.zeros((*values.shape[:-1], absent), values.dtype)], axis=-1
            )
        return np.where(_is_padding(self.order, self.place), 0, values[..., self.order])

    def tissue(
        self, diffusivity: Float[Array, "region 3"], *, consistent: bool = False, dtype=np.float32
    ) -> Tissue:
        """Discrete tissue with these diffusivities [mm^2/ms], one row a region tag.

        With a JAX array the diffusion weights can be differentiated with respect to it.
        `consistent` takes the consistent mass matrix itself as `Tissue.spread`, else its rounded
        form.
        """
        spread = self.mass_edges if consistent else self.round_edges
        weights = slot_weights(self.ell, self.basis.edge_weights(diffusivity))
        return Tissue(
            columns=jnp.asarray(self.ell.columns),
            diffusion=jnp.asarray(weights, dtype=dtype),
            spread=jnp.asarray(slot_weights(self.ell, spread), dtype=dtype),
            lumped=jnp.asarray(self.lumped, dtype=dtype),
            order=self.order,
            place=self.place[: len(self.place) - self.n_strand_nodes],
        )

    def stiffest(self, diffusivity: Float[np.ndarray, "region 3"]) -> tuple[float, int]:
        """Largest eigenvalue of the diffusion [1/ms] and the node where it sits.

        It bounds the explicit step, dt < 2 / lambda; one sliver is enough to make it huge.
        """
        matrix = edges_to_matrix(self.graph, np.asarray(self.basis.edge_weights(diffusivity)))
        value, vector = lambda_max(lambda v: (matrix @ v) / self.lumped, len(self.lumped))
        return value, int(self.order[np.abs(vector).argmax()])


def assemble(
    heart: Heart,
    node_group: Int[np.ndarray, "node"] | None = None,
    *,
    smoothing: Float[np.ndarray, "region 3"] | float = 1.0,
    strands: Strands | None = None,
    conducting: Bool[np.ndarray, "tet"] | None = None,
    pad: bool = False,
) -> Assembly:
    """Prepare a heart: order the nodes, find the edges, integrate over the tetrahedra.

    Parameters
    ----------
    heart : Heart
        Mesh, fibres and regions.
    node_group : (node,) int array, optional
        Group of each node (its cell model), strands included; groups become contiguous.
    smoothing : (region, 3) array or float
        Weights of the rounded mass along fibre, sheet and normal, region tags ascending.
    strands : Strands, optional
        One-dimensional tissue coupled to the mesh; `smoothing` then has their two rows as well.
    conducting : (tet,) bool array, optional
        Where there is living tissue; the rest has no mass and must have no diffusivity.
    pad : bool
        End each group in isolated nodes, at most 63 or 2 % of it, so that its length divides evenly
        among vector lanes and cores: XLA cuts loops over the nodes into equal parts for the cores
        of a CPU and does not vectorise uneven ones, which then cost six times as much.

    Returns
    -------
    Assembly
        Everything geometric; `Assembly.tissue` adds the diffusivities.
    """
    points = heart.mesh.points
    if strands is not None:
        points = np.concatenate([points, strands.points])
    order = rcm_order(_linked(edge_graph(heart.mesh.tets, len(points)), strands))
    groups = [order] if node_group is None else _grouped(order, node_group[order])
    order = np.concatenate([_padded(group) for group in groups] if pad else groups)
    _, place = np.unique(order, return_index=True)
    mesh = TetMesh(points[order], place[heart.mesh.tets])
    graph = edge_graph(mesh.tets, mesh.n_nodes)
    tags, region = np.unique(heart.regions, return_inverse=True)
    smoothing = np.asarray(smoothing)
    parts = _integrate(mesh, graph, fibre_frame(heart), region.ravel(), smoothing, conducting)
    if strands is not None:
        graph = _linked(graph, strands, place)
        parts = _with_strands(parts, strands, len(tags), smoothing)
        parts[-1][place[heart.mesh.n_nodes :]] = strands.lumped
    basis, mass_edges, round_edges, lumped = parts
    lumped[lumped == 0] = 1.0  # padding, and what lies within tissue that does not conduct
    tags = tuple(int(t) for t in tags)
    ell = ell_graph(graph)
    added = 0 if strands is None else len(strands.points)
    return Assembly(graph, ell, basis, mass_edges, round_edges, lumped, order, place, tags, added)


def _linked(graph: EdgeGraph, strands: Strands | None, place=None) -> EdgeGraph:
    """The graph with the links of the strands behind its edges."""
    if strands is None:
        return graph
    links = strands.links if place is None else place[strands.links]
    edges = np.concatenate([graph.edges, np.sort(links, axis=1).astype(graph.edges.dtype)])
    return EdgeGraph(edges, graph.tet_edges, graph.n_nodes)


def _with_strands(parts, strands: Strands, n_regions: int, smoothing):
    """Basis and masses with entries for the links of the strands."""
    basis, mass_edges, round_edges, lumped = parts
    n_links = len(strands.links)
    geometry = np.zeros((n_links, 3))
    geometry[:, 0] = strands.geometry
    first = np.arange(basis.n_edges, basis.n_edges + n_links, dtype=np.int32)
    row = np.where(strands.is_junction, n_regions + 1, n_regions).astype(np.int32)
    basis = DiffusionBasis(
        np.concatenate([basis.edge, first]),
        np.concatenate([basis.region, row]),
        np.concatenate([basis.geometry, geometry]),
        basis.n_edges + n_links,
    )
    own = np.broadcast_to(smoothing, (n_regions + 2, 3))[row, 0]
    return (
        basis,
        np.concatenate([mass_edges, strands.mass]),
        np.concatenate([round_edges, own * strands.mass]),
        lumped,
    )


def _grouped(order, group) -> list[np.ndarray]:
    return [order[group == k] for k in np.unique(group)]


def padded_length(n: int) -> int:
    """The next multiple of 64 times a power of two: at most 63 or 2 % more than n.

    Examples
    --------
    >>> from twinheart.tissue.discrete import padded_length
    >>> padded_length(65), padded_length(100_000)
    (128, 100352)
    """
    multiple = 64
    while 100 * multiple <= n and multiple < 8192:
        multiple *= 2
    return n + -n % multiple


def _padded(order):
    """The group with its last node repeated up to its padded length."""
    return np.concatenate([order, np.full(padded_length(len(order)) - len(order), order[-1])])


def _is_padding(order, place):
    return place[order] != np.arange(len(order))


def _integrate(mesh, graph, frame, region, smoothing, conducting, chunk=500_000):
    """Sum over the tetrahedra, a chunk at a time: diffusion basis, two masses on edges, lumped."""
    n_regions = int(region.max(initial=0)) + 1
    if smoothing.ndim:
        smoothing = smoothing[:n_regions]
    smoothing = np.broadcast_to(smoothing, (n_regions, 3))
    # An entry of the basis is an (edge, region) pair; nearly every edge lies in one region only.
    keys = graph.tet_edges.astype(np.int64) * n_regions + region[:, None]
    pairs, entry = np.unique(keys, return_inverse=True)
    entry = entry.reshape(keys.shape)
    geometry = np.zeros((len(pairs), 3))
    mass_edges, round_edges = np.zeros(graph.n_edges), np.zeros(graph.n_edges)
    lumped = np.zeros(mesh.n_nodes)
    for start in range(0, mesh.n_tets, chunk):
        part = slice(start, start + chunk)
        grad, volume = gradients(mesh.points, mesh.tets[part])
        for axis, projector in enumerate(frame):
            local = tet_stiffness(grad, volume, projector[part])
            geometry[:, axis] += np.bincount(entry[part].ravel(), local.ravel(), len(pairs))
        if conducting is not None:
            volume = volume * conducting[part]
        found = graph.tet_edges[part].ravel()
        mass_edges += np.bincount(found, np.repeat(volume / 20.0, 6), graph.n_edges)
        root = sum(
            np.sqrt(smoothing[region[part], axis])[:, None, None] * projector[part]
            for axis, projector in enumerate(frame)
        )
        moment = root @ rounded_moment(mesh.points[mesh.tets[part]]) @ root
        rounded = tet_stiffness(grad, volume, moment / 5.0)
        round_edges += np.bincount(found, rounded.ravel(), graph.n_edges)
        lumped += np.bincount(mesh.tets[part].ravel(), np.repeat(volume / 4.0, 4), mesh.n_nodes)
    basis = DiffusionBasis(
        (pairs // n_regions).astype(np.int32),
        (pairs % n_regions).astype(np.int32),
        geometry,
        graph.n_edges,
    )
    weights = np.bincount(pairs // n_regions, geometry.sum(axis=1), graph.n_edges)
    return basis, mass_edges, round_edges, balance_mass(graph, weights, lumped)


# How far the rounded moment may exceed the element's own: bounds the eigenvalues of E by 1.6.
_ROUNDNESS = 2.0


def rounded_moment(vertices: Float[np.ndarray, "tet 4 3"]) -> Float[np.ndarray, "tet 3 3"]:
    r"""Second moment of each tetrahedron's vertices, made as isotropic as its shape allows.

    The difference between lumped and consistent mass is a diffusion, exactly:
    :math:`M_L - M_C = \sum_T K_T[S_T/5]` with :math:`S_T = \sum_a (x_a - ar x)(x_a - ar x)^T`.
    On a regular six-tet mesh S is long along the cube's diagonal, so waves along that diagonal
    would run ahead. Here every principal value becomes the mean of the three, but at most twice
    itself, which keeps the operator bounded on flat elements.

    Parameters
    ----------
    vertices : (tet, 4, 3) array
        Coordinates [mm].

    Returns
    -------
    (tet, 3, 3) array
        Symmetric tensors [mm^2].
    """
    centred = vertices - vertices.mean(axis=1, keepdims=True)
    value, axes = np.linalg.eigh(np.einsum("tai,taj->tij", centred, centred))
    value = np.minimum(value.mean(axis=1, keepdims=True), _ROUNDNESS * value)
    return np.einsum("tik,tk,tjk->tij", axes, value, axes)


def assemble_cable(n_nodes: int, edge: float) -> Assembly:
    """A one-dimensional cable of linear elements, the testbed of conduction velocity.

    A plane wave along an axis of a regular six-tet mesh obeys the same difference equations.

    Parameters
    ----------
    n_nodes : int
        Number of nodes.
    edge : float
        Node spacing [mm].

    Returns
    -------
    Assembly
        With one region; its diffusivity along the fibre is the cable's.
    """
    nodes = np.arange(n_nodes)
    graph = EdgeGraph(
        np.stack([nodes[:-1], nodes[1:]], axis=1), np.zeros((0, 6), np.int32), n_nodes
    )
    geometry = np.zeros((n_nodes - 1, 3))
    geometry[:, 0] = 1.0 / edge
    first = np.arange(n_nodes - 1, dtype=np.int32)
    basis = DiffusionBasis(first, np.zeros_like(first), geometry, n_nodes - 1)
    lumped = np.full(n_nodes, edge)
    lumped[[0, -1]] /= 2.0
    mass_edges = np.full(n_nodes - 1, edge / 6.0)
    ell = ell_graph(graph)
    return Assembly(graph, ell, basis, mass_edges, mass_edges, lumped, nodes, nodes, (0,))
