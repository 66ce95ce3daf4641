"""DICOM: slices of a folder sorted by where they lie, into stacks, into one image.

Nothing about the patient is kept or said: identities are only compared.
"""

from pathlib import Path

import numpy as np

from twinheart.errors import InputError
from twinheart.imaging.dicom_files import (
    LPS_TO_RAS,
    SEGMENTATION_CLASSES,
    Frame,
    frames_of,
    is_dicom,
    read_header,
    read_pixels,
    rescaling,
)
from twinheart.imaging.image import Image, orientation
from twinheart.imaging.nifti import MAX_VOXELS

_MAX_FILES = 20_000
_MAX_LISTED = 12
_SAME_PLACE = 0.01  # mm
_UNEVEN = 0.05  # share of the spacing by which slices may be off their place


def read_dicom(path: str | Path, *, stack: int | None = None) -> Image:
    """Read one stack of slices from a folder, or the frames of a single file.

    Parameters
    ----------
    path : path
        Folder (with its subfolders) or file.
    stack : int, optional
        Which stack, counted from 1, if there are several.

    Returns
    -------
    Image
        Axes: along the rows, along the columns, across the slices.

    Raises
    ------
    InputError
        As for `read_image`.

    Examples
    --------
    >>> import tempfile
    >>> from twinheart.imaging.dicom import read_dicom
    >>> read_dicom(tempfile.mkdtemp())
    Traceback (most recent call last):
    twinheart.errors.InputError: ...: holds no DICOM image ...
    """
    path = Path(path)
    frames, notes = _frames(path)
    stacks = sort_into_stacks(frames)
    if stack is None and len(stacks) > 1:
        shown = "; ".join(f"{n}: {_described(s)}" for n, s in enumerate(stacks[:_MAX_LISTED], 1))
        more = "; ..." if len(stacks) > _MAX_LISTED else ""
        raise InputError(
            f"{path}: holds {len(stacks)} stacks of slices ({shown}{more}): say which one by its "
            "number, as in --stack 1."
        )
    if stack is not None and not 1 <= stack <= len(stacks):
        raise InputError(f"{path}: has no stack {stack}; it has 1 to {len(stacks)}.")
    chosen = stacks[(stack or 1) - 1]
    try:
        affine, more_notes = stack_affine(chosen)
        image = Image(_voxels(chosen), affine)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    said = f"axes run to {image.orientation} (stored in LPS, positions turned to RAS)"
    if len(stacks) > 1:
        notes = (*notes, f"stack {stack} of {len(stacks)}: {_described(chosen)}")
    return Image(image.values, image.affine, notes=(said, *notes, *more_notes))


def sort_into_stacks(frames: list[Frame]) -> list[list[Frame]]:
    """Group slices that are parallel and of one grid; in each group none lies on another.

    Slices at the same place are told apart by their series, then by their time.

    Parameters
    ----------
    frames : list of Frame
        In any order.

    Returns
    -------
    list of list of Frame
        Stacks, the largest first, each sorted along its normal.
    """
    groups: list[list[Frame]] = []
    for frame in frames:
        group = next((g for g in groups if g[0].beside(frame)), None)
        if group is None:
            groups.append([frame])
        else:
            group.append(frame)
    stacks = [s for group in groups for s in _told_apart(group)]
    return sorted(stacks, key=lambda s: -len(s))


