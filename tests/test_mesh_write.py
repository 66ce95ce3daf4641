"""Files are written whole or not at all; VTKHDF series are what ParaView expects."""

import os
import resource
import stat
from contextlib import contextmanager

import h5py
import numpy as np
import pytest
import pyvista
from mesh_samples import irregular, sphere_surface, with_fields
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkIOHDF import vtkHDFReader

from twinheart.errors import InputError, OutputError
from twinheart.mesh import TetMesh
from twinheart.mesh.io import VtkHdfWriter, read_mesh, write_mesh
from twinheart.mesh.io.atomic import written_whole
from twinheart.mesh.refine import refine

MESH = with_fields(irregular())
LARGE = refine(refine(MESH))
SUFFIXES = ["vtu", "vtkhdf", "pts", "elem"]


@contextmanager
def disk_of(n_bytes):
    """No file may grow beyond so many bytes: a real failure of the operating system."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def contents(folder):
    """Every file with its bytes."""
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_full_disk_leaves_nothing_behind(tmp_path, suffix):
    with disk_of(20_000), pytest.raises(OutputError, match="cannot write") as error:
        write_mesh(tmp_path / f"a.{suffix}", LARGE)
    assert "\n" not in str(error.value)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_full_disk_keeps_the_old_file(tmp_path, suffix):
    write_mesh(tmp_path / f"a.{suffix}", MESH)
    before = contents(tmp_path)
    with disk_of(20_000), pytest.raises(OutputError):
        write_mesh(tmp_path / f"a.{suffix}", LARGE)
    assert contents(tmp_path) == before


def test_full_disk_of_surfaces(tmp_path):
    surface = sphere_surface()
    for suffix in ("vtp", "stl"):
        with disk_of(1000), pytest.raises(OutputError):
            write_mesh(tmp_path / f"a.{suffix}", surface)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_unwritable_places(tmp_path, suffix):
    with pytest.raises(OutputError, match="folder that exists") as error:
        write_mesh(tmp_path / "none" / f"a.{suffix}", MESH)
    assert "\n" not in str(error.value)
    (tmp_path / f"b.{suffix}").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        write_mesh(tmp_path / f"b.{suffix}", MESH)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_mesh(tmp_path / "file" / f"a.{suffix}", MESH)
    if os.geteuid():  # the superuser may write anywhere
        tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
        with pytest.raises(OutputError, match="Permission denied"):
            write_mesh(tmp_path / f"a.{suffix}", MESH)
        tmp_path.chmod(stat.S_IRWXU)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError("bug"), OSError(28, "No space")])
def test_any_interruption_removes_the_partial_file(tmp_path, failure):
    target = tmp_path / "a.txt"
    target.write_text("old")
    kind = failure if isinstance(failure, type) else type(failure)
    expected = OutputError if issubclass(kind, OSError) else kind

    def write():
        with written_whole(target) as temporary:
            temporary.write_text("half")
            raise failure

    with pytest.raises(expected):
        write()
    assert contents(tmp_path) == {"a.txt": b"old"}


def test_written_files_have_ordinary_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    write_mesh(tmp_path / "a.vtu", MESH)
    assert (tmp_path / "a.vtu").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("name", "mesh", "message"),
    [
        ("a.xyz", MESH, "no writer for '.xyz'"),
        ("a", MESH, "no writer"),
        ("a.vtp", MESH, "take .vtu"),
        ("a.elem", sphere_surface(), "needs tetrahedra"),
    ],
)
def test_what_no_format_can_hold(tmp_path, name, mesh, message):
    with pytest.raises(InputError, match=message):
        write_mesh(tmp_path / name, mesh)
    assert contents(tmp_path) == {}


def series(path, times, mesh=MESH, **options):
    """A time series whose values tell node and time."""
    with VtkHdfWriter(path, mesh, **options) as writer:
        for t in times:
            vm = (1000 * t + np.arange(mesh.n_nodes)).astype(np.float32)
            writer.append(t, {"vm": vm}, {"ca": np.arange(mesh.n_tets) + t})


def by_vtk(path, step):
    """Times, and the grid of one of them, as ParaView's reader sees them."""
    reader = vtkHDFReader()
    reader.SetFileName(str(path))
    reader.UpdateInformation()
    information = reader.GetOutputInformation(0)
    key = reader.GetExecutive().TIME_STEPS()
    times = [information.Get(key, i) for i in range(information.Length(key))]
    reader.SetStep(step)
    reader.UpdateTimeStep(times[step]) if times else reader.Update()
    return times, pyvista.wrap(reader.GetOutput())


def test_series_is_read_by_vtk(tmp_path):
    path = tmp_path / "beat.vtkhdf"
    times = [0.0, 5.0, 12.5]
    series(path, times)
    for step, t in enumerate(times):
        found, grid = by_vtk(path, step)
        assert found == times
        assert np.array_equal(grid.points, MESH.points)
        assert np.array_equal(grid.cells_dict[10], MESH.tets)
        assert np.array_equal(grid.point_data["vm"], 1000 * t + np.arange(MESH.n_nodes))
        assert np.array_equal(grid.cell_data["ca"], np.arange(MESH.n_tets) + t)
        assert np.array_equal(grid.cell_data["region"], MESH.cell_fields["region"])
        assert np.array_equal(grid.point_data["velocity"], MESH.point_fields["velocity"])


