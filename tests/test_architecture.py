"""The layout of DESIGN: one direction of imports, small documented modules, quiet imports."""

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import twinheart

PACKAGE = Path(__file__).resolve().parents[1] / "twinheart"
MODULES = sorted(PACKAGE.rglob("*.py"))

RANK = {
    "units": 0,
    "types": 0,
    "errors": 0,
    "mesh": 1,
    "fem": 2,
    "imaging": 3,
    "anatomy": 4,
    "cell": 5,
    "tissue": 6,
    "ecg": 7,
    "twin": 8,
    "calibration": 9,
    "planning": 10,
    "cohort": 11,
    "vault": 11,
    "report": 12,
    "cli": 13,
}
TOP = 99  # twinheart/__init__.py may show everything

# Imported only inside the functions that use them: a GPU node has none of them.
HEAVY = {"defusedxml", "jinja2", "matplotlib", "meshio", "pydantic", "pyvista", "rich", "typer"}
HEAVY |= {"lxml", "myokit", "nibabel", "pydicom", "vtk", "vtkmodules", "wfdb"}
SOLVER = ["twinheart", "twinheart.mesh", "twinheart.fem", "twinheart.anatomy", "twinheart.cell"]
SOLVER += ["twinheart.imaging", "twinheart.tissue", "twinheart.ecg", "twinheart.twin"]
SOLVER += ["twinheart.planning"]

MAX_MODULE = 500
MAX_FUNCTION = 80


def layer_of_module(name: str) -> str:
    """Layer of a dotted module name: 'twinheart.mesh.core' -> 'mesh'; the top itself is ''."""
    return name.split(".")[1] if "." in name else ""


def layer_of_file(path: Path, package: Path) -> str:
    """Layer of a source file: its first folder, or its own name at the top."""
    first = path.relative_to(package).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def rank(layer: str) -> int:
    """Rank of a layer; an unknown one raises, so that a new layer must be entered above."""
    return TOP if layer == "" else RANK[layer]


def imported(tree: ast.AST, package: str) -> Iterator[tuple[str, int]]:
    """Dotted names of the package's own modules imported anywhere in a tree, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == package:
                    yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module == package:
            for alias in node.names:
                if alias.name != "__version__":  # a plain string, set before any import
                    yield f"{package}.{alias.name}" if alias.name in RANK else package, node.lineno
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package + "."):
            yield str(node.module), node.lineno


def wrong_imports(package: Path) -> list[str]:
    """Imports, also those inside functions, that do not come from a layer of lower rank."""
    found = []
    for path in sorted(package.rglob("*.py")):
        own = layer_of_file(path, package)
        for name, line in imported(ast.parse(path.read_text()), package.name):
            other = layer_of_module(name)
            both_leaves = rank(other) == rank(own) == 0
            if other != own and rank(other) >= rank(own) and not both_leaves:
                found.append(f"{path.relative_to(package.parent)}:{line} imports {name}")
    return found


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring, which is as long as the interface needs."""
    first = function.body[0]
    documented = ast.get_docstring(function) is not None
    doc = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - doc


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method in a tree, nested ones too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def public_definitions(tree: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple]:
    """Public functions, classes and their public methods: (dotted name, node)."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            overloaded = any("overload" in ast.unparse(d) for d in node.decorator_list)
            if not overloaded:
                yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node, f"{prefix}{node.name}.")


def exported(package: Path) -> Iterator[tuple[str, str, ast.FunctionDef]]:
    """Functions that a layer's `__init__.py` re-exports: (layer, name, definition)."""
    for init in sorted(package.glob("*/__init__.py")):
        for node in ast.parse(init.read_text()).body:
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            source = package.parent / (node.module.replace(".", "/") + ".py")
            if not source.exists():
                continue
            by_name = dict(public_definitions(ast.parse(source.read_text())))
            for alias in node.names:
                if isinstance(by_name.get(alias.name), ast.FunctionDef):
                    yield init.parent.name, alias.name, by_name[alias.name]


