"""Maps, film, ECG paper and the HTML report: what is drawn, at what scale, and what is written."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import ListedColormap
from PIL import Image

from twinheart.anatomy import Heart
from twinheart.ecg import Ecg
from twinheart.ecg.leads import LEADS
from twinheart.errors import InputError, OutputError
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import slab
from twinheart.report import (
    write_action_potential,
    write_animation,
    write_ecg_panels,
    write_ecg_paper,
    write_map,
    write_report,
    write_restitution,
)
from twinheart.report.ecg_paper import paper_gain
from twinheart.report.raster import corner_normals, rasterise
from twinheart.report.scene import CUT, VIEWS, Scene
from twinheart.report.style import colour_map, levels
from twinheart.twin import Beat

SVG = "{http://www.w3.org/2000/svg}"


def bowl() -> Heart:
    """Half a shell, open towards +z, its wall thin on the side of +x: a heart to draw quickly."""
    mesh = slab((96.0, 96.0, 48.0), 6.0)
    points = mesh.points - [48.0, 48.0, 48.0]
    middle = points[mesh.tets].mean(axis=1)
    radius = np.linalg.norm(middle, axis=1)
    wall = np.where(middle[:, 0] > 0, 10.0, 18.0)
    tets = mesh.tets[(radius < 47.0) & (radius > 47.0 - wall)]
    used, local = np.unique(tets, return_inverse=True)
    return Heart(TetMesh(points[used], local.reshape(-1, 4)))


HEART = bowl()


@pytest.fixture(scope="module", autouse=True)
def small_pictures():
    """Views of 96 pixels: the tests look at shapes and scales, not at beauty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("twinheart.report.maps._PIXELS", 96)
        yield


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(HEART)


def beats(samples: int = 450, step: float = 1.0) -> Ecg:
    """A QRS-like and a T-like bump in all twelve leads."""
    t = step * np.arange(samples)
    wave = np.exp(-(((t - 60) / 12) ** 2)) + 0.2 * np.exp(-(((t - 300) / 40) ** 2))
    heights = np.linspace(-0.8, 1.2, 12)
    return Ecg(t, wave[:, None] * heights, tuple(LEADS))


def beat(**changes) -> Beat:
    """What `simulate` returns, of a wave that rises through the bowl at 1 m/s."""
    lat = HEART.mesh.points[:, 2] - HEART.mesh.points[:, 2].min()
    content: dict[str, Any] = {
        "lat": lat,
        "repol": lat + 280.0 - 0.5 * lat,
        "apd90": 280.0 - 0.5 * lat,
        "ecg": beats(),
        "potentials": np.zeros((0, 0)),
        "t": np.zeros(0),
        "probes": np.zeros((0, 0)),
        "vm_file": None,
        "result": "successful",
        "stats": {"t_end_ms": 450.0, "dt_ms": 0.02, "scheme": "default"},
    }
    return Beat(**{**content, **changes})


def frames(folder: Path, n_frames: int = 3, n_nodes: int | None = None, name: str = "vm.h5"):
    h5py = pytest.importorskip("h5py")
    z = HEART.mesh.points[:, 2] if n_nodes is None else np.zeros(n_nodes)
    t = 20.0 * np.arange(n_frames)
    with h5py.File(folder / name, "w") as file:
        file["t"] = t
        file["vm"] = np.where(z + 48.0 < t[:, None] + 5.0, 20.0, -85.0).astype(np.float32)
    return folder / name


# --- triangles to pixels ----------------------------------------------------------------------


def facing(points: list, depth: float = 0.0) -> np.ndarray:
    return np.array([[[x, y, depth] for x, y in points]], dtype=float)


def test_two_triangles_of_a_square_cover_every_pixel_once():
    lower = facing([(0, 0), (8, 0), (8, 8)])
    upper = facing([(0, 0), (8, 8), (0, 8)])
    seen = rasterise(np.concatenate([lower, upper]), 8)
    assert seen.pixel.tolist() == list(range(64))
    assert np.allclose(seen.weights.sum(axis=1), 1)
    assert np.all(seen.weights >= -1e-9)


