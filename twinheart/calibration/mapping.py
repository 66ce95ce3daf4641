"""Electro-anatomical maps as calibration data: what was measured, and its misfit.

A map is measured in the coordinates of its mapping system and against a reference time of its own.
`twinheart.calibration.mapping_io` reads it, `twinheart.calibration.mapping_registration` moves it
onto the heart, and `map_operator` reads simulated times at its points, leaving the common time
open.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from twinheart.calibration.mapping_surface import HeartSurface
from twinheart.errors import InputError
from twinheart.mesh import TriMesh
from twinheart.types import Array

# Annotations made during a procedure against those made in peace, ventricular beats: -2.6 +- 6.8 ms
# (Alcaine et al., IEEE Trans Biomed Eng 61:2830, 2014).
LAT_SD = 6.8
# Wyatt's repolarisation time against the refractory period: 21 ms mean absolute error
# (doi:10.3389/fphys.2023.1158003), as the standard deviation of a normal error.
REPOL_SD = 21.0 * float(np.sqrt(np.pi / 2))

_MAX_POINTS = 2_000_000
_MAX_COORDINATE = 2000.0  # [mm]: farther from its origin no mapping system sees
_COLUMNS = ("lat", "repol", "bipolar", "unipolar")


class RigidMotion(eqx.Module):
    """Rotation and translation ``x -> scale * R x + t``.

    Parameters
    ----------
    rotation : (3, 3) array
        R.
    translation : (3,) array
        t [mm].
    scale : float
        1 unless the landmarks were allowed to say otherwise.
    """

    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]
    scale: float = 1.0

    def __call__(self, points: Float[np.ndarray, "point 3"]) -> Float[np.ndarray, "point 3"]:
        """Move points [mm]."""
        return self.scale * points @ self.rotation.T + self.translation


class ElectroAnatomicalMap(eqx.Module):
    """Times and voltages measured at places of the heart's wall.

    Parameters
    ----------
    points : (point, 3) array
        Where it was measured [mm], in the coordinates of the mapping system.
    lat : (point,) array or None
        Local activation time [ms] against the reference of the mapping system; NaN: missing.
    repol : (point,) array or None
        Repolarisation time [ms] against the same reference; NaN: missing.
    bipolar, unipolar : (point,) arrays or None
        Amplitudes [mV]; NaN: missing.
    numbers : (point,) int array or None
        Numbers of the points in the mapping system; None counts from 1.
    shell : TriMesh or None
        Surface of the chamber in the same coordinates [mm].
    format : str
        Where it comes from.
    notes : sequence of str
        What was left out or assumed, in sentences.

    Raises
    ------
    InputError
        If there is no point, or none with a time, or arrays do not fit together, a position is no
        number or far away, or a number repeats.

    Examples
    --------
    >>> from twinheart.calibration.mapping import ElectroAnatomicalMap
    >>> ElectroAnatomicalMap([[0.0, 0, 0], [5, 0, 0]], lat=[-12.0, float("nan")]).n_times
    1
    """

    points: Float[np.ndarray, "point 3"]
    numbers: Int[np.ndarray, "point"]
    lat: Float[np.ndarray, "point"]
    repol: Float[np.ndarray, "point"] | None
    bipolar: Float[np.ndarray, "point"] | None
    unipolar: Float[np.ndarray, "point"] | None
    shell: TriMesh | None
    format: str = eqx.field(static=True)
    notes: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, points, lat=None, *, repol=None, bipolar=None, unipolar=None, numbers=None,
                 shell=None, format="", notes=()):  # fmt: skip
        self.points = np.asarray(points, dtype=np.float64)
        n = len(self.points)
        if self.points.shape != (n, 3) or not 0 < n <= _MAX_POINTS:
            raise InputError(
                f"the points of a map have shape {self.points.shape}, expected (point, 3) with 1 "
                f"to {_MAX_POINTS} points."
            )
        self.numbers = np.arange(1, n + 1) if numbers is None else np.asarray(numbers, dtype=int)
        if self.numbers.shape != (n,) or len(np.unique(self.numbers)) != n:
            raise InputError(f"expected one number of its own for each of the {n} points.")
        bad = np.flatnonzero(~(np.abs(self.points) < _MAX_COORDINATE).all(axis=1))
        if bad.size:
            raise InputError(
                f"{bad.size} of {n} points have no position within {_MAX_COORDINATE / 1e3:g} m of "
                f"the origin (the first is point {self.numbers[bad[0]]}): export the map again."
            )
        self.lat = _column(np.full(n, np.nan) if lat is None else lat, n, "lat")
        self.repol, self.bipolar, self.unipolar = (
            None if values is None else _column(values, n, name)
            for name, values in zip(_COLUMNS[1:], (repol, bipolar, unipolar), strict=True)
        )
        self.shell, self.format, self.notes = shell, format, tuple(notes)
        if not self.n_times:
            raise InputError(
                f"none of the {n} points has an activation or repolarisation time: export a map "
                "of local activation times."
            )

    @property
    def n_times(self) -> int:
        """Number of points with an activation or a repolarisation time."""
        known = np.isfinite(self.lat)
        return int((known if self.repol is None else known | np.isfinite(self.repol)).sum())

    def only(self, keep: Bool[np.ndarray, "point"]) -> "ElectroAnatomicalMap":
        """The map of some of its points."""
        columns = {name: getattr(self, name) for name in (*_COLUMNS, "numbers")}
        columns = {name: None if v is None else v[keep] for name, v in columns.items()}
        return ElectroAnatomicalMap(
            self.points[keep], **columns, shell=self.shell, format=self.format, notes=self.notes
        )

    def moved(self, motion: RigidMotion) -> "ElectroAnatomicalMap":
        """The map in other coordinates, its shell included."""
        shell = self.shell
        if shell is not None:
            shell = TriMesh(
                motion(shell.points), shell.triangles, shell.point_fields, shell.cell_fields
            )
        return eqx.tree_at(
            lambda m: (m.points, m.shell),
            self,
            (motion(self.points), shell),
            is_leaf=lambda leaf: leaf is None or isinstance(leaf, TriMesh),
        )


class MapOperator(eqx.Module):
    """Reads a simulation at the points of a map and compares; differentiable.

    Parameters
    ----------
    nodes : (point, 3) int array
        Nodes of the heart's mesh around each point.
    weights : (point, 3) array
        Their weights, not negative, with sum 1.
    lat, repol : (point,) array; repol may be None
        Measured times [ms] against a reference of their own; NaN: missing.
    sd, repol_sd : (point,) arrays; repol_sd may be None
        Their standard deviations [ms].
    """

    nodes: Int[Array, "point 3"]
    weights: Float[Array, "point 3"]
    lat: Float[Array, "point"]
    repol: Float[Array, "point"] | None
    sd: Float[Array, "point"]
    repol_sd: Float[Array, "point"] | None

    def at_points(self, field: Float[Array, "node"]) -> Float[Array, "point"]:
        """A nodal field at the points."""
        return (jnp.asarray(self.weights) * jnp.asarray(field)[self.nodes]).sum(axis=1)

    def offset(
        self, lat: Float[Array, "node"], repol: Float[Array, "node"] | None = None
    ) -> Float[Array, ""]:
        """Time [ms] that, added to the simulated times, fits the measured ones best."""
        misfit, precision = self._misfit(lat, repol)
        return -(precision**2 * misfit).sum() / (precision**2).sum()

    def residual(
        self, lat: Float[Array, "node"], repol: Float[Array, "node"] | None = None
    ) -> Float[Array, "row"]:
        """Simulated less measured times over their standard deviations, at the best offset.

        Parameters
        ----------
        lat : (node,) array
            Simulated activation times of the heart's nodes [ms]; where one at a point is NaN
            (never activated), so is every residual.
        repol : (node,) array, optional
            Simulated repolarisation times; their residuals follow, with the same offset.

        Returns
        -------
        (point,) or (2 point,) array
            Zero where nothing was measured.
        """
        misfit, precision = self._misfit(lat, repol)
        return precision * (misfit + self.offset(lat, repol))

    def _misfit(self, lat, repol) -> tuple[Array, Array]:
        """Simulated less measured times without offset, and 1/sd; both 0 where not measured."""
        parts = [(lat, self.lat, self.sd)]
        if repol is not None:
            if self.repol is None or self.repol_sd is None:
                raise InputError("the map holds no repolarisation times to compare with.")
            parts.append((repol, self.repol, self.repol_sd))
        misfits, precisions = [], []
        for field, measured, sd in parts:
            known = jnp.isfinite(measured)
            simulated = self.at_points(field)
            misfits.append(jnp.where(known, simulated - jnp.where(known, measured, 0.0), 0.0))
            precisions.append(jnp.where(known, 1.0 / jnp.asarray(sd), 0.0))
        return jnp.concatenate(misfits), jnp.concatenate(precisions)


def map_operator(
    measured: ElectroAnatomicalMap,
    surface: HeartSurface,
    *,
    sd: float | Float[np.ndarray, "point"] = LAT_SD,
    repol_sd: float | Float[np.ndarray, "point"] = REPOL_SD,
) -> MapOperator:
    """Where the points of a registered map lie on the mesh, and what was measured there.

    Parameters
    ----------
    measured : ElectroAnatomicalMap
        In the coordinates of the heart, such as ``register(...).map``.
    surface : HeartSurface
        The wall it was measured on.
    sd, repol_sd : float or (point,) array
        Standard deviations of activation and repolarisation times [ms].

    Returns
    -------
    MapOperator
        One row for each point that has a time.

    Raises
    ------
    InputError
        If a standard deviation is not positive, or there is not one for each point.

    Examples
    --------
    >>> from twinheart.calibration.mapping import ElectroAnatomicalMap, map_operator
    >>> from twinheart.calibration.mapping_surface import heart_surface
    >>> from twinheart.mesh.generate import lv_ellipsoid
    >>> from twinheart.mesh.implicit import SurfaceClass
    >>> mesh = lv_ellipsoid(edge=4.0)
    >>> surface = heart_surface(mesh, [SurfaceClass.LV_ENDOCARDIUM])
    >>> times = 2.0 * mesh.points[:, 2]
    >>> measured = ElectroAnatomicalMap(surface.points, lat=times[surface.nodes] - 40.0)
    >>> operator = map_operator(measured, surface)
    >>> float(operator.offset(times).round(3)), float(abs(operator.residual(times)).max().round(4))
    (-40.0, 0.0)
    """
    n = len(measured.points)
    spread = [_column(np.broadcast_to(one, (n,)) if np.ndim(one) == 0 else one, n, "sd")
              for one in (sd, repol_sd)]  # fmt: skip
    if not all(np.all(one > 0) for one in spread):
        raise InputError("a standard deviation of the map is not positive: expected some ms.")
    known = np.isfinite(measured.lat)
    if measured.repol is not None:
        known |= np.isfinite(measured.repol)
    triangle, weights, _ = surface.closest(measured.points[known])
    return MapOperator(
        surface.nodes[surface.triangles[triangle]],
        weights,
        measured.lat[known],
        None if measured.repol is None else measured.repol[known],
        spread[0][known],
        None if measured.repol is None else spread[1][known],
    )


def _column(values: Any, n: int, name: str) -> np.ndarray:
    values = np.array(values, dtype=np.float64)
    if values.shape != (n,):
        raise InputError(f"{name} has shape {values.shape}, expected one value for {n} points.")
    if np.isinf(values).any():
        raise InputError(f"{name} has infinite values: expected numbers, or NaN where missing.")
    return values
