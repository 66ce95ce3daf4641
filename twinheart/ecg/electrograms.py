r"""Electrograms: potentials at electrodes in contact with the heart, unipolar and bipolar.

A contact electrode sees a front pass within a millimetre or two, where the field of the nearby
muscle is anything but smooth. In an endless conductor the integral

.. math::

    \phi(x_e) = -\frac{1}{4\pi\sigma_b} \int_\Omega
        \nabla\frac{1}{\|x - x_e\|} \cdot \sigma_i \nabla V_m \, dx

stays finite up to the surface, and is evaluated exactly for linear elements (see `lead_field`).
In a torso the electrodes are places inside the body: give them to `torso_lead_field`.
"""

from collections.abc import Sequence

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from twinheart.anatomy import Heart
from twinheart.ecg.electrodes import Electrodes
from twinheart.ecg.lead_field import lead_field
from twinheart.errors import InputError, MeshError
from twinheart.mesh import TetMesh
from twinheart.mesh.implicit import SurfaceClass
from twinheart.mesh.quality import boundary_triangles
from twinheart.types import Array

# Radius of the electrode [mm]: how far its centre is from the muscle that it touches.
CONTACT = 1.0


class ContactSites(eqx.Module):
    """Electrodes on the surface of a heart.

    Parameters
    ----------
    electrodes : Electrodes
        Positions [mm], a little outside the muscle.
    node : (electrode,) int array
        The node of the heart under each of them: its activation time belongs to the electrogram.
    """

    electrodes: Electrodes
    node: Int[np.ndarray, "electrode"]


def surface_sites(
    mesh: TetMesh,
    surface: str,
    *,
    spacing: float | None = None,
    distance: float = CONTACT,
) -> ContactSites:
    """Electrodes on the epicardium or an endocardium, one above each chosen node.

    Parameters
    ----------
    mesh : TetMesh
        The heart [mm], with the point field ``surf_class`` unless the whole surface is asked for.
    surface : {"epicardium", "lv endocardium", "rv endocardium", "all"}
        Where.
    spacing : float, optional
        Least distance of two electrodes [mm]; by default there is one for every node.
    distance : float
        Of the electrode's centre from the muscle [mm].

    Returns
    -------
    ContactSites
        Named by their node's number.

    Raises
    ------
    InputError
        If the surface is not known.
    MeshError
        If the mesh does not say where its surfaces are, or does not have this one.

    Examples
    --------
    >>> from twinheart.ecg.electrograms import surface_sites
    >>> from twinheart.mesh.generate import slab
    >>> sites = surface_sites(slab((4.0, 4.0, 1.0), 0.5), "all", spacing=1.9)
    >>> bool((sites.electrodes.positions.max(axis=0) > 4.0).any())
    True
    """
    known = {
        "epicardium": SurfaceClass.EPICARDIUM,
        "lv endocardium": SurfaceClass.LV_ENDOCARDIUM,
        "rv endocardium": SurfaceClass.RV_ENDOCARDIUM,
    }
    if surface != "all" and surface not in known:
        raise InputError(f"surface is '{surface}', expected one of {', '.join(known)} or all.")
    faces = boundary_triangles(mesh.tets)
    if surface != "all":
        classes = mesh.point_fields.get("surf_class")
        if classes is None:
            raise MeshError(
                "the heart does not say where its surfaces are (point field surf_class): build it "
                "with 'twinheart anatomy build', or take all of the surface."
            )
        chosen = faces[(classes[faces] == known[surface]).all(axis=1)]
    else:
        chosen = faces
    if not len(chosen):
        raise MeshError(f"the heart has no {surface}.")
    nodes = np.unique(chosen)
    if spacing is not None:
        nodes = _thinned(mesh.points, nodes, spacing)
    outwards = _normals(mesh.points, chosen)[nodes]
    positions = mesh.points[nodes] + distance * outwards
    return ContactSites(Electrodes([f"node {n}" for n in nodes], positions), nodes)


def unipolar_weights(
    heart: Heart,
    electrodes: Electrodes,
    sigma_i: Float[np.ndarray, "tet 3 3"],
    *,
    sigma_bulk: float = 0.2,
    dtype: type = np.float32,
) -> Float[np.ndarray, "electrode node"]:
    """Weights that turn V_m into unipolar electrograms, against a far reference.

    Parameters
    ----------
    heart : Heart
        Its nodes carry V_m.
    electrodes : Electrodes
        Outside the muscle [mm], as close as may be; also those of a catheter in a cavity.
    sigma_i : (tet, 3, 3) array
        Intracellular conductivities [S/m].
    sigma_bulk : float
        Conductivity of the endless medium [S/m].
    dtype : float32 or float64
        Of the weights.

    Returns
    -------
    (electrode, node) array
        ``electrograms = vm @ weights.T`` [mV]; or hand them to the simulation as its lead field.

    Raises
    ------
    MeshError
        If an electrode lies inside the muscle.
    """
    return lead_field(heart.mesh, electrodes, sigma_i, sigma_bulk=sigma_bulk, dtype=dtype)