def test_pixels_are_counted_from_the_top_and_weights_interpolate_the_place():
    corners = facing([(0, 0), (8, 0), (0, 8)])
    seen = rasterise(corners, 8)
    x, y = (np.einsum("pk,pk->p", seen.weights, corners[seen.triangle][..., d]) for d in (0, 1))
    assert np.allclose(x, seen.pixel % 8 + 0.5)
    assert np.allclose(y, 7 - seen.pixel // 8 + 0.5)


def test_the_nearer_triangle_hides_the_farther_whatever_their_order():
    near, far = facing([(1, 1), (5, 1), (1, 5)], 2.0), facing([(0, 0), (9, 0), (0, 9)], 1.0)
    for corners, front in (((near, far), 0), ((far, near), 1)):
        seen = rasterise(np.concatenate(corners), 8)
        inner = seen.pixel[seen.triangle == front]
        assert set(inner) == set(rasterise(near, 8).pixel)


def test_triangles_that_face_away_or_lie_outside_are_not_drawn():
    away = facing([(0, 0), (0, 8), (8, 0)])
    outside = facing([(20, 20), (30, 20), (20, 30)])
    flat = facing([(0, 0), (4, 4), (8, 8)])
    assert len(rasterise(np.concatenate([away, outside, flat]), 8).pixel) == 0


def test_what_is_cut_away_shows_what_is_behind():
    near, far = facing([(0, 0), (9, 0), (0, 9)], 2.0), facing([(0, 0), (9, 0), (0, 9)], 1.0)
    removed = np.array([[-4.0, 5.0, -4.0], [-1.0, -1.0, -1.0]])  # the near one where x > 4
    seen = rasterise(np.concatenate([near, far]), 8, removed=removed)
    column = seen.pixel % 8 + 0.5
    assert np.array_equal(seen.triangle == 1, column > 4)


def test_cutting_the_work_into_groups_changes_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 32, (200, 3, 3))
    whole = rasterise(corners, 32)
    monkeypatch.setattr(sys.modules["twinheart.report.raster"], "_FRAGMENTS", 50)
    pieces = rasterise(corners, 32)
    assert all(np.array_equal(a, b) for a, b in zip(whole, pieces, strict=True))


def test_normals_of_a_cube_stay_sharp_and_those_of_a_sphere_become_smooth():
    from twinheart.mesh.quality import boundary_triangles

    cube = slab((3.0, 3.0, 3.0), 1.0)
    triangles = boundary_triangles(cube.tets)
    normals = corner_normals(cube.points, triangles)
    assert np.allclose(np.abs(normals).max(axis=2), 1.0)  # along an axis everywhere
    ball = cube.points - 1.5
    ball /= np.maximum(np.linalg.norm(ball, axis=1), 1e-9)[:, None]
    normals = corner_normals(ball, triangles, sharp=80.0)
    assert (normals * ball[triangles]).sum(axis=2).min() > 0.97


# --- the heart --------------------------------------------------------------------------------


def covered(picture: np.ndarray) -> np.ndarray:
    return picture.min(axis=2) < 250


def draw(scene: Scene, values, view: str, limits, size: int = 120) -> np.ndarray:
    return scene.draw(
        values, view, colours=colour_map("lat"), limits=np.array(limits, dtype=float), size=size
    )


def test_every_view_shows_the_heart_at_the_scale_it_claims(scene):
    pixel_mm = scene.height_mm / 120
    values = np.zeros(HEART.mesh.n_nodes)
    for view in VIEWS:
        shape = covered(draw(scene, values, view, [-1.0, 1.0]))
        assert shape.any()
        assert not shape[[0, -1]].any()
        assert not shape[:, [0, -1]].any()
    anterior = covered(draw(scene, values, "anterior", [-1.0, 1.0]))
    width = np.ptp(np.flatnonzero(anterior.any(axis=0))) + 1
    height = np.ptp(np.flatnonzero(anterior.any(axis=1))) + 1
    size = [np.ptp(HEART.mesh.points @ axis) for axis in (scene.frame.rv, scene.frame.base)]
    assert width * pixel_mm == pytest.approx(size[0], abs=2 * pixel_mm)
    assert height * pixel_mm == pytest.approx(size[1], abs=2 * pixel_mm)


