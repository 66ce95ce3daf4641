"""The page of a calibration: fit of the leads, maps with uncertainty, and what is known now."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from twinheart.calibration import (
    Calibration,
    Determination,
    Stage,
    determination,
    misfit_test,
)
from twinheart.calibration.posterior import DETERMINED, UNDETERMINED
from twinheart.calibration.priors import Prior
from twinheart.ecg.electrodes import PRECORDIAL
from twinheart.report.ecg_paper import ROWS
from twinheart.report.html import data_uri, write_page
from twinheart.report.maps import write_map
from twinheart.report.scene import Scene
from twinheart.report.style import ACCENT, INK, MUTED, figure, save

_WIDTH, _HEIGHT = 250.0, 130.0  # mm
_LEVEL = 0.9  # of bands and intervals
_COLOURS = {"determined": "#2a5b8a", "partly": "#98b6cd", "not determined": "#c9560f"}
_MOST_BARS = 90  # in one chart
_WORDS = {"qrs": "QRS", "t_wave": "T wave"}
# Of I and II: the limb leads that are no data of their own
_LIMB = {"III": (-1.0, 1.0), "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}


def write_calibration_report(
    path: str | Path,
    found: Calibration,
    *,
    draws: int = 20,
    title: str = "A calibrated heart",
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write one HTML page about a calibration; it opens offline and runs no script.

    Parameters
    ----------
    path : str or Path
        The page.
    found : Calibration
        What `twinheart.calibration.calibrate` returned.

    Other Parameters
    ----------------
    draws : int
        From the posterior, for bands and maps of uncertainty.
    title : str
        Heading; give it no name of a patient.
    provenance : mapping or None
        What made the result: version, commit, seed.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    stages = found.stages
    rows = {name: determination(stage.posterior) for name, stage in stages.items()}
    with tempfile.TemporaryDirectory() as folder:
        pictures = list(_pictures(Path(folder), found, stages, rows, draws))
    return write_page(
        Path(path),
        "calibration.html.j2",
        title=title,
        figures=_figures(stages, rows),
        notes=[_sentence(text) for text in found.remarks],
        tests=[_test(name, stage) for name, stage in stages.items()],
        pictures=pictures,
        parameters=[row for name in stages for row in _table(name, stages[name], rows[name])],
        sentences=[row.sentence for own in rows.values() for row in own],
        provenance=[(k, str(v)) for k, v in (provenance or {}).items() if v is not None],
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _figures(
    stages: Mapping[str, Stage], rows: Mapping[str, list[Determination]]
) -> list[dict[str, str]]:
    figures = []
    for name, stage in stages.items():
        values = list(stage.correlation.values())
        worst = min(stage.correlation, key=stage.correlation.__getitem__)
        figures.append(
            {
                "label": f"Correlation, {_WORDS[name]}",
                "value": f"{np.median(values):.3f}",
                "note": f"median of {len(values)} leads; least {min(values):.3f} in {worst}",
            }
        )
    verdicts = [row.verdict for own in rows.values() for row in own]
    iterations = sum(stage.fit.iterations for stage in stages.values())
    return [
        *figures,
        {"label": "Free parameters", "value": str(len(verdicts)), "note": ""},
        {
            "label": "Determined",
            "value": str(verdicts.count("determined")),
            "note": f"{verdicts.count('partly')} in part, "
            f"{verdicts.count('not determined')} not at all",
        },
        {"label": "Iterations", "value": str(iterations), "note": stages["qrs"].fit.result},
    ]


def _test(name: str, stage: Stage) -> str:
    """The misfit test in words."""
    test = misfit_test(stage.fit)
    words = (
        "the model is rejected at 5 %: something in this heart, body or ECG is not as it assumes"
        if test.rejected
        else "the model can have made the data"
    )
    more = ""
    if stage.posterior.scale > 1.0:
        more = (
            f" Intervals take the noise as {np.sqrt(stage.posterior.scale):.2f} times larger, so "
            "that the misfit counts as noise."
        )
    return (
        f"Misfit of the {_WORDS[name]}: sum of squares {test.statistic:.0f} for {test.samples} "
        f"samples, p = {test.p_value:.2g}; {words}.{more}"
    )


def _table(name: str, stage: Stage, rows: list[Determination]) -> list[dict[str, str]]:
    free = stage.objective.free
    about = [(_words_of(prior), entry.source) for entry in free.entries for prior in entry.priors]
    return [
        {
            "stage": _WORDS[name],
            "name": row.name,
            "unit": row.unit,
            "median": f"{row.median:.3g}",
            "interval": f"{row.low:.3g} to {row.high:.3g}",
            "contraction": f"{row.contraction:.2f}",
            "verdict": row.verdict,
            "prior": prior,
            "source": source,
        }
        for row, (prior, source) in zip(rows, about, strict=True)
    ]


def _words_of(prior: Prior) -> str:
    numbers = ", ".join(f"{name} {value:.3g}" for name, value in vars(prior).items())
    return f"{type(prior).__name__}: {numbers}"


def _pictures(
    folder: Path,
    found: Calibration,
    stages: Mapping[str, Stage],
    rows: Mapping[str, list[Determination]],
    draws: int,
) -> Iterator[dict[str, str]]:
    maps, bands = {}, {}
    for name, stage in stages.items():
        maps[name], bands[name] = stage.posterior.predictions(draws)
    for name, stage in stages.items():
        file = write_fit(folder / f"{name}.svg", stage, bands[name])
        yield _picture(
            f"leads-{name}",
            f"The leads, {_WORDS[name]}",
            file,
            "Black: measured, filtered as the model is, without its baseline. Red: best fit. Band: "
            "90 % of what the model predicts with parameters drawn from their posterior; the noise "
            "of the recording is not in it. Limb leads share one scale, precordial leads another.",
        )
    yield from _maps(folder, found, stages, maps["qrs"])
    yield _picture(
        "contraction",
        "What the ECG says about each parameter",
        write_contraction(folder / "contraction.svg", [r for own in rows.values() for r in own]),
        "Uncertainty after the ECG over that before it. Left: the ECG determines the parameter. "
        "Right: it does not, and the value is that of the prior.",
    )
    yield _picture(
        "loss",
        "Loss over the iterations",
        write_loss(folder / "loss.svg", stages),
        "Half the sum of squares of data and prior, of the last fit of each stage; the search on "
        "the coarse heart comes before.",
    )


def _maps(
    folder: Path, found: Calibration, stages: Mapping[str, Stage], lat: Float[np.ndarray, "..."]
) -> Iterator[dict[str, str]]:
    scene = Scene(found.twin.heart)
    best = np.asarray(found.qrs.prediction.lat)
    best = np.where(np.isfinite(best), best, np.nan)
    file = write_map(folder / "lat.png", scene, best)
    text = "When each part of the heart is activated, after the onset of the QRS."
    yield _picture("lat", "Activation", file, text)
    yield _picture(
        "lat-sd",
        "Uncertainty of the activation",
        _spread_map(folder / "lat_sd.png", scene, lat, "Standard deviation of the activation time"),
        f"Over {len(lat)} draws from the posterior: where it is large, the ECG leaves open when "
        "the wave comes.",
    )
    if "t_wave" not in stages:
        return
    apd = np.asarray(stages["t_wave"].prediction.apd)
    file = write_map(folder / "repol.png", scene, best + apd, quantity="repol")
    text = "When each part of the heart has repolarised by 90 %."
    yield _picture("repol", "Repolarisation", file, text)
    file = write_map(folder / "apd90.png", scene, apd, quantity="apd90")
    text = "How long the action potential lasts, as fitted to the T wave."
    yield _picture("apd90", "Action potential duration", file, text)


def _spread_map(path: Path, scene: Scene, draws: Float[np.ndarray, "..."], title: str) -> Path:
    known = np.isfinite(draws).all(axis=0)
    spread = np.full(draws.shape[1], np.nan)
    spread[known] = draws[:, known].std(axis=0)
    largest = np.nanmax(spread) if known.any() else 1.0
    step = next((s for s in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if largest / s <= 15), None)
    return write_map(path, scene, spread, quantity="sd", title=title, step=step)


def write_fit(path: str | Path, stage: Stage, signals: Float[np.ndarray, "draw time lead"]) -> Path:
    """Draw the leads of a stage: measured, best fit and predictive band, each in a panel.

    Parameters
    ----------
    path : str or Path
        PNG, SVG or PDF to write.
    stage : Stage
        Data and best fit.
    signals : (draw, time, lead) array
        Predictions of draws from the posterior [mV].

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    data = stage.objective.data
    t, best = np.asarray(data.t), np.asarray(stage.prediction.signals, float)
    measured = _without_baseline(t, np.asarray(data.signals, float), best)
    ends = [0.5 - _LEVEL / 2, 0.5 + _LEVEL / 2]
    # quantiles of derived leads are those of the derived draws, not derived quantiles
    drawn = {
        name: (measured @ w, best @ w, np.quantile(signals @ w, ends, axis=0))
        for name, w in _weights(data.names).items()
    }
    tops = {
        group: max(
            (float(np.abs(np.concatenate([m, b, *q])).max())
             for n, (m, b, q) in drawn.items() if (n in PRECORDIAL) is group),
            default=1.0,
        )
        for group in (False, True)
    }  # fmt: skip
    fig = figure(_WIDTH, _HEIGHT)
    panels = fig.subplots(3, 4, sharex=True)
    fig.subplots_adjust(left=0.075, right=0.985, top=0.97, bottom=0.085, wspace=0.2, hspace=0.14)
    for row, names in enumerate(ROWS):
        for column, name in enumerate(names):
            axes = panels[row, column]
            if name not in drawn:
                axes.set_visible(False)
                continue
            own, fitted, (low, high) = drawn[name]
            axes.axhline(0.0, color=MUTED, lw=0.4)
            axes.fill_between(t, low, high, color=ACCENT, alpha=0.22, lw=0, gid="band")
            axes.plot(t, own, color=INK, lw=1.1, gid="measured")
            axes.plot(t, fitted, color=ACCENT, lw=1.1, gid="fitted")
            top = 1.08 * tops[name in PRECORDIAL]
            axes.set_ylim(-top, top)
            axes.set_xlim(t[0], t[-1])
            axes.text(0.97, 0.95, name, transform=axes.transAxes, size=10, weight="bold",
                      ha="right", va="top", color=INK)  # fmt: skip
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=7, color=MUTED, labelcolor=MUTED, length=2.5)
            if column == 0:
                axes.set_ylabel("mV", size=8, color=INK)
            if row == len(ROWS) - 1:
                axes.set_xlabel("ms after the onset of the QRS", size=8, color=INK)
    return save(fig, path)


