"""Scarred tissue: what the cell field ``scar`` of a heart does to cells and conduction.

Core carries no current. The border zone has remodelled cells and conducts worse across the fibres:
by default the condition ``border-zone`` (see `twinheart.cell.conditions`) and a tenth of the
conductivity across, as in the virtual-heart arrhythmia risk predictor (Arevalo et al. 2016,
doi:10.1038/ncomms11437; both numbers from memory, changeable defaults).

Where velocities are given instead of conductivities, those of the border zone follow: the
conductivities of the healthy tissue, scaled, with the remodelled cells. Such waves are slow (0.07
m/s across the fibres, for 0.3 in healthy tissue), and a mesh carries no wave below 0.14 m/s for
each mm of its spacing: on a coarse mesh the border zone gets that velocity, and a warning says so.
"""

import warnings
from collections.abc import Callable

import equinox as eqx
import numpy as np

from twinheart.anatomy import Heart
from twinheart.cell import AbstractCellModel, apply_condition
from twinheart.cell.conditions import CONDITIONS, left_out
from twinheart.errors import MeshError, ModelError
from twinheart.imaging.enhancement import BORDER, CORE
from twinheart.tissue.cable import continuum_velocity, lattice_spacing
from twinheart.tissue.conductivity import (
    Conduction,
    Conductivities,
    NonConducting,
    Velocities,
    by_region,
)

# Added to the region tag once in the border zone, twice in the core.
SCAR_TAG = 1000
SCAR_FIELD = "scar"
# Slowest wave that can be tuned for, over the spacing [m/s per mm].
_SLOWEST = 0.14


class SlowestWaveWarning(UserWarning):
    """The mesh is too coarse for the slow waves of the border zone."""


def has_scar(heart: Heart) -> bool:
    """Whether the heart has a cell field ``scar`` of 0, 1 and 2 with any border zone or core.

    Examples
    --------
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.tissue.scar import has_scar
    >>> has_scar(Heart(slab((2.0, 1.0, 1.0), 0.5)))
    False
    """
    classes = heart.mesh.cell_fields.get(SCAR_FIELD)
    return classes is not None and bool(np.isin(classes, (0, BORDER, CORE)).all() and classes.any())


def scarred(
    heart: Heart,
    cell: AbstractCellModel | dict[int, AbstractCellModel],
    conduction: Conduction | dict[int, Conduction],
    *,
    condition: str = "border-zone",
    across: float = 0.1,
    speed: Callable[[AbstractCellModel, AbstractCellModel], float] | None = None,
) -> tuple[Heart, dict[int, AbstractCellModel], dict[int, Conduction]]:
    """Heart, cells and conduction in which border zone and core are regions of their own.

    Parameters
    ----------
    heart : Heart
        With the cell field ``scar``: 0 healthy, 1 border zone, 2 core.
    cell, conduction
        Of the healthy tissue, or one for each of the heart's region tags.
    condition : str
        Disease of the border zone's cells; ``"none"`` for none.
    across : float
        Factor on the conductivities across the fibres in the border zone.
    speed : callable, optional
        Velocity of remodelled cells as a share of that of the healthy ones, from both; then no
        velocity is raised to what the mesh carries, as an eikonal equation needs it. By default it
        is measured on cables.

    Returns
    -------
    Heart, dict, dict
        Tag t of the healthy tissue becomes 1000 + t in the border zone, 2000 + t in the core;
        cells and conduction for every tag.

    Raises
    ------
    MeshError
        If ``scar`` has other values than 0, 1 and 2, or a region tag is not from 0 to 999.
    ModelError
        If the factor is not positive, or the condition is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.anatomy.scar import with_scar
    >>> from twinheart.cell import get_model
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.tissue import NIEDERER_2011
    >>> from twinheart.tissue.scar import scarred
    >>> mesh = slab((3.0, 1.0, 1.0), 0.5)
    >>> classes = (mesh.points[mesh.tets].mean(axis=1)[:, 0] // 1).astype(np.int32)
    >>> heart = Heart(with_scar(mesh, classes))
    >>> scarred(heart, get_model("tentusscher2006-epi"), NIEDERER_2011)[2].keys()
    dict_keys([0, 1000, 2000])
    """
    if not (np.isfinite(across) and across > 0):
        raise ModelError(f"the factor across the fibres is {across}, expected a positive number.")
    classes = np.asarray(heart.mesh.cell_fields[SCAR_FIELD])
    if not np.isin(classes, (0, BORDER, CORE)).all():
        raise MeshError(
            "the cell field 'scar' has values other than 0 (healthy), 1 (border zone) and 2 (core)."
        )
    if not ((heart.regions >= 0) & (heart.regions < SCAR_TAG)).all():
        raise MeshError(
            f"the region tags run from {heart.regions.min()} to {heart.regions.max()}; a heart "
            f"with scar needs tags from 0 to {SCAR_TAG - 1}: renumber them."
        )
    regions = heart.regions + SCAR_TAG * classes.astype(np.int32)
    plain_cells = by_region(heart, cell, "cell model")
    plain_tissues = by_region(heart, conduction, "conductivity")
    cells, tissues = {}, {}
    remodelled: dict[tuple[int, int], tuple] = {}  # one object for all tags that share theirs
    for tag in np.unique(regions).tolist():
        own_cell, tissue = plain_cells[tag % SCAR_TAG], plain_tissues[tag % SCAR_TAG]
        if tag >= SCAR_TAG:
            key = (id(own_cell), id(tissue))
            if key not in remodelled:
                changed = _remodelled(own_cell, condition)
                slower = _slower(heart, own_cell, changed, tissue, across, speed)
                remodelled[key] = changed, slower
            own_cell, tissue = remodelled[key]  # the core's at its edge, where they still fire
        if tag // SCAR_TAG == CORE:
            tissue = NonConducting()
        cells[tag], tissues[tag] = own_cell, tissue
    return Heart(heart.mesh, heart.f0, heart.s0, regions), cells, tissues


