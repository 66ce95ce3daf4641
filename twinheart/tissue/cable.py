"""Conduction velocity of the discrete tissue, measured on a cable and tuned.

A plane wave in a mesh of edge h obeys, to good accuracy, the equations of a cable of that spacing;
so what a mesh does to conduction can be known, and compensated, before the heart is simulated.
"""

import functools
import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from twinheart.cell.model import AbstractCellModel
from twinheart.errors import ModelError
from twinheart.mesh import TetMesh
from twinheart.mesh.quality import volumes
from twinheart.tissue.discrete import assemble_cable
from twinheart.tissue.monodomain import Monodomain, advance, initial_state
from twinheart.tissue.scheme import (
    CrankNicolson,
    Explicit,
    Scheme,
    iterations_needed,
    stages_needed,
)
from twinheart.tissue.stimulus import pace

_NODES = 48  # of the cable; the velocity is measured over its middle
_SAMPLE = 0.5  # ms


def lattice_spacing(mesh: TetMesh) -> float:
    """Spacing [mm] of the regular six-tet lattice whose elements have this mesh's mean volume.

    Examples
    --------
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.tissue.cable import lattice_spacing
    >>> round(lattice_spacing(slab((2.0, 1.0, 1.0), 0.5)), 12)
    0.5
    """
    return float(np.cbrt(6.0 * np.abs(volumes(mesh.points, mesh.tets)).mean()))


def cable_velocity(
    model: AbstractCellModel,
    diffusivity: float | np.ndarray,
    edge: float,
    *,
    dt: float = 0.02,
    scheme: Scheme | None = None,
) -> np.ndarray:
    """Conduction velocity of a plane wave on a cable [m/s]; 0 where it blocks.

    Parameters
    ----------
    model : AbstractCellModel
        Cell at its initial state.
    diffusivity : float or (k,) array
        Diffusivity along the cable [mm^2/ms]; several are run together.
    edge : float
        Node spacing [mm].
    dt : float
        Time step [ms].
    scheme : Scheme, optional
        Scheme whose velocity is wanted; default `Explicit`. Stages and iterations are chosen here.

    Returns
    -------
    (k,) or () array
        Velocities.

    Examples
    --------
    >>> from twinheart.cell import get_model
    >>> from twinheart.tissue import cable_velocity
    >>> cv = cable_velocity(get_model("mitchell-schaeffer"), 0.1, 0.25)
    >>> bool(0.4 < cv < 0.9)
    True
    """
    scheme = Explicit() if scheme is None else scheme
    values = np.atleast_1d(np.asarray(diffusivity, dtype=float))
    stiffness = 4.0 * float(values.max()) / edge**2
    if isinstance(scheme, Explicit):
        scheme = Explicit(scheme.delta, stages_needed(dt, stiffness), scheme.smoothed)
    else:
        scheme = CrankNicolson(scheme.consistent, iterations_needed(dt, stiffness))
    velocity = np.asarray(_velocities(_scalar_parameters(model), values, edge, dt, scheme))
    return velocity.reshape(np.shape(diffusivity))


def _scalar_parameters(model):
    """The model with every per-node parameter at its mean: a cable has its own nodes."""
    return jax.tree.map(lambda p: p.mean() if eqx.is_array(p) and p.ndim else p, model)


