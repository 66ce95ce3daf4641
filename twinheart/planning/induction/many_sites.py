"""Programmed stimulation at many sites, some at once, gone on with where it was cut off."""

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from twinheart.errors import InputError, OutputError
from twinheart.planning.induction.one_site import SiteResult, StageResult, induce
from twinheart.planning.induction.protocols import Protocol
from twinheart.planning.pacing_sites import PacingSite
from twinheart.tissue import Eikonal
from twinheart.tissue.node_tables import WaveTables, node_tables

_STUDY = "study"


def induce_sites(
    problem: Eikonal,
    tables: WaveTables,
    sites: Sequence[PacingSite],
    protocol: Protocol,
    *,
    radius: float = 2.0,
    file: Path | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[SiteResult]:
    """Pace sites by a protocol, each by itself.

    Parameters
    ----------
    problem, tables, protocol, radius
        See `twinheart.planning.induce`.
    sites : sequence of PacingSite
        With names of their own.

    Other Parameters
    ----------------
    file : Path, optional
        One JSON object a line: a mark of the study, then a result a site as it ends. Sites that it
        holds are not run again.
    workers : int
        Sites at once. They are threads: the compiled part of a run holds no lock.
    progress : callable, optional
        Called with the number of sites that are done, and of all.

    Returns
    -------
    list of SiteResult
        In the order of the sites, whatever the number of workers.

    Raises
    ------
    InputError
        If two sites have one name, or the file belongs to another study or is damaged.
    OutputError
        If the file cannot be written.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning import Protocol, Stage, activation_train, induce_sites, place_sites
    >>> from twinheart.tissue import NonConducting, Velocities, WaveTable, build_eikonal
    >>> mesh = slab((40.0, 40.0, 1.0), 1.0)
    >>> x, y, _ = np.abs(mesh.points[mesh.tets].mean(axis=1) - 20.0).T
    >>> regions = np.where(np.maximum(x, y) < 10.0, 2, 0)  # a core of 80 mm around ...
    >>> slow = (mesh.points[mesh.tets].mean(axis=1)[:, 0] > 30) & (y < 5)
    >>> regions[slow] = 1  # ... and beside it tissue that recovers late
    >>> speed = Velocities(0.3, 0.3)
    >>> problem = build_eikonal(
    ...     Heart(mesh, regions=regions), {0: speed, 1: speed, 2: NonConducting()}
    ... )
    >>> tables = {k: WaveTable([20.0], [1.0], [apd]) for k, apd in ((0, 130.0), (1, 200.0))}
    >>> tables[2] = tables[0]
    >>> sites = place_sites(problem, [[35.0, 10.0, 0.0]], ["below it"])
    >>> protocol = Protocol("S1 S2", 2, 600.0, (Stage(250.0, 20.0, 130.0),))
    >>> (found,) = induce_sites(problem, tables, sites, protocol)
    >>> found.outcome, found.coupling, round(found.cycle_length)  # 80 mm at 0.3 m/s: 267 ms
    ('induced', (600.0, 210.0), 267)
    >>> int(activation_train(problem, tables, found, protocol).count.max())
    6
    """
    names = [site.name for site in sites]
    if len(set(names)) != len(names):
        raise InputError(f"the sites to pace are {names}: give each a name of its own.")
    tables = node_tables(problem, tables)
    if workers < 1:
        raise InputError(f"{workers} workers, expected at least 1.")
    done: dict[PacingSite, SiteResult] = {}
    if file is not None:
        done = _stored(file, _mark(problem, tables, protocol, radius))
    missing = [site for site in sites if site not in done]
    say = progress or (lambda *_: None)
    say(len(sites) - len(missing), len(sites))

    def one(site: PacingSite) -> SiteResult:
        start = perf_counter()
        found = induce(problem, tables, site, protocol, radius=radius)
        return replace(found, seconds=perf_counter() - start)

    if missing:
        _ = problem.elements.incidences  # made once, not by each thread
        with ThreadPoolExecutor(workers) as pool:
            waiting = [pool.submit(one, site) for site in missing]
            try:
                for number, ended in enumerate(as_completed(waiting), 1):
                    result = ended.result()
                    done[result.site] = result
                    if file is not None:
                        _add(file, result)
                    say(len(sites) - len(missing) + number, len(sites))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return [done[site] for site in sites]


def _mark(problem: Eikonal, tables, protocol: Protocol, radius: float) -> str:
    """A mark that differs between studies whose results differ."""
    found = hashlib.sha256(repr((replace(protocol, sources=()), float(radius))).encode())
    arrays = [problem.points, problem.velocity, problem.delays, problem.junction]
    arrays += [*problem.cells, *problem.rows, tables.rows, tables.of]
    arrays += [g for squares in problem.squares for g in squares]
    for array in arrays:
        value = np.ascontiguousarray(array)
        found.update(f"{value.shape}{value.dtype}".encode())
        found.update(value.tobytes())
    return found.hexdigest()


def _stored(file: Path, mark: str) -> dict[PacingSite, SiteResult]:
    """Results a file has; makes it if there is none, and cuts off a line that was not finished."""
    head = json.dumps({_STUDY: mark}) + "\n"
    try:
        text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}.") from None
    if head.startswith(text) and text != head:  # none yet, or cut off in its first line
        _write(file, head)
        return {}
    whole = text[: text.rfind("\n") + 1]
    try:
        first, *rest = [json.loads(line) for line in whole.splitlines()]
        own = first[_STUDY]
        results = [_result(line) for line in rest]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file} holds no results of pacing sites ({error}): give another file, or remove it."
        ) from None
    if own != mark:
        raise InputError(
            f"{file} holds the results of another heart, other restitution or another protocol: "
            "give another file, or remove it."
        )
    if whole != text:
        _write(file, whole)
    return {result.site: result for result in results}


def _result(line: dict[str, Any]) -> SiteResult:
    site = line["site"]
    paced = PacingSite(site["name"], tuple(site["position"]), tuple(site["asked"]))
    stages = tuple(StageResult(**stage) for stage in line["stages"])
    made = {"site": paced, "stages": stages, "stimuli": tuple(line["stimuli"])}
    return SiteResult(**{**line, **made})


def _add(file: Path, result: SiteResult) -> None:
    _write(file, json.dumps(asdict(result)) + "\n", "a")


def _write(file: Path, text: str, mode: str = "w") -> None:
    try:
        with file.open(mode, encoding="utf-8") as out:
            out.write(text)
    except OSError as error:
        raise OutputError(f"cannot write {file}: {error.strerror}.") from None
