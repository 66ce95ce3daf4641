"""From triangulated surfaces to the implicit muscle: one closed surface with tags, or patches."""

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage
from scipy.spatial import KDTree

from twinheart.errors import MeshError
from twinheart.imaging.chambers import (
    OUTWARD,
    Cavity,
    Chambers,
    MinimumWall,
    assemble_chambers,
)
from twinheart.imaging.distance_grid import DistanceGrid, Grid, Mask, Values, grid_positions
from twinheart.imaging.image import points_to_voxels
from twinheart.imaging.surface_grid import (
    NearSurface,
    box_grid,
    distance_on_grid,
    surface_points,
    winding_numbers,
)
from twinheart.mesh.closed import closed_surface
from twinheart.mesh.core import TriMesh
from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.quality import edge_keys, enclosed_volume
from twinheart.mesh.repair import repair
from twinheart.types import Points

CLASS_FIELDS = ("surf_class", "class", "surface_class", "tag", "label")
PATCHES = {
    "epi": SurfaceClass.EPICARDIUM,
    "lv": SurfaceClass.LV_ENDOCARDIUM,
    "rv": SurfaceClass.RV_ENDOCARDIUM,
    "base": SurfaceClass.BASE,
}
# Grid step over the edge length of the mesh, and the finest and coarsest [mm].
_STEP, _FINEST, _COARSEST = 0.75, 0.3, 1.5
# Holes in closed surfaces up to this extent [mm] are closed; larger ones may be valves.
_MAX_HOLE = 6.0
# Greatest extent [mm] of a valve, or of the base where all valves are one.
_MAX_VALVE = 200.0
# Cosine between normals from which on two surfaces are taken for the same side of a wall.
_SAME_SIDE = 0.3


class TaggedSurface(eqx.Module):
    """The muscle within a closed surface whose nodes say where they belong.

    Parameters
    ----------
    grid : DistanceGrid
        Signed distance to the surface.
    surface : TriMesh
        The surface, closed, normals outwards, with the point field ``surf_class``.
    volume : float
        Volume [mm^3] inside.
    euler : int
        Euler number of the surface.
    notes : tuple of str
        Sentences for the user.
    added, filled : float
        Volumes [mm^3] added to it: none, a closed surface is taken as it is.
    """

    grid: DistanceGrid
    surface: TriMesh
    volume: float
    euler: int
    notes: tuple[str, ...] = ()
    added: float = 0.0
    filled: float = 0.0

    def distance(self, points: Points) -> Values:
        """Signed distance [mm] to the surface of the muscle, negative in it."""
        return self.grid(points)

    @property
    def rim(self) -> Points:
        """Points [mm] near which walls may end: the base, or where the other tags meet."""
        tags = self.surface.point_fields["surf_class"][self.surface.triangles]
        ends = (tags == SurfaceClass.BASE).any(axis=1) | (np.ptp(tags, axis=1) > 0)
        return self.surface.points[np.unique(self.surface.triangles[ends])]

    def bounds(self) -> Float[np.ndarray, "2 3"]:
        """Lower and upper corner [mm] of a box around the muscle."""
        margin = self.grid.spacing
        points = self.surface.points
        return np.array([points.min(axis=0) - margin, points.max(axis=0) + margin])

    def classes(self, points: Points, normals: Points) -> Int[np.ndarray, "node"]:
        """`SurfaceClass` of points on the surface: that of the nearest place facing the same way.

        Parameters
        ----------
        points, normals : (node, 3) arrays
            Positions [mm] and unit normals outwards.
        """
        corners = self.surface.points[self.surface.triangles]
        places, triangle = surface_points(corners, self.grid.spacing)
        side = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-300)
        closest = np.linalg.norm(places[:, None] - corners[triangle], axis=2).argmin(axis=1)
        node = self.surface.triangles[triangle, closest]
        _, near = KDTree(places).query(points, k=min(12, len(places)), workers=-1)
        near = np.asarray(near).reshape(len(points), -1)
        cosine = np.einsum("nkx,nx->nk", side[triangle[near]], normals)
        first = np.argmax(cosine > _SAME_SIDE, axis=1)  # the nearest of all where none is
        chosen = near[np.arange(len(points)), first]
        return self.surface.point_fields["surf_class"][node[chosen]]


