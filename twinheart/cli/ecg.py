"""`twinheart ecg`: read, measure, draw and compare electrocardiograms."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twinheart.cli.terminal import emit, say
from twinheart.errors import InputError

if TYPE_CHECKING:
    from twinheart.ecg import Comparison, EcgFeatures, Recording

_MOST_FILES = 50

ecg = typer.Typer(
    help="Read, measure, draw and compare ECGs: WFDB, DICOM, HL7 aECG, SCP-ECG, EDF, CSV, NPZ.",
    no_args_is_help=True,
)

File = Annotated[
    Path, typer.Argument(metavar="FILE", help="ECG file; a WFDB record without suffix.")
]
Rate = Annotated[
    float | None, typer.Option("--rate-hz", help="Sampling rate, where the file states none.")
]
Unit = Annotated[
    str | None, typer.Option(help="Unit of the voltages (V, mV, uV, nV), where none is stated.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class Sex(StrEnum):
    """Sex of the patient, on which one criterion depends."""

    MALE = "male"
    FEMALE = "female"


class Layout(StrEnum):
    """How an ECG is drawn."""

    PAPER = "paper"
    PANELS = "panels"


@ecg.command()
def read(
    file: File,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write it as .csv, .npz, .hea (WFDB), .dcm or .xml."),
    ] = None,
    rate_hz: Rate = None,
    unit: Unit = None,
    as_json: Json = False,
) -> None:
    """Read an ECG file and tell what is in it; with --out, convert it. Identifiers are dropped."""
    from twinheart.ecg import write_ecg

    recording = _read([file], rate_hz, unit)[0]
    record = {**_contents(file, recording), "notes": recording.notes}
    if out is not None:
        record["files"] = write_ecg(out, recording.ecg)
    _say_notes(recording.notes)
    emit(record if as_json else _without(record, "notes"), as_json=as_json)


@ecg.command()
def features(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="ECG files of one person.")
    ],
    sex: Annotated[
        Sex | None, typer.Option(help="Sex, on which the strict LBBB criterion depends.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Draw the measured beat, each lead in a panel: .png."),
    ] = None,
    rate_hz: Rate = None,
    unit: Unit = None,
    as_json: Json = False,
) -> None:
    """Measure an ECG: rate, intervals, axis, VCG, conduction; `twinheart ecg definitions` explains.

    Several files of one person are measured one by one; those of different persons are refused.
    """
    from twinheart.report import write_ecg_panels

    if len(files) > 1 and out is not None:
        raise InputError("--out draws one ECG: give one FILE with it.")
    recordings = _read(files, rate_hz, unit)
    records = []
    for file, recording in zip(files, recordings, strict=True):
        found = _measure(file, recording, sex)
        record = _record(file, recording, found)
        if out is not None:
            record["files"] = [write_ecg_panels(out, found.average.ecg, waves=found.waves)]
        _say_notes(record["notes"])
        records.append(record)
    if as_json:
        emit(records[0] if len(records) == 1 else {"records": records}, as_json=True)
        return
    for record in records:
        emit(_for_reading(record), as_json=False)


@ecg.command()
def plot(
    file: File,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Picture to write: .png, .svg or .pdf.")
    ] = Path("ecg.png"),
    overlay: Annotated[
        Path | None,
        typer.Option(help="A simulated ECG, laid over the average beat at its QRS onset."),
    ] = None,
    scale: Annotated[
        bool, typer.Option("--scale", help="Fit the amplitude of the overlay by one factor.")
    ] = False,
    layout: Annotated[
        Layout, typer.Option(help="Millimetre paper, or one enlarged panel a lead.")
    ] = Layout.PAPER,
    gain: Annotated[
        float | None, typer.Option(help="mm/mV on paper; chosen by amplitude if absent.")
    ] = None,
    speed: Annotated[float, typer.Option(help="mm/s on paper.")] = 25.0,
    rate_hz: Rate = None,
    unit: Unit = None,
    as_json: Json = False,
) -> None:
    """Draw an ECG on millimetre paper or in panels; compare a simulated one with a measured one."""
    if scale and overlay is None:
        raise InputError("--scale fits an overlay: give --overlay FILE with it.")
    recordings = _read([file, overlay] if overlay else [file], rate_hz, unit)
    _say_notes([note for recording in recordings for note in recording.notes])
    record: dict[str, Any] = {"file": file, "format": recordings[0].format}
    comparison = None
    if overlay is not None:
        found = [
            _measure(path, recording, None)
            for path, recording in zip((file, overlay), recordings, strict=True)
        ]
        comparison, said = _compared(found[0], found[1])
        record |= {"overlay": overlay, **said, "scaled": scale}
    _draw(out, recordings[0], comparison, layout, scale, gain, speed)
    emit({**record, "files": [out]}, as_json=as_json)


@ecg.command()
def definitions(as_json: Json = False) -> None:
    """List every feature with its definition and source."""
    from twinheart.ecg import DEFINITIONS

    emit({"definitions": [definition._asdict() for definition in DEFINITIONS]}, as_json=as_json)


def _read(files: Sequence[Path], rate_hz: float | None, unit: str | None) -> list["Recording"]:
    from twinheart.ecg import read_ecg, same_person

    if len(files) > _MOST_FILES:
        raise InputError(f"{len(files)} files given; expected at most {_MOST_FILES} in one call.")
    recordings = [read_ecg(file, rate_hz=rate_hz, unit=unit) for file in files]
    same_person(recordings)
    return recordings


def _measure(file: Path, recording: "Recording", sex: Sex | None) -> "EcgFeatures":
    from twinheart.ecg import ecg_features

    try:
        return ecg_features(recording.ecg, sex=None if sex is None else sex.value)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _contents(file: Path, recording: "Recording") -> dict[str, Any]:
    import numpy as np

    t, signals = recording.ecg.t, np.asarray(recording.ecg.signals)
    finite = np.isfinite(signals)
    samples = len(t)
    duration = float(t[-1] - t[0]) if samples > 1 else 0.0
    return {
        "file": file,
        "format": recording.format,
        "n_leads": len(recording.ecg.names),
        "leads": recording.ecg.names,
        "n_samples": samples,
        "duration_ms": duration,
        "rate_hz": 1000.0 * (samples - 1) / duration if duration > 0 else None,
        "least_mv": float(signals[finite].min()) if finite.any() else None,
        "largest_mv": float(signals[finite].max()) if finite.any() else None,
        "missing_fraction": float(1.0 - finite.mean()) if finite.size else None,
        "has_average_beat": recording.beats is not None,
    }


def _record(file: Path, recording: "Recording", found: "EcgFeatures") -> dict[str, Any]:
    waves = {k: v for k, v in found.waves._asdict().items() if isinstance(v, float)}
    contents = _without(_contents(file, recording), "leads")
    return {
        **contents,
        **found.values,
        "n_beats": len(found.beats.r),
        "n_averaged": int(found.average.used.sum()),
        "noise_mv": found.average.noise,
        "r_peaks_ms": found.beats.r,
        "waves_ms": waves,
        "leads": found.leads,
        "reasons": found.reasons,
        "notes": [*recording.notes, *found.notes],
        "notice": "research software, not for clinical use",
    }


def _for_reading(record: dict[str, Any]) -> dict[str, Any]:
    """The record without what only a program reads, and with the reason beside what is missing."""
    kept = _without(record, "r_peaks_ms", "waves_ms", "notes", "reasons")
    told = {key: f"- ({reason})" for key, reason in record["reasons"].items()}
    kept |= told
    rows = [
        {k: f"{v:.3g}" if isinstance(v, float) and v == v else v for k, v in lead.items()}
        for lead in record["leads"]
    ]
    return {**_without(kept, "leads", "notice"), "leads": rows, "notice": record["notice"]}


def _compared(
    measured: "EcgFeatures", simulated: "EcgFeatures"
) -> tuple["Comparison", dict[str, Any]]:
    from twinheart.ecg import compare_beats

    comparison = compare_beats(measured, simulated)
    keys = ("qrs_duration_ms", "qt_ms", "axis_deg")
    differences = {}
    for key in keys:
        one, other = measured.values[key], simulated.values[key]
        known = isinstance(one, float) and isinstance(other, float)
        differences[key] = [one, other] if known else [one, None]
    return comparison, {
        "correlation": comparison.correlation,
        "gain": comparison.gain,
        "measured_simulated": differences,
    }


def _draw(
    out: Path,
    recording: "Recording",
    comparison: "Comparison | None",
    layout: Layout,
    scale: bool,
    gain: float | None,
    speed: float,
) -> None:
    from twinheart.ecg import Ecg
    from twinheart.report import write_ecg_panels, write_ecg_paper
    from twinheart.report.ecg_paper import paper_gain

    drawn, over, legend = recording.ecg, None, ("measured", "simulated")
    if comparison is not None:
        drawn, over = comparison.measured, comparison.simulated
        if scale:
            over = Ecg(over.t, over.signals * comparison.gain, over.names)
            legend = ("measured", f"simulated, amplitude x {comparison.gain:.3g}")
    if layout is Layout.PANELS:
        write_ecg_panels(out, drawn, overlay=over, legend=legend)
        return
    write_ecg_paper(
        out,
        drawn,
        gain=gain or paper_gain(drawn),
        speed=speed,
        overlay=over,
        overlay_name=legend[1],
    )


def _say_notes(notes: Sequence[str]) -> None:
    for note in dict.fromkeys(notes):
        say(f"twinheart: note: {note}")


def _without(record: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in keys}
