"""Which step a run takes: that of jax, or the kernel of Warp where it has shown to be faster."""

import functools
import hashlib
import math
import os
import sys
import time
from importlib.metadata import version
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from twinheart import __version__
from twinheart.cell.paced_cache import cache_folder, kept
from twinheart.errors import InputError
from twinheart.tissue.build import default_unroll
from twinheart.tissue.fused.step import fused_step, step_text, why_not
from twinheart.tissue.monodomain import Monodomain, Step, advance, initial_state, one_step

SETTINGS = ("auto", "on", "off")

# The check: a few milliseconds from voltages all over their range, each way a few times.
_STEPS = 100
_TIMES = 3
_RISE = 110.0  # mV above rest, of the last node
_FASTER = 0.95  # of the time of jax: less is not worth another program
# Rounding makes 1e-5 mV of difference on a CPU, half the time step 1 mV.
VM_TOLERANCE = 0.01  # mV
CELL_TOLERANCE = 1e-4  # of the largest value of a state variable


class Verdict(NamedTuple):
    """What the check found.

    Attributes
    ----------
    jax_us, warp_us : float
        Time of a step [us].
    vm_difference : float
        Largest difference of the voltage at the end [mV].
    cell_difference : float
        Largest difference of a state variable, relative to its largest value.
    """

    jax_us: float
    warp_us: float
    vm_difference: float
    cell_difference: float

    @property
    def agrees(self) -> bool:
        """Whether both give the same, within the tolerances."""
        return self.vm_difference <= VM_TOLERANCE and self.cell_difference <= CELL_TOLERANCE

    @property
    def takes_warp(self) -> bool:
        """Whether the kernel is right and worth it."""
        return self.agrees and self.warp_us < _FASTER * self.jax_us

    def __str__(self):
        """As a line for the user."""
        taken = "the Warp kernel" if self.takes_warp else "the step of jax"
        against = f"Warp {self.warp_us:.0f} us a step, jax {self.jax_us:.0f} us"
        equal = "equal" if self.agrees else "NOT equal"
        return (
            f"time loop: {taken} ({against}; voltages {equal} within {self.vm_difference:.1g} mV; "
            "TWINHEART_WARP=on or off decides otherwise)"
        )


def chosen_step(problem: Monodomain, setting: str | None = None) -> Step:
    """What makes the steps of a run on the present device.

    Parameters
    ----------
    problem : Monodomain
        What will run.
    setting : str, optional
        ``"auto"``: on a GPU whichever a check finds faster, if both agree; it takes seconds, its
        verdict is printed and kept for this device, model and size. ``"on"``, ``"off"``: with or
        without Warp. Default: `$TWINHEART_WARP`, else auto.

    Returns
    -------
    callable
        `one_step` of jax, or `fused_step`.

    Raises
    ------
    InputError
        If the setting is unknown, or there is no kernel although it is on.

    Examples
    --------
    >>> from twinheart.tissue import advance
    >>> from twinheart.tissue.fused import chosen_step
    >>> def run(problem, state):
    ...     return advance(problem, state, blocks=10, step=chosen_step(problem))
    """
    setting = os.environ.get("TWINHEART_WARP", "auto") if setting is None else setting
    if setting not in SETTINGS:
        raise InputError(f"TWINHEART_WARP is '{setting}', expected auto, on or off.")
    if setting == "off" or (setting == "auto" and jax.default_backend() != "gpu"):
        return one_step
    reason = why_not(problem)
    if setting == "on":
        if reason is not None:
            raise InputError(f"TWINHEART_WARP is on, but there is no kernel: {reason}.")
        return fused_step
    if reason is not None:
        return one_step
    verdict = _verdict(problem)
    _tell(str(verdict))
    return fused_step if not isinstance(verdict, str) and verdict.takes_warp else one_step


def _verdict(problem: Monodomain) -> Verdict | str:
    """Of an earlier check like this one, else of a new one; or why it failed."""
    path = cache_folder() / "warp" / f"{_key(problem)}.npz"
    blank = {name: np.zeros(()) for name in Verdict._fields}

    def measure() -> dict[str, np.ndarray]:
        return {name: np.asarray(x) for name, x in compare(problem)._asdict().items()}

    try:
        found = kept(path, blank, measure, "the speed of the Warp kernel")
    except Exception as error:  # whatever a foreign compiler may raise: jax's step needs none
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return f"time loop: the step of jax (the Warp kernel failed: {first})"
    return Verdict(**{name: float(x) for name, x in found.items()})


def _key(problem: Monodomain) -> str:
    """Hash of what a verdict depends on; of the size, its power of two."""
    tissue = problem.tissue
    size = round(math.log2(tissue.n_nodes))
    versions = (__version__, jax.__version__, version("warp-lang"))
    device = jax.devices()[0].device_kind
    parts = (device, versions, size, len(tissue.columns), problem.scheme, step_text(problem))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def compare(problem: Monodomain) -> Verdict:
    """Run a problem for a moment both ways, from voltages all over their range.

    Parameters
    ----------
    problem : Monodomain
        What will run.

    Returns
    -------
    Verdict
        Times and differences.
    """
    state = initial_state(problem)
    rise = jnp.linspace(0.0, _RISE, problem.tissue.n_nodes, dtype=state.vm.dtype)
    state = state._replace(vm=state.vm + rise)
    blocks = max(1, _STEPS // problem.block)
    arrays, fixed = eqx.partition(problem, eqx.is_array)
    ends, us = [], []
    for step in (one_step, fused_step):
        program = jax.jit(functools.partial(_run, fixed=fixed, blocks=blocks, step=step))
        end = jax.block_until_ready(program(arrays, state))
        walls = []
        for _ in range(_TIMES):
            start = time.perf_counter()
            jax.block_until_ready(program(arrays, state))
            walls.append(time.perf_counter() - start)
        ends.append((np.asarray(end.vm), [np.asarray(x) for x in jax.tree.leaves(end.cells)]))
        us.append(1e6 * min(walls) / (blocks * problem.block))
    (vm, cells), (other_vm, other_cells) = ends
    shares = [
        _difference(a, b) / max(float(np.abs(a).max()), np.finfo(a.dtype).tiny)
        for a, b in zip(cells, other_cells, strict=True)
    ]
    return Verdict(us[0], us[1], _difference(vm, other_vm), max(shares, default=0.0))


def _run(arrays, state, *, fixed, blocks, step):
    problem = eqx.combine(arrays, fixed)
    return advance(problem, state, blocks, unroll=default_unroll(), step=step)[0]


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference, infinite where either has broken down."""
    return float(np.max(np.nan_to_num(np.abs(a - b), nan=np.inf)))


@functools.cache
def _tell(line: str) -> None:
    """Say it once."""
    print(line, file=sys.stderr)