def _weights(names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Every lead that the data give, as weights of theirs."""
    weights = {name: np.eye(len(names))[k] for k, name in enumerate(names)}
    if "I" in weights and "II" in weights:
        for name, (one, two) in _LIMB.items():
            weights[name] = one * weights["I"] + two * weights["II"]
    return weights


def _without_baseline(t, measured, model) -> np.ndarray:
    """Measured leads less the constant and the slope that the fit leaves out of account."""
    ramp = np.stack([np.ones(len(t)), (t - t.mean()) / np.ptp(t)], axis=1)
    found = np.linalg.lstsq(ramp, measured - model, rcond=None)[0]
    return measured - ramp @ found


def write_contraction(path: str | Path, rows: list[Determination]) -> Path:
    """Draw how much the data narrow each parameter, sorted.

    Parameters
    ----------
    path : str or Path
        PNG, SVG or PDF to write.
    rows : list of Determination
        Of one or several stages; of very many, those that are narrowed most.

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
    >>> import pathlib, tempfile
    >>> from twinheart.calibration import Determination
    >>> from twinheart.report.calibration import write_contraction
    >>> row = Determination("cv_l", "m/s", 0.5, 0.6, 0.7, 0.3, "determined", "")
    >>> write_contraction(pathlib.Path(tempfile.mkdtemp()) / "bars.svg", [row]).name
    'bars.svg'
    """
    shown = sorted(rows, key=lambda row: row.contraction)[:_MOST_BARS]
    height = 22.0 + 4.6 * len(shown)
    fig = figure(_WIDTH * 0.8, height)
    bottom, top = 12.0 / height, 1.0 - 8.0 / height
    axes = fig.add_axes((0.34, bottom, 0.63, top - bottom))
    place = np.arange(len(shown))
    colours = [_COLOURS[row.verdict] for row in shown]
    axes.barh(place, [row.contraction for row in shown], color=colours, height=0.72)
    axes.set_yticks(place, [row.name for row in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0.0, 1.05)
    for limit in (DETERMINED, UNDETERMINED):
        axes.axvline(limit, color=MUTED, lw=0.8, ls=":")
    axes.tick_params(labelsize=8, color=MUTED, labelcolor=INK, length=2.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("posterior over prior standard deviation", size=8.5, color=INK)
    for k, (verdict, colour) in enumerate(_COLOURS.items()):
        fig.text(0.34 + 0.2 * k, 1.0 - 4.5 / height, verdict, size=9, weight="bold", color=colour)
    return save(fig, path)


def write_loss(path: str | Path, stages: Mapping[str, Stage]) -> Path:
    """Draw the loss of every iteration of the stages.

    Parameters
    ----------
    path : str or Path
        PNG, SVG or PDF to write.
    stages : mapping of str to Stage
        ``"qrs"`` and, if it was fitted, ``"t_wave"``.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    fig = figure(_WIDTH * 0.8, 80.0)
    longest = 1
    axes = fig.add_axes((0.1, 0.16, 0.87, 0.78))
    for (name, stage), colour in zip(stages.items(), (ACCENT, "#2a5b8a"), strict=False):
        loss = [float(done["loss"]) for done in stage.fit.history] or [stage.fit.loss]
        axes.plot(np.arange(1, len(loss) + 1), loss, "o-", color=colour, ms=3.5, lw=1.2)
        axes.annotate(
            f"{_WORDS[name]} {loss[-1]:.4g}",
            (len(loss), loss[-1]),
            (7, 0),
            textcoords="offset points",
            size=9,
            color=colour,
            weight="bold",
            va="center",
        )
        longest = max(longest, len(loss))
    axes.set_xlim(0.5, 1.0 + 1.15 * longest)  # room for the words
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_yscale("log")
    for which in ("major", "minor"):
        getattr(axes.yaxis, f"set_{which}_formatter")(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.set_xlabel("iteration", size=8.5, color=INK)
    axes.set_ylabel("loss", size=8.5, color=INK)
    axes.tick_params(labelsize=8, color=MUTED, labelcolor=MUTED, length=2.5, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    return save(fig, path)


def _picture(key: str, title: str, file: Path, caption: str) -> dict[str, str]:
    return {"key": key, "title": title, "uri": data_uri(file), "alt": title, "caption": caption}
