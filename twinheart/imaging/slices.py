"""Slices that are missing or far apart: filled in by interpolating the shapes between them.

Raya & Udupa, Shape-based interpolation of multidimensional objects, IEEE Trans. Med. Imaging
1990, doi:10.1109/42.52980.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import distance_transform_edt, label

from twinheart.errors import InputError
from twinheart.imaging.image import voxel_spacing, voxels_to_points

OUTSIDE, LV, MUSCLE, RV, BEYOND = range(5)  # labels of the working array

Labels = UInt8[np.ndarray, "i j k"]
FinerLabels = UInt8[np.ndarray, "finer_i finer_j finer_k"]
Affine = Float[np.ndarray, "4 4"]

_MAX_RATIO = 1.5  # of voxel edges that count as nearly isotropic
_MAX_MISSING = 2
_NEARLY_EMPTY = 0.05  # of the heart's voxels in the neighbouring slices
_CAP = 3.0  # mm of wall left over the end of a pool that tapers between two slices
_VALVE_RADIUS = 4.0  # mm, of the smallest valve
_RIM = 15.0  # mm from the middle of a valve plane within which its rim is cut off with it
_FAR = 1e3  # mm


def place(affine: Affine, voxels) -> str:
    """The mean of some voxels as text: '(12.0, -3.5, 40.2) mm RAS'.

    Parameters
    ----------
    affine : (4, 4) array
        Voxel indices to RAS positions [mm].
    voxels : (node, 3) array
        Indices.

    Returns
    -------
    str
        Position for a message.
    """
    point = voxels_to_points(affine, np.atleast_2d(voxels)).mean(axis=0)
    return f"({', '.join(f'{x:.1f}' for x in point)}) mm RAS"


def distances(mask: np.ndarray, spacing) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each voxel to the nearest one of a mask, and that one's indices.

    Parameters
    ----------
    mask : bool array
        Not empty.
    spacing : sequence of float
        Distance between voxels along each axis.

    Returns
    -------
    distance : array
        In the unit of the spacing; 0 within the mask.
    nearest : int array
        Indices, first axis first.
    """
    found: Any = distance_transform_edt(~mask, spacing, return_indices=True)
    return found[0], found[1]


def connected(mask: np.ndarray, structure: np.ndarray) -> tuple[np.ndarray, int]:
    """Pieces of a mask.

    Parameters
    ----------
    mask : bool array
        Voxels.
    structure : bool array
        Which neighbours hang together.

    Returns
    -------
    pieces : int array
        Number of the piece of each voxel, from 1; 0 outside.
    n : int
        How many there are.
    """
    found: Any = label(mask, structure)
    return found[0], int(found[1])


def fill_missing_slices(labels: Labels, affine: Affine) -> tuple[Labels, list[str]]:
    """Interpolate slices that hold no heart between slices that do.

    Parameters
    ----------
    labels : (i, j, k) uint8 array
        `OUTSIDE`, `LV`, `MUSCLE`, `RV` or `BEYOND` of each voxel.
    affine : (4, 4) array
        Voxel indices to RAS positions [mm].

    Returns
    -------
    labels : (i, j, k) array
        Without gaps of one or two slices.
    repairs : list of str
        A sentence for each gap.

    Raises
    ------
    InputError
        If three or more neighbouring slices are missing.
    """
    repairs = []
    for axis in range(3):
        missing = _missing(labels, axis)
        for first, last in _runs(missing):
            at = np.argwhere(np.take(labels, [first - 1, last + 1], axis) > 0).mean(axis=0)
            at[axis] = 0.5 * (first + last)
            which = f"slice {first}" if first == last else f"slices {first} to {last}"
            which += f" along axis {'ijk'[axis]}, near {place(affine, at)},"
            if last - first >= _MAX_MISSING:
                raise InputError(
                    f"{which} hold no heart although their neighbours do: at most {_MAX_MISSING} "
                    "neighbouring slices are interpolated; segment the missing ones."
                )
            repairs.append(f"{which} missing: interpolated between the neighbours")
        if missing.any():
            spacing = voxel_spacing(affine)
            labels = _interpolated(labels, spacing, axis, ~missing, 1)
    return labels, repairs


def make_isotropic(labels: Labels, affine: Affine) -> tuple[FinerLabels, Affine, list[str]]:
    """Interpolate slices between thick ones until voxels are nearly cubes.

    Parameters
    ----------
    labels : (i, j, k) uint8 array
        As for `fill_missing_slices`, with a margin of one voxel of background.
    affine : (4, 4) array
        Voxel indices to RAS positions [mm].

    Returns
    -------
    labels : (i, j, k) array
        On the finer grid.
    affine : (4, 4) array
        Of the finer grid; it covers the same volume.
    repairs : list of str
        A sentence if anything was done.
    """
    before = voxel_spacing(affine)
    for axis in np.argsort(-before).tolist():
        spacing = voxel_spacing(affine)
        n = int(np.rint(spacing[axis] / spacing.min()))
        if spacing[axis] < _MAX_RATIO * spacing.min():
            continue
        labels = _interpolated(labels, spacing, axis, np.ones(labels.shape[axis], bool), n)
        finer = np.eye(4)
        finer[axis, axis], finer[axis, 3] = 1 / n, 0.5 / n - 0.5
        affine = affine @ finer
    after = voxel_spacing(affine)
    if np.array_equal(before, after):
        return labels, affine, []
    text = (" x ".join(f"{length:.3g}" for length in edges) for edges in (before, after))
    return labels, affine, ["voxels of {} mm interpolated to {} mm".format(*text)]


