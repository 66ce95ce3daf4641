"""`twinheart plan`: from a mesh with scar to the report, going on, and what a change touches."""

import json

import numpy as np
import pytest
from test_cli_simulate import last_error
from test_screening import CASE

from twinheart.anatomy import Heart, mesh_of_heart
from twinheart.anatomy.scar import with_scar
from twinheart.cli import main
from twinheart.cli.plan_report import write_plan_report
from twinheart.mesh.generate import slab
from twinheart.mesh.io import read_mesh, write_mesh
from twinheart.planning.risk import measures as risk

SPEED = 0.2
PLAN = """
[plan]
sites = "sites.csv"
preset = "{preset}"
strategies = "isthmus,homogenisation"
radius = 3.0
ensemble = {members}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A plate with a channel of 4 x 16 mm through 20 x 16 mm of core."""
    folder = tmp_path_factory.mktemp("plan")
    mesh = slab((32.0, 28.0, 2.0), 1.0)
    x, y, _ = np.abs(mesh.points[mesh.tets].mean(axis=1) - [16.0, 14.0, 1.0]).T
    scar = np.where((x < 10) & (y < 8), np.where(x < 2, 1, 2), 0).astype(np.int32)
    write_mesh(folder / "eight.vtu", mesh_of_heart(Heart(with_scar(mesh, scar))))
    (folder / "sites.csv").write_text("below, 16, 2, 1\nbeside, 2, 14, 1\n")
    return folder


def case(files, name="case.toml", *, members=2, preset="cardiomat2025", more=""):
    text = CASE.format(file="eight.vtu", speed=SPEED) + more
    (files / name).write_text(text + PLAN.format(members=members, preset=preset))
    return str(files / name)


def run(path, out, capsys):
    assert main(["plan", path, "--out", str(out), "--workers", "1", "--json"]) == 0
    said = capsys.readouterr()
    return json.loads(said.out), said.err


def done(found):
    return {row["stage"]: row["done_before"] for row in found["stages"]}


def test_a_plan_goes_through_goes_on_and_does_again_what_changed(files, tmp_path, capsys):
    out = tmp_path / "out"
    found, err = run(case(files), out, capsys)
    assert found["n_circuits"] == 1
    assert found["values"] == "population values"
    assert found["best_strategy"]["strategy"] == "isthmus"
    assert found["best_strategy"]["vts_left"] == 0
    assert not any(done(found).values())
    assert "plan: screen (4 of 8)" in err
    page = (out / "report.html").read_text()
    for words in ("Population values", "One circuit would sustain", "cardiomat2025", "isthmus"):
        assert words in page
    assert str(tmp_path) not in page  # a path may name a patient
    assert not list(out.glob(".*"))  # nothing half-written
    screen = json.loads((out / "screen.json").read_text())["record"]
    # as long as at rest, and a little longer: it comes back before velocities have recovered
    assert 0.999 < screen["circuits"][0]["cycle_length_ms"] / (48 / SPEED) < 1.02
    burnt, _ = read_mesh(out / "lesions.vtu")
    assert burnt.cell_fields["lesion_isthmus"].any()

    again, err = run(case(files), out, capsys)
    assert all(done(again).values())
    assert err.count("done before") == 8
    changing = ("stages", "wall_s")
    assert {k: v for k, v in again.items() if k not in changing} == {
        k: v for k, v in found.items() if k not in changing
    }

    more, _ = run(case(files, members=3), out, capsys)
    assert [name for name, before in done(more).items() if not before] == ["risk", "report"]
    assert more["circuit_share"]["of"] == 3
    assert len(json.loads((out / "members.json").read_text())["members"]) == 3

    none, _ = run(case(files, members=3, preset="none"), out, capsys)
    assert "induction" not in done(none)
    assert none["inducible_sites"] is None
    assert [name for name, before in done(none).items() if not before] == ["risk", "report"]

    # what building the mesh left is told, first where it matters
    records = {file.stem: json.loads(file.read_text()).get("record") for file in out.glob("*.json")}
    records["mesh"] |= {"warnings": ["the mesh has holes"], "remarks": ["51 holes through walls"]}
    page = write_plan_report(out, records, {}).read_text()
    assert "The mesh has holes" in page
    assert "51 holes through walls" in page


def test_an_interrupted_plan_goes_on(files, tmp_path, capsys, monkeypatch):
    out, path = tmp_path / "out", case(files, "cut.toml", preset="none")
    measured, calls = risk.measure_heart, []

    def cut(*given, **more):
        calls.append(1)
        if len(calls) == 3:  # the heart and one member are done
            raise KeyboardInterrupt
        return measured(*given, **more)

    monkeypatch.setattr(risk, "measure_heart", cut)
    assert main(["plan", path, "--out", str(out)]) == 130
    assert "run the same command to go on" in capsys.readouterr().err
    assert not (out / "report.html").exists()
    found, _ = run(path, out, capsys)
    assert [name for name, before in done(found).items() if not before] == ["risk", "report"]
    assert len(calls) == 5  # the heart again, and the second member


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('plan.thickness = true\nplan.paint = "a.toml"', "name one of them"),
        ('plan.convention = "roes"', "has no effect"),
        ('plan.presets = "x"', "nearest is 'preset'"),
        ('plan.access = "outside"', "plan.access"),
    ],
)
def test_what_contradicts_itself_is_refused(files, tmp_path, capsys, more, words):
    path = files / "odd.toml"
    path.write_text(CASE.format(file="eight.vtu", speed=SPEED) + more + "\n")
    assert main(["plan", str(path), "--out", str(tmp_path / "out")]) == 2
    assert words in last_error(capsys)
    assert not (tmp_path / "out").exists()


def test_unknown_names_are_refused_before_the_work(files, tmp_path, capsys):
    for option in ("--preset", "nothing"), ("--out", "/proc/no"):
        arguments = ["plan", case(files), "--out", str(tmp_path / "out"), *option]
        assert main(arguments) == 2
        assert last_error(capsys)
    assert not (tmp_path / "out").exists()
