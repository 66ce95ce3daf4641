"""A heart to look at: its surface and a half cut open, coloured by node values, from any side."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from twinheart.anatomy import Heart
from twinheart.anatomy.frame import heart_frame
from twinheart.mesh.quality import boundary_triangles
from twinheart.report.raster import corner_normals, rasterise
from twinheart.report.style import INK, MISSING, rgb

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

# Where the eye is: components along base, right ventricle and front of the heart.
VIEWS: dict[str, tuple[float, float, float]] = {
    "anterior": (0.0, 0.0, 1.0),
    "left lateral": (0.0, -1.0, 0.0),
    "posterior": (0.0, 0.0, -1.0),
    "right lateral": (0.0, 1.0, 0.0),
    "base": (1.0, 0.0, 0.0),
    "cut open": (0.3, 0.0, 1.0),
}
CUT = "cut open"

_FIELD = 1.1  # height of a picture in extents of the heart
_OBLIQUE = 1.07  # the same in greatest widths, which any other view fits into
_SUPERSAMPLING = 2
_LINE = 1.5  # width of an isoline in pixels of the picture
_FLAT = 1e-4  # bands a pixel; a plateau that lies on a limit has no isoline

# Light from everywhere, and lamps beside the eye: (right, up, strength)
_AMBIENT = 0.50
_LAMPS = ((-0.5, 0.6, 0.42), (0.9, 0.0, 0.17), (0.0, -1.0, 0.07))

# Edges of a tetrahedron, and the section of a plane through it, as edges in order: by the pattern
# of its corners in front of the plane (bit k: corner k)
_EDGES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
_SECTIONS = {
    0b0001: (0, 1, 2),
    0b0010: (0, 3, 4),
    0b0100: (1, 3, 5),
    0b1000: (2, 4, 5),
    0b0011: (1, 2, 4, 3),
    0b0101: (0, 2, 5, 3),
    0b1001: (0, 1, 5, 4),
}


class View(NamedTuple):
    """A direction of looking, in the coordinates of the mesh.

    Attributes
    ----------
    towards : (x, y, z)
        From the heart to the eye.
    up : (x, y, z)
        What is up in the picture; only its part across `towards` counts.
    """

    towards: tuple[float, float, float]
    up: tuple[float, float, float]


class Surface(NamedTuple):
    """Triangles between points that are weighted sums of two nodes each.

    Attributes
    ----------
    nodes : (point, 2) array
        Nodes of the mesh.
    weights : (point, 2) array
        Their weights.
    triangles : (triangle, 3) array
        Points, counter-clockwise seen from outside.
    normals : (triangle, 3, 3) array
        Unit normals at the corners.
    removed : (triangle, 3) array or None
        Where this is positive at the corners, the surface is cut away.
    """

    nodes: np.ndarray
    weights: np.ndarray
    triangles: np.ndarray
    normals: np.ndarray
    removed: np.ndarray | None

    def at(self, values: np.ndarray) -> np.ndarray:
        """Values at the points from values at the nodes (any trailing axes)."""
        weights = self.weights.reshape(*self.weights.shape, *[1] * (values.ndim - 1))
        return (weights * values[self.nodes]).sum(axis=1)

    def of_nearest(self, values: np.ndarray) -> np.ndarray:
        """Values at the points, each that of the node with the larger weight."""
        larger = self.weights.argmax(axis=1)
        return values[self.nodes[np.arange(len(larger)), larger]]


class Scene:
    """The surfaces of a heart, ready to be coloured; what each view shows is found once.

    Parameters
    ----------
    heart : Heart
        Its mesh is drawn, base up; the sides are found from its shape (`heart_frame`).

    Attributes
    ----------
    frame : HeartFrame
        Centre and axes.
    n_nodes : int
        Number of values a map must have.
    height_mm : float
        What the height (and width) of a picture of one view stands for [mm].
    """

    def __init__(self, heart: Heart):
        self.frame = heart_frame(heart.mesh)
        self.n_nodes = heart.mesh.n_nodes
        self._axes = np.stack([self.frame.base, self.frame.rv, self.frame.anterior])
        points, tets = heart.mesh.points, heart.mesh.tets
        along = (points[np.unique(tets)] - self.frame.centre) @ self._axes.T
        centre = self.frame.centre + (along.max(axis=0) + along.min(axis=0)) / 2 @ self._axes
        self._centre, self._points = centre, points - centre
        extent = float(np.ptp(along, axis=0).max())
        self.height_mm = _FIELD * extent
        height = (points - self.frame.centre) @ self.frame.anterior
        used = self._points[np.unique(tets)]
        self._hull = used[ConvexHull(used).vertices]
        self._widest = float(pdist(self._hull).max())
        self._whole = _outside(points, tets)
        self._half = _cut(self._whole, points, tets, height, self.frame.anterior)
        self._views: dict[tuple[str | View, int], _Shown] = {}

    def draw(
        self,
        values: Float[np.ndarray, "node"],
        view: str | View,
        *,
        colours: "Colormap",
        limits: Float[np.ndarray, "limit"],
        size: int = 600,
    ) -> UInt8[np.ndarray, "row column 3"]:
        """A square picture of one view, in colour bands with an isoline at each inner limit.

        Parameters
        ----------
        values : (node,) array
            What is shown; NaN is drawn grey.
        view : str or View
            A key of `VIEWS`, or any other.
        colours : Colormap
            Of matplotlib.
        limits : (limit,) array
            Limits of the bands, equally spaced.
        size : int
            Width and height in pixels.
        """
        shown = self._view(view, size)
        return shown.picture(shown.surface.at(np.asarray(values)), colours, limits, lines=True)

    def draw_classes(
        self,
        values: Int[np.ndarray, "node"],
        view: str | View,
        *,
        colours: Sequence[str],
        size: int = 600,
    ) -> UInt8[np.ndarray, "row column 3"]:
        """A square picture of one view, each place in the colour of its class, with outlines.

        Between two nodes the border is in the middle: no third class comes between them.

        Parameters
        ----------
        values : (node,) int array
            Class of each node, a place in `colours`.
        view : str or View
            A key of `VIEWS`, or any other.
        colours : sequence of str
            Of the classes.
        size : int
            Width and height in pixels.
        """
        shown = self._view(view, size)
        return shown.classes(shown.surface.of_nearest(np.asarray(values)), colours)

    def film(
        self,
        frames: Iterable[Float[np.ndarray, "node"]],
        views: Sequence[str],
        *,
        colours: "Colormap",
        limits: tuple[float, float],
        size: int = 360,
    ) -> Iterator[UInt8[np.ndarray, "row column 3"]]:
        """Pictures of several views side by side, one a frame, each drawn when it is asked for.

        Parameters
        ----------
        frames : iterable of (node,) arrays
            Values; one frame is held at a time.
        views : names
            Keys of `VIEWS`, from left to right.
        colours, limits : Colormap, (low, high)
            Smooth colours between the limits.
        size : int
            Width and height of one view in pixels.
        """
        smooth = np.linspace(*limits, 257)
        shown = [self._view(view, size) for view in views]
        for values in frames:
            parts = [
                one.picture(one.surface.at(values), colours, smooth, lines=False) for one in shown
            ]
            yield np.concatenate(parts, axis=1)

    def seen_from(
        self, points: Float[np.ndarray, "point 3"], view: str | View
    ) -> tuple[Float[np.ndarray, "point 3"], Float[np.ndarray, "3 3"]]:
        """Where points are in a picture of one view, to draw upon it.

        Parameters
        ----------
        points : (point, 3) array
            Positions [mm].
        view : str or View
            A key of `VIEWS`, or any other.

        Returns
        -------
        (point, 3) array, (3, 3) array
            To the right, upwards and towards the eye from the middle of the picture [mm]; these
            three directions as rows.
        """
        if isinstance(view, View):
            towards, up = np.array(view.towards), np.array(view.up)
        else:
            eye = VIEWS[view]
            towards = np.array(eye) @ self._axes
            # base up; looking at the base itself, the front of the heart is down, as if it lay
            # before the viewer
            up = -self.frame.anterior if eye[0] > 0.9 else self.frame.base
        towards = towards / np.linalg.norm(towards)
        up = up - towards * (up @ towards)
        up /= np.linalg.norm(up)
        axes = np.stack([np.cross(up, towards), up, towards])
        seen = (points - self._centre) @ axes.T
        if isinstance(view, View):  # oblique to the axes by which the heart was centred
            own = self._hull @ axes.T
            seen = seen - np.append((own.max(axis=0) + own.min(axis=0))[:2] / 2, 0.0)
        return seen, axes

    def field_mm(self, view: str | View) -> float:
        """What the height (and width) of a picture of a view stands for [mm]; one for all `View`s.

        Examples
        --------
        >>> from twinheart.anatomy import Heart
        >>> from twinheart.mesh.generate import slab
        >>> from twinheart.report.scene import Scene, View
        >>> scene = Scene(Heart(slab((8.0, 6.0, 2.0), 1.0)))
        >>> round(scene.field_mm("base"), 1), round(scene.field_mm(View((1, 1, 0), (0, 0, 1))), 1)
        (8.8, 10.9)
        """
        return _OBLIQUE * self._widest if isinstance(view, View) else self.height_mm

    def hidden(
        self, points: Float[np.ndarray, "point 3"], view: str | View, *, size: int, slack: float
    ) -> Bool[np.ndarray, "point"]:
        """Which points lie behind the surface that a picture of one view shows.

        Parameters
        ----------
        points : (point, 3) array
            Positions [mm].
        view : str or View
            A key of `VIEWS`, or any other.
        size : int
            Width and height of the picture in pixels.
        slack : float
            So far behind it they still count as seen [mm].
        """
        seen, _ = self.seen_from(points, view)
        depth = self._view(view, size).depth
        side = len(depth)
        scale = side / self.field_mm(view)
        column = np.clip(np.floor(seen[:, 0] * scale + side / 2), 0, side - 1).astype(int)
        row = np.clip(np.floor(side / 2 - seen[:, 1] * scale), 0, side - 1).astype(int)
        return seen[:, 2] + slack < depth[row, column]

    def _view(self, name: str | View, size: int) -> "_Shown":
        if (name, size) not in self._views:
            origin, axes = self.seen_from(self._centre[None], name)
            surface = self._half if name == CUT else self._whole
            scale = _SUPERSAMPLING * size / self.field_mm(name)
            points = self._points + origin @ axes
            self._views[name, size] = _Shown(surface, points, axes, scale, size)
        return self._views[name, size]


class _Shown:
    """What every pixel of one view shows, and how brightly."""

    def __init__(self, surface: Surface, points, axes: np.ndarray, scale: float, size: int):
        self.surface, self._size = surface, size
        side = _SUPERSAMPLING * size
        projected = surface.at(points) @ axes.T * scale
        projected[:, :2] += side / 2
        corners = projected[surface.triangles]
        seen = rasterise(corners, side, removed=surface.removed)
        depth = np.einsum("pk,pk->p", seen.weights, corners[seen.triangle][..., 2])
        self.depth = np.full(side * side, -np.inf, dtype=np.float32)  # [mm]
        self.depth[seen.pixel] = depth / scale
        self.depth = self.depth.reshape(side, side)
        self._pixel, self._weights = seen.pixel, seen.weights.astype(np.float32)
        self._corners = surface.triangles[seen.triangle]
        normals = np.einsum("pk,pkd->pd", seen.weights, surface.normals[seen.triangle]) @ axes.T
        normals /= np.maximum(np.linalg.norm(normals, axis=1), 1e-12)[:, None]
        shade = np.full(len(normals), _AMBIENT)
        for right, up, strength in _LAMPS:
            lamp = np.array([right, up, 1.0]) / np.linalg.norm([right, up, 1.0])
            shade += strength * np.maximum(normals @ lamp, 0.0)
        self._shade = shade.astype(np.float32)
        self._slopes = _slopes(corners[..., :2]).astype(np.float32)[seen.triangle]

    def picture(
        self, values: np.ndarray, colours: "Colormap", limits: np.ndarray, *, lines: bool
    ) -> np.ndarray:
        corner_values = values.astype(np.float32)[self._corners]
        shown = np.einsum("pk,pk->p", self._weights, corner_values)
        step = float(limits[1] - limits[0])
        place = (shown - float(limits[0])) / step
        bands = len(limits) - 1
        table = np.concatenate([colours(np.linspace(0, 1, bands))[:, :3], [rgb(MISSING)]])
        band = np.clip(np.nan_to_num(place), 0, bands - 1).astype(np.int32)
        band[np.isnan(place)] = bands
        cover = self._line_cover(place, corner_values, step, bands) if lines else None
        return self._composed((255 * table).astype(np.float32)[band], cover)

    def classes(self, values: np.ndarray, colours: Sequence[str]) -> np.ndarray:
        corners = values[self._corners]
        share = np.stack(
            [(self._weights * (corners == k)).sum(axis=1) for k in range(len(colours))], axis=1
        )
        rows = np.arange(len(share))
        most = share.argmax(axis=1)
        lead = share[rows, most]
        share[rows, most] = -1.0
        other = share.argmax(axis=1)
        lead -= share[rows, other]
        sides = (corners == most[:, None]).astype(np.float32) - (corners == other[:, None])
        steepness = np.linalg.norm(np.einsum("pk,pkd->pd", sides, self._slopes), axis=1)
        distance = lead / np.maximum(steepness, _FLAT)
        cover = np.clip(0.5 * _SUPERSAMPLING * _LINE - distance + 0.5, 0, 1)
        table = np.array([rgb(colour) for colour in colours], dtype=np.float32)
        return self._composed(255 * table[most], np.where(steepness > _FLAT, cover, 0.0))

    def _composed(self, colour: np.ndarray, cover: np.ndarray | None) -> np.ndarray:
        """The picture of colours in their shade, with lines over them."""
        colour = colour * self._shade[:, None]
        if cover is not None:
            colour += cover[:, None] * (255 * np.array(rgb(INK), dtype=np.float32) - colour)
        side = _SUPERSAMPLING * self._size
        canvas = np.full((side * side, 3), 255, dtype=np.uint16)
        canvas[self._pixel] = np.minimum(colour, 255)
        canvas = canvas.reshape(side, side, 3)
        strides = range(_SUPERSAMPLING)
        parts = [canvas[i::_SUPERSAMPLING, j::_SUPERSAMPLING] for i in strides for j in strides]
        return np.asarray(np.sum(parts, axis=0, dtype=np.uint16) // len(parts), dtype=np.uint8)

    def _line_cover(self, place, corner_values, step: float, bands: int) -> np.ndarray:
        """How much of each pixel an isoline covers: its distance from one, in pixels, is known."""
        level = np.clip(np.rint(place), 1, bands - 1)
        slope = np.einsum("pk,pkd->pd", corner_values, self._slopes) / step
        steepness = np.linalg.norm(slope, axis=1)
        distance = np.abs(place - level) / np.maximum(steepness, _FLAT)
        cover = np.clip(0.5 * _SUPERSAMPLING * _LINE - distance + 0.5, 0, 1)
        return np.where((steepness > _FLAT) & (bands > 1) & np.isfinite(cover), cover, 0.0)


def _slopes(corners: np.ndarray) -> np.ndarray:
    """Gradients of the barycentric coordinates in the picture [1/pixel], (triangle, 3, 2)."""
    edges = np.roll(corners, -1, axis=1) - np.roll(corners, 1, axis=1)  # opposite each corner
    double_area = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]
    double_area = np.where(double_area == 0, np.inf, double_area)
    turned = np.stack([-edges[..., 1], edges[..., 0]], axis=-1)
    return turned / double_area[:, None, None]


def _outside(points: np.ndarray, tets: np.ndarray) -> Surface:
    triangles = boundary_triangles(tets)
    used, local = np.unique(triangles, return_inverse=True)
    local = local.reshape(-1, 3)
    nodes = np.stack([used, used], axis=1)
    weights = np.tile([1.0, 0.0], (len(used), 1))
    return Surface(nodes, weights, local, corner_normals(points[used], local), None)


def _cut(
    outside: Surface, points: np.ndarray, tets: np.ndarray, height: np.ndarray, normal: np.ndarray
) -> Surface:
    """The part of a heart where `height` is not positive, closed by the section of its wall."""
    pattern = (height[tets] > 0) @ np.array([1, 2, 4, 8])
    pattern = np.minimum(pattern, 15 - pattern)  # a pattern and its opposite: the same section
    triangles = []
    for key, edges in _SECTIONS.items():
        crossed = tets[pattern == min(key, 15 - key)]
        ends = np.stack([crossed[:, _EDGES[edge]] for edge in edges], axis=1)
        triangles += [ends[:, [0, k, k + 1]] for k in range(1, len(edges) - 1)]
    ends = np.concatenate(triangles).reshape(-1, 2)
    share = height[ends[:, 0]] / (height[ends[:, 0]] - height[ends[:, 1]])
    section = Surface(
        ends,
        np.stack([1 - share, share], axis=1),
        np.arange(len(ends)).reshape(-1, 3),
        np.broadcast_to(normal, (len(ends) // 3, 3, 3)),
        None,
    )
    corners = section.at(points)[section.triangles]
    area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    clockwise = area @ normal < 0
    section.triangles[clockwise] = section.triangles[clockwise][:, ::-1]
    return Surface(
        np.concatenate([outside.nodes, section.nodes]),
        np.concatenate([outside.weights, section.weights]),
        np.concatenate([outside.triangles, section.triangles + len(outside.nodes)]),
        np.concatenate([outside.normals, section.normals]),
        np.concatenate([outside.at(height)[outside.triangles], np.zeros(section.triangles.shape)]),
    )
