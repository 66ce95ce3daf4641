r"""What re-entry does: its circuit, how fast each place is driven, how often waves break.

The circuit is found by following one activation back: to the neighbour from which the wave came,
down the steepest descent of the activation times, from there on, until the way comes back to where
it has been, a cycle earlier. A cycle is the interval after which the place itself fires again, so
that two turns are never taken for one. It holds for trains of the eikonal and of the monodomain
equation.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from twinheart.errors import InputError
from twinheart.imaging.enhancement import BORDER, CORE
from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.quality import edge_graph
from twinheart.planning.reentry_maps.phase import PhaseMap
from twinheart.planning.reentry_maps.singularities import singular_points, track_points
from twinheart.tissue import Train

SLOWEST = 0.05  # m/s: a neighbour that fired longer ago was not where the wave came from
_LEAST_TURN = 0.5  # of the usual interval: what fires again sooner was counted twice
_TOUCHING = 2.0  # mean edges between parts of a way that are the same place
_SHORTEST = 2.0  # times that, of a way which can be closed so
_WIDEST = 0.1  # of its length may be open where a turn closes: waves drift, ways run side by side
_PADDING = 8  # times as many frequencies as samples


class ReentryCircuit(NamedTuple):
    """The way of re-entry through one cycle.

    Attributes
    ----------
    nodes : (step,) int array
        Nodes in the order in which they fire.
    path : (step, 3) array
        Their places [mm].
    lat : (step,) array
        When they fire [ms].
    cycle_length_ms : float
        Until the first of the nodes fires again.
    length_mm : float
        Of the way along edges, and straight from its last node to its first.
    isthmus : (own_step,) int array
        Steps of the longest part of the way that lies within border zone; empty where there is
        none.
    entrance_mm, exit_mm : (3,) arrays or None
        Last place before the isthmus and first after it, at other tissue than border zone; None
        without an isthmus, and where the whole way is within border zone.
    """

    nodes: Int[np.ndarray, "step"]
    path: Float[np.ndarray, "step 3"]
    lat: Float[np.ndarray, "step"]
    cycle_length_ms: float
    length_mm: float
    isthmus: Int[np.ndarray, "own_step"]
    entrance_mm: Float[np.ndarray, "3"] | None
    exit_mm: Float[np.ndarray, "3"] | None


def activation_circuit(
    mesh: TetMesh,
    train: Train,
    *,
    conducts: Bool[np.ndarray, "tet"] | None = None,
    slowest: float = SLOWEST,
) -> ReentryCircuit | None:
    """Follow the last activation of a train back until the way closes.

    Parameters
    ----------
    mesh : TetMesh
        The heart [mm]; of its cell field ``scar`` 1 is border zone, 2 core.
    train : Train
        Activations of its nodes; nodes beyond those of the mesh are left out.
    conducts : (tet,) bool array, optional
        Tissue through which waves run; by default all but core.
    slowest : float
        Slowest wave [m/s].

    Returns
    -------
    ReentryCircuit or None
        None where the way ends, at a stimulus, before it closes.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning import activation_circuit
    >>> from twinheart.tissue import Train
    >>> mesh = slab((12.0, 12.0, 1.0), 1.0)
    >>> x, y, _ = (mesh.points - [6.0, 6.0, 0.0]).T
    >>> hole = np.hypot(*(mesh.points[mesh.tets].mean(axis=1) - [6.0, 6.0, 0.0]).T[:2]) < 3.0
    >>> turn = np.arctan2(y, x) / (2 * np.pi) % 1.0
    >>> lat = 200.0 * (turn[:, None] + np.arange(4))  # a wave that turns around a hole
    >>> found = activation_circuit(mesh, Train(lat, 0 * lat, 0 * lat, "successful"), conducts=~hole)
    >>> abs(found.cycle_length_ms - 200.0) < 10.0
    True
    """
    scar = mesh.cell_fields.get("scar")
    scar = np.zeros(mesh.n_tets, dtype=int) if scar is None else np.asarray(scar)
    living = np.asarray(scar != CORE if conducts is None else conducts)
    if living.shape != (mesh.n_tets,) or not slowest > 0:
        raise InputError(
            f"conducting tissue has shape {living.shape} and the slowest wave {slowest} m/s, "
            f"expected ({mesh.n_tets},) and a positive velocity."
        )
    graph = edge_graph(mesh.points, mesh.tets[living])
    lat = train.lat[: mesh.n_nodes]
    loop = _closed_way(mesh.points, graph, lat, slowest)
    if loop is None:
        return None
    nodes, times, _, cycle = loop
    healthy = np.zeros(mesh.n_nodes, dtype=bool)
    healthy[mesh.tets[living & (scar != BORDER)]] = True
    path = mesh.points[nodes]
    isthmus = _longest_run(~healthy[nodes], np.diff(times, append=times[0] + cycle))
    n = len(nodes)
    whole = len(isthmus) == n
    known = len(isthmus) and not whole
    return ReentryCircuit(
        nodes=nodes,
        path=path,
        lat=times,
        cycle_length_ms=cycle,
        length_mm=float(np.linalg.norm(path - np.roll(path, 1, axis=0), axis=1).sum()),
        isthmus=isthmus,
        entrance_mm=path[(isthmus[0] - 1) % n] if known else None,
        exit_mm=path[(isthmus[-1] + 1) % n] if known else None,
    )


def _closed_way(points: np.ndarray, graph: sp.csr_array, lat: np.ndarray, slowest: float):
    """Nodes and times of one turn of the way back, the gap at which it closes, and its cycle.

    When a place on it fires next, the wave that has been followed is elsewhere on it: a cycle later
    by the clock of that place. The first place which is near enough to that closes the turn; where
    a wave drifts so fast that none is, the nearest of all within a turn.
    """
    first = _last_activation(graph, lat)
    if first is None:
        return None
    nodes, times, least = [first[0]], [first[1]], _LEAST_TURN * first[2]
    run = [0.0]  # mm, from the first node
    touching = _TOUCHING * float(graph.data.mean())
    best, end = None, -np.inf
    while (step := _step_back(graph, lat, nodes[-1], times[-1], slowest, least)) is not None:
        node, time, length = step
        nodes.append(node)
        times.append(time)
        run.append(run[-1] + length)
        if time < end:
            break
        next_time = float(lat[node][lat[node] >= time + least].min(initial=np.inf))
        if next_time > times[0]:
            continue
        k = bisect_left(times, -next_time, key=lambda t: -t)
        gap = float(np.linalg.norm(points[node] - points[nodes[k]]))
        turn = run[-1] - run[k]
        widest = _WIDEST * turn if turn < _SHORTEST * touching else max(touching, _WIDEST * turn)
        if gap > widest or (best is not None and gap >= best[2]):
            continue
        end = max(end, 2 * time - next_time)
        own = slice(k + (times[k] == next_time), None)
        best = np.array(nodes[own])[::-1], np.array(times[own])[::-1], gap, next_time - time
        if gap <= touching:
            break
    return best


def _last_activation(graph: sp.csr_array, lat: np.ndarray):
    """Node and time of the last activation, and the median of the last intervals of all nodes."""
    reached = np.zeros(len(lat), dtype=bool)
    reached[graph.indices] = True
    known = np.sort(np.where(np.isfinite(lat) & reached[:, None], lat, -np.inf), axis=1)
    twice = known[:, -2:][np.isfinite(known[:, -2:]).all(axis=1)]
    if lat.shape[1] < 2 or not len(twice):
        return None
    node = int(known[:, -1].argmax())
    return node, float(known[node, -1]), float(np.median(twice[:, 1] - twice[:, 0]))


def _step_back(
    graph: sp.csr_array, lat: np.ndarray, node: int, time: float, slowest: float, longest: float
):
    """Neighbour from which the wave came, when it fired, and the length of the edge.

    None where none fired within the longest time [ms] or at least so fast.
    """
    own = slice(graph.indptr[node], graph.indptr[node + 1])
    near, length = graph.indices[own], np.asarray(graph.data[own], dtype=float)
    before = np.where(lat[near] < time, lat[near], -np.inf).max(axis=1)
    passed = time - before
    slope = np.where(passed <= np.minimum(length / slowest, longest), passed / length, -np.inf)
    if not slope.max(initial=-np.inf) > 0:
        return None
    k = int(slope.argmax())
    return int(near[k]), float(before[k]), float(length[k])


def _longest_run(inside: np.ndarray, duration: np.ndarray) -> np.ndarray:
    """Steps of the longest run of True in a ring, by the time it takes."""
    n = len(inside)
    if inside.all() or not inside.any():
        return np.flatnonzero(inside)
    start = int(np.flatnonzero(~inside)[0])
    order = (start + np.arange(n)) % n
    bounds = np.flatnonzero(np.diff(inside[order].astype(int), prepend=0, append=0))
    runs = [order[a:b] for a, b in zip(bounds[::2], bounds[1::2], strict=True)]
    return max(runs, key=lambda run: duration[run].sum())


def dominant_frequency(
    t: Float[np.ndarray, "time"], vm: Float[np.ndarray, "time node"], *, least: float = 20.0
) -> Float[np.ndarray, "node"]:
    """Frequency at which each place is driven: the peak of its spectrum.

    Parameters
    ----------
    t : (time,) array
        Times [ms], evenly spaced.
    vm : (time, node) array
        Voltages [mV], or electrograms.
    least : float
        Nodes whose voltage spans less [mV] have no frequency.

    Returns
    -------
    (node,) array
        [Hz]; NaN where there is none.

    Raises
    ------
    InputError
        If there are fewer than four times, or they are not even.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.planning import dominant_frequency
    >>> t = np.arange(0.0, 1000.0, 5.0)
    >>> float(dominant_frequency(t, 50 * np.cos(2 * np.pi * t / 200.0)[:, None]).round(1)[0])
    5.0
    """
    steps = np.diff(t)
    if len(t) != len(vm) or len(t) < 4 or not (steps[0] > 0 and np.ptp(steps) < 1e-3 * steps[0]):
        raise InputError(
            f"{len(t)} times and {len(vm)} maps of voltage, expected as many, at least 4, at a "
            "fixed interval."
        )
    tapered = (vm - vm.mean(axis=0)) * np.hanning(len(t))[:, None]
    step = float(steps[0]) / 1000.0
    n = _PADDING * len(t)
    power = np.abs(np.fft.rfft(tapered, n, axis=0))
    found = np.fft.rfftfreq(n, step)[1 + power[1:].argmax(axis=0)]
    return np.where(np.ptp(vm, axis=0) >= least, found, np.nan)


class WaveBreaks(NamedTuple):
    """Phase singularities of a surface through time.

    Attributes
    ----------
    t : (time,) array
        Times [ms].
    at_once : (time,) int array
        Singularities at each.
    born : int
        Wave breaks: singularities that came up after the first frame and lasted.
    longest_ms : float
        Longest time that one was seen.
    """

    t: Float[np.ndarray, "time"]
    at_once: Int[np.ndarray, "time"]
    born: int
    longest_ms: float


def wave_breaks(
    mesh: TriMesh, phase: PhaseMap, *, reach: float = 5.0, patience: int = 1, least: int = 3
) -> WaveBreaks:
    """Count the singularities of a surface and how often new ones come up.

    Parameters
    ----------
    mesh : TriMesh
        The surface [mm].
    phase : PhaseMap
        Of its nodes.
    reach : float
        Longest way of a singularity from one frame to the next [mm].
    patience : int
        Frames for which one may be out of sight.
    least : int
        Frames in which one must be seen to count as born.

    Returns
    -------
    WaveBreaks
        Counts.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.mesh import TriMesh
    >>> from twinheart.planning import PhaseMap, wave_breaks
    >>> corners = np.array([[1.0, 0, 0], [-1, 1, 0], [-1, -1, 0]])
    >>> turning = np.arctan2(corners[:, 1], corners[:, 0]) + 0.3 * np.arange(5.0)[:, None]
    >>> mesh = TriMesh(corners, np.array([[0, 1, 2]]))
    >>> found = wave_breaks(mesh, PhaseMap(np.arange(5.0), turning))
    >>> found.at_once.tolist(), found.born
    ([1, 1, 1, 1, 1], 0)
    """
    frames: Sequence = [singular_points(mesh, row) for row in phase.phase]
    tracks = track_points(frames, reach, patience)
    spans = [float(phase.t[track.frame[-1]] - phase.t[track.frame[0]]) for track in tracks]
    return WaveBreaks(
        t=phase.t,
        at_once=np.array([len(frame.charge) for frame in frames], dtype=int),
        born=sum(bool(track.frame[0] > 0 and len(track.frame) >= least) for track in tracks),
        longest_ms=max(spans, default=0.0),
    )
