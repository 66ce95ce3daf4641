"""The Purkinje tree as anatomy: where it grows, that it is a tree, files, refusals."""

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components, dijkstra
from scipy.spatial import KDTree

import twinheart as th
from twinheart.anatomy.endocardium import Endocardium, Ground, endocardium
from twinheart.anatomy.purkinje import (
    SEGMENT,
    PurkinjeTree,
    grow_purkinje,
    read_purkinje,
    write_purkinje,
)
from twinheart.errors import InputError, MeshError
from twinheart.mesh import TetMesh
from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.io import write_mesh

LV, RV = SurfaceClass.LV_ENDOCARDIUM, SurfaceClass.RV_ENDOCARDIUM
TWIG = 10.0
# A step on the surface is as long as the chord of its projection.
STEP = (0.6 * SEGMENT, 1.2 * SEGMENT)
# Estimated and solved coordinates name a place of a 90 mm heart differently by less than a segment
# of the AHA scheme is wide (about 25 mm).
SAME_PLACE = 25.0


def surface_of(mesh, side) -> Endocardium:
    surface = endocardium(mesh, side)
    assert surface is not None
    return surface


@pytest.fixture(scope="module")
def mesh() -> TetMesh:
    return th.demo_heart().mesh


@pytest.fixture(scope="module")
def tree(mesh) -> PurkinjeTree:
    return grow_purkinje(mesh, twig_length=TWIG)


@pytest.fixture(scope="module")
def grounds(mesh) -> dict:
    return {side: Ground(surface_of(mesh, side)) for side in (LV, RV)}


def gap(ground: Ground, points) -> np.ndarray:
    return np.linalg.norm(ground.project(points)[0] - points, axis=1)


def test_it_is_one_tree(tree):
    assert len(tree.edges) == tree.n_nodes - 1  # with one component: no loops
    i, j = tree.edges.T
    graph = coo_matrix((np.ones(len(i)), (i, j)), shape=(tree.n_nodes,) * 2)
    assert connected_components(graph, directed=False)[0] == 1
    assert tree.roots.tolist() == [0]
    assert tree.lengths.min() > STEP[0]
    assert tree.lengths.max() < STEP[1]


def test_same_seed_same_tree(mesh, tree):
    again, other = (grow_purkinje(mesh, twig_length=TWIG, seed=seed) for seed in (0, 1))
    assert (again.points == tree.points).all()
    assert (again.edges == tree.edges).all()
    assert other.n_nodes != tree.n_nodes


def test_junctions_lie_on_both_endocardia_below_the_base(tree, grounds):
    ends = tree.points[tree.junctions]
    distance = np.stack([gap(ground, ends) for ground in grounds.values()])
    assert distance.min(axis=0).max() < 1e-9
    counts = np.bincount(distance.argmin(axis=0))
    assert counts.min() > 50
    for ground, mine in zip(grounds.values(), distance.argmin(axis=0) == [[0], [1]], strict=True):
        assert ground.height(ground.project(ends[mine])[1]).max() <= 0.9


def test_twigs_leave_no_hole(tree, grounds):
    ends = KDTree(tree.points[tree.junctions])
    for ground in grounds.values():
        surface = ground.surface
        distance = ends.query(surface.points[surface.ab < 0.85])[0]
        assert np.quantile(distance, 0.95) < 2 * TWIG


def test_bundles_are_anatomical(tree, grounds):
    """His bundle in the septum, three left fascicles, a moderator band through the RV cavity."""
    degree = np.bincount(tree.edges.ravel())
    assert degree[0] == 2  # left and right bundle
    assert degree.max() == 3  # forks are in two
    i, j = tree.edges.T
    graph = coo_matrix((tree.lengths, (i, j)), shape=(tree.n_nodes,) * 2)
    way = dijkstra(graph, directed=False, indices=0)
    left, nodes = grounds[LV].surface, KDTree(tree.points)
    for ab, rt in ((0.5, 0.52), (0.4, 0.80), (0.4, 0.10)):  # ends of the three fascicles
        distance, node = nodes.query(left.place(ab, rt))
        assert distance < 2.0
        assert way[node] < np.quantile(way[tree.junctions], 0.3)
    first = tree.points[tree.junctions[way[tree.junctions].argmin()]]
    turn = left.rt[KDTree(left.points).query(first)[1]]
    assert gap(grounds[LV], first[None])[0] < 0.5
    assert 2 / 3 < turn < 1  # the left side of the septum comes first
    early = tree.junctions[gap(grounds[RV], tree.points[tree.junctions]) < 0.5]
    early = early[way[early].argmin()]
    band_end = grounds[RV].surface.place(0.45, 0.43)
    assert np.linalg.norm(tree.points[early] - band_end) < 15.0  # there the right ventricle starts

    off = np.minimum(*(gap(ground, tree.points) for ground in grounds.values())) > 5.0
    assert off.sum() > 10  # the band, free in the cavity
    kept = ~(off[i] | off[j])
    cut = coo_matrix((np.ones(kept.sum()), (i[kept], j[kept])), shape=(tree.n_nodes,) * 2)
    reached = breadth_first_order(cut, 0, directed=False, return_predecessors=False)
    ends = tree.points[tree.junctions]
    right = grounds[RV].surface
    turn = right.rt[KDTree(right.points).query(ends)[1]]
    free_wall = (gap(grounds[RV], ends) < 0.5) & (turn > 0.1) & (turn < 0.55)
    still = np.isin(tree.junctions, reached)
    assert free_wall.sum() > 30
    assert still[free_wall].mean() < 0.3  # the free wall hangs on the band,
    assert still[gap(grounds[LV], ends) < 0.5].all()  # the left ventricle does not


