"""Wall thickness against geometry: slabs, spherical shells, a septum; and bad input."""

import numpy as np
import pytest

from twinheart.anatomy.scar import find_thin_wall, mass, scar_of_thickness
from twinheart.anatomy.wall_thickness import streamline_lengths, wall_thickness
from twinheart.errors import InputError, MeshError
from twinheart.fem import solve_laplace
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import lv_ellipsoid, slab
from twinheart.mesh.implicit import SurfaceClass

# A first-order upwind scheme on a wall of 6 elements; halves with the edge.
SHELL_TOLERANCE = 0.03


def box(size, edge, inner=SurfaceClass.LV_ENDOCARDIUM) -> TetMesh:
    mesh = slab(size, edge)
    z = mesh.points[:, 2]
    classes = np.zeros(mesh.n_nodes, dtype=np.int32)
    classes[z == 0], classes[z == size[2]] = inner, SurfaceClass.EPICARDIUM
    return TetMesh(mesh.points, mesh.tets, {"surf_class": classes})


def test_a_slab_is_as_thick_as_it_is():
    thickness, is_lv = wall_thickness(box((6.0, 6.0, 4.0), 1.0))
    np.testing.assert_allclose(thickness, 4.0, rtol=1e-6)
    assert is_lv.all()


def test_a_sheared_slab_is_measured_across():
    """Tilting the elements does not tilt the streamlines."""
    mesh = box((12.0, 4.0, 3.0), 0.5)
    thickness, _ = wall_thickness(mesh)
    rng = np.random.default_rng(0)
    inside = np.flatnonzero(mesh.point_fields["surf_class"] == 0)
    inside = inside[(mesh.points[inside] > 0.1).all(axis=1)]
    inside = inside[(mesh.points[inside, :2] < [11.9, 3.9]).all(axis=1)]
    points = mesh.points.copy()
    points[inside] += rng.uniform(-0.1, 0.1, (len(inside), 3))
    shaken, _ = wall_thickness(TetMesh(points, mesh.tets, mesh.point_fields))
    np.testing.assert_allclose(shaken, thickness, rtol=0.01)


@pytest.mark.parametrize(("edge", "share"), [(2.0, 1.0), (1.0, 0.5)])
def test_a_spherical_shell(edge, share):
    """Half a spherical shell of radii 12 and 18: streamlines are radii, everywhere 6 mm long."""
    mesh = lv_ellipsoid(
        edge=edge, radius=12.0, depth=12.0, base_height=0.0, wall=6.0, apex_wall=6.0
    )
    thickness, _ = wall_thickness(mesh)
    # at the rim of the base nodes belong to the base, and streamlines end a little late
    error = np.abs(thickness / 6.0 - 1)[mesh.points[:, 2] < -3.0]
    assert np.median(error) < SHELL_TOLERANCE * share
    assert np.quantile(error, 0.99) < 3 * SHELL_TOLERANCE * share


def test_both_lengths_add_up_to_the_same_along_a_streamline():
    """In a wedge the lengths differ from streamline to streamline, and along none of them."""
    mesh = slab((4.0, 4.0, 4.0), 0.5)
    x, y, z = mesh.points.T
    points = np.stack([x, y, z * (1 + x / 4)], axis=1)
    mesh = TetMesh(points, mesh.tets)
    low, high = np.flatnonzero(z == 0), np.flatnonzero(z == 4)
    nodes = np.concatenate([low, high])
    u = solve_laplace(mesh, nodes, (np.arange(len(nodes)) >= len(low)).astype(float))
    back, forth = streamline_lengths(mesh, u, low, high)
    assert (back[low] == 0).all()
    assert (forth[high] == 0).all()
    at_thin = np.flatnonzero((x == 0) & (z == 4))
    at_thick = np.flatnonzero((x == 4) & (z == 4))
    assert back[at_thick].mean() > 1.6 * back[at_thin].mean()


def test_the_septum_counts_from_endocardium_to_endocardium():
    mesh = box((6.0, 6.0, 4.0), 1.0)
    classes = mesh.point_fields["surf_class"].copy()
    classes[classes == SurfaceClass.EPICARDIUM] = SurfaceClass.RV_ENDOCARDIUM
    classes[(mesh.points == [0, 0, 4]).all(axis=1)] = SurfaceClass.EPICARDIUM
    thickness, is_lv = wall_thickness(mesh, classes)
    np.testing.assert_allclose(thickness[is_lv], 4.0, rtol=0.01)
    assert is_lv.mean() > 0.9


def test_thin_walls_become_scar():
    """A wall that thins from 8 to 1 mm: classes begin where it is 5 and 2 mm thick."""
    mesh = slab((70.0, 10.0, 8.0), 1.0)
    x, y, z = mesh.points.T
    of_x = 8 - x / 10
    tapered = TetMesh(np.stack([x, y, z / 8 * of_x], axis=1), mesh.tets)
    thickness = of_x
    classes = scar_of_thickness(
        tapered, thickness, np.ones(mesh.n_nodes, dtype=bool), find_thin_wall("mm:2,5")
    )
    core = mass(tapered, classes == 2)
    assert core == pytest.approx(1.05e-3 * 10 * 10 * 1.5, rel=0.02)
    border = mass(tapered, classes == 1)
    assert border == pytest.approx(1.05e-3 * 10 * 30 * 3.5, rel=0.02)


def test_missing_tags_are_named():
    with pytest.raises(MeshError, match="surf_class"):
        wall_thickness(slab((2.0, 2.0, 2.0), 1.0))
    mesh = box((2.0, 2.0, 2.0), 1.0, inner=SurfaceClass.RV_ENDOCARDIUM)
    with pytest.raises(MeshError, match="lv_endocardium"):
        wall_thickness(mesh)


@pytest.mark.parametrize("text", ["2,5", "mm:5,2", "mm:a,b", "mm:0,5", "fwhm", "mm:2"])
def test_bad_thresholds_are_refused(text):
    with pytest.raises(InputError, match="mm:CORE,BORDER"):
        find_thin_wall(text)
