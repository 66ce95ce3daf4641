"""Cells that differ over the heart: one model, one compilation, every value at its own node."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest
import tolerances

import twinheart as th
from twinheart.cell import get_model, scale_channels
from twinheart.cell.limit_cycle import Paced
from twinheart.cli.build import build_twin
from twinheart.cli.case import check_case
from twinheart.errors import ModelError
from twinheart.mesh import TetMesh
from twinheart.tissue import Conductivities, build_monodomain, pace, run
from twinheart.tissue.monodomain import advance, initial_state

MESH = th.mesh.generate.slab((4.0, 1.0, 1.0), 0.5)
TISSUE = Conductivities(0.3, 0.3, 0.6, 0.6)
STIMULUS = pace("box:0,0,0,0.5,9,9")
DT = 0.05
MS = get_model("mitchell-schaeffer")
# Repolarisation of two orders of summation in float32: the voltage falls by 1 mV/ms there, so
# 3e-3 mV of rounding are a step of time.
REPOL_MS = 0.1


def heart_of(mesh=MESH, regions=None) -> th.Heart:
    return th.Heart(mesh, f0=np.tile([1.0, 0.0, 0.0], (mesh.n_tets, 1)), regions=regions)


def halves(mesh=MESH):
    """Region 1 where x < 2, region 7 beyond."""
    return np.where(mesh.points[mesh.tets].mean(axis=1)[:, 0] < 2.0, 1, 7)


def build(cell, heart=None, dt=DT, stimuli=(STIMULUS,)):
    heart = heart_of(regions=halves()) if heart is None else heart
    options = {"dt": dt, "smoothing": 0.5, "may_block": True}
    return build_monodomain(heart, cell, TISSUE, list(stimuli), **options)


def maps_of(built, t_end, mesh=MESH):
    done = run(built, t_end, points=mesh.points)
    in_mesh_order = built.problem.tissue.to_mesh_order
    return in_mesh_order(done.state.lat), in_mesh_order(done.state.repol)


def unmerged(monkeypatch, cell, **options):
    """The same problem with one model for each region."""
    with monkeypatch.context() as patch:
        patch.setattr("twinheart.tissue.build.same_equations", lambda one, other: False)
        return build(cell, **options)


# -- regions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "dt", "t_end"),
    [
        (("bueno-orovio-epi", "bueno-orovio-endo"), DT, 350.0),
        pytest.param(("tentusscher2006-epi", {"g_ks": 1.0}), 0.02, 20.0, marks=pytest.mark.slow),
    ],
)
def test_regions_of_one_class_are_one_model_with_the_same_answer(monkeypatch, cells, dt, t_end):
    first, other = cells
    changed = get_model(first, **other) if isinstance(other, dict) else get_model(other)
    regions = {1: get_model(first), 7: changed}
    merged = build(regions, dt=dt)
    apart = unmerged(monkeypatch, regions, dt=dt)
    assert (len(merged.problem.models), len(apart.problem.models)) == (1, 2)
    assert merged.conduction == apart.conduction
    lat, repol = maps_of(merged, t_end)
    lat_apart, repol_apart = maps_of(apart, t_end)
    assert np.isfinite(lat).all()
    assert lat == pytest.approx(lat_apart, abs=tolerances.DEVICE_STEPS * dt)
    assert np.isfinite(repol).all() == (t_end > 100)
    assert repol == pytest.approx(repol_apart, abs=REPOL_MS, nan_ok=True)


def test_paced_cells_keep_their_start_at_their_nodes():
    starts = {tag: Paced(MS, v, MS.initial_state()) for tag, v in ((1, -80.0), (7, -82.0))}
    built = build(starts)
    assert len(built.problem.models) == 1
    vm = built.problem.tissue.to_mesh_order(initial_state(built.problem).vm)
    x = MESH.points[:, 0]
    assert set(vm[x < 2.0]) == {-80.0}
    assert set(vm[x > 2.0]) == {-82.0}


def test_parameters_given_by_region_and_by_node_mix():
    tau = np.linspace(120.0, 180.0, MESH.n_nodes)
    cells = {1: get_model("mitchell-schaeffer", tau_close=tau), 7: scale_channels(MS, {})}
    model: Any = build(cells).problem.models[0]
    order = build(cells).problem.tissue.order
    x = MESH.points[order, 0]
    expected = np.where(x < 2.0, tau[order], 150.0)
    off_border = np.abs(x - 2.0) > 0.1
    assert np.asarray(model.tau_close)[off_border] == pytest.approx(expected[off_border])


def test_parameter_of_the_wrong_length_is_refused():
    with pytest.raises(ModelError, match=r"tau_close of mitchell-schaeffer has shape \(5,\)"):
        build(get_model("mitchell-schaeffer", tau_close=np.full(5, 150.0)))


# -- continuous -----------------------------------------------------------------------------------


def with_gradient(mesh):
    """Durations that fall linearly along x."""
    return scale_channels(MS, {"tau_close": 1.2 - 0.1 * mesh.points[:, 0]})


def test_a_linear_gradient_appears_in_the_map_of_durations():
    lat, repol = maps_of(build(with_gradient(MESH), heart=heart_of()), 400.0)
    even, flat = maps_of(build(MS, heart=heart_of()), 400.0)
    x = MESH.points[:, 0]
    at = np.unique(x)
    mean = np.array([(repol - lat)[x == v].mean() for v in at])
    uniform = np.array([(flat - even)[x == v].mean() for v in at])
    assert (np.diff(mean) < 0).all()
    # a tenth of tau_close a millimetre is 20 ms of duration; diffusion evens out the ends
    assert mean[0] - mean[-1] > 15.0
    # the middle, of factor 1, keeps its duration up to what its neighbours pull
    assert mean[len(at) // 2] == pytest.approx(uniform[len(at) // 2], abs=4.0)


def test_relabelling_the_nodes_permutes_the_maps():
    permutation = np.random.default_rng(3).permutation(MESH.n_nodes)
    place = np.argsort(permutation)
    mesh = TetMesh(MESH.points[permutation], place[MESH.tets])
    lat, repol = maps_of(build(with_gradient(MESH), heart=heart_of()), 400.0)
    other = maps_of(build(with_gradient(mesh), heart=heart_of(mesh)), 400.0, mesh)
    assert other[0] == pytest.approx(lat[permutation], abs=tolerances.DEVICE_STEPS * DT)
    assert other[1] == pytest.approx(repol[permutation], abs=REPOL_MS)


def test_one_compilation_serves_all_values():
    traced = []

    @eqx.filter_jit
    def some_blocks(problem):
        traced.append(True)
        return advance(problem, initial_state(problem), 2)[0].vm

    for k in range(4):
        field = np.random.default_rng(k).uniform(0.5, 2.0, MESH.n_nodes)
        some_blocks(build(scale_channels(MS, {"tau_close": field}), heart=heart_of()).problem)
    assert len(traced) == 1
    # as many regions as one likes, one more for another set of varying parameters
    for close in ((100.0, 150.0), (90.0, 200.0)):
        cells = {1: get_model("mitchell-schaeffer", tau_close=close[0]),
                 7: get_model("mitchell-schaeffer", tau_close=close[1])}  # fmt: skip
        some_blocks(build(cells).problem)
    assert len(traced) == 1


def test_a_gradient_with_respect_to_the_field_is_local():
    """What a far node's parameter does to the voltage of a near one vanishes with distance."""
    problem = build(with_gradient(MESH), heart=heart_of()).problem

    def voltage(field, problem):
        changed = eqx.tree_at(lambda p: p.models[0].tau_in, problem, field)
        return advance(changed, initial_state(changed), 4)[0].vm[0]

    field = np.full(problem.tissue.n_nodes, 0.3, np.float32)
    gradient = np.abs(np.asarray(eqx.filter_jit(jax.grad(voltage))(field, problem)))
    assert np.isfinite(gradient).all()
    assert gradient.argmax() == 0 or gradient[0] > 0.1 * gradient.max()


