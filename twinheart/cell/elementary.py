"""Cheap forms of the few functions ionic models are made of.

On a CPU an ionic model costs what its exponentials, logarithms and divisions cost; on a GPU the
same counts decide how many registers it needs. These forms are exact rearrangements (up to
rounding), so that an equation line can still be compared with the paper.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Float


class SharedExponentials:
    r"""Exponentials :math:`e^{\pm(v - a)/k}` of one voltage, most of them powers of a few.

    Sigmoids of one model share slopes: with ``u = exp(v / 120)``, the slopes 5, 6, 7.5, 10, 15,
    20 and 24 are the powers 24, 20, 16, 12, 8, 6 and 5 of `u`. A power costs one to five
    multiplications, an exponential about fifteen. The relative error of ``u**n`` is n roundings.

    Parameters
    ----------
    v : (node,) array
        Voltage [mV].
    *bases : float
        Slopes [mV] whose exponential is computed once, its integer powers serving the others.
        Slopes that divide no base get an exponential of their own.
    """

    def __init__(self, v: Float[jax.Array, "*node"], *bases: float | int):
        self._v = v
        self._bases = bases

    def rising(self, a: float | int, k: float | int) -> Float[jax.Array, "*node"]:
        """``exp((v - a) / k)``."""
        return self._scaled(-a / k, 1.0, k)

    def falling(self, a: float | int, k: float | int) -> Float[jax.Array, "*node"]:
        """``exp((a - v) / k)``."""
        return self._scaled(a / k, -1.0, k)

    def _scaled(self, offset: float, sign: float, k: float | int) -> Float[jax.Array, "*node"]:
        for base in self._bases:
            power = round(base / k)
            if math.isclose(power * k, base):
                # XLA merges equal subexpressions: asking again costs nothing.
                shared = powerable_exp(self._v * (sign / base))
                return math.exp(offset) * jax.lax.integer_pow(shared, power)
        return jnp.exp(self._v * (sign / k) + offset)


def powerable_exp(x: jax.Array) -> jax.Array:
    """``exp(x)`` whose integer powers stay multiplications.

    XLA rewrites ``exp(x) * exp(x)`` to ``exp(x + x)`` and would turn every power into one more
    exponential; the maximum, which never acts for ``x > -85``, hides the exponential from it.
    """
    return jnp.maximum(jnp.exp(x), 1e-37)


def inverses(*values: jax.Array) -> tuple[jax.Array, ...]:
    """Reciprocals of several arrays for the price of one division and a few multiplications.

    The product of all values must neither overflow nor underflow the precision.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from twinheart.cell.elementary import inverses
    >>> [x.item() for x in inverses(jnp.asarray(2.0), jnp.asarray(4.0))]
    [0.5, 0.25]
    """
    before = [values[0]]
    for value in values[1:]:
        before.append(before[-1] * value)
    inverse = 1.0 / before[-1]
    found = []
    for product, value in zip(before[-2::-1], values[:0:-1], strict=True):
        found.append(inverse * product)
        inverse = inverse * value
    return (inverse, *found[::-1])


def driving_fraction(z: jax.Array, exp_z: jax.Array) -> tuple[jax.Array, jax.Array]:
    r"""Numerator and denominator of :math:`z / (e^z - 1)`, smooth through zero.

    This factor of a Goldman-Hodgkin-Katz flux cancels near zero, so there the fraction is the
    series :math:`1 - z/2 + z^2/12 - \dots` (truncation below 4e-9 for ``|z| < 0.5``) over one.

    Parameters
    ----------
    z : (node,) array
        Reduced voltage, e.g. ``2 (v - 15) F / (R T)``.
    exp_z : (node,) array
        ``exp(z)``, usually at hand already.

    Returns
    -------
    numerator, denominator : (node,) array
        The denominator is never close to zero: values and derivatives stay finite.
    """
    near = jnp.abs(z) < 0.5
    z2 = z * z
    series = 1 - 0.5 * z + z2 * (1 / 12 + z2 * (-1 / 720 + z2 * (1 / 30240)))
    return jnp.where(near, series, z), jnp.where(near, 1.0, exp_z - 1)


def relaxed_fraction(x: jax.Array) -> jax.Array:
    r"""Fraction :math:`1 - e^{-x}` of the way to steady state covered in `x` time constants.

    A polynomial on an eighth of `x`, then three doublings
    :math:`\varphi(2y) = \varphi(y)(2 - \varphi(y))`: no exponential, no division, half the price
    of ``-expm1(-x)``. Unlike ``1 - exp(-x)`` it does not cancel for slow gates (x about 1e-5,
    where float32 would lose three digits). It increases with x and stays within [0, 1], so a
    gate can neither leave its range nor stall, whatever the time step; the relative error is
    below 1e-6 for x < 1, the absolute error below 3e-5 anywhere.
    """
    y = jnp.minimum(0.125 * x, 2.0)
    phi = y * (1.0 + y * (-1 / 2 + y * (1 / 6 + y * (-1 / 24 + y * (1 / 120)))))
    for _ in range(3):
        phi = phi * (2.0 - phi)
    return phi
