"""Contours become tetrahedral hearts: volume, surface, slice spacing, files, and bad drawings."""

import contour_samples as samples
import numpy as np
import pytest
from contour_samples import SHAPE, long_axis, short_axis, write_atlas, write_csv
from scipy.spatial.transform import Rotation

from twinheart.cli import main
from twinheart.errors import InputError
from twinheart.imaging import repair_masks
from twinheart.imaging.build import mesh_muscle
from twinheart.imaging.contour_file import Contour, read_contours
from twinheart.imaging.contour_stack import contour_stack
from twinheart.imaging.from_contours import masks_from_contours
from twinheart.imaging.from_labels import chambers_from_masks
from twinheart.mesh.quality import boundary_triangles

SPACING, EDGE = 8.0, 2.2
# Slices of 8 mm leave the walls between them, and the tips, to interpolation: volumes to 1 %.
VOLUME = 0.01
# Mean distance [mm] of the boundary from the true surface: half a pixel of the contours.
MEAN_DISTANCE = 0.5 * samples.PIXEL
# The rim is rounded by about a voxel and is left out of comparisons.
RIM = 5.0


def heights(spacing: float) -> np.ndarray:
    """Slices from just below the base, in the middle of slabs."""
    return np.arange(-spacing / 2, -95, -spacing)


