"""DICOM: geometry of series and segmentations, what is wrong with them, and no patient's name."""

import logging

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from scipy.spatial.transform import Rotation

from twinheart.errors import InputError
from twinheart.imaging import chamber_masks, read_image

NAME, NUMBER, BIRTHDAY = "CANARY^JANE", "CANARY-4711", "19330102"
MR, SEG = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.66.4"
REFERENCE = generate_uid(entropy_srcs=["reference"])
COLUMNS, ROWS, SLICES = 7, 5, 6
SPACING = np.array([1.25, 1.5, 8.0])  # between columns, rows, slices
AXES = Rotation.random(rng=3).as_matrix()  # columns: along a row, along a column, across (LPS)
ORIGIN = np.array([-50.0, 20.0, 33.0])


def truth() -> np.ndarray:
    """The affine to RAS of the sample series."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = AXES * SPACING, ORIGIN
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def voxels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 500, (COLUMNS, ROWS, SLICES)).astype(np.uint16)


def dataset(kind: str = MR, pixels: np.ndarray | None = None) -> Dataset:
    """A file's tags: a patient, and pixels (row, column) or (frame, row, column)."""
    out = Dataset()
    out.file_meta = FileMetaDataset()
    out.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    out.file_meta.MediaStorageSOPClassUID = out.SOPClassUID = kind
    out.file_meta.MediaStorageSOPInstanceUID = out.SOPInstanceUID = generate_uid()
    out.PatientName, out.PatientID, out.PatientBirthDate = NAME, NUMBER, BIRTHDAY
    out.FrameOfReferenceUID = REFERENCE
    out.SeriesInstanceUID = generate_uid(entropy_srcs=["series"])
    if pixels is not None:
        out.Rows, out.Columns = pixels.shape[-2:]
        out.SamplesPerPixel, out.PhotometricInterpretation = 1, "MONOCHROME2"
        out.PixelRepresentation = 0
        out.BitsAllocated = out.BitsStored = 8 * pixels.dtype.itemsize
        out.HighBit = out.BitsStored - 1
        out.PixelData = pixels.tobytes()
    return out


def placed(out: Dataset, place: float) -> Dataset:
    """The tags with the position of slice number `place`."""
    out.ImagePositionPatient = (ORIGIN + place * SPACING[2] * AXES[:, 2]).round(6).tolist()
    out.ImageOrientationPatient = AXES[:, :2].T.ravel().round(8).tolist()
    out.PixelSpacing = [SPACING[1], SPACING[0]]
    out.SliceThickness = SPACING[2]
    return out


def write_series(folder, values=None, places=range(SLICES), prefix="", **tags) -> None:
    """Slices in shuffled files."""
    folder.mkdir(exist_ok=True, parents=True)
    values = voxels() if values is None else values
    names = np.random.default_rng(1).permutation(len(places))
    for k, place in enumerate(places):
        out = placed(dataset(pixels=values[:, :, k].T.copy()), place)
        for name, value in tags.items():
            setattr(out, name, value)
        out.save_as(folder / f"{prefix}{names[k]:03d}", enforce_file_format=True)


def refused(path, message: str, **options) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_image(path, **options)
    assert not any(secret in str(caught.value) for secret in ("CANARY", "JANE", "1933"))


def test_series_is_sorted_by_geometry(tmp_path):
    write_series(tmp_path / "s", RescaleSlope=2.0, RescaleIntercept=-100.0)
    (tmp_path / "s" / "notes.txt").write_text("no DICOM")
    image = read_image(tmp_path / "s")
    np.testing.assert_allclose(image.affine, truth(), atol=1e-4)
    np.testing.assert_allclose(image.values, voxels() * 2.0 - 100)
    assert any("LPS" in note for note in image.notes)
    assert any("1 files that are no DICOM" in note for note in image.notes)
    assert "CANARY" not in repr(image)