def stack_affine(stack: list[Frame]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Voxel indices to RAS positions [mm] of evenly spaced slices.

    Parameters
    ----------
    stack : list of Frame
        Sorted along the normal.

    Returns
    -------
    affine : (4, 4) array
        For voxels (column, row, slice).
    notes : tuple of str
        What should be known about the spacing.

    Raises
    ------
    InputError
        If slices lie on one another, are missing, unevenly spaced or shifted sideways.
    """
    first, last = stack[0], stack[-1]
    notes: tuple[str, ...] = ()
    affine = np.eye(4)
    affine[:3, :2] = (first.axes * first.spacing[:, None]).T
    affine[:3, 3] = first.position
    if len(stack) == 1:
        if not np.isfinite(first.thickness):
            raise InputError("a single slice without thickness cannot be placed: give the stack.")
        affine[:3, 2] = first.normal * first.thickness
        notes = ("there is a single slice",)
    else:
        step = (last.position - first.position) / (len(stack) - 1)
        affine[:3, 2] = step
        spacing = float(step @ first.normal)
        _require_even(stack, step)
        if np.isfinite(first.thickness) and first.thickness < 0.9 * spacing:
            notes = (
                f"slices are {first.thickness:.3g} mm thick but {spacing:.3g} mm apart: what lies "
                "between was not imaged",
            )
    return LPS_TO_RAS @ affine, notes


def _require_even(stack: list[Frame], step: np.ndarray) -> None:
    heights = np.array([f.height for f in stack])
    gaps = np.diff(heights)
    unit = float(np.median(gaps))
    if gaps.min() < _SAME_PLACE:
        at = int(np.argmin(gaps))
        raise InputError(
            f"slices {at + 1} and {at + 2} lie at the same place: give one time frame alone."
        )
    off = np.abs(gaps - unit) > _UNEVEN * unit
    if off.any():
        at = int(np.argmax(off))
        times = gaps[at] / unit
        if times > 1.5 and abs(times - np.rint(times)) < 0.1:
            place = LPS_TO_RAS[:3, :3] @ (stack[at].position + stack[at + 1].position) / 2
            raise InputError(
                f"{int(np.rint(times)) - 1} slice(s) are missing between slices {at + 1} and "
                f"{at + 2}, near ({', '.join(f'{x:.1f}' for x in place)}) mm RAS: get the whole "
                "series."
            )
        raise InputError(
            f"slices are unevenly spaced ({gaps.min():.3g} to {gaps.max():.3g} mm; first after "
            f"slice {at + 1}): give one evenly spaced series."
        )
    places = np.array([f.position for f in stack])
    sideways = np.linalg.norm(places - places[0] - np.arange(len(stack))[:, None] * step, axis=1)
    if sideways.max() > max(0.5 * float(stack[0].spacing.min()), 0.1 * unit):
        at = int(np.argmax(sideways))
        raise InputError(
            f"slice {at + 1} is shifted sideways by {sideways[at]:.3g} mm against the others: "
            "give slices of one stack."
        )


def _told_apart(group: list[Frame]) -> list[list[Frame]]:
    group = sorted(group, key=lambda f: (f.height, f.order, str(f.path), f.index))
    if not _overlapping(group):
        return [group]
    series = sorted({f.series for f in group})
    if len(series) > 1:
        return [s for uid in series for s in _told_apart([f for f in group if f.series == uid])]
    places: list[list[Frame]] = []
    for frame in group:
        if places and frame.height - places[-1][0].height < _SAME_PLACE:
            places[-1].append(frame)
        else:
            places.append([frame])
    if len({len(p) for p in places}) > 1:
        return [group]  # refused if it is asked for: some places have more images than others
    return [list(phase) for phase in zip(*places, strict=True)]


def _overlapping(group: list[Frame]) -> bool:
    return bool((np.diff([f.height for f in group]) < _SAME_PLACE).any())


def _described(stack: list[Frame]) -> str:
    first = stack[0]
    size = f"{first.shape[0]} x {first.shape[1]}"
    affine = np.eye(4)
    affine[:3, :3] = np.stack([*first.axes, first.normal], axis=1)
    plane = {"R": "sagittal", "L": "sagittal", "A": "coronal", "P": "coronal"}
    named = plane.get(orientation(LPS_TO_RAS @ affine)[2], "axial")
    tilt = np.degrees(np.arccos(np.clip(np.abs(first.normal).max(), 0, 1)))
    tilted = f"{named}, tilted by {tilt:.0f} deg" if tilt >= 1 else named
    return f"{len(stack)} slice{'s' * (len(stack) > 1)} of {size}, {tilted}"


def _frames(path: Path) -> tuple[list[Frame], tuple[str, ...]]:
    """Every frame below a path, all of one patient, and what was left out."""
    files = [path] if path.is_file() else []
    if not files:
        for file in path.rglob("*"):
            if file.is_file():
                files.append(file)
            if len(files) > _MAX_FILES:
                raise InputError(f"{path}: holds more than {_MAX_FILES} files: give one series.")
    frames: list[Frame] = []
    patients: dict[tuple[str, ...], int] = {}
    n_other = n_unplaced = n_segmentations = 0
    for file in sorted(files):
        if not is_dicom(file):
            n_other += 1
            continue
        header = read_header(file)
        if header.get("SOPClassUID") in SEGMENTATION_CLASSES:
            n_segmentations += 1
            continue
        found = frames_of(header, file)
        n_unplaced += not found
        if found:
            patient = _identity(header)
            patients[patient] = patients.get(patient, 0) + 1
        frames += found
    if len(patients) > 1:
        counts = " and ".join(str(n) for n in patients.values())
        raise InputError(
            f"{path}: mixes {len(patients)} patients ({counts} files): keep one patient's files "
            "in a folder."
        )
    if not frames:
        hint = "; give the segmentation file itself" if n_segmentations else ""
        raise InputError(
            f"{path}: holds no DICOM image with a position in the patient ({n_other} files are no "
            f"DICOM, {n_unplaced} have no position){hint}."
        )
    left_out = {
        "are no DICOM": n_other,
        "have no position in the patient": n_unplaced,
        "are segmentations": n_segmentations,
    }
    return frames, tuple(f"{n} files that {w} were left out" for w, n in left_out.items() if n)


def _identity(header) -> tuple[str, ...]:
    """What tells patients apart: the number if there is one, else name and birthday."""
    if header.get("PatientID"):
        return (str(header.PatientID),)
    return (str(header.get("PatientName", "")), str(header.get("PatientBirthDate", "")))


def _voxels(stack: list[Frame]) -> np.ndarray:
    """(column, row, slice) values of a stack, rescaled where the files say so."""
    columns, rows = stack[0].shape
    if float(columns) * rows * len(stack) > MAX_VOXELS:
        raise InputError(
            f"the stack has {columns} x {rows} x {len(stack)} voxels, at most {MAX_VOXELS:.3g} are "
            "read: crop it to the heart."
        )
    slices: list[np.ndarray] = []
    path, pixels, dataset = None, np.empty(0), None
    for frame in stack:
        if frame.path != path:
            path = frame.path
            pixels, dataset = read_pixels(path)
        values = pixels[frame.index].T
        slope, intercept = rescaling(dataset, frame.index)
        if (slope, intercept) != (1.0, 0.0):
            values = (values * slope + intercept).astype(np.float32)
        slices.append(values)
    return np.stack(slices, axis=2)
