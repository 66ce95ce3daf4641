"""Contact electrograms: fronts under electrodes, bipoles, references, places on surfaces."""

import numpy as np
import pytest

from twinheart.anatomy import Heart
from twinheart.anatomy.torso import TorsoRegion
from twinheart.ecg import Electrodes
from twinheart.ecg.body_map import body_map, torso_lead_field
from twinheart.ecg.electrograms import (
    activation_from_unipolar,
    bipolar,
    peak_to_peak,
    surface_sites,
    unipolar_weights,
)
from twinheart.ecg.torso_field import heart_tensors, torso_conductor
from twinheart.errors import InputError, MeshError
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import slab
from twinheart.tissue import NIEDERER_2011

SPEED, RISE = 0.5, 1.5  # m/s; ms of the upstroke


@pytest.fixture(scope="module")
def sheet():
    """A sheet of 40 x 20 x 2 mm, and a plane front that runs along x."""
    mesh = slab((40.0, 20.0, 2.0), 1.0)
    return Heart(mesh), np.tile(0.2 * np.eye(3), (mesh.n_tets, 1, 1))


def front(mesh: TetMesh, t: np.ndarray) -> np.ndarray:
    lat = mesh.points[:, 0] / SPEED
    return -85 + 50 * (1 + np.tanh((t[:, None] - lat) / RISE))


def row_of(positions) -> Electrodes:
    positions = np.atleast_2d(positions)
    return Electrodes([f"E{k}" for k in range(len(positions))], positions)


def test_steepest_fall_is_the_activation_under_the_electrode(sheet):
    heart, sigma_i = sheet
    places = [[x + 0.3, 9.6, 3.0] for x in (12.0, 16.0, 20.0, 24.0, 28.0)]
    weights = unipolar_weights(heart, row_of(places), sigma_i)
    t = np.arange(0.0, 80.0, 0.25)
    unipolar = front(heart.mesh, t) @ weights.T
    found = activation_from_unipolar(t, unipolar)
    expected = np.array(places)[:, 0] / SPEED
    assert np.abs(found - expected).max() < 0.5
    # positive while the front comes, negative when it has gone: an RS complex
    for k, lat in enumerate(expected):
        assert (
            unipolar[np.abs(t - lat + 5).argmin(), k]
            > 0
            > unipolar[np.abs(t - lat - 5).argmin(), k]
        )


def test_first_and_last_places_see_only_a_leaving_and_only_a_coming_front(sheet):
    heart, sigma_i = sheet
    weights = unipolar_weights(heart, row_of([[-1.0, 9.6, 1.1], [41.0, 9.6, 1.1]]), sigma_i)
    t = np.arange(0.0, 90.0, 0.5)
    first, last = (front(heart.mesh, t) @ weights.T).T
    assert first.max() < 0.1 * -first.min()  # QS
    assert -last.min() < 0.1 * last.max()  # R


def test_bipoles_see_fronts_along_them_and_not_across(sheet):
    heart, sigma_i = sheet
    along = [[19.2, 9.6, 3.0], [21.2, 9.6, 3.0]]
    across = [[20.2, 8.6, 3.0], [20.2, 10.6, 3.0]]
    t = np.arange(0.0, 80.0, 0.25)
    vm = front(heart.mesh, t)
    first, second = (
        bipolar(vm @ unipolar_weights(heart, row_of(pair), sigma_i).T) for pair in (along, across)
    )
    assert peak_to_peak(second)[0] < 0.05 * peak_to_peak(first)[0]
    # no reference is left: a shift common to both electrodes does not matter
    unipolar = vm @ unipolar_weights(heart, row_of(along), sigma_i).T
    assert np.abs(bipolar(unipolar + 7.0) - first).max() < 1e-5