def test_mesh_without_times_is_read_by_vtk(tmp_path):
    for mesh in (MESH, sphere_surface()):
        write_mesh(tmp_path / "a.vtkhdf", mesh)
        times, grid = by_vtk(tmp_path / "a.vtkhdf", 0)
        assert times == []
        assert np.array_equal(grid.points, mesh.points)
        for name, values in mesh.point_fields.items():
            assert np.array_equal(grid.point_data[name], values)
        assert grid.n_cells == len(mesh.tets if isinstance(mesh, TetMesh) else mesh.triangles)


def test_series_of_many_nodes_spans_chunks(tmp_path):
    series(tmp_path / "a.vtkhdf", [0.0, 1.0], LARGE)
    _, grid = by_vtk(tmp_path / "a.vtkhdf", 1)
    assert np.array_equal(vtk_to_numpy(grid.GetPointData().GetArray("vm"))[-1:],
                          np.float32([1000 + LARGE.n_nodes - 1]))  # fmt: skip


def test_resumed_series_equals_an_uninterrupted_one(tmp_path):
    whole, resumed = tmp_path / "whole.vtkhdf", tmp_path / "resumed.vtkhdf"
    series(whole, [0.0, 1.0, 2.0, 3.0])
    series(resumed, [0.0, 1.0, 2.0])
    series(resumed, [2.0, 3.0], resume_after=1.5)
    with h5py.File(whole) as a, h5py.File(resumed) as b:
        names = []
        a.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
        assert len(names) > 20
        for name in names:
            assert np.array_equal(a[name][...], b[name][...]), name
        assert a["VTKHDF/Steps"].attrs["NSteps"] == b["VTKHDF/Steps"].attrs["NSteps"]
    assert by_vtk(resumed, 3)[0] == [0.0, 1.0, 2.0, 3.0]


def test_resuming_without_a_file_starts_one(tmp_path):
    series(tmp_path / "a.vtkhdf", [0.0], resume_after=3.0)
    with h5py.File(tmp_path / "a.vtkhdf") as file:
        assert file["VTKHDF/Steps/Values"][:].tolist() == [0.0]


def test_series_cannot_be_continued_with_another_mesh(tmp_path):
    series(tmp_path / "a.vtkhdf", [0.0])
    with pytest.raises(OutputError, match="another mesh"):
        series(tmp_path / "a.vtkhdf", [1.0], LARGE, resume_after=0.0)
    (tmp_path / "b.vtkhdf").write_text("no HDF5")
    with pytest.raises(OutputError, match=r"b\.vtkhdf: .*signature not found"):
        series(tmp_path / "b.vtkhdf", [1.0], resume_after=0.0)


def test_series_checks_its_fields(tmp_path):
    vm = np.zeros(MESH.n_nodes)
    with VtkHdfWriter(tmp_path / "a.vtkhdf", MESH) as writer:
        writer.append(0.0, {"vm": vm})
        for t, fields, message in (
            (0.0, {"vm": vm}, "does not follow"),
            (np.nan, {"vm": vm}, "does not follow"),
            (1.0, {"v": vm}, "expected .'vm'."),
            (1.0, {"vm": vm[1:]}, "rows"),
        ):
            with pytest.raises(OutputError, match=message):
                writer.append(t, fields)
        writer.append(1.0, {"vm": vm})
    with h5py.File(tmp_path / "a.vtkhdf") as file:  # the refused ones left no trace
        steps = file["VTKHDF/Steps"]
        assert {len(steps[n]) for n in steps if isinstance(steps[n], h5py.Dataset)} == {2}
        assert {len(v) for v in steps["PointDataOffsets"].values()} == {2}
        assert len(file["VTKHDF/PointData/vm"]) == 2 * MESH.n_nodes
    with pytest.raises(OutputError, match="one of the mesh"):
        series_of_lat(tmp_path / "b.vtkhdf")
    assert sorted(contents(tmp_path)) == ["a.vtkhdf"]


def series_of_lat(path):
    """A field with the name of one that the mesh has."""
    with VtkHdfWriter(path, MESH) as writer:
        writer.append(0.0, {"lat": np.zeros(MESH.n_nodes)})


def test_full_disk_in_a_series_leaves_nothing_behind(tmp_path):
    noise = np.random.default_rng(0)

    def run():
        with VtkHdfWriter(tmp_path / "a.vtkhdf", LARGE) as writer:
            for t in range(100):
                writer.append(float(t), {"vm": noise.random(LARGE.n_nodes)})

    with disk_of(1_000_000), pytest.raises(OutputError) as error:
        run()
    assert "\n" not in str(error.value)
    assert contents(tmp_path) == {}


def test_interrupted_series_leaves_nothing_behind(tmp_path):
    def run():
        with VtkHdfWriter(tmp_path / "a.vtkhdf", MESH) as writer:
            writer.append(0.0, {"vm": np.zeros(MESH.n_nodes)})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert contents(tmp_path) == {}


def test_first_time_of_a_series_can_be_read(tmp_path):
    series(tmp_path / "a.vtkhdf", [0.0, 7.0])
    mesh, report = read_mesh(tmp_path / "a.vtkhdf")
    assert np.array_equal(mesh.point_fields["vm"], np.arange(MESH.n_nodes))
    assert any("first time" in note for note in report.notes)
    assert report.length_unit == "mm"
