"""Narrowest section of a part of a mesh: the smallest level set of a field that runs through it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from twinheart.mesh import TetMesh

# Levels of a field from 0 to 1, away from its ends; none of them at a plane of a regular mesh.
_LEVELS = np.linspace(0.1, 0.9, 33) + 1e-3 / 3
_ALIKE = 1.01  # sections alike in size: the one nearest to the middle is taken


class Section(NamedTuple):
    """A level set of a field.

    Attributes
    ----------
    level : float
        Value of the field.
    area : float
        Area [mm2].
    centre : (3,) array
        Its centroid [mm].
    tets : (cut,) int array
        Tetrahedra through which it goes.
    """

    level: float
    area: float
    centre: Float[np.ndarray, "3"]
    tets: Int[np.ndarray, "cut"]


def section(mesh: TetMesh, field: Float[np.ndarray, "node"], level: float) -> Section:
    """Level set of a field that is linear in every tetrahedron: triangles and quadrangles.

    Parameters
    ----------
    mesh : TetMesh
        Tetrahedra [mm].
    field : (node,) array
        Values.
    level : float
        Nodes of this value count as above.

    Returns
    -------
    Section
        Area and centroid; area zero and no centroid (NaN) where no value is at the level.

    Examples
    --------
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning.circuits.sections import section
    >>> mesh = slab((6.0, 3.0, 2.0), 1.0)
    >>> found = section(mesh, mesh.points @ [0.6, 0.8, 0.0], 3.2)
    >>> round(found.area, 9)  # 3 mm / 0.6 x 2 mm: the plane is oblique
    10.0
    """
    below = (field[mesh.tets] < level).sum(axis=1)
    tets = np.flatnonzero((below > 0) & (below < 4))
    order = np.argsort(field[mesh.tets[tets]], axis=1, kind="stable")
    corners = np.take_along_axis(mesh.tets[tets], order, axis=1)
    triangles = []
    for count, polygon in (
        (1, ((0, 1), (0, 2), (0, 3))),
        (3, ((0, 3), (1, 3), (2, 3))),
        (2, ((0, 2), (0, 3), (1, 3), (1, 2))),
    ):
        own = corners[below[tets] == count]
        place = []
        for low, high in polygon:
            first, second = own[:, low], own[:, high]
            share = (level - field[first]) / (field[second] - field[first])
            place.append(
                mesh.points[first] + share[:, None] * np.subtract(*mesh.points[[second, first]])
            )
        triangles += [np.stack([place[0], *place[k : k + 2]], 1) for k in range(1, len(place) - 1)]
    triangle = np.concatenate(triangles)
    sides = triangle[:, 1:] - triangle[:, :1]
    area = 0.5 * np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1)
    total = float(area.sum())
    centre = area @ triangle.mean(axis=1) / total if total else np.full(3, np.nan)
    return Section(float(level), total, centre, tets)


def least_section(mesh: TetMesh, field: Float[np.ndarray, "node"]) -> Section:
    """Smallest of the level sets of a field from 0 at one end to 1 at the other.

    Parameters
    ----------
    mesh : TetMesh
        The part [mm].
    field : (node,) array
        For example the solution of a Laplace problem.

    Returns
    -------
    Section
        Of those within a hundredth of the smallest area, the one nearest to the middle.

    Examples
    --------
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning.circuits.sections import least_section
    >>> mesh = slab((10.0, 3.0, 2.0), 1.0)
    >>> round(least_section(mesh, mesh.points[:, 0] / 10).area, 9)
    6.0
    """
    found = [section(mesh, field, level) for level in _LEVELS]
    least = min(s.area for s in found)
    return min((s for s in found if s.area <= _ALIKE * least), key=lambda s: abs(s.level - 0.5))
