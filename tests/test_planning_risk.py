"""Risk: measures against theory, intervals over members, the same again, bad input."""

import json

import numpy as np
import pytest

from twinheart.anatomy import Heart
from twinheart.anatomy.scar import with_scar
from twinheart.errors import InputError
from twinheart.mesh.generate import slab
from twinheart.planning import Protocol, Stage, place_sites
from twinheart.planning.risk import measures as module
from twinheart.planning.risk.ensemble import BORDER_APD, BORDER_SPEED, Ensemble, population_ensemble
from twinheart.planning.risk.measures import LEVEL, assess_risk, measure_heart, share
from twinheart.planning.substrate import build_substrate
from twinheart.tissue import Velocities, WaveTable

APD, DI = 120.0, 10.0
SPEED, SLOW = 0.5, 0.4  # m/s in healthy tissue; share of it in the border zone
# 16 mm of channel, and 8 + 16 + 8 mm around the core outside
RETURN = 16.0 / (SPEED * SLOW) + 32.0 / SPEED


@pytest.fixture(scope="module")
def heart():
    """A plate with a core of 20 x 16 mm and a channel of 4 mm through its middle."""
    mesh = slab((32.0, 28.0, 2.0), 1.0)
    x, y, _ = np.abs(mesh.points[mesh.tets].mean(axis=1) - [16.0, 14.0, 1.0]).T
    scar = np.where((x < 10) & (y < 8), np.where(x < 2, 1, 2), 0).astype(np.int32)
    table = WaveTable([DI, 300.0], [1.0, 1.0], [APD, APD])
    return build_substrate(
        Heart(with_scar(mesh, scar)),
        conduction=Velocities(SPEED, SPEED),
        border_speed=SLOW,
        across=1.0,
        tables={0: table, 1000: table},
    )


@pytest.fixture(scope="module")
def sites(heart):
    return place_sites(heart.problem, [[16.0, 2.0, 1.0]])


def drawn(members) -> Ensemble:
    """An ensemble with given factors on velocity, duration and the border zone's velocity."""
    centre = {"cv_l": SPEED, "cv_t": SPEED, "apd": APD, BORDER_SPEED: 1.0, BORDER_APD: 1.0}
    rows = tuple(
        centre | {"cv_l": c * SPEED, "cv_t": c * SPEED, "apd": d * APD, BORDER_SPEED: b}
        for c, d, b in members
    )
    return Ensemble(rows, centre, {}, "by hand", 0)


def test_measures_of_a_plate_are_those_of_theory(heart, sites):
    found = measure_heart(heart, sites).values
    assert found["circuits"] == 1
    assert found["shortest_cycle_ms"] == pytest.approx(RETURN, rel=0.01)
    assert found["narrowest_isthmus_mm2"] == pytest.approx(8.0, rel=1e-6)
    # durations and velocities do not change: dispersion is that of activation
    assert found["dispersion_ms"] == pytest.approx(found["activation_ms"], rel=1e-3)
    assert found["steep_ml"] == 0.0
    # within 5 mm a wave is at most 5 mm / 0.2 m/s later
    assert APD - 5.0 / (SPEED * SLOW) - 1.0 < found["lowest_rvi_ms"] < APD


def test_a_member_has_a_circuit_if_its_return_time_exceeds_refractoriness(heart, sites):
    cases = [
        (1.0, 1.0, 1.0), (1.0, 1.05, 1.0), (1.0, 1.15, 1.0), (1.2, 1.0, 1.0), (1.0, 1.15, 0.8),
        (0.8, 1.3, 1.0), (0.8, 1.5, 1.0),
    ]  # fmt: skip
    risk = assess_risk(heart, sites, drawn(cases))
    lengths = [16.0 / (SPEED * SLOW * c * b) + 32.0 / (SPEED * c) for c, _, b in cases]
    wanted = [length > d * APD + DI for length, (_, d, _) in zip(lengths, cases, strict=True)]
    assert 0 < sum(wanted) < len(cases)
    counts = next(row for row in risk.intervals if row.measure.key == "circuits")
    assert list(counts.values) == [float(w) for w in wanted]
    assert risk.circuit_share == share(sum(wanted), len(cases))
    cycle = next(row for row in risk.intervals if row.measure.key == "shortest_cycle_ms")
    known = [length for length, w in zip(lengths, wanted, strict=True) if w]
    assert cycle.known == len(known)
    np.testing.assert_allclose(np.array(cycle.values)[wanted], known, rtol=0.01)


