"""Strategies and drugs in one table, `twinheart ablate`, files of lesions, bad input."""

import json
from typing import Any

import numpy as np
import pytest
from test_ablation_plan import RADIUS, operation, substrate_of
from test_circuits import SLOW, THICK, below, core
from test_cli_simulate import last_error
from test_screening import CASE

from twinheart.anatomy import Heart, demo_heart
from twinheart.anatomy.scar import with_scar
from twinheart.cell import get_model
from twinheart.cli import main
from twinheart.cli.lesion_file import EXAMPLE, read_lesions
from twinheart.errors import InputError, ModelError
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import slab
from twinheart.mesh.io import read_mesh, write_mesh
from twinheart.planning import Lesion, ablate_tissue
from twinheart.planning.ablation import drugs as drugs_module
from twinheart.planning.ablation.drugs import drugged
from twinheart.planning.ablation.operation import Operation
from twinheart.planning.ablation.reach import Catheter
from twinheart.planning.ablation.table import PLAN, activation, compare_strategies
from twinheart.planning.substrate import build_substrate, substrate_with
from twinheart.tissue import Velocities, WaveTable
from twinheart.tissue.measured_wave import MeasuredWave, measured_wave

LINE = Lesion([[16.0, 0.0, THICK], [16.0, 28.0, THICK]], 2.0, np.inf)
USED = ("isthmus", "homogenisation", PLAN)


@pytest.fixture(scope="module")
def table():
    found = operation(core([(0.0, 2.0)]), (32.0, 28.0))
    return compare_strategies(found, USED, own={"line": [LINE]})


def test_the_plan_burns_least_and_leaves_nothing(table):
    rows = {row.strategy: row for row in table.rows}
    assert [row.strategy for row in table.rows] == ["none", "line", *USED]
    assert rows["none"].vts_left == 1
    assert rows["none"].volume_ml == 0
    for name in USED:
        assert (rows[name].vts_left, rows[name].new_vts) == (0, 0)
        assert rows[PLAN].volume_ml <= rows[name].volume_ml
        assert rows[name].transmurality == 1.0
        # what was burnt of the core is no living tissue
        assert rows[name].volume_ml < rows[name].burnt_ml
    assert rows[PLAN].lost_ml == 0.0
    assert rows["none"].activation_change_ms is None  # a plate has no endocardium
    assert json.dumps([row.record() for row in table.rows])
    # one half of the plate, less half a core; no chamber that has a name
    half = (14 * 28 - 8 * 16) * THICK / 1000
    assert rows["line"].lost_ml == pytest.approx(half, rel=0.1)
    assert table.warnings == ()


def test_a_chamber_that_is_cut_off_is_warned_of():
    mesh = slab((32.0, 28.0, THICK), 1.0)
    right = (mesh.points[:, 0] > 16).astype(np.int32)
    level = np.full(mesh.n_nodes, 0.5)
    named = {"tm": level, "ab": level, "rt_sin": 0 * level, "rt_cos": 1 + 0 * level, "tv": right}
    plain = TetMesh(mesh.points, mesh.tets, named)
    substrate = substrate_of(plain, np.zeros(mesh.n_tets))
    cut = Operation(substrate, below(mesh)[:1], Catheter(RADIUS))
    (warning,) = compare_strategies(cut, (), own={"line": [LINE]}).warnings
    assert warning.startswith("line: this plan isolates the ")
    assert "ventricle" in warning


def test_lesions_make_no_place_earlier_and_spare_what_they_burn():
    """A ball where a normal beat ends."""
    heart = demo_heart()
    flat = WaveTable([20.0], [1.0], [230.0])
    tables = dict.fromkeys(np.unique(heart.regions).tolist(), flat)
    before = build_substrate(heart, conduction=Velocities(0.6, 0.3), tables=tables)
    times = activation(before)
    assert times is not None
    assert np.isfinite(times).all()
    late = int(times.argmax())
    place = heart.mesh.points[late]
    near = np.linalg.norm(heart.mesh.points - place, axis=1)
    assert 20 < times[late] < 200
    after = activation(substrate_with(before, [Lesion(place, 8.0)]))
    assert after is not None
    both = np.isfinite(after)
    assert (after[both] >= times[both] - 1e-3).all()
    assert not both[near < 5].any()
    assert after[both].max() <= times.max()


WAVES = {"plain": (0.5, 200.0), "blocked": (0.4, 230.0)}


