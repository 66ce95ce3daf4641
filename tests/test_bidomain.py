"""The bidomain referee: exact solutions, its relation to monodomain and lead field, the bath."""

import equinox as eqx
import numpy as np
import pytest
import tolerances

from twinheart.anatomy import Heart
from twinheart.cell import get_model
from twinheart.ecg import Electrodes
from twinheart.ecg.torso_field import VolumeConductor, torso_field
from twinheart.ecg.torso_source import torso_source
from twinheart.errors import ModelError, SolverError
from twinheart.fem import consistent_mass
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import slab
from twinheart.tissue.bidomain import build_bidomain, run_bidomain

SIGMA_I, SIGMA_E = np.diag([0.17, 0.019, 0.019]), np.diag([0.62, 0.24, 0.24])  # Niederer 2011
CAPACITY = 140.0 * 0.01  # chi cm [uF/mm^3]


def everywhere(mesh: TetMesh, tensor: np.ndarray) -> np.ndarray:
    return np.tile(tensor, (mesh.n_tets, 1, 1))


def with_bath(size, edge: float, level: float, sigma_e=SIGMA_E, bath: float = 1.0):
    """A slab whose part above a level is bath."""
    mesh = slab(size, edge)
    tissue = mesh.points[mesh.tets].mean(axis=1)[:, 2] < level
    outer = everywhere(mesh, sigma_e)
    outer[~tissue] = bath * np.eye(3)
    return mesh, build_bidomain(mesh, tissue, everywhere(mesh, SIGMA_I), outer)


def wave(points: np.ndarray, k: np.ndarray) -> np.ndarray:
    return np.cos(points * k).prod(axis=1)


def order(errors) -> float:
    return float(np.log2(errors[-2] / errors[-1]))


def test_passive_tissue_decays_as_its_modes_with_order_two():
    # V = cos cos cos exp(-t/tau) in a box without bath, phi_e = -k.si.k / k.(si + se).k V
    size = (4.0, 4.0, 4.0)
    k = np.pi / np.array(size)
    inner, outer = k @ SIGMA_I @ k, k @ SIGMA_E @ k
    rate, share = inner * outer / (inner + outer) / CAPACITY, -inner / (inner + outer)
    errors_v, errors_phi = [], []
    t_end = 0.3 / rate
    for edge in (0.5, 0.25, 0.2):
        mesh = slab(size, edge)
        problem = build_bidomain(
            mesh, np.ones(mesh.n_tets, bool), everywhere(mesh, SIGMA_I), everywhere(mesh, SIGMA_E)
        )
        start = wave(mesh.points, k)
        vm, n_steps = start, round(8 / edge**2)  # the time error falls with the mesh's
        for _ in range(n_steps):
            vm = vm + t_end / n_steps * problem.rate(vm, problem.phi_e(vm))
        exact = np.exp(-rate * t_end) * start
        norm = np.sqrt(problem.mass @ exact**2)
        errors_v.append(np.sqrt(problem.mass @ (vm - exact) ** 2) / norm)
        off = problem.phi_e(exact) - share * exact
        errors_phi.append(np.sqrt(problem.mass @ off**2) / norm)
    for errors in (errors_v, errors_phi):
        slope = np.log(errors[1] / errors[2]) / np.log(0.25 / 0.2)
        assert abs(slope - 2) < tolerances.ORDER, errors
    assert errors_v[-1] < 0.01


