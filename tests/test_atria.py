"""Atrial fibres: exact on a sphere, given ones kept, bundles, missing openings."""

import numpy as np
import pytest

from twinheart.anatomy.atria import atrial_fibres
from twinheart.errors import MeshError
from twinheart.mesh import TriMesh

RADIUS = 20.0
VALVE, VEINS = np.array([0.0, 0.0, -14.0]), np.array([[0.0, 0.0, 19.0]])


@pytest.fixture(scope="module")
def atrium():
    """A sphere, open at the valve below and at one vein above."""
    turns, heights = np.meshgrid(np.arange(60) * np.pi / 30, np.linspace(-0.8, 1.3, 40))
    across = RADIUS * np.cos(heights)
    points = np.stack(
        [across * np.cos(turns), across * np.sin(turns), RADIUS * np.sin(heights)], axis=-1
    ).reshape(-1, 3)
    k, row = np.meshgrid(np.arange(60), np.arange(39) * 60)
    a, b, c, d = (row + k).ravel(), (row + (k + 1) % 60).ravel(), 0, 0
    c, d = a + 60, b + 60
    return TriMesh(points, np.concatenate([np.stack([a, b, d], 1), np.stack([a, d, c], 1)]))


def _circles(surface):
    centre = surface.points[surface.triangles].mean(axis=1)
    around = np.cross([0.0, 0.0, 1.0], centre)
    return around / np.linalg.norm(around, axis=1, keepdims=True)


def test_fibres_run_around_the_openings_of_a_sphere(atrium):
    fibre = atrial_fibres(atrium, VALVE, VEINS).cell_fields["fibre"]
    np.testing.assert_allclose(np.linalg.norm(fibre, axis=1), 1.0, rtol=1e-9)
    cosine = np.abs(np.einsum("ti,ti->t", fibre, _circles(atrium)))
    assert np.degrees(np.arccos(np.clip(cosine, 0, 1))).mean() < 2.0


def test_fibres_of_a_bundle_run_along_it(atrium):
    angle = np.linspace(-0.5, 1.0, 12)
    crest = RADIUS * np.stack([np.cos(angle), 0 * angle, np.sin(angle)], axis=1)
    made = atrial_fibres(atrium, VALVE, VEINS, bundle=crest, bundle_width=5.0)
    centre = atrium.points[atrium.triangles].mean(axis=1)
    inside = (np.abs(centre[:, 1]) < 1.5) & (centre[:, 0] > 0) & (np.abs(centre[:, 2]) < 8)
    outside = centre[:, 0] < 0
    cosine = np.abs(np.einsum("ti,ti->t", made.cell_fields["fibre"], _circles(atrium)))
    assert inside.any()
    assert (cosine[inside] < 0.2).all()
    assert (cosine[outside] > 0.99).all()


def test_given_fibres_are_kept(atrium):
    given = 3.0 * np.tile([0.6, 0.0, 0.8], (atrium.n_triangles, 1))
    surface = TriMesh(atrium.points, atrium.triangles, {}, {"fiber": given})
    fibre = atrial_fibres(surface, VALVE, VEINS).cell_fields["fibre"]
    np.testing.assert_allclose(fibre, given / 3.0)


def test_missing_and_shared_openings_are_refused(atrium):
    with pytest.raises(MeshError, match="has 2 openings, but landmarks for 3"):
        atrial_fibres(atrium, VALVE, np.array([[0.0, 0, 19], [1.0, 0, 19]]))
    with pytest.raises(MeshError, match="same opening"):
        atrial_fibres(atrium, VALVE, np.array([[0.0, 0.0, -13.0]]))
