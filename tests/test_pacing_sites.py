"""Pacing sites: in their segments, on the endocardium, never on scar."""

import numpy as np
import pytest

from twinheart.anatomy import Heart, demo_heart
from twinheart.anatomy.aha import SEGMENTS, aha_segments
from twinheart.anatomy.coordinates import Coordinates
from twinheart.errors import InputError
from twinheart.mesh import TriMesh
from twinheart.mesh.generate import lv_ellipsoid, slab
from twinheart.mesh.implicit import SurfaceClass
from twinheart.planning import AHA_PLACES, aha_sites, place_sites
from twinheart.tissue import NonConducting, Velocities, build_eikonal, build_surface_eikonal


def test_places_are_the_middles_of_their_segments():
    ab, rt = np.array(AHA_PLACES).T

    def segments(height, turn):
        n = np.zeros(17)
        return aha_segments(Coordinates(n, height, np.mod(turn, 1.0), n.astype(int)))

    assert segments(ab, rt).tolist() == list(range(1, 18))
    # as far to one side as to the other: half a sector of a sixth or of a quarter of a turn
    half = np.where(np.arange(17) < 12, 1 / 12, 1 / 8)[:16]
    for side in (-1, 1):
        assert (segments(ab, rt + side * np.append(half - 1e-6, 0)) == np.arange(1, 18)).all()
        assert (segments(ab, rt + side * np.append(half + 1e-6, 0))[:16] != np.arange(1, 17)).all()


@pytest.fixture(scope="module")
def demo():
    heart = demo_heart()
    return heart, aha_sites(heart.mesh, build_eikonal(heart))


def test_sites_of_a_biventricle_lie_on_the_endocardium_and_apart(demo):
    heart, sites = demo
    assert len(sites) == 19
    assert [s.name for s in sites[17:]] == ["RV apex", "RVOT"]
    assert all(s.note is None for s in sites)
    points = np.array([s.position for s in sites])
    node = np.linalg.norm(heart.mesh.points[None] - points[:, None], axis=2).argmin(axis=1)
    classes = heart.mesh.point_fields["surf_class"][node]
    assert (classes[:17] == SurfaceClass.LV_ENDOCARDIUM).all()
    assert (classes[17:] == SurfaceClass.RV_ENDOCARDIUM).all()
    apart = np.linalg.norm(points[None] - points[:, None], axis=2) + 1e3 * np.eye(19)
    assert apart.min() > 5.0


def test_sites_of_the_demo_heart_are_where_their_names_say(demo):
    """It hangs from z = 0, the right ventricle towards -x, the front towards -y."""
    _, sites = demo
    at = {s.name: np.array(s.position) for s in sites}
    front, behind = at["AHA 7 mid anterior"], at["AHA 10 mid inferior"]
    assert front[1] < behind[1]
    assert at["AHA 9 mid inferoseptal"][0] < at["AHA 11 mid inferolateral"][0]
    assert at["AHA 1 basal anterior"][2] > front[2] > at["AHA 13 apical anterior"][2]
    assert at["AHA 17 apex"][2] == min(p[2] for n, p in at.items() if n.startswith("AHA"))
    assert at["RVOT"][2] > at["RV apex"][2] + 30.0
    assert at["RVOT"][1] < 0


def scarred_slab(width: float):
    """A slab of 40 mm whose first `width` mm do not conduct."""
    mesh = slab((40.0, 6.0, 2.0), 1.0)
    scar = (mesh.points[mesh.tets].mean(axis=1)[:, 0] < width).astype(int)
    return build_eikonal(Heart(mesh, regions=scar), {0: Velocities(), 1: NonConducting()})


def test_a_site_on_scar_is_moved_to_the_nearest_tissue_and_one_beside_it_is_not():
    asked = [[4.0, 3.0, 1.0], [20.2, 3.3, 0.7]]
    moved, left = place_sites(scarred_slab(8.0), asked, ["on scar", "beside"])
    assert moved.position == (8.0, 3.0, 1.0)
    assert moved.moved == pytest.approx(4.0)
    assert "on scar" in str(moved.note)
    assert "4.0 mm" in str(moved.note)
    assert left.position == left.asked == tuple(asked[1])
    assert left.note is None


def test_a_site_too_far_from_tissue_is_refused():
    problem = scarred_slab(20.0)
    with pytest.raises(InputError, match=r"site 1 at \(2.0, 3.0, 1.0\) mm is 18.0 mm from"):
        place_sites(problem, [[2.0, 3.0, 1.0]])
    assert place_sites(problem, [[2.0, 3.0, 1.0]], furthest=18.5)[0].position[0] == 20.0


def test_an_island_in_scar_is_no_place_to_pace():
    mesh = slab((60.0, 10.0, 2.0), 1.0)
    centre = mesh.points[mesh.tets].mean(axis=1)
    island = (np.abs(centre - [3.5, 3.5, 0.5]) < 0.5).all(axis=1)
    scar = ((centre[:, 0] < 8.0) & ~island).astype(int)
    problem = build_eikonal(Heart(mesh, regions=scar), {0: Velocities(), 1: NonConducting()})
    site = place_sites(problem, [[3.5, 3.5, 0.5]])[0]
    assert site.position[0] == 8.0


def test_points_on_a_surface():
    points = np.array([[0.0, 0, 0], [9, 0, 0], [0, 9, 0], [9, 9, 0]])
    problem = build_surface_eikonal(TriMesh(points, np.array([[0, 1, 2], [1, 3, 2]])))
    assert place_sites(problem, [3.0, 3.0, 0.0])[0].position == (3.0, 3.0, 0.0)


def test_bad_sites_are_refused():
    problem = scarred_slab(8.0)
    lone = lv_ellipsoid(edge=4.0)
    for call, message in (
        (lambda: place_sites(problem, [[1.0, 2.0]]), "shape"),
        (lambda: place_sites(problem, [[1.0, 2.0, np.nan]]), "finite"),
        (lambda: place_sites(problem, [[9.0, 2, 1]] * 2, ["a", "a"]), "of its own"),
        (lambda: place_sites(problem, [[9.0, 2, 1]], ["a", "b"]), "of its own"),
        (lambda: place_sites(problem, [[9.0, 2, 1]], furthest=-1.0), "at least 0"),
        (lambda: aha_sites(lone, problem), "this mesh"),
    ):
        with pytest.raises(InputError, match=message):
            call()
    assert len(SEGMENTS) == len(AHA_PLACES)
