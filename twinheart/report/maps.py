"""Maps on the heart: activation with isochrones, repolarisation, action potential duration."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from twinheart.anatomy import Heart
from twinheart.errors import InputError
from twinheart.report.scene import CUT, VIEWS, Scene
from twinheart.report.style import INK, MISSING, MUTED, colour_map, figure, levels, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {
    "lat": "Activation time",
    "repol": "Repolarisation time",
    "apd90": "Action potential duration (APD90)",
}
# Repolarisation of uniform tissue differs by a few ms from node to node: no structure to draw.
_LEAST_STEP = {"repol": 5.0, "apd90": 5.0}
DISCLAIMER = "research software, not for clinical use"

_WIDTH, _HEIGHT, _DPI = 250.0, 168.0, 150.0  # mm, mm, dots an inch
_VIEW = 0.29  # of the width
_PIXELS = round(_VIEW * _WIDTH / 25.4 * _DPI)


def write_map(
    path: str | Path,
    heart: Heart | Scene,
    values: Float[np.ndarray, "node"],
    *,
    quantity: str = "lat",
    title: str | None = None,
    step: float | None = None,
) -> Path:
    """Draw a map on the heart from six sides, with isolines and a labelled colour scale.

    Parameters
    ----------
    path : str or Path
        PNG, SVG or PDF to write.
    heart : Heart or Scene
        What to draw on; pass a `Scene` to draw several maps of one heart.
    values : (node,) array
        Times [ms]; NaN (never activated) is drawn grey.

    Other Parameters
    ----------------
    quantity : str
        ``lat``, ``repol`` or ``apd90``: title and colours.
    title : str or None
        Other title.
    step : float or None
        Between isolines [ms]; None: 5 or 10 ms, or the next round number for wide ranges.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InputError
        If there is not one value per node.
    OutputError
        If the file cannot be written.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.report import write_map
    >>> heart = Heart(slab((8.0, 4.0, 4.0), 1.0))
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "lat.png"
    >>> write_map(file, heart, heart.mesh.points[:, 0] / 0.6).name
    'lat.png'
    """
    scene = heart if isinstance(heart, Scene) else Scene(heart)
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (scene.n_nodes,):
        raise InputError(
            f"the map has values of shape {values.shape}; expected one for each of the "
            f"{scene.n_nodes} nodes."
        )
    limits = levels(values, step=step, least=_LEAST_STEP.get(quantity, 1.0))
    colours = colour_map(quantity)
    fig = figure(_WIDTH, _HEIGHT)
    for index, view in enumerate(VIEWS):
        picture = scene.draw(values, view, colours=colours, limits=limits, size=_PIXELS)
        _place(fig, picture, index, view_label(view, scene))
    _colour_scale(fig, colours, limits, bool(np.isnan(values).any()))
    _length_bar(fig, scene.height_mm)
    finite = np.isfinite(values)
    spread = f"{np.nanmin(values):.0f} to {np.nanmax(values):.0f} ms" if finite.any() else "no node"
    known = f"{100 * finite.mean():.3g} % of the nodes"
    fig.text(
        0.02, 0.965, title or TITLES.get(quantity, quantity), size=15, weight="bold", color=INK
    )
    fig.text(
        0.02,
        0.932,
        f"{spread}, {known}; isolines every {limits[1] - limits[0]:g} ms",
        size=9.5,
        color=MUTED,
    )
    fig.text(0.98, 0.967, DISCLAIMER, size=8, color=MUTED, ha="right")
    return save(fig, path, dpi=_DPI)


def write_classes(
    path: str | Path,
    heart: Heart | Scene,
    values: Int[np.ndarray, "node"],
    colours: Mapping[str, str],
    *,
    title: str,
    note: str = "",
) -> Path:
    """Draw what kind of tissue each part of the heart is, from six sides, with a legend.

    Parameters
    ----------
    path : str or Path
        PNG, SVG or PDF to write.
    heart : Heart or Scene
        What to draw on.
    values : (node,) int array
        For each node the place of its class in `colours`.
    colours : mapping of str to str
        Name and colour of each class.
    title, note : str
        Heading and a line below it.

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
    >>> import numpy as np, pathlib, tempfile
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.report.maps import write_classes
    >>> heart = Heart(slab((8.0, 4.0, 4.0), 1.0))
    >>> half = (heart.mesh.points[:, 0] > 4).astype(int)
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "classes.png"
    >>> write_classes(file, heart, half, {"left": "#d9b08c", "right": "#2a5b8a"}, title="A").name
    'classes.png'
    """
    scene = heart if isinstance(heart, Scene) else Scene(heart)
    fig = figure(_WIDTH, _HEIGHT)
    for index, view in enumerate(VIEWS):
        picture = scene.draw_classes(
            values.astype(int), view, colours=list(colours.values()), size=_PIXELS
        )
        _place(fig, picture, index, view_label(view, scene))
    for index, (name, colour) in enumerate(colours.items()):
        swatch = fig.add_axes((0.895, 0.72 - 0.045 * index, 0.018, 0.026))
        swatch.set_facecolor(colour)
        swatch.set_xticks([])
        swatch.set_yticks([])
        fig.text(0.919, 0.733 - 0.045 * index, name, size=9, color=INK, va="center")
    _length_bar(fig, scene.height_mm)
    fig.text(0.02, 0.965, title, size=15, weight="bold", color=INK)
    fig.text(0.02, 0.932, note, size=9.5, color=MUTED)
    fig.text(0.98, 0.967, DISCLAIMER, size=8, color=MUTED, ha="right")
    return save(fig, path, dpi=_DPI)


def view_label(view: str, scene: Scene) -> str:
    """What to write under a view; without a right ventricle nobody can say which side is which."""
    labels = {"base": "from the base, front below", CUT: "cut open, posterior half"}
    if scene.frame.rv_known:
        return labels.get(view, view)
    sides = [name for name in VIEWS if name not in labels]
    return f"side {sides.index(view) + 1}" if view in sides else labels[view].split(",")[0]


def _place(fig: "Figure", picture: np.ndarray, index: int, label: str) -> None:
    column, row = index % 3, index // 3
    height = _VIEW * _WIDTH / _HEIGHT
    axes = fig.add_axes((0.01 + 0.295 * column, 0.485 - 0.46 * row, _VIEW, height))
    axes.imshow(picture, interpolation="antialiased")
    axes.set_axis_off()
    axes.text(
        0.5, 0.0, label, transform=axes.transAxes, ha="center", va="bottom", size=9.5, color=INK
    )


def _colour_scale(fig: "Figure", colours, limits: np.ndarray, missing: bool) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm

    axes = fig.add_axes((0.915, 0.14, 0.018, 0.70))
    norm = BoundaryNorm(limits, colours.N)
    bar = fig.colorbar(ScalarMappable(norm, colours), cax=axes, spacing="proportional")
    every = max(1, int(np.ceil((len(limits) - 1) / 12)))
    bar.set_ticks(limits[::every].tolist())
    bar.ax.tick_params(labelsize=9, color=INK, labelcolor=INK, length=3)
    bar.ax.tick_params(which="minor", length=0)
    bar.ax.hlines(limits[1:-1], 0, 1, transform=bar.ax.get_yaxis_transform(), color=INK, lw=0.6)
    bar.outline.set_edgecolor(INK)  # type: ignore[operator]
    bar.ax.set_title("ms", size=9.5, color=INK, pad=8)
    if missing:
        swatch = fig.add_axes((0.915, 0.095, 0.018, 0.022))
        swatch.set_facecolor(MISSING)
        swatch.set_xticks([])
        swatch.set_yticks([])
        fig.text(0.939, 0.106, "none", size=9, color=INK, va="center")


def _length_bar(fig: "Figure", field_mm: float) -> None:
    nice = np.array([0.5, 1, 2, 5, 10, 20, 50, 100])
    length = float(nice[nice <= 0.3 * field_mm][-1]) if field_mm > 2 else field_mm / 4
    width = _VIEW * length / field_mm
    fig.add_artist(_line([0.02, 0.02 + width], [0.028, 0.028]))
    fig.text(0.02 + width / 2, 0.011, f"{length:g} mm", size=8, color=INK, ha="center")


def _line(x: list[float], y: list[float]):
    from matplotlib.lines import Line2D

    return Line2D(x, y, color=INK, lw=2, solid_capstyle="butt")
