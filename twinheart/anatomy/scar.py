"""Scar on a heart: its masses under every convention, from LGE or from the thickness of the wall.

CT shows no fibrosis, but where an infarct has healed the wall is thin: less than 5 mm counts as
scarred (border zone), less than 2 mm as dense scar. Only the left ventricle is judged: a healthy
right one has 3 mm. The apex of a healthy left one may be thin as well.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from twinheart.anatomy.corridors import DENSITY, Corridor, face_neighbours, without_islands
from twinheart.errors import InputError
from twinheart.imaging.enhancement import (
    BORDER,
    CONVENTIONS,
    CORE,
    Convention,
    Enhancement,
    classify,
)
from twinheart.mesh import TetMesh
from twinheart.mesh.quality import volumes


class Masses(NamedTuple):
    """Mass of each class [g], and the thresholds that made them.

    Attributes
    ----------
    convention : str
        Its name.
    border_g, core_g : float
        Masses [g].
    border_from, core_from : float
        Where the classes begin: intensity, or thickness [mm] below which they do.
    meaning : str
        The thresholds in words.
    source : str
        Who uses them.
    """

    convention: str
    border_g: float
    core_g: float
    border_from: float
    core_from: float
    meaning: str
    source: str


class ThinWall(NamedTuple):
    """A convention on the thickness of the left ventricle's wall [mm]."""

    core: float = 2.0
    border: float = 5.0

    @property
    def name(self) -> str:
        """Its name on the command line."""
        return f"mm:{self.core:g},{self.border:g}"


def mass(mesh: TetMesh, chosen: Bool[np.ndarray, "tet"]) -> float:
    """Mass of some tetrahedra [g] at 1.05 g/ml.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy.scar import mass
    >>> from twinheart.mesh.generate import slab
    >>> mesh = slab((10.0, 10.0, 10.0), 5.0)
    >>> round(mass(mesh, np.ones(mesh.n_tets, dtype=bool)), 6)
    1.05
    """
    return DENSITY * float(np.abs(volumes(mesh.points, mesh.tets[chosen])).sum()) / 1000.0


def scar_of_lge(mesh: TetMesh, seen: Enhancement, convention: Convention) -> Int[np.ndarray, "tet"]:
    """Classes by a convention, without what is too small to be real.

    Parameters
    ----------
    mesh : TetMesh
        The myocardium [mm].
    seen : Enhancement
        The LGE on it.
    convention : Convention
        Where the classes begin.

    Returns
    -------
    (tet,) int array
        0 healthy, 1 border zone, 2 core (see `twinheart.anatomy.corridors.without_islands`).
    """
    return without_islands(mesh, classify(seen, convention))


def masses_of_lge(mesh: TetMesh, seen: Enhancement, chosen: Convention) -> list[Masses]:
    """Masses by every convention, the chosen one first: how much depends on the choice.

    Parameters
    ----------
    mesh : TetMesh
        The myocardium [mm].
    seen : Enhancement
        The LGE on it.
    chosen : Convention
        The convention in use; the other rows are those of `CONVENTIONS`.

    Returns
    -------
    list of Masses
        One row a convention.
    """
    rows = [chosen, *(c for c in CONVENTIONS.values() if c.name != chosen.name)]
    pairs, _ = face_neighbours(mesh.tets)
    table = []
    for convention in rows:
        core, border = seen.value(convention.core), seen.value(convention.border)
        meaning = f"core above {convention.core}"
        if convention.border != convention.core:
            meaning += f", border zone above {convention.border}"
        limits = (min(border, core), core)
        classes = without_islands(mesh, classify(seen, convention), pairs)
        table.append(_row(mesh, classes, convention.name, limits, meaning, convention.source))
    return table


def find_thin_wall(text: str) -> ThinWall:
    """Thresholds on thickness from text such as ``mm:2,5``: core below 2 mm, border below 5 mm.

    Parameters
    ----------
    text : str
        What the user wrote.

    Returns
    -------
    ThinWall
        The thresholds.

    Raises
    ------
    InputError
        If it is not two increasing lengths.

    Examples
    --------
    >>> from twinheart.anatomy.scar import find_thin_wall
    >>> find_thin_wall("mm:2,5")
    ThinWall(core=2.0, border=5.0)
    """
    try:
        core, border = (float(number) for number in text.removeprefix("mm:").split(","))
    except ValueError:
        core = border = math.nan
    if not text.startswith("mm:") or not 0 < core <= border < 50:
        raise InputError(
            f"the convention for thickness is '{text}', expected mm:CORE,BORDER with two lengths "
            "in mm, such as mm:2,5."
        )
    return ThinWall(core, border)


