"""What the variables of a model file stand for: membrane potential, time, stimulus."""

import re
from dataclasses import dataclass

import numpy as np

from twinheart.cell.importing.expression import (
    Equations,
    Expr,
    evaluate,
    is_num,
    mul,
    neg,
    num,
    ratio,
    ref,
    references,
)
from twinheart.cell.importing.read import Source
from twinheart.cell.importing.units import (
    MILLIVOLT,
    check_rate,
    time_factor,
    voltage_factor,
)
from twinheart.errors import ModelError

_MEMBRANE = re.compile(r"^(v|vm|v_m|e|e_m|em|u|v_?membrane|membrane_?(potential|voltage))$", re.I)
_STIMULUS = re.compile(
    r"^(i_?|j_?)?stim(ulus)?(_?current|_?tot(al)?)?$|^i_?st$|^stim_?i$|^i_?app(lied)?$", re.I
)
# Used where a file does not tell its stimulus.
DEFAULT_PULSE = (50.0, 1.0)


@dataclass(frozen=True)
class Roles:
    """The variables with a special part.

    Attributes
    ----------
    membrane, time : str
        Names in the file; `time` is empty where the equations have none.
    stimulus : str or None
        The stimulus current, if the file has one.
    volts, times : float
        File units of voltage per mV and of time per ms.
    pulse : tuple
        Amplitude [A/F], positive depolarises, and duration [ms] of the stimulus.
    """

    membrane: str
    time: str
    stimulus: str | None
    volts: float
    times: float
    pulse: tuple[float, float]


def find_roles(
    source: Source, membrane: str | None, stimulus: str | None, time: str | None
) -> Roles:
    """Recognise membrane potential, time and stimulus, and let the stimulus be ours.

    The equation of the stimulus becomes the one that turns ``i_stim`` [A/F, positive
    depolarises] into the file's units and sign; ``i_ion`` [A/F] is added to the equations.

    Parameters
    ----------
    source : Source
        The file's tables; its equations are changed.
    membrane, stimulus, time : str, optional
        Names given by the user; by default metadata, labels and usual names decide.

    Returns
    -------
    Roles
        What was found.

    Raises
    ------
    ModelError
        If a role cannot be given, units do not fit, or the equations depend on time.
    """
    source.equations.freeze()
    v = _membrane(source, membrane)
    clock = _named(source, time, "time") if time else source.bound.get("time", "")
    volts = voltage_factor(source.file, v, source.units.get(v))
    times = time_factor(source.file, source.units.get(clock))
    check_rate(source.file, v, source.rate_units[v], volts, times)
    current = _stimulus(source, stimulus, v)
    equations = source.equations
    linear = equations.affine(equations[f"dot {v}"], current) if current else None
    pulse = DEFAULT_PULSE
    if current:
        slope = _slope(source, current, linear)
        pulse = _pulse(source, current, slope, volts, times)
        equations[current] = mul(num(volts / times), ratio(ref("i_stim"), slope))
    ionic = linear[0] if linear else equations[f"dot {v}"]
    equations["i_ion"] = neg(mul(num(times / volts), ionic))
    equations.freeze()
    _refuse_time(source, clock, v)
    return Roles(v, clock, current, volts, times, pulse)


def _named(source: Source, name: str, role: str) -> str:
    """Full name of a variable given as ``component.variable`` or as ``variable``."""
    known = [*source.states, *source.equations, *source.constants, *source.bound.values()]
    known = [k for k in known if not k.startswith("dot ")]
    found = [k for k in known if k == name] or [k for k in known if k.split(".")[-1] == name]
    if len(found) == 1:
        return found[0]
    got = "several variables" if found else "no variable"
    raise ModelError(
        f"{source.file} has {got} {name!r} to be the {role}; give it as component.variable"
        + (f": {', '.join(found)}." if found else ".")
    )


def _membrane(source: Source, given: str | None) -> str:
    if given:
        name = _named(source, given, "membrane potential")
        if name in source.states:
            return name
        raise ModelError(f"{source.file}: {name} is no state; the membrane potential must be one.")
    candidates = [source.labels.get("membrane_potential", "")]
    candidates += [n for n, t in source.annotations.items() if "membrane_voltage" in t]
    by_name = [n for n in source.states if _MEMBRANE.match(n.split(".")[-1])]
    volt = [n for n in source.states if _is_voltage(source, n)]
    candidates += [n for n in by_name if n in volt] if len(volt) > 1 else volt
    candidates += by_name if len(by_name) == 1 else []
    for name in candidates:
        if name in source.states:
            return name
    raise ModelError(
        f"{source.file} has no membrane potential that can be recognised; name the state with the "
        f"option membrane. States: {', '.join(source.states) or 'none'}."
    )


