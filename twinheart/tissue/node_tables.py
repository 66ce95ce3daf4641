"""The restitution of every node: one table for all, one for each region, or mixtures of these."""

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from twinheart.errors import ModelError
from twinheart.tissue.eikonal import Eikonal
from twinheart.tissue.wave_table import WaveTable, stacked


class NodeTables(eqx.Module):
    """Tables, and which of them each node has.

    There may be a hundred thousand. They are rows of one array: equinox would visit as many
    `WaveTable` each time that a method of a module which holds them is looked up.

    Attributes
    ----------
    rows : (table, interval, 3) array
        All tables that occur, see `twinheart.tissue.wave_table.stacked`.
    of : (node,) int array
        Which of them; nodes of a Purkinje tree follow those of the mesh.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.tissue import NodeTables, WaveTable
    >>> from twinheart.tissue.wave_table import stacked
    >>> tables = WaveTable([20.0], [1.0], [200.0]), WaveTable([30.0], [1.0], [250.0])
    >>> NodeTables(stacked(tables), np.array([0, 1, 1])).refractory.tolist()
    [220.0, 280.0, 280.0]
    """

    rows: Float[np.ndarray, "table interval 3"]
    of: Int[np.ndarray, "node"]

    @property
    def refractory(self) -> Float[np.ndarray, "node"]:
        """Shortest cycle after the shortest interval [ms], see `WaveTable.refractory`."""
        return (self.rows[:, 0, 0] + self.rows[:, 0, 2])[self.of]

    @property
    def durations(self) -> Float[np.ndarray, "node"]:
        """Duration after the longest interval [ms]."""
        return self.rows[self.of, -1, 2]

    @property
    def intervals(self) -> Float[np.ndarray, "node"]:
        """Shortest diastolic interval that conducts [ms]."""
        return self.rows[self.of, 0, 0]


# What `eikonal_train` and all that calls it take as restitution.
WaveTables = WaveTable | dict[int, WaveTable] | NodeTables


def node_tables(problem: Eikonal, tables: WaveTables) -> NodeTables:
    """Restitution of every node; that of its own region where there is a table for each.

    Parameters
    ----------
    problem : Eikonal
        With a region tag in every row of its velocities.
    tables : WaveTable, dict of int to WaveTable or NodeTables
        One for all nodes, one for each region tag, or what each node has already.

    Returns
    -------
    NodeTables
        A node has the region of most elements around it; the nodes of a Purkinje tree, and those
        at which nothing conducts, have the first.

    Raises
    ------
    ModelError
        If a region has no table, or there are tables for another number of nodes.

    Examples
    --------
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.tissue import Velocities, WaveTable, build_eikonal, node_tables
    >>> mesh = slab((4.0, 1.0, 1.0), 1.0)
    >>> tags = (mesh.points[mesh.tets].mean(axis=1)[:, 0] > 2.0).astype(int)
    >>> problem = build_eikonal(Heart(mesh, regions=tags), {0: Velocities(), 1: Velocities()})
    >>> early, late = WaveTable([20.0], [1.0], [200.0]), WaveTable([30.0], [1.0], [250.0])
    >>> found = node_tables(problem, {0: early, 1: late})
    >>> found.durations[mesh.points[:, 0] != 2.0].mean().item()
    225.0
    """
    if isinstance(tables, NodeTables):
        if len(tables.of) != problem.n_nodes:
            raise ModelError(
                f"tables are of {len(tables.of)} nodes, the problem has {problem.n_nodes}: make "
                "them for this problem."
            )
        return tables
    if isinstance(tables, WaveTable):
        return NodeTables(stacked([tables]), np.zeros(problem.n_nodes, dtype=np.int64))
    return NodeTables(stacked(tables_of_regions(problem, tables)), _region_of_nodes(problem))


def tables_of_regions(problem: Eikonal, tables: dict[int, WaveTable]) -> list[WaveTable]:
    """Tables in the order of the problem's region tags.

    Raises
    ------
    ModelError
        If a region has none.
    """
    missing = sorted(set(problem.tags) - set(tables))
    if missing or not problem.tags:
        raise ModelError(
            f"regions {missing or 'of the elements'} have no wave table; given are "
            f"{sorted(tables)}: add one for each region tag that conducts."
        )
    return [tables[tag] for tag in problem.tags]


def _region_of_nodes(problem: Eikonal) -> Int[np.ndarray, "node"]:
    """Place in `tags` of every node's region: that of most elements around it."""
    kind = 0 if len(problem.elements.tets) else 1
    cells, row = problem.elements.cells, np.asarray(problem.rows[kind])
    shares = [
        np.bincount(cells[row == k].ravel(), minlength=problem.n_nodes)
        for k in range(len(problem.tags))
    ]
    of = np.argmax(shares, axis=0)
    of[problem.n_mesh :] = 0
    return of
