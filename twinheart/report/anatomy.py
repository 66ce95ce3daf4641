"""The page of `twinheart anatomy`: fibre streamlines, isolines of the coordinates, AHA bullseye."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import KDTree

from twinheart.anatomy import Coordinates, Heart
from twinheart.anatomy.aha import SEGMENTS
from twinheart.mesh.quality import boundary_triangles, mean_edge
from twinheart.report.html import data_uri, write_page
from twinheart.report.maps import DISCLAIMER
from twinheart.report.scene import CUT, Scene
from twinheart.report.style import INK, MUTED, figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MUSCLE = "#f0e0d6"
_SIDES = ("anterior", "posterior", CUT)
_DEEP_SIDES = ("base", CUT)  # all of the epicardium has one depth
_PIXELS = 520
_BANDS = {"tm": 5, "ab": 10, "rt": 12}
_SEEDS, _STEPS = 1100, 26  # streamlines, and steps of one edge in each direction
_FACING = 0.25  # cosine: streamlines on a surface seen more from its edge are left out

_TEXTS = {
    "ab": "ab: height, 0 at the apex to 1 at the base; a line each tenth.",
    "rt": "rt: turns, from 0 behind along the free wall to 2/3 in front and through the septum to "
    "1; a line each twelfth, all of them at the start.",
    "tm": "tm: depth, 0 on the endocardium, 1 on the epicardium and in the middle of the septum.",
}


def write_anatomy_report(
    path: str | Path,
    heart: Heart,
    at: Coordinates,
    segment_ml: Sequence[float],
    figures: Mapping[str, str],
    notes: Sequence[str] = (),
) -> Path:
    """Write one HTML page about a heart's anatomy; it opens offline and runs no script.

    Parameters
    ----------
    path : str or Path
        The page.
    heart : Heart
        With fibres.
    at : Coordinates
        Of its nodes.
    segment_ml : sequence of 17 float
        Muscle in each AHA segment of the left ventricle [ml].
    figures : mapping
        Key figures, as text, by their labels.
    notes : sequence of str
        What was assumed; no name of a patient.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        pictures = list(_pictures(Path(folder), heart, at, segment_ml))
    return write_page(
        Path(path),
        "anatomy.html.j2",
        figures=[{"label": label, "value": value} for label, value in figures.items()],
        notes=list(notes),
        pictures=pictures,
    )


def _pictures(
    folder: Path, heart: Heart, at: Coordinates, segment_ml: Sequence[float]
) -> Iterator[dict[str, str]]:
    scene = Scene(heart)
    file = _fibre_picture(folder / "fibres.png", scene, heart)
    text = (
        "Streamlines of the fibres on the surfaces. Blue runs to the right-handed side (as on the "
        "endocardium), red to the left-handed (as on the epicardium)."
    )
    yield {"key": "fibres", "title": "Fibres", "uri": data_uri(file), "caption": text}
    file = _coordinate_picture(folder / "coordinates.png", scene, at)
    text = " ".join(_TEXTS.values())
    yield {"key": "coordinates", "title": "Coordinates", "uri": data_uri(file), "caption": text}
    file = write_bullseye(folder / "aha.png", segment_ml, "Segments: number and muscle (ml)")
    text = "Muscle in each of the 17 segments of the left ventricle, apex in the middle."
    yield {"key": "aha", "title": "AHA segments", "uri": data_uri(file), "caption": text}


def _coordinate_picture(path: Path, scene: Scene, at: Coordinates) -> Path:
    import matplotlib

    fig = figure(240.0, 240.0)
    shown = {"ab": (at.ab, "viridis"), "rt": (at.rt, "twilight"), "tm": (at.tm, "cividis")}
    for row, (name, (values, colours)) in enumerate(shown.items()):
        limits = np.linspace(0.0, 1.0, _BANDS[name] + 1)
        for column, view in enumerate(_DEEP_SIDES if name == "tm" else _SIDES):
            axes = fig.add_axes((0.01 + 0.33 * column, 0.64 - 0.31 * row, 0.32, 0.30))
            picture = scene.draw(
                values, view, colours=matplotlib.colormaps[colours], limits=limits, size=_PIXELS
            )
            axes.imshow(picture)
            axes.set_axis_off()
            if column == 0:
                axes.text(4, 30, name, size=14, weight="bold", color=INK)
            if row != 1:
                axes.set_title(view, size=10, color=INK, pad=2)
    fig.text(0.98, 0.985, DISCLAIMER, size=8, color=MUTED, ha="right")
    return save(fig, path, dpi=130.0)


def _fibre_picture(path: Path, scene: Scene, heart: Heart) -> Path:
    from matplotlib.colors import ListedColormap

    fig = figure(240.0, 92.0)
    lines, outwards, inner, helix = _streamlines(scene, heart)
    pale = ListedColormap([_MUSCLE])
    flat = np.zeros(scene.n_nodes)
    for column, view in enumerate(_SIDES):
        axes = fig.add_axes((0.01 + 0.33 * column, 0.02, 0.32, 0.86))
        picture = scene.draw(flat, view, colours=pale, limits=np.array([-1.0, 1.0]), size=_PIXELS)
        half = scene.height_mm / 2
        axes.imshow(picture, extent=(-half, half, -half, half))
        axes.set_axis_off()
        axes.set_title(view, size=10, color=INK, pad=2)
        _draw_lines(axes, scene, view, lines, outwards, inner, helix)
    fig.text(0.98, 0.965, DISCLAIMER, size=8, color=MUTED, ha="right")
    return save(fig, path, dpi=150.0)


