"""Image: numbers on a voxel grid and where that grid lies in the patient (RAS, mm)."""

import equinox as eqx
import numpy as np
from jaxtyping import Float, Shaped

from twinheart.errors import InputError
from twinheart.types import Points

_DIRECTIONS = (("L", "R"), ("P", "A"), ("I", "S"))
_MIN_SPACING, _MAX_SPACING = 0.05, 50.0  # mm: from micro-CT to a scout scan
_MIN_ANGLE = 0.1  # volume of the cell over the product of its edges; 1 where they are orthogonal


class Image(eqx.Module):
    """A three-dimensional image and the way from its voxels to the patient.

    The patient's axes are RAS: x grows to the patient's right, y to the front (anterior), z to
    the head (superior), in mm. DICOM says LPS; it is converted where it is read.

    Parameters
    ----------
    values : (i, j, k) array
        Intensities or labels.
    affine : (4, 4) array
        Takes voxel indices (of the voxels' centres) to RAS positions [mm].
    names : dict
        What the file itself calls its labels, by their number.
    notes : tuple of str
        Sentences: what was found, assumed or left out while reading.

    Raises
    ------
    InputError
        If the image is not three-dimensional or empty, or the affine is singular or absurd.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging import Image
    >>> image = Image(np.zeros((20, 20, 5)), np.diag([-1.5, -1.5, 8.0, 1.0]))
    >>> image.orientation, image.spacing.tolist()
    ('LPS', [1.5, 1.5, 8.0])
    """

    values: Shaped[np.ndarray, "i j k"]
    affine: Float[np.ndarray, "4 4"]
    names: dict[int, str] = eqx.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __init__(self, values, affine, names=None, notes=()):
        values = np.asarray(values)
        if values.ndim != 3 or values.size == 0:
            raise InputError(
                f"the image has shape {values.shape}, expected three dimensions, none empty: save "
                "one frame or channel alone."
            )
        self.values = values
        self.affine = checked_affine(affine)
        self.names = dict(names or {})
        self.notes = tuple(notes)

    @property
    def spacing(self) -> Float[np.ndarray, "3"]:
        """Distance between voxels along each axis [mm]."""
        return voxel_spacing(self.affine)

    @property
    def orientation(self) -> str:
        """Where the axes run, by the nearest direction of the patient: 'RAS', 'LPS', 'LSA'..."""
        return orientation(self.affine)


