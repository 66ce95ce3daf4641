"""The risk of a heart as `twinheart risk --heart` tells it: measures, intervals, scar, ECG."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twinheart.cli import substrate as shared
from twinheart.errors import InputError

if TYPE_CHECKING:
    from twinheart.anatomy.scar import Masses
    from twinheart.calibration.twin_file import StoredTwin
    from twinheart.mesh import TetMesh
    from twinheart.planning.risk.ensemble import Ensemble
    from twinheart.planning.risk.measures import Risk
    from twinheart.planning.substrate import Substrate

METHOD = (
    "screening for circuits and vulnerability (see 'twinheart screen') of the heart and of each "
    "member of an ensemble; intervals: quantiles of the members; shares: Wilson intervals at 95 % "
    "(doi:10.1080/01621459.1927.10502953); programmed stimulation where a preset is named, by the "
    "re-excitable eikonal equation"
)
POPULATION, CALIBRATED = "population values", "calibrated to an ECG"
_SAME_PLACE = 1e-3  # mm
_ECG_END = 600.0  # ms of a simulated beat
_MARKERS = (
    "qrs_duration_ms", "qt_ms", "qtc_bazett_ms", "qtc_fridericia_ms", "jtc_ms", "tpe_ms",
    "qt_dispersion_ms", "axis_deg", "qrs_t_angle_kors_deg", "fragmented_qrs", "heart_rate_bpm",
)  # fmt: skip


def heart_risk(
    heart: str | None = None,
    twin: Path | None = None,
    case: Path | None = None,
    sites: str = "aha17",
    *,
    cell: str | None = None,
    length_unit: str | None = None,
    preset: str | None = None,
    ensemble: int = 20,
    induce_members: bool = False,
    seed: int = 0,
    lge: Path | None = None,
    ecg: Path | None = None,
    simulated_ecg: bool = True,
    workers: int = 1,
    file: Path | None = None,
) -> dict[str, Any]:
    """Do what `risk --heart` says; the arguments are its options.

    Returns
    -------
    dict
        What ``--json`` prints.

    Raises
    ------
    InputError, MeshError, ModelError, OutputError, UnitError
        If something given cannot be used, or a file cannot be written.
    """
    from twinheart.cli.run import provenance
    from twinheart.planning.induction.protocols import named_protocol
    from twinheart.planning.risk.measures import assess_risk

    start = time.perf_counter()
    protocol = None if preset is None else named_protocol(preset)
    if induce_members and protocol is None:
        raise InputError("--induce-members needs --preset, the protocol to pace them by.")
    base, stored = _substrate(heart, twin, case, cell, length_unit)
    chosen = shared.sites_of(sites, base)
    drawn = ensemble_of(base, stored, heart if twin is None else twin, ensemble, seed)
    found = assess_risk(
        base, chosen, drawn, protocol,
        induce_members=induce_members, workers=workers, file=file,
        progress=shared.SiteProgress("members of the ensemble"),
    )  # fmt: skip
    source = next(str(name) for name in (heart, twin, case) if name is not None)
    record = {"source": source} | risk_record(base, found)
    record |= scar_and_ecg(base, stored, lge=lge, ecg=ecg, simulated=simulated_ecg)
    settings = {"sites": sites, "preset": preset, "induce_members": induce_members}
    record["settings"] = settings | {"ensemble": ensemble}
    return record | {"seed": seed, "wall_s": time.perf_counter() - start,
                     "provenance": provenance() | {"seed": seed}}  # fmt: skip


def scar_and_ecg(
    base: "Substrate",
    stored: "StoredTwin | None",
    *,
    lge: Path | None = None,
    ecg: Path | None = None,
    simulated: bool = True,
) -> dict[str, Any]:
    """Scar, corridors and markers of the ECG of a heart, and what could not be told.

    Parameters
    ----------
    base : Substrate
        The heart.
    stored : StoredTwin or None
        The calibrated twin behind it.
    lge : Path, optional
        Image of the scar.
    ecg : Path, optional
        Recorded ECG.
    simulated : bool
        Whether a normal beat is simulated for its ECG.

    Returns
    -------
    dict
        Rows and notes.
    """
    notes: list[str] = []
    markers: dict[str, Any] = {}
    if ecg is not None:
        markers["measured"] = measured_markers(ecg)
    if simulated:
        try:
            markers["simulated"] = simulated_markers(base, stored)
        except InputError as error:
            notes.append(f"no ECG was simulated: {error}")
    masses, about = scar_masses(base.heart.mesh, lge)
    return {
        "scar": [row._asdict() for row in masses],
        "corridors": corridor_rows(base.heart.mesh),
        "ecg": markers,
        "scar_and_ecg_notes": [*notes, *about],
    }


def risk_record(base: "Substrate", found: "Risk") -> dict[str, Any]:
    """Figures of an assessment under names that carry their units.

    Parameters
    ----------
    base : Substrate
        The heart.
    found : Risk
        The result.

    Returns
    -------
    dict
        Circuits, inducibility, measures with intervals, the ensemble.
    """
    from twinheart.planning.circuits.circuit_file import circuit_rows

    screening = found.found.screening
    induced = found.found.sites
    inducibility = None
    if found.inducibility is not None:
        values = found.found.values
        inducibility = {
            **found.inducibility._asdict(),
            "sites": [result.site.name for result in induced if result.induced],
            "shortest_coupling_ms": values["shortest_coupling_ms"],
            "shortest_cycle_ms": values["induced_cycle_ms"],
        }
    return {
        "values": CALIBRATED if base.calibrated else POPULATION,
        "n_circuits": len(screening.circuits or []),
        "circuits": circuit_rows(screening.circuits or [], base.heart.mesh, screening.sites),
        "circuits_sought": screening.circuits is not None,
        "inducibility": inducibility,
        "measures": [_measure(row) for row in found.intervals],
        "circuit_share": _share(found.circuit_share),
        "inducible_share": _share(found.inducible_share),
        "ensemble": None if found.ensemble is None else _of_ensemble(found.ensemble),
        **shared.of_substrate(base),
        "method": METHOD,
        "notes": [*base.notes, *(found.ensemble.notes if found.ensemble else ())],
        "use": shared.RESEARCH,
    }


def _share(found) -> dict[str, Any] | None:
    return None if found is None else found._asdict()


def _measure(row) -> dict[str, Any]:
    return {
        "measure": row.measure.key,
        "label": row.measure.label,
        "unit": row.measure.unit,
        "value": row.value,
        "low": row.low,
        "median": row.median,
        "high": row.high,
        "width": row.width,
        "known": row.known,
        "values": list(row.values),
    }


def _of_ensemble(drawn: "Ensemble") -> dict[str, Any]:
    import numpy as np

    from twinheart.planning.risk.measures import LEVEL

    ends = [0.5 - LEVEL / 2, 0.5, 0.5 + LEVEL / 2]
    rows = []
    for name, unit in drawn.units.items():
        low, median, high = np.quantile([m[name] for m in drawn.members], ends)
        rows.append({"name": name, "unit": unit, "value": drawn.centre[name], "low": low,
                     "median": median, "high": high})  # fmt: skip
    return {
        "members": len(drawn.members),
        "level": LEVEL,
        "source": drawn.source,
        "seed": drawn.seed,
        "parameters": rows,
    }


def _substrate(
    heart: str | None, twin: Path | None, case: Path | None, cell, length_unit
) -> "tuple[Substrate, StoredTwin | None]":
    """Substrate, and the calibrated twin behind it if there is one."""
    from twinheart.calibration.twin_file import load_twin
    from twinheart.planning.substrate_file import twin_substrate

    if heart is not None and twin is not None:
        if case is not None or cell is not None:
            raise InputError("with --heart and --twin give neither --case nor --cell.")
        stored = with_scar_of(load_twin(twin), heart, length_unit)
        found = twin_substrate(stored)
        shared.tell_notes(found)
        return found, stored
    return shared.substrate_and_twin(heart, twin, case, cell=cell, length_unit=length_unit)


def with_scar_of(stored: "StoredTwin", heart: str, length_unit: str | None = None) -> "StoredTwin":
    """A calibrated twin with the scar of a heart of the same mesh.

    Parameters
    ----------
    stored : StoredTwin
        The twin.
    heart : str
        File of the heart, with the cell field ``scar``.
    length_unit : str, optional
        Of that file.

    Returns
    -------
    StoredTwin
        With the fields of the heart.

    Raises
    ------
    InputError
        If it is another mesh.
    """
    import numpy as np

    from twinheart.anatomy import Heart, read_heart
    from twinheart.mesh import TetMesh

    other, _ = read_heart(heart, length_unit=length_unit)
    own = stored.twin.heart
    same = other.mesh.points.shape == own.mesh.points.shape and np.array_equal(
        other.mesh.tets, own.mesh.tets
    )
    if not same or np.abs(other.mesh.points - own.mesh.points).max() > _SAME_PLACE:
        raise InputError(
            f"the mesh of {heart} is not that of the twin ({other.mesh.n_nodes} and "
            f"{own.mesh.n_nodes} nodes): find or paint the scar on the heart that was calibrated."
        )
    fields = own.mesh.cell_fields | {
        name: other.mesh.cell_fields[name]
        for name in ("scar", "corridor")
        if name in other.mesh.cell_fields
    }
    mesh = TetMesh(own.mesh.points, own.mesh.tets, own.mesh.point_fields, fields)
    made = Heart(mesh, own.f0, own.s0, own.regions)
    return replace(stored, twin=replace(stored.twin, heart=made))


def ensemble_of(
    base: "Substrate", stored: "StoredTwin | None", file: Any, count: int, seed: int
) -> "Ensemble | None":
    """Ensemble of `count` members from the posterior of a twin's file, else of the population.

    Parameters
    ----------
    base : Substrate
        The heart.
    stored : StoredTwin or None
        The calibrated twin behind it.
    file : path
        Of that twin.
    count, seed : int
        Members, and of their draws.

    Returns
    -------
    Ensemble or None
        None of no members.
    """
    from twinheart.planning.risk.ensemble import population_ensemble, posterior_ensemble

    if count == 0:
        return None
    if stored is not None:
        return posterior_ensemble(file, count, seed, stored=stored)
    return population_ensemble(base, count, seed)


def scar_masses(mesh: "TetMesh", lge: Path | None = None) -> "tuple[list[Masses], list[str]]":
    """Masses of the scar under every convention that can be told, the one in use first.

    Parameters
    ----------
    mesh : TetMesh
        With the cell field ``scar``, where it has scar.
    lge : Path, optional
        The image that it was found in, in the coordinates of the mesh.

    Returns
    -------
    list of Masses, list of str
        None without scar; what could not be told.

    Raises
    ------
    InputError
        If the image does not fit the heart.
    """
    import numpy as np

    from twinheart.anatomy.scar import (
        ThinWall,
        masses_of_lge,
        masses_of_thickness,
        painted_masses,
    )

    classes = mesh.cell_fields.get("scar")
    if classes is None or not np.any(classes):
        return [], []
    in_use = painted_masses(mesh, np.asarray(classes))._replace(
        convention="as the mesh has it", meaning="classes of the cell field scar", source=""
    )
    if lge is not None:
        from twinheart.imaging import read_image
        from twinheart.imaging.enhancement import find_convention, measure_enhancement

        seen = measure_enhancement(read_image(lge), mesh)
        return [in_use, *masses_of_lge(mesh, seen, find_convention("roes"))], []
    if "thickness_mm" in mesh.point_fields:
        from twinheart.anatomy.wall_thickness import wall_thickness

        thickness, is_lv = wall_thickness(mesh)
        return [in_use, *masses_of_thickness(mesh, thickness, is_lv, ThinWall())], []
    why = "masses under other conventions need the image: --lge"
    return [in_use], [why]


def corridor_rows(mesh: "TetMesh") -> list[dict[str, Any]]:
    """Corridors of the scar as rows of a record; none without scar."""
    import numpy as np

    from twinheart.anatomy.corridors import find_corridors

    classes = mesh.cell_fields.get("scar")
    if classes is None or not np.any(classes):
        return []
    return [
        {
            "corridor": k,
            "length_mm": corridor.length,
            "width_mm": corridor.width,
            "area_mm2": corridor.area,
            "mass_g": corridor.mass,
        }
        for k, corridor in enumerate(find_corridors(mesh, np.asarray(classes)), start=1)
    ]


def measured_markers(path: Path) -> dict[str, Any]:
    """Markers of a recorded ECG.

    Parameters
    ----------
    path : Path
        Any file that `twinheart.ecg.read_ecg` reads.

    Returns
    -------
    dict
        None where one cannot be told.
    """
    from twinheart.ecg import ecg_features, read_ecg

    return _markers(ecg_features(read_ecg(path).ecg).values)


def simulated_markers(base: "Substrate", stored: "StoredTwin | None") -> dict[str, Any]:
    """Markers of the ECG that a normal beat of the heart would have.

    Parameters
    ----------
    base : Substrate
        The heart.
    stored : StoredTwin or None
        The calibrated twin behind it, whose beat is taken.

    Returns
    -------
    dict
        Of one beat: what needs a rate is None.

    Raises
    ------
    InputError
        If surfaces are not tagged, so that a normal beat has nowhere to start.
    """
    from twinheart.anatomy.root_sites import root_sites
    from twinheart.ecg import ecg_features, standard_12_lead
    from twinheart.errors import MeshError
    from twinheart.tissue import pace
    from twinheart.twin import Twin, simulate

    if stored is not None:
        beat = stored.beat(t_end=_ECG_END)
    else:
        try:
            roots = root_sites(base.heart.mesh)
            twin = Twin(base.heart, base.cells, base.conduction, standard_12_lead(base.heart))
        except MeshError as error:
            raise InputError(str(error)) from None
        stimuli = [pace(site.nodes, start=site.onset) for site in roots]
        beat = simulate(twin, stimuli, t_end=_ECG_END, propagation="eikonal")
    if beat.ecg is None:
        raise InputError("the twin has no electrodes.")
    return _markers(ecg_features(beat.ecg).values)


def _markers(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in _MARKERS}
