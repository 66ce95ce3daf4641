"""The 17 segments of the left ventricle (American Heart Association), mirrored in the right one.

Segments after Cerqueira et al. 2002 (doi:10.1161/hc0402.102975), on consistent biventricular
coordinates after Schuler et al. 2021 (doi:10.1016/j.media.2021.102247). The right ventricle is
divided in the same way: its segments have the numbers of the left one plus 17.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from twinheart.anatomy.coordinates import Coordinates

# height `ab` above which a segment is apical (else 17, the apex), mid or basal
APICAL, MID, BASAL = 0.1, 0.4, 0.7
# rotation `rt` at which segments begin, from behind (0) along the free wall and the septum to 1
_SIXTHS = (1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6, 1.0)
_BASAL_SEGMENTS = np.array([4, 5, 6, 1, 2, 3, 4])
_QUARTERS = (5 / 24, 11 / 24, 17 / 24, 23 / 24)
_APICAL_SEGMENTS = np.array([15, 16, 13, 14, 15])

SEGMENTS = (
    "basal anterior", "basal anteroseptal", "basal inferoseptal", "basal inferior",
    "basal inferolateral", "basal anterolateral", "mid anterior", "mid anteroseptal",
    "mid inferoseptal", "mid inferior", "mid inferolateral", "mid anterolateral",
    "apical anterior", "apical septal", "apical inferior", "apical lateral", "apex",
)  # fmt: skip


def aha_segments(at: Coordinates) -> Int[np.ndarray, "node"]:
    """Segment of each of some places.

    Parameters
    ----------
    at : Coordinates
        The places, such as the nodes of a mesh.

    Returns
    -------
    (node,) int array
        1 to 17 in the left ventricle, 18 to 34 in the right; `SEGMENTS` has the names of 1 to 17.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.anatomy.aha import SEGMENTS, aha_segments
    >>> from twinheart.anatomy.coordinates import Coordinates
    >>> place = Coordinates(np.array([0.5]), np.array([0.8]), np.array([0.4]), np.array([0]))
    >>> SEGMENTS[aha_segments(place)[0] - 1]
    'basal anterolateral'
    """
    basal = _BASAL_SEGMENTS[_after(_SIXTHS, at.rt)]
    apical = _APICAL_SEGMENTS[_after(_QUARTERS, at.rt)]
    segment = np.select(
        [at.ab > BASAL, at.ab > MID, at.ab > APICAL], [basal, basal + 6, apical], 17
    )
    return (segment + 17 * at.tv).astype(np.int32)


def _after(bounds: Sequence[float], rt: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.array(bounds), rt, side="right")
