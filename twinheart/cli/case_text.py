"""The case file explained: a commented example and the reference page, made from the model."""

import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from twinheart.cli.case import CV_KEYS, Case, Section, section_of

HEADER = """\
# twinheart case file: everything about one simulation. Keys that are left out take the default,
# an unknown key is refused. A line that starts with # and no blank is an option switched off.
# Paths are relative to this file. Lengths are in mm, times in ms, conductivities in S/m.
# Run it with:  twinheart simulate case.toml
"""

# What a reader would write in a key that has no default.
SAMPLES: dict[str, Any] = {
    "length_unit": "mm",
    "max_edge": 1.0,
    "devices": 4,
    "conductivities": "niederer2011",
    "sigma_il": 0.17,
    "sigma_it": 0.019,
    "sigma_el": 0.62,
    "sigma_et": 0.24,
    "period": 600.0,
    "present": True,
    "cell": "stewart2009",
    "files": ["purkinje_lv.vtu", "purkinje_rv.vtu"],
    "tag": 2,
    "model": "tentusscher2006-endo",
    "condition": "border-zone",
    "name": "dofetilide",
    "cmax": 2.0,
    "concentration_nm": 4.0,
    "channel": "i_ks",
    "field": "transmural",
    "cv_l": 0.3,
    "cv_t": 0.2,
    "cv_n": 0.3,
    "cv_endocardium": 1.5,
    "ecg": "ecg.csv",
    "ecg_rate": 500.0,
    "ecg_unit": "mV",
    "free": ["usual", "cv_field"],
    "noise_uv": 25.0,
    "image": "labels.nii.gz",
    "labels": "lv_pool=1,myo=2,rv_pool=3",
    "lge": "lge.nii.gz",
    "lge_labels": "lge_labels.nii.gz",
    "lge_myocardium": 1,
    "lge_remote": 2,
    "paint": "scar.toml",
    "convention": "roes",
    "depth": 5.0,
}

# Lists of tables that the example shows switched off.
OPTIONAL = ("regions", "drugs", "fields")


def example_case() -> str:
    """A commented case file with every key at its default; it runs as it is.

    Examples
    --------
    >>> import tomllib
    >>> from twinheart.cli.case_text import example_case
    >>> tomllib.loads(example_case())["simulation"]["t_end"]
    450.0
    """
    return HEADER + "\n" + "\n".join(_example_lines(Case, "", live=True)) + "\n"


def reference_page() -> str:
    """Markdown page that documents every key of the case file.

    Examples
    --------
    >>> from twinheart.cli.case_text import reference_page
    >>> "| `dt` | number | ms | `0.02` |" in reference_page()
    True
    """
    page = [
        "# The case file",
        "",
        "One TOML file says everything about a simulation. `twinheart simulate --write-example`"
        " writes a commented one; `twinheart simulate case.toml` runs it. Unknown keys are refused"
        " with the nearest valid name; paths are relative to the case file.",
        "",
        "This page is written by `python -m twinheart.cli.case_text > docs/case_file.md`.",
    ]
    return "\n".join([*page, *_reference_lines(Case, "")]) + "\n"


def case_toml(case: Case) -> str:
    """A checked case as a case file: what was run, with every default written out.

    Parameters
    ----------
    case : Case
        The case; its paths are absolute.

    Returns
    -------
    str
        TOML text that `twinheart.cli.case.read_case` understands.

    Examples
    --------
    >>> import tomllib
    >>> from twinheart.cli.case import check_case
    >>> from twinheart.cli.case_text import case_toml
    >>> case = check_case({"stimuli": [{"where": "region:2"}]})
    >>> check_case(tomllib.loads(case_toml(case))) == case
    True
    """
    table = case.model_dump(exclude_none=True)
    if case.conduction.mode == "conductivities":  # velocities are refused then, even defaults
        for name in CV_KEYS:
            table["conduction"].pop(name, None)
    if case.simulation.propagation == "eikonal":  # frames are refused then, even by default
        del table["output"]["snapshot_every"]
    return "\n".join(_table_lines(table, "")) + "\n"


