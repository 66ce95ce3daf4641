"""openCARP files: every form the format allows, and errors that name file and line."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mesh_samples import irregular, with_fields
from tolerances import EXACT64

from twinheart.errors import InputError, MeshError, OutputError, UnitError
from twinheart.mesh import TetMesh
from twinheart.mesh.io import read_mesh, read_vtx, write_mesh, write_vtx
from twinheart.mesh.io.opencarp_write import fixed_point
from twinheart.mesh.quality import volumes

POINTS = "0 0 0\n80000 0 0\n0 80000 0\n0 0 80000\n80000 80000 80000\n"
ELEMENTS = "Tt 0 1 2 3 1\nTt 1 2 3 4 2\n"
FIBRES = "1 0 0\n0 2 0\n"


def write(folder, pts=POINTS, elem=ELEMENTS, lon=FIBRES, header=True):
    """Files of a mesh, with header lines or without."""
    n_vectors = 2 if lon and len(lon.split("\n")[0].split()) == 6 else 1
    for suffix, text, first in (
        ("pts", pts, pts.count("\n")),
        ("elem", elem, elem.count("\n")),
        ("lon", lon, n_vectors),
    ):
        if text is not None:
            (folder / f"h.{suffix}").write_text(f"{first}\n{text}" if header else text)
    return folder / "h.elem"


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("name", ["h.pts", "h.elem", "h.lon", "h"])
def test_any_of_the_names_and_no_header(tmp_path, header, name):
    write(tmp_path, header=header)
    mesh, report = read_mesh(tmp_path / name)
    assert mesh.points.max() == 80.0
    assert mesh.tets.shape == (2, 4)
    assert report.regions == {1: 1, 2: 1}
    assert report.length_unit == "um"
    assert any("micrometres by definition" in s for s in report.sentences())
    assert np.array_equal(np.abs(mesh.cell_fields["fibre"]), [[1, 0, 0], [0, 2, 0]])


def test_mixed_elements_keep_their_own_fields(tmp_path):
    elements = "Tr 0 1 2 7\nTt 0 1 2 3 1\nLn 3 4 8\nTt 1 2 3 4 2\n"
    path = write(tmp_path, elem=elements, lon="9 9 9\n1 0 0\n9 9 9\n0 1 0\n")
    mesh, report = read_mesh(path)
    assert mesh.n_tets == 2
    assert mesh.cell_fields["region"].tolist() == [1, 2]
    assert mesh.cell_fields["fibre"].tolist() == [[1, 0, 0], [0, 1, 0]]
    assert any("triangle" in note and "line" in note for note in report.notes)


def test_two_fibre_vectors_are_fibre_and_sheet(tmp_path):
    mesh, _ = read_mesh(write(tmp_path, lon="1 0 0 0 1 0\n0 1 0 0 0 1\n"))
    assert mesh.cell_fields["sheet"].tolist() == [[0, 1, 0], [0, 0, 1]]


def test_files_without_fibres_or_tags(tmp_path):
    _, report = read_mesh(write(tmp_path, elem="Tt 0 1 2 3\nTt 1 2 3 4\n", lon=None))
    assert report.fibres is None
    assert report.regions == {}
    assert any("h.lon" in note for note in report.notes)
    assert any("without a region tag" in note for note in report.notes)


def test_surfaces_can_be_read(tmp_path):
    mesh, _ = read_mesh(write(tmp_path, elem="Tr 0 1 2 5\nTr 1 2 4 6\n"))
    assert mesh.cell_fields["region"].tolist() == [5, 6]


def test_dos_line_ends_blank_lines_and_tabs(tmp_path):
    path = write(tmp_path, elem="Tt 0\t1 2 3 1\r\n\r\nTt 1 2 3 4 2\r\n", header=False)
    assert read_mesh(path)[0].n_tets == 2


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"pts": "7\n" + POINTS}, r"h\.pts line 1: the header says 7 nodes.*has 5 .*line 6"),
        ({"elem": "3\n" + ELEMENTS}, r"h\.elem line 1: the header says 3 elements.*has 2 .*line 3"),
        ({"lon": "1\n1 0 0\n"}, r"h\.lon line 2: ends after 1 fibre vectors.*2 elements"),
        ({"lon": "2\n" + FIBRES}, r"h\.lon line 2: has 3 numbers, expected 6"),
        ({"lon": "3\n" + FIBRES}, r"h\.lon line 1: the header says 3 fibre vectors"),
        ({"pts": "5\n" + POINTS.replace("80000 0 0", "8 0", 1)}, r"h\.pts line 3: has 2 numbers"),
        ({"pts": "5\n" + POINTS.replace("80000 0 0", "80000 x 0", 1)}, r"h\.pts line 3: .*got 'x'"),
        ({"elem": "2\nTt 0 1 2 3 1\nTt 1 2 3\n"}, r"h\.elem line 3: expected an element"),
        ({"elem": "2\nTt 0 1 2 3 1\nQQ 1 2 3 4 1\n"}, r"h\.elem line 3: .*got 'QQ'"),
        ({"elem": "2\nTt 0 1 2 3 1\n99 1 2 3 4 1\n"}, r"h\.elem line 3: expected an element"),
        ({"elem": "2\nTt 0 1 2 3 1\nTt 1 2 3 4.5 1\n"}, r"h\.elem line 3: expected an integer"),
        ({"elem": ""}, r"h\.elem: the file is empty"),
    ],
)  # fmt: skip
def test_damage_names_file_and_line(tmp_path, files, message):
    path = write(tmp_path)
    for suffix, text in files.items():
        (tmp_path / f"h.{suffix}").write_text(text)
    with pytest.raises(InputError, match=message):
        read_mesh(path)


def test_a_missing_companion_is_named(tmp_path):
    path = write(tmp_path)
    (tmp_path / "h.pts").unlink()
    with pytest.raises(InputError, match=r"h\.pts: no such file"):
        read_mesh(path)


def test_other_volumes_are_refused(tmp_path):
    with pytest.raises(MeshError, match="hexahedron"):
        read_mesh(write(tmp_path, elem="Hx 0 1 2 3 4 0 1 2 1\nTt 1 2 3 4 2\n"))


def test_indices_outside_are_refused_and_from_one_recognised(tmp_path):
    with pytest.raises(MeshError, match="cell 1 points at node 9"):
        read_mesh(write(tmp_path, elem="Tt 0 1 2 3 1\nTt 1 2 3 9 2\n"))
    mesh, report = read_mesh(write(tmp_path, elem="Tt 1 2 3 4 1\nTt 2 3 4 5 2\n"))
    assert mesh.tets.min() == 0
    assert any("counted from 1" in note for note in report.notes)


def test_millimetres_in_opencarp_files_are_asked_about(tmp_path):
    """By definition the heart would be 80 um wide, by its numbers 80 mm."""
    path = write(tmp_path, pts=POINTS.replace("80000", "80"))
    with pytest.raises(UnitError, match="in mm it is a heart's"):
        read_mesh(path)
    assert read_mesh(path, length_unit="mm")[0].points.max() == 80
    assert read_mesh(path, length_unit="um")[0].points.max() == 0.08


def test_written_files_come_back(tmp_path):
    mesh = with_fields(irregular())
    write_mesh(tmp_path / "h.pts", mesh)
    assert {p.suffix for p in tmp_path.iterdir()} == {".pts", ".elem", ".lon"}
    read, report = read_mesh(tmp_path / "h.pts")
    assert np.allclose(read.points, mesh.points, atol=1e-9)
    assert np.array_equal(read.tets, mesh.tets)
    assert np.array_equal(read.cell_fields["region"], mesh.cell_fields["region"])
    assert np.allclose(read.cell_fields["fibre"], mesh.cell_fields["fibre"], atol=1e-9)
    assert report.repairs == ()


def test_fibres_at_points_are_averaged_when_written(tmp_path):
    mesh = irregular()
    fibres = np.tile([0.0, 0.6, -0.8], (mesh.n_nodes, 1))
    fibres[::2] *= -1
    write_mesh(tmp_path / "h.elem", TetMesh(mesh.points, mesh.tets, {"fiber": fibres}))
    read, _ = read_mesh(tmp_path / "h.elem")
    assert np.allclose(np.abs(read.cell_fields["fibre"] @ [0.0, 0.6, -0.8]), 1, atol=1e-8)


def test_no_fibres_beside_another_meshs_are_refused(tmp_path):
    write_mesh(tmp_path / "h.elem", with_fields(irregular()))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(OutputError, match=r"h\.lon lies beside it"):
        write_mesh(tmp_path / "h.elem", irregular())
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6),
    st.integers(0, 6),
)
def test_fixed_point_is_what_python_writes(values, decimals):
    rows = fixed_point(np.array([values]), decimals)
    words = rows[0].tobytes().decode().split()
    assert len(words) == len(values)
    for word, value in zip(words, values, strict=True):
        assert word == f"{round(value * 10**decimals) / 10**decimals:.{decimals}f}" or np.isclose(
            float(word), value, atol=0.6 * 10.0**-decimals, rtol=EXACT64
        )
        assert ("." in word) == (decimals > 0)


def test_fixed_point_pads_with_spaces_only():
    rows = fixed_point(np.array([[0.0, -0.004], [-12.5, 100.0]]), 2)
    assert rows[0].tobytes().split() == [b"0.00", b"0.00"]
    assert rows[1].tobytes().split() == [b"-12.50", b"100.00"]


def test_vtx_comes_back(tmp_path):
    write_vtx(tmp_path / "a.vtx", np.array([3, 1, 4]), "extra")
    nodes, domain = read_vtx(tmp_path / "a.vtx")
    assert nodes.tolist() == [3, 1, 4]
    assert domain == "extra"


@pytest.mark.parametrize(
    ("text", "nodes", "domain"),
    [
        ("3\nintra\n5\n6\n7\n", [5, 6, 7], "intra"),
        ("3\nintra\n5 6 7", [5, 6, 7], "intra"),
        ("intra\n5\n6\n", [5, 6], "intra"),
        ("2\n5\n6\n", [5, 6], ""),
        ("5\n6\n", [5, 6], ""),
        ("0\nextra\n", [], "extra"),
    ],
)
def test_vtx_forms(tmp_path, text, nodes, domain):
    path = tmp_path / "a.vtx"
    path.write_text(text)
    found, said = read_vtx(path)
    assert found.tolist() == nodes
    assert said == domain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4\nintra\n5\n6\n7\n", r"line 1: the header says 4 nodes, but 3 follow"),
        ("3\nintra\n5\n-6\n7\n", r"a node index is negative .-6."),
        ("3\nintra\n5\nsix\n7\n", r"line 4: expected an integer, got 'six'"),
        ("", "the file is empty"),
    ],
)
def test_vtx_damage(tmp_path, text, message):
    path = tmp_path / "a.vtx"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_vtx(path)


def test_a_million_lines_are_read_strictly(tmp_path):
    """The file is parsed block by block; an error in a later block still names its line."""
    n = 700_000
    (tmp_path / "h.pts").write_text(POINTS)
    rows = ["Tt 0 1 2 3 1"] * n
    rows[-5] = "Tt 0 1 2 3 1 7"
    (tmp_path / "h.elem").write_text("\n".join(rows * 2))
    with pytest.raises(InputError, match=rf"h\.elem line {n - 4}: expected an element"):
        read_mesh(tmp_path / "h.elem")


def test_orientation_survives(tmp_path):
    mesh = irregular()
    write_mesh(tmp_path / "h.elem", mesh)
    read, _ = read_mesh(tmp_path / "h.elem")
    assert np.allclose(volumes(read.points, read.tets), volumes(mesh.points, mesh.tets), atol=1e-5)
