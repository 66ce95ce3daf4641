"""Where blood pools meet the outside: valves, which stay open, and holes, which are closed."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import binary_dilation, find_objects

from twinheart.errors import InputError
from twinheart.imaging.image import voxel_spacing
from twinheart.imaging.slices import (
    BEYOND,
    LV,
    MUSCLE,
    OUTSIDE,
    RV,
    Affine,
    Labels,
    connected,
    distances,
    place,
)

_EDGES = np.ones((3, 3, 3), bool)  # neighbours by face, edge or corner
_NAMES = {LV: "LV", RV: "RV"}
_CLOSABLE = 2.0  # voxels: the farthest from the wall in a hole at most 2 voxels across
_MIN_VALVE = 50.0  # mm2: 8 mm across
_UPWARD = 0.5  # cosine between the normals of a valve and of the base
_HIGH = 0.5  # share of the pool's height above which valves lie
_UNWALLED = 0.35  # share of a pool's surface without muscle: then its wall was not segmented
_RV_WALL = 3.0  # mm, of a wall that was not segmented

Mask = Bool[np.ndarray, "i j k"]
Voxels = Float[np.ndarray, "voxel 3"]


@dataclass(frozen=True)
class Contact:
    """A connected patch of a pool's surface that has no wall.

    Parameters
    ----------
    pool : int
        `LV` or `RV`.
    voxels : (voxel, 3) array
        Voxels of the pool with a face to the outside.
    normal : (3,) array
        Sum of the outward normals of the faces, RAS [mm2]; its length is the projected area.
    across : float
        Width: twice the distance from muscle of the voxel farthest from it [voxels as labelled].
    labelled : bool
        Most of what lies outside is labelled: an atrium or a great vessel.
    """

    pool: int
    voxels: Voxels
    normal: Float[np.ndarray, "3"]
    across: float
    labelled: bool


def close_walls(labels: Labels, affine: Affine, labelled) -> tuple[Labels, Mask, list[str]]:
    """Surround every pool by muscle, except at valves.

    Parameters
    ----------
    labels : (i, j, k) uint8 array
        `OUTSIDE`, `LV`, `MUSCLE`, `RV` or `BEYOND`, on a nearly isotropic grid with a margin.
    affine : (4, 4) array
        Voxel indices to RAS positions [mm].
    labelled : (3,) array
        Spacing of the voxels that were labelled [mm], in which holes are measured.

    Returns
    -------
    labels : (i, j, k) array
        With holes closed; no pool voxel touches the outside or the other pool, corners
        included, except at the openings.
    openings : (i, j, k) bool array
        Voxels outside that touch a pool at a valve.
    repairs : list of str
        A sentence for each kind of repair.

    Raises
    ------
    InputError
        If a hole more than two voxels across lies away from the valves; it is located.
    """
    labels = labels.copy()
    scale = voxel_spacing(affine) / labelled
    repairs = _part_pools(labels, affine, scale)
    unwalled = _is_unwalled(labels)
    contacts = [_contacts(labels, affine, scale, p) for p in ((LV,) if unwalled else (LV, RV))]
    base = _base_direction([found[0].normal for found in contacts if found])
    if unwalled:
        repairs.append(_add_rv_wall(labels, affine, base))
    openings = np.zeros(labels.shape, bool)
    for pool in (LV, RV):
        holes = []
        for contact in _contacts(labels, affine, scale, pool):
            if _is_valve(contact, labels, affine, base):
                openings |= _mouth(labels, contact, affine)
            else:
                holes.append(contact)
        for hole in holes:
            if not _closable(hole.across):
                _refuse(hole, affine)
        repairs += _close(labels, affine, pool, openings, holes)
    return labels, openings, repairs


def _contacts(labels: Labels, affine: Affine, scale, pool: int) -> list[Contact]:
    """Patches of a pool's surface without wall, the largest first."""
    inside = labels == pool
    outside = (labels == OUTSIDE) | (labels == BEYOND)
    faces = np.zeros((*labels.shape, 3), np.int8)
    n_faces, n_labelled = np.zeros(labels.shape, np.int8), np.zeros(labels.shape, np.int8)
    for axis in range(3):
        for step in (1, -1):
            beside = np.roll(labels, -step, axis)
            free = inside & np.roll(outside, -step, axis)
            faces[..., axis] += step * free
            n_faces += free
            n_labelled += free & (beside == BEYOND)
    touching = n_faces > 0
    if not touching.any():
        return []
    # The cofactors of the axes: area vectors of the voxels' faces.
    face_areas = np.linalg.det(affine[:3, :3]) * np.linalg.inv(affine[:3, :3]).T
    face_areas *= np.sign(np.linalg.det(affine[:3, :3]))
    found = []
    for voxels, across in _patches(touching, labels == MUSCLE, scale):
        here = tuple(voxels.T)
        found.append(
            Contact(
                pool=pool,
                voxels=voxels.astype(float),
                normal=face_areas @ faces[here].sum(axis=0, dtype=float),
                across=across,
                labelled=bool(2 * n_labelled[here].sum() > n_faces[here].sum()),
            )
        )
    return sorted(found, key=lambda c: -len(c.voxels))


def _patches(touching: Mask, muscle: Mask, scale) -> list[tuple[np.ndarray, float]]:
    """Voxels of each patch of a pool's surface and its width, by the distance to muscle.

    Specks beside a patch belong to it: patches are joined over gaps of two voxels.
    """
    patches, _ = connected(binary_dilation(touching, _EDGES), _EDGES)
    patches[~touching] = 0
    wall_distance, _ = distances(muscle, scale)
    found = []
    for number, box in enumerate(find_objects(patches), 1):
        here = patches[box] == number
        voxels = np.argwhere(here) + [side.start for side in box]
        found.append((voxels, 2 * float(wall_distance[box][here].max())))
    return found


