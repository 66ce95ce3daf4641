"""Label images and surfaces become tetrahedral hearts: volume, surface, tags, walls, topology."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from twinheart.cli import main
from twinheart.errors import InputError, MeshError
from twinheart.imaging import ChamberMasks, chamber_masks, read_image, repair_masks
from twinheart.imaging.build import mesh_muscle
from twinheart.imaging.chambers import MinimumWall
from twinheart.imaging.check import check_mesh, check_step
from twinheart.imaging.distance_grid import inside_volume, mask_distance, opened, smoothed_distance
from twinheart.imaging.element_size import GROWTH, element_size, parse_fine
from twinheart.imaging.from_labels import chambers_from_masks
from twinheart.imaging.from_surfaces import chambers_from_patches, tagged_surface
from twinheart.imaging.sources import load_muscle
from twinheart.imaging.surface_grid import (
    NearSurface,
    box_grid,
    distance_on_grid,
    distance_to_triangles,
    winding_numbers,
)
from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.biventricle import BiventricularShape, biventricle
from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.io import read_mesh
from twinheart.mesh.quality import aspect_ratios, boundary_triangles, dihedral_angles, edges
from twinheart.mesh.stuffing import stuff

# The targets, in edge lengths and per cent.
MEAN_DISTANCE, P95_DISTANCE, VOLUME_PERCENT = 0.25, 0.6, 1.0
# A voxel's label says on which side of the surface its centre is: half a voxel is left open. What
# smoothing makes of it is better on average over a smooth surface.
MEAN_STAIRS = 0.15
# The rim is rounded by up to the width of a voxel and is left out of comparisons.
RIM = 5.0
VOXEL, EDGE = 1.5, 2.5
SHAPE = BiventricularShape()
# Walls that a coarse and cheap mesh resolves.
THICK = BiventricularShape(rv_wall=5.0)


def sphere(radius: float, centre=(0.0, 0.0, 0.0), edge: float = 1.5) -> TriMesh:
    """Triangles of a ball, normals outwards."""
    box = ([-radius - 1] * 3, [radius + 1] * 3)
    ball = stuff(lambda x: np.linalg.norm(x, axis=1) - radius, box, edge)
    triangles = boundary_triangles(ball.tets)
    nodes, local = np.unique(triangles, return_inverse=True)
    return TriMesh(ball.points[nodes] + centre, local.reshape(-1, 3))


def sagitta(ball: TriMesh, radius: float) -> float:
    """How far the triangles lie inside their sphere: a third more than the deepest middle."""
    return 4 / 3 * (radius - np.linalg.norm(ball.points[ball.triangles].mean(axis=1), axis=1).min())


def shell(radius: float, cut: float) -> TriMesh:
    """A sphere without its cap above z = cut."""
    ball = sphere(radius)
    below = (ball.points[:, 2] < cut)[ball.triangles].any(axis=1)
    return TriMesh(ball.points, ball.triangles[below])


def voxel_grid(bounds, voxel: float, margin: float):
    low, high = np.asarray(bounds)[0] - margin, np.asarray(bounds)[1] + margin
    shape = np.ceil((high - low) / voxel).astype(int)
    affine = np.diag([voxel, voxel, voxel, 1.0])
    affine[:3, 3] = low + 0.3 * voxel
    points = np.stack(np.indices(shape), axis=-1).reshape(-1, 3) * voxel + affine[:3, 3]
    return points, tuple(shape.tolist()), affine


def voxelised(shape: BiventricularShape, voxel: float, *, rv: bool = True) -> ChamberMasks:
    """The analytic heart as a segmentation would show it, its base cut flat."""
    points, size, affine = voxel_grid(shape.bounds(), voxel, 6.0)
    below = points[:, 2] < 0
    lv = below & (shape.lv_cavity(points) < 0)
    right = below & (shape.rv_cavity(points) < 0)
    outer = shape.epicardium(points) if rv else shape.lv_body(points)
    muscle = below & (outer < 0) & ~lv & ~(right & rv)
    masks = [m.reshape(size) for m in (lv, muscle, right)]
    return ChamberMasks(masks[0], masks[1], masks[2] if rv else None, affine)


def true_distance(points, *, rv: bool = True) -> np.ndarray:
    """Distance to the analytic heart's surface, rim aside."""
    sides = [SHAPE.epicardium(points) if rv else SHAPE.lv_body(points), -SHAPE.lv_cavity(points)]
    sides += [-SHAPE.rv_cavity(points)] if rv else []
    return np.abs(np.max([points[:, 2], *sides], axis=0))


