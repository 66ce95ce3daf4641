"""DICOM files: frames with their place, and pixels; without a word about the patient."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twinheart.errors import InputError
from twinheart.imaging.nifti import MAX_VOXELS

SEGMENTATION_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_DEFLATED = "1.2.840.10008.1.2.1.99"
_SAME = 1e-3  # direction cosines and spacings [mm] of one stack agree to this
_TAGS = (
    "SOPClassUID PatientID PatientName PatientBirthDate FrameOfReferenceUID SeriesInstanceUID "
    "SeriesNumber InstanceNumber TriggerTime TemporalPositionIdentifier AcquisitionNumber "
    "ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness Rows Columns "
    "NumberOfFrames SamplesPerPixel SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence"
).split()


@dataclass(frozen=True)
class Frame:
    """One slice: where it lies (LPS, mm) and where its pixels are.

    Parameters
    ----------
    path, index : Path, int
        File, and number of the frame in it.
    position : (3,) array
        Centre of the first pixel.
    axes : (2, 3) array
        Directions in which column and row number grow.
    spacing : (2,) array
        Distance of neighbouring columns and rows [mm].
    shape : (int, int)
        Columns and rows.
    thickness : float
        Of the slice [mm]; NaN where not stated.
    reference, series : str
        Identifiers of the frame of reference and of the series.
    order : tuple of float
        What tells apart images taken at the same place one after the other.
    """

    path: Path
    index: int
    position: np.ndarray
    axes: np.ndarray
    spacing: np.ndarray
    shape: tuple[int, int]
    thickness: float
    reference: str
    series: str
    order: tuple[float, ...]

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across the slice."""
        return np.cross(*self.axes)

    @property
    def height(self) -> float:
        """Place along the normal [mm]."""
        return float(self.position @ self.normal)

    def beside(self, other: "Frame") -> bool:
        """Whether both could be slices of one stack: parallel, of one grid and reference."""
        return (
            self.shape == other.shape
            and self.reference == other.reference
            and np.allclose(self.axes, other.axes, atol=_SAME)
            and np.allclose(self.spacing, other.spacing, atol=_SAME)
        )


