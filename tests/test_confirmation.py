"""Monodomain re-entry: rings against cables, quiet tissue, half the step, monomorphic or not."""

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twinheart.anatomy import Heart
from twinheart.cell import limit_cycle
from twinheart.cell.mitchell_schaeffer import MitchellSchaeffer
from twinheart.ecg import Electrodes
from twinheart.errors import InputError
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import slab
from twinheart.planning import (
    PacingSite,
    Protocol,
    Stage,
    classify,
    confirm,
    dominant_frequency,
    induce_monodomain,
    prepare_pacing,
    reentry,
)
from twinheart.planning.induction.confirmation import circuit_of
from twinheart.planning.induction.monodomain_trains import Moment, Stimulator, train_of
from twinheart.tissue import (
    Train,
    Velocities,
    cable_refractory_period,
    dynamic_cv_restitution,
)

CELL = MitchellSchaeffer(tau_open=80.0, tau_close=70.0)
LATE = MitchellSchaeffer(tau_open=80.0, tau_close=95.0)  # recovers some 40 ms later
EDGE, DT, CYCLE = 0.5, 0.1, 350.0
SPEED = Velocities(0.5, 0.5)
# The target for re-entry with known path and velocity.
CYCLE_LENGTH = 0.02
PROTOCOL = Protocol("S1 S2", 2, CYCLE, (Stage(210.0, 10.0, 100.0),))


def ring(perimeter: float, cells: dict | MitchellSchaeffer = CELL, late=0.0, **options):
    """A closed strand of one element across, its middle as long as said; some of it is tag 1."""
    strand = slab((perimeter, EDGE, EDGE), EDGE)
    x, y, z = strand.points.T
    turn, radius = -2 * np.pi * x / perimeter, perimeter / (2 * np.pi) - EDGE / 2 + y
    points = np.stack([radius * np.cos(turn), radius * np.sin(turn), z], axis=1)
    name = np.arange(len(x))
    for end in np.flatnonzero(x > perimeter - EDGE / 2):  # is where it began
        name[end] = np.flatnonzero((x < EDGE / 2) & (y == y[end]) & (z == z[end]))[0]
    kept = np.unique(name)
    tets = np.searchsorted(kept, name[strand.tets])
    regions = (np.abs(x[strand.tets].mean(axis=1) - 10.0) < late / 2).astype(int)
    mesh = TetMesh(points[kept], tets)
    a, b, c = map(float, mesh.points[0])
    site = PacingSite("ring", (a, b, c), (a, b, c))
    tissue = prepare_pacing(Heart(mesh, regions=regions), cells, SPEED, cycle=CYCLE, **options)
    return tissue, site, x[kept]


def one_way(perimeter: float, until: float) -> Train:
    """A wave that runs round a ring one way.

    Right before both waves of a stimulus meet, when the site is at rest again, one is erased.
    """
    tissue, site, x = ring(perimeter, dt=DT)
    stimulator = Stimulator(tissue, site, 2.0)
    rest = stimulator.start()
    moment = stimulator.run(rest, until).end
    erased = tissue.built.assembly.to_node_order((x > perimeter / 2).astype(float)) > 0

    def half(now, before):
        return jnp.where(erased, before, now)

    now, before = moment.state, rest.state
    state = now._replace(
        vm=half(now.vm, before.vm),
        lost=half(now.lost, before.lost),
        i_ion=half(now.i_ion, before.i_ion),
        cells=jax.tree.map(half, now.cells, before.cells),
    )
    seen = stimulator.run(Moment(state, until), until + 2000.0, pulse=False, to_rest=True)
    return train_of(seen.node, seen.time, len(x))


def test_re_entry_in_a_ring_takes_path_over_velocity_of_the_cable():
    """At the velocity that a cable has when it is paced at that very cycle."""
    perimeter = 150.0
    train = one_way(perimeter, 0.95 * perimeter / 2 / 0.5)
    found = reentry(train, 0.0, Protocol("p", 1, CYCLE, (), observe=1900.0))
    assert found.sustained
    assert found.spread < 1.0
    paced = limit_cycle(CELL, CYCLE).model
    near = 5.0 * round(found.cycle_length / 5.0)
    cable = dynamic_cv_restitution(
        paced, [near + 5.0, near - 5.0], n_beats=4, edge=EDGE, velocity=0.5, dt=DT
    )
    velocity = np.interp(found.cycle_length, cable.interval[::-1], cable.cv[::-1])
    assert found.cycle_length == pytest.approx(perimeter / velocity, rel=CYCLE_LENGTH)


