"""The Python module of an imported model, as a syntax tree built node by node.

Nothing of the file reaches the tree but numbers, identifiers made of ASCII letters, and texts
inside string constants: a file cannot bring code.
"""

import ast
from collections.abc import Iterator

from twinheart.cell.importing.expression import COMPARISONS, FUNCTIONS, Expr
from twinheart.cell.importing.plan import Plan, State, scaled

_BINARY = {"+": ast.Add, "-": ast.Sub, "*": ast.Mult, "/": ast.Div, "**": ast.Pow}
_COMPARE = {
    "==": ast.Eq,
    "!=": ast.NotEq,
    "<": ast.Lt,
    "<=": ast.LtE,
    ">": ast.Gt,
    ">=": ast.GtE,
}
_JNP = {"where": "where", "min": "minimum", "and": "logical_and", "or": "logical_or"}
_JNP |= {"not": "logical_not"} | {f: f for f in FUNCTIONS}
assert set(_COMPARE) == set(COMPARISONS)


def module_tree(plan: Plan) -> ast.Module:
    """Syntax tree of the module: imports and one class.

    Parameters
    ----------
    plan : Plan
        The model.

    Returns
    -------
    ast.Module
        What is compiled and, by `twinheart.cell.importing.layout`, printed.
    """
    body = [_text(_module_doc(plan)), *_imports(plan), _class(plan)]
    return ast.fix_missing_locations(ast.Module(body, []))


def rates_lines(plan: Plan) -> Iterator[tuple[str, ast.stmt]]:
    """Statements of ``rates`` with the heading each stands under."""
    yield from _unpacked(plan)
    equations, names = plan.equations, plan.local_names
    for n in plan.lines:
        value = _expression(equations[n], plan)
        if n in plan.scales:
            value = ast.BinOp(_self(plan.scales[n]), ast.Mult(), value)
        group = n.removeprefix("dot ").split(".")[0] if "." in n else "total current [A/F]"
        yield _plain(group), _assign(names[n], value)
    made = []
    for n, state in plan.states.items():
        made.append(_law(plan, n, state))
    yield "gates (steady state, rate [1/ms]) and rates of change", _returned(made)


def _unpacked(plan: Plan) -> Iterator[tuple[str, ast.stmt]]:
    states = plan.states.values()
    if states:
        target = ast.Tuple([_name(s.name, ast.Store()) for s in states], ast.Store())
        yield "", ast.Assign([target], _name("state"), lineno=0)
    roles = plan.roles
    if roles.volts != 1:
        v = ast.BinOp(_number(roles.volts), ast.Mult(), _name("vm"))
        yield "in the units of the file", _assign("v", v)
    for s in states:
        value: ast.expr = _name(s.name)
        if s.offset is not None:
            key = ast.Subscript(_self("offsets"), ast.Constant(s.name), ast.Load())
            value = ast.BinOp(value, ast.Add(), key)
        if s.factor != 1:
            value = ast.BinOp(_number(s.factor), ast.Mult(), value)
        if not isinstance(value, ast.Name):
            yield "in the units of the file", _assign(s.name, value)


def _law(plan: Plan, n: str, state: State) -> ast.expr:
    """``Gate(steady, rate)`` or the time derivative, in our units."""
    times = plan.roles.times
    if state.gate is None:
        return _sized(plan, n, scaled(times / state.factor, plan.rate(n)))
    steady = _sized(plan, n, state.gate.steady)
    rate = _sized(plan, n, scaled(times, state.gate.rate))
    return ast.Call(_name("Gate"), [steady, rate], [])


def _sized(plan: Plan, n: str, e: Expr) -> ast.expr:
    """An expression with the shape of its state, also where it is a constant."""
    moving = {*plan.source.states, "i_stim"}
    value = _expression(e, plan)
    if plan.equations.closure(e) & moving:
        return value
    return _call("full_like", [_name(plan.states[n].name), value])


def _returned(laws: list[ast.expr]) -> ast.stmt:
    result = ast.Tuple([_name("i_ion"), ast.Tuple(laws, ast.Load())], ast.Load())
    return ast.Return(result)


