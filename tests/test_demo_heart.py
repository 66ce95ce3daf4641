"""The demo heart: measures of an adult, walls without holes, fields, checksum, reproduction."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import KDTree

from twinheart.anatomy import demo, demo_heart
from twinheart.errors import MeshError
from twinheart.mesh.biventricle import BiventricularShape, Region, biventricle
from twinheart.mesh.quality import (
    boundary_triangles,
    components,
    dihedral_angles,
    edges,
    mean_edge,
    volumes,
)

MESHES = Path(__file__).parents[1] / "meshes"


@pytest.fixture(scope="module")
def heart():
    return demo_heart()


def _millilitres(inside, shape):
    """Volume of an implicit body below the base, counted on a 1 mm grid."""
    low, high = shape.bounds()
    axes = [np.arange(a + 0.5, b, 1.0) for a, b in zip(np.floor(low), high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return (inside(grid) < 0).sum() / 1000


def test_cavities_and_muscle_have_an_adults_volumes(heart):
    shape = BiventricularShape()
    assert 100 < _millilitres(shape.lv_cavity, shape) < 140
    assert 100 < _millilitres(shape.rv_cavity, shape) < 150
    volume = volumes(heart.mesh.points, heart.mesh.tets)
    assert 150e3 < volume.sum() < 220e3
    assert volume.sum() / 1000 == pytest.approx(_millilitres(shape.wall, shape), rel=5e-3)
    by_region = np.bincount(heart.regions, volume) / 1000
    assert 110 < by_region[Region.LV_FREE_WALL] + by_region[Region.SEPTUM] < 160
    assert 30 < by_region[Region.RV_FREE_WALL] < 60


def test_mesh_is_as_fine_and_as_good_as_said(heart):
    assert 40_000 < heart.mesh.n_nodes < 60_000
    assert mean_edge(heart.mesh) == pytest.approx(2.0, rel=0.06)
    assert dihedral_angles(heart.mesh.points, heart.mesh.tets).min() > 15


def test_walls_have_no_holes_and_two_tetrahedra_at_least(heart):
    mesh = heart.mesh
    assert components(mesh.tets, mesh.n_nodes).max() == 0
    triangles = boundary_triangles(mesh.tets)
    sides = edges(triangles)
    # A closed manifold of Euler number 2: a ball, with the cavities as dents from the base.
    assert 2 * len(sides) == 3 * len(triangles)
    assert len(np.unique(triangles)) - len(sides) + len(triangles) == 2
    classes = np.sort(mesh.point_fields["surf_class"][edges(mesh.tets)], axis=1)
    assert not ((classes[:, 0] != classes[:, 1]) & (classes[:, 0] >= 2)).any()


def test_walls_are_as_thick_as_said(heart):
    points, classes = heart.mesh.points, heart.mesh.point_fields["surf_class"]
    to_epicardium = KDTree(points[classes == 2])
    below_rim = points[:, 2] < -5.0
    lv, rv = (to_epicardium.query(points[below_rim & (classes == s)])[0] for s in (3, 4))
    assert lv.min() > 6.0
    assert 3.4 < rv.min() < 4.2
    # The right apex ends a little above the left one.
    apex = [points[classes == s, 2].min() for s in (3, 4)]
    assert 5 < apex[1] - apex[0] < 25


def test_fields_are_tagged_and_complete(heart):
    classes = heart.mesh.point_fields["surf_class"]
    surface = np.unique(boundary_triangles(heart.mesh.tets))
    assert (classes[surface] > 0).all()
    assert (np.delete(classes, surface) == 0).all()
    assert set(classes.tolist()) == {0, 1, 2, 3, 4}
    # The base is flat but for the rounded rim.
    assert heart.mesh.points[:, 2].max() == pytest.approx(0.0, abs=1e-9)
    assert heart.mesh.points[classes == 1, 2].min() > -2.0
    assert set(heart.regions.tolist()) == set(Region)
    np.testing.assert_allclose(np.linalg.norm(heart.f0, axis=1), 1.0, rtol=1e-12)
    depth = heart.mesh.point_fields["transmural"]
    assert depth.min() >= 0
    assert depth.max() <= 1


def test_stored_file_has_its_checksum_and_a_reasonable_size():
    path = MESHES / "demo_heart.vtu"
    digest, name = (MESHES / "demo_heart.vtu.sha256").read_text().split()
    assert name == path.name
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    assert path.stat().st_size < 5e6


def test_generator_reproduces_the_stored_heart(heart):
    mesh = demo.make_demo_mesh()
    np.testing.assert_array_equal(mesh.tets, heart.mesh.tets)
    # Equal to the rounding of the file; another platform may round to the other side.
    np.testing.assert_allclose(mesh.points, heart.mesh.points, atol=2 / 1024)
    stored = heart.mesh.cell_fields["fibre"]
    difference = np.linalg.norm(mesh.cell_fields["fibre"] - stored, axis=1)
    assert (difference < 0.01).mean() > 0.9999


def test_without_the_file_the_heart_is_made(monkeypatch):
    monkeypatch.setattr(demo, "_STORED", ())
    monkeypatch.setattr(demo, "biventricle", lambda edge: biventricle(2.6))
    heart = demo_heart()
    assert heart.f0 is not None
    assert heart.mesh.n_nodes > 10_000
    assert set(heart.mesh.point_fields) == {"surf_class", "transmural"}


@pytest.mark.parametrize(
    ("edge", "message"), [(4.0, "at most 2.67 mm"), (-1.0, "positive"), (0.01, "larger edge")]
)
def test_edges_that_cannot_be_meshed_are_refused(edge, message):
    with pytest.raises(MeshError, match=message):
        demo_heart(edge=edge)
