"""Electro-anatomical maps: files, registration against known motions, and the misfit of times."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mapping_samples import (
    PATIENT,
    write_car,
    write_carto_mesh,
    write_dif,
    write_dxl,
    write_ensite_x,
    write_map_csv,
    write_map_vtp,
)
from scipy.optimize import minimize_scalar
from scipy.spatial.transform import Rotation
from tolerances import EXACT64, GRAD

from twinheart.anatomy.body import nearest_on_skin
from twinheart.calibration.mapping import ElectroAnatomicalMap, RigidMotion, map_operator
from twinheart.calibration.mapping_io import read_map, read_shell
from twinheart.calibration.mapping_registration import landmark_motion, register
from twinheart.calibration.mapping_surface import HeartSurface, heart_surface
from twinheart.errors import InputError, UnitError
from twinheart.mesh import TetMesh, TriMesh
from twinheart.mesh.generate import lv_ellipsoid
from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.io import read_mesh, write_mesh

# Positions are written with four decimals, in a shell with three [mm].
ROUNDED = 6e-4
NOISE = 2.0  # of measured positions [mm, each axis]


@pytest.fixture(scope="module")
def heart() -> TetMesh:
    """A left ventricle with a bulge, so that no turn leaves its surface as it was."""
    mesh = lv_ellipsoid(edge=4.0)
    angle = np.arctan2(mesh.points[:, 1], mesh.points[:, 0])
    bulge = 1.0 + 0.25 * np.cos(angle - 0.4) + 0.1 * np.cos(2 * angle)
    points = mesh.points * np.stack([bulge, bulge, np.ones_like(bulge)], axis=1)
    return TetMesh(points, mesh.tets, mesh.point_fields)


@pytest.fixture(scope="module")
def surface(heart) -> HeartSurface:
    return heart_surface(heart, [SurfaceClass.LV_ENDOCARDIUM])


@pytest.fixture(scope="module")
def times(heart) -> np.ndarray:
    """Activation [ms] that spreads from a place of the septum at 0.6 m/s."""
    start = heart.points[np.abs(heart.points - [12.0, 5.0, -20.0]).sum(axis=1).argmin()]
    return np.linalg.norm(heart.points - start, axis=1) / 0.6


def measured_at(surface, times, motion, *, every=4, noise=0.0, outliers=0, seed=0):
    """A map in other coordinates: noisy points, some of them gross errors; and the truth."""
    rng = np.random.default_rng(seed)
    nodes = np.arange(0, len(surface.points), every)
    truth = surface.points[nodes]
    points = truth + rng.normal(0.0, noise, truth.shape) if noise else truth.copy()
    wrong = rng.choice(len(nodes), outliers, replace=False)
    away = truth[wrong] - truth.mean(axis=0)
    points[wrong] += 25.0 * away / np.linalg.norm(away, axis=1, keepdims=True)
    numbers = 7 * np.arange(len(nodes)) + 3
    measured = ElectroAnatomicalMap(
        inverse(motion)(points),
        lat=np.round(times[surface.nodes[nodes]]) - 80.0,
        bipolar=rng.uniform(0.1, 6.0, len(nodes)).round(3),
        unipolar=rng.uniform(1.0, 12.0, len(nodes)).round(3),
        numbers=numbers,
    )
    return measured, truth, np.sort(numbers[wrong])


def inverse(motion: RigidMotion) -> RigidMotion:
    return RigidMotion(motion.rotation.T, -motion.rotation.T @ motion.translation)


def a_motion(seed: int = 1) -> RigidMotion:
    rng = np.random.default_rng(seed)
    rotation = Rotation.random(random_state=seed).as_matrix()
    return RigidMotion(rotation, rng.uniform(-150, 150, 3))


def marks_of(surface, motion, *, error=0.0, seed=3):
    """Apex and two places at the base in both coordinates; those of the map with an error."""
    rng = np.random.default_rng(seed)
    points = surface.points
    top = points[points[:, 2] > np.quantile(points[:, 2], 0.9)]
    places = {
        "apex": points[points[:, 2].argmin()],
        "anterior": top[top[:, 1].argmax()],
        "lateral": top[top[:, 0].argmax()],
    }
    return {
        name: (inverse(motion)(place[None])[0] + rng.normal(0.0, error, 3), place)
        for name, place in places.items()
    }


def with_shell(measured: ElectroAnatomicalMap, surface) -> ElectroAnatomicalMap:
    shell = TriMesh(measured.points, surface.triangles)
    columns = ("lat", "bipolar", "unipolar", "numbers")
    return ElectroAnatomicalMap(
        measured.points, **{name: getattr(measured, name) for name in columns}, shell=shell
    )


@pytest.fixture
def sample(surface, times) -> ElectroAnatomicalMap:
    """A map at all vertices with its shell, two times missing."""
    measured, _, _ = measured_at(surface, times, a_motion(), every=1)
    measured.lat[[4, 9]] = np.nan
    return with_shell(measured, surface)


# --- files -------------------------------------------------------------------------------------


def writers(folder, m):
    yield "CARTO 3", write_car(folder / "1-LV_car.txt", m)
    yield "EnSite DxL", write_dxl(folder, m, parts=3)
    yield "EnSite X", write_ensite_x(folder / "Map_LAT_bi.csv", m)
    yield "CSV", write_map_csv(folder / "map.csv", m)
    yield "VTP (VTK XML)", write_map_vtp(folder / "map.vtp", m)


def test_every_format_returns_what_was_measured(tmp_path, sample):
    for name, file in writers(tmp_path, sample):
        found = read_map(file)
        assert found.format == name
        assert np.array_equal(found.numbers, sample.numbers), name
        assert np.abs(found.points - sample.points).max() < ROUNDED, name
        assert np.array_equal(np.isnan(found.lat), np.isnan(sample.lat)), name
        assert np.nanmax(np.abs(found.lat - sample.lat)) < 1e-6, name
        assert np.abs(found.bipolar - sample.bipolar).max() < 1e-9, name
        if found.unipolar is not None:
            assert np.abs(found.unipolar - sample.unipolar).max() < 1e-9, name
        assert PATIENT not in f"{found} {found.notes}", name


def shell_of(m: ElectroAnatomicalMap) -> TriMesh:
    fields = {"lat": m.lat, "bipolar": m.bipolar, "unipolar": m.unipolar}
    return TriMesh(m.points, m.shell.triangles, fields)


def test_shells_return_their_surface_and_values(tmp_path, sample):
    shell = shell_of(sample)
    for file in (
        write_carto_mesh(tmp_path / "1-LV.mesh", shell),
        write_dif(tmp_path / "DxLandmarkGeo.xml", shell),
    ):
        found = read_shell(file)
        assert np.array_equal(found.triangles, shell.triangles)
        assert np.abs(found.points - shell.points).max() < ROUNDED
        as_map = read_map(file)  # its vertices are points, too
        assert np.array_equal(np.isnan(as_map.lat), np.isnan(sample.lat))
        assert np.nanmax(np.abs(as_map.lat - sample.lat)) < 1e-3
        assert "interpolated" in " ".join(as_map.notes)
        assert PATIENT not in f"{as_map} {as_map.notes}"


def test_the_shell_beside_the_points_is_found(tmp_path, sample):
    shell = shell_of(sample)
    write_carto_mesh(tmp_path / "1-LV.mesh", shell)
    assert read_map(write_car(tmp_path / "1-LV_car.txt", sample)).shell.n_nodes == shell.n_nodes
    assert read_map(write_car(tmp_path / "2-LV_car.txt", sample)).shell is None
    write_dif(tmp_path / "DxLandmarkGeo.xml", shell)
    assert read_map(write_dxl(tmp_path, sample)).shell.n_nodes == shell.n_nodes
    stl = tmp_path / "chamber.stl"
    write_mesh(stl, sample.shell)
    assert read_map(tmp_path / "2-LV_car.txt", shell=stl).shell.n_triangles == shell.n_triangles


def test_carto_types_of_points(tmp_path):
    row = "P\t0\t{}\t0\t{}\t0\t0\t0\t0\t0\t7.1\t{}\t-31\t0\t{}\t4\n"
    file = tmp_path / "1_car.txt"
    file.write_text(
        "VERSION_6_0 x\n"
        + row.format(2, 10, 2.5, 0)
        + row.format(3, 20, 2.5, 1)  # location only
        + row.format(5, 30, 2.5, 3)  # floating
        + row.format(8, 40, -10000, 2)  # scar
    )
    found = read_map(file)
    assert found.numbers.tolist() == [2, 3, 8]
    assert np.isnan(found.lat).tolist() == [False, True, False]
    assert np.isnan(found.bipolar).tolist() == [False, False, True]
    assert "1 points that float" in found.notes[0]


def test_hidden_groups_of_a_carto_shell_are_left_out(tmp_path, sample):
    shell = shell_of(sample)
    found = read_shell(write_carto_mesh(tmp_path / "a.mesh", shell, hidden=40, colours=False))
    assert found.n_triangles == shell.n_triangles - 40
    assert np.array_equal(
        found.points[found.triangles].round(3), shell.points[shell.triangles[:-40]].round(3)
    )


def test_points_that_ensite_does_not_use_are_left_out(tmp_path, sample):
    used = np.ones(len(sample.points), dtype=int)
    used[:5] = 0
    found = read_map(write_dxl(tmp_path, sample, used=used, trace="HD-G + A1"))
    assert np.array_equal(found.numbers, sample.numbers[5:])
    assert found.bipolar is None  # the trace is that of one electrode
    assert np.abs(found.unipolar - sample.bipolar[5:]).max() < 1e-9
    assert "5 points" in found.notes[0]


def test_ensite_x_amplitudes_and_validity(tmp_path, sample):
    file = write_ensite_x(tmp_path / "Map_LAT_uni.csv", sample, kind="LAT_uni")
    assert read_map(file).unipolar is not None
    text = file.read_text()
    first = re.search(r",1,(-?[\d.]+),1,", text)
    file.write_text(text.replace(first[0], f",1,{first[1]},0,", 1))
    assert np.isnan(read_map(file).lat[0])


def test_shared_numbers_of_one_beat_are_counted_anew(tmp_path, sample):
    file = write_dxl(tmp_path, sample)
    text = re.sub(r"pt number:,[\d,]+", lambda m: re.sub(r"\d+", "4", m[0]), file.read_text())
    file.write_text(text)
    found = read_map(file)
    assert found.numbers.tolist() == list(range(1, len(sample.points) + 1))
    assert "share a number" in " ".join(found.notes)


def test_columns_know_their_units(tmp_path):
    file = tmp_path / "map.csv"
    file.write_text(
        "x_cm;y_cm;z_cm;LAT [s];ARI (ms);Bipolar (uV)\n1;2;3;0.012;210;1500\n0;0;1;;;\n"
    )
    found = read_map(file)
    assert found.points.tolist() == [[10.0, 20.0, 30.0], [0.0, 0.0, 10.0]]
    assert found.lat[0] == pytest.approx(12.0)
    assert found.repol[0] == pytest.approx(222.0)
    assert found.bipolar[0] == pytest.approx(1.5)
    assert np.isnan(found.lat[1])


def test_tetrahedra_become_the_map_of_their_surface(tmp_path, heart, times):
    file = tmp_path / "heart.vtu"
    write_mesh(file, TetMesh(heart.points, heart.tets, {"activation": times}))
    found = read_map(file)
    assert found.shell.n_nodes == len(found.points) < heart.n_nodes
    assert set(found.lat) <= set(times)


def spoil(file, old, new, count=1):
    text = file.read_bytes().decode("cp1252")
    assert old in text
    file.write_bytes(text.replace(old, new, count).encode("cp1252"))
    return file


def bad_files(folder, m):
    """A damaged file and what its message must say."""
    shell = shell_of(m)

    def car(name):
        return write_car(folder / f"{name}_car.txt", m)

    def mesh(name, **options):
        return write_carto_mesh(folder / f"{name}.mesh", shell, **options)

    def dxl(name, parts=1):
        (folder / name).mkdir()
        return write_dxl(folder / name, m, parts=parts)

    x, y = (f"{v:.4f}" for v in m.points[0, :2])
    yield spoil(car("a"), "VERSION_4_0", "RELEASE 4"), "first line must begin with VERSION_4_0"
    yield spoil(car("b"), f"\t{x}\t{y}", f"\t{x}"), "line 2 has 20 columns|line 3 has 21"
    yield spoil(car("c"), f"\t{x}\t", "\tnan\t"), "no position.*first is point 3"
    yield spoil(car("d"), f"\t{x}\t", "\t9999\t"), "no position within 2 m"
    yield spoil(car("e"), f"\t{x}\t", f"\t{PATIENT}\t"), "x of entry 1 is no number"
    short = folder / "f_car.txt"
    short.write_text("VERSION_4_0 x\nP\t0\t1\t0\t1.0\t2.0\n")
    yield short, "line 2 has 6 columns, expected 'P'"
    only = folder / "g_car.txt"
    only.write_text("VERSION_4_0 x\n")
    yield only, "lists no points"
    yield spoil(mesh("a"), "Version2.0", "Version1.0"), "no CARTO shell"
    yield spoil(mesh("b"), "[TrianglesSection]", "[Tri]"), "no .TrianglesSection.; it has Gen"
    yield (
        spoil(mesh("c"), f"NumVertex              = {len(m.points)}", "NumVertex = 9"),
        "truncated",
    )
    yield spoil(mesh("d"), "  Force  Paso", "  Force"), "12 colours .* for 13 columns"
    yield spoil(mesh("e"), f"= {0:8d}", f"= {99999:8d}"), "vertex that is not there|not finite|rows"
    yield mesh("f", colours=False), "shell without activation times"
    yield spoil(dxl("a"), "rov LAT:", "rov time:"), "no row 'rov lat'; it has pt number"
    yield spoil(dxl("b"), "roving y:,", "roving y:,1.0,"), "'roving y' has .* expected"
    yield spoil(dxl("c"), "Begin data", "Begin"), "no line 'Begin data'"
    yield spoil(dxl("d"), "roving x", "moving x"), "names no 'roving x'"
    three = dxl("e", parts=3)
    three.with_name("DxL_2.csv").unlink()
    yield three, "file 1 of 3 .* DxL_2.csv is not in the folder"
    yield (
        write_ensite_x(folder / "Map_PP_bi.csv", m, value="PNeg"),
        "no column LAT; it has Rov trace",
    )
    dif = write_dif(folder / "a.xml", shell)
    yield spoil(dif, "<DIF>", "<XIF>").rename(folder / "b.xml"), "no complete XML"
    yield (
        spoil(write_dif(folder / "c.xml", shell), 'Vertices number="', 'Vertices number="1'),
        "damaged or truncated",
    )
    yield (
        write_dif(folder / "d.xml", shell, head='<!DOCTYPE d [<!ENTITY e "x">]>'),
        "document type or entities",
    )
    yield write_dif(folder / "e.xml", shell, comment="P-P Voltage"), "without activation times"
    other = folder / "f.xml"
    other.write_text("<VTKFile/>")
    yield other, "its root is not DIF"
    yield (
        spoil(write_map_csv(folder / "a.csv", m), "y_mm", "why"),
        "x, y and z .*; it has number, la",
    )
    yield spoil(write_map_csv(folder / "b.csv", m), "lat_ms", "late"), "activation times .*it has"
    yield spoil(write_map_csv(folder / "c.csv", m), "z_mm", "z_cm"), "different units"
    seconds = folder / "d.csv"
    seconds.write_text("x_mm,y_mm,z_mm,lat\n0,0,0,0.01\n9,0,0,0.09\n")
    yield seconds, "seconds, say so in the name"
    empty = folder / "empty.csv"
    empty.write_text(" \n")
    yield empty, "is empty"
    yield folder / "absent_car.txt", "no such file"
    word = folder / "map.docx"
    word.write_bytes(b"PK\x03\x04")
    yield word, "no map that is known here"


def test_bad_files_are_refused_in_one_line(tmp_path, sample):
    for file, said in bad_files(tmp_path, sample):
        try:
            read_map(file)
        except InputError as error:
            message = str(error)
        else:
            pytest.fail(f"{file.name} was read; expected: {said}")
        assert re.search(said, message), (file.name, message)
        assert message.startswith(str(file)), message
        assert "\n" not in message
        assert PATIENT not in message


def test_absurd_sizes_are_refused(tmp_path, sample, monkeypatch):
    monkeypatch.setattr("twinheart.calibration.mapping._MAX_POINTS", 10)
    with pytest.raises(InputError, match="1 to 10 points"):
        read_map(write_car(tmp_path / "a_car.txt", sample))
    huge = tmp_path / "huge_car.txt"
    with huge.open("wb") as file:
        file.write(b"VERSION_4_0 x\n")
        file.truncate(500_000_000)  # sparse: takes no room
    with pytest.raises(InputError, match="larger than 400 MB"):
        read_map(huge)


def test_unit_of_length_must_be_clear(tmp_path):
    file = tmp_path / "map.csv"
    file.write_text("x,y,z,lat_ms\n0,0,0,1\n9,0,0,20\n")
    with pytest.raises(UnitError, match=r"map\.csv: cannot tell the length unit"):
        read_map(file)
    assert read_map(file, length_unit="cm").points[1, 0] == 90.0


# --- places on the surface ---------------------------------------------------------------------


def test_nearest_places_are_exact_on_uneven_triangles():
    """Against every triangle compared in turn, for slivers whose centres are far from them."""
    rng = np.random.default_rng(5)
    points = rng.normal(size=(60, 3)) * [40.0, 20.0, 1.0]
    triangles = rng.integers(0, 60, (80, 3))
    triangles = triangles[np.ptp(np.sort(triangles, axis=1), axis=1) > 0].astype(np.int32)
    triangles = triangles[[len(set(t)) == 3 for t in triangles.tolist()]]
    surface = HeartSurface(points, triangles, np.arange(60))
    asked = rng.normal(size=(200, 3)) * 30.0
    triangle, weights, places = surface.closest(asked)
    expected = nearest_on_skin(TriMesh(points, triangles), asked)
    gap = np.linalg.norm(places - asked, axis=1)
    assert np.abs(gap - np.linalg.norm(expected - asked, axis=1)).max() < 1e-9
    assert weights.min() >= 0
    assert np.abs(weights.sum(axis=1) - 1).max() < EXACT64
    again = np.einsum("pk,pki->pi", weights, points[triangles[triangle]])
    assert np.abs(again - places).max() < EXACT64 * 100


def test_surfaces_that_a_heart_lacks_are_refused(heart):
    with pytest.raises(InputError, match="RV_ENDOCARDIUM"):
        heart_surface(heart, [SurfaceClass.RV_ENDOCARDIUM])


# --- registration ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_landmarks_recover_a_motion_and_a_scale(seed):
    rng = np.random.default_rng(seed)
    motion, places = a_motion(seed), rng.normal(size=(5, 3)) * 30.0
    factor = 1.1
    marks = {str(k): (p, factor * motion(p[None])[0]) for k, p in enumerate(places)}
    found = landmark_motion(marks, scale=True)
    assert found.scale == pytest.approx(factor, abs=1e-12)
    assert np.abs(found.rotation - motion.rotation).max() < 1e-12
    mirrored = {str(k): (p, p * [1, 1, -1]) for k, p in enumerate(places)}
    assert np.linalg.det(landmark_motion(mirrored).rotation) == pytest.approx(1.0)


def test_exact_points_and_landmarks_give_the_exact_motion(surface, times):
    motion = a_motion()
    measured, truth, _ = measured_at(surface, times, motion)
    found = register(measured, surface, marks_of(surface, motion))
    assert np.abs(found.map.points - truth).max() < 1e-9
    assert found.outliers == ()
    assert found.p95 < 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_noisy_map_is_registered_and_its_outliers_are_named(surface, times, seed):
    """Truth: a known motion. 2 mm noise, three points 25 mm off, landmarks placed 4 mm wrong."""
    motion = a_motion(seed)
    measured, truth, wrong = measured_at(
        surface, times, motion, every=2, noise=NOISE, outliers=3, seed=seed
    )
    marks = marks_of(surface, motion, error=4.0, seed=seed)
    found = register(measured, surface, marks)
    assert found.outliers == tuple(wrong)

    def error(by):  # at the true places, wherever they were measured
        return np.linalg.norm(by(inverse(motion)(truth)) - truth, axis=1)

    # better than any single point, and than the landmarks alone
    assert error(found.motion).mean() < NOISE
    assert error(found.motion).mean() < 0.5 * error(landmark_motion(marks)).mean()
    # half-normal: the mean distance of noise across a surface
    assert found.mean == pytest.approx(NOISE * np.sqrt(2 / np.pi), rel=0.15)
    assert f"{len(truth)} points lie more than 10 mm" in " ".join(found.sentences())


def test_outliers_do_not_pull(surface, times):
    motion = a_motion(2)
    clean, _, _ = measured_at(surface, times, motion, noise=NOISE, seed=2)
    dirty, _, wrong = measured_at(surface, times, motion, noise=NOISE, outliers=9, seed=2)
    marks = marks_of(surface, motion, error=3.0)
    good = np.isin(clean.numbers, wrong, invert=True)
    first = register(clean.only(good), surface, marks).motion
    second = register(dirty, surface, marks).motion
    assert np.abs(first(clean.points) - second(clean.points)).max() < 0.05


def test_landmarks_hold_the_turn_that_the_surface_leaves_open(times):
    """An ellipsoid may turn around its axis: only landmarks say how far."""
    mesh = lv_ellipsoid(edge=4.0)
    surface = heart_surface(mesh, [SurfaceClass.LV_ENDOCARDIUM])
    motion = a_motion(3)
    measured, _, _ = measured_at(surface, np.zeros(mesh.n_nodes), motion, noise=NOISE, seed=3)
    found = register(measured, surface, marks_of(surface, motion))
    around = np.degrees(Rotation.from_matrix(found.motion.rotation @ motion.rotation.T).as_rotvec())
    assert abs(around[2]) < 3.0


def test_shell_can_lead_the_points(surface, times):
    """Few points, but a whole shell: it alone is fitted, the points follow."""
    motion = a_motion(4)
    measured, truth, _ = measured_at(surface, times, motion, every=60)
    shell = TriMesh(inverse(motion)(surface.points), surface.triangles)
    measured = ElectroAnatomicalMap(measured.points, measured.lat, shell=shell)
    marks = marks_of(surface, motion, error=4.0)
    found = register(measured, surface, marks, by_shell=True, landmark_weight=0.0)
    assert np.abs(found.map.points - truth).max() < 0.01
    assert np.abs(found.map.shell.points - surface.points).max() < 0.01
    with pytest.raises(InputError, match="no shell"):
        register(ElectroAnatomicalMap(measured.points, measured.lat), surface, marks, by_shell=True)


def test_map_in_heart_coordinates_is_left_where_it_is(surface, times):
    still = RigidMotion(np.eye(3), np.zeros(3))
    measured, _, wrong = measured_at(surface, times, still, noise=1.0, outliers=2)
    found = register(measured, surface, already_registered=True)
    assert np.array_equal(found.motion.rotation, np.eye(3))
    assert found.outliers == tuple(wrong)
    assert register(measured, surface, already_registered=True, max_distance=30.0).outliers == ()


def refused(surface, times):
    measured, _, _ = measured_at(surface, times, a_motion(), every=40)
    marks = marks_of(surface, a_motion())
    line = {str(k): (np.eye(3)[0] * 30 * k, np.eye(3)[1] * 30 * k) for k in range(4)}
    flat = {**marks, "apex": ([0.0, 1.0], [0.0, 0.0, 0.0])}
    swapped = {name: (marks[name][0], marks[other][1])
               for name, other in zip(marks, [*marks][1:] + [*marks][:1], strict=True)}  # fmt: skip
    yield measured, None, {}, "give at least three landmarks .* or say already_registered=True"
    yield measured, dict([*marks.items()][:2]), {}, "2 landmarks are given .apex, anterior"
    yield measured, line, {}, "lie on one line"
    yield measured, flat, {}, "landmark apex: expected two places of three"
    yield measured, marks, {"already_registered": True}, "said to be registered already"
    yield measured, swapped, {"max_distance": 3.0}, "only .* within 3 mm .* which places"


def test_registration_says_what_it_needs(surface, times):
    for measured, marks, options, said in refused(surface, times):
        with pytest.raises(InputError, match=said):
            register(measured, surface, marks, **options)


# --- misfit ------------------------------------------------------------------------------------


def test_times_of_the_nodes_themselves_leave_no_residual(heart, surface, times, x64):
    measured = ElectroAnatomicalMap(surface.points, lat=times[surface.nodes] - 61.5)
    operator = map_operator(measured, surface)
    assert float(operator.offset(times)) == pytest.approx(-61.5)
    assert np.abs(operator.residual(times)).max() < 1e-10


def test_places_between_nodes_are_interpolated_linearly(heart, surface, x64):
    """A field linear in space is returned exactly at any place of the surface."""
    centres = surface.points[surface.triangles].mean(axis=1)
    measured = ElectroAnatomicalMap(centres, lat=centres @ [1.0, 2.0, -3.0])
    operator = map_operator(measured, surface)
    assert np.abs(operator.at_points(heart.points @ [1.0, 2.0, -3.0]) - measured.lat).max() < 1e-9


@pytest.fixture
def operator(surface, times):
    measured, _, _ = measured_at(surface, times, RigidMotion(np.eye(3), np.zeros(3)), noise=1.0)
    rng = np.random.default_rng(8)
    lat = measured.lat + rng.normal(0.0, 5.0, len(measured.lat))
    repol = lat + rng.normal(250.0, 10.0, len(lat))
    lat[::7], repol[::3] = np.nan, np.nan
    measured = ElectroAnatomicalMap(measured.points, lat=lat, repol=repol)
    return map_operator(measured, surface, sd=rng.uniform(3.0, 9.0, len(lat)))


def test_offset_is_the_best_one(operator, times, x64):
    """Against a search in one dimension, for activation alone and with repolarisation."""
    for fields in ((times,), (times, times + 240.0)):
        misfit, precision = operator._misfit(*(fields if len(fields) == 2 else (*fields, None)))
        best = minimize_scalar(lambda t: float(((precision * (misfit + t)) ** 2).sum()))  # noqa: B023
        assert float(operator.offset(*fields)) == pytest.approx(best.x, abs=1e-5)
        shifted = operator.residual(*(field + 33.0 for field in fields))
        assert np.abs(shifted - operator.residual(*fields)).max() < 1e-10


def test_what_was_not_measured_does_not_count(operator, times, x64):
    residual = operator.residual(times, times + 240.0)
    n = len(operator.lat)
    unknown = np.concatenate([np.isnan(operator.lat), np.isnan(operator.repol)])
    assert residual.shape == (2 * n,)
    assert np.all(residual[unknown] == 0)
    assert np.all(residual[~unknown] != 0)
    assert np.array_equal(operator.residual(times) == 0, np.isnan(operator.lat))


def test_residual_is_differentiable(operator, times, x64):
    @jax.jit
    @jax.value_and_grad
    def loss(field):
        return jnp.sum(operator.residual(field, field**1.1 + 240.0) ** 2)

    field = np.asarray(times) + 50.0
    way = np.random.default_rng(1).normal(size=field.shape)
    slope = float(loss(field)[1] @ way)
    step = 1e-4
    expected = float(loss(field + step * way)[0] - loss(field - step * way)[0]) / (2 * step)
    assert slope == pytest.approx(expected, rel=GRAD)


def test_misfit_without_data_is_refused(surface, times):
    measured, _, _ = measured_at(surface, times, RigidMotion(np.eye(3), np.zeros(3)))
    with pytest.raises(InputError, match="no repolarisation times"):
        map_operator(measured, surface).residual(times, times)
    with pytest.raises(InputError, match=r"standard deviation .* not positive"):
        map_operator(measured, surface, sd=0.0)
    with pytest.raises(InputError, match="none of the 2 points has an activation"):
        ElectroAnatomicalMap(np.zeros((2, 3)))


# --- a real heart ------------------------------------------------------------------------------


def test_real_activation_survives_every_format(tmp_path, data):
    """The activation of a real left endocardium, moved, with noise and gross errors."""
    mesh, _ = read_mesh(data / "biv_crt" / "reference_endocardial_activation.vtu")
    surface = heart_surface(mesh, [SurfaceClass.LV_ENDOCARDIUM])
    times = mesh.point_fields["activation"]
    motion = a_motion(6)
    measured, truth, wrong = measured_at(
        surface, times, motion, every=1, noise=NOISE, outliers=3, seed=6
    )
    marks = marks_of(surface, motion)
    for name, file in writers(tmp_path, with_shell(measured, surface)):
        assert np.abs(read_map(file).points - measured.points).max() < ROUNDED, name
    found = register(read_map(tmp_path / "1-LV_car.txt"), surface, marks)
    error = np.linalg.norm(found.motion(inverse(motion)(truth)) - truth, axis=1)
    assert found.outliers == tuple(wrong)
    assert error.max() < NOISE
    operator = map_operator(found.map, surface)
    assert float(operator.offset(times)) == pytest.approx(-80.0, abs=1.0)
