"""AHA segments: exactly the table of their definition, and in the right places of a heart."""

import numpy as np
import pytest

from twinheart.anatomy.aha import SEGMENTS, aha_segments
from twinheart.anatomy.coordinates import Coordinates, coordinates
from twinheart.anatomy.demo import demo_heart

# The table of Schuler et al. 2021: segment, ab in (low, high], rt in [low, high).
_SIXTH, _QUARTER = 1 / 6, 1 / 24
TABLE = [
    *[(s, 0.7, 1.0, a, b) for s, a, b in [
        (1, 1 / 2, 2 / 3), (2, 2 / 3, 5 / 6), (3, 5 / 6, 1.0), (4, 0.0, 1 / 6),
        (5, 1 / 6, 1 / 3), (6, 1 / 3, 1 / 2)]],
    *[(s, 0.4, 0.7, a, b) for s, a, b in [
        (7, 1 / 2, 2 / 3), (8, 2 / 3, 5 / 6), (9, 5 / 6, 1.0), (10, 0.0, 1 / 6),
        (11, 1 / 6, 1 / 3), (12, 1 / 3, 1 / 2)]],
    *[(s, 0.1, 0.4, a, b) for s, a, b in [
        (13, 11 / 24, 17 / 24), (14, 17 / 24, 23 / 24), (15, 0.0, 5 / 24),
        (15, 23 / 24, 1.0), (16, 5 / 24, 11 / 24)]],
    (17, -1.0, 0.1, 0.0, 1.0),
]  # fmt: skip


def _at(ab, rt, tv=0):
    ab, rt = np.broadcast_arrays(np.asarray(ab, dtype=float), np.asarray(rt, dtype=float))
    ab, rt = ab.ravel(), rt.ravel()
    return Coordinates(np.full(len(ab), 0.5), ab, rt, np.full(len(ab), tv))


def _by_table(ab, rt):
    for segment, low, high, start, stop in TABLE:
        if low < ab <= high and start <= rt < stop:
            return segment
    raise AssertionError((ab, rt))


def test_segments_are_those_of_the_table_everywhere():
    random = np.random.default_rng(3)
    ab, rt = random.uniform(0, 1, 4000), random.uniform(0, 1, 4000)
    expected = [_by_table(*pair) for pair in zip(ab, rt, strict=True)]
    np.testing.assert_array_equal(aha_segments(_at(ab, rt)), expected)
    np.testing.assert_array_equal(aha_segments(_at(ab, rt, tv=1)), np.array(expected) + 17)


@pytest.mark.parametrize(("segment", "low", "high", "start", "stop"), TABLE)
def test_limits_of_a_segment_belong_to_it_as_the_table_says(segment, low, high, start, stop):
    inside = 0.5 * (max(low, 0.0) + high)
    assert aha_segments(_at(inside, start))[0] == segment
    assert aha_segments(_at(inside, np.nextafter(stop, 0.0)))[0] == segment
    assert aha_segments(_at(high, start))[0] == segment
    if low > 0:
        assert aha_segments(_at(low, start))[0] != segment
        assert aha_segments(_at(np.nextafter(low, 1.0), start))[0] == segment


def test_a_whole_turn_is_the_inferior_wall_again():
    np.testing.assert_array_equal(aha_segments(_at([0.8, 0.5, 0.2], 1.0)), [4, 10, 15])


def test_segments_of_a_heart_lie_where_their_names_say():
    """The demo heart has its front towards -y, its RV towards -x and its base at z = 0."""
    mesh = demo_heart().mesh
    label = aha_segments(coordinates(mesh))
    assert set(label.tolist()) == set(range(1, 35))
    centre = np.stack([mesh.points[label == s].mean(axis=0) for s in range(1, 18)])
    side = {"anterior": (1, -1), "inferior": (1, 1), "lateral": (0, 1), "septal": (0, -1)}
    for number, name in enumerate(SEGMENTS[:16]):
        ring = [k for k, other in enumerate(SEGMENTS) if other.split()[0] == name.split()[0]]
        middle = centre[ring].mean(axis=0)
        for word, (axis, sign) in side.items():
            if name.endswith(word) and word in name.split()[1]:
                assert sign * (centre[number] - middle)[axis] > 5.0, name
    heights = [centre[a:b, 2].mean() for a, b in ((0, 6), (6, 12), (12, 16), (16, 17))]
    assert np.diff(heights).max() < -5.0
