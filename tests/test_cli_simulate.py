"""`twinheart simulate` on small hearts: results, resume, bad input."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from twinheart.anatomy import demo_heart
from twinheart.cli import main
from twinheart.cli.demo import demo_case
from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.generate import slab
from twinheart.mesh.io import read_mesh, write_mesh
from twinheart.tissue.stimulus import stimulus_nodes

PROGRAM = [sys.executable, "-c", "import sys; from twinheart.cli import main; sys.exit(main())"]
STIM = "box:-1,-1,-1,1,9,9"
KEYS = {"lat_min_ms", "lat_max_ms", "activated_fraction", "apd90_mean_ms", "qrs_duration_ms"}
KEYS |= {"files", "result"}


def slab_heart(folder: Path, name: str = "heart.vtu") -> Path:
    """A block of 10 x 2 x 2 mm, fibres along x, with tag 2 in its far half."""
    mesh = slab((10.0, 2.0, 2.0), 0.5)
    far = mesh.points[mesh.tets].mean(axis=1)[:, 0] > 5.0
    fields = {
        "fibre": np.tile([1.0, 0.0, 0.0], (mesh.n_tets, 1)),
        "region": np.where(far, 2, 1).astype(np.int32),
    }
    write_mesh(folder / name, TetMesh(mesh.points, mesh.tets, {}, fields))
    return folder / name


@pytest.fixture(scope="module")
def heart(tmp_path_factory):
    return slab_heart(tmp_path_factory.mktemp("heart"))


@pytest.fixture(scope="module")
def electrodes(tmp_path_factory):
    path = tmp_path_factory.mktemp("electrodes") / "electrodes.json"
    names = ("RA", "LA", "LL", "V1", "V2", "V3", "V4", "V5", "V6")
    positions = {name: [30.0 + 5 * k, 20.0 - 7 * k, 30.0] for k, name in enumerate(names)}
    path.write_text(json.dumps({"units": "mm", "electrodes": positions}))
    return path


def arguments(heart, out, *more, cell="mitchell-schaeffer", stim=STIM, t_end="30"):
    """Options of a quick run without report."""
    return [
        *("simulate", "--heart", str(heart), "--length-unit", "mm", "--cell", cell),
        *("--stim", stim, "--t-end", t_end, "--dt", "0.05", "--out", str(out)),
        *("--snapshot-every", "5", "--no-report", "--electrodes", "none"),
        # Raw conductivities: tuning a velocity would take most of the time of a test.
        *("--conductivity", "niederer2011", *more),
    ]


def last_error(capsys):
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    errors = [line for line in err.splitlines() if line.startswith("twinheart: error: ")]
    assert len(errors) == 1, err
    return errors[0]


def test_beat_from_options(heart, electrodes, tmp_path, capsys):
    out = tmp_path / "beat"
    more = ("--json", "--electrodes", str(electrodes))
    assert main(arguments(heart, out, *more)) == 0
    summary = json.loads(capsys.readouterr().out)
    assert set(summary) >= KEYS
    assert summary["result"] == "successful"
    assert summary["activated_fraction"] == 1.0
    assert 0 <= summary["lat_min_ms"] < summary["lat_max_ms"] < 30
    assert summary["apd90_mean_ms"] is None
    names = {Path(name).name for name in summary["files"]}
    assert names == {
        *("maps.vtu", "case.toml", "ecg.csv", "ecg.hea", "ecg.dat", "vm.h5", "summary.json")
    }
    assert {path.name for path in out.iterdir()} == names
    maps, _ = read_mesh(out / "maps.vtu", length_unit="mm")
    assert np.nanmax(maps.point_fields["lat_ms"]) == pytest.approx(summary["lat_max_ms"])
    with h5py.File(out / "vm.h5") as file:
        assert file["vm"].shape == (7, maps.n_nodes)


def test_case_as_run_gives_the_same_beat(heart, tmp_path, capsys):
    assert main(arguments(heart, tmp_path / "a", "--json")) == 0
    first = json.loads(capsys.readouterr().out)
    again = [str(tmp_path / "a" / "case.toml"), "--out", str(tmp_path / "b"), "--json"]
    assert main(["simulate", *again]) == 0
    second = json.loads(capsys.readouterr().out)
    assert {key: first[key] for key in KEYS - {"files"}} == {
        key: second[key] for key in KEYS - {"files"}
    }


def test_regions_conduct_and_beat_differently(heart, tmp_path, capsys):
    case = tmp_path / "case.toml"
    case.write_text(
        f"""
