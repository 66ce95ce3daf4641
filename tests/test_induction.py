"""Induction: rings re-enter exactly if they are long enough, uniform tissue never does."""

import json
from dataclasses import replace

import numpy as np
import pytest
from test_eikonal_trains import ring

from twinheart.anatomy import Heart
from twinheart.errors import InputError, OutputError
from twinheart.mesh.generate import slab
from twinheart.planning import (
    PROTOCOLS,
    PacingSite,
    Protocol,
    Stage,
    activation_train,
    induce,
    induce_sites,
    named_protocol,
    place_sites,
    reentry,
)
from twinheart.planning.induction.protocols import Earliest
from twinheart.tissue import (
    NonConducting,
    Sites,
    Train,
    Velocities,
    WaveTable,
    build_eikonal,
    build_surface_eikonal,
    eikonal_train,
)

STEEP = WaveTable([20.0, 300.0], [0.6, 1.0], [150.0, 250.0])
WIDTH = 0.3  # of rings [mm]
DI = 20.0  # shortest interval that conducts, in all tables here [ms]


def constant(refractory: float) -> WaveTable:
    return WaveTable([DI], [1.0], [refractory - DI])


def patched_ring(perimeter: float, velocity: float, refractory: float):
    """A ring with a patch, from 4 to 10 % of the way round, that recovers later than the rest."""
    mesh = ring(perimeter, width=WIDTH)
    n = mesh.n_nodes // 2
    at = np.tile(np.arange(n), 2)
    tags = ((at >= 8) & (at < 20)).astype(int)
    problem = build_surface_eikonal(mesh, None, Velocities(velocity), regions=tags)
    tables = {0: constant(0.7 * refractory), 1: constant(refractory)}
    return problem, tables, place_sites(problem, mesh.points[:1])[0]


def s1_s2(refractory: float) -> Protocol:
    return Protocol("S1 S2", 2, 1000.0, (Stage(refractory + 15.0, 10.0, 50.0),))


@pytest.mark.parametrize("re_enters", [True, False])
def test_a_ring_is_induced_exactly_if_it_is_longer_than_the_wavelength(re_enters):
    """Twenty rings either side, up to 0.75 % of the perimeter from it.

    The premature beat blocks at the patch, goes the other way round and comes back after
    perimeter / velocity: it passes the patch again and again if that is its refractory period.
    Not nearer: where a wave comes too early by less than it needs across a triangle, a later
    corner of the same front still gets through.
    """
    rng = np.random.default_rng(3)
    shares = rng.uniform(0.8, 0.9925, 20) if re_enters else rng.uniform(1.0075, 1.25, 20)
    shares[0] = 0.9925 if re_enters else 1.0075
    for share in shares:
        perimeter, velocity = rng.uniform(90.0, 150.0), rng.uniform(0.5, 0.7)
        refractory = share * perimeter / velocity  # wavelength: share of the perimeter
        protocol = s1_s2(refractory)
        found = induce(*patched_ring(perimeter, velocity, refractory), protocol)
        assert found.induced == re_enters, share
        assert found.s1_beats == 2
        if re_enters:
            assert found.cycle_length == pytest.approx(perimeter / velocity, rel=1e-3)
            assert found.spread is not None
            assert found.spread < 0.05
            assert found.coupling == pytest.approx((1000.0, refractory - 5.0), abs=1e-3)
        else:
            assert found.cycle_length is None
            assert found.stimuli == ()
            (stage,) = protocol.stages
            assert isinstance(stage, Stage)
            tried = np.array(stage.intervals)
            own = 0.7 * refractory  # of the site, which is not in the patch
            assert found.stages[0].captured == tried[tried >= own].min()
            assert found.stages[0].blocked == tried[tried < own].max()


@pytest.mark.parametrize("re_enters", [True, False])
def test_the_earliest_stimulus_is_found_and_re_enters_exactly_if_it_can(re_enters):
    """The site recovers after 0.7 of the time of the patch, where its early wave blocks."""
    refractory = (0.95 if re_enters else 1.05) * 120.0 / 0.5
    problem, tables, site = patched_ring(120.0, 0.5, refractory)
    protocol = Protocol("early", 2, 1000.0, (Earliest(),))
    found = induce(problem, tables, site, protocol)
    assert found.induced == re_enters
    (stage,) = found.stages
    assert stage.captured is not None
    assert 0.7 * refractory <= stage.captured < 0.7 * refractory + 1.0
    assert stage.blocked is not None
    assert stage.blocked < 0.7 * refractory
    if re_enters:
        assert found.coupling[-1] == pytest.approx(stage.captured, abs=1e-6)
        assert found.cycle_length == pytest.approx(240.0, rel=1e-3)


