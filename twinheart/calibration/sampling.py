"""The No-U-Turn sampler of blackjax, behind one function."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from twinheart.errors import InputError
from twinheart.types import Array

_DOUBLINGS = 4  # of a trajectory: about standard normal numbers need no more than 15 steps


def sample(
    log_density: Callable[[Array], Array],
    size: int,
    *,
    warmup: int,
    draws: int,
    seed: int = 0,
) -> Float[np.ndarray, "draw parameter"]:
    """Draw from a density that is about standard normal.

    Parameters
    ----------
    log_density : callable
        Of a (parameter,) array; differentiable.
    size : int
        Number of parameters.
    warmup, draws : int
        Steps in which the step size is adapted, and kept.
    seed : int
        Of the random numbers.

    Returns
    -------
    (draw, parameter) array
        Draws.

    Raises
    ------
    InputError
        If blackjax is not installed.
    """
    try:
        import blackjax
    except ImportError:
        raise InputError(
            "sampling needs blackjax, which is not installed: pip install 'twinheart[uq]'."
        ) from None
    adapt = blackjax.window_adaptation(
        blackjax.nuts, log_density, initial_step_size=0.5, max_num_doublings=_DOUBLINGS
    )
    first, second = jax.random.split(jax.random.key(seed))
    (state, tuned), _ = adapt.run(first, jnp.zeros(size), num_steps=warmup)  # type: ignore[call-arg]
    step = jax.jit(blackjax.nuts(log_density, **tuned).step)
    found = []
    for key in jax.random.split(second, draws):
        state, _ = step(key, state)
        found.append(np.asarray(state.position))
    return np.stack(found)
