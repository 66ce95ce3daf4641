"""A circuit lasts exactly if at its slowest it takes longer than the shortest refractory period."""

import numpy as np
import pytest
from scipy.optimize import brentq
from test_circuits import FAST, SLOW, below, core, plate
from test_eikonal_trains import ring

from twinheart.planning import screen_circuits
from twinheart.planning.circuits.search import possible_circuits
from twinheart.planning.circuits.steady_cycle import steady_cycle
from twinheart.tissue import (
    Sites,
    Velocities,
    WaveTable,
    build_surface_eikonal,
    eikonal_train,
    node_tables,
)
from twinheart.tissue.wave_table import stacked

SLOWEST = 0.6
CYCLE = 16 / SLOW + 32 / FAST  # at rest: 144 ms


def table(refractory: float) -> WaveTable:
    return WaveTable([20.0, 150.0], [SLOWEST, 1.0], [refractory - 20.0, refractory + 10.0])


@pytest.mark.parametrize(
    ("refractory", "at_rest", "lasts"),
    [(130.0, True, True), (170.0, False, True), (215.0, False, True), (260.0, False, False)],
)
def test_a_circuit_slows_down_until_it_lasts(refractory, at_rest, lasts):
    """A figure of eight of 144 ms at rest and 240 ms at its slowest."""
    problem, mesh = plate(core([(0.0, 2.0)]))
    own = table(refractory)
    (found,) = possible_circuits(problem, mesh, below(mesh), node_tables(problem, own))
    assert found.sustained == lasts
    assert found.refractory_ms == refractory
    assert bool(screen_circuits(problem, mesh, below(mesh), refractory)) == at_rest
    if not lasts:
        assert found.cycle_length_ms == pytest.approx(CYCLE / SLOWEST, rel=1e-3)
        return
    # the duration grows with the interval: solved for the interval, not for the cycle
    interval = brentq(
        lambda di: CYCLE / np.interp(di, own.di, own.speed) - di - np.interp(di, own.di, own.apd),
        20.0, 1000.0,
    )  # fmt: skip
    assert isinstance(interval, float)
    cycle = CYCLE / np.interp(interval, own.di, own.speed)
    assert found.cycle_length_ms == pytest.approx(cycle, rel=1e-3)


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


def test_every_place_slows_by_its_own_table():
    """Half of the way does not slow down: 100 + 100 / 0.6 ms at most."""
    tables = [table(200.0), WaveTable([20.0], [1.0], [180.0])]
    found = steady_cycle(np.array([100.0, 60.0, 40.0]), stacked(tables), [0, 1, 1])
    own = tables[0]
    speed = np.interp(found.length, own.di + own.apd, own.speed)
    assert found.sustained
    assert found.length == pytest.approx(100.0 / speed + 100.0, abs=1e-5)
    still = steady_cycle(np.array([100.0, 0.0]), stacked(tables), [0, 1])
    assert still.refractory == 200.0  # both count
    late = [table(200.0), WaveTable([20.0], [1.0], [250.0])]
    assert not steady_cycle(np.array([100.0, 100.0]), stacked(late), [0, 1]).sustained


def test_cycle_of_a_turning_wave_is_the_steady_one():
    """The ring of 200 ms at rest: the re-excitable eikonal settles where theory says."""
    perimeter, velocity, refractory = 100.0, 0.5, 230.0
    mesh = ring(perimeter)
    n = mesh.n_nodes // 2
    way = (np.arange(mesh.n_nodes) % n) / n
    problem = build_surface_eikonal(mesh, None, Velocities(velocity))
    train = eikonal_train(
        problem, Sites([mesh.points[0]], 0.0, 1.0), table(refractory), t_end=6000.0,
        repolarised=way * perimeter / velocity / SLOWEST - 25.0,
    )  # fmt: skip
    late = train.lat[0][np.isfinite(train.lat[0])]
    found = steady_cycle(np.array([perimeter / velocity]), stacked([table(refractory)]), [0])
    assert np.diff(late)[-3:] == pytest.approx(found.length, rel=0.01)
