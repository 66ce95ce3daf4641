"""`twinheart anatomy build`: fields, figures, page, kept fibres, surfaces from shape, bad input."""

import json

import numpy as np
import pytest

from twinheart.anatomy import coordinates_of, demo_heart, load_heart
from twinheart.anatomy.surfaces import tag_surfaces
from twinheart.cli import main
from twinheart.errors import MeshError
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import lv_ellipsoid, slab
from twinheart.mesh.io import write_mesh


@pytest.fixture(scope="module")
def lv_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("lv") / "lv.vtu"
    write_mesh(path, lv_ellipsoid(edge=4.0))
    return path


def _build(capsys, *arguments):
    status = main(["anatomy", "build", *map(str, arguments), "--json"])
    said = capsys.readouterr()
    return status, json.loads(said.out) if said.out else None, said.err


def test_built_heart_has_fibres_coordinates_segments_and_a_page(lv_file, tmp_path, capsys):
    out = tmp_path / "heart.vtu"
    status, record, _ = _build(capsys, lv_file, "-o", out)
    assert status == 0
    assert record is not None
    assert record["ventricles"] == 1
    assert record["fibres"] == "rule"
    assert record["round_trip_within_edge"] > 0.99
    assert sum(record["aha_ml"]) == pytest.approx(record["lv_ml"], rel=1e-6)
    heart = load_heart(out)
    assert heart.f0 is not None
    assert heart.s0 is not None
    assert coordinates_of(heart.mesh) is not None
    assert set(heart.mesh.cell_fields["aha"].tolist()) == set(range(1, 18))
    page = out.with_suffix(".html").read_text("utf-8")
    assert record["report"] == str(out.with_suffix(".html"))
    assert page.count("data:image/png") == 3
    assert "not for clinical use" in page
    assert "<script" not in page


def test_fibres_of_the_mesh_are_kept_unless_new_ones_are_wanted(tmp_path, capsys):
    mesh = lv_ellipsoid(edge=4.3)
    given = np.tile([0.0, 0.0, 1.0], (mesh.n_tets, 1))
    write_mesh(
        tmp_path / "a.vtu", TetMesh(mesh.points, mesh.tets, mesh.point_fields, {"f0": given})
    )
    out = tmp_path / "b.vtu"
    for options, kept in (((), True), (("--new-fibres",), False)):
        status, record, said = _build(
            capsys, tmp_path / "a.vtu", "-o", out, "--no-report", *options
        )
        assert status == 0
        assert record is not None
        assert record["fibres"] == ("kept" if kept else "rule")
        assert ("are kept" in said) == kept
        f0 = load_heart(out).f0
        assert f0 is not None
        assert np.allclose(f0, given) == kept
    assert not out.with_suffix(".html").exists()


def test_surfaces_are_found_from_the_shape():
    mesh = demo_heart().mesh
    found = tag_surfaces(TetMesh(mesh.points, mesh.tets)).point_fields["surf_class"]
    given = mesh.point_fields["surf_class"]
    for surface in (2, 3, 4):
        assert (found == surface)[given == surface].mean() > 0.95
    assert (found == 0)[given == 0].all()
    with pytest.raises(MeshError, match=r"has \d large parts"):
        tag_surfaces(slab((8.0, 4.0, 4.0), 1.0))


def test_what_is_no_heart_is_refused_in_one_line(tmp_path, capsys):
    write_mesh(tmp_path / "slab.vtu", slab((20.0, 20.0, 20.0), 5.0))
    status, record, said = _build(capsys, tmp_path / "slab.vtu", "-o", tmp_path / "out.vtu")
    assert status == 2
    assert record is None
    assert "large parts" in said.strip().splitlines()[-1]
    assert not (tmp_path / "out.vtu").exists()
    status, _, said = _build(capsys, tmp_path / "no.vtu")
    assert status == 2
