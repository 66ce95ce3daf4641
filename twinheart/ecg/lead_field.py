r"""Lead field of electrodes in an unbounded homogeneous conductor, exact for P1 potentials.

A transmembrane potential that is linear in every tetrahedron has a constant gradient there, so the
potential at an electrode needs one vector per tetrahedron, the mean of :math:`\nabla(1/r)`. It is
computed in closed form near the electrode and by a four-point rule elsewhere.
"""

import math

import numpy as np
from jaxtyping import Float

from twinheart.ecg.electrodes import Electrodes
from twinheart.errors import MeshError, ModelError
from twinheart.fem.assembly import gradients
from twinheart.mesh import TetMesh

# Beyond this many diameters the four-point rule errs by less than 1e-4 in any tetrahedron (random
# shapes: 4.4e-5 at most, 1.4e-5 RMS; the centroid alone 3e-3), falling with the cube of distance.
_NEAR = 6.0

# Faces of a tetrahedron, normals pointing out.
_FACES = ((1, 2, 3), (0, 3, 2), (0, 1, 3), (0, 2, 1))

# Four-point rule, exact for quadratics: barycentric coordinates of each point, three times the
# first and once the second.
_FAR_POINT, _NEAR_POINT = (5 - math.sqrt(5)) / 20, (5 + 3 * math.sqrt(5)) / 20

# Tetrahedra handled at once: their temporaries stay in the cache, and memory stays bounded.
_BLOCK = 8192


