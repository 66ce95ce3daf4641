"""Unit conversion, at the border only: inside, everything is mm, ms, mV, uF, mS, uA (coherent)."""

from twinheart.errors import UnitError

LENGTH_UNITS_MM: dict[str, float] = {"um": 1e-3, "mm": 1.0, "cm": 10.0, "m": 1e3}


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
