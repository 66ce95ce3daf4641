"""Pace mapping: planted exits on other meshes, invariances, what the region holds, bad recordings.

Thick walls and coarse elements: what is compiled runs in milliseconds a site.
"""

import functools
import json

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tolerances import PACE_MAP_ERROR_MM
from twinheart.anatomy import Heart, add_fibres
from twinheart.calibration.build import prepared_heart
from twinheart.cli.app import main
from twinheart.ecg import Ecg, Electrodes, standard_12_lead
from twinheart.errors import InputError
from twinheart.mesh import TetMesh
from twinheart.mesh.biventricle import BiventricularShape, biventricle
from twinheart.mesh.io import write_mesh
from twinheart.planning.pace_mapping.pace_map import locate_exit
from twinheart.planning.pace_mapping.pace_match import EARLIEST, SAMPLES, STEP, PacedBeats, filtered
from twinheart.planning.pace_mapping.paced_ecg import ModelSpread, PacedEcg, paced_ecg, thinned
from twinheart.planning.pace_mapping.vt_beat import qrs_extent, vt_beat
from twinheart.tissue import Velocities
from twinheart.twin import Twin

SHAPE = BiventricularShape(lv_wall=14.0, apex_wall=14.0, rv_wall=12.0)
EDGE, OTHER_EDGE, SPACING = 6.0, 5.0, 16.0
SPEED = Velocities(0.7, 0.45)
LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


@functools.cache
def heart(edge: float = EDGE) -> Heart:
    mesh = biventricle(edge, SHAPE)
    return prepared_heart(add_fibres(Heart(mesh, regions=mesh.cell_fields["region"])))


@functools.cache
def electrodes() -> Electrodes:
    return standard_12_lead(heart())


@functools.cache
def twin(edge: float = EDGE) -> Twin:
    return Twin(heart(edge), "mitchell-schaeffer", SPEED, electrodes())


@functools.cache
def paced(edge: float = EDGE) -> PacedEcg:
    return paced_ecg(twin(edge), LEADS)


def surface_nodes(mesh: TetMesh, surface: int) -> np.ndarray:
    return np.flatnonzero(mesh.point_fields["surf_class"] == surface)


def recorded(body: PacedEcg, place, noise: float, seed: int = 0) -> Ecg:
    """A beat paced at a place, with white noise [mV]."""
    leads = body.beats(np.asarray(place)[None]).leads[0]
    noisy = leads + noise * np.random.default_rng(seed).standard_normal(leads.shape)
    return Ecg(120.0 + EARLIEST + STEP * np.arange(SAMPLES), noisy, body.names)


@pytest.mark.parametrize(("surface", "seed"), [(2, 1), (3, 2), (4, 3)])
def test_a_planted_exit_is_found_on_another_mesh(surface, seed):
    """Truth: finer mesh, other velocities, 25 uV of noise."""
    other = heart(OTHER_EDGE)
    rng = np.random.default_rng(seed)
    place = other.mesh.points[rng.choice(surface_nodes(other.mesh, surface))]
    faster = paced(OTHER_EDGE).problem.velocity * jnp.array([1.11, 1.05, 1.05])
    body = eqx.tree_at(lambda p: p.problem.velocity, paced(OTHER_EDGE), faster)
    beat = vt_beat(recorded(body, place, 0.025, seed))
    found = locate_exit(paced(), heart().mesh, beat, spacing=SPACING, trials=9)
    assert np.linalg.norm(found.exit.position_mm - place) < PACE_MAP_ERROR_MM
    assert found.exit.correlation > 0.95
    assert found.exit.speed > 1.0  # the wave was faster than the model's


def test_neither_gain_nor_onset_nor_the_position_of_the_heart_matters():
    mesh = heart().mesh
    place = mesh.points[surface_nodes(mesh, 2)[40]]
    record = recorded(paced(), place, 0.0)
    one = locate_exit(paced(), mesh, vt_beat(record), spacing=SPACING, trials=9)
    later = Ecg(record.t + 31.0, 3.0 * np.asarray(record.signals), record.names)
    two = locate_exit(paced(), mesh, vt_beat(later), spacing=SPACING, trials=9)
    assert two.exit.node == one.exit.node
    assert np.linalg.norm(one.exit.position_mm - place) < EDGE
    assert {site.surface for site in one.of_surface} == {2, 3, 4}
    if one.second is not None:
        assert np.linalg.norm(one.second.position_mm - one.exit.position_mm) >= 20.0
        assert one.second.correlation <= one.exit.correlation
    np.testing.assert_allclose(two.at_sites, one.at_sites, atol=1e-5)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    moved = TetMesh(mesh.points @ turn.T + 50.0, mesh.tets, mesh.point_fields, mesh.cell_fields)
    turned = Heart(moved, heart().f0 @ turn.T, heart().s0 @ turn.T, heart().regions)
    where = Electrodes(electrodes().names, electrodes().positions @ turn.T + 50.0)
    elsewhere = paced_ecg(Twin(turned, "mitchell-schaeffer", SPEED, where), record.names)
    three = locate_exit(
        elsewhere, moved, vt_beat(record), surfaces="epi", spacing=SPACING, trials=9
    )
    assert three.exit.node == one.exit.node
    assert np.isnan(three.correlation[surface_nodes(mesh, 3)]).all()
    np.testing.assert_allclose(three.exit.correlation, one.exit.correlation, atol=1e-3)


