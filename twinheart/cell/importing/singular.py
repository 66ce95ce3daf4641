r"""Removable singularities: 0/0 at one voltage, rewritten so that value and gradient are finite.

Rate functions such as :math:`0.32 (V + 47.13)/(1 - e^{-0.1 (V + 47.13)})` and the fluxes of
Goldman, Hodgkin and Katz are multiples of :math:`z/(e^z - 1)` with z linear in the voltage. They
are found by structure, also where numerator and denominator are variables of their own, and
rewritten with ``over_expm1``. Any other 0/0 is bridged by a cubic through its neighbourhood.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from twinheart.cell.importing.expression import (
    Equations,
    Expr,
    add,
    div,
    evaluate,
    factors,
    mul,
    num,
    product,
    ratio,
    rebuilt,
    ref,
    sub,
    substitute,
    terms,
    walk,
)
from twinheart.cell.importing.samples import HIGHEST, LOWEST, all_values

# Half width of the neighbourhood [mV] a cubic bridges; its error is about (width / slope)^4,
# 1e-9 for the slopes of 10 mV and more that rate functions have.
BRIDGE = 0.1


class Guard:
    """Rewrites the expressions of one model.

    Parameters
    ----------
    equations : Equations
        The derived variables.
    membrane : str
        Name of the membrane potential.
    given : mapping
        Initial states and constants: where the voltage of a singularity is looked for.
    volts : float
        File units of voltage per mV.
    """

    def __init__(self, equations: Equations, membrane: str, given: Mapping[str, Any], volts: float):
        self.equations = equations
        self.membrane = membrane
        self.given = given
        self.volts = volts
        self._grid = np.arange(LOWEST, HIGHEST + 0.005, 0.01) * volts
        self._values: dict[str, Any] = {}

    def guarded(self) -> Equations:
        """The equations without removable singularities."""
        recognised = Equations((n, self._rewritten(e)) for n, e in self.equations.items())
        recognised.freeze()
        self.equations = recognised
        self._values = all_values(recognised, {**self.given, self.membrane: self._grid})
        bridged = Equations((n, self._bridged(e)) for n, e in recognised.items())
        bridged.freeze()
        return bridged

    # --- by structure ---------------------------------------------------------------------------

    def _rewritten(self, e: Expr) -> Expr:
        if e.op in ("*", "/", "neg"):
            found = self._recognised(e)
            if found is not None:
                return rebuilt(found, self._rewritten)
        if e.op == "where":
            condition, yes, no = (self._rewritten(a) for a in e.args)
            # The author's own way around 0/0 tests for equality; the rewritten formula needs none.
            if condition.op == "==" and self._varies(condition) and no != e.args[2]:
                return no
            if condition.op == "!=" and self._varies(condition) and yes != e.args[1]:
                return yes
            return Expr("where", (condition, yes, no))
        return rebuilt(e, self._rewritten)

    def _varies(self, e: Expr) -> bool:
        return self.equations.depends(e, self.membrane)

    def _recognised(self, e: Expr) -> Expr | None:
        """The product with one ``f / (exp(u) - 1)``, or its inverse, written anew."""
        coefficient, above, below = factors(e)
        found = self._paired(above, below)
        if found is not None:
            return ratio(found, num(1 / coefficient))
        inverse = self._paired(below, above)
        return None if inverse is None else ratio(num(coefficient), inverse)

    def _paired(self, above: list[Expr], below: list[Expr]) -> Expr | None:
        """A quotient with an exponential below and something proportional to u above."""
        for k, denominator in enumerate(below):
            pattern = self._expm1(denominator)
            if pattern is None:
                continue
            scale, u = pattern
            coefficient, flat, flat_below = self._flat(above)
            for j, f in enumerate(flat):
                slope = self._proportion(f, u)
                if slope is not None:
                    rest = [*flat[:j], *flat[j + 1 :], slope, Expr("over_expm1", (u,))]
                    others = [*below[:k], *below[k + 1 :], *flat_below]
                    top = product(coefficient, rest, [])
                    return ratio(top, mul(scale, product(1.0, others, [])))
        return None

    def _flat(self, above: list[Expr]) -> tuple[float, list[Expr], list[Expr]]:
        """Factors, with variables that are products themselves written out where voltage enters."""
        coefficient, numerators, denominators = 1.0, [], []
        for factor in above:
            definition = self._resolved(factor)
            if (
                definition.op in ("*", "/", "neg")
                and definition is not factor
                and self._varies(factor)
                and self.equations.affine(factor, self.membrane) is None
            ):
                c, more, more_below = self._flat_of(definition)
                coefficient *= c
                numerators += more
                denominators += more_below
            else:
                numerators.append(factor)
        return coefficient, numerators, denominators

    def _flat_of(self, e: Expr) -> tuple[float, list[Expr], list[Expr]]:
        c, above, below = factors(e)
        more_c, more, more_below = self._flat(above)
        return c * more_c, more, below + more_below

    def _resolved(self, e: Expr) -> Expr:
        while e.op == "ref" and e.args[0] in self.equations:
            e = self.equations[e.args[0]]
        return e

    def _expm1(self, e: Expr) -> tuple[Expr, Expr] | None:
        """``(k, u)`` if an expression is ``k (exp(u) - 1)`` with u linear in the voltage."""
        if not self._varies(e):
            return None
        found = terms(self._resolved(e))
        if len(found) != 2:
            return None
        (s1, t1), (s2, t2) = found
        first, second = self._exponential(t1), self._exponential(t2)
        if first is None or second is None or (first[1] is None and second[1] is None):
            return None
        if second[1] is None:
            (s1, first), (s2, second) = (s2, second), (s1, first)
        k, u = mul(num(s2), second[0]), second[1]
        opposite = mul(num(s1), first[0])
        if u is None or not self._equal(add(k, opposite), None):
            return None
        if first[1] is not None:  # k (exp(u2) - exp(u1)) = k exp(u1) (exp(u2 - u1) - 1)
            k, u = mul(k, Expr("exp", (first[1],))), sub(u, first[1])
        linear = self.equations.affine(u, self.membrane)
        return None if linear is None or not self._varies(u) else (k, u)

    def _exponential(self, e: Expr) -> tuple[Expr, Expr | None] | None:
        """``(k, u)`` if a term is ``k exp(u)``, ``(k, None)`` if it does not know the voltage."""
        if not self._varies(e):
            return e, None
        c, above, below = factors(e)
        moving = [a for a in above if self._varies(a)]
        if len(moving) != 1 or any(self._varies(b) for b in below):
            return None
        inside = self._resolved(moving[0])
        if inside.op != "exp":
            return None
        return product(c, [a for a in above if a is not moving[0]], below), inside.args[0]

    def _proportion(self, f: Expr, u: Expr) -> Expr | None:
        """``f / u`` where it does not depend on the voltage."""
        linear_f = self.equations.affine(f, self.membrane)
        linear_u = self.equations.affine(u, self.membrane)
        if linear_f is None or linear_u is None or not self._varies(f):
            return None
        cross = mul(linear_f[0], linear_u[1])
        if not self._equal(cross, mul(linear_u[0], linear_f[1])):
            return None
        return ratio(linear_f[1], linear_u[1])

    def _equal(self, a: Expr, b: Expr | None) -> bool:
        """Whether two expressions (zero: None) agree for any values of states and constants."""
        b = num(0) if b is None else b
        rng = np.random.default_rng(1)
        names = self.equations.closure(a) | self.equations.closure(b)
        values: dict[str, Any] = {
            n: self.given.get(n, 0.0) * rng.uniform(0.9, 1.1, 5)
            for n in names
            if n not in self.equations
        }
        with np.errstate(all="ignore"):
            for n in self.equations.ordered([a, b], lambda _: ""):
                values[n] = evaluate(self.equations[n], values)
            x, y = evaluate(a, values), evaluate(b, values)
            size = np.abs(x) + np.abs(y)
            parts = [np.abs(evaluate(t, values)) for e in (a, b) for _, t in terms(e)]
            size = np.maximum(size, np.max(np.broadcast_arrays(*parts), axis=0))
        return bool(np.all(np.abs(x - y) <= 1e-10 * size))

    # --- by values ------------------------------------------------------------------------------

    def _bridged(self, e: Expr) -> Expr:
        """The expression with what is left of 0/0 in the voltage bridged."""
        if e.op == "/" and self._varies(e.args[1]):
            for root in self._roots(e):
                return self._bridge(e, root)
        return rebuilt(e, self._bridged)

    def _roots(self, e: Expr) -> list[float]:
        """Voltages [file units] at which numerator and denominator of a fraction vanish."""
        if any(n.op == "over_expm1" for n in walk(e.args[1])):
            return []
        vm = self._grid
        with np.errstate(all="ignore"):
            below = np.broadcast_to(evaluate(e.args[1], self._values), vm.shape)
        size = np.abs(below)
        touching = 1 + np.flatnonzero(size[1:-1] < 1e-6 * np.maximum(size[:-2], size[2:]))
        crossing = np.flatnonzero(np.sign(below[:-1]) * np.sign(below[1:]) < 0)
        found: list[float] = []
        for k in sorted({*touching, *crossing}):
            x = self._refined(e.args[1], vm[k], vm[min(k + 1, len(vm) - 1)])
            if not found or abs(x - found[-1]) > BRIDGE * self.volts:
                found += [x] if all(self._simple_root(a, x) for a in e.args) else []
        return found

    def _simple_root(self, e: Expr, x: float) -> bool:
        """Whether an expression is linear around a root: no saturation lost in rounding is."""
        at = self._along(e, x + BRIDGE * self.volts * np.array([-2.0, -1.0, 0.0, 1.0, 2.0]))
        slopes = np.diff(at)
        mean = slopes.mean()
        linear = np.all(np.abs(slopes - mean) < 0.2 * abs(mean))
        return bool(linear and mean != 0 and abs(at[2]) < 1e-4 * abs(mean))

    def _along(self, e: Expr, vm: Any) -> Any:
        values = {"i_stim": 0.0, **self.given, self.membrane: vm}
        with np.errstate(all="ignore"):
            for n in self.equations.ordered([e], lambda _: ""):
                values[n] = evaluate(self.equations[n], values)
            return np.broadcast_to(evaluate(e, values), np.shape(vm))

    def _refined(self, e: Expr, low: float, high: float) -> float:
        at = self._along(e, np.array([low, high]))
        if np.sign(at[0]) * np.sign(at[1]) >= 0:
            return float(low if abs(at[0]) <= abs(at[1]) else high)
        for _ in range(60):
            middle = 0.5 * (low + high)
            value = self._along(e, np.array([middle]))[0]
            low, high = (middle, high) if value * at[0] > 0 else (low, middle)
        return round(0.5 * (low + high), 9)

    def _bridge(self, e: Expr, root: float) -> Expr:
        written = self.equations.expanded(e, self.membrane)
        width = BRIDGE * self.volts
        v = ref(self.membrane)
        near = Expr("<", (Expr("abs", (sub(v, num(root)),)), num(width)))
        outside = Expr("where", (near, num(root + 2 * width), v))
        s = div(sub(v, num(root)), num(width))
        s2 = mul(s, s)
        inside = num(0)
        # Lagrange's cubic through -2, -1, 1 and 2 widths.
        for at, scale in ((-2, -1 / 12), (-1, 1 / 6), (1, -1 / 6), (2, 1 / 12)):
            value = substitute(written, {self.membrane: num(root + at * width)})
            other = sub(s2, num(4 if abs(at) == 1 else 1))
            weight = mul(mul(num(scale), other), add(s, num(at)))
            inside = add(inside, mul(weight, value))
        return Expr("where", (near, inside, substitute(written, {self.membrane: outside})))
