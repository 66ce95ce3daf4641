"""The N-version benchmark: activation of the slab against the converged solution."""

import json

import numpy as np
import pytest
from conftest import ROOT

from twinheart.tissue.niederer import POINTS, run_niederer

# Activation of the corner opposite to the stimulus on an infinitely fine mesh [ms]: our own
# extrapolation of runs down to 0.1 mm.
CONVERGED_P8 = 40.8
COARSE = 0.20  # at 0.5 mm, where the codes of the benchmark paper spread by a factor of two
MIRRORED = 0.05  # what the direction of the triangulation's diagonals may change
FINE_FAR, FINE_NEAR = 0.05, 0.12  # at 0.2 mm: whole diagonal and length; short ways across


@pytest.fixture(scope="module")
def coarse():
    return {m: run_niederer(0.5, 0.05, mirrored=m, t_end=80.0) for m in (False, True)}


def test_coarse_mesh_comes_near_the_converged_solution(coarse):
    lat = coarse[False]["lat_ms"]
    assert lat["P8"] == pytest.approx(CONVERGED_P8, rel=COARSE)
    assert lat["P1"] < 2.0  # stimulated
    assert all(np.isfinite(lat[p]) for p in POINTS)
    # last is the far edge; which of its ends, this mesh tells no better than its diagonals
    assert lat["P3"] < lat["P4"]
    assert max(lat.values()) == pytest.approx(lat["P8"], rel=MIRRORED)


def test_mirrored_triangulation_gives_the_same_activation(coarse):
    one, other = coarse[False]["lat_ms"], coarse[True]["lat_ms"]
    for point in ("P2", "P3", "P4", "P6", "P7", "P8", "P9"):
        assert other[point] == pytest.approx(one[point], rel=MIRRORED), point


@pytest.mark.slow
def test_fine_mesh_agrees_with_the_converged_solution():
    path = ROOT / "benchmarks" / "results" / "niederer_converged.json"
    if not path.is_file():
        pytest.skip(f"converged activation times not found at {path}: run the benchmark first")
    converged = json.loads(path.read_text())["lat_ms"]
    lat = run_niederer(0.2, 0.02, t_end=80.0)["lat_ms"]
    for point in ("P3", "P8"):
        assert lat[point] == pytest.approx(converged[point], rel=FINE_FAR), point
    for point in ("P2", "P9"):
        assert lat[point] == pytest.approx(converged[point], rel=FINE_NEAR), point
