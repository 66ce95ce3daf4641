"""`twinheart scar paint`: the file that says what to paint, checked key by key."""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import ValidationError

from twinheart.cli.section import Section, key, read_toml
from twinheart.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from twinheart.mesh import TetMesh
    from twinheart.planning.painting import ScarPlan

MAX_ENTRIES = 100

EXAMPLE = """\
# An infarct of the lateral wall with a channel from the apical to the basal side.
[[core]]
at = [0.55, 0.33]     # height (0 apex, 1 base) and turns (0 to 2/3 free wall, to 1 septum)
radius = 20.0         # mm along the wall
rim = 4.0             # mm of border zone around it
tm = [0.0, 1.0]       # through the whole wall: 0 endocardium, 1 epicardium

[[channel]]
path = [[0.2, 0.33], [0.9, 0.33]]
width = 6.0           # mm
"""


class AreaSection(Section):
    """A part of the wall: a disc (at, radius) or a patch (ab, rt)."""

    at: list[float] | None = key(
        None,
        text="Height (0 apex, 1 base) and turns of the middle of a disc.",
        min_length=2,
        max_length=2,
    )
    radius: float | None = key(None, text="Radius along the wall.", unit="mm", gt=0, le=200)
    ab: list[float] | None = key(
        None, text="Heights from and to, of a patch.", min_length=2, max_length=2
    )
    rt: list[float] | None = key(
        None, text="Turns from and to, upwards, of a patch.", min_length=2, max_length=2
    )
    tm: list[float] = key(
        [0.0, 1.0],
        text="Depths from and to: 0 endocardium, 1 epicardium.",
        min_length=2,
        max_length=2,
    )
    ventricle: Literal["lv", "rv", "both"] = key("lv", text="'both' fills the whole septum.")


class CoreSection(AreaSection):
    """Dense scar: it does not conduct."""

    rim: float = key(0.0, text="Border zone around it.", unit="mm", ge=0, le=100)


class ChannelSection(Section):
    """A strand of border zone through core."""

    path: list[list[float]] = key(
        text="Height and turns of both ends, and of bends between.", min_length=2, max_length=100
    )
    width: float = key(text="Width.", unit="mm", gt=0, le=100)
    tm: list[float] = key(
        [0.0, 1.0], text="Depths of the path from and to.", min_length=2, max_length=2
    )
    ventricle: Literal["lv", "rv", "both"] = key("lv", text="'both' goes through the septum.")


class PaintSpec(Section):
    """What to paint."""

    core: list[CoreSection] = key([], text="Dense scar.", max_length=MAX_ENTRIES)
    border: list[AreaSection] = key([], text="Border zone.", max_length=MAX_ENTRIES)
    channel: list[ChannelSection] = key([], text="Channels.", max_length=MAX_ENTRIES)


_TABLES = {"core": CoreSection, "border": AreaSection, "channel": ChannelSection}


class Painted(NamedTuple):
    """What `paint` did: classes, mass of each entry [g], remarks."""

    classes: "np.ndarray"
    facts: dict[str, Any]
    notes: list[str]


def read_spec(path: Path) -> "ScarPlan":
    """Read a file that says what to paint.

    Parameters
    ----------
    path : Path
        TOML with tables ``[[core]]``, ``[[border]]`` and ``[[channel]]``.

    Returns
    -------
    ScarPlan
        For `twinheart.planning.paint_scar`.

    Raises
    ------
    InputError
        If it cannot be read, a key is unknown, missing or out of range, or nothing is painted.
    """
    from twinheart.planning.painting import ScarPlan

    try:
        spec = PaintSpec.model_validate(read_toml(path, "what to paint", "a list of what to paint"))
    except ValidationError as error:
        raise InputError(f"{path}: {_explain(error)}.") from None
    if not (spec.core or spec.border):
        raise InputError(f"{path}: nothing to paint: give at least one [[core]] or [[border]].")
    return ScarPlan(
        cores=[_area(path, f"core[{k}]", entry) for k, entry in enumerate(spec.core, 1)],
        borders=[_area(path, f"border[{k}]", entry) for k, entry in enumerate(spec.border, 1)],
        channels=[_channel(path, f"channel[{k}]", c) for k, c in enumerate(spec.channel, 1)],
    )


