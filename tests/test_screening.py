"""Screening of a substrate and `twinheart screen`: theory, files, sites, bad input."""

import json

import numpy as np
import pytest
from test_circuits import core, plate
from test_cli_simulate import last_error

from twinheart.anatomy import Heart, mesh_of_heart
from twinheart.cli import main
from twinheart.cli.substrate import read_points
from twinheart.errors import InputError
from twinheart.mesh.generate import lv_ellipsoid, slab
from twinheart.mesh.io import read_mesh, write_mesh
from twinheart.planning import place_sites
from twinheart.planning.circuits.screening import premature_beat, screen
from twinheart.planning.substrate import build_substrate, substrate_with
from twinheart.tissue import Velocities, WaveTable

FLAT = WaveTable([20.0], [1.0], [100.0])  # refractory for 120 ms, whatever the interval
SPEED = 0.3
# Cells that recover within 100 ms, so that a plate of 32 mm is large enough for a circuit.
CASE = """
heart.file = "{file}"
cells.model = "mitchell-schaeffer"
cells.parameters = {{ tau_close = 40.0, tau_open = 30.0 }}
conduction.cv_l = {speed}
conduction.cv_t = {speed}
scar.condition = "none"
scar.across = 1.0
"""


def flat(heart, **more):
    return build_substrate(
        heart, "mitchell-schaeffer", Velocities(SPEED, SPEED), condition="none", across=1.0,
        border_speed=1.0, tables={0: FLAT, 1000: FLAT}, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def eight():
    """A channel of 4 x 16 mm through 20 x 16 mm of core; 16 mm in it and 32 mm around."""
    _, mesh = plate(core([(0.0, 2.0)]))
    return Heart(mesh)


def test_a_figure_of_eight_is_found_and_its_maps_are_those_of_the_formula(eight):
    found = flat(eight)
    sites = place_sites(found.problem, [[16.0, 2.0, 1.0], [2.0, 14.0, 1.0]])
    told = []
    screened = screen(found, sites, progress=lambda *n: told.append(n))
    assert screened.circuits is not None
    (circuit,) = screened.circuits
    assert circuit.cycle_length_ms == pytest.approx(48 / SPEED, rel=1e-4)
    assert screened.unsustained == []
    assert told[0] == (0, 4)
    assert told[-1] == (4, 4)
    # with a flat table a premature beat is the regular one, later; nothing blocks
    for beat in screened.beats:
        assert beat.coupling == 100.0 + 20.0 + 20.0
        alive = np.isfinite(beat.regular)
        late = (beat.activation - beat.regular)[alive]
        assert late == pytest.approx(beat.coupling, abs=1e-4)
        duration = (beat.repolarisation - beat.activation)[alive]
        assert duration == pytest.approx(100.0, abs=1e-6)
    # repolarisation 100 ms after activation; 5 mm on the wave is 5 / 0.3 ms later
    lowest = 100.0 - 5.0 / SPEED
    assert screened.lowest == pytest.approx([lowest] * 2, abs=1.0)
    assert np.nanmin(screened.vulnerability) == screened.lowest.min()
    assert screened.sweep is not None
    assert np.all(np.diff(screened.sweep.lowest_ms) < 0)


def test_without_scar_there_are_no_circuits_but_vulnerability(eight):
    found = flat(Heart(slab((20.0, 4.0, 2.0), 1.0)))
    screened = screen(found, place_sites(found.problem, [[0.0, 2.0, 1.0]]))
    assert screened.circuits is None
    assert np.isfinite(screened.vulnerability).any()
    with pytest.raises(InputError, match="no site"):
        screen(found, [])


def test_a_premature_beat_blocks_where_tissue_recovers_late(eight):
    """The channel needs 200 ms: a beat after 160 ms cannot enter it, and comes back from above."""
    late = WaveTable([20.0], [1.0], [180.0])
    slow = build_substrate(
        eight, "mitchell-schaeffer", Velocities(SPEED, SPEED), condition="none", across=1.0,
        border_speed=1.0, tables={0: FLAT, 1000: late},
    )  # fmt: skip
    (site,) = place_sites(slow.problem, [[16.0, 2.0, 1.0]])
    # longer than the 160 ms of the circuit; what is outside still lends a little in the middle
    needs = pytest.approx(200.0, abs=0.2)
    assert slow.refractory.max() == needs
    screened = screen(slow, place_sites(slow.problem, [[2.0, 14.0, 1.0]]))
    assert screened.circuits == []
    (circuit,) = screened.unsustained
    assert (circuit.cycle_length_ms, circuit.refractory_ms) == (pytest.approx(160, rel=1e-4), needs)
    beat = premature_beat(slow, site, coupling=160.0)
    along = (eight.mesh.points[:, [0, 2]] == [16.0, 1.0]).all(axis=1)
    y = eight.mesh.points[along, 1]
    low, high = (int(np.flatnonzero(along)[y == at][0]) for at in (9.0, 19.0))
    assert beat.regular[low] < beat.regular[high]
    assert beat.activation[low] > beat.activation[high] + 9.0 / SPEED
    own = np.linalg.norm(eight.mesh.points - np.array(site.position), axis=1).argmin()
    assert slow.refractory[own] == pytest.approx(120.0, abs=2.0)  # and a little of the channel's
    assert premature_beat(slow, site).coupling == slow.refractory[own] + 20.0


def test_lesions_across_the_channel_leave_no_circuit(eight):
    from twinheart.planning import Lesion

    before = flat(eight)
    after = substrate_with(before, [Lesion([[13.0, 14.0, 2.0], [19.0, 14.0, 2.0]], 2.0, np.inf)])
    sites = place_sites(after.problem, [[16.0, 2.0, 1.0], [2.0, 14.0, 1.0]])
    assert screen(after, sites).circuits == []


@pytest.fixture(scope="module")
def files(tmp_path_factory, eight):
    folder = tmp_path_factory.mktemp("screen")
    write_mesh(folder / "eight.vtu", mesh_of_heart(eight))
    (folder / "case.toml").write_text(CASE.format(file="eight.vtu", speed=0.2))
    (folder / "sites.csv").write_text("name, x, y, z\nbelow, 16, 2, 1\nbeside, 2, 14, 1\n")
    return folder


def test_command_tells_circuits_maps_and_method(files, tmp_path, capsys):
    out = tmp_path / "maps.vtu"
    options = ["--case", str(files / "case.toml"), "--sites", str(files / "sites.csv")]
    assert main(["screen", *options, "-o", str(out), "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["n_circuits"] == 1
    (circuit,) = found["circuits"]
    # as long as at rest, and a little longer: it comes back before velocities have recovered
    assert 0.999 < circuit["cycle_length_ms"] / (48 / 0.2) < 1.02
    assert circuit["isthmus_area_mm2"] == pytest.approx(8.0, rel=1e-3)
    ends = sorted([circuit["exit_mm"][1], circuit["entrance_mm"][1]])
    assert ends == pytest.approx([6.0, 22.0], abs=1.0)
    assert set(circuit["sites"]) <= {"below", "beside"}
    assert 60.0 < circuit["refractory_ms"] < circuit["cycle_length_ms"]
    assert [row["site"] for row in found["sites"]] == ["below", "beside"]
    radii = [row["radius_mm"] for row in found["vulnerability"]["by_radius"]]
    assert radii == [2, 3, 4, 5, 6, 7, 8]
    assert "Campos" in found["method"]
    assert found["provenance"]["version"]
    assert found["wall_s"] > 0
    assert "population values" in found["notes"][0]
    assert "population values" in said.err
    mesh, _ = read_mesh(out)
    assert {"rvi_ms", "arrival_ms", "premature_arrival_ms"} <= set(mesh.point_fields)
    assert set(np.unique(mesh.cell_fields["isthmus"])) == {0, 1}
    pv = pytest.importorskip("pyvista")
    lines = pv.read(tmp_path / "maps_circuits.vtp")
    assert lines.n_cells == 1
    assert lines.n_points == len(circuit["path_mm"])
    assert lines.cell_data["cycle_length_ms"][0] == pytest.approx(circuit["cycle_length_ms"])


def test_command_on_a_heart_without_scar_says_so(tmp_path, capsys):
    mesh = lv_ellipsoid(edge=4.3)
    write_mesh(tmp_path / "lv.vtu", mesh)
    (tmp_path / "case.toml").write_text(CASE.format(file="lv.vtu", speed=0.6))
    assert main(["screen", "--case", str(tmp_path / "case.toml")]) == 0
    said = capsys.readouterr()
    assert said.err.count("no scar tags") == 1
    assert "n_circuits" in said.out
    assert "lowest_ms" in said.out
    assert "AHA 5 basal inferolateral" in said.out


def test_points_are_read_with_and_without_names_and_heading(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("x,y,z\n1,2,3\n\n4,5,6\n")
    assert read_points(path) == (["site 1", "site 2"], [(1, 2, 3), (4, 5, 6)])
    path.write_text("apex, 1, 2, 3\n")
    assert read_points(path) == (["apex"], [(1, 2, 3)])
    path.write_bytes(b"\xef\xbb\xbf4,5,6\r\n")  # as spreadsheets mark and end it
    assert read_points(path) == (["site 1"], [(4, 5, 6)])
    path.write_bytes(b"1,2,3\n" * 200_000)
    with pytest.raises(InputError, match="larger than 1000000 bytes, not a list of points"):
        read_points(path)
    for text, message in (
        ("", "0 points"), ("1,2\n", "row 1"), ("1,2,nan\n", "row 1"), ("1,2,3\na,b,c\n", "row 2"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_points(path)
    with pytest.raises(InputError, match="aha17 or aha19 or a CSV file"):
        read_points(tmp_path / "aha18")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give one of --heart, --twin and --case"),
        (["--heart", "demo", "--twin", "x.h5"], "give one of --heart, --twin and --case"),
        (["--heart", "none.vtu"], "none.vtu"),
        (["--twin", "none.h5"], "there is no twin"),
        (["--case", "case", "--cell", "x"], "--cell belongs to the mesh"),
        (["--case", "case", "--sites", "far"], "far.csv"),
        (["--case", "case", "--out", "maps.txt"], "ending in .vtu"),
        (["--case", "case", "--rvi-radius", "-1"], "radii"),
    ],
)
def test_bad_options_are_refused_in_one_line(files, tmp_path, capsys, options, message):
    (tmp_path / "far.csv").write_text("10,10,10\n500,0,0\n")
    places = {"case": str(files / "case.toml"), "far": str(tmp_path / "far.csv")}
    given = [places[option] if option in places else option for option in options]
    if "case" in options and "far" not in options:
        given += ["--sites", str(files / "sites.csv")]
    assert main(["screen", *given]) == 2
    message = message if message != "far.csv" else "site 2 at"
    assert message in last_error(capsys)
