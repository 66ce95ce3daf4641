"""The case file: every key is checked, documented and written back."""

import tomllib
from pathlib import Path

import pytest

from twinheart.cli.case import Case, check_case, read_case, section_of
from twinheart.cli.case_text import case_toml, example_case, reference_page
from twinheart.cli.small_file import MAX_BYTES
from twinheart.errors import InputError

DOCS = Path(__file__).resolve().parents[1] / "docs"


def write(folder, text):
    path = folder / "case.toml"
    path.write_text(text)
    return path


def test_example_runs_as_written_and_shows_the_defaults(tmp_path):
    case = read_case(write(tmp_path, example_case()))
    default = check_case({"output": {"folder": str(tmp_path / "out")}, "stimuli": [{}]})
    assert case == default


def test_example_is_complete_when_everything_is_switched_on():
    lines = [
        line[1:] if line.startswith("#") and not line.startswith("# ") else line
        for line in example_case().splitlines()
    ]
    table = tomllib.loads("\n".join(lines))
    assert check_case(table).heart.length_unit == "mm"
    missing = [name for name in documented_keys(Case) if name not in flat(table)]
    assert missing == []


def documented_keys(model, path=""):
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        if section:
            yield from documented_keys(section, f"{path}{name}.")
        else:
            yield path + name


def flat(table, path=""):
    names = set()
    for name, value in table.items():
        inner = value[0] if isinstance(value, list) and isinstance(value[0], dict) else value
        is_table = isinstance(inner, dict) and name not in ("parameters", "channels")
        names |= flat(inner, f"{path}{name}.") if is_table else {path + name}
    return names


def test_every_key_is_documented():
    undocumented = [
        name
        for section in sections(Case)
        for name, field in section.model_fields.items()
        if not field.description or not field.description.endswith((".", ")"))
    ]
    assert undocumented == []


def sections(model):
    yield model
    for field in model.model_fields.values():
        if inner := section_of(field.annotation):
            yield from sections(inner)


def test_reference_page_is_in_step():
    committed = (DOCS / "case_file.md").read_text()
    assert committed == reference_page(), "run python -m twinheart.cli.case_text"


def test_case_survives_writing_and_reading(tmp_path):
    case = check_case(
        {
            "title": 'a "quoted" title \\ with backslash\nand é',
            "cells": {
                "parameters": {"g_ks": 0.1},
                "regions": [{"tag": 2, "model": "m", "parameters": {"g_kr": 1e-9}}],
            },
            "conduction": {"regions": [{"tag": 2, "cv_l": 0.1}, {"tag": 3, "cv_t": 0.1}]},
            "stimuli": [{"where": "apex"}, {"where": "region:3", "period": 400.0, "count": 3}],
        }
    )
    assert check_case(tomllib.loads(case_toml(case))) == case
    raw = check_case({"conduction": {"mode": "conductivities", "sigma_il": 0.2}})
    assert check_case(tomllib.loads(case_toml(raw))) == raw


def test_paths_are_relative_to_the_case_file(tmp_path):
    text = """
[heart]
file = "../hearts/a.vtu"
[ecg]
electrodes = "e.json"
[[stimuli]]
where = "nodes:apex.vtx"
"""
    case = read_case(write(tmp_path, text))
    assert Path(case.heart.file) == tmp_path / "../hearts/a.vtu"
    assert Path(case.ecg.electrodes) == tmp_path / "e.json"
    assert case.stimuli[0].where == f"nodes:{tmp_path / 'apex.vtx'}"
    assert case.output.folder == "out" or Path(case.output.folder).is_absolute()


def test_options_replace_keys_of_the_file(tmp_path):
    path = write(tmp_path, "[simulation]\nt_end = 100\ndt = 0.01\n")
    case = read_case(path, {"simulation.t_end": 5.0, "heart.file": "demo"})
    assert (case.simulation.t_end, case.simulation.dt) == (5.0, 0.01)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[simulation]\ntend = 3", r"unknown key 'simulation.tend'; the nearest is 't_end'"),
        ("[simulaton]\nt_end = 3", r"unknown key 'simulaton'; the nearest is 'simulation'"),
        ("[[stimuli]]\nwere = 'apex'", r"unknown key 'stimuli\[1\].were'; the nearest is 'where'"),
        ("[ecg]\nzzz = 1", r"unknown key 'ecg.zzz'; valid here: electrodes"),
        ("[simulation]\nt_end = '3'", r"'simulation.t_end' is '3', expected a number \[ms\]"),
        ("[simulation]\ndt = nan", r"'simulation.dt' is nan, expected a finite number"),
        ("[simulation]\ndt = -0.02", r"'simulation.dt' is -0.02, expected greater than 0 \[ms\]"),
        ("[simulation]\ndt = true", r"'simulation.dt' is True, expected a number"),
        (
            "[heart]\nfibre_direction = [1, 2]",
            r"'heart.fibre_direction' is \[1, 2\], expected a list of three",
        ),
        ("[heart]\nlength_unit = 'inch'", r"expected 'um', 'mm', 'cm' or 'm'"),
        ("heart = 3", r"'heart' is 3, expected a table"),
        ("stimuli = 3", r"'stimuli' is 3, expected a list"),
        ("[[cells.regions]]\nmodel = 'm'", r"'cells.regions\[1\].tag' is missing"),
        ("[conduction]\nsigma_il = 0", r"'conduction.sigma_il' is 0, expected greater than 0"),
        (
            "[conduction]\nmode = 'conductivities'\ncv_l = 0.5",
            r"\[conduction\] cv_l has no effect with mode = 'conductivities'",
        ),
        ("[simulation]\ntend = 1\ndt = -1", r"tend'.*\(1 more to mend\)"),
        ("x = ", r"not a TOML file"),
        ("x = " + "[" * 5000 + "]" * 5000, r"not a TOML file"),
    ],
)
def test_bad_case_is_refused_in_one_line(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        read_case(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_file_that_is_no_case_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot read the case file: No such file"):
        read_case(tmp_path / "none.toml")
    with pytest.raises(InputError, match="cannot read the case file: Is a directory"):
        read_case(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a TOML file"):
        read_case(tmp_path / "binary.toml")
    (tmp_path / "huge.toml").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(InputError, match="larger than"):
        read_case(tmp_path / "huge.toml")


def test_option_that_meets_a_value_is_refused():
    with pytest.raises(InputError, match="'heart' is a value"):
        check_case({"heart": 3}, {"heart.file": "demo"})


def test_frames_of_an_eikonal_beat_are_refused_and_not_asked_for_again():
    eikonal = {"simulation": {"propagation": "eikonal"}}
    with pytest.raises(InputError, match="snapshot_every has no effect with"):
        check_case(eikonal | {"output": {"snapshot_every": 5.0}})
    case = check_case(eikonal)
    assert check_case(tomllib.loads(case_toml(case))) == case


def test_unknown_propagation_is_refused():
    with pytest.raises(InputError, match="is 'fast', expected 'monodomain'"):
        check_case({"simulation": {"propagation": "fast"}})
