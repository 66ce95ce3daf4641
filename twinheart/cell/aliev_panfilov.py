"""Aliev and Panfilov 1996: two variables with the restitution of canine myocardium."""

from typing import ClassVar

import jax.numpy as jnp

from twinheart.cell.model import AbstractCellModel, Parameter, Pulse, parameter


class AlievPanfilov(AbstractCellModel):
    r"""Cubic excitation with a recovery variable whose rate depends on both.

    .. math::
        \dot u &= -k\,u(u - a)(u - 1) - u v \\
        \dot v &= \Bigl(\epsilon_0 + \frac{\mu_1 v}{u + \mu_2}\Bigr)
                  \bigl(-v - k\,u(u - a - 1)\bigr)

    in units of the paper; :math:`V = 100\,u - 80` mV and one unit of time is 12.9 ms, chosen there
    to make the action potential last about 330 ms.

    The equations divide by :math:`u + \mu_2`, zero at -110 mV. It is bounded below by
    :math:`\mu_2 / 2` (-95 mV): the model itself never leaves u >= 0, so that only a
    hyperpolarising stimulus of more than 15 mV would notice.

    Parameters
    ----------
    k, a : float or (node,) array
        Steepness and threshold of excitation, dimensionless.
    epsilon_0, mu_1, mu_2 : float or (node,) array
        Rate of recovery, dimensionless.
    time_unit : float or (node,) array
        Unit of time of the equations [ms].
    v_rest, v_peak : float or (node,) array
        Voltages of u = 0 and u = 1 [mV].

    References
    ----------
    Aliev and Panfilov 1996, doi:10.1016/0960-0779(95)00089-5.

    Examples
    --------
    >>> from twinheart.cell import get_model
    >>> get_model("aliev-panfilov", a=0.1).v_rest.item()
    -80.0
    """

    name: ClassVar[str] = "aliev-panfilov"
    reference: ClassVar[str] = "doi:10.1016/0960-0779(95)00089-5"
    initial: ClassVar[dict[str, float]] = {"v": 0.0}
    channels: ClassVar[dict[str, str]] = {}
    stimulus: ClassVar[Pulse] = Pulse(52.0, 1.0)
    dt: ClassVar[float] = 0.05

    k: Parameter = parameter(8.0)
    a: Parameter = parameter(0.15)
    epsilon_0: Parameter = parameter(0.002)
    mu_1: Parameter = parameter(0.2)
    mu_2: Parameter = parameter(0.3)
    time_unit: Parameter = parameter(12.9, "ms")
    v_rest: Parameter = parameter(-80.0, "mV")
    v_peak: Parameter = parameter(20.0, "mV")

    def initial_vm(self):
        """Rest, u = 0 [mV]."""
        return self.v_rest

    def rates(self, vm, state, i_stim=0.0):
        """Ionic current [A/F] and the recovery variable; see `AbstractCellModel.rates`."""
        (v,) = state
        u = (vm - self.v_rest) / (self.v_peak - self.v_rest)
        du = -self.k * u * (u - self.a) * (u - 1) - u * v
        epsilon = self.epsilon_0 + self.mu_1 * v / jnp.maximum(u + self.mu_2, 0.5 * self.mu_2)
        dv = epsilon * (-v - self.k * u * (u - self.a - 1))
        return -du * ((self.v_peak - self.v_rest) / self.time_unit), (dv / self.time_unit,)
