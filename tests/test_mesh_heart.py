"""Fibres, sheets and tags are found under the names of the field; gaps are filled and told."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mesh_samples import irregular, sphere_surface, with_fields
from tolerances import EXACT64

from twinheart.anatomy import Heart, heart_from_mesh, load_heart, mesh_of_heart, read_heart
from twinheart.errors import InputError, MeshError, UnitError
from twinheart.mesh import TetMesh
from twinheart.mesh.directions import mean_directions
from twinheart.mesh.io import write_mesh

MESH = irregular()
AXIS = np.array([0.6, 0.0, -0.8])
NAMES = ["fiber", "fibers", "fibre", "Fibres", "F0", "f", "fiber_direction", "Fibre Direction",
         "FiberOrientation", "lon"]  # fmt: skip


def mesh_with(point=None, cell=None):
    return TetMesh(MESH.points, MESH.tets, point, cell)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", ["point", "cell"])
def test_fibres_are_found_and_normalised(name, where):
    n = MESH.n_nodes if where == "point" else MESH.n_tets
    fields = {"velocity": np.ones((n, 3)), name: np.tile(2.5 * AXIS, (n, 1)).astype(np.float32)}
    heart, said = heart_from_mesh(mesh_with(**{where: fields}))
    assert heart.f0 is not None
    assert np.allclose(heart.f0, AXIS, atol=1e-6)
    assert f"fibres from {where} field '{name}'" in said[0]


def test_fields_that_are_no_fibres_are_not_taken():
    fields = {"fibrosis": np.ones((MESH.n_tets, 3)), "fibre": np.ones(MESH.n_tets)}
    heart, said = heart_from_mesh(mesh_with(cell=fields))
    assert heart.f0 is None
    assert "no fibres found" in said


def test_cells_come_before_points():
    point = {"fibre": np.tile([1.0, 0, 0], (MESH.n_nodes, 1))}
    cell = {"fibre": np.tile([0, 1.0, 0], (MESH.n_tets, 1))}
    heart, _ = heart_from_mesh(mesh_with(point, cell))
    assert heart.f0 is not None
    assert np.array_equal(heart.f0, cell["fibre"])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_mean_direction_has_no_sign_and_turns_with_the_heart(seed):
    rng = np.random.default_rng(seed)
    at_nodes = rng.normal(size=(8, 3))
    at_nodes /= np.linalg.norm(at_nodes, axis=1, keepdims=True)
    cells = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [1, 3, 5, 7]])
    mean = mean_directions(at_nodes, cells)
    signs = rng.choice([-1.0, 1.0], 8)[:, None]
    flipped = mean_directions(at_nodes * signs, cells)
    assert np.allclose(np.abs((mean * flipped).sum(axis=1)), 1, atol=1e-6)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turned = mean_directions(at_nodes @ rotation, cells)
    assert np.allclose(np.abs((turned * (mean @ rotation)).sum(axis=1)), 1, atol=1e-6)
    assert np.allclose(np.linalg.norm(mean, axis=1), 1, atol=1e-12)
    # it is the axis that the four are closest to: no other unit vector does better
    other = rng.normal(size=(200, 3))
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    for cell, axis in zip(cells, mean, strict=True):
        best = ((at_nodes[cell] @ axis) ** 2).sum()
        assert ((at_nodes[cell] @ other.T) ** 2).sum(axis=0).max() <= best + 1e-12


def test_sheets_become_orthogonal():
    n = MESH.n_tets
    fields = {"f0": np.tile([1.0, 0, 0], (n, 1)), "s0": np.tile([0.3, 2.0, 0], (n, 1))}
    heart, said = heart_from_mesh(mesh_with(cell=fields))
    assert heart.s0 is not None
    assert np.allclose(heart.s0, [0, 1, 0], atol=EXACT64)
    assert any("made orthogonal" in s for s in said)
    fields["s0"] = fields["f0"]
    heart, said = heart_from_mesh(mesh_with(cell=fields))
    assert heart.s0 is None
    assert any("parallel to the fibres everywhere" in s for s in said)


def test_a_few_zero_vectors_are_filled_and_told():
    fibres = np.tile(AXIS, (MESH.n_tets, 1))
    sheets = np.tile([0.0, 1.0, 0], (MESH.n_tets, 1))
    fibres[3], fibres[9] = 0.0, np.nan
    sheets[4] = AXIS
    heart, said = heart_from_mesh(mesh_with(cell={"fibre": fibres, "sheet": sheets}))
    assert heart.f0 is not None
    assert heart.s0 is not None
    assert np.allclose(heart.f0, AXIS, atol=EXACT64)
    assert np.allclose(np.einsum("ci,ci->c", heart.f0, heart.s0), 0, atol=1e-12)
    assert "filled 2 zero fibre vectors from the nearest tetrahedron that has one" in said
    assert "filled 1 zero sheet vectors from the nearest tetrahedron that has one" in said


def test_many_zero_vectors_are_refused():
    fibres = np.tile(AXIS, (MESH.n_tets, 1))
    fibres[::5] = 0
    with pytest.raises(MeshError, match=r"have no fibre direction .*first: tetrahedron 0"):
        heart_from_mesh(mesh_with(cell={"fibre": fibres}))


def test_zero_fibres_everywhere_are_none():
    heart, said = heart_from_mesh(mesh_with(cell={"fibre": np.zeros((MESH.n_tets, 3))}))
    assert heart.f0 is None
    assert any("zero everywhere" in s for s in said)


@pytest.mark.parametrize("name", ["region", "elemTag", "Material_ID", "gmsh:physical", "Tags"])
def test_tags_are_found(name):
    tags = np.arange(MESH.n_tets) % 3
    heart, said = heart_from_mesh(mesh_with(cell={name: tags.astype(float)}))
    assert np.array_equal(heart.regions, tags)
    assert f"region tags from cell field '{name}'" in said


def test_a_heart_comes_back_from_its_file(tmp_path):
    mesh = with_fields(MESH)
    tags = np.arange(mesh.n_tets) % 4
    sheets = np.cross(mesh.cell_fields["fibre"], [0.0, 0, 1])
    sheets /= np.linalg.norm(sheets, axis=1, keepdims=True)
    heart = Heart(mesh, f0=mesh.cell_fields["fibre"], s0=sheets, regions=tags)
    for name in ("a.vtu", "a.elem", "a.vtkhdf"):
        write_mesh(tmp_path / name, mesh_of_heart(heart))
        back = load_heart(tmp_path / name)
        assert back.f0 is not None
        assert back.s0 is not None
        assert np.allclose(back.f0, heart.f0, atol=1e-8)
        assert np.allclose(back.s0, sheets, atol=1e-8)
        assert np.array_equal(back.regions, tags)


def test_a_surface_is_no_heart(tmp_path):
    write_mesh(tmp_path / "a.vtp", sphere_surface())
    with pytest.raises(
        MeshError, match=r"a\.vtp: is a surface of \d+ triangles, expected"
    ) as error:
        load_heart(tmp_path / "a.vtp")
    assert "\n" not in str(error.value)


def test_refinement_turns_point_fibres_smoothly(tmp_path):
    """Refined before they are averaged, fibres follow their rotation more closely."""
    angle = np.radians(1.2) * MESH.points[:, 0] - 1
    fibres = np.stack([0 * angle, np.cos(angle), np.sin(angle)], axis=1)
    write_mesh(tmp_path / "a.vtu", mesh_with({"fibre": fibres}))

    def error(max_edge):
        heart, report = read_heart(tmp_path / "a.vtu", max_edge=max_edge)
        x = heart.mesh.points[heart.mesh.tets].mean(axis=1)[:, 0]
        there = np.radians(1.2) * x - 1
        assert heart.f0 is not None
        off = np.abs(heart.f0[:, 1] * np.cos(there) + heart.f0[:, 2] * np.sin(there))
        return np.degrees(np.arccos(np.minimum(off, 1))).mean(), report.repairs

    coarse, none = error(None)
    fine, said = error(25.0)
    assert none == ()
    assert "refined 306 tetrahedra to" in said[0]
    assert fine < 0.7 * coarse


def test_what_was_guessed_or_mended_is_logged(tmp_path, caplog):
    mesh, tets = MESH, MESH.tets.copy()
    tets[0] = tets[0][[1, 0, 2, 3]]
    (tmp_path / "a.node").write_text(
        f"{mesh.n_nodes} 3 0 0\n"
        + "".join(f"{i} {x} {y} {z}\n" for i, (x, y, z) in enumerate(mesh.points.tolist()))
    )
    (tmp_path / "a.ele").write_text(
        f"{mesh.n_tets} 4 0\n"
        + "".join(f"{i} {a} {b} {c} {d}\n" for i, (a, b, c, d) in enumerate(tets.tolist()))
    )
    with caplog.at_level(logging.WARNING):
        load_heart(tmp_path / "a.node")
    assert "taken as mm" in caplog.text
    assert "turned 1 flipped tetrahedron round" in caplog.text


def test_errors_reach_the_caller(tmp_path):
    with pytest.raises(InputError):
        load_heart(tmp_path / "nowhere.vtu")
    write_mesh(tmp_path / "a.elem", MESH)
    with pytest.raises(UnitError, match="inch"):
        load_heart(tmp_path / "a.elem", length_unit="inch")


def test_real_hearts(data):
    heart, report = read_heart(data / "biv_crt" / "heart.vtu", max_edge=2.6)
    assert heart.mesh.n_tets == 8 * 17866
    assert heart.f0 is not None
    assert report.fibres == "point field 'fibre'"
    heart, report = read_heart(data / "biv_mean_shape" / "heart_tets.vtu")
    assert heart.f0 is None
    assert "no fibres found" in report.notes
