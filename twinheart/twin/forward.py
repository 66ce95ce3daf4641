"""`simulate`: the forward model of a twin."""

import difflib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from twinheart.ecg import lead_field
from twinheart.errors import InputError
from twinheart.tissue import (
    Built,
    Run,
    Samples,
    Scheme,
    State,
    Stimulus,
    build_eikonal,
    build_monodomain,
    run,
)
from twinheart.tissue.excitation import sources_of
from twinheart.tissue.reaction_eikonal import build_reaction_eikonal
from twinheart.twin.core import Beat, Twin, lead_field_of, leads_of, part_of_tree, sizes_of
from twinheart.twin.eikonal import simulate_eikonal

PROPAGATIONS = ("monodomain", "reaction-eikonal", "eikonal")


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
    devices: int | None = None,
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
    devices : int, optional
        Spread a heart of ``"monodomain"`` over as many devices; worth it from about two million
        nodes (see docs/several_devices.md).
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
    _check_propagation(propagation, scheme, devices)
    if propagation == "eikonal":
        idle = {"snapshots": snapshots, "checkpoint": checkpoint, "resume": resume or None}
        _refuse_idle(idle)
        return simulate_eikonal(twin, stimuli, t_end, threshold, probes)
    start = time.perf_counter()
    settings = {
        "dt": dt,
        "threshold": threshold,
        "lead_field": lead_field_of(twin, lead_field, lambda field: field.weights),
        "probes": None if probes is None else np.asarray(probes),
    }
    tree_lat = None
    if propagation == "monodomain":
        built = build_twin_monodomain(twin, stimuli, scheme=scheme, **settings)
    else:
        built, tree_lat = _reaction_eikonal(twin, stimuli, t_end, diffusion, settings)
    setup_s = time.perf_counter() - start
    done = run(
        built,
        t_end,
        points=points_of(twin) if propagation == "monodomain" else twin.heart.mesh.points,
        snapshots=snapshots,
        snapshot_every=snapshot_every,
        checkpoint=checkpoint,
        resume=resume,
        devices=devices,
        progress=progress,
    )
    return beat_of(
        twin,
        built,
        done.state,
        done.samples,
        vm_file=None if snapshots is None else Path(snapshots),
        stats=_stats(twin, built, done, propagation, scheme, dt, t_end, devices, setup_s),
        tree_lat=tree_lat,
    )


def build_twin_monodomain(twin: Twin, stimuli: Sequence[Stimulus], **settings: Any) -> Built:
    """The monodomain problem of a twin; settings as of `twinheart.tissue.build_monodomain`."""
    return build_monodomain(
        twin.heart, twin.cell, twin.conductivity, stimuli, purkinje=twin.purkinje, **settings
    )


def points_of(twin: Twin) -> np.ndarray:
    """Nodes of the mesh, then those of the Purkinje tree [mm]."""
    points = twin.heart.mesh.points
    tree = [] if twin.purkinje is None else [twin.purkinje.tree.points]
    return np.concatenate([points, *tree])


def beat_of(
    twin: Twin,
    built: Built,
    state: State,
    samples: Samples,
    *,
    stats: dict[str, Any],
    vm_file: Path | None = None,
    tree_lat: np.ndarray | None = None,
) -> Beat:
    """What a run left, in mesh order; `tree_lat` where the tree is not among the nodes."""
    if twin.purkinje is not None and tree_lat is None:
        tree_lat = np.asarray(state.lat)[built.assembly.place[twin.heart.mesh.n_nodes :]]
    in_mesh_order = built.problem.tissue.to_mesh_order
    lat, repol = in_mesh_order(state.lat), in_mesh_order(state.repol)
    return Beat(
        lat=lat,
        repol=repol,
        apd90=repol - lat,
        ecg=leads_of(twin, samples.t, samples.potentials),
        potentials=np.asarray(samples.potentials),
        t=np.asarray(samples.t),
        probes=np.asarray(samples.probes),
        vm_file=vm_file,
        result="successful",
        stats=stats,
        purkinje_lat=tree_lat,
    )


def _check_propagation(propagation: str, scheme: str | Scheme, devices: int | None) -> None:
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
    if propagation != "monodomain" and devices is not None:
        raise InputError(
            f"devices has no effect with propagation '{propagation}', which runs on one: leave it "
            "out, or take propagation 'monodomain'."
        )


def _refuse_idle(given: dict[str, Any]) -> None:
    idle = [name for name, value in given.items() if value is not None]
    if idle:
        raise InputError(
            f"{', '.join(idle)}: propagation 'eikonal' has no steps in time to store or resume; "
            "leave it out, or take propagation 'reaction-eikonal'."
        )


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
    return built, part_of_tree(twin, lat[0])


def _stats(
    twin: Twin, built: Built, done: Run, propagation, scheme, dt, t_end, devices, setup_s
) -> dict[str, Any]:
    """Sizes, scheme, expected conduction, times of set-up and run."""
    n_steps = max(done.steps, 1)
    return {
        **sizes_of(twin, propagation, t_end),
        "dt_ms": dt,
        "scheme": scheme if isinstance(scheme, str) else eqx.tree_pformat(scheme),
        "stages": getattr(built.problem.scheme, "stages", None),
        "conduction": built.conduction,
        "stiffness": built.stiffness,
        "device": jax.devices()[0].device_kind,
        "devices": devices or 1,
        "setup_s": setup_s,
        "compile_s": done.compile_s,
        "wall_s": done.wall_s,
        "ns_per_node_step": 1e9 * done.wall_s / (n_steps * twin.heart.mesh.n_nodes),
    }
