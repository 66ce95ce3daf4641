"""The explicit step of all nodes in one Warp kernel, with its adjoint in another.

Both come from `twinheart.tissue.monodomain.one_step`, traced for a single node: the kernel of a
step from the function itself, that of the adjoint from its vector-Jacobian product. Only the sums
over the neighbours are not elementwise. The kernels add them up for their node; the operator is
symmetric, so its transpose is the same sum, taken by jax.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from twinheart.errors import SolverError
from twinheart.fem import edge_difference_sum
from twinheart.tissue.discrete import Tissue
from twinheart.tissue.fused.kernel import Product, has_warp, run_kernel
from twinheart.tissue.fused.scalar_code import UntranslatableError, scalar_code
from twinheart.tissue.monodomain import Monodomain, State, one_step, stimulation
from twinheart.tissue.scheme import Explicit, Uncoupled
from twinheart.types import NodeField

# What a step changes, and what of it neighbours read: their sums, in this order.
_FIELDS = ("vm", "lost", "i_ion", "cells", "lat")
_GATHERED = ("vm", "i_ion")


def fused_step(problem: Monodomain, state: State) -> State:
    """As `twinheart.tissue.monodomain.one_step`, by a kernel of Warp.

    It has a reverse mode, no forward mode. With a scheme of one stage everything happens in the
    kernel; with others jax forms the change of the voltage, the kernel does the rest.

    Parameters
    ----------
    problem : Monodomain
        What to solve.
    state : State
        At the start of the step.

    Returns
    -------
    State
        At its end, up to rounding that of `one_step`.

    Raises
    ------
    SolverError, UntranslatableError
        If there is no such kernel: see `why_not`.

    Examples
    --------
    >>> from twinheart.tissue import advance
    >>> from twinheart.tissue.fused import fused_step
    >>> def run(problem, state):
    ...     return advance(problem, state, blocks=10, step=fused_step)
    """
    reason = _why_no_node(problem)
    if reason is not None:
        raise SolverError(f"no Warp kernel for this step: {reason}; take the step of jax.")
    node, tissue = _Node(problem), problem.tissue
    weights = (tissue.diffusion, tissue.spread) if node.is_whole else ()
    results: Any = _fused(node, tissue.columns, weights, node.values(problem, state))
    changed = dict(zip(_FIELDS, jax.tree.unflatten(node.results, results), strict=True))
    return state._replace(step=state.step + 1, **changed)


def why_not(problem: Monodomain) -> str | None:
    """Why the step of a problem has no kernel, or None if it can have one.

    Parameters
    ----------
    problem : Monodomain
        What to solve.

    Returns
    -------
    str or None
        The reason.
    """
    reason = _why_no_node(problem)
    if reason is None:
        try:
            _Node(problem).check()
        except UntranslatableError as error:
            reason = str(error).removesuffix(".")
    return reason


def step_text(problem: Monodomain) -> str:
    """The equations of a step of one node, the same for equal kernels."""
    return _Node(problem).text()


def _why_no_node(problem: Monodomain) -> str | None:
    if not has_warp():
        return "the package warp-lang is not installed (pip install warp-lang)"
    if len(problem.models) > 1:
        return f"the heart has {len(problem.models)} cell models, a kernel has one"
    if problem.wave is not None:
        return "reaction-eikonal is not elementwise"
    if problem.tissue.halo is not None:
        return "the heart is spread over devices"
    return None


def _change(problem: Monodomain, state: State) -> NodeField:
    """Change of the voltage over a step by whatever scheme [mV]."""
    dt = problem.dt.astype(state.vm.dtype)
    i_stim = stimulation(problem, state.step)
    return problem.scheme(problem.tissue, state.vm, state.i_ion, i_stim, dt)


class _GatheredTissue(Tissue):
    """One node of a tissue, with its sums over the neighbours in place of the weights."""

    def product(self, weights, v):
        return weights.reshape(v.shape)


class _Given(Uncoupled):
    """Time stepping whose outcome is known."""

    change: Any = None

    def __call__(self, tissue, vm, i_ion, i_stim, dt):
        return self.change


def _inputs(problem: Monodomain, state: Any) -> Any:
    """What the step of a node depends on, without its neighbours."""
    carried = [getattr(state, name) for name in _FIELDS]
    return eqx.filter(_bare(problem), eqx.is_array), problem.tissue.lumped, state.step, carried


def _bare(problem: Monodomain) -> Monodomain:
    """A problem without what is different for a single node."""
    return eqx.tree_at(lambda p: (p.tissue, p.lead_field, p.probes, p.scheme), problem, (None,) * 4)


class _Node:
    """The step of one node as a function of scalars, and the kernels made of it.

    Its arguments are the leaves of `_inputs`, then either the sums over the neighbours or the
    change of the voltage. It holds no arrays: their values are given anew each time.
    """

    def __init__(self, problem: Monodomain):
        n = problem.tissue.n_nodes
        self.is_whole = isinstance(problem.scheme, Explicit) and problem.scheme.stages == 1
        self._scheme = problem.scheme if self.is_whole else None
        self._fixed = eqx.filter(_bare(problem), eqx.is_array, inverse=True)
        every: Any = jax.ShapeDtypeStruct((n,), problem.tissue.lumped.dtype)
        cells = ((every,) * len(problem.models[0].initial),)
        step: Any = jax.ShapeDtypeStruct((), jnp.int32)
        state = State(step, every, every, every, cells, every, every, every, every)
        inputs = _inputs(problem, state)
        leaves, self._structure = jax.tree.flatten(inputs)
        self.results = jax.tree.structure(inputs[-1])
        names = [f"a{k}" for k in range(len(leaves))]
        carried = jax.tree.unflatten(self._structure, names)[-1]
        self._carried = jax.tree.leaves(carried)
        fields = dict(zip(_FIELDS, carried, strict=True))
        self.summed = [names.index(fields[x]) for x in _GATHERED] if self.is_whole else []
        added = [f"sum_{x}" for x in _GATHERED] if self.is_whole else ["change"]
        self.names = [*names, *added]
        self.shapes = [*leaves, *[every] * len(added)]
        _refuse_shapes(self.shapes, n)
        self.is_shared = [x.shape == () for x in self.shapes]
        self.traced = jax.make_jaxpr(self._step)(*self._single(self.shapes))

    def _single(self, values: Sequence[Any]) -> list[jax.ShapeDtypeStruct]:
        """Arrays for one node like those of all."""
        shapes = [x.shape and (1,) for x in values]
        return [jax.ShapeDtypeStruct(s, x.dtype) for s, x in zip(shapes, values, strict=True)]

    def _step(self, *values) -> list[Any]:
        """`one_step` of a tissue that consists of this node."""
        leaves, added = values[: self._structure.num_leaves], values[self._structure.num_leaves :]
        numbers, lumped, step, carried = jax.tree.unflatten(self._structure, leaves)
        sums = added if self.is_whole else (lumped, lumped)
        sums = dict(zip(("diffusion", "spread"), (x[None] for x in sums), strict=True))
        one = np.zeros(1, np.int32)
        tissue = _GatheredTissue(one[None], lumped=lumped, order=one, place=one, **sums)
        problem = dataclasses.replace(
            eqx.combine(numbers, self._fixed),
            tissue=tissue,
            scheme=self._scheme or _Given(*added),
            model_sizes=(1,),
            lead_field=np.zeros((0, 1), np.float32),
            probes=np.zeros(0, np.int32),
        )
        vm, lost, i_ion, cells, lat = carried
        end = one_step(problem, State(step, vm, lost, i_ion, cells, lat, vm, vm, vm))
        return jax.tree.leaves([getattr(end, name) for name in _FIELDS])

    def text(self) -> str:
        """The equations, as jax traced them."""
        return re.sub(r" at 0x[0-9a-f]+", "", str(self.traced.jaxpr))

    def check(self) -> None:
        """Raise an `UntranslatableError` if there is no code."""

        def lines(*values):
            scalar_code(self.traced, self.named(values))

        jax.eval_shape(lines, *self.shapes)

    def values(self, problem: Monodomain, state: State) -> tuple[Any, ...]:
        """Arguments but for the sums over the neighbours."""
        leaves = jax.tree.leaves(_inputs(problem, state))
        return (*leaves, *([] if self.is_whole else [_change(problem, state)]))

    def named(self, values: Sequence[Any]) -> list[Any]:
        """Arguments of the code: names of what differs between nodes, values of the rest."""
        known = dict(zip(self.names, values, strict=False))
        shared = zip(self.names, self.is_shared, strict=True)
        return [known[name] if same else name for name, same in shared]

    def run(self, columns, weights, values) -> list[jax.Array]:
        """The step of all nodes."""
        code = scalar_code(self.traced, self.named(values))
        fields = self.fields(values)
        return run_kernel(
            code, fields, columns, self._products(weights), dict(enumerate(self._carried))
        )

    def run_adjoint(
        self, columns, weights, values, seeds, wanted: Sequence[int]
    ) -> list[jax.Array]:
        """Cotangents, a node, of the `wanted` arguments from those of the results."""

        def pull(*given):
            inputs, seeds = given[: len(self.names)], given[len(self.names) :]

            def step(*chosen):
                changed = dict(zip(wanted, chosen, strict=True))
                return self._step(*(changed.get(k, x) for k, x in enumerate(inputs)))

            return jax.vjp(step, *(inputs[k] for k in wanted))[1](list(seeds))

        traced = jax.make_jaxpr(pull)(*self._single([*self.shapes, *seeds]))
        names = [f"d_{name}" for name in self._carried]
        code = scalar_code(traced, [*self.named(values), *names])
        fields = self.fields(values) | dict(zip(names, seeds, strict=True))
        owners = {m: f"d_{self.names[k]}" for m, k in enumerate(wanted)}
        in_place = {m: name for m, name in owners.items() if name in fields}
        return run_kernel(code, fields, columns, self._products(weights), in_place)

    def fields(self, values) -> dict[str, jax.Array]:
        """Arguments of the code that have a value at each node."""
        named = zip(self.names, values, self.is_shared, strict=False)
        return {name: value for name, value, same in named if not same}

    def _products(self, weights) -> dict[str, Product]:
        sums = zip(self.names[-2:], weights, self.summed, strict=True) if weights else ()
        return {name: Product(w, self.names[k]) for name, w, k in sums}


def _refuse_shapes(shapes: Sequence[Any], n: int) -> None:
    """Only single precision, and one value for all nodes or for each."""
    for x in shapes:
        if x.dtype.name not in ("float32", "int32") or x.shape not in ((), (n,)):
            raise UntranslatableError(f"a kernel has no use for {x.dtype.name}{list(x.shape)}.")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fused(node: _Node, columns, weights, values) -> list[jax.Array]:
    return node.run(columns, weights, values)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Wanted:
    """Places of the arguments that are being differentiated."""

    places: tuple[int, ...]


def _fused_fwd(node: _Node, columns, weights, values):
    is_differentiated = [x.perturbed and x.value.dtype == jnp.float32 for x in values]
    for weight, k in zip(weights, node.summed, strict=True):
        is_differentiated.append(weight.perturbed or is_differentiated[k])
    wanted = _Wanted(tuple(np.flatnonzero(is_differentiated).tolist()))
    given = (columns.value, tuple(w.value for w in weights), tuple(x.value for x in values))
    return node.run(*given), (given, wanted)


def _fused_bwd(node: _Node, residuals, seeds):
    (columns, weights, values), wanted = residuals
    every = jnp.zeros(columns.shape[1], jnp.float32)
    seeds = [every if isinstance(x, SymbolicZero) else x for x in seeds]
    found = node.run_adjoint(columns, weights, values, seeds, wanted.places)
    gradient: list[Any] = [None] * len(node.names)
    for k, x in zip(wanted.places, found, strict=True):
        gradient[k] = x.sum() if node.is_shared[k] else x
    of_weights: list[Any] = [None] * len(weights)
    for m, (weight, k) in enumerate(zip(weights, node.summed, strict=True)):
        seed = gradient[len(values) + m]
        if seed is not None:
            product = functools.partial(_product, columns)
            of_weights[m], of_field = jax.vjp(product, weight, values[k])[1](seed)
            gradient[k] = of_field if gradient[k] is None else gradient[k] + of_field
    return None, tuple(of_weights), tuple(gradient[: len(values)])


def _product(columns, weights, v):
    return edge_difference_sum(weights, columns, v)


_fused.defvjp(_fused_fwd, _fused_bwd, symbolic_zeros=True)
