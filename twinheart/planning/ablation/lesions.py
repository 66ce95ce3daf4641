r"""Ablation lesions: which tetrahedra they burn, how much that is, and how deep into the wall.

A lesion is a point or a path of the catheter. With a depth it is burnt from the surface of the
muscle on which the catheter lies: half an ellipsoid into the wall, its radius along the surface,
swept along the path. With infinite depth it goes through the whole wall; never across a cavity.
Without a depth it is a ball around the point (a tube around the path), wherever that lies.

Tetrahedra are burnt where their centres are: a lesion thinner than two edges of the mesh may leak,
which `twinheart.planning.isolation` tells.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree

from twinheart.anatomy import Heart
from twinheart.cell import AbstractCellModel
from twinheart.errors import InputError, MeshError
from twinheart.mesh import TetMesh
from twinheart.mesh.quality import boundary_triangles, mean_edge, triangle_normals, volumes
from twinheart.tissue import NonConducting
from twinheart.tissue.conductivity import Conduction, by_region

# Added to the region tag of what is burnt; scar adds up to 2000.
LESION_TAG = 10_000
LESION_FIELD = "lesion"
# The catheter may lie so many mm from the muscle: registration, and the facets of the mesh.
_REACH = 5.0
_THICKEST = 40.0  # mm, of a wall
_GAP = 2.0  # edges without a tetrahedron: the wall ends there
_ALIKE = 0.3  # cosine between normals of one side of a wall
_CANDIDATES = 64


class Lesion(eqx.Module):
    """One lesion.

    Parameters
    ----------
    points : (point, 3) array
        Where the catheter was [mm]; several are a path, straight between them and drawn onto the
        surface. On a curved wall 10 mm from one to the next is near enough.
    radius : float
        Along the surface [mm].
    depth : float or None
        Into the wall [mm]; ``inf`` is transmural; None is a ball or tube around the points.

    Raises
    ------
    InputError
        If a number is not finite or not positive.

    Examples
    --------
    >>> from twinheart.planning import Lesion
    >>> Lesion([[0.0, 0.0, 5.0]], radius=3.5, depth=5.0).points.shape
    (1, 3)
    """

    points: Float[np.ndarray, "point 3"]
    radius: float
    depth: float | None = None

    def __init__(self, points: Any, radius: float, depth: float | None = None):
        self.points = np.atleast_2d(np.asarray(points, dtype=float))
        self.radius = float(radius)
        self.depth = None if depth is None else float(depth)
        if self.points.shape[1:] != (3,) or not np.isfinite(self.points).all():
            raise InputError(
                f"the points of a lesion have shape {self.points.shape}, expected finite "
                "coordinates (point, 3) in mm."
            )
        if not 0 < self.radius <= 50:
            raise InputError(f"a lesion has a radius of {radius} mm, expected above 0, at most 50.")
        if self.depth is not None and not self.depth > 0:
            raise InputError(f"a lesion has a depth of {depth} mm, expected a positive number.")


class Ablation(NamedTuple):
    """What lesions burn.

    Attributes
    ----------
    number : (tet,) int array
        0 for living tissue, else the first lesion that burns it, from 1.
    volume_ml : float
        Of all that is burnt.
    lesion_ml : (lesion,) array
        Of each lesion by itself.
    transmurality : (lesion,) array
        Share of the wall under each lesion that it burns, where it burns least; NaN for a ball.
    """

    number: Int[np.ndarray, "tet"]
    volume_ml: float
    lesion_ml: Float[np.ndarray, "lesion"]
    transmurality: Float[np.ndarray, "lesion"]


def ablate_tissue(mesh: TetMesh, lesions: Sequence[Lesion]) -> Ablation:
    """Find what lesions burn.

    Parameters
    ----------
    mesh : TetMesh
        The heart [mm].
    lesions : sequence of Lesion
        In the order in which they are numbered.

    Returns
    -------
    Ablation
        Burnt tetrahedra and volumes.

    Raises
    ------
    InputError
        If a lesion lies outside the heart, or is too small for the mesh to hold.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning import Lesion, ablate_tissue
    >>> mesh = slab((20.0, 20.0, 4.0), 1.0)
    >>> burnt = ablate_tissue(mesh, [Lesion([[10.0, 10.0, 4.0]], radius=3.0, depth=np.inf)])
    >>> round(burnt.volume_ml, 2), burnt.transmurality.tolist()  # pi 3^2 4 mm3
    (0.11, [1.0])
    """
    wall = Wall(mesh)
    number = np.zeros(mesh.n_tets, dtype=np.int32)
    sizes, shares = [], []
    for k, lesion in enumerate(lesions, start=1):
        burnt, share = wall.burnt(lesion, f"lesion {k}")
        number[burnt & (number == 0)] = k
        sizes.append(wall.volume[burnt].sum() / 1000.0)
        shares.append(share)
    total = float(wall.volume[number > 0].sum()) / 1000.0
    return Ablation(number, total, np.array(sizes, float), np.array(shares, float))


def stored_ablation(mesh: TetMesh) -> Ablation | None:
    """Lesions that a mesh has as its cell field ``lesion``, as ``twinheart ablate`` writes it.

    Parameters
    ----------
    mesh : TetMesh
        The heart [mm].

    Returns
    -------
    Ablation or None
        None where nothing is burnt. How much of the wall a lesion burns is not stored.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh import TetMesh
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning.ablation.lesions import stored_ablation
    >>> mesh = slab((4.0, 1.0, 1.0), 1.0)
    >>> number = (mesh.points[mesh.tets].mean(axis=1)[:, 0] < 1).astype(np.int32)
    >>> burnt = stored_ablation(TetMesh(mesh.points, mesh.tets, {}, {"lesion": number}))
    >>> len(burnt.lesion_ml), round(burnt.volume_ml, 3)
    (1, 0.001)
    """
    number = mesh.cell_fields.get(LESION_FIELD)
    if number is None or not (number > 0).any():
        return None
    number = np.maximum(number, 0).astype(np.int32)
    sizes = np.bincount(number, np.abs(volumes(mesh.points, mesh.tets)))[1:] / 1000.0
    return Ablation(number, float(sizes.sum()), sizes, np.full(len(sizes), np.nan))


def ablated(
    heart: Heart,
    cell: AbstractCellModel | dict[int, AbstractCellModel],
    conduction: Conduction | dict[int, Conduction],
    ablation: Ablation,
) -> tuple[Heart, dict[int, AbstractCellModel], dict[int, Conduction]]:
    """Heart, cells and conduction in which lesions are regions that do not conduct.

    Parameters
    ----------
    heart : Heart
        The heart; with scar, what `twinheart.tissue.scar.scarred` returns.
    cell, conduction
        One for all, or one for each of its region tags.
    ablation : Ablation
        What `ablate_tissue` found.

    Returns
    -------
    Heart, dict, dict
        Tag t of the living tissue is 10000 + t in a lesion; the cell field ``lesion`` has the
        numbers.

    Raises
    ------
    MeshError
        If the ablation is of another mesh, or a region tag is 10000 or more.

    Examples
    --------
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.cell import get_model
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning import Lesion, ablate_tissue, ablated
    >>> from twinheart.tissue import NIEDERER_2011
    >>> heart = Heart(slab((8.0, 8.0, 4.0), 1.0))
    >>> burnt = ablate_tissue(heart.mesh, [Lesion([[4.0, 4.0, 2.0]], radius=2.0)])
    >>> list(ablated(heart, get_model("tentusscher2006-epi"), NIEDERER_2011, burnt)[2])
    [0, 10000]
    """
    if len(ablation.number) != heart.mesh.n_tets:
        raise MeshError(
            f"the lesions are on {len(ablation.number)} tetrahedra, the heart has "
            f"{heart.mesh.n_tets}: place them on this heart."
        )
    if not ((heart.regions >= 0) & (heart.regions < LESION_TAG)).all():
        raise MeshError(
            f"the region tags run from {heart.regions.min()} to {heart.regions.max()}; a heart "
            f"with lesions needs tags from 0 to {LESION_TAG - 1}: renumber them."
        )
    burnt = ablation.number > 0
    regions = heart.regions + LESION_TAG * burnt.astype(np.int32)
    cells, tissues = by_region(heart, cell, "cell model"), by_region(heart, conduction, "tissue")
    tags = np.unique(regions).tolist()
    mesh = heart.mesh
    fields = mesh.cell_fields | {LESION_FIELD: ablation.number}
    return (
        Heart(
            TetMesh(mesh.points, mesh.tets, mesh.point_fields, fields), heart.f0, heart.s0, regions
        ),
        {tag: cells[tag % LESION_TAG] for tag in tags},
        {tag: NonConducting() if tag >= LESION_TAG else tissues[tag] for tag in tags},
    )


class Wall:
    """A heart, its surface, and where its tetrahedra are: made once for many lesions.

    Parameters
    ----------
    mesh : TetMesh
        The heart [mm].
    """

    def __init__(self, mesh: TetMesh):
        self.mesh = mesh
        self.edge = mean_edge(mesh)
        self.volume = np.abs(volumes(mesh.points, mesh.tets))
        self.centres = mesh.points[mesh.tets].mean(axis=1)
        self.near = KDTree(self.centres)
        triangles = boundary_triangles(mesh.tets)
        self.corners = mesh.points[triangles]
        self.inward = -triangle_normals(mesh.points, triangles)
        self.surface = KDTree(self.corners.mean(axis=1))

    def burnt(self, lesion: Lesion, name: str) -> tuple[Bool[np.ndarray, "tet"], float]:
        """Find what a lesion burns.

        Parameters
        ----------
        lesion : Lesion
            The lesion.
        name : str
            What it is called where it cannot be placed.

        Returns
        -------
        (tet,) bool array, float
            Burnt tetrahedra, and the share of the wall where least is burnt (NaN for a ball).

        Raises
        ------
        InputError
            As `ablate_tissue`.
        """
        places = _along(lesion.points, min(self.edge, lesion.radius) / 2)
        inside = np.zeros(self.mesh.n_tets, dtype=bool)
        share = np.nan
        if lesion.depth is None:
            for found in self.near.query_ball_point(places, lesion.radius):
                inside[found] = True
        else:
            sites, inward = self._on_surface(lesion.points, places, name)
            columns = [self._column(*at, lesion) for at in zip(sites, inward, strict=True)]
            for tets, depth, across in columns:
                inside[tets[_in_ellipsoid(depth, across, lesion)]] = True
            share = min(self._share(inside, *column, lesion.radius) for column in columns)
        if not inside.any():
            if self.near.query(places)[0].min() > lesion.radius + self.edge:
                raise _outside(name, lesion.points[0], self.near.query(lesion.points[0])[0])
            raise InputError(
                f"{name} has a radius of {lesion.radius:g} mm and holds no tetrahedron of this "
                f"heart, whose edges are {self.edge:.1f} mm: take a finer mesh."
            )
        return inside, float(share)

    def _on_surface(self, ends, places, name: str):
        """Nearest points of the surface, of the side of the wall on which the ends lie."""
        near, feet, gap = self._around(ends)
        least = gap.min(axis=1)
        worst = int(np.argmax(least))
        if least[worst] > _REACH + self.edge:
            raise _outside(name, ends[worst], least[worst])
        if len(ends) == 1:
            return self._foot(near, feet, gap)[:2]
        sides = self._sides(near, gap)
        length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(ends, axis=0), axis=1))])
        share = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(places, axis=0), axis=1))])
        side = np.stack([np.interp(share, length, sides[:, i]) for i in range(3)], axis=1)
        side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12)
        near, feet, gap = self._around(places)
        gap[np.einsum("pci,pi->pc", self.inward[near], side) < _ALIKE] = np.inf
        feet, normals, gap = self._foot(near, feet, gap)
        if not np.isfinite(gap).all() or gap.max() > 2 * _REACH + self.edge:
            raise InputError(
                f"{name}: between two of its points the path leaves the surface: give more points, "
                "all on one side of the wall."
            )
        return feet, normals

    def _around(self, points):
        """Triangles near points, the nearest point of each, and how far that is."""
        count = min(_CANDIDATES, len(self.corners))
        near = self.surface.query(points, k=count)[1].reshape(len(points), count)
        feet = _feet(self.corners[near], points[:, None])
        return near, feet, np.linalg.norm(feet - points[:, None], axis=2)

    def _sides(self, near, gap):
        """Normal at each end of a path; on the rim of the wall that most like its neighbours'."""
        close = gap <= gap.min(axis=1, keepdims=True) + self.edge / 2
        sides = []
        for i in range(len(near)):
            own = self.inward[near[i, close[i]]]
            score = -1e-6 * gap[i, close[i]]
            for j in (i - 1, i + 1):
                if 0 <= j < len(near):
                    score = score + (own @ self.inward[near[j, close[j]]].T).max(axis=1)
            sides.append(own[np.argmax(score)])
        return np.stack(sides)

    def _foot(self, near, feet, gap):
        """Nearest point of the surface, its inward normal, and how far it is."""
        rows, best = np.arange(len(near)), gap.argmin(axis=1)
        foot, normals = feet[rows, best], self.inward[near]
        # the mean over the triangles around is smoother than the normal of one facet
        alike = np.einsum("pci,pi->pc", normals, normals[rows, best]) > _ALIKE
        alike &= np.linalg.norm(feet - foot[:, None], axis=2) < 2 * self.edge
        normal = np.einsum("pc,pci->pi", alike.astype(float), normals)
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        return foot, normal, gap[rows, best]

    def _column(self, site, inward, lesion: Lesion):
        """Tetrahedra of the wall under a site, their depths and distances from its axis."""
        wide = max(lesion.radius, self.edge)
        half = _THICKEST / 2  # of the whole wall, however shallow the lesion: for its share
        ball = self.near.query_ball_point(site + half * inward, np.hypot(half + wide, wide))
        tets = np.array(ball, dtype=int)
        offset = self.centres[tets] - site
        depth = offset @ inward
        across = np.linalg.norm(offset - depth[:, None] * inward, axis=1)
        under = (across <= wide) & (depth >= -wide)
        tets, depth, across = (values[under] for values in (tets, depth, across))
        order = np.argsort(depth)
        gaps = np.diff(np.maximum(depth[order], 0.0), prepend=0.0) > _GAP * self.edge
        order = order[: gaps.argmax()] if gaps.any() else order
        return tets[order], depth[order], across[order]

    def _share(self, inside, tets, depth, across, radius: float) -> float:
        middle = across <= max(radius / 2, self.edge)
        whole = self.volume[tets[middle]].sum()
        return self.volume[tets[middle & inside[tets]]].sum() / whole if whole else 0.0


