"""Electrode files, names and standard positions."""

import json

import numpy as np
import pytest
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from twinheart.anatomy import Heart
from twinheart.anatomy.body import BodyFrame, nearest_on_skin, template_body
from twinheart.anatomy.frame import heart_frame
from twinheart.ecg import (
    Electrodes,
    move_electrodes,
    on_skin,
    place_electrodes,
    read_electrodes,
    standard_12_lead,
)
from twinheart.ecg.electrodes import STANDARD
from twinheart.errors import InputError, MeshError
from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.generate import slab

NINE = {name: [10.0 * i, -20.0, 30.5] for i, name in enumerate(STANDARD)}


def write(folder, text: str, name: str):
    file = folder / name
    file.write_text(text)
    return file


def write_json(folder, electrodes, **rest):
    return write(folder, json.dumps({**rest, "electrodes": electrodes}), "electrodes.json")


def bowl(turn=None, thick: float = 10.0, thin: float = 4.0) -> TetMesh:
    """Half a shell, open towards +z, its wall thin on the side of +x."""
    mesh = slab((96.0, 96.0, 48.0), 4.0)
    points = mesh.points - [48.0, 48.0, 48.0]
    middle = points[mesh.tets].mean(axis=1)
    radius = np.linalg.norm(middle, axis=1)
    wall = np.where(middle[:, 0] > 0, thin, thick) + 4.0
    tets = mesh.tets[(radius < 47.0) & (radius > 47.0 - wall)]
    turn = np.eye(3) if turn is None else turn
    return TetMesh(points @ turn.T, tets)


@pytest.mark.parametrize(("unit", "factor"), [("um", 1e-3), ("mm", 1.0), ("cm", 10.0), ("m", 1e3)])
def test_json_unit_is_honoured(tmp_path, unit, factor):
    electrodes = read_electrodes(write_json(tmp_path, NINE, units=unit))
    assert electrodes.names == STANDARD
    assert np.allclose(electrodes.positions, factor * np.array(list(NINE.values())))


def test_json_without_the_outer_mapping_is_in_millimetres(tmp_path):
    electrodes = read_electrodes(write(tmp_path, json.dumps(NINE), "e.json"))
    assert np.allclose(electrodes.positions, list(NINE.values()))


@pytest.mark.parametrize("header", ["", "name,x,y,z,unit\n", "# remark\nName, X, Y, Z\n"])
def test_csv_with_and_without_header_and_unit(tmp_path, header):
    rows = "".join(f"{n},{x},{y},{z}\n" for n, (x, y, z) in list(NINE.items())[:-1])
    last = "v6,8.0,-2.0,3.05,cm\n"
    electrodes = read_electrodes(write(tmp_path, header + rows + last, "e.csv"))
    assert np.allclose(electrodes.positions, list(NINE.values()))


def test_names_are_case_insensitive_and_aliases_are_understood(tmp_path):
    iec = ["r", "L", "lf", "c1", "C2", "v3", "C4", "V5", "v6", "N"]
    electrodes = {name: [float(i), 0.0, 0.0] for i, name in enumerate(iec)}
    assert read_electrodes(write_json(tmp_path, electrodes)).names == (*STANDARD, "RL")


def test_real_electrode_file(data):
    electrodes = read_electrodes(data / "biv_crt" / "electrodes.json")
    assert set(electrodes.names) == set(STANDARD)
    right, left = (electrodes.positions[electrodes.names.index(n)] for n in ("RA", "LA"))
    assert left[0] - right[0] > 300  # mm, shoulder to shoulder


def test_missing_electrodes_are_named(tmp_path):
    some = {name: NINE[name] for name in STANDARD if name not in ("V4", "LL")}
    file = write_json(tmp_path, some)
    with pytest.raises(InputError, match="lacks LL, V4"):
        read_electrodes(file)
    assert len(read_electrodes(file, required=("RA", "LA")).names) == 7


@pytest.mark.parametrize(
    "text",
    [
        '{"electrodes": {"V1": [1, 2, 3], "V1": [4, 5, 6]}}',
        '{"electrodes": {"V1": [1, 2, 3], "c1": [4, 5, 6]}}',
        '{"V1": [1, 2, 3], "v1": [4, 5, 6]}',
    ],
)
def test_an_electrode_given_twice_is_refused(tmp_path, text):
    with pytest.raises(InputError, match="V1 is given more than once"):
        read_electrodes(write(tmp_path, text, "e.json"), required=())