def _missing(labels: Labels, axis: int) -> Bool[np.ndarray, "slice"]:
    """Slices with (nearly) no heart between slices with much more, on both sides."""
    count = np.count_nonzero(labels, axis=tuple(a for a in range(3) if a != axis))
    missing = np.zeros(len(count), bool)
    filled = np.flatnonzero(count)
    for n in range(filled[0] + 1, filled[-1]):
        around = count[max(n - 3, 0) : n + 4].max()
        missing[n] = count[n] < _NEARLY_EMPTY * around
    for first, last in _runs(missing):
        least = min(count[first - 1], count[last + 1])
        missing[first : last + 1] = count[first : last + 1].max() < _NEARLY_EMPTY * least
    return missing


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """First and last index of each run of true values."""
    steps = np.diff(np.concatenate([[0], flags.astype(int), [0]]))
    firsts, lasts = np.flatnonzero(steps > 0), np.flatnonzero(steps < 0) - 1
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def _interpolated(labels: Labels, spacing, axis: int, known: np.ndarray, n: int) -> FinerLabels:
    """Labels on a grid `n` times finer along an axis, from its known slices."""
    slices = np.moveaxis(labels, axis, 0)
    in_plane = np.delete(spacing, axis)
    index = np.flatnonzero(known)
    bodies = {
        "hull": (slices != OUTSIDE) & (slices != BEYOND),
        "lv": slices == LV,
        "rv": slices == RV,
        "beyond": slices == BEYOND,
    }
    blood = bodies["lv"] | bodies["rv"]
    baseward = _baseward(slices)
    out = np.empty((n * len(slices), *slices.shape[1:]), np.uint8)
    at = (np.arange(len(out)) + 0.5) / n - 0.5
    pairs = np.clip(np.searchsorted(index, at, side="right") - 1, 0, len(index) - 1)
    for low in np.unique(pairs):
        a, b = int(index[low]), int(index[min(low + 1, len(index) - 1)])
        here = np.flatnonzero(pairs == low)
        if a == b or np.array_equal(slices[a], slices[b]):
            out[here] = slices[a]
            continue
        height = (b - a) * spacing[axis]
        ends = _end_distances(bodies, a, b, in_plane, height)
        end = _flat_end(ends["hull"], blood[a if baseward > 0 else b], baseward, in_plane, height)
        for z in here:
            t = np.clip((at[z] - a) / (b - a), 0, 1)
            inside = {name: (1 - t) * d[0] + t * d[1] < 0 for name, d in ends.items()}
            layer = np.where(inside["beyond"], BEYOND, OUTSIDE)
            for name, number in (("hull", MUSCLE), ("rv", RV), ("lv", LV)):
                layer[inside[name]] = number
            out[z] = np.where(end, slices[a if t < 0.5 else b], layer)
    return np.moveaxis(out, 0, axis)


def _baseward(slices: np.ndarray) -> int:
    """The end of the stack (1: last, -1: first) to which the left ventricle's pool opens."""
    lv, outside = slices == LV, (slices == OUTSIDE) | (slices == BEYOND)
    up = np.count_nonzero(lv[:-1] & outside[1:])
    down = np.count_nonzero(lv[1:] & outside[:-1])
    return int(np.sign(up - down))


def _end_distances(bodies, a: int, b: int, in_plane, height: float) -> dict[str, tuple]:
    """Signed distances [mm] within two slices to each body, negative inside.

    A body that ends between the slices tapers: in the slice without it the distance is that
    between the slices, for a pool a wall's thickness more than for the whole heart.
    """
    ends: dict[str, tuple] = {}
    for name, body in bodies.items():
        pair = []
        for this, other in ((a, b), (b, a)):
            if body[this].any():
                pair.append(_signed_distance(body[this], in_plane))
            else:
                pair.append(np.full(body.shape[1:], height if body[other].any() else _FAR))
        if name in ("lv", "rv"):
            for side, this in enumerate((a, b)):
                if not body[this].any():
                    pair[side] = np.maximum(pair[side], ends["hull"][side] + _CAP)
        ends[name] = tuple(pair)
    return ends


def _signed_distance(mask: np.ndarray, spacing) -> np.ndarray:
    if mask.all():
        return np.full(mask.shape, -_FAR)
    return distances(mask, spacing)[0] - distances(~mask, spacing)[0]


def _flat_end(
    hull: tuple[np.ndarray, np.ndarray], pools: np.ndarray, baseward: int, in_plane, height: float
) -> np.ndarray:
    """Columns that were cut off at a valve plane between two slices: they do not taper.

    There the heart ends towards its base, over a width of pool that only a valve has.
    """
    near, far = hull if baseward > 0 else hull[::-1]
    end = (near < 0) & (far > 0.5 * height) & (baseward != 0)
    core = distances(~np.pad(end & pools, 1), in_plane)[0][1:-1, 1:-1] > _VALVE_RADIUS
    if not core.any():
        return core
    return end & (distances(core, in_plane)[0] < _RIM)
