"""One heart over several devices: how it is cut, and that it beats as on one."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sharded_runs import MESH, T_END, two_models
from tolerances import ROUNDING_LAT

from twinheart.errors import InputError
from twinheart.tissue import CrankNicolson, run
from twinheart.tissue.discrete import assemble_cable
from twinheart.tissue.partition import partition
from twinheart.tissue.sharded import Sharded

SCRIPT = Path(__file__).with_name("sharded_runs.py")


@pytest.fixture(scope="module")
def built():
    return two_models()


def environment(devices: int) -> dict[str, str]:
    """Variables of a process that sees this many devices on its CPU."""
    kept = re.sub(
        r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", "")
    )
    flags = f"{kept} --xla_force_host_platform_device_count={devices}"
    return os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def arrived(cut, values):
    """What `Halo.around` gives each part, computed with numpy."""
    parts = cut.to_parts(values).reshape(cut.parts, -1)
    found = []
    for p in range(cut.parts):
        around = [parts[p]]
        for shift, nodes in zip(cut.halo.shifts, cut.halo.send, strict=True):
            lists, sender = nodes.reshape(cut.parts, -1), p - shift
            here = 0 <= sender < cut.parts
            around.append(parts[sender][lists[sender]] if here else np.full(lists.shape[1], np.nan))
        found.append(np.concatenate(around))
    return found


@pytest.mark.parametrize("parts", [1, 2, 8, 60])
def test_every_node_finds_its_neighbours_in_its_part_or_halo(built, parts):
    tissue = built.problem.tissue
    cut = partition(tissue, built.problem.model_sizes, parts)
    values = np.random.default_rng(1).normal(size=tissue.n_nodes)
    columns = cut.columns.reshape(len(cut.columns), parts, -1)
    seen = [around[columns[:, p]] for p, around in enumerate(arrived(cut, values))]
    neighbours = values[np.asarray(tissue.columns)]
    assert np.array_equal(cut.to_nodes(np.concatenate(seen, axis=1)), neighbours)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(5, 400), parts=st.integers(1, 12), share=st.floats(0.1, 0.9))
def test_each_node_lies_once_and_parts_are_even(n, parts, share):
    cable = assemble_cable(n, 0.2).tissue(np.array([[0.1, 0.0, 0.0]]))
    sizes = (max(1, int(share * n)), n - max(1, int(share * n)))
    if min(sizes) < parts:
        with pytest.raises(InputError, match="cannot cut the tissue"):
            partition(cable, sizes, parts)
        return
    cut = partition(cable, sizes, parts)
    assert np.array_equal(np.sort(cut.source[cut.own]), np.arange(n))
    assert np.array_equal(cut.source[cut.place], np.arange(n))
    nodes = cut.own.reshape(parts, -1).sum(axis=1)
    assert nodes.max() - nodes.min() <= len(sizes)
    for k, (among, place) in enumerate(cut.of_models()):
        assert np.array_equal(among[place], np.arange(sizes[k]))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs in a process that sees eight devices."""
    file = tmp_path_factory.mktemp("sharded") / "runs.npz"
    command = [sys.executable, str(SCRIPT), str(file)]
    done = subprocess.run(command, env=environment(8), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = {}
    for path in (file, Path(f"{file}.members.npz")):
        with np.load(path) as arrays:
            found |= {name: arrays[name] for name in arrays.files}
    return found


def same(runs, one, other, lat, vm):
    for name, tolerance in {"lat": lat, "vm": vm, "peak": vm, "probes": vm, "largest": vm}.items():
        np.testing.assert_allclose(
            runs[f"{other}/{name}"], runs[f"{one}/{name}"], rtol=0, atol=tolerance, err_msg=name
        )
    scale = np.abs(runs[f"{one}/potentials"]).max()
    np.testing.assert_allclose(
        runs[f"{other}/potentials"], runs[f"{one}/potentials"], rtol=0, atol=vm * scale
    )


def test_eight_devices_give_the_activation_times_of_one(runs):
    # the wave has crossed every cut; the padding stays at rest
    assert np.isfinite(runs["single/lat"]).sum() == MESH.n_nodes
    same(runs, "single", "single8", ROUNDING_LAT, 0.05)


def test_in_double_precision_they_agree_to_its_rounding(runs):
    same(runs, "double", "double8", 1e-9, 1e-7)


def test_derivatives_over_four_devices_are_those_of_one(runs):
    """Of 25 ms by three diffusivities and a parameter of the cells, in double precision."""
    one, four = runs["derivatives1"], runs["derivatives4"]
    assert (np.abs(one[1:]) > 1e-4 * np.abs(one).max()).all()
    np.testing.assert_allclose(four, one, rtol=1e-9)


def test_a_checkpoint_of_eight_devices_goes_on_with_two(runs):
    same(runs, "single", "resumed", ROUNDING_LAT, 0.05)


def test_an_ensemble_over_four_devices_is_the_one_of_one(runs):
    assert np.isfinite(runs["members1/0"]).sum() > 50
    for k in range(4):
        np.testing.assert_allclose(
            runs[f"members4/{k}"], runs[f"members1/{k}"], rtol=0, atol=ROUNDING_LAT
        )


def test_more_devices_than_there_are_are_refused(built):
    n = jax.device_count() + 1
    with pytest.raises(InputError, match=rf"cannot use {n} devices: jax sees {n - 1}"):
        run(built, T_END, points=MESH.points, devices=n)


def test_a_linear_solver_is_refused(built):
    problem = two_models(scheme=CrankNicolson()).problem
    with pytest.raises(InputError, match="only the explicit schemes"):
        Sharded(problem, 1)


@pytest.mark.slow  # two processes compile at once
def test_two_processes_share_one_heart(built, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    file = tmp_path / "run.npz"
    code = """
import sys, jax
file, port, number = sys.argv[1:]
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=int(number))
from sharded_runs import one_of_several_processes  # only now: jax must not have begun
one_of_several_processes(file)
"""
    environ = environment(1) | {"PYTHONPATH": str(SCRIPT.parent)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(file), port, str(k)],
            env=environ,
            stderr=subprocess.PIPE,
            text=True,
        )
        for k in range(2)
    ]
    errors = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], errors
    alone = run(built, T_END, points=MESH.points)
    with np.load(file) as found:
        assert found["devices"] == 2
        np.testing.assert_allclose(found["lat"], alone.state.lat, rtol=0, atol=ROUNDING_LAT)
