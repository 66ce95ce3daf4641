"""From the tables of a file to a plan of the model: names, gates, channels, order of lines."""

import keyword
import math
import re
from dataclasses import dataclass, field

from twinheart.cell.importing.branches import safe_branches
from twinheart.cell.importing.channels import Channel, find_channels
from twinheart.cell.importing.expression import Equations, Expr, mul, num, ref, walk
from twinheart.cell.importing.gates import GateLaw, find_gates
from twinheart.cell.importing.names import GENERIC, field_name, identifier, snake, unique
from twinheart.cell.importing.read import Source
from twinheart.cell.importing.roles import Roles, find_roles
from twinheart.cell.importing.samples import all_values, state_samples
from twinheart.cell.importing.singular import Guard
from twinheart.cell.importing.units import DIMENSIONLESS, concentration_factor
from twinheart.cell.model import AbstractCellModel
from twinheart.errors import ModelError

# Names a generated module uses itself.
_TAKEN = {"self", "vm", "v", "state", "i_stim", "i_ion", "jnp", "over_expm1"}
_TAKEN |= {"ClassVar", "AbstractCellModel", "Gate", "Parameter", "Pulse"}
_TAKEN |= {"as_parameter", "parameter"}
_FIELDS = {n for n in dir(AbstractCellModel) if not n.startswith("_")}
_FIELDS |= set(AbstractCellModel.__annotations__)
# States at least this large [mM, or the file's unit] are stored as differences from their start.
LARGE = 1.0


@dataclass
class State:
    """A state variable: its name here, initial value, unit, and file units per unit of ours."""

    name: str
    initial: float
    unit: str
    factor: float
    gate: GateLaw | None
    offset: float | None = None


@dataclass
class Plan:
    """Everything a generated module says, by the names of the file.

    Attributes
    ----------
    fields : dict
        Field name, value and unit of each constant in use.
    states : dict
        The states without the membrane potential.
    local_names : dict
        Name of each variable inside ``rates``.
    lines : list of str
        Derived variables in order of evaluation.
    scales : dict
        Field that scales a variable, where its current has no conductance of its own.
    """

    source: Source
    roles: Roles
    equations: Equations
    name: str
    class_name: str
    dt: float = 0.02
    fields: dict[str, tuple[str, float, str]] = field(default_factory=dict)
    states: dict[str, State] = field(default_factory=dict)
    local_names: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    scales: dict[str, str] = field(default_factory=dict)
    channels: dict[str, str] = field(default_factory=dict)

    @property
    def initial_vm(self) -> float:
        """Membrane potential at the start [mV]."""
        return self.source.states[self.roles.membrane] / self.roles.volts

    def rate(self, state: str) -> Expr:
        """Right-hand side of a state in units of the file; a variable if another one uses it."""
        dot = f"dot {state}"
        return ref(dot) if dot in self.lines else self.equations[dot]


def make_plan(
    source: Source,
    *,
    name: str | None = None,
    membrane: str | None = None,
    stimulus: str | None = None,
    time: str | None = None,
) -> Plan:
    """Understand a model file.

    Parameters
    ----------
    source : Source
        Its tables; they are changed.
    name : str, optional
        Name of the model; by default the file's.
    membrane, stimulus, time : str, optional
        Variables with these parts, where the file does not tell.

    Returns
    -------
    Plan
        What to write.

    Raises
    ------
    ModelError
        If the file cannot be used as a cell model.
    """
    _check_numbers(source)
    roles = find_roles(source, membrane, stimulus, time)
    clock = {n: 0.0 for n in source.bound.values()}
    given = {**clock, **source.states, **source.constants}
    source.equations = Guard(source.equations, roles.membrane, given, roles.volts).guarded()
    sampled = state_samples(source.states, roles.membrane, roles.volts)
    values = all_values(source.equations, {**clock, **source.constants, **sampled})
    source.equations = safe_branches(source.equations, values)
    gates = find_gates(source.equations, source.states, _unitless(source, roles), values)
    title = name or snake(source.title).replace("_", "-")
    plan = Plan(source, roles, source.equations, title, _class_name(title))
    _name_states(plan, gates)
    _order(plan)
    _name_fields(plan, find_channels(source))
    _name_locals(plan)
    return plan


