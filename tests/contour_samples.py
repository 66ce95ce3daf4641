"""Contours as a reader would draw them on the analytic heart, and the tables that hold them."""

from pathlib import Path

import contourpy
import numpy as np

from twinheart.imaging.contour_file import Contour
from twinheart.mesh.biventricle import BiventricularShape

PIXEL = 1.4  # mm between the points of a contour
SHAPE = BiventricularShape()
ATLAS = {
    "lv_endo": "LV_ENDOCARDIAL",
    "lv_epi": "LV_EPICARDIAL",
    "rv_endo": "RV_ENDOCARDIAL",
    "rv_free_wall": "RV_FREEWALL",
    "rv_septum": "RV_SEPTUM",
    "rv_epi": "RV_EPICARDIAL",
    "mitral_valve": "MITRAL_VALVE",
    "tricuspid_valve": "TRICUSPID_VALVE",
    "apex": "APEX_POINT",
}
FUNCTIONS = {
    "lv_endo": SHAPE.lv_cavity,
    "rv_endo": SHAPE.rv_cavity,
    "epi": SHAPE.epicardium,
}


def outlines(function, origin, along, across) -> list[np.ndarray]:
    """Zero lines of a function in a plane, points about `PIXEL` apart; closed ones end as begun."""
    u, v = np.arange(-90, 90, 0.5), np.arange(-90, 90, 0.5)
    places = origin + u[None, :, None] * along + v[:, None, None] * across
    values = function(places.reshape(-1, 3)).reshape(len(v), len(u))
    lines = contourpy.contour_generator(u, v, values).lines(0.0)
    found = []
    for line in map(np.asarray, lines):
        if len(line) < 8:  # the middle of an ellipsoid, where its function vanishes
            continue
        points = origin + line[:, :1] * along + line[:, 1:] * across
        run = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
        at = np.linspace(0, run[-1], max(int(run[-1] / PIXEL), 2) + 1)
        found.append(np.stack([np.interp(at, run, x) for x in points.T], axis=1))
    return found


def short_axis(heights, *, arcs: bool = False, rv: bool = True, rv_epi: bool = True):
    """Short-axis contours of the analytic heart; with `arcs`, cut where the ventricles join."""
    drawn = []
    for number, z in enumerate(heights):
        origin, x, y = np.array([0.0, 0.0, z]), np.eye(3)[0], np.eye(3)[1]
        for part, function in FUNCTIONS.items():
            if part == "epi" and not (rv and rv_epi):
                part, function = "lv_epi", SHAPE.lv_body
            if part == "rv_endo" and not rv:
                continue
            for line in outlines(function, origin, x, y):
                drawn += _cut(part, str(number), line[:-1]) if arcs else [
                    Contour(part, str(number), line[:-1])
                ]  # fmt: skip
    return drawn


def _cut(part: str, where: str, ring: np.ndarray) -> list[Contour]:
    if part == "rv_endo":
        names, first = ("rv_septum", "rv_free_wall"), SHAPE.lv_body(ring) < 2.0
    elif part == "epi":
        names, first = ("lv_epi", "rv_epi"), SHAPE.lv_body(ring) < SHAPE.rv_body(ring)
    else:
        return [Contour(part, where, ring)]
    return [
        Contour(name, where, ring[own]) for name, own in zip(names, (first, ~first), strict=True)
        if own.any()
    ]  # fmt: skip


def long_axis(angles=(0.0, 60.0, 120.0), top: float = -2.0) -> list[Contour]:
    """Contours of views through the LV's axis, open at the base."""
    drawn = []
    for number, angle in enumerate(np.radians(angles)):
        along = np.array([np.cos(angle), np.sin(angle), 0.0])
        for part, function in FUNCTIONS.items():
            for line in outlines(function, np.zeros(3), along, np.eye(3)[2]):
                below = line[line[:, 2] < top]
                if len(below) > 5:
                    name = {"rv_endo": "rv_free_wall", "epi": "lv_epi"}.get(part, part)
                    drawn.append(Contour(name, f"long-{number}", below, long_axis=True))
    return drawn


def write_atlas(path: Path, contours: list[Contour], *, time: int = 0) -> Path:
    """A GPFile: tabs, LPS, names in capitals."""
    rows = ["x\ty\tz\tcontour type\tframeID\tweight\ttime frame"]
    for c in contours:
        view = "" if c.part in ("mitral_valve", "apex") else "LAX_" if c.long_axis else "SAX_"
        for x, y, z in c.points:
            name = view + ATLAS[c.part]
            rows.append(f"{-x:.5f}\t{-y:.5f}\t{z:.5f}\t{name}\t{c.slice}\t1.0\t{time}")
    path.write_text("\n".join(rows) + "\n")
    return path


def write_csv(path: Path, contours: list[Contour], separator: str = ",") -> Path:
    """A plain table in RAS."""
    rows = [separator.join(["contour", "slice", "x", "y", "z"])]
    for c in contours:
        name = ("lax_" if c.long_axis else "") + c.part
        for point in c.points:
            rows.append(separator.join([name, c.slice, *(f"{x:.5f}" for x in point)]))
    path.write_text("\n".join(rows) + "\n")
    return path
