"""`twinheart calibrate`: a heart is fitted to an ECG, from a case file or from options."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from twinheart.cli.terminal import emit, plain, say
from twinheart.errors import InputError

if TYPE_CHECKING:
    from twinheart.calibration import Calibration, MeasuredBeat, Stage
    from twinheart.cli.case import Case

CHECKPOINT = "calibration.npz"
_EVERY = 10.0  # s between two lines about one stage of the search
_FIT = "fit"

Text = str | None
Number = float | None
Whole = int | None


class _FitUnlessNamed(TyperGroup):
    """A group whose command 'fit' is meant where none is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = [_FIT, *args]
        return super().parse_args(ctx, args)


calibrate = typer.Typer(
    cls=_FitUnlessNamed, help="Fit a heart to an ECG, with uncertainty: CASE.toml or options."
)


def _option(text: str, *names: str) -> Any:
    return typer.Option(*names, help=text)


@calibrate.command(_FIT)
def fit(
    case_file: Annotated[
        Path | None,
        typer.Argument(metavar="CASE.toml", help="Case file; options below replace its keys."),
    ] = None,
    heart: Annotated[Text, _option("Mesh file with fibres, or 'demo'.")] = None,
    length_unit: Annotated[Text, _option("um, mm, cm or m; told from the size.")] = None,
    max_edge: Annotated[Number, _option("Refine to this mean edge length, in mm.")] = None,
    ecg: Annotated[Text, _option("ECG file; a WFDB record without suffix.")] = None,
    ecg_rate: Annotated[Number, _option("Sampling rate in Hz, where none is stated.")] = None,
    ecg_unit: Annotated[
        Text, _option("V, mV, uV, nV, where none is stated; 'arbitrary' frees gain and sign.")
    ] = None,
    electrodes: Annotated[Text, _option("JSON or CSV, or 'standard' (around the heart).")] = None,
    lead_field: Annotated[Text, _option("Lead field of a torso, with its electrodes.")] = None,
    purkinje: Annotated[
        list[str] | None, _option("Purkinje tree of line cells instead of sites; repeatable.")
    ] = None,
    cell: Annotated[Text, _option("Name of the cell model, or a CellML or mmt file.")] = None,
    sites: Annotated[Whole, _option("Sites of early activation.")] = None,
    free: Annotated[
        list[str] | None,
        _option("Free parameter, repeatable; 'usual' stands for those free by default."),
    ] = None,
    t_wave: Annotated[bool | None, _option("Fit repolarisation to the T wave.")] = None,
    noise_uv: Annotated[Number, _option("Noise of the ECG, in uV; measured if absent.")] = None,
    bandwidth: Annotated[Number, _option("Of model and data in the QRS, in Hz.")] = None,
    starts: Annotated[Whole, _option("Starts that are screened.")] = None,
    iterations: Annotated[Whole, _option("Of the last fit.")] = None,
    seed: Annotated[Whole, _option("Of the starts.")] = None,
    resume: Annotated[bool, _option("Go on from the checkpoint in --out.", "--resume")] = False,
    monodomain: Annotated[
        bool,
        _option("Run the calibrated twin by monodomain and compare its ECG.", "--monodomain"),
    ] = False,
    out: Annotated[Path | None, _option("Folder for the results.")] = None,
    report: Annotated[bool | None, _option("Draw pictures and write report.html.")] = None,
    as_json: Annotated[bool, _option("Print one JSON object.", "--json")] = False,
) -> None:
    """Fit a heart to an ECG: activation by the QRS, repolarisation by the T wave.

    Either give a case file that names an ECG, or at least --heart and --ecg. Writes the
    calibrated twin (twin.h5, which `twinheart simulate --heart` reads), maps and report.html.
    """
    overrides: dict[str, Any] = {
        "heart.file": heart,
        "heart.length_unit": length_unit,
        "heart.max_edge": max_edge,
        "cells.model": cell,
        "ecg.electrodes": electrodes,
        "ecg.lead_field": lead_field,
        "calibration.ecg": ecg,
        "calibration.ecg_rate": ecg_rate,
        "calibration.ecg_unit": ecg_unit,
        "calibration.sites": sites,
        "calibration.free": free or None,
        "calibration.t_wave": t_wave,
        "calibration.noise_uv": noise_uv,
        "calibration.bandwidth": bandwidth,
        "calibration.starts": starts,
        "calibration.iterations": iterations,
        "calibration.seed": seed,
        "output.folder": None if out is None else str(out),
        "output.report": report,
    }
    from twinheart.cli.run import Interrupted

    case = _case(case_file, overrides, purkinje or [])
    try:
        summary = run_calibration(
            case, Path(case.output.folder), resume=resume, monodomain=monodomain
        )
    except Interrupted as stop:
        say(f"twinheart: {stop}")
        raise typer.Exit(130) from None
    emit(summary if as_json else _for_reading(summary), as_json=as_json)


