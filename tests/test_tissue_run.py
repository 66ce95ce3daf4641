"""Running from the host: interruption and resume, breakdown, snapshots, full disks."""

import errno

import h5py
import jax
import numpy as np
import pytest

import twinheart as th
from twinheart.errors import InputError, OutputError, SolverError
from twinheart.tissue import Built, Conductivities, build_monodomain, pace, run
from twinheart.tissue.run import VmFile, save_checkpoint

T_END = 24.0  # ms
EVERY = 2.0
MESH = th.mesh.generate.slab((5.0, 2.0, 1.0), 0.5)
TISSUE = Conductivities(0.3, 0.1, 0.6, 0.4)
END = "box:0,0,0,0.5,2,1"


def build(stimuli=None, dt=0.05, mesh=MESH, **options) -> Built:
    heart = th.Heart(mesh, f0=np.tile([1.0, 0.0, 0.0], (mesh.n_tets, 1)))
    weights = np.random.default_rng(0).normal(size=(2, mesh.n_nodes))
    return build_monodomain(
        heart,
        th.cell.get_model("mitchell-schaeffer"),
        TISSUE,
        [pace(END)] if stimuli is None else stimuli,
        dt=dt,
        smoothing=0.5,
        may_block=True,
        lead_field=weights,
        **options,
    )


@pytest.fixture(scope="module")
def built() -> Built:
    return build(probes=np.array([0, MESH.n_nodes - 1]))


def go(built, t_end=T_END, **options):
    return run(built, t_end, points=MESH.points, **options)


def identical(one, other) -> bool:
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in leaves)


def interrupt_at(t_stop):
    def progress(t, t_end):
        if t >= t_stop:
            raise KeyboardInterrupt

    return progress


def read(path):
    with h5py.File(path) as file:
        return file["t"][:], file["vm"][:]


def test_interrupted_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit(built, tmp_path):
    whole = go(built, snapshots=tmp_path / "whole.h5", snapshot_every=EVERY)
    part, checkpoint = tmp_path / "part.h5", tmp_path / "run.ckpt"
    options = {"snapshots": part, "snapshot_every": EVERY, "checkpoint": checkpoint}
    with pytest.raises(KeyboardInterrupt):
        go(built, progress=interrupt_at(9.0), **options)
    assert not part.exists()
    assert checkpoint.exists()
    with pytest.raises(KeyboardInterrupt):  # a second time
        go(built, progress=interrupt_at(15.0), resume=True, **options)
    resumed = go(built, resume=True, **options)
    assert identical(resumed.state, whole.state)
    assert identical(resumed.samples, whole.samples)
    assert np.isfinite(resumed.state.lat).any()
    for one, other in zip(read(part), read(tmp_path / "whole.h5"), strict=True):
        assert (one == other).all()
    assert resumed.steps < whole.steps


def test_finished_run_resumed_from_its_last_checkpoint_computes_nothing(built, tmp_path):
    whole = go(built)
    save_checkpoint(tmp_path / "end.ckpt", built.problem, whole.state, [whole.samples])
    again = go(built, checkpoint=tmp_path / "end.ckpt", resume=True)
    assert again.steps == 0
    assert identical(again.samples, whole.samples)


def test_snapshots_newer_than_the_checkpoint_are_computed_again(built, tmp_path):
    """A killed process leaves a file that is ahead of the last checkpoint."""
    path = tmp_path / "vm.h5"
    file = VmFile(path, MESH.n_nodes)
    for t in (0.0, 2.0, 4.0):
        file.append(t, np.full(MESH.n_nodes, t, np.float32))
    file.close()
    resumed = VmFile(path, MESH.n_nodes, resume_at=2.0)
    resumed.append(4.0, np.full(MESH.n_nodes, -1.0, np.float32))
    resumed.finish()
    t, vm = read(path)
    assert t.tolist() == [0.0, 2.0, 4.0]
    assert vm[:, 0].tolist() == [0.0, 2.0, -1.0]


def test_checkpoint_of_another_problem_is_refused(built, tmp_path):
    checkpoint = tmp_path / "run.ckpt"
    with pytest.raises(KeyboardInterrupt):
        go(built, checkpoint=checkpoint, progress=interrupt_at(0.0))
    other = build([pace(END, amplitude=51.0)], probes=np.array([0, MESH.n_nodes - 1]))
    with pytest.raises(InputError, match="belongs to another"):
        go(other, checkpoint=checkpoint, resume=True)


@pytest.mark.parametrize("content", [b"", b"not hdf5 at all"])
def test_damaged_checkpoint_is_refused(built, tmp_path, content):
    (tmp_path / "run.ckpt").write_bytes(content)
    with pytest.raises(InputError, match="not a readable checkpoint"):
        go(built, checkpoint=tmp_path / "run.ckpt", resume=True)