def test_frames_of_one_file_are_read_like_slices_of_many(tmp_path):
    out = dataset("1.2.840.10008.5.1.4.1.1.4.1", voxels().transpose(2, 1, 0)[::-1].copy())
    out.NumberOfFrames = SLICES
    measures, plane = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
    plane.ImageOrientationPatient = AXES[:, :2].T.ravel().round(8).tolist()
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    out.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for place in reversed(range(SLICES)):
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = placed(Dataset(), place).ImagePositionPatient
        group.PlanePositionSequence = [position]
        groups.append(group)
    out.PerFrameFunctionalGroupsSequence = groups
    out.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    image = read_image(tmp_path / "a.dcm")
    np.testing.assert_allclose(image.affine, truth(), atol=1e-4)
    np.testing.assert_array_equal(image.values, voxels())


def test_missing_uneven_and_shifted_slices_are_named(tmp_path):
    write_series(tmp_path / "gap", places=[0, 1, 2, 4, 5, 6])
    middle = (truth() @ [0, 0, 3, 1])[:3]
    place = r", ".join(f"{x:.1f}" for x in middle).replace(".", r"\.")
    refused(tmp_path / "gap", rf"1 slice\(s\) are missing between slices 3 and 4, near \({place}\)")
    write_series(tmp_path / "uneven", places=[0, 1, 2, 3.3, 4.3, 5.3])
    refused(tmp_path / "uneven", r"unevenly spaced \(8 to 10.4 mm; first after slice 3\)")
    write_series(tmp_path / "twice", places=[0, 1, 1, 2, 3, 4])
    refused(tmp_path / "twice", "slices 2 and 3 lie at the same place")
    write_series(tmp_path / "aside")
    file = tmp_path / "aside" / "002"
    moved = pydicom.dcmread(file)
    moved.ImagePositionPatient = (np.array(moved.ImagePositionPatient) + 5 * AXES[:, 0]).tolist()
    moved.save_as(file)
    refused(tmp_path / "aside", "shifted sideways by")


def test_two_patients_are_refused_without_their_names(tmp_path):
    write_series(tmp_path / "s")
    write_series(tmp_path / "s", prefix="b", places=[7, 8, 9], PatientID="CANARY-2")
    refused(tmp_path / "s", r"mixes 2 patients \((6 and 3|3 and 6) files\)")


def test_several_stacks_are_listed_and_chosen(tmp_path):
    write_series(tmp_path / "s", voxels(1), SeriesInstanceUID=generate_uid(entropy_srcs=["a"]))
    other = generate_uid(entropy_srcs=["b"])
    write_series(tmp_path / "s", voxels(2)[:, :, :4], range(4), "b", SeriesInstanceUID=other)
    for phase, time in ((3, 0.0), (4, 40.0)):
        write_series(tmp_path / "phases", voxels(phase), prefix=f"p{phase}", TriggerTime=time)
    refused(tmp_path / "s", r"2 stacks of slices \(1: 6 slices of 7 x 5, .*; 2: 4 slices")
    refused(tmp_path / "s", "no stack 3; it has 1 to 2", stack=3)
    np.testing.assert_array_equal(read_image(tmp_path / "s", stack=1).values, voxels(1))
    np.testing.assert_array_equal(read_image(tmp_path / "s", stack=2).values, voxels(2)[:, :, :4])
    for stack, phase in ((1, 3), (2, 4)):
        image = read_image(tmp_path / "phases", stack=stack)
        np.testing.assert_array_equal(image.values, voxels(phase))


