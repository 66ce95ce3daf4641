"""Bueno-Orovio, Cherry and Fenton 2008: minimal model of human ventricular cells."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp

from twinheart.cell.model import AbstractCellModel, Gate, Parameter, Pulse, as_parameter, parameter
from twinheart.errors import ModelError

_VARIANTS = ("epi", "endo", "m")
# Table 1 of the paper, in the order of _VARIANTS; what all three have in common is a default.
_TABLE: dict[str, tuple[float, float, float]] = {
    "u_u": (1.55, 1.56, 1.61),
    "theta_v_minus": (0.006, 0.2, 0.1),
    "theta_o": (0.006, 0.006, 0.005),
    "tau_v1_minus": (60.0, 75.0, 80.0),
    "tau_v2_minus": (1150.0, 10.0, 1.4506),
    "tau_w1_minus": (60.0, 6.0, 70.0),
    "tau_w2_minus": (15.0, 140.0, 8.0),
    "k_w_minus": (65.0, 200.0, 200.0),
    "u_w_minus": (0.03, 0.016, 0.016),
    "tau_w_plus": (200.0, 280.0, 280.0),
    "tau_fi": (0.11, 0.1, 0.078),
    "tau_o1": (400.0, 470.0, 410.0),
    "tau_o2": (6.0, 6.0, 7.0),
    "tau_so1": (30.0181, 40.0, 91.0),
    "tau_so2": (0.9957, 1.2, 0.8),
    "k_so": (2.0458, 2.0, 2.1),
    "u_so": (0.65, 0.65, 0.6),
    "tau_s2": (16.0, 2.0, 4.0),
    "tau_si": (1.8875, 2.9013, 3.3849),
    "tau_w_inf": (0.07, 0.0273, 0.01),
    "w_inf_star": (0.94, 0.78, 0.5),
}


def _of_variant(unit: str = "1"):
    """Field whose default is that of the variant."""
    return eqx.field(default=None, metadata={"unit": unit})


class BuenoOrovio(AbstractCellModel):
    r"""Four-variable model of epicardial, endocardial and mid-myocardial cells.

    .. math::
        J_{fi} &= -v\, H(u - \theta_v)(u - \theta_v)(u_u - u) / \tau_{fi} \\
        J_{so} &= (u - u_o)(1 - H(u - \theta_w)) / \tau_o + H(u - \theta_w) / \tau_{so} \\
        J_{si} &= -H(u - \theta_w)\, w s / \tau_{si} \\
        \dot v &= (1 - H(u - \theta_v))(v_\infty - v)/\tau_v^- - H(u - \theta_v)\, v/\tau_v^+ \\
        \dot w &= (1 - H(u - \theta_w))(w_\infty - w)/\tau_w^- - H(u - \theta_w)\, w/\tau_w^+ \\
        \dot s &= \bigl((1 + \tanh k_s(u - u_s))/2 - s\bigr) / \tau_s

    H is the step function; the infinities and time constants that depend on u are written out in
    the code. The voltage is :math:`V = 85.7\,u - 84` mV and
    ``i_ion = scale (J_fi + J_so + J_si)`` in A/F.

    Below rest :math:`w_\infty` is held at 1, its value at u = 0, where the paper's
    :math:`1 - u/\tau_{w\infty}` would grow beyond 1: the model itself never leaves u >= 0.

    Parameters
    ----------
    variant : {"epi", "endo", "m"}
        Cell type, whose column of Table 1 gives the parameters left out below.
    u_u, theta_v_minus, theta_o, tau_v1_minus, ... : float or (node,) array
        Parameters of the paper: time constants in ms, all others dimensionless.
    v_rest, v_scale : float or (node,) array
        Voltage of u = 0 and size of one unit of u [mV].

    Raises
    ------
    ModelError
        If `variant` is unknown.

    References
    ----------
    Bueno-Orovio, Cherry and Fenton 2008, doi:10.1016/j.jtbi.2008.03.029.

    Examples
    --------
    >>> from twinheart.cell import get_model
    >>> get_model("bueno-orovio-endo").name
    'bueno-orovio-endo'
    """

    reference: ClassVar[str] = "doi:10.1016/j.jtbi.2008.03.029"
    initial: ClassVar[dict[str, float]] = {"v": 1.0, "w": 1.0, "s": 0.0}
    channels: ClassVar[dict[str, str]] = {}
    stimulus: ClassVar[Pulse] = Pulse(52.0, 1.0)
    variants_share_equations: ClassVar[bool] = True

    variant: str = eqx.field(default="epi", static=True)
    u_o: Parameter = parameter(0.0)
    u_u: Parameter = _of_variant()
    theta_v: Parameter = parameter(0.3)
    theta_w: Parameter = parameter(0.13)
    theta_v_minus: Parameter = _of_variant()
    theta_o: Parameter = _of_variant()
    tau_v1_minus: Parameter = _of_variant("ms")
    tau_v2_minus: Parameter = _of_variant("ms")
    tau_v_plus: Parameter = parameter(1.4506, "ms")
    tau_w1_minus: Parameter = _of_variant("ms")
    tau_w2_minus: Parameter = _of_variant("ms")
    k_w_minus: Parameter = _of_variant()
    u_w_minus: Parameter = _of_variant()
    tau_w_plus: Parameter = _of_variant("ms")
    tau_fi: Parameter = _of_variant("ms")
    tau_o1: Parameter = _of_variant("ms")
    tau_o2: Parameter = _of_variant("ms")
    tau_so1: Parameter = _of_variant("ms")
    tau_so2: Parameter = _of_variant("ms")
    k_so: Parameter = _of_variant()
    u_so: Parameter = _of_variant()
    tau_s1: Parameter = parameter(2.7342, "ms")
    tau_s2: Parameter = _of_variant("ms")
    k_s: Parameter = parameter(2.0994)
    u_s: Parameter = parameter(0.9087)
    tau_si: Parameter = _of_variant("ms")
    tau_w_inf: Parameter = _of_variant()
    w_inf_star: Parameter = _of_variant()
    v_rest: Parameter = parameter(-84.0, "mV")
    v_scale: Parameter = parameter(85.7, "mV")

    def __post_init__(self):
        if self.variant not in _VARIANTS:
            raise ModelError(
                f"BuenoOrovio has no variant {self.variant!r}; choose one of "
                f"{', '.join(_VARIANTS)}."
            )
        column = _VARIANTS.index(self.variant)
        for name, values in _TABLE.items():
            given = getattr(self, name)
            setattr(self, name, as_parameter(values[column] if given is None else given))

    @property
    def name(self):
        """Name that `get_model` understands."""
        return f"bueno-orovio-{self.variant}"

    def initial_vm(self):
        """Rest, u = 0 [mV]."""
        return self.v_rest

    def rates(self, vm, state, i_stim=0.0):
        """Ionic current [A/F] and the three gates; see `AbstractCellModel.rates`."""
        v, w, s = state
        u = (vm - self.v_rest) / self.v_scale
        above_v, above_w, above_o = (u >= t for t in (self.theta_v, self.theta_w, self.theta_o))
        per_tau_o = jnp.where(above_o, 1 / self.tau_o2, 1 / self.tau_o1)
        tau_so = _between(self.tau_so1, self.tau_so2, self.k_so * (u - self.u_so))
        j_fi = -v * jnp.where(above_v, (u - self.theta_v) * (self.u_u - u), 0.0) / self.tau_fi
        j_so = jnp.where(above_w, 1 / tau_so, (u - self.u_o) * per_tau_o)
        j_si = -jnp.where(above_w, w * s, 0.0) / self.tau_si
        return (j_fi + j_so + j_si) * self.v_scale, self._gates(u, above_v, above_w, above_o)

    def _gates(self, u, above_v, above_w, above_o):
        """v, w, s."""
        above_v_minus = u >= self.theta_v_minus
        per_tau_v = jnp.where(above_v_minus, 1 / self.tau_v2_minus, 1 / self.tau_v1_minus)
        v_inf = jnp.where(above_v_minus, 0.0, jnp.ones_like(u))
        tau_w = _between(
            self.tau_w1_minus, self.tau_w2_minus, self.k_w_minus * (u - self.u_w_minus)
        )
        w_inf = jnp.where(above_o, self.w_inf_star, 1 - jnp.maximum(u, 0) / self.tau_w_inf)
        return (
            Gate(
                jnp.where(above_v, 0.0, v_inf), jnp.where(above_v, 1 / self.tau_v_plus, per_tau_v)
            ),
            Gate(
                jnp.where(above_w, 0.0, w_inf), jnp.where(above_w, 1 / self.tau_w_plus, 1 / tau_w)
            ),
            Gate(
                _between(0.0, 1.0, self.k_s * (u - self.u_s)),
                jnp.where(above_w, 1 / self.tau_s2, 1 / self.tau_s1),
            ),
        )


def _between(low, high, x):
    """From `low` to `high` as x goes from minus to plus infinity."""
    return low + (high - low) * (1 + jnp.tanh(x)) * 0.5
