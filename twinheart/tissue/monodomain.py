r"""The monodomain problem and its one time loop.

:math:`\partial_t V = \nabla \cdot D \nabla V - i_{ion} + i_{stim}`. A step evaluates the cells at
the voltage of its start and hands their current to the scheme. Steps are grouped in blocks (about
half a millisecond): activation times are updated every step, everything slower once a block.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from twinheart.cell.gates import add_change
from twinheart.cell.gates import step as cell_step
from twinheart.cell.model import AbstractCellModel
from twinheart.errors import SolverError
from twinheart.tissue.discrete import Tissue
from twinheart.tissue.maps import first_activation, first_repolarisation
from twinheart.tissue.scheme import Scheme, Uncoupled
from twinheart.tissue.stimulus import Stimulus, pulse_fraction
from twinheart.tissue.wave import Wave
from twinheart.types import Array


class Monodomain(eqx.Module):
    """Everything that a simulated beat depends on; a PyTree, differentiable in every number.

    Parameters
    ----------
    tissue : Tissue
        Discrete diffusion.
    models : tuple of AbstractCellModel
        Cell models; their nodes are contiguous.
    model_sizes : tuple of int
        Number of nodes of each model.
    stimuli : tuple of Stimulus
        Pulses.
    stimulus_masks : tuple of (node,) arrays
        One where the stimulus acts, else zero.
    scheme : Scheme or Uncoupled
        Time stepping of the voltage.
    dt : float
        Time step [ms].
    threshold : float
        Activation threshold [mV].
    lead_field : (electrode, node) array
        Operator from V_m to potentials at the electrodes; may have no rows.
    probes : (probe,) int array
        Nodes (in the order of the computation) whose V_m is recorded every block.
    block : int
        Steps in a block.
    wave : Wave, optional
        Excitation that arrives at given times, see `twinheart.tissue.reaction_eikonal`.
    """

    tissue: Tissue
    models: tuple[AbstractCellModel, ...]
    model_sizes: tuple[int, ...] = eqx.field(static=True)
    stimuli: tuple[Stimulus, ...]
    stimulus_masks: tuple[Array, ...]
    scheme: Scheme | Uncoupled
    dt: Array
    threshold: Array
    lead_field: Float[Array, "electrode node"]
    probes: Int[Array, "probe"]
    block: int = eqx.field(static=True)
    wave: Wave | None = None


class State(NamedTuple):
    """What the loop carries: one array per variable, nothing else.

    The cells are evaluated at the end of a step, for the next one: `i_ion` belongs to `vm`, and
    `cells` are already one step ahead. So a step only gathers arrays that lie in memory; gathering
    a current in the step that computes it, XLA evaluates the cell once for every neighbour.
    `lost` is what rounding left out of `vm` (see `twinheart.cell.gates.add_change`).
    """

    step: Array
    vm: Array
    lost: Array
    i_ion: Array
    cells: tuple[tuple[Array, ...], ...]
    lat: Array
    repol: Array
    peak: Array
    rest: Array


Step = Callable[[Monodomain, State], State]


class Samples(NamedTuple):
    """What a block reports; stacked over blocks the leading axis is time."""

    t: Array
    potentials: Array
    probes: Array
    largest: Array
    largest_node: Array


def initial_state(problem: Monodomain) -> State:
    """All cells at the initial values of their models."""
    n = problem.tissue.n_nodes
    dtype = problem.tissue.lumped.dtype

    def spread(value, size):
        return jnp.broadcast_to(jnp.asarray(value, dtype), (size,))

    sizes = problem.model_sizes
    vm = jnp.concatenate(
        [spread(m.initial_vm(), size) for m, size in zip(problem.models, sizes, strict=True)]
    )
    cells = tuple(
        tuple(spread(value, size) for value in model.initial_state())
        for model, size in zip(problem.models, sizes, strict=True)
    )
    rest, never = vm, jnp.full(n, jnp.nan, dtype)
    lat = never
    if problem.wave is not None:
        vm = vm + problem.wave.rise
        lat = jnp.where(vm >= problem.threshold.astype(dtype), 0.0, lat)
    step = jnp.asarray(0, jnp.int32)
    i_ion, cells = _ionic(problem, step, vm, cells)
    return State(step, vm, jnp.zeros_like(vm), i_ion, cells, lat, never, vm, rest)


def _ionic(problem: Monodomain, step, vm, cells):
    """Currents at `vm` and cell states a step later; each model sees its own slice of the nodes."""
    dt = problem.dt.astype(vm.dtype)
    i_stim = stimulation(problem, step)
    # Divisions by a one that XLA cannot know: it fuses nothing through them. Without them reverse
    # mode evaluates the adjoint of the cells once for every neighbour that needs their voltage.
    one = jax.lax.stop_gradient(jnp.where(dt > 0, 1, 2)).astype(vm.dtype)
    vm = vm / one
    currents, new, start = [], [], 0
    for model, size, state in zip(problem.models, problem.model_sizes, cells, strict=True):
        part = slice(start, start + size)
        model = jax.tree.map(lambda leaf: _in_precision(leaf, vm.dtype), model)
        i_ion, state = cell_step(model, vm[part], state, dt, i_stim[part])
        currents.append(i_ion)
        new.append(state)
        start += size
    i_ion = currents[0] if len(currents) == 1 else jnp.concatenate(currents)
    return i_ion / one, tuple(new)


def _in_precision(leaf, dtype):
    """A floating-point parameter in the precision of the loop, whatever jax's default is."""
    is_number = eqx.is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)
    return leaf.astype(dtype) if is_number else leaf


