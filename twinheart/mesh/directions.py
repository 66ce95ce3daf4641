"""Directions without a sign (fibres, sheets): from points to cells, made unit, gaps found."""

import numpy as np
from jaxtyping import Bool, Float

from twinheart.mesh.core import TetMesh
from twinheart.mesh.defects import cells_of
from twinheart.mesh.fields import find_vectors

# a vector this short [1] is no direction
_SHORTEST = 1e-6


def cell_directions(
    mesh: TetMesh, names: tuple[str, ...]
) -> tuple[Float[np.ndarray, "tet 3"], Bool[np.ndarray, "tet"], str] | None:
    """Unit direction of each tetrahedron from the field that carries it.

    Parameters
    ----------
    mesh : TetMesh
        Mesh with its fields.
    names : tuple of str
        Names to look for: `FIBRE_NAMES` or `SHEET_NAMES` of `twinheart.mesh.fields`.

    Returns
    -------
    None where there is no such field; else
    directions : (tet, 3) array
        Unit vectors; zero where there is none.
    missing : (tet,) bool array
        Tetrahedra without a direction.
    place : str
        Where the field was found, in words.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh import TetMesh
    >>> from twinheart.mesh.directions import cell_directions
    >>> from twinheart.mesh.fields import FIBRE_NAMES
    >>> fibres = np.array([[2.0, 0, 0], [-1, 0, 0], [1, 0, 0], [1, 0, 0]])
    >>> mesh = TetMesh(np.eye(4, 3, -1), np.array([[0, 1, 2, 3]]), {"fibre": fibres})
    >>> cell_directions(mesh, FIBRE_NAMES)[0]
    array([[1., 0., 0.]])
    """
    found = find_vectors(mesh, names)
    if found is None:
        return None
    where, name = found
    if where == "cell":
        directions, missing = unit_vectors(mesh.cell_fields[name])
        return directions, missing, f"cell field '{name}'"
    at_nodes, _ = unit_vectors(mesh.point_fields[name])
    directions = mean_directions(at_nodes, cells_of(mesh))
    directions, missing = unit_vectors(directions)
    return directions, missing, f"point field '{name}', averaged over each tetrahedron"


def unit_vectors(
    vectors: Float[np.ndarray, "row 3"],
) -> tuple[Float[np.ndarray, "row 3"], Bool[np.ndarray, "row"]]:
    """Vectors made unit; those that are (nearly) zero or not finite become zero and are marked.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.directions import unit_vectors
    >>> unit_vectors(np.array([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]))[1]
    array([False,  True])
    """
    vectors = np.asarray(vectors, dtype=float)
    length = np.linalg.norm(vectors, axis=1)
    missing = ~(np.isfinite(length) & (length > _SHORTEST))
    safe = np.where(missing, 1.0, length)
    return np.where(missing[:, None], 0.0, vectors) / safe[:, None], missing


def mean_directions(
    at_nodes: Float[np.ndarray, "node 3"], cells: np.ndarray
) -> Float[np.ndarray, "cell 3"]:
    r"""Mean direction of each cell, whatever the signs at its nodes; zero where there is none.

    The principal eigenvector of :math:`\sum_k f_k f_k^T` over the nodes of the cell, with the sign
    of the first node.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.directions import mean_directions
    >>> at_nodes = np.array([[1.0, 0, 0], [-1, 0, 0], [1, 0, 0]])
    >>> mean_directions(at_nodes, np.array([[0, 1, 2]]))
    array([[1., 0., 0.]])
    """
    out = np.zeros((len(cells), 3))
    for start in range(0, len(cells), 1 << 16):
        of_cell = at_nodes[cells[start : start + (1 << 16)]]
        dyads = np.einsum("cni,cnj->cij", of_cell, of_cell)
        principal = np.linalg.eigh(dyads)[1][:, :, 2]
        sign = np.sign(np.einsum("ci,ci->c", principal, of_cell[:, 0]))
        principal *= np.where(sign == 0, 1.0, sign)[:, None]
        none = np.trace(dyads, axis1=1, axis2=2) == 0
        out[start : start + len(principal)] = np.where(none[:, None], 0.0, principal)
    return out
