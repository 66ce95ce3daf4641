"""The report of a beat: one HTML file that opens anywhere, without network or scripts."""

import base64
import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from twinheart import __version__
from twinheart.anatomy import Heart
from twinheart.ecg import Ecg, qrs_duration, qt_interval, r_wave_progression
from twinheart.errors import InputError, OutputError
from twinheart.mesh.io.atomic import written_whole
from twinheart.mesh.quality import mean_edge, volumes
from twinheart.report.animation import write_animation
from twinheart.report.ecg_panels import write_ecg_panels
from twinheart.report.ecg_paper import paper_gain, write_ecg_paper
from twinheart.report.maps import write_map
from twinheart.report.scene import Scene

if TYPE_CHECKING:
    from twinheart.twin import Beat, Twin

UNITS = "mm, ms, mV; conductivities in S/m, currents in A/F"

_CAPTIONS = {
    "lat": "When each part of the heart is activated. Grey tissue, if any, is never activated.",
    "repol": "When each part of the heart has repolarised by 90 %. Grey where it has not.",
    "apd90": "How long the action potential lasts, from activation to 90 % repolarisation.",
}
_TYPES = {".png": "image/png", ".svg": "image/svg+xml", ".webp": "image/webp", ".gif": "image/gif"}


class _Picture(NamedTuple):
    key: str
    title: str
    uri: str
    alt: str
    caption: str
    paper: bool = False


