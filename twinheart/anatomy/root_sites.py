"""Root sites: where and when a normal beat breaks through to the endocardium.

A stand-in for the Purkinje tree where only the order of activation matters: a dozen small sites in
the order in which Durrer et al. 1970 (doi:10.1161/01.CIR.41.6.899) found the endocardium of
isolated human hearts excited. In the left ventricle three areas come first, at 0 to 5 ms: high on
the anterior paraseptal wall, in the middle of the septum, and posterior paraseptal at a third of
the way from apex to base; they become confluent within 20 ms. The right ventricle starts near the
insertion of the anterior papillary muscle 5 to 10 ms later. The sites without a counterpart there
stand for the Purkinje network, which carries the front over the rest of the endocardium.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Int

from twinheart.anatomy.endocardium import endocardium
from twinheart.errors import MeshError, ModelError
from twinheart.mesh import TetMesh
from twinheart.mesh.implicit import SurfaceClass

_LV, _RV = SurfaceClass.LV_ENDOCARDIUM, SurfaceClass.RV_ENDOCARDIUM
DURRER = (  # name, ventricle, ab, rt, onset [ms]
    ("LV septum, middle", _LV, 0.45, 0.83, 0.0),
    ("LV anterior, paraseptal", _LV, 0.65, 0.60, 0.0),
    ("LV posterior, paraseptal", _LV, 0.35, 0.05, 2.0),
    ("LV apex, lateral", _LV, 0.20, 0.33, 5.0),
    ("LV lateral", _LV, 0.55, 0.36, 10.0),
    ("LV posterolateral", _LV, 0.65, 0.20, 10.0),
    ("RV septum, apical", _RV, 0.25, 0.80, 5.0),
    ("RV anterior papillary muscle", _RV, 0.45, 0.40, 6.0),
    ("RV inferior", _RV, 0.50, 0.10, 10.0),
    ("RV outflow", _RV, 0.75, 0.60, 15.0),
)
_RADIUS = 4.0  # mm


class RootSite(eqx.Module):
    """A place where excitation enters the muscle.

    Parameters
    ----------
    name : str
        Anatomical name.
    nodes : (site_node,) int array
        Nodes of the mesh.
    onset : float
        Time after the first site [ms].
    """

    name: str = eqx.field(static=True)
    nodes: Int[np.ndarray, "site_node"]
    onset: float


def root_sites(mesh: TetMesh, *, radius: float = _RADIUS) -> tuple[RootSite, ...]:
    """The sites of a normal beat in this heart.

    Parameters
    ----------
    mesh : TetMesh
        Ventricles with tagged surfaces, see `twinheart.anatomy.endocardium`.
    radius : float
        Radius of a site [mm].

    Returns
    -------
    tuple of RootSite
        Those of the ventricles that the heart has.

    Raises
    ------
    MeshError
        If surfaces are not tagged or there is no LV endocardium.
    ModelError
        If the radius is not positive.

    Examples
    --------
    >>> from twinheart.anatomy import demo_heart
    >>> from twinheart.anatomy.root_sites import root_sites
    >>> sites = root_sites(demo_heart().mesh)
    >>> sites[0].name, sites[0].onset
    ('LV septum, middle', 0.0)
    """
    if not radius > 0:
        raise ModelError(f"the radius of root sites is {radius:g} mm, expected more than 0.")
    surfaces = {side: endocardium(mesh, side) for side in (_LV, _RV)}
    if surfaces[_LV] is None:
        raise MeshError(
            "no boundary triangle lies on the LV endocardium (surf_class 3): tag the surfaces "
            "with 'twinheart anatomy build'."
        )
    sites = []
    for name, side, ab, rt, onset in DURRER:
        surface = surfaces[side]
        if surface is None:
            continue
        centre = surface.vertex(ab, rt)
        near = np.linalg.norm(mesh.points - surface.points[centre], axis=1) <= radius
        sites.append(RootSite(name, np.flatnonzero(near), onset))
    return tuple(sites)
