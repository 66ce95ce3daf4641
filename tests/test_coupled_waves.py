"""Recovery where regions meet: shares of regions, mixtures of tables, a cable of two cells."""

import numpy as np
import pytest

import twinheart as th
from twinheart.anatomy import Heart
from twinheart.cell import get_model
from twinheart.errors import ModelError
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import slab
from twinheart.tissue import (
    NodeTables,
    Sites,
    Velocities,
    WaveTable,
    build_eikonal,
    coupled_tables,
    node_tables,
)
from twinheart.tissue.coupled_waves import ELECTROTONIC_TIME, mixtures, region_shares
from twinheart.tissue.eikonal_trains import Trains
from twinheart.tissue.electrotonic import fitted_time, line_shares
from twinheart.tissue.wave_table import stacked

EARLY, LATE = (
    WaveTable([20.0, 120.0], [0.6, 1.0], [180.0, 200.0]),
    WaveTable([30.0], [1.0], [240.0]),
)


def halves(mesh, at, velocities=(0.5, 0.5)):
    tags = (mesh.points[mesh.tets].mean(axis=1)[:, 0] > at).astype(np.int32)
    heart = Heart(mesh, regions=tags)
    tissue = {tag: Velocities(speed, speed) for tag, speed in enumerate(velocities)}
    return heart, tissue, build_eikonal(heart, tissue)


def test_shares_fall_off_as_theory_says():
    _, _, problem = halves(slab((40.0, 1.0, 1.0), 0.5), 20.0, (0.6, 0.3))
    time = 4.0
    share = region_shares(problem, time)
    x = np.asarray(problem.points)[:, 0] - 20.0
    way = np.where(x < 0, 0.6, 0.3) * time
    # continuous share and flux: it is divided as the ways are
    theory = np.where(x < 0, np.exp(x / way) / 3, 1 - np.exp(-x / way) * 2 / 3)
    assert np.allclose(share.sum(axis=1), 1.0)
    assert np.abs(share[:, 1] - theory).max() < 0.05  # half an edge: 0.5 mm of 1.2 mm
    assert np.array_equal(region_shares(problem, 0.0)[x < -0.5, 1], np.zeros((x < -0.5).sum()))


def test_shares_do_not_depend_on_the_frame():
    mesh = slab((12.0, 6.0, 3.0), 1.5)
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    tags = (mesh.points[mesh.tets].mean(axis=1)[:, 0] > 6.0).astype(np.int32)
    found = []
    for frame in (np.eye(3), turn):
        moved = TetMesh(mesh.points @ frame.T, mesh.tets)
        fibre, sheet = (np.tile(frame @ axis, (mesh.n_tets, 1)) for axis in np.eye(3)[:2])
        heart = Heart(moved, fibre, sheet, tags)
        problem = build_eikonal(heart, {tag: Velocities(0.6, 0.3) for tag in (0, 1)})
        found.append(region_shares(problem, 4.0))
    assert np.abs(found[0] - found[1]).max() < 1e-5


def test_mixtures_lie_between_and_are_the_tables_at_the_ends():
    shares = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    early, half, late = mixtures([EARLY, LATE], shares)
    assert np.array_equal(early, stacked([EARLY])[0])
    assert np.array_equal(late, stacked([LATE, EARLY])[0])
    assert half[0, [0, 2]].sum() == pytest.approx((EARLY.refractory + LATE.refractory) / 2)
    assert np.interp(125.0, half[:, 0], half[:, 1]) == pytest.approx(1.0)
    assert (np.diff(half[:, 2]) >= 0).all()


def test_mixtures_recover_with_waves_and_last_as_durations_say():
    """Each made alone: the interval between activations is that of the waves' own mixture."""
    rng = np.random.default_rng(3)
    tables = [
        WaveTable([20.0, 120.0], [0.6, 1.0], [180.0, 200.0]),
        WaveTable([30.0, 130.0], [0.5, 1.0], [210.0, 240.0]),
        WaveTable([10.0, 60.0, 110.0], [0.3, 0.7, 1.0], [150.0, 190.0, 230.0]),
    ]
    shares, durations = rng.dirichlet(np.ones(3), (2, 20)) * (rng.random((2, 20, 3)) < 0.7)
    shares, durations = (x + (x.sum(axis=1, keepdims=True) == 0) for x in (shares, durations))
    shares, durations = (x / x.sum(axis=1, keepdims=True) for x in (shares, durations))
    least, resting = np.array([t.di[0] for t in tables]), np.array([t.apd[-1] for t in tables])
    for waves, recovery, row in zip(
        shares, durations, mixtures(tables, shares, durations=durations), strict=True
    ):
        surplus = row[:, 0] - row[0, 0]
        slowness = [np.interp(t.di[0] + surplus, t.di, 1 / t.speed) for t in tables]
        assert row[:, 1] == pytest.approx(1 / (waves @ slowness))
        assert row[-1, 2] == pytest.approx(recovery @ resting)
        assert row[0, 0] == pytest.approx(waves @ (least + resting) - recovery @ resting)


