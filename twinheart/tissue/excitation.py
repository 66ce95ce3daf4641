"""From stimuli to the sources of the eikonal equation: beats, places, latencies."""

import functools
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float, Int

from twinheart.anatomy import Heart
from twinheart.cell import AbstractCellModel
from twinheart.cell.gates import step as cell_step
from twinheart.errors import ModelError
from twinheart.tissue.build import stimulated
from twinheart.tissue.cable import ByValue
from twinheart.tissue.conductivity import by_region
from twinheart.tissue.eikonal import Eikonal, arrival
from twinheart.tissue.purkinje import ConductionSystem
from twinheart.tissue.stimulus import Stimulus, at_purkinje
from twinheart.types import Array

# Pulses that begin within this time [ms] of the first one belong to one beat: the trees of both
# ventricles do, even in a block; a premature beat does not, its tissue would be refractory.
_ONE_BEAT = 150.0
_MOST_BEATS = 200
_DT, _PATIENCE = 0.01, 20.0  # ms: step, and how long after a pulse a cell may take to respond


class Sources(eqx.Module):
    """Nodes where waves start, and when.

    Attributes
    ----------
    nodes : tuple of int arrays
        Nodes of mesh and tree that each stimulus excites.
    onsets : (beat, stimulus) array
        When [ms]; ``inf`` where a stimulus does not take part in a beat.
    """

    nodes: tuple[Int[Array, "_"], ...]
    onsets: Float[Array, "beat stimulus"]

    def arrivals(self, problem: Eikonal) -> Float[Array, "beat node"]:
        """Arrival of every beat at the nodes of mesh and tree [ms]; differentiable.

        A beat that repeats another one later is not solved again.
        """
        found: list[Array] = []
        known: list[tuple[np.ndarray, int]] = []
        for k, onsets in enumerate(self.onsets):
            concrete = None if isinstance(onsets, Tracer) else np.asarray(onsets)
            like = None
            if concrete is not None:
                like = next((j for pattern, j in known if _repeats(concrete, pattern)), None)
                known.append((concrete, k))
            if like is None:
                found.append(self._arrival(problem, onsets))
            else:
                found.append(found[like] + (onsets.min() - self.onsets[like].min()))
        return jnp.stack(found)

    def _arrival(self, problem: Eikonal, onsets) -> Float[Array, "node"]:
        at_nodes = jnp.full(problem.n_nodes, jnp.inf, onsets.dtype)
        for nodes, onset in zip(self.nodes, onsets, strict=True):
            at_nodes = at_nodes.at[nodes].set(jnp.minimum(at_nodes[nodes], onset))
        return arrival(problem, at_nodes=at_nodes)


def _repeats(onsets: np.ndarray, pattern: np.ndarray) -> bool:
    def relative(values):
        return np.where(np.isfinite(values), values - values.min(), 1e9)

    return bool(np.allclose(relative(onsets), relative(pattern), atol=1e-6, rtol=0.0))


