"""Fibres by Laplace rules: exact angles, continuity, both ventricles, the plain rule, bad tags."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from twinheart.anatomy import Heart
from twinheart.anatomy.fibres import add_fibres
from twinheart.anatomy.frame import apex_node
from twinheart.anatomy.wall import wall_of
from twinheart.errors import InputError, MeshError
from twinheart.fem import gradients, solve_laplace
from twinheart.mesh import TetMesh
from twinheart.mesh.biventricle import BiventricularShape, Region, biventricle
from twinheart.mesh.generate import lv_ellipsoid, slab
from twinheart.mesh.quality import edges

DATA = Path(os.environ.get("TWINHEART_DATA", Path(__file__).parents[1] / "../shared/data"))
RADII, WALL = np.array([24.5, 24.5, 65.0]), np.array([9.5, 9.5, 6.5])
# Mean error of the angles on the ellipsoid [degrees], as the project asks for.
EXACT_ANGLE = 2.0
# No two neighbours in a wall differ by more than this beyond their turn through the wall [degrees].
JUMP = 30.0
# The frame of the wall is singular along the grooves and at the apex: one wall's thickness [mm].
NEAR = 10.0


@pytest.fixture(scope="module")
def lv_mesh():
    return lv_ellipsoid(edge=2.5)


@pytest.fixture(scope="module")
def two_ventricles():
    mesh = biventricle(edge=2.5)
    return add_fibres(Heart(mesh, regions=mesh.cell_fields["region"]))


def _unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _between(a, b):
    """Angle between two lines [degrees]."""
    return np.degrees(np.arccos(np.clip(np.abs(np.einsum("ti,ti->t", a, b)), 0.0, 1.0)))


def _assert_frame(heart):
    assert heart.f0 is not None
    np.testing.assert_allclose(np.linalg.norm(heart.f0, axis=1), 1.0, rtol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(heart.s0, axis=1), 1.0, rtol=1e-9)
    np.testing.assert_allclose(np.einsum("ti,ti->t", heart.f0, heart.s0), 0.0, atol=1e-9)


def _exact_fibres(mesh, endo, epi):
    """Fibres whose angle is linear between two exact ellipsoids (Land et al. 2015)."""
    centre = mesh.points[mesh.tets].mean(axis=1)
    # the family of ellipsoids radii + t * wall; t solves |centre / radii(t)| = 1
    low, high = np.zeros(len(centre)), np.ones(len(centre))
    for _ in range(40):
        middle = 0.5 * (low + high)
        outside = (((centre / (RADII + middle[:, None] * WALL)) ** 2).sum(axis=1)) > 1
        low, high = np.where(outside, middle, low), np.where(outside, high, middle)
    normal = _unit(centre / (RADII + low[:, None] * WALL) ** 2)
    around = _unit(np.cross([0.0, 0.0, 1.0], normal))
    angle = np.radians((1 - low) * endo + low * epi)[:, None]
    return np.cos(angle) * around + np.sin(angle) * np.cross(normal, around), normal


@pytest.mark.parametrize(("endo", "epi"), [(60.0, -60.0), (90.0, -90.0), (80.0, -40.0)])
def test_fibres_of_an_ellipsoid_have_the_exact_angles(lv_mesh, endo, epi):
    heart = add_fibres(Heart(lv_mesh), alpha_endo=endo, alpha_epi=epi, beta_endo=0.0, beta_epi=0.0)
    _assert_frame(heart)
    fibre, normal = _exact_fibres(lv_mesh, endo, epi)
    assert _between(heart.f0, fibre).mean() < EXACT_ANGLE
    assert _between(heart.s0, normal).mean() < EXACT_ANGLE


def test_sheets_turn_about_the_fibres_by_the_asked_angle(lv_mesh):
    flat = add_fibres(Heart(lv_mesh), beta_endo=0.0, beta_epi=0.0)
    turned = add_fibres(Heart(lv_mesh), beta_endo=25.0, beta_epi=25.0)
    assert flat.f0 is not None
    np.testing.assert_allclose(np.asarray(turned.f0), flat.f0, atol=1e-12)
    assert np.median(_between(turned.s0, flat.s0)) == pytest.approx(25.0, abs=0.1)


def test_rotating_the_mesh_rotates_the_fibres(two_ventricles):
    mesh = two_ventricles.mesh
    rotation = Rotation.from_rotvec([0.7, -1.1, 0.4]).as_matrix()
    turned = TetMesh(mesh.points @ rotation.T + 30.0, mesh.tets, mesh.point_fields)
    f0 = np.asarray(add_fibres(Heart(turned)).f0)
    # on the line of the grooves rounding may put a node to the other ventricle
    assert (_between(f0, two_ventricles.f0 @ rotation.T) < 1.0).mean() > 0.9995


def test_transmural_depth_spans_the_wall_of_both_ventricles(two_ventricles):
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


def _helix_in_free_rv(heart):
    """Helix angles [degrees] next to the RV's endocardium and to its epicardium, from its shape."""
    shape, mesh = BiventricularShape(), heart.mesh
    centre = mesh.points[mesh.tets].mean(axis=1)
    away = (centre - shape.rv_centre) / np.asarray(shape.rv_radii) ** 2
    around = _unit(np.cross([0.0, 0.0, 1.0], away))
    helix = np.degrees(np.arctan(heart.f0[:, 2] / np.einsum("ti,ti->t", heart.f0, around)))
    free = (heart.regions == Region.RV_FREE_WALL) & (np.abs(centre[:, 1]) < 20)
    free &= (centre[:, 2] > -40) & (centre[:, 2] < -5)
    touches = [(mesh.point_fields["surf_class"][mesh.tets] == s).any(axis=1) for s in (4, 2)]
    return helix[free & touches[0] & ~touches[1]], helix[free & touches[1] & ~touches[0]]


