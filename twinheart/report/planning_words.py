"""What the page of a plan says in words: warnings, summary, methods, limits."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from twinheart.ecg.compare import PARTS, poor_leads

if TYPE_CHECKING:
    from twinheart.report.planning import PlanningFindings

Record = Mapping[str, Any]
Fit = Mapping[str, Mapping[str, float]]  # correlation of every lead, by part of the beat

METHODS = (
    "Screening: waves from several sites are followed by the eikonal equation; where parts of a "
    "wave meet within scar there is an isthmus. It is cut where it is narrowest, and a wave is "
    "launched on one side: if the way back is so long that it slows down, by the restitution of "
    "the tissue, until all of it has recovered, in both directions, the circuit sustains itself; "
    "the cycle told is that one. The idea is that of Campos et al. "
    "2022 (doi:10.48550/arXiv.2108.13194).",
    "Programmed stimulation runs on the same heart by a re-excitable eikonal equation with "
    "restitution of the cells, measured by monodomain in one dimension. Induced is what still "
    "activates tissue for the time that the protocol observes.",
    "The ECG of a tachycardia is that of template action potentials which start when the waves "
    "arrive and last as long as restitution says, seen by the electrodes. Its shape is surer than "
    "its amplitude.",
    "Strategies are lesions as tissue that does not conduct; after each the heart is screened "
    "again from all sites, so that new circuits count. Where there is a protocol, the plan is "
    "paced by it too, and closes what is still induced.",
    "Intervals hold the stated share of an ensemble: velocities, durations and the border zone are "
    "drawn from the posterior of the calibration, or where there is none from population values, "
    "and everything is computed anew for each member.",
)
LIMITS = (
    "Research software. No output has been shown to benefit patients; every number is that of a "
    "model.",
    "The eikonal equation does not know the curvature of wave fronts: "
    "what it induces is a candidate until a monodomain simulation confirms it.",
    "Intervals do not hold what the model lacks: scar that the image does not show, fibres that "
    "differ from the rule, another convention of the scar.",
    "Catheter lesions are taken as complete; conduction through gaps, and recovery, are not in the "
    "model.",
)
_CALIBRATED = "Velocities and durations are calibrated to the ECG of this heart"
_POPULATION = (
    "Population values: nothing was calibrated to this patient, so velocities, durations and all "
    "that follows are those of a typical heart."
)


def number(value: Any, digits: int = 0) -> str:
    """A number as it is read, ``-`` where there is none.

    Examples
    --------
    >>> from twinheart.report.planning_words import number
    >>> number(3.14159, 2), number(None)
    ('3.14', '-')
    """
    if value is None or not np.isfinite(float(value)):
        return "-"
    return f"{float(value):.{digits}f}"


def unit_as_read(unit: str) -> str:
    """A unit of a record, with its power raised.

    Examples
    --------
    >>> from twinheart.report.planning_words import unit_as_read
    >>> unit_as_read("mm2")
    'mm\u00b2'
    """
    return unit.replace("mm2", "mm\u00b2")


def best_strategy(ablation: Record | None) -> Record | None:
    """Of the strategies after which nothing is left and nothing new, that which burns least.

    The plan, where it alone was paced and nothing was induced. None where there was nothing to do.

    Examples
    --------
    >>> from twinheart.report.planning_words import best_strategy
    >>> rows = [
    ...     {"strategy": "exit", "lesions": 1, "volume_ml": 1.0, "vts_left": 1},
    ...     {"strategy": "isthmus", "lesions": 3, "volume_ml": 2.0, "vts_left": 0},
    ... ]
    >>> best_strategy({"strategies": rows})["strategy"]
    'isthmus'
    """
    rows = (ablation or {}).get("strategies") or []
    if _plan_passed(ablation):
        rows = [row for row in rows if row["strategy"] == "plan"]
    elif (ablation or {}).get("n_circuits") == 0:
        return None
    enough = [
        row
        for row in rows
        if row.get("lesions") and row["vts_left"] == 0 and not row.get("warning")
    ]
    return min(enough, key=lambda row: row["volume_ml"], default=None)


def _plan_passed(ablation: Record | None) -> bool:
    """Whether the plan was paced and nothing was induced."""
    found = ablation or {}
    plan = found.get("plan")
    return bool(found.get("induction") and plan and not plan.get("induced_from"))


def strategy_row(row: Record) -> list[str]:
    """Cells of a strategy's row in the table."""
    return [
        str(row["strategy"]),
        number(row.get("lesions")),
        number(row.get("volume_ml"), 2),
        number(row.get("vts_left")),
        number(row.get("new_vts")),
        number(row.get("lost_ml"), 2),
        number(row.get("activation_change_ms")),
        "; ".join([row["warning"]] * bool(row.get("warning")) + list(row.get("notes") or ())),
    ]


def warning_lines(found: "PlanningFindings") -> list[str]:
    """What must be read first."""
    records = (found.ablation, found.induction, found.screen, found.risk)
    lines = _poor_fit(found.fit or {})
    lines += [_sentence(x) for x in found.warnings]
    lines += [_sentence(x) for record in records for x in (record or {}).get("warnings") or []]
    if _left(found.ablation) and best_strategy(found.ablation) is None:
        lines.append("No strategy that was tried leaves the heart without a circuit.")
    if found.screen is not None and not found.screen.get("circuits_sought", True):
        lines.append("The heart has no scar: no circuits were looked for.")
    induced = (found.induction or {}).get("inducible_sites")
    known = found.screen is None or found.screen.get("circuits")
    if induced and not known and not _plan_passed(found.ablation):
        lines.append(
            "Stimulation induced re-entry for which screening finds no circuit: strategies of "
            "ablation, which close circuits, do not deal with it."
        )
    if not found.calibrated:
        lines.append(_POPULATION)
    return list(dict.fromkeys(lines))


