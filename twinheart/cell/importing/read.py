"""A model file, from a stranger, as plain tables: read by myokit after it was found harmless."""

import hashlib
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twinheart.cell.importing.expression import (
    ONE,
    Equations,
    Expr,
    div,
    num,
    ref,
    references,
)
from twinheart.cell.importing.units import Unit
from twinheart.errors import ModelError

MAX_BYTES = 20_000_000
MAX_VARIABLES = 5000

_CELLML = re.compile(r"http://www\.cellml\.org/cellml/(1\.0|1\.1|2\.0)#$")
_MATHML = "http://www.w3.org/1998/Math/MathML"
_OXMETA = "oxford-metadata#"
_DOI = re.compile(r"10\.\d{4,9}/[-._;()/:A-Za-z0-9]*[A-Za-z0-9]")
# Elements that stand for something these equations cannot hold.
_UNSUPPORTED = {
    "import": "parts imported from other files; flatten it into one file",
    "reset": "a reset, that is an event",
    "reaction": "a reaction element",
    "partialdiff": "a partial differential equation",
    "delay": "a delay",
    "event": "an event",
}
_OPERATIONS = {
    "Plus": "+",
    "Minus": "-",
    "Multiply": "*",
    "Divide": "/",
    "Power": "**",
    "PrefixMinus": "neg",
    "Equal": "==",
    "NotEqual": "!=",
    "Less": "<",
    "LessEqual": "<=",
    "More": ">",
    "MoreEqual": ">=",
    "And": "and",
    "Or": "or",
    "Not": "not",
    "ASin": "arcsin",
    "ACos": "arccos",
    "ATan": "arctan",
} | {name.title(): name for name in ("exp", "log10", "sqrt", "sin", "cos", "tan")}
_OPERATIONS |= {"Floor": "floor", "Ceil": "ceil", "Abs": "abs"}


@dataclass
class Source:
    """What a model file says, in its own units.

    Attributes
    ----------
    states : dict
        Initial value of every state, by ``component.variable``.
    equations : Equations
        Right-hand sides of the derived variables; the derivative of state x is ``"dot x"``.
    constants : dict
        Values of the constants; equations made of literals only are folded.
    units : dict
        Unit of each variable that has one.
    rate_units : dict
        Unit of the right-hand side of every state as the file's own units give it, or the reason
        why there is none.
    bound : dict
        Variables supplied from outside: ``"time"``, ``"pace"``.
    labels, annotations : dict
        Variable of each myokit label; Oxford metadata terms of each annotated variable.
    pulse : tuple
        Level, start and duration of the first event of a myokit protocol.
    """

    file: str
    sha256: str
    title: str
    doi: str
    states: dict[str, float] = field(default_factory=dict)
    equations: Equations = field(default_factory=Equations)
    constants: dict[str, float] = field(default_factory=dict)
    units: dict[str, Unit] = field(default_factory=dict)
    rate_units: dict[str, Unit | str | None] = field(default_factory=dict)
    bound: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, tuple[str, ...]] = field(default_factory=dict)
    pulse: tuple[float, float, float] | None = None


def content(path: Path) -> bytes:
    """Bytes of a model file; a `ModelError` where it is missing or too large."""
    try:
        size = path.stat().st_size
        if size <= MAX_BYTES:
            return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"cannot read cell model {path}: {error.strerror}; expected a .cellml or .mmt file."
        ) from None
    raise ModelError(
        f"{path}: {size / 1e6:.0f} MB is no cell model; at most {MAX_BYTES / 1e6:.0f} MB are read."
    )


def read_source(path: Path, data: bytes) -> Source:
    """Tables of a CellML or mmt file.

    Parameters
    ----------
    path : Path
        Where the file is; its suffix tells the format.
    data : bytes
        Its content.

    Returns
    -------
    Source
        What it says.

    Raises
    ------
    ModelError
        If it cannot be read, or says something that cannot be a cell model here.
    """
    try:
        import myokit
    except ImportError:
        raise ModelError(
            f"{path}: importing a cell model needs myokit, which is not installed: "
            "pip install 'twinheart[cellml]'."
        ) from None
    from lxml.etree import LxmlError

    read = _read_mmt if path.suffix.lower() == ".mmt" else _read_cellml
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # myokit's remarks on units; ours are errors
            return read(path, data)
    except RecursionError:
        raise ModelError(f"{path}: its expressions are nested too deeply.") from None
    except (myokit.MyokitError, LxmlError, ValueError, ArithmeticError, KeyError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"{path} cannot be imported: {text[:300]}") from None


