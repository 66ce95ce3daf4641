r"""Late gadolinium enhancement (LGE): from intensities to healthy tissue, border zone and core.

A *convention* says above which intensity tissue counts as border zone and as core. None is right
and all are in use; masses of border zone differ between them by a factor of three (46 g by FWHM, 15
by n-SD, 17 by Roes in the same patients), so whoever uses one should see the others beside it.

The intensity of a tetrahedron is the mean over its volume of the image between the voxels
(trilinear), taken from voxels of which 70 % or more lie in the heart: so blood and lung do not leak
into the wall. Two quantities of the image enter the thresholds:

* *remote* myocardium, free of scar: the voxels that the user marks; else all the myocardium, seen
  through statistics that scar, being brighter, hardly moves: the normal distribution that fits the
  main peak of the histogram from 1.5 SD below to 0.75 SD above it. The remote peak is the highest
  marked voxel, else mean + 3 SD, the expected highest of 500 voxels.
* the *maximum* of the enhanced tissue: the 99th percentile of what lies 2 SD above remote, averaged
  over the tetrahedra around each node: a single bright voxel does not decide.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import map_coordinates
from scipy.signal import correlate

from twinheart.errors import InputError
from twinheart.imaging.image import Image, points_to_voxels, voxels_to_points
from twinheart.mesh import TetMesh
from twinheart.mesh.quality import mean_edge, volumes

HEALTHY, BORDER, CORE = 0, 1, 2

# Less of the heart inside the image than this is a mistake of coordinates, not a cropped image.
_LEAST_COVERED = 0.5
# Voxels that belong to the heart for less than this share say more about blood or lung.
_LEAST_SHARE = 0.7
_PEAK_SD = 3.0
_MAD = 1.4826  # standard deviation over median absolute deviation of a normal distribution
_FINEST_QUADRATURE = 6
# Part of the remote peak that is fitted [SD], and the fewest voxels in a bin for that.
_FIT, _LEAST_COUNT = (-1.5, 0.75), 30


class Threshold(NamedTuple):
    """An intensity: ``factor`` times the maximum ("max"), the remote peak ("peak") or one unit of
    the image ("value"), or that many standard deviations above the remote mean ("sd").
    """  # noqa: D205

    factor: float
    of: str

    def __str__(self) -> str:
        """Words for tables."""
        words = {
            "max": f"{100 * self.factor:g} % of the maximum",
            "sd": f"remote mean + {self.factor:g} SD",
            "peak": "the peak of remote tissue",
            "value": f"{self.factor:g}",
        }
        return words[self.of]


class Convention(NamedTuple):
    """What counts as core and as border zone: more than `core`, and from `border` to `core`.

    Attributes
    ----------
    name : str
        Its name on the command line.
    core, border : Threshold
        Equal where the convention knows no border zone.
    source : str
        Who uses it.
    """

    name: str
    core: Threshold
    border: Threshold
    source: str


_SCHMIDT = "Schmidt et al. 2007, doi:10.1161/CIRCULATIONAHA.106.653568"
_ROES = "Roes et al. 2009, doi:10.1161/CIRCIMAGING.108.826529"
_YAN = "Yan et al. 2006, doi:10.1161/CIRCULATIONAHA.106.613414"
_FLETT = "compared by Flett et al. 2010, doi:10.1186/1532-429X-12-S1-O41"
_ADAS = "pixel signal intensity as in ADAS 3D, PubMed 35644355"


def _share(name: str, core: float, border: float, source: str) -> Convention:
    return Convention(name, Threshold(core, "max"), Threshold(border, "max"), source)


def _deviations(n: int) -> Convention:
    return Convention(f"sd{n}", Threshold(float(n), "sd"), Threshold(float(n), "sd"), _FLETT)


CONVENTIONS: dict[str, Convention] = {
    convention.name: convention
    for convention in (
        Convention("fwhm", Threshold(0.5, "max"), Threshold(1.0, "peak"), _SCHMIDT),
        _share("roes", 0.50, 0.35, _ROES),
        Convention("sd2-3", Threshold(3.0, "sd"), Threshold(2.0, "sd"), _YAN),
        *(_deviations(n) for n in (2, 3, 4, 5, 6)),
        _share("adas", 0.60, 0.40, _ADAS),
        _share("adas-55-45", 0.55, 0.45, _ADAS),
        _share("adas-65-35", 0.65, 0.35, _ADAS),
        _share("adas-70-30", 0.70, 0.30, _ADAS),
    )
}


def find_convention(text: str) -> Convention:
    """Convention of a name, or one's own: ``max:0.55,0.4``, ``sd:4,2`` or ``value:310,240``.

    Parameters
    ----------
    text : str
        A key of `CONVENTIONS`, or a scale and the thresholds of core and border zone.

    Returns
    -------
    Convention
        What it means.

    Raises
    ------
    InputError
        If the name is unknown or the thresholds are no two numbers, the greater first.

    Examples
    --------
    >>> from twinheart.imaging.enhancement import find_convention
    >>> str(find_convention("sd:4,2").core)
    'remote mean + 4 SD'
    """
    if text in CONVENTIONS:
        return CONVENTIONS[text]
    scale, _, numbers = text.partition(":")
    try:
        core, border = (float(number) for number in numbers.split(","))
    except ValueError:
        core = border = math.nan
    usable = scale in ("max", "sd", "value") and math.isfinite(core) and 0 < border <= core
    if not usable or (scale == "max" and core >= 1):
        raise InputError(
            f"unknown convention '{text}'; expected one of {', '.join(CONVENTIONS)}, or max:CORE,"
            "BORDER (shares below 1), sd:CORE,BORDER or value:CORE,BORDER with CORE >= BORDER > 0."
        )
    return Convention(text, Threshold(core, scale), Threshold(border, scale), "given by the user")


class Remote(NamedTuple):
    """Intensities of myocardium without scar, in units of the image."""

    mean: float
    sd: float
    peak: float


class Enhancement(NamedTuple):
    """An LGE image seen from a mesh.

    Attributes
    ----------
    intensity : (tet,) array
        Mean over each tetrahedron [unit of the image]; NaN outside the image.
    remote : Remote
        Myocardium without scar.
    maximum : float
        Of the enhanced tissue [unit of the image].
    """

    intensity: Float[np.ndarray, "tet"]
    remote: Remote
    maximum: float

    def value(self, threshold: Threshold) -> float:
        """Intensity of a threshold in this image."""
        if threshold.of == "sd":
            return self.remote.mean + threshold.factor * self.remote.sd
        unit = {"max": self.maximum, "peak": self.remote.peak, "value": 1.0}[threshold.of]
        return threshold.factor * unit


def classify(enhancement: Enhancement, convention: Convention) -> Int[np.ndarray, "tet"]:
    """Class of each tetrahedron: 0 healthy, 1 border zone, 2 core.

    Parameters
    ----------
    enhancement : Enhancement
        What `measure_enhancement` returns.
    convention : Convention
        Where the classes begin.

    Returns
    -------
    (tet,) int array
        Classes; healthy where the image does not reach.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.enhancement import (
    ...     CONVENTIONS, Enhancement, Remote, classify
    ... )
    >>> seen = Enhancement(np.array([20.0, 45.0, 90.0]), Remote(20.0, 3.0, 29.0), 100.0)
    >>> classify(seen, CONVENTIONS["roes"])
    array([0, 1, 2], dtype=int32)
    """
    core = enhancement.value(convention.core)
    # Where the remote peak lies above the threshold of the core there is no border zone left.
    border = min(enhancement.value(convention.border), core)
    classes = np.zeros(len(enhancement.intensity), dtype=np.int32)
    classes[enhancement.intensity > border] = BORDER
    classes[enhancement.intensity > core] = CORE
    return classes


def measure_enhancement(
    image: Image, mesh: TetMesh, *, remote: Bool[np.ndarray, "i j k"] | None = None
) -> Enhancement:
    """Sample an LGE image on the tetrahedra of a heart.

    Parameters
    ----------
    image : Image
        Intensities, in the coordinates of the mesh.
    mesh : TetMesh
        The myocardium [mm].
    remote : (i, j, k) bool array, optional
        Voxels of remote myocardium; default: found from the statistics (see the module).

    Returns
    -------
    Enhancement
        Intensities, remote statistics and maximum.

    Raises
    ------
    InputError
        If the image does not cover the heart, `remote` is empty, or the image shows no contrast.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging import Image
    >>> from twinheart.imaging.enhancement import measure_enhancement
    >>> from twinheart.mesh.generate import slab
    >>> mesh = slab((4.0, 4.0, 4.0), 1.0)
    >>> image = Image(np.random.default_rng(0).normal(100.0, 5.0, (8, 8, 8)), np.eye(4))
    >>> seen = measure_enhancement(image, mesh)
    >>> bool(abs(seen.remote.mean - 100) < 5)
    True
    """
    values = np.asarray(image.values, dtype=float)
    if remote is not None and remote.shape != values.shape:
        raise InputError(
            f"the remote region has {remote.shape} voxels, the LGE {values.shape}: mark it in the "
            "LGE image itself."
        )
    points = _quadrature(image, mesh)
    volume = np.abs(volumes(mesh.points, mesh.tets))
    covered = np.mean([_inside(at, values.shape) for at in points], axis=0)
    if (volume @ covered) < _LEAST_COVERED * volume.sum():
        raise InputError(_no_overlap(image, mesh))
    share = _shares(points, image, volume)
    in_heart = (share >= _LEAST_SHARE) & np.isfinite(values)
    intensity = _means(np.nan_to_num(values), in_heart, points)
    intensity[covered == 0] = np.nan
    if remote is None:
        seen = values[in_heart] if in_heart.any() else intensity[np.isfinite(intensity)]
        statistics = _robust_remote(seen)
    else:
        marked = values[remote & np.isfinite(values)]
        if marked.size < 2:
            raise InputError("no voxel is marked as remote myocardium: check the label.")
        statistics = Remote(float(marked.mean()), float(marked.std()), float(marked.max()))
    if not statistics.sd > 0:
        raise InputError(
            "the image has no contrast within the heart (a constant): is it the LGE, and do its "
            "coordinates fit the heart?"
        )
    return Enhancement(intensity, statistics, _maximum(intensity, volume, mesh, statistics))


def _quadrature(image: Image, mesh: TetMesh) -> list[Float[np.ndarray, "tet 3"]]:
    """Voxel coordinates of evenly spread points of every tetrahedron, finer than the voxels."""
    corners = points_to_voxels(image.affine, mesh.points)[mesh.tets]
    n = math.ceil(1.5 * mean_edge(mesh) / image.spacing.min())
    n = min(max(1, n), _FINEST_QUADRATURE)
    lattice = [
        np.array([i, j, k, n - 1 - i - j - k]) + 0.25
        for i in range(n)
        for j in range(n - i)
        for k in range(n - i - j)
    ]
    return [np.einsum("a,tai->ti", weight / n, corners) for weight in lattice]


def _inside(at, shape) -> np.ndarray:
    return ((at >= -0.5) & (at <= np.array(shape) - 0.5)).all(axis=1)


def _shares(points, image: Image, volume) -> Float[np.ndarray, "i j k"]:
    """Share of each voxel that the heart fills."""
    shape = image.values.shape
    filled = np.zeros(math.prod(shape))
    for at in points:
        inside = _inside(at, shape)
        nearest = np.clip(np.rint(at[inside]).astype(np.int64), 0, np.array(shape) - 1)
        flat = np.ravel_multi_index(tuple(nearest.T), shape)
        filled += np.bincount(flat, volume[inside] / len(points), math.prod(shape))
    return (filled / abs(np.linalg.det(image.affine[:3, :3]))).reshape(shape)


def _means(values, in_heart, points) -> np.ndarray:
    """Mean of the image over each tetrahedron, from voxels in the heart where there are any."""
    weight = in_heart.astype(float)
    masked, total, plain = (np.zeros(len(points[0])) for _ in range(3))
    for at in points:

        def between(image, at=at):
            return map_coordinates(image, at.T, order=1, mode="nearest")

        masked += between(values * weight)
        total += between(weight)
        plain += between(values)
    known = total > 0.1 * len(points)
    return np.where(known, masked / np.where(known, total, 1.0), plain / len(points))


def _robust_remote(seen: np.ndarray) -> Remote:
    """Mean and SD of the normal distribution that fits the peak of the histogram."""
    mean = _mode(seen)
    sd = _MAD * float(np.median(mean - seen[seen <= mean]))
    for _ in range(3):
        if not sd > 0:
            break
        # less of the side of the scar; the logarithm of a normal density is a parabola
        bins = mean + sd * np.arange(_FIT[0], _FIT[1] + 0.05, 0.125)
        counts, _ = np.histogram(seen, bins)
        if counts.min() < _LEAST_COUNT:
            break
        place = (bins[1:] + bins[:-1]) / 2 - mean
        bend, slope, _ = np.polyfit(place, np.log(counts), 2, w=np.sqrt(counts))
        if not bend < 0:
            break
        mean += float(np.clip(-slope / (2 * bend), -sd, sd))
        sd = float(np.sqrt(-0.5 / bend))
    return Remote(mean, sd, mean + _PEAK_SD * sd)


def _mode(values: np.ndarray) -> float:
    """Most frequent value: the middle of the narrowest interval that holds an eighth of them."""
    values = np.sort(values)
    count = max(1, len(values) // 8)
    width = values[count - 1 :] - values[: len(values) - count + 1]
    start = int(width.argmin())
    return float(values[start : start + count].mean())


def _maximum(intensity, volume, mesh: TetMesh, remote: Remote) -> float:
    """99th percentile by volume of the enhanced tissue, averaged around each node."""
    known = np.isfinite(intensity)
    nodes, weight = mesh.tets[known].ravel(), np.repeat(volume[known], 4)
    total = np.bincount(nodes, weight, mesh.n_nodes)
    mean = np.bincount(nodes, weight * np.repeat(intensity[known], 4), mesh.n_nodes)
    mean, total = mean[total > 0] / total[total > 0], total[total > 0]
    enhanced = mean > remote.mean + 2 * remote.sd
    if not enhanced.any():
        return float(mean.max())
    order = np.argsort(mean[enhanced], kind="stable")
    filled = np.cumsum(total[enhanced][order])
    return float(mean[enhanced][order][np.searchsorted(filled, 0.99 * filled[-1])])


def _no_overlap(image: Image, mesh: TetMesh) -> str:
    ends = np.meshgrid(*[(-0.5, n - 0.5) for n in image.values.shape], indexing="ij")
    corners = voxels_to_points(image.affine, np.stack(ends, -1).reshape(-1, 3))
    return (
        f"the image does not cover the heart: the image spans {_box(corners)} mm, the heart "
        f"{_box(mesh.points)} mm (RAS): give both in the same coordinates."
    )


def _box(points: np.ndarray) -> str:
    low, high = points.min(axis=0), points.max(axis=0)
    return " x ".join(f"{a:.0f}..{b:.0f}" for a, b in zip(low, high, strict=True))


def offset_to_mask(mesh: TetMesh, mask: Image) -> Float[np.ndarray, "3"]:
    """Shift that brings a heart to the place where it overlaps most with a mask of its muscle.

    All shifts by whole voxels are compared at once (cross-correlation by Fourier transform), then
    the best is refined by the parabola through it and its neighbours. A rotation is not sought.

    Parameters
    ----------
    mesh : TetMesh
        The myocardium [mm].
    mask : Image
        True (not 0) in the myocardium.

    Returns
    -------
    (3,) array
        To be added to the points of the mesh [mm].

    Raises
    ------
    InputError
        If the mask is empty.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging import Image
    >>> from twinheart.imaging.enhancement import offset_to_mask
    >>> from twinheart.mesh.generate import slab
    >>> voxels = np.zeros((12, 12, 12))
    >>> voxels[5:9, 5:9, 5:9] = 1
    >>> shift = offset_to_mask(slab((4.0, 4.0, 4.0), 1.0), Image(voxels, np.eye(4)))
    >>> bool(np.abs(shift - 4.5).max() < 0.25)
    True
    """
    filled = np.argwhere(mask.values != 0)
    if not len(filled):
        raise InputError("the mask of the myocardium is empty: check the label.")
    low, high = filled.min(axis=0), filled.max(axis=0)
    wanted = (mask.values[tuple(map(slice, low, high + 1))] != 0).astype(float)
    points = _quadrature(mask, mesh)
    first = np.floor(np.min([at.min(axis=0) for at in points], axis=0) + 0.5).astype(np.int64)
    last = np.floor(np.max([at.max(axis=0) for at in points], axis=0) + 0.5).astype(np.int64)
    box = Image(np.zeros(last - first + 1, dtype=bool), mask.affine)
    volume = np.abs(volumes(mesh.points, mesh.tets))
    heart = _shares([at - first for at in points], box, volume)
    overlap = correlate(wanted, heart, mode="full", method="fft")
    best = np.array(np.unravel_index(int(overlap.argmax()), overlap.shape))
    shift = best - (np.array(heart.shape) - 1) + low - first
    return mask.affine[:3, :3] @ (shift + _vertex(overlap, best))


def _vertex(values: np.ndarray, peak: np.ndarray) -> np.ndarray:
    """Where the parabolas through a peak and its neighbours have their top, within half a step."""
    top = np.zeros(3)
    for axis in range(3):
        if 0 < peak[axis] < values.shape[axis] - 1:
            step = np.eye(3, dtype=int)[axis]
            before, at, after = (values[tuple(peak + k * step)] for k in (-1, 0, 1))
            bend = before - 2 * at + after
            top[axis] = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return np.clip(top, -0.5, 0.5)