def test_every_early_stimulus_is_as_early_as_it_can_be():
    """Each finds the tissue of the site after the shorter duration of the one before."""
    problem = build_eikonal(Heart(slab((16.0, 4.0, 1.0), 1.0)))
    site = place_sites(problem, [[0.0, 2.0, 0.0]])[0]
    found = induce(problem, STEEP, site, replace(named_protocol("peerp"), n_s1=2, cycle=600.0))
    assert found.outcome == "not induced"
    assert len(found.stages) == 5
    for stage, recovered in zip(found.stages, [270.0] + [170.0] * 4, strict=True):
        assert stage.captured is not None
        assert recovered <= stage.captured < recovered + 2.0


def cored_slab(side: float, edge: float, rim: float, refractory: float):
    """A plate around a square core, with a bar beside the core that recovers late."""
    size = side + 2 * rim
    mesh = slab((size, size, edge), edge)
    offset = mesh.points[mesh.tets].mean(axis=1) - size / 2
    core = np.abs(offset[:, :2]).max(axis=1) < side / 2
    bar = (offset[:, 0] > side / 2) & (np.abs(offset[:, 1]) < 2.0)
    regions = np.where(core, 2, bar.astype(int))
    speed = Velocities(0.3, 0.3)
    problem = build_eikonal(Heart(mesh, regions=regions), {0: speed, 1: speed, 2: NonConducting()})
    tables = {0: constant(0.7 * refractory), 1: constant(refractory), 2: constant(refractory)}
    below = place_sites(problem, [[size - rim / 2, size / 2 - 6.0, 0.0]])[0]
    return problem, tables, below


@pytest.mark.parametrize("side", [16.0, 20.0])
def test_the_cycle_around_a_core_is_its_perimeter_over_velocity(side):
    """Waves hug the core: 4 sides, within 2 %; edges of 1 mm cut no corner of it."""
    cycle = 4 * side / 0.3
    found = induce(*cored_slab(side, 1.0, 6.0, 0.9 * cycle), s1_s2(0.9 * cycle))
    assert found.outcome == "induced"
    assert found.cycle_length == pytest.approx(cycle, rel=0.02)


def test_a_core_with_too_short_a_way_around_it_carries_no_re_entry():
    """Not even the longest way, along the border of the plate, takes as long as recovery."""
    side, rim = 12.0, 3.0
    refractory = 1.05 * 4 * (side + 2 * rim) / 0.3
    found = induce(*cored_slab(side, 1.0, rim, refractory), s1_s2(refractory))
    assert found.outcome == "not induced"
    assert found.lasted < refractory + 4 * (side + 2 * rim) / 0.3


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_uniform_tissue_is_never_induced(name):
    problem = build_eikonal(Heart(slab((16.0, 16.0, 1.0), 1.0)), Velocities(0.6, 0.3))
    for site in place_sites(problem, [[0.0, 0.0, 0.0], [8.0, 8.0, 0.0]]):
        found = induce(problem, STEEP, site, named_protocol(name))
        assert found.outcome == "not induced"
        assert found.s1_beats == named_protocol(name).n_s1
        if name == "varp-arevalo2016":
            # 250 ms at rest and 20; then, after 20 ms, 150 and 20 at the site, but S2 falls behind
            # S1, so it lasts longer from place to place: S3 after 170 ms ends near the site
            assert (found.stages[0].captured, found.stages[0].blocked) == (270.0, 260.0)
            assert (found.stages[1].captured, found.stages[1].blocked) == (180.0, 170.0)
        if name == "cardiomat2025":
            assert [s.captured for s in found.stages] == [350.0, 300.0, 280.0]


