"""Arrays of a map known by their names and units: ``lat_ms``, ``Bipolar [mV]``, ``activation``."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from twinheart.calibration.mapping_io.contents import listed, times, voltages
from twinheart.errors import InputError, UnitError
from twinheart.mesh.fields import canonical
from twinheart.mesh.scale import recognise_unit, unit_named
from twinheart.units import time_factor, voltage_factor

# compared without case and punctuation, the likeliest first
_NAMES = {
    "lat": (
        *("lat", "localactivationtime", "activationtime", "activationtimes", "activation"),
        *("at", "tact", "depolarisationtime", "depolarizationtime"),
    ),
    "repol": (
        *("repol", "repolarisationtime", "repolarizationtime", "repolarisation", "repolarization"),
        *("rt", "trepol", "recoverytime"),
    ),
    "ari": ("ari", "activationrecoveryinterval"),
    "bipolar": ("bipolar", "bipolarvoltage", "voltagebipolar", "bip"),
    "unipolar": ("unipolar", "unipolarvoltage", "voltageunipolar", "uni"),
    "number": ("number", "pointnumber", "ptnumber", "point", "pointid", "id"),
}
_TIMES = ("lat", "repol", "ari")
_UNIT = re.compile(r"(.+?)[ _\[(]+([mu\u00b5\u03bc]?s|[mu\u00b5\u03bc]?V)[\])]?", re.IGNORECASE)
_NO_TIME = 2.0  # [ms]: no map of a heart is activated within less; of seconds all are


def columns_of(
    path: Path, fields: Mapping[str, np.ndarray], *, needed: bool = True
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Times and voltages of a map, found by name.

    Parameters
    ----------
    path : Path
        File, for messages.
    fields : mapping of (point,) arrays
        By name; a unit may follow it: ``lat_s``, ``Bipolar [uV]``; else ms and mV.
    needed : bool
        Refuse fields without times.

    Returns
    -------
    dict of (point,) arrays
        ``lat``, ``repol`` [ms], ``bipolar``, ``unipolar`` [mV]. A recovery interval
        (``ari``) counts from the activation.
    list of str
        Names that were left out.

    Raises
    ------
    InputError
        If there are no times, or they must be in another unit than ms.

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from twinheart.calibration.mapping_io.named import columns_of
    >>> columns_of(Path("map.vtp"), {"LAT (s)": np.array([0.012, 0.05]), "colour": np.ones(2)})
    ({'lat': array([12., 50.])}, ['not read: colour'])
    """
    found: dict[str, np.ndarray] = {}
    taken = []
    for kind, names in _NAMES.items():
        spelt = {canonical(_split(name)[0]): name for name in reversed(list(fields))}
        name = next((spelt[one] for one in names if one in spelt), None)
        if name is None:
            continue
        taken.append(name)
        if kind != "number":
            found[kind] = _converted(path, name, np.asarray(fields[name], dtype=float), kind)
    if "ari" in found and "lat" in found:
        found.setdefault("repol", found["lat"] + found["ari"])
    found.pop("ari", None)
    if needed and "lat" not in found and "repol" not in found:
        raise InputError(
            f"{path}: has no column or array of activation times (lat, activation); it has "
            f"{listed(fields) or 'none'}."
        )
    others = [name for name in fields if name not in taken]
    return found, [f"not read: {listed(others)}"] if others else []


def numbers_named(fields: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The array with the numbers of the points, if there is one.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.calibration.mapping_io.named import numbers_named
    >>> numbers_named({"Point": np.array([7, 9])})
    array([7, 9])
    """
    spelt = {canonical(name): name for name in reversed(list(fields))}
    return next((fields[spelt[one]] for one in _NAMES["number"] if one in spelt), None)


def length_unit_of(path: Path, points: np.ndarray, given: str | None) -> str:
    """Unit of length of positions: as given, else as the size of the map shows.

    Raises
    ------
    UnitError
        If it is unknown or cannot be told.

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from twinheart.calibration.mapping_io.named import length_unit_of
    >>> length_unit_of(Path("map.csv"), 0.08 * np.eye(3), None)
    'm'
    """
    if given is not None:
        return unit_named(given)
    there = points[np.isfinite(points).all(axis=1)]
    chain = np.arange(len(there) - 1)
    if not len(chain):
        return "mm"
    try:  # one component, whatever its points are
        return recognise_unit(there, np.stack([chain, chain + 1], axis=1))[0]
    except UnitError as error:
        raise UnitError(f"{path}: {error}") from None


def _split(name: str) -> tuple[str, str]:
    match = _UNIT.fullmatch(name.strip())
    return (match[1], match[2]) if match else (name, "")


def _converted(path: Path, name: str, values: np.ndarray, kind: str) -> np.ndarray:
    unit = _split(name)[1]
    is_time = kind in _TIMES
    try:
        factor = 1.0 if not unit else (time_factor if is_time else voltage_factor)(unit)
    except UnitError as error:
        raise InputError(f"{path}: {listed([name])}: {error}") from None
    if not is_time:
        return voltages(values * factor)
    converted = times(values * factor)
    if not unit and np.isfinite(converted).sum() > 1 and np.ptp(_known(converted)) < _NO_TIME:
        raise InputError(
            f"{path}: all times of {listed([name])} lie within {np.ptp(_known(converted)):.2g}: if "
            "they are in seconds, say so in the name (lat_s), else lat_ms."
        )
    return converted


def _known(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]