def _read_mmt(path: Path, data: bytes) -> Source:
    import myokit

    text = _decoded(path, data)
    model: Any
    protocol: Any
    model, protocol, _ = myokit.parse(text)
    if model is None:
        raise ModelError(f"{path} has no [[model]] section; expected a Myokit model.")
    source = _tables(path, data, text, model)
    source.annotations = {
        v.qname(): (v.meta["oxmeta"],) for v in model.variables(deep=True) if "oxmeta" in v.meta
    }
    if protocol is not None and protocol.head() is not None:
        event = protocol.head()
        source.pulse = (event.level(), event.start(), event.duration())
    return source


def _read_cellml(path: Path, data: bytes) -> Source:
    from lxml.etree import XMLParser, fromstring
    from myokit.formats.cellml import v1, v2

    root = _checked_xml(path, data)
    parser = XMLParser(
        remove_comments=True, resolve_entities=False, no_network=True, load_dtd=False
    )
    version = v2 if root.tag.startswith("{http://www.cellml.org/cellml/2.0#") else v1
    try:
        cellml = version.CellMLParser().parse(fromstring(data, parser))
        cellml.validate()
        without = _without_value(path, cellml) if version is v1 else set()
        model = cellml.myokit_model()
    except (v1.CellMLParsingError, v1.CellMLError, v2.CellMLParsingError, v2.CellMLError) as error:
        raise ModelError(f"{path} cannot be imported: {' '.join(str(error).split())}") from None
    source = _tables(path, data, data.decode("utf-8", "replace"), model)
    for name, e in source.equations.items():
        for missing in without.intersection(references(e)):
            raise ModelError(f"{path}: {missing}, used by {name}, has neither value nor equation.")
    source.annotations = {
        name: tuple(found)
        for name, found in _annotations(root).items()
        if name in source.states or name in source.equations or name in source.constants
    }
    return source


def _without_value(path: Path, cellml: Any) -> set[str]:
    """Variables without value, which myokit would take as zero; a state without one is refused."""
    found = set()
    for component in cellml:
        for v in component:
            name = f"{component.name()}.{v.name()}"
            if v.initial_value() is None and v.is_state():
                raise ModelError(f"{path}: state {name} has no initial value.")
            if v.value_source() is v and v.rhs_or_initial_value() is None and not v.is_free():
                found.add(name)
    return found


def _checked_xml(path: Path, data: bytes) -> Any:
    """Root of the document after everything dangerous and unsupported was refused."""
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        root = fromstring(data, forbid_dtd=True, forbid_entities=True, forbid_external=True)
    except DefusedXmlException:
        raise ModelError(
            f"{path} has a document type or entities, which no CellML file needs; remove them."
        ) from None
    except (ParseError, ValueError, LookupError) as error:
        raise ModelError(f"{path} is not XML: {error}; expected a CellML file.") from None
    space, tag = _split(root.tag)
    if not _CELLML.match(space) or tag != "model":
        raise ModelError(
            f"{path} is XML but not CellML: its root is <{tag}> of {space or 'no namespace'!r}; "
            "expected <model> of http://www.cellml.org/cellml/1.0#."
        )
    for element in root.iter():
        space, tag = _split(element.tag)
        if tag == "csymbol":
            tag = element.get("definitionURL", "").rsplit("/", 1)[-1]
        if tag in _UNSUPPORTED and (_CELLML.match(space) or space == _MATHML):
            raise ModelError(f"{path} has {_UNSUPPORTED[tag]}: it cannot be imported.")
    return root


def _split(tag: Any) -> tuple[str, str]:
    """Namespace and name of a tag."""
    if not isinstance(tag, str):
        return "", ""
    space, _, name = tag.rpartition("}")
    return space.removeprefix("{"), name


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ModelError(f"{path} is not text; expected a Myokit model.") from None