def test_an_electrode_given_twice_in_csv_is_refused(tmp_path):
    with pytest.raises(InputError, match="LL is given more than once"):
        read_electrodes(write(tmp_path, "LL,1,2,3\nF,1,2,3\n", "e.csv"), required=())


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("{", "e.json", "not valid JSON"),
        ("[1, 2]", "e.json", "expected"),
        ('{"electrodes": {"V1": [1, 2]}}', "e.json", "three numbers"),
        ('{"electrodes": {"V1": "abc"}}', "e.json", "three numbers"),
        ('{"electrodes": {"V1": null}}', "e.json", "three numbers"),
        ('{"electrodes": {"V1": [1, 2, NaN]}}', "e.json", "V1 has a coordinate that is no number"),
        ('{"units": "inch", "electrodes": {"V1": [1, 2, 3]}}', "e.json", "unknown length unit"),
        ("{}", "e.json", "no electrodes"),
        ("[" * 100_000, "e.json", "not valid JSON"),
        ("V1,1,2\n", "e.csv", "3 columns"),
        ("V1,1,2,x\n", "e.csv", "three numbers"),
        ("", "e.csv", "no electrodes"),
    ],
)
def test_malformed_files_are_refused_with_a_clear_line(tmp_path, text, name, message):
    with pytest.raises(InputError, match=message) as caught:
        read_electrodes(write(tmp_path, text, name), required=())
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_electrodes(tmp_path / "absent.json")
    binary = tmp_path / "e.csv"
    binary.write_bytes(b"\xff\xfe\x00V1")
    with pytest.raises(InputError, match="not text"):
        read_electrodes(binary)
    with pytest.raises(InputError, match="larger than"):
        read_electrodes(write(tmp_path, "#" * 2_000_000, "large.csv"))


def test_positions_that_do_not_match_the_names_are_refused():
    with pytest.raises(InputError, match="expected"):
        Electrodes(("RA", "LA"), np.zeros((3, 3)))


def test_axes_of_a_bowl_turn_with_it():
    turn = Rotation.from_euler("xyz", [0.7, -0.3, 1.9]).as_matrix()
    for axes in (np.eye(3), turn):
        frame = heart_frame(bowl(axes))
        assert frame.base @ axes[:, 2] > np.cos(np.radians(3))
        assert frame.rv_known
        assert frame.rv @ axes[:, 0] > np.cos(np.radians(8))
        assert np.allclose(frame.anterior, np.cross(frame.base, frame.rv))


def test_a_lone_ventricle_has_no_right_side():
    assert not heart_frame(bowl(thick=8.0, thin=8.0)).rv_known


def test_axes_of_real_ventricles_agree_with_their_labels(data):
    import pyvista as pv

    grid = pv.read(data / "biv_mean_shape" / "heart_tets.vtu")
    label = np.asarray(grid["surf_class"])
    bare = heart_frame(TetMesh(grid.points, grid.cells_dict[10]))
    labelled = heart_frame(TetMesh(grid.points, grid.cells_dict[10], {"surf_class": label}))
    rim = grid.points[label == 1]
    plane = np.linalg.svd(rim - rim.mean(axis=0))[2][2]
    assert abs(bare.base @ plane) > np.cos(np.radians(5))
    assert bare.base @ (rim.mean(axis=0) - bare.centre) > 0
    assert bare.rv @ labelled.rv > np.cos(np.radians(10))


def test_axes_of_a_real_patient_agree_with_the_directions_of_the_electrodes(data):
    import pyvista as pv

    grid = pv.read(data / "biv_crt" / "heart.vtu")
    frame = heart_frame(TetMesh(grid.points, grid.cells_dict[10]))
    # the file is in patient coordinates: +x left, +y back, +z head
    left, front, head = frame.from_patient(np.eye(3))
    assert left @ [1, 0, 0] > 0.9
    assert front @ [0, -1, 0] > 0.9
    assert head @ [0, 0, 1] > 0.9


@pytest.mark.parametrize("scale", [0.2, 1.0, 4.0])
def test_standard_electrodes_lie_outside_hearts_of_every_size(scale):
    mesh = bowl()
    mesh = TetMesh(scale * mesh.points, mesh.tets)
    electrodes = standard_12_lead(Heart(mesh), margin=10.0)
    hull = ConvexHull(mesh.points[np.unique(mesh.tets)])
    beyond = electrodes.positions @ hull.equations[:, :3].T + hull.equations[:, 3]
    assert electrodes.names == STANDARD
    assert beyond.max(axis=1).min() >= 10.0 * (1 - 1e-9)


def test_standard_electrodes_turn_with_the_heart():
    turn = Rotation.from_euler("xyz", [-1.0, 0.5, 0.2]).as_matrix()
    still, turned = standard_12_lead(Heart(bowl())), standard_12_lead(Heart(bowl(turn)))
    # to the grain of the mesh: the convex hull has coplanar facets that may be cut differently
    assert np.abs(turned.positions - still.positions @ turn.T).max() < 1.0


def test_standard_electrodes_are_where_they_belong():
    mesh = bowl()
    frame = heart_frame(mesh)
    electrodes = standard_12_lead(Heart(mesh))
    left, front, head = frame.from_patient(np.eye(3))
    at = {
        name: position - frame.centre
        for name, position in zip(electrodes.names, electrodes.positions, strict=True)
    }
    assert at["RA"] @ left < 0 < at["LA"] @ left
    assert at["LL"] @ head < 0 < at["RA"] @ head
    chest = [at[f"V{i}"] for i in range(1, 7)]
    assert np.all(np.diff([p @ left for p in chest]) > 0)  # from the sternum to the left axilla
    assert all(p @ front > 0 for p in chest[:5])
    # V6 looks at the left ventricle, V1 at the right
    assert at["V1"] @ frame.rv > 0 > at["V6"] @ frame.rv


