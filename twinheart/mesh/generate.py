"""Bodies made without any input: slab, cable and a left-ventricular ellipsoid."""

from itertools import permutations

import numpy as np

from twinheart.errors import MeshError
from twinheart.mesh.core import TetMesh
from twinheart.mesh.implicit import (
    SurfaceClass,
    ellipsoid,
    require_resolved,
    surface_classes,
)
from twinheart.mesh.stuffing import stuff


def slab(size, edge: float, mirrored: bool = False) -> TetMesh:
    """A rectangular block cut into cubes of side `edge`, six tetrahedra a cube.

    Every cube is split into the six Kuhn tetrahedra around its main diagonal, so that the mesh
    conforms. Node (i, j, k) lies exactly at ``(i * edge, j * edge, k * edge)`` and has number
    ``i + (nx + 1) * (j + (ny + 1) * k)``: x runs fastest.

    Parameters
    ----------
    size : (3,) sequence of float
        Lengths along x, y and z [mm]; multiples of `edge`.
    edge : float
        Side of the cubes [mm].
    mirrored : bool
        Reflect the triangulation in x: the main diagonals run from (1, 0, 0) to (0, 1, 1)
        instead of from (0, 0, 0) to (1, 1, 1). The nodes stay where they are. A result that
        changes between the two depends on the triangulation.

    Returns
    -------
    TetMesh
        Positively oriented tetrahedra.

    Raises
    ------
    MeshError
        If a length is not a positive multiple of `edge`.

    References
    ----------
    Kuhn, Some combinatorial lemmas in topology, IBM J. Res. Dev. 1960, doi:10.1147/rd.45.0518.

    Examples
    --------
    >>> from twinheart.mesh.generate import slab
    >>> mesh = slab((20.0, 7.0, 3.0), 0.5)
    >>> mesh.n_nodes, mesh.n_tets
    (4305, 20160)
    """
    counts = _cube_counts(size, edge)
    nodes_per_axis = counts + 1
    k, j, i = np.meshgrid(*(np.arange(n) for n in nodes_per_axis[::-1]), indexing="ij")
    points = np.stack([i.ravel(), j.ravel(), k.ravel()], axis=1) * float(edge)

    stride = np.array([1, nodes_per_axis[0], nodes_per_axis[0] * nodes_per_axis[1]])
    k, j, i = np.meshgrid(*(np.arange(n) for n in counts[::-1]), indexing="ij")
    origin = np.stack([i.ravel(), j.ravel(), k.ravel()], axis=1) @ stride
    tets = origin[:, None, None] + _kuhn_corners(mirrored) @ stride
    return TetMesh(points, tets.reshape(-1, 4))


def cable(length: float, edge: float) -> TetMesh:
    """A slab one cube thick: the smallest tetrahedral mesh that carries a plane wave along x.

    Parameters
    ----------
    length : float
        Length along x [mm]; a multiple of `edge`.
    edge : float
        Side of the cubes, and thickness of the cable [mm].

    Returns
    -------
    TetMesh

    Raises
    ------
    MeshError
        If the length is not a positive multiple of `edge`.

    Examples
    --------
    >>> from twinheart.mesh.generate import cable
    >>> cable(10.0, 0.5).n_nodes
    84
    """
    return slab((length, edge, edge), edge)