def test_manufactured_solution_with_a_bath_with_order_two():
    # phi = cos cos cos with no flux through the interface z = 2; the source is what it needs there
    size, bath, level = (4.0, 2.0, 4.0), 0.9, 2.0
    k = np.pi * np.array([1 / 4, 1 / 2, 2 / 4])
    both = k @ (SIGMA_I + SIGMA_E) @ k
    errors = []
    for edge in (1.0, 0.5, 0.25):
        mesh, problem = with_bath(size, edge, level, bath=bath)
        phi = wave(mesh.points, k)
        vm = -0.7 * phi[problem.tissue_nodes]
        current = np.zeros(mesh.n_nodes)
        inside = mesh.points[mesh.tets].mean(axis=1)[:, 2] < level
        in_tissue, in_bath = (TetMesh(mesh.points, mesh.tets[part]) for part in (inside, ~inside))
        current += consistent_mass(in_tissue) @ ((both - 0.7 * k @ SIGMA_I @ k) * phi)
        current += consistent_mass(in_bath) @ (bath * (k @ k) * phi)
        found = problem.phi_e(vm, current - current.mean())
        off = found - phi
        errors.append(np.linalg.norm(off - off.mean()) / np.linalg.norm(phi))
    assert abs(order(errors) - 2) < 2 * tolerances.ORDER, errors
    assert errors[-1] < 0.08


def test_explicit_steps_are_of_first_order():
    _, problem = with_bath((3.0, 1.0, 2.0), 0.5, 1.0)
    start = 10 * wave(problem.mesh.points[problem.tissue_nodes], np.pi * np.array([1 / 3, 1, 1]))
    ends = []
    for n_steps in (20, 40, 80, 2560):
        vm = start
        for _ in range(n_steps):
            vm = vm + 2.0 / n_steps * problem.rate(vm, problem.phi_e(vm))
        ends.append(vm)
    errors = [np.linalg.norm(end - ends[-1]) for end in ends[:-1]]
    assert abs(order(errors) - 1) < tolerances.ORDER, errors


def test_equal_anisotropy_without_a_bath_is_the_monodomain():
    mesh = slab((6.0, 2.0, 1.0), 0.5)
    problem = build_bidomain(
        mesh,
        np.ones(mesh.n_tets, bool),
        everywhere(mesh, SIGMA_I),
        everywhere(mesh, 1.7 * SIGMA_I),
    )
    vm = np.random.default_rng(0).uniform(-90, 30, mesh.n_nodes)
    both, one = problem.rate(vm, problem.phi_e(vm)), problem.monodomain_rate(vm)
    assert np.abs(both - one).max() < 1e-9 * np.abs(one).max()
    cell = get_model("mitchell-schaeffer")
    beats = [
        run_bidomain(problem, cell, mesh.points[:, 0] < 1.0, t_end=25.0, dt=0.1, monodomain=mono)
        for mono in (False, True)
    ]
    assert np.isfinite(beats[0].lat).all()
    assert np.abs(beats[0].lat - beats[1].lat).max() < 1e-3


def test_potentials_in_the_bath_are_those_of_the_lead_field():
    mesh, problem = with_bath((5.0, 3.0, 3.0), 0.5, 1.5)
    tissue = mesh.points[mesh.tets].mean(axis=1)[:, 2] < 1.5
    nodes, place = np.unique(mesh.tets[tissue], return_inverse=True)
    heart = Heart(TetMesh(mesh.points[nodes], place.reshape(-1, 4)))
    bulk = everywhere(mesh, np.eye(3))
    bulk[tissue] = SIGMA_I + SIGMA_E
    conductor = VolumeConductor(mesh, bulk)
    electrodes = Electrodes(("a", "b", "c"), [[0.0, 1.5, 3.0], [5.0, 1.0, 3.0], [2.2, 0.3, 2.1]])
    field = torso_field(conductor, electrodes, snap=0.0)
    weights = torso_source(conductor, heart.mesh, everywhere(heart.mesh, SIGMA_I)).weights(
        field.potential
    )
    vm = np.random.default_rng(1).uniform(-90, 30, len(nodes))
    phi = problem.phi_e(vm)
    at = [np.linalg.norm(mesh.points - p, axis=1).argmin() for p in electrodes.positions[:2]]
    expected, found = phi[at[1]] - phi[at[0]], (weights[1] - weights[0]) @ vm
    assert abs(found - expected) < 1e-8 * np.abs(phi).max()


