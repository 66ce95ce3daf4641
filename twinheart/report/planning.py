"""The page of a plan: what a physician reads in five minutes, first the summary, last the settings.

It is made of the records that the commands print, so that it can be written again from their files.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from twinheart.anatomy import Heart
from twinheart.ecg import Ecg
from twinheart.ecg.compare import PARTS, POOR_FIT
from twinheart.planning.places import describe_places
from twinheart.report.ecg_paper import paper_gain, write_ecg_paper
from twinheart.report.html import data_uri, write_page
from twinheart.report.maps import write_map
from twinheart.report.planning_maps import write_circuits, write_intervals, write_lesions
from twinheart.report.planning_words import (
    LIMITS,
    METHODS,
    Fit,
    best_strategy,
    fit_figures,
    flat,
    number,
    strategy_row,
    summary_lines,
    unit_as_read,
    warning_lines,
)
from twinheart.report.scene import Scene

Record = Mapping[str, Any]
_UNITS = {"ms": " (ms)", "deg": " (\u00b0)", "bpm": " (1/min)"}
_NAMES = {"qrs": "QRS", "qt": "QT", "qtc": "QTc", "jtc": "JTc", "tpe": "T peak to end", "t": "T",
          "bazett": "Bazett", "fridericia": "Fridericia", "kors": "Kors"}  # fmt: skip


class PlanningFindings(NamedTuple):
    """What was found; None where a step was not taken.

    Attributes
    ----------
    screen, induction, ablation, risk : mapping or None
        What ``twinheart screen``, ``induce``, ``ablate`` and ``risk`` print as JSON.
    rvi : (node,) array or None
        Re-entry vulnerability index [ms].
    vt : (node,) array or None
        Activation over one cycle of an induced tachycardia [ms].
    vt_ecg : Ecg or None
        Leads of the fastest of them.
    lesion : (tet,) int array or None
        Positive where the chosen strategy burns.
    calibrated : bool
        Whether velocities and durations were fitted to this patient.
    fit : mapping or None
        Correlation of every lead after that fit, by part: ``qrs``, ``t_wave``.
    notes : sequence of str
        What was assumed; no name of a patient.
    warnings : sequence of str
        What must be read first, of the steps before.
    """

    screen: Record | None = None
    induction: Record | None = None
    ablation: Record | None = None
    risk: Record | None = None
    rvi: Float[np.ndarray, "node"] | None = None
    vt: Float[np.ndarray, "node"] | None = None
    vt_ecg: Ecg | None = None
    lesion: Int[np.ndarray, "tet"] | None = None
    calibrated: bool = False
    fit: Fit | None = None
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()


class _Section(NamedTuple):
    key: str
    title: str
    lead: str = ""
    picture: Mapping[str, str] | None = None
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    words: Sequence[str] = ()  # columns of text, not of numbers
    texts: Sequence[str] = ()


def write_planning_report(
    path: str | Path,
    heart: Heart,
    found: PlanningFindings,
    *,
    title: str = "Circuits, risk and ablation",
    settings: Record | None = None,
) -> Path:
    """Write one HTML page about a plan; it opens offline, makes no request and runs no script.

    Parameters
    ----------
    path : str or Path
        The page.
    heart : Heart
        Its mesh has the cell field ``scar``, where it has scar.
    found : PlanningFindings
        What is told.
    title : str
        Heading; give it no name of a patient.
    settings : mapping, optional
        What made it: settings, versions, seed. Nested mappings are flattened.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputError
        If the file cannot be written.

    Examples
    --------
    See ``notebooks/06_risk_and_ablation``.
    """
    circuits = _circuits(heart, found.screen)
    with tempfile.TemporaryDirectory() as folder:
        sections = list(_sections(Path(folder), heart, found, circuits))
    return write_page(
        Path(path),
        "planning.html.j2",
        title=title,
        warnings=warning_lines(found),
        summary=summary_lines(found, circuits),
        figures=_figures(found, circuits),
        sections=sections,
        notes=list(dict.fromkeys(found.notes)),
        facts=list(flat(settings or {})),
        limits=LIMITS,
    )


def _circuits(heart: Heart, screen: Record | None) -> list[dict[str, Any]]:
    """Circuits as the record has them, with the place of their exits in words."""
    rows = [dict(row) for row in (screen or {}).get("circuits") or []]
    if rows:
        places = describe_places(heart.mesh, [row["exit_mm"] for row in rows])
        rows = [row | {"place": place} for row, place in zip(rows, places, strict=True)]
    return rows


def _figures(found: PlanningFindings, circuits: Sequence[Record]) -> list[dict[str, str]]:
    figures = []
    if found.screen is not None:
        cycles = [row["cycle_length_ms"] for row in circuits]
        note = f"shortest cycle {number(min(cycles))} ms" if cycles else ""
        figures.append(_figure("Circuits without induction", str(len(circuits)), "", note))
    if found.induction is not None:
        sites = found.induction
        induced, of = len(sites["inducible_sites"]), len(sites["sites"])
        figures.append(_figure("Sites that induce", f"{induced} of {of}", ""))
    best = best_strategy(found.ablation)
    if best is not None:
        note = str(best["strategy"])
        figures.append(_figure("Smallest lesion set", number(best["volume_ml"], 2), "ml", note))
    scar = (found.risk or {}).get("scar") or []
    if scar:
        note = str(scar[0]["convention"])
        figures.append(_figure("Core", number(scar[0]["core_g"], 1), "g", note))
        figures.append(_figure("Border zone", number(scar[0]["border_g"], 1), "g", note))
    for part, (middle, least, lead) in fit_figures(found.fit or {}).items():
        note = f"median lead; least {number(least, 2)} in {lead}"
        figures.append(_figure(f"Fit of the {PARTS[part]}", number(middle, 2), "", note))
    share = (found.risk or {}).get("circuit_share")
    if share:
        low, high = (f"{100 * share[key]:.0f}" for key in ("low", "high"))
        figures.append(
            _figure(
                "Members with a circuit", f"{share['count']} of {share['of']}", "",
                f"95 % interval {low} to {high} %",
            )
        )  # fmt: skip
    return figures


def _figure(label: str, value: str, unit: str, note: str = "") -> dict[str, str]:
    return {"label": label, "value": value, "unit": unit, "note": note}


def _sections(
    folder: Path, heart: Heart, found: PlanningFindings, circuits: Sequence[Record]
) -> Iterator[_Section]:
    scene = Scene(heart)
    if circuits:
        file = write_circuits(folder / "circuits.png", scene, heart.mesh, circuits)
        text = (
            "Ways that would sustain re-entry, on scar; a circle is the exit, a cross the isthmus. "
            "Screening launches waves at the isthmus and induces nothing."
        )
        yield _Section(
            "circuits", "Circuits", picture=_picture(file, "Circuits of re-entry", text),
            head=("Circuit", "Cycle (ms)", "Longest refractory period (ms)", "Isthmus (mm\u00b2)",
                  "Exit"),
            rows=[_circuit_row(k, row) for k, row in enumerate(circuits, start=1)],
            words=("Exit",),
        )  # fmt: skip
    yield from _induction(folder, scene, found)
    yield from _vt_ecg(folder, found)
    yield from _ablation(folder, scene, heart, found)
    if found.rvi is not None and np.isfinite(found.rvi).any():
        file = write_map(
            folder / "rvi.png", scene, found.rvi, quantity="rvi",
            title="Re-entry vulnerability index",
        )  # fmt: skip
        text = (
            "Least time from the activation of tissue nearby to the recovery of this place. Low, "
            "dark: a wave could come back here. It falls with the radius of the search."
        )
        yield _Section(
            "vulnerability", "Where waves could turn back", picture=_picture(file, "RVI", text)
        )
    yield from _fit(found.fit or {})
    yield from _risk(folder, found.risk)
    yield _Section("methods", "Methods", texts=METHODS)


def _picture(file: Path, alt: str, caption: str) -> dict[str, str]:
    return {"uri": data_uri(file), "alt": alt, "caption": caption}


def _circuit_row(k: int, row: Record) -> list[str]:
    keys = ("cycle_length_ms", "refractory_ms", "isthmus_area_mm2")
    return [str(k), *(number(row.get(key)) for key in keys), str(row["place"])]


def _induction(folder: Path, scene: Scene, found: PlanningFindings) -> Iterator[_Section]:
    if found.induction is None:
        return
    vts = found.induction.get("vts") or []
    picture = None
    if found.vt is not None and np.isfinite(found.vt).any():
        file = write_map(folder / "vt.png", scene, found.vt, title="Induced tachycardia, one cycle")
        text = "When each part is activated within one cycle; grey tissue is not."
        picture = _picture(file, "Activation over one cycle of an induced tachycardia", text)
    yield _Section(
        "induction",
        "Programmed stimulation",
        lead=_protocol(found.induction),
        picture=picture,
        head=("VT", "Cycle (ms)", "Form", "Exit", "Induced from"),
        rows=[_vt_row(k, row) for k, row in enumerate(vts, start=1)],
        words=("Form", "Exit", "Induced from"),
        texts=[
            *(["No tachycardia was induced."] if not vts else []),
            *(f"{remark}." for remark in found.induction.get("remarks") or []),
        ],
    )


def _vt_ecg(folder: Path, found: PlanningFindings) -> Iterator[_Section]:
    rows = [
        _ecg_row(k, row["ecg"])
        for k, row in enumerate((found.induction or {}).get("vts") or [], start=1)
        if row.get("ecg")
    ]
    if not rows:
        return
    picture = None
    if found.vt_ecg is not None:
        file = write_ecg_paper(
            folder / "vt_ecg.png", found.vt_ecg, gain=paper_gain(found.vt_ecg),
            title="Simulated VT 1",
        )  # fmt: skip
        text = (
            "Two seconds of VT 1 as simulated; compare it with recordings of the clinical "
            "tachycardia, if there are any."
        )
        picture = _picture(file, "Twelve leads of an induced tachycardia", text)
    yield _Section(
        "vt_ecg", "What the tachycardias would look like on the ECG", picture=picture,
        head=("VT", "Rate (1/min)", "QRS (ms)", "Axis (\u00b0)", "V1 as in", "R from",
              "In two seconds"),
        rows=rows, words=("V1 as in", "R from", "In two seconds"),
    )  # fmt: skip


def _ecg_row(k: int, ecg: Record) -> list[str]:
    numbers = [number(ecg.get(key)) for key in ("rate_per_min", "qrs_ms", "axis_deg")]
    pattern = f"{ecg['pattern']} block" if ecg.get("pattern") else "-"
    ends = ecg.get("ends_ms")
    lasts = "goes on" if ends is None else f"ends at {float(ends) / 1000:.1f} s"
    return [str(k), *numbers, pattern, str(ecg.get("transition") or "-"), lasts]


def _protocol(induction: Record) -> str:
    settings = induction.get("settings") or {}
    return f"Protocol {settings.get('protocol') or settings.get('preset') or 'as given'}."


def _vt_row(k: int, row: Record) -> list[str]:
    words = [str(row.get(key) or "-") for key in ("morphology", "exit_segment")]
    return [
        str(k), number(row.get("cycle_length_ms")), *words, ", ".join(row.get("sites") or ["-"])
    ]  # fmt: skip


def _ablation(
    folder: Path, scene: Scene, heart: Heart, found: PlanningFindings
) -> Iterator[_Section]:
    if found.ablation is None:
        return
    best = best_strategy(found.ablation)
    picture = None
    if found.lesion is not None and (found.lesion > 0).any():
        note = "" if best is None else f"{best['strategy']}: {number(best['volume_ml'], 2)} ml"
        file = write_lesions(folder / "lesions.png", scene, heart.mesh, found.lesion, note)
        picture = _picture(
            file, "Lesions on scar", "What the smallest sufficient plan burns, blue."
        )
    rows = [strategy_row(row) for row in found.ablation.get("strategies") or []]
    yield _Section(
        "ablation",
        "Strategies compared",
        lead="After each the heart is screened again from all sites, and new circuits count.",
        picture=picture,
        head=("Strategy", "Lesions", "Burnt (ml)", "Circuits left", "Of them new", "Cut off (ml)",
              "Activation later by (ms)", "Remark"),
        rows=rows,
        words=("Remark",),
    )  # fmt: skip


def _fit(fit: Fit) -> Iterator[_Section]:
    figures = fit_figures(fit)
    if not figures:
        return
    leads = list(dict.fromkeys(lead for part in fit.values() for lead in part))
    yield _Section(
        "fit", "How well the twin fits the ECG",
        lead="Correlation of each lead of the twin with the lead that was measured, filtered "
        f"alike: 1 for the same shape, below {POOR_FIT:g} for another. Sizes are not in it.",
        head=("Part", "Median", "Least", *leads),
        rows=[[PARTS[part], number(middle, 2), number(least, 2),
               *(number(fit[part].get(lead), 2) for lead in leads)]
              for part, (middle, least, _) in figures.items()],
    )  # fmt: skip


def _risk(folder: Path, risk: Record | None) -> Iterator[_Section]:
    if risk is None:
        return
    measures = risk.get("measures") or []
    members = risk.get("ensemble") or {}
    if measures:
        picture = None
        if members.get("members", 0) > 1:
            file = write_intervals(folder / "intervals.png", measures, members["level"])
            text = f"{members['members']} members: {members['source']}."
            picture = _picture(file, "Intervals of the measures over the ensemble", text)
        yield _Section(
            "risk", "Measures and how sure they are", picture=picture,
            lead="No single number: each measure with what the ensemble leaves open.",
            head=("Measure", "Value", "Low", "Median", "High", "Width", "Unit"),
            rows=[_measure_row(row) for row in measures], words=("Unit",),
        )  # fmt: skip
    scar = risk.get("scar") or []
    if scar:
        yield _Section(
            "scar", "Scar under every convention",
            lead="The masses depend on the convention; the first row is the one in use.",
            head=("Convention", "Core (g)", "Border zone (g)", "Thresholds"),
            rows=[[str(r["convention"]), number(r["core_g"], 1), number(r["border_g"], 1),
                   str(r.get("meaning", ""))] for r in scar],
            words=("Thresholds",),
        )  # fmt: skip
    yield from _markers(risk.get("ecg") or {})


def _measure_row(row: Record) -> list[str]:
    digits = 0 if row["unit"] in ("", "ms") else 2
    keys = ("value", "low", "median", "high", "width")
    return [str(row["label"]), *(number(row.get(key), digits) for key in keys),
            unit_as_read(row["unit"])]  # fmt: skip


def _markers(ecg: Record) -> Iterator[_Section]:
    measured, simulated = (ecg.get(key) or {} for key in ("measured", "simulated"))
    names = [name for name in {**measured, **simulated} if name not in ("notes", "reasons")]
    if not names:
        return
    yield _Section(
        "ecg", "Markers of the ECG",
        head=("Marker", "Measured", "Simulated"),
        rows=[[_marker(name), _said(measured.get(name)), _said(simulated.get(name))]
              for name in names],
    )  # fmt: skip


def _marker(name: str) -> str:
    """A key such as ``qrs_duration_ms`` as it is read: QRS duration (ms)."""
    words = name.split("_")
    unit = _UNITS.get(words[-1], "")
    text = " ".join(_NAMES.get(word, word) for word in (words[:-1] if unit else words))
    return text[:1].upper() + text[1:] + unit


def _said(value: Any) -> str:
    if isinstance(value, bool) or isinstance(value, str):
        return str(value).lower()
    return number(value)
