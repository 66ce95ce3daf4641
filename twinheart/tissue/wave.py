"""A wave that arrives at given times: what it feeds the cells, and when diffusion takes over."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Float, Int

from twinheart.tissue.discrete import Tissue
from twinheart.types import Array

STEP = 0.05  # ms, of tables over the time since arrival
FOOT = 12.0  # ms before it where they begin: the foot of an action potential is not seen yet
# The front takes this long [ms] to pass: until then the current of the template stands for all
# that flows along the tissue. Then diffusion takes over, within the second time.
PASSED, TAKEN_OVER = 4.0, 8.0
# Ahead of it, cells do not feel a front that a coarse mesh makes too wide.
_AHEAD = 10.0


class Wave(eqx.Module):
    """Excitation by arrival times.

    Made by `twinheart.tissue.reaction_eikonal.wave_at`.

    Attributes
    ----------
    lat : (beat, node) array
        Arrivals [ms], ``inf`` where a beat does not come.
    currents : (table, sample) array
        Axial current [A/F] of each template over a time step, every `STEP` ms from `FOOT` ms before
        the arrival.
    table : (node,) int array
        Which of them a node has.
    rise : (node,) array
        How far the voltage has risen when time begins [mV], where a foot began before.
    """

    lat: Float[Array, "beat node"]
    currents: Float[Array, "table sample"]
    table: Int[Array, "node"]
    rise: Float[Array, "node"]

    def current(self, t: Array) -> Float[Array, "node"]:
        """What flows into every cell in the time step that begins at `t` [A/F]."""
        n = self.currents.shape[1]
        flat, total = self.currents.ravel(), jnp.zeros_like(self.lat[0])
        for lat in self.lat:
            place = jnp.clip((t - lat + FOOT) / STEP, 0.0, n - 1.001)
            k = jnp.floor(place).astype(jnp.int32)
            share = place - k
            first = self.table * n + k
            total = total + (1.0 - share) * flat[first] + share * flat[first + 1]
        return total

    def behind_front(self, tissue: Tissue, t: Array) -> Tissue:
        """The tissue with diffusion only where no front is passing."""
        share = jnp.ones_like(self.lat[0])
        for lat in self.lat:
            s = t - lat
            after = jnp.clip((s - PASSED) / (TAKEN_OVER - PASSED), 0.0, 1.0)
            share = share * jnp.where(s < -_AHEAD, 1.0, after)
        return eqx.tree_at(lambda x: x.lumped, tissue, tissue.lumped / jnp.maximum(share, 1e-6))
