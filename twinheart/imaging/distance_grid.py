"""Signed distances on a grid: from a mask without its stairs, and as a smooth function."""

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from twinheart.imaging.image import points_to_voxels, voxel_spacing, voxels_to_points
from twinheart.imaging.slices import distances
from twinheart.types import Points

Values = Float[np.ndarray, "node"]
Grid = Float[np.ndarray, "i j k"]
Mask = Bool[np.ndarray, "i j k"]

# Where a value exceeds so many grid steps, only its sign matters: the nearest one is taken.
_NEAR = 2.0
# Low-pass filter of `smoothed_distance`: its width in voxels, and how often it is applied.
_WIDTH, _ROUNDS = 1.0, 20
# Voxels around a mask within which it works.
_MARGIN = 8


class DistanceGrid(eqx.Module):
    """A signed distance given on a grid, as a twice differentiable function near its zeros.

    Parameters
    ----------
    values : (i, j, k) array
        Signed distance [mm], negative inside.
    affine : (4, 4) array
        Grid indices to positions [mm].

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.distance_grid import DistanceGrid
    >>> x = np.arange(20.0)[:, None, None] + np.zeros((20, 20, 20))
    >>> plane = DistanceGrid(x - 7.3, np.eye(4))
    >>> plane(np.array([[7.5, 9.0, 9.0], [18.2, 9.0, 9.0]])).round(3)
    array([ 0.2, 10.7])
    """

    values: Float[np.ndarray, "i j k"]
    affine: Float[np.ndarray, "4 4"]
    coefficients: Float[np.ndarray, "i j k"]

    def __init__(self, values, affine):
        self.values = np.asarray(values, dtype=np.float32)
        self.affine = np.asarray(affine, dtype=np.float64)
        self.coefficients = ndimage.spline_filter(
            np.asarray(values, dtype=np.float64), 3, np.float64, mode="mirror"
        )

    @property
    def spacing(self) -> float:
        """Largest distance between neighbours along an axis [mm]."""
        return float(voxel_spacing(self.affine).max())

    def __call__(self, points: Points) -> Values:
        """Signed distance [mm] at (node, 3) positions; beyond the grid that of its margin."""
        return greatest([(self, 1.0)], points)

    def spline(self, voxels: Float[np.ndarray, "3 node"]) -> Values:
        """Cubic interpolation at grid indices with fractions."""
        return ndimage.map_coordinates(
            self.coefficients, voxels, np.float64, order=3, mode="mirror", prefilter=False
        )


def greatest(signed: list[tuple[DistanceGrid, float]], points: Points) -> Values:
    """Maximum of distances on one grid, each times its sign: an intersection of bodies.

    Parameters
    ----------
    signed : list of (DistanceGrid, +1.0 or -1.0)
        Distances on the same grid.
    points : (node, 3) array
        Positions [mm].

    Returns
    -------
    (node,) array
        Smooth where it is near zero; two grid steps away from there it is piecewise constant.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.distance_grid import DistanceGrid, greatest
    >>> x = np.arange(20.0)[:, None, None] + np.zeros((20, 20, 20))
    >>> low, high = DistanceGrid(x - 5.0, np.eye(4)), DistanceGrid(x - 9.0, np.eye(4))
    >>> greatest([(high, 1.0), (low, -1.0)], np.array([[8.5, 7.0, 7.0]])).round(3)
    array([-0.5])
    """
    first = signed[0][0]
    voxels = points_to_voxels(first.affine, points)
    shape = np.array(first.values.shape)
    nearest = np.clip(np.rint(voxels), 0, shape - 1).astype(np.int64)
    flat = (nearest[:, 0] * shape[1] + nearest[:, 1]) * shape[2] + nearest[:, 2]
    rough = np.stack([sign * grid.values.ravel()[flat] for grid, sign in signed])
    value = rough.max(axis=0).astype(np.float64)
    near = np.flatnonzero(np.abs(value) < _NEAR * first.spacing)
    rough, at = rough[:, near], np.ascontiguousarray(voxels[near].T)
    value[near] = -np.inf
    for (grid, sign), own in zip(signed, rough, strict=True):
        # one that is clearly less at the nearest grid point is so here
        rival = own > rough.max(axis=0) - _NEAR * first.spacing
        value[near[rival]] = np.maximum(value[near[rival]], sign * grid.spline(at[:, rival]))
    return value


