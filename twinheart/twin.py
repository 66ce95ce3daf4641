"""The twin: a heart with its cells, tissue and electrodes; and `simulate`, its forward model."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from twinheart.anatomy import Heart
from twinheart.cell import AbstractCellModel, get_model
from twinheart.ecg import Ecg, Electrodes, lead_field, twelve_lead
from twinheart.errors import InputError
from twinheart.tissue import (
    Built,
    ConductionSystem,
    Conductivities,
    Run,
    Scheme,
    Stimulus,
    Velocities,
    build_monodomain,
    region_tensor,
    run,
)
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

    def __init__(
        self,
        heart,
        cell: AbstractCellModel | str | dict = "tentusscher2006-epi",
        conductivity=None,
        electrodes=None,
        purkinje=None,
    ):
        self.heart = heart
        self.cell = (
            {tag: _model(c) for tag, c in cell.items()} if isinstance(cell, dict) else _model(cell)
        )
        self.conductivity = Velocities() if conductivity is None else conductivity
        self.electrodes = electrodes
        self.purkinje = purkinje


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


def simulate(
    twin: Twin,
    stimuli: Stimulus | Sequence[Stimulus],
    *,
    t_end: float,
    dt: float = 0.02,
    scheme: str | Scheme = "default",
    threshold: float = 0.0,
    probes: Sequence[int] | None = None,
    snapshots: str | Path | None = None,
    snapshot_every: float = 5.0,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[float, float], None] | None = None,
) -> Beat:
    r"""Simulate a twin: monodomain, maps on the fly, 12-lead ECG by the lead field.

    .. math:: \partial_t V = \nabla \cdot D \nabla V - i_{ion} + i_{stim}, \qquad
              \phi_e = B_e V

    Parameters
    ----------
    twin : Twin
        What to simulate.
    stimuli : Stimulus or sequence of Stimulus
        See `twinheart.pace`.
    t_end : float
        Simulated time [ms].

    Other Parameters
    ----------------
    dt : float
        Time step [ms].
    scheme : str or Scheme
        ``"default"``, ``"explicit"``, ``"lumped"`` or ``"crank-nicolson"``; see
        `twinheart.tissue.build_monodomain`.
    threshold : float
        Activation threshold [mV].
    probes : sequence of int, optional
        Mesh nodes whose V_m is recorded every half millisecond.
    snapshots : path, optional
        HDF5 file for V_m of all nodes, streamed every `snapshot_every` ms.
    checkpoint : path, optional
        Saved about every minute and on interruption.
    resume : bool
        Go on from `checkpoint`, bit for bit as if never stopped.
    progress : callable, optional
        Called with (t, t_end) [ms].

    Returns
    -------
    Beat
        Maps, ECG and statistics.

    Raises
    ------
    ModelError
        If regions, stimuli, conductivities or electrodes do not fit the heart.
    SolverError
        If `dt` is unusable or the solution breaks down.
    OutputError
        If a file cannot be written.

    Examples
    --------
    >>> import numpy as np, twinheart as th
    >>> mesh = th.mesh.generate.slab((10.0, 3.0, 3.0), 1.0)
    >>> heart = th.Heart(mesh, f0=np.tile([1.0, 0.0, 0.0], (mesh.n_tets, 1)))
    >>> twin = th.Twin(heart, cell="mitchell-schaeffer")
    >>> beat = th.simulate(twin, th.pace("box:0,0,0,1,3,3"), t_end=30.0, dt=0.05)
    >>> bool(np.isfinite(beat.lat).all())
    True
    """
    if not (np.isfinite(t_end) and t_end > 0):
        raise InputError(f"t_end is {t_end} ms, expected a positive number.")
    start = time.perf_counter()
    heart = twin.heart
    stimuli = [stimuli] if isinstance(stimuli, Stimulus) else list(stimuli)
    field = None
    if twin.electrodes is not None:
        field = lead_field(heart.mesh, twin.electrodes, intracellular_tensor(twin))
    built = build_monodomain(
        heart,
        twin.cell,
        twin.conductivity,
        stimuli,
        dt=dt,
        scheme=scheme,
        threshold=threshold,
        lead_field=field,
        probes=None if probes is None else np.asarray(probes),
        purkinje=twin.purkinje,
    )
    points = heart.mesh.points
    if twin.purkinje is not None:
        points = np.concatenate([points, twin.purkinje.tree.points])
    setup_s = time.perf_counter() - start
    done = run(
        built,
        t_end,
        points=points,
        snapshots=snapshots,
        snapshot_every=snapshot_every,
        checkpoint=checkpoint,
        resume=resume,
        progress=progress,
    )
    in_mesh_order = built.problem.tissue.to_mesh_order
    lat, repol = in_mesh_order(done.state.lat), in_mesh_order(done.state.repol)
    samples = done.samples
    ecg = None
    if twin.electrodes is not None:
        ecg = twelve_lead(samples.t, samples.potentials, twin.electrodes.names)
    tree_lat = None
    if twin.purkinje is not None:
        tree_lat = np.asarray(done.state.lat)[built.assembly.place[heart.mesh.n_nodes :]]
    return Beat(
        lat=lat,
        repol=repol,
        apd90=repol - lat,
        ecg=ecg,
        potentials=np.asarray(samples.potentials),
        t=np.asarray(samples.t),
        probes=np.asarray(samples.probes),
        vm_file=None if snapshots is None else Path(snapshots),
        result="successful",
        stats=_stats(twin, built, done, scheme, dt, t_end, setup_s),
        purkinje_lat=tree_lat,
    )


def _stats(twin: Twin, built: Built, done: Run, scheme, dt, t_end, setup_s) -> dict[str, Any]:
    """Sizes, scheme, expected conduction, times of set-up and run."""
    n_steps = max(done.steps, 1)
    return {
        "n_nodes": twin.heart.mesh.n_nodes,
        "n_tets": twin.heart.mesh.n_tets,
        "dt_ms": dt,
        "t_end_ms": t_end,
        "scheme": scheme if isinstance(scheme, str) else eqx.tree_pformat(scheme),
        "stages": getattr(built.problem.scheme, "stages", None),
        "conduction": built.conduction,
        "stiffness": built.stiffness,
        "device": jax.devices()[0].device_kind,
        "setup_s": setup_s,
        "compile_s": done.compile_s,
        "wall_s": done.wall_s,
        "ns_per_node_step": 1e9 * done.wall_s / (n_steps * twin.heart.mesh.n_nodes),
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