def _is_voltage(source: Source, name: str) -> bool:
    unit = source.units.get(name)
    return unit is not None and MILLIVOLT.per(unit) is not None


def _stimulus(source: Source, given: str | None, membrane: str) -> str | None:
    if given:
        name = _named(source, given, "stimulus")
        if name in source.states:
            raise ModelError(f"{source.file}: the stimulus {name} is a state; expected a current.")
        source.equations.setdefault(name, num(source.constants.pop(name, 0.0)))
        return name
    dot = source.equations[f"dot {membrane}"]
    needed = [n for n in source.equations if n in source.equations.closure(dot)]
    tagged = [n for n in needed if "membrane_stimulus_current" in source.annotations.get(n, ())]
    named = [n for n in needed if _STIMULUS.match(n.split(".")[-1])]
    # Of several in a chain the first one is used: the others are made of it.
    pace = source.bound.get("pace")
    paced = [n for n in needed if pace and pace in _direct(source.equations, n)]
    for found in (tagged, paced, named):
        if found:
            return found[0]
    constant = [n for n in source.constants if _STIMULUS.match(n.split(".")[-1])]
    if len(constant) == 1 and constant[0] in source.equations.closure(dot):
        source.equations[constant[0]] = num(source.constants.pop(constant[0]))
        source.equations.freeze()
        return constant[0]
    return None


def _direct(equations: Equations, name: str) -> list[str]:
    return references(equations[name])


def _slope(source: Source, current: str, linear: tuple[Expr, Expr] | None) -> Expr:
    """Change of dV/dt by a unit of the stimulus, a constant."""
    slope = linear[1] if linear else None
    varying = slope and source.equations.closure(slope) & {*source.states, *source.bound.values()}
    if slope is None or varying or is_num(slope, 0):
        raise ModelError(
            f"{source.file}: the stimulus {current} must enter dV/dt linearly and with a constant "
            "factor; name another variable with the option stimulus."
        )
    return slope


def _pulse(
    source: Source, current: str, slope: Expr, volts: float, times: float
) -> tuple[float, float]:
    """Amplitude [A/F] and duration [ms] as far as the file tells them."""
    level, _, length = source.pulse or (1.0, 0.0, 2.0 * times)
    values = dict(source.constants)
    values |= {n: level for role, n in source.bound.items() if role == "pace"}
    used = source.equations.closure(source.equations[current])
    amplitude = duration = None
    for name in used & source.constants.keys():
        terms = source.annotations.get(name, ())
        short = name.split(".")[-1].lower()
        if "membrane_stimulus_current_amplitude" in terms or "amp" in short:
            amplitude = source.constants[name]
        if "membrane_stimulus_current_duration" in terms or "dur" in short:
            duration = source.constants[name]
    needs_time = source.bound.get("time") in used
    with np.errstate(all="ignore"):
        for n in source.equations.ordered([slope], lambda _: ""):
            values[n] = evaluate(source.equations[n], values)
        factor = float(evaluate(slope, values)) * times / volts
        if not needs_time and not used & source.states.keys():
            for n in source.equations.ordered([ref(current)], lambda _: ""):
                values[n] = evaluate(source.equations[n], values)
            amplitude = float(values[current])
    duration = (length if duration is None else duration) / times
    strength = 0.0 if amplitude is None else amplitude * factor
    if not (np.isfinite(strength) and strength > 0 and 0 < duration < 100):
        return DEFAULT_PULSE
    return float(f"{strength:.6g}"), float(f"{duration:.6g}")


def _refuse_time(source: Source, clock: str, membrane: str) -> None:
    """Nothing but the stimulus may know the time or myokit's pace."""
    equations = source.equations
    wanted = ["i_ion", *(f"dot {n}" for n in source.states if n != membrane)]
    for role, name in (("pace", source.bound.get("pace")), ("time", clock)):
        guilty = [
            n
            for n in dict.fromkeys(x for w in wanted for x in [w, *equations.closure(ref(w))])
            if name and n in equations and name in _direct(equations, n)
        ]
        if guilty:
            what = "myokit's pace" if role == "pace" else "time"
            raise ModelError(
                f"{source.file}: {guilty[0]} depends on {what}, not only through the stimulus; "
                "if it is the stimulus, name it with the option stimulus."
            )
