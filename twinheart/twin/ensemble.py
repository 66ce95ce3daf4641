"""`simulate_ensemble`: many beats of one heart at once."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinheart.ecg import lead_field
from twinheart.errors import InputError
from twinheart.tissue import Built, Scheme, Stimulus
from twinheart.tissue.build import stimulated
from twinheart.tissue.ensemble import Ensemble, EnsemblePlan, kind_of
from twinheart.tissue.memory import Memory
from twinheart.twin.core import Beat, Twin, lead_field_of, sizes_of
from twinheart.twin.forward import beat_of, build_twin_monodomain, points_of

Stimuli = Stimulus | Sequence[Stimulus]


def simulate_ensemble(
    twins: Twin | Sequence[Twin],
    stimuli: Stimuli | Sequence[Sequence[Stimulus]],
    *,
    t_end: float,
    dt: float = 0.02,
    scheme: str | Scheme = "default",
    threshold: float = 0.0,
    probes: Sequence[int] | None = None,
    devices: int = 1,
    memory: Memory | None = None,
    progress: Callable[[float, float], None] | None = None,
    tell: Callable[[EnsemblePlan], None] | None = None,
) -> list[Beat]:
    r"""Simulate many beats at once: other cells, conductivities or stimuli of one heart.

    Each beat is the one that `twinheart.simulate` gives with propagation ``"monodomain"``. As many
    run at once as fit into memory; members with other equations or another number of Chebyshev
    stages run after each other.

    Parameters
    ----------
    twins : Twin or sequence of Twin
        One for each beat, of the same mesh, or one for all.
    stimuli : Stimulus, sequence of Stimulus or sequence of sequences
        For all beats, or a sequence for each of them.
    t_end : float
        Simulated time [ms].

    Other Parameters
    ----------------
    dt, scheme, threshold, probes
        As of `twinheart.simulate`.
    devices : int
        Devices that share the beats.
    memory : Memory, optional
        What may be taken of each; default: what is free.
    progress : callable, optional
        Called with (t, t_end) [ms].
    tell : callable, optional
        Called with the plan of each kind of members before they run, e.g. ``print``.

    Returns
    -------
    list of Beat
        One for each member, in their order.

    Raises
    ------
    InputError
        If there are no members, or twins and stimuli are not as many.
    SolverError
        If not even one member fits into memory, or a solution breaks down.

    Examples
    --------
    >>> import numpy as np, twinheart as th
    >>> mesh = th.mesh.generate.slab((10.0, 3.0, 3.0), 1.0)
    >>> heart = th.Heart(mesh, f0=np.tile([1.0, 0.0, 0.0], (mesh.n_tets, 1)))
    >>> twin = th.Twin(heart, cell="mitchell-schaeffer")
    >>> ends = [[th.pace("box:0,0,0,1,3,3")], [th.pace("box:9,0,0,10,3,3")]]
    >>> there, back = th.simulate_ensemble(twin, ends, t_end=30.0, dt=0.05)
    >>> bool(there.lat[0] < there.lat[-1]), bool(back.lat[0] > back.lat[-1])
    (True, True)
    """
    if not (np.isfinite(t_end) and t_end > 0):
        raise InputError(f"t_end is {t_end} ms, expected a positive number.")
    pairs = _members(twins, stimuli)
    start = time.perf_counter()
    built = _built(pairs, dt=dt, scheme=scheme, threshold=threshold, probes=probes)
    setup_s = time.perf_counter() - start
    kinds: dict[tuple, list[int]] = {}
    for k, one in enumerate(built):
        kinds.setdefault(kind_of(one.problem), []).append(k)
    beats: dict[int, Beat] = {}
    for chosen in kinds.values():
        ensemble = Ensemble([built[k].problem for k in chosen])
        plan = ensemble.plan(devices=devices, memory=memory)
        if tell is not None:
            tell(plan)
        start = time.perf_counter()
        points = points_of(pairs[chosen[0]][0])
        found = ensemble.run(t_end, points=points, plan=plan, progress=progress)
        stats = {
            "dt_ms": dt,
            "device": jax.devices()[0].device_kind,
            "devices": devices,
            "members_at_once": plan.at_once,
            "setup_s": setup_s,
            "wall_s": time.perf_counter() - start,  # of all members of the kind, with compilation
        }
        for k, (state, samples) in zip(chosen, found, strict=True):
            twin = pairs[k][0]
            own = sizes_of(twin, "monodomain", t_end) | {"conduction": built[k].conduction}
            beats[k] = beat_of(twin, built[k], state, samples, stats=own | stats)
    return [beats[k] for k in range(len(pairs))]


def _members(twins, stimuli) -> list[tuple[Twin, list[Stimulus]]]:
    """Twin and stimuli of every member."""
    each = [twins] if isinstance(twins, Twin) else list(twins)
    given: list[Any] = [stimuli] if isinstance(stimuli, Stimulus) else list(stimuli)
    lists = [given] if all(isinstance(s, Stimulus) for s in given) else [list(s) for s in given]
    if not each or not lists:
        raise InputError("an ensemble needs at least one twin and one list of stimuli.")
    if len(each) != len(lists) and 1 not in (len(each), len(lists)):
        raise InputError(
            f"got {len(each)} twins and {len(lists)} lists of stimuli; expected as many of both, "
            "or one of either for all."
        )
    n = max(len(each), len(lists))
    each = each * n if len(each) == 1 else each
    lists = lists * n if len(lists) == 1 else lists
    return list(zip(each, lists, strict=True))


def _built(pairs, *, probes, **settings) -> list[Built]:
    """The problem of every member; twins of the same parts differ in their stimuli only."""
    known: dict[tuple, Built] = {}
    fields: dict[tuple, np.ndarray | None] = {}
    found = []
    for twin, stimuli in pairs:
        parts = (twin.heart, twin.conductivity, twin.electrodes, twin.lead_field)
        leads = tuple(map(id, parts))
        key = (*leads, id(twin.cell), id(twin.purkinje))
        if key not in known:
            if leads not in fields:
                fields[leads] = lead_field_of(twin, lead_field, lambda field: field.weights)
            known[key] = build_twin_monodomain(
                twin,
                stimuli,
                lead_field=fields[leads],
                probes=None if probes is None else np.asarray(probes),
                **settings,
            )
        found.append(_with_stimuli(known[key], twin, stimuli))
    return found


def _with_stimuli(built: Built, twin: Twin, stimuli: list[Stimulus]) -> Built:
    masks = tuple(
        jnp.asarray(
            built.assembly.to_node_order(stimulated(twin.heart, twin.purkinje, s)),
            built.problem.tissue.lumped.dtype,
        )
        for s in stimuli
    )
    return built._replace(
        problem=dataclasses.replace(built.problem, stimuli=tuple(stimuli), stimulus_masks=masks)
    )