def _draw_lines(axes: "Axes", scene: Scene, view: str, lines, outwards, inner, helix) -> None:
    from matplotlib.collections import LineCollection

    places, turn = scene.seen_from(lines.reshape(-1, 3), view)
    facing = (outwards @ turn[2] > _FACING) & (inner == (view == CUT))
    if view == CUT:  # not what the cut takes away
        facing &= (lines - scene.frame.centre) @ scene.frame.anterior < 0
    places = places.reshape(*lines.shape[:2], 3)[..., :2]
    drawn = facing[:, 1:] & facing[:, :-1]
    segments = np.stack([places[:, :-1], places[:, 1:]], axis=2)[drawn]
    axes.add_collection(
        LineCollection(
            list(segments), array=helix[:, :-1][drawn], cmap="coolwarm_r", clim=(-80, 80), lw=0.7
        )
    )


def _streamlines(scene: Scene, heart: Heart) -> tuple[np.ndarray, ...]:
    """Lines (line, step, 3); there: normal of the surface, whether endocardium, helix angle."""
    mesh, f0 = heart.mesh, heart.f0
    assert f0 is not None
    triangles = boundary_triangles(mesh.tets)
    corner = mesh.points[triangles]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    area = np.linalg.norm(normal, axis=1)
    normal /= area[:, None]
    middle = corner.mean(axis=1)
    surface = KDTree(middle)
    inside = KDTree(mesh.points[mesh.tets].mean(axis=1))
    step = mean_edge(mesh) * 0.7
    seeds = middle[np.random.default_rng(0).choice(len(middle), _SEEDS, p=area / area.sum())]
    ways = [[seeds], [seeds]]
    for way, sign in zip(ways, (1.0, -1.0), strict=True):
        heading = sign * f0[inside.query(seeds)[1]]
        for _ in range(_STEPS):
            fibre = f0[inside.query(way[-1])[1]]
            fibre = fibre * np.where(np.einsum("pi,pi->p", fibre, heading) < 0, -1.0, 1.0)[:, None]
            # a line stays in the layer it started in: back onto the surface after each step
            ahead = way[-1] + step * fibre
            foot = surface.query(ahead)[1]
            off = np.einsum("pi,pi->p", ahead - middle[foot], normal[foot])
            way.append(ahead - off[:, None] * normal[foot])
            heading = fibre
    lines = np.stack([*ways[1][:0:-1], *ways[0]], axis=1)
    flat = lines.reshape(-1, 3)
    outwards = normal[surface.query(flat)[1]]
    fibre = f0[inside.query(flat)[1]]
    around = np.cross(scene.frame.base, outwards)
    up = np.einsum("pi,i->p", fibre, scene.frame.base)
    along = np.einsum("pi,pi->p", fibre, around)
    # on the endocardium the normal points inwards: seen from the cavity the sense is the same
    inner = np.isin(_class_at(heart, flat), (3, 4))
    helix = np.degrees(np.arctan2(up, np.abs(along))) * np.sign(along) * np.where(inner, -1, 1)
    shape = lines.shape[:2]
    return lines, outwards.reshape(*shape, 3), inner.reshape(shape), helix.reshape(shape)


def _class_at(heart: Heart, points: np.ndarray) -> np.ndarray:
    classes = heart.mesh.point_fields["surf_class"]
    tagged = np.flatnonzero(classes > 0)
    return classes[tagged[KDTree(heart.mesh.points[tagged]).query(points)[1]]]


def write_bullseye(path: Path, values: Sequence[float], title: str) -> Path:
    """Draw one number for each of the 17 segments of the left ventricle.

    Parameters
    ----------
    path : Path
        PNG, SVG or PDF to write.
    values : sequence of float
        For segments 1 to 17.
    title : str
        What the numbers are, with their unit.

    Returns
    -------
    Path
        `path`.
    """
    import matplotlib

    fig = figure(150.0, 130.0)
    axes = fig.add_axes((0.05, 0.04, 0.9, 0.86), projection="polar")
    axes.set_axis_off()
    whole = 360.0
    # rings from outside; the first segment of each is in front (at the top), then anticlockwise
    rings = ((0, 6, 3.0, 60.0), (6, 6, 2.0, 60.0), (12, 4, 1.0, 45.0), (16, 1, 0.0, 0.0))
    scale = matplotlib.colormaps["YlGnBu"]
    top = max(*values, 1e-9)
    for first, count, radius, start in rings:
        for k in range(count):
            width = whole / count
            left = np.radians(start + k * width)
            value = values[first + k]
            axes.bar(
                left, 1.0, np.radians(width), radius, align="edge",
                color=scale(0.1 + 0.75 * value / top), edgecolor="white", lw=2 if count > 1 else 0,
            )  # fmt: skip
            place = (left + np.radians(width / 2), radius + 0.5) if count > 1 else (0.0, 0.0)
            ink = "white" if value > 0.6 * top else INK
            text = f"{first + k + 1}\n{value:.1f}"
            axes.text(*place, text, ha="center", va="center", size=9, color=ink)
    for angle, word in ((90, "anterior"), (180, "septal"), (270, "inferior"), (0, "lateral")):
        axes.text(np.radians(angle), 4.35, word, ha="center", va="center", size=10, color=MUTED,
                  rotation={180: 90, 0: -90}.get(angle, 0))  # fmt: skip
    assert len(values) == len(SEGMENTS)
    fig.text(0.02, 0.95, title, size=12, weight="bold", color=INK)
    fig.text(0.98, 0.015, DISCLAIMER, size=8, color=MUTED, ha="right")
    return save(fig, path, dpi=130.0)
