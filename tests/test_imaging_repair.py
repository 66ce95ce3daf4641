"""Repair of label masks: what is mended equals the truth, what is not is refused with its place."""

import re

import numpy as np
import pytest
from label_samples import NAMES, base_direction, heart_labels, perturb, regridded
from scipy.ndimage import binary_dilation, label
from scipy.spatial.transform import Rotation

from twinheart.errors import InputError
from twinheart.imaging import ChamberMasks, Image, chamber_masks, read_image, repair_masks
from twinheart.imaging.image import voxels_to_points
from twinheart.mesh.biventricle import BiventricularShape

CUBE = np.ones((3, 3, 3), bool)
# Thick slices cut the heart at whole slices: half a slice of 8 mm over a height of 85 mm.
SLICE_VOLUME = 0.06


@pytest.fixture(scope="module")
def heart() -> Image:
    return heart_labels((2.0, 2.0, 2.0))


def repaired(image: Image, names: str = NAMES) -> tuple[ChamberMasks, tuple[str, ...]]:
    masks, repairs = repair_masks(chamber_masks(image, names))
    check(masks)
    return masks, repairs


def check(masks: ChamberMasks) -> None:
    """What `repair_masks` promises."""
    muscle, openings = masks.myocardium, masks.openings
    outside = ~(muscle | np.any(list(masks.pools.values()), axis=0))
    assert label(muscle, CUBE)[1] == 1
    assert not (openings & ~outside).any()
    for pool in masks.pools.values():
        assert label(pool)[1] == 1
        assert not (binary_dilation(pool, CUBE) & outside & ~openings).any()
    if masks.rv_pool is not None:
        assert not (binary_dilation(masks.lv_pool, CUBE) & masks.rv_pool).any()
    spacing = np.linalg.norm(masks.affine[:3, :3], axis=0)
    assert spacing.max() < 1.5 * spacing.min()
    assert not any(np.take(~outside, end, axis).any() for axis in range(3) for end in (0, -1))


def changed(image: Image, where, number: int) -> Image:
    values = image.values.copy()
    values[where] = number
    return Image(values, image.affine)


def ball(image: Image, centre, radius: float) -> np.ndarray:
    """Voxels within `radius` mm of a position."""
    points = voxels_to_points(image.affine, np.indices(image.values.shape).reshape(3, -1).T)
    near = np.linalg.norm(points - np.asarray(centre), axis=1) <= radius
    return near.reshape(image.values.shape)


def place_in(text: str) -> np.ndarray:
    found = re.search(r"near \(([^)]*)\) mm RAS", text)
    return np.array([float(x) for x in found.group(1).split(",")])


def test_a_clean_heart_is_left_as_it_is(heart):
    masks, repairs = repaired(heart)
    assert repairs == ()
    assert masks.volumes_ml() == chamber_masks(heart, NAMES).volumes_ml()
    # One opening for each ventricle, in the first layer above the base plane z = 0.
    assert label(masks.openings, CUBE)[1] == 2
    heights = voxels_to_points(masks.affine, np.argwhere(masks.openings))[:, 2]
    assert heights.min() > -0.1
    assert heights.max() < 2.1


def test_the_result_is_the_same_bit_for_bit(heart):
    image, _ = perturb(heart, 4)
    first, second = (repaired(image) for _ in range(2))
    assert first[1] == second[1]
    for name in ("lv_pool", "myocardium", "rv_pool", "openings", "affine"):
        np.testing.assert_array_equal(getattr(first[0], name), getattr(second[0], name))


