"""Defects are found, mended and told; what cannot be mended safely is refused."""

import json

import numpy as np
import pytest
from mesh_samples import irregular, sphere_surface, with_fields
from tolerances import EXACT64

from twinheart.errors import MeshError, UnitError
from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.defects import repeated_cells, representatives
from twinheart.mesh.generate import slab
from twinheart.mesh.quality import volumes
from twinheart.mesh.repair import repair
from twinheart.mesh.report import examine
from twinheart.mesh.scale import recognise_unit, unit_named


def appended(mesh: TetMesh, points, tets=None) -> TetMesh:
    """The mesh with more nodes and tetrahedra, without fields."""
    tets = mesh.tets if tets is None else np.concatenate([mesh.tets, tets])
    return TetMesh(np.concatenate([mesh.points, np.atleast_2d(points)]), tets)


def test_a_sound_mesh_is_left_alone():
    mesh = with_fields(irregular())
    mended, said = repair(mesh)
    assert said == ()
    assert mended is mesh
    report = examine(mesh)
    assert report.n_components == 1
    assert np.isclose(report.volume_ml, volumes(mesh.points, mesh.tets).sum() / 1000)
    assert report.regions == {
        t: int(np.count_nonzero(mesh.cell_fields["region"] == t)) for t in (1, 2, 3)
    }
    assert report.fields["point"] == {"lat": 1, "velocity": 3, "surf_class": 1}


def test_flipped_tetrahedra_are_turned_round():
    mesh = with_fields(irregular())
    tets = mesh.tets.copy()
    tets[::3] = tets[::3][:, [1, 0, 2, 3]]
    flipped = TetMesh(mesh.points, tets, mesh.point_fields, mesh.cell_fields)
    n = len(tets[::3])
    report = examine(flipped)
    assert report.n_flipped == n
    # the volume does not cancel
    assert np.isclose(report.volume_ml, examine(mesh).volume_ml, rtol=EXACT64)
    mended, said = repair(flipped)
    assert volumes(mended.points, mended.tets).min() > 0
    assert said == (f"turned {n} flipped tetrahedra round",)
    assert np.array_equal(mended.cell_fields["region"], mesh.cell_fields["region"])


def test_orphan_nodes_are_removed_and_fields_follow():
    mesh = irregular()
    points = np.concatenate([[[9e9, 0, 0]], mesh.points, [[-9e9, 0, 0]]])
    values = np.arange(len(points))
    found = TetMesh(points, mesh.tets + 1, {"id": values})
    report = examine(found)
    assert (report.n_orphan_nodes, report.n_components) == (2, 1)
    assert np.allclose(report.bbox_mm, 100)
    mended, said = repair(found)
    assert said == ("removed 2 orphan nodes",)
    assert np.array_equal(mended.point_fields["id"], values[1:-1])
    assert np.array_equal(mended.tets, mesh.tets)


def test_duplicate_nodes_are_merged():
    mesh = irregular()
    # every tetrahedron on nodes of its own, as some exporters write them
    points = mesh.points[mesh.tets].reshape(-1, 3)
    torn = TetMesh(points, np.arange(len(points)).reshape(-1, 4))
    report = examine(torn)
    assert report.n_components == mesh.n_tets
    assert report.n_duplicate_nodes == len(points) - mesh.n_nodes
    mended, said = repair(torn)
    assert mended.n_nodes == mesh.n_nodes
    assert examine(mended).n_components == 1
    assert said == (f"merged {len(points) - mesh.n_nodes} nodes with another at the same place",)
    kept, _ = repair(torn, merge_nodes=False)
    assert kept.n_nodes == len(points)


