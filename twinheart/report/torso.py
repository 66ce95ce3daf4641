"""A heart in its torso with the electrodes on the skin, and two sections through the mesh."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from twinheart.anatomy.body import BodyFrame
from twinheart.anatomy.torso import TorsoRegion
from twinheart.ecg import Electrodes
from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.quality import TET_EDGES, boundary_triangles
from twinheart.report.maps import DISCLAIMER
from twinheart.report.raster import corner_normals, rasterise
from twinheart.report.style import ACCENT, INK, MUTED, figure, rgb, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {
    TorsoRegion.TORSO: "#efe3d3",
    TorsoRegion.LUNGS: "#b9d3e0",
    TorsoRegion.BLOOD: "#c96f6f",
    TorsoRegion.HEART: ACCENT,
}
_SKIN, _HEART = "#d9b08c", "#b0355f"
_VEIL = 0.45  # how much of the heart the skin in front of it covers
_BEHIND = 0.12  # of a view: electrodes farther behind the middle of the body are not drawn
_WIDTH, _HEIGHT, _PIXELS = 250.0, 225.0, 640  # mm, mm, side of a view
# rows of (left, front, head): to the right of the picture, up, towards the eye
_VIEWS = {
    "from the front": ((0, 1.0), (2, 1.0), (1, 1.0)),
    "from the left": ((1, -1.0), (2, 1.0), (0, 1.0)),
}
# what lies across each section, and what runs to the right and up in it
_SECTIONS = {
    "horizontal section, seen from the feet": (2, (0, 1.0), (1, 1.0)),
    "frontal section": (1, (0, 1.0), (2, 1.0)),
}


def write_torso_picture(
    path: str | Path,
    heart: TetMesh,
    skin: TriMesh,
    frame: BodyFrame,
    electrodes: Electrodes,
    torso: TetMesh,
    *,
    title: str = "Heart, torso and electrodes",
) -> Path:
    """Draw the heart in its torso from the front and from the left, and two sections of the mesh.

    Parameters
    ----------
    path : str or Path
        PNG, SVG or PDF to write.
    heart : TetMesh
        Ventricles [mm].
    skin, frame : TriMesh, BodyFrame
        The body.
    electrodes : Electrodes
        On the skin.
    torso : TetMesh
        Tetrahedra with the cell field ``region``.
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
    fig = figure(_WIDTH, _HEIGHT)
    body = frame.to_body(skin.points)
    middle = (body.max(axis=0) + body.min(axis=0)) / 2
    extent = 1.16 * float(np.ptp(body, axis=0).max())
    for index, (name, view) in enumerate(_VIEWS.items()):
        axes = fig.add_axes(_box(index, 0))
        _draw_view(axes, heart, skin, frame, electrodes, view, middle, extent)
        axes.set_title(name, size=10, color=INK, pad=2)
    inside = frame.to_body(heart.points).mean(axis=0)
    for index, (name, (across, right, up)) in enumerate(_SECTIONS.items()):
        axes = fig.add_axes(_box(index, 1))
        _draw_section(axes, frame.to_body(torso.points), torso, across, inside[across], (right, up))
        axes.set_title(name, size=10, color=INK, pad=2)
    fig.text(0.02, 0.968, title, size=15, weight="bold", color=INK)
    fig.text(0.98, 0.970, DISCLAIMER, size=8, color=MUTED, ha="right")
    found = [tag for tag in TorsoRegion if (torso.cell_fields["region"] == tag).any()]
    for k, tag in enumerate(found):
        fig.text(0.10 + 0.12 * k, 0.018, "\u25a0", size=13, color=_COLOURS[tag], va="center")
        fig.text(0.125 + 0.12 * k, 0.018, tag.name.lower(), size=9, color=INK, va="center")
    return save(fig, path, dpi=130.0)


def _box(column: int, row: int) -> tuple[float, float, float, float]:
    return (0.03 + 0.48 * column, 0.51 - 0.47 * row, 0.46, 0.42)


def _draw_view(
    axes: "Axes",
    heart: TetMesh,
    skin: TriMesh,
    frame: BodyFrame,
    electrodes: Electrodes,
    view: Sequence[tuple[int, float]],
    middle: np.ndarray,
    extent: float,
) -> None:
    turn = np.stack([sign * frame.axes[k] for k, sign in view])
    centre = frame.from_body(middle[None])[0]
    scale = _PIXELS / extent
    picture = np.ones((_PIXELS * _PIXELS, 3))
    for mesh, triangles, colour, cover in (
        (heart, boundary_triangles(heart.tets), _HEART, 1.0),
        (skin, skin.triangles, _SKIN, _VEIL),
    ):
        projected = (mesh.points - centre) @ turn.T * scale
        projected[:, :2] += _PIXELS / 2
        seen = rasterise(projected[triangles], _PIXELS)
        normals = corner_normals(mesh.points, triangles)[seen.triangle]
        towards = np.einsum("pk,pkd,d->p", seen.weights, normals, turn[2])
        shade = 0.45 + 0.55 * np.clip(towards, 0, 1)
        picture[seen.pixel] += cover * (shade[:, None] * rgb(colour) - picture[seen.pixel])
    half = extent / 2
    axes.imshow(picture.reshape(_PIXELS, _PIXELS, 3).clip(0, 1), extent=(-half, half, -half, half))
    at = (electrodes.positions - centre) @ turn.T
    for name, (x, y, depth) in zip(electrodes.names, at, strict=True):
        if depth < -_BEHIND * extent:
            continue
        axes.plot(x, y, "o", color=INK, markersize=4.5)
        axes.annotate(
            name, (x, y), (4, 4), textcoords="offset points", size=8.5, color=INK, weight="bold"
        )
    axes.set_axis_off()


def _draw_section(
    axes: "Axes",
    points: np.ndarray,
    torso: TetMesh,
    across: int,
    level: float,
    plane: tuple[tuple[int, float], tuple[int, float]],
) -> None:
    """The polygons in which a plane cuts the tetrahedra, coloured by region."""
    from matplotlib.collections import PolyCollection

    height = points[:, across] - level
    crossed = (height[torso.tets].min(axis=1) < 0) & (height[torso.tets].max(axis=1) > 0)
    ends = torso.tets[crossed][:, np.array(TET_EDGES)]
    low, high = height[ends[..., 0]], height[ends[..., 1]]
    cut = (low < 0) != (high < 0)
    share = np.where(cut, low / np.where(cut, low - high, 1.0), 0.0)[..., None]
    flat = points[:, [k for k, _ in plane]] * [sign for _, sign in plane]
    corner = flat[ends[..., 0]] + share * (flat[ends[..., 1]] - flat[ends[..., 0]])
    middle = (corner * cut[..., None]).sum(axis=1) / cut.sum(axis=1)[:, None]
    angle = np.arctan2(*(corner - middle[:, None]).transpose(2, 0, 1)[::-1])
    order = np.argsort(np.where(cut, angle, np.inf), axis=1)[:, :4]
    corner = np.take_along_axis(corner, order[..., None], axis=1)
    three = cut.sum(axis=1) == 3
    corner[three, 3] = corner[three, 0]
    region = torso.cell_fields["region"][crossed]
    colours = [_COLOURS[TorsoRegion(tag)] for tag in region]
    polygons = list(corner)
    axes.add_collection(
        PolyCollection(polygons, facecolors=colours, edgecolors=INK, linewidths=0.12)
    )
    axes.set_aspect("equal")
    axes.autoscale_view()
    axes.set_axis_off()
