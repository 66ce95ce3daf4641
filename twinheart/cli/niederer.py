"""The N-version benchmark of Niederer et al. 2011: one slab, one stimulus, nine points."""

from typing import Any

import numpy as np

SIZE = (20.0, 7.0, 3.0)  # mm, fibres along x
STIMULATED = "box:0,0,0,1.5,1.5,1.5"
DURATION = 2.0  # ms
AMPLITUDE = 50_000.0 / (1400.0 * 1.0)  # uA/cm^3 over chi [1/cm] times C_m [uF/cm^2]: A/F

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


def run_niederer(
    dx: float, dt: float, scheme: str = "default", *, t_end: float = 150.0, progress=None
) -> dict[str, Any]:
    """Activation times of the benchmark slab at its nine points.

    Parameters
    ----------
    dx : float
        Edge of the cubes, six tetrahedra each [mm].
    dt : float
        Time step [ms].
    scheme : str
        Scheme in space and time, as for `twinheart.twin.simulate`.
    t_end : float
        Simulated time [ms]; points not yet reached are NaN.
    progress : callable, optional
        Called with the simulated time and `t_end`.

    Returns
    -------
    dict
        ``lat_ms`` by point, ``points_mm``, ``scheme``, ``n_nodes`` and the cost.

    References
    ----------
    Niederer et al., Verification of cardiac tissue electrophysiology simulators using an N-version
    benchmark, Phil. Trans. R. Soc. A 369 (2011), doi:10.1098/rsta.2011.0139.
    """
    from twinheart.anatomy import Heart
    from twinheart.mesh.generate import slab
    from twinheart.tissue import NIEDERER_2011, pace
    from twinheart.twin import Twin, simulate

    mesh = slab(SIZE, dx)
    heart = Heart(mesh, f0=np.tile([1.0, 0.0, 0.0], (mesh.n_tets, 1)))
    twin = Twin(heart, cell="tentusscher2006-epi", conductivity=NIEDERER_2011, electrodes=None)
    stimulus = pace(STIMULATED, duration=DURATION, amplitude=AMPLITUDE)
    beat = simulate(twin, stimulus, t_end=t_end, dt=dt, scheme=scheme, progress=progress)
    lat = np.asarray(beat.lat)
    nearest = {
        name: int(np.linalg.norm(mesh.points - point, axis=1).argmin())
        for name, point in POINTS.items()
    }
    return {
        "lat_ms": {name: float(lat[node]) for name, node in nearest.items()},
        "points_mm": {name: list(point) for name, point in POINTS.items()},
        "dx_mm": dx,
        "dt_ms": dt,
        "n_nodes": mesh.n_nodes,
    } | beat.stats
