"""Where blood pools meet the outside: valves, which stay open, and holes, which are closed."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import binary_dilation, distance_transform_edt, label

from twinheart.errors import InputError
from twinheart.imaging.image import voxel_spacing
from twinheart.imaging.slices import BEYOND, LV, MUSCLE, OUTSIDE, RV, Affine, Labels, place

_EDGES = np.ones((3, 3, 3), bool)  # neighbours by face, edge or corner
_NAMES = {LV: "LV", RV: "RV"}
_CLOSABLE = 2.0  # voxels: the farthest from the wall in a hole at most 2 voxels across
_MIN_VALVE = 8.0  # mm across
_UPWARD = 0.5  # cosine between the normals of a valve and of the base
_HIGH = 0.5  # share of the pool's height above which valves lie
_UNWALLED = 0.35  # share of a pool's surface without muscle: then its wall was not segmented
_RV_WALL = 3.0  # mm, of a wall that was not segmented

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
        Mean outward direction, RAS, scaled with the number of faces.
    across : float
        Width: twice the distance from the wall of the voxel farthest from it [voxels].
    labelled : bool
        Most of what lies outside is labelled: an atrium or a great vessel.
    """

    pool: int
    voxels: Voxels
    normal: Float[np.ndarray, "3"]
    across: float
    labelled: bool


def close_walls(labels: Labels, affine: Affine) -> tuple[Labels, Bool[np.ndarray, "i j k"], list]:
    """Surround every pool by muscle, except at valves.

    Parameters
    ----------
    labels : (i, j, k) uint8 array
        `OUTSIDE`, `LV`, `MUSCLE`, `RV` or `BEYOND`, on a nearly isotropic grid with a margin.
    affine : (4, 4) array
        Voxel indices to RAS positions [mm].

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
    repairs = _part_pools(labels, affine)
    contacts = [c for pool in (LV, RV) for c in _contacts(labels, affine, pool)]
    base = _base_direction(contacts)
    repairs += _add_rv_wall(labels, affine, base)
    openings = np.zeros(labels.shape, bool)
    for pool in (LV, RV):
        holes = []
        for contact in _contacts(labels, affine, pool):
            if _is_valve(contact, labels, affine, base):
                openings |= _mouth(labels, contact)
            else:
                holes.append(contact)
        for hole in holes:
            if hole.across > 2 * _CLOSABLE - 1e-6:
                _refuse(hole, affine)
        repairs += _close(labels, affine, pool, openings, holes)
    return labels, openings, repairs


def _contacts(labels: Labels, affine: Affine, pool: int) -> list[Contact]:
    """Patches of a pool's surface without wall, the largest first."""
    inside = labels == pool
    outside = (labels == OUTSIDE) | (labels == BEYOND)
    faces = np.zeros((*labels.shape, 3), np.int8)
    n_faces, n_labelled = np.zeros(labels.shape, np.int8), np.zeros(labels.shape, np.int8)
    walled = np.zeros(labels.shape, bool)
    for axis in range(3):
        for step in (1, -1):
            beside = np.roll(labels, -step, axis)
            free = inside & np.roll(outside, -step, axis)
            faces[..., axis] += step * free
            n_faces += free
            n_labelled += free & (beside == BEYOND)
            walled |= inside & (beside != pool) & ~free
    touching = n_faces > 0
    if not touching.any():
        return []
    # Specks beside a patch belong to it: patches are joined over gaps of two voxels.
    patches, n = label(binary_dilation(touching, _EDGES), _EDGES)
    patches[~touching] = 0
    wall_distance = distance_transform_edt(~(walled & ~touching))
    to_ras = np.linalg.inv(affine[:3, :3]).T * voxel_spacing(affine).min()
    found = []
    for number in range(1, n + 1):
        here = patches == number
        found.append(
            Contact(
                pool=pool,
                voxels=np.argwhere(here).astype(float),
                normal=to_ras @ faces[here].sum(axis=0, dtype=float),
                across=2 * float(wall_distance[here].max()),
                labelled=bool(2 * n_labelled[here].sum() > n_faces[here].sum()),
            )
        )
    return sorted(found, key=lambda c: -len(c.voxels))