def test_drugs_change_velocities_durations_and_refractoriness(monkeypatch):
    """Waves by the block of I_Na, fixed here; fitted durations of the substrate keep their fit."""
    cell: Any = get_model("tentusscher2006-epi")
    mesh = slab((20.0, 20.0, THICK), 1.0)
    scar = np.zeros(mesh.n_tets, dtype=np.int32)
    own = WaveTable([20.0, 300.0], [0.5, 1.0], [220.0, 300.0])
    substrate = build_substrate(
        Heart(with_scar(mesh, scar)), cell, Velocities(0.6, 0.3), tables={0: own}
    )

    def wave(model: Any, cycle):
        velocity, apd = WAVES["plain" if float(model.g_na) == float(cell.g_na) else "blocked"]
        return MeasuredWave(WaveTable([20.0, 300.0], [0.8, 1.0], [apd - 50, apd]), velocity)

    monkeypatch.setattr(drugs_module, "measured_wave", wave)
    under = drugged(substrate, "quinidine")
    assert under.problem.velocity[0] == pytest.approx([0.48, 0.24, 0.24], rel=1e-6)
    # 1.5 times the cell's own duration, as before the drug
    assert under.tables[0].apd == pytest.approx([1.5 * 180, 1.5 * 230])
    assert under.refractory[0] == pytest.approx(1.5 * 180 + 20)
    blocked: Any = under.cells[0]
    assert float(blocked.g_na) < float(cell.g_na)
    assert "quinidine" in under.notes[-1]
    # a drug that blocks nothing but I_Kr leaves the velocity alone
    same = drugged(substrate, "sotalol")
    assert same.problem.velocity[0] == pytest.approx([0.6, 0.3, 0.3], rel=1e-6)
    # what is burnt afterwards keeps the slow waves
    burnt = substrate_with(under, [Lesion([[10.0, 10.0, 1.0]], 3.0)])
    assert burnt.problem.velocity[0] == pytest.approx([0.48, 0.24, 0.24], rel=1e-6)
    with pytest.raises(ModelError, match="unknown drug"):
        drugged(substrate, "aspirin")


def test_a_cell_without_such_channels_has_no_drugs():
    mesh = slab((4.0, 4.0, THICK), 1.0)
    table = WaveTable([20.0], [1.0], [200.0])
    simple = build_substrate(Heart(mesh), "mitchell-schaeffer", tables={0: table})
    with pytest.raises(InputError, match="none of the channels that sotalol blocks"):
        drugged(simple, "sotalol")


