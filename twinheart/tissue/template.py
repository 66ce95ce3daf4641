r"""Template action potentials: what a wave that arrives does to the voltage, tabulated once.

A plane wave that runs at a constant velocity shows the same voltage everywhere, shifted in time,

.. math:: V(x, t) = U(t - \tau(x)),

and :math:`U` does not depend on the velocity: with it, diffusivity and width of the front scale
such that :math:`D / c^2` stays the same. So one fine cable gives the template of a cell model, with
the foot and the upstroke that tissue has and a paced single cell has not. :math:`U(0)` is the
threshold of activation.

The same cable tells the axial current that a cell receives as the wave passes,

.. math:: i_{ax}(s) = D\, \partial_x^2 V = \frac{D}{c^2}\, \ddot U(s),

with which an isolated cell goes through the very same upstroke (see
`twinheart.tissue.reaction_eikonal`).
"""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.interpolate import CubicSpline

from twinheart.anatomy import Heart
from twinheart.cell import AbstractCellModel
from twinheart.cell.paced_cache import kept, measured_path
from twinheart.errors import ModelError
from twinheart.tissue.build import cells_of_nodes
from twinheart.tissue.cable import (
    ByValue,
    cable_problem,
    fitted_scheme,
    scalar_parameters,
)
from twinheart.tissue.monodomain import advance, initial_state
from twinheart.tissue.wave import FOOT, STEP
from twinheart.types import Array

_SAMPLES = 24_001  # of a table: 1.2 s
_DT = 0.02  # ms, of the cable
# Diffusivity [mm^2/ms] and spacing [mm] of the cable: three to six nodes in D / c, the thickness of
# the front, of any cell that conducts at 0.2 to 0.4 m/s with this diffusivity, two at 0.63 m/s.
_DIFFUSIVITY, _EDGE = 0.1, 0.08
_SMOOTHING = 0.65  # of the ionic current: the velocity is within 1 % of the continuum's
_FROM, _PROBE = 30, 46  # nodes of the cable: the wave is settled, and does not feel the end yet
_PIECE = 200.0  # ms run at a time until a cell repolarises
_REPRESENTATIVES = 9  # cells that stand for all those along one way of varying
_STRAY = 0.02  # share of the variance of parameters that one way may leave out


class ActionPotential(eqx.Module):
    r"""Voltage of a cell of a model as a travelling wave passes, from the foot to rest.

    Attributes
    ----------
    vm : (sample,) array
        :math:`U` [mV] every `STEP` ms, from `FOOT` ms before it crosses the threshold.
    apd90 : float
        From threshold to 90 % repolarisation [ms].
    crest : float
        Time at which the upstroke ends, the first maximum [ms].
    axial : float
        :math:`D / c^2` [ms].
    """

    vm: Float[Array, "sample"]
    apd90: Float[Array, ""]
    crest: Float[Array, ""]
    axial: Float[Array, ""]

    @property
    def rest(self) -> Array:
        """Voltage before the wave [mV]."""
        return self.vm[0]

    def __call__(self, s: Array, apd_factor: Array | float = 1.0) -> Array:
        """Voltage `s` ms after activation [mV], the APD being `apd_factor` times the table's.

        What follows the upstroke is stretched in time; foot and upstroke stay.

        Examples
        --------
        >>> import numpy as np
        >>> from twinheart.cell import get_model
        >>> from twinheart.tissue.template import action_potential
        >>> ap = action_potential(get_model("mitchell-schaeffer"))
        >>> bool(abs(ap(np.array(0.0))) < 1.0)
        True
        """
        late = self.crest + (s - self.crest) / self.stretch(apd_factor)
        place = (jnp.where(s > self.crest, late, s) + FOOT) / STEP
        return _interpolated(self.vm, place)

    def slope(self, s: Array) -> Array:
        """Time derivative of the voltage `s` ms after activation [mV/ms]."""
        return _interpolated(_slopes(self.vm), (s + FOOT) / STEP)

    def stretch(self, apd_factor: Array | float) -> Array:
        """Factor on the time after the upstroke that multiplies the APD by `apd_factor`."""
        return (apd_factor * self.apd90 - self.crest) / (self.apd90 - self.crest)


def _slopes(table: Array) -> Array:
    """Central differences of a table."""
    inner = (table[2:] - table[:-2]) / (2.0 * STEP)
    return jnp.pad(inner, 1)


def _interpolated(table: Array, place: Array) -> Array:
    """Cubic (Catmull-Rom) interpolation of a table that is constant beyond its ends."""
    last = table.shape[0] - 1
    place = jnp.clip(place, 0.0, last)
    k = jnp.clip(jnp.floor(place).astype(jnp.int32), 0, last - 1)
    x = place - k
    a, b, c, d = (table[jnp.clip(k + i, 0, last)] for i in (-1, 0, 1, 2))
    return b + 0.5 * x * (
        c - a + x * (2.0 * a - 5.0 * b + 4.0 * c - d + x * (3.0 * (b - c) + d - a))
    )


