"""What the field asks of a mesh: angles, aspect, boundary, and the time step it allows."""

from typing import Any

import numpy as np

from twinheart.fem import explicit_step
from twinheart.imaging.boundary import topology
from twinheart.imaging.build import boundary_tags
from twinheart.mesh.core import TetMesh
from twinheart.mesh.fields import canonical
from twinheart.mesh.quality import (
    aspect_ratios,
    boundary_triangles,
    components,
    dihedral_angles,
    mean_edge,
    volumes,
)

# Diffusivity [mm^2/ms] along the fibres of healthy muscle: sigma / (chi Cm), CONTRIBUTING's table.
DIFFUSIVITY = 0.095
# On a regular body-centred lattice of cubes with side a, P1 elements with lumped mass couple each
# node to its eight nearest by 1/a^2: the largest eigenvalue is 16 / a^2. Its mean edge is
# (6 + 8 sqrt(3/4)) / 14 a.
_LATTICE = 16 * ((6 + 8 * np.sqrt(0.75)) / 14) ** 2
_SURFACE_FIELDS = ("surfclass", "class")


def check_shapes(mesh: TetMesh) -> dict[str, Any]:
    """Figures of the tetrahedra.

    Parameters
    ----------
    mesh : TetMesh
        Mesh [mm].

    Returns
    -------
    dict
        ``min_dihedral_deg, max_dihedral_deg``; ``dihedral_percentile1_deg``: 1st percentile of
        the tetrahedra's smallest angles; ``max_aspect`` (`aspect_ratios`); ``n_flipped,
        mean_edge_mm``.

    Examples
    --------
    >>> from twinheart.imaging.check import check_shapes
    >>> from twinheart.mesh.generate import slab
    >>> check_shapes(slab((2.0, 2.0, 2.0), 0.5))["n_flipped"]
    0
    """
    angles = dihedral_angles(mesh.points, mesh.tets)
    return {
        "min_dihedral_deg": float(angles.min()),
        "max_dihedral_deg": float(angles.max()),
        "dihedral_percentile1_deg": float(np.percentile(angles.min(axis=1), 1)),
        "max_aspect": float(aspect_ratios(mesh.points, mesh.tets).max()),
        "n_flipped": int((volumes(mesh.points, mesh.tets) < 0).sum()),
        "mean_edge_mm": mean_edge(mesh),
    }


def check_step(mesh: TetMesh, diffusivity: float = DIFFUSIVITY) -> dict[str, float]:
    """Longest stable time step of explicit isotropic diffusion (`twinheart.fem.explicit_step`).

    Parameters
    ----------
    mesh : TetMesh
        Mesh [mm].
    diffusivity : float
        Isotropic, in mm^2/ms.

    Returns
    -------
    dict
        ``explicit_dt_ms``, and ``explicit_dt_ratio`` to that of a regular body-centred lattice of
        the same mean edge.

    Examples
    --------
    >>> from twinheart.imaging.check import check_step
    >>> from twinheart.mesh.generate import slab
    >>> round(check_step(slab((4.0, 4.0, 4.0), 0.5), 0.1)["explicit_dt_ms"], 1)
    0.4
    """
    step = explicit_step(mesh, diffusivity)
    lattice = 2 * mean_edge(mesh) ** 2 / (_LATTICE * diffusivity)
    return {"explicit_dt_ms": step, "explicit_dt_ratio": step / lattice}


def check_mesh(mesh: TetMesh) -> dict[str, Any]:
    """All that decides whether a heart mesh can be simulated on, and how fast.

    Parameters
    ----------
    mesh : TetMesh
        Mesh [mm], flipped tetrahedra allowed.

    Returns
    -------
    dict
        ``n_nodes, n_tets, volume_ml, n_components``, those of `check_shapes` and `check_step`,
        ``boundary_tags`` (`twinheart.imaging.build.boundary_tags`), ``boundary``
        (`twinheart.imaging.boundary.Topology`).

    Examples
    --------
    >>> from twinheart.imaging.check import check_mesh
    >>> from twinheart.mesh.generate import slab
    >>> check_mesh(slab((2.0, 2.0, 2.0), 0.5))["boundary"]["euler"]
    2
    """
    triangles = boundary_triangles(mesh.tets)
    tags = next(
        (v for k, v in mesh.point_fields.items() if canonical(k) in _SURFACE_FIELDS),
        np.zeros(mesh.n_nodes),
    )
    return {
        "n_nodes": mesh.n_nodes,
        "n_tets": mesh.n_tets,
        "volume_ml": float(np.abs(volumes(mesh.points, mesh.tets)).sum()) / 1e3,
        "n_components": int(components(mesh.tets, mesh.n_nodes)[mesh.tets].max()) + 1,
        **check_shapes(mesh),
        "boundary_tags": boundary_tags(mesh.points, triangles, tags.astype(np.int32)),
        "boundary": topology(triangles).as_dict(),
        **check_step(mesh),
    }
