"""The lead field against closed forms: balls, plane waves, exact integrals, symmetries."""

import math

import numpy as np
import pytest
import tolerances
from scipy.spatial.transform import Rotation

from twinheart.anatomy import Heart
from twinheart.ecg import Electrodes, lead_field, standard_12_lead, twelve_lead
from twinheart.ecg.lead_field import mean_inverse_distance_gradient
from twinheart.errors import MeshError, ModelError
from twinheart.mesh import TetMesh
from twinheart.mesh.generate import slab
from twinheart.mesh.refine import refine

SIGMA_IL, SIGMA_IT = 0.17, 0.019  # S/m, Niederer 2011


def ball(radius: float, n_refine: int) -> TetMesh:
    """A ball around the origin: a refined octahedron, blown up from the L1 to the L2 norm."""
    points = np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])
    tets = []
    for sx in (1, 4):
        for sy in (2, 5):
            for sz in (3, 6):
                even = (sx > 3) + (sy > 3) + (sz > 3)
                tets.append([0, sx, sy, sz] if even % 2 == 0 else [0, sx, sz, sy])
    mesh = TetMesh(points, tets)
    for _ in range(n_refine):
        mesh = refine(mesh)
    l1 = np.abs(mesh.points).sum(axis=1)
    l2 = np.linalg.norm(mesh.points, axis=1)
    scale = np.divide(l1, l2, out=np.ones_like(l1), where=l2 > 0)
    return TetMesh(radius * mesh.points * scale[:, None], mesh.tets)


def isotropic(mesh: TetMesh, sigma: float = SIGMA_IL) -> np.ndarray:
    return np.tile(sigma * np.eye(3), (mesh.n_tets, 1, 1))


def along_x(mesh: TetMesh) -> np.ndarray:
    return np.tile(np.diag([SIGMA_IL, SIGMA_IT, SIGMA_IT]), (mesh.n_tets, 1, 1))


