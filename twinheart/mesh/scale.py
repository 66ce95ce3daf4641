"""The length unit of a mesh, recognised from the size of what it shows."""

import numpy as np
from jaxtyping import Float, Int

from twinheart.errors import UnitError
from twinheart.mesh.quality import components
from twinheart.types import Points
from twinheart.units import LENGTH_UNITS_MM, length_factor

# largest extent [mm] of anything from a tissue sample to a torso
_POSSIBLE = (0.5, 900.0)
# largest extent [mm] of human (or dog, or pig) ventricles or a whole heart, and how round they are
_HEART = (50.0, 160.0)
_HEART_ASPECT = 0.4

_SYNONYMS = {
    "um": ("um", "µm", "μm", "micron", "microns", "micrometre", "micrometer", "micrometres",
           "micrometers"),
    "mm": ("mm", "millimetre", "millimeter", "millimetres", "millimeters"),
    "cm": ("cm", "centimetre", "centimeter", "centimetres", "centimeters"),
    "m": ("m", "metre", "meter", "metres", "meters"),
}  # fmt: skip


def unit_named(name: str) -> str:
    """Symbol of a length unit by any of its names.

    Raises
    ------
    UnitError
        If the name is none of micrometre, millimetre, centimetre and metre.

    Examples
    --------
    >>> from twinheart.mesh.scale import unit_named
    >>> unit_named("Millimeters")
    'mm'
    """
    for unit, names in _SYNONYMS.items():
        if name.strip().lower() in names:
            return unit
    length_factor(name)  # says which units there are
    return name


def recognise_unit(points: Points, cells: Int[np.ndarray, "cell corner"]) -> tuple[str, str]:
    """Length unit of a mesh, from the extent of its largest component.

    Two rules: either a single unit makes it something between a tissue sample of 0.5 mm and a
    torso of 900 mm; or a single unit makes it as large (50 to 160 mm) and as round (smallest
    extent at least 0.4 of the largest) as a human heart. A small animal's heart, a slab or a
    wedge mostly fits neither: then the unit must be given.

    Parameters
    ----------
    points : (node, 3) array
        Coordinates in the unknown unit.
    cells : (tet, 4) or (triangle, 3) int array
        Node indices; nodes in none of them are not looked at.

    Returns
    -------
    str, str
        ``um``, ``mm``, ``cm`` or ``m``, and the reason in words.

    Raises
    ------
    UnitError
        If the size fits several units, or none.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.scale import recognise_unit
    >>> recognise_unit(np.eye(4, 3, -1) * 0.1, np.array([[0, 1, 2, 3]]))[0]
    'm'
    """
    extents = _extents(points, cells)
    sizes = {unit: float(extents.max()) * factor for unit, factor in LENGTH_UNITS_MM.items()}
    shown = " x ".join(f"{e:.3g}" for e in extents)
    possible = [u for u, size in sizes.items() if _POSSIBLE[0] <= size <= _POSSIBLE[1]]
    if len(possible) == 1:
        unit = possible[0]
        return unit, f"recognised: an extent of {shown} makes no sense in any other unit"
    hearts = [u for u, size in sizes.items() if _HEART[0] <= size <= _HEART[1]]
    if len(hearts) == 1 and extents.min() >= _HEART_ASPECT * extents.max():
        unit = hearts[0]
        return unit, f"recognised: {shown} {unit} is the size and shape of a human heart"
    choices = " or ".join(f"{sizes[u]:.3g} mm (if in {u})" for u in possible) or "no size known"
    raise UnitError(
        f"cannot tell the length unit: an extent of {shown} could be {choices}; say it with "
        "--length-unit (or length_unit=): um, mm, cm or m."
    )


def check_micrometres(points: Points, cells: Int[np.ndarray, "cell corner"]) -> None:
    """Refuse to take as micrometres what would be a heart in millimetres.

    openCARP's files are in micrometres by definition, but are often written in millimetres.

    Raises
    ------
    UnitError
        If the largest extent is that of a human heart in mm, hence a tenth of a mm in um.
    """
    largest = float(_extents(points, cells).max())
    if _HEART[0] <= largest <= _HEART[1]:
        raise UnitError(
            f"an extent of {largest:.3g} um, the unit of openCARP's files, is tiny, but in mm it "
            "is a heart's: say which it is with --length-unit (or length_unit=)."
        )


def _extents(points: Points, cells: Int[np.ndarray, "cell corner"]) -> Float[np.ndarray, "3"]:
    """Extent of the largest component in x, y and z."""
    labels = components(cells, len(points))
    used = np.zeros(len(points), dtype=bool)
    used[cells] = True
    return np.ptp(points[used & (labels == 0)], axis=0)
