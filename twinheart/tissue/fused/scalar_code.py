"""Straight-line scalar code from a jax function: what a kernel does for one node.

The source of truth stays the jax function. It is traced with arrays of one element, its calls are
inlined, equal expressions computed once and unused ones dropped; what is the same for all nodes,
such as the stimulus of a step, stays with jax. What is left is Python in the dialect of Warp, one
assignment a line, without loops, branches or arrays.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from twinheart.errors import TwinheartError


class UntranslatableError(TwinheartError):
    """A function does something for which scalar code has no form."""


class Code(NamedTuple):
    """Code of a function of scalars.

    Attributes
    ----------
    lines : tuple of str
        Assignments.
    results : tuple of str
        A variable, an argument or a number for each result.
    used : frozenset of str
        Arguments that the lines and results read.
    shared : dict of str to scalar array
        What else they read, which is the same for all nodes.
    """

    lines: tuple[str, ...]
    results: tuple[str, ...]
    used: frozenset[str]
    shared: dict[str, jax.Array]


# One element in, the same element out.
_SAME = {
    "broadcast_in_dim",
    "concatenate",
    "copy",
    "copy_p",
    "expand_dims",
    "optimization_barrier",
    "reduce_max",
    "reduce_min",
    "reduce_sum",
    "reshape",
    "slice",
    "squeeze",
    "stop_gradient",
    "transpose",
}
_FORMS = {
    "abs": "wp.abs({0})",
    "add": "{0} + {1}",
    "add_any": "{0} + {1}",
    "and": "{0} and {1}",
    "atan2": "wp.atan2({0}, {1})",
    "cbrt": "wp.cbrt({0})",
    "ceil": "wp.ceil({0})",
    "clamp": "wp.min(wp.max({1}, {0}), {2})",
    "cos": "wp.cos({0})",
    "cosh": "wp.cosh({0})",
    "div": "{0} / {1}",
    "eq": "{0} == {1}",
    "erf": "wp.erf({0})",
    "exp": "wp.exp({0})",
    "exp2": "wp.pow(2.0, {0})",
    "expm1": "expm1({0})",
    "floor": "wp.floor({0})",
    "ge": "{0} >= {1}",
    "gt": "{0} > {1}",
    "is_finite": "wp.isfinite({0})",
    "le": "{0} <= {1}",
    "log": "wp.log({0})",
    "log1p": "log1p({0})",
    "logistic": "1.0 / (1.0 + wp.exp(-{0}))",
    "lt": "{0} < {1}",
    "max": "wp.max({0}, {1})",
    "min": "wp.min({0}, {1})",
    "mul": "{0} * {1}",
    "ne": "{0} != {1}",
    "neg": "-{0}",
    "not": "not {0}",
    "or": "{0} or {1}",
    "pow": "wp.pow({0}, {1})",
    "rsqrt": "1.0 / wp.sqrt({0})",
    "select_n": "wp.where({0}, {2}, {1})",
    "sign": "wp.sign({0})",
    "sin": "wp.sin({0})",
    "sinh": "wp.sinh({0})",
    "sqrt": "wp.sqrt({0})",
    "square": "{0} * {0}",
    "sub": "{0} - {1}",
    "tan": "wp.tan({0})",
    "tanh": "wp.tanh({0})",
}
_ROUNDING = {"AWAY_FROM_ZERO": "wp.round({0})", "TO_NEAREST_EVEN": "wp.rint({0})"}
_TYPES = {"float32": "wp.float32", "int32": "wp.int32"}


def scalar_code(traced: ClosedJaxpr, arguments: Sequence[str | jax.Array]) -> Code:
    """Code of a function all of whose arrays have one element.

    Parameters
    ----------
    traced : jax.core.ClosedJaxpr
        The function, as from `jax.make_jaxpr`, in float32 and int32.
    arguments : sequence of str or array
        Name of an argument that differs from node to node; the value of any other. What depends on
        these alone is computed here, by jax.

    Returns
    -------
    Code
        The same function.

    Raises
    ------
    UntranslatableError
        If it has another primitive, precision or shape.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from twinheart.tissue.fused.scalar_code import scalar_code
    >>> traced = jax.make_jaxpr(lambda x, a: [x * jnp.exp(-x) + jnp.exp(a)])(1.0, 2.0)
    >>> code = scalar_code(traced, ["x", jnp.asarray(0.0)])
    >>> print("; ".join(code.lines), "->", *code.results)
    v0 = -x; v1 = wp.exp(v0); v2 = x * v1; v3 = v2 + u0 -> v3
    >>> code.shared["u0"].item()
    1.0
    """
    writer = _Writer()
    results = [writer.text(x) for x in writer.inlined(traced, arguments)]
    lines, read = writer.needed_for(results)
    shared = {name: x for name, x in writer.shared.items() if name in read}
    names = {x for x in arguments if isinstance(x, str)}
    return Code(lines, tuple(results), frozenset(read & names), shared)


# A value while a function is written down: text, a number, or what jax holds.
_Value = str | np.ndarray | jax.Array


class _Writer:
    """Expressions and the variables that hold them, in the order of their evaluation."""

    def __init__(self):
        self.held: dict[str, tuple[str, tuple[str, ...]]] = {}
        self.shared: dict[str, jax.Array] = {}
        self.computed: dict[Any, tuple[list[_Value], list[_Value]]] = {}

    def hold(self, form: str, *operands: str) -> str:
        """The variable of an expression, a new one where it is not yet computed."""
        expression = form.format(*operands)
        if expression not in self.held:
            self.held[expression] = (f"v{len(self.held)}", operands)
        return self.held[expression][0]

    def text(self, value: _Value) -> str:
        """A value as an operand of the code."""
        if isinstance(value, str):
            return value
        if isinstance(value, np.ndarray):
            return _number(value)
        for name, known in self.shared.items():
            if known is value:
                return name
        name = f"u{len(self.shared)}"
        self.shared[name] = value
        return name

    def inlined(self, closed: ClosedJaxpr, arguments: Sequence[_Value]) -> list[_Value]:
        """Results of a traced function, whose equations are written down."""
        jaxpr: Jaxpr = closed.jaxpr
        value: dict[Any, _Value] = {}
        for variable, constant in zip(jaxpr.constvars, closed.consts, strict=True):
            value[variable] = np.asarray(constant)
        value.update(zip(jaxpr.invars, arguments, strict=True))

        def read(atom) -> _Value:
            if isinstance(atom, Literal):  # which may hold a number of Python
                aval: Any = atom.aval
                return np.asarray(atom.val, aval.dtype)
            return value[atom]

        for equation in jaxpr.eqns:
            found = self._equation(equation, [read(atom) for atom in equation.invars])
            value.update(zip(equation.outvars, found, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, equation, values: list[_Value]) -> Sequence[_Value]:
        name, parameters = equation.primitive.name, equation.params
        inner = _inner(parameters)
        if inner is not None and len(inner.jaxpr.invars) == len(values):
            return self.inlined(inner, values)
        for variable in equation.outvars:
            if variable.aval.size != 1 or variable.aval.dtype.name not in (*_TYPES, "bool"):
                raise UntranslatableError(f"'{name}' gives {variable.aval.str_short()}.")
        if name in _SAME and len(values) == len(equation.outvars):
            return values
        if any(isinstance(x, jax.Array) for x in values) and not any(
            isinstance(x, str) for x in values
        ):
            return self._computed(equation, values)
        return [self._written(equation, [self.text(x) for x in values])]

    def _computed(self, equation, values: list[Any]) -> list[_Value]:
        """What jax makes of values that it has, once."""
        operands = tuple(_number(x) if isinstance(x, np.ndarray) else id(x) for x in values)
        key = (equation.primitive, operands, str(equation.params))
        if key not in self.computed:
            shaped = [  # a broadcast may have been left out
                jnp.reshape(x, atom.aval.shape)
                for x, atom in zip(values, equation.invars, strict=True)
            ]
            found = equation.primitive.bind(*shaped, **equation.params)
            found = list(found) if equation.primitive.multiple_results else [found]
            self.computed[key] = (values, found)  # the values too: their ids must stay theirs
        return self.computed[key][1]

    def _written(self, equation, operands: list[str]) -> str:
        """The variable of an equation."""
        name = equation.primitive.name
        if name == "convert_element_type":
            kind = equation.outvars[0].aval.dtype.name
            return self._converted(operands[0], equation.invars[0].aval.dtype.name, kind)
        if name == "integer_pow":
            return self._power(operands[0], equation.params["y"])
        form = _FORMS.get(name)
        if name == "round":
            form = _ROUNDING[equation.params["rounding_method"].name]
        if form is None or (name == "select_n" and len(operands) != 3):
            raise UntranslatableError(f"'{name}' has no scalar form.")
        if name == "pow" and equation.invars[1].aval.dtype.name == "int32":
            operands[1] = self._converted(operands[1], "int32", "float32")
        return self.hold(form, *operands)

    def _converted(self, operand: str, old: str, new: str) -> str:
        if old == new:
            return operand
        if old == "bool":
            return self.hold(f"wp.where({{0}}, {_TYPES[new]}(1), {_TYPES[new]}(0))", operand)
        if new == "bool":
            return self.hold(f"{{0}} != {_TYPES[old]}(0)", operand)
        return self.hold(f"{_TYPES[new]}({{0}})", operand)

    def _power(self, base: str, exponent: int) -> str:
        """An integer power by squaring."""
        if exponent < 0:
            return self.hold("1.0 / {0}", self._power(base, -exponent))
        if exponent < 2:
            return base if exponent else "1.0"
        half = self._power(base, exponent // 2)
        square = self.hold("{0} * {1}", half, half)
        return self.hold("{0} * {1}", square, base) if exponent % 2 else square

    def needed_for(self, results: Iterable[str]) -> tuple[tuple[str, ...], set[str]]:
        """Assignments that lead to the results, and everything these read."""
        read, lines = set(results), []
        for expression, (variable, operands) in reversed(self.held.items()):
            if variable in read:
                lines.append(f"{variable} = {expression}")
                read.update(operands)
        return tuple(reversed(lines)), read


def _inner(parameters: dict[str, Any]) -> ClosedJaxpr | None:
    """The function that an equation calls once, if it does."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if name in parameters and "length" not in parameters:
            inner = parameters[name]
            return ClosedJaxpr(inner, ()) if isinstance(inner, Jaxpr) else inner
    return None


def _number(value: np.ndarray) -> str:
    """A number as source text, with its type."""
    if value.size != 1 or value.dtype.name not in (*_TYPES, "bool"):
        raise UntranslatableError(f"a constant is {value.dtype}{list(value.shape)}.")
    if value.dtype == bool:
        return str(bool(value.item()))
    if value.dtype == np.int32:
        return f"({value.item()})" if value.item() < 0 else str(value.item())
    number = float(value.item())
    if not np.isfinite(number):
        return "wp.nan" if np.isnan(number) else "wp.inf" if number > 0 else "(-wp.inf)"
    return f"({number!r})" if number < 0 else repr(number)
