r"""Lead field of electrodes that move, in an unbounded medium: differentiable in their places.

The same integrals as `twinheart.ecg.lead_field`, by its four-point rule in every tetrahedron, which
is exact to :math:`10^{-4}` beyond six diameters of the element: for electrodes on the body, not for
those that touch the heart.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from twinheart.fem.assembly import gradients
from twinheart.mesh import TetMesh
from twinheart.types import Array

_FAR_POINT, _NEAR_POINT = (5 - math.sqrt(5)) / 20, (5 + 3 * math.sqrt(5)) / 20


class MovableField(eqx.Module):
    """Shares of elements as a function of the places of electrodes.

    Made by `movable_field`.

    Attributes
    ----------
    points : (4, 3, tet) array
        Quadrature points [mm].
    flux : (3, 3, tet) array
        Of all corners but the first: component of the current for a unit of voltage.
    """

    points: Float[Array, "4 3 tet"]
    flux: Float[Array, "3 3 tet"]

    def __call__(self, positions: Float[Array, "electrode 3"]) -> Float[Array, "electrode tet 3"]:
        """Shares of all corners but the first of every tetrahedron, as of `lead_shares`."""

        @jax.checkpoint
        def of(position):
            towards = position[None, :, None] - self.points
            square = (towards**2).sum(axis=1, keepdims=True)
            mean = (towards * (0.25 / (square * jnp.sqrt(square)))).sum(axis=0)
            return jnp.einsum("kjt,jt->tk", self.flux, mean)

        return jax.lax.map(of, jnp.asarray(positions, self.points.dtype))


def movable_field(
    mesh: TetMesh,
    sigma_i: Float[np.ndarray, "tet 3 3"],
    *,
    sigma_bulk: float = 0.2,
    dtype: type = np.float32,
) -> MovableField:
    """Prepare the lead field of electrodes that move.

    Parameters
    ----------
    mesh, sigma_i, sigma_bulk, dtype
        As for `twinheart.ecg.lead_shares`.

    Returns
    -------
    MovableField
        Call it with positions [mm].

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Electrodes, lead_shares
    >>> from twinheart.ecg.movable_field import movable_field
    >>> from twinheart.mesh.generate import slab
    >>> mesh = slab((4.0, 1.0, 1.0), 0.5)
    >>> sigma_i, place = np.tile(0.17 * np.eye(3), (mesh.n_tets, 1, 1)), np.array([[30.0, 5, 1]])
    >>> moving = movable_field(mesh, sigma_i)(place)
    >>> still = lead_shares(mesh, Electrodes(("V1",), place), sigma_i)[:, :, 1:]
    >>> bool(abs(np.asarray(moving) - still).max() < 1e-5 * abs(still).max())
    True
    """
    grad, volume = gradients(mesh.points, mesh.tets)
    flux = np.einsum("t,tki,tij->kjt", volume, grad[:, 1:], sigma_i, optimize=True)
    corners = mesh.points[mesh.tets].transpose(1, 2, 0)
    centroid = corners.mean(axis=0)
    points = 4 * _FAR_POINT * centroid + (_NEAR_POINT - _FAR_POINT) * corners
    scale = -1 / (4 * np.pi * sigma_bulk)
    return MovableField(jnp.asarray(points, dtype), jnp.asarray(scale * flux, dtype))
