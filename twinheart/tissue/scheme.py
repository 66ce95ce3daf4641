r"""Time stepping of the monodomain equation: explicit by default, Crank-Nicolson as referee.

With :math:`L v = M_L^{-1} \sum_k w_k (v_{c_k} - v)` the lumped P1 diffusion and E the difference
between lumped and consistent mass, :math:`I - M_L^{-1} M_C`, made isotropic
(`twinheart.tissue.discrete.rounded_moment`), the default is

.. math:: \dot v = L v - (I - E_\delta)\, i_{ion} + i_{stim}.

With the ionic current of the nodes alone (:math:`\delta = 0`) coarse meshes conduct too slowly or
not at all: where the front is thinner than an edge the current behind it does not reach the node
ahead. The consistent mass (:math:`\delta = 1`) passes it on, too much. In between lies the
smoothing with which a cable of the mesh's spacing conducts as the continuum does. It depends on the
cell model and on the spacing over the thickness of the front, so it is measured for both along and
across the fibres (`twinheart.tissue.cable.matched_smoothing`): :math:`E_\delta` weighs the
directions by :math:`\delta_l` and :math:`\delta_t`. One rule for every mesh, direction, cell model
and conductivity, and no conductivity is rescaled. What error remains is in benchmarks/README.md.
"""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Float

from twinheart.fem import jacobi_cg
from twinheart.tissue.discrete import Tissue
from twinheart.types import Array, NodeField


def _as_float(value) -> Array:
    return jnp.asarray(value, dtype=float)


class Explicit(eqx.Module):
    r"""Forward Euler, or Runge-Kutta-Chebyshev where diffusion is too stiff for it.

    Parameters
    ----------
    stages : int
        Number of Chebyshev stages of the diffusion; 1 is forward Euler. See `stages_needed`.
    smoothed : bool
        Smooth the ionic current (see the module); False is the plain lumped scheme.

    References
    ----------
    First-order damped Chebyshev method: Verwer, Explicit Runge-Kutta methods for parabolic partial
    differential equations, Appl. Numer. Math. 22 (1996), doi:10.1016/S0168-9274(96)00022-0.
    """

    stages: int = eqx.field(default=1, static=True)
    smoothed: bool = eqx.field(default=True, static=True)

    def __call__(self, tissue: Tissue, vm, i_ion, i_stim, dt) -> NodeField:
        """Change of V_m over a step of `dt` [mV], given the currents at its start [A/F]."""
        source = i_stim - i_ion
        if self.smoothed:
            passed_on = tissue.product(tissue.spread, i_ion)
            source = source - passed_on / tissue.lumped

        def slope(v):
            diffusion = tissue.product(tissue.diffusion, v)
            return diffusion / tissue.lumped + source

        if self.stages == 1:
            return dt * slope(vm)
        return _chebyshev(slope, vm, dt, self.stages)


_DAMPING = 0.05


def _chebyshev(slope, vm, dt, stages: int) -> NodeField:
    w0 = 1.0 + _DAMPING / stages**2
    t, dt_ = [1.0, w0], [0.0, 1.0]
    for j in range(2, stages + 1):
        t.append(2 * w0 * t[-1] - t[-2])
        dt_.append(2 * t[j - 1] + 2 * w0 * dt_[-1] - dt_[-2])
    w1 = t[stages] / dt_[stages]
    # The weights mu and nu of two stages add up to one: they act on the changes since the start.
    before, now = jnp.zeros_like(vm), (w1 / w0) * dt * slope(vm)
    for j in range(2, stages + 1):
        mu, nu = 2 * w0 * t[j - 1] / t[j], -t[j - 2] / t[j]
        step = 2 * w1 * t[j - 1] / t[j]
        before, now = now, mu * now + nu * before + step * dt * slope(vm + now)
    return now


def stages_needed(dt: float, stiffness: float) -> int:
    """Fewest Chebyshev stages that are stable for `dt` [ms] and largest eigenvalue [1/ms].

    A margin of 10 % covers the estimate of the eigenvalue and the ionic current.

    Examples
    --------
    >>> from twinheart.tissue.scheme import stages_needed
    >>> stages_needed(0.02, 50.0), stages_needed(0.02, 500.0)
    (1, 3)
    """
    z = 1.1 * dt * stiffness
    if z <= 2.0:
        return 1
    return math.ceil(math.sqrt(z / (2.0 - 4.0 / 3.0 * _DAMPING)))


class CrankNicolson(eqx.Module):
    r"""Consistent mass, diffusion by Crank-Nicolson, currents at the nodes: the referee.

    .. math:: (M + \tfrac{\Delta t}{2} K)(v^{n+1} - v^*) = -\Delta t\, K v^*,
              \qquad v^* = v^n + \Delta t\,(i_{stim} - i_{ion}),
              \qquad M = (1 - c) M_L + c M_C.

    Parameters
    ----------
    consistent : float
        Share c of the consistent mass, 0 to 1.
    iterations : int
        Jacobi-CG iterations a step. See `iterations_needed`.
    """

    consistent: Float[Array, ""] = eqx.field(default=1.0, converter=_as_float)
    iterations: int = eqx.field(default=12, static=True)

    def __call__(self, tissue: Tissue, vm, i_ion, i_stim, dt) -> NodeField:
        """Change of V_m over a step of `dt` [mV], given the currents at its start [A/F]."""
        half = jnp.asarray(dt / 2, vm.dtype)
        weights = self.consistent.astype(vm.dtype) * tissue.spread - half * tissue.diffusion

        def apply(x):
            return tissue.lumped * x + tissue.product(weights, x)

        reaction = dt * (i_stim - i_ion)
        flux = 2 * half * tissue.product(tissue.diffusion, vm + reaction)
        diagonal = tissue.lumped - weights.sum(axis=0)
        return reaction + jacobi_cg(apply, diagonal, flux, jnp.zeros_like(vm), self.iterations)


def iterations_needed(dt: float, stiffness: float, *, rtol: float = 1e-6) -> int:
    r"""Jacobi-CG iterations that reduce the error of `CrankNicolson` by `rtol`.

    From the bound :math:`2 ((\sqrt\kappa - 1)/(\sqrt\kappa + 1))^n`; the eigenvalues of the
    mass matrix over its lumped diagonal lie between 1/5 and 1 on tetrahedra.

    Examples
    --------
    >>> from twinheart.tissue.scheme import iterations_needed
    >>> iterations_needed(0.02, 50.0)
    19
    """
    kappa = (1.0 + dt * stiffness / 2.0) / 0.2
    ratio = (math.sqrt(kappa) - 1.0) / (math.sqrt(kappa) + 1.0)
    return math.ceil(math.log(rtol / 2.0) / math.log(ratio))


class Uncoupled(eqx.Module):
    """Cells that do not feel their neighbours: forward Euler of every cell by itself."""

    def __call__(self, tissue: Tissue, vm, i_ion, i_stim, dt) -> NodeField:
        """Change of V_m over a step of `dt` [mV], given the currents at its start [A/F]."""
        return dt * (i_stim - i_ion)


Scheme = Explicit | CrankNicolson
