r"""Monomorphic or polymorphic: whether re-entry repeats itself from cycle to cycle.

Two measures of a train of activations, from some time on.

*Variability* of the cycle length: the distance between the quartiles of all intervals between
activations of a node, over their median T.

*Similarity* of the pattern: cycles of the length T are counted back from the last activation, so
that the last ones are compared whatever came before. A node that fires first in one cycle after
the time :math:`d`, in the next after :math:`d'`, counts as :math:`\cos(2\pi (d' - d)/T)`, and as
0 if it fires in one of them only; the mean over all nodes that fire in either is the similarity of
both cycles: 1 for the same pattern and about 0 for unrelated ones.

Re-entry is monomorphic if the variability is at most 0.1 and the median similarity of successive
cycles at least 0.9; both limits are this project's own choice. What changes slowly, such as a core
that drifts, stays similar from cycle to cycle and counts as monomorphic.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from twinheart.tissue import Train

MOST_VARIABILITY = 0.1
LEAST_SIMILARITY = 0.9


class Morphology(NamedTuple):
    """How re-entry repeats itself.

    Attributes
    ----------
    kind : str
        ``"monomorphic"``, ``"polymorphic"``, or ``"unknown"`` with fewer than two cycles.
    cycle_length_ms : float
        Median interval between activations of a node; NaN where there is none.
    variability, similarity : float
        See the module; NaN where unknown.
    cycles : int
        That were compared.
    """

    kind: str
    cycle_length_ms: float
    variability: float
    similarity: float
    cycles: int


def classify(
    train: Train,
    since: float,
    *,
    most_variability: float = MOST_VARIABILITY,
    least_similarity: float = LEAST_SIMILARITY,
) -> Morphology:
    """Tell monomorphic from polymorphic re-entry.

    Parameters
    ----------
    train : Train
        Activations.
    since : float
        From when on they count [ms]: when re-entry has settled.
    most_variability, least_similarity : float
        Limits of what is monomorphic.

    Returns
    -------
    Morphology
        Verdict and measures.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.planning import classify
    >>> from twinheart.tissue import Train
    >>> lat = np.arange(10.0)[:, None] * 20.0 + np.arange(5) * 200.0  # around a ring of 10 nodes
    >>> classify(Train(lat, 0 * lat, 0 * lat, "successful"), 0.0)[:3]
    ('monomorphic', 200.0, 0.0)
    """
    lat = np.where(train.lat >= since, train.lat, np.nan)
    intervals = np.diff(lat, axis=1)
    intervals = intervals[np.isfinite(intervals)]
    if not intervals.size:
        return Morphology("unknown", np.nan, np.nan, np.nan, 0)
    low, cycle, high = np.percentile(intervals, [25, 50, 75])
    variability = float((high - low) / cycle)
    last = float(np.nanmax(lat))
    cycles = int((last - since) / cycle)
    patterns = [_pattern(lat, last - k * cycle, cycle) for k in range(cycles, 0, -1)]
    alike = [_similarity(*pair, cycle) for pair in pairwise(patterns)]
    if not alike:
        return Morphology("unknown", float(cycle), variability, np.nan, len(patterns))
    similarity = float(np.median(alike))
    regular = variability <= most_variability and similarity >= least_similarity
    kind = "monomorphic" if regular else "polymorphic"
    return Morphology(kind, float(cycle), variability, similarity, len(patterns))


def _pattern(lat: np.ndarray, start: float, cycle: float) -> np.ndarray:
    """When each node fires first in a cycle, from its start on; NaN where it does not."""
    within = np.where((lat > start) & (lat <= start + cycle), lat - start, np.inf)
    first = within.min(axis=1)
    return np.where(np.isfinite(first), first, np.nan)


def _similarity(one: np.ndarray, other: np.ndarray, cycle: float) -> float:
    turn = np.cos(2 * np.pi * (other - one) / cycle)
    either = np.isfinite(one) | np.isfinite(other)
    return float(np.where(np.isfinite(turn), turn, 0.0)[either].mean())