def built(masks: ChamberMasks, edge: float, wall: MinimumWall | None = None):
    repaired, _ = repair_masks(masks)
    return mesh_muscle(chambers_from_masks(repaired, edge, wall), edge)


@pytest.fixture(scope="module")
def heart():
    """The voxelised analytic heart, meshed."""
    return built(voxelised(SHAPE, VOXEL), EDGE)


# --- building blocks -----------------------------------------------------------------------------


def test_distance_to_a_triangle_is_exact_above_beside_and_at_corners():
    triangle = np.array([[[0.0, 0, 0], [4, 0, 0], [0, 4, 0]]])
    points = np.array([[1.0, 1, 2], [2, -3, 0], [-3, -4, 0], [4, 4, 0], [7, 0, 4]])
    distance = distance_to_triangles(points, triangle.repeat(5, axis=0))
    np.testing.assert_allclose(distance, [2, 3, 5, np.sqrt(8), 5], rtol=1e-14)


@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_distance_on_a_grid_is_that_of_a_sphere(flip):
    ball = sphere(9.0)
    affine, shape = box_grid(ball.points, 0.8, 3.0)
    affine[0, 0] *= flip
    affine[0, 3] *= flip
    corners = ball.points[ball.triangles]
    winding = winding_numbers(corners, affine, shape)
    assert (winding == winding[0]).all()
    distance = distance_on_grid(NearSurface(corners, 0.8), winding, affine)
    at = np.stack(np.indices(shape), axis=-1) @ affine[:3, :3].T + affine[:3, 3]
    exact = np.linalg.norm(at, axis=-1) - 9.0
    near = np.abs(exact) < 1.5
    deepest = sagitta(ball, 9.0) + 1e-3
    assert np.abs(distance - exact)[near].max() < deepest
    assert ((distance < 0) == (exact < 0))[np.abs(exact) > deepest].all()


def test_overlapping_surfaces_count_as_one_body():
    one, two = sphere(6.0), sphere(6.0, (5.0, 0.0, 0.0))
    corners = np.concatenate([s.points[s.triangles] for s in (one, two)])
    affine, shape = box_grid(corners.reshape(-1, 3), 0.8, 3.0)
    winding = winding_numbers(corners, affine, shape)
    at = np.stack(np.indices(shape), axis=-1) * 0.8 + affine[:3, 3]
    radius = 6.0 - sagitta(one, 6.0)
    inside = [np.linalg.norm(at - c, axis=-1) < radius for c in ((0, 0, 0), (5, 0, 0))]
    assert (winding[:, inside[0] & inside[1]] == 2).all()
    assert (winding[:, inside[0] ^ inside[1]] >= 1).all()


@pytest.mark.parametrize("slope", [0.0, 0.13, 0.4, 1.0])
def test_stairs_of_a_plane_are_smoothed_away(slope):
    x, y, _ = np.indices((60, 60, 12)).astype(float)
    exact = (x - 30.3 - slope * (y - 30)) / np.hypot(1, slope)
    distance = smoothed_distance(exact < 0, np.ones(3))
    core = (np.abs(exact) < 0.8)[10:-10, 10:-10, 2:-2]
    error = np.abs(distance - exact)[10:-10, 10:-10, 2:-2][core]
    stairs = np.abs(mask_distance(exact < 0, np.ones(3)) - exact)[10:-10, 10:-10, 2:-2][core]
    # a plane along layers of voxels hides its place between two of them
    assert error.mean() < (0.3 / np.hypot(1, slope) if slope in (0, 1) else 0.1)
    assert error.max() <= max(0.5, stairs.max())


def test_smoothing_keeps_the_volume():
    radius = np.linalg.norm(np.indices((44, 44, 44)) - 21.4, axis=0)
    mask = radius < 14.3
    smooth = smoothed_distance(mask, np.full(3, 0.5))
    assert inside_volume(smooth, np.full(3, 0.5)) == pytest.approx(mask.sum() / 8, rel=1e-3)


