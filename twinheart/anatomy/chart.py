"""Chart of an endocardium: from named coordinates to places, smooth and differentiable.

Height and rotation are laid out as a disk, the apex in the middle and the base as its rim, where
the surface is regular everywhere; positions are tabulated on a grid over the disk and interpolated
by quadratic B-splines.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

from twinheart.anatomy.endocardium import Endocardium, Ground
from twinheart.types import Array

_SIZE = 97  # grid points along each side of the square around the disk
_HALF = 1.1  # half its length; the disk has radius 1


class Chart(eqx.Module):
    """Places of an endocardium by height and rotation.

    Made by `chart_of`.

    Attributes
    ----------
    table : (row, column, 3) array
        Positions [mm] over the square around the disk.
    """

    table: Float[Array, "row column 3"]

    def __call__(self, ab: Float[Array, "place"], rt: Float[Array, "place"]) -> Array:
        """Positions [mm], (place, 3).

        Parameters
        ----------
        ab : (place,) array
            Height, 0 at the apex to 1 at the base.
        rt : (place,) array
            Rotation [turns], periodic.
        """
        angle = 2.0 * jnp.pi * jnp.asarray(rt)
        disk = jnp.asarray(ab)[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
        place = jnp.clip((disk / _HALF + 1.0) / 2.0 * (_SIZE - 1), 1.0, _SIZE - 2.0)
        k = jnp.floor(place + 0.5).astype(jnp.int32)
        x = place - k
        weights = jnp.stack([0.5 * (0.5 - x) ** 2, 0.75 - x**2, 0.5 * (0.5 + x) ** 2])
        near = k[None] + jnp.arange(-1, 2)[:, None, None]
        corners = self.table[near[:, None, :, 0], near[None, :, :, 1]]
        return jnp.einsum("ip,jp,ijpc->pc", weights[..., 0], weights[..., 1], corners)


def chart_of(surface: Endocardium) -> Chart:
    """Chart of an endocardium.

    Parameters
    ----------
    surface : Endocardium
        With the coordinates of its vertices.

    Returns
    -------
    Chart
        Call it with heights and rotations. Places lie within a fraction of a millimetre of the
        surface; above the base they stay at its rim.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy import demo_heart
    >>> from twinheart.anatomy.chart import chart_of
    >>> from twinheart.anatomy.endocardium import endocardium
    >>> from twinheart.mesh.implicit import SurfaceClass
    >>> lv = endocardium(demo_heart().mesh, SurfaceClass.LV_ENDOCARDIUM)
    >>> found = chart_of(lv)(np.array([0.5]), np.array([5 / 6]))
    >>> bool(np.linalg.norm(found[0] - lv.place(0.5, 5 / 6)) < 4.0)
    True
    """
    angle = 2.0 * np.pi * surface.rt
    disk = surface.ab[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    axis = _HALF * np.linspace(-1.0, 1.0, _SIZE)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    radius = np.linalg.norm(grid, axis=1, keepdims=True)
    grid = grid / np.maximum(radius, 1.0)  # beyond the base: its rim
    table = LinearNDInterpolator(disk, surface.points)(grid)
    outside = np.isnan(table).any(axis=1)
    table[outside] = NearestNDInterpolator(disk, surface.points)(grid[outside])
    table, _ = Ground(surface).project(table)
    return Chart(jnp.asarray(table.reshape(_SIZE, _SIZE, 3), dtype=float))
