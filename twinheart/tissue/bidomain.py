r"""The bidomain equations, for small cases: the referee of monodomain and lead field.

.. math::

    \chi (C_m \partial_t V + i_{ion}) &= \nabla \cdot \sigma_i \nabla (V + \phi_e)
        &\text{ in the tissue,} \\
    \nabla \cdot \sigma \nabla \phi_e &= -\nabla \cdot \sigma_i \nabla V
        &\text{ in tissue and bath,}

with :math:`\sigma = \sigma_i + \sigma_e` in the tissue. Nothing leaves the intracellular space at
the border of the tissue, nor the bath at its own. Given V, the extracellular potential follows from
one elliptic solve, so that the rate of V is known and time is stepped explicitly: no splitting
stands between the two equations.

References
----------
Potse et al. 2006, A comparison of monodomain and bidomain reaction-diffusion models,
doi:10.1109/TBME.2006.880875.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from jaxtyping import Bool, Float, Int

from twinheart.cell.gates import step as cell_step
from twinheart.cell.model import AbstractCellModel
from twinheart.errors import ModelError, SolverError
from twinheart.fem.assembly import lumped_mass, stiffness
from twinheart.fem.multigrid import build_multigrid, solve_loads
from twinheart.fem.solve import lambda_max
from twinheart.mesh import TetMesh

_DIRECT = 25_000  # up to this many nodes one factorisation serves all steps


class Bidomain(eqx.Module):
    r"""Tissue and bath, assembled.

    Parameters
    ----------
    mesh : TetMesh
        Tissue and bath [mm].
    tissue_nodes : (node,) int array
        Nodes of the mesh in the tissue: voltages have one value for each.
    intra, mono : (node, node) scipy CSR arrays
        Stiffness with :math:`\sigma_i`, and with the harmonic mean of both spaces [mS].
    bulk : (mesh_node, mesh_node) scipy CSR array
        Stiffness with :math:`\sigma` of tissue and bath [mS].
    mass : (node,) array
        Lumped mass of the tissue times :math:`\chi C_m` [uF].
    solve : callable
        From currents into the nodes [uA] to potentials [mV] with mean zero.
    """

    mesh: TetMesh
    tissue_nodes: Int[np.ndarray, "node"]
    intra: sp.csr_array
    mono: sp.csr_array
    bulk: sp.csr_array
    mass: Float[np.ndarray, "node"]
    solve: Callable[[np.ndarray], np.ndarray]

    def phi_e(
        self,
        vm: Float[np.ndarray, "node"],
        current: Float[np.ndarray, "mesh_node"] | None = None,
    ) -> Float[np.ndarray, "mesh_node"]:
        """Extracellular potential [mV], mean zero over the nodes.

        Parameters
        ----------
        vm : (node,) array
            Voltage of the tissue [mV].
        current : (mesh_node,) array, optional
            Extracellular current into the nodes [uA], with sum zero.
        """
        load = np.zeros(self.mesh.n_nodes) if current is None else np.array(current, dtype=float)
        load[self.tissue_nodes] -= self.intra @ vm
        return self.solve(load)

    def rate(
        self, vm: Float[np.ndarray, "node"], phi_e: Float[np.ndarray, "mesh_node"]
    ) -> Float[np.ndarray, "node"]:
        """Rate of change of the voltage by conduction [mV/ms]."""
        return -(self.intra @ (vm + phi_e[self.tissue_nodes])) / self.mass

    def monodomain_rate(self, vm: Float[np.ndarray, "node"]) -> Float[np.ndarray, "node"]:
        """The same in the monodomain model on the same elements [mV/ms]."""
        return -(self.mono @ vm) / self.mass

    @property
    def longest_step(self) -> float:
        """Longest stable time step [ms] of either model."""
        return 2.0 / lambda_max(lambda v: (self.intra @ v) / self.mass, len(self.mass))[0]


class BidomainBeat(NamedTuple):
    """What a run leaves.

    Attributes
    ----------
    lat : (node,) array
        Activation times of the tissue's nodes [ms]; NaN where not reached.
    t : (time,) array
        Times [ms] of the following.
    vm : (time, node) array
        Voltages [mV].
    phi_e : (time, mesh_node) array
        Extracellular potentials [mV]. In the monodomain model from the same elliptic solve.
    """

    lat: Float[np.ndarray, "node"]
    t: Float[np.ndarray, "time"]
    vm: Float[np.ndarray, "time node"]
    phi_e: Float[np.ndarray, "time mesh_node"]


def build_bidomain(
    mesh: TetMesh,
    tissue: Bool[np.ndarray, "tet"],
    sigma_i: Float[np.ndarray, "tet 3 3"],
    sigma_e: Float[np.ndarray, "tet 3 3"],
    *,
    chi: float = 140.0,
    cm: float = 0.01,
) -> Bidomain:
    """Assemble tissue and bath.

    Parameters
    ----------
    mesh : TetMesh
        Both [mm].
    tissue : (tet,) bool array
        Which tetrahedra are tissue; all of them: there is no bath.
    sigma_i : (tet, 3, 3) array
        Intracellular conductivities [S/m]; those of the bath are not looked at.
    sigma_e : (tet, 3, 3) array
        Extracellular conductivities in the tissue, that of the bath elsewhere [S/m].
    chi, cm : float
        Membrane surface to volume [1/mm] and capacitance [uF/mm^2].

    Returns
    -------
    Bidomain
        With one factorisation for all steps, or a multigrid hierarchy where the mesh is large.

    Raises
    ------
    ModelError
        If there is no tissue.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.tissue.bidomain import build_bidomain
    >>> mesh = slab((4.0, 1.0, 1.0), 0.5)
    >>> inside = mesh.points[mesh.tets].mean(axis=1)[:, 0] < 2.0
    >>> sigma = np.tile(0.2 * np.eye(3), (mesh.n_tets, 1, 1))
    >>> problem = build_bidomain(mesh, inside, sigma, 2 * sigma)
    >>> vm = np.full(len(problem.tissue_nodes), -85.0)
    >>> bool(np.abs(problem.phi_e(vm)).max() < 1e-9)
    True
    """
    if not tissue.any():
        raise ModelError("no tetrahedron is tissue: expected some.")
    nodes, place = np.unique(mesh.tets[tissue], return_inverse=True)
    muscle = TetMesh(mesh.points[nodes], place.reshape(-1, 4).astype(np.int32))
    inner, outer = sigma_i[tissue], sigma_e[tissue]
    both = np.where(tissue[:, None, None], sigma_i + sigma_e, sigma_e)
    harmonic = np.matmul(inner, np.linalg.solve(inner + outer, outer))
    bulk = stiffness(mesh, both)
    return Bidomain(
        mesh,
        nodes,
        stiffness(muscle, inner),
        stiffness(muscle, (harmonic + harmonic.transpose(0, 2, 1)) / 2),
        bulk,
        chi * cm * lumped_mass(muscle),
        _elliptic_solver(bulk, mesh.n_nodes),
    )


def run_bidomain(
    problem: Bidomain,
    cell: AbstractCellModel,
    stimulated: Bool[np.ndarray, "node"],
    *,
    t_end: float,
    dt: float = 0.02,
    every: float = 1.0,
    amplitude: float = 50.0,
    duration: float = 2.0,
    monodomain: bool = False,
) -> BidomainBeat:
    """Simulate a beat.

    Parameters
    ----------
    problem : Bidomain
        Tissue and bath.
    cell : AbstractCellModel
        Of all tissue.
    stimulated : (node,) bool array
        Nodes of the tissue that are stimulated through their membrane from the start.
    t_end, dt : float
        Simulated time and step [ms].
    every : float
        Time between stored instants [ms].
    amplitude, duration : float
        Of the stimulus [A/F], [ms].
    monodomain : bool
        Conduct by the monodomain model instead, on the same elements and with the same steps.

    Returns
    -------
    BidomainBeat
        Activation, voltages and potentials.

    Raises
    ------
    SolverError
        If the step is too long, or the solution breaks down.
    """
    if dt > 0.9 * problem.longest_step:
        raise SolverError(
            f"dt is {dt:g} ms, at most {0.9 * problem.longest_step:.3g} ms is stable here."
        )
    n, n_steps = len(problem.mass), round(t_end / dt)
    ionic = jax.jit(lambda vm, state, i_stim: cell_step(cell, vm, state, dt, i_stim))
    vm = np.full(n, float(cell.initial_vm()))
    state = tuple(jnp.full(n, value, dtype=float) for value in cell.initial_state())
    stride = max(1, round(every / dt))
    lat = np.full(n, np.nan)
    stored: list[tuple[float, np.ndarray, np.ndarray]] = []
    for k in range(n_steps + 1):
        stores = k % stride == 0
        phi = problem.phi_e(vm) if stores or not monodomain else None
        if stores:
            stored.append((k * dt, vm, np.asarray(phi)))
        i_stim = amplitude * stimulated * float(k * dt < duration)
        i_ion, state = ionic(jnp.asarray(vm, dtype=float), state, jnp.asarray(i_stim, dtype=float))
        conduction = (
            problem.monodomain_rate(vm) if phi is None or monodomain else (problem.rate(vm, phi))
        )
        new = vm + dt * (conduction + i_stim - np.asarray(i_ion, dtype=np.float64))
        crossed = np.isnan(lat) & (vm < 0) & (new >= 0)
        lat[crossed] = dt * (k + vm[crossed] / (vm[crossed] - new[crossed]))
        vm = new
    if not np.isfinite(vm).all():
        raise SolverError(f"the voltage became non-finite before {t_end:g} ms: take a smaller dt.")
    t, voltages, potentials = zip(*stored, strict=True)
    return BidomainBeat(lat, np.array(t), np.stack(voltages), np.stack(potentials))


def _elliptic_solver(matrix: sp.csr_array, n: int) -> Callable[[np.ndarray], np.ndarray]:
    """From loads with sum zero to solutions with mean zero."""
    if n > _DIRECT:
        hierarchy = build_multigrid(matrix)
        return lambda load: solve_loads(
            matrix, load[:, None] - load.mean(), preconditioner=hierarchy, rtol=1e-9
        )[:, 0]
    options = {"SymmetricMode": True}
    inner = sp.csc_array(matrix[1:][:, 1:])  # the first node is held at zero
    factors = spla.splu(inner, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)

    def solve(load: np.ndarray) -> np.ndarray:
        u = np.concatenate([[0.0], factors.solve(load[1:])])
        return u - u.mean()

    return solve
