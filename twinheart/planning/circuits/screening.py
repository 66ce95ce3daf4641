r"""Screening of a substrate without inducing anything: circuits, vulnerability, repolarisation.

Circuits are those of `twinheart.planning.circuits.search`. Vulnerability is that to a premature
beat, as in its definition: each site is paced regularly and then once, a little after it has
recovered, and the index is taken of the activation and repolarisation of that beat. Tissue that it
does not activate, because it is blocked there, has none.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from twinheart.errors import InputError
from twinheart.planning.circuits.search import Circuit, possible_circuits, site_waves
from twinheart.planning.circuits.vulnerability import (
    RADII,
    RepolarisationGradient,
    VulnerabilitySweep,
    repolarisation_gradient,
    vulnerability_index,
    vulnerability_sweep,
)
from twinheart.planning.pacing_sites import PacingSite
from twinheart.planning.substrate import Substrate
from twinheart.tissue import NonConducting, Sites, eikonal_train
from twinheart.tissue.eikonal_fixed_point import cores

RADIUS = 5.0  # mm, of the index; none of the radii from 2 to 8 mm is established
_MARGIN = 20.0  # ms after a site has recovered, at which it is paced prematurely
_LONGEST = 600.0  # ms that a premature beat may take


class PrematureBeat(NamedTuple):
    """A beat that comes early.

    Attributes
    ----------
    coupling : float
        After the regular one [ms].
    activation, repolarisation : (node,) arrays
        After the regular stimulus [ms]; NaN where it is blocked.
    regular : (node,) array
        Activation by the regular beat [ms]; NaN where it does not come.
    """

    coupling: float
    activation: Float[np.ndarray, "node"]
    repolarisation: Float[np.ndarray, "node"]
    regular: Float[np.ndarray, "node"]


class Screening(NamedTuple):
    """What was found without inducing anything.

    Attributes
    ----------
    circuits : list of Circuit or None
        Sustained circuits, the shortest cycle first; None where there is no scar to look in.
    unsustained : list of Circuit
        Circuits that refractoriness does not let last.
    sites : tuple of PacingSite
        Where it was paced.
    beats : tuple of PrematureBeat
        Of each site.
    lowest : (site,) array
        Lowest index of each site's premature beat [ms]; NaN where there is none.
    vulnerability : (node,) array
        Lowest index over the sites [ms], for `radius`; NaN where no site gives one.
    radius : float
        Of that index [mm].
    worst : int
        Site with the lowest index; -1 where there is none.
    sweep : VulnerabilitySweep or None
        Index of that site's beat for several radii.
    gradient : RepolarisationGradient or None
        Of that site's beat.
    """

    circuits: list[Circuit] | None
    unsustained: list[Circuit]
    sites: tuple[PacingSite, ...]
    beats: tuple[PrematureBeat, ...]
    lowest: Float[np.ndarray, "site"]
    vulnerability: Float[np.ndarray, "node"]
    radius: float
    worst: int
    sweep: VulnerabilitySweep | None
    gradient: RepolarisationGradient | None


def screen(
    substrate: Substrate,
    sites: Sequence[PacingSite],
    *,
    radius: float = RADIUS,
    radii: Sequence[float] = RADII,
    progress: Callable[[int, int], None] | None = None,
) -> Screening:
    """Look for circuits and vulnerable tissue.

    Parameters
    ----------
    substrate : Substrate
        From `twinheart.planning.substrate`.
    sites : sequence of PacingSite
        Where waves start.
    radius : float
        Of the vulnerability index over all sites [mm].
    radii : sequence of float
        Of that of the most vulnerable site [mm].
    progress : callable, optional
        Called with the number of parts that are done and of all.

    Returns
    -------
    Screening
        Circuits and maps.

    Raises
    ------
    InputError
        If there is no site, or a radius is not positive.

    Examples
    --------
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning import place_sites
    >>> from twinheart.planning.circuits.screening import screen
    >>> from twinheart.planning.substrate import build_substrate
    >>> from twinheart.tissue import WaveTable
    >>> table = WaveTable([20.0, 300.0], [0.5, 1.0], [180.0, 250.0])
    >>> found = build_substrate(Heart(slab((20.0, 4.0, 2.0), 1.0)), tables={0: table})
    >>> screened = screen(found, place_sites(found.problem, [[0.0, 2.0, 1.0]]))
    >>> screened.circuits is None, bool(screened.vulnerability[0] > 100)
    (True, True)
    """
    if not sites:
        raise InputError("no site to pace: give at least one.")
    say = progress or (lambda *_: None)
    total = len(sites) + 2
    say(0, total)
    circuits, unsustained = None, []
    waves = site_waves(substrate.problem, sites)
    if substrate.has_scar:
        found = possible_circuits(
            substrate.problem, substrate.heart.mesh, sites, substrate.restitution, waves=waves
        )
        circuits = [circuit for circuit in found if circuit.sustained]
        unsustained = [circuit for circuit in found if not circuit.sustained]
    say(1, total)
    conducts = conducting_tets(substrate)
    mesh = substrate.heart.mesh

    def of_site(site: PacingSite, wave) -> tuple[PrematureBeat, np.ndarray]:
        beat = premature_beat(substrate, site, regular=wave)
        if not np.isfinite(beat.activation).any():
            return beat, np.full(mesh.n_nodes, np.nan)
        return beat, vulnerability_index(
            mesh, beat.activation, beat.repolarisation, radius, conducts=conducts
        )

    _ = substrate.problem.elements.incidences  # made once, not by each thread
    beats, lowest = [], []
    vulnerability = np.full(mesh.n_nodes, np.inf)
    with ThreadPoolExecutor(min(cores(), len(sites))) as pool:  # compiled loops hold no lock
        for k, (beat, index) in enumerate(pool.map(of_site, sites, waves), start=1):
            beats.append(beat)
            lowest.append(np.nanmin(index) if np.isfinite(index).any() else np.nan)
            vulnerability = np.fmin(vulnerability, index)
            say(k + 1, total)
    vulnerability = np.where(np.isfinite(vulnerability), vulnerability, np.nan)
    worst, sweep, gradient = -1, None, None
    if np.isfinite(lowest).any():
        worst = int(np.nanargmin(lowest))
        chosen = beats[worst]
        sweep = vulnerability_sweep(
            mesh, chosen.activation, chosen.repolarisation, radii, conducts=conducts
        )
        gradient = repolarisation_gradient(mesh, chosen.repolarisation, conducts=conducts)
    say(total, total)
    return Screening(
        circuits, unsustained, tuple(sites), tuple(beats), np.array(lowest), vulnerability,
        float(radius), worst, sweep, gradient,
    )  # fmt: skip


def premature_beat(
    substrate: Substrate,
    site: PacingSite,
    *,
    coupling: float | None = None,
    regular: Float[np.ndarray, "every_node"] | None = None,
) -> PrematureBeat:
    """A regular beat from a site, and one that follows as early as it is conducted well.

    Parameters
    ----------
    substrate : Substrate
        From `twinheart.planning.substrate`.
    site : PacingSite
        Where both start.
    coupling : float, optional
        Interval between them [ms]; by default the duration of the site's tissue, its shortest
        diastolic interval, and 20 ms.
    regular : (node,) array, optional
        Arrival of the regular beat [ms], where it is known.

    Returns
    -------
    PrematureBeat
        Of the nodes of the mesh.
    """
    mesh = substrate.heart.mesh
    if coupling is None:
        node = _nearest(substrate, site)
        coupling = float(substrate.durations()[node] + substrate.intervals()[node]) + _MARGIN
    # the regular beat is that of the eikonal equation at rest: no train is needed for it
    wave = site_waves(substrate.problem, [site])[0] if regular is None else regular
    earlier = np.where(np.isfinite(wave), wave, np.nan)[: mesh.n_nodes]
    train = eikonal_train(
        substrate.problem, Sites([site.position], coupling), substrate.restitution,
        t_end=coupling + _LONGEST, repolarised=earlier + substrate.durations(),
    )  # fmt: skip
    first = np.pad(train.lat[: mesh.n_nodes], ((0, 0), (0, 1)), constant_values=np.nan)[:, 0]
    duration = np.pad(train.apd[: mesh.n_nodes], ((0, 0), (0, 1)), constant_values=np.nan)[:, 0]
    return PrematureBeat(coupling, first, first + duration, earlier)


def conducting_tets(substrate: Substrate) -> Bool[np.ndarray, "tet"]:
    """Tetrahedra through which waves run: neither core nor burnt."""
    tissues = substrate.conduction
    dead = [tag for tag in tissues if isinstance(tissues[tag], NonConducting)]
    return ~np.isin(substrate.heart.regions, dead)


def slowest_waves(substrate: Substrate) -> dict[int, float]:
    """Velocity of the slowest wave of each region that conducts [m/s], by its tag.

    Across the fibres, after the shortest interval that conducts.
    """
    problem = substrate.problem
    across = np.asarray(problem.velocity).min(axis=1)
    return {
        tag: float(speed) * float(substrate.tables[tag].speed.min())
        for tag, speed in zip(problem.tags, across, strict=False)
    }


def _nearest(substrate: Substrate, site: PacingSite) -> int:
    """Nearest node that conducts."""
    nodes = np.unique(substrate.problem.elements.cells)
    nodes = nodes[nodes < substrate.heart.mesh.n_nodes]
    away = np.linalg.norm(substrate.heart.mesh.points[nodes] - np.array(site.position), axis=1)
    return int(nodes[away.argmin()])