def _base_direction(normals: list[Float[np.ndarray, "3"]]) -> Float[np.ndarray, "3"]:
    """From apex to base: where the largest patches look; zero if nothing is open."""
    total = np.zeros(3)
    for normal in normals:
        total += normal / max(float(np.linalg.norm(normal)), 1e-9)
    return total / max(float(np.linalg.norm(total)), 1e-9)


def _is_valve(contact: Contact, labels: Labels, affine: Affine, base) -> bool:
    if contact.labelled:
        return True
    area = float(np.linalg.norm(contact.normal))
    if area < _MIN_VALVE:
        return False
    along = base @ affine[:3, :3]
    heights = np.argwhere(labels == contact.pool) @ along
    height = (contact.voxels @ along).mean()
    share = (height - heights.min()) / max(float(np.ptp(heights)), 1e-9)
    return bool(contact.normal @ base > _UPWARD * area and share > _HIGH)


def _mouth(labels: Labels, contact: Contact, affine: Affine) -> Mask:
    """Voxels outside that share a face with the patch, and those beside them at the pool.

    Of a valve plane that specks of muscle cut into pieces only the wide ones are kept.
    """
    outside = (labels == OUTSIDE) | (labels == BEYOND)
    patch = np.zeros(labels.shape, bool)
    patch[tuple(contact.voxels.astype(int).T)] = True
    core = binary_dilation(patch) & outside
    near_pool = binary_dilation(labels == contact.pool, _EDGES)
    mouth = outside & near_pool & binary_dilation(core, _EDGES)
    pieces, n = connected(mouth, _EDGES)
    areas = np.bincount(pieces[core & mouth], minlength=n + 1) * voxel_spacing(affine).min() ** 2
    return (areas >= _MIN_VALVE)[pieces]


def _close(labels: Labels, affine: Affine, pool: int, openings, holes: list[Contact]) -> list[str]:
    """Turn what touches the pool outside its valves into muscle, in place."""
    outside = (labels == OUTSIDE) | (labels == BEYOND)
    open_to = outside & binary_dilation(labels == pool, _EDGES) & ~openings
    labels[open_to] = MUSCLE
    if not holes:
        return []
    widest = max(holes, key=lambda h: (h.across, len(h.voxels)))
    return [
        f"{len(holes)} hole{'s' * (len(holes) > 1)} of at most 2 voxels in the wall of the "
        f"{_NAMES[pool]} closed, the largest near {place(affine, widest.voxels)}"
    ]


def _refuse(hole: Contact, affine: Affine) -> None:
    face = np.abs(np.linalg.det(affine[:3, :3])) ** (2 / 3)
    size = 2 * np.sqrt(len(hole.voxels) * face / np.pi)
    raise InputError(
        f"the {_NAMES[hole.pool]} pool leaks through its wall near {place(affine, hole.voxels)}, "
        f"away from the valve plane: the hole is about {size:.0f} mm across and only holes of at "
        "most 2 voxels are closed; add the muscle that is missing there."
    )


def _part_pools(labels: Labels, affine: Affine, scale) -> list[str]:
    """Put muscle between the two pools where they touch, in place."""
    touching = (labels == RV) & binary_dilation(labels == LV, _EDGES)
    if not touching.any():
        return []
    patches = _patches(touching, labels == MUSCLE, scale)
    voxels, across = max(patches, key=lambda p: p[1])
    where = place(affine, voxels)
    if not _closable(across):
        raise InputError(
            f"the pools of LV and RV touch near {where} over about {across:.0f} voxels: at most 2 "
            "are parted; add the septum that is missing there."
        )
    labels[touching] = MUSCLE
    places = f"{len(patches)} place{'s' * (len(patches) > 1)}"
    return [f"LV and RV pools touched at {places}, parted by muscle, the widest near {where}"]


def _closable(across: float) -> bool:
    return across < 2 * _CLOSABLE - 1e-6


def _is_unwalled(labels: Labels) -> bool:
    """Whether the labels have no wall of the RV, as those of many conventions."""
    surface = (labels == RV) & binary_dilation(labels != RV)
    free = surface & binary_dilation(labels == OUTSIDE)
    return bool(np.count_nonzero(free) > _UNWALLED * np.count_nonzero(surface))


def _add_rv_wall(labels: Labels, affine: Affine, base) -> str:
    """Put a wall around the RV's pool, in place."""
    pool = labels == RV
    distance, nearest = distances(pool, voxel_spacing(affine))
    voxels = np.argwhere((labels == OUTSIDE) & (distance <= _RV_WALL))
    below = nearest[(slice(None), *voxels.T)].T
    along = base @ affine[:3, :3]
    step = float(np.abs(along).max())
    top = (np.argwhere(pool) @ along).max() - 2 * step
    # Above the topmost layers of the pool is the valve plane: no wall there.
    above = ((voxels - below) @ along > 0.5 * step) & (below @ along > top)
    wall = voxels[~above]
    labels[tuple(wall.T)] = MUSCLE
    added = len(wall) * abs(np.linalg.det(affine[:3, :3])) / 1e3
    return (
        f"the labels have no wall of the RV: {_RV_WALL:g} mm were added around its pool "
        f"({added:.1f} ml)"
    )