def test_opening_fills_a_crevice_and_leaves_the_rest():
    x, y, z = np.indices((50, 40, 40)) - np.array([14, 20, 20])[:, None, None, None]
    ball = np.linalg.norm([x, y, z], axis=0) - 11.0
    # a wedge that leaves the ball sideways and gets thinner than the opening's ball
    wedge = np.max([np.abs(y) - 0.12 * (32 - x), np.abs(z) - 6.0, -x - 0.0], axis=0)
    left = opened(np.minimum(ball, wedge), np.ones(3), 1.5)
    assert (left[:20] <= ball[:20] + 0.05).all()
    # half as thick as the ball's radius at 14 + 32 - 1.5 / 0.12; the ball reaches 1.5 further
    assert (left[38:] > 0).all()
    assert left[28, 20, 20] < 0


# --- labels --------------------------------------------------------------------------------------


def test_a_segmented_heart_keeps_volume_and_surface(heart):
    mesh, report = heart
    assert abs(report["volume_error_percent"]) < VOLUME_PERCENT
    assert report["surface_distance_mm"]["mean"] < MEAN_DISTANCE * EDGE
    assert report["surface_distance_mm"]["p95"] < P95_DISTANCE * EDGE
    surface = mesh.points[np.unique(boundary_triangles(mesh.tets))]
    surface = surface[surface[:, 2] < -RIM]
    error = true_distance(surface)
    assert error.mean() < MEAN_STAIRS * VOXEL
    assert np.percentile(error, 95) < 0.5 * VOXEL


def test_a_segmented_heart_is_one_piece_with_whole_walls(heart):
    mesh, report = heart
    found = check_mesh(mesh)
    assert found["n_components"] == 1
    assert found["n_flipped"] == 0
    assert found["min_dihedral_deg"] > 8
    assert found["max_aspect"] < 6
    assert found["boundary"] == {
        "euler": 2, "n_surfaces": 1, "n_open_edges": 0, "n_crowded_edges": 0, "n_pinched_nodes": 0
    }  # fmt: skip
    assert report["boundary"]["expected_euler"] == 2
    assert report["lost_walls"] == []
    assert set(found["boundary_tags"]) == {
        "base", "epicardium", "lv_endocardium", "rv_endocardium"
    }  # fmt: skip


def test_tags_are_those_of_the_analytic_surfaces(heart):
    mesh, _ = heart
    tags = mesh.point_fields["surf_class"]
    x = mesh.points
    own = {
        SurfaceClass.BASE: np.abs(x[:, 2]),
        SurfaceClass.EPICARDIUM: np.abs(SHAPE.epicardium(x)),
        SurfaceClass.LV_ENDOCARDIUM: np.abs(SHAPE.lv_cavity(x)),
        SurfaceClass.RV_ENDOCARDIUM: np.abs(SHAPE.rv_cavity(x)),
    }
    surface = np.unique(boundary_triangles(mesh.tets))
    assert set(np.flatnonzero(tags)) == set(surface)
    clear = surface[x[surface, 2] < -RIM]
    nearest = np.array(list(own))[np.argmin([own[c][clear] for c in own], axis=0)]
    assert (tags[clear] == nearest).mean() > 0.999
    top = surface[x[surface, 2] > -0.3]
    assert (tags[top] == SurfaceClass.BASE).mean() > 0.9


def test_the_left_ventricle_alone_is_a_heart():
    mesh, report = built(voxelised(SHAPE, 2.0, rv=False), 3.0)
    assert report["boundary"]["euler"] == report["boundary"]["expected_euler"] == 2
    assert abs(report["volume_error_percent"]) < VOLUME_PERCENT
    assert set(mesh.point_fields["surf_class"]) == {0, 1, 2, 3}


def test_same_masks_same_mesh():
    first, second = (built(cup(16.0, 10.0, voxel=1.5), 2.5)[0] for _ in range(2))
    np.testing.assert_array_equal(first.points, second.points)
    np.testing.assert_array_equal(first.tets, second.tets)


