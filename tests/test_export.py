"""Shells, text shells, targets and pictures for the catheter laboratory, read back."""

import functools
import json
import re

import numpy as np
import pytest

from twinheart.anatomy import add_fibres
from twinheart.anatomy.heart import Heart
from twinheart.calibration.mapping_io import read_map, read_shell
from twinheart.cli.app import main
from twinheart.errors import InputError
from twinheart.imaging.boundary import node_normals
from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.biventricle import BiventricularShape, biventricle
from twinheart.mesh.generate import slab
from twinheart.mesh.io import read_mesh, write_mesh
from twinheart.mesh.quality import boundary_triangles, enclosed_volume, triangle_areas
from twinheart.planning.ablation.lesions import Lesion
from twinheart.planning.export import (
    marked_places,
    scar_at_nodes,
    shells,
    write_targets,
    write_text_shell,
    write_volume_shell,
)

MAKERS = re.compile(r"biosense|johnson|carto|st\. jude|sjm|abbott|ensite|navx", re.IGNORECASE)


@functools.cache
def heart() -> TetMesh:
    """Ventricles with activation times, scar, fibres and regions."""
    mesh = biventricle(8.0, BiventricularShape(lv_wall=14.0, apex_wall=14.0, rv_wall=12.0))
    centres = mesh.points[mesh.tets].mean(axis=1)
    scar = np.select([centres[:, 1] > 25, centres[:, 1] > 15], [2, 1], 0)
    lat = np.linalg.norm(mesh.points - mesh.points[0], axis=1)
    lat[::50] = np.nan
    cells = mesh.cell_fields | {"scar": scar.astype(np.int32)}
    fibres = add_fibres(Heart(mesh, regions=mesh.cell_fields["region"])).f0
    return TetMesh(mesh.points, mesh.tets, mesh.point_fields | {"lat": lat},
                   cells | {"fibre": fibres})  # fmt: skip


def test_shells_are_the_surfaces_of_the_heart_with_its_values():
    mesh = heart()
    found = shells(mesh)
    assert set(found) == {"lv_endocardium", "rv_endocardium", "epicardium"}
    label = mesh.point_fields["surf_class"]
    whole = boundary_triangles(mesh.tets)
    base = (label[whole] == 1).sum(axis=1) >= 2
    area = sum(triangle_areas(shell.points, shell.triangles).sum() for shell in found.values())
    rest = triangle_areas(mesh.points, whole[~base]).sum()
    assert 0.97 * rest < area <= rest * (1 + 1e-12)
    for shell in found.values():
        nodes = shell.point_fields["node"]
        np.testing.assert_array_equal(shell.points, mesh.points[nodes])
        np.testing.assert_array_equal(shell.point_fields["lat"], mesh.point_fields["lat"][nodes])
    # the triangle's value is that of the one tetrahedron with its three corners
    epi = found["epicardium"]
    corners = epi.point_fields["node"][epi.triangles]
    for k in range(0, epi.n_triangles, 37):
        own = [np.isin(mesh.tets, corners[k]).sum(axis=1) == 3]
        assert epi.cell_fields["scar"][k] == mesh.cell_fields["scar"][own[0]][0]


def test_shells_need_tagged_surfaces():
    with pytest.raises(InputError, match="not tagged"):
        shells(slab((4.0, 4.0, 4.0), 2.0))


