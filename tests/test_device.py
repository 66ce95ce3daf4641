"""Why there is no GPU, in one line each; precisions in which the time loop breaks."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import twinheart as th
from twinheart.cli import main
from twinheart.errors import InputError, SolverError
from twinheart.tissue import build_monodomain
from twinheart.tissue.device import driver_version, require_device, why_no_gpu

MESH = th.mesh.generate.slab((3.0, 2.0, 2.0), 1.0)
HEART = th.Heart(MESH, np.tile([1.0, 0.0, 0.0], (MESH.n_tets, 1)))
CELL = th.cell.get_model("mitchell-schaeffer")
TISSUE = th.Conductivities(0.3, 0.1, 0.6, 0.4)


@pytest.mark.parametrize(
    ("driver", "plugins", "message"),
    [
        (None, {"13": "0.11.2"}, "no NVIDIA driver loaded"),
        ("580.65.06", {}, r'no CUDA plugin; pip install "jax\[cuda13\]"'),
        ("535.104.05", {"13": "0.11.2"}, r'needs driver 580 .* got 535.104.05: .*"jax\[cuda12\]"'),
        ("470.1", {"12": "0.10.2"}, "needs driver 525 or newer, got 470.1: update it"),
        ("580.65.06", {"13": "0.11.2"}, "did not start: out of memory; it must be of the version"),
    ],
)
def test_the_reason_is_told(driver, plugins, message):
    with pytest.raises(InputError, match=message):
        raise InputError(why_no_gpu(driver, plugins, "out of memory"))


def test_the_version_of_the_driver_is_read(tmp_path):
    file = tmp_path / "version"
    assert driver_version(file) is None
    file.write_text("NVRM version: NVIDIA UNIX Open Kernel Module  580.65.06  Release Build\nGCC\n")
    assert driver_version(file) == "580.65.06"


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(capsys):
    with pytest.raises(InputError, match="no GPU"):
        require_device("gpu")
    status = main(["benchmark", "heart", "--device", "gpu", "--json"])
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "no GPU" in err


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is a GPU")
def test_a_platform_that_does_not_start_is_no_bug_of_ours():
    command = [sys.executable, "-c", "import sys; from twinheart.cli import main; sys.exit(main())"]
    done = subprocess.run(
        [*command, "benchmark", "niederer"],
        env=os.environ | {"JAX_PLATFORMS": "cuda"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "JAX_PLATFORMS" in done.stderr


@pytest.mark.parametrize("arguments", [["--max-edge", "1.0"], ["--heart", "slab:5,5,5,1"]])
def test_nodes_mesh_the_demo_heart_only(capsys, arguments):
    status = main(["benchmark", "heart", "--nodes", "1000", *arguments])
    assert status == 2
    assert "--nodes meshes the demo heart anew" in capsys.readouterr().err


@pytest.mark.slow  # meshes a heart, and simulates 20 ms
def test_a_heart_has_about_the_nodes_that_were_asked_for(capsys):
    options = ["--cell", "mitchell-schaeffer", "--t-end", "2", "--dt", "0.05", "--json"]
    assert main(["benchmark", "heart", "--nodes", "40000", *options]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["n_nodes"] == pytest.approx(40_000, rel=0.15)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", np.int32])
def test_precisions_that_break_are_refused(dtype):
    with pytest.raises(SolverError, match="expected float32 or float64"):
        build_monodomain(HEART, CELL, TISSUE, [th.pace("box:0,0,0,1,2,2")], dtype=dtype)