def test_a_ring_shorter_than_the_wavelength_carries_none():
    """Not even at the slowest, 0.6 of its velocity at rest, is it back before all recover."""
    tissue, site, _ = ring(40.0, {0: CELL, 1: LATE}, late=8.0, dt=DT)
    found = induce_monodomain(tissue, site, PROTOCOL)
    assert found.outcome == "not induced"
    assert found.stages[0].captured is not None


@pytest.fixture(scope="module")
def late_ring(tmp_path_factory):
    """A ring with a stretch that recovers late beside the site, and what its pacing gives."""
    electrodes = Electrodes(
        ("RA", "LA", "LL", *(f"V{k}" for k in range(1, 7))),
        [[60.0 * np.cos(k), 60.0 * np.sin(k), 30.0] for k in range(9)],
    )
    tissue, site, _ = ring(120.0, {0: CELL, 1: LATE}, late=8.0, dt=DT, electrodes=electrodes)
    found = induce_monodomain(tissue, site, PROTOCOL)
    file = tmp_path_factory.mktemp("ring") / "vm.h5"
    sure = confirm(tissue, site, found.stimuli, PROTOCOL, snapshots=file)
    return tissue, site, found, sure, file


def test_block_beside_the_site_induces_re_entry_that_holds(late_ring):
    tissue, _, found, sure, _ = late_ring
    assert found.outcome == "induced"
    assert found.s1_beats == 2
    assert sure.confirmed
    for other in (sure.half_step, sure.disturbed):
        assert other.cycle_length == pytest.approx(found.cycle_length, rel=CYCLE_LENGTH)
    assert sure.morphology.kind == "monomorphic"
    assert sure.circuit.length_mm == pytest.approx(120.0, rel=0.03)
    assert sure.circuit.cycle_length_ms == pytest.approx(found.cycle_length, rel=CYCLE_LENGTH)
    assert sure.circuit.exit_mm is None  # no scar
    late = np.asarray(sure.ecg.signals)[-1000:]  # half a second
    shift = round(found.cycle_length / tissue.block)
    assert np.abs(late[shift:] - late[:-shift]).max() < 0.1 * np.ptp(late)


def test_not_running_common_stimuli_again_changes_nothing(late_ring):
    _, _, found, sure, _ = late_ring
    assert sure.found.cycle_length == pytest.approx(found.cycle_length, abs=1e-9)
    assert sure.found.spread == pytest.approx(found.spread, abs=1e-9)
    assert sure.found.lasted == pytest.approx(found.lasted, abs=1e-9)


def test_stored_voltages_turn_at_the_rate_of_the_re_entry(late_ring):
    _, _, found, _, file = late_ring
    with h5py.File(file, "r") as stored:
        t, vm = (np.asarray(stored[name]) for name in ("t", "vm"))
    assert t[0] > found.stimuli[-1]
    assert t[-1] == pytest.approx(found.stimuli[-1] + PROTOCOL.observe + 20.0, abs=1.0)
    rates = dominant_frequency(t, vm)
    np.testing.assert_allclose(rates, 1000.0 / found.cycle_length, atol=0.3)  # 1 s: 1 Hz apart


def test_a_train_that_induces_nothing_is_not_confirmed(late_ring):
    tissue, site, *_ = late_ring
    found = confirm(tissue, site, (0.0, CYCLE, CYCLE + 300.0), PROTOCOL)
    assert not found.confirmed
    assert found.half_step is None
    assert found.morphology is None
    assert found.circuit is None
    assert circuit_of(tissue, found.train) is None


