"""From the implicit muscle to tetrahedra with tags, and a report on how well they fit."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from twinheart.imaging.boundary import (
    LostWall,
    Topology,
    lost_walls,
    node_normals,
    pinched_nodes,
    topology,
    without_islands,
)
from twinheart.imaging.chambers import Chambers
from twinheart.imaging.distance_grid import zero_points
from twinheart.imaging.from_surfaces import TaggedSurface
from twinheart.imaging.surface_grid import NearSurface, surface_points
from twinheart.mesh.core import TetMesh
from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.quality import (
    boundary_triangles,
    components,
    edge_keys,
    triangle_areas,
    volumes,
)
from twinheart.mesh.smoothing import Distance
from twinheart.mesh.stuffing import stuff
from twinheart.types import Points, Triangles

Body = Chambers | TaggedSurface
# Lost walls that are listed one by one.
_MAX_LISTED = 10
# Removal of tetrahedra at an edge can leave another such edge: so many times.
_ROUNDS = 5


def mesh_muscle(
    body: Body,
    edge: float,
    *,
    size: Distance | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[TetMesh, dict[str, Any]]:
    """Fill the muscle with tetrahedra, tag its surfaces and compare it with what was asked for.

    Parameters
    ----------
    body : Chambers or TaggedSurface
        The muscle as an implicit function.
    edge : float
        Mean edge [mm].
    size : callable, (n, 3) array -> (n,) array, optional
        Mean edge [mm] at a place where it is to be finer (`element_size`).
    say : callable
        Told in a few words what is being done.

    Returns
    -------
    TetMesh
        In one piece, with the point field ``surf_class`` (`SurfaceClass`).
    dict
        ``volume_ml``; ``target_volume_ml`` asked for; ``added_wall_ml`` by the minimum wall and
        ``filled_crevices_ml`` where a cavity is too narrow for the edge; ``volume_error_percent``:
        what is left between them; ``surface_distance_mm`` between the boundary and the surface
        asked for, both ways; ``boundary_tags``: triangles and area of each; ``boundary``:
        `Topology`, with ``expected_euler``; ``lost_walls``; ``remarks``.

    Raises
    ------
    MeshError
        If the body is empty or the edge asks for too many nodes.

    Examples
    --------
    >>> from twinheart.imaging.build import mesh_muscle
    >>> from twinheart.imaging.from_surfaces import tagged_surface
    >>> from twinheart.mesh import TriMesh
    >>> from twinheart.mesh.biventricle import biventricle
    >>> from twinheart.mesh.quality import boundary_triangles
    >>> heart = biventricle(2.5)
    >>> surface = TriMesh(heart.points, boundary_triangles(heart.tets), heart.point_fields)
    >>> mesh, report = mesh_muscle(tagged_surface(surface, 2.5), 2.5)
    >>> abs(report["volume_error_percent"]) < 1.0
    True
    """
    say("filling the muscle with tetrahedra")
    mesh, dropped = _whole_piece(stuff(body.distance, body.bounds(), edge, size=size))
    say(f"tagging the boundary of {mesh.n_tets} tetrahedra")
    triangles = boundary_triangles(mesh.tets)
    classes = boundary_classes(body, mesh, triangles, edge)
    mesh = TetMesh(mesh.points, mesh.tets, {"surf_class": classes})
    say("comparing the mesh with the surface")
    volume = float(volumes(mesh.points, mesh.tets).sum())
    shape = topology(triangles)
    lost = lost_walls(mesh.points, triangles, classes, edge, body.rim)
    report = {
        "edge_mm": edge,
        "n_nodes": mesh.n_nodes,
        "n_tets": mesh.n_tets,
        "volume_ml": volume / 1e3,
        "target_volume_ml": body.volume / 1e3,
        "added_wall_ml": body.added / 1e3,
        "filled_crevices_ml": body.filled / 1e3,
        "volume_error_percent": 100 * ((volume - body.added - body.filled) / body.volume - 1),
        "surface_distance_mm": surface_distance(body, mesh.points, triangles),
        "boundary_tags": boundary_tags(mesh.points, triangles, classes),
        "boundary": shape.as_dict() | {"expected_euler": body.euler},
        "lost_walls": [asdict(wall) for wall in lost[:_MAX_LISTED]],
        "remarks": [*body.notes, *_remarks(dropped, lost, shape, body.euler, edge)],
    }
    return mesh, report


def _whole_piece(mesh: TetMesh) -> tuple[TetMesh, int]:
    """The largest piece, without tetrahedra that hang on it by an edge or a node; how many went."""
    tets = mesh.tets
    for _ in range(_ROUNDS):
        tets = tets[components(tets, mesh.n_nodes)[tets[:, 0]] == 0]
        triangles = boundary_triangles(tets)
        keys, count = np.unique(edge_keys(triangles), return_counts=True)
        crowded, pinched = keys[count > 2], pinched_nodes(triangles)
        on_boundary, touched = np.zeros((2, mesh.n_nodes), dtype=bool)
        on_boundary[triangles] = True
        touched[pinched] = touched[crowded >> 32] = True
        near = np.flatnonzero(touched[tets].any(axis=1))
        hanging = np.isin(edge_keys(tets[near]), crowded).any(axis=0)
        hanging |= np.isin(tets[near], pinched).any(axis=1) & on_boundary[tets[near]].all(axis=1)
        if not hanging.any():
            break
        tets = np.delete(tets, near[hanging], axis=0)
    if len(tets) == mesh.n_tets:
        return mesh, 0
    used, kept = np.unique(tets, return_inverse=True)
    return TetMesh(mesh.points[used], kept.reshape(-1, 4)), mesh.n_tets - len(tets)


def boundary_classes(body: Body, mesh: TetMesh, triangles: Triangles, edge: float) -> np.ndarray:
    """`SurfaceClass` of every node: that of the body, without islands; 0 for interior nodes.

    Parameters
    ----------
    body : Chambers or TaggedSurface
        The muscle.
    mesh : TetMesh
        Its mesh [mm].
    triangles : (triangle, 3) int array
        Boundary of the mesh.
    edge : float
        Its edge length [mm].

    Returns
    -------
    (node,) int32 array
        Tags.

    Examples
    --------
    See `mesh_muscle`.
    """
    surface = np.unique(triangles)
    normals = node_normals(mesh.points, triangles)[surface]
    classes = np.zeros(mesh.n_nodes, dtype=np.int32)
    classes[surface] = body.classes(mesh.points[surface], normals)
    return without_islands(mesh.points, triangles, classes, edge)


def boundary_tags(
    points: Points, triangles: Triangles, classes: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Triangles and area of each tag; a triangle counts for the smallest tag of its nodes.

    Parameters
    ----------
    points : (node, 3) array
        Positions [mm].
    triangles : (triangle, 3) int array
        Boundary.
    classes : (node,) int array
        `SurfaceClass` of each node.

    Returns
    -------
    dict
        By the name of the tag: ``n_nodes``, ``n_triangles``, ``area_mm2``.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.build import boundary_tags
    >>> boundary_tags(np.eye(3), np.array([[0, 1, 2]]), np.array([2, 2, 1]))["base"]["n_triangles"]
    1
    """
    of = classes[triangles].min(axis=1)
    area = triangle_areas(points, triangles)
    nodes = classes[np.unique(triangles)]
    return {
        tag.name.lower(): {
            "n_nodes": int((nodes == tag).sum()),
            "n_triangles": int((of == tag).sum()),
            "area_mm2": float(area[of == tag].sum()),
        }
        for tag in SurfaceClass
        if tag != SurfaceClass.INTERIOR and (nodes == tag).any()
    }


