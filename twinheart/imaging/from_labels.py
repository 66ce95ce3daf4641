"""From chamber masks to the implicit muscle: each surface is smoothed by itself."""

import numpy as np
from jaxtyping import Float
from scipy import ndimage
from scipy.spatial import KDTree

from twinheart.errors import InputError
from twinheart.imaging.chambers import (
    OUTWARD,
    Cavity,
    Chambers,
    MinimumWall,
    assemble_chambers,
)
from twinheart.imaging.distance_grid import Mask, smoothed_distance
from twinheart.imaging.image import voxel_spacing, voxels_to_points
from twinheart.imaging.labels import ChamberMasks
from twinheart.imaging.slices import connected, distances

# The grid need not be finer than this share of the edge length.
_FINEST = 0.75
# Faces of voxels over which the normal of a valve plane is averaged.
_LEAFLET = 60
_BLOCK = np.ones((3, 3, 3), dtype=bool)


def chambers_from_masks(
    masks: ChamberMasks, edge: float, wall: MinimumWall | None = None
) -> Chambers:
    """Make the implicit muscle from repaired masks.

    Hull and cavities are smoothed separately, so that thin walls survive; each keeps its volume.

    Parameters
    ----------
    masks : ChamberMasks
        As `repair_masks` returns them: with `openings`, a margin of background and nearly cubic
        voxels.
    edge : float
        Edge length of the mesh to come [mm]: much finer voxels are joined.
    wall : MinimumWall, optional
        Least thickness of the walls.

    Returns
    -------
    Chambers
        The muscle.

    Raises
    ------
    InputError
        If the masks have not been repaired.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging import ChamberMasks
    >>> from twinheart.imaging.from_labels import chambers_from_masks
    >>> x, y, z = np.indices((40, 40, 30)) - np.array([20, 20, 22])[:, None, None, None]
    >>> radius, below = np.sqrt(x**2 + y**2 + z**2), z < 0
    >>> pool, opening = (radius < 9) & below, (radius < 9) & (z == 0)
    >>> muscle = (radius < 15) & below & ~pool
    >>> cup = ChamberMasks(pool, muscle, None, np.eye(4), openings=opening)
    >>> chambers_from_masks(cup, 1.5).euler
    2
    """
    if masks.openings is None:
        raise InputError("the masks have no openings yet: pass them through repair_masks first.")
    masks = _cropped(_no_finer(masks, _FINEST * edge))
    spacing = voxel_spacing(masks.affine)
    pools = masks.pools
    body = masks.myocardium | np.any(list(pools.values()), axis=0)
    openings = masks.openings
    assert openings is not None
    outside = np.asarray(ndimage.binary_dilation(openings, _BLOCK))
    depth, nearest = distances(body, spacing)
    nearest = tuple(nearest)
    cavities = {}
    for name, pool in pools.items():
        valve = pool & outside
        beyond = ~body & valve[nearest] & (depth < OUTWARD)
        planes = _valve_planes(pool, openings, masks.affine)
        cavities[name] = Cavity(smoothed_distance(pool, spacing), beyond, *planes)
    return assemble_chambers(
        smoothed_distance(body, spacing),
        cavities,
        masks.affine,
        edge,
        wall or MinimumWall(),
        volume=float(masks.myocardium.sum() * np.prod(spacing)),
    )


def _valve_planes(
    pool: Mask, openings: Mask, affine: Float[np.ndarray, "4 4"]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Centres [mm] of the voxel faces between a pool and its openings, normals, number of planes.

    The normals are means over about a valve's leaflet.
    """
    faces, sides = [], []
    for axis in range(3):
        for step in (-1, 1):
            here = np.argwhere(pool & np.roll(openings, -step, axis))
            faces.append(here + 0.5 * step * np.eye(3)[axis])
            sides.append(np.tile(step * affine[:3, axis], (len(here), 1)))
    touched = openings & np.asarray(ndimage.binary_dilation(pool, _BLOCK))
    _, count = connected(touched, _BLOCK)
    points, normals = voxels_to_points(affine, np.concatenate(faces)), np.concatenate(sides)
    if len(points):
        _, near = KDTree(points).query(points, k=min(_LEAFLET, len(points)))
        normals = normals[np.asarray(near).reshape(len(points), -1)].mean(axis=1)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
    return points, normals, count


def _no_finer(masks: ChamberMasks, spacing: float) -> ChamberMasks:
    """The masks on a grid that is no finer than asked: every n-th voxel of each axis."""
    stride = np.maximum(np.floor(spacing / voxel_spacing(masks.affine) + 1e-6), 1).astype(int)
    if (stride == 1).all():
        return masks
    affine = masks.affine.copy()
    affine[:3, :3] *= stride
    affine[:3, 3] = voxels_to_points(masks.affine, (stride - 1)[None] / 2.0)[0]

    def share(mask: np.ndarray) -> np.ndarray:
        mean = mask.astype(np.float32)
        for axis, width in enumerate(stride.tolist()):
            mean = np.asarray(ndimage.uniform_filter1d(mean, width, axis, mode="constant"))
        return mean[tuple(slice(s // 2, None, s) for s in stride)]

    rv = masks.rv_pool
    blood = masks.lv_pool if rv is None else masks.lv_pool | rv
    body = share(blood | masks.myocardium) >= 0.5
    lv_pool = body & (share(masks.lv_pool) >= 0.5)
    rv_pool = None if rv is None else body & ~lv_pool & (share(rv) >= 0.5)
    muscle = body & ~lv_pool if rv_pool is None else body & ~lv_pool & ~rv_pool
    openings = None if masks.openings is None else ~body & (share(masks.openings) > 0.1)
    return ChamberMasks(lv_pool, muscle, rv_pool, affine, openings=openings)


def _cropped(masks: ChamberMasks) -> ChamberMasks:
    """The masks with just the margin that the thickest wall and the openings need."""
    body = masks.lv_pool | masks.myocardium
    body = body if masks.rv_pool is None else body | masks.rv_pool
    margin = np.ceil((OUTWARD + 2.0) / voxel_spacing(masks.affine)).astype(int) + 1
    low = [int(np.flatnonzero(body.any(axis=tuple({0, 1, 2} - {a})))[0]) for a in range(3)]
    high = [int(np.flatnonzero(body.any(axis=tuple({0, 1, 2} - {a})))[-1]) for a in range(3)]
    first = np.array(low) - margin

    def crop(mask: np.ndarray | None) -> np.ndarray | None:
        if mask is None:
            return None
        pad = [
            (int(max(-f, 0)), int(max(h + m + 1 - n, 0)))
            for f, h, m, n in zip(first, high, margin, mask.shape, strict=True)
        ]
        start = np.maximum(first, 0)
        padded = np.pad(mask, pad)
        size = np.array(high) - np.array(low) + 2 * margin + 1
        return padded[tuple(slice(int(s), int(s + n)) for s, n in zip(start, size, strict=True))]

    affine = masks.affine.copy()
    affine[:3, 3] = voxels_to_points(masks.affine, first[None].astype(float))[0]
    lv, muscle = crop(masks.lv_pool), crop(masks.myocardium)
    assert lv is not None
    assert muscle is not None
    return ChamberMasks(lv, muscle, crop(masks.rv_pool), affine, openings=crop(masks.openings))