def true_volumes() -> dict[str, float]:
    """Volumes [ml] of the analytic heart, by counting points."""
    low, high = SHAPE.bounds()
    axes = [np.arange(a + 0.5, b, 1.0) for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    lv, rv = SHAPE.lv_cavity(points) < 0, SHAPE.rv_cavity(points) < 0
    muscle = (SHAPE.epicardium(points) < 0) & ~lv & ~rv
    return {"lv_pool": lv.sum() / 1e3, "rv_pool": rv.sum() / 1e3, "myocardium": muscle.sum() / 1e3}


def true_distance(points: np.ndarray) -> np.ndarray:
    """Distance [mm] to the analytic heart's surface, rim aside."""
    sides = [SHAPE.epicardium(points), -SHAPE.lv_cavity(points), -SHAPE.rv_cavity(points)]
    return np.abs(np.max([points[:, 2], *sides], axis=0))


def volume_errors(contours: list[Contour], edge: float = EDGE) -> dict[str, float]:
    masks, _ = masks_from_contours(contours, edge)
    found, true = masks.volumes_ml(), true_volumes()
    return {name: found[name] / true[name] - 1 for name in found}


@pytest.fixture(scope="module")
def drawn() -> list[Contour]:
    """Arcs of the analytic heart every 8 mm."""
    return short_axis(heights(SPACING), arcs=True)


@pytest.fixture(scope="module")
def heart(drawn):
    """The mesh of these contours, and the report."""
    masks, _ = masks_from_contours(drawn, EDGE)
    repaired, _ = repair_masks(masks)
    return mesh_muscle(chambers_from_masks(repaired, EDGE), EDGE)


# --- the heart between the slices ----------------------------------------------------------------


def test_contours_give_the_volumes_of_the_heart(drawn):
    assert max(map(abs, volume_errors(drawn).values())) < VOLUME


def test_the_mesh_is_that_of_the_heart(heart):
    mesh, report = heart
    surface = mesh.points[np.unique(boundary_triangles(mesh.tets))]
    error = true_distance(surface[surface[:, 2] < -RIM])
    assert error.mean() < MEAN_DISTANCE
    assert report["boundary"]["euler"] == report["boundary"]["expected_euler"] == 2
    assert report["boundary"]["n_open_edges"] == report["boundary"]["n_crowded_edges"] == 0
    assert report["lost_walls"] == []
    assert set(report["boundary_tags"]) == {
        "base", "epicardium", "lv_endocardium", "rv_endocardium"
    }  # fmt: skip
    tags = mesh.point_fields["surf_class"][mesh.tets]
    assert not ((tags == 3).any(axis=1) & (tags == 4).any(axis=1)).any()


def misplaced(contours: list[Contour]) -> float:
    """Volume [ml] of the voxels that have another meaning than in the analytic heart."""
    masks, _ = masks_from_contours(contours, EDGE)
    voxels = np.indices(masks.lv_pool.shape).reshape(3, -1).T
    points = voxels @ masks.affine[:3, :3].T + masks.affine[:3, 3]
    below = points[:, 2] < 0
    lv, rv = (below & (f(points) < 0) for f in (SHAPE.lv_cavity, SHAPE.rv_cavity))
    muscle = below & (SHAPE.epicardium(points) < 0) & ~lv & ~rv
    assert masks.rv_pool is not None
    found = (masks.lv_pool, masks.rv_pool, masks.myocardium)
    wrong = [f.ravel() != true for f, true in zip(found, (lv, rv, muscle), strict=True)]
    return np.any(wrong, axis=0).sum() * abs(np.linalg.det(masks.affine[:3, :3])) / 1e3


def test_error_grows_with_the_distance_between_slices():
    fine, coarse = (misplaced(short_axis(heights(spacing))) for spacing in (6.0, 16.0))
    assert fine < 0.5 * coarse


def test_long_axis_views_tell_what_lies_between_distant_slices():
    short = short_axis(heights(16.0))
    assert misplaced(short + long_axis()) < 0.8 * misplaced(short)


def test_arcs_are_joined_to_what_was_cut(drawn):
    whole = short_axis(heights(SPACING))
    first, second = (masks_from_contours(c, EDGE)[0].volumes_ml() for c in (drawn, whole))
    for name, volume in first.items():
        assert volume == pytest.approx(second[name], rel=0.005)


def test_a_heart_that_lies_otherwise_is_the_same_heart(drawn):
    turn = Rotation.from_rotvec([0.7, -1.9, 2.1]).as_matrix()
    moved = [Contour(c.part, c.slice, c.points @ turn.T + [9, -40, 7]) for c in drawn]
    first, second = (masks_from_contours(c, EDGE)[0].volumes_ml() for c in (drawn, moved[::-1]))
    for name, volume in first.items():
        assert volume == pytest.approx(second[name], rel=0.003)


def test_a_point_of_a_contour_lies_on_the_surface_where_it_was_drawn(drawn):
    """In the slices nothing is interpolated: outlines stay where they are, whatever is around."""
    turn = Rotation.from_rotvec([0.7, -1.9, 2.1]).as_matrix()
    moved = [Contour(c.part, c.slice, c.points @ turn.T) for c in drawn]
    masks, _ = masks_from_contours(moved, EDGE)
    rings = np.concatenate([c.points for c in moved if c.part == "lv_endo" and c.slice == "3"])
    inverse = np.linalg.inv(masks.affine)
    for scale, inside in ((0.9, True), (1.1, False)):
        places = rings.mean(axis=0) + scale * (rings - rings.mean(axis=0))
        i, j, k = np.rint(places @ inverse[:3, :3].T + inverse[:3, 3]).astype(int).T
        assert (masks.lv_pool[i, j, k] == inside).all()


def test_the_wall_of_the_right_ventricle_may_be_left_out(drawn):
    bare = [c for c in short_axis(heights(SPACING), rv_epi=False)]
    masks, notes = masks_from_contours(bare, EDGE)
    assert any("a wall of 3 mm" in note for note in notes)
    full, _ = masks_from_contours(drawn, EDGE)
    # the analytic wall has 4 mm and a fillet at the groove
    assert 0.8 < masks.volumes_ml()["myocardium"] / full.volumes_ml()["myocardium"] < 0.97
    _, repairs = repair_masks(masks)
    assert not any("no wall of the RV" in repair for repair in repairs)


def test_the_left_ventricle_alone():
    masks, _ = masks_from_contours(short_axis(heights(SPACING), rv=False), EDGE)
    assert masks.rv_pool is None
    assert masks.volumes_ml()["lv_pool"] == pytest.approx(true_volumes()["lv_pool"], rel=VOLUME)


def test_valve_points_set_the_base_and_the_apex_its_tip(drawn):
    """A mitral plane tilted by 20 degrees cuts off the volume above it, and no more."""
    slope = np.tan(np.radians(20.0))
    angle = np.radians([0, 90, 180, 270])
    ring = 20 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    ring[:, 2] = -12.0 + slope * ring[:, 0]
    marks = [Contour("mitral_valve", "9", ring), Contour("apex", "9", np.array([[0.0, 0, -90.0]]))]
    masks, notes = masks_from_contours([*drawn, *marks], EDGE)
    assert any("its valve points" in note for note in notes)
    places = np.argwhere(masks.lv_pool) @ masks.affine[:3, :3].T + masks.affine[:3, 3]
    above = places[:, 2] - (-12.0 + slope * places[:, 0])
    assert above.max() < 1e-6
    near = np.linalg.norm(places[:, :2], axis=1) < 10
    assert above[near].max() > -1.5
    muscle = np.argwhere(masks.myocardium) @ masks.affine[:3, :3].T + masks.affine[:3, 3]
    assert -91.5 < muscle[:, 2].min() < -88.5


# --- files ---------------------------------------------------------------------------------------


def as_sets(contours: list[Contour]):
    return {(c.part, c.slice, c.long_axis): c.points for c in contours}


def write_blanks(path, contours):
    """A GPFile whose columns are separated by blanks."""
    write_atlas(path, contours).write_text(path.read_text().replace("\t", " "))
    return path


@pytest.mark.parametrize(
    "write",
    [
        write_csv,
        lambda path, drawn: write_csv(path, drawn, ";"),
        lambda path, drawn: write_csv(path, drawn, "\t"),
        lambda path, drawn: write_csv(path, drawn, " "),
        write_atlas,
        write_blanks,
    ],
    ids=["commas", "semicolons", "tabs", "blanks", "GPFile", "GPFile-blanks"],
)
def test_tables_hold_what_was_drawn(tmp_path, drawn, write):
    drawn = drawn + long_axis((0.0,))
    wanted = as_sets(drawn)
    found = as_sets(read_contours(write(tmp_path / "table.txt", drawn))[0])
    assert found.keys() == wanted.keys()
    for key, points in wanted.items():
        np.testing.assert_allclose(found[key], points, atol=1e-5)


def test_one_time_frame_of_several_is_chosen(tmp_path, drawn):
    path = write_atlas(tmp_path / "GPFile.txt", drawn[:4])
    later = write_atlas(tmp_path / "later.txt", [
        Contour(c.part, c.slice, 0.8 * c.points) for c in drawn[:4]
    ], time=7)  # fmt: skip
    path.write_text(path.read_text() + later.read_text().split("\n", 1)[1])
    with pytest.raises(InputError, match="time frames 0, 7: say which"):
        read_contours(path)
    with pytest.raises(InputError, match="no time frame 3; it has 0, 7"):
        read_contours(path, time_frame=3)
    for frame, scale in ((0, 1.0), (7, 0.8)):
        found = read_contours(path, time_frame=frame)[0]
        np.testing.assert_allclose(found[0].points, scale * drawn[0].points, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no contours"),
        ("contour,slice,x,y\nlv_endo,1,0,0\n", "expected the columns contour, slice"),
        ("contour,slice,x,y,z\nlv_endoo,1,0,0,0\n", "names the contour 'lv_endoo'"),
        ("contour,slice,x,y,z\nlv_endo,1,0,here,0\n", "line 2 says 'here'"),
        ("contour,slice,x,y,z\nlv_endo,1,0,nan,0\n", "line 2 says 'nan'"),
        ("contour,slice,x,y,z\nlv_endo,1,0,0\n", "line 2 has 4 columns"),
        ("x\ty\tz\tcontour type\tframeID\n0\t0\t0\tRV_INSERT\t1\n", "no contour of the ventricles"),
        ("contour,slice,x,y,z\nlv_endo,1,0,0,0\n", "no epicardium of the LV"),
    ],
)
def test_bad_tables_are_one_line_and_leave_nothing(tmp_path, capsys, text, message):
    path = tmp_path / "contours.csv"
    path.write_text(text)
    status = main(["mesh", "build", str(path), "-o", str(tmp_path / "heart.vtu")])
    assert status == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert sorted(tmp_path.iterdir()) == [path]