def test_text_shells_read_back(tmp_path):
    shell = shells(heart())["lv_endocardium"]
    lat, scar = shell.point_fields["lat"], scar_at_nodes(shell)
    assert np.isnan(lat).any()
    assert scar is not None
    text = write_text_shell(tmp_path / "lv.mesh", shell, lat=lat, scar=scar)
    volume = write_volume_shell(tmp_path / "lv.xml", shell, lat=lat, name='an "L" <V>')
    for path in (text, volume):
        back = read_map(path)
        assert back.shell is not None
        np.testing.assert_array_equal(back.shell.triangles, shell.triangles)
        np.testing.assert_allclose(back.points, shell.points, atol=6e-4)
        np.testing.assert_allclose(back.lat, lat, atol=6e-4)
        content = path.read_text()
        assert "twinheart" in content
        assert "simulated" in content
        assert not MAKERS.search(content)
    # flags of scar stand where open readers look for them: behind four lines
    lines = text.read_text().splitlines()
    start = lines.index("[VerticesAttributesSection]")
    rows = [line.split() for line in lines[start + 5 : start + 5 + shell.n_nodes]]
    assert [int(row[2]) for row in rows] == (scar > 0).astype(int).tolist()


def test_text_shells_without_times_are_shells_only(tmp_path):
    shell = shells(heart())["epicardium"]
    assert read_shell(write_text_shell(tmp_path / "a.mesh", shell)).n_nodes == shell.n_nodes
    assert read_shell(write_volume_shell(tmp_path / "a.xml", shell)).n_nodes == shell.n_nodes
    with pytest.raises(InputError, match="one a vertex"):
        write_text_shell(tmp_path / "b.mesh", shell, lat=np.zeros(3))
    assert not (tmp_path / "b.mesh").exists()


def test_normals_of_a_sphere_point_along_its_radii():
    ball = marked_places(np.zeros((1, 3)), np.array([5.0]))
    np.testing.assert_allclose(
        node_normals(ball.points, ball.triangles), ball.points / 5.0, atol=0.06
    )
    assert 0.6 < enclosed_volume(ball.points, ball.triangles) / (4 / 3 * np.pi * 125) < 1.0


def test_targets_read_back(tmp_path):
    from twinheart.cli.lesion_file import read_lesions

    lesions = [
        Lesion([[1.0, 2.0, 3.0]], 3.5, np.inf),
        Lesion([[0.0, 0.0, 9.0], [5.0, 0.0, 9.0]], 2.0, 4.0),
        Lesion([[7.25, 0.0, 1.0]], 5.0),
    ]
    back = read_lesions(write_targets(tmp_path / "targets.csv", lesions)).lesions
    assert [(x.radius, x.depth) for x in back] == [(x.radius, x.depth) for x in lesions]
    for one, other in zip(back, lesions, strict=True):
        np.testing.assert_allclose(one.points, other.points)


def test_the_command(tmp_path, capsys):
    write_mesh(tmp_path / "heart.vtu", heart())
    (tmp_path / "plan.csv").write_text("x,y,z,radius,depth\n0,30,0,4,inf\n")
    out = tmp_path / "lab"
    arguments = ["export", str(tmp_path / "heart.vtu"), "-o", str(out), "--json"]
    assert main([*arguments, "--targets", str(tmp_path / "plan.csv")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["map"] == told["lat"] == "lat"
    assert told["n_targets"] == 1
    assert all((tmp_path / path).stat().st_size > 50 for path in told["files"])
    names = {path.rpartition("/")[2] for path in told["files"]}
    assert {"views.png", "view_LAO.png", "view_apical.png", "epicardium.stl"} <= names
    assert {"lv_endocardium.vtp", "targets.vtp", "heart.lon", "rv_endocardium.xml"} <= names
    back, _ = read_mesh(out / "opencarp" / "heart.pts")
    assert isinstance(back, TetMesh)
    np.testing.assert_allclose(back.points, heart().points, atol=1e-6)
    np.testing.assert_array_equal(back.tets, heart().tets)
    shell, _ = read_mesh(out / "epicardium.vtp")
    assert isinstance(shell, TriMesh)
    assert {"scar", "region"} <= set(shell.cell_fields)
    assert main([*arguments, "--formats", "dxf"]) == 2
    assert main([*arguments, "--map", "nothing"]) == 2
    assert main([*arguments, "--lao", "120"]) == 2
    assert main(["export", str(tmp_path / "no.vtu")]) == 2
