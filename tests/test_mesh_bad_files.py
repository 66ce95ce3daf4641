"""Files from strangers: missing, truncated, damaged or hostile ones give one clear line."""

import contextlib
import random
import re
import time

import h5py
import meshio
import numpy as np
import pytest
from mesh_samples import irregular, sphere_surface, with_fields

from twinheart.errors import InputError, MeshError, TwinheartError
from twinheart.mesh import TetMesh
from twinheart.mesh.io import read_mesh, write_mesh
from twinheart.mesh.io.read import READERS

MESH = with_fields(irregular())
KINDS = ["vtu-raw", "vtu-zlib", "vtu-text", "vtk-text", "vtk-binary", "vtkhdf", "msh-text",
         "msh-binary", "xdmf", "stl-text", "stl-binary", "ply-text", "ply-binary", "obj",
         "node", "pts"]  # fmt: skip


def one_line(error) -> str:
    """The message, which must be a single line."""
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


def sample(folder, kind):
    """A sound file of this kind."""
    suffix, _, form = kind.partition("-")
    path = folder / f"a.{suffix}"
    surface = sphere_surface()
    if suffix in ("stl", "ply", "obj"):
        data = meshio.Mesh(surface.points, {"triangle": surface.triangles})
        options = {} if suffix == "obj" else {"binary": form == "binary"}
        meshio.write(path, data, **options)
        return path
    if suffix == "vtkhdf" or kind == "vtu-zlib":
        write_mesh(path, MESH)
        return path
    if suffix == "pts":
        write_mesh(path, TetMesh(MESH.points, MESH.tets))
        return path
    if suffix == "node":
        rows = [f"{i} {x} {y} {z}" for i, (x, y, z) in enumerate(MESH.points.tolist())]
        path.write_text(f"{MESH.n_nodes} 3 0 0\n" + "\n".join(rows))
        rows = [f"{i} {a} {b} {c} {d}" for i, (a, b, c, d) in enumerate(MESH.tets.tolist())]
        (folder / "a.ele").write_text(f"{MESH.n_tets} 4 0\n" + "\n".join(rows))
        return path
    fields = {k: [v] for k, v in MESH.cell_fields.items()}
    data = meshio.Mesh(MESH.points, {"tetra": MESH.tets}, MESH.point_fields, fields)
    if kind == "msh-text":  # meshio cannot write fields as text with numpy 2
        data = meshio.Mesh(MESH.points, {"tetra": MESH.tets})
    options = {"vtu-raw": {"binary": True, "compression": None}, "vtu-text": {"binary": False},
               "vtk-text": {"binary": False}, "vtk-binary": {"binary": True},
               "msh-text": {"binary": False, "file_format": "gmsh"},
               "msh-binary": {"binary": True, "file_format": "gmsh"},
               "xdmf": {"data_format": "XML"}}  # fmt: skip
    meshio.write(path, data, **options[kind])
    return path


@pytest.mark.parametrize("suffix", sorted(READERS))
def test_missing_file(tmp_path, suffix):
    with pytest.raises(InputError, match="no such file") as error:
        read_mesh(tmp_path / f"nowhere{suffix}")
    one_line(error)


@pytest.mark.parametrize("suffix", sorted(READERS))
def test_empty_file_folder_and_text(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"")
    with pytest.raises(InputError) as error:
        read_mesh(path)
    one_line(error)
    path.write_text("Dear colleague,\nplease find attached\nthe heart.\n")
    with pytest.raises(TwinheartError) as error:
        read_mesh(path)
    one_line(error)
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError) as error:
        read_mesh(path)
    one_line(error)


