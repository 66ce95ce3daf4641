"""A syntax tree as text that reads well: headings, and long lines broken at their operators."""

import ast
from collections.abc import Iterable

WIDTH = 100


def module_text(tree: ast.Module, headings: Iterable[tuple[str, ast.stmt]]) -> str:
    """Source text of a generated module; parsing it gives the tree again.

    Parameters
    ----------
    tree : ast.Module
        Imports and one class.
    headings : iterable of (str, ast.stmt)
        Statements of the method ``rates`` with the heading each stands under.

    Returns
    -------
    str
        The text.
    """
    *head, cell = tree.body
    assert isinstance(cell, ast.ClassDef)
    doc, standard, third, *own = (_statement(s, 0) for s in head)
    text = "\n\n".join([doc, standard, third, "\n".join(own)])
    bases = ", ".join(ast.unparse(b) for b in cell.bases)
    lines = [f"class {cell.name}({bases}):"]
    previous: ast.stmt | None = None
    for s in cell.body:
        if (previous is not None and _group(s) != _group(previous)) or _group(s) == "method":
            lines.append("")
        lines += _member(s, headings)
        previous = s
    # Texts of the tree hold no quotes, so every one of these delimits a string.
    return (f"{text}\n\n\n" + "\n".join(lines) + "\n").replace("'", '"')


def _group(s: ast.stmt) -> str:
    if isinstance(s, ast.FunctionDef):
        return "method"
    if isinstance(s, ast.AnnAssign):
        return "table" if "ClassVar" in ast.unparse(s.annotation) else "parameter"
    return "doc"


def _member(s: ast.stmt, headings: Iterable[tuple[str, ast.stmt]]) -> list[str]:
    if not isinstance(s, ast.FunctionDef):
        return [_statement(s, 4)]
    lines = [f"    def {s.name}({ast.unparse(s.args)}):"]
    if s.name != "rates":
        return lines + [_statement(x, 8) for x in s.body]
    lines.append(_statement(s.body[0], 8))
    current = ""
    for heading, x in headings:
        if heading != current:
            lines += ["", f"        # {heading}"]
            current = heading
        lines.append(_statement(x, 8))
    return lines


def _statement(s: ast.stmt, indent: int) -> str:
    """A statement on one line if it fits, else with its value in brackets over several."""
    pad = " " * indent
    if isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant):
        return f'{pad}"""{s.value.value}"""'  # a docstring; the tree holds harmless ones only
    text = ast.unparse(s)
    if len(pad) + len(text) <= WIDTH:
        return pad + text
    if isinstance(s, ast.ImportFrom):
        names = "".join(f"{pad}    {a.name},\n" for a in s.names)
        return f"{pad}from {s.module} import (\n{names}{pad})"
    if isinstance(s, ast.Return) and s.value is not None:
        return f"{pad}return {_broken(s.value, indent)}"
    if isinstance(s, ast.Assign):
        left = f"{pad}{ast.unparse(s.targets[0])} = "
        if isinstance(s.targets[0], ast.Tuple):
            return f"{pad}{_broken(s.targets[0], indent)} = {ast.unparse(s.value)}"
        return left + _broken(s.value, indent)
    if isinstance(s, ast.AnnAssign) and s.value is not None:
        left = f"{pad}{ast.unparse(s.target)}: {ast.unparse(s.annotation)} = "
        return left + _broken(s.value, indent)
    return pad + text


def _broken(e: ast.expr, indent: int) -> str:
    """An expression over several lines; brackets open at `indent`."""
    pad, inner = " " * indent, " " * (indent + 4)
    if isinstance(e, ast.Tuple):
        items = "".join(f"{inner}{_piece(x, indent + 4, 1)},\n" for x in e.elts)
        return f"(\n{items}{pad})"
    if isinstance(e, ast.Call):
        items = "".join(f"{inner}{_argument(x, indent)},\n" for x in e.args)
        return f"{ast.unparse(e.func)}(\n{items}{pad})"
    if isinstance(e, ast.Dict):
        pairs = zip(e.keys, e.values, strict=True)
        items = "".join(f"{inner}{ast.unparse(k)}: {ast.unparse(v)},\n" for k, v in pairs if k)
        return f"{{\n{items}{pad}}}"
    if isinstance(e, ast.BinOp) and not isinstance(e.op, ast.Pow):
        return f"(\n{inner}{_chained(e, indent)}\n{pad})"
    if isinstance(e, ast.UnaryOp) and isinstance(e.op, ast.USub):
        return f"-{_broken(e.operand, indent)}"
    return ast.unparse(e)


def _argument(e: ast.expr, indent: int) -> str:
    """An argument on lines of its own, where a broken chain needs no brackets."""
    text = _piece(e, indent + 4, 1)
    if "\n" in text and isinstance(e, ast.BinOp) and not isinstance(e.op, ast.Pow):
        return _chained(e, indent)
    return text


def _chained(e: ast.BinOp, indent: int) -> str:
    """A chain of operators, one operand a line."""
    lines = []
    for sign, x in _chain(e):
        bracket = _needs_bracket(e, x, sign)
        lines.append(sign + _piece(x, indent + 4, len(sign), bracket=bracket))
    return f"\n{' ' * (indent + 4)}".join(lines)


def _piece(e: ast.expr, indent: int, before: int, *, bracket: bool = False) -> str:
    text = f"({ast.unparse(e)})" if bracket else ast.unparse(e)
    if indent + before + len(text) + 1 <= WIDTH:
        return text
    return _broken(e, indent)


_SIGNS = {ast.Add: "+ ", ast.Sub: "- ", ast.Mult: "* ", ast.Div: "/ "}


def _chain(e: ast.BinOp) -> list[tuple[str, ast.expr]]:
    """Operands of a chain of operators of equal precedence, left to right, with their signs."""
    sums = isinstance(e.op, ast.Add | ast.Sub)
    kinds = (ast.Add, ast.Sub) if sums else (ast.Mult, ast.Div)
    found: list[tuple[str, ast.expr]] = []
    node: ast.expr = e
    while isinstance(node, ast.BinOp) and isinstance(node.op, kinds):
        found.append((_SIGNS[type(node.op)], node.right))
        node = node.left
    found.append(("", node))
    return found[::-1]


def _needs_bracket(chain: ast.BinOp, operand: ast.expr, sign: str) -> bool:
    """Whether an operand of a chain of sums or of products must stand in brackets."""
    if not isinstance(operand, ast.BinOp) or isinstance(operand.op, ast.Pow):
        return False
    is_sum = isinstance(operand.op, ast.Add | ast.Sub)
    if isinstance(chain.op, ast.Add | ast.Sub):
        return is_sum and sign != ""
    return is_sum or sign != ""
