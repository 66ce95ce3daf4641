"""`twinheart leadfield`: what it writes, what it says, what it refuses."""

import json

import numpy as np
import pytest

from twinheart.anatomy import Heart, read_heart
from twinheart.anatomy.root_sites import root_sites
from twinheart.anatomy.torso import TorsoRegion
from twinheart.cell import get_model
from twinheart.cli import main
from twinheart.ecg import lead_field, read_ecg, read_electrodes, twelve_lead
from twinheart.ecg.body_map import torso_lead_field
from twinheart.ecg.stored_field import read_lead_field
from twinheart.ecg.torso_field import heart_tensors, torso_conductor
from twinheart.errors import InputError
from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.generate import slab
from twinheart.mesh.io import read_mesh, write_mesh
from twinheart.mesh.quality import boundary_triangles
from twinheart.tissue import (
    NIEDERER_2011,
    Sites,
    Velocities,
    arrival,
    build_eikonal,
    fast_endocardium,
)

SIDE, HEART = 200.0, 80.0  # mm: a body and a heart whose unit is told from their size


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A box around a block of muscle, with electrodes on its skin, as files."""
    folder = tmp_path_factory.mktemp("leadfield")
    box = slab((SIDE, SIDE, SIDE), 20.0)
    inside = (np.abs(box.points[box.tets].mean(axis=1) - SIDE / 2) < HEART / 2).all(axis=1)
    region = np.where(inside, int(TorsoRegion.HEART), int(TorsoRegion.TORSO))
    nodes, place = np.unique(box.tets[inside], return_inverse=True)
    tets = place.reshape(-1, 4)
    fibre = np.tile([1.0, 0.0, 0.0], (len(tets), 1))
    tags = (np.arange(len(tets)) < 40).astype(np.int32)
    muscle = TetMesh(box.points[nodes], tets, {}, {"fibre": fibre, "region": tags})
    write_mesh(folder / "heart.vtu", muscle)
    write_mesh(folder / "torso.vtu", TetMesh(box.points, box.tets, {}, {"region": region}))
    places = {
        "RA": [0, 100, 190],
        "LA": [200, 100, 191.0],
        "LL": [190, 100, 0],
        "V1": [70, 200, 110],
        **{f"V{k}": [70 + 20 * k, 200, 110] for k in range(2, 7)},
    }
    record = {"units": "mm", "electrodes": places}
    (folder / "torso_electrodes.json").write_text(json.dumps(record))
    return folder


def run(capsys, *arguments) -> dict:
    assert main(["leadfield", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments) -> str:
    """Run, expect exit status 2 and one line on stderr; return it."""
    assert main(["leadfield", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("twinheart: note")]
    assert len(lines) == 1
    return lines[0]


def test_the_file_has_the_lead_field_of_the_torso(files, tmp_path, capsys):
    out = tmp_path / "leads.h5"
    record = run(capsys, "--heart", files / "heart.vtu", "--torso", files / "torso.vtu", "-o", out)
    assert record["medium"] == "torso"
    assert record["heart_is_part_of_torso"]
    assert record["electrodes"] == ["RA", "LA", "LL", *(f"V{k}" for k in range(1, 7))]
    assert record["files"] == {"lead_field": str(out)}
    assert [path.name for path in tmp_path.iterdir()] == ["leads.h5"]
    heart = read_heart(files / "heart.vtu")[0]
    sigma_i, bulk = heart_tensors(heart, NIEDERER_2011)
    electrodes = read_electrodes(files / "torso_electrodes.json", required=())
    field = read_lead_field(out, heart, sigma_i=sigma_i, electrodes=electrodes)
    conductor = torso_conductor(read_mesh(files / "torso.vtu")[0], heart, bulk)
    expected = torso_lead_field(conductor, heart, electrodes, sigma_i)
    assert (field.weights == expected.weights).all()


def test_options_reach_the_solver(files, tmp_path, capsys):
    moved = tmp_path / "moved.json"
    moved.write_text(json.dumps({"electrodes": {"V1": [70, 208.0, 110], "LA": [200, 90, 150]}}))
    common = ("--heart", files / "heart.vtu", "--torso", files / "torso.vtu")
    options = ("--electrodes", moved, "--snap", "--around", 25, "--organ", "torso=0.3")
    options += ("--non-conducting", 1)
    record = run(capsys, *common, *options, "-o", tmp_path / "leads.h5")
    assert record["max_snapped_mm"] == pytest.approx(8.0)
    assert record["conductivities_s_per_m"]["1"] == pytest.approx(0.3)
    field = read_lead_field(tmp_path / "leads.h5")
    assert field.skin is not None
    assert len(field.skin.points) == record["skin_sites"] > 5
    heart = read_heart(files / "heart.vtu")[0]
    dead = np.setdiff1d(heart.mesh.tets[heart.regions == 1], heart.mesh.tets[heart.regions == 0])
    assert (field.weights[:, dead] == 0).all()


def test_an_endless_conductor_is_had_by_asking(files, tmp_path, capsys):
    electrodes = files / "torso_electrodes.json"
    common = ("--heart", files / "heart.vtu", "--unbounded", "--electrodes", electrodes)
    record = run(capsys, *common, "-o", tmp_path / "leads.h5")
    assert record["medium"] == "unbounded"
    heart = read_heart(files / "heart.vtu")[0]
    expected = lead_field(
        heart.mesh, read_electrodes(electrodes, required=()), heart_tensors(heart, NIEDERER_2011)[0]
    )
    assert (read_lead_field(tmp_path / "leads.h5", heart).weights == expected).all()


def test_a_simulation_takes_a_stored_lead_field(files, tmp_path, capsys):
    """That of the endless conductor gives the ECG as without one; that of the torso another."""
    heart, electrodes = files / "heart.vtu", files / "torso_electrodes.json"
    simulate = ["simulate", "--heart", str(heart), "--cell", "mitchell-schaeffer", "--t-end", "200"]
    simulate += ["--stim", "sphere:100,100,70,15", "--propagation", "eikonal", "--no-report"]
    leads = {}
    for name, how in (("endless", ["--unbounded"]), ("torso", ["--torso", files / "torso.vtu"])):
        leads[name] = tmp_path / f"{name}.h5"
        run(capsys, "--heart", heart, *how, "--electrodes", electrodes, "-o", leads[name])
    given = {
        "none": ["--electrodes", str(electrodes)],
        "endless": ["--lead-field", str(leads["endless"])],
        "torso": ["--lead-field", str(leads["torso"])],
    }
    ecg = {}
    for name, options in given.items():
        assert main([*simulate, *options, "--out", str(tmp_path / name)]) == 0
        ecg[name] = read_ecg(tmp_path / name / "ecg.csv").ecg.signals
    peak = np.abs(ecg["none"]).max()
    assert np.abs(ecg["endless"] - ecg["none"]).max() < 1e-3 * peak
    assert np.abs(ecg["torso"] - ecg["none"]).max() > 0.3 * peak
    capsys.readouterr()
    other = [*simulate, "--lead-field", str(leads["torso"]), "--conductivity", "niederer2011"]
    other[2] = "slab:20,7,3,0.5"
    assert main([*other, "--out", str(tmp_path / "other")]) == 2
    assert "the lead field belongs to a heart of" in capsys.readouterr().err


def test_what_cannot_be_used_is_refused_in_one_line(files, tmp_path, capsys):
    heart, torso = ("--heart", files / "heart.vtu"), ("--torso", files / "torso.vtu")
    out = ("-o", tmp_path / "leads.h5")
    assert "no torso is given: make one with" in refused(capsys, *heart, *out)
    assert "leave out one of the two" in refused(capsys, *heart, *torso, "--unbounded", *out)
    assert "ends in .h5" in refused(capsys, *heart, *torso, "-o", tmp_path / "leads.txt")
    assert "expected one of niederer2011" in refused(
        capsys, *heart, *torso, "--conductivity", "mine", *out
    )
    assert "the heart has no region 9" in refused(
        capsys, *heart, *torso, "--non-conducting", 9, *out
    )
    assert "--organ is 'liver=0.1'" in refused(capsys, *heart, *torso, "--organ", "liver=0.1", *out)
    assert "--organ is 'heart=0.1'" in refused(capsys, *heart, *torso, "--organ", "heart=0.1", *out)
    assert "--around is -1 mm" in refused(capsys, *heart, *torso, "--around", -1, *out)
    assert "no electrodes are given" in refused(capsys, *heart, "--unbounded", *out)
    assert not list(tmp_path.iterdir())


def test_places_and_meshes_that_do_not_fit_are_refused(files, tmp_path, capsys):
    out = ("-o", tmp_path / "leads.h5")
    heart, torso = ("--heart", files / "heart.vtu"), ("--torso", files / "torso.vtu")
    far = tmp_path / "far.json"
    far.write_text(json.dumps({"electrodes": {"V1": [70, 245.0, 110]}}))
    said = refused(capsys, *heart, *torso, "--electrodes", far, *out)
    assert "electrode V1 lies 45.0 mm outside the torso, at most 3 mm are bridged" in said
    said = refused(capsys, *heart, *torso, "--electrodes", far, "--snap", *out)
    assert "at most 20 mm are bridged" in said
    body = read_mesh(files / "torso.vtu")[0]
    write_mesh(tmp_path / "away.vtu", TetMesh(body.points + 400.0, body.tets, {}, body.cell_fields))
    electrodes = ("--electrodes", files / "torso_electrodes.json")
    said = refused(capsys, *heart, "--torso", tmp_path / "away.vtu", *electrodes, *out)
    assert "the heart lies outside the torso" in said

    write_mesh(tmp_path / "skin.vtp", TriMesh(body.points, boundary_triangles(body.tets)))
    said = refused(capsys, *heart, "--torso", tmp_path / "skin.vtp", *electrodes, *out)
    assert "is a surface, expected tetrahedra of the whole body" in said
    two = np.concatenate([body.tets, body.tets + body.n_nodes])
    fields = {"region": np.tile(body.cell_fields["region"], 2)}
    apart = TetMesh(np.concatenate([body.points, body.points + 500.0]), two, {}, fields)
    write_mesh(tmp_path / "apart.vtu", apart)
    said = refused(capsys, *heart, "--torso", tmp_path / "apart.vtu", *electrodes, *out)
    assert "the torso has 2 parts that do not touch" in said
    assert not (tmp_path / "leads.h5").exists()


def test_lead_fields_of_other_hearts_are_not_taken(files, tmp_path, capsys):
    out = tmp_path / "leads.h5"
    run(capsys, "--heart", files / "heart.vtu", "--torso", files / "torso.vtu", "-o", out)
    other = Heart(slab((80.0, 80.0, 80.0), 10.0))
    with pytest.raises(InputError, match="does not fit"):
        read_lead_field(out, other)


@pytest.mark.slow
def test_a_real_heart_in_a_real_torso_gives_a_normal_ecg(data, tmp_path, capsys):
    """Normal activation: R grows from V1 to V6, S is deep in V1 to V3; I and II up, aVR down."""
    source = data / "biv_mean_shape" / "heart_tets.vtu"
    skin = data / "torso_tank" / "torso_surface.vtp"
    built, body, out = tmp_path / "heart.vtu", tmp_path / "torso.vtu", tmp_path / "leads.h5"
    assert main(["anatomy", "build", str(source), "-o", str(built), "--no-report"]) == 0
    place = ("--orientation", "RAS", "--heart-at", "25,35,-30")
    assert main(["torso", str(built), "-o", str(body), "--torso", str(skin), *place]) == 0
    capsys.readouterr()
    run(capsys, "--heart", built, "--torso", body, "-o", out)
    heart = read_heart(built)[0]
    field = read_lead_field(out, heart)
    sites = root_sites(heart.mesh)
    places = np.array([heart.mesh.points[site.nodes].mean(axis=0) for site in sites])
    onsets = np.array([site.onset for site in sites])
    # a dense Purkinje network: with a slow one (1.2 m/s) the base comes late and S is too deep
    cell = get_model("mitchell-schaeffer")
    layered, _, conduction = fast_endocardium(heart, cell, Velocities(), cv=4.0)
    lat = np.asarray(arrival(build_eikonal(layered, conduction), Sites(places, onsets, 3.0)))
    t = np.arange(-10.0, 90.0)
    vm = -32.5 + 52.5 * np.tanh((t[:, None] - lat) / 2.5)  # the front is as wide as an edge
    ecg = twelve_lead(t, np.asarray(field.potentials(vm)), field.electrodes.names)
    tallest = {name: float(ecg[name].max()) for name in ecg.names}
    deepest = {name: float(ecg[name].min()) for name in ecg.names}
    r = [tallest[f"V{k}"] for k in range(1, 7)]
    assert (np.diff(r) > 0).all(), r
    assert all(-deepest[f"V{k}"] > 2 * tallest[f"V{k}"] for k in (1, 2, 3))
    assert tallest["V6"] > -2 * deepest["V6"]
    for name in ("I", "II"):
        assert tallest[name] > -1.5 * deepest[name]
        assert ecg[name].sum() > 0
    assert -deepest["aVR"] > 1.5 * tallest["aVR"]
    assert ecg["aVR"].sum() < 0
    assert 0.3 < max(np.ptp(ecg[name]) for name in ecg.names) < 4.0  # mV