def surface_distance(body: Body, points: Points, triangles: Triangles) -> dict[str, float]:
    """Distance between the boundary of a mesh and the surface of the muscle, both ways.

    Parameters
    ----------
    body : Chambers or TaggedSurface
        The muscle.
    points : (node, 3) array
        Positions [mm].
    triangles : (triangle, 3) int array
        Boundary of its mesh.

    Returns
    -------
    dict
        ``mean``, ``p95`` (95th percentile) and ``max`` [mm], over the centres of the boundary's
        triangles and points that cover the surface.

    Examples
    --------
    See `mesh_muscle`.
    """
    corners = points[triangles]
    centres = corners.mean(axis=1)
    if isinstance(body, TaggedSurface):
        wanted = body.surface.points[body.surface.triangles]
        places, _ = surface_points(wanted, 2 * body.grid.spacing)
        there = NearSurface(wanted, body.grid.spacing)(centres)
    else:
        grids = [body.hull.values, *(-c.values for c in body.cavities.values())]
        places = zero_points(np.max(grids, axis=0), body.hull.affine)
        there = np.abs(body.distance(centres))
    back = NearSurface(corners, float(np.sqrt(triangle_areas(points, triangles).mean())))(places)
    both = np.concatenate([there, back])
    weights = np.concatenate([np.full(len(d), 1 / len(d)) for d in (there, back)])
    order = np.argsort(both)
    share = np.cumsum(weights[order]) / 2
    return {
        "mean": float((there.mean() + back.mean()) / 2),
        "p95": float(both[order][np.searchsorted(share, 0.95)]),
        "max": float(both.max()),
    }


def _remarks(
    dropped: int, lost: list[LostWall], shape: Topology, expected: int, edge: float
) -> list[str]:
    out = []
    if dropped:
        out.append(f"left out {dropped} tetrahedra that hung by an edge or a node or lay apart")
    if lost:
        worst = lost[0]
        place = ", ".join(f"{x:g}" for x in worst.place_mm)
        out.append(
            f"the wall between {' and '.join(worst.between)} is lost at {len(lost)} "
            f"place{'s' if len(lost) > 1 else ''}, the largest near ({place}) mm: take an "
            f"edge below {edge:g} mm or a thicker minimum wall"
        )
    pinched = shape.n_pinched_nodes
    if pinched:
        out.append(f"the boundary touches itself at {pinched} single nodes")
    extra = (expected - shape.euler - pinched) // 2
    if extra:
        out.append(
            f"the boundary has the Euler number {shape.euler}, expected {expected}: "
            + (f"{extra} holes through walls" if extra > 0 else f"{-extra} closed bubbles")
        )
    return out
