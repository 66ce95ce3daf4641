r"""What all planning starts from: a heart with its scar as one electrical substrate.

Healthy tissue, border zone and lesions are regions, each with a cell, velocities at rest and a
table of restitution. Core does not conduct. The border zone has remodelled cells and conducts worse
across the fibres, see `twinheart.tissue.scar`; its velocities follow those of the healthy tissue by
the speed of the two cells' waves. Restitution and that speed are measured on a cable of each cell,
see `twinheart.tissue.measured_wave`; that of the border zone and how far recovery reaches from one
into the other on a strand, see `twinheart.planning.strand`, and how far durations do on a cable of
both, see `twinheart.tissue.electrotonic`.

With a calibrated twin, velocities and durations are those fitted: each region is divided by
duration, and restitution is scaled to it. A border zone that the fit took for healthy tissue keeps
the ratio of its cell's durations to the healthy cell's: what was fitted is healthy tissue.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from twinheart.anatomy import Heart, add_coordinates, coordinates_of
from twinheart.cell import AbstractCellModel, get_model
from twinheart.cell.conditions import CONDITIONS
from twinheart.errors import MeshError, ModelError
from twinheart.planning.ablation.lesions import (
    LESION_TAG,
    Ablation,
    Lesion,
    ablate_tissue,
    ablated,
)
from twinheart.planning.strand import measured_border
from twinheart.tissue import (
    Eikonal,
    NodeTables,
    NonConducting,
    Velocities,
    WaveTable,
    build_eikonal,
    coupled_tables,
)
from twinheart.tissue.cable import ByValue
from twinheart.tissue.conductivity import Conduction, by_region
from twinheart.tissue.coupled_waves import ELECTROTONIC_TIME
from twinheart.tissue.electrotonic import electrotonic_time
from twinheart.tissue.measured_wave import measured_wave
from twinheart.tissue.purkinje import FAST_TAG
from twinheart.tissue.scar import SCAR_FIELD, SCAR_TAG, has_scar, scarred

CELL = "tentusscher2006-epi"
CYCLE = 600.0  # ms, of S1 in the common protocols
POPULATION = "population values: no calibration was given"
NO_SCAR = "the heart has no scar tags (cell field 'scar'): all of it conducts as healthy tissue"
_WIDTH = 10.0  # ms of duration in one class of a calibrated region
_MOST_CLASSES = 12


class Substrate(eqx.Module):
    """A heart and everything that screening, induction, ablation and risk need of it.

    Attributes
    ----------
    heart : Heart
        With the coordinates and the cell field ``scar``, where there are any. Region tags of the
        border zone are 1000 to 1999, of core 2000 to 2999, of lesions 10000 higher.
    cells : dict of int to AbstractCellModel
        Cell of each region.
    conduction : dict of int to Velocities, Conductivities or NonConducting
        Velocities at rest; those of the border zone are not raised to what a mesh carries.
    problem : Eikonal
        Of this heart.
    tables : dict of int to WaveTable
        Restitution of each region, deep inside it.
    coupling : float
        Electrotonic time [ms]: how far recovery reaches where regions meet.
    duration_coupling : float
        The same of durations.
    restitution : NodeTables
        That of every node, by these three.
    cycle : float
        Cycle length at which restitution was measured [ms].
    calibrated : bool
        Whether velocities and durations were fitted to a patient.
    notes : tuple of str
        What is assumed, and what of it is not verified.
    """

    heart: Heart
    cells: dict[int, AbstractCellModel]
    conduction: dict[int, Conduction]
    problem: Eikonal
    tables: dict[int, WaveTable]
    coupling: float
    duration_coupling: float
    restitution: NodeTables
    cycle: float
    calibrated: bool
    notes: tuple[str, ...]

    @property
    def has_scar(self) -> bool:
        """Whether there is any border zone or core."""
        return has_scar(self.heart)

    @property
    def refractory(self) -> Float[np.ndarray, "node"]:
        """Shortest cycle that a node of the mesh follows [ms]."""
        return self.restitution.refractory[: self.heart.mesh.n_nodes]

    def durations(self) -> Float[np.ndarray, "node"]:
        """Duration of every node at the cycle length of the regular beats [ms]."""
        return self.restitution.durations[: self.heart.mesh.n_nodes]

    def intervals(self) -> Float[np.ndarray, "node"]:
        """Shortest diastolic interval after which every node conducts [ms]."""
        return self.restitution.intervals[: self.heart.mesh.n_nodes]

    def changed(self, **fields: Any) -> "Substrate":
        """The substrate with other fields, and the restitution of nodes that follows from them."""
        other = replace(self, **fields)
        found = coupled_tables(
            other.problem, other.tables, other.coupling, durations=other.duration_coupling
        )
        return replace(other, restitution=found)


def build_substrate(
    heart: Heart,
    cell: AbstractCellModel | str | dict[int, AbstractCellModel] = CELL,
    conduction: Conduction | dict[int, Conduction] | None = None,
    *,
    condition: str = "border-zone",
    across: float = 0.1,
    border_speed: float | None = None,
    cycle: float = CYCLE,
    coupling: float | None = None,
    duration_coupling: float | None = None,
    tables: dict[int, WaveTable] | None = None,
    apd90: Float[np.ndarray, "node"] | None = None,
    calibrated: bool = False,
) -> Substrate:
    """Make a substrate of a heart.

    Parameters
    ----------
    heart : Heart
        With the cell field ``scar`` (0 healthy, 1 border zone, 2 core), or without. Where its
        region tags distinguish border zone and core already (as in a twin that was calibrated with
        its scar), cells and conduction are taken as they are.
    cell : AbstractCellModel, str or dict of int to AbstractCellModel
        Of healthy tissue, one or one for each region tag.
    conduction : Velocities, Conductivities, NonConducting or dict of int to these, optional
        Of healthy tissue; by default 0.6 m/s along and 0.3 m/s across the fibres.
    condition : str
        Disease of the cells of the border zone; ``"none"`` for none.
    across : float
        Factor on the conductivity across the fibres in the border zone.
    border_speed : float, optional
        Velocity along the fibres in the border zone as a share of that in healthy tissue; by
        default it is measured on cables of the two cells.
    cycle : float
        Cycle length of the regular beats before the premature ones of restitution [ms].
    coupling : float, optional
        Electrotonic time [ms]; by default that of healthy tissue and border zone, measured where
        `tables` are, else `twinheart.tissue.coupled_waves.ELECTROTONIC_TIME`.
    duration_coupling : float, optional
        The same of durations; by default measured too, else `coupling`.

    Other Parameters
    ----------------
    tables : dict of int to WaveTable, optional
        Restitution of every region that conducts, by the tags of `Substrate`; by default measured,
        half a minute for each cell the first time.
    apd90 : (node,) array, optional
        Fitted durations [ms]. Regions are divided by them and tables scaled; not with `tables`.
    calibrated : bool
        Whether all this was fitted to a patient.

    Returns
    -------
    Substrate
        Ready to be screened, paced and ablated.

    Raises
    ------
    MeshError
        If scar or region tags are not usable.
    ModelError
        If a region has no cell, tissue or table, or its cell does not follow the cycle length.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.anatomy.scar import with_scar
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning.substrate import build_substrate
    >>> from twinheart.tissue import WaveTable
    >>> mesh = slab((9.0, 3.0, 1.0), 1.0)
    >>> scar = (mesh.points[mesh.tets].mean(axis=1)[:, 0] // 3).astype(np.int32)
    >>> table = WaveTable([20.0, 300.0], [0.6, 1.0], [180.0, 250.0])
    >>> found = build_substrate(
    ...     Heart(with_scar(mesh, scar)), border_speed=0.5, tables={0: table, 1000: table}
    ... )
    >>> [round(float(cv), 3) for cv in found.conduction[1000].cv], float(found.refractory[0])
    ([0.3, 0.047, 0.047], 200.0)
    """
    notes: list[str] = [] if calibrated else [POPULATION]
    heart = _with_coordinates(heart, notes)
    chosen = get_model(cell) if isinstance(cell, str) else cell
    cells = by_region(heart, chosen, "cell model")
    tissues = by_region(heart, Velocities() if conduction is None else conduction, "tissue")
    if conduction is None:
        notes.append("velocities of 0.6 m/s along and 0.3 m/s across the fibres: typical, unfitted")
    if apd90 is not None or max(cells) >= FAST_TAG:
        kind = np.zeros(heart.mesh.n_tets, dtype=int) if apd90 is None else _classes(heart, apd90)
        heart, cells, tissues = _divided(heart, cells, tissues, kind)
    in_fit = cells
    if not has_scar(heart):
        notes.append(NO_SCAR)
    elif (heart.regions // SCAR_TAG != heart.mesh.cell_fields[SCAR_FIELD]).any():
        heart, cells, tissues = scarred(
            heart, cells, tissues, condition=condition, across=across,
            speed=lambda one, other: _speed(one, other, border_speed, cycle),
        )  # fmt: skip
        # the given regions, and so a fit, do not know this scar
        in_fit = {tag: in_fit[tag % SCAR_TAG] for tag in cells}
        notes += _assumed(condition, across)
    if tables is None:
        pair = _healthy_and_border(heart, cells, tissues)
        tables = _measured(heart, cells, tissues, apd90, cycle, in_fit, pair)
        name = ", ".join(sorted({model.name for model in cells.values()}))
        notes.append(f"restitution of {name} after regular beats of {cycle:g} ms, in one dimension")
        if coupling is None and pair is not None:
            coupling = measured_border(*pair, cycle).time
            if duration_coupling is None:
                duration_coupling = electrotonic_time(*pair, cycle)
    coupling = ELECTROTONIC_TIME if coupling is None else coupling
    durations = coupling if duration_coupling is None else duration_coupling
    problem = build_eikonal(heart, tissues)
    tables = _for_all(tables, problem)
    restitution = coupled_tables(problem, tables, coupling, durations=durations)
    return Substrate(
        heart, cells, tissues, problem, tables, float(coupling), float(durations), restitution,
        float(cycle), calibrated, tuple(notes),
    )  # fmt: skip


def substrate_with(substrate: Substrate, lesions: Ablation | Sequence[Lesion]) -> Substrate:
    """The substrate after ablation.

    Parameters
    ----------
    substrate : Substrate
        Before; all lesions of a plan together are placed on the same one.
    lesions : Ablation or sequence of Lesion
        What is burnt.

    Returns
    -------
    Substrate
        In which lesions do not conduct.

    Raises
    ------
    InputError, MeshError
        As `ablate_tissue` and `ablated`.

    Examples
    --------
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning import Lesion
    >>> from twinheart.planning.substrate import build_substrate, substrate_with
    >>> from twinheart.tissue import WaveTable
    >>> table = WaveTable([20.0, 300.0], [0.6, 1.0], [180.0, 250.0])
    >>> before = build_substrate(Heart(slab((9.0, 3.0, 1.0), 1.0)), tables={0: table})
    >>> after = substrate_with(before, [Lesion([[4.0, 1.5, 0.5]], radius=1.5)])
    >>> len(before.problem.cells[0]) > len(after.problem.cells[0])
    True
    """
    heart = substrate.heart
    burnt = lesions if isinstance(lesions, Ablation) else ablate_tissue(heart.mesh, lesions)
    heart, cells, tissues = ablated(heart, substrate.cells, substrate.conduction, burnt)
    problem = build_eikonal(heart, tissues)
    tables = {tag: substrate.tables[tag % LESION_TAG] for tag in problem.tags}
    return substrate.changed(
        heart=heart, cells=cells, conduction=tissues, problem=problem, tables=tables
    )


def _with_coordinates(heart: Heart, notes: list[str]) -> Heart:
    if coordinates_of(heart.mesh) is not None:
        return heart
    try:
        return replace(heart, mesh=add_coordinates(heart.mesh))
    except MeshError as error:
        reason = str(error).split(":")[0].rstrip(".")
        notes.append(f"the heart has no coordinates, and they cannot be computed: {reason}")
        return heart


def _assumed(condition: str, across: float) -> list[str]:
    """What is assumed of the border zone, and whether that is verified."""
    said = [
        f"border zone: conductivity across the fibres times {across:g}, Arevalo et al. 2016 "
        "(doi:10.1038/ncomms11437), from memory: not verified"
    ]
    if condition != "none":
        about = CONDITIONS.get(condition)
        known = "" if about is None or about.verified else ": not verified"
        source = "" if about is None else f", {about.source}"
        said.append(f"border zone: cells of condition '{condition}'{source}{known}")
    return said


def _speed(cell, changed, given: float | None, cycle: float) -> float:
    if given is not None:
        return given
    return measured_wave(changed, cycle).velocity / measured_wave(cell, cycle).velocity


def _classes(heart: Heart, apd90) -> Int[np.ndarray, "tet"]:
    """Class of duration of every tetrahedron within its region."""
    mean = np.asarray(apd90, dtype=float)[heart.mesh.tets].mean(axis=1)
    kind = np.zeros(len(mean), dtype=int)
    for tag in np.unique(heart.regions):
        own = heart.regions == tag
        low, high = mean[own].min(), mean[own].max()
        count = int(np.clip(np.ceil((high - low) / _WIDTH), 1, _MOST_CLASSES))
        kind[own] = np.clip((mean[own] - low) / max(high - low, 1e-9) * count, 0, count - 1)
    return kind


def _divided(heart: Heart, cells, tissues, kind):
    """Heart whose regions are divided by a class; tags from 0, 1000 and 2000 on."""
    pairs, place = np.unique(
        np.stack([heart.regions, kind.astype(np.int32)], axis=1), axis=0, return_inverse=True
    )
    band = pairs[:, 0] % FAST_TAG // SCAR_TAG
    tags = np.zeros(len(pairs), dtype=np.int32)
    for b in np.unique(band):
        if (count := int((band == b).sum())) > SCAR_TAG:
            raise MeshError(f"{count} regions, expected at most {SCAR_TAG}: merge some of them.")
        tags[band == b] = b * SCAR_TAG + np.arange(count)
    origin = dict(zip(tags.tolist(), pairs[:, 0].tolist(), strict=True))
    return (
        Heart(heart.mesh, heart.f0, heart.s0, tags[place.ravel()]),
        {tag: cells[old] for tag, old in origin.items()},
        {tag: tissues[old] for tag, old in origin.items()},
    )


def _measured(
    heart: Heart, cells, tissues, apd90, cycle: float, in_fit: dict[int, AbstractCellModel], pair
) -> dict[int, WaveTable]:
    """Table of every region that conducts, scaled to its mean fitted duration.

    What was fitted is the duration of the cell that the fit had there: of the healthy one, where a
    border zone was added after it.
    """
    tables: dict[int, WaveTable] = {}

    @cache
    def measured(cell: ByValue) -> WaveTable:  # many regions have the same
        return measured_wave(cell.model, cycle).table

    @cache
    def at_border(healthy: ByValue, cell: ByValue) -> WaveTable:
        return measured_border(healthy.model, cell.model, cycle).table

    for tag, cell in cells.items():
        if isinstance(tissues[tag], NonConducting):
            continue
        table = measured(ByValue(cell))
        if pair is not None and cell is not pair[0] and tag % FAST_TAG // SCAR_TAG == 1:
            table = at_border(ByValue(pair[0]), ByValue(cell))
        if apd90 is not None:
            fitted = float(np.mean(np.asarray(apd90)[heart.mesh.tets[heart.regions == tag]]))
            factor = fitted / measured(ByValue(in_fit[tag])).apd[-1]
            table = WaveTable(table.di, table.speed, table.apd * factor)
        tables[tag] = table
    return tables


def _healthy_and_border(
    heart: Heart, cells, tissues
) -> tuple[AbstractCellModel, AbstractCellModel] | None:
    """Cells of the healthy and the border zone's region with most elements, if they differ."""
    pair = []
    for band in (0, 1):
        own = [
            tag for tag in cells
            if tag % FAST_TAG // SCAR_TAG == band and not isinstance(tissues[tag], NonConducting)
        ]  # fmt: skip
        count = {tag: int((heart.regions == tag).sum()) for tag in own}
        if not any(count.values()):
            return None
        pair.append(cells[max(count, key=lambda tag: count[tag])])
    healthy, border = pair
    return None if healthy is border else (healthy, border)


def _for_all(tables: dict[int, WaveTable], problem: Eikonal) -> dict[int, WaveTable]:
    """Tables with one for every region of the problem: what does not conduct has any."""
    alive = {problem.tags[k] for k in np.unique(np.asarray(problem.rows[0]))}
    if missing := sorted(alive - set(tables)):
        raise ModelError(
            f"regions {missing} have no wave table; given are {sorted(tables)}: add one for each "
            "region tag that conducts."
        )
    some = tables[min(alive)]
    return {tag: tables.get(tag, some) for tag in problem.tags}
