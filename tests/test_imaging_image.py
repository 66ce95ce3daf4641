"""Images and labels: where voxels lie, what files say, what numbers mean, what is refused."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
from label_samples import NAMES, heart_labels
from scipy.spatial.transform import Rotation

from twinheart.errors import InputError
from twinheart.imaging import Image, chamber_masks, parse_labels, read_image, sample
from twinheart.imaging.image import points_to_voxels, voxels_to_points
from twinheart.imaging.labels import PRESETS
from twinheart.mesh.biventricle import BiventricularShape

CANARY = "DOE^JANE"  # a name that must appear nowhere


def oblique(seed: int = 0, spacing=(1.5, 1.25, 8.0)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(rng=seed).as_matrix() * spacing
    affine[:3, 3] = (-80.0, 12.5, 40.0)
    return affine


def test_points_and_voxels_are_inverse():
    affine = oblique()
    voxels = np.random.default_rng(1).random((50, 3)) * 40
    there = voxels_to_points(affine, voxels)
    np.testing.assert_allclose(points_to_voxels(affine, there), voxels, atol=1e-10)


@pytest.mark.parametrize(
    ("turn", "letters"),
    [
        (np.eye(3), "RAS"),
        (np.diag([-1, -1, 1]), "LPS"),
        (np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]]), "AIL"),
    ],
)
def test_orientation_names_the_direction_of_each_axis(turn, letters):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec([0.2, -0.3, 0.1]).as_matrix() @ turn
    assert Image(np.zeros((2, 2, 2)), affine).orientation == letters
    assert "".join(nib.orientations.aff2axcodes(affine)) == letters


def test_sampling_is_exact_for_a_linear_field_and_knows_its_border():
    affine, gradient = oblique(2), np.array([0.3, -1.0, 2.0])
    grid = voxels_to_points(affine, np.indices((9, 8, 7)).reshape(3, -1).T)
    image = Image((grid @ gradient).reshape(9, 8, 7), affine)
    voxels = np.random.default_rng(3).random((40, 3)) * (8, 7, 6)
    there = voxels_to_points(affine, voxels)
    np.testing.assert_allclose(sample(image, there), there @ gradient, atol=1e-9)
    nearest = voxels_to_points(affine, np.rint(voxels)) @ gradient
    np.testing.assert_allclose(sample(image, there, nearest=True), nearest, atol=1e-9)
    edge = voxels_to_points(affine, [[-0.4, 0, 0], [-0.6, 0, 0]])
    assert np.isnan(sample(image, edge)).tolist() == [False, True]


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.diag([1.0, 0.0, 1.0, 1.0]), "no spacing along axis j"),
        (np.diag([1.0, 1.0, 1500.0, 1.0]), "1500 mm apart along axis k"),
        (np.diag([1.0, np.nan, 1.0, 1.0]), "not a finite 4 x 4"),
        (np.array([[1, 1, 0, 0], [0, 0.01, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "singular"),
    ],
)
def test_affines_that_place_nothing_are_refused(affine, message):
    with pytest.raises(InputError, match=message):
        Image(np.zeros((2, 2, 2)), affine)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "<f4", ">f8"])
def test_nifti_is_read_as_nibabel_wrote_it(tmp_path, suffix, kind, dtype):
    values = np.random.default_rng(4).integers(0, 100, (5, 6, 7)).astype(dtype)
    image = kind(values, oblique(5), dtype=np.dtype(dtype))
    image.header.set_data_dtype(dtype)
    nib.save(image, tmp_path / f"a{suffix}")
    read = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read.values, values)
    np.testing.assert_allclose(read.affine, image.affine, atol=1e-4)
    assert read.values.dtype.isnative


def test_nifti_scaling_units_and_missing_orientation_are_minded(tmp_path):
    image = nib.Nifti1Image(
        np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([1e-3] * 3 + [1])
    )
    image.header.set_xyzt_units("meter")
    image.header.set_slope_inter(2.0, -5.0)
    image.header["descrip"] = CANARY
    nib.save(image, tmp_path / "a.nii")
    read = read_image(tmp_path / "a.nii")
    np.testing.assert_allclose(read.values.ravel(), np.asanyarray(image.dataobj).ravel() * 2.0 - 5)
    np.testing.assert_allclose(read.spacing, 1.0, rtol=1e-6)
    assert any("converted to mm" in note for note in read.notes)
    assert CANARY not in repr(read)
    image.header.set_sform(None, code=0)
    image.header.set_qform(None, code=0)
    image.header.set_xyzt_units("mm")
    image.header["pixdim"][1:4] = (1.5, 1.5, 8.0)
    header, data = image.header.binaryblock, np.arange(24, dtype=np.int16).tobytes("F")
    (tmp_path / "b.nii").write_bytes(header + bytes(4) + data)
    read = read_image(tmp_path / "b.nii")
    assert read.spacing.tolist() == [1.5, 1.5, 8.0]
    assert any("no orientation" in note for note in read.notes)


def _nifti(shape=(4, 4, 4), **fields) -> bytes:
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.uint8)
    header.set_sform(np.eye(4), code=1)
    header["vox_offset"] = 352
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + bytes(4) + bytes(int(np.prod(shape)) if np.prod(shape) < 1e6 else 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no NIfTI"),
        (b"not an image at all", "no NIfTI"),
        (_nifti()[:200], "damaged or truncated"),
        (_nifti()[:-10], "ends after 54 of 64 bytes"),
        (_nifti((4, 4, 4, 3)), "three dimensions"),
        (_nifti((30000, 30000, 30000)), "announces 2.7e\\+13 voxels"),
        (_nifti(datatype=128), "of type 128"),
        (_nifti(vox_offset=1e9), "puts its voxels at byte"),
        (_nifti(srow_x=(0, 0, 0, 0)), "no spacing along axis i"),
        (_nifti(srow_x=(np.nan, 0, 0, 0)), "not a finite"),
    ],
)
def test_nifti_that_cannot_be_used_is_refused(tmp_path, content, message):
    path = tmp_path / "a.nii"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_image(path)


def test_gzip_bombs_and_damaged_gzip_are_harmless(tmp_path):
    bomb = tmp_path / "bomb.nii.gz"
    with gzip.open(bomb, "wb") as file:
        file.write(_nifti())
        file.write(bytes(50_000_000))  # never unpacked: the header asks for 64 bytes
    assert read_image(bomb).values.shape == (4, 4, 4)
    damaged = tmp_path / "damaged.nii.gz"
    damaged.write_bytes(gzip.compress(_nifti())[:-20])
    with pytest.raises(InputError, match="gzip data are damaged"):
        read_image(damaged)
    wrong = tmp_path / "wrong.nii.gz"
    wrong.write_bytes(struct.pack("<i", 348) * 100)
    with pytest.raises(InputError, match="gzip data are damaged"):
        read_image(wrong)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("acd", "no known label convention"),
        ("lv_pool=1", "lack myo"),
        ("lv_pool=1,myo=2,lv_pool=3", "'lv_pool' twice"),
        ("lv_pool=1,myo=1", "number 1 twice"),
        ("lv_pool=1,myo=two", "expected meaning=number"),
        ("lv_pool=0,myo=2", "0 is background"),
        ("lv=1,myo=2", "name 'lv'"),
    ],
)
def test_label_texts_that_make_no_sense_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_labels(text)


def test_presets_are_complete_and_parse():
    for name, preset in PRESETS.items():
        assert parse_labels(name.upper()) == preset
        assert {"lv_pool", "myo", "rv_pool"} <= set(preset)


def test_masks_hold_the_volumes_of_the_analytic_heart():
    shape, image = BiventricularShape(), heart_labels((2.0, 2.0, 2.0), Rotation.random(rng=7))
    volumes = chamber_masks(image, NAMES).volumes_ml()
    rng = np.random.default_rng(8)
    low, high = shape.bounds()
    points = low + rng.random((400_000, 3)) * (high - low)
    share = {
        "lv_pool": (shape.lv_cavity(points) < 0).mean(),
        "rv_pool": (shape.rv_cavity(points) < 0).mean(),
    }
    for name, part in share.items():
        # Three standard deviations of the sampling, and of the voxels' rounding, are 1 %.
        assert volumes[name] == pytest.approx(part * np.prod(high - low) / 1e3, rel=0.01)


def test_numbers_are_joined_missing_ones_named_and_atria_kept_apart():
    values = np.zeros((4, 4, 4), np.float64)
    values[0], values[1], values[2, 0], values[2, 1] = 1, 2, 4, 5
    image = Image(values, np.eye(4), names={5: "left atrium"})
    masks = chamber_masks(image, "lv_pool=1,myo=2+4,la_pool=5")
    assert masks.rv_pool is None
    assert masks.myocardium.sum() == 20
    assert masks.beyond.sum() == 4
    with pytest.raises(InputError, match=r"no label 3 .* has 1, 2, 4, 5 \(left atrium\)"):
        chamber_masks(image, NAMES)
    assert chamber_masks(image, "ukbb").rv_pool is None  # a convention's RV may be missing
    with pytest.raises(InputError, match="empty"):
        chamber_masks(Image(np.zeros((2, 2, 2)), np.eye(4)), NAMES)
    with pytest.raises(InputError, match="no whole number"):
        chamber_masks(Image(values + 0.4, np.eye(4)), NAMES)


def test_the_cine_mri_labels_have_the_volumes_of_their_manifest(data):
    image = read_image(data / "cine_mri_patient" / "derived_labels_ED_1p5mm.nii.gz")
    assert image.values.shape == (104, 78, 94)
    volumes = chamber_masks(image, NAMES).volumes_ml()
    expected = {"lv_pool": 174.5, "myocardium": 177.8, "rv_pool": 169.7}
    assert volumes == pytest.approx(expected, abs=0.05)
