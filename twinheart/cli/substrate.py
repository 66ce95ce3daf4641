"""What the commands of planning share: heart, twin or case to a substrate, and places to pace."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from twinheart.cli.small_file import read_lines
from twinheart.cli.terminal import say
from twinheart.errors import InputError

if TYPE_CHECKING:
    from twinheart.calibration.twin_file import StoredTwin
    from twinheart.planning.pacing_sites import PacingSite
    from twinheart.planning.substrate import Substrate

RESEARCH = "research software: not for diagnosis or treatment"
AHA = {"aha17": 17, "aha19": 19}
_FURTHEST = 10.0  # mm by which a site on scar is moved
_MOST_SITES = 10_000

HEART = typer.Option(
    "--heart", help="Mesh of a heart, with the cell field scar where it has one, or 'demo'."
)
TWIN = typer.Option("--twin", help="Calibrated twin (twin.h5 of 'twinheart calibrate').")
CASE = typer.Option("--case", help="Case file: its heart, cells, conduction and scar.")
CELL = typer.Option(help="Cell model of healthy tissue; by default tentusscher2006-epi.")
UNIT = typer.Option(help="Unit of --heart: um, mm, cm or m; told from the size.")
SITES = typer.Option(
    help="aha17 (segments of the left ventricle), aha19 (and RV apex and outflow tract), or a CSV "
    "file of points: [name,] x, y, z in mm."
)


def must_be_vtu(out: Path | None) -> None:
    """Refuse a name of results that is not of a mesh with maps, before anything is computed.

    Raises
    ------
    InputError
        If it ends otherwise.
    """
    if out is not None and out.suffix.lower() != ".vtu":
        raise InputError(f"--out is '{out}', expected a name ending in .vtu.")


def substrate_of(
    heart: str | None = None,
    twin: Path | None = None,
    case: Path | None = None,
    *,
    cell: str | None = None,
    length_unit: str | None = None,
) -> "Substrate":
    """Substrate of what the options name; says on stderr what is assumed.

    Parameters
    ----------
    heart : str, optional
        File of a heart, or of a calibrated twin, or ``"demo"``.
    twin, case : Path, optional
        A calibrated twin; a case file. Exactly one of these three is needed.
    cell : str, optional
        Cell model of healthy tissue.
    length_unit : str, optional
        Unit of the heart's file.

    Returns
    -------
    Substrate
        See `twinheart.planning.substrate`.

    Raises
    ------
    InputError
        If not exactly one of the three is given, or an option has no effect.
    """
    return substrate_and_twin(heart, twin, case, cell=cell, length_unit=length_unit)[0]


def substrate_and_twin(
    heart: str | None,
    twin: Path | None,
    case: Path | None,
    *,
    cell: str | None,
    length_unit: str | None,
) -> "tuple[Substrate, StoredTwin | None]":
    """As `substrate_of`, and the calibrated twin behind it where heart or twin names one."""
    given = [name for name, value in (("heart", heart), ("twin", twin), ("case", case)) if value]
    if len(given) != 1:
        raise InputError("give one of --heart, --twin and --case.")
    from twinheart.calibration.twin_file import is_twin_file, load_twin
    from twinheart.planning.substrate import CELL, build_substrate
    from twinheart.planning.substrate_file import read_substrate, twin_substrate

    stored = None

    if heart is not None and is_twin_file(heart):
        heart, twin = None, Path(heart)
    if heart is None and (cell is not None or length_unit is not None):
        idle = "--cell" if cell is not None else "--length-unit"
        raise InputError(f"{idle} belongs to the mesh of a heart: a twin or a case has its own.")
    if twin is not None:
        stored = load_twin(twin)
        found = twin_substrate(stored)
    elif case is not None:
        found = _of_case(case)
    elif heart == "demo":
        from twinheart.anatomy import demo_heart

        found = build_substrate(demo_heart(), cell or CELL)
    else:
        found = read_substrate(str(heart), cell or CELL, length_unit=length_unit)
    tell_notes(found)
    return found, stored


def tell_notes(substrate: "Substrate") -> None:
    """Say on stderr what is assumed."""
    for note in substrate.notes:
        say(f"twinheart: note: {note}")


def _of_case(path: Path) -> "Substrate":
    """Substrate of a case: its cells and velocities in healthy tissue, its factors in scar."""
    from twinheart.calibration.twin_file import load_twin
    from twinheart.cli.build import build_heart, build_twin, is_calibrated
    from twinheart.cli.case import read_case
    from twinheart.planning.substrate import build_substrate
    from twinheart.planning.substrate_file import plain_tags, twin_substrate, with_stored_lesions

    case = read_case(path)
    scar = {"condition": case.scar.condition, "across": case.scar.across}
    if is_calibrated(case):
        return twin_substrate(load_twin(case.heart.file), **scar)
    plain = case.model_copy(update={"scar": case.scar.model_copy(update={"present": False})})
    twin = build_twin(plain, plain_tags(build_heart(case)))
    heart = twin.heart
    if not case.scar.present and "scar" in heart.mesh.cell_fields:
        raise InputError(
            f"{path}: [scar] present = false, but planning is about scar: remove the key."
        )
    return with_stored_lesions(build_substrate(heart, twin.cell, twin.conductivity, **scar))


def sites_of(text: str, substrate: "Substrate") -> "tuple[PacingSite, ...]":
    """Sites that an option names; says on stderr which are moved or left out.

    Parameters
    ----------
    text : str
        ``"aha17"``, ``"aha19"`` or the path of a CSV file of points.
    substrate : Substrate
        Says what conducts.

    Returns
    -------
    tuple of PacingSite
        At least one.

    Raises
    ------
    InputError
        If the file is unusable, a point of it is too far from tissue that conducts, or the heart
        has no left ventricle.
    """
    from twinheart.planning.pacing_sites import aha_sites, place_sites

    if text in AHA:
        placed = aha_sites(substrate.heart.mesh, substrate.problem, furthest=math.inf)
        chosen = placed[: AHA[text]]
        sites = tuple(site for site in chosen if site.moved <= _FURTHEST)
        for site in chosen:
            if site not in sites:
                say(
                    f"twinheart: note: {site.name} lies in scar, {site.moved:.0f} mm from tissue "
                    "that conducts: left out"
                )
        if not sites:
            raise InputError("no AHA segment has tissue that conducts: give points to pace.")
    else:
        names, points = read_points(Path(text))
        sites = place_sites(substrate.problem, points, names, furthest=_FURTHEST)
    for site in sites:
        if site.note:
            say(f"twinheart: note: {site.note}")
    return sites


def read_points(path: Path) -> tuple[list[str], list[tuple[float, float, float]]]:
    """Points of a CSV file: ``x, y, z`` or ``name, x, y, z`` a row, perhaps below a heading.

    Parameters
    ----------
    path : Path
        File of at most 1 MB.

    Returns
    -------
    list of str, list of (x, y, z)
        Names, ``site 1`` and so on where there are none, and places [mm].

    Raises
    ------
    InputError
        If it cannot be read or a row is no point.
    """
    if not path.exists():
        raise InputError(
            f"--sites is '{path}', expected {' or '.join(AHA)} or a CSV file of points: no such "
            "file."
        )
    lines = read_lines(path, "sites", "a list of points")
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if any(row)]
    if rows and _point(rows[0]) is None and len(rows) > 1 and _point(rows[1]) is not None:
        rows = rows[1:]  # a heading
    names, points = [], []
    for number, row in enumerate(rows, start=1):
        point = _point(row)
        if point is None:
            raise InputError(f"{path}: row {number} is {', '.join(row)[:60]!r}, expected [name,] "
                             "x, y, z in mm.")  # fmt: skip
        names.append(row[0] if len(row) > 3 else f"site {number}")
        points.append(point)
    if not 1 <= len(points) <= _MOST_SITES:
        raise InputError(f"{path}: {len(points)} points, expected 1 to {_MOST_SITES}.")
    return names, points


def _point(row: Sequence[str]) -> tuple[float, float, float] | None:
    if len(row) not in (3, 4):
        return None
    try:
        x, y, z = (float(cell) for cell in row[-3:])
    except ValueError:
        return None
    return (x, y, z) if all(map(math.isfinite, (x, y, z))) else None


def of_substrate(substrate: "Substrate") -> dict[str, Any]:
    """What a record says about the substrate it is of."""
    mesh = substrate.heart.mesh
    return {
        "n_nodes": mesh.n_nodes,
        "n_tets": mesh.n_tets,
        "calibrated": substrate.calibrated,
        "restitution_cycle_length_ms": substrate.cycle,
    }


def of_sites(sites: "Sequence[PacingSite]") -> list[dict[str, Any]]:
    """Sites as rows of a record."""
    return [{"site": site.name, "at_mm": site.position, "moved_mm": site.moved} for site in sites]


class SiteProgress:
    """Progress over parts that take about the same time, in lines on stderr with the time left."""

    def __init__(self, title: str, every: float = 10.0):
        from time import monotonic

        self._title, self._every, self._now = title, every, monotonic
        self._first: tuple[float, int] | None = None
        self._said = -math.inf

    def __call__(self, done: int, total: int) -> None:
        """Say how far it is, if that was not said a moment ago."""
        now = self._now()
        if self._first is None:
            self._first = (now, done)
        if now - self._said < self._every and done < total:
            return
        self._said = now
        start, before = self._first
        left = ""
        if before < done < total:
            left = f", about {(now - start) / (done - before) * (total - done):.0f} s left"
        say(f"{self._title}: {done} of {total}{left}")
