"""Stimuli: where, when and how much; positive depolarises."""

from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import KDTree

from twinheart.anatomy import Heart
from twinheart.anatomy.frame import apex_node
from twinheart.anatomy.purkinje import PurkinjeTree
from twinheart.errors import InputError, ModelError
from twinheart.types import Array


def _as_float(value) -> Array:
    return jnp.asarray(value, dtype=float)


class Stimulus(eqx.Module):
    """A current pulse, or a train of them, at a set of nodes.

    Parameters
    ----------
    where : str or (k,) int array
        ``"sphere:x,y,z,r"`` or ``"box:x0,y0,z0,x1,y1,z1"`` [mm], ``"region:TAG"``,
        ``"nodes:FILE.vtx"`` (openCARP node list), ``"apex"`` (3 mm around the node farthest from
        the base along the long axis), ``"purkinje"`` (the roots of the Purkinje tree;
        ``"purkinje:1"`` only the second of them), or node indices.
    start, duration : float
        First onset and length of a pulse [ms].
    amplitude : float
        Current [A/F], positive depolarises.
    period : float
        Interval between onsets [ms]; matters for `count` > 1.
    count : float
        Number of pulses.
    """

    where: str | np.ndarray
    start: Float[Array, ""] = eqx.field(converter=_as_float)
    duration: Float[Array, ""] = eqx.field(converter=_as_float)
    amplitude: Float[Array, ""] = eqx.field(converter=_as_float)
    period: Float[Array, ""] = eqx.field(converter=_as_float)
    count: Float[Array, ""] = eqx.field(converter=_as_float)


def pace(
    where: str | np.ndarray,
    *,
    start: float = 0.0,
    duration: float = 2.0,
    amplitude: float = 50.0,
    period: float | None = None,
    count: int = 1,
) -> Stimulus:
    """Pace a place: one pulse, or `count` of them `period` apart.

    Parameters
    ----------
    where : str or (k,) int array
        See `Stimulus`.
    start, duration : float
        First onset and length of a pulse [ms].
    amplitude : float
        Current [A/F], positive depolarises; 50 A/F for 2 ms is the stimulus of Niederer et al.
        2011 (50 mA/cm^3 at chi = 140 /mm and cm = 0.01 uF/mm^2 is 35.7 A/F), with some reserve for
        small sites.
    period : float, optional
        Interval between onsets [ms], needed for `count` > 1.
    count : int
        Number of pulses.

    Returns
    -------
    Stimulus
        For `twinheart.simulate`.

    Raises
    ------
    ModelError
        If a number is out of range.

    Examples
    --------
    >>> from twinheart.tissue import pace
    >>> float(pace("sphere:0,0,0,3", start=10.0).start)
    10.0
    """
    if count > 1 and period is None:
        raise ModelError(f"a train of {count} pulses needs a period, got none: give it in ms.")
    period = 1e9 if period is None else period
    for name, value in [("duration", duration), ("period", period), ("count", count)]:
        if not value > 0:
            raise ModelError(f"stimulus {name} is {value:g}, expected a positive number.")
    if not (np.isfinite(start) and np.isfinite(amplitude)):
        raise ModelError(f"stimulus start {start} and amplitude {amplitude} must be finite.")
    if duration > period:
        raise ModelError(
            f"stimulus duration {duration:g} ms exceeds its period {period:g} ms: shorten the "
            "pulse or lengthen the period."
        )
    return Stimulus(where, start, duration, amplitude, period, count)


