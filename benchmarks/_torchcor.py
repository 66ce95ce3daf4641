"""The Niederer benchmark in TorchCor: environment, input files, activation times."""

import datetime
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from _processes import Child, machine, note, write_json
from _slab import lat_at_points, point_weights

from twinheart.mesh import TetMesh
from twinheart.mesh.generate import slab
from twinheart.mesh.io import write_mesh, write_vtx
from twinheart.tissue.niederer import AMPLITUDE, DURATION, SIZE

HERE = Path(__file__).resolve().parent
ENVIRONMENT = HERE.parent / ".venv-torchcor"
PACKAGES = ("torch==2.13.0", "torchcor==1.0.6")
MODES = {"default": False, "lumped": True}  # TorchCor's mass_lumping

# Initial values of the N-version benchmark under TorchCor's names; its conductances and
# concentrations outside the cell are those of the paper already. R_ is the proportion R' of
# closed release channels, R the gate of I_to.
CELL = {
    "V_init": -85.23,
    "Xr1_init": 0.00621,
    "Xr2_init": 0.4712,
    "Xs_init": 0.0095,
    "M_init": 0.00172,
    "H_init": 0.7444,
    "J_init": 0.7045,
    "d_init": 3.373e-5,
    "F_init": 0.7888,
    "F2_init": 0.9755,
    "FCaSS_init": 0.9953,
    "S_init": 0.999998,
    "R_init": 2.42e-8,
    "Cai_init": 0.000126,
    "R__init": 0.9073,
    "CaSR_init": 3.64,
    "CaSS_init": 0.00036,
    "Nai_init": 8.604,
    "Ki_init": 136.89,
}
CONDUCTIVITY = {"il": 0.17, "it": 0.019, "el": 0.62, "et": 0.24}  # S/m
SOLVE = {"a_tol": 1e-5, "r_tol": 1e-5, "max_iter": 100}  # of TorchCor's README
STIMULUS_BOX = 1.5  # mm


def torchcor_python() -> Path:
    """A Python that has TorchCor: this one, else an environment created on first use."""
    own = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    import_it = ["-c", "import torch; from torchcor.ionic import TenTusscherPanfilov"]
    for python in (Path(sys.executable), own):
        if python.exists():
            found = subprocess.run([str(python), *import_it], capture_output=True)
            if found.returncode == 0:
                return python
    note(f"creating {ENVIRONMENT.name} with {', '.join(PACKAGES)}")
    subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
    pip = [str(own), "-m", "pip", "install", "--quiet", *PACKAGES]
    subprocess.run(pip, check=True, stdout=sys.stderr)
    return own


def torchcor_environment(eager: bool) -> dict[str, str]:
    """Variables for TorchCor's process.

    Its cell model is compiled by torch.compile, which needs a C++ compiler and fails without
    one. Idle OpenMP threads that spin, as they do by default, slow its runs 30-fold on two
    busy cores and bring nothing on quiet ones.
    """
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++")), None)
    if compiler is None:
        note("no C++ compiler: TorchCor's cell model runs uncompiled, several times slower")
    variables = {"OMP_WAIT_POLICY": "PASSIVE", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    if eager or compiler is None:
        variables["TORCHDYNAMO_DISABLE"] = "1"
    return os.environ | variables


def start_torchcor(folder: Path, dx: float, mode: str, platform_: str, options) -> Child:
    """TorchCor on the Niederer slab, set up and compiled."""
    mesh = slab(SIZE, dx)
    place = folder / f"slab-{dx:g}"
    if not place.exists():
        place.mkdir()
        fibres = np.tile([1.0, 0.0, 0.0], (mesh.n_tets, 1))
        tags = np.ones(mesh.n_tets, dtype=np.int32)
        fields = {"fiber": fibres, "tag": tags}
        write_mesh(place / "slab.pts", TetMesh(mesh.points, mesh.tets, cell_fields=fields))
        corner = np.flatnonzero((mesh.points <= STIMULUS_BOX + 1e-9).all(axis=1))
        write_vtx(folder / f"slab-{dx:g}.vtx", corner)
    case = {
        "mesh": str(place),
        "stimulus_nodes": str(folder / f"slab-{dx:g}.vtx"),
        "dt": options.dt,
        "threads": options.threads,
        "device": "cuda" if platform_ == "gpu" else "cpu",
        "dtype": options.dtype,
        "cell": CELL,
        "conductivity": CONDUCTIVITY,
        # Divided by C_m = 0.01 uF/mm^2 and 100 inside. The end is moved by a quarter of a step,
        # so that rounding of the accumulated time cannot drop the last of its steps.
        "stimulus": {
            "start": 0.0,
            "duration": DURATION + 0.25 * options.dt,
            "intensity": AMPLITUDE,
            "period": 1e9,
        },
        "mass_lumping": MODES[mode],
        "solve": SOLVE,
        "watched_nodes": np.concatenate([n for n, _ in point_weights(mesh)]).tolist(),
    }
    file = folder / f"slab-{dx:g}-{mode}.json"
    file.write_text(json.dumps(case))
    command = [str(torchcor_python()), str(HERE / "_torchcor_runner.py"), str(file)]
    return Child(command, torchcor_environment(options.eager), folder)


def activation(dx: float, longest: float, child: Child) -> dict[str, Any]:
    """TorchCor's activation times at the nine points [ms]; None where never activated."""
    answer = child.request(t_end=longest, activation=True)
    at_nodes = [math.nan if t is None else t for t in answer["lat_ms"]]
    mesh = slab(SIZE, dx)
    nodes = np.concatenate([n for n, _ in point_weights(mesh)])
    everywhere = np.full(mesh.n_nodes, math.nan)
    everywhere[nodes] = at_nodes
    return {
        "lat_ms": lat_at_points(mesh, everywhere),
        "simulated_ms": answer["t_ms"],
        "wall_s": answer["wall_s"],
        "cg_iterations_per_step": answer["cg_iterations_per_step"],
        "others_busy": answer.get("others_busy"),
    }


def cached_activation(
    cache: Path, dx: float, mode: str, longest: float, torchcor, options
) -> dict[str, Any]:
    """TorchCor's activation times from the cache, computed and stored where missing."""
    known = json.loads(cache.read_text()) if cache.exists() else {}
    key = f"dx {dx:g}, dt {options.dt:g}, {mode}, {options.dtype}"
    if key not in known or options.refresh:
        note(f"TorchCor's activation times ({key})")
        child = torchcor(dx, mode)
        known[key] = activation(dx, longest, child) | {
            "provenance": {
                "date": datetime.date.today().isoformat(),
                "machine": machine(),
                "command": "python benchmarks/peers.py --refresh",
                "solve": SOLVE,
                "conductivity": CONDUCTIVITY,
                "cell": CELL,
                "about": child.about,
            }
        }
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_json(cache, dict(sorted(known.items())))
    return known[key]