def cup(outer: float, inner: float, *, hole: bool = False, voxel: float = 1.0) -> ChamberMasks:
    """Half a hollow ball, open above; perhaps with a hole in its side."""
    points, size, affine = voxel_grid(([-outer] * 3, [outer, outer, 0]), voxel, 6.0)
    radius = np.linalg.norm(points, axis=1)
    pool = (radius < inner) & (points[:, 2] < 0)
    muscle = (radius < outer) & (points[:, 2] < 0) & ~pool
    if hole:
        muscle &= np.linalg.norm(points - [outer, 0, -outer / 2], axis=1) > 5.0
    return ChamberMasks(pool.reshape(size), muscle.reshape(size), None, affine)


def test_a_thin_wall_is_thickened_and_what_that_adds_is_said():
    thin = cup(16.0, 14.8)
    wall = MinimumWall(lv=3.0)
    _, report = built(thin, 1.5, wall)
    repaired, _ = repair_masks(thin)
    pool = repaired.lv_pool.sum() * 1.0
    radius = (pool / (2 * np.pi / 3)) ** (1 / 3)
    # half a shell of 3 mm around the pool, without the rounded rim
    thick = 2 * np.pi / 3 * ((radius + 3) ** 3 - radius**3) / 1e3
    assert report["volume_ml"] == pytest.approx(thick, rel=0.05)
    added = report["volume_ml"] - report["target_volume_ml"]
    assert report["added_wall_ml"] == pytest.approx(added, rel=0.05)
    assert report["boundary"]["euler"] == 2
    assert report["lost_walls"] == []


def test_a_wall_too_thin_for_the_edge_is_reported_with_its_place():
    points, size, affine = voxel_grid(([-20] * 3, [20, 20, 0]), 1.0, 6.0)
    radius = np.linalg.norm(points, axis=1)
    pool = (np.linalg.norm(points - [3.0, 0, 0], axis=1) < 14) & (points[:, 2] < 0)
    muscle = (radius < 18.2) & (points[:, 2] < 0) & ~pool
    masks = ChamberMasks(pool.reshape(size), muscle.reshape(size), None, affine)
    _, whole = built(masks, 3.0, MinimumWall(lv=5.0))
    assert whole["lost_walls"] == []
    _, report = built(masks, 3.0, MinimumWall(lv=0.0, rv=0.0))
    assert report["boundary"]["euler"] != report["boundary"]["expected_euler"]
    place = np.array(report["lost_walls"][0]["place_mm"])
    assert place[0] > 4  # towards the side where the wall is 1.2 mm
    assert "epicardium and lv_endocardium" in " ".join(report["remarks"])


def test_ventricles_that_touch_are_parted():
    masks = voxelised(BiventricularShape(lv_wall=4.0), 2.5)
    mesh, report = built(masks, 3.0, MinimumWall(lv=6.0, rv=5.0))
    assert report["lost_walls"] == []
    assert report["added_wall_ml"] > 1
    tags = mesh.point_fields["surf_class"][mesh.tets]
    both = (tags == SurfaceClass.LV_ENDOCARDIUM).any(axis=1)
    both &= (tags == SurfaceClass.RV_ENDOCARDIUM).any(axis=1)
    assert not both.any()


def test_fine_voxels_are_joined_for_a_coarse_mesh():
    fine = cup(16.0, 10.0, voxel=0.5)
    repaired, _ = repair_masks(fine)
    body = chambers_from_masks(repaired, 2.0)
    assert body.hull.spacing == pytest.approx(1.5)
    _, report = mesh_muscle(body, 2.0)
    exact = 2 * np.pi / 3 * (16.0**3 - 10.0**3) / 1e3
    # the edges of its rim are rounded by about a voxel of the joined grid
    assert report["volume_ml"] == pytest.approx(exact, rel=0.04)


def test_masks_that_were_not_repaired_are_refused():
    with pytest.raises(InputError, match="repair_masks"):
        chambers_from_masks(cup(16.0, 10.0), 2.0)


# --- surfaces ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def surface() -> TriMesh:
    """The analytic heart as a closed tagged surface."""
    mesh = biventricle(3.2, THICK)
    nodes, local = np.unique(boundary_triangles(mesh.tets), return_inverse=True)
    tags = {"class": mesh.point_fields["surf_class"][nodes]}
    return TriMesh(mesh.points[nodes], local.reshape(-1, 3), tags)


