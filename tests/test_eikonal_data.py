"""The eikonal with Purkinje trees against the activation that another program computed."""

import numpy as np

from twinheart.anatomy import load_heart
from twinheart.anatomy.purkinje import read_purkinje
from twinheart.tissue import (
    PURKINJE_LEARNING_2025,
    ConductionSystem,
    arrival,
    build_eikonal,
)

TREE_CV = 2.0**0.5  # m/s: what the trees' own activation shows


def test_activation_of_a_resynchronisation_patient(data):
    import pyvista as pv

    folder = data / "biv_crt"
    heart = load_heart(folder / "heart.vtu", length_unit="mm")
    files = [folder / f"purkinje_{side}.vtu" for side in ("lv", "rv")]
    activation = [np.asarray(pv.read(file)["activation"]) for file in files]
    tree = ConductionSystem(read_purkinje(files), cv=TREE_CV)
    problem = build_eikonal(
        heart, PURKINJE_LEARNING_2025, purkinje=tree, junction_delays=(0.0, 0.0)
    )
    start = np.full(problem.n_nodes, np.inf)
    first = problem.n_mesh
    for own in activation:  # each tree starts where its activation is least
        start[first + own.argmin()] = own.min()
        first += len(own)
    lat = np.asarray(arrival(problem, at_nodes=start))
    reference = pv.read(folder / "reference_endocardial_activation.vtu")
    assert np.allclose(reference.points, heart.mesh.points, atol=1e-3)
    there = np.asarray(reference["activation"])
    here = lat[: problem.n_mesh]
    assert np.corrcoef(here, there)[0, 1] > 0.995
    assert abs((here - there).mean()) < 1.0  # ms
    assert np.sqrt(((here - there) ** 2).mean()) < 3.0  # ms, of 145
    assert np.abs(lat[problem.n_mesh :] - np.concatenate(activation)).mean() < 1.0
