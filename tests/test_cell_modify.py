"""Scaled channels, diseases and drugs: factors act on the currents they name, nothing is silent."""

import warnings
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tolerances

from twinheart.cell import (
    AbstractCellModel,
    Pulse,
    apply_condition,
    apply_drug,
    block_channels,
    condition_names,
    drug_names,
    get_model,
    hill_factor,
    one_per_node,
    pace_cell,
    scale_channels,
)
from twinheart.cell.conditions import CONDITIONS, left_out
from twinheart.cell.currents import channel_currents
from twinheart.cell.drugs import DRUGS
from twinheart.cell.limit_cycle import Paced
from twinheart.cell.model import Parameter, parameter
from twinheart.cell.modify import LeftOutWarning
from twinheart.errors import ModelError

TT06: Any = get_model("tentusscher2006-epi")
PLATEAU = 10.0  # mV, where every current flows
# The same cell in another kernel: float32 rounds differently, most of all in the upstroke, where
# 1e-5 ms are 4e-3 mV.
SAME_RUN_MV = 0.05


def currents_of(model):
    state = tuple(x + 0.05 if x < 0.5 else x for x in model.initial_state())
    return channel_currents(model, jnp.asarray(PLATEAU), state)


class Everything(AbstractCellModel):
    """A cell that has every channel of every disease and drug; its equations do not matter."""

    name: ClassVar[str] = "everything"
    reference: ClassVar[str] = ""
    initial: ClassVar[dict[str, float]] = {}
    stimulus: ClassVar[Pulse] = Pulse(52.0, 1.0)
    names: ClassVar[tuple[str, ...]] = (
        "i_na", "i_nal", "i_to", "i_cal", "i_kr", "i_ks", "i_k1", "i_kur", "i_nak", "i_naca",
        "i_bca", "i_kca", "i_cl_ca", "j_up", "j_rel", "j_leak",
    )  # fmt: skip
    channels: ClassVar[dict[str, str]] = {name: name.replace("_", "") for name in names}

    ina: Parameter = parameter(1.0)
    inal: Parameter = parameter(1.0)
    ito: Parameter = parameter(1.0)
    ical: Parameter = parameter(1.0)
    ikr: Parameter = parameter(1.0)
    iks: Parameter = parameter(1.0)
    ik1: Parameter = parameter(1.0)
    ikur: Parameter = parameter(1.0)
    inak: Parameter = parameter(1.0)
    inaca: Parameter = parameter(1.0)
    ibca: Parameter = parameter(1.0)
    ikca: Parameter = parameter(1.0)
    iclca: Parameter = parameter(1.0)
    jup: Parameter = parameter(1.0)
    jrel: Parameter = parameter(1.0)
    jleak: Parameter = parameter(1.0)
    a_camk: Parameter = parameter(1.0)
    tau_rel_factor: Parameter = parameter(1.0)
    tau_hl: Parameter = parameter(1.0)
    concentration: Parameter = parameter(0.0, "nM")
    k_max: Parameter = parameter(0.0)
    k_u: Parameter = parameter(0.0)
    hill: Parameter = parameter(1.0)
    half_max: Parameter = parameter(1.0)
    v_half: Parameter = parameter(1.0)

    def initial_vm(self):
        return jnp.asarray(-85.0)

    def rates(self, vm, state, i_stim=0.0):
        return jnp.zeros_like(vm), ()

    def factor(self, channel):
        return getattr(self, self.channels[channel]).item()


# -- channels -------------------------------------------------------------------------------------


def test_factor_multiplies_the_current_it_names_and_no_other():
    before = currents_of(TT06)
    after = currents_of(scale_channels(TT06, {"i_kr": 0.5, "i_cal": 1.7, "i_na": 0.0}))
    factors = {"i_kr": 0.5, "i_cal": 1.7, "i_na": 0.0}
    for name, current in before.items():
        assert after[name] == pytest.approx(
            float(current) * factors.get(name, 1.0), rel=tolerances.EXACT32
        ), name


def test_a_parameter_is_scaled_by_its_own_name_and_factors_multiply():
    cell = scale_channels(TT06, {"i_kr": 0.5, "g_kr": 0.5, "k_o": 2.0})
    assert cell.g_kr.item() == pytest.approx(0.25 * 0.153)
    assert cell.k_o.item() == pytest.approx(10.8)
    assert jax.tree.structure(cell) == jax.tree.structure(TT06)
    assert all(x.dtype == y.dtype for x, y in zip(*map(jax.tree.leaves, (cell, TT06)), strict=True))