def test_resume_without_a_checkpoint_is_refused(built, tmp_path):
    with pytest.raises(InputError, match="no checkpoint to resume from"):
        go(built, checkpoint=tmp_path / "none.ckpt", resume=True)
    with pytest.raises(InputError, match="needs the path"):
        go(built, resume=True)


@pytest.mark.parametrize("amplitude", [1e6, -1e6])
def test_breakdown_names_time_node_and_likely_cause(tmp_path, amplitude):
    with pytest.raises(SolverError) as caught:
        go(build([pace(END, amplitude=amplitude)]), snapshots=tmp_path / "vm.h5")
    text = str(caught.value)
    assert "t = 0.50 ms" in text
    assert "dt = 0.05 ms" in text
    assert "stimulus" in text
    node = int(text.split("node ")[1].split()[0])
    place = ", ".join(f"{x:.1f}" for x in MESH.points[node])
    assert MESH.points[node, 0] <= 1.0  # where the stimulus acts, or one edge beside
    assert f"({place})" in text
    assert list(tmp_path.iterdir()) == []


def test_snapshots_are_in_mesh_order_at_their_times(built, tmp_path):
    done = go(built, snapshots=tmp_path / "vm.h5", snapshot_every=EVERY)
    t, vm = read(tmp_path / "vm.h5")
    assert vm.shape == (len(t), MESH.n_nodes)
    assert vm.dtype == np.float32
    assert t == pytest.approx(np.arange(0.0, T_END + 0.1, EVERY), abs=1e-4)
    assert (vm[-1] == built.problem.tissue.to_mesh_order(done.state.vm)).all()
    at = np.searchsorted(done.samples.t, t[1:] - 1e-3)
    assert (vm[1:, [0, MESH.n_nodes - 1]] == done.samples.probes[at]).all()
    x = MESH.points[:, 0]
    early = vm[1]
    assert early[x == 0].min() > early[x == 5].max()  # the wave starts at x = 0
    assert list(tmp_path.iterdir()) == [tmp_path / "vm.h5"]


def test_unwritable_folder_is_an_output_error(built, tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        go(built, snapshots=tmp_path / "missing" / "vm.h5")


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_disk_full_while_streaming_leaves_no_partial_file(built, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(h5py.File, "flush", full_disk)
        with pytest.raises(OutputError, match="No space left"):
            go(built, snapshots=tmp_path / "vm.h5")
    assert list(tmp_path.iterdir()) == []


def test_disk_full_while_saving_keeps_the_older_checkpoint(built, tmp_path, monkeypatch):
    checkpoint = tmp_path / "run.ckpt"
    with pytest.raises(KeyboardInterrupt):
        go(built, checkpoint=checkpoint, progress=interrupt_at(0.0))
    before = checkpoint.read_bytes()
    state = jax.tree.map(np.asarray, go(built).state)
    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        save_checkpoint(checkpoint, built.problem, state, [])
    assert checkpoint.read_bytes() == before
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_run_shorter_than_a_block_runs_one_block(built):
    done = go(built, t_end=0.1)
    assert done.steps == built.problem.block
    assert len(done.samples.t) == 1


def test_default_time_step_runs_no_block_too_many():
    """0.02 ms is less in float32, and sixty such blocks end just before 30 ms."""
    done = go(build(dt=0.02), t_end=30.0)
    assert done.steps == 1500
    assert done.samples.t[-1] == pytest.approx(30.0, abs=1e-3)


def test_stop_ends_a_run_early(built):
    done = go(built, stop=lambda state: bool(np.isfinite(state.lat).any()))
    assert np.isfinite(done.state.lat).any()
    assert done.steps * 0.05 < T_END


def test_two_pulses_give_two_upstrokes():
    train = pace(END, start=2.0, period=500.0, count=2)
    probe = int(np.linalg.norm(MESH.points - [4.0, 1.0, 0.5], axis=1).argmin())
    built = build([train], probes=np.array([probe]))
    done = go(built, t_end=530.0)
    vm = done.samples.probes[:, 0]
    upstrokes = done.samples.t[1:][(vm[:-1] < 0) & (vm[1:] >= 0)]
    assert upstrokes.size == 2
    # the second beat runs in tissue not fully recovered: a little later, never earlier
    assert 499.0 < upstrokes[1] - upstrokes[0] < 520.0


def test_progress_reaches_the_end(built):
    seen = []
    go(built, progress=lambda t, t_end: seen.append((t, t_end)))
    times = [t for t, _ in seen]
    assert times == sorted(times)
    assert seen[-1] == pytest.approx((T_END, T_END), abs=1e-3)
