"""`twinheart info` and `convert`: figures of real meshes, one JSON object, one line of error."""

import json

import numpy as np
import pytest
import pyvista
from mesh_samples import irregular, sphere_surface, with_fields

from twinheart.cli import main
from twinheart.cli.convert import convert_mesh
from twinheart.cli.info import describe
from twinheart.errors import MeshError, UnitError
from twinheart.mesh import TetMesh
from twinheart.mesh.io import read_mesh, write_mesh

KEYS = ("n_nodes n_tets n_components n_flipped n_orphan_nodes length_unit bbox_mm volume_ml "
        "mean_edge_mm min_dihedral_deg fields regions").split()  # fmt: skip


def run(capsys, *arguments):
    """Exit status, stdout and stderr of a command."""
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_json_of_a_broken_mesh_tells_it_as_found(tmp_path, capsys):
    mesh = with_fields(irregular())
    tets = mesh.tets.copy()
    tets[:2] = tets[:2][:, [1, 0, 2, 3]]
    points = np.concatenate([mesh.points, [[1e6, 0, 0]]])
    fields = {k: np.concatenate([v, v[:1]]) for k, v in mesh.point_fields.items()}
    path = tmp_path / "a.vtu"
    write_mesh(path, TetMesh(points, tets, fields, mesh.cell_fields))
    status, out, err = run(capsys, "info", path, "--json")
    assert status == 0
    assert err == ""
    assert out.count("\n") == 1
    record = json.loads(out)
    assert set(KEYS) <= set(record)
    assert record["n_nodes"] == mesh.n_nodes + 1
    assert record["n_tets"] == mesh.n_tets
    assert (record["n_flipped"], record["n_orphan_nodes"], record["n_components"]) == (2, 1, 1)
    assert np.allclose(record["bbox_mm"], 100)
    assert record["length_unit"] == "mm"
    assert record["fields"]["point"] == {"lat": 1, "velocity": 3, "surf_class": 1}
    assert sum(record["regions"].values()) == mesh.n_tets
    assert record["repairs"] == []
    assert np.isclose(record["volume_ml"], describe(path)["volume_ml"])


def test_table_is_read_by_people(tmp_path, capsys):
    write_mesh(tmp_path / "a.vtu", with_fields(irregular()))
    status, out, _ = run(capsys, "info", tmp_path / "a.vtu")
    assert status == 0
    for words in ("tetrahedra", "306", "fibre (3)", "100 x 100 x 100 mm", "cell field 'fibre'"):
        assert words in out


def test_surfaces_have_area_and_volume(tmp_path, capsys):
    surface = sphere_surface()
    write_mesh(tmp_path / "a.vtp", surface)
    record = describe(tmp_path / "a.vtp")
    grid = pyvista.read(tmp_path / "a.vtp")
    assert record["kind"] == "surface"
    assert (record["n_tets"], record["n_triangles"]) == (0, surface.n_triangles)
    assert record["closed"] is True
    assert np.isclose(record["area_mm2"], grid.area)
    assert np.isclose(record["enclosed_volume_ml"], grid.volume / 1000)
    _, out, _ = run(capsys, "info", tmp_path / "a.vtp")
    assert "enclosed volume" in out
    assert "tetrahedra" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("info", "nowhere.vtu"), "nowhere.vtu: no such file"),
        (("info", "{}/cut.vtu"), "truncated"),
        (("info", "{}/slab.vtk"), "--length-unit"),
        (("info", "{}/slab.vtk", "--length-unit", "inch"), "unknown length unit 'inch'"),
        (("convert", "{}/a.vtu", "{}/a.xyz"), "no writer for '.xyz'"),
        (("convert", "{}/a.vtu", "{}/none/a.vtu"), "cannot write"),
        (("convert", "{}/a.vtu", "{}/a.vtp"), "take .vtu"),
    ],
)
@pytest.mark.parametrize("as_json", [True, False])
def test_errors_are_one_line(tmp_path, capsys, arguments, message, as_json):
    mesh = irregular()
    write_mesh(tmp_path / "a.vtu", mesh)
    (tmp_path / "cut.vtu").write_bytes((tmp_path / "a.vtu").read_bytes()[:-100])
    cells = np.insert(mesh.tets, 0, 4, axis=1)
    points = mesh.points * np.array([0.2, 0.07, 0.03])
    pyvista.UnstructuredGrid(cells, np.full(mesh.n_tets, 10), points).save(tmp_path / "slab.vtk")
    before = sorted(p.name for p in tmp_path.iterdir())
    arguments = [a.format(tmp_path) for a in arguments] + (["--json"] if as_json else [])
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_convert_mends_and_says_so(tmp_path, capsys):
    mesh = with_fields(irregular())
    tets = mesh.tets.copy()
    tets[0] = tets[0][[1, 0, 2, 3]]
    write_mesh(tmp_path / "a.vtu", TetMesh(mesh.points, tets, {}, mesh.cell_fields))
    status, out, err = run(capsys, "convert", tmp_path / "a.vtu", tmp_path / "b.elem", "--json")
    assert status == 0
    record = json.loads(out)
    assert record["repairs"] == ["turned 1 flipped tetrahedron round"]
    assert "turned 1 flipped tetrahedron round" in err
    back, report = read_mesh(tmp_path / "b.elem")
    assert report.n_flipped == 0
    assert np.allclose(back.points, mesh.points, atol=1e-8)
    assert np.allclose(back.cell_fields["fibre"], mesh.cell_fields["fibre"], atol=1e-8)