def test_fibres_turn_through_the_rv_wall_too_by_angles_of_their_own(two_ventricles):
    _assert_frame(two_ventricles)
    endo, epi = _helix_in_free_rv(two_ventricles)
    assert (endo > 0).mean() > 0.95
    assert (epi < 0).mean() > 0.95
    mesh, left = two_ventricles.mesh, two_ventricles.regions == Region.LV_FREE_WALL
    other = add_fibres(
        Heart(mesh, regions=two_ventricles.regions), rv_alpha_endo=20.0, rv_alpha_epi=20.0
    )
    endo, epi = _helix_in_free_rv(other)
    # the surface of the leaning RV is no exact ellipsoid: its own angles are known to some degrees
    assert np.median(endo) == pytest.approx(20.0, abs=8.0)
    assert np.median(epi) == pytest.approx(20.0, abs=8.0)
    assert np.median(_between(other.f0, two_ventricles.f0)[left]) < 0.01


def _neighbours(tets):
    """Pairs of tetrahedra that share a face."""
    faces = np.sort(tets[:, [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]].reshape(-1, 3), axis=1)
    order = np.lexsort(faces.T)
    same = np.flatnonzero((faces[order[1:]] == faces[order[:-1]]).all(axis=1))
    return order[same] // 4, order[same + 1] // 4


def _jumps(heart):
    """Angle between neighbours beyond their turn through the wall, off grooves and apex."""
    mesh, wall = heart.mesh, wall_of(heart.mesh)
    pairs = edges(mesh.tets)
    pairs = pairs[(wall.classes[pairs] == 2).all(axis=1)]
    groove = mesh.points[pairs[wall.tv[pairs[:, 0]] != wall.tv[pairs[:, 1]]]].mean(axis=1)
    centre = mesh.points[mesh.tets].mean(axis=1)
    away = np.linalg.norm(centre - mesh.points[apex_node(mesh)], axis=1) > NEAR
    away &= KDTree(groove).query(centre)[0] > NEAR
    a, b = _neighbours(mesh.tets)
    a, b = a[away[a] & away[b]], b[away[a] & away[b]]
    depth = np.abs(wall.signed_depth[mesh.tets].mean(axis=1))
    return _between(heart.f0[a], heart.f0[b]) - 120.0 * np.abs(depth[a] - depth[b])


def test_neighbours_have_no_jump_in_the_septum_and_the_walls(two_ventricles):
    assert _jumps(two_ventricles).max() < JUMP


def _plain_ldrb(mesh, classes, endo, epi):
    """The rule as published: three potentials, frames turned, then interpolated."""
    grad, _ = gradients(mesh.points, mesh.tets)
    nodes = np.flatnonzero(classes >= 2)
    lv, rv, outer = (solve_laplace(mesh, nodes, (classes[nodes] == s) * 1.0) for s in (3, 4, 2))
    base, apex = np.flatnonzero(classes == 1), apex_node(mesh)
    psi = solve_laplace(mesh, np.append(base, apex), np.append(np.ones(len(base)), 0.0))
    up, g_lv, g_rv, g_outer = (
        np.einsum("tai,ta->ti", grad, u[mesh.tets]) for u in (psi, lv, rv, outer)
    )
    lv, rv, outer = (np.clip(u[mesh.tets].mean(axis=1), 1e-9, 1.0) for u in (lv, rv, outer))

    def frame(towards, angle):
        e1 = _unit(up)
        e2 = _unit(towards - np.einsum("ti,ti->t", towards, e1)[:, None] * e1)
        axes = np.stack([np.cross(e1, e2), e1, e2], axis=-1)
        return Rotation.from_matrix(axes) * Rotation.from_euler("z", angle[:, None], degrees=True)

    def between(a, b, share):
        return a * Rotation.from_rotvec((a.inv() * b).as_rotvec() * share[:, None])

    share, depth = rv / (lv + rv), np.sqrt(outer)
    inner = between(
        frame(-g_lv, endo * (1 - 2 * share)), frame(g_rv, endo * (1 - 2 * share)), share
    )
    half_turn = Rotation.from_rotvec(np.where(share > 0.5, np.pi, 0.0)[:, None] * [0.0, 1.0, 0.0])
    turned = between(inner * half_turn, frame(g_outer, endo + (epi - endo) * depth), depth)
    return turned.as_matrix()[:, :, 0]


