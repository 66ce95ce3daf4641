"""Activation and repolarisation maps, computed on the fly and differentiable."""

import jax.numpy as jnp

from twinheart.types import NodeField


def crossing_time(t0, t1, before: NodeField, after: NodeField, level) -> NodeField:
    """Time at which a straight line from `before` at t0 to `after` at t1 meets `level` [ms].

    Its derivative is that of the crossing, -(dV/dp) / (dV/dt): an activation-time loss needs no
    misfit of the potential. Where the line is flat the result is t1.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from twinheart.tissue.maps import crossing_time
    >>> crossing_time(0.0, 1.0, jnp.array([-10.0]), jnp.array([30.0]), 0.0).tolist()
    [0.25]
    """
    rise = after - before
    flat = rise == 0.0
    # The inner `where` keeps 0/0 out of the derivative, the outer one out of the value.
    share = jnp.where(flat, 1.0, (level - before) / jnp.where(flat, 1.0, rise))
    return t0 + share * (t1 - t0)


def first_activation(lat, t0, t1, before, after, threshold) -> NodeField:
    """Update local activation times [ms], NaN where not yet activated: first upward crossing."""
    crossed = jnp.isnan(lat) & (before < threshold) & (after >= threshold)
    return jnp.where(crossed, crossing_time(t0, t1, before, after, threshold), lat)


def first_repolarisation(repol, lat, peak, rest, t0, t1, before, after, share=0.9) -> NodeField:
    """Update repolarisation times [ms]: first downward crossing, after activation, of the level.

    The level is `share` of the way from the peak of the action potential back to `rest`.
    """
    level = peak - share * (peak - rest)
    crossed = jnp.isnan(repol) & ~jnp.isnan(lat) & (before > level) & (after <= level)
    return jnp.where(crossed, crossing_time(t0, t1, before, after, level), repol)
