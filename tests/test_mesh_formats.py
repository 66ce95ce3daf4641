"""Every format comes back as it was written: by pyvista, by meshio, by hand and by twinheart."""

import itertools

import meshio
import numpy as np
import pytest
import pyvista
from mesh_samples import irregular, sphere_surface, with_fields
from tolerances import EXACT32, EXACT64
from vtkmodules.vtkIOLegacy import vtkPolyDataWriter, vtkUnstructuredGridWriter
from vtkmodules.vtkIOXML import vtkXMLPolyDataWriter, vtkXMLUnstructuredGridWriter

from twinheart.errors import InputError, MeshError, UnitError
from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.io import inspect_mesh, read_mesh, write_mesh

MESH = with_fields(irregular())
SURFACE = sphere_surface()


def to_pyvista(mesh):
    """The same mesh as pyvista has it, through neither reader nor writer of ours."""
    if isinstance(mesh, TetMesh):
        cells = np.insert(mesh.tets, 0, 4, axis=1)
        grid = pyvista.UnstructuredGrid(cells, np.full(mesh.n_tets, 10), mesh.points)
    else:
        grid = pyvista.PolyData(mesh.points, np.insert(mesh.triangles, 0, 3, axis=1))
    for name, values in mesh.point_fields.items():
        grid.point_data[name] = values
    for name, values in mesh.cell_fields.items():
        grid.cell_data[name] = values
    return grid


def assert_same(read, mesh, tolerance=EXACT64):
    """Same points, cells, and fields by name, value and kind of number."""
    cells = ("tets", mesh.tets) if isinstance(mesh, TetMesh) else ("triangles", mesh.triangles)
    assert np.allclose(read.points, mesh.points, rtol=tolerance, atol=100 * tolerance)
    assert np.array_equal(getattr(read, cells[0]), cells[1])
    for ours, theirs in (
        (read.point_fields, mesh.point_fields),
        (read.cell_fields, mesh.cell_fields),
    ):
        assert set(theirs) <= set(ours)
        for name, values in theirs.items():
            assert ours[name].shape == values.shape
            assert ours[name].dtype.kind == values.dtype.kind
            assert np.allclose(ours[name], values, rtol=max(tolerance, 1e-7), atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "compressor", "order"), list(itertools.product((0, 1, 2), (0, 1, 2, 3), (0, 1)))
)
def test_vtk_xml_in_every_encoding(tmp_path, mode, compressor, order):
    """Text, inline and appended; none, zlib, LZ4 and LZMA; both byte orders and header sizes."""
    for mesh, writer, suffix in (
        (MESH, vtkXMLUnstructuredGridWriter(), ".vtu"),
        (SURFACE, vtkXMLPolyDataWriter(), ".vtp"),
    ):
        for header, encoded in ((32, 0), (64, 1)):
            path = tmp_path / f"a{suffix}"
            writer.SetInputData(to_pyvista(mesh))
            writer.SetFileName(str(path))
            writer.SetDataMode(mode)
            writer.SetCompressorType(compressor)
            writer.SetByteOrder(order)
            writer.SetHeaderType(header)
            writer.SetEncodeAppendedData(encoded)
            writer.SetBlockSize(1024)
            writer.Write()
            read, report = read_mesh(path, length_unit="mm")
            assert_same(read, mesh, EXACT32 if mode == 0 else EXACT64)
            assert report.repairs == ()


@pytest.mark.parametrize(("kind", "version"), list(itertools.product((1, 2), (42, 51))))
def test_vtk_legacy_in_both_versions(tmp_path, kind, version):
    for mesh, writer in ((MESH, vtkUnstructuredGridWriter()), (SURFACE, vtkPolyDataWriter())):
        path = tmp_path / "a.vtk"
        writer.SetInputData(to_pyvista(mesh))
        writer.SetFileName(str(path))
        writer.SetFileType(kind)
        writer.SetFileVersion(version)
        writer.Write()
        read, _ = read_mesh(path, length_unit="mm")
        assert_same(read, mesh, EXACT32 if kind == 1 else EXACT64)


