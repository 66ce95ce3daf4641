"""Branches not taken and steep exponentials, kept finite so that gradients are."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from twinheart.cell.importing.expression import (
    ONE,
    Equations,
    Expr,
    evaluate,
    is_num,
    num,
    rebuilt,
)
from twinheart.cell.importing.samples import finite_where

# exp(80) is 6e34: float32 holds it and the products of a sigmoid with it.
STEEP = 80.0


def safe_branches(equations: Equations, values: Mapping[str, Any]) -> Equations:
    """Equations whose ``where`` has finite values in both branches, taken or not.

    A gradient is a product with zero in the branch not taken: not-a-number if that branch is not
    finite. Where sampling shows it, the denominator, the argument of a logarithm, of a root or of
    an exponential is replaced by 1 outside its branch.

    Parameters
    ----------
    equations : Equations
        Equations without removable singularities.
    values : mapping
        Sampled values of all variables.

    Returns
    -------
    Equations
        The safe ones.
    """
    with np.errstate(all="ignore"):
        safe = Equations((n, _safe(e, equations, values)) for n, e in equations.items())
    safe.freeze()
    return safe


def _safe(e: Expr, equations: Equations, values: Mapping[str, Any]) -> Expr:
    e = rebuilt(e, lambda a: _safe(a, equations, values))
    if e.op == "exp" and not _below(e.args[0], values):
        return Expr("exp", (Expr("min", (e.args[0], num(STEEP))),))
    if e.op != "where":
        return e
    condition, yes, no = e.args
    taken = np.asarray(evaluate(condition, values), bool)
    yes = _guarded(yes, condition, taken, equations, values)
    no = _guarded(no, Expr("not", (condition,)), ~taken, equations, values)
    return Expr("where", (condition, yes, no))


def _below(e: Expr, values: Mapping[str, Any]) -> bool:
    found = np.asarray(evaluate(e, values))
    return bool(np.nanmax(found, initial=-np.inf) < STEEP)


def _guarded(
    e: Expr, condition: Expr, taken: Any, equations: Equations, values: Mapping[str, Any]
) -> Expr:
    """A branch whose critical operands are 1 where it is not taken."""
    if finite_where(evaluate(e, values), ~taken) and _all_finite(e, ~taken, values):
        return e
    if e.op == "ref":
        definition = equations.get(e.args[0])
        if definition is None:
            return e
        return _guarded(definition, condition, taken, equations, values)
    inner = rebuilt(e, lambda a: _guarded(a, condition, taken, equations, values))
    if inner.op in ("log", "log10", "sqrt"):
        return Expr(inner.op, (_only(condition, inner.args[0]),))
    if inner.op == "/":
        return Expr("/", (inner.args[0], _only(condition, inner.args[1])))
    if inner.op == "**" and not is_num(inner.args[0]):
        return Expr("**", (_only(condition, inner.args[0]), inner.args[1]))
    return inner


def _only(condition: Expr, e: Expr) -> Expr:
    return Expr("where", (condition, e, ONE))


def _all_finite(e: Expr, mask: Any, values: Mapping[str, Any]) -> bool:
    """Whether every node below is finite where the mask is true."""
    if e.op in ("num", "ref"):
        return True
    if not finite_where(np.asarray(evaluate(e, values), float), mask):
        return False
    return all(_all_finite(a, mask, values) for a in e.args)
