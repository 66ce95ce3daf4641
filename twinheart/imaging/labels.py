"""What the numbers of a label image mean: chambers and muscle, as masks with names."""

from collections.abc import Mapping

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float

from twinheart.errors import InputError
from twinheart.imaging.image import Image, checked_affine, orientation, voxel_spacing

MEANINGS: dict[str, str] = {
    "lv_pool": "blood pool of the left ventricle",
    "myo": "muscle of the ventricles: of the left one or of both",
    "rv_pool": "blood pool of the right ventricle",
    "rv_myo": "muscle of the right ventricle, where it has a label of its own",
    "la_pool": "left atrium",
    "ra_pool": "right atrium",
    "aorta": "aorta",
    "pulmonary_artery": "pulmonary artery",
}
_BEYOND_VALVES = ("la_pool", "ra_pool", "aorta", "pulmonary_artery")

# Conventions of data sets and segmentation programs, with the source that states them.
PRESETS: dict[str, dict[str, tuple[int, ...]]] = {
    # Bernard et al., IEEE Trans. Med. Imaging 2018, doi:10.1109/TMI.2018.2837502
    "acdc": {"rv_pool": (1,), "myo": (2,), "lv_pool": (3,)},
    # Campello et al., IEEE Trans. Med. Imaging 2021, doi:10.1109/TMI.2021.3090082
    "mnms": {"lv_pool": (1,), "myo": (2,), "rv_pool": (3,)},
    # Bai et al., J. Cardiovasc. Magn. Reson. 2018, doi:10.1186/s12968-018-0471-x
    "ukbb": {"lv_pool": (1,), "myo": (2,), "rv_pool": (3,)},
    # TotalSegmentator's task heartchambers_highres; Wasserthal et al., Radiol. Artif. Intell. 2023,
    # doi:10.1148/ryai.230024
    "totalsegmentator": {
        "myo": (1,),
        "la_pool": (2,),
        "lv_pool": (3,),
        "ra_pool": (4,),
        "rv_pool": (5,),
        "aorta": (6,),
        "pulmonary_artery": (7,),
    },
    # Zhuang & Shen, Med. Image Anal. 2016, doi:10.1016/j.media.2016.02.006
    "mmwhs": {
        "lv_pool": (500,),
        "rv_pool": (600,),
        "la_pool": (420,),
        "ra_pool": (550,),
        "myo": (205,),
        "aorta": (820,),
        "pulmonary_artery": (850,),
    },
}
_MAX_LISTED = 20


class ChamberMasks(eqx.Module):
    """Which voxels are blood of which ventricle, which are muscle, and where the valves open.

    No voxel belongs to two masks. As labels come, walls may have holes; `repair_masks` returns
    masks on a nearly isotropic grid, with a margin of background, in which every pool is
    surrounded by muscle (no pool voxel has a neighbour outside, corners included) except at
    its `openings`.

    Parameters
    ----------
    lv_pool, myocardium : (i, j, k) bool array
        Blood of the left ventricle; muscle of both ventricles, papillary muscles as labelled.
    rv_pool : (i, j, k) bool array or None
        Blood of the right ventricle; None where the image shows the left one only.
    affine : (4, 4) array
        Voxel indices to RAS positions [mm].
    beyond : (i, j, k) bool array or None
        Atria and great vessels, where they are labelled: a pool may touch them, at its valves.
    openings : (i, j, k) bool array or None
        Voxels outside the heart that touch a pool: the first layer beyond the valve planes. None
        until `repair_masks` has found them.

    Raises
    ------
    InputError
        If the masks differ in shape or overlap, or the affine cannot place them.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging import ChamberMasks
    >>> labels = np.arange(24).reshape(2, 3, 4) % 3
    >>> masks = ChamberMasks(labels == 1, labels == 2, None, np.eye(4))
    >>> masks.rv_pool is None
    True
    """

    lv_pool: Bool[np.ndarray, "i j k"]
    myocardium: Bool[np.ndarray, "i j k"]
    rv_pool: Bool[np.ndarray, "i j k"] | None
    affine: Float[np.ndarray, "4 4"]
    beyond: Bool[np.ndarray, "i j k"] | None = None
    openings: Bool[np.ndarray, "i j k"] | None = None

    def __init__(self, lv_pool, myocardium, rv_pool, affine, beyond=None, openings=None):
        self.lv_pool, self.myocardium, self.rv_pool = lv_pool, myocardium, rv_pool
        self.affine = checked_affine(affine)
        self.beyond, self.openings = beyond, openings
        given = [m for m in (lv_pool, myocardium, rv_pool, beyond, openings) if m is not None]
        if len({m.shape for m in given}) > 1 or lv_pool.ndim != 3:
            raise InputError(
                f"the masks have shapes {sorted({m.shape for m in given})}, expected one shape "
                "(i, j, k)."
            )
        if (np.sum(given, axis=0, dtype=np.int8) > 1).any():
            raise InputError("the masks overlap: give every voxel one meaning at most.")

    @property
    def pools(self) -> dict[str, Bool[np.ndarray, "i j k"]]:
        """The blood pools there are, by the name of their ventricle: 'LV', 'RV'."""
        pools = {"LV": self.lv_pool, "RV": self.rv_pool}
        return {name: pool for name, pool in pools.items() if pool is not None}

    def volumes_ml(self) -> dict[str, float]:
        """Volume of each mask [ml]."""
        voxel = np.prod(voxel_spacing(self.affine)) / 1e3
        parts = {"lv_pool": self.lv_pool, "myocardium": self.myocardium, "rv_pool": self.rv_pool}
        return {name: float(m.sum() * voxel) for name, m in parts.items() if m is not None}


