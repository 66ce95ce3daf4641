"""Running a monodomain problem from the host: snapshots, checkpoints, progress, breakdown."""

import contextlib
import hashlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np

from twinheart.errors import InputError, OutputError, SolverError
from twinheart.mesh.io.hdf5 import hdf5_output
from twinheart.tissue.build import Built, default_unroll
from twinheart.tissue.fused import chosen_step
from twinheart.tissue.memory import check_fits
from twinheart.tissue.monodomain import Monodomain, Samples, State, Step, advance, initial_state
from twinheart.tissue.sharded import Sharded
from twinheart.types import Array

_LIMIT_MV = 500.0  # no action potential comes near: beyond it the solution has broken down
_CHUNK_MS = 5.0  # simulated time between two visits of the host
_CHECKPOINT_S = 60.0  # wall time between two checkpoints


class Run(NamedTuple):
    """What a run leaves: final state, samples over time, timings [s]."""

    state: State
    samples: Samples
    compile_s: float
    wall_s: float
    steps: int


class VmFile:
    """V_m snapshots in HDF5, one row a time, never more than one in memory.

    Datasets `t` (time,) [ms] and `vm` (time, node) [mV] in mesh order. Written under a temporary
    name and renamed by `finish`.
    """

    def __init__(self, path: str | Path, n_nodes: int, *, resume_at: float | None = None):
        self.path = Path(path)
        self.partial = self.path.with_name(self.path.name + ".partial")
        self._open = contextlib.ExitStack()
        mode = "w" if resume_at is None else "r+"
        self.file, self._disk = self._open.enter_context(hdf5_output(self.partial, mode))
        if resume_at is None:
            self.file.create_dataset("t", (0,), "f8", maxshape=(None,))
            self.file.create_dataset(
                "vm", (0, n_nodes), "f4", maxshape=(None, n_nodes), chunks=(1, n_nodes)
            )
            self.file["t"].attrs["unit"], self.file["vm"].attrs["unit"] = "ms", "mV"
        else:
            kept = int((self.file["t"][:] <= resume_at + 1e-6).sum())
            self.file["t"].resize(kept, axis=0)
            self.file["vm"].resize(kept, axis=0)

    def append(self, t: float, vm: np.ndarray) -> None:
        """Add one snapshot; on failure the partial file is removed."""
        try:
            with _later():
                rows = len(self.file["t"])
                self.file["t"].resize(rows + 1, axis=0)
                self.file["vm"].resize(rows + 1, axis=0)
                self.file["t"][rows], self.file["vm"][rows] = t, vm
                self.file.flush()
            self._disk.check()
        except OSError as error:
            self.discard()
            raise _unwritable(self.path, error) from None

    def finish(self) -> None:
        """Close the file and give it its name."""
        self.close()
        os.replace(self.partial, self.path)

    def close(self) -> None:
        """Close the file under its temporary name, for a later resume."""
        self._open.close()

    def discard(self) -> None:
        """Close and remove the partial file."""
        with contextlib.suppress(OutputError):  # the disk is as full as it was
            self.close()
        self.partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _later():
    """Put signals off to the end of the block: what they raise inside HDF5 would be lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(kind, lambda number, _: caught.append(number)) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)
    for number in caught:
        signal.raise_signal(number)


def _unwritable(path: Path, error: OSError | OutputError) -> OutputError:
    if isinstance(error, OutputError):
        return error
    reason = error.strerror or str(error).splitlines()[0]
    return OutputError(f"{path}: cannot write: {reason}; free space or choose another folder.")


def fingerprint(problem: Monodomain) -> str:
    """Hash of everything a run depends on: a checkpoint fits one problem only."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(problem):
        if eqx.is_array(leaf):
            digest.update(np.asarray(leaf).tobytes())
    digest.update(f"{problem.block} {problem.model_sizes} {problem.scheme}".encode())
    return digest.hexdigest()


