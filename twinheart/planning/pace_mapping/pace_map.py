r"""Where a ventricular tachycardia leaves its scar: pace mapping of a simulated heart.

Beats paced from many sites of the surfaces are compared with one recorded beat, whatever its
amplitude, its onset and the speed of the wave (see `twinheart.planning.pace_mapping.pace_match`).
The site with the largest correlation r is the exit; around it the sites lie ever closer.

**How sure.** The heart differs from its model. So beats are simulated from places around the exit
that are drawn at random, in hearts whose velocities, electrodes and leads differ from the model's,
with the noise of the recording, and each is located as the recording was. For each trial k let

.. math:: Q_k = \frac{1 - r_k(\text{true place})}{1 - \max r_k}.

The region of the recording holds the places with :math:`1 - r \le q\,(1 - \max r)`, where q is the
:math:`\lceil (K + 1) \cdot \text{level} \rceil`-th smallest of K trials, and what is no farther
from these than the closest sites are from each other. A place and a heart drawn as those of the
trials were lies in it with at least the probability `level` (split conformal prediction, Vovk et
al. 2005, doi:10.1007/b106715); what the trials leave out, such as wrong fibres or an unknown scar,
is not covered. Since q multiplies the misfit of the recording itself, the region grows where the
model fits badly.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import KDTree

from twinheart.ecg import Ecg
from twinheart.errors import InputError
from twinheart.mesh import TetMesh
from twinheart.mesh.quality import boundary_triangles, mean_edge, triangle_areas
from twinheart.planning.pace_mapping.pace_match import (
    EARLIEST,
    LOWPASS,
    SAMPLES,
    STEP,
    Match,
    PacedBeats,
    filtered,
)
from twinheart.planning.pace_mapping.paced_ecg import (
    Candidates,
    ModelSpread,
    PacedEcg,
    candidates,
    thinned,
)
from twinheart.planning.pace_mapping.vt_beat import VtBeat, qrs_extent

_ROUNDS = ((4.0, 0.5), (2.0, 0.25))  # of the misfit of the best, and spacings of what is added
_ADDED = 48  # sites a round
_AROUND = 4.0  # of the misfit of the best: where trials are drawn
_NEIGHBOURS = 12  # sites between which a value is interpolated
_LOCAL = 1.5  # spacings within which a second site is the best
_ACTIVATION = (0.0, 250.0)  # ms: when a simulated QRS is steepest
_LEAST_MISFIT = 1e-6  # of 1 - r: what rounding leaves


class Site(NamedTuple):
    """One site of a pace map.

    Attributes
    ----------
    node : int
        Of the mesh.
    position_mm : (3,) array
        Its place [mm].
    surface : int
        `twinheart.mesh.implicit.SurfaceClass`.
    correlation : float
        With the recorded beat.
    offset_ms : float
        From the start of the wave to the onset of the QRS.
    speed : float
        Factor on the velocities at which it matches.
    """

    node: int
    position_mm: Float[np.ndarray, "3"]
    surface: int
    correlation: float
    offset_ms: float
    speed: float


class PaceMap(NamedTuple):
    """A pace map.

    Attributes
    ----------
    exit : Site
        The site with the largest correlation.
    second : Site or None
        The best local maximum elsewhere.
    of_surface : tuple of Site
        The best site of each surface, the best first.
    sites : (site,) int array
        Nodes that were paced.
    at_sites : (site,) array
        Their correlations.
    correlation : (node,) array
        Interpolated to the nodes of the surfaces; NaN elsewhere.
    region : (node,) bool array
        Where the exit lies with the probability `level`.
    level, least_correlation : float
        Of the region.
    area_mm2, radius_mm : float
        Of the region; its farthest node from the exit.
    ratios : (trial,) array
        Q of the trials, in increasing order.
    misses_mm : (trial,) array
        Distances between the true place of each trial and where it was located.
    leads : tuple of str
        That were compared.
    simulated : Ecg
        Leads of the beat paced at the exit [mV], filtered; time zero is the onset of the QRS.
    """

    exit: Site
    second: Site | None
    of_surface: tuple[Site, ...]
    sites: Int[np.ndarray, "site"]
    at_sites: Float[np.ndarray, "site"]
    correlation: Float[np.ndarray, "node"]
    region: Bool[np.ndarray, "node"]
    level: float
    least_correlation: float
    area_mm2: float
    radius_mm: float
    ratios: Float[np.ndarray, "trial"]
    misses_mm: Float[np.ndarray, "trial"]
    leads: tuple[str, ...]
    simulated: Ecg


def locate_exit(
    paced: PacedEcg,
    mesh: TetMesh,
    beat: VtBeat,
    *,
    surfaces: str = "both",
    spacing: float = 8.0,
    level: float = 0.9,
    trials: int = 39,
    error: ModelSpread | None = None,
    distinct: float = 20.0,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> PaceMap:
    """Find where a recorded beat begins.

    Parameters
    ----------
    paced : PacedEcg
        The heart that is paced.
    mesh : TetMesh
        Its mesh, with tagged surfaces.
    beat : VtBeat
        The recorded beat.
    surfaces : {"endo", "epi", "both"}
        Where it may begin.
    spacing : float
        Between sites before it is looked at more closely [mm].
    level : float
        Probability that the region is to hold.
    trials : int
        Simulated beats that tell how large the region must be.

    Other Parameters
    ----------------
    error : ModelSpread, optional
        How far the hearts of the trials are from the model.
    distinct : float
        Least distance of a second site from the exit [mm].
    seed : int
        Of the trials.
    progress : callable, optional
        Called with what is being done, the number that is done, and of all.

    Returns
    -------
    PaceMap
        Correlations, exit and region.

    Raises
    ------
    InputError
        If a number makes no sense, or nothing of the surfaces conducts.

    Examples
    --------
    >>> import twinheart as th
    >>> from twinheart.planning import locate_exit, paced_ecg, vt_beat
    >>> heart = th.demo_heart(edge=2.6)
    >>> twin = th.Twin(heart, cell="mitchell-schaeffer", electrodes=th.standard_12_lead(heart))
    >>> place = heart.mesh.points[heart.mesh.point_fields["surf_class"] == 2][500]
    >>> stimulus = th.pace("sphere:{},{},{},2".format(*place))
    >>> beat = th.simulate(twin, stimulus, t_end=400.0, propagation="eikonal")
    >>> paced = paced_ecg(twin, beat.ecg.names)
    >>> found = locate_exit(paced, heart.mesh, vt_beat(beat.ecg), spacing=14.0, trials=9)
    >>> bool(((found.exit.position_mm - place) ** 2).sum() < 5.0**2)
    True
    """
    _check(spacing, level, trials, distinct)
    say = progress or (lambda *_: None)
    at = candidates(mesh, paced.problem, surfaces)
    points = mesh.points[at.nodes]
    search = _search(paced, mesh, at, beat, spacing, say)
    match, places = search.match, points[search.sites]
    near = _Interpolation(points, at.surface, search.sites)
    r, best = near(match.correlation), int(match.correlation.argmax())
    top = max(float(r.max()), float(match.correlation[best]))
    rng = np.random.default_rng(seed)
    truth = rng.choice(np.flatnonzero(_misfit(r) <= _AROUND * _misfit(top)), trials)
    say("trials", 0, trials)
    size = float(np.abs(search.signals).max()), beat.noise
    tried = _trials(paced, search.beats, points[truth], size, error or ModelSpread(), rng)
    say("trials", trials, trials)
    of_trial = near(tried.T)
    highest = np.maximum(of_trial.max(axis=0), tried.max(axis=1))
    ratios = np.sort(_misfit(of_trial[truth, np.arange(trials)]) / _misfit(highest))
    least = 1.0 - float(ratios[_rank(trials, level) - 1] * _misfit(top))
    inside = r >= least
    inside[search.sites[best]] = True
    inside = _widened(points, at.surface, inside, _closest(mesh, spacing))
    correlation, region = np.full(mesh.n_nodes, np.nan), np.zeros(mesh.n_nodes, dtype=bool)
    correlation[at.nodes], region[at.nodes] = r, inside
    correlation[at.nodes[search.sites]] = match.correlation

    def site(k: int) -> Site:
        number = search.sites[k]
        numbers = (match.correlation[k], match.offset[k], match.speed[k])
        where = int(at.nodes[number]), places[k], int(at.surface[number])
        return Site(*where, *(float(x) for x in numbers))

    surface = at.surface[search.sites]
    second = _second(places, surface, match.correlation, distinct, _LOCAL * spacing)
    return PaceMap(
        exit=site(best),
        second=None if second is None else site(second),
        of_surface=tuple(map(site, _best_of_each(surface, match.correlation))),
        sites=at.nodes[search.sites],
        at_sites=match.correlation,
        correlation=correlation,
        region=region,
        level=level,
        least_correlation=least,
        area_mm2=float(_node_areas(mesh)[region].sum()),
        radius_mm=float(np.linalg.norm(points[inside] - places[best], axis=1).max()),
        ratios=ratios,
        misses_mm=np.linalg.norm(places[tried.argmax(axis=1)] - points[truth], axis=1),
        leads=paced.names,
        simulated=_as_ecg(search.beats.leads[best], site(best), paced.names),
    )


class _Search(NamedTuple):
    """Sites that were paced, as numbers of candidates, and the recording they were compared to."""

    sites: np.ndarray
    beats: PacedBeats
    match: Match
    signals: np.ndarray


def _search(paced, mesh: TetMesh, at: Candidates, beat: VtBeat, spacing: float, say) -> _Search:
    """Pace sites everywhere, then ever closer ones where the exit may be."""
    points = mesh.points[at.nodes]
    t, signals = filtered(beat.ecg, paced.names)
    sites = np.flatnonzero(thinned(points, at.surface, spacing))
    beats = paced.beats(points[sites], lambda k, n: say("sites", k, n))
    match = beats.match(t, signals, beat.duration)
    for misfit, share in _ROUNDS:
        least = max(share * spacing, _closest(mesh, 0.0))
        added = _closer(points, at, sites, match, misfit, least)
        if added.size:
            more = paced.beats(points[added], lambda k, n: say("sites near the exit", k, n))
            beats, sites = beats.joined(more), np.append(sites, added)
            match = beats.match(t, signals, beat.duration)
    return _Search(sites, beats, match, signals)


def _closest(mesh: TetMesh, spacing: float) -> float:
    """Between the closest sites [mm]: nodes cannot be closer than about an edge."""
    return max(_ROUNDS[-1][1] * spacing, 0.9 * mean_edge(mesh))


def _widened(points, surface, inside, reach: float) -> np.ndarray:
    """What lies within reach of the region on the same surface: no site can tell it apart."""
    found = inside.copy()
    for label in np.unique(surface[inside]):
        own = np.flatnonzero(surface == label)
        gap, _ = KDTree(points[own][inside[own]]).query(points[own])
        found[own] |= gap <= reach
    return found


def _rank(trials: int, level: float) -> int:
    """Which of the trials' ratios, counted from the smallest, decides."""
    return math.ceil((trials + 1) * level - 1e-9)