def scar_of_thickness(
    mesh: TetMesh,
    thickness: Float[np.ndarray, "node"],
    is_lv: Bool[np.ndarray, "node"],
    limits: ThinWall,
) -> Int[np.ndarray, "tet"]:
    """Classes by the thickness of the left ventricle's wall, without what is too small to be real.

    Parameters
    ----------
    mesh : TetMesh
        The myocardium [mm].
    thickness, is_lv : (node,) arrays
        What `twinheart.anatomy.wall_thickness.wall_thickness` returns.
    limits : ThinWall
        Thresholds.

    Returns
    -------
    (tet,) int array
        0 healthy, 1 border zone, 2 core.
    """
    mean = thickness[mesh.tets].mean(axis=1)
    left = is_lv[mesh.tets].all(axis=1)
    classes = np.zeros(mesh.n_tets, dtype=np.int32)
    classes[left & (mean < limits.border)] = BORDER
    classes[left & (mean < limits.core)] = CORE
    return without_islands(mesh, classes)


def masses_of_thickness(
    mesh: TetMesh,
    thickness: Float[np.ndarray, "node"],
    is_lv: Bool[np.ndarray, "node"],
    chosen: ThinWall,
) -> list[Masses]:
    """Masses by the chosen thresholds, and with both moved by a millimetre.

    Parameters
    ----------
    mesh, thickness, is_lv, chosen
        As for `scar_of_thickness`.

    Returns
    -------
    list of Masses
        The chosen thresholds first.
    """
    table = []
    for shift in (0.0, -1.0, 1.0):
        limits = ThinWall(max(chosen.core + shift, 0.0), max(chosen.border + shift, 0.0))
        classes = scar_of_thickness(mesh, thickness, is_lv, limits)
        meaning = f"core below {limits.core:g} mm, border zone below {limits.border:g} mm"
        source = "usual limits of CT" if limits == ThinWall() else "for comparison"
        table.append(
            _row(mesh, classes, limits.name, (limits.border, limits.core), meaning, source)
        )
    return table


def painted_masses(mesh: TetMesh, classes: Int[np.ndarray, "tet"]) -> Masses:
    """Masses of a scar that was painted, not found: no threshold made it.

    Parameters
    ----------
    mesh : TetMesh
        The myocardium [mm].
    classes : (tet,) int array
        0 healthy, 1 border zone, 2 core.

    Returns
    -------
    Masses
        The only row of its table.
    """
    meaning = "core, border zone and channels placed by coordinates"
    return _row(mesh, classes, "painted", (math.nan, math.nan), meaning, "a scenario")


def _row(mesh, classes, name, limits, meaning, source) -> Masses:
    border_g, core_g = (mass(mesh, classes == kind) for kind in (BORDER, CORE))
    border, core = (float(limit) for limit in limits)
    return Masses(name, border_g, core_g, border, core, meaning, source)


def with_scar(
    mesh: TetMesh, classes: Int[np.ndarray, "tet"], corridors: Iterable[Corridor] = ()
) -> TetMesh:
    """The mesh with the cell fields ``scar`` (0, 1, 2) and ``corridor`` (0: none; 1, 2, ...).

    Parameters
    ----------
    mesh : TetMesh
        Any mesh.
    classes : (tet,) int array
        0 healthy, 1 border zone, 2 core.
    corridors : iterable of Corridor
        What `twinheart.anatomy.corridors.find_corridors` returns.

    Returns
    -------
    TetMesh
        With both fields, to be written; `twinheart simulate` understands ``scar``.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy.scar import with_scar
    >>> from twinheart.mesh.generate import slab
    >>> mesh = slab((2.0, 1.0, 1.0), 0.5)
    >>> sorted(with_scar(mesh, np.zeros(mesh.n_tets, dtype=np.int32)).cell_fields)
    ['corridor', 'scar']
    """
    number = np.zeros(mesh.n_tets, dtype=np.int32)
    for k, corridor in enumerate(corridors, start=1):
        number[corridor.tets] = k
    fields = {"scar": np.asarray(classes, dtype=np.int32), "corridor": number}
    return TetMesh(mesh.points, mesh.tets, mesh.point_fields, mesh.cell_fields | fields)
