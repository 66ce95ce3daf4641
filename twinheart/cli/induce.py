"""`twinheart induce`: programmed stimulation of a heart from many sites."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twinheart.cli import substrate as shared
from twinheart.cli.terminal import emit, say
from twinheart.errors import InputError

if TYPE_CHECKING:
    from twinheart.planning.induction.one_site import SiteResult
    from twinheart.planning.induction.protocols import Protocol
    from twinheart.planning.substrate import Substrate

METHOD = (
    "re-excitable eikonal equation with restitution of velocity and duration by monodomain in one "
    "dimension, coupled where regions meet, without curvature of fronts: what is induced is a "
    "candidate, to be confirmed by a monodomain simulation"
)


def induce(
    heart: Annotated[str | None, shared.HEART] = None,
    twin: Annotated[Path | None, shared.TWIN] = None,
    case: Annotated[Path | None, shared.CASE] = None,
    preset: Annotated[
        str, typer.Option(help="varp-arevalo2016, cardiomat2025, decremental, burst or peerp.")
    ] = "cardiomat2025",
    sites: Annotated[str, shared.SITES] = "aha17",
    cell: Annotated[str | None, shared.CELL] = None,
    length_unit: Annotated[str | None, shared.UNIT] = None,
    observe: Annotated[
        float | None,
        typer.Option(help="How long activity must last after the last stimulus, in ms."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Sites at once; by default one a processor core.", min=1)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File of results a line; sites in it are not run again."),
    ] = None,
    electrodes: Annotated[
        str | None,
        typer.Option(help="For ECGs of tachycardias: JSON or CSV file, or 'standard'."),
    ] = None,
    lead_field: Annotated[
        str | None, typer.Option(help="Lead field of a torso, by 'twinheart leadfield'.")
    ] = None,
    vt_ecg: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder for the 12-lead ECG of each tachycardia; or beside --out."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Pace a heart from many sites and tell which induce re-entry. Not clinical.

    A protocol ends at a site with block, capture of its last stimulus, or re-entry that lasts.
    """
    found = induce_heart(
        heart, twin, case, preset, sites, cell=cell, length_unit=length_unit, observe=observe,
        workers=workers, out=out, electrodes=electrodes, lead_field=lead_field, vt_ecg=vt_ecg,
    )  # fmt: skip
    say(f"twinheart: note: {shared.RESEARCH}")
    emit(found if as_json else _for_reading(found), as_json=as_json)


def induce_heart(
    heart: str | None = None,
    twin: Path | None = None,
    case: Path | None = None,
    preset: str = "cardiomat2025",
    sites: str = "aha17",
    *,
    cell: str | None = None,
    length_unit: str | None = None,
    observe: float | None = None,
    workers: int | None = None,
    out: Path | None = None,
    electrodes: str | None = None,
    lead_field: str | None = None,
    vt_ecg: Path | None = None,
) -> dict[str, Any]:
    """Do what `induce` says; the arguments are its options.

    Returns
    -------
    dict
        What ``--json`` prints.

    Raises
    ------
    InputError, MeshError, ModelError, OutputError, SolverError, UnitError
        If something given cannot be used, or a file cannot be written.
    """
    start = time.perf_counter()
    from twinheart.cli.case import read_case
    from twinheart.cli.run import provenance
    from twinheart.cli.vt_ecg import folder_of, leads_of, write_vt_ecgs
    from twinheart.planning import induce_sites, named_protocol
    from twinheart.planning.induction.tachycardias import distinct_tachycardias

    protocol = named_protocol(preset)
    if observe is not None:
        if not observe > 0:
            raise InputError(f"--observe is {observe:g} ms, expected a positive number.")
        protocol = replace(protocol, observe=observe)
    folder = folder_of(vt_ecg, out, electrodes is not None or lead_field is not None)
    substrate, stored = shared.substrate_and_twin(
        heart, twin, case, cell=cell, length_unit=length_unit
    )
    leads = None
    if folder is not None:
        known = None if case is None else read_case(case)
        leads = leads_of(substrate.heart, electrodes, lead_field, stored=stored, case=known)
    chosen = shared.sites_of(sites, substrate)
    results = induce_sites(
        substrate.problem, substrate.restitution, chosen, protocol, file=out,
        workers=workers or os.cpu_count() or 1, progress=shared.SiteProgress("pacing sites"),
    )  # fmt: skip
    for remark in remarks_on(results, protocol):
        say(f"twinheart: note: {remark}")
    vts = distinct_tachycardias(substrate, results, protocol)
    source = next(str(name) for name in (heart, twin, case) if name is not None)
    ecgs = None
    if folder is not None and leads is not None:
        ecgs = write_vt_ecgs(folder, substrate, vts, results, protocol, leads)
    record = {"source": source} | induction_record(substrate, results, protocol, vts, ecgs)
    return record | {"wall_s": time.perf_counter() - start, "provenance": provenance()}