def _check(spacing: float, level: float, trials: int, distinct: float) -> None:
    if not 1.0 <= spacing <= 50.0:
        raise InputError(f"sites are {spacing:g} mm apart, expected 1 to 50 mm.")
    if not distinct > 0:
        raise InputError(f"a second site is {distinct:g} mm away, expected a positive distance.")
    if not (0.5 <= level < 1 and _rank(trials, level) <= trials):
        least = math.ceil(level / (1 - level)) if 0.5 <= level < 1 else 9
        raise InputError(
            f"a level of {level:g} with {trials} trials: expected 0.5 to below 1, and at least "
            f"{least} trials for it."
        )


def _misfit(r):
    return np.maximum(1.0 - r, _LEAST_MISFIT)


def _closer(points, at: Candidates, sites, match: Match, misfit: float, least: float) -> np.ndarray:
    """Candidates where the exit may be, the likeliest first, no nearer to each other than told."""
    r = _Interpolation(points, at.surface, sites)(match.correlation)
    top = match.correlation.max()
    likely = np.flatnonzero(_misfit(r) <= misfit * _misfit(top))
    order = np.argsort(-r[likely], kind="stable")
    own = thinned(points[likely], at.surface[likely], least, order, points[sites])
    ranked = likely[order[own[order]]]
    return ranked[:_ADDED]


