"""DICOM segmentations (SEG): frames of segments become one label image with names."""

from pathlib import Path
from typing import Any

import numpy as np

from twinheart.errors import InputError
from twinheart.imaging.dicom_files import (
    LPS_TO_RAS,
    SEGMENTATION_CLASSES,
    Frame,
    frames_of,
    is_dicom,
    quiet_pydicom,
    read_header,
    read_pixels,
)
from twinheart.imaging.image import Image
from twinheart.imaging.nifti import MAX_VOXELS

_OFF_GRID = 0.1  # share of the slice spacing by which a frame may be off its place
_MAX_NAME = 64


def is_segmentation(path: Path) -> bool:
    """Whether a file is a DICOM segmentation.

    Parameters
    ----------
    path : Path
        Any file.

    Returns
    -------
    bool
        False also for files that cannot be read.
    """
    if not path.is_file() or not is_dicom(path):
        return False
    return read_header(path).get("SOPClassUID") in SEGMENTATION_CLASSES


def read_segmentation(path: str | Path) -> Image:
    """Read a DICOM segmentation: binary, fractional (at one half) or a label map.

    Slices without any segment, which such files leave out, become background. Where segments
    overlap, the smaller one wins: contours of the outer wall often include the blood pool.

    Parameters
    ----------
    path : path
        DICOM file.

    Returns
    -------
    Image
        Segment numbers, with the segments' labels as `names`.

    Raises
    ------
    InputError
        If it is damaged, its frames are not parallel slices of one grid, or it is too large.

    Examples
    --------
    >>> from twinheart.imaging.segmentation import read_segmentation
    >>> read_segmentation("heart.dcm")
    Traceback (most recent call last):
    twinheart.errors.InputError: heart.dcm: the DICOM data are damaged: get the file again.
    """
    path = Path(path)
    pixels, dataset = read_pixels(path)
    frames = frames_of(dataset, path)
    if len(frames) != len(pixels):
        raise InputError(f"{path}: has {len(pixels)} frames, but places for {len(frames)}.")
    if not all(frames[0].beside(frame) for frame in frames):
        raise InputError(f"{path}: its frames are not parallel slices of one grid.")
    with quiet_pydicom():
        try:
            names = _names(dataset)
            segments = _segments(dataset, len(frames))
            half = _threshold(dataset)
            spacing = _slice_spacing(dataset, frames)
        except Exception:
            raise InputError(f"{path}: the description of its segments is damaged.") from None
    rows = np.array([frame.height for frame in frames])
    slices = (rows - rows.min()) / spacing
    if (np.abs(slices - np.rint(slices)) > _OFF_GRID).any():
        raise InputError(f"{path}: its slices are unevenly spaced: export it on one grid.")
    slices = np.rint(slices).astype(int)
    shape = (*frames[0].shape, int(slices.max()) + 1)
    if np.prod(shape, dtype=float) > MAX_VOXELS:
        raise InputError(f"{path}: spans {shape} voxels, at most {MAX_VOXELS:.3g} are read.")
    values, n_overlapping = _painted(pixels, segments, half, slices, shape)
    first = frames[int(np.argmin(rows))]
    affine = np.eye(4)
    affine[:3, :2] = (first.axes * first.spacing[:, None]).T
    affine[:3, 2], affine[:3, 3] = first.normal * spacing, first.position
    try:
        image = Image(values, LPS_TO_RAS @ affine)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    notes = [f"axes run to {image.orientation} (stored in LPS, positions turned to RAS)"]
    if n_overlapping:
        notes.append(f"segments overlap in {n_overlapping} voxels; the smaller segment won")
    return Image(values, image.affine, names, notes)


def _names(dataset) -> dict[int, str]:
    names = {}
    for segment in dataset.get("SegmentSequence") or []:
        text = "".join(c for c in str(segment.get("SegmentLabel", "")) if c.isprintable())
        names[int(segment.SegmentNumber)] = text[:_MAX_NAME]
    return names


def _segments(dataset, n_frames: int) -> list[int | None]:
    """Segment of each frame; None in a label map, whose pixels are the numbers."""
    if dataset.get("SegmentationType") == "LABELMAP":
        return [None] * n_frames
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])
    numbers: list[int | None] = []
    for group in dataset.PerFrameFunctionalGroupsSequence:
        place = next(g for g in [group, *shared] if g.get("SegmentIdentificationSequence"))
        numbers.append(int(place.SegmentIdentificationSequence[0].ReferencedSegmentNumber))
    return numbers


def _threshold(dataset) -> float:
    if dataset.get("SegmentationType") == "FRACTIONAL":
        return 0.5 * float(dataset.MaximumFractionalValue)
    return 0.5


def _slice_spacing(dataset, frames: list[Frame]) -> float:
    places = [*(dataset.get("SharedFunctionalGroupsSequence") or [])]
    places += list(dataset.PerFrameFunctionalGroupsSequence)[:1]
    for place in places:
        for measures in place.get("PixelMeasuresSequence") or []:
            stated: Any = measures.get("SpacingBetweenSlices")
            if stated is not None and float(stated) > 0:
                return float(stated)
    gaps = np.diff(np.unique(np.round([frame.height for frame in frames], 2)))
    return float(gaps.min()) if len(gaps) else frames[0].thickness


def _painted(pixels, segments, half, slices, shape) -> tuple[np.ndarray, int]:
    """Label image from the frames, large segments first; voxels claimed more than once."""
    values = np.zeros(shape, dtype=np.uint16)
    claims = np.zeros(shape, dtype=np.uint8)
    size: dict[int, int] = {}
    for frame, segment in zip(pixels, segments, strict=True):
        if segment is not None:
            size[segment] = size.get(segment, 0) + int((frame > half).sum())
    order = sorted(range(len(pixels)), key=lambda n: (-size.get(segments[n] or 0, 0), n))
    for n in order:
        if segments[n] is None:
            values[:, :, slices[n]] = pixels[n].T
            continue
        mask = pixels[n].T > half
        values[:, :, slices[n]][mask] = segments[n]
        claims[:, :, slices[n]] += mask
    return values, int((claims > 1).sum())