def _in_ellipsoid(depth, across, lesion: Lesion) -> np.ndarray:
    assert lesion.depth is not None
    # what lies above the site, where the wall bulges, is as near as its distance
    reach = np.where(depth > 0, lesion.depth, lesion.radius)
    return (across / lesion.radius) ** 2 + (depth / reach) ** 2 <= 1.0


def _along(points: np.ndarray, step: float) -> np.ndarray:
    """Points of a path at most one step apart."""
    pieces = [points[:1]]
    for start, end in pairwise(points):
        count = max(1, int(np.ceil(np.linalg.norm(end - start) / step)))
        pieces.append(start + np.linspace(0, 1, count + 1)[1:, None] * (end - start))
    return np.concatenate(pieces)


def _feet(corners: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Nearest points of triangles (..., 3, 3) to points (..., 3)."""
    a, b, c = (corners[..., k, :] for k in range(3))
    ab, ac = b - a, c - a
    normal = np.cross(ab, ac)
    square = np.maximum((normal**2).sum(-1), 1e-300)
    offset = points - a
    v = (np.cross(offset, ac) * normal).sum(-1) / square
    w = (np.cross(ab, offset) * normal).sum(-1) / square
    inside = (v >= 0) & (w >= 0) & (v + w <= 1)
    best = np.where(inside[..., None], a + v[..., None] * ab + w[..., None] * ac, np.inf)
    gap = np.where(inside, np.linalg.norm(best - points, axis=-1), np.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        side = end - start
        share = ((points - start) * side).sum(-1) / np.maximum((side**2).sum(-1), 1e-300)
        foot = start + np.clip(share, 0, 1)[..., None] * side
        far = np.linalg.norm(foot - points, axis=-1)
        nearer = far < gap
        best, gap = np.where(nearer[..., None], foot, best), np.where(nearer, far, gap)
    return best


def _outside(name: str, point: np.ndarray, gap: float) -> InputError:
    place = ", ".join(f"{x:.1f}" for x in point)
    return InputError(
        f"{name} lies outside the heart: ({place}) mm is {gap:.1f} mm away from the muscle; check "
        "that lesions and heart have the same coordinates."
    )
