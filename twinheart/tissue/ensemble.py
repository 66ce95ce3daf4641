"""Ensembles: many monodomain problems on one mesh at once, as many as fit into memory.

What all members have in common, such as the neighbours and weights of the mesh, is stored and read
once; what differs is batched. Small hearts fill a GPU only together.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from twinheart.errors import InputError, SolverError
from twinheart.tissue.build import default_unroll
from twinheart.tissue.memory import (
    Memory,
    bytes_of,
    memory_of,
    problem_bytes,
    state_bytes,
    usable_bytes,
)
from twinheart.tissue.monodomain import Monodomain, Samples, State, advance, initial_state
from twinheart.tissue.run import check_samples, compiler_options, visits

_AXIS = "member"
_CUT, _WHOLE = PartitionSpec(_AXIS), PartitionSpec()
_STATES = 3  # that a run holds, see `twinheart.tissue.memory`


class EnsemblePlan(NamedTuple):
    """How an ensemble runs.

    Attributes
    ----------
    members : int
        Members in all.
    at_once : int
        Members in a batch, over all devices.
    batches : int
        Batches, one after the other.
    devices : int
        Devices, which share each batch.
    shared, each : int
        Bytes that a device holds once, and for each of its members.
    free : int
        Bytes that were free on the first device.
    """

    members: int
    at_once: int
    batches: int
    devices: int
    shared: int
    each: int
    free: int

    def __str__(self) -> str:
        fit = self.devices * int((usable_bytes(self.free) - self.shared) // max(self.each, 1))
        return (
            f"ensemble: {self.members} members of {self.each / 1e6:.1f} MB beside "
            f"{self.shared / 1e6:.1f} MB in common; {fit} fit ({self.free / 1e9:.2f} GB free on "
            f"each of {self.devices} device{'s' * (self.devices > 1)}); {self.batches} "
            f"batch{'es' * (self.batches > 1)} of {self.at_once}"
        )


class Ensemble:
    """Problems that differ in numbers only: parameters, stimuli, weights, initial values.

    Parameters
    ----------
    problems : sequence of Monodomain
        The members; sizes, cell models, number of stimuli and scheme are the same.

    Raises
    ------
    InputError
        If there are none, or they differ in more than numbers.
    """

    def __init__(self, problems: Sequence[Monodomain]):
        if not problems:
            raise InputError("an ensemble needs at least one member.")
        kinds = {kind_of(problem) for problem in problems}
        if len(kinds) > 1:
            raise InputError(
                f"the members of an ensemble are of {len(kinds)} kinds, expected the same sizes, "
                "cell models, number of stimuli and stages; make an ensemble of each kind."
            )
        self.problems = [_without_places(problem) for problem in problems]
        arrays, self._fixed = eqx.partition(self.problems[0], eqx.is_array)
        members = [eqx.filter(problem, eqx.is_array) for problem in self.problems]
        differ = jax.tree.map(lambda *x: any(not _same(x[0], y) for y in x[1:]), *members)
        self._differ = eqx.tree_at(lambda p: p.dt, differ, True)  # members may all be alike
        self._members = [eqx.filter(member, self._differ) for member in members]
        self._shared = eqx.filter(arrays, self._differ, inverse=True)

    def plan(self, *, devices: int = 1, memory: Memory | None = None) -> EnsemblePlan:
        """How many members run at once.

        Parameters
        ----------
        devices : int
            Devices that share each batch.
        memory : Memory, optional
            Default: of the first device.

        Returns
        -------
        EnsemblePlan
            As text it says how many fit.

        Raises
        ------
        InputError
            If there are fewer devices.
        SolverError
            If not even one member fits.
        """
        found = jax.local_devices()
        if not 1 <= devices <= len(found):
            raise InputError(
                f"cannot use {devices} devices: jax sees {len(found)} ({found[0].device_kind})."
            )
        memory = memory_of() if memory is None else memory
        each = bytes_of(self._members[0]) + _STATES * state_bytes(self.problems[0])
        shared = problem_bytes(self.problems[0]) - bytes_of(self._members[0])
        fit = int((usable_bytes(memory.free) - shared) // each)
        if fit < 1:
            raise SolverError(
                f"one member of the ensemble needs {(shared + each) / 1e9:.2f} GB, but "
                f"{memory.free / 1e9:.2f} GB are free on {memory.device}: coarsen the mesh."
            )
        n = len(self.problems)
        batches = math.ceil(n / (fit * devices))
        at_once = devices * math.ceil(n / (batches * devices))  # the same number on each
        return EnsemblePlan(n, at_once, batches, devices, shared, each, memory.free)

    def run(
        self,
        t_end: float,
        *,
        points: np.ndarray,
        plan: EnsemblePlan | None = None,
        progress: Callable[[float, float], None] | None = None,
    ) -> list[tuple[State, Samples]]:
        """Run all members to `t_end`, batch after batch.

        Parameters
        ----------
        t_end : float
            End [ms].
        points : (node, 3) array
            Mesh coordinates [mm], to say where a solution broke down.
        plan : EnsemblePlan, optional
            From `plan`.
        progress : callable, optional
            Called with (t, t_end) [ms], over all batches.

        Returns
        -------
        list of (State, Samples)
            On the host, one a member.

        Raises
        ------
        SolverError
            If a member leaves the physical range.
        """
        plan = self.plan() if plan is None else plan
        total, chunk = visits(self.problems[0], t_end)
        start = jax.jit(self._spread(initial_state, plan))
        shared = _placed(self._shared, plan, _WHOLE)
        program, found = None, []
        for k in range(plan.batches):
            chosen = np.arange(k * plan.at_once, (k + 1) * plan.at_once)
            chosen = np.minimum(chosen, plan.members - 1)  # the last batch repeats the last member
            members = jax.tree.map(lambda *x: np.stack(x), *(self._members[m] for m in chosen))
            members = _placed(members, plan, _CUT)
            state = start(members, shared)
            if program is None:
                program = self._compiled(members, shared, state, chunk, plan)
            samples: list[Samples] = []
            for done in range(chunk, total + 1, chunk):
                state, new = jax.block_until_ready(program(members, shared, state))
                samples.append(Samples(*map(np.asarray, new)))
                for m, member in enumerate(chosen):
                    part = Samples(*(x[m] for x in samples[-1]))
                    check_samples(part, self.problems[member], points, f"member {member}: ")
                if progress is not None:
                    progress(t_end * (k + done / total) / plan.batches, t_end)
            joined = Samples(*(np.concatenate(x, axis=1) for x in zip(*samples, strict=True)))
            host = jax.tree.map(np.asarray, state)
            found += [jax.tree.map(lambda x, m=m: x[m], (host, joined)) for m in range(len(chosen))]
        return found[: plan.members]

    def _compiled(self, members, shared, state, chunk: int, plan: EnsemblePlan):
        def step(problem, state):
            return advance(problem, state, chunk, unroll=default_unroll())

        lowered = jax.jit(self._spread(step, plan)).lower(members, shared, state)
        return lowered.compile(compiler_options=compiler_options())

    def _spread(self, function: Callable, plan: EnsemblePlan) -> Callable[..., Any]:
        """A function of a problem and more, over batches of members, over the devices."""

        def each(member, shared, *more):
            return function(eqx.combine(member, shared, self._fixed), *more)

        def batch(members, shared, *more):
            return jax.vmap(lambda member, *m: each(member, shared, *m))(members, *more)

        if plan.devices == 1:
            return batch

        def over_devices(members, shared, *more):
            specs = (_CUT, _WHOLE, *(_CUT for _ in more))
            spread = jax.shard_map(batch, mesh=_mesh(plan), in_specs=specs, out_specs=_CUT)
            return spread(members, shared, *more)

        return over_devices


def _mesh(plan: EnsemblePlan) -> Mesh:
    return Mesh(np.array(jax.local_devices()[: plan.devices]), (_AXIS,))


def _placed(tree, plan: EnsemblePlan, spec: PartitionSpec):
    """Arrays on the device, or over the devices."""
    if plan.devices == 1:
        return jax.tree.map(jnp.asarray, tree)
    return jax.device_put(tree, NamedSharding(_mesh(plan), spec))


def kind_of(problem: Monodomain) -> tuple:
    """What members of one ensemble have in common: everything but the numbers."""
    arrays, fixed = eqx.partition(_without_places(problem), eqx.is_array)
    leaves, structure = jax.tree.flatten(arrays)
    shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
    return structure, shapes, tuple(jax.tree.leaves(fixed)), jax.tree.structure(fixed)


def _without_places(problem: Monodomain) -> Monodomain:
    """Masks say where stimuli act; the words or nodes they were made from may differ in kind."""
    stimuli = tuple(eqx.tree_at(lambda s: s.where, s, "") for s in problem.stimuli)
    return eqx.tree_at(lambda p: p.stimuli, problem, stimuli)


def _same(one, other) -> bool:
    return one is other or np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True)
