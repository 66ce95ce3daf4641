"""Does 3-D rendering work here? VTK crashes where no driver is found, so another process tries."""

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from twinheart.errors import OutputError

NO_RENDERING = (
    "3-D pictures are skipped: neither EGL nor OSMesa can draw here; on Debian or Ubuntu install "
    "them with: apt-get install libegl1 libgl1-mesa-dri"
)

_PROBE = """
import vtkmodules.vtkRenderingOpenGL2
from vtkmodules.vtkRenderingCore import vtkRenderer, vtkRenderWindow, vtkWindowToImageFilter
window, renderer = vtkRenderWindow(), vtkRenderer()
window.SetOffScreenRendering(1)
window.SetSize(8, 8)
renderer.SetBackground(0.0, 0.0, 1.0)
window.AddRenderer(renderer)
window.Render()
image = vtkWindowToImageFilter()
image.SetInput(window)
image.Update()
blue = image.GetOutput().GetPointData().GetScalars().GetRange(2)
raise SystemExit(0 if blue == (255.0, 255.0) else 1)
"""
_HEADLESS = ("vtkEGLRenderWindow", "vtkOSOpenGLRenderWindow")
_VARIABLE = "VTK_DEFAULT_OPENGL_WINDOW"


@functools.cache
def render_window() -> str | None:
    """The kind of window in which VTK can draw on this machine, without a screen if need be.

    Returns
    -------
    str or None
        Name of a VTK class, or "" for the platform's own; None where nothing can draw. Found once
        a process.

    Examples
    --------
    >>> from twinheart.report.render import render_window
    >>> render_window() in (None, "", "vtkEGLRenderWindow", "vtkOSOpenGLRenderWindow")
    True
    """
    candidates = _HEADLESS if sys.platform == "linux" else ()
    if sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY"):
        candidates = (*candidates, "")
    return next((name for name in candidates if _can_draw(name)), None)


def can_render() -> bool:
    """Whether 3-D pictures can be drawn on this machine; `NO_RENDERING` says what is missing.

    Examples
    --------
    >>> from twinheart.report.render import can_render
    >>> can_render() in (True, False)
    True
    """
    return render_window() is not None


@contextmanager
def rendering() -> Iterator[None]:
    """Let VTK use the window that works here, inside the block only.

    Raises
    ------
    OutputError
        If nothing can be drawn on this machine.
    """
    name = render_window()
    if name is None:
        raise OutputError(NO_RENDERING)
    before = os.environ.get(_VARIABLE)
    if name:
        os.environ[_VARIABLE] = name
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before


def _can_draw(window: str) -> bool:
    environment = {key: value for key, value in os.environ.items() if key != _VARIABLE}
    if window:
        environment[_VARIABLE] = window
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=120,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
