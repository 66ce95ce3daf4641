"""Closing the way of re-entry: through a gap, along a rim; what cannot be closed."""

import numpy as np
import pytest
from scipy.spatial import KDTree

from twinheart.anatomy.scar import with_scar
from twinheart.imaging.enhancement import BORDER, CORE
from twinheart.mesh.generate import slab
from twinheart.planning import ReentryCircuit
from twinheart.planning.ablation.closing_ways import close_way, is_closed
from twinheart.planning.ablation.reach import Catheter, KeepAway, Reach

RADIUS = 3.0


def plate(shape, size=(40.0, 24.0), **catheter):
    mesh = slab((*size, 1.0), 1.0)
    x, y, _ = mesh.points[mesh.tets].mean(axis=1).T
    scar = shape(x, y).astype(np.int32)
    return Reach(with_scar(mesh, scar), scar != CORE, Catheter(RADIUS, **catheter))


def around(reach, corners):
    """A way along the sides of a polygon on the grid, with its longest run in border zone."""
    legs = zip(corners, corners[1:] + corners[:1], strict=True)
    points = np.concatenate([
        np.linspace(a, b, int(np.abs(np.subtract(b, a)).max()), endpoint=False) for a, b in legs
    ])  # fmt: skip
    path = np.column_stack([points, np.zeros(len(points))])
    far, nodes = KDTree(reach.mesh.points).query(path)
    assert far.max() < 1e-9
    healthy = np.zeros(reach.mesh.n_nodes, dtype=bool)
    healthy[reach.mesh.tets[reach.living & (reach.mesh.cell_fields["scar"] != BORDER)]] = True
    isthmus = np.flatnonzero(~healthy[nodes])
    lat = np.arange(len(nodes), dtype=float)
    return ReentryCircuit(nodes, path, lat, lat[-1] + 1, lat[-1] + 1, isthmus, None, None)


def rim(x, y):
    return np.where(y < 3, BORDER, 0)


def test_there_and_back_along_a_rim_is_cut_across_in_the_border_zone():
    """Nothing narrows such a way; one lesion across the rim is less than the rim along it."""
    reach = plate(rim)
    way = around(reach, [(8.0, 1.0), (32.0, 1.0), (32.0, 5.0), (8.0, 5.0)])
    found = close_way(reach, (), way)
    assert found is not None
    assert is_closed(reach, way, found.burnt)
    assert len(found.lesions) == 1
    x, y, _ = found.lesions[0].points[0]
    assert 12 < x < 28
    assert y < 3
    # the whole rim there is gone
    across = np.abs(reach.centres[:, 0] - x) < 1
    assert found.burnt[across & (reach.centres[:, 1] < 3)].all()


def test_of_two_ways_round_the_narrower_is_closed():
    """A core nearer to one border than to the other: the way between them, wherever it runs."""
    reach = plate(lambda x, y: np.where((np.abs(x - 20) < 8) & (np.abs(y - 9) < 5), CORE, 0))
    way = around(reach, [(8.0, 2.0), (32.0, 2.0), (32.0, 18.0), (8.0, 18.0)])
    found = close_way(reach, (), way)
    assert found is not None
    assert is_closed(reach, way, found.burnt)
    assert len(found.lesions) == 1  # 4 mm below, 10 mm above
    assert found.lesions[0].points[0, 1] < 5
    # closed once, it is so for good, and what else is burnt does not matter
    assert not is_closed(reach, way, reach.centres[:, 1] > 20)


@pytest.mark.parametrize("shape", [rim, lambda x, y: np.zeros(len(x))])
def test_what_cannot_be_burnt_or_is_nowhere_narrow_is_left(shape):
    vessel = KeepAway("a coronary artery", [[x, 0.0, 0.0] for x in np.arange(0.0, 41.0, 5)], 7.0)
    reach = plate(shape, keep_away=[vessel])
    assert (
        close_way(reach, (), around(reach, [(8.0, 1.0), (32.0, 1.0), (32.0, 5.0), (8.0, 5.0)]))
        is None
    )
