"""Making labels fit for meshing: what is done is said in a sentence, what is unsafe refused."""

import numpy as np
from jaxtyping import Bool, Int8
from scipy.ndimage import convolve1d, generate_binary_structure

from twinheart.errors import InputError
from twinheart.imaging.image import voxel_spacing
from twinheart.imaging.labels import ChamberMasks
from twinheart.imaging.slices import (
    BEYOND,
    LV,
    MUSCLE,
    OUTSIDE,
    RV,
    Affine,
    Labels,
    connected,
    distances,
    fill_missing_slices,
    make_isotropic,
    place,
)
from twinheart.imaging.valves import close_walls

_MARGIN = 4  # voxels of background around the heart
_ISLAND = 0.01  # share of a body below which a separate piece of it is an island
_LARGE_ISLAND = 0.1  # the same once missing slices no longer part bodies
_LONELY = 3  # a voxel with fewer of its own among its 26 neighbours is noise
_MIN_VOXELS = 100  # of a pool or of the muscle
_NAMES = {OUTSIDE: "background", LV: "LV pool", MUSCLE: "muscle", RV: "RV pool"}
_NAMES[BEYOND] = "atria and vessels"
_FACES, _CORNERS = generate_binary_structure(3, 1), np.ones((3, 3, 3), bool)
# Thin walls climb diagonally: muscle hangs together by corners, what it parts by faces.
_NEIGHBOURS = {OUTSIDE: _FACES, LV: _FACES, MUSCLE: _CORNERS, RV: _FACES, BEYOND: _CORNERS}


def repair_masks(masks: ChamberMasks) -> tuple[ChamberMasks, tuple[str, ...]]:
    """Make the masks of a heart fit for meshing, or say where they are not.

    Noise and islands take the label of what surrounds them; holes are filled; one or two missing
    slices and the space between thick slices are interpolated; pools that touch are parted; holes
    of at most two voxels in a wall are closed; a right ventricle without a wall gets one of 3 mm.
    The valve planes, where a pool meets the outside at the base, are recognised and stay open.

    Parameters
    ----------
    masks : ChamberMasks
        As labelled.

    Returns
    -------
    masks : ChamberMasks
        Cropped to the heart with a margin of background, nearly isotropic; each pool and the
        muscle are one piece; no pool touches the outside or the other pool, corners included,
        but at `openings`.
    repairs : tuple of str
        A sentence for each repair; places are in mm, RAS.

    Raises
    ------
    InputError
        If a pool or the muscle is (nearly) empty or falls into large pieces, three or more
        neighbouring slices are missing, or a pool leaks through a hole of more than two voxels
        away from the valves. The message names the place.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging import ChamberMasks, repair_masks
    >>> x = np.stack(np.meshgrid(*[np.arange(-20.0, 21.0)] * 3, indexing="ij"))
    >>> radius, below = np.linalg.norm(x, axis=0), x[2] < 8
    >>> pool, muscle = (radius < 12) & below, (radius >= 12) & (radius < 18) & below
    >>> muscle[20, 20, 4:7] = False
    >>> masks, repairs = repair_masks(ChamberMasks(pool, muscle, None, np.eye(4)))
    >>> repairs
    ('3 single voxels took the label of what surrounds them',)
    """
    labels, affine = _cropped(masks)
    _require_bodies(labels, masks)
    repairs: list[str] = []
    labels, said = _without_noise(labels)
    repairs += said
    labels, said = _without_strays(labels, affine, _ISLAND)
    repairs += said
    labels, said = fill_missing_slices(labels, affine)
    repairs += said
    labels, affine, said = make_isotropic(labels, affine)
    repairs += said
    labels, said = _without_strays(labels, affine, _LARGE_ISLAND)
    repairs += said
    _require_one_piece(labels, affine)
    labels, openings, said = close_walls(labels, affine, voxel_spacing(masks.affine))
    repairs += said
    labels, said = _without_strays(labels, affine, _LARGE_ISLAND)
    repairs += said
    openings &= (labels == OUTSIDE) | (labels == BEYOND)
    repaired = ChamberMasks(
        labels == LV,
        labels == MUSCLE,
        labels == RV if masks.rv_pool is not None else None,
        affine,
        beyond=(labels == BEYOND) & ~openings if masks.beyond is not None else None,
        openings=openings,
    )
    return repaired, tuple(repairs)