def _case(case_file: Path | None, overrides: dict[str, Any], purkinje: list[str]) -> "Case":
    """The case file with what the options say."""
    from twinheart.cli.case import PATHS, check_case, located, read_case

    given = {dotted: value for dotted, value in overrides.items() if value is not None}
    if purkinje:
        given["purkinje.files"] = [str(Path.cwd() / Path(name).expanduser()) for name in purkinje]
        given["purkinje.present"] = True
    given |= {dotted: located(dotted, given[dotted], Path.cwd()) for dotted in PATHS & given.keys()}
    case = check_case({}, given) if case_file is None else read_case(case_file, given)
    if case.calibration.ecg is None or (case_file is None and overrides["heart.file"] is None):
        raise InputError(
            "nothing to calibrate: give --heart and --ecg, or a case file whose table "
            "[calibration] names an ECG."
        )
    return case


def run_calibration(
    case: "Case", folder: Path, *, resume: bool = False, monodomain: bool = False
) -> dict[str, Any]:
    """Calibrate as a case says, write its results into a folder and return the summary.

    Parameters
    ----------
    case : Case
        A checked case that names an ECG.
    folder : Path
        Where results go; made if absent.
    resume : bool
        Go on from the checkpoint in `folder`.
    monodomain : bool
        Run the calibrated twin by monodomain, too, and compare its ECG.

    Returns
    -------
    dict
        What `twinheart calibrate --json` prints.

    Raises
    ------
    TwinheartError
        If heart, ECG, electrodes and parameters do not fit together, or nothing can be written.
    Interrupted
        After Ctrl-C; the checkpoint stays in `folder`.
    """
    from twinheart.cli.calibration_section import settings_of
    from twinheart.cli.run import Interrupted, results_folder

    start = time.perf_counter()
    settings = settings_of(case.calibration)
    beat = _beat(case)
    kept = folder / CHECKPOINT
    with results_folder(folder):
        if not resume:
            kept.unlink(missing_ok=True)
        elif not kept.exists():
            say(f"twinheart: note: there is no checkpoint {kept}: starting anew")
        try:
            found = _calibrated(case, beat, settings, kept)
        except KeyboardInterrupt:
            how = (
                f"the checkpoint is {kept}: run the same command with --resume to go on"
                if kept.exists()
                else "before the first checkpoint; nothing to resume from"
            )
            raise Interrupted(f"interrupted; {how}") from None
        summary = _written(case, found, folder, start, monodomain)
        kept.unlink(missing_ok=True)
    return summary


def _beat(case: "Case") -> "MeasuredBeat":
    from twinheart.calibration import measured_beat
    from twinheart.ecg import read_ecg

    section = case.calibration
    path = Path(str(section.ecg))
    try:
        recording = read_ecg(path, rate_hz=section.ecg_rate, unit=section.ecg_unit)
    except InputError as error:
        hint = " (here: --ecg-rate, --ecg-unit)" if "states no" in str(error) else ""
        raise InputError(f"{error}{hint}") from None
    for note in recording.notes:
        say(f"twinheart: note: {note}")
    try:
        return measured_beat(recording.ecg, arbitrary=section.ecg_unit == "arbitrary")
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _calibrated(case: "Case", beat: "MeasuredBeat", settings, checkpoint: Path) -> "Calibration":
    from twinheart.calibration import calibrate as fitted
    from twinheart.calibration.stored_cells import described
    from twinheart.cli.build import build_heart, build_twin
    from twinheart.tissue.conductivity import by_region

    if case.conduction.cv_endocardium is not None:
        raise InputError(
            "conduction.cv_endocardium is what a calibration finds (parameter cv_endo): remove it, "
            "and give a prior in [calibration.parameters.cv_endo] if need be."
        )
    if case.ecg.electrodes == "standard" and not case.ecg.lead_field:
        say(
            "twinheart: note: without --electrodes they are placed around the heart; measured "
            "positions make a better twin"
        )
    twin = build_twin(case, build_heart(case))
    described(list(by_region(twin.heart, twin.cell, "cell model").values()))  # refused now, if ever
    return fitted(
        twin.heart,
        beat,
        twin.electrodes,
        cell=twin.cell,
        conduction=twin.conductivity,
        purkinje=twin.purkinje,
        lead_field=twin.lead_field,
        settings=settings,
        either_polarity=case.calibration.ecg_unit == "arbitrary",
        checkpoint=checkpoint,
        progress=Progress(),
    )


class Progress:
    """What a calibration is doing, in lines on stderr: every step of the fit, some of the search.

    Call it with what `twinheart.calibration.calibrate` reports.
    """

    def __init__(self, every: float = _EVERY):
        self._every, self._stage, self._said = every, "", 0.0

    def __call__(self, done: Mapping[str, Any]) -> None:
        """Say it, if it is time."""
        stage, now = str(done["stage"]), time.monotonic()
        if "iteration" not in done:
            say(f"calibrating: {stage}")
        elif stage == _FIT or stage != self._stage or now - self._said >= self._every:
            left = f", at most {done['left']:.0f} s left" if "left" in done else ""
            say(f"calibrating: {stage}, iteration {done['iteration']:.0f}, "
                f"loss {done['loss']:.5g}{left}")  # fmt: skip
        else:
            return
        self._stage, self._said = stage, now


