"""Corridors whose number and size are known: in slabs, and in scars planted in real anatomy."""

import numpy as np
import pytest
from synthetic_scar import Channel, Plan, Scar, random_plan, synthetic_lge, true_classes

from twinheart.anatomy import demo_heart
from twinheart.anatomy.corridors import DENSITY, find_corridors, without_islands
from twinheart.imaging.enhancement import CONVENTIONS, classify, measure_enhancement
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import slab
from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.io import read_mesh

# An element is 1 mm: edges of classes run along element faces, mouths lie an edge deep.
LENGTH_TOLERANCE = 2.0  # mm
AREA_TOLERANCE = 0.15


@pytest.fixture(scope="module")
def wall() -> TetMesh:
    return slab((46.0, 40.0, 4.0), 1.0)


@pytest.fixture(scope="module")
def demo() -> TetMesh:
    return demo_heart().mesh


def square_scar(mesh: TetMesh, strips, *, half=10.0, halo=3.0) -> np.ndarray:
    """A square core with a halo, both through the whole wall; border zone where `strips` says."""
    x, y, z = (mesh.points[mesh.tets].mean(axis=1) - [23.0, 20.0, 2.0]).T
    from_middle = np.maximum(np.abs(x), np.abs(y))
    classes = np.where(from_middle < half, 2, np.where(from_middle < half + halo, 1, 0))
    classes[strips(x, y, z) & (from_middle < half)] = 1
    return classes.astype(np.int32)


@pytest.mark.parametrize("halo", [0.0, 3.0, 6.0])
def test_a_channel_is_found_and_measured(wall, halo):
    classes = square_scar(wall, lambda x, y, z: np.abs(x) < 3, halo=halo)
    (found,) = find_corridors(wall, classes)
    assert found.length == pytest.approx(20 + 2 * halo, abs=LENGTH_TOLERANCE + 0.1 * halo)
    assert found.width == pytest.approx(6.0, abs=1.0)
    assert found.area == pytest.approx(6 * 4, rel=AREA_TOLERANCE)
    assert found.mass <= DENSITY * 6 * 4 * (20 + 2 * halo) / 1000
    assert found.n_mouths == 2
    ends = np.sort(found.mouths[:, 1] - 20.0)
    assert ends[0] < 0 < ends[1]
    assert (classes[found.tets] == 1).all()


@pytest.mark.parametrize(
    ("name", "strips"),
    [
        ("a plain core", lambda x, y, z: x > 99),
        ("a bay", lambda x, y, z: (np.abs(x) < 3) & (y > -2)),
        ("a blocked channel", lambda x, y, z: (np.abs(x) < 3) & (np.abs(y) > 2)),
        ("border zone within core", lambda x, y, z: (np.abs(x) < 3) & (np.abs(y) < 6)),
        ("a channel of one element", lambda x, y, z: (np.abs(x) < 0.5) & (np.abs(z) < 0.5)),
    ],
)
def test_what_is_no_corridor(wall, name, strips):
    assert find_corridors(wall, square_scar(wall, strips)) == [], name


def test_a_channel_of_healthy_tissue_is_no_corridor(wall):
    classes = square_scar(wall, lambda x, y, z: x > 99)
    x = np.abs(wall.points[wall.tets].mean(axis=1)[:, 0] - 23.0)
    classes[x < 2] = 0
    assert find_corridors(wall, classes) == []


def test_a_strand_open_along_its_roof_is_no_corridor():
    """A wave enters it all along: core fills half the wall, healthy muscle lies above."""
    mesh = slab((46.0, 40.0, 8.0), 1.0)
    classes = square_scar(mesh, lambda x, y, z: np.abs(x) < 3, halo=0.0)
    classes[mesh.points[mesh.tets].mean(axis=1)[:, 2] > 4] = 0
    assert find_corridors(mesh, classes) == []


def test_border_zone_without_core_is_no_corridor(wall):
    """A band of border zone from rim to rim parts the healthy tissue, but runs along no core."""
    x = wall.points[wall.tets].mean(axis=1)[:, 0]
    classes = (np.abs(x - 23) < 9).astype(np.int32)
    assert find_corridors(wall, classes) == []


