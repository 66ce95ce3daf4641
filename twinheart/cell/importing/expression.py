"""Expressions of an imported model: small immutable trees, their algebra and their values."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from twinheart.errors import ModelError


@dataclass(frozen=True, slots=True)
class Expr:
    """A node: ``num`` (a float), ``ref`` (the name of a variable) or an operation on nodes.

    Operations are ``+ - * / ** neg``, the elementary functions of `FUNCTIONS`, ``where``,
    comparisons, ``and or not``, ``min``, and ``over_expm1``, the function z / (exp(z) - 1).
    """

    op: str
    args: tuple[Any, ...] = ()


FUNCTIONS: Mapping[str, Callable] = {
    "exp": np.exp,
    "log": np.log,
    "log10": np.log10,
    "sqrt": np.sqrt,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "arcsin": np.arcsin,
    "arccos": np.arccos,
    "arctan": np.arctan,
    "floor": np.floor,
    "ceil": np.ceil,
    "abs": np.abs,
}
COMPARISONS: Mapping[str, Callable] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}
_VALUES: Mapping[str, Callable] = {
    **FUNCTIONS,
    **COMPARISONS,
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "**": np.power,
    "neg": np.negative,
    "min": np.minimum,
    "where": np.where,
    "and": np.logical_and,
    "or": np.logical_or,
    "not": np.logical_not,
}


# --- building, with the simplifications that keep equations readable ----------------------------


def num(value: float | int) -> Expr:
    """A literal."""
    return Expr("num", (float(value),))


def ref(name: str) -> Expr:
    """The value of a variable."""
    return Expr("ref", (name,))


ZERO, ONE = num(0), num(1)


def is_num(e: Expr, value: float | int | None = None) -> bool:
    """Whether a node is a literal (of this value)."""
    return e.op == "num" and (value is None or e.args[0] == value)


def neg(a: Expr) -> Expr:
    """``-a``."""
    if a.op == "num":
        return num(-a.args[0])
    if a.op == "neg":
        return a.args[0]
    if a.op in ("*", "/"):
        coefficient, above, below = factors(a)
        if coefficient < 0:
            return product(-coefficient, above, below)
    return Expr("neg", (a,))


def add(a: Expr, b: Expr) -> Expr:
    """``a + b``."""
    if is_num(a, 0):
        return b
    if is_num(b, 0):
        return a
    if is_num(a) and is_num(b):
        return num(a.args[0] + b.args[0])
    if is_num(b) and b.args[0] < 0:
        return Expr("-", (a, neg(b)))
    return Expr("-", (a, b.args[0])) if b.op == "neg" else Expr("+", (a, b))


def sub(a: Expr, b: Expr) -> Expr:
    """``a - b``."""
    return add(a, neg(b)) if is_num(a, 0) or is_num(b) or b.op == "neg" else Expr("-", (a, b))


def mul(a: Expr, b: Expr) -> Expr:
    """``a * b``."""
    if is_num(a, 0) or is_num(b, 0):
        return ZERO
    if is_num(a, 1):
        return b
    if is_num(b, 1):
        return a
    if is_num(a, -1):
        return neg(b)
    if is_num(b, -1):
        return neg(a)
    return num(a.args[0] * b.args[0]) if is_num(a) and is_num(b) else Expr("*", (a, b))


def div(a: Expr, b: Expr) -> Expr:
    """``a / b``."""
    if is_num(a, 0):
        return ZERO
    if is_num(b, 1):
        return a
    if is_num(a) and is_num(b) and b.args[0]:
        return num(a.args[0] / b.args[0])
    return Expr("/", (a, b))


def ratio(a: Expr, b: Expr) -> Expr:
    """``a / b`` with equal factors cancelled; b is not zero."""
    ca, above, below = factors(a)
    cb, more_below, more_above = factors(b)
    above, below = [*above, *more_above], [*below, *more_below]
    for factor in list(below):
        if factor in above:
            above.remove(factor)
            below.remove(factor)
    return product(ca / cb, above, below)


def factors(e: Expr) -> tuple[float, list[Expr], list[Expr]]:
    """Coefficient, numerators and denominators of a product."""
    if is_num(e) and not is_num(e, 0):
        return float(e.args[0]), [], []
    if e.op == "neg":
        coefficient, above, below = factors(e.args[0])
        return -coefficient, above, below
    if e.op in ("*", "/"):
        ca, above, below = factors(e.args[0])
        cb, above_b, below_b = factors(e.args[1])
        if e.op == "*":
            return ca * cb, above + above_b, below + below_b
        return ca / cb, above + below_b, below + above_b
    return 1.0, [e], []


def product(coefficient: float | int, above: list[Expr], below: list[Expr]) -> Expr:
    """The inverse of `factors`."""
    result = num(coefficient)
    for factor in above:
        result = mul(result, factor)
    if not below:
        return result
    denominator = below[0]
    for factor in below[1:]:
        denominator = mul(denominator, factor)
    return div(result, denominator)


def terms(e: Expr, sign: float = 1.0) -> list[tuple[float, Expr]]:
    """Signed terms of a sum."""
    if e.op == "neg":
        return terms(e.args[0], -sign)
    if e.op in ("+", "-"):
        second = sign if e.op == "+" else -sign
        return terms(e.args[0], sign) + terms(e.args[1], second)
    return [(sign, e)]


# --- looking into trees -------------------------------------------------------------------------


def operands(e: Expr) -> tuple[Expr, ...]:
    """Nodes below a node."""
    return () if e.op in ("num", "ref") else e.args


def walk(e: Expr) -> Iterator[Expr]:
    """A node and all nodes below it."""
    yield e
    for a in operands(e):
        yield from walk(a)


def references(e: Expr) -> list[str]:
    """Names of variables in an expression, each once, in order of appearance."""
    return list(dict.fromkeys(n.args[0] for n in walk(e) if n.op == "ref"))


def rebuilt(e: Expr, change: Callable[[Expr], Expr]) -> Expr:
    """The node with `change` applied to each of its operands; itself where nothing changes."""
    if e.op in ("num", "ref"):
        return e
    args = tuple(change(a) for a in e.args)
    return e if args == e.args else Expr(e.op, args)


def substitute(e: Expr, values: Mapping[str, Expr]) -> Expr:
    """An expression with variables replaced by expressions."""
    if e.op == "ref":
        return values.get(e.args[0], e)
    return rebuilt(e, lambda a: substitute(a, values))


def evaluate(e: Expr, values: Mapping[str, Any]) -> Any:
    """Value of an expression in numpy; not-a-number where it has none."""
    if e.op == "num":
        return np.float64(e.args[0])
    if e.op == "ref":
        return values[e.args[0]]
    args = [evaluate(a, values) for a in e.args]
    if e.op == "over_expm1":
        z = np.where(args[0] == 0, 1e-12, args[0])
        return z / np.expm1(z)
    return _VALUES[e.op](*args)


class Equations(dict[str, Expr]):
    """Definitions of the derived variables of a model, by name."""

    def __init__(self, *given):
        super().__init__(*given)
        self._closures: dict[str, frozenset[str]] = {}

    def closure(self, e: Expr, cut: str | None = None) -> frozenset[str]:
        """Names on which an expression depends, directly or through variables other than `cut`."""
        found: set[str] = set()
        todo = references(e)
        while todo:
            name = todo.pop()
            if name in found:
                continue
            found.add(name)
            if name in self and name != cut:
                if cut is None and name in self._closures:
                    found |= self._closures[name]
                else:
                    todo += references(self[name])
        return frozenset(found)

    def freeze(self) -> None:
        """Remember what every variable depends on; to be called again after a change."""
        self._closures = {}
        self._closures = {name: self.closure(e) for name, e in self.items()}

    def depends(self, e: Expr, name: str) -> bool:
        """Whether an expression depends on a variable, directly or through others."""
        return name in self.closure(e)

    def expanded(self, e: Expr, name: str) -> Expr:
        """An expression with every variable that depends on `name` written out."""
        if e.op == "ref" and e.args[0] != name and e.args[0] in self and self.depends(e, name):
            return self.expanded(self[e.args[0]], name)
        return rebuilt(e, lambda a: self.expanded(a, name))

    def affine(self, e: Expr, name: str) -> tuple[Expr, Expr] | None:
        """``(a, b)`` with ``e = a + b * name``, both independent of `name`; None if there is none.

        The structure of the expression decides, whatever its algebraic arrangement.
        """
        if not self.depends(e, name):
            return e, ZERO
        if e.op == "ref":
            return (ZERO, ONE) if e.args[0] == name else self.affine(self[e.args[0]], name)
        if e.op == "where":
            yes, no = (self.affine(a, name) for a in e.args[1:])
            if yes is None or no is None or self.depends(e.args[0], name):
                return None
            merged = (
                p if p == q else Expr("where", (e.args[0], p, q))
                for p, q in zip(yes, no, strict=True)
            )
            return next(merged), next(merged)
        if e.op not in ("+", "-", "*", "/", "neg"):
            return None
        parts = [self.affine(a, name) for a in e.args]
        if any(p is None for p in parts):
            return None
        return _affine_of(e.op, [p for p in parts if p is not None])

    def degree(self, e: Expr, name: str) -> int | None:
        """Power of `name` to which an expression is proportional, None if it is to none."""
        if not self.depends(e, name):
            return 0
        if e.op == "ref":
            return 1 if e.args[0] == name else self.degree(self[e.args[0]], name)
        parts = [self.degree(a, name) for a in operands(e)]
        if any(p is None for p in parts):
            return None
        known = [p for p in parts if p is not None]
        if e.op == "neg":
            return known[0]
        if e.op == "*":
            return known[0] + known[1]
        if e.op == "/":
            return known[0] - known[1]
        if e.op == "where" and known[0] == 0:
            known = [p for p, a in zip(known[1:], e.args[1:], strict=True) if not is_num(a, 0)]
        elif e.op not in ("+", "-"):
            return 0 if set(known) == {0} else None
        return known[0] if len(set(known)) == 1 else None

    def ordered(self, wanted: list[Expr], group: Callable[[str], str]) -> list[str]:
        """Variables that the wanted expressions need, in order of evaluation, groups together."""
        needed = {n for e in wanted for n in self.closure(e) if n in self}
        waiting = {n: {r for r in references(self[n]) if r in needed} for n in self if n in needed}
        done: list[str] = []
        current = None
        while waiting:
            ready = [n for n, before in waiting.items() if not before]
            if not ready:
                circle = ", ".join(sorted(waiting)[:5])
                raise ModelError(f"equations that need each other cannot be ordered: {circle}.")
            name = next((n for n in ready if group(n) == current), ready[0])
            current = group(name)
            done.append(name)
            del waiting[name]
            for before in waiting.values():
                before.discard(name)
        return done


def _affine_of(op: str, parts: list[tuple[Expr, Expr]]) -> tuple[Expr, Expr] | None:
    (a, b), *rest = parts
    if op == "neg":
        return neg(a), neg(b)
    ((c, d),) = rest
    if op == "+":
        return add(a, c), add(b, d)
    if op == "-":
        return sub(a, c), sub(b, d)
    if op == "*" and is_num(d, 0):
        return mul(a, c), mul(b, c)
    if op == "*" and is_num(b, 0):
        return mul(a, c), mul(a, d)
    if op == "/" and is_num(d, 0):
        return div(a, c), div(b, c)
    return None
