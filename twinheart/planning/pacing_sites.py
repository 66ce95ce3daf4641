"""Where a heart is paced to provoke re-entry: the AHA segments, the right ventricle, any points.

A site must lie on tissue that conducts. One that does not, such as on scar, is moved to the nearest
node that does, which its `note` says, and is refused where that is too far away. Islands, cut off
from the rest and smaller than a hundredth of it, count as scar: no wave leaves them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from scipy.spatial import KDTree

from twinheart.anatomy.aha import SEGMENTS
from twinheart.anatomy.endocardium import endocardium
from twinheart.errors import InputError
from twinheart.mesh import TetMesh
from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.quality import components
from twinheart.tissue import Eikonal

_FURTHEST = 10.0  # mm
_ISLAND = 0.01
_SIXTHS = (7 / 12, 3 / 4, 11 / 12, 1 / 12, 1 / 4, 5 / 12)  # middle of segments 1 to 6, in turns
_QUARTERS = (7 / 12, 5 / 6, 1 / 12, 1 / 3)
# Middles of the 17 segments as height and turns, see `twinheart.anatomy.aha`.
AHA_PLACES = (
    *((0.85, rt) for rt in _SIXTHS),
    *((0.55, rt) for rt in _SIXTHS),
    *((0.25, rt) for rt in _QUARTERS),
    (0.05, 1 / 3),
)
# Where catheters lie: the tip of the right ventricle, and under the valve of the lung in front.
RV_PLACES = {"RV apex": (0.05, 5 / 6), "RVOT": (0.9, 0.6)}


@dataclass(frozen=True)
class PacingSite:
    """A place to pace.

    Parameters
    ----------
    name : str
        Its name.
    position : (x, y, z)
        Where it is paced [mm].
    asked : (x, y, z)
        Where it was asked for [mm].
    """

    name: str
    position: tuple[float, float, float]
    asked: tuple[float, float, float]

    @property
    def moved(self) -> float:
        """How far it was moved [mm]."""
        return float(np.linalg.norm(np.subtract(self.position, self.asked)))

    @property
    def note(self) -> str | None:
        """One line where it was moved, else None."""
        if self.position == self.asked:
            return None
        return f"{self.name} does not conduct where it was asked for: moved by {self.moved:.1f} mm"


def place_sites(
    problem: Eikonal,
    points: Any,
    names: Sequence[str] | None = None,
    *,
    furthest: float = _FURTHEST,
) -> tuple[PacingSite, ...]:
    """Sites at or near some points.

    Parameters
    ----------
    problem : Eikonal
        Says what conducts.
    points : (site, 3) array
        Where to pace [mm].
    names : sequence of str, optional
        Names, all different; default ``site 1`` and so on.
    furthest : float
        A site may be moved so far [mm].

    Returns
    -------
    tuple of PacingSite
        In the order of the points.

    Raises
    ------
    InputError
        If a point is not finite, or conducting tissue is too far from it, or names do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning import place_sites
    >>> from twinheart.tissue import NonConducting, Velocities, build_eikonal
    >>> mesh = slab((20.0, 4.0, 1.0), 1.0)
    >>> scar = (mesh.points[mesh.tets].mean(axis=1)[:, 0] < 5).astype(int)
    >>> problem = build_eikonal(Heart(mesh, regions=scar), {0: Velocities(), 1: NonConducting()})
    >>> site = place_sites(problem, [[2.0, 2.0, 0.0]])[0]
    >>> site.position, site.note
    ((5.0, 2.0, 0.0), 'site 1 does not conduct where it was asked for: moved by 3.0 mm')
    """
    where = np.atleast_2d(np.asarray(points, dtype=float))
    if where.shape[1:] != (3,) or not np.isfinite(where).all():
        raise InputError(
            f"points to pace have shape {where.shape}, expected finite coordinates (site, 3) in mm."
        )
    names = [f"site {k + 1}" for k in range(len(where))] if names is None else list(names)
    if len(names) != len(where) or len(set(names)) != len(names):
        raise InputError(
            f"{len(where)} points to pace have the names {names}: give each one of its own."
        )
    if not furthest >= 0:
        raise InputError(f"sites may be moved by {furthest} mm, expected at least 0.")
    nodes = conducting_nodes(problem)
    living = np.zeros(problem.n_nodes, dtype=bool)
    living[nodes] = True
    tree = KDTree(problem.elements.points[nodes])
    cell, gap = problem.elements.locate(where)
    here = (gap <= problem.axes.facet) & living[problem.elements.cells[cell, 0]]
    distance, nearest = tree.query(where)
    for name, point, inside, far in zip(names, where, here, distance, strict=True):
        if not inside and far > furthest:
            place = ", ".join(f"{x:.1f}" for x in point)
            raise InputError(
                f"{name} at ({place}) mm is {far:.1f} mm from tissue that conducts, and sites are "
                f"moved by up to {furthest:g} mm: choose another place, or allow more."
            )
    ends = np.where(here[:, None], where, problem.elements.points[nodes[nearest]])
    return tuple(
        PacingSite(name, _triple(end), _triple(point))
        for name, end, point in zip(names, ends, where, strict=True)
    )


def aha_sites(
    mesh: TetMesh, problem: Eikonal, *, furthest: float = _FURTHEST
) -> tuple[PacingSite, ...]:
    """The middle of the 17 AHA segments on the endocardium, apex and outflow tract of the RV.

    Parameters
    ----------
    mesh : TetMesh
        Ventricles with tagged surfaces (`twinheart.anatomy.endocardium`) and, if it has them,
        coordinates; else places are estimated from the axes of the heart.
    problem : Eikonal
        Built on this mesh; says what conducts.
    furthest : float
        A site on scar may be moved so far [mm].

    Returns
    -------
    tuple of PacingSite
        19 sites; 17 in a lone left ventricle.

    Raises
    ------
    MeshError
        If surfaces are not tagged.
    InputError
        If there is no left ventricle, the problem is of another mesh, or conducting tissue is too
        far away.

    Examples
    --------
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh.generate import lv_ellipsoid
    >>> from twinheart.planning import aha_sites
    >>> from twinheart.tissue import build_eikonal
    >>> mesh = lv_ellipsoid(edge=4.0)
    >>> sites = aha_sites(mesh, build_eikonal(Heart(mesh)))
    >>> len(sites), sites[0].name
    (17, 'AHA 1 basal anterior')
    """
    if problem.n_mesh != mesh.n_nodes:
        raise InputError(
            f"the eikonal problem has {problem.n_mesh} nodes and the mesh {mesh.n_nodes}: build it "
            "on this mesh."
        )
    left = endocardium(mesh, SurfaceClass.LV_ENDOCARDIUM)
    if left is None:
        raise InputError("the heart has no LV endocardium (surf_class 3): give points to pace.")
    names = [f"AHA {k} {name}" for k, name in enumerate(SEGMENTS, start=1)]
    points = [left.place(ab, rt) for ab, rt in AHA_PLACES]
    right = endocardium(mesh, SurfaceClass.RV_ENDOCARDIUM)
    if right is not None:
        names += list(RV_PLACES)
        points += [right.place(ab, rt) for ab, rt in RV_PLACES.values()]
    return place_sites(problem, np.array(points), names, furthest=furthest)


def conducting_nodes(problem: Eikonal) -> Int[np.ndarray, "node"]:
    """Nodes of tissue that conducts, without islands.

    Parameters
    ----------
    problem : Eikonal
        Says what conducts.

    Returns
    -------
    (node,) int array
        Of mesh and tree, increasing.

    Examples
    --------
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning.pacing_sites import conducting_nodes
    >>> from twinheart.tissue import build_eikonal
    >>> conducting_nodes(build_eikonal(Heart(slab((1.0, 1.0, 1.0), 1.0)))).tolist()
    [0, 1, 2, 3, 4, 5, 6, 7]
    """
    cells = problem.elements.cells
    nodes = np.unique(cells)
    part = components(cells, problem.n_nodes)[nodes]
    return nodes[np.bincount(part)[part] >= _ISLAND * len(nodes)]


def _triple(point) -> tuple[float, float, float]:
    x, y, z = (float(x) for x in point)
    return x, y, z
