"""ECG of trains: one beat is that of pace mapping, beats superpose, and what is blocked counts."""

import functools

import jax.numpy as jnp
import numpy as np

from twinheart.anatomy import Heart, add_fibres
from twinheart.calibration.build import prepared_heart
from twinheart.cell import get_model
from twinheart.ecg import Ecg, Electrodes, lead_shares, standard_12_lead
from twinheart.mesh.biventricle import BiventricularShape, biventricle
from twinheart.mesh.generate import slab
from twinheart.planning.pace_mapping.pace_match import EARLIEST, LOWPASS, SAMPLES, STEP
from twinheart.planning.pace_mapping.paced_ecg import paced_ecg
from twinheart.planning.vt_ecg import vt_features
from twinheart.tissue import Sites, Train, Velocities, WaveTable, eikonal_train
from twinheart.tissue.template import action_potential
from twinheart.tissue.train_ecg import train_ecg, train_templates
from twinheart.twin import Twin, intracellular_tensor

MS = "mitchell-schaeffer"
SPEED = Velocities(0.7, 0.45)
LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


@functools.cache
def heart() -> Heart:
    mesh = biventricle(6.0, BiventricularShape(lv_wall=14.0, apex_wall=14.0, rv_wall=12.0))
    return prepared_heart(add_fibres(Heart(mesh, regions=mesh.cell_fields["region"])))


def test_one_beat_is_the_ecg_of_pace_mapping():
    """Same place, speeds and cell: within 1 %, as the two filter before and after sampling."""
    electrodes = standard_12_lead(heart())
    twin = Twin(heart(), MS, SPEED, electrodes)
    mesh, paced = twin.heart.mesh, paced_ecg(twin, LEADS)
    place = mesh.points[np.flatnonzero(mesh.point_fields["surf_class"] == 2)[40]]
    expected = paced.beats(place[None]).leads[0]
    apd = float(action_potential(get_model(MS)).apd90)
    train = eikonal_train(
        paced.problem, [Sites(place[None], 1000.0)], WaveTable([20.0], [1.0], [apd]), t_end=1600.0
    )
    shares = lead_shares(mesh, electrodes, intracellular_tensor(twin))
    t = 1000.0 + EARLIEST + STEP * np.arange(SAMPLES)
    phi = train_ecg(
        mesh.tets, shares, train, train_templates(twin.heart, twin.cell), t,
        longest=np.full(mesh.n_tets, 60.0), crossing=paced.ecg.crossing, lowpass=LOWPASS,
    )  # fmt: skip
    found = phi @ paced.weights.T
    assert np.abs(expected).max() > 0.5
    assert np.abs(found - expected).max() < 0.01 * np.abs(expected).max()


def strip():
    """A small slab seen by two electrodes."""
    mesh = slab((6.0, 2.0, 2.0), 1.0)
    heart = Heart(mesh)
    sites = Electrodes(("a", "b"), np.array([[20.0, 3.0, 1.0], [-9.0, 8.0, 4.0]]))
    sigma_i = np.tile(0.2 * np.eye(3), (mesh.n_tets, 1, 1))
    return heart, lead_shares(mesh, sites, sigma_i)


def nodal(heart, shares, lat, apd, t):
    """Sum over nodes of lead field and voltage, each beat from rest: what is left of the wave."""
    mesh, ap = heart.mesh, train_templates(heart, get_model(MS)).tables[0]
    field = np.stack([np.bincount(mesh.tets.ravel(), s.ravel(), mesh.n_nodes) for s in shares])
    phi = np.zeros((len(t), len(shares)))
    for node, beat in zip(*np.nonzero(np.isfinite(lat)), strict=True):
        factor = apd[node, beat] / float(ap.apd90)
        vm = np.asarray(ap(jnp.asarray(t - lat[node, beat]), factor)) - float(ap.rest)
        phi += vm[:, None] * field[:, node]
    return phi


def test_activations_without_a_front_count_by_their_nodes():
    """Nodes that fire at random are blocked everywhere; durations are those of the train."""
    heart, shares = strip()
    rng = np.random.default_rng(1)
    n = heart.mesh.n_nodes
    lat = np.sort(1500.0 + rng.integers(0, 120, (n, 2)) + np.array([0.0, 320.0]), axis=1)
    lat[rng.random((n, 2)) < 0.3] = np.nan
    lat.sort(axis=1)
    apd = np.where(np.isfinite(lat), rng.uniform(180.0, 300.0, (n, 2)), np.nan)
    t = np.arange(1400.0, 2300.0)
    phi = train_ecg(
        heart.mesh.tets, shares, Train(lat, apd, 0 * lat, "successful"),
        train_templates(heart, get_model(MS)), t,
        longest=np.zeros(heart.mesh.n_tets), crossing=2.0,
    )  # fmt: skip
    expected = nodal(heart, shares, lat, apd, t)
    assert np.abs(phi - expected).max() < 0.01 * np.abs(expected).max()


def test_beats_superpose_whatever_number_a_node_gives_them():
    """A wave every 350 ms; half of the nodes had one more before, so that numbers differ."""
    heart, shares = strip()
    x, apd = heart.mesh.points[:, 0], 250.0
    wave = x / 0.6
    early = np.where(x > 3.0, 700.0 + wave, np.nan)
    lat = np.stack([early, *(1500.0 + 350.0 * k + wave for k in range(3))], axis=1)
    lat.sort(axis=1)  # not a number comes last: columns hold different waves
    train = Train(lat, np.where(np.isfinite(lat), apd, np.nan), 0 * lat, "successful")
    t = np.arange(1400.0, 2550.0)
    phi = train_ecg(
        heart.mesh.tets, shares, train, train_templates(heart, get_model(MS)), t,
        longest=np.full(heart.mesh.n_tets, 5.0), crossing=2.0,
    )  # fmt: skip
    size = np.abs(phi).max()
    first, second = (phi[(t >= at) & (t < at + 60.0)] for at in (1840.0, 2190.0))
    assert np.abs(first - second).max() < 0.01 * size
    # electrode a, ahead of the wave, sees it come
    assert phi[(t >= 1500.0) & (t < 1509.0), 0].max() > 0.9 * phi[t < 1600.0, 0].max() > 0
    # the upstroke of every wave weighs as that of a whole front, not as that of nodes
    once = train_ecg(
        heart.mesh.tets, shares,
        Train(lat[:, 1:2] * 0 + 1500.0 + wave[:, None], apd + 0 * wave[:, None],
              0 * wave[:, None], "successful"),
        train_templates(heart, get_model(MS)), np.arange(1490.0, 1530.0),
        longest=np.full(heart.mesh.n_tets, 5.0), crossing=2.0,
    )  # fmt: skip
    own = phi[(t >= 1490.0) & (t < 1530.0)]
    assert np.abs(own - once).max() < 0.02 * size


def test_what_ends_is_told():
    t = np.arange(0.0, 2000.0)
    beats = sum(np.exp(-(((t - at) / 40) ** 2)) for at in (300, 700))
    found = vt_features(Ecg(t, np.asarray(beats)[:, None], ("V1",)), 400.0)
    assert 780.0 < found["ends_ms"] < 900.0
    going = sum(np.exp(-(((t - at) / 40) ** 2)) for at in range(100, 2000, 400))
    assert vt_features(Ecg(t, np.asarray(going)[:, None], ("V1",)), 400.0)["ends_ms"] is None
