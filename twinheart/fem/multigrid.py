r"""Conjugate gradients for many right-hand sides, preconditioned by smoothed aggregation.

Large symmetric systems of P1 elements, :math:`K u = f`, also singular ones (no value given
anywhere), in a few dozen products whatever the size of the mesh and the contrast of its tensors.
"""

from typing import NamedTuple

import equinox as eqx
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from twinheart.errors import MeshError, SolverError
from twinheart.fem.solve import lambda_max

# A neighbour belongs to the same group if its coupling exceeds this share of the diagonals.
_STRONG = 0.08
_COARSEST, _MOST_LEVELS = 400, 12
# Eigenvalues of D^-1 A that the smoother takes care of: the upper 1 - 1/_SPREAD of the spectrum.
_SPREAD, _DEGREE = 8.0, 2
_SEED = 0


class Level(NamedTuple):
    """One matrix of the hierarchy, its smoother, and the way to the next coarser one."""

    matrix: sp.csr_array
    inverse_diagonal: np.ndarray
    largest: float
    prolongation: sp.csr_array
    restriction: sp.csr_array


class Multigrid(eqx.Module):
    """A hierarchy of ever coarser systems: an approximate inverse of a stiffness matrix.

    Parameters
    ----------
    levels : tuple of Level
        From the matrix itself to the second coarsest.
    coarsest : (coarse, coarse) array
        Inverse of the last matrix, the pseudo-inverse if it is singular.
    """

    levels: tuple[Level, ...]
    coarsest: Float[np.ndarray, "coarse coarse"]

    def __call__(self, residual: Float[np.ndarray, "node load"]) -> Float[np.ndarray, "node load"]:
        """One symmetric V-cycle: about the solution whose residual is given."""
        return self._cycle(0, residual)

    def _cycle(self, depth: int, right: np.ndarray) -> np.ndarray:
        if depth == len(self.levels):
            return self.coarsest @ right
        level = self.levels[depth]
        u = _smoothed(level, np.zeros_like(right), right)
        coarse = self._cycle(depth + 1, level.restriction @ (right - level.matrix @ u))
        return _smoothed(level, u + level.prolongation @ coarse, right)


def build_multigrid(matrix: sp.csr_array) -> Multigrid:
    """Set up the hierarchy of a symmetric matrix.

    Parameters
    ----------
    matrix : (node, node) scipy CSR array
        Positive definite, or a stiffness matrix whose null space are the constants.

    Returns
    -------
    Multigrid
        For `solve_loads`, any number of times.

    Raises
    ------
    MeshError
        If a row has no positive diagonal: a node that belongs to no tetrahedron.

    References
    ----------
    Vanek, Mandel & Brezina, Algebraic multigrid by smoothed aggregation for second and fourth
    order elliptic problems, Computing 56 (1996), doi:10.1007/BF02238511.

    Examples
    --------
    >>> from twinheart.fem import stiffness
    >>> from twinheart.fem.multigrid import build_multigrid
    >>> from twinheart.mesh.generate import slab
    >>> len(build_multigrid(stiffness(slab((8.0, 8.0, 8.0), 0.5))).levels)
    2
    """
    matrix = sp.csr_array(matrix)
    diagonal = np.asarray(matrix.diagonal(), dtype=np.float64)
    bad = int((diagonal <= 0).sum())
    if bad:
        raise MeshError(
            f"{bad} nodes belong to no tetrahedron: remove orphan nodes first (read_mesh does)."
        )
    levels: list[Level] = []
    while len(diagonal) > _COARSEST and len(levels) < _MOST_LEVELS:
        inverse = 1.0 / diagonal
        scaled = sp.csr_array(sp.diags_array(inverse) @ matrix)
        largest = 1.05 * lambda_max(scaled.__matmul__, len(inverse), rtol=1e-2)[0]
        group = _groups(matrix, diagonal)
        n, n_groups = len(group), int(group.max()) + 1
        if n_groups > 0.8 * n:  # nothing is coupled strongly any more
            break
        plain = sp.csr_array((np.ones(n), (np.arange(n), group)), shape=(n, n_groups))
        prolongation = sp.csr_array(plain - 4.0 / 3.0 / largest * (scaled @ plain))
        restriction = sp.csr_array(prolongation.T)
        levels.append(Level(matrix, inverse, largest, prolongation, restriction))
        matrix = sp.csr_array(restriction @ matrix @ prolongation)
        diagonal = np.asarray(matrix.diagonal(), dtype=np.float64)
    if len(diagonal) > 5 * _COARSEST:
        raise SolverError(
            f"the multigrid hierarchy ends at {len(diagonal)} unknowns: the mesh has very many "
            "parts, or its conductivities differ beyond reason."
        )
    dense = matrix.toarray()
    return Multigrid(tuple(levels), np.linalg.pinv((dense + dense.T) / 2, rcond=1e-12))


