"""Label images of hearts whose truth is known, and the ways in which real ones are imperfect."""

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt
from scipy.spatial.transform import Rotation

from twinheart.imaging import Image, sample
from twinheart.imaging.image import voxels_to_points
from twinheart.mesh.biventricle import BiventricularShape

NAMES = "lv_pool=1,myo=2,rv_pool=3"
_MARGIN = 6.0  # mm of background around the heart


def heart_labels(
    spacing=(1.5, 1.5, 1.5), turn: Rotation | None = None, shape: BiventricularShape | None = None
) -> Image:
    """The demo heart as labels (1 LV pool, 2 muscle, 3 RV pool); its base is the plane z = 0.

    Voxels of `spacing` [mm]; the grid's axes are turned against the patient's by `turn`.
    """
    shape = shape or BiventricularShape()
    corners = np.stack(np.meshgrid(*shape.bounds().T), axis=-1).reshape(-1, 3)
    affine, size = _grid_around(corners, spacing, turn or Rotation.identity())
    points = voxels_to_points(affine, np.indices(size).reshape(3, -1).T)
    labels = np.zeros(len(points), np.uint8)
    below = points[:, 2] < 0
    labels[below & (shape.epicardium(points) < 0)] = 2
    labels[below & (shape.lv_cavity(points) < 0)] = 1
    labels[below & (shape.rv_cavity(points) < 0)] = 3
    return Image(labels.reshape(size), affine)


def _grid_around(corners, spacing, turn: Rotation) -> tuple[np.ndarray, tuple[int, ...]]:
    """Affine and shape of a turned grid that holds some points with a margin."""
    axes = turn.as_matrix()
    along = corners @ axes
    low, high = along.min(axis=0) - _MARGIN, along.max(axis=0) + _MARGIN
    affine = np.eye(4)
    affine[:3, :3] = axes * np.asarray(spacing)
    affine[:3, 3] = axes @ low
    size = np.ceil((high - low) / spacing).astype(int) + 1
    return affine, tuple(size.tolist())


def regridded(image: Image, spacing, turn: Rotation) -> Image:
    """The same labels on a grid of other spacing and direction, by the nearest voxel."""
    heart = voxels_to_points(image.affine, np.argwhere(image.values > 0))
    affine, size = _grid_around(heart, spacing, turn)
    points = voxels_to_points(affine, np.indices(size).reshape(3, -1).T)
    values = sample(image, points, nearest=True, outside=0.0)
    return Image(values.astype(np.uint8).reshape(size), affine)


def base_direction(image: Image) -> np.ndarray:
    """Unit vector (RAS) from the muscle's apex to where the LV pool is open."""
    pool, outside = image.values == 1, image.values == 0
    normal = np.array(
        [
            np.count_nonzero(pool & np.roll(outside, -1, axis))
            - np.count_nonzero(pool & np.roll(outside, 1, axis))
            for axis in range(3)
        ]
    )
    normal = np.linalg.inv(image.affine[:3, :3]).T @ normal
    return normal / np.linalg.norm(normal)


def perturb(image: Image, seed: int) -> tuple[Image, list[str]]:
    """Make labels imperfect in one to three of the usual ways, and say in which."""
    rng = np.random.default_rng(seed)
    ways = [_turned, _thick_slices, _noisy, _missing_slices, _islands, _holes]
    first = seed % len(ways)  # twenty seeds see each way at least three times
    others = rng.choice(len(ways), size=int(rng.integers(0, 3)), replace=False)
    chosen = sorted({first, *others.tolist()})
    if {0, 1} <= set(chosen):
        chosen.remove(0)  # thick slices have a direction of their own
    said = []
    for number in chosen:
        image, text = ways[number](image, rng)
        said.append(text)
    return image, said


def _turned(image: Image, rng) -> tuple[Image, str]:
    turn = Rotation.random(rng=rng)
    angle = np.degrees(turn.magnitude())
    return regridded(image, image.spacing, turn), f"axes turned by {angle:.0f} deg"


def _thick_slices(image: Image, rng) -> tuple[Image, str]:
    """Short-axis slices, tilted by up to 10 degrees, from the apex or from the base."""
    up = base_direction(image) * rng.choice([-1.0, 1.0])
    across = np.linalg.qr(np.column_stack([up, rng.normal(size=(3, 2))]))[0][:, 1:]
    axes = np.column_stack([across, np.cross(*across.T)])
    axes = axes if axes[:, 2] @ up > 0 else axes[:, [1, 0, 2]] * [1, 1, -1]
    tilt = Rotation.from_rotvec(np.radians(rng.uniform(0, 10)) * across[:, 0])
    turn = tilt * Rotation.from_matrix(axes)
    return regridded(image, (1.4, 1.4, 8.0), turn), "voxels of 1.4 x 1.4 x 8 mm"


def _noisy(image: Image, rng) -> tuple[Image, str]:
    """Two voxels in a hundred near a boundary are confused, one in a thousand anywhere."""
    values = image.values.copy()
    cube = np.ones((3, 3, 3), bool)
    near = np.any([binary_dilation(values == n, cube) & (values != n) for n in range(4)], axis=0)
    confused = (near & (rng.random(values.shape) < 0.02)) | (rng.random(values.shape) < 0.001)
    shift = rng.integers(-1, 2, (3, int(confused.sum())))
    at = np.argwhere(confused).T
    there = np.clip(at + shift, 0, np.array(values.shape)[:, None] - 1)
    values[tuple(at)] = np.where(
        near[tuple(at)], image.values[tuple(there)], rng.integers(0, 4, at.shape[1])
    )
    return Image(values, image.affine), f"{confused.sum()} noisy voxels"


def _missing_slices(image: Image, rng) -> tuple[Image, str]:
    """One to three neighbouring slices within the heart are empty."""
    values = image.values.copy()
    axis = int(np.argmax(image.spacing))
    filled = np.flatnonzero(values.any(axis=tuple(a for a in range(3) if a != axis)))
    count = int(rng.choice([1, 1, 2, 2, 3]))
    first = int(rng.integers(filled[0] + 2, max(filled[-1] - 1 - count, filled[0] + 3)))
    np.moveaxis(values, axis, 0)[first : first + count] = 0
    return Image(values, image.affine), f"{count} missing slices"


def _islands(image: Image, rng) -> tuple[Image, str]:
    """Six balls of a random label, of up to three voxels radius, anywhere off the muscle."""
    return _balls(image, rng, image.values != 2, (1, 2, 3), 6, 3.0), "6 islands"


def _holes(image: Image, rng) -> tuple[Image, str]:
    """Six balls of background or pool in the muscle, of up to two voxels radius."""
    return _balls(image, rng, image.values == 2, (0, 1, 3), 6, 2.0), "6 holes"


def _balls(image: Image, rng, where, labels, n: int, radius: float) -> Image:
    values = image.values.copy()
    places = np.argwhere(where)
    for _ in range(n):
        apart = np.ones(values.shape, bool)
        apart[tuple(places[rng.integers(len(places))])] = False
        values[distance_transform_edt(apart) <= rng.uniform(0.5, radius)] = rng.choice(labels)
    return Image(values, image.affine)
