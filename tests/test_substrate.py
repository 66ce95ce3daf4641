"""Substrate of planning: velocities, restitution and refractoriness by region, fits, lesions."""

import numpy as np
import pytest

from twinheart.anatomy import Heart
from twinheart.anatomy.scar import with_scar
from twinheart.calibration import StoredTwin
from twinheart.cell import get_model
from twinheart.errors import InputError, MeshError, ModelError
from twinheart.mesh.generate import slab
from twinheart.planning import Lesion
from twinheart.planning import substrate as substrate_module
from twinheart.planning.strand import Border
from twinheart.planning.substrate import build_substrate, substrate_with
from twinheart.planning.substrate_file import read_substrate, twin_substrate
from twinheart.tissue import NonConducting, Sites, Velocities, WaveTable, arrival
from twinheart.tissue import measured_wave as module
from twinheart.tissue.coupled_waves import ELECTROTONIC_TIME
from twinheart.tissue.measured_wave import measured_wave
from twinheart.tissue.purkinje import FAST_TAG
from twinheart.twin import Twin

HEALTHY = WaveTable([50.0, 300.0], [0.7, 1.0], [200.0, 280.0])
BORDER = WaveTable([70.0, 300.0], [0.6, 1.0], [190.0, 300.0])
TABLES = {0: HEALTHY, 1000: BORDER}
MS = "mitchell-schaeffer"