def weights64(mesh, positions, sigma_i, **options) -> np.ndarray:
    positions = np.atleast_2d(positions)
    electrodes = Electrodes([f"E{i}" for i in range(len(positions))], positions)
    return lead_field(mesh, electrodes, sigma_i, dtype=np.float64, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_row_sums_to_exactly_zero_so_that_a_constant_gives_no_ecg(dtype):
    mesh = slab((10.0, 6.0, 4.0), 1.0)
    rng = np.random.default_rng(1)
    electrodes = Electrodes(("V1", "V2"), [[30.0, 3.0, 2.0], [5.0, -4.0, 2.0]])
    sigma_i = rng.uniform(0.02, 0.2, (mesh.n_tets, 1, 1)) * np.eye(3)
    weights = lead_field(mesh, electrodes, sigma_i, dtype=dtype)
    assert weights.dtype == dtype
    assert [math.fsum(row) for row in weights] == [0.0, 0.0]
    constant = np.full(mesh.n_nodes, -85.0, dtype=dtype)
    tolerance = tolerances.EXACT32 if dtype == np.float32 else tolerances.EXACT64
    assert np.abs(weights @ constant).max() < tolerance * 85 * np.abs(weights).sum(axis=1).max()


def test_linear_potential_in_a_ball_is_a_dipole_outside_with_order_two():
    # 1/r is harmonic: its mean gradient over a ball is that at the centre, however near the site
    radius, gradient = 10.0, np.array([3.0, -2.0, 1.0])  # mm, mV/mm
    sites = np.array([[80.0, 0.0, 0.0], [5.0, 13.0, 9.0], [-8.0, 3.0, 20.0]])
    volume = 4 / 3 * np.pi * radius**3
    distance = np.linalg.norm(sites, axis=1)
    dipole = -SIGMA_IL * gradient * volume  # S/m mV mm^2
    expected = sites @ dipole / distance**3 / (4 * np.pi * 0.2)
    errors = []
    for n_refine in (3, 4, 5):
        mesh = ball(radius, n_refine)
        phi = weights64(mesh, sites, isotropic(mesh)) @ (mesh.points @ gradient)
        errors.append(np.abs(phi / expected - 1).max())
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert errors[-1] < 0.02
    assert np.all(np.abs(orders - 2) < tolerances.ORDER), (errors, orders)


def test_closed_form_mean_agrees_with_brute_force_beside_a_tetrahedron():
    rng = np.random.default_rng(2)
    corners = rng.normal(size=(50, 4, 3))
    flipped = np.linalg.det(corners[:, 1:] - corners[:, :1]) < 0
    corners[flipped] = corners[flipped][:, [0, 2, 1, 3]]
    volume = np.linalg.det(corners[:, 1:] - corners[:, :1]) / 6
    for tet in corners[volume > 0.1][:10]:
        middle = tet.mean(axis=0)
        point = middle + 1.3 * (tet[0] - middle)  # outside, a third of a radius from a corner
        exact = mean_inverse_distance_gradient(tet[None], point)[0]
        brute = _subdivided_mean(tet, point)  # its own error: the square of 1/32 of an edge
        assert np.linalg.norm(exact - brute) < 2e-3 * np.linalg.norm(brute)


def _subdivided_mean(tet: np.ndarray, point: np.ndarray) -> np.ndarray:
    mesh = TetMesh(tet, [[0, 1, 2, 3]])
    for _ in range(5):
        mesh = refine(mesh)
    towards = point - mesh.points[mesh.tets].mean(axis=1)
    return (towards / np.linalg.norm(towards, axis=1)[:, None] ** 3).mean(axis=0)


def test_closed_form_and_four_point_rule_meet_where_one_hands_over_to_the_other():
    mesh = slab((4.0, 4.0, 4.0), 2.0)
    vm = np.random.default_rng(3).normal(size=mesh.n_nodes)
    # the hand-over lies at about 6 diameters: 20 mm here; no jump may be seen around it
    sites = np.array([[2.0 + r, 2.3, 1.9] for r in np.linspace(8.0, 40.0, 200)])
    phi = weights64(mesh, sites, along_x(mesh)) @ vm
    corners = mesh.points[mesh.tets]
    exact = np.array([_closed_form(mesh, corners, along_x(mesh), site) @ vm for site in sites])
    assert np.abs(phi - exact).max() < 1e-4 * np.abs(exact).max()
    assert np.abs(phi / exact - 1).max() < 1e-3


def _closed_form(mesh, corners, sigma_i, site) -> np.ndarray:
    from twinheart.fem.assembly import gradients

    grad, volume = gradients(mesh.points, mesh.tets)
    mean = mean_inverse_distance_gradient(corners, site)
    share = np.einsum("t,tki,tij,tj->tk", volume, grad, sigma_i, mean)
    row = np.zeros(mesh.n_nodes)
    np.add.at(row, mesh.tets, share)
    return -row / (4 * np.pi * 0.2)


def test_fine_mesh_close_electrode_stays_finite_and_smooth():
    mesh = slab((8.0, 8.0, 4.0), 1.0)
    gaps = np.array([1e-3, 1e-2, 0.1, 1.0])
    sites = np.array([[4.2, 4.1, 4.0 + gap] for gap in gaps])
    vm = np.where(mesh.points[:, 2] > 2.0, 20.0, -85.0)
    phi = weights64(mesh, sites, isotropic(mesh)) @ vm
    # the potential of a layer is continuous down to its surface
    assert np.isfinite(phi).all()
    assert abs(phi[0] - phi[1]) < 0.02 * abs(phi[1])


def test_a_wave_that_comes_nearer_gives_a_positive_deflection_and_a_leaving_one_a_negative():
    mesh = slab((20.0, 4.0, 4.0), 0.5)
    vm = np.where(mesh.points[:, 0] < 10.0, 20.0, -85.0)  # moves towards +x; front at 9.5-10 mm
    ahead, behind = [9.75 + 50.0, 2.0, 2.0], [9.75 - 50.0, 2.0, 2.0]
    phi = weights64(mesh, [ahead, behind], along_x(mesh)) @ vm
    assert phi[0] > 0 > phi[1]
    assert phi[0] == pytest.approx(-phi[1], rel=1e-4)  # the triangulation has no mirror symmetry


def test_plane_front_is_the_solid_angle_of_its_double_layer():
    # a front of width w in x carries the dipole moment sigma_il * jump per area, whatever w is:
    # phi = sigma_il / (4 pi sigma_b) * jump * (mean over w of x-component of the solid angle)
    mesh = slab((6.0, 8.0, 8.0), 0.5)
    a, jump, distance = 4.0, 105.0, 25.0
    vm = -85.0 + jump * np.clip(3.5 - mesh.points[:, 0], 0.0, 1.0)
    site = [3.0 + distance, 4.0, 4.0]
    phi = weights64(mesh, site, along_x(mesh)) @ vm

    def solid_angle(d: float) -> float:  # of a square of half-width a, on its axis
        return 4 * math.asin(a**2 / (a**2 + d**2))

    nodes, gauss = np.polynomial.legendre.leggauss(8)
    mean = sum(w * solid_angle(distance - 0.5 * x) for x, w in zip(nodes, gauss, strict=True)) / 2
    assert phi[0] == pytest.approx(SIGMA_IL * jump * mean / (4 * np.pi * 0.2), rel=1e-4)


def test_only_the_physical_intracellular_conductivity_scales_the_ecg():
    mesh = slab((6.0, 4.0, 4.0), 1.0)
    site = [30.0, 2.0, 2.0]
    once = weights64(mesh, site, along_x(mesh))
    assert np.allclose(weights64(mesh, site, 2 * along_x(mesh)), 2 * once, rtol=1e-9, atol=1e-18)
    doubled_bulk = weights64(mesh, site, along_x(mesh), sigma_bulk=0.4)
    assert np.allclose(doubled_bulk, once / 2, rtol=1e-9, atol=1e-18)


def test_amplitude_of_a_thick_front_does_not_depend_on_the_edge_length():
    site, amplitudes = [30.0, 2.0, 2.0], []
    for edge in (2.0, 1.0, 0.5):
        mesh = slab((12.0, 4.0, 4.0), edge)
        vm = -85.0 + 105.0 * np.clip((8.0 - mesh.points[:, 0]) / 4.0, 0.0, 1.0)
        amplitudes.append((weights64(mesh, site, along_x(mesh)) @ vm)[0])
    assert np.ptp(amplitudes) < 1e-4 * abs(amplitudes[0])


def test_rotating_heart_and_electrodes_together_changes_nothing():
    mesh = slab((10.0, 4.0, 3.0), 1.0)
    sites = np.array([[25.0, 2.0, 1.0], [5.0, 9.0, 4.0], [5.0, 2.0, -3.0]])
    turn = Rotation.from_euler("xyz", [0.4, -1.1, 2.3]).as_matrix()
    shift = np.array([100.0, -50.0, 7.0])
    turned = TetMesh(mesh.points @ turn.T + shift, mesh.tets)
    sigma_turned = np.einsum("ij,tjk,lk->til", turn, along_x(mesh), turn)
    before = weights64(mesh, sites, along_x(mesh))
    after = weights64(turned, sites @ turn.T + shift, sigma_turned)
    assert np.allclose(after, before, rtol=1e-6, atol=1e-9 * np.abs(before).max())


def test_relabelling_the_nodes_permutes_the_weights():
    mesh = slab((6.0, 3.0, 3.0), 1.0)
    order = np.random.default_rng(5).permutation(mesh.n_nodes)
    rank = np.argsort(order)
    shuffled = TetMesh(mesh.points[order], rank[mesh.tets])
    site = [20.0, 1.0, 1.0]
    before = weights64(mesh, site, along_x(mesh))
    after = weights64(shuffled, site, along_x(mesh))
    assert np.allclose(after, before[:, order], rtol=1e-9, atol=1e-15)


def test_result_does_not_depend_on_how_the_mesh_is_cut_into_blocks(monkeypatch):
    import sys

    module = sys.modules["twinheart.ecg.lead_field"]
    mesh = slab((8.0, 4.0, 4.0), 1.0)
    sites = [[30.0, 2.0, 2.0], [4.0, 6.0, 2.0]]
    whole = weights64(mesh, sites, along_x(mesh))
    monkeypatch.setattr(module, "_BLOCK", 17)
    cut = weights64(mesh, sites, along_x(mesh))
    assert np.allclose(cut, whole, rtol=1e-9, atol=1e-18)


@pytest.mark.parametrize(
    "place",
    [
        pytest.param([3.1, 1.9, 2.2], id="inside a tetrahedron"),
        pytest.param([3.0, 2.0, 2.0], id="on a node"),
        pytest.param([3.5, 1.5, 0.0], id="on the surface"),
    ],
)
def test_electrode_in_the_myocardium_is_refused(place):
    mesh = slab((6.0, 4.0, 4.0), 1.0)
    electrodes = Electrodes(("V1", "V4"), [[30.0, 0.0, 0.0], place])
    with pytest.raises(MeshError, match=r"electrode V4 at .* inside the myocardium"):
        lead_field(mesh, electrodes, along_x(mesh))


def test_electrode_in_a_cavity_is_allowed():
    shell = ball(20.0, 3)
    outer = np.linalg.norm(shell.points[shell.tets].mean(axis=1), axis=1) > 10.0
    mesh = TetMesh(shell.points, shell.tets[outer])
    weights = weights64(mesh, [0.5, 0.2, 0.1], isotropic(mesh))
    assert np.isfinite(weights).all()


@pytest.mark.parametrize("sigma_bulk", [0.0, -0.2, np.nan, np.inf])
def test_a_bulk_conductivity_that_is_not_positive_is_refused(sigma_bulk):
    mesh = slab((2.0, 1.0, 1.0), 1.0)
    with pytest.raises(ModelError, match="sigma_bulk"):
        weights64(mesh, [9.0, 0.0, 0.0], isotropic(mesh), sigma_bulk=sigma_bulk)


def test_tensors_of_the_wrong_shape_or_not_finite_are_refused():
    mesh = slab((2.0, 1.0, 1.0), 1.0)
    with pytest.raises(ModelError, match=r"sigma_i has shape \(5, 3, 3\)"):
        weights64(mesh, [9.0, 0.0, 0.0], isotropic(mesh)[:5])
    with pytest.raises(ModelError, match="not finite"):
        weights64(mesh, [9.0, 0.0, 0.0], isotropic(mesh, np.nan))


def test_shape_of_another_programs_ecg_on_a_patient_heart(data):
    """Reference activation and ECG of a dilated ventricle; amplitude, sign and time are its own."""
    import pyvista as pv

    from twinheart.ecg import read_electrodes

    heart = pv.read(data / "biv_crt" / "heart.vtu")
    lat = np.asarray(
        pv.read(data / "biv_crt" / "reference_endocardial_activation.vtu")["activation"]
    )
    mesh = TetMesh(heart.points, heart.cells_dict[10])
    fibre = np.asarray(heart["fibre"], dtype=np.float64)[mesh.tets]
    dyads = np.einsum("tki,tkj->tij", fibre, fibre) / 4  # free of the sign of the fibre
    f0 = np.linalg.eigh(dyads)[1][:, :, 2]
    sigma_i = SIGMA_IT * np.eye(3) + (SIGMA_IL - SIGMA_IT) * f0[:, :, None] * f0[:, None]
    t = np.arange(40.0, 230.0)
    vm = -85.0 + 52.5 * (1 + np.tanh(t[:, None] - lat))
    file = data / "biv_crt" / "reference_ecg.csv"
    reference = np.loadtxt(file, delimiter=",", skiprows=1)[:170]

    def agreement(electrodes: Electrodes) -> float:
        weights = lead_field(mesh, electrodes, sigma_i, dtype=np.float64)
        ours = twelve_lead(t, vm @ weights.T, electrodes.names).signals
        shifts = range(len(t) - len(reference))
        return max(
            _mean_correlation(-np.asarray(ours)[s : s + len(reference)], reference) for s in shifts
        )

    assert agreement(read_electrodes(data / "biv_crt" / "electrodes.json")) > 0.93
    # placed from the shape of the heart alone
    assert agreement(standard_12_lead(Heart(mesh))) > 0.9


def _mean_correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a.T, b.T, strict=True)]))