def test_unknown_suffix(tmp_path):
    for name in ("heart.docx", "heart"):
        with pytest.raises(InputError, match=r"no mesh format has the suffix.*known are \.vtu"):
            read_mesh(tmp_path / name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_file_is_read(tmp_path, kind):
    mesh, report = read_mesh(sample(tmp_path, kind), length_unit="mm")
    assert mesh.n_nodes > 8
    assert report.repairs == ()


@pytest.mark.parametrize("kind", [k for k in KINDS if not k.startswith("obj")])
def test_truncated_files_are_refused(tmp_path, kind):
    path = sample(tmp_path, kind)
    data = path.read_bytes()
    cuts = {1, 30, len(data) // 3, len(data) // 2, (9 * len(data)) // 10, len(data) - 30}
    for cut in cuts | set(random.Random(1).sample(range(len(data) - 30), 6)):
        path.write_bytes(data[:cut])
        with pytest.raises(TwinheartError) as error:
            read_mesh(path, length_unit="mm")
        one_line(error)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_never_crash(tmp_path, kind):
    """Random bytes changed: an error of ours or a mesh, in bounded time."""
    path = sample(tmp_path, kind)
    data = path.read_bytes()
    chance = random.Random(kind)
    start = time.monotonic()
    for trial in range(60):
        damaged = bytearray(data)
        for _ in range(chance.choice((1, 3, 20))):
            # the headers at the beginning are where counts are
            at = chance.randrange(len(data) if trial % 2 else min(len(data), 600))
            damaged[at] = chance.choice((chance.randrange(256), ord("9"), ord("-"), 255, 0))
        path.write_bytes(damaged)
        with contextlib.suppress(TwinheartError):
            read_mesh(path, length_unit="mm")
    assert time.monotonic() - start < 60


def test_truncated_vtu_says_so(tmp_path):
    for kind in ("vtu-raw", "vtu-zlib", "vtu-text"):
        path = sample(tmp_path, kind)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(InputError, match=r"a\.vtu.*truncated") as error:
            read_mesh(path)
        one_line(error)


@pytest.mark.parametrize("suffix", ["vtu", "vtp", "xdmf"])
@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
        '<!DOCTYPE a SYSTEM "http://example.org/a.dtd">',
    ],
)
def test_xml_tricks_are_refused(tmp_path, suffix, head):
    path = tmp_path / f"a.{suffix}"
    path.write_text(f'<?xml version="1.0"?>{head}<VTKFile type="UnstructuredGrid">&e;</VTKFile>')
    with pytest.raises(InputError, match="document type or entities") as error:
        read_mesh(path)
    one_line(error)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('NumberOfPoints="{n}"', 'NumberOfPoints="99999999999"'),
        ('NumberOfPoints="{n}"', 'NumberOfPoints="-1"'),
        ('NumberOfPoints="{n}"', 'NumberOfPoints="many"'),
        ('NumberOfPoints="{n}"', 'NumberOfPoints="61"'),
        ('NumberOfCells="{m}"', 'NumberOfCells="99999999999"'),
        ('type="Float64"', 'type="Float65"'),
        ('NumberOfComponents="3"', 'NumberOfComponents="999999999"'),
        ('offset="0"', 'offset="999999999"'),
        ("vtkZLibDataCompressor", "vtkMagicCompressor"),
        ("UnstructuredGrid", "ImageData"),
    ],
)
def test_lies_in_a_vtu_are_caught(tmp_path, old, new):
    path = sample(tmp_path, "vtu-zlib")
    old = old.format(n=MESH.n_nodes, m=MESH.n_tets).encode()
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new.encode()))
    with pytest.raises(InputError, match=re.escape("a.vtu")) as error:
        read_mesh(path)
    one_line(error)


def test_a_decompression_bomb_is_not_opened(tmp_path):
    """A block that inflates to more than it declares stops at what it declares."""
    import zlib

    path = sample(tmp_path, "vtu-zlib")
    data = path.read_bytes()
    start = data.index(b"\n_") + 2
    bomb = zlib.compress(bytes(50_000_000), 9)
    head = np.frombuffer(data, "<u8", 4, start)
    new = np.array([1, head[1], head[2], len(bomb)], dtype="<u8").tobytes() + bomb
    path.write_bytes(data[:start] + new + data[start:])
    with pytest.raises(InputError):
        read_mesh(path)


@pytest.mark.parametrize(
    "text",
    ["POINTS 99999999999 double", "POINTS -5 double", "POINTS 60 quad", "POINTS", "POINTS 60"],
)
def test_lies_in_a_legacy_file_are_caught(tmp_path, text):
    path = sample(tmp_path, "vtk-binary")
    data = re.sub(rb"POINTS \d+ double", text.encode(), path.read_bytes(), count=1)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.vtk") as error:
        read_mesh(path)
    one_line(error)


