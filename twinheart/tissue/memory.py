r"""What runs and gradients need of a device's memory, told before they start.

A run holds its problem (weights, neighbours, lead field, per-node parameters) and three copies of
its state: the first, the last and the one that is computed. Reverse mode holds states on top: with
:math:`l_1, l_2, \ldots` groups nested in each other, and m steps in the innermost, all the states
kept at once are :math:`l_1 + l_2 + \ldots + m`, and each level computes every step once more
(Griewank & Walther 2000, doi:10.1145/347837.347846, in its simplest form). What changes once a
block only is not kept for each step.
"""

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from twinheart.errors import SolverError
from twinheart.tissue.monodomain import Monodomain, initial_state

_USABLE = 0.9  # of what is free: allocators cannot fill everything
_RUN_STATES = 3
# Beside the kept states: what one step leaves for its own way back, and the derivative of the
# problem. Both as XLA's own reports on TT06 show; see `tests/test_memory.py`.
_REVERSE_STATES, _REVERSE_PROBLEMS = 8, 2


class Memory(NamedTuple):
    """Memory of a device, in bytes.

    Attributes
    ----------
    free : int
        What a program can still take.
    total : int
        What the device has, as far as jax may use it.
    device : str
        Its name.
    taken_by_others : int
        What other processes hold of it, where that is known.
    """

    free: int
    total: int
    device: str
    taken_by_others: int = 0


def memory_of(device: Any = None) -> Memory:
    """Memory of a device: what jax's allocator says, or the machine's for a CPU.

    Parameters
    ----------
    device : jax.Device, optional
        Default: the first of this process.

    Returns
    -------
    Memory
        Free and total.

    Examples
    --------
    >>> from twinheart.tissue.memory import memory_of
    >>> memory = memory_of()
    >>> 0 < memory.free <= memory.total
    True
    """
    device = jax.local_devices()[0] if device is None else device
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return allocator_memory(stats, device.device_kind)
    return _host_memory(device.device_kind)


def allocator_memory(stats: dict[str, int], device: str) -> Memory:
    """Memory of a GPU from the statistics of jax's allocator.

    Parameters
    ----------
    stats : dict
        ``bytes_limit``, ``bytes_in_use`` and, where the allocator took its share at once,
        ``pool_bytes``: less than the limit if another process held some of the rest.
    device : str
        Its name.

    Returns
    -------
    Memory
        Free and total.
    """
    limit, used = int(stats["bytes_limit"]), int(stats["bytes_in_use"])
    pool = int(stats.get("pool_bytes") or 0)
    at_once = os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", "true").lower() != "false"
    reachable = pool if at_once and pool else limit
    return Memory(max(reachable - used, 0), limit, device, limit - min(reachable, limit))


