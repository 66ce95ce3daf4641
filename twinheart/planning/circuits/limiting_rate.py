r"""Velocities at the fastest rate that tissue follows: whether a circuit lasts is decided there.

A circuit whose wave comes back too early for the velocities at rest slows down: its diastolic
interval shortens, and with it the velocity, until the cycle fits or the wave blocks. With a table
of restitution, the longest cycle that a closed way can take is that at the shortest interval that
conducts, :math:`\sum_k l_k / (c_k \varphi_k(DI_{min}))`, and the shortest that tissue follows is
:math:`APD(DI_{min}) + DI_{min}` (`WaveTable.refractory`). The circuit is sustained if the former is
longer. So `screen_circuits` should be given velocities at this limit; with those at rest it misses
circuits that last because they slow down.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from twinheart.errors import ModelError
from twinheart.tissue import Eikonal, WaveTable


def at_limiting_rate(problem: Eikonal, tables: WaveTable | dict[int, WaveTable]) -> Eikonal:
    """The problem with the velocities of the earliest wave that conducts.

    Parameters
    ----------
    problem : Eikonal
        With velocities at rest.
    tables : WaveTable or dict of int to WaveTable
        Restitution, or one for each region tag.

    Returns
    -------
    Eikonal
        The same geometry, slower.

    Raises
    ------
    ModelError
        If a region has no table.

    Examples
    --------
    >>> from twinheart.anatomy import Heart
    >>> from twinheart.mesh.generate import slab
    >>> from twinheart.planning import at_limiting_rate
    >>> from twinheart.tissue import Velocities, WaveTable, build_eikonal
    >>> problem = build_eikonal(Heart(slab((4.0, 1.0, 1.0), 1.0)), Velocities(0.5, 0.25))
    >>> table = WaveTable([20.0, 300.0], [0.6, 1.0], [150.0, 250.0])
    >>> at_limiting_rate(problem, table).velocity[0].round(3).tolist()[:2]
    [0.30000001192092896, 0.15000000596046448]
    """
    if isinstance(tables, dict):
        missing = sorted(set(problem.tags) - set(tables))
        if missing:
            raise ModelError(
                f"regions {missing} have no wave table; given are {sorted(tables)}: add one for "
                "each region tag that conducts."
            )
        slowest = np.array([tables[tag].speed[0] for tag in problem.tags])
    else:
        slowest = np.full(len(problem.velocity), tables.speed[0])
    factor = np.ones((len(problem.velocity), 1))
    factor[: len(slowest), 0] = slowest  # what follows the regions is a Purkinje tree
    return eqx.tree_at(lambda p: p.velocity, problem, jnp.asarray(problem.velocity) * factor)