def test_not_running_common_stimuli_again_changes_nothing():
    """What is reported is that of the whole train, the waves of all stimuli included."""
    refractory = 210.0
    problem, tables, site = patched_ring(120.0, 0.5, refractory)
    protocol = Protocol("S1 S2", 4, 500.0, (Stage(refractory + 15.0, 10.0, 50.0),))
    found = induce(problem, tables, site, protocol)
    train = activation_train(problem, tables, found, protocol)
    whole = reentry(train, found.stimuli[-1], protocol)
    assert whole.sustained
    assert whole.cycle_length == pytest.approx(found.cycle_length, abs=1e-9)
    assert found.coupling == pytest.approx((500.0,) * 3 + (refractory - 5.0,), abs=1e-3)
    # three stages: the third beat blocks where the second still did not
    deep = Protocol("S1-S3", 3, 500.0, (Stage(260.0), Stage(240.0), Stage(205.0)))
    found = induce(problem, tables, site, deep)
    assert [s.captured for s in found.stages] == [260.0, 240.0, 205.0]
    train = activation_train(problem, tables, found, deep)
    whole = reentry(train, found.stimuli[-1], deep)
    assert whole.sustained
    assert whole.cycle_length == pytest.approx(found.cycle_length, abs=1e-9)
    assert whole.lasted == pytest.approx(found.lasted, abs=1e-9)
    # and where those waves have not ended by the last S1, none is left out
    slow, tables, site = patched_ring(600.0, 0.5, 350.0)
    dense = Protocol("S1 S2", 3, 400.0, (Stage(365.0, 10.0, 320.0),), observe=3000.0)
    found = induce(slow, tables, site, dense)
    assert found.induced
    train = activation_train(slow, tables, found, dense)
    whole = reentry(train, found.stimuli[-1], dense)
    assert found.cycle_length == whole.cycle_length


def test_s1_that_is_too_fast_is_told():
    problem = build_eikonal(Heart(slab((16.0, 4.0, 1.0), 1.0)))
    site = place_sites(problem, [[0.0, 2.0, 0.0]])[0]
    found = induce(problem, constant(200.0), site, Protocol("fast", 5, 150.0, ()))
    assert found.s1_beats == 3  # every other one


def test_an_s2_shorter_than_refractory_ends_the_protocol():
    problem = build_eikonal(Heart(slab((16.0, 4.0, 1.0), 1.0)))
    site = place_sites(problem, [[0.0, 2.0, 0.0]])[0]
    protocol = Protocol("early", 2, 600.0, (Stage(180.0, 10.0, 100.0), Stage(300.0)))
    found = induce(problem, constant(200.0), site, protocol)
    assert found.outcome == "not induced"
    assert [(s.captured, s.blocked) for s in found.stages] == [(None, 180.0)]


def test_a_site_whose_tissue_is_all_within_the_ball_captures_nothing():
    mesh = slab((30.0, 6.0, 1.0), 1.0)
    centre = mesh.points[mesh.tets].mean(axis=1)
    island = (np.abs(centre - [2.5, 2.5, 0.5]) < 0.5).all(axis=1)
    scar = ((centre[:, 0] < 8.0) & ~island).astype(int)
    problem = build_eikonal(Heart(mesh, regions=scar), {0: Velocities(), 1: NonConducting()})
    tables = {0: constant(200.0), 1: constant(200.0)}
    on = PacingSite("island", (2.5, 2.5, 0.5), (2.5, 2.5, 0.5))
    found = induce(problem, tables, on, named_protocol("burst"))
    assert (found.outcome, found.s1_beats, found.stages) == ("no capture", 0, ())
    whole = build_eikonal(Heart(mesh))
    with pytest.raises(InputError, match="all tissue"):
        induce(whole, tables[0], on, named_protocol("burst"), radius=100.0)


def test_the_criterion_is_that_of_the_protocol():
    """A plane wave every 300 ms until 1400 ms: re-entry for so long and no longer."""
    lat = np.array([[0.0, 300.0, 600.0, 900.0, 1200.0], [200.0, 500.0, 800.0, 1100.0, 1400.0]])
    train = Train(lat, 0 * lat, 0 * lat, "successful")
    for observe, activations, expected in (
        (1000.0, 2, True), (1400.0, 2, True), (1401.0, 2, False), (1000.0, 6, False),
    ):  # fmt: skip
        protocol = Protocol("p", 1, 600.0, (), observe=observe, activations=activations)
        found = reentry(train, 0.0, protocol)
        assert found.sustained == expected
        assert (found.lasted, found.cycle_length, found.spread) == (1400.0, 300.0, 0.0)
    once = Train(lat[:, :1], lat[:, :1], lat[:, :1], "successful")
    assert np.isnan(reentry(once, 0.0, protocol).cycle_length)
    assert not reentry(train, 1300.0, protocol).sustained


