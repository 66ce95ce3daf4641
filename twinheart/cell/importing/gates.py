"""Which states of an imported model are gates, and the steady state and rate of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from twinheart.cell.importing.expression import (
    ZERO,
    Equations,
    Expr,
    add,
    evaluate,
    is_num,
    neg,
    ratio,
    rebuilt,
    ref,
    references,
)

# A gate lies in [0, 1] up to the rounding of published initial values.
_SLACK = 1e-3


@dataclass(frozen=True)
class GateLaw:
    """``dx/dt = rate (steady - x)``, in units of the file."""

    steady: Expr
    rate: Expr


def find_gates(
    equations: Equations, states: Mapping[str, float], dimensionless: set[str], values: Mapping
) -> dict[str, GateLaw]:
    """Gates among the states.

    A state is a gate if it is dimensionless and between 0 and 1; its derivative is ``a + b x``
    with a and b independent of x, whatever the algebraic arrangement; ``-b`` is positive at all
    voltages; no other state's equation uses the flux ``a + b x`` itself (a buffer, whose
    bound ions must stay those that left the solution); and a and b depend on no other such state
    that depends on x in turn (a Markov scheme, whose probabilities must add up to one).

    Parameters
    ----------
    equations : Equations
        Derived variables and derivatives ``"dot x"``.
    states : mapping
        Initial values.
    dimensionless : set of str
        States that may be gates by their unit.
    values : mapping
        Sampled values of all variables (`twinheart.cell.importing.samples`).

    Returns
    -------
    dict
        Law of every gate.
    """
    laws = {}
    for x in dimensionless:
        if not -_SLACK <= states[x] <= 1 + _SLACK or _shared_flux(equations, states, x):
            continue
        law = _law(equations, x)
        if law is not None and _positive(equations, law.rate, values):
            laws[x] = law
    needs = {x: equations.closure(ref(f"dot {x}")) & laws.keys() for x in laws}
    reach = {x: _reachable(x, needs) for x in laws}
    return {x: laws[x] for x in states if x in laws and x not in reach[x]}


def _law(equations: Equations, x: str) -> GateLaw | None:
    linear = equations.affine(_by_rate(equations[f"dot {x}"], equations, x), x)
    if linear is None:
        return None
    a, b = linear
    if is_num(b, 0):
        return None
    rate = _tidy(neg(b))
    return GateLaw(ZERO if is_num(a, 0) else ratio(a, rate), rate)


def _by_rate(e: Expr, equations: Equations, x: str) -> Expr:
    """A derivative that is a variable of its own, written out."""
    while e.op == "ref" and e.args[0] in equations and equations.depends(e, x):
        e = equations[e.args[0]]
    return e


def _tidy(e: Expr) -> Expr:
    """``-(-a - b)`` as ``a + b``."""
    if e.op == "neg":
        inner = e.args[0]
        if inner.op == "-":
            return add(neg(inner.args[0]), inner.args[1])
        if inner.op == "+":
            return add(neg(inner.args[0]), neg(inner.args[1]))
    return rebuilt(e, _tidy) if e.op in ("+", "-") else e


def _positive(equations: Equations, rate: Expr, values: Mapping[str, Any]) -> bool:
    with np.errstate(all="ignore"):
        found = np.asarray(evaluate(rate, values))
    return bool(np.isfinite(found).all() and (found > 0).all())


def _shared_flux(equations: Equations, states: Mapping[str, float], x: str) -> bool:
    """Whether another state uses dx/dt, or a variable with x that dx/dt is made of."""
    own = {f"dot {x}"}
    todo = [f"dot {x}"]
    while todo:
        for name in references(equations[todo.pop()]):
            if name in equations and name not in own and equations.depends(ref(name), x):
                own.add(name)
                todo.append(name)
    others = [f"dot {y}" for y in states if y != x] + ["i_ion"]
    used = {n for o in others for n in [*equations.closure(ref(o))]}
    return bool(own & used)


def _reachable(start: str, needs: Mapping[str, Any]) -> set[str]:
    """Names that can be reached from one, itself only if there is a way back."""
    found: set[str] = set()
    todo = [n for n in needs[start] if n != start]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += [n for n in needs[name] if n != name]
    return found
