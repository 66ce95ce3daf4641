"""Electrodes: names and positions, read from files or placed around the heart."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path

import equinox as eqx
import numpy as np
from jaxtyping import Float

from twinheart.anatomy import Heart
from twinheart.anatomy.frame import clearance, heart_frame
from twinheart.errors import InputError, UnitError
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

# Millimetres to the left, front and head of the heart's centre in an adult chest: the midline is
# 25 mm to the right of the centre, V1 and V2 beside the sternum, V4 in the mid-clavicular line,
# V5 and V6 level with it in the anterior and mid axillary lines, limb electrodes on the shoulders
# and the left hip.
_TYPICAL_OFFSETS = {
    "RA": (-195.0, -30.0, 180.0),
    "LA": (145.0, -30.0, 180.0),
    "LL": (110.0, -30.0, -220.0),
    "V1": (-50.0, 72.0, 30.0),
    "V2": (0.0, 76.0, 30.0),
    "V3": (32.0, 76.0, 15.0),
    "V4": (65.0, 66.0, 0.0),
    "V5": (98.0, 38.0, 0.0),
    "V6": (125.0, -35.0, 0.0),
}


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
    """The nine electrodes of the 12-lead ECG, placed around a heart without a torso.

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
    The heart is laid into an average adult chest: apex to the left, forwards and down, right
    ventricle to the right and forwards. The electrodes then take fixed places relative to the
    heart's centre, 82 mm away (V2) to 267 mm (RA); all distances grow by one factor where a large
    heart would reach closer than `margin`. Use measured positions where they exist: moving an
    electrode by a centimetre changes the precordial leads.

    Examples
    --------
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.ecg import standard_12_lead
    >>> from twinheart.mesh.generate import slab
    >>> standard_12_lead(Heart(slab((8.0, 2.0, 2.0), 1.0))).names[3:]
    ('V1', 'V2', 'V3', 'V4', 'V5', 'V6')
    """
    frame = heart_frame(heart.mesh)
    offsets = frame.from_patient(np.array([_TYPICAL_OFFSETS[name] for name in STANDARD]))
    factor = max(1.0, clearance(heart.mesh, frame.centre, offsets, margin))
    return Electrodes(STANDARD, frame.centre + factor * offsets)


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
