"""`twinheart risk`: the measures of a heart, published scores, and how good a model of risk is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twinheart.cli import substrate as shared
from twinheart.cli.terminal import emit, say
from twinheart.errors import InputError

if TYPE_CHECKING:
    from twinheart.planning.risk.evaluation import Evaluation

RESEARCH = "research software: not for diagnosis or treatment"
SCORES = ("hcm-risk-scd",)
_TABLE = typer.Option(
    metavar="TABLE",
    help="Judge a model: CSV with columns probability, outcome (0, 1) and perhaps time.",
)
_MEMBERS = typer.Option(
    help="Members: of the posterior of a calibrated twin, else of population values; 0: the heart "
    "alone.",
    min=0,
)


def risk(
    score: Annotated[
        str | None, typer.Option(help=f"Compute a published score: {', '.join(SCORES)}.")
    ] = None,
    age: Annotated[float | None, typer.Option(help="Age, in years.")] = None,
    mwt: Annotated[float | None, typer.Option(help="Maximal wall thickness, in mm.")] = None,
    la: Annotated[float | None, typer.Option(help="Diameter of the left atrium, in mm.")] = None,
    lvot: Annotated[
        float | None, typer.Option(help="Maximal gradient of the outflow tract, in mmHg.")
    ] = None,
    family_history: Annotated[
        bool, typer.Option("--family-history", help="Sudden death in a first-degree relative.")
    ] = False,
    nsvt: Annotated[
        bool, typer.Option("--nsvt", help="Non-sustained ventricular tachycardia.")
    ] = False,
    syncope: Annotated[bool, typer.Option("--syncope", help="Unexplained syncope.")] = False,
    evaluate: Annotated[Path | None, _TABLE] = None,
    horizon: Annotated[
        float | None,
        typer.Option(help="Time the probabilities refer to, in the unit of the table's times."),
    ] = None,
    thresholds: Annotated[
        str | None,
        typer.Option(help="Of the decision curve, such as 0.04,0.06; by default 0.01 to 0.5."),
    ] = None,
    resamples: Annotated[int, typer.Option(help="Bootstrap samples behind the intervals.")] = 1000,
    heart: Annotated[str | None, shared.HEART] = None,
    twin: Annotated[Path | None, shared.TWIN] = None,
    case: Annotated[Path | None, shared.CASE] = None,
    sites: Annotated[str, shared.SITES] = "aha17",
    cell: Annotated[str | None, shared.CELL] = None,
    length_unit: Annotated[str | None, shared.UNIT] = None,
    ensemble: Annotated[int, _MEMBERS] = 20,
    preset: Annotated[
        str | None,
        typer.Option(help="Pace the heart by this protocol, as 'twinheart induce' does."),
    ] = None,
    induce_members: Annotated[
        bool, typer.Option("--induce-members", help="Pace every member, too: as long for each.")
    ] = False,
    lge: Annotated[
        Path | None, typer.Option(help="LGE image of the scar: masses by every convention.")
    ] = None,
    ecg: Annotated[Path | None, typer.Option(help="Recorded ECG, for its markers.")] = None,
    simulated_ecg: Annotated[
        bool, typer.Option(help="Simulate a normal beat, for the markers of its ECG.")
    ] = True,
    workers: Annotated[int, typer.Option(help="Sites that are paced at once.", min=1)] = 1,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep members in FILE and go on from there."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same intervals.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tell the risk of a heart, compute a published score, or judge a model. Not clinical.

    With --heart: circuits, inducibility, scar, repolarisation and ECG, each with what an ensemble
    of hearts leaves open. There is no single number.
    """
    named = [name for name in (heart, twin, case) if name is not None]
    if named:
        if score is not None or evaluate is not None:
            raise InputError("give --heart, --score or --evaluate, not several of them.")
        from twinheart.cli.heart_risk import heart_risk

        record = heart_risk(
            heart, twin, case, sites, cell=cell, length_unit=length_unit, preset=preset,
            ensemble=ensemble, induce_members=induce_members, seed=seed, lge=lge, ecg=ecg,
            simulated_ecg=simulated_ecg, workers=workers, file=resume,
        )  # fmt: skip
        say(f"twinheart: note: {RESEARCH}")
        emit(record if as_json else _for_reading(record), as_json=as_json)
        return
    predictors = {"age": age, "mwt": mwt, "la": la, "lvot": lvot}
    history = {"family_history": family_history, "nsvt": nsvt, "syncope": syncope}
    table = (horizon, thresholds, resamples, seed)
    record = _of_patient_or_table(score, evaluate, predictors, history, table)
    say(f"twinheart: note: {RESEARCH}")
    emit(record, as_json=as_json)


def _of_patient_or_table(
    score: str | None,
    evaluate: Path | None,
    predictors: dict[str, float | None],
    history: dict[str, bool],
    table: tuple[float | None, str | None, int, int],
) -> dict[str, Any]:
    if (score is None) == (evaluate is None):
        raise InputError(
            "give --heart, --score with the patient's values, or --evaluate with a table."
        )
    if evaluate is None:
        _refuse(dict(zip(("horizon", "thresholds"), table[:2], strict=True)), "--evaluate")
        return score_record(str(score), predictors, history)
    _refuse(predictors | history, "--score: a table has the patients' values")
    return evaluation_record(evaluate, *table)