def test_fibres_are_those_of_the_published_rule_where_that_is_smooth(two_ventricles):
    mesh = two_ventricles.mesh
    plain = _plain_ldrb(mesh, mesh.point_fields["surf_class"], 60.0, -60.0)
    angle = _between(two_ventricles.f0, plain)
    region = mesh.cell_fields["region"]
    # the potentials bend the rotation by 5 % of its 120 degrees; frames differ at insertions
    for part in (Region.LV_FREE_WALL, Region.SEPTUM, Region.RV_FREE_WALL):
        assert np.median(angle[region == part]) < 0.05 * 120.0


def test_fibres_run_along_an_outflow_tract_inside_it(two_ventricles):
    mesh = two_ventricles.mesh
    classes = mesh.point_fields["surf_class"]
    rim = (classes == 1) & (mesh.points[:, 0] < -30) & (mesh.points[:, 1] < 0)
    tagged = TetMesh(
        mesh.points, mesh.tets, {**mesh.point_fields, "outflow": rim}, mesh.cell_fields
    )
    heart = add_fibres(Heart(tagged))
    assert heart.f0 is not None
    inside = rim[mesh.tets].any(axis=1) & (classes[mesh.tets] == 4).any(axis=1)
    far = (np.abs(mesh.points[:, 2] + 45) < 15)[mesh.tets].all(axis=1)
    steeper = np.abs(heart.f0[:, 2]) - np.abs(two_ventricles.f0[:, 2])
    assert np.median(steeper[inside]) > 0.1
    assert np.median(np.abs(steeper[far])) < 0.05  # the harmonic blend fades, but has no end
    with pytest.raises(MeshError, match="'outflow' is zero everywhere"):
        add_fibres(
            Heart(TetMesh(mesh.points, mesh.tets, {**mesh.point_fields, "outflow": 0 * rim}))
        )


def test_real_mean_shape_gets_fibres_without_jumps():
    meshio = pytest.importorskip("meshio")
    path = DATA / "biv_mean_shape" / "heart_tets.vtu"
    if not path.is_file():
        pytest.skip(f"no real data at {DATA}: set TWINHEART_DATA")
    real = meshio.read(path)
    mesh = TetMesh(real.points, real.cells_dict["tetra"], real.point_data)
    heart = add_fibres(Heart(mesh))
    _assert_frame(heart)
    assert np.isfinite(heart.mesh.point_fields["transmural"]).all()
    assert _jumps(heart).max() < JUMP


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


def test_a_ridge_of_one_surface_takes_the_directions_beside_it(lv_mesh):
    """Nodes that only nodes of one surface surround have no slope; their neighbours have."""
    classes = np.array(lv_mesh.point_fields["surf_class"])
    centre = int(np.flatnonzero(classes == 2)[len(np.flatnonzero(classes == 2)) // 2])
    near = np.linalg.norm(lv_mesh.points - lv_mesh.points[centre], axis=1) < 14.0
    near &= np.linalg.norm(lv_mesh.points / (RADII + WALL), axis=1) > 0.87
    classes[near & (classes == 0)] = 2
    heart = add_fibres(Heart(lv_mesh), surf_class=classes)
    inside = near[lv_mesh.tets].all(axis=1) & (classes[lv_mesh.tets] == 2).all(axis=1)
    assert inside.sum() > 20
    outwards = lv_mesh.points[centre] / (RADII + WALL) ** 2
    # in the wall, as its neighbours are; random directions would give 0.5
    assert np.median(np.abs(heart.f0[inside] @ outwards)) < 0.3 * np.linalg.norm(outwards)


def test_a_mesh_mostly_between_nodes_of_one_surface_is_refused(lv_mesh):
    classes = np.array(lv_mesh.point_fields["surf_class"])
    classes[(classes == 0) & (lv_mesh.points[:, 0] > 0)] = 2
    with pytest.raises(MeshError, match="no transmural or no long direction"):
        add_fibres(Heart(lv_mesh), surf_class=classes)
