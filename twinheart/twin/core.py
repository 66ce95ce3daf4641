"""The twin: a heart with its cells, tissue and electrodes; and the beat that it leaves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float

from twinheart.anatomy import Heart
from twinheart.cell import AbstractCellModel, get_model
from twinheart.ecg import Ecg, Electrodes, LeadField, twelve_lead
from twinheart.tissue import ConductionSystem, Conductivities, Velocities, region_tensor
from twinheart.tissue.conductivity import Conduction, by_region


class Twin(eqx.Module):
    """A heart with everything that makes it beat.

    Parameters
    ----------
    heart : Heart
        Mesh [mm], fibres, regions.
    cell : AbstractCellModel, str or dict of int to either
        Ionic model or its name, or one for each region tag.
    conductivity : Conductivities, Velocities or dict of int to either
        Tissue: literature velocities, reached on this mesh by `twinheart.tissue.tune_cv` (the
        default, 0.6 and 0.3 m/s), or raw conductivities.
    electrodes : Electrodes, optional
        Where the body-surface potentials are taken; without them there is no ECG.
    purkinje : ConductionSystem, optional
        Purkinje tree coupled to the muscle both ways.
    lead_field : LeadField, optional
        Of a torso, computed before; its electrodes are used. Default: the unbounded medium.

    Examples
    --------
    >>> import twinheart as th
    >>> heart = th.demo_heart()
    >>> twin = th.Twin(heart, cell="mitchell-schaeffer", electrodes=th.standard_12_lead(heart))
    >>> twin.electrodes.names[:3]
    ('RA', 'LA', 'LL')
    """

    heart: Heart
    cell: AbstractCellModel | dict[int, AbstractCellModel]
    conductivity: Conduction | dict[int, Conduction]
    electrodes: Electrodes | None
    purkinje: ConductionSystem | None
    lead_field: LeadField | None

    def __init__(
        self,
        heart,
        cell: AbstractCellModel | str | dict = "tentusscher2006-epi",
        conductivity=None,
        electrodes=None,
        purkinje=None,
        lead_field=None,
    ):
        self.heart = heart
        self.cell = (
            {tag: _model(c) for tag, c in cell.items()} if isinstance(cell, dict) else _model(cell)
        )
        self.conductivity = Velocities() if conductivity is None else conductivity
        self.electrodes = electrodes if lead_field is None else lead_field.electrodes
        self.purkinje = purkinje
        self.lead_field = lead_field


def _model(cell: AbstractCellModel | str) -> AbstractCellModel:
    return get_model(cell) if isinstance(cell, str) else cell


class Beat(eqx.Module):
    """What a simulated beat leaves; plain arrays in mesh order.

    Attributes
    ----------
    lat, repol, apd90 : (node,) arrays
        Activation time (first upward crossing of the threshold), repolarisation time (90 % of the
        way back from the peak) and their difference [ms]; NaN where it did not happen.
    ecg : Ecg or None
        Twelve leads [mV], or None without electrodes.
    potentials : (time, electrode) array
        Potentials at the electrodes [mV], for any other lead system.
    t : (time,) array
        Times of `potentials` and `probes` [ms].
    probes : (time, probe) array
        V_m at the probes [mV].
    vm_file : Path or None
        HDF5 file of V_m snapshots.
    result : str
        ``"successful"``.
    stats : dict
        Sizes, scheme, expected conduction, wall and compile times.
    purkinje_lat : (branch_node,) array or None
        Activation times of the Purkinje tree [ms], or None without one.
    """

    lat: Float[np.ndarray, "node"]
    repol: Float[np.ndarray, "node"]
    apd90: Float[np.ndarray, "node"]
    ecg: Ecg | None
    potentials: Float[np.ndarray, "time electrode"]
    t: Float[np.ndarray, "time"]
    probes: Float[np.ndarray, "time probe"]
    vm_file: Path | None
    result: str
    stats: dict[str, Any]
    purkinje_lat: Float[np.ndarray, "branch_node"] | None = None


def leads_of(twin: Twin, t, potentials) -> Ecg | None:
    """Twelve leads from the potentials at the electrodes, if there are any."""
    return None if twin.electrodes is None else twelve_lead(t, potentials, twin.electrodes.names)


def lead_field_of(twin: Twin, unbounded: Callable, stored: Callable) -> np.ndarray | None:
    """By node or by element: the twin's stored one, if it fits, else that of the endless medium."""
    if twin.electrodes is None:
        return None
    sigma_i = intracellular_tensor(twin)
    if twin.lead_field is None:
        return unbounded(twin.heart.mesh, twin.electrodes, sigma_i)
    twin.lead_field.check(twin.heart, sigma_i=sigma_i)
    return np.asarray(stored(twin.lead_field))


def part_of_tree(twin: Twin, lat) -> Float[np.ndarray, "branch_node"] | None:
    """Part of the arrivals that belongs to the Purkinje tree; NaN where the wave does not come."""
    if twin.purkinje is None:
        return None
    lat = np.asarray(lat)[twin.heart.mesh.n_nodes :]
    return np.where(np.isfinite(lat), lat, np.nan)


def sizes_of(twin: Twin, propagation: str, t_end: float) -> dict[str, Any]:
    """What the statistics of every beat begin with."""
    return {
        "propagation": propagation,
        "n_nodes": twin.heart.mesh.n_nodes,
        "n_tets": twin.heart.mesh.n_tets,
        "t_end_ms": t_end,
    }


def intracellular_tensor(twin: Twin) -> Float[np.ndarray, "tet 3 3"]:
    """Physical intracellular conductivity of every tetrahedron [S/m], for the lead field.

    Never the tuned numerical diffusion: amplitudes of the ECG must not depend on the mesh.
    """
    tissues = by_region(twin.heart, twin.conductivity, "conductivity")
    physical = {tag: t.physical if isinstance(t, Velocities) else t for tag, t in tissues.items()}
    values = {
        tag: np.asarray(t.sigma_i, dtype=float)
        for tag, t in physical.items()
        if isinstance(t, Conductivities)
    }
    return region_tensor(twin.heart, values)
