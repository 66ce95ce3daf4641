"""From an induced tachycardia's ECG back to where it leaves the scar, by the commands."""

import json
from dataclasses import replace

import numpy as np
import pytest

from twinheart.anatomy import demo_heart, mesh_of_heart
from twinheart.cli import main
from twinheart.mesh.io import read_mesh, write_mesh

SCAR = """
[[core]]
at = [0.55, 0.33]
radius = 22.0

[[channel]]
path = [[0.15, 0.33], [0.95, 0.33]]
width = 8.0
"""
BASAL_MOUTH = np.array([28.7, 3.8, -32.7])  # mm
CASE = """
heart.file = "late.vtu"
cells.model = "mitchell-schaeffer"
cells.parameters = { tau_close = 40.0, tau_open = 30.0 }
cells.regions = [{ tag = 1, parameters = { tau_close = 90.0, tau_open = 40.0 } }]
conduction.cv_l = 0.8
conduction.cv_t = 0.5
conduction.regions = [{ tag = 1, cv_l = 0.25, cv_t = 0.2 }, { tag = 2, cv_l = 0.25, cv_t = 0.2 }]
scar.condition = "none"
scar.across = 1.0
"""


def record(capsys, *arguments):
    assert main([str(given) for given in arguments] + ["--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow  # six minutes
def test_the_exit_of_an_induced_tachycardia_is_located_by_its_ecg(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_mesh(tmp_path / "heart.vtu", mesh_of_heart(demo_heart()))
    (tmp_path / "scar.toml").write_text(SCAR)
    record(capsys, "scar", "paint", "heart.vtu", "scar.toml", "-o", "scarred.vtu", "--no-report")
    mesh, _ = read_mesh(tmp_path / "scarred.vtu")
    channel = mesh.cell_fields["scar"] == 1
    middle = mesh.points[mesh.tets].mean(axis=1)
    late = channel & (np.linalg.norm(middle - BASAL_MOUTH, axis=1) < 15.0)
    tags = np.where(late, 1, np.where(channel, 2, 0)).astype(np.int32)
    write_mesh(
        tmp_path / "late.vtu", replace(mesh, cell_fields={**mesh.cell_fields, "region": tags})
    )
    (tmp_path / "case.toml").write_text(CASE)
    (tmp_path / "sites.csv").write_text("lateral, 23.9, -5.1, -16.8\n")

    induced = record(
        capsys, "induce", "--case", "case.toml", "--preset", "decremental", "--sites", "sites.csv",
        "--workers", "1", "--vt-ecg", "vts", "-o", "sites.jsonl",
    )  # fmt: skip
    (vt,) = induced["vts"]
    # blocked where the channel recovers late, the wave comes back there through the channel
    assert vt["morphology"] == "monomorphic"
    assert np.linalg.norm(np.array(vt["exit_mm"]) - BASAL_MOUTH) < 10.0

    found = record(capsys, "locate-vt", "--case", "case.toml", "--ecg", "vts/vt1.hea", "-o", "map")
    assert found["correlation"] > 0.99
    assert np.linalg.norm(np.subtract(found["exit_mm"], vt["exit_mm"])) < 10.0
    located, _ = read_mesh(tmp_path / "map" / "pace_map.vtu")
    region = located.points[located.point_fields["exit_region"] > 0]
    assert np.linalg.norm(region - vt["exit_mm"], axis=1).min() < 5.0
    assert found["region"]["area_mm2"] < 2000.0  # of 47,000 of this heart's surfaces
