r"""How far recovery reaches from one cell type into another, measured once and kept on disk.

On a cable whose halves have different cells the duration goes over from the one to the other. With
the shares of `twinheart.tissue.coupled_waves` on a line,

.. math:: w = \frac{c_1}{c_0 + c_1} e^{x / c_0 t_e} \; (x < 0), \qquad
    w = 1 - \frac{c_0}{c_0 + c_1} e^{-x / c_1 t_e} \; (x > 0),

for velocities c of the halves, continuous with the flux :math:`c^2 w'`. The electrotonic time t_e
is that which fits the durations best.
"""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize_scalar

from twinheart.anatomy import Heart
from twinheart.cell import AbstractCellModel, limit_cycle
from twinheart.cell.paced_cache import kept, measured_path
from twinheart.errors import ModelError
from twinheart.mesh.generate import slab
from twinheart.tissue.build import build_monodomain
from twinheart.tissue.cable import scalar_parameters
from twinheart.tissue.conductivity import NIEDERER_2011
from twinheart.tissue.coupled_waves import ELECTROTONIC_TIME
from twinheart.tissue.run import run
from twinheart.tissue.stimulus import pace

_HALF, _EDGE, _DT = 20.0, 0.25, 0.02  # mm, mm, ms
_PACED, _ENDS = 2.0, 6.0  # mm from an end that are stimulated, that are left out
_LONGEST = 12.0  # ms
_LEAST = 2.0  # ms: where durations differ by less, none is measured


def electrotonic_time(
    model: AbstractCellModel, other: AbstractCellModel, cycle: float = 600.0
) -> float:
    """Electrotonic time of the border between two cells.

    A wave runs from the half of the one into that of the other, both of 20 mm and at their limit
    cycle. It takes about a minute the first time and is kept in
    `twinheart.cell.paced_cache.cache_folder`.

    Parameters
    ----------
    model, other : AbstractCellModel
        Cells; parameters that differ from node to node are averaged.
    cycle : float
        Of the limit cycle [ms].

    Returns
    -------
    float
        [ms]; where the durations of both differ by less than 2 ms, and nothing can be measured,
        `twinheart.tissue.coupled_waves.ELECTROTONIC_TIME`.

    Raises
    ------
    ModelError
        If a cell does not follow this cycle, or the cable is not activated and repolarised.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from twinheart.cell import get_model
    >>> from twinheart.tissue.electrotonic import electrotonic_time
    >>> cell = get_model("mitchell-schaeffer")
    >>> 1.0 < electrotonic_time(cell, replace(cell, tau_close=cell.tau_close * 1.2)) < 10.0
    True
    """
    first, second = scalar_parameters(model), scalar_parameters(other)
    settings = {"cycle": float(cycle), "half": _HALF, "edge": _EDGE, "dt": _DT}
    path = measured_path("electrotonic", first, second, **settings)

    def measure() -> dict[str, np.ndarray]:
        return {"time": np.array(fitted_time(*_cable(first, second, float(cycle))))}

    what = f"how far durations of {first.name} and {second.name} reach into each other"
    return float(kept(path, {"time": np.zeros(())}, measure, what)["time"])


def _cable(model, other, cycle: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place from the border [mm], activation and duration [ms] along a cable of both cells."""
    mesh = slab((2 * _HALF, _EDGE, _EDGE), _EDGE)
    tags = (mesh.points[mesh.tets].mean(axis=1)[:, 0] > _HALF).astype(np.int32)
    dt = min(_DT, float(model.dt), float(other.dt))
    paced: dict[int, AbstractCellModel] = {
        k: limit_cycle(cell, cycle, dt=dt).model for k, cell in enumerate((model, other))
    }
    line = np.flatnonzero((mesh.points[:, 1] == 0) & (mesh.points[:, 2] == 0))
    line = line[np.argsort(mesh.points[line, 0])]
    end = pace(np.flatnonzero(mesh.points[:, 0] <= _PACED))
    built = build_monodomain(Heart(mesh, regions=tags), paced, NIEDERER_2011, [end], dt=dt)
    to_mesh = built.problem.tissue.to_mesh_order
    ended = run(
        built, cycle, points=mesh.points, stop=lambda state: bool(np.isfinite(state.repol).all())
    ).state
    lat, repol = (np.asarray(to_mesh(x), float)[line] for x in (ended.lat, ended.repol))
    if not (np.isfinite(lat) & np.isfinite(repol)).all():
        raise ModelError(
            f"a cable of {model.name} and {other.name} is not activated and repolarised within "
            f"{cycle:g} ms: pace slower."
        )
    return mesh.points[line, 0] - _HALF, lat, repol - lat


def fitted_time(
    x: Float[np.ndarray, "place"],
    lat: Float[np.ndarray, "place"],
    apd: Float[np.ndarray, "place"],
) -> float:
    """Electrotonic time [ms] by places [mm, the border at 0], activation and durations [ms]."""
    used = np.abs(x) < _HALF - _ENDS
    left, right = used & (x < -_HALF / 2), used & (x > _HALF / 2)
    if abs(np.median(apd[left]) - np.median(apd[right])) < _LEAST:
        return ELECTROTONIC_TIME
    before, after = (1.0 / np.polyfit(x[part], lat[part], 1)[0] for part in (left, right))

    def misfit(time: float) -> float:
        share = line_shares(x[used], before, after, time)
        columns = np.stack([1.0 - share, share], axis=1)  # of the durations deep in both halves
        return float(np.linalg.lstsq(columns, apd[used])[1].sum())

    best: Any = minimize_scalar(misfit, bounds=(0.1, _LONGEST), method="bounded")
    return float(best.x)


def line_shares(
    x: Float[np.ndarray, "place"], before: float, after: float, time: float
) -> Float[np.ndarray, "place"]:
    """Share of the right half in the recovery along a line; velocities of the halves [m/s].

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.tissue.electrotonic import line_shares
    >>> line_shares(np.array([-100.0, 0.0, 100.0]), 0.5, 0.5, 4.0).round(2).tolist()
    [0.0, 0.5, 1.0]
    """
    at_border = after / (before + after)
    left = at_border * np.exp(np.minimum(x, 0.0) / (before * time))
    right = 1.0 - (1.0 - at_border) * np.exp(-np.maximum(x, 0.0) / (after * time))
    return np.where(x < 0, left, right)