def save_checkpoint(path: Path, problem: Monodomain, state: State, samples: list[Samples]) -> None:
    """Write state and samples atomically, bit for bit.

    Raises
    ------
    OutputError
        If the file cannot be written; an older checkpoint stays untouched.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with hdf5_output(partial) as (file, _):
            file.attrs["fingerprint"] = fingerprint(problem)
            for k, leaf in enumerate(jax.tree.leaves(state)):
                file[f"state/{k}"] = np.asarray(leaf)
            for name, values in _joined(samples)._asdict().items():
                file[f"samples/{name}"] = values
        os.replace(partial, path)
    except (OSError, OutputError) as error:
        partial.unlink(missing_ok=True)
        raise _unwritable(path, error) from None


def load_checkpoint(path: Path, problem: Monodomain) -> tuple[State, list[Samples]]:
    """Read a checkpoint of this very problem.

    Raises
    ------
    InputError
        If there is none, or it belongs to another problem.
    """
    import h5py

    if not path.exists():
        raise InputError(f"{path}: no checkpoint to resume from; start without resume.")
    template, structure = jax.tree.flatten(initial_state(problem))
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("fingerprint") != fingerprint(problem):
                raise InputError(
                    f"{path}: this checkpoint belongs to another heart, model or setting; resume "
                    "with the same case, or start anew."
                )
            leaves = [np.asarray(file[f"state/{k}"]) for k in range(len(template))]
            samples = Samples(*(np.asarray(file[f"samples/{name}"]) for name in Samples._fields))
    except (OSError, KeyError) as error:
        raise InputError(f"{path}: not a readable checkpoint ({error}); start anew.") from None
    leaves = [jax.numpy.asarray(new, old.dtype) for new, old in zip(leaves, template, strict=True)]
    return jax.tree.unflatten(structure, leaves), [samples] if len(samples.t) else []


def _joined(samples: list[Samples]) -> Samples:
    if not samples:
        return Samples(*(np.zeros(0) for _ in Samples._fields))
    return Samples(*(np.concatenate(parts) for parts in zip(*samples, strict=True)))


def run(
    built: Built,
    t_end: float,
    *,
    points: np.ndarray,
    snapshots: str | Path | None = None,
    snapshot_every: float = 5.0,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[float, float], None] | None = None,
    stop: Callable[[State], bool] | None = None,
    devices: int | None = None,
) -> Run:
    """Run a problem to `t_end`, visiting the host every few milliseconds.

    Parameters
    ----------
    built : Built
        From `build_monodomain`.
    t_end : float
        End [ms].
    points : (node, 3) array
        Mesh coordinates [mm], to say where a solution broke down.
    snapshots, snapshot_every
        HDF5 file of V_m snapshots (see `VmFile`) and their interval [ms].
    checkpoint : path, optional
        Written about every minute and on interruption; removed by nobody.
    resume : bool
        Go on from `checkpoint`: the result is the same, bit for bit.
    progress : callable, optional
        Called with (t, t_end) [ms].
    stop : callable, optional
        Given the state, tells whether to end before `t_end`.
    devices : int, optional
        Spread the heart over as many devices (see `twinheart.tissue.sharded`), of all processes
        where `jax.distributed` joined several; these write no files.

    Returns
    -------
    Run
        Final state and samples.

    Raises
    ------
    SolverError
        If the potential leaves the physical range: time, node and likely cause.
    KeyboardInterrupt
        After the checkpoint has been written.
    """
    problem = built.problem
    block_ms = problem.block * float(problem.dt)
    every = max(1, round(snapshot_every / block_ms))
    total, chunk = visits(problem, t_end, every if snapshots else None)
    _refuse_files(snapshots, checkpoint)
    check_fits(problem, devices or 1)
    engine = (
        _OneDevice(problem, chosen_step(problem)) if devices is None else Sharded(problem, devices)
    )
    state, samples = initial_state(problem), []
    if resume:
        if checkpoint is None:
            raise InputError("resume needs the path of a checkpoint.")
        state, samples = load_checkpoint(Path(checkpoint), problem)
    done = int(state.step) // problem.block
    vm_file = None
    if snapshots is not None:
        at = done * block_ms if resume else None
        vm_file = VmFile(snapshots, problem.tissue.n_mesh_nodes, resume_at=at)
        if not resume:
            vm_file.append(0.0, problem.tissue.to_mesh_order(state.vm))
    start = time.perf_counter()
    state = engine.scatter(state)
    program = engine.program(state, chunk, unroll=default_unroll(), options=compiler_options())
    compile_s = time.perf_counter() - start
    start = saved = time.perf_counter()
    first = done
    try:
        while done < total:
            state, new = program(state)
            check_samples(new, problem, points)
            samples.append(new)
            done += chunk
            if vm_file is not None and done % every == 0:
                vm = problem.tissue.to_mesh_order(engine.gather_field(state.vm))
                vm_file.append(done * block_ms, vm)
            if progress is not None:
                progress(min(done * block_ms, t_end), t_end)
            if stop is not None and stop(engine.gather(state)):
                break
            if checkpoint is not None and time.perf_counter() - saved > _CHECKPOINT_S:
                save_checkpoint(Path(checkpoint), problem, engine.gather(state), samples)
                saved = time.perf_counter()
    except KeyboardInterrupt:
        if checkpoint is not None:
            save_checkpoint(Path(checkpoint), problem, engine.gather(state), samples)
        if vm_file is not None:
            vm_file.close() if checkpoint is not None else vm_file.discard()
        raise
    except BaseException:
        if vm_file is not None:
            vm_file.discard()
        raise
    wall_s = time.perf_counter() - start
    if vm_file is not None:
        vm_file.finish()
    steps = (done - first) * problem.block
    return Run(engine.gather(state), _joined(samples), compile_s, wall_s, steps)


def visits(problem: Monodomain, t_end: float, wanted: int | None = None) -> tuple[int, int]:
    """Blocks to `t_end` [ms], and between two visits of the host: these divide those and `wanted`.

    So one program serves all.
    """
    block_ms = problem.block * float(problem.dt)
    total = math.ceil(t_end / block_ms * (1 - 1e-6))  # dt may be a rounded float32
    wanted = max(1, round(_CHUNK_MS / block_ms)) if wanted is None else wanted
    largest = max(1, min(wanted, total))
    chunk = next(n for n in range(largest, 0, -1) if total % n == 0 and wanted % n == 0)
    return total, chunk


class _OneDevice:
    """The time loop where everything is in one place, with the methods of `Sharded`."""

    def __init__(self, problem: Monodomain, step: Step):
        self.problem = problem
        self.step = step

    def scatter(self, state: State) -> State:
        return state

    def gather(self, state: State) -> State:
        return state

    def gather_field(self, values: Array) -> Array:
        return values

    def program(self, state: State, blocks: int, *, unroll: int, options: dict[str, str | bool]):
        arrays, fixed = eqx.partition(self.problem, eqx.is_array)

        def one_chunk(arrays, state):
            problem = eqx.combine(arrays, fixed)
            return advance(problem, state, blocks, unroll=unroll, step=self.step)

        program = jax.jit(one_chunk).lower(arrays, state).compile(compiler_options=options)

        def advance_all(state):
            state, samples = jax.block_until_ready(program(arrays, state))
            return state, Samples(*map(np.asarray, samples))

        return advance_all


def _refuse_files(snapshots, checkpoint) -> None:
    """Several processes would write the same file, each at times of its own."""
    if jax.process_count() > 1 and (snapshots is not None or checkpoint is not None):
        raise InputError(
            f"snapshots and checkpoints need a single process, got {jax.process_count()}; leave "
            "them out, or run on the devices of one node."
        )


def compiler_options() -> dict[str, str | bool]:
    """Options of XLA with which the time loop is compiled here; for those who compile their own."""
    # Wide vectors save 10 to 15 % on processors that have them; others split them again.
    return {"xla_cpu_prefer_vector_width": "512"} if jax.default_backend() == "cpu" else {}


def check_samples(samples: Samples, problem: Monodomain, points: np.ndarray, who: str = "") -> None:
    """Refuse a solution that has broken down: `who`, time, node and likely cause."""
    bad = np.flatnonzero(~(samples.largest < _LIMIT_MV))
    if not bad.size:
        return
    node = int(np.asarray(problem.tissue.order)[samples.largest_node[bad[0]]])
    place = ", ".join(f"{x:.1f}" for x in points[node])
    raise SolverError(
        f"{who}V_m left the physical range at t = {samples.t[bad[0]]:.2f} ms, node {node} at "
        f"({place}) mm, with dt = {float(problem.dt):g} ms: likely too large a time step for the "
        "cell model, or too strong or negative a stimulus there; lower dt or check the stimulus."
    )