# -- the case file --------------------------------------------------------------------------------


def slab_with_field():
    mesh = TetMesh(MESH.points, MESH.tets, {"transmural": MESH.points[:, 0] / 4.0,
                                            "vector": MESH.points})  # fmt: skip
    return heart_of(mesh, halves())


def twin_of(cells, heart=None) -> Any:
    case = check_case({"cells": cells, "ecg": {"electrodes": "none"}})
    return build_twin(case, heart or slab_with_field())


def test_case_file_modifies_cells():
    cells = {
        "condition": "lqt2",
        "channels": {"i_ks": 0.5},
        "drugs": [{"name": "sotalol", "cmax": 1.0}, {"name": "cisapride", "concentration_nm": 0.0}],
        "fields": [{"channel": "i_to", "field": "transmural", "at_zero": 0.2}],
    }
    cell: Any = twin_of(cells).cell
    sotalol = 1 / (1 + (14690 / 107100) ** 0.785)
    assert cell.g_kr.item() == pytest.approx(0.153 * 0.5 * sotalol)
    assert cell.g_ks.item() == pytest.approx(0.392 * 0.5)
    assert cell.g_to == pytest.approx(0.294 * (0.2 + 0.8 * MESH.points[:, 0] / 4.0))


def test_region_changes_what_it_names():
    cells = {
        "parameters": {"g_na": 10.0},
        "condition": "lqt1",
        "channels": {"i_kr": 0.5},
        "drugs": [{"name": "sotalol", "concentration_nm": 107100.0}],
        "regions": [{"tag": 7, "condition": "none", "channels": {"i_kr": 0.5, "i_na": 0.1}}],
    }
    one, seven = (twin_of(cells).cell[tag] for tag in (1, 7))
    assert (one.g_ks.item(), seven.g_ks.item()) == pytest.approx((0.196, 0.392))
    assert (one.g_na.item(), seven.g_na.item()) == pytest.approx((10.0, 1.0))
    assert (one.g_kr.item(), seven.g_kr.item()) == pytest.approx((0.153 / 4, 0.153 / 8))


