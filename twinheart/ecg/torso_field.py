r"""Lead field of electrodes on a bounded torso: one finite element solve for each electrode.

With the conductivity :math:`\sigma` of the whole body (in the heart that of both spaces together)
the potential at an electrode follows from the field Z of a unit current between that electrode and
the rest of the skin, by reciprocity:

.. math::

    \int \sigma \nabla Z_e \cdot \nabla w = w(x_e) - \bar w, \qquad
    \phi(x_e) - \bar\phi = -\int_H \nabla Z_e \cdot \sigma_i \nabla V_m,

where the bar is the mean over the skin. Differences between electrodes, hence all leads, do not
depend on that reference. On the same elements this equals the solution of the torso problem.
"""

from collections.abc import Mapping

import equinox as eqx
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from twinheart.anatomy import Heart
from twinheart.anatomy.torso import CONDUCTIVITY, TorsoRegion
from twinheart.anatomy.transfer import places_of_points
from twinheart.ecg.electrodes import Electrodes
from twinheart.ecg.skin import skin_of, skin_places
from twinheart.errors import InputError, MeshError, ModelError
from twinheart.fem.assembly import gradients, stiffness
from twinheart.fem.multigrid import Multigrid, build_multigrid, solve_loads
from twinheart.mesh import TetMesh
from twinheart.mesh.quality import boundary_triangles, components
from twinheart.tissue.conductivity import (
    NIEDERER_2011,
    Conduction,
    Conductivities,
    Velocities,
    by_region,
    region_tensor,
)

# An electrode this close to the skin [mm] is put onto it without being asked: a mesh cuts corners.
TINY = 3.0
_LOADS = 32  # right-hand sides solved together: their temporaries stay in the cache
_MOST_OUTSIDE = 0.02  # share of the heart's nodes that may lie outside the tagged heart by more ...
_FAR_OUTSIDE = 10.0  # ... than this [mm]


class VolumeConductor(eqx.Module):
    """A body that conducts: tetrahedra and their conductivity.

    Parameters
    ----------
    mesh : TetMesh
        The whole body [mm], in one part.
    sigma : (tet, 3, 3) array
        Conductivity of each tetrahedron [S/m]; in the heart, of intra- and extracellular space
        together.
    region : (tet,) int array
        Tag of each tetrahedron (`TorsoRegion`); the gradient of a lead field jumps between them.
    """

    mesh: TetMesh
    sigma: Float[np.ndarray, "tet 3 3"]
    region: Int[np.ndarray, "tet"]
    matrix: sp.csr_array
    inverse: Multigrid

    def __init__(self, mesh: TetMesh, sigma, region=None):
        self.mesh = mesh
        self.sigma = np.asarray(sigma, dtype=np.float64)
        self.region = np.asarray(np.zeros(mesh.n_tets) if region is None else region, np.int32)
        if self.sigma.shape != (mesh.n_tets, 3, 3) or not np.isfinite(self.sigma).all():
            raise ModelError(
                f"conductivities have shape {self.sigma.shape}; expected a finite tensor [S/m] for "
                f"each of the {mesh.n_tets} tetrahedra of the torso."
            )
        _refuse_parts(mesh)
        self.matrix = stiffness(mesh, self.sigma)
        self.inverse = build_multigrid(self.matrix)

    def solve(
        self, loads: Float[np.ndarray, "torso_node load"], *, rtol: float = 1e-11
    ) -> Float[np.ndarray, "torso_node load"]:
        r"""Potentials [mV] of currents [uA] into the nodes, against their mean over the skin.

        Parameters
        ----------
        loads : (torso_node, load) array
            Currents; what does not sum to zero leaves evenly through the skin.
        rtol : float
            Relative residual of each solve.

        Returns
        -------
        (torso_node, load) array
            Potentials with mean zero over the skin.
        """
        share = self.skin_share
        loads = loads - share[:, None] * loads.sum(axis=0)
        parts = [
            solve_loads(
                self.matrix, loads[:, i : i + _LOADS], preconditioner=self.inverse, rtol=rtol
            )
            for i in range(0, loads.shape[1], _LOADS)
        ]
        u = np.concatenate(parts, axis=1)
        return u - share @ u

    @property
    def skin_share(self) -> Float[np.ndarray, "torso_node"]:
        """Share of the skin's area that belongs to each node."""
        skin, nodes = skin_of(self.mesh)
        corners = skin.points[skin.triangles]
        a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        area = np.linalg.norm(np.cross(a, b), axis=1)
        share = np.zeros(self.mesh.n_nodes)
        share[nodes] = np.bincount(skin.triangles.ravel(), np.repeat(area, 3), len(nodes))
        return share / share.sum()