def test_vtk_legacy_written_by_hand(tmp_path):
    path = tmp_path / "old.vtk"
    path.write_text(
        "# vtk DataFile Version 2.0\nby hand\nASCII\nDATASET UNSTRUCTURED_GRID\n"
        "POINTS 6 float\n0 0 0  80 0 0  0 80 0\n0 0 80  80 80 80 7 7 7\n"
        "CELLS 3 14\n4 0 1 2 3\n4 1 2 3 4\n3 0 1 2\nCELL_TYPES 3\n10\n10\n5\n"
        "POINT_DATA 6\nSCALARS lat double\nLOOKUP_TABLE default\n0 1 2 3 4 5\n"
        "VECTORS fibre float\n1 0 0 1 0 0 1 0 0 1 0 0 1 0 0 1 0 0\n"
        "CELL_DATA 3\nSCALARS tag int 1\n5 6 7\n"
    )
    mesh, report = read_mesh(path)
    assert mesh.n_nodes == 5
    assert mesh.point_fields["lat"].tolist() == [0, 1, 2, 3, 4]
    assert mesh.cell_fields["tag"].tolist() == [5, 6]
    assert report.fibres == "point field 'fibre'"
    assert any("1 of kind 'triangle'" in note for note in report.notes)


@pytest.mark.parametrize(
    ("suffix", "format_name"),
    [("msh", "gmsh22"), ("msh", "gmsh"), ("xdmf", "xdmf"), ("vtu", "vtu"), ("vtk", "vtk")],
)
def test_what_meshio_writes(tmp_path, suffix, format_name):
    mesh = MESH
    if suffix == "msh":  # Gmsh keeps every field as real numbers, but tags come back as integers
        point = {k: v.astype(float) for k, v in MESH.point_fields.items()}
        mesh = TetMesh(MESH.points, MESH.tets, point, MESH.cell_fields)
    cell_fields = {k: [v] for k, v in mesh.cell_fields.items()}
    path = tmp_path / f"a.{suffix}"
    meshio.write(
        path,
        meshio.Mesh(mesh.points, {"tetra": mesh.tets}, mesh.point_fields, cell_fields),
        file_format=format_name,
    )
    read, _ = read_mesh(path, length_unit="mm")
    assert_same(read, mesh)


def test_gmsh_physical_groups_are_regions(tmp_path):
    path = tmp_path / "a.msh"
    tags = np.arange(MESH.n_tets) % 2 + 10
    data = {"gmsh:physical": [tags], "gmsh:geometrical": [tags]}
    meshio.write(path, meshio.Mesh(MESH.points, {"tetra": MESH.tets}, {}, data), "gmsh22")
    _, report = read_mesh(path, length_unit="mm")
    assert set(report.regions) == {10, 11}


def test_gmsh_text_as_gmsh_writes_it(tmp_path):
    path = tmp_path / "a.msh"
    path.write_text(
        '$MeshFormat\n4.1 0 8\n$EndMeshFormat\n$PhysicalNames\n2\n3 7 "LV wall"\n3 8 "scar"\n'
        "$EndPhysicalNames\n$Entities\n0 0 0 2\n1 0 0 0 80 80 80 1 7 0\n"
        "2 0 0 0 80 80 80 1 8 0\n$EndEntities\n$Nodes\n1 5 1 5\n3 1 0 5\n1\n2\n3\n4\n5\n"
        "0 0 0\n80 0 0\n0 80 0\n0 0 80\n80 80 80\n$EndNodes\n$Elements\n2 2 1 2\n"
        "3 1 4 1\n1 1 2 3 4\n3 2 4 1\n2 2 3 4 5\n$EndElements\n"
        '$ElementData\n1\n"fibre"\n1\n0.0\n3\n0\n3\n2\n1 1 0 0\n2 0 0.6 0.8\n$EndElementData\n'
    )
    mesh, report = read_mesh(path)
    assert mesh.tets.tolist() == [[0, 1, 2, 3], [1, 2, 3, 4]]
    assert report.regions == {7: 1, 8: 1}
    assert report.fibres == "cell field 'fibre'"
    assert "physical group 'scar' is tag 8" in report.notes


@pytest.mark.parametrize(
    ("suffix", "binary"), list(itertools.product(("stl", "ply"), (True, False)))
)
def test_surfaces_by_pyvista(tmp_path, suffix, binary):
    path = tmp_path / f"a.{suffix}"
    to_pyvista(SURFACE).save(path, binary=binary)
    read, report = read_mesh(path, length_unit="mm")
    assert report.closed
    assert read.n_triangles == SURFACE.n_triangles
    if suffix == "ply":
        assert np.array_equal(read.triangles, SURFACE.triangles)
    assert np.isclose(
        report.enclosed_volume_ml, examine_volume(SURFACE), rtol=EXACT32, atol=EXACT32
    )


def examine_volume(mesh: TriMesh) -> float:
    """Volume inside, by VTK."""
    return to_pyvista(mesh).volume / 1000