def _trials(paced: PacedEcg, beats: PacedBeats, positions, size, error, rng) -> np.ndarray:
    """Correlation of beats of disturbed hearts with the beats of the model, (trial, site)."""
    largest, noise = size
    t = EARLIEST + STEP * np.arange(SAMPLES)
    found = []
    for leads in paced.disturbed(positions, error, rng):
        own = noise * float(np.abs(leads).max()) / largest * rng.standard_normal(leads.shape)
        noisy = leads + np.asarray(gaussian_filter1d(own, LOWPASS / STEP, axis=0))
        onset, offset = qrs_extent(Ecg(t, noisy, paced.names), _ACTIVATION)
        found.append(beats.match(t - onset, noisy, offset - onset).correlation)
    return np.stack(found)


class _Interpolation:
    """Correlations at points from those at some of them, by multiquadrics of the neighbours.

    Where they jump, as beside scar, multiquadrics overshoot: none leaves less than half the misfit
    of its best neighbour.
    """

    def __init__(self, points: np.ndarray, surface: np.ndarray, sites: np.ndarray):
        self._parts = []
        self._n = len(points)
        for label in np.unique(surface):
            own, of_label = np.flatnonzero(surface == label), surface[sites] == label
            if not of_label.any():
                continue
            known = points[sites[of_label]]
            n = min(_NEIGHBOURS, len(known))
            gap, nearest = KDTree(known).query(points[own], k=n)
            nearest, scale = nearest.reshape(-1, n), max(float(np.median(gap)), 1e-9)
            around = known[nearest]
            apart = np.linalg.norm(around[:, :, None] - around[:, None], axis=3)
            matrix = np.ones((len(own), n + 1, n + 1))
            matrix[:, :n, :n] = -np.sqrt(1 + (apart / scale) ** 2)
            matrix[:, n, n] = 0.0
            right = np.ones((len(own), n + 1, 1))
            right[:, :n, 0] = -np.sqrt(1 + (gap.reshape(-1, n) / scale) ** 2)
            weights = np.linalg.solve(matrix, right)[:, :n, 0]
            self._parts.append((own, np.flatnonzero(of_label)[nearest], weights))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        found = np.full((self._n, *values.shape[1:]), -1.0)
        for own, nearest, weights in self._parts:
            around = values[nearest]
            highest = (1.0 + around.max(axis=1)) / 2
            found[own] = np.minimum(np.einsum("pk,pk...->p...", weights, around), highest)
        return np.maximum(found, -1.0)