class TorsoField(eqx.Module):
    """Potential of a unit current from each electrode to the whole skin.

    Parameters
    ----------
    conductor : VolumeConductor
        The body.
    electrodes : Electrodes
        Where they are in the mesh.
    potential : (electrode, torso_node) array
        Z [mV/uA], mean zero over the skin.
    """

    conductor: VolumeConductor
    electrodes: Electrodes
    potential: Float[np.ndarray, "electrode torso_node"]

    def lead_vectors(
        self, points: Float[np.ndarray, "point 3"], *, recovered: bool = True
    ) -> Float[np.ndarray, "electrode point 3"]:
        r"""Gradient of Z: a dipole p at a point gives the potential :math:`p \cdot \nabla Z`.

        Parameters
        ----------
        points : (point, 3) array
            Places in the body [mm].
        recovered : bool
            Averaged at the nodes and interpolated, within the region of each point, which is more
            accurate; otherwise that of the tetrahedron.

        Returns
        -------
        (electrode, point, 3) array
            Lead vectors [mV/(uA mm)].
        """
        mesh, region = self.conductor.mesh, self.conductor.region
        found = places_of_points(mesh, points)
        if not recovered:
            grad, _ = gradients(mesh.points, mesh.tets[found.tet])
            return np.einsum("pki,epk->epi", grad, self.potential[:, found.nodes])
        vectors = np.empty((len(self.potential), len(points), 3))
        for tag in np.unique(region[found.tet]):
            here = np.flatnonzero(region[found.tet] == tag)
            part = TetMesh(mesh.points, mesh.tets[region == tag])
            for axis, slope in enumerate(gradient_recovery(part)):
                at_nodes = (slope @ self.potential.T)[found.nodes[here]]
                vectors[:, here, axis] = np.einsum("pk,pke->ep", found.weights[here], at_nodes)
        return vectors


def gradient_recovery(mesh: TetMesh) -> tuple[sp.csr_array, sp.csr_array, sp.csr_array]:
    """Matrices from nodal values to the components of their gradient, averaged at the nodes.

    Parameters
    ----------
    mesh : TetMesh
        Tetrahedra [mm]; the average over those at a node is weighted by their volumes.

    Returns
    -------
    three (node, node) scipy CSR arrays
        Along x, y and z [1/mm]; rows of nodes without a tetrahedron are empty.

    References
    ----------
    Zienkiewicz & Zhu 1987, doi:10.1002/nme.1620240206.

    Examples
    --------
    >>> from twinheart.ecg.torso_field import gradient_recovery
    >>> from twinheart.mesh.generate import slab
    >>> mesh = slab((2.0, 1.0, 1.0), 0.5)
    >>> bool(abs(gradient_recovery(mesh)[0] @ mesh.points[:, 0] - 1.0).max() < 1e-12)
    True
    """
    grad, volume = gradients(mesh.points, mesh.tets)
    n = mesh.n_nodes
    around = np.bincount(mesh.tets.ravel(), np.repeat(volume, 4), n)
    rows, columns = np.repeat(mesh.tets, 4, axis=1), np.tile(mesh.tets, 4)
    share = volume[:, None] / around[mesh.tets]

    def along(axis: int) -> sp.csr_array:
        values = share[:, :, None] * grad[:, None, :, axis]
        matrix = sp.coo_array((values.ravel(), (rows.ravel(), columns.ravel())), shape=(n, n))
        return sp.csr_array(matrix)

    return along(0), along(1), along(2)


def heart_tensors(
    heart: Heart, conduction: Conduction | dict[int, Conduction]
) -> tuple[Float[np.ndarray, "tet 3 3"], Float[np.ndarray, "tet 3 3"]]:
    """Conductivity inside the cells, and of both spaces together, of every tetrahedron.

    Parameters
    ----------
    heart : Heart
        Fibres and regions.
    conduction : Conductivities, Velocities, NonConducting or dict of int to any of them
        Tissue, or one for each region tag. Of velocities the physical conductivities count.
        Tissue without cells has only the extracellular space of Niederer et al. 2011.

    Returns
    -------
    sigma_i, sigma_bulk : (tet, 3, 3) arrays
        Tensors [S/m].

    Examples
    --------
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.ecg.torso_field import heart_tensors
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.tissue import NIEDERER_2011
    >>> inner, both = heart_tensors(Heart(slab((2.0, 1.0, 1.0), 0.5)), NIEDERER_2011)
    >>> inner[0, 0].round(3), both[0, 0].round(3)
    (array([0.17, 0.  , 0.  ]), array([0.79, 0.  , 0.  ]))
    """
    inner, both = {}, {}
    for tag, tissue in by_region(heart, conduction, "conductivity").items():
        physical = tissue.physical if isinstance(tissue, Velocities) else tissue
        if isinstance(physical, Conductivities):
            inner[tag] = np.asarray(physical.sigma_i, dtype=float)
            both[tag] = inner[tag] + np.asarray(physical.sigma_e, dtype=float)
        else:
            inner[tag], both[tag] = np.zeros(3), np.asarray(NIEDERER_2011.sigma_e, dtype=float)
    return region_tensor(heart, inner), region_tensor(heart, both)