def test_places_follow_the_heart_when_it_is_turned(mesh):
    turned, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    turned *= np.sign(np.linalg.det(turned))
    fields = {"surf_class": mesh.point_fields["surf_class"]}
    plain = TetMesh(mesh.points, mesh.tets, fields)
    other = TetMesh(mesh.points @ turned.T + [10.0, -20.0, 30.0], mesh.tets, fields)
    for side in (LV, RV):
        here, there = surface_of(plain, side), surface_of(other, side)
        for ab, rt in ((0.8, 0.83), (0.4, 0.1), (0.4, 0.5), (0.6, 0.35)):
            assert here.nodes[here.vertex(ab, rt)] == there.nodes[there.vertex(ab, rt)]


def test_estimated_places_are_near_those_by_coordinates(mesh):
    from twinheart.anatomy.coordinates import add_coordinates

    full = add_coordinates(mesh)
    for side in (LV, RV):
        rough, exact = surface_of(mesh, side), surface_of(full, side)
        for ab, rt in ((0.75, 0.83), (0.4, 0.1), (0.45, 0.5), (0.45, 0.33), (0.35, 0.75)):
            assert np.linalg.norm(rough.place(ab, rt) - exact.place(ab, rt)) < SAME_PLACE


def test_a_lone_left_ventricle_gets_a_tree():
    mesh = th.mesh.generate.lv_ellipsoid(edge=4.0)
    tree = grow_purkinje(mesh)
    assert gap(Ground(surface_of(mesh, LV)), tree.points).max() < 1e-9
    assert endocardium(mesh, RV) is None


def test_file_round_trip(tree, tmp_path):
    path = tmp_path / "tree.vtu"
    write_purkinje(path, tree)
    back = read_purkinje([path])
    assert (back.points == tree.points).all()
    assert (back.edges == tree.edges).all()
    assert [p.name for p in tmp_path.iterdir()] == ["tree.vtu"]


def test_given_trees_are_read(data):
    files = [data / "biv_crt" / f"purkinje_{side}.vtu" for side in ("lv", "rv")]
    tree = read_purkinje(files)
    assert tree.roots.tolist() == [0, 1141]
    assert tree.n_nodes == 1141 + 2002
    assert len(tree.edges) == tree.n_nodes - 2
    assert len(tree.junctions) == 90 + 157 - 2  # the ends, but for the two roots
    far = th.load_heart(data / "biv_crt" / "heart.vtu").mesh
    distance = KDTree(far.points).query(tree.points[tree.junctions])[0]
    assert distance.max() < 5.0  # edges of this mesh are 5 mm


def test_trees_that_are_none_are_refused(tmp_path, mesh):
    points = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    with pytest.raises(MeshError, match="connected to no root"):
        PurkinjeTree(points, np.array([[0, 1]]), np.array([0]))
    with pytest.raises(MeshError, match="roots over the nodes"):
        PurkinjeTree(points, np.array([[0, 1], [1, 2]]), np.array([7]))
    with pytest.raises(MeshError, match="unit, which must be mm"):
        PurkinjeTree(1000 * points, np.array([[0, 1], [1, 2]]), np.array([0]))
    with pytest.raises(MeshError, match="no numbers"):
        PurkinjeTree(points * np.nan, np.array([[0, 1], [1, 2]]), np.array([0]))
    write_mesh(tmp_path / "slab.vtu", th.mesh.generate.slab((2.0, 1.0, 1.0), 0.5))
    with pytest.raises(InputError, match="holds no line cells"):
        read_purkinje([tmp_path / "slab.vtu"])
    with pytest.raises(InputError, match="no such file"):
        read_purkinje([tmp_path / "none.vtu"])


def test_hearts_without_surfaces_are_refused(mesh):
    with pytest.raises(MeshError, match="surf_class"):
        grow_purkinje(th.mesh.generate.slab((4.0, 4.0, 4.0), 1.0))
    epicardium_only = {"surf_class": np.full(mesh.n_nodes, 2)}
    with pytest.raises(MeshError, match="LV endocardium"):
        grow_purkinje(TetMesh(mesh.points, mesh.tets, epicardium_only))
    with pytest.raises(InputError, match="twig_length"):
        grow_purkinje(mesh, twig_length=0.1)
    with pytest.raises(InputError, match="angle"):
        grow_purkinje(mesh, angle=-1.0)
