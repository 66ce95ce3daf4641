"""Lead fields of any set of electrodes on a torso, and maps of the potential on its skin."""

import numpy as np
from jaxtyping import Float, Int

from twinheart.anatomy import Heart
from twinheart.anatomy.torso import TorsoRegion
from twinheart.ecg.electrodes import LIMB, Electrodes, canonical_name
from twinheart.ecg.lead_field import zero_sum
from twinheart.ecg.skin import SkinField, skin_of
from twinheart.ecg.stored_field import LeadField, make_lead_field
from twinheart.ecg.torso_field import TINY, VolumeConductor, torso_field
from twinheart.ecg.torso_source import torso_source
from twinheart.errors import InputError
from twinheart.types import Array


def torso_lead_field(
    conductor: VolumeConductor,
    heart: Heart,
    electrodes: Electrodes,
    sigma_i: Float[np.ndarray, "tet 3 3"],
    *,
    snap: float = TINY,
    transfer: str = "recovered",
    around: float = 0.0,
    dtype: type = np.float32,
) -> LeadField:
    """Weights that turn V_m into potentials at electrodes on a torso.

    Parameters
    ----------
    conductor : VolumeConductor
        The torso with the heart in it (`torso_conductor`).
    heart : Heart
        Its nodes carry V_m.
    electrodes : Electrodes
        On the skin or in the body [mm]; any number.
    sigma_i : (tet, 3, 3) array
        Intracellular conductivities [S/m] (`heart_tensors`).

    Other Parameters
    ----------------
    snap : float
        Electrodes up to this distance from the skin [mm] are put onto it.
    transfer : {"recovered", "interpolated"}
        See `torso_source`.
    around : float
        Also compute the weights at all nodes of the skin within this distance [mm] of an
        electrode, one solve each, so that electrodes can move (`SkinField`); 0: none.
    dtype : float32 or float64
        Of the weights.

    Returns
    -------
    LeadField
        Potentials are against the mean of the skin: form leads, or take Wilson's terminal off.

    Raises
    ------
    InputError
        If an electrode lies outside the torso.
    """
    field = torso_field(conductor, electrodes, snap=snap)
    source = torso_source(conductor, heart.mesh, sigma_i, transfer=transfer)
    rows = source.weights(field.potential)
    weights = np.stack([zero_sum(row, np.dtype(dtype)) for row in rows])
    skin = None
    if around > 0:
        skin = _skin_field(conductor, source, field.electrodes, around, np.dtype(dtype))
    moved = np.linalg.norm(field.electrodes.positions - electrodes.positions, axis=1)
    region = conductor.region
    facts = {
        "medium": "torso",
        "torso_nodes": conductor.mesh.n_nodes,
        "torso_tets": conductor.mesh.n_tets,
        "heart_is_part_of_torso": source.conforming,
        "conductivities_s_per_m": {
            str(tag): float(conductor.sigma[region == tag, 0, 0].mean())
            for tag in np.unique(region).tolist()
            if tag != TorsoRegion.HEART
        },
        "max_snapped_mm": float(moved.max()),
        "skin_sites": 0 if skin is None else len(skin.points),
    }
    shares = source.shares(field.potential)
    return make_lead_field(
        weights, electrodes, heart, sigma_i, facts=facts, skin=skin, shares=shares
    )


def body_map(
    conductor: VolumeConductor,
    heart: Heart,
    sigma_i: Float[np.ndarray, "tet 3 3"],
    vm: Float[np.ndarray, "time node"],
    *,
    transfer: str = "recovered",
) -> tuple[Float[np.ndarray, "time torso_node"], Int[np.ndarray, "skin_node"]]:
    """Potential everywhere in the torso, on its skin above all: one solve an instant.

    Parameters
    ----------
    conductor : VolumeConductor
        The torso with the heart in it.
    heart : Heart
        Its nodes carry V_m.
    sigma_i : (tet, 3, 3) array
        Intracellular conductivities [S/m].
    vm : (time, node) array
        Voltages [mV]. Above a few hundred instants lead fields of chosen places are cheaper.
    transfer : {"recovered", "interpolated"}
        See `torso_source`.

    Returns
    -------
    (time, torso_node) array, (skin_node,) int array
        Potentials [mV] against the mean of the skin, and which nodes are the skin's
        (see `skin_of`). In the heart they are those of the extracellular space.
    """
    source = torso_source(conductor, heart.mesh, sigma_i, transfer=transfer)
    currents = source.currents(np.asarray(vm, dtype=np.float64).T)
    return conductor.solve(currents).T, skin_of(conductor.mesh)[1]


def against_wilson(
    potentials: Float[Array, "time electrode"], names: tuple[str, ...]
) -> Float[Array, "time electrode"]:
    """Potentials against Wilson's central terminal, the mean of RA, LA and LL.

    Parameters
    ----------
    potentials : (time, electrode) array
        Against any common reference [mV].
    names : tuple of str
        Of the electrodes; RA, LA and LL (or R, L and F) among them.

    Returns
    -------
    (time, electrode) array
        Against the terminal [mV].

    Raises
    ------
    InputError
        If one of the three is missing.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg.body_map import against_wilson
    >>> against_wilson(np.array([[1.0, 2.0, 3.0, 7.0]]), ("RA", "LA", "LL", "V7"))
    array([[-1.,  0.,  1.,  5.]])
    """
    known = [canonical_name(name) for name in names]
    missing = [name for name in LIMB if name not in known]
    if missing:
        raise InputError(
            f"Wilson's terminal needs RA, LA and LL; {', '.join(missing)} missing among "
            f"{', '.join(names)}."
        )
    limbs = np.array([known.index(name) for name in LIMB])
    return potentials - potentials[:, limbs].mean(axis=1, keepdims=True)


def _skin_field(conductor, source, electrodes: Electrodes, around: float, dtype) -> SkinField:
    """Lead fields of the nodes of every triangle of the skin that comes near an electrode."""
    skin, nodes = skin_of(conductor.mesh)
    away = np.linalg.norm(skin.points[:, None] - electrodes.positions, axis=2).min(axis=1)
    triangles = skin.triangles[(away[skin.triangles] <= around).any(axis=1)]
    if not len(triangles):
        raise InputError(
            f"no node of the skin lies within {around:g} mm of an electrode: ask for more."
        )
    sites, place = np.unique(triangles, return_inverse=True)
    loads = np.zeros((conductor.mesh.n_nodes, len(sites)))
    loads[nodes[sites], np.arange(len(sites))] = 1.0
    weights = source.weights(conductor.solve(loads).T).astype(dtype)
    return SkinField(skin.points[sites], place.reshape(-1, 3).astype(np.int32), weights)
