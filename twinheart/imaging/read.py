"""Reading an image, whatever kind of file or folder it is."""

from pathlib import Path

from twinheart.errors import InputError
from twinheart.imaging.dicom import read_dicom
from twinheart.imaging.image import Image
from twinheart.imaging.nifti import read_nifti
from twinheart.imaging.segmentation import is_segmentation, read_segmentation


def read_image(path: str | Path, *, stack: int | None = None) -> Image:
    """Read a three-dimensional image or label image.

    Parameters
    ----------
    path : path
        NIfTI (`.nii`, `.nii.gz`); a folder of DICOM slices; a DICOM file with many frames, such
        as a segmentation (SEG), whose segments become labels with names.
    stack : int, optional
        Which stack of parallel slices, counted from 1, where a folder holds several; without it
        such a folder is refused with a list of them.

    Returns
    -------
    Image
        Its `notes` say what was found and assumed.

    Raises
    ------
    InputError
        If it cannot be read, is damaged or too large, cannot be placed in the patient, holds
        slices of two patients, several stacks, or slices that are missing or unevenly spaced.
        No message names the patient.

    Examples
    --------
    >>> from twinheart.imaging import read_image
    >>> read_image("heart.png")
    Traceback (most recent call last):
    twinheart.errors.InputError: heart.png: no such file or folder.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder.")
    if path.is_file() and path.name.lower().endswith((".nii", ".nii.gz")):
        return read_nifti(path)
    if is_segmentation(path):
        return read_segmentation(path)
    return read_dicom(path, stack=stack)
