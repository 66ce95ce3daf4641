"""Action potentials, calcium transients and restitution curves of cell models."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twinheart.report.style import ACCENT, INK, MUTED, figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = (ACCENT, "#2a5b8a", "#c9560f", "#4b7f52", INK)
_WIDTH, _ROW, _HEAD, _FOOT, _LEFT = 150.0, 52.0, 14.0, 13.0, 19.0  # mm


def write_action_potential(
    path: str | Path,
    t: Any,
    vm: Any,
    ca_i: Any = None,
    *,
    title: str = "Action potential",
    most: float | None = None,
) -> Path:
    """Draw the voltage of a paced cell and, where the model has calcium, its transient below.

    Parameters
    ----------
    path : str or Path
        PNG, SVG or PDF to write.
    t : (time,) array
        Time [ms].
    vm : (time,) array
        Transmembrane voltage [mV].
    ca_i : (time,) array, optional
        Calcium of the cytosol [mM].

    Other Parameters
    ----------------
    title : str
        Heading.
    most : float, optional
        Longest time shown [ms].

    Returns
    -------
    Path
        `path`.

    Examples
    --------
    >>> import tempfile
    >>> from twinheart.cell import get_model, pace_cell
    >>> from twinheart.report import write_action_potential
    >>> beat = pace_cell(get_model("mitchell-schaeffer"), bcl=500.0, dt=0.1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_action_potential(f"{folder}/ap.svg", beat.t, beat.vm).name
    'ap.svg'
    """
    shown = np.asarray(t) - np.asarray(t)[0]
    kept = shown <= (np.inf if most is None else most)
    rows = [("V$_m$ [mV]", np.asarray(vm))]
    if ca_i is not None:
        rows.append(("Ca$_i$ [\u00b5M]", 1e3 * np.asarray(ca_i)))
    fig, axes = _panels(len(rows), title)
    for axis, (label, values), colour in zip(axes, rows, _COLOURS, strict=False):
        axis.plot(shown[kept], values[kept], color=colour, linewidth=1.2)
        axis.set_ylabel(label, fontsize=9)
        axis.set_xlim(0.0, shown[kept][-1])
    axes[-1].set_xlabel("time [ms]", fontsize=9)
    return save(fig, path)


def write_restitution(
    path: str | Path,
    curves: Mapping[str, tuple[Any, Any]],
    *,
    velocities: Mapping[str, tuple[Any, Any]] | None = None,
    title: str = "Restitution",
) -> Path:
    """Draw duration over diastolic interval and, if given, velocity over it.

    Parameters
    ----------
    path : str or Path
        PNG, SVG or PDF to write.
    curves : mapping of str to (di, apd)
        Diastolic intervals and APD90 [ms] of each protocol; NaN is left out.

    Other Parameters
    ----------------
    velocities : mapping of str to (di, cv), optional
        Diastolic intervals [ms] and conduction velocities [m/s].
    title : str
        Heading.

    Returns
    -------
    Path
        `path`.

    Examples
    --------
    >>> import tempfile
    >>> from twinheart.report import write_restitution
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_restitution(f"{folder}/r.svg", {"S1-S2": ([50.0, 90.0], [210.0, 250.0])}).name
    'r.svg'
    """
    rows = [("APD90 [ms]", curves)]
    if velocities:
        rows.append(("CV [m/s]", velocities))
    fig, axes = _panels(len(rows), title)
    for axis, (label, drawn) in zip(axes, rows, strict=True):
        for (name, (di, value)), colour in zip(drawn.items(), _COLOURS, strict=False):
            order = np.argsort(di)
            x, y = np.asarray(di, float)[order], np.asarray(value, float)[order]
            axis.plot(x, y, "o-", color=colour, linewidth=1.2, markersize=3, label=name)
        axis.set_ylabel(label, fontsize=9)
        axis.set_xlim(left=0.0)
        if len(drawn) > 1:
            axis.legend(frameon=False, fontsize=8)
    axes[-1].set_xlabel("diastolic interval [ms]", fontsize=9)
    return save(fig, path)


def _panels(rows: int, title: str) -> "tuple[Any, list[Axes]]":
    height = _HEAD + rows * _ROW + _FOOT
    fig = figure(_WIDTH, height)
    axes: list[Axes] = []
    for k in range(rows):
        bottom = (_FOOT + (rows - 1 - k) * _ROW + 3.0) / height
        place = (_LEFT / _WIDTH, bottom, 1.0 - (_LEFT + 4.0) / _WIDTH, (_ROW - 9.0) / height)
        axis = fig.add_axes(place)
        axis.tick_params(labelsize=8, colors=INK)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.5)
        axes.append(axis)
    fig.text(4.0 / _WIDTH, 1 - 7.0 / height, title, fontsize=11, weight="bold", color=INK)
    notice = "research software, not for clinical use"
    fig.text(1 - 4.0 / _WIDTH, 1 - 7.0 / height, notice, fontsize=6, ha="right", color=MUTED)
    return fig, axes