def tagged_surface(surface: TriMesh, edge: float) -> TaggedSurface:
    """Make the implicit muscle from a closed surface with tags.

    Parameters
    ----------
    surface : TriMesh
        Surface of the muscle [mm]; a point field, one of `CLASS_FIELDS`, holds `SurfaceClass`:
        1 base, 2 epicardium, 3 LV and 4 RV endocardium. Small holes are closed.
    edge : float
        Edge length of the mesh to come [mm].

    Returns
    -------
    TaggedSurface
        The muscle.

    Raises
    ------
    MeshError
        If the tags are missing, or the surface has large holes, several parts or cuts through
        itself.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.from_surfaces import tagged_surface
    >>> from twinheart.mesh import TriMesh
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.mesh.quality import boundary_triangles
    >>> block = slab((10.0, 8.0, 6.0), 2.0)
    >>> tags = {"class": np.full(block.n_nodes, 2)}
    >>> surface = TriMesh(block.points, boundary_triangles(block.tets), tags)
    >>> round(tagged_surface(surface, 1.0).volume, 3)
    480.0
    """
    surface, _ = repair(surface)
    classes = _surface_classes(surface)
    closed, notes = closed_surface(surface, max_hole=_MAX_HOLE)
    if closed.n_nodes > surface.n_nodes:
        _, near = KDTree(surface.points).query(closed.points[surface.n_nodes :])
        classes = np.concatenate([classes, classes[near]])
    tagged = TriMesh(closed.points, closed.triangles, {"surf_class": classes})
    return muscle_within(tagged, edge, notes)


def muscle_within(surface: TriMesh, edge: float, notes: tuple[str, ...] = ()) -> TaggedSurface:
    """The implicit muscle within a surface that is known to be closed, such as that of a mesh.

    Parameters
    ----------
    surface : TriMesh
        Closed, normals outwards [mm], with the point field ``surf_class``.
    edge : float
        Edge length of the mesh to come [mm].
    notes : tuple of str
        What was mended.

    Returns
    -------
    TaggedSurface
        The muscle.
    """
    step = _grid_step(edge)
    corners = surface.points[surface.triangles]
    affine, shape = box_grid(surface.points, step, 4 * step)
    distance = _on_grid(NearSurface(corners, step), affine, shape)
    volume = enclosed_volume(surface.points, surface.triangles)
    n_edges = len(np.unique(edge_keys(surface.triangles)))
    euler = surface.n_nodes - n_edges + surface.n_triangles
    return TaggedSurface(DistanceGrid(distance, affine), surface, volume, euler, notes)


def chambers_from_patches(
    patches: dict[str, TriMesh], edge: float, wall: MinimumWall | None = None
) -> Chambers | TaggedSurface:
    """Make the implicit muscle from separate surfaces of epicardium and endocardia.

    Each may be closed, or open at its valves: the planes over its openings become the valve
    planes. Where an endocardium comes too near to the epicardium or cuts through it, the minimum
    wall is put around it. With a base that joins them to one closed surface, that surface is taken
    as it is.

    Parameters
    ----------
    patches : dict of TriMesh
        ``epi``, ``lv`` and, if wanted, ``rv`` and ``base``.
    edge : float
        Edge length of the mesh to come [mm].
    wall : MinimumWall, optional
        Least thickness of the walls.

    Returns
    -------
    Chambers or TaggedSurface
        The muscle.

    Raises
    ------
    MeshError
        If `epi` or `lv` is missing, a surface has several parts or cuts through itself, or the LV
        lies outside the epicardium.

    Examples
    --------
    >>> from twinheart.imaging.from_surfaces import chambers_from_patches
    >>> chambers_from_patches({}, 1.0)
    Traceback (most recent call last):
    twinheart.errors.MeshError: the surfaces lack epi and lv: ...
    """
    missing = [role for role in ("epi", "lv") if role not in patches]
    if missing:
        raise MeshError(
            f"the surfaces lack {' and '.join(missing)}: say which is which, as epi=FILE lv=FILE "
            "rv=FILE base=FILE."
        )
    if "base" in patches:
        return tagged_surface(_joined(patches), edge)
    step = _grid_step(edge)
    caps = {role: _capped(role, patch) for role, patch in patches.items()}
    everything = np.concatenate([cap.surface.points for cap in caps.values()])
    affine, shape = box_grid(everything, step, OUTWARD + 4 * step)
    wall = wall or MinimumWall()
    hull = caps["epi"].distance(affine, shape, step)
    cavities, notes = {}, [note for cap in caps.values() for note in cap.notes]
    for role in ("lv", "rv"):
        if role in caps:
            name = role.upper()
            distance = caps[role].distance(affine, shape, step)
            if (hull[distance < 0] > 0).mean() > 0.5:
                raise MeshError(
                    f"most of the {name} lies outside the epicardium: are the surfaces of the "
                    "same heart, in one frame and unit?"
                )
            cavities[name] = caps[role].cavity(distance, affine, step)
    hull = np.min([hull, *(c.distance for c in cavities.values())], axis=0)
    return assemble_chambers(hull, cavities, affine, edge, wall, notes=tuple(notes))


