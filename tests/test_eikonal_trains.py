"""Trains of waves: one beat is the eikonal, rings re-enter or die, fast trains block, a cable."""

import jax
import numpy as np
import pytest
from scipy.optimize import brentq
from test_eikonal import jittered, twisted

from twinheart.anatomy import Heart
from twinheart.cell import get_model
from twinheart.errors import ModelError
from twinheart.mesh import TriMesh
from twinheart.mesh.generate import slab
from twinheart.tissue import (
    Sites,
    Velocities,
    WaveTable,
    arrival,
    build_eikonal,
    build_surface_eikonal,
    cv_restitution,
    eikonal_train,
    pace,
    wave_table,
)
from twinheart.tissue.eikonal_trains import Trains
from twinheart.twin import Twin, simulate

CONSTANT = WaveTable([20.0], [1.0], [180.0])
# Against a monodomain cable: tables are interpolated, times rounded to half a millisecond.
CABLE_LAT, CABLE_APD = 2.0, 4.0  # ms


def test_one_beat_is_the_eikonal():
    jax.config.update("jax_enable_x64", True)
    problem = build_eikonal(twisted(jittered((12.0, 9.0, 7.0), 1.0)), Velocities(0.7, 0.3, 0.15))
    sites = Sites([[2.0, 4.0, 3.0], [9.0, 8.0, 2.0]], [0.0, 4.0])
    lat = np.asarray(arrival(problem, sites))
    jax.config.update("jax_enable_x64", False)
    train = eikonal_train(problem, sites, CONSTANT, t_end=500.0)
    assert train.result == "successful"
    assert (train.count == 1).all()
    assert np.abs(train.lat[:, 0] - lat).max() < 1e-4
    assert (train.apd == 180.0).all()


@pytest.mark.parametrize(("cycle", "expected"), [(260.0, 6), (150.0, 3)])
def test_a_train_faster_than_the_refractory_period_blocks_two_to_one(cycle, expected):
    problem = build_eikonal(Heart(slab((30.0, 2.0, 2.0), 1.0)), Velocities(0.6, 0.6))
    pulses = [Sites([[0.0, 1.0, 1.0]], k * cycle) for k in range(6)]
    train = eikonal_train(problem, pulses, CONSTANT, t_end=6 * cycle)
    assert (train.count == expected).all()
    far = train.lat[30]
    np.testing.assert_allclose(np.diff(far), cycle * 6 / expected, rtol=1e-9)


@pytest.mark.parametrize(("slope", "reached"), [(0.9, 30.0), (1.5, 15.0), (2.0, 15.0)])
def test_a_wave_ends_where_recovery_runs_ahead_of_it(slope, reached):
    """Ways around through the elements take longer; they must not let it in later."""
    size, speed = (30.0, 12.0, 3.0), 0.6
    mesh, first = jittered(size, 1.0), slab(size, 1.0).points[:, 0] == 0.0
    x = mesh.points[:, 0]
    problem = build_eikonal(Heart(mesh), Velocities(speed, speed))
    ahead = abs(slope - 1.0) * 15.0 / speed  # ms, of the wave before recovery where it begins
    ready = slope * x / speed - ahead - CONSTANT.di[0]
    sites = Sites(mesh.points[first], x[first] / speed)  # a plane wave
    train = eikonal_train(problem, sites, CONSTANT, t_end=500.0, repolarised=ready)
    fired = train.count > 0
    assert (train.count <= 1).all()
    assert fired[x < reached - 1.0].all()
    assert not fired[x > reached + 1.5].any()  # the longest edge


def ring(perimeter: float, n: int = 200, width: float = 2.0) -> TriMesh:
    """A flat band rolled up: the inner circle has half a width less."""
    angle = 2 * np.pi * np.arange(n) / n
    radius = perimeter / (2 * np.pi)
    circle = np.stack([radius * np.cos(angle), radius * np.sin(angle), 0 * angle], axis=1)
    points = np.concatenate([circle, circle + np.array([0.0, 0.0, width])])
    i, j = np.arange(n), (np.arange(n) + 1) % n
    triangles = np.concatenate(
        [np.stack([i, j, j + n], axis=1), np.stack([i, j + n, i + n], axis=1)]
    )
    return TriMesh(points, triangles)