def _annotations(root: Any) -> dict[str, list[str]]:
    """Oxford metadata terms of the variables of a CellML document, by ``component.variable``."""
    names = {}
    for component in root.iter():
        if _split(component.tag)[1] == "component":
            for variable in component.iter():
                ids = [v for k, v in variable.attrib.items() if _split(k)[1] == "id"]
                if _split(variable.tag)[1] == "variable" and ids:
                    names[ids[0]] = f"{component.get('name')}.{variable.get('name')}"
    found: dict[str, list[str]] = {}
    for about, term in _descriptions(root):
        if about in names and term not in found.setdefault(names[about], []):
            found[names[about]].append(term)
    return found


def _descriptions(root: Any) -> Iterator[tuple[str, str]]:
    for description in root.iter():
        if _split(description.tag)[1] != "Description":
            continue
        about = [v for k, v in description.attrib.items() if _split(k)[1] == "about"]
        for child in description:
            for key, value in child.attrib.items():
                if about and _split(key)[1] == "resource" and _OXMETA in value:
                    yield about[0].removeprefix("#"), value.split(_OXMETA)[1]


def _tables(path: Path, data: bytes, text: str, model: Any) -> Source:
    model.validate()
    variables = list(model.variables(deep=True))
    if len(variables) > MAX_VARIABLES:
        raise ModelError(
            f"{path} has {len(variables)} variables; at most {MAX_VARIABLES} are imported."
        )
    doi = _DOI.search(text)
    source = Source(
        file=path.name,
        sha256=hashlib.sha256(data).hexdigest(),
        title=str(model.name() or path.stem),
        doi=f"doi:{doi[0]}" if doi else "",
    )
    initial = model.initial_values(as_floats=True)
    source.states = {s.qname(): float(x) for s, x in zip(model.states(), initial, strict=True)}
    for v in variables:
        name = v.qname()
        if v.unit() is not None:
            source.units[name] = Unit.of(v.unit())
        if v.is_bound() and v.binding() in ("time", "pace"):
            source.bound[v.binding()] = name
        elif v.is_bound():
            continue
        elif v.is_literal():
            source.constants[name] = float(v.eval())
        elif v.is_state():
            source.equations[f"dot {name}"] = _converted(v.rhs())
            source.rate_units[name] = _rate_unit(v)
        else:
            source.equations[name] = _converted(v.rhs())
        if v.label():
            source.labels[v.label()] = name
    return source


def _rate_unit(state: Any) -> Unit | str | None:
    """Unit of a right-hand side, None where the file gives none, a text where units clash."""
    import myokit

    try:
        unit = state.rhs().eval_unit(myokit.UNIT_TOLERANT)
    except myokit.IncompatibleUnitError as error:
        return " ".join(str(error).split())
    return None if unit is None else Unit.of(unit)


def _converted(e: Any) -> Expr:
    """A myokit expression as ours."""
    kind = type(e).__name__
    if kind == "Number":
        return num(e.value())
    if kind == "Name":
        v = e.var()  # myokit's own clock readings and couplings are no part of a single cell
        outside = v.is_bound() and v.binding() not in ("time", "pace")
        return num(v.eval()) if outside else ref(v.qname())
    if kind == "Derivative":
        return ref(f"dot {e.var().qname()}")
    if kind in ("PartialDerivative", "InitialValue"):
        raise ModelError(f"{e.code()} is a partial derivative or initial value inside an equation.")
    args = [_converted(a) for a in e]
    if kind == "PrefixPlus":
        return args[0]
    if kind == "PrefixMinus" and args[0].op == "num":
        return num(-args[0].args[0])
    if kind in ("If", "Piecewise"):
        return _nested(args)
    if kind == "Log":
        below = ONE if len(args) == 1 else Expr("log", (args[1],))
        return div(Expr("log", (args[0],)), below)
    if kind in ("Quotient", "Remainder"):
        whole = Expr("floor", (Expr("/", tuple(args)),))
        return whole if kind == "Quotient" else Expr("-", (args[0], Expr("*", (args[1], whole))))
    if kind not in _OPERATIONS:
        raise ModelError(f"{e.code()}: {kind} is not supported.")
    return Expr(_OPERATIONS[kind], tuple(args))


def _nested(args: list[Expr]) -> Expr:
    """Condition, value, condition, value, ..., otherwise."""
    if len(args) == 1:
        return args[0]
    return Expr("where", (args[0], args[1], _nested(args[2:])))
