r"""Restitution where regions meet: neighbours lend each other their recovery.

A wave table tells what a wave does deep in a region. Current flows between cells that repolarise
at different times, so recovery does not jump at a border: from either side it approaches the
other's over the way that voltage diffuses meanwhile. The share that each region has in a node is
that of the region itself, smoothed as voltage is,

.. math:: w_r - t_e^2\, \nabla \cdot (V^2 \nabla w_r) = \chi_r, \qquad \sum_r w_r = 1,

with velocities V along the axes of the fibres and the *electrotonic time* t_e: the way is
:math:`\lambda = c\, t_e`, as velocity and space constant both go with the root of the
conductivity. A wave thus enters a border zone earlier than its own table allows, and falls back as
it goes deeper. On cables whose halves have different cells, t_e was 3 to 4 ms for Bueno-Orovio
cells and 7 ms for TT06, and durations came within 5 and 10 % of the step (14 and 22 % without).

What premature waves do may need another time than durations, as the front drives from behind what
is not yet excitable (`twinheart.planning.strand`). There can be a time for either: recovery, the
least interval from one activation to the next, then goes over with that of waves, durations with
theirs.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from scipy.sparse.linalg import cg

from twinheart.errors import ModelError, SolverError
from twinheart.mesh.quality import triangle_areas, volumes
from twinheart.tissue.eikonal import Eikonal, metric
from twinheart.tissue.eikonal_elements import TET_PAIRS, TRIANGLE_PAIRS, edge_gram
from twinheart.tissue.node_tables import NodeTables, node_tables, tables_of_regions
from twinheart.tissue.wave_table import WaveTable, joined

ELECTROTONIC_TIME = 4.0  # ms, see above; longer for cells that repolarise slowly
_STEPS = 64  # shares are rounded: tables are made once for each mixture
_FINER = 4096  # and factors on durations
_ALIKE = 1e-12  # of durations, for one to be another times a factor
_APART = 1.0  # ms between the rows of a mixture, at least


def coupled_tables(
    problem: Eikonal,
    tables: Mapping[int, WaveTable],
    time: float = ELECTROTONIC_TIME,
    *,
    durations: float | None = None,
) -> NodeTables:
    """Wave tables of regions, mixed where these meet.

    Parameters
    ----------
    problem : Eikonal
        With a region tag in every row of its velocities.
    tables : mapping of int to WaveTable
        One for each region tag.
    time : float
        Electrotonic time [ms]; 0: each node has the table of its own region.
    durations : float, optional
        That of durations [ms], see `twinheart.tissue.electrotonic`; the same if not given.

    Returns
    -------
    NodeTables
        Restitution of every node.

    Raises
    ------
    ModelError
        If a region has no table, or the time is negative.
    SolverError
        If the shares of a region do not converge.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.tissue import Velocities, WaveTable, build_eikonal, coupled_tables
    >>> mesh = slab((40.0, 2.0, 2.0), 1.0)
    >>> tags = (mesh.points[mesh.tets].mean(axis=1)[:, 0] > 20.0).astype(np.int32)
    >>> problem = build_eikonal(Heart(mesh, regions=tags), {0: Velocities(), 1: Velocities()})
    >>> early, late = WaveTable([20.0], [1.0], [200.0]), WaveTable([30.0], [1.0], [240.0])
    >>> apd = coupled_tables(problem, {0: early, 1: late}).durations
    >>> float(apd.min()), float(apd.max()), len(np.unique(apd)) > 2
    (200.0, 240.0, True)
    """
    if not time >= 0:
        raise ModelError(f"the electrotonic time is {time:g} ms, expected none or more.")
    chosen = tables_of_regions(problem, dict(tables))
    if len(chosen) == 1 or time == 0:
        return node_tables(problem, dict(tables))
    families, own, factor = _families(chosen)
    parts = []
    for one in dict.fromkeys([time, time if durations is None else durations]):
        shares, factors = _of_families(problem, one, own, factor)
        parts += [np.round(shares * _STEPS), np.round(factors * _FINER)]
    kinds, of = np.unique(np.concatenate(parts, axis=1), axis=0, return_inverse=True)
    parts = np.moveaxis(np.asarray(kinds).reshape(len(kinds), -1, 2, len(families)), 0, 2)
    shares = parts[:, 0] / parts[:, 0].sum(axis=2, keepdims=True)
    last = shares * parts[:, 1] / _FINER
    return NodeTables(mixtures(families, shares[0], last[0], last[-1]), of.ravel())


def _families(
    tables: Sequence[WaveTable],
) -> tuple[list[WaveTable], Int[np.ndarray, "table"], Float[np.ndarray, "table"]]:
    """Tables that differ in more than a factor on durations; which of them each is, its factor.

    Calibrated hearts have dozens of regions, whose durations are scaled: these are solved as one.
    """
    found: list[WaveTable] = []
    own, factor = np.zeros(len(tables), dtype=int), np.ones(len(tables))
    for k, table in enumerate(tables):
        for j, first in enumerate(found):
            if np.array_equal(first.di, table.di) and np.array_equal(first.speed, table.speed):
                ratio = table.apd / first.apd
                if np.ptp(ratio) <= _ALIKE * ratio[0]:
                    own[k], factor[k] = j, ratio[0]
                    break
        else:
            own[k] = len(found)
            found.append(table)
    return found, own, factor


def _of_families(
    problem: Eikonal, time: float, own: Int[np.ndarray, "region"], factor
) -> tuple[Float[np.ndarray, "node family"], Float[np.ndarray, "node family"]]:
    """Share of each family of regions in every node, and its mean factor there."""
    kinds = np.eye(own.max() + 1)[own]
    scaled = [k for k in range(kinds.shape[1]) if np.ptp(factor[own == k])]
    weighted = kinds[:, scaled] * factor[:, None]
    found = _smoothed(problem, time, np.concatenate([kinds[:, 1:], weighted], axis=1))
    shares = _with_first(found[:, : kinds.shape[1] - 1])
    mean = np.ones_like(shares)
    for k, sums in zip(scaled, found[:, kinds.shape[1] - 1 :].T, strict=True):
        some = shares[:, k] > 0.5 / _STEPS  # what is less counts as none
        limits = factor[own == k].min(), factor[own == k].max()
        mean[some, k] = np.clip(sums[some] / shares[some, k], *limits)
    return shares, mean


def region_shares(problem: Eikonal, time: float) -> Float[np.ndarray, "node region"]:
    """Share of each region in the recovery of each node.

    Parameters
    ----------
    problem : Eikonal
        With a region tag in every row of its velocities.
    time : float
        Electrotonic time [ms].

    Returns
    -------
    (node, region) array
        Regions as in `tags`; rows sum to one. Nodes of a tree, and those at which nothing conducts,
        have the first.

    Raises
    ------
    SolverError
        If the linear solver does not converge.
    """
    return _with_first(_smoothed(problem, time, np.eye(len(problem.tags))[:, 1:]))


def _with_first(others: Float[np.ndarray, "node other"]) -> Float[np.ndarray, "node share"]:
    """Shares with the first, which has what the others leave."""
    first = 1.0 - np.minimum(others.sum(axis=1), 1.0)
    shares = np.concatenate([first[:, None], others], axis=1)
    return shares / shares.sum(axis=1, keepdims=True)


def _smoothed(
    problem: Eikonal, time: float, fields: Float[np.ndarray, "region field"]
) -> Float[np.ndarray, "node field"]:
    """Fields that are constant in each region, smoothed as voltage is."""
    kind, pairs = (0, TET_PAIRS) if len(problem.elements.tets) else (1, TRIANGLE_PAIRS)
    cells, row = np.asarray(problem.elements.cells), np.asarray(problem.rows[kind])
    corners, n = cells.shape[1], problem.n_nodes
    measure = volumes if corners == 4 else triangle_areas
    size = np.abs(measure(np.asarray(problem.points, float), cells))
    slow = np.asarray(problem.velocity, float) ** -2.0
    squares = tuple(np.asarray(g, float) for g in problem.squares[kind])
    products = _dirichlet(edge_gram(np.asarray(metric(squares, row, slow)), pairs))
    blocks = size[:, None, None] * products
    first = np.broadcast_to(cells[:, :, None], blocks.shape).ravel()
    second = np.broadcast_to(cells[:, None, :], blocks.shape).ravel()
    stiff = sp.coo_array((blocks.ravel(), (first, second)), shape=(n, n)).tocsr()
    part = np.repeat(size / corners, corners)
    loads = np.stack(
        [
            np.bincount(cells.ravel(), part * np.repeat(row == k, corners), n)
            for k in range(len(problem.tags))
        ],
        axis=1,
    )
    mass = loads.sum(axis=1)
    lonely = mass == 0
    loads[lonely, 0] = mass[lonely] = 1.0
    matrix = (sp.diags_array(mass) + time**2 * stiff).tocsr()
    scale = sp.diags_array(np.reciprocal(matrix.diagonal()))
    found = np.zeros((n, fields.shape[1]))
    for k, field in enumerate(fields.T):
        if np.ptp(field) == 0:
            found[:, k] = field[0]
            continue
        load = loads @ field
        solved, failed = cg(matrix, load, x0=load / mass, rtol=1e-6, M=scale)
        if failed:
            raise SolverError(f"field {k + 1} of {fields.shape[1]} over regions did not converge.")
        found[:, k] = np.clip(solved, field.min(), field.max())
    found[problem.n_mesh :] = fields[0]
    return found


def mixtures(
    tables: Sequence[WaveTable],
    shares: Float[np.ndarray, "mixture table"],
    last: Float[np.ndarray, "mixture table"] | None = None,
    durations: Float[np.ndarray, "mixture table"] | None = None,
) -> Float[np.ndarray, "mixture interval 3"]:
    """Tables between others: least intervals, and what follows after equal surplus, are mixed.

    Of velocities the times are mixed that a wave takes, as these add up: a slow one counts more.

    Parameters
    ----------
    tables : sequence of WaveTable
        Of regions.
    shares : (mixture, table) array
        Sum to one.
    last : (mixture, table) array, optional
        Factors on the durations of each, times the shares; by default the shares.
    durations : (mixture, table) array, optional
        The same in durations, which may go over otherwise; recovery after regular beats stays as
        it is. By default as `last`.

    Returns
    -------
    (mixture, interval, 3) array
        See `twinheart.tissue.wave_table.stacked`. One that has all of a share is that table.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.tissue import WaveTable
    >>> from twinheart.tissue.coupled_waves import mixtures
    >>> early, late = WaveTable([20.0], [1.0], [200.0]), WaveTable([30.0], [0.5], [240.0])
    >>> mixtures([early, late], np.array([[0.5, 0.5]])).round(3).tolist()
    [[[25.0, 0.667, 220.0]]]
    """
    last = shares if last is None else last
    durations = last if durations is None else durations
    patterns, group = np.unique(
        np.concatenate([shares > 0, durations > 0], axis=1), axis=0, return_inverse=True
    )
    parts, order = [], []
    for k, (used, lasting) in enumerate(patterns.reshape(len(patterns), 2, -1)):
        own = np.flatnonzero(group.ravel() == k)
        waves, others = ([tables[int(j)] for j in np.flatnonzero(x)] for x in (used, lasting))
        surplus, at = _surplus(waves), _surplus(others)
        between = np.stack([np.interp(surplus, at, one) for one in np.eye(len(at))])
        apd = (
            durations[own][:, lasting] @ np.stack([_after(t, at, t.apd) for t in others]) @ between
        )
        rest = last[own][:, used] @ np.array([_after(t, surplus[-1], t.apd) for t in waves])
        if len(waves) == 1:
            di, speed = waves[0].di, np.tile(waves[0].speed, (len(own), 1))
        else:
            di = shares[own][:, used] @ np.array([t.di[:1] for t in waves]) + surplus
            slow = np.stack([_after(t, surplus, np.reciprocal(t.speed)) for t in waves])
            speed = np.reciprocal(shares[own][:, used] @ slow)
        parts.append(np.stack([di + (rest - apd[:, -1])[:, None], speed, apd], axis=2))
        order.append(own)
    return joined(parts)[np.argsort(np.concatenate(order))]


def _surplus(tables: Sequence[WaveTable]) -> Float[np.ndarray, "interval"]:
    """Intervals beyond the shortest at which a mixture of tables has rows [ms]."""
    if len(tables) == 1:
        return tables[0].di - tables[0].di[0]
    every = np.unique(np.concatenate([table.di - table.di[0] for table in tables]))
    kept = [0]
    for k in range(1, len(every)):
        if every[k] - every[kept[-1]] >= _APART:
            kept.append(k)
    return every[kept]


def _after(table: WaveTable, surplus, values):
    """What a table has so long [ms] beyond its shortest interval."""
    return np.interp(table.di[0] + surplus, table.di, values)


def _dirichlet(gram: np.ndarray) -> np.ndarray:
    """Products of the gradients of shape functions, from the Gram matrix of edges [1/ms2]."""
    sides = gram.shape[1]
    away = np.concatenate([-np.ones((sides, 1)), np.eye(sides)], axis=1)
    return away.T @ np.linalg.inv(gram) @ away
