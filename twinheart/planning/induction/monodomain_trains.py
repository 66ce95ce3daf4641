r"""Trains of stimuli at one site by the monodomain equation, told as activations of every node.

The tissue starts where its cells are in their limit cycle. A run goes from moment to moment; each
can be kept and gone on from, so that stimuli that many trains have in common are run once. Every
upward crossing of the threshold is an activation, so the result has the form of the trains of the
re-excitable eikonal equation and is judged in the same way.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from twinheart.anatomy import Heart
from twinheart.cell import AbstractCellModel, limit_cycle
from twinheart.ecg import Electrodes, lead_field
from twinheart.errors import InputError, SolverError
from twinheart.planning.pacing_sites import PacingSite
from twinheart.tissue import NonConducting, Train, build_monodomain, pace
from twinheart.tissue.build import Built
from twinheart.tissue.conductivity import Conduction, by_region
from twinheart.tissue.monodomain import Monodomain, State, advance, initial_state
from twinheart.tissue.run import compiler_options
from twinheart.twin import Twin, intracellular_tensor

_CHUNK_MS = 5.0  # between two visits of the host; no node fires twice within it
_THRESHOLD = -20.0  # mV: premature action potentials of some models hardly reach 0
# With all cells at most so far [mV] above where they were before the first stimulus, nothing fires.
_RESTING = 5.0


class PacedTissue(eqx.Module):
    """Tissue ready to be paced, at the limit cycle of its cells.

    Made by `prepare_pacing`.

    Attributes
    ----------
    heart : Heart
        Mesh, fibres, regions.
    cells, conduction : dict
        For each region tag; the cells start from their limit cycle.
    electrodes : Electrodes or None
        Of the ECG.
    dt : float
        Time step [ms].
    built : Built
        The monodomain problem.
    conducts : (node,) bool array
        Nodes of tissue that conducts.
    """

    heart: Heart
    cells: dict[int, AbstractCellModel]
    conduction: dict[int, Conduction]
    electrodes: Electrodes | None
    dt: float = eqx.field(static=True)
    built: Built
    conducts: Bool[np.ndarray, "node"]

    @property
    def block(self) -> float:
        """Interval to which all times of stimuli are rounded [ms]."""
        return self.built.problem.block * self.dt

    def with_step(self, dt: float) -> "PacedTissue":
        """The same tissue with another time step [ms]."""
        return _prepared(self.heart, self.cells, self.conduction, self.electrodes, dt)


def prepare_pacing(
    heart: Heart,
    cells: AbstractCellModel | dict[int, AbstractCellModel],
    conduction: Conduction | dict[int, Conduction],
    *,
    cycle: float,
    electrodes: Electrodes | None = None,
    dt: float = 0.05,
) -> PacedTissue:
    """Bring cells to their limit cycle and build the monodomain problem.

    Parameters
    ----------
    heart : Heart
        Mesh [mm], fibres, regions.
    cells, conduction
        One, or one for each region tag.
    cycle : float
        Of the limit cycle [ms]: that of S1.
    electrodes : Electrodes, optional
        For the ECG of what is induced.
    dt : float
        Time step [ms].

    Returns
    -------
    PacedTissue
        To be paced at any site.

    Raises
    ------
    ModelError
        If a cell does not follow the cycle one to one, or tissue would block at rest.

    Examples
    --------
    See `twinheart.planning.confirm`.
    """
    per_tag = by_region(heart, cells, "cell model")
    known = {id(cell): limit_cycle(cell, cycle).model for cell in per_tag.values()}
    paced = {tag: known[id(cell)] for tag, cell in per_tag.items()}
    tissues = by_region(heart, conduction, "conductivity")
    return _prepared(heart, paced, tissues, electrodes, dt)


def _prepared(heart: Heart, cells, conduction, electrodes, dt: float) -> PacedTissue:
    field = None
    if electrodes is not None:
        sigma_i = intracellular_tensor(Twin(heart, cells, conduction))
        field = lead_field(heart.mesh, electrodes, sigma_i)
    anywhere = pace(np.array([0]))  # where, each site says by its mask
    built = build_monodomain(
        heart, cells, conduction, [anywhere], dt=dt, threshold=_THRESHOLD, lead_field=field
    )
    dead = [tag for tag, tissue in conduction.items() if isinstance(tissue, NonConducting)]
    conducts = np.zeros(heart.mesh.n_nodes, dtype=bool)
    conducts[heart.mesh.tets[~np.isin(heart.regions, dead)]] = True
    return PacedTissue(heart, cells, conduction, electrodes, dt, built, conducts)


class Moment(NamedTuple):
    """The state of the tissue at some time [ms]."""

    state: State
    time: float


class Stretch(NamedTuple):
    """What happened from one moment to another.

    Attributes
    ----------
    end : Moment
        Where it ended; earlier than asked for if all tissue had come to rest.
    node, time : arrays
        Activations [ms].
    kept : dict of float to Moment
        Moments that were asked for.
    t, potentials : arrays
        Potentials at the electrodes over time [mV].
    """

    end: Moment
    node: Int[np.ndarray, "event"]
    time: Float[np.ndarray, "event"]
    kept: dict[float, Moment]
    t: Float[np.ndarray, "time"]
    potentials: Float[np.ndarray, "time electrode"]


class Stimulator:
    """One site of a tissue.

    Parameters
    ----------
    tissue : PacedTissue
        What is paced.
    site : PacingSite
        Where.
    radius : float
        Of the ball that a stimulus excites [mm].

    Raises
    ------
    InputError
        If nothing within the ball conducts, or everything does.
    """

    def __init__(self, tissue: PacedTissue, site: PacingSite, radius: float):
        away = np.linalg.norm(tissue.heart.mesh.points - np.array(site.position), axis=1)
        chosen = (away <= radius) & tissue.conducts
        if not chosen.any() or chosen[tissue.conducts].all():
            raise InputError(
                f"a stimulus of radius {radius:g} mm at {site.name} excites "
                f"{'all' if chosen.any() else 'no'} tissue that conducts: change the radius, or "
                "place the site anew."
            )
        self.tissue, self.away = tissue, away
        problem = tissue.built.problem
        mask = jnp.asarray(tissue.built.assembly.to_node_order(chosen), problem.lead_field.dtype)
        self.paced = eqx.tree_at(lambda p: p.stimulus_masks, problem, (mask,))
        self.silent = eqx.tree_at(lambda p: p.stimulus_masks, problem, (0 * mask,))
        self.before = _at_rest(self.silent)

    def start(self) -> Moment:
        """Cells at their limit cycle, right before the first stimulus."""
        return Moment(self.before, 0.0)

    def run(
        self,
        start: Moment,
        until: float,
        *,
        pulse: bool = True,
        keep: Sequence[float] = (),
        to_rest: bool = False,
        noise: Float[np.ndarray, "node"] | None = None,
        frame: Callable[[float, np.ndarray], Any] | None = None,
    ) -> Stretch:
        """Go on from a moment.

        Parameters
        ----------
        start : Moment
            Where to start.
        until : float
            When to end [ms].
        pulse : bool
            Whether a stimulus is given at the start.
        keep : sequence of float
            Times of the moments to keep [ms].
        to_rest : bool
            End as soon as all tissue is at rest.
        noise : (node,) array, optional
            Added to the voltages at the start [mV].
        frame : callable, optional
            Given the time [ms] and the voltages [mV] of all nodes every few milliseconds.

        Returns
        -------
        Stretch
            Activations and moments.

        Raises
        ------
        SolverError
            If the solution breaks down.
        """
        problem = self.paced if pulse else self.silent
        tissue, block = problem.tissue, self.tissue.block
        state = start.state._replace(step=jnp.zeros_like(start.state.step))
        if noise is not None:
            added = self.tissue.built.assembly.to_node_order(noise)
            state = state._replace(vm=state.vm + jnp.asarray(added, state.vm.dtype))
        rows = max(1, round(_CHUNK_MS / block))
        stops = sorted({*(_blocks(t - start.time, block) for t in (*keep, until))})
        wanted = {_blocks(t - start.time, block): t for t in keep}
        kept, nodes, times, voltages, done = {}, [], [], [], 0
        for stop in stops:
            at_rest = False
            while done < stop and not at_rest:
                count = min(rows, stop - done)
                state, seen = _chunk(problem, state, count, rows)
                done += count
                lat = tissue.to_mesh_order(state.lat)
                hit = np.flatnonzero(np.isfinite(lat) & self.tissue.conducts)
                nodes.append(hit)
                times.append(start.time + lat[hit].astype(float))
                voltages.append(np.asarray(seen)[:count])
                above = float((state.vm - self.before.vm).max())
                if not np.isfinite(above):
                    raise SolverError(
                        f"V_m is not a number {done * block:g} ms after the stimulus at "
                        f"{start.time:g} ms, with dt = {self.tissue.dt:g} ms: lower dt."
                    )
                if frame is not None:
                    frame(start.time + done * block, tissue.to_mesh_order(state.vm))
                at_rest = to_rest and above < _RESTING
            if at_rest:
                break
            if stop in wanted:
                kept[wanted[stop]] = Moment(state, wanted[stop])
        return Stretch(
            Moment(state, start.time + done * block),
            np.concatenate(nodes),
            np.concatenate(times),
            kept,
            start.time + block * np.arange(1, done + 1),
            np.concatenate(voltages),
        )


_at_rest = eqx.filter_jit(initial_state)


def _blocks(time: float, block: float) -> int:
    return round(time / block)


def _chunk(problem: Monodomain, state: State, blocks: int, rows: int):
    """Some blocks, with new activation times; one program whatever their number."""
    return _program()(problem, state, jnp.asarray(blocks), rows)


@functools.cache
def _program() -> Callable:
    options: dict[str, Any] = {"compiler_options": compiler_options()}
    return eqx.filter_jit(_advance, **options)


def _advance(problem: Monodomain, state: State, blocks, rows: int):
    def one(k, carry):
        state, potentials = carry
        state, samples = advance(problem, state, 1)
        return state, potentials.at[k].set(samples.potentials[0])

    state = state._replace(lat=jnp.full_like(state.lat, jnp.nan))
    empty = jnp.zeros((rows, len(problem.lead_field)), problem.lead_field.dtype)
    return jax.lax.fori_loop(0, blocks, one, (state, empty))


def train_of(
    node: Int[np.ndarray, "event"], time: Float[np.ndarray, "event"], n_nodes: int
) -> Train:
    """Train of activations; durations and diastolic intervals are not measured (NaN).

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.planning.induction.monodomain_trains import train_of
    >>> train_of(np.array([1, 0, 1]), np.array([30.0, 5.0, 10.0]), 2).lat
    array([[ 5., nan],
           [10., 30.]])
    """
    order = np.lexsort((time, node))
    node, time = node[order], time[order]
    rank = np.arange(len(node)) - np.searchsorted(node, node)
    lat = np.full((n_nodes, int(rank.max(initial=-1)) + 1), np.nan)
    lat[node, rank] = time
    unknown = np.full_like(lat, np.nan)
    return Train(lat, unknown, unknown, "successful")
