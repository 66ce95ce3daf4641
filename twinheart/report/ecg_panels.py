"""The leads of an ECG enlarged, each in a panel: to look at waves, not to measure on paper."""

from pathlib import Path

import numpy as np

from twinheart.ecg import Ecg, qrs_bounds
from twinheart.ecg.electrodes import PRECORDIAL
from twinheart.errors import InputError
from twinheart.report.ecg_paper import ROWS
from twinheart.report.style import ACCENT, INK, MUTED, figure, save

_WIDTH, _HEIGHT = 250.0, 130.0  # mm
_LONGEST = 2500.0  # ms


def write_ecg_panels(path: str | Path, ecg: Ecg) -> Path:
    """Draw the leads of a short record, each in its own panel, with the QRS as measured.

    Parameters
    ----------
    path : str or Path
        PNG, SVG or PDF to write.
    ecg : Ecg
        Leads [mV] over time [ms]; the first 2.5 s are drawn. Limb leads share one scale,
        precordial leads another.

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
    shown = t <= t[0] + _LONGEST
    signals = {name: np.asarray(ecg[name], dtype=np.float64)[shown] for name in present}
    limits = {
        group: _limits([signals[name] for name in present if (name in PRECORDIAL) == group])
        for group in (False, True)
    }
    try:
        beats = qrs_bounds(ecg)
    except InputError:  # sampled too coarsely to be measured, but not to be seen
        beats = np.zeros((0, 2))
    fig = figure(_WIDTH, _HEIGHT)
    panels = fig.subplots(3, 4, sharex=True)
    fig.subplots_adjust(left=0.075, right=0.985, top=0.97, bottom=0.085, wspace=0.2, hspace=0.14)
    for row, names in enumerate(ROWS):
        for column, name in enumerate(names):
            axes = panels[row, column]
            if name not in signals:
                axes.set_visible(False)
                continue
            for onset, offset in beats[beats[:, 0] <= t[shown][-1]]:
                axes.axvspan(onset, offset, color=ACCENT, alpha=0.10, lw=0, gid="qrs")
            axes.axhline(0.0, color=MUTED, lw=0.4)
            axes.plot(t[shown], signals[name], color=INK, lw=1.0)
            axes.set_ylim(limits[name in PRECORDIAL])
            axes.set_xlim(t[0], t[shown][-1] if shown.sum() > 1 else t[0] + 1.0)
            axes.text(0.97, 0.95, name, transform=axes.transAxes, size=10, weight="bold",
                      ha="right", va="top", color=INK)  # fmt: skip
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=7, color=MUTED, labelcolor=MUTED, length=2.5)
            if column == 0:
                axes.set_ylabel("mV", size=8, color=INK)
            if row == len(ROWS) - 1:
                axes.set_xlabel("ms", size=8, color=INK)
    return save(fig, path)


def _limits(signals: list[np.ndarray]) -> tuple[float, float]:
    values = np.concatenate([s[np.isfinite(s)] for s in signals] or [np.zeros(0)])
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    margin = 0.08 * max(high - low, 1e-3)
    return min(low, 0.0) - margin, max(high, 0.0) + margin