def test_hearts_of_trials_have_their_electrodes_elsewhere():
    """A heart shifted by a draw, against the leads of electrodes that were moved by as much."""
    place = heart().mesh.points[surface_nodes(heart().mesh, 3)[5]][None]
    none = ModelSpread(*[0.0] * 7)
    still = paced().beats(place).leads
    np.testing.assert_allclose(
        paced().disturbed(place, none, np.random.default_rng(0)), still, atol=1e-5
    )
    moved = paced().disturbed(place, none._replace(shift_mm=2.0), np.random.default_rng(0))
    draw = np.random.default_rng(0)
    for shape in ((1, 1, 1), (1, len(paced().problem.velocity), 1), (1, 1, 3), (1, 1, 3)):
        draw.standard_normal(shape)
    seats = electrodes().positions + 2.0 * draw.standard_normal((1, 3))
    elsewhere = Twin(heart(), "mitchell-schaeffer", SPEED, Electrodes(electrodes().names, seats))
    exact = paced_ecg(elsewhere, LEADS).beats(place).leads
    change = np.linalg.norm(exact - still)
    assert change > 0.01 * np.linalg.norm(still)
    assert np.linalg.norm(moved - exact) < 0.15 * change  # linear in the shift


@pytest.mark.slow
def test_the_region_holds_the_exit_as_often_as_it_says():
    """Hearts that differ from the model as the trials do; 0.9 is promised.

    With 30 cases a true share of 0.9 gives fewer than 23 in 0.8 % of all seeds.
    """
    mesh = heart().mesh
    rng = np.random.default_rng(5)
    nodes = rng.choice(np.flatnonzero(mesh.point_fields["surf_class"] > 1), 30)
    truth = paced().disturbed(mesh.points[nodes], ModelSpread(), rng)
    t = EARLIEST + STEP * np.arange(SAMPLES)
    held = 0
    for k, (node, leads) in enumerate(zip(nodes, truth, strict=True)):
        noisy = leads + 0.025 * rng.standard_normal(leads.shape)
        beat = vt_beat(Ecg(t, noisy, paced().names))
        found = locate_exit(paced(), mesh, beat, spacing=SPACING, trials=19, seed=k)
        held += bool(found.region[node])
    assert held >= 23


def test_matching_finds_shift_and_speed():
    """Against a planted shift and stretch, and Pearson's correlation by numpy."""
    t = EARLIEST + STEP * np.arange(SAMPLES)

    def wave(s):
        first = np.exp(-(((s - 50) / 18) ** 2)) - 0.6 * np.exp(-(((s - 95) / 22) ** 2))
        return np.stack([first, -0.4 * np.exp(-(((s - 70) / 30) ** 2)), 0.2 * first**2], axis=-1)

    other = np.stack([np.sin(t / 9), np.cos(t / 15), np.sin(t / 21)], axis=1)
    beats = PacedBeats(np.stack([wave(t), other]))
    axis = np.arange(-40.0, 200.0)
    found = beats.match(axis, 2.5 * wave(axis * 1.1 + 17.0) + 0.3, 120.0)
    assert found.correlation[0] > 0.9995
    assert found.speed[0] == pytest.approx(1.1, rel=0.01)
    assert found.offset[0] == pytest.approx(17.0, abs=0.5)
    assert found.correlation[1] < 0.9
    inside = (axis >= -10) & (axis <= 130)
    same = beats.match(axis, wave(axis + 5.0), 120.0, speeds=(1.0,))
    one = wave(axis[inside] + 5.0)
    exact = beats.match(axis, one_lead_wrong(axis, wave), 120.0, speeds=(1.0,))
    assert same.correlation[0] == pytest.approx(1.0, abs=1e-5)
    wrong = one_lead_wrong(axis, wave)[inside]
    flat = [(x - x.mean(axis=0)).ravel() for x in (one, wrong)]
    pearson = np.corrcoef(*flat)[0, 1]
    assert exact.correlation[0] >= pearson - 1e-4  # at the best shift


def one_lead_wrong(axis, wave):
    signals = wave(axis + 5.0)
    signals[:, 2] *= -1.0
    return signals


def test_sites_are_spread_evenly_on_each_surface():
    mesh = heart().mesh
    nodes = surface_nodes(mesh, 2)
    points = mesh.points[nodes]
    kept = thinned(points, np.full(len(nodes), 2), 15.0)
    gap = np.linalg.norm(points[kept][:, None] - points[kept], axis=2)
    assert gap[~np.eye(kept.sum(), dtype=bool)].min() >= 15.0
    assert np.linalg.norm(points[:, None] - points[kept], axis=2).min(axis=1).max() <= 15.0