def lead_field(
    mesh: TetMesh,
    electrodes: Electrodes,
    sigma_i: Float[np.ndarray, "tet 3 3"],
    *,
    sigma_bulk: float = 0.2,
    dtype: type = np.float32,
) -> Float[np.ndarray, "electrode node"]:
    r"""Weights that turn V_m on the nodes into the potential at each electrode.

    .. math::

        \phi(x_e) = -\frac{1}{4\pi\sigma_b} \int_\Omega
            \nabla\frac{1}{\|x - x_e\|} \cdot \sigma_i \nabla V_m \, dx
            = \sum_n B_{en} V_n

    Parameters
    ----------
    mesh : TetMesh
        Myocardium [mm].
    electrodes : Electrodes
        Positions [mm], outside the myocardium.
    sigma_i : (tet, 3, 3) array
        Intracellular conductivity tensors [S/m]: the physical ones, neither the monodomain
        (harmonic mean) tensors nor ones rescaled to tune the conduction velocity.

    Other Parameters
    ----------------
    sigma_bulk : float
        Conductivity of the medium [S/m]. It scales all leads alike.
    dtype : float32 or float64
        Of the result; the computation is in float64.

    Returns
    -------
    (electrode, node) array
        ``phi = weights @ vm`` in mV. Every row sums to exactly zero: a constant V_m gives no ECG.

    Raises
    ------
    MeshError
        If an electrode lies inside the myocardium or touches it (the kernel is singular there).
    ModelError
        If `sigma_bulk` is not positive or `sigma_i` has the wrong shape or is not finite.

    Notes
    -----
    A wave that comes nearer gives a positive deflection. An unbounded medium gives the shape of the
    ECG, not its amplitude: a torso surface, lungs and blood are absent.

    The mean of :math:`\nabla(1/r)` over a tetrahedron is a sum over its faces,
    :math:`\sum_f n_f \int_f dS / r`, whose integrals are known in closed form [1]_; this is used
    within six edge lengths of the electrode, however close it is.

    References
    ----------
    .. [1] Wilton et al., "Potential integrals for uniform and linear source distributions on
       polygonal and polyhedral domains", IEEE Trans. Antennas Propag. 32 (1984) 276-281,
       doi:10.1109/TAP.1984.1143304.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Electrodes, lead_field
    >>> from twinheart.mesh.generate import slab
    >>> mesh = slab((4.0, 1.0, 1.0), 0.5)
    >>> sigma_i = np.tile(0.17 * np.eye(3), (mesh.n_tets, 1, 1))
    >>> weights = lead_field(mesh, Electrodes(("V1",), [[20.0, 0.5, 0.5]]), sigma_i)
    >>> vm = np.where(mesh.points[:, 0] < 2.0, 20.0, -85.0)  # the wave moves towards V1
    >>> bool(weights[0] @ vm > 0)
    True
    """
    sigma_i = _checked_tensors(sigma_i, mesh.n_tets)
    if not (np.isfinite(sigma_bulk) and sigma_bulk > 0):
        raise ModelError(f"sigma_bulk is {sigma_bulk} S/m; expected a positive conductivity.")
    weights = np.zeros((len(electrodes.names), mesh.n_nodes))
    # few groups: adding a group to the rows costs a pass over all nodes
    group = max(_BLOCK, -(-mesh.n_tets // 16))
    for start in range(0, mesh.n_tets, group):
        tets = mesh.tets[start : start + group]
        shares = np.concatenate(
            [
                _block_shares(mesh.points, tets[i : i + _BLOCK], sigma_i[start + i :], electrodes)
                for i in range(0, len(tets), _BLOCK)
            ],
            axis=1,
        )
        for row, share in zip(weights, shares, strict=True):
            row += np.bincount(tets.ravel(), share.ravel(), minlength=mesh.n_nodes)
    weights *= -1 / (4 * np.pi * sigma_bulk)
    return np.stack([zero_sum(row, np.dtype(dtype)) for row in weights])


def lead_shares(
    mesh: TetMesh,
    electrodes: Electrodes,
    sigma_i: Float[np.ndarray, "tet 3 3"],
    *,
    sigma_bulk: float = 0.2,
    dtype: type = np.float32,
) -> Float[np.ndarray, "electrode tet 4"]:
    r"""The lead field before it is summed over elements: what each corner adds, element by element.

    .. math:: \phi(x_e) = \sum_T \sum_k s_{eTk} V_{Tk}, \qquad
              s_{eTk} = -\frac{|T|}{4\pi\sigma_b}
              \Big\langle\nabla\frac{1}{\|x - x_e\|}\Big\rangle_T \cdot \sigma_i \nabla N_k

    Sums over the corners of an element are zero: for a potential whose gradient varies within the
    element, corner values may be those of any linear function with the same mean gradient.

    Parameters
    ----------
    mesh, electrodes, sigma_i, sigma_bulk, dtype
        As for `lead_field`, whose errors these are, too.

    Returns
    -------
    (electrode, tet, 4) array
        Weights of the corners [dimensionless].
    """
    sigma_i = _checked_tensors(sigma_i, mesh.n_tets)
    if not (np.isfinite(sigma_bulk) and sigma_bulk > 0):
        raise ModelError(f"sigma_bulk is {sigma_bulk} S/m; expected a positive conductivity.")
    shares = np.empty((len(electrodes.names), mesh.n_tets, 4), dtype)
    for start in range(0, mesh.n_tets, _BLOCK):
        tets = mesh.tets[start : start + _BLOCK]
        block = _block_shares(mesh.points, tets, sigma_i[start:], electrodes)
        shares[:, start : start + _BLOCK] = block * (-1 / (4 * np.pi * sigma_bulk))
    return shares


def mean_inverse_distance_gradient(
    corners: Float[np.ndarray, "tet 4 3"], point: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "tet 3"]:
    r"""Mean of :math:`\nabla_x (1/\|x - p\|)` over each tetrahedron, in closed form [1/mm^2].

    Parameters
    ----------
    corners : (tet, 4, 3) array
        Vertices, positively oriented [mm].
    point : (3,) array
        The point p [mm], not on an edge of any tetrahedron.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg.lead_field import mean_inverse_distance_gradient
    >>> corners = np.eye(4, 3, -1)[None]
    >>> mean = mean_inverse_distance_gradient(corners, np.array([100.25, 0.25, 0.25]))
    >>> bool(abs(mean[0, 0] - 1e-4) < 1e-8)  # 1 / r^2, towards the point
    True
    """
    total = np.zeros((len(corners), 3))
    for face in _FACES:
        a, b, c = (corners[:, i] for i in face)
        normal = np.cross(b - a, c - a)
        normal /= np.linalg.norm(normal, axis=1)[:, None]
        total += normal * _triangle_potential(np.stack([a, b, c], axis=1), normal, point)[:, None]
    volume = np.linalg.det(corners[:, 1:] - corners[:, :1]) / 6
    return total / volume[:, None]


def _triangle_potential(corners: np.ndarray, normal: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Integral of 1/r over each triangle, by Wilton et al. (1984), equation 5."""
    height = np.einsum("td,td->t", point - corners[:, 0], normal)
    start = corners - (point - height[:, None] * normal)[:, None]  # from the foot of the point
    end = np.roll(start, -1, axis=1)
    along = end - start
    along /= np.linalg.norm(along, axis=2, keepdims=True)
    outward = np.cross(along, normal[:, None])
    p = np.einsum("ted,ted->te", start, outward)
    lower, upper = (np.einsum("ted,ted->te", x, along) for x in (start, end))
    height = np.abs(height)[:, None]
    square = p**2 + height**2
    r_lower, r_upper = np.sqrt(square + lower**2), np.sqrt(square + upper**2)
    # r + l loses its digits where l is near -r: there the mirrored edge has the same logarithm
    mirrored = lower + upper < 0
    logarithm = np.log(
        np.where(mirrored, r_lower - lower, r_upper + upper)
        / np.where(mirrored, r_upper - upper, r_lower + lower)
    )
    angle = np.arctan2(p * upper, square + height * r_upper) - np.arctan2(
        p * lower, square + height * r_lower
    )
    return (p * logarithm - height * angle).sum(axis=1)


def _block_shares(
    points: np.ndarray, tets: np.ndarray, sigma_i: np.ndarray, electrodes: Electrodes
) -> np.ndarray:
    """Sums vol grad N . sigma_i . <grad 1/r> of one block, (electrode, tet, 4)."""
    grad, volume = gradients(points, tets)
    flux = np.einsum("t,tki,tij->kjt", volume, grad, sigma_i[: len(tets)], optimize=True)
    # components first: the long axis last keeps every operation below on contiguous memory
    corners = np.ascontiguousarray(points[tets].transpose(2, 1, 0))
    centroid = corners.mean(axis=1)
    quadrature = 4 * _FAR_POINT * centroid[:, None] + (_NEAR_POINT - _FAR_POINT) * corners
    near_limit = (2 * _NEAR) ** 2 * _square(corners - centroid[:, None]).max(axis=0)
    shares = np.empty((len(electrodes.names), len(tets), 4))
    for share, name, position in zip(shares, electrodes.names, electrodes.positions, strict=True):
        mean = _four_point_mean(quadrature, position)
        near = np.flatnonzero(_square(position[:, None] - centroid) < near_limit)
        if near.size:
            around = points[tets[near]]
            _refuse_inside(around, grad[near], name, position)
            mean[:, near] = mean_inverse_distance_gradient(around, position).T
        for k in range(4):
            share[:, k] = np.einsum("jt,jt->t", flux[k], mean)
    return shares


def _square(vectors: np.ndarray) -> np.ndarray:
    return vectors[0] ** 2 + vectors[1] ** 2 + vectors[2] ** 2


def _four_point_mean(quadrature: np.ndarray, position: np.ndarray) -> np.ndarray:
    towards = position[:, None, None] - quadrature
    weight = _square(towards)
    weight *= np.sqrt(weight)
    np.divide(0.25, weight, out=weight)
    towards *= weight
    return towards.sum(axis=1)


def _refuse_inside(corners: np.ndarray, grad: np.ndarray, name: str, position: np.ndarray) -> None:
    barycentric = np.einsum("tkd,tkd->tk", grad, position - corners) + 1.0
    # relative to (0, 0, 0, 1) coordinates of order one: touching counts as inside
    if (barycentric.min(axis=1) >= -1e-9).any():
        x, y, z = position
        raise MeshError(
            f"electrode {name} at ({x:.1f}, {y:.1f}, {z:.1f}) mm lies inside the myocardium; "
            "expected a place outside it: check its coordinates and the length unit."
        )


def _checked_tensors(sigma_i: np.ndarray, n_tets: int) -> np.ndarray:
    sigma_i = np.asarray(sigma_i)
    if sigma_i.shape != (n_tets, 3, 3):
        raise ModelError(
            f"sigma_i has shape {sigma_i.shape}; expected one tensor [S/m] for each tetrahedron, "
            f"({n_tets}, 3, 3)."
        )
    if not np.isfinite(sigma_i).all():
        raise ModelError("sigma_i is not finite: check the conductivities.")
    return sigma_i


def zero_sum(row: Float[np.ndarray, "node"], dtype: np.dtype) -> Float[np.ndarray, "node"]:
    """Weights rounded so that they still sum to exactly zero: a constant voltage gives nothing.

    Parameters
    ----------
    row : (node,) array
        Weights that sum to zero but for rounding.
    dtype : dtype
        To round to; the rest of the sum goes into the smallest weights.

    Returns
    -------
    (node,) array
        Their exact sum is zero.

    Examples
    --------
    >>> import math
    >>> import numpy as np
    >>> from twinheart.ecg.lead_field import zero_sum
    >>> math.fsum(zero_sum(np.array([0.1, 0.2, -0.3]), np.dtype(np.float32)))
    0.0
    """
    rounded = row.astype(dtype)
    used = np.flatnonzero(rounded)
    order = used[np.argsort(np.abs(rounded[used]), kind="stable")]
    for node in order[:8]:
        rest = math.fsum(rounded)
        if rest == 0.0:
            break
        # each pass leaves the rounding error of the last one, smaller by the precision
        rounded[node] -= dtype.type(rest)
    return rounded