def action_potential(model: AbstractCellModel, *, threshold: float = 0.0) -> ActionPotential:
    """Template of a cell model, from its initial state, measured on a fine cable.

    Parameters
    ----------
    model : AbstractCellModel
        Cell; of parameters with one value per node the mean counts.
    threshold : float
        Voltage that counts as activation [mV].

    Returns
    -------
    ActionPotential
        Measured once for each model and threshold.

    Raises
    ------
    ModelError
        If the model does not conduct or does not repolarise within two seconds.

    Examples
    --------
    >>> from twinheart.cell import get_model
    >>> from twinheart.tissue.template import action_potential
    >>> ap = action_potential(get_model("mitchell-schaeffer"))
    >>> bool(250 < ap.apd90 < 330)
    True
    """
    found = _tabulated(ByValue(model), float(threshold))
    return ActionPotential(**{name: jnp.asarray(values) for name, values in found.items()})


@functools.lru_cache(maxsize=64)
def _tabulated(handle: ByValue, threshold: float) -> dict[str, np.ndarray]:
    model = handle.model
    path = measured_path("template", model, threshold=threshold, cable=_EDGE, dt=_DT)
    empty = {name: np.zeros(()) for name in ("apd90", "crest", "axial")}
    like = {"vm": np.zeros(_SAMPLES), **empty}
    what = f"the action potential of {model.name} on a cable"
    return kept(path, like, lambda: _measured([model], threshold)[0], what)


def _measured(models: list[AbstractCellModel], threshold: float) -> list[dict[str, np.ndarray]]:
    """Templates of cells that differ in numbers only, side by side."""
    scheme = fitted_scheme(None, _DIFFUSIVITY, _EDGE, _DT)

    def cable(model):
        problem = cable_problem(model, _DIFFUSIVITY, _SMOOTHING, _EDGE, _DT, scheme)
        probes = jnp.asarray([_PROBE], jnp.int32)
        return dataclasses.replace(problem, block=1, probes=probes)  # read every step

    problems = eqx.filter_vmap(cable)(jax.tree.map(lambda *leaves: jnp.stack(leaves), *models))
    states = eqx.filter_jit(eqx.filter_vmap(initial_state))(problems)
    pieces = [np.asarray(states.vm)[:, [_PROBE]]]
    ended = False
    while not ended:
        if len(pieces) * _PIECE > _SAMPLES * STEP:
            raise ModelError(
                f"cell model '{models[0].name}' does not conduct, or does not repolarise within "
                f"{_SAMPLES * STEP:g} ms: it has no template; check its parameters."
            )
        states, vm = _piece(problems, states)
        pieces.append(np.asarray(vm))
        ended = bool(np.isfinite(np.asarray(states.repol)[:, _PROBE]).all())
    lat = np.asarray(states.lat, dtype=float)
    slow = (lat[:, _PROBE] - lat[:, _FROM]) / ((_PROBE - _FROM) * _EDGE)
    traces = np.concatenate(pieces, axis=1).astype(float)
    return [
        _template(trace, threshold, _DIFFUSIVITY * x**2)
        for trace, x in zip(traces, slow, strict=True)
    ]


@eqx.filter_jit
def _piece(problems, states):
    def run(problem, state):
        state, samples = advance(problem, state, round(_PIECE / _DT))
        return state, samples.probes[:, 0]

    return eqx.filter_vmap(run)(problems, states)


def _template(trace: np.ndarray, threshold: float, axial: float) -> dict[str, np.ndarray]:
    """Table of one cable's trace, sampled every `_DT` ms."""
    t = _DT * np.arange(len(trace))
    if not trace[0] < threshold < trace.max():
        raise ModelError(
            f"no voltage of this cell model crosses {threshold:g} mV: it goes from {trace[0]:.1f} "
            f"to {trace.max():.1f} mV; choose a threshold between."
        )
    up = int(np.argmax(trace >= threshold))
    vm = CubicSpline(t, trace)
    start = t[up - 1] + _DT * np.interp(threshold, trace[up - 1 : up + 1], [0.0, 1.0])
    crest = up + int(np.argmax(np.diff(trace[up:]) <= 0.0))
    top = up + int(trace[up:].argmax())
    low = trace.max() - 0.9 * (trace.max() - trace[0])
    down = top + int(np.argmax(trace[top:] <= low))
    end = float(np.interp(low, trace[[down, down - 1]], t[[down, down - 1]]))
    s = start - FOOT + STEP * np.arange(_SAMPLES)
    table = np.where(s < 0.0, trace[0], vm(np.clip(s, 0.0, t[-1])))
    numbers = {"apd90": end - start, "crest": t[crest] - start, "axial": axial}
    return {"vm": table} | {name: np.asarray(value) for name, value in numbers.items()}


