"""Closed outlines in a plane: arcs joined at their ends, crossings, distance and area."""

import numpy as np
from jaxtyping import Float

# Of any number of points: outlines and places come together in one call.
Plane = Float[np.ndarray, "_ 2"]

# A step longer than so many usual ones, and so many mm, parts two arcs.
_JUMP, _LEAST_JUMP = 4.0, 5.0
# Longest gap [mm] between the ends of arcs that is closed by a straight line.
MAX_GAP = 12.0
# Loops at a join that are shorter than this [mm], or share of the outline, are the pen's.
_LOOP, _LOOP_SHARE = 12.0, 0.05
_CHUNK = 1 << 14


def arcs(points: Float[np.ndarray, "point axis"]) -> list[np.ndarray]:
    """Cut points drawn one after the other where the pen was lifted.

    Parameters
    ----------
    points : (point, 2) or (point, 3) array
        Points [mm]; after the last comes the first, as programs store closed outlines of which a
        part was removed.

    Returns
    -------
    list of (point, 2) or (point, 3) arrays
        One array if the outline is closed.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.outline import arcs
    >>> angle = np.radians(np.arange(0, 360, 10.0))
    >>> ring = 10 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    >>> [len(arc) for arc in arcs(ring)], [len(arc) for arc in arcs(ring[np.r_[:8, 20:36]])]
    ([36], [24])
    """
    points = points[np.linalg.norm(points - np.roll(points, 1, axis=0), axis=1) > 1e-6]
    if len(points) < 2:
        return [points]
    step = np.linalg.norm(np.roll(points, -1, axis=0) - points, axis=1)
    cuts = np.flatnonzero(step > max(_JUMP * float(np.median(step)), _LEAST_JUMP))
    if not len(cuts):
        return [points]
    points = np.roll(points, -int(cuts[0]) - 1, axis=0)
    return np.split(points, (cuts[1:] - cuts[0]).tolist())


def joined(pieces: list[Plane]) -> tuple[Plane, float]:
    """Chain arcs by their nearest ends to one outline.

    Parameters
    ----------
    pieces : list of (point, 2) arrays
        Arcs.

    Returns
    -------
    (point, 2) array
        The outline; after the last point comes the first.
    float
        Longest gap that was bridged [mm].

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.outline import joined
    >>> one, other = np.array([[0.0, 0], [1, 0]]), np.array([[0.0, 1], [1, 1]])
    >>> joined([one, other])
    (array([[0., 0.],
           [1., 0.],
           [1., 1.],
           [0., 1.]]), 1.0)
    """
    rest = sorted(pieces, key=len, reverse=True)
    chain = rest.pop(0)
    gaps = []
    while rest:
        to = [[np.linalg.norm(arc[end] - chain[-1]) for end in (0, -1)] for arc in rest]
        which, end = np.unravel_index(int(np.argmin(to)), (len(rest), 2))
        gaps.append(float(np.min(to)))
        arc = rest.pop(int(which))
        chain = np.concatenate([chain, arc if end == 0 else arc[::-1]])
    gaps.append(float(np.linalg.norm(chain[0] - chain[-1])))
    return chain, max(gaps)


def crossing(outline: Plane) -> Plane | None:
    """A place where an outline crosses itself and leaves a loop too large for a slip of the pen.

    Parameters
    ----------
    outline : (point, 2) array
        Closed outline [mm].

    Returns
    -------
    (1, 2) array or None
        The place [mm].

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.outline import crossing
    >>> crossing(np.array([[0.0, 0], [40, 40], [40, 0], [0, 40]]))
    array([[20., 20.]])
    """
    start, side = outline, np.roll(outline, -1, axis=0) - outline
    apart = start[None] - start[:, None]
    turn = _cross(side[:, None], side[None])
    with np.errstate(divide="ignore", invalid="ignore"):
        along, other = _cross(apart, side[None]) / turn, _cross(apart, side[:, None]) / turn
    hit = (turn != 0) & _within(along) & _within(other)
    first, second = np.nonzero(np.triu(hit, 1))  # neighbours meet too, but leave no loop
    if not len(first):
        return None
    run = np.concatenate([[0.0], np.cumsum(np.linalg.norm(side, axis=1))])
    loop = run[second] - run[first]
    loop = np.minimum(loop, run[-1] - loop)
    worst = int(np.argmax(loop))
    if loop[worst] <= max(_LOOP, _LOOP_SHARE * run[-1]):
        return None
    k = first[worst]
    return (start[k] + along[k, second[worst]] * side[k])[None]


def _within(share: np.ndarray) -> np.ndarray:
    return (share > -1e-9) & (share < 1 + 1e-9)


def signed_distance(outline: Plane, places: Plane) -> Float[np.ndarray, "point"]:
    """Distance [mm] of places to an outline, negative inside.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.outline import signed_distance
    >>> square = np.array([[0.0, 0], [4, 0], [4, 4], [0, 4]])
    >>> signed_distance(square, np.array([[2.0, 1.0], [7.0, 8.0]]))
    array([-1.,  5.])
    """
    out = np.empty(len(places))
    for at in range(0, len(places), _CHUNK):
        out[at : at + _CHUNK] = _signed(outline, places[at : at + _CHUNK])
    return out


def _signed(outline: Plane, places: Plane) -> np.ndarray:
    nearest, inside = np.full(len(places), np.inf), np.zeros(len(places), dtype=bool)
    x, y = places.T
    for (ax, ay), (bx, by) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        sx, sy = bx - ax, by - ay
        tx, ty = x - ax, y - ay
        along = np.clip((tx * sx + ty * sy) / max(sx * sx + sy * sy, 1e-300), 0, 1)
        nearest = np.minimum(nearest, (tx - along * sx) ** 2 + (ty - along * sy) ** 2)
        if sy:
            inside ^= ((ay <= y) != (by <= y)) & (tx < ty / sy * sx)
    return np.where(inside, -1, 1) * np.sqrt(nearest)


def area(outline: Plane) -> float:
    """Area [mm^2] within an outline.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.outline import area
    >>> area(np.array([[0.0, 0], [4, 0], [4, 4], [0, 4]]))
    16.0
    """
    return float(abs(_cross(outline, np.roll(outline, -1, axis=0)).sum()) / 2)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