def test_intervals_are_quantiles_of_the_members(heart, sites):
    slower = np.linspace(0.6, 1.0, 5)
    risk = assess_risk(heart, sites, drawn([(c, 1.0, 1.0) for c in slower]))
    row = next(row for row in risk.intervals if row.measure.key == "activation_ms")
    half = 0.5 - LEVEL / 2
    assert row.low, row.high == tuple(np.quantile(row.values, [half, 1 - half]))
    assert row.width == row.high - row.low > 0
    # all times scale with the velocities
    np.testing.assert_allclose(np.array(row.values) * slower, row.value, rtol=1e-4)


def test_without_an_ensemble_there_are_values_but_no_intervals(heart, sites):
    risk = assess_risk(heart, sites)
    assert risk.circuit_share is None
    assert all(np.isnan(row.width) and row.known == 0 for row in risk.intervals)
    assert [row.value for row in risk.intervals if row.measure.key == "circuits"] == [1.0]


def test_the_same_seed_gives_the_same_to_the_last_digit(heart, sites):
    one, two = (assess_risk(heart, sites, population_ensemble(heart, 3, seed=7)) for _ in range(2))
    for a, b in zip(one.intervals, two.intervals, strict=True):
        np.testing.assert_array_equal([*a[1:6], *a.values], [*b[1:6], *b.values])


def test_members_that_are_done_are_not_computed_again(heart, sites, tmp_path, monkeypatch):
    file, measured = tmp_path / "members.json", module.measure_heart
    before = assess_risk(heart, sites, population_ensemble(heart, 2), file=file)
    calls = []

    def counted(*given, **more):
        calls.append(1)
        return measured(*given, **more)

    monkeypatch.setattr(module, "measure_heart", counted)
    again = assess_risk(heart, sites, population_ensemble(heart, 3), file=file)
    assert len(calls) == 2  # the heart itself, and the third member
    assert again.intervals[0].values[:2] == before.intervals[0].values
    plain = assess_risk(heart, sites, population_ensemble(heart, 3))
    for a, b in zip(again.intervals, plain.intervals, strict=True):
        np.testing.assert_array_equal(a.values, b.values)


def test_a_file_of_another_study_is_refused(heart, sites, tmp_path):
    file = tmp_path / "members.json"
    assess_risk(heart, sites, drawn([(1.0, 1.0, 1.0)]), file=file)
    other = place_sites(heart.problem, [[2.0, 2.0, 1.0]])
    with pytest.raises(InputError, match="another heart, other sites"):
        assess_risk(heart, other, drawn([(1.0, 1.0, 1.0)]), file=file)
    file.write_text(json.dumps({"study": 3}))
    with pytest.raises(InputError, match="holds no members"):
        assess_risk(heart, sites, drawn([(1.0, 1.0, 1.0)]), file=file)


def test_inducibility_counts_sites(heart, sites):
    several = (*sites, *place_sites(heart.problem, [[2.0, 2.0, 1.0]], ["corner"]))
    protocol = Protocol("S1 S2", 1, 400.0, (Stage(200.0, 50.0, 150.0),), observe=300.0)
    risk = assess_risk(heart, several, drawn([(1.0, 1.0, 1.0)]), protocol, induce_members=True)
    assert risk.inducibility is not None
    assert risk.inducibility.of == 2
    # the member is the heart itself
    rows = {row.measure.key: row for row in risk.intervals}
    assert rows["inducible_sites"].values == (rows["inducible_sites"].value,)
    assert risk.inducibility.count == rows["inducible_sites"].value
    assert risk.inducible_share is not None


def test_healthy_tissue_has_no_circuit(sites):
    mesh = slab((32.0, 28.0, 2.0), 2.0)
    table = WaveTable([DI, 300.0], [1.0, 1.0], [APD, APD])
    plain = build_substrate(Heart(mesh), conduction=Velocities(SPEED, SPEED), tables={0: table})
    found = measure_heart(plain, place_sites(plain.problem, [[16.0, 2.0, 1.0]])).values
    assert found["circuits"] == 0
    assert np.isnan(found["shortest_cycle_ms"])
    assert found["lowest_rvi_ms"] > 0


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    # Newcombe 1998 (doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E), table I
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
     (1, 29, 0.0061, 0.1718)],
)  # fmt: skip
def test_shares_have_the_interval_of_wilson(count, of, low, high):
    found = share(count, of)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


def test_what_cannot_be_asked_is_refused(heart, sites):
    with pytest.raises(InputError, match="no protocol"):
        assess_risk(heart, sites, induce_members=True)
    with pytest.raises(InputError, match="no site"):
        measure_heart(heart, ())
    with pytest.raises(InputError, match="no share"):
        share(3, 2)
