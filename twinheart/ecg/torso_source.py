r"""The heart as a source in a torso: how its transmembrane voltage drives current there.

The tetrahedra of the heart are a part of the torso's, or have a mesh of their own, as fine as
propagation needs, while the torso's is as coarse as a potential allows. In both cases

.. math:: K \phi = S V_m, \qquad \phi(x_e) = Z_e^T S V_m, \qquad
          S = -\sum_i D_i^T F_i,

with :math:`F_i` from voltages to the components of :math:`\sigma_i \nabla V_m` times volume in each
tetrahedron of the heart, and :math:`D_i` from potentials of the torso to their slopes there.
"""

import equinox as eqx
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from twinheart.anatomy.torso import TorsoRegion
from twinheart.anatomy.transfer import Places, places_of_points
from twinheart.ecg.torso_field import VolumeConductor, gradient_recovery
from twinheart.errors import InputError, ModelError
from twinheart.fem.assembly import gradients
from twinheart.mesh import TetMesh

TRANSFERS = ("recovered", "interpolated")
_SAME_NODE = 1e-5  # share of the heart's extent within which two nodes are one
_AXES = range(3)


class Source(eqx.Module):
    r"""The map from V_m to currents in the torso, in factors.

    Parameters
    ----------
    flux : three (tet, node) CSR arrays
        Volume times the components of :math:`\sigma_i \nabla V_m` in the heart.
    slope : three pairs of CSR arrays, (tet, between) and (between, torso_node)
        The product of a pair is the slope of a potential of the torso in the heart's tetrahedra.
    n_nodes, n_torso_nodes : int
        Sizes.
    conforming : bool
        Whether the heart's tetrahedra are tetrahedra of the torso.
    """

    flux: tuple[sp.csr_array, ...]
    slope: tuple[tuple[sp.csr_array, sp.csr_array], ...]
    n_nodes: int = eqx.field(static=True)
    n_torso_nodes: int = eqx.field(static=True)
    conforming: bool = eqx.field(static=True)

    def currents(self, vm: Float[np.ndarray, "node time"]) -> Float[np.ndarray, "torso_node time"]:
        """Currents [uA] that voltages of the heart [mV] drive into the nodes of the torso."""
        total = np.zeros((self.n_torso_nodes, vm.shape[1]))
        for flux, (left, right) in zip(self.flux, self.slope, strict=True):
            total -= right.T @ (left.T @ (flux @ vm))
        return total

    def weights(
        self, potential: Float[np.ndarray, "electrode torso_node"]
    ) -> Float[np.ndarray, "electrode node"]:
        """Weights of the heart's nodes for electrodes with these fields [mV/uA]."""
        total = np.zeros((self.n_nodes, len(potential)))
        for flux, (left, right) in zip(self.flux, self.slope, strict=True):
            total -= flux.T @ (left @ (right @ potential.T))
        return np.ascontiguousarray(total.T)

    def shares(
        self, potential: Float[np.ndarray, "electrode torso_node"]
    ) -> Float[np.ndarray, "electrode tet 4"]:
        """The same before they are summed over elements (see `lead_shares`)."""
        n_tets = len(self.flux[0].indptr) - 1
        total = np.zeros((len(potential), n_tets, 4))
        for flux, (left, right) in zip(self.flux, self.slope, strict=True):
            slope = np.asarray(left @ (right @ potential.T))
            total -= slope.T[:, :, None] * flux.data.reshape(-1, 4)
        return total


