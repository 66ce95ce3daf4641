"""Ablation: volumes by geometry, depth, blocks of conduction, what is cut off, what is refused."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from twinheart.anatomy import Coordinates, Heart, add_coordinates, demo_heart, mesh_of_heart
from twinheart.anatomy.transfer import places_of_coordinates
from twinheart.cell import get_model
from twinheart.errors import InputError, MeshError
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import slab
from twinheart.mesh.quality import components, volumes
from twinheart.planning import Lesion, ablate_tissue, ablated, isolation
from twinheart.planning.ablation.lesions import Ablation
from twinheart.tissue import Sites, Velocities, arrival, build_eikonal

HEIGHT = 10.0  # of the slab, mm
INF = np.inf


@pytest.fixture(scope="module")
def block():
    return slab((40.0, 30.0, HEIGHT), 1.0)


@pytest.fixture(scope="module")
def demo():
    return add_coordinates(mesh_of_heart(demo_heart()))


def places(mesh, tm, ab, rt, tv):
    shape = np.broadcast_shapes(np.shape(ab), np.shape(rt))
    at = [np.broadcast_to(np.asarray(v, dtype=float), shape).ravel().copy() for v in (tm, ab, rt)]
    named = Coordinates(*at, np.full(at[0].shape, tv))
    return places_of_coordinates(mesh, named).of_nodes(mesh.points)


def ml(mesh, lesion):
    return ablate_tissue(mesh, [lesion]).volume_ml


@pytest.mark.parametrize(
    ("points", "radius", "depth", "mm3"),
    [
        ([[20, 15, 5]], 4.0, None, 4 / 3 * np.pi * 4**3),  # a ball
        ([[20, 15, HEIGHT]], 4.0, None, 2 / 3 * np.pi * 4**3),  # half of it is in the muscle
        ([[12, 15, 5], [28, 15, 5]], 3.0, None, np.pi * 9 * (16 + 4)),  # a tube with round ends
        ([[20, 15, HEIGHT]], 5.0, 4.0, 2 / 3 * np.pi * 25 * 4),  # half an ellipsoid
        ([[20, 15, 0]], 4.0, 6.0, 2 / 3 * np.pi * 16 * 6),  # from below
        ([[20, 15, HEIGHT]], 4.0, INF, np.pi * 16 * HEIGHT),  # a cylinder
        ([[20, 15, HEIGHT + 2]], 4.0, INF, np.pi * 16 * HEIGHT),  # the catheter off the surface
        (
            [[12, 15, HEIGHT], [28, 15, HEIGHT]],
            4.0,
            5.0,
            np.pi / 2 * 4 * 5 * 16 + 2 / 3 * np.pi * 16 * 5,
        ),
        ([[12, 15, HEIGHT], [28, 15, HEIGHT]], 3.0, INF, (16 * 6 + np.pi * 9) * HEIGHT),
    ],
)
def test_volumes_are_those_of_the_bodies(block, points, radius, depth, mm3):
    assert ml(block, Lesion(points, radius, depth)) * 1000 == pytest.approx(mm3, rel=0.06)


def test_share_of_the_wall(block):
    """On the axis an ellipsoid reaches its depth; what is told is a mean over half its radius."""
    top = [[20.0, 15.0, HEIGHT]]
    depths = (2.0, 5.0, 8.0, 30.0, INF)
    burnt = [ablate_tissue(block, [Lesion(top, 8.0, depth)]).transmurality[0] for depth in depths]
    assert burnt[:3] == pytest.approx([0.2, 0.5, 0.8], abs=0.06)
    assert burnt[3:] == [1.0, 1.0]
    # a path is as good as its worst place
    wedge = TetMesh(
        np.column_stack(
            [block.points[:, :2], block.points[:, 2] * (0.4 + 0.015 * block.points[:, 0])]
        ),
        block.tets,
    )  # 4 mm thick at one end, 10 at the other
    path = Lesion([[2.0, 15.0, 0.0], [38.0, 15.0, 0.0]], 6.0, 5.0)
    thin, thick = (Lesion([point], 6.0, 5.0) for point in path.points)
    whole, thin, thick = ablate_tissue(wedge, [path, thin, thick]).transmurality
    assert thin > 0.98
    assert whole == pytest.approx(thick, abs=0.05)
    assert thick == pytest.approx(0.5, abs=0.1)


def test_lesions_are_numbered_and_overlap_counts_once(block):
    pair = [Lesion([[x, 15.0, 5.0]], 4.0) for x in (18.0, 21.0)]
    found = ablate_tissue(block, pair)
    assert set(np.unique(found.number)) == {0, 1, 2}
    assert found.lesion_ml == pytest.approx([ml(block, lesion) for lesion in pair])
    assert found.volume_ml < found.lesion_ml.sum() - 0.1
    whole = np.abs(volumes(block.points, block.tets[found.number > 0])).sum() / 1000
    assert found.volume_ml == pytest.approx(whole)


def test_volumes_do_not_depend_on_place_and_numbering(demo):
    site = places(demo, 0.0, 0.5, np.linspace(0.2, 0.4, 5), 0)
    turn = Rotation.from_rotvec([0.4, -1.1, 0.3]).as_matrix()
    order = np.random.default_rng(0).permutation(demo.n_tets)
    moved = TetMesh(demo.points @ turn.T + [5.0, 2.0, -9.0], demo.tets[order])
    for depth in (None, 4.0, INF):
        first = ablate_tissue(demo, [Lesion(site, 3.5, depth)])
        other = ablate_tissue(moved, [Lesion(site @ turn.T + [5.0, 2.0, -9.0], 3.5, depth)])
        assert (first.number[order] != other.number).sum() <= 2


def test_a_path_follows_the_wall_and_goes_through_it(demo):
    """Points 12 mm apart on the endocardium make one connected lesion through the whole wall."""
    sites = places(demo, 0.0, 0.5, np.linspace(0.1, 0.55, 5), 0)
    assert np.linalg.norm(np.diff(sites, axis=0), axis=1).min() > 10
    found = ablate_tissue(demo, [Lesion(sites, 4.0, INF)])
    assert found.transmurality[0] > 0.95
    burnt = demo.tets[found.number == 1]
    assert components(burnt, demo.n_nodes)[burnt].max() == 0
    tm = demo.point_fields["tm"]
    assert tm[burnt].min() == 0.0
    assert tm[burnt].max() == 1.0
    shallow = ablate_tissue(demo, [Lesion(sites, 4.0, 3.0)])
    assert shallow.transmurality[0] < 0.7
    assert shallow.volume_ml < 0.6 * found.volume_ml


def test_a_lesion_never_jumps_over_a_cavity(demo):
    """From the epicardium of the right ventricle, straight on lies the septum, 20 mm further."""
    (site,) = places(demo, 1.0, 0.6, [1 / 3], 1)
    found = ablate_tissue(demo, [Lesion(site, 4.0, INF)])
    burnt = np.unique(demo.tets[found.number == 1])
    assert demo.point_fields["tv"][burnt].min() == 1
    rt = np.arctan2(demo.point_fields["rt_sin"], demo.point_fields["rt_cos"])[burnt]
    assert (np.mod(rt / (2 * np.pi), 1) < 2 / 3).all()  # the free wall, nothing of the septum
    assert np.linalg.norm(demo.points[burnt] - site, axis=1).max() < 12


def line(gap):
    """Across the block, with or without a gap in the middle."""
    if not gap:
        return [Lesion([[20.0, 0.0, HEIGHT], [20.0, 30.0, HEIGHT]], 2.5, INF)]
    return [
        Lesion([[20.0, y, HEIGHT], [20.0, end, HEIGHT]], 2.5, INF)
        for y, end in ((0.0, 10.0), (20.0, 30.0))
    ]


@pytest.mark.parametrize("gap", [False, True])
def test_waves_stop_at_a_line_and_find_its_gap(block, gap):
    burnt = ablate_tissue(block, line(gap))
    heart = Heart(block)
    cell = get_model("mitchell-schaeffer")
    scarred, cells, tissues = ablated(heart, cell, Velocities(0.5, 0.5), burnt)
    assert set(cells) == set(tissues) == {0, 10_000}
    assert (scarred.mesh.cell_fields["lesion"] == burnt.number).all()
    site = Sites([[2.0, 1.0, 5.0]])
    lat = np.asarray(arrival(build_eikonal(scarred, tissues), site))
    beyond = block.points[:, 0] > 25
    plain = np.asarray(arrival(build_eikonal(heart, Velocities(0.5, 0.5)), site))
    if gap:  # the way to the far corner beside the line is longer round through the gap
        assert np.isfinite(lat[beyond]).all()
        corner = np.argmin(np.linalg.norm(block.points - [26.0, 1.0, 5.0], axis=1))
        assert lat[corner] > 1.2 * plain[corner]
        assert isolation(block, burnt).lost_ml == 0
    else:
        assert np.isinf(lat[beyond]).all()
        # 40 - 22.5 mm of the block are behind
        assert isolation(block, burnt).lost_ml == pytest.approx(17.5 * 30 * HEIGHT / 1000, rel=0.05)
    assert np.isfinite(lat[block.points[:, 0] < 15]).all()


def test_a_path_that_ends_on_the_rim_stays_on_its_side():
    """At the edge of a slab top and side are equally near: the path decides."""
    mesh = slab((30.0, 10.0, 3.0), 1.0)
    for z in (0.0, 3.0):
        across = Lesion([[10.0, 0.0, z], [10.0, 10.0, z]], 2.0, INF)
        found = isolation(mesh, ablate_tissue(mesh, [across]))
        assert found.n_parts == 2
        assert found.lost_ml == pytest.approx(8 * 10 * 3 / 1000, rel=0.1)


def rv_cut_off(mesh, leave):
    """All tetrahedra that join the ventricles burnt, except so many."""
    tv = mesh.point_fields["tv"][mesh.tets]
    both = np.flatnonzero(tv.min(axis=1) != tv.max(axis=1))
    number = np.zeros(mesh.n_tets, dtype=np.int32)
    number[both[leave:]] = 1
    return Ablation(number, 1.0, np.ones(1), np.ones(1))


def test_a_chamber_that_is_cut_off_is_told(demo):
    found = isolation(demo, rv_cut_off(demo, 0))
    assert found.chambers == ("right ventricle",)
    assert "isolates the right ventricle" in found.warning
    volume = np.abs(volumes(demo.points, demo.tets))
    right = volume[(demo.point_fields["tv"][demo.tets] == 1).all(axis=1)].sum() / 1000
    assert found.lost_ml == pytest.approx(right, rel=0.01)
    # one tetrahedron that conducts is a way through
    bridged = isolation(demo, rv_cut_off(demo, 1))
    assert bridged.chambers == ()
    assert bridged.warning is None
    assert bridged.lost_ml < 0.1 * found.lost_ml


def test_scar_counts_as_a_wall_and_what_it_had_cut_off_is_not_lost(block):
    x = block.points[block.tets].mean(axis=1)[:, 0]
    scar = np.where(np.abs(x - 20) < 2.5, 2, 0).astype(np.int32)
    bridge = block.points[block.tets].mean(axis=1)[:, 1] < 5
    nothing = Ablation(np.zeros(block.n_tets, dtype=np.int32), 0.0, np.ones(0), np.ones(0))
    closed = TetMesh(block.points, block.tets, {}, {"scar": scar})
    assert isolation(closed, nothing).n_parts == 2
    assert isolation(closed, nothing).lost_ml == 0  # it was cut off before
    channel = TetMesh(block.points, block.tets, {}, {"scar": np.where(bridge, 0, scar)})
    across = ablate_tissue(channel, [Lesion([[20.0, 2.0, HEIGHT]], 8.0, INF)])
    sides = (x > 20).astype(np.int32)
    names = {0: "near side", 1: "far side"}
    found = isolation(channel, across, chamber=sides, names=names)
    assert found.lost_ml > 4
    assert len(found.chambers) == 1
    assert isolation(channel, nothing, chamber=sides, names=names).chambers == ()


def test_a_chamber_burnt_as_a_whole_is_lost(block):
    sides = (block.points[block.tets].mean(axis=1)[:, 0] > 20).astype(np.int32)
    burnt = Ablation(sides, 6.0, np.ones(1), np.ones(1))
    assert isolation(block, burnt, chamber=sides).chambers == ("chamber 1",)


@pytest.mark.parametrize(
    ("lesion", "said"),
    [
        (Lesion([[20, 15, 60]], 4.0), r"outside the heart: \(20.0, 15.0, 60.0\) mm is 50"),
        (Lesion([[20, 15, 60]], 4.0, 3.0), "lesion 1 lies outside the heart"),
        (Lesion([[20, 15, 10], [20, 80, 10]], 4.0, INF), "is 50.0 mm away from the muscle"),
        (Lesion([[20, 15, 0], [20, 15, 10]], 2.0, 3.0), "all on one side of the wall"),
        (Lesion([[20.5, 15.5, 5.0]], 0.01), "take a finer mesh"),
    ],
)
def test_lesions_that_cannot_be_are_refused(block, lesion, said):
    with pytest.raises(InputError, match=said):
        ablate_tissue(block, [lesion])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([[0, 0, np.nan]], 3.0), "expected finite"),
        (([[0, 0]], 3.0), "expected finite"),
        (([[0, 0, 0]], 0.0), "radius of 0.0 mm"),
        (([[0, 0, 0]], np.nan), "radius of nan mm"),
        (([[0, 0, 0]], 3.0, -1.0), "depth of -1.0 mm"),
        (([[0, 0, 0]], 3.0, np.nan), "depth of nan mm"),
    ],
)
def test_numbers_that_are_none_are_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        Lesion(*arguments)


def test_lesions_of_another_heart_are_refused(block):
    other = Heart(slab((4.0, 4.0, 4.0), 1.0))
    burnt = ablate_tissue(block, line(False))
    with pytest.raises(MeshError, match="place them on this heart"):
        ablated(other, get_model("mitchell-schaeffer"), Velocities(0.5, 0.5), burnt)
