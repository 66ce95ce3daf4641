"""`twinheart risk --heart`: figures of a plate, the same seed again, masses, bad input."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from test_cli_simulate import last_error
from test_screening import CASE

from twinheart.anatomy import Heart, mesh_of_heart
from twinheart.anatomy.scar import with_scar
from twinheart.cli import main
from twinheart.cli.heart_risk import scar_masses, with_scar_of
from twinheart.errors import InputError
from twinheart.mesh.generate import slab
from twinheart.mesh.io import write_mesh

SPEED = 0.2


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A channel of 4 x 16 mm through 20 x 16 mm of core; 16 mm in it and 32 mm around."""
    folder = tmp_path_factory.mktemp("risk")
    mesh = slab((32.0, 28.0, 2.0), 1.0)
    x, y, _ = np.abs(mesh.points[mesh.tets].mean(axis=1) - [16.0, 14.0, 1.0]).T
    scar = np.where((x < 10) & (y < 8), np.where(x < 2, 1, 2), 0).astype(np.int32)
    write_mesh(folder / "eight.vtu", mesh_of_heart(Heart(with_scar(mesh, scar))))
    (folder / "case.toml").write_text(CASE.format(file="eight.vtu", speed=SPEED))
    (folder / "sites.csv").write_text("below, 16, 2, 1\nbeside, 2, 14, 1\n")
    return folder


def arguments(files, *more):
    given = ("--case", files / "case.toml", "--sites", files / "sites.csv")
    return ["risk", *map(str, given), *map(str, more)]


def told(files, capsys, *more):
    assert main(arguments(files, "--json", *more)) == 0
    said = capsys.readouterr()
    return json.loads(said.out), said.err


def test_measures_come_with_their_intervals_and_the_same_seed_gives_the_same(files, capsys):
    found, err = told(files, capsys, "--ensemble", 4, "--seed", 3)
    assert found["n_circuits"] == 1
    # as long as at rest, and a little longer: it comes back before velocities have recovered
    assert 0.999 < found["circuits"][0]["cycle_length_ms"] / (48 / SPEED) < 1.02
    assert found["values"] == "population values"
    assert "research software" in err
    rows = {row["measure"]: row for row in found["measures"]}
    cycle = rows["shortest_cycle_ms"]
    assert cycle["value"] == found["circuits"][0]["cycle_length_ms"]
    assert cycle["known"] == sum(value is not None for value in cycle["values"])
    spread = rows["activation_ms"]
    assert spread["low"] < spread["median"] < spread["high"]
    assert spread["width"] == pytest.approx(spread["high"] - spread["low"])
    assert len(spread["values"]) == found["ensemble"]["members"] == 4
    assert found["circuit_share"]["of"] == 4
    assert found["inducibility"] is None
    names = {row["name"] for row in found["ensemble"]["parameters"]}
    assert names == {"cv_l", "cv_t", "apd", "border.speed", "border.apd"}
    assert found["seed"] == found["provenance"]["seed"] == 3
    assert any("priors" in note for note in found["notes"])
    # no surfaces: a normal beat has nowhere to start
    assert any("no ECG was simulated" in note for note in found["scar_and_ecg_notes"])
    again, _ = told(files, capsys, "--ensemble", 4, "--seed", 3)
    for record in (found, again):
        record.pop("wall_s")
    assert again == found
    other, _ = told(files, capsys, "--ensemble", 4, "--seed", 4)
    assert other["measures"] != found["measures"]


def test_members_are_kept_in_a_file(files, capsys, tmp_path):
    file = tmp_path / "members.json"
    one, _ = told(files, capsys, "--ensemble", 1, "--resume", file)
    assert len(json.loads(file.read_text())["members"]) == 1
    two, _ = told(files, capsys, "--ensemble", 2, "--resume", file)
    assert two["measures"][0]["values"][:1] == one["measures"][0]["values"]
    assert len(json.loads(file.read_text())["members"]) == 2


def test_it_can_be_read(files, capsys):
    assert main(arguments(files, "--ensemble", 0)) == 0
    said = capsys.readouterr().out
    assert "path_mm" not in said
    assert "shortest_cycle_ms" in said


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--score", "hcm-risk-scd"), "not several"),
        (("--induce-members",), "--preset"),
        (("--preset", "nothing"), "unknown protocol"),
        (("--ensemble", 20_000), "members"),
        (("--heart", "a.vtu"), "give one of"),
        (("--ecg", "nowhere.csv", "--ensemble", "0"), "nowhere.csv"),
    ],
)
def test_bad_options_are_said_in_one_line(files, capsys, more, words):
    assert main(arguments(files, *more)) == 2
    assert words in last_error(capsys)


def test_masses_without_an_image_are_those_of_the_classes(files):
    mesh = slab((10.0, 10.0, 10.0), 1.0)
    half = (mesh.points[mesh.tets].mean(axis=1)[:, 0] < 5).astype(np.int32) * 2
    rows, notes = scar_masses(with_scar(mesh, half))
    assert [round(row.core_g, 6) for row in rows] == [0.525]  # 0.5 ml at 1.05 g/ml
    assert "--lge" in notes[0]
    assert scar_masses(mesh) == ([], [])


def test_scar_goes_only_onto_the_mesh_that_was_calibrated(files):
    other = Heart(slab((32.0, 28.0, 2.0), 2.0))
    twin = SimpleNamespace(twin=SimpleNamespace(heart=other))
    with pytest.raises(InputError, match="is not that of the twin"):
        with_scar_of(twin, str(files / "eight.vtu"))  # type: ignore[arg-type]