@pytest.mark.slow
def test_a_class_i_drug_slows_and_a_class_iii_drug_prolongs():
    cell = get_model("tentusscher2006-epi")
    mesh = slab((4.0, 4.0, THICK), 1.0)
    plain = measured_wave(cell)
    substrate = build_substrate(Heart(mesh), cell, tables={0: plain.table})
    quinidine, sotalol = (drugged(substrate, name, cmax=3.0) for name in ("quinidine", "sotalol"))
    speed = [float(s.problem.velocity[0, 0]) for s in (substrate, quinidine, sotalol)]
    assert speed[1] < 0.97 * speed[0]
    assert speed[2] == pytest.approx(speed[0], rel=0.02)
    for under in (quinidine, sotalol):
        assert under.refractory.max() > substrate.refractory.max() + 5.0


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A plate with a channel whose cells recover early, sites, and lesions as CSV."""
    folder = tmp_path_factory.mktemp("ablate")
    mesh = slab((32.0, 28.0, THICK), 1.0)
    x, y, _ = (mesh.points[mesh.tets].mean(axis=1) - [16, 14, 0]).T
    scar = core([(0.0, 2.0)])(x, y).astype(np.int32)
    write_mesh(folder / "plate.vtu", with_scar(mesh, scar))
    (folder / "case.toml").write_text(CASE.format(file="plate.vtu", speed=SLOW))
    (folder / "sites.csv").write_text("name,x,y,z\nbelow,16,2,1\nleft,2,14,1\n")
    (folder / "own.csv").write_text(
        "lesion,x,y,z,radius,depth\na,14,14,2,3,inf\na,18,14,2,3,inf\nb,30,26,2,2,1\n"
    )
    return folder


def ablate(files, *arguments):
    source = ("--case", str(files / "case.toml"), "--sites", str(files / "sites.csv"))
    return main(["ablate", *source, *map(str, arguments), "--json"])


def test_the_command_compares_plans_and_writes_lesions(files, tmp_path, capsys):
    out = tmp_path / "plan.vtu"
    own = ("--lesions", files / "own.csv")
    assert ablate(files, "--strategy", "isthmus,plan", *own, "--radius", 3.0, "-o", out) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert next(iter(found)) == "warnings"
    assert found["n_circuits"] == 1
    rows = {row["strategy"]: row for row in found["strategies"]}
    assert list(rows) == ["none", "own", "isthmus", "plan"]
    assert rows["none"]["vts_left"] == 1
    for name in ("own", "isthmus", "plan"):
        assert (rows[name]["vts_left"], rows[name]["new_vts"]) == (0, 0)
    assert rows["own"]["lesions"] == 2  # a line and a spot
    assert rows["own"]["transmurality"] < 1.0
    assert rows["plan"]["volume_ml"] <= min(rows[name]["volume_ml"] for name in ("own", "isthmus"))
    assert found["plan"]["stop"] == "no circuit is left"
    assert found["plan"]["steps"][0]["circuits"] == 1
    assert found["plan"]["lesions"][0]["transmural"] is True
    assert found["settings"]["radius_mm"] == 3.0
    assert "version" in str(found["provenance"])
    mesh, _ = read_mesh(out)
    for name in ("own", "isthmus", "plan"):
        burnt = mesh.cell_fields[f"lesion_{name}"]
        assert burnt.max() == rows[name]["lesions"]
    assert (mesh.cell_fields["lesion"] == mesh.cell_fields["lesion_plan"]).all()
    assert set(np.unique(mesh.cell_fields["scar"])) == {0, 1, 2}
    assert "not for diagnosis" in shown.err
    again = read_lesions(tmp_path / "plan_targets.csv").lesions
    assert [lesion.points.shape for lesion in again] == [(1, 3)] * rows["plan"]["lesions"]
    assert isinstance(mesh, TetMesh)
    burnt = ablate_tissue(mesh, again)
    np.testing.assert_array_equal(burnt.number, mesh.cell_fields["lesion"])
    # the file is the ablated heart to whatever reads it: nothing is left to find, and it is said
    (tmp_path / "after.toml").write_text(CASE.format(file=out, speed=SLOW))
    after = ("--case", str(tmp_path / "after.toml"), "--sites", str(files / "sites.csv"))
    assert main(["screen", *after, "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["n_circuits"] == 0
    assert "do not conduct" in shown.err
    assert main(["ablate", *after]) == 2
    assert "the heart has lesions already" in last_error(capsys)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--strategy", "pvi"), "--strategy is 'pvi'"),
        (("--drugs", "aspirin"), "--drugs is 'aspirin'"),
        (("--induce", "nothing"), "nothing"),
        (("--radius", "-1"), "radius of -1.0 mm"),
        (("--access", "inside"), "access is 'inside'"),
        (("--out", "x.stl"), "expected a name ending in .vtu"),
        (("--strategy", "none", "--lesions", "OUTSIDE"), "lies outside the heart"),
        (("--lesions", "MISSING"), "cannot read lesions"),
    ],
)
def test_bad_input_is_told_in_a_line(files, tmp_path, capsys, arguments, said):
    (tmp_path / "far.csv").write_text("x,y,z\n500,0,0\n")
    places = {"OUTSIDE": tmp_path / "far.csv", "MISSING": tmp_path / "none.csv"}
    assert ablate(files, *(places.get(a, a) for a in arguments)) == 2
    assert said in last_error(capsys)


def test_files_of_lesions_are_read_and_refused(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(EXAMPLE)
    found = read_lesions(path)
    assert found.lesions[0].points.shape == (2, 3)
    assert found.keep_away[0].distance == 5.0
    for text, said in (
        ("", "no lesions"),
        ("[[lesion]]\npoints = [[1.0, 2.0]]", "not x, y, z"),
        ("[[lesion]]\npoints = [[1.0, 2.0, 3.0]]\ndepth = 2.0\ntransmural = true", "give one"),
        ("[[lesion]]\npoints = [[1.0, 2.0, 3.0]]\nradius = -1.0", "lesion.1.radius"),
        ("[[lesion]]\npoints = [[1.0, 2.0, 3.0]]\nsize = 1.0", "lesion.1.size"),
        ("[[lesion", "not a TOML file"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=said):
            read_lesions(path)
    table = tmp_path / "plan.csv"
    table.write_text("x,y,z,radius,depth\n1,2,3,,\n4,5,6,2,inf\n")
    first, second = read_lesions(table).lesions
    assert (first.radius, first.depth) == (3.5, None)
    assert (second.radius, second.depth) == (2.0, np.inf)
    for text, said in (("x,y,z\n", "0 lesions"), ("x,y\n1,2\n", "z = ''"), ("x,y,z\n1,b,3", "y =")):
        table.write_text(text)
        with pytest.raises(InputError, match=said):
            read_lesions(table)