def stimulus_nodes(heart: Heart, where: str | np.ndarray) -> Bool[np.ndarray, "node"]:
    """Which nodes of the heart a place names.

    Raises
    ------
    InputError
        If the text is not understood.
    ModelError
        If the place contains no node.
    """
    mesh = heart.mesh
    chosen = np.zeros(mesh.n_nodes, dtype=bool)
    if not isinstance(where, str):
        return _mark(chosen, np.asarray(where), "the node list")
    kind, _, text = where.partition(":")
    if kind == "sphere":
        *centre, radius = _numbers(where, text, 4)
        distance = np.linalg.norm(mesh.points - centre, axis=1)
        chosen = distance <= radius
        nearest = f"the nearest node is {distance.min():.2f} mm from its centre"
    elif kind == "box":
        corners = np.sort(np.reshape(_numbers(where, text, 6), (2, 3)), axis=0)
        slack = 1e-6 * np.ptp(mesh.points, axis=0).max()  # a face on a plane of nodes takes them
        chosen = ((mesh.points >= corners[0] - slack) & (mesh.points <= corners[1] + slack)).all(1)
        low, high = mesh.points.min(axis=0), mesh.points.max(axis=0)
        nearest = f"the mesh spans {np.round(low, 1).tolist()} to {np.round(high, 1).tolist()} mm"
    elif kind == "region":
        tag = int(_numbers(where, text, 1)[0])
        chosen[mesh.tets[heart.regions == tag]] = True
        nearest = f"the tags of the heart are {np.unique(heart.regions).tolist()}"
    elif kind == "nodes":
        return _mark(chosen, _read_vtx(Path(text)), text)
    elif kind == "apex" and not text:
        apex = mesh.points[apex_node(mesh)]
        chosen = np.linalg.norm(mesh.points - apex, axis=1) <= 3.0
        nearest = ""
    else:
        raise InputError(
            f"stimulus place '{where}' is not understood; expected 'sphere:x,y,z,r', "
            "'box:x0,y0,z0,x1,y1,z1', 'region:TAG', 'nodes:FILE.vtx', 'apex' or 'purkinje'."
        )
    if not chosen.any():
        raise ModelError(f"stimulus '{where}' hits no node: {nearest}; move or enlarge it.")
    return chosen


def at_purkinje(where: str | np.ndarray) -> bool:
    """Whether a place is in the Purkinje tree."""
    return isinstance(where, str) and where.partition(":")[0] == "purkinje"


def stimulated_roots(
    tree: PurkinjeTree | None, where: str = "purkinje"
) -> Bool[np.ndarray, "branch_node"]:
    """Nodes of a Purkinje tree that a place in it names: within 3 mm of a root.

    Raises
    ------
    ModelError
        If there is no tree, or no such root.
    """
    if tree is None:
        raise ModelError(
            "the stimulus is at the Purkinje tree, but this twin has none: grow one with "
            "twinheart.anatomy.grow_purkinje and pass it on as a ConductionSystem."
        )
    _, _, text = where.partition(":")
    roots = tree.roots
    if text:
        if not (text.isdigit() and int(text) < len(roots)):
            raise ModelError(
                f"stimulus place '{where}' names no root of the Purkinje tree, which has "
                f"{len(roots)}: purkinje:0 to purkinje:{len(roots) - 1}."
            )
        roots = roots[[int(text)]]
    gap, _ = KDTree(tree.points[roots]).query(tree.points)
    return gap <= 3.0


def _mark(chosen, nodes, source):
    if nodes.size == 0:
        raise ModelError(f"stimulus hits no node: {source} is empty.")
    if nodes.min() < 0 or nodes.max() >= chosen.size:
        raise ModelError(
            f"{source} names node {nodes.max() if nodes.max() >= chosen.size else nodes.min()}, "
            f"but the mesh has nodes 0 to {chosen.size - 1}."
        )
    chosen[nodes] = True
    return chosen


def _numbers(where: str, text: str, count: int) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not np.isfinite(values).all():
        raise InputError(
            f"stimulus place '{where}' needs {count} number{'s' * (count > 1)} after the colon, "
            "separated by commas, in mm."
        )
    return values


def _read_vtx(path: Path) -> np.ndarray:
    from twinheart.mesh.io import read_vtx

    nodes, _ = read_vtx(path)
    return nodes


def pulse_fraction(stimulus: Stimulus, t, dt) -> Array:
    """Share of the step from t to t + dt [ms] during which the stimulus is on.

    The overlap is exact, so the delivered charge does not depend on how onsets fall between steps
    and the response can be differentiated with respect to `start` and `duration`.
    """
    first = jnp.floor((t - stimulus.start) / stimulus.period)
    end = jnp.round(t / dt) + 1.0  # of the step, counted in steps

    def share_after(time):
        share = end - time / dt
        # Half open, not a clip: an onset exactly between two steps moves charge in one of them.
        return jnp.where(share > 0.0, jnp.where(share <= 1.0, share, 1.0), 0.0)

    def overlap(k):
        onset = stimulus.start + k * stimulus.period
        share = share_after(onset) - share_after(onset + stimulus.duration)
        return jnp.where((k >= 0) & (k < stimulus.count), share, 0.0)

    # The step may end one pulse and begin the next.
    return overlap(first) + overlap(first + 1)