def _expression(e: Expr, plan: Plan) -> ast.expr:
    if e.op == "num":
        return _number(e.args[0])
    if e.op == "ref":
        name = e.args[0]
        return _self(plan.fields[name][0]) if name in plan.fields else _name(plan.local_names[name])
    args = [_expression(a, plan) for a in e.args]
    if e.op in _BINARY:
        return ast.BinOp(args[0], _BINARY[e.op](), args[1])
    if e.op == "neg":
        return ast.UnaryOp(ast.USub(), args[0])
    if e.op in _COMPARE:
        return ast.Compare(args[0], [_COMPARE[e.op]()], [args[1]])
    if e.op == "over_expm1":
        return ast.Call(_name("over_expm1"), args, [])
    return _call(_JNP[e.op], args)


def _number(value: float) -> ast.expr:
    if value < 0:
        return ast.UnaryOp(ast.USub(), _number(-value))
    whole = value == int(value) and value < 1e6
    return ast.Constant(int(value) if whole else value)


def _name(name: str, context: ast.expr_context | None = None) -> ast.Name:
    return ast.Name(name, context or ast.Load())


def _self(name: str) -> ast.expr:
    return ast.Attribute(_name("self"), name, ast.Load())


def _call(function: str, args: list[ast.expr]) -> ast.expr:
    return ast.Call(ast.Attribute(_name("jnp"), function, ast.Load()), args, [])


def _assign(name: str, value: ast.expr) -> ast.stmt:
    return ast.Assign([_name(name, ast.Store())], value, lineno=0)


def _text(text: str) -> ast.stmt:
    return ast.Expr(ast.Constant(text))


def _plain(text: str) -> str:
    """Text that can stand in a comment or docstring: printable ASCII on one line."""
    return "".join(c if " " <= c <= "~" and c not in "\\\"'" else " " for c in text)[:200].strip()


# --- the class ----------------------------------------------------------------------------------


def _imports(plan: Plan) -> list[ast.stmt]:
    model = "twinheart.cell.model"
    gate = ["Gate"] if any(s.gate for s in plan.states.values()) else []
    smooth = any(
        isinstance(node, ast.Name) and node.id == "over_expm1"
        for _, line in rates_lines(plan)
        for node in ast.walk(line)
    )
    found: list[ast.stmt] = [
        _from("typing", "ClassVar"),
        ast.Import([ast.alias("jax.numpy", "jnp")]),
    ]
    if smooth:
        found.append(_from("twinheart.cell.importing.smooth", "over_expm1"))
    names = ["AbstractCellModel", *gate, "Pulse", "as_parameter"]
    names += ["Parameter", "parameter"] if plan.fields or plan.scales else []
    return [*found, _from(model, *sorted(names, key=_import_order))]


def _import_order(name: str) -> tuple[bool, str]:
    return not name[0].isupper(), name


def _from(module: str, *names: str) -> ast.stmt:
    return ast.ImportFrom(module, [ast.alias(n) for n in names], 0)


def _class(plan: Plan) -> ast.stmt:
    body = [_text(_class_doc(plan)), *_tables(plan)]
    for field, value, unit in plan.fields.values():
        body.append(_parameter(field, value, unit))
    body += [_parameter(field, 1.0, None) for field in dict.fromkeys(plan.scales.values())]
    body += [_initial_vm(plan), _rates(plan)]
    return ast.ClassDef(
        name=plan.class_name,
        bases=[_name("AbstractCellModel")],
        keywords=[],
        body=body,
        decorator_list=[],
    )


def _parameter(field: str, value: float, unit: str | None) -> ast.stmt:
    given = [_real(value)] + ([ast.Constant(_plain(unit))] if unit not in (None, "1") else [])
    call = ast.Call(_name("parameter"), given, [])
    return ast.AnnAssign(_name(field, ast.Store()), _name("Parameter"), call, 1)


