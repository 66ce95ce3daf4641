"""Bodies as implicit functions, negative inside: building blocks, and tags of their surfaces."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from twinheart.errors import MeshError
from twinheart.mesh.core import TetMesh
from twinheart.mesh.quality import boundary_triangles
from twinheart.mesh.smoothing import Distance
from twinheart.types import Points

Values = Float[np.ndarray, "node"]


class SurfaceClass(IntEnum):
    """Values of the point field ``surf_class``: which surface a node lies on."""

    INTERIOR = 0
    BASE = 1
    EPICARDIUM = 2
    LV_ENDOCARDIUM = 3
    RV_ENDOCARDIUM = 4


def ellipsoid(points: Points, centre, radii) -> Values:
    """Distance to an axis-parallel ellipsoid, exact on it and first order near it.

    Parameters
    ----------
    points : (node, 3) array
        Positions [mm].
    centre, radii : (3,) sequence of float
        Centre and semi-axes [mm].

    Returns
    -------
    (node,) array
        Signed distance [mm], negative inside.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.implicit import ellipsoid
    >>> above = ellipsoid(np.array([[0.0, 0.0, 12.0]]), (0, 0, 0), (5, 5, 10))
    >>> round(float(above[0]), 6)
    2.0
    """
    scaled = (points - np.asarray(centre, dtype=float)) / radii
    ratio = np.linalg.norm(scaled, axis=1)
    slope = np.linalg.norm(scaled / radii, axis=1)
    return ratio * (ratio - 1) / np.maximum(slope, 1e-12)


def smooth_min(a: Values, b: Values, width: float) -> Values:
    """Union of two bodies with a fillet: the minimum, lowered where both are within `width` [mm].

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.implicit import smooth_min
    >>> float(smooth_min(np.array([1.0]), np.array([1.0]), 4.0)[0])
    0.0
    """
    overlap = np.maximum(width - np.abs(a - b), 0) / width
    return np.minimum(a, b) - 0.25 * width * overlap**2


def smooth_max(a: Values, b: Values, width: float) -> Values:
    """Intersection of two bodies with a rounded edge of `width` [mm]; see `smooth_min`.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.implicit import smooth_max
    >>> float(smooth_max(np.array([1.0]), np.array([1.0]), 4.0)[0])
    2.0
    """
    return -smooth_min(-a, -b, width)


def require_resolved(wall: float, edge: float) -> None:
    """Refuse an edge length at which a wall would get holes.

    Parameters
    ----------
    wall, edge : float
        Thickness of the thinnest wall and mean edge of the lattice [mm].

    Raises
    ------
    MeshError
        If the wall is thinner than one and a half edges.

    Examples
    --------
    >>> from twinheart.mesh.implicit import require_resolved
    >>> require_resolved(wall=4.0, edge=2.0)
    """
    if wall < 1.5 * edge:
        raise MeshError(
            f"a wall of {wall:g} mm gets holes at an edge of {edge:g} mm: take an edge of at most "
            f"{wall / 1.5:.3g} mm."
        )


def surface_classes(mesh: TetMesh, sides: Mapping[Any, Distance]) -> Int[np.ndarray, "node"]:
    """Say of every node which side of the body it lies on.

    Parameters
    ----------
    mesh : TetMesh
        Mesh of the body.
    sides : mapping of SurfaceClass to callable
        The functions of which the body's implicit function is the maximum; at an edge where
        several are zero the first one wins.

    Returns
    -------
    (node,) int array
        `SurfaceClass` of each node, 0 for interior nodes.

    Examples
    --------
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.mesh.implicit import SurfaceClass, surface_classes
    >>> mesh = slab((1.0, 1.0, 1.0), 0.5)
    >>> top, bottom = lambda x: x[:, 2] - 1.0, lambda x: -x[:, 2]
    >>> sides = {SurfaceClass.BASE: top, SurfaceClass.EPICARDIUM: bottom}
    >>> surface_classes(mesh, sides)[[0, 13, 26]]
    array([2, 0, 1], dtype=int32)
    """
    classes = np.zeros(mesh.n_nodes, dtype=np.int32)
    surface = np.unique(boundary_triangles(mesh.tets))
    values = np.stack([side(mesh.points[surface]) for side in sides.values()])
    # Nodes on an edge are off one of its sides by rounding only.
    first = np.argmax(values > values.max(axis=0) - 1e-5, axis=0)
    classes[surface] = np.array(list(sides))[first]
    return classes
