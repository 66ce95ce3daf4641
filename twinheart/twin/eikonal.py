"""A beat by the eikonal equation and template action potentials."""

import time
from collections.abc import Sequence

import equinox as eqx
import jax
import numpy as np

from twinheart.ecg import lead_shares
from twinheart.tissue import Stimulus
from twinheart.tissue.eikonal_beat import EikonalBeat, build_eikonal_beat
from twinheart.twin.core import Beat, Twin, lead_field_of, leads_of, part_of_tree, sizes_of

_BEAT_SAMPLING = 0.5  # ms, of ECG and probes


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
        shares=lead_field_of(twin, lead_shares, lambda field: field.shares),
        t=sampling * np.arange(1, round(t_end / sampling) + 1),
        threshold=threshold,
    )


def simulate_eikonal(twin: Twin, stimuli, t_end: float, threshold: float, probes) -> Beat:
    """A beat by the eikonal equation, for `twinheart.simulate`."""
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
        ecg=leads_of(twin, t, potentials),
        potentials=potentials,
        t=t,
        probes=np.asarray(beat.templates.voltage(t[:, None] - lat[nodes], nodes)),
        vm_file=None,
        result="successful",
        stats={
            **sizes_of(twin, "eikonal", t_end),
            "unreached_nodes": int(np.isnan(lat).sum()),
            "device": jax.devices()[0].device_kind,
            "setup_s": setup_s,
            "wall_s": time.perf_counter() - start,
        },
        purkinje_lat=part_of_tree(twin, arrivals),
    )
