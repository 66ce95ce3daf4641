"""`twinheart scar`: an image and a heart become classes, corridors and a page; bad input."""

import json

import numpy as np
import pytest
from synthetic_scar import Channel, Plan, Scar, synthetic_lge
from test_cli_simulate import last_error

from twinheart.anatomy import demo_heart, mesh_of_heart
from twinheart.cli import main
from twinheart.imaging.enhancement import CONVENTIONS
from twinheart.mesh.io import read_mesh, write_mesh

nib = pytest.importorskip("nibabel")
PLAN = Plan(10.0, 35.0, (22.0, 16.0), 4.0, (Channel(0, 0.0, 6.0),))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A heart, its LGE, and labels of it: 1 myocardium, 2 remote, all 5 mm to the right."""
    folder = tmp_path_factory.mktemp("scar")
    mesh = mesh_of_heart(demo_heart())
    image = synthetic_lge(Scar(PLAN, mesh), CONVENTIONS["roes"], blood=-1.0, lung=-1.0, noise=0.01)
    muscle = image.values > 30
    labels = muscle.astype(np.uint8)
    septum = np.argwhere(muscle)[:, 0] < muscle.shape[0] // 3
    labels[tuple(np.argwhere(muscle)[septum].T)] = 2
    affine = image.affine.copy()
    affine[0, 3] += 5.0
    write_mesh(folder / "heart.vtu", mesh)
    for name, values in (("lge", image.values.astype("f4")), ("labels", labels)):
        nib.save(nib.Nifti1Image(values, affine), folder / f"{name}.nii.gz")
    return folder


def scar(files, *arguments: str) -> list[str]:
    return ["scar", str(files / "lge.nii.gz"), str(files / "heart.vtu"), *arguments, "--json"]


def test_scar_is_found_measured_and_drawn(files, tmp_path, capsys):
    out = tmp_path / "out.vtu"
    labels = ("--labels", str(files / "labels.nii.gz"), "--remote", "2")
    assert main(scar(files, "-o", str(out), *labels)) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["convention"] == "roes"
    assert len(found["conventions"]) == len(CONVENTIONS)
    assert 0 < found["core_g"] < found["myocardium_g"]
    mesh, _ = read_mesh(out)
    assert set(np.unique(mesh.cell_fields["scar"])) == {0, 1, 2}
    assert mesh.cell_fields["corridor"].max() == found["n_corridors"]
    assert {"fibre", "region", "lge"} <= set(mesh.cell_fields)
    page = (tmp_path / "out.html").read_text()
    assert found["report"] == str(tmp_path / "out.html")
    assert page.count("<img") >= 1
    for word in ("adas-70-30", "not for clinical use", "1.05 g/ml"):
        assert word in page
    assert "<script" not in page


def test_the_mask_undoes_a_shift(files, tmp_path, capsys):
    """The image lies 5 mm off; with its mask, scar and corridor are those that were planted."""
    out = ("-o", str(tmp_path / "out.vtu"), "--no-report")
    labels = files / "whole.nii.gz"
    image = nib.load(files / "labels.nii.gz")
    nib.save(nib.Nifti1Image((image.get_fdata() > 0).astype(np.uint8), image.affine), labels)
    assert main(scar(files, *out, "--labels", str(labels), "--myocardium", "1")) == 0
    found = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(found["shift_mm"], [5.0, 0.0, 0.0], atol=0.4)
    assert found["n_corridors"] == PLAN.n_corridors
    (corridor,) = found["corridors"]
    assert corridor["width_mm"] == pytest.approx(6.0, abs=1.5)
    assert not (tmp_path / "out.html").exists()


def test_thickness_needs_no_image(files, tmp_path, capsys):
    out = tmp_path / "out.vtu"
    heart = str(files / "heart.vtu")
    assert main(["scar", "thickness", heart, "-o", str(out), "--no-report", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["convention"] == "mm:2,5"
    assert found["core_g"] == found["border_g"] == 0  # a healthy heart
    assert 5 < found["lv_thickness_mm"]["median"] < 15
    assert (read_mesh(out)[0].point_fields["thickness_mm"] > 0).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--convention", "otsu"), "unknown convention 'otsu'"),
        (("--remote", "2"), "give --labels"),
        (("--labels", "LABELS"), "--myocardium or --remote"),
        (("--labels", "LABELS", "--remote", "9"), "no voxel has the label 9; there are 0, 1, 2"),
    ],
)
def test_wrong_options_are_told_in_a_line(files, tmp_path, capsys, arguments, said):
    arguments = [str(files / "labels.nii.gz") if a == "LABELS" else a for a in arguments]
    out = tmp_path / "out.vtu"
    assert main(scar(files, "-o", str(out), *arguments)) == 2
    assert said in last_error(capsys)
    assert not out.exists()


def test_an_image_of_another_place_is_refused(files, tmp_path, capsys):
    affine = np.eye(4)
    affine[:3, 3] = 900.0
    nib.save(nib.Nifti1Image(np.ones((20, 20, 20), "f4"), affine), tmp_path / "far.nii.gz")
    command = ["scar", str(tmp_path / "far.nii.gz"), str(files / "heart.vtu")]
    assert main([*command, "-o", str(tmp_path / "out.vtu")]) == 2
    assert "does not cover the heart" in last_error(capsys)
