"""Files of lesions: the user's own, and what must not be burnt."""

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from twinheart.cli.section import Section, key, read_toml
from twinheart.cli.small_file import read_lines
from twinheart.errors import InputError

if TYPE_CHECKING:
    from twinheart.planning.ablation.lesions import Lesion
    from twinheart.planning.ablation.reach import KeepAway

MAX_LESIONS = 2_000
RADIUS = 3.5  # mm, where a file does not say

EXAMPLE = """\
# A line through the whole wall, and a nerve to keep away from. Lengths in mm.
[[lesion]]
points = [[12.0, -30.5, 41.0], [20.5, -28.0, 44.0]]   # one point: a spot; several: a line
radius = 3.5
transmural = true           # or depth = 5.0; neither: a ball or tube around the points

[[avoid]]
name = "phrenic nerve"
points = [[40.0, -12.0, 60.0], [41.0, -12.0, 50.0]]
distance = 5.0
"""


class LesionSection(Section):
    """A lesion."""

    points: list[list[float]] = key(
        text="Where the catheter was; several points are a line.",
        unit="mm",
        min_length=1,
        max_length=1000,
    )
    radius: float = key(RADIUS, text="Along the surface.", unit="mm", gt=0, le=50)
    depth: float | None = key(None, text="Into the wall.", unit="mm", gt=0, le=100)
    transmural: bool = key(False, text="Through the whole wall, instead of a depth.")


class AvoidSection(Section):
    """What must not be burnt."""

    name: str = key(text="What it is.")
    points: list[list[float]] = key(
        text="Where it runs, points close to each other.", unit="mm", min_length=1, max_length=10000
    )
    distance: float = key(text="Nothing is burnt so near to it.", unit="mm", gt=0, le=200)


class LesionSpec(Section):
    """A file of lesions."""

    lesion: list[LesionSection] = key([], text="Lesions.", max_length=MAX_LESIONS)
    avoid: list[AvoidSection] = key([], text="What must not be burnt.", max_length=100)


class LesionFile(NamedTuple):
    """What a file holds."""

    lesions: "tuple[Lesion, ...]"
    keep_away: "tuple[KeepAway, ...]"


def read_lesions(path: Path) -> LesionFile:
    """Read lesions, and what must not be burnt.

    Parameters
    ----------
    path : Path
        TOML with tables ``[[lesion]]`` and ``[[avoid]]``, or CSV with columns ``x, y, z`` and
        perhaps ``radius``, ``depth`` (``inf``: transmural) and ``lesion``, a name that joins rows
        into a line, all in mm.

    Returns
    -------
    LesionFile
        Lesions in their order.

    Raises
    ------
    InputError
        If the file cannot be read, or an entry is no lesion.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from twinheart.cli.lesion_file import EXAMPLE, read_lesions
    >>> path = Path(tempfile.mkdtemp(), "plan.toml")
    >>> _ = path.write_text(EXAMPLE)
    >>> found = read_lesions(path)
    >>> found.lesions[0].depth, found.keep_away[0].name
    (inf, 'phrenic nerve')
    """
    if path.suffix.lower() == ".csv":
        return LesionFile(_of_csv(path), ())
    try:
        spec = LesionSpec.model_validate(read_toml(path, "lesions", "a list of lesions"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(
            f"{part}" if isinstance(part, str) else f"{part + 1}" for part in first["loc"]
        )
        raise InputError(f"{path}: {where}: {first['msg'].lower()}.") from None
    from twinheart.planning.ablation.reach import KeepAway

    lesions = []
    for number, entry in enumerate(spec.lesion, 1):
        if entry.transmural and entry.depth is not None:
            raise InputError(f"{path}: lesion {number} has a depth and is transmural: give one.")
        depth = math.inf if entry.transmural else entry.depth
        lesions.append(_lesion(path, number, entry.points, entry.radius, depth))
    away = []
    for entry in spec.avoid:
        _must_be_points(path, entry.name, entry.points)
        away.append(KeepAway(entry.name, entry.points, entry.distance))
    if not lesions and not away:
        raise InputError(f"{path}: no lesions: give at least one [[lesion]] or [[avoid]].")
    return LesionFile(tuple(lesions), tuple(away))


def _of_csv(path: Path) -> "tuple[Lesion, ...]":
    lines = read_lines(path, "lesions", "a list of lesions")
    rows = list(csv.DictReader(lines, skipinitialspace=True))
    groups: dict[str, list[dict[str, float]]] = {}
    for number, row in enumerate(rows, 1):
        name = (row.get("lesion") or f"row {number}").strip()
        groups.setdefault(name, []).append(_numbers(path, number, row))
    if not 1 <= len(groups) <= MAX_LESIONS:
        raise InputError(f"{path}: {len(groups)} lesions, expected 1 to {MAX_LESIONS}.")
    return tuple(
        _lesion(
            path,
            number,
            [[place[axis] for axis in "xyz"] for place in group],
            group[0].get("radius", RADIUS),
            group[0].get("depth"),
        )
        for number, group in enumerate(groups.values(), 1)
    )


def _numbers(path: Path, number: int, row: dict[str, Any]) -> dict[str, float]:
    found = {}
    for name in ("x", "y", "z", "radius", "depth"):
        text = (row.get(name) or "").strip()
        if not text and name not in "xyz":
            continue
        try:
            found[name] = float(text)
        except ValueError:
            raise InputError(
                f"{path}: row {number} has {name} = {text[:30]!r}, expected a number in mm below "
                "a heading x,y,z[,radius,depth,lesion]."
            ) from None
    return found


def _lesion(path: Path, number: int, points, radius: float, depth: float | None) -> "Lesion":
    from twinheart.planning.ablation.lesions import Lesion

    _must_be_points(path, f"lesion {number}", points)
    try:
        return Lesion(points, radius, depth)
    except InputError as error:
        raise InputError(f"{path}: lesion {number}: {error}") from None


def _must_be_points(path: Path, name: str, points) -> None:
    if any(len(point) != 3 for point in points):
        raise InputError(f"{path}: {name} has points that are not x, y, z in mm.")
