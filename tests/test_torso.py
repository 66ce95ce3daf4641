"""A heart in its torso: template body, axes of a body, the tagged mesh, and what is refused."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from twinheart.anatomy import demo_heart
from twinheart.anatomy.body import (
    BodyFrame,
    axes_of,
    body_frame,
    lay_around,
    nearest_on_skin,
    skin_along,
    template_body,
)
from twinheart.anatomy.frame import heart_frame
from twinheart.anatomy.torso import (
    CONDUCTIVITY,
    TorsoRegion,
    check_heart_inside,
    describe_torso,
    skin_nodes,
    template_lungs,
    torso_mesh,
)
from twinheart.ecg import place_electrodes
from twinheart.errors import InputError, MeshError
from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.closed import closed_surface
from twinheart.mesh.io import read_mesh
from twinheart.mesh.quality import boundary_triangles, components, enclosed_volume, volumes

TURN = Rotation.from_euler("xyz", [0.7, -1.2, 2.0]).as_matrix()
# A surface of 15-mm triangles tells its plane of symmetry and its long axis to about this much.
DEGREES = 4.0


@pytest.fixture(scope="module")
def heart() -> TetMesh:
    return demo_heart().mesh


@pytest.fixture(scope="module")
def body(heart):
    return template_body(heart)


@pytest.fixture(scope="module")
def torso(heart, body):
    """A coarse torso: 5 mm in the heart, 25 mm outside."""
    skin, frame = body
    places = place_electrodes(skin, frame).positions
    lungs = [template_lungs(frame, skin, heart)]
    return torso_mesh(heart, skin, edge=25.0, heart_edge=5.0, electrodes=places, lungs=lungs)


def moved(mesh, turn=None, shift=(0.0, 0.0, 0.0)):
    """The same mesh elsewhere."""
    points = (mesh.points if turn is None else mesh.points @ turn.T) + np.asarray(shift)
    if isinstance(mesh, TetMesh):
        return TetMesh(points, mesh.tets, mesh.point_fields, mesh.cell_fields)
    return TriMesh(points, mesh.triangles)


def angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Angles [degrees] between corresponding rows."""
    return np.degrees(np.arccos(np.clip((first * second).sum(axis=1), -1, 1)))


# template body


@pytest.mark.parametrize(
    ("width", "depth", "height"),
    [(300.0, 222.0, 500.0), (420.0, 300.0, 560.0), (170.0, 140.0, 250.0)],
)
def test_landmarks_are_reproduced_exactly(heart, width, depth, height):
    at = (10.0, 5.0, -20.0)
    skin, frame = template_body(heart, width=width, depth=depth, height=height, heart_at=at)
    inside = frame.to_body(skin.points)
    chest = inside[np.abs(inside[:, 2]) < 1e-6]
    assert np.ptp(chest[:, 0]) == pytest.approx(width, abs=1e-9)
    assert np.ptp(chest[:, 1]) == pytest.approx(depth, abs=1e-9)
    assert np.ptp(inside[:, 2]) == pytest.approx(height, abs=1e-9)
    centre = heart_frame(heart).centre
    assert frame.to_body(centre[None])[0] == pytest.approx(at, abs=1e-9)
    ends = [skin_along(skin, frame.centre, sign * frame.axes[0]) for sign in (1, -1)]
    assert np.linalg.norm(ends[0] - ends[1]) == pytest.approx(width, rel=1e-9)


