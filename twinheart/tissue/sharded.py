"""One heart over several devices: the time loop of `twinheart.tissue.monodomain`, sharded.

Every device runs the same loop on its part of the nodes; only products and sums over the heart
(ECG, probes, largest potential) pass between them, the sums once a call. So activation times are
those of one device, up to how a compiler rounds; the ECG is added in another order.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from twinheart.errors import InputError
from twinheart.tissue.monodomain import (
    Monodomain,
    Samples,
    State,
    advance,
    initial_state,
    solve,
)
from twinheart.tissue.partition import AXIS, Partition, part_of_tissue, partition
from twinheart.tissue.scheme import Explicit, Uncoupled
from twinheart.types import Array

_WHOLE, _CUT = PartitionSpec(), PartitionSpec(AXIS)


class Sharded:
    """A monodomain problem laid out over devices.

    Parameters
    ----------
    problem : Monodomain
        What to solve; its explicit scheme decides the messages of a step: one for each Chebyshev
        stage and one for the ionic current.
    devices : int
        Number of devices; of all processes, where `jax.distributed` joined several.

    Raises
    ------
    InputError
        If there are fewer devices, or the problem cannot be cut.

    Examples
    --------
    >>> import numpy as np, twinheart as th
    >>> from twinheart.tissue import build_monodomain, initial_state
    >>> from twinheart.tissue.sharded import Sharded
    >>> mesh = th.mesh.generate.slab((4.0, 2.0, 2.0), 1.0)
    >>> heart = th.Heart(mesh, f0=np.tile([1.0, 0.0, 0.0], (mesh.n_tets, 1)))
    >>> cell = th.cell.get_model("mitchell-schaeffer")
    >>> tissue = th.Conductivities(0.3, 0.1, 0.6, 0.4)
    >>> stimulus = th.pace("box:0,0,0,1,2,2")
    >>> built = build_monodomain(heart, cell, tissue, [stimulus], smoothing=0.5, may_block=True)
    >>> spread = Sharded(built.problem, 1)
    >>> state = spread.scatter(initial_state(built.problem))
    >>> state, samples = spread.program(state, blocks=1)(state)
    >>> spread.gather(state).vm.shape == (built.problem.tissue.n_nodes,)
    True
    """

    def __init__(self, problem: Monodomain, devices: int):
        _refuse(problem)
        found = jax.devices()
        if not 1 <= devices <= len(found):
            raise InputError(
                f"cannot use {devices} devices: jax sees {len(found)} "
                f"({found[0].device_kind}); take fewer, or on a CPU set XLA_FLAGS="
                f"--xla_force_host_platform_device_count={devices} to try it."
            )
        self.partition = partition(problem.tissue, problem.model_sizes, devices)
        self._models = self.partition.of_models()
        self.mesh = Mesh(np.array(found[:devices]), (AXIS,))
        host = jax.tree.map(lambda x: np.asarray(x) if eqx.is_array(x) else x, problem)
        parts, held = _parts_of(host, self.partition)
        arrays, self._fixed = eqx.partition(parts, eqx.is_array)
        self._specs = _specs(parts, devices)
        self._arrays = jax.tree.map(self._place, arrays, self._specs)
        self._held = self._place(held, _CUT)

    def _place(self, values: Any, spec: PartitionSpec) -> jax.Array:
        """An array over the devices, each given its own part: no device ever holds the whole."""
        values = np.asarray(values)
        sharding = NamedSharding(self.mesh, spec)
        return jax.make_array_from_callback(values.shape, sharding, lambda part: values[part])

    def scatter(self, state: State) -> State:
        """A state of the whole problem, as from `initial_state`, over the devices."""
        laid = self._moved(jax.tree.map(np.asarray, state), 0, self.partition.to_parts)
        return jax.tree.map(lambda x: self._place(x, _CUT if np.ndim(x) else _WHOLE), laid)

    def gather(self, state: State) -> State:
        """A scattered state as of the whole problem, on the host."""
        return self._moved(jax.tree.map(_fetched, state), 1, self.partition.to_nodes)

    def _moved(self, state: State, side: int, move: Callable[[Any], Any]) -> State:
        """A state of the whole problem (side 0) or of all places (1) as one of the other."""
        cells = tuple(
            tuple(x[picked[side]] for x in cell)
            for cell, picked in zip(state.cells, self._models, strict=True)
        )
        rest = state._replace(cells=())
        return jax.tree.map(lambda x: move(x) if x.ndim else x, rest)._replace(cells=cells)

    def gather_field(self, values: Array) -> np.ndarray:
        """One variable of a scattered state at the nodes of the computation, on the host."""
        return self.partition.to_nodes(_fetched(values))

    def program(
        self,
        state: State,
        blocks: int,
        *,
        unroll: int = 1,
        options: dict[str, str | bool] | None = None,
    ) -> Callable[[State], tuple[State, Samples]]:
        """Compile `blocks` blocks of steps.

        Parameters
        ----------
        state : State
            A scattered one.
        blocks, unroll : int
            As of `twinheart.tissue.advance`.
        options : dict, optional
            Of XLA.

        Returns
        -------
        callable
            From a scattered state to the next one and the samples, the latter on the host.
        """
        spread = self._spread(
            lambda problem, state: advance(problem, state, blocks, unroll=unroll), state
        )
        lowered = jax.jit(spread).lower(self._arrays, self._held, state)
        step = lowered.compile(compiler_options=options)

        def advance_all(state: State) -> tuple[State, Samples]:
            state, samples = jax.block_until_ready(step(self._arrays, self._held, state))
            return state, self._joined(Samples(*map(_fetched, samples)))

        return advance_all

    def solve(
        self,
        problem: Monodomain,
        blocks: int,
        *,
        unroll: int = 1,
        groups: tuple[int, ...] | None = None,
    ) -> tuple[State, Samples]:
        """The whole beat over the devices, as one differentiable function of `problem`.

        What reverse mode keeps of each step is cut as the heart is. To be called inside `jax.jit`.

        Parameters
        ----------
        problem : Monodomain
            The one that was laid out, with other numbers: parameters, conductivities, stimuli.
        blocks, unroll, groups
            As of `twinheart.tissue.solve`.

        Returns
        -------
        state, samples
            Of the whole problem, as from `twinheart.tissue.solve`.

        Examples
        --------
        See `twinheart.tissue.solve`; ``spread.solve(problem, blocks)`` in its place.
        """
        parts, held = _parts_of(problem, self.partition)
        start = self._moved(initial_state(problem), 0, self.partition.to_parts)
        arrays, _ = eqx.partition(parts, eqx.is_array)
        spread = self._spread(
            lambda part, state: solve(part, blocks, unroll=unroll, groups=groups, start=state),
            start,
        )
        state, samples = spread(arrays, held, start)
        return self._moved(state, 1, self.partition.to_nodes), self._joined(samples)

    def _spread(
        self, run: Callable[[Monodomain, State], tuple[State, Samples]], state: State
    ) -> Callable[..., tuple[State, Samples]]:
        """What each device does, of the parts of a problem: its run, then sums over the heart."""
        states = jax.tree.map(lambda x: _CUT if x.ndim else _WHOLE, state)
        by_part: Any = PartitionSpec(None, AXIS)
        whole: Any = _WHOLE
        specs = Samples(whole, whole, whole, by_part, by_part)

        def on_each(arrays, held, state):
            state, samples = run(eqx.combine(arrays, self._fixed), state)
            return state, samples._replace(
                potentials=jax.lax.psum(samples.potentials, AXIS),
                probes=jax.lax.psum(jnp.where(held, samples.probes, 0), AXIS),
                largest=samples.largest[:, None],
                largest_node=samples.largest_node[:, None],
            )

        return jax.shard_map(
            on_each,
            mesh=self.mesh,
            in_specs=(self._specs, _CUT, states),
            out_specs=(states, specs),
        )

    def _joined(self, samples: Samples) -> Samples:
        """Samples with the largest potential of all parts."""
        part = samples.largest.argmax(axis=1)  # NaN never: it is counted as infinite
        rows = np.arange(len(part))
        place = self.partition.size * part + samples.largest_node[rows, part]
        source = self.partition.source
        source = source if isinstance(place, np.ndarray) else jnp.asarray(source)
        return samples._replace(largest=samples.largest[rows, part], largest_node=source[place])


def _refuse(problem: Monodomain) -> None:
    if not isinstance(problem.scheme, Explicit | Uncoupled):
        raise InputError(
            "several devices: only the explicit schemes run there, since the linear solver of "
            "Crank-Nicolson adds over the whole heart; take scheme 'default'."
        )
    if problem.wave is not None:
        raise InputError(
            "several devices: reaction-eikonal runs on one; its meshes are coarse enough for that."
        )


def _parts_of(problem: Monodomain, cut: Partition) -> tuple[Monodomain, Any]:
    """The problem over all places and which part holds each probe; on the host, if it is there."""
    models = []
    for model, n, (nodes, _) in zip(
        problem.models, problem.model_sizes, cut.of_models(), strict=True
    ):

        def lay(leaf, nodes=nodes, n=n):
            return leaf[nodes] if eqx.is_array(leaf) and leaf.shape == (n,) else leaf

        models.append(jax.tree.map(lay, model))
    array = np if isinstance(problem.probes, np.ndarray) else jnp
    places = array.asarray(cut.place)[problem.probes]
    held = places // cut.size == np.arange(cut.parts)[:, None]
    parts = Monodomain(
        tissue=part_of_tissue(problem.tissue, cut),
        models=tuple(models),
        model_sizes=cut.model_sizes,
        stimuli=tuple(eqx.tree_at(lambda s: s.where, stimulus, "") for stimulus in problem.stimuli),
        stimulus_masks=tuple(cut.to_parts(mask, 0) for mask in problem.stimulus_masks),
        scheme=problem.scheme,
        dt=problem.dt,
        threshold=problem.threshold,
        lead_field=cut.to_parts(problem.lead_field, 0),
        probes=array.where(held, places % cut.size, 0).astype(np.int32).ravel(),
        block=problem.block,
    )
    return parts, held.ravel()


def _specs(parts: Monodomain, n_parts: int) -> Any:
    """How each array of the laid-out problem is cut: along its places, or not at all."""
    sizes = {n_parts * n for n in (*parts.model_sizes, sum(parts.model_sizes))}

    def spec(leaf):
        if leaf.ndim and leaf.shape[-1] in sizes:
            return PartitionSpec(*(None,) * (leaf.ndim - 1), AXIS)
        return _WHOLE

    specs = jax.tree.map(spec, eqx.filter(parts, eqx.is_array))
    cut = jax.tree.map(lambda _: _CUT, (parts.tissue.halo, parts.probes))
    return eqx.tree_at(lambda p: (p.tissue.halo, p.probes), specs, cut)


def _fetched(values: Any) -> np.ndarray:
    """An array on the host, also where other processes hold parts of it."""
    if values.is_fully_addressable or values.is_fully_replicated:
        return np.asarray(values)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(values, tiled=True))
