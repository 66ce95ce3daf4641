"""A heart in its torso: tetrahedra of the whole body, tagged by what they are made of.

The torso has a mesh of its own, fine where the heart is and coarse elsewhere, whose faces follow
the surface of the heart; the heart keeps its mesh. Potentials and lead fields are smooth: they are
solved for on the torso and interpolated at the nodes of the heart.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree

from twinheart.anatomy.body import BodyFrame
from twinheart.errors import MeshError
from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.bisection import bisect_to
from twinheart.mesh.closed import signed_distance
from twinheart.mesh.implicit import SurfaceClass, ellipsoid
from twinheart.mesh.quality import (
    boundary_triangles,
    components,
    dihedral_angles,
    edge_keys,
    enclosed_volume,
    volumes,
)
from twinheart.mesh.smoothing import Distance
from twinheart.mesh.stuffing import stuff


class TorsoRegion(IntEnum):
    """Values of the cell field ``region`` of a torso."""

    TORSO = 1
    LUNGS = 2
    BLOOD = 3
    HEART = 4


# Bulk conductivities [S/m]: values in common use, not measured in one place; starting points to be
# changed. The heart's is the isotropic mean of intra- and extracellular space together, for when
# its anisotropy is left out.
CONDUCTIVITY: dict[TorsoRegion, float] = {
    TorsoRegion.TORSO: 0.22,
    TorsoRegion.LUNGS: 0.04,
    TorsoRegion.BLOOD: 0.7,
    TorsoRegion.HEART: 0.44,
}

EDGE, HEART_EDGE = 10.0, 3.0
_ELECTRODE_EDGE = 3.0
_GROWTH = 0.3  # of the edge length with the distance from where it is fine
_LONGEST = 1.3  # longest edge of a tetrahedron over the mean edge length
_LEAST_COVER = 3.0  # tissue between heart and skin [mm]
_GUARD = 15.0  # dihedral angle [degrees] below which no tetrahedron is deformed further

# Template lungs: centre and radii as shares of the chest's width (left, head) and depth (front),
# and what they leave free [shares of the width]: the chest wall and a layer around the heart.
_LUNG_CENTRE, _LUNG_RADII = (0.27, 0.0, 0.12), (0.20, 0.40, 0.30)
_CHEST_WALL, _AROUND_HEART = 0.06, 0.015


def check_heart_inside(heart: TetMesh, skin: TriMesh) -> float:
    """Least distance [mm] from the heart to the skin around it.

    Parameters
    ----------
    heart : TetMesh
        Ventricles [mm].
    skin : TriMesh
        Closed surface of the body in the same coordinates, normals outwards.

    Returns
    -------
    float
        Thickness of the tissue where it is thinnest.

    Raises
    ------
    MeshError
        If the heart lies outside the torso, or closer than 3 mm to the skin; it says by how much.

    Examples
    --------
    >>> from twinheart.anatomy import demo_heart
    >>> from twinheart.anatomy.body import template_body
    >>> from twinheart.anatomy.torso import check_heart_inside
    >>> heart = demo_heart().mesh
    >>> check_heart_inside(heart, template_body(heart)[0]) > 10.0
    True
    """
    nodes = np.unique(boundary_triangles(heart.tets))
    distance = signed_distance(skin)(heart.points[nodes])
    worst = distance.max()
    where = ", ".join(f"{x:.0f}" for x in heart.points[nodes[distance.argmax()]])
    if distance.min() > 0:
        raise MeshError(
            f"the heart lies outside the torso: its nearest node is {distance.min():.0f} mm away "
            "from it; give both in the same coordinates, or say where in the torso the heart lies."
        )
    if worst > 0:
        raise MeshError(
            f"the heart reaches {worst:.1f} mm out of the torso, at ({where}) mm: the torso is too "
            "small for it, or the heart lies in the wrong place."
        )
    if worst > -_LEAST_COVER:
        raise MeshError(
            f"only {-worst:.1f} mm lie between heart and skin at ({where}) mm, expected at least "
            f"{_LEAST_COVER:g} mm: the torso is too small, or the heart lies in the wrong place."
        )
    return float(-worst)


def torso_mesh(
    heart: TetMesh,
    skin: TriMesh,
    *,
    edge: float = EDGE,
    heart_edge: float = HEART_EDGE,
    electrodes: Float[np.ndarray, "electrode 3"] | None = None,
    lungs: Sequence[Distance] = (),
) -> TetMesh:
    """Fill a body with tetrahedra that follow the surface of the heart in it.

    Parameters
    ----------
    heart : TetMesh
        Ventricles [mm]; with the point field ``surf_class`` the blood in them is told from the
        tissue around them.
    skin : TriMesh
        Closed surface of the body, normals outwards.
    edge, heart_edge : float
        Mean edge [mm] far from the heart and in it.
    electrodes : (electrode, 3) array, optional
        Places on the skin [mm] around which edges are at most 4 mm; the nearest nodes move there.
    lungs : sequence of callables, (n, 3) array -> (n,) array
        Signed distances [mm] to the lungs, negative inside.

    Returns
    -------
    TetMesh
        Conforming, with the cell field ``region`` (`TorsoRegion`).

    Raises
    ------
    MeshError
        If the heart is not inside the body, or an edge is not usable.

    Notes
    -----
    A body-centred lattice is stuffed into the body (`stuff`), halved towards the heart
    (`bisect_to`) and tagged at the centres of its tetrahedra. Nodes where heart or lungs
    end then move onto their surfaces as far as no angle falls below 15 degrees. A ventricle's
    blood ends where its endocardium ends: there a lid closes it.

    Examples
    --------
    >>> from twinheart.anatomy import demo_heart
    >>> from twinheart.anatomy.body import template_body
    >>> from twinheart.anatomy.torso import TorsoRegion, torso_mesh
    >>> heart = demo_heart().mesh
    >>> mesh = torso_mesh(heart, template_body(heart)[0], edge=25.0, heart_edge=12.0)
    >>> sorted(TorsoRegion(tag).name for tag in set(mesh.cell_fields["region"].tolist()))
    ['BLOOD', 'HEART', 'TORSO']
    """
    if not 0 < heart_edge <= edge < np.inf:
        raise MeshError(
            f"the mean edges are {edge:g} mm and, in the heart, {heart_edge:g} mm; expected "
            "positive lengths, the second not above the first."
        )
    check_heart_inside(heart, skin)
    bounds = (skin.points.min(axis=0), skin.points.max(axis=0))
    mesh = stuff(signed_distance(skin), bounds, edge, improve=False)
    mesh = bisect_to(mesh, _sizes(heart, edge, heart_edge, electrodes))
    if electrodes is not None:
        nodes, _ = skin_nodes(mesh, electrodes)
        mesh = TetMesh(_guarded(mesh.points, mesh.tets, nodes, electrodes), mesh.tets)
    region = _regions(mesh, heart, lungs)
    to_heart = signed_distance(TriMesh(heart.points, boundary_triangles(heart.tets)))
    points = mesh.points
    for tag, surfaces in ((TorsoRegion.LUNGS, lungs), (TorsoRegion.HEART, (to_heart,))):
        for distance in surfaces:
            points = _onto_surface(points, mesh.tets, region == tag, distance)
    return TetMesh(points, mesh.tets, {}, {"region": region})


def template_lungs(frame: BodyFrame, skin: TriMesh, heart: TetMesh) -> Distance:
    """Two ellipsoidal lungs in a chest, clear of its wall and of the heart.

    Parameters
    ----------
    frame : BodyFrame
        Axes and size of the chest.
    skin : TriMesh
        Closed surface of the body, normals outwards.
    heart : TetMesh
        Ventricles [mm].

    Returns
    -------
    callable, (n, 3) array -> (n,) array
        Signed distance [mm], negative in a lung.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy import demo_heart
    >>> from twinheart.anatomy.body import template_body
    >>> from twinheart.anatomy.torso import template_lungs
    >>> heart = demo_heart().mesh
    >>> skin, frame = template_body(heart)
    >>> lungs = template_lungs(frame, skin, heart)
    >>> lungs(frame.from_body(np.array([[-90.0, 0.0, 20.0], [0.0, 0.0, 0.0]]))) < 0
    array([ True, False])
    """
    size = np.array([frame.width, frame.depth, frame.width])
    to_skin, near_heart = signed_distance(skin), KDTree(heart.points)

    def distance(positions: np.ndarray) -> np.ndarray:
        body = frame.to_body(positions)
        body[:, 0] = np.abs(body[:, 0])
        lung = ellipsoid(body, size * _LUNG_CENTRE, size * _LUNG_RADII)
        inside = lung < 0
        wall = to_skin(positions[inside]) + _CHEST_WALL * frame.width
        gap = _AROUND_HEART * frame.width
        near, _ = near_heart.query(positions[inside], distance_upper_bound=2 * gap)
        heart_gap = gap - np.minimum(near, 2 * gap)
        lung[inside] = np.maximum(lung[inside], np.maximum(wall, heart_gap))
        return lung

    return distance


def skin_nodes(
    mesh: TetMesh, places: Float[np.ndarray, "electrode 3"]
) -> tuple[Int[np.ndarray, "electrode"], Float[np.ndarray, "electrode"]]:
    """Nodes of the skin nearest to some places, and how far away they are.

    Parameters
    ----------
    mesh : TetMesh
        A torso.
    places : (electrode, 3) array
        Positions [mm], such as those of electrodes.

    Returns
    -------
    nodes, distance : (electrode,) arrays
        Numbers of nodes, and distances [mm].

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy.torso import skin_nodes
    >>> from twinheart.mesh.generate import slab
    >>> nodes, distance = skin_nodes(slab((2.0, 2.0, 2.0), 1.0), np.array([[1.0, 1.0, 3.0]]))
    >>> distance
    array([1.])
    """
    surface = np.unique(boundary_triangles(mesh.tets))
    distance, nearest = KDTree(mesh.points[surface]).query(places)
    return surface[nearest], distance


def describe_torso(mesh: TetMesh, heart: TetMesh) -> dict:
    """Figures on a torso mesh: sizes, quality, and how well it reproduces the heart.

    Parameters
    ----------
    mesh : TetMesh
        What `torso_mesh` returned.
    heart : TetMesh
        The heart in it.

    Returns
    -------
    dict
        ``n_nodes, n_tets, n_components, min_dihedral_deg, volume_ml`` (by region),
        ``heart_volume_error_percent``, ``heart_surface_error_mm`` (mean distance of the faces
        between heart and surroundings from the surface of the heart).

    Examples
    --------
    >>> from twinheart.anatomy import demo_heart
    >>> from twinheart.anatomy.body import template_body
    >>> from twinheart.anatomy.torso import describe_torso, torso_mesh
    >>> heart = demo_heart().mesh
    >>> mesh = torso_mesh(heart, template_body(heart)[0], edge=25.0, heart_edge=12.0)
    >>> describe_torso(mesh, heart)["n_components"]
    1
    """
    volume = volumes(mesh.points, mesh.tets)
    region = mesh.cell_fields["region"]
    by_region = {
        tag.name.lower(): 1e-3 * float(volume[region == tag].sum())
        for tag in TorsoRegion
        if (region == tag).any()
    }
    surface = TriMesh(heart.points, boundary_triangles(heart.tets))
    true_ml = 1e-3 * enclosed_volume(surface.points, surface.triangles)
    faces = boundary_triangles(mesh.tets[region == TorsoRegion.HEART])
    off = np.abs(signed_distance(surface)(mesh.points[faces].mean(axis=1)))
    return {
        "n_nodes": mesh.n_nodes,
        "n_tets": mesh.n_tets,
        "n_components": int(components(mesh.tets, mesh.n_nodes)[mesh.tets].max()) + 1,
        "min_dihedral_deg": float(dihedral_angles(mesh.points, mesh.tets).min()),
        "volume_ml": by_region,
        "heart_volume_error_percent": 100 * (by_region.get("heart", 0.0) / true_ml - 1),
        "heart_surface_error_mm": float(off.mean()) if len(off) else float("nan"),
    }


def _sizes(heart: TetMesh, edge: float, heart_edge: float, electrodes: np.ndarray | None):
    """Longest edge as a function of the place."""
    wanted = [(KDTree(heart.points), heart_edge)]
    if electrodes is not None:
        wanted.append((KDTree(electrodes), min(_ELECTRODE_EDGE, edge)))

    def size(positions: np.ndarray) -> np.ndarray:
        sizes = []
        for tree, least in wanted:
            reach = (edge - least) / _GROWTH + 1.0
            sizes.append(least + _GROWTH * tree.query(positions, distance_upper_bound=reach)[0])
        # the lattice of the outer mesh is not halved for the sake of its few longest edges
        most = np.min(sizes, axis=0)
        return np.where(most < edge, _LONGEST * most, np.inf)

    return size


def _regions(mesh: TetMesh, heart: TetMesh, lungs: Sequence[Distance]) -> Int[np.ndarray, "tet"]:
    centres = mesh.points[mesh.tets].mean(axis=1)
    region = np.full(mesh.n_tets, int(TorsoRegion.TORSO), dtype=np.int32)
    for lung in lungs:
        region[lung(centres) < 0] = TorsoRegion.LUNGS
    for surface, tag in [
        *((cavity, TorsoRegion.BLOOD) for cavity in _cavities(heart)),
        (TriMesh(heart.points, boundary_triangles(heart.tets)), TorsoRegion.HEART),
    ]:
        corners = surface.points[surface.triangles]
        low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
        near = np.flatnonzero(((centres > low) & (centres < high)).all(axis=1))
        region[near[signed_distance(surface)(centres[near]) < 0]] = tag
    return region


def _cavities(heart: TetMesh) -> list[TriMesh]:
    """Closed surfaces around the blood: each endocardium with a lid on every opening."""
    classes = heart.point_fields.get("surf_class")
    if classes is None:
        return []
    faces = boundary_triangles(heart.tets)
    cavities = []
    for endocardium in (SurfaceClass.LV_ENDOCARDIUM, SurfaceClass.RV_ENDOCARDIUM):
        own = (classes[faces] == endocardium).any(axis=1)
        own &= np.isin(classes[faces], (endocardium, SurfaceClass.BASE)).all(axis=1)
        wall = faces[own][:, ::-1]  # outwards of the blood is into the muscle
        if len(wall):
            cavities.append(_with_lids(heart.points, wall))
    return cavities


def _with_lids(points: np.ndarray, triangles: np.ndarray) -> TriMesh:
    """Close a surface by a fan of triangles from the middle of each rim."""
    sides = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    keys = sides.astype(np.int64) @ np.array([1 << 32, 1])
    rim = sides[~np.isin(keys, sides[:, ::-1].astype(np.int64) @ np.array([1 << 32, 1]))]
    opening = components(rim, len(points))[rim[:, 0]]
    lids, middles = [], []
    for k in np.unique(opening):
        here = rim[opening == k]
        middles.append(points[here[:, 0]].mean(axis=0))
        lids.append(np.column_stack([here[:, ::-1], np.full(len(here), len(points) + k)]))
    if not lids:
        return TriMesh(points, triangles)
    return TriMesh(np.concatenate([points, middles]), np.concatenate([triangles, *lids]))


def _onto_surface(
    points: np.ndarray, tets: np.ndarray, inside: Bool[np.ndarray, "tet"], distance: Distance
) -> Float[np.ndarray, "node 3"]:
    """Nodes between the inside and the outside moved onto a surface, guarded by the angles."""
    in_part, free = (np.zeros(len(points), dtype=bool) for _ in range(2))
    in_part[tets[inside]], free[tets[~inside]] = True, True
    free[boundary_triangles(tets)] = False
    nodes = np.flatnonzero(in_part & free)
    nodes = nodes[np.abs(distance(points[nodes])) < _reach(points, tets, nodes)]
    shift = 1e-3
    for _ in range(2):
        here = points[nodes]
        value = distance(here)
        slope = np.stack(
            [(distance(here + d) - distance(here - d)) / (2 * shift) for d in np.eye(3) * shift],
            axis=1,
        )
        slope /= np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1.0)
        for part in (1.0, 0.5):
            moved = _guarded(points, tets, nodes, points[nodes] - part * value[:, None] * slope)
            value = np.where((moved[nodes] == points[nodes]).all(axis=1), value, 0.0)
            points = moved
    return points


def _reach(points: np.ndarray, tets: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """Longest edge of the tetrahedra at each node: no node is moved farther."""
    keys = edge_keys(tets)
    length = np.linalg.norm(points[keys >> 32] - points[keys & 0xFFFFFFFF], axis=2).max(axis=0)
    reach = np.zeros(len(points))
    np.maximum.at(reach, tets, length[:, None])
    return reach[nodes]


def _guarded(
    points: np.ndarray, tets: np.ndarray, nodes: np.ndarray, places: np.ndarray
) -> np.ndarray:
    """Points with some nodes moved, but for those that would make angles smaller than allowed."""
    touched = np.zeros(len(points), dtype=bool)
    touched[nodes] = True
    tets = tets[touched[tets].any(axis=1)]
    before = _least_angle(points, tets)
    moved = points.copy()
    moved[nodes] = places
    while True:
        angle = _least_angle(moved, tets)
        worse = (angle < _GUARD) & (angle < before)
        if not worse.any():
            return moved
        back = np.unique(tets[worse])
        moved[back] = points[back]


def _least_angle(points: np.ndarray, tets: np.ndarray) -> np.ndarray:
    angle = dihedral_angles(points, tets).min(axis=1)
    return np.where(volumes(points, tets) > 0, angle, -1.0)
