"""The body around a heart: its axes, its landmarks, and a template where there is no image of it.

Positions in the body are (left, front, head) in mm from the chest's centre: the middle of the chest
at the level of the fourth intercostal space. Like the heart's own axes (`frame`), the body's are
found from shapes, so that no coordinate system is presumed.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize
from scipy.spatial import KDTree

from twinheart.anatomy.frame import heart_frame
from twinheart.errors import InputError, MeshError
from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.quality import enclosed_volume, triangle_areas

# An average adult lying on the back [mm]: width and depth of the chest at the fourth intercostal
# space, length of the trunk from the hips to the top of the shoulders, and where the centre of the
# filled ventricles lies.
CHEST_WIDTH, CHEST_DEPTH, TRUNK_HEIGHT = 300.0, 222.0, 500.0
HEART_AT = (25.0, 35.0, -30.0)

# The template: share of the trunk below the chest's centre, and its outline at heights [trunk
# heights above the chest's centre] as shares of the chest's half width and half depth.
_BELOW = 0.72
_HEIGHTS = (-0.72, -0.50, -0.28, 0.0, 0.12, 0.22, 0.28)
_WIDTHS = (0.98, 1.04, 0.90, 1.00, 1.14, 1.24, 1.26)
_DEPTHS = (0.92, 0.95, 0.88, 1.00, 0.92, 0.76, 0.66)
_TOP = 0.3  # from the shoulders down to the fourth intercostal space, of a trunk's length
_ROUNDNESS = 2.4  # exponent of the superellipses: 2 is an ellipse, more is squarer
_CAPS = 6.0  # exponent with which the outline closes at both ends
_RANGES = {"width": (60.0, 800.0), "depth": (40.0, 600.0), "height": (120.0, 1200.0)}


class BodyFrame(eqx.Module):
    """Where a body's chest is, how large it is, and where left, front and head are.

    Parameters
    ----------
    centre : (3,) array
        Middle of the chest, midway between left and right, front and back, at the level of the
        fourth intercostal space [mm].
    axes : (3, 3) array
        Unit vectors to the body's left, front and head, one a row.
    width, depth : float
        Of the chest at that level [mm].
    """

    centre: Float[np.ndarray, "3"]
    axes: Float[np.ndarray, "3 3"]
    width: float
    depth: float

    def to_body(self, points: Float[np.ndarray, "point 3"]) -> Float[np.ndarray, "point 3"]:
        """Positions in mesh coordinates as (left, front, head) from the chest's centre [mm]."""
        return (points - self.centre) @ self.axes.T

    def from_body(self, points: Float[np.ndarray, "point 3"]) -> Float[np.ndarray, "point 3"]:
        """Positions (left, front, head) from the chest's centre in mesh coordinates [mm]."""
        return self.centre + np.asarray(points, dtype=float) @ self.axes


def template_body(
    heart: TetMesh,
    *,
    width: float = CHEST_WIDTH,
    depth: float = CHEST_DEPTH,
    height: float = TRUNK_HEIGHT,
    heart_at: tuple[float, float, float] | None = None,
) -> tuple[TriMesh, BodyFrame]:
    """A smooth closed trunk around a heart, fitted to a few landmarks.

    Parameters
    ----------
    heart : TetMesh
        Ventricles [mm]; the trunk is laid around them by their own axes (`heart_frame`).
    width, depth : float
        Of the chest at the fourth intercostal space [mm]; reproduced exactly.
    height : float
        From the hips to the top of the shoulders [mm]; reproduced exactly.
    heart_at : (3,) sequence of float, optional
        Where the centre of the filled ventricles lies: mm to the left, front and head of the
        chest's centre. By default (25, 35, -30), scaled with the chest.

    Returns
    -------
    TriMesh, BodyFrame
        The skin, normals outwards, and the body's axes, in the coordinates of the heart.

    Raises
    ------
    InputError
        If a landmark is outside what a child's or an adult's trunk can have.
    MeshError
        If the heart has no axes.

    Notes
    -----
    Every horizontal section is a superellipse :math:`|x/a|^n + |y/b|^n = 1`, n = 2.4, whose
    half axes vary smoothly from hips to shoulders; both ends close as a superellipsoid.

    Examples
    --------
    >>> from twinheart.anatomy import demo_heart
    >>> from twinheart.anatomy.body import template_body
    >>> skin, frame = template_body(demo_heart().mesh, width=320.0)
    >>> frame.width, skin.n_triangles > 1000
    (320.0, True)
    """
    for name, value in (("width", width), ("depth", depth), ("height", height)):
        low, high = _RANGES[name]
        if not low <= value <= high:
            raise InputError(
                f"the {name} of the body is {value:g} mm, expected {low:g} to {high:g} mm."
            )
    at = np.asarray(typical_heart_place(width, depth) if heart_at is None else heart_at, float)
    if at.shape != (3,) or not np.isfinite(at).all():
        raise InputError(
            f"the heart's position is {heart_at}, expected three numbers: mm to the left, front "
            "and head of the chest's centre."
        )
    heart_axes = heart_frame(heart)
    axes = heart_axes.from_patient(np.eye(3))
    frame = BodyFrame(heart_axes.centre - at @ axes, axes, float(width), float(depth))
    points, triangles = _trunk(width, depth, height)
    points = frame.from_body(points)
    if enclosed_volume(points, triangles) < 0:  # (left, front, head) is a left-handed triple
        triangles = triangles[:, ::-1]
    return TriMesh(points, triangles), frame


