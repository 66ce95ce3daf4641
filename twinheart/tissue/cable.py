"""Conduction velocity of the discrete tissue, measured on a cable and tuned.

A plane wave in a mesh of edge h obeys, to good accuracy, the equations of a cable of that spacing;
so what a mesh does to conduction can be known, and compensated, before the heart is simulated.
"""

import functools
import math
from typing import Any, NamedTuple

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

_NODES = 64  # of the cable
# Nodes between which the velocity is measured: settled, and clear of the end.
MEASURED = _FROM, _TO = 24, 54
_SAMPLE = 0.5  # ms
_FINE_DT = 0.01  # ms, for the continuum
# Above this smoothing the velocity changes by more than a sixth for each 0.05 of it: too fragile.
_LARGEST_SMOOTHING = 0.95
# Where the diffusivity may be tuned as well, it takes over earlier: near block, with a smoothing of
# 0.95, the velocity jumps and the wanted one may lie in the gap.
_LARGEST_TUNED = 0.85


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
    smoothing: float | np.ndarray = 0.0,
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
    smoothing : float or (k,) array
        Smoothing of the ionic current (see `twinheart.tissue.scheme`).
    dt : float
        Time step [ms].
    scheme : Scheme, optional
        Default `Explicit`. Stages and iterations are chosen here.

    Returns
    -------
    (k,) or () array
        Velocities.

    Examples
    --------
    >>> from twinheart.cell import get_model
    >>> from twinheart.tissue import cable_velocity
    >>> cv = cable_velocity(get_model("mitchell-schaeffer"), 0.1, 0.25)
    >>> bool(0.3 < cv < 0.4)
    True
    """
    values, weights = np.broadcast_arrays(
        np.asarray(diffusivity, dtype=float), np.asarray(smoothing, dtype=float)
    )
    scheme = fitted_scheme(scheme, float(values.max()), edge, dt)
    velocity = _velocities(
        scalar_parameters(model), np.atleast_1d(values), np.atleast_1d(weights), edge, dt, scheme
    )
    return velocity.reshape(values.shape)


def scalar_parameters(model: AbstractCellModel) -> AbstractCellModel:
    """The model with every per-node parameter at its mean: a cable has its own nodes."""
    return jax.tree.map(lambda p: p.mean() if eqx.is_array(p) and p.ndim else p, model)


def cable_problem(
    model: AbstractCellModel, diffusivity: Any, smoothing: Any, edge: float, dt: float,
    scheme: Scheme,
) -> Monodomain:  # fmt: skip
    """A cable of 64 nodes with a stimulus at one end at time zero; its numbers may be traced.

    Parameters
    ----------
    model : AbstractCellModel
        Cell with scalar parameters.
    diffusivity, smoothing : float
        Diffusivity [mm^2/ms] and smoothing of the ionic current.
    edge, dt : float
        Node spacing [mm], time step [ms].
    scheme : Scheme
        With as many stages or iterations as it needs.

    Returns
    -------
    Monodomain
        Ready to run, in blocks of about half a millisecond.
    """
    consistent = isinstance(scheme, CrankNicolson)
    assembly = assemble_cable(_NODES, edge)
    mask = jnp.asarray(np.arange(_NODES) < max(5, min(_NODES // 6, math.ceil(1.5 / edge))), "f4")
    tissue = assembly.tissue(jnp.zeros((1, 3)).at[0, 0].set(diffusivity), consistent=consistent)
    if not consistent:
        spread = jnp.asarray(smoothing, tissue.spread.dtype) * tissue.spread
        tissue = eqx.tree_at(lambda t: t.spread, tissue, spread)
    return Monodomain(
        tissue=tissue,
        models=(model,),
        model_sizes=(_NODES,),
        stimuli=(pace("cable"),),
        stimulus_masks=(mask,),
        scheme=scheme,
        dt=jnp.asarray(dt),
        threshold=jnp.asarray(0.0),
        lead_field=jnp.zeros((0, _NODES), jnp.float32),
        probes=jnp.zeros(0, jnp.int32),
        block=max(1, round(_SAMPLE / dt)),
    )


def fitted_scheme(scheme: Scheme | None, diffusivity: float, edge: float, dt: float) -> Scheme:
    """The scheme, by default `Explicit`, with the stages or iterations a cable needs."""
    stiffness = 4.0 * diffusivity / edge**2
    if isinstance(scheme, CrankNicolson):
        return CrankNicolson(scheme.consistent, iterations_needed(dt, stiffness))
    return Explicit(stages_needed(dt, stiffness), smoothed=scheme is None or scheme.smoothed)


def _velocities(model, values, weights, edge, dt, scheme) -> np.ndarray:
    def problem(d, smoothing):
        return cable_problem(model, d, smoothing, edge, dt, scheme)

    problems = eqx.filter_vmap(problem)(jnp.asarray(values), jnp.asarray(weights))
    states = _at_rest(problems)
    # A wave slower than 0.05 m/s counts as blocked; most are far faster and end the loop early.
    for _ in range(math.ceil(_NODES * edge / 0.05 / 10.0)):
        states = _ten_milliseconds(problems, states)
        lat = np.asarray(states.lat)
        at_rest = np.asarray(states.vm).max(axis=1) < -40.0
        if (np.isfinite(lat[:, _TO]) | (at_rest & np.isfinite(lat[:, 0]))).all():
            break
    with np.errstate(invalid="ignore"):
        travel = lat[:, _TO] - lat[:, _FROM]
    return np.where(travel > 0, (_TO - _FROM) * edge / travel, 0.0)


_at_rest = eqx.filter_jit(eqx.filter_vmap(initial_state))


@eqx.filter_jit
def _ten_milliseconds(problems, states):
    def run(problem, state):
        return advance(problem, state, round(10.0 / _SAMPLE))[0]

    return eqx.filter_vmap(run)(problems, states)


class ByValue:
    """Hashable handle of a cell model, so that what is measured on cables is measured once."""

    def __init__(self, model: AbstractCellModel):
        self.model = scalar_parameters(model)
        leaves, kind = jax.tree.flatten(self.model)
        # The structure holds every class, also those inside a wrapper, and every static field.
        self.key = (kind, *((x.dtype.str, x.tobytes()) for x in map(np.asarray, leaves)))

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other) -> bool:
        return isinstance(other, ByValue) and self.key == other.key


def continuum_velocity(model: AbstractCellModel, diffusivity: float) -> float:
    r"""Conduction velocity on an infinitely fine mesh [m/s], :math:`CV = c \sqrt{D}`.

    Parameters
    ----------
    model : AbstractCellModel
        Cell at its initial state.
    diffusivity : float
        Diffusivity [mm^2/ms].

    Returns
    -------
    float
        Velocity.

    Raises
    ------
    ModelError
        If the cell model does not conduct.
    """
    return _continuum_slope(ByValue(model), _FINE_DT) * math.sqrt(diffusivity)


@functools.lru_cache(maxsize=64)
def _continuum_slope(handle: ByValue, dt: float) -> float:
    """CV / sqrt(D) in the continuum: from two spacings of about the front, extrapolated in h^2."""
    measure = functools.partial(cable_velocity, handle.model, 0.1, dt=dt, smoothing=0.65)
    rough = float(measure(0.25))
    if rough == 0.0:
        raise ModelError(
            f"cell model '{handle.model.name}' does not conduct even on a fine cable: its inward "
            "current is too weak for a propagating wave; check its parameters."
        )
    front = 0.1 / rough
    coarse, fine = float(measure(1.2 * front)), float(measure(0.8 * front))
    return (fine + (fine - coarse) * 0.8**2 / (1.2**2 - 0.8**2)) / math.sqrt(0.1)


def matched_smoothing(
    model: AbstractCellModel, diffusivity: float, edge: float, *, dt: float = 0.02
) -> float:
    """Smoothing with which a cable of this spacing conducts as the continuum does.

    The rule behind the default scheme (see `twinheart.tissue.scheme`). It lies between 0 and
    0.95; where not even 0.95 reaches the velocity of the continuum, the mesh is too coarse.

    Parameters
    ----------
    model : AbstractCellModel
        Cell at its initial state.
    diffusivity : float
        Diffusivity in the direction considered [mm^2/ms].
    edge : float
        Spacing [mm].
    dt : float
        Time step [ms].

    Returns
    -------
    float
        The smoothing, dimensionless.

    Examples
    --------
    >>> from twinheart.cell import get_model
    >>> from twinheart.tissue.cable import matched_smoothing
    >>> bool(0.3 < matched_smoothing(get_model("mitchell-schaeffer"), 0.1, 0.5) < 0.6)
    True
    """
    # Velocity over sqrt(D) depends on h / sqrt(D) alone: one table serves every tissue.
    return _matched(ByValue(model), round(edge / math.sqrt(diffusivity), 6), dt)


@functools.lru_cache(maxsize=256)
def _matched(handle: ByValue, ratio: float, dt: float) -> float:
    # At the same step: the smoothing makes up for the spacing, not for the error in time.
    target = _continuum_slope(handle, dt) * math.sqrt(0.1)
    measure = functools.partial(cable_velocity, handle.model, 0.1, ratio * math.sqrt(0.1), dt=dt)
    low, high = 0.0, _LARGEST_SMOOTHING
    for _ in range(2):
        weights = np.linspace(low, high, 8)
        reached = measure(smoothing=weights)
        above = np.flatnonzero(reached >= target)
        if above.size == 0 or above[0] == 0:
            return float(high if above.size == 0 else low)
        k = above[0]
        low, high = weights[k - 1], weights[k]
    return float(np.interp(target, reached[k - 1 : k + 1], weights[k - 1 : k + 1]))


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
    smoothing : float
        Smoothing of the ionic current it was reached with.
    """

    diffusivity: float
    continuum: float
    velocity: float
    smoothing: float

    @property
    def factor(self) -> float:
        """How far the mesh makes the diffusivity depart from the continuum's."""
        return self.diffusivity / self.continuum


