"""`twinheart mesh build` and `mesh check` as commands: JSON, files, errors."""

import json

import numpy as np
import pytest

from twinheart.cli import main
from twinheart.imaging.sources import load_muscle
from twinheart.mesh import TriMesh
from twinheart.mesh.generate import slab
from twinheart.mesh.io import read_mesh, write_mesh
from twinheart.mesh.quality import boundary_triangles

CHECKED = {"min_dihedral_deg", "max_aspect", "n_tets", "volume_ml", "n_components"}
CHECKED |= {"boundary_tags", "explicit_dt_ms"}
# A cup of 23 ml in voxels of 2 mm: the rounding of its rim by a quarter of a voxel is 1 % of it.
SMALL_CUP_PERCENT = 2.0


def write_labels(path, spacing: float = 2.0) -> None:
    """A cup with LV pool 1 and muscle 2 in a NIfTI file."""
    import nibabel as nib

    size = np.array([34, 34, 24])
    x = (np.stack(np.indices(size), axis=-1) - np.array([16.5, 16.5, 18.0])) * spacing
    radius, below = np.linalg.norm(x, axis=-1), x[..., 2] < 0
    labels = np.where((radius < 25) & below, 2, 0)
    labels[(radius < 16) & below] = 1
    image = nib.Nifti1Image(labels.astype(np.uint8), np.diag([spacing, spacing, spacing, 1.0]))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Inputs: a label image, and a block as a tagged surface."""
    folder = tmp_path_factory.mktemp("mesh")
    write_labels(folder / "labels.nii.gz")
    block = slab((40.0, 32.0, 24.0), 4.0)
    tags = {"class": np.where(block.points[:, 2] > 20, 1, 2)}
    surface = TriMesh(block.points, boundary_triangles(block.tets), tags)
    write_mesh(folder / "heart.vtp", surface)
    return folder


def run(capsys, *arguments) -> tuple[int, dict | None, str]:
    status = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return status, json.loads(out) if out.strip() else None, err


def test_labels_become_a_mesh_and_check_agrees(folder, capsys):
    mesh = folder / "cup.vtu"
    status, built, err = run(
        capsys, "mesh", "build", folder / "labels.nii.gz", "--labels", "lv_pool=1,myo=2",
        "--edge", 2.5, "-o", mesh, "--json",
    )  # fmt: skip
    assert status == 0
    assert built is not None
    assert "no RV: LV only" in err
    assert abs(built["volume_error_percent"]) < SMALL_CUP_PERCENT
    assert built["boundary"]["euler"] == built["boundary"]["expected_euler"]
    status, checked, _ = run(capsys, "mesh", "check", mesh, "--json")
    assert status == 0
    assert checked is not None
    assert set(checked) >= CHECKED
    for key in ("n_tets", "volume_ml", "min_dihedral_deg", "max_aspect"):
        assert checked[key] == pytest.approx(built[key])
    assert checked["boundary_tags"]["base"] == pytest.approx(built["boundary_tags"]["base"])
    assert set(checked["boundary_tags"]) == {"base", "epicardium", "lv_endocardium"}
    written, _ = read_mesh(mesh)
    assert "surf_class" in written.point_fields


def test_a_tagged_surface_becomes_a_mesh(folder, capsys):
    mesh = folder / "filled.vtu"
    status, built, _ = run(
        capsys, "mesh", "build", folder / "heart.vtp", "--edge", 3.0, "-o", mesh, "--json"
    )
    assert status == 0
    assert built is not None
    assert mesh.exists()
    assert built["lost_walls"] == []
    assert set(built["boundary_tags"]) == {"base", "epicardium"}
    assert built["volume_ml"] == pytest.approx(40 * 32 * 24 / 1e3, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["labels.nii.gz"], "--labels"),
        (["labels.nii.gz", "--labels", "lv_pool=1,myo=7"], "it has 1, 2"),
        (["labels.nii.gz", "labels.nii.gz", "--labels", "lv_pool=1,myo=2"], "one label image"),
        (["absent.nii.gz", "--labels", "lv_pool=1,myo=2"], "no such file"),
        (["heart.vtp", "--labels", "lv_pool=1,myo=2"], "a surface was given"),
        (["heart.vtp", "heart.vtp"], "which surface heart.vtp is"),
        (["epi=heart.vtp", "epi=heart.vtp"], "two surfaces are taken for epi"),
        (["lv=heart.vtp", "rv=heart.vtp"], "lack epi"),
        (["heart.vtp", "--edge", "0"], "expected 0.2 to 5"),
        (["heart.vtp", "--min-wall-lv", "-1"], "expected 0 to 6"),
        (["heart.vtp", "-o", "x.stl"], ".vtu"),
        (["heart.vtp", "-o", "nowhere/x.vtu"], "folder does not exist"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(folder, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    target = [] if "-o" in arguments else ["-o", "bad.vtu"]
    status, record, err = run(capsys, "mesh", "build", *arguments, *target, "--json")
    assert status == 2
    assert record is None
    assert message in err.strip().splitlines()[-1]
    assert sorted(folder.iterdir()) == before


def test_check_refuses_a_surface(folder, capsys):
    status, record, err = run(capsys, "mesh", "check", folder / "heart.vtp", "--json")
    assert (status, record) == (2, None)
    assert "is a surface" in err


def test_check_shows_what_is_wrong(tmp_path, capsys):
    two = slab((2.0, 2.0, 2.0), 1.0)
    apart = np.concatenate([two.points, two.points + 10.0])
    tets = np.concatenate([two.tets, two.tets + two.n_nodes])
    tets[0] = tets[0, [0, 2, 1, 3]]
    write_mesh(tmp_path / "two.vtu", type(two)(apart, tets))
    status, record, _ = run(
        capsys, "mesh", "check", tmp_path / "two.vtu", "--length-unit", "mm", "--json"
    )
    assert status == 0
    assert record is not None
    assert record["n_components"] == 2
    assert record["n_flipped"] == 1
    assert record["boundary_tags"] == {}


def test_tetrahedra_can_be_meshed_again(tmp_path):
    block = slab((20.0, 16.0, 12.0), 4.0)
    tagged = type(block)(block.points, block.tets, {"surf_class": np.full(block.n_nodes, 2)})
    write_mesh(tmp_path / "block.vtu", tagged)
    body = load_muscle([str(tmp_path / "block.vtu")], 2.0, length_unit="mm")
    assert body.euler == 2
    assert body.volume == pytest.approx(20 * 16 * 12)