def checked_affine(affine) -> Float[np.ndarray, "4 4"]:
    """The affine as float64, or a refusal if it cannot place voxels in the patient.

    Parameters
    ----------
    affine : (4, 4) array
        Voxel indices to RAS positions [mm].

    Returns
    -------
    (4, 4) array
        The same.

    Raises
    ------
    InputError
        If it is not finite, has no spacing, is singular, or has a spacing outside 0.05-50 mm.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.image import checked_affine
    >>> checked_affine(np.diag([1.0, 1.0, 0.0, 1.0]))
    Traceback (most recent call last):
    twinheart.errors.InputError: the image has no spacing along axis k: ...
    """
    affine = np.asarray(affine, dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise InputError(
            "the image's affine is not a finite 4 x 4 matrix: its header is damaged; save the "
            "image again with spacing and orientation."
        )
    spacing = voxel_spacing(affine)
    for axis, length in zip("ijk", spacing, strict=True):
        if length == 0:
            raise InputError(
                f"the image has no spacing along axis {axis}: save it with the voxel size in mm."
            )
        if not _MIN_SPACING <= length <= _MAX_SPACING:
            raise InputError(
                f"the voxels are {length:.4g} mm apart along axis {axis}, expected "
                f"{_MIN_SPACING:g} to {_MAX_SPACING:g} mm: is the unit of the header right?"
            )
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < _MIN_ANGLE:
        raise InputError(
            "the image's affine is singular: two of its axes are (nearly) parallel; save the "
            "image again with its orientation."
        )
    return affine


def voxel_spacing(affine: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "3"]:
    """Distance between voxels along each axis [mm].

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.image import voxel_spacing
    >>> voxel_spacing(np.diag([1.5, -2.0, 8.0, 1.0])).tolist()
    [1.5, 2.0, 8.0]
    """
    return np.linalg.norm(affine[:3, :3], axis=0)


def orientation(affine: Float[np.ndarray, "4 4"]) -> str:
    """Three letters: the direction of the patient that each axis is closest to.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.image import orientation
    >>> orientation(np.diag([-1.0, -1.0, 3.0, 1.0]))
    'LPS'
    """
    cosines = affine[:3, :3] / voxel_spacing(affine)
    letters = [""] * 3
    free_axes, free_directions = [0, 1, 2], [0, 1, 2]
    while free_axes:  # the clearest first, so that no direction is taken twice
        block = np.abs(cosines[np.ix_(free_directions, free_axes)])
        row, column = np.unravel_index(np.argmax(block), block.shape)
        direction, axis = free_directions.pop(int(row)), free_axes.pop(int(column))
        letters[axis] = _DIRECTIONS[direction][int(cosines[direction, axis] > 0)]
    return "".join(letters)


def points_to_voxels(affine: Float[np.ndarray, "4 4"], points: Points) -> Points:
    """Voxel indices, with fractions, of positions in the patient.

    Parameters
    ----------
    affine : (4, 4) array
        Voxel indices to RAS positions [mm].
    points : (node, 3) array
        RAS positions [mm].

    Returns
    -------
    (node, 3) array
        Indices along i, j and k; the centre of the first voxel is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.image import points_to_voxels
    >>> points_to_voxels(np.diag([2.0, 2.0, 8.0, 1.0]), np.array([[1.0, 2.0, 8.0]])).tolist()
    [[0.5, 1.0, 1.0]]
    """
    return np.linalg.solve(affine[:3, :3], (points - affine[:3, 3]).T).T


def voxels_to_points(affine: Float[np.ndarray, "4 4"], voxels) -> Points:
    """Positions in the patient of voxel indices: the inverse of `points_to_voxels`.

    Parameters
    ----------
    affine : (4, 4) array
        Voxel indices to RAS positions [mm].
    voxels : (node, 3) array
        Indices along i, j and k, with fractions if wanted.

    Returns
    -------
    (node, 3) array
        RAS positions [mm].

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.image import voxels_to_points
    >>> voxels_to_points(np.diag([2.0, 2.0, 8.0, 1.0]), [[1, 0, 2]]).tolist()
    [[2.0, 0.0, 16.0]]
    """
    return np.asarray(voxels, dtype=np.float64) @ affine[:3, :3].T + affine[:3, 3]


def sample(
    image: Image, points: Points, *, nearest: bool = False, outside: float = np.nan
) -> Float[np.ndarray, "node"]:
    """The image's value at positions in the patient.

    Parameters
    ----------
    image : Image
        What is asked.
    points : (node, 3) array
        RAS positions [mm].
    nearest : bool
        Take the nearest voxel, as labels need; otherwise the trilinear interpolation.
    outside : float
        Value of positions beyond the outer faces of the image's voxels.

    Returns
    -------
    (node,) array
        Values in the unit of the image.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging import Image, sample
    >>> image = Image(np.arange(8.0).reshape(2, 2, 2), np.eye(4))
    >>> sample(image, np.array([[0.5, 0.5, 0.5], [0.0, 0.0, 1.0], [9.0, 0.0, 0.0]])).tolist()
    [3.5, 1.0, nan]
    """
    from scipy.ndimage import map_coordinates

    at = points_to_voxels(image.affine, points).T
    inside = ((at >= -0.5) & (at <= np.array(image.values.shape)[:, None] - 0.5)).all(axis=0)
    out = np.full(len(points), outside, dtype=np.float64)
    out[inside] = map_coordinates(
        image.values, at[:, inside], np.float64, order=0 if nearest else 1, mode="nearest"
    )
    return out
