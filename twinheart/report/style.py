"""One look for all pictures: colours safe for colour-blind readers, fonts, figures, files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twinheart.mesh.io.atomic import written_whole

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

INK = "#1f2933"  # text and lines
MUTED = "#616e7c"  # secondary text
PAPER = "#ffffff"
MISSING = "#aab2bd"  # tissue without a value
ACCENT = "#9b2d5e"

# Early is light and late is dark, so that maps survive a black-and-white printer; perceptually
# uniform and readable with every common colour-vision deficiency.
_MAPS = {"lat": "plasma_r", "repol": "viridis_r", "apd90": "viridis"}

# Rest is blue, the plateau orange: the one hue pair that all colour-blind readers tell apart.
_VM_COLOURS = ["#2a5b8a", "#4f86b4", "#98b6cd", "#d8cbb4", "#eba046", "#c9560f"]

_NICE_STEPS = np.array([1, 2, 5, 10, 20, 50, 100, 200, 500], dtype=float)


def colour_map(quantity: str) -> "Colormap":
    """Colour map of a quantity: ``lat``, ``repol``, ``apd90`` or ``vm``.

    Examples
    --------
    >>> from twinheart.report.style import colour_map
    >>> colour_map("lat").name
    'plasma_r'
    """
    import matplotlib
    from matplotlib.colors import LinearSegmentedColormap

    if quantity == "vm":
        return LinearSegmentedColormap.from_list("vm", _VM_COLOURS)
    whole = matplotlib.colormaps[_MAPS.get(quantity, "viridis")]
    # without the darkest end, on which isolines would vanish
    dark_end_first = not whole.name.endswith("_r")
    part = np.linspace(0.1, 1.0, 256) if dark_end_first else np.linspace(0.0, 0.9, 256)
    return LinearSegmentedColormap.from_list(whole.name, whole(part))


def rgb(colour: str) -> tuple[float, float, float]:
    """Red, green and blue from 0 to 1 of a colour such as ``#1f2933``.

    Examples
    --------
    >>> from twinheart.report.style import rgb
    >>> rgb("#ff0000")
    (1.0, 0.0, 0.0)
    """
    from matplotlib.colors import to_rgb

    return to_rgb(colour)


def levels(
    values: np.ndarray, *, step: float | None = None, least: float = 1.0, most: int = 24
) -> np.ndarray:
    """Band limits at multiples of a round step that span the finite values.

    Parameters
    ----------
    values : array
        What is to be shown.
    step : float or None
        Width of a band; None: 5, 10 or the next round number that gives at most `most` bands, and
        less than 5 (but not less than `least`) where the values span less than 20.

    Returns
    -------
    array
        At least two limits, increasing.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.report.style import levels
    >>> levels(np.array([3.0, 42.0])).tolist()
    [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 45.0]
    """
    finite = np.asarray(values)[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if step is None:
        steps = _NICE_STEPS[_NICE_STEPS >= (least if high - low < 20 else 5.0)]
        wide_enough = steps[(high - low) / steps <= most - 1]
        step = float(wide_enough[0]) if wide_enough.size else (high - low) / (most - 1)
    first = np.floor(low / step + 1e-9)
    last = max(np.ceil(high / step - 1e-9), first + 1)
    return step * np.arange(first, last + 1)


def figure(width_mm: float, height_mm: float) -> "Figure":
    """An empty figure of exact size, drawn by Agg: no window, no global state of pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width_mm / 25.4, height_mm / 25.4), facecolor=PAPER)
    FigureCanvasAgg(fig)
    return fig


def save(fig: "Figure", path: str | Path, *, dpi: float = 200.0) -> Path:
    """Write a figure as PNG, SVG or PDF, whole or not at all; its printed size is the true one.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    import matplotlib

    path = Path(path)
    suffix = path.suffix.lower()
    # neither the time of day nor the version of a library belongs into a reproducible picture
    metadata: dict[str, Any] = {
        ".png": {"Software": None},
        ".svg": {"Date": None, "Creator": "twinheart"},
        ".pdf": {"CreationDate": None},
    }.get(suffix, {})
    settings: dict[Any, Any] = {"svg.hashsalt": "twinheart", "svg.fonttype": "path"}
    with written_whole(path) as draft, matplotlib.rc_context(settings):
        fig.savefig(draft, dpi=dpi, metadata=metadata, facecolor=PAPER)
        if suffix == ".svg":
            _svg_in_millimetres(draft, *(25.4 * size for size in fig.get_size_inches()))
    return path


def _svg_in_millimetres(path: Path, width: float, height: float) -> None:
    import re

    text = path.read_text(encoding="utf-8")
    size = f'width="{width:g}mm" height="{height:g}mm"'
    path.write_text(
        re.sub(r'width="[^"]*pt" height="[^"]*pt"', size, text, count=1), encoding="utf-8"
    )
