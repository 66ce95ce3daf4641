"""`twinheart screen`: circuits of re-entry and vulnerable tissue, without inducing anything."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twinheart.cli import substrate as shared
from twinheart.cli.terminal import emit, say

if TYPE_CHECKING:
    from twinheart.planning.circuits.screening import Screening
    from twinheart.planning.substrate import Substrate

METHOD = (
    "circuits: isthmuses in which eikonal waves from the sites meet, cut where they are narrowest; "
    "sustained if re-entry that slows down by restitution returns later than refractoriness both "
    "ways; its cycle is then steady (after Campos et al. 2022, "
    "doi:10.48550/arXiv.2108.13194; own formulation). RVI: Child et al. 2015, "
    "doi:10.1016/j.hrthm.2015.04.013, of a premature beat. Gradient of repolarisation: above 10 "
    "ms/mm waves block (Restivo et al. 1990)"
)


def screen(
    heart: Annotated[str | None, shared.HEART] = None,
    twin: Annotated[Path | None, shared.TWIN] = None,
    case: Annotated[Path | None, shared.CASE] = None,
    sites: Annotated[str, shared.SITES] = "aha17",
    cell: Annotated[str | None, shared.CELL] = None,
    length_unit: Annotated[str | None, shared.UNIT] = None,
    rvi_radius: Annotated[
        float, typer.Option(help="Radius of the vulnerability index, in mm; 2 to 8 are told too.")
    ] = 5.0,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Mesh with maps to write (.vtu); circuits beside it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find the circuits that scar could sustain, and vulnerable tissue. Not clinical.

    Each circuit has its exit and entrance, cycle length and the area of its isthmus.
    """
    found = screen_heart(
        heart, twin, case, sites, cell=cell, length_unit=length_unit, radius=rvi_radius, out=out
    )
    say(f"twinheart: note: {shared.RESEARCH}")
    emit(found if as_json else _for_reading(found), as_json=as_json)


def screen_heart(
    heart: str | None = None,
    twin: Path | None = None,
    case: Path | None = None,
    sites: str = "aha17",
    *,
    cell: str | None = None,
    length_unit: str | None = None,
    radius: float = 5.0,
    out: Path | None = None,
) -> dict[str, Any]:
    """Do what `screen` says; the arguments are its options.

    Returns
    -------
    dict
        What ``--json`` prints.

    Raises
    ------
    InputError, MeshError, ModelError, OutputError, UnitError
        If something given cannot be used, or a file cannot be written.
    """
    start = time.perf_counter()
    shared.must_be_vtu(out)
    from twinheart.cli.run import provenance
    from twinheart.planning.circuits.screening import screen as screened

    substrate = shared.substrate_of(heart, twin, case, cell=cell, length_unit=length_unit)
    chosen = shared.sites_of(sites, substrate)
    found = screened(substrate, chosen, radius=radius, progress=shared.SiteProgress("screening"))
    record = screening_record(substrate, found)
    source = next(str(name) for name in (heart, twin, case) if name is not None)
    record = {"source": source} | record
    if out is not None:
        record["files"] = [str(path) for path in write_maps(out, substrate, found)]
    record["wall_s"] = time.perf_counter() - start
    record["provenance"] = provenance()
    return record


def screening_record(substrate: "Substrate", found: "Screening") -> dict[str, Any]:
    """Figures of a screening under names that carry their units.

    Parameters
    ----------
    substrate : Substrate
        What was screened.
    found : Screening
        The result.

    Returns
    -------
    dict
        Circuits first.
    """
    from twinheart.planning.circuits.circuit_file import circuit_rows

    mesh = substrate.heart.mesh
    circuits = found.circuits or []
    return {
        "n_circuits": len(circuits),
        "circuits": circuit_rows(circuits, mesh, found.sites),
        "circuits_sought": found.circuits is not None,
        # isthmuses with a way round that comes back before the tissue has recovered
        "not_sustained": [
            {k: v for k, v in row.items() if k not in ("circuit", "path_mm")}
            for row in circuit_rows(found.unsustained, mesh, found.sites)
        ],
        "vulnerability": _vulnerability(mesh, found),
        "repolarisation": _repolarisation(found),
        **shared.of_substrate(substrate),
        "sites": [
            row | {"lowest_rvi_ms": low, "premature_coupling_ms": beat.coupling}
            for row, low, beat in zip(
                shared.of_sites(found.sites), found.lowest.tolist(), found.beats, strict=True
            )
        ],
        "method": METHOD,
        "settings": {"rvi_radius_mm": found.radius},
        "notes": list(substrate.notes),
    }