def lv_ellipsoid(
    *,
    edge: float = 2.0,
    radius: float = 24.5,
    depth: float = 65.0,
    base_height: float = 20.0,
    wall: float = 9.5,
    apex_wall: float = 6.5,
) -> TetMesh:
    """A left ventricle: the wall between two prolate ellipsoids, cut by the base plane.

    The centre of the ellipsoids is the origin; the base is the plane ``z = base_height``, the
    apex points to -z. The default cavity holds 118 ml.

    Parameters
    ----------
    edge : float
        Mean edge length [mm].
    radius, depth : float
        Semi-axes of the cavity [mm], across and along z.
    base_height : float
        Height of the base above the centre [mm].
    wall, apex_wall : float
        Thickness of the wall at the equator and at the apex [mm].

    Returns
    -------
    TetMesh
        With the point field ``surf_class`` (`SurfaceClass`: 1 base, 2 epicardium, 3 LV
        endocardium, 0 interior); `anatomy.add_fibres` gives it fibres.

    Raises
    ------
    MeshError
        If a length is not positive, the base is beyond the end of the cavity, or the wall is
        thinner than one and a half edges.

    Examples
    --------
    >>> from twinheart.mesh.generate import lv_ellipsoid
    >>> sorted(set(lv_ellipsoid(edge=4.0, wall=12.0).point_fields["surf_class"].tolist()))
    [0, 1, 2, 3]
    """
    measures = {"radius": radius, "depth": depth, "wall": wall, "apex_wall": apex_wall}
    for name, length in measures.items():
        if not (np.isfinite(length) and length > 0):
            raise MeshError(f"{name} is {length} mm, expected a positive length.")
    if not -depth < base_height < depth:
        raise MeshError(
            f"base_height is {base_height} mm, but the cavity reaches from {-depth:g} to "
            f"{depth:g} mm: the base must cut it."
        )
    require_resolved(min(wall, apex_wall), edge)
    inner = np.array([radius, radius, depth])
    outer = inner + np.array([wall, wall, apex_wall])
    sides = {
        SurfaceClass.BASE: lambda x: x[:, 2] - base_height,
        SurfaceClass.EPICARDIUM: lambda x: ellipsoid(x, (0, 0, 0), outer),
        SurfaceClass.LV_ENDOCARDIUM: lambda x: -ellipsoid(x, (0, 0, 0), inner),
    }
    mesh = stuff(
        lambda x: np.max([side(x) for side in sides.values()], axis=0),
        [-outer, [outer[0], outer[1], base_height]],
        edge,
    )
    return TetMesh(mesh.points, mesh.tets, {"surf_class": surface_classes(mesh, sides)})


def _cube_counts(size, edge: float) -> np.ndarray:
    size = np.asarray(size, dtype=np.float64)
    if size.shape != (3,):
        raise MeshError(f"slab size has shape {size.shape}, expected three lengths in mm.")
    if not (np.isfinite(edge) and edge > 0):
        raise MeshError(f"edge is {edge} mm, expected a positive length.")
    if not (np.isfinite(size).all() and (size > 0).all()):
        raise MeshError(f"slab size is {tuple(size.tolist())} mm, expected positive lengths.")
    counts = np.maximum(np.rint(size / edge), 1)
    if (np.abs(size / edge - counts) > 1e-6).any():
        nearest = ", ".join(f"{length:.6g}" for length in counts * edge)
        raise MeshError(
            f"slab size {tuple(size.tolist())} mm is not a multiple of the edge {edge:g} mm; "
            f"the nearest size that is: ({nearest}) mm."
        )
    if np.prod(counts + 1) > np.iinfo(np.int32).max:
        raise MeshError(
            f"a slab of {np.prod(counts + 1):.3g} nodes is too large for 32-bit node numbers: "
            "take a larger edge."
        )
    return counts.astype(np.int64)


def _kuhn_corners(mirrored: bool) -> np.ndarray:
    """(6, 4, 3) corners, 0 or 1 along each axis, of the six positive tetrahedra of a cube."""
    corners = np.zeros((6, 4, 3), dtype=np.int64)
    for tet, order in enumerate(permutations(range(3))):
        for step, axis in enumerate(order):
            corners[tet, step + 1 :, axis] = 1
    if mirrored:
        corners[..., 0] = 1 - corners[..., 0]
    negative = np.linalg.det((corners[:, 1:] - corners[:, :1]).astype(float)) < 0
    corners[negative, 2:] = corners[negative, :1:-1]
    return corners