def test_ply_with_fields_quads_and_mixed_faces(tmp_path):
    path = tmp_path / "a.ply"
    path.write_text(
        "ply\nformat ascii 1.0\ncomment by hand\nelement vertex 5\nproperty float x\n"
        "property float y\nproperty float z\nproperty uchar class\nelement face 2\n"
        "property list uchar int vertex_index\nproperty int label\nend_header\n"
        "0 0 0 1\n90 0 0 1\n90 90 0 2\n0 90 0 2\n45 45 90 3\n4 0 1 2 3 8\n3 0 1 4 9\n"
    )
    mesh, _ = read_mesh(path)
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 4]]
    assert mesh.cell_fields["label"].tolist() == [8, 8, 9]
    assert mesh.point_fields["class"].tolist() == [1, 1, 2, 2, 3]


def test_obj_with_polygons_and_negative_indices(tmp_path):
    path = tmp_path / "a.obj"
    path.write_text(
        "# by hand\nmtllib none.mtl\nv 0 0 0\nv 90 0 0\nv 90 90 0\nv 0 90 0\nvt 0 0\nv 45 45 90\n"
        "g patch\nf 1/1 2/1 3/1 4/1\nf -1 1//2 2//2\n"
    )
    mesh, _ = read_mesh(path)
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3], [4, 0, 1]]


def test_polydata_strips_and_polygons(tmp_path):
    points = np.array([[0.0, 0, 0], [90, 0, 0], [0, 90, 0], [90, 90, 0], [45, 120, 60]])
    grid = pyvista.PolyData(points, faces=[3, 2, 3, 4], strips=[4, 0, 1, 2, 3])
    for suffix in ("vtp", "vtk"):
        grid.save(tmp_path / f"a.{suffix}")
        mesh, _ = read_mesh(tmp_path / f"a.{suffix}")
        assert sorted(map(sorted, mesh.triangles.tolist())) == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
        normals = np.cross(
            points[mesh.triangles[:, 1]] - points[mesh.triangles[:, 0]],
            points[mesh.triangles[:, 2]] - points[mesh.triangles[:, 0]],
        )
        flat = np.all(points[mesh.triangles][:, :, 2] == 0, axis=1)
        assert np.all(normals[flat][:, 2] > 0)  # both triangles of the strip look the same way


def test_pieces_are_joined(tmp_path):
    parts = MESH.tets[:20], MESH.tets[20:]
    text = '<VTKFile type="UnstructuredGrid" version="0.1"><UnstructuredGrid>'
    for tets, name in zip(parts, ("a", "b"), strict=True):
        text += f'<Piece NumberOfPoints="{MESH.n_nodes}" NumberOfCells="{len(tets)}">'
        text += '<CellData><DataArray type="Int32" Name="tag" format="ascii">'
        text += " ".join(map(str, range(len(tets)))) + "</DataArray>"
        text += f'<DataArray type="Int32" Name="{name}" format="ascii">'
        text += " ".join("1" * len(tets)) + "</DataArray></CellData>"
        text += '<Points><DataArray type="Float64" NumberOfComponents="3" format="ascii">'
        text += " ".join(map(repr, MESH.points.ravel().tolist())) + "</DataArray></Points><Cells>"
        for array, values in (
            ("connectivity", tets.ravel()),
            ("offsets", 4 * np.arange(1, len(tets) + 1)),
            ("types", np.full(len(tets), 10)),
        ):
            text += f'<DataArray type="Int64" Name="{array}" format="ascii">'
            text += " ".join(map(str, values.tolist())) + "</DataArray>"
        text += "</Cells></Piece>"
    path = tmp_path / "pieces.vtu"
    path.write_text(text + "</UnstructuredGrid></VTKFile>")
    mesh, report = read_mesh(path)
    assert mesh.n_nodes == MESH.n_nodes  # those at the seam were merged
    assert np.array_equal(mesh.points[mesh.tets], MESH.points[MESH.tets])
    assert list(mesh.cell_fields) == ["tag"]
    assert "2 pieces were joined" in report.notes


@pytest.mark.parametrize("base", [0, 1])
def test_tetgen_in_both_bases(tmp_path, base):
    mesh = irregular(size=10.0)
    rows = [f"{i + base} {x} {y} {z} {i % 3}" for i, (x, y, z) in enumerate(mesh.points.tolist())]
    (tmp_path / "a.node").write_text(
        f"# nodes\n{mesh.n_nodes} 3 0 1\n" + "\n".join(rows) + "\n# end\n"
    )
    rows = [f"{i + base} {a} {b} {c} {d} 4" for i, (a, b, c, d) in
            enumerate((mesh.tets + base).tolist())]  # fmt: skip
    (tmp_path / "a.ele").write_text(f"{mesh.n_tets} 4 1\n" + "\n".join(rows) + "\n")
    for suffix in (".node", ".ele"):
        read, report = read_mesh(tmp_path / f"a{suffix}", length_unit="cm")
        assert np.allclose(read.points, 10 * mesh.points, rtol=EXACT64)
        assert np.array_equal(read.tets, mesh.tets)
        assert report.regions == {4: mesh.n_tets}