def test_base_is_up_and_the_right_ventricle_on_the_left_of_the_anterior_view(scene):
    # bright where the base is, then bright where the thin wall is
    up = draw(scene, HEART.mesh.points[:, 2], "anterior", [-48.0, -24.0, 0.0]).sum(axis=2)
    shape = covered(draw(scene, HEART.mesh.points[:, 2] * 0, "anterior", [-1.0, 1.0]))
    rows = np.flatnonzero(shape.any(axis=1))
    top, bottom = up[rows[5], 50:70].mean(), up[rows[-8], 50:70].mean()
    assert top < bottom  # late (dark) at the base: the open side is on top
    right = HEART.mesh.points @ scene.frame.rv
    side = draw(scene, right, "anterior", [right.min(), 0.0, right.max()]).sum(axis=2)
    row = side[rows[len(rows) // 3]]
    columns = np.flatnonzero(shape[rows[len(rows) // 3]])
    assert row[columns[5]] < row[columns[-6]]


def test_cut_open_shows_the_section_through_the_wall(scene):
    values = np.zeros(HEART.mesh.n_nodes)
    whole = draw(scene, values, "anterior", [-1.0, 1.0])
    half = draw(scene, values, CUT, [-1.0, 1.0])
    assert covered(half).any()
    assert np.abs(whole.astype(int) - half).mean() > 1
    # a linear field is drawn exactly on the section, whose points lie on edges of the mesh
    surface = scene._half
    places = surface.at(HEART.mesh.points)
    section = surface.triangles[len(scene._whole.triangles) :]
    distance = (places[section] - scene.frame.centre) @ scene.frame.anterior
    assert np.abs(distance).max() < 1e-9
    a, b, c = (places[section[:, k]] for k in range(3))
    area = np.cross(b - a, c - a)
    assert (area @ scene.frame.anterior).min() > -1e-9
    # the section of a half shell with walls of 18 and 10 mm, both cut
    expected = np.pi / 4 * (47**2 - 29**2) + np.pi / 4 * (47**2 - 37**2)
    assert np.linalg.norm(area, axis=1).sum() / 2 == pytest.approx(expected, rel=0.15)


def test_isolines_lie_at_the_limits_and_nowhere_else(scene):
    z = HEART.mesh.points[:, 2]
    white = ListedColormap(["#ffffff"] * 4)
    limits = np.array([-60.0, -30.0, 0.0])
    picture = scene.draw(z, "anterior", colours=white, limits=limits, size=240)
    dark = (picture.astype(int).sum(axis=2) < 250)[:, 110:130]
    rows = np.flatnonzero(dark.any(axis=1))
    assert rows.size > 0
    centre = (HEART.mesh.points[:, 2].max() + HEART.mesh.points[:, 2].min()) / 2
    expected = 120 - (-30.0 - centre) * 240 / scene.height_mm
    assert np.abs(rows - expected).max() < 4
    assert np.ptp(rows) < 5


def test_a_plateau_on_a_limit_is_not_blackened(scene):
    picture = draw(scene, np.full(HEART.mesh.n_nodes, 5.0), "anterior", [0.0, 5.0, 10.0])
    assert (picture.astype(int).sum(axis=2)[covered(picture)] > 120).all()


def test_missing_values_are_grey_and_the_rest_is_not(scene):
    values = np.where(HEART.mesh.points[:, 2] > -20.0, np.nan, 5.0)
    picture = draw(scene, values, "anterior", [0.0, 5.0, 10.0]).astype(int)
    rows = np.flatnonzero(covered(picture).any(axis=1))
    spread = np.ptp(picture, axis=2)  # 0 for a grey
    assert spread[rows[4], 55:65].max() < 25
    assert spread[rows[-6], 58:62].min() > 60


def test_pictures_are_the_same_every_time():
    first, second = (draw(Scene(HEART), HEART.mesh.points[:, 0], CUT, [-50, 0, 50]) for _ in "12")
    assert np.array_equal(first, second)


def test_drawing_needs_neither_vtk_nor_a_window():
    code = (
        "import sys, numpy as np, tempfile;"
        "from twinheart.anatomy import Heart; from twinheart.mesh.generate import slab;"
        "from twinheart.report import write_map;"
        "h = Heart(slab((4.0, 2.0, 2.0), 1.0));"
        "write_map(tempfile.mkdtemp() + '/m.png', h, h.mesh.points[:, 0]);"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'vtk', 'vtkmodules', 'pyvista'}),"
        " 'matplotlib.pyplot' in sys.modules)"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "MPLBACKEND")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.split("\n")[0] == "[] False"


@pytest.mark.parametrize(
    ("low", "high", "step"),
    [(0, 60, 5), (3, 118, 5), (0, 180, 10), (0, 420, 20), (0, 14, 1), (5, 5, 1)],
)
def test_isolines_are_at_round_times(low, high, step):
    limits = levels(np.array([float(low), np.nan, float(high)]))
    assert limits[1] - limits[0] == step
    assert limits[0] <= low
    assert limits[-1] >= high
    assert np.allclose(limits / step, np.rint(limits / step))


def test_nearly_uniform_repolarisation_is_not_cut_into_noise():
    assert levels(np.array([289.0, 297.0]), least=5.0).tolist() == [285.0, 290.0, 295.0, 300.0]


def test_levels_of_a_map_without_any_value():
    assert len(levels(np.full(3, np.nan))) >= 2


@pytest.mark.parametrize("quantity", ["lat", "repol", "apd90", "vm"])
def test_colours_change_steadily_in_brightness_or_hue(quantity):
    table = colour_map(quantity)(np.linspace(0, 1, 64))[:, :3]
    brightness = table @ [0.2126, 0.7152, 0.0722]
    if quantity == "vm":  # two hues that no colour-vision deficiency mixes up: blue and orange
        assert table[0, 2] > table[0, 0] + 0.2
        assert table[-1, 0] > table[-1, 2] + 0.4
    else:
        assert np.all(np.diff(brightness) > 0) or np.all(np.diff(brightness) < 0)


def test_map_file_has_its_size_and_says_what_it_is(tmp_path, scene):
    file = write_map(tmp_path / "lat.png", scene, beat().lat)
    with Image.open(file) as picture:
        assert picture.size == (1476, 992)  # 250 x 168 mm at 150 dots an inch
        assert picture.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        assert "Software" not in picture.info
    svg = write_map(tmp_path / "lat.svg", scene, beat().lat).read_text()
    assert 'width="250mm" height="168mm"' in svg


def test_map_of_a_heart_that_never_activated(tmp_path, scene):
    file = write_map(tmp_path / "none.png", scene, np.full(HEART.mesh.n_nodes, np.nan))
    assert file.stat().st_size > 0


def test_map_refuses_values_of_another_mesh(tmp_path, scene):
    with pytest.raises(InputError, match="expected one for each of the"):
        write_map(tmp_path / "lat.png", scene, np.zeros(7))
    assert list(tmp_path.iterdir()) == []


# --- the film ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_film_has_a_frame_for_each_snapshot_and_they_differ(tmp_path, scene, suffix):
    vm_file = frames(tmp_path, 4)
    film = write_animation(tmp_path / f"vm{suffix}", scene, vm_file, ecg=beats(), size=80)
    with Image.open(film) as animation:
        assert getattr(animation, "n_frames", 1) == 4
        assert animation.info["loop"] == 0
        pictures = []
        for k in range(4):
            animation.seek(k)
            pictures.append(np.asarray(animation.convert("RGB"), dtype=int))
    heart = [picture[44:124, :160] for picture in pictures]
    # depolarised tissue is orange: more of it in every frame
    orange = [(p[..., 0] > p[..., 2] + 60).mean() for p in heart]
    assert np.all(np.diff(orange) > 0.01)


def test_film_takes_every_second_frame_where_there_are_too_many(tmp_path, scene):
    vm_file = frames(tmp_path, 7)
    film = write_animation(tmp_path / "vm.webp", scene, vm_file, most_frames=4, size=48)
    with Image.open(film) as animation:
        assert getattr(animation, "n_frames", 1) == 4


def test_film_reads_one_frame_at_a_time(tmp_path, scene):
    class Rows:
        """Stands for the dataset: counts what is read."""

        def __init__(self):
            self.read: list[int] = []

        def __getitem__(self, index):
            self.read.append(index)
            return np.full(HEART.mesh.n_nodes, -85.0)

    rows = Rows()
    pictures = scene.film(
        (rows[i] for i in range(3)),
        ["anterior"],
        colours=colour_map("vm"),
        limits=(-90.0, 40.0),
        size=32,
    )
    for k, _ in enumerate(pictures):
        assert rows.read == list(range(k + 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "absent.h5", "cannot be read"),
        (lambda p: frames(p, 0), "at least one frame"),
        (lambda p: frames(p, 2, n_nodes=5), "belongs to another mesh"),
    ],
)
def test_film_refuses_files_it_cannot_use(tmp_path, scene, make, message):
    vm_file = make(tmp_path)
    with pytest.raises(InputError, match=message):
        write_animation(tmp_path / "vm.gif", scene, vm_file, size=32)
    assert not (tmp_path / "vm.gif").exists()


def test_film_refuses_text_and_unknown_suffixes(tmp_path, scene):
    (tmp_path / "vm.h5").write_text("no HDF5")
    with pytest.raises(InputError, match="cannot be read"):
        write_animation(tmp_path / "vm.gif", scene, tmp_path / "vm.h5")
    with pytest.raises(InputError, match=r"expected \.gif or \.webp"):
        write_animation(tmp_path / "vm.avi", scene, tmp_path / "vm.h5")


def test_film_that_cannot_be_written_is_an_output_error(tmp_path, scene):
    with pytest.raises(OutputError, match="cannot write"):
        write_animation(tmp_path / "absent" / "vm.gif", scene, frames(tmp_path), size=32)


# --- the ECG on paper -------------------------------------------------------------------------


def trace_of(svg: Path, gid: str) -> np.ndarray:
    """Vertices [mm, y up] of the first path inside the group of that name."""
    root = ElementTree.parse(svg).getroot()
    width, height = (float(root.get(k, "").removesuffix("mm")) for k in ("width", "height"))
    box = [float(v) for v in root.get("viewBox", "").split()]
    path = next(g for g in root.iter(f"{SVG}g") if g.get("id") == gid).find(f".//{SVG}path")
    assert path is not None
    numbers = np.array(re.findall(r"-?[\d.]+(?:e-?\d+)?", path.get("d", "")), dtype=float)
    x, y = numbers.reshape(-1, 2).T
    return np.stack([x * width / box[2], height - y * height / box[3]], axis=1)


@pytest.mark.parametrize(("gain", "tall"), [(10.0, 10.0), (5.0, 5.0), (0.5, 10.0)])
def test_calibration_pulse_is_true_to_scale(tmp_path, gain, tall):
    file = write_ecg_paper(tmp_path / "ecg.svg", beats(), gain=gain)
    pulse = trace_of(file, "calibration")
    assert np.ptp(pulse[:, 1]) == pytest.approx(tall, abs=0.01)
    top = pulse[pulse[:, 1] > pulse[:, 1].max() - 0.1]
    assert np.ptp(top[:, 0]) == pytest.approx(5.0, abs=0.01)  # 200 ms at 25 mm/s


@pytest.mark.parametrize(("gain", "speed"), [(10.0, 25.0), (20.0, 50.0)])
def test_traces_are_true_to_scale(tmp_path, gain, speed):
    ecg = beats()
    file = write_ecg_paper(tmp_path / "ecg.svg", ecg, gain=gain, speed=speed)
    trace = trace_of(file, "lead-V6")
    assert np.ptp(trace[:, 0]) == pytest.approx(449 * speed / 1000, abs=0.01)
    # lines are simplified by less than a tenth of a dot
    assert np.ptp(trace[:, 1]) == pytest.approx(gain * np.ptp(ecg["V6"]), abs=0.05)


def test_png_has_ten_dots_a_millimetre_and_a_grid_of_one_and_five(tmp_path):
    ecg = Ecg(np.arange(400.0), np.zeros((400, 1)), ("II",))
    with Image.open(write_ecg_paper(tmp_path / "ecg.png", ecg)) as picture:
        assert picture.info["dpi"] == pytest.approx((254, 254), abs=0.1)
        pixels = np.asarray(picture.convert("RGB"), dtype=int)
    row = pixels[3, :, 1]  # above all text, between two horizontal lines
    lines = np.flatnonzero((row < 245) & (row <= np.roll(row, 1)) & (row < np.roll(row, -1)))
    assert np.median(np.diff(lines)) == 10
    bold = lines[row[lines] < np.median(row[lines]) - 15]
    assert np.abs(np.diff(bold) - 50).max() <= 1


def test_long_record_gets_columns_in_sequence_and_a_rhythm_strip(tmp_path):
    ecg = beats(10_000)
    file = write_ecg_paper(tmp_path / "ecg.svg", ecg)
    for lead in ("I", "aVL", "V3", "V6"):
        assert np.ptp(trace_of(file, f"lead-{lead}")[:, 0]) == pytest.approx(62.5, abs=0.1)
    assert np.ptp(trace_of(file, "rhythm-II")[:, 0]) == pytest.approx(250, abs=0.1)
    # the only beat is in the first column; the last one shows the quiet end
    assert np.ptp(trace_of(file, "lead-I")[:, 1]) > 5
    assert np.ptp(trace_of(file, "lead-V6")[:, 1]) < 0.1
    assert "columns follow each other" in (tmp_path / "ecg.svg").read_text()


def test_single_beat_has_no_rhythm_strip_and_some_leads_may_be_absent(tmp_path):
    ecg = beats()
    some = Ecg(ecg.t, np.asarray(ecg.signals)[:, [1, 7]], ("II", "V2"))
    text = write_ecg_paper(tmp_path / "ecg.svg", some).read_text()
    assert 'id="lead-II"' in text
    assert 'id="lead-V2"' in text
    assert "rhythm" not in text
    assert 'id="lead-V1"' not in text


def test_paper_is_high_enough_for_every_trace(tmp_path):
    ecg = beats()
    large = Ecg(ecg.t, 6 * np.asarray(ecg.signals), ecg.names)
    file = write_ecg_paper(tmp_path / "ecg.svg", large)
    height = float(ElementTree.parse(file).getroot().get("height", "").removesuffix("mm"))
    for lead in LEADS:
        trace = trace_of(file, f"lead-{lead}")
        assert trace[:, 1].min() > 2
        assert trace[:, 1].max() < height - 10


def test_paper_refuses_what_it_cannot_show(tmp_path):
    ecg = beats()
    with pytest.raises(InputError, match="none of the twelve leads"):
        write_ecg_paper(tmp_path / "e.svg", Ecg(ecg.t, np.asarray(ecg.signals)[:, :1], ("vx",)))
    with pytest.raises(InputError, match="must be positive"):
        write_ecg_paper(tmp_path / "e.svg", ecg, gain=0.0)
    with pytest.raises(InputError, match="lower the gain"):
        write_ecg_paper(tmp_path / "e.svg", Ecg(ecg.t, 1e3 * np.asarray(ecg.signals), ecg.names))
    assert list(tmp_path.iterdir()) == []


def test_panels_show_the_leads_that_are_there_and_the_qrs_as_measured(tmp_path):
    ecg = beats()
    some = Ecg(ecg.t, np.asarray(ecg.signals)[:, [0, 6]], ("I", "V1"))
    text = write_ecg_panels(tmp_path / "leads.svg", some).read_text()
    assert 'width="250mm" height="130mm"' in text
    assert len(re.findall(r'id="axes_\d+"', text)) == 2
    assert text.count('id="qrs"') == 2
    coarse = Ecg(ecg.t[::20], np.asarray(ecg.signals)[::20], ecg.names)
    plain = write_ecg_panels(tmp_path / "coarse.svg", coarse).read_text()
    assert 'id="qrs"' not in plain
    with pytest.raises(InputError, match="none of the twelve leads"):
        write_ecg_panels(tmp_path / "x.svg", Ecg(ecg.t, np.asarray(ecg.signals)[:, :1], ("vx",)))


@pytest.mark.parametrize(("peak", "gain"), [(1.0, 10), (3.0, 10), (0.1, 50), (76.0, 0.5), (0, 10)])
def test_gain_keeps_the_usual_scale_where_it_suits(peak, gain):
    assert paper_gain(Ecg(np.arange(2.0), np.array([[0.0], [float(peak)]]), ("II",))) == gain


# --- the report -------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page holds: tags with their attributes, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    conduction = [
        {"region": 1, "axis": "along", "velocity": 0.6, "continuum_velocity": 0.6,
         "velocity_error": 0.0, "factor": 1.2},
        {"region": 1, "axis": "across", "velocity": 0.24, "continuum_velocity": 0.3,
         "velocity_error": -0.2, "factor": 3.0},
    ]  # fmt: skip
    lat = np.array(beat().lat)
    lat[:4] = np.nan
    done = beat(
        lat=lat,
        vm_file=frames(folder, 3),
        stats={**beat().stats, "conduction": conduction, "stiffness": {"lambda_max": 2.5}},
    )
    return write_report(
        folder / "new",
        HEART,
        done,
        title='A <script>alert("x")</script> title & more',
        provenance={"commit": "abc123", "seed": 7, "case": {"dt": 0.02, "<b>": "</td><img src=x>"}},
    )


def test_report_is_one_file_and_says_what_matters(report):
    assert [p.name for p in report.parent.iterdir()] == ["report.html"]
    page = Page(report.read_text())
    for expected in (
        "not for clinical use",
        "QRS duration",
        "APD90, mean",
        "99",  # per cent activated
        "4 of",
        "commit abc123",
        "seed 7",
        "case, dt 0.02",
        "stiffness, lambda_max 2.5",
        "Mesh checksum (SHA-256)",
        "conductivities in S/m",
        "expect 0.24 m/s on this mesh instead of 0.30 m/s (-20 %)",
        "3.0 times the diffusion of the tissue",
        "R-wave progression",
    ):
        assert expected in page.text
    points, tets = HEART.mesh.points, HEART.mesh.tets
    checksum = hashlib.sha256(points.tobytes() + tets.tobytes()).hexdigest()
    assert checksum in page.text


def test_report_holds_all_pictures_and_asks_for_nothing(report):
    page = Page(report.read_text())
    images = page.all("img")
    types = [image["src"].split(";")[0] for image in images]
    assert types == [
        "data:image/png", "data:image/webp", "data:image/svg+xml", "data:image/svg+xml",
        "data:image/png", "data:image/png",
    ]  # fmt: skip
    assert all(len(image["alt"]) > 20 for image in images)
    for image in images:
        content = base64.b64decode(image["src"].split(",", 1)[1], validate=True)
        if "svg" not in image["src"][:20]:
            with Image.open(BytesIO(content)) as picture:
                picture.verify()
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        for name in ("src", "href", "action"):
            assert attributes.get(name, "data:").startswith("data:")


def test_report_policy_allows_its_own_style_and_pictures_only(report):
    text = report.read_text()
    policy = Page(text).all("meta")[1]["content"]
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style.group(1).encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "unsafe" not in policy
    assert "url(" not in style.group(1)
    assert "@import" not in style.group(1)


def test_report_escapes_what_others_wrote(report):
    text = report.read_text()
    assert "<script" not in text
    assert "<img src=x>" not in text
    assert 'A <script>alert("x")</script> title & more' in Page(text).text


def test_report_of_a_beat_without_ecg_frames_or_activation(tmp_path):
    nothing = np.full(HEART.mesh.n_nodes, np.nan)
    silent = beat(lat=nothing, repol=nothing, apd90=nothing, ecg=None, result="stopped at 3 ms")
    page = Page(write_report(tmp_path, HEART, silent).read_text())
    assert len(page.all("img")) == 1
    assert "did not end well: stopped at 3 ms" in page.text
    assert "nodes were never activated" in page.text
    assert "no ECG" in page.text


def test_report_of_an_ecg_too_short_or_too_coarse_to_measure(tmp_path):
    ecg = beats()
    short = Ecg(ecg.t[:1], np.asarray(ecg.signals)[:1], ecg.names)
    assert "too short" in Page(write_report(tmp_path, HEART, beat(ecg=short)).read_text()).text
    coarse = Ecg(ecg.t[::20], np.asarray(ecg.signals)[::20], ecg.names)
    text = Page(write_report(tmp_path, HEART, beat(ecg=coarse)).read_text()).text
    assert "QRS duration none" in text


def test_report_refuses_maps_of_another_heart(tmp_path):
    three = np.zeros(3)
    with pytest.raises(InputError, match="lat has shape"):
        write_report(tmp_path / "r", HEART, beat(lat=three, repol=three, apd90=three))
    assert not (tmp_path / "r").exists()


def test_report_that_cannot_be_written_keeps_the_older_one(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make the folder"):
        write_report(tmp_path / "file" / "r", HEART, beat(ecg=None))
    page = write_report(tmp_path, HEART, beat(ecg=None))
    before = page.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        write_report(tmp_path, HEART, beat(ecg=None, result="other"))
    assert page.read_bytes() == before


# --- a real browser ---------------------------------------------------------------------------

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

# Placed at the end of a copy of the page, allowed by an added hash: reports what was loaded.
_ASK = """
addEventListener('load', () => {
  const report = document.createElement('pre');
  report.id = 'asked';
  report.textContent = JSON.stringify({
    widths: [...document.images].map(image => image.complete ? image.naturalWidth : 0),
    requests: performance.getEntriesByType('resource').map(entry => entry.name.slice(0, 40)),
    style: getComputedStyle(document.querySelector('dl.figures')).display,
  });
  document.body.append(report);
});
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")
def test_report_in_a_browser_asks_for_nothing_and_shows_its_pictures(report, tmp_path):
    digest = base64.b64encode(hashlib.sha256(_ASK.encode()).digest()).decode()
    text = report.read_text()
    plain = browse(report, tmp_path / "plain")
    assert "not for clinical use" in plain.stdout
    assert complaints(plain.stderr) == []
    asking = text.replace(
        "default-src 'none';", f"default-src 'none'; script-src 'sha256-{digest}';"
    )
    asking = asking.replace("</body>", f"<script>{_ASK}</script></body>")
    (tmp_path / "asking.html").write_text(asking)
    shown = browse(tmp_path / "asking.html", tmp_path / "asking")
    assert complaints(shown.stderr) == []
    found = re.search(r'<pre id="asked">(.*?)</pre>', shown.stdout)
    assert found is not None
    answer = json.loads(found.group(1).replace("&amp;", "&"))
    assert len(answer["widths"]) == 6
    assert min(answer["widths"]) > 100
    assert all(name.startswith("data:") for name in answer["requests"])
    assert answer["style"] == "grid"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")
@pytest.mark.parametrize(
    "body",
    [
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'">'
        '<img src="https://example.org/x.png">',
        "<script>throw new Error('x')</script>",
    ],
)
def test_the_browser_tells_of_requests_and_errors(body, tmp_path):
    (tmp_path / "bad.html").write_text(f"<!DOCTYPE html><html><head>{body}</head></html>")
    assert complaints(browse(tmp_path / "bad.html", tmp_path / "profile").stderr)


def browse(page: Path, profile: Path) -> subprocess.CompletedProcess:
    """Open a page headless; every host name is unknown to this browser."""
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
        "--disable-background-networking --disable-component-update --disable-sync "
        "--disable-dev-shm-usage --enable-logging=stderr --dump-dom"
    ).split()
    return subprocess.run(
        [
            str(CHROMIUM), *flags, "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={profile}", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip


def complaints(log: str) -> list[str]:
    """Lines of a browser's log that come from the page."""
    return [line for line in log.splitlines() if re.search(r"CONSOLE|ERR_|Refused|violat", line)]


def test_cells_are_drawn_over_their_time(tmp_path):
    t = np.arange(0.0, 400.0, 0.5)
    vm = np.where((t > 10) & (t < 300), 20.0, -85.0)
    path = write_action_potential(tmp_path / "ap.svg", t + 5000.0, vm, 1e-4 + 0 * t, most=350.0)
    drawn = ElementTree.parse(path).getroot()
    assert len(drawn.findall(f".//{SVG}g[@id='axes_2']")) == 1  # voltage and calcium
    gaps = np.array([300.0, np.nan, 50.0, 100.0])
    path = write_restitution(
        tmp_path / "r.svg", {"S1-S2": (gaps, 0.5 * gaps)}, velocities={"cable": (gaps, gaps / 600)}
    )
    assert len(ElementTree.parse(path).getroot().findall(f".//{SVG}g[@id='axes_2']")) == 1
