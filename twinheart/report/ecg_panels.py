"""The leads of an ECG enlarged, each in a panel: to look at waves, not to measure on paper."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from twinheart.ecg import Delineation, Ecg, qrs_bounds
from twinheart.ecg.electrodes import PRECORDIAL
from twinheart.errors import InputError
from twinheart.report.ecg_paper import ROWS
from twinheart.report.style import ACCENT, INK, MUTED, figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHADES = {"p": "#2a5b8a", "qrs": ACCENT, "t": "#c9560f"}
_WIDTH, _HEIGHT = 250.0, 130.0  # mm
_LONGEST = 2500.0  # ms


def write_ecg_panels(
    path: str | Path,
    ecg: Ecg,
    *,
    overlay: Ecg | None = None,
    waves: Delineation | None = None,
    legend: tuple[str, str] = ("measured", "simulated"),
) -> Path:
    """Draw the leads of a short record, each in its own panel, with the QRS as measured.

    Parameters
    ----------
    path : str or Path
        PNG, SVG or PDF to write.
    ecg : Ecg
        Leads [mV] over time [ms]; the first 2.5 s are drawn. Limb leads share one scale,
        precordial leads another.

    Other Parameters
    ----------------
    overlay : Ecg or None
        Another ECG on the same time axis, drawn over it.
    waves : Delineation or None
        Waves to shade instead of the QRS complexes alone: P, QRS, T, and the T end of each lead.
    legend : (str, str)
        Names of the two ECGs, shown where there is an overlay.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InputError
        If no standard lead is there.
    OutputError
        If the file cannot be written.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile
    >>> from twinheart.ecg import Ecg
    >>> from twinheart.report import write_ecg_panels
    >>> t = np.arange(400.0)
    >>> ecg = Ecg(t, np.sin(t / 30)[:, None], ("II",))
    >>> write_ecg_panels(pathlib.Path(tempfile.mkdtemp()) / "leads.svg", ecg).name
    'leads.svg'
    """
    present = [name for row in ROWS for name in row if name in ecg.names]
    if not present:
        raise InputError(f"the ECG has none of the twelve leads; it has {', '.join(ecg.names)}.")
    t = np.asarray(ecg.t, dtype=np.float64)
    span = (float(t[0]), float(min(t[-1], t[0] + _LONGEST)))
    drawn = [(ecg, INK, 1.0)] + ([(overlay, ACCENT, 1.2)] if overlay is not None else [])
    limits = {group: _limits([e for e, _, _ in drawn], group, span) for group in (False, True)}
    shades = _shades(ecg, waves, span)
    fig = figure(_WIDTH, _HEIGHT)
    panels = fig.subplots(3, 4, sharex=True)
    top = 0.93 if overlay is not None else 0.97
    fig.subplots_adjust(left=0.075, right=0.985, top=top, bottom=0.085, wspace=0.2, hspace=0.14)
    for row, names in enumerate(ROWS):
        for column, name in enumerate(names):
            axes = panels[row, column]
            if name not in present:
                axes.set_visible(False)
                continue
            for start, stop, gid in shades:
                axes.axvspan(start, stop, color=_SHADES[gid], alpha=0.12, lw=0, gid=gid)
            if waves is not None and name in waves.t_offsets:
                axes.axvline(
                    waves.t_offsets[name], 0, 0.8, color=MUTED, lw=0.8, ls=":", gid="t-end"
                )
            axes.axhline(0.0, color=MUTED, lw=0.4)
            for number, (which, colour, lw) in enumerate(drawn):
                if name in which.names:
                    axes.plot(which.t, which[name], color=colour, lw=lw, gid=f"trace-{number}")
            axes.set_ylim(limits[name in PRECORDIAL])
            axes.set_xlim(span[0], span[1] if span[1] > span[0] else span[0] + 1.0)
            _dress(axes, name, row == len(ROWS) - 1, column == 0)
    if overlay is not None:
        for x, word, (_, colour, _) in zip((0.075, 0.23), legend, drawn, strict=True):
            fig.text(x, 0.955, word, size=9, weight="bold", color=colour)
    return save(fig, path)


def _dress(axes: "Axes", name: str, lowest: bool, first: bool) -> None:
    axes.text(0.97, 0.95, name, transform=axes.transAxes, size=10, weight="bold",
              ha="right", va="top", color=INK)  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7, color=MUTED, labelcolor=MUTED, length=2.5)
    if first:
        axes.set_ylabel("mV", size=8, color=INK)
    if lowest:
        axes.set_xlabel("ms", size=8, color=INK)


def _shades(
    ecg: Ecg, waves: Delineation | None, span: tuple[float, float]
) -> list[tuple[float, float, str]]:
    """Begin, end and name of what is shaded."""
    if waves is None:
        try:
            bounds = qrs_bounds(ecg)
        except InputError:  # sampled too coarsely to be measured, but not to be seen
            return []
        return [(float(a), float(b), "qrs") for a, b in bounds if a <= span[1]]
    found = [
        (waves.p_onset, waves.p_offset, "p"),
        (*waves.qrs, "qrs"),
        (waves.t_onset, waves.t_offset, "t"),
    ]
    return [shade for shade in found if np.isfinite(shade[:2]).all()]


def _limits(ecgs: list[Ecg], precordial: bool, span: tuple[float, float]) -> tuple[float, float]:
    parts = []
    for ecg in ecgs:
        shown = (np.asarray(ecg.t) >= span[0]) & (np.asarray(ecg.t) <= span[1])
        for row in ROWS:
            for name in row:
                if name in ecg.names and (name in PRECORDIAL) is precordial:
                    values = np.asarray(ecg[name], dtype=np.float64)[shown]
                    parts.append(values[np.isfinite(values)])
    values = np.concatenate([*parts, np.zeros(1)])
    low, high = float(values.min()), float(values.max())
    margin = 0.08 * max(high - low, 1e-3)
    return min(low, 0.0) - margin, max(high, 0.0) + margin
