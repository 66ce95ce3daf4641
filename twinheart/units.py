"""Unit conversion, at the border only: inside, everything is mm, ms, mV, uF, mS, uA (coherent)."""

from twinheart.errors import UnitError

LENGTH_UNITS_MM: dict[str, float] = {"um": 1e-3, "mm": 1.0, "cm": 10.0, "m": 1e3}
VOLTAGE_UNITS_MV: dict[str, float] = {"V": 1e3, "mV": 1.0, "uV": 1e-3, "nV": 1e-6}
TIME_UNITS_MS: dict[str, float] = {"s": 1e3, "ms": 1.0, "us": 1e-3}
_IN_WORDS = {
    **{"volt": "V", "millivolt": "mV", "microvolt": "uV", "nanovolt": "nV"},
    **{"second": "s", "millisecond": "ms", "microsecond": "us", "sec": "s", "msec": "ms"},
}


def length_factor(unit: str) -> float:
    """Millimetres in one `unit` of length.

    Raises
    ------
    UnitError
        If the unit is not one of um, mm, cm, m.

    Examples
    --------
    >>> from twinheart.units import length_factor
    >>> length_factor("cm")
    10.0
    """
    if unit not in LENGTH_UNITS_MM:
        raise UnitError(
            f"unknown length unit '{unit}'; expected one of {', '.join(LENGTH_UNITS_MM)}."
        )
    return LENGTH_UNITS_MM[unit]


def voltage_factor(unit: str) -> float:
    """Millivolts in one `unit` of voltage, however it is spelt: uV, µV, MV, microvolts.

    Raises
    ------
    UnitError
        If the unit is none of V, mV, uV, nV.

    Examples
    --------
    >>> from twinheart.units import voltage_factor
    >>> voltage_factor("µV")
    0.001
    """
    return _factor(unit, VOLTAGE_UNITS_MV, "voltage")


def time_factor(unit: str) -> float:
    """Milliseconds in one `unit` of time: s, ms, us, seconds.

    Raises
    ------
    UnitError
        If the unit is none of s, ms, us.

    Examples
    --------
    >>> from twinheart.units import time_factor
    >>> time_factor("s")
    1000.0
    """
    return _factor(unit, TIME_UNITS_MS, "time")


def _factor(unit: str, factors: dict[str, float], kind: str) -> float:
    text = unit.strip().replace("\u00b5", "u").replace("\u03bc", "u")  # both letters for micro
    word = text.lower()
    text = _IN_WORDS.get(word, _IN_WORDS.get(word.removesuffix("s"), text))
    # Nothing on the body is in megavolts: capitals are a matter of taste.
    found = {name.lower(): factor for name, factor in factors.items()}.get(text.lower())
    if found is None:
        raise UnitError(f"unknown {kind} unit '{unit[:20]}'; expected one of {', '.join(factors)}.")
    return found