def _table_lines(table: dict[str, Any], path: str) -> Iterator[str]:
    def is_section(value: Any) -> bool:
        return isinstance(value, list) and bool(value) and isinstance(value[0], dict)

    subs = {k: v for k, v in table.items() if is_section(v) or (isinstance(v, dict) and not path)}
    yield from (f"{name} = {_toml(value)}" for name, value in table.items() if name not in subs)
    for name, value in subs.items():
        for item in value if isinstance(value, list) else [value]:
            yield ""
            yield f"[[{path}{name}]]" if isinstance(value, list) else f"[{path}{name}]"
            yield from _table_lines(item, f"{path}{name}.")


def _split(model: type[Section]) -> tuple[dict[str, FieldInfo], dict[str, FieldInfo]]:
    """Plain keys and sub-sections of a section, in order."""
    fields = model.model_fields
    subs = {name: field for name, field in fields.items() if section_of(field.annotation)}
    return {name: field for name, field in fields.items() if name not in subs}, subs


def _default(field: FieldInfo) -> Any:
    value = field.get_default(call_default_factory=True)
    return None if value is PydanticUndefined else value


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{_key(name)} = {_toml(item)}" for name, item in value.items()) + "}"
        )
    return json.dumps(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _about(field: FieldInfo) -> str:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    unit = f" [{extra['unit']}]" if extra.get("unit") else ""
    source = f" Source: {extra['source']}." if extra.get("source") else ""
    return f"{field.description}{unit}{source}"


def _example_lines(model: type[Section], path: str, *, live: bool) -> Iterator[str]:
    plain, subs = _split(model)
    for name, field in plain.items():
        yield from textwrap.wrap(_about(field), 98, initial_indent="# ", subsequent_indent="# ")
        default = _default(field)
        comment = "" if live and default is not None else "#"
        yield f"{comment}{name} = {_toml(SAMPLES.get(name, name) if default is None else default)}"
    for name, field in subs.items():
        section = section_of(field.annotation)
        assert section is not None
        dotted = f"{path}{name}"
        many = get_origin(field.annotation) is list
        shown = live and not dotted.endswith(OPTIONAL)
        yield ""
        yield f"# {section.__doc__}"
        yield ("" if shown else "#") + (f"[[{dotted}]]" if many else f"[{dotted}]")
        yield from _example_lines(section, f"{dotted}.", live=shown)


def _type_name(annotation: Any) -> str:
    options = [option for option in get_args(annotation) if option is not type(None)]
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{_toml(option)}`" for option in options)
    if get_origin(annotation) is list:
        return f"list of {_type_name(options[0])}s"
    if get_origin(annotation) is dict:
        return "table of numbers" if options[-1] is float else "table of tables"
    if options:
        return _type_name(options[0])
    return {str: "text", float: "number", int: "integer", bool: "true or false"}[annotation]


def _reference_lines(model: type[Section], path: str) -> Iterator[str]:
    plain, subs = _split(model)
    if plain:
        yield ""
        yield "| key | type | unit | default | meaning | source |"
        yield "|---|---|---|---|---|---|"
    for name, field in plain.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        default = "required" if field.is_required() else f"`{_toml(_default(field))}`"
        cells = (f"`{name}`", _type_name(field.annotation), extra.get("unit") or "")
        words = (str(field.description).replace("|", "\\|"), extra.get("source") or "")
        default = "-" if default == "`null`" else default
        yield "| " + " | ".join(str(cell) for cell in (*cells, default, *words)) + " |"
    for name, field in subs.items():
        section = section_of(field.annotation)
        assert section is not None
        many = get_origin(field.annotation) is list
        title = f"[[{path}{name}]]" if many else f"[{path}{name}]"
        yield from ("", f"## `{title}`", "", str(section.__doc__))
        yield from _reference_lines(section, f"{path}{name}.")


if __name__ == "__main__":
    print(reference_page(), end="")
