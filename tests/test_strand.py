"""Strands: readings by theory, the time that made a depth is found again, a border is measured."""

from dataclasses import replace

import numpy as np
import pytest

from twinheart.cell.mitchell_schaeffer import MitchellSchaeffer
from twinheart.planning import strand as module
from twinheart.planning.strand import (
    EARLY,
    LATE,
    Strand,
    early_rows,
    fitted_border,
    measured_border,
    with_early,
    with_slow,
)
from twinheart.tissue import Velocities, WaveTable
from twinheart.tissue.coupled_waves import ELECTROTONIC_TIME

MS = MitchellSchaeffer()
SPEED = 0.5  # m/s
HEALTHY = WaveTable([20.0, 200.0], [0.5, 1.0], [80.0, 100.0])
BORDER = WaveTable([60.0, 200.0], [0.5, 1.0], [120.0, 150.0])


def cable() -> Strand:
    tissue = {tag: Velocities(SPEED, SPEED) for tag in (EARLY, LATE)}
    return Strand({EARLY: MS, LATE: MS}, tissue, 400.0, edge=0.5)


def test_intervals_and_speeds_are_read_where_the_wave_is():
    """S1 at constant speed; S2 slows down as 40 ms / interval, by Euler steps of 0.01 mm."""
    strand = cable()
    first = strand.x / SPEED

    def wave(start: float) -> np.ndarray:
        fine, at = np.arange(strand.x[0], strand.x[-1] + 0.01, 0.01), [start]
        for x in fine[:-1]:
            di = at[-1] - x / SPEED - BORDER.apd[-1]
            at.append(at[-1] + 0.01 / (SPEED * min(1.0, di / 100.0)))
        return np.interp(strand.x, fine, at)

    rest = BORDER.apd[-1] + strand.x[0] / SPEED
    waves = [(first, wave(rest + di)) for di in (90.0, 70.0, 50.0, 30.0)]
    dead = np.where(strand.x < 2.0, waves[-1][1], np.inf)
    settled = WaveTable([120.0], [1.0], [BORDER.apd[-1]])
    rows = early_rows(strand, [*waves, (first, dead), waves[0]], settled, SPEED)
    di, share = rows[:, np.isfinite(rows[0])]
    assert (np.diff(di) > 0).all()
    assert len(di) > 5
    assert di.max() < 120.0
    np.testing.assert_allclose(share, np.minimum(1.0, di / 100.0), rtol=0.03)
    table = with_early(settled, rows)
    assert table.di[-1] == 120.0
    assert table.apd[0] == settled.apd[0]


def test_slow_waves_come_before_block():
    table = with_slow(BORDER, 0.2, 8.0)
    np.testing.assert_array_equal(table.di, [52.0, 60.0, 200.0])
    np.testing.assert_array_equal(table.speed, [0.2, 0.5, 1.0])
    np.testing.assert_array_equal(table.apd, [120.0, 120.0, 150.0])
    assert with_slow(BORDER, 0.2, 0.0) is BORDER
    assert with_slow(BORDER, 0.6, 8.0) is BORDER


@pytest.mark.parametrize("made", [(4.0, 1.0, 0.0), (10.0, 0.2, 8.0)])
def test_what_made_a_depth_is_found_again(made):
    strand, early = cable(), np.arange(195.0, 122.0, -5.0).tolist()
    tables, velocities = {EARLY: HEALTHY, LATE: BORDER}, {EARLY: SPEED, LATE: SPEED}
    time, share, wait = made
    slow = {**tables, LATE: with_slow(BORDER, share, wait)}
    depths = np.array([strand.depth(lat) for lat in strand.eikonal(early, slow, velocities, time)])
    assert depths[0] == module.DEPTH
    assert (np.diff(depths) <= 0).all()  # the earlier, the sooner it ends
    assert depths[-1] < 1.0
    times, slowed = [2.0, 4.0, 6.0, 8.0, 10.0, 12.0], [(0.2, 4.0), (0.2, 8.0), (0.4, 8.0)]
    found = fitted_border(strand, early, depths, tables, velocities, times=times, slow=slowed)
    assert found == made


def test_waves_that_may_wait_die_at_once_or_run_through():
    """Without slow waves the depth falls step by step as they come earlier; with them it jumps."""
    strand, early = cable(), np.arange(195.0, 140.0, -1.0).tolist()
    tables, velocities = {EARLY: HEALTHY, LATE: BORDER}, {EARLY: SPEED, LATE: SPEED}

    def between(late: WaveTable) -> int:
        own = {**tables, LATE: late}
        depths = np.array([strand.depth(x) for x in strand.eikonal(early, own, velocities, 10.0)])
        return int(((depths > 1.5) & (depths < module.DEPTH)).sum())

    assert between(with_slow(BORDER, 0.2, 8.0)) < between(BORDER) / 3


def test_a_border_lets_waves_in_as_monodomain_does(monkeypatch, tmp_path):
    """Earlier than a cable of the border zone conducts them; measured once."""
    monkeypatch.setenv("TWINHEART_CACHE", str(tmp_path))
    late = replace(MS, tau_close=MS.tau_close * 1.6)
    own = module.measured_wave(late, 500.0).table
    found = measured_border(MS, late, 500.0)
    assert found.table.di[0] < own.di[0]
    np.testing.assert_array_equal(found.table.di[-len(own.di) :], own.di)
    tissue = {tag: module.NIEDERER_2011 for tag in (EARLY, LATE)}
    strand = Strand({EARLY: MS, LATE: late}, tissue, 500.0)
    tables = {EARLY: module.measured_wave(MS, 500.0).table, LATE: found.table}
    early = (own.di[0] + own.apd[-1] - np.arange(40.0, 140.0, 14.0)).tolist()
    waves = list(strand.monodomain(early))
    x, first = strand.x, waves[0][0]
    velocities = {
        tag: float(1.0 / np.polyfit(x[part], first[part], 1)[0])
        for tag, part in ((EARLY, (x > -8) & (x < -1)), (LATE, (x > 1) & (x < 11)))
    }
    depths = [strand.depth(lat) for _, lat in waves]
    assert min(depths) < 1.0 < max(depths) == module.DEPTH
    seen = [strand.depth(lat) for lat in strand.eikonal(early, tables, velocities, found.time)]
    assert np.abs(np.subtract(seen, depths)).mean() < 1.0
    monkeypatch.setattr(module, "_measured", None)
    assert measured_border(MS, late, 500.0).time == found.time
    assert measured_border(MS, MS, 500.0).time == ELECTROTONIC_TIME
