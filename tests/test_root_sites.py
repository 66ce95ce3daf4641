"""Root sites and places named on the endocardium: by anatomy, in every heart."""

import numpy as np
import pytest

import twinheart as th
from twinheart.anatomy.endocardium import Endocardium, Ground, endocardium
from twinheart.anatomy.frame import heart_frame
from twinheart.anatomy.root_sites import root_sites
from twinheart.cli.build import build_stimuli
from twinheart.cli.case import check_case
from twinheart.errors import MeshError, ModelError
from twinheart.mesh.implicit import SurfaceClass

LV, RV = SurfaceClass.LV_ENDOCARDIUM, SurfaceClass.RV_ENDOCARDIUM


def surface_of(mesh, side) -> Endocardium:
    surface = endocardium(mesh, side)
    assert surface is not None
    return surface


@pytest.fixture(scope="module")
def heart() -> th.Heart:
    return th.demo_heart()


def centre(heart, sites, name) -> np.ndarray:
    (site,) = (site for site in sites if site.name == name)
    return heart.mesh.points[site.nodes].mean(axis=0)


def test_durrer_sites_lie_where_their_names_say(heart):
    """The demo heart hangs from z = 0 with the RV towards -x and its front towards -y."""
    sites = root_sites(heart.mesh)
    septum, front, behind = (
        centre(heart, sites, f"LV {name}")
        for name in ("septum, middle", "anterior, paraseptal", "posterior, paraseptal")
    )
    assert septum[0] < -15
    assert abs(septum[1]) < 12
    assert front[1] < -15
    assert front[2] > behind[2]
    assert behind[1] > 10
    papillary = centre(heart, sites, "RV anterior papillary muscle")
    assert papillary[0] < -45  # on the free wall


def test_left_ventricle_leads(heart):
    """Three left areas within 5 ms, the right ventricle 5 to 10 ms after the first."""
    sites = root_sites(heart.mesh)
    left = sorted(site.onset for site in sites if site.name.startswith("LV"))
    right = min(site.onset for site in sites if site.name.startswith("RV"))
    assert left[0] == 0
    assert left[2] <= 5
    assert 5 <= right <= 10


def test_without_right_ventricle_left_sites_remain():
    sites = root_sites(th.mesh.generate.lv_ellipsoid(edge=4.0))
    assert sites
    assert all(site.name.startswith("LV") for site in sites)


def test_command_line_names_them(heart):
    case = check_case({"stimuli": [{"where": "durrer", "start": 3.0}, {"where": "apex"}]})
    stimuli = build_stimuli(case, heart)
    sites = root_sites(heart.mesh)
    assert len(stimuli) == len(sites) + 1
    assert [float(s.start) for s in stimuli[:-1]] == [3.0 + site.onset for site in sites]


def test_walking_keeps_to_the_surface_and_arrives(heart):
    ground = Ground(surface_of(heart.mesh, LV))
    surface = ground.surface
    start, goal = surface.place(0.8, 0.83), surface.place(0.4, 0.3)  # half way around
    way = ground.walk(start, goal, 1.0)
    steps = np.linalg.norm(np.diff(way, axis=0), axis=1)
    assert np.linalg.norm(ground.project(way)[0] - way, axis=1).max() < 1e-9
    assert np.linalg.norm(way[-1] - goal) <= 1.0
    # longer than the chord through the cavity, shorter than the way along two walls of its box
    assert np.linalg.norm(goal - start) < steps.sum() < np.pi / 2 * np.linalg.norm(goal - start) + 5


def test_projection_is_the_nearest_point():
    """Against a search over a dense sample of every triangle."""
    mesh = th.mesh.generate.lv_ellipsoid(edge=4.0)
    ground = Ground(surface_of(mesh, LV))
    rng = np.random.default_rng(0)
    points = ground.corners.mean(axis=1)[::40] + rng.normal(scale=1.0, size=(1, 3))
    found, _ = ground.project(points)
    k = np.arange(21)
    first, second = np.meshgrid(k, k)
    first, second = (x[first + second <= 20] / 20 for x in (first, second))
    weights = np.stack([first, second, 1 - first - second], axis=1)
    sample = np.einsum("sk,tki->tsi", weights, ground.corners).reshape(-1, 3)
    dense = np.linalg.norm(points[:, None] - sample, axis=2).min(axis=1)
    exact = np.linalg.norm(points - found, axis=1)
    assert (exact <= dense + 1e-9).all()
    assert (dense - exact).max() < 0.4  # the sample's spacing is 0.3 mm


def test_axes_of_the_estimate(heart):
    """Without coordinates, rt turns from the back over the lateral wall to the front."""
    frame = heart_frame(heart.mesh)
    lv = surface_of(heart.mesh, LV)
    middle = lv.points.mean(axis=0)
    for rt, direction in ((5 / 6, frame.rv), (7 / 12, frame.anterior), (1 / 3, -frame.rv)):
        offset = lv.place(0.6, rt) - middle
        offset -= frame.base * (offset @ frame.base)
        assert offset @ direction > 0.9 * np.linalg.norm(offset)


def test_bad_input_is_refused(heart):
    with pytest.raises(ModelError, match="radius"):
        root_sites(heart.mesh, radius=0.0)
    with pytest.raises(MeshError, match="surf_class"):
        root_sites(th.mesh.generate.slab((4.0, 4.0, 4.0), 1.0))
