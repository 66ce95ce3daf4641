"""Moving an electro-anatomical map onto the heart: landmarks, then the surface."""

from collections.abc import Callable, Mapping, Sequence

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from twinheart.calibration.mapping import ElectroAnatomicalMap, RigidMotion
from twinheart.calibration.mapping_surface import HeartSurface
from twinheart.errors import InputError
from twinheart.mesh.quality import triangle_normals
from twinheart.types import Array

# The wall of the left ventricle moves by 10.2 +- 2.7 mm within a beat (27 patients, Roujol et al.
# 2013, doi:10.1371/journal.pone.0078852): what lies farther off was not measured on this wall.
MAX_DISTANCE = 10.0

# The fit ends where no point moves by more than this [mm], or where the misfit falls by less than
# this share of what one point adds to it: far below what the points can tell.
_STILL, _NEGLIGIBLE = 1e-3, 0.01
_STEPS, _HALVINGS = 100, 10
_FEW = 1000  # points of the first fit, evenly taken
_COLLINEAR = 0.1  # spread of landmarks across their line over that along it
_ENOUGH = 0.5  # share of the points that must lie on the wall after registration

Place = Float[Array, "3"] | Sequence[float | int]
Landmarks = Mapping[str, tuple[Place, Place]]
# Distances to the surface -> which of them pull, and what all of them cost
Loss = Callable[[Float[np.ndarray, "point"]], tuple[Bool[np.ndarray, "point"], float]]


class Registration(eqx.Module):
    """A map on the heart, and how well it lies there.

    Parameters
    ----------
    map : ElectroAnatomicalMap
        The points on the wall, in the coordinates of the heart.
    motion : RigidMotion
        From the mapping system to the heart.
    distances : (point,) array
        From each of these points to the surface [mm].
    outliers : tuple of int
        Numbers of the points that were dropped, ascending.
    landmark_errors : dict of float
        What is left between both places of each landmark [mm].
    max_distance : float
        Distance beyond which a point was dropped [mm].
    """

    map: ElectroAnatomicalMap
    motion: RigidMotion
    distances: Float[np.ndarray, "point"]
    outliers: tuple[int, ...] = eqx.field(static=True)
    landmark_errors: dict[str, float]
    max_distance: float

    @property
    def mean(self) -> float:
        """Mean distance to the surface [mm]."""
        return float(self.distances.mean())

    @property
    def p95(self) -> float:
        """Distance that 95 % of the points do not exceed [mm]."""
        return float(np.quantile(self.distances, 0.95))

    def sentences(self) -> list[str]:
        """What the registration left, for the user."""
        n = len(self.distances)
        said = [f"{n} points lie {self.mean:.1f} mm from the wall, 95 % within {self.p95:.1f} mm"]
        if self.outliers:
            said.append(
                f"{len(self.outliers)} of {n + len(self.outliers)} points lie more than "
                f"{self.max_distance:g} mm from the wall and were left out: "
                f"{', '.join(map(str, self.outliers))}"
            )
        errors = [f"{name} {error:.1f} mm" for name, error in self.landmark_errors.items()]
        return said + ([f"landmarks are left apart: {', '.join(errors)}"] if errors else [])


def landmark_motion(landmarks: Landmarks, *, scale: bool = False) -> RigidMotion:
    """The motion that brings landmarks of a map nearest to those of the heart.

    Parameters
    ----------
    landmarks : mapping of str to (place in the map, place in the heart)
        At least three, not on one line [mm].
    scale : bool
        Let the size change, too.

    Returns
    -------
    RigidMotion
        Least squares; never a mirror image.

    Raises
    ------
    InputError
        If there are fewer than three, a place is no three numbers, or they lie on a line.

    References
    ----------
    Umeyama 1991, doi:10.1109/34.88573.

    Examples
    --------
    >>> from twinheart.calibration.mapping_registration import landmark_motion
    >>> motion = landmark_motion({
    ...     "apex": ([0, 0, 0], [5, 0, 0]), "aorta": ([9, 0, 0], [5, 9, 0]),
    ...     "septum": ([0, 9, 0], [-4, 0, 0])})
    >>> motion.rotation.round(9) + 0.0
    array([[ 0., -1.,  0.],
           [ 1.,  0.,  0.],
           [ 0.,  0.,  1.]])
    """
    source, target = _pairs(landmarks)
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    for name, spread in (("map", a), ("heart", b)):
        size = np.linalg.svd(spread, compute_uv=False)
        if size[1] <= _COLLINEAR * size[0]:
            raise InputError(
                f"the landmarks of the {name} lie on one line, around which the map could turn: "
                "add one beside it."
            )
    u, sizes, vt = np.linalg.svd(b.T @ a)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = (u * signs) @ vt
    factor = float((sizes * signs).sum() / (a**2).sum()) if scale else 1.0
    return RigidMotion(
        rotation, target.mean(axis=0) - factor * rotation @ source.mean(axis=0), factor
    )


