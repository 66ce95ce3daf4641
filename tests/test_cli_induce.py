"""`twinheart induce`: a plate that re-enters, going on, what is said, distinct tachycardias."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_cli_simulate import last_error

from twinheart.anatomy import Heart, demo_heart, mesh_of_heart
from twinheart.cli import main
from twinheart.cli.case import check_case
from twinheart.cli.induce import remarks_on
from twinheart.cli.vt_ecg import leads_of
from twinheart.ecg import Electrodes, read_ecg
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import slab
from twinheart.mesh.io import write_mesh
from twinheart.planning import PacingSite, aha_sites, induce, named_protocol
from twinheart.planning.induction.morphology import Morphology
from twinheart.planning.induction.one_site import SiteResult, StageResult
from twinheart.planning.induction.tachycardias import Tachycardia, _is_one
from twinheart.planning.reentry_maps.circuit import ReentryCircuit
from twinheart.planning.substrate import build_substrate

SPEED, SIDE = 0.2, 20.0
BODY = {"RA": (-60, 90, 60), "LA": (100, 90, 60), "LL": (90, -90, 50)} | {
    f"V{k}": (10 * k, 15 * k - 30, 45) for k in range(1, 7)
}
CASE = f"""
heart.file = "plate.vtu"
cells.model = "mitchell-schaeffer"
cells.parameters = {{ tau_close = 40.0, tau_open = 30.0 }}
cells.regions = [{{ tag = 1, parameters = {{ tau_close = 100.0 }} }}]
conduction.cv_l = {SPEED}
conduction.cv_t = {SPEED}
scar.condition = "none"
scar.across = 1.0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A core of 80 mm around, and beside it tissue that recovers late."""
    folder = tmp_path_factory.mktemp("induce")
    mesh = slab((40.0, 40.0, 1.0), 1.0)
    x, y, _ = (mesh.points[mesh.tets].mean(axis=1) - 20.0).T
    scar = np.where(np.maximum(np.abs(x), np.abs(y)) < SIDE / 2, 2, 0).astype(np.int32)
    late = ((x > SIDE / 2) & (np.abs(y) < 5)).astype(np.int32)
    mesh = TetMesh(mesh.points, mesh.tets, {}, {"scar": scar})
    write_mesh(folder / "plate.vtu", mesh_of_heart(Heart(mesh, regions=late)))
    (folder / "case.toml").write_text(CASE)
    (folder / "sites.csv").write_text("below, 35, 10, 0\nabove, 35, 30, 0\n")
    return folder


def arguments(folder, *more):
    given = ("--case", folder / "case.toml", "--sites", folder / "sites.csv", "--json")
    return ["induce", *map(str, given), *map(str, more)]


def test_sites_around_one_core_induce_one_tachycardia(folder, tmp_path, capsys):
    """From either side of the late tissue the wave goes round the core, in either direction."""
    out = tmp_path / "sites.jsonl"
    options = ("--preset", "varp-arevalo2016", "--observe", 1800, "--workers", 1, "-o", out)
    assert main(arguments(folder, *options)) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["inducible_sites"] == ["below", "above"]
    assert (found["n_inducible"], found["n_sites"]) == (2, 2)
    (vt,) = found["vts"]
    assert vt["sites"] == ["below", "above"]
    assert vt["cycle_length_ms"] == pytest.approx(4 * SIDE / SPEED, rel=0.02)
    assert vt["morphology"] == "monomorphic"
    assert vt["exit_mm"] is None  # there is no border zone
    assert vt["length_mm"] == pytest.approx(4 * SIDE, rel=0.1)
    assert found["settings"]["observe_ms"] == 1800.0
    assert any(not source["verified"] for source in found["settings"]["sources"])
    assert "pacing sites: 2 of 2" in said.err
    assert "population values" in said.err
    seconds = [row["seconds"] for row in found["sites"]]
    (tmp_path / "body.json").write_text(json.dumps(BODY))
    assert main(arguments(folder, *options, "--electrodes", tmp_path / "body.json")) == 0
    again = json.loads(capsys.readouterr().out)
    assert [row["seconds"] for row in again["sites"]] == seconds  # nothing is run again
    check_ecg(again["vts"][0].pop("ecg"), vt["cycle_length_ms"], tmp_path / "sites_ecg")
    assert again["vts"] == found["vts"]
    # the file belongs to that protocol
    assert main(arguments(folder, "--preset", "burst", "-o", out)) == 2
    assert "another protocol" in last_error(capsys)


def check_ecg(own, cycle, folder):
    """A record of what has settled, which repeats with the cycle, beside the results."""
    assert [Path(file).name for file in own["files"]] == ["vt1.csv", "vt1.hea", "vt1.dat"]
    assert all(Path(file).parent == folder for file in own["files"])
    assert own["rate_per_min"] == pytest.approx(60_000 / cycle)
    ecg = read_ecg(own["files"][1]).ecg
    assert len(ecg.names) == 12
    assert own["length_ms"] == 2000.0  # goes on where less was observed
    assert own["ends_ms"] is None
    signals = np.asarray(ecg.signals)
    later = round(cycle)
    assert np.abs(signals[later:] - signals[:-later]).max() < 0.05 * np.ptp(signals)


def test_electrodes_are_those_of_the_option_the_case_or_the_twin(tmp_path):
    (tmp_path / "body.json").write_text(json.dumps(BODY))
    fitted = Electrodes(("RA", "LA", "LL"), np.ones((3, 3)))
    stored = SimpleNamespace(twin=SimpleNamespace(electrodes=fitted), facts={})
    heart: Any = None  # nothing is placed around it
    own = leads_of(heart, None, None, stored=stored)
    assert own is not None
    assert own.electrodes is fitted
    given = leads_of(heart, str(tmp_path / "body.json"), None, stored=stored)
    assert given is not None
    assert given.electrodes.positions[1, 0] == 100.0
    for name, found in (("none", None), (str(tmp_path / "body.json"), 100.0)):
        case = check_case({"ecg": {"electrodes": name}}, {})
        leads = leads_of(heart, None, None, case=case)
        assert (None if leads is None else leads.electrodes.positions[1, 0]) == found


def result(name, outcome, stages=(), beats=6):
    site = PacingSite(name, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    return SiteResult(site, outcome, beats, tuple(stages), (), None, None, 0.0, 1)


def test_stimuli_that_cannot_be_followed_are_told_in_one_line_each():
    protocol = named_protocol("varp-arevalo2016")
    captured = result("a", "not induced", [StageResult(300.0, 290.0), StageResult(None, 300.0)])
    early = [result(name, "not induced", [StageResult(None, 300.0)]) for name in "bc"]
    (said,) = remarks_on([captured, *early], protocol)
    assert "2 of 3 sites: S2 of 300 ms comes before the tissue has recovered" in said
    (said,) = remarks_on([captured, result("d", "not induced", beats=3)], protocol)
    assert "1 of 2 sites: S1 at 600 ms is too fast" in said
    (said,) = remarks_on([result("e", "no capture", beats=0)], protocol)
    assert "nothing is captured" in said
    assert remarks_on([captured], protocol) == []


def test_tachycardias_are_one_if_way_and_cycle_are():
    turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)

    def circle(middle, cycle, direction=1):
        path = np.stack([middle + 20 * np.cos(turn), 20 * np.sin(turn), 0 * turn], axis=1)
        path = path[::direction]
        empty = np.zeros(0, dtype=int)
        way = ReentryCircuit(np.arange(60), path, turn, cycle, 126.0, empty, None, None)
        return Tachycardia(cycle, Morphology("monomorphic", cycle, 0.0, 1.0, 3), way, ("a",))

    one = circle(0.0, 400.0)
    assert _is_one(one, circle(3.0, 410.0))
    assert _is_one(one, circle(0.0, 400.0, direction=-1))
    assert not _is_one(one, circle(0.0, 460.0))
    assert not _is_one(one, circle(30.0, 400.0))
    assert not _is_one(one, one._replace(circuit=None))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "varp"], "unknown protocol 'varp'"),
        (["--observe", "-5"], "--observe is -5 ms"),
        (["--heart", "demo"], "give one of"),
        (["--electrodes", "standard"], "name a folder"),
        (["--vt-ecg", "x", "--electrodes", "nowhere.json"], "nowhere.json"),
    ],
)
def test_bad_options_are_refused_in_one_line(folder, capsys, options, message):
    assert main(arguments(folder, *options)) == 2
    assert message in last_error(capsys)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["cardiomat2025", "peerp"])
def test_a_normal_heart_is_not_inducible(preset):
    found = build_substrate(demo_heart())
    sites = aha_sites(found.heart.mesh, found.problem)
    for site in (sites[0], sites[10], sites[17]):
        paced = induce(found.problem, found.tables, site, named_protocol(preset))
        assert paced.outcome == "not induced"
        assert paced.s1_beats == named_protocol(preset).n_s1
        assert paced.stages[0].captured is not None
