"""The file of a calibrated twin: written whole, read back bit for bit, refused where it is odd."""

import errno
import json
import pickle
import re
import shutil
from pathlib import Path

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calibration_samples import (
    ALL,
    APD,
    BEAT,
    LEADS,
    blank,
    small_heart,
    small_objective,
    small_sites,
    small_twin,
    some_numbers,
)
from tolerances import EXACT64

from twinheart.anatomy import Heart
from twinheart.anatomy.purkinje import grow_purkinje
from twinheart.calibration import (
    Calibration,
    Fit,
    Objective,
    Parameters,
    Stage,
    build_model,
    determination,
    laplace,
    measured_beat,
    parameter,
)
from twinheart.calibration.twin_file import (
    FORMAT,
    MOST_CLASSES,
    VERSION,
    is_twin_file,
    load_twin,
    write_twin,
)
from twinheart.cli import main
from twinheart.ecg import Ecg
from twinheart.errors import InputError, OutputError
from twinheart.mesh.io import read_mesh
from twinheart.mesh.io.hdf5 import Disk
from twinheart.tissue import ConductionSystem, NonConducting, Velocities
from twinheart.tissue.purkinje import FAST_TAG
from twinheart.tissue.template import templates_of
from twinheart.twin import Twin

pytestmark = pytest.mark.usefixtures("x64_module")


def stage_of(objective: Objective, u) -> Stage:
    """A stage as a fit would leave it that ended at these numbers."""
    values = {name: np.asarray(x) for name, x in objective.values(jnp.asarray(u)).items()}
    jacobian = np.random.default_rng(0).normal(size=(40, len(u)))
    found = Fit(np.asarray(u), values, 20.0, 18.0, jacobian, [], "converged")
    return Stage(objective, found, laplace(objective, found), [])


def a_beat():
    t = np.arange(0.0, 600.0)
    wave = np.exp(-(((t - 200) / 12) ** 2)) + 0.3 * np.exp(-(((t - 450) / 40) ** 2))
    return measured_beat(Ecg(t, wave[:, None] * np.linspace(0.4, 1.5, len(LEADS)), LEADS))


@pytest.fixture(scope="module")
def found(x64_module) -> Calibration:
    """Everything was free: velocities vary within regions, electrodes moved, APD have a field."""
    objective = small_objective(ALL, fast=True, window=BEAT)
    u = some_numbers(objective, seed=1)
    fixed = {n: x for n, x in objective.values(jnp.asarray(u)).items() if n not in APD}
    late = Objective(objective.model, objective.data, objective.free.only(APD), fixed=fixed)
    qrs, t_wave = stage_of(objective, u), stage_of(late, some_numbers(late, seed=2))
    remarks = ("a remark with \N{GREEK SMALL LETTER MU}V and 'quotes'",)
    twin = small_twin(fast=True)
    return Calibration(twin, small_sites(), a_beat(), qrs, t_wave, None, remarks)


@pytest.fixture(scope="module")
def good(found, tmp_path_factory) -> Path:
    return write_twin(tmp_path_factory.mktemp("twin") / "twin.h5", found)


@pytest.fixture(scope="module")
def stored(good):
    return load_twin(good)