def typical_heart_place(width: float, depth: float) -> tuple[float, float, float]:
    """Where the heart's centre lies in an average chest of this width and depth [mm].

    Examples
    --------
    >>> from twinheart.anatomy.body import typical_heart_place
    >>> typical_heart_place(300.0, 222.0)
    (25.0, 35.0, -30.0)
    """
    left, front, head = HEART_AT
    wide, deep = width / CHEST_WIDTH, depth / CHEST_DEPTH
    return left * wide, front * deep, head * wide


def body_frame(
    skin: TriMesh,
    heart: TetMesh,
    *,
    orientation: str | None = None,
) -> BodyFrame:
    """Find the axes and the chest of a body from its skin and the heart in it.

    Parameters
    ----------
    skin : TriMesh
        Closed surface of a trunk, normals outwards [mm].
    heart : TetMesh
        Ventricles in the same coordinates.
    orientation : str, optional
        Where x, y and z point, in three letters of R/L, A/P and S/I, such as ``LPS`` or ``RAS``.
        By default the shapes tell: the body is symmetric, and its left, front and head are nearest
        to those that the heart shows.

    Returns
    -------
    BodyFrame
        The fourth intercostal space is taken a tenth of the chest's width above the centre of
        the filled ventricles, as in the average adult.

    Raises
    ------
    InputError
        If `orientation` is not understood.
    MeshError
        If the chest cannot be found: the heart is not inside the skin.

    Examples
    --------
    >>> from twinheart.anatomy import demo_heart
    >>> from twinheart.anatomy.body import body_frame, template_body
    >>> heart = demo_heart().mesh
    >>> skin, made = template_body(heart, width=320.0)
    >>> abs(body_frame(skin, heart).width - made.width) < 3.0
    True
    """
    ventricles = heart_frame(heart)
    if orientation is None:
        axes = _axes_of_shape(skin, ventricles.from_patient(np.eye(3)))
    else:
        axes = axes_of(orientation)
    centre, width, depth = ventricles.centre, CHEST_WIDTH, CHEST_DEPTH
    for _ in range(3):  # the level depends on the width, and the width a little on the level
        level = -HEART_AT[2] * width / CHEST_WIDTH
        centre = centre + (level - (centre - ventricles.centre) @ axes[2]) * axes[2]
        centre, width, depth = _middle(skin, axes, centre)
    return BodyFrame(centre, axes, width, depth)


def axes_of(orientation: str) -> Float[np.ndarray, "3 3"]:
    """Unit vectors to the left, front and head in coordinates such as ``LPS`` or ``RAS``.

    Raises
    ------
    InputError
        If it is not one letter each of R/L, A/P and S/I.

    Examples
    --------
    >>> from twinheart.anatomy.body import axes_of
    >>> axes_of("LPS")[1]
    array([ 0., -1.,  0.])
    """
    pairs = ("LR", "AP", "SI")
    axes = np.zeros((3, 3))
    for column, letter in enumerate(orientation.upper()[:3]):
        for row, pair in enumerate(pairs):
            if letter in pair:
                axes[row, column] = 1.0 if letter == pair[0] else -1.0
    if len(orientation) != 3 or not (np.abs(axes).sum(axis=1) == 1).all():
        raise InputError(
            f"orientation is '{orientation}', expected where x, y and z point: one letter each of "
            "R/L, A/P and S/I, such as LPS or RAS."
        )
    return axes