@pytest.mark.parametrize(("perimeter", "re_enters"), [(140.0, True), (90.0, False)])
def test_a_ring_re_enters_if_it_is_longer_than_the_refractory_time(perimeter, re_enters):
    """At 0.5 m/s and 200 ms a wave needs 100 mm; it goes round in perimeter / velocity."""
    mesh = ring(perimeter)
    problem = build_surface_eikonal(mesh, None, Velocities(0.5))
    n = mesh.n_nodes // 2
    behind = (np.arange(mesh.n_nodes) % n >= n - 30) & (np.arange(mesh.n_nodes) % n < n - 2)
    repolarised = np.where(behind, 100.0, -np.inf)  # refractory until 120 ms: it runs one way
    train = eikonal_train(
        problem, Sites([mesh.points[0]]), CONSTANT, t_end=3000.0, repolarised=repolarised
    )
    if not re_enters:
        assert train.count.max() == 1
        return
    assert train.count.min() > 5
    cycle = np.diff(train.lat[n // 2][: train.count.min()])
    np.testing.assert_allclose(cycle[1:], perimeter / 0.5, rtol=2e-3)  # chords of the circle


def test_a_faster_ring_slows_down_until_it_fits():
    """With restitution the cycle solves perimeter = c(DI) (DI + APD(DI))."""
    table = WaveTable([10.0, 200.0], [0.5, 1.0], [150.0, 240.0])
    mesh = ring(110.0)
    problem = build_surface_eikonal(mesh, None, Velocities(0.5))
    n = mesh.n_nodes // 2
    behind = (np.arange(mesh.n_nodes) % n >= n - 30) & (np.arange(mesh.n_nodes) % n < n - 2)
    train = eikonal_train(
        problem,
        Sites([mesh.points[0]]),
        table,
        t_end=12000.0,
        repolarised=np.where(behind, 100.0, -np.inf),
    )
    di = np.linspace(10, 200, 20001)
    way = 0.5 * np.interp(di, table.di, table.speed) * (di + np.interp(di, table.di, table.apd))
    k = np.abs(way - 110.0).argmin()
    cycle = di[k] + np.interp(di[k], table.di, table.apd)
    last = train.lat[n // 2][np.isfinite(train.lat[n // 2])]
    np.testing.assert_allclose(np.diff(last)[-3:], cycle, rtol=0.01)


def test_a_wave_re_enters_around_an_obstacle():
    """A premature beat blocks at a patch that recovers late, goes round a hole and comes back."""
    side = np.arange(0, 61.0)
    points = np.stack([*map(np.ravel, np.meshgrid(side, side)), np.zeros(61 * 61)], axis=1)
    corner = (np.arange(60)[:, None] * 61 + np.arange(60)).ravel()
    triangles = np.concatenate([corner[:, None] + [0, 1, 62], corner[:, None] + [0, 62, 61]])
    centre = points[triangles].mean(axis=1) - [30.0, 30.0, 0.0]
    hole = np.abs(centre[:, :2]).max(axis=1) < 20
    slow_to_recover = (centre[:, 0] > 20) & (np.abs(centre[:, 1]) < 6)
    tags = slow_to_recover[~hole].astype(int)
    problem = build_surface_eikonal(
        TriMesh(points, triangles[~hole]), None, Velocities(0.3), regions=tags
    )
    tables = {0: WaveTable([20.0], [1.0], [150.0]), 1: WaveTable([20.0], [1.0], [260.0])}
    # S1, and S2 just below the patch: blocked upwards, free to go round the other way
    pulses = [Sites([[55.0, 15.0, 0]], 0.0), Sites([[55.0, 15.0, 0]], 185.0)]
    train = eikonal_train(problem, pulses, tables, t_end=2500.0)
    node = int(np.abs(points - [5.0, 30.0, 0]).sum(axis=1).argmin())
    assert train.count[node] > 4
    alone = eikonal_train(problem, pulses[0], tables, t_end=2500.0)
    assert alone.count.max() == 1


def crossings(t, vm, level: float):
    """Upward and downward crossings of a level, linear in time."""
    above = vm >= level
    k = np.flatnonzero(above[1:] != above[:-1])
    times = t[k] + (level - vm[k]) / (vm[k + 1] - vm[k]) * (t[k + 1] - t[k])
    return times[above[k + 1]], times[~above[k + 1]]


def test_a_premature_beat_matches_a_monodomain_cable():
    """From where the waves pass 5 mm: when they pass 17 mm, and how long they last at 11 mm."""
    cell, velocity, edge = get_model("mitchell-schaeffer"), 0.6, 0.5
    table = wave_table(
        cv_restitution(
            cell, 1500.0, s2=[1400, 800, 580, 460, 400, 370, 350, 340], n_s1=1, edge=edge, dt=0.05
        )
    )
    mesh = slab((22.0, edge, edge), edge)
    heart = Heart(mesh, f0=np.tile([1.0, 0, 0], (mesh.n_tets, 1)))
    twin = Twin(heart, cell, Velocities(velocity, velocity))
    pulses = [pace("box:0,0,0,1,1,1", start=start) for start in (0.0, 385.0)]
    beat = simulate(twin, pulses, t_end=700.0, dt=0.05, probes=[10, 22, 34])
    level = beat.probes.max() - 0.9 * np.ptp(beat.probes)
    passes = [crossings(beat.t, vm, 0.0)[0] for vm in beat.probes.T]
    _, down = crossings(beat.t, beat.probes[:, 1], level)
    assert all(len(times) == 2 for times in passes)
    problem = build_eikonal(heart, Velocities(velocity, velocity))
    sites = [Sites([[5.0, 0.2, 0.2]], onset, radius=0.1) for onset in passes[0]]
    train = eikonal_train(problem, sites, table, t_end=700.0)
    np.testing.assert_allclose(train.lat[34], passes[2], atol=CABLE_LAT)
    np.testing.assert_allclose(train.apd[22], down - passes[1], atol=CABLE_APD)
    # and the premature beat is another one than the first
    assert passes[2][1] - passes[0][1] > 1.1 * (passes[2][0] - passes[0][0])
    assert train.apd[22][1] < train.apd[22][0] - 20.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WaveTable([10.0, 5.0], [1.0, 1.0], [100.0, 100.0]), "ascend"),
        (lambda: WaveTable([10.0], [0.0], [100.0]), "positive"),
        (lambda: WaveTable([10.0], [np.nan], [100.0]), "missing"),
    ],
)
def test_bad_tables_are_refused(make, message):
    with pytest.raises(ModelError, match=message):
        make()


