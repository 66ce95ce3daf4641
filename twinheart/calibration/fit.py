r"""Fitting: Levenberg-Marquardt from one or several starts, resumable, with a reason why it ended.

Each iteration linearises the residual r at u and proposes

.. math:: (J^T J + I + \mu D)\, \delta = -(J^T r + u), \qquad D = \mathrm{diag}(J^T J + I),

for several dampings :math:`\mu` at once, evaluated in parallel. For many thousands of parameters,
where no Jacobian can be held, `descend` follows the gradient with L-BFGS.
"""

import time
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from twinheart.calibration.objective import Objective
from twinheart.calibration.state import FitState, digest, load_state, save_state
from twinheart.errors import SolverError
from twinheart.types import Array

_FACTORS = (1.0, 0.1, 10.0, 100.0)  # on the damping, tried at once
_START, _LEAST, _MOST = 1e-2, 1e-8, 1e8
_LONGEST = 1.5  # largest change of any standard number in a step


class Fit(eqx.Module):
    """Where a fit ended.

    Attributes
    ----------
    u : (parameter,) array
        Standard numbers.
    values : dict of str to array
        Physical values, fixed ones included.
    loss : float
        Negative log-posterior up to a constant: half the sum of squares of data and prior.
    misfit : float
        Half the sum of squares of the data alone.
    jacobian : (sample, parameter) array
        Derivative of the whitened residual at the end.
    history : list of dict
        Iteration, loss, damping, seconds.
    result : str
        Why it ended: ``"converged"``, ``"no step lowers the loss"`` or ``"iterations"``.
    """

    u: Float[np.ndarray, "parameter"]
    values: dict[str, np.ndarray]
    loss: float
    misfit: float
    jacobian: Float[np.ndarray, "sample parameter"]
    history: list[dict[str, float]]
    result: str

    @property
    def iterations(self) -> int:
        """Linearisations."""
        return len(self.history)


def fit(
    objective: Objective,
    start: Float[np.ndarray, "parameter"] | None = None,
    *,
    iterations: int = 40,
    tolerance: float = 1e-3,
    patience: int = 3,
    checkpoint: str | Path | None = None,
    progress: Callable[[dict[str, float]], None] | None = None,
) -> Fit:
    """Fit by Levenberg-Marquardt.

    Parameters
    ----------
    objective : Objective
        What to make small.
    start : (parameter,) array, optional
        Standard numbers to start from; default: the centre of the prior.
    iterations : int
        At most.
    tolerance, patience : float, int
        A fit has converged when so many iterations in a row lower the loss by less than this share.
    checkpoint : path, optional
        Saved after every iteration; if it is there and belongs to this objective, the fit goes on
        from it.
    progress : callable, optional
        Called with iteration, loss, seconds and an estimate of the seconds left.

    Returns
    -------
    Fit
        Always the best state seen.

    Raises
    ------
    SolverError
        If the loss is not finite at the start, naming the parameters that matter.

    Examples
    --------
    See ``notebooks/05_calibrate``.
    """
    mark = "" if checkpoint is None else digest(objective)
    state = None if checkpoint is None else load_state(Path(checkpoint), mark)
    if state is None:
        u = np.zeros(len(objective.free)) if start is None else np.asarray(start, float)
        state = FitState(u=u, loss=np.inf, damping=_START, flat=0, history=[])
    begin = time.perf_counter()
    result, linear = "iterations", None
    while len(state.history) < iterations:
        tick = time.perf_counter()
        residual, jacobian = _linearised(objective, state.u)
        linear = (state.u, residual, jacobian)
        before = 0.5 * float(residual @ residual + state.u @ state.u)
        state = _advanced(objective, state, residual, jacobian, before)
        done = {
            "iteration": float(len(state.history)),
            "loss": state.loss,
            "damping": state.damping,
            "seconds": time.perf_counter() - tick,
        }
        state.history.append(done)
        gain = before - state.loss
        state.flat = state.flat + 1 if gain < tolerance * before else 0
        if checkpoint is not None:
            save_state(Path(checkpoint), mark, state)
        if progress is not None:
            left = (iterations - len(state.history)) * done["seconds"]
            progress({**done, "left": left, "elapsed": time.perf_counter() - begin})
        if gain <= 0.0:
            result = "no step lowers the loss"
            break
        if state.flat >= patience:
            result = "converged"
            break
    if linear is None or linear[0] is not state.u:
        linear = (state.u, *_linearised(objective, state.u))
    u, residual, jacobian = linear
    misfit = 0.5 * float(residual @ residual)
    return Fit(
        u=u,
        values={k: np.asarray(v) for k, v in objective.values(jnp.asarray(u)).items()},
        loss=misfit + 0.5 * float(u @ u),
        misfit=misfit,
        jacobian=jacobian,
        history=state.history,
        result=result,
    )


