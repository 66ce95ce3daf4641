"""Whether a calibrated twin still fits when the full equations carry the wave.

A twin is calibrated by the eikonal equation, with a template for the action potential. Here the
same twin runs by monodomain (or reaction-eikonal): its velocities become diffusivities that carry
such waves on its mesh, one repolarising current is scaled node by node until cells have the fitted
APD, and the ECG is compared with the data again. Nothing is fitted in between.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from twinheart.calibration.calibrate import Stage
from twinheart.calibration.observation import observe
from twinheart.calibration.twin_file import StoredTwin
from twinheart.ecg import Ecg, LeadField, lead_correlations
from twinheart.errors import InputError
from twinheart.twin import Beat, simulate

_LATE = np.arange(-20.0, 20.5)  # ms: waves take some time to start, or start a little early
_AFTER = 60.0  # ms simulated after the last sample of the data


class Translation(NamedTuple):
    """A calibrated twin, simulated.

    Attributes
    ----------
    beat : Beat
        What was simulated; its clock starts with the first stimulus.
    begins : float
        Time of its clock at the measured onset of the QRS [ms].
    late : float
        How much later its QRS came than the fitted one [ms]; correlations are taken after a shift
        by it.
    correlation : dict of str to dict of str to float
        By stage, ``"qrs"`` and ``"t_wave"``, and lead.
    lat_rms : float
        Root mean square of the difference to the fitted activation, after the shift [ms].
    activated : float
        Share of nodes that the simulated wave reaches.
    remarks : tuple of str
        Where cells cannot follow the fitted APD.
    """

    beat: Beat
    begins: float
    late: float
    correlation: dict[str, dict[str, float]]
    lat_rms: float
    activated: float
    remarks: tuple[str, ...]


def translate(
    stored: StoredTwin,
    stages: Mapping[str, Stage],
    *,
    propagation: str = "monodomain",
    lead_field: LeadField | None = None,
    **settings: Any,
) -> Translation:
    """Simulate a calibrated twin and compare its ECG with the data that it was fitted to.

    Parameters
    ----------
    stored : StoredTwin
        From `twinheart.calibration.load_twin`.
    stages : dict of str to Stage
        ``"qrs"``, and ``"t_wave"`` if there is one: their data are compared with.
    propagation : str
        As of `twinheart.simulate`.
    lead_field : LeadField, optional
        Of the torso, where the twin was fitted with one; a file of a twin does not hold it.
    **settings
        Further ones of `twinheart.simulate`, such as ``dt``.

    Returns
    -------
    Translation
        Beat, and correlation of every lead by stage.

    Raises
    ------
    InputError
        If the twin was fitted with a lead field and none is given, or has no electrodes.
    SolverError
        If the simulation ends early.

    Examples
    --------
    See ``notebooks/05_calibrate``.
    """
    if stored.facts.get("stored_lead_field") and lead_field is None:
        raise InputError("the twin was fitted with a lead field of a torso: give it again.")
    twin, remarks = stored.with_ionic_apd()
    if lead_field is not None:
        twin = eqx.tree_at(lambda t: t.lead_field, twin, lead_field, is_leaf=lambda x: x is None)
    begins = -float(np.nanmin(stored.lat))
    last = max(float(stage.objective.data.t[-1]) for stage in stages.values())
    beat = simulate(
        twin, stored.stimuli, t_end=begins + last + _AFTER, propagation=propagation, **settings
    )
    if beat.ecg is None:
        raise InputError("the twin has no electrodes: there is no ECG to compare.")
    beat_ecg = _before(beat.ecg)
    qrs = {late: _correlations(beat_ecg, begins + late, stages["qrs"]) for late in _LATE}
    late = max(qrs, key=lambda shift: float(np.mean(list(qrs[shift].values()))))
    found = {"qrs": qrs[late]}
    if "t_wave" in stages:
        found["t_wave"] = _correlations(beat_ecg, begins + late, stages["t_wave"])
    gap = beat.lat - begins - late - stored.lat
    return Translation(
        beat=beat,
        begins=begins,
        late=float(late),
        correlation=found,
        lat_rms=float(np.sqrt(np.nanmean(np.where(np.isfinite(gap), gap, np.nan) ** 2))),
        activated=float(np.isfinite(beat.lat).mean()),
        remarks=tuple(remarks),
    )


def _before(ecg: Ecg) -> Ecg:
    """The ECG with rest before its beginning, so that the data may begin earlier."""
    t, signals = np.asarray(ecg.t, float), np.asarray(ecg.signals, float)
    step = float(np.median(np.diff(t)))
    rest = np.arange(-300.0, 0.0, step)
    return Ecg(
        np.concatenate([t[0] + rest, t]),
        np.concatenate([np.repeat(signals[:1], len(rest), axis=0), signals]),
        ecg.names,
    )


def _correlations(ecg: Ecg, onset: float, stage: Stage) -> dict[str, float]:
    """Of every lead, filtered as the data are."""
    data = stage.objective.data
    bandwidth = np.sqrt(np.log(2.0)) / (2.0 * np.pi * data.lowpass) * 1e3
    window = (float(data.t[0]), float(data.t[-1]))
    own = observe(ecg, onset=onset, window=window, bandwidth=bandwidth, leads=data.names)
    return lead_correlations(data.names, np.asarray(own.signals), np.asarray(data.signals))