def test_two_channels_are_two(wall):
    found = find_corridors(wall, square_scar(wall, lambda x, y, z: np.abs(np.abs(x) - 5) < 2.5))
    assert len(found) == 2
    assert found[0].mass == pytest.approx(found[1].mass, rel=0.05)


def test_a_cross_is_one_corridor_with_four_mouths(wall):
    (found,) = find_corridors(
        wall, square_scar(wall, lambda x, y, z: np.minimum(np.abs(x), np.abs(y)) < 3)
    )
    assert found.n_mouths == 4


def test_core_and_valve_bound_a_corridor(wall):
    """The core ends 5 mm from the rim of the tissue, which is the base."""
    x, y, _ = wall.points[wall.tets].mean(axis=1).T
    beside = np.abs(x - 23) < 12
    classes = np.where(beside & (y < 20), np.where(y < 5, 1, 2), 0).astype(np.int32)
    tags = np.where(wall.points[:, 1] == 0, SurfaceClass.BASE, 0).astype(np.int32)
    mesh = TetMesh(wall.points, wall.tets, {"surf_class": tags})
    (found,) = find_corridors(mesh, classes)
    assert found.length == pytest.approx(24.0, abs=LENGTH_TOLERANCE)
    assert found.width == pytest.approx(5.0, abs=1.0)


def test_noise_neither_makes_nor_hides_a_corridor(wall):
    """One element in fifty takes a random class."""
    rng = np.random.default_rng(3)
    for strips, n in ((lambda x, y, z: np.abs(x) < 3, 1), (lambda x, y, z: x > 99, 0)):
        classes = square_scar(wall, strips)
        changed = rng.random(wall.n_tets) < 0.02
        classes[changed] = rng.integers(0, 3, changed.sum())
        assert len(find_corridors(wall, classes)) == n


def test_islands_are_removed_and_large_pieces_kept(wall):
    classes = square_scar(wall, lambda x, y, z: x > 99)
    speckled = classes.copy()
    speckled[np.flatnonzero(classes == 0)[::97]] = 2
    speckled[np.flatnonzero(classes == 2)[::97]] = 0
    cleaned = without_islands(wall, speckled)
    assert (cleaned[classes == 0] == 0).all()
    assert (cleaned[classes == 2] > 0).all()
    np.testing.assert_array_equal(without_islands(wall, classes), classes)


def test_a_heart_without_scar_has_none(demo):
    assert find_corridors(demo, np.zeros(demo.n_tets, dtype=np.int32)) == []


def corridors_of_image(mesh: TetMesh, plan: Plan, convention: str, seed: int) -> tuple[int, int]:
    """Number of corridors in the true classes, and in those of a noisy image."""
    scar, chosen = Scar(plan, mesh), CONVENTIONS[convention]
    image = synthetic_lge(scar, chosen, seed=seed)
    seen = classify(measure_enhancement(image, mesh), chosen)
    return (
        len(find_corridors(mesh, true_classes(scar, chosen))),
        len(find_corridors(mesh, seen)),
    )


@pytest.mark.parametrize(
    "plan",
    [
        Plan(0.0, 35.0, (22.0, 15.0), 3.0, (Channel(1, -8.5, 6.0), Channel(1, 8.5, 6.0))),
        Plan(25.0, 35.0, (22.0, 15.0), 4.0, (Channel(0, 0.0, 6.0, blind=True),)),
        Plan(-30.0, 21.0, (22.0, 15.0), 2.5, valve_gap=6.0),
    ],
    ids=["two channels", "a bay", "along the valve"],
)
def test_planted_corridors_are_found_in_an_image(demo, plan):
    assert corridors_of_image(demo, plan, "roes", 0) == (plan.n_corridors, plan.n_corridors)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("heart", ["demo", "mean shape"])
def test_random_scars(demo, data, heart, seed):
    """All corridors found, none invented."""
    mesh = demo
    if heart == "mean shape":
        mesh = read_mesh(data / "biv_mean_shape" / "heart_tets.vtu", length_unit="mm")[0]
    assert isinstance(mesh, TetMesh)
    plan = random_plan(np.random.default_rng(seed))
    convention = ("adas", "roes", "fwhm", "adas-65-35")[seed % 4]
    assert corridors_of_image(mesh, plan, convention, seed) == (plan.n_corridors,) * 2, plan