@pytest.fixture(scope="module")
def study():
    """Three sites of a ring, before the patch, in it and opposite to it."""
    problem, tables, _ = patched_ring(120.0, 0.5, 210.0)
    points = problem.elements.points[[0, 14, 110]]
    return problem, tables, place_sites(problem, points), s1_s2(210.0)


def test_sites_are_gone_on_with_and_their_number_at_once_does_not_matter(study, tmp_path):
    file, told = tmp_path / "sites.jsonl", []
    whole = induce_sites(*study, file=file, progress=lambda *n: told.append(n))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert [r.site for r in whole] == list(study[2])
    assert whole[0].induced
    assert induce_sites(*study, workers=2) == whole
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:2]) + lines[2][:40])  # cut off while the second was written
    told.clear()
    assert induce_sites(*study, file=file, progress=lambda *n: told.append(n)) == whole
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert [json.loads(line)["site"]["name"] for line in file.read_text().splitlines()[1:]] == [
        "site 1", "site 2", "site 3",
    ]  # fmt: skip
    file.write_text(lines[0][:20])  # cut off while its first line was written
    assert induce_sites(*study, file=file) == whole
    assert file.read_text().count("\n") == 4


def test_a_file_of_another_study_is_refused_and_left_alone(study, tmp_path):
    problem, tables, sites, protocol = study
    file = tmp_path / "sites.jsonl"
    induce_sites(problem, tables, sites[:1], protocol, file=file)
    kept = file.read_text()
    slower = {**tables, 1: constant(211.0)}
    for given in ((problem, slower, sites, protocol), (problem, tables, sites, s1_s2(220.0))):
        with pytest.raises(InputError, match="another"):
            induce_sites(*given, file=file)
    assert file.read_text() == kept
    for text in ("no study", "[1, 2]\n", '{"a": 1}\n', kept + '{"site": 3}\n'):
        file.write_text(text)
        with pytest.raises(InputError, match="give another file"):
            induce_sites(*study, file=file)
        assert file.read_text() == text


def test_bad_studies_are_refused(study, tmp_path):
    problem, tables, sites, protocol = study
    with pytest.raises(InputError, match="name of its own"):
        induce_sites(problem, tables, [sites[0], sites[0]], protocol)
    with pytest.raises(InputError, match="at least 1"):
        induce_sites(*study, workers=0)
    with pytest.raises(OutputError, match="cannot write"):
        induce_sites(*study, file=tmp_path / "none" / "sites.jsonl")
    opposite = induce(problem, tables, sites[0], Protocol("S1", 1, 600.0, ()))
    with pytest.raises(InputError, match="expected positive numbers"):
        Earliest(window=0.0)
    with pytest.raises(InputError, match="no re-entry was induced"):
        activation_train(problem, tables, opposite, protocol)


def test_block_one_way_alone_re_enters_by_the_same_criterion():
    """A refractory stretch behind the site; 0.5 m/s and 200 ms need 100 mm."""
    protocol = Protocol("S1", 1, 600.0, ())
    for perimeter in (90.0, 99.0, 101.0, 120.0):
        mesh = ring(perimeter, width=WIDTH)
        problem = build_surface_eikonal(mesh, None, Velocities(0.5))
        n = mesh.n_nodes // 2
        behind = np.where(np.arange(mesh.n_nodes) % n >= n - 30, 100.0, -np.inf)
        pulse = Sites([mesh.points[0]], 0.0, 0.4)
        train = eikonal_train(problem, pulse, constant(200.0), t_end=1100.0, repolarised=behind)
        found = reentry(train, 0.0, protocol)
        assert found.sustained == (perimeter > 100.0)
        if found.sustained:
            assert found.cycle_length == pytest.approx(perimeter / 0.5, rel=1e-3)
