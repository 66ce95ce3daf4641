"""What files hold a heart's shape: a label image, contours, one tagged surface or several."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from twinheart.errors import InputError
from twinheart.imaging.chambers import Chambers, MinimumWall
from twinheart.imaging.contour_file import CONTOUR_SUFFIXES, read_contours
from twinheart.imaging.from_contours import masks_from_contours
from twinheart.imaging.from_labels import chambers_from_masks
from twinheart.imaging.from_surfaces import (
    PATCHES,
    TaggedSurface,
    chambers_from_patches,
    tagged_surface,
)
from twinheart.imaging.labels import ChamberMasks, chamber_masks, describe_masks
from twinheart.imaging.read import read_image
from twinheart.imaging.repair import repair_masks
from twinheart.mesh.core import TetMesh, TriMesh
from twinheart.mesh.io.read import READERS, read_mesh
from twinheart.mesh.quality import boundary_triangles

# What the names of files call the surfaces; the first that matches wins.
_NAMED = (
    ("epi", r"epi"),
    ("base", r"base|basal"),
    ("rv", r"(?<![a-z])rv|right"),
    ("lv", r"(?<![a-z])lv|left|endo"),
)


def load_muscle(
    sources: Sequence[str],
    edge: float,
    *,
    labels: str | None = None,
    wall: MinimumWall | None = None,
    length_unit: str | None = None,
    time_frame: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Chambers | TaggedSurface:
    """Read a heart's shape from a label image, contours or surfaces, whichever the files are.

    Parameters
    ----------
    sources : sequence of str
        One label image (NIfTI, DICOM); or one table of contours (`read_contours`); or one surface
        with tags; or surfaces of the epicardium, the endocardia and perhaps the base, as
        ``epi=FILE``, ``lv=FILE``, ``rv=FILE``, ``base=FILE``, or recognised by their names.
    edge : float
        Edge length of the mesh to come [mm].
    labels : str, optional
        What the numbers of a label image mean, as for `parse_labels`.
    wall : MinimumWall, optional
        Least thickness of the walls; not for one tagged surface.
    length_unit : str, optional
        Unit of surfaces; by default told from file or size.
    time_frame : int, optional
        Which time frame of a table of contours that holds several.
    say : callable
        Told in sentences what was found and repaired.

    Returns
    -------
    Chambers or TaggedSurface
        The muscle.

    Raises
    ------
    InputError, MeshError, UnitError
        If a file cannot be read or holds no such heart.

    Examples
    --------
    >>> from twinheart.imaging.sources import load_muscle
    >>> load_muscle(["a.stl", "b.stl"], 1.0)
    Traceback (most recent call last):
    twinheart.errors.InputError: cannot tell which surface a.stl is: say epi=, lv=, rv= or base= ...
    """
    if not sources:
        raise InputError("no image or surface was given.")
    named = [_role_and_path(source) for source in sources]
    paths = [path for _, path in named]
    kind = _kind(paths)
    if time_frame is not None and kind != "table of contours":
        raise InputError(f"--time-frame is for a table of contours, but a {kind} was given.")
    if labels is not None and kind != "label image":
        raise InputError(f"--labels is for a label image, but a {kind} was given.")
    if kind != "surface" and len(paths) > 1:
        raise InputError(
            f"{len(paths)} files were given, expected one {kind}: join what belongs to the heart."
        )
    if kind == "label image":
        return _from_masks(_labelled(paths[0], labels, say), edge, wall, say)
    if kind == "table of contours":
        return _from_masks(_drawn(paths[0], edge, time_frame, say), edge, wall, say)
    if len(paths) == 1:
        return tagged_surface(_surface(paths[0], length_unit, say), edge)
    patches: dict[str, TriMesh] = {}
    roles = [role or _recognised(path) for role, path in named]
    for role, path in zip(roles, paths, strict=True):
        if role in patches:
            raise InputError(
                f"two surfaces are taken for {role}, the second is {path.name}: say which is which "
                "with epi=FILE, lv=FILE, rv=FILE, base=FILE."
            )
        say(f"{path.name} is taken for {PATCHES[role].name.lower()}")
        patches[role] = _surface(path, length_unit, say)
    return chambers_from_patches(patches, edge, wall)


def label_image(sources: Sequence[str]) -> Path | None:
    """The label image among the sources of `load_muscle`, if they are one.

    Examples
    --------
    >>> from twinheart.imaging.sources import label_image
    >>> label_image(["heart.stl"]) is None, label_image(["labels.nii.gz"]).name
    (True, 'labels.nii.gz')
    """
    paths = [_role_and_path(source)[1] for source in sources]
    return paths[0] if len(paths) == 1 and _kind(paths) == "label image" else None


def _kind(paths: list[Path]) -> str:
    suffixes = {path.suffix.lower() for path in paths}
    if suffixes & set(READERS):
        return "surface"
    return "table of contours" if suffixes & set(CONTOUR_SUFFIXES) else "label image"


@dataclass(frozen=True)
class _Found:
    """Masks, and what there is to say about how they were come by."""

    masks: ChamberMasks
    notes: tuple[str, ...]


def _labelled(path: Path, labels: str | None, say: Callable[[str], None]) -> _Found:
    image = read_image(path)
    for note in image.notes:
        say(note)
    if labels is None:
        raise InputError(
            f"{path}: say what its labels mean with --labels, such as lv_pool=1,myo=2,rv_pool=3."
        )
    return _Found(chamber_masks(image, labels), image.notes)


def _drawn(path: Path, edge: float, time_frame: int | None, say: Callable[[str], None]) -> _Found:
    contours, notes = read_contours(path, time_frame=time_frame)
    for note in notes:
        say(note)
    try:
        masks, remarks = masks_from_contours(contours, edge)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    for remark in remarks:
        say(remark)
    return _Found(masks, (*notes, *remarks))


def _from_masks(
    found: _Found, edge: float, wall: MinimumWall | None, say: Callable[[str], None]
) -> Chambers:
    say(describe_masks(found.masks))
    masks, repairs = repair_masks(found.masks)
    for repair in repairs:
        say(repair)
    chambers = chambers_from_masks(masks, edge, wall)
    return Chambers(
        chambers.hull,
        chambers.cavities,
        chambers.pools,
        chambers.valve_points,
        chambers.volume,
        chambers.added,
        chambers.filled,
        chambers.euler,
        (*found.notes, *repairs, *chambers.notes),
    )


def _surface(path: Path, length_unit: str | None, say: Callable[[str], None]) -> TriMesh:
    mesh, report = read_mesh(path, length_unit=length_unit)
    for sentence in report.sentences():
        say(f"{path.name}: {sentence}")
    if isinstance(mesh, TetMesh):
        say(f"{path.name}: tetrahedra: their boundary is taken")
        return TriMesh(mesh.points, boundary_triangles(mesh.tets), mesh.point_fields)
    return mesh


def _role_and_path(source: str) -> tuple[str | None, Path]:
    role, found, path = source.partition("=")
    if found and role in PATCHES:
        return role, Path(path)
    return None, Path(source)


def _recognised(path: Path) -> str:
    name = path.stem.lower()
    for role, pattern in _NAMED:
        if re.search(pattern, name):
            return role
    raise InputError(
        f"cannot tell which surface {path.name} is: say epi=, lv=, rv= or base= before its name."
    )