def test_merging_says_where_fields_differ():
    mesh = appended(slab((1.0, 1.0, 1.0), 1.0), [0.0, 0.0, 0.0])
    tets = mesh.tets.copy()
    tets[0][tets[0] == 0] = mesh.n_nodes - 1
    fields = {"lat": np.arange(float(mesh.n_nodes)), "same": np.ones(mesh.n_nodes)}
    _, said = repair(TetMesh(mesh.points, tets, fields))
    assert "their 'lat' differed" in said[0]
    assert "same" not in said[0].replace("same place", "")


def test_flat_tetrahedra_are_removed_if_few():
    mesh = slab((10.0, 10.0, 10.0), 2.0)
    x = mesh.points
    face = [int(np.flatnonzero((x == p).all(axis=1))[0]) for p in
            ([0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 0])]  # fmt: skip
    broken = TetMesh(x, np.concatenate([mesh.tets, [face], [[3, 3, 4, 5]]]))
    assert examine(broken).n_degenerate == 2
    mended, said = repair(broken)
    assert mended.n_tets == mesh.n_tets
    assert said == ("removed 2 tetrahedra without volume",)


def test_many_flat_tetrahedra_are_refused():
    mesh = slab((4.0, 4.0, 4.0), 2.0)
    squashed = mesh.points * np.array([1.0, 1.0, 0.0])
    with pytest.raises(MeshError, match=r"48 tetrahedra without volume among 48 .* more than 1 %"):
        repair(TetMesh(squashed, mesh.tets), merge_nodes=False)


def test_a_flat_tetrahedron_that_holds_the_mesh_together_is_refused():
    left = slab((2.0, 2.0, 2.0), 1.0)
    right = TetMesh(left.points + np.array([5.0, 0, 0]), left.tets)
    points = np.concatenate([left.points, right.points])
    bridge = [[0, 1, left.n_nodes, left.n_nodes + 1]]  # four nodes of one plane
    tets = np.concatenate([left.tets, right.tets + left.n_nodes, bridge])
    with pytest.raises(MeshError, match="would tear the mesh into 2 components"):
        repair(TetMesh(points, tets))


def test_repeated_tetrahedra_are_removed():
    mesh = irregular()
    tets = np.concatenate([mesh.tets, mesh.tets[5:7, ::-1]])
    assert np.flatnonzero(repeated_cells(tets)).tolist() == [mesh.n_tets, mesh.n_tets + 1]
    mended, said = repair(TetMesh(mesh.points, tets))
    assert mended.n_tets == mesh.n_tets
    assert said == ("removed 2 cells with the nodes of another",)


def test_components_are_kept_and_told_or_dropped_on_request():
    large, small = irregular(), slab((1.0, 1.0, 1.0), 1.0)
    points = np.concatenate([large.points, small.points + 500])
    both = TetMesh(points, np.concatenate([large.tets, small.tets + large.n_nodes]))
    report = examine(both)
    assert report.n_components == 2
    assert any("2 separate components" in s for s in report.sentences())
    kept, _ = repair(both)
    assert kept.n_tets == both.n_tets
    dropped, said = repair(both, drop_below=0.5)
    assert dropped.n_tets == large.n_tets
    assert dropped.n_nodes == large.n_nodes
    assert said[0].startswith("dropped 1 component of less than 50 %")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_coordinates_that_are_not_finite_are_refused(bad):
    mesh = irregular()
    points = mesh.points.copy()
    points[7, 1] = bad
    for check in (repair, examine):
        with pytest.raises(MeshError, match=r"1 of \d+ nodes .* first is node 7"):
            check(TetMesh(points, mesh.tets))


def test_an_empty_mesh_is_refused():
    with pytest.raises(MeshError, match="no tetrahedra"):
        repair(TetMesh(np.eye(3), np.zeros((0, 4), dtype=int)))
    with pytest.raises(MeshError, match="no triangles"):
        repair(TriMesh(np.eye(3), np.zeros((0, 3), dtype=int)))


