"""From a stack of contours to chamber masks: the shapes between the slices are interpolated.

Raya & Udupa, Shape-based interpolation of multidimensional objects, IEEE Trans. Med. Imaging 1990,
doi:10.1109/42.52980; with cubic splines: Herman, Zheng & Bucholtz, IEEE Comput. Graph. Appl. 1992,
doi:10.1109/38.135915.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline, RBFInterpolator
from scipy.ndimage import map_coordinates, zoom

from twinheart.imaging.contour_file import Contour
from twinheart.imaging.contour_stack import (
    ContourStack,
    Places,
    Slice,
    contour_stack,
    distance_to_outlines,
)
from twinheart.imaging.labels import ChamberMasks

# Voxel over the edge length of the mesh to come, and the finest and coarsest [mm].
_STEP, _FINEST, _COARSEST = 0.75, 0.6, 1.0
_MARGIN = 6.0  # mm around the contours
_RV_WALL = 3.0  # mm, where no epicardium is drawn over the RV
_TIP_WALL = 3.0  # mm of muscle left around the tip of a cavity
_LEAST_WALL = 2.0  # voxels of muscle around a cavity between the slices
# Valve planes further [mm] above the uppermost slice are not reached.
_HIGHEST = 60.0
# Least spread [mm] of valve points across their longest extent that says how a plane is tilted,
# and least cosine of its tilt.
_SPREAD, _TILT = 5.0, 0.3
# Long-axis points nearer [mm] than this to a slice say nothing new.
_NEAR_SLICE = 2.0
# Distances [mm] between the points, and the nodes, at which long-axis views correct a surface.
_THIN, _COARSE = 3.0, 4.0
# Largest correction [mm]: beyond it the views do not show the same heart.
_MOST = 15.0

Field = Float[np.ndarray, "i j k"]


@dataclass(frozen=True)
class _Lattice:
    """Voxels in the axes of the stack."""

    origin: Float[np.ndarray, "3"]
    shape: tuple[int, int, int]
    step: float

    def along(self, axis: int) -> np.ndarray:
        return self.origin[axis] + self.step * np.arange(self.shape[axis])

    def plane(self) -> np.ndarray:
        """(node, 2) positions in a slice."""
        return np.stack(np.meshgrid(self.along(0), self.along(1), indexing="ij"), -1).reshape(-1, 2)


@dataclass(frozen=True)
class _Base:
    """The plane in which a ventricle ends."""

    centre: Float[np.ndarray, "3"]
    normal: Float[np.ndarray, "3"]

    def above(self, lattice: _Lattice) -> np.ndarray:
        u, v, w = (
            n * (lattice.along(axis) - c)
            for axis, (n, c) in enumerate(zip(self.normal, self.centre, strict=True))
        )
        return u[:, None, None] + v[:, None] + w > 0


def masks_from_contours(
    contours: list[Contour], edge: float
) -> tuple[ChamberMasks, tuple[str, ...]]:
    """Fill in the ventricles between the slices of a stack of contours.

    In every slice each surface is the signed distance to its outline; between slices the distances
    are interpolated by a cubic spline. Below its last slice a surface closes like a paraboloid
    whose depth continues the growth of its area, or reaches the apex or the lowest point of a
    long-axis view. Above its uppermost slice it goes on unchanged to the plane through its valve
    points (tricuspid and pulmonary, mitral and aortic together), or without them half a slice.
    Long-axis contours correct all that by a smooth function that vanishes in the slices.

    Parameters
    ----------
    contours : list of Contour
        As `read_contours` returns them.
    edge : float
        Edge length of the mesh to come [mm].

    Returns
    -------
    ChamberMasks
        Cubic voxels in the axes of the stack, for `repair_masks`.
    tuple of str
        Sentences for the user.

    Raises
    ------
    InputError
        As for `contour_stack`.

    References
    ----------
    doi:10.1109/42.52980, doi:10.1109/38.135915

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.contour_file import Contour
    >>> from twinheart.imaging.from_contours import masks_from_contours
    >>> angle = np.radians(np.arange(0, 360, 4.0))
    >>> ring = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    >>> def outline(part, radius, z):
    ...     return Contour(part, f"{z:g}", np.sqrt(radius**2 - z**2) * ring + [0, 0, z])
    >>> drawn = [outline("lv_epi", 30.0, z) for z in (-27.0, -19.0, -11.0, -3.0)]
    >>> drawn += [outline("lv_endo", 21.0, z) for z in (-19.0, -11.0, -3.0)]
    >>> masks, _ = masks_from_contours(drawn, 1.5)
    >>> round(masks.volumes_ml()["lv_pool"] / (2 / 3 * np.pi * 21**3 / 1e3 + 1.35), 1)
    1.0
    """
    stack = contour_stack(contours)
    step = float(np.clip(_STEP * edge, _FINEST, _COARSEST))
    names = [n for n in ("LV", "RV") if any(n in s.outlines for s in stack.slices)]
    bases = {name: _base(stack, name) for name in names}
    lattice = _lattice(stack, bases, step)
    fields, notes = {}, []
    for surface in ("epi", *names):
        slices, maps = _maps(stack, surface, lattice)
        heights = np.array([s.height for s in slices])
        depth = _depth(stack, surface, heights, maps, lattice)
        field = _interpolated(heights, maps, depth, lattice)
        if surface != "epi":  # the muscle around a tip
            tip = lattice.along(2) < heights[0]
            field[..., tip] = np.maximum(field[..., tip], fields["epi"][..., tip] + _TIP_WALL)
        fields[surface], moved = _corrected(field, stack, surface, slices, lattice)
        notes += [f"long-axis contours move the {_SAID[surface]} by {moved:.1f} mm on average"] * (
            moved > 0
        )
    right = [s for s in stack.slices if "RV" in s.outlines]
    bare = [s.name for s in right if not s.has_rv_wall]
    if bare:
        where = "any slice" if len(bare) == len(right) else f"slice {', '.join(bare)}"
        notes.append(
            f"no epicardium is drawn over the RV in {where}: a wall of {_RV_WALL:g} mm is put there"
        )
    for name in names:
        how = (
            "through its valve points" if len(stack.valves[name]) else "half a slice above the last"
        )
        notes.append(f"the base of the {name} is the plane {how}")
    return _masks(fields, bases, stack, lattice), tuple(notes)


_SAID = {"epi": "epicardium", "LV": "LV's endocardium", "RV": "RV's endocardium"}


def _base(stack: ContourStack, name: str) -> _Base:
    uppermost = max(s.height for s in stack.slices if name in s.outlines)
    points, up = stack.valves[name], np.array([0.0, 0.0, 1.0])
    if not len(points):
        return _Base(np.array([0.0, 0.0, uppermost + 0.5 * stack.spacing]), up)
    centre = points.mean(axis=0)
    _, spread, directions = np.linalg.svd(points - centre)
    if len(points) > 2 and spread[1] / np.sqrt(len(points)) > _SPREAD:
        normal = directions[2] * np.sign(directions[2, 2])
    else:  # the points tell the tilt along one line at most
        line = directions[0] if spread[0] > _SPREAD else np.array([1.0, 0.0, 0.0])
        normal = up - (up @ line) * line
        normal /= np.linalg.norm(normal)
    return _Base(centre, normal if normal[2] > _TILT else up)


def _lattice(stack: ContourStack, bases: dict[str, _Base], step: float) -> _Lattice:
    flat = np.concatenate([o for s in stack.slices for found in s.outlines.values() for o in found])
    views = np.concatenate([*stack.long_axis.values(), *stack.valves.values(), stack.apex])
    across = np.concatenate([flat, views[:, :2]])
    low, high = across.min(axis=0) - _MARGIN, across.max(axis=0) + _MARGIN
    bottom = np.min([stack.slices[0].height - stack.spacing, *views[:, 2]]) - _MARGIN
    tops = [
        b.centre[2] - ((flat - b.centre[:2]) @ b.normal[:2] / b.normal[2]).min()
        for b in bases.values()
    ]
    top = min(max(tops), stack.slices[-1].height + _HIGHEST) + _MARGIN
    # the LV's base lies midway between two layers of voxels
    middle = bases["LV"].centre[2]
    bottom = middle - (np.ceil((middle - bottom) / step) + 0.5) * step
    corner, size = np.array([*low, bottom]), np.array([*(high - low), top - bottom])
    n_u, n_v, n_w = (int(n) + 1 for n in np.ceil(size / step))
    return _Lattice(corner, (n_u, n_v, n_w), step)


def _maps(
    stack: ContourStack, surface: str, lattice: _Lattice
) -> tuple[list[Slice], Float[np.ndarray, "slice i j"]]:
    """Signed distance in each slice that shows a surface, from apex to base."""
    places = lattice.plane()
    slices, maps = [], []
    for one in stack.slices:
        found = []
        if surface in one.outlines:
            found.append(distance_to_outlines(one.outlines[surface], places))
        if surface == "epi" and "RV" in one.outlines and not one.has_rv_wall:
            found.append(distance_to_outlines(one.outlines["RV"], places) - _RV_WALL)
        if found:
            slices.append(one)
            maps.append(np.min(found, axis=0).reshape(lattice.shape[:2]))
    return slices, np.stack(maps)


def _depth(stack, surface, heights, maps, lattice) -> float:
    """How far below its last slice a surface reaches [mm]."""
    lowest = heights[0]
    marks = [stack.long_axis[surface][:, 2], stack.apex[:, 2] if surface == "epi" else []]
    marked = np.concatenate(marks)
    if len(marked) and lowest - marked.min() > lattice.step:
        depth = float(lowest - marked.min())
    else:
        gap = heights[1] - lowest if len(heights) > 1 else stack.spacing
        here, above = (np.count_nonzero(m < 0) for m in (maps[0], maps[min(1, len(maps) - 1)]))
        growth = max(above - here, here)  # a slice more would show what reaches below the next
        depth = gap * here / growth
    return max(depth, lattice.step)


def _interpolated(
    heights: np.ndarray, maps: Float[np.ndarray, "slice i j"], depth: float, lattice: _Lattice
) -> Field:
    """A function that is negative within a surface: its distance maps, between and beyond them."""
    levels = lattice.along(2)
    out = np.empty(lattice.shape, dtype=np.float32)
    within = (levels >= heights[0]) & (levels <= heights[-1])
    out[..., levels > heights[-1]] = maps[-1][..., None]
    if len(heights) > 1:
        spline = CubicSpline(heights, maps, axis=0, bc_type="natural")
        out[..., within] = np.moveaxis(spline(levels[within]), 0, -1)
    else:
        out[..., within] = maps[0][..., None]
    # a disc of radius r closes as q^2 = r^2 (1 - s / depth), with q the distance from its middle
    radius = max(float(-maps[0].min()), lattice.step)
    q = np.maximum(maps[0] + radius, 0)
    for k in np.flatnonzero(levels < heights[0]):
        share = 1 - (heights[0] - levels[k]) / depth
        out[..., k] = (q**2 - radius**2 * share) / (2 * radius)
    return out


def _corrected(
    field: Field, stack: ContourStack, surface: str, slices: list[Slice], lattice: _Lattice
) -> tuple[Field, float]:
    """The function moved so that it vanishes on long-axis contours; by how much, on average."""
    points = _thinned(stack.long_axis[surface], _THIN)
    heights = np.array([s.height for s in slices])
    if len(points):
        apart = np.abs(points[:, 2:] - heights).min(axis=1)
        points = points[apart > _NEAR_SLICE]
    if not len(points):
        return field, 0.0
    voxels = (points - lattice.origin).T / lattice.step
    off = map_coordinates(field, voxels, order=1, mode="nearest")
    known = np.abs(off) < _MOST
    points, off = points[known], off[known]
    drawn = [
        np.column_stack([o, np.full(len(o), s.height)])
        for s in slices
        for o in s.outlines.get(surface, [])
    ]
    fixed = _thinned(np.concatenate(drawn), 2 * _THIN)
    # |r| is the Green's function of the bi-Laplacian: the correction bends least
    smooth = RBFInterpolator(
        np.concatenate([points, fixed]),
        np.concatenate([off, np.zeros(len(fixed))]),
        kernel="linear",
        degree=0,
    )
    shape = [int(np.ceil(n * lattice.step / _COARSE)) + 1 for n in lattice.shape]
    nodes = [o + np.linspace(0, (n - 1) * lattice.step, m) for o, n, m in
             zip(lattice.origin, lattice.shape, shape, strict=True)]  # fmt: skip
    coarse = smooth(np.stack(np.meshgrid(*nodes, indexing="ij"), -1).reshape(-1, 3)).reshape(shape)
    factors = [n / m for n, m in zip(lattice.shape, shape, strict=True)]
    return field - zoom(coarse, factors, order=1), float(np.abs(off).mean())


def _thinned(points: Places, apart: float) -> Places:
    """One point in each cube of a side."""
    if not len(points):
        return points
    _, kept = np.unique(np.floor(points / apart), axis=0, return_index=True)
    return points[np.sort(kept)]


def _masks(
    fields: dict[str, Field], bases: dict[str, _Base], stack: ContourStack, lattice: _Lattice
) -> ChamberMasks:
    above = {name: base.above(lattice) for name, base in bases.items()}
    lv_pool = (fields["LV"] < 0) & ~above["LV"]
    cut, rv_pool, body = above["LV"], None, fields["epi"] < 0
    if "RV" in fields:
        rv_pool = (fields["RV"] < 0) & ~above["RV"] & ~lv_pool
        cut = np.where(fields["LV"] < fields["RV"], above["LV"], above["RV"])
        body = (body | (fields["RV"] < _LEAST_WALL * lattice.step)) & ~rv_pool
    affine = np.eye(4)
    affine[:3, :3] = lattice.step * stack.axes.T
    affine[:3, 3] = lattice.origin @ stack.axes
    return ChamberMasks(lv_pool, body & ~cut & ~lv_pool, rv_pool, affine)
