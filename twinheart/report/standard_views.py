"""A heart in the views of the catheter laboratory: AP, PA, LAO, RAO, from left, right and apex.

Angles are those of the image intensifier, turned about the patient's long axis: 0 is in front of
the chest (AP), LAO degrees go to the patient's left, RAO degrees to the right, head up. The
patient's axes are given, such as those of a torso (`twinheart.anatomy.body.BodyFrame.axes`), or
those of an average patient around this heart (`HeartFrame.from_patient`). The apical view looks
along the heart's own long axis, from the apex to the base, with its front up.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from twinheart.anatomy import Heart
from twinheart.errors import InputError
from twinheart.report.maps import DISCLAIMER
from twinheart.report.scene import Scene, View
from twinheart.report.style import INK, MISSING, MUTED, colour_map, figure, levels, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = ("AP", "PA", "LAO", "RAO", "LL", "RL", "apical")
LAO, RAO = 45.0, 30.0  # degrees, in common use; changeable
_WIDTH, _HEIGHT, _DPI = 260.0, 150.0, 150.0  # mm, mm, dots an inch
_SIDE = 62.0  # mm, of a view
_PIXELS = round(_SIDE / 25.4 * _DPI)
_SLACK = 2.0  # mm under the surface that a marked place may lie and still be seen


class Mark(NamedTuple):
    """Places to be marked: full where they are seen, hollow behind the heart.

    Attributes
    ----------
    points : (point, 3) array
        Positions [mm].
    name : str
        In the legend.
    colour, shape : str
        Of matplotlib.
    """

    points: Float[np.ndarray, "point 3"]
    name: str
    colour: str = INK
    shape: str = "o"


def standard_views(
    scene: Scene,
    *,
    lao: float = LAO,
    rao: float = RAO,
    patient: Float[np.ndarray, "3 3"] | None = None,
) -> dict[str, View]:
    """The standard views of a heart, by their names.

    Parameters
    ----------
    scene : Scene
        The heart.
    lao, rao : float
        Angles [degrees].
    patient : (3, 3) array, optional
        Unit vectors to the patient's left, front and head, one a row, in the coordinates of the
        mesh; by default those of an average patient around this heart.

    Returns
    -------
    dict of str to View
        Keys are `NAMES`.

    Raises
    ------
    InputError
        If an angle is not between 0 and 90 degrees, or the axes are not orthonormal.

    Examples
    --------
    >>> from twinheart.anatomy import demo_heart
    >>> from twinheart.report.scene import Scene
    >>> from twinheart.report.standard_views import standard_views
    >>> list(standard_views(Scene(demo_heart())))
    ['AP', 'PA', 'LAO', 'RAO', 'LL', 'RL', 'apical']
    """
    for name, angle in (("LAO", lao), ("RAO", rao)):
        if not 0 < angle < 90:
            raise InputError(f"{name} is {angle:g} degrees, expected more than 0, less than 90.")
    axes = scene.frame.from_patient(np.eye(3)) if patient is None else np.asarray(patient, float)
    if axes.shape != (3, 3) or not np.allclose(axes @ axes.T, np.eye(3), atol=1e-3):
        raise InputError("the patient's axes (left, front, head) are no three orthogonal vectors.")
    left, front, head = axes
    angles = {"AP": 0.0, "PA": 180.0, "LAO": lao, "RAO": -rao, "LL": 90.0, "RL": -90.0}
    views = {
        name: _view(np.sin(np.radians(a)) * left + np.cos(np.radians(a)) * front, head)
        for name, a in angles.items()
    }
    return views | {"apical": _view(-scene.frame.base, scene.frame.anterior)}


def view_labels(lao: float = LAO, rao: float = RAO) -> dict[str, str]:
    """What to write under each view.

    Examples
    --------
    >>> from twinheart.report.standard_views import view_labels
    >>> view_labels()["RAO"]
    'RAO 30'
    """
    own = {"LAO": f"LAO {lao:g}", "RAO": f"RAO {rao:g}", "LL": "LL (from the left)"}
    return {name: name for name in NAMES} | own | {"RL": "RL (from the right)"}


def write_standard_views(
    path: str | Path,
    heart: Heart | Scene,
    values: Float[np.ndarray, "node"],
    *,
    title: str,
    unit: str = "",
    note: str = "",
    quantity: str = "lat",
    step: float | None = None,
    classes: Mapping[str, str] | None = None,
    marks: tuple[Mark, ...] = (),
    lao: float = LAO,
    rao: float = RAO,
    patient: Float[np.ndarray, "3 3"] | None = None,
) -> Path:
    """Draw a map on a heart in the seven standard views.

    Parameters
    ----------
    path : str or Path
        PNG, SVG or PDF to write.
    heart : Heart or Scene
        What to draw on.
    values : (node,) array
        What is shown; NaN is grey.
    title, unit, note : str
        Heading, unit of the values, and a line below the heading.

    Other Parameters
    ----------------
    quantity : str
        Decides the colours, see `twinheart.report.style.colour_map`.
    step : float, optional
        Between isolines.
    classes : mapping of str to str, optional
        Values are places in this mapping of names to colours.
    marks : tuple of Mark
        Places to be marked.
    lao, rao, patient
        See `standard_views`.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InputError
        If there is not one value per node, or a view makes no sense.
    OutputError
        If the file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from twinheart.anatomy import demo_heart
    >>> from twinheart.report.standard_views import write_standard_views
    >>> heart = demo_heart()
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "height.png"
    >>> write_standard_views(file, heart, heart.mesh.points[:, 2], title="Height", unit="mm").name
    'height.png'
    """
    scene = heart if isinstance(heart, Scene) else Scene(heart)
    views = standard_views(scene, lao=lao, rao=rao, patient=patient)
    paint, bands = _painter(scene, values, quantity, step, classes)
    fig = figure(_WIDTH, _HEIGHT)
    labels = view_labels(lao, rao)
    for index, (name, view) in enumerate(views.items()):
        column, row = index % 4, index // 4
        place = (2 + 64.5 * column, _HEIGHT - 15 - (_SIDE + 5) * (row + 1), _SIDE, _SIDE)
        axes = fig.add_axes(_share(place))
        _draw(axes, scene, view, paint, marks)
        axes.set_title(labels[name], size=9, color=INK, pad=1)
    _legend(fig, bands, unit, bool(np.isnan(values).any()), classes, marks)
    fig.text(0.01, 0.955, title, size=14, weight="bold", color=INK)
    axes_of = "average patient around this heart" if patient is None else "axes as given"
    if not scene.frame.rv_known:
        axes_of = "sides unknown: this shape does not show its right ventricle"
    words = [note, axes_of, "hollow marks are behind the heart" if marks else ""]
    fig.text(0.01, 0.922, "; ".join(word for word in words if word), size=8.5, color=MUTED)
    fig.text(0.99, 0.957, DISCLAIMER, size=8, color=MUTED, ha="right")
    return save(fig, path, dpi=_DPI)


def write_screenshots(
    folder: str | Path,
    heart: Heart | Scene,
    values: Float[np.ndarray, "node"],
    *,
    stem: str = "view",
    size: int = 900,
    quantity: str = "lat",
    step: float | None = None,
    classes: Mapping[str, str] | None = None,
    marks: tuple[Mark, ...] = (),
    lao: float = LAO,
    rao: float = RAO,
    patient: Float[np.ndarray, "3 3"] | None = None,
) -> list[Path]:
    """Write each standard view as a picture of its own, without any text.

    Parameters
    ----------
    folder : str or Path
        Where to write ``<stem>_AP.png`` and so on.
    heart, values, quantity, step, classes, marks, lao, rao, patient
        See `write_standard_views`.
    stem : str
        Begin of the names.
    size : int
        Width and height in pixels.

    Returns
    -------
    list of Path
        In the order of `NAMES`.

    Raises
    ------
    InputError
        If there is not one value per node, or a view makes no sense.
    OutputError
        If a file cannot be written.
    """
    scene = heart if isinstance(heart, Scene) else Scene(heart)
    views = standard_views(scene, lao=lao, rao=rao, patient=patient)
    paint, _ = _painter(scene, values, quantity, step, classes)
    files = []
    for name, view in views.items():
        side = size / _DPI * 25.4
        fig = figure(side, side)
        axes = fig.add_axes((0.0, 0.0, 1.0, 1.0))
        _draw(axes, scene, view, paint, marks, size)
        files.append(save(fig, Path(folder) / f"{stem}_{name}.png", dpi=_DPI))
    return files


def _view(towards: np.ndarray, up: np.ndarray) -> View:
    return View(_triple(towards), _triple(up))


def _triple(vector: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(c) for c in vector)
    return x, y, z


def _share(place: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    left, low, width, height = place
    return left / _WIDTH, low / _HEIGHT, width / _WIDTH, height / _HEIGHT


def _painter(scene: Scene, values, quantity: str, step: float | None, classes):
    """What paints a view, and colours and limits of its bands, None for classes."""
    if np.shape(values) != (scene.n_nodes,):
        raise InputError(
            f"the map has values of shape {np.shape(values)}; expected one for each of the "
            f"{scene.n_nodes} nodes."
        )
    if classes is not None:
        kinds, names = np.asarray(values).astype(int), list(classes.values())
        return partial(scene.draw_classes, kinds, colours=names), None
    values = np.asarray(values, float)
    colours, limits = colour_map(quantity), levels(values, step=step)
    return partial(scene.draw, values, colours=colours, limits=limits), (colours, limits)


def _draw(axes: "Axes", scene: Scene, view: View, paint, marks, size=_PIXELS):
    half = scene.field_mm(view) / 2
    picture = paint(view=view, size=size)
    axes.imshow(picture, extent=(-half, half, -half, half), interpolation="antialiased")
    for mark in marks:
        if not len(mark.points):
            continue
        at, _ = scene.seen_from(mark.points, view)
        behind = scene.hidden(mark.points, view, size=size, slack=_SLACK)
        style: dict[str, Any] = {"s": 34, "marker": mark.shape}
        for colour, width in (("white", 3.0), (mark.colour, 1.2)):  # seen on any map
            rim: dict[str, Any] = {"edgecolors": colour, "linewidths": width, **style}
            axes.scatter(*at[behind, :2].T, facecolors="none", **rim)
        axes.scatter(*at[~behind, :2].T, color=mark.colour, edgecolors="white", **style)
    axes.set_xlim(-half, half)
    axes.set_ylim(-half, half)
    axes.set_axis_off()


def _legend(fig, bands, unit: str, missing: bool, classes, marks) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=c, label=name) for name, c in (classes or {}).items()]
    if missing:
        handles.append(Patch(color=MISSING, label="no value"))
    for mark in marks:
        style: dict[str, Any] = {"marker": mark.shape, "color": mark.colour, "ls": "none"}
        handles.append(Line2D([], [], label=mark.name, **style))
    if bands is not None:
        colours, limits = bands
        bar_axes = fig.add_axes(_share((206.0, 14.0, 4.0, 48.0)))
        norm = BoundaryNorm(limits, colours.N)
        bar = fig.colorbar(ScalarMappable(norm, colours), cax=bar_axes, spacing="proportional")
        every = max(1, int(np.ceil((len(limits) - 1) / 8)))
        bar.set_ticks([round(float(x), 6) for x in limits[::every]])
        bar.ax.tick_params(labelsize=8, color=INK, labelcolor=INK, length=2.5)
        bar.ax.tick_params(which="minor", length=0)
        bar.ax.set_title(unit, size=8.5, color=INK, pad=5)
    if handles:
        fig.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(222 / _WIDTH, 12 / _HEIGHT),
            fontsize=7.5, frameon=False,
        )  # fmt: skip
