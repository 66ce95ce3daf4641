"""Corrado and Niederer 2016: the Mitchell-Schaeffer model made robust to pacemaker behaviour."""

from typing import ClassVar

import jax.numpy as jnp

from twinheart.cell.model import AbstractCellModel, Gate, Parameter, Pulse, parameter


class ModifiedMitchellSchaeffer(AbstractCellModel):
    r"""Two-current model that cannot fire by itself, whatever its parameters.

    .. math::
        \dot v = \frac{h\,v(v - v_{gate})(1 - v)}{\tau_{in}} - \frac{(1 - h)\,v}{\tau_{out}}, \qquad
        \dot h = \begin{cases} (1 - h)/\tau_{open} & v < v_{gate} \\
                               -h/\tau_{close} & \text{otherwise} \end{cases}

    Below the threshold both currents repolarise, so that v = 0 attracts every voltage under
    :math:`v_{gate}`; in the model of Mitchell and Schaeffer the inward current may outgrow the
    outward one during recovery and the cell paces. As there, :math:`v \in [0, 1]` is mapped
    affinely to millivolt and ``i_ion = -(v_peak - v_rest) dv/dt`` in A/F.

    Parameters
    ----------
    tau_in, tau_out, tau_open, tau_close : float or (node,) array
        Time constants [ms] of the inward and outward current and of the gate.
    v_gate : float or (node,) array
        Threshold of the gate and of excitation, dimensionless.
    v_rest, v_peak : float or (node,) array
        Voltages of v = 0 and v = 1 [mV].

    References
    ----------
    Corrado and Niederer 2016, doi:10.1016/j.mbs.2016.08.010.

    Examples
    --------
    >>> from twinheart.cell import get_model
    >>> get_model("modified-mitchell-schaeffer", tau_close=120.0).tau_close.item()
    120.0
    """

    name: ClassVar[str] = "modified-mitchell-schaeffer"
    reference: ClassVar[str] = "doi:10.1016/j.mbs.2016.08.010"
    initial: ClassVar[dict[str, float]] = {"h": 1.0}
    channels: ClassVar[dict[str, str]] = {}
    stimulus: ClassVar[Pulse] = Pulse(52.0, 1.0)
    dt: ClassVar[float] = 0.05

    tau_in: Parameter = parameter(0.3, "ms")
    tau_out: Parameter = parameter(6.0, "ms")
    tau_open: Parameter = parameter(120.0, "ms")
    tau_close: Parameter = parameter(150.0, "ms")
    v_gate: Parameter = parameter(0.13)
    v_rest: Parameter = parameter(-85.0, "mV")
    v_peak: Parameter = parameter(40.0, "mV")

    def initial_vm(self):
        """Rest, v = 0 [mV]."""
        return self.v_rest

    def rates(self, vm, state, i_stim=0.0):
        """Ionic current [A/F] and the gate; see `AbstractCellModel.rates`."""
        (h,) = state
        v = (vm - self.v_rest) / (self.v_peak - self.v_rest)
        inward = h * v * (v - self.v_gate) * (1 - v) / self.tau_in
        outward = (1 - h) * v / self.tau_out
        is_open = v < self.v_gate
        gate = Gate(
            steady=jnp.where(is_open, 1.0, jnp.zeros_like(h)),
            rate=jnp.where(is_open, 1 / self.tau_open, 1 / self.tau_close),
        )
        return (outward - inward) * (self.v_peak - self.v_rest), (gate,)