def _cropped(masks: ChamberMasks) -> tuple[Labels, Affine]:
    """One array of labels around the heart, with a margin, and its affine."""
    labels = np.zeros(masks.lv_pool.shape, np.uint8)
    if masks.beyond is not None:
        labels[masks.beyond] = BEYOND
    for mask, number in ((masks.lv_pool, LV), (masks.myocardium, MUSCLE), (masks.rv_pool, RV)):
        if mask is not None:
            labels[mask] = number
    heart = (labels != OUTSIDE) & (labels != BEYOND)
    corners = []
    for axis in range(3):
        filled = np.flatnonzero(heart.any(axis=tuple(a for a in range(3) if a != axis)))
        corners.append((filled[0], filled[-1] + 1) if len(filled) else (0, 1))
    low = np.array([a for a, _ in corners]) - _MARGIN
    high = np.array([b for _, b in corners]) + _MARGIN
    shape = np.array(labels.shape)
    inner = labels[tuple(slice(max(a, 0), b) for a, b in zip(low, high, strict=True))]
    before, after = np.maximum(-low, 0), np.maximum(high - shape, 0)
    shift = np.eye(4)
    shift[:3, 3] = low
    return np.pad(inner, list(zip(before, after, strict=True))), masks.affine @ shift


def _require_bodies(labels: Labels, masks: ChamberMasks) -> None:
    for number in (LV, MUSCLE, *((RV,) if masks.rv_pool is not None else ())):
        n = np.count_nonzero(labels == number)
        if n < _MIN_VOXELS:
            raise InputError(
                f"the {_NAMES[number]} has {n} voxels, expected at least {_MIN_VOXELS}: is it the "
                "right label?"
            )


def _without_noise(labels: Labels) -> tuple[Labels, list[str]]:
    """Lonely voxels take the label that is most frequent around them."""
    around = np.stack([_around(labels == n) for n in range(5)])
    own = np.take_along_axis(around, labels[None].astype(int), axis=0)[0] - 1
    lonely = own < _LONELY
    if not lonely.any():
        return labels, []
    labels = np.where(lonely, np.argmax(around, axis=0).astype(np.uint8), labels)
    n = int(np.count_nonzero(lonely))
    return labels, [f"{n} single voxel{'s' * (n > 1)} took the label of what surrounds them"]


def _around(mask: Bool[np.ndarray, "i j k"]) -> Int8[np.ndarray, "i j k"]:
    """Voxels of a mask in the cube of 27 around each voxel."""
    count = mask.astype(np.int8)
    for axis in range(3):
        count = convolve1d(count, [1, 1, 1], axis, mode="constant")
    return count


def _without_strays(labels: Labels, affine: Affine, share: float) -> tuple[Labels, list[str]]:
    """Islands and enclosed holes take the label of the nearest voxel that is none."""
    strays = np.zeros(labels.shape, bool)
    repairs = []
    for number in range(5):
        pieces, sizes = _pieces(labels, number)
        if len(sizes) < 2:
            continue
        small = np.flatnonzero(sizes < share * sizes.sum()) + 1
        if number == OUTSIDE:
            small = np.setdiff1d(np.arange(1, len(sizes) + 1), np.unique(_faces(pieces)))
        if not len(small):
            continue
        stray = np.isin(pieces, small)
        strays |= stray
        largest = small[np.argmax(sizes[small - 1])]
        repairs.append(_stray_sentence(number, len(small), stray, pieces == largest, affine))
    if strays.any():
        _, nearest = distances(~strays, voxel_spacing(affine))
        labels = labels[tuple(nearest)]
    return labels, repairs


def _pieces(labels: Labels, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Connected pieces of a label, numbered from 1, and their sizes."""
    pieces, _ = connected(labels == number, _NEIGHBOURS[number])
    return pieces, np.bincount(pieces.ravel())[1:]


def _faces(pieces: np.ndarray) -> np.ndarray:
    """What lies on the faces of the box."""
    ends = [np.take(pieces, (0, -1), axis).ravel() for axis in range(3)]
    return np.concatenate(ends)


def _stray_sentence(number: int, n: int, stray, largest: Bool[np.ndarray, "i j k"], affine) -> str:
    volume = np.count_nonzero(stray) * abs(np.linalg.det(affine[:3, :3])) / 1e3
    where = f"({volume:.2f} ml), {'near' if n == 1 else 'the largest near'} "
    where += place(affine, np.argwhere(largest))
    plural = "s" * (n > 1)
    if number == OUTSIDE:
        return f"{n} hole{plural} in the muscle filled {where}"
    return f"{n} island{plural} of the {_NAMES[number]} removed {where}"


def _require_one_piece(labels: Labels, affine: Affine) -> None:
    for number in (LV, MUSCLE, RV):
        pieces, sizes = _pieces(labels, number)
        if len(sizes) < 2:
            continue
        second = int(np.argsort(sizes)[-2])
        volume = sizes[second] * abs(np.linalg.det(affine[:3, :3])) / 1e3
        raise InputError(
            f"the {_NAMES[number]} falls into {len(sizes)} pieces; the second one, of "
            f"{volume:.2f} ml, lies near {place(affine, np.argwhere(pieces == second + 1))}: "
            "connect it in the labels or remove it."
        )