def test_voltage_falls_with_the_distance_of_the_electrode(sheet):
    heart, sigma_i = sheet
    places = row_of([[20.2, 9.6, 2.0 + d] for d in (0.05, 0.5, 1.0, 2.0, 4.0, 8.0)])
    t = np.arange(20.0, 60.0, 0.5)
    voltage = peak_to_peak(front(heart.mesh, t) @ unipolar_weights(heart, places, sigma_i).T)
    assert np.isfinite(voltage).all()
    assert (np.diff(voltage) < 0).all()


def test_bipolar_pairs_are_checked():
    potentials = np.array([[3.0, 1.0, 0.0]])
    assert bipolar(potentials, [(0, 2)]).tolist() == [[3.0]]
    with pytest.raises(InputError, match=r"pair \(0, 3\) names an electrode that is not there"):
        bipolar(potentials, [(0, 1), (0, 3)])
    with pytest.raises(InputError, match="two are needed"):
        bipolar(potentials[:, :1])


def test_a_trace_that_never_falls_has_no_activation():
    t = np.arange(10.0)
    assert np.isnan(activation_from_unipolar(t, t[:, None])).all()


def test_sites_lie_outside_above_their_nodes_and_apart():
    mesh = slab((10.0, 10.0, 2.0), 1.0)
    classes = np.where(mesh.points[:, 2] == 2.0, 2, np.where(mesh.points[:, 2] == 0.0, 3, 0))
    tagged = TetMesh(mesh.points, mesh.tets, {"surf_class": classes})
    top = surface_sites(tagged, "epicardium", spacing=2.5, distance=0.7)
    assert (classes[top.node] == 2).all()
    assert top.electrodes.positions[:, 2] == pytest.approx(2.7)
    gaps = np.linalg.norm(mesh.points[top.node][:, None] - mesh.points[top.node], axis=2)
    assert gaps[~np.eye(len(top.node), dtype=bool)].min() > 2.5
    below = surface_sites(tagged, "lv endocardium")
    assert below.electrodes.positions[:, 2] == pytest.approx(-1.0)
    with pytest.raises(MeshError, match="has no rv endocardium"):
        surface_sites(tagged, "rv endocardium")
    with pytest.raises(MeshError, match="does not say where its surfaces are"):
        surface_sites(mesh, "epicardium")
    with pytest.raises(InputError, match="surface is 'outside'"):
        surface_sites(mesh, "outside")


def test_electrodes_inside_the_muscle_are_refused(sheet):
    heart, sigma_i = sheet
    with pytest.raises(MeshError, match="lies inside the myocardium"):
        unipolar_weights(heart, row_of([[20.0, 9.6, 1.2]]), sigma_i)


def test_a_catheter_in_a_torso_sees_the_extracellular_potential_there():
    box = slab((10.0, 10.0, 10.0), 1.0)
    inside = (np.abs(box.points[box.tets].mean(axis=1) - 5.0) < 2.0).all(axis=1)
    region = np.where(inside, int(TorsoRegion.HEART), int(TorsoRegion.TORSO))
    torso = TetMesh(box.points, box.tets, {}, {"region": region})
    nodes, place = np.unique(box.tets[inside], return_inverse=True)
    heart = Heart(TetMesh(box.points[nodes], place.reshape(-1, 4)))
    sigma_i, bulk = heart_tensors(heart, NIEDERER_2011)
    conductor = torso_conductor(torso, heart, bulk)
    catheter = row_of([[5.0, 5.0, 7.0], [5.0, 5.0, 8.0], [4.0, 6.0, 5.0]])  # two outside, one in it
    vm = np.random.default_rng(0).uniform(-90, 30, (2, heart.mesh.n_nodes))
    leads = torso_lead_field(conductor, heart, catheter, sigma_i, snap=0.0, dtype=np.float64)
    phi, _ = body_map(conductor, heart, sigma_i, vm)
    at = [np.linalg.norm(box.points - p, axis=1).argmin() for p in catheter.positions]
    assert np.abs(leads.potentials(vm) - phi[:, at]).max() < 1e-8 * np.abs(phi).max()