def mask_distance(mask: Mask, spacing: Float[np.ndarray, "3"]) -> Grid:
    """Signed distance [mm] of voxel centres to the stairs of a mask, negative inside.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.distance_grid import mask_distance
    >>> mask_distance(np.arange(4)[:, None, None] < 2, np.ones(3)).ravel()
    array([-1.5, -0.5,  0.5,  1.5])
    """
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing)
    half = 0.5 * float(np.min(spacing))
    return np.asarray(outside) - np.asarray(inside) + np.where(mask, half, -half)


def smoothed_distance(mask: Mask, spacing: Float[np.ndarray, "3"]) -> Grid:
    """Signed distance [mm] to a smooth surface that keeps within half a voxel of a mask's stairs.

    A low-pass filter that leaves gentle curvature alone, :math:`2 G - G^2` with a Gaussian G, and
    the bound of half a voxel are applied in turns; at last the surface is shifted by the fraction
    of a voxel that gives it the volume of the mask. The bound keeps the topology of the mask.

    Parameters
    ----------
    mask : (i, j, k) bool array
        Inside of the body, on a nearly isotropic grid.
    spacing : (3,) array
        Distance between voxels [mm].

    Returns
    -------
    (i, j, k) array
        Approximate signed distance [mm], negative inside; far outside a lower bound of it.

    References
    ----------
    The bounds: Whitaker, IEEE Symp. Volume Visualization 2000, doi:10.1109/VV.2000.10021.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.distance_grid import smoothed_distance
    >>> radius = np.linalg.norm(np.indices((40, 40, 40)) - 19.7, axis=0)
    >>> distance = smoothed_distance(radius < 12.0, np.ones(3))
    >>> bool(np.abs((distance - radius + 12.0)[np.abs(distance) < 1]).max() < 0.4)
    True
    """
    box = tuple(
        slice(max(at.start - _MARGIN, 0), at.stop + _MARGIN)
        for at in ndimage.find_objects(mask.astype(np.uint8))[0]
    )
    whole = np.full(mask.shape, _MARGIN * float(np.min(spacing)))
    mask = mask[box]
    distance = mask_distance(mask, spacing)
    half = 0.5 * float(np.min(spacing))
    low, high = distance - half, distance + half
    for _ in range(_ROUNDS):
        once = ndimage.gaussian_filter(distance, _WIDTH, mode="nearest", truncate=3.0)
        twice = ndimage.gaussian_filter(once, _WIDTH, mode="nearest", truncate=3.0)
        distance = np.clip(2 * once - twice, low, high)
    voxel = float(np.prod(spacing))
    wanted, shift = mask.sum() * voxel, 0.0
    for _ in range(4):
        area = (np.abs(distance + shift) < half).sum() * voxel / (2 * half)
        shift += (inside_volume(distance + shift, spacing) - wanted) / max(area, voxel)
    whole[box] = distance + shift
    return whole


def inside_volume(distance: Grid, spacing: Float[np.ndarray, "3"]) -> float:
    """Volume [mm^3] where a signed distance on a grid is negative, cut voxels by their share.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.distance_grid import inside_volume
    >>> round(inside_volume(np.arange(4.0)[:, None, None] - 1.75, np.ones(3)), 6)
    2.25
    """
    step = float(np.prod(spacing) ** (1 / 3))
    return float(np.clip(0.5 - distance / step, 0, 1).sum() * np.prod(spacing))