def _written(
    case: "Case", found: "Calibration", folder: Path, start: float, monodomain: bool
) -> dict[str, Any]:
    """Write twin, maps, case, report and summary."""
    from twinheart.calibration.twin_file import write_twin
    from twinheart.cli.case_text import case_toml
    from twinheart.cli.run import provenance, write_text

    files = [write_twin(folder / "twin.h5", found), folder / "maps.vtu", folder / "case.toml"]
    _write_maps(files[1], found)
    write_text(files[2], case_toml(case))
    facts = provenance() | {"seed": case.calibration.seed}
    if case.output.report:
        from twinheart.report.calibration import write_calibration_report

        say("calibrating: report")
        title = case.title or "A calibrated heart"
        page = folder / "report.html"
        files.append(write_calibration_report(page, found, title=title, provenance=facts))
    files.append(folder / "summary.json")
    again = {"translation": _translated(case, found, files[0])} if monodomain else {}
    summary = summarise(found) | again | {"wall_s": time.perf_counter() - start}
    summary |= {"files": [str(path) for path in files]}
    text = json.dumps(plain(summary | {"provenance": facts}), indent=1)
    write_text(files[-1], text + "\n")
    return summary


def _translated(case: "Case", found: "Calibration", twin: Path) -> dict[str, Any]:
    """What the twin's ECG is like when it runs by monodomain."""
    import numpy as np

    from twinheart.calibration import load_twin, translate

    say("calibrating: the twin by monodomain")
    again = translate(
        load_twin(twin), found.stages, lead_field=found.twin.lead_field, dt=case.simulation.dt
    )
    medians = {
        f"{name}_correlation_median": float(np.median(list(leads.values())))
        for name, leads in again.correlation.items()
    }
    return {
        **medians,
        "correlation": again.correlation,
        "late_ms": again.late,
        "lat_rms_ms": again.lat_rms,
        "activated_fraction": again.activated,
        "remarks": list(again.remarks),
    }


def _write_maps(path: Path, found: "Calibration") -> None:
    import numpy as np

    from twinheart.mesh import TetMesh
    from twinheart.mesh.io import write_mesh

    mesh = found.twin.heart.mesh
    maps = {"lat_ms": found.lat, "repol_ms": found.repol}
    maps = {name: np.where(np.isfinite(values), values, np.nan) for name, values in maps.items()}
    write_mesh(path, TetMesh(mesh.points, mesh.tets, mesh.point_fields | maps, mesh.cell_fields))


def summarise(found: "Calibration") -> dict[str, Any]:
    """Figures of a calibration under the names of the JSON output.

    Parameters
    ----------
    found : Calibration
        The result.

    Returns
    -------
    dict
        Correlations and result of the QRS at the top, all of it by stage below.
    """
    stages = {name: _of_stage(stage) for name, stage in found.stages.items()}
    qrs = stages["qrs"]
    return {
        **{key: qrs[key] for key in ("correlation_median", "correlation_min", "correlation")},
        "n_parameters": sum(stage["n_parameters"] for stage in stages.values()),
        "iterations": sum(stage["iterations"] for stage in stages.values()),
        "result": qrs["result"],
        "unidentified": [n for stage in stages.values() for n in stage["unidentified"]],
        "misfit_p_value": qrs["misfit_p_value"],
        "stages": stages,
        "remarks": list(found.remarks),
        "notice": "research software, not for clinical use",
    }


def _of_stage(stage: "Stage") -> dict[str, Any]:
    import numpy as np

    from twinheart.calibration import determination, misfit_test

    correlation = stage.correlation
    rows = determination(stage.posterior)
    return {
        "correlation_median": float(np.median(list(correlation.values()))),
        "correlation_min": min(correlation.values()),
        "correlation": correlation,
        "n_parameters": len(rows),
        "iterations": stage.fit.iterations,
        "result": stage.fit.result,
        "loss": stage.fit.loss,
        "unidentified": [row.name for row in rows if row.verdict == "not determined"],
        "misfit_p_value": misfit_test(stage.fit).p_value,
        "noise_raised_by": float(np.sqrt(stage.posterior.scale)),
        "parameters": [row._asdict() for row in rows],
    }


def _for_reading(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The summary with a table of parameters instead of nested stages."""
    shown = {key: value for key, value in summary.items() if key != "stages"}
    rows = [row for stage in summary["stages"].values() for row in stage["parameters"]]
    columns = ("name", "median", "low", "high", "unit", "contraction", "verdict")
    table = [
        {k: f"{row[k]:.3g}" if isinstance(row[k], float) else row[k] for k in columns}
        for row in rows
    ]
    return {**shown, "parameters": table}
