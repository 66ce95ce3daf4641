"""Painted scar: distances on a sphere, depths, channels that join; the command and its file."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_cli_simulate import last_error

from twinheart.anatomy import Coordinates, add_coordinates, demo_heart, load_heart, mesh_of_heart
from twinheart.anatomy.corridors import find_corridors
from twinheart.anatomy.transfer import coordinates_at, places_of_coordinates
from twinheart.cli import main
from twinheart.cli.paint import EXAMPLE, AreaSection, ChannelSection, CoreSection
from twinheart.errors import InputError
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import lv_ellipsoid
from twinheart.mesh.io import read_mesh, write_mesh
from twinheart.mesh.quality import mean_edge
from twinheart.planning import Area, Channel, ScarPlan, paint_scar
from twinheart.tissue.scar import has_scar

INNER = 25.0  # radius of the cavity of a spherical ventricle, mm


@pytest.fixture(scope="module")
def sphere():
    return add_coordinates(
        lv_ellipsoid(edge=1.8, radius=INNER, depth=INNER, wall=10.0, apex_wall=10.0)
    )


@pytest.fixture(scope="module")
def demo():
    return add_coordinates(mesh_of_heart(demo_heart()))


def centres(mesh):
    return mesh.points[mesh.tets].mean(axis=1)


def through_wall(mesh, ab, rt, count):
    """Points at one height and turn, from endocardium to epicardium."""
    one = np.ones(count)
    at = Coordinates(np.linspace(0, 1, count), ab * one, rt * one, np.zeros(count, dtype=int))
    return places_of_coordinates(mesh, at).of_nodes(mesh.points)


def shell_way(points, source):
    """Shortest way within a spherical shell: straight, or round the cavity along tangents."""
    near, far = np.linalg.norm(source), np.linalg.norm(points, axis=1)
    near, far = max(near, INNER), np.maximum(far, INNER)
    angle = np.arccos(np.clip(points @ source / near / far, -1, 1))
    chord = np.sqrt(near**2 + far**2 - 2 * near * far * np.cos(angle))
    round_it = angle - np.arccos(INNER / near) - np.arccos(INNER / far)
    bent = np.sqrt(near**2 - INNER**2) + np.sqrt(far**2 - INNER**2) + INNER * round_it
    return np.where(round_it > 0, bent, chord)


def agree(classes, kind, way, limit, edge):
    """Tetrahedra are of a kind where the way is below a limit, up to the size of the mesh."""
    wrong = (classes == kind) != (way <= limit)
    assert np.abs(way[wrong] - limit).max(initial=0.0) < 0.6 * edge
    assert ((classes == kind) & ~wrong).sum() > 20 * wrong.sum() / edge


def test_radius_and_rim_are_ways_along_the_wall(sphere):
    line = through_wall(sphere, 0.5, 0.3, 30)
    way = np.min([shell_way(centres(sphere), point) for point in line], axis=0)
    classes = paint_scar(sphere, ScarPlan([Area(at=(0.5, 0.3), radius=16.0, rim=5.0)]))
    edge = mean_edge(sphere)
    agree(classes, 2, way, 16.0, edge)
    agree(classes + (classes == 1), 2, way, 21.0, edge)  # core and rim together
    assert 30 < np.degrees(16.0 / INNER) < 40  # far enough round for a chord to be too short


def test_channel_has_its_width_and_joins_both_sides(sphere):
    core = Area(at=(0.5, 0.3), radius=16.0, rim=4.0)
    whole = paint_scar(sphere, ScarPlan([core]))
    channel = Channel(path=[(0.1, 0.3), (0.95, 0.3)], width=7.0)
    cut = paint_scar(sphere, ScarPlan([core], channels=[channel]))
    was_core = whole == 2
    assert (cut[~was_core] == whole[~was_core]).all()  # a channel changes core only
    across = np.cross(
        through_wall(sphere, 0.5, 0.3, 3)[1], [0.0, 0.0, 1.0]
    )  # the path is a meridian
    way = np.abs(centres(sphere) @ across / np.linalg.norm(across))[was_core]
    agree(cut[was_core], 1, way, 3.5, mean_edge(sphere))
    (corridor,) = find_corridors(sphere, cut)
    assert corridor.n_mouths == 2
    assert corridor.width == pytest.approx(7.0, abs=1.5)
    assert find_corridors(sphere, whole) == []
    blind = Channel(path=[(0.5, 0.3), (0.95, 0.3)], width=7.0)
    assert find_corridors(sphere, paint_scar(sphere, ScarPlan([core], channels=[blind]))) == []


def test_two_channels_are_two_corridors(demo):
    core = Area(at=(0.5, 1 / 3), radius=24.0, rim=4.0)
    paths = ([(0.05, rt), (0.98, rt)] for rt in (0.26, 0.4))
    plan = ScarPlan([core], channels=[Channel(path=path, width=6.0) for path in paths])
    assert len(find_corridors(demo, paint_scar(demo, plan))) == 2


def test_patch_and_depth_are_ranges_of_coordinates(demo):
    patch = Area(ab=(0.3, 0.7), rt=(0.9, 0.2), tm=(0.0, 0.5), ventricle="both")
    classes = paint_scar(demo, ScarPlan(borders=[patch]))
    at = coordinates_at(demo, centres(demo))
    expected = (at.ab >= 0.3) & (at.ab <= 0.7) & (at.tm <= 0.5)
    expected &= (at.rt >= 0.9) | (at.rt <= 0.2)  # through 0, not the long way round
    assert (classes == expected).all()
    assert set(at.tv[classes == 1]) == {0, 1}


def test_only_both_fills_the_septum(demo):
    at = coordinates_at(demo, centres(demo))
    for ventricle, sides in (("lv", {0}), ("rv", {1}), ("both", {0, 1})):
        area = Area(at=(0.6, 5 / 6), radius=12.0, ventricle=ventricle)
        assert set(at.tv[paint_scar(demo, ScarPlan([area])) == 2]) == sides


def test_paint_does_not_depend_on_numbering_or_place(demo):
    plan = ScarPlan(
        [Area(at=(0.5, 0.3), radius=15.0, rim=3.0)],
        channels=[Channel([(0.2, 0.25), (0.5, 0.3), (0.9, 0.3)], 6.0, tm=(0.5, 0.5))],
    )
    rng = np.random.default_rng(0)
    order = rng.permutation(demo.n_nodes)
    number = np.argsort(order)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    other = TetMesh(
        demo.points[order] @ turn.T + [3.0, -8.0, 20.0],
        number[demo.tets],
        {name: values[order] for name, values in demo.point_fields.items()},
    )
    first, second = paint_scar(demo, plan), paint_scar(other, plan)
    assert (first != second).sum() <= 3  # float32: a centre may lie just on a limit
    assert (first == 1).sum() > 100


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (ScarPlan([Area(at=(0.5, 0.3), radius=0.01)]), "core 1 holds no tetrahedron"),
        (ScarPlan([Area(at=(0.5, 0.3), radius=9.0, ventricle="rv")]), "only a left"),
        (
            ScarPlan(
                [Area(at=(0.3, 0.3), radius=5.0)], channels=[Channel([(0.9, 0.7), (0.9, 0.8)], 5.0)]
            ),
            "channel 1 crosses no core",
        ),
    ],
)
def test_what_cannot_be_painted_is_refused(sphere, plan, said):
    with pytest.raises(InputError, match=said):
        paint_scar(sphere, plan)


def test_an_area_is_a_disc_or_a_patch():
    for keys in ({"at": (0.5, 0.3)}, {"at": (0.5, 0.3), "radius": 3.0, "ab": (0.0, 1.0)}, {}):
        with pytest.raises(InputError, match="either a disc"):
            Area(**keys)


@pytest.fixture(scope="module")
def heart(demo, tmp_path_factory):
    path = tmp_path_factory.mktemp("paint") / "heart.vtu"
    write_mesh(path, demo)
    return path


def test_command_paints_what_the_example_says(heart, tmp_path, capsys):
    spec, out = tmp_path / "scar.toml", tmp_path / "scarred.vtu"
    spec.write_text(EXAMPLE)
    assert main(["scar", "paint", str(heart), str(spec), "-o", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["convention"] == "painted"
    assert found["n_corridors"] == found["n_channels"] == 1
    mesh, _ = read_mesh(out)
    assert set(np.unique(mesh.cell_fields["scar"])) == {0, 1, 2}
    assert mesh.cell_fields["corridor"].max() == 1
    assert {"fibre", "region"} <= set(mesh.cell_fields)
    assert has_scar(load_heart(out))
    page = (tmp_path / "scarred.html").read_text()
    assert "placed by coordinates" in page
    # painted again, and a channel that ends in core: both are said
    text = EXAMPLE.replace("[0.2, 0.33]", "[0.55, 0.33]").replace("6.0 ", "2.0 ")
    spec.write_text(text)
    assert main(["scar", "paint", str(out), str(spec), "-o", str(out), "--no-report"]) == 0
    said = capsys.readouterr().err
    for words in ("painted over", "narrower than two edges", "1 channels are painted, but 0"):
        assert words in said


CORE = "[[core]]\nat = [0.5, 0.3]\nradius = 9.0\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot read what to paint"),
        ("core = ", "not a TOML file"),
        ("", "nothing to paint"),
        (CORE + "raduis = 3", "unknown key 'core[1].raduis'; the nearest is 'radius'"),
        (CORE + "[[strand]]\n", "unknown key 'strand'; valid here: core, border, channel"),
        (CORE + "rim = -1", "'core[1].rim' is '-1', expected greater than or equal to 0"),
        ("[[core]]\nat = [0.5, 0.3]", "'core[1]': an area is either a disc (at and radius)"),
        ("[[border]]\nat = [0.5, 1.3]\nradius = 3", "'border[1].at' has [0.5, 1.3]"),
        ("[[core]]\nab = [0.5, 0.1]\nrt = [0, 0.1]", "'core[1].ab' is [0.5, 0.1], expected [from"),
        ("[[core]]\nab = [0.1, 0.5]\nrt = [0.1, 0.1]", "two different turns"),
        (CORE + "[[channel]]\nwidth = 3", "'channel[1].path' is missing"),
        (CORE + "[[channel]]\npath = [[0.1, 0.2]]\nwidth = 3", "at least 2 items"),
        (CORE + "[[channel]]\npath = [[0.1], [0.2, 0.3]]\nwidth = 3", "expected [height, turns]"),
        (CORE + "ventricle = 'la'", "expected 'lv', 'rv' or 'both'"),
        (CORE + "radius = 3", "not a TOML file"),
        (CORE.replace("9.0", "nan"), "'core[1].radius' is 'nan', expected a finite number"),
        (CORE.replace("9.0", "'9'"), "expected a number"),
    ],
)
def test_files_that_are_wrong_are_told_in_a_line(heart, tmp_path, capsys, text, said):
    spec, out = tmp_path / "scar.toml", tmp_path / "out.vtu"
    if text is not None:
        spec.write_text(text)
    assert main(["scar", "paint", str(heart), str(spec), "-o", str(out)]) == 2
    assert said in last_error(capsys)
    assert not out.exists()


def test_words_that_do_not_fit_are_refused(heart, tmp_path, capsys):
    spec = tmp_path / "scar.toml"
    spec.write_text(EXAMPLE)
    for arguments, said in (
        (["paint", str(heart)], "paints what SPEC says"),
        (["lge.nii", str(heart), str(spec)], "needs no SPEC"),
        (["paint", str(heart), str(spec), "--convention", "roes"], "belong to an image"),
    ):
        assert main(["scar", *arguments]) == 2
        assert said in last_error(capsys)


def test_help_names_the_tables(capsys):
    assert main(["scar", "--help"]) == 0
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "tables core, border and channel" in words


def test_the_page_explains_the_example_and_every_key():
    page = (Path(__file__).parents[1] / "docs" / "scar_painting.md").read_text()
    assert EXAMPLE in page
    for table in (AreaSection, CoreSection, ChannelSection):
        assert all(f"`{name}`" in page for name in table.model_fields)
