"""The beat as a film: V_m on the heart, with the ECG running below."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twinheart.anatomy import Heart
from twinheart.ecg import Ecg
from twinheart.errors import InputError
from twinheart.mesh.io.atomic import written_whole
from twinheart.report.maps import DISCLAIMER, view_label
from twinheart.report.scene import CUT, Scene
from twinheart.report.style import ACCENT, INK, MUTED, colour_map, figure, rgb

if TYPE_CHECKING:
    from PIL.Image import Image

_VIEWS = ("anterior", CUT)
_RANGE = (-90.0, 40.0)  # mV
_SCALE, _HEADER, _TRACE = 70, 44, 110  # pixels for the colour scale, the text and the ECG
_DPI = 100


def write_animation(
    path: str | Path,
    heart: Heart | Scene,
    vm_file: str | Path,
    *,
    ecg: Ecg | None = None,
    lead: str = "II",
    most_frames: int = 120,
    size: int = 340,
    frame_ms: int = 60,
) -> Path:
    """Film of the transmembrane potential, from the front and cut open.

    Parameters
    ----------
    path : str or Path
        GIF or WebP to write; it plays for ever.
    heart : Heart or Scene
        What to draw on.
    vm_file : str or Path
        HDF5 file with datasets ``t`` (time,) [ms] and ``vm`` (time, node) [mV]; one frame at a
        time is read.

    Other Parameters
    ----------------
    ecg : Ecg or None
        Shown below with a running cursor.
    lead : str
        Which lead; the first one where it is absent.
    most_frames : int
        Every second, third, ... frame is taken where the file has more.
    size : int
        Pixels of one view.
    frame_ms : int
        Time a frame is shown [ms].

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InputError
        If the file has no frames, or not of this heart, or the suffix is unknown.
    OutputError
        If the file cannot be written.

    Examples
    --------
    >>> import h5py, numpy as np, pathlib, tempfile
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.report import write_animation
    >>> heart, folder = Heart(slab((8.0, 4.0, 4.0), 2.0)), pathlib.Path(tempfile.mkdtemp())
    >>> with h5py.File(folder / "vm.h5", "w") as file:
    ...     file["t"] = np.array([0.0, 5.0])
    ...     file["vm"] = np.full((2, heart.mesh.n_nodes), -85.0, dtype=np.float32)
    >>> write_animation(folder / "vm.gif", heart, folder / "vm.h5", size=64).name
    'vm.gif'
    """
    import h5py

    path = Path(path)
    options = _options(path, frame_ms)
    try:
        with h5py.File(vm_file, "r") as file:
            t, vm = _datasets(file, vm_file)
            scene = heart if isinstance(heart, Scene) else Scene(heart)
            if vm.shape[1] != scene.n_nodes:
                raise InputError(
                    f"'{vm_file}' has frames of {vm.shape[1]} nodes, the heart has "
                    f"{scene.n_nodes}: it belongs to another mesh."
                )
            chosen = range(0, len(t), -(-len(t) // most_frames))
            pictures = scene.film(
                (np.asarray(vm[i], dtype=np.float64) for i in chosen),
                _VIEWS,
                colours=colour_map("vm"),
                limits=_RANGE,
                size=size,
            )
            stage = _Stage(scene, size, ecg, lead, (t[chosen[0]], t[chosen[-1]]))
            frames = (stage.frame(p, t[i]) for p, i in zip(pictures, chosen, strict=True))
            _save(frames, path, options)
    except OSError as error:
        raise InputError(f"V_m file '{vm_file}' cannot be read: {error}.") from error
    return path


def _datasets(file: Any, name: str | Path) -> tuple[np.ndarray, Any]:
    if "t" not in file or "vm" not in file:
        raise InputError(f"'{name}' has no datasets t and vm; it has {', '.join(file) or 'none'}.")
    t, vm = np.asarray(file["t"], dtype=np.float64), file["vm"]
    if t.ndim != 1 or vm.ndim != 2 or len(t) != len(vm) or len(t) == 0:
        raise InputError(
            f"'{name}' has t of shape {t.shape} and vm of shape {vm.shape}; expected (time,) and "
            "(time, node) with at least one frame."
        )
    return t, vm


def _options(path: Path, frame_ms: int) -> dict[str, Any]:
    common = {"save_all": True, "duration": frame_ms, "loop": 0}
    options = {
        ".gif": {**common, "format": "GIF", "disposal": 1},
        ".webp": {**common, "format": "WEBP", "quality": 80, "method": 4},
    }
    if path.suffix.lower() not in options:
        raise InputError(f"'{path.name}' is no animation this writes; expected .gif or .webp.")
    return options[path.suffix.lower()]


def _save(frames: Iterator["Image"], path: Path, options: dict[str, Any]) -> None:
    if options["format"] == "GIF":
        frames = _one_palette(frames)
    first = next(frames)
    with written_whole(path) as draft:
        first.save(draft, append_images=frames, **options)


def _one_palette(frames: Iterator["Image"]) -> Iterator["Image"]:
    """Map all frames to one palette of shaded V_m colours: a palette for each would flicker."""
    from PIL import Image

    colours = colour_map("vm")(np.linspace(0, 1, 48))[:, :3]
    shades = np.linspace(0.5, 1.0, 5)
    tissue = np.clip(colours[:, None] * shades[:, None], 0, 1).reshape(-1, 3)
    greys = np.repeat(np.linspace(0, 1, 12)[:, None], 3, axis=1)
    accents = np.array([rgb(ACCENT), rgb(INK)])
    table = np.rint(255 * np.concatenate([tissue, greys, accents])).astype(np.uint8)
    palette = Image.new("P", (1, 1))
    palette.putpalette(table.tobytes())
    for frame in frames:
        yield frame.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


class _Stage:
    """Everything around the pictures, drawn once; each frame gets its time and cursor."""

    def __init__(self, scene: Scene, size: int, ecg: Ecg | None, lead: str, span):
        self._size = size
        self._trace = _TRACE if ecg is not None else 0
        width = size * len(_VIEWS) + _SCALE
        height = _HEADER + size + self._trace
        fig = figure(width * 25.4 / _DPI, height * 25.4 / _DPI)
        fig.set_dpi(_DPI)
        _draw_scale(fig, width, height, size)
        for column, view in enumerate(_VIEWS):
            x, y = (column + 0.5) * size / width, 1 - (_HEADER + size - 4) / height
            fig.text(x, y, view_label(view, scene), ha="center", size=8, color=MUTED)
        fig.text(1 - 8 / width, 1 - 16 / height, DISCLAIMER, ha="right", size=6.5, color=MUTED)
        self._cursor = None
        if ecg is not None:
            name = lead if lead in ecg.names else ecg.names[0]
            axes = fig.add_axes(
                (62 / width, 26 / height, 1 - (62 + 16) / width, (_TRACE - 40) / height)
            )
            axes.plot(np.asarray(ecg.t), np.asarray(ecg[name]), color=INK, lw=1)
            axes.set_xlim(min(float(ecg.t[0]), span[0]), max(float(ecg.t[-1]), span[1], 1e-3))
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=6.5, color=MUTED, labelcolor=MUTED, length=2)
            axes.set_ylabel(f"{name} (mV)", size=7, color=INK)
            axes.text(1, -0.30, "ms", transform=axes.transAxes, size=6.5, color=MUTED, ha="right")
            self._cursor = axes
        fig.canvas.draw()
        from PIL import Image

        self._canvas = Image.fromarray(np.asarray(fig.canvas.buffer_rgba())[..., :3])  # type: ignore[attr-defined]
        self._height = height
        self._font = _font(20)

    def frame(self, picture: np.ndarray, t: float) -> "Image":
        from PIL import Image, ImageDraw

        frame = self._canvas.copy()
        views = Image.fromarray(picture)
        # the labels are part of the stage: keep the lowest lines of the picture free for them
        frame.paste(views.crop((0, 0, views.width, views.height - 16)), (0, _HEADER))
        draw = ImageDraw.Draw(frame)
        draw.text((14, 10), f"{t:.0f} ms", fill=INK, font=self._font)
        if self._cursor is not None:
            (x, _), (_, low), (_, high) = self._cursor.transData.transform(
                [(t, 0.0), (0.0, self._cursor.get_ylim()[0]), (0.0, self._cursor.get_ylim()[1])]
            )
            draw.line([(x, self._height - low), (x, self._height - high)], fill=ACCENT, width=2)
        return frame


def _draw_scale(fig, width: int, height: int, size: int) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    left = (width - _SCALE + 6) / width
    bottom = 1 - (_HEADER + 0.86 * size) / height
    axes = fig.add_axes((left, bottom, 12 / width, 0.72 * size / height))
    bar = fig.colorbar(ScalarMappable(Normalize(*_RANGE), colour_map("vm")), cax=axes)
    bar.set_ticks([-90, -60, -30, 0, 30])
    bar.ax.tick_params(labelsize=7, color=INK, labelcolor=INK, length=2)
    bar.ax.set_title("mV", size=7.5, color=INK, pad=5)
    bar.outline.set_visible(False)


def _font(size: int):
    from matplotlib import font_manager
    from PIL import ImageFont

    return ImageFont.truetype(font_manager.findfont("DejaVu Sans:bold"), size)
