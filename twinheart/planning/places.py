"""Places in a heart in words a physician uses: ventricle, AHA segment, depth in the wall."""

from typing import Any

import numpy as np

from twinheart.anatomy import coordinates_of
from twinheart.anatomy.aha import SEGMENTS, aha_segments
from twinheart.anatomy.transfer import coordinates_at
from twinheart.mesh import TetMesh

_DEPTHS = (1 / 3, 2 / 3)
_WORDS = ("subendocardial", "mid-wall", "subepicardial")
_RIGHT = 17  # segments of the right ventricle follow those of the left one
_SEPTAL = 2 / 3  # turns from which on the wall is septum


def describe_places(mesh: TetMesh, points: Any) -> list[str]:
    """Say where points are.

    Parameters
    ----------
    mesh : TetMesh
        The heart [mm]; with coordinates, else points are told by their numbers.
    points : (point, 3) array
        Places [mm]; those outside count as the nearest place in the muscle.

    Returns
    -------
    list of str
        One for each point.

    Examples
    --------
    >>> from twinheart.anatomy import add_coordinates
    >>> from twinheart.mesh.generate import lv_ellipsoid
    >>> from twinheart.planning.places import describe_places
    >>> mesh = lv_ellipsoid(edge=4.0)
    >>> describe_places(mesh, [[0.0, 0.0, 0.0]])
    ['(0, 0, 0) mm']
    >>> mesh = add_coordinates(mesh)
    >>> describe_places(mesh, mesh.points[:1])[0].startswith("LV segment")
    True
    """
    where = np.atleast_2d(np.asarray(points, dtype=float))
    own = coordinates_of(mesh)
    if own is None:
        return [f"({x:.0f}, {y:.0f}, {z:.0f}) mm" for x, y, z in where]
    at = coordinates_at(mesh, where, own)
    segments = aha_segments(at)
    return [
        _words(int(segment), float(tm), float(rt))
        for segment, tm, rt in zip(segments, at.tm, at.rt, strict=True)
    ]


def segment_at(mesh: TetMesh, place: Any) -> str | None:
    """Name of the AHA segment at a place.

    Parameters
    ----------
    mesh : TetMesh
        The heart [mm], perhaps with coordinates.
    place : (3,) array
        The place [mm].

    Returns
    -------
    str or None
        Such as ``"basal anterior"``, or ``"RV basal anterior"``; None without coordinates.

    Examples
    --------
    >>> from twinheart.anatomy import add_coordinates
    >>> from twinheart.mesh.generate import lv_ellipsoid
    >>> from twinheart.planning.places import segment_at
    >>> mesh = add_coordinates(lv_ellipsoid(edge=4.0))
    >>> segment_at(mesh, mesh.points[mesh.points[:, 2].argmin()])
    'apex'
    """
    own = coordinates_of(mesh)
    if own is None:
        return None
    at = coordinates_at(mesh, np.atleast_2d(np.asarray(place, dtype=float)), own)
    side, number = _numbered(int(aha_segments(at)[0]))
    return f"{'RV ' if side == 'RV' else ''}{SEGMENTS[number - 1]}"


def _numbered(segment: int) -> tuple[str, int]:
    """Ventricle, and number of the segment in it."""
    return ("RV", segment - _RIGHT) if segment > _RIGHT else ("LV", segment)


def _words(segment: int, tm: float, rt: float) -> str:
    side, number = _numbered(segment)
    depth = _WORDS[int(np.searchsorted(_DEPTHS, tm))]
    if rt > _SEPTAL and number != len(SEGMENTS):  # tm is 1 in the middle of the septum
        depth = f"{side} side" if tm < 0.5 else "middle of the septum"
    return f"{side} segment {number} ({SEGMENTS[number - 1]}), {depth}"
