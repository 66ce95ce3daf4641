"""Where elements are to be smaller: balls and labelled regions, and how edges grow around them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt

from twinheart.errors import InputError
from twinheart.imaging.image import Image, sample, voxels_to_points
from twinheart.imaging.read import read_image
from twinheart.types import Points

Size = Callable[[Points], Float[np.ndarray, "node"]]

# Edges grow by so many mm for each mm away from a fine region.
GROWTH = 0.3
_FINEST, _MOST_HALVINGS = 0.2, 8.0


@dataclass(frozen=True)
class FineRegion:
    """A region with smaller elements.

    Parameters
    ----------
    edge : float
        Mean edge [mm] in it.
    ball : tuple of 4 floats, optional
        Centre (RAS) and radius [mm].
    labels : tuple of ints
        Or numbers of a label image.
    file : path, optional
        That image; by default the one that is meshed.
    """

    edge: float
    ball: tuple[float, ...] | None = None
    labels: tuple[int, ...] = ()
    file: Path | None = None


def parse_fine(text: str) -> FineRegion:
    """A fine region from a text: REGION:EDGE.

    Parameters
    ----------
    text : str
        REGION is a ball ``x,y,z,radius`` in mm (RAS), numbers ``4+5`` of the label image that is
        meshed, or those of another one as ``FILE=4+5``; EDGE is in mm.

    Returns
    -------
    FineRegion
        What it says.

    Raises
    ------
    InputError
        If it says something else.

    Examples
    --------
    >>> from twinheart.imaging.element_size import parse_fine
    >>> parse_fine("10,-20,35.5,15:0.8").ball
    (10.0, -20.0, 35.5, 15.0)
    >>> parse_fine("scar.nii.gz=4+5:0.8").labels
    (4, 5)
    """
    region, _, last = text.rpartition(":")
    try:
        edge = float(last)
        if region.count(",") == 3:
            ball = tuple(float(number) for number in region.split(","))
            if ball[3] > 0 and np.isfinite(ball).all():
                return FineRegion(edge, ball=ball)
        file, _, numbers = region.rpartition("=")
        if re.fullmatch(r"\d+(\+\d+)*", numbers):
            labels = tuple(int(number) for number in numbers.split("+"))
            return FineRegion(edge, labels=labels, file=Path(file) if file else None)
    except ValueError:
        pass
    raise InputError(
        f"--fine says '{text}', expected REGION:EDGE with a region x,y,z,radius in mm, labels such "
        "as 4+5 of the label image, or FILE=4+5 of another one."
    )


def element_size(
    regions: Sequence[FineRegion], edge: float, image: Path | None = None
) -> Size | None:
    """Mean edge wanted at each place: that of the regions in them, growing to the general one.

    Parameters
    ----------
    regions : sequence of FineRegion
        Fine regions.
    edge : float
        Mean edge [mm] away from them.
    image : path, optional
        The label image that is meshed.

    Returns
    -------
    callable or None
        (node, 3) positions [mm] to (node,) edges [mm]; None without regions. It changes by at most
        `GROWTH` per mm.

    Raises
    ------
    InputError
        If an edge is not finer than the general one or too fine, or an image is missing or lacks
        the labels.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.element_size import element_size, parse_fine
    >>> size = element_size([parse_fine("0,0,0,5:1")], 2.5)
    >>> size(np.array([[0.0, 0, 0], [7, 0, 0], [0, 50, 0]])).tolist()
    [1.0, 1.6, 2.5]
    """
    if not regions:
        return None
    distances = []
    for region in regions:
        least = max(_FINEST, edge / _MOST_HALVINGS)
        if not least <= region.edge < edge:
            raise InputError(
                f"--fine asks for an edge of {region.edge:g} mm, expected {least:g} mm or more and "
                f"less than the general edge of {edge:g} mm."
            )
        if region.ball is not None:
            distances.append(_from_ball(region.ball))
        else:
            reach = (edge - region.edge) / GROWTH
            distances.append(_from_labels(region, region.file or image, reach))

    def size(points: Points) -> Float[np.ndarray, "node"]:
        out = np.full(len(points), edge)
        for region, distance in zip(regions, distances, strict=True):
            grown = region.edge + GROWTH * np.maximum(distance(points), 0.0)
            out = np.minimum(out, grown)
        return out

    return size


def _from_ball(ball: tuple[float, ...]) -> Size:
    centre, radius = np.array(ball[:3]), ball[3]
    return lambda points: np.linalg.norm(points - centre, axis=1) - radius


def _from_labels(region: FineRegion, file: Path | None, reach: float) -> Size:
    if file is None:
        raise InputError(
            "--fine names labels, but no label image is meshed: say of which, as FILE=4:0.8."
        )
    image = read_image(file)
    mask = np.isin(image.values, region.labels)
    if not mask.any():
        present = ", ".join(f"{n:g}" for n in np.unique(image.values)[:12])
        raise InputError(
            f"--fine: {file} has no voxel with the label {'+'.join(map(str, region.labels))}; it "
            f"has {present}."
        )
    near = _distance(mask, image, reach)
    return lambda points: sample(near, points, outside=np.inf)


def _distance(mask: Bool[np.ndarray, "i j k"], image: Image, reach: float) -> Image:
    """Distance [mm] to a mask, up to a reach around it."""
    margin = np.ceil(reach / image.spacing).astype(int) + 2
    at = np.argwhere(mask)
    low, high = at.min(axis=0), at.max(axis=0) + 1
    box = np.pad(
        mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))],
        [(m, m) for m in margin.tolist()],
    )
    affine = image.affine.copy()
    affine[:3, 3] = voxels_to_points(image.affine, (low - margin)[None].astype(float))[0]
    away = np.asarray(distance_transform_edt(~box, sampling=image.spacing))
    return Image(np.maximum(away - 0.5 * float(image.spacing.min()), 0.0), affine)