class Templates(eqx.Module):
    """Templates of all nodes of a heart.

    Attributes
    ----------
    tables : tuple of ActionPotential
        One for each cell model.
    table : (node,) int array
        Which of them a node has.
    apd_factor : (node,) array
        APD of a node over that of its table.
    varies : bool
        Whether not all nodes have the same template.
    """

    tables: tuple[ActionPotential, ...]
    table: Int[Array, "node"]
    apd_factor: Float[Array, "node"]
    varies: bool = eqx.field(static=True)

    @property
    def apd90(self) -> Float[Array, "node"]:
        """APD90 of every node [ms]."""
        return jnp.stack([ap.apd90 for ap in self.tables])[self.table] * self.apd_factor

    def voltage(self, s: Float[Array, "time point"], nodes: Int[Array, "point"]) -> Array:
        """Voltage of nodes `s` ms after their activation [mV], (time, point); at rest if NaN."""
        factor = self.apd_factor[nodes]
        s = jnp.where(jnp.isnan(s), -FOOT, s)
        vm = jnp.stack([ap(s, factor) for ap in self.tables])
        return jnp.take_along_axis(vm, self.table[nodes][None, None], axis=0)[0]


def templates_of(
    heart: Heart,
    cell: AbstractCellModel | dict[int, AbstractCellModel],
    *,
    threshold: float = 0.0,
) -> Templates:
    """Templates of the cells of a heart.

    Parameters
    ----------
    heart : Heart
        Its regions say which cell a node has.
    cell : AbstractCellModel or dict of int to AbstractCellModel
        Cell model, or one for each region tag. Parameters with one value for each node may vary
        along one way, such as across the wall: the APD then follows cells sampled along it, the
        shape is that of the mean cell.
    threshold : float
        Voltage that counts as activation [mV].

    Returns
    -------
    Templates
        One table for each cell model.

    Raises
    ------
    ModelError
        If parameters vary in more than one way, or a model has no template.

    Examples
    --------
    >>> import twinheart as th
    >>> from twinheart.cell import get_model
    >>> from twinheart.tissue.template import templates_of
    >>> templates_of(th.demo_heart(), get_model("mitchell-schaeffer")).varies
    False
    """
    models, _, table = cells_of_nodes(heart, cell)
    tables, factor = [], np.ones(heart.mesh.n_nodes)
    for k, model in enumerate(models):
        ap = action_potential(model, threshold=threshold)
        of_model = _apd_factor(model, ap, threshold, heart.mesh.n_nodes)
        factor = np.where(table == k, of_model, factor)
        tables.append(ap)
    varies = len(tables) > 1 or bool((factor != 1.0).any())
    return Templates(tuple(tables), jnp.asarray(table), jnp.asarray(factor), varies)


def _apd_factor(model, mean: ActionPotential, threshold: float, n_nodes: int):
    """APD of every node over that of the mean cell, from cells sampled along the variation."""
    leaves, structure = jax.tree.flatten(model)
    own = [k for k, leaf in enumerate(leaves) if eqx.is_array(leaf) and leaf.shape == (n_nodes,)]
    rows = (
        np.stack([np.asarray(leaves[k], float) for k in own], axis=1) if own else np.zeros((1, 0))
    )
    centre, spread = rows.mean(axis=0), rows.std(axis=0)
    if not (spread > 0).any():
        return np.ones(n_nodes)
    size = np.where(spread > 0, spread, 1.0)
    variance, ways = np.linalg.eigh(_covariance((rows - centre) / size))
    if variance[-1] < (1.0 - _STRAY) * variance.sum():
        raise ModelError(
            f"parameters of cell model '{model.name}' vary over the nodes in more than one way, "
            "for which there are no templates: simulate with propagation 'reaction-eikonal' or "
            "'monodomain'."
        )
    way = ways[:, -1]
    place = ((rows - centre) / size) @ way
    knots = np.linspace(place.min(), place.max(), _REPRESENTATIVES)
    sampled = []
    for knot in knots:
        values = centre + size * way * knot
        of_knot = list(leaves)
        for k, value in zip(own, values, strict=True):
            of_knot[k] = jnp.asarray(value, leaves[k].dtype)
        sampled.append(scalar_parameters(jax.tree.unflatten(structure, of_knot)))
    apd = [float(found["apd90"]) for found in _measured(sampled, threshold)]
    return np.interp(place, knots, apd) / float(mean.apd90)


def _covariance(rows: np.ndarray) -> np.ndarray:
    return rows.T @ rows / len(rows)
