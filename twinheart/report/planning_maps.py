"""Pictures of a plan: circuits drawn on scar, lesions, and how uncertain the figures are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from twinheart.fem import fullest_kind
from twinheart.imaging.enhancement import BORDER, CORE
from twinheart.mesh import TetMesh
from twinheart.report.maps import DISCLAIMER, view_label, write_classes
from twinheart.report.planning_words import unit_as_read
from twinheart.report.scar import BORDER_ZONE, DENSE, MUSCLE
from twinheart.report.scene import CUT, VIEWS, Scene
from twinheart.report.style import INK, MUTED, figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LESION = "#1f6fb4"
# Told apart by all colour-blind readers on the colours of scar (after Okabe and Ito).
PATHS = ("#0072b2", "#009e73", "#000000", "#56b4e9", "#cc79a7")
_SIDES = tuple(view for view in VIEWS if view != CUT)
_PIXELS = 480
_LABEL = 34  # letters of a line beside a scale
_MOST = len(PATHS)


def tissue_kinds(
    mesh: TetMesh, lesion: Int[np.ndarray, "tet"] | None = None
) -> Int[np.ndarray, "node"]:
    """Kind of tissue that fills most of each node's surroundings.

    Parameters
    ----------
    mesh : TetMesh
        With the cell field ``scar``, where it has scar.
    lesion : (tet,) int array, optional
        Positive where it is burnt.

    Returns
    -------
    (node,) int array
        0 healthy, 1 border zone, 2 core, 3 lesion.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.report.planning_maps import tissue_kinds
    >>> mesh = slab((4.0, 2.0, 2.0), 1.0)
    >>> burnt = (mesh.points[mesh.tets].mean(axis=1)[:, 0] < 2).astype(int)
    >>> sorted(set(tissue_kinds(mesh, burnt).tolist()))
    [0, 3]
    """
    scar = np.asarray(mesh.cell_fields.get("scar", np.zeros(mesh.n_tets, dtype=np.int32)))
    kinds = np.select([scar == CORE, scar == BORDER], [2, 1], 0)
    if lesion is not None:
        kinds = np.where(np.asarray(lesion) > 0, 3, kinds)
    return fullest_kind(mesh, kinds, 4)


def write_lesions(
    path: str | Path, scene: Scene, mesh: TetMesh, lesion: Int[np.ndarray, "tet"], note: str = ""
) -> Path:
    """Draw scar and what is burnt from six sides.

    Parameters
    ----------
    path : str or Path
        PNG, SVG or PDF to write.
    scene : Scene
        Of this mesh.
    mesh : TetMesh
        With the cell field ``scar``, where it has scar.
    lesion : (tet,) int array
        Positive where it is burnt.
    note : str
        A line below the heading.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    colours = {"healthy": MUSCLE, "border zone": BORDER_ZONE, "core": DENSE, "lesion": LESION}
    kinds = tissue_kinds(mesh, lesion)
    return write_classes(path, scene, kinds, colours, title="Lesions", note=note)