def test_uniform_tissue_is_never_induced_and_blocks_where_a_cable_does():
    site = PacingSite("corner", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    heart = Heart(slab((12.0, 12.0, EDGE), EDGE))
    tissue = prepare_pacing(heart, CELL, SPEED, cycle=CYCLE, dt=DT)
    found = induce_monodomain(tissue, site, PROTOCOL)
    assert found.outcome == "not induced"
    (stage,) = found.stages
    assert stage.blocked is not None
    assert stage.captured == stage.blocked + 10.0
    cable = cable_refractory_period(
        limit_cycle(CELL, CYCLE).model, CYCLE, resolution=5.0, edge=EDGE, velocity=0.5, dt=DT
    )
    # a point must excite a growing front: it may need to come one step later than in a cable
    assert cable.erp - 10.0 <= stage.blocked <= cable.erp + 15.0


def test_protocols_without_intervals_are_refused():
    heart = Heart(slab((12.0, EDGE, EDGE), EDGE))
    tissue = prepare_pacing(heart, CELL, SPEED, cycle=CYCLE, dt=DT)
    site = PacingSite("end", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    protocol = Protocol("search", 1, CYCLE, ())
    object.__setattr__(protocol, "stages", ("earliest",))
    with pytest.raises(InputError, match="earliest"):
        induce_monodomain(tissue, site, protocol)


def test_bad_sites_and_trains_are_refused():
    heart = Heart(slab((6.0, 2.0, EDGE), EDGE))
    tissue = prepare_pacing(heart, CELL, SPEED, cycle=CYCLE, dt=DT)
    far = PacingSite("far", (50.0, 0.0, 0.0), (50.0, 0.0, 0.0))
    with pytest.raises(InputError, match="no tissue"):
        induce_monodomain(tissue, far, PROTOCOL)
    near = PacingSite("near", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    with pytest.raises(InputError, match="all tissue"):
        induce_monodomain(tissue, near, PROTOCOL, radius=30.0)
    with pytest.raises(InputError, match="farther than"):
        induce_monodomain(tissue, near, PROTOCOL, radius=4.0)
    with pytest.raises(InputError, match="ascending"):
        confirm(tissue, near, (0.0, 300.0, 200.0), PROTOCOL)


def turning(cycles, nodes=40, jitter=0.0, seed=0):
    """A wave around a ring; the cycles are as long as said, its nodes off by some jitter."""
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0.0], np.cumsum(cycles)[:-1]])
    share = np.arange(nodes)[:, None] / nodes
    lat = starts + share * np.asarray(cycles) + rng.normal(0.0, jitter, (nodes, len(starts)))
    lat = np.sort(lat, axis=1)
    return Train(lat, np.full_like(lat, np.nan), np.full_like(lat, np.nan), "successful")


def test_a_steady_wave_is_monomorphic_however_its_cycles_are_cut():
    for jitter in (0.0, 2.0):
        found = classify(turning([200.0] * 8, jitter=jitter), 300.0)
        assert found.kind == "monomorphic"
        assert found.cycle_length_ms == pytest.approx(200.0, abs=1.0)
        assert found.similarity > 0.95
    drifting = turning(np.linspace(200.0, 215.0, 8))
    assert classify(drifting, 0.0).kind == "monomorphic"


def test_irregular_cycles_and_changing_patterns_are_polymorphic():
    rng = np.random.default_rng(4)
    irregular = classify(turning(rng.uniform(140.0, 260.0, 10)), 0.0)
    assert irregular.kind == "polymorphic"
    assert irregular.variability > 0.1
    # regular at every node, but each cycle takes another way through the tissue
    nodes = np.arange(40)
    lat = np.stack([k * 200.0 + 100.0 * rng.permutation(nodes) / 40 for k in range(8)], axis=1)
    unknown = np.full_like(lat, np.nan)
    changing = classify(Train(lat, unknown, unknown, "successful"), 0.0, most_variability=1.0)
    assert changing.kind == "polymorphic"
    assert changing.similarity < 0.9
    # the same, said to be similar enough
    lenient = classify(
        Train(lat, unknown, unknown, "successful"), 0.0,
        most_variability=1.0, least_similarity=-1.0,
    )  # fmt: skip
    assert lenient.kind == "monomorphic"


def test_too_few_cycles_are_neither():
    assert classify(turning([200.0, 200.0]), 0.0).kind == "unknown"
    assert classify(turning([200.0] * 4), 5000.0).kind == "unknown"