def _base_direction(contacts: list[Contact]) -> Float[np.ndarray, "3"]:
    """From apex to base: where the largest patch of each pool looks; zero if nothing is open."""
    total = np.zeros(3)
    for pool in (LV, RV):
        normal = next((c.normal for c in contacts if c.pool == pool), np.zeros(3))
        total += normal / max(float(np.linalg.norm(normal)), 1e-9)
    return total / max(float(np.linalg.norm(total)), 1e-9)


def _is_valve(contact: Contact, labels: Labels, affine: Affine, base) -> bool:
    if contact.labelled:
        return True
    if contact.across * voxel_spacing(affine).min() < _MIN_VALVE:
        return False
    along = base @ affine[:3, :3]
    heights = np.argwhere(labels == contact.pool) @ along
    height = (contact.voxels @ along).mean()
    share = (height - heights.min()) / max(float(np.ptp(heights)), 1e-9)
    upward = contact.normal @ base / max(float(np.linalg.norm(contact.normal)), 1e-9)
    return bool(upward > _UPWARD and share > _HIGH)


def _mouth(labels: Labels, contact: Contact) -> Bool[np.ndarray, "i j k"]:
    """Voxels outside that share a face with the patch, and those beside them at the pool."""
    outside = (labels == OUTSIDE) | (labels == BEYOND)
    patch = np.zeros(labels.shape, bool)
    patch[tuple(contact.voxels.astype(int).T)] = True
    core = binary_dilation(patch) & outside
    near_pool = binary_dilation(labels == contact.pool, _EDGES)
    return outside & near_pool & binary_dilation(core, _EDGES)


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
    size = hole.across * voxel_spacing(affine).min()
    raise InputError(
        f"the {_NAMES[hole.pool]} pool leaks through its wall near {place(affine, hole.voxels)}, "
        f"away from the valve plane: the hole is about {size:.0f} mm across and only holes of at "
        "most 2 voxels are closed; add the muscle that is missing there."
    )


def _part_pools(labels: Labels, affine: Affine) -> list[str]:
    """Put muscle between the two pools where they touch, in place."""
    touching = (labels == RV) & binary_dilation(labels == LV, _EDGES)
    if not touching.any():
        return []
    patches, n = label(touching, _EDGES)
    apart = distance_transform_edt(touching)
    widest = int(patches[np.unravel_index(np.argmax(apart), apart.shape)])
    where = place(affine, np.argwhere(patches == widest))
    across = 2 * float(distance_transform_edt(_filled(labels, touching)).max())
    if across > 2 * _CLOSABLE - 1e-6:
        raise InputError(
            f"the pools of LV and RV touch near {where} over about "
            f"{across * voxel_spacing(affine).min():.0f} mm: at most 2 voxels are parted; add the "
            "septum that is missing there."
        )
    labels[touching] = MUSCLE
    return [f"LV and RV pools touched at {n} place(s), parted by muscle, the widest near {where}"]


def _filled(labels: Labels, touching) -> Bool[np.ndarray, "i j k"]:
    """Touching voxels with everything but the surface of the RV pool that has a wall."""
    walled = (labels == RV) & binary_dilation(labels == MUSCLE) & ~touching
    return ~walled & binary_dilation(touching, _EDGES)


def _add_rv_wall(labels: Labels, affine: Affine, base) -> list[str]:
    """Put a wall around the RV's pool if the labels have none, in place."""
    pool = labels == RV
    surface = pool & binary_dilation(labels != RV)
    outside = (labels == OUTSIDE) | (labels == BEYOND)
    free = surface & binary_dilation(labels == OUTSIDE)
    if np.count_nonzero(free) <= _UNWALLED * np.count_nonzero(surface):
        return []
    distance, nearest = distance_transform_edt(~pool, voxel_spacing(affine), return_indices=True)
    along = base @ affine[:3, :3]
    voxels = np.argwhere(outside & (distance <= _RV_WALL))
    below = nearest[(slice(None), *voxels.T)].T
    heights = np.argwhere(surface) @ along
    step = float(np.abs(along).max())
    # Above the topmost layer of the pool is the valve plane: no wall there.
    above = ((voxels - below) @ along > 0.5 * step) & (below @ along > heights.max() - 2 * step)
    wall = voxels[~above]
    labels[tuple(wall.T)] = MUSCLE
    added = len(wall) * abs(np.linalg.det(affine[:3, :3])) / 1e3
    return [
        f"the labels have no wall of the RV: {_RV_WALL:g} mm were added around its pool "
        f"({added:.1f} ml)"
    ]