def test_region_with_a_model_of_its_own_takes_the_drugs_alone():
    cells = {
        "parameters": {"g_na": 10.0},
        "channels": {"i_kr": 0.5},
        "drugs": [{"name": "sotalol", "concentration_nm": 107100.0}],
        "regions": [{"tag": 7, "model": "tentusscher2006-endo"}],
    }
    seven = twin_of(cells).cell[7]
    assert seven.name == "tentusscher2006-endo"
    assert seven.g_na.item() == pytest.approx(14.838)
    assert seven.g_kr.item() == pytest.approx(0.153 / 2)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"channels": {"i_krr": 0.5}}, "cells: .* no channel 'i_krr'; the nearest is 'i_kr'"),
        ({"channels": {"i_kr": -0.5}}, "factor of i_kr is -0.5"),
        ({"condition": "lqt9"}, "cells: unknown condition 'lqt9'"),
        ({"drugs": [{"name": "sotalol"}]}, "give either concentration_nm or cmax"),
        ({"drugs": [{"name": "aspirin", "cmax": 1.0}]}, "unknown drug 'aspirin'"),
        (
            {"fields": [{"channel": "i_ks", "field": "depth"}]},
            "no point field 'depth' for i_ks; the mesh has transmural",
        ),
        ({"fields": [{"channel": "i_ks", "field": "vector"}]}, "more than one number a node"),
        ({"regions": [{"tag": 7, "condition": "lqt9"}]}, r"cells\.regions\[1\]: unknown condition"),
    ],
)
def test_impossible_cells_are_refused(cells, message):
    with pytest.raises(ModelError, match=message):
        twin_of(cells)


def test_field_that_drives_a_factor_below_zero_is_refused():
    mesh = TetMesh(MESH.points, MESH.tets, {"depth": MESH.points[:, 0]})
    cells = {"fields": [{"channel": "i_ks", "field": "depth", "at_one": 0.5}]}
    with pytest.raises(ModelError, match="factor of i_ks is -"):
        twin_of(cells, heart_of(mesh))
