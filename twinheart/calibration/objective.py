r"""What a fit makes small: whitened differences to the data, and their derivatives.

With standard numbers u (see `twinheart.calibration.priors`) the negative logarithm of the posterior
is :math:`\frac12 \|r(u)\|^2 + \frac12 \|u\|^2` plus a constant.
"""

import importlib.util
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from twinheart.calibration.model import Model, Prediction
from twinheart.calibration.observation import Observation
from twinheart.calibration.parameters import Parameters
from twinheart.types import Array

_AT_ONCE = 4  # members of a batch: one size, so that it is compiled once
# What changes the arrival times; the rest acts on potentials alone.
_OF_ARRIVAL = ("cv_", "purkinje_cv", "site.", "lv_delay", "offset")


class Objective(eqx.Module):
    """Data, model and free parameters.

    Parameters
    ----------
    model : Model
        Forward model, at the times of the data.
    data : Observation
        Measured ECG.
    free : Parameters
        What changes.
    fixed : dict of str to array
        Values of parameters that were fitted before and stay.
    lat : (every_node,) array, optional
        Arrival, where nothing free changes it [ms].
    """

    model: Model
    data: Observation
    free: Parameters
    fixed: dict[str, Array]
    lat: Array | None

    def __init__(
        self,
        model: Model,
        data: Observation,
        free: Parameters,
        fixed: Mapping[str, Any] | None = None,
    ):
        self.model, self.data, self.free = model, data, free
        self.fixed = {k: jnp.atleast_1d(jnp.asarray(v, float)) for k, v in (fixed or {}).items()}
        moves = any(entry.name.startswith(_OF_ARRIVAL) for entry in free.entries)
        self.lat = None if moves else _lat(model, self.fixed)

    def values(self, u: Float[Array, "parameter"]) -> dict[str, Array]:
        """Physical values, fixed ones included."""
        return {**self.fixed, **self.free.physical(u)}

    def predict(self, u: Float[Array, "parameter"]) -> Prediction:
        """What the model says."""
        return self.model(self.values(u), self.lat)

    def residual(self, u: Float[Array, "parameter"]) -> Float[Array, "sample"]:
        """Whitened differences to the data."""
        return self.data.residual(self.predict(u).signals)

    def loss(self, u: Float[Array, "parameter"]) -> Float[Array, ""]:
        """Negative logarithm of the posterior, up to a constant; differentiable."""
        return 0.5 * (jnp.sum(self.residual(u) ** 2) + jnp.sum(u**2))

    def residuals(
        self, batch: Float[np.ndarray, "member parameter"]
    ) -> Float[np.ndarray, "member sample"]:
        """`residual` of a batch, some at once, solved in parallel over the cores."""
        batch = np.asarray(batch)
        absent = -len(batch) % _AT_ONCE
        padded = np.concatenate([batch, np.repeat(batch[-1:], absent, axis=0)])
        groups = padded.reshape(-1, _AT_ONCE, padded.shape[1])
        found = [np.asarray(_residuals(self, jnp.asarray(group))) for group in groups]
        return np.concatenate(found)[: len(batch)]

    def linearised(self, u: Float[Array, "parameter"]) -> tuple[Array, Array]:
        """Residual and its Jacobian, (sample,) and (sample, parameter)."""
        u = jnp.asarray(u)
        if self.lat is not None or not _compiles():
            return _residual(self, u), _jacobian(self, u)
        lat, by_u = _arrival_and_derivative(self, u)
        signals, rest = _signals_and_rest(self, u, lat, by_u)
        from twinheart.tissue.wave_tangents import front_tangents

        n_mesh = self.model.problem.n_mesh
        wave = self.model.wave_of(self.values(u))
        front = front_tangents(wave, np.asarray(lat[:n_mesh]), np.asarray(by_u[:n_mesh]))
        return _whitened(self, u, signals, rest, front)


def _compiles() -> bool:
    """Whether compiled loops for CPUs are of use and there."""
    return jax.default_backend() == "cpu" and importlib.util.find_spec("numba") is not None


@eqx.filter_jit
def _lat(model: Model, values):
    return model.lat(values)


@eqx.filter_jit
def _residual(objective: Objective, u):
    return objective.residual(u)


@eqx.filter_jit
def _residuals(objective: Objective, batch):
    if jax.default_backend() != "cpu":
        return jax.vmap(objective.residual)(batch)
    # Waves are solved side by side; the leads, one after the other, stay in the caches: 4 x faster.
    if objective.lat is not None:
        return jax.lax.map(objective.residual, batch)
    lat = jax.vmap(lambda u: objective.model.lat(objective.values(u)))(batch)

    def residual(given):
        u, lat = given
        return objective.data.residual(objective.model(objective.values(u), lat).signals)

    return jax.lax.map(residual, (batch, lat))


@eqx.filter_jit
def _jacobian(objective: Objective, u):
    return jax.jacfwd(objective.residual)(u)


@eqx.filter_jit
def _arrival_and_derivative(objective: Objective, u):
    def lat(u):
        found = objective.model.lat(objective.values(u))
        return found, found

    by_u, found = jax.jacfwd(lat, has_aux=True)(u)
    return found, jnp.where(jnp.isfinite(found)[:, None], by_u, 0.0)


@eqx.filter_jit
def _signals_and_rest(objective: Objective, u, lat, by_u):
    """Signals, and their derivative but for what the front does by its arrival."""

    def signals(w):
        moved = jnp.where(jnp.isfinite(lat), lat + by_u @ (w - u), jnp.inf)
        found = objective.model.signals(objective.values(w), moved, still=lat)
        return found, found

    rest, found = jax.jacfwd(signals, has_aux=True)(u)
    return found, rest


@eqx.filter_jit
def _whitened(objective: Objective, u, signals, rest, front):
    gains = objective.model.body.gains(objective.values(u))
    by_u = rest + front * jnp.broadcast_to(gains, signals.shape[1:])[:, None]
    whiten = jax.vmap(objective.data.whitened, in_axes=-1, out_axes=-1)
    return objective.data.residual(signals), -whiten(by_u)