def test_xdmf_may_not_reach_into_other_folders(tmp_path):
    path = tmp_path / "a.xdmf"
    meshio.write(path, meshio.Mesh(MESH.points, {"tetra": MESH.tets}), data_format="HDF")
    assert read_mesh(path)[0].n_tets == MESH.n_tets
    text = path.read_text()
    for elsewhere in ("/etc/a.h5", "../a.h5", "C:\\a.h5", "http://example.org/a.h5"):
        path.write_text(text.replace("a.h5", elsewhere))
        with pytest.raises(InputError, match="outside its own folder"):
            read_mesh(path)
    path.write_text(text.replace("a.h5", "b.h5"))
    with pytest.raises(InputError, match="not beside it"):
        read_mesh(path)


def test_vtkhdf_may_not_reach_into_other_files(tmp_path):
    path = sample(tmp_path, "vtkhdf")
    with h5py.File(path, "r+") as file:
        values = file["VTKHDF/Points"][:]
        del file["VTKHDF/Points"]
        values.tofile(tmp_path / "raw.bin")
        external = [(str(tmp_path / "raw.bin"), 0, values.nbytes)]
        file.create_dataset("VTKHDF/Points", values.shape, values.dtype, external=external)
    with pytest.raises(InputError, match="in another file"):
        read_mesh(path)


def test_vtkhdf_claims_are_checked(tmp_path):
    path = sample(tmp_path, "vtkhdf")
    with h5py.File(path, "r+") as file:
        del file["VTKHDF/Points"]
        file.create_dataset("VTKHDF/Points", (10**12, 3), "f8", chunks=(1000, 3))
        file["VTKHDF/NumberOfPoints"][0] = 10**12
    with pytest.raises(InputError, match="more than a file of"):
        read_mesh(path)


def test_indices_outside_the_mesh(tmp_path):
    path = tmp_path / "a.vtu"
    meshio.write(path, meshio.Mesh(MESH.points, {"tetra": MESH.tets + 5}))
    with pytest.raises(MeshError, match=r"a\.vtu: cell \d+ points at node \d+") as error:
        read_mesh(path)
    one_line(error)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_coordinates_that_are_not_finite(tmp_path, value):
    points = MESH.points.copy()
    points[3, 2] = value
    for suffix in ("vtu", "vtk"):
        path = tmp_path / f"a.{suffix}"
        meshio.write(path, meshio.Mesh(points, {"tetra": MESH.tets}))
        with pytest.raises(MeshError, match=rf"a\.{suffix}.*not finite.*node 3") as error:
            read_mesh(path)
        one_line(error)


def test_tets_without_volume(tmp_path):
    path = tmp_path / "a.vtu"
    flat = MESH.points * np.array([1, 1, 0])
    meshio.write(path, meshio.Mesh(flat, {"tetra": MESH.tets}))
    with pytest.raises(MeshError, match=r"tetrahedra without volume.*broken") as error:
        read_mesh(path, length_unit="mm")
    one_line(error)


def test_obj_errors_name_the_line(tmp_path):
    path = tmp_path / "a.obj"
    for line in ("v 1 2", "v a b c", "f 1 2", "f 1 2 9", "f 0 1 2"):
        path.write_text(f"v 0 0 0\nv 1 0 0\nv 0 1 0\n{line}\n")
        with pytest.raises(InputError, match=f"line 4: cannot understand '{line}'"):
            read_mesh(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.node", "1 2 0 0\n0 1 2 3\n", "dimension"),
        ("a.node", "2 3 0 0\n0 1 2 3\n", r"header says 2 nodes"),
        ("a.node", "1 3 0 0\n0 1 2\n", "expected 'index x y z'"),
        ("a.node", "2 3 0 0\n0 1 2 3\n5 1 2 3\n", "not numbered in order"),
        ("a.node", "2 3 0 0\n0 1 2 3\n1 1 2\n", r"line 3: has 3 numbers"),
        ("a.ele", "1 5 0\n0 0 1 2 3 4\n", "elements of 5 nodes"),
        ("a.ele", "2 4 0\n0 0 1 2 3\n", r"a\.ele line 1: the header says 2 elements"),
        ("a.ele", "# nothing\n", "holds no numbers"),
        ("a.ele", "610 4 0 BIN\n\0\0", "binary"),
    ],
)
def test_tetgen_damage(tmp_path, name, text, message):
    path = sample(tmp_path, "node")
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_mesh(path, length_unit="mm")
    one_line(error)