def paint(mesh: "TetMesh", path: Path) -> Painted:
    """Paint what a file says on a heart.

    Parameters
    ----------
    mesh : TetMesh
        The heart.
    path : Path
        The file, see `read_spec`.

    Returns
    -------
    Painted
        Classes and remarks.
    """
    from twinheart.anatomy import coordinates_of
    from twinheart.mesh.quality import mean_edge
    from twinheart.planning.painting import paint_scar

    plan = read_spec(path)
    notes = []
    if coordinates_of(mesh) is None:
        notes.append("the heart carries no coordinates: they are computed")
    if "scar" in mesh.cell_fields:
        notes.append("the scar that the heart had is painted over")
    edge = mean_edge(mesh)
    narrow = [k for k, c in enumerate(plan.channels, 1) if c.width < 2 * edge]
    if narrow:
        notes.append(
            f"channel {', '.join(map(str, narrow))} is narrower than two edges of the mesh "
            f"({2 * edge:.1f} mm): it may be broken; take a finer mesh"
        )
    facts = {"n_channels": len(plan.channels), "mean_edge_mm": edge}
    return Painted(paint_scar(mesh, plan), facts, notes)


def _area(path: Path, name: str, entry: AreaSection):
    from twinheart.planning.painting import Area

    shape: dict[str, Any] = {"radius": entry.radius}
    if entry.at is not None:
        shape["at"] = _place(path, f"{name}.at", entry.at)
    if entry.ab is not None:
        shape["ab"] = _range(path, f"{name}.ab", entry.ab)
    if entry.rt is not None:
        shape["rt"] = _turns(path, f"{name}.rt", entry.rt)
    tm = _range(path, f"{name}.tm", entry.tm)
    rim = entry.rim if isinstance(entry, CoreSection) else 0.0
    try:
        return Area(**shape, tm=tm, ventricle=entry.ventricle, rim=rim)
    except InputError as error:
        raise InputError(f"{path}: '{name}': {error}") from None


def _channel(path: Path, name: str, entry: ChannelSection):
    from twinheart.planning.painting import Channel

    places = [_place(path, f"{name}.path", place) for place in entry.path]
    tm = _range(path, f"{name}.tm", entry.tm)
    return Channel(places, entry.width, tm=tm, ventricle=entry.ventricle)


def _place(path: Path, name: str, values: list[float]) -> tuple[float, float]:
    if len(values) != 2 or not 0 <= values[0] <= 1 or not 0 <= values[1] <= 1:
        raise InputError(
            f"{path}: '{name}' has {values}, expected [height, turns], both from 0 to 1."
        )
    return values[0], values[1]


def _range(path: Path, name: str, values: list[float]) -> tuple[float, float]:
    if not 0 <= values[0] <= values[1] <= 1:
        raise InputError(f"{path}: '{name}' is {values}, expected [from, to] within 0 and 1.")
    return values[0], values[1]


def _turns(path: Path, name: str, values: list[float]) -> tuple[float, float]:
    if not all(0 <= value <= 1 for value in values) or values[0] == values[1]:
        raise InputError(
            f"{path}: '{name}' is {values}, expected two different turns from 0 to 1; "
            "[0.9, 0.1] runs through 0."
        )
    return values[0], values[1]


def _explain(error: ValidationError) -> str:
    """First error as a sentence; unknown keys come first, with the nearest that exists."""
    details = error.errors(include_url=False)
    first = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
    place = first["loc"]
    name = "".join(f"[{p + 1}]" if isinstance(p, int) else f".{p}" for p in place).lstrip(".")
    if first["type"] == "extra_forbidden":
        table = PaintSpec if len(place) == 1 else _TABLES[name.partition("[")[0]]
        valid = list(table.model_fields)
        near = difflib.get_close_matches(name.rpartition(".")[2], valid, n=1, cutoff=0.5)
        hint = f"the nearest is '{near[0]}'" if near else f"valid here: {', '.join(valid)}"
        return f"unknown key '{name}'; {hint}"
    if first["type"] == "missing":
        return f"'{name}' is missing"
    expected = first["msg"].removeprefix("Input should be ").replace("a valid ", "a ")
    return f"'{name}' is {str(first['input'])[:40]!r}, expected {expected}"
