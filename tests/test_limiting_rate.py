"""A circuit lasts exactly if at its slowest it takes longer than the shortest refractory period."""

import numpy as np
import pytest
from test_circuits import FAST, SLOW, below, core, plate
from test_eikonal_trains import ring

from twinheart.errors import ModelError
from twinheart.planning import at_limiting_rate, screen_circuits
from twinheart.tissue import (
    Sites,
    Velocities,
    WaveTable,
    build_surface_eikonal,
    eikonal_train,
)

SLOWEST = 0.6
CYCLE = 16 / SLOW + 32 / FAST  # at rest: 144 ms


def table(refractory: float) -> WaveTable:
    return WaveTable([20.0, 150.0], [SLOWEST, 1.0], [refractory - 20.0, refractory + 10.0])


@pytest.mark.parametrize(
    ("refractory", "at_rest", "at_limit"),
    [(130.0, True, True), (170.0, False, True), (215.0, False, True), (260.0, False, False)],
)
def test_at_the_limit_a_circuit_takes_as_long_as_it_can(refractory, at_rest, at_limit):
    """A figure of eight of 144 ms at rest and 240 ms at its slowest."""
    problem, mesh = plate(core([(0.0, 2.0)]))
    slowed = at_limiting_rate(problem, table(refractory))
    found = screen_circuits(slowed, mesh, below(mesh), refractory)
    assert bool(found) == at_limit
    if found:
        assert found[0].cycle_length_ms == pytest.approx(CYCLE / SLOWEST, rel=1e-3)
    assert bool(screen_circuits(problem, mesh, below(mesh), refractory)) == at_rest


@pytest.mark.parametrize("refractory", [180.0, 250.0, 310.0, 350.0, 380.0])
def test_a_turning_wave_lasts_exactly_if_the_limit_is_longer_than_refractoriness(refractory):
    """A ring of 200 ms at rest and 333 ms at its slowest, and a wave that turns in it.

    It starts as if it had turned before: each place has recovered 25 ms before it comes.
    """
    perimeter, velocity = 100.0, 0.5
    longest = perimeter / velocity / SLOWEST
    mesh = ring(perimeter)
    n = mesh.n_nodes // 2
    way = (np.arange(mesh.n_nodes) % n) / n
    problem = build_surface_eikonal(mesh, None, Velocities(velocity))
    train = eikonal_train(
        problem, Sites([mesh.points[0]], 0.0, 1.0), table(refractory), t_end=3000.0,
        repolarised=way * longest - 25.0,
    )  # fmt: skip
    assert bool(np.nanmax(train.lat) > 2900.0) == (longest > refractory)


def test_every_region_slows_by_its_own_table():
    problem, _ = plate(core([(0.0, 2.0)]))
    tables = {0: table(200.0), 1: WaveTable([30.0], [0.4], [200.0]), 2: table(200.0)}
    slowed = at_limiting_rate(problem, tables)
    share = np.asarray(slowed.velocity / problem.velocity)
    expected = [tables[tag].speed[0] for tag in problem.tags]
    np.testing.assert_allclose(share[: len(expected)], np.tile(expected, (3, 1)).T, rtol=1e-6)
    del tables[1]
    with pytest.raises(ModelError, match="no wave table"):
        at_limiting_rate(problem, tables)