def solve_loads(
    matrix: sp.csr_array,
    loads: Float[np.ndarray, "node load"],
    *,
    preconditioner: Multigrid | None = None,
    rtol: float = 1e-11,
    most: int = 400,
) -> Float[np.ndarray, "node load"]:
    """Solve a symmetric system for several right-hand sides together.

    Parameters
    ----------
    matrix : (node, node) scipy CSR array
        As for `build_multigrid`.
    loads : (node, load) array
        Right-hand sides; for a singular matrix each must sum to zero.
    preconditioner : Multigrid, optional
        From `build_multigrid`, to be used again.
    rtol : float
        Relative residual at which each system is solved.
    most : int
        Iterations after which to give up.

    Returns
    -------
    (node, load) array
        Solutions; of a singular system the ones with mean zero.

    Raises
    ------
    SolverError
        If the residual does not become small enough.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.fem import stiffness
    >>> from twinheart.fem.multigrid import solve_loads
    >>> from twinheart.mesh.generate import slab
    >>> K = stiffness(slab((4.0, 4.0, 4.0), 1.0))
    >>> load = np.zeros((K.shape[0], 1))
    >>> load[0], load[-1] = 1.0, -1.0
    >>> bool(np.abs(K @ solve_loads(K, load) - load).max() < 1e-9)
    True
    """
    inverse = build_multigrid(matrix) if preconditioner is None else preconditioner
    singular = bool(np.abs(matrix.sum(axis=1)).max() < 1e-9 * matrix.diagonal().max())
    wanted = rtol * np.maximum(np.linalg.norm(loads, axis=0), 1e-300)
    u, r = np.zeros_like(loads), loads.copy()
    z = inverse(r)
    p, rho = z, np.einsum("nl,nl->l", r, z)
    for _ in range(most):
        if (np.linalg.norm(r, axis=0) <= wanted).all():
            break
        image = matrix @ p
        energy = np.einsum("nl,nl->l", p, image)
        alpha = np.divide(rho, energy, out=np.zeros_like(rho), where=energy > 0)
        u += alpha * p
        r -= alpha * image
        if singular:  # rounding makes constants grow, which no product can see
            r -= r.mean(axis=0)
        z = inverse(r)
        rho, before = np.einsum("nl,nl->l", r, z), rho
        p = z + np.divide(rho, before, out=np.zeros_like(rho), where=before > 0) * p
    else:
        left = float((np.linalg.norm(r, axis=0) / np.linalg.norm(loads, axis=0)).max())
        raise SolverError(
            f"the solve stopped after {most} iterations at a relative residual of {left:.1e}, "
            f"expected {rtol:.0e}: check the mesh for slivers and parts that do not touch."
        )
    return u - u.mean(axis=0) if singular else u


def _smoothed(level: Level, u: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Chebyshev iterations that damp the upper part of the spectrum (symmetric in the residual)."""
    high, low = level.largest, level.largest / _SPREAD
    middle, half = (high + low) / 2, (high - low) / 2
    inverse = level.inverse_diagonal[:, None]
    step = inverse * (right - level.matrix @ u) / middle
    ratio = half / middle
    u = u + step
    for _ in range(_DEGREE - 1):
        following = 1.0 / (2.0 * middle / half - ratio)
        step = following * ratio * step + (2.0 * following / half) * inverse * (
            right - level.matrix @ u
        )
        ratio = following
        u = u + step
    return u


def _groups(matrix: sp.csr_array, diagonal: np.ndarray) -> Int[np.ndarray, "node"]:
    """Group of each node: around nodes of which no two are within two strong couplings."""
    n = len(diagonal)
    entries = matrix.tocoo()
    root = np.sqrt(diagonal)
    strong = np.abs(entries.data) >= _STRONG * root[entries.row] * root[entries.col]
    graph = sp.csr_array(
        (np.ones(strong.sum(), np.int8), (entries.row[strong], entries.col[strong])), shape=(n, n)
    )  # the diagonal is strong: each node is its own neighbour, and no row is empty
    columns, starts = graph.indices, graph.indptr[:-1]
    rank = np.random.default_rng(_SEED).permutation(n).astype(np.int64) + 1
    centre, open_ = np.zeros(n, dtype=bool), np.ones(n, dtype=bool)
    while open_.any():
        best = np.where(open_, rank, 0)
        for _ in range(2):
            best = np.maximum.reduceat(best[columns], starts)
        new = open_ & (best == rank)
        centre |= new
        near = new
        for _ in range(2):
            near = np.maximum.reduceat(near[columns], starts)
        open_ &= ~near
    group = np.where(centre, np.cumsum(centre), 0)
    for _ in range(2):  # first the neighbours of the centres, then theirs
        joined = np.maximum.reduceat(group[columns], starts)
        group = np.where(group > 0, group, joined)
    return group - 1
