"""Programs of the host within compiled ones."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental.buffer_callback import buffer_callback


def on_host(host: Callable[..., Any], shapes: Any, *arguments: Any, vmap_method: str) -> Any:
    """Call a function of numpy arrays, as `jax.pure_callback` does.

    On a CPU it reads and writes the buffers in place: `pure_callback` copies large arguments on
    XLA's own threads, and where there are one or two, all of them may be waiting for the callback.

    Parameters
    ----------
    host : callable
        Takes arrays and returns one or a tuple of them, without side effects.
    shapes : ShapeDtypeStruct or tuple of them
        Of what it returns.
    *arguments : arrays
        What it takes.
    vmap_method : str
        As of `jax.pure_callback`.

    Returns
    -------
    array or tuple of arrays
        What it returned.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> from twinheart.tissue.host import on_host
    >>> shape = jax.ShapeDtypeStruct((3,), np.float32)
    >>> sort = jax.jit(lambda x: on_host(np.sort, shape, x, vmap_method="sequential"))
    >>> sort(jnp.array([3.0, 1.0, 2.0])).tolist()
    [1.0, 2.0, 3.0]
    """
    if jax.default_backend() != "cpu":
        return jax.pure_callback(host, shapes, *arguments, vmap_method=vmap_method)
    flat, tree = jax.tree.flatten(shapes)

    def call(_, out, *buffers):
        found = jax.tree.leaves(host(*(np.asarray(buffer) for buffer in buffers)))
        for to, values in zip(jax.tree.leaves(out), found, strict=True):
            np.asarray(to)[...] = values

    found = buffer_callback(call, tuple(flat), vmap_method=vmap_method)(*arguments)
    return jax.tree.unflatten(tree, list(found))