def sources_of(
    heart: Heart,
    cell: AbstractCellModel | dict[int, AbstractCellModel],
    stimuli: Sequence[Stimulus],
    purkinje: ConductionSystem | None,
    t_end: float,
    *,
    threshold: float = 0.0,
) -> Sources:
    """Where and when stimuli start waves.

    Muscle is activated when its cells, at rest and by themselves, reach the threshold after the
    beginning of a pulse; a Purkinje tree at the beginning itself.

    Parameters
    ----------
    heart : Heart
        Muscle.
    cell : AbstractCellModel or dict of int to AbstractCellModel
        Its cells.
    stimuli : sequence of Stimulus
        Pulses and trains.
    purkinje : ConductionSystem, optional
        Tree, for stimuli there.
    t_end : float
        Pulses after this time are left out [ms].
    threshold : float
        Voltage that counts as activation [mV].

    Returns
    -------
    Sources
        One row of onsets for each beat.

    Raises
    ------
    ModelError
        If a stimulus is too weak to excite the cells, or there are no pulses, or too many beats.

    Examples
    --------
    >>> import twinheart as th
    >>> from twinheart.cell import get_model
    >>> from twinheart.tissue.excitation import sources_of
    >>> heart = th.Heart(th.mesh.generate.slab((4.0, 2.0, 2.0), 1.0))
    >>> train = th.pace("box:0,0,0,0,2,2", period=400.0, count=2)
    >>> sources = sources_of(heart, get_model("mitchell-schaeffer"), [train], None, 1000.0)
    >>> [f"{onset:.1f}" for onset in sources.onsets.ravel()]
    ['1.2', '401.2']
    """
    cells = by_region(heart, cell, "cell model")
    tags, count = np.unique(heart.regions, return_counts=True)
    usual = cells[int(tags[count.argmax()])]
    pulses: list[tuple[float, int]] = []
    nodes = []
    for k, stimulus in enumerate(stimuli):
        nodes.append(jnp.asarray(np.flatnonzero(stimulated(heart, purkinje, stimulus))))
        late = 0.0 if at_purkinje(stimulus.where) else latency(usual, stimulus, threshold)
        onset = float(stimulus.start) + float(stimulus.period) * np.arange(
            min(int(stimulus.count), 10_000)
        )
        pulses += [(float(t) + late, k) for t in onset[onset < t_end]]
    beats = _grouped(sorted(pulses))
    if not beats:
        raise ModelError(f"no stimulus begins before t_end = {t_end:g} ms: there is no wave.")
    onsets = np.full((len(beats), len(stimuli)), np.inf)
    for row, beat in zip(onsets, beats, strict=True):
        for t, k in beat:
            row[k] = min(row[k], t)
    return Sources(tuple(nodes), jnp.asarray(onsets, dtype=float))


def _grouped(pulses: list[tuple[float, int]]) -> list[list[tuple[float, int]]]:
    beats: list[list[tuple[float, int]]] = []
    for pulse in pulses:
        if beats and pulse[0] - beats[-1][0][0] <= _ONE_BEAT:
            beats[-1].append(pulse)
        else:
            beats.append([pulse])
    if len(beats) > _MOST_BEATS:
        raise ModelError(
            f"{len(beats)} beats are more than the {_MOST_BEATS} that an eikonal wave is computed "
            "for: simulate a shorter time."
        )
    return beats


def latency(cell: AbstractCellModel, stimulus: Stimulus, threshold: float = 0.0) -> float:
    """Time from the beginning of a pulse until a resting cell reaches the threshold [ms].

    Raises
    ------
    ModelError
        If it does not.

    Examples
    --------
    >>> from twinheart.cell import get_model
    >>> from twinheart.tissue import pace
    >>> from twinheart.tissue.excitation import latency
    >>> bool(1.0 < latency(get_model("mitchell-schaeffer"), pace("apex")) < 4.0)
    True
    """
    amplitude, duration = float(stimulus.amplitude), float(stimulus.duration)
    return _latency(ByValue(cell), amplitude, duration, threshold)


@functools.lru_cache(maxsize=256)
def _latency(handle: ByValue, amplitude: float, duration: float, threshold: float) -> float:
    n_steps = round((duration + _PATIENCE) / _DT)
    vm = np.asarray(_pulsed(handle.model, amplitude, round(duration / _DT), n_steps), dtype=float)
    reached = np.flatnonzero(vm >= threshold)
    if not reached.size:
        raise ModelError(
            f"a stimulus of {amplitude:g} A/F for {duration:g} ms does not excite a cell of "
            f"'{handle.model.name}' (it reaches {vm.max():.0f} mV): strengthen it."
        )
    k = int(reached[0])
    below = vm[k - 1] if k else vm[0]
    return float(_DT * (k + (threshold - below) / max(vm[k] - below, 1e-9)))


@eqx.filter_jit
def _pulsed(model: AbstractCellModel, amplitude: float, n_on: int, n_steps: int):
    vm, state = model.initial_vm(), model.initial_state()

    def advance(carry, k):
        vm, state = carry
        i_stim = jnp.where(k < n_on, amplitude, 0.0).astype(vm.dtype)
        i_ion, state = cell_step(model, vm, state, jnp.asarray(_DT, vm.dtype), i_stim)
        vm = vm + _DT * (i_stim - i_ion)
        return (vm.astype(carry[0].dtype), state), vm

    return jax.lax.scan(advance, (vm, state), jnp.arange(n_steps))[1]
