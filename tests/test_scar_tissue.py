"""What scar does to a simulated heart: core is as good as absent, border zone is slow."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import twinheart as th
from twinheart.anatomy import Heart, mesh_of_heart
from twinheart.anatomy.scar import with_scar
from twinheart.cell import get_model
from twinheart.cli import main
from twinheart.errors import MeshError, ModelError
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import slab
from twinheart.mesh.io import read_mesh, write_mesh
from twinheart.tissue import NIEDERER_2011, Conductivities, NonConducting, Velocities
from twinheart.tissue.scar import SlowestWaveWarning, has_scar, scarred

CELL = "mitchell-schaeffer"
# The same equations; which nodes count as stiff, and get their mass balanced, depends on all nodes.
SAME = 0.02  # ms
PACE = "box:0,0,0,1,9,9"


def scar_slab(classes_of) -> Heart:
    mesh = slab((16.0, 8.0, 1.0), 0.5)
    x, y, _ = mesh.points[mesh.tets].mean(axis=1).T
    mesh = with_scar(mesh, classes_of(x, y).astype(np.int32))
    return Heart(mesh, f0=np.tile([1.0, 0.0, 0.0], (mesh.n_tets, 1)))


def core_block(x, y):
    return 2 * ((x > 6) & (x < 9) & (y < 6))


def beat_of(heart, **options):
    twin = th.Twin(*scarred(heart, get_model(CELL), Velocities(), **options))
    return th.simulate(twin, th.pace(PACE), t_end=60.0, dt=0.05)


def test_a_core_is_as_good_as_a_hole():
    heart = scar_slab(core_block)
    beat = beat_of(heart, condition="none")
    alive = heart.mesh.cell_fields["scar"] == 0
    nodes, tets = np.unique(heart.mesh.tets[alive], return_inverse=True)
    hole = Heart(TetMesh(heart.mesh.points[nodes], tets.reshape(-1, 4)), heart.f0[alive])
    without = th.simulate(th.Twin(hole, CELL), th.pace(PACE), t_end=60.0, dt=0.05)
    np.testing.assert_allclose(beat.lat[nodes], without.lat, atol=SAME)
    within = np.setdiff1d(np.arange(heart.mesh.n_nodes), nodes)
    assert len(within) > 100
    assert np.isnan(beat.lat[within]).all()
    plain = th.simulate(th.Twin(heart, CELL), th.pace(PACE), t_end=60.0, dt=0.05)
    behind = (heart.mesh.points == [10.0, 0.0, 0.0]).all(axis=1)
    assert beat.lat[behind] > plain.lat[behind] + 5  # the wave had to go around


def test_border_zone_is_slower_across_by_the_root_of_the_factor():
    heart = scar_slab(lambda x, y: np.ones_like(x))
    with pytest.warns(UserWarning, match="border zone are healthy"):
        _, _, conduction = scarred(heart, get_model(CELL), Velocities(0.6, 0.4), across=0.25)
    (tissue,) = conduction.values()
    np.testing.assert_allclose(tissue.cv, [0.6, 0.2, 0.2], rtol=1e-6)
    np.testing.assert_allclose(
        tissue.physical.sigma_m, NIEDERER_2011.sigma_m * jnp.array([1, 0.25, 0.25]), rtol=1e-5
    )


def test_conductivities_are_scaled_across():
    heart = scar_slab(lambda x, y: 1 + (x > 8))
    _, cells, tissues = scarred(heart, get_model("tentusscher2006-epi"), NIEDERER_2011)
    border, core = tissues[1000], tissues[2000]
    assert isinstance(border, Conductivities)
    assert isinstance(core, NonConducting)
    np.testing.assert_allclose(
        border.diffusivity, NIEDERER_2011.diffusivity * jnp.array([1, 0.1, 0.1]), rtol=1e-5
    )
    healthy = get_model("tentusscher2006-epi")
    # the factors that the condition documents
    assert float(cells[1000].g_na / healthy.g_na) == pytest.approx(0.38)
    assert float(cells[1000].g_ks / healthy.g_ks) == pytest.approx(0.20)


def test_tags_of_the_heart_are_kept():
    heart = scar_slab(core_block)
    tagged = Heart(heart.mesh, heart.f0, regions=np.arange(heart.mesh.n_tets) % 2 + 1)
    cells = {1: get_model(CELL), 2: get_model(CELL, tau_close=190.0)}
    scarry, by_tag, _ = scarred(tagged, cells, Velocities(), condition="none")
    assert sorted(by_tag) == [1, 2, 2001, 2002]
    assert by_tag[2] is cells[2]
    np.testing.assert_array_equal(scarry.regions % 1000, tagged.regions)


def test_a_coarse_mesh_says_that_it_cannot_be_so_slow():
    mesh = slab((12.0, 8.0, 4.0), 2.0)
    heart = Heart(with_scar(mesh, np.ones(mesh.n_tets, dtype=np.int32)))
    with pytest.warns(SlowestWaveWarning, match=r"0\.28 m/s"):
        _, _, tissues = scarred(heart, get_model(CELL), Velocities(0.6, 0.3), condition="none")
    assert float(tissues[1000].cv_t) == pytest.approx(0.28)


def test_bad_scar_is_refused():
    heart = scar_slab(core_block)
    with pytest.raises(ModelError, match="across"):
        scarred(heart, get_model(CELL), Velocities(), across=0.0)
    with pytest.raises(ModelError, match="nearest"):
        scarred(
            scar_slab(lambda x, y: np.ones_like(x)),
            get_model(CELL),
            Velocities(),
            condition="border-zon",
        )
    tagged = Heart(heart.mesh, heart.f0, regions=np.full(heart.mesh.n_tets, 1000))
    with pytest.raises(MeshError, match="renumber"):
        scarred(tagged, get_model(CELL), Velocities())
    odd = with_scar(heart.mesh, np.full(heart.mesh.n_tets, 7))
    assert not has_scar(Heart(odd))
    with pytest.raises(MeshError, match="0 \\(healthy\\)"):
        scarred(Heart(odd), get_model(CELL), Velocities())


def test_simulate_heeds_scar_by_default(tmp_path, capsys):
    path, out = tmp_path / "scar.vtu", tmp_path / "out"
    write_mesh(path, mesh_of_heart(scar_slab(core_block)))
    common = ["simulate", "--heart", str(path), "--length-unit", "mm", "--cell", CELL]
    common += ["--stim", PACE, "--t-end", "60", "--dt", "0.05", "--electrodes", "none"]
    common += ["--snapshot-every", "0", "--no-report", "--json", "--out", str(out)]
    assert main(common) == 0
    captured = capsys.readouterr()
    assert "scar" in captured.err
    assert json.loads(captured.out)["activated_fraction"] < 0.95
    maps, _ = read_mesh(out / "maps.vtu")
    deep = np.linalg.norm(maps.points - [7.5, 2.0, 0.5], axis=1) < 1.0
    assert np.isnan(maps.point_fields["lat_ms"][deep]).all()
    case = out / "case.toml"
    text = case.read_text().replace("[scar]\npresent = true", "[scar]\npresent = false")
    (tmp_path / "off.toml").write_text(text)
    assert main(["simulate", str(tmp_path / "off.toml"), "--json", "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out)["activated_fraction"] == 1.0
