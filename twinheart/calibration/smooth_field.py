"""Smooth fields on a heart: bell curves around places that lie far apart."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from twinheart.anatomy import Heart
from twinheart.errors import InputError
from twinheart.types import Array

_SPREAD = 0.7  # of the distance between neighbouring places: width of each bell


def field_places(heart: Heart, count: int) -> Float[np.ndarray, "place 3"]:
    """Places of a smooth field: each as far as possible from all before.

    Parameters
    ----------
    heart : Heart
        Where they lie.
    count : int
        How many.

    Returns
    -------
    (place, 3) array
        Nodes of the heart's mesh [mm]; all of them if it has fewer than `count`.

    Examples
    --------
    >>> from twinheart.anatomy import demo_heart
    >>> from twinheart.calibration.smooth_field import field_places
    >>> field_places(demo_heart(), 12).shape
    (12, 3)
    """
    points = heart.mesh.points
    chosen = [int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmax())]
    gap = np.full(len(points), np.inf)
    while len(chosen) < min(count, len(points)):
        gap = np.minimum(gap, np.linalg.norm(points - points[chosen[-1]], axis=1))
        chosen.append(int(gap.argmax()))
    return points[chosen]


def field_basis(
    points: Float[np.ndarray, "point 3"],
    places: Float[np.ndarray, "place 3"] | None,
    count: int,
) -> Float[Array, "point place"]:
    """Bell curves around places, scaled so that a field of ones is about one everywhere.

    Parameters
    ----------
    points : (point, 3) array
        Where the field is wanted [mm].
    places : (place, 3) array or None
        From `field_places` [mm].
    count : int
        How many numbers the field has.

    Returns
    -------
    (point, place) array
        Times the numbers of the places, the field.

    Raises
    ------
    InputError
        If there are not as many places as numbers.
    """
    if places is None or len(places) != count:
        raise InputError(
            f"a smooth field of {count} numbers needs as many places, got "
            f"{0 if places is None else len(places)}: take them from field_places."
        )
    between = np.linalg.norm(places[:, None] - places, axis=2) + 1e9 * np.eye(count)
    width = _SPREAD * between.min(axis=1).mean()
    bells = np.exp(-0.5 * (np.linalg.norm(points[:, None] - places, axis=2) / width) ** 2)
    return jnp.asarray(bells / np.maximum(bells.sum(axis=1, keepdims=True), 1e-12))
