"""The demo heart: a plausible adult biventricle with fibres, made by this project's own tools."""

from pathlib import Path

import numpy as np

from twinheart.anatomy.fibres import add_fibres
from twinheart.anatomy.heart import Heart
from twinheart.anatomy.load import heart_from_mesh, load_heart
from twinheart.mesh import TetMesh
from twinheart.mesh.biventricle import biventricle

DEMO_EDGE = 2.0
# Steps to which numbers are rounded, so that the stored file is small: 1/1024 mm, and 0.06 degrees.
_STEP = 1 / 1024

_PACKAGE = Path(__file__).parents[1]
# Where a wheel puts the stored mesh, and where a clone has it.
_STORED = (_PACKAGE / "data" / "demo_heart.vtu", _PACKAGE.parent / "meshes" / "demo_heart.vtu")


def demo_heart(*, edge: float = DEMO_EDGE) -> Heart:
    """The heart that `twinheart demo` beats with.

    It hangs from the base plane z = 0, with the right ventricle towards -x and the front towards
    -y; fibres turn from +60 degrees at the endocardium to -60 at the epicardium.

    Parameters
    ----------
    edge : float
        Mean edge length [mm]. 2 mm (42,000 nodes) is stored with the project; any other is made
        on the spot (1 mm, 310,000 nodes, takes about 40 s).

    Returns
    -------
    Heart
        With the point fields ``surf_class`` and ``transmural`` and regions 1 (LV free wall),
        2 (septum) and 3 (RV free wall).

    Raises
    ------
    MeshError
        If the edge is not a positive length, above 2.67 mm (the RV wall would get holes), or too
        short to be meshed.

    Examples
    --------
    >>> from twinheart.anatomy import demo_heart
    >>> heart = demo_heart()
    >>> sorted(set(heart.regions.tolist()))
    [1, 2, 3]
    """
    stored = next((path for path in _STORED if path.is_file()), None)
    if edge == DEMO_EDGE and stored is not None:
        return load_heart(stored, length_unit="mm")
    return heart_from_mesh(make_demo_mesh(edge))[0]


def make_demo_mesh(edge: float = DEMO_EDGE) -> TetMesh:
    """Make the demo heart's mesh with all its fields, as it is stored.

    Parameters
    ----------
    edge : float
        Mean edge length [mm].

    Returns
    -------
    TetMesh
        Point fields ``surf_class`` and ``transmural``, cell fields ``fibre`` and ``region``.

    Raises
    ------
    MeshError
        As for `demo_heart`.

    Examples
    --------
    >>> from twinheart.anatomy.demo import make_demo_mesh
    >>> sorted(make_demo_mesh(2.6).cell_fields)
    ['fibre', 'region']
    """
    mesh = biventricle(edge)
    heart = add_fibres(Heart(mesh, regions=mesh.cell_fields["region"]))
    fields = heart.mesh.point_fields
    return TetMesh(
        np.round(mesh.points / _STEP) * _STEP,
        mesh.tets,
        {
            "surf_class": fields["surf_class"],
            "transmural": _rounded(fields["transmural"]),
        },
        {"fibre": _rounded(heart.f0), "region": heart.regions},
    )


def _rounded(values) -> np.ndarray:
    return (np.round(np.asarray(values) / _STEP) * _STEP).astype(np.float32)