def segmentation(kind: str = "BINARY") -> tuple[Dataset, np.ndarray]:
    """Pool (1) in slices 1-3 and muscle (2, drawn with the pool) in 1-4; slices left out: 0."""
    inside = np.zeros((COLUMNS, ROWS, SLICES), np.uint8)
    inside[2:4, 2:4, 1:4], inside[4, 1, 4] = 1, 2
    whole = inside > 0
    whole[1:5, 1:4, 1:5] = True
    labels = np.where(inside == 1, 1, np.where(whole, 2, 0))
    frames, groups = [], []
    for number, mask in ((1, inside == 1), (2, whole)):
        for place in np.flatnonzero(mask.any(axis=(0, 1))):
            frames.append(mask[:, :, place].T)
            group, segment, position = Dataset(), Dataset(), Dataset()
            segment.ReferencedSegmentNumber = number
            position.ImagePositionPatient = placed(Dataset(), place).ImagePositionPatient
            group.SegmentIdentificationSequence = [segment]
            group.PlanePositionSequence = [position]
            groups.append(group)
    stacked = np.array(frames, np.uint8)
    out = dataset(SEG, stacked if kind == "BINARY" else stacked * 200)
    if kind == "BINARY":
        out.BitsAllocated, out.BitsStored, out.HighBit = 1, 1, 0
        packed = np.packbits(stacked.ravel(), bitorder="little").tobytes()
        out.PixelData = packed + bytes(len(packed) % 2)
    else:
        out.MaximumFractionalValue = 255
    out.NumberOfFrames, out.SegmentationType = len(frames), kind
    measures, plane, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
    plane.ImageOrientationPatient = AXES[:, :2].T.ravel().round(8).tolist()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    out.SharedFunctionalGroupsSequence = [shared]
    out.PerFrameFunctionalGroupsSequence = groups
    out.SegmentSequence = [Dataset(), Dataset()]
    for segment, number, name in zip(out.SegmentSequence, (1, 2), ("LV", "wall"), strict=True):
        segment.SegmentNumber, segment.SegmentLabel = number, name
    return out, labels


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_segmentation_becomes_labels_with_names(tmp_path, kind):
    out, labels = segmentation(kind)
    out.save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    image = read_image(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(image.values, labels[:, :, 1:5])  # from the first slice it has
    np.testing.assert_allclose(image.affine[:3, :3], truth()[:3, :3], atol=1e-4)
    np.testing.assert_allclose(image.affine[:, 3], truth() @ [0, 0, 1, 1], atol=1e-4)
    assert image.names == {1: "LV", 2: "wall"}
    assert any("the smaller segment won" in note for note in image.notes)
    with pytest.raises(InputError, match=r"it has 1 \(LV\), 2 \(wall\)"):
        chamber_masks(image, "lv_pool=1,myo=3")
    refused(tmp_path, "give the segmentation file itself")


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "not perpendicular"),
        ({"PixelSpacing": [0, 0]}, "missing or no number"),
        ({"SamplesPerPixel": 3}, "colour"),
        ({"PixelData": b"\0\0"}, "pixels are damaged"),
        ({"Rows": 60000, "Columns": 60000}, "at most 5.37e\\+08"),
    ],
)
def test_files_that_cannot_be_placed_or_read_are_refused(tmp_path, tags, message):
    write_series(tmp_path / "s", **tags)
    refused(tmp_path / "s", message)


def test_damaged_files_say_nothing_about_the_patient(tmp_path, capfd, caplog):
    write_series(tmp_path / "s")
    whole = (tmp_path / "s" / "003").read_bytes()
    rng, said = np.random.default_rng(5), ""
    with caplog.at_level(logging.DEBUG):
        for _ in range(60):  # cut short or with changed bytes: read, or refused in words
            damaged = bytearray(whole[: int(rng.integers(140, len(whole) + 1))])
            for at in rng.integers(132, len(damaged), 3):
                damaged[at] = int(rng.integers(256))
            (tmp_path / "s" / "003").write_bytes(damaged)
            try:
                read_image(tmp_path / "s", stack=1)
            except InputError as error:
                said += str(error)
    said += "".join(capfd.readouterr()) + caplog.text
    assert not any(secret in said for secret in ("CANARY", "JANE", "1933"))


def test_the_cine_mri_folder_holds_the_short_axis_and_five_long_axes(data):
    folder = data / "cine_mri_patient" / "dicom"
    refused(folder, "holds 6 stacks of slices .1: 6 slices of 256 x 208")
    image = read_image(folder, stack=1)
    assert image.values.shape == (256, 208, 6)
    np.testing.assert_allclose(image.spacing[:2], 1.40625)
    # The slice's place is stated in LPS beside the images.
    table = (folder.parent / "SliceInfoFile.txt").read_text().splitlines()
    first = table[0].split("ImagePositionPatient")[1].split("ImageOrientation")[0].split()
    position = np.array([float(x) for x in first]) * (-1, -1, 1)
    corners = image.affine @ np.array([[0, 0, k, 1] for k in (0, 5)]).T
    assert np.linalg.norm(corners[:3].T - position, axis=1).min() < 0.01
    assert any("17.7 mm apart" in note for note in image.notes)