def register(
    measured: ElectroAnatomicalMap,
    surface: HeartSurface,
    landmarks: Landmarks | None = None,
    *,
    already_registered: bool = False,
    scale: bool = False,
    by_shell: bool = False,
    max_distance: float = MAX_DISTANCE,
    trim: float = 0.1,
    landmark_weight: float = 1.0,
) -> Registration:
    """Move a map onto the heart: by landmarks, then by the surface.

    Parameters
    ----------
    measured : ElectroAnatomicalMap
        The map in the coordinates of its mapping system.
    surface : HeartSurface
        The wall it was measured on, see `heart_surface`.
    landmarks : mapping of str to (place in the map, place in the heart), optional
        At least three places known in both [mm], not on one line.
    already_registered : bool
        The map is in the coordinates of the heart: nothing is moved, landmarks are not needed.
    scale : bool
        Let the landmarks change the size, too; the surface never does.
    by_shell : bool
        Fit the vertices of the shell to the surface instead of the measured points.
    max_distance : float
        Points farther from the surface after registration are dropped and named [mm].
    trim : float
        Share of the points, those farthest away, that the first fit leaves out.
    landmark_weight : float
        Weight of a landmark against one point in the fit.

    Returns
    -------
    Registration
        The points on the wall in the coordinates of the heart, distances, and what was dropped.

    Raises
    ------
    InputError
        If landmarks are missing, too few or on a line, or fewer than half of the points come to
        lie on the surface.

    Notes
    -----
    Two fits of point to surface (iterative closest points with exact distances to the triangles,
    Gauss-Newton steps that never raise the misfit): the first of all points but the farthest
    (trimmed, Chetverikov et al. 2005, doi:10.1016/j.imavis.2004.05.007), the second of all within
    `max_distance`. Landmarks stay in both, because the surface of a ventricle hardly resists a
    turn around its long axis (Reddy et al. 2004, doi:10.1016/j.jacc.2004.08.063).

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.calibration.mapping import ElectroAnatomicalMap
    >>> from twinheart.calibration.mapping_registration import register
    >>> from twinheart.calibration.mapping_surface import heart_surface
    >>> from twinheart.mesh.generate import lv_ellipsoid
    >>> from twinheart.mesh.implicit import SurfaceClass
    >>> surface = heart_surface(lv_ellipsoid(edge=4.0), [SurfaceClass.LV_ENDOCARDIUM])
    >>> away = surface.points[::5] + [100.0, 0.0, 0.0]
    >>> marks = {f"mark {k}": (surface.points[k] + [100.0, 0, 0], surface.points[k])
    ...          for k in (0, 300, 600)}
    >>> found = register(ElectroAnatomicalMap(away, lat=away[:, 2]), surface, marks)
    >>> found.motion.translation.round(3) + 0.0, found.outliers
    (array([-100., 0., 0.]), ())
    """
    if already_registered:
        if landmarks:
            raise InputError("landmarks are given for a map that is said to be registered already.")
        motion, marks, source, target = RigidMotion(np.eye(3), np.zeros(3)), {}, None, None
    elif not landmarks:
        raise InputError(
            "the map is in the coordinates of its mapping system: give at least three landmarks "
            "(name: place in the map, place in the heart), or say already_registered=True if it "
            "is in the heart's."
        )
    else:
        marks = landmarks
        motion, (source, target) = landmark_motion(marks, scale=scale), _pairs(marks)
        cloud = measured.points
        if by_shell:
            if measured.shell is None:
                raise InputError("the map has no shell to register by: read it with its shell.")
            cloud = measured.shell.points
        few = cloud[:: max(1, len(cloud) // _FEW)]
        count = max(3, round((1.0 - trim) * len(few)))
        first = _Fit(surface, few, source, target, landmark_weight * len(few) / len(cloud))
        motion = first.polished(motion, _trimmed(count))
        fit = _Fit(surface, cloud, source, target, landmark_weight)
        motion = fit.polished(motion, _within(max_distance))
    moved = measured.moved(motion)
    gap = np.linalg.norm(surface.closest(moved.points)[2] - moved.points, axis=1)
    keep = gap <= max_distance
    if keep.mean() < _ENOUGH:
        raise InputError(
            f"only {keep.sum()} of {len(keep)} points come to lie within {max_distance:g} mm of "
            "the surface: check which places the landmarks name and which surface was mapped."
        )
    errors = {}
    if source is not None:
        apart = np.linalg.norm(motion(source) - target, axis=1)
        errors = {str(name): float(one) for name, one in zip(marks, apart, strict=True)}
    outliers = tuple(sorted(int(one) for one in measured.numbers[~keep]))
    return Registration(moved.only(keep), motion, gap[keep], outliers, errors, max_distance)


def _pairs(landmarks: Landmarks) -> tuple[np.ndarray, np.ndarray]:
    if len(landmarks) < 3:
        raise InputError(
            f"{len(landmarks)} landmarks are given ({', '.join(map(str, landmarks)) or 'none'}): "
            "expected at least three, known in the map and in the heart."
        )
    for name, pair in landmarks.items():
        shape = [np.shape(np.asarray(place)) for place in pair]
        if shape != [(3,), (3,)] or not np.isfinite(np.asarray(pair, dtype=float)).all():
            raise InputError(f"landmark {name}: expected two places of three finite numbers [mm].")
    both = np.asarray(list(landmarks.values()), dtype=np.float64)
    return both[:, 0], both[:, 1]


def _trimmed(count: int) -> Loss:
    """The nearest points pull, the others cost nothing."""

    def loss(gap):
        use = gap <= np.partition(gap, count - 1)[count - 1]
        return use, float((gap[use] ** 2).sum())

    return loss


def _within(limit: float) -> Loss:
    """Points within a distance pull, the others cost as much as one at this distance."""

    def loss(gap):
        return gap <= limit, float((np.minimum(gap, limit) ** 2).sum())

    return loss


class _Fit(eqx.Module):
    """Rigid fit of a cloud to a surface with landmarks held."""

    surface: HeartSurface
    cloud: np.ndarray
    source: np.ndarray
    target: np.ndarray
    weight: float

    def polished(self, motion: RigidMotion, loss: Loss) -> RigidMotion:
        """Motion that lowers the loss of the cloud and of the landmarks to a minimum."""
        cost, rows, rest = self._linear(motion, loss)
        for _ in range(_STEPS):
            step = np.linalg.lstsq(rows, rest, rcond=None)[0]
            for _ in range(_HALVINGS):
                trial = _followed(motion, step, self._centre(motion))
                trial_cost, trial_rows, trial_rest = self._linear(trial, loss)
                if trial_cost <= cost:
                    break
                step = step / 2
            else:
                break
            shift = np.abs(trial(self.cloud) - motion(self.cloud)).max()
            gain = (cost - trial_cost) * len(self.cloud)
            motion, cost, rows, rest = trial, trial_cost, trial_rows, trial_rest
            if shift < _STILL or gain < _NEGLIGIBLE * cost:
                break
        return motion

    def _centre(self, motion: RigidMotion) -> np.ndarray:
        return motion(self.cloud).mean(axis=0)

    def _linear(self, motion: RigidMotion, loss: Loss) -> tuple[float, np.ndarray, np.ndarray]:
        """Loss, and the equations of a small translation and turn that would remove the misfit."""
        moved, held = motion(self.cloud), motion(self.source)
        triangle, _, places = self.surface.closest(moved)
        off = moved - places
        gap = np.linalg.norm(off, axis=1)
        use, cost = loss(gap)
        normals = triangle_normals(self.surface.points, self.surface.triangles[triangle])
        away = np.where((gap > 1e-6)[:, None], off / np.maximum(gap, 1e-6)[:, None], normals)
        centre = self._centre(motion)
        rows = np.hstack([away, np.cross(moved - centre, away)])[use]
        # a turn w moves x by w x (x - centre): its matrix is that of the cross product
        r, zero = held - centre, np.zeros(len(held))
        turn = np.stack([zero, r[:, 2], -r[:, 1], -r[:, 2], zero, r[:, 0], r[:, 1], -r[:, 0], zero])
        turn = turn.T.reshape(-1, 3, 3)
        fixed = np.concatenate([np.broadcast_to(np.eye(3), turn.shape), turn], axis=2)
        root, apart = np.sqrt(self.weight), self.target - held
        return (
            cost + self.weight * float((apart**2).sum()),
            np.concatenate([rows, root * fixed.reshape(-1, 6)]),
            np.concatenate([-gap[use], root * apart.ravel()]),
        )


def _followed(motion: RigidMotion, step: np.ndarray, centre: np.ndarray) -> RigidMotion:
    """A motion followed by a small translation (step[:3]) and turn (step[3:]) about a centre."""
    turn = Rotation.from_rotvec(step[3:]).as_matrix()
    translation = turn @ (motion.translation - centre) + centre + step[:3]
    return RigidMotion(turn @ motion.rotation, translation, motion.scale)