def _velocities(model, values, edge, dt, scheme):
    assembly = assemble_cable(_NODES, edge)
    consistent = isinstance(scheme, CrankNicolson)
    paced = np.arange(_NODES) < max(4, min(_NODES // 6, math.ceil(1.5 / edge)))
    mask = jnp.asarray(paced, jnp.float32)

    def problem(d):
        tissue = assembly.tissue(jnp.zeros((1, 3)).at[0, 0].set(d), consistent=consistent)
        return Monodomain(
            tissue,
            (model,),
            (_NODES,),
            (pace("cable"),),
            (mask,),
            scheme,
            jnp.asarray(dt),
            jnp.asarray(0.0),
            jnp.zeros((0, _NODES), jnp.float32),
            jnp.zeros(0, jnp.int32),
            max(1, round(_SAMPLE / dt)),
        )

    problems = eqx.filter_vmap(problem)(jnp.asarray(values))
    states = eqx.filter_vmap(initial_state)(problems)
    # A wave slower than 0.05 m/s counts as blocked; most are far faster and stop the loop early.
    for _ in range(math.ceil(_NODES * edge / 0.05 / 10.0)):
        states = _ten_milliseconds(problems, states)
        lat = np.asarray(states.lat)
        if np.isfinite(lat[:, -8]).all():
            break
        if float(np.asarray(states.vm).max()) < -40.0 and np.asarray(states.step).max() * dt > 20:
            break  # nothing is left that could still conduct
    first, last = _NODES // 2, _NODES - 9
    with np.errstate(invalid="ignore"):
        travel = lat[:, last] - lat[:, first]
    return np.where(travel > 0, (last - first) * edge / travel, 0.0)


@eqx.filter_jit
def _ten_milliseconds(problems, states):
    def run(problem, state):
        return advance(problem, state, round(10.0 / _SAMPLE))[0]

    return eqx.filter_vmap(run)(problems, states)


class Tuned(NamedTuple):
    """What `tune_cv` found for one direction.

    Attributes
    ----------
    diffusivity : float
        Numerical diffusivity that gives the velocity on this edge length [mm^2/ms].
    continuum : float
        Diffusivity that would give it on an infinitely fine mesh [mm^2/ms].
    velocity : float
        Velocity reached on the cable [m/s].
    """

    diffusivity: float
    continuum: float
    velocity: float

    @property
    def factor(self) -> float:
        """How far the mesh makes the diffusivity depart from the continuum's."""
        return self.diffusivity / self.continuum


@functools.lru_cache(maxsize=64)
def _continuum_slope(model_key: "_ByIdentity", dt: float) -> float:
    """CV / sqrt(D) in the continuum: from spacings of 1/8 and 1/12 of the front, extrapolated."""
    model = model_key.model
    d = 0.1
    coarse, fine = (float(cable_velocity(model, d, h, dt=min(dt, 0.01))) for h in (0.15, 0.1))
    if fine <= 0:
        raise ModelError(
            f"cell model '{model.name}' does not conduct even on a fine cable: its current is too "
            "weak for a propagating wave; check its parameters."
        )
    return (fine + (fine - coarse) * 0.1**2 / (0.15**2 - 0.1**2)) / math.sqrt(d)


class _ByIdentity:
    """Hashable handle of a model, so that the continuum velocity is measured once a model."""

    def __init__(self, model):
        self.model = model
        leaves = jax.tree.leaves(model)
        self.key = (type(model).__name__, *(np.asarray(leaf).tobytes() for leaf in leaves))

    def __hash__(self):
        return hash(self.key)

    def __eq__(self, other):
        return self.key == other.key


def continuum_velocity(model: AbstractCellModel, diffusivity: float, *, dt: float = 0.02) -> float:
    r"""Conduction velocity on an infinitely fine mesh [m/s], :math:`CV = c \sqrt{D}`."""
    slope = _continuum_slope(_ByIdentity(_scalar_parameters(model)), dt)
    return slope * math.sqrt(diffusivity)


def tune_cv(
    model: AbstractCellModel,
    velocity: float,
    edge: float,
    *,
    dt: float = 0.02,
    scheme: Scheme | None = None,
    rtol: float = 0.005,
) -> Tuned:
    """Numerical diffusivity that conducts at `velocity` on a mesh of this edge length.

    Only the diffusion of V_m uses it; the lead field and every gradient of V keep the physical
    conductivities.

    Parameters
    ----------
    model : AbstractCellModel
        Cell at its initial state.
    velocity : float
        Wanted conduction velocity [m/s].
    edge : float
        Lattice spacing [mm] (see `lattice_spacing`).
    dt : float
        Time step [ms].
    scheme : Scheme, optional
        Default `Explicit`.
    rtol : float
        Relative tolerance on the velocity.

    Returns
    -------
    Tuned
        Both diffusivities and the velocity reached.

    Raises
    ------
    ModelError
        If no diffusivity gives that velocity: below a threshold the wave blocks, and just above it
        is already faster.

    Examples
    --------
    >>> from twinheart.cell import get_model
    >>> from twinheart.tissue import tune_cv
    >>> tuned = tune_cv(get_model("mitchell-schaeffer"), 0.6, 0.5)
    >>> bool(abs(tuned.velocity - 0.6) < 0.01)
    True
    """
    continuum = (velocity / continuum_velocity(model, 1.0, dt=dt)) ** 2
    low, high = 0.25, 16.0
    measure = functools.partial(cable_velocity, model, edge=edge, dt=dt, scheme=scheme)
    for _ in range(6):
        factors = np.geomspace(low, high, 8)
        reached = measure(continuum * factors)
        above = np.flatnonzero(reached >= velocity)
        if above.size == 0:
            low, high = high, 8.0 * high
            continue
        k = int(above[0])
        if k == 0:
            low, high = low / 8.0, low
            continue
        best = int(np.abs(reached - velocity).argmin())
        if abs(reached[best] - velocity) <= rtol * velocity:
            return Tuned(continuum * factors[best], continuum, float(reached[best]))
        low, high = factors[k - 1], factors[k]
    raise ModelError(
        f"no diffusivity conducts at {velocity:g} m/s on edges of {edge:.2f} mm with cell model "
        f"'{model.name}' (nearest: {reached[k - 1]:.2f} and {reached[k]:.2f} m/s): refine the mesh."
    )
