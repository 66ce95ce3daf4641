"""Restitution on a cable, paced cells in tissue."""

import equinox as eqx
import jax
import numpy as np
import pytest
from tolerances import EXACT32

import twinheart as th
from twinheart.cell import (
    Paced,
    apply_condition,
    block_channels,
    get_model,
    pace_cell,
    scale_channels,
)
from twinheart.errors import ModelError
from twinheart.mesh.generate import slab
from twinheart.tissue import (
    Velocities,
    build_monodomain,
    cable_refractory_period,
    cable_velocity,
    cv_restitution,
    dynamic_cv_restitution,
    initial_state,
    pace,
)
from twinheart.tissue.cable import ByValue, matched_smoothing

D, EDGE, DT = 0.1, 0.25, 0.05
CABLE = {"diffusivity": D, "edge": EDGE, "dt": DT}


@pytest.fixture(scope="module")
def cell():
    return get_model("mitchell-schaeffer")


def test_long_intervals_conduct_as_at_rest(cell):
    """After 30 time constants of the gate the cable has forgotten; earlier it is slower."""
    found = cv_restitution(cell, 600.0, s2=[4000, 500, 400, 320], n_s1=1, **CABLE)
    smoothing = matched_smoothing(cell, D, EDGE, dt=DT)
    expected = cable_velocity(cell, D, EDGE, smoothing=smoothing, dt=DT)
    assert found.cv_regular == pytest.approx(float(expected), rel=EXACT32)
    assert found.cv[0] == pytest.approx(float(expected), rel=1e-3)
    assert not found.blocked.any()
    assert (np.diff(found.cv) < 0).all()
    assert (np.diff(found.apd) < 0).all()
    assert (np.diff(found.di) < 0).all()


def test_restitution_of_duration_on_a_cable_is_that_of_the_cell(cell):
    """A plane wave passes every node alike: APD(DI) is that of the map, as for a cell."""
    found = cv_restitution(cell, 600.0, s2=[500, 450, 400], n_s1=1, **CABLE)

    def theory(di):
        return 150.0 * np.log((1 - 0.8 * np.exp(-di / 120.0)) / 0.2)

    ratio = found.apd / theory(found.di)
    # What a finite tau_in / tau_out adds to the map is nearly the same share at every interval.
    assert np.ptp(ratio) < 0.05
    assert (np.abs(ratio - 1) < 0.25).all()


def test_short_intervals_block_and_the_refractory_period_is_between(cell):
    erp = cable_refractory_period(cell, 600.0, n_s1=1, resolution=0.5, **CABLE)
    s2 = np.array([erp.erp + 0.5, erp.erp])
    found = cv_restitution(cell, 600.0, s2=s2, n_s1=1, **CABLE)
    assert found.blocked.tolist() == [False, True]
    assert np.isnan(found.cv[1])
    assert np.isnan(found.apd[1])
    assert found.apd[0] == pytest.approx(erp.apd_at_erp, rel=EXACT32)


def test_dynamic_intervals_add_up(cell):
    found = dynamic_cv_restitution(cell, [600, 450, 350, 180], n_beats=4, **CABLE)
    assert found.blocked.tolist() == [False, False, False, True]
    # In steady pacing the duration before the diastolic interval is that after it.
    total = (found.di + found.apd)[:2]
    np.testing.assert_allclose(total, found.interval[:2], rtol=0.01)
    assert (np.diff(found.cv[:3]) < 0).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"s2": [5.0]}, "S2 comes 5 ms after S1"),
        ({"n_s1": 0}, "0 regular beats"),
        ({"s1": 10.0, "s2": [300]}, "longer than 20 ms"),
        ({"diffusivity": 1e-4}, "a regular beat is blocked"),
    ],
)
def test_impossible_requests_are_refused(cell, wrong, message):
    with pytest.raises(ModelError, match=message):
        cv_restitution(cell, **{"s1": 300.0, "n_s1": 1, **CABLE, **wrong})


def test_resolution_finer_than_a_block_is_refused(cell):
    with pytest.raises(ModelError, match=r"expected at least 0\.5 ms"):
        cable_refractory_period(cell, 600.0, resolution=0.1, **CABLE)


# --- paced cells in tissue ----------------------------------------------------------------------


def test_tissue_starts_from_a_paced_cell(cell):
    """Also where every node has cells and a start of its own, in the order of the computation."""
    mesh = slab((3.0, 1.0, 1.0), 0.5)
    heart = th.Heart(mesh, f0=np.tile([1.0, 0.0, 0.0], (mesh.n_tets, 1)))
    n = mesh.n_nodes
    vm, h = np.linspace(-84, -80, n), np.linspace(0.5, 1.0, n)
    paced = Paced(eqx.tree_at(lambda m: m.tau_open, cell, np.linspace(100.0, 140, n)), vm, (h,))
    built = build_monodomain(
        heart, paced, Velocities(0.6, 0.6), [pace("box:0,0,0,0.5,9,9")], may_block=True
    )
    state = initial_state(built.problem)
    np.testing.assert_allclose(built.problem.tissue.to_mesh_order(state.vm), vm, rtol=EXACT32)


def test_a_twin_of_paced_cells_depends_on_the_pacing(cell):
    """A cell that was just excited conducts slower than one at rest."""
    trace = pace_cell(cell, bcl=330.0, dt=0.05)
    heart = th.demo_heart()
    twin = th.Twin(heart, cell=Paced(cell, *trace.final))
    assert twin.cell.name == "mitchell-schaeffer"
    rested = cable_velocity(cell, D, EDGE)
    tired = cable_velocity(Paced(cell, *trace.final), D, EDGE)
    assert 0 < tired < 0.95 * rested


def test_what_is_measured_once_depends_on_all_of_a_cell():
    epi, endo = (get_model(f"tentusscher2006-{v}") for v in ("epi", "endo"))
    same = get_model("tentusscher2006-endo", g_to=epi.g_to, g_ks=epi.g_ks)
    leaves = [[np.asarray(x).tobytes() for x in jax.tree.leaves(m)] for m in (epi, same)]
    assert leaves[0] == leaves[1]  # only the static field tells them apart
    start = epi.initial_vm(), epi.initial_state()
    cells = (
        *(epi, same, endo, get_model("tentusscher2006-m")),
        *(Paced(epi, *start), Paced(same, *start), Paced(epi, start[0] + 1, start[1])),
        *(scale_channels(epi, {"i_na": 0.5}), scale_channels(Paced(epi, *start), {"i_na": 0.5})),
        *(apply_condition(epi, "lqt2"), block_channels(epi, 3.0, {"i_kr": (1.0, 1.0)})),
    )
    handles = [ByValue(m) for m in cells]
    assert len(set(handles)) == len(handles)
    assert ByValue(get_model("tentusscher2006-epi")) == handles[0]
