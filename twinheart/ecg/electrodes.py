"""Electrodes: names and positions, read from files or placed around the heart."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import equinox as eqx
import numpy as np
from jaxtyping import Float
from scipy.spatial import ConvexHull

from twinheart.anatomy import Heart
from twinheart.anatomy.body import BodyFrame, nearest_on_skin, skin_along, template_body
from twinheart.anatomy.frame import clearance, heart_frame
from twinheart.errors import InputError, UnitError
from twinheart.mesh import TriMesh
from twinheart.units import length_factor

LIMB = ("RA", "LA", "LL")
PRECORDIAL = ("V1", "V2", "V3", "V4", "V5", "V6")
STANDARD = LIMB + PRECORDIAL

# IEC 60601 codes and common spellings of the same places
ALIASES = {
    "R": "RA",
    "L": "LA",
    "F": "LL",
    "LF": "LL",
    "N": "RL",
    "RF": "RL",
    **{f"C{i}": f"V{i}" for i in range(1, 7)},
}

_MAX_BYTES = 1_000_000

# Places in the body of `BodyFrame`. The unit of length is the chest's width; V4 to V6 lie one
# intercostal space below V1 and V2, beside the sternum.
_STERNUM, _ONE_RIB = 25 / 300, 30 / 300
_MID_CLAVICULAR = 0.3
_ANTERIOR_AXILLARY = np.radians(40.0)  # around the section, from the side (V6) towards the front
_SHOULDER = np.radians(40.0)  # from the chest's centre, above the horizontal
_HIP, _ABOVE_END = 0.8, 0.08  # below the chest's centre; at least this share of the trunk above
# its lower end
_FAR = 20.0  # greatest distance of an electrode from the skin [mm]


class Electrodes(eqx.Module):
    """Named electrode positions.

    Parameters
    ----------
    names : tuple of str
        ``RA, LA, LL, V1 ... V6``; any other name is kept as it is.
    positions : (electrode, 3) array
        Coordinates [mm], in the coordinates of the heart.

    Raises
    ------
    InputError
        If a name appears twice, or positions do not match the names or are not finite.

    Examples
    --------
    >>> from twinheart.ecg import Electrodes
    >>> Electrodes(("LA", "RA"), [[100.0, 0.0, 80.0], [-100.0, 0.0, 80.0]]).names
    ('LA', 'RA')
    """

    names: tuple[str, ...] = eqx.field(static=True)
    positions: Float[np.ndarray, "electrode 3"]

    def __init__(self, names: Iterable[str], positions):
        self.names = tuple(canonical_name(name) for name in names)
        self.positions = np.asarray(positions, dtype=np.float64)
        if not self.names:
            raise InputError("no electrodes given; expected at least one name and position.")
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise InputError(
                f"electrode {', '.join(repeated)} is given more than once (aliases count as the "
                "same electrode): give each position once."
            )
        if self.positions.shape != (len(self.names), 3):
            raise InputError(
                f"electrode positions have shape {self.positions.shape}, expected "
                f"({len(self.names)}, 3): one row of x, y, z per name."
            )
        bad = np.flatnonzero(~np.isfinite(self.positions).all(axis=1))
        if bad.size:
            raise InputError(f"electrode {self.names[bad[0]]} has a coordinate that is no number.")


def canonical_name(name: str) -> str:
    """The project's name of an electrode: upper case, with IEC codes and aliases translated.

    Examples
    --------
    >>> from twinheart.ecg.electrodes import canonical_name
    >>> [canonical_name(name) for name in ("v2", "F", "C4", "LF", "N", "sock 7")]
    ['V2', 'LL', 'V4', 'LL', 'RL', 'sock 7']
    """
    name = str(name).strip()
    upper = name.upper()
    known = (*STANDARD, "RL")
    return ALIASES.get(upper, upper if upper in known else name)


def read_electrodes(path: str | Path, *, required: Iterable[str] = STANDARD) -> Electrodes:
    """Read electrode positions from a JSON or CSV file.

    Parameters
    ----------
    path : str or Path
        JSON: ``{"units": "mm", "electrodes": {"V1": [x, y, z], ...}}``, or the inner mapping alone.
        CSV: columns ``name,x,y,z`` and optionally ``unit``, with or without a header line.
        The unit is um, mm, cm or m; mm where none is given.
    required : names
        Electrodes that must be there; by default the nine of the 12-lead ECG. Pass ``()`` to take
        what the file has.

    Returns
    -------
    Electrodes
        In the order of the file, in mm. Names are case-insensitive; the IEC codes R, L, F, N,
        C1-C6 and LF, RF are understood. RL (N) is the ground and enters no lead.

    Raises
    ------
    InputError
        If the file cannot be read, or an electrode is missing, repeated or malformed.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> from twinheart.ecg import read_electrodes
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "electrodes.json"
    >>> _ = file.write_text(json.dumps({"units": "cm", "electrodes": {"LA": [1, 2, 3]}}))
    >>> read_electrodes(file, required=()).positions
    array([[10., 20., 30.]])
    """
    path = Path(path)
    text = _read_text(path)
    try:
        rows = _json_rows(text) if path.suffix.lower() == ".json" else _csv_rows(text)
        names = [row[0] for row in rows]
        positions = [_position(*row) for row in rows]
        electrodes = Electrodes(names, positions)
    except (InputError, UnitError) as error:
        raise InputError(f"electrode file '{path}': {error}") from None
    missing = [n for n in map(canonical_name, required) if n not in electrodes.names]
    if missing:
        raise InputError(
            f"electrode file '{path}' lacks {', '.join(missing)}; it has "
            f"{', '.join(electrodes.names)}: add the missing positions."
        )
    return electrodes


def standard_12_lead(heart: Heart, *, margin: float = 10.0) -> Electrodes:
    """The nine electrodes of the 12-lead ECG, on an average adult body laid around a heart.

    Parameters
    ----------
    heart : Heart
        Its shape gives the directions (see `heart_frame`): the coordinate axes play no part.
    margin : float
        Least distance of every electrode from the heart's convex hull [mm].

    Returns
    -------
    Electrodes
        ``RA, LA, LL, V1 ... V6`` in the heart's coordinates [mm].

    Notes
    -----
    The heart is laid into an average adult chest (`template_body`): apex to the left, forwards and
    down, right ventricle to the right and forwards. The electrodes then take their places on the
    skin (`place_electrodes`); all distances from the heart's centre grow by one factor where a
    large heart would reach closer than `margin`. Use measured positions where they exist: moving
    an electrode by a centimetre changes the precordial leads.

    Examples
    --------
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.ecg import standard_12_lead
    >>> from twinheart.mesh.generate import slab
    >>> standard_12_lead(Heart(slab((8.0, 2.0, 2.0), 1.0))).names[3:]
    ('V1', 'V2', 'V3', 'V4', 'V5', 'V6')
    """
    centre = heart_frame(heart.mesh).centre
    placed = place_electrodes(*template_body(heart.mesh))
    offsets = placed.positions[: len(STANDARD)] - centre
    factor = max(1.0, clearance(heart.mesh, centre, offsets, margin))
    return Electrodes(STANDARD, centre + factor * offsets)


def place_electrodes(skin: TriMesh, frame: BodyFrame) -> Electrodes:
    """Electrodes of the 12-lead ECG by the anatomical rule, on the skin of a body.

    Parameters
    ----------
    skin : TriMesh
        Closed surface of the body, normals outwards [mm].
    frame : BodyFrame
        Where its chest is (`body_frame`, `template_body`).

    Returns
    -------
    Electrodes
        ``RA, LA, LL, V1 ... V6, RL``: V1 and V2 in the fourth intercostal space right and left of
        the sternum; V4 in the fifth in the mid-clavicular line, V3 midway between V2 and V4; V5
        in the anterior axillary line and V6 in the mid-axillary line, level with V4; RA and LA on
        the shoulders, RL and LL on the hips.

    Raises
    ------
    MeshError
        If the chest's centre is not inside the skin.

    References
    ----------
    Kligfield et al. 2007, Recommendations for the standardization and interpretation of the
    electrocardiogram, doi:10.1161/CIRCULATIONAHA.106.180200.

    Examples
    --------
    >>> from twinheart.anatomy import demo_heart
    >>> from twinheart.anatomy.body import template_body
    >>> from twinheart.ecg import place_electrodes
    >>> skin, frame = template_body(demo_heart().mesh)
    >>> frame.to_body(place_electrodes(skin, frame).positions)[3, :2].round()
    array([-25., 110.])
    """
    width, depth = frame.width, frame.depth
    end = frame.to_body(skin.points)[:, 2]
    hip = max(-_HIP * width, end.min() + _ABOVE_END * np.ptp(end))
    fifth = -_ONE_RIB * width

    def on_skin(start, direction):
        origin = frame.from_body(np.array([start]))[0]
        return skin_along(skin, origin, np.asarray(direction, dtype=float) @ frame.axes)

    def ahead(left: float, head: float):
        return on_skin((left, 0.0, head), (0.0, 1.0, 0.0))

    around = (np.cos(_ANTERIOR_AXILLARY) * width, np.sin(_ANTERIOR_AXILLARY) * depth, 0.0)
    up = (np.cos(_SHOULDER), 0.0, np.sin(_SHOULDER))
    clavicular, sternum = _MID_CLAVICULAR * width, _STERNUM * width
    at = {
        "RA": on_skin((0.0, 0.0, 0.0), (-up[0], 0.0, up[2])),
        "LA": on_skin((0.0, 0.0, 0.0), up),
        "LL": on_skin((0.0, 0.0, hip), (1.0, 0.0, 0.0)),
        "V1": ahead(-sternum, 0.0),
        "V2": ahead(sternum, 0.0),
        "V3": ahead((sternum + clavicular) / 2, fifth / 2),
        "V4": ahead(clavicular, fifth),
        "V5": on_skin((0.0, 0.0, fifth), around),
        "V6": on_skin((0.0, 0.0, fifth), (1.0, 0.0, 0.0)),
        "RL": on_skin((0.0, 0.0, hip), (-1.0, 0.0, 0.0)),
    }
    return Electrodes(at, np.array(list(at.values())))


def move_electrodes(
    electrodes: Electrodes,
    shifts: Mapping[str, Sequence[float | int]],
    skin: TriMesh,
    frame: BodyFrame,
) -> Electrodes:
    """Shift some electrodes along the skin.

    Parameters
    ----------
    electrodes : Electrodes
        On the skin.
    shifts : mapping of str to (3,) sequences
        For each electrode to be moved: mm to the body's left, front and head. The electrode is
        then put back onto the skin.
    skin, frame : TriMesh, BodyFrame
        The body.

    Returns
    -------
    Electrodes
        The others stay where they are.

    Raises
    ------
    InputError
        If a name is unknown, a shift is not three numbers, or it leads far away from the skin.

    Examples
    --------
    >>> from twinheart.anatomy import demo_heart
    >>> from twinheart.anatomy.body import template_body
    >>> from twinheart.ecg import move_electrodes, place_electrodes
    >>> skin, frame = template_body(demo_heart().mesh)
    >>> moved = move_electrodes(place_electrodes(skin, frame), {"V1": (0, 0, 20)}, skin, frame)
    >>> frame.to_body(moved.positions)[3, ::2].round()
    array([-25.,  20.])
    """
    positions = electrodes.positions.copy()
    for given, shift in shifts.items():
        name = canonical_name(given)
        if name not in electrodes.names:
            raise InputError(
                f"there is no electrode '{given}' to move; known are {', '.join(electrodes.names)}."
            )
        shift = np.asarray(shift, dtype=float)
        if shift.shape != (3,) or not np.isfinite(shift).all():
            raise InputError(
                f"the shift of {name} is not three numbers: mm to the left, front and head."
            )
        k = electrodes.names.index(name)
        positions[k] += shift @ frame.axes
    moved = Electrodes(electrodes.names, positions)
    changed = (positions != electrodes.positions).any(axis=1)
    fitted = on_skin(moved, skin).positions
    return Electrodes(moved.names, np.where(changed[:, None], fitted, electrodes.positions))


def on_skin(electrodes: Electrodes, skin: TriMesh, heart: Heart | None = None) -> Electrodes:
    """Put electrodes onto the nearest skin; refuse those that are far from it or in the heart.

    Parameters
    ----------
    electrodes : Electrodes
        Positions [mm], measured or moved.
    skin : TriMesh
        Closed surface of the body.
    heart : Heart, optional
        No electrode may lie within its convex hull.

    Returns
    -------
    Electrodes
        The same, on the skin.

    Raises
    ------
    InputError
        If an electrode is more than 20 mm away from the skin, or inside the heart.

    Examples
    --------
    >>> from twinheart.ecg import Electrodes, on_skin
    >>> from twinheart.mesh import TriMesh
    >>> flat = TriMesh([[0.0, 0, 0], [90, 0, 0], [0, 90, 0]], [[0, 1, 2]])
    >>> on_skin(Electrodes(["V1"], [[10.0, 10.0, 5.0]]), flat).positions
    array([[10., 10.,  0.]])
    """
    if heart is not None:
        hull = ConvexHull(heart.mesh.points[np.unique(heart.mesh.tets)])
        beyond = electrodes.positions @ hull.equations[:, :3].T + hull.equations[:, 3]
        inside = np.flatnonzero(beyond.max(axis=1) <= 0)
        if inside.size:
            raise InputError(
                f"electrode {electrodes.names[inside[0]]} lies inside the heart, "
                f"{-beyond[inside[0]].max():.0f} mm deep: electrodes belong on the skin."
            )
    fitted = nearest_on_skin(skin, electrodes.positions)
    away = np.linalg.norm(fitted - electrodes.positions, axis=1)
    if away.max() > _FAR:
        k = int(away.argmax())
        raise InputError(
            f"electrode {electrodes.names[k]} is {away[k]:.0f} mm away from the skin, at most "
            f"{_FAR:g} mm are bridged: check its position, or the size and place of the torso."
        )
    return Electrodes(electrodes.names, fitted)


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(
                f"electrode file '{path}' is larger than {_MAX_BYTES // 1000} kB: "
                "this is no list of electrodes."
            )
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(
            f"electrode file '{path}' cannot be read: {error.strerror or error}."
        ) from error
    except UnicodeDecodeError:
        raise InputError(f"electrode file '{path}' is not text; expected JSON or CSV.") from None


def _json_rows(text: str) -> list[tuple[str, object, str]]:
    def no_repeats(pairs):
        names = [canonical_name(name) for name, _ in pairs]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise InputError(f"electrode {', '.join(repeated)} is given more than once.")
        return dict(pairs)

    try:
        content = json.loads(text, object_pairs_hook=no_repeats)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"not valid JSON ({error}).") from None
    unit = "mm"
    if isinstance(content, dict) and "electrodes" in content:
        unit = content.get("units", content.get("unit", "mm"))
        content = content["electrodes"]
    if not isinstance(content, dict):
        raise InputError('expected {"units": "mm", "electrodes": {"V1": [x, y, z], ...}}.')
    return [(name, position, str(unit)) for name, position in content.items()]


def _csv_rows(text: str) -> list[tuple[str, object, str]]:
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if any(row)]
    if rows and len(rows[0]) >= 4 and rows[0][1].lower() == "x":
        rows = rows[1:]
    for row in rows:
        if len(row) not in (4, 5):
            raise InputError(
                f"the line '{','.join(row)}' has {len(row)} columns; expected name,x,y,z[,unit]."
            )
    return [(row[0], row[1:4], row[4] if len(row) == 5 and row[4] else "mm") for row in rows]


def _position(name: str, position: object, unit: str) -> list[float]:
    factor = length_factor(unit)
    try:
        if isinstance(position, str) or len(position) != 3:  # type: ignore[arg-type]
            raise ValueError
        return [factor * float(value) for value in position]  # type: ignore[union-attr]
    except (TypeError, ValueError):
        raise InputError(
            f"electrode '{name}' has position {position!r}; expected three numbers x, y, z."
        ) from None
