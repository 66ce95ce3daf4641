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

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from scipy.sparse.linalg import cg

from twinheart.errors import ModelError, SolverError
from twinheart.mesh.quality import triangle_areas, volumes
from twinheart.tissue.eikonal import Eikonal, metric
from twinheart.tissue.eikonal_elements import TET_PAIRS, TRIANGLE_PAIRS, edge_gram
from twinheart.tissue.node_tables import NodeTables, node_tables, tables_of_regions
from twinheart.tissue.wave_table import WaveTable

ELECTROTONIC_TIME = 4.0  # ms, see above; longer for cells that repolarise slowly
_STEPS = 64  # shares are rounded: tables are made once for each mixture
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
    >>> early, late = WaveTable([20.0], [1.0], [200.0]), WaveTable([20.0], [1.0], [240.0])
    >>> apd = coupled_tables(problem, {0: early, 1: late}).each(lambda table: table.apd[0])
    >>> float(apd.min()), float(apd.max()), len(np.unique(apd)) > 2
    (200.0, 240.0, True)
    """
    if not time >= 0:
        raise ModelError(f"the electrotonic time is {time:g} ms, expected none or more.")
    chosen = tables_of_regions(problem, dict(tables))
    if len(chosen) == 1 or time == 0:
        return node_tables(problem, dict(tables))
    times = [time] if durations is None else [time, durations]
    shares = np.concatenate([region_shares(problem, one) for one in times], axis=1)
    kinds, of = np.unique(np.round(shares * _STEPS), axis=0, return_inverse=True)
    parts = np.asarray(kinds).reshape(len(kinds), len(times), -1)
    parts = parts / parts.sum(axis=2, keepdims=True)
    return NodeTables(tuple(mixture(chosen, *part) for part in parts), of.ravel())


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
    scale = sp.diags_array(1.0 / matrix.diagonal())
    shares = np.zeros_like(loads)
    for k in range(1, loads.shape[1]):
        found, failed = cg(matrix, loads[:, k], x0=loads[:, k] / mass, rtol=1e-6, M=scale)
        if failed:
            raise SolverError(f"the shares of region {problem.tags[k]} did not converge.")
        shares[:, k] = np.clip(found, 0.0, 1.0)
    shares[:, 0] = 1.0 - np.minimum(shares.sum(axis=1), 1.0)
    shares[problem.n_mesh :] = np.eye(loads.shape[1])[0]
    return shares / shares.sum(axis=1, keepdims=True)


def mixture(
    tables: list[WaveTable],
    shares: Float[np.ndarray, "table"],
    durations: Float[np.ndarray, "table"] | None = None,
) -> WaveTable:
    """A table between others: least intervals, and what follows after equal surplus, are mixed.

    Of velocities the times are mixed that a wave takes, as these add up: a slow one counts more.

    Parameters
    ----------
    tables : list of WaveTable
        Of regions.
    shares : (table,) array
        Sum to one.
    durations : (table,) array, optional
        Shares in durations, where those are others; recovery after regular beats stays as it is.

    Returns
    -------
    WaveTable
        The one of them that has all of the share, or a new one.
    """
    if durations is not None and not np.array_equal(shares, durations):
        waves, own = mixture(tables, shares), mixture(tables, durations)
        surplus = waves.di - waves.di[0]
        apd = np.interp(surplus, own.di - own.di[0], own.apd)
        return WaveTable(waves.di + waves.apd[-1] - apd[-1], waves.speed, apd)
    if shares.max() == 1.0:
        return tables[int(shares.argmax())]
    own = [(table, share) for table, share in zip(tables, shares, strict=True) if share > 0]
    surplus = np.unique(np.concatenate([table.di - table.di[0] for table, _ in own]))
    kept = [0]
    for k in range(1, len(surplus)):
        if surplus[k] - surplus[kept[-1]] >= _APART:
            kept.append(k)
    surplus = surplus[kept]
    rows = [
        [share * np.interp(table.di[0] + surplus, table.di, x)
         for x in (1.0 / table.speed, table.apd)]
        for table, share in own
    ]  # fmt: skip
    least = sum(share * table.di[0] for table, share in own)
    slowness, apd = np.sum(rows, axis=0)
    return WaveTable(least + surplus, 1.0 / slowness, apd)


def _dirichlet(gram: np.ndarray) -> np.ndarray:
    """Products of the gradients of shape functions, from the Gram matrix of edges [1/ms2]."""
    sides = gram.shape[1]
    away = np.concatenate([-np.ones((sides, 1)), np.eye(sides)], axis=1)
    return away.T @ np.linalg.inv(gram) @ away
