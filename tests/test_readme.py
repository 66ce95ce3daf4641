"""The README's code and commands run as they stand there, only shorter."""

import re
import shlex
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from label_samples import heart_labels

from twinheart.anatomy import demo_heart, mesh_of_heart
from twinheart.cli import main
from twinheart.ecg import Ecg, write_ecg
from twinheart.mesh.io import write_mesh

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()

# What makes a block quick enough for a test; everything else runs as written.
SHORTER = {
    "t_end=450.0": "t_end=5.0",
    "--t-end 450": "--t-end 5",
    "demo --out report": "demo --out report --t-end 5",
    "torso built.vtu": "torso built.vtu --edge 20 --heart-edge 6",
}


def blocks(language: str) -> list[str]:
    """Fenced blocks of one language, with the settings of `SHORTER`."""
    found = re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    for long, short in SHORTER.items():
        found = [block.replace(long, short) for block in found]
    return found


def commands(block: str) -> list[str]:
    """Every `twinheart` command of a block."""
    lines = block.replace("\\\n", " ").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.startswith("twinheart ")]


def test_there_is_something_to_test():
    assert len(blocks("python")) >= 1
    assert sum(len(commands(block)) for block in blocks("console")) >= 4


# The bundled heart is coarse, which it says.
@pytest.mark.filterwarnings("ignore::twinheart.tissue.ConductionWarning")
@pytest.mark.parametrize("block", blocks("python"))
def test_python_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the files that the commands name."""
    folder = tmp_path_factory.mktemp("readme")
    write_mesh(folder / "heart.vtu", mesh_of_heart(demo_heart()))
    labels = heart_labels()
    write_nifti(folder / "labels.nii.gz", labels.values, labels.affine)
    bright = np.random.default_rng(0).normal(100.0, 12.0, labels.values.shape)
    muscle = labels.values == 2
    scar = np.zeros(labels.values.shape, bool)
    scar[muscle.nonzero()[0].max() - 12 :] = True  # the outermost 18 mm of the free wall
    bright[muscle & scar] += 400.0
    write_nifti(folder / "lge.nii.gz", bright.astype(np.float32), labels.affine)
    write_ecg(folder / "recording.hea", ten_beats())
    return folder


def ten_beats() -> Ecg:
    """Ten seconds of QRS and T waves in twelve leads, of different heights."""
    t = np.arange(0.0, 10_000.0, 2.0)
    phase = t % 1000.0
    beat = np.exp(-(((phase - 300.0) / 20.0) ** 2)) + 0.25 * np.exp(-(((phase - 600) / 50.0) ** 2))
    limb = {"I": 0.6, "II": 1.0}
    limb["III"] = limb["II"] - limb["I"]
    limb |= {"aVR": -0.8, "aVL": 0.1, "aVF": 0.7}
    height = limb | {f"V{k}": 0.3 * k for k in range(1, 7)}
    return Ecg(t, beat[:, None] * np.array(list(height.values())), tuple(height))


def write_nifti(path, values, affine):
    """A NIfTI file as other programs write it."""
    image = nib.nifti1.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


@pytest.mark.filterwarnings("ignore::twinheart.tissue.ConductionWarning")
@pytest.mark.parametrize("block", blocks("console"))
def test_commands_run(block, workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    for command in commands(block):
        assert main(shlex.split(command)[1:]) == 0, f"{command}\n{capsys.readouterr().err}"
        assert capsys.readouterr().out, command