@pytest.fixture(scope="module")
def beats():
    """A front along the fibres of a slab with a bath on top, bidomain and monodomain."""
    mesh, problem = with_bath((8.0, 1.0, 2.0), 0.25, 1.0)
    points = mesh.points[problem.tissue_nodes]
    cell = get_model("mitchell-schaeffer")
    found = [
        run_bidomain(problem, cell, points[:, 0] < 1.0, t_end=24.0, dt=0.08, monodomain=mono)
        for mono in (False, True)
    ]
    return mesh, points, *found


def test_the_bath_pulls_the_front_ahead_at_the_surface(beats):
    # the bath shunts the extracellular space: the front bends towards it (Henriquez 1993)
    _, points, both, one = beats
    there = np.isclose(points[:, 0], 6.0)
    surface, deep = (there & np.isclose(points[:, 2], z) for z in (1.0, 0.0))
    assert both.lat[deep].mean() - both.lat[surface].mean() > 0.1
    assert abs(one.lat[deep].mean() - one.lat[surface].mean()) < 0.05
    assert (both.lat[there] < one.lat[there]).all()
    speed = 4.0 / (both.lat[there].mean() - both.lat[np.isclose(points[:, 0], 2.0)].mean())
    other = 4.0 / (one.lat[there].mean() - one.lat[np.isclose(points[:, 0], 2.0)].mean())
    assert 1.0 < speed / other < 1.15  # per cent, not factors


def test_monodomain_and_lead_field_give_nearly_the_bidomain_ecg(beats):
    mesh, _, both, one = beats
    ends = [np.linalg.norm(mesh.points - p, axis=1).argmin() for p in ([8, 0.5, 2], [0, 0.5, 2])]
    a, b = (beat.phi_e[:, ends[0]] - beat.phi_e[:, ends[1]] for beat in (both, one))
    assert np.ptp(a) > 1.0
    assert np.corrcoef(a, b)[0, 1] > 0.97
    assert np.ptp(b) == pytest.approx(np.ptp(a), rel=0.05)


def test_rest_stays_at_rest():
    _, problem = with_bath((2.0, 1.0, 1.0), 0.5, 0.5)
    cell = get_model("mitchell-schaeffer")
    nobody = np.zeros(len(problem.mass), bool)
    beat = run_bidomain(problem, cell, nobody, t_end=2.0, dt=0.1)
    assert np.abs(beat.phi_e).max() < 1e-6
    assert np.isnan(beat.lat).all()


def test_large_meshes_are_solved_by_multigrid_to_the_same_potential(monkeypatch):
    _, problem = with_bath((4.0, 2.0, 2.0), 0.5, 1.0)
    monkeypatch.setattr("twinheart.tissue.bidomain._DIRECT", 10)
    _, other = with_bath((4.0, 2.0, 2.0), 0.5, 1.0)
    vm = np.random.default_rng(2).uniform(-90, 30, len(problem.mass))
    assert not eqx.tree_equal(problem.solve, other.solve)
    expected = problem.phi_e(vm)
    assert np.abs(other.phi_e(vm) - expected).max() < 1e-6 * np.abs(expected).max()


def test_bad_input_is_refused():
    mesh, problem = with_bath((2.0, 1.0, 1.0), 0.25, 0.5)
    nobody = np.zeros(len(problem.mass), bool)
    with pytest.raises(SolverError, match=r"dt is 1 ms, at most 0\.\d+ ms is stable here"):
        run_bidomain(problem, get_model("mitchell-schaeffer"), nobody, t_end=2.0, dt=1.0)
    sigma = everywhere(mesh, SIGMA_I)
    with pytest.raises(ModelError, match="no tetrahedron is tissue"):
        build_bidomain(mesh, np.zeros(mesh.n_tets, bool), sigma, sigma)