def parse_labels(text: str) -> dict[str, tuple[int, ...]]:
    """Meanings of label numbers from a preset's name or a text such as 'lv_pool=1,myo=2+4'.

    Parameters
    ----------
    text : str
        One of the presets (`acdc`, `mnms`, `ukbb`, `totalsegmentator`, `mmwhs`), or pairs
        ``meaning=number`` separated by commas; several numbers of one meaning are joined by ``+``.

    Returns
    -------
    dict of str to tuple of int
        Numbers by meaning.

    Raises
    ------
    InputError
        If a meaning is unknown or given twice, a number is not a whole one above zero or is used
        twice, or `lv_pool` or `myo` is missing.

    Examples
    --------
    >>> from twinheart.imaging import parse_labels
    >>> parse_labels("lv_pool=1,myo=2+4,rv_pool=3")
    {'lv_pool': (1,), 'myo': (2, 4), 'rv_pool': (3,)}
    """
    text = text.strip()
    if text.lower() in PRESETS:
        return dict(PRESETS[text.lower()])
    if "=" not in text:
        raise InputError(
            f"'{text}' is no known label convention: take one of {', '.join(PRESETS)}, or say it "
            "as lv_pool=1,myo=2,rv_pool=3."
        )
    names: dict[str, tuple[int, ...]] = {}
    for part in text.split(","):
        meaning, _, numbers = (piece.strip() for piece in part.partition("="))
        if meaning in names:
            raise InputError(f"labels give '{meaning}' twice: join its numbers as in myo=2+4.")
        try:
            names[meaning] = tuple(int(n) for n in numbers.split("+"))
        except ValueError:
            raise InputError(
                f"labels say '{part.strip()}', expected meaning=number such as myo=2 or myo=2+4."
            ) from None
    return _checked_names(names)