def stimulation(problem: Monodomain, step: Int[Array, ""]) -> Float[jax.Array, "node"]:
    """Stimulus current of every node during a step, counted from zero [A/F]."""
    total = jnp.zeros_like(problem.tissue.lumped)
    dt = problem.dt.astype(total.dtype)
    for stimulus, mask in zip(problem.stimuli, problem.stimulus_masks, strict=True):
        amount = stimulus.amplitude * pulse_fraction(stimulus, step.astype(total.dtype) * dt, dt)
        total = total + amount.astype(mask.dtype) * mask
    if problem.wave is not None:
        total = total + problem.wave.current(step.astype(total.dtype) * dt)
    return total


def one_step(problem: Monodomain, state: State) -> State:
    """State a time step later: voltage, then cells and activation times.

    Parameters
    ----------
    problem : Monodomain
        What to solve.
    state : State
        At the start of the step.

    Returns
    -------
    State
        At its end; what is updated once a block is left as it was.
    """
    dtype = state.vm.dtype
    dt = problem.dt.astype(dtype)
    next_step = state.step + 1
    i_stim = stimulation(problem, state.step)
    tissue = problem.tissue
    if problem.wave is not None:
        tissue = problem.wave.behind_front(tissue, state.step.astype(dtype) * dt)
    change = problem.scheme(tissue, state.vm, state.i_ion, i_stim, dt)
    vm, lost = add_change(state.vm, state.lost, change)
    i_ion, cells = _ionic(problem, next_step, vm, state.cells)
    t0, t1 = state.step.astype(dtype) * dt, next_step.astype(dtype) * dt
    lat = first_activation(state.lat, t0, t1, state.vm, vm, problem.threshold.astype(dtype))
    return state._replace(step=next_step, vm=vm, lost=lost, i_ion=i_ion, cells=cells, lat=lat)


def _end_of_block(problem: Monodomain, start: State, end: State) -> tuple[State, Samples]:
    dtype = end.vm.dtype
    dt = problem.dt.astype(dtype)
    t0, t1 = start.step.astype(dtype) * dt, end.step.astype(dtype) * dt
    peak = jnp.where(jnp.isnan(end.lat), end.rest, jnp.maximum(end.peak, end.vm))
    repol = first_repolarisation(end.repol, end.lat, peak, end.rest, t0, t1, start.vm, end.vm)
    size = jnp.where(jnp.isfinite(end.vm), jnp.abs(end.vm), jnp.inf)
    samples = Samples(
        t1, problem.lead_field @ end.vm, end.vm[problem.probes], size.max(), size.argmax()
    )
    return end._replace(peak=peak, repol=repol), samples