def contents(path: Path):
    with h5py.File(path) as file:
        arrays = {}
        file.visititems(
            lambda name, item: (
                arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
        return arrays, dict(file.attrs)


# --- what is written comes back ------------------------------------------------------------------


def test_heart_and_maps_come_back_bit_for_bit(found, good, stored):
    was, now = found.twin.heart, stored.twin.heart
    assert np.array_equal(now.mesh.points, was.mesh.points)
    assert np.array_equal(now.mesh.tets, was.mesh.tets)
    arrays, _ = contents(good)
    for name in ("f0", "s0"):  # a heart makes unit vectors of what it is given
        assert np.array_equal(arrays[f"heart/{name}"], getattr(was, name))
        assert np.abs(getattr(now, name) - getattr(was, name)).max() < EXACT64
    for kind in ("point_fields", "cell_fields"):
        before, after = getattr(was.mesh, kind), getattr(now.mesh, kind)
        assert after.keys() == before.keys()
        assert all(np.array_equal(after[n], before[n], equal_nan=True) for n in before)
    lat = np.where(np.isfinite(found.lat), found.lat, np.nan)
    assert np.array_equal(stored.lat, lat, equal_nan=True)
    assert np.array_equal(stored.apd90, np.asarray(found.t_wave.prediction.apd))
    assert stored.lat.dtype == np.float64


def test_electrodes_sites_and_words_come_back(found, stored):
    model = found.qrs.objective.model
    values = found.qrs.fit.values
    electrodes = stored.twin.electrodes
    assert electrodes.names == found.twin.electrodes.names
    assert np.array_equal(electrodes.positions, np.asarray(model.body.placed(values)))
    assert np.abs(electrodes.positions - found.twin.electrodes.positions).max() > 1.0  # they moved
    facts = stored.facts
    assert facts["site_names"] == [site.name for site in small_sites()]
    assert facts["site_onsets_ms"] == np.asarray(model.excitation.onsets(values)).tolist()
    assert facts["site_positions_mm"] == np.asarray(model.excitation.positions(values)).tolist()
    assert facts["remarks"][0] == found.remarks[0]
    assert facts["stored_lead_field"] is False
    assert facts["correlation"] == {name: stage.correlation for name, stage in found.stages.items()}
    assert list(facts["correlation"]["qrs"]) == list(LEADS)
    for name, stage in (("qrs", found.qrs), ("t_wave", found.t_wave)):
        told = determination(stage.posterior)
        assert [row["name"] for row in facts["parameters"][name]] == [row.name for row in told]
        for row, known in zip(facts["parameters"][name], told, strict=True):
            assert row["median"] == known.median  # repr of a float is read as the same float
            assert {"prior", "source", "low", "high", "verdict"} <= row.keys()


def test_a_file_without_correlations_is_read(good, tmp_path):
    older = edited(lambda file: file.attrs.__delitem__("correlation"))(good, tmp_path)
    assert load_twin(older).facts["correlation"] == {}


def test_the_conductivity_across_the_fibres_is_the_fitted_one(found, stored):
    factor = float(found.qrs.fit.values["source_across"][0])
    assert abs(np.log(factor)) > 0.01
    for tissue in stored.twin.conductivity.values():
        sigma = tissue.physical
        assert float(sigma.sigma_it) == pytest.approx(factor * 0.019, rel=1e-6)
        assert float(sigma.sigma_in) == pytest.approx(factor * 0.019, rel=1e-6)
        assert float(sigma.sigma_il) == pytest.approx(0.17, rel=1e-6)


def test_velocities_within_a_region_become_classes(found, good, stored):
    """Each class has the geometric mean of its elements, and none is far from it."""
    objective = found.qrs.objective
    values = {name: jnp.asarray(x) for name, x in found.qrs.fit.values.items()}
    exact = np.asarray(objective.model.conduction(values))[: stored.twin.heart.mesh.n_tets]
    arrays, _ = contents(good)
    tags, was = stored.twin.heart.regions, found.twin.heart.regions
    numbers = np.unique(tags)
    before = dict(zip(numbers.tolist(), arrays["tissue/tags_before"].tolist(), strict=True))
    assert np.array_equal([before[int(tag)] for tag in tags], was)
    for tag in np.unique(was):
        own = np.unique(tags[was == tag])
        assert tag in own
        assert len(own) <= MOST_CLASSES
        width = np.ptp(np.log(exact[was == tag, 0])) / MOST_CLASSES
        for number in own:
            inside = tags == number
            velocity = np.asarray(stored.twin.conductivity[int(number)].cv)
            assert np.log(exact[inside]).mean(axis=0) == pytest.approx(np.log(velocity), abs=1e-12)
            assert np.abs(np.log(exact[inside] / velocity)).max() <= width * 1.001 + 1e-9
    assert len(numbers) > len(np.unique(was))  # the field does vary


def test_the_fast_layer_stays_apart_from_new_classes(good, stored):
    """Tags from `FAST_TAG` on mean a fast endocardium wherever a heart is read."""
    arrays, _ = contents(good)
    fast = arrays["tissue/tags_before"] >= FAST_TAG
    assert np.array_equal(np.unique(stored.twin.heart.regions) >= FAST_TAG, fast)


def test_cells_come_back(found, stored):
    for cell in stored.twin.cell.values():
        assert cell.name == "mitchell-schaeffer"
    assert len({id(cell) for cell in stored.twin.cell.values()}) == 1  # one template for all


def test_a_file_describes_itself_and_names_nobody(good):
    arrays, words = contents(good)
    assert words["format"] == FORMAT
    assert words["version"] == VERSION
    assert "not for clinical use" in words["written_by"]
    with h5py.File(good) as file:
        units = {name: file[name].attrs["unit"] for name in ("heart/points", "maps/lat")}
    assert units == {"heart/points": "mm", "maps/lat": "ms"}
    for stage in ("qrs", "t_wave"):
        covariance = arrays[f"posterior/{stage}/covariance"]
        u = arrays[f"posterior/{stage}/standard_numbers"]
        assert covariance.shape == (len(u), len(u))
        assert np.linalg.eigvalsh(covariance).min() > 0


def test_the_same_twin_gives_the_same_file(found, good, tmp_path):
    one, same = contents(good), contents(write_twin(tmp_path / "again.h5", found))
    assert one[0].keys() == same[0].keys()
    for name, values in one[0].items():
        assert values.tobytes() == same[0][name].tobytes(), name
    assert {k: str(v) for k, v in one[1].items()} == {k: str(v) for k, v in same[1].items()}


@pytest.fixture(scope="module")
def leads(found):
    """The leads of the fit [mV]."""
    return np.asarray(found.t_wave.prediction.signals)


@pytest.fixture
def x32():
    """As the command line runs."""
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


def test_simulate_reads_it_back(found, leads, good, stored, tmp_path, capsys, x32):
    """The beat activates and repolarises as was fitted, and has the leads of the fit."""
    out = tmp_path / "beat"
    arguments = ["simulate", "--heart", str(good), "--propagation", "eikonal", "--t-end", "440"]
    status = main([*arguments, "--no-report", "--out", str(out), "--json"])
    printed, said = capsys.readouterr()
    assert status == 0, said
    summary = json.loads(printed)
    assert summary["activated_fraction"] == 1.0
    maps, _ = read_mesh(out / "maps.vtu", length_unit="mm")
    lat = maps.point_fields["lat_ms"]
    first = np.nanmin(stored.lat)
    gap = lat - (stored.lat - first)
    # velocities by class, and stimuli that fill a ball within half a millisecond
    assert np.abs(gap).mean() < 1.5
    assert np.abs(maps.point_fields["apd90_ms"] - stored.apd90).max() < 1e-3
    table = np.loadtxt(out / "ecg.csv", delimiter=",", skiprows=1)
    head = (out / "ecg.csv").read_text().splitlines()[0].split(",")
    gains = np.asarray(found.qrs.objective.model.body.gains(found.qrs.fit.values))
    fitted = leads / gains
    t = np.asarray(found.qrs.objective.data.t) - first
    for k, name in enumerate(LEADS):
        at = np.interp(t, table[:, 0], table[:, head.index(f"{name}_mV")])
        assert np.corrcoef(at[t > 0], fitted[t > 0, k])[0, 1] > 0.95, name


def test_what_the_twin_says_itself_is_not_said_again(good, tmp_path, capsys):
    arguments = ["simulate", "--heart", str(good), "--cv-l", "0.5", "--out", str(tmp_path / "a")]
    assert main(arguments) == 2
    assert "[conduction] has no effect on the calibrated twin" in capsys.readouterr().err


@pytest.mark.slow
def test_ionic_cells_are_scaled_to_the_fitted_apd(stored):
    """The template of the scaled cells repolarises when the fit says, to the table's spacing."""
    twin, remarks = stored.with_ionic_apd()
    assert remarks == []
    found = np.asarray(templates_of(twin.heart, twin.cell).apd90)
    usual = np.asarray(templates_of(twin.heart, stored.twin.cell).apd90)
    assert np.abs(usual - stored.apd90).max() > 20.0  # ms: there was something to do
    assert np.abs(found - stored.apd90).max() < 2.0


def by_tree(folder: Path):
    """A twin that a Purkinje tree excites; its velocity was fitted."""
    heart, base = small_heart(), small_twin()
    system = ConductionSystem(grow_purkinje(heart.mesh, twig_length=20.0), cv=2.0)
    twin = Twin(heart, base.cell, Velocities(), base.electrodes, system)
    data = blank((-20.0, 100.0))
    free = Parameters([parameter("purkinje_cv"), parameter("cv_l")])
    objective = Objective(build_model(twin, data, free), data, free)
    qrs = stage_of(objective, np.array([0.7, -0.3]))
    written = Calibration(twin, (), a_beat(), qrs, None, None, ())
    return written, load_twin(write_twin(folder / "twin.h5", written))


def test_a_purkinje_tree_comes_back(x64_module, tmp_path):
    """Its velocity, as fitted, and the places where it is excited."""
    written, stored = by_tree(tmp_path)
    was, now = written.twin.purkinje, stored.twin.purkinje
    for name in ("points", "edges", "roots"):
        assert np.array_equal(getattr(now.tree, name), getattr(was.tree, name))
    values = written.qrs.fit.values
    assert float(now.cv) == float(values["purkinje_cv"][0]) != float(was.cv)
    for name in ("resistance", "area"):
        assert float(getattr(now, name)) == float(getattr(was, name))
    assert len(stored.stimuli) == len(was.tree.roots)
    assert all(
        float(cv.cv_l) == float(values["cv_l"][0]) for cv in stored.twin.conductivity.values()
    )
    assert "site_positions_mm" not in stored.facts


# --- what is refused -----------------------------------------------------------------------------


def edited(change):
    """A copy of the good file, changed by a function of the open file."""

    def make(good: Path, folder: Path) -> Path:
        path = Path(shutil.copy(good, folder / "odd.h5"))
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    return make


def replaced(name: str, values, **options):
    def change(file):
        del file[name]
        file.create_dataset(name, data=values, **options)

    return edited(change)


def altered(name: str, change):
    def alter(file):
        file[name][...] = change(file[name][()])

    return edited(alter)


def with_attribute(name: str, value):
    return edited(lambda file: file.attrs.__setitem__(name, value))


def written(content: bytes):
    def make(good: Path, folder: Path) -> Path:
        path = folder / "odd.h5"
        path.write_bytes(content)
        return path

    return make


def cut(keep):
    def make(good: Path, folder: Path) -> Path:
        path, whole = folder / "odd.h5", good.read_bytes()
        path.write_bytes(whole[: keep(len(whole))])
        return path

    return make


def declared(name: str, shape, **options):
    """An array that is said to be there, of which the file holds nothing."""

    def change(file):
        del file[name]
        file.create_dataset(name, shape=shape, dtype="f8", **options)

    return edited(change)


def linked(name: str, target):
    def change(file):
        del file[name]
        file[name] = target

    return edited(change)


def virtual(file):
    layout = h5py.VirtualLayout(shape=(4, 3), dtype="f8")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "points", shape=(4, 3))
    del file["heart/points"]
    file.create_virtual_dataset("heart/points", layout)


def no_number(values):
    values = np.array(values)
    values.flat[len(values.flat) // 2] = np.nan
    return values


class Trap:
    """What a pickle could do."""

    def __reduce__(self):
        return (Path.touch, (Path("sprung"),))


PICKLE = pickle.dumps(Trap())
BAD = {
    "a pickle": (written(PICKLE), "no calibrated twin"),
    "pickle inside": (replaced("maps/lat", np.void(PICKLE)), "'maps/lat' is no array of numbers"),
    "pickle as text": (replaced("maps/lat", PICKLE.hex()), "'maps/lat' is no array of numbers"),
    "empty": (written(b""), "no calibrated twin"),
    "text": (written(b"points: 1 2 3\n" * 99), "no calibrated twin"),
    "begun": (cut(lambda size: 200), "no calibrated twin"),
    "cut in half": (cut(lambda size: size // 2), "truncated|no calibrated twin"),
    "cut at the end": (cut(lambda size: size - 1), "truncated|no calibrated twin"),
    "later version": (with_attribute("version", 2), "is of version 2, .* reads version 1: update"),
    "odd version": (with_attribute("version", np.inf), "no calibrated twin"),
    "no version": (edited(lambda file: file.attrs.__delitem__("version")), "version"),
    "other format": (with_attribute("format", "mesh"), "does not say that it is one"),
    "formats": (with_attribute("format", ["a", "b"]), "does not say that it is one"),
    "huge array": (declared("heart/points", (10**12, 3)), "'heart/points' is no array"),
    "large array": (declared("heart/points", (10**8, 3)), "'heart/points' is no array"),
    "packed zeros": (
        replaced("heart/points", np.zeros((10**6, 3)), compression="gzip"),
        "'heart/points' is no array",
    ),
    "huge text": (with_attribute("remarks", "x" * 10_000_001), "'remarks' is no text"),
    "deep text": (with_attribute("cells", "[" * 100_000), "cannot be read"),
    "link": (linked("heart/points", h5py.ExternalLink("other.h5", "/points")), "points elsewhere"),
    "soft link": (linked("heart/points", h5py.SoftLink("/maps/lat")), "points elsewhere"),
    "group elsewhere": (linked("heart", h5py.ExternalLink("other.h5", "/")), "points elsewhere"),
    "tree elsewhere": (
        edited(lambda file: file.__setitem__("purkinje", h5py.ExternalLink("o.h5", "/"))),
        "points elsewhere",
    ),
    "virtual": (edited(virtual), "'heart/points' is no array"),
    "in another file": (
        declared("heart/points", (4, 3), external=[("raw.bin", 0, 96)]),
        "'heart/points' is no array",
    ),
    "no heart": (edited(lambda file: file.__delitem__("heart")), "'heart/points' is no array"),
    "no maps": (edited(lambda file: file.__delitem__("maps")), "'maps/lat' is no array"),
    "fields are no group": (replaced("heart/point_fields", [1.0]), "cannot be read"),
    "texts as numbers": (replaced("heart/points", [["a", "b", "c"]]), "'heart/points' is no array"),
    "wrong shape": (altered("heart/f0", lambda f0: 2 * f0), "not a unit vector"),
    "points in a row": (replaced("heart/points", np.zeros(9)), "'heart/points' is no array"),
    "far node": (altered("heart/tets", lambda tets: tets + 10**6), "points at node"),
    "other heart": (replaced("maps/lat", np.zeros(3)), "do not belong to its heart"),
    "no such cell": (with_attribute("cells", '[{"name": "/etc/passwd"}]'), "not in the library"),
    "cells are a table": (with_attribute("cells", "{}"), "'cells' is of the wrong kind"),
    "cell of nothing": (with_attribute("cells", "[3]"), "not in the library"),
    "odd numbers": (
        with_attribute("cells", '[{"name": "mitchell-schaeffer", "parameters": [1]}]'),
        "cannot be read",
    ),
    "correlations of nothing": (with_attribute("correlation", '{"p": {}}'), "unknown stages"),
    "correlations are numbers": (with_attribute("correlation", '{"qrs": 1}'), "cannot be read"),
    "fewer cells": (replaced("tissue/cell", np.zeros(1, int)), "cannot be read"),
    "standing still": (altered("tissue/velocities", np.zeros_like), "cv_l"),
    "negative APD": (altered("maps/apd90", np.negative), "do not belong to its heart"),
    **{
        f"no number in {name}": (altered(name, no_number), f"'{name}' has numbers that are not")
        for name in (
            *("heart/points", "tissue/velocities", "tissue/conductivities", "maps/apd90"),
            *("sites/positions", "sites/onsets", "electrodes/positions"),
        )
    },
}


@pytest.mark.parametrize("case", BAD)
def test_odd_files_are_refused_in_one_line(good, tmp_path, monkeypatch, case):
    make, message = BAD[case]
    monkeypatch.chdir(tmp_path)  # where links would lead to
    path = make(good, tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        load_twin(path)
    said = str(caught.value)
    assert said.startswith(f"the twin '{path}'")
    assert said.endswith("'twinheart calibrate'.")
    assert "\n" not in said
    assert len(said) < 500
    assert [file.name for file in tmp_path.iterdir()] == ["odd.h5"]  # nothing was sprung or made


def test_other_files_are_no_twins(good, tmp_path):
    assert is_twin_file(good)
    assert not is_twin_file(shutil.copy(good, tmp_path / "twin.vtu"))
    assert not is_twin_file(tmp_path)
    assert not is_twin_file(tmp_path / "none.h5")
    for case in ("other format", "formats"):
        assert not is_twin_file(BAD[case][0](good, tmp_path))


@pytest.mark.parametrize("case", ["cut in half", "a pickle", "later version", "no heart"])
def test_simulate_refuses_damaged_twins_in_one_line(good, tmp_path, capsys, case):
    make, message = BAD[case]
    path, out = make(good, tmp_path), tmp_path / "out"
    assert main(["simulate", "--heart", str(path), "--out", str(out)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"twinheart: error: the twin '{path}'")
    assert re.search(message, said)
    assert not out.exists()


# --- written whole or not at all -----------------------------------------------------------------


@pytest.mark.parametrize("before", [None, b"what was there"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_nothing_half_written_is_left(found, tmp_path, monkeypatch, before, failure):
    path, count = tmp_path / "twin.h5", iter(range(100))
    if before is not None:
        path.write_bytes(before)

    def check(self):
        if next(count) == 5:
            raise failure

    monkeypatch.setattr(Disk, "check", check)
    expected = OutputError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        write_twin(path, found)
    if isinstance(failure, OSError):
        assert "No space left" in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ([] if before is None else ["twin.h5"])
    if before is not None:
        assert path.read_bytes() == before


def test_folders_that_cannot_be_written_to_are_named(found, tmp_path):
    with pytest.raises(OutputError, match=r"cannot write .*none/twin\.h5: No such file"):
        write_twin(tmp_path / "none" / "twin.h5", found)
    with pytest.raises(OutputError, match="it is a folder"):
        write_twin(tmp_path, found)


def test_a_site_over_the_core_of_a_scar_is_silent(tmp_path):
    """In the fit, in the prediction afterwards and in the stored twin."""
    heart, twin = small_heart(), small_twin()
    usual = small_objective().model.excitation.positions({})
    centroids = heart.mesh.points[heart.mesh.tets].mean(axis=1)
    core = np.linalg.norm(centroids - np.asarray(usual[0]), axis=1) < 18.0
    regions = np.where(core, 9, heart.regions)
    conduction = {int(k): NonConducting() if k == 9 else Velocities() for k in np.unique(regions)}
    scarred = Heart(heart.mesh, heart.f0, heart.s0, regions)
    twin = Twin(scarred, twin.cell, conduction, twin.electrodes)
    names, data = ("cv_l", "site.onset", "gain"), blank(BEAT)
    free = Parameters(parameter(n, sites=small_sites()) for n in names)
    model = build_model(twin, data, free, sites=small_sites(), dtype=np.float64)
    objective, u = Objective(model, data, free), jnp.zeros(5)
    predict = eqx.filter_jit(objective.predict)
    traced = np.asarray(predict(u).lat)
    never = predict(u.at[1].set(100.0)).lat  # that site half a second later than all others
    np.testing.assert_array_equal(traced, never)
    assert np.abs(traced - predict(u.at[2].set(1.0)).lat)[np.isfinite(traced)].max() > 1.0
    stage = stage_of(objective, np.zeros(5))
    np.testing.assert_allclose(stage.prediction.lat, traced, rtol=EXACT64)
    assert np.isinf(traced).sum() > 5  # the core
    file = write_twin(
        tmp_path / "twin.h5", Calibration(twin, small_sites(), a_beat(), stage, None, None, ())
    )
    late = load_twin(file).beat(t_end=300.0).lat
    alive = np.isfinite(traced)
    assert (np.isfinite(late) == alive).all()
    np.testing.assert_allclose(
        (late - np.nanmin(late))[alive], (traced - traced.min())[alive], atol=1.0
    )