def test_islands_and_holes_are_named_and_undone(heart):
    clean, _ = repaired(heart)
    in_wall, far, in_pool = (0.0, 29.0, -20.0), (20.0, -45.0, -70.0), (5.0, 0.0, -30.0)
    image = changed(heart, ball(heart, in_wall, 2.5), 0)
    image = changed(image, ball(image, far, 4.5), 2)
    image = changed(image, ball(image, in_pool, 3.5), 2)
    masks, repairs = repaired(image)
    assert masks.volumes_ml() == clean.volumes_ml()
    hole = next(text for text in repairs if "hole in the muscle" in text)
    assert np.linalg.norm(place_in(hole) - in_wall) < 2.0
    assert any("2 islands of the muscle removed" in text for text in repairs)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_or_two_missing_slices_are_interpolated(heart, axis):
    clean = chamber_masks(heart, NAMES).volumes_ml()
    at = [slice(None)] * 3
    inverse = np.linalg.inv(heart.affine)
    middle = int(np.rint((inverse @ [0, 0, -30, 1])[axis]))
    at[axis] = slice(middle, middle + 2)
    masks, repairs = repaired(changed(heart, tuple(at), 0))
    assert any("missing: interpolated" in text for text in repairs)
    assert masks.volumes_ml() == pytest.approx(clean, rel=0.01)
    at[axis] = slice(middle, middle + 3)
    with pytest.raises(InputError, match=f"along axis {'ijk'[axis]}, near .* hold no heart") as e:
        repaired(changed(heart, tuple(at), 0))
    expected = voxels_to_points(heart.affine, np.full((1, 3), middle + 1.0))[0, axis]
    assert place_in(str(e.value))[axis] == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("start", [0.3, 0.8])
def test_thick_slices_become_the_heart_they_were_cut_from(start):
    """1.4 x 1.4 x 8 mm voxels against the analytic heart between its first and last slice."""
    shape = BiventricularShape()
    fine = heart_labels((1.4, 1.4, 1.0))
    count = fine.values.shape[2] // 8
    rows = int(8 * start) + 8 * np.arange(count)
    affine = fine.affine.copy()
    affine[:3, 3] += rows[0] * affine[:3, 2]
    affine[:3, 2] *= 8
    thick = Image(fine.values[:, :, rows], affine)
    masks, repairs = repaired(thick)
    assert any("interpolated to 1.4 x 1.4 x 1.33 mm" in text for text in repairs)
    assert label(masks.openings, CUBE)[1] == 2
    points = voxels_to_points(masks.affine, np.indices(masks.lv_pool.shape).reshape(3, -1).T)
    inside = (points[:, 2] < -8) & (points[:, 2] > -60)
    for mask, distance in (
        (masks.lv_pool, shape.lv_cavity),
        (masks.rv_pool, shape.rv_cavity),
        (~(masks.lv_pool | masks.rv_pool | masks.myocardium), lambda x: -shape.epicardium(x)),
    ):
        off = mask.ravel() != (distance(points) < 0)
        assert np.abs(distance(points[off & inside])).max() < 2 * 1.4
    volumes, true = masks.volumes_ml(), chamber_masks(fine, NAMES).volumes_ml()
    assert volumes == pytest.approx(true, rel=SLICE_VOLUME)


def test_axes_may_run_anywhere(heart):
    clean = chamber_masks(heart, NAMES).volumes_ml()
    flipped = heart.values[::-1, :, ::-1].transpose(2, 0, 1)
    affine = np.zeros((4, 4))
    n = np.array(heart.values.shape) - 1
    affine[:, 0], affine[:, 1], affine[:, 2] = (
        -heart.affine[:, 2],
        -heart.affine[:, 0],
        heart.affine[:, 1],
    )
    affine[:, 3] = heart.affine @ [n[0], 0, n[2], 1]
    masks, repairs = repaired(Image(flipped, affine))
    assert repairs == ()
    assert masks.volumes_ml() == pytest.approx(clean)
    heights = voxels_to_points(masks.affine, np.argwhere(masks.openings))[:, 2]
    assert heights.min() > -0.1
    turned = regridded(heart, (2.0, 2.0, 2.0), Rotation.random(rng=5))
    masks, _ = repaired(turned)
    assert masks.volumes_ml() == pytest.approx(clean, rel=0.01)
    assert label(masks.openings, CUBE)[1] == 2


