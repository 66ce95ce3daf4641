"""What the parts of a tissue that is spread over several devices send each other.

Each device holds a part of the nodes. Before a sparse product it sends the values that its
neighbours' nodes need, and receives those around its own: its halo. The rows themselves are summed
slot after slot as on one device, so nothing is added in another order.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from twinheart.types import Array


class Halo(eqx.Module):
    """What the parts of a tissue send each other.

    Parameters
    ----------
    send : tuple of (entry,) int arrays
        For each shift the nodes of a part whose values it sends; lists that are shorter than the
        longest of their shift repeat a node. Over all devices: part after part.
    shifts : tuple of int
        Part p sends to part p + shift.
    parts : int
        Number of parts.
    axis : str
        Name of the axis of devices.
    """

    send: tuple[Int[Array, "_"], ...]
    shifts: tuple[int, ...] = eqx.field(static=True)
    parts: int = eqx.field(static=True)
    axis: str = eqx.field(static=True)

    def around(self, v: Float[Array, "node"]) -> Float[Array, "place"]:
        """The part's own values, then those it receives, shift after shift.

        To be called on each device, inside `jax.shard_map`.
        """
        found = [v]
        for shift, nodes in zip(self.shifts, self.send, strict=True):
            pairs = [(p, p + shift) for p in range(self.parts) if 0 <= p + shift < self.parts]
            found.append(jax.lax.ppermute(v[nodes], self.axis, pairs))
        return jnp.concatenate(found)