def test_bad_trains_are_refused():
    problem = build_eikonal(Heart(slab((4.0, 2.0, 2.0), 1.0)))
    inside = Sites([[1.0, 1.0, 1.0]])
    for call, message in (
        (lambda: eikonal_train(problem, inside, {3: CONSTANT}, t_end=10.0), "no wave table"),
        (lambda: eikonal_train(problem, inside, CONSTANT, t_end=np.nan), "finite"),
        (lambda: eikonal_train(problem, Sites([[9.0, 9, 9]]), CONSTANT, t_end=9.0), "outside"),
    ):
        with pytest.raises(ModelError, match=message):
            call()


def test_pieces_of_a_train_are_the_train():
    """Cut while waves run, also at the time of a stimulus; the first piece is left as it was."""
    problem = build_eikonal(Heart(slab((30.0, 12.0, 2.0), 1.0)), Velocities(0.4, 0.2))
    table = WaveTable([20.0, 300.0], [0.6, 1.0], [150.0, 250.0])
    pulses = [Sites([[0.0, 6.0, 1.0]], onset) for onset in (0.0, 290.0, 470.0)]
    whole = eikonal_train(problem, pulses, table, t_end=800.0)
    trains = Trains(problem, table)
    first = trains.until(289.0, pulses[:1])
    second = trains.until(320.0, pulses[1:2], since=first)
    again = trains.until(320.0, pulses[1:2], since=first)
    last = trains.until(800.0, pulses[2:], since=second)
    np.testing.assert_allclose(last.train().lat, whole.lat, rtol=0, atol=1e-9)
    np.testing.assert_allclose(last.train().apd, whole.apd, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(again.event, second.event)
    assert first.train().count.max() == 1
    assert np.nanmax(second.train().lat) <= 320.0


def test_a_wave_that_waits_for_recovery_is_where_its_speed_says():
    """Plane waves in tissue that recovers everywhere at once: t' = t + h / c(t'), edge by edge.

    Speed rises so steeply that a fixed-point iteration for t' would not converge.
    """
    edge, cv, late = 1.0, 0.2, 100.0
    table = WaveTable([20.0, 27.0, 33.0, 60.0], [0.1, 0.1, 0.9, 1.0], [150.0] * 4)
    mesh = slab((12.0, 3.0, 3.0), edge)
    problem = build_eikonal(Heart(mesh), Velocities(cv, cv))
    face = mesh.points[mesh.points[:, 0] == 0]
    start = late + 20.0
    train = eikonal_train(
        problem, Sites(face, start, 1e-3), table, t_end=1000.0,
        repolarised=np.full(mesh.n_nodes, late),
    )  # fmt: skip
    expected = [start, start + edge / cv]  # a stimulus reaches the nodes next to it at full speed
    for _ in range(11):

        def off(t, before=expected[-1]):
            return before + edge / (cv * np.interp(t - late, table.di, table.speed)) - t

        expected.append(brentq(off, expected[-1], expected[-1] + 100.0, xtol=1e-12))
    speed = np.interp(expected[2] - late, table.di, table.speed)
    assert edge / cv * (0.8 / 6.0) / speed**2 > 1.0
    at = np.rint(mesh.points[:, 0] / edge).astype(int)
    np.testing.assert_allclose(train.lat[:, 0], np.array(expected)[at], atol=1e-7)
