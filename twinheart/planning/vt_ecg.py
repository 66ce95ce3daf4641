"""Twelve-lead ECG of an induced tachycardia, and what it shows."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from twinheart.ecg import Ecg, Electrodes, LeadField, lead_shares, twelve_lead
from twinheart.ecg.morphology import frontal_axis, r_wave_progression
from twinheart.errors import InputError
from twinheart.mesh.quality import mean_edge
from twinheart.planning.circuits.screening import conducting_tets, slowest_waves
from twinheart.planning.induction.one_site import SiteResult, activation_train
from twinheart.planning.induction.protocols import Protocol
from twinheart.planning.pace_mapping.vt_beat import vt_beat
from twinheart.planning.substrate import Substrate
from twinheart.tissue import Train
from twinheart.tissue.train_ecg import train_ecg, train_templates
from twinheart.twin import Twin, intracellular_tensor

LENGTH = 2000.0  # ms of an ECG
_SETTLED = 0.25  # share of the observation after which re-entry runs by itself
_SAMPLING = 1.0  # ms
_LOWPASS = 1.0  # ms, standard deviation of a Gaussian: 3 dB at 133 Hz, as recorders filter
_ALLOWED = 1.5  # of the time that a wave needs across an element: fronts are bent there
_FLAT = 0.01  # of the steepest slope
_TYPICAL = 0.9  # share of the elements that are sampled finely enough


class BodyLeads(NamedTuple):
    """Where an ECG is taken.

    Attributes
    ----------
    electrodes : Electrodes
        Around the heart.
    lead_field : LeadField or None
        Of a torso, with its own electrodes; None: the unbounded medium.
    """

    electrodes: Electrodes
    lead_field: LeadField | None = None


def substrate_ecg(
    substrate: Substrate, leads: BodyLeads, train: Train, start: float, length: float = LENGTH
) -> Ecg:
    """ECG of a train of activations of a substrate.

    Parameters
    ----------
    substrate : Substrate
        Heart, cells and conduction.
    leads : BodyLeads
        Electrodes, and a lead field where there is one.
    train : Train
        Activations until 12 ms after the end of the ECG.
    start, length : float
        When the ECG begins, on the clock of the train, and how long it is [ms].

    Returns
    -------
    Ecg
        Twelve leads [mV] every millisecond, from 0 ms on.

    Raises
    ------
    InputError
        If the lead field is that of another heart.
    ModelError
        If a cell model has no template action potential.
    """
    heart = substrate.heart
    twin = Twin(heart, substrate.cells, substrate.conduction)
    sigma_i = intracellular_tensor(twin)
    if leads.lead_field is None:
        shares = lead_shares(heart.mesh, leads.electrodes, sigma_i)
        names = leads.electrodes.names
    else:
        leads.lead_field.check(heart, sigma_i=sigma_i)
        shares, names = np.asarray(leads.lead_field.shares), leads.lead_field.electrodes.names
    t = start + _SAMPLING * np.arange(int(length / _SAMPLING) + 1)
    longest = _longest_edges(heart.mesh)
    needed = longest / _slowest(substrate)
    conducts = np.isfinite(needed)
    share = mean_edge(heart.mesh) / float(longest[conducts].mean())
    phi = train_ecg(
        heart.mesh.tets, shares, train, train_templates(heart, substrate.cells), t,
        longest=_ALLOWED * needed, lowpass=_LOWPASS,
        crossing=share * float(np.quantile(needed[conducts], _TYPICAL)),
    )  # fmt: skip
    return twelve_lead(t - start, phi, names)


def tachycardia_ecg(
    substrate: Substrate, leads: BodyLeads, result: SiteResult, protocol: Protocol
) -> Ecg:
    """ECG of two seconds of the tachycardia that was induced from a site.

    They begin a quarter of the observation after the last stimulus, or end with the observation
    where that is later; a run that was observed for less goes on.

    Parameters
    ----------
    substrate : Substrate
        What was paced.
    leads : BodyLeads
        Electrodes, and a lead field where there is one.
    result : SiteResult
        Of a site that induced.
    protocol : Protocol
        With which.

    Returns
    -------
    Ecg
        Twelve leads [mV].

    Raises
    ------
    InputError
        If nothing was induced, or as `substrate_ecg`.
    """
    until = max(protocol.observe, _SETTLED * protocol.observe + LENGTH)
    longer = replace(protocol, observe=until)
    train = activation_train(substrate.problem, substrate.restitution, result, longer)
    return substrate_ecg(substrate, leads, train, result.stimuli[-1] + until - LENGTH)


def vt_features(ecg: Ecg, cycle_length: float) -> dict[str, Any]:
    """What an ECG of a tachycardia shows, under names that carry their units.

    Parameters
    ----------
    ecg : Ecg
        Twelve leads [mV].
    cycle_length : float
        Of the tachycardia [ms].

    Returns
    -------
    dict
        Rate, duration of the QRS, its frontal axis and its bundle-branch pattern (by the sign of
        the area in V1) and transition; None where no QRS can be told apart, and why. ``ends_ms``
        is when the leads become flat for good, None if they do not.

    Examples
    --------
    >>> import numpy as np
    >>> from twinheart.ecg import Ecg
    >>> from twinheart.planning.vt_ecg import vt_features
    >>> t = np.arange(0.0, 2000.0)
    >>> wide = sum(np.exp(-(((t - at) / 45) ** 2)) for at in (300, 700, 1100, 1500, 1900))
    >>> found = vt_features(Ecg(t, np.stack([wide, -wide, wide], 1), ("I", "II", "V1")), 400.0)
    >>> found["rate_per_min"], round(found["axis_deg"]), found["pattern"]
    (150.0, -60, 'right bundle branch')
    """
    rate = 60_000.0 / cycle_length if np.isfinite(cycle_length) else None
    found: dict[str, Any] = {"rate_per_min": rate, "qrs_ms": None, "axis_deg": None,
                             "pattern": None, "transition": None,
                             "ends_ms": _flat_from(ecg, cycle_length)}  # fmt: skip
    try:
        beat = vt_beat(ecg)
        qrs = (0.0, beat.duration)
        found |= {"qrs_ms": beat.duration, "axis_deg": frontal_axis(beat.ecg, qrs)}
        found["transition"] = r_wave_progression(beat.ecg, qrs).transition
        if "V1" in beat.ecg.names:
            found["pattern"] = f"{_side(beat.ecg, beat.duration)} bundle branch"
    except InputError as error:
        found["reason"] = str(error)
    return found


def _flat_from(ecg: Ecg, cycle_length: float) -> float | None:
    """When nothing more happens for longer than a cycle [ms]."""
    t, steep = (
        np.asarray(ecg.t, float),
        np.abs(np.diff(np.asarray(ecg.signals), axis=0)).max(axis=1),
    )
    last = float(t[np.flatnonzero(steep > _FLAT * steep.max())[-1] + 1]) if steep.any() else t[0]
    return last if t[-1] - last > cycle_length else None


def _side(beat: Ecg, duration: float) -> str:
    t = np.asarray(beat.t, float)
    v1 = np.asarray(beat["V1"], float)[(t >= 0.0) & (t <= duration)]
    return "right" if float((v1 - v1[0]).sum()) > 0 else "left"


def _longest_edges(mesh) -> np.ndarray:
    corners = mesh.points[mesh.tets]
    edges = corners[:, [0, 0, 0, 1, 1, 2]] - corners[:, [1, 2, 3, 2, 3, 3]]
    return np.linalg.norm(edges, axis=2).max(axis=1)


def _slowest(substrate: Substrate) -> np.ndarray:
    """Velocity of the slowest wave in each tetrahedron [m/s]; NaN where nothing conducts."""
    slowest = slowest_waves(substrate)
    tags, place = np.unique(substrate.heart.regions, return_inverse=True)
    speed = np.array([slowest.get(int(tag), np.nan) for tag in tags])[place.ravel()]
    return np.where(conducting_tets(substrate), speed, np.nan)
