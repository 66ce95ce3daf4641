"""`twinheart plan CASE.toml`: from image or mesh and ECG to a report, stage by stage."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twinheart.cli import substrate as shared
from twinheart.cli.terminal import emit, plain, say

if TYPE_CHECKING:
    from twinheart.cli.case import Case
    from twinheart.cli.plan_work import PlanWork


def plan(
    case_file: Annotated[
        Path, typer.Argument(metavar="CASE.toml", help="Case file with a table 'plan'.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results, instead of output.folder.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Protocol, instead of plan.preset; 'none' induces nothing.")
    ] = None,
    ensemble: Annotated[
        int | None, typer.Option(help="Members of the ensemble, instead of plan.ensemble.", min=0)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the ensemble.", min=0)] = None,
    workers: Annotated[
        int | None, typer.Option(help="Sites at once; by default one a processor core.", min=1)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Mesh, scar, calibration, circuits, induction, ablation, risk and report. Not clinical.

    Each stage keeps its record and files in the folder: the same command goes on where it was
    interrupted, and does again only what a change touches.
    """
    from twinheart.cli.case import read_case
    from twinheart.cli.run import Interrupted

    overrides = {
        "output.folder": None if out is None else str(Path.cwd() / out),
        "plan.preset": preset,
        "plan.ensemble": ensemble,
        "plan.seed": seed,
    }
    given = {dotted: value for dotted, value in overrides.items() if value is not None}
    case = read_case(case_file, given)
    try:
        summary = run_plan(case, Path(case.output.folder), workers=workers or os.cpu_count() or 1)
    except Interrupted as stop:
        say(f"twinheart: {stop}")
        raise typer.Exit(130) from None
    say(f"twinheart: note: {shared.RESEARCH}")
    emit(summary, as_json=as_json)


def run_plan(case: "Case", folder: Path, *, workers: int = 1) -> dict[str, Any]:
    """Go through all stages of a plan.

    Parameters
    ----------
    case : Case
        A checked case.
    folder : Path
        Where records and files go; made if absent.
    workers : int
        Sites that are paced at once.

    Returns
    -------
    dict
        What `twinheart plan --json` prints.

    Raises
    ------
    TwinheartError
        If something given cannot be used, or a file cannot be written.
    Interrupted
        After Ctrl-C; what is done stays in `folder`.
    """
    from twinheart.cli.plan_work import PlanWork
    from twinheart.cli.run import Interrupted, results_folder

    work = PlanWork(case, folder, workers)
    start = time.perf_counter()
    with results_folder(folder):
        try:
            records = work.run()
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted; what is done is in {folder}: run the same command to go on"
            ) from None
    return _summary(work, records) | {"wall_s": time.perf_counter() - start}


def _summary(work: "PlanWork", records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    from twinheart.cli.run import provenance
    from twinheart.report.planning_words import best_strategy

    best = best_strategy(records.get("ablation"))
    induction, risk = records.get("induction"), records["risk"]
    keys = ("strategy", "lesions", "volume_ml", "vts_left", "new_vts")
    return plain(
        {
            "folder": str(work.folder),
            "report": records["report"]["report"],
            "values": risk["values"],
            "warnings": [
                text
                for name in ("mesh", "ablation")
                for text in (records.get(name) or {}).get("warnings") or []
            ],
            "n_circuits": records["screen"]["n_circuits"],
            "inducible_sites": None if induction is None else induction["inducible_sites"],
            "best_strategy": None if best is None else {key: best[key] for key in keys},
            "circuit_share": risk["circuit_share"],
            "stages": work.stages.done,
            "seed": work.section.seed,
            "provenance": provenance() | {"seed": work.section.seed},
        }
    )
