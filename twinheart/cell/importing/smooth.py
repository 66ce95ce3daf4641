"""The function imported modules share."""

import jax
import jax.numpy as jnp
from jaxtyping import Float


def over_expm1(z: Float[jax.Array, "*node"]) -> Float[jax.Array, "*node"]:
    r""":math:`z / (e^z - 1)`, finite with all its derivatives at zero and far away.

    This is the factor of rate functions and Goldman-Hodgkin-Katz fluxes that is 0/0 at one
    voltage. Near zero it is the series of the Bernoulli numbers, cut where the next term is
    1e-13; elsewhere it is formed from :math:`e^{-|z|}`, which cannot overflow.

    Parameters
    ----------
    z : (node,) array
        Reduced voltage, e.g. ``-0.1 * (vm + 47.13)``.

    Returns
    -------
    (node,) array
        The fraction, 1 at z = 0.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from twinheart.cell.importing.smooth import over_expm1
    >>> over_expm1(jnp.asarray([0.0, 100.0])).tolist()[0]
    1.0
    """
    near = jnp.abs(z) < 0.5
    small, far = jnp.where(near, z, 0.0), jnp.abs(jnp.where(near, 1.0, z))
    # B_n / n! for n = 10, 8, ..., 2
    square, series = small * small, 1 / 47900160
    for coefficient in (-1 / 1209600, 1 / 30240, -1 / 720, 1 / 12):
        series = coefficient + square * series
    decayed = jnp.exp(-far)
    fraction = far / (1 - decayed)
    outside = jnp.where(z > 0, fraction * decayed, fraction)
    return jnp.where(near, 1 - 0.5 * small + square * series, outside)