def strip(size=(18.0, 4.0, 2.0), scar=True, regions=None):
    """Fibres along x; a third each healthy, border zone and core."""
    mesh = slab(size, 1.0)
    third = (mesh.points[mesh.tets].mean(axis=1)[:, 0] // (size[0] / 3)).astype(np.int32)
    fibres = np.tile([1.0, 0.0, 0.0], (mesh.n_tets, 1))
    return Heart(with_scar(mesh, third) if scar else mesh, fibres, regions=regions)


def built(heart=None, **more):
    given = {"border_speed": 0.5, "tables": TABLES} | more
    return build_substrate(strip() if heart is None else heart, **given)


def velocities(found, tag):
    tissue = found.conduction[tag]
    assert isinstance(tissue, Velocities)
    return np.asarray(tissue.cv, dtype=float)


def test_each_region_has_its_velocity_and_its_refractory_period():
    found = built(across=0.25, coupling=0.0)
    assert sorted(np.unique(found.heart.regions)) == [0, 1000, 2000]
    assert isinstance(found.conduction[2000], NonConducting)
    np.testing.assert_allclose(velocities(found, 1000), [0.3, 0.075, 0.075], rtol=1e-6)
    x = found.heart.mesh.points[:, 0]
    assert set(found.refractory[x < 6]) == {250.0}
    assert set(found.refractory[(x > 6) & (x < 12)]) == {260.0}
    assert set(found.durations()[(x > 6) & (x < 12)]) == {300.0}
    # along the fibres, from 0 to 6 mm at 0.6 m/s and on to 12 mm at 0.3 m/s; never into the core
    lat = np.asarray(arrival(found.problem, Sites([[0.0, 2.0, 1.0]])))
    middle = (found.heart.mesh.points[:, 1:] == [2.0, 1.0]).all(axis=1)
    assert lat[middle & (x == 12)] == pytest.approx(6 / 0.6 + 6 / 0.3, rel=1e-3)
    assert np.isinf(lat[x > 12]).all()


def test_recovery_goes_over_where_regions_meet():
    """As far as velocity times the electrotonic time, and by shares that add up."""
    mesh = strip((60.0, 1.0, 1.0))
    sharp, smooth = built(mesh, coupling=0.0), built(mesh)
    assert smooth.coupling == ELECTROTONIC_TIME
    x = mesh.mesh.points[:, 0]
    changed = sharp.refractory != smooth.refractory
    assert changed[np.abs(x - 20.0) <= 1.0].any()
    assert not changed[np.abs(x - 20.0) > 12.0].any()  # 2.4 mm (1.2) to fall by 1/e, 10 to 1/64
    along = [smooth.durations()[x == at].mean() for at in np.unique(x[x < 35.0])]
    assert (np.diff(along) >= -1e-9).all()
    assert 280.0 < float(smooth.durations()[np.abs(x - 20.0) < 0.5].mean()) < 300.0
    # nothing conducts in the core: no recovery comes from there
    assert set(smooth.durations()[(x > 32.0) & (x < 40.0)]) == {300.0}


def test_without_scar_all_is_healthy_and_it_says_so():
    found = built(strip(scar=False))
    assert not found.has_scar
    assert sum("no scar tags" in note for note in found.notes) == 1
    assert set(found.refractory) == {250.0}


def test_what_is_not_verified_is_said():
    notes = built().notes
    assert notes[0] == "population values: no calibration was given"
    assert sum("not verified" in note for note in notes) == 2
    assert any("'border-zone'" in note for note in notes)
    assert not any("population" in note for note in built(calibrated=True).notes)


def test_fitted_durations_divide_regions(monkeypatch):
    """A gradient along the strip: durations are within half a class, recovery scales with them."""
    monkeypatch.setattr(module, "cv_restitution", None)  # nothing is measured anew
    monkeypatch.setattr(
        "twinheart.planning.substrate.measured_wave",
        lambda *_: module.MeasuredWave(HEALTHY, 0.5),
    )
    heart = strip(scar=False, regions=np.zeros(18 * 4 * 2 * 6, dtype=int))
    x = heart.mesh.points[:, 0]
    fitted = 250.0 + 60.0 * x / x.max()
    found = build_substrate(heart, MS, Velocities(0.7, 0.2), apd90=fitted, coupling=0.0)
    assert len(found.tables) == 6
    assert np.abs(found.durations() - fitted).max() < 10.0  # a class and an element
    np.testing.assert_allclose(found.refractory - 50.0, found.durations() * 200 / 280, rtol=1e-9)
    np.testing.assert_allclose([velocities(found, k) for k in range(6)], [[0.7, 0.2, 0.2]] * 6)


def test_regions_of_a_calibrated_twin_stay(monkeypatch):
    """A fast endocardium, border zone and core that were fitted keep their velocities."""
    monkeypatch.setattr(
        "twinheart.planning.substrate.measured_wave",
        lambda *_: module.MeasuredWave(HEALTHY, 0.5),
    )
    plain = strip()
    scar = plain.mesh.cell_fields["scar"]
    regions = 1000 * scar + FAST_TAG * (plain.mesh.points[plain.mesh.tets].mean(axis=1)[:, 2] < 1)
    heart = Heart(plain.mesh, plain.f0, regions=regions)
    speeds = {0: 0.8, FAST_TAG: 2.5, 1000: 0.2, FAST_TAG + 1000: 0.3}
    tissues = {tag: Velocities(cv, cv) for tag, cv in speeds.items()}
    tissues |= {2000: NonConducting(), FAST_TAG + 2000: NonConducting()}
    cell = get_model(MS)
    twin = Twin(heart, cell, tissues)
    n = heart.mesh.n_nodes
    fit = {"correlation": {"qrs": {"V1": 0.3, "V2": 0.9}, "t_wave": {"I": -0.2, "II": np.nan}}}
    found = twin_substrate(StoredTwin(twin, (), np.zeros(n), np.full(n, 270.0), fit))
    assert found.calibrated
    told = "the twin does not reproduce leads I (T wave -0.20), V1 (QRS 0.30): what follows"
    assert found.notes[0].startswith(told)
    assert (found.heart.regions // 1000 == scar).all()
    for tag, cv in speeds.items():
        (own,) = np.unique(found.heart.regions[regions == tag])
        assert velocities(found, own)[0] == pytest.approx(cv)
    np.testing.assert_allclose(found.durations(), 270.0, rtol=1e-12)
    assert not any("population" in note or "border zone" in note for note in found.notes)


def test_border_zone_added_after_a_fit_keeps_its_own_action_potential(monkeypatch):
    """The fit saw healthy cells: 350 ms there are 350 x 300 / 280 ms of a remodelled cell."""
    healthy = get_model("tentusscher2006-epi")
    waves = {True: module.MeasuredWave(HEALTHY, 0.6), False: module.MeasuredWave(BORDER, 0.3)}
    monkeypatch.setattr(
        "twinheart.planning.substrate.measured_wave",
        lambda cell, *_: waves[float(cell.g_cal) == float(healthy.g_cal)],
    )
    monkeypatch.setattr("twinheart.planning.substrate.electrotonic_time", lambda *_: 4.0)
    monkeypatch.setattr(
        "twinheart.planning.substrate.measured_border", lambda *_: Border(BORDER, 6.0)
    )
    heart = strip(regions=np.zeros(18 * 4 * 2 * 6, dtype=int))
    n, tissues = heart.mesh.n_nodes, {0: Velocities(0.6, 0.3)}
    fitted = StoredTwin(Twin(heart, healthy, tissues), (), np.zeros(n), np.full(n, 350.0), {})
    found = twin_substrate(fitted)
    assert velocities(found, 1000)[0] == pytest.approx(0.6 * 0.5)
    assert (found.coupling, found.duration_coupling) == (6.0, 4.0)
    assert found.tables[0].apd[-1] == pytest.approx(350.0)
    np.testing.assert_allclose(found.tables[1000].apd, BORDER.apd * 350.0 / 280.0, rtol=1e-12)
    np.testing.assert_array_equal(found.tables[1000].di, BORDER.di)
    # a fit that had the border zone itself is taken as it is
    known = Heart(heart.mesh, heart.f0, regions=1000 * heart.mesh.cell_fields["scar"])
    cells = {0: healthy, 1000: found.cells[1000], 2000: healthy}
    tissues |= {1000: Velocities(0.3, 0.05), 2000: NonConducting()}
    own = StoredTwin(Twin(known, cells, tissues), (), np.zeros(n), np.full(n, 350.0), {})
    assert twin_substrate(own).tables[1000].apd[-1] == pytest.approx(350.0)


def test_lesions_do_not_conduct_and_change_nothing_else():
    before = built(coupling=0.0)
    after = substrate_with(before, [Lesion([[3.0, 2.0, 1.0]], radius=2.0)])
    burnt = after.heart.regions >= 10_000
    assert burnt.any()
    assert all(isinstance(after.conduction[tag], NonConducting) for tag in (10_000, 2000))
    assert after.tables[0] is HEALTHY
    assert after.tables[1000] is BORDER
    np.testing.assert_array_equal(after.heart.regions % 10_000, before.heart.regions)
    np.testing.assert_array_equal(after.refractory, before.refractory)
    assert len(after.problem.cells[0]) == len(before.problem.cells[0]) - burnt.sum()


def test_a_wave_is_measured_once_and_is_that_of_the_cell(monkeypatch, tmp_path):
    monkeypatch.setenv("TWINHEART_CACHE", str(tmp_path))
    found = measured_wave(get_model(MS), 500.0)
    table = found.table
    assert np.diff(table.speed).min() > -0.01  # times are rounded to half a millisecond
    assert table.speed[0] < 0.7
    assert table.speed[-1] == 1.0  # at the cycle length itself
    assert (table.di + table.apd)[-1] == pytest.approx(500.0, rel=0.01)
    # duration by the map of the cell, up to a factor that is the same at all intervals
    ratio = table.apd / (150.0 * np.log((1 - 0.8 * np.exp(-table.di / 120.0)) / 0.2))
    assert np.ptp(ratio) < 0.06
    monkeypatch.setattr(module, "cv_restitution", None)
    again = measured_wave(get_model(MS), 500.0)
    np.testing.assert_array_equal(again.table.apd, table.apd)
    assert again.velocity == found.velocity
    with pytest.raises(TypeError):  # another cell is measured
        measured_wave(get_model(MS, tau_close=140.0), 500.0)


def test_heart_files_are_read(tmp_path):
    from twinheart.anatomy import mesh_of_heart
    from twinheart.mesh.io import write_mesh

    write_mesh(tmp_path / "strip.vtu", mesh_of_heart(strip(scar=False)))
    found = read_substrate(tmp_path / "strip.vtu", MS, cycle=500.0)
    assert found.cycle == 500.0
    assert any("500 ms" in note for note in found.notes)
    assert any("no coordinates" in note for note in found.notes)
    with pytest.raises(InputError):
        read_substrate(tmp_path / "none.vtu")


def test_a_file_with_maps_and_lesions_is_the_same_tissue_with_lesions(tmp_path, monkeypatch):
    from twinheart.anatomy import mesh_of_heart
    from twinheart.mesh.io import write_mesh

    monkeypatch.setattr(substrate_module, "_measured", lambda *_: {0: HEALTHY, 1000: BORDER})
    monkeypatch.setattr(substrate_module, "_speed", lambda *_: 0.5)
    write_mesh(tmp_path / "plain.vtu", mesh_of_heart(strip()))
    first = read_substrate(tmp_path / "plain.vtu")
    assert set(first.conduction) == {0, 1000, 2000}
    write_mesh(tmp_path / "maps.vtu", mesh_of_heart(first.heart))
    maps = read_substrate(tmp_path / "maps.vtu")
    np.testing.assert_array_equal(maps.heart.regions, first.heart.regions)
    np.testing.assert_array_equal(maps.problem.velocity, first.problem.velocity)
    burnt = substrate_with(first, [Lesion([[3.0, 2.0, 1.0]], radius=2.0)])
    write_mesh(tmp_path / "burnt.vtu", mesh_of_heart(burnt.heart))
    again = read_substrate(tmp_path / "burnt.vtu")
    np.testing.assert_array_equal(again.heart.regions, burnt.heart.regions)
    assert len(again.problem.cells[0]) == len(burnt.problem.cells[0]) < len(first.problem.cells[0])
    assert any("do not conduct" in note for note in again.notes)


def test_bad_input_is_refused():
    with pytest.raises(ModelError, match=r"regions \[1000\] have no wave table"):
        built(tables={0: HEALTHY})
    with pytest.raises(ModelError, match="factor across the fibres"):
        built(across=-1.0)
    with pytest.raises(ModelError, match="unknown condition"):
        built(condition="none at all")
    with pytest.raises(MeshError, match="region tags run from"):
        built(strip(regions=np.full(18 * 4 * 2 * 6, 1500)))