def write_report(
    out_dir: str | Path,
    heart: Heart,
    beat: "Beat",
    *,
    twin: "Twin | None" = None,
    title: str = "A simulated heart beat",
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``report.html``: figures, maps, film, ECG and provenance in one self-contained file.

    Parameters
    ----------
    out_dir : str or Path
        Folder; made if need be.
    heart : Heart
        The heart that beat.
    beat : Beat
        What `simulate` returned: `lat`, `repol`, `apd90`, `ecg`, `vm_file`, `result`, `stats`.

    Other Parameters
    ----------------
    twin : Twin or None
        Adds its cell model and electrodes to the provenance.
    title : str
        Heading; give it no name of a patient.
    provenance : mapping or None
        What else made the result: commit, seed, parameters, files. Nested mappings are flattened.
        Version, units, mesh size and checksum are added by themselves.

    Returns
    -------
    Path
        The report. It opens offline, makes no request and runs no script.

    Raises
    ------
    InputError
        If the maps do not belong to the heart.
    OutputError
        If the file cannot be written; an older report stays as it was.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.report import write_report
    >>> from twinheart.twin import Beat
    >>> heart = Heart(slab((4.0, 2.0, 2.0), 1.0))
    >>> lat, none = heart.mesh.points[:, 0] / 0.6, np.zeros((0, 0))
    >>> beat = Beat(
    ...     lat=lat, repol=lat + 290, apd90=0 * lat + 290, ecg=None, potentials=none,
    ...     t=np.zeros(0), probes=none, vm_file=None, result="successful", stats={},
    ... )
    >>> write_report(tempfile.mkdtemp(), heart, beat).name
    'report.html'
    """
    out_dir = Path(out_dir)
    for name in ("lat", "repol", "apd90"):
        shape = np.shape(getattr(beat, name))
        if shape != (heart.mesh.n_nodes,):
            raise InputError(
                f"the beat's {name} has shape {shape}; expected ({heart.mesh.n_nodes},), one value "
                "for each node of the heart."
            )
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder '{out_dir}': {error.strerror}.") from error
    ecg = _usable(beat.ecg)
    with tempfile.TemporaryDirectory() as folder:
        pictures = list(_pictures(Path(folder), heart, beat, ecg))
    return write_page(
        out_dir / "report.html",
        "report.html.j2",
        title=title,
        figures=_figures(beat, ecg),
        notes=_notes(beat, ecg),
        pictures=pictures,
        progression=None if ecg is None else _progression(ecg),
        conduction=_conduction(beat),
        provenance=_provenance(heart, beat, twin, provenance or {}),
    )


def _usable(ecg: Ecg | None) -> Ecg | None:
    """The ECG, unless there is too little of it to draw and measure."""
    return ecg if ecg is not None and len(ecg.t) > 1 and np.isfinite(ecg.signals).any() else None


def _pictures(folder: Path, heart: Heart, beat: "Beat", ecg: Ecg | None) -> Iterator[_Picture]:
    scene = Scene(heart)
    yield _map(folder, scene, beat, "lat", "Activation")
    if beat.vm_file is not None:
        film = write_animation(folder / "vm.webp", scene, beat.vm_file, ecg=ecg)
        yield _Picture(
            "film",
            "The beat",
            data_uri(film),
            "Film of the transmembrane potential on the heart",
            "Transmembrane potential from the front and on the posterior half, cut open: blue is "
            "rest, orange the plateau.",
        )
    if ecg is not None:
        yield _ecg_picture(folder, ecg)
        yield _leads_picture(folder, ecg)
    for name, heading in (("repol", "Repolarisation"), ("apd90", "Action potential duration")):
        if np.isfinite(getattr(beat, name)).any():
            yield _map(folder, scene, beat, name, heading)


def _map(folder: Path, scene: Scene, beat: "Beat", name: str, heading: str) -> _Picture:
    values = np.asarray(getattr(beat, name), dtype=np.float64)
    file = write_map(folder / f"{name}.png", scene, values, quantity=name)
    low, high = _range(values)
    alt = f"{heading} map of the heart from six sides, {low} to {high} ms"
    return _Picture(name, heading, data_uri(file), alt, _CAPTIONS[name])


def _ecg_picture(folder: Path, ecg: Ecg) -> _Picture:
    gain = paper_gain(ecg)
    file = write_ecg_paper(folder / "ecg.svg", ecg, gain=gain)
    scale = f"25 mm/s, {gain:g} mm/mV"
    if gain != 10.0:
        scale += " (the usual 10 mm/mV does not suit the amplitude)"
    caption = f"{scale}; true to scale in print at 100 %."
    return _Picture(
        "ecg", "12-lead ECG", data_uri(file), "12-lead ECG on millimetre paper", caption, True
    )


def _leads_picture(folder: Path, ecg: Ecg) -> _Picture:
    file = write_ecg_panels(folder / "leads.svg", ecg)
    return _Picture(
        "leads",
        "The leads, enlarged",
        data_uri(file),
        "The leads of the ECG, each in a panel of its own",
        "Limb leads share one scale, precordial leads another. Shaded: QRS as measured.",
    )


def _figures(beat: "Beat", ecg: Ecg | None) -> list[dict[str, str]]:
    lat, apd90 = (np.asarray(x, dtype=np.float64) for x in (beat.lat, beat.apd90))
    active = np.isfinite(lat)
    low, high = _range(lat)
    figures = [
        _figure("Activated", f"{100 * active.mean():.4g}", "% of the nodes"),
        _figure("Activation time", f"{low} to {high}", "ms"),
    ]
    if ecg is not None:
        figures.append(_figure("QRS duration", _number(_or_nan(qrs_duration, ecg)), "ms"))
        figures.append(_figure("QT interval", _number(_or_nan(qt_interval, ecg)), "ms"))
    if np.isfinite(apd90).any():
        shortest, longest = _range(apd90)
        figures.append(
            _figure(
                "APD90, mean",
                _number(float(np.nanmean(apd90))),
                "ms",
                f"{shortest} to {longest} ms",
            )
        )
    stats = beat.stats
    if "t_end_ms" in stats:
        figures.append(_figure("Simulated time", _number(stats["t_end_ms"]), "ms"))
    if "wall_s" in stats:
        figures.append(_figure("Computing time", f"{stats['wall_s']:.3g}", "s"))
    return figures


def _figure(label: str, value: str, unit: str, note: str = "") -> dict[str, str]:
    missing = value == "none"
    return {"label": label, "value": value, "unit": "" if missing else unit, "note": note}


def _notes(beat: "Beat", ecg: Ecg | None) -> list[str]:
    notes = []
    if beat.result != "successful":
        notes.append(f"The simulation did not end well: {beat.result}.")
    lat = np.asarray(beat.lat, dtype=np.float64)
    silent = int(np.isnan(lat).sum())
    if silent:
        notes.append(f"{silent} of {lat.size} nodes were never activated.")
    waiting = int((np.isfinite(lat) & np.isnan(np.asarray(beat.repol, dtype=np.float64))).sum())
    if waiting:
        notes.append(f"{waiting} nodes had not repolarised when the simulation ended.")
    for row in beat.stats.get("conduction") or []:
        where = f"{row['axis']} the fibres, region {row['region']}"
        if abs(row["velocity_error"]) > 0.05:
            notes.append(
                f"Conduction {where}: expect {row['velocity']:.2f} m/s on this mesh instead of "
                f"{row['continuum_velocity']:.2f} m/s ({100 * row['velocity_error']:+.0f} %)."
            )
        if row["factor"] > 2:
            notes.append(
                f"Conduction {where}: the velocity is right, but it took {row['factor']:.1f} times "
                "the diffusion of the tissue; a finer mesh needs less."
            )
    if beat.ecg is None:
        notes.append("No electrodes were given, so there is no ECG.")
    elif ecg is None:
        notes.append("The ECG is too short to be drawn.")
    return notes


def _progression(ecg: Ecg) -> dict[str, Any] | None:
    try:
        table = r_wave_progression(ecg)
    except InputError:
        return None
    if not np.isfinite(table.r).all():
        return None
    rows = [
        {"name": name, "r": f"{r:.3f}", "s": f"{s:.3f}"}
        for name, r, s in zip(table.names, table.r, table.s, strict=True)
    ]
    if table.transition is None:
        return {"rows": rows, "text": "R stays smaller than S in all of them."}
    return {"rows": rows, "text": f"R is first as large as S in {table.transition}."}


def _conduction(beat: "Beat") -> list[dict[str, str]]:
    return [
        {
            "region": str(row["region"]),
            "axis": row["axis"],
            "wanted": f"{row['continuum_velocity']:.2f}",
            "velocity": f"{row['velocity']:.2f}",
            "error": f"{100 * row['velocity_error']:+.1f} %",
            "factor": f"{row['factor']:.2f}",
        }
        for row in beat.stats.get("conduction") or []
    ]


def _provenance(
    heart: Heart, beat: "Beat", twin: "Twin | None", given: Mapping[str, Any]
) -> list[tuple[str, str]]:
    mesh = heart.mesh
    checksum = hashlib.sha256(np.ascontiguousarray(mesh.points).tobytes())
    checksum.update(np.ascontiguousarray(mesh.tets).tobytes())
    volume = np.abs(volumes(mesh.points, mesh.tets)).sum() / 1000.0
    facts: dict[str, Any] = {
        "twinheart": __version__,
        "Units": UNITS,
        "Mesh": f"{mesh.n_nodes} nodes, {mesh.n_tets} tetrahedra, mean edge "
        f"{mean_edge(mesh):.2f} mm, {volume:.1f} ml",
        "Mesh checksum (SHA-256)": checksum.hexdigest(),
    }
    if twin is not None:
        cells = twin.cell.values() if isinstance(twin.cell, dict) else [twin.cell]
        facts["Cell model"] = ", ".join(sorted({type(cell).__name__ for cell in cells}))
        if twin.electrodes is not None:
            facts["Electrodes"] = ", ".join(twin.electrodes.names)
    facts["Result"] = beat.result
    facts.update({k: v for k, v in beat.stats.items() if k != "conduction"})
    facts.update(given)
    return list(_flat(facts))


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in facts.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}, ")
        elif value is not None:
            yield name, f"{value:.6g}" if isinstance(value, float) else str(value)


def write_page(path: Path, name: str, **values: Any) -> Path:
    """Write a template as one page, whole: pictures and style within it, no script, no request."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    style = resources.files("twinheart.report").joinpath("templates/report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = Environment(
        loader=PackageLoader("twinheart.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    page = environment.get_template(name).render(
        version=__version__, style=style, style_hash=f"sha256-{digest}", **values
    )
    with written_whole(path) as draft:
        draft.write_text(page, encoding="utf-8")
    return path


def data_uri(file: Path) -> str:
    """A picture as text for the page itself."""
    content = base64.b64encode(file.read_bytes()).decode()
    return f"data:{_TYPES[file.suffix]};base64,{content}"


def _range(values: np.ndarray) -> tuple[str, str]:
    finite = values[np.isfinite(values)]
    return (_number(finite.min()), _number(finite.max())) if finite.size else ("none", "none")


def _number(value: float) -> str:
    return f"{value:.0f}" if np.isfinite(value) else "none"


def _or_nan(measure, ecg: Ecg) -> float:
    """A feature of the ECG, or NaN where its sampling does not allow it."""
    try:
        return measure(ecg)
    except InputError:
        return float("nan")