class _Capped(eqx.Module):
    """A patch closed by fans of triangles over its openings."""

    surface: TriMesh
    n_own: int  # triangles of the patch itself; those of the caps follow
    n_nodes: int  # the same of nodes; one middle for each cap follows
    notes: tuple[str, ...]

    def distance(self, affine, shape, step: float) -> Grid:
        corners = self.surface.points[self.surface.triangles]
        return _on_grid(NearSurface(corners, step), affine, shape)

    def cavity(self, distance: Grid, affine, step: float) -> Cavity:
        """The blood within, and what lies straight above the caps."""
        points, triangles = self.surface.points, self.surface.triangles
        caps = triangles[self.n_own :]
        beyond = np.zeros(distance.shape, dtype=bool)
        if not len(caps):
            return Cavity(distance, beyond, np.zeros((0, 3)), np.zeros((0, 3)), 0)
        own = caps < self.n_nodes
        rim = points[caps[own].reshape(-1, 2)]
        rim_points = np.concatenate([rim[:, 0] + t * (rim[:, 1] - rim[:, 0]) for t in _ALONG])
        cap = NearSurface(points[caps], step)
        wall = NearSurface(points[triangles[: self.n_own]], step)
        near = _around(cap.points, affine, distance.shape, OUTWARD) & (distance > 0)
        places = grid_positions(affine, near)
        to_cap = cap(places)
        to_rim, _ = KDTree(rim_points).query(places, workers=-1)
        above = (to_rim > to_cap + 0.02 * step) & (to_cap < OUTWARD)
        above[above] = to_cap[above] <= wall(places[above])
        beyond[near] = above
        first, second = (cap.corners[:, k] - cap.corners[:, 0] for k in (1, 2))
        side = np.cross(first, second)
        which = caps.max(axis=1) - self.n_nodes  # each cap has a middle of its own
        normal = np.stack([np.bincount(which, side[:, k]) for k in range(3)], axis=1)
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-300)
        return Cavity(distance, beyond, cap.points, normal[which[cap.triangle]], len(normal))


_ALONG = np.linspace(0, 1, 21)


def _capped(role: str, patch: TriMesh) -> _Capped:
    try:
        patch, _ = repair(TriMesh(patch.points, patch.triangles))
        surface, notes = closed_surface(patch, max_hole=_MAX_VALVE)
    except MeshError as error:
        raise MeshError(f"{role}: {error}") from None
    said = tuple(f"{role}: {note}" for note in notes)
    return _Capped(surface, patch.n_triangles, patch.n_nodes, said)


def _joined(patches: dict[str, TriMesh]) -> TriMesh:
    """One surface of all patches; the base first, so that the nodes it shares become its own."""
    points, triangles, classes, start = [], [], [], 0
    for role, patch in sorted(patches.items()):
        points.append(patch.points)
        triangles.append(patch.triangles + start)
        classes.append(np.full(patch.n_nodes, PATCHES[role], dtype=np.int32))
        start += patch.n_nodes
    fields = {"surf_class": np.concatenate(classes)}
    return TriMesh(np.concatenate(points), np.concatenate(triangles), fields)


def _surface_classes(surface: TriMesh) -> Int[np.ndarray, "node"]:
    for name in CLASS_FIELDS:
        values = surface.point_fields.get(name, np.zeros((0, 2)))
        if values.ndim == 1 and np.isin(values, list(PATCHES.values())).all():
            return values.astype(np.int32)
    raise MeshError(
        f"the surface has no point field named one of {', '.join(CLASS_FIELDS)} with the values 1 "
        f"base, 2 epicardium, 3 LV and 4 RV endocardium; it has "
        f"{', '.join(surface.point_fields) or 'no fields'}: tag it, or give its parts as "
        "epi=FILE lv=FILE rv=FILE."
    )


def _on_grid(near: NearSurface, affine, shape) -> Grid:
    return distance_on_grid(near, winding_numbers(near.corners, affine, shape), affine)


def _around(points: Points, affine, shape: tuple[int, ...], reach: float) -> Mask:
    marked = np.zeros(shape, dtype=bool)
    marked[tuple(np.rint(points_to_voxels(affine, points)).astype(int).T)] = True
    away = ndimage.distance_transform_edt(~marked)
    return np.asarray(away) * np.linalg.norm(affine[:3, 0]) < reach


def _grid_step(edge: float) -> float:
    return float(np.clip(_STEP * edge, _FINEST, _COARSEST))
