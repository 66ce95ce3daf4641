"""Fenton and Karma 1998: three currents and two gates that fit the restitution of other models."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp

from twinheart.cell.model import AbstractCellModel, Gate, Parameter, Pulse, as_parameter, parameter
from twinheart.errors import ModelError

# Table I of the paper: sets fitted to Beeler-Reuter, modified Beeler-Reuter, modified Luo-Rudy I
# and guinea pig. Some programs round tau_r and tau_si of three of them to 33, 30, 45 and 22 ms.
# u_v has no influence in "mlr-i", whose two time constants are equal.
_SETS: dict[str, dict[str, float]] = {
    "br": {
        **{"g_fi": 4.0, "tau_r": 33.33, "tau_si": 29.0, "tau_0": 12.5, "tau_v_plus": 3.33},
        **{"tau_v1_minus": 1250.0, "tau_v2_minus": 19.6, "tau_w_plus": 870.0},
        **{"tau_w_minus": 41.0, "u_v": 0.04},
    },
    "mbr": {
        **{"g_fi": 4.0, "tau_r": 50.0, "tau_si": 44.84, "tau_0": 8.3, "tau_v_plus": 3.33},
        **{"tau_v1_minus": 1000.0, "tau_v2_minus": 19.2, "tau_w_plus": 667.0},
        **{"tau_w_minus": 11.0, "u_v": 0.055},
    },
    "mlr-i": {
        **{"g_fi": 5.8, "tau_r": 130.0, "tau_si": 127.0, "tau_0": 12.5, "tau_v_plus": 10.0},
        **{"tau_v1_minus": 18.2, "tau_v2_minus": 18.2, "tau_w_plus": 1020.0},
        **{"tau_w_minus": 80.0, "u_v": 0.0},
    },
    "gp": {
        **{"g_fi": 8.7, "tau_r": 25.0, "tau_si": 22.22, "tau_0": 12.5, "tau_v_plus": 10.0},
        **{"tau_v1_minus": 333.0, "tau_v2_minus": 40.0, "tau_w_plus": 1000.0},
        **{"tau_w_minus": 65.0, "u_v": 0.025},
    },
}


def _of_variant(unit: str = "1"):
    """Field whose default is that of the variant."""
    return eqx.field(default=None, metadata={"unit": unit})


class FentonKarma(AbstractCellModel):
    r"""Three-variable model: fast inward, slow outward and slow inward current.

    .. math::
        J_{fi} &= -g_{fi}\, v\, p\, (1 - u)(u - u_c) \\
        J_{so} &= (1 - p)\, u / \tau_0 + p / \tau_r \\
        J_{si} &= -w\, \bigl(1 + \tanh k(u - u_c^{si})\bigr) / (2 \tau_{si}) \\
        \dot v &= (1 - p)(1 - v)/\tau_v^-(u) - p\, v/\tau_v^+ \\
        \dot w &= (1 - p)(1 - w)/\tau_w^- - p\, w/\tau_w^+

    with p = 1 from the threshold :math:`u_c` on, else 0, and
    :math:`\tau_v^- = \tau_{v1}^-` from :math:`u_v` on, else :math:`\tau_{v2}^-`. The voltage is
    :math:`V = V_0 + u (V_{fi} - V_0)`, ``i_ion = (v_fi - v_0) (J_fi + J_so + J_si)`` in A/F.

    Parameters
    ----------
    variant : {"mlr-i", "br", "mbr", "gp"}
        Set of Table I that gives the parameters left out below: modified Luo-Rudy I,
        Beeler-Reuter, modified Beeler-Reuter, guinea pig.
    g_fi : float or (node,) array
        Conductance of the fast inward current over the capacitance, :math:`1/\tau_d` [1/ms].
    tau_r, tau_si, tau_0, tau_v_plus, tau_v1_minus, ... : float or (node,) array
        Time constants [ms].
    u_v, u_c, u_csi, k : float or (node,) array
        Thresholds and steepness, dimensionless.
    v_0, v_fi : float or (node,) array
        Voltages of u = 0 and u = 1 [mV].

    Raises
    ------
    ModelError
        If `variant` is unknown.

    References
    ----------
    Fenton and Karma 1998, doi:10.1063/1.166311.

    Examples
    --------
    >>> from twinheart.cell import get_model
    >>> round(get_model("fenton-karma").tau_w_plus.item())
    1020
    """

    name: ClassVar[str] = "fenton-karma"
    reference: ClassVar[str] = "doi:10.1063/1.166311"
    initial: ClassVar[dict[str, float]] = {"v": 1.0, "w": 1.0}
    channels: ClassVar[dict[str, str]] = {"i_na": "g_fi"}
    stimulus: ClassVar[Pulse] = Pulse(52.0, 1.0)
    dt: ClassVar[float] = 0.05
    variants_share_equations: ClassVar[bool] = True

    variant: str = eqx.field(default="mlr-i", static=True)
    g_fi: Parameter = _of_variant("1/ms")
    tau_r: Parameter = _of_variant("ms")
    tau_si: Parameter = _of_variant("ms")
    tau_0: Parameter = _of_variant("ms")
    tau_v_plus: Parameter = _of_variant("ms")
    tau_v1_minus: Parameter = _of_variant("ms")
    tau_v2_minus: Parameter = _of_variant("ms")
    tau_w_plus: Parameter = _of_variant("ms")
    tau_w_minus: Parameter = _of_variant("ms")
    u_v: Parameter = _of_variant()
    u_c: Parameter = parameter(0.13)
    u_csi: Parameter = parameter(0.85)
    k: Parameter = parameter(10.0)
    v_0: Parameter = parameter(-85.0, "mV")
    v_fi: Parameter = parameter(15.0, "mV")

    def __post_init__(self):
        if self.variant not in _SETS:
            raise ModelError(
                f"FentonKarma has no variant {self.variant!r}; choose one of {', '.join(_SETS)}."
            )
        for name, value in _SETS[self.variant].items():
            given = getattr(self, name)
            setattr(self, name, as_parameter(value if given is None else given))

    def initial_vm(self):
        """Rest, u = 0 [mV]."""
        return self.v_0

    def rates(self, vm, state, i_stim=0.0):
        """Ionic current [A/F] and both gates; see `AbstractCellModel.rates`."""
        v, w = state
        u = (vm - self.v_0) / (self.v_fi - self.v_0)
        excited = u >= self.u_c
        j_fi = -self.g_fi * v * jnp.where(excited, (1 - u) * (u - self.u_c), 0.0)
        j_so = jnp.where(excited, 1 / self.tau_r, u / self.tau_0)
        j_si = -w * (1 + jnp.tanh(self.k * (u - self.u_csi))) / (2 * self.tau_si)
        closed = jnp.where(excited, jnp.zeros_like(v), 1.0)
        recovery = jnp.where(u >= self.u_v, 1 / self.tau_v1_minus, 1 / self.tau_v2_minus)
        return (j_fi + j_so + j_si) * (self.v_fi - self.v_0), (
            Gate(closed, jnp.where(excited, 1 / self.tau_v_plus, recovery)),
            Gate(closed, jnp.where(excited, 1 / self.tau_w_plus, 1 / self.tau_w_minus)),
        )