def _advanced(objective, state: FitState, residual, jacobian, before: float) -> FitState:
    """The best of several damped steps; the same state, damped more, if none is better."""
    hessian = jacobian.T @ jacobian + np.eye(len(state.u))
    gradient = jacobian.T @ residual + state.u
    damping = state.damping
    while True:
        tried = np.clip(damping * np.array(_FACTORS), _LEAST, _MOST)
        steps = np.stack([_step(hessian, gradient, mu) for mu in tried])
        candidates = state.u + steps
        r = np.asarray(objective.residuals(candidates), np.float64)
        losses = 0.5 * ((r**2).sum(axis=1) + (candidates**2).sum(axis=1))
        losses = np.where(np.isfinite(losses), losses, np.inf)
        best = int(losses.argmin())
        if losses[best] < before:
            return FitState(
                u=candidates[best],
                loss=float(losses[best]),
                damping=float(np.clip(tried[best] / 3.0, _LEAST, _MOST)),
                flat=state.flat,
                history=state.history,
            )
        if damping >= _MOST / 1e3:
            state.loss, state.damping = before, damping
            return state
        damping *= 1e3


def _step(hessian, gradient, mu: float) -> np.ndarray:
    step = np.linalg.solve(hessian + mu * np.diag(np.diag(hessian)), -gradient)
    return step * min(1.0, _LONGEST / max(float(np.abs(step).max()), 1e-300))


def _linearised(objective: Objective, u) -> tuple[np.ndarray, np.ndarray]:
    residual, jacobian = (np.asarray(x, np.float64) for x in objective.linearised(jnp.asarray(u)))
    names = np.array(objective.free.names)
    if not np.isfinite(residual).all():
        values = np.asarray(objective.free.flat(jnp.asarray(u)))
        odd = np.flatnonzero(~np.isfinite(values))
        if not odd.size:
            odd = np.argsort(-np.abs(np.asarray(u)))[:3]
        told = ", ".join(f"{names[k]} = {values[k]:g}" for k in odd)
        raise SolverError(
            f"the loss is not finite (furthest from their prior: {told}): start elsewhere, or "
            "narrow the priors of these parameters."
        )
    odd = np.flatnonzero(~np.isfinite(jacobian).all(axis=0))
    if odd.size:
        raise SolverError(
            f"the derivative of the loss by {', '.join(names[odd[:5]])} is not finite: start "
            "elsewhere, or fix it."
        )
    return residual, jacobian


def best_starts(
    objective: Objective, starts: Float[np.ndarray, "start parameter"], count: int = 1
) -> Float[np.ndarray, "count parameter"]:
    """The starts of least loss, evaluated in parallel.

    Parameters
    ----------
    objective : Objective
        What to make small.
    starts : (start, parameter) array
        Standard numbers.
    count : int
        How many to keep.

    Returns
    -------
    (count, parameter) array
        The best first; those whose loss is not finite come last.
    """
    r = np.asarray(objective.residuals(starts), np.float64)
    loss = 0.5 * ((r**2).sum(axis=1) + (starts**2).sum(axis=1))
    return starts[np.argsort(np.where(np.isfinite(loss), loss, np.inf), kind="stable")[:count]]


def descend(
    loss: Callable[[Array], Array],
    start: Float[np.ndarray, "parameter"],
    *,
    iterations: int = 200,
    tolerance: float = 1e-4,
    progress: Callable[[dict[str, float]], None] | None = None,
) -> tuple[Float[np.ndarray, "parameter"], list[dict[str, float]], str]:
    """Minimise any differentiable loss by L-BFGS.

    Parameters
    ----------
    loss : callable
        Of standard numbers, such as `Objective.loss` or one of `twinheart.calibration.losses`.
    start : (parameter,) array
        Where to begin.
    iterations : int
        At most.
    tolerance : float
        Ends when ten iterations lower the loss by less than this share.
    progress : callable, optional
        Called with iteration and loss.

    Returns
    -------
    u, history, result
        Best numbers, loss of every iteration, and why it ended.

    Raises
    ------
    SolverError
        If the loss is not finite at the start.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.calibration.fit import descend
    >>> u, _, result = descend(lambda u: ((u - 3.0) ** 2).sum(), np.zeros(4))
    >>> bool(abs(u - 3.0).max() < 1e-3), result
    (True, 'converged')
    """
    optimiser = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    @eqx.filter_jit
    def step(u, state):
        value, gradient = value_and_grad(u, state=state)
        updates, state = optimiser.update(
            gradient, state, u, value=value, grad=gradient, value_fn=loss
        )
        return optax.apply_updates(u, updates), state, value

    u = jnp.asarray(start, float)
    state, history, result = optimiser.init(u), [], "iterations"
    best, least = np.asarray(u), np.inf
    for k in range(iterations):
        before, (u, state, value) = np.asarray(u), step(u, state)
        found = float(np.asarray(value))
        if not np.isfinite(found):
            if k == 0:
                raise SolverError("the loss is not finite at the start: start elsewhere.")
            result = "no step lowers the loss"
            break
        if found < least:
            best, least = before, found
        history.append({"iteration": float(k + 1), "loss": found})
        if progress is not None:
            progress(history[-1])
        if k >= 10 and history[k - 10]["loss"] - found <= tolerance * abs(found) + 1e-12:
            result = "converged"
            break
    return best, history, result