def _remodelled(cell: AbstractCellModel, condition: str) -> AbstractCellModel:
    if condition == "none":
        return cell
    if condition in CONDITIONS and len(left_out(cell, condition)) == len(
        CONDITIONS[condition].factors
    ):
        warnings.warn(
            f"{cell.name} has nothing that condition {condition!r} changes: the cells of the "
            "border zone are healthy.",
            stacklevel=3,
        )
        return cell
    return apply_condition(cell, condition)


def _slower(
    heart: Heart,
    cell: AbstractCellModel,
    changed: AbstractCellModel,
    tissue: Conduction,
    across: float,
    speed: Callable[[AbstractCellModel, AbstractCellModel], float] | None,
) -> Conduction:
    """Conduction of the border zone, from that of the healthy tissue around."""
    if isinstance(tissue, NonConducting):
        return tissue
    if isinstance(tissue, Conductivities):
        return _scaled_across(tissue, across)
    if speed is None:
        ratio = continuum_velocity(changed, 1.0) / continuum_velocity(cell, 1.0)
    else:
        ratio = speed(cell, changed)
    wanted = ratio * np.asarray(tissue.cv) * np.sqrt([1.0, across, across])
    physical = _scaled_across(tissue.physical, across)
    if speed is not None:
        return Velocities(*wanted.tolist(), physical=physical)
    slowest = _SLOWEST * lattice_spacing(heart.mesh)
    reached = np.maximum(wanted, np.minimum(slowest, np.asarray(tissue.cv)))
    if (reached > wanted).any():
        warnings.warn(
            f"this mesh carries no wave slower than {slowest:.2f} m/s: the border zone conducts at "
            f"{reached[1]:.2f} m/s across the fibres instead of {wanted[1]:.2f}; an edge of "
            f"{wanted[1] / _SLOWEST:.2g} mm would do.",
            SlowestWaveWarning,
            stacklevel=3,
        )
    return Velocities(*reached.tolist(), physical=physical)


def _scaled_across(tissue: Conductivities, across: float) -> Conductivities:
    names = ("sigma_it", "sigma_in", "sigma_et", "sigma_en")
    return eqx.tree_at(
        lambda t: [getattr(t, name) for name in names],
        tissue,
        [across * getattr(tissue, name) for name in names],
    )