def test_a_tagged_surface_is_filled_up_to_itself(surface):
    mesh, report = mesh_muscle(tagged_surface(surface, 2.8), 2.8)
    assert abs(report["volume_error_percent"]) < VOLUME_PERCENT
    assert report["surface_distance_mm"]["mean"] < MEAN_DISTANCE * 2.8
    assert report["surface_distance_mm"]["p95"] < P95_DISTANCE * 2.8
    assert report["boundary"]["euler"] == report["boundary"]["expected_euler"] == 2
    assert report["lost_walls"] == []
    nodes = np.unique(boundary_triangles(mesh.tets))
    clear = nodes[mesh.points[nodes, 2] < -RIM]
    x = mesh.points[clear]
    sides = [THICK.epicardium(x), -THICK.lv_cavity(x), -THICK.rv_cavity(x)]
    expected = 2 + np.argmax(sides, axis=0)
    assert (mesh.point_fields["surf_class"][clear] == expected).mean() > 0.999


def test_a_small_hole_is_closed_and_a_large_one_refused_with_its_place(surface):
    keep = np.ones(surface.n_triangles, dtype=bool)
    keep[1000] = False
    body = tagged_surface(
        TriMesh(surface.points, surface.triangles[keep], surface.point_fields), 2.0
    )
    assert any("closed a hole" in note for note in body.notes)
    whole = tagged_surface(surface, 2.0)
    assert body.volume == pytest.approx(whole.volume, rel=1e-4)
    centre = surface.points[surface.triangles[1000, 0]]
    near = np.linalg.norm(surface.points - centre, axis=1)[surface.triangles].min(axis=1) < 6
    torn = TriMesh(surface.points, surface.triangles[~near], surface.point_fields)
    with pytest.raises(MeshError, match=r"hole of \d+ mm near \("):
        tagged_surface(torn, 2.0)


def test_a_surface_without_tags_is_refused(surface):
    with pytest.raises(MeshError, match="no fields"):
        tagged_surface(TriMesh(surface.points, surface.triangles), 2.0)


def test_open_patches_make_an_open_cup():
    patches = {"epi": shell(20.0, 8.0), "lv": shell(14.0, 8.0)}
    mesh, report = mesh_muscle(chambers_from_patches(patches, 2.5), 2.5)
    assert report["boundary"]["euler"] == 2
    assert report["lost_walls"] == []
    assert set(mesh.point_fields["surf_class"]) == {0, 1, 2, 3}

    def cut_ball(radius, cut):  # the rims of the triangles lie a little above the cut
        return np.pi * (2 * radius**3 / 3 + radius**2 * cut - cut**3 / 3)

    exact = (cut_ball(20.0, 8.5) - cut_ball(14.0, 8.5)) / 1e3
    assert report["volume_ml"] == pytest.approx(exact, rel=0.04)
    inside = np.linalg.norm(mesh.points, axis=1) < 13.5
    assert not inside.any()


def test_an_endocardium_that_cuts_through_the_epicardium_gets_a_wall():
    lv = shell(14.0, 6.0)
    shifted = TriMesh(lv.points + np.array([4.5, 0, 0]), lv.triangles)
    patches = {"epi": shell(18.0, 6.0), "lv": shifted}
    _, report = mesh_muscle(chambers_from_patches(patches, 2.0, MinimumWall(lv=4.0)), 2.0)
    assert report["lost_walls"] == []
    assert report["boundary"]["euler"] == 2
    assert report["added_wall_ml"] > 0.3


def test_patches_of_different_hearts_are_refused():
    far = shell(14.0, 6.0)
    patches = {"epi": shell(18.0, 6.0), "lv": TriMesh(far.points + 60.0, far.triangles)}
    with pytest.raises(MeshError, match="most of the LV lies outside"):
        chambers_from_patches(patches, 4.0)


