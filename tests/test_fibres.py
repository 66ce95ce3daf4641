"""Rule-based fibres: asked angles, orthogonality, rotation, the septum, a real heart, bad tags."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from twinheart.anatomy import Heart
from twinheart.anatomy.fibres import add_fibres
from twinheart.errors import InputError, MeshError
from twinheart.mesh import TetMesh
from twinheart.mesh.biventricle import Region, biventricle
from twinheart.mesh.generate import lv_ellipsoid, slab

DATA = Path(os.environ.get("TWINHEART_DATA", Path(__file__).parents[1] / "../shared/data"))
RADII, WALL = np.array([24.5, 24.5, 65.0]), np.array([9.5, 9.5, 6.5])


@pytest.fixture(scope="module")
def lv_mesh():
    return lv_ellipsoid(edge=2.5)


@pytest.fixture(scope="module")
def two_ventricles():
    mesh = biventricle(edge=2.5)
    return add_fibres(Heart(mesh, regions=mesh.cell_fields["region"]))


def _assert_frame(heart):
    assert heart.f0 is not None
    np.testing.assert_allclose(np.linalg.norm(heart.f0, axis=1), 1.0, rtol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(heart.s0, axis=1), 1.0, rtol=1e-9)
    np.testing.assert_allclose(np.einsum("ti,ti->t", heart.f0, heart.s0), 0.0, atol=1e-9)


def _helix_in_ellipsoid(mesh, f0):
    """Depth in the wall (0 endo, 1 epi) and helix angle [degrees], from the exact ellipsoids."""
    centre = mesh.points[mesh.tets].mean(axis=1)
    # The confocal-like family of ellipsoids radii + s * wall; s solves |centre / radii(s)| = 1.
    low, high = np.zeros(len(centre)), np.ones(len(centre))
    for _ in range(40):
        middle = 0.5 * (low + high)
        outside = (((centre / (RADII + middle[:, None] * WALL)) ** 2).sum(axis=1)) > 1
        low, high = np.where(outside, middle, low), np.where(outside, high, middle)
    normal = centre / (RADII + low[:, None] * WALL) ** 2
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    around = np.cross([0.0, 0.0, 1.0], normal)
    around /= np.linalg.norm(around, axis=1, keepdims=True)
    along = np.cross(normal, around)
    sine, cosine = (np.einsum("ti,ti->t", f0, axis) for axis in (along, around))
    middle = (centre[:, 2] > -40) & (centre[:, 2] < 10)
    return low[middle], np.degrees(np.arctan(sine / cosine))[middle]


@pytest.mark.parametrize(("endo", "epi"), [(60.0, -60.0), (80.0, -40.0)])
def test_helix_runs_linearly_between_the_asked_angles(lv_mesh, endo, epi):
    heart = add_fibres(Heart(lv_mesh), alpha_endo=endo, alpha_epi=epi)
    _assert_frame(heart)
    depth, helix = _helix_in_ellipsoid(lv_mesh, heart.f0)
    # In a curved wall the Laplace field is a logarithm of the radius, here 5 % above the line.
    at_depth = np.poly1d(np.polyfit(depth, helix, 2))
    assert at_depth(0.0) == pytest.approx(endo, abs=2.0)
    assert at_depth(1.0) == pytest.approx(epi, abs=2.0)
    assert at_depth(0.5) == pytest.approx((endo + epi) / 2, abs=0.06 * abs(endo - epi))
    assert np.abs(helix - at_depth(depth)).max() < 8.0


def test_rotating_the_mesh_rotates_the_fibres(two_ventricles):
    mesh = two_ventricles.mesh
    rotation = Rotation.from_rotvec([0.7, -1.1, 0.4]).as_matrix()
    turned = TetMesh(mesh.points @ rotation.T + 30.0, mesh.tets, mesh.point_fields)
    f0 = np.asarray(add_fibres(Heart(turned)).f0)
    cosine = np.einsum("ti,ti->t", f0, two_ventricles.f0 @ rotation.T)
    # A tetrahedron on the limit between the ventricles may fall to the other side by rounding.
    assert (cosine > 1 - 1e-4).mean() > 0.9995


def test_transmural_coordinate_spans_the_wall_of_both_ventricles(two_ventricles):
    mesh = two_ventricles.mesh
    depth, classes = mesh.point_fields["transmural"], mesh.point_fields["surf_class"]
    assert depth.min() >= -1e-6
    assert depth.max() <= 1 + 1e-6
    np.testing.assert_allclose(depth[classes == 2], 1.0, atol=1e-6)
    np.testing.assert_allclose(depth[classes == 3], 0.0, atol=1e-6)
    region_of = np.zeros(mesh.n_nodes, dtype=int)
    region_of[mesh.tets] = mesh.cell_fields["region"][:, None]
    free_wall = (classes == 4) & (region_of == Region.RV_FREE_WALL)
    septal = (classes == 4) & (region_of == Region.SEPTUM)
    # The limit between the two runs along the insertions, not exactly along the regions.
    assert (depth[free_wall] < 1e-6).mean() > 0.9
    assert (depth[septal] > 1 - 1e-6).mean() > 0.9


def test_fibres_of_both_ventricles_form_a_frame_and_turn_through_the_rv_wall(two_ventricles):
    _assert_frame(two_ventricles)
    mesh = two_ventricles.mesh
    centre = mesh.points[mesh.tets].mean(axis=1)
    rv = (two_ventricles.regions == Region.RV_FREE_WALL) & (centre[:, 2] > -40)
    touches = [(mesh.point_fields["surf_class"][mesh.tets] == s).any(axis=1) for s in (4, 2)]
    around = np.cross([0.0, 0.0, 1.0], two_ventricles.s0)
    handed = np.sign(np.einsum("ti,ti->t", two_ventricles.f0, around)) * two_ventricles.f0[:, 2]
    assert (handed[rv & touches[0] & ~touches[1]] > 0).mean() > 0.95
    assert (handed[rv & touches[1] & ~touches[0]] < 0).mean() > 0.95


def test_real_mean_shape_gets_fibres_everywhere():
    meshio = pytest.importorskip("meshio")
    path = DATA / "biv_mean_shape" / "heart_tets.vtu"
    if not path.is_file():
        pytest.skip(f"no real data at {DATA}: set TWINHEART_DATA")
    real = meshio.read(path)
    mesh = TetMesh(real.points, real.cells_dict["tetra"], real.point_data)
    heart = add_fibres(Heart(mesh))
    _assert_frame(heart)
    depth = heart.mesh.point_fields["transmural"]
    assert np.isfinite(depth).all()


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_missing_surface_is_named(lv_mesh, missing):
    classes = np.where(lv_mesh.point_fields["surf_class"] == missing, 0, 2 if missing != 2 else 3)
    with pytest.raises(MeshError, match="no node is tagged"):
        add_fibres(Heart(lv_mesh), surf_class=classes)


def test_untagged_mesh_bad_shape_and_bad_angle_are_refused(lv_mesh):
    with pytest.raises(MeshError, match="no point field 'surf_class'"):
        add_fibres(Heart(slab((2.0, 1.0, 1.0), 1.0)))
    with pytest.raises(MeshError, match="expected"):
        add_fibres(Heart(lv_mesh), surf_class=np.ones(3, dtype=int))
    with pytest.raises(InputError, match="alpha_endo is 120"):
        add_fibres(Heart(lv_mesh), alpha_endo=120.0)