def test_the_wide_beats_of_a_recording_are_taken():
    """Six wide beats among twelve narrow ones; their widths are told."""
    t = np.arange(0.0, 12000.0, 2.0)
    wide = sum(np.exp(-(((t - at) / 40) ** 2)) for at in range(6000, 9000, 500))
    narrow = sum(np.exp(-(((t - at) / 12) ** 2)) for at in range(500, 6000, 500))
    noise = 0.01 * np.random.default_rng(0).standard_normal((len(t), 3))
    signals = np.stack([narrow - wide, wide, 0.3 * narrow + wide], axis=1) + noise
    found = vt_beat(Ecg(t, signals, ("I", "V1", "V6")))
    assert found.n_beats == 17
    assert found.n_used in (5, 6)
    assert 110 < found.duration < 200
    assert found.noise < 0.01
    assert "another shape" in " ".join(found.remarks)


def test_a_t_wave_at_once_does_not_lengthen_the_qrs():
    t = np.arange(0.0, 600.0)
    qrs = np.exp(-(((t - 150) / 40) ** 2))
    late = -0.2 * np.exp(-(((t - 330) / 60) ** 2))
    onset, offset = qrs_extent(Ecg(t, (qrs + late)[:, None], ("II",)))
    assert 50 < onset < 90
    assert 210 < offset < 260


def test_filtering_keeps_what_is_slow():
    t = np.arange(0.0, 400.0, 2.0)
    slow = np.sin(t / 40.0)
    at, smooth = filtered(Ecg(t, slow[:, None], ("II",)), ("II",))
    inner = (at > 20) & (at < 380)
    np.testing.assert_allclose(smooth[inner, 0], np.sin(at[inner] / 40.0), atol=0.003)


def tone(size: float, length: float = 400.0) -> Ecg:
    t = np.arange(0.0, length)
    beat = size * np.exp(-(((t - length / 2) / 40) ** 2))
    return Ecg(t, np.stack([beat, -beat, 0.5 * beat], axis=1), ("I", "II", "V1"))


@pytest.mark.parametrize(
    ("ecg", "told"),
    [
        (tone(900.0), "its unit seems to be uV"),
        (tone(0.001), "its unit seems to be V"),
        (tone(1.0, 30.0), "expected one whole beat"),
        (Ecg(np.arange(900.0), np.zeros((900, 2)), ("I", "II")), "flat"),
        (Ecg(np.arange(120.0), np.sin(np.arange(120.0) / 30)[:, None], ("I",)), "no whole QRS"),
    ],
)
def test_unusable_recordings_are_refused(ecg, told):
    with pytest.raises(InputError, match=told):
        vt_beat(ecg)


def test_too_few_leads_and_wrong_numbers_are_refused():
    with pytest.raises(InputError, match="at least 3"):
        paced_ecg(twin(), ("I", "II", "aVF"))
    beat = vt_beat(tone(1.0))
    for wrong in ({"spacing": 0.1}, {"level": 0.99, "trials": 20}, {"surfaces": "mid"}):
        with pytest.raises(InputError):
            locate_exit(paced(), heart().mesh, beat, **wrong)
    with pytest.raises(InputError, match="within it"):
        vt_beat(tone(1.0), qrs=(900.0, 1000.0))


def test_the_command(tmp_path, capsys):
    mesh = heart().mesh
    place = mesh.points[surface_nodes(mesh, 2)[11]]
    record = recorded(paced(), place, 0.02)
    rows = ["t_s," + ",".join(f"{name} [mV]" for name in record.names)]
    rows += [
        f"{t / 1e3:.4f}," + ",".join(f"{v:.5f}" for v in row)
        for t, row in zip(np.asarray(record.t), np.asarray(record.signals), strict=True)
    ]
    (tmp_path / "vt.csv").write_text("\n".join(rows))
    fields = mesh.cell_fields | {"fibre": heart().f0}
    write_mesh(tmp_path / "heart.vtu", TetMesh(mesh.points, mesh.tets, mesh.point_fields, fields))
    seats = dict(zip(electrodes().names, electrodes().positions.tolist(), strict=True))
    (tmp_path / "seats.json").write_text(json.dumps({"units": "mm", "electrodes": seats}))
    out = tmp_path / "map"
    arguments = ["locate-vt", "--heart", str(tmp_path / "heart.vtu"), "--ecg",
                 str(tmp_path / "vt.csv"), "--electrodes", str(tmp_path / "seats.json"),
                 "--cell", "mitchell-schaeffer", "--cv-l", "0.7", "--cv-t", "0.45",
                 "--spacing", "16", "--trials", "9", "--json", "-o", str(out)]  # fmt: skip
    assert main(arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert np.linalg.norm(np.array(told["exit_mm"]) - place) < PACE_MAP_ERROR_MM
    assert told["surface"] == "epicardium"
    assert "segment" in told["place"]
    assert told["region"]["area_mm2"] > 0
    assert all((out / name).stat().st_size > 1000 for name in ("pace_map.png", "beat.png"))
    assert (out / "pace_map_epicardium.vtp").is_file()
    arguments[arguments.index("--spacing") + 1] = "0"
    assert main(arguments) == 2
    assert main(["locate-vt", "--heart", "demo"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("twinheart: error: give --ecg")