def test_patches_with_a_base_are_one_closed_surface(surface):
    tags = surface.point_fields["class"][surface.triangles].min(axis=1)
    roles = {"base": 1, "epi": 2, "lv": 3, "rv": 4}
    patches = {
        role: TriMesh(surface.points, surface.triangles[tags == tag]) for role, tag in roles.items()
    }
    body = chambers_from_patches(patches, 2.0)
    assert body.volume == pytest.approx(tagged_surface(surface, 2.0).volume, rel=1e-9)


# --- finer regions -------------------------------------------------------------------------------


def test_size_is_that_of_the_finest_region_and_grows_slowly():
    regions = [parse_fine("0,0,0,5:1"), parse_fine("30,0,0,2:0.5")]
    size = element_size(regions, 2.5)
    assert size is not None
    assert size(np.array([[0.0, 3, 0], [30, 0, 1], [0, 0, 500]])).tolist() == [1.0, 0.5, 2.5]
    points = np.random.default_rng(3).uniform(-20, 50, (2000, 3))
    other = points + np.random.default_rng(4).normal(0, 2, points.shape)
    change = np.abs(size(points) - size(other)) / np.linalg.norm(points - other, axis=1)
    assert 0.25 < change.max() < GROWTH + 1e-12


def write_cup(path) -> None:
    """A cup with LV pool 1, muscle 2 and, within the muscle, scar 4."""
    import nibabel as nib

    masks = cup(16.0, 10.0)
    labels = np.where(masks.lv_pool, 1, np.where(masks.myocardium, 2, 0)).astype(np.uint8)
    right = np.arange(labels.shape[0])[:, None, None] * 1.0 + masks.affine[0, 3] > 12
    labels[right & (labels == 2)] = 4
    image = nib.Nifti1Image(labels, masks.affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def test_a_labelled_scar_gets_smaller_elements(tmp_path, capsys):
    write_cup(tmp_path / "labels.nii.gz")
    out = tmp_path / "heart.vtu"
    arguments = [tmp_path / "labels.nii.gz", "--labels", "lv_pool=1,myo=2+4", "--edge", 2.5]
    for fine in ("4:1.0", f"{tmp_path / 'labels.nii.gz'}=4:1.0"):
        arguments += ["--fine", fine, "-o", out, "--json"]
        assert main(["mesh", "build", *map(str, arguments)]) == 0
        capsys.readouterr()
        mesh, _ = read_mesh(out)
        assert isinstance(mesh, TetMesh)
        ends = mesh.points[edges(mesh.tets)]
        length, x = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1), ends.mean(axis=1)[:, 0]
        assert length[x > 12.5].mean() == pytest.approx(1.0, rel=0.15)
        # away from the scar by more than (2.5 - 1) / 0.3 mm
        assert length[x < 6.0].mean() > 2.2
        assert dihedral_angles(mesh.points, mesh.tets).min() > 8
        assert aspect_ratios(mesh.points, mesh.tets).max() < 6
        arguments = arguments[:5]


@pytest.mark.parametrize(
    ("fine", "message"),
    [
        ("4", "expected REGION:EDGE"),
        ("1,2,3:0.5", "expected REGION:EDGE"),
        ("1,2,3,-4:0.5", "expected REGION:EDGE"),
        ("1,2,3,4:fine", "expected REGION:EDGE"),
        ("1,2,3,4:3.0", "less than the general edge of 2.5 mm"),
        ("1,2,3,4:0.1", "expected 0.3125 mm or more"),
        ("7:1.0", "has no voxel with the label 7; it has 0, 1, 2, 4"),
        ("absent.nii.gz=4:1.0", "no such file"),
    ],
)
def test_a_fine_region_that_makes_no_sense_is_refused(tmp_path, capsys, monkeypatch, fine, message):
    monkeypatch.chdir(tmp_path)
    write_cup(tmp_path / "labels.nii.gz")
    arguments = ["labels.nii.gz", "--labels", "lv_pool=1,myo=2+4", "--edge", "2.5", "-o", "x.vtu"]
    assert main(["mesh", "build", *arguments, "--fine", fine]) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "x.vtu").exists()


def test_labels_are_fine_only_where_there_is_a_label_image():
    with pytest.raises(InputError, match="no label image is meshed"):
        element_size([parse_fine("4:1.0")], 2.0)


# --- figures -------------------------------------------------------------------------------------