def test_second_order_tetrahedra_become_linear(tmp_path):
    path = tmp_path / "a.vtu"
    points = np.concatenate([np.zeros((1, 3)), np.eye(3), np.full((6, 3), 0.5)]) * 80
    meshio.write(path, meshio.Mesh(points, {"tetra10": [list(range(10))]}))
    mesh, report = read_mesh(path)
    assert mesh.tets.tolist() == [[0, 1, 2, 3]]
    assert any("1 second-order tetrahedron made linear" in note for note in report.notes)
    assert report.repairs == ("removed 6 orphan nodes",)


def test_quads_become_triangles(tmp_path):
    path = tmp_path / "a.vtu"
    points = np.array([[0.0, 0, 0], [90, 0, 0], [90, 90, 9], [0, 90, 0]])
    meshio.write(
        path, meshio.Mesh(points, {"quad": [[0, 1, 2, 3]]}, cell_data={"tag": [np.array([7])]})
    )
    mesh, report = read_mesh(path, length_unit="mm")
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert mesh.cell_fields["tag"].tolist() == [7, 7]
    assert report.n_triangles == 2


@pytest.mark.parametrize("kind", ["hexahedron", "wedge", "pyramid"])
def test_other_volumes_are_refused(tmp_path, kind):
    path = tmp_path / "a.vtu"
    size = {"hexahedron": 8, "wedge": 6, "pyramid": 5}[kind]
    points = np.random.default_rng(0).random((9, 3)) * 90
    meshio.write(path, meshio.Mesh(points, {"tetra": [[0, 1, 2, 3]], kind: [list(range(size))]}))
    with pytest.raises(MeshError, match=f"1 of kind '{kind}'"):
        read_mesh(path)


@pytest.mark.parametrize("suffix", ["vtu", "vtkhdf"])
@pytest.mark.parametrize("mesh", [MESH, SURFACE], ids=["tetrahedra", "surface"])
def test_our_files_come_back(tmp_path, suffix, mesh):
    path = tmp_path / f"a.{suffix}"
    write_mesh(path, mesh)
    read, report = read_mesh(path)
    assert_same(read, mesh)
    assert report.length_unit == "mm"
    assert "the file" in report.length_unit_source


@pytest.mark.parametrize("suffix", ["vtu", "vtp"])
def test_vtk_reads_our_files(tmp_path, suffix):
    mesh = MESH if suffix == "vtu" else SURFACE
    path = tmp_path / f"a.{suffix}"
    write_mesh(path, mesh)
    grid = pyvista.read(path)
    assert np.array_equal(grid.points, mesh.points)
    for name, values in mesh.point_fields.items():
        assert np.array_equal(grid.point_data[name], values)
    for name, values in mesh.cell_fields.items():
        assert np.array_equal(grid.cell_data[name], values)
    assert grid.field_data["length_unit"][0] == "mm"
    if suffix == "vtu":
        assert np.array_equal(grid.cells_dict[10], mesh.tets)


def test_stl_comes_back(tmp_path):
    write_mesh(tmp_path / "a.stl", SURFACE)
    assert np.isclose(pyvista.read(tmp_path / "a.stl").volume / 1000, examine_volume(SURFACE))


def test_odd_fields_are_written(tmp_path):
    fields = {
        'scar <&">': MESH.point_fields["lat"] > 0.5,
        "tensor": np.arange(9.0 * MESH.n_nodes).reshape(-1, 3, 3),
        "big": MESH.points[:, 0].astype(">f8"),
        "column": np.ones((MESH.n_nodes, 1)),
    }
    path = tmp_path / "a.vtu"
    write_mesh(path, TetMesh(MESH.points, MESH.tets, fields))
    read, _ = read_mesh(path)
    assert np.array_equal(read.point_fields['scar <&">'], fields['scar <&">'])
    assert np.array_equal(read.point_fields["tensor"], fields["tensor"].reshape(-1, 9))
    assert np.array_equal(read.point_fields["big"], MESH.points[:, 0])
    assert read.point_fields["column"].shape == (MESH.n_nodes,)
    assert set(pyvista.read(path).point_data) == set(fields)