def test_convert_refines_and_drops(tmp_path):
    mesh = irregular()
    two = np.concatenate([mesh.points, mesh.points[mesh.tets[0]] + 300])
    tets = np.concatenate([mesh.tets, [np.arange(4) + mesh.n_nodes]])
    write_mesh(tmp_path / "a.vtu", TetMesh(two, tets))
    record = convert_mesh(tmp_path / "a.vtu", tmp_path / "b.vtu", max_edge=25.0, drop_below=0.01)
    assert record["n_tets"] % mesh.n_tets == 0
    assert describe(tmp_path / "b.vtu")["mean_edge_mm"] <= 25.0
    assert describe(tmp_path / "b.vtu")["n_components"] == 1


FIGURES = {
    "biv_crt/heart.vtu": (4569, 17866, 226, (102, 97, 89), 5.0, (1.6, 27, 50)),
    "biv_mean_shape/heart_tets.vtu": (29838, 104317, 144.8, (109, 99, 99), 2.4, (1.4, None, None)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_real_hearts_have_the_figures_of_the_manifest(data, name):
    record = describe(data / name)
    n_nodes, n_tets, volume, extent, edge, angles = FIGURES[name]
    assert (record["n_nodes"], record["n_tets"]) == (n_nodes, n_tets)
    assert (record["n_components"], record["n_flipped"], record["n_orphan_nodes"]) == (1, 0, 0)
    assert record["length_unit"] == "mm"
    assert np.isclose(record["volume_ml"], volume, rtol=0.005)
    assert np.allclose(record["bbox_mm"], extent, atol=0.6)
    # the manifest weights an edge with the number of its tetrahedra: 3 to 6 % more
    assert 0.93 * edge < record["mean_edge_mm"] < edge
    found = (
        record["min_dihedral_deg"],
        *(record["min_dihedral_percentiles_deg"][k] for k in (1, 50)),
    )
    for measured, stated in zip(found, angles, strict=True):
        assert stated is None or abs(measured - stated) < 0.55


def test_real_surface(data):
    record = describe(data / "biv_mean_shape" / "heart_surface.vtp")
    assert record["n_nodes"] == 24991
    assert record["closed"] is True
    assert np.isclose(record["enclosed_volume_ml"], 144.8, rtol=0.005)
    torso = describe(data / "torso_tank" / "torso_surface.vtp")
    assert (torso["n_nodes"], torso["n_triangles"], torso["closed"]) == (771, 1538, True)
    assert torso["length_unit"] == "mm"


def test_bad_mesh_is_ambiguous_then_mended_and_told(data):
    path = data / "bad_mesh" / "UCSD_heart_decimated_173nodes.node"
    with pytest.raises(UnitError, match=r"3.3 mm .if in mm. or 33 mm .if in cm..*--length-unit"):
        describe(path)
    record = describe(path, length_unit="cm")
    assert (record["n_nodes"], record["n_orphan_nodes"], record["n_components"]) == (173, 1, 1)
    assert abs(record["min_dihedral_deg"] - 0.17) < 0.005
    assert any("slivers" in remark for remark in record["remarks"])
    mesh, report = read_mesh(path, length_unit="cm")
    assert mesh.n_nodes == 172
    assert report.repairs == ("removed 1 orphan node",)


def test_lines_are_no_mesh(data):
    with pytest.raises(
        MeshError, match=r"neither tetrahedra nor triangles .cells: 1140 of kind 'line'"
    ):
        describe(data / "biv_crt" / "purkinje_lv.vtu")