def _tables(plan: Plan) -> Iterator[ast.stmt]:
    states = plan.states.values()
    yield _table("name", "str", ast.Constant(_plain(plan.name)))
    yield _table("reference", "str", ast.Constant(_plain(plan.source.doi)))
    yield _table("initial", "float", _dict({s.name: _real(s.initial) for s in states}))
    offsets = {s.name: _real(s.offset) for s in states if s.offset is not None}
    yield _table("offsets", "float", _dict(offsets))
    units = {s.name: ast.Constant(_plain(s.unit)) for s in states if s.unit != "1"}
    yield _table("units", "str", _dict(units))
    channels = {k: ast.Constant(v) for k, v in plan.channels.items()}
    yield _table("channels", "str", _dict(channels))
    pulse = ast.Call(_name("Pulse"), [_real(x) for x in plan.roles.pulse], [])
    yield _table("stimulus", "Pulse", pulse)
    yield _table("dt", "float", _real(plan.dt))


def _real(value: float) -> ast.expr:
    return ast.UnaryOp(ast.USub(), _real(-value)) if value < 0 else ast.Constant(float(value))


def _dict(values: dict) -> ast.expr:
    return ast.Dict([ast.Constant(k) for k in values], list(values.values()))


def _table(name: str, kind: str, value: ast.expr) -> ast.stmt:
    inner: ast.expr = _name(kind)
    if isinstance(value, ast.Dict):
        pair = ast.Tuple([_name("str"), inner], ast.Load())
        inner = ast.Subscript(_name("dict"), pair, ast.Load())
    kind_of = ast.Subscript(_name("ClassVar"), inner, ast.Load())
    return ast.AnnAssign(_name(name, ast.Store()), kind_of, value, 1)


def _function(name: str, arguments: ast.arguments, body: list[ast.stmt]) -> ast.stmt:
    return ast.FunctionDef(name=name, args=arguments, body=body, decorator_list=[], lineno=0)


def _arguments(names: list[str], defaults: list[ast.expr]) -> ast.arguments:
    return ast.arguments(
        posonlyargs=[],
        args=[ast.arg(n) for n in names],
        kwonlyargs=[],
        kw_defaults=[],
        defaults=defaults,
    )


def _initial_vm(plan: Plan) -> ast.stmt:
    value = ast.Call(_name("as_parameter"), [_real(plan.initial_vm)], [])
    body = [_text("Membrane potential at the start [mV]."), ast.Return(value)]
    return _function("initial_vm", _arguments(["self"], []), body)


def _rates(plan: Plan) -> ast.stmt:
    doc = "Ionic current [A/F], gates and rates of change; see `AbstractCellModel.rates`."
    arguments = _arguments(["self", "vm", "state", "i_stim"], [ast.Constant(0.0)])
    return _function("rates", arguments, [_text(doc), *(s for _, s in rates_lines(plan))])


# --- texts --------------------------------------------------------------------------------------


def _module_doc(plan: Plan) -> str:
    source = plan.source
    file = _plain(source.file)
    return (
        f"{_plain(source.title)}: imported from {file}.\n\nSource: {file}, "
        f"sha256\n{source.sha256}.\n"
    )


def _class_doc(plan: Plan) -> str:
    gates = [s.name for s in plan.states.values() if s.gate]
    others = [s.name for s in plan.states.values() if not s.gate]
    roles = plan.roles
    stimulus = _plain(roles.stimulus or "none in the file")
    parts = [
        f"{_plain(plan.source.title)} of {_plain(plan.source.file)}.",
        f"Membrane potential: {_plain(roles.membrane)}. Stimulus: {stimulus}.",
        f"Gates (Rush-Larsen): {', '.join(gates) or 'none'}.",
        f"Forward Euler: {', '.join(others) or 'none'}.",
    ]
    parts += [f"References: {_plain(plan.source.doi)}."] if plan.source.doi else []
    return "\n\n    ".join(_filled(p) for p in parts) + "\n    "


def _filled(text: str) -> str:
    import textwrap

    return "\n    ".join(textwrap.wrap(text, 94))