def is_dicom(path: Path) -> bool:
    """Whether a file starts as DICOM files do.

    Parameters
    ----------
    path : Path
        A file.

    Returns
    -------
    bool
        False also for files that cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


@contextmanager
def quiet_pydicom(extra: str = "imaging") -> Iterator[Any]:
    """Give pydicom without its warnings, which quote values, for the length of a block.

    Parameters
    ----------
    extra : str
        Extra of this package that installs it, named where it is missing.

    Yields
    ------
    module
        pydicom.
    """
    try:
        import pydicom
        import pydicom.config
    except ImportError:
        raise InputError(f"DICOM needs pydicom: pip install 'twinheart[{extra}]'.") from None
    logger, config = pydicom.config.logger, pydicom.config
    disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings(), config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield pydicom
    finally:
        logger.disabled = disabled


def read_header(path: Path, *, pixels: bool = False) -> Any:
    """The tags needed to place a file's frames, or all of them with the pixels.

    Parameters
    ----------
    path : Path
        DICOM file.
    pixels : bool
        Read everything.

    Returns
    -------
    pydicom.Dataset
        What was read.

    Raises
    ------
    InputError
        If the file is damaged or deflated (its size could not be bounded).
    """
    with quiet_pydicom() as pydicom:
        try:
            meta = pydicom.filereader.read_file_meta_info(path)
            if meta.get("TransferSyntaxUID") == _DEFLATED:
                raise InputError(f"{path}: is deflated: save it uncompressed.")
            tags = None if pixels else list(_TAGS)
            dataset = pydicom.dcmread(path, stop_before_pixels=not pixels, specific_tags=tags)
            for _ in dataset:  # decoded here, where nothing is said about odd values
                pass
            return dataset
        except InputError:
            raise
        except Exception:  # pydicom raises many kinds, and its texts may quote the header
            raise InputError(f"{path}: the DICOM data are damaged: get the file again.") from None


def frames_of(header, path: Path) -> list[Frame]:
    """The frames of one file, none if it has no position in the patient.

    Parameters
    ----------
    header : pydicom.Dataset
        Its tags.
    path : Path
        Where it is.

    Returns
    -------
    list of Frame
        In the order of the file.

    Raises
    ------
    InputError
        If positions, directions or spacings are no numbers, or it has colours.
    """
    with quiet_pydicom():
        try:
            per_frame = header.get("PerFrameFunctionalGroupsSequence")
            if per_frame is None:
                if header.get("ImagePositionPatient") is None or header.get("Rows") is None:
                    return []
                return [_frame(header, path, 0, [header])]
            shared = list(header.get("SharedFunctionalGroupsSequence") or [])
            return [_frame(header, path, n, [group, *shared]) for n, group in enumerate(per_frame)]
        except InputError:
            raise
        except Exception:
            raise InputError(
                f"{path}: its position, orientation or pixel spacing is missing or no number: "
                "export the series again."
            ) from None


def _frame(header, path: Path, index: int, places: list) -> Frame:
    if header.get("SamplesPerPixel", 1) != 1:
        raise InputError(f"{path}: is a colour image, expected grey values: export the original.")

    def found(sequence: str, name: str) -> Any:
        for place in places:
            inner = (place.get(sequence) or [place])[0]
            if inner.get(name) is not None:
                return inner.get(name)
        return None

    axes = np.array(found("PlaneOrientationSequence", "ImageOrientationPatient"), dtype=float)
    axes = axes.reshape(2, 3)
    between_rows, between_columns = found("PixelMeasuresSequence", "PixelSpacing")
    spacing = np.array([between_columns, between_rows], dtype=float)
    position = np.array(found("PlanePositionSequence", "ImagePositionPatient"), dtype=float)
    if not (np.isfinite(axes).all() and np.isfinite(position).all() and (spacing > 0).all()):
        raise ValueError
    if not np.allclose(axes @ axes.T, np.eye(2), atol=0.01):
        raise InputError(f"{path}: rows and columns are not perpendicular: its header is damaged.")
    thickness = found("PixelMeasuresSequence", "SliceThickness")
    order = [found("FrameContentSequence", "TemporalPositionIndex")]
    order += [header.get("TemporalPositionIdentifier"), header.get("TriggerTime")]
    order += [header.get("AcquisitionNumber"), header.get("InstanceNumber"), index]
    return Frame(
        path=path,
        index=index,
        position=position,
        axes=axes / np.linalg.norm(axes, axis=1, keepdims=True),
        spacing=spacing,
        shape=(int(header.Columns), int(header.Rows)),
        thickness=float(thickness) if thickness is not None else np.nan,
        reference=str(header.get("FrameOfReferenceUID", "")),
        series=str(header.get("SeriesInstanceUID", "")),
        order=tuple(float(n) if n is not None else 0.0 for n in order),
    )


def read_pixels(path: Path) -> tuple[np.ndarray, Any]:
    """Stored pixels of all frames of a file, (frame, row, column), and its tags.

    Parameters
    ----------
    path : Path
        DICOM file.

    Returns
    -------
    pixels : (frame, row, column) array
        As stored, without rescaling.
    dataset : pydicom.Dataset
        All tags.

    Raises
    ------
    InputError
        If the pixels are too many, damaged or compressed in a way that cannot be read.
    """
    dataset = read_header(path, pixels=True)
    with quiet_pydicom():
        try:
            counts = [int(dataset.get(n) or 1) for n in ("NumberOfFrames", "Rows", "Columns")]
            if np.prod(counts, dtype=float) > MAX_VOXELS:
                raise InputError(
                    f"{path}: announces {np.prod(counts, dtype=float):.3g} pixels, at most "
                    f"{MAX_VOXELS:.3g} are read: crop it to the heart."
                )
            return dataset.pixel_array.reshape(counts), dataset
        except InputError:
            raise
        except Exception:
            raise InputError(
                f"{path}: the pixels are damaged or compressed in a way that cannot be read here: "
                "export them uncompressed."
            ) from None


def rescaling(dataset, index: int) -> tuple[float, float]:
    """Slope and intercept that turn stored pixels of a frame into values.

    Parameters
    ----------
    dataset : pydicom.Dataset
        Tags of the file.
    index : int
        Which of its frames.

    Returns
    -------
    slope, intercept : float
        1 and 0 where the file says nothing.

    Raises
    ------
    InputError
        If they are no numbers.
    """
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    places = [per_frame[index], *shared] if per_frame is not None else []
    with quiet_pydicom():
        try:
            for place in places:
                if place.get("PixelValueTransformationSequence"):
                    dataset = place.PixelValueTransformationSequence[0]
                    break
            slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
            return float(slope or 1), float(intercept or 0)
        except Exception:
            raise InputError("the rescaling of pixels is no number: export it again.") from None