def name_of(path: Path) -> str:
    """Path below the project root: the identity of a parametrised test."""
    return str(path.relative_to(PACKAGE.parent))


each_module = pytest.mark.parametrize("path", MODULES, ids=name_of)


def test_imports_go_one_way():
    assert wrong_imports(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "line", "wrong"),
    [
        ("mesh/core.py", "from twinheart.fem import stiffness", 1),
        ("mesh/core.py", "def f():\n    import twinheart.fem.assembly", 1),
        ("fem/ell.py", "from twinheart import tissue", 1),
        ("cell/core.py", "from twinheart import simulate", 1),
        ("cohort/runs.py", "from twinheart.vault import store", 1),
        ("units.py", "from twinheart.errors import UnitError", 0),
        ("report/page.py", "from twinheart import __version__", 0),
        ("fem/ell.py", "from twinheart.fem.assembly import stiffness", 0),
        ("__init__.py", "from twinheart.twin import Twin", 0),
    ],
)
def test_a_planted_import_is_judged(tmp_path, file, line, wrong):
    path = tmp_path / "twinheart" / file
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    assert len(wrong_imports(tmp_path / "twinheart")) == wrong


@each_module
def test_module_and_its_functions_are_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_MODULE
    lengths = {f.name: length(f) for f in functions(ast.parse(text))}
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION} == {}


@each_module
def test_module_is_documented(path):
    tree = ast.parse(path.read_text())
    missing = [name for name, node in public_definitions(tree) if not ast.get_docstring(node)]
    assert ast.get_docstring(tree), "the module has no docstring"
    assert missing == []


def test_exported_functions_have_numpydoc_sections():
    missing = []
    for layer, name, node in exported(PACKAGE):
        doc = ast.get_docstring(node) or ""
        arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
        returns = node.returns is not None and ast.unparse(node.returns) != "None"
        if len(arguments) > 1 and "Parameters\n-----" not in doc:
            missing.append(f"{layer}.{name}: Parameters")
        if len(arguments) > 1 and returns and not re.search(r"(Returns|Yields)\n-----", doc):
            missing.append(f"{layer}.{name}: Returns")
    assert missing == []


def test_verbs_of_the_top_level_have_an_example():
    verbs = {name: getattr(twinheart, name) for name in twinheart.__all__}
    missing = [
        name
        for name, verb in verbs.items()
        if inspect.isfunction(verb) and ">>>" not in (verb.__doc__ or "")
    ]
    assert missing == []


@each_module
def test_module_has_no_forbidden_name(path):
    assert path.stem not in {"utils", "util", "helpers", "misc", "common"}


@each_module
def test_imports_are_absolute(path):
    relative = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


@each_module
def test_import_has_no_effect(path):
    """No print, no configuration, no warning filter runs while a module is imported."""
    forbidden = re.compile(r"^(print|jax\.config\.|config\.update|warnings\.|sys\.path)")
    calls = []
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.If):
            continue  # `if __name__ == "__main__"`, `if TYPE_CHECKING`
        for node in ast.walk(statement):
            if isinstance(node, ast.Call) and forbidden.match(ast.unparse(node.func)):
                calls.append(f"{node.lineno}: {ast.unparse(node.func)}")
    assert calls == []


def run_python(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_solver_runs_without_the_heavy_packages():
    """A GPU node has only jax, equinox, jaxtyping, optax, h5py, numpy and scipy."""
    code = f"""
import importlib, sys
for name in {sorted(HEAVY)}:
    sys.modules[name] = None          # any import of it raises ImportError
for name in {SOLVER}:
    importlib.import_module(name)
"""
    run_python(code)


def test_import_of_the_top_level_is_light():
    code = "import json, sys, twinheart; print(json.dumps(sorted(sys.modules)))"
    loaded = {name.split(".")[0] for name in json.loads(run_python(code))}
    assert loaded & HEAVY == set()