def tune_cv(
    model: AbstractCellModel,
    velocity: float,
    edge: float,
    *,
    dt: float = 0.02,
    scheme: Scheme | None = None,
    smoothing: float | None = None,
    rtol: float = 0.005,
) -> Tuned:
    """Numerical diffusivity that conducts at `velocity` on a mesh of this edge length.

    With the default scheme it departs from the continuum's only where the mesh is so coarse that
    `matched_smoothing` exceeds 0.85. Only the diffusion of V_m uses it; the lead field and every
    gradient of V keep the physical conductivities.

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
    smoothing : float, optional
        Fixed smoothing instead of the matched one.
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
    continuum = (velocity / continuum_velocity(model, 1.0)) ** 2
    if smoothing is None:
        matched = scheme is None or (isinstance(scheme, Explicit) and scheme.smoothed)
        smoothing = matched_smoothing(model, continuum, edge, dt=dt) if matched else 0.0
        smoothing = min(smoothing, _LARGEST_TUNED)
    measure = functools.partial(
        cable_velocity, model, edge=edge, dt=dt, scheme=scheme, smoothing=smoothing
    )
    low, high = 0.9, 1.12
    for _ in range(8):
        factors = np.geomspace(low, high, 8)
        reached = measure(continuum * factors)
        best = int(np.abs(reached - velocity).argmin())
        if abs(reached[best] - velocity) <= rtol * velocity:
            return Tuned(continuum * factors[best], continuum, float(reached[best]), smoothing)
        above = np.flatnonzero(reached >= velocity)
        if above.size == 0:
            low, high = high, 6.0 * high
        elif above[0] == 0:
            low, high = low / 6.0, low
        else:
            low, high = factors[above[0] - 1], factors[above[0]]
    raise ModelError(
        f"no diffusivity conducts at {velocity:g} m/s on edges of {edge:.2f} mm with cell model "
        f"'{model.name}' (nearest: {reached[best]:.2f} m/s): refine the mesh."
    )
