"""What files hold a heart's shape: a label image, one tagged surface, or surfaces by name."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from twinheart.errors import InputError
from twinheart.imaging.chambers import Chambers, MinimumWall
from twinheart.imaging.from_labels import chambers_from_masks
from twinheart.imaging.from_surfaces import (
    PATCHES,
    TaggedSurface,
    chambers_from_patches,
    tagged_surface,
)
from twinheart.imaging.labels import chamber_masks, describe_masks
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
    say: Callable[[str], None] = lambda _: None,
) -> Chambers | TaggedSurface:
    """Read a heart's shape from a label image or from surfaces, whichever the files are.

    Parameters
    ----------
    sources : sequence of str
        One label image (NIfTI, DICOM); or one surface with tags; or surfaces of the epicardium,
        the endocardia and perhaps the base, as ``epi=FILE``, ``lv=FILE``, ``rv=FILE``,
        ``base=FILE``, or recognised by their names.
    edge : float
        Edge length of the mesh to come [mm].
    labels : str, optional
        What the numbers of a label image mean, as for `parse_labels`.
    wall : MinimumWall, optional
        Least thickness of the walls; not for one tagged surface.
    length_unit : str, optional
        Unit of surfaces; by default told from file or size.
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
    if not any(path.suffix.lower() in READERS for path in paths):
        if len(paths) > 1:
            raise InputError(
                f"{len(paths)} images were given, expected one label image: join the labels."
            )
        return _from_image(paths[0], edge, labels, wall, say)
    if labels is not None:
        raise InputError("--labels is for a label image, but a surface was given.")
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


def _from_image(path: Path, edge, labels, wall, say) -> Chambers:
    image = read_image(path)
    for note in image.notes:
        say(note)
    if labels is None:
        raise InputError(
            f"{path}: say what its labels mean with --labels, such as lv_pool=1,myo=2,rv_pool=3."
        )
    masks = chamber_masks(image, labels)
    say(describe_masks(masks))
    masks, repairs = repair_masks(masks)
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
        (*image.notes, *repairs, *chambers.notes),
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