# --- drawings that are refused -------------------------------------------------------------------


def changed(drawn, where: str, change) -> list[Contour]:
    """The contours with those of one slice changed; a change to None leaves one out."""
    out = [change(c) if c.slice == where else c for c in drawn]
    return [c for c in out if c is not None]


def without(part: str):
    return lambda c: None if c.part == part else c


def with_points(part: str, change):
    return lambda c: Contour(c.part, c.slice, change(c.points)) if c.part == part else c


def figure_eight(points):
    turn = np.radians(np.arange(0, 360, 3.0))
    shape = np.stack([18 * np.sin(turn), 9 * np.sin(2 * turn), 0 * turn], axis=1)
    return points.mean(axis=0) + shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("rv_septum"), r"slice 3: the endocardium of the RV's free wall is open over \d+"),
        (without("rv_free_wall"), "slice 3: the RV's septum is drawn without its free wall"),
        (without("lv_epi"), "slice 3: the epicardium is drawn over the RV only"),
        (
            with_points("lv_endo", figure_eight),
            "slice 3: the endocardium of the LV crosses itself near",
        ),
        (
            with_points("lv_endo", lambda p: p.mean(axis=0) + 1.8 * (p - p.mean(axis=0))),
            "slice 3: the epicardium does not enclose the endocardium of the LV",
        ),
        (with_points("lv_endo", lambda p: p[:4]), "slice 3: .* has 4 points, expected at least 6"),
        (with_points("lv_endo", lambda p: p[: len(p) // 2]), r"slice 3: .* is open over \d+ mm"),
        (
            with_points("lv_endo", lambda p: p + np.outer(p[:, 0], [0, 0, 0.5])),
            "slice 3: its points spread over",
        ),
        (
            with_points("lv_endo", lambda p: p - np.array([30.0, 0, 0])),
            "slice 3: .*(enclose|within that)",
        ),
    ],
)
def test_drawings_that_make_no_heart_are_refused_with_their_slice(drawn, change, message):
    with pytest.raises(InputError, match=message):
        contour_stack(changed(drawn, "3", change))


def test_too_few_slices_or_no_pool_are_refused(drawn):
    few = [c for c in drawn if c.slice in "34"]
    with pytest.raises(InputError, match=r"2 short-axis slices show .* expected at least 3"):
        contour_stack(few)
    with pytest.raises(InputError, match=r"no endocardium of the LV .* there is no pool"):
        contour_stack([c for c in drawn if c.part != "lv_endo"])
    double = [Contour(c.part, "copy", c.points) for c in drawn if c.slice == "3"]
    with pytest.raises(InputError, match="lie at the same place"):
        contour_stack(drawn + double)


# --- a real heart --------------------------------------------------------------------------------


@pytest.mark.slow
def test_real_guide_points_give_the_heart_that_was_fitted_to_them(data):
    """Five short-axis slices 18 mm apart and four long-axis views, against the published fit."""
    contours, _ = read_contours(data / "cine_mri_patient" / "GPFile_000.txt")
    masks, _ = masks_from_contours(contours, 1.0)
    found = masks.volumes_ml()
    fitted = {"lv_pool": 174.5, "myocardium": 177.8, "rv_pool": 169.7}
    for name, volume in fitted.items():
        assert found[name] == pytest.approx(volume, rel=0.08)
    repaired, _ = repair_masks(masks)
    _, report = mesh_muscle(chambers_from_masks(repaired, 1.0), 1.0)
    assert report["boundary"]["euler"] == report["boundary"]["expected_euler"]
    assert report["lost_walls"] == []
