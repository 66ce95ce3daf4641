"""`twinheart risk`: published scores of sudden death, and how good a model of risk is."""

from typing import Annotated, Any

import typer

from twinheart.cli.terminal import emit, say
from twinheart.errors import InputError

RESEARCH = "research software: not for diagnosis or treatment"
SCORES = ("hcm-risk-scd",)


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
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say the risk of sudden cardiac death by a published score. Not for clinical use."""
    predictors = {"age": age, "mwt": mwt, "la": la, "lvot": lvot}
    history = {"family_history": family_history, "nsvt": nsvt, "syncope": syncope}
    if score is None:
        raise InputError("nothing to do: give --score with the patient's values.")
    emit(score_record(score, predictors, history), as_json=as_json)
    say(f"twinheart: note: {RESEARCH}")


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
    from twinheart.planning.scores import NOT_FOR, hcm_risk_scd

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
        "method": "HCM Risk-SCD, doi:10.1093/eurheartj/eht439; classes doi:10.1093/eurheartj/ehu284",
        "use": RESEARCH,
    }
