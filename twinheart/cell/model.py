"""The interface of an ionic cell model: what it offers to pacing, tissue and calibration."""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float


class Gate(NamedTuple):
    """A state variable that relaxes: ``dx/dt = rate * (steady - x)``.

    Attributes
    ----------
    steady : array
        Value reached at constant voltage, dimensionless.
    rate : array
        Inverse time constant [1/ms]. The inverse is kept because most published time constants
        are products of sigmoids, whose inverse needs no division.
    """

    steady: jax.Array
    rate: jax.Array


class Follower(Gate):
    """A variable that relaxes to a value set by currents: stepped as they are, after the gates.

    An exponential step, too: for what relaxes faster than forward Euler bears.
    """


Rates = tuple[Gate | jax.Array, ...]
State = tuple[jax.Array, ...]
# Type of a field made by `parameter`: anything array-like goes in, an array comes out.
Parameter = Any


def as_parameter(value) -> jax.Array:
    """An array leaf: numbers become arrays of the default precision, arrays keep their own.

    The dtype is given because ``jnp.asarray(0.3)`` alone is weakly typed, and a jitted function
    would be compiled once more when the parameter is later replaced by a computed array.
    """
    dtype = jnp.asarray(value).dtype
    return jnp.asarray(value, dtype=dtype if jnp.issubdtype(dtype, jnp.floating) else float)


def parameter(default: float, unit: str = "1") -> Any:
    """Field of a cell model that holds a physical number and can be differentiated."""
    return eqx.field(default=default, converter=as_parameter, metadata={"unit": unit})


class Pulse(NamedTuple):
    """Stimulus that fires a resting cell: amplitude [A/F], positive depolarises; duration [ms]."""

    amplitude: float
    duration: float


class AbstractCellModel(eqx.Module):
    """Ionic model of one cell (or of one cell per node: everything is elementwise).

    The transmembrane voltage is not part of the state; it belongs to the tissue. A state is a
    tuple of arrays in the order of `initial`; parameters are array leaves, scalars or one
    value per node. A model declares its tables and implements `initial_vm` and `rates`.

    Attributes
    ----------
    name : str
        Name that `twinheart.cell.get_model` understands.
    reference : str
        DOI of the paper the equations come from, ``"doi:10...."``.
    initial : mapping of str to float
        State variables, without the voltage, and their values at the start in physical units.
    offsets : mapping of str to float
        Subtracted in storage from the state variables it names, whose small increments float32
        would lose beside their size.
    units : mapping of str to str
        Unit of each state variable that has one; the others are gates and probabilities, "1".
    channels : mapping of str to str
        Current or flux by its name in the field (``"i_na"``, ``"i_kr"``, ``"j_up"``) and the
        parameter it is proportional to: what drugs, diseases and scalings act on.
    stimulus : Pulse
        Stimulus of the paper.
    dt : float
        Recommended time step [ms], at which the errors stated in the tests hold.
    """

    name: eqx.AbstractVar[str]
    reference: eqx.AbstractVar[str]
    initial: eqx.AbstractVar[Mapping[str, float]]
    channels: eqx.AbstractVar[Mapping[str, str]]
    stimulus: eqx.AbstractVar[Pulse]
    offsets: ClassVar[Mapping[str, float]] = {}
    units: ClassVar[Mapping[str, str]] = {}
    dt: ClassVar[float] = 0.02

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the state variables, without the voltage."""
        return tuple(self.initial)

    @abc.abstractmethod
    def initial_vm(self) -> jax.Array:
        """Transmembrane voltage at the start [mV]."""

    def initial_state(self) -> State:
        """State at the start, as stored, one scalar per entry of `initial`."""
        return tuple(
            as_parameter(value - self.offsets.get(name, 0.0))
            for name, value in self.initial.items()
        )

    def physical(self, state: State) -> dict[str, tuple[jax.Array, str]]:
        """State as ``{name: (value, unit)}`` in physical units, whatever is stored inside."""
        return {
            name: (x + self.offsets[name] if name in self.offsets else x, self.units.get(name, "1"))
            for name, x in zip(self.initial, state, strict=True)
        }

    @abc.abstractmethod
    def rates(
        self, vm: Float[jax.Array, "*node"], state: State, i_stim: Any = 0.0
    ) -> tuple[Float[jax.Array, "*node"], Rates]:
        """Ionic current and the law of every state variable.

        Parameters
        ----------
        vm : (node,) array
            Transmembrane voltage [mV]; any shape.
        state : tuple of (node,) arrays
            State, same shape.
        i_stim : (node,) array or float
            Stimulus current [A/F], positive depolarises; it matters only to models that book its
            charge on an ion, and it is not part of the returned current.

        Returns
        -------
        i_ion : (node,) array
            Total ionic current [A/F], outward positive, without the stimulus.
        rates : tuple
            For each state variable a `Gate`, or its time derivative [its unit per ms].
        """
