"""Potential on the skin of a torso, seen from the front, the left, the back and the right."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from twinheart.anatomy.body import BodyFrame
from twinheart.ecg import Electrodes
from twinheart.mesh import TriMesh
from twinheart.report.maps import DISCLAIMER
from twinheart.report.raster import rasterise
from twinheart.report.style import INK, MUTED, figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT, _PIXELS = 280.0, 95.0, 480  # mm, mm, side of a view
_LINES = 13  # shades between the most negative and the most positive value
# rows of (left, front, head): to the right of the picture, up, towards the eye
_VIEWS = {
    "from the front": ((0, 1.0), (2, 1.0), (1, 1.0)),
    "from the left": ((1, -1.0), (2, 1.0), (0, 1.0)),
    "from the back": ((0, -1.0), (2, 1.0), (1, -1.0)),
    "from the right": ((1, 1.0), (2, 1.0), (0, -1.0)),
}


def write_body_map(
    path: str | Path,
    skin: TriMesh,
    frame: BodyFrame,
    potential: Float[np.ndarray, "node"],
    *,
    electrodes: Electrodes | None = None,
    title: str = "Potential on the body surface",
) -> Path:
    """Draw the potential on the skin, red where it is positive.

    Parameters
    ----------
    path : str or Path
        PNG, SVG or PDF to write.
    skin, frame : TriMesh, BodyFrame
        The body.
    potential : (node,) array
        At the nodes of the skin [mV].
    electrodes : Electrodes, optional
        Marked where they are seen.
    title : str
        Heading.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm

    fig = figure(_WIDTH, _HEIGHT)
    most = max(float(np.abs(potential).max()), 1e-12)
    shades = BoundaryNorm(np.linspace(-most, most, _LINES + 1), 256)
    colours = ScalarMappable(shades, colormaps["RdBu_r"])
    for index, (name, view) in enumerate(_VIEWS.items()):
        axes = fig.add_axes((0.01 + 0.225 * index, 0.06, 0.22, 0.72))
        _draw(axes, skin, frame, potential, colours, view, electrodes)
        axes.set_title(name, size=9, color=INK, pad=2)
    bar = fig.colorbar(colours, cax=fig.add_axes((0.925, 0.12, 0.014, 0.6)))
    bar.set_label("mV", size=8)
    bar.ax.tick_params(labelsize=7)
    fig.text(0.01, 0.92, title, size=13, weight="bold", color=INK)
    fig.text(0.99, 0.93, DISCLAIMER, size=7, color=MUTED, ha="right")
    return save(fig, path, dpi=130.0)


def _draw(
    axes: "Axes",
    skin: TriMesh,
    frame: BodyFrame,
    potential: np.ndarray,
    colours,
    view: Sequence[tuple[int, float]],
    electrodes: Electrodes | None,
) -> None:
    turn = np.stack([sign * frame.axes[k] for k, sign in view])
    seen_at = (skin.points - frame.centre) @ turn.T
    middle = (seen_at.max(axis=0) + seen_at.min(axis=0)) / 2
    extent = 1.08 * float(np.ptp(frame.to_body(skin.points), axis=0).max())
    projected = (seen_at - middle) * (_PIXELS / extent)
    projected[:, :2] += _PIXELS / 2
    seen = rasterise(projected[skin.triangles], _PIXELS)
    value = np.einsum("pk,pk->p", seen.weights, potential[skin.triangles[seen.triangle]])
    picture = np.ones((_PIXELS * _PIXELS, 3))
    picture[seen.pixel] = colours.to_rgba(value)[:, :3]
    half = extent / 2
    axes.imshow(picture.reshape(_PIXELS, _PIXELS, 3), extent=(-half, half, -half, half))
    if electrodes is not None:
        at = (electrodes.positions - frame.centre) @ turn.T - middle
        for name, (x, y, depth) in zip(electrodes.names, at, strict=True):
            if depth > -0.02 * extent:
                axes.plot(x, y, "o", color=INK, markersize=2.5)
                axes.annotate(name, (x, y), (3, 3), textcoords="offset points", size=6.5, color=INK)
    axes.set_axis_off()
