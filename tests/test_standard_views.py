"""AP, PA, LAO, RAO, LL, RL and apical: what is left, right, up and in front in each."""

import functools

import numpy as np
import pytest

from twinheart.anatomy.heart import Heart
from twinheart.errors import InputError
from twinheart.mesh import TetMesh
from twinheart.mesh.biventricle import BiventricularShape, biventricle
from twinheart.report.scene import Scene
from twinheart.report.standard_views import NAMES, standard_views, write_standard_views

LEFT, FRONT, HEAD = np.eye(3)


@functools.cache
def heart() -> Heart:
    return Heart(biventricle(6.0, BiventricularShape(lv_wall=14.0, apex_wall=14.0, rv_wall=12.0)))


@functools.cache
def scene() -> Scene:
    return Scene(heart())


def on_picture(direction, view) -> np.ndarray:
    """Right, up and towards the eye of a direction of the body, (3,)."""
    centre = scene().seen_from(np.zeros((1, 3)), view)[0]
    return (scene().seen_from(np.asarray(direction, float)[None], view)[0] - centre)[0]


def test_sides_are_where_a_physician_expects_them():
    """The patient's axes are those of the mesh here, so that all is known."""
    views = standard_views(scene(), patient=np.stack([LEFT, FRONT, HEAD]))
    # in these coordinates left, front and head are a left-handed triple: a mirror image of a body
    mirrored = np.linalg.det(np.stack([LEFT, FRONT, HEAD])) > 0
    sign = -1.0 if mirrored else 1.0
    for name in ("AP", "PA", "LAO", "RAO", "LL", "RL"):
        np.testing.assert_allclose(on_picture(HEAD, views[name]), [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(on_picture(FRONT, views["AP"]), [0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(on_picture(LEFT, views["AP"]), [sign, 0, 0], atol=1e-6)
    np.testing.assert_allclose(on_picture(LEFT, views["PA"]), [-sign, 0, 0], atol=1e-6)
    np.testing.assert_allclose(on_picture(LEFT, views["LL"]), [0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(on_picture(LEFT, views["RL"]), [0, 0, -1], atol=1e-6)


def test_a_body_that_is_no_mirror_image():
    """LPS coordinates: left is x, front is -y, head is z; in AP the left is on the right."""
    views = standard_views(scene(), patient=np.stack([LEFT, -FRONT, HEAD]))
    np.testing.assert_allclose(on_picture(LEFT, views["AP"]), [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(on_picture(-FRONT, views["LL"]), [-1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(on_picture(LEFT, views["LAO"])[2], np.sin(np.radians(45)))
    np.testing.assert_allclose(on_picture(LEFT, views["RAO"])[2], -np.sin(np.radians(30)))


def test_the_heart_lies_in_its_views_as_in_a_patient():
    """LAO: the septum is seen on edge, right ventricle left; RAO: in profile; apex to the eye."""
    views = standard_views(scene())
    frame = scene().frame
    lao, rao = on_picture(frame.rv, views["LAO"]), on_picture(frame.rv, views["RAO"])
    assert lao[0] < -0.5  # the right ventricle is on the left of the picture
    assert abs(rao[2]) > abs(lao[2])  # and in front of the left one in RAO
    apex = on_picture(-frame.base, views["RAO"])
    assert apex[0] > 0.3  # the apex points to the right
    assert apex[1] < 0  # and down
    np.testing.assert_allclose(on_picture(-frame.base, views["apical"]), [0, 0, 1], atol=1e-9)


def test_views_turn_with_the_heart():
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    mesh = heart().mesh
    moved = TetMesh(mesh.points @ turn.T + 9.0, mesh.tets, mesh.point_fields, mesh.cell_fields)
    one, two = scene(), Scene(Heart(moved))
    first, second = standard_views(one), standard_views(two)
    for name in NAMES:
        here, _ = one.seen_from(mesh.points, first[name])
        there, _ = two.seen_from(moved.points, second[name])
        np.testing.assert_allclose(here, there, atol=1e-3)


def test_what_is_in_front_hides_what_is_behind():
    mesh = heart().mesh
    views = standard_views(scene())
    at, _ = scene().seen_from(mesh.points, views["AP"])
    middle = np.abs(at[:, :2]).max(axis=1) < 8.0
    inner = np.flatnonzero(middle)
    front, back = inner[at[inner, 2].argmax()], inner[at[inner, 2].argmin()]
    ends = mesh.points[[front, back]]
    assert scene().hidden(ends, views["AP"], size=200, slack=2.0).tolist() == [False, True]
    assert scene().hidden(ends, views["PA"], size=200, slack=2.0).tolist() == [True, False]


def test_pictures_are_drawn_and_wrong_angles_refused(tmp_path):
    from matplotlib import colormaps
    from matplotlib.image import imread

    limits = np.linspace(-200.0, 200.0, 9)
    for view in standard_views(scene()).values():
        whole = scene().draw(
            heart().mesh.points[:, 2], view, colours=colormaps["viridis"], limits=limits, size=100
        )
        edge = np.concatenate([whole[0], whole[-1], whole[:, 0], whole[:, -1]])
        assert edge.min() == 255  # nothing is cut off
        assert whole.min() < 200
    values = heart().mesh.points[:, 2]
    path = write_standard_views(tmp_path / "v.png", scene(), values, title="Height", unit="mm")
    picture = imread(path)
    assert picture.shape[1] > 1000
    assert np.unique(picture[..., 0]).size > 50
    for wrong in ({"lao": 0.0}, {"rao": 95.0}, {"patient": np.ones((3, 3))}):
        with pytest.raises(InputError):
            standard_views(scene(), **wrong)
    with pytest.raises(InputError, match="one for each"):
        write_standard_views(tmp_path / "w.png", scene(), values[:9], title="Short")