def test_the_model_inside_a_wrapper_is_scaled():
    paced: Any = Paced(TT06, TT06.initial_vm(), TT06.initial_state())
    twice = Paced(paced, TT06.initial_vm(), TT06.initial_state())
    for wrapped in (paced, twice):
        scaled = scale_channels(wrapped, {"i_ks": 0.5})
        assert type(scaled) is Paced
        assert currents_of(scaled)["i_ks"] == pytest.approx(0.5 * currents_of(wrapped)["i_ks"])
    assert apply_drug(paced, "sotalol", cmax=1.0).model.g_kr < TT06.g_kr


def test_factors_of_single_cells_act_on_their_cells():
    factor = np.array([1.0, 0.5])
    trace = pace_cell(scale_channels(TT06, {"i_na": factor}), bcl=20.0)
    alone = pace_cell(scale_channels(TT06, {"i_na": 0.5}), bcl=20.0)
    assert trace.vm[:, 1] == pytest.approx(np.asarray(alone.vm), abs=SAME_RUN_MV)
    assert trace.vm[:, 0].max() > trace.vm[:, 1].max() + 1.0


def test_a_factor_can_be_differentiated():
    """The total current is linear in a channel's factor: its derivative is that current."""

    def total(factor):
        cell = scale_channels(TT06, {"i_cal": factor})
        return cell.rates(jnp.asarray(PLATEAU), TT06.initial_state())[0]

    current = channel_currents(TT06, jnp.asarray(PLATEAU), TT06.initial_state())["i_cal"]
    assert jax.grad(total)(1.0) == pytest.approx(float(current), rel=tolerances.EXACT32)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"i_krr": 0.5}, "tentusscher2006-epi has no channel 'i_krr'; the nearest is 'i_kr'"),
        ({"variant": 0.5}, "has no channel 'variant'"),
        ({"i_kr": -0.1}, "factor of i_kr is -0.1, expected a number of at least 0"),
        ({"i_kr": np.array([1.0, np.nan])}, "factor of i_kr is nan"),
        ({"i_kr": np.inf}, "factor of i_kr is inf"),
        ({"i_kr": "half"}, "factor of i_kr is 'half', expected a number"),
    ],
)
def test_impossible_scaling_is_refused(factors, message):
    with pytest.raises(ModelError, match=message):
        scale_channels(TT06, factors)


# -- many cells in one model ----------------------------------------------------------------------


def test_cells_of_one_class_become_one_model():
    cells = [get_model("bueno-orovio-epi"), get_model("bueno-orovio-endo")]
    joined: Any = one_per_node(cells, np.array([1, 0, 1]))
    assert joined.tau_fi.tolist() == pytest.approx([0.1, 0.11, 0.1])
    assert joined.theta_v.shape == ()  # on which they agree
    trace = pace_cell(joined, bcl=400.0, dt=0.1)
    for k, cell in ((0, cells[1]), (1, cells[0])):
        alone = np.asarray(pace_cell(cell, bcl=400.0, dt=0.1).vm)
        assert trace.vm[:, k] == pytest.approx(alone, abs=SAME_RUN_MV)


def test_cells_keep_where_they_start():
    starts = [Paced(TT06, v, TT06.initial_state()) for v in (-80.0, -85.0)]
    joined: Any = one_per_node(starts, np.array([0, 1, 1]))
    assert joined.initial_vm().tolist() == [-80.0, -85.0, -85.0]
    rest = [get_model("mitchell-schaeffer", v_rest=v) for v in (-80.0, -85.0)]
    assert one_per_node(rest, np.array([1, 0])).initial_vm().tolist() == [-85.0, -80.0]


def test_variants_that_start_apart_do_so_in_one_model():
    cells = [get_model("torord-epi"), get_model("torord-endo")]
    joined = one_per_node(cells, np.array([1, 0]))
    assert type(joined) is Paced
    assert joined.initial_vm().tolist() == [cells[1].initial_vm(), cells[0].initial_vm()]
    for found, epi, endo in zip(*(m.initial_state() for m in (joined, *cells)), strict=True):
        assert np.broadcast_to(found, 2).tolist() == [endo, epi]