def advance(
    problem: Monodomain,
    state: State,
    blocks: int,
    *,
    unroll: int = 1,
    remat: bool = False,
    step: Step = one_step,
) -> tuple[State, Samples]:
    """Run `blocks` blocks of steps.

    Parameters
    ----------
    problem : Monodomain
        What to solve.
    state : State
        Where it stands.
    blocks : int
        Number of blocks (static).
    unroll : int
        Steps in one loop body: a GPU captures them in one graph.
    remat : bool
        Recompute each step in reverse mode instead of storing its intermediates.
    step : callable
        What makes a step; `twinheart.tissue.fused` has another one.

    Returns
    -------
    state : State
        After ``blocks * problem.block`` steps.
    samples : Samples
        One row a block.
    """

    def next_state(state, _):
        return step(problem, state), None

    if remat:
        next_state = jax.checkpoint(next_state)

    def one_block(state, _):
        end, _ = jax.lax.scan(next_state, state, None, length=problem.block, unroll=unroll)
        return _end_of_block(problem, state, end)

    return jax.lax.scan(one_block, state, None, length=blocks)


def solve(
    problem: Monodomain,
    blocks: int,
    *,
    unroll: int = 1,
    groups: tuple[int, ...] | None = None,
    step: Step = one_step,
    start: State | None = None,
) -> tuple[State, Samples]:
    r"""The whole beat as one differentiable function of `problem`.

    Reverse mode keeps about :math:`2\sqrt{n}` copies of the state for n steps: the blocks are
    grouped, each group is run again on the way back, and each step once more within it. Forward
    mode (`jax.jvp`) stores nothing.

    Parameters
    ----------
    problem : Monodomain
        What to solve.
    blocks : int
        Number of blocks (static).
    unroll : int
        See `advance`.
    groups : tuple of int, optional
        Groups of each level, outermost first, whose product divides `blocks`: more levels keep
        fewer states and compute each step more often; none keeps all. From
        `twinheart.tissue.checkpoint_plan`, which chooses them by the free memory. Default: one
        level, as above.
    step : callable
        See `advance`; forward mode needs the default.
    start : State, optional
        By default the initial state of the problem.

    Returns
    -------
    state, samples
        As from `advance`. Activation times are differentiable through the crossing (see
        `twinheart.tissue.maps`); they are NaN where nothing happened: mask before summing.

    Raises
    ------
    SolverError
        If the groups do not divide the blocks.
    """
    groups = _default_groups(problem, blocks) if groups is None else groups
    inner, left = divmod(blocks, math.prod(groups))
    if left or inner < 1:
        raise SolverError(
            f"groups {groups} do not divide {blocks} blocks; take those of checkpoint_plan."
        )

    def run_blocks(state):
        return advance(problem, state, inner, unroll=unroll, remat=True, step=step)

    for count in reversed(groups):
        run_blocks = _repeated(jax.checkpoint(run_blocks), count)
    state, samples = run_blocks(initial_state(problem) if start is None else start)
    return state, jax.tree.map(lambda x: x.reshape(blocks, *x.shape[len(groups) + 1 :]), samples)


def _default_groups(problem: Monodomain, blocks: int) -> tuple[int, ...]:
    group = max(1, min(blocks, round(np.sqrt(blocks / problem.block))))
    while blocks % group:
        group -= 1
    return (blocks // group,)


def _repeated(function, count: int):
    """A function of the state, `count` times."""
    return lambda state: jax.lax.scan(lambda s, _: function(s), state, None, length=count)


def in_node_order(model: AbstractCellModel, order: Int[np.ndarray, "node"], n_mesh: int) -> Any:
    """Rearrange the per-node parameters of a cell model from mesh order to `order`."""

    def place(leaf):
        return leaf[order] if eqx.is_array(leaf) and leaf.shape == (n_mesh,) else leaf

    return jax.tree.map(place, model)
