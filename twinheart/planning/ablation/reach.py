"""What a catheter can burn: its lesions, where it may lie, and the fewest lesions over a target.

Lesions are single applications on the surface of the muscle. Of all places near a target those are
tried that lie at least a third of a radius apart; what each would burn is known before any is
chosen. A line is a row of applications that overlap.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree

from twinheart.errors import InputError
from twinheart.mesh import TetMesh
from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.quality import boundary_triangles
from twinheart.planning.ablation.lesions import Lesion, Wall

_CLASSES = {
    "endocardial": (SurfaceClass.LV_ENDOCARDIUM, SurfaceClass.RV_ENDOCARDIUM),
    "epicardial": (SurfaceClass.EPICARDIUM,),
}
_OPEN = sum(_CLASSES.values(), ())  # no catheter lies on the cut through the base
_SPACING = 1 / 3  # of a radius, between places that are tried
_AROUND = 1.0  # radii around the place nearest to a target
_WALL = 20.0  # mm: what goes deeper is no way through a wall, such as down from the valves' plane


@dataclass(frozen=True)
class KeepAway:
    """What must not be burnt: the conduction system, a coronary artery, the phrenic nerve.

    Parameters
    ----------
    name : str
        What it is.
    points : (point, 3) array
        Where it runs [mm], points close to each other.
    distance : float
        Nothing is burnt within this distance of the points [mm].
    """

    name: str
    points: Any
    distance: float

    def __post_init__(self):
        object.__setattr__(self, "points", np.atleast_2d(np.asarray(self.points, dtype=float)))
        if self.points.shape[1:] != (3,) or not np.isfinite(self.points).all():
            raise InputError(
                f"{self.name} to keep away from has points of shape {self.points.shape}, expected "
                "finite coordinates (point, 3) in mm."
            )
        if not 0 < self.distance < np.inf:
            raise InputError(
                f"the distance to keep from {self.name} is {self.distance} mm, expected a positive "
                "number."
            )


@dataclass(frozen=True)
class Catheter:
    """How lesions are made.

    Parameters
    ----------
    radius : float
        Of a lesion along the surface [mm].
    depth : float
        Into the wall [mm]; ``inf`` is transmural.
    access : {"both", "endocardial", "epicardial"}
        Surfaces on which the catheter may lie; one side needs a mesh with tagged surfaces.
    keep_away : tuple of KeepAway
        What must not be burnt.
    """

    radius: float = 3.5
    depth: float = np.inf
    access: str = "both"
    keep_away: Sequence[KeepAway] = field(default=())

    def __post_init__(self):
        Lesion([[0.0, 0.0, 0.0]], self.radius, self.depth)  # refuses what is no lesion
        if self.access not in ("both", *_CLASSES):
            raise InputError(
                f"the access is '{self.access}', expected both, endocardial or epicardial."
            )

    def at(self, point: Float[np.ndarray, "3"]) -> Lesion:
        """The lesion of an application at a place [mm]."""
        return Lesion(point[None], self.radius, self.depth)


class Applications(NamedTuple):
    """Applications that are possible, and what each burns.

    Attributes
    ----------
    points : (application, 3) array
        Where the catheter lies [mm].
    burns : (application, tet) sparse bool array
        Tetrahedra that each burns.
    """

    points: Float[np.ndarray, "application 3"]
    burns: sp.csr_array


class Covered(NamedTuple):
    """Lesions over a target, and what of it they leave.

    Attributes
    ----------
    lesions : tuple of Lesion
        In the order in which they were chosen.
    missed : (tet,) bool array
        Targets that no application reaches.
    """

    lesions: tuple[Lesion, ...]
    missed: Bool[np.ndarray, "tet"]


class Reach:
    """A heart and what a catheter can burn in it.

    Parameters
    ----------
    mesh : TetMesh
        The heart [mm]; for access from one side with the point field ``surf_class``.
    living : (tet,) bool array
        What conducts: only this counts as burnt.
    catheter : Catheter
        How lesions are made.

    Raises
    ------
    InputError
        If access from one side is asked for and surfaces are not tagged, or there is no such side.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning.ablation.reach import Catheter, Reach
    >>> mesh = slab((30.0, 20.0, 2.0), 1.0)
    >>> reach = Reach(mesh, np.ones(mesh.n_tets, dtype=bool), Catheter(radius=4.0))
    >>> line = np.abs(mesh.points[mesh.tets].mean(axis=1)[:, 0] - 15.5) < 0.5
    >>> len(reach.cover(line).lesions)  # over 20 mm
    3
    """

    def __init__(self, mesh: TetMesh, living: Bool[np.ndarray, "tet"], catheter: Catheter):
        self.mesh, self.living, self.catheter = mesh, living, catheter
        self.wall = Wall(mesh)
        self.centres = self.wall.centres
        self.volume = self.wall.volume
        self.sides = [(nodes, KDTree(mesh.points[nodes])) for nodes in self._sides()]
        self.forbidden = np.zeros(mesh.n_tets, dtype=bool)
        for part in catheter.keep_away:
            self.forbidden |= KDTree(part.points).query(self.centres)[0] < part.distance
        self._known: dict[int, np.ndarray | None] = {}

    def _sides(self) -> list[Int[np.ndarray, "node"]]:
        """Nodes of each surface on which the catheter may lie."""
        surface = np.unique(boundary_triangles(self.mesh.tets))
        classes = self.mesh.point_fields.get("surf_class")
        if self.catheter.access == "both":
            if classes is None:
                return [surface]
            return [s for s in (surface[classes[surface] == k] for k in _OPEN) if len(s)]
        if classes is None:
            raise InputError(
                f"{self.catheter.access} access needs a heart whose surfaces are tagged "
                "(surf_class): make it by 'twinheart anatomy build', or allow both."
            )
        found = [surface[classes[surface] == kind] for kind in _CLASSES[self.catheter.access]]
        found = [nodes for nodes in found if len(nodes)]
        if not found:
            raise InputError(
                f"the heart has no surface for {self.catheter.access} access: allow both."
            )
        return found

    def near(self, target: Bool[np.ndarray, "tet"]) -> Applications:
        """Applications around the places nearest to a target.

        Parameters
        ----------
        target : (tet,) bool array
            Tissue that is to be burnt.

        Returns
        -------
        Applications
            Those that keep away from what must not be burnt.
        """
        nodes: list[int] = []
        for side, tree in self.sides:
            feet = np.unique(tree.query(self.centres[target])[1])
            around = tree.query_ball_point(tree.data[feet], _AROUND * self.catheter.radius)
            close = np.unique(np.concatenate([feet, *around]).astype(int)) if len(feet) else feet
            nodes += side[close[self._apart(tree.data[close])]].tolist()
        found = [(node, self._burns(node)) for node in nodes]
        kept = [(node, burnt) for node, burnt in found if burnt is not None]
        return Applications(
            self.mesh.points[[node for node, _ in kept]].reshape(-1, 3),
            _rows([burnt for _, burnt in kept], self.mesh.n_tets),
        )

    def _apart(self, points) -> np.ndarray:
        """Of points those that are kept if none may be near one that was kept before."""
        free = np.ones(len(points), dtype=bool)
        kept = []
        tree = KDTree(points)
        for k in range(len(points)):
            if free[k]:
                kept.append(k)
                free[tree.query_ball_point(points[k], _SPACING * self.catheter.radius)] = False
        return np.array(kept, dtype=int)

    def _burns(self, node: int) -> np.ndarray | None:
        """What an application at a node burns, None where it may not be."""
        if node not in self._known:
            lesion = self.catheter.at(self.mesh.points[node])
            burnt = np.flatnonzero(self.wall.burnt(lesion, "a lesion")[0])
            deep = np.linalg.norm(self.centres[burnt] - lesion.points[0], axis=1).max() > _WALL
            self._known[node] = None if deep or self.forbidden[burnt].any() else burnt
        return self._known[node]

    def cost(self, applications: Applications) -> Float[np.ndarray, "tet"]:
        """Living tissue [mm3] that the cheapest application over each tetrahedron burns.

        Infinite where none reaches.
        """
        burns = applications.burns
        price = burns @ np.where(self.living, self.volume, 0.0)
        least = np.full(self.mesh.n_tets, np.inf)
        np.minimum.at(least, burns.indices, np.repeat(price, np.diff(burns.indptr)))
        return least

    def cover(
        self, target: Bool[np.ndarray, "tet"], applications: Applications | None = None
    ) -> Covered:
        """Few lesions that burn all of a target and little else.

        Applications are chosen one by one by the square of what they add of the target over the
        living tissue that they burn anew; then those are dropped that the others make needless.

        Parameters
        ----------
        target : (tet,) bool array
            Tissue that is to be burnt.
        applications : Applications, optional
            By default those near the target.

        Returns
        -------
        Covered
            Lesions, and targets that no application reaches.
        """
        applications = self.near(target) if applications is None else applications
        chosen, missed = self.cover_by(target, applications)
        return Covered(tuple(self.catheter.at(applications.points[k]) for k in chosen), missed)

    def cover_by(
        self, target: Bool[np.ndarray, "tet"], applications: Applications
    ) -> tuple[list[int], Bool[np.ndarray, "tet"]]:
        """As `cover`: numbers of the applications, and targets that none reaches."""
        burns = applications.burns
        wanted = np.where(target, self.volume, 0.0)
        spare = np.where(self.living, self.volume, 0.0)
        chosen: list[int] = []
        while True:
            gain = burns @ wanted
            if not gain.size or not gain.max() > 0:
                break
            best = int((gain**2 / np.maximum(burns @ spare, 1e-9)).argmax())
            chosen.append(best)
            own = burns.indices[burns.indptr[best] : burns.indptr[best + 1]]
            wanted[own] = spare[own] = 0.0
        times = np.bincount(burns[chosen].indices, minlength=self.mesh.n_tets)
        kept = []
        for k in chosen:  # the first were chosen when they seemed to be worth most
            own = burns.indices[burns.indptr[k] : burns.indptr[k + 1]]
            if (times[own[target[own]]] > 1).all():
                times[own] -= 1
            else:
                kept.append(k)
        return kept, target & (wanted > 0)


def _rows(columns: list[np.ndarray], width: int) -> sp.csr_array:
    ends = np.concatenate([[0], np.cumsum([len(c) for c in columns])]).astype(np.int64)
    which = np.concatenate([np.zeros(0, dtype=np.int64), *columns])
    ones = np.ones(len(which))
    return sp.csr_array((ones, which, ends), shape=(len(columns), width))
