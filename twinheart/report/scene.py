"""A heart to look at: its surface and a half cut open, coloured by node values, from any side."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from twinheart.anatomy import Heart
from twinheart.ecg.frame import heart_frame
from twinheart.fem.assembly import gradients
from twinheart.mesh.quality import boundary_triangles
from twinheart.report.render import rendering
from twinheart.report.style import INK, MISSING, PAPER

if TYPE_CHECKING:
    import pyvista as pv
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
_SHARP = 50.0  # degrees; the rim of the base stays an edge, the walls are shaded smoothly

# Lights beside the eye: (right, up, strength)
_LIGHTS = ((-0.5, 0.6, 0.80), (0.9, 0.0, 0.34), (0.0, -1.0, 0.14))


class Scene:
    """The surfaces of a heart, ready to be coloured.

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
        self._centre = self.frame.centre + (along.max(axis=0) + along.min(axis=0)) / 2 @ self._axes
        self._extent = float(np.ptp(along, axis=0).max())
        self.height_mm = _FIELD * self._extent
        triangles = boundary_triangles(tets)
        nodes, local = np.unique(triangles, return_inverse=True)
        one = np.ones((len(nodes), 1))
        self._whole = _Surface(points[nodes], local.reshape(-1, 3), nodes[:, None], one)
        self._half = self._posterior_half(points, tets)

    def _posterior_half(self, points: np.ndarray, tets: np.ndarray) -> "_Surface":
        import pyvista as pv

        grid = pv.UnstructuredGrid({pv.CellType.TETRA: tets}, points)
        grid.cell_data["tet"] = np.arange(len(tets))
        half = grid.clip(normal=self.frame.anterior, origin=self.frame.centre, invert=True)
        surface = half.extract_surface(algorithm=None, pass_pointid=False, pass_cellid=False)
        surface = surface.triangulate()
        triangles = np.asarray(surface.regular_faces)
        # every point of the cut lies in the tetrahedron its triangle comes from
        tet_of_point = np.zeros(surface.n_points, dtype=np.int64)
        tet_of_point[triangles] = np.asarray(surface.cell_data["tet"])[:, None]
        corners = np.asarray(surface.points, dtype=np.float64)
        nodes = tets[tet_of_point]
        grad, _ = gradients(points, nodes)
        weights = np.einsum("pkd,pkd->pk", grad, corners[:, None] - points[nodes]) + 1.0
        return _Surface(corners, triangles, nodes, weights)

    def draw(
        self,
        values: Float[np.ndarray, "node"],
        view: str,
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
        view : str
            A key of `VIEWS`.
        colours : Colormap
            Of matplotlib.
        limits : (limit,) array
            Limits of the bands.
        size : int
            Width and height in pixels.

        Raises
        ------
        OutputError
            If nothing can be drawn on this machine.
        """
        with self._plotter((size, size)) as plotter:
            shown = self._show(plotter, view, values, colours, limits)
            plotter.enable_anti_aliasing("ssaa")
            if len(limits) > 2:
                isolines = shown.contour(list(limits[1:-1]), scalars="values")
                if isolines.n_points:
                    tubes = isolines.tube(radius=0.0022 * self._extent, n_sides=8)
                    plotter.add_mesh(tubes, color=INK, lighting=False, show_scalar_bar=False)
            return plotter.screenshot(None, return_img=True)

    def film(
        self,
        frames: Iterator[Float[np.ndarray, "node"]],
        views: Sequence[str],
        *,
        colours: "Colormap",
        limits: tuple[float, float],
        size: int = 360,
    ) -> Iterator[UInt8[np.ndarray, "row column 3"]]:
        """Pictures of several views side by side, one a frame, each drawn when it is asked for.

        Parameters
        ----------
        frames : iterator of (node,) arrays
            Values; one frame is held at a time.
        views : names
            Keys of `VIEWS`, from left to right.
        colours, limits : Colormap, (low, high)
            Smooth colours between the limits.
        size : int
            Width and height of one view in pixels.

        Raises
        ------
        OutputError
            If nothing can be drawn on this machine.
        """
        from PIL import Image

        smooth = np.linspace(*limits, 257)
        shown: list[pv.PolyData] = []
        # a larger picture made smaller looks as smooth as multisampling in half its time
        large = 3 * size // 2
        with self._plotter((large * len(views), large), (1, len(views))) as plotter:
            for values in frames:
                if not shown:
                    for column, view in enumerate(views):
                        plotter.subplot(0, column)
                        shown.append(self._show(plotter, view, values, colours, smooth))
                for surface, view in zip(shown, views, strict=True):
                    surface.point_data["values"] = self._surface(view).at(values)
                plotter.render()  # the screenshot alone would show the first frame again
                picture = Image.fromarray(plotter.screenshot(None, return_img=True))
                yield np.asarray(
                    picture.resize((size * len(views), size), Image.Resampling.BICUBIC)
                )

    def _surface(self, view: str) -> "_Surface":
        return self._half if view == CUT else self._whole

    @contextmanager
    def _plotter(self, size: tuple[int, int], shape: tuple[int, int] = (1, 1)) -> Iterator[Any]:
        import pyvista as pv

        with rendering():
            plotter = pv.Plotter(
                off_screen=True, window_size=list(size), shape=shape, border=False, lighting="none"
            )
            try:
                yield plotter
            finally:
                plotter.close()

    def _show(self, plotter, view, values, colours, limits) -> "pv.PolyData":
        import pyvista as pv

        surface = self._surface(view)
        shown = pv.PolyData.from_regular_faces(surface.points, surface.triangles)
        shown.point_data["values"] = surface.at(np.asarray(values, dtype=np.float64))
        shown.point_data.active_normals = surface.normals
        plotter.set_background(PAPER)
        actor = plotter.add_mesh(
            shown,
            scalars="values",
            cmap=colours,
            clim=(float(limits[0]), float(limits[-1])),
            n_colors=len(limits) - 1,
            nan_color=MISSING,
            show_scalar_bar=False,
            copy_mesh=False,
            ambient=0.50,
            diffuse=0.50,
            specular=0.05,
            specular_power=10,
        )
        actor.prop.interpolation = "Phong"
        self._look(plotter, VIEWS[view])
        return shown

    def _look(self, plotter, eye: tuple[float, float, float]) -> None:
        import pyvista as pv

        towards = np.array(eye) @ self._axes
        towards /= np.linalg.norm(towards)
        # base up; looking at the base itself, the front of the heart is down, nearest the viewer
        up = -self.frame.anterior if eye[0] > 0.9 else self.frame.base
        right = np.cross(up, towards)
        plotter.camera.position = tuple(self._centre + 5 * self._extent * towards)
        plotter.camera.focal_point = tuple(self._centre)
        plotter.camera.up = tuple(up)
        plotter.camera.enable_parallel_projection()
        plotter.camera.parallel_scale = self.height_mm / 2
        plotter.camera.clipping_range = (self._extent, 10 * self._extent)
        for to_right, upwards, strength in _LIGHTS:
            place = self._centre + 10 * self._extent * (towards + to_right * right + upwards * up)
            light = pv.Light(
                position=tuple(place), focal_point=tuple(self._centre), intensity=strength
            )
            light.set_scene_light()
            plotter.add_light(light, only_active=True)


class _Surface:
    """Triangles whose point values are weighted sums of node values; sharp edges are split."""

    def __init__(self, points, triangles, nodes, weights):
        import pyvista as pv

        surface = pv.PolyData.from_regular_faces(points, triangles)
        surface.point_data["origin"] = np.arange(len(points))
        surface = surface.compute_normals(
            cell_normals=False, split_vertices=True, feature_angle=_SHARP, consistent_normals=False
        )
        origin = np.asarray(surface.point_data["origin"])
        self.points = np.asarray(surface.points)
        self.triangles = np.asarray(surface.regular_faces)
        self.normals = np.asarray(surface.point_data["Normals"])
        # a node that takes no part must not spread its NaN
        used = weights[origin] > 1e-6
        largest = np.take_along_axis(nodes, weights.argmax(axis=1)[:, None], axis=1)[origin]
        self._nodes = np.where(used, nodes[origin], largest)
        self._weights = np.where(used, weights[origin], 0.0)

    def at(self, values: np.ndarray) -> np.ndarray:
        return np.einsum("pk,pk->p", self._weights, values[self._nodes])
