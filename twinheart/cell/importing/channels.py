"""Currents and fluxes of an imported model and the one parameter each is proportional to."""

from dataclasses import dataclass

from twinheart.cell.importing.expression import Equations, Expr, factors, ref, terms
from twinheart.cell.importing.names import (
    conductance_rank,
    current_name,
    flux_name,
    is_standard,
)
from twinheart.cell.importing.read import Source


@dataclass(frozen=True)
class Channel:
    """A current or flux.

    Attributes
    ----------
    name : str
        Its name in the library, or the file's own.
    variable : str
        The variable of the file.
    constant : str or None
        The constant it is proportional to and nothing else depends on; None: a scale is added.
    """

    name: str
    variable: str
    constant: str | None


def find_channels(source: Source) -> list[Channel]:
    """Currents that are summed in ``i_ion``, and the fluxes of the sarcoplasmic reticulum.

    Parameters
    ----------
    source : Source
        Tables with ``i_ion`` among the equations.

    Returns
    -------
    list of Channel
        In the order of the sum.
    """
    equations = source.equations
    outputs = ["i_ion", *(f"dot {n}" for n in source.states)]
    outputs = [o for o in outputs if o in equations]
    found = _summed(source, equations["i_ion"]) or []
    named = [(current_name(n), n) for n in dict.fromkeys(found)]
    in_use = {n for o in outputs for n in equations.closure(ref(o))}
    named += [
        (name, n)
        for n in equations
        if n in in_use and n not in found and (name := flux_name(n)) is not None
    ]
    channels, used = [], set()
    for name, variable in named:
        unique = name if name not in used else f"{name}_{len(used)}"
        used.add(unique)
        channels.append(Channel(unique, variable, _strength(source, variable, outputs)))
    return channels


def _summed(source: Source, e: Expr) -> list[str] | None:
    """Variables of which an expression is a sum with constant factors, None if it is no such sum.

    A variable that is such a sum itself is looked into, unless it has the name of a current.
    """
    equations = source.equations
    moving = {*source.states}
    found: list[str] = []
    for _, term in terms(e):
        _, above, below = factors(term)
        varying = [f for f in above if equations.closure(f) & moving]
        if any(equations.closure(f) & moving for f in below) or len(varying) != 1:
            return None
        (factor,) = varying
        if factor.op in ("+", "-"):
            inner = _summed(source, factor)
        elif factor.op == "ref" and factor.args[0] in equations:
            name = factor.args[0]
            inner = None if is_standard(name) else _summed(source, equations[name])
            inner = [name] if inner is None else inner
        else:
            inner = None
        if inner is None:
            return None
        found += inner
    return found


def _strength(source: Source, variable: str, outputs: list[str]) -> str | None:
    """The constant a variable is proportional to, if it acts through this variable only."""
    equations = source.equations
    cut = Equations(equations)
    del cut[variable]
    cut.freeze()
    elsewhere = {n for o in outputs for n in cut.closure(ref(o)) if o in cut}
    candidates = [
        n
        for n in source.constants
        if n in equations.closure(ref(variable))
        and n not in elsewhere
        and equations.degree(equations[variable], n) == 1
    ]
    ranked = sorted(candidates, key=lambda n: conductance_rank(n, source.annotations.get(n, ())))
    if not ranked:
        return None
    rank = conductance_rank(ranked[0], source.annotations.get(ranked[0], ()))
    return ranked[0] if len(ranked) == 1 or rank < 9 else None