[heart]
file = "{heart}"
length_unit = "mm"
[cells]
model = "mitchell-schaeffer"
[[cells.regions]]
tag = 2
model = "mitchell-schaeffer"
parameters = {{ tau_close = 40.0 }}
[[conduction.regions]]
tag = 2
cv_l = 0.4
[[stimuli]]
where = "{STIM}"
[simulation]
t_end = 400.0
dt = 0.05
[ecg]
electrodes = "none"
[output]
folder = "out"
snapshot_every = 200.0
paraview = true
report = false
"""
    )
    assert main(["simulate", str(case), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert str(tmp_path / "out" / "vm.vtkhdf") in summary["files"]
    maps, _ = read_mesh(tmp_path / "out" / "maps.vtu", length_unit="mm")
    x, apd90 = maps.points[:, 0], maps.point_fields["apd90_ms"]
    assert apd90[x > 8].mean() < apd90[x < 2].mean() - 50
    velocity = {(c["region"], c["axis"]): c["continuum_velocity"] for c in summary["conduction"]}
    assert velocity[1, "along"] == pytest.approx(0.6)
    assert velocity[2, "along"] == pytest.approx(0.4)


def test_interrupted_run_resumes_to_the_same_numbers(heart, tmp_path, capsys, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(arguments(heart, whole)) == 0
    stop_at(monkeypatch, 10.0)
    assert main(arguments(heart, parts)) == 130
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("twinheart: interrupted at 10.0 ms; the checkpoint is")
    assert str(parts / "checkpoint.h5") in err
    monkeypatch.undo()
    assert main(arguments(heart, parts, "--resume")) == 0
    for name in ("maps.vtu", "vm.h5"):
        assert (parts / name).exists()
    assert not (parts / "checkpoint.h5").exists()
    same_maps = [read_mesh(f / "maps.vtu", length_unit="mm")[0] for f in (whole, parts)]
    for name in ("lat_ms", "repol_ms"):
        np.testing.assert_array_equal(*(m.point_fields[name] for m in same_maps))
    with h5py.File(whole / "vm.h5") as a, h5py.File(parts / "vm.h5") as b:
        np.testing.assert_array_equal(a["t"][:], b["t"][:])
        np.testing.assert_array_equal(a["vm"][:], b["vm"][:])


def stop_at(monkeypatch, time_ms):
    """Press Ctrl-C when the simulation has reached a time."""
    from contextlib import contextmanager

    @contextmanager
    def pressing(title):
        def show(done, total):
            if done >= time_ms:
                raise KeyboardInterrupt

        yield show

    monkeypatch.setattr("twinheart.cli.run.progress", pressing)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_signal_stops_the_program_with_a_checkpoint(heart, tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*PROGRAM, *arguments(heart, out, t_end="1000000")], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (out / "vm.h5.partial").exists() or (out / "vm.h5.partial").stat().st_size < 100_000:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the simulation did not start"
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "run the same command with --resume" in err.splitlines()[-1]
    assert (out / "checkpoint.h5").exists()


def test_resume_without_checkpoint_is_refused(heart, tmp_path, capsys):
    assert main(arguments(heart, tmp_path / "out", "--resume")) == 2
    assert "no checkpoint" in last_error(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--cell", "tentuscher2006-epi"), "the nearest is 'tentusscher2006-epi'"),
        (("--stim", "sphere:50,50,50,1"), "hits no node"),
        (("--stim", "ball:1,2,3"), "is not understood"),
        (("--scheme", "magic"), "unknown scheme 'magic'"),
        (("--scheme", "explicit", "--dt", "0.1", "--max-edge", "0.2"), "too large"),
        (("--conductivity", "niederer"), "the nearest is 'niederer2011'"),
        (("--length-unit", "inch"), "expected 'um', 'mm', 'cm' or 'm'"),
        (("--electrodes", "none.json"), "none.json"),
        (("--heart", "none.vtu"), "none.vtu"),
        (("--cv-l", "0.5"), "cv_l has no effect with mode = 'conductivities'"),
        (("--t-end", "nan"), "'simulation.t_end' is nan"),
    ],
)
def test_bad_option_is_one_line_and_leaves_nothing(
    heart, tmp_path, capsys, monkeypatch, more, message
):
    monkeypatch.chdir(tmp_path)
    given = arguments(heart, tmp_path / "out")
    if more[0] == "--stim":
        given[given.index("--stim") + 1] = more[1]
        more = ()
    assert main([*given, *more]) == 2
    assert message in last_error(capsys)
    assert not (tmp_path / "out").exists()


def test_region_that_is_not_there_is_refused(heart, tmp_path, capsys):
    case = tmp_path / "case.toml"
    case.write_text(f"heart.file = '{heart}'\n[[conduction.regions]]\ntag = 7\ncv_l = 0.3\n")
    assert main(["simulate", str(case)]) == 2
    assert "names tag 7, but the heart has only the tags [1, 2]" in last_error(capsys)


def test_surface_is_refused(tmp_path, capsys):
    surface = TriMesh(np.eye(3) * 80.0, np.array([[0, 1, 2]]))
    write_mesh(tmp_path / "surface.vtp", surface)
    assert main(arguments(tmp_path / "surface.vtp", tmp_path / "out")) == 2
    assert "expected a volume mesh" in last_error(capsys)


def test_electrode_in_the_muscle_is_refused(heart, electrodes, tmp_path, capsys):
    record = json.loads(electrodes.read_text())
    record["electrodes"]["V3"] = [5.1, 1.4, 1.3]
    (tmp_path / "e.json").write_text(json.dumps(record))
    given = arguments(heart, tmp_path / "out", "--electrodes", str(tmp_path / "e.json"))
    assert main(given) == 2
    assert "V3" in last_error(capsys)


def test_folder_that_cannot_be_written_is_refused_at_once(heart, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(arguments(heart, tmp_path / "file" / "out")) == 2
    assert "cannot write results there" in last_error(capsys)


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_full_disk_leaves_no_partial_file(heart, tmp_path):
    # The shell sets the limit: no Python code may run between fork and exec once JAX has threads.
    limited = ["bash", "-c", 'ulimit -f 6; exec "$@"', "bash"]
    done = subprocess.run(
        [*limited, *PROGRAM, *arguments(heart, tmp_path / "out")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("twinheart: error: ")
    assert "Traceback" not in done.stderr
    left = list((tmp_path / "out").iterdir()) if (tmp_path / "out").exists() else []
    assert [path.name for path in left if "partial" in path.name or path.suffix == ".h5"] == []


def test_every_site_of_the_demo_hits_its_endocardium():
    heart = demo_heart()
    surface = heart.mesh.point_fields["surf_class"]
    for stimulus in demo_case()["stimuli"]:
        hit = stimulus_nodes(heart, stimulus["where"])
        wanted = 3 if stimulus["name"].startswith("LV") else 4
        assert (surface[hit] == wanted).any(), stimulus["name"]


def test_a_slab_needs_no_file(tmp_path, capsys):
    more = ("--conductivity", "niederer2011", "--no-report", "--electrodes", "none", "--json")
    where = ("--heart", "slab:6,2,2,0.5", "--stim", "box:0,0,0,1,2,2", "--out", str(tmp_path / "o"))
    cell = ("--cell", "mitchell-schaeffer", "--t-end", "20", "--dt", "0.05")
    assert main(["simulate", *where, *cell, *more]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["n_nodes"] == 13 * 5 * 5
    assert summary["activated_fraction"] == 1.0


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("slab:20,7,3", "expected slab:x,y,z,edge"),
        ("slab:a,7,3,1", "expected slab:x,y,z,edge"),
        ("slab:20,7,3,0.7", "not a multiple of the edge"),
    ],
)
def test_a_wrong_slab_is_refused(text, wrong, tmp_path, capsys):
    given = ("--heart", text, "--stim", "box:0,0,0,1,2,2", "--out", str(tmp_path / "o"))
    assert main(["simulate", *given]) == 2
    assert wrong in last_error(capsys)


def test_eikonal_beat_from_options(heart, electrodes, tmp_path, capsys):
    given = ("--heart", str(heart), "--length-unit", "mm", "--cell", "mitchell-schaeffer")
    how = ("--propagation", "eikonal", "--cv-l", "0.5", "--stim", STIM, "--t-end", "60")
    where = ("--electrodes", str(electrodes), "--out", str(tmp_path / "o"), "--no-report")
    assert main(["simulate", *given, *how, *where, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert set(summary) >= KEYS | {"wall_s"}
    assert summary["propagation"] == "eikonal"
    assert summary["unreached_nodes"] == 0
    assert summary["lat_max_ms"] - summary["lat_min_ms"] == pytest.approx(9.0 / 0.5, abs=0.5)
    assert not (tmp_path / "o" / "vm.h5").exists()
    again = [str(tmp_path / "o" / "case.toml"), "--out", str(tmp_path / "b"), "--json"]
    assert main(["simulate", *again]) == 0
    assert json.loads(capsys.readouterr().out)["lat_max_ms"] == summary["lat_max_ms"]
    for option in (("--resume",), ("--snapshot-every", "5")):
        assert main(["simulate", *given, *how, *where, *option]) == 2
        assert "propagation" in last_error(capsys)


@pytest.mark.parametrize("start", [None, 12.0])
def test_a_tree_from_a_file_starts_at_its_activation(start, heart, tmp_path, capsys):
    import pyvista as pv

    x = np.arange(0.0, 5.0)
    tree = pv.UnstructuredGrid(
        np.array([[2, k, k + 1] for k in range(4)]).ravel(),
        np.full(4, pv.CellType.LINE, np.uint8),
        np.stack([x, 0 * x + 1.0, 0 * x + 1.0], axis=1),
    )
    if start is not None:
        tree.point_data["activation"] = start + x / 2.0
    tree.save(tmp_path / "tree.vtu")
    given = ("--heart", str(heart), "--length-unit", "mm", "--cell", "mitchell-schaeffer")
    how = ("--propagation", "eikonal", "--purkinje", str(tmp_path / "tree.vtu"))
    where = ("--electrodes", "none", "--out", str(tmp_path / "o"), "--no-report", "--json")
    assert main(["simulate", *given, *how, *where]) == 0
    summary = json.loads(capsys.readouterr().out)
    # 4 mm of tree at 2.2 m/s (all within 3 mm of the root start at once), then the junction
    assert summary["lat_min_ms"] == pytest.approx((start or 0.0) + 1.0 / 2.2 + 3.5, abs=0.5)


def test_patient_heart_with_purkinje_trees(data, tmp_path, capsys):
    folder = data / "biv_crt"
    trees = [x for side in ("lv", "rv") for x in ("--purkinje", f"{folder}/purkinje_{side}.vtu")]
    given = ("--heart", f"{folder}/heart.vtu", "--propagation", "eikonal", *trees)
    where = ("--electrodes", f"{folder}/electrodes.json", "--out", str(tmp_path / "o"))
    cell = ("--cell", "mitchell-schaeffer", "--no-report", "--json")
    assert main(["simulate", *given, *where, *cell]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["activated_fraction"] == 1.0
    assert 0.0 < summary["lat_min_ms"] < 20.0
    assert 130.0 < summary["lat_max_ms"] < 230.0  # the left tree starts at 75 ms
    assert 120.0 < summary["qrs_duration_ms"] < 230.0  # broad, as in a left bundle branch block