def _refuse(options: dict[str, Any], where: str) -> None:
    """Refuse what was given of options that belong elsewhere."""
    if given := [name.replace("_", "-") for name, value in options.items() if value]:
        raise InputError(f"--{given[0]} belongs to {where}.")


def _for_reading(record: dict[str, Any]) -> dict[str, Any]:
    """The record without ways, members and methods, as tables."""
    hidden = ("path_mm", "entrance_mm", "sites")
    circuits = [{k: v for k, v in row.items() if k not in hidden} for row in record["circuits"]]
    rows = ("measure", "unit", "value", "low", "median", "high", "width", "known")
    measures = [{k: row[k] for k in rows} for row in record["measures"]]
    drawn = record["ensemble"] or {}
    shown = {"ensemble": {k: v for k, v in drawn.items() if k != "parameters"} or None}
    left_out = ("method", "provenance", "notes", "settings")
    rest = {k: v for k, v in record.items() if k not in left_out}
    return rest | {"circuits": circuits, "measures": measures} | shown


def score_record(
    score: str, predictors: dict[str, float | None], history: dict[str, bool]
) -> dict[str, Any]:
    """What ``risk --score`` prints.

    Parameters
    ----------
    score : str
        Name of the score.
    predictors : dict
        Numbers by the name of their option; None where not given.
    history : dict
        What is or is not known of the patient, by the name of its option.

    Returns
    -------
    dict
        Probability, class, and how they were found.

    Raises
    ------
    InputError
        If the score is unknown, a predictor is missing, or the score does not hold there.
    """
    from twinheart.planning.risk.scores import NOT_FOR, hcm_risk_scd

    if score not in SCORES:
        raise InputError(
            f"unknown score '{score}', expected {' or '.join(SCORES)}; scores whose coefficients "
            "are not published in full are not offered."
        )
    given = {name: value for name, value in predictors.items() if value is not None}
    if missing := [f"--{name}" for name in predictors if name not in given]:
        raise InputError(f"{score} needs {', '.join(missing)} as well.")
    found = hcm_risk_scd(**given, **history)
    return {
        "score": score,
        "probability": found.probability,
        "horizon_years": 5,
        "outcome": "sudden cardiac death or equivalent",
        "prognostic_index": found.prognostic_index,
        "risk_class": found.risk_class,
        "guideline": f"{found.guideline}, in the words of the 2014 guideline",
        "inputs": {**given, **history},
        "not_for": NOT_FOR,
        "method": "doi:10.1093/eurheartj/eht439; classes: doi:10.1093/eurheartj/ehu284",
        "use": RESEARCH,
    }


def evaluation_record(
    table: Path, horizon: float | None, thresholds: str | None, resamples: int, seed: int
) -> dict[str, Any]:
    """What ``risk --evaluate`` prints.

    Parameters
    ----------
    table : Path
        CSV file of patients.
    horizon : float or None
        Time the probabilities refer to.
    thresholds : str or None
        Of the decision curve, with commas between.
    resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    dict
        Every measure with its interval, and how it was found.

    Raises
    ------
    InputError
        If the table or an option cannot be used.
    """
    from twinheart.planning.risk.evaluation import THRESHOLDS, evaluate
    from twinheart.planning.risk.patient_table import read_patient_table

    try:
        grid = THRESHOLDS if thresholds is None else [float(t) for t in thresholds.split(",")]
    except ValueError:
        raise InputError(
            f"--thresholds is '{thresholds}', expected numbers such as 0.04,0.06."
        ) from None
    patients = read_patient_table(table)
    if patients.time is not None and horizon is None:
        say(
            "twinheart: note: outcomes count whenever they came; --horizon takes those lost before "
            "it into account"
        )
    found = evaluate(patients, horizon=horizon, thresholds=grid, resamples=resamples, seed=seed)
    return {"table": str(table), "horizon": horizon, **_in_figures(found), "seed": seed}


def _in_figures(found: "Evaluation") -> dict[str, Any]:
    curve = found.decision_curve
    rows = [
        {
            "threshold": threshold,
            "net_benefit": model.value,
            "low": model.low,
            "high": model.high,
            "treat_all": everyone.value,
        }
        for threshold, model, everyone in zip(
            curve.threshold, curve.model, curve.treat_all, strict=True
        )
    ]
    measures = ("c_index", "slope", "intercept", "in_the_large", "brier", "skill")
    return {
        "n_patients": found.n_patients,
        "n_events": found.n_events,
        "n_unknown": found.n_unknown,
        **{name: getattr(found, name)._asdict() for name in measures},
        "decision_curve": rows,
        "n_resamples": found.n_resamples,
        "method": "Harrell's C; logistic recalibration; Brier score; net benefit; percentiles 2.5 "
        "and 97.5 of the bootstrap; patients lost before the horizon by inverse weights",
    }