def write_circuits(
    path: str | Path, scene: Scene, mesh: TetMesh, circuits: Sequence[Mapping[str, Any]]
) -> Path:
    """Draw circuits on scar, from five sides.

    Parameters
    ----------
    path : str or Path
        PNG, SVG or PDF to write.
    scene : Scene
        Of this mesh.
    mesh : TetMesh
        With the cell field ``scar``.
    circuits : sequence of mappings
        ``exit_mm``, ``isthmus_mm``, ``cycle_length_ms`` and, where it is known, ``path_mm``; the
        first few are drawn.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    kinds = tissue_kinds(mesh)
    fig = figure(250.0, 168.0)
    for index, view in enumerate(_SIDES):
        column, row = index % 3, index // 3
        axes = fig.add_axes((0.01 + 0.33 * column, 0.47 - 0.45 * row, 0.32, 0.43))
        picture = scene.draw_classes(
            kinds, view, colours=(MUSCLE, BORDER_ZONE, DENSE), size=_PIXELS
        )
        half = scene.height_mm / 2
        axes.imshow(picture, extent=(-half, half, -half, half))
        axes.set_axis_off()
        axes.set_title(view_label(view, scene), size=9.5, color=INK, pad=1)
        for number, circuit in enumerate(circuits[:_MOST], start=1):
            _draw_circuit(axes, scene, view, number, circuit)
    _legend(fig, circuits[:_MOST])
    fig.text(0.02, 0.965, "Circuits of re-entry", size=15, weight="bold", color=INK)
    fig.text(0.98, 0.967, DISCLAIMER, size=8, color=MUTED, ha="right")
    return save(fig, path, dpi=150.0)


def _draw_circuit(axes: "Axes", scene: Scene, view: str, number: int, circuit) -> None:
    colour = PATHS[number - 1]
    if circuit.get("path_mm") is not None and len(circuit["path_mm"]) > 1:
        way = np.asarray(circuit["path_mm"], dtype=float)
        seen, _ = scene.seen_from(np.concatenate([way, way[:1]]), view)
        near = seen[:, 2] > 0
        axes.plot(seen[:, 0], seen[:, 1], color=colour, lw=0.8, ls=":")
        front = np.where(near[:, None], seen[:, :2], np.nan)
        axes.plot(front[:, 0], front[:, 1], color="white", lw=3.4)
        axes.plot(front[:, 0], front[:, 1], color=colour, lw=1.8)
    for key, mark in (("exit_mm", "o"), ("isthmus_mm", "X")):
        if circuit.get(key) is None:
            continue
        (place,), _ = scene.seen_from(np.asarray([circuit[key]], dtype=float), view)
        far = place[2] <= 0
        axes.plot(
            place[0], place[1], mark, ms=7, mec="white", mew=1.0, color=colour,
            alpha=0.35 if far else 1.0,
        )  # fmt: skip
        if key == "exit_mm" and not far:
            axes.annotate(
                str(number), place[:2], (6, 5), textcoords="offset points", size=10,
                weight="bold", color=colour,
            )  # fmt: skip


def _legend(fig, circuits) -> None:
    x, top = 0.69, 0.43
    for k, (name, colour) in enumerate(
        (("healthy", MUSCLE), ("border zone", BORDER_ZONE), ("core", DENSE))
    ):
        swatch = fig.add_axes((x, top - 0.045 * k, 0.018, 0.026))
        swatch.set_facecolor(colour)
        swatch.set_xticks([])
        swatch.set_yticks([])
        fig.text(x + 0.026, top + 0.013 - 0.045 * k, name, size=9, color=INK, va="center")
    lines = ["o exit    x isthmus    dotted, pale: far side"]
    for k, circuit in enumerate(circuits, start=1):
        lines.append(f"{k}   cycle {float(circuit['cycle_length_ms']):.0f} ms")
    for k, line in enumerate(lines):
        colour = INK if k == 0 else PATHS[k - 1]
        weight = "normal" if k == 0 else "bold"
        fig.text(x, top - 0.15 - 0.04 * k, line, size=9.5, color=colour, weight=weight, va="center")


def write_intervals(path: str | Path, rows: Sequence[Mapping[str, Any]], level: float) -> Path:
    """Draw intervals of several measures, each on a scale of its own.

    Parameters
    ----------
    path : str or Path
        PNG, SVG or PDF to write.
    rows : sequence of mappings
        ``label``, ``unit``, ``low``, ``median``, ``high``, ``values`` of the members; measures
        without a number are left out.
    level : float
        What share of the members the intervals hold.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    from matplotlib.ticker import MaxNLocator

    shown = [row for row in rows if _known(row["values"]).size > 1]
    height = 16.0 + 15.0 * max(len(shown), 1)
    fig = figure(200.0, height)
    for k, row in enumerate(shown):
        values = _known(row["values"])
        axes = fig.add_axes((0.36, 1.0 - (13.0 + 15.0 * k) / height, 0.58, 7.0 / height))
        axes.plot(values, np.zeros(len(values)), "o", ms=4.5, color=LESION, alpha=0.35, mew=0)
        axes.plot([row["low"], row["high"]], [0, 0], color=INK, lw=1.6)
        axes.plot(row["median"], 0, "|", ms=13, color=INK, mew=2)
        axes.set_ylim(-1, 1)
        axes.set_yticks([])
        axes.tick_params(labelsize=7.5, color=MUTED, labelcolor=MUTED, length=2.5)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.margins(x=0.06)
        if not row["unit"]:  # a count
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        unit = f" ({unit_as_read(row['unit'])})" if row["unit"] else ""
        label = fill(f"{row['label']}{unit}", _LABEL)
        axes.text(-0.03, 0.5, label, transform=axes.transAxes, size=9,
                  ha="right", va="center", color=INK)  # fmt: skip
    note = f"dots: members; line: {level:.0%} of them; tick: median"
    fig.text(0.98, 3.0 / height, note, size=8, color=MUTED, ha="right", va="center")
    return save(fig, path)


def _known(values) -> Float[np.ndarray, "member"]:
    array = np.asarray([np.nan if value is None else value for value in values], dtype=float)
    return array[np.isfinite(array)]