def torso_conductor(
    torso: TetMesh,
    heart: Heart,
    sigma_bulk: Float[np.ndarray, "tet 3 3"],
    *,
    organs: Mapping[int, float] | None = None,
) -> VolumeConductor:
    """Give every tetrahedron of a torso its conductivity.

    Parameters
    ----------
    torso : TetMesh
        The whole body around the heart and with it [mm]; the cell field ``region`` says what is
        what (`TorsoRegion`, or any other tags). Without it all that is not heart is alike.
    heart : Heart
        In the same coordinates. Its tetrahedra may be part of the torso, or have a mesh of their
        own.
    sigma_bulk : (tet, 3, 3) array
        Conductivity of the heart, both spaces together [S/m] (see `heart_tensors`).
    organs : mapping of int to float, optional
        Conductivities [S/m] for tags, in addition to or instead of `CONDUCTIVITY`.

    Returns
    -------
    VolumeConductor
        With the heart's own tensors where the torso is heart.

    Raises
    ------
    MeshError
        If the heart lies outside the torso, or the torso has several parts.
    ModelError
        If a tag has no conductivity, or one is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.ecg.torso_field import torso_conductor
    >>> from twinheart.mesh.generate import slab
    >>> heart = Heart(slab((2.0, 2.0, 2.0), 1.0))
    >>> bulk = np.tile(0.5 * np.eye(3), (heart.mesh.n_tets, 1, 1))
    >>> float(torso_conductor(slab((4.0, 4.0, 4.0), 1.0), heart, bulk).sigma[-1, 0, 0])
    0.22
    """
    values = {int(tag): float(value) for tag, value in CONDUCTIVITY.items()} | dict(organs or {})
    wrong = {tag: value for tag, value in values.items() if not 0 < value < np.inf}
    if wrong:
        tag, value = next(iter(wrong.items()))
        raise ModelError(f"region {tag} conducts {value} S/m, expected a positive number.")
    centres = torso.points[torso.tets].mean(axis=1)
    if "region" in torso.cell_fields:
        region = np.asarray(torso.cell_fields["region"]).astype(np.int32)
    else:
        region = _heart_or_not(heart.mesh, centres)
    unknown = sorted(set(np.unique(region).tolist()) - set(values))
    if unknown:
        raise ModelError(
            f"the torso has region tags {unknown} without a conductivity; known are "
            f"{sorted(values)}: give a conductivity in S/m for each."
        )
    sigma = np.vectorize(values.get, otypes=[float])(region)[:, None, None] * np.eye(3)
    inside = np.flatnonzero(region == TorsoRegion.HEART)
    _refuse_outside(heart.mesh, torso, inside)
    sigma[inside] = sigma_bulk[places_of_points(heart.mesh, centres[inside]).tet]
    return VolumeConductor(torso, sigma, region)


def torso_field(
    conductor: VolumeConductor,
    electrodes: Electrodes,
    *,
    snap: float = TINY,
    rtol: float = 1e-11,
) -> TorsoField:
    """Solve for the field of each electrode.

    Parameters
    ----------
    conductor : VolumeConductor
        The body.
    electrodes : Electrodes
        On the skin, or inside the body (such as those of a catheter).
    snap : float
        Electrodes up to this distance from the skin [mm] are put onto it.
    rtol : float
        Relative residual of each solve.

    Returns
    -------
    TorsoField
        One solve an electrode; they are done together.

    Raises
    ------
    InputError
        If an electrode is farther outside; it says how far.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Electrodes
    >>> from twinheart.ecg.torso_field import VolumeConductor, torso_field
    >>> from twinheart.mesh.generate import slab
    >>> mesh = slab((12.0, 2.0, 2.0), 0.5)
    >>> body = VolumeConductor(mesh, np.tile(0.2 * np.eye(3), (mesh.n_tets, 1, 1)))
    >>> ends = torso_field(body, Electrodes(("RA", "LA"), [[0.0, 1, 1], [12.0, 1, 1]]))
    >>> vectors = ends.lead_vectors(np.array([[6.0, 1.0, 1.0]]))[:, 0]
    >>> round(float(vectors[1, 0] - vectors[0, 0]), 2)  # 1 uA over 4 mm^2 of 0.2 S/m
    1.25
    """
    spread, placed = place_in_body(conductor.mesh, electrodes, snap=snap)
    potential = conductor.solve(spread.toarray().T, rtol=rtol).T
    return TorsoField(conductor, placed, np.ascontiguousarray(potential))


