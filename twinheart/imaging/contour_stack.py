"""A stack of short-axis contours: closed outlines slice by slice, and what the long axis adds."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from twinheart.errors import InputError
from twinheart.imaging.contour_file import PARTS, Contour
from twinheart.imaging.outline import MAX_GAP, Plane, arcs, area, crossing, joined, signed_distance

Places = Float[np.ndarray, "_ 3"]

# The surfaces, and the parts that are drawn of each.
SURFACES = {
    "LV": ("lv_endo",),
    "RV": ("rv_endo", "rv_free_wall", "rv_septum"),
    "epi": ("epi", "lv_epi", "rv_epi"),
}
_VALVES = {"LV": ("mitral_valve", "aortic_valve"), "RV": ("tricuspid_valve", "pulmonary_valve")}
_MIN_SLICES = 3
_MIN_POINTS = 6
# How far [mm] the points of a slice may lie off their common plane, and slices must be apart.
_FLAT, _APART = 2.0, 0.5
# How far [mm] one surface may be drawn across another: about a pixel.
_SLIP = 1.5
# Share of its length by which the ends of a closed outline may gape.
_GAPE = 1 / 3


@dataclass(frozen=True)
class Slice:
    """The outlines of one short-axis slice.

    Parameters
    ----------
    name : str
        What the file calls it.
    height : float
        Place along the axis [mm], growing towards the base.
    outlines : dict of list of (point, 2) arrays
        By surface, 'LV', 'RV' and 'epi': closed outlines [mm], whose union is what is within.
    has_rv_wall : bool
        The epicardium was drawn over the RV as well.
    """

    name: str
    height: float
    outlines: dict[str, list[Plane]]
    has_rv_wall: bool


@dataclass(frozen=True)
class ContourStack:
    """Contours of a heart in axes of their own: two in the slices, the third from apex to base.

    Parameters
    ----------
    axes : (3, 3) array
        Unit vectors of these axes in RAS, one a row.
    slices : list of Slice
        From apex to base.
    long_axis : dict of (point, 3) arrays
        By surface: points [mm] of long-axis contours.
    valves : dict of (point, 3) arrays
        By ventricle, 'LV' and 'RV': points [mm] at its valves.
    apex : (point, 3) array
        The epicardial apex, if marked.
    """

    axes: Float[np.ndarray, "3 3"]
    slices: list[Slice]
    long_axis: dict[str, Places]
    valves: dict[str, Places]
    apex: Places

    @property
    def spacing(self) -> float:
        """Usual distance between slices [mm]."""
        return float(np.median(np.diff([s.height for s in self.slices])))


def contour_stack(contours: list[Contour]) -> ContourStack:
    """Join the arcs of each slice to closed outlines and sort the slices from apex to base.

    Open arcs are joined with their partners: the RV's free wall with its septum, the LV's
    epicardium with the RV's or, where that was not drawn, with the RV's septum.

    Parameters
    ----------
    contours : list of Contour
        As `read_contours` returns them.

    Returns
    -------
    ContourStack
        With at least three slices that show the LV.

    Raises
    ------
    InputError
        If the LV's endocardium or epicardium is missing or drawn in fewer than three slices; if
        slices are not parallel; if an outline is open and has no partner, or crosses itself; if
        the epicardium does not enclose an endocardium, or the endocardia cross.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.contour_file import Contour
    >>> from twinheart.imaging.contour_stack import contour_stack
    >>> angle = np.radians(np.arange(0, 360, 5.0))
    >>> ring = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    >>> drawn = [
    ...     Contour(part, str(k), r * (1 - 0.1 * k) * ring + [0, 0, -8 * k])
    ...     for k in range(3) for part, r in (("lv_endo", 20), ("lv_epi", 30))
    ... ]
    >>> [s.name for s in contour_stack(drawn).slices]
    ['2', '1', '0']
    """
    short = [c for c in contours if not c.long_axis and c.part in _parts()]
    by_slice: dict[str, list[Contour]] = {}
    for contour in short:
        by_slice.setdefault(contour.slice, []).append(contour)
    _require_lv(by_slice)
    axes = _axes(by_slice)
    slices = sorted((_slice(n, own, axes) for n, own in by_slice.items()), key=lambda s: s.height)
    for low, high in pairwise(slices):
        if high.height - low.height < _APART:
            raise InputError(
                f"slices {low.name} and {high.name} lie at the same place: keep one of them."
            )
    long_axis = {
        surface: _points(contours, parts, axes, long_axis=True)
        for surface, parts in SURFACES.items()
    }
    valves = {name: _points(contours, parts, axes) for name, parts in _VALVES.items()}
    stack = ContourStack(axes, slices, long_axis, valves, _points(contours, ("apex",), axes))
    return stack if _is_upright(stack) else _turned(stack)


def _parts() -> set[str]:
    return {part for parts in SURFACES.values() for part in parts}


def _require_lv(by_slice: dict[str, list[Contour]]) -> None:
    drawn = {name: {c.part for c in own} for name, own in by_slice.items()}
    inner = {name for name, parts in drawn.items() if "lv_endo" in parts}
    outer = {name for name, parts in drawn.items() if parts & {"lv_epi", "epi"}}
    for found, what in ((inner, "endocardium"), (outer, "epicardium")):
        if not found:
            raise InputError(
                f"no {what} of the LV is drawn in a short-axis slice: without it there is no "
                f"{'pool' if found is inner else 'wall'}."
            )
    both = len(inner & outer)
    if both < _MIN_SLICES:
        raise InputError(
            f"{both} short-axis slice{'s show' if both != 1 else ' shows'} endocardium and "
            f"epicardium of the LV, expected at least {_MIN_SLICES}."
        )


def _axes(by_slice: dict[str, list[Contour]]) -> Float[np.ndarray, "3 3"]:
    """Axes of the stack: the third is the mean normal of its slices."""
    total = np.zeros(3)
    for own in by_slice.values():
        points = np.concatenate([c.points for c in own])
        normal = np.linalg.svd(points - points.mean(axis=0))[2][2] * len(points)
        total += normal if normal @ total >= 0 else -normal
    normal = total / np.linalg.norm(total)
    first = np.eye(3)[np.argmin(np.abs(normal))]
    first = first - (first @ normal) * normal
    first /= np.linalg.norm(first)
    axes = np.stack([first, np.cross(normal, first), normal])
    for name, own in by_slice.items():
        heights = np.concatenate([c.points for c in own]) @ normal
        if np.abs(heights - heights.mean()).max() > _FLAT:
            raise InputError(
                f"slice {name}: its points spread over {np.ptp(heights):.1f} mm across the other "
                "slices, expected parallel short-axis slices: name long-axis contours LAX_..."
            )
    return axes


def _points(contours: list[Contour], parts, axes, *, long_axis: bool | None = None) -> Places:
    chosen = [c.points for c in contours if c.part in parts and long_axis in (None, c.long_axis)]
    return np.concatenate([np.zeros((0, 3)), *chosen]) @ axes.T


def _slice(name: str, own: list[Contour], axes: Float[np.ndarray, "3 3"]) -> Slice:
    local = {c.part: c.points @ axes.T for c in own}
    drawn = {part: arcs(points[:, :2]) for part, points in local.items()}
    for part, points in local.items():
        if part != "rv_septum" and len(points) < _MIN_POINTS:
            raise InputError(
                f"slice {name}: the {PARTS[part]} has {len(points)} points, expected at least "
                f"{_MIN_POINTS}."
            )
    outlines = {}
    if "lv_endo" in drawn:
        outlines["LV"] = _closed(name, "lv_endo", drawn["lv_endo"])
    right = _right_endocardium(name, drawn)
    if right:
        outlines["RV"] = right
    outer = _epicardium(name, drawn)
    if outer:
        outlines["epi"] = outer
    for surface, found in outlines.items():
        for outline in found:
            at = crossing(outline)
            if at is not None:
                height = np.mean([p[:, 2].mean() for p in local.values()])
                place = np.array([*at[0], height]) @ axes
                raise InputError(
                    f"slice {name}: the {_NAMES[surface]} crosses itself near "
                    f"({', '.join(f'{x:.1f}' for x in place)}) mm RAS: draw it anew."
                )
    has_rv_wall = bool({"epi", "rv_epi"} & set(drawn))
    _require_nested(name, outlines, has_rv_wall)
    height = float(np.concatenate(list(local.values()))[:, 2].mean())
    return Slice(name, height, outlines, has_rv_wall)


_NAMES = {"LV": "endocardium of the LV", "RV": "endocardium of the RV", "epi": "epicardium"}


def _right_endocardium(name: str, drawn: dict[str, list[Plane]]) -> list[Plane]:
    if "rv_endo" in drawn:
        return _closed(name, "rv_endo", drawn["rv_endo"], drawn.get("rv_septum", []))
    wall, septum = drawn.get("rv_free_wall"), drawn.get("rv_septum")
    if wall is None and septum is None:
        return []
    if septum is None and wall is not None:
        return _closed(name, "rv_free_wall", wall)
    if wall is None:
        raise InputError(
            f"slice {name}: the RV's septum is drawn without its free wall: draw both or neither."
        )
    return _closed(name, "rv_free_wall", wall + (septum or []))


def _epicardium(name: str, drawn: dict[str, list[Plane]]) -> list[Plane]:
    if "epi" in drawn:
        return _closed(name, "epi", drawn["epi"])
    left, right = drawn.get("lv_epi", []), drawn.get("rv_epi", [])
    if not left:
        if right and _split(right)[1]:
            raise InputError(
                f"slice {name}: the epicardium is drawn over the RV only: draw it over the LV too."
            )
        return right
    whole, open_ = _split(left)
    if whole and not open_ and right:
        # drawn around the LV: the RV's arc ends on it, what a straight line cuts off is the LV's
        own, rest = _split(right)
        return whole + own + ([joined(rest)[0]] if rest else [])
    return _closed(name, "lv_epi", left + right, [] if right else drawn.get("rv_septum", []))


def _split(pieces: list[Plane]) -> tuple[list[Plane], list[Plane]]:
    """Arcs that are closed by themselves, and those that are not."""
    closed, open_ = [], []
    for arc in pieces:
        gap = float(np.linalg.norm(arc[0] - arc[-1]))
        length = float(np.linalg.norm(np.diff(arc, axis=0), axis=1).sum())
        (closed if gap <= min(MAX_GAP, _GAPE * length) else open_).append(arc)
    return closed, open_


def _closed(
    name: str, part: str, pieces: list[Plane], partner: list[Plane] | None = None
) -> list[Plane]:
    """Closed outlines of arcs, which may need those of a partner to close."""
    closed, open_ = _split(pieces)
    if not open_:
        return closed
    outline, gap = joined(open_)
    if gap > MAX_GAP and partner:
        outline, gap = joined(open_ + partner)
    if gap > MAX_GAP:
        raise InputError(
            f"slice {name}: the {PARTS[part]} is open over {gap:.0f} mm, expected at most "
            f"{MAX_GAP:g} mm, and no contour closes it: draw what is missing."
        )
    return [*closed, outline]


def _require_nested(name: str, outlines: dict[str, list[Plane]], has_rv_wall: bool) -> None:
    for inner in ("LV", "RV") if has_rv_wall else ("LV",):
        if inner not in outlines or "epi" not in outlines:
            continue
        points = np.concatenate(outlines[inner])
        outside = distance_to_outlines(outlines["epi"], points).max()
        if outside > _SLIP:
            raise InputError(
                f"slice {name}: the epicardium does not enclose the {_NAMES[inner]}, which lies up "
                f"to {outside:.1f} mm outside of it: draw them anew."
            )
    if "LV" in outlines and "RV" in outlines:
        within = -distance_to_outlines(outlines["RV"], np.concatenate(outlines["LV"])).min()
        if within > _SLIP:
            raise InputError(
                f"slice {name}: the endocardium of the LV lies up to {within:.1f} mm within that "
                "of the RV: draw them anew."
            )


def distance_to_outlines(outlines: list[Plane], places: Plane) -> Float[np.ndarray, "point"]:
    """Distance [mm] of places to the union of outlines, negative inside of one.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging.contour_stack import distance_to_outlines
    >>> square = np.array([[0.0, 0], [4, 0], [4, 4], [0, 4]])
    >>> distance_to_outlines([square, square + 9.0], np.array([[2.0, 1.0], [10.0, 11.0]]))
    array([-1., -1.])
    """
    return np.min([signed_distance(outline, places) for outline in outlines], axis=0)


def _is_upright(stack: ContourStack) -> bool:
    """Whether heights grow towards the base: by the valves, else the apex, else the LV's size."""
    middle = np.mean([s.height for s in stack.slices])
    valves = np.concatenate(list(stack.valves.values()))
    if len(valves):
        return bool(valves[:, 2].mean() > middle)
    if len(stack.apex):
        return bool(stack.apex[:, 2].mean() < middle)
    size = [
        (s.height, sum(map(area, s.outlines["LV"]))) for s in stack.slices if "LV" in s.outlines
    ]
    return bool(size[-1][1] > size[0][1])


def _turned(stack: ContourStack) -> ContourStack:
    """The same seen from the other side: the second and the third axis turned over."""
    flip = np.array([1.0, -1.0, -1.0])

    def outlines(one: Slice) -> dict[str, list[Plane]]:
        return {name: [o * flip[:2] for o in found] for name, found in one.outlines.items()}

    return ContourStack(
        stack.axes * flip[:, None],
        [Slice(s.name, -s.height, outlines(s), s.has_rv_wall) for s in reversed(stack.slices)],
        {name: points * flip for name, points in stack.long_axis.items()},
        {name: points * flip for name, points in stack.valves.items()},
        stack.apex * flip,
    )
