"""`twinheart locate-vt`: where a recorded ventricular tachycardia leaves its scar."""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twinheart.cli import substrate as shared
from twinheart.cli.terminal import emit, say
from twinheart.errors import InputError

if TYPE_CHECKING:
    from twinheart.cli.case import Case
    from twinheart.mesh import TetMesh
    from twinheart.planning.pace_mapping.pace_map import PaceMap, Site
    from twinheart.planning.pace_mapping.vt_beat import VtBeat

METHOD = (
    "pace mapping: eikonal activation and template action potentials from every site, QRS of the "
    "independent leads by the lead field; correlation over all leads together with free amplitude, "
    "onset and speed; region by split conformal prediction over simulated beats of hearts that "
    "differ from the model (own formulation)"
)
_NAMES = {2: "epicardium", 3: "LV endocardium", 4: "RV endocardium"}


def locate_vt(
    heart: Annotated[
        str | None, typer.Option(help="Mesh of a heart, calibrated twin (twin.h5), or 'demo'.")
    ] = None,
    case: Annotated[
        Path | None, typer.Option(help="Case file: its heart, cells, conduction, scar, electrodes.")
    ] = None,
    ecg: Annotated[
        Path | None, typer.Option(help="Recording of the tachycardia, one beat or more.")
    ] = None,
    ecg_rate: Annotated[
        float | None, typer.Option(help="Sampling rate of --ecg in Hz, where the file has none.")
    ] = None,
    ecg_unit: Annotated[
        str | None, typer.Option(help="V, mV, uV, nV or arbitrary, where the file has none.")
    ] = None,
    qrs: Annotated[
        str | None,
        typer.Option(help="START,END of the QRS to locate, in ms of the recording; else found."),
    ] = None,
    electrodes: Annotated[
        str | None, typer.Option(help="JSON or CSV file, or 'standard' (around the heart).")
    ] = None,
    lead_field: Annotated[
        str | None, typer.Option(help="Lead field of a torso, by 'twinheart leadfield'.")
    ] = None,
    surfaces: Annotated[str, typer.Option(help="Where it may begin: endo, epi or both.")] = "both",
    spacing: Annotated[
        float, typer.Option(help="Between sites in mm; a quarter of it around the exit.")
    ] = 8.0,
    level: Annotated[float, typer.Option(help="Probability that the region is to hold.")] = 0.9,
    trials: Annotated[int, typer.Option(help="Simulated beats behind the region.")] = 39,
    seed: Annotated[int, typer.Option(help="Same seed, same region.", min=0)] = 0,
    cell: Annotated[str | None, typer.Option(help="Cell model of the template.")] = None,
    cv_l: Annotated[float | None, typer.Option(help="Velocity along fibres, in m/s.")] = None,
    cv_t: Annotated[float | None, typer.Option(help="Velocity across fibres, in m/s.")] = None,
    length_unit: Annotated[str | None, shared.UNIT] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the map and pictures.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find the exit of a recorded tachycardia by pace mapping on the model. Not clinical."""
    if ecg is None or (heart is None) == (case is None):
        raise InputError("give --ecg, and one of --heart and --case.")
    given = {
        "heart.file": heart, "heart.length_unit": length_unit, "cells.model": cell,
        "conduction.cv_l": cv_l, "conduction.cv_t": cv_t,
        "ecg.electrodes": electrodes, "ecg.lead_field": lead_field,
    }  # fmt: skip
    record = locate(
        _case(case, {key: value for key, value in given.items() if value is not None}),
        ecg,
        rate_hz=ecg_rate,
        unit=ecg_unit,
        qrs=None if qrs is None else _pair(qrs),
        surfaces=surfaces,
        spacing=spacing,
        level=level,
        trials=trials,
        seed=seed,
        out=out,
    )
    for note in record["notes"]:
        say(f"twinheart: note: {note}")
    say(f"twinheart: note: {shared.RESEARCH}")
    hidden = ("provenance", "method", "notes", "settings")
    emit(record if as_json else {k: v for k, v in record.items() if k not in hidden},
         as_json=as_json)  # fmt: skip


def locate(
    case: "Case",
    ecg: Path,
    *,
    rate_hz: float | None = None,
    unit: str | None = None,
    qrs: tuple[float, float] | None = None,
    surfaces: str = "both",
    spacing: float = 8.0,
    level: float = 0.9,
    trials: int = 39,
    seed: int = 0,
    out: Path | None = None,
) -> dict[str, Any]:
    """Do what `locate_vt` says.

    Parameters
    ----------
    case : Case
        Heart, tissue and electrodes.
    ecg : Path
        The recording.
    rate_hz, unit, qrs, surfaces, spacing, level, trials, seed, out
        See `locate_vt`.

    Returns
    -------
    dict
        What ``--json`` prints.

    Raises
    ------
    InputError, MeshError, ModelSpread, OutputError, UnitError
        If something given cannot be used, or a file cannot be written.
    """
    from twinheart.cli.run import results_folder
    from twinheart.ecg import read_ecg
    from twinheart.planning.pace_mapping.vt_beat import vt_beat

    start = time.perf_counter()
    recording = read_ecg(ecg, rate_hz=rate_hz, unit=unit)
    try:
        beat = vt_beat(recording.ecg, qrs=qrs, arbitrary=unit == "arbitrary")
    except InputError as error:
        raise InputError(f"{ecg}: {error}") from None
    settings = {
        "surfaces": surfaces, "spacing": spacing, "level": level, "trials": trials, "seed": seed,
    }  # fmt: skip
    with nullcontext() if out is None else results_folder(out):
        record = _found(case, beat, settings, out)
    record = {"ecg": str(ecg), "heart": case.heart.file} | record
    record["notes"] = [*recording.notes, *beat.remarks, *record["notes"]]
    return record | {"wall_s": time.perf_counter() - start}


def _found(case: "Case", beat: "VtBeat", settings: dict[str, Any], out: Path | None):
    from twinheart.calibration.build import prepared_heart
    from twinheart.cli.build import build_heart, build_twin
    from twinheart.cli.run import provenance
    from twinheart.planning.pace_mapping.pace_map import locate_exit
    from twinheart.planning.pace_mapping.pace_match import LOWPASS
    from twinheart.planning.pace_mapping.paced_ecg import ModelSpread, paced_ecg

    twin = build_twin(case, prepared_heart(build_heart(case)))
    paced = paced_ecg(twin, beat.ecg.names)
    mesh = twin.heart.mesh
    tell: dict[str, shared.SiteProgress] = {}

    def progress(what: str, done: int, total: int) -> None:
        tell.setdefault(what, shared.SiteProgress(what))(done, total)

    found = locate_exit(paced, mesh, beat, progress=progress, **settings)
    record = located(mesh, found, beat) | {"n_nodes": mesh.n_nodes, "notes": _notes(case, found)}
    own = {key: value for key, value in settings.items() if key != "spacing"}
    record["settings"] = own | {
        "spacing_mm": settings["spacing"],
        "model_error": ModelSpread()._asdict(),
        "electrodes": case.ecg.electrodes,
        "lead_field": case.ecg.lead_field or None,
        "lowpass_ms": LOWPASS,
        "velocities_m_per_s": paced.problem.velocity.tolist(),
    }
    record["method"] = METHOD
    if out is not None:
        record["files"] = [str(path) for path in write_pace_map(out, mesh, found, beat)]
    return record | {"provenance": provenance() | {"seed": settings["seed"]}}


def located(mesh: "TetMesh", found: "PaceMap", beat: "VtBeat") -> dict[str, Any]:
    """Figures of a pace map under names that carry their units.

    Parameters
    ----------
    mesh : TetMesh
        The heart.
    found : PaceMap
        The result.
    beat : VtBeat
        What was located.

    Returns
    -------
    dict
        The exit first.
    """
    import numpy as np

    from twinheart.planning.places import describe_places

    own = _as_row(mesh, found.exit)
    region = mesh.points[found.region]
    places = [words.split(",")[0] for words in describe_places(mesh, region)]
    names, counts = np.unique(places, return_counts=True)
    segments = [str(names[k]) for k in np.argsort(-counts, kind="stable")]
    return {
        "exit_mm": own["at_mm"],
        "place": own["place"],
        "surface": own["surface"],
        "correlation": own["correlation"],
        "correlation_of_leads": _of_leads(found, beat),
        "region": {
            "level": found.level,
            "rule": "correlation at least",
            "least_correlation": found.least_correlation,
            "area_mm2": found.area_mm2,
            "radius_mm": found.radius_mm,
            "segments": segments,
        },
        "second": None if found.second is None else _as_row(mesh, found.second),
        "surfaces": [_as_row(mesh, site) for site in found.of_surface],
        "qrs_ms": beat.duration,
        "noise_mv": beat.noise,
        "beats_used": beat.n_used,
        "beats_found": beat.n_beats,
        "leads": list(found.leads),
        "n_sites": len(found.sites),
        "trial_error_mm": {
            "median": float(np.median(found.misses_mm)),
            "p90": float(np.quantile(found.misses_mm, 0.9)),
        },
    }


def _as_row(mesh: "TetMesh", site: "Site") -> dict[str, Any]:
    from twinheart.planning.places import describe_places

    return {
        "at_mm": site.position_mm.tolist(),
        "place": describe_places(mesh, site.position_mm)[0],
        "surface": _NAMES[site.surface],
        "correlation": site.correlation,
        "onset_after_exit_ms": site.offset_ms,
        "speed_factor": site.speed,
    }


def _of_leads(found: "PaceMap", beat: "VtBeat") -> dict[str, float]:
    """Correlation of each lead by itself over the QRS."""
    import numpy as np

    from twinheart.planning.pace_mapping.pace_match import filtered

    t, signals = filtered(beat.ecg, found.leads)
    inside = (t >= 0) & (t <= beat.duration)
    shown = {}
    for name, lead in zip(found.leads, signals.T, strict=True):
        other = np.interp(t[inside], np.asarray(found.simulated.t), found.simulated[name])
        flat = np.ptp(other) == 0 or np.ptp(lead[inside]) == 0
        shown[name] = float("nan") if flat else float(np.corrcoef(lead[inside], other)[0, 1])
    return shown


def _notes(case: "Case", found: "PaceMap") -> list[str]:
    notes = []
    if case.ecg.lead_field is None and case.ecg.electrodes == "standard":
        notes.append("electrodes of an average body laid around the heart: measured ones are surer")
    if found.exit.correlation < 0.8:
        notes.append(
            f"no site resembles the recording (correlation {found.exit.correlation:.2f}): check "
            "electrodes, leads, scar and the beat that was taken"
        )
    notes.append(
        "the region holds for errors of velocities, electrodes, leads and noise as in the "
        "settings; wrong fibres or an unknown scar are not covered"
    )
    return notes


def write_pace_map(out: Path, mesh: "TetMesh", found: "PaceMap", beat: "VtBeat") -> list[Path]:
    """Write the heart with the map, its shells, and pictures.

    Parameters
    ----------
    out : Path
        Folder that is there.
    mesh : TetMesh
        The heart.
    found : PaceMap
        The result.
    beat : VtBeat
        What was located.

    Returns
    -------
    list of Path
        What was written.
    """
    import numpy as np

    from twinheart.anatomy import Heart
    from twinheart.ecg import Ecg
    from twinheart.mesh import TetMesh
    from twinheart.mesh.io import write_mesh
    from twinheart.planning.export import shells
    from twinheart.planning.pace_mapping.pace_match import filtered
    from twinheart.report import write_ecg_panels
    from twinheart.report.standard_views import Mark, write_standard_views
    from twinheart.report.style import ACCENT

    fields = {"pace_map": found.correlation, "exit_region": found.region.astype(np.int32)}
    mapped = TetMesh(mesh.points, mesh.tets, mesh.point_fields | fields, mesh.cell_fields)
    files = [out / "pace_map.vtu"]
    write_mesh(files[0], mapped)
    for name, shell in shells(mapped).items():
        files.append(out / f"pace_map_{name}.vtp")
        write_mesh(files[-1], shell)
    marks = [Mark(found.exit.position_mm[None], "exit", ACCENT, "D")]
    if found.second is not None:
        marks.append(Mark(found.second.position_mm[None], "second site", "#56b4e9", "o"))
    files.append(
        write_standard_views(
            out / "pace_map.png",
            Heart(mesh),
            found.correlation,
            title="Pace map",
            unit="r",
            note=f"correlation with the recorded beat, at the exit {found.exit.correlation:.3f}",
            quantity="pace_map",
            step=0.1,
            marks=tuple(marks),
        )
    )
    t, signals = filtered(beat.ecg, found.leads)
    other = [np.interp(t, np.asarray(found.simulated.t), found.simulated[n]) for n in found.leads]
    simulated = np.stack(other, axis=1)
    simulated = simulated - simulated.mean(axis=0) + signals.mean(axis=0)
    size = np.linalg.norm(signals - signals.mean(axis=0))
    gain = size / max(float(np.linalg.norm(simulated - simulated.mean(axis=0))), 1e-12)
    simulated = signals.mean(axis=0) + gain * (simulated - simulated.mean(axis=0))
    overlay = Ecg(t, simulated, found.leads)
    panels = write_ecg_panels(
        out / "beat.png", Ecg(t, signals, found.leads), overlay=overlay,
        legend=("recorded", "paced at the exit, same size"),
    )  # fmt: skip
    return [*files, panels]


def _case(path: Path | None, given: dict[str, Any]) -> "Case":
    from twinheart.cli.case import PATHS, check_case, located, read_case

    own = {key: located(key, value, Path.cwd()) if key in PATHS else value
           for key, value in given.items()}  # fmt: skip
    return check_case({}, own) if path is None else read_case(path, own)


def _pair(text: str) -> tuple[float, float]:
    try:
        start, end = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"--qrs is '{text}', expected START,END in ms, such as 1250,1420."
        ) from None
    return start, end
