"""Risk as a structured result: what can be measured on a heart, each with how sure it is.

There is no single number. Circuits that would sustain re-entry, inducibility over sites, times of
repolarisation and their dispersion are computed on the heart as it is (calibrated, or of population
values) and anew for each member of an ensemble of hearts that the data leave possible; intervals
are quantiles of the members. Shares have Wilson intervals.

Vulnerability and repolarisation are those of premature beats, see
`twinheart.planning.circuits.screening`. Durations go over from one region into the other as far as
the electrotonic time lets them; where that is less than an edge, gradients are as steep as the mesh
is fine, and are to be compared between hearts of one edge length only.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from twinheart.errors import InputError, OutputError
from twinheart.mesh.io.atomic import written_whole
from twinheart.planning.circuits.screening import RADIUS, Screening, screen
from twinheart.planning.induction.many_sites import induce_sites
from twinheart.planning.induction.one_site import SiteResult
from twinheart.planning.induction.protocols import Protocol
from twinheart.planning.pacing_sites import PacingSite
from twinheart.planning.risk.ensemble import Ensemble
from twinheart.planning.substrate import Substrate

LEVEL = 0.9  # share of the members that an interval holds


class Measure(NamedTuple):
    """What a number is.

    Attributes
    ----------
    key, label, unit : str
        Its name in results, in words, and its unit.
    """

    key: str
    label: str
    unit: str


MEASURES = (
    Measure("circuits", "Circuits that would sustain re-entry", ""),
    Measure("shortest_cycle_ms", "Shortest cycle of a circuit", "ms"),
    Measure("narrowest_isthmus_mm2", "Narrowest isthmus", "mm2"),
    Measure("inducible_sites", "Sites from which re-entry is induced", ""),
    Measure("shortest_coupling_ms", "Shortest coupling interval that induced", "ms"),
    Measure("induced_cycle_ms", "Shortest cycle of induced re-entry", "ms"),
    Measure("lowest_rvi_ms", "Lowest re-entry vulnerability index", "ms"),
    Measure("dispersion_ms", "Dispersion of repolarisation, whole range", "ms"),
    Measure("steep_ml", "Tissue with gradients of 10 ms/mm and more", "ml"),
    Measure("activation_ms", "Time to activate all tissue, slowest site", "ms"),
)
_INDUCTION = ("inducible_sites", "shortest_coupling_ms", "induced_cycle_ms")


class Share(NamedTuple):
    """A count of some, with the Wilson interval of its share at 95 %.

    Attributes
    ----------
    count, of : int
        How many of how many.
    low, high : float
        Ends of the interval, as shares.

    References
    ----------
    Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """

    count: int
    of: int
    low: float
    high: float


class Interval(NamedTuple):
    """What an ensemble leaves open about one measure.

    Attributes
    ----------
    measure : Measure
        Which.
    value : float
        Of the heart itself; NaN where there is none.
    low, median, high : float
        Quantiles of the members that have a value, which hold `LEVEL` of them; NaN without any.
    known : int
        How many have one.
    values : tuple of float
        Of all members.
    """

    measure: Measure
    value: float
    low: float
    median: float
    high: float
    known: int
    values: tuple[float, ...]

    @property
    def width(self) -> float:
        """From low to high."""
        return self.high - self.low


class Found(NamedTuple):
    """What was measured on one heart.

    Attributes
    ----------
    values : dict
        By the keys of `MEASURES`; NaN where there is none. Those of induction only where asked.
    screening : Screening
        Circuits and maps.
    sites : tuple of SiteResult
        Of programmed stimulation.
    """

    values: dict[str, float]
    screening: Screening
    sites: tuple[SiteResult, ...]


class Risk(NamedTuple):
    """What is known of a heart, and how surely.

    Attributes
    ----------
    found : Found
        Of the heart itself.
    ensemble : Ensemble or None
        What was varied.
    intervals : tuple of Interval
        One for each measure; without an ensemble their ends are NaN.
    inducibility : Share or None
        Sites from which re-entry was induced, where that was asked.
    circuit_share : Share or None
        Members with a circuit at least.
    inducible_share : Share or None
        Members in which a site at least induces.
    """

    found: Found
    ensemble: Ensemble | None
    intervals: tuple[Interval, ...]
    inducibility: Share | None
    circuit_share: Share | None
    inducible_share: Share | None


def share(count: int, of: int) -> Share:
    """Share with its Wilson interval at 95 %.

    Examples
    --------
    >>> from twinheart.planning.risk.measures import share
    >>> found = share(0, 20)
    >>> found.low, round(found.high, 3)
    (0.0, 0.161)
    """
    if not 0 <= count <= of or of < 1:
        raise InputError(f"{count} of {of} is no share.")
    found = stats.binomtest(count, of).proportion_ci(0.95, method="wilson")
    return Share(count, of, float(found.low), float(found.high))


def measure_heart(
    substrate: Substrate,
    sites: Sequence[PacingSite],
    protocol: Protocol | None = None,
    *,
    radius: float = RADIUS,
    workers: int = 1,
    file: Path | None = None,
) -> Found:
    """Measure one heart.

    Parameters
    ----------
    substrate : Substrate
        The heart.
    sites : sequence of PacingSite
        Where waves start.
    protocol : Protocol, optional
        Programmed stimulation from the sites; by default nothing is induced.

    Other Parameters
    ----------------
    radius : float
        Of the vulnerability index [mm].
    workers : int
        Sites that are paced at once.
    file : Path, optional
        Results of sites, see `twinheart.planning.induce_sites`.

    Returns
    -------
    Found
        Its measures.

    Raises
    ------
    InputError
        If there is no site; see `screen` and `induce_sites`.

    Examples
    --------
    See `assess_risk`.
    """
    screened = screen(substrate, sites, radius=radius, radii=(radius,))
    circuits = screened.circuits or []
    values = {
        "circuits": float(len(circuits)),
        "shortest_cycle_ms": min((c.cycle_length_ms for c in circuits), default=np.nan),
        "narrowest_isthmus_mm2": min((c.isthmus_area_mm2 for c in circuits), default=np.nan),
        **_of_beats(screened),
    }
    paced: list[SiteResult] = []
    if protocol is not None:
        paced = induce_sites(
            substrate.problem, substrate.restitution, sites, protocol, workers=workers, file=file
        )
        values |= _of_sites(paced)
    return Found(values, screened, tuple(paced))


def assess_risk(
    substrate: Substrate,
    sites: Sequence[PacingSite],
    ensemble: Ensemble | None = None,
    protocol: Protocol | None = None,
    *,
    induce_members: bool = False,
    workers: int = 1,
    file: Path | None = None,
    sites_file: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Risk:
    """Measure a heart, and what an ensemble leaves open about it.

    Parameters
    ----------
    substrate : Substrate
        The heart.
    sites : sequence of PacingSite
        Where waves start, in the heart and in all members.
    ensemble : Ensemble, optional
        Made for this substrate; by default the heart alone is measured.
    protocol : Protocol, optional
        Programmed stimulation of the heart.

    Other Parameters
    ----------------
    induce_members : bool
        Pace the members by the protocol as well, which takes as long for each as for the heart.
    workers : int
        Sites that are paced at once.
    file : Path, optional
        Measures of the members that are done: they are not computed again.
    sites_file : Path, optional
        Results of the heart's sites, see `twinheart.planning.induce_sites`.
    progress : callable, optional
        Called with the number of members that are done, and of all.

    Returns
    -------
    Risk
        The same to the last digit for the same heart, sites, ensemble and protocol.

    Raises
    ------
    InputError
        As `measure_heart`; if members are to be paced without a protocol, or the file is not of
        this study.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.anatomy.scar import with_scar
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning import place_sites
    >>> from twinheart.planning.risk.ensemble import population_ensemble
    >>> from twinheart.planning.risk.measures import assess_risk
    >>> from twinheart.planning.substrate import build_substrate
    >>> from twinheart.tissue import Velocities, WaveTable
    >>> mesh = slab((32.0, 28.0, 2.0), 1.0)
    >>> x, y, _ = np.abs(mesh.points[mesh.tets].mean(axis=1) - [16.0, 14.0, 1.0]).T
    >>> scar = np.where((x < 10) & (y < 8), np.where(x < 2, 1, 2), 0).astype(np.int32)
    >>> table = WaveTable([20.0, 300.0], [0.6, 1.0], [80.0, 100.0])
    >>> heart = build_substrate(
    ...     Heart(with_scar(mesh, scar)), conduction=Velocities(0.5, 0.5),
    ...     border_speed=0.4, across=1.0, tables={0: table, 1000: table},
    ... )
    >>> sites = place_sites(heart.problem, [[16.0, 2.0, 1.0]])
    >>> found = assess_risk(heart, sites, population_ensemble(heart, 3))
    >>> found.found.values["circuits"], found.circuit_share.of
    (1.0, 3)
    """
    if induce_members and protocol is None:
        raise InputError("members are to be paced, but no protocol is given.")
    found = measure_heart(substrate, sites, protocol, workers=workers, file=sites_file)
    members: list[dict[str, float]] = []
    if ensemble is not None:
        members = _members(
            substrate,
            sites,
            ensemble,
            protocol if induce_members else None,
            workers,
            file,
            progress,
        )
    counts = [int(member["circuits"] > 0) for member in members]
    induced = [int(m["inducible_sites"] > 0) for m in members if "inducible_sites" in m]
    of_sites = [int(result.induced) for result in found.sites]
    return Risk(
        found,
        ensemble,
        tuple(_interval(measure, found.values, members) for measure in MEASURES
              if protocol is not None or measure.key not in _INDUCTION),
        share(sum(of_sites), len(of_sites)) if of_sites else None,
        share(sum(counts), len(counts)) if counts else None,
        share(sum(induced), len(induced)) if induced else None,
    )  # fmt: skip


def _interval(measure: Measure, own: dict[str, float], members) -> Interval:
    values = np.array([member.get(measure.key, np.nan) for member in members], dtype=float)
    known = values[np.isfinite(values)]
    low, median, high = (
        np.quantile(known, [0.5 - LEVEL / 2, 0.5, 0.5 + LEVEL / 2]) if known.size else [np.nan] * 3
    )
    return Interval(
        measure, own.get(measure.key, np.nan), float(low), float(median), float(high),
        int(known.size), tuple(values.tolist()),
    )  # fmt: skip


def _members(
    substrate: Substrate, sites, ensemble: Ensemble, protocol, workers: int, file, progress
) -> list[dict[str, float]]:
    """Measures of the members, those that a file has taken from there."""
    say = progress or (lambda *_: None)
    mark = _mark(substrate, sites, protocol)
    done = {} if file is None else stored_members(file, substrate, sites, protocol)
    found = []
    for k, values in enumerate(ensemble.members):
        say(k, len(ensemble.members))
        key = _digest(repr((sorted(values.items()), sorted(ensemble.centre.items()))))
        if key not in done:
            member = ensemble.substrate(substrate, k)
            done[key] = measure_heart(member, sites, protocol, workers=workers).values
            if file is not None:
                _store(file, mark, done)
        found.append(done[key])
    say(len(ensemble.members), len(ensemble.members))
    return found


def _mark(substrate: Substrate, sites, protocol) -> str:
    """A mark that differs between hearts, sites and protocols whose results differ."""
    text = _digest(repr((tuple(sites), protocol, substrate.cycle)))
    total = hashlib.sha256(text.encode())
    problem = substrate.problem
    scar = substrate.heart.mesh.cell_fields.get("scar", np.zeros(0))
    for array in (problem.points, problem.cells[0], problem.velocity, substrate.refractory, scar):
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def stored_members(
    file: Path, substrate: Substrate, sites, protocol: Protocol | None = None
) -> dict[str, dict[str, float]]:
    """Measures of the members that a file of `assess_risk` has.

    Parameters
    ----------
    file : Path
        Perhaps not there yet.
    substrate, sites, protocol
        Of the study that it must be of; the protocol only where the members are paced by it.

    Returns
    -------
    dict
        Measures by a digest of the member.

    Raises
    ------
    InputError
        If it is of another study, or damaged.
    """
    mark = _mark(substrate, sites, protocol)
    if not file.exists():
        return {}
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        own, rows = record["study"], record["members"]
        found = {k: {n: _number(x) for n, x in row.items()} for k, row in rows.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file} holds no members of an ensemble ({error}): give another file, or remove it."
        ) from None
    if own != mark:
        raise InputError(
            f"{file} holds the members of another heart, other sites or another protocol: give "
            "another file, or remove it."
        )
    return found


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _store(file: Path, mark: str, done: dict[str, dict[str, float]]) -> None:
    rows = {
        k: {n: x if np.isfinite(x) else None for n, x in row.items()} for k, row in done.items()
    }
    try:
        with written_whole(file) as draft:
            draft.write_text(json.dumps({"study": mark, "members": rows}), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {file}: {error.strerror}.") from None


def _of_beats(found: Screening) -> dict[str, float]:
    """Vulnerability and repolarisation by the beats of a screening."""
    values = dict.fromkeys(("lowest_rvi_ms", "dispersion_ms", "steep_ml"), np.nan)
    if found.worst >= 0 and found.gradient is not None:
        repol = found.beats[found.worst].repolarisation
        values["lowest_rvi_ms"] = float(found.lowest[found.worst])
        values["dispersion_ms"] = float(np.nanmax(repol) - np.nanmin(repol))
        values["steep_ml"] = found.gradient.volume_ml
    spans = [np.nanmax(b.regular) - np.nanmin(b.regular) for b in found.beats]
    return values | {"activation_ms": float(max(spans))}


def _of_sites(results: Sequence[SiteResult]) -> dict[str, float]:
    induced = [result for result in results if result.induced]
    last = [min(result.coupling) for result in induced if result.coupling]
    cycles = [result.cycle_length for result in induced if result.cycle_length is not None]
    return {
        "inducible_sites": float(len(induced)),
        "shortest_coupling_ms": float(min(last, default=np.nan)),
        "induced_cycle_ms": float(min(cycles, default=np.nan)),
    }