def _host_memory(device: str) -> Memory:
    """Memory of this machine, or of the control group that the process lives in."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = free = page * os.sysconf("SC_PHYS_PAGES")
    info = Path("/proc/meminfo")
    if info.exists():
        words = dict(line.split(":") for line in info.read_text().splitlines())
        free = 1024 * int(words["MemAvailable"].split()[0])
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        kinds = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        free = min(free, limit - used + int(kinds["file"]))  # cached files give way
        total = min(total, limit)
    except (OSError, ValueError, KeyError):  # no group, or no limit ("max")
        pass
    return Memory(max(free, 0), total, device)


def bytes_of(tree) -> int:
    """Bytes of the arrays in a PyTree, or of those that it describes."""
    leaves = jax.tree.leaves(eqx.filter(tree, lambda x: hasattr(x, "dtype")))
    return sum(int(x.size) * np.dtype(x.dtype).itemsize for x in leaves)


def state_bytes(problem: Monodomain) -> int:
    """Bytes of one state of a problem."""
    return bytes_of(eqx.filter_eval_shape(initial_state, problem))


def problem_bytes(problem: Monodomain) -> int:
    """Bytes of what a run only reads."""
    host = (problem.tissue.order, problem.tissue.place)
    return bytes_of(problem) - bytes_of(host)


def run_bytes(problem: Monodomain) -> int:
    """Bytes that the time loop of a problem takes on its device."""
    return problem_bytes(problem) + _RUN_STATES * state_bytes(problem)


def usable_bytes(free: int) -> float:
    """What of the free memory a program may be planned for."""
    return _USABLE * free


def check_fits(problem: Monodomain, devices: int = 1, memory: Memory | None = None) -> None:
    """Refuse a run that its device cannot hold.

    Parameters
    ----------
    problem : Monodomain
        What is to run.
    devices : int
        Devices it is spread over.
    memory : Memory
        Default: of the first device.

    Raises
    ------
    SolverError
        If it does not fit: what would.
    """
    memory = memory_of() if memory is None else memory
    needed, usable = run_bytes(problem) / devices, usable_bytes(memory.free)
    if needed <= usable:
        return
    nodes = int(problem.tissue.n_nodes * usable / needed)
    raise SolverError(
        f"the time loop of {problem.tissue.n_nodes} nodes needs {needed / 1e9:.2f} GB on each of "
        f"{devices} device{'s' * (devices > 1)}, but {_told(memory)}: about {nodes} nodes of this "
        "model fit. Coarsen the mesh"
        + ("" if _is_cpu(memory) else ", take more devices")
        + (", or end the other process." if memory.taken_by_others else ".")
    )


def _is_cpu(memory: Memory) -> bool:
    return memory.device.lower() == "cpu"


def _told(memory: Memory) -> str:
    others = memory.taken_by_others
    return f"{memory.free / 1e9:.2f} of {memory.total / 1e9:.2f} GB are free on {memory.device}" + (
        f" ({others / 1e9:.2f} GB are held by another process)" if others else ""
    )


class CheckpointPlan(NamedTuple):
    """Which states reverse mode keeps.

    Attributes
    ----------
    groups : tuple of int
        Groups of each level, outermost first; empty keeps every state.
    inner : int
        Blocks in an innermost group.
    states : int
        States kept at once.
    bytes : int
        Memory of the gradient, problem included.
    evaluations : int
        How often each step is computed.
    note : str
        What it was chosen from.
    """

    groups: tuple[int, ...]
    inner: int
    states: int
    bytes: int
    evaluations: int
    note: str

    def __str__(self) -> str:
        levels = " x ".join(map(str, (*self.groups, self.inner)))
        return (
            f"reverse mode: {levels} blocks, {self.states} states kept, {self.bytes / 1e9:.2f} GB, "
            f"each step computed {self.evaluations} times; {self.note}"
        )


def checkpoint_plan(
    problem: Monodomain, blocks: int, *, memory: Memory | None = None
) -> CheckpointPlan:
    """Choose which states reverse mode keeps: the fewest levels that fit into memory.

    Parameters
    ----------
    problem : Monodomain
        What is differentiated.
    blocks : int
        Blocks of steps, see `twinheart.tissue.solve`.
    memory : Memory, optional
        Default: of the first device.

    Returns
    -------
    CheckpointPlan
        Its `groups` are for `twinheart.tissue.solve`; as text it says what was chosen and why.

    Raises
    ------
    SolverError
        If even the most sparing plan does not fit: what would.

    Examples
    --------
    >>> import numpy as np, twinheart as th
    >>> from twinheart.tissue import build_monodomain, checkpoint_plan
    >>> mesh = th.mesh.generate.slab((4.0, 2.0, 2.0), 1.0)
    >>> heart = th.Heart(mesh, f0=np.tile([1.0, 0.0, 0.0], (mesh.n_tets, 1)))
    >>> cell = th.cell.get_model("mitchell-schaeffer")
    >>> tissue = th.Conductivities(0.3, 0.1, 0.6, 0.4)
    >>> built = build_monodomain(
    ...     heart, cell, tissue, [th.pace("box:0,0,0,1,2,2")], smoothing=0.5, may_block=True
    ... )
    >>> plan = checkpoint_plan(built.problem, 200)
    >>> plan.groups, plan.states, plan.evaluations
    ((50,), 150, 3)
    """
    memory = memory_of() if memory is None else memory
    plans = [
        plan_of(problem, groups, blocks, memory) for groups in _candidates(blocks, problem.block)
    ]
    fitting = [plan for plan in plans if plan.bytes <= usable_bytes(memory.free)]
    if fitting:
        return min(fitting, key=lambda plan: (plan.evaluations, plan.bytes))
    least = min(plans, key=lambda plan: plan.bytes)
    nodes = int(problem.tissue.n_nodes * usable_bytes(memory.free) / least.bytes)
    raise SolverError(
        f"the gradient over {blocks * problem.block} steps of {problem.tissue.n_nodes} nodes needs "
        f"{least.bytes / 1e9:.2f} GB with the fewest states kept, but {_told(memory)}: about "
        f"{nodes} nodes fit. Coarsen the mesh, or differentiate in forward mode (jax.jvp), which "
        "keeps no states."
    )


def plan_of(
    problem: Monodomain, groups: tuple[int, ...], blocks: int, memory: Memory
) -> CheckpointPlan:
    """What these groups keep.

    Parameters
    ----------
    problem : Monodomain
        What is differentiated.
    groups : tuple of int
        Groups of each level.
    blocks : int
        Blocks of steps.
    memory : Memory
        For the note.

    Returns
    -------
    CheckpointPlan
        With its memory.
    """
    state, own = eqx.filter_eval_shape(initial_state, problem), problem_bytes(problem)
    slow = bytes_of((state.repol, state.peak, state.rest))
    inner = blocks // math.prod(groups)
    steps = inner * problem.block
    needed = (
        (1 + _REVERSE_PROBLEMS) * own
        + (_REVERSE_STATES + sum(groups) + steps) * bytes_of(state)
        - (steps - inner) * slow
    )
    note = f"{_told(memory)}."
    return CheckpointPlan(groups, inner, sum(groups) + steps, needed, 2 + len(groups), note)


def _candidates(blocks: int, block: int) -> list[tuple[int, ...]]:
    """Groups of one and of two levels, of each those that keep the least.

    Keeping every state computes less and is slower all the same: writing and reading 1,000 states
    of 6,400 nodes took half as long again as computing each step once more (TT06, CPU).
    """
    divisors = [n for n in range(1, blocks + 1) if blocks % n == 0]

    def states(groups):
        return sum(groups) + blocks // math.prod(groups) * block

    one = [(n,) for n in divisors]
    two = [(m, n) for m in divisors for n in divisors if m > 1 < n and blocks % (m * n) == 0]
    return [min(one, key=states), *([min(two, key=states)] if two else [])]
