"""`twinheart calibrate` on a small heart: what it prints and writes, resumes and refuses."""

import io
import json
import re
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calibration_samples import BEAT, small_heart, small_objective
from scipy.interpolate import CubicSpline

from twinheart.calibration import standard_parameters, start_sites
from twinheart.calibration.twin_file import load_twin
from twinheart.cli import main
from twinheart.cli.calibrate import CHECKPOINT, Progress
from twinheart.cli.calibration_section import CalibrationSection, settings_of
from twinheart.ecg import Ecg, write_ecg
from twinheart.errors import InputError
from twinheart.mesh import TetMesh
from twinheart.mesh.io import read_mesh, write_mesh

KEYS = {"correlation_median", "correlation_min", "n_parameters", "wall_s", "iterations", "result"}
KEYS |= {"unidentified", "correlation", "misfit_p_value", "stages", "remarks", "notice", "files"}
# The heart stays where it is in a search, so that the fit has something to do.
FREE = ("cv_l", "gain", "offset", "pose.shift", "apd", "apd.tm")
FEW = (*FREE[:3], *(f"pose.shift[{axis}]" for axis in "xyz"), *FREE[4:])
RECORDED = ("I", "II", "V1", "V3", "V6")  # the other leads fell off


@pytest.fixture(scope="module", autouse=True)
def quick():
    """What runs once is compiled without much effort."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("inputs")


@pytest.fixture(scope="module")
def heart(folder):
    mesh, path = small_heart().mesh, folder / "heart.vtu"
    fields = {"fibre": small_heart().f0, "region": small_heart().regions}
    kept = {"surf_class": mesh.point_fields["surf_class"]}
    write_mesh(path, TetMesh(mesh.points, mesh.tets, kept, fields))
    return path


@pytest.fixture(scope="module")
def beat():
    """A beat of the heart itself, with other numbers than the usual ones."""
    objective = small_objective(("cv_l", "cv_t", "apd"), fast=True, window=BEAT)
    signals = eqx.filter_jit(objective.predict)(jnp.array([0.5, -0.3, 0.4])).signals
    t = np.arange(np.ceil(BEAT[0]), BEAT[1] - 5.0)
    smooth = CubicSpline(objective.data.t, np.asarray(signals, float))(t)
    smooth *= 2.0 / np.abs(smooth).max()
    noise = np.random.default_rng(0).normal(0.0, 0.01, smooth.shape)
    return Ecg(t, smooth + noise, objective.data.names)


@pytest.fixture(scope="module")
def ecg(folder, beat):
    columns = [beat.names.index(name) for name in RECORDED]
    write_ecg(folder / "ecg.csv", Ecg(beat.t, np.asarray(beat.signals)[:, columns], RECORDED))
    return folder / "ecg.csv"


def quick_options(out: Path) -> list[str]:
    few = [word for name in FREE for word in ("--free", name)]
    return [
        *("--sites", "3", *few, "--bandwidth", "60", "--starts", "2", "--iterations", "3"),
        *("--seed", "5", "--no-report", "--out", str(out)),
    ]


@pytest.fixture(scope="module")
def first(heart, ecg, tmp_path_factory):
    """A whole run: its summary, its folder, and what it told."""
    out = tmp_path_factory.mktemp("first") / "results"
    files = ["--heart", str(heart), "--length-unit", "mm", "--ecg", str(ecg)]
    more = ["--cell", "mitchell-schaeffer", "--resume", "--json"]
    with redirect_stderr(io.StringIO()) as said, redirect_stdout(io.StringIO()) as printed:
        status = main(["calibrate", *files, *quick_options(out), *more])
    assert status == 0, said.getvalue()
    return json.loads(printed.getvalue()), out, said.getvalue()


def test_summary_has_its_keys_and_numbers(first):
    summary, out, _ = first
    assert summary.keys() >= KEYS
    assert summary["n_parameters"] == len(FEW)
    assert summary["result"] in ("converged", "iterations", "no step lowers the loss")
    assert summary["wall_s"] > 0
    assert 0 < summary["iterations"]
    assert summary["stages"]["qrs"]["iterations"] <= 3
    # the beat is one of this heart: its shape is found
    assert 0.9 < summary["correlation_min"] <= summary["correlation_median"] <= 1.0
    names = [row["name"] for s in summary["stages"].values() for row in s["parameters"]]
    assert names == list(FEW)
    assert set(summary["unidentified"]) <= set(FEW)
    assert "not for clinical use" in summary["notice"]
    kept = json.loads((out / "summary.json").read_text())
    assert {key: kept[key] for key in KEYS - {"wall_s"}} == {
        key: summary[key] for key in KEYS - {"wall_s"}
    }
    assert kept["provenance"]["seed"] == 5


def test_missing_leads_are_left_out(first):
    summary, _, _ = first
    assert list(summary["correlation"]) == list(RECORDED)
    assert np.median(list(summary["correlation"].values())) == pytest.approx(
        summary["correlation_median"]
    )


def test_files_are_those_that_are_told(first):
    summary, out, said = first
    names = {Path(name).name for name in summary["files"]}
    assert names == {"twin.h5", "maps.vtu", "case.toml", "summary.json"}
    assert {path.name for path in out.iterdir()} == names
    twin = load_twin(out / "twin.h5")
    maps, _ = read_mesh(out / "maps.vtu", length_unit="mm")
    assert maps.point_fields["lat_ms"] == pytest.approx(twin.lat, abs=1e-4)
    assert maps.point_fields["repol_ms"] == pytest.approx(twin.lat + twin.apd90, abs=1e-3)
    assert "note: there is no checkpoint" in said  # that was asked for
    assert "calibrating: fit, iteration 1, loss" in said


def test_an_interrupted_run_resumes_to_the_same_end(first, tmp_path, monkeypatch, capsys):
    """From the case as it was run: the same seed gives the same twin, bit for bit."""
    summary, before, _ = first
    out = tmp_path / "again"
    command = ["calibrate", str(before / "case.toml"), "--out", str(out), "--json"]

    def interrupt(self, done):
        if done["stage"] == "fit" and done.get("iteration") == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "__call__", interrupt)
        assert main(command) == 130
    said = capsys.readouterr()
    assert said.out == ""
    assert f"interrupted; the checkpoint is {out / CHECKPOINT}: run the same command" in said.err
    assert [path.name for path in out.iterdir()] == [CHECKPOINT]
    assert main([*command, "--resume"]) == 0
    resumed = json.loads(capsys.readouterr().out)
    for key in ("correlation", "iterations", "unidentified", "n_parameters"):
        assert resumed[key] == summary[key]
    assert not (out / CHECKPOINT).exists()
    with h5py.File(before / "twin.h5") as one, h5py.File(out / "twin.h5") as same:
        names = []
        one.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
        for name in names:
            assert one[name][()].tobytes() == same[name][()].tobytes(), name


def test_an_interruption_before_the_first_checkpoint_leaves_nothing(
    heart, ecg, tmp_path, monkeypatch, capsys
):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("twinheart.cli.calibrate._calibrated", interrupt)
    out = tmp_path / "out"
    assert main(["calibrate", "--heart", str(heart), "--ecg", str(ecg), "--out", str(out)]) == 130
    assert "before the first checkpoint; nothing to resume from" in capsys.readouterr().err
    assert not out.exists()


# --- what is refused -----------------------------------------------------------------------------


@pytest.fixture
def early(monkeypatch):
    """Nothing is built before what was given is checked."""

    def build(*_):
        raise AssertionError("went on")

    monkeypatch.setattr("twinheart.cli.build.build_heart", build)


def refusal(capsys, status: int) -> str:
    out, err = capsys.readouterr()
    assert status == 2, err
    assert out == ""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if not line.startswith("twinheart: note: ")]
    assert len(lines) == 1, err
    assert lines[0].startswith("twinheart: error: ")
    assert len(lines[0]) < 500
    return lines[0]


def table(path: Path, ecg: Ecg, head: str | None = None, *, time: bool = True) -> Path:
    """A CSV file of an ECG under any header."""
    columns = ([np.asarray(ecg.t)] if time else []) + list(np.asarray(ecg.signals).T)
    usual = ",".join((["t_ms"] if time else []) + [f"{name}_mV" for name in ecg.names])
    rows = [",".join(f"{x:.6g}" for x in row) for row in np.stack(columns, axis=1)]
    path.write_text("\n".join([usual if head is None else head, *rows]))
    return path


def part(ecg: Ecg, begin: float, end: float) -> Ecg:
    inside = (np.asarray(ecg.t) >= begin) & (np.asarray(ecg.t) < end)
    return Ecg(np.asarray(ecg.t)[inside], np.asarray(ecg.signals)[inside], ecg.names)


def scaled(ecg: Ecg, factor: float) -> Ecg:
    return Ecg(ecg.t, factor * np.asarray(ecg.signals), ecg.names)


BAD_ECG = {
    "shorter than a beat": (
        lambda e, p: table(p, part(e, 0, 25)),
        "the recording lasts 24 ms, expected one whole heart beat at least .150 ms or more.",
    ),
    "one sample": (lambda e, p: table(p, part(e, 0, 1)), "the recording lasts 0 ms, expected"),
    "without its beginning": (
        lambda e, p: table(p, part(e, 20, 440)),
        "the QRS complex begins or ends with the recording, .*: record more of the beat",
    ),
    "no beat": (
        lambda e, p: table(
            p, Ecg(e.t, 0.1 + 1e-4 * np.asarray(e.t)[:, None] + 0.0 * e.signals, e.names)
        ),
        "expected 0.05 to 20|no complete QRS complex",
    ),
    "uV taken for mV": (
        lambda e, p: table(p, scaled(e, 1000.0)),
        r"has 3?.* mV from peak to peak, .* its unit seems to be uV; say so \(--ecg-unit\)",
    ),
    "V taken for mV": (lambda e, p: table(p, scaled(e, 0.001)), "its unit seems to be V; say so"),
    "flat": (lambda e, p: table(p, scaled(e, 0.0)), "the ECG is flat"),
    "no time axis": (
        lambda e, p: table(p, e, time=False),
        r"states no sampling rate: give it, .* \(here: --ecg-rate, --ecg-unit\)",
    ),
    "times of no unit": (
        lambda e, p: table(p, e, "t," + ",".join(f"{n}_mV" for n in e.names)),
        r"the time column 't' states no unit; .* \(here: --ecg-rate, --ecg-unit\)",
    ),
    "voltages of no unit": (
        lambda e, p: table(p, e, "t_ms," + ",".join(e.names)),
        r"states no unit of its voltages: give it, .* \(here: --ecg-rate, --ecg-unit\)",
    ),
    "sampled too coarsely": (
        lambda e, p: table(p, Ecg(e.t[::8], np.asarray(e.signals)[::8], e.names)),
        "sampled every 8 ms; the QRS needs 4 ms or less",
    ),
    "no file": (lambda e, p: p.with_name("none.csv"), "there is no such file"),
    "no ECG": (lambda e, p: p.write_bytes(b"\0\1\2") and p, "is no CSV text file"),
}


@pytest.mark.parametrize("case", BAD_ECG)
def test_bad_ecgs_are_refused_in_one_line(beat, heart, tmp_path, capsys, early, case):
    make, message = BAD_ECG[case]
    path, out = make(beat, tmp_path / "bad.csv"), tmp_path / "out"
    status = main(["calibrate", "--heart", str(heart), "--ecg", str(path), "--out", str(out)])
    said = refusal(capsys, status)
    assert str(path) in said
    assert re.search(message, said), said
    assert not out.exists()


def test_rate_and_unit_can_be_told(beat, heart, tmp_path, monkeypatch, capsys):
    """What the refusals say to give is enough: the beat is the one that was meant."""
    seen = []

    def keep(case, measured, *_):
        seen.append(measured)
        raise InputError("seen")

    monkeypatch.setattr("twinheart.cli.calibrate._calibrated", keep)
    bare = table(tmp_path / "bare.csv", scaled(beat, 1000.0), ",".join(beat.names), time=False)
    full = table(tmp_path / "full.csv", beat)
    told = ["--ecg-rate", "1000", "--ecg-unit", "uV"]
    for path, options in ((full, []), (bare, told)):
        files = ["--heart", str(heart), "--ecg", str(path), "--out", str(tmp_path / "out")]
        assert main(["calibrate", *files, *options]) == 2
    known, found = seen
    assert found.ecg.names == known.ecg.names
    assert np.abs(np.asarray(found.ecg.signals) - np.asarray(known.ecg.signals)).max() < 1e-5
    assert found.offset - found.onset == pytest.approx(known.offset - known.onset, abs=0.01)


BAD_TABLES = {
    "unknown parameter": (
        "free = ['cv_ll']",
        "unknown parameter 'cv_ll'; the nearest is 'cv_l'",
    ),
    "unknown prior": (
        "[calibration.parameters.cv_lo]\nprior = 'normal'",
        "unknown parameter 'cv_lo'; the nearest is 'cv_l'",
    ),
    "bounds crossed": (
        "[calibration.parameters.cv_l]\nprior = 'uniform'\nlow = 1.0\nhigh = 0.4",
        "parameter cv_l: a uniform prior with low = 1, high = 0.4: expected .* low below high",
    ),
    "no width": (
        "[calibration.parameters.cv_l]\nprior = 'normal'\nmean = 0.6\nsd = 0.0",
        "parameter cv_l: a normal prior with mean = 0.6, sd = 0: expected .* a positive sd",
    ),
    "infinite": (
        "[calibration.parameters.gain]\nprior = 'lognormal'\nmedian = inf\nfactor = 2.0",
        "parameter gain: a lognormal prior with median = inf, .*: expected finite numbers",
    ),
    "kind of prior": (
        "[calibration.parameters.cv_l]\nprior = 'cauchy'",
        "parameter cv_l has prior 'cauchy', expected one of normal, lognormal, uniform",
    ),
    "numbers of another prior": (
        "[calibration.parameters.cv_l]\nprior = 'normal'\nlow = 0.1\nhigh = 0.2",
        "the normal prior of cv_l has low, high, expected mean and sd",
    ),
    "text for a number": (
        "[calibration.parameters.cv_l]\nprior = 'normal'\nmean = 'fast'\nsd = 0.2",
        "the normal prior of cv_l has values that are no numbers",
    ),
    "not free": (
        "[calibration.parameters.cv_n]\nprior = 'uniform'\nlow = 0.1\nhigh = 0.2",
        "describes cv_n, which is not free: add it to calibration.free, or remove it",
    ),
    "nothing free": ("free = []", "no parameter of the QRS is free: name one, or 'usual'"),
    "T wave only": ("free = ['apd']", "no parameter of the QRS is free"),
    "T wave left out": (
        "free = ['usual', 'apd.field']\nt_wave = false",
        "apd.field is free, but the T wave, which it belongs to, is not fitted: remove it",
    ),
    "electrodes of no name": (
        "free = ['usual', 'electrode.x']",
        r"electrode.x is free, but of what is not said: add labels = \[\"V1\"\] to \[calib",
    ),
    "regions of no tag": ("free = ['usual', 'cv_scale']", "cv_scale is free, but of what"),
    "labels of one number": (
        "[calibration.parameters.cv_l]\nlabels = ['1']",
        "parameter cv_l takes no labels, got 1: remove them",
    ),
    "labels of sites": (
        "[calibration.parameters.site.ab]\nlabels = ['apex']",
        "parameter site.ab takes no labels, got apex",
    ),
    "no places": (
        "free = ['usual', 'cv_field']\n[calibration.parameters.cv_field]\nlabels = 0",
        "labels of parameter cv_field are 0, expected one number of places, 1 to 200",
    ),
    "places by name": (
        "free = ['usual', 'cv_field']\n[calibration.parameters.cv_field]\nlabels = ['apex']",
        "expected one number of places",
    ),
    "labels that are tables": (
        "[calibration.parameters.gain]\nlabels = [1.5]",
        r"labels of parameter gain are \[1.5\], expected a list of names or numbers",
    ),
    "no iterations": ("iterations = 0", "'calibration.iterations' is 0, expected greater than or"),
    "no sites": ("sites = 0", "'calibration.sites' is 0, expected greater"),
    "unknown key": ("iteration = 3", "unknown key 'calibration.iteration'; the nearest is"),
    "unknown unit": ("ecg_unit = 'kV'", "'calibration.ecg_unit' is 'kV', expected 'V', 'mV'"),
    "fast endocardium": (
        "[conduction]\ncv_endocardium = 2.0",
        "cv_endocardium is what a calibration finds .parameter cv_endo.: remove it",
    ),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_settings_are_refused_in_one_line(heart, ecg, tmp_path, capsys, early, case):
    text, message = BAD_TABLES[case]
    path, out = tmp_path / "case.toml", tmp_path / "out"
    head = f"[heart]\nfile = '{heart}'\n[calibration]\necg = '{ecg}'\n"
    path.write_text(head + text)
    said = refusal(capsys, main(["calibrate", str(path), "--out", str(out)]))
    assert re.search(message, said), said
    assert not out.exists()


def test_without_heart_or_ecg_there_is_nothing_to_do(heart, ecg, tmp_path, capsys):
    for given in ([], ["--heart", str(heart)], ["--ecg", str(ecg)]):
        said = refusal(capsys, main(["calibrate", *given, "--out", str(tmp_path / "out")]))
        assert "nothing to calibrate: give --heart and --ecg, or a case file" in said
    said = refusal(capsys, main(["calibrate", "--iterations", "many"]))
    assert "Invalid value for '--iterations'" in said


def test_electrodes_that_form_no_lead_of_the_ecg_are_named(heart, ecg, tmp_path, capsys):
    chest = tmp_path / "electrodes.json"
    chest.write_text(json.dumps({"V4": [100.0, 0.0, 0.0], "V5": [100.0, 30.0, 0.0]}))
    files = ["--heart", str(heart), "--ecg", str(ecg), "--electrodes", str(chest)]
    said = refusal(capsys, main(["calibrate", *files, "--out", str(tmp_path / "out")]))
    assert "RA" in said


@pytest.mark.parametrize("name", ["cv_l", "site.ab", "apd"])
def test_a_start_outside_its_bounds_is_named(name):
    free = standard_parameters(start_sites(small_heart(), 3), (name,))
    with pytest.raises(InputError, match=r"starts at 5000 .*, outside the bounds of its prior Uni"):
        free.standard({name: 5000.0})
    inside = free.physical(jnp.zeros(len(free)))
    assert free.standard(inside) == pytest.approx(0.0, abs=1e-6)


def test_tables_within_tables_are_names_with_a_dot():
    given = {"apd": {"prior": "normal", "mean": 280.0, "sd": 9.0, "tm": {"prior": "normal",
             "mean": 0.0, "sd": 3.0}}}  # fmt: skip
    priors = settings_of(CalibrationSection(parameters=given)).priors
    assert {name: prior.sd for name, prior in priors.items()} == {"apd": 9.0, "apd.tm": 3.0}


def test_noise_is_given_in_microvolts():
    assert settings_of(CalibrationSection(noise_uv=15.0)).noise == pytest.approx(0.015)
    assert settings_of(CalibrationSection()).noise is None


def test_progress_tells_every_step_of_the_fit_and_few_of_the_search(capsys):
    tell = Progress(every=1000.0)
    tell({"stage": "search"})
    for k in range(5):
        tell({"stage": "search", "iteration": k + 1.0, "loss": 10.0 - k})
    for k in range(3):
        tell({"stage": "fit", "iteration": k + 1.0, "loss": 3.0 - k, "left": 7.0})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "calibrating: search"
    assert lines[1:] == [
        f"calibrating: fit, iteration {k}, loss {4 - k}, at most 7 s left" for k in (1, 2, 3)
    ]
