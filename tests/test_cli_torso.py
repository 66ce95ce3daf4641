"""`twinheart torso`: what it writes, what it says, what it refuses."""

import contextlib
import io
import json

import numpy as np
import pytest

from twinheart.anatomy import demo_heart
from twinheart.anatomy.body import template_body
from twinheart.anatomy.torso import TorsoRegion
from twinheart.cli import main
from twinheart.ecg import read_electrodes
from twinheart.mesh import TriMesh
from twinheart.mesh.io import read_mesh, write_mesh

COARSE = ("--edge", "40", "--heart-edge", "15")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A coarse torso of the demo heart with V2 moved, and what was printed."""
    folder = tmp_path_factory.mktemp("torso")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        move = ("--move", "V2=0,0,20")
        assert main(["torso", "demo", "-o", str(folder / "t.vtu"), *move, *COARSE, "--json"]) == 0
    return folder, json.loads(printed.getvalue())


@pytest.fixture(scope="module")
def skin_file(tmp_path_factory):
    """The template body of the demo heart as a file."""
    path = tmp_path_factory.mktemp("skin") / "skin.stl"
    write_mesh(path, template_body(demo_heart().mesh)[0])
    return path


def refused(capsys, *arguments) -> str:
    """Run, expect exit status 2 and one line on stderr; return it."""
    assert main(["torso", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("twinheart: note")]
    assert len(lines) == 1
    return lines[0]


def test_four_files_are_written_and_agree(made):
    folder, record = made
    names = {"t.vtu", "t_skin.vtp", "t_electrodes.json", "t.png"}
    assert {path.name for path in folder.iterdir()} == names
    mesh, _ = read_mesh(folder / "t.vtu")
    assert mesh.n_tets == record["n_tets"]
    assert set(mesh.cell_fields["region"]) == {int(tag) for tag in TorsoRegion}
    skin, _ = read_mesh(folder / "t_skin.vtp")
    assert isinstance(skin, TriMesh)
    stored = json.loads((folder / "t_electrodes.json").read_text())
    assert stored["conductivities_s_per_m"].keys() == stored["regions"].keys()
    for name, node in stored["nodes"].items():
        off = np.linalg.norm(mesh.points[node] - stored["electrodes"][name])
        assert off <= stored["max_node_distance_mm"] + 1e-3


def test_electrodes_can_be_read_again(made):
    folder, record = made
    electrodes = read_electrodes(folder / "t_electrodes.json")
    assert electrodes.names == tuple(record["electrodes"])
    assert np.allclose(electrodes.positions, list(record["electrodes"].values()))


def test_the_moved_electrode_went_towards_the_head(made):
    _, record = made
    head = template_body(demo_heart().mesh)[1].axes[2]
    v1, v2 = (np.array(record["electrodes"][name]) for name in ("V1", "V2"))
    assert (v2 - v1) @ head == pytest.approx(20.0, abs=2.0)


def test_a_given_surface_and_measured_electrodes(made, skin_file, tmp_path, capsys):
    folder, record = made
    given = ("--torso", skin_file, "--lungs", "none")
    measured = ("--electrodes", folder / "t_electrodes.json")
    arguments = ["demo", *given, *measured, *COARSE, "-o", tmp_path / "t.vtu", "--json"]
    assert main(["torso", *map(str, arguments)]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["width_mm"] == pytest.approx(record["width_mm"], rel=0.02)
    assert "lungs" not in again["volume_ml"]
    assert np.allclose(
        list(again["electrodes"].values()), list(record["electrodes"].values()), atol=0.01
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--width", "9000"), "width of the body is 9000 mm"),
        (("--width", "110", "--depth", "90"), "torso is too small"),
        (("--heart-at", "0,400,0"), "lies outside the torso"),
        (("--heart-at", "left"), "--heart-at is 'left', expected three numbers"),
        (("--move", "V2"), "expected NAME=left,front,head"),
        (("--move", "V9=0,0,1"), "no electrode 'V9'"),
        (("--move", "V2=0,200,0"), "away from the skin"),
        (("--orientation", "LPS"), "give --torso"),
        (("--lungs", "none", "--lungs", "template"), "stands alone"),
        (("--edge", "2"), "mean edges are"),
        (("-o", "torso.stl"), "ends in .vtu"),
    ],
)
def test_bad_options_are_refused_in_one_line(capsys, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    assert words in refused(capsys, "demo", *options)
    assert list(tmp_path.iterdir()) == []


def test_bad_surfaces_and_electrodes_are_refused(capsys, tmp_path, monkeypatch, skin_file, made):
    monkeypatch.chdir(tmp_path)
    assert "leave out --torso" in refused(capsys, "demo", "--torso", skin_file, "--width", "300")
    assert "such as --orientation LPS" in refused(
        capsys, "demo", "--torso", skin_file, "--heart-at", "0,0,0"
    )
    skin, _ = read_mesh(skin_file, length_unit="mm")
    high = skin.points[skin.triangles].max(axis=(1, 2))
    write_mesh("open.stl", TriMesh(skin.points, skin.triangles[high < np.quantile(high, 0.8)]))
    assert "open.stl: the surface has a hole of" in refused(capsys, "demo", "--torso", "open.stl")
    heart = demo_heart().mesh
    inside = dict(made[1]["electrodes"], V3=heart.points.mean(axis=0).tolist())
    (tmp_path / "inside.json").write_text(json.dumps(inside))
    assert "electrode V3 lies inside the heart" in refused(
        capsys, "demo", "--electrodes", "inside.json"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inside.json", "open.stl"]