def test_surfaces_are_mended_too():
    mesh = sphere_surface()
    points = mesh.points[mesh.triangles].reshape(-1, 3)
    soup = TriMesh(points, np.arange(len(points)).reshape(-1, 3), {}, mesh.cell_fields)
    assert not examine(soup).closed
    mended, _ = repair(soup)
    report = examine(mended)
    assert report.closed
    assert 0.7 < report.enclosed_volume_ml / (4 / 3 * np.pi * 40**3 / 1000) < 1
    assert np.array_equal(mended.cell_fields["label"], mesh.cell_fields["label"])


def test_open_surface_has_no_volume():
    mesh = sphere_surface()
    report = examine(TriMesh(mesh.points, mesh.triangles[1:]))
    assert report.closed is False
    assert report.enclosed_volume_ml is None
    assert "the surface has open edges" in report.sentences()


def test_slivers_are_told():
    points = np.array([[0.0, 0, 0], [10, 0, 0], [5, 8, 0], [5, 4, 0.1]])
    report = examine(TetMesh(points, np.array([[0, 1, 2, 3]])))
    assert report.n_degenerate == 0
    assert any("slivers" in s for s in report.sentences())


def test_report_is_json_and_leaves_out_what_does_not_apply():
    tets = examine(with_fields(irregular())).as_dict()
    surface = examine(sphere_surface()).as_dict()
    assert json.loads(json.dumps(tets))["volume_ml"] == tets["volume_ml"]
    assert "closed" not in tets
    assert surface["n_tets"] == 0
    assert "min_dihedral_deg" not in surface
    assert {tets["kind"], surface["kind"]} == {"tetrahedra", "surface"}


def test_representatives_are_the_first_of_a_chain():
    points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1 + 1e-9, 0, 0], [1 - 1e-9, 0, 0]])
    first = representatives(TriMesh(points, np.array([[0, 1, 2], [0, 3, 2], [0, 4, 2]])))
    assert first.tolist() == [0, 1, 2, 1, 1]


@pytest.mark.parametrize(("unit", "factor"), [("um", 1e3), ("mm", 1.0), ("cm", 0.1), ("m", 1e-3)])
@pytest.mark.parametrize("size", [60.0, 100.0, 150.0])
def test_a_human_heart_tells_its_unit(unit, factor, size):
    mesh = irregular(size=size)
    far = np.concatenate([mesh.points, [[1e7, 0, 0]]]) * factor
    found, reason = recognise_unit(far, mesh.tets)  # the orphan does not count
    assert found == unit
    assert reason.startswith("recognised")


@pytest.mark.parametrize(
    ("extent", "could_be"),
    [
        ((20, 7, 3), "20 mm .if in mm. or 200 mm .if in cm."),  # the Niederer slab
        ((2.5, 2.3, 2.2), "2.5 mm .if in mm. or 25 mm .if in cm."),  # a rabbit's heart in cm
        ((10, 3, 1), "10 mm .if in mm. or 100 mm .if in cm."),  # no heart is that flat
        ((25, 22, 20), "25 mm .if in mm. or 250 mm .if in cm."),
        ((1e-6, 1e-6, 1e-6), "no size known"),
    ],
)
def test_ambiguous_sizes_need_a_unit(extent, could_be):
    mesh = irregular()
    with pytest.raises(UnitError, match=f"{could_be}.*--length-unit"):
        recognise_unit(mesh.points / 100 * np.array(extent, dtype=float), mesh.tets)


def test_the_largest_component_decides_the_unit():
    heart, speck = irregular(size=10.0), slab((1.0, 1.0, 1.0), 1.0)
    points = np.concatenate([speck.points + 5000, heart.points])
    tets = np.concatenate([speck.tets, heart.tets + speck.n_nodes])
    assert recognise_unit(points, tets)[0] == "cm"


def test_units_have_many_names():
    assert [unit_named(n) for n in ("µm", "Millimetre", "CM", "meters")] == ["um", "mm", "cm", "m"]
    with pytest.raises(UnitError, match="inch"):
        unit_named("inch")
