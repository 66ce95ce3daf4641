"""Heart: a tetrahedral mesh with fibre directions and region tags on its tetrahedra."""

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from twinheart.errors import MeshError
from twinheart.mesh import TetMesh


class Heart(eqx.Module):
    """A heart ready for simulation.

    Parameters
    ----------
    mesh : TetMesh
        Tetrahedra [mm].
    f0 : (tet, 3) array or None
        Unit fibre direction of each tetrahedron; None where the mesh carries no fibres.
    s0 : (tet, 3) array or None
        Unit sheet direction, orthogonal to `f0`; None: transversely isotropic.
    regions : (tet,) int array or None
        Region tag of each tetrahedron; None means one region, tag 0.

    Raises
    ------
    MeshError
        If a field does not have one row per tetrahedron or a direction is not a unit vector.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.anatomy import Heart
    >>> mesh = slab((2.0, 1.0, 1.0), 0.5)
    >>> heart = Heart(mesh, f0=np.tile([1.0, 0.0, 0.0], (mesh.n_tets, 1)))
    >>> int(heart.regions.max())
    0
    """

    mesh: TetMesh
    f0: Float[np.ndarray, "tet 3"] | None
    s0: Float[np.ndarray, "tet 3"] | None
    regions: Int[np.ndarray, "tet"]

    def __init__(self, mesh, f0=None, s0=None, regions=None):
        self.mesh = mesh
        self.f0 = _unit_vectors(f0, mesh.n_tets, "f0")
        self.s0 = _unit_vectors(s0, mesh.n_tets, "s0")
        self.regions = np.asarray(
            np.zeros(mesh.n_tets) if regions is None else regions, dtype=np.int32
        )
        if self.regions.shape != (mesh.n_tets,):
            raise MeshError(
                f"regions have shape {self.regions.shape}, expected one tag for each of the "
                f"{mesh.n_tets} tetrahedra."
            )


def _unit_vectors(vectors, n_tets: int, name: str) -> np.ndarray | None:
    if vectors is None:
        return None
    vectors = np.asarray(vectors, dtype=np.float64)
    if vectors.shape != (n_tets, 3):
        raise MeshError(f"{name} has shape {vectors.shape}, expected ({n_tets}, 3).")
    length = np.linalg.norm(vectors, axis=1)
    bad = np.flatnonzero(~(np.abs(length - 1) < 1e-3))
    if bad.size:
        raise MeshError(
            f"{name} is not a unit vector in {bad.size} tetrahedra (first: {bad[0]}, length "
            f"{length[bad[0]]:.3g}): normalise it, or give every tetrahedron a direction."
        )
    return vectors / length[:, None]
