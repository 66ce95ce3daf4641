"""The N-version benchmark of Niederer et al. 2011: one slab, one stimulus, nine points."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import numpy as np

from twinheart.anatomy import Heart
from twinheart.cell import AbstractCellModel, get_model
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import slab
from twinheart.tissue.build import Built, build_monodomain
from twinheart.tissue.conductivity import NIEDERER_2011, Conductivities
from twinheart.tissue.run import run
from twinheart.tissue.scheme import Scheme
from twinheart.tissue.stimulus import pace

SIZE = (20.0, 7.0, 3.0)  # mm, fibres along x
STIMULATED = "box:0,0,0,1.5,1.5,1.5"
DURATION = 2.0  # ms
AMPLITUDE = 50_000.0 / 1400.0  # uA/cm^3 over chi [1/cm] and C_m [uF/cm^2]: A/F

POINTS = {
    "P1": (0.0, 0.0, 0.0),
    "P2": (0.0, 7.0, 0.0),
    "P3": (20.0, 0.0, 0.0),
    "P4": (20.0, 7.0, 0.0),
    "P5": (0.0, 0.0, 3.0),
    "P6": (0.0, 7.0, 3.0),
    "P7": (20.0, 0.0, 3.0),
    "P8": (20.0, 7.0, 3.0),
    "P9": (10.0, 3.5, 1.5),
}


def build_niederer(
    mesh: TetMesh,
    dt: float,
    scheme: str | Scheme = "default",
    *,
    model: AbstractCellModel | None = None,
    conductivities: Conductivities = NIEDERER_2011,
    smoothing: float | None = None,
    dtype=np.float32,
) -> Built:
    """The benchmark's problem on any mesh of its slab, fibres along x."""
    heart = Heart(mesh, f0=np.tile([1.0, 0.0, 0.0], (mesh.n_tets, 1)))
    return build_monodomain(
        heart,
        get_model("tentusscher2006-epi") if model is None else model,
        conductivities,
        [pace(STIMULATED, duration=DURATION, amplitude=AMPLITUDE)],
        dt=dt,
        scheme=scheme,
        smoothing=smoothing,
        may_block=True,
        dtype=dtype,
    )


def run_niederer(
    dx: float,
    dt: float,
    scheme: str | Scheme = "default",
    *,
    mirrored: bool = False,
    t_end: float = 150.0,
    progress: Callable[[float, float], None] | None = None,
) -> dict[str, Any]:
    """Activation times of the benchmark slab at its nine points; stops once all is activated.

    Parameters
    ----------
    dx : float
        Edge of the cubes, six tetrahedra each [mm].
    dt : float
        Time step [ms].
    scheme : str or Scheme
        See `build_monodomain`.
    mirrored : bool
        Mirror the triangulation: its diagonals run the other way.
    t_end : float
        Longest simulated time [ms]; points not reached are NaN.
    progress : callable, optional
        Called with the simulated time and `t_end`.

    Returns
    -------
    dict
        ``lat_ms`` by point (threshold 0 mV), ``points_mm``, ``scheme``, ``n_nodes``, ``stages``,
        ``velocity_error`` expected along and across, and the cost: ``wall_s`` without
        ``compile_s``, ``ns_per_node_step``.

    References
    ----------
    Niederer et al., Verification of cardiac tissue electrophysiology simulators using an N-version
    benchmark, Phil. Trans. R. Soc. A 369 (2011), doi:10.1098/rsta.2011.0139.
    """
    mesh = slab(SIZE, dx, mirrored=mirrored)
    built = build_niederer(mesh, dt, scheme)
    result = run(
        built,
        t_end,
        points=mesh.points,
        progress=progress,
        stop=lambda s: bool(np.isfinite(s.lat).all()),
    )
    lat = built.problem.tissue.to_mesh_order(result.state.lat)
    return {
        "lat_ms": {name: _at(mesh, lat, point) for name, point in POINTS.items()},
        "points_mm": POINTS,
        "scheme": scheme if isinstance(scheme, str) else eqx.tree_pformat(scheme),
        "dx_mm": dx,
        "dt_ms": dt,
        "mirrored": mirrored,
        "n_nodes": mesh.n_nodes,
        "smoothing": {row["axis"]: row["smoothing"] for row in built.conduction},
        "stages": getattr(built.problem.scheme, "stages", None),
        "velocity_error": {row["axis"]: row["velocity_error"] for row in built.conduction},
        "steps": result.steps,
        "wall_s": result.wall_s,
        "compile_s": result.compile_s,
        "ns_per_node_step": 1e9 * result.wall_s / (result.steps * mesh.n_nodes),
    }


def _at(mesh: TetMesh, lat: np.ndarray, point: tuple[float, float, float]) -> float:
    """Activation time at a point: mean of the nearest nodes, for the centre may be none."""
    distance = np.linalg.norm(mesh.points - point, axis=1)
    return float(lat[distance <= distance.min() + 1e-6].mean())