def _left(ablation: Record | None) -> bool:
    """Whether there was anything to ablate."""
    return bool((ablation or {}).get("n_circuits"))


def summary_lines(found: "PlanningFindings", circuits: Sequence[Record]) -> list[str]:
    """The findings in a few sentences, the most important first."""
    lines = []
    if found.screen is not None:
        lines.append(_of_screen(circuits))
    if found.induction is not None:
        lines.append(_of_induction(found.induction))
    best = best_strategy(found.ablation)
    if best is not None:
        lines.append(
            f"The smallest sufficient set of lesions is that of '{best['strategy']}': "
            f"{best['lesions']} lesions, {number(best['volume_ml'], 2)} ml; afterwards screening "
            f"from all sites finds no circuit{_retested(found)}."
        )
    elif found.ablation is not None and not _left(found.ablation):
        lines.append("No ablation is proposed: screening found no circuit to close.")
    share = (found.risk or {}).get("circuit_share")
    if share:
        lines.append(
            f"{share['count']} of {share['of']} members of the ensemble have a circuit "
            f"({100 * share['low']:.0f} to {100 * share['high']:.0f} %)."
        )
    if found.calibrated:
        lines.append(f"{_CALIBRATED}{_of_fit(found.fit or {})}.")
    return lines


def _poor_fit(fit: Fit) -> list[str]:
    """A warning where leads are not reproduced; no line where all are."""
    poor = poor_leads(fit)
    if not poor:
        return []
    return [
        f"The twin does not reproduce {poor}: what follows rests on a poor fit. In brackets the "
        f"correlation with what was measured, 1 for the same shape."
    ]


def _of_fit(fit: Fit) -> str:
    """How well each part is fitted, as the end of a sentence."""
    found = [
        f"correlation of the {PARTS[part]} {number(middle, 2)} in the median lead, "
        f"{number(least, 2)} in the least ({lead})"
        for part, (middle, least, lead) in fit_figures(fit).items()
    ]
    return ": " + "; ".join(found) if found else "; how well is not in the file of the twin"


def fit_figures(fit: Fit) -> dict[str, tuple[float, float, str]]:
    """Median and least correlation of the leads of each part, and which lead it is.

    Parameters
    ----------
    fit : mapping
        Correlation of every lead, by part: ``qrs`` or ``t_wave``; flat leads are NaN.

    Returns
    -------
    dict
        By part; parts without any known lead are left out.

    Examples
    --------
    >>> from twinheart.report.planning_words import fit_figures
    >>> fit_figures({"qrs": {"I": 0.9, "II": 0.7, "V1": 1.0, "V2": float("nan")}})
    {'qrs': (0.9, 0.7, 'II')}
    """
    found = {}
    for part, leads in fit.items():
        known = {lead: r for lead, r in leads.items() if np.isfinite(r)}
        if known:
            lead = min(known, key=known.__getitem__)
            found[part] = float(np.median(list(known.values()))), known[lead], lead
    return found


def _retested(found: "PlanningFindings") -> str:
    """What is known of induction after ablation."""
    before = bool((found.induction or {}).get("inducible_sites"))
    ablation = found.ablation or {}
    if ablation.get("induction") is None or not ablation.get("plan"):
        return "; whether a tachycardia can still be induced was not tested" if before else ""
    count = len(ablation["plan"].get("induced_from") or [])
    if count:
        return f"; with the plan, re-entry is still induced from {count} sites"
    return f"; with the plan, stimulation induces nothing{'' if before else ', as before'}"


def _of_screen(circuits: Sequence[Record]) -> str:
    if not circuits:
        return "No circuit was found that would sustain re-entry."
    first = circuits[0]
    count = "One circuit" if len(circuits) == 1 else f"{len(circuits)} circuits"
    return (
        f"{count} would sustain re-entry; the fastest has a cycle of "
        f"{number(first['cycle_length_ms'])} ms and leaves scar in {first['place']}."
    )


def _of_induction(induction: Record) -> str:
    induced, sites = (len(induction[key]) for key in ("inducible_sites", "sites"))
    vts = len(induction.get("vts") or [])
    if not induced:
        return f"Programmed stimulation from {sites} sites induced nothing."
    rows = [row for row in induction["sites"] if row.get("outcome") == "induced"]
    couplings = [interval for row in rows for interval in row.get("coupling_ms") or []]
    more = ""
    if couplings:
        more = f"; the shortest coupling interval was {number(min(couplings))} ms"
    return (
        f"Programmed stimulation induced {vts or 'a'} "
        f"{'tachycardia' if vts <= 1 else 'tachycardias'} from {induced} of {sites} sites{more}."
        f"{_of_ecg(induction)}"
    )


def _of_ecg(induction: Record) -> str:
    ecg = next((row["ecg"] for row in induction.get("vts") or [] if row.get("ecg")), {})
    ends = ecg.get("ends_ms")
    ended = "" if ends is None else " Simulated for longer, it ends by itself."
    if ecg.get("rate_per_min") is None or not ecg.get("pattern"):
        return ended.replace(", it", ", the fastest")
    return (
        f" The fastest, at {number(ecg['rate_per_min'])} per minute, would show a QRS of "
        f"{number(ecg['qrs_ms'])} ms with the pattern of {ecg['pattern']} block and an axis of "
        f"{number(ecg['axis_deg'])}\u00b0.{ended}"
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def flat(facts: Record, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Rows of nested settings, each with its path and value as text."""
    for key, value in facts.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}, ")
        elif value is not None:
            yield name, f"{value:.6g}" if isinstance(value, float) else str(value)
