"""`twinheart calibrate sbc`: it goes on where it stopped, and refuses what belongs to another."""

import json

import pytest
from typer.testing import CliRunner

from twinheart.calibration.sbc import Trial, run_cases, stored
from twinheart.cli.app import app, main
from twinheart.errors import InputError


def case(number):
    return {"case": number, "truth": [0.0], "rank": [0.4], "mean": [0.1], "sd": [0.5]}


def test_cases_are_added_to_the_file_and_read_back(tmp_path):
    file, trial = tmp_path / "sbc.jsonl", Trial(seed=3)
    assert stored(file, trial) == []
    with file.open("a") as lines:
        lines.write(json.dumps(case(1)) + "\n" + json.dumps(case(0)) + "\n")
    assert [one["case"] for one in stored(file, trial)] == [1, 0]
    # nothing is missing: nothing runs, and the order is that of the numbers
    assert [one["case"] for one in run_cases(trial, 2, file)] == [0, 1]


def test_a_line_that_was_cut_off_is_run_again(tmp_path):
    file, trial = tmp_path / "sbc.jsonl", Trial()
    stored(file, trial)
    with file.open("a") as lines:
        lines.write(json.dumps(case(0)) + "\n" + json.dumps(case(1))[:20])
    for _ in range(2):
        assert [one["case"] for one in stored(file, trial)] == [0]
    with file.open("a") as lines:
        lines.write(json.dumps(case(1)) + "\n")
    assert [one["case"] for one in stored(file, trial)] == [0, 1]


@pytest.mark.parametrize("text", ['{"test": {}}\n', "no json\n", '{"case": 1}\n'])
def test_file_of_something_else_is_refused(tmp_path, text):
    file = tmp_path / "sbc.jsonl"
    file.write_text(text)
    with pytest.raises(InputError, match=r"sbc\.jsonl"):
        stored(file, Trial())


def test_file_of_another_seed_is_refused(tmp_path):
    file = tmp_path / "sbc.jsonl"
    stored(file, Trial(seed=1))
    with pytest.raises(InputError, match="belongs to a test"):
        stored(file, Trial(seed=2))


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["--cases", "3"], "--cases is 3, expected 10 to"),
        (["--sampled", "500"], "--sampled is 500, expected 0 to 200"),
        (["--workers", "0"], "--workers is 0"),
    ],
)
def test_bad_numbers_are_refused_in_one_line(tmp_path, capsys, options, wrong):
    assert main(["calibrate", "sbc", "--out", str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert wrong in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_ten_patients(tmp_path):
    words = ["calibrate", "sbc", "--cases", "10", "--sampled", "0", "--workers", "2", "--json"]
    ended = CliRunner().invoke(app, [*words, "--out", str(tmp_path)])
    found = json.loads(ended.stdout)
    assert found["cases"] == 10
    assert found["consistent"]  # ten cases reject gross errors only
    assert found["contraction"]["cv_t"] < 0.5