def skin_along(
    skin: TriMesh, origin: Float[np.ndarray, "3"], direction: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "3"]:
    r"""Where a ray from inside a closed surface leaves it first.

    Parameters
    ----------
    skin : TriMesh
        Closed surface, normals outwards [mm].
    origin, direction : (3,) array
        Start [mm] and direction of the ray.

    Returns
    -------
    (3,) array
        Point on the surface [mm].

    Raises
    ------
    MeshError
        If the ray does not leave the surface: the origin lies outside.

    References
    ----------
    Moller & Trumbore 1997, doi:10.1080/10867651.1997.10487468.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh import TriMesh
    >>> from twinheart.anatomy.body import skin_along
    >>> corners = np.vstack([np.zeros(3), np.eye(3)])
    >>> skin = TriMesh(corners, [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    >>> skin_along(skin, np.full(3, 0.1), np.array([1.0, 0.0, 0.0]))
    array([0.8, 0.1, 0.1])
    """
    corner, second, third = (skin.points[skin.triangles[:, k]] for k in range(3))
    a, b = second - corner, third - corner
    outwards = np.cross(a, b) @ direction
    rising = outwards > 1e-12 * np.abs(outwards).max(initial=1e-300)
    corner, a, b, outwards = corner[rising], a[rising], b[rising], outwards[rising]
    across = np.cross(origin - corner, direction)
    u = -np.einsum("ti,ti->t", across, b) / outwards
    v = np.einsum("ti,ti->t", across, a) / outwards
    along = -np.einsum("ti,ti->t", origin - corner, np.cross(a, b)) / outwards
    hit = (u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9) & (along > 0)
    if not hit.any():
        raise MeshError(
            f"the point ({', '.join(f'{x:.0f}' for x in origin)}) mm lies outside the torso "
            "surface: check that heart and torso are in the same coordinates."
        )
    return origin + along[hit].min() * direction


def nearest_on_skin(
    skin: TriMesh, points: Float[np.ndarray, "point 3"]
) -> Float[np.ndarray, "point 3"]:
    """Nearest points on a surface.

    Parameters
    ----------
    skin : TriMesh
        Surface [mm].
    points : (point, 3) array
        A few positions: each is compared with every triangle.

    Returns
    -------
    (point, 3) array
        Positions on the surface.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh import TriMesh
    >>> from twinheart.anatomy.body import nearest_on_skin
    >>> flat = TriMesh([[0.0, 0, 0], [4, 0, 0], [0, 4, 0]], [[0, 1, 2]])
    >>> nearest_on_skin(flat, np.array([[1.0, 1.0, 5.0], [-3.0, 1.0, 0.0]]))
    array([[1., 1., 0.],
           [0., 1., 0.]])
    """
    corners = skin.points[skin.triangles]
    sides = np.roll(corners, -1, axis=1) - corners
    normal = np.cross(sides[:, 0], sides[:, 1])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-300)
    inwards = np.cross(normal[:, None], sides)
    length = np.maximum((sides**2).sum(axis=2), 1e-300)
    found = np.empty((len(points), 3))
    for k, point in enumerate(np.asarray(points, dtype=float)):
        away = point - corners
        along = np.clip((away * sides).sum(axis=2) / length, 0.0, 1.0)
        on_sides = (corners + along[..., None] * sides).reshape(-1, 3)
        over = ((away * inwards).sum(axis=2) >= 0).all(axis=1)
        height = (away[over, 0] * normal[over]).sum(axis=1)
        options = np.concatenate([on_sides, point - height[:, None] * normal[over]])
        found[k] = options[((options - point) ** 2).sum(axis=1).argmin()]
    return found


def lay_around(
    skin: TriMesh,
    heart: TetMesh,
    *,
    orientation: str,
    heart_at: tuple[float, float, float] | None = None,
) -> tuple[TriMesh, BodyFrame]:
    """Move a body of other coordinates around a heart, which stays where it is.

    Parameters
    ----------
    skin : TriMesh
        Closed surface of a trunk, normals outwards [mm].
    heart : TetMesh
        Ventricles; their own axes (`heart_frame`) say how they lie in the body.
    orientation : str
        Where x, y and z of the skin point, such as ``LPS`` or ``RAS``.
    heart_at : (3,) sequence of float, optional
        Where the centre of the ventricles is to lie: mm to the left, front and head of the
        chest's centre; by default as in an average chest of this size.

    Returns
    -------
    TriMesh, BodyFrame
        The moved skin, and the body's axes. The fourth intercostal space is taken three tenths of
        the trunk's length below its top.

    Raises
    ------
    InputError
        If `orientation` is not understood.

    Examples
    --------
    >>> from twinheart.anatomy import demo_heart
    >>> from twinheart.anatomy.body import lay_around, template_body
    >>> from twinheart.mesh import TriMesh
    >>> heart = demo_heart().mesh
    >>> skin, frame = template_body(heart)
    >>> elsewhere = TriMesh(frame.to_body(skin.points) * [-1, 1, 1] + 1000.0, skin.triangles)
    >>> abs(lay_around(elsewhere, heart, orientation="RAS")[1].width - frame.width) < 10.0
    True
    """
    axes = axes_of(orientation)
    along = skin.points @ axes.T
    low, high = along.min(axis=0), along.max(axis=0)
    start = (low + high) / 2
    start[2] = high[2] - _TOP * (high[2] - low[2])
    centre, width, depth = _middle(skin, axes, start @ axes)
    at = typical_heart_place(width, depth) if heart_at is None else heart_at
    ventricles = heart_frame(heart)
    there = ventricles.from_patient(np.eye(3))
    frame = BodyFrame(ventricles.centre - np.asarray(at, float) @ there, there, width, depth)
    points = frame.from_body(BodyFrame(centre, axes, width, depth).to_body(skin.points))
    mirrored = np.linalg.det(axes) * np.linalg.det(there) < 0
    return TriMesh(points, skin.triangles[:, ::-1] if mirrored else skin.triangles), frame


