"""The twin: a heart with its cells, tissue and electrodes; and `simulate`, its forward model."""

import difflib
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
from twinheart.ecg import Ecg, Electrodes, LeadField, lead_field, lead_shares, twelve_lead
from twinheart.errors import InputError
from twinheart.tissue import (
    Built,
    ConductionSystem,
    Conductivities,
    Run,
    Scheme,
    Stimulus,
    Velocities,
    build_eikonal,
    build_monodomain,
    region_tensor,
    run,
)
from twinheart.tissue.conductivity import Conduction, by_region
from twinheart.tissue.eikonal_beat import EikonalBeat, build_eikonal_beat
from twinheart.tissue.excitation import sources_of
from twinheart.tissue.reaction_eikonal import build_reaction_eikonal

PROPAGATIONS = ("monodomain", "reaction-eikonal", "eikonal")
_BEAT_SAMPLING = 0.5  # ms, of ECG and probes


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


def simulate(
    twin: Twin,
    stimuli: Stimulus | Sequence[Stimulus],
    *,
    t_end: float,
    propagation: str = "monodomain",
    diffusion: bool = True,
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
    r"""Simulate a twin: activation and repolarisation maps, 12-lead ECG by the lead field.

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
    propagation : str
        How the wave runs. ``"monodomain"``: the equation above, the truth where the mesh resolves
        it. ``"reaction-eikonal"``: arrival by the eikonal equation, then the ionic cells, see
        `twinheart.tissue.reaction_eikonal`; for meshes of 1 mm and more. ``"eikonal"``: arrival and
        template action potentials, see `eikonal_beat`, for one beat; within seconds, and its maps
        go on after `t_end`.

    Other Parameters
    ----------------
    diffusion : bool
        Whether the cells of ``"reaction-eikonal"`` are coupled behind the front.
    dt : float
        Time step [ms].
    scheme : str or Scheme
        For ``"monodomain"``: ``"default"``, ``"explicit"``, ``"lumped"`` or ``"crank-nicolson"``;
        see `twinheart.tissue.build_monodomain`.
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
    InputError
        If the propagation is unknown, or another argument makes no sense with it.
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
    stimuli = [stimuli] if isinstance(stimuli, Stimulus) else list(stimuli)
    _check_propagation(propagation, scheme)
    if propagation == "eikonal":
        idle = {"snapshots": snapshots, "checkpoint": checkpoint, "resume": resume or None}
        _refuse_idle(idle)
        return _eikonal(twin, stimuli, t_end, threshold, probes)
    start = time.perf_counter()
    settings = {
        "dt": dt,
        "threshold": threshold,
        "lead_field": _lead_field(twin, lead_field, lambda field: field.weights),
        "probes": None if probes is None else np.asarray(probes),
    }
    points, tree_lat = twin.heart.mesh.points, None
    if propagation == "monodomain":
        built = build_monodomain(
            twin.heart,
            twin.cell,
            twin.conductivity,
            stimuli,
            scheme=scheme,
            purkinje=twin.purkinje,
            **settings,
        )
        if twin.purkinje is not None:
            points = np.concatenate([points, twin.purkinje.tree.points])
    else:
        built, tree_lat = _reaction_eikonal(twin, stimuli, t_end, diffusion, settings)
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
    if propagation == "monodomain" and twin.purkinje is not None:
        tree_lat = np.asarray(done.state.lat)[built.assembly.place[twin.heart.mesh.n_nodes :]]
    in_mesh_order = built.problem.tissue.to_mesh_order
    lat, repol = in_mesh_order(done.state.lat), in_mesh_order(done.state.repol)
    samples = done.samples
    return Beat(
        lat=lat,
        repol=repol,
        apd90=repol - lat,
        ecg=_leads(twin, samples.t, samples.potentials),
        potentials=np.asarray(samples.potentials),
        t=np.asarray(samples.t),
        probes=np.asarray(samples.probes),
        vm_file=None if snapshots is None else Path(snapshots),
        result="successful",
        stats=_stats(twin, built, done, propagation, scheme, dt, t_end, setup_s),
        purkinje_lat=tree_lat,
    )


def _check_propagation(propagation: str, scheme: str | Scheme) -> None:
    if propagation not in PROPAGATIONS:
        near = difflib.get_close_matches(propagation, PROPAGATIONS, n=1, cutoff=0.0)[0]
        raise InputError(
            f"unknown propagation '{propagation}'; the nearest is '{near}'. Known: "
            f"{', '.join(PROPAGATIONS)}."
        )
    if propagation != "monodomain" and scheme != "default":
        raise InputError(
            f"scheme '{scheme}' has no effect with propagation '{propagation}', which does not "
            "solve for the front: leave it out, or take propagation 'monodomain'."
        )


def _refuse_idle(given: dict[str, Any]) -> None:
    idle = [name for name, value in given.items() if value is not None]
    if idle:
        raise InputError(
            f"{', '.join(idle)}: propagation 'eikonal' has no steps in time to store or resume; "
            "leave it out, or take propagation 'reaction-eikonal'."
        )


def _leads(twin: Twin, t, potentials) -> Ecg | None:
    return None if twin.electrodes is None else twelve_lead(t, potentials, twin.electrodes.names)


def _lead_field(twin: Twin, unbounded: Callable, stored: Callable) -> np.ndarray | None:
    """By node or by element: the twin's stored one, if it fits, else that of the endless medium."""
    if twin.electrodes is None:
        return None
    sigma_i = intracellular_tensor(twin)
    if twin.lead_field is None:
        return unbounded(twin.heart.mesh, twin.electrodes, sigma_i)
    twin.lead_field.check(twin.heart, sigma_i=sigma_i)
    return np.asarray(stored(twin.lead_field))


def _reaction_eikonal(twin: Twin, stimuli, t_end, diffusion, settings):
    """The problem, and when the first beat reaches the Purkinje tree."""
    heart, threshold = twin.heart, settings["threshold"]
    sources = sources_of(heart, twin.cell, stimuli, twin.purkinje, t_end, threshold=threshold)
    problem = build_eikonal(heart, twin.conductivity, purkinje=twin.purkinje)
    lat = np.asarray(sources.arrivals(problem))
    built = build_reaction_eikonal(
        heart,
        twin.cell,
        twin.conductivity,
        lat[:, : heart.mesh.n_nodes],
        diffusion=diffusion,
        **settings,
    )
    return built, _of_tree(twin, lat[0])


def _of_tree(twin: Twin, lat) -> Float[np.ndarray, "branch_node"] | None:
    """Part of the arrivals that belongs to the Purkinje tree; NaN where the wave does not come."""
    if twin.purkinje is None:
        return None
    lat = np.asarray(lat)[twin.heart.mesh.n_nodes :]
    return np.where(np.isfinite(lat), lat, np.nan)


def eikonal_beat(
    twin: Twin,
    stimuli: Stimulus | Sequence[Stimulus],
    *,
    t_end: float,
    sampling: float = _BEAT_SAMPLING,
    threshold: float = 0.0,
) -> EikonalBeat:
    r"""Set up a beat by the eikonal equation and template action potentials.

    .. math:: \sqrt{\nabla\tau \cdot M \nabla\tau} = 1, \qquad V(x, t) = U(t - \tau(x); APD(x))

    The front is integrated inside the elements, so that the ECG is smooth in everything it depends
    on, on clinical meshes too (see `twinheart.tissue.wave_ecg`).

    Parameters
    ----------
    twin : Twin
        What to simulate; its velocities are those of the eikonal equation.
    stimuli : Stimulus or sequence of Stimulus
        Pulses of one beat.
    t_end : float
        End of the ECG [ms].

    Other Parameters
    ----------------
    sampling : float
        Interval of the ECG [ms], a multiple of 1/8 ms.
    threshold : float
        Activation threshold [mV].

    Returns
    -------
    EikonalBeat
        Ready to be evaluated, differentiated and changed.

    Raises
    ------
    InputError
        If the stimuli make more than one beat.
    ModelError
        If they do not fit the heart, or cells have no template.

    Examples
    --------
    >>> import equinox as eqx, jax, jax.numpy as jnp, numpy as np, twinheart as th
    >>> heart = th.demo_heart()
    >>> electrodes = th.standard_12_lead(heart)
    >>> twin = th.Twin(heart, cell="mitchell-schaeffer", electrodes=electrodes)
    >>> beat = th.eikonal_beat(twin, th.pace("apex"), t_end=100.0)
    >>> def peak(cv):
    ...     faster = eqx.tree_at(lambda b: b.problem.velocity, beat, cv)
    ...     return jnp.abs(faster.potentials()).max()
    >>> jax.grad(peak)(beat.problem.velocity).shape  # fibre, sheet and normal of three regions
    (3, 3)
    """
    stimuli = [stimuli] if isinstance(stimuli, Stimulus) else list(stimuli)
    return build_eikonal_beat(
        twin.heart,
        twin.cell,
        twin.conductivity,
        stimuli,
        purkinje=twin.purkinje,
        shares=_lead_field(twin, lead_shares, lambda field: field.shares),
        t=sampling * np.arange(1, round(t_end / sampling) + 1),
        threshold=threshold,
    )


def _eikonal(twin: Twin, stimuli, t_end: float, threshold: float, probes) -> Beat:
    start = time.perf_counter()
    beat = eikonal_beat(twin, stimuli, t_end=t_end, threshold=threshold)
    n_nodes = twin.heart.mesh.n_nodes
    setup_s = time.perf_counter() - start
    start = time.perf_counter()
    arrivals = beat.lat()
    lat = np.asarray(arrivals[:n_nodes])
    lat = np.where(np.isfinite(lat), lat, np.nan)
    apd90 = np.where(np.isfinite(lat), np.asarray(beat.templates.apd90), np.nan)
    t = _BEAT_SAMPLING * np.arange(1, round(t_end / _BEAT_SAMPLING) + 1)
    potentials = np.zeros((len(t), 0))
    if beat.ecg is not None:
        potentials = np.asarray(eqx.filter_jit(EikonalBeat.potentials)(beat, arrivals))
    nodes = np.asarray([] if probes is None else probes, dtype=int)
    return Beat(
        lat=lat,
        repol=lat + apd90,
        apd90=apd90,
        ecg=_leads(twin, t, potentials),
        potentials=potentials,
        t=t,
        probes=np.asarray(beat.templates.voltage(t[:, None] - lat[nodes], nodes)),
        vm_file=None,
        result="successful",
        stats={
            **_sizes(twin, "eikonal", t_end),
            "unreached_nodes": int(np.isnan(lat).sum()),
            "device": jax.devices()[0].device_kind,
            "setup_s": setup_s,
            "wall_s": time.perf_counter() - start,
        },
        purkinje_lat=_of_tree(twin, arrivals),
    )


def _sizes(twin: Twin, propagation: str, t_end: float) -> dict[str, Any]:
    return {
        "propagation": propagation,
        "n_nodes": twin.heart.mesh.n_nodes,
        "n_tets": twin.heart.mesh.n_tets,
        "t_end_ms": t_end,
    }


def _stats(
    twin: Twin, built: Built, done: Run, propagation, scheme, dt, t_end, setup_s
) -> dict[str, Any]:
    """Sizes, scheme, expected conduction, times of set-up and run."""
    n_steps = max(done.steps, 1)
    return {
        **_sizes(twin, propagation, t_end),
        "dt_ms": dt,
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