def torso_source(
    conductor: VolumeConductor,
    heart: TetMesh,
    sigma_i: Float[np.ndarray, "tet 3 3"],
    *,
    transfer: str = "recovered",
) -> Source:
    """How the voltage of a heart drives current in a torso.

    Parameters
    ----------
    conductor : VolumeConductor
        The torso, with the heart as a part of it.
    heart : TetMesh
        Its nodes carry V_m [mm].
    sigma_i : (tet, 3, 3) array
        Intracellular conductivity [S/m].
    transfer : {"recovered", "interpolated"}
        How slopes of the torso's potentials come onto a heart with a mesh of its own: as gradients
        averaged at the torso's nodes and interpolated at the centre of each tetrahedron (more
        accurate where the torso is the coarser mesh), or as differences of the potentials
        interpolated at the heart's nodes. A heart whose tetrahedra are the torso's needs neither.

    Returns
    -------
    Source
        In matrices; constant voltages drive no current.

    Raises
    ------
    InputError
        If `transfer` is not one of the two.
    ModelError
        If `sigma_i` has the wrong shape.
    """
    if transfer not in TRANSFERS:
        raise InputError(f"transfer is '{transfer}', expected one of {', '.join(TRANSFERS)}.")
    if np.shape(sigma_i) != (heart.n_tets, 3, 3):
        raise ModelError(
            f"sigma_i has shape {np.shape(sigma_i)}, expected ({heart.n_tets}, 3, 3): one tensor "
            "for each tetrahedron of the heart."
        )
    grad, volume = gradients(heart.points, heart.tets)
    through = np.einsum("t,tij,tkj->itk", volume, sigma_i, grad, optimize=True)
    flux = tuple(_rows(through[i], heart.tets, heart.n_nodes) for i in _AXES)
    torso = conductor.mesh
    sizes = (heart.n_nodes, torso.n_nodes)
    same = shared_nodes(torso, heart)
    if same is not None:
        identity = sp.csr_array(sp.eye_array(torso.n_nodes))
        local = (_rows(grad[..., i], same[heart.tets], torso.n_nodes) for i in _AXES)
        return Source(flux, tuple((part, identity) for part in local), *sizes, True)
    if transfer == "interpolated":
        at = _in_heart(conductor, heart.points)
        between = _rows(at.weights, at.nodes, torso.n_nodes)
        slopes = (_rows(grad[..., i], heart.tets, heart.n_nodes) for i in _AXES)
        return Source(flux, tuple((slope, between) for slope in slopes), *sizes, False)
    inside = conductor.region == TorsoRegion.HEART
    part = TetMesh(torso.points, torso.tets[inside] if inside.any() else torso.tets)
    at = _in_heart(conductor, heart.points[heart.tets].mean(axis=1))
    centres = _rows(at.weights, at.nodes, torso.n_nodes)
    recovered = gradient_recovery(part)
    return Source(flux, tuple((centres, slope) for slope in recovered), *sizes, False)


def shared_nodes(torso: TetMesh, heart: TetMesh) -> Int[np.ndarray, "node"] | None:
    """Nodes of the torso that are those of the heart, if the heart is part of it, else None.

    Parameters
    ----------
    torso, heart : TetMesh
        The meshes [mm].

    Returns
    -------
    (node,) int array or None
        One for each node of the heart.

    Examples
    --------
    >>> from twinheart.ecg.torso_source import shared_nodes
    >>> from twinheart.mesh.generate import slab
    >>> mesh = slab((2.0, 1.0, 1.0), 0.5)
    >>> bool((shared_nodes(mesh, mesh) == range(mesh.n_nodes)).all())
    True
    """
    used = np.unique(heart.tets)
    near = _SAME_NODE * float(np.ptp(heart.points[used], axis=0).max())
    found = KDTree(torso.points).query(heart.points)
    distance, nodes = np.asarray(found[0]), np.asarray(found[1])
    if distance[used].max() > near:
        return None
    own, theirs = (_tet_keys(tets) for tets in (nodes[heart.tets], torso.tets))
    return nodes if np.isin(own, theirs).all() else None


def _rows(values: np.ndarray, columns: np.ndarray, n_columns: int) -> sp.csr_array:
    """A matrix with a few entries in each row."""
    n, k = values.shape
    start = np.arange(0, n * k + 1, k)
    return sp.csr_array((values.ravel(), columns.ravel(), start), shape=(n, n_columns))


def _tet_keys(tets: np.ndarray) -> np.ndarray:
    """One value a tetrahedron, whatever the order of its corners."""
    ordered = np.ascontiguousarray(np.sort(tets, axis=1).astype(np.int64))
    return ordered.view([("", np.int64)] * 4).ravel()


def _in_heart(conductor: VolumeConductor, points: np.ndarray) -> Places:
    """Places among the tetrahedra of the torso that are heart: the gradient jumps beyond them."""
    inside = np.flatnonzero(conductor.region == TorsoRegion.HEART)
    if not inside.size:
        return places_of_points(conductor.mesh, points)
    return places_of_points(TetMesh(conductor.mesh.points, conductor.mesh.tets[inside]), points)