def test_regions_that_differ_by_a_factor_are_as_those_that_do_not():
    """One family of scaled tables, solved as one, against a table for each region."""
    mesh = slab((60.0, 2.0, 2.0), 1.0)
    at = mesh.points[mesh.tets].mean(axis=1)[:, 0]
    heart = Heart(mesh, regions=np.digitize(at, [20.0, 40.0]).astype(np.int32))
    problem = build_eikonal(heart, {tag: Velocities(0.6, 0.6) for tag in range(3)})
    scaled = {
        tag: WaveTable(EARLY.di, EARLY.speed, EARLY.apd * f)
        for tag, f in enumerate((1.0, 1.1, 0.8))
    }
    shares = region_shares(problem, 6.0)
    plain = NodeTables(mixtures([*scaled.values()], shares), np.arange(mesh.n_nodes))
    found = coupled_tables(problem, scaled, 3.0, durations=6.0)
    assert len(np.unique(found.durations.round(1))) > 10
    assert found.durations == pytest.approx(plain.durations, abs=0.1)
    # recovery goes over at its own time: that of waves
    waves = coupled_tables(problem, scaled, 3.0)
    rest = [x.intervals + x.durations for x in (found, waves)]
    assert rest[0] == pytest.approx(rest[1], abs=0.1)


def test_far_from_a_border_nothing_changes():
    _, _, problem = halves(slab((60.0, 1.0, 1.0), 1.0), 30.0)
    tables = {0: EARLY, 1: LATE}
    x = np.asarray(problem.points)[:, 0]
    apd = [
        Trains(problem, given).until(150.0, [Sites([[0.0, 0.5, 0.5]])]).train().apd[:, 0]
        for given in (tables, coupled_tables(problem, tables), coupled_tables(problem, tables, 0.0))
    ]
    assert np.array_equal(apd[0], apd[2])
    assert np.array_equal(apd[0][np.abs(x - 30.0) > 12.0], apd[1][np.abs(x - 30.0) > 12.0])
    assert not np.array_equal(apd[0], apd[1])


def test_durations_near_a_border_are_those_of_monodomain():
    mesh = slab((30.0, 0.25, 0.25), 0.25)
    heart, tissue, problem = halves(mesh, 15.0, (0.6, 0.4))
    cells = {
        0: get_model("bueno-orovio-endo", tau_so1=23.0),
        1: get_model("bueno-orovio-endo", tau_so1=26.0),
    }
    end = np.flatnonzero(mesh.points[:, 0] < 1.0)
    beat = th.simulate(th.Twin(heart, cells, tissue), th.pace(end), t_end=250.0)
    apd = np.asarray(beat.repol - beat.lat)
    x = mesh.points[:, 0]
    low, high = (np.median(apd[np.abs(x - at) < 1.5]) for at in (5.0, 25.0))
    inside = np.abs(x - 15.0) < 8.0
    share = ((apd - low) / (high - low))[inside]
    sharp, smooth = (region_shares(problem, time)[inside, 1] for time in (0.0, 4.0))
    error = [np.sqrt(np.mean((given - share) ** 2)) for given in (sharp, smooth)]
    assert error[1] < 0.07
    assert error[1] < 0.5 * error[0]


def test_electrotonic_time_is_found_again():
    """From durations along a line by theory; without a step there is nothing to measure."""
    x = np.arange(-20.0, 20.01, 0.25)
    lat = np.where(x < 0, x / 0.6, x / 0.3)
    apd = 200.0 + 40.0 * line_shares(x, 0.6, 0.3, 5.0)
    assert fitted_time(x, lat, apd) == pytest.approx(5.0, rel=1e-3)
    assert fitted_time(x, lat, np.full(len(x), 200.0)) == ELECTROTONIC_TIME


def test_bad_input():
    _, _, problem = halves(slab((4.0, 1.0, 1.0), 1.0), 2.0)
    with pytest.raises(ModelError, match="electrotonic time is -1 ms"):
        coupled_tables(problem, {0: EARLY}, -1.0)
    with pytest.raises(ModelError, match=r"regions \[1\] have no wave table"):
        coupled_tables(problem, {0: EARLY})
    other = build_eikonal(Heart(slab((9.0, 1.0, 1.0), 1.0)))
    with pytest.raises(ModelError, match=r"tables are of \d+ nodes, the problem has"):
        Trains(problem, node_tables(other, EARLY))
