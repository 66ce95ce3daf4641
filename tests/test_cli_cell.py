"""`twinheart cell`: list, info, run, restitution, import, and what is refused."""

import json

import pytest
from test_cli_simulate import last_error

from twinheart.cell import get_model, model_names
from twinheart.cli import main

QUICK = ("--cell", "mitchell-schaeffer", "--dt", "0.1")


def answer(capsys, *arguments: str) -> dict:
    assert main(["cell", *arguments, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_list_names_every_model(capsys):
    models = answer(capsys, "list")["models"]
    assert [model["name"] for model in models] == list(model_names())
    assert len(models) == 20
    for model in models:
        assert model["doi"].startswith("10.")
        assert model["states"] >= 2
        assert model["dt_ms"] > 0


def test_info_shows_parameters_with_units(capsys):
    found = answer(capsys, "info", "tentusscher2006-epi")
    parameters = {p["name"]: (p["value"], p["unit"]) for p in found["parameters"]}
    assert parameters["g_kr"] == (pytest.approx(0.153), "nS/pF")
    steppers = {state["name"]: state["stepped_by"] for state in found["states"]}
    assert steppers["m"] == "Rush-Larsen"
    assert steppers["k_i"] == "Euler"
    assert {"channel": "i_kr", "parameter": "g_kr"} in found["channels"]


def test_run_measures_and_draws(capsys, tmp_path):
    plot, csv = tmp_path / "ap.png", tmp_path / "ap.csv"
    options = ("--bcl", "500", "--beats", "3", "--plot", str(plot), "--csv", str(csv))
    found = answer(capsys, "run", *QUICK, *options)
    # Mitchell and Schaeffer 2003: APD is about tau_close log(1 / h_min), h_min = 4 tau_in/tau_out
    assert found["apd90_ms"] == pytest.approx(150 * 1.609, rel=0.15)
    assert found["v_rest_mv"] == pytest.approx(-85.0, abs=0.5)
    assert found["answered"] is True
    assert plot.stat().st_size > 5000
    rows = csv.read_text().splitlines()
    assert rows[0] == "t_ms,vm_mv,h"
    assert len(rows) == 5002


def test_options_modify_the_model(capsys):
    plain = answer(capsys, "run", *QUICK, "--bcl", "500", "--beats", "1")
    slow = answer(capsys, "run", *QUICK, "--bcl", "500", "--beats", "1", "--set", "tau_close=190")
    scaled = answer(
        capsys, "run", *QUICK, "--bcl", "500", "--beats", "1", "--scale", "tau_close=1.5"
    )
    assert plain["apd90_ms"] < slow["apd90_ms"] < scaled["apd90_ms"]


def test_too_fast_pacing_is_said_not_crashed(capsys):
    assert main(["cell", "run", *QUICK, "--bcl", "150", "--beats", "4", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "shorter than the refractory period" in err
    assert json.loads(out)["bcl_ms"] == 150


def test_restitution_shortens(capsys, tmp_path):
    plot = tmp_path / "restitution.png"
    found = answer(capsys, "restitution", *QUICK, "--bcl", "600", "--plot", str(plot))
    pairs = [p for p in zip(found["di_ms"], found["apd_ms"], strict=True) if None not in p]
    pairs.sort()
    durations = [apd for _, apd in pairs]
    assert len(durations) > 4
    assert durations == sorted(durations)  # longer rest, longer action potential
    assert found["erp_ms"] < 600
    assert plot.stat().st_size > 5000


def test_import_writes_a_module(capsys, data, tmp_path):
    out = tmp_path / "beeler.py"
    file = data / "cell" / "mmt" / "beeler-1977-model.mmt"
    found = answer(capsys, "import", str(file), "--name", "beeler-reuter", "--out", str(out))
    assert found["name"] == "beeler-reuter"
    assert "m" in found["gates"]
    assert found["states"] == 8
    compile(out.read_text(), out.name, "exec")


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (("run", "--cell", "torord-end"), "nearest is 'torord-endo'"),
        (("run", *QUICK, "--set", "tau_clos=1"), "nearest is 'tau_close'"),
        (("run", *QUICK, "--set", "tau_close"), "expected e.g. --set g_kr=0.1"),
        (("run", *QUICK, "--scale", "i_kr=0.5"), "no channel 'i_kr'"),
        (("run", *QUICK, "--drug", "dofetilid:1"), "nearest is 'dofetilide'"),
        (("run", "--cell", "tentusscher2006-epi", "--drug", "dofetilide:-1"), "greater than"),
        (("run", *QUICK, "--condition", "gout"), "nearest"),
        (("restitution", *QUICK, "--protocol", "s1s3"), "'s1s2' or 'dynamic'"),
        (("info", "no.cellml"), "No such file"),
        (("import", "no.mmt"), "No such file"),
    ],
)
def test_bad_input_is_one_line(arguments, wrong, capsys):
    assert main(["cell", *arguments, "--json"]) == 2
    assert wrong in last_error(capsys)


def test_a_time_step_that_works_is_named(capsys):
    # the steepest slope of the inward current, 1 / tau_in, is fifty times what this step can take
    arguments = ("run", *QUICK, "--beats", "1", "--set", "tau_in=0.001")
    assert main(["cell", *arguments, "--json"]) == 2
    assert "ms works" in last_error(capsys)


def test_a_model_from_a_file_is_paced_like_any_other(capsys, data):
    file = data / "cell" / "mmt" / "beeler-1977-model.mmt"
    found = answer(capsys, "run", "--cell", str(file), "--beats", "1", "--bcl", "600")
    assert 200 < found["apd90_ms"] < 350
    assert get_model(str(file)).name == found["name"]
