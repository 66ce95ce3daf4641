"""What lesions cut off: tissue that no wave can reach any more, and whole chambers."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from twinheart.anatomy import coordinates_of
from twinheart.imaging.enhancement import CORE
from twinheart.mesh import TetMesh
from twinheart.mesh.quality import components, volumes
from twinheart.planning.ablation.lesions import Ablation

_WHOLE = 0.9  # share of a chamber that is the whole of it
_CHAMBERS = {0: "left ventricle", 1: "right ventricle"}


class Isolation(NamedTuple):
    """What is cut off from the rest.

    Attributes
    ----------
    lost_ml : float
        Living tissue that conducted with the rest before and does not any more.
    chambers : tuple of str
        Chambers that are burnt or cut off as a whole.
    n_parts : int
        Connected parts of the conducting tissue afterwards.
    """

    lost_ml: float
    chambers: tuple[str, ...]
    n_parts: int

    @property
    def warning(self) -> str | None:
        """One line where a whole chamber is lost, else None."""
        if not self.chambers:
            return None
        return f"this plan isolates the {' and the '.join(self.chambers)}: no wave can reach it"


def isolation(
    mesh: TetMesh,
    ablation: Ablation,
    *,
    chamber: Int[np.ndarray, "tet"] | None = None,
    names: dict[int, str] | None = None,
) -> Isolation:
    """Find what lesions cut off from the largest part that still conducts.

    Tissue conducts where it is neither core (cell field ``scar``) nor burnt, and is connected where
    tetrahedra share a node, as in the finite elements.

    Parameters
    ----------
    mesh : TetMesh
        The heart.
    ablation : Ablation
        What `ablate_tissue` found on it.
    chamber : (tet,) int array, optional
        Chamber of each tetrahedron, negative for none; by default left and right ventricle by the
        coordinates, where the mesh has them.
    names : dict, optional
        Names of the chambers.

    Returns
    -------
    Isolation
        Volume and chambers that are lost.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning import Lesion, ablate_tissue, isolation
    >>> mesh = slab((30.0, 10.0, 3.0), 1.0)
    >>> line = Lesion([[10.0, 0.0, 3.0], [10.0, 10.0, 3.0]], radius=2.0, depth=np.inf)
    >>> found = isolation(mesh, ablate_tissue(mesh, [line]))
    >>> round(found.lost_ml, 1), found.n_parts  # 8 x 10 x 3 mm3 on one side
    (0.2, 2)
    """
    volume = np.abs(volumes(mesh.points, mesh.tets))
    conducts = np.ones(mesh.n_tets, dtype=bool)
    if "scar" in mesh.cell_fields:
        conducts &= mesh.cell_fields["scar"] != CORE
    before, _ = _largest(mesh, conducts, volume)
    after, n_parts = _largest(mesh, conducts & (ablation.number == 0), volume)
    lost = before & ~after & (ablation.number == 0)
    if chamber is None:
        chamber, names = _by_coordinates(mesh), _CHAMBERS
    gone = []
    for kind in np.unique(chamber[chamber >= 0]).tolist():
        own = before & (chamber == kind)
        if volume[own & after].sum() < (1 - _WHOLE) * volume[own].sum():
            gone.append((names or {}).get(kind, f"chamber {kind}"))
    return Isolation(float(volume[lost].sum()) / 1000.0, tuple(gone), n_parts)


def _largest(mesh: TetMesh, conducts, volume) -> tuple[Bool[np.ndarray, "tet"], int]:
    """Tetrahedra of the largest connected part of some, and how many parts there are."""
    inside = np.zeros(mesh.n_tets, dtype=bool)
    tets = np.flatnonzero(conducts)
    if not tets.size:
        return inside, 0
    part = components(mesh.tets[tets], mesh.n_nodes)[mesh.tets[tets, 0]]
    inside[tets[part == np.bincount(part, volume[tets]).argmax()]] = True
    return inside, int(part.max()) + 1


def _by_coordinates(mesh: TetMesh) -> Int[np.ndarray, "tet"]:
    at = coordinates_of(mesh)
    if at is None:
        return np.full(mesh.n_tets, -1)
    return (at.tv[mesh.tets].mean(axis=1) > 0.5).astype(np.int32)