def _best_of_each(surface: np.ndarray, r: np.ndarray) -> list[int]:
    best = [int(np.flatnonzero(surface == k)[r[surface == k].argmax()]) for k in np.unique(surface)]
    return sorted(best, key=lambda k: -r[k])


def _second(places, surface, r, distinct: float, local: float) -> int | None:
    """The best site away from the first that no other around it on its surface exceeds."""
    away = np.linalg.norm(places - places[r.argmax()], axis=1)
    near = KDTree(places).query_ball_point(places, local)
    for k in np.argsort(-r, kind="stable"):
        around = np.asarray(near[k])
        around = around[surface[around] == surface[k]]
        if away[k] >= distinct and r[k] >= r[around].max():
            return int(k)
    return None


def _node_areas(mesh: TetMesh) -> np.ndarray:
    triangles = boundary_triangles(mesh.tets)
    third = np.repeat(triangle_areas(mesh.points, triangles) / 3, 3)
    return np.bincount(triangles.ravel(), third, mesh.n_nodes)


def _as_ecg(leads: np.ndarray, site: Site, names: tuple[str, ...]) -> Ecg:
    t = (EARLIEST + STEP * np.arange(SAMPLES) - site.offset_ms) / site.speed
    return Ecg(t, np.asarray(leads, float), names)