def chamber_masks(image: Image, names: str | Mapping[str, tuple[int, ...]]) -> ChamberMasks:
    """Take the chambers and the muscle out of a label image.

    Parameters
    ----------
    image : Image
        Whole numbers, 0 outside.
    names : str or mapping
        What the numbers mean, as for or from `parse_labels`. Labels without a meaning count as
        background. Atria, aorta and pulmonary artery together become `beyond`, and need not exist
        in the image; nor must a preset's right ventricle.

    Returns
    -------
    ChamberMasks
        Without right ventricle if `rv_pool` is not among the names.

    Raises
    ------
    InputError
        If the image holds no labels or not those asked for (those it has are listed).

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging import Image, chamber_masks
    >>> image = Image(np.arange(24).reshape(2, 3, 4) % 3, np.eye(4))
    >>> chamber_masks(image, "lv_pool=1,myo=2").volumes_ml()
    {'lv_pool': 0.008, 'myocardium': 0.008}
    >>> chamber_masks(image, "lv_pool=1,myo=5")
    Traceback (most recent call last):
    twinheart.errors.InputError: the image has no label 5 (asked for as myo); it has 1, 2: ...
    """
    is_preset = isinstance(names, str) and names.strip().lower() in PRESETS
    wanted = parse_labels(names) if isinstance(names, str) else _checked_names(dict(names))
    values = _whole_numbers(image.values)
    present = [int(n) for n in np.unique(values) if n != 0]
    if not present:
        raise InputError("the label image is empty: every voxel is 0; is it the right file?")
    optional = {*_BEYOND_VALVES, *(("rv_pool",) if is_preset else ())}
    for meaning, numbers in wanted.items():
        missing = sorted(set(numbers) - set(present))
        if missing and meaning not in optional:
            raise InputError(
                f"the image has no label {', '.join(map(str, missing))} (asked for as {meaning}); "
                f"it has {_listed(present, image.names)}: say which is which, as in lv_pool=1,"
                "myo=2,rv_pool=3."
            )

    def mask(*meanings: str) -> np.ndarray | None:
        numbers = [n for meaning in meanings for n in wanted.get(meaning, ()) if n in present]
        return np.isin(values, numbers) if numbers else None

    lv_pool, muscle = mask("lv_pool"), mask("myo", "rv_myo")
    return ChamberMasks(
        lv_pool, muscle, mask("rv_pool"), image.affine, beyond=mask(*_BEYOND_VALVES)
    )


def describe_masks(masks: ChamberMasks) -> str:
    """One sentence: what the masks hold, on which grid.

    Parameters
    ----------
    masks : ChamberMasks
        Masks of one heart.

    Returns
    -------
    str
        Volumes, voxel size and orientation.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.imaging import ChamberMasks
    >>> from twinheart.imaging.labels import describe_masks
    >>> labels = np.arange(24000).reshape(20, 30, 40) % 3
    >>> describe_masks(ChamberMasks(labels == 1, labels == 2, None, np.eye(4)))
    'LV pool 8.0 ml, muscle 8.0 ml, no RV: LV only; voxels of 1 x 1 x 1 mm, axes run to RAS'
    """
    volume = masks.volumes_ml()
    rv = f"RV pool {volume['rv_pool']:.1f} ml" if "rv_pool" in volume else "no RV: LV only"
    size = " x ".join(f"{length:.3g}" for length in voxel_spacing(masks.affine))
    return (
        f"LV pool {volume['lv_pool']:.1f} ml, muscle {volume['myocardium']:.1f} ml, {rv}; voxels "
        f"of {size} mm, axes run to {orientation(masks.affine)}"
    )


def _checked_names(names: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    unknown = [name for name in names if name not in MEANINGS]
    if unknown:
        raise InputError(
            f"labels name '{unknown[0]}', expected meanings among {', '.join(MEANINGS)}."
        )
    missing = [name for name in ("lv_pool", "myo") if name not in names]
    if missing:
        raise InputError(f"labels lack {' and '.join(missing)}: say which number it has.")
    numbers = [n for group in names.values() for n in group]
    if min(numbers) < 1:
        raise InputError(
            f"labels use the number {min(numbers)}, expected 1 or more: 0 is background."
        )
    twice = sorted({n for n in numbers if numbers.count(n) > 1})
    if twice:
        raise InputError(f"labels use the number {twice[0]} twice: give each number one meaning.")
    return names


def _whole_numbers(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind in "iub":
        return values
    with np.errstate(invalid="ignore"):
        whole = np.rint(np.nan_to_num(values)).astype(np.int64)
    off = np.abs(values - whole) > 1e-3
    if off.any():
        raise InputError(
            f"{int(off.sum())} voxels hold no whole number: this is no label image but an "
            "intensity image or one that was interpolated; give the labels as segmented."
        )
    return whole


def _listed(present: list[int], known: Mapping[int, str]) -> str:
    shown = [f"{n} ({known[n]})" if n in known else str(n) for n in present[:_MAX_LISTED]]
    return ", ".join(shown) + (", ..." if len(present) > _MAX_LISTED else "")