def redistanced(distance: Grid, spacing: Float[np.ndarray, "3"], reach: float) -> Grid:
    """A function made a distance where it is positive, exact to a few per cent of a grid step.

    Parameters
    ----------
    distance : (i, j, k) array
        Function that is a distance next to its zeros, and has the sign of one elsewhere.
    spacing : (3,) array
        Distance between grid points [mm].
    reach : float
        Distance [mm] up to which it is wanted; beyond, it is right to half a grid step.

    Returns
    -------
    (i, j, k) array
        Distance [mm]; inside, the function.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.distance_grid import redistanced
    >>> x = np.arange(12.0)[:, None, None] + np.zeros((12, 12, 12))
    >>> redistanced(np.minimum(x - 4.3, 1.0), np.ones(3), 4.0)[7, 5, 5].round(2)
    np.float64(2.7)
    """
    step = float(np.max(spacing))
    rough, nearest = distances(distance <= 0, spacing)
    near = (rough > 0) & (rough < reach + 2 * step)
    foot = tuple(axis[near] for axis in nearest)
    slope = np.stack([g[foot] for g in np.gradient(distance, *spacing)], axis=1)
    slope /= np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-300)
    apart = (np.argwhere(near) - np.stack(foot, axis=1)) * spacing
    # the surface is nearly a plane at the inner point next to it, and less than a step away
    plane = distance[foot] + np.einsum("nx,nx->n", apart, slope)
    out = np.where(rough > 0, rough - 0.5 * step, distance)
    out[near] = np.clip(plane, np.maximum(rough[near] - step, 0), rough[near])
    return out


def opened(distance: Grid, spacing: Float[np.ndarray, "3"], radius: float) -> Grid:
    """Cut off where a body is too thin to hold a ball of a given radius: crevices, sharp edges.

    Parameters
    ----------
    distance : (i, j, k) array
        Signed distance [mm] to the body, negative inside.
    spacing : (3,) array
        Distance between grid points [mm].
    radius : float
        Radius of the ball [mm].

    Returns
    -------
    (i, j, k) array
        Distance to what is left, that is, to all such balls; nowhere smaller than the one given.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.distance_grid import opened
    >>> x = np.arange(40.0)[:, None, None] + np.zeros((40, 8, 8))
    >>> block, sheet = np.abs(x - 10) - 6, np.abs(x - 30) - 0.5
    >>> left = opened(np.minimum(block, sheet), np.ones(3), 2.0)
    >>> bool((left[:17] == block[:17]).all()), bool(left[30, 4, 4] > 0)
    (True, True)
    """
    step = float(spacing.max())
    eroded = distance + radius
    if not (eroded < 0).any():
        return distance
    # where the body is wide enough, both distances agree to a fraction of a grid step
    return np.maximum(distance, redistanced(eroded, spacing, radius + step) - radius - 0.25 * step)


def zero_points(distance: Grid, affine: Float[np.ndarray, "4 4"]) -> Points:
    """Positions [mm] where a function on a grid changes its sign along the grid's lines.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.distance_grid import zero_points
    >>> zero_points(np.array([-1.0, 3.0])[:, None, None], np.eye(4))
    array([[0.25, 0.  , 0.  ]])
    """
    return voxels_to_points(affine, _zero_voxels(distance))


def _zero_voxels(distance: Grid) -> np.ndarray:
    zeros = []
    for axis in range(3):
        low, high = (np.take(distance, r, axis) for r in _both_ends(distance.shape[axis]))
        cut = (low < 0) != (high < 0)
        place = np.argwhere(cut).astype(np.float64)
        place[:, axis] += low[cut] / (low[cut] - high[cut])
        zeros.append(place)
    return np.concatenate(zeros)


def _both_ends(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(n - 1), np.arange(1, n)


def grid_positions(affine: Float[np.ndarray, "4 4"], nodes: Mask) -> Points:
    """Positions [mm] of the grid points that a mask marks.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.distance_grid import grid_positions
    >>> grid_positions(np.diag([2.0, 2.0, 2.0, 1.0]), np.eye(2, dtype=bool)[None])
    array([[0., 0., 0.],
           [0., 2., 2.]])
    """
    return voxels_to_points(affine, np.argwhere(nodes).astype(np.float64))
