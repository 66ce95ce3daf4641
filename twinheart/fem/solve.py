"""Solvers without data-dependent loops: power iteration for set-up, fixed-iteration CG."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from twinheart.types import Array


def lambda_max(
    apply: Callable[[np.ndarray], np.ndarray],
    n: int,
    *,
    rtol: float = 1e-3,
    max_iterations: int = 200,
    seed: int = 0,
) -> tuple[float, Float[np.ndarray, "node"]]:
    """Largest eigenvalue of a linear map with real, non-negative spectrum, by power iteration.

    Parameters
    ----------
    apply : callable
        The map, (node,) float64 numpy array to the same.
    n : int
        Number of nodes.
    rtol : float
        Relative change of the estimate over five iterations at which to stop.
    max_iterations : int
        Bound on the iterations.
    seed : int
        Seed of the start vector.

    Returns
    -------
    value : float
        The estimate, from below and within about one per cent of the eigenvalue; multiply it by a
        safety factor before choosing a time step.
    vector : (node,) array
        The unit eigenvector; its largest entry sits at the element that limits the step.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.fem import lambda_max
    >>> value, _ = lambda_max(lambda v: np.array([1.0, 2.0, 5.0]) * v, 3)
    >>> round(value, 2)
    5.0
    """
    v = np.random.default_rng(seed).standard_normal(n)
    v /= np.linalg.norm(v)
    history: list[float] = []
    for iteration in range(max_iterations):
        image = apply(v)
        value = float(np.linalg.norm(image))
        if value == 0.0:
            return 0.0, v
        v = image / value
        history.append(value)
        if iteration >= 20 and abs(value - history[-6]) <= rtol * value:
            break
    return history[-1], v


def jacobi_cg(
    apply: Callable[[Array], Array],
    diagonal: Float[Array, "node"],
    b: Float[Array, "node"],
    x0: Float[Array, "node"],
    iterations: int,
) -> Float[Array, "node"]:
    """Solve ``apply(x) = b`` by a fixed number of Jacobi-preconditioned conjugate gradients.

    The derivative is implicit: reverse mode solves the same symmetric system once more, whatever
    the number of iterations, and stores none of them.

    Parameters
    ----------
    apply : callable
        Symmetric positive definite linear map.
    diagonal : (node,) array
        Its diagonal.
    b, x0 : (node,) array
        Right-hand side and first guess (the guess is not differentiated: at convergence the
        solution does not depend on it).
    iterations : int
        Number of iterations; a count instead of a tolerance keeps the host out of the loop.

    Returns
    -------
    (node,) array
        x.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from twinheart.fem import jacobi_cg
    >>> d = jnp.array([1.0, 2.0])
    >>> jacobi_cg(lambda x: d * x, d, jnp.array([3.0, 4.0]), jnp.zeros(2), 2).tolist()
    [3.0, 2.0]
    """
    x0 = jax.lax.stop_gradient(x0)

    def solve(matvec, residual):
        z = residual / diagonal
        carry = (jnp.zeros_like(residual), residual, z, jnp.vdot(residual, z))

        def body(_, carry):
            x, r, p, rho = carry
            image = matvec(p)
            # 0/0 once the residual is exactly zero: then stay where we are.
            alpha = rho / jnp.where(rho == 0, 1, jnp.vdot(p, image))
            x, r = x + alpha * p, r - alpha * image
            z = r / diagonal
            rho_new = jnp.vdot(r, z)
            return x, r, z + rho_new / jnp.where(rho == 0, 1, rho) * p, rho_new

        return jax.lax.fori_loop(0, iterations, body, carry)[0]

    # Solved for the correction to the guess, so that the same routine serves the tangent and the
    # transposed system, which have no guess.
    correction = jax.lax.custom_linear_solve(apply, b - apply(x0), solve=solve, symmetric=True)
    return x0 + correction