def _middle(skin: TriMesh, axes: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Middle of the horizontal section through a point, its width and its depth."""
    size = np.zeros(2)
    for _ in range(3):
        for k in (1, 0):
            a, b = (skin_along(skin, inside, sign * axes[k]) for sign in (1, -1))
            inside = inside + ((a + b) / 2 - inside) @ axes[k] * axes[k]
            size[k] = (a - b) @ axes[k]
    return inside, float(size[0]), float(size[1])


def _trunk(width: float, depth: float, height: float) -> tuple[np.ndarray, np.ndarray]:
    """Rings of points about the axis of the trunk and their triangles, in the body's own axes."""
    n_rings, n_around = 49, 64
    s = np.sin(np.linspace(-np.pi / 2, np.pi / 2, n_rings + 2)[1:-1])  # -1 at the hips, 1 on top
    chest = 2 * _BELOW - 1
    s[np.argmin(np.abs(s - chest))] = chest  # a ring at the level where the landmarks are
    closing = (1 - np.abs(s) ** _CAPS) ** (1 / _CAPS) / (1 - chest**_CAPS) ** (1 / _CAPS)
    up = (s + 1) / 2 - _BELOW
    half_width = width / 2 * closing * CubicSpline(_HEIGHTS, _WIDTHS)(up)
    half_depth = depth / 2 * closing * CubicSpline(_HEIGHTS, _DEPTHS)(up)
    around = 2 * np.pi * np.arange(n_around) / n_around
    ring = np.stack([np.cos(around), np.sin(around)], axis=1).round(15)
    ring = np.sign(ring) * np.abs(ring) ** (2 / _ROUNDNESS)
    rings = np.empty((n_rings, n_around, 3))
    rings[..., 0] = half_width[:, None] * ring[:, 0]
    rings[..., 1] = half_depth[:, None] * ring[:, 1]
    rings[..., 2] = height * up[:, None]
    poles = [[0.0, 0.0, -_BELOW * height], [0.0, 0.0, (1 - _BELOW) * height]]
    points = np.concatenate([rings.reshape(-1, 3), poles])
    node = np.arange(n_rings * n_around).reshape(n_rings, n_around)
    here, there = node, np.roll(node, -1, axis=1)
    low, high = n_rings * n_around, n_rings * n_around + 1
    sides = [
        np.stack([here[:-1], there[:-1], there[1:]], axis=2).reshape(-1, 3),
        np.stack([here[:-1], there[1:], here[1:]], axis=2).reshape(-1, 3),
        np.stack([there[0], here[0], np.full(n_around, low)], axis=1),
        np.stack([here[-1], there[-1], np.full(n_around, high)], axis=1),
    ]
    return points, np.concatenate(sides)


def _axes_of_shape(skin: TriMesh, guess: np.ndarray) -> np.ndarray:
    """Axes of a symmetric trunk, wider than deep, nearest to a guess of left, front and head."""
    points, weights = _samples(skin)
    points = points - weights @ points
    tree = KDTree(points)

    def asymmetry(tilt: np.ndarray) -> float:
        normal = guess[0] + tilt @ guess[1:]
        normal = normal / np.linalg.norm(normal)
        offset = 2 * (points @ normal)[:, None] * normal
        return float(weights @ tree.query(points - offset)[0] ** 2)

    options = {"initial_simplex": [[0.0, 0.0], [0.3, 0.0], [0.0, 0.3]], "xatol": 1e-3}
    tilt = minimize(asymmetry, np.zeros(2), method="Nelder-Mead", options=options).x
    left = guess[0] + tilt @ guess[1:]
    left = left / np.linalg.norm(left)
    # within the plane of symmetry the trunk is longest from hips to shoulders
    flat = points - (points @ left)[:, None] * left
    principal = np.linalg.eigh((flat * weights[:, None]).T @ flat)[1].T[1:]
    head = principal[np.argmax(np.abs(principal @ guess[2]))]
    head = head * np.sign(head @ guess[2])
    front = np.cross(head, left)
    return np.stack([left, front * np.sign(front @ guess[1]), head])


def _samples(skin: TriMesh, most: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Centres of triangles and their shares of the area; every n-th where there are many."""
    every = max(1, skin.n_triangles // most)
    triangles = skin.triangles[::every]
    area = triangle_areas(skin.points, triangles)
    return skin.points[triangles].mean(axis=1), area / area.sum()