def test_time_step_of_the_lattice_is_the_theoretical_one():
    ball = stuff(lambda x: np.linalg.norm(x, axis=1) - 8.0, ([-9.0] * 3, [9.0] * 3), 1.0)
    # the inside alone: whole tetrahedra of the lattice
    inner = np.linalg.norm(ball.points[ball.tets].mean(axis=1), axis=1) < 5.5
    nodes, tets = np.unique(ball.tets[inner], return_inverse=True)
    found = check_step(TetMesh(ball.points[nodes], tets.reshape(-1, 4)))
    # the edges on the surface of the piece change the mean edge and the row of few nodes
    assert found["explicit_dt_ratio"] == pytest.approx(1.0, abs=0.1)


# --- real hearts ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "source",
    [
        "labels",
        "surface",
        "patches",
        pytest.param(
            "lv",
            marks=pytest.mark.xfail(
                reason="the RV's wall without its pool is a thin fin: 1.28 % of volume lost, not 1",
                strict=True,
            ),
        ),
    ],
)
def test_real_hearts_reach_the_targets(data, source):
    edge = 1.0
    patient = data / "cine_mri_patient"
    if source == "surface":
        body = load_muscle([str(data / "biv_mean_shape" / "heart_surface.vtp")], edge)
    elif source == "patches":
        files = sorted(str(path) for path in (patient / "surfaces").glob("*.vtk"))
        body = load_muscle(files, edge)
    else:
        labels = "lv_pool=1,myo=2" + (",rv_pool=3" if source == "labels" else "")
        image = str(patient / "derived_labels_ED_1p5mm.nii.gz")
        body = load_muscle([image], edge, labels=labels)
    mesh, report = mesh_muscle(body, edge)
    found = check_mesh(mesh)
    assert found["n_components"] == 1
    assert found["n_flipped"] == 0
    assert found["min_dihedral_deg"] >= 8
    assert found["max_aspect"] <= 6
    assert found["boundary"]["n_open_edges"] == 0
    assert abs(report["volume_error_percent"]) < VOLUME_PERCENT
    assert report["surface_distance_mm"]["mean"] < MEAN_DISTANCE * edge
    assert report["surface_distance_mm"]["p95"] < P95_DISTANCE * edge
    assert report["lost_walls"] == []
    assert report["boundary"]["euler"] == report["boundary"]["expected_euler"]


@pytest.mark.slow
@pytest.mark.parametrize("fine", ["3:0.9", "40,-5,-75,15:0.5"])
def test_a_real_heart_with_a_fine_region_keeps_its_quality(data, fine):
    image = data / "cine_mri_patient" / "derived_labels_ED_1p5mm.nii.gz"
    edge = 2.0 if fine == "3:0.9" else 1.5
    body = load_muscle([str(image)], edge, labels="lv_pool=1,myo=2,rv_pool=3")
    mesh, report = mesh_muscle(body, edge, size=element_size([parse_fine(fine)], edge, image))
    found = check_mesh(mesh)
    assert found["n_flipped"] == 0
    assert found["min_dihedral_deg"] >= 8
    assert found["max_aspect"] <= 6
    assert found["boundary"]["n_open_edges"] == found["boundary"]["n_crowded_edges"] == 0
    assert abs(report["volume_error_percent"]) < VOLUME_PERCENT
    assert report["lost_walls"] == []


@pytest.mark.slow
def test_noise_on_real_labels_does_not_change_the_heart(data):
    image = read_image(data / "cine_mri_patient" / "derived_labels_ED_1p5mm.nii.gz")
    masks = chamber_masks(image, "lv_pool=1,myo=2,rv_pool=3")
    edge = 1.2  # mm; at 2 mm the thin wall of the right ventricle is lost without noise too
    _, plain = built(masks, edge)
    noise = gaussian_filter(np.random.default_rng(1).standard_normal(image.values.shape), 1.0)
    flip = noise > 3.2 * noise.std()
    noisy = ChamberMasks(
        masks.lv_pool & ~flip, masks.myocardium & ~flip, masks.rv_pool & ~flip, masks.affine
    )
    _, report = built(noisy, edge)
    assert report["volume_ml"] == pytest.approx(plain["volume_ml"], rel=0.02)
    assert report["lost_walls"] == []
