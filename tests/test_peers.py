"""The comparison with TorchCor: what can be checked without its environment."""

import importlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from tolerances import EXACT64

from twinheart.mesh.generate import slab
from twinheart.tissue.niederer import POINTS, SIZE

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def benchmark_module(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.mark.parametrize("edge", [0.5, 1 / 3, 0.2])
def test_point_weights_reproduce_a_linear_field(benchmark_module, edge):
    mesh = slab(SIZE, edge)
    slope = np.array([0.3, -1.2, 2.5])
    found = benchmark_module("_slab").point_weights(mesh)
    for (nodes, weights), point in zip(found, POINTS.values(), strict=True):
        assert weights.min() > -EXACT64
        np.testing.assert_allclose(
            weights @ (mesh.points[nodes] @ slope), np.dot(point, slope), atol=1e-9
        )


def test_error_is_the_rms_of_the_relative_errors(benchmark_module):
    peers = benchmark_module("peers")
    assert {POINTS[p] for p in peers.ERROR_POINTS} == {
        (20.0, 0.0, 0.0), (0.0, 7.0, 0.0), (10.0, 3.5, 1.5), (20.0, 7.0, 3.0),
    }  # fmt: skip
    converged = dict.fromkeys(POINTS, 10.0)
    lat: dict = dict.fromkeys(POINTS, 10.0) | {"P8": 12.0, "P1": 99.0}
    assert peers.relative_error(lat, converged) == pytest.approx(0.1)
    assert peers.relative_error(lat | {"P3": None}, converged) is None


class _Clockwork:
    """Answers with a duration that grows when others are busy."""

    def __init__(self, seconds, busy):
        self.seconds, self.busy = seconds, iter(busy)

    def request(self, **_):
        busy = next(self.busy)
        return {"wall_s": self.seconds * (1 + 30 * busy), "t_ms": 2.0, "others_busy": busy}


def test_only_quiet_timings_count(benchmark_module):
    processes = benchmark_module("_processes")
    busy = [1.0, 0.0, 0.0, *[0.9] * processes.ATTEMPTS, 0.0, 0.0, 0.0]
    peer, own = _Clockwork(4.0, busy), _Clockwork(1.0, [0.0] * 6)
    timed = processes.take_turns({"peer": (peer, {}), "own": (own, {})})
    assert timed["quiet"]
    assert timed["seconds"] == {"peer": [2.0] * 5, "own": [0.5] * 5}


def test_a_busy_machine_is_said_to_be_busy(benchmark_module):
    processes = benchmark_module("_processes")
    child = _Clockwork(1.0, [1.0] * processes.MAX_ROUNDS * processes.ATTEMPTS)
    timed = processes.take_turns({"own": (child, {})})
    assert not timed["quiet"]
    assert timed["rounds"] == processes.MAX_ROUNDS


def test_a_child_that_dies_is_quoted(benchmark_module, tmp_path):
    script = tmp_path / "broken.py"
    script.write_text("raise ValueError('no such mesh')")
    with pytest.raises(SystemExit, match="no such mesh"):
        benchmark_module("_processes").Child(
            [sys.executable, str(script)], dict(os.environ), tmp_path
        )