def bipolar(
    potentials: Float[Array, "time electrode"],
    pairs: Sequence[tuple[int, int]] | None = None,
) -> Float[Array, "time pair"]:
    """Bipolar electrograms: differences of the potentials of two electrodes each.

    Parameters
    ----------
    potentials : (time, electrode) array
        Unipolar electrograms [mV].
    pairs : sequence of (int, int), optional
        Positive and negative electrode of each; by default neighbours along a catheter,
        (0, 1), (1, 2), ...

    Returns
    -------
    (time, pair) array
        Differences [mV]; no reference is left in them.

    Raises
    ------
    InputError
        If an electrode is not there, or there is only one.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg.electrograms import bipolar
    >>> bipolar(np.array([[3.0, 1.0, 0.0]]))
    array([[2., 1.]])
    """
    n = potentials.shape[1]
    chosen = [(k, k + 1) for k in range(n - 1)] if pairs is None else list(pairs)
    if not chosen:
        raise InputError(f"{n} electrode makes no bipolar electrogram: two are needed.")
    index = np.asarray(chosen)
    if index.min() < 0 or index.max() >= n:
        raise InputError(
            f"pair {tuple(index[(index < 0).any(axis=1) | (index >= n).any(axis=1)][0].tolist())} "
            f"names an electrode that is not there; they are numbered 0 to {n - 1}."
        )
    return potentials[:, index[:, 0]] - potentials[:, index[:, 1]]


def activation_from_unipolar(
    t: Float[np.ndarray, "time"], unipolar: Float[np.ndarray, "time electrode"]
) -> Float[np.ndarray, "electrode"]:
    """Activation times: where each unipolar electrogram falls most steeply.

    Parameters
    ----------
    t : (time,) array
        Times [ms], equally spaced.
    unipolar : (time, electrode) array
        Electrograms [mV].

    Returns
    -------
    (electrode,) array
        Times [ms], between samples by a parabola through the steepest fall and its neighbours; NaN
        where the electrogram never falls.

    References
    ----------
    Spach & Kootsey 1985, Relating the sodium current and conductance to the shape of transmembrane
    and extracellular potentials by simulation, doi:10.1109/TBME.1985.325489.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg.electrograms import activation_from_unipolar
    >>> t = np.arange(0.0, 40.0, 0.5)
    >>> activation_from_unipolar(t, -np.tanh(t - 17.3)[:, None]).round(1)
    array([17.3])
    """
    slope = np.gradient(np.asarray(unipolar, dtype=np.float64), t, axis=0)
    k = slope.argmin(axis=0)
    columns = np.arange(np.shape(unipolar)[1])
    inner = np.clip(k, 1, len(t) - 2)
    before, here, after = (slope[inner + d, columns] for d in (-1, 0, 1))
    bend = before - 2 * here + after
    shift = np.divide(before - after, 2 * bend, out=np.zeros_like(bend), where=bend > 0)
    found = t[inner] + np.clip(shift, -0.5, 0.5) * (t[1] - t[0])
    found = np.where(k == inner, found, t[k])
    return np.where(slope.min(axis=0) < 0, found, np.nan)


def peak_to_peak(
    electrograms: Float[Array, "time electrode"],
) -> Float[Array, "electrode"]:
    """Voltage of each electrogram, from its lowest to its highest value [mV].

    Bipolar voltages below 0.5 mV are commonly taken as dense scar, below 1.5 mV as abnormal
    (Marchlinski et al. 2000, doi:10.1161/01.CIR.101.11.1288).
    """
    return electrograms.max(axis=0) - electrograms.min(axis=0)


def _thinned(points: np.ndarray, nodes: np.ndarray, spacing: float) -> np.ndarray:
    """Nodes of which no two are closer than `spacing`, taken in order."""
    from scipy.spatial import KDTree

    near = KDTree(points[nodes]).query_ball_point(points[nodes], spacing)
    open_, kept = np.ones(len(nodes), dtype=bool), []
    for k, around in enumerate(near):
        if open_[k]:
            kept.append(k)
            open_[around] = False
    return nodes[kept]


def _normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Unit normals at the nodes, out of the muscle; those of large triangles count more."""
    corner = points[triangles]
    area = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    total = np.zeros_like(points)
    np.add.at(total, triangles, area[:, None])
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-300)