@pytest.mark.parametrize(("width", "closes"), [(2, True), (3, False), (5, False)])
def test_holes_up_to_two_voxels_are_closed_wider_ones_located(heart, width, closes):
    j, k = (int(n) for n in np.rint(np.linalg.solve(heart.affine, [0, 0, -30, 1]))[1:3])
    through = (slice(heart.values.shape[0] // 2, None), slice(j, j + width), slice(k, k + width))
    values = heart.values.copy()
    values[through][values[through] == 2] = 1
    image = Image(values, heart.affine)
    if closes:
        _, repairs = repaired(image)
        assert any("1 hole of at most 2 voxels in the wall of the LV closed" in t for t in repairs)
        found = place_in(repairs[-1])
    else:
        with pytest.raises(InputError, match="LV pool leaks through its wall near") as error:
            repaired(image)
        found = place_in(str(error.value))
    # On the epicardium, where the channel through the wall of 9.5 mm ends.
    assert found == pytest.approx([33.0, 0.0, -30.0], abs=2.0 * width + 2)


def test_pools_that_touch_are_parted_if_narrowly(heart):
    j, k = (int(n) for n in np.rint(np.linalg.solve(heart.affine, [0, 0, -30, 1]))[1:3])
    for width in (2, 4):
        through = (slice(None), slice(j, j + width), slice(k, k + width))
        septum = np.zeros(heart.values.shape, bool)
        septum[through] = True
        shape = BiventricularShape()
        points = voxels_to_points(heart.affine, np.argwhere(septum))
        between = (shape.lv_cavity(points) > 0) & (shape.lv_body(points) < 1) & (points[:, 0] < 0)
        where = tuple(np.argwhere(septum)[between].T)
        image = changed(heart, where, 3)
        if width == 2:
            _, repairs = repaired(image)
            assert any("LV and RV pools touched at 1 place" in text for text in repairs)
        else:
            with pytest.raises(InputError, match="pools of LV and RV touch near"):
                repaired(image)


@pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), (1.4, 1.4, 8.0)])
def test_an_rv_without_a_wall_gets_one_and_keeps_its_valve(heart, spacing):
    shape = BiventricularShape()
    at = np.argwhere(heart.values == 2)
    rv_wall = shape.lv_body(voxels_to_points(heart.affine, at)) > 0
    image = changed(heart, tuple(at[rv_wall].T), 0)
    if spacing[2] > 2:
        image = regridded(image, spacing, Rotation.identity())
    masks, repairs = repaired(image)
    assert any("no wall of the RV: 3 mm were added" in text for text in repairs)
    assert label(masks.openings, CUBE)[1] == 2
    top = voxels_to_points(masks.affine, np.argwhere(masks.openings))[:, 2]
    assert top.max() - top.min() < 3.0


def test_labelled_atria_show_the_valves_and_a_missing_rv_is_said(heart):
    top = np.argwhere(heart.values > 0)[:, 2].max()
    atria = np.pad(heart.values, ((0, 0), (0, 0), (0, 12)))
    for k in range(top + 1, top + 12):
        atria[:, :, k][heart.values[:, :, top] == 1] = 4
        atria[:, :, k][heart.values[:, :, top] == 3] = 5
    image = Image(atria, heart.affine)
    masks, repairs = repaired(image, NAMES + ",la_pool=4,ra_pool=5")
    assert repairs == ()
    assert masks.volumes_ml() == chamber_masks(heart, NAMES).volumes_ml()
    left, _ = repaired(changed(heart, heart.values == 3, 0), "lv_pool=1,myo=2")
    assert left.rv_pool is None
    assert label(left.openings, CUBE)[1] == 1


def test_bodies_that_are_missing_or_in_pieces_are_refused(heart):
    nothing = changed(heart, heart.values == 2, 0)
    few = changed(nothing, (slice(0, 3), slice(0, 3), slice(0, 3)), 2)
    with pytest.raises(InputError, match="the muscle has 27 voxels"):
        repaired(few)
    values = np.concatenate([heart.values, heart.values], axis=0)
    with pytest.raises(
        InputError, match=r"falls into 2 pieces; the second one, of .* ml, lies near"
    ):
        repaired(Image(values, heart.affine))


def test_the_cine_mri_labels_are_closed_and_keep_their_four_valves(data):
    image = read_image(data / "cine_mri_patient" / "derived_labels_ED_1p5mm.nii.gz")
    before = chamber_masks(image, NAMES)
    masks, repairs = repaired(image)
    assert label(masks.openings, CUBE)[1] == 4  # mitral, aortic, tricuspid, pulmonary
    assert any("in the wall of the RV closed" in text for text in repairs)
    for name, volume in before.volumes_ml().items():
        assert masks.volumes_ml()[name] == pytest.approx(volume, rel=0.01)
    # The valves look to the base.
    centre = voxels_to_points(masks.affine, np.argwhere(masks.openings)).mean(axis=0)
    muscle = voxels_to_points(masks.affine, np.argwhere(masks.myocardium)).mean(axis=0)
    up = (centre - muscle) / np.linalg.norm(centre - muscle)
    assert up @ base_direction(image) > 0.8