def test_cells_of_different_equations_are_not_joined():
    for other in ("tentusscher2006-endo", "mitchell-schaeffer"):
        with pytest.raises(ModelError, match="cells of different equations"):
            one_per_node([TT06, get_model(other)], np.array([0, 1]))
    with pytest.raises(ModelError, match="cells of different equations"):
        one_per_node([TT06, Paced(TT06, -80.0, TT06.initial_state())], np.array([0, 1]))


# -- diseases -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", condition_names())
def test_condition_scales_what_it_lists_and_names_its_source(name):
    condition = CONDITIONS[name]
    assert condition.source
    assert condition.description.endswith(".")
    assert condition.status in ("verified", "unverified")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeftOutWarning)
        cell = apply_condition(Everything(), name)
    for channel in Everything.channels:
        assert cell.factor(channel) == pytest.approx(condition.factors.get(channel, 1.0)), channel
    assert cell.a_camk.item() == pytest.approx(condition.factors.get("camk_rate", 1.0))
    assert cell.tau_rel_factor.item() == pytest.approx(condition.factors.get("tau_rel", 1.0))


def test_numbers_that_were_not_read_are_marked():
    """Reference physiology.md: the atrial sets and the attribution to the predictor are [M]."""
    unverified = {name for name, c in CONDITIONS.items() if not c.verified}
    assert unverified == {
        "chronic-af", "chronic-af-fibrotic", "border-zone", "lqt1", "lqt2", "lqt3", "brugada",
    }  # fmt: skip


def test_what_a_model_lacks_is_left_out_aloud():
    with pytest.warns(LeftOutWarning, match="also changes camk_rate, tau_rel, which tentusscher"):
        cell = apply_condition(TT06, "acute-bz3")
    assert left_out(TT06, "acute-bz3") == ("camk_rate", "tau_rel")
    assert cell.g_to.item() == 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apply_condition(TT06, "border-zone")


@pytest.mark.parametrize(
    ("model", "condition", "missing"),
    [
        ("courtemanche1998", "chronic-af", ()),
        ("courtemanche1998", "chronic-af-fibrotic", ()),
        ("tentusscher2006-epi", "border-zone", ()),
        ("torord-epi", "acute-bz3", ()),
        ("torord-epi", "chronic-bz", ("i_kca",)),  # a current of the mechanical variant alone
        ("torord-epi", "chronic-rz2", ("i_kca",)),
        ("ohara-rudy-endo", "heart-failure", ("camk_active",)),
        ("ohara-rudy-endo", "lqt3", ()),
    ],
)
def test_what_is_left_out_of_the_models_a_condition_is_for(model, condition, missing):
    assert left_out(get_model(model), condition) == missing


def test_border_zone_slows_the_upstroke_and_lengthens_the_action_potential():
    """As published: longer APD, smaller upstroke velocity."""
    cells = one_per_node([TT06, apply_condition(TT06, "border-zone")], np.array([0, 1]))
    vm = np.asarray(pace_cell(cells, bcl=450.0, dt=0.05).vm)
    slope = np.diff(vm, axis=0).max(axis=0)
    assert slope[1] < 0.6 * slope[0]
    above = (vm > -70.0).sum(axis=0)
    assert above[1] > 1.1 * above[0]


def test_condition_that_does_not_fit_is_refused():
    with pytest.raises(ModelError, match=r"unknown condition 'lqt4'; the nearest is 'lqt"):
        apply_condition(TT06, "lqt4")
    with pytest.raises(ModelError, match="tentusscher2006-epi has nothing that condition 'lqt3'"):
        apply_condition(TT06, "lqt3")


# -- drugs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", drug_names())
def test_half_of_a_current_is_left_at_its_ic50(name):
    for channel, (ic50, _) in DRUGS[name].block.items():
        cell = apply_drug(Everything(), name, concentration_nm=ic50, dynamic=False)
        assert cell.factor(channel) == pytest.approx(0.5, rel=tolerances.EXACT32), channel


def test_dose_in_multiples_of_the_peak_and_three_drugs_of_each_class():
    for name, drug in DRUGS.items():
        one = apply_drug(Everything(), name, cmax=3.0, dynamic=False)
        two = apply_drug(Everything(), name, concentration_nm=3.0 * drug.cmax, dynamic=False)
        assert one.factor("i_kr") == pytest.approx(two.factor("i_kr"))
    classes = [drug.risk for drug in DRUGS.values()]
    assert {risk: classes.count(risk) for risk in classes} == dict.fromkeys(
        ("high", "intermediate", "low"), 4
    )