def _vulnerability(mesh, found: "Screening") -> dict[str, Any]:
    """Lowest index, where, and how it depends on the radius."""
    sweep = found.sweep
    if sweep is None:
        return {"radius_mm": found.radius, "lowest_ms": None}
    by_radius = [
        {"radius_mm": r, "lowest_ms": low, "at_mm": mesh.points[node].tolist()}
        for r, low, node in zip(
            sweep.radii.tolist(), sweep.lowest_ms.tolist(), sweep.lowest_node, strict=True
        )
    ]
    return {
        "radius_mm": found.radius,
        "lowest_ms": float(found.lowest[found.worst]),
        "site": found.sites[found.worst].name,
        "by_radius": by_radius,
        # of the most vulnerable tenth of the nodes, by the smallest and the largest radius
        "overlap_of_extreme_radii": float(sweep.overlap[0, -1]),
    }


def _repolarisation(found: "Screening") -> dict[str, Any]:
    import numpy as np

    if found.gradient is None:
        return {"steep_ml": None}
    beat = found.beats[found.worst]
    return {
        "site": found.sites[found.worst].name,
        "steep_ml": found.gradient.volume_ml,
        "steep_mean_ms_per_mm": found.gradient.mean,
        "steep_from_ms_per_mm": 10.0,
        "dispersion_ms": float(np.nanmax(beat.repolarisation) - np.nanmin(beat.repolarisation)),
        "blocked_fraction": float(
            (np.isnan(beat.activation) & np.isfinite(beat.regular)).sum()
            / max(np.isfinite(beat.regular).sum(), 1)
        ),
    }


def write_maps(out: Path, substrate: "Substrate", found: "Screening") -> list[Path]:
    """Write the heart with maps, and the circuits as lines beside it.

    Parameters
    ----------
    out : Path
        ``.vtu`` file.
    substrate : Substrate
        What was screened.
    found : Screening
        The result.

    Returns
    -------
    list of Path
        What was written.
    """
    import numpy as np

    from twinheart.anatomy import mesh_of_heart
    from twinheart.mesh import TetMesh
    from twinheart.mesh.io import write_mesh
    from twinheart.planning.circuits.circuit_file import write_circuit_lines

    mesh = mesh_of_heart(substrate.heart)
    points = {"rvi_ms": found.vulnerability, "refractory_ms": substrate.refractory}
    isthmus = np.zeros(mesh.n_tets, dtype=np.int32)
    for number, circuit in reversed(list(enumerate(found.circuits or [], start=1))):
        isthmus[circuit.isthmus_tets] = number
    cells: dict[str, Any] = {"isthmus": isthmus}
    if found.gradient is not None and found.sweep is not None:
        beat = found.beats[found.worst]
        points |= {
            "arrival_ms": beat.regular,
            "premature_arrival_ms": beat.activation,
            "premature_repolarisation_ms": beat.repolarisation,
            "rvi_slope_ms_per_mm": found.sweep.slope,
        }
        cells["repolarisation_gradient_ms_per_mm"] = found.gradient.magnitude
    write_mesh(
        out, TetMesh(mesh.points, mesh.tets, mesh.point_fields | points, mesh.cell_fields | cells)
    )
    files = [out]
    if found.circuits:
        files.append(out.with_name(f"{out.stem}_circuits.vtp"))
        write_circuit_lines(files[-1], found.circuits)
    return files


def _for_reading(record: dict[str, Any]) -> dict[str, Any]:
    """The record without ways and methods, as tables."""
    hidden = ("path_mm", "sites", "entrance_mm")
    left_out = ("method", "provenance", "notes", "settings")
    shown = {k: v for k, v in record.items() if k not in left_out}
    for name in ("circuits", "not_sustained"):
        shown[name] = [{k: v for k, v in row.items() if k not in hidden} for row in record[name]]
    return shown
