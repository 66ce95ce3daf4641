"""Units of a model file and the factors from them to mm, ms, mV, A/F and mM, or a refusal."""

from dataclasses import dataclass
from typing import Any

from twinheart.errors import ModelError

# Exponents of gram, metre, second, ampere, kelvin, candela, mole; multiplier of these.
_Base = tuple[float | int, ...]


@dataclass(frozen=True)
class Unit:
    """A unit by its SI exponents, its multiplier and how the file's reader writes it."""

    exponents: _Base
    multiplier: float
    text: str

    @classmethod
    def of(cls, unit: Any) -> "Unit":
        """From a `myokit.Unit`."""
        return cls(tuple(unit.exponents()), float(unit.multiplier()), str(unit).strip("[]"))

    def per(self, other: "Unit") -> float | None:
        """How many `other` one of this unit is; None where they measure different things."""
        same = all(abs(a - b) < 1e-9 for a, b in zip(self.exponents, other.exponents, strict=True))
        return self.multiplier / other.multiplier if same else None


MILLIVOLT = Unit((1, 2, -3, -1, 0, 0, 0), 1.0, "mV")  # 1 V = 1000 g m2 s-3 A-1
MILLISECOND = Unit((0, 0, 1, 0, 0, 0, 0), 1e-3, "ms")
MILLIMOLAR = Unit((0, -3, 0, 0, 0, 0, 1), 1.0, "mM")  # = mol / m3
MOLE = Unit((0, 0, 0, 0, 0, 0, 1), 1.0, "mol")
DIMENSIONLESS = Unit((0, 0, 0, 0, 0, 0, 0), 1.0, "1")
AMPERE_PER_FARAD = Unit((1, 2, -4, -1, 0, 0, 0), 1000.0, "A/F")  # = V / s
CURRENT_DENSITY = Unit((0, -2, 0, 1, 0, 0, 0), 1e-2, "uA/cm^2")


def time_factor(file: str, unit: Unit | None) -> float:
    """File time units per ms; a myokit file that names none is in ms, as myokit's convention is."""
    if unit is None:
        return 1.0
    factor = MILLISECOND.per(unit)
    if factor is None:
        raise ModelError(f"{file}: time has unit [{unit.text}]; expected seconds or milliseconds.")
    return factor


def voltage_factor(file: str, name: str, unit: Unit | None) -> float:
    """File voltage units per mV."""
    factor = None if unit is None else MILLIVOLT.per(unit)
    if factor is None:
        got = "no unit" if unit is None else f"unit [{unit.text}]"
        raise ModelError(
            f"{file}: the membrane potential {name} has {got}; expected volts or millivolts. A "
            "model in dimensionless variables must be scaled to millivolts first."
        )
    return factor


def check_rate(file: str, name: str, rate: Unit | str | None, volts: float, times: float) -> None:
    """Refuse an equation of the membrane whose own units do not make a voltage per time.

    Without a capacitance a current density is accepted: with the usual 1 uF/cm^2 its number is
    that of the current in A/F.
    """
    if rate is None:
        return
    if isinstance(rate, str):
        raise ModelError(f"{file}: the units of d{name}/dt do not fit: {rate}.")
    # File units of voltage per file unit of time, as a multiple of A/F = mV/ms.
    expected = times / volts
    for unit in (AMPERE_PER_FARAD, CURRENT_DENSITY):
        factor = rate.per(unit)
        if factor is not None and abs(factor / expected - 1) < 1e-6:
            return
    raise ModelError(
        f"{file}: the units of d{name}/dt do not fit: got [{rate.text}]; expected those of "
        "voltage per time (A/F = V/s) or uA/cm^2 at 1 uF/cm^2. Divide by the capacitance."
    )


def concentration_factor(unit: Unit | None) -> float | None:
    """File concentration units per mM, None where the unit is no concentration."""
    return None if unit is None else MILLIMOLAR.per(unit)