# on the skin of a body


@pytest.fixture(scope="module")
def body():
    return template_body(bowl(), width=330.0, depth=240.0)


def test_electrodes_follow_the_anatomical_rule(body):
    skin, frame = body
    electrodes = place_electrodes(skin, frame)
    assert electrodes.names == (*STANDARD, "RL")
    at = dict(zip(electrodes.names, frame.to_body(electrodes.positions), strict=True))
    left, front, head = range(3)
    # V1 and V2 mirror each other at the sternum, in the fourth intercostal space
    assert np.allclose(at["V1"] * [-1, 1, 1], at["V2"], atol=1e-6)
    assert at["V1"][head] == pytest.approx(0.0, abs=1e-6)
    # V4 in the fifth, in the mid-clavicular line; V5 and V6 level with it, V6 in the mid-axillary
    assert at["V5"][head] == pytest.approx(at["V4"][head])
    assert at["V6"][head] == pytest.approx(at["V4"][head])
    assert at["V4"][head] < -0.08 * frame.width
    assert 0.25 * frame.width < at["V4"][left] < 0.35 * frame.width
    assert at["V6"][front] == pytest.approx(0.0, abs=1e-6)
    assert at["V4"][left] < at["V5"][left] < at["V6"][left]
    # V3 midway between V2 and V4
    assert np.allclose(at["V3"][[0, 2]], (at["V2"] + at["V4"])[[0, 2]] / 2)
    assert at["RA"][left] < -100 < 100 < at["LA"][left]
    assert at["RA"][head] > 100
    assert at["LL"][head] < -150
    assert np.allclose(at["LL"] * [-1, 1, 1], at["RL"], atol=1e-6)


def test_electrodes_lie_on_the_skin(body):
    skin, frame = body
    positions = place_electrodes(skin, frame).positions
    assert np.abs(nearest_on_skin(skin, positions) - positions).max() < 1e-6


def test_placement_turns_with_the_body(body):
    skin, frame = body
    turn, shift = Rotation.from_euler("xyz", [1.0, 2.0, 3.0]).as_matrix(), np.array([9.0, 8.0, 7.0])
    there = TriMesh(skin.points @ turn.T + shift, skin.triangles)
    moved = BodyFrame(frame.centre @ turn.T + shift, frame.axes @ turn.T, frame.width, frame.depth)
    still, turned = place_electrodes(skin, frame), place_electrodes(there, moved)
    assert np.abs(turned.positions - (still.positions @ turn.T + shift)).max() < 1e-6


def test_one_electrode_moves_along_the_skin(body):
    skin, frame = body
    before = place_electrodes(skin, frame)
    after = move_electrodes(before, {"c2": (0, 0, 20)}, skin, frame)
    k = before.names.index("V2")
    others = np.arange(len(before.names)) != k
    assert np.array_equal(before.positions[others], after.positions[others])
    assert (
        np.abs(nearest_on_skin(skin, after.positions[k : k + 1]) - after.positions[k]).max() < 1e-6
    )
    step = frame.to_body(after.positions)[k] - frame.to_body(before.positions)[k]
    assert step[2] == pytest.approx(20.0, abs=1.0)
    assert np.linalg.norm(step) == pytest.approx(20.0, abs=1.0)


@pytest.mark.parametrize(
    ("shifts", "words"),
    [
        ({"V8": (0, 0, 1)}, "no electrode 'V8'"),
        ({"V1": (0, 1)}, "V1 is not three numbers"),
        ({"V1": (0, 0, float("nan"))}, "V1 is not three numbers"),
        ({"V1": (0, 50, 0)}, "V1 is 50 mm away from the skin"),
    ],
)
def test_shifts_that_make_no_sense_are_refused(body, shifts, words):
    skin, frame = body
    with pytest.raises(InputError, match=words):
        move_electrodes(place_electrodes(skin, frame), shifts, skin, frame)


def test_electrodes_in_the_heart_or_far_from_the_skin_are_refused(body):
    skin, frame = body
    heart = Heart(bowl())
    good = place_electrodes(skin, frame).positions[3]
    assert np.allclose(on_skin(Electrodes(["V1"], [good]), skin, heart).positions, [good])
    inside = heart_frame(heart.mesh).centre
    with pytest.raises(InputError, match="V2 lies inside the heart"):
        on_skin(Electrodes(["V1", "V2"], [good, inside]), skin, heart)
    with pytest.raises(InputError, match=r"V2 is 3\d mm away from the skin"):
        on_skin(Electrodes(["V1", "V2"], [good, good + 35.0 * frame.axes[1]]), skin, heart)


def test_hearts_without_volume_are_refused():
    with pytest.raises(MeshError, match="no tetrahedra"):
        heart_frame(TetMesh(np.zeros((4, 3)), np.zeros((0, 4))))
    flat = TetMesh([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], [[0, 1, 2, 3]])
    with pytest.raises(MeshError, match="flat"):
        heart_frame(flat)
