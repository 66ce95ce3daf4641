"""NIfTI files (.nii, .nii.gz): only the header and the voxels it announces are ever read."""

import gzip
import zlib
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np

from twinheart.errors import InputError
from twinheart.imaging.image import Image

MAX_VOXELS = 2**29  # 1024 slices of 724 x 724; 2 GB as float32
_MAX_OFFSET = 2**24  # bytes before the voxels: header and extensions
_MICROMETRE, _METRE = 3, 1  # codes of the header's unit of length; 0 is unknown, 2 mm


def read_nifti(path: str | Path) -> Image:
    """Read an image from a NIfTI-1 or NIfTI-2 file.

    The orientation is the sform's, else the qform's; names and descriptions in the header, which
    may identify the patient, are not looked at.

    Parameters
    ----------
    path : path
        File with the suffix `.nii` or `.nii.gz`.

    Returns
    -------
    Image
        Stored values times slope plus intercept, in their own type if there is no scaling.

    Raises
    ------
    InputError
        If the file is missing, damaged, truncated, not three-dimensional, too large (above 2^29
        voxels), or has no spacing or a singular affine.

    Examples
    --------
    >>> from twinheart.imaging.nifti import read_nifti
    >>> read_nifti("heart.nii.gz")
    Traceback (most recent call last):
    twinheart.errors.InputError: heart.nii.gz: cannot be read: No such file or directory.
    """
    path = Path(path)
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opener(path, "rb") as stream:
            header = _header(stream, path)
            values = _values(stream, header, path)
    except (gzip.BadGzipFile, zlib.error, EOFError):
        raise InputError(f"{path}: the gzip data are damaged: get the file again.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}.") from None
    affine, notes = _affine(header)
    try:
        image = Image(values, affine, notes=notes)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    note = f"axes run to {image.orientation}"
    return Image(image.values, image.affine, notes=(note, *notes))


def _header(stream: BufferedIOBase, path: Path) -> Any:
    try:
        import nibabel as nib
    except ImportError:
        raise InputError(
            f"{path}: reading NIfTI needs nibabel: pip install 'twinheart[imaging]'."
        ) from None
    start = stream.read(4)
    sizes = {int.from_bytes(start, "little"), int.from_bytes(start, "big")}
    size = next((n for n in (348, 540) if n in sizes), None)
    if size is None:
        raise InputError(f"{path}: is no NIfTI file (neither version 1 nor 2).")
    block = start + stream.read(size - 4)
    kind = nib.Nifti1Header if size == 348 else nib.Nifti2Header
    try:
        header = kind(block, check=False)
        code, offset = int(header["datatype"]), int(header["vox_offset"]) or size + 4
        dtype, shape = header.get_data_dtype(), tuple(int(n) for n in header.get_data_shape())
    except Exception:  # nibabel raises many kinds for damaged headers
        raise InputError(f"{path}: the NIfTI header is damaged or truncated.") from None
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(f"{path}: stores values of type {code}, expected integers or floats.")
    if not size <= offset <= _MAX_OFFSET:
        raise InputError(
            f"{path}: puts its voxels at byte {offset}, expected {size} to {_MAX_OFFSET}: save "
            "it as a single file (.nii)."
        )
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(
            f"{path}: has shape {shape}, expected three dimensions: save one time frame or "
            "channel alone."
        )
    if np.prod(shape, dtype=float) > MAX_VOXELS:
        raise InputError(
            f"{path}: announces {np.prod(shape, dtype=float):.3g} voxels, at most "
            f"{MAX_VOXELS:.3g} are read: crop it to the heart."
        )
    stream.read(offset - size)
    header.set_data_shape(shape)
    return header


def _values(stream: BufferedIOBase, header, path: Path) -> np.ndarray:
    dtype, shape = header.get_data_dtype(), header.get_data_shape()
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    data = stream.read(n_bytes)
    if len(data) < n_bytes:
        raise InputError(
            f"{path}: ends after {len(data)} of {n_bytes} bytes of voxels: get the file again."
        )
    values = np.frombuffer(data, dtype).reshape(shape, order="F")
    values = values.astype(dtype.newbyteorder("="), copy=False)
    slope, intercept = (float(header[name]) for name in ("scl_slope", "scl_inter"))
    scaled = np.isfinite([slope, intercept]).all() and slope != 0 and (slope, intercept) != (1, 0)
    return values * np.float32(slope) + np.float32(intercept) if scaled else values


def _affine(header) -> tuple[np.ndarray, tuple[str, ...]]:
    """The affine in mm and what should be known about it."""
    notes = []
    with np.errstate(all="ignore"):
        try:
            qform = header.get_qform(coded=True)[0]
        except Exception:  # no valid quaternion or spacing
            qform = None
        sform = header.get_sform(coded=True)[0]
    if sform is not None:
        affine = sform
        if qform is not None and not np.allclose(sform, qform, atol=0.1):
            notes.append("sform and qform of the header differ; the sform was taken")
    elif qform is not None:
        affine = qform
    else:
        affine = np.diag([*np.abs(header["pixdim"][1:4].astype(float)), 1.0])
        notes.append(
            "the header has no orientation: the axes were taken as R, A, S, so the heart may lie "
            "wrongly in the patient or be mirrored"
        )
    unit = int(header["xyzt_units"]) & 7
    factor = {_METRE: 1e3, _MICROMETRE: 1e-3}.get(unit, 1.0)
    if factor != 1.0:
        notes.append(f"lengths in {'m' if unit == _METRE else 'um'} were converted to mm")
    affine = np.diag([factor] * 3 + [1.0]) @ np.asarray(affine, dtype=float)
    return affine, tuple(notes)