def induction_record(
    substrate: "Substrate",
    results: "Sequence[SiteResult]",
    protocol: "Protocol",
    vts: Sequence,
    ecgs: "Sequence[dict[str, Any]] | None" = None,
) -> dict[str, Any]:
    """Figures of programmed stimulation under names that carry their units.

    Parameters
    ----------
    substrate : Substrate
        What was paced.
    results : sequence of SiteResult
        Of each site.
    protocol : Protocol
        With which.
    vts : sequence of Tachycardia
        What `twinheart.planning.induction.tachycardias.distinct_tachycardias` made of them.
    ecgs : sequence of dict, optional
        What the ECG of each shows, from `twinheart.cli.vt_ecg.write_vt_ecgs`.

    Returns
    -------
    dict
        Sites that are inducible and tachycardias first.
    """
    from twinheart.cli.vt_ecg import METHOD as VT_ECG_METHOD
    from twinheart.planning.induction.tachycardias import tachycardia_rows

    inducible = [result.site.name for result in results if result.induced]
    remarks = remarks_on(results, protocol)
    rows = tachycardia_rows(vts, substrate.heart.mesh)
    if ecgs is not None:
        rows = [row | {"ecg": ecg} for row, ecg in zip(rows, ecgs, strict=True)]
    return {
        "inducible_sites": inducible,
        "n_inducible": len(inducible),
        "n_sites": len(results),
        "vts": rows,
        **shared.of_substrate(substrate),
        "sites": [
            row | _of_result(result)
            for row, result in zip(
                shared.of_sites([result.site for result in results]), results, strict=True
            )
        ],
        "method": METHOD if ecgs is None else f"{METHOD}; {VT_ECG_METHOD}",
        "settings": {
            "preset": protocol.name,
            "protocol": protocol.describe().splitlines()[0],
            "observe_ms": protocol.observe,
            "activations": protocol.activations,
            "sources": [
                {"text": said.text, "verified": said.verified} for said in protocol.sources
            ],
        },
        "remarks": remarks,
        "notes": [*substrate.notes, *remarks],
    }


def remarks_on(results: "Sequence[SiteResult]", protocol: "Protocol") -> list[str]:
    """Sentences on stimuli that the tissue could not follow.

    Parameters
    ----------
    results : sequence of SiteResult
        Of each site.
    protocol : Protocol
        With which.

    Returns
    -------
    list of str
        One for S2 that is shorter than refractory, one for S1 that is too fast, one for sites
        that capture nothing.
    """
    said = []
    refused = [r for r in results if r.stages and r.stages[0].captured is None]
    if refused:
        tried = {stage.blocked for result in refused for stage in result.stages[:1]}
        said.append(
            f"{_counted(refused, results)}: S2 of {max(t for t in tried if t is not None):g} ms "
            f"comes before the tissue has recovered from S1 at {protocol.cycle:g} ms, so there was "
            "nothing to go on with: choose a protocol that begins later"
        )
    late = [r for r in results if 0 < r.s1_beats < protocol.n_s1]
    if late:
        said.append(
            f"{_counted(late, results)}: S1 at {protocol.cycle:g} ms is too fast, not every one is "
            "followed"
        )
    silent = [r for r in results if r.outcome == "no capture"]
    if silent:
        said.append(f"{_counted(silent, results)}: nothing is captured")
    return said


def _counted(some: "Sequence[SiteResult]", every: "Sequence[SiteResult]") -> str:
    return f"{len(some)} of {len(every)} sites"


def _of_result(result: "SiteResult") -> dict[str, Any]:
    return {
        "outcome": result.outcome,
        "cycle_length_ms": result.cycle_length,
        "spread_ms": result.spread,
        "coupling_ms": list(result.coupling),
        "captured_ms": [stage.captured for stage in result.stages],
        "blocked_ms": [stage.blocked for stage in result.stages],
        "lasted_ms": result.lasted,
        "s1_beats": result.s1_beats,
        "trains": result.runs,
        "seconds": result.seconds,
    }


def _for_reading(record: dict[str, Any]) -> dict[str, Any]:
    """The record without ways and methods, as tables."""
    vts = [{k: v for k, v in row.items() if k not in ("path_mm", "sites")} for row in record["vts"]]
    columns = ("site", "outcome", "cycle_length_ms", "captured_ms", "lasted_ms", "seconds")
    rows = [{k: row[k] for k in columns} for row in record["sites"]]
    left_out = ("method", "provenance", "notes", "settings")
    shown = {k: v for k, v in record.items() if k not in left_out}
    return shown | {"vts": vts, "sites": rows}
