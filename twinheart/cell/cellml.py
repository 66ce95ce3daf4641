"""Import of CellML and Myokit models: as a class used at once, or as a module to keep."""

import hashlib
from pathlib import Path
from typing import Any

from twinheart.cell.importing.emit import module_tree, rates_lines
from twinheart.cell.importing.layout import module_text
from twinheart.cell.importing.plan import Plan, make_plan
from twinheart.cell.importing.read import content, read_source
from twinheart.cell.importing.stability import stable_dt
from twinheart.cell.model import AbstractCellModel
from twinheart.errors import ModelError
from twinheart.mesh.io.atomic import written_whole

# Imported classes by content and options: the same class again means no second compilation.
_IMPORTED: dict[tuple, tuple[Plan, type[AbstractCellModel]]] = {}


def import_cell(
    path: str | Path,
    *,
    name: str | None = None,
    membrane: str | None = None,
    stimulus: str | None = None,
    time: str | None = None,
) -> type[AbstractCellModel]:
    """Cell model of a CellML 1.0, 1.1 or Myokit file.

    Gates (``dx/dt`` linear in a dimensionless x, with a positive rate) are stepped by Rush and
    Larsen's method, everything else by forward Euler; removable singularities are rewritten so
    that values and gradients are finite. Constants of the file are parameters. The class is the
    compiled syntax tree that `write_module` prints; nothing of the file is ever run as code.

    Parameters
    ----------
    path : str or Path
        A ``.cellml`` or ``.mmt`` file.
    name : str, optional
        Name of the model; by default the file's own.
    membrane, stimulus, time : str, optional
        Membrane potential, stimulus current and time, as ``component.variable``, where neither
        metadata nor usual names tell them.

    Returns
    -------
    type
        Subclass of `AbstractCellModel`; parameters are keyword arguments, as of any model. The
        same content and options give the same class.

    Raises
    ------
    ModelError
        If the file is missing, too large, not CellML, has a document type, imports, events or
        delays, no membrane potential, circular equations, or units that do not fit.

    Examples
    --------
    >>> from twinheart.cell.cellml import import_cell
    >>> import_cell("no_such_model.cellml")
    Traceback (most recent call last):
        ...
    twinheart.errors.ModelError: cannot read cell model no_such_model.cellml: No such file ...
    """
    return _imported(Path(path), name, membrane, stimulus, time)[1]


def write_module(
    path_in: str | Path,
    path_out: str | Path,
    *,
    name: str | None = None,
    membrane: str | None = None,
    stimulus: str | None = None,
    time: str | None = None,
) -> type[AbstractCellModel]:
    """Write the Python module of a CellML or Myokit model.

    Parameters
    ----------
    path_in : str or Path
        A ``.cellml`` or ``.mmt`` file.
    path_out : str or Path
        The ``.py`` file to write; replaced if it exists.
    name, membrane, stimulus, time : str, optional
        As in `import_cell`.

    Returns
    -------
    type
        The class the module defines.

    Raises
    ------
    ModelError
        As in `import_cell`.
    OutputError
        If the module cannot be written.
    """
    plan, cell = _imported(Path(path_in), name, membrane, stimulus, time)
    with written_whole(path_out) as temporary:
        temporary.write_text(module_source(plan), encoding="utf-8")
    return cell


def module_source(plan: Plan) -> str:
    """Text of the module of a model."""
    return module_text(module_tree(plan), list(rates_lines(plan)))


def _imported(path: Path, *options: str | None) -> tuple[Plan, type[AbstractCellModel]]:
    data = content(path)
    key = (hashlib.sha256(data).hexdigest(), path.suffix.lower(), *options)
    if key not in _IMPORTED:
        source = read_source(path, data)
        name, membrane, stimulus, time = options
        try:
            plan = make_plan(source, name=name, membrane=membrane, stimulus=stimulus, time=time)
            plan.dt = stable_dt(_instance(_compiled(plan)))
            _IMPORTED[key] = plan, _compiled(plan)
        except RecursionError:
            raise ModelError(f"{path}: its expressions are nested too deeply.") from None
        except ArithmeticError as error:
            raise ModelError(f"{path} cannot be imported: {error} among its numbers.") from None
    return _IMPORTED[key]


def _instance(cell: type[AbstractCellModel]) -> AbstractCellModel:
    published: Any = cell  # its tables have values, which the interface leaves open
    return published()


def _compiled(plan: Plan) -> type[AbstractCellModel]:
    code = compile(module_tree(plan), f"<{plan.class_name}>", "exec")
    namespace: dict = {"__name__": f"{__name__}.{plan.class_name}"}
    exec(code, namespace)  # a tree of our own nodes: see `twinheart.cell.importing.emit`
    return namespace[plan.class_name]