def place_in_body(
    mesh: TetMesh, electrodes: Electrodes, *, snap: float = TINY
) -> tuple[sp.csr_array, Electrodes]:
    """Weights of the nodes at each electrode: of a triangle of the skin, or a tetrahedron inside.

    Parameters
    ----------
    mesh : TetMesh
        The body [mm].
    electrodes : Electrodes
        Positions [mm].
    snap : float
        Electrodes up to this distance from the skin [mm], inside or outside, are put onto it.

    Returns
    -------
    (electrode, torso_node) scipy CSR array, Electrodes
        ``weights @ potential`` interpolates; and where the electrodes are now.

    Raises
    ------
    InputError
        If an electrode lies farther outside the body.
    """
    skin, nodes = skin_of(mesh)
    on = skin_places(skin, electrodes.positions)
    within = places_of_points(mesh, electrodes.positions)
    off = np.linalg.norm(within.of_nodes(mesh.points) - electrodes.positions, axis=1)
    outside = np.flatnonzero((off > 1e-6) & (on.distance > snap))
    if outside.size:
        worst = outside[on.distance[outside].argmax()]
        raise InputError(
            f"electrode {electrodes.names[worst]} lies {on.distance[worst]:.1f} mm outside the "
            f"torso, at most {snap:g} mm are bridged: check its position, or ask for electrodes "
            "to be moved onto the skin."
        )
    weights = np.zeros((len(electrodes.names), mesh.n_nodes))
    placed = electrodes.positions.copy()
    for k, distance in enumerate(on.distance):
        if distance <= snap:
            corners, share = nodes[skin.triangles[on.triangle[k]]], on.weights[k]
        else:
            corners, share = within.nodes[k], within.weights[k]
        weights[k, corners] += share
        placed[k] = share @ mesh.points[corners]
    return sp.csr_array(weights), Electrodes(electrodes.names, placed)


def _heart_or_not(heart: TetMesh, centres: np.ndarray) -> Int[np.ndarray, "tet"]:
    """Tags of a torso that has none: heart are the tetrahedra whose centres lie in the heart."""
    used = heart.points[np.unique(heart.tets)]
    near = np.flatnonzero(
        ((centres >= used.min(axis=0)) & (centres <= used.max(axis=0))).all(axis=1)
    )
    off = places_of_points(heart, centres[near]).of_nodes(heart.points) - centres[near]
    region = np.full(len(centres), int(TorsoRegion.TORSO), dtype=np.int32)
    region[near[np.linalg.norm(off, axis=1) < 1e-9]] = TorsoRegion.HEART
    return region


def _refuse_parts(mesh: TetMesh) -> None:
    part = components(mesh.tets, mesh.n_nodes)[mesh.tets[:, 0]]
    _, count = np.unique(part, return_counts=True)
    if len(count) > 1:
        raise MeshError(
            f"the torso has {len(count)} parts that do not touch (of "
            f"{', '.join(map(str, np.sort(count)[::-1][:4]))} tetrahedra), expected one: current "
            "cannot pass between them; mesh it again or keep the part with the heart."
        )


def _refuse_outside(heart: TetMesh, torso: TetMesh, inside: np.ndarray) -> None:
    """The heart must lie where the torso is tagged as heart."""
    nodes = np.unique(boundary_triangles(heart.tets))
    points = heart.points[nodes]
    body = places_of_points(torso, points).of_nodes(torso.points)
    off = np.linalg.norm(body - points, axis=1)
    if off.max() > _FAR_OUTSIDE or (off > 1.0).mean() > _MOST_OUTSIDE:
        raise MeshError(
            f"the heart lies outside the torso: {int((off > 1.0).sum())} of the {len(nodes)} nodes "
            f"of its surface by up to {off.max():.0f} mm; give both in the same coordinates and "
            "units."
        )
    if not len(inside):
        raise MeshError(
            f"no tetrahedron of the torso is heart (region {int(TorsoRegion.HEART)}): build it "
            "around this heart with 'twinheart torso'."
        )
    part = TetMesh(torso.points, torso.tets[inside])
    off = np.linalg.norm(places_of_points(part, points).of_nodes(torso.points) - points, axis=1)
    if np.quantile(off, 1 - _MOST_OUTSIDE) > _FAR_OUTSIDE:
        raise MeshError(
            f"the heart does not lie where the torso is tagged as heart: its nodes are up to "
            f"{off.max():.0f} mm away; build the torso around this heart with 'twinheart torso'."
        )