def test_hill_curve_at_hand_computed_points():
    assert hill_factor(0.0, 10.0, 0.5) == 1.0
    assert hill_factor(10.0, 10.0, 3.0) == 0.5
    assert hill_factor(90.0, 10.0, 2.0) == pytest.approx(1 / 82)
    gradient = jax.grad(lambda c: hill_factor(c, 10.0, 0.5))(0.0)
    assert np.isfinite(gradient)


def test_drugs_multiply():
    block = {"i_kr": (10.0, 1.0), "i_cal": (30.0, 2.0)}
    cell = block_channels(block_channels(Everything(), 10.0, block), 30.0, block)
    assert cell.factor("i_kr") == pytest.approx(0.5 * 0.25)
    assert cell.factor("i_cal") == pytest.approx(0.9 * 0.5)


def test_dynamic_binding_takes_over_the_block_of_i_kr_once():
    cell = apply_drug(Everything(), "dofetilide", cmax=4.0)
    assert cell.factor("i_kr") == 1.0
    assert (cell.concentration.item(), cell.k_u.item()) == (8.0, pytest.approx(1.816e-5))
    assert cell.factor("i_to") < 1.0
    second = apply_drug(cell, "sotalol", cmax=1.0)  # the states are taken: its IC50
    assert second.concentration.item() == 8.0
    assert second.factor("i_kr") == pytest.approx(hill_factor(14690.0, 107100.0, 0.785))
    with pytest.raises(ModelError, match="another drug occupies them"):
        apply_drug(cell, "sotalol", cmax=1.0, dynamic=True)
    with pytest.raises(ModelError, match="it has none"):
        apply_drug(TT06, "sotalol", cmax=1.0, dynamic=True)


def test_the_cipa_cell_binds_every_drug_dynamically():
    cell: Any = get_model("ord-cipa")
    for name, drug in DRUGS.items():
        bound = apply_drug(cell, name, cmax=2.0)
        assert bound.concentration.item() == pytest.approx(2.0 * drug.cmax)
        assert bound.g_kr.item() == cell.g_kr.item()
        assert bound.k_max.item() == pytest.approx(drug.binding.k_max)
        static = apply_drug(cell, name, cmax=2.0, dynamic=False)
        left = hill_factor(2.0 * drug.cmax, *drug.block["i_kr"])
        assert static.g_kr.item() == pytest.approx(cell.g_kr.item() * float(left))
        assert static.concentration.item() == 0.0


def test_channel_that_a_model_lacks_is_named():
    with pytest.warns(LeftOutWarning, match="also blocks i_nal, which tentusscher2006-epi"):
        apply_drug(TT06, "verapamil", cmax=1.0)


@pytest.mark.parametrize(
    ("dose", "message"),
    [
        ({"cmax": -1.0}, "dose of dofetilide is -1, expected a number of at least 0"),
        ({"concentration_nm": np.array([1.0, -2.0])}, "dose of dofetilide is -2"),
        ({"concentration_nm": np.nan}, "dose of dofetilide is nan"),
        ({}, "give either concentration_nm or cmax"),
        ({"concentration_nm": 1.0, "cmax": 1.0}, "give either concentration_nm or cmax"),
    ],
)
def test_impossible_dose_is_refused(dose, message):
    with pytest.raises(ModelError, match=message):
        apply_drug(TT06, "dofetilide", **dose)


def test_unknown_drug_and_impossible_ic50_are_refused():
    with pytest.raises(ModelError, match="unknown drug 'dofetilid'; the nearest is 'dofetilide'"):
        apply_drug(TT06, "dofetilid", cmax=1.0)
    for pair in ((0.0, 1.0), (-5.0, 1.0), (5.0, 0.0), (np.nan, 1.0)):
        with pytest.raises(ModelError, match="IC50 and Hill coefficient of i_kr"):
            block_channels(TT06, 1.0, {"i_kr": pair})
    with pytest.raises(ModelError, match="concentration is -1"):
        block_channels(TT06, -1.0, {"i_kr": (5.0, 1.0)})