def test_fields_without_numbers_cannot_be_written(tmp_path):
    names = {"name": np.array(["x"] * MESH.n_nodes)}
    with pytest.raises(InputError, match="field 'name'"):
        write_mesh(tmp_path / "a.vtu", TetMesh(MESH.points, MESH.tets, names))
    assert list(tmp_path.iterdir()) == []


def test_the_unit_of_a_file_is_believed_and_can_be_overruled(tmp_path):
    small = TetMesh(MESH.points / 50, MESH.tets)  # 2 mm: ambiguous by its size
    write_mesh(tmp_path / "a.vtu", small)
    assert read_mesh(tmp_path / "a.vtu")[1].length_unit == "mm"
    mesh, report = read_mesh(tmp_path / "a.vtu", length_unit="cm")
    assert np.allclose(mesh.points, 10 * small.points, rtol=EXACT64)
    assert any("'cm' was asked for" in note for note in report.notes)


@pytest.mark.parametrize("unit", ["um", "cm", "m"])
def test_other_units_are_recognised_in_files(tmp_path, unit):
    factor = {"um": 1e3, "cm": 0.1, "m": 1e-3}[unit]
    to_pyvista(TetMesh(MESH.points * factor, MESH.tets)).save(tmp_path / "a.vtu")
    mesh, report = read_mesh(tmp_path / "a.vtu")
    assert report.length_unit == unit
    assert np.allclose(mesh.points, MESH.points, rtol=EXACT64, atol=1e-9)
    assert any("recognised" in s for s in report.sentences())


def test_an_ambiguous_file_needs_a_unit(tmp_path):
    path = tmp_path / "slab.vtu"
    to_pyvista(TetMesh(MESH.points * np.array([0.2, 0.07, 0.03]), MESH.tets)).save(path)
    with pytest.raises(UnitError, match=r"slab\.vtu.*20 x 7 x 3.*--length-unit"):
        read_mesh(path)
    assert read_mesh(path, length_unit="mm")[0].n_tets == MESH.n_tets
    with pytest.raises(UnitError, match="inch"):
        read_mesh(path, length_unit="inch")


def test_indices_from_one_are_recognised(tmp_path):
    path = tmp_path / "a.vtk"
    text = "# vtk DataFile Version 2.0\nt\nASCII\nDATASET UNSTRUCTURED_GRID\n"
    text += f"POINTS {MESH.n_nodes} double\n" + " ".join(map(repr, MESH.points.ravel().tolist()))
    cells = np.insert(MESH.tets + 1, 0, 4, axis=1)
    text += f"\nCELLS {MESH.n_tets} {cells.size}\n" + " ".join(map(str, cells.ravel().tolist()))
    text += f"\nCELL_TYPES {MESH.n_tets}\n" + "10 " * MESH.n_tets
    path.write_text(text)
    mesh, report = read_mesh(path)
    assert np.array_equal(mesh.tets, MESH.tets)
    assert any("counted from 1" in note for note in report.notes)
    with pytest.raises(MeshError, match="index_base=1"):
        read_mesh(path, index_base=0)


@pytest.mark.parametrize("local", [True, False])
def test_likely_indices_from_one_are_asked_about(tmp_path, local):
    """The last node is unused, so that the indices are valid either way."""
    mesh = irregular(n_nodes=400)
    order = np.lexsort(np.floor(mesh.points / 20).T)  # neighbours get near numbers
    if not local:
        order = np.arange(mesh.n_nodes)
    points = np.concatenate([mesh.points[order], [[0.0, 0, 0]]])
    path = tmp_path / "a.vtu"
    meshio.write(path, meshio.Mesh(points, {"tetra": np.argsort(order)[mesh.tets] + 1}))
    with pytest.raises(MeshError, match="index_base=1"):
        inspect_mesh(path)
    assert inspect_mesh(path, index_base=1)[1].n_flipped == 0
    assert inspect_mesh(path, index_base=0)[1].n_flipped > 0


def test_region_tags_become_integers(tmp_path):
    tags = {"elemTag": np.arange(MESH.n_tets) % 3 * 1.0, "Material": np.full(MESH.n_tets, 0.5)}
    to_pyvista(TetMesh(MESH.points, MESH.tets, {}, tags)).save(tmp_path / "a.vtu")
    mesh, report = read_mesh(tmp_path / "a.vtu")
    assert mesh.cell_fields["elemTag"].dtype == np.int32
    assert set(report.regions) == {0, 1, 2}
    assert mesh.cell_fields["Material"].dtype == np.float64  # no tags: a half
