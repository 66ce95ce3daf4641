"""The 12-lead ECG on its paper: 25 mm/s, 10 mm/mV, true to scale when printed."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from twinheart.ecg import Ecg
from twinheart.errors import InputError
from twinheart.report.style import ACCENT, INK, MUTED, figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))

_GRID_FINE, _GRID_BOLD = "#f7d9d6", "#e9a9a3"
_MARGIN, _HEADER, _FOOTER = 7.5, 12.5, 7.5  # mm
_PULSE = 12.5  # mm kept for the calibration pulse at the start of each row
_WINDOW, _STRIP = 2500.0, 10_000.0  # ms in a column and in the whole strip
_LEAST_COLUMN, _LEAST_ROW = 30.0, 25.0  # mm
_MOST_HEIGHT = 2000.0  # mm


def write_ecg_paper(
    path: str | Path,
    ecg: Ecg,
    *,
    gain: float = 10.0,
    speed: float = 25.0,
    rhythm: str | None = "II",
    title: str = "12-lead ECG",
    overlay: Ecg | None = None,
    overlay_name: str = "simulated",
) -> Path:
    """Draw an ECG on millimetre paper in the 3 x 4 layout, with a rhythm strip.

    Parameters
    ----------
    path : str or Path
        PNG (254 dots an inch: ten a millimetre), SVG (in millimetres) or PDF to write.
    ecg : Ecg
        Leads [mV] over time [ms]; those that are missing stay empty.

    Other Parameters
    ----------------
    gain : float
        Height of a millivolt [mm]; `paper_gain` finds one that suits the amplitude.
    speed : float
        Length of a second [mm].
    rhythm : str or None
        Lead of the strip below, drawn where the record is longer than a column.
    title : str
        Heading.
    overlay : Ecg or None
        Another ECG on the same time axis, such as a simulated one, drawn over it in colour.
    overlay_name : str
        What it is called under the heading.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InputError
        If no standard lead is there, or gain or speed do not fit the signals.
    OutputError
        If the file cannot be written.

    Notes
    -----
    A record of 10 s or more is cut into four columns of 2.5 s that follow each other; a shorter
    one, such as a single simulated beat, shows the same window in all columns.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile
    >>> from twinheart.ecg import Ecg
    >>> from twinheart.report import write_ecg_paper
    >>> t = np.arange(400.0)
    >>> ecg = Ecg(t, np.sin(t / 30)[:, None], ("II",))
    >>> write_ecg_paper(pathlib.Path(tempfile.mkdtemp()) / "ecg.svg", ecg).name
    'ecg.svg'
    """
    names = [name for row in ROWS for name in row if name in ecg.names]
    if not names:
        raise InputError(f"the ECG has none of the twelve leads; it has {', '.join(ecg.names)}.")
    if not (np.isfinite(gain) and gain > 0 and np.isfinite(speed) and speed > 0):
        raise InputError(f"gain {gain} mm/mV and speed {speed} mm/s must be positive numbers.")
    t = np.asarray(ecg.t, dtype=np.float64) - float(ecg.t[0])
    signals = {name: np.asarray(ecg[name], dtype=np.float64) for name in names}
    over = _overlaid(overlay, names)
    over_t = np.asarray(overlay.t, dtype=np.float64) - float(ecg.t[0]) if overlay else t
    sequential = t[-1] >= _STRIP - 50.0
    window = _WINDOW if sequential else min(_WINDOW, max(float(t[-1]), 1.0))
    column = max(_LEAST_COLUMN, _up_to_5(window * speed / 1000.0 + 5.0))
    if sequential:
        column = window * speed / 1000.0
    strip = rhythm if rhythm in names and t[-1] > window + 50.0 else None

    rows = [[name if name in names else None for name in row] for row in ROWS]
    rows += [[strip]] if strip else []
    pulse = 1.0 if 2.0 <= gain <= 40.0 else 10.0 / gain  # mV
    spans = [
        _span([part[n] for part in (signals, over) for n in row if n and n in part], gain, pulse)
        for row in rows
    ]
    height = _HEADER + sum(up + down for up, down in spans) + _FOOTER
    if height > _MOST_HEIGHT:
        raise InputError(
            f"at {gain:g} mm/mV the ECG would be {height / 1000:.1f} m high (leads reach "
            f"{max(np.nanmax(np.abs(s)) for s in signals.values()):.3g} mV): lower the gain."
        )
    width = 2 * _MARGIN + _PULSE + 4 * column
    axes = _paper(width, _up_to_5(height))
    top = _up_to_5(height) - _HEADER
    for row, (up, down) in zip(rows, spans, strict=True):
        baseline = top - up
        top -= up + down
        _draw_pulse(axes, baseline, pulse * gain, speed)
        for index, name in enumerate(row):
            if name is None:
                continue
            start = index * window if sequential and len(row) > 1 else 0.0
            stop = start + window if len(row) > 1 else min(t[-1], _STRIP)
            left = _MARGIN + _PULSE + index * column
            kind = "lead" if len(row) > 1 else "rhythm"
            for times, source, colour, word in (
                (t, signals, INK, ""),
                (over_t, over, ACCENT, "over-"),
            ):
                if name in source:
                    part = (times >= start) & (times <= stop)
                    x = left + (times[part] - start) * speed / 1000.0
                    y, gid = baseline + gain * source[name][part], f"{word}{kind}-{name}"
                    axes.plot(x, y, color=colour, lw=0.8, solid_joinstyle="round", gid=gid)
            axes.text(left + 1.0, baseline + up - 1.0, name, size=9, weight="bold", va="top")
            if index:
                axes.plot([left, left], [baseline - 1.5, baseline + 1.5], color=INK, lw=0.6)
    scale = f"{speed:g} mm/s   {gain:g} mm/mV   pulse {pulse:g} mV"
    if overlay is not None:
        axes.text(_MARGIN, _up_to_5(height) - 9.5, overlay_name, size=7, va="top", color=ACCENT)
    axes.text(_MARGIN, _up_to_5(height) - 4.0, title, size=11, weight="bold", va="top", color=INK)
    axes.text(width - _MARGIN, _up_to_5(height) - 4.5, scale, size=8, ha="right", va="top")
    note = "columns follow each other" if sequential else "all columns show the same time"
    axes.text(
        _MARGIN, 2.0, f"research software, not for clinical use; {note}", size=6.5, color=MUTED
    )
    return save(axes.figure, path, dpi=254.0)  # type: ignore[arg-type]


def _overlaid(overlay: Ecg | None, names: list[str]) -> dict[str, np.ndarray]:
    if overlay is None:
        return {}
    shared = [name for name in names if name in overlay.names]
    return {name: np.asarray(overlay[name], dtype=np.float64) for name in shared}


def paper_gain(ecg: Ecg) -> float:
    """Gain [mm/mV] that suits the amplitude: 10 where it does, else of the series 1, 2, 5, 10.

    The amplitude of a simulated ECG depends on the conductor around the heart, which is unbounded
    and uniform here; at 10 mm/mV it may be far too small or too large for paper.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg
    >>> from twinheart.report.ecg_paper import paper_gain
    >>> paper_gain(Ecg(np.arange(2.0), np.array([[0.0], [1.2]]), ("II",)))
    10.0
    >>> paper_gain(Ecg(np.arange(2.0), np.array([[0.0], [0.12]]), ("II",)))
    50.0
    """
    signals = np.asarray(ecg.signals, dtype=np.float64)
    finite = np.abs(signals[np.isfinite(signals)])
    peak = float(finite.max()) if finite.size else 0.0
    series = np.outer(10.0 ** np.arange(-6, 7), [1.0, 2.0, 5.0]).ravel()
    fitting = series[(series * peak >= 4.0) & (series * peak <= 40.0)]
    if fitting.size == 0:
        return 10.0
    return 10.0 if 10.0 in fitting else float(fitting[np.abs(np.log(fitting / 10.0)).argmin()])


def _paper(width: float, height: float) -> "Axes":
    from matplotlib.collections import LineCollection

    fig = figure(width, height)
    axes = fig.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0.0, width)
    axes.set_ylim(0.0, height)
    axes.set_axis_off()
    for step, colour, lw in ((1.0, _GRID_FINE, 0.35), (5.0, _GRID_BOLD, 0.5)):
        lines = [[(x, 0), (x, height)] for x in np.arange(_MARGIN % step, width + 1e-6, step)]
        lines += [[(0, y), (width, y)] for y in np.arange(0, height + 1e-6, step)]
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=lw, zorder=0))
    return axes


def _draw_pulse(axes: "Axes", baseline: float, height: float, speed: float) -> None:
    """A rectangle of 200 ms; its height is what the header says."""
    x = _MARGIN + 2.5 + np.array([0.0, 1.25, 1.25, 1.25 + 0.2 * speed, 1.25 + 0.2 * speed, 7.5])
    y = baseline + height * np.array([0.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    axes.plot(x, y, color=INK, lw=0.8, solid_joinstyle="miter", gid="calibration")


def _span(signals: list[np.ndarray], gain: float, pulse: float) -> tuple[float, float]:
    """Room above and below the baseline of a row [mm], in whole squares of 5 mm."""
    values = np.concatenate([s[np.isfinite(s)] for s in signals] or [np.zeros(0)])
    high, low = (float(values.max()), float(values.min())) if values.size else (0.0, 0.0)
    up = _up_to_5(max(gain * high + 2.5, gain * pulse) + 2.5)
    down = _up_to_5(max(-gain * low, 0.0) + 2.5)
    missing = max(0.0, _LEAST_ROW - up - down)
    return up + _up_to_5(missing / 2), down + _up_to_5(missing / 2)


def _up_to_5(length: float) -> float:
    return 5.0 * float(np.ceil(length / 5.0 - 1e-9))