def test_template_is_closed_smooth_and_of_a_plausible_volume(body):
    skin, _ = body
    same, said = closed_surface(skin)
    assert said == ()
    assert np.array_equal(same.triangles, skin.triangles)
    # a trunk without head, arms and legs is about a third of 75 kg
    assert 18e6 < enclosed_volume(skin.points, skin.triangles) < 32e6
    normals = np.cross(*(np.diff(skin.points[skin.triangles], axis=1).transpose(1, 0, 2)))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    pairs, owner = {}, np.repeat(np.arange(skin.n_triangles), 3)
    sides = np.sort(skin.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    for side, triangle in zip(map(tuple, sides.tolist()), owner.tolist(), strict=True):
        pairs.setdefault(side, []).append(triangle)
    first, second = np.array(list(pairs.values())).T
    turn = angles(normals[first], normals[second])
    level = skin.points[skin.triangles].mean(axis=1)
    head = (level - skin.points.mean(axis=0)) @ body[1].axes[2]
    trunk = np.abs(head[first]) < 150
    assert turn[trunk].max() < 20.0


def test_template_turns_with_the_heart(heart, body):
    shift = np.array([30.0, -200.0, 75.0])
    skin, frame = template_body(moved(heart, TURN, shift))
    # the facets of the heart's convex hull may be cut differently: to the grain of the mesh
    assert np.abs(skin.points - (body[0].points @ TURN.T + shift)).max() < 1.0
    assert angles(frame.axes, body[1].axes @ TURN.T).max() < 0.2


@pytest.mark.parametrize("landmark", [{"width": 20.0}, {"depth": 9e3}, {"height": float("nan")}])
def test_impossible_landmarks_are_refused(heart, landmark):
    with pytest.raises(InputError, match=next(iter(landmark))):
        template_body(heart, **landmark)


def test_a_heart_position_that_is_none_is_refused(heart):
    with pytest.raises(InputError, match="three numbers"):
        template_body(heart, heart_at=(1.0, np.inf, 0.0))


# axes of a body


@pytest.mark.parametrize("axis", range(3))
def test_body_is_found_from_its_shape_though_the_heart_lies_askew(heart, body, axis):
    skin, frame = body
    centre = heart_frame(heart).centre
    askew = Rotation.from_rotvec(np.radians(15.0) * np.eye(3)[axis]).as_matrix()
    lying = moved(moved(heart, shift=-centre), askew, centre)
    found = body_frame(skin, lying)
    assert angles(found.axes, frame.axes).max() < DEGREES
    assert found.width == pytest.approx(frame.width, rel=0.02)
    assert found.depth == pytest.approx(frame.depth, rel=0.02)
    assert np.abs(frame.to_body(found.centre[None])).max() < 6.0


def test_axes_of_a_real_torso_surface(data, heart):
    tank = closed_surface(read_mesh(data / "torso_tank" / "torso_surface.vtp")[0])[0]
    skin, laid = lay_around(tank, heart, orientation="RAS", heart_at=(15.0, 15.0, -30.0))
    found = body_frame(skin, heart)
    assert angles(found.axes, laid.axes).max() < 1.5 * DEGREES
    assert found.width == pytest.approx(laid.width, rel=0.1)
    turned = body_frame(moved(skin, TURN), moved(heart, TURN))
    assert angles(turned.axes, found.axes @ TURN.T).max() < 1.0


def test_letters_give_the_axes(heart):
    left, front, head = axes_of("LPS")
    assert left.tolist() == [1, 0, 0]
    assert front.tolist() == [0, -1, 0]
    assert head.tolist() == [0, 0, 1]
    assert axes_of("ial").tolist() == [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]
    for wrong in ("LL", "LPSS", "LPX", "LRS", ""):
        with pytest.raises(InputError, match="such as LPS"):
            axes_of(wrong)


def test_body_positions_there_and_back():
    frame = BodyFrame(np.array([1.0, 2.0, 3.0]), axes_of("RAS") @ TURN.T, 300.0, 200.0)
    points = np.random.default_rng(0).normal(size=(20, 3))
    assert np.abs(frame.from_body(frame.to_body(points)) - points).max() < 1e-12


def test_a_point_lifted_off_a_facet_comes_back(body):
    skin, _ = body
    corners = skin.points[skin.triangles[::101]]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    inside = corners.mean(axis=1)
    assert np.abs(nearest_on_skin(skin, inside + 0.5 * normal) - inside).max() < 1e-9


# heart in the body


def test_heart_outside_is_refused_and_says_by_how_much(heart, body):
    skin, frame = body
    away = moved(heart, shift=1000.0 * frame.axes[0])
    gap = (frame.to_body(away.points)[:, 0]).min() - frame.to_body(skin.points)[:, 0].max()
    with pytest.raises(MeshError, match="lies outside the torso: its nearest node is") as caught:
        check_heart_inside(away, skin)
    said = float(str(caught.value).split("nearest node is ")[1].split(" mm")[0])
    assert abs(said - gap) < 0.1 * gap


def test_torso_too_small_is_refused(heart):
    skin, _ = template_body(heart, width=110.0, depth=90.0, height=200.0)
    with pytest.raises(MeshError, match=r"reaches [\d.]+ mm out of the torso.*too small"):
        torso_mesh(heart, skin)


def test_heart_that_touches_the_skin_is_refused(heart, body):
    skin, frame = body
    cover = check_heart_inside(heart, skin)
    front = skin_along(skin, heart_frame(heart).centre, frame.axes[1])
    assert 5.0 < cover < np.linalg.norm(front - heart_frame(heart).centre)
    near = heart
    for _ in range(4):  # towards the skin until 1 mm is left
        near = moved(near, shift=(check_heart_inside_or(near, skin) - 1.0) * frame.axes[1])
    with pytest.raises(MeshError, match="lie between heart and skin"):
        check_heart_inside(near, skin)


def check_heart_inside_or(heart, skin, small: float = 1.0) -> float:
    """Cover of the heart, or a small number where it is refused."""
    try:
        return check_heart_inside(heart, skin)
    except MeshError:
        return small


@pytest.mark.parametrize("edges", [(10.0, 0.0), (3.0, 5.0), (float("inf"), 3.0)])
def test_edges_that_make_no_sense_are_refused(heart, body, edges):
    with pytest.raises(MeshError, match="mean edges are"):
        torso_mesh(heart, body[0], edge=edges[0], heart_edge=edges[1])


# the mesh


def test_mesh_is_sound(torso, heart, body):
    figures = describe_torso(torso, heart)
    assert figures["n_components"] == 1
    assert figures["min_dihedral_deg"] >= 8.0
    volume = volumes(torso.points, torso.tets)
    assert volume.min() > 0
    skin = body[0]
    assert volume.sum() == pytest.approx(enclosed_volume(skin.points, skin.triangles), rel=0.01)
    boundary = boundary_triangles(torso.tets)
    assert enclosed_volume(torso.points, boundary) == pytest.approx(volume.sum(), rel=1e-9)
    _, said = closed_surface(TriMesh(torso.points, boundary))
    assert said == ()


def test_regions_have_their_volumes(torso, heart, body):
    ml = describe_torso(torso, heart)["volume_ml"]
    assert set(ml) == {"torso", "lungs", "blood", "heart"}
    assert ml["heart"] == pytest.approx(1e-3 * volumes(heart.points, heart.tets).sum(), rel=0.02)
    # the cavities of the demo heart, from its implicit description (`BiventricularShape`)
    assert ml["blood"] == pytest.approx(118 + 118, rel=0.05)
    assert 2000 < ml["lungs"] < 5000
    assert sum(ml.values()) == pytest.approx(1e-3 * volumes(torso.points, torso.tets).sum())


def test_heart_region_follows_the_surface_of_the_heart(torso, heart):
    figures = describe_torso(torso, heart)
    assert abs(figures["heart_volume_error_percent"]) < 2.0
    assert figures["heart_surface_error_mm"] < 0.25 * 5.0
    own = torso.tets[torso.cell_fields["region"] == TorsoRegion.HEART]
    assert components(own, torso.n_nodes)[own].max() == 0


def test_blood_lies_in_the_cavities_and_lungs_beside_the_heart(torso, heart, body):
    _, frame = body
    centres = torso.points[torso.tets].mean(axis=1)
    region = torso.cell_fields["region"]
    ventricles = heart_frame(heart)
    lv = heart.points[heart.point_fields["surf_class"] == 3].mean(axis=0)
    nearest = np.linalg.norm(centres - lv, axis=1).argmin()
    assert region[nearest] == TorsoRegion.BLOOD
    lungs = frame.to_body(centres[region == TorsoRegion.LUNGS])
    assert (np.abs(lungs[:, 0]) > 5.0).all()
    assert np.linalg.norm(frame.from_body(lungs) - ventricles.centre, axis=1).min() > 20.0


def test_electrodes_are_nodes_of_the_skin(torso, body):
    places = place_electrodes(*body).positions
    nodes, away = skin_nodes(torso, places)
    assert len(set(nodes.tolist())) == len(places)
    assert away.max() < 2.0
    assert np.median(away) < 0.5


def test_same_input_same_torso(heart, body):
    first, second = (torso_mesh(heart, body[0], edge=40.0, heart_edge=15.0) for _ in range(2))
    assert np.array_equal(first.points, second.points)
    assert np.array_equal(first.tets, second.tets)
    assert np.array_equal(first.cell_fields["region"], second.cell_fields["region"])


def test_every_region_has_a_conductivity_in_order():
    assert set(CONDUCTIVITY) == set(TorsoRegion)
    lungs, torso, heart, blood = (
        CONDUCTIVITY[tag]
        for tag in (TorsoRegion.LUNGS, TorsoRegion.TORSO, TorsoRegion.HEART, TorsoRegion.BLOOD)
    )
    assert 0 < lungs < torso < heart < blood


def test_a_heart_without_labels_has_no_blood(heart, body):
    bare = TetMesh(heart.points, heart.tets)
    mesh = torso_mesh(bare, body[0], edge=40.0, heart_edge=15.0)
    assert set(np.unique(mesh.cell_fields["region"])) == {TorsoRegion.TORSO, TorsoRegion.HEART}


@pytest.mark.slow
@pytest.mark.parametrize("file", ["biv_crt/heart.vtu", "biv_mean_shape/heart_tets.vtu"])
def test_real_hearts_in_the_default_body(data, file):
    heart = read_mesh(data / file)[0]
    skin, frame = template_body(heart)
    places = place_electrodes(skin, frame).positions
    mesh = torso_mesh(heart, skin, electrodes=places)
    figures = describe_torso(mesh, heart)
    assert figures["min_dihedral_deg"] >= 8.0
    assert figures["n_components"] == 1
    assert abs(figures["heart_volume_error_percent"]) < 1.0
    assert figures["heart_surface_error_mm"] < 0.25 * 3.0


@pytest.mark.slow
def test_a_real_heart_in_a_real_torso(data):
    heart = read_mesh(data / "biv_mean_shape" / "heart_tets.vtu")[0]
    tank = closed_surface(read_mesh(data / "torso_tank" / "torso_surface.vtp")[0])[0]
    skin, frame = lay_around(tank, heart, orientation="RAS")
    mesh = torso_mesh(heart, skin, electrodes=place_electrodes(skin, frame).positions)
    figures = describe_torso(mesh, heart)
    assert figures["min_dihedral_deg"] >= 8.0
    total = volumes(mesh.points, mesh.tets).sum()
    assert total == pytest.approx(enclosed_volume(skin.points, skin.triangles), rel=0.01)
