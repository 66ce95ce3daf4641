"""Warp kernels from scalar code: one thread a node, called from jax.

Warp is imported here only, when a kernel is built.
"""

import functools
import hashlib
import importlib.util
import linecache
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from twinheart.tissue.fused.scalar_code import Code
from twinheart.types import Array

# Functions that Warp lacks, exact near zero (Higham, Accuracy and Stability, 2002, 1.14.1).
_HELPERS = """
@wp.func
def expm1(x: wp.float32) -> wp.float32:
    u = wp.exp(x)
    if u == 1.0:
        return x
    if u < 1.0e-7 or u > 1.0e7:
        return u - 1.0
    return (u - 1.0) * x / wp.log(u)

@wp.func
def log1p(x: wp.float32) -> wp.float32:
    u = 1.0 + x
    if u == 1.0:
        return x
    return wp.log(u) * x / (u - 1.0)
"""


def has_warp() -> bool:
    """Whether the package `warp-lang` is installed."""
    return importlib.util.find_spec("warp") is not None


class Product(NamedTuple):
    """Argument of a code: sum over the neighbours, weights times difference of a field to it."""

    weights: Float[Array, "slot node"]
    field: str


def run_kernel(
    code: Code,
    fields: Mapping[str, Float[Array, "node"]],
    columns: Int[Array, "slot node"],
    products: Mapping[str, Product],
    in_place: Mapping[int, str],
) -> list[jax.Array]:
    """Do what a code says for every node.

    Parameters
    ----------
    code : Code
        What is done for a node.
    fields : mapping of str to (node,) array
        Arguments of the code with a value at each node.
    columns : (slot, node) int array
        Neighbours.
    products : mapping of str to Product
        Its other arguments.
    in_place : mapping of int to str
        Results that take the memory of a field where jax can spare it.

    Returns
    -------
    list of (node,) array
        The results.
    """
    products = {name: p for name, p in products.items() if name in code.used}
    gathered = {p.field for p in products.values()}
    names = [name for name in fields if name in code.used | gathered]
    # Not what neighbours read while it is written.
    place = {m: x for m, x in in_place.items() if x in names and x not in gathered}
    kinds = {name: str(x.dtype) for name, x in code.shared.items()}
    shared = [jnp.reshape(x, ()) for x in code.shared.values()]
    inputs = [columns, *(p.weights for p in products.values())] if products else []
    for chosen in _by_kind(kinds):
        inputs.append(jnp.stack([shared[k].astype(chosen.dtype) for k in chosen.places]))
    inputs += [fields[name] for name in names]
    layout = {name: p.field for name, p in products.items()}
    source = _source(code, kinds, layout, names, place)
    # What shares its memory comes first among the results, in the order of the inputs.
    order = sorted(place, key=lambda m: names.index(place[m]))
    shared_names = tuple(f"x_{place[m]}" for m in order)
    order += [m for m in range(len(code.results)) if m not in place]
    call = _loaded(source, shared_names, len(order), jax.default_backend() == "gpu")
    n = columns.shape[1]
    found = dict(zip(order, call(*inputs, launch_dims=n, output_dims=n), strict=True))
    return [found[m] for m in range(len(order))]


class _Packed(NamedTuple):
    """Shared numbers of one type, which a kernel gets in one array."""

    name: str
    dtype: str
    places: list[int]


def _by_kind(kinds: Mapping[str, str]) -> list[_Packed]:
    order = list(kinds.values())
    floats = [k for k, kind in enumerate(order) if kind == "float32"]
    others = [k for k, kind in enumerate(order) if kind != "float32"]
    packed = [_Packed("numbers", "float32", floats), _Packed("counts", "int32", others)]
    return [p for p in packed if p.places]


def _source(
    code: Code,
    kinds: Mapping[str, str],
    products: Mapping[str, str],
    names: Sequence[str],
    place: Mapping[int, str],
) -> str:
    """Python of the kernel: read, add up over the neighbours, compute, write."""
    parameters, lines = [], ["i = wp.tid()"]
    if products:
        parameters.append("columns: wp.array2d(dtype=wp.int32)")
        parameters += [f"w_{name}: wp.array2d(dtype=wp.float32)" for name in products]
    shared = list(kinds)
    for packed in _by_kind(kinds):
        parameters.append(f"{packed.name}: wp.array(dtype=wp.{packed.dtype})")
        for k, index in enumerate(packed.places):
            name = shared[index]
            is_bool = " != 0" if kinds[name] == "bool" else ""
            lines.append(f"{name} = {packed.name}[{k}]{is_bool}")
    parameters += [f"x_{name}: wp.array(dtype=wp.float32)" for name in names]
    lines += [f"{name} = x_{name}[i]" for name in names]
    if products:
        lines += [f"{name} = wp.float32(0.0)" for name in products]
        lines += ["for k in range(columns.shape[0]):", "    j = columns[k, i]"]
        lines += [f"    {x} += w_{x}[k, i] * (x_{v}[j] - {v})" for x, v in products.items()]
    lines += code.lines
    for m, result in enumerate(code.results):
        if m in place:
            lines.append(f"x_{place[m]}[i] = {result}")
        else:
            parameters.append(f"y_{m}: wp.array(dtype=wp.float32)")
            lines.append(f"y_{m}[i] = {result}")
    head = f"def node({', '.join(parameters)}):"
    return "\n".join([_HELPERS, head, *(f"    {x}" for x in lines)])


@functools.cache
def _loaded(source: str, in_place: tuple[str, ...], n_results: int, on_gpu: bool) -> Callable:
    """The kernel as a function of jax arrays.

    On a GPU with approximate division and square root, as XLA has them. On a CPU the same flag
    lets the compiler assume that there is no NaN and reorder sums.
    """
    import warp as wp  # pyright: ignore[reportMissingImports]  # an extra, 150 MB

    wp.config.log_level = max(wp.config.log_level, wp.LOG_ERROR)
    name = f"<kernel {hashlib.sha256(source.encode()).hexdigest()[:16]}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    space: dict[str, Any] = {"wp": wp, "__name__": __name__}
    exec(compile(source, name, "exec"), space)  # Warp reads the source, which must look real
    kernel = wp.kernel(
        space["node"],
        enable_backward=False,
        module="unique",
        module_options={"fast_math": on_gpu},
    )
    call = wp.jax_kernel(
        kernel, num_outputs=n_results, in_out_argnames=list(in_place), vmap_method="sequential"
    )
    return lambda *inputs, **sizes: _listed(call(*inputs, **sizes))


def _listed(results: Any) -> list[jax.Array]:
    return list(results) if isinstance(results, list | tuple) else [results]