def _check_numbers(source: Source) -> None:
    for n, x in (source.states | source.constants).items():
        if not math.isfinite(x):
            raise ModelError(f"{source.file}: {n} = {x} is not a finite number.")
    for n, e in source.equations.items():
        if any(node.op == "num" and not math.isfinite(node.args[0]) for node in walk(e)):
            raise ModelError(f"{source.file}: the equation of {n} has a number that is not finite.")


def _unitless(source: Source, roles: Roles) -> set[str]:
    units = {n: source.units.get(n, DIMENSIONLESS) for n in source.states if n != roles.membrane}
    return {n for n, unit in units.items() if DIMENSIONLESS.per(unit) is not None}


def _class_name(title: str) -> str:
    words = "".join(w[:1].upper() + w[1:] for w in re.split(r"[^0-9A-Za-z]+", title) if w)
    usable = words[:1].isalpha() and words not in _TAKEN and not keyword.iskeyword(words)
    return words if usable else f"Cell{words}"


def _name_states(plan: Plan, gates: dict[str, GateLaw]) -> None:
    source = plan.source
    inner = [n for n in source.states if n != plan.roles.membrane]
    terms = source.annotations
    names = unique(inner, lambda n: field_name(n, terms.get(n, ())), _TAKEN)
    for n in inner:
        unit = source.units.get(n, DIMENSIONLESS)
        factor = concentration_factor(source.units.get(n))
        text = unit.text if factor is None else "mM"
        factor = 1.0 if factor is None else factor
        initial = source.states[n] / factor
        state = State(names[n], initial, text, factor, gates.get(n))
        if state.gate is None and abs(initial) >= LARGE:
            state.offset = initial
        plan.states[n] = state


def _order(plan: Plan) -> None:
    """Lines that the current and the rates need, variables of one component together."""
    equations = plan.equations
    wanted = [ref("i_ion")]
    for n, state in plan.states.items():
        law = state.gate
        wanted += [equations[f"dot {n}"]] if law is None else [law.steady, law.rate]
    plan.lines = equations.ordered(wanted, _component)


def _component(name: str) -> str:
    return name.removeprefix("dot ").split(".")[0]


def _name_fields(plan: Plan, channels: list[Channel]) -> None:
    source = plan.source
    wanted = [ref(n) for n in plan.lines] + [plan.rate(n) for n in plan.states]
    wanted += [e for s in plan.states.values() if s.gate for e in (s.gate.steady, s.gate.rate)]
    used = {n for e in wanted for n in plan.equations.closure(e)}
    constants = [n for n in source.constants if n in used]
    terms = source.annotations
    names = unique(
        constants,
        lambda n: field_name(n, terms.get(n, ()), source.constants[n]),
        _FIELDS,
        GENERIC,
    )
    for n in constants:
        unit = source.units.get(n, DIMENSIONLESS).text
        plan.fields[n] = (names[n], source.constants[n], unit)
    for channel in channels:
        if channel.variable not in plan.lines:
            continue
        if channel.constant in plan.fields:
            plan.channels[channel.name] = plan.fields[channel.constant][0]
        else:
            scale = unique([f"scale.{channel.name}"], lambda n: f"scale_{n[6:]}", names.values())
            plan.scales[channel.variable] = plan.channels[channel.name] = next(iter(scale.values()))


def _name_locals(plan: Plan) -> None:
    states = {n: s.name for n, s in plan.states.items()}
    own = [n for n in plan.lines if n != "i_ion"]
    derived = unique(own, _local, {*_TAKEN, *states.values(), plan.class_name})
    v = {plan.roles.membrane: "vm" if plan.roles.volts == 1 else "v"}
    plan.local_names = {**states, **derived, **v, "i_ion": "i_ion", "i_stim": "i_stim"}


def _local(name: str) -> str:
    if name.startswith("dot "):
        return f"d_{identifier(name.removeprefix('dot '))}"
    return identifier(name)


def scaled(factor: float, e: Expr) -> Expr:
    """``factor * e``."""
    return mul(num(factor), e)
